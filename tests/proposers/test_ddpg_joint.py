"""The joint agent: feasible whatever is coupled, rebuilt bit by bit, and better than what it starts from."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from automc.core.budget import Budget
from automc.core.layers import Block, Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.pareto import covered
from automc.core.ports import Proposal
from automc.core.probing import probed
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError, StoreError
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.ddpg.course import Course
from automc.proposers.ddpg.credit import Credit, usual
from automc.proposers.ddpg.joint import JointProposer
from automc.proposers.ddpg.reference import Reference
from automc.proposers.ddpg.senses import absolute, relative
from automc.proposers.ddpg.steps import kinds_of, steps_of
from automc.proposers.members import member
from automc.proposers.random import RandomProposer

OBJECTIVES = (Objective("top1"), Objective("size_bytes"))
SMALL = {"hidden": 8, "updates": 2, "warmup": 4}


def coupled(widths=(8, 16, 16)) -> LayerTable:
    """A stem, residual blocks on one shared width with an inner layer each, and a linear layer."""
    stem, *inner = widths
    layers = [Layer("stem", 0, "conv", 3, stem, (3, 3), (1, 1), (stem, 8, 8), 27 * stem, 27 * stem * 64, "stem")]
    groups, ends = [], []
    for i, width in enumerate(inner):
        for name, ins, outs in ((f"b{i}.a", stem, width), (f"b{i}.b", width, stem)):
            weights = ins * outs * 9
            group = "stem" if name.endswith("b") else name
            layers.append(
                Layer(name, len(layers), "conv", ins, outs, (3, 3), (1, 1), (outs, 8, 8), weights, weights * 64, group)
            )
        groups.append(Group(f"b{i}.a", width, (f"b{i}.a",), (f"b{i}.b",)))
        ends.append(f"b{i}.b")
    layers.append(Layer("head", len(layers), "linear", stem, 10, (), (), (10,), stem * 10 + 10, stem * 10))
    fed = (*(f"b{i}.a" for i in range(len(inner))), "head")
    groups.insert(0, Group("stem", stem, ("stem", *ends), fed))
    inside = [(f"b{i}.a", f"b{i}.b") for i in range(len(inner))]
    sums = [sum(layer.macs for layer in layers if layer.name in names) for names in inside]
    blocks = tuple(Block(f"b{i}", names, sums[i] // 64, sums[i]) for i, names in enumerate(inside))
    return LayerTable(tuple(layers), tuple(groups), (3, 8, 8), blocks=blocks)


RULES = {
    "prune": Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1), "criterion": Choice(("l1", "l2"))}),
    "bits": Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((4, 8))}),
    "rank": Rule("factorize", {"rank_ratio": Real(0.2, 1.0)}),
    "sparse": Rule("sparsify", {"sparsity": Real(0.0, 0.9)}),
    "drop": Rule("drop", {"dropped": Choice((False, True))}),
    "kd": Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True), "kd_alpha": Real(0.0, 1.0)}),
}


def space_of(names, table=None):
    return resolve([RULES[name] for name in names], ORDER, table or coupled(), OPERATORS)


EVERYTHING = space_of(RULES)


def synthetic(layers=8, seed=0, sensed=False):
    evaluator = SyntheticEvaluator(SyntheticSettings(layers=layers, seed=seed))
    space = space_of(["prune", "bits"], evaluator.table)
    if sensed:
        table = replace(evaluator.table, sensitivity=probed(space, evaluator, ("loss",)))
        space = replace(space, layers=table)
    return evaluator, space


def measured(space, number, proposal, rung=0, bonus=0.0) -> Trial:
    cube = space.encode(proposal.policy)
    size = Budget(space, ()).costs(proposal.policy)["size_bytes"]
    metrics = {"top1": 1 - sum(u * u for u in cube) / len(cube) + bonus, "size_bytes": size}
    return Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, rung, Measurement(metrics), attempts=1)


def searched(proposer, space, count, first=0):
    trials = []
    for number in range(first, first + count):
        trials.append(measured(space, number, proposer.ask(range(number, number + 1))[0]))
        proposer.tell(trials[-1:])
    return trials


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(names=list(RULES)[:5], widths=[2, 11, 2, 2], metric="macs_ratio", share=0.9375, wanted=2)
@given(
    names=st.lists(st.sampled_from(list(RULES)[:5]), min_size=1, unique=True).filter(lambda names: names != ["drop"]),
    widths=st.lists(st.integers(2, 24), min_size=2, max_size=4),
    metric=st.sampled_from(["macs_ratio", "bops_ratio", "params_ratio", "size_ratio"]),
    share=st.floats(0.0, 1.0),
    wanted=st.integers(0, 2**32 - 1),
)
def test_every_walk_keeps_every_bound_whatever_is_coupled(names, widths, metric, share, wanted):
    """Any actions at all: feasible, where the bound lies anywhere between the cheapest policy and the dearest."""
    space = space_of(names, coupled(tuple(widths)))
    free = Budget(space, ())
    ends = [free.costs(space.decode(np.nan_to_num(c, nan=0.5).tolist())) for c in (free.cheapest, free.dearest)]
    bound = ends[0][metric] * 1.06 * (ends[1][metric] / ends[0][metric]) ** share
    bounds = (Constraint(metric, "<=", bound), Constraint("params_ratio", "<=", ends[1]["params_ratio"] * 1.1))
    budget, steps = Budget(space, bounds), steps_of(space)
    course, draw = Course(space, budget, steps), np.random.default_rng(wanted)
    trace = course.begin(bounds)
    for t, step in enumerate(steps):
        course.take(trace, t, draw.random(len(step.decisions)))
        assert (trace.low[t + 1] <= course.upper).all()
    policy = space.decode(trace.cube.tolist())
    assert budget.holds(policy)
    assert trace.costs[0] == pytest.approx(budget.costs(policy)["params_ratio"], rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(low=st.floats(0.2, 0.6), width=st.floats(0.1, 0.3), wanted=st.integers(0, 2**32 - 1))
def test_a_corridor_is_kept_where_values_are_fine_enough(low, width, wanted):
    space = space_of(["rank", "sparse"])
    bounds = (Constraint("size_ratio", ">=", low), Constraint("size_ratio", "<=", low + width))
    course, steps = Course(space, Budget(space, bounds), steps_of(space)), steps_of(space)
    trace, draw = course.begin(bounds), np.random.default_rng(wanted)
    for t, step in enumerate(steps):
        course.take(trace, t, draw.random(len(step.decisions)))
    assert Budget(space, bounds).holds(space.decode(trace.cube.tolist()))


def test_every_decision_is_taken_once_in_order_of_execution():
    steps = steps_of(EVERYTHING)
    taken = [i for step in steps for i in step.decisions]
    assert sorted(taken) == list(range(len(EVERYTHING)))
    assert [step.layer for step in steps] == sorted(step.layer for step in steps)
    names = [layer.name for layer in EVERYTHING.layers.layers]
    for step in steps:
        for i, k in zip(step.decisions, step.coordinates, strict=True):
            site = EVERYTHING.decisions[i].site
            assert kinds_of(EVERYTHING)[k] == (site.operator, site.setting)
            if site.layer in names:
                assert site.layer == names[step.layer]
    last = [EVERYTHING.decisions[i].site.setting for i in steps[-1].decisions]
    assert last == ["kd_alpha", "kd_temperature"]
    assert steps[-1].layer == len(names)


def test_a_trace_is_what_its_policy_costs_with_the_rest_at_the_corners():
    """Against whole policies counted from nothing."""
    budget, steps = Budget(EVERYTHING, ()), steps_of(EVERYTHING)
    cube = np.random.default_rng(0).random(len(EVERYTHING))
    trace = Course(EVERYTHING, budget, steps).retraced(cube)
    for corner, rows in ((budget.cheapest, trace.low), (budget.dearest, trace.high)):
        point = np.nan_to_num(corner, nan=0.5)
        for t in range(len(steps) + 1):
            decided = [i for step in steps[:t] for i in step.decisions]
            point[decided] = cube[decided]
            costs = budget.costs(EVERYTHING.decode(point.tolist()))
            want = [costs[name] for name in ("params_ratio", "macs_ratio", "bops_ratio", "size_ratio")]
            assert rows[t] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("sensed", [False, True])
def test_the_reference_uses_the_budget_and_hurts_least_with_a_table(sensed):
    evaluator, space = synthetic(sensed=sensed)
    proposer = JointProposer(space, OBJECTIVES, (Constraint.parse("size_ratio <= 0.12"),), seed=0)
    policy = proposer.ask(range(1))[0].policy
    aim = next(c.bound for c in proposer._targets.at(0)[::-1] if c.metric == "size_bytes")
    size = Budget(space, ()).costs(policy)["size_bytes"]
    assert 0.85 * aim <= size <= aim
    rivals = [evaluator.harm(space.decode(p)) for p in _as_cheap(space, size)]
    if sensed:
        assert evaluator.harm(policy) < min(rivals)


def _as_cheap(space, size):
    """Random policies moved to at least this size."""
    budget, draw = Budget(space, ()), np.random.default_rng(0)
    bound = (Constraint("size_bytes", "<=", size * 1.02),)
    return [budget.fit(draw.random(len(space)).tolist(), bound) for _ in range(40)]


def test_a_way_falls_from_dear_to_cheap():
    for sensed in (False, True):
        _, space = synthetic(sensed=sensed)
        budget = Budget(space, ())
        way = Reference(space, budget, np.array([0, 0, 0, 1.0]), steps_of(space)).way
        sizes = [budget.costs(space.decode(np.clip(point, 0, 1).tolist()))["size_bytes"] for point in way]
        assert sizes == sorted(sizes)
        assert sizes[-1] > 5 * sizes[0]


@given(point=st.floats(0, 1), usual_point=st.floats(0, 1))
def test_an_action_of_a_policy_makes_that_policy(point, usual_point):
    action = relative(np.array([point]), np.array([usual_point]))
    assert 0 <= action[0] <= 1
    assert absolute(action, np.array([usual_point]))[0] == pytest.approx(point, abs=1e-12)


def test_what_is_usual_is_a_straight_line_where_figures_lie_on_one():
    at = np.random.default_rng(0).random((30, 2))
    values = at @ np.array([[2.0, -1.0], [0.5, 3.0]]) + 1
    # Its slopes are shrunk by 1e-3 over the weighted variance, about 0.15^2: 4 % of a step of one width of 0.15 x 3.
    assert usual(at, at, values) == pytest.approx(values, abs=0.05)


def test_rewards_grow_with_the_task_and_fall_with_a_broken_constraint():
    credit = Credit((Objective("top1"), Objective("size_bytes")), (Constraint.parse("latency_ms <= 2"),))
    draw = np.random.default_rng(0)
    known = draw.random((40, 1)), np.stack([draw.normal(size=40), np.maximum(draw.normal(size=40), 0)], axis=1)
    figures = [credit.figures({"top1": a, "latency_ms": b, "size_bytes": 1}) for a, b in ((0.9, 1), (0.5, 1), (0.9, 4))]
    good, worse, broken = credit.rewards(np.full((3, 1), 0.5), np.array(figures), known)
    assert good > worse
    assert good > broken
    assert credit.figures({"top1": float("nan"), "latency_ms": 1}) is None


def test_restored_is_retold_bit_for_bit():
    constraints = (Constraint.parse("macs_ratio <= 0.6"),)
    first = JointProposer(EVERYTHING, OBJECTIVES, constraints, seed=3, **SMALL)
    trials = searched(first, EVERYTHING, 14)
    retold = JointProposer(EVERYTHING, OBJECTIVES, constraints, seed=3, **SMALL)
    retold.tell(trials)
    restored = JointProposer(EVERYTHING, OBJECTIVES, constraints, seed=3, **SMALL)
    restored.restore(first.state())
    assert first.state() == retold.state() == restored.state()
    again = replace(trials[2], number=14, rung=1)
    for proposer in (first, retold, restored):
        proposer.tell([again])
    assert first.ask(range(15, 19)) == retold.ask(range(15, 19)) == restored.ask(range(15, 19))
    assert first.state() == restored.state()


def test_a_strange_memory_is_refused_and_changes_nothing():
    proposer = JointProposer(EVERYTHING, OBJECTIVES, (), seed=0, **SMALL)
    searched(proposer, EVERYTHING, 6)
    other = JointProposer(space_of(["prune"]), OBJECTIVES, (), seed=0, **SMALL)
    before = proposer.state()
    for state in (b"nonsense", other.state()):
        with pytest.raises(StoreError, match="not the memory"):
            proposer.restore(state)
        assert proposer.state() == before


def test_a_higher_rung_takes_the_place_of_a_lower_one():
    proposer = JointProposer(EVERYTHING, OBJECTIVES, (), seed=0, **SMALL)
    trials = searched(proposer, EVERYTHING, 12)
    again = [measured(EVERYTHING, 12 + i, t, rung=1, bonus=[0.1, 0.3, 0.2, 0.0][i]) for i, t in enumerate(trials[:4])]
    proposer.tell(again)
    told = list(proposer._annals.told.values())
    assert len(told) == 12
    assert [one.rung for one in told] == [1] * 4 + [0] * 8
    before = proposer.state()
    proposer.tell([replace(t, number=20 + t.number) for t in trials[:4]])
    assert proposer.state() == before


def test_trials_of_others_teach():
    draw = np.random.default_rng(0)
    policies = [EVERYTHING.decode(draw.random(len(EVERYTHING)).tolist()) for _ in range(8)]
    trials = [measured(EVERYTHING, i, Proposal(p, "no json")) for i, p in enumerate(policies)]
    ignorant, informed = (JointProposer(EVERYTHING, OBJECTIVES, (), seed=0, **SMALL) for _ in range(2))
    informed.tell(trials)
    assert len(informed._annals) == 8
    assert informed.ask(range(20, 24)) != ignorant.ask(range(20, 24))


def test_an_aim_is_in_the_memo_and_kept():
    proposer = JointProposer(EVERYTHING, OBJECTIVES, (), seed=0, **SMALL)
    budget = Budget(EVERYTHING, ())
    for number, proposal in enumerate(proposer.ask(range(12))):
        aims = proposer._targets.at(number)
        assert json.loads(proposal.memo) == {"aim": {c.metric: c.bound for c in aims}}
        assert budget.holds(proposal.policy, aims)
        for memo in (proposal.memo, json.dumps({"aim": number})):  # the second is how older versions wrote it
            assert proposer._aims(Trial(number, proposal.policy, memo=memo)) == aims


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"warmup": -1}, "warmup: must be from 0 to 1,000,000, not -1"),
        ({"sigma": 1.5}, r"sigma: must be from 0 to 1, not 1.5"),
        ({"updates": 0}, "updates: must be from 1 to 10,000, not 0"),
        ({"hindsight": 2}, "hindsight: must be from 0 to 1, not 2"),
        ({"decay": 0.0}, "decay: must be above 0 and at most 1, not 0.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(wrong, rule):
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.{rule}"):
        member("ddpg", EVERYTHING, OBJECTIVES, (), 0, **wrong)


def test_nothing_that_limits_the_cost_is_refused():
    with pytest.raises(SpecError, match="nothing limits what a policy costs"):
        JointProposer(EVERYTHING, (Objective("top1"),), (), seed=0)


def test_a_space_of_distillation_alone_is_walked():
    space = space_of(["kd"])
    found = JointProposer(space, OBJECTIVES, (), seed=0, **SMALL).ask(range(10))
    assert len({proposal.policy for proposal in found}) > 1


def run(proposer, evaluator, space, count):
    trials = []
    for number in range(count):
        proposal = proposer.ask(range(number, number + 1))[0]
        measurement = evaluator.evaluate(proposal.policy, 0, lambda step, value: True)
        trials.append(Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, measurement, attempts=1))
        proposer.tell(trials[-1:])
    return trials


def top1_at_aims(proposer, evaluator, space):
    """Without noise, at aims that were not asked for in the search."""
    found = []
    for aim in range(1000, 1012):
        cube = proposer._played(proposer._targets.at(aim), 0.0, np.random.default_rng(0))
        found.append(evaluator.evaluate(space.decode(cube.tolist()), 0, lambda step, value: True).metrics["top1"])
    return float(np.mean(found))


def test_the_actor_becomes_better_than_the_reference_it_corrects():
    """Without a table, so that where the network is sensitive has to be learned from 40 noisy trials; in the mean over
    seeds, because one of them may draw 40 trials that say little.
    """
    gains = []
    for seed in range(3):
        evaluator, space = synthetic(layers=6, seed=seed)
        proposer = JointProposer(space, OBJECTIVES, (), seed, warmup=40, sigma=0.3, decay=1.0)
        before = top1_at_aims(proposer, evaluator, space)
        run(proposer, evaluator, space, 40)
        gains.append(top1_at_aims(proposer, evaluator, space) - before)
    assert np.mean(gains) > 0.02


def test_a_search_is_above_random_outside_the_band():
    scores = {"ddpg": [], "random": []}
    for seed in range(3):
        evaluator, space = synthetic(layers=6, seed=seed)
        proposers = JointProposer(space, OBJECTIVES, (), seed, **SMALL), RandomProposer(space, OBJECTIVES, (), seed)
        for name, proposer in zip(scores, proposers, strict=True):
            scores[name].append(covered(run(proposer, evaluator, space, 24), OBJECTIVES, (), evaluator.baseline))
    assert min(scores["ddpg"]) > max(scores["random"])
