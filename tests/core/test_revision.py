"""What of older revisions still counts: policies in the words of another space, metrics, verdicts."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.order import SITE
from automc.core.policy import Policy, Site
from automc.core.revision import Meaning, Reading
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.core.trial import EXCLUDED, Trial, TrialState
from automc.operators import OPERATORS

LAYERS = tuple(Layer(f"c{i}", i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 584, 9216, f"c{i}") for i in range(3))
GROUPS = tuple(Group(f"c{i}", 8, (f"c{i}",), (f"c{i + 1}",)) for i in range(2))
TABLE = LayerTable(LAYERS, GROUPS, (8, 4, 4))
ORDER = ("prune", "sparsify", "quantize", "distill")

PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, 0.1)})
BITS = Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((8,))})
DISTILL = Rule("distill", {"kd_temperature": Real(1.0, 10.0), "kd_alpha": Real(0.5, 1.0)})


def space(*rules, order=ORDER, orders=()):
    return resolve(rules, order, TABLE, OPERATORS, orders)


def spec(*rules, **more):
    said = {"objectives": (Objective("top1"), Objective("size_bytes")), "rungs": (Rung(0), Rung(10)), "order": ORDER}
    return StudySpec("s", ModelSpec("m"), Part("d"), tuple(rules), **(said | more))


def policy(ratio=0.0, bits=8, **more):
    values = {Site("prune", f"c{i}", "prune_ratio"): ratio for i in range(2)}
    values |= {Site("quantize", f"c{i}", "weight_bits"): bits for i in range(3)}
    values |= {Site("quantize", f"c{i}", "activation_bits"): 8 for i in range(3)}
    return Policy(values)


def trial(number, pol=None, metrics=None, **more):
    measured = Measurement({"top1": 0.9, "size_bytes": 100.0} if metrics is None else metrics, seconds=2.0)
    given_ = {"policy": pol or policy(), "memo": "m", "state": TrialState.COMPLETE, "measurement": measured}
    return Trial(number, **(given_ | more))


def meant(pol, target, trains=False, order=ORDER):
    return Meaning(pol, order, trains, OPERATORS).within(target)


def test_a_policy_of_the_same_words_is_the_same():
    assert meant(policy(0.3, 4), space(PRUNE, BITS)) == policy(0.3, 4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_narrower_domain_keeps_exactly_what_it_holds(bits):
    narrow = Rule("quantize", {"weight_bits": Choice((4, 8)), "activation_bits": Choice((8,))})
    found = meant(policy(0.3, bits), space(PRUNE, narrow))
    if bits == 2:
        assert found == "quantize(c0).weight_bits = 2 is not in {4, 8}"
    else:
        assert found == policy(0.3, bits)


def test_nothing_is_moved_to_the_nearest_value():
    coarse = Rule("prune", {"prune_ratio": Real(0.0, 0.8, 0.2)})
    assert meant(policy(0.4), space(coarse, BITS)) == policy(0.4)
    assert meant(policy(0.3), space(coarse, BITS)) == "prune(c0).prune_ratio = 0.3 is not in 0..0.8 step 0.2"


def test_a_new_operator_takes_its_neutral_value_and_what_is_idle_takes_any():
    sparsify = Rule("sparsify", {"sparsity": Real(0.0, 0.5, 0.1), "method": Choice(("wanda", "obs"))})
    found = meant(policy(0.3, 4), space(PRUNE, BITS, sparsify))
    assert {s: v for s, v in found.items() if s.operator != "sparsify"} == dict(policy(0.3, 4))
    assert {found[Site("sparsify", f"c{i}", "sparsity")] for i in range(3)} == {0.0}
    assert found[Site("sparsify", "c0", "method")] in ("wanda", "obs"), "no zeros: the method says nothing"
    forced = Rule("sparsify", {"sparsity": Real(0.1, 0.5, 0.1)})
    assert (
        meant(policy(0.3, 4), space(PRUNE, BITS, forced)) == "sparsify(c0).sparsity = 0.0 is not in 0.1..0.5 step 0.1"
    )


def test_a_decision_that_is_gone_must_have_been_neutral():
    assert meant(policy(0.3), space(BITS)) == "prune(c0).prune_ratio = 0.3 is not decided there"
    assert meant(policy(0.0), space(BITS)) == Policy({s: v for s, v in policy().items() if s.operator == "quantize"})


def test_without_training_what_needs_it_says_nothing():
    distilled = space(PRUNE, BITS, DISTILL)
    untrained = meant(policy(0.3), distilled)
    assert untrained[Site("distill", "*", "kd_alpha")] == 0.5
    assert meant(policy(0.3), distilled, trains=True) == "distill(*).kd_alpha = 0.0 is not in 0.5..1"
    back = Policy({**untrained, Site("distill", "*", "kd_alpha"): 0.7})
    assert meant(back, space(PRUNE, BITS)) == policy(0.3)
    assert meant(back, space(PRUNE, BITS), trains=True) == "distill(*).kd_alpha = 0.7 is not decided there"


def test_an_order_counts_among_the_operators_that_do_something():
    other = ("quantize", "prune", "sparsify", "distill")
    assert meant(policy(0.3), space(PRUNE, BITS, order=other)) == "its operators were applied in another order"
    assert meant(policy(0.0), space(PRUNE, BITS, order=other)) == policy(0.0)
    decided = meant(policy(0.3), space(PRUNE, BITS, orders=(other, ORDER)))
    assert decided[SITE] == " ".join(ORDER)
    assert meant(decided, space(PRUNE, BITS), order=other) == policy(0.3), "the policy says its order itself"


def test_where_a_network_trains_the_place_of_the_repair_counts():
    bare, early = ("prune", "quantize"), ("prune", "distill", "quantize")
    assert meant(policy(0.3), space(PRUNE, BITS), trains=True, order=bare) == policy(0.3), "the repair was last"
    said = meant(policy(0.3), space(PRUNE, BITS, order=early), trains=True, order=bare)
    assert said == "its operators were applied in another order"


def reading(*specs, trials=()):
    last = specs[-1]
    return Reading(specs, lambda: space(*last.rules, order=last.order, orders=last.orders), trials, OPERATORS)


def test_without_a_change_trials_are_read_as_they_are():
    first = spec(PRUNE, BITS)
    read = reading(first, replace(first, revision=1, first_trial=5, proposer=Part("nsga2")))
    assert read.changeless
    assert all(read(t) is t for t in (trial(0), trial(9), trial(3, state=TrialState.FAILED, measurement=None)))


def test_each_trial_is_read_from_the_revision_it_belongs_to():
    wide = spec(PRUNE, BITS)
    narrow = replace(wide, rules=(PRUNE, replace(BITS, settings={**BITS.settings, "weight_bits": Choice((4, 8))})))
    specs = [wide, replace(narrow, revision=1, first_trial=2), replace(wide, revision=2, first_trial=4)]
    trials = [trial(0, policy(0.1, 2)), trial(2, policy(0.1, 4)), trial(4, policy(0.1, 2))]
    read = reading(*specs, trials=trials)
    assert not read.changeless
    assert read(trials[0]) is trials[0]
    assert read(trials[2]) is trials[2]
    assert read(trials[1]) == replace(trials[1], memo="", measurement=read(trials[1]).measurement)
    gone = reading(*specs[:2], trials=trials[:2])(trials[0])
    assert (gone.state, gone.reason, gone.measurement) == (TrialState.FAILED, EXCLUDED, None)
    assert gone.message == "outside this space: quantize(c0).weight_bits = 2 is not in {4, 8}"


def test_a_metric_that_is_needed_and_was_not_measured_excludes():
    old = spec(PRUNE, BITS)
    new = replace(old, objectives=(Objective("top1"), Objective("latency_ms")), revision=1, first_trial=9)
    read = reading(old, new)
    assert read(trial(0)).message == "without latency_ms: it was not measured then"
    assert read(trial(1, metrics={"top1": 0.5, "latency_ms": 3.0})).measurement.metrics["latency_ms"] == 3.0
    timed = replace(old, constraints=(Constraint.parse("seconds <= 3"),), revision=1, first_trial=9)
    assert reading(old, timed)(trial(0)).measurement.metrics["seconds"] == 2.0, "every measurement has its time"


def test_a_verdict_of_hopelessness_holds_only_while_its_rivals_and_aims_do():
    old = spec(PRUNE, BITS)
    best, poor = trial(0, policy(0.1, 2)), trial(1, policy(0.5, 8), state=TrialState.STOPPED, reason="dominated")
    wider = replace(old, rules=(PRUNE, replace(BITS, settings={**BITS.settings, "weight_bits": Choice((2, 3, 4, 8))})))
    narrow = replace(old, rules=(PRUNE, replace(BITS, settings={**BITS.settings, "weight_bits": Choice((4, 8))})))
    strict = replace(old, constraints=(Constraint.parse("macs_ratio <= 0.5"),))
    after = {"revision": 1, "first_trial": 2}
    assert reading(old, replace(wider, **after), trials=[best, poor])(poor).hopeless
    for changed in (narrow, strict):
        read = reading(old, replace(changed, **after), trials=[best, poor])
        assert read(poor).message == "ended early: as dominated, which this revision may judge otherwise"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=2, max_size=2),
    st.lists(st.sampled_from([2, 8]), min_size=3, max_size=3),
    st.sets(st.sampled_from([0.0, 0.1, 0.5]), min_size=1),
    st.sets(st.sampled_from([2, 8, 32]), min_size=1),
)
def test_what_is_kept_means_the_same_and_comes_back_as_it_was(ratios, bits, some_ratios, some_bits):
    """A law: into another space and back is where one began, and what leaves is named."""
    old = space(
        Rule("prune", {"prune_ratio": Choice((0.0, 0.1, 0.5))}), Rule("quantize", {"weight_bits": Choice((2, 8, 32))})
    )
    new = space(
        Rule("prune", {"prune_ratio": Choice((*some_ratios, 0.7))}),
        Rule("quantize", {"weight_bits": Choice((*some_bits, 5))}),
    )
    values = {Site("prune", f"c{i}", "prune_ratio"): ratio for i, ratio in enumerate(ratios)}
    values |= {Site("quantize", f"c{i}", "weight_bits"): b for i, b in enumerate(bits)}
    found = meant(Policy(values), new)
    fits = set(ratios) <= some_ratios and set(bits) <= some_bits
    assert isinstance(found, Policy) == fits
    assert meant(found, old) == Policy(values) if fits else "is not in" in found
