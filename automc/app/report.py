"""What the commands print: checks, studies, trials and proofs as text, and the same as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from automc.app.charts import Chart, scatter
from automc.app.confidence import hopeless
from automc.app.frames import frame_text
from automc.app.live import clock
from automc.app.revisions import told
from automc.app.space_report import block_rows, group_rows, layer_rows, layers_text, space_data, space_text
from automc.app.tables import cell, pairs, table
from automc.app.warm import lines
from automc.core.layers import Layer, LayerTable
from automc.core.metrics import METRICS
from automc.core.order import SITE as ORDER_SITE
from automc.core.policy import Value
from automc.core.study import StudySpec
from automc.core.trial import REASONS, Trial
from automc.operators import OPERATORS

if TYPE_CHECKING:
    import pandas as pd

    from automc.app.runs import Checked
    from automc.app.study import Study


def trial_columns(spec: StudySpec, known: Sequence[str], asked: str = "") -> list[str]:
    """Which columns of a trial frame fit a text table: the study's metrics and the errors of its objectives, and what
    is named in a filter or sorting."""
    wanted = [name for o in spec.objectives for name in (o.metric, f"{o.metric}_error")]
    wanted += [c.metric for c in spec.constraints]
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in asked).split())
    wanted += [name for metric in METRICS for name in (metric, f"{metric}_error") if words & {metric, name}]
    wanted += ["samples"] if "samples" in words else []
    names = ["number", "state", "rung", "reason", *wanted, "seconds", "fingerprint"]
    return [name for name in dict.fromkeys(names) if name in known]


def trial_data(trial: Trial) -> dict[str, Any]:
    """A trial as plain data, its policy nested by operator, layer and setting."""
    measured = trial.measurement
    return {
        "number": trial.number,
        "state": trial.state.value,
        "rung": trial.rung,
        "reason": trial.reason or None,
        "message": trial.message or None,
        "attempts": trial.attempts,
        "twin": trial.twin,
        "fingerprint": trial.policy.fingerprint,
        "seconds": measured.seconds if measured else None,
        "metrics": dict(measured.metrics) if measured else {},
        "errors": dict(measured.errors) if measured else {},
        "samples": measured.samples if measured else None,
        "policy": json.loads(trial.policy.to_json()),
        "realized": dict(measured.realized) if measured else {},
    }


def trial_text(trial: Trial, layers: LayerTable, baseline: Mapping[str, float]) -> str:
    """A trial: what became of it, its metrics beside the original model's, its policy layer by layer."""
    data = trial_data(trial)
    head = {key: data[key] for key in ("number", "state", "rung", "attempts", "twin", "seconds", "fingerprint")}
    if trial.reason:
        head |= {"reason": f"{trial.reason} ({REASONS.get(trial.reason, 'unknown')})", "message": trial.message}
    parts = [pairs({key: value for key, value in head.items() if value is not None})]
    if data["metrics"]:
        parts.append(metrics_text(data["metrics"], baseline, data["errors"], data["samples"]))
    whole = {
        "order" if site == ORDER_SITE else f"{site.operator} {site.setting}": value
        for site, value in trial.policy.items()
        if site.layer == "*"
    }
    if whole:
        parts.append(pairs(whole))
    parts.append(table(policy_rows(trial, layers)))
    return "\n\n".join(parts)


def metrics_text(
    metrics: Mapping[str, float], baseline: Mapping[str, float], errors: Mapping[str, float], samples: int
) -> str:
    """One line a metric, the original model's value beside it, each in its own unit; standard errors where known."""
    rows = [
        {
            "metric": name,
            "value": cell(name, value),
            "error": _error(name, errors[name], samples) if name in errors else "",
            "original": cell(name, baseline.get(name)),
        }
        for name, value in metrics.items()
    ]
    names = [name for name in rows[0] if name != "error" or errors]
    return table(rows, names, right=("value", "original"))


