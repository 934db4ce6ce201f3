"""A service from Python and from the command line: the same answers as from the database."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from service_documents import document
from test_service_events import Served

import automc
from automc.app import runs
from automc.app.config import study_from
from automc.app.tables import plain
from automc.cli import main
from automc.core.history import Artifact
from automc.core.policy import Policy
from automc.errors import EvaluationError, SpecError, StoreError, StudyExists, UnknownStudy, UnknownTrial
from automc.service.builder import here
from automc.service.client import Client, Refused
from automc.service.settings import Settings
from automc.service.tokens import mint
from automc.stores.blobs import Blobs
from automc.stores.service import ServiceStore


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str, str]]:
    storage = str(tmp_path_factory.mktemp("client") / "automc.db")
    made = runs.start(study_from(document(storage=storage), "test"))
    made.run()
    made.close()
    with closing(ServiceStore(storage)) as store:
        secret, _ = mint(store, "admin", None)
    with Served(Settings(storage, port=0, drives=False)) as served:
        served.app.state.desk.build = here
        yield served, storage, secret


@pytest.fixture
def server(world: tuple[Served, str, str]) -> Client:
    served, _, secret = world
    return automc.connect(served.base.removesuffix("/api/v1"), secret)


def test_a_remote_study_answers_as_a_local_one(server: Client, world: tuple[Served, str, str]) -> None:
    local, remote = runs.open_study("s", world[1]), server.open_study("s")
    assert remote.spec == local.spec
    assert (remote.layers, remote.baseline) == (local.layers, local.baseline)
    assert {**remote.summary(), "storage": ""} == {**json.loads(json.dumps(plain(local.summary()))), "storage": ""}
    for number in (0, 7):
        there, mine = remote.trial(number), local.trial(number)
        assert (there.policy, there.measurement, there.state) == (mine.policy, mine.measurement, mine.state)
    asked = {"where": "top1 > 0.1", "sort": ["-top1"], "columns": ["number", "top1"]}
    assert plain(remote.trials(**asked)) == plain(local.trials(**asked))  # type: ignore[arg-type]
    some = remote.trials(limit=7)
    assert plain(some) == plain(local.trials(limit=7))
    assert plain(remote.trials(limit=7, after=some.attrs["after"])) == plain(
        local.trials(limit=7, after=some.attrs["after"])
    )
    assert [t.policy for t in remote.front()] == [t.policy for t in local.front()]
    assert remote.picked("max:top1").number == local.picked("max:top1").number
    assert plain(remote.pareto(at=5)) == plain(local.pareto(at=5))
    sql = "SELECT trial, top1 FROM front ORDER BY trial"
    assert plain(remote.query(sql)) == plain(local.query(sql))
    assert remote.importance()["metric"] == "top1"
    bound = float(local.trial(3).measurement.metrics["size_bytes"])  # type: ignore[union-attr]
    assert remote.solve([f"size_bytes <= {bound}"])["trial"] is not None
    local.close()


def test_errors_are_those_of_the_library(server: Client, world: tuple[Served, str, str]) -> None:
    with pytest.raises(UnknownStudy, match="no study 't' "):
        server.open_study("t")
    study = server.open_study("s")
    with pytest.raises(UnknownTrial, match="no trial 99"):
        study.trial(99)
    with pytest.raises(SpecError, match="did you mean 'top1'"):
        study.trials(where="tp1 > 0")
    with pytest.raises(StudyExists):
        server.search(document())
    with pytest.raises(SpecError, match=r"objectives\.tp1: unknown metric 'tp1'.*\n.*seed"):
        server.check(document(objectives={"tp1": None}, seed=-1))
    with pytest.raises(Refused, match="pause means nothing now") as refused:
        study.pause()
    assert (refused.value.status, refused.value.problem["legal"]) == (409, ["extend", "delete"])
    with pytest.raises(Refused, match="this token is not known"):
        Client(server.url, "automc_wrong").studies()
    with pytest.raises(StoreError, match="cannot be reached"):
        Client("http://127.0.0.1:9", "x").studies()
    for url, token in (("127.0.0.1:8765", "x"), ("file:///etc/passwd", "x"), (server.url, "a\nb")):
        with pytest.raises(SpecError, match="connect: "):
            Client(url, token)


def test_studies_are_made_and_asked_from_python(server: Client, world: tuple[Served, str, str]) -> None:
    study = server.search(document(name="made"), key="once")
    assert server.search(document(name="made"), key="once").name == "made"
    assert study.state == "starting"
    assert study.wait(0) == "starting"
    assert study.cancel() == "idle"
    assert study.enqueue(_policy(world[1]))["wish"] > 0
    runs.open_study("made", world[1]).run()
    assert study.enqueue(3, ["conv0.weight_bits=2"], run=False)["policy"]["quantize"]["conv0"]["weight_bits"] == 2
    assert study.extend(trials=2)["revision"] == 1
    assert set(server.studies()["study"]) == {"s", "made"}
    assert next(study.events(after=0))["kind"] == "create"


def _policy(storage: str) -> Policy:
    with closing(runs.open_study("s", storage)) as study:
        return study.trial(0).policy


def _export(served: Served) -> None:
    """What a supervisor's thread does, until an export has ended."""
    desk = served.app.state.desk
    before = len(desk.store.operations("done", "failed"))
    while len(desk.store.operations("done", "failed")) == before:
        desk.supervisor.export()
        time.sleep(0.05)


