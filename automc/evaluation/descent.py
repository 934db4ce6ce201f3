"""A repair's steps down the loss: gradients scaled, clipped, taken by the optimizer, and followed by the average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from automc.evaluation.average import Average
from automc.evaluation.device import Device
from automc.evaluation.recipe import Recipe, optimizer
from automc.evaluation.state import State


class Descent:
    """The training of one network, and of adapters that are thrown away afterwards.

    Args:
        adapters: empty before the first loss.
    """

    def __init__(self, model: nn.Module, adapters: nn.Module, recipe: Recipe, device: Device) -> None:
        self._trained = (model, adapters)
        self._clip = recipe.clip
        self._optimizer = optimizer(model, recipe)
        self._scaler = device.scaler()
        self._average = Average(model, recipe.ema) if recipe.ema else None
        self._begun = False

    def step(self, loss: Tensor, rate: float) -> None:
        """One step with this learning rate."""
        self._begin()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        for trained in self._trained:  # apart: adapters must not shrink the network's steps
            nn.utils.clip_grad_norm_(list(trained.parameters()), self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.follow()

    def state(self) -> State:
        """What the optimizer, the gradients' scale and the average remember; not the networks."""
        average = None if self._average is None else self._average.state()
        own = self._optimizer.state_dict()["state"]
        return {"optimizer": own, "scaler": self._scaler.state_dict(), "average": average}

    def restore(self, state: State) -> None:
        """Be as when ``state`` was taken, of the same networks; the adapters are there."""
        self._begin()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.restore(state["average"])

    def _begin(self) -> None:
        """The adapters train too, from the first loss on, which made them."""
        if not self._begun:
            adapters = list(self._trained[1].parameters())
            self._optimizer.add_param_group({"params": adapters, "weight_decay": 0.0})
            self._begun = True

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside the block the network is what ``end`` would leave."""
        if self._average is None:
            yield
            return
        with self._average.lent():
            yield

    def end(self) -> None:
        """The network keeps its average, where there is one."""
        if self._average is not None:
            self._average.give()
