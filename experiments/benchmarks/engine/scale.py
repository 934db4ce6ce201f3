"""What is asked of a study with a hundred thousand trials of 60 decisions, on SQLite and on PostgreSQL.

    python experiments/benchmarks/engine/scale.py [--trials 100000] [--rounds 7] [--only sqlite] [--folder DIRECTORY]

``filled.py`` makes the study. Each question is asked once unheard and then in so many rounds; the table has the
median. Resuming is a process of its own each time: from its start until the proposer (TPE) has answered the first
question, everything told to it. PostgreSQL is the server of the installed package, on a socket, as in the tests, with
its defaults. Written to ``scale.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import filled
from common import publish, table

from automc.app import charts, report, runs
from automc.app.importance import mattered
from automc.app.reporting.found import find
from automc.app.reporting.growth import growth
from automc.app.reporting.report import report as written
from automc.app.solving import solve
from automc.app.study import Study
from automc.core.metrics import Constraint
from automc.stores import open_store
from automc.stores.looking import status
from automc.stores.sql import SqlStore

HERE = Path(__file__).resolve().parent
NAME = "filled"
SLOW_SECONDS = 2.0


def questions(study: Study, trials: int) -> dict[str, Callable[[], Any]]:
    """What people ask, by what it is called; each answers as the command line would, up to the printing."""
    best = study.trials(sort=["-top1"], limit=50)
    return {
        "open": lambda: open_store(study.storage, create=False).close(),
        "a page of 50 trials": lambda: study.trials(limit=50),
        "the page behind one far down": lambda: study.trials(f"number > {trials * 3 // 4}", limit=50),
        "the best 50 by top1": lambda: study.trials(sort=["-top1"], limit=50),
        "the next 50": lambda: study.trials(sort=["-top1"], limit=50, after=best.attrs["after"]),
        "a filter, the first 50": lambda: study.trials("top1 >= 0.6 and size_ratio < 0.1", limit=50),
        "a filter over all trials": lambda: study.trials(
            "top1 >= 0.6 and size_ratio < 0.1", columns=["number", "top1", "size_ratio"]
        ),
        "a filter over layers": lambda: study.trials(
            'all layer("layer3.*").weight_bits >= 3 and kd_temperature > 2', limit=50
        ),
        "one trial": lambda: study.trial(trials // 2),
        "the front": study.pareto,
        "the front and its picture": lambda: picture(study),
        "the front as it was half-way": lambda: study.pareto(at=trials // 2),
        "show": lambda: report.study_text(study),
        "studies": lambda: runs.studies(study.storage),
        "SQL over the front": lambda: study.query("SELECT trial, top1, size_bytes FROM front ORDER BY top1"),
        "how the front grew": lambda: growth(study, study.store.tally(study.name)),
        "the best under a bound": lambda: solve(study, [Constraint.parse("size_ratio <= 0.06")]),
        "what mattered: columns, 2,000 policies, their forest": lambda: mattered(study, "top1"),
        "report: what it reads, but for what mattered": lambda: without_forest(lambda: find(study, "knee")),
        "report: written, but for what mattered": lambda: without_forest(lambda: written(study)),
    }


def without_forest(made: Callable[[], Any]) -> Any:
    with mock.patch("automc.app.reporting.found._mattered", return_value="left out"):
        return made()


def picture(study: Study) -> str:
    axes = charts.pick_axes(study.spec, None, None)
    return charts.scatter(charts.of(study, axes))


def milliseconds(question: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """The median of so many rounds behind an unheard one (of one, where that takes long); and of processor time."""
    spent: list[tuple[float, float]] = []
    began = time.perf_counter()
    question()
    if time.perf_counter() - began > SLOW_SECONDS:
        rounds = 1
    while len(spent) < rounds:
        began, worked = time.perf_counter(), time.process_time()
        question()
        spent.append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)))
    wall, processor = zip(*spent, strict=True)
    return statistics.median(wall), statistics.median(processor)


def resumed(storage: str) -> tuple[float, float]:
    """Milliseconds from the start of a process until TPE has answered, and of them those of its answer by Optuna."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--ask", storage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        spent = 1000 * (time.perf_counter() - began)
        process.kill()
    if not said.startswith("asked"):
        raise SystemExit("scale: the resumed search asked nothing")
    return spent, float(said.split()[1])


