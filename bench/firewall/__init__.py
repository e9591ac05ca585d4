"""
What the firewall rules of a large cluster cost.
"""
