"""Distillation: during the repair, the compressed network also learns what its teacher says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from automc.core.policy import Value
from automc.errors import CompressionError
from automc.operators.base import Compression, LossTerm, Settings
from automc.operators.distillation.distances import FeatureTerm
from automc.operators.distillation.features import Feature, choose, shapes
from automc.operators.distillation.logits import LogitTerm


def distill(state: Compression, settings: Settings) -> Compression:
    """Add terms to the repair's loss: of the logits where ``kd_alpha`` is above 0, of features unless ``none``.

    ``loss = (1 - kd_alpha) * task + kd_alpha * logits + kd_beta * features``. The repair makes the teacher that
    ``kd_teacher`` says. Where this operator stands in the order, the repair takes place. Outputs that are no scores of
    classes have no softmax, so their distance is the plain one whatever ``kd_logits`` says.

    Settings: see OPERATORS, all of ``"*"``. Realized: the same, and ``kd_layers``, the modules compared, if any.

    Raises:
        CompressionError: features are asked without calibration inputs, or no two modules can be compared.
    """
    chosen = settings["*"]
    facts: dict[str, Value] = dict(chosen)
    terms: list[LossTerm] = []
    if alpha := float(chosen["kd_alpha"]):
        kind = str(chosen["kd_logits"]) if state.scores else "plain"
        facts["kd_logits"] = kind
        terms.append(LogitTerm(float(chosen["kd_temperature"]), alpha, kind))
    if (kind := str(chosen["kd_features"])) != "none":
        features = _features(state, kind)
        terms.append(FeatureTerm(kind, float(chosen["kd_beta"]), features))
        facts["kd_layers"] = " ".join(feature.path for feature in features)
    state = state.with_realized({"*": facts})
    return replace(state, losses=(*state.losses, *terms), teaching=str(chosen["kd_teacher"]))


def _features(state: Compression, kind: str) -> tuple[Feature, ...]:
    """The modules that this kind compares.

    Raises:
        CompressionError: as ``distill``.
    """
    place = f"distill(*).kd_features = {kind!r}"
    if state.calibration is None:
        raise CompressionError(f"{place} needs calibration inputs to find the features; there are none")
    inputs, key = state.calibration[:2], ("distill", "shapes")
    teacher = state.memory.get(key) or shapes(state.teacher, inputs)
    state.memory[key] = teacher
    found = choose(state.trace.table, teacher, shapes(state.model, inputs))
    if kind == "attention":
        found = [feature for feature in found if len(teacher[feature.path]) > 2]
    if kind == "relational":
        found = found[-1:]
    enough = any(len(teacher[a.path]) == len(teacher[b.path]) for a, b in pairwise(found))
    if not found or (kind == "fsp" and not enough):
        need = {"attention": "a layer with more than one position", "fsp": "two layers with as many axes"}
        raise CompressionError(f"{place}: the network has not {need.get(kind, 'a layer before its outputs')}; use none")
    return tuple(found)
