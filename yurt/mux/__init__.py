"""
Many streams over one connection: yamux frames and session without I/O, then the Twisted half.
"""
