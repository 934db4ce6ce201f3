"""Routes that read studies: the list, one study, its state and figures, SQL, the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from automc.app import glance, listing
from automc.app.reporting.found import versions, without_password
from automc.core.store import StudySummary
from automc.core.trial import TrialState
from automc.errors import UnknownStudy
from automc.service.answers import Json
from automc.service.desk import Desk, desk_of
from automc.service.schemas import Answered, Studies, StudyBody, StudyStatus
from automc.service.states import state_of

router = APIRouter(prefix="/api/v1", tags=["studies"])


@router.get("/studies", responses={200: {"model": Studies}})
def studies(request: Request) -> Json:
    """All studies, oldest first: state, progress, best values, front, last event."""
    return Json({"studies": listed(desk_of(request))})


@router.get("/studies/{study}", responses={200: {"model": StudyBody}})
def study(request: Request, study: str) -> Response:
    """A study as it was asked for. Its ETag changes with its revision and its note, not with its trials."""
    body = study_body(desk_of(request), study)
    headers = {"etag": tag(body["revision"], body["edition"])}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Json(body, headers=headers)


@router.get("/studies/{study}/status", responses={200: {"model": StudyStatus}})
def status(request: Request, study: str) -> Json:
    """State, what may be asked of it, counts, best values, front; ``last_event`` is where to begin its events."""
    return Json(status_of(desk_of(request), study))


@router.get("/studies/{study}/summary")
def summary(request: Request, study: str) -> Json:
    """All that ``automc show --json`` has, and when and why a driver failed."""
    desk = desk_of(request)
    return Json({**desk.study(study).summary(), "storage": without_password(desk.settings.storage)})


@router.get("/offers")
def offers(request: Request) -> Json:
    """What a study may name: models, data, tasks, spaces."""
    return Json(desk_of(request).offers.names())


@router.get("/system")
def system(request: Request) -> Json:
    """Versions, and who drives what."""
    desk = desk_of(request)
    names = [found.spec.name for found in desk.store.studies()]
    drivers = {name: owner for name in names if (owner := desk.store.driver(name))}
    return Json({"versions": versions(), "drivers": drivers, "storage": without_password(desk.settings.storage)})


class Question(BaseModel):
    """One SELECT, and what it may take: far less than a driver waits for readers of a SQLite file."""

    sql: str = Field(max_length=20_000)
    rows: int = Field(default=1_000, ge=1, le=10_000)
    seconds: float = Field(default=10.0, gt=0, le=15, allow_inf_nan=False)


@router.post("/query", responses={200: {"model": Answered}}, tags=["admin"])
def query(request: Request, question: Question) -> Json:
    """The rows of one SQL statement that reads, over the views of all studies."""
    frame = listing.answer(desk_of(request).store, question.sql, question.rows, question.seconds)
    return Json({"columns": list(frame.columns), "rows": frame, "more": frame.attrs[listing.MORE]})


@router.get("/audit", tags=["admin"])
def audit(request: Request, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> Json:
    """The latest requests that could change something, newest first."""
    return Json({"audit": desk_of(request).store.audited(limit)})


def study_body(desk: Desk, name: str) -> dict[str, Any]:
    """A study as a resource."""
    found, care = desk.study(name), desk.store.care(name)
    spec = found.spec
    return {
        "name": name,
        "created": summary_of(desk, name).created,
        "revision": spec.revision,
        "edition": care.edition,
        "note": care.note,
        "spec": spec.to_data(),
        "baseline": found.baseline,
    }


def tag(revision: int, edition: int) -> str:
    """The ETag of a study."""
    return f'"{revision}.{edition}"'


def summary_of(desk: Desk, name: str) -> StudySummary:
    """A study as the list has it. Raises UnknownStudy."""
    found = next((one for one in desk.store.studies() if one.spec.name == name), None)
    if found is None:
        desk.store.spec(name)  # which says so, with the nearest name
        raise UnknownStudy(f"no study {name!r}")
    return found


def listed(desk: Desk) -> list[dict[str, Any]]:
    """All studies, oldest first, each as ``status_of`` has it."""
    last = desk.store.last_events()
    return [_row(desk, found, last) for found in desk.store.studies()]


def status_of(desk: Desk, name: str) -> dict[str, Any]:
    """A study in figures: its state and what may be asked of it, counts, best values, front, newest event."""
    return _row(desk, summary_of(desk, name), desk.store.last_events([name]))


def _row(desk: Desk, found: StudySummary, last: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    name, counts = found.spec.name, {state: found.counts.get(state, 0) for state in TrialState}
    now = state_of(desk.store, name, counts, found.spec.budget.trials)
    event, at = last.get(name, (0, found.created))
    return {
        "name": name,
        "created": found.created,
        "revision": found.spec.revision,
        "proposer": found.spec.proposer.name,
        "objectives": {o.metric: o.direction for o in found.spec.objectives},
        "state": now.name,
        "said": now.said,
        "legal": list(now.verbs),
        "last_event": event,
        "last_event_at": at,
        **glance.figures(desk.study(name), counts),
    }
