"""Quantization: weights and inputs of layers are rounded to few bits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from automc.core.policy import Value
from automc.errors import CompressionError
from automc.operators.base import Compression, Settings
from automc.operators.factorized import parts
from automc.operators.live import UNTOUCHED, LiveLayer
from automc.operators.live_kinds import live, shared_weights
from automc.operators.offers.quantize import QUANTIZE
from automc.operators.quantizers.choose import AFFINE, Choice
from automc.operators.quantizers.rounding import round_adaptively
from automc.operators.recalibrate import check_finite, entered, observe, run

_SAMPLE = 8192
"""Values kept of each layer's input in each calibration batch."""
_ROUNDING_INPUTS = 128
"""Calibration inputs that adaptive rounding looks at, all at once."""
_SEED = 0
_KEPT, _FRAME = 2**28, 4096
"""Bytes of the original network's quantizers that are kept for later trials; what one takes without its tensors."""
_SAFE_BITS = 6
"""Weights of so many bits leave the batch-norm statistics valid: re-estimating them from a few hundred inputs costs
more than it mends (ResNet-20, KL to the original: 6 bits 0.005, re-estimated 0.011; 4 bits 0.082 and 0.040)."""
_SAFE_INPUT_BITS = 4
"""Inputs of so many bits leave them valid too (ResNet-20, 8-bit weights, loss: 3 bits 0.419, re-estimated 0.394; 4 bits
0.228 and 0.235)."""


def quantize(state: Compression, settings: Settings) -> Compression:
    """Make the named layers quantized ones, and choose the range of their inputs on ``state.calibration``.

    The ranges must be those of the network as it is by now. So where pruning or low-bit weights left the batch-norm
    statistics stale, the pass over the calibration inputs that observes the ranges also recalibrates the statistics:
    batch norm then normalises each batch by itself, and what is seen is what the recalibrated network will see.
    Adaptive rounding follows in a second pass, with the inputs as quantized so far.

    Settings: see offers/quantize.py; what combinations mean: ``Choice.meant``. Adaptive rounding moves weights, so one
    that lies in several modules is rounded to nearest. Realized per layer: ``weight_bits``, ``activation_bits``, and
    the settings that meant something else than they say.

    Raises:
        CompressionError: a layer cannot be quantized, activation bits or adaptive rounding are asked without
            calibration inputs, or what a layer reads on these is NaN or infinite.
    """
    shared = shared_weights(state.model)
    facts: dict[str, dict[str, Value]] = {}
    choices: dict[str, Choice] = {}
    for name, chosen in settings.items():
        asked = Choice.of(chosen)
        facts[name] = {"weight_bits": asked.weight_bits, "activation_bits": asked.activation_bits}
        if min(asked.weight_bits, asked.activation_bits) == UNTOUCHED:
            continue
        for path, layer in parts(state.model, name).items():
            choices[path] = asked.meant(type(layer))
            if id(getattr(layer, "weight", None)) in shared:
                choices[path] = replace(choices[path], rounding="nearest")
            facts[name] |= asked.differences(choices[path])
            _quantize_weights(state, path, live(layer), choices[path])
    state = replace(state, stale=state.stale or any(_disturbs(choice) for choice in choices.values()))
    adaptive = [path for path, choice in choices.items() if choice.rounding == "adaptive"]
    active = [path for path, choice in choices.items() if choice.activation_bits < UNTOUCHED]
    if active or adaptive:
        state = _calibrate(state, {path: choices[path] for path in active}, adaptive)
    return state.with_realized(facts)


def _disturbs(choice: Choice) -> bool:
    """The batch-norm statistics do not survive such weights."""
    fine = choice.weight_format in (*AFFINE, "codebook") and choice.qat != "dorefa"
    return choice.weight_bits < _SAFE_BITS or (choice.weight_bits < UNTOUCHED and not fine)


def quantize_layer(layer: nn.Module, weight_bits: int, **settings: Value) -> LiveLayer:
    """Turn a layer into a live one whose weights are rounded to so many bits (32: they stay), in place.

    Args:
        settings: as offered; those not given are the neutral ones. Adaptive rounding needs inputs and is not done.

    Raises:
        CompressionError: it has no live kind.
    """
    neutral = {name: setting.neutral for name, setting in QUANTIZE.settings.items()}
    choice = Choice.of({**neutral, **settings, "weight_bits": weight_bits}).meant(type(layer))
    made = live(layer)
    _quantize_weights(None, "", made, choice)
    return made


