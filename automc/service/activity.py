"""The route about what happens in a study now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from automc.core.tally import Count
from automc.core.trial import REASONS
from automc.service.answers import Json
from automc.service.desk import desk_of

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["studies"])

POINTS = 300


@router.get("/activity")
def activity(request: Request, study: str, runs: Annotated[int, Query(ge=1, le=2_000)] = 200) -> Json:
    """Attempts of the newest trials with their workers, when trials finished, and what became of them and why."""
    store = desk_of(request).store
    pace = store.pace(study, POINTS)
    return Json(
        {
            "runs": [run._asdict() for run in store.latest_runs(study, runs)],
            "pace": {"place": [point.place for point in pace], "at": [point.at for point in pace]},
            "fates": _fates(store.tally(study)),
        }
    )


def _fates(tally: Sequence[Count]) -> list[dict[str, Any]]:
    """What became of the trials and why, most first."""
    sums: Counter[tuple[str, str]] = Counter()
    for one in tally:
        sums[one.state.value, one.reason] += one.number
    return [
        {"state": state, "reason": reason, "trials": trials, "meaning": REASONS.get(reason, "")}
        for (state, reason), trials in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    ]
