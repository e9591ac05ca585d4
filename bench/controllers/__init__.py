"""
The figures of the controllers, printed by one command: ``python -m bench.controllers approver``, or ``all``.

A real API server with its etcd, the daemon as it is started on real machines with the rights of its manifest, everything on
loopback and without root.
"""
