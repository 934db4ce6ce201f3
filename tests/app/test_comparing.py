"""Two trials beside each other: differences by hand, and what is left out."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from automc.app.comparing import (
    Difference,
    compare,
    comparison_data,
    comparison_text,
    differences,
    policy_contrast,
)
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.trial import Trial, TrialState


def layer(name: str, index: int) -> Layer:
    return Layer(name, index, "conv", 8, 8, (3, 3), (1, 1), (8, 8, 8), 576, 36864)


TABLE = LayerTable(
    layers=(layer("stem", 0), layer("mid", 1), layer("tail", 2)),
    groups=(Group("stem", 8, ("stem", "tail"), ("mid",)),),
    input_shape=(1, 8, 8),
)


def study(name: str, model: str = "digits_net") -> Any:
    part = SimpleNamespace(name="same")
    spec = SimpleNamespace(model=SimpleNamespace(name=model), data=part, task=part, evaluator=part)
    return SimpleNamespace(name=name, spec=spec, layers=TABLE)


def trial(number: int, ratio: float, bits: int, alpha: float = 0.5, **changes: Any) -> Trial:
    policy = Policy(
        {
            Site("prune", "stem", "prune_ratio"): ratio,
            Site("quantize", "mid", "weight_bits"): bits,
            Site("quantize", "tail", "weight_bits"): 8,
            Site("distill", "*", "kd_alpha"): alpha,
        }
    )
    found = Measurement({"top1": 1 - ratio, "macs": 1000 * (1 - ratio)}, errors={"top1": 0.03}, samples=100)
    return Trial(number, policy, **{"state": TrialState.COMPLETE, "measurement": found, **changes})


def test_differences_have_a_sign_a_share_and_an_error() -> None:
    first = Measurement({"top1": 0.8, "macs": 2000.0, "loss": 0.0, "top5": 1.0}, errors={"top1": 0.03})
    second = Measurement({"top1": 0.6, "macs": 1000.0, "loss": 0.5, "agreement": 0.9}, errors={"top1": 0.04})
    found = {row.metric: row for row in differences(first, second)}
    assert found["top1"].difference == pytest.approx(-0.2)
    assert found["top1"].relative == pytest.approx(-0.25)
    assert found["top1"].error == pytest.approx(0.05)  # 3, 4, 5
    assert found["macs"] == Difference("macs", 2000.0, 1000.0, -1000.0, -0.5)
    assert found["loss"] == Difference("loss", 0.0, 0.5, 0.5)
    assert found["top5"] == Difference("top5", 1.0, None)
    assert found["agreement"] == Difference("agreement", None, 0.9)


def test_only_what_differs_is_shown_unless_all_is_asked_for() -> None:
    s = study("s")
    found = compare((s, trial(3, 0.25, 4)), (s, trial(17, 0.5, 4)))
    assert policy_contrast(found.policy, False) == [
        {"layer": "stem", "prune_ratio": "0.25 -> 0.5"},
        {"layer": "tail", "prune_ratio": "0.25 -> 0.5"},
    ]
    whole, stem, mid, tail = policy_contrast(found.policy, True)
    assert whole == {"layer": "(whole network)", "distill kd_alpha": "0.5", "prune_ratio": "", "weight_bits": ""}
    assert (stem["weight_bits"], mid["weight_bits"], tail["weight_bits"]) == ("", "4", "8")
    said = comparison_text(found, False).splitlines()
    assert said[0].split() == ["metric", "s/3", "s/17", "difference", "error", "relative"]
    assert said[2].split() == ["top1", "0.7500", "0.5000", "-0.2500", "±", f"{math.hypot(0.03, 0.03):.4f}", "-33.3%"]
    assert said[3].split() == ["macs", "750", "500", "-250", "-", "-33.3%"]
    assert len(comparison_data(found, False)["policy"]) == 2
    assert len(comparison_data(found, True)["policy"]) == 5


def test_a_setting_of_the_whole_network_is_a_difference_too() -> None:
    s = study("s")
    found = compare((s, trial(3, 0.25, 4)), (s, trial(4, 0.25, 4, alpha=0.9)))
    assert policy_contrast(found.policy, False) == [{"layer": "(whole network)", "distill kd_alpha": "0.5 -> 0.9"}]


def test_a_trial_beside_itself() -> None:
    s = study("s")
    found = compare((s, trial(3, 0.25, 4)), (s, trial(3, 0.25, 4)))
    said = comparison_text(found, False)
    assert said.endswith("the policies are the same")
    assert said.splitlines()[2].split() == ["top1", "0.7500", "0.7500", "0.0000", "±", "0.0424", "+0.0%"]


def test_what_is_hard_to_compare_is_said() -> None:
    failed = trial(4, 0.25, 4, state=TrialState.FAILED, measurement=None, reason="nan", rung=1)
    found = compare((study("a"), trial(3, 0.25, 4)), (study("b", "other"), failed))
    assert found.names == ("a/3", "b/4")
    assert found.notes == ("models differ: digits_net and other", "rungs differ: 0 and 1", "b/4 is failed")
    assert comparison_text(found, False).startswith("note: models differ: digits_net and other\n")
    assert [(row.first, row.second) for row in found.metrics] == [(0.75, None), (750.0, None)]
