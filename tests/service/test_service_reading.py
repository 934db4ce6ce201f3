"""What is read over HTTP is what the command line reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from service_documents import document

from automc.app import runs
from automc.app.config import study_from
from automc.app.report import trial_data
from automc.app.study import Study
from automc.app.tables import plain, to_json
from automc.service.desk import Desk
from automc.service.settings import Settings

Make = Callable[..., TestClient]
S = "/api/v1/studies/s"


@pytest.fixture
def study(storage: str) -> Study:
    return runs.open_study("s", storage)


def read(client: Make, path: str, **params: Any) -> Any:
    answer = client("read").get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_list_has_each_study_s_state_and_figures(client: Make, study: Study) -> None:
    (row,) = read(client, "/api/v1/studies")["studies"]
    facts = study.summary()
    assert {key: row[key] for key in ("counts", "budget", "best", "covered")} == {
        key: facts[key] for key in ("counts", "budget", "best", "covered")
    }
    assert (row["name"], row["state"], row["legal"]) == ("s", "done", ["extend", "delete"])
    assert (row["front"], row["finished"]) == (len(facts["front"]), 20)
    assert read(client, f"{S}/status") == row


def test_a_study_is_read_once_and_then_only_when_it_changed(client: Make, study: Study) -> None:
    first = client("read").get(S)
    assert first.json()["spec"] == json.loads(to_json(study.spec.to_data()))
    again = client("read").get(S, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client("read").get(S, headers={"if-none-match": '"other"'}).status_code == 200


def test_summary_and_trial_are_those_of_the_command_line(client: Make, study: Study) -> None:
    assert {**read(client, f"{S}/summary"), "storage": ""} == {**json.loads(to_json(study.summary())), "storage": ""}
    found = read(client, f"{S}/trials/7")
    expected = plain(trial_data(study.trial(7)))
    assert {key: found[key] for key in expected} == expected
    assert [attempt["state"] for attempt in found["history"]] == ["complete"]
    assert [row["layer"] for row in found["layers"]] == [layer.name for layer in study.layers.layers]


def test_trials_come_in_pages(client: Make, study: Study) -> None:
    asked = {"where": "top1 > 0.1", "order_by": "-top1", "fields": "number,top1", "page_size": 6}
    found, token = [], ""
    for _ in range(9):
        page = read(client, f"{S}/trials", **asked, page_token=token)
        found, token = found + page["trials"], page["next_page_token"]
        assert len(page["trials"]) <= 6
        if not token:
            break
    expected = study.trials("top1 > 0.1", ["-top1"], columns=["number", "top1"])
    assert found == plain(expected)


@pytest.mark.parametrize(
    ("form", "accept", "reader"),
    [
        ("csv", "text/csv", lambda data: pd.read_csv(io.BytesIO(data))),
        ("parquet", "application/vnd.apache.parquet", lambda data: pd.read_parquet(io.BytesIO(data))),
        ("ndjson", "application/x-ndjson;q=1, */*", lambda data: pd.read_json(io.BytesIO(data), lines=True)),
    ],
)
def test_rows_have_the_form_that_was_asked_for(
    client: Make, study: Study, form: str, accept: str, reader: Callable[[bytes], pd.DataFrame]
) -> None:
    reader_client = client("read")
    named = reader_client.get(f"{S}/trials", params={"format": form, "page_size": 7})
    asked = reader_client.get(f"{S}/trials", params={"page_size": 7}, headers={"accept": accept})
    assert named.content == asked.content
    assert named.headers["content-type"].startswith(accept.partition(";")[0])
    frame = reader(named.content)
    assert frame["top1"].tolist() == pytest.approx(study.trials(limit=7)["top1"].tolist())
    rest = reader_client.get(f"{S}/trials", params={"page_token": named.headers["x-next-page-token"]}).json()
    assert [row["number"] for row in rest["trials"]] == list(range(7, 20))


def test_the_front_now_and_then(client: Make, study: Study) -> None:
    assert read(client, f"{S}/pareto")["trials"] == plain(study.pareto())
    assert read(client, f"{S}/pareto", at=5)["trials"] == plain(study.pareto(at=5))
    assert read(client, f"{S}/pareto", pick="knee")["trials"] == plain(study.pareto("knee"))


def test_scatter_has_all_of_the_front_and_some_of_the_rest(client: Make, study: Study) -> None:
    front = {trial.number for trial in study.front()}
    whole = read(client, f"{S}/scatter", x="size_bytes", y="top1", colour="bops")
    assert whole["number"] == list(range(20))
    assert {n for n, kind in zip(whole["number"], whole["kind"], strict=True) if kind == "front"} == front
    metrics = [trial.measurement.metrics for trial in study.records() if trial.measurement]
    for axis, name in (("x", "size_bytes"), ("y", "top1"), ("colour", "bops")):
        assert whole[axis] == [m[name] for m in metrics]
    broken = {n for n, kind in zip(whole["number"], whole["kind"], strict=True) if kind == "infeasible"}
    assert broken == {n for n, m in enumerate(metrics) if m["macs_ratio"] > 0.8}
    thin = read(client, f"{S}/scatter", most=3)
    assert (thin["shown"], thin["total"]) == (3, 20 - len(front))
    assert front <= set(thin["number"])
    assert read(client, f"{S}/scatter", most=0)["number"] == sorted(front)


def test_columns_are_read_once_for_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = str(tmp_path / "automc.db")
    with closing(runs.start(study_from(document(storage=storage), "test"))) as made:
        made.run()
    desk, asked = Desk(Settings(storage, drives=False)), []
    numbers = desk.store.numbers
    monkeypatch.setattr(desk.store, "numbers", lambda name, of: asked.append(of) or numbers(name, of))
    first = desk.numbers("s", ["top1", "macs"])
    assert desk.numbers("s", ["macs"]) is first
    both = desk.numbers("s", ["bops"])
    assert asked == [["top1", "macs"], ["bops", "top1", "macs"]]
    assert both.values["macs"].tolist() == first.values["macs"].tolist()
    desk.store.annotate("s", "a note", None)  # an event as any other
    assert desk.numbers("s", ["bops"]).number.tolist() == both.number.tolist()
    assert len(asked) == 3
    desk.close()


def test_layers_are_a_matrix_of_the_front(client: Make, study: Study) -> None:
    found = read(client, f"{S}/layers")
    names = [layer["name"] for layer in found["layers"]]
    assert found["trials"] == [trial.number for trial in study.front()]
    assert sum(layer["params"] for layer in found["layers"]) == pytest.approx(1)
    bits = found["settings"]["weight_bits"]
    for row, trial in zip(bits, study.front(), strict=True):
        asked = trial.policy.settings("quantize")
        assert row == [asked[name]["weight_bits"] for name in names]
    assert read(client, f"{S}/layers", numbers="3,1,3")["trials"] == [3, 1]
    assert client("read").get(f"{S}/layers", params={"numbers": "3,x"}).status_code == 422


def test_convergence_ends_at_the_share_of_the_summary(client: Make, study: Study) -> None:
    found = read(client, f"{S}/convergence")
    assert found["trials"] == 20
    assert found["steps"][-1]["share"] == pytest.approx(study.summary()["covered"])
    assert [step["done"] for step in found["steps"]] == sorted(step["done"] for step in found["steps"])


def test_importance_and_comparison(client: Make) -> None:
    found = read(client, f"{S}/importance")
    assert found["metric"] == "top1"
    both = read(client, f"{S}/compare", first=3, second=4)
    assert (both["first"], both["second"]) == ("s/3", "s/4")
    assert read(client, f"{S}/compare", first=3, second=3)["policy"] == []


@pytest.mark.parametrize(
    ("path", "status", "code", "said"),
    [
        ("/api/v1/studies/t", 404, "unknown-study", "no study 't'"),
        (f"{S}/trials/20", 404, "unknown-trial", "no trial 20"),
        (f"{S}/trials/x", 422, "invalid-request", "path/number"),
        (f"{S}/trials?where=tp1>0", 422, "spec-error", "did you mean 'top1'"),
        (f"{S}/trials?page_token=zz", 422, "spec-error", "page_token: 'zz' is no cursor"),
        (f"{S}/trials?page_size=0", 422, "invalid-request", "query/page_size"),
        (f"{S}/trials?format=xml", 422, "invalid-request", "format"),
        (f"{S}/trials?were=top1>0", 422, "unknown-parameter", "query/were: there is no such parameter here, did you"),
        (f"{S}/layers?front=1", 422, "unknown-parameter", "(parameters: at, numbers)"),
        ("/api/v1/studies?limit=3", 422, "unknown-parameter", "(parameters: none)"),
        (f"{S}/pareto?at=99", 422, "spec-error", "20 trials have finished"),
        (f"{S}/scatter?x=nothing", 422, "spec-error", "no such metric"),
        (f"{S}/importance?metric=map", 422, "spec-error", "did not measure map"),
        (f"{S}/compare?first=1&second=2&other=t", 404, "unknown-study", "no study 't'"),
        ("/api/v1/nowhere", 404, "no-such-route", "Not Found"),
        ("/api/v1/studies/..%2f..%2fetc", 404, "no-such-route", ""),
    ],
)
def test_mistakes_are_problems(client: Make, path: str, status: int, code: str, said: str) -> None:
    answer = client("read").get(path)
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in body["detail"]
    assert {"type", "title", "detail", "place", "hint"} <= body.keys()


def test_hints_say_what_to_do(client: Make) -> None:
    body = client("read").get(f"{S}/trials?where=tp1>0").json()
    assert body["hint"] == "did you mean 'top1'?"


def test_sql_reads_and_changes_nothing(client: Make) -> None:
    ask = client("admin").post
    found = ask("/api/v1/query", json={"sql": "SELECT trial, top1 FROM front ORDER BY trial", "rows": 2}).json()
    assert (found["columns"], len(found["rows"]), found["more"]) == (["trial", "top1"], 2, True)
    for sql in ("DELETE FROM automc_token", "SELECT * FROM nothing", "", "SELECT 1; SELECT 2", "PRAGMA query_only=0"):
        assert ask("/api/v1/query", json={"sql": sql}).status_code == 422
    assert ask("/api/v1/query", json={"sql": "SELECT 9e999 AS x"}).json()["rows"] == [{"x": None}]
    for more in ({"rows": 0}, {"seconds": 16}, {"rows": "many"}, {"sql": 3}):
        assert ask("/api/v1/query", json={"sql": "SELECT 1", **more}).status_code == 422


def test_no_secret_is_read_by_sql(client: Make) -> None:
    answer = client("admin").post("/api/v1/query", json={"sql": "SELECT sha256 FROM automc_token"})
    assert answer.status_code in (200, 422)
    assert "automc_" not in answer.text.replace("automc_token", "")


def test_health_and_figures(client: Make) -> None:
    nobody = client(None)
    assert nobody.get("/healthz").json() == {"status": "alive"}
    assert nobody.get("/readyz").json() == {"status": "ready"}
    assert nobody.get("/metrics").status_code == 401
    text = client("read").get("/metrics").text
    assert 'automc_trials{state="complete",study="s"} 20.0' in text
    assert "automc_http_requests_total" in text


def test_the_openapi_file_is_of_3_1_and_names_every_route(client: Make) -> None:
    found = read(client, "/api/v1/openapi.json")
    assert found["openapi"].startswith("3.1")
    assert {"/api/v1/studies/{study}/trials", "/api/v1/query", "/healthz"} <= found["paths"].keys()
    listed = found["paths"]["/api/v1/studies"]["get"]["responses"]
    assert {"200", "4XX", "5XX"} <= listed.keys()
    assert "application/problem+json" in listed["4XX"]["content"]
