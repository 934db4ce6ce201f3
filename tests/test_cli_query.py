"""Asking the trial database from the command line and from Python: pages, columns, SQL, old fronts, broken filters."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest
from calling import Call, calling

from automc.app import runs
from automc.app.study import Study
from automc.cli import main
from automc.core.pareto import front
from automc.errors import SpecError
from automc.stores.paging import Listing

STUDY = """\
model: digits_net
data: digits
evaluator: {name: synthetic, settings: {layers: 6, fail: {nan: 0.1, oom: 0.05}}}
space:
  rules:
    - {operator: prune, settings: {prune_ratio: {low: 0, high: 0.7, step: 0.1}}}
    - {operator: quantize, settings: {weight_bits: [2, 3, 4, 6, 8], activation_bits: 8}}
objectives: {top1: maximize, size_ratio: minimize}
constraints: [macs_ratio <= 0.8]
proposer: random
budget: {trials: 25}
workers: {count: 0}
seed: 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database in which a study of 25 trials is finished."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "demo.yaml").write_text(STUDY)
    assert main(["search", str(folder / "demo.yaml"), "--storage", str(folder / "automc.db")]) == 0
    return folder


@pytest.fixture
def study(home: Path) -> Study:
    return runs.open_study("demo", str(home / "automc.db"))


