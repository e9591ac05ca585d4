"""
yurt-controller-manager: what looks after the cluster's side of the edge.  A controller is one module, which says what it follows
and, as a pure function, what is to be written; all else is the frame, the same for every one.
"""