def ask(storage: str) -> None:
    """Resume the study and say when the proposer has answered; nothing is written."""
    from automc.app.catalog import PROPOSERS, build
    from automc.core.search import Search, _counted
    from automc.core.study import Part
    from automc.stoppers import NeverStopper

    store, space = open_store(storage, create=False), filled.space()
    spec = store.spec(NAME)
    made: Any = build(PROPOSERS, "proposer", Part("tpe"), space, spec.objectives, spec.constraints, spec.seed)

    class Heard:
        tell = made.tell

        def ask(self, numbers: range) -> Any:
            began = time.perf_counter()
            answer = made.ask(numbers)
            print("asked", 1000 * (time.perf_counter() - began), flush=True)
            return answer

    class Nobody:
        free = 1

    study: Any = Study(NAME, store, storage)
    read = study.reading()
    search = Search(spec, space, (Heard(), NeverStopper()), Nobody(), store, None, read)  # type: ignore[arg-type]
    search._recover()
    known = len(search._seen)
    made.tell(_counted(search._seen[: known - spec.workers.window + 1]))
    search._propose(known, known - spec.workers.window + 1)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A database with the study in it."""
    if kind == "sqlite":
        yield str(folder / "filled.db")
        return
    from servers import new_schema, server

    with server() as url, new_schema(url) as schema:
        yield schema


def measured(kind: str, folder: Path, trials: int, rounds: int, skip: list[str]) -> dict[str, str]:
    """The column of a database: by question its milliseconds, and its size."""
    with database(kind, folder) as storage:
        store = SqlStore(storage)
        if not any(found.spec.name == NAME for found in store.studies()):
            filled.fill(store, NAME, trials)
        if kind == "postgresql":  # as its own housekeeping does after a while
            with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
        study = Study(NAME, store, storage)
        column: dict[str, str] = {}
        for what, question in questions(study, trials).items():
            if any(word in what for word in skip):
                continue
            wall, processor = milliseconds(question, rounds)
            column[what] = f"{wall:,.0f} ({processor:,.0f})"
            print(kind, what, column[what], file=sys.stderr)
        if "resume" not in skip:
            whole, optuna = resumed(storage)
            column["resume with TPE"], column["of it Optuna's answer"] = f"{whole:,.0f}", f"{optuna:,.0f}"
            print(kind, "resume", column["resume with TPE"], file=sys.stderr)
        column["size"] = f"{(status(storage).size_bytes) / 2**20:,.0f} MiB"
        store.close()
        return column


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--folder", type=Path, help="where the SQLite file is kept, and found again")
    parser.add_argument("--output", type=Path, default=HERE / "scale.md")
    parser.add_argument("--skip", nargs="*", default=[], help="leave out questions with such a word: report, resume")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        ask(given.ask)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        columns = {
            kind: measured(kind, given.folder or Path(folder), given.trials, given.rounds, given.skip)
            for kind in given.only
        }
    rows = [(what, *(columns[kind][what] for kind in columns)) for what in next(iter(columns.values()))]
    publish(
        given.output,
        "# A study of many trials",
        f"{given.trials:,} trials of 60 decisions and ten metrics; milliseconds, the median of up to {given.rounds} "
        "rounds, and in parentheses the processor time of this process, without the server's. Aim: 300 for a filter, "
        f"100 for the rest. The load of the machine was {os.getloadavg()[1]:.0f} for {os.cpu_count()} CPUs.",
        table(("asked", *columns), rows),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
