"""A study's repair checkpoints: where they lie, that a killed trial goes on, and that none is left."""

from pathlib import Path

import pytest

from automc.app import bookmarks, runs
from automc.app.config import read_study
from automc.core.search import Ending, Listener, Silent

STUDY = """
name: repaired
model: digits_net
data: digits
space: {order: [prune], rules: [{operator: prune, settings: {prune_ratio: [0.25, 0.5]}}]}
objectives: {top1: maximize, size_bytes: minimize}
proposer: random
evaluator: {name: network, settings: {checkpoint_s: 0.001, reports: 3}}
rungs: [{steps: 12}]
budget: {trials: 1}
workers: {count: 0}
"""


class Interrupting(Silent):
    """Ctrl-C, twice, at the second report."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, float]] = []

    def noted(self, number: int, step: int, value: float) -> None:
        self.heard.append((step, value))
        if len(self.heard) == 2:
            raise KeyboardInterrupt


def study(folder: Path) -> runs.Study:
    path = folder / "study.yaml"
    path.write_text(f"{STUDY}storage: sqlite:///{folder / 'x.db'}\n")
    return runs.start(read_study(path))


def test_an_interrupted_study_goes_on_in_the_middle_of_a_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight seconds, because it repairs a real network twice."""
    monkeypatch.setattr("automc.evaluation.bookmarks.DEAREST", 0)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = study(tmp_path / "whole")
    heard = Interrupting()
    heard.heard = [(0, 0.0)] * 2  # behind the second: only listens
    assert whole.run(heard) is Ending.DONE
    broken = study(tmp_path / "broken")
    first = Interrupting()
    assert broken.run(first) is Ending.INTERRUPTED
    (left,) = bookmarks.folder(broken.storage, "repaired").iterdir()  # type: ignore[union-attr]
    assert left.parent == tmp_path / "broken" / "x.db.repairs" / "repaired"
    assert left.name == f"{broken.records()[0].policy.fingerprint}-0-student.repair"
    broken.close()
    again = runs.resume("repaired", f"sqlite:///{tmp_path / 'broken' / 'x.db'}")
    second = Interrupting()
    second.heard = [(0, 0.0)] * 2
    assert again.run(second) is Ending.DONE
    assert "automc: repair goes on at step 5 of 12\n" in capsys.readouterr().err
    assert second.heard == heard.heard
    (one,), (two,) = whole.records(), again.records()
    assert one.measurement.metrics == two.measurement.metrics
    assert again.store.notes("repaired", 0) == whole.store.notes("repaired", 0)
    assert list(left.parent.iterdir()) == []


def test_other_databases_have_a_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = bookmarks.folder("postgresql://me:secret@host/db", "s")
    assert first == bookmarks.folder("postgresql://me:changed@host/db", "s")
    assert first != bookmarks.folder("postgresql://me:secret@host/other", "s")
    assert first.is_relative_to(tmp_path / "automc")  # type: ignore[union-attr]
    assert "secret" not in str(first)
    assert bookmarks.folder("memory:", "s") is None


def test_an_evaluator_without_repairs_has_none() -> None:
    evaluator = object()
    assert bookmarks.placed(evaluator, "memory:", "s") is evaluator
    inner = Silent()
    bookmarks.Tidy(evaluator, inner).noted(0, 1, 2.0)


def test_who_tidies_hears_all_that_a_listener_hears() -> None:
    wanted = {name for name in vars(Listener) if not name.startswith("_")}
    assert wanted <= set(vars(bookmarks.Tidy))
