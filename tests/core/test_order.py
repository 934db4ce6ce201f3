"""The order of the operators as a decision, and rules over blocks."""

import json
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automc.core.layers import Block, Layer, LayerTable
from automc.core.order import SITE, choice_fault, fault
from automc.core.policy import Policy, Site
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.study import ModelSpec, Part, StudySpec
from automc.errors import OutOfSpace, SpecError
from automc.operators import OPERATORS, ORDER

ORDERS = (("prune", "quantize", "distill"), ("prune", "distill", "quantize"))
NAMES = ("stem", "body.0.a", "body.0.b", "body.1.a", "body.1.b", "head")
BLOCKS = tuple(Block(f"body.{i}", (f"body.{i}.a", f"body.{i}.b"), 1160, 18432) for i in (0, 1))
TABLE = LayerTable(
    tuple(Layer(n, i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 580, 9216) for i, n in enumerate(NAMES)),
    (),
    (8, 4, 4),
    blocks=BLOCKS,
)
BITS = Rule("quantize", {"weight_bits": Choice((2, 4, 8))})
KD = Rule("distill", {"kd_alpha": Real(0.0, 1.0)})
DROP = {"dropped": Choice((False, True))}


def space(*rules: Rule, orders: tuple[tuple[str, ...], ...] = (), table: LayerTable = TABLE) -> SearchSpace:
    return resolve(rules, orders[0] if orders else ORDER, table, OPERATORS, orders)


@given(st.lists(st.sampled_from(ORDER), max_size=8))
def test_an_order_is_refused_exactly_where_two_places_forbid_it(order):
    """Against every pair of places: the same operator twice, or factors made of what is compressed already."""
    bad = any(
        a == b or (b == "factorize" and a in ("sparsify", "quantize"))
        for i, a in enumerate(order)
        for b in order[i + 1 :]
    )
    assert bool(fault(order, OPERATORS)) == bad


def test_the_default_order_and_all_that_keep_factorize_early_are_legal():
    legal = [order for order in permutations(ORDER) if not fault(order, OPERATORS)]
    assert ORDER in legal
    assert len(legal) == 720 / 3, "factorize is the first of three in a third of all orders"


def test_orders_to_choose_from_must_have_and_differ_in_what_is_used():
    assert choice_fault(ORDERS, ["prune", "quantize", "distill"]) == ""
    assert choice_fault(ORDERS, ["prune", "quantize"]).startswith("orders 1 and 2 are the same")
    assert choice_fault(ORDERS, ["drop"]) == "drop is missing in order 1, though a rule uses it"
    assert choice_fault(ORDERS[:1], ["drop"]) == "drop is missing, though a rule uses it"


def test_the_order_is_an_ordinary_decision():
    found = space(BITS, KD, orders=ORDERS)
    assert found.decisions[-1].site == SITE
    assert found.decisions[-1].domain == Choice(("prune quantize distill", "prune distill quantize"))
    assert found.order == ORDERS[0]
    policies = [found.decode([*[0.5] * (len(found) - 1), u]) for u in (0.0, 1.0)]
    assert [policy[SITE] for policy in policies] == [" ".join(order) for order in ORDERS]
    assert policies[0] != policies[1]
    assert found.policy(policies[1]) == policies[1]
    assert Policy.from_json(policies[1].to_json()) == policies[1]
    assert found.effective(policies[1], trains=False)[SITE] == policies[1][SITE]
    with pytest.raises(OutOfSpace, match=r"order\(\*\)\.order = 'quantize prune' is outside"):
        found.policy(dict(policies[0]) | {SITE: "quantize prune"})


def test_an_order_alone_is_something_to_decide():
    fixed = Rule("quantize", {"weight_bits": Choice((8,))})
    assert len(space(fixed, KD, orders=ORDERS)) == 2
    assert [d.site for d in space(fixed, Rule("distill", {"kd_alpha": Choice((0.5,))}), orders=ORDERS).decisions] == [
        SITE
    ]
    with pytest.raises(SpecError, match="nothing to decide"):
        space(fixed)


def test_a_spec_with_orders_survives_json_and_one_written_before_them_is_read():
    spec = StudySpec("s", ModelSpec("m"), Part("d"), (BITS,), ORDERS[0], (), orders=ORDERS)
    data = json.loads(json.dumps(spec.to_data()))
    assert StudySpec.from_data(data) == spec
    del data["orders"]
    assert StudySpec.from_data(data).orders == ()


def test_a_table_with_blocks_survives_json_and_one_written_before_them_is_read():
    data = json.loads(json.dumps(TABLE.to_data()))
    assert LayerTable.from_data(data) == TABLE
    del data["blocks"]
    assert LayerTable.from_data(data).blocks == ()


@pytest.mark.parametrize(
    ("selectors", "blocks"),
    [
        ({}, ["body.0", "body.1"]),
        ({"layers": ("body.0",)}, ["body.0"]),
        ({"layers": ("body.0.b",)}, ["body.0"]),
        ({"layers": ("stem", "*.1")}, ["body.1"]),
        ({"exclude": ("body.0",)}, ["body.1"]),
        ({"exclude": ("*.a",)}, ["body.0", "body.1"]),
        ({"indices": (-2,)}, ["body.1"]),
        ({"kinds": ("conv",), "indices": (0, 1)}, ["body.0"]),
    ],
)
def test_a_block_is_meant_when_its_name_or_one_of_its_layers_is(selectors, blocks):
    found = space(Rule("drop", DROP, **selectors))
    assert [d.site for d in found.decisions] == [Site("drop", name, "dropped") for name in blocks]


def test_a_block_s_decision_stands_before_those_of_its_layers():
    sites = [(d.site.operator, d.site.layer) for d in space(BITS, Rule("drop", DROP)).decisions]
    assert sites.index(("drop", "body.1")) + 1 == sites.index(("quantize", "body.1.a"))
    assert sites.index(("quantize", "body.0.b")) < sites.index(("drop", "body.1"))


def test_all_blocks_may_be_none_but_a_named_block_must_exist():
    bare = LayerTable(TABLE.layers, (), (8, 4, 4))
    assert {d.site.operator for d in space(BITS, Rule("drop", DROP), table=bare).decisions} == {"quantize"}
    with pytest.raises(
        SpecError, match=r"rule 1: drop: layers \['body.2'\] matches no block .* did you mean 'body.[01]'"
    ):
        space(Rule("drop", DROP, layers=("body.2",)))
    with pytest.raises(SpecError, match=r"drop: layers \['x\*'\] matches no block of the model \(it has: none\)"):
        space(Rule("drop", DROP, layers=("x*",)), table=bare)


def test_yes_and_no_are_values_like_others():
    found = space(Rule("drop", DROP))
    assert str(found.decisions[0].domain) == "{false, true}"
    points = list(product((0.25, 0.75), repeat=2))
    policies = [found.decode(point) for point in points]
    assert [found.encode(policy) for policy in policies] == [list(point) for point in points]
    assert policies[1].to_json() == '{"drop":{"body.0":{"dropped":false},"body.1":{"dropped":true}}}'
    with pytest.raises(OutOfSpace, match="dropped = 1 is outside"):
        found.policy(dict(policies[0]) | {Site("drop", "body.0", "dropped"): 1})
