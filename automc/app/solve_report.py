"""What ``automc solve`` prints."""

from __future__ import annotations

from automc.app.report import policy_rows
from automc.app.solving import Answer
from automc.app.study import Study
from automc.app.tables import cell, table
from automc.core.trial import Trial

_SAID = {True: "kept", False: "NOT kept", None: "not known"}


def answer_text(study: Study, answer: Answer) -> str:
    """The answer with its metrics, the original's beside them, what became of the bounds, and the policy."""
    number, name = answer.trial, study.name
    if answer.predicted:
        rung = "" if answer.rung is None else f"; for rung {answer.rung}"
        head = f"PREDICTED: no trial keeps these bounds; nothing below was measured{rung}"
    else:
        head = f"trial {name}/{number}, measured: the best of those that keep these bounds"
    heading = "predicted" if answer.predicted else "measured"
    rows = [
        {"metric": metric, heading: _value(answer, metric), "original": cell(metric, study.baseline.get(metric))}
        for metric in dict.fromkeys([*_first(study, answer), *answer.metrics])
    ]
    trial = Trial(0, answer.policy) if number is None else study.trial(number)
    lines = [head, "", table(rows, right=(heading, "original")), ""]
    lines += [f"{bound}: {_SAID[kept]}" for bound, kept in answer.kept.items()]
    lines += [*answer.remarks, "", _policy(study, trial)]
    if answer.predicted:
        return "\n".join(lines)
    return "\n".join([*lines, "", f"automc export {name}/{number} -o FOLDER"])


def _first(study: Study, answer: Answer) -> list[str]:
    """What was asked about, and what the study is after."""
    asked = [*(bound.metric for bound in answer.bounds), *(o.metric for o in study.spec.objectives)]
    return [metric for metric in asked if metric in answer.metrics]


def _value(answer: Answer, metric: str) -> str:
    error = answer.errors.get(metric)
    return cell(metric, answer.metrics[metric]) + (f" ± {cell(metric, error)}" if error else "")


def _policy(study: Study, trial: Trial) -> str:
    rows = policy_rows(trial, study.layers)
    return table(rows) if rows else ""
