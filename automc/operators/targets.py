"""What the layers of the original network give, at some places, and the sums that they go into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from automc.operators.base import Compression
from automc.operators.flow import Sums, flows
from automc.operators.positions import KINDS, drawn, filters, given

KEPT = 2**28
"""Bytes of all targets together; the layers for which there is no room have none."""
LARGEST = 2**29
"""Bytes of a layer's X^T X up to which it has a target: about 8,000 numbers a product."""
_KEY = ("sequential", "targets")


@dataclass(frozen=True)
class Target:
    """What one layer gives in the original network.

    Attributes:
        rows: places in the output of all calibration inputs together (see ``positions.drawn``).
        output: what it gives there, shape (rows, channels).
        total: the sum that the output goes straight into (see flow.py), of the same shape; None where there is none.
    """

    rows: Tensor
    output: Tensor
    total: Tensor | None = None


def targets(state: Compression) -> Mapping[str, Target]:
    """By name, for convolutions and linear layers that one forward uses exactly once, as far as there is room.

    One pass of all calibration inputs, of which there must be some, as one batch; kept in ``state.memory``.
    """
    if _KEY not in state.memory:
        state.memory[_KEY] = _Recorder(state).run()
    found: Mapping[str, Target] = state.memory[_KEY]
    return found


def _square(layer: Any) -> int:
    groups, _, length = filters(layer).shape
    return 8 * groups * length**2


class _Recorder:
    def __init__(self, state: Compression) -> None:
        self._state = state
        self._flows = flows(state)
        self._found: dict[str, Target] = {}
        self._room = KEPT

    def run(self) -> dict[str, Target]:
        model, sums = self._state.teacher, Sums(self._added)
        with ExitStack() as hooks, torch.no_grad():
            for layer in self._state.trace.table.layers:
                flow, module = self._flows[layer.name], model.get_submodule(layer.name)
                if layer.kind in KINDS and flow.calls == 1 and _square(module) <= LARGEST:
                    hooks.enter_context(module.register_forward_hook(self._made(layer.name, flow.summed)))
                    if flow.summed:
                        end = model.get_submodule(flow.norm or layer.name)
                        hooks.enter_context(sums.follow(end, layer.name))
            with sums:
                model(self._state.calibration)
        return self._found

    def _made(self, name: str, summed: bool) -> Callable[..., None]:
        def hook(layer: Any, args: Any, output: Tensor) -> None:
            rows = drawn(layer, output)
            numbers = given(layer, output, rows)
            size = rows.nbytes + numbers.nbytes * (2 if summed else 1)
            if size <= self._room:
                self._room -= size
                self._found[name] = Target(rows, numbers)

        return hook

    def _added(self, name: str, own: Tensor, other: Tensor) -> None:
        if name in self._found:
            layer: Any = self._state.teacher.get_submodule(name)
            target = self._found[name]
            total = given(layer, own, target.rows) + given(layer, other, target.rows)
            self._found[name] = replace(target, total=total)
