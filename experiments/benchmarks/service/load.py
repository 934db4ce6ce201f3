"""The dashboard over a study of 100,000 trials, and under load; beside optuna-dashboard where that is installed.

    python experiments/benchmarks/service/load.py [--trials 100000] [--peer 10000] [--seconds 60] [--rounds 5]

Needs Chromium and playwright; optuna-dashboard with ``pip install optuna-dashboard``. ``engine/filled.py`` makes the
study. First paint is what Chromium reports of a page (first contentful paint); *there* is when what the page is for can
be seen: the front in its plane, the rows of the table. Then 20 dashboards hear the events and ask every 5 s what the
page of a study asks, while a driver writes 300 results a second, or as many as the disk and the processors take.
optuna-dashboard has no events: its 20 pages ask for the study every 5 s, and its driver calls ``add_trial``.

optuna-dashboard holds every trial in memory, about 0.1 MB each: it gets the first 10,000 trials of the study, and the
service is measured with a study of these alone, too. Written to ``load.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
import filled
import peer
from common import publish, table

from automc.service.tokens import mint
from automc.stores.engine import journal
from automc.stores.service import ServiceStore

HERE = Path(__file__).resolve().parent
NAME, DASHBOARDS, RATE = filled.spec().name, 20, 300
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAINT = "() => performance.getEntriesByType('paint').find(p => p.name === 'first-contentful-paint')?.startTime ?? -1"
HEAD = ["dashboard", "trials", "results/s", "database is locked", "other errors", "event lag p50 / p99, ms"]
HEAD += ["answer p50 / p99, ms", "events", "answers", "not answered"]
PATIENCE = 300_000
"""Milliseconds that a page may take."""


@contextmanager
def served(storage: Path) -> Iterator[tuple[str, str]]:
    """``automc serve`` in a process of its own: where, and a token."""
    with closing(ServiceStore(str(storage))) as store:
        secret = mint(store, "read", None)[0]
    words = [sys.executable, "-m", "automc.cli", "serve", "--port", "0", "--json", "--storage", str(storage)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "the service did not start"
            text += line
        try:
            yield json.loads(text)["url"], secret
        finally:
            process.terminate()


def painted(base: str, token: str, places: Sequence[tuple[str, str]], rounds: int) -> list[tuple[float, float, float]]:
    """Of each (path, selector): first paint of the first visit, and the medians of first paint and of when the selector
    was there of the others, in ms.
    """
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        if token:
            page.goto(f"{base}/login?next=/")
            page.get_by_label("token").fill(token)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("heading", name="Studies").wait_for()
        for path, selector in places:
            paints, theres = [], []
            for _ in range(rounds + 1):
                began = time.perf_counter()
                page.goto(f"{base}{path}", wait_until="commit")
                page.locator(selector).first.wait_for()
                theres.append(1000 * (time.perf_counter() - began))
                while (paint := float(page.evaluate(PAINT))) < 0:
                    page.wait_for_timeout(50)
                paints.append(paint)
            found.append((paints[0], statistics.median(paints[1:]), statistics.median(theres[1:])))
        browser.close()
    return found


def loaded(kind: str, storage: str, watching: Sequence[str], seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the writer and what the dashboards report, of so many seconds in which both work."""
    wanted = ["--rate", str(RATE), "--seconds", str(seconds + 6)]
    writer = [sys.executable, str(HERE / "writers.py"), kind, storage, NAME, *wanted]
    boards = [sys.executable, str(HERE / "dashboards.py"), *watching, "--seconds", str(seconds)]
    with subprocess.Popen(writer, stdout=subprocess.PIPE, text=True) as writing:
        time.sleep(3)  # it imports, and begins
        seen = subprocess.run(boards, stdout=subprocess.PIPE, text=True, check=True).stdout
        said, _ = writing.communicate()
    return json.loads(said), json.loads(seen)


