"""The sections of a report about the search: what was asked, how it went, what failed, how to repeat it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from automc.app import latencies
from automc.app.confidence import hopeless, median_errors, savings
from automc.app.live import clock
from automc.app.reporting.document import Block, Code, Facts, Folded, Grid, Section, Text
from automc.app.reporting.found import Found, work
from automc.app.reporting.progress import progress
from automc.app.tables import cell
from automc.app.writer import flow
from automc.core.pareto import covered
from automc.core.space import written
from automc.core.study import Part, StudySpec
from automc.core.tally import by_state
from automc.core.trial import REASONS, TrialState


def asked(found: Found) -> Section:
    """Objectives, constraints, space, proposer, budget, seed; and the revisions, where there are several."""
    spec = found.spec
    facts = {
        "model": _model(spec),
        "data": _part(spec.data),
        "task": _part(spec.task),
        "objectives": ", ".join(str(o) for o in spec.objectives),
        "constraints": ", ".join(str(c) for c in spec.constraints) or "none",
        "order": _order(spec),
        "evaluator": _part(spec.evaluator),
        "rungs": "; ".join(_rung(rung.steps, rung.share, place) for place, rung in enumerate(spec.rungs)),
        "proposer": _part(spec.proposer),
        "stopper": _part(spec.stopper),
        "budget": f"{spec.budget.trials:,} trials"
        + (f", {clock(spec.budget.seconds)}" if spec.budget.seconds is not None else ""),
        "seed": str(spec.seed),
        "revision": str(spec.revision),
    }
    blocks: list[Block] = [Facts(facts), Grid([_rule(rule.to_data()) for rule in spec.rules])]
    if len(found.revisions) > 1:
        blocks += [Text("The study was revised:"), Grid([_revision(each) for each in found.revisions])]
    return Section("What was asked", blocks)


def _revision(spec: StudySpec) -> dict[str, str]:
    return {
        "revision": str(spec.revision),
        "first trial": str(spec.first_trial),
        "proposer": _part(spec.proposer),
        "trials in all": f"{spec.budget.trials:,}",
        "objectives": ", ".join(str(o) for o in spec.objectives),
        "constraints": ", ".join(str(c) for c in spec.constraints) or "none",
    }


def _part(part: Part) -> str:
    said = ", ".join(f"{key} {flow(value)}" for key, value in part.settings.items())
    return f"{part.name} ({said})" if said else part.name


def _order(spec: StudySpec) -> str:
    """The operators that the space uses, in the order in which they are applied."""
    used = {rule.operator for rule in spec.rules}
    orders = dict.fromkeys(
        ", then ".join(name for name in order if name in used) for order in spec.orders or [spec.order]
    )
    return "; or ".join(orders)


def _model(spec: StudySpec) -> str:
    said = _part(Part(spec.model.name, spec.model.settings))
    return f"{said}, weights {spec.model.weights}" if spec.model.weights else said


def _rung(steps: int, share: float, place: int) -> str:
    said = f"{place}: {steps} steps of repair" if steps else f"{place}: no training"
    return f"{said}, for {share:.0%} of those below" if place else said


def _rule(rule: Mapping[str, Any]) -> dict[str, str]:
    """A rule of the space: which operator, which layers, which values."""
    selectors = {"layers": "layers", "exclude": "except", "kinds": "kind", "indices": "index"}
    where = [
        f"{word} {', '.join(map(str, rule[key]))}"
        for key, word in selectors.items()
        if rule[key] and tuple(rule[key]) != ("*",)
    ]
    values = "; ".join(f"{name} {_domain(domain)}" for name, domain in rule["settings"].items())
    return {"operator": rule["operator"], "where": "; ".join(where) or "everywhere", "settings": values}


def _domain(domain: Any) -> str:
    if isinstance(domain, (list, tuple)):
        return ", ".join(written(value) for value in domain)
    step = f" step {domain['step']:g}" if domain["step"] is not None else " log" if domain["log"] else ""
    return f"{domain['low']:g}..{domain['high']:g}{step}"


def went(found: Found) -> Section:
    """Counts, work, how the front grew."""
    spec, counts = found.spec, by_state(found.counts)
    share = covered(list(found.front), spec.objectives, spec.constraints, dict(found.baseline))
    facts = {
        "trials": ", ".join(f"{number:,} {state.value}" for state, number in counts.items() if number) or "none yet",
        "answered from the store": f"{sum(count.number for count in found.counts if count.answered):,}",
        "evaluation": f"{clock(work(found.counts))} of work, all workers together",
        "front": f"{len(found.front)} trials, covering {share:.1%} of the box below the original model",
    }
    if found.started:
        facts["started from"] = "; ".join(found.started)
    return Section("How the search went", [Facts(facts), *progress(found)])


def sure(found: Found) -> Section | None:
    """Standard errors, what early stops saved, how far predicted latencies were off; None where nothing is known."""
    facts: dict[str, str] = {}
    errors = median_errors(found.trials)
    aims = dict.fromkeys([*(o.metric for o in found.spec.objectives), *(c.metric for c in found.spec.constraints)])
    known = [f"{name} ± {cell(name, errors[name])}" for name in aims if name in errors]
    if known:
        facts["median standard error"] = ", ".join(known)
    saved = savings(found.counts)
    if saved.stopped:
        ended = f"{hopeless(saved.stopped)} ended early"
        facts["early stops"] = f"{ended}, which saved {saved.share:.0%} of the inputs to run"
    predicted = latencies.prediction_error(found.trials)
    if predicted is not None:
        share, count = predicted
        facts["predicted latency"] = f"{share:.1%} off (median of the {count} trials that were measured as well)"
    return Section("How sure the numbers are", [Facts(facts)]) if facts else None


LONGEST = 300
"""Characters of a message that are shown."""


def failures(found: Found) -> Section:
    """Failures by reason, each with its last message; hopeless trials beside them."""
    if not found.ended:
        return Section("Failures", [Text("No trial failed.")])
    counts: Counter[tuple[TrialState, str]] = Counter()
    for count in found.counts:
        if count.reason:
            counts[count.state, count.reason] += count.number
    last = {(trial.state, trial.reason): trial for trial in found.ended}
    rows = [
        {
            "reason": reason,
            "state": state.value,
            "trials": f"{count:,}",
            "meaning": REASONS.get(reason, "unknown"),
            "last": f"trial {last[state, reason].number}: {_shortened(last[state, reason].message)}",
        }
        for (state, reason), count in counts.most_common()
    ]
    return Section("Failures", [Grid(rows, right=("trials",))])


def _shortened(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def repeat(found: Found) -> Section:
    """Commands, the study file, versions, seed, storage."""
    name, spec = found.name, found.spec
    at = ["--storage", found.storage]
    commands = [["automc", "search", "study.yaml", "--storage", "again.db"]]
    before = found.revisions[0]
    for revision in found.revisions[1:]:
        more = revision.budget.trials - before.budget.trials
        changed = ["--proposer", revision.proposer.name] if revision.proposer != before.proposer else []
        settings = [
            word
            for key, value in (revision.proposer.settings.items() if changed else ())
            for word in ("--set", f"proposer.settings.{key}={value}")
        ]
        if more > 0:
            commands.append(
                ["automc", "extend", name, "--trials", f"+{more}", *changed, *settings, "--storage", "again.db"]
            )
        before = revision
    uses = [["automc", "show", name, *at]]
    if found.picked is not None:
        ref = f"{name}/{found.picked.number}"
        uses += [["automc", "trial", ref, *at], ["automc", "export", ref, "-o", "out", *at]]
    facts = {"seed": str(spec.seed), "storage": found.storage, "written": found.written}
    return Section(
        "How to repeat it",
        [
            Facts({**facts, **found.versions}),
            Text("Versions are those of the machine that wrote this report. The search again, from the study file:"),
            Code("\n".join(map(shlex.join, commands))),
            Folded("study.yaml, as the study began", Code(found.study_file)),
            Text("What came of it, from the trial database:"),
            Code("\n".join(map(shlex.join, uses))),
        ],
    )
