"""What a policy costs, from the layer table alone: no network, no data, microseconds.

Proposers keep their budgets with it. It counts what the layers of the table cost, each by its own formula below; what a
network has beside them (norms, products of activations) stays as it is. MACs and BOPs of pruned, dropped and quantized
networks are those of ``measure/cost.py``; bytes are near those of the exported file (see ``size_bytes``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from automc.core.layers import Group, Layer, LayerTable
from automc.core.policy import Policy, Site, Value

UNTOUCHED = 32
"""Bits of a weight or input that is left as it is."""

COSTS = ("params", "macs", "bops", "size_bytes")
"""The metrics predicted here; each also as a ratio to the original's."""

RATIOS = {"params": "params_ratio", "macs": "macs_ratio", "bops": "bops_ratio", "size_bytes": "size_ratio"}
"""And the names of those."""

Settings = Mapping[str, Mapping[str, Mapping[str, Value]]]
"""A policy by operator, layer and setting."""

CODE_BITS = (1.0, 1.55, 2.6, 3.5, 4.4, 5.35, 6.35, 7.35)
"""Of a code of 1 to 8 bits in the packed file, which codes numbers by their frequencies: the entropy of what the
default quantizer makes of trained weights, in the middle of ResNet-20 on CIFAR-10 and digits_net."""

FLOAT_BITS = 27.0
"""Of a float32 number there: 24 of sign and mantissa, and the entropy of the exponents (2.6 to 3.1)."""

LAYER_BYTES, CODED_BYTES, MASK_BYTES = 30, 36, 24
"""What the notes of a packed file say of a layer and its bias, of a coded weight's frequencies, and of a mask."""


@dataclass(frozen=True)
class Kept:
    """What a policy leaves of a layer.

    Attributes:
        outputs, inputs: shares of its channels, in [0, 1]; 0 where its block is dropped. What a recurrent layer reads
            of its own hidden units is among its inputs, as far as its weights multiply these.
        rank: parameters and MACs of its factorized form over those of the whole one. parts: how many layers it has.
        weights: share of the weights that are not masked. groups_of: 4 where the mask is of the form N:M, else 1.
        weight_bits, activation_bits: 1 to 8, or 32.
    """

    outputs: float = 1.0
    inputs: float = 1.0
    rank: float = 1.0
    parts: int = 1
    weights: float = 1.0
    groups_of: int = 1
    weight_bits: int = UNTOUCHED
    activation_bits: int = UNTOUCHED

    @property
    def share(self) -> float:
        """Of the layer's MACs and weights."""
        return self.outputs * self.inputs * self.rank


