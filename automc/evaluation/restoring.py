"""Compressing with what puts damage right without training: least squares behind pruned channels, and corrections."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from automc.core.policy import Policy
from automc.core.required import require
from automc.operators.base import Compression, compress
from automc.operators.correct import correct, original_spreads
from automc.operators.moments import original_moments, refittable
from automc.operators.reconstruct import reconstruct
from automc.operators.sequential import reconstruct_sequentially
from automc.operators.targets import targets

METHODS = ("none", "moments", "sequential")
RANGES = ("original", "observed")
_STRUCTURAL = ("drop", "prune", "factorize")
"""Operators whose damage ``sequential`` makes up for."""


@dataclass(frozen=True)
class Restoring:
    """How damage is put right without training.

    Attributes:
        reconstruct: how weights are refitted: ``none``; ``moments``, those that read pruned channels, from second
            moments of the original network, so that a policy needs no data (operators/reconstruct.py); or
            ``sequential``, layer by layer on what the compressed network computes (operators/sequential.py).
        ridge: of these least squares, a share of the mean second moment, in (0, 1].
        correct: whether means, and spreads, are put right where no batch norm does (operators/correct.py); not after a
            repair, which has moved them on purpose.
        activation_ranges: where the ranges of rounded layer inputs come from: ``original``, what the original network
            reads at the same place, where that is sound (operators/inputs.py), or ``observed``, a pass of the
            compressed network over the calibration inputs. ``sequential`` always observes.
    """

    reconstruct: str = "moments"
    ridge: float = 1e-3
    correct: bool = True
    activation_ranges: str = "original"

    def __post_init__(self) -> None:
        rules = {"ridge": (0 < self.ridge <= 1, "in (0, 1]")}
        require(self, rules, {"reconstruct": METHODS, "activation_ranges": RANGES})

    @property
    def ranges(self) -> str:
        """For ``Compression.ranges``."""
        return "observed" if self.reconstruct == "sequential" else self.activation_ranges

    def warm(self, state: Compression, operators: Collection[str]) -> None:
        """Compute into ``state.memory`` what this needs of the original where these operators may be applied.

        Args:
            state: the original at the beginning, with calibration inputs.
        """
        if self.reconstruct == "moments" and "prune" in operators:
            readers = {cut.module: None for plan in state.trace.plans.values() for cut in plan.consumers}
            original_moments(state, [path for path in readers if refittable(state, path)])
        if self.reconstruct == "sequential" and set(operators) & set(_STRUCTURAL):
            targets(state)
        if self.correct and set(operators) & {*_STRUCTURAL, "sparsify", "quantize"}:
            original_spreads(state)

    def __call__(self, state: Compression, policy: Policy, order: Sequence[str], only: Sequence[str]) -> Compression:
        """``compress``, with the weights refitted right after the operators that call for it, and means corrected.

        Args:
            order, only: see ``compress``; a policy's own order is already in them.

        Raises:
            CompressionError: as ``compress`` and the reconstruction.
        """
        fresh = state.model is state.teacher
        named = {site.operator for site in policy}
        chosen = [name for name in order if name in named and name in only]
        if self.reconstruct == "moments" and "prune" in chosen:
            place = chosen.index("prune")
            state = compress(state, policy, order, chosen[:place]) if place else state
            pruned = compress(state, policy, order, ["prune"])
            state, chosen = reconstruct(state, pruned, self.ridge), chosen[place + 1 :]
        elif self.reconstruct == "sequential" and set(chosen) & set(_STRUCTURAL):
            place = max(chosen.index(name) for name in _STRUCTURAL if name in chosen) + 1
            state = reconstruct_sequentially(compress(state, policy, order, chosen[:place]), self.ridge)
            chosen = chosen[place:]
        elif not chosen:
            return compress(state, policy, order, only)
        state = compress(state, policy, order, chosen) if chosen else state
        return correct(state, spreads=self.reconstruct != "sequential") if self.correct and fresh else state