def _error(name: str, error: float, samples: int) -> str:
    return f"± {cell(name, error)}" + (f" ({samples:,} inputs)" if METRICS[name].sampled else "")


def policy_rows(trial: Trial, layers: LayerTable) -> list[dict[str, Any]]:
    """One row a layer: what the policy asks of it (of its group, where channels are shared), and what rounding did.

    A column ``real ...`` is there only where something came out otherwise than it was asked.
    """
    realized = trial.measurement.realized if trial.measurement else {}
    groups = {name: group.name for group in layers.groups for name in group.producers}
    blocks = {name: block.name for block in layers.blocks for name in block.layers}
    settings = {name: trial.policy.settings(name) for name in OPERATORS}
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    for layer in layers.layers:
        group = groups.get(layer.name, "")
        asked = _asked(settings, {"layer": layer.name, "group": group, "block": blocks.get(layer.name, "")})
        real = _real(realized, layer, group)
        rows.append({"layer": layer.name, "kind": layer.kind, "group": group or "-", **asked})
        rows[-1] |= {f"real {name}": value for name, value in real.items()}
        columns |= dict.fromkeys(["layer", "kind", "group", *asked])
        columns |= dict.fromkeys(f"real {name}" for name, value in real.items() if asked.get(name) != value)
    return [{name: row.get(name) for name in columns} for row in rows]


def _asked(settings: Mapping[str, Mapping[str, dict[str, Value]]], sites: Mapping[str, str]) -> dict[str, Value]:
    """What a policy asks of a layer, from its settings by operator and the names that each scope has for the layer."""
    found: dict[str, Value] = {}
    for name, operator in OPERATORS.items():
        found |= settings[name].get(sites.get(operator.scope, ""), {})
    return found


def _real(realized: Mapping[str, Any], layer: Layer, group: str) -> dict[str, Any]:
    """The facts about a layer. A group is named after its first producer: what is said under that name of channels
    holds for all producers of the group, the rest for that layer alone. Of a layer that was dropped nothing else holds.
    """
    own = realized.get(layer.name, {})
    if own.get("dropped"):
        return {"dropped": True}
    return {**{name: value for name, value in realized.get(group, {}).items() if name in _OF_GROUPS}, **own}


_OF_GROUPS = ("prune_ratio", "channels", "multiple_of")
"""What ``prune`` says of a group."""


def check_data(checked: Checked) -> dict[str, Any]:
    """What ``automc check --json`` prints."""
    return {
        "study": checked.spec.name,
        "task": checked.spec.task.name,
        "layers": layer_rows(checked.table),
        "groups": group_rows(checked.table),
        "blocks": block_rows(checked.table),
        "space": space_data(checked.space),
        "baseline": checked.baseline,
        "cost": _cost(checked),
        "warm_start": list(checked.warm_start),
        "remarks": list(checked.remarks),
    }


def check_text(checked: Checked) -> str:
    """Layers, groups, space, the original model's metrics and what the search will cost."""
    cost = _cost(checked)
    pace = f"one evaluation at the first rung took {cost['seconds_per_evaluation']:.2f} s on this machine"
    whole = f"{cost['trials']} trials on {cost['workers']} worker(s): about {clock(cost['seconds'])}"
    before = f"first {cost['probes']} probes of single decisions: about {clock(cost['probe_seconds'])}\n"
    before = before if cost["probes"] else ""
    return "\n\n".join(
        [
            layers_text(checked.table),
            space_text(checked.space),
            f"the original model, by the metrics of {checked.spec.task.name}\n" + pairs(checked.baseline),
            *(["\n".join(lines(checked.warm_start))] if checked.warm_start else []),
            *(["\n".join(checked.remarks)] if checked.remarks else []),
            f"{before}{pace}; {whole}, repair on higher rungs not counted\nnothing was written",
        ]
    )


