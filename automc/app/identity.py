"""Whether a study still has the model and the data that it began with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from automc.core.metrics import METRICS
from automc.errors import SpecError

KEY = "digests"
"""Where the facts of a study keep the digests of model and data."""

_WAY = "go on with what it began with, or start a new study with --from {}"

SAMPLED = 0.002
"""Relative: what another machine's rounding may change in a metric of the task."""


def digests(evaluator: Any) -> dict[str, str]:
    """Of model and data; nothing of an evaluator that has neither."""
    if not hasattr(evaluator, "original"):
        return {}
    from automc.evaluation.digests import digests as found

    return found(evaluator)


def check(study: str, facts: Mapping[str, Any], evaluator: Any) -> None:
    """Refuse another model, other data, and a code that measures the original otherwise; times may differ.

    Args:
        facts: of the study; what older ones do not have is not compared.

    Raises:
        SpecError: in one line, what was and what is.
    """
    check_digests(study, facts, evaluator)
    for name, before in facts["baseline"].items():
        after = evaluator.baseline.get(name)
        if after is None or name not in METRICS or name == "seconds" or name.startswith("latency_"):
            continue
        if not math.isclose(before, after, rel_tol=SAMPLED if METRICS[name].sampled else 1e-9, abs_tol=1e-9):
            raise SpecError(
                f"study {study!r}: the original model had {name} {before:.10g} when it began and has {after:.10g} now; "
                + _WAY.format(study)
            )


def check_digests(study: str, facts: Mapping[str, Any], evaluator: Any) -> None:
    """Refuse another model and other data, by their digests alone. Raises as ``check``."""
    now = digests(evaluator)
    for kind, digest in facts.get(KEY, {}).items():
        if kind in now and now[kind] != digest:
            raise SpecError(
                f"study {study!r}: its {kind} changed since it began ({digest[:12]} -> {now[kind][:12]}); "
                + _WAY.format(study)
            )
