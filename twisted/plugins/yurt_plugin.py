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

yurt_tunnel_server = ServiceMaker(
    "yurt-tunnel-server",
    "yurt.tunnel.server.tap",
    "Beside kube-apiserver: carries its calls of kubelets behind NAT through connections that the nodes have dialled.",
    "yurt-tunnel-server",
)

yurt_tunnel_agent = ServiceMaker(
    "yurt-tunnel-agent",
    "yurt.tunnel.agent.tap",
    "Connects a node behind NAT to the cloud, so that kubectl exec, logs and metrics reach its kubelet.",
    "yurt-tunnel-agent",
)

yurt_controller_manager = ServiceMaker(
    "yurt-controller-manager",
    "yurt.controllers.tap",
    "Looks after the cloud's side of the edge: approves the certificates that yurt's daemons ask for.",
    "yurt-controller-manager",
)