class Analytic:
    """Costs of policies of one network."""

    def __init__(self, table: LayerTable) -> None:
        self._layers = {layer.name: layer for layer in table.layers}
        self._groups = {group.name: group for group in table.groups}
        self._block = {name: block.name for block in table.blocks for name in block.layers}
        self._inside = {block.name: block.layers for block in table.blocks}
        self._fed = {layer.name: [g for g in table.groups if layer.name in g.consumers] for layer in table.layers}
        self._made = {name: group.name for group in table.groups for name in group.producers}
        self.original = total(self._cost(layer, Kept()) for layer in table.layers)

    def costs(self, policy: Policy) -> dict[str, float]:
        """COSTS and their ratios."""
        settings = {name: policy.settings(name) for name in _OPERATORS}
        return self.with_ratios(total(self.layer(name, settings) for name in self._layers))

    def with_ratios(self, costs: Mapping[str, float]) -> dict[str, float]:
        """COSTS and beside them their ratios to the original's."""
        return {**costs, **{ratio: costs[name] / max(self.original[name], 1.0) for name, ratio in RATIOS.items()}}

    def kept(self, policy: Policy) -> dict[str, Kept]:
        """By layer, what the policy leaves of it."""
        settings = {name: policy.settings(name) for name in _OPERATORS}
        return {layer.name: self._kept(layer, settings) for layer in self._layers.values()}

    def layer(self, name: str, settings: Settings) -> tuple[float, ...]:
        """What one layer costs under a policy, in the order of COSTS."""
        layer = self._layers[name]
        return self._cost(layer, self._kept(layer, settings))

    def bytes_of(self, policy: Policy) -> dict[str, float]:
        """By layer, its part of size_bytes."""
        settings = {name: policy.settings(name) for name in _OPERATORS}
        return {name: self.layer(name, settings)[COSTS.index("size_bytes")] for name in self._layers}

    def touched(self, site: Site) -> tuple[str, ...]:
        """The layers whose costs a decision at this site can change."""
        if site.operator == "prune" and site.layer in self._groups:
            group = self._groups[site.layer]
            return tuple(dict.fromkeys((*group.producers, *group.consumers)))
        if site.operator == "drop":
            return self._inside.get(site.layer, ())
        return (site.layer,) if site.operator in _OPERATORS and site.layer in self._layers else ()

    def _kept(self, layer: Layer, settings: Settings) -> Kept:
        block = self._block.get(layer.name, "")
        if _of(settings, "drop", block).get("dropped"):
            return Kept(outputs=0.0)
        near = {self._made.get(layer.name, ""), *(group.name for group in self._fed[layer.name])}
        pruned = {name: self._share(name, _of(settings, "prune", name)) for name in near if name in self._groups}
        return self._layer(layer, pruned, {op: _of(settings, op, layer.name) for op in _LAYERWISE})

    def _cost(self, layer: Layer, own: Kept) -> tuple[float, ...]:
        """In the order of COSTS."""
        if not own.outputs:
            return (0.0,) * len(COSTS)
        macs, weights = layer.macs * own.share, layer_weights(layer) * own.share
        params = weights + (layer.params - layer_weights(layer) + layer.beside) * own.outputs
        unrounded = layer.macs * looping(layer) * own.outputs**2 * (UNTOUCHED - own.activation_bits)
        bops = (macs * own.activation_bits + unrounded) * own.weight_bits
        return params, macs, bops, size_bytes(layer, own)

    def _share(self, name: str, settings: Mapping[str, Value]) -> float:
        group = self._groups[name]
        ratio, multiple = float(settings.get("prune_ratio", 0.0)), int(settings.get("channel_multiple", 1))
        return group.kept(ratio, multiple) / group.channels

    def _layer(self, layer: Layer, pruned: Mapping[str, float], of: Mapping[str, Mapping[str, Value]]) -> Kept:
        outputs = pruned.get(self._made.get(layer.name, ""), 1.0)
        inputs = 1.0 if layer.kind == "depthwise" else _inputs(layer, self._fed[layer.name], pruned)
        inputs += looping(layer) * (outputs - inputs)
        sparse = of["sparsify"]
        weights, groups_of = 1.0, 1
        if float(sparse.get("sparsity", 0.0)) > 0:
            pattern = str(sparse.get("pattern", "unstructured"))
            kept, colon, of_each = pattern.partition(":")
            weights = int(kept) / int(of_each) if colon else 1 - float(sparse["sparsity"])
            groups_of = int(of_each) if colon else 1
        bits = of["quantize"]
        return Kept(
            outputs,
            inputs,
            *_rank(layer, outputs, inputs, of["factorize"]),
            weights,
            groups_of,
            int(bits.get("weight_bits", UNTOUCHED)),
            int(bits.get("activation_bits", UNTOUCHED)),
        )


_LAYERWISE = ("factorize", "sparsify", "quantize")
_OPERATORS = ("drop", "prune", *_LAYERWISE)


def total(rows: Iterable[tuple[float, ...]]) -> dict[str, float]:
    """The sums of what layers cost, by name of the cost."""
    return dict(zip(COSTS, map(sum, zip(*rows, strict=True)), strict=True))


def _of(settings: Settings, operator: str, layer: str) -> Mapping[str, Value]:
    return settings.get(operator, {}).get(layer, {})


def layer_weights(layer: Layer) -> int:
    """Parameters of a layer without its bias."""
    return sum(layer.recurrent) or layer.params - layer.out_channels * biased(layer)


def looping(layer: Layer) -> float:
    """The share of a layer's weights that multiply its own hidden units, which nobody rounds."""
    return layer.recurrent[1] / sum(layer.recurrent) if any(layer.recurrent) else 0.0


def biased(layer: Layer) -> bool:
    """Whether the parameters beyond the products are one bias an output."""
    size = math.prod(layer.kernel)
    inputs = 1 if layer.kind == "depthwise" else layer.in_channels
    return layer.params == layer.out_channels * inputs * size + layer.out_channels


