"""Pages of one study. What they show comes from the functions that the command line uses."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from automc.app import catalog, comparing, frames, listing, whatif
from automc.app.charts import pick_axes
from automc.app.report import policy_rows, trial_columns
from automc.app.reporting import strips
from automc.app.study import Study
from automc.app.tables import cell
from automc.core.metrics import Measurement
from automc.core.order import SITE as ORDER_SITE
from automc.core.revision import aims
from automc.core.trial import REASONS, Trial
from automc.errors import AutomcError, SpecError
from automc.export.formats import FORMATS
from automc.service.desk import desk_of
from automc.service.reading import status_of
from automc.service.rendering import page
from automc.stores.paging import TEXTS

router = APIRouter(include_in_schema=False, prefix="/studies/{name}")

ROWS = 100
"""Trials of one page of the table."""


def opened(request: Request, name: str) -> Study:
    """The study of the address. Raises UnknownStudy."""
    return desk_of(request).study(name)


Opened = Annotated[Study, Depends(opened)]


COSTS, AXES = ("macs_ratio", "bops_ratio", "size_ratio", "latency_ms", "params_ratio", "seconds"), 6
"""Axes of the parallel page behind the study's own aims, and how many at first."""

EVENTS, WITHIN = 18, 1_000
"""So many events are shown at first, of so many newest ones of the database."""

QUANTITIES = tuple({"setting": q.setting, "title": q.title} for q in strips.QUANTITIES)

STEER = (
    ("pause", "Pause", "Nothing new is started; running trials finish; the driver keeps its workers and waits."),
    ("resume", "Resume", "The search goes on where it was left. What was measured is not measured again."),
    ("stop", "Stop", "Nothing new is started; running trials finish and count; then the driver ends. Resume goes on."),
    (
        "cancel",
        "Cancel",
        "It ends at once. What runs is given up and waits again: its time is lost, no finished trial is.",
    ),
    ("extend", "Extend…", "A new revision with more trials, another proposer or other aims. Every trial is kept."),
)
"""What can be asked of a study, and what that does."""


@router.get("")
def live(request: Request, study: Opened) -> HTMLResponse:
    """A study while it is searched."""
    desk = desk_of(request)
    facts = status_of(desk, study.name)
    # Numbers of events are those of all studies.
    events = desk.store.events(study.name, max(facts["last_event"] - WITHIN, 0), WITHIN)[-EVENTS:]
    given = {**_given(study), "status": facts, "events": [event._asdict() for event in events]}
    known = {"facts": facts, "verbs": STEER, "proposers": sorted(catalog.PROPOSERS), "script": "study.js"}
    return page(request, "study.html", study.name, study=study.name, given=given, **known)


@router.get("/pareto")
def pareto(request: Request, study: Opened, x: str | None = None, y: str | None = None) -> HTMLResponse:
    """The plane of two metrics. Axes that the study does not have are those it would choose."""
    names = _metrics(study)
    across, up = pick_axes(study.spec, *(name if name in names else None for name in (x, y)))
    finished = sum(count.number for count in study.store.tally(study.name) if count.state.finished)
    known = {"metrics": names, "x": across, "y": up, "finished": finished, "formats": list(FORMATS)}
    title, script = f"{study.name} front", "pareto.js"
    return page(
        request, "pareto.html", title, study=study.name, here="/pareto", script=script, given=_given(study), **known
    )


@router.get("/layers")
def layers(request: Request, study: Opened) -> HTMLResponse:
    """The members of the front by layer."""
    given = {**_given(study), "sites": whatif.sites(study)}
    known = {"objective": study.spec.objectives[0].metric, "script": "layers.js"}
    return page(request, "layers.html", f"{study.name} layers", study=study.name, here="/layers", given=given, **known)


@router.get("/parallel")
def parallel(request: Request, study: Opened) -> HTMLResponse:
    """Trials as lines over several metrics."""
    names, wanted = _metrics(study), dict.fromkeys([*aims(study.spec), *COSTS])
    shown = [name for name in wanted if name in names][:AXES]
    known = {"metrics": names, "shown": shown, "script": "parallel.js"}
    title = f"{study.name} parallel"
    return page(request, "parallel.html", title, study=study.name, here="/parallel", given=_given(study), **known)


