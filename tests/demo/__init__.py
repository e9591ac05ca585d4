"""
``make demo``: a miniature cloud and all of yurt's daemons on this machine, without root: what they do when the cloud or the link
to a node goes away, and comes back.
"""
