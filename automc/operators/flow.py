"""Who feeds whom: what one forward of the original network tells about the way of each layer's output.

Tensors are followed by identity: a layer's output is at the norm, or at the sum, when that very object arrives there
unchanged. So it works whatever Python a forward is written in, through containers, ``nn.Identity`` and dropout that is
off; a view or a copy on the way ends the trail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.outputs import tensors_of
from automc.operators.recalibrate import entered

_SUMS = {"add", "add_", "__add__", "__iadd__", "__radd__"}


@dataclass(frozen=True)
class Flow:
    """Where a layer's output goes.

    Attributes:
        norm: path of the batch norm that it goes straight into and nothing else reads, "" where there is none.
        summed: the output, behind that norm if there is one, goes straight into a sum with another tensor of its shape
            and nowhere else. Of two layers that are summed, the later one has it.
        calls: how often one forward uses the layer.
    """

    norm: str = ""
    summed: bool = False
    calls: int = 1


def flows(state: Compression) -> Mapping[str, Flow]:
    """By layer of the table, where its output goes in the original network; found once and remembered.

    Raises:
        CompressionError: there are no calibration inputs to run.
    """
    key = ("flow",)
    if key not in state.memory:
        if state.calibration is None or not len(state.calibration):
            raise CompressionError("where the layers' outputs go is seen on calibration inputs; there are none")
        names = [layer.name for layer in state.trace.table.layers]
        state.memory[key] = _Follower(state.teacher, names).run(state.calibration[:2])
    found: Mapping[str, Flow] = state.memory[key]
    return found


def addends(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """The two tensors that a call of a torch function adds, of one shape and not the same; None if it does not."""
    if getattr(func, "__name__", "") not in _SUMS or "alpha" in kwargs:
        return None
    given = [*args, *(kwargs[name] for name in ("input", "other") if name in kwargs)]
    if len(given) != 2 or not all(isinstance(each, Tensor) for each in given):
        return None
    first, second = given
    return (first, second) if first is not second and first.shape == second.shape else None


@dataclass(eq=False)
class Trail:
    """A tensor on its way, as it was when it was made; ``layer`` made it, ``norm`` normalised it since."""

    layer: str
    tensor: Tensor
    version: int
    norm: str = ""
    uses: int = 0
    order: int = 0

    def at(self, tensor: Any) -> bool:
        """It is this very tensor, and nothing was written into it."""
        return tensor is self.tensor and tensor._version == self.version


class _Follower(TorchFunctionMode):
    """Follows the outputs of layers through one forward; every torch function that is called passes here."""

    def __init__(self, model: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self._model = model
        self._layers = layers
        self._trails: dict[int, Trail] = {}  # by the id of the tensor, which a trail keeps alive
        self._calls = dict.fromkeys(layers, 0)
        self._sums: list[Trail] = []

    def run(self, example: Tensor) -> dict[str, Flow]:
        with ExitStack() as hooks, torch.no_grad(), self:
            for name in self._layers:
                hooks.enter_context(self._model.get_submodule(name).register_forward_hook(self._made(name)))
            for path, module in self._model.named_modules():
                if isinstance(module, _BatchNorm):
                    hooks.enter_context(module.register_forward_hook(self._normed(path), with_kwargs=True))
            self._model(example)
        return self._found()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if pair := addends(func, args, kwargs):
            own = [trail for tensor in pair if (trail := self._trail(tensor))]
            self._sums += [max(own, key=lambda trail: trail.order)] if own else []
        read = [trail for tensor in tensors_of([args, kwargs]) if (trail := self._trail(tensor))]
        result = func(*args, **kwargs)
        made = tensors_of(result)
        for trail in read:
            # Not read by what gives no tensor (a shape), nor by what passes it on (dropout that is off).
            trail.uses += bool(made) and not any(trail.at(tensor) for tensor in made)
        return result

    def _trail(self, tensor: Tensor) -> Trail | None:
        trail = self._trails.get(id(tensor))
        return trail if trail and trail.at(tensor) else None

    def _follow(self, tensor: Tensor, layer: str, norm: str = "") -> None:
        order = len(self._trails)
        self._trails[id(tensor)] = Trail(layer, tensor, tensor._version, norm, order=order)

    def _made(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._calls[name] += 1
            if isinstance(output, Tensor):
                self._follow(output, name)

        return hook

    def _normed(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            trail = self._trail(entered(args, kwargs))
            if trail and not trail.norm:
                self._follow(output, trail.layer, path)

        return hook

    def _found(self) -> dict[str, Flow]:
        trails = [trail for trail in self._trails.values() if self._calls[trail.layer] == 1]
        alone = {(trail.layer, trail.norm) for trail in trails if trail.uses == 1}
        norms = {trail.layer: trail.norm for trail in trails if trail.norm and (trail.layer, "") in alone}
        times = Counter(norms.values())
        summed = {(trail.layer, trail.norm) for trail in self._sums} & alone
        return {
            name: Flow(norm := norms.get(name, ""), (name, norm) in summed and times[norm] <= 1, calls)
            for name, calls in self._calls.items()
        }


class Sums(TorchFunctionMode):
    """Shows followed tensors at the moment of the sum that they go into, before it is computed."""

    def __init__(self, see: Callable[[str, Tensor, Tensor], None]) -> None:
        """``see(name, own, other)``: who made the tensor, the tensor, and what it is added to."""
        super().__init__()
        self._see = see
        self._trails: dict[int, Trail] = {}

    def follow(self, module: nn.Module, name: str) -> RemovableHandle:
        """Follow what this module gives, in the name of ``name``, until the hook is removed."""

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._trails[id(output)] = Trail(name, output, output._version)

        return module.register_forward_hook(hook)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        pair = addends(func, args, kwargs)
        for own, other in (pair, pair[::-1]) if pair else ():
            trail = self._trails.get(id(own))
            if trail and trail.at(own):
                del self._trails[id(own)]
                self._see(trail.layer, own, other)
        return func(*args, **kwargs)