@router.get("/trials")
def trials(request: Request, study: Opened, where: str = "", order_by: str = "", after: str = "") -> HTMLResponse:
    """The trials that a filter holds for, a page at a time. A mistake in the filter is said above an empty table."""
    problem, rows, cursor, known = "", list[dict[str, Any]](), "", list[str]()
    try:
        frame = study.trials(where or None, listing.names(order_by), ROWS, after=after)
        rows, cursor, known = frames.rows(frame), frame.attrs[listing.AFTER], list(frame.columns)
    except SpecError as error:
        problem = str(error)
    columns = trial_columns(study.spec, known, f"{where} {order_by}") or ["number", "state"]
    found = {"rows": rows, "after": cursor, "columns": columns, "texts": TEXTS, "problem": problem}
    asked = {"where": where, "order_by": order_by, "metrics": _metrics(study), "status": 422 if problem else 200}
    return page(request, "trials.html", f"{study.name} trials", study=study.name, here="/trials", **found, **asked)


@router.get("/trials/{number}")
def trial(request: Request, study: Opened, number: int) -> HTMLResponse:
    """One trial: what became of it, its metrics beside the original's, its policy, how it was run."""
    found = study.trial(number)
    whole = {
        "order" if site == ORDER_SITE else f"{site.operator} {site.setting}": value
        for site, value in found.policy.items()
        if site.layer == "*"
    }
    shown = {
        "trial": {"number": number, "state": found.state.value, "twin": found.twin},
        "head": _head(found),
        "whole": whole,
        "metrics": _beside(study, found),
        "policy": policy_rows(found, study.layers),
        "attempts": [{**vars(one), "state": one.state.value} for one in study.store.attempts(study.name, number)],
        "files": study.store.artifacts(study.name, number),
    }
    return page(request, "trial.html", f"{study.name}/{number}", study=study.name, here="/trials", **shown)


@router.get("/compare")
def compare(
    request: Request, study: Opened, a: int | None = None, b: int | None = None, all: bool = False
) -> HTMLResponse:
    """Two trials beside each other."""
    shown: dict[str, Any] = {"a": a, "b": b, "everything": all, "notes": (), "tables": {}, "problem": ""}
    if a is not None and b is not None:
        try:
            found = comparing.compare((study, study.trial(a)), (study, study.trial(b)))
        except AutomcError as error:
            shown |= {"problem": str(error), "status": 404}
        else:
            rows = comparing.difference_rows(found.metrics, found.names)
            policy = comparing.policy_contrast(found.policy, all)
            shown |= {"notes": found.notes, "tables": {"Metrics": rows, "Policies": policy}}
    return page(request, "compare.html", f"{study.name} compare", study=study.name, here="/compare", **shown)


def _given(study: Study) -> dict[str, Any]:
    """What every chart of a study needs to know before it asks for anything."""
    spec = study.spec
    return {
        "objectives": [vars(objective) for objective in spec.objectives],
        "constraints": [vars(constraint) for constraint in spec.constraints],
        "aims": aims(spec),
        "baseline": study.baseline,
        "quantities": QUANTITIES,
    }


def _metrics(study: Study) -> list[str]:
    """What a study measures, its objectives first."""
    return list(dict.fromkeys([*(o.metric for o in study.spec.objectives), *study.baseline, "seconds"]))


def _head(trial: Trial) -> dict[str, Any]:
    found = {"rung": trial.rung, "attempts": trial.attempts, "fingerprint": trial.policy.fingerprint}
    found |= {"seconds": f"{trial.measurement.seconds:.1f}"} if trial.measurement else {}
    found |= {"same policy as": f"trial {trial.twin}"} if trial.twin is not None else {}
    if trial.reason:
        found |= {"reason": f"{trial.reason} ({REASONS.get(trial.reason, 'unknown')})", "message": trial.message}
    return found


def _beside(study: Study, trial: Trial) -> list[dict[str, str]]:
    if trial.measurement is None:
        return []
    rows = comparing.differences(Measurement(study.baseline), trial.measurement)
    shown = comparing.difference_rows(rows, ("original", f"trial {trial.number}"))
    errors = trial.measurement.errors  # the original's are not kept
    told = {name: f"± {cell(name, error)}" for name, error in errors.items()}
    return [{**texts, "error": told.get(row.metric, "-")} for row, texts in zip(rows, shown, strict=True)]
