"""Errors as RFC 9457 problem details: what a client reads in the place of a line on stderr."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from automc import errors as e
from automc.app import driving
from automc.service.answers import Json

TYPE = "application/problem+json"

STATUS: Mapping[type[e.AutomcError], int] = {
    e.UnknownStudy: 404,
    e.UnknownTrial: 404,
    e.StudyExists: 409,
    e.LeaseHeld: 409,
    e.IllegalTransition: 409,
    e.StoreError: 503,
    e.SpecError: 422,
    e.ModelError: 422,
    e.DataError: 422,
    e.CompressionError: 422,
    e.EvaluationError: 422,
    e.WorkerError: 503,
    e.ProofError: 409,
}
"""By the nearest class of an error."""

_LINE = re.compile(r"(?:(?:study|extend)(?::\d+)?: )?(?P<path>[A-Za-z_]\w*(?:\.\w+|\[\d+\])*): (?P<rest>.+)")
_MEANT = re.compile(r"did you mean ('[^']+')\?")


class Problem(Exception):
    """An answer that is no success.

    Args:
        status: of HTTP. code: a word in kebab case that programs can rely on. detail: one line for people.
        place: what it is about: a key path, a study, a header. hint: the likely fix.
        more: further members. headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        place: str = "",
        hint: str = "",
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.place, self.hint, self.more, self.headers = place, hint, dict(more or {}), dict(headers or {})

    def answer(self) -> Json:
        """The response."""
        body = {
            "type": f"urn:automc:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "place": self.place,
            "hint": self.hint,
            **self.more,
        }
        return Json(body, self.status, {**self.headers, "content-type": TYPE})


def told(error: e.AutomcError) -> Problem:
    """An error of automc as a problem; of several mistakes each is in ``errors`` with a JSON pointer."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    code = re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
    found = pointed(str(error)) if isinstance(error, e.SpecError) else []
    detail = " ".join(str(error).splitlines()[:1]) or type(error).__name__
    place = found[0]["pointer"] if found else ""
    return Problem(status, code, detail, place=place, hint=hinted(detail), more={"errors": found} if found else None)


def pointed(message: str) -> list[dict[str, str]]:
    """The mistakes of a study, a line each, as ``{pointer, detail}``; those without a key path point at the whole."""
    found = []
    for line in message.splitlines():
        match = _LINE.match(line)
        keys = re.findall(r"\w+", match["path"]) if match else []
        detail = match["rest"] if match else line
        found.append({"pointer": "".join(f"/{key}" for key in keys), "detail": detail})
    return found


def hinted(detail: str) -> str:
    """The part of a message that says what to do."""
    meant = _MEANT.search(detail)
    if meant:
        return f"did you mean {meant[1]}?"
    return detail.partition("; ")[2]


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(e.AutomcError, _automc)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


def _problem(_: Request, error: Exception) -> Json:
    assert isinstance(error, Problem)
    return error.answer()


def _automc(_: Request, error: Exception) -> Json:
    assert isinstance(error, e.AutomcError)
    return told(error).answer()


def _invalid(_: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    found = [{"pointer": _pointer(one["loc"]), "detail": str(one["msg"])} for one in error.errors()]
    detail = f"{found[0]['pointer'] or 'the request'}: {found[0]['detail']}"
    return Problem(422, "invalid-request", detail, place=found[0]["pointer"], more={"errors": found}).answer()


def _pointer(place: Sequence[Any]) -> str:
    """``("body", "name")`` as ``/name``; of parameters with where they stand, as in ``query/limit``."""
    where, *keys = place or ("body",)
    return "".join(f"/{key}" for key in keys) if where == "body" else "/".join(map(str, place))


def _http(_: Request, error: Exception) -> Json:
    assert isinstance(error, HTTPException)
    codes = {404: "no-such-route", 405: "method-not-allowed"}
    code = codes.get(error.status_code, "bad-request")
    return Problem(error.status_code, code, str(error.detail), headers=error.headers).answer()


def _bug(_: Request, error: Exception) -> Json:
    driving.talk("internal error: " + " | ".join(traceback.format_exception(error)[-2:]).replace("\n", " "))
    return Problem(500, "internal-error", "a bug in automc; the log of the service has more").answer()
