"""Low rank: layers are written as products of smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from automc.core.policy import Value
from automc.errors import CompressionError
from automc.operators.base import Compression, Settings
from automc.operators.factorized import chain, put
from automc.operators.live import LiveLayer
from automc.operators.live_kinds import shared_weights
from automc.operators.low_rank.decompositions import (
    Basis,
    Part,
    basis,
    matrix,
    response,
    response_basis,
    tucker2,
    two_parts,
    unfold,
)
from automc.operators.low_rank.polyadic import cp
from automc.operators.low_rank.ranks import by_energy, by_ratio, by_vbmf
from automc.operators.low_rank.responses import second_moments

T = TypeVar("T")


def factorize(state: Compression, settings: Settings) -> Compression:
    """Put a ``Factorized`` chain in the place of each layer whose rank ratio is below 1.

    The forms, for n outputs, c inputs and a kernel k (h x w), and the full rank that ``rank_ratio`` refers to:

    ========  ==========================================================  ==============================
    method    parts                                                       full rank
    ========  ==========================================================  ==============================
    svd       k to d channels, 1 x 1 to n (linear: d, n)                  min(n, c h w)
    spatial   h x 1 to d channels, 1 x w to n                             min(n w, c h)
    tucker2   1 x 1 to d', k to d, 1 x 1 to n                             d: min(n, c h w), d': min(c, n h w)
    cp        1 x 1 to d, depthwise h x 1, depthwise 1 x w, 1 x 1 to n    min(n, c h w)
    ========  ==========================================================  ==============================

    On one axis ``spatial`` is ``svd``, on three it splits the first from the others; every form of a linear or 1 x 1
    layer is ``svd``. ``auto`` is ``spatial`` (without training the most accurate at equal size, see the README). The
    full rank of ``cp`` is that of the kernel as a matrix of n rows, the least CP rank that a kernel in general position
    can have: close to 1 the error is small, not zero.

    A rank is ``floor(rank_ratio * full)`` (rank_by ratio), or the fewest directions with that share of the squared
    singular values (energy), or what variational Bayes finds, whatever the ratio below 1 (vbmf); at least 1. Tucker-2
    chooses both ranks so; cp reads the matrix of n rows.

    ``data_aware`` takes the second moment of what the layer sees on the calibration inputs into account, in the network
    as it is when this operator begins. With svd the outputs' error is the least that the rank allows, and energy is
    that of the outputs; with spatial this holds for what the h x 1 kernels answer, of which the outputs are sums (vbmf
    still reads the weight, as its noise is the weight's). For tucker2 and cp there is no closed form, so nothing
    changes; ``realized`` then says False.

    A layer stays as it is where the product would not have fewer parameters, where it is a convolution with groups, or
    where its weight is another module's too. Its ``realized`` then has rank_ratio 1 and method ``none``. Realized per
    layer: ``method``, ``rank`` (tucker2: d, and ``rank_in``, d'), ``rank_ratio`` (kept over full; tucker2: d + d' over
    both full ranks), ``data_aware``, ``params_before`` and ``params_after``.

    Raises:
        CompressionError: a layer is quantized or sparse already, its weights are not finite, or ``data_aware`` is asked
            for without calibration inputs.
    """
    jobs = {name: _job(state, name, own) for name, own in settings.items() if float(own["rank_ratio"]) < 1}
    shared = shared_weights(state.model)
    jobs = {name: job for name, job in jobs.items() if _splits(state.model.get_submodule(name), shared)}
    moments = second_moments(
        state, {name: response(job.kernel, job.first) for name, job in jobs.items() if job.data_aware}
    )
    facts: dict[str, dict[str, Value]] = {}
    changed = False
    for name in settings:
        layer = state.model.get_submodule(name)
        facts[name] = {"method": "none", "rank_ratio": 1.0, "params_before": _params(layer)}
        if name in jobs:
            factors, found = _FORMS[jobs[name].method](jobs[name], moments.get(name))
            if sum(part.weight.numel() for part in factors) < jobs[name].kernel.numel():
                made = chain(layer, factors)
                put(state.model, layer, made)
                layer, changed = made, True
                facts[name] |= found
        facts[name]["params_after"] = _params(layer)
    return replace(state.with_realized(facts), stale=state.stale or changed)


@dataclass(frozen=True)
class _Job:
    """One layer's factorization.

    Attributes:
        kernel: its weight, float64. memory: facts of this kernel, kept over the trials, or None where the kernel is not
            the original's any more.
    """

    name: str
    kernel: Tensor
    method: str
    rank_by: str
    ratio: float
    data_aware: bool
    memory: dict[Hashable, Any] | None

    def remembered(self, key: Hashable, compute: Callable[[], T]) -> T:
        if self.memory is None:
            return compute()
        place = ("factorize", self.name, key)
        if place not in self.memory:
            self.memory[place] = compute()
        found: T = self.memory[place]
        return found

    @property
    def first(self) -> int:
        """How many spatial axes the first of two parts has."""
        return 1 if self.method == "spatial" else self.kernel.dim() - 2

    def split(self) -> Basis:
        """Of the kernel as a matrix; the channel-wise one for tucker2 and cp."""
        return self.remembered(("split", self.first), lambda: basis(matrix(self.kernel, self.first)))

    def rank(self, found: Basis, weights: Basis | None = None) -> int:
        if self.rank_by == "ratio":
            return by_ratio(self.ratio, found.squares)
        if self.rank_by == "energy":
            return by_energy(self.ratio, found.squares)
        read = weights or found
        return by_vbmf(read.squares, max(read.columns, len(read.vectors)))

    def facts(self, rank: int, full: int) -> dict[str, Value]:
        return {"method": self.method, "rank": rank, "rank_ratio": rank / full, "data_aware": self.data_aware}


_Made = tuple[list[Part], dict[str, Value]]


def _two(job: _Job, moment: Tensor | None) -> _Made:
    weights = job.split() if moment is None or job.rank_by == "vbmf" else None
    found = weights if moment is None else response_basis(moment, matrix(job.kernel, job.first).shape[1])
    assert found is not None
    rank = job.rank(found, weights)
    return two_parts(job.kernel, job.first, found.vectors[:, :rank]), job.facts(rank, len(found.squares))


def _tucker2(job: _Job, moment: Tensor | None) -> _Made:
    outs = job.split()
    ins = job.remembered("inputs", lambda: basis(unfold(job.kernel, 1)))
    size = job.kernel[0, 0].numel()
    rank, rank_in = job.rank(outs), job.rank(ins)
    rank, rank_in = min(rank, rank_in * size), min(rank_in, rank * size)  # more directions than the core can fill
    facts = job.facts(rank + rank_in, len(outs.squares) + len(ins.squares)) | {"rank": rank, "rank_in": rank_in}
    return tucker2(job.kernel, outs.vectors[:, :rank], ins.vectors[:, :rank_in]), facts


def _cp(job: _Job, moment: Tensor | None) -> _Made:
    outs = job.split()
    rank = job.rank(outs)
    return job.remembered(("cp", rank), lambda: cp(job.kernel, rank)), job.facts(rank, len(outs.squares))


_FORMS: Mapping[str, Callable[[_Job, Tensor | None], _Made]] = {
    "svd": _two,
    "spatial": _two,
    "tucker2": _tucker2,
    "cp": _cp,
}


def _job(state: Compression, name: str, chosen: Mapping[str, Value]) -> _Job:
    layer = state.model.get_submodule(name)
    if isinstance(layer, LiveLayer):
        raise CompressionError(
            f"factorize({name}): the layer is quantized or sparse already; put factorize before sparsify and quantize"
            " in the order"
        )
    weight = layer.get_parameter("weight").detach()
    if not bool(weight.isfinite().all()):
        raise CompressionError(f"factorize({name}): the layer's weights are NaN or infinite")
    method = _method(weight.shape[2:], str(chosen["method"]))
    memory = state.memory if _is_original(state, name, weight) else None
    data_aware = bool(chosen["data_aware"]) and method in ("svd", "spatial")
    return _Job(name, weight.double(), method, str(chosen["rank_by"]), float(chosen["rank_ratio"]), data_aware, memory)


def _method(kernel: Sequence[int], asked: str) -> str:
    """The form that fits a kernel of this size, empty for linear layers."""
    form = "spatial" if asked == "auto" else asked
    return "svd" if prod(kernel) == 1 or (form == "spatial" and prod(kernel[1:]) == 1) else form


def _splits(layer: nn.Module, shared: set[int]) -> bool:
    """Whether a layer can be a product: it has no groups, and its weight lies nowhere else too."""
    return id(layer.get_parameter("weight")) not in shared and getattr(layer, "groups", 1) == 1


def _params(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _is_original(state: Compression, name: str, weight: Tensor) -> bool:
    try:
        return torch.equal(weight, state.teacher.get_submodule(name).get_parameter("weight"))
    except AttributeError:  # the original has another form there
        return False
