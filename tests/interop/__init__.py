"""
Tests against other implementations of the formats that are spoken here.
"""
