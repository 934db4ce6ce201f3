"""One suite over every proposer: legal proposals, seeded by number, rebuilt by telling, blind to what was not told."""

import importlib.util
import math
from dataclasses import replace
from functools import cache

import pytest

from automc.app.catalog import PROPOSERS, build
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.ports import Stateful
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.study import Part
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError, StoreError
from automc.operators import OPERATORS, ORDER

OBJECTIVES = (Objective("top1"), Objective("size_bytes"))
CONSTRAINTS = (Constraint.parse("macs_ratio <= 0.6"),)


BITS = (Constraint.parse("bops_ratio <= 0.05"),)


def make_space(rules: tuple[Rule, ...]) -> SearchSpace:
    names = [f"layer{i}" for i in range(4)]
    layers = tuple(Layer(n, i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 576, 9216, n) for i, n in enumerate(names))
    table = LayerTable(layers, tuple(Group(n, 8, (n,), ()) for n in names), (8, 4, 4))
    return resolve(rules, ORDER, table, OPERATORS)


SPACE = make_space(
    (
        Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1), "criterion": Choice(("l1", "l2"))}),
        Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((8,))}),
        Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True), "kd_alpha": Real(0.0, 1.0)}),
    )
)

NARROW = {
    "amc": make_space((Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),)),
    "haq": make_space((Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((4, 8))}),)),
}
"""The spaces of baselines that decide one thing only, as their authors have it."""

SINGLE = ("cmaes", "nni", "tune")
"""Those that know one objective only."""

QUICK = {
    "amc": {"warmup": 8, "hidden": 16},
    "ddpg": {"warmup": 8, "hidden": 16, "updates": 1},
    "haq": {"warmup": 8, "hidden": 16},
    "gp": {"startup": 42, "searches": 2},
    "tune": {"memory": 20},
}
"""Settings with which a proposer begins to learn within the histories below."""


def space_of(name: str) -> SearchSpace:
    return NARROW.get(name, SPACE)


def proposer(name: str, seed: int = 0, **settings):
    chosen = Part(name, {**QUICK.get(name, {}), **settings})
    constraints = BITS if name == "haq" else CONSTRAINTS
    objectives = OBJECTIVES[:1] if name in SINGLE else OBJECTIVES
    return build(PROPOSERS, "proposer", chosen, space_of(name), objectives, constraints, seed)


def measured(number: int, proposal, rung: int = 0, space: SearchSpace = SPACE) -> Trial:
    """A landscape with a trade-off and a constraint, computed from the policy alone."""
    cube = space.encode(proposal.policy)
    size = 1000 * (1.1 - sum(cube) / len(cube))
    metrics = {"top1": 1 - sum(u * u for u in cube) / len(cube), "size_bytes": size, "macs_ratio": 1 - cube[0]}
    if number % 7 == 3:
        return Trial(number, proposal.policy, proposal.memo, TrialState.FAILED, rung, reason="error")
    return Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, rung, Measurement(metrics), attempts=1)


@cache
def history(name: str, count: int, seed: int = 0, window: int = 1) -> tuple[Trial, ...]:
    """What a search would have told, each trial asked with those up to ``number - window`` told; made once."""
    asked, trials, told = proposer(name, seed), [], 0
    for number in range(count):
        known = max(number - window + 1, 0)
        if known > told:
            asked.tell(trials[told:known])
            told = known
        trials.append(measured(number, asked.ask(range(number, number + 1))[0], space=space_of(name)))
    return tuple(trials)


@pytest.fixture(params=PROPOSERS)
def name(request) -> str:
    if request.param == "nni" and importlib.util.find_spec("nni") is None:
        pytest.skip("nni is not installed: pip install 'automc[nni]'")
    if request.param == "tune":
        pytest.importorskip(
            "ray.tune", reason="ray[tune] is not installed: pip install 'automc[tune]'", exc_type=ImportError
        )
    return request.param


def test_proposals_are_legal_and_one_a_number(name):
    found = proposer(name).ask(range(12))
    assert len(found) == 12
    for proposal in found:
        assert space_of(name).policy(proposal.policy) == proposal.policy
        assert isinstance(proposal.memo, str)


def test_same_seed_same_proposals_and_another_seed_others(name):
    first, second = history(name, 30, seed=1), history.__wrapped__(name, 30, seed=1)
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
    trials = history(name, 50)[:25]
    one, many = proposer(name), proposer(name)
    one.tell(trials)
    many.tell(trials)
    assert many.ask(range(25, 30)) == [one.ask(range(n, n + 1))[0] for n in range(25, 30)]


def test_telling_in_pieces_equals_telling_at_once(name):
    trials = history(name, 50)[:25]
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
    assert space_of(name).policy(asked.ask(range(18, 19))[0].policy)


def larger(measurement: Measurement | None) -> Measurement | None:
    if measurement is None:
        return None
    metrics = dict(measurement.metrics)
    return replace(measurement, metrics={**metrics, "size_bytes": 1000 * metrics.get("size_bytes", 1.0)})


def test_trials_of_another_study_have_numbers_below_zero_and_teach_like_any(name):
    """A warm start: the number of a trial says when it is told, and nothing else but whether its bytes say how far the
    predicted ones are off; here they are too far off to say it.
    """
    own = [replace(trial, memo="", measurement=larger(trial.measurement)) for trial in history(name, 50)[:30]]
    before, whole, pieces = proposer(name), proposer(name), proposer(name)
    before.tell(own)
    warm = [replace(trial, number=trial.number - len(own)) for trial in own]
    whole.tell(warm)
    for start in range(0, len(warm), 7):
        pieces.tell(warm[start : start + 7])
    numbers = range(30, 34)
    assert whole.ask(numbers) == pieces.ask(numbers) == before.ask(numbers)


def test_a_memory_that_was_kept_is_the_one_that_telling_gives(name):
    told, restored = proposer(name), proposer(name)
    if not isinstance(told, Stateful):
        pytest.skip("it is told everything anew")
    trials = history(name, 50)[:40]
    told.tell(trials[:25])
    restored.restore(told.state())
    assert restored.state() == told.state()
    with pytest.raises(StoreError):
        restored.restore(b"no memory of a proposer")
    for one in (told, restored):
        one.tell(trials[25:])
    assert restored.ask(range(40, 44)) == told.ask(range(40, 44))
    assert restored.state() == told.state()


def test_unknown_settings_are_refused_in_one_line(name):
    with pytest.raises(SpecError, match=rf"proposer\.settings\.colour: {name} has no such setting \(it has: "):
        proposer(name, colour="blue")


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3", "cmaes"])
def test_what_others_measured_changes_what_is_proposed(name):
    """An extension with another proposer is worth something only if it listens."""
    ignorant, informed = proposer(name), proposer(name)
    informed.tell(history("random", 60))
    numbers = range(60, 70)
    assert [p.policy for p in informed.ask(numbers)] != [p.policy for p in ignorant.ask(numbers)]


def test_a_hopeless_trial_teaches_what_it_measured(name):
    """Its costs are exact and the rest are estimates: what it says of its policy counts like a complete one's."""
    trials = history(name, 50)[:40]
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
