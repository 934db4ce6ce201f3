"""Analytic cost: parameters, multiply-accumulates, bit operations and activation memory of a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from automc.measure.walk import Walk, helpers, walk

UNTOUCHED = 32
"""Bits of a weight or input that nothing rounds."""


def costs(model: nn.Module, example: Tensor) -> dict[str, float]:
    """What one input costs; see ``costs_of``.

    Args:
        model: not changed; it runs once in eval mode. example: shape (n, ...), n >= 1; its first input is run.

    Raises:
        ModelError: the forward fails.
    """
    return costs_of(walk(model, example))


def costs_of(walked: Walk) -> dict[str, float]:
    """What one input costs.

    ``params``: all parameters of the network, a shared one counted once; masked ones count (a file stores fewer, see
    ``size_bytes``), and numbers that only a live layer's training form or input rounding needs (learned steps) do not.
    ``params_nonzero``: those that no mask sets to zero; a number that happens to be zero, or is rounded to it, counts.
    ``macs``: multiply-accumulates of convolutions, linear layers, matrix products, attention and recurrent layers;
    norms, activations and sums count nothing, zeros of a mask count as any number. ``bops``: MACs times weight bits
    times activation bits, as the module says they are (``weight_bits``, ``activation_bits``), 32 each where it says
    nothing. A recurrent layer rounds what it is given, not its own state: products with the state, and all of its
    higher layers, count 32 activation bits. ``activation_bytes``: the largest sum of activations that live at one time,
    see ``activations.Activations``.
    """
    model = walked.model
    bops = sum(n * w * a for name, work in walked.work.items() for n, w, a in at_bits(model, name, work.macs))
    skipped = {id(parameter) for part in helpers(model) for parameter in part.parameters()}
    params = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in skipped)
    return {
        "params": float(params),
        "params_nonzero": float(params - masked(model)),
        "macs": float(sum(work.macs for work in walked.work.values())),
        "bops": float(bops),
        "activation_bytes": float(walked.activation_bytes),
    }


def layer_macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates of one input by the innermost module that causes them, in order of execution.

    A module that runs several times has the sum. Work outside every submodule is under ``""``. Modules that cause none
    are left out.

    Raises:
        ModelError: the forward fails.
    """
    return {name: work.macs for name, work in walk(model, example).work.items()}


def at_bits(model: nn.Module, name: str, macs: int) -> Iterator[tuple[float, int, int]]:
    """A module's MACs by weight bits and activation bits: (MACs, weight bits, activation bits)."""
    module = model.get_submodule(name)
    weight_bits = getattr(module, "weight_bits", UNTOUCHED)
    activation_bits = getattr(module, "activation_bits", UNTOUCHED)
    if isinstance(module, nn.RNNBase) and activation_bits != UNTOUCHED:
        sizes = {n: p.numel() for n, p in module.named_parameters(recurse=False) if n.startswith("weight")}
        given = macs * sum(n for key, n in sizes.items() if key.startswith("weight_ih_l0")) / sum(sizes.values())
        yield given, weight_bits, activation_bits
        yield macs - given, weight_bits, UNTOUCHED
    else:
        yield float(macs), weight_bits, activation_bits


def masked(model: nn.Module) -> int:
    """How many parameters a mask sets to zero; of a parameter that several layers share, each counts once."""
    found: dict[int, int] = {}
    for module in model.modules():
        ways = getattr(module, "ways", None)
        for name, way in ways.items() if isinstance(ways, nn.ModuleDict) else ():
            if isinstance(mask := getattr(way, "mask", None), Tensor):
                found[id(getattr(module, name))] = mask.numel() - int(mask.count_nonzero())
    return sum(found.values())
