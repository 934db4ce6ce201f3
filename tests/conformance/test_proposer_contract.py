"""One suite over every proposer: legal proposals, seeded by number, rebuilt by telling, blind to what was not told."""

import math
from dataclasses import replace

import pytest

from automc.app.catalog import PROPOSERS, build
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.study import Part
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.operators import OPERATORS, ORDER

OBJECTIVES = (Objective("top1"), Objective("size_bytes"))
CONSTRAINTS = (Constraint.parse("macs_ratio <= 0.6"),)


def make_space() -> SearchSpace:
    names = [f"layer{i}" for i in range(4)]
    layers = tuple(Layer(n, i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 576, 9216, n) for i, n in enumerate(names))
    table = LayerTable(layers, tuple(Group(n, 8, (n,), ()) for n in names), (8, 4, 4))
    rules = (
        Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1), "criterion": Choice(("l1", "l2"))}),
        Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((8,))}),
        Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True), "kd_alpha": Real(0.0, 1.0)}),
    )
    return resolve(rules, ORDER, table, OPERATORS)


SPACE = make_space()


def proposer(name: str, seed: int = 0, **settings):
    return build(PROPOSERS, "proposer", Part(name, settings), SPACE, OBJECTIVES, CONSTRAINTS, seed)


def measured(number: int, proposal, rung: int = 0) -> Trial:
    """A landscape with a trade-off and a constraint, computed from the policy alone."""
    cube = SPACE.encode(proposal.policy)
    size = 1000 * (1.1 - sum(cube) / len(cube))
    metrics = {"top1": 1 - sum(u * u for u in cube) / len(cube), "size_bytes": size, "macs_ratio": 1 - cube[0]}
    if number % 7 == 3:
        return Trial(number, proposal.policy, proposal.memo, TrialState.FAILED, rung, reason="error")
    return Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, rung, Measurement(metrics), attempts=1)


def history(name: str, count: int, seed: int = 0, window: int = 1) -> list[Trial]:
    """What a search would have told, each trial asked with those up to ``number - window`` told."""
    asked, trials, told = proposer(name, seed), [], 0
    for number in range(count):
        known = max(number - window + 1, 0)
        if known > told:
            asked.tell(trials[told:known])
            told = known
        trials.append(measured(number, asked.ask(range(number, number + 1))[0]))
    return trials


@pytest.fixture(params=PROPOSERS)
def name(request) -> str:
    return request.param


def test_proposals_are_legal_and_one_a_number(name):
    found = proposer(name).ask(range(12))
    assert len(found) == 12
    for proposal in found:
        assert SPACE.policy(proposal.policy) == proposal.policy
        assert isinstance(proposal.memo, str)


def test_same_seed_same_proposals_and_another_seed_others(name):
    first, second = history(name, 30, seed=1), history(name, 30, seed=1)
    assert [t.policy for t in first] == [t.policy for t in second]
    if name != "uniform":
        assert [t.policy for t in history(name, 30, seed=2)] != [t.policy for t in first]


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("cut", [1, 9, 22, 26, 47])
def test_rebuilt_by_telling_goes_on_as_if_never_interrupted(name, cut, window):
    whole = history(name, 50, window=window)
    again = proposer(name)
    told = max(cut - window + 1, 0)
    again.tell(whole[:told])
    for number in range(cut, 50):
        known = max(number - window + 1, 0)
        if known > told:
            again.tell(whole[told:known])
            told = known
        assert again.ask(range(number, number + 1))[0].policy == whole[number].policy, number


def test_asking_for_several_at_once_equals_asking_one_by_one(name):
    trials = history(name, 25)
    one, many = proposer(name), proposer(name)
    one.tell(trials)
    many.tell(trials)
    assert many.ask(range(25, 30)) == [one.ask(range(n, n + 1))[0] for n in range(25, 30)]


def test_telling_in_pieces_equals_telling_at_once(name):
    trials = history(name, 25)
    whole, pieces = proposer(name), proposer(name)
    whole.tell(trials)
    for trial in trials:
        pieces.tell([trial])
    assert whole.ask(range(25, 28)) == pieces.ask(range(25, 28))


def test_trials_of_others_are_welcome(name):
    """Extending with another proposer: foreign memos, failed trials, NaN metrics, other spaces."""
    asked = proposer(name)
    asked.tell(history("random", 15))
    strange = measured(15, proposer("random").ask(range(1))[0])
    bad = Measurement({"top1": math.nan, "size_bytes": 5.0})
    asked.tell(
        [
            Trial(16, strange.policy, "no json", TrialState.COMPLETE, 1, bad),
            Trial(17, strange.policy, "[1]", TrialState.STOPPED),
        ]
    )
    assert SPACE.policy(asked.ask(range(18, 19))[0].policy)


def test_unknown_settings_are_refused_in_one_line(name):
    with pytest.raises(SpecError, match=rf"proposer\.settings\.colour: {name} has no such setting \(it has: "):
        proposer(name, colour="blue")


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_what_others_measured_changes_what_is_proposed(name):
    """An extension with another proposer is worth something only if it listens."""
    ignorant, informed = proposer(name), proposer(name)
    informed.tell(history("random", 60))
    numbers = range(60, 70)
    assert [p.policy for p in informed.ask(numbers)] != [p.policy for p in ignorant.ask(numbers)]


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_hopeless_trial_teaches_what_it_measured(name):
    """Its costs are exact and the rest are estimates: what it says of its policy counts like a complete one's."""
    trials = history(name, 40)
    hopeless = [
        replace(t, state=TrialState.STOPPED, reason="dominated")
        if t.number % 3 == 1 and t.state is TrialState.COMPLETE
        else t
        for t in trials
    ]
    assert any(t.hopeless for t in hopeless)
    asked = []
    for known in (trials, hopeless):
        fresh = proposer(name)
        fresh.tell(known)
        asked.append(fresh.ask(range(40, 44)))
    assert asked[0] == asked[1]
