"""The portfolio: who may propose, what a gain is, and that gains are rewarded."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_proposer_contract import CONSTRAINTS, OBJECTIVES, SPACE, measured

from automc.core.metrics import Measurement, Objective
from automc.core.pareto import hypervolume
from automc.core.ports import Proposal
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.proposers import members, portfolio
from automc.proposers.portfolio import PortfolioProposer, _Front

CORNER = SPACE.decode([0.5] * len(SPACE))


class Good:
    """Remembers what it was told."""

    measures: tuple[str, ...] = ("loss",)

    def __init__(self, space, objectives, constraints, seed) -> None:
        self.told: list[Trial] = []
        self.seed = seed

    def ask(self, numbers):
        return [Proposal(SPACE.decode(self.cube(number)), f"mine {number}") for number in numbers]

    def cube(self, number: int) -> list[float]:
        return np.random.default_rng([self.seed, number, 5]).random(len(SPACE)).tolist()

    def tell(self, trials):
        self.told += trials


class Bad(Good):
    measures = ("loss", "trace")


class Refusing:
    def __init__(self, *arguments) -> None:
        raise SpecError("proposer refusing: wants the moon")


@pytest.fixture
def table(monkeypatch):
    """The catalogue with three proposers for these tests."""
    for name in ("good", "bad", "refusing"):
        monkeypatch.setitem(members.PROPOSERS, name, f"{__name__}:{name.title()}")


def built(names: str, first: int = 0, seed: int = 0) -> PortfolioProposer:
    return PortfolioProposer(SPACE, OBJECTIVES, CONSTRAINTS, seed, members=names, first=first)


def by(proposal: Proposal) -> str:
    return json.loads(proposal.memo)["by"]


def test_members_that_cannot_work_with_the_study_are_left_out(table):
    asked = built("refusing good", first=4)
    assert {by(proposal) for proposal in asked.ask(range(4))} == {"good"}
    assert asked.remarks == ("portfolio: members are good; left out: refusing (wants the moon)",)
    assert built("good bad").remarks == ("portfolio: members are good, bad",)
    with pytest.raises(SpecError, match=r"no member can work with this study: refusing \(wants the moon\)$"):
        built("refusing")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"members": "good, goood"}, "members: must name other proposers, not 'goood', did you mean 'good'"),
        ({"members": ["good", "portfolio"]}, "members: must name other proposers, not 'portfolio'"),
        ({"members": ""}, r"members: must name proposers, as in \[allocate, evolve\] or 'allocate evolve', not ''"),
        ({"members": 7}, "members: must name proposers, as in .*, not 7"),
        ({"members": ["good", 7]}, "members: must name other proposers, not 7"),
        ({"first": -1}, "first: must be from 0 to 1,000,000, not -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(table, wrong, message):
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.{message}"):
        members.member("portfolio", SPACE, OBJECTIVES, CONSTRAINTS, 0, **wrong)


def test_all_mistakes_are_named_at_once(table):
    with pytest.raises(SpecError) as error:
        members.member("portfolio", SPACE, OBJECTIVES, CONSTRAINTS, 0, firts=3, members="goood", first="many")
    keys = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert keys == [f"proposer.settings.{key}" for key in ("firts", "members", "first")]
    assert "did you mean 'first'" in str(error.value)


def test_members_are_a_list_or_one_text(table):
    proposals = [built(names).ask(range(20)) for names in ("good, bad", "good bad", ["good", "bad"])]
    assert proposals[0] == proposals[1] == proposals[2]


def test_it_wants_the_sensitivities_that_its_members_want(table):
    assert built("good bad random").measures == ("loss", "trace")


def test_the_first_member_begins(table):
    assert [by(p) for p in built("good bad", first=5).ask(range(5))] == ["good"] * 5


@pytest.mark.parametrize("seed", range(3))
def test_who_improves_the_front_gets_most_of_the_trials(table, seed):
    """One finds trade-offs on a line, the other behind it; later the second improves on the first, and takes over."""
    asked = built("bad good", seed=seed)
    turns = [Counter(), Counter()]
    for number in range(160):
        proposal = asked.ask(range(number, number + 1))[0]
        name, late = by(proposal), number >= 80
        turns[late][name] += number % 80 >= 20
        place = np.random.default_rng([seed, number]).random()
        behind = {"good": 0.3, "bad": 0.0 if late else 0.6}[name]
        metrics = {"top1": 1 - place - behind, "size_bytes": 1 - place + behind, "macs_ratio": 0.5}
        asked.tell([Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, Measurement(metrics))])
    early, late = turns
    assert early["good"] > 1.5 * early["bad"] > 0
    assert late["bad"] > 1.5 * late["good"] > 0


def test_everybody_is_told_everything_and_sees_its_own_memos_only(table):
    asked = built("good bad")
    proposals = asked.ask(range(12))
    asked.tell([measured(number, proposal) for number, proposal in enumerate(proposals)])
    for name, one in asked._members.items():
        assert len(one.told) == 12
        for number, (trial, proposal) in enumerate(zip(one.told, proposals, strict=True)):
            assert trial.memo == (f"mine {number}" if by(proposal) == name else "")


def test_what_was_measured_is_passed_over(table, monkeypatch):
    """The other member is asked instead; only where all know nothing new is a policy proposed again."""
    monkeypatch.setattr(Good, "ask", lambda self, numbers: [Proposal(CORNER) for _ in numbers])
    asked = built("good random", first=10)
    assert by(asked.ask(range(1))[0]) == "good"
    asked.tell([Trial(0, CORNER, "", TrialState.FAILED, reason="error")])
    assert by(asked.ask(range(1, 2))[0]) == "random"
    alone = built("good")
    alone.tell([Trial(0, CORNER, "", TrialState.FAILED, reason="error")])
    assert alone.ask(range(1, 2))[0].policy == CORNER


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=12))
def test_gains_are_differences_of_hypervolume(rows):
    """In the box of what was told so far, with the whole front counted anew; costs count by their logarithm."""
    objectives = (Objective("mse"), Objective("size_bytes"), Objective("macs"))
    front, seen = _Front(objectives, ()), np.empty((0, 3))
    for number, row in enumerate(rows):
        metrics = {"mse": float(row[0]), "size_bytes": math.exp(row[1]), "macs": math.exp(row[2])}
        gain = front.gain(Trial(number, CORNER, "", TrialState.COMPLETE, 0, Measurement(metrics)))
        both = np.vstack([seen, row]).astype(float)
        span = np.where(np.ptp(both, axis=0) > 0, np.ptp(both, axis=0), 1.0)
        scaled, bound = (both - both.min(axis=0)) / span, np.full(3, portfolio._REFERENCE)
        assert gain == pytest.approx(hypervolume(scaled, bound) - hypervolume(scaled[:-1], bound), abs=1e-9)
        seen = both


def test_infeasible_and_failed_trials_gain_nothing():
    front = _Front((Objective("mse"),), CONSTRAINTS)
    inside = {"mse": 1.0, "macs_ratio": 0.5}
    outside = {"mse": 0.5, "macs_ratio": 0.9}
    states = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.STOPPED)
    gains = [
        front.gain(Trial(n, CORNER, "", state, 0, Measurement(metrics)))
        for n, (state, metrics) in enumerate(zip(states, (outside, inside, inside), strict=True))
    ]
    assert gains[0] == 0
    assert gains[1] > 0
    assert gains[2] == 0
