"""Greedy descent: moves against trying all values, stages against the definition, what it finds against the best."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from automc.core.analytic import Analytic
from automc.core.budget import Budget
from automc.core.metrics import Constraint, Objective, feasible
from automc.core.probing import probed
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.evaluation.known_front import known_front
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.descent import Descent
from automc.proposers.greedy import GreedyProposer
from automc.proposers.members import member
from automc.proposers.targets import Targets
from automc.proposers.uniform import UniformProposer

PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)})
BITS = Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((2, 4, 8, 32))})
HALF = (Constraint.parse("macs_ratio <= 0.5"),)
TOP1 = (Objective("top1"),)
FRONT = (Objective("top1"), Objective("bops_ratio"))


def network(layers: int, *rules: Rule, sensed: bool = True) -> tuple[SyntheticEvaluator, SearchSpace]:
    evaluator = SyntheticEvaluator(SyntheticSettings(layers=layers))
    space = resolve(rules, ORDER, evaluator.table, OPERATORS)
    if sensed:
        table = replace(space.layers, sensitivity=probed(space, evaluator, ("loss",)))
        space = replace(space, layers=table)
    return evaluator, space


def search(proposer, evaluator, count: int, window: int = 1, gaps: frozenset[int] = frozenset()) -> list[Trial]:
    """As core/search.py asks; numbers in ``gaps`` are taken by somebody else's trials of the uniform grid."""
    trials: list[Trial] = []
    told = 0
    others = UniformProposer(proposer._space, FRONT, (), 0)
    for number in range(count):
        known = max(number - window + 1, 0)
        proposer.tell(trials[told:known])
        told = max(known, told)
        asked = (others if number in gaps else proposer).ask(range(number, number + 1))[0]
        measured = evaluator.evaluate(asked.policy, 0, lambda step, value: True)
        trials.append(Trial(number, asked.policy, asked.memo, TrialState.COMPLETE, 0, measured, attempts=1))
    return trials


def descent(space: SearchSpace, objectives, constraints) -> Descent:
    budget = Budget(space, constraints)
    return Descent(space, Targets(space, objectives, constraints, budget), budget)


def test_the_resource_is_the_logarithm_of_what_is_left_to_save():
    _, space = network(5, PRUNE, BITS)
    found = descent(space, FRONT, HALF)
    costs = Analytic(space.layers).costs
    cubes = np.random.default_rng(0).random((40, len(space)))
    least = costs(space.decode(np.where(np.isnan(found._cheapest), 0.5, found._cheapest).tolist()))["bops_ratio"]
    for cube, left in zip(cubes, found.left(cubes), strict=True):
        cost = costs(space.decode(cube.tolist()))
        wanted = max(0.0, math.log(cost["macs_ratio"] / 0.5)) + max(0.0, math.log(cost["bops_ratio"] / least))
        assert left == pytest.approx(wanted, abs=1e-9)


def test_the_start_is_the_original_where_the_space_has_it():
    _, space = network(4, PRUNE, BITS)
    start = space.decode(descent(space, FRONT, ()).start.tolist())
    assert {of["prune_ratio"] for of in start.settings("prune").values()} == {0.0}
    bits = start.settings("quantize").values()
    assert {(of["weight_bits"], of["activation_bits"]) for of in bits} == {(8, 32)}


@pytest.mark.parametrize("part", [0.02, 0.1, 0.5])
def test_a_move_is_the_least_value_that_saves_enough(part):
    """Against trying all values of the decision, from the mildest on."""
    _, space = network(5, PRUNE, BITS)
    found = descent(space, FRONT, ())
    start = found.start
    here = float(found.left(start[None])[0])
    moves = {move.decision: move for move in found.moves(start, here * (1 - part))}
    for i, decision in enumerate(space.decisions):
        values = sorted(decision.domain.values(1), reverse=decision.site.operator == "quantize")
        tried = []
        for value in values:
            cube = start.copy()
            cube[i] = decision.domain.encode(value)
            tried.append((value, float(found.left(cube[None])[0])))
        enough = [(value, left) for value, left in tried if left <= here * (1 - part)]
        value, left = enough[0] if enough else tried[-1]
        assert decision.domain.decode(moves[i].place) == value
        assert moves[i].left == pytest.approx(left)


def test_together_reaches_what_is_wanted_and_not_much_more():
    _, space = network(6, Rule("prune", {"prune_ratio": Real(0.0, 0.8)}))
    found = descent(space, TOP1, HALF)
    points = np.vstack([found.start, np.full(len(space), 0.1)])
    for wanted in (0.3, 0.05):
        left = found.left(found.together(points, wanted))
        assert (left <= wanted).all()
        assert (left > wanted - 0.12).all(), "a step of 1/256 of the way, and a channel"