@pytest.fixture
def call(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return calling(home, capsys, monkeypatch)


@pytest.mark.parametrize("as_json", [True, False])
def test_pages_go_on_with_the_cursor_that_the_last_one_ended_with(call: Call, study: Study, as_json: bool) -> None:
    whole = study.trials(sort=("-top1", "size_ratio"))["number"].tolist()
    seen: list[int] = []
    words, cursor = ["trials", "demo", "--sort=-top1,size_ratio", "--limit", "7", "--columns", "number"], ""
    for _ in range(4):
        after = ["--after", cursor] if cursor else []
        form = ["--json"] if as_json else ["--format", "csv"]
        code, out, err = call(*words, *after, *form)
        assert code == 0
        told = re.search(r"the same command with --after (\S+)", err)
        if as_json:
            seen += [row["number"] for row in json.loads(out)["trials"]]
            assert json.loads(out)["after"] == (told.group(1) if told else None)
        else:
            seen += pd.read_csv(io.StringIO(out))["number"].tolist()
        cursor = told.group(1) if told else ""
    assert (seen, cursor) == (whole, "")


def test_columns_and_json_lines(call: Call, study: Study) -> None:
    code, out, _ = call("trials", "demo", "--columns", "trial, top1,twin", "--format", "jsonl", "--where", "trial < 4")
    frame = study.trials(where="trial < 4", columns=["trial", "top1", "twin"])
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [list(row) for row in rows] == [["trial", "top1", "twin"]] * 4
    assert [row["top1"] for row in rows] == [None if value != value else value for value in frame["top1"]]
    _, out, _ = call("trials", "demo", "--columns", "top1,state", "--limit", "1")
    assert out.split()[:2] == ["top1", "state"]


def test_a_filter_knows_the_study_s_settings(call: Call, study: Study) -> None:
    rows = study.trials(where='all layer("*").weight_bits >= 3 and not layer("*").prune_ratio > 0.6')
    expected = [
        trial.number
        for trial in study.records()
        if all(v >= 3 for s, v in trial.policy.items() if s.setting == "weight_bits")  # type: ignore[operator]
        and all(v <= 0.6 for s, v in trial.policy.items() if s.setting == "prune_ratio")  # type: ignore[operator]
    ]
    assert rows["number"].tolist() == expected
    code, _, err = call("trials", "demo", "--where", 'layer("*").weight_bit < 3')
    assert (code, "column 1: 'weight_bit' is no setting of a layer, did you mean 'weight_bits'" in err) == (2, True)


def test_sql_from_the_command_line_and_from_python(call: Call, study: Study, home: Path) -> None:
    sql = "SELECT trial, top1 FROM front WHERE study = 'demo' ORDER BY trial"
    frame = study.query(sql)
    assert frame["trial"].tolist() == sorted(trial.number for trial in study.front())
    code, out, err = call("query", sql, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"rows": frame.to_dict("records"), "more": False}
    assert call("query", sql, "--format", "parquet", "-o", "front.parquet")[0] == 0
    assert pd.read_parquet(home / "front.parquet").equals(frame)
    code, out, err = call("query", "SELECT trial FROM trials", "--rows", "2", "--format", "jsonl")
    assert (code, out) == (0, '{"trial": 0}\n{"trial": 1}\n')
    assert err == "automc: cut after 2 rows; there are more (--rows)\n"
    assert study.query("SELECT trial FROM trials", rows=2).attrs["more"] is True
    assert call("query", "SELECT trial FROM trials WHERE trial < 0")[1] == "no rows\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["DROP TABLE automc_trial"], "automc: query: only SELECT"),
        (["SELECT tpo1 FROM trials"], "did you mean 'top1'"),
        (["WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n) SELECT max(i) FROM n", "--seconds", "0.2"],
         "ended after 0.2 s"),
        (["SELECT 1", "--rows", "0"], "automc query: Invalid value for '--rows'"),
        (["SELECT 1 AS x UNION SELECT 'a'", "--format", "parquet", "-o", "x"], "format parquet: "),
    ],
)  # fmt: skip
def test_sql_that_fails_is_one_line(call: Call, words: list[str], said: str) -> None:
    code, out, err = call("query", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_the_front_as_it_was(call: Call, study: Study) -> None:
    spec, order = study.spec, study.store.finishing("demo")
    for place in (0, 1, 5, 12, len(order)):
        known = [trial for trial in study.records() if trial.number in order[:place]]
        expected = [trial.number for trial in front(known, spec.objectives, spec.constraints)]
        assert study.pareto(at=place)["number"].tolist() == expected
    code, out, _ = call("pareto", "demo", "--at", "5", "--json")
    assert (code, [row["number"] for row in json.loads(out)]) == (0, study.pareto(at=5)["number"].tolist())
    assert call("pareto", "demo", "--at", "5", "--pick", "max:top1")[0] == 0
    code, _, err = call("pareto", "demo", "--at", "26")
    assert (code, err) == (2, "automc: study 'demo': 25 trials have finished; its front at 26 is not known\n")


GOOD = [
    "top1 >= 0.95 and (size_ratio < 0.2 or not state in (failed, stopped))",
    'all layer("layer_1*").weight_bits < 4 or any layer("*").prune.prune_ratio in (0, 0.5)',
    "twin is null and fingerprint != 7ac1 and trial not in (3, 5)",
    "reason == oom or top1_error > 1e-3 and seconds is not null",
]
BAD = ["'", '"', ";", "--", "/*", ")", "((", "DROP TABLE automc_trial", "' OR 1=1 --", "\x00", "\ud800", "é", "%s"]
BAD += [":a", "?", "{}", "\\", "`", "==", "= 1", "not", "in", "is", "layer(", ".", "1e", "$", "\n", "null", "any", ",,"]


def broken(seed: int) -> str:
    """A filter with one to three of its pieces doubled, dropped, swapped or replaced by what does not belong there."""
    draw = random.Random(seed)
    pieces = re.findall(r"\"[^\"]*\"|\w+|[^\w\s]+|\s+", draw.choice(GOOD))
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(pieces))
        kind = draw.randrange(4)
        if kind == 0:
            pieces.insert(place, draw.choice(BAD))
        elif kind == 1:
            pieces[place] = draw.choice(BAD)
        elif kind == 2 and len(pieces) > 1:
            del pieces[place]
        else:
            pieces[place] = "".join(draw.sample(pieces[place], len(pieces[place])))
    return "".join(pieces)


def test_three_hundred_broken_filters(call: Call, study: Study) -> None:
    """Each is told in one line that points into its text; none reaches the database as SQL."""
    before, told = study.trials(), 0
    for seed in range(1000):
        text = broken(seed)
        try:
            study.store.page("demo", Listing(text, columns=("number",)))
        except SpecError as error:
            said, told = str(error), told + 1
            assert re.fullmatch(r"filter[^\n]*, column \d+: [^\n]+", said), text
            assert 1 <= int(re.findall(r"column (\d+): ", said)[0]) <= len(text) + 1, text
            if told % 15 == 0 and "\ud800" not in text:  # the whole way takes long, and no terminal can type that
                assert call("trials", "demo", f"--where={text}") == (2, "", f"automc: {said}\n")
        if told == 300:
            break
    assert told == 300
    assert study.trials().equals(before)
