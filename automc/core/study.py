"""StudySpec: everything that makes a run repeatable, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from automc.core.metrics import Constraint, Objective
from automc.core.rules import Rule


@dataclass(frozen=True)
class Part:
    """A named part from the catalog and its settings (a model, a data set, a proposer, an evaluator)."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """The network to compress.

    Attributes:
        name: a zoo name, ``package.module:factory`` or ``file.py:factory``.
        settings: keyword arguments of the factory.
        weights: path of a .safetensors, .pt or .th file; None for the zoo's own.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class Rung:
    """A level of evaluation effort.

    Attributes:
        steps: optimiser steps of distilled repair; 0 for none.
        share: share of the finished trials of the rung below that are promoted to this rung, in (0, 1];
            not read for the first rung.
        cpus, gpus: of a worker that evaluates here, as Ray counts them; fractions of one share it.
        resources: what else it needs, by Ray's names, such as ``{"device:pi4": 1}``.
    """

    steps: int = 0
    share: float = 0.25
    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """When the search ends: after this many trials (all rungs counted), or this many seconds of searching."""

    trials: int = 60
    seconds: float | None = None


@dataclass(frozen=True)
class Workers:
    """Who evaluates.

    Attributes:
        count: Ray workers; 0 evaluates in this process; ``auto`` has as many as the cluster has room for, up to the
            window.
        address: an existing Ray cluster; None starts a local one.
        window: the proposal for trial n knows exactly the results of the trials up to n - window. With any
            number of workers up to the window a seed therefore gives the same trials.
        timeout_s: wall time a trial may take; None for no limit. Both limits kill the process, so they need a worker.
        memory_mb: resident megabytes (2^20 bytes) of the process that evaluates; None for no limit.
        retries: how often a trial is started again whose process was killed or whose worker was lost.
    """

    count: int | Literal["auto"] = 1
    address: str | None = None
    window: int = 4
    timeout_s: float | None = None
    memory_mb: int | None = None
    retries: int = 2

    @property
    def most(self) -> int:
        """How many trials are evaluated at a time, at most; at least 1."""
        return self.window if self.count == "auto" else max(self.count, 1)


@dataclass(frozen=True)
class StudySpec:
    """A study. ``first_trial`` is where its latest revision begins (0, or more after an extension).

    ``orders`` are the orders to choose from, where the order of the operators is a decision; ``order`` is then the
    first of them. ``runtime`` is where the network is to run, of ``measure.runtimes.RUNTIMES``; "" says nothing of it.
    """

    name: str
    model: ModelSpec
    data: Part
    rules: tuple[Rule, ...]
    order: tuple[str, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    proposer: Part = Part("portfolio")
    stopper: Part = Part("never")
    evaluator: Part = Part("network")
    rungs: tuple[Rung, ...] = (Rung(),)
    budget: Budget = Budget()
    workers: Workers = Workers()
    seed: int = 0
    revision: int = 0
    first_trial: int = 0
    orders: tuple[tuple[str, ...], ...] = ()
    task: Part = Part("classification")
    runtime: str = ""

    def to_data(self) -> dict[str, Any]:
        """Plain lists, numbers and text, as JSON can carry them."""
        data = asdict(self)
        data["rules"] = [rule.to_data() for rule in self.rules]
        data["constraints"] = [str(c) for c in self.constraints]
        data["objectives"] = {o.metric: o.direction for o in self.objectives}
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> StudySpec:
        """The spec that ``to_data`` wrote, also after a trip through JSON."""
        return cls(
            **{
                **data,
                "model": ModelSpec(**data["model"]),
                **{key: Part(**data[key]) for key in ("data", "proposer", "stopper", "evaluator")},
                "task": Part(**data.get("task", {"name": "classification"})),  # older specs have none
                "rules": tuple(Rule.from_data(rule) for rule in data["rules"]),
                "order": tuple(data["order"]),
                "orders": tuple(tuple(order) for order in data.get("orders", ())),
                "objectives": tuple(Objective(m, d) for m, d in data["objectives"].items()),
                "constraints": tuple(Constraint.parse(text) for text in data["constraints"]),
                "rungs": tuple(Rung(**rung) for rung in data["rungs"]),
                "budget": Budget(**data["budget"]),
                "workers": Workers(**data["workers"]),
            }
        )
