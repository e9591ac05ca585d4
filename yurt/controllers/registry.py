"""
All controllers there are.  A new one is a module with ``NAME``, ``ALIASES`` and ``controller(config)``, and its line here.
"""

from __future__ import annotations

from collections.abc import Sequence

from yurt.controllers import csrapprover
from yurt.controllers.config import ControllersConfig
from yurt.controllers.controller import Controller

MODULES = (csrapprover,)

NAMES: dict[str, Sequence[str]] = {module.NAME: module.ALIASES for module in MODULES}
"""Their names, and other names that are taken for each."""


def chosen(config: ControllersConfig) -> list[Controller]:
    """
    The controllers that ``config`` chooses.
    """
    return [module.controller(config) for module in MODULES if module.NAME in config.controllers]