def _quantize_weights(state: Compression | None, path: str, layer: LiveLayer, choice: Choice) -> None:
    if choice.weight_bits == UNTOUCHED:
        return
    for name in layer.ways:
        way: Any = layer.ways[name]
        weight = getattr(layer, name).detach()
        if way.mask is not None:
            weight = torch.where(way.mask, weight, 0.0)
        make = _remembered(state, f"{path}.{name}", weight) if state and way.mask is None else _anew
        way.quantizer = make(choice, weight, way.mask).train(layer.training)
    layer.weight_bits = choice.weight_bits


_Make = Callable[[Choice, Tensor, Tensor | None], nn.Module]


def _anew(choice: Choice, weight: Tensor, mask: Tensor | None) -> nn.Module:
    return choice.weight_quantizer(weight, mask)


def _remembered(state: Compression, name: str, weight: Tensor) -> _Make:
    """Makes quantizers, those of the original network's own weights once for all trials."""
    place, _, own = name.rpartition(".")
    try:
        original = getattr(state.teacher.get_submodule(place), own)
    except AttributeError:  # a part of a factorized layer
        return _anew
    if original.shape != weight.shape or not torch.equal(original, weight):
        return _anew

    def make(choice: Choice, weight: Tensor, mask: Tensor | None) -> nn.Module:
        key = ("quantize", name, replace(choice.inner, activation_bits=0, activation_range="", rounding=""))
        if key not in state.memory:
            made = choice.inner.weight_quantizer(weight, mask)
            total = state.memory.get(_BYTES, 0) + _FRAME + sum(tensor.nbytes for tensor in made.state_dict().values())
            if total > _KEPT:
                return choice.wrapped(made, weight, mask)
            state.memory[key], state.memory[_BYTES] = made, total
        return choice.wrapped(copy.deepcopy(state.memory[key]), weight, mask)

    return make


_BYTES = ("quantize", "bytes")


def _calibrate(state: Compression, active: Mapping[str, Choice], adaptive: Iterable[str]) -> Compression:
    model, inputs = state.model, state.calibration
    if inputs is None or not len(inputs):
        place, setting = next(((name, "activation_bits") for name in active), (next(iter(adaptive), ""), "rounding"))
        raise CompressionError(f"quantize({place}).{setting} needs calibration inputs; there are none")
    with _observed(model, active) as seen:
        if active or state.stale:
            observe(model, inputs, state.stale)
    for name, record in seen.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, LiveLayer)
        choice = active[name]
        layer.input_quantizer = choice.input_quantizer(torch.cat(record.parts), record.low, record.high)
        layer.input_quantizer.train(layer.training)
        layer.activation_bits = choice.activation_bits
    low = _round(model, adaptive, inputs[:_ROUNDING_INPUTS])
    coarse = any(choice.activation_bits < _SAFE_INPUT_BITS for choice in active.values())
    return replace(state, stale=low or coarse)


def _round(model: nn.Module, names: Iterable[str], inputs: Tensor) -> bool:
    """Round these layers adaptively, each on what the layers before it, rounded already, give it. One forward pass.

    Returns:
        Whether some weights changed so much that batch-norm statistics are stale.
    """
    hooks: dict[str, Any] = {}

    def first(name: str) -> Callable[..., None]:
        def before(layer: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
            assert isinstance(layer, LiveLayer)
            hooks[name].remove()  # a layer that is used again keeps its codes
            x = entered(args, kwargs)
            check_finite(f"quantize({name}).rounding", x)
            round_adaptively(layer, x)

        return before

    low = False
    for name in names:
        layer: Any = model.get_submodule(name)
        low |= layer.weight_bits < _SAFE_BITS
        hooks[name] = layer.register_forward_pre_hook(first(name), with_kwargs=True)
    try:
        if hooks:
            run(model, inputs, len(inputs))
    finally:
        for hook in hooks.values():
            hook.remove()
    return low


@dataclass
class _Record:
    """What was seen at a layer's input: the range, and values drawn at random."""

    layer: str
    low: float = 0.0
    high: float = 0.0
    parts: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor | PackedSequence, generator: torch.Generator) -> None:
        values = values.data if isinstance(values, PackedSequence) else values
        low, high = torch.aminmax(values)  # both NaN where one number is
        check_finite(f"quantize({self.layer}).activation_bits", torch.stack([low, high]))
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        chosen = torch.randint(values.numel(), (min(_SAMPLE, values.numel()),), generator=generator)
        self.parts.append(values.detach().flatten()[chosen.to(values.device)])


@contextmanager
def _observed(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, _Record]]:
    """Records of the inputs of these layers, filled by every forward inside the block."""
    records = {name: _Record(name) for name in names}
    generator = torch.Generator().manual_seed(_SEED)

    def watch(record: _Record) -> Callable[..., None]:
        return lambda module, args, kwargs: record.add(entered(args, kwargs), generator)

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(watch(record), with_kwargs=True)
        for name, record in records.items()
    ]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()
