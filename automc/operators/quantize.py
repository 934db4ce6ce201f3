"""Quantization: weights and inputs of layers are rounded to few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from automc.core.policy import Value
from automc.errors import CompressionError
from automc.operators.base import Compression, Settings
from automc.operators.factorized import parts
from automc.operators.fitting import fit_weights, norm_to_fold
from automc.operators.inputs import Seen, observed_inputs, unchanged_inputs
from automc.operators.live import UNTOUCHED, LiveLayer
from automc.operators.live_kinds import live, shared_weights
from automc.operators.offers.quantize import QUANTIZE
from automc.operators.quantizers.choose import AFFINE, Choice
from automc.operators.quantizers.rounding import round_adaptively
from automc.operators.recalibrate import check_finite, entered, run

_ROUNDING_INPUTS = 128
"""Calibration inputs that adaptive rounding looks at, all at once."""
_SAFE_BITS = 6
"""Weights of so many bits leave the batch-norm statistics valid: re-estimating them from a few hundred inputs costs
more than it mends (ResNet-20, KL to the original: 6 bits 0.005, re-estimated 0.011; 4 bits 0.082 and 0.040)."""
_SAFE_INPUT_BITS = 4
"""Inputs of so many bits leave them valid too (ResNet-20, 8-bit weights, loss: 3 bits 0.419, re-estimated 0.394; 4 bits
0.228 and 0.235)."""


def quantize(state: Compression, settings: Settings) -> Compression:
    """Make the named layers quantized ones, and choose the range of their inputs on ``state.calibration``.

    A layer reads by now about what the original's reads there, on the channels that are left: reconstruction and
    batch norm see to it. So ranges are chosen from what is known of the original, without a pass (inputs.py). Where
    that is not so, a pass over the calibration inputs observes them in the network as it is by now. Where pruning or
    low-bit weights left the batch-norm statistics stale, that pass also recalibrates these: batch norm then normalises
    each batch by itself, and what is seen is what the recalibrated network will see. Adaptive rounding follows in
    another pass, with the inputs as quantized so far.

    One scale for a whole weight is that of the weight with the batch norm behind it (``fitting.norm_to_fold``).

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
    origins: dict[str, str] = {}
    for name, chosen in settings.items():
        asked = Choice.of(chosen)
        facts[name] = {"weight_bits": asked.weight_bits, "activation_bits": asked.activation_bits}
        if min(asked.weight_bits, asked.activation_bits) == UNTOUCHED:
            continue
        pieces = parts(state.model, name)
        for number, (path, layer) in enumerate(pieces.items()):
            choices[path] = asked.meant(type(layer))
            origins[path] = "" if number else name  # the first part reads what the whole layer reads
            if id(getattr(layer, "weight", None)) in shared:
                choices[path] = replace(choices[path], rounding="nearest")
            facts[name] |= asked.differences(choices[path])
            made = live(layer)
            if number == len(pieces) - 1 and id(getattr(layer, "weight", None)) not in shared:
                made.norm = norm_to_fold(state, name, layer, choices[path])
            fit_weights(state, path, made, choices[path])
    state = replace(state, stale=state.stale or any(_disturbs(choice) for choice in choices.values()))
    adaptive = [path for path, choice in choices.items() if choice.rounding == "adaptive"]
    active = [path for path, choice in choices.items() if choice.activation_bits < UNTOUCHED]
    if active or adaptive:
        state = _calibrate(state, {path: choices[path] for path in active}, adaptive, origins)
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
    fit_weights(None, "", made, choice)
    return made


def _calibrate(
    state: Compression, active: Mapping[str, Choice], adaptive: Sequence[str], origins: Mapping[str, str]
) -> Compression:
    """Choose the ranges of the active layers' inputs, and round adaptively.

    Args:
        origins: see ``unchanged_inputs``.
    """
    inputs = state.calibration
    if inputs is None or not len(inputs):
        place, setting = next(((name, "activation_bits") for name in active), (next(iter(adaptive), ""), "rounding"))
        raise CompressionError(f"quantize({place}).{setting} needs calibration inputs; there are none")
    seen = unchanged_inputs(state, {path: origins[path] for path in active}) if active else {}
    missing = [path for path in active if path not in seen]
    if missing or (adaptive and state.stale):
        found, stale = observed_inputs(state, missing)
        seen, state = seen | found, replace(state, stale=stale)
    for path in active:
        if path in seen:
            _quantize_inputs(state.model, path, active[path], seen[path])
    low = _round(state.model, adaptive, inputs[:_ROUNDING_INPUTS])
    coarse = any(choice.activation_bits < _SAFE_INPUT_BITS for choice in active.values())
    return replace(state, stale=state.stale or low or coarse)


def _quantize_inputs(model: nn.Module, path: str, choice: Choice, seen: Seen) -> None:
    layer = model.get_submodule(path)
    assert isinstance(layer, LiveLayer)
    check_finite(f"quantize({path}).activation_bits", torch.cat([seen.low, seen.high]))
    layer.input_quantizer = choice.input_quantizer(seen.sample.flatten(), float(seen.low.min()), float(seen.high.max()))
    layer.input_quantizer.train(layer.training)
    layer.activation_bits = choice.activation_bits


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
