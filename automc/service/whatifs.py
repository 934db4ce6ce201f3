"""The route that foretells an edit of a trial before anybody pays for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from automc.app import whatif
from automc.service.answers import Json
from automc.service.desk import desk_of

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["trials"])


@router.get("/whatif")
def predicted(
    request: Request,
    study: str,
    trial: Annotated[int, Query(ge=0, lt=1 << 31)],
    edit: Annotated[list[Annotated[str, Query(max_length=300)]], Query(min_length=1, max_length=50)],
) -> Json:
    """What a trial would come to with edits such as ``layer3.*.weight_bits=4``; nothing is evaluated."""
    return Json(whatif.predicted(desk_of(request).study(study), trial, edit))
