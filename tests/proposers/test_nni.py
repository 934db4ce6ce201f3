"""NNI's tuners, against the tuners themselves, brute force and random search."""

import builtins
import importlib.util
import itertools
import random
import sys

import numpy as np
import pytest
from test_optuna import CUBE, ONE, search, space_of, told
from test_proposer_contract import proposer

from automc.core.metrics import Constraint, Objective
from automc.core.space import Choice, Real
from automc.errors import SpecError
from automc.proposers.nni import TUNERS, NNIProposer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nni") is None, reason="nni is not installed: pip install 'automc[nni]'"
)

MIXED = space_of(Real(0.0, 0.8, step=0.1), Choice((2, 4, 8)), Choice(("l1", "l2", "fpgm")), Real(1.0, 10.0, log=True))


@pytest.mark.parametrize("tuner", TUNERS)
def test_every_tuner_is_legal_seeded_and_rebuilt_by_telling(tuner, capsys):
    trials = told(MIXED, 30)
    first, second, other = (NNIProposer(MIXED, ONE, (), seed, tuner=tuner) for seed in (0, 0, 1))
    for t in trials:
        first.tell([t])
    numpy, plain = np.random.get_state()[1].tolist(), random.getstate()
    first.ask(range(30, 32))
    second.tell(trials)
    other.tell(trials)
    found = second.ask(range(31, 35))
    assert first.ask(range(31, 35)) == found
    assert (first.ask(range(31, 35)) == other.ask(range(31, 35))) == (tuner == "gridsearch")
    assert all(MIXED.policy(p.policy) == p.policy for p in found)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == (numpy, plain), "the global generators are ours"
    assert capsys.readouterr().out == "", "stdout is data"


@pytest.mark.parametrize("tuner", ["tpe", "evolution", "gp"])
def test_tuners_learn(tuner):
    """Median loss of the last trials, against that of random draws; the process is slow and learns from few."""
    trials = search(NNIProposer(CUBE, ONE, (), 0, tuner=tuner), CUBE, 30 if tuner == "gp" else 75)
    late = np.median([t.measurement.metrics["loss"] for t in trials[len(trials) * 2 // 3 :]])
    assert late < 0.6 * np.median([t.measurement.metrics["loss"] for t in told(CUBE, 75)])


def test_the_grid_is_every_combination_once():
    space = space_of(Choice((2, 4, 8)), Real(0.0, 0.2, step=0.1), Choice(("l1", "l2")))
    policies = [tuple(p.policy.values()) for p in NNIProposer(space, ONE, (), 0, tuner="gridsearch").ask(range(18))]
    assert policies == list(itertools.product((2, 4, 8), (0.0, 0.1, 0.2), ("l1", "l2")))
    again = NNIProposer(space, ONE, (), 3, tuner="gridsearch").ask(range(18, 20))
    assert [tuple(p.policy.values()) for p in again] == policies[:2]


def test_a_whole_search_of_a_tiny_space_finds_what_brute_force_finds():
    space = space_of(Choice((2, 4, 8)), Real(0.0, 0.8, step=0.1))
    trials = search(NNIProposer(space, ONE, (), 0, tuner="gridsearch"), space, 27)
    cubes = [((i + 0.5) / 3, (j + 0.5) / 9) for i in range(3) for j in range(9)]
    best = min((a - 0.3) ** 2 + (b - 0.3) ** 2 for a, b in cubes)
    assert min(t.measurement.metrics["loss"] for t in trials) == pytest.approx(best)


def test_tpe_is_nnis_tpe():
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    trials = told(CUBE, 40)
    asked = NNIProposer(CUBE, ONE, (), 7)
    asked.tell(trials)
    tuner = TpeTuner("minimize", 7 * 1_000_003 + 40)
    tuner.update_search_space({str(d.site): {"_type": "uniform", "_value": [0.0, 1.0]} for d in CUBE.decisions})
    points = [{str(site): t.policy[site] for site in t.policy} for t in trials]
    values = [t.measurement.metrics["loss"] for t in trials]
    tuner.import_data([{"parameter": p, "value": v} for p, v in zip(points, values, strict=True)])
    found = asked.ask(range(40, 41))[0].policy
    assert {str(site): found[site] for site in found} == tuner.generate_parameters(0)


def test_a_policy_that_breaks_a_constraint_is_behind_all_that_keep_it():
    upper = (Constraint.parse("params_ratio <= 0.2"),)
    trials = search(NNIProposer(CUBE, ONE, upper, 0), CUBE, 90)
    inside = [t.measurement.metrics["params_ratio"] <= 0.2 for t in trials[-40:]]
    free = search(NNIProposer(CUBE, ONE, (), 0), CUBE, 90)
    assert np.mean(inside) > 1.5 * np.mean([t.measurement.metrics["params_ratio"] <= 0.2 for t in free[-40:]])


def test_what_cannot_work_is_refused_in_one_line():
    with pytest.raises(
        SpecError, match=r"^proposer nni: its tuners have one objective, the study has 2 \(loss, macs\)"
    ):
        NNIProposer(CUBE, (*ONE, Objective("macs")), (), 0)
    with pytest.raises(SpecError, match=r"^proposer\.settings\.tuner: must be one of tpe, evolution, .*, not 'smac'$"):
        proposer("nni", tuner="smac")
    with pytest.raises(SpecError, match=r"^proposer\.settings\.memory: must be from 20 to 100,000, not 5$"):
        proposer("nni", memory=5)


def test_without_nni_the_extra_is_named(monkeypatch):
    imported = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] == "nni":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "nni", raising=False)
    with pytest.raises(
        SpecError, match=r"^proposer nni: the package nni is not installed; pip install 'automc\[nni\]'$"
    ):
        NNIProposer(CUBE, ONE, (), 0)
