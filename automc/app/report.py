"""What the commands print: layer tables, spaces, studies and trials as text, and the same as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from automc.app.charts import Chart, scatter
from automc.app.frames import frame_text
from automc.app.live import clock
from automc.app.tables import cell, pairs, table
from automc.core.layers import Layer, LayerTable
from automc.core.metrics import METRICS
from automc.core.policy import Value
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import REASONS, Trial
from automc.operators import OPERATORS

if TYPE_CHECKING:
    import pandas as pd

    from automc.app.runs import Checked
    from automc.app.study import Study
    from automc.export.proof import Proof


def layer_rows(layers: LayerTable) -> list[dict[str, Any]]:
    """One row a layer: shape, cost and its share of the network's, coupled group, why it cannot be pruned."""
    params, macs = max(layers.params, 1), max(layers.macs, 1)
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "in": layer.in_channels,
            "out": layer.out_channels,
            "kernel": layer.kernel or "-",
            "params": layer.params,
            "params %": f"{layer.params / params:.1%}",
            "macs": layer.macs,
            "macs %": f"{layer.macs / macs:.1%}",
            "group": layer.group or "-",
            "not prunable": layer.reason,
        }
        for layer in layers.layers
    ]


def group_rows(layers: LayerTable) -> list[dict[str, Any]]:
    """One row a group of layers that lose channels together."""
    return [
        {
            "group": group.name,
            "channels": group.channels,
            "producers": " ".join(group.producers),
            "consumers": " ".join(group.consumers),
        }
        for group in layers.groups
    ]


def layers_text(layers: LayerTable) -> str:
    """The layer table and its groups."""
    shape = "x".join(str(size) for size in layers.input_shape)
    head = f"{len(layers.layers)} layers, {layers.params:,} parameters, {layers.macs:,} MACs for one {shape} input"
    groups = table(group_rows(layers)) if layers.groups else "(no group of channels can be pruned)"
    return f"{head}\n\n{table(layer_rows(layers))}\n\n{groups}"


def space_data(space: SearchSpace) -> dict[str, Any]:
    """How large a space is: ``log10_size`` counts the decisions that are not continuous."""
    discrete = [d.domain.size for d in space.decisions if math.isfinite(d.domain.size)]
    return {
        "decisions": len(space),
        "continuous": len(space) - len(discrete),
        "log10_size": sum(math.log10(size) for size in discrete),
        "fixed": len(space.fixed),
        "order": list(space.order),
        "domains": _domain_rows(space),
    }


def _domain_rows(space: SearchSpace) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str, str], int] = {}
    for decision in space.decisions:
        key = (decision.site.operator, decision.site.setting, str(decision.domain))
        counts[key] = counts.get(key, 0) + 1
    return [{"operator": o, "setting": s, "domain": d, "decisions": n} for (o, s, d), n in counts.items()]


def space_text(space: SearchSpace) -> str:
    """The domains of a space and its size."""
    data = space_data(space)
    extra = f", and {data['continuous']} continuous decisions beside them" if data["continuous"] else ""
    size = f"{data['decisions']} decisions, {data['fixed']} fixed; 10^{data['log10_size']:.1f} policies{extra}"
    return f"{table(data['domains'])}\n\n{size}\noperators are applied in the order {', '.join(space.order)}"


def trial_columns(spec: StudySpec, known: Sequence[str], asked: str = "") -> list[str]:
    """Which columns of a trial frame fit a text table: the study's metrics, and those named in a filter or sorting."""
    wanted = [o.metric for o in spec.objectives] + [c.metric for c in spec.constraints]
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in asked).split())
    wanted += [name for name in METRICS if name in words]
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
        parts.append(metrics_text(data["metrics"], baseline))
    whole = {f"{site.operator} {site.setting}": v for site, v in trial.policy.items() if site.layer == "*"}
    if whole:
        parts.append(pairs(whole))
    parts.append(table(policy_rows(trial, layers)))
    return "\n\n".join(parts)


