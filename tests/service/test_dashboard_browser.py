"""The dashboard in a real browser: Chromium, headless, against ``automc serve``.

These take four minutes on two busy cores: services, drivers and children that check a study start as for a user, axe
reads every page, and an export is proved in fresh processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from service_documents import document

from automc.app import editing, runs
from automc.app.config import study_from
from automc.core.trial import TrialState
from automc.service.tokens import mint
from automc.stores.service import ServiceStore

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install automc[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium: apt-get install chromium")

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]
AXE = Path(__file__).with_name("axe") / "axe.min.js"
SECONDS = 60_000
"""What a busy machine may take for anything, in milliseconds."""

expect: Callable[..., Any] = sync_api.expect


@dataclass
class Site:
    """A served database: where, and a token for it."""

    url: str
    secret: str
    storage: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service in a process of its own, with drivers, over a finished study of 60 trials."""
    storage = str(tmp_path_factory.mktemp("browser") / "automc.db")
    evaluator = {"name": "synthetic", "settings": {"layers": 6, "inputs": 1000, "fail": {"error": 0.05}}}
    said = document(storage=storage, budget={"trials": 60}, evaluator=evaluator, constraints=["macs_ratio <= 0.6"])
    with closing(runs.start(study_from(said, "test"))) as made:
        made.run()
    with closing(ServiceStore(storage)) as store:
        secret = mint(store, "admin", None)[0]
    with served(storage) as (_, url):
        yield Site(url, secret, storage)


