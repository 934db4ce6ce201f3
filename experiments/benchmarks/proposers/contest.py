"""Methods against each other on one study: the same evaluator, the same number of evaluations, over seeds.

Every method and seed has a CSV file of its own, one row a trial, with the policy in it. A run that ended is taken up
again from there: the proposer is asked anew, and what was measured already, by whichever method, is not measured again.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from automc.app.config import read_study
from automc.app.study import built, prepared
from automc.core.hopeless import Rival
from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.ports import Evaluator, Monitor, Proposal, Proposer
from automc.core.probing import probed
from automc.core.rules import resolve
from automc.core.search import Search, Silent
from automc.core.sensitivity import MEASURES, Sensitivity
from automc.core.space import SearchSpace
from automc.core.study import Budget, Part, StudySpec
from automc.core.trial import Trial, TrialState
from automc.operators import OPERATORS
from automc.stores.memory import MemoryStore
from automc.workers.inline import InlineExecutor

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Method:
    """Who proposes: a name for the table, and the proposer."""

    name: str
    proposer: Part

    @classmethod
    def of(cls, name: str, proposer: str = "", **settings: Any) -> Method:
        return cls(name, Part(proposer or name, settings))


@dataclass(frozen=True)
class Setup:
    """A contest's study.

    Attributes:
        name: of the folder of results beside the scripts. study: file beside them. changes: as ``--set`` would.
    """

    name: str
    study: str
    changes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def spec(self) -> StudySpec:
        return read_study(HERE / self.study, list(self.changes)).spec


class Contest:
    """One study, and a folder of results beside it.

    Attributes:
        spec: the study. space: with the sensitivities in its layer table, measured once and kept in the folder.
        evaluator: measures; it knows what is in the folder.
    """

    def __init__(self, setup: Setup, measures: Sequence[str] = tuple(MEASURES)) -> None:
        self.spec, self.folder = setup.spec(), setup.folder
        self.folder.mkdir(exist_ok=True)
        network = prepared(self.spec, {}, lambda device: {})
        self.space = resolve(self.spec.rules, self.spec.order, network.table, OPERATORS, self.spec.orders)
        self.sensing_seconds = 0.0
        self.space = self._sensed(network, measures)
        self.evaluator = Remembering(network, self.space, self._rows())

    def run(self, method: Method, seed: int, trials: int, proposer: Proposer | None = None) -> list[Trial]:
        """Search, and write every trial down as it comes.

        Args:
            proposer: in the place of the one that the method names.
        """
        budget = Budget(trials)
        spec = replace(self.spec, name="contest", proposer=method.proposer, seed=seed, budget=budget)
        asked, stopper = built(spec, self.space) if proposer is None else (proposer, built(self.spec, self.space)[1])
        timed = Timed(asked)
        store = MemoryStore()
        store.create(spec, {})
        with Journal(self.folder / f"{method.name}-{seed}.csv", self.space, timed) as journal:
            executor = InlineExecutor(self.evaluator)
            Search(spec, self.space, (timed, stopper), executor, store, journal).run()
        return list(store.trials(spec.name))

    def _sensed(self, network: Any, measures: Sequence[str]) -> SearchSpace:
        path = self.folder / "sensitivity.json"
        if not path.exists():
            start = time.perf_counter()
            found = probed(self.space, network, measures)
            seconds = time.perf_counter() - start
            path.write_text(json.dumps({"seconds": round(seconds, 1), "probes": found.to_data()}), encoding="utf-8")
        kept = json.loads(path.read_text(encoding="utf-8"))
        self.sensing_seconds = kept["seconds"]
        return replace(self.space, layers=replace(self.space.layers, sensitivity=Sensitivity.from_data(kept["probes"])))

    def _rows(self) -> Iterator[dict[str, str]]:
        for path in sorted(self.folder.glob("*-*.csv")):
            yield from rows_of(path)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a results file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def trials_of(path: Path) -> list[Trial]:
    """The trials of a results file, without their policies; their seconds are of evaluating and of thinking before."""
    found, thought = [], 0.0
    for row in rows_of(path):
        seconds, thought = float(row["seconds"]) + float(row["thinking"]) - thought, float(row["thinking"])
        state = TrialState(row["state"])
        own = Measurement(measured(row), seconds=seconds) if state is TrialState.COMPLETE else None
        twin = int(row["twin"]) if row["twin"] else None
        found.append(Trial(int(row["number"]), Policy({}), state=state, measurement=own, twin=twin))
    return found


def measured(row: Mapping[str, str]) -> dict[str, float]:
    """The metrics of a row."""
    return {name: float(text) for name, text in row.items() if name not in _OWN and text}


KEPT = ("top1", "loss", "macs_ratio", "bops_ratio", "size_bytes", "size_ratio")
"""The metrics that are written down."""

_OWN = ("number", "state", "twin", "seconds", "thinking", "policy")
"""Columns that are no metrics."""


class Journal(Silent):
    """Writes the trials that a file does not have yet."""

    def __init__(self, path: Path, space: SearchSpace, timed: Timed) -> None:
        self._path, self._space, self._timed = path, space, timed
        self._known = len(rows_of(path))

    def __enter__(self) -> Journal:
        self._file = self._path.open("a", newline="", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def finished(self, trial: Trial) -> None:
        if trial.number < self._known:
            return
        found = trial.measurement
        metrics = {name: f"{found.metrics[name]:.6g}" if found else "" for name in KEPT}
        row = {
            "number": trial.number,
            "state": trial.state.value,
            "twin": "" if trial.twin is None else trial.twin,
            "seconds": f"{found.seconds if found else 0.0:.3f}",
            "thinking": f"{self._timed.seconds:.3f}",
            "policy": written(self._space, trial.policy),
            **metrics,
        }
        writer = csv.DictWriter(self._file, list(row))
        if trial.number == 0:
            writer.writeheader()
        writer.writerow(row)
        self._file.flush()


def written(space: SearchSpace, policy: Policy) -> str:
    """A policy in one cell: its values in the order of the decisions."""
    return json.dumps([policy[d.site] for d in space.decisions], separators=(",", ":"))


class Timed:
    """A proposer whose time is taken; ``seconds`` are all that it spent asking and learning."""

    def __init__(self, inner: Proposer) -> None:
        self.inner, self.seconds = inner, 0.0

    def ask(self, numbers: range) -> Sequence[Proposal]:
        start = time.perf_counter()
        found = self.inner.ask(numbers)
        self.seconds += time.perf_counter() - start
        return found

    def tell(self, trials: Sequence[Trial]) -> None:
        start = time.perf_counter()
        self.inner.tell(trials)
        self.seconds += time.perf_counter() - start


class Remembering:
    """An evaluator that knows what rows of results say; they are of rung 0."""

    def __init__(self, inner: Evaluator, space: SearchSpace, rows: Iterator[dict[str, str]]) -> None:
        self.inner, self._space = inner, space
        self._known: dict[str, Measurement] = {}
        for row in rows:
            if row["state"] == "complete":
                self._known[row["policy"]] = Measurement(measured(row), seconds=float(row["seconds"]))

    def evaluate(
        self, policy: Policy, rung: int, monitor: Monitor, rivals: Sequence[Rival] | None = None
    ) -> Measurement:
        """As the evaluator, or from memory; always on all inputs."""
        if rung > 0:
            return self.inner.evaluate(policy, rung, monitor)
        text = written(self._space, policy)
        if text not in self._known:
            self._known[text] = self.inner.evaluate(policy, rung, monitor)
        return self._known[text]
