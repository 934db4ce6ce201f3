"""Pages about all studies: the list, a new one, SQL, the system."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from automc.app.reporting.found import versions
from automc.service import reading
from automc.service.desk import desk_of
from automc.service.offers import FILE
from automc.service.rendering import page
from automc.stores.looking import status

router = APIRouter(include_in_schema=False)

EXAMPLE = """\
name: my_study
model: digits_net
data: digits
space: joint
objectives: {top1: maximize, size_bytes: minimize}
constraints: ["macs_ratio <= 0.5"]
proposer: portfolio
budget: {trials: 60}
workers: {count: 0}
seed: 0
"""


@router.get("/")
def studies(request: Request) -> HTMLResponse:
    """All studies, the one with the newest event first."""
    rows = sorted(reading.listed(desk_of(request)), key=lambda row: row["last_event_at"], reverse=True)
    return page(request, "studies.html", "Studies", here="/", script="studies.js", studies=rows)


@router.get("/new")
def new(request: Request) -> HTMLResponse:
    """A new study from YAML."""
    offers = desk_of(request).offers.names()
    known = {"example": EXAMPLE, "offers": offers, "file": FILE}
    return page(request, "new.html", "New study", here="/new", script="new.js", **known)


@router.get("/sql")
def sql(request: Request) -> HTMLResponse:
    """Ask the trial database in SQL."""
    return page(request, "sql.html", "SQL", here="/sql", script="sql.js")


@router.get("/system")
def system(request: Request) -> HTMLResponse:
    """Who drives what, the database, versions."""
    desk = desk_of(request)
    found = status(desk.settings.storage)
    rows = reading.listed(desk)
    drivers = {row["name"]: desk.store.driver(row["name"]) for row in rows}
    place = {name: getattr(found, name) for name in ("storage", "kind", "version", "schema", "journal", "size_bytes")}
    sections: dict[str, Any] = {
        "Database": {name.removesuffix("_bytes"): value for name, value in place.items() if value is not None},
        "Rows by table": dict(found.tables),
        "Versions": versions(),
        "Service": {"address": desk.settings.origin, "read only": desk.settings.read_only},
    }
    return page(request, "system.html", "System", here="/system", studies=rows, drivers=drivers, sections=sections)
