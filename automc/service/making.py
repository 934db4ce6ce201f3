"""Routes that make and change studies: check, create, note, delete, extend, upload weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Body, Header, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from automc.errors import SpecError, StudyExists
from automc.service import jobs
from automc.service.answers import Json
from automc.service.builder import Job
from automc.service.desk import Desk, caller_of, desk_of
from automc.service.gate import too_large
from automc.service.places import beside
from automc.service.problems import Problem
from automc.service.reading import study_body, summary_of, tag
from automc.service.schemas import StudyBody
from automc.service.states import check_legal, state_of
from automc.stores.steps import study_exists

router = APIRouter(prefix="/api/v1", tags=["studies"])

Document = Annotated[
    dict[str, Any],
    Body(
        description="what a study file has, and `from`: names of studies to start from",
        examples=[
            {"name": "digits", "model": "digits_net", "data": "digits", "space": "joint", "objectives": {"top1": None}}
        ],
    ),
]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=100)]

_BUILDING = BoundedSemaphore(2)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@router.post("/studies:validate")
def validate(request: Request, document: Document) -> Json:
    """Layers, space and cost of a study; nothing is written."""
    desk = desk_of(request)
    vetted, origins = vet(desk, document)
    _require_free(desk, vetted)
    return Json(_built(desk, {"do": "check", "document": vetted, "origins": origins}))


@router.post("/studies", status_code=201, responses={201: {"model": StudyBody}})
def create(request: Request, document: Document, key: Key = None) -> Json:
    """Make a study; it is searched as soon as it is there. With an Idempotency-Key a repetition makes no second one."""
    desk, caller = desk_of(request), caller_of(request)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    made = _repeated(desk, caller.token.id, key, digest)
    if made is None:
        vetted, origins = vet(desk, document)
        _require_free(desk, vetted)
        noted = {"token": caller.token.id, "key": key, "sha256": digest} if key else {}
        job = {"do": "start", "document": vetted, "origins": origins, "request": noted}
        try:
            made = _built(desk, job)["study"]
        except StudyExists:
            made = _repeated(desk, caller.token.id, key, digest)
            if made is None:
                raise
        desk.wake()
    body = study_body(desk, made)
    return Json(body, 201, {"location": f"/api/v1/studies/{made}", "etag": tag(body["revision"], body["edition"])})


def _require_free(desk: Desk, document: Mapping[str, Any]) -> None:
    """Raises StudyExists, or Problem where a deleted study has the name."""
    name = jobs.parsed(document, desk.settings.storage).spec.name
    if any(one.spec.name == name for one in desk.store.studies()):
        raise study_exists(name)
    if desk.store.deleted(name):
        detail = f"a deleted study is called {name!r}; show it again with :undelete, or take another name"
        raise Problem(409, "study-deleted", detail, place="name")


class Change(BaseModel):
    """What of a study may be changed in place."""

    model_config = ConfigDict(extra="forbid")
    note: str = Field(max_length=2_000, pattern=r"^[^\x00]*$")


@router.patch("/studies/{study}", responses={200: {"model": StudyBody}})
def annotate(request: Request, study: str, change: Change, expected: IfMatch = None) -> Json:
    """Change the note of the study that was read with this ETag."""
    desk = desk_of(request)
    if expected is None:
        raise Problem(428, "if-match-needed", "send the ETag of the study as If-Match", place="If-Match")
    match = re.fullmatch(r'"(\d{1,9})\.(\d{1,9})"', expected)
    wanted = (int(match[1]), int(match[2])) if match else (-1, -1)
    if not desk.store.annotate(study, change.note, None if expected == "*" else wanted):
        raise Problem(412, "changed-meanwhile", "somebody changed the study meanwhile; read it again", place="If-Match")
    body = study_body(desk, study)
    return Json(body, headers={"etag": tag(body["revision"], body["edition"])})


@router.delete("/studies/{study}", status_code=204)
def delete(request: Request, study: str) -> Response:
    """Hide a study that nobody searches; nothing of it is lost."""
    desk = desk_of(request)
    _check_legal(desk, study, "delete")
    desk.store.delete(study)
    return Response(status_code=204)


@router.post("/studies/{study}:undelete", responses={200: {"model": StudyBody}})
def undelete(request: Request, study: str) -> Json:
    """Show a deleted study again."""
    desk = desk_of(request)
    if not desk.store.deleted(study):
        desk.store.spec(study)  # or there is none
        raise Problem(409, "not-deleted", f"study {study!r} is not deleted", place=study)
    desk.store.undelete(study)
    return Json(study_body(desk, study))


class Extension(BaseModel):
    """What a revision changes, by the keys of a study file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    trials: int | None = Field(default=None, ge=1, le=1_000_000, description="how many more")
    seconds: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    proposer: str | dict[str, Any] | None = None
    space: str | dict[str, Any] | None = None
    objectives: dict[str, Any] | None = None
    constraints: list[str] | None = None
    stopper: str | dict[str, Any] | None = None
    workers: dict[str, Any] | None = None
    origins: list[str] = Field(default=[], alias="from", max_length=20)
    backfill: bool = False


