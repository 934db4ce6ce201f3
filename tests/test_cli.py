"""The command line end to end, on studies whose evaluator is synthetic."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from calling import Call, calling

from automc import errors
from automc.app import runs
from automc.app.template import TEMPLATE
from automc.cli import app, main
from automc.core.metrics import METRICS

STUDY = """\
model: digits_net
data: digits
evaluator: {{name: synthetic, settings: {{layers: 6, sleep_s: {sleep}, fail: {{nan: 0.1, oom: 0.05}}}}}}
space:
  rules:
    - {{operator: prune, settings: {{prune_ratio: {{low: 0, high: 0.7, step: 0.1}}}}}}
    - {{operator: quantize, settings: {{weight_bits: [2, 3, 4, 6, 8], activation_bits: 8}}}}
objectives: {{top1: maximize, size_ratio: minimize}}
constraints: [macs_ratio <= 0.8]
proposer: random
budget: {{trials: {trials}}}
workers: {{count: 0}}
seed: 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file and a database in which that study is finished."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "demo.yaml").write_text(STUDY.format(sleep=0.0, trials=25))
    database = folder / "automc.db"
    assert main(["search", str(folder / "demo.yaml"), "--storage", str(database)]) == 0
    return folder


@pytest.fixture
def call(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line in ``home``: its exit code, stdout and stderr."""
    return calling(home, capsys, monkeypatch)


def data_of(call: Call, *words: str) -> object:
    """The one JSON document that the command prints."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    code, out, _ = call(*words, "--json")
    assert code == 0
    return json.loads(out, parse_constant=refuse)


def listed(call: Call, *words: str) -> list[dict[str, Any]]:
    """The rows of ``automc trials demo``."""
    found = data_of(call, "trials", "demo", *words)
    assert isinstance(found, dict)
    rows: list[dict[str, Any]] = found["trials"]
    return rows


def test_search_says_a_line_a_trial_and_prints_the_study(call: Call) -> None:
    code, out, err = call(
        "search", "demo.yaml", "--name", "short", "--trials", "5", "--seed", "9", "--storage", "other.db"
    )
    lines = err.splitlines()
    assert code == 0
    assert [line.split("]")[0] for line in lines] == [f"[{n}/5" for n in range(1, 6)]
    assert out.startswith("study      short in other.db\n")
    assert "budget 5" in out


def test_trials_agree_with_the_python_api(call: Call, home: Path) -> None:
    frame = runs.open_study("demo", str(home / "automc.db")).trials()
    rows = listed(call)
    assert [row["number"] for row in rows] == list(range(25)) == frame["number"].tolist()
    failed = frame["state"] == "failed"
    assert failed.any()
    assert [row["top1"] is None for row in rows] == failed.tolist()


def test_trials_filter_sort_limit(call: Call) -> None:
    rows = listed(call, "--where", "state == complete and macs_ratio <= 0.6", "--sort", "-top1,number")
    assert rows
    assert all(row["macs_ratio"] <= 0.6 for row in rows)
    assert rows == sorted(rows, key=lambda row: -row["top1"])
    best = listed(call, "--where", "state == complete and macs_ratio <= 0.6", "--sort", "-top1", "--limit", "2")
    assert best == rows[:2]


def test_trials_in_every_form(call: Call, home: Path) -> None:
    code, out, _ = call("trials", "demo", "--limit", "3")
    assert code == 0
    assert len(out.splitlines()) == 5
    assert out.split()[:3] == ["number", "state", "rung"]
    assert call("trials", "demo", "--format", "csv", "-o", "t.csv")[0] == 0
    assert call("trials", "demo", "--format", "parquet", "-o", "t.parquet")[0] == 0
    assert list(pd.read_csv(home / "t.csv")["number"]) == list(pd.read_parquet(home / "t.parquet")["number"])
    code, out, _ = call("trials", "demo", "--where", "top1 > 2")
    assert (code, out) == (0, "no trials\n")


def test_show_and_studies(call: Call) -> None:
    facts = data_of(call, "show", "demo")
    assert isinstance(facts, dict)
    assert sum(facts["counts"].values()) == facts["budget"] == 25
    assert sum(facts["failures"].values()) == facts["counts"]["failed"] > 0
    _, out, _ = call("show", "demo")
    assert f"{facts['counts']['complete']} complete" in out
    _, out, _ = call("studies")
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["demo"]


def test_trial_shows_the_policy_by_layer(call: Call) -> None:
    rows = listed(call, "--where", "state == complete")
    ref = f"demo/{rows[0]['number']}"
    found = data_of(call, "trial", ref)
    assert isinstance(found, dict)
    _, out, _ = call("trial", ref)
    policy, real = found["policy"], found["realized"]
    heading = next(line for line in out.splitlines() if line.startswith("layer "))
    for layer, values in policy["prune"].items():
        line = next(row for row in out.splitlines() if row.startswith(f"{layer} "))
        cells = dict(zip(heading.replace("real channels", "channels").split(), line.split(), strict=True))
        assert float(cells["prune_ratio"]) == values["prune_ratio"]
        assert int(cells["weight_bits"]) == policy["quantize"][layer]["weight_bits"]
        assert int(cells["channels"]) == real[layer]["channels"]


def test_a_failed_trial_says_why(call: Call) -> None:
    rows = listed(call, "--where", "reason == nan")
    _, out, _ = call("trial", f"demo/{rows[0]['number']}")
    assert "nan (a loss or a metric became NaN or infinite)" in out
    assert "synthetic: the loss became nan at step 1" in out


def test_pareto_prints_table_and_picture(call: Call, home: Path) -> None:
    members = data_of(call, "pareto", "demo")
    assert isinstance(members, list)
    assert all(row["macs_ratio"] <= 0.8 for row in members)
    code, out, err = call("pareto", "demo", "--x", "macs_ratio", "--plot", "front.png")
    assert (code, err) == (0, "automc: wrote front.png\n")
    assert (home / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "top1 over macs_ratio" in out
    picked = data_of(call, "pareto", "demo", "--pick", "max:top1")
    assert picked == [max(members, key=lambda row: row["top1"])]


def test_check_and_dry_run_write_nothing(call: Call, home: Path) -> None:
    before = sorted(path.name for path in home.iterdir())
    checked = data_of(call, "check", "demo.yaml", "--set", "budget.trials=7")
    assert isinstance(checked, dict)
    assert checked["cost"]["trials"] == 7
    # 5 groups with 8 ratios, 6 layers with 5 choices of weight bits.
    assert checked["space"]["decisions"] == 11
    assert checked["space"]["log10_size"] == pytest.approx(8.7089, abs=1e-3)
    code, out, _ = call("search", "demo.yaml", "--name", "never", "--storage", "never.db", "--dry-run")
    assert code == 0
    assert out.rstrip().endswith("nothing was written")
    assert "why" not in out
    assert "it makes the model's output" in out
    assert sorted(path.name for path in home.iterdir()) == before


def test_extend_and_resume_go_on(call: Call) -> None:
    call("search", "demo.yaml", "--name", "grown", "--trials", "4")
    code, _, err = call("extend", "grown", "--trials", "+3", "--proposer", "uniform")
    assert code == 0
    said = err.splitlines()
    assert said[0] == "automc: revision 1: budget.trials: 4 -> 7"
    assert [line.split("]")[0] for line in said if line.startswith("[")] == ["[5/7", "[6/7", "[7/7"]
    assert call("resume", "grown")[2].startswith("automc: study grown has all its ")
    facts = data_of(call, "show", "grown")
    assert isinstance(facts, dict)
    assert (facts["budget"], facts["proposer"], sum(facts["counts"].values())) == (7, "uniform", 7)


@pytest.mark.parametrize("words", [["show", "caf\udce9"], ["trials", "demo", "--where", "reason == '\udce9'"]])
def test_bytes_that_are_no_text_are_told(call: Call, words: list[str]) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err == f"automc: {words[-1]!r}: is no text in UTF-8\n"


def test_stop_of_an_idle_study(call: Call) -> None:
    assert call("stop", "demo") == (0, "study demo is not being searched; nothing to stop\n", "")
    assert data_of(call, "stop", "demo") == {"study": "demo", "asked": False, "word": None}
    for word in ("pause", "cancel"):
        assert call(word, "demo") == (0, f"study demo is not being searched; nothing to {word}\n", "")


def test_storage_comes_from_the_option_then_the_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("AUTOMC_STORAGE", str(home / "missing.db"))
    code, _, err = call("show", "demo")
    assert code == 5
    assert "missing.db" in err
    assert call("show", "demo", "--storage", "automc.db")[0] == 0
    assert not (home / "missing.db").exists()


def test_init_writes_the_template_once(call: Call, home: Path) -> None:
    assert call("init", "-o", "new.yaml") == (0, "wrote new.yaml; next: automc check new.yaml\n", "")
    assert (home / "new.yaml").read_text() == TEMPLATE
    assert call("init", "-o", "new.yaml") == (
        2,
        "",
        "automc: new.yaml: exists already; choose another name with -o FILE\n",
    )


def test_profile_prints_the_layers_of_a_zoo_model(call: Call) -> None:
    layers = data_of(call, "profile", "resnet20")
    assert isinstance(layers, dict)
    # The figures of He et al. 2016, table 6: ResNet-20 has 0.27 M parameters; 41 M multiply-accumulates.
    assert sum(row["params"] for row in layers["layers"]) == pytest.approx(0.27e6, rel=0.02)
    assert sum(row["macs"] for row in layers["layers"]) == pytest.approx(41e6, rel=0.02)
    code, out, _ = call("profile", "digits_net")
    assert code == 0
    assert "1x8x8 input" in out


MISTAKES = [
    (["serch"], 2, "automc: No such command 'serch'. Did you mean 'search', 'serve'?"),
    (["search", "--trails", "3"], 2, "automc search: No such option: --trails (Possible options: --trials)"),
    (["search"], 2, "automc search: Missing argument 'FILE'."),
    (["search", "demo.yaml", "--trials", "many"], 2, "automc search: Invalid value for '--trials': "),
    (["trials", "demo", "--format", "xml"], 2, "automc trials: Invalid value for '--format': "),
    (["search", "missing.yaml"], 2, "automc: missing.yaml: "),
    (["search", "demo.yaml", "--set", "budget.trails=3"], 2, "automc: --set budget.trails=3: "),
    (["search", "demo.yaml"], 5, "automc: "),
    (["show", "demmo"], 5, "automc: "),
    (["show", "demo", "--storage", "none.db"], 5, "automc: "),
    (["resume", "demmo"], 5, "automc: "),
    (["extend", "demo", "--trials", "0"], 2, "automc: extend: trials must be at least 1, not 0"),
    (
        ["extend", "demo", "--trials", "1", "--proposer", "tpee"],
        2,
        "automc: extend: proposer: unknown proposer 'tpee' (allowed: ",
    ),
    (["trial", "demo"], 2, "automc: a trial is written NAME/NUMBER, such as digits/17, not 'demo'"),
    (["trial", "demo/999"], 5, "automc: "),
    (["trials", "demo", "--where", "top1 >="], 2, "automc: "),
    (["trials", "demo", "--sort", "-top2"], 2, "automc: "),
    (["pareto", "demo", "--pick", "kneee"], 2, "automc: pick 'kneee': no such rule, did you mean 'knee'?"),
    (["pareto", "demo", "--x", "sise"], 2, "automc: --x sise: no such metric"),
    (
        ["pareto", "demo", "--plot", "no/front.png"],
        2,
        "automc: no/front.png: cannot be written: No such file or directory",
    ),
    (["export", "demo/998", "-o", "out"], 5, "automc: "),
    (["export", "demo/0", "-o", "out"], 2, "automc: "),
    (["verify", "no-folder"], 7, "automc: "),
    (["profile", "resnet21", "--input", "3,32,32"], 3, "automc: "),
    (["profile", "resnet20", "--input", "3,a"], 2, "automc: --input 3,a: sizes above 0"),
    (["profile", "resnet20", "--set", "depth"], 2, "automc: --set 'depth': must read KEY=VALUE"),
]


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES, ids=[" ".join(words) for words, _, _ in MISTAKES])
def test_a_mistake_is_one_line_and_its_exit_code(call: Call, words: list[str], code: int, said: str) -> None:
    got, out, err = call(*words)
    assert (got, out) == (code, "")
    assert err.startswith(said)
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_each_mistake_of_a_file_has_its_own_line(call: Call, home: Path) -> None:
    (home / "wrong.yaml").write_text(STUDY.format(sleep=0.0, trials=0).replace("random", "randon"))
    code, _, err = call("check", "wrong.yaml")
    assert code == 2
    assert len(err.splitlines()) == 2
    assert all(line.startswith("automc: wrong.yaml:") for line in err.splitlines())


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.ModelError("bad weights"), 3, "automc: bad weights\n"),
        (errors.NotFinite("nan"), 4, "automc: nan\n"),
        (errors.WorkerError("no ray"), 6, "automc: no ray\n"),
        (errors.ProofError("not as promised"), 7, "automc: not as promised\n"),
        (errors.AutomcError(), 1, "automc: AutomcError\n"),
        (KeyboardInterrupt(), 130, "automc: interrupted\n"),
        (
            RuntimeError("a\nb"),
            70,
            "automc: internal error (RuntimeError: a b); rerun with AUTOMC_DEBUG=1 for the traceback\n",
        ),
    ],
)
def test_every_kind_of_error_has_its_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("AUTOMC_DEBUG", raising=False)
    monkeypatch.setattr(runs, "studies", fail)
    assert call("studies") == (code, "", said)


