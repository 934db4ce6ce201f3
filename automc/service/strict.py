"""JSON bodies as RFC 8259 has them: no NaN, no infinity, no key twice, no endless nesting."""

from __future__ import annotations

import json
from typing import Any

from automc.service.problems import Problem


def check_json(body: bytes) -> None:
    """Raises Problem for a body that is not such JSON."""
    try:
        json.loads(body, parse_constant=_refused, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        said = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, "bad-json", f"the body is no JSON: {said}", place="body") from None


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found
