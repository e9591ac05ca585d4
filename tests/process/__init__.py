"""
The hub as a process of its own, between real sockets, with the miniature apiserver as its cloud.
"""
