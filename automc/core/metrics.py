"""The metrics table, objectives, constraints and measurements."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from automc.errors import SpecError


@dataclass(frozen=True)
class Metric:
    """A measured number: its unit, which way is better, and what it says.

    ``sampled``: it is a statistic of the task over the inputs of the search split, so it has a standard error.
    ``signed``: it may be negative.
    """

    name: str
    unit: str
    direction: str
    doc: str
    sampled: bool = False
    signed: bool = False

    @property
    def has_error(self) -> bool:
        """Whether a measurement may come with a standard error: statistics of the task, and measured times."""
        return self.sampled or (self.name.startswith("latency_") and "predicted" not in self.name)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of what the task judges, from 0 to 1."""
        return self.sampled and self.unit == "ratio" and not self.signed


def _table(*rows: Metric) -> dict[str, Metric]:
    return {row.name: row for row in rows}


METRICS: Mapping[str, Metric] = _table(
    Metric("top1", "ratio", "maximize", "share of the search split whose highest output is the label", True),
    Metric(
        "top5", "ratio", "maximize", "share whose label is among the five highest outputs; of more than 5 classes", True
    ),
    Metric("top1_worst_class", "ratio", "maximize", "top1 of the class that has the lowest", True),
    Metric("loss", "nats", "minimize", "mean cross-entropy on the search split", True),
    Metric(
        "agreement",
        "ratio",
        "maximize",
        "share of predictions that are the original model's; needs no labels",
        True,
    ),
    Metric("mse", "squared unit", "minimize", "mean squared error of a regression", True),
    Metric("mae", "unit", "minimize", "mean absolute error of a regression", True),
    Metric(
        "r2", "ratio", "maximize", "coefficient of determination of a regression, mean over its outputs", True, True
    ),
    Metric(
        "teacher_r2",
        "ratio",
        "maximize",
        "r2 with the original model's outputs as targets; needs no labels",
        True,
        True,
    ),
    Metric(
        "miou", "ratio", "maximize", "intersection over union of the pixels of a class, mean over the classes", True
    ),
    Metric("pixel_accuracy", "ratio", "maximize", "share of pixels whose highest output is the label", True),
    Metric("map50", "ratio", "maximize", "average precision of boxes at IoU 0.5, mean over the classes", True),
    Metric(
        "map", "ratio", "maximize", "average precision of boxes, mean over IoU 0.5, 0.55, ..., 0.95 and classes", True
    ),
    Metric("perplexity", "tokens", "minimize", "exponential of the mean cross-entropy of a token", True),
    Metric(
        "cosine",
        "ratio",
        "maximize",
        "mean cosine of an embedding with the original model's; needs no labels",
        True,
        True,
    ),
    Metric("score", "score", "maximize", "what a task of your own measures", True, True),
    Metric("params", "count", "minimize", "weights, biases and normalisation parameters"),
    Metric("params_nonzero", "count", "minimize", "params without those that a mask of sparsify sets to zero"),
    Metric("macs", "count", "minimize", "multiply-accumulates of one input"),
    Metric("bops", "count", "minimize", "sum over layers of MACs x weight bits x activation bits (untouched: 32)"),
    Metric("size_bytes", "bytes", "minimize", "length of the safetensors file that export writes, every bit counted"),
    Metric("latency_ms", "ms", "minimize", "median time of one run in ONNX Runtime, one thread"),
    Metric("latency_torch_ms", "ms", "minimize", "latency_ms in torch, batch norms folded"),
    Metric("latency_predicted_ms", "ms", "minimize", "latency_ms as a table of the device's layers predicts it"),
    Metric("activation_bytes", "bytes", "minimize", "largest sum of activations of one input that live at one time"),
    Metric("energy_model_mj", "mJ", "minimize", "energy of one input by a model of a device; never measured"),
    Metric("params_ratio", "ratio", "minimize", "params over the original model's"),
    Metric("params_nonzero_ratio", "ratio", "minimize", "params_nonzero over the original model's"),
    Metric("macs_ratio", "ratio", "minimize", "MACs over the original model's"),
    Metric("bops_ratio", "ratio", "minimize", "BOPs over the original model's"),
    Metric("size_ratio", "ratio", "minimize", "size_bytes over the original model's"),
    Metric("activation_ratio", "ratio", "minimize", "activation_bytes over the original model's"),
    Metric("latency_ratio", "ratio", "minimize", "latency_ms over the original model's, measured in turn"),
    Metric("latency_predicted_ratio", "ratio", "minimize", "latency_predicted_ms over the original model's"),
    Metric("energy_model_ratio", "ratio", "minimize", "energy_model_mj over the original model's"),
    Metric("seconds", "s", "minimize", "wall time of the trial's evaluation"),
)

