"""Damage of single decisions against networks built and compared by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site, Value
from automc.core.ports import Prober
from automc.core.sensitivity import MEASURES
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import CompressionError, NotFinite, SpecError
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators.base import compress
from automc.operators.changes import squared_changes
from automc.operators.recalibrate import batch_norms

ORDER = ("drop", "prune", "factorize", "sparsify", "quantize", "distill")
SPEC = StudySpec(
    "study",
    ModelSpec("digits_net"),
    Part("digits", {"calibration": 64}),
    (),
    ORDER,
    (Objective("top1"), Objective("size_bytes")),
    rungs=(Rung(),),
)
ALL = tuple(MEASURES)
SAMPLED = 0.02
"""Batch norm divides by the count in the pass, and by one less afterwards; 64 inputs are one batch of both."""


def quiet(step: int, value: float) -> bool:
    return True


def policy(*sites: tuple[str, str, str, Value]) -> Policy:
    return Policy({Site(*words): value for *words, value in sites})


@pytest.fixture(scope="module")
def evaluator() -> NetworkEvaluator:
    return prepare(SPEC)


@pytest.fixture(scope="module")
def inputs(evaluator: NetworkEvaluator) -> Tensor:
    return evaluator.data.normalise(evaluator.data.split("calibration").inputs)


def divergence(own: Tensor, wanted: Tensor) -> float:
    return float((wanted.softmax(1) * (wanted.log_softmax(1) - own.log_softmax(1))).sum(1).mean())


def original_recalibrated_like(model: nn.Module, original: nn.Module, inputs: Tensor) -> Tensor:
    """The original's answers with the batch norms on batch statistics that have others than its own in ``model``."""
    twin = copy.deepcopy(original)
    for path, norm in twin.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            made = dict(model.named_modules()).get(path)
            own = made.running_mean if isinstance(made, nn.BatchNorm2d) else None
            fresh = own is None or own.shape != norm.running_mean.shape or not torch.equal(own, norm.running_mean)
            norm.train(fresh)
    with torch.no_grad():
        return twin(inputs)


