"""Policies and spaces: canonical text, the way through the unit cube, and what is refused."""

import hashlib
import itertools
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Site
from automc.core.rules import Rule, nearest, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import OutOfSpace, SpecError
from automc.operators import OPERATORS, ORDER


def table(count: int = 4) -> LayerTable:
    layers = tuple(
        Layer(
            f"block{i}.conv",
            i,
            "conv" if i else "depthwise",
            8,
            8,
            (3, 3),
            (1, 1),
            (8, 4, 4),
            576,
            9216,
            f"block{i}.conv",
        )
        for i in range(count - 1)
    )
    last = Layer("head", count - 1, "linear", 8, 10, (), (), (10,), 90, 80, reason="is the network's output")
    groups = tuple(Group(layer.name, 8, (layer.name,), ()) for layer in layers)
    return LayerTable((*layers, last), groups, (8, 4, 4))


def space(*rules: Rule) -> SearchSpace:
    return resolve(rules, ORDER, table(), OPERATORS)


PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)})
BITS = Rule("quantize", {"weight_bits": Choice((2, 3, 4, 8)), "activation_bits": Choice((8,))})
KD = Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True), "kd_alpha": Real(0.0, 1.0)})
JOINT = space(PRUNE, BITS, KD)


def test_canonical_json_does_not_depend_on_the_order_of_entry():
    sites = [Site("b", "x", "s"), Site("a", "y", "s"), Site("a", "x", "t")]
    texts = {Policy(dict.fromkeys(order, 1)).to_json() for order in itertools.permutations(sites)}
    assert texts == {'{"a":{"x":{"t":1},"y":{"s":1}},"b":{"x":{"s":1}}}'}
    assert Policy({sites[0]: 1}).fingerprint == hashlib.sha256(b'{"b":{"x":{"s":1}}}').hexdigest()


@given(
    st.dictionaries(
        st.tuples(st.text(), st.text(), st.text()),
        st.one_of(st.integers(), st.text(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_policy_json_round_trip(values):
    policy = Policy({Site(*site): value for site, value in values.items()})
    again = Policy.from_json(policy.to_json())
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.fingerprint == policy.fingerprint


@pytest.mark.parametrize("value", [math.nan, math.inf, None, [1]])
def test_policy_refuses_what_is_no_value(value):
    with pytest.raises(SpecError, match=r"a\(b\)\.c must be a finite number"):
        Policy({Site("a", "b", "c"): value})


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 1}', '{"a": {"b": 3}}'])
def test_policy_refuses_other_json(text):
    with pytest.raises(SpecError, match=r"policy: (not|must be) \{operator"):
        Policy.from_json(text)


def cubes(of: SearchSpace):
    return st.lists(st.floats(0, 1), min_size=len(of), max_size=len(of))


@given(cubes(JOINT))
def test_every_point_of_the_cube_is_a_policy_and_comes_back(cube):
    policy = JOINT.decode(cube)
    again = JOINT.decode(JOINT.encode(policy))
    for site, value in policy.items():
        assert again[site] == pytest.approx(value)
    assert JOINT.policy(policy) == policy


def test_stepped_and_chosen_values_are_reached_in_equal_shares():
    domain = Real(0.0, 0.8, step=0.1)
    counts = [sum(domain.decode((i + 0.5) / 900) == value for i in range(900)) for value in domain.values(0)]
    assert domain.size == 9
    assert counts == [100] * 9
    assert domain.values(0) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_log_range_spreads_over_the_logarithm():
    assert Real(1.0, 100.0, log=True).decode(0.5) == pytest.approx(10.0)
    assert Real(1.0, 100.0, log=True).encode(10.0) == pytest.approx(0.5)


def test_size_is_the_product():
    assert space(BITS).size == 4**4
    assert JOINT.size == math.inf


@pytest.mark.parametrize("cube", [[], [0.5], [math.nan] * len(JOINT), [1.5] * len(JOINT)])
def test_cube_of_another_shape_is_refused(cube):
    with pytest.raises(OutOfSpace, match="coordinates in"):
        JOINT.decode(cube)


def test_values_outside_are_refused_with_the_site_and_what_is_allowed():
    good = dict(JOINT.decode([0.5] * len(JOINT)))
    site = Site("quantize", "head", "weight_bits")
    with pytest.raises(OutOfSpace, match=r"quantize\(head\)\.weight_bits = 7 is outside \{2, 3, 4, 8\}"):
        JOINT.policy(good | {site: 7})
    with pytest.raises(OutOfSpace, match="has no value"):
        JOINT.policy({s: v for s, v in good.items() if s != site})
    with pytest.raises(OutOfSpace, match="is no decision"):
        JOINT.policy(good | {Site("prune", "nowhere", "prune_ratio"): 0.1})


def test_fixed_settings_are_in_every_policy_but_no_decision():
    site = Site("quantize", "head", "activation_bits")
    assert site not in {d.site for d in JOINT.decisions}
    assert JOINT.decode([0.0] * len(JOINT))[site] == 8


def test_without_training_distillation_settings_do_not_count():
    policy = JOINT.decode([0.3] * len(JOINT))
    assert JOINT.effective(policy, trains=True) == policy
    assert not JOINT.effective(policy, trains=False).settings("distill")
    assert JOINT.effective(policy, trains=False).settings("prune") == policy.settings("prune")


def test_a_later_rule_replaces_an_earlier_one():
    last = Rule("quantize", {"weight_bits": Choice((8,))}, indices=(-1,))
    fixed = space(BITS, last).fixed
    assert fixed[Site("quantize", "head", "weight_bits")] == 8


def test_selectors_combine():
    rule = Rule("quantize", {"weight_bits": Choice((2, 4))}, layers=("block*",), exclude=("block1*",), kinds=("conv",))
    assert [d.site.layer for d in space(rule).decisions] == ["block2.conv"]
    indexed = Rule("quantize", {"weight_bits": Choice((2, 4))}, indices=(0, -1))
    assert [d.site.layer for d in space(indexed).decisions] == ["block0.conv", "head"]


def test_an_index_beyond_the_model_matches_nothing():
    with pytest.raises(SpecError, match=r"rule 1: quantize: .* index .9. matches no layer"):
        space(Rule("quantize", {"weight_bits": Choice((2, 4))}, indices=(9,)))


def test_a_glob_that_matches_nothing_gets_the_nearest_name():
    with pytest.raises(SpecError, match=r"rule 2: .*blok1.conv.*did you mean 'block1.conv'"):
        space(BITS, Rule("quantize", {"weight_bits": Choice((2, 4))}, layers=("blok1.conv",)))


def test_a_space_without_decisions_is_refused():
    with pytest.raises(SpecError, match="nothing to decide"):
        space(Rule("quantize", {"weight_bits": Choice((8,))}))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Real(1.0, 0.0), "low <= high"),
        (lambda: Real(0.0, 1.0, log=True), "low > 0"),
        (lambda: Real(0.0, 1.0, step=2.0), "step must be"),
        (lambda: Real(1.0, 2.0, step=0.1, log=True), "not both"),
        (lambda: Real(math.nan, 1.0), "finite"),
        (lambda: Choice(()), "at least one"),
        (lambda: Choice((1, 1)), "once"),
    ],
)
def test_impossible_domains_are_refused(build, message):
    with pytest.raises(SpecError, match=message):
        build()