def _cost(checked: Checked) -> dict[str, Any]:
    spec = checked.spec
    seconds = checked.seconds_per_evaluation * spec.budget.trials / spec.workers.most
    bound = spec.budget.seconds
    return {
        "seconds_per_evaluation": checked.seconds_per_evaluation,
        "trials": spec.budget.trials,
        "workers": spec.workers.most,
        "seconds": seconds if bound is None else min(seconds, bound),
        "probes": checked.probes,
        "probe_seconds": checked.probes * checked.seconds_per_probe,
    }


def study_text(study: Study) -> str:
    """A study: counts, failures, what it reached, its front."""
    facts = study.summary()
    counts = ", ".join(f"{count} {state}" for state, count in facts["counts"].items() if count) or "none yet"
    failures = ", ".join(f"{reason} {count}" for reason, count in sorted(facts["failures"].items())) or "none"
    best = ", ".join(
        f"{name} {cell(name, value)} (original {cell(name, facts['baseline'].get(name))})"
        for name, value in facts["best"].items()
    )
    aims = dict.fromkeys([o.metric for o in study.spec.objectives] + [c.metric for c in study.spec.constraints])
    known = {name: facts["median_errors"][name] for name in aims if name in facts["median_errors"]}
    errors = ", ".join(f"{name} ± {cell(name, error)}" for name, error in known.items())
    head = {
        "study": f"{facts['study']} in {facts['storage']}",
        "trials": f"{counts}; budget {facts['budget']}; {facts['answered_from_store']} answered from the store",
        "failures": failures,
        "proposer": facts["proposer"],
        **({"started from": "; ".join(map(_started, facts["warm_start"]))} if facts["warm_start"] else {}),
        **{f"revision {r['revision']}": _revised(r) for r in facts["revisions"]},
        **({"earlier": told(facts["earlier"])} if facts["earlier"]["excluded"] else {}),
        "evaluated": f"{clock(facts['seconds'])} of work{_inputs(facts['inputs'])}",
        "best": best or "-",
        **({"error": f"{errors} (median standard error)"} if errors else {}),
        **_predicted(facts["prediction_error"]),
        "front": f"{len(facts['front'])} trials, covering {facts['covered']:.1%} of the box below the original model",
    }
    frame = study.pareto()
    if not len(frame):
        return pairs(head)
    return f"{pairs(head)}\n\n{frame_text(frame, trial_columns(study.spec, list(frame.columns)))}"


def _revised(revision: Mapping[str, Any]) -> str:
    return f"from trial {revision['first_trial']}: {'; '.join(revision['changes']) or 'told more'}"


def _started(origin: Mapping[str, Any]) -> str:
    left = sum(origin["excluded"].values())
    return f"{origin['reused']} trials of {origin['study']}" + (f" ({left} left out)" if left else "")


def _inputs(facts: Mapping[str, Any]) -> str:
    """What was run, and what early stops saved."""
    if not facts["run"]:
        return ""
    said = f"; {facts['run']:,} evaluations of an input"
    if not facts["stopped"]:
        return said
    whole = f"{facts['trials']:,} x {facts['inputs']:,}"
    doubt = f"one that belongs to the front is ended so with a probability of at most {facts['doubt']:g}"
    saved = f"{facts['share']:.0%} of {whole} saved by ending {hopeless(facts['stopped'])} early"
    return f"{said}, {saved} ({doubt})"


def _predicted(found: tuple[float, int] | None) -> dict[str, str]:
    """How far predicted latencies were from measured ones."""
    if found is None:
        return {}
    return {"latency": f"predictions are {found[0]:.1%} off (median of the {found[1]} trials measured as well)"}


def front_text(frame: pd.DataFrame, columns: Sequence[str], picture: Chart) -> str:
    """The front as a table and a scatter plot in text."""
    return f"{frame_text(frame, columns) if len(frame) else 'the front is empty'}\n\n{scatter(picture)}"
