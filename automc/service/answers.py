"""What the service answers with: JSON without NaN, and rows as JSON, CSV, NDJSON or Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from automc.app.tables import plain

if TYPE_CHECKING:
    import pandas as pd

TYPES: Mapping[str, str] = {
    "json": "application/json",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
"""The forms of rows and their media types."""

_WRITERS = {"csv": "csv", "ndjson": "jsonl", "parquet": "parquet"}


class Json(Response):
    """Plain data as JSON; what is no finite number is null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(plain(content), allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


def chosen(form: str | None, accept: str) -> str:
    """The form of rows: as asked by name, else the first of an Accept header that there is, else JSON."""
    if form is not None:
        return form
    asked = [part.partition(";")[0].strip() for part in accept.split(",")]
    return next((name for part in asked for name, kind in TYPES.items() if kind == part), "json")


def rows(frame: pd.DataFrame, form: str, after: str, key: str) -> Response:
    """A frame in a form; where more rows follow, ``next_page_token`` (of other forms a header) goes on there."""
    if form == "json":
        return Json({key: frame, "next_page_token": after})
    from automc.app.frames import encoded

    headers = {"x-next-page-token": after} if after else {}
    columns: Sequence[str] = list(frame.columns)
    return Response(encoded(frame, _WRITERS[form], columns), media_type=TYPES[form], headers=headers)
