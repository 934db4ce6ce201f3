"""Measuring policies on a real network: compress, recalibrate, repair, measure."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from automc.core.layers import LayerTable
from automc.core.metrics import Estimate, Measurement
from automc.core.policy import Policy
from automc.core.ports import Monitor
from automc.core.study import Rung, StudySpec
from automc.errors import ModelError, NotFinite, one_line
from automc.evaluation import timing
from automc.evaluation.answers import Answers
from automc.evaluation.building import Builder
from automc.evaluation.data import load_data
from automc.evaluation.factories import ship_user_modules
from automc.evaluation.finetune import Recipe, Repair
from automc.evaluation.scoring import Scorer
from automc.evaluation.settings import sorted_out
from automc.evaluation.splits import Data
from automc.evaluation.task import Classification
from automc.evaluation.zoo import load_model
from automc.export import packed
from automc.measure.cost import costs
from automc.operators.base import Compression
from automc.operators.canonical import canonical
from automc.operators.layers import Trace, trace

RATIOS = {"params": "params_ratio", "macs": "macs_ratio", "bops": "bops_ratio", "size_bytes": "size_ratio"}
LATENCY = ("latency_ms", "latency_ratio")


@dataclass(frozen=True)
class Plan:
    """What a study says about its evaluations: operator order, rungs, seed, and the metrics it asks for."""

    order: tuple[str, ...]
    rungs: tuple[Rung, ...]
    seed: int
    wanted: frozenset[str] = frozenset()

    @property
    def latency(self) -> bool:
        return bool(self.wanted.intersection(LATENCY))


class NetworkEvaluator:
    """Evaluates policies of one network on one data set.

    A measurement depends on the study's seed, the policy and the rung, not on who makes it or when (times apart).
    Survives cloudpickle: the network, its trace and the splits opened so far travel along, never the test split.

    Attributes:
        table: the layer table. baseline: the original network's metrics, every ratio 1.
        example: normalised inputs, shape (2, ...). data: the data set.
    """

    def __init__(self, teacher: nn.Module, data: Data, repair: Repair, plan: Plan) -> None:
        self.data = data
        self._teacher = teacher = canonical(teacher)
        self._repair = repair
        self._plan = plan
        with _one_thread():
            self._calibration = data.normalise(data.split("calibration").inputs)
            self.example = self._calibration[:2]
            self._try(teacher)
            self._trace: Trace = trace(teacher, self.example)
            targets = data.split("calibration").targets
            self._builder = Builder(teacher, self._trace, self._calibration, targets, repair)
            self._score = Scorer(Answers(teacher, data), repair.task)
            self._original_onnx = timing.onnx_bytes(teacher, self.example) if plan.latency else b""
            self.baseline: dict[str, float] = {}
            self.baseline = self.measure(teacher)
            self.baseline |= dict.fromkeys(RATIOS.values(), 1.0)
            if plan.latency:
                (self.baseline["latency_ms"],) = timing.latencies([self._original_onnx], self._input_shape)
                self.baseline["latency_ratio"] = 1.0
        if any(rung.steps for rung in plan.rungs):
            data.split("train")  # opened here once, so that it travels to the workers

    @property
    def table(self) -> LayerTable:
        return self._trace.table

    def original(self) -> Compression:
        """The original network at the beginning of its way through the operators."""
        return self._builder.start()

    def evaluate(self, policy: Policy, rung: int, monitor: Monitor) -> Measurement:
        """See core.ports.Evaluator. A repair that the monitor ended is measured as far as it came."""
        start = time.perf_counter()
        with _one_thread():
            state = self._built(policy, rung, monitor)
            scores = self._score(state.model)
            metrics = self._measured(state.model, scores)
            if self._plan.latency:
                metrics |= self._latency(state.model)
        seconds = time.perf_counter() - start
        if "seconds" in self._plan.wanted:
            metrics["seconds"] = seconds
        realized = {name: dict(facts) for name, facts in state.realized.items()}
        errors = {name: score.error for name, score in scores.items()}
        samples = max((score.samples for score in scores.values()), default=0)
        return Measurement(metrics, realized, seconds=seconds, errors=errors, samples=samples)

    def build(self, policy: Policy, rung: int, monitor: Monitor = lambda step, value: True) -> nn.Module:
        """The network that ``evaluate`` measures: compressed, repaired, in eval mode.

        Raises:
            NotFinite, CompressionError: as ``evaluate``.
        """
        with _one_thread():
            return self._built(policy, rung, monitor).model

    def measure(self, model: nn.Module, split: str = "search") -> dict[str, float]:
        """The task's metrics on a split, the costs and their ratios; everything but times.

        Raises:
            NotFinite: an output is NaN or infinite.
        """
        return self._measured(model, self._score(model, split))

    def _measured(self, model: nn.Module, scores: Mapping[str, Estimate]) -> dict[str, float]:
        found = {name: score.value for name, score in scores.items()}
        found |= costs(model, self.example)
        found["size_bytes"] = float(len(packed.dumps(model, self.example)))
        _require_finite(found)
        ratios = {RATIOS[key]: found[key] / self.baseline[key] for key in RATIOS if self.baseline.get(key)}
        return found | ratios

    @property
    def _input_shape(self) -> tuple[int, ...]:
        return tuple(self.example.shape[1:])

    def _built(self, policy: Policy, rung: int, monitor: Monitor) -> Compression:
        steps = self._plan.rungs[rung].steps
        return self._builder(policy, self._plan.order, steps, self._seed(policy, rung), monitor)

    def _seed(self, policy: Policy, rung: int) -> int:
        text = f"{self._plan.seed} {rung} {policy.fingerprint}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def _latency(self, model: nn.Module) -> dict[str, float]:
        files = [self._original_onnx, timing.onnx_bytes(model, self.example)]
        original, own = timing.latencies(files, self._input_shape)
        return {"latency_ms": own, "latency_ratio": own / original}

    def _try(self, model: nn.Module) -> None:
        shape = tuple(self.example.shape)
        try:
            with torch.inference_mode():
                outputs = model(self.example)
        except Exception as error:
            where = f"model: cannot take inputs of shape {shape} from data {self.data.name}"
            raise ModelError(f"{where}: {one_line(error)}") from error
        self._repair.task.check(outputs, shape[0], self.data.classes)

    def __getstate__(self) -> dict[str, Any]:
        ship_user_modules()
        return self.__dict__.copy()


def prepare(spec: StudySpec, model: nn.Module | None = None, data: Data | None = None) -> NetworkEvaluator:
    """The evaluator of a study.

    Args:
        model, data: objects in the place of the ones that the spec names. The model is copied.

    Raises:
        SpecError, ModelError, DataError: what is wrong, in one line.
    """
    (recipe,) = sorted_out(spec.evaluator.settings, Recipe)
    data = data if data is not None else load_data(spec.data)
    teacher = copy.deepcopy(model) if model is not None else load_model(spec.model)
    if not isinstance(teacher, nn.Module):
        raise ModelError(f"model must be an nn.Module, not {type(teacher).__name__}")
    wanted = frozenset(o.metric for o in spec.objectives) | {c.metric for c in spec.constraints}
    plan = Plan(spec.order, spec.rungs, spec.seed, wanted)
    return NetworkEvaluator(teacher.eval(), data, Repair(data, Classification(), recipe), plan)


def _require_finite(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NotFinite(f"metric {name} became {value}")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread: results do not depend on the machine's cores, and workers do not fight for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
