"""Ray Tune's searchers as proposers, against the searchers themselves, brute force and random search."""

import sys

import numpy as np
import pytest
from test_optuna import CUBE, ONE, search, space_of, told
from test_proposer_contract import proposer

from automc.core.metrics import Constraint, Objective
from automc.core.space import Choice, Real
from automc.errors import SpecError
from automc.proposers.tune import TuneProposer

pytest.importorskip("ray.tune", reason="ray[tune] is not installed: pip install 'automc[tune]'", exc_type=ImportError)

MIXED = space_of(Real(0.0, 0.8, step=0.1), Choice((2, 4, 8)), Choice(("l1", "l2", "fpgm")), Real(1.0, 10.0, log=True))
SEARCHERS = {"optuna": "optuna", "hyperopt": "hyperopt", "bayesopt": "bayes_opt"}


@pytest.fixture(params=SEARCHERS)
def searcher(request) -> str:
    pytest.importorskip(SEARCHERS[request.param], reason=f"{request.param} is not installed")
    return request.param


def test_every_searcher_is_legal_seeded_and_rebuilt_by_telling(searcher, capsys):
    space = CUBE if searcher == "bayesopt" else MIXED
    trials = told(space, 24)
    first, second, other = (TuneProposer(space, ONE, (), seed, searcher, 20) for seed in (0, 0, 1))
    for t in trials:
        first.tell([t])
    drawn = np.random.get_state()[1].tolist()
    first.ask(range(24, 25))
    second.tell(trials)
    other.tell(trials)
    found = second.ask(range(25, 28))
    assert first.ask(range(25, 28)) == found
    assert other.ask(range(25, 28)) != found
    assert len({p.policy for p in found}) == 3
    assert all(space.policy(p.policy) == p.policy for p in found)
    assert np.random.get_state()[1].tolist() == drawn, "the global generators are ours"
    assert capsys.readouterr().out == "", "stdout is data"


@pytest.mark.parametrize("name", ["optuna", "hyperopt"])
def test_searchers_learn(name):
    """Median loss of the last trials, against that of random draws."""
    if name == "hyperopt":
        pytest.importorskip("hyperopt", reason="hyperopt is not installed")
    trials = search(TuneProposer(CUBE, ONE, (), 0, name, memory=60), CUBE, 60)
    late = np.median([t.measurement.metrics["loss"] for t in trials[40:]])
    assert late < 0.6 * np.median([t.measurement.metrics["loss"] for t in told(CUBE, 60)])


def test_optuna_is_tunes_optuna():
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    trials = told(CUBE, 30)
    asked = TuneProposer(CUBE, ONE, (), 7)
    asked.tell(trials)
    names = [str(d.site) for d in CUBE.decisions]
    made = OptunaSearch(metric="loss", mode="min", seed=(7 * 1_000_003 + 30) % 2**31)
    made.set_search_properties("loss", "min", {f"x{i}": tune.uniform(0.0, 1.0) for i in range(len(names))})
    for t in trials:
        made.add_evaluated_point(
            {f"x{i}": t.policy[site] for i, site in enumerate(t.policy)}, t.measurement.metrics["loss"]
        )
    wanted = made.suggest("x")
    found = asked.ask(range(30, 31))[0].policy
    assert [found[d.site] for d in CUBE.decisions] == pytest.approx([wanted[f"x{i}"] for i in range(len(names))])


class Silent:
    """A searcher that has nothing to suggest, and one that does what it likes with its first points."""

    def __init__(self, points_to_evaluate=None):
        self.points = list(points_to_evaluate or [])

    def set_search_properties(self, metric, mode, config):
        self.config = config
        return True

    add_evaluated_point = None

    def suggest(self, trial_id):
        return self.points.pop(0) if self.points else "FINISHED"

    def on_trial_complete(self, trial_id, result):
        assert result["loss"] >= 0


def silent(points_to_evaluate=None):
    from ray.tune.search import Searcher

    Silent.add_evaluated_point = Searcher.add_evaluated_point
    return Silent(points_to_evaluate)


def deaf(seed):
    return silent([{"x0": 0.1, "x1": 0.1, "x2": 0.1, "x3": 0.1}])


def test_a_factory_of_the_users_and_a_searcher_with_nothing_to_say():
    asked = TuneProposer(CUBE, ONE, (), 0, f"{__name__}:silent")
    asked.tell(told(CUBE, 5))
    assert asked.ask(range(5, 9)) == proposer_random().ask(range(5, 9))


def proposer_random():
    from automc.proposers.random import RandomProposer

    return RandomProposer(CUBE, ONE, (), 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optna", r"must be one of .*, or package\.module:factory, not 'optna', did you mean 'optuna'\?"),
        ("zoopt", "zoopt cannot be used: it cannot be told of trials that it did not suggest itself"),
        ("bohb", "bohb cannot be used: it steers running trials from step to step"),
        ("random", "use the proposer random"),
        ("nowhere.at_all:make", "nowhere.at_all:make: ModuleNotFoundError: No module named 'nowhere'"),
        (f"{__name__}:made", f"{__name__}:made: AttributeError"),
        (f"{__name__}:ONE", "must be callable, not "),
        (
            f"{__name__}:deaf",
            "cannot be told of trials that it did not suggest itself, so a study could not be resumed",
        ),
    ],
)
def test_a_searcher_that_will_not_do_is_refused_in_one_line(name, said):
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.searcher: .*{said}") as refused:
        TuneProposer(CUBE, ONE, (), 0, name)
    assert "\n" not in str(refused.value)


def test_bayesopt_has_no_choices():
    pytest.importorskip("bayes_opt", reason="bayesian-optimization is not installed")
    with pytest.raises(SpecError, match=r"bayesopt cannot search this space: ValueError: .*Categorical"):
        TuneProposer(MIXED, ONE, (), 0, "bayesopt")


def test_several_objectives_are_refused():
    two = (*ONE, Objective("size_bytes"))
    with pytest.raises(SpecError, match=r"its searchers have one objective, the study has 2 \(.*, size_bytes\)"):
        TuneProposer(CUBE, two, (), 0)


def test_without_tune_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.tune.search", None)
    with pytest.raises(SpecError, match=r"ray\[tune\] is not whole \(.*\); pip install 'automc\[tune\]'"):
        proposer("tune")


def test_a_broken_constraint_is_behind_all_that_keep_it():
    """The landscape's best lies where the bound is broken: the searcher is led back to where it holds."""
    shares = []
    for limits in ((), (Constraint.parse("params_ratio <= 0.1"),)):
        asked = TuneProposer(CUBE, ONE, limits, 0)
        asked.tell(told(CUBE, 60))
        shares.append(np.median([CUBE.encode(p.policy)[0] for p in asked.ask(range(60, 72))]))
    free, held = shares
    assert held < 0.15 < free
