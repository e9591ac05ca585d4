"""Kubernetes at the edge as Twisted daemons."""

__version__ = "0.1.0"
