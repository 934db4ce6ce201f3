"""What layers read: by channel the range of their inputs and values drawn from it, of the original network once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from automc.operators.base import Compression
from automc.operators.groups.ports import channel_axis
from automc.operators.groups.slicing import losses
from automc.operators.recalibrate import BATCH, batch_norms, entered, observe, run

_VALUES, _LEAST = 2**15, 64
"""Values kept of a layer's input, about; at fewer positions than the second number they would say too little."""
_BYTES = 2**26
"""Of all layers of the original network together; where there are many of them, each has fewer values."""
_SEED = 0
_KEY = ("quantize", "inputs")


@dataclass(frozen=True)
class Seen:
    """What was seen at a layer's input.

    Attributes:
        low, high: the least and the greatest value of each channel, shape (channels,); NaN where one was.
        sample: values at some positions of some inputs, in random order, shape (channels, positions).
    """

    low: Tensor
    high: Tensor
    sample: Tensor

    def of(self, keep: Sequence[int]) -> Seen:
        """Of these channels alone."""
        index = torch.tensor(keep, dtype=torch.int64)
        return Seen(self.low[index], self.high[index], self.sample[index])


def original_inputs(state: Compression) -> Mapping[str, Seen]:
    """By path, what each layer of the original network reads on the calibration inputs, of which there must be some.

    One pass for all layers, kept in ``state.memory``. A layer that the forward never calls is not there.
    """
    if _KEY not in state.memory:
        inputs, names = state.calibration, [layer.name for layer in state.trace.table.layers]
        assert inputs is not None
        most = min(_VALUES, _BYTES // 4 // max(len(names), 1))
        with _watched(state.teacher, names, len(inputs), most) as records:
            run(state.teacher, inputs)
        state.memory[_KEY] = {name: record.seen() for name, record in records.items() if record.parts}
    found: dict[str, Seen] = state.memory[_KEY]
    return found


def unchanged_inputs(state: Compression, names: Mapping[str, str]) -> dict[str, Seen]:
    """What the original reads in the place of these layers, of the channels alone that pruning left.

    Left out, because what they read by now is another thing: parts of a factorized layer behind its first one, layers
    behind a dropped block, and everything where ``state.ranges`` says so, or where weights have changed (``stale``) and
    there is no batch norm that brings what they make back to its old scale.

    Args:
        names: by path of a layer as it is by now, the name of the original's layer with the same inputs, or "".
    """
    if state.ranges != "original" or (state.stale and not batch_norms(state.model)):
        return {}
    place = {layer.name: layer.index for layer in state.trace.table.layers}
    dropped = [place[name] for name, facts in state.realized.items() if name in place and facts.get("dropped")]
    end = min(dropped, default=len(place))
    seen, kept = original_inputs(state), kept_inputs(state)
    found = {path: name for path, name in names.items() if name in seen and place[name] < end}
    return {path: seen[name].of(kept[name]) if name in kept else seen[name] for path, name in found.items()}


def kept_inputs(state: Compression) -> dict[str, list[int]]:
    """By path, the input channels that pruning left a layer, as the original counts them, where it lost some."""
    sides = losses(state.trace.plans, state.removed)
    return {side.cut.module: side.keep for side in sides if side.cut.role in ("in", "depthwise") and side.cut.tensors}


def observed_inputs(state: Compression, names: Iterable[str]) -> tuple[dict[str, Seen], bool]:
    """What these layers of the network read as it is by now; see ``recalibrate.observe`` for what the pass also does.

    Returns:
        By path what was seen, where the forward calls the layer; and whether batch-norm statistics are still stale.
    """
    assert state.calibration is not None
    with _watched(state.model, names, len(state.calibration), _VALUES) as records:
        stale = observe(state.model, state.calibration, state.stale, state.teacher)
    return {name: record.seen() for name, record in records.items() if record.parts}, stale


@dataclass
class _Record:
    """What one layer read so far."""

    axis: int
    inputs: int
    values: int
    lows: list[Tensor] = field(default_factory=list)
    highs: list[Tensor] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(_SEED))

    def add(self, x: Tensor | PackedSequence) -> None:
        x = x.data if isinstance(x, PackedSequence) else x
        x = x.detach().float()
        axis = self.axis % x.dim()
        x = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)  # (before, channels, behind)
        low, high = torch.aminmax(x, dim=2)
        self.lows.append(low.amin(dim=0))
        self.highs.append(high.amax(dim=0))
        before, channels, behind = x.shape
        wanted = math.ceil(max(self.values / channels, _LEAST) / math.ceil(self.inputs / BATCH))
        places = torch.arange(before * behind)
        if len(places) > wanted:
            places = torch.randint(len(places), (wanted,), generator=self.generator)
        places = places.to(x.device)
        self.parts.append(x[places // behind, :, places % behind])

    def seen(self) -> Seen:
        sample = torch.cat(self.parts)
        sample = sample[torch.randperm(len(sample), generator=self.generator).to(sample.device)]
        return Seen(torch.stack(self.lows).amin(0), torch.stack(self.highs).amax(0), sample.T.contiguous())


@contextmanager
def _watched(model: nn.Module, names: Iterable[str], inputs: int, values: int) -> Iterator[dict[str, _Record]]:
    """Records of the inputs of these layers, filled by every forward inside the block."""
    records: dict[str, _Record] = {}

    def watch(record: _Record) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            record.add(entered(args, kwargs))

        return hook

    with ExitStack() as hooks:
        for name in names:
            layer = model.get_submodule(name)
            records[name] = _Record(channel_axis(layer), inputs, values)
            hooks.enter_context(layer.register_forward_pre_hook(watch(records[name]), with_kwargs=True))
        yield records