@pytest.mark.parametrize("window", [1, 4])
def test_each_stage_goes_on_from_the_best_of_the_one_before(window):
    """The rule of NetAdapt, read off the trials alone: memos say which stage, measurements which was best."""
    evaluator, space = network(6, PRUNE)
    trials = search(GreedyProposer(space, FRONT, (), 0, step=0.15, candidates=0), evaluator, 40, 1)
    again = search(GreedyProposer(space, FRONT, (), 0, step=0.15, candidates=0), evaluator, 40, window)
    stages: dict[int, list[Trial]] = {}
    for trial in trials:
        at = json.loads(trial.memo)
        if at["descent"] == 0:
            stages.setdefault(at["stage"], []).append(trial)
    assert list(stages) == list(range(-1, max(stages) + 1)), "one stage after the other"
    for index in range(max(stages)):
        best = max(stages[index], key=lambda t: t.measurement.metrics["top1"])
        for trial in stages[index + 1]:
            ratios = [(trial.policy[d.site], best.policy[d.site]) for d in space.decisions]
            assert all(now >= before for now, before in ratios), "compressed further, from the best"
            assert trial.policy != best.policy
    assert {t.policy for t in again} & {t.policy for t in trials} >= {t.policy for t in stages[0]}


@pytest.mark.parametrize("window", [1, 2, 4, 8])
def test_no_window_makes_it_ask_twice_or_lose_a_candidate(window):
    """Each candidate of the first stage is asked once, whatever runs beside it, with others' trials between.

    Later stages may share policies (first a and then b compresses both, as first b and then a does), and what runs when
    a stage is decided may belong to another one; without a window nothing is asked twice.
    """
    evaluator, space = network(7, PRUNE, BITS)
    gaps = frozenset({3, 9, 10, 11, 20})
    trials = search(GreedyProposer(space, FRONT, (), 0, candidates=5), evaluator, 40, window, gaps)
    own = [t.policy for t in trials if t.number not in gaps]
    assert len(own) - len(set(own)) <= 2 * (window - 1)
    first = {t.policy for t in search(GreedyProposer(space, FRONT, (), 0, candidates=5), evaluator, 6)}
    assert [own.count(policy) for policy in first] == [1] * 6, "the start and the first stage"


def test_every_proposal_keeps_the_bounds_and_the_last_is_near_the_best_there_is():
    evaluator, space = network(8, PRUNE)
    trials = search(GreedyProposer(space, TOP1, HALF, 0), evaluator, 60)
    assert all(feasible(HALF, t.measurement.metrics) for t in trials)
    front = known_front(evaluator, space, "macs_ratio")
    best = front[front[:, 1] <= 0.5, 0].max()
    found = max(t.measurement.metrics["top1"] for t in trials)
    even = [search(UniformProposer(space, TOP1, HALF, 0), evaluator, 9)]
    uniform = max(t.measurement.metrics["top1"] for t in even[0] if feasible(HALF, t.measurement.metrics))
    assert best >= found > uniform + 0.8 * (best - uniform)


def test_a_front_reaches_from_the_original_to_the_cheapest_policy():
    evaluator, space = network(6, PRUNE, BITS)
    trials = search(GreedyProposer(space, FRONT, (), 0, step=0.3), evaluator, 60)
    costs = [t.measurement.metrics["bops_ratio"] for t in trials]
    cheapest = Budget(space, ()).cheapest
    least = evaluator.evaluate(space.decode(cheapest.tolist()), 0, lambda step, value: True).metrics["bops_ratio"]
    assert max(costs) == pytest.approx(8 / 32)
    assert min(costs) == pytest.approx(least)


def test_another_descent_begins_at_the_end_with_half_the_step():
    evaluator, space = network(4, PRUNE)
    trials = search(GreedyProposer(space, FRONT, (), 0, step=0.5, candidates=2), evaluator, 60)
    found = [json.loads(t.memo) for t in trials if t.memo]
    assert {at["descent"] for at in found} >= {0, 1}
    stages = [max(at["stage"] for at in found if at["descent"] == d) for d in (0, 1)]
    assert stages[1] > stages[0]


def test_without_a_table_and_in_an_exhausted_space_it_still_answers():
    evaluator, space = network(2, Rule("quantize", {"weight_bits": Choice((4, 8))}), sensed=False)
    trials = search(GreedyProposer(space, FRONT, (), 0), evaluator, 20, 4)
    assert len({t.policy for t in trials}) == 4, "all there are"


def test_what_failed_is_not_asked_again_and_is_nobodys_best():
    evaluator, space = network(5, PRUNE)
    made = GreedyProposer(space, FRONT, (), 0, candidates=3)
    trials = search(made, evaluator, 4)
    made.tell(trials)
    broken = made.ask(range(4, 5))[0]
    made.tell([Trial(4, broken.policy, broken.memo, TrialState.FAILED, reason="oom")])
    assert broken.policy not in [p.policy for p in made.ask(range(5, 25))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0.0}, r"step: must be above 0 and at most 1, not 0.0"),
        ({"step": 1.5}, r"step: must be above 0 and at most 1, not 1.5"),
        ({"decay": 0.0}, r"decay: must be above 0 and at most 1, not 0.0"),
        ({"candidates": -1}, "candidates: must be from 0 to 10,000, not -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    _, space = network(3, PRUNE, sensed=False)
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.{message}"):
        member("greedy", space, FRONT, (), 0, **settings)


def test_a_study_without_any_cost_is_refused():
    _, space = network(3, PRUNE, sensed=False)
    with pytest.raises(SpecError, match="nothing limits what a policy costs"):
        GreedyProposer(space, TOP1, (), 0)
