"""
The machine a daemon runs on: the link that carries the address pods reach, and the firewall rules for it.

What is to change is decided by pure functions (``links.plan``, ``firewall.plan``); one file per library reads the kernel and
applies the edits.  Those libraries take a good part of a second and 24 MB to import, so they live only in a short-lived
child, ``python -m yurt.host``; a daemon imports ``child``, ``messages`` and ``probe``.
"""
