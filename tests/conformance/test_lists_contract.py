"""Filters over settings, and lists page by page, over every Store: SQL means what Python means."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store_contract import World, new_study, shared  # noqa: F401  (a fixture)

from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.stores import TrialDatabase
from automc.stores.decisions import Vocabulary
from automc.stores.filters import matches, parse
from automc.stores.paging import Listing

NUMBERS = [0.0, 0.5, 1.0, 2.5, -1.0, math.nan, math.inf, -math.inf]
LAYERS = ["conv1", "layer3.0.conv1", "layer3.1.conv2", "fc", "l'ay\"er%"]

Asked = tuple[TrialDatabase, str, list[Trial]]


def random_policy(draw: random.Random) -> Policy:
    """Of one of several layouts; a value may be an integer, a float, a word or a truth."""
    values: dict[Site, Any] = {}
    for layer in LAYERS[: draw.choice([1, 3, 5])]:
        values[Site("quantize", layer, "weight_bits")] = draw.choice([2, 4, 8, -3, 32, "none"])
        values[Site("prune", layer, "prune_ratio")] = draw.choice([0.0, -0.0, 0.25, 0.5, 1e-300, 1e300])
        values[Site("factorize", layer, "method")] = draw.choice(["svd", "cp", "ü"])
    if draw.random() < 0.8:
        values[Site("distill", "*", "kd_temperature")] = draw.choice([1.0, 2.5, 4, 10**400])
    if draw.random() < 0.5:
        values[Site("drop", "*", "dropped")] = draw.random() < 0.5
    return Policy(values)


@pytest.fixture(scope="module")
def asked(shared: World) -> Asked:  # noqa: F811
    """A study of 60 trials in all states, with ties, gaps, NaN and infinities, and policies of several layouts."""
    store, draw = shared.open(), random.Random(11)
    study = new_study(store)
    for number in range(60):
        trial = store.add(study, Proposal(random_policy(draw)), draw.randrange(3))
        if draw.random() < 0.1:
            twin = draw.randrange(number) if number else None
            store.move(study, trial.to(TrialState.COMPLETE, measurement=Measurement({"top1": 0.5}), twin=twin))
            continue
        names = draw.sample(["top1", "loss", "params"], draw.randrange(4))
        errors = {name: draw.choice(NUMBERS) for name in names if name != "params" and draw.random() < 0.7}
        found = Measurement({n: draw.choice(NUMBERS) for n in names}, seconds=draw.choice([0.5, 1.0]), errors=errors)
        running = store.move(study, trial.to(TrialState.RUNNING))
        end = draw.choice([None, "complete", "complete", "stopped", "failed"])
        if end == "failed":
            store.move(study, running.to(TrialState.FAILED, reason=draw.choice(["error", "oom"])))
        elif end:
            store.move(study, running.to(TrialState(end), measurement=found))
    return store, study, list(store.trials(study))


def single_tests() -> st.SearchStrategy[str]:
    signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    equal = st.sampled_from(["==", "!="])
    globs = st.sampled_from(["*", "conv*", "layer3.*", "layer3.?.conv[12]", "fc", "nowhere*", "l'ay*"])
    quantifier = st.sampled_from(["", "any ", "all "])
    numbers = st.sampled_from(["0", "4", "2.5", "-3", "1e999", "-1e999", "1e300"])
    setting = st.sampled_from(["weight_bits", "prune_ratio", "quantize.weight_bits", "method"])
    place = st.tuples(quantifier, globs, setting).map(lambda x: f'{x[0]}layer("{x[1]}").{x[2]}')
    word = st.sampled_from(["svd", '"ü"', "none", "'x'"])
    fingers = st.sampled_from(["0", "7", "a", "ab", '"f"', "1e5"])
    return st.one_of(
        st.tuples(place, signs, numbers).map(" ".join),
        st.tuples(numbers, signs, place).map(" ".join),
        st.tuples(place, equal, word).map(" ".join),
        st.tuples(place, st.sampled_from([" in (4, none)", " not in (2, 8, svd)", " is null", " is not null"])).map(
            "".join
        ),
        st.tuples(st.sampled_from(["kd_temperature", "distill.kd_temperature", "dropped"]), signs, numbers).map(
            " ".join
        ),
        st.sampled_from(["dropped == true", "dropped != false", "kd_temperature is null", "kd_temperature in (1, 4)"]),
        st.sampled_from(
            ["top1", "loss", "twin", "reason", "state", "seconds", "top1_error", "samples", "trial"]
        ).flatmap(lambda name: st.sampled_from([f"{name} is null", f"{name} is not null"])),
        st.tuples(st.sampled_from(["twin", "trial", "number"]), signs, numbers).map(" ".join),
        st.tuples(fingers, equal).map(lambda x: f"fingerprint {x[1]} {x[0]}"),
        st.tuples(fingers, fingers).map(lambda x: f"fingerprint in ({x[0]}, {x[1]})"),
    )


def filters() -> st.SearchStrategy[str]:
    def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        joined = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)
        return st.one_of(joined, joined.map(lambda x: f"({x})"), inner.map(lambda x: f"not ({x})"))

    return st.recursive(single_tests(), wider, max_leaves=5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(where=filters())
def test_a_filter_over_settings_means_in_sql_what_it_means_in_python(asked: Asked, where: str) -> None:
    store, study, trials = asked
    known = Vocabulary(site for trial in trials for site in trial.policy)
    if said := refusal(where, known):
        with pytest.raises(SpecError) as caught:
            store.query(study, where)
        assert str(caught.value) == said
        assert "nowhere" in where or "is a word" in said or "a word knows" in said
        return
    tree = parse(where, known)
    found = [trial.number for trial in store.query(study, where)]
    assert found == [trial.number for trial in trials if matches(tree, trial)]


def refusal(where: str, known: Vocabulary) -> str:
    try:
        parse(where, known)
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ('layer("*").weight_bits < 3', lambda p: any(v in (2, -3) for v in bits(p))),
        ('all layer("*").weight_bits > 3', lambda p: all(not isinstance(v, str) and v > 3 for v in bits(p))),
        ('layer("*").weight_bits == none', lambda p: "none" in bits(p)),
        ('not layer("*").weight_bits != 4', lambda p: all(v == 4 for v in bits(p))),
        ("kd_temperature > 3", lambda p: p.get(Site("distill", "*", "kd_temperature"), 0) > 3),
        ("dropped == true", lambda p: p.get(Site("drop", "*", "dropped")) is True),
        ('layer("fc").method is null', lambda p: Site("factorize", "fc", "method") not in p),
    ],
)
def test_what_a_filter_over_settings_means(asked: Asked, where: str, holds: Any) -> None:
    store, study, trials = asked
    expected = [trial.number for trial in trials if holds(trial.policy)]
    assert [trial.number for trial in store.query(study, where)] == expected
    assert 0 < len(expected) < len(trials)


def bits(policy: Policy) -> list[Any]:
    return [value for site, value in policy.items() if site.setting == "weight_bits"]


SORTS = ["top1", "-top1", "loss", "-loss", "params", "-params", "seconds", "-state", "reason", "-rung", "-top1_error",
         "loss_error", "samples", "twin", "-twin", "fingerprint", "-number", "trial"]  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    sort=st.lists(st.sampled_from(SORTS), max_size=3),
    limit=st.integers(1, 25),
    where=st.sampled_from(["", "", "top1 >= 0.5 or loss is null", "not state == failed"]),
)
def test_pages_one_behind_the_other_are_the_whole_list_sorted(
    asked: Asked, sort: list[str], limit: int, where: str
) -> None:
    store, study, trials = asked
    rows: list[dict[str, Any]] = []
    after, pages = "", 0
    while True:
        page = store.page(study, Listing(where, sort, limit, after))
        rows, after, pages = rows + page.rows, page.after, pages + 1
        assert len(page.rows) == limit or not after
        if not after:
            break
    chosen = [trial for trial in trials if not where or matches(parse(where), trial)]
    assert [row["number"] for row in rows] == [trial.number for trial in in_order(chosen, sort)]
    assert pages == max(1, math.ceil(len(chosen) / limit))


def in_order(trials: list[Trial], sort: list[str]) -> list[Trial]:
    """By one comparison of all keys at once: those without a value last, then in order of number."""

    def rank(trial: Trial) -> list[tuple[bool, float, str]]:
        ranks = []
        for key in sort:
            name, sign = key.removeprefix("-"), -1 if key.startswith("-") else 1
            value = value_in(trial, name)
            lacks = value is None or value != value
            if isinstance(value, str):
                spelled = "".join(chr(0x10FFFF - ord(c)) for c in value) + chr(0x10FFFF) if sign < 0 else value
                ranks.append((lacks, 0.0, spelled))
            else:
                ranks.append((lacks, 0.0 if lacks else sign * value, ""))
        return [*ranks, (False, float(trial.number), "")]

    return sorted(trials, key=rank)


def value_in(trial: Trial, name: str) -> Any:
    if name in ("number", "trial", "rung", "twin", "reason"):
        return getattr(trial, "number" if name == "trial" else name)
    if name in ("state", "fingerprint"):
        return trial.state.value if name == "state" else trial.policy.fingerprint
    measured = trial.measurement
    if measured is None:
        return None
    if name in ("seconds", "samples"):
        return getattr(measured, name)
    return measured.errors.get(name[:-6]) if name.endswith("_error") else measured.metrics.get(name)


def test_columns_are_those_that_were_named_in_their_order(asked: Asked) -> None:
    store, study, trials = asked
    names = ["trial", "top1", "fingerprint", "loss_error", "macs", "twin"]
    page = store.page(study, Listing(columns=names))
    assert [list(row) for row in page.rows] == [names] * len(trials)
    for row, trial in zip(page.rows, trials, strict=True):
        expected = [value_in(trial, name) for name in names]
        assert repr(list(row.values())) == repr(expected)
    whole = store.page(study, Listing(limit=1)).rows[0]
    assert list(whole)[:4] == ["number", "state", "rung", "reason"]
    assert list(whole)[-2:] == ["twin", "fingerprint"]


def test_trials_that_come_between_two_pages_shift_nothing(shared: World) -> None:  # noqa: F811
    store = shared.open()
    study = new_study(store)
    for number in range(6):
        finish(store, study, number % 3)
    first = store.page(study, Listing(sort=("-top1",), limit=3))
    assert [row["number"] for row in first.rows] == [2, 5, 1]
    finish(store, study, 9)
    finish(store, study, 0)
    rest = store.page(study, Listing(sort=("-top1",), after=first.after))
    assert [row["number"] for row in rest.rows] == [4, 0, 3, 7]


def finish(store: TrialDatabase, study: str, value: float) -> None:
    running = store.move(study, store.add(study, Proposal(Policy({})), 0).to(TrialState.RUNNING))
    store.move(study, running.to(TrialState.COMPLETE, measurement=Measurement({"top1": float(value)})))


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (Listing(after="x"), "after: 'x' is no cursor; give the one"),
        (Listing(after="W10"), "after: 'W10' is no cursor"),
        (Listing(after="W1tdLFt0cnVlXV0"), "is no cursor"),
        (Listing(after="ü"), "is no cursor"),
        (Listing(sort=("top1",), after="W1siLXRvcDEiXSxbMC41LDNdXQ"), "sorted by -top1; sort by that"),
        (Listing(sort=("-top1",), after="W1siLXRvcDEiXSxbIngiLDNdXQ"), "is no cursor of this order"),
        (Listing(columns=("tip1",)), "columns: unknown name 'tip1', did you mean 'top1'"),
        (Listing(sort=("tip1",)), "sort: unknown name 'tip1', did you mean 'top1'"),
        (Listing(limit=-1), "limit: 0 or more trials, 2147483647 at most, not -1"),
        (Listing(limit=10**20), "limit: 0 or more trials, 2147483647 at most, not 1000"),
        (Listing("kd_temperatur > 1"), "column 1: unknown name 'kd_temperatur', did you mean 'kd_temperature'"),
        (Listing("rung == 0 or weight_bits < 3"), r'column 14: weight_bits is decided for each layer: write layer\("'),
    ],
)
def test_a_list_that_cannot_be_says_why(asked: Asked, listing: Listing, message: str) -> None:
    store, study, _ = asked
    with pytest.raises(SpecError, match=message):
        store.page(study, listing)


def test_a_filter_that_tests_very_many_decisions_is_answered_or_refused(shared: World) -> None:  # noqa: F811
    store = shared.open()
    study = new_study(store)
    store.add(study, Proposal(Policy({Site("quantize", f"conv{i}", "weight_bits"): 4 for i in range(2500)})), 0)
    assert [t.number for t in store.query(study, 'all layer("*").weight_bits == 4')] == [0]
    assert store.query(study, 'layer("*").weight_bits > 4 and layer("*").weight_bits is not null') == []
    many = " or ".join(['layer("*").weight_bits > 4'] * 5)
    if "Memory" in type(store).__name__:
        assert store.query(study, many) == []
        return
    with pytest.raises(SpecError, match="tests more than 10,000 decisions of a policy; name fewer layers"):
        store.query(study, many)
