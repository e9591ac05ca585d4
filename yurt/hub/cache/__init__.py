"""
What the hub keeps on disk: a store of checksummed records, and in it the views that callers were given of the cluster.
"""

from yurt.hub.cache.store import Store
from yurt.hub.cache.table import Table
from yurt.hub.cache.views import ABSENT, GETS, Absent, Caller, Found, FoundList, InitialEvents, ViewInfo, ViewKey, Views

__all__ = [
    "ABSENT",
    "GETS",
    "Absent",
    "Caller",
    "Found",
    "FoundList",
    "InitialEvents",
    "Store",
    "Table",
    "ViewInfo",
    "ViewKey",
    "Views",
]
