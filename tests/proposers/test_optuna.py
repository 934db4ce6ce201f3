"""The Optuna family, against Optuna's samplers driven by hand, SciPy's sequences and plain arithmetic."""

import copy
import itertools
import math
import warnings

import numpy as np
import optuna
import pytest
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from scipy.stats import qmc
from test_proposer_contract import history, measured, proposer

from automc.core.layers import LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.space import Choice, Decision, Real, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.proposers.optuna import (
    CMAESProposer,
    GPProposer,
    NSGA2Proposer,
    NSGA3Proposer,
    QMCProposer,
    TPEProposer,
)

ONE = (Objective("loss"),)
BOUND = (Constraint.parse("params_ratio <= 0.8"),)


def space_of(*domains) -> SearchSpace:
    sites = (Site("prune", f"layer{i}", "prune_ratio") for i in range(len(domains)))
    decisions = tuple(Decision(s, d) for s, d in zip(sites, domains, strict=True))
    return SearchSpace(decisions, ("prune",), LayerTable((), (), (8, 4, 4)))


CUBE = space_of(*[Real(0.0, 1.0)] * 4)
STEPS = space_of(*[Real(0.0, 0.8, step=0.1)] * 6, *[Choice((2, 4, 8))] * 4)


def trial(space: SearchSpace, number: int, policy: Policy, rung: int = 0, **metrics: float) -> Trial:
    cube = np.array(space.encode(policy))
    found = {"loss": float(((cube - 0.3) ** 2).sum()), "size_bytes": float(cube.sum()), "params_ratio": float(cube[0])}
    measurement = Measurement(found | metrics)
    return Trial(number, policy, "", TrialState.COMPLETE, rung, measurement, attempts=1)