def metrics_text(metrics: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """One line a metric, the original model's value beside it, each in its own unit."""
    rows = [
        {"metric": name, "value": cell(name, value), "original": cell(name, baseline.get(name))}
        for name, value in metrics.items()
    ]
    return table(rows, right=("value", "original"))


def policy_rows(trial: Trial, layers: LayerTable) -> list[dict[str, Any]]:
    """One row a layer: what the policy asks of it (of its group, where channels are shared), and what rounding did.

    A column ``real ...`` is there only where something came out otherwise than it was asked.
    """
    realized = trial.measurement.realized if trial.measurement else {}
    groups = {name: group.name for group in layers.groups for name in group.producers}
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    for layer in layers.layers:
        group = groups.get(layer.name, "")
        asked, real = _asked(trial, layer, group), _real(realized, layer, group)
        rows.append({"layer": layer.name, "kind": layer.kind, "group": group or "-", **asked})
        rows[-1] |= {f"real {name}": value for name, value in real.items()}
        columns |= dict.fromkeys(["layer", "kind", "group", *asked])
        columns |= dict.fromkeys(f"real {name}" for name, value in real.items() if asked.get(name) != value)
    return [{name: row.get(name) for name in columns} for row in rows]


def _asked(trial: Trial, layer: Layer, group: str) -> dict[str, Value]:
    sites = {"layer": layer.name, "group": group, "network": ""}
    found: dict[str, Value] = {}
    for name, operator in OPERATORS.items():
        found |= trial.policy.settings(name).get(sites[operator.scope], {})
    return found


def _real(realized: Mapping[str, Any], layer: Layer, group: str) -> dict[str, Any]:
    """The facts about a layer. A group is named after its first producer, and what is said under that name of
    bits concerns that layer alone; the rest holds for all producers of the group."""
    alone = {name for operator in OPERATORS.values() if operator.scope == "layer" for name in operator.settings}
    shared = {name: value for name, value in realized.get(group, {}).items() if name not in alone}
    return {**shared, **realized.get(layer.name, {})}


def check_data(checked: Checked) -> dict[str, Any]:
    """What ``automc check --json`` prints."""
    return {
        "study": checked.spec.name,
        "layers": layer_rows(checked.table),
        "groups": group_rows(checked.table),
        "space": space_data(checked.space),
        "baseline": checked.baseline,
        "cost": _cost(checked),
    }


def check_text(checked: Checked) -> str:
    """Layers, groups, space, the original model's metrics and what the search will cost."""
    cost = _cost(checked)
    pace = f"one evaluation at the first rung took {cost['seconds_per_evaluation']:.2f} s on this machine"
    whole = f"{cost['trials']} trials on {cost['workers'] or 1} worker(s): about {clock(cost['seconds'])}"
    return "\n\n".join(
        [
            layers_text(checked.table),
            space_text(checked.space),
            "the original model\n" + pairs(checked.baseline),
            f"{pace}; {whole}, repair on higher rungs not counted\nnothing was written",
        ]
    )


def _cost(checked: Checked) -> dict[str, Any]:
    spec = checked.spec
    seconds = checked.seconds_per_evaluation * spec.budget.trials / max(spec.workers.count, 1)
    bound = spec.budget.seconds
    return {
        "seconds_per_evaluation": checked.seconds_per_evaluation,
        "trials": spec.budget.trials,
        "workers": spec.workers.count,
        "seconds": seconds if bound is None else min(seconds, bound),
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
    head = {
        "study": f"{facts['study']} in {facts['storage']}",
        "trials": f"{counts}; budget {facts['budget']}; {facts['answered_from_store']} answered from the store",
        "failures": failures,
        "proposer": facts["proposer"],
        "evaluated": f"{clock(facts['seconds'])} of work",
        "best": best or "-",
        "front": f"{len(facts['front'])} trials, covering {facts['covered']:.1%} of the box below the original model",
    }
    frame = study.pareto()
    if not len(frame):
        return pairs(head)
    return f"{pairs(head)}\n\n{frame_text(frame, trial_columns(study.spec, list(frame.columns)))}"


def front_text(frame: pd.DataFrame, columns: Sequence[str], picture: Chart) -> str:
    """The front as a table and a scatter plot in text."""
    return f"{frame_text(frame, columns) if len(frame) else 'the front is empty'}\n\n{scatter(picture)}"


def proof_text(proof: Proof) -> str:
    """What an exported model was measured to be, beside the original model, and every promise it does not keep."""
    rows = [
        _proved("top1", proof.top1, proof.baseline_top1),
        _proved("size_bytes", proof.size_bytes, proof.baseline_bytes),
        _proved("latency_ms", proof.latency.median, proof.baseline_latency.median),
        _proved("agreement", proof.agreement, None),
    ]
    body = table(rows, right=("exported", "original", "ratio"))
    verdict = ["proved: every promise holds"] if proof.passed else [f"NOT KEPT: {reason}" for reason in proof.reasons]
    return "\n".join([body, "", *verdict])


def _proved(metric: str, ours: float | None, original: float | None) -> dict[str, str]:
    ratio = f"{ours / original:.3f}" if ours is not None and original else "-"
    return {"metric": metric, "exported": cell(metric, ours), "original": cell(metric, original), "ratio": ratio}