@contextmanager
def served(storage: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``automc serve`` in a process of its own, and where it is."""
    words = [sys.executable, "-m", "automc.cli", "serve", "--port", str(port), "--storage", storage, "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "the service did not start"
            text += line
        try:
            yield process, json.loads(text)["url"]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@dataclass
class Visit:
    """A page of a browser that is logged in, and what went wrong on it."""

    page: Any
    site: Site
    faults: list[str] = field(default_factory=list)

    def go(self, path: str) -> Any:
        self.page.goto(f"{self.site.url}{path}")
        return self.page


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Visit]]:
    """Makes visits; at the end none may have had an error on the console or asked another machine."""
    made: list[Visit] = []

    def begin(**settings: Any) -> Visit:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        context.set_default_timeout(SECONDS)
        one = Visit(context.new_page(), site)
        made.append(one)
        one.page.on("console", lambda m: one.faults.append(m.text) if m.type in ("error", "warning") else None)
        one.page.on("pageerror", lambda error: one.faults.append(str(error)))
        one.page.on("request", lambda r: None if r.url.startswith(site.url) else one.faults.append(r.url))
        one.go("/login?next=/")
        one.page.get_by_label("token").fill(site.secret)
        one.page.get_by_role("button", name="Log in").click()
        expect(one.page.get_by_role("heading", name="Studies")).to_be_visible(timeout=SECONDS)
        return one

    yield begin
    for one in made:
        assert one.faults == []
        one.page.context.close()


@pytest.mark.slow
def test_a_study_is_started_and_watched(visit: Callable[..., Visit], site: Site) -> None:
    one = visit()
    page = one.go("/new")
    verdict = page.locator("#verdict")
    evaluator = {"name": "synthetic", "settings": {"layers": 4, "sleep_s": 0.05}}
    said = json.dumps(document(name="live", evaluator=evaluator, budget={"trials": 15}))  # which is YAML too
    page.locator("#yaml").fill(said.replace("maximize", "up"))
    expect(page.locator("#mistakes")).to_contain_text("'up' is not allowed", timeout=SECONDS)
    expect(page.get_by_role("button", name="Start the study")).to_be_disabled()
    page.locator("#yaml").fill(said)
    expect(verdict).to_contain_text("It reads well", timeout=SECONDS)
    page.get_by_role("button", name="Start the study").click()
    page.wait_for_url(f"{site.url}/studies/live")
    expect(page.locator("#link")).to_have_text("live", timeout=SECONDS)
    expect(page.locator("#state")).to_have_text("done", timeout=SECONDS)
    expect(page.locator("#cards")).to_contain_text("15 / 15", timeout=SECONDS)
    assert page.locator("#events tr").count() >= 15
    expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    page.get_by_role("button", name="Extend").click()
    page.get_by_label("more trials").fill("5")
    page.get_by_role("button", name="Extend and search on").click()
    expect(page.locator("#cards")).to_contain_text("20 / 20", timeout=SECONDS)
    with closing(ServiceStore(site.storage)) as store:
        assert len(store.trials("live", (TrialState.COMPLETE,))) == 20


@pytest.mark.slow
def test_a_page_outlives_its_service_and_its_driver(visit: Callable[..., Visit], tmp_path: Path) -> None:
    """Of a live study the web process is killed, then the driver, then both: the page says so, goes on by itself, and
    no trial is lost.
    """
    one, storage = visit(), str(tmp_path / "automc.db")
    page, evaluator = one.page, {"name": "synthetic", "settings": {"layers": 4, "sleep_s": 0.5}}
    state, link = page.locator("#state"), page.locator("#link")
    with closing(ServiceStore(storage)) as store:
        secret, kept = mint(store, "admin", None)[0], dict[int, Any]()

        def driver() -> int:
            owner = store.driver("long")
            assert owner is not None
            kept.update({trial.number: trial.measurement for trial in store.trials("long", (TrialState.COMPLETE,))})
            return owner.pid

        def goes_on() -> None:
            expect(link).to_have_text("live", timeout=SECONDS)
            expect(state).to_have_text("running", timeout=SECONDS)
            before = page.locator("#events tr").first.inner_text()
            expect(page.locator("#events tr").first).not_to_have_text(before, timeout=SECONDS)

        with served(storage) as (process, url):
            said = document(name="long", evaluator=evaluator, budget={"trials": 2_000})
            token = {"authorization": f"Bearer {secret}"}
            made = httpx2.post(f"{url}/api/v1/studies", json=said, headers=token, timeout=SECONDS / 1000)
            assert made.status_code == 201, made.text
            page.goto(f"{url}/login?next=/studies/long")
            page.get_by_label("token").fill(secret)
            page.get_by_role("button", name="Log in").click()
            goes_on()
            process.kill()
        expect(link).to_contain_text("trying again", timeout=SECONDS)
        port = int(url.rpartition(":")[2])
        with served(storage, port) as (process, _):
            goes_on()
            os.kill(driver(), signal.SIGKILL)
            expect(state).to_have_text("starting", timeout=SECONDS)
            goes_on()
            process.kill()
            os.kill(driver(), signal.SIGKILL)
        expect(link).to_contain_text("trying again", timeout=SECONDS)
        with served(storage, port):
            goes_on()
            page.get_by_role("button", name="Cancel").click()
            page.get_by_role("button", name="Yes").click()
            expect(state).to_have_text("idle", timeout=SECONDS)
        trials = store.trials("long")
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.WAITING}
        assert len(kept) > 2
        assert {trial.number: trial.measurement for trial in trials if trial.number in kept} == kept
    assert all("ERR_CONNECTION" in fault or "ERR_" in fault or fault.startswith(url) for fault in one.faults), (
        one.faults
    )
    one.faults.clear()


def test_the_front_is_walked(visit: Callable[..., Visit], site: Site) -> None:
    with closing(runs.open_study("s", site.storage)) as study:
        by_size = [t.number for t in sorted(study.front(), key=lambda t: t.measurement.metrics["size_bytes"])]
        early = {t.number for t in study.front(10)}
    one = visit()
    page = one.go("/studies/s/pareto")
    heading, plane = page.locator("#chosen h2"), page.locator("#plane")
    expect(heading).to_contain_text("Trial", timeout=SECONDS)
    plane.focus()
    page.keyboard.press("Home")
    for number in by_size[:4]:
        expect(heading).to_contain_text(f"Trial {number} on rung 0", timeout=SECONDS)
        assert re.search(rf"[?&]trial={number}\b", page.url)
        page.keyboard.press("ArrowRight")
    assert page.locator("#chosen table.heat td").count() >= 6
    plane.locator(f'.dot[data-trial="{by_size[-1]}"]').hover()
    expect(heading).to_contain_text(f"Trial {by_size[-1]} on rung 0", timeout=SECONDS)
    page.get_by_role("button", name="Pin to compare").click()
    page.get_by_label("colour").select_option("macs_ratio")
    expect(page.locator("#key")).to_contain_text("macs_ratio", timeout=SECONDS)
    page.keyboard.press("Escape")
    page.locator("#plane").focus()
    page.keyboard.press("Home")
    expect(page.locator("#chosen")).to_contain_text(f"Framed: differs from trial {by_size[-1]}", timeout=SECONDS)
    slider = page.get_by_label("as of trial")
    slider.fill("10")
    expect(page.locator("#place")).to_have_text("10")
    expect(page.locator(".dot.front")).to_have_count(len(early), timeout=SECONDS)
    shared = page.url
    assert {"at=10", "colour=macs_ratio", f"pin={by_size[-1]}", f"trial={by_size[0]}"} <= set(
        shared.split("?")[1].split("&")
    )
    other = visit().go(shared.removeprefix(site.url))
    expect(other.locator("#chosen h2")).to_contain_text(f"Trial {by_size[0]} ", timeout=SECONDS)
    expect(other.locator(".dot.front")).to_have_count(len(early), timeout=SECONDS)


def test_a_cell_is_asked_what_if_and_evaluated(visit: Callable[..., Visit], site: Site) -> None:
    with closing(runs.open_study("s", site.storage)) as study:
        best, known = study.front()[0], len(study.records())
        layer = study.layers.layers[1].name
        bits = best.policy.settings("quantize")[layer]["weight_bits"]
    page = visit().go("/studies/s/layers")
    cell = page.locator("table[data-setting=weight_bits] tbody td").first
    cell.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.locator("#whatif")
    expect(dialog).to_contain_text(f"Trial {best.number}, {layer}: weight_bits {bits}.")
    value = json.loads(dialog.locator("select").input_value())
    assert value != bits
    dialog.get_by_role("button", name="Predict").click()
    expect(dialog.locator("table")).to_contain_text("size_bytes", timeout=SECONDS)
    dialog.get_by_role("button", name="Evaluate it").click()
    expect(dialog).to_contain_text("It waits as wish", timeout=SECONDS)
    page.goto(f"{site.url}/studies/s")
    expect(page.locator("#cards")).to_contain_text(f"{known + 1} / 60", timeout=SECONDS)
    with closing(runs.open_study("s", site.storage)) as study:
        assert study.trial(known).policy == editing.edited(study, best.policy, [f"{layer}.weight_bits={value}"])


@pytest.mark.slow
def test_a_trial_is_exported_and_downloaded(visit: Callable[..., Visit], site: Site) -> None:
    """Of a real network; most of the time is the proof's, which loads the file in fresh processes and measures it."""
    space = {"rules": [{"operator": "prune", "settings": {"prune_ratio": [0.2, 0.4]}}]}
    said = document(
        name="real", storage=site.storage, evaluator="network", space=space, budget={"trials": 2}, constraints=[]
    )
    with closing(runs.start(study_from(said, "test"))) as made:
        made.run()
        number = made.front()[0].number
    one = visit()
    page = one.go(f"/studies/real/pareto?trial={number}")
    page.get_by_role("button", name="Export…").click()
    page.locator("#export").get_by_role("button", name="Export", exact=True).click()
    link = page.locator("#said a").filter(has_text="model.onnx")
    expect(link).to_be_visible(timeout=4 * SECONDS)
    with page.expect_download() as found:
        link.click()
    digest = hashlib.sha256(Path(found.value.path()).read_bytes()).hexdigest()
    assert link.get_attribute("href").endswith(digest)
    page = one.go(f"/studies/real/trials/{number}")
    expect(page.get_by_role("link", name="model.onnx")).to_be_visible(timeout=SECONDS)


def test_ranges_filters_and_sql(visit: Callable[..., Visit], site: Site) -> None:
    with closing(runs.open_study("s", site.storage)) as study:
        kept = len(study.trials("state == complete and size_ratio <= 0.1"))
        slow = len(study.trials("macs_ratio < 0.4"))
    one = visit()
    page = one.go("/studies/s/parallel")
    page.get_by_label("size_ratio to").fill("0.1")
    page.keyboard.press("Tab")
    expect(page.locator("#kept h2")).to_contain_text(f"{kept} of ", timeout=SECONDS)
    page.reload()
    expect(page.locator("#kept h2")).to_contain_text(f"{kept} of ", timeout=SECONDS)
    grab = page.locator("#lines .grab").first
    grab.scroll_into_view_if_needed()
    axis = grab.bounding_box()
    page.mouse.move(axis["x"] + 9, axis["y"] + 2)
    page.mouse.down()
    page.mouse.move(axis["x"] + 9, axis["y"] + axis["height"] / 3, steps=4)
    page.mouse.up()
    page.wait_for_url("**top1%3A**", timeout=SECONDS)
    page = one.go("/studies/s/trials")
    page.get_by_label("filter").fill("macs_ratio < 0.4")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(max(slow, 1), timeout=SECONDS)
    page = one.go("/sql")
    page.get_by_label("Statement").fill("SELECT count(*) AS n FROM trials WHERE study = 's'")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#answer")).to_contain_text("n", timeout=SECONDS)
    expect(page.locator("#count")).to_have_text("1 row", timeout=SECONDS)


def test_logged_out_is_out(visit: Callable[..., Visit]) -> None:
    one = visit()
    one.page.get_by_role("button", name="Log out").click()
    expect(one.page.get_by_label("token")).to_be_visible(timeout=SECONDS)
    one.go("/studies/s/pareto?trial=3")
    expect(one.page.get_by_label("token")).to_be_visible(timeout=SECONDS)
    assert one.page.url.endswith("/login?next=/studies/s/pareto%3Ftrial%3D3")


ALL = ("/", "/new", "/sql", "/system", "/studies/s", "/studies/s/pareto", "/studies/s/layers", "/studies/s/parallel")
ALL += ("/studies/s/trials", "/studies/s/trials/5", "/studies/s/compare?a=5&b=7")
FOUR = ("/", "/studies/s", "/studies/s/pareto", "/studies/s/layers")


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "places"), [("light", ALL), ("dark", FOUR)])
def test_axe_finds_no_fault(visit: Callable[..., Visit], scheme: str, places: tuple[str, ...]) -> None:
    """axe-core's rules, contrast among them; it is a script that the pages' own policy would not let in."""
    one = visit(color_scheme=scheme, bypass_csp=True)
    source, faults = AXE.read_text(encoding="utf-8"), []
    for place in places:
        page = one.go(place)
        page.wait_for_timeout(1000)  # for the charts; no stream of events ever ends
        page.evaluate(source)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(found["passes"]) > 20, place
        faults += [(place, v["id"], v["nodes"][0]["html"]) for v in found["violations"]]
    assert faults == []
