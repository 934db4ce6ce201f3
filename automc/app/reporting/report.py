"""A study as a document, and the document as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automc.app.reporting import outcome, sections
from automc.app.reporting.document import Document
from automc.app.reporting.found import Found, find, measured
from automc.app.reporting.html import to_html
from automc.app.reporting.markdown import to_markdown
from automc.app.tables import cell
from automc.core.tally import by_state
from automc.core.trial import TrialState

if TYPE_CHECKING:
    from automc.app.study import Study

WRITERS = {"html": to_html, "md": to_markdown}
"""How a report is written, by ``--format``."""


def report(study: Study, form: str = "html", pick: str = "knee") -> str:
    """The report of a study. Reads the database only.

    Args:
        form: of WRITERS. pick: which member of the front is shown beside the original, as ``Study.picked`` takes it.

    Raises:
        SpecError, UnknownTrial: as ``Study.picked``, where there is a front.
    """
    return WRITERS[form](document(find(study, pick)))


def document(found: Found) -> Document:
    """All sections that have something to say."""
    parts = [
        sections.asked(found),
        outcome.picked(found),
        outcome.front(found),
        sections.went(found),
        outcome.layers(found),
        outcome.mattered(found),
        sections.sure(found),
        sections.failures(found),
        sections.repeat(found),
    ]
    return Document(f"Study {found.name}", _lead(found), [part for part in parts if part is not None])


def _lead(found: Found) -> str:
    """What came out, in a sentence."""
    counts = by_state(found.counts)
    done, running = sum(count for state, count in counts.items() if state.finished), counts[TrialState.RUNNING]
    head = f"{done:,} of {found.spec.budget.trials:,} trials are done" + (f", {running} are running" if running else "")
    if found.picked is None:
        return f"{head}. No trial meets the constraints yet."
    metrics = measured(found.picked).metrics
    said = [
        f"{o.metric} {cell(o.metric, metrics.get(o.metric))} (original {cell(o.metric, found.baseline.get(o.metric))})"
        for o in found.spec.objectives
    ]
    return f"{head}; {len(found.front)} are on the front. Trial {found.picked.number} has {', '.join(said)}."