def seen(model: nn.Module, names: list[str], inputs: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            found[name] = output

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return found


QUANTIZED = [("quantize", "block1.conv2", "weight_bits", 8), ("quantize", "linear", "activation_bits", 4)]
STALE = [
    ("quantize", "conv1", "weight_bits", 2),
    ("quantize", "block2.conv1", "weight_bits", 2),
    ("prune", "block1.conv1", "prune_ratio", 0.75),
    ("prune", "conv1", "prune_ratio", 0.25),
    ("sparsify", "block2.conv2", "sparsity", 0.9),
    ("factorize", "block2.conv2", "rank_ratio", 0.1),
    ("drop", "block1", "dropped", True),
]


@pytest.mark.parametrize("site", QUANTIZED)
def test_loss_is_the_divergence_from_the_original(
    site: tuple[str, str, str, Value], evaluator: NetworkEvaluator, inputs: Tensor
) -> None:
    with torch.no_grad():
        wanted = divergence(evaluator.build(policy(site), 0)(inputs), evaluator.original().model(inputs))
    assert 0 < wanted < 1
    assert evaluator.damage(policy(site), ["loss"]) == pytest.approx({"loss": wanted}, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("site", STALE)
def test_loss_of_recalibrated_networks_is_that_beyond_the_original_s_own(
    site: tuple[str, str, str, Value], evaluator: NetworkEvaluator, inputs: Tensor
) -> None:
    model = evaluator.build(policy(site), 0)
    with torch.no_grad():
        own = model(inputs)
    wanted = divergence(own, original_recalibrated_like(model, evaluator.original().model, inputs))
    assert wanted > 0
    assert evaluator.damage(policy(site), ["loss"])["loss"] == pytest.approx(wanted, rel=SAMPLED, abs=1e-4)


@pytest.mark.parametrize(
    ("site", "where"),
    [
        (("quantize", "block2.conv1", "weight_bits", 3), ["block2.conv1"]),
        (("quantize", "block2.conv1", "activation_bits", 3), ["block2.conv1"]),
        (("sparsify", "linear", "sparsity", 0.8), ["linear"]),
        (("factorize", "block2.conv2", "rank_ratio", 0.1), ["block2.conv2"]),
        (("prune", "block1.conv1", "prune_ratio", 0.75), ["block1.conv2"]),
        (("prune", "block2.conv1", "prune_ratio", 0.5), ["block2.conv2"]),
        (("drop", "block1", "dropped", True), ["block1"]),
    ],
)
def test_error_is_that_of_the_outputs_nearest_behind_the_change(
    site: tuple[str, str, str, Value], where: list[str], evaluator: NetworkEvaluator, inputs: Tensor
) -> None:
    original = evaluator.original().model
    before, after = seen(original, where, inputs), seen(evaluator.build(policy(site), 0), where, inputs)
    if site[0] == "drop":  # a block's input is no output of it
        after = {"block1": F.relu(seen(original, ["bn1"], inputs)["bn1"])}
    wrong = sum((after[name] - before[name]).double().square().sum() for name in where)
    wanted = float(wrong / sum(before[name].double().square().sum() for name in where))
    assert 0 < wanted < 2
    assert evaluator.damage(policy(site), ["error"])["error"] == pytest.approx(wanted, rel=SAMPLED)


def test_of_several_changed_layers_the_errors_are_summed(evaluator: NetworkEvaluator, inputs: Tensor) -> None:
    names = ["block1.conv2", "linear"]
    both = policy(*(("quantize", name, "activation_bits", 4) for name in names))
    before, after = (seen(m, names, inputs) for m in (evaluator.original().model, evaluator.build(both, 0)))
    wrong = sum(float((after[name] - before[name]).double().square().sum()) for name in names)
    wanted = wrong / sum(float(before[name].double().square().sum()) for name in names)
    assert evaluator.damage(both, ["error"])["error"] == pytest.approx(wanted, rel=1e-3)


def test_trace_is_the_mean_trace_times_the_squared_change(evaluator: NetworkEvaluator) -> None:
    """Twice the change of the weights, four times the damage; of no change, none; sites add up."""
    sites = [("quantize", "block2.conv1", "weight_bits", bits) for bits in (3, 4)]
    changes = [squared_changes(evaluator.original(), policy(s), ORDER)["block2.conv1"] for s in sites]
    damages = [evaluator.damage(policy(s), ["trace"])["trace"] for s in sites]
    assert damages[0] / damages[1] == pytest.approx(changes[0] / changes[1])
    other = ("quantize", "linear", "activation_bits", 4)
    together = evaluator.damage(policy(sites[0], other), ["trace"])["trace"]
    assert together == pytest.approx(damages[0] + evaluator.damage(policy(other), ["trace"])["trace"], rel=0.2)
    assert together > damages[0] > 0


def test_trace_predicts_the_loss_of_small_changes(evaluator: NetworkEvaluator) -> None:
    """The second term of Taylor's series is half of it; noise and the rest of the series leave a factor."""
    for site in (("quantize", "linear", "weight_bits", 5), ("quantize", "linear", "activation_bits", 5)):
        found = evaluator.damage(policy(site), ["loss", "trace"])
        assert 1 / 4 < 0.5 * found["trace"] / found["loss"] < 4


@pytest.mark.parametrize("idle", [policy(), policy(("distill", "*", "kd_alpha", 0.5))])
def test_what_changes_nothing_damages_nothing(idle: Policy, evaluator: NetworkEvaluator) -> None:
    assert evaluator.damage(idle, ALL) == dict.fromkeys(ALL, 0.0)


def test_more_bits_and_smaller_ratios_never_hurt_on_average(evaluator: NetworkEvaluator) -> None:
    def means(sites: list[tuple[str, str, str, Value]]) -> Tensor:
        found = [evaluator.damage(policy(site), ALL) for site in sites]
        return torch.tensor([[each[measure] for measure in ALL] for each in found]).mean(0)

    layers = [layer.name for layer in evaluator.table.layers][::2]
    for setting in ("weight_bits", "activation_bits"):
        by_bits = [means([("quantize", name, setting, bits) for name in layers]) for bits in (2, 4, 8)]
        assert bool((by_bits[0] > by_bits[1]).all() & (by_bits[1] > by_bits[2]).all() & (by_bits[2] > 0).all())
    groups = [group.name for group in evaluator.table.groups]
    by_ratio = [means([("prune", name, "prune_ratio", ratio) for name in groups]) for ratio in (0.75, 0.25)]
    assert bool((by_ratio[0] > by_ratio[1]).all() & (by_ratio[1] > 0).all())


def test_it_depends_on_the_policy_alone(evaluator: NetworkEvaluator) -> None:
    """Not on earlier probes, what is kept of them, trials between them, or the process."""
    sites = [*QUANTIZED, *STALE]
    first = [evaluator.damage(policy(site), ALL) for site in sites]
    metrics = evaluator.evaluate(policy(sites[0]), 0, quiet).metrics
    assert [evaluator.damage(policy(site), ALL) for site in reversed(sites)] == first[::-1]
    assert evaluator.evaluate(policy(sites[0]), 0, quiet).metrics == metrics
    travelled = cloudpickle.loads(cloudpickle.dumps(evaluator))
    assert travelled.damage(policy(sites[3]), ALL) == first[3]
    forgetful = prepare(replace(SPEC, evaluator=Part("network", {"cache_mb": 0})))
    assert forgetful.damage(policy(sites[3]), ["loss", "error"]) == {m: first[3][m] for m in ("loss", "error")}


def test_trials_do_not_depend_on_probes() -> None:
    spec, asked = replace(SPEC, evaluator=Part("network", {"probe_inputs": 16})), policy(*STALE[2:4], *QUANTIZED)
    probed, fresh = prepare(spec), prepare(spec)
    probed.damage(asked, ALL)
    assert probed.evaluate(asked, 0, quiet).metrics == fresh.evaluate(asked, 0, quiet).metrics


def test_fewer_inputs_are_another_measurement(evaluator: NetworkEvaluator) -> None:
    few = prepare(replace(SPEC, evaluator=Part("network", {"probe_inputs": 16})))
    asked = policy(QUANTIZED[1])
    own, whole = few.damage(asked, ["loss"])["loss"], evaluator.damage(asked, ["loss"])["loss"]
    with torch.no_grad():
        inputs = few.data.normalise(few.data.split("calibration").inputs)[:16]
    assert own != whole
    assert own == pytest.approx(whole, rel=3)
    assert len(inputs) == 16


def test_errors_pass_through(evaluator: NetworkEvaluator) -> None:
    with pytest.raises(CompressionError, match="no layer 'block9'"):
        evaluator.damage(policy(("quantize", "block9", "weight_bits", 4)), ["loss"])
    with pytest.raises(SpecError, match="the measures are loss, error, trace, not 'fisher'"):
        evaluator.damage(policy(*QUANTIZED), ["fisher"])
    with pytest.raises(SpecError, match="probe_inputs: must be at least 2, not 1"):
        prepare(replace(SPEC, evaluator=Part("network", {"probe_inputs": 1})))


def test_answers_of_nan_are_refused(evaluator: NetworkEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(self: Any, state: Any, order: Any, *args: Any) -> Any:
        found = compress(state, order, *args)
        found.model.linear.bias.detach().fill_(float("nan"))
        return found

    monkeypatch.setattr("automc.evaluation.restoring.Restoring.__call__", spoiled)
    with pytest.raises(NotFinite, match="NaN or infinite for some calibration inputs"):
        evaluator.damage(policy(("prune", "block1.conv1", "prune_ratio", 0.5)), ["loss"])


def test_weights_that_count_their_norm_in_are_rounded_for_its_new_statistics(evaluator: NetworkEvaluator) -> None:
    asked = policy(
        ("quantize", "block2.conv1", "weight_bits", 3), ("quantize", "block2.conv1", "granularity", "tensor")
    )
    model = evaluator.build(asked, 0)
    inputs = evaluator.data.normalise(evaluator.data.split("calibration").inputs)
    with torch.no_grad():
        wanted = divergence(model(inputs), evaluator.original().model(inputs))
    assert batch_norms(model)
    assert evaluator.damage(asked, ["loss"])["loss"] == pytest.approx(wanted, rel=1e-3)


def test_evaluators_are_probers(evaluator: NetworkEvaluator) -> None:
    imaginary = SyntheticEvaluator(SyntheticSettings())
    assert isinstance(evaluator, Prober)
    assert isinstance(imaginary, Prober)
    asked = policy(("prune", "conv0", "prune_ratio", 0.5), ("quantize", "linear", "weight_bits", 3))
    found = imaginary.damage(asked, ["loss", "trace"])
    measured, original = (imaginary.evaluate(p, 0, quiet).metrics["loss"] for p in (asked, Policy({})))
    assert found == pytest.approx(dict.fromkeys(("loss", "trace"), measured - original))