def row(name: str, trials: int, wrote: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """A line of the table of the load."""
    faults = {**wrote["faults"], **seen["faults"]}
    locked = sum(count for text, count in faults.items() if "locked" in text)
    other = sum(faults.values()) - locked
    rate = f"{wrote['written'] / wrote['seconds']:.0f}"
    cells = [name, f"{trials:,}", rate, str(locked), str(other), _spread(seen["lags"]), _spread(seen["polls"])]
    print(f"{name}: {' | '.join(cells)} faults {faults} answers {seen['statuses']}", file=sys.stderr)
    return [*cells, f"{len(seen['lags']):,}", f"{len(seen['polls']):,}", f"{seen['asked'] - len(seen['polls']):,}"]


def _spread(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return ""
    cut = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"{1000 * cut[49]:,.0f} / {1000 * cut[98]:,.0f}"


def ours(storage: Path, trials: int, said: argparse.Namespace) -> tuple[list[list[str]], list[str]]:
    """The lines of both tables for the service."""
    root = f"/studies/{NAME}"
    places = [(f"{root}/pareto", ".dot.front"), (f"{root}/trials", "tbody tr"), (root, "#cards .card")]
    with served(storage) as (url, token):
        times = painted(url, token, places, said.rounds)
        asked = [f"/api/v1{root}/status", f"/api/v1{root}/activity"]
        watching = [url, "--token", token, "--study", NAME, "--dashboards", str(DASHBOARDS), "--paths", *asked]
        wrote, seen = loaded("automc", str(storage), watching, said.seconds)
    names = ("Pareto", "trials", "live")
    lines = [["automc", f"{trials:,}", n, *(f"{v:,.0f}" for v in t)] for n, t in zip(names, times, strict=True)]
    return lines, row("automc", trials, wrote, seen)


def theirs(source: Path, target: Path, said: argparse.Namespace) -> tuple[list[list[str]], list[str]]:
    """The same for optuna-dashboard."""
    url = peer.fill(source, target, said.peer)
    with peer.served(url) as base:
        (times,) = painted(base, "", [("/dashboard/studies/1", ".main-svg, canvas")], said.rounds)
        watching = [base, "--dashboards", str(DASHBOARDS), "--paths", f"/api/studies/1?after={said.peer}"]
        wrote, seen = loaded("optuna", url, watching, said.seconds)
    return (
        [["optuna-dashboard", f"{said.peer:,}", "study", *(f"{v:,.0f}" for v in times)]],
        row("optuna-dashboard", said.peer, wrote, seen),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the dashboard with a large study and under load.")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--peer", type=int, default=10_000, help="trials of the study beside optuna-dashboard")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filled", type=Path, help="a database that filled.py made of so many trials; it is copied")
    parser.add_argument("--output", type=Path, default=HERE / "load.md")
    said = parser.parse_args()
    if CHROMIUM is None or find_spec("playwright") is None:
        print(
            "load.py: needs Chromium and playwright (apt-get install chromium; pip install playwright)", file=sys.stderr
        )
        return 2
    began = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="automc-load-") as scratch:
        large, small = Path(scratch, "large.db"), Path(scratch, "small.db")
        if said.filled:
            shutil.copy(said.filled, large)
        else:
            _fill(large, said.trials)
        _fill(small, said.peer)
        lines, rows = list[list[str]](), list[list[str]]()

        def keep(part: tuple[list[list[str]], list[str]]) -> None:
            lines.extend(part[0])
            rows.append(part[1])
            report(said.output, lines, rows, said.seconds, began)

        keep(ours(large, said.trials, said))
        if find_spec("optuna_dashboard"):
            keep(theirs(small, Path(scratch, "optuna.db"), said))
        keep(ours(small, said.peer, said))
    return 0


def report(
    output: Path, lines: list[list[str]], rows: list[list[str]], seconds: float, began: tuple[float, float, float]
) -> None:
    """Write what is known so far."""
    assert CHROMIUM is not None
    browser = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True).stdout.strip()
    beside = [
        f"{name} {metadata.version(name)}"
        for name in ("optuna", "optuna-dashboard")
        if find_spec(name.replace("-", "_"))
    ]
    library = f"SQLite {sqlite3.sqlite_version} (journal: {journal()})"
    there, load = len(beside) == 2, f"before: {_load(began)}; after: {_load(os.getloadavg())}"
    publish(
        output,
        "# The dashboard with a large study, and under load",
        table(["dashboard", "trials", "page", "first visit, first paint, ms", "first paint, ms", "there, ms"], lines),
        f"{DASHBOARDS} dashboards and a driver that would write {RATE} results a second, for {seconds:.0f} s:",
        table(HEAD, rows),
        *([] if there else ["optuna-dashboard is not installed (pip install optuna-dashboard): it was left out."]),
        f"{', '.join([browser, library, *beside])}. Load (1, 5, 15 min) {load}.",
    )


def _fill(path: Path, trials: int) -> None:
    with closing(ServiceStore(str(path))) as store:
        filled.fill(store, trials=trials)


def _load(found: tuple[float, float, float]) -> str:
    return ", ".join(f"{one:.1f}" for one in found)


if __name__ == "__main__":
    raise SystemExit(main())
