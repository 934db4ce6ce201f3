"""The known landscape: closed forms, determinism, the failures it is asked for."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automc.core.metrics import METRICS, Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import CompressionError, EvaluationError, NotFinite, SpecError
from automc.evaluation.synthetic import (
    BEST_ALPHA,
    BEST_TEMPERATURE,
    REPAIRED,
    SyntheticEvaluator,
    prepare_synthetic,
)


def evaluator(study_seed: int = 0, **settings: object) -> SyntheticEvaluator:
    spec = StudySpec("s", ModelSpec("none"), Part("none"), (), ("prune", "quantize", "distill"), (Objective("top1"),))
    return prepare_synthetic(
        replace(spec, evaluator=Part("synthetic", settings), rungs=(Rung(), Rung(100)), seed=study_seed)
    )


def measured(found: SyntheticEvaluator, policy: Policy, rung: int = 0) -> Measurement:
    return found.evaluate(policy, rung, lambda step, value: True)


def uniform(found: SyntheticEvaluator, ratio: float = 0.0, bits: int = 32) -> dict[Site, float]:
    groups = {Site("prune", group.name, "prune_ratio"): ratio for group in found.table.groups}
    return groups | {Site("quantize", layer.name, "weight_bits"): bits for layer in found.table.layers}


def test_the_empty_policy_gives_the_baseline() -> None:
    found = evaluator()
    assert measured(found, Policy({})).metrics == found.baseline == measured(found, Policy({}), 1).metrics
    assert {value for name, value in found.baseline.items() if name.endswith("_ratio")} == {1.0}
    assert set(found.baseline) <= set(METRICS)
    assert found.baseline["macs"] == found.table.macs
    assert found.baseline["params"] == found.table.params


def test_costs_follow_from_the_policy() -> None:
    found = evaluator(layers=4)
    table = found.table.layers
    half = measured(found, Policy(uniform(found, 0.5))).metrics
    inputs = [3, *(layer.out_channels // 2 for layer in table[:-1])]
    outputs = [*(layer.out_channels // 2 for layer in table[:-1]), 10]
    weights = [i * o * math.prod(t.kernel) for i, o, t in zip(inputs, outputs, table, strict=True)]
    places = [math.prod(layer.out_shape[1:]) for layer in table]
    assert half["params"] == sum(weights) + sum(outputs)
    assert half["macs"] == sum(w * p for w, p in zip(weights, places, strict=True))
    assert half["bops"] == half["macs"] * 32 * 32
    eight = measured(found, Policy(uniform(found, 0.0, 8))).metrics
    assert eight["bops_ratio"] == 0.25
    assert eight["macs_ratio"] == 1.0
    assert 0.25 < eight["size_ratio"] < 0.3


def test_damage_is_a_sum_over_layers_so_the_optimum_is_known() -> None:
    found = evaluator(layers=3)
    sites = [Site("quantize", layer.name, "weight_bits") for layer in found.table.layers]
    alone = {(s, b): found.harm(Policy({s: b})) for s in sites for b in (2, 4, 8)}
    tried = {
        bits: measured(found, Policy(dict(zip(sites, bits, strict=True)))).metrics["top1"]
        for bits in product((2, 4, 8), repeat=3)
    }
    wanted = {bits: 0.95 * math.exp(-sum(alone[s, b] for s, b in zip(sites, bits, strict=True))) for bits in tried}
    assert tried == pytest.approx(wanted)
    assert max(tried, key=lambda bits: tried[bits]) == (8, 8, 8)


@given(st.floats(0.5, 20), st.floats(0, 1))
def test_distillation_helps_most_at_its_known_best_and_only_with_repair(temperature: float, alpha: float) -> None:
    found = evaluator()
    pruned = uniform(found, 0.4)

    def top1(t: float, a: float, rung: int) -> float:
        distill = {Site("distill", "*", "kd_temperature"): t, Site("distill", "*", "kd_alpha"): a}
        return measured(found, Policy(pruned | distill), rung).metrics["top1"]

    assert top1(temperature, alpha, 1) <= top1(BEST_TEMPERATURE, BEST_ALPHA, 1)
    assert top1(temperature, alpha, 0) == top1(BEST_TEMPERATURE, BEST_ALPHA, 0)
    best = -math.log(top1(BEST_TEMPERATURE, BEST_ALPHA, 1) / 0.95)
    assert best == pytest.approx(REPAIRED * found.harm(Policy(pruned)))


def test_a_measurement_is_a_function_of_settings_seed_policy_and_rung() -> None:
    one, two = evaluator(noise=0.02), evaluator(noise=0.02)
    policy = Policy(uniform(one, 0.3, 4))
    for rung in (0, 1):
        assert measured(one, policy, rung).metrics == measured(two, policy, rung).metrics
    assert measured(one, policy).metrics["top1"] != measured(evaluator(1, noise=0.02), policy).metrics["top1"]
    draws = [measured(one, Policy({Site("distill", "*", "kd_alpha"): i / 400})).metrics["top1"] for i in range(400)]
    spread = [value - 0.95 for value in draws if value < 1]
    assert 0.015 < math.sqrt(sum(x * x for x in spread) / len(spread)) < 0.025


def test_the_monitor_hears_falling_losses_and_is_obeyed() -> None:
    found, heard = evaluator(), []
    policy = Policy(uniform(found, 0.5))

    def stop_third(step: int, value: float) -> bool:
        heard.append((step, value))
        return len(heard) < 3

    stopped = found.evaluate(policy, 1, stop_third)
    assert [step for step, _ in heard] == [20, 40, 60]
    assert [value for _, value in heard] == sorted((value for _, value in heard), reverse=True)
    assert stopped.metrics["top1"] < measured(found, policy, 1).metrics["top1"]


def test_failures_have_their_share_and_strike_the_same_policies() -> None:
    found = evaluator(fail={"error": 0.2, "nan": 0.1, "oom": 0.1})
    kinds: dict[type[BaseException] | None, int] = {}
    for i in range(1000):
        kind: type[BaseException] | None = None
        try:
            measured(found, Policy({Site("distill", "*", "kd_alpha"): i / 1000}))
        except (EvaluationError, MemoryError) as error:
            kind = type(error)
        kinds[kind] = kinds.get(kind, 0) + 1
    # Five standard deviations of a binomial share of 1,000.
    assert abs(kinds[EvaluationError] - 200) < 64
    assert abs(kinds[NotFinite] - 100) < 48
    assert abs(kinds[MemoryError] - 100) < 48


def test_lost_kills_the_process() -> None:
    code = (
        "from automc.core.policy import Policy\n"
        "from automc.evaluation.synthetic import *\n"
        "SyntheticEvaluator(SyntheticSettings(fail={'lost': 1.0})).evaluate(Policy({}), 0, lambda s, v: True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (17, b"", b"")


def test_an_unknown_layer_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(CompressionError, match="no layer 'conv99', did you mean 'conv"):
        measured(evaluator(), Policy({Site("prune", "conv99", "prune_ratio"): 0.5}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": 3}, "synthetic has no such setting .*did you mean 'layers'"),
        ({"layers": 1}, "layers: must be a whole number of at least 2, not 1"),
        ({"noise": -1}, "noise: must be a number of at least 0, not -1"),
        ({"hang": 2}, r"hang: must be a share in \[0, 1\], not 2"),
        ({"fail": {"nan": 0.7, "oom": 0.7}}, "fail: must be shares by reason"),
        ({"fail": {"timeout": 0.1}}, "fail: must be shares by reason"),
        ({"sleep_s": "long"}, "sleep_s: must be a number of at least 0, not 'long'"),
        ({"seed": 1.5}, "seed: must be a whole number of at least 0, not 1.5"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        evaluator(**settings)
