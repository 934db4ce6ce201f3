"""A study whose order of operators is a decision, through files, database, twins, extension and reports."""

import json
from pathlib import Path

import pytest
from test_runs import given

from automc.app import report, runs, space_report
from automc.app.config import check_space, read_study
from automc.app.writer import to_yaml
from automc.core.layers import Block, Layer, LayerTable
from automc.core.order import SITE
from automc.core.policy import Policy, Site
from automc.core.search import Ending
from automc.core.space import SearchSpace
from automc.core.trial import Measurement, Trial, TrialState
from automc.errors import SpecError

ORDERS = [["prune", "quantize", "distill"], ["prune", "distill", "quantize"]]
SPACE = {
    "order": ORDERS,
    "rules": [
        {"operator": "prune", "settings": {"prune_ratio": [0.0, 0.5]}},
        {"operator": "quantize", "settings": {"weight_bits": [2, 8], "activation_bits": 8}},
        {"operator": "distill", "settings": {"kd_temperature": 4.0, "kd_alpha": 0.5}},
    ],
}
RUNGS = [{"steps": 0}, {"steps": 5}]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "studies.db")


def test_orders_are_searched_stored_and_told_again(storage: str) -> None:
    study = runs.start(given(storage, space=SPACE, rungs=RUNGS, budget={"trials": 24}))
    assert study.run() is Ending.DONE
    study.close()
    again = runs.extend("s", 8, "nsga2", storage)
    assert again.run() is Ending.DONE
    records = again.records()
    assert [t.number for t in records] == list(range(32))
    assert {t.policy[SITE] for t in records} == {" ".join(order) for order in ORDERS}
    assert {t.policy[SITE] for t in records[24:]} <= {" ".join(order) for order in ORDERS}
    assert all(t.state is TrialState.COMPLETE for t in records)
    again.close()


def test_policies_of_two_orders_are_no_twins(storage: str) -> None:
    """At rung 0 alpha does not count, but an order does: quantized before it is pruned is another network."""
    study = runs.start(given(storage, space=SPACE, rungs=RUNGS, budget={"trials": 30}, proposer="random"))
    study.run()
    first = [t for t in study.records() if t.rung == 0]
    for trial in first:
        if trial.twin is not None:
            assert first[trial.twin].policy[SITE] == trial.policy[SITE]
    study.close()


def test_what_is_written_reads_back_with_its_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = given("x.db", space=SPACE, rungs=RUNGS)
    assert file.spec.order == tuple(ORDERS[0])
    assert file.spec.orders == tuple(tuple(order) for order in ORDERS)
    text = to_yaml(file.spec)
    assert "  order: [[prune, quantize, distill], [prune, distill, quantize]]\n" in text
    Path("s.yaml").write_text(text)
    assert read_study(Path("s.yaml")).spec == file.spec
    single = read_study(Path("s.yaml"), ["space.order=[prune, quantize, distill]"]).spec
    assert (single.order, single.orders) == (tuple(ORDERS[0]), ())


def test_a_list_of_one_order_is_that_order() -> None:
    spec = given("x.db", space=SPACE | {"order": ORDERS[1:]}, rungs=RUNGS).spec
    assert (spec.order, spec.orders) == (tuple(ORDERS[1]), ())


LAYERS = tuple(
    Layer(name, i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 580, 9216)
    for i, name in enumerate(("stem", "body.0.a", "body.0.b", "head"))
)
TABLE = LayerTable(LAYERS, (), (8, 4, 4), blocks=(Block("body.0", ("body.0.a", "body.0.b"), 1160, 18432),))


def dropping() -> SearchSpace:
    rules = [{"operator": "drop"}, {"operator": "quantize", "settings": {"weight_bits": [2, 8]}}]
    space = {"order": [["drop", "quantize"], ["quantize", "drop"]], "rules": rules}
    return check_space(given("x.db", space=space), TABLE)


def test_a_space_is_printed_with_its_orders_and_its_blocks() -> None:
    text = space_report.space_text(dropping())
    assert "operators are applied in one of the orders drop, quantize; quantize, drop" in text
    assert "drop quantize" not in text, "the last line says it"
    rows = {(row["operator"], row["setting"]): row for row in space_report.space_data(dropping())["domains"]}
    assert rows["drop", "dropped"] == {
        "operator": "drop",
        "setting": "dropped",
        "domain": "{false, true}",
        "decisions": 1,
    }
    assert rows["order", "order"]["domain"] == "{drop quantize, quantize drop}"
    assert json.loads(json.dumps(dropping().to_data()))["decisions"][-1] == [
        "order",
        "*",
        "order",
        "{drop quantize, quantize drop}",
    ]
    (block,) = space_report.block_rows(TABLE)
    assert (block["block"], block["params %"], block["layers"]) == ("body.0", "50.0%", "body.0.a body.0.b")
    assert space_report.layers_text(TABLE).count("body.0.a body.0.b") == 1


def test_a_trial_is_printed_with_its_order_and_what_became_of_its_blocks() -> None:
    bits = {Site("quantize", name, "weight_bits"): 2 for name in ("stem", "body.0.a", "body.0.b", "head")}
    policy = Policy({SITE: "quantize drop", Site("drop", "body.0", "dropped"): True} | bits)
    gone = {name: {"dropped": True} for name in ("body.0", "body.0.a", "body.0.b")}
    realized = {"stem": {"weight_bits": 2}, "head": {"weight_bits": 2}, **gone}
    trial = Trial(3, policy, "", TrialState.COMPLETE, 0, Measurement({"top1": 0.5}, realized), attempts=1)
    rows = {row["layer"]: row for row in report.policy_rows(trial, TABLE)}
    assert [rows[name]["dropped"] for name in ("stem", "body.0.a", "body.0.b", "head")] == [None, True, True, None]
    text = report.trial_text(trial, TABLE, {})
    assert "order  quantize drop" in text


def test_the_block_a_rule_names_must_exist() -> None:
    space = {"rules": [{"operator": "drop", "layers": ["stem", "body.7"]}]}
    with pytest.raises(SpecError, match=r"drop: the model has no block or layer 'body\.7', did you mean 'body\.0"):
        check_space(given("x.db", space=space), TABLE)
    with pytest.raises(SpecError, match=r"drop: layers \['stem'\] matches no block of the model"):
        check_space(given("x.db", space={"rules": [{"operator": "drop", "layers": "stem"}]}), TABLE)
