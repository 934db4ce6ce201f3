"""What the framework would let pass: JSON that RFC 8259 has not, and parameters that nobody reads."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from automc.core.rules import nearest
from automc.service.problems import Problem, hinted


def check_query(request: Request) -> None:
    """Raises Problem for a parameter that the route does not have: a misspelt filter would be taken for none."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            place, listed = f"query/{name}", ", ".join(known) or "none"
            detail = f"{place}: there is no such parameter here{nearest(name, known)} (parameters: {listed})"
            raise Problem(422, "unknown-parameter", detail, place=place, hint=hinted(detail))


def check_json(body: bytes) -> None:
    """Raises Problem for a body with NaN, infinity, a key twice or endless nesting."""
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
