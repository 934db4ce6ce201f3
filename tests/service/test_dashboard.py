"""The dashboard's pages: what they show, what they load, and that nobody's text becomes markup."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from automc.app import comparing, editing
from automc.app.tables import cell
from automc.core.metrics import Measurement
from automc.core.ports import Outcome, Proposal
from automc.core.trial import TrialState
from automc.service.dashboard import STATIC
from automc.service.rendering import POLICY
from automc.stores.service import ServiceStore

Make = Callable[..., TestClient]
HTML = {"accept": "text/html,application/xhtml+xml"}
EVIL = "<img src=x onerror=alert(1)>"
WORSE = "</script><script>alert(1)</script>'\""
ALL = ("/", "/new", "/sql", "/system")
OF_STUDY = ("", "/pareto", "/layers", "/parallel", "/trials", "/trials/3", "/compare", "/compare?a=1&b=2&all=1")
PAGES = (*ALL, *(f"/studies/s{place}" for place in OF_STUDY))


class Page(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def loads(self) -> list[str]:
        """The addresses of what the page loads or leads to."""
        return [a[key] for _, a in self.elements for key in ("src", "href", "action") if key in a]


@pytest.fixture(params=PAGES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_page_loads_only_what_is_here(place: str, client: Make) -> None:
    admin = client("admin")
    answer = admin.get(place, headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert "http://" not in answer.text.replace("http://127.0.0.1:8765", "")
    assert "https://" not in answer.text
    page = Page(answer.text)
    assert all("src" in s or s.get("type") == "application/json" for s in page.all("script")), "no inline script"
    assert not page.all("style")
    assert not [a for _, a in page.elements if "style" in a or any(key.startswith("on") for key in a)]
    for target in {urljoin(place, urlsplit(load).path or place) for load in page.loads if not load.startswith("#")}:
        if target.startswith("/api/") or target == "/logout":
            continue
        # The last trial's page leads to the one that may come.
        assert admin.get(target, headers=HTML).status_code == 200, f"{place} leads to {target}"


def test_every_page_can_be_read_without_seeing_it(place: str, client: Make) -> None:
    page = Page(client("admin").get(place, headers=HTML).text)
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert page.all("html")[0]["lang"] == "en"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for key in ("aria-labelledby", "aria-describedby", "for"):
        assert {a[key] for _, a in page.elements if key in a} <= set(ids)
    assert all("aria-label" in a for tag, a in page.elements if a.get("role") == "region")


def test_scripts_and_styles_are_whole(client: Make) -> None:
    """Every import leads to a file, every file is served to anybody, and none asks another machine for anything."""
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".js", ".css", ".svg", ""}
    assert any(path.name == "LICENSE" for path in files), "uPlot's licence travels with it"
    nobody = client(None)
    for path in files:
        where = path.relative_to(STATIC).as_posix()
        answer = nobody.get(f"/static/{where}")
        assert (answer.status_code, answer.content) == (200, path.read_bytes()), where
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        text = re.sub(r"^\s*\*.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        foreign = set(re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+", text)) - {"http://www.w3.org"}
        assert path.suffix == "" or not foreign or "uPlot" in where, where  # its comments name where it learned
        for target in re.findall(r'from "([^"]+)"', text) if path.suffix == ".js" else ():
            assert (path.parent / target).is_file(), f"{where} imports {target}"
        own = path.suffix == ".js" and "vendor" not in where
        assert not own or not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|\bstyle=", text), where


def test_what_is_no_such_file_is_behind_the_gate(client: Make) -> None:
    for path in ("/static/", "/static/nothing.js", "/static/../dashboard.py", "/static/%2e%2e/dashboard.py", "/static"):
        assert client(None).get(path).status_code == 401, path
        assert client("read").get(path).status_code == 404, path
    assert client(None).post("/static/dom.js").status_code == 401


def test_a_wheel_has_every_file() -> None:
    root = Path(__file__).resolve().parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["automc"]
    files = [path for name in ("static", "templates") for path in (STATIC.parent / name).rglob("*") if path.is_file()]
    assert len(files) > 25
    for path in files:
        where = path.relative_to(root / "automc").as_posix()
        matching = [p for p in patterns if fnmatch.fnmatch(where, p) and p.count("/") == where.count("/")]
        assert matching, f"{where} is in no pattern of package-data"


def test_a_browser_without_a_session_is_led_to_the_login(client: Make) -> None:
    browser = client(None, follow_redirects=False)
    answer = browser.get("/studies/s/pareto?x=macs&trial=3", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=" + quote("/studies/s/pareto?x=macs&trial=3")
    page = browser.get(answer.headers["location"], headers=HTML)
    assert (page.status_code, page.headers["content-security-policy"]) == (200, POLICY)
    [given] = re.findall(r'id="given">(.*?)</script>', page.text)
    assert json.loads(given)["next"] == "/studies/s/pareto?x=macs&trial=3"
    assert "Pareto" not in page.text
    assert 'id="login" method="post">' in page.text, "what is sent before the script runs is in no address"
    assert '<button class="main" disabled>Log in' in page.text
    wrong = browser.get("/login?code=wrong", headers=HTML)
    assert (wrong.status_code, "was used, or has ended" in wrong.text) == (401, True)
    assert browser.get("/studies/s").headers["content-type"] == "application/problem+json", "a program gets a problem"


def test_refusals_are_pages(client: Make) -> None:
    answer = client("read").get("/studies/S1", headers=HTML)
    assert (answer.status_code, answer.headers["content-security-policy"]) == (404, POLICY)
    assert "no study" in Page(answer.text).text
    assert client("read").get("/nowhere", headers=HTML).status_code == 404
    assert client("read").get("/studies/s/trials/999", headers=HTML).status_code == 404
    foreign = client("read").get("/", headers={**HTML, "host": "evil.example"})
    assert (foreign.status_code, "does not answer to that name" in foreign.text) == (421, True)
    api = client("read").get("/api/v1/studies/S1", headers=HTML)
    assert api.headers["content-type"] == "application/problem+json", "routes for programs stay as they are"


def test_nobodys_text_becomes_markup(app: FastAPI, client: Make) -> None:
    store: ServiceStore = app.state.desk.store
    facts = store.facts("s")
    store.create(replace(store.spec("s"), name=EVIL, revision=0), facts)
    number = store.add(EVIL, Proposal(store.trials("s")[0].policy), 0).number
    running = store.move(EVIL, store.trials(EVIL)[0].to(TrialState.RUNNING))
    said = Outcome(number, 1, TrialState.FAILED, reason="error", message=WORSE, log=WORSE, host=WORSE)
    store.move(EVIL, running.to(TrialState.FAILED, reason="error", message=WORSE), said)
    admin, name = client("admin"), quote(EVIL, safe="")
    try:
        places = [*ALL, *(f"/studies/{name}{place.replace('/3', '/0')}" for place in OF_STUDY[:-1])]
        for text in (name, quote(WORSE, safe="")):
            places += [f"/studies/s/trials?where={text}", f"/login?code={text}", f"/login?next={text}", f"/{text}"]
        for place in places:
            answer = admin.get(place, headers=HTML)
            assert answer.status_code < 500, place
            assert not re.search("<script>alert|<img", answer.text), place
        shown = admin.get(f"/studies/{name}/trials/0", headers=HTML).text
        assert shown.count("&lt;script&gt;alert(1)") == 4, "message, the attempt's message, log and host"
        assert shown.count("&lt;img src=x") >= 2, "title and heading"
    finally:
        store.delete(EVIL)


def test_the_list_of_studies(client: Make, app: FastAPI) -> None:
    page = Page(client("read").get("/", headers=HTML).text)
    [row] = [a for a in page.all("tr") if a.get("data-study") == "s"]
    assert row
    assert page.all("progress")[0] | {"aria-label": ""} == {"max": "20", "value": "20", "aria-label": ""}
    study = app.state.desk.study("s")
    for metric, value in study.summary()["best"].items():
        assert f"{metric} {cell(metric, value)}" in page.text
    assert "New study" not in page.text, "a reader starts none"
    assert "New study" in Page(client("write").get("/", headers=HTML).text).text


def test_the_table_of_trials(client: Make, app: FastAPI) -> None:
    reader, study = client("read"), app.state.desk.study("s")
    page = Page(reader.get("/studies/s/trials", params={"where": "number < 5", "order_by": "-top1"}, headers=HTML).text)
    links = [a["href"] for a in page.all("a") if re.search(r"/trials/\d+$", a["href"])]
    expected = study.trials("number < 5", ["-top1"])["number"]
    assert links == [f"/studies/s/trials/{number}" for number in expected]
    for form in ("csv", "ndjson", "parquet"):
        [link] = [a["href"] for a in page.all("a") if a["href"].endswith(f"format={form}")]
        assert parse_qs(urlsplit(link).query)["where"] == ["number < 5"]
        assert reader.get(link).status_code == 200
    wrong = reader.get("/studies/s/trials", params={"where": "top2 > 1"}, headers=HTML)
    assert wrong.status_code == 422
    assert "unknown name &#39;top2&#39;, did you mean" in wrong.text


def test_trials_go_on_on_the_next_page(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automc.service.study_pages.ROWS", 8)
    reader, place, seen = client("read"), "/studies/s/trials?order_by=size_bytes", []
    while place:
        text = reader.get(place, headers=HTML).text
        seen += re.findall(r'<a href="/studies/s/trials/(\d+)">', text)
        rest = re.search(r'<a href="(\?[^"]*after=[^"]*)">The next page', text)
        place = f"/studies/s/trials{rest[1].replace('&amp;', '&')}" if rest else ""
    assert sorted(map(int, seen)) == list(range(20))


def test_a_trial_beside_the_original(client: Make, app: FastAPI) -> None:
    study = app.state.desk.study("s")
    text = Page(client("read").get("/studies/s/trials/3", headers=HTML).text).text
    trial = study.trial(3)
    rows = comparing.differences(Measurement(study.baseline), trial.measurement)
    for row in comparing.difference_rows(rows, ("original", "trial 3")):
        assert all(value in text for value in row.values()), row
    assert trial.policy.fingerprint in text
    assert all(layer.name in text for layer in study.layers.layers)


def test_two_trials_beside_each_other(client: Make, app: FastAPI) -> None:
    reader, study = client("read"), app.state.desk.study("s")
    text = Page(reader.get("/studies/s/compare?a=1&b=2", headers=HTML).text).text
    found = comparing.compare((study, study.trial(1)), (study, study.trial(2)))
    for row in comparing.policy_contrast(found.policy, False):
        assert all(value in text for value in row.values())
    wrong = reader.get("/studies/s/compare?a=1&b=99", headers=HTML)
    assert (wrong.status_code, "has no trial 99" in wrong.text) == (404, True)


def test_axes_that_a_study_lacks_are_those_it_would_choose(client: Make) -> None:
    reader = client("read")
    for query, x, y in (
        ("", "size_bytes", "top1"),
        ("?x=macs&y=loss", "macs", "loss"),
        ("?x=no", "size_bytes", "top1"),
    ):
        page = Page(reader.get(f"/studies/s/pareto{query}", headers=HTML).text)
        assert page.text
        chosen = re.findall(
            r"<option selected>(\w+)</option>", reader.get(f"/studies/s/pareto{query}", headers=HTML).text
        )
        assert chosen[:2] == [x, y], query


def test_points_say_when_they_were_known(client: Make, app: FastAPI) -> None:
    """The front after n finished trials has only points whose place is at most n."""
    reader, study = client("read"), app.state.desk.study("s")
    found = reader.get("/api/v1/studies/s/scatter").json()
    order = list(study.store.finishing("s"))
    assert found["place"] == [order.index(number) + 1 for number in found["number"]]
    place = dict(zip(found["number"], found["place"], strict=True))
    for at in (1, 7, 20):
        members = [row["number"] for row in reader.get(f"/api/v1/studies/s/pareto?at={at}").json()["trials"]]
        assert all(place[number] <= at for number in members)


def test_what_happens_in_a_study(client: Make, app: FastAPI) -> None:
    found = client("read").get("/api/v1/studies/s/activity?runs=7").json()
    store = app.state.desk.store
    attempts = sorted(store.attempts("s"), key=lambda one: (one.number, one.attempt))[-7:]
    assert [(run["number"], run["attempt"], run["pid"]) for run in found["runs"]] == [
        (one.number, one.attempt, one.pid) for one in attempts
    ]
    assert found["pace"]["place"] == list(range(1, 21))
    assert found["pace"]["at"] == sorted(found["pace"]["at"])
    assert len(store.pace("s", 3)) == 3
    assert [store.pace("s", 3)[i].place for i in (0, -1)] == [1, 20]
    assert sum(fate["trials"] for fate in found["fates"]) == 20
    assert client("read").get("/api/v1/studies/nope/activity").status_code == 404


def test_the_live_page_hears_every_kind_of_event() -> None:
    files = (STATIC.parents[1] / "stores").rglob("*.py")
    written = {kind for path in files for kind in re.findall(r'log\(\w+, \w+, "(\w+)"', path.read_text())}
    [said] = re.findall(r"const KINDS = \[(.*?)\];", (STATIC / "events.js").read_text(), re.DOTALL)
    assert len(written) > 10
    assert set(re.findall(r'"(\w+)"', said)) == written


def test_a_study_file_is_read_while_it_is_typed(client: Make) -> None:
    writer, yaml = client("write"), {"content-type": "application/yaml"}
    shown = Page(writer.get("/new", headers=HTML).text).text
    example = shown[shown.index("name: my_study") : shown.index("seed: 0") + 8]
    good = writer.post("/api/v1/studies:parse", content=example, headers=yaml)
    assert (good.status_code, good.json()["errors"]) == (200, [])
    assert good.json()["document"]["budget"] == {"trials": 60}
    for change, pointer, line, words in (
        (("top1: maximize", "top1: up"), "/objectives/top1", 5, "maximize"),
        (("space: joint", "space: joit"), "/space", 4, "joint"),
        (("model: digits_net", "model: /etc/passwd"), "/model", 2, "not offered"),
        (("name: my_study", "# no name"), "/name", 2, "is missing"),
        (("trials: 60", "trials: 0"), "/budget/trials", 8, "from 1 to"),
    ):
        wrong = writer.post("/api/v1/studies:parse", content=example.replace(*change), headers=yaml)
        assert wrong.json()["document"] is None
        mistake = wrong.json()["errors"][0]
        assert (mistake["pointer"], mistake["line"]) == (pointer, line), mistake
        assert words in mistake["detail"], mistake
    for text in ("a: [", "a: 1\na: 2", "- 1", "", "\0", b"\xff", "!!python/object:os.system x", "&a [*a]"):
        wrong = writer.post("/api/v1/studies:parse", content=text, headers=yaml)
        assert (wrong.status_code, wrong.json()["document"]) == (200, None), text
        assert wrong.json()["errors"][0]["detail"], text


def test_what_if_a_decision_were_another(client: Make, app: FastAPI) -> None:
    """The edit of a trial that leads to the policy of another trial foretells that one's costs."""
    reader, study = client("read"), app.state.desk.study("s")
    page = reader.get("/studies/s/layers", headers=HTML).text
    [given] = re.findall(r'id="given">(.*?)</script>', page)
    sites = json.loads(given)["sites"]
    assert {site["layer"] for site in sites if site["operator"] == "quantize"} == {
        la.name for la in study.layers.layers
    }
    site = next(site for site in sites if site["setting"] == "weight_bits")
    trial = study.front()[0]
    now = trial.policy.settings("quantize")[site["layer"]]["weight_bits"]
    other = next(bits for bits in site["options"] if bits != now)
    edit = f"{site['layer']}.weight_bits={other}"
    found = reader.get("/api/v1/studies/s/whatif", params={"trial": trial.number, "edit": edit}).json()
    policy = editing.edited(study, trial.policy, [edit])
    measured = study.evaluator.evaluate(policy, 0, lambda step, value: True).metrics
    assert found["fingerprint"] == policy.fingerprint
    assert found["metrics"]["macs"]["predicted"] == pytest.approx(measured["macs"]), "bits change no MACs"
    assert found["metrics"]["bops"]["predicted"] == pytest.approx(measured["bops"])
    assert (found["metrics"]["size_bytes"]["predicted"] < trial.measurement.metrics["size_bytes"]) == (other < now)
    assert found["metrics"]["top1"]["how"] == "read off trials"
    back = {"trial": trial.number, "edit": f"{site['layer']}.weight_bits={now}"}
    assert reader.get("/api/v1/studies/s/whatif", params=back).json()["known"] == trial.number
    wrong = reader.get("/api/v1/studies/s/whatif", params={"trial": trial.number, "edit": "nowhere.weight_bits=4"})
    assert wrong.status_code == 422
