"""Small matrices, one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra in one thread while this lasts.

    Several threads make small matrices slower, by far where workers hold the cores, and the last bits of a sum
    may depend on how many there are.
    """
    found: AbstractContextManager[Any] = _controller().limit(limits=1)
    return found


@cache
def _controller() -> ThreadpoolController:
    """Looking at all loaded libraries takes longer than a proposal."""
    return ThreadpoolController()
