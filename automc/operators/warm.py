"""Facts of the original network, computed ahead of the trials that will ask for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from automc.core.policy import Value
from automc.core.rules import Rule
from automc.core.space import Choice
from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.copies import duplicate
from automc.operators.flow import flows
from automc.operators.inputs import original_inputs
from automc.operators.live import UNTOUCHED
from automc.operators.moments import original_moments
from automc.operators.offers.factorize import FACTORIZE
from automc.operators.offers.prune import PRUNE

Offered = Mapping[str, frozenset[Value]]
"""By setting, what an operator may be asked for anywhere; of a range its two ends."""


def offered(rules: Iterable[Rule]) -> dict[str, Offered]:
    """By operator, what these rules of a space offer."""
    found: dict[str, dict[str, frozenset[Value]]] = {}
    for rule in rules:
        own = found.setdefault(rule.operator, {})
        for name, domain in rule.settings.items():
            values = domain.options if isinstance(domain, Choice) else (domain.low, domain.high)
            own[name] = own.get(name, frozenset()) | frozenset(values)
    return dict(found)


def warm(state: Compression, space: Mapping[str, Offered]) -> None:
    """Compute into ``state.memory`` what trials of this space can need of the original network.

    That is what the operators' own functions would compute in the first trials: where something cannot be computed, the
    trial that needs it says so.

    Args:
        state: the original network at the beginning. space: see ``offered``.
    """
    if state.calibration is None or not len(state.calibration):
        return
    for name, ahead in _AHEAD.items():
        if name in space:
            ahead(state, space[name])


def _prune(state: Compression, offers: Offered) -> None:
    from automc.operators.criteria import scores  # here, as everything that an operator needs: when it is used

    for criterion in sorted(map(str, offers.get("criterion", {PRUNE.settings["criterion"].neutral}))):
        for plan in state.trace.plans.values():
            with contextlib.suppress(CompressionError):
                scores(state, plan, criterion)


def _sparsify(state: Compression, offers: Offered) -> None:
    kinds = ("conv", "depthwise", "linear")
    layers = [layer.name for layer in state.trace.table.layers if layer.kind in kinds]
    for method, diagonal in (("obs", False), ("wanda", True)):
        if method in offers.get("method", ()):
            original_moments(state, layers, diagonal)


def _factorize(state: Compression, offers: Offered) -> None:
    from automc.operators.factorize import factorize

    if True not in offers.get("data_aware", ()):
        return
    neutral = {name: setting.neutral for name, setting in FACTORIZE.settings.items()}
    layers = [layer.name for layer in state.trace.table.layers if layer.kind in FACTORIZE.kinds]
    for method in sorted(map(str, offers.get("method", {neutral["method"]}))):
        if method in ("auto", "svd", "spatial"):  # the others have no use for data
            asked = {**neutral, "method": method, "rank_ratio": 0.01, "data_aware": True}
            with contextlib.suppress(CompressionError):
                factorize(replace(state, model=duplicate(state.model)), dict.fromkeys(layers, asked))


def _quantize(state: Compression, offers: Offered) -> None:
    if state.ranges == "original" and any(float(bits) < UNTOUCHED for bits in offers.get("activation_bits", ())):
        original_inputs(state)
    if "tensor" in offers.get("granularity", ()):
        flows(state)


_AHEAD: Mapping[str, Callable[[Compression, Offered], None]] = {
    "prune": _prune,
    "sparsify": _sparsify,
    "factorize": _factorize,
    "quantize": _quantize,
}
