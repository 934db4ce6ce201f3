"""The commands that say what a study found, from the command line, on a study whose evaluator is synthetic."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from calling import Call, calling

from automc.cli import main
from automc.core.store import Owner
from automc.stores import open_store

STUDY = """\
model: digits_net
data: digits
evaluator: {name: synthetic, settings: {layers: 5, inputs: 500, fail: {nan: 0.1}}}
space:
  rules:
    - {operator: prune, settings: {prune_ratio: {low: 0, high: 0.7, step: 0.1}}}
    - {operator: quantize, settings: {weight_bits: [2, 4, 8], activation_bits: 8}}
objectives: {top1: maximize, size_ratio: minimize}
proposer: random
budget: {trials: 40}
workers: {count: 0}
seed: 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database in which two studies are finished."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "demo.yaml").write_text(STUDY)
    search = ["search", str(folder / "demo.yaml"), "--storage", str(folder / "automc.db")]
    assert main(search) == 0
    assert main([*search, "--name", "other", "--seed", "4", "--trials", "5"]) == 0
    return folder


@pytest.fixture
def call(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line in ``home``: its exit code, stdout and stderr."""
    return calling(home, capsys, monkeypatch)


def data_of(call: Call, *words: str) -> Any:
    code, out, err = call(*words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def complete(call: Call, name: str) -> list[dict[str, Any]]:
    return list(data_of(call, "trials", name, "--where", "state == complete")["trials"])


def test_two_trials_of_two_studies_are_compared(call: Call) -> None:
    ours, theirs = complete(call, "demo")[0], complete(call, "other")[0]
    refs = f"demo/{ours['number']}", f"other/{theirs['number']}"
    found = data_of(call, "compare", *refs)
    assert (found["first"], found["second"], found["notes"]) == (*refs, [])
    top1 = next(row for row in found["metrics"] if row["metric"] == "top1")
    assert top1["difference"] == pytest.approx(theirs["top1"] - ours["top1"])
    assert top1["error"] == pytest.approx((ours["top1_error"] ** 2 + theirs["top1_error"] ** 2) ** 0.5)
    policies = [data_of(call, "trial", ref)["policy"]["quantize"] for ref in refs]
    bits = {row["layer"]: (row["first"], row["second"]) for row in found["policy"] if row["setting"] == "weight_bits"}
    wanted = {name: tuple(policy[name]["weight_bits"] for policy in policies) for name in policies[0]}
    assert bits == {name: pair for name, pair in wanted.items() if pair[0] != pair[1]}
    assert {row["setting"] for row in found["policy"]} >= {"prune_ratio", "weight_bits"}
    everything = data_of(call, "compare", *refs, "--all")["policy"]
    assert sum(row["setting"] == "activation_bits" for row in everything) == 5
    code, out, _ = call("compare", *refs)
    assert code == 0
    assert " -> " in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["compare", "demo/0", "demo"], 2, "a trial is written NAME/NUMBER"),
        (["compare", "demo/0", "demo/999"], 5, "study 'demo' has no trial 999"),
        (["compare", "demo/0", "othr/0"], 5, "did you mean 'other'"),
        (["importance", "other"], 2, "at least 20 are needed"),
        (["importance", "demo", "--metric", "topp1"], 2, "did you mean 'top1'"),
        (["importance", "demo", "--metric", "miou"], 2, "did not measure miou (it has: "),
        (["report", "demo", "--pick", "nee"], 2, "did you mean 'knee'"),
        (["report", "other", "-o", "no/such/folder.html"], 2, "cannot be written"),
        (["watch", "nobody"], 5, "no study 'nobody'"),
        (["report", "nobody"], 5, "no study 'nobody'"),
    ],
)
def test_mistakes_are_one_line(call: Call, words: list[str], code: int, message: str) -> None:
    found, out, err = call(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_importance_is_a_table_or_json(call: Call) -> None:
    found = data_of(call, "importance", "demo")
    assert found["metric"] == "top1"
    assert sum(row["share"] for row in found["decisions"]) == pytest.approx(1)
    assert sum(found["by_layer"].values()) == pytest.approx(1)
    assert {(row["operator"], row["setting"]) for row in found["decisions"]} == {
        ("prune", "prune_ratio"), ("quantize", "weight_bits")
    }  # fmt: skip
    code, out, _ = call("importance", "demo", "--limit", "2", "--metric", "size_ratio")
    assert code == 0
    assert "of the variance of size_ratio (out-of-bag R^2 0." in out.splitlines()[0]
    assert len([line for line in out.splitlines() if line.startswith(("prune(", "quantize("))]) == 2


def test_a_report_is_a_file_or_text(call: Call, home: Path) -> None:
    code, out, err = call("report", "demo", "-o", "report.html", "--pick", "max:top1")
    assert (code, out, err) == (0, "wrote report.html\n", "")
    page = (home / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    best = data_of(call, "pareto", "demo", "--pick", "max:top1")[0]["number"]
    assert f"Trial {best} on rung 0, picked from the front by the rule max:top1." in page
    assert data_of(call, "report", "demo", "-o", "report.md") == {"study": "demo", "written": "report.md"}
    assert (home / "report.md").read_text().startswith("# Study demo\n")
    code, out, _ = call("report", "demo", "--format", "md")
    written = (home / "report.md").read_text().split("How to repeat it")[0]
    assert (code, out.split("How to repeat it")[0]) == (0, written)
    sections = data_of(call, "report", "demo")["sections"]
    assert [section["title"] for section in sections][:2] == ["What was asked", "The original and the picked model"]


def test_the_study_file_in_a_report_gives_the_same_trials(call: Call, home: Path) -> None:
    fences = data_of(call, "report", "demo")["sections"][-1]["blocks"]
    text = next(block["block"]["text"] for block in fences if "summary" in block)
    (home / "again.yaml").write_text(text)
    assert call("search", "again.yaml", "--storage", "again.db")[0] == 0
    same = [[row["fingerprint"] for row in complete_of(call, db)] for db in ("automc.db", "again.db")]
    assert same[0] == same[1]
    assert len(same[0]) > 30


def complete_of(call: Call, storage: str) -> list[dict[str, Any]]:
    found = data_of(call, "trials", "demo", "--where", "state == complete", "--storage", storage)
    return list(found["trials"])


def test_no_network_is_loaded(home: Path) -> None:
    commands = [["report", "demo"], ["compare", "demo/0", "other/0"], ["importance", "demo"]]
    lines = [f"assert main({[*words, '--storage', str(home / 'automc.db')]!r}) == 0" for words in commands]
    code = "; ".join(["import sys; from automc.cli import main", *lines, "assert 'torch' not in sys.modules"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_search_that_nobody_drives_is_shown_as_it_was_left(call: Call) -> None:
    code, out, err = call("watch", "demo")
    assert (code, err) == (0, "automc: nobody searches study demo; 40 of 40 trials are done\n")
    assert out == call("show", "demo")[1]
    code, out, _ = call("watch", "demo", "--json")
    assert (code, json.loads(out)) == (0, data_of(call, "show", "demo"))


def test_ctrl_c_leaves_a_watched_search_alone(call: Call, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(home / "automc.db"))
    store.take("other", Owner("elsewhere.example", 17))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("automc.app.watching.watch.__defaults__", (interrupted,))
    code, out, err = call("watch", "other")
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        "automc: study other is searched by pid 17 on host elsewhere.example; Ctrl-C leaves it alone",
        "automc: left; the search of other goes on",
    ]
    assert store.driver("other") == Owner("elsewhere.example", 17)
    store.release("other")