@router.post("/studies/{study}:extend", status_code=201)
def extend(request: Request, study: str, asked: Extension) -> Json:
    """A new revision, which is then searched: what it changed, what of the trials so far is reused and excluded."""
    desk = desk_of(request)
    _check_legal(desk, study, "extend")
    keys = ("proposer", "space", "objectives", "constraints", "stopper", "workers")
    said = {key: value for key in keys if (value := getattr(asked, key)) is not None}
    sections, origins = vet(desk, {**said, "from": asked.origins})
    job = {"do": "extend", "study": study, "trials": asked.trials, "seconds": asked.seconds, "sections": sections}
    done = _built(desk, {**job, "origins": origins, "backfill": asked.backfill})
    desk.store.want(study)
    desk.wake()
    return Json({"study": study, **done}, 201, {"location": f"/api/v1/studies/{study}"})


@router.post("/uploads", status_code=201, tags=["files"])
async def upload(request: Request) -> Json:
    """Weights as safetensors, the file as it is in the body; a model then says ``weights: upload:SHA256``."""
    desk = desk_of(request)
    folder, limit = beside(desk.settings.storage, "uploads"), desk.settings.upload_bytes
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="incoming-", dir=folder)
    path, digest, size = Path(name), hashlib.sha256(), 0
    try:
        with os.fdopen(handle, "wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large(limit)
                digest.update(chunk)
                await run_sync(file.write, chunk)
        shapes = await run_sync(desk.build, {"do": "inspect", "path": name}, desk.settings.build_seconds)
        path.replace(_weights(folder, digest.hexdigest()))
    finally:
        path.unlink(missing_ok=True)
    return Json({"sha256": digest.hexdigest(), "size_bytes": size, "tensors": shapes}, 201)


def vet(desk: Desk, document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A document that names only what is offered, and the studies to start from. Raises SpecError."""
    said = dict(document)
    origins = said.pop("from", [])
    if not isinstance(origins, list) or not all(isinstance(one, str) and "@" not in one for one in origins):
        raise SpecError("from: must be a list of names of studies of this database")
    folder = beside(desk.settings.storage, "uploads")

    def uploaded(digest: str) -> Path:
        path = _weights(folder, digest) if _DIGEST.fullmatch(digest) else None
        if path is None or not path.is_file():
            raise SpecError(f"no upload {digest[:70]!r}; POST the file to /api/v1/uploads first")
        return path

    vetted = desk.offers.vetted(said, uploaded)
    if "name" in said:
        jobs.parsed(vetted, desk.settings.storage)
    return vetted, origins


def _weights(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.safetensors"


def _built(desk: Desk, job: Job) -> Any:
    """What the builder makes of a job; two at a time. Raises Problem, AutomcError."""
    if not _BUILDING.acquire(timeout=desk.settings.body_seconds):
        raise Problem(503, "busy", "two studies are being built now; try again", headers={"retry-after": "10"})
    try:
        return desk.build({**job, "storage": desk.settings.storage}, desk.settings.build_seconds)
    finally:
        _BUILDING.release()


def _repeated(desk: Desk, token: str, key: str | None, digest: str) -> str | None:
    """The study that this very request made before. Raises Problem where the key was of another one."""
    found = desk.store.requested(token, key) if key else None
    if found is None:
        return None
    if found[0] != digest:
        raise Problem(422, "key-reused", "this Idempotency-Key was of another request", place="Idempotency-Key")
    return found[1]


def _check_legal(desk: Desk, study: str, verb: str) -> None:
    found = summary_of(desk, study)
    check_legal(study, verb, state_of(desk.store, study, found.counts, found.spec.budget.trials))
