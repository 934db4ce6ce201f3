"""Making a revision of a study: what may change, what it needs to be measured, and all of it in force at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from automc.app import driving, findings, latencies, warm
from automc.app.backfill import backfilled
from automc.app.config import StudyFile, check_space, read_again
from automc.app.effort_schema import MOST_TRIALS
from automc.app.remarks import remarks
from automc.app.revisions import account, changes, told
from automc.app.study import Study, built
from automc.core.history import corrections
from automc.core.revision import Reading
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.transfer import Setup
from automc.errors import SpecError
from automc.operators import OPERATORS

FIELDS: Mapping[str, tuple[str, ...]] = {
    "space": ("rules", "order", "orders", "runtime"),
    **{key: (key,) for key in ("objectives", "constraints", "proposer", "stopper", "rungs", "budget", "workers")},
}
"""The keys of a study file that a revision may change, and what of a spec they are."""

FIXED: Mapping[str, str] = {
    "name": "a study is found by it",
    "model": "its trials were measured on this network",
    "data": "its trials were measured on these data",
    "task": "its trials were judged by this task",
    "evaluator": "its trials were measured with these settings",
    "seed": "its trials were drawn with this one",
    "storage": "its trials are kept there",
}
"""The others, and why not."""


@dataclass(frozen=True)
class Wish:
    """What a revision is to change.

    Attributes:
        trials: how many more. sections: of a study file, in the place of those in force. changes: ``KEY=VALUE``, after
            them. warm_start: as for ``runs.start``.
        backfill: whether to measure what members of the front lack of new objectives and constraints.
    """

    trials: int | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[str] = ()
    warm_start: Sequence[str | Study] = ()
    backfill: bool = False


def extend(study: Study, wish: Wish) -> None:
    """Put a revision in force, or change nothing.

    Raises:
        SpecError: what may not change, or cannot work. LeaseHeld: the study is being searched.
    """
    with driving.Tenure(study.store, study.name):
        old = study.spec
        file = _asked(study, wish)
        new = file.spec
        fresh = any(
            getattr(new, name) != getattr(old, name) for name in (*FIELDS["space"], "objectives", "constraints")
        )
        evaluator = study.evaluator_of(new) if fresh else study.evaluator
        try:
            space = _space(study, file, evaluator)
            built(new, space)
            findings.measurable(new, evaluator.baseline)
        except SpecError as error:
            raise SpecError(file.placed(str(error))) from error
        records, specs = study.records(), [*study.store.revisions(study.name), new]
        read = Reading(specs, lambda: space, records, OPERATORS)
        facts = _facts(study, wish, (new, space), evaluator, read)
        found = backfilled(records, specs, space, evaluator) if wish.backfill else {}
        if new == replace(old, revision=new.revision, first_trial=new.first_trial) and not (wish.warm_start or found):
            raise SpecError(_nothing(wish))
        if found:
            study.store.add_metrics(study.name, found)
            records = study.records()
            read = Reading(specs, lambda: space, records, OPERATORS)
        study.revise(new, facts)
        correct_front(study)
        study.evaluator = evaluator
        latencies.keep(study.store, evaluator)
        for line in (
            *changes(old, new, study.layers),
            *([f"measured again: {len(found)} trials of the front"] if found else []),
        ):
            driving.talk(f"revision {new.revision}: {line}")
        driving.talk(f"revision {new.revision}: {told(account(records, read, new.first_trial))}")


def correct_front(study: Study) -> None:
    """The front is that of the revision in force from now on, whether it is searched on or not."""
    members = [member.number for member in study.front()]
    if wrong := corrections(study.store.front_changes(study.name), members):
        study.store.keep_front(study.name, wrong)


def _asked(study: Study, wish: Wish) -> StudyFile:
    """The study as it is to be, with its next revision's number."""
    old, count = study.spec, len(study.records())
    file = read_again(old, wish.sections, wish.changes)
    assert file.root is not None
    touched = {*wish.sections, *(_key(change) for change in wish.changes)}
    for key in sorted(touched & FIXED.keys()):
        if key == "storage" or getattr(file.spec, key) != getattr(old, key):
            _refuse(file, key, FIXED[key])
    if "rungs" in touched and [r.steps for r in file.spec.rungs] != [r.steps for r in old.rungs]:
        _refuse(file, "rungs", "its trials were repaired for so many steps")
    taken = {name: getattr(file.spec, name) for key in touched & FIELDS.keys() for name in FIELDS[key]}
    new = replace(old, **taken)
    if wish.trials is not None:
        new = replace(new, budget=replace(new.budget, trials=new.budget.trials + wish.trials))
    if new.budget.trials < min(count, old.budget.trials):
        file.root.deepest("budget", "trials").complain(f"{new.budget.trials} is below the {count} trials there are")
    if new.budget.trials > MOST_TRIALS:
        file.root.deepest("budget", "trials").complain(
            f"{new.budget.trials} is above {MOST_TRIALS}, the most that a study may have"
        )
    file.root.mistakes.raise_all()
    if wish.trials is None and new.budget.seconds != old.budget.seconds and count >= new.budget.trials:
        raise SpecError(
            f"extend: all {count} trials of the budget are there, so time alone adds none: give --trials +N too"
        )
    # Who evaluates changes no proposal; any other revision begins anew, knowing all there is.
    same = replace(new, workers=old.workers) == old and new.workers.window == old.workers.window
    first = old.first_trial if same and not (wish.warm_start or wish.backfill) else count
    return replace(file, spec=replace(new, revision=old.revision + 1, first_trial=first))


def _key(change: str) -> str:
    found = re.match(r"\w+", change.strip())
    return found[0] if found else ""


def _refuse(file: StudyFile, key: str, why: str) -> None:
    assert file.root is not None
    way = f"start a new study, with --from {file.spec.name} for what was learned"
    file.root.deepest(key).complain(f"cannot change: {why}; {way}")


def _space(study: Study, file: StudyFile, evaluator: Any) -> SearchSpace:
    """The space of the revision, with what is known of the sensitivities; the network is still the same."""
    old, new = study.spec, file.spec
    space = study.space_of(evaluator)
    if (old.rules, old.order, old.orders) == (new.rules, new.order, new.orders):
        return space
    return check_space(file, space.layers)


def _facts(
    study: Study, wish: Wish, aim: tuple[StudySpec, SearchSpace], evaluator: Any, read: Reading
) -> dict[str, Any]:
    """The facts of the revision; what its proposer needs is measured now."""
    (new, space), before = aim, study.space_of(evaluator)
    for line in remarks(new, space) if new.proposer != study.spec.proposer or space is not before else ():
        driving.talk(line)
    setup = Setup(space, {**evaluator.baseline, **study.baseline}, new.rungs)
    known = {**study.facts, warm.KEY: warm.moved(study.facts, before, space, read)}
    return findings.facts(new, setup, evaluator, warm.origins(wish.warm_start, study.storage, study), known)


def _nothing(wish: Wish) -> str:
    if wish.backfill:
        return "extend: nothing to backfill: the front has all metrics that objectives and constraints need"
    if wish.changes or wish.sections:
        return "extend: nothing changes: the study has these values already"
    return (
        "extend: say what to change: --trials +N, --seconds, --proposer, --set KEY=VALUE, --from, --workers, --backfill"
    )
