"""Routes about what a study found: trials, its front, and what charts of it are drawn from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from automc.app import amounts, comparing, glance, listing, solving
from automc.app import importance as mattered
from automc.app.charts import pick_axes
from automc.app.report import policy_rows, trial_data
from automc.app.reporting.growth import growth
from automc.app.reporting.scatter import MOST
from automc.errors import SpecError
from automc.service.answers import TYPES, Json, chosen, rows
from automc.service.desk import desk_of
from automc.service.schemas import Scatter, TrialBody, TrialRows
from automc.stores.paging import Listing

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["trials"])

Form = Annotated[Literal["json", "csv", "ndjson", "parquet"] | None, Query(alias="format")]
Number = Annotated[int, Path(ge=0, lt=1 << 31)]
At = Annotated[int | None, Query(ge=0, lt=1 << 31)]
Text = Annotated[str, Query(max_length=2_000)]
Metric = Annotated[str | None, Query(max_length=60)]

_ROWS: dict[int | str, dict[str, Any]] = {
    200: {"model": TrialRows, "content": {kind: {} for kind in TYPES.values() if kind != TYPES["json"]}}
}


_CALLED = {"after": "page_token", "sort": "order_by", "columns": "fields"}
"""What the parameters of a listing are called here."""


@router.get("/trials", responses=_ROWS)
def trials(
    request: Request,
    study: str,
    where: Text = "",
    order_by: Text = "",
    fields: Text = "",
    page_size: Annotated[int, Query(ge=1, le=100_000)] = 100,
    page_token: Text = "",
    form: Form = None,
) -> Response:
    """Trials for which a filter holds, a page at a time; as ``automc trials``."""
    found = desk_of(request).study(study)
    asked = Listing(where, listing.names(order_by), page_size, page_token, listing.names(fields))
    try:
        frame = listing.listed(found.store, study, asked)
    except SpecError as error:
        name, colon, rest = str(error).partition(": ")
        raise SpecError(_CALLED.get(name, name) + colon + rest) from error
    return rows(frame, chosen(form, request.headers.get("accept", "")), frame.attrs[listing.AFTER], "trials")


@router.get("/trials/{number}", responses={200: {"model": TrialBody}})
def trial(request: Request, study: str, number: Number) -> Json:
    """One trial: policy, metrics, every attempt with the end of its log, its reports, its files."""
    found = desk_of(request).study(study)
    one, store = found.trial(number), found.store
    return Json(
        {
            **trial_data(one),
            "layers": policy_rows(one, found.layers),
            "history": [asdict(attempt) for attempt in store.attempts(study, number)],
            "reports": [{"step": step, "value": value} for step, value in store.notes(study, number)],
            "artifacts": [asdict(artifact) for artifact in store.artifacts(study, number)],
        }
    )


@router.get("/pareto", responses=_ROWS)
def pareto(request: Request, study: str, at: At = None, pick: Text = "", form: Form = None) -> Response:
    """The front, or the member that ``pick`` names; ``at``: as it was when so many trials had finished."""
    found = desk_of(request).study(study)
    members = listing.current_front(found) if at is None else found.front(at)
    frame = listing.frame_of([found.picked(pick, members)] if pick else members)
    return rows(frame, chosen(form, request.headers.get("accept", "")), "", "trials")


@router.get("/scatter", responses={200: {"model": Scatter}})
def scatter(
    request: Request,
    study: str,
    x: Metric = None,
    y: Metric = None,
    colour: Metric = None,
    most: Annotated[int, Query(ge=0, le=50_000)] = MOST,
) -> Json:
    """Complete trials in the plane of two metrics, as columns: all of the front, and at most so many others."""
    desk = desk_of(request)
    found = desk.study(study)
    return Json(glance.columns(found, desk.numbers, pick_axes(found.spec, x, y), colour, most))


@router.get("/layers")
def layers(request: Request, study: str, at: At = None, numbers: Text = "") -> Json:
    """The policies of the front, or of the trials named (``3,17``), as matrices of trials and layers."""
    found = desk_of(request).study(study)
    asked = list(dict.fromkeys(listing.names(numbers)))
    if wrong := [name for name in asked if not (name.isascii() and name.isdecimal() and len(name) < 10)]:
        raise SpecError(f"numbers: must be numbers of trials, such as 3,17, not {wrong[0]!r}")
    named = [found.trial(int(name)) for name in asked[:1_000]]
    members = named or (listing.current_front(found) if at is None else found.front(at))
    return Json(glance.matrix(found, members))


@router.get("/convergence")
def convergence(request: Request, study: str) -> Json:
    """How the share of the box that the front covers grew, over trials and seconds of evaluation."""
    desk = desk_of(request)
    found = desk.study(study)

    def make() -> dict[str, Any]:
        counts = found.store.tally(study)
        steps = [step._asdict() for step in growth(found, counts)]
        return {"steps": steps, "trials": sum(count.number for count in counts)}

    return Json(desk.remembered("convergence", study, make))


@router.get("/importance")
def importance(request: Request, study: str, metric: Metric = None) -> Json:
    """Which decisions mattered for a metric; by default for the first objective."""
    desk = desk_of(request)
    found = desk.study(study)
    name = metric or found.spec.objectives[0].metric

    def make() -> dict[str, Any]:
        return mattered.importance_data(mattered.mattered(found, name))

    return Json(desk.remembered(f"importance of {name}", study, make))


@router.get("/compare")
def compare(
    request: Request,
    study: str,
    first: Annotated[int, Query(ge=0, lt=1 << 31)],
    second: Annotated[int, Query(ge=0, lt=1 << 31)],
    other: Annotated[str | None, Query(max_length=100)] = None,
    everything: bool = False,
) -> Json:
    """Two trials beside each other; ``other``: the study of the second one."""
    desk = desk_of(request)
    found, beside = desk.study(study), desk.study(other or study)
    result = comparing.compare((found, found.trial(first)), (beside, beside.trial(second)))
    return Json(comparing.comparison_data(result, everything))


class Bounds(BaseModel):
    """What a policy must keep."""

    model_config = ConfigDict(extra="forbid")
    bounds: list[Annotated[str, Field(max_length=200)]] = Field(min_length=1, max_length=20)


@router.post("/solve")
def solve(request: Request, study: str, asked: Bounds) -> Json:
    """The best trial that keeps bounds (``size_bytes <= 60kB``), or the policy that is predicted to."""
    found = desk_of(request).study(study)
    return Json(solving.solve(found, [amounts.constraint(text) for text in asked.bounds]).to_data())


@router.get("/network")
def network(request: Request, study: str) -> Json:
    """The layer table of the original network, and its metrics."""
    found = desk_of(request).study(study)
    return Json({"layers": found.layers.to_data(), "baseline": found.baseline})
