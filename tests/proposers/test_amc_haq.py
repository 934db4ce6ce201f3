"""AMC and HAQ: what they observe, decide, keep and learn."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.analytic import Analytic
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError, StoreError
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.ddpg.amc import AMCProposer
from automc.proposers.ddpg.haq import HAQProposer
from automc.proposers.ddpg.memory import unpacked
from automc.proposers.members import member

LANDSCAPE = SyntheticEvaluator(SyntheticSettings(layers=6))
TASK = (Objective("top1"),)
HALF = (Constraint.parse("macs_ratio <= 0.5"),)
FOUR_BITS = (Constraint.parse("bops_ratio <= 0.0157"),)
QUICK = {"hidden": 24, "warmup": 6, "actor_rate": 2e-3, "critic_rate": 5e-3}

PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.05)})
BITS = Rule("quantize", {k: Choice((2, 3, 4, 5, 6, 8)) for k in ("weight_bits", "activation_bits")})


def space(*rules: Rule, table: LayerTable = LANDSCAPE.table) -> SearchSpace:
    return resolve(rules, ORDER, table, OPERATORS)


PRUNING, QUANTIZING = space(PRUNE), space(BITS)


def amc(seed: int = 0, where: SearchSpace = PRUNING, constraints=HALF, objectives=TASK, **others) -> AMCProposer:
    return AMCProposer(where, objectives, constraints, seed, **{**QUICK, **others})


def haq(seed: int = 0, where: SearchSpace = QUANTIZING, constraints=FOUR_BITS, **others) -> HAQProposer:
    return HAQProposer(where, TASK, constraints, seed, **{**QUICK, **others})


def run(proposer, count: int) -> list[Trial]:
    trials = []
    for number in range(count):
        (proposal,) = proposer.ask(range(number, number + 1))
        measured = LANDSCAPE.evaluate(proposal.policy, 0, lambda step, value: True)
        trials.append(Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, measured))
        proposer.tell(trials[-1:])
    return trials


def reached(trials) -> list[float]:
    return [trial.measurement.metrics["top1"] for trial in trials]


@pytest.mark.parametrize("made", [amc, haq])
@pytest.mark.parametrize("replayed", ["executed", "proposed"])
def test_the_memory_is_that_of_a_retelling_bit_for_bit(made, replayed):
    first = made(replay=replayed, priority=0.5)
    trials = run(first, 14)
    again, retold = made(replay=replayed, priority=0.5), made(replay=replayed, priority=0.5)
    again.restore(first.state())
    retold.tell(trials)
    assert again.state() == retold.state() == first.state()
    assert [t.policy for t in run(again, 3)] == [t.policy for t in run(retold, 3)]
    with pytest.raises(StoreError, match="not the memory of"):
        first.restore(made(hidden=7).state())
    with pytest.raises(StoreError, match="not the memory of a proposer"):
        first.restore(b"{}")
    assert again.state() == retold.state()


def asked(proposer, number: int):
    """A proposal, and the states and wanted actions on the way to it."""
    environment, seen = proposer.environment, []
    draws = np.random.default_rng(number).random((environment.steps, 1))

    def choose(step, state):
        seen.append((state.copy(), draws[step]))
        return draws[step]

    policy = environment.play(choose, number)
    return policy, np.array([state for state, _ in seen]), np.array([action for _, action in seen])


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_amc_finds_the_states_and_executed_actions_again_in_the_policy(variant):
    proposer = amc(variant=variant)
    for number in range(20):
        policy, states, wanted = asked(proposer, number)
        found, executed = proposer.environment.retrace(policy, number)
        np.testing.assert_array_equal(found, states)
        kept = [1 - policy[d.site] for d in PRUNING.decisions]
        np.testing.assert_allclose(executed[:, 0], kept, atol=1e-6)
        assert (executed <= np.maximum(wanted, 0.2) + 0.025 + 1e-6).all()  # clamped down, or snapped by half a step


def test_haq_finds_the_states_again_where_no_bits_went_down():
    proposer = haq(constraints=(Constraint.parse("bops_ratio <= 0.2"),))
    for number in range(10):
        policy, states, wanted = asked(proposer, number)
        found, executed = proposer.environment.retrace(policy, number)
        np.testing.assert_array_equal(found, states)
        again, _ = proposer.environment.retrace(policy, number, wanted.astype(np.float32))
        np.testing.assert_array_equal(again, states)
        for step, decision in enumerate(proposer.environment._decisions):
            meant = proposer.environment._bits[step].value(float(executed[step, 0]))
            assert meant == policy[decision.site]


def test_haq_replays_the_states_that_the_proposed_actions_led_to():
    proposer = haq()
    policy, states, wanted = asked(proposer, 3)
    executed, _ = proposer.environment.retrace(policy, 3)
    proposed, actions = proposer.environment.retrace(policy, 3, wanted.astype(np.float32))
    np.testing.assert_array_equal(proposed, states)
    np.testing.assert_array_equal(actions, wanted.astype(np.float32))
    assert not np.array_equal(executed, states)


def tiny() -> LayerTable:
    layers = (
        Layer("a", 0, "conv", 3, 8, (3, 3), (1, 1), (8, 8, 8), 216, 13824, "a"),
        Layer("b", 1, "conv", 8, 16, (5, 5), (2, 2), (16, 4, 4), 3200, 51200, "b"),
        Layer("c", 2, "linear", 16, 10, (), (), (10,), 170, 160, ""),
    )
    return LayerTable(layers, (Group("a", 8, ("a",), ("b",)), Group("b", 16, ("b",), ("c",))), (3, 8, 8))


def test_amc_observes_what_its_code_and_its_paper_say():
    where = space(Rule("prune", {"prune_ratio": Choice((0.0, 0.25, 0.5, 0.75))}), table=tiny())
    policy = where.policy({d.site: 0.25 for d in where.decisions})
    total, lower = 13824 + 51200 + 160, 0.25
    code, _ = amc(where=where, lower=lower).environment.retrace(policy, 0)
    # Two groups: of two different numbers the smaller is 0 and the larger 1.
    np.testing.assert_allclose(code[0], [0, 0, 0, 1, 1, 1, 1, 0, 160 / total, 1], atol=1e-6)
    # The first group keeps 3 of 4, the second is counted at its least, 1 of 4.
    left = (0.75 * 13824 + 0.75 * 0.25 * 51200 + 0.25 * 160) / total
    np.testing.assert_allclose(code[1], [1, 1, 1, 0, 0, 0, 0, 1 - left, 0, 0.75], atol=1e-6)
    paper, _ = amc(where=where, lower=lower, variant="paper").environment.retrace(policy, 0)
    np.testing.assert_allclose(paper[0], [0, 1, 0, 1, 1, 1, 1, 1, 0, 160 / total, 1], atol=1e-6)
    left = (0.75 * 13824 + 0.75 * 51200 + 160) / total
    np.testing.assert_allclose(paper[1], [1, 0, 1, 0, 0, 0, 0, 0, 1 - left, 0, 0.75], atol=1e-6)


def test_amc_keeps_the_budget_and_the_least_share_by_itself():
    analytic = Analytic(PRUNING.layers)
    proposer = amc(lower=0.3)
    for proposal in proposer.ask(range(60)):
        assert analytic.costs(proposal.policy)["macs_ratio"] <= 0.5
        assert all(value <= 0.7 + 1e-9 for value in proposal.policy.values())


def test_amc_aims_at_a_front_where_a_cost_is_an_objective():
    proposer = amc(constraints=(), objectives=(*TASK, Objective("macs_ratio")))
    bounds = [proposer.environment._targets.at(n)[-1].bound for n in range(12)]
    for proposal, bound in zip(proposer.ask(range(12)), bounds, strict=True):
        assert Analytic(PRUNING.layers).costs(proposal.policy)["macs_ratio"] <= bound * (1 + 1e-9)
    assert max(bounds) > 3 * min(bounds)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [("accuracy", 0.9), ("error_macs", -0.1 * math.log(5e6)), ("error_params", -0.1 * math.log(3e4))],
)
def test_amc_rewards_are_those_of_the_paper(reward, expected):
    found = amc(reward=reward).environment.reward({"top1": 0.9, "macs": 5e6, "params": 3e4})
    assert found == pytest.approx(expected)
    assert not math.isfinite(amc(reward=reward).environment.reward({"macs": 5e6, "params": 3e4}))


def test_the_accuracy_guaranteed_mode_needs_no_budget():
    with pytest.raises(SpecError, match="nothing limits what a policy costs"):
        amc(constraints=())
    assert len(amc(constraints=(), reward="error_macs").ask(range(2))) == 2
    loss = amc(constraints=(), objectives=(Objective("loss"),), reward="error_macs")
    assert loss.environment.reward({"loss": 0.3, "macs": 5e6}) == pytest.approx(-0.3 * math.log(5e6))


def test_haq_rewards_are_points_over_ten():
    assert haq().environment.reward({"top1": 0.905}) == pytest.approx(0.1 * 90.5)


def test_haq_maps_actions_to_bits_as_its_code_does():
    proposer = haq(
        where=space(Rule("quantize", {"weight_bits": Choice(tuple(range(2, 9))), "activation_bits": Choice((4, 8))}))
    )
    bits = proposer.environment._bits[2]
    assert proposer.environment._decisions[2].site == Site("quantize", "conv1", "weight_bits")
    for action in np.linspace(0, 1, 101):
        assert bits.value(float(action)) == int(np.round((8.5 - 1.5) * action + 1.5))
    assert [bits.value(bits.action(b)) for b in range(2, 9)] == list(range(2, 9))
    four_or_eight = proposer.environment._bits[3]
    assert {four_or_eight.value(a) for a in (0.0, 0.3, 0.6, 1.0)} == {4, 8}


def lowered_plainly(bits: dict[Site, int], ends: set[str], bound: float) -> dict[Site, int]:
    """HAQ's loop, written out: from the last layer to the first, its input and then its weights, again and again."""
    analytic, names = Analytic(QUANTIZING.layers), [layer.name for layer in QUANTIZING.layers.layers]
    lower = {3: 2, 4: 3, 5: 4, 6: 5, 8: 6}
    sites = [Site("quantize", n, s) for n in reversed(names) for s in ("activation_bits", "weight_bits")]
    free = [site for site in sites if site.layer not in ends]
    bits = dict(bits)
    while analytic.costs(Policy(bits))["bops_ratio"] > bound and any(bits[site] > 2 for site in free):
        for site in free:
            if bits[site] > 2:
                bits[site] = lower[bits[site]]
                if analytic.costs(Policy(bits))["bops_ratio"] <= bound:
                    break
    return bits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.008, 0.04))