DIRECTIONS = ("maximize", "minimize")


def listed(names: Iterable[str]) -> str:
    """Names of metrics in a message: ratios to the original are many, and one stands for them all."""
    found = list(names)
    own = [name for name in found if not name.endswith("_ratio")]
    return ", ".join(own) + (", and ratios such as macs_ratio" if len(own) < len(found) else "")


def _known(name: str) -> Metric:
    if name not in METRICS:
        close = difflib.get_close_matches(name, list(METRICS), n=1, cutoff=0.4)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise SpecError(f"unknown metric {name!r}{hint} (metrics: {listed(METRICS)})")
    return METRICS[name]


@dataclass(frozen=True)
class Objective:
    """A metric to optimise.

    Raises:
        SpecError: unknown metric, or a direction other than maximize and minimize.
    """

    metric: str
    direction: str = ""

    def __post_init__(self) -> None:
        metric = _known(self.metric)
        if not self.direction:
            object.__setattr__(self, "direction", metric.direction)
        if self.direction not in DIRECTIONS:
            raise SpecError(f"objective {self.metric}: maximize or minimize, not {self.direction!r}")

    def loss(self, metrics: Mapping[str, float]) -> float:
        """The metric with its sign chosen so that smaller is better; infinite where absent or NaN."""
        value = metrics.get(self.metric, math.nan)
        return math.inf if math.isnan(value) else -value if self.direction == "maximize" else value

    def __str__(self) -> str:
        return f"{self.metric}: {self.direction}"


_CONSTRAINT = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*(\S+)\s*\Z")


@dataclass(frozen=True)
class Constraint:
    """``metric <= bound`` or ``metric >= bound``."""

    metric: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``"macs_ratio <= 0.5"``.

        Raises:
            SpecError: another form, an unknown metric, or a bound that is no finite number.
        """
        match = _CONSTRAINT.match(text)
        if not match:
            meant = re.sub(r"^(\s*\S+?\s*)(?:=*([<>])=*)", r"\1\2=", text).strip()
            hint = f", did you mean {meant!r}?" if _CONSTRAINT.match(meant) else ""
            raise SpecError(f"constraint {text!r} must read 'metric <= number' or 'metric >= number'{hint}")
        name, sign, number = match.groups()
        _known(name)
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not math.isfinite(bound):
            raise SpecError(f"constraint {text!r}: the bound must be a finite number, not {number!r}")
        return cls(name, sign, bound)

    def violation(self, metrics: Mapping[str, float]) -> float:
        """How far the metric is beyond the bound, in its own unit; 0 when it holds; infinite where absent or NaN."""
        value = metrics.get(self.metric, math.nan)
        if math.isnan(value):
            return math.inf
        return max(0.0, value - self.bound if self.sign == "<=" else self.bound - value)

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:.12g}"


@dataclass(frozen=True)
class Estimate:
    """A task metric measured on a sample of inputs: its value, standard error (same unit) and how many there were.

    ``by_class``: what it is made of, where that is one number a class.
    """

    value: float
    error: float
    samples: int
    by_class: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlyEnd:
    """Why an evaluation ended before all inputs were run.

    Attributes:
        reason: a key of trial.REASONS. message: its details, for people.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Measurement:
    """What an evaluation found.

    Attributes:
        metrics: by name, see METRICS.
        realized: what rounding really did, as plain data: ``{layer or group: {setting: value}}``; and under
            ``by_class`` the metrics that have a number a class, ``{metric: {class: value}}``.
        artifact: SHA-256 of a stored file, or None.
        seconds: wall time of the evaluation.
        errors: standard errors of the task's metrics, by name, each in its metric's unit.
        samples: how many inputs of the search split they were measured on; 0 where there are none.
        ended: why these were not all inputs, or None. Stores keep it as the trial's reason and message.
    """

    metrics: Mapping[str, float]
    realized: Mapping[str, Any] = field(default_factory=dict)
    artifact: str | None = None
    seconds: float = 0.0
    errors: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    ended: EarlyEnd | None = None


def losses(objectives: Sequence[Objective], metrics: Mapping[str, float]) -> tuple[float, ...]:
    """One number per objective, smaller is better."""
    return tuple(objective.loss(metrics) for objective in objectives)


def feasible(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> bool:
    """True when every constraint holds."""
    return all(constraint.violation(metrics) == 0.0 for constraint in constraints)
