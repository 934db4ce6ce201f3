"""Least squares layer by layer, each on what the compressed layers before it really give.

The cached refit (reconstruct.py) knows the original's features only: errors pile up from layer to layer. Here one
forward of the compressed network over all calibration inputs stops before every layer, refits it on the inputs that it
has now so that it gives what the original gave (He et al. 2017 do so layer by layer, with a pass each), and goes on.
Where the layer's output is added to a shortcut, the sum counts: the layer is asked for the
original's sum minus what the shortcut brings by now, and so makes up for what earlier blocks have lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from automc.operators.base import Compression
from automc.operators.copies import equal
from automc.operators.drop import Dropped
from automc.operators.factorized import parts
from automc.operators.flow import Sums, flows
from automc.operators.groups.ports import Port
from automc.operators.groups.slicing import losses
from automc.operators.live import LiveLayer
from automc.operators.live_kinds import shared_weights
from automc.operators.positions import given
from automc.operators.recalibrate import batch_norms, batch_statistics, entered
from automc.operators.refit import refit
from automc.operators.targets import targets


def reconstruct_sequentially(state: Compression, ridge: float) -> Compression:
    """Refit every layer behind the first change, in ``state.model``, on the compressed network's own features.

    Convolutions of every kind and linear layers; of a factorized layer the last part. Left as they are: live layers
    (so this comes before sparsify and quantize), recurrent and custom layers, weights that several modules share,
    layers that one forward uses several times, and those whose targets find no room in memory (``targets.KEPT``). All
    calibration inputs run as one batch, by whose statistics batch norm normalises, and which are stale afterwards.

    A batch norm behind a refitted layer keeps its scale, and restores the spread that a fit loses. Behind one whose
    shortcut is compensated its shift becomes the mean of what was missing from the sum.

    Args:
        state: with calibration inputs; without any, or where nothing has changed, it is returned as it is.
        ridge: above 0; see ``refit``.

    Raises:
        CompressionError: what a layer reads is NaN or infinite.
    """
    if state.calibration is None or not len(state.calibration) or equal(state.model, state.teacher):
        return state
    _Pass(state, ridge).run(state.calibration)
    return replace(state, stale=state.stale or bool(batch_norms(state.model)))


def kept_outputs(state: Compression) -> dict[str, Tensor]:
    """By module that lost outputs, those that stay, as the original counts them; int64."""
    sides = losses(state.trace.plans, state.removed)
    return {side.cut.module: torch.tensor(side.keep) for side in sides if side.cut.role in ("out", "depthwise", "each")}


def changed(module: nn.Module, original: nn.Module | None) -> bool:
    """Whether the module itself, not those inside it, is another one than it was."""
    if (
        original is None
        or isinstance(module, Dropped)
        or isinstance(module, LiveLayer) != isinstance(original, LiveLayer)
    ):
        return True
    own, others = _tensors(module), _tensors(original)
    return own.keys() != others.keys() or not all(torch.equal(own[name], others[name]) for name in own)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))


class _Pass:
    """One forward of the compressed network that refits its layers on the way.

    Attributes:
        begun: something before this point of the forward has changed.
        waiting: by layer that will be refitted at its sum, what it read.
    """

    def __init__(self, state: Compression, ridge: float) -> None:
        self._state, self._model, self._ridge = state, state.model, ridge
        self._targets, self._flows, self._keep = targets(state), flows(state), kept_outputs(state)
        self._modules = dict(state.model.named_modules())
        self._layers = self._refitted()
        self._sums = Sums(self._compensate)
        self.begun = False
        self.waiting: dict[str, Tensor] = {}

    def run(self, inputs: Tensor) -> None:
        # First the norms are told what to do, which takes a forward of its own.
        norms = batch_statistics(self._model, inputs, True, self._state.teacher)
        with torch.no_grad(), norms, self._hooks(), self._sums:
            self._model(inputs)

    def _hooks(self) -> ExitStack:
        hooks = ExitStack()
        for name, layer in self._layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(self._reached(name), with_kwargs=True))
            if self._compensates(name):
                hooks.enter_context(self._sums.follow(self._modules[self._flows[name].norm or name], name))
        originals = dict(self._state.teacher.named_modules())
        for path, module in self._modules.items():
            if changed(module, originals.get(path)):
                leaf = not any(True for _ in module.children()) or isinstance(module, LiveLayer)
                register = module.register_forward_hook if leaf else module.register_forward_pre_hook
                hooks.enter_context(register(self._begin))
        return hooks

    def _refitted(self) -> dict[str, Any]:
        """By name, the layer that is refitted in its place."""
        shared = shared_weights(self._model)
        found = {name: list(parts(self._model, name).values())[-1] for name in self._targets if name in self._modules}
        return {
            name: layer
            for name, layer in found.items()
            if not isinstance(layer, LiveLayer) and id(layer.get_parameter("weight")) not in shared
        }

    def _compensates(self, name: str) -> bool:
        """Whether it is refitted at its sum: not where a port stands between the two, or a norm without statistics."""
        flow = self._flows[name]
        between = [self._modules[path] for path in (name, flow.norm) if path in self._modules]
        ported = any(isinstance(hook, Port) for module in between for hook in module._forward_hooks.values())
        ported |= any(isinstance(hook, Port) for hook in between[-1]._forward_pre_hooks.values() if between[1:])
        known = not flow.norm or (len(between) == 2 and getattr(between[1], "running_var", None) is not None)
        return flow.summed and known and not ported

    def _begin(self, *_: Any) -> None:
        self.begun = True

    def _reached(self, name: str) -> Callable[..., None]:
        def hook(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if self.begun and self._compensates(name):
                self.waiting[name] = entered(args, kwargs)
            elif self.begun:
                target = self._targets[name]
                wanted = self._kept(name, target.output)
                refit(layer, entered(args, kwargs), target.rows, wanted, self._ridge, bool(self._flows[name].norm))

        return hook

    def _compensate(self, name: str, own: Tensor, other: Tensor) -> None:
        """Refit a layer whose output is about to be added to another tensor, and put what it gives then in place."""
        if name not in self.waiting:
            return
        x, layer, target, norm = self.waiting.pop(name), self._layers[name], self._targets[name], self._flows[name].norm
        assert target.total is not None
        wanted = self._kept(name, target.total) - given(layer, other, target.rows)
        if not norm:
            refit(layer, x, target.rows, wanted, self._ridge)
            own.copy_(layer.forward(x))
            return
        module: Any = self._modules[norm]
        slope = self._slope(norm)
        before = torch.where(slope == 0, self._kept(name, target.output), wanted / slope)
        refit(layer, x, target.rows, before, self._ridge, offset=True)
        if module.bias is not None:
            module.bias.copy_(wanted.mean(0))
        own.copy_(module.forward(layer.forward(x)))

    def _slope(self, norm: str) -> Tensor:
        """What the original's batch norm multiplies its inputs by; 0 where it gives next to nothing."""
        module: Any = self._state.teacher.get_submodule(norm)
        slope = torch.rsqrt(module.running_var + module.eps)
        slope = slope if module.weight is None else slope * module.weight
        slope = slope if norm not in self._keep else slope[self._keep[norm]]
        return torch.where(slope.abs() > _FLAT * slope.abs().max(), slope, 0.0)

    def _kept(self, name: str, numbers: Tensor) -> Tensor:
        return numbers if name not in self._keep else numbers[:, self._keep[name]]


_FLAT = 1e-4
"""Share of the steepest channel's slope below which a channel's norm gives nothing that a fit could change."""
