"""Means and spreads put right where no batch norm does it.

Rounding shifts what a layer gives on average (Nagel et al. 2019, "bias correction"), pruning its spread too. A batch
norm behind the layer is recalibrated and takes both away; elsewhere the layer itself has to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from automc.operators.base import Compression
from automc.operators.factorized import parts
from automc.operators.flow import flows
from automc.operators.live import UNTOUCHED, LiveLayer
from automc.operators.live_kinds import shared_weights
from automc.operators.positions import KINDS, Plain, channels_last, filters, set_filters
from automc.operators.recalibrate import batch_statistics
from automc.operators.sequential import changed, kept_outputs

_LEAST, _MOST = 0.5, 2.0
"""Bounds of a channel's scale: what needs more is not mended by a scale."""
_TINY = 1e-3
"""Share of the layer's largest standard deviation below which a channel's scale stays 1."""
_FINE = 6
"""Bits that shift no mean so far that a pass over the calibration inputs were worth it (ResNet-20's last layer is all
that it has to correct: 2 bits, KL to the original 0.047 before and 0.022 after; all layers 3 bits, 0.116 and 0.107)."""
_KEY = ("correct", "spreads")


class Spread(NamedTuple):
    """Mean and standard deviation of each channel of a layer's output, shape (channels,), float64."""

    mean: Tensor
    std: Tensor


def correct(state: Compression, spreads: bool = True) -> Compression:
    """Give changed layers without a batch norm behind them the original's means, and spreads, on calibration inputs.

    Of a layer with weights or inputs of fewer than 6 bits the bias moves, if it has one, so that every channel's mean
    is the original's. Of another layer with other weights than the original's, the rows are scaled too, by 1/2 to 2,
    so that the standard deviations are, but for channels that hardly vary. All in one forward over all calibration
    inputs as one batch, each layer on what the corrected ones before it give. Nothing runs where nothing is to correct.

    Convolutions and linear layers alone, of a factorized one the last part; none that shares its weights or that one
    forward uses several times. Batch-norm statistics are not touched, and as stale as before.

    Args:
        state: its ``model`` is changed, unless there are no calibration inputs. spreads: whether layers are scaled that
            are neither rounded nor masked; not after ``reconstruct_sequentially``, for a fit has the right spread: the
            one with the least error.
    """
    if state.calibration is None or not len(state.calibration):
        return state
    jobs = list(_jobs(state, spreads))
    if not jobs:
        return state
    originals, keep = original_spreads(state), kept_outputs(state)
    norms = batch_statistics(state.model, state.calibration, state.stale, state.teacher)
    with torch.no_grad(), norms, ExitStack() as hooks:
        for job in jobs:
            mean, std = (each[keep.get(job.name, slice(None))] for each in originals[job.name])
            correcting = _corrector(job, Spread(mean, std))
            hooks.enter_context(job.layer.register_forward_hook(correcting, prepend=True))
        state.model(state.calibration)
    return state


@dataclass(frozen=True)
class _Job:
    """A layer to correct: ``layer`` makes the outputs of the original's layer ``name``; ``scales``: its rows too."""

    name: str
    layer: Any
    scales: bool


def _jobs(state: Compression, spreads: bool) -> Iterator[_Job]:
    modules = dict(state.model.named_modules())
    shared = shared_weights(state.model)
    for name in _candidates(state):
        own: list[Any] = list(parts(state.model, name).values()) if name in modules else []
        if not own or {id(own[-1].weight), id(own[-1].bias)} & shared:
            continue
        bits = [min(part.weight_bits, part.activation_bits) for part in own if isinstance(part, LiveLayer)]
        if min(bits, default=UNTOUCHED) < UNTOUCHED:
            if min(bits) < _FINE and own[-1].bias is not None:
                yield _Job(name, own[-1], False)
        elif changed(own[-1], state.teacher.get_submodule(name)):
            yield _Job(name, own[-1], spreads or isinstance(own[-1], LiveLayer))


def _candidates(state: Compression) -> list[str]:
    """The layers that one forward uses once, with no batch norm behind them."""
    found = flows(state)
    layers = [layer for layer in state.trace.table.layers if layer.kind in KINDS]
    return [layer.name for layer in layers if found[layer.name].calls == 1 and not found[layer.name].norm]


def original_spreads(state: Compression) -> Mapping[str, Spread]:
    """By candidate, what it gives in the original network; one pass, kept."""
    if _KEY not in state.memory:
        found: dict[str, Spread] = {}

        def record(name: str) -> Callable[..., None]:
            def hook(layer: Plain, args: Any, output: Tensor) -> None:
                found[name] = _spread(layer, output)

            return hook

        with ExitStack() as hooks, torch.no_grad():
            for name in _candidates(state):
                hooks.enter_context(state.teacher.get_submodule(name).register_forward_hook(record(name)))
            state.teacher(state.calibration)
        state.memory[_KEY] = found
    kept: dict[str, Spread] = state.memory[_KEY]
    return kept


def _spread(layer: Plain, output: Tensor) -> Spread:
    rows = channels_last(layer, output).flatten(0, -2).double()
    return Spread(rows.mean(0), rows.std(0, unbiased=False))


def _corrector(job: _Job, wanted: Spread) -> Callable[..., Tensor]:
    def hook(layer: Any, args: Any, output: Tensor) -> Tensor:
        now, scale = _spread(layer, output), torch.ones_like(wanted.std)
        if job.scales:
            alive = (wanted.std > _TINY * wanted.std.max()) & (now.std > _TINY * now.std.max())
            scale = torch.where(alive, wanted.std / now.std, scale).clamp(_LEAST, _MOST)
            rows = filters(layer)
            set_filters(layer, rows * scale.to(rows.dtype).view(*rows.shape[:2], 1))
        scale, shift = scale.to(output.dtype), (wanted.mean - scale * now.mean).to(output.dtype)
        if layer.bias is None:
            shift = torch.zeros_like(shift)
        else:
            layer.bias.copy_(scale * layer.bias + shift)
        corrected = torch.empty_like(output)
        channels_last(layer, corrected).copy_(channels_last(layer, output) * scale + shift)
        return corrected

    return hook
