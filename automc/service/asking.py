"""Routes that ask something of a study: pause, go on, stop, cancel, evaluate this policy, export that trial."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import FileResponse

from automc.app import editing
from automc.core.rules import nearest
from automc.core.store import Control
from automc.errors import SpecError, StoreError
from automc.export.formats import formats_named
from automc.service.answers import Json
from automc.service.desk import Desk, desk_of
from automc.service.problems import Problem, hinted
from automc.service.reading import summary_of
from automc.service.schemas import Asked, OperationBody
from automc.service.states import State, check_legal, state_of
from automc.stores.blobs import Blobs
from automc.stores.sql_operations import Operation

router = APIRouter(prefix="/api/v1", tags=["studies"])

VERBS = ("pause", "stop", "cancel", "resume", "extend", "undelete")
"""What can be asked of a study: ``POST /studies/{study}:VERB``."""

_ASKED: dict[int | str, dict[str, Any]] = {202: {"model": Asked}}


@router.post("/studies/{study}:pause", status_code=202, responses=_ASKED)
def pause(request: Request, study: str) -> Json:
    """Start nothing new until it is resumed; running trials finish."""
    return _ask(desk_of(request), study, Control.PAUSE)


@router.post("/studies/{study}:stop", status_code=202, responses=_ASKED)
def stop(request: Request, study: str) -> Json:
    """Finish the running trials and end."""
    return _ask(desk_of(request), study, Control.STOP)


@router.post("/studies/{study}:cancel", status_code=202, responses=_ASKED)
def cancel(request: Request, study: str) -> Json:
    """End at once; what runs waits for a resume."""
    return _ask(desk_of(request), study, Control.CANCEL)


@router.post("/studies/{study}:resume", status_code=202, responses=_ASKED)
def resume(request: Request, study: str) -> Json:
    """Go on: with a paused search, or with a new driver."""
    desk = desk_of(request)
    now = _state(desk, study)
    check_legal(study, "resume", now)
    if now.name == "paused":
        desk.store.ask(study, Control.GO)
    else:
        desk.store.want(study)
        desk.wake()
    return _asked(desk, study)


@router.post("/studies/{study}:{verb}", include_in_schema=False)
def nothing_of_the_kind(verb: str) -> None:
    """Verbs that no route above has: a misspelt one is no wrong method."""
    detail = f"{verb!r} is nothing that can be asked of a study{nearest(verb, VERBS)} (verbs: {', '.join(VERBS)})"
    raise Problem(404, "no-such-verb", detail, place="path/verb", hint=hinted(detail))


class Wished(BaseModel):
    """A policy to evaluate: all of it, or a trial with edits."""

    model_config = ConfigDict(extra="forbid")
    policy: dict[str, Any] | None = Field(default=None, description="{operator: {layer: {setting: value}}}")
    trial: int | None = Field(default=None, ge=0, lt=1 << 31)
    edits: list[Annotated[str, Field(max_length=300)]] = Field(default=[], max_length=200)
    rung: int | None = Field(default=None, ge=0, le=100, description="the trial's own, else the first")
    run: bool | None = Field(default=None, description="start a driver; by default where the budget is spent")

    @model_validator(mode="after")
    def _one_of_both(self) -> Wished:
        if (self.policy is None) == (self.trial is None):
            raise ValueError("give a policy, or a trial with edits")
        if self.policy is not None and self.edits:
            raise ValueError("edits are of a trial")
        return self


@router.post("/studies/{study}/trials", status_code=202)
def enqueue(request: Request, study: str, wished: Wished) -> Json:
    """Evaluate this policy next, also beyond the budget; 409 names the trial that has measured it already."""
    desk = desk_of(request)
    found, now = desk.study(study), _state(desk, study)
    rung = wished.rung or 0
    if wished.policy is not None:
        policy = editing.written(found, wished.policy)
    else:
        trial = found.trial(wished.trial or 0)
        policy = editing.edited(found, trial.policy, wished.edits)
        rung = trial.rung if wished.rung is None else wished.rung
    if rung >= len(found.spec.rungs):
        raise SpecError(f"rung: the study has rungs 0 to {len(found.spec.rungs) - 1}, not {rung}")
    known = found.trials(f"fingerprint == '{policy.fingerprint}' and rung == {rung} and state == 'complete'", limit=1)
    if len(known):
        number = int(known["number"].iloc[0])
        detail = f"trial {study}/{number} has measured this policy on rung {rung} already"
        raise Problem(409, "known-policy", detail, place=f"{study}/{number}", more={"number": number})
    wish = desk.store.wish(study, policy, rung)
    if "resume" in _state(desk, study).verbs and (wished.run or (wished.run is None and now.name == "done")):
        desk.store.want(study)
        desk.wake()
    body = {"wish": wish, "rung": rung, "fingerprint": policy.fingerprint, "state": _state(desk, study).name}
    return Json({**body, "policy": json.loads(policy.to_json())}, 202)


@router.get("/studies/{study}/wishes", tags=["trials"])
def wishes(request: Request, study: str) -> Json:
    """The policies that wait to be trials, oldest first."""
    found = desk_of(request).store.wishes(study)
    rows = [{"wish": one.id, "rung": one.rung, "fingerprint": one.policy.fingerprint} for one in found]
    return Json({"wishes": rows})


class Export(BaseModel):
    """A trial to export."""

    model_config = ConfigDict(extra="forbid")
    number: int = Field(ge=0, lt=1 << 31)
    formats: list[Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9_-]+$")]] = Field(
        default=["onnx", "packed"], min_length=1, max_length=10
    )


@router.post("/studies/{study}/exports", status_code=202, responses={202: {"model": OperationBody}}, tags=["files"])
def export(request: Request, study: str, asked: Export) -> Json:
    """Export a measured trial and prove it; the operation says when it is done, and which files there are."""
    desk = desk_of(request)
    formats_named(asked.formats)
    trial = desk.study(study).trial(asked.number)
    if trial.measurement is None:
        raise SpecError(f"number: trial {study}/{asked.number} is {trial.state.value}, and was not measured")
    made = Operation(secrets.token_hex(16), study, asked.number, tuple(asked.formats))
    desk.store.begin_operation(made)
    desk.wake()
    body = asdict(desk.store.operation(made.id))
    return Json(body, 202, {"location": f"/api/v1/operations/{made.id}"})


@router.get("/operations/{id}", responses={200: {"model": OperationBody}}, tags=["files"])
def operation(request: Request, id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Json:
    """An export: queued, running, done or failed. One that breaks a promise failed, with its files below rejected/."""
    try:
        return Json(asdict(desk_of(request).store.operation(id)))
    except StoreError as error:
        raise Problem(404, "unknown-operation", str(error), place=id) from None


@router.get("/artifacts/{sha256}", response_class=FileResponse, tags=["files"])
def artifact(request: Request, sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> FileResponse:
    """A file that was made of a trial, by its content."""
    desk = desk_of(request)
    known = desk.store.has_artifact(sha256)
    try:
        path = Blobs.beside(desk.settings.storage).path(sha256) if known else None
    except StoreError:
        path = None
    if known is None or path is None:
        raise Problem(404, "unknown-artifact", f"no file {sha256[:16]}... is kept here", place=sha256)
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=PurePosixPath(known[1]).name,
        headers={"etag": f'"{sha256}"'},
    )


def _ask(desk: Desk, study: str, word: Control) -> Json:
    now = _state(desk, study)
    check_legal(study, word.value, now)
    asked = desk.store.ask(study, word)
    if asked is None or word is not Control.PAUSE:
        desk.store.keep_care(study, wanted=False)  # nobody is to start a driver again
    return _asked(desk, study)


def _asked(desk: Desk, study: str) -> Json:
    now = _state(desk, study)
    return Json({"study": study, "state": now.name, "legal": list(now.verbs)}, 202)


def _state(desk: Desk, study: str) -> State:
    found = summary_of(desk, study)
    return state_of(desk.store, study, found.counts, found.spec.budget.trials)