def test_sigterm_closes_what_is_open(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def terminated(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append("closed")

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray leaves a handler of its own behind
    try:
        monkeypatch.setattr(runs, "studies", terminated)
        assert call("studies") == (143, "", "automc: terminated\n")
        assert closed == ["closed"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_debugging_shows_the_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setenv("AUTOMC_DEBUG", "1")
    monkeypatch.setattr(runs, "studies", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call("studies")


def test_help_names_every_exit_code_of_the_error_tree(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    section = out.split("Exit codes")[1]
    documented = {int(line.split()[0]) for line in section.splitlines() if line.split()}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AutomcError)]
    tree = {kind.exit_code for kind in kinds}
    assert documented == tree | {0, 70, 130, 141, 143}


def test_no_arguments_is_help_and_version_is_short(call: Call) -> None:
    assert call() == call("--help")
    assert call("--version") == (0, "automc 0.1.0\n", "")


@pytest.mark.parametrize("command", [info.callback.__name__ for info in app.registered_commands if info.callback])
def test_every_command_has_help_and_json(call: Call, command: str) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "--json" in out


def spawn(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "automc.cli", *words]
    environment = {key: value for key, value in os.environ.items() if key != "AUTOMC_STORAGE"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, stdout=pipe, stderr=pipe)


# The second Ctrl-C must come while a trial runs, however busy the machine is: so those trials last longer.
@pytest.mark.parametrize(
    ("signals", "code", "word", "sleep", "trials"), [(1, 0, "drained", 0.2, 8), (2, 130, "interrupted", 1.5, 3)]
)
def test_ctrl_c_leaves_a_study_that_can_be_resumed(
    tmp_path: Path, signals: int, code: int, word: str, sleep: float, trials: int
) -> None:
    (tmp_path / "slow.yaml").write_text(STUDY.format(sleep=sleep, trials=trials))
    process = spawn("search", "slow.yaml", cwd=tmp_path)
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("[")
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            if signals > 1:
                assert "Ctrl-C again to quit" in process.stderr.readline()
                signals = 0
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out == "") == (code, False)
    last = err.splitlines()[-1]
    assert last.startswith(f"automc: {word} after ")
    again = last.split("go on with: automc ")[1].split()
    finished = spawn(*again, "--json", cwd=tmp_path)
    out, err = finished.communicate(timeout=60)
    assert finished.returncode == 0, err
    assert json.loads(out)["counts"]["waiting"] == 0
    assert sum(json.loads(out)["counts"].values()) == trials


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_ends_a_search_that_can_be_resumed(tmp_path: Path, workers: int) -> None:
    text = STUDY.format(sleep=1.5, trials=3).replace("{count: 0}", f"{{count: {workers}}}")
    assert f"count: {workers}" in text
    (tmp_path / "slow.yaml").write_text(text)
    process = spawn("search", "slow.yaml", cwd=tmp_path)
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("[")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (143, "")
    said = ["automc: terminated: what runs waits again, and the study can be resumed", "automc: terminated"]
    assert err.splitlines()[-2:] == said
    finished = spawn("resume", "slow", "--json", cwd=tmp_path)
    out, err = finished.communicate(timeout=60)
    assert finished.returncode == 0, err
    counts = json.loads(out)["counts"]
    assert (counts["waiting"], counts["running"], sum(counts.values())) == (0, 0, 3)


def test_sigterm_ends_a_program_of_somebody_else_behind_its_search(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(STUDY.format(sleep=1.5, trials=1))
    searched = spawn("search", "slow.yaml", cwd=tmp_path)
    assert searched.communicate(timeout=60)[0]
    program = """\
import os, signal, threading, automc
study = automc.extend("slow", trials=3)
def terminate():
    while study.store.driver("slow") is None:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=terminate, daemon=True).start()
study.run()
print("went on")
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (-signal.SIGTERM, "")
    assert err.endswith("automc: terminated: what runs waits again, and the study can be resumed\n")


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    process = spawn("trials", "demo", "--format", "json", cwd=home)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert (process.wait(timeout=30), said) == (141, "")


def test_a_terminal_gets_the_live_view(tmp_path: Path) -> None:
    import pty

    (tmp_path / "demo.yaml").write_text(STUDY.format(sleep=0.05, trials=6))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "automc.cli", "search", "demo.yaml"]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    shown = io.BytesIO()
    try:
        while chunk := os.read(master, 65536):
            shown.write(chunk)
    except OSError:  # Linux ends a pseudo-terminal whose other side is closed with EIO.
        pass
    finally:
        os.close(master)
    assert process.wait(timeout=30) == 0
    said = shown.getvalue().decode()
    assert "6/6 done" in said
    assert "of the box below the original model" in said


def test_every_metric_can_be_an_axis(call: Call) -> None:
    for name in METRICS:
        other = "top1" if name != "top1" else "size_ratio"
        code, _, err = call("pareto", "demo", "--x", name, "--y", other)
        assert (code, err) == (0, ""), name
