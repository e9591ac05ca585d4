"""
The figures of the tunnel, each printed by one command: ``python -m bench.tunnel bulk``, or ``all``.

A server and agents as they are started on real machines, nginx in kubelet's place, everything on loopback, without root and
without a cluster.  Each figure stands beside the direct path to the same nginx in the same run.
"""
