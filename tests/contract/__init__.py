"""
The contract of an apiserver, run against the miniature one and against a real kube-apiserver.
"""
