"""
The twistd subcommands of yurt.
"""

from twisted.application.service import ServiceMaker

yurthub = ServiceMaker(
    "yurthub",
    "yurt.hub.tap",
    "Proxy and cache between a node and its Kubernetes API server; serves from disk when the cloud is away.",
    "yurthub",
)
