"""Where the reconstruction stands in a policy's walk, and its settings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import SpecError
from automc.evaluation.building import Builder
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.restoring import Restoring
from automc.operators.base import Compression, compress
from automc.operators.live import LiveLayer
from automc.operators.recalibrate import recalibrate
from automc.operators.reconstruct import reconstruct

ORDER = ("drop", "prune", "factorize", "sparsify", "quantize", "distill")


SPEC = StudySpec(
    "study",
    ModelSpec("digits_net"),
    Part("digits"),
    (),
    ORDER,
    (Objective("top1"), Objective("size_bytes")),
    rungs=(Rung(), Rung(4)),
    evaluator=Part("network", {"correct": False}),
)


def quiet(step: int, value: float) -> bool:
    return True


@pytest.fixture(scope="module")
def evaluator() -> NetworkEvaluator:
    return prepare(SPEC)


def other(evaluator: NetworkEvaluator, **settings: Value) -> Builder:
    """A builder of the same network with other settings; what it remembers of the original is common."""
    restoring = Restoring(**{"correct": False, **settings})  # type: ignore[arg-type]
    return replace(evaluator._builder, restoring=restoring)


def built(builder: Builder, whole: Policy, steps: int = 0, order: Sequence[str] = ORDER) -> nn.Module:
    return builder(whole, order, steps, 0, quiet).model


def policy(evaluator: NetworkEvaluator, ratio: float, **more: Value) -> Policy:
    values: dict[Site, Value] = {Site("prune", group.name, "prune_ratio"): ratio for group in evaluator.table.groups}
    for setting, value in more.items():
        operator = {"weight_bits": "quantize", "rank_ratio": "factorize", "sparsity": "sparsify"}[setting]
        layers = [layer for layer in evaluator.table.layers if layer.kind in ("conv", "linear")]
        values |= {Site(operator, layer.name, setting): value for layer in layers}
    return Policy(values)


def start(evaluator: NetworkEvaluator) -> Compression:
    return evaluator.original()


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


def by_hand(evaluator: NetworkEvaluator, whole: Policy, behind: tuple[str, ...], ridge: float = 1e-3) -> nn.Module:
    """Pruned, refitted, then the others, then recalibrated."""
    state = start(evaluator)
    state = reconstruct(state, compress(state, whole, ORDER, ["prune"]), ridge)
    state = compress(state, whole, ORDER, behind) if behind else state
    if state.stale:
        recalibrate(state.model, state.calibration, original=state.teacher)  # type: ignore[arg-type]
    return state.model


def test_reconstruction_comes_right_behind_pruning(evaluator: NetworkEvaluator) -> None:
    for more, behind in (({}, ()), ({"weight_bits": 4}, ("quantize",)), ({"sparsity": 0.5}, ("sparsify",))):
        whole = policy(evaluator, 0.5, **more)
        assert same(evaluator.build(whole, 0), by_hand(evaluator, whole, behind))


def test_it_serves_the_layers_that_an_earlier_operator_left_alone(evaluator: NetworkEvaluator) -> None:
    order = ("sparsify", "prune", "quantize", "distill")
    readers = [cut.module for plan in evaluator.original().trace.plans.values() for cut in plan.consumers]
    whole = Policy({**policy(evaluator, 0.5), Site("sparsify", readers[0], "sparsity"): 0.5})
    found, plain = (built(other(evaluator, reconstruct=method), whole, order=order) for method in ("moments", "none"))
    assert isinstance(found.get_submodule(readers[0]), LiveLayer)
    assert torch.equal(*(model.get_submodule(readers[0]).get_parameter("weight") for model in (found, plain)))
    assert not torch.equal(*(model.get_submodule(readers[1]).get_parameter("weight") for model in (found, plain)))


def test_policies_that_prune_nothing_are_what_they_were(evaluator: NetworkEvaluator) -> None:
    plain = other(evaluator, reconstruct="none")
    for whole in (Policy({}), policy(evaluator, 0.0), policy(evaluator, 0.0, weight_bits=4)):
        assert same(evaluator.build(whole, 0), built(plain, whole))
    assert same(evaluator.build(Policy({}), 0), evaluator.original().teacher)


def test_it_lifts_a_pruned_network_before_any_repair_and_gives_it_a_better_start(evaluator: NetworkEvaluator) -> None:
    whole, plain = policy(evaluator, 0.5), other(evaluator, reconstruct="none")
    for steps in (0, 4):
        found, wanted = (evaluator.measure(built(each, whole, steps))["loss"] for each in (evaluator._builder, plain))
        assert found < wanted


def test_none_and_the_ridge_are_heard(evaluator: NetworkEvaluator) -> None:
    whole = policy(evaluator, 0.5)
    state = compress(start(evaluator), whole, ORDER)
    recalibrate(state.model, state.calibration, original=state.teacher)  # type: ignore[arg-type]
    assert same(built(other(evaluator, reconstruct="none"), whole), state.model)
    assert same(built(other(evaluator, ridge=0.5), whole), by_hand(evaluator, whole, (), ridge=0.5))
    assert not same(by_hand(evaluator, whole, (), ridge=0.5), by_hand(evaluator, whole, ()))


def test_trials_do_not_depend_on_earlier_ones(evaluator: NetworkEvaluator) -> None:
    whole, teacher = policy(evaluator, 0.5), copy.deepcopy(evaluator.original().teacher)
    first = built(replace(evaluator._builder, memory={}), whole)
    evaluator.build(policy(evaluator, 0.75), 0)
    assert same(evaluator.build(whole, 0), first)
    assert same(evaluator.original().teacher, teacher)


def test_sequential_is_another_network_and_better_than_nothing(evaluator: NetworkEvaluator) -> None:
    whole = policy(evaluator, 0.5)
    sequential = built(other(evaluator, reconstruct="sequential"), whole)
    assert not same(sequential, evaluator.build(whole, 0))
    plain = built(other(evaluator, reconstruct="none"), whole)
    assert evaluator.measure(sequential)["loss"] < evaluator.measure(plain)["loss"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reconstruct": "moment"}, "reconstruct: must be one of none, moments, sequential, not 'moment'"),
        ({"ridge": 0.0}, r"ridge: must be in \(0, 1\], not 0.0"),
        ({"ridge": 2.0}, r"ridge: must be in \(0, 1\], not 2.0"),
        ({"ridge": float("nan")}, r"ridge: must be in \(0, 1\], not nan"),
    ],
)
def test_settings_are_checked(settings: dict[str, Value], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Restoring(**settings)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=message):
        prepare(replace(SPEC, evaluator=Part("network", settings)))