def test_files_go_up_and_down(server: Client, world: tuple[Served, str, str], tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file({"a": np.ones(3, np.float32)}, weights)
    assert server.upload(weights) == f"upload:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    served, storage, _ = world
    digest = Blobs.beside(storage).put(b"content")
    served.app.state.desk.store.keep_artifact("s", Artifact(digest, 3, "onnx", "model.onnx", 7))
    server.download(digest, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"content"
    (Path(f"{storage}.blobs") / digest[:2] / digest).write_bytes(b"other")
    with pytest.raises(StoreError, match="what came is not the file"):
        server.download(digest, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    exports = threading.Thread(target=_export, args=(served,))
    exports.start()
    with pytest.raises(EvaluationError, match=r"export of s/3: .*there is no network"):
        server.open_study("s").export(3, tmp_path / "out")
    exports.join()


def test_files_of_a_rejected_export_come_below_rejected(
    monkeypatch: pytest.MonkeyPatch, server: Client, world: tuple[Served, str, str], tmp_path: Path
) -> None:
    served, storage, _ = world
    store, kept = served.app.state.desk.store, Blobs.beside(storage)
    store.keep_artifact("s", Artifact(kept.put(b"too slow"), 3, "txt", "rejected/REASON.txt", 8))
    files = [{"file": "rejected/REASON.txt", "sha256": hashlib.sha256(b"too slow").hexdigest()}]
    result = {"proof": {"passed": False, "reasons": ["too slow"]}, "files": files}
    monkeypatch.setattr(served.app.state.desk, "build", lambda job, seconds: result)
    exports = threading.Thread(target=_export, args=(served,))
    exports.start()
    assert server.open_study("s").export(3, tmp_path / "out") == result["proof"]
    exports.join()
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]
    assert (tmp_path / "rejected" / "out" / "REASON.txt").read_bytes() == b"too slow"


@pytest.mark.parametrize(
    "words",
    [
        ("show", "s"),
        ("trials", "s", "--where", "top1 > 0.2", "--sort=-top1", "--limit", "4"),
        ("trials", "s", "--format", "csv", "--columns", "number,top1"),
        ("trial", "s/3"),
        ("pareto", "s"),
        ("pareto", "s", "--pick", "knee", "--json"),
        ("compare", "s/3", "s/4"),
        ("query", "SELECT trial, top1 FROM trials WHERE study = 's' ORDER BY trial"),
        ("importance", "s"),
        ("importance", "s", "--metric", "size_bytes", "--json"),
        ("solve", "s", "--max", "size_ratio=0.9"),
        ("solve", "s", "--max", "size_ratio=0.9", "--json"),
    ],
)
def test_reading_commands_ask_a_server(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Client,
    world: tuple[Served, str, str],
    words: tuple[str, ...],
) -> None:
    monkeypatch.setenv("AUTOMC_TOKEN", world[2])
    assert main([*words, "--server", server.url]) == 0
    there = capsys.readouterr().out
    assert main([*words, "--storage", world[1]]) == 0
    assert there.replace(server.url, "").split() == capsys.readouterr().out.replace(world[1], "").split()


def test_asking_commands_ask_a_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, server: Client, world: tuple[Served, str, str]
) -> None:
    monkeypatch.setenv("AUTOMC_TOKEN", world[2])
    study = server.search(document(name="asked"))

    def said(code: int, *words: str) -> str:
        assert main([*words, "--server", server.url]) == code
        out, err = capsys.readouterr()
        return out if code == 0 else err

    assert "study asked was asked to end at once" in said(0, "cancel", "asked")
    assert study.state == "idle"
    for verb in ("pause", "stop", "cancel"):
        assert "'asked' is idle" in said(5, verb, "asked")
    assert said(0, "resume", "asked") == f"study asked goes on at {server.url}: starting\n"
    assert json.loads(said(0, "cancel", "asked", "--json")) == {"study": "asked", "asked": True, "word": "cancel"}
    assert "0 earlier trials reused" in said(0, "extend", "asked", "--trials", "2")
    assert study.spec.revision == 1
    assert "--workers and --server" in said(2, "resume", "asked", "--workers", "2")
    assert "--set and --server" in said(2, "extend", "asked", "--set", "seed=1")
    assert "no study 'askd'" in said(5, "stop", "askd")


def test_a_server_and_a_database_are_not_both(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOMC_TOKEN", raising=False)
    assert main(["show", "s", "--server", "http://x", "--storage", "y"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["studies", "--server", "http://127.0.0.1:1"]) == 2
    assert "give a token, or set AUTOMC_TOKEN" in capsys.readouterr().err