def told(space: SearchSpace, count: int, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    return [trial(space, n, space.decode(rng.random(len(space)).tolist())) for n in range(count)]


def search(asked, space: SearchSpace, count: int) -> list[Trial]:
    trials = []
    for number in range(count):
        trials.append(trial(space, number, asked.ask(range(number, number + 1))[0].policy))
        asked.tell(trials[-1:])
    return trials


def by_hand(
    space: SearchSpace, trials: list[Trial], metrics: list[str], sampler, constrained: bool
) -> dict[str, float]:
    """What the sampler itself says, with a study filled in the documented way."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * len(metrics), sampler=sampler)
    optuna.logging.set_verbosity(level)
    ranges = {str(d.site): optuna.distributions.FloatDistribution(0.0, 1.0) for d in space.decisions}
    # The trial asked is number 0 of our studies, and the told ones follow.
    asked = None if trials else study.ask(ranges)
    for t in trials:
        m = t.measurement.metrics
        excess = {"params_ratio <= 0.8": m["params_ratio"] - 0.8} if constrained else None
        params = {str(d.site): t.policy[d.site] for d in space.decisions}
        values = [m[name] for name in metrics]
        study.add_trial(optuna.create_trial(values=values, params=params, distributions=ranges, constraints=excess))
    return (asked or study.ask(ranges)).params


def seed_of(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**32


def test_tpe_is_optunas_tpe():
    trials = told(CUBE, 40)
    for objectives, constraints in itertools.product((ONE, (*ONE, Objective("size_bytes"))), ((), BOUND)):
        asked = TPEProposer(CUBE, objectives, constraints, 3)
        asked.tell(trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(seed=seed_of(3, 50), multivariate=True, n_startup_trials=16, constant_liar=False)
        wanted = by_hand(CUBE, trials, [o.metric for o in objectives], sampler, bool(constraints))
        found = asked.ask(range(50, 51))[0].policy
        assert {str(site): found[site] for site in found} == pytest.approx(wanted, abs=1e-12)


def test_gp_is_optunas_gp():
    trials = told(CUBE, 12)
    asked = GPProposer(CUBE, ONE, BOUND, 1, startup=10, searches=2)
    asked.tell(trials)
    sampler = GPSampler(seed=seed_of(1, 20), n_startup_trials=10)
    sampler._n_local_search = 2
    wanted = by_hand(CUBE, trials, ["loss"], sampler, True)
    found = asked.ask(range(20, 21))[0].policy
    # Both follow a gradient to the same maximum; the order of the sums differs.
    assert {str(site): found[site] for site in found} == pytest.approx(wanted, abs=1e-4)


def test_nsga2_has_the_parents_and_the_children_of_optunas():
    """With as many told as make one generation, Optuna's own bookkeeping chooses the same parents."""
    trials = told(CUBE, 20)
    asked = NSGA2Proposer(CUBE, (*ONE, Objective("size_bytes")), BOUND, 2)
    asked.tell(trials)
    sampler = NSGAIISampler(seed=seed_of(2, 30), population_size=20)
    key = sampler._get_generation_key()
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    optuna.logging.set_verbosity(level)
    ranges = {str(d.site): optuna.distributions.FloatDistribution(0.0, 1.0) for d in CUBE.decisions}
    for t in trials:
        m, params = t.measurement.metrics, {str(d.site): t.policy[d.site] for d in CUBE.decisions}
        excess = {"params_ratio <= 0.8": m["params_ratio"] - 0.8}
        study.add_trial(
            optuna.create_trial(
                values=[m["loss"], m["size_bytes"]],
                params=params,
                distributions=ranges,
                constraints=excess,
                system_attrs={key: 0},
            )
        )
    parents = {tuple(t.params.values()) for t in sampler.select_parent(study, 1)}
    assert {tuple(t.params.values()) for t in asked._chosen(1)} == parents
    child = asked.ask(range(30, 31))[0].policy
    values = {d.site: {t.policy[d.site] for t in trials} for d in CUBE.decisions}
    assert sum(child[site] in values[site] for site in child) >= 2, "crossover swaps whole values; few mutate"


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_qmc_is_scipys_sequence_by_number(sequence):
    made = {"sobol": qmc.Sobol, "halton": qmc.Halton}[sequence]
    points = made(4, scramble=True, seed=5).random(32)
    found = QMCProposer(CUBE, ONE, (), 5, sequence=sequence)
    late = QMCProposer(CUBE, ONE, (), 5, sequence=sequence)
    late.tell(told(CUBE, 9))
    cubes = np.array([CUBE.encode(p.policy) for p in found.ask(range(32))])
    assert cubes == pytest.approx(points, abs=1e-12)
    assert late.ask(range(17, 18)) == found.ask(range(17, 18))
    assert qmc.discrepancy(cubes) < 0.5 * np.mean(
        [qmc.discrepancy(np.random.default_rng(i).random((32, 4))) for i in range(20)]
    )


def test_qmc_gives_every_value_of_a_stepped_decision_its_share():
    space = space_of(Choice((2, 4, 6, 8)), Choice(("a", "b", "c", "d")))
    policies = [tuple(p.policy.values()) for p in QMCProposer(space, ONE, (), 0).ask(range(64))]
    counts = {pair: policies.count(pair) for pair in set(policies)}
    assert len(counts) == 16
    assert set(counts.values()) == {4}, "64 points of a scrambled Sobol sequence: 4 in each of 16 equal boxes"


def test_cmaes_finds_the_minimum_of_a_quadratic():
    """Against random search with as many trials, over three seeds; the optimum is at 0.3 in every coordinate."""
    space = space_of(*[Real(0.0, 1.0)] * 3, *[Real(0.0, 0.8, step=0.1)] * 3)
    for seed in range(3):
        trials = search(CMAESProposer(space, ONE, (), seed, anchors=0), space, 160)
        last = [t.measurement.metrics["loss"] for t in trials[-30:]]
        assert np.median(last) < min(t.measurement.metrics["loss"] for t in told(space, 160, seed))


def test_cmaes_keeps_the_constraint_and_draws_unordered_choices_evenly():
    space = space_of(*[Real(0.0, 1.0)] * 4, Choice(("l1", "l2", "fpgm")))
    upper = (Constraint.parse("params_ratio <= 0.2"),)
    trials = search(CMAESProposer(space, ONE, upper, 0, anchors=0), space, 240)
    last = [t.policy for t in trials[-80:]]
    inside = [float(p[Site("prune", "layer0", "prune_ratio")]) <= 0.2 for p in last]
    assert np.mean(inside) > 0.4, "of 80 draws around a bound that the optimum lies beyond"
    assert np.mean([float(p[Site("prune", "layer0", "prune_ratio")]) for p in last]) > 0.1
    counts = [sum(p[Site("prune", "layer4", "prune_ratio")] == c for p in last) for c in ("l1", "l2", "fpgm")]
    # chi-square with 2 degrees of freedom: 13.8 is its 99.9% point.
    assert sum((c - 80 / 3) ** 2 / (80 / 3) for c in counts) < 13.8


def test_the_first_generation_of_cmaes_is_optunas():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        settings = {"n_startup_trials": 0, "with_margin": True}
        sampler = CmaEsSampler(seed=seed_of(4, 9), warn_independent_sampling=False, **settings)
    ours = CMAESProposer(CUBE, ONE, (), 4, anchors=0)
    found = ours.ask(range(9, 10))[0].policy
    (optimizer,) = copy.deepcopy(ours._states)
    optimizer._rng.seed(sampler._cma_rng.rng.randint(1, 2**16))
    assert list(found.values()) == pytest.approx(optimizer.ask()[0].tolist(), abs=1e-12)
    assert optimizer.mean.tolist() == [0.5] * 4


def test_what_cannot_work_is_refused_in_one_line():
    two = (*ONE, Objective("size_bytes"))
    with pytest.raises(
        SpecError, match=r"^proposer cmaes: has one objective, the study has 2 \(loss, size_bytes\); make"
    ):
        CMAESProposer(CUBE, two, (), 0)
    words = space_of(Choice(("a", "b", "c")), Real(0.0, 1.0))
    with pytest.raises(SpecError, match=r"needs at least two ordered decisions, the space has 1; use tpe"):
        CMAESProposer(words, ONE, (), 0)
    with pytest.raises(SpecError, match=r"sequence: must be one of sobol, halton, not 'faure'"):
        proposer("qmc", sequence="faure")
    with pytest.raises(SpecError, match=r"group = true needs multivariate = true"):
        TPEProposer(CUBE, ONE, (), 0, multivariate=False, group=True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tpe", {"memory": 19}),
        ("gp", {"startup": 1}),
        ("gp", {"memory": 2}),
        ("nsga3", {"divisions": -1}),
        ("nsga3", {"population": 1}),
        ("cmaes", {"population": 1}),
        ("cmaes", {"anchors": -1}),
    ],
)
def test_settings_out_of_range_are_refused(name, settings):
    key = next(iter(settings))
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.{key}: must be (0 or )?from \d+ to [\d,]+, not -?\d+$"):
        proposer(name, **settings)


