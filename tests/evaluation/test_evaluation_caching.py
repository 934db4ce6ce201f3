"""An evaluator that keeps activations measures what one that keeps none does, with one thread, beside others."""

import cloudpickle
import pytest
import torch

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, StudySpec
from automc.errors import SpecError
from automc.evaluation.evaluator import prepare
from automc.operators.outputs import tensors_of


def spec(**settings):
    evaluator = Part("network", settings)
    objectives = (Objective("top1"), Objective("size_bytes"))
    return StudySpec(
        "study",
        ModelSpec("digits_net"),
        Part("digits", {"search_limit": 200, "calibration": 64}),
        (),
        ("prune", "quantize"),
        objectives,
        evaluator=evaluator,
    )


def quiet(step, value):
    return True


@pytest.fixture(scope="module")
def judges():
    return [prepare(spec(cache_mb=megabytes)) for megabytes in (0, 64)]


def policies(judge):
    """The last layers first, each twice with other settings, then all together."""
    layers = [layer.name for layer in judge.table.layers][::-1]
    for name in layers[:3]:
        for bits in (4, 3):
            yield Policy({Site("quantize", name, "weight_bits"): bits})
    last = judge.table.groups[-1].name
    yield Policy({Site("prune", last, "prune_ratio"): 0.5})
    yield Policy({Site("quantize", name, "weight_bits"): 4 for name in layers})


def test_no_metric_depends_on_what_is_kept(judges):
    without, caching = judges
    for policy in policies(caching):
        plain, cached = (judge.evaluate(policy, 0, quiet) for judge in (without, caching))
        assert plain.metrics == cached.metrics
        assert plain.errors == cached.errors
    assert caching.prefix.counts["reused"] > 0
    assert not without.prefix.counts
    assert without.prefix.kept.bytes == 0 < caching.prefix.kept.bytes


def test_the_order_of_trials_changes_nothing(judges):
    chosen = list(policies(judges[1]))[:4]
    fresh = prepare(spec())
    backward = [fresh.evaluate(policy, 0, quiet).metrics for policy in reversed(chosen)]
    assert backward[::-1] == [judges[1].evaluate(policy, 0, quiet).metrics for policy in chosen]


def test_a_measurement_is_that_of_the_network_itself(judges):
    """The folded network is measured; the network as built says the same of nearly every input."""
    judge = judges[1]
    policy = next(iter(policies(judge)))
    split = judge.data.split("search")
    with torch.no_grad():
        (outputs,) = tensors_of(judge.build(policy, 0)(judge.data.normalise(split.inputs)))
    top1 = float((outputs.argmax(1) == split.targets).double().mean())
    assert abs(judge.evaluate(policy, 0, quiet).metrics["top1"] - top1) <= 1 / len(split)


def test_nothing_that_is_kept_travels_and_no_test_input_either(judges):
    judge = judges[1]
    judge.measure(judge.build(next(iter(policies(judge))), 0), "test")
    there = cloudpickle.loads(cloudpickle.dumps(judge))
    assert there.prefix.kept.bytes == 0
    assert "test" not in there.data._opened
    assert there.baseline == judge.baseline


def test_an_evaluation_runs_on_one_thread_and_gives_the_others_back(judges, monkeypatch):
    seen = []
    runner = judges[1].prefix.runner
    monkeypatch.setattr(judges[1].prefix, "runner", lambda *args: seen.append(torch.get_num_threads()) or runner(*args))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        judges[1].evaluate(Policy({}), 0, quiet)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_the_size_of_the_cache_is_a_setting():
    with pytest.raises(SpecError, match="cache_mb: must be at least 0, not -5"):
        prepare(spec(cache_mb=-5))
