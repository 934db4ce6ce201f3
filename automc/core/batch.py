"""What many policies cost, all at once: core/analytic.py in arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import (
    CODE_BITS,
    CODED_BYTES,
    COSTS,
    FLOAT_BITS,
    LAYER_BYTES,
    MASK_BYTES,
    RATIOS,
    UNTOUCHED,
    Analytic,
    biased,
    layer_weights,
    looping,
)
from automc.core.decoded import METHODS, PATTERN, Array, Numbers, number
from automc.core.layers import Layer, LayerTable
from automc.core.policy import Site
from automc.core.space import SearchSpace

_CODE_BITS = np.array([0.0, *CODE_BITS, *[FLOAT_BITS] * (UNTOUCHED - len(CODE_BITS))])
"""By bits of a weight, see analytic.code_bits."""


@dataclass(frozen=True)
class KeptMany:
    """Analytic.kept of n policies; every array has the shape (n, layers). ``outputs`` is 0 where a block is dropped."""

    outputs: Array
    inputs: Array
    rank: Array
    parts: Array
    weights: Array
    pattern: Array
    weight_bits: Array
    activation_bits: Array

    @property
    def share(self) -> Array:
        return self.outputs * self.inputs * self.rank


class BatchCosts:
    """Costs of policies of one space, equal to those of Analytic; a hundred of a hundred layers take about 2 ms."""

    def __init__(self, space: SearchSpace) -> None:
        table = space.layers
        self.numbers = Numbers(space)
        self._layers = table.layers
        self._columns = _Columns(space)
        self._original = np.array([Analytic(table).original[name] for name in COSTS])
        self._drop, self._bits, self._sparse, self._factor = self._sites(table)
        groups = [group.name for group in table.groups]
        self._channels = np.array([group.channels for group in table.groups], dtype=np.int64)
        self._multiple = np.array([group.multiple for group in table.groups], dtype=np.int64)
        self._prune = [
            np.array([self._columns.of(Site("prune", name, setting), neutral) for name in groups], dtype=np.int64)
            for setting, neutral in (("prune_ratio", 0.0), ("channel_multiple", 1.0))
        ]
        made = {name: i for i, group in enumerate(table.groups) for name in group.producers}
        self._made = np.array([made.get(layer.name, len(groups)) for layer in self._layers])
        self._base, self._feeds = _feeds(table)
        self._weights, self._along, self._outs, self._ins, self._macs = (
            np.array(row, dtype=np.float64)
            for row in zip(
                *(
                    (layer_weights(x), x.params - layer_weights(x) + x.beside, x.out_channels, x.in_channels, x.macs)
                    for x in self._layers
                ),
                strict=True,
            )
        )
        self._loops = np.array([looping(layer) for layer in self._layers])
        self._kernel = _Kernels(self._layers)

    def _sites(self, table: LayerTable) -> tuple[NDArray[np.int64], ...]:
        """By layer, the columns of what decides about it; shapes (settings, layers)."""
        block = {name: block.name for block in table.blocks for name in block.layers}

        def rows(*settings: tuple[str, str, float]) -> NDArray[np.int64]:
            return np.array(
                [
                    [self._columns.of(Site(op, block.get(x.name, "") if op == "drop" else x.name, s), neutral)
                     for x in self._layers]
                    for op, s, neutral in settings
                ]
            )  # fmt: skip

        return (
            rows(("drop", "dropped", 0.0)),
            rows(("quantize", "weight_bits", UNTOUCHED), ("quantize", "activation_bits", UNTOUCHED)),
            rows(("sparsify", "sparsity", 0.0), ("sparsify", "pattern", 0.0)),
            rows(("factorize", "rank_ratio", 1.0), ("factorize", "method", 0.0)),
        )

    def kept(self, cubes: Array) -> KeptMany:
        """What policies leave of every layer.

        Args:
            cubes: points of the unit cube, shape (n, decisions).
        """
        values = self._columns.whole(self.numbers.of(cubes))
        ratio, multiple = values[:, self._prune[0]], values[:, self._prune[1]].astype(np.int64)
        wanted = self._channels - np.floor(ratio * self._channels + 1e-9)
        step = np.lcm(self._multiple, multiple)
        shares = np.minimum(np.ceil(wanted / step) * step, self._channels) / self._channels
        outputs = np.hstack([shares, np.ones((len(values), 1))])[:, self._made]
        inputs = self._base + shares @ self._feeds
        rank, parts = self._kernel.rank(
            np.rint(self._outs * outputs), np.rint(self._ins * inputs), *(values[:, row] for row in self._factor)
        )
        inputs = inputs + self._loops * (outputs - inputs)
        sparsity, pattern = (values[:, row] for row in self._sparse)
        pattern = np.where(sparsity > 0, pattern, 0.0)
        weights = np.where(pattern > 0, np.mod(pattern, PATTERN) / np.maximum(pattern // PATTERN, 1), 1 - sparsity)
        weight_bits, activation_bits = (values[:, row] for row in self._bits)
        outputs = np.where(values[:, self._drop[0]] > 0, 0.0, outputs)
        return KeptMany(outputs, inputs, rank, parts, weights, pattern, weight_bits, activation_bits)

    def of(self, cubes: Array) -> dict[str, Array]:
        """COSTS and their ratios, each of shape (n,)."""
        return self.total(self.kept(cubes))

    def total(self, kept: KeptMany) -> dict[str, Array]:
        """The same of what is left of every layer."""
        weights, macs = self._weights * kept.share, self._macs * kept.share
        params = weights + self._along * kept.outputs
        unrounded = self._macs * self._loops * kept.outputs**2 * (UNTOUCHED - kept.activation_bits)
        bops = (macs * kept.activation_bits + unrounded) * kept.weight_bits
        rows = [row.sum(axis=1) for row in (params, macs, bops, self._bytes(kept, weights))]
        ratios = [row / max(whole, 1.0) for row, whole in zip(rows, self._original, strict=True)]
        return dict(zip((*COSTS, *RATIOS.values()), (*rows, *ratios), strict=True))

    def _bytes(self, kept: KeptMany, weights: Array) -> Array:
        """See analytic.size_bytes."""
        outputs = self._outs * kept.outputs
        quantized, masked = kept.weight_bits < UNTOUCHED, kept.weights < 1
        codes = weights * kept.weights
        coded = codes * _CODE_BITS[kept.weight_bits.astype(np.int64)] / 8 + CODED_BYTES * kept.parts
        stored = np.where(quantized, np.minimum(coded, codes * kept.weight_bits / 8), codes * FLOAT_BITS / 8)
        tables = FLOAT_BITS / 8 * (outputs * (1 + kept.parts * quantized))
        notes = kept.parts * (LAYER_BYTES + MASK_BYTES * masked)
        found = stored + weights * _mask_bits(kept) / 8 + tables + notes
        return np.where(kept.outputs > 0, found, 0.0)


class _Columns:
    """Where the value of a site stands: decisions first, then what is fixed or neutral."""

    def __init__(self, space: SearchSpace) -> None:
        self._at = {decision.site: i for i, decision in enumerate(space.decisions)}
        self._fixed = {site: number(value) for site, value in space.fixed.items()}
        self._constants: list[float] = []

    def of(self, site: Site, neutral: float) -> int:
        if site in self._at:
            return self._at[site]
        value = self._fixed.get(site, neutral)
        if value not in self._constants:
            self._constants.append(value)
        return len(self._at) + self._constants.index(value)

    def whole(self, values: Array) -> Array:
        return np.hstack([values, np.tile(self._constants, (len(values), 1))])


def _feeds(table: LayerTable) -> tuple[Array, Array]:
    """The kept share of a layer's inputs is linear in that of the groups that feed it (see analytic._inputs): the
    share that is left without them, shape (layers,), and what every group adds, shape (groups, layers).
    """
    base, adds = np.ones(len(table.layers)), np.zeros((len(table.groups), len(table.layers)))
    for column, layer in enumerate(table.layers):
        fed = {i: g.channels for i, g in enumerate(table.groups) if layer.name in g.consumers}
        if layer.kind == "depthwise" or not fed:
            continue
        total = sum(fed.values())
        each = 1 if len(fed) > 1 else layer.in_channels // total
        scale = 1 / total if total > layer.in_channels else each / layer.in_channels
        base[column] = 1 - scale * total
        adds[list(fed), column] = np.array(list(fed.values())) * scale
    return base, adds


class _Kernels:
    """The share of rank that factorized layers keep (see analytic._rank)."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._size = np.array([math.prod(layer.kernel) for layer in layers], dtype=np.float64)
        self._first = np.array([layer.kernel[0] if layer.kernel else 1 for layer in layers], dtype=np.float64)
        self._sum = np.array([sum(layer.kernel) for layer in layers], dtype=np.float64)
        self._plain = np.array([_plain(layer) for layer in layers])

    def rank(self, outs: Array, ins: Array, ratio: Array, method: Array) -> tuple[Array, Array]:
        """Share of parameters and number of factors, shapes (n, layers); ``ratio`` and ``method`` alike."""
        if not (ratio < 1).any():
            return np.ones_like(ratio), np.ones_like(ratio)
        auto, svd, spatial, tucker2, cp = range(len(METHODS))
        size, first = self._size, self._first
        rest = size / first
        form = np.where(method == auto, spatial, method)
        form = np.where((size == 1) | ((form == spatial) & (rest == 1)), svd, form)
        rank = _floor(ratio * np.minimum(outs, ins * size))
        inner = _floor(ratio * np.minimum(ins, outs * size))
        apart = _floor(ratio * np.minimum(ins * first, outs * rest))
        factors = np.select(
            [form == svd, form == spatial, form == cp],
            [rank * (outs + ins * size), apart * (ins * first + outs * rest), rank * (outs + ins + self._sum)],
            outs * rank + rank * inner * size + inner * ins,
        )
        share = factors / np.maximum(outs * ins * size, 1.0)
        used = (ratio < 1) & self._plain & (share < 1)
        parts = np.where((method == tucker2) | (method == cp), 3.0, 2.0)
        return np.where(used, share, 1.0), np.where(used, parts, 1.0)


def _plain(layer: Layer) -> bool:
    """Whether it is one product of its inputs, which alone is factorized."""
    whole = layer.out_channels * (layer.in_channels * math.prod(layer.kernel) + biased(layer))
    return layer.kind in ("conv", "linear") and layer.params == whole


def _floor(rank: Array) -> Array:
    return np.maximum(np.floor(rank + 1e-9), 1.0)


def _mask_bits(kept: KeptMany) -> Array:
    """See analytic._mask_bits."""
    if not (kept.weights < 1).any():
        return np.zeros_like(kept.weights)
    share = np.clip(kept.weights, 1e-300, 1.0)
    rest = np.clip(1 - kept.weights, 1e-300, 1.0)
    found = -(share * np.log2(share) + rest * np.log2(rest))
    for code in np.unique(kept.pattern[kept.pattern > 0]):
        of_each, some = divmod(int(code), PATTERN)
        found[kept.pattern == code] = math.log2(math.comb(of_each, some)) / of_each if some else 0.0
    return np.where((kept.weights > 0) & (kept.weights < 1), found, 0.0)
