"""A policy at half strength: what makes a teaching assistant, or a mildly compressed teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from automc.core.policy import Policy, Value

_MILD_BITS = 8
"""Bits that hardly change a network: fewer go half the way to these, and these or more stay."""


def _half(value: Value) -> Value:
    return float(value) / 2


def _bits(value: Value) -> Value:
    return max(int(value), (int(value) + _MILD_BITS + 1) // 2)


def _rank(value: Value) -> Value:
    return (float(value) + 1) / 2


def _pattern(value: Value) -> Value:
    """N:M patterns have a sparsity of their own: 1:4 is 0.75, 2:4 is 0.5, and half of that has no pattern."""
    return {"1:4": "2:4", "2:4": "unstructured"}.get(str(value), value)


def _kept(value: Value) -> Value:
    return False


def _original(value: Value) -> Value:
    return "original"


def _same(value: Value) -> Value:
    return value


MILDER: Mapping[str, Callable[[Value], Value]] = {
    "prune_ratio": _half,
    "sparsity": _half,
    "pattern": _pattern,
    "weight_bits": _bits,
    "activation_bits": _bits,
    "rank_ratio": _rank,
    "dropped": _kept,
    "kd_teacher": _original,
}
"""Setting to what half its strength is; how a thing is done (a criterion, a scheme) stays as it is."""


def milder(policy: Policy) -> Policy:
    """The same policy at half strength, taught by the original (Mirzadeh et al. 2020: an assistant of size in between).

    Ratios are halved, bits and ranks go half the way to 8 bits (rounded up) and to full rank, no block is dropped.
    """
    return Policy({site: MILDER.get(site.setting, _same)(value) for site, value in policy.items()})
