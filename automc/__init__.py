"""automc: a joint search for how much to compress every layer of a trained PyTorch model.

The names below are imported when they are first used, so that ``import automc`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automc.app import tune
    from automc.app.api import search
    from automc.app.asking import cancel, pause, stop
    from automc.app.runs import extend, open_study, resume, studies, verify
    from automc.app.study import Study
    from automc.export.graph.load import load
    from automc.service.client import connect

__version__ = "0.1.0"

_HOME = {
    "search": "automc.app.api",
    "extend": "automc.app.runs",
    "open_study": "automc.app.runs",
    "resume": "automc.app.runs",
    "stop": "automc.app.asking",
    "pause": "automc.app.asking",
    "cancel": "automc.app.asking",
    "studies": "automc.app.runs",
    "verify": "automc.app.runs",
    "Study": "automc.app.study",
    "connect": "automc.service.client",
    "load": "automc.export.graph.load",
}

__all__ = [
    "Study",
    "cancel",
    "connect",
    "extend",
    "load",
    "open_study",
    "pause",
    "resume",
    "search",
    "stop",
    "studies",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "tune":
        return import_module("automc.app.tune")
    if name not in _HOME:
        raise AttributeError(f"module 'automc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
