"""
A miniature apiserver for tests, benchmarks and the demo: a fake that is verified, as ``tests.contract`` runs the same tests
against it and against a real kube-apiserver.
"""

from .api import MiniAPI, Seen
from .identity import User
from .resources import ResourceType, custom

__all__ = ["MiniAPI", "ResourceType", "Seen", "User", "custom"]