def test_haq_takes_bits_away_from_the_last_layer_to_the_first(number, bound):
    proposer = haq(constraints=(Constraint("bops_ratio", "<=", bound),))
    policy, _, wanted = asked(proposer, number)
    environment = proposer.environment
    chosen = {d.site: environment._bits[i].value(float(wanted[i, 0])) for i, d in enumerate(environment._decisions)}
    ends = {"conv0", "linear"}
    assert {policy[Site("quantize", name, s)] for name in ends for s in ("weight_bits", "activation_bits")} == {8}
    assert dict(policy) == lowered_plainly(chosen, ends, bound)
    assert Analytic(QUANTIZING.layers).costs(policy)["bops_ratio"] <= bound


def test_the_ends_can_be_left_to_the_actor():
    found = {proposal.policy[Site("quantize", "conv0", "weight_bits")] for proposal in haq(ends=0).ask(range(20))}
    assert len(found) > 2


def test_a_higher_rung_corrects_and_a_failed_trial_says_nothing():
    proposer = amc()
    trials = run(proposer, 9)
    before = proposer.agent.episodes
    better = Measurement({"top1": 0.77})
    failed = Trial(20, trials[0].policy, "", TrialState.FAILED, 0, reason="error")
    stopped = Trial(21, trials[0].policy, "", TrialState.STOPPED, 0, better)
    proposer.tell([replace(trials[4], number=22, rung=1, measurement=better), failed, stopped])
    assert proposer.agent.episodes == before
    rewards = unpacked(proposer.state())[0]["replay.reward"].reshape(9, -1)
    assert torch.equal(rewards[4], torch.full_like(rewards[4], 0.77))
    assert rewards[3][0].item() == pytest.approx(reached(trials)[3])
    proposer.tell([replace(trials[4], number=23)])  # of the lower rung again: the better figure counts
    assert unpacked(proposer.state())[0]["replay.reward"][-1].item() == pytest.approx(0.77)


