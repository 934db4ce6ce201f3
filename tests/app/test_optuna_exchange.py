"""Studies to Optuna and back: what Optuna reads is what was measured, and comes home the same."""

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from automc.app import database, from_optuna, runs, to_optuna
from automc.app.config import read_study
from automc.app.study import Study
from automc.core.metrics import Constraint
from automc.core.space import Choice, Real
from automc.core.trial import TrialState
from automc.errors import AutomcError, SpecError, StoreError, StudyExists

STUDY = """\
name: demo
model: digits_net
data: digits
evaluator: {name: synthetic, settings: {layers: 4, fail: {nan: 0.2}}}
space:
  rules:
    - {operator: prune, settings: {prune_ratio: {low: 0, high: 0.7, step: 0.1}}}
    - {operator: sparsify, settings: {sparsity: {low: 0.0, high: 0.9}}}
    - {operator: quantize, settings: {weight_bits: [2, 3, 8], activation_bits: 8}}
objectives: {top1: maximize, size_ratio: minimize}
constraints: [macs_ratio <= 0.8]
proposer: random
budget: {trials: 40}
workers: {count: 0}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file, a database in which it is searched, and a journal of Optuna's with the study."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "demo.yaml").write_text(STUDY)
    study = runs.start(replace(read_study(folder / "demo.yaml"), storage=str(folder / "automc.db")))
    study.run()
    study.close()
    assert to_optuna.export(str(folder / "automc.db"), str(folder / "o.log")) == {"demo": 40}
    return folder


@pytest.fixture(scope="module")
def study(home: Path) -> Iterator[Study]:
    with closing(runs.open_study("demo", str(home / "automc.db"))) as found:
        yield found


def journal(path: Path) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.load_study(study_name="demo", storage=JournalStorage(JournalFileBackend(str(path))))


@pytest.fixture(scope="module")
def seen(home: Path) -> optuna.Study:
    """The study as Optuna reads it."""
    return journal(home / "o.log")


def test_optuna_reads_the_same_trials(study: Study, seen: optuna.Study) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert seen.metric_names == ["top1", "size_ratio"]
    assert seen.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    states = {TrialState.COMPLETE: "COMPLETE", TrialState.FAILED: "FAIL"}
    records = study.records()
    assert len(seen.trials) == len(records) == 40
    for ours, theirs in zip(records, seen.trials, strict=True):
        assert theirs.number == ours.number
        assert theirs.state.name == states[ours.state]
        assert theirs.params == {
            str(site): value for site, value in ours.policy.items() if site.setting != "activation_bits"
        }
        assert theirs.user_attrs["rung"] == 0
        if ours.measurement is None:
            assert theirs.user_attrs["reason"] == ours.reason == "nan"
            continue
        metrics = ours.measurement.metrics
        assert theirs.values == [metrics["top1"], metrics["size_ratio"]]
        assert theirs.user_attrs["macs_ratio"] == metrics["macs_ratio"]
        assert theirs.constraints == {"macs_ratio <= 0.8": pytest.approx(metrics["macs_ratio"] - 0.8)}
        assert theirs.duration is not None


def test_optuna_finds_the_same_front_and_the_same_best_ends(study: Study, seen: optuna.Study) -> None:
    front = study.front()
    assert len(front) > 3
    best = {tuple(trial.values) for trial in seen.best_trials}
    assert best == {
        (t.measurement.metrics["top1"], t.measurement.metrics["size_ratio"]) for t in front if t.measurement
    }
    assert {t.number for t in front} <= {t.number for t in seen.best_trials}


def test_domains_are_optuna_s_distributions(seen: optuna.Study) -> None:
    found = seen.trials[0].distributions
    bits = {d for name, d in found.items() if name.endswith(".weight_bits")}
    assert bits == {CategoricalDistribution((2, 3, 8))}
    assert {d for name, d in found.items() if name.endswith(".prune_ratio")} == {FloatDistribution(0, 0.7, step=0.1)}
    assert {d for name, d in found.items() if name.endswith(".sparsity")} == {FloatDistribution(0, 0.9)}


def test_what_is_decided_differently_over_revisions_has_one_distribution_that_holds_all() -> None:
    union = to_optuna._union
    assert union([Choice((2, 8)), Choice((4, 8))]) == Choice((2, 4, 8))
    assert union([Real(0, 0.5, 0.1), Real(0, 0.5, 0.1)]) == Real(0, 0.5, 0.1)
    assert union([Real(0, 0.5, 0.1), Real(0.2, 0.8)]) == Real(0, 0.8)
    assert union([Choice((0.9,)), Real(0.1, 0.5, log=True)]) == Real(0.1, 0.9)


def test_a_study_comes_home_as_it_went(home: Path, study: Study, tmp_path: Path) -> None:
    other = str(tmp_path / "new.db")
    assert from_optuna.import_study(other, home / "demo.yaml", str(home / "o.log"), "demo", "back") == ["back"]
    with closing(runs.open_study("back", other)) as back:
        for ours, theirs in zip(study.records(), back.records(), strict=True):
            assert (ours.policy, ours.state, ours.rung, ours.reason) == (
                theirs.policy,
                theirs.state,
                theirs.rung,
                theirs.reason,
            )
            if ours.measurement and theirs.measurement:
                assert theirs.measurement.metrics == ours.measurement.metrics
                assert theirs.measurement.errors == ours.measurement.errors
        assert [t.number for t in back.front()] == [t.number for t in study.front()]
        assert [tuple(c) for c in back.store.front_changes("back")] == [
            tuple(c) for c in study.store.front_changes("demo")
        ]
        assert back.spec.budget.trials == 40
    assert database.verify(other) == []
    with pytest.raises(StudyExists, match="a study 'back' exists already"):
        from_optuna.import_study(other, home / "demo.yaml", str(home / "o.log"), None, "back")


def test_an_sqlite_storage_is_written_once(home: Path, tmp_path: Path) -> None:
    small, url = tmp_path / "small.db", f"sqlite:///{tmp_path / 'o.db'}"
    part = replace(read_study(home / "demo.yaml", ["budget.trials=3"]), storage=str(small))
    with closing(runs.start(part)) as study:
        study.run()
        bests = {t.number for t in study.front()}
    assert to_optuna.export(str(small), url, "demo") == {"demo": 3}
    found = optuna.load_study(study_name="demo", storage=url)
    assert bests <= {t.number for t in found.best_trials}
    found._storage.remove_session()
    found._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="has a study 'demo' already"):
        to_optuna.export(str(small), url)


# What does not fit


def written(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A journal with one complete trial that fits, changed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    data: dict[str, Any] = {
        "directions": ["maximize", "minimize"],
        "params": {},
        "attrs": {"macs_ratio": 0.5},
        "values": [0.5, 0.5],
    }
    change(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(study_name="x", storage=storage, directions=data["directions"])
        names = {
            k: FloatDistribution(0, 9) if isinstance(v, float) else CategoricalDistribution((v,))
            for k, v in data["params"].items()
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=data["params"], distributions=names, user_attrs=data["attrs"], values=data["values"]
            )
        )
    return path


def fitting(seen: optuna.Study) -> dict[str, Any]:
    return dict(seen.trials[0].params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["params"].update(lr=0.1), "trial 0: parameter 'lr' is no decision of this space"),
        (lambda d: d["params"].popitem(), "trial 0: policy: .* has no value"),
        (lambda d: d["params"].update({next(k for k in d["params"] if "bits" in k): 5}), "= 5 is outside {2, 3, 8}"),
        (lambda d: d["attrs"].clear(), "trial 0: has no macs_ratio, which the constraint macs_ratio <= 0.8 needs"),
        (lambda d: d["attrs"].update(macs_ratio="a"), "user attribute macs_ratio must be a number, not 'a'"),
        (lambda d: d["attrs"].update(rung=1), "trial 0: rung must be from 0 to 0, not 1"),
        (lambda d: d.update(directions=["minimize", "minimize"]), "has the objectives top1: minimize"),
        (lambda d: d.update(directions=["maximize"], values=[1.0]), "they must be the same, in the same order"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_made(
    home: Path, seen: optuna.Study, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["params"] = fitting(seen)
        change(data)

    path = written(tmp_path / "x.log", spoil)
    with pytest.raises(SpecError, match=message) as caught:
        from_optuna.import_study(str(tmp_path / "n.db"), home / "demo.yaml", str(path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "n.db").exists()


def test_a_study_that_optuna_made_is_imported(home: Path, seen: optuna.Study, tmp_path: Path) -> None:
    path = written(tmp_path / "x.log", lambda data: data.update(params=fitting(seen)))
    assert from_optuna.import_study(str(tmp_path / "n.db"), home / "demo.yaml", str(path)) == ["demo"]
    with closing(runs.open_study("demo", str(tmp_path / "n.db"))) as found:
        (trial,) = found.records()
        assert trial.state is TrialState.COMPLETE
        assert found.front() == [trial]
        assert found.run().value
        assert len(found.records()) == 40


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("none.log", "there is no such file"),
        ("sqlite:///none.db", "there is no such file"),
        ("x.db", "a path names a journal file; for SQLite say sqlite:///"),
        ("no/x.log", "the folder no does not exist"),
        ("sqlite:///text.db", "--optuna sqlite:///text.db: "),
        ("text.log", "--optuna text.log: "),
        ("://", "the URL cannot be read"),
        ("mysql+nothing://me:secret@h/d", "--optuna mysql"),
    ],
)
def test_a_storage_that_is_none_gets_one_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.db", "text.log"):
        Path(name).write_text("this is neither a database nor a journal\n" * 100)
    with pytest.raises(AutomcError) as caught:
        from_optuna.import_study("n.db", home / "demo.yaml", target)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not Path("n.db").exists()


def test_numbers_that_are_none_survive_as_attributes() -> None:
    assert math.isnan(from_optuna._number("here", "loss", {"$float": "nan"}))
    assert from_optuna._number("here", "loss", {"$float": "-inf"}) == -math.inf
    assert to_optuna._excess(Constraint.parse("macs_ratio <= 0.5"), math.nan) == sys.float_info.max
    assert to_optuna._excess(Constraint.parse("top1 >= 0.5"), 0.75) == -0.25
