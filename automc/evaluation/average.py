"""The moving average of a network's weights over the steps of a repair (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from automc.evaluation.state import State
from automc.operators import live
from automc.operators.quantizers.inputs import LearnedStepInput
from automc.operators.quantizers.rows import ScaledQuantizer


class Average:
    """``average = keep * average + (1 - keep) * weights`` after each step, from the weights before the first.

    ``keep = min(decay, (1 + t) / (10 + t))`` after t earlier steps, so that a short repair too forgets where it began:
    the average then leans on about the last tenth of the steps (Shamir & Zhang 2013, polynomial decay).

    What is averaged are the parameters: the dense weights below masks and quantizers, tables, learned steps (by their
    size, since a step counts without its sign). Buffers are the network's own. So the averaged network is as
    compressed as the other: its codes and masks are chosen from the averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._done = 0
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._signless = {id(step) for step in _steps(model)}
        self._averages = [self._value(p).clone() for p in self._trained]

    @torch.no_grad()
    def follow(self) -> None:
        """Called after each step."""
        keep = min(self._decay, (1 + self._done) / (10 + self._done))
        self._done += 1
        for average, parameter in zip(self._averages, self._trained, strict=True):
            average.lerp_(self._value(parameter), 1 - keep)

    def state(self) -> State:
        """The averages and after how many steps."""
        return {"done": self._done, "averages": self._averages}

    def restore(self, state: State) -> None:
        """Be as when ``state`` was taken, of the same network."""
        self._done = state["done"]
        for average, value in zip(self._averages, state["averages"], strict=True):
            average.copy_(value)

    @torch.no_grad()
    def give(self) -> None:
        """The network gets the averaged weights, and the masks that its patterns choose for them."""
        self._set(self._averages)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside the block the network has the averaged weights, afterwards its own again."""
        own = [p.detach().clone() for p in self._trained]
        self.give()
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._trained, values, strict=True):
            parameter.copy_(value)
        live.regrow(self._model)

    def _value(self, parameter: Tensor) -> Tensor:
        return parameter.detach().abs() if id(parameter) in self._signless else parameter.detach()


def _steps(model: nn.Module) -> Iterator[Tensor]:
    """The learned steps of all quantizers: parameters whose sign does not count."""
    for module in model.modules():
        if isinstance(module, LearnedStepInput):
            yield module.scale
        elif isinstance(module, ScaledQuantizer) and isinstance(module.held, nn.Parameter):
            yield module.held
