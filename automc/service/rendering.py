"""How pages are written: by templates that escape everything, under a policy that runs our own files only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from automc.app.tables import cell, plain
from automc.core.metrics import METRICS
from automc.service.gate import Caller

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
"""A browser loads what this service serves and nothing else; no script or style stands in a page."""

STUDY_PAGES = (
    ("", "Live"),
    ("/pareto", "Pareto"),
    ("/layers", "Layers"),
    ("/parallel", "Parallel"),
    ("/trials", "Trials"),
    ("/compare", "Compare"),
)
"""The pages of a study: the end of their address, and their name."""


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=PackageLoader("automc.service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"STUDY_PAGES": STUDY_PAGES, "cell": cell}
    return made


def page(request: Request, template: str, title: str, **known: Any) -> HTMLResponse:
    """A page.

    Args:
        title: of the page. known: what its template asks for; of these ``study`` is the name of one, ``here`` the end
            of the page's own address, ``script`` its module, ``given`` plain data for the module, ``status`` of HTTP.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    root = request.scope.get("root_path", "")
    scope = caller.token.scope if caller else ""
    base: dict[str, Any] = {"title": title, "root": root, "scope": scope, "study": "", "here": "", "script": ""}
    facts = {"root": root, "study": known.get("study", ""), "scope": scope, "metrics": units()}
    status, given = known.pop("status", 200), {**facts, **known.pop("given", {})}
    text = environment().get_template(template).render({**base, **known, "given": plain(given)})
    return HTMLResponse(text, status, {"content-security-policy": POLICY})


@cache
def units() -> Mapping[str, Mapping[str, str]]:
    """Unit and direction of every metric, which the scripts show numbers by."""
    return {name: {"unit": metric.unit, "direction": metric.direction} for name, metric in METRICS.items()}
