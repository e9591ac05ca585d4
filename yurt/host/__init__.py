"""
The machine a daemon runs on: the link that carries the address pods reach, the firewall rules for it, and the chains that lead
connections into the tunnel.

What is to change is decided by pure functions (``links.plan``; ``firewall.plan`` for rules among those of others, ``chains.plan``
for chains that are wholly ours); one file per library reads the kernel and applies the edits.  Those libraries are slow to
import and take 24 MB, so they live only in a short-lived child, ``python -m yurt.host``; a daemon imports ``child``,
``messages``, ``probe``, ``tunnel_rules`` and ``flows``.
"""
