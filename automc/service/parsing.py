"""The route that reads a study file: YAML in, the document that the other routes take out; quick, nothing is built."""

from __future__ import annotations

import re
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from automc.app.places import STUDY, Mistakes, Node, Place
from automc.app.readers import plain
from automc.app.yaml_places import parse
from automc.errors import SpecError
from automc.service.answers import Json
from automc.service.desk import Desk, desk_of
from automc.service.jobs import LABEL
from automc.service.making import vet
from automc.service.problems import pointed

router = APIRouter(prefix="/api/v1", tags=["studies"])

_BODY: dict[str, Any] = {
    "requestBody": {"content": {"application/yaml": {"schema": {"type": "string"}}}, "required": True},
}


@router.post("/studies:parse", openapi_extra=_BODY)
async def read(request: Request) -> Json:
    """A study file as the document that ``POST /studies`` takes, null where it has mistakes; of each the key path and
    the line, 0 where the text as a whole is meant.
    """
    return Json(await run_sync(_read, desk_of(request), await request.body()))


def _read(desk: Desk, body: bytes) -> dict[str, Any]:
    root: Node | None = None
    try:
        mistakes = Mistakes()
        root = parse(_text(body), Place(STUDY, LABEL, 1), mistakes)
        document = plain(root)
        mistakes.raise_all()
        if not isinstance(document, dict):
            raise SpecError("must be a mapping with keys such as model, data and objectives")
        if "name" not in document:
            raise SpecError("name: is missing; a study is found by it")
        vet(desk, document)
    except SpecError as error:
        return {"document": None, "errors": [_placed(root, one) for one in pointed(str(error))]}
    return {"document": document, "errors": []}


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError("not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise SpecError("a binary or UTF-16 file, not YAML text in UTF-8")
    return text


def _placed(root: Node | None, mistake: dict[str, str]) -> dict[str, Any]:
    """The mistake with the line of its key."""
    keys = re.findall(r"\w+", mistake["pointer"])
    return {**mistake, "line": root.deepest(*keys).place.line if root and mistake["pointer"] else 0}
