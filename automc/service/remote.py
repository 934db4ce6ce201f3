"""A study of a server, with the methods of a local one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.app.charts import Chart
from automc.core.layers import LayerTable
from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.study import StudySpec
from automc.core.trial import Trial, TrialState
from automc.errors import EvaluationError, UnknownTrial
from automc.export.bundle.placing import rejected

if TYPE_CHECKING:
    import pandas as pd

    from automc.service.client import Client

POLL_SECONDS = 1.0
MOST = 100_000


class RemoteStudy:
    """One study of one server. Everything is asked for when it is needed."""

    def __init__(self, name: str, client: Client) -> None:
        from automc.service.client import segment

        self.name, self.client, self.storage = name, client, client.url
        self._at = f"/studies/{segment(name)}"

    @property
    def spec(self) -> StudySpec:
        """The revision in force."""
        return StudySpec.from_data(self.client.get(self._at)["spec"])

    @cached_property
    def _network(self) -> Any:
        return self.client.get(f"{self._at}/network")

    @property
    def layers(self) -> LayerTable:
        """The layer table of the original model."""
        return LayerTable.from_data(self._network["layers"])

    @property
    def baseline(self) -> dict[str, float]:
        """The original model's metrics."""
        return _numbers(self._network["baseline"])

    @property
    def state(self) -> str:
        """idle, starting, running, paused, stopping, cancelling, done or failed."""
        return str(self.client.get(f"{self._at}/status")["state"])

    def summary(self) -> dict[str, Any]:
        """As ``Study.summary``; its storage is the server."""
        return {**self.client.get(f"{self._at}/summary"), "storage": self.storage}

    def trial(self, number: int) -> Trial:
        """One trial. Raises UnknownTrial."""
        return _trial(self.client.get(f"{self._at}/trials/{number}"))

    def trials(
        self,
        where: str | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        columns: Sequence[str] = (),
        after: str = "",
    ) -> pd.DataFrame:
        """As ``Study.trials``; without a limit all pages are asked for."""
        import pandas as pd

        asked = {"where": where, "order_by": ",".join(sort), "fields": ",".join(columns)}
        rows: list[dict[str, Any]] = []
        while True:
            size = MOST if limit is None else min(limit - len(rows), MOST)
            page = self.client.get(f"{self._at}/trials", **asked, page_size=size, page_token=after)
            rows, after = rows + page["trials"], page["next_page_token"]
            if not after or (limit is not None and len(rows) >= limit):
                break
        frame = pd.DataFrame(rows, columns=list(columns) or None)
        frame.attrs["after"] = after
        return frame

    def pareto(self, pick: str | None = None, at: int | None = None) -> pd.DataFrame:
        """As ``Study.pareto``."""
        import pandas as pd

        return pd.DataFrame(self.client.get(f"{self._at}/pareto", pick=pick, at=at)["trials"])

    def front(self, at: int | None = None) -> list[Trial]:
        """As ``Study.front``."""
        return [self.trial(row["number"]) for row in self.client.get(f"{self._at}/pareto", at=at)["trials"]]

    def picked(self, pick: str = "knee") -> Trial:
        """As ``Study.picked``."""
        found = self.client.get(f"{self._at}/pareto", pick=pick)["trials"]
        if not found:
            raise UnknownTrial(f"study {self.name!r} has no front yet")
        return self.trial(found[0]["number"])

    def query(self, sql: str, rows: int = 1_000, seconds: float = 10.0) -> pd.DataFrame:
        """As ``Client.query``."""
        return self.client.query(sql, rows, seconds)

    def chart(self, x: str | None = None, y: str | None = None) -> Chart:
        """All complete trials in the plane of two metrics, those far from the front thinned."""
        found = self.client.get(f"{self._at}/scatter", x=x, y=y)
        spots = list(zip(found["x"], found["y"], strict=True))
        kinds = {kind: [s for s, k in zip(spots, found["kind"], strict=True) if k == kind] for kind in _KINDS}
        front = sorted((s, n) for s, k, n in zip(spots, found["kind"], found["number"], strict=True) if k == "front")
        x, y = found["axes"]["x"], found["axes"]["y"]
        base = (found["baseline"][x], found["baseline"][y])
        return Chart(
            self.name,
            str(x),
            str(y),
            front=tuple(spot for spot, _ in front),
            numbers=tuple(number for _, number in front),
            others=tuple(kinds["other"]),
            infeasible=tuple(kinds["infeasible"]),
            baseline=None if None in base else base,
            stairs={x, y} == {o.metric for o in self.spec.objectives},
        )

    def importance(self, metric: str | None = None) -> Any:
        """Which decisions mattered, as ``automc importance --json``."""
        return self.client.get(f"{self._at}/importance", metric=metric)

    def solve(self, bounds: Sequence[str]) -> Any:
        """The best known or predicted policy that keeps bounds such as ``size_bytes <= 60000``."""
        return self.client.post(f"{self._at}/solve", {"bounds": list(bounds)})

    def pause(self) -> str:
        """Start nothing new until it is resumed; the state from now on. Raises Refused where that means nothing."""
        return self._ask("pause")

    def resume(self) -> str:
        """Go on. As ``pause``."""
        return self._ask("resume")

    def stop(self) -> str:
        """Finish the running trials and end. As ``pause``."""
        return self._ask("stop")

    def cancel(self) -> str:
        """End at once. As ``pause``."""
        return self._ask("cancel")

    def extend(self, trials: int | None = None, **more: Any) -> Any:
        """A new revision, which is then searched; as ``automc.extend``."""
        return self.client.post(f"{self._at}:extend", {"trials": trials, **more})

    def enqueue(self, policy: Policy | int, edits: Sequence[str] = (), **more: Any) -> Any:
        """Evaluate a policy next, or a trial with edits such as ``layer3.*.weight_bits=4``."""
        if isinstance(policy, Policy):
            return self.client.post(f"{self._at}/trials", {"policy": json.loads(policy.to_json()), **more})
        return self.client.post(f"{self._at}/trials", {"trial": policy, "edits": list(edits), **more})

    def wait(self, seconds: float = math.inf) -> str:
        """Wait until nobody searches it any more, or so long; the state by then."""
        until = time.monotonic() + seconds
        while (state := self.state) in ("starting", "running", "paused", "stopping", "cancelling"):
            if time.monotonic() >= until:
                break
            time.sleep(POLL_SECONDS)
        return state

    def events(self, after: int | None = None) -> Iterator[dict[str, Any]]:
        """What happens, as it happens: from behind an event, else from now on."""
        return self.client.events(f"{self._at}/events" + ("" if after is None else f"?after={after}"))

    def export(self, number: int, folder: Path, formats: Sequence[str] = ("onnx", "packed")) -> Any:
        """Let the server export a trial, and take its files; what was measured on them.

        Where the proof did not pass, the files are in ``rejected/`` beside the folder.

        Raises:
            EvaluationError: the server could not, and says why.
        """
        made = self.client.post(f"{self._at}/exports", {"number": number, "formats": list(formats)})
        while made["state"] in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            made = self.client.get(f"/operations/{made['id']}")
        if not made["result"]:
            raise EvaluationError(f"export of {self.name}/{number}: {made['said']}")
        folder = Path(folder) if made["state"] == "done" else rejected(Path(folder))
        folder.mkdir(parents=True, exist_ok=True)
        for file in made["result"]["files"]:
            self.client.download(file["sha256"], folder / Path(file["file"]).name)
        return made["result"]["proof"]

    def close(self) -> None:
        """Nothing is held."""

    def _ask(self, verb: str) -> str:
        return str(self.client.post(f"{self._at}:{verb}")["state"])


_KINDS = ("other", "infeasible")


def _trial(data: Mapping[str, Any]) -> Trial:
    measured = None
    if data["samples"] is not None:
        seconds = math.nan if data["seconds"] is None else data["seconds"]
        errors = _numbers(data["errors"])
        measured = Measurement(_numbers(data["metrics"]), data["realized"], None, seconds, errors, data["samples"])
    return Trial(
        number=data["number"],
        policy=Policy.from_json(json.dumps(data["policy"])),
        state=TrialState(data["state"]),
        rung=data["rung"],
        measurement=measured,
        reason=data["reason"] or "",
        message=data["message"] or "",
        attempts=data["attempts"],
        twin=data["twin"],
    )


def _numbers(data: Mapping[str, float | None]) -> dict[str, float]:
    """What was no finite number is NaN again."""
    return {name: math.nan if value is None else value for name, value in data.items()}
