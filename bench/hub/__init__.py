"""
The figures of the hub, each printed by one command: ``python -m bench.hub small-get``, or ``all``.

Needs nginx and wrk (Debian: ``apt-get install nginx-light wrk``), which are the peers it is compared with.  Everything runs on
loopback, in a temporary folder, and ends with the command.
"""