def size_bytes(layer: Layer, kept: Kept) -> float:
    """About the bytes that a layer takes in the exported file: codes, steps, mask, a bias an output, and its headers.

    Norms are folded into the layers before them, so every output has a bias. Codes and masks cost their entropy, which
    is what the file's coder comes near to: of N:M the logarithm of its binomial.
    """
    return bytes_of(layer_weights(layer) * kept.share, layer.out_channels * kept.outputs, kept)


def bytes_of(weights: float, outputs: float, kept: Kept) -> float:
    """As ``size_bytes``, for a layer that has so many weights and outputs left; of ``kept`` only bits, mask and parts
    are read.
    """
    quantized, masked = kept.weight_bits < UNTOUCHED, kept.weights < 1
    codes = weights * kept.weights
    coded = codes * code_bits(kept.weight_bits) / 8 + CODED_BYTES * kept.parts
    stored = min(coded, codes * kept.weight_bits / 8) if quantized else codes * FLOAT_BITS / 8
    tables = FLOAT_BITS / 8 * (outputs * (1 + kept.parts * quantized))
    return stored + weights * _mask_bits(kept) / 8 + tables + kept.parts * (LAYER_BYTES + MASK_BYTES * masked)


def code_bits(bits: int) -> float:
    """What a number of so many bits takes in the packed file, about."""
    return CODE_BITS[bits - 1] if bits <= len(CODE_BITS) else FLOAT_BITS


def _mask_bits(kept: Kept) -> float:
    """Of the mask, a weight."""
    share = kept.weights
    if not 0 < share < 1:
        return 0.0
    if kept.groups_of > 1:
        return math.log2(math.comb(kept.groups_of, round(share * kept.groups_of))) / kept.groups_of
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def _inputs(layer: Layer, fed: list[Group], pruned: Mapping[str, float]) -> float:
    """The share of a layer's inputs that stays: behind a concatenation they belong to several groups, behind a
    flatten each channel has several."""
    if not fed:
        return 1.0
    total = sum(group.channels for group in fed)
    left = sum(group.channels * pruned.get(group.name, 1.0) for group in fed)
    if total > layer.in_channels:  # heads or hidden units that the layer counts in another way
        return left / total
    each = 1 if len(fed) > 1 else layer.in_channels // total
    return 1 - each * (total - left) / layer.in_channels


def _rank(layer: Layer, outputs: float, inputs: float, settings: Mapping[str, Value]) -> tuple[float, int]:
    """Parameters of the product over those of the kernel, and how many factors it has; 1 and 1 where it would not be
    smaller (see operators/factorize).
    """
    ratio = float(settings.get("rank_ratio", 1.0))
    if (
        ratio >= 1
        or layer.kind not in ("conv", "linear")
        or layer.params != layer.out_channels * (layer.in_channels * math.prod(layer.kernel) + biased(layer))
    ):
        return 1.0, 1
    outs, ins = round(layer.out_channels * outputs), round(layer.in_channels * inputs)
    method = str(settings.get("method", "auto"))
    share = _factors(outs, ins, layer.kernel, ratio, method) / (outs * ins * math.prod(layer.kernel))
    return (share, 3 if method in ("tucker2", "cp") else 2) if share < 1 else (1.0, 1)


def _factors(outs: int, ins: int, kernel: tuple[int, ...], ratio: float, method: str) -> float:
    """Parameters of the factors at a share of the full rank."""
    size = math.prod(kernel)
    form = "spatial" if method == "auto" else method
    if size == 1 or form == "svd" or (form == "spatial" and math.prod(kernel[1:]) == 1):
        rank = _floor(ratio * min(outs, ins * size))
        return rank * (outs + ins * size)
    if form == "spatial":
        rank = _floor(ratio * min(ins * kernel[0], outs * math.prod(kernel[1:])))
        return rank * (ins * kernel[0] + outs * math.prod(kernel[1:]))
    rank, rank_in = _floor(ratio * min(outs, ins * size)), _floor(ratio * min(ins, outs * size))
    if form == "cp":
        return rank * (outs + ins + sum(kernel))
    return outs * rank + rank * rank_in * size + rank_in * ins


def _floor(rank: float) -> int:
    return max(math.floor(rank + 1e-9), 1)