def test_switches_are_true_or_false():
    with pytest.raises(SpecError, match="multivariate: must be true or false, not 1"):
        proposer("tpe", multivariate=1)
    with pytest.raises(SpecError, match="startup: must be a whole number from 1 to 1,000,000, not True"):
        proposer("tpe", startup=True)


@pytest.mark.parametrize("settings", [{"multivariate": False}, {"group": True}])
def test_tpe_models_fewer_decisions_together(settings):
    """Two coordinates that must agree: only a joint model keeps pairs together; both are rebuilt by telling."""
    trials = history("random", 40)
    first, second = proposer("tpe", **settings), proposer("tpe", **settings)
    first.tell(trials)
    first.ask(range(40, 43))
    second.tell(trials)
    assert first.ask(range(43, 45)) == second.ask(range(43, 45))
    joint = proposer("tpe")
    joint.tell(trials)
    assert joint.ask(range(43, 45)) != first.ask(range(43, 45))


def test_nsga3_spreads_as_many_directions_as_fit():
    for objectives, population, wanted in [(2, 20, 19), (3, 20, 4), (3, 21, 5), (4, 20, 3), (1, 20, 1)]:
        names = ("loss", "size_bytes", "macs", "bops")[:objectives]
        found = NSGA3Proposer(CUBE, [Objective(n) for n in names], (), 0, population=population)._divisions
        assert found == wanted
        assert math.comb(objectives + found - 1, found) <= population


@pytest.mark.parametrize("make", [NSGA2Proposer, NSGA3Proposer])
def test_generations_follow_from_the_order_of_telling(make):
    objectives = (*ONE, Objective("size_bytes"))
    trials = told(CUBE, 107)
    eager, lazy = make(CUBE, objectives, BOUND, 0), make(CUBE, objectives, BOUND, 0)
    for t in trials:
        eager.tell([t])
        eager.ask(range(200, 201))
    lazy.tell(trials)
    assert eager.ask(range(107, 112)) == lazy.ask(range(107, 112))
    ranked = [[p.number for p in generation] for generation in lazy._parents]
    assert [len(g) for g in ranked] == [0, 20, 20, 20, 20, 20]
    feasible = [i for i in range(100) if trials[i].measurement.metrics["params_ratio"] <= 0.8]
    best = min(feasible, key=lambda i: trials[i].measurement.metrics["loss"])
    assert best + 1 in ranked[-1], "elitism: the best of all is a parent"


@pytest.mark.parametrize("make", [TPEProposer, NSGA2Proposer, NSGA3Proposer, CMAESProposer])
def test_a_higher_rung_replaces_what_a_policy_said(make):
    """As if the better figures had been told in the first place; the ones of the lower rung come too late then."""
    objectives = ONE if make is CMAESProposer else (*ONE, Objective("size_bytes"))
    low = told(STEPS, 45)
    high = [trial(STEPS, 45 + i, low[i].policy, 1, loss=10.0 - i) for i in range(0, 40, 3)]
    again = [trial(STEPS, t.number, t.policy, 0, loss=-5.0) for t in high]
    mixed, pure = make(STEPS, objectives, BOUND, 0), make(STEPS, objectives, BOUND, 0)
    for t in low:
        mixed.tell([t])
        mixed.ask(range(90, 91))
    mixed.tell(high)
    newest = {t.policy: t for t in high}
    pure.tell([newest.get(t.policy, t) for t in low])
    assert mixed.ask(range(100, 104)) == pure.ask(range(100, 104))
    mixed.tell(again)
    pure.tell([newest[t.policy] for t in again])
    assert mixed.ask(range(104, 106)) == pure.ask(range(104, 106))


def test_one_window_differs_by_its_seeds():
    asked = proposer("tpe")
    asked.tell([measured(n, p) for n, p in enumerate(proposer("random").ask(range(60)))])
    assert len({p.policy for p in asked.ask(range(60, 68))}) == 8
