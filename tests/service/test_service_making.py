"""What changes studies over HTTP: making, noting, deleting, asking, extending, enqueuing, uploading, exporting."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.numpy import save
from service_documents import BASE, document

from automc.app import driving, runs
from automc.app.study import Study
from automc.core.history import Artifact
from automc.core.search import Ending
from automc.core.trial import Trial
from automc.errors import WorkerError
from automc.export.bundle.placing import rejected
from automc.export.bundle.writing import Written
from automc.service import jobs
from automc.service.app import make_app
from automc.service.asking import VERBS
from automc.service.builder import apart, here
from automc.service.settings import Settings
from automc.service.tokens import mint
from automc.stores.blobs import Blobs
from automc.stores.service import ServiceStore

if TYPE_CHECKING:
    from automc.export.proof.proving import Proof

V1 = "/api/v1"


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "automc.db")


@pytest.fixture
def made(home: str) -> Iterator[FastAPI]:
    app = make_app(Settings(home, drives=False, upload_bytes=100_000))
    app.state.desk.build = here
    with TestClient(app, base_url=BASE):
        yield app


@pytest.fixture
def writer(made: FastAPI) -> TestClient:
    secret, _ = mint(made.state.desk.store, "write", None)
    head = {"authorization": f"Bearer {secret}"}
    return TestClient(made, base_url=BASE, headers=head, raise_server_exceptions=False)


def create(writer: TestClient, **changes: Any) -> Any:
    answer = writer.post(f"{V1}/studies", json=document(**changes))
    assert answer.status_code == 201, answer.text
    return answer.json()


def refused(answer: Any, status: int, code: str) -> Any:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    return body


def test_a_study_is_checked_made_and_wants_its_driver(writer: TestClient, made: FastAPI, home: str) -> None:
    checked = writer.post(f"{V1}/studies:validate", json=document())
    assert checked.status_code == 200
    assert {"layers", "space", "cost"} <= checked.json().keys()
    assert writer.get(f"{V1}/studies").json() == {"studies": []}, "a check writes nothing"
    answer = writer.post(f"{V1}/studies", json=document())
    assert (answer.status_code, answer.headers["location"]) == (201, f"{V1}/studies/s")
    assert answer.json() == writer.get(f"{V1}/studies/s").json()
    assert writer.get(f"{V1}/studies/s/status").json()["state"] == "starting"
    assert list(made.state.desk.store.wanted()) == ["s"]
    assert runs.open_study("s", home).run() is Ending.DONE
    refused(writer.post(f"{V1}/studies", json=document()), 409, "study-exists")


def test_a_repeated_request_makes_one_study(writer: TestClient) -> None:
    head = {"idempotency-key": "k1"}
    first, second = (writer.post(f"{V1}/studies", json=document(), headers=head) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    refused(writer.post(f"{V1}/studies", json=document(name="t"), headers=head), 422, "key-reused")
    refused(writer.post(f"{V1}/studies", json=document(), headers={"idempotency-key": "k2"}), 409, "study-exists")
    assert len(writer.get(f"{V1}/studies").json()["studies"]) == 1


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"model": "os:system"}, "/model", "is not offered here"),
        ({"model": "evil.py:build"}, "/model", "is not offered here"),
        ({"model": {"name": "resnet20", "weights": "/etc/passwd"}}, "/model", "weights must read upload:SHA256"),
        ({"model": {"name": "resnet20", "weights": "upload:../../x"}}, "/model", "no upload"),
        ({"data": {"name": "folder", "settings": {"path": "/etc"}}}, "/data", "is not offered here"),
        ({"data": {"name": "digits", "settings": {"path": "/etc"}}}, "/data", "would open a file"),
        ({"task": "os:getcwd"}, "/task", "is not offered here"),
        ({"space": "../../../etc/passwd"}, "/space", "is not bundled"),
        ({"space": "/tmp/x.yaml"}, "/space", "is not bundled"),
        ({"storage": "postgresql://evil"}, "/storage", "its own database"),
        ({"workers": {"count": 1, "address": "evil:1"}}, "/workers/address", "is the server's to decide"),
        (
            {"evaluator": {"name": "network", "settings": {"device_profile": "/x.yaml"}}},
            "/evaluator/settings/device_profile",
            "would open a file or import",
        ),
        (
            {"proposer": {"name": "tune", "settings": {"searcher": "os:system"}}},
            "/proposer/settings/searcher",
            "would open a file or import",
        ),
        ({"name": "<script>alert(1)</script>"}, "/name", "is not allowed"),
        ({"name": "../x"}, "/name", "is not allowed"),
        ({"from": ["s@postgresql://evil"]}, "/from", "names of studies of this database"),
        ({"objectives": {"tp1": None}}, "/objectives/tp1", "did you mean 'top1'"),
        ({"budget": {"trials": 0}}, "/budget/trials", ""),
    ],
)
def test_a_study_names_only_what_is_offered(
    writer: TestClient, made: FastAPI, changes: dict[str, Any], pointer: str, said: str
) -> None:
    for route in ("studies", "studies:validate"):
        body = refused(writer.post(f"{V1}/{route}", json=document(**changes)), 422, "spec-error")
        assert body["errors"][0]["pointer"] == pointer, body
        assert said in body["detail"]
    assert list(made.state.desk.store.studies()) == []


def test_several_mistakes_come_together(writer: TestClient) -> None:
    sent = document(objectives={"tp1": None}, seed=-1, proposer="rando")
    body = refused(writer.post(f"{V1}/studies:validate", json=sent), 422, "spec-error")
    assert {error["pointer"] for error in body["errors"]} == {"/objectives/tp1", "/seed", "/proposer"}
    for sent in ([], "text", 3, None):  # type: ignore[assignment]
        refused(writer.post(f"{V1}/studies", json=sent), 422, "invalid-request")
    missing = {key: value for key, value in document().items() if key != "name"}
    assert refused(writer.post(f"{V1}/studies", json=missing), 422, "spec-error")["place"] == "/name"


def test_what_the_server_offers_is_named(home: str) -> None:
    folder = Path(home).parent
    (folder / "nets.py").write_text("from automc.evaluation.nets.digits import DigitsNet as build\n")
    listed = '[model.shelf]\nname = "nets.py:build"\n[data.shelf]\nname = "digits"\nsettings = {calibration = 64}\n'
    (folder / "automc.toml").write_text(listed + "[workers]\nretries = 0\n")
    app = make_app(Settings(home, drives=False))
    app.state.desk.build = here
    with TestClient(app, base_url=BASE) as nobody:
        secret, _ = mint(app.state.desk.store, "write", None)
        head = {"authorization": f"Bearer {secret}"}
        offers = nobody.get(f"{V1}/offers", headers=head).json()
        assert (offers["model"][0], offers["data"]) == ("shelf", ["shelf", "digits"])
        sent = document(model="shelf", data="shelf")
        answer = nobody.post(f"{V1}/studies", json=sent, headers=head)
        assert answer.status_code == 201, answer.text
        spec = answer.json()["spec"]
        assert (spec["model"]["name"], spec["data"]) == (
            f"{folder}/nets.py:build",
            {"name": "digits", "settings": {"calibration": 64}},
        )
        assert spec["workers"]["retries"] == 0
        more = document(name="t", model={"name": "shelf", "settings": {"classes": 3}})
        assert "is offered as it is" in nobody.post(f"{V1}/studies", json=more, headers=head).json()["detail"]


def test_a_note_is_changed_by_who_has_read_the_last_one(writer: TestClient) -> None:
    create(writer)
    url = f"{V1}/studies/s"
    etag = writer.get(url).headers["etag"]
    said = "<script>alert(1)</script> größer"
    answer = writer.patch(url, json={"note": said}, headers={"if-match": etag})
    assert (answer.status_code, answer.json()["note"]) == (200, said)
    assert answer.headers["etag"] != etag
    refused(writer.patch(url, json={"note": "late"}, headers={"if-match": etag}), 412, "changed-meanwhile")
    refused(writer.patch(url, json={"note": "late"}, headers={"if-match": "W/x"}), 412, "changed-meanwhile")
    refused(writer.patch(url, json={"note": "blind"}), 428, "if-match-needed")
    refused(writer.patch(url, json={"spec": {}}, headers={"if-match": "*"}), 422, "invalid-request")
    assert writer.get(url).json()["note"] == said
    assert writer.patch(url, json={"note": ""}, headers={"if-match": "*"}).status_code == 200


def test_a_study_is_hidden_and_comes_back(writer: TestClient, home: str) -> None:
    create(writer)
    refused(writer.delete(f"{V1}/studies/s"), 409, "illegal-verb")
    writer.post(f"{V1}/studies/s:cancel")
    assert writer.delete(f"{V1}/studies/s").status_code == 204
    refused(writer.get(f"{V1}/studies/s"), 404, "unknown-study")
    refused(writer.delete(f"{V1}/studies/s"), 404, "unknown-study")
    assert writer.post(f"{V1}/studies/s:undelete").status_code == 200
    assert writer.get(f"{V1}/studies/s/status").json()["state"] == "idle"
    refused(writer.post(f"{V1}/studies/s:undelete"), 409, "not-deleted")
    refused(writer.post(f"{V1}/studies/t:undelete"), 404, "unknown-study")


def test_a_misspelt_verb_is_said_to_be_one(writer: TestClient) -> None:
    create(writer)
    said = refused(writer.post(f"{V1}/studies/s:cancle"), 404, "no-such-verb")
    assert said["hint"] == "did you mean 'cancel'?"
    paths = writer.get(f"{V1}/openapi.json").json()["paths"]
    assert {path.partition("{study}:")[2] for path in paths} - {""} == set(VERBS)


def test_the_name_of_a_hidden_study_is_said_to_be_taken_at_once(writer: TestClient) -> None:
    create(writer)
    for path in ("/studies", "/studies:validate"):
        refused(writer.post(V1 + path, json=document()), 409, "study-exists")
    writer.post(f"{V1}/studies/s:cancel")
    writer.delete(f"{V1}/studies/s")
    for path in ("/studies", "/studies:validate"):
        refused(writer.post(V1 + path, json=document()), 409, "study-deleted")


def test_verbs_mean_something_in_some_states_only(writer: TestClient, made: FastAPI, home: str) -> None:
    create(writer)
    driver = ServiceStore(home)

    def ask(verb: str) -> Any:
        return writer.post(f"{V1}/studies/s:{verb}")

    assert ask("stop").json() == {"study": "s", "state": "idle", "legal": ["resume", "extend", "delete"]}
    body = refused(ask("pause"), 409, "illegal-verb")
    assert (body["state"], body["legal"]) == ("idle", ["resume", "extend", "delete"])
    assert ask("resume").json()["state"] == "starting"
    with driving.Tenure(driver, "s"):
        assert ask("pause").json()["state"] == "paused"
        assert ask("resume").json()["state"] == "running"
        refused(ask("resume"), 409, "illegal-verb")
        refused(writer.post(f"{V1}/studies/s:extend", json={"trials": 1}), 409, "illegal-verb")
        assert ask("stop").json()["state"] == "stopping"
        assert ask("cancel").json() == {"study": "s", "state": "cancelling", "legal": []}
        refused(ask("stop"), 409, "illegal-verb")
    driver.close()
    refused(writer.post(f"{V1}/studies/t:stop"), 404, "unknown-study")


def test_an_extension_says_what_it_changed(writer: TestClient, made: FastAPI, home: str) -> None:
    create(writer)
    runs.open_study("s", home).run()
    made.state.desk.store.keep_care("s", wanted=False)
    answer = writer.post(f"{V1}/studies/s:extend", json={"trials": 5, "proposer": "qmc", "constraints": []})
    body = answer.json()
    assert (answer.status_code, body["revision"], body["first_trial"]) == (201, 1, 20)
    assert any("proposer" in line for line in body["changes"])
    assert body["earlier"]["reused"] == 20
    assert writer.get(f"{V1}/studies/s/status").json()["state"] == "starting"
    assert runs.open_study("s", home).run() is Ending.DONE
    assert writer.get(f"{V1}/studies/s/status").json()["finished"] == 25
    made.state.desk.store.keep_care("s", wanted=False)
    for sent, code in (
        ({"proposer": {"name": "tune", "settings": {"searcher": "a:b"}}}, "spec-error"),
        ({"space": "/etc/x.yaml"}, "spec-error"),
        ({"from": ["a@b"]}, "spec-error"),
        ({}, "spec-error"),
        ({"model": "digits_net"}, "invalid-request"),
        ({"trials": 0}, "invalid-request"),
    ):
        refused(writer.post(f"{V1}/studies/s:extend", json=sent), 422, code)


def test_an_edit_of_a_trial_is_evaluated(writer: TestClient, made: FastAPI, home: str) -> None:
    create(writer)
    study = runs.open_study("s", home)
    study.run()
    made.state.desk.store.keep_care("s", wanted=False)
    before = writer.get(f"{V1}/studies/s/trials/3").json()["policy"]
    edits = ["conv[01].weight_bits=2", "prune(x).y=1"]
    refused(writer.post(f"{V1}/studies/s/trials", json={"trial": 3, "edits": edits}), 422, "spec-error")
    answer = writer.post(f"{V1}/studies/s/trials", json={"trial": 3, "edits": [edits[0], "conv1.weight_bits = 4"]})
    assert answer.status_code == 202
    wanted = answer.json()["policy"]
    assert wanted["quantize"]["conv0"]["weight_bits"] == 2
    assert wanted["quantize"]["conv1"]["weight_bits"] == 4
    assert wanted["prune"] == before["prune"]
    known = refused(writer.post(f"{V1}/studies/s/trials", json={"policy": before}), 409, "known-policy")
    assert known["number"] == 3
    refused(writer.post(f"{V1}/studies/s/trials", json={"trial": 3, "edits": []}), 409, "known-policy")
    other = json.loads(json.dumps(wanted))
    other["quantize"]["conv0"]["weight_bits"] = 8
    whole = writer.post(f"{V1}/studies/s/trials", json={"policy": other, "run": False})
    assert whole.status_code == 202
    assert [one["wish"] for one in writer.get(f"{V1}/studies/s/wishes").json()["wishes"]] == [
        answer.json()["wish"],
        whole.json()["wish"],
    ]
    assert answer.json()["state"] == "starting", "the budget is spent, so that only the wish is evaluated"
    study.run()
    rows = [writer.get(f"{V1}/studies/s/trials/{number}").json() for number in (20, 21)]
    assert [row["policy"] for row in rows] == [wanted, other]
    assert [row["state"] for row in rows] == ["complete", "complete"]
    for sent in (
        {"trial": 3, "edits": ["conv0.weight_bits=3"]},
        {"trial": 3, "edits": ["conv9.weight_bits=2"]},
        {"trial": 3, "edits": ["conv0.bits=2"]},
        {"trial": 3, "edits": ["nonsense"]},
        {"trial": 3, "rung": 1},
        {"policy": {"prune": {}}},
        {"policy": {"prune": 3}},
        {"policy": before, "trial": 3},
        {"policy": before, "edits": ["conv0.weight_bits=2"]},
        {},
    ):
        assert writer.post(f"{V1}/studies/s/trials", json=sent).status_code == 422, sent
    refused(writer.post(f"{V1}/studies/s/trials", json={"trial": 99}), 404, "unknown-trial")


def test_uploads_are_safetensors_and_nothing_else(writer: TestClient, home: str) -> None:
    good = save({"a": np.ones((2, 3), np.float32)})
    answer = writer.post(f"{V1}/uploads", content=good)
    assert answer.status_code == 201, answer.text
    assert answer.json()["tensors"] == {"a": [2, 3]}
    assert answer.json()["sha256"] == hashlib.sha256(good).hexdigest()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("x", "y")
    for bad in (pickle.dumps({"a": 1}), packed.getvalue(), b"", good[:-1], b"\xff" * 64, b'{"a": 1}'):
        refused(writer.post(f"{V1}/uploads", content=bad), 422, "spec-error")
    refused(writer.post(f"{V1}/uploads", content=b"x" * 100_001), 413, "too-large")
    folder = Path(f"{home}.uploads")
    assert [path.name for path in folder.iterdir()] == [f"{answer.json()['sha256']}.safetensors"]


def test_the_builder_s_child_looks_at_uploads_and_dies_alone(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(save({"a": np.ones((2, 3), np.float32)}))
    assert apart({"do": "inspect", "path": str(file)}, 60) == {"a": [2, 3]}
    with pytest.raises(WorkerError, match=r"inspect: took longer than 0\.01 s and was ended"):
        apart({"do": "inspect", "path": str(file)}, 0.01)
    with pytest.raises(WorkerError, match="nonsense: its process ended with 1"):
        apart({"do": "nonsense"}, 60)


def test_exports_are_operations_and_files_are_taken_by_their_content(
    writer: TestClient, made: FastAPI, home: str
) -> None:
    create(writer)
    runs.open_study("s", home).run()
    asked = writer.post(f"{V1}/studies/s/exports", json={"number": 3})
    assert asked.status_code == 202
    url = asked.headers["location"]
    assert writer.get(url).json()["state"] == "queued"
    made.state.desk.supervisor.export()
    done = writer.get(url).json()
    assert (done["state"], "there is no network to build or export" in done["said"]) == ("failed", True)
    refused(writer.post(f"{V1}/studies/s/exports", json={"number": 99}), 404, "unknown-trial")
    refused(writer.post(f"{V1}/studies/s/exports", json={"number": 3, "formats": ["../x"]}), 422, "invalid-request")
    refused(writer.post(f"{V1}/studies/s/exports", json={"number": 3, "formats": ["onnx", "exe"]}), 422, "spec-error")
    refused(writer.get(f"{V1}/operations/{'0' * 32}"), 404, "unknown-operation")

    digest = Blobs.beside(home).put(b"content")
    refused(writer.get(f"{V1}/artifacts/{digest}"), 404, "unknown-artifact")
    made.state.desk.store.keep_artifact("s", Artifact(digest, 3, "onnx", "model.onnx", 7))
    found = writer.get(f"{V1}/artifacts/{digest}")
    assert (found.content, found.headers["content-type"]) == (b"content", "application/octet-stream")
    assert found.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    for path in ("..", "../automc.db", "%2e%2e%2fautomc.db", "0" * 63, digest.upper(), f"{digest}/x"):
        assert writer.get(f"{V1}/artifacts/{path}").status_code in (404, 422), path


def test_an_export_that_breaks_a_promise_keeps_its_files_below_rejected(
    writer: TestClient, made: FastAPI, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(writer)
    runs.open_study("s", home).run()
    reason = "constraint macs_ratio <= 0.5 does not hold: 0.6"

    def broken(study: Study, trial: Trial, folder: Path, formats: Sequence[str]) -> Written:
        into = rejected(folder)
        into.mkdir(parents=True)
        (into / "model.onnx").write_bytes(b"network")
        (into / "REASON.txt").write_text(f"{reason}\n")
        return Written(into, cast("Proof", SimpleNamespace(passed=False, to_data=lambda: {"reasons": [reason]})))

    monkeypatch.setattr(jobs, "deliver", broken)
    url = writer.post(f"{V1}/studies/s/exports", json={"number": 3}).headers["location"]
    made.state.desk.supervisor.export()
    told = writer.get(url).json()
    assert (told["state"], told["said"]) == ("failed", reason)
    files = {each["file"]: each["sha256"] for each in told["result"]["files"]}
    assert sorted(files) == ["rejected/REASON.txt", "rejected/model.onnx"]
    listed = writer.get(f"{V1}/studies/s/trials/3").json()["artifacts"]
    assert {each["file"]: each["sha256"] for each in listed} == files
    found = writer.get(f"{V1}/artifacts/{files['rejected/REASON.txt']}")
    assert (found.text, found.headers["content-disposition"]) == (f"{reason}\n", 'attachment; filename="REASON.txt"')