def test_proposed_actions_are_replayed_only_where_they_are_wanted_and_whole():
    executed, proposed = amc(), amc(replay="proposed")
    (proposal,) = proposed.ask(range(1))
    trial = Trial(0, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, Measurement({"top1": 0.5}))
    wanted = np.array(json.loads(proposal.memo)["actions"], dtype=np.float32)
    for proposer, memo, expected in (
        (proposed, proposal.memo, wanted),
        (executed, proposal.memo, None),
        (amc(replay="proposed"), '{"actions": [[0.1]]}', None),
        (amc(replay="proposed"), '{"actions": "many"}', None),
    ):
        proposer.tell([replace(trial, memo=memo)])
        kept = [[1 - value] for value in proposal.policy.values()]
        actions = unpacked(proposer.state())[0]["replay.action"].numpy()
        np.testing.assert_allclose(actions, kept if expected is None else expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: amc(where=space(PRUNE, BITS)), r"amc: decides prune_ratio only, the space also has quantize\(conv0\)"),
        (
            lambda: haq(where=space(PRUNE, BITS)),
            r"haq: decides weight_bits and activation_bits only, .* prune\(conv0\)",
        ),
        (
            lambda: haq(constraints=(Constraint.parse("latency_ms <= 3"),)),
            "haq: latency_ms <= 3 cannot be kept, because",
        ),
        (lambda: haq(constraints=(Constraint.parse("energy_model_mj <= 3"),)), "is known only when it is measured"),
        (
            lambda: amc(constraints=(Constraint.parse("macs_ratio <= 0.1"),), lower=0.5),
            "let the setting 'lower' be smaller",
        ),
        (lambda: haq(constraints=(Constraint.parse("bops_ratio <= 0.004"),)), "set 'ends' to 0"),
        (lambda: amc(objectives=(Objective("macs"),)), "nothing says how well a network does its task"),
        (lambda: haq(low=8, high=8), "low: haq: must be below high"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(make, reason):
    with pytest.raises(SpecError, match=reason):
        make()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("amc", {"variant": "book"}, "variant: must be one of code, paper, not 'book'"),
        ("amc", {"reward": "top1"}, "reward: must be one of accuracy, error_macs, error_params"),
        ("haq", {"replay": "all"}, "replay: must be one of executed, proposed, not 'all'"),
        ("amc", {"lower": 1.0}, "lower: must be at least 0 and below 1, not 1.0"),
        ("haq", {"ends": 33}, "ends: must be from 0 to 32, not 33"),
        ("amc", {"decay": 0.0}, "decay: must be above 0 and at most 1, not 0.0"),
        ("haq", {"warmup": -1}, "warmup: must be from 0 to 1,000,000, not -1"),
        ("amc", {"episodes": 0}, "episodes: must be from 1 to 10,000, not 0"),
        ("amc", {"hidden": 10**9}, "hidden: must be from 1 to 4,096, not 1000000000"),
    ],
)
def test_a_setting_out_of_range_is_refused(name, wrong, message):
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.{message}"):
        member(name, PRUNING if name == "amc" else QUANTIZING, TASK, HALF, 0, **wrong)


@pytest.mark.parametrize("made", [amc, haq])
def test_it_learns_to_be_better_than_its_own_random_episodes(made):
    """Over three seeds: what the last episodes reach at worst is above what random ones reach at best."""
    learned = [np.mean(reached(run(made(seed, warmup=12, decay=0.9, batch=32), 45))[-10:]) for seed in range(3)]
    drawn = [np.mean(reached(run(made(seed, warmup=1000), 33))) for seed in range(3)]
    assert min(learned) > max(drawn), (learned, drawn)
