"""
yurt among the real things: kube-apiserver, kubelet, containerd, kubectl, in network namespaces of this machine.
"""