def test_nearest_is_silent_about_strangers():
    assert nearest("prunee", OPERATORS) == ", did you mean 'prune'?"
    assert nearest("xyzzy", OPERATORS) == ""


def test_study_spec_survives_json():
    spec = StudySpec(
        "s",
        ModelSpec("digits_net"),
        Part("digits"),
        (PRUNE, BITS, KD),
        ORDER,
        (Objective("top1"), Objective("size_bytes")),
        (Constraint.parse("macs_ratio <= 0.5"),),
        rungs=(Rung(), Rung(100, 0.5)),
    )
    assert StudySpec.from_data(json.loads(json.dumps(spec.to_data()))) == spec


def test_layer_table_survives_json():
    assert LayerTable.from_data(json.loads(json.dumps(table().to_data()))) == table()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs_ratio < 0.5", "must read"),
        ("mac_ratio <= 0.5", "did you mean 'macs_ratio'"),
        ("macs <= nan", "finite number"),
        ("macs <= x", "finite number"),
    ],
)
def test_constraints_that_are_none(text, message):
    with pytest.raises(SpecError, match=message):
        Constraint.parse(text)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["<=", ">="]))
def test_violation_is_zero_exactly_where_the_constraint_holds(value, bound, sign):
    constraint = Constraint("macs", sign, bound)
    assert (constraint.violation({"macs": value}) == 0) == (value <= bound if sign == "<=" else value >= bound)
    assert constraint.violation({}) == math.inf


def test_a_policy_of_canonical_text_is_the_same_and_is_read_when_it_is_asked():
    whole = Policy({Site("quantize", "ä.1", "weight_bits"): 4, Site("prune", "conv1", "prune_ratio"): 0.5})
    lazy = Policy.canonical(whole.to_json())
    assert (lazy == whole, hash(lazy) == hash(whole), lazy.fingerprint) == (True, True, whole.fingerprint)
    assert lazy._decoded is None
    assert list(pickle.loads(pickle.dumps(lazy)).items()) == list(lazy.items()) == list(whole.items())
    with pytest.raises(SpecError, match=r"policy: (not|must be) \{operator"):
        len(Policy.canonical("{]"))
