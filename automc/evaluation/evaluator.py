"""Measuring policies on a real network: compress, recalibrate, repair, measure."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.core.hopeless import Doubt, Rival
from automc.core.layers import LayerTable
from automc.core.metrics import METRICS, Estimate, Measurement
from automc.core.policy import Policy
from automc.core.ports import Monitor
from automc.core.study import StudySpec
from automc.errors import ModelError, NotFinite
from automc.evaluation.answers import BATCH, Answers
from automc.evaluation.bookmarks import Bookmarks, BookmarkSettings
from automc.evaluation.building import Builder
from automc.evaluation.data import load_data
from automc.evaluation.device import Device
from automc.evaluation.factories import ship_user_modules
from automc.evaluation.finetune import Repair
from automc.evaluation.fitting_in import Fitting, answered, rehearse, steady
from automc.evaluation.inference import fast, laid_out
from automc.evaluation.plan import Plan
from automc.evaluation.prefix import Caching, Prefix
from automc.evaluation.probing import ProbeSettings, Probing
from automc.evaluation.recipe import Recipe
from automc.evaluation.restoring import Restoring
from automc.evaluation.scoring import Scorer
from automc.evaluation.settings import sorted_out
from automc.evaluation.splits import Data
from automc.evaluation.tasks.base import Task
from automc.evaluation.tasks.loading import as_task, load_task
from automc.evaluation.threads import one_thread
from automc.evaluation.timing import Known, LatencySettings, Stopwatch, looked_up
from automc.evaluation.zoo import load_model
from automc.export import packed
from automc.export.baking.bake import Baked, fold
from automc.export.baking.outputs import named_outputs
from automc.measure.cost import costs_of, layer_macs
from automc.measure.energy import Energy, energy_of, load_profile
from automc.measure.walk import walk
from automc.operators.base import Compression
from automc.operators.canonical import canonical
from automc.operators.layers import Trace, trace

RATIOS = {
    "params": "params_ratio",
    "params_nonzero": "params_nonzero_ratio",
    "macs": "macs_ratio",
    "bops": "bops_ratio",
    "size_bytes": "size_ratio",
    "activation_bytes": "activation_ratio",
    "energy_model_mj": "energy_model_ratio",
}


EXAMPLES = 128
"""Calibration inputs of an export."""


class NetworkEvaluator:
    """Evaluates policies of one network on one data set.

    A measurement depends on the study's seed, the policy and the rung, not on who makes it or when (times apart).
    Survives cloudpickle: the network, its trace and the splits opened so far travel along, never the test split.

    Attributes:
        table: the layer table. baseline: the original network's metrics, every ratio 1.
        example: normalised inputs, shape (2, ...). data: the data set.
        bookmarks: where repairs leave word how far they are; without a folder nowhere.
    """

    def __init__(self, teacher: nn.Module, data: Data, repair: Repair, plan: Plan, known: Known | None = None) -> None:
        self.data, self.bookmarks = data, Bookmarks(every=plan.bookmarks.checkpoint_s)
        self._teacher = teacher = canonical(teacher)
        self._repair = repair = replace(repair, original=teacher)
        self._plan = plan
        with one_thread():
            self._calibration = data.normalise(data.split("calibration").inputs)
            self.example = self._calibration[:2]
            outputs = answered(teacher, self.example, data.name)
            steady(teacher, self.example, outputs)
            self._fitting = Fitting(outputs, data, repair.task)
            self._fitting.study(plan)
            self._trace: Trace = trace(teacher, self.example)
            targets = repair.task.hard(data.split("calibration").targets)
            self._builder = Builder(teacher, self._trace, self._calibration, targets, repair, plan.restoring)
            original = fast(teacher, self.example)
            self.prefix = Prefix(original, layer_macs(original, self.example), plan.caching)
            answers = Answers(original, data, self.prefix, repair.task.answer)
            self._score = Scorer(answers, repair.task)
            lookup = looked_up(teacher, self._trace, self.example, plan.order, plan.wanted, plan.clock, known)
            self.stopwatch = Stopwatch(teacher, self.examples, plan.wanted, plan.clock, lookup)
            self._probing: Probing | None = None
            self.baseline: dict[str, float] = {}
            with self.stopwatch.computing():
                self.baseline = self.measure(teacher) | dict.fromkeys(RATIOS.values(), 1.0) | self.stopwatch.baseline
            self._fitting.compared(plan, answers.originals("search"))
        if any(rung.steps for rung in plan.rungs):
            self.check_split("train")  # opened here once, so that it travels to the workers
            with one_thread(), self.stopwatch.computing():
                rehearse(repair, teacher)

    @property
    def table(self) -> LayerTable:
        return self._trace.table

    @property
    def examples(self) -> Tensor:
        """Normalised calibration inputs, shape (n, ...): what an export chooses ranges on that a search does not."""
        return self._calibration[:EXAMPLES]

    def original(self) -> Compression:
        """The original network at the beginning of its way through the operators."""
        return self._builder.start()

    def evaluate(
        self, policy: Policy, rung: int, monitor: Monitor, rivals: Sequence[Rival] | None = None
    ) -> Measurement:
        """See core.ports.Evaluator. A repair that the monitor ended is measured as far as it came.

        A policy that is found hopeless has no latency.
        """
        start = time.perf_counter()
        self._probing = None  # trials need the memory
        with one_thread(), self.stopwatch.computing():
            state = self._built(policy, rung, monitor)
        with one_thread():
            self.stopwatch.learn(state.model)
        with one_thread(), self.stopwatch.computing():
            baked = fold(state.model, self.example)
            found = self._costs(state.model, baked)
            contest = self._plan.contest(rung, found, rivals or (), len(self.data.split("search")))
            scores, ended = self._score.against(laid_out(baked, self.example), None if rivals is None else contest)
            metrics = _values(scores) | found
            timed = self.stopwatch.timed(state.model, rung) if ended is None else None
        errors = {name: score.error for name, score in scores.items()}
        if timed is not None:
            times, spreads = timed()
            metrics, errors = metrics | times, errors | spreads
        seconds = time.perf_counter() - start
        if "seconds" in self._plan.wanted:
            metrics["seconds"] = seconds
        realized: dict[str, Any] = {name: dict(facts) for name, facts in state.realized.items()}
        if by_class := {name: dict(score.by_class) for name, score in scores.items() if score.by_class}:
            realized["by_class"] = by_class
        samples = max((score.samples for score in scores.values()), default=0)
        return Measurement(metrics, realized, seconds=seconds, errors=errors, samples=samples, ended=ended)

    def damage(self, policy: Policy, measures: Sequence[str]) -> dict[str, float]:
        """See core.ports.Prober and Probing. What it keeps for the next probe is forgotten at the next evaluation."""
        with one_thread(), self.stopwatch.computing():
            if self._probing is None:
                plan = self._plan
                self._probing = Probing(self._builder, plan.order, plan.probing, plan.caching)
            return self._probing(policy, measures)

    def build(self, policy: Policy, rung: int, monitor: Monitor = lambda step, value: True) -> nn.Module:
        """The network that ``evaluate`` measures: compressed, repaired, in eval mode.

        Raises:
            NotFinite, CompressionError: as ``evaluate``.
        """
        with one_thread(), self.stopwatch.computing():
            model = self._built(policy, rung, monitor).model
        self.bookmarks.forget(policy, rung)
        return model

    def measure(self, model: nn.Module, split: str = "search") -> dict[str, float]:
        """The task's metrics on a split, the costs and their ratios; everything but times.

        Raises:
            NotFinite: an output is NaN or infinite.
        """
        baked = fold(model, self.example)
        found = self._costs(model, baked)
        return _values(self._score(laid_out(baked, self.example), split)) | found

    def _costs(self, model: nn.Module, baked: Baked) -> dict[str, float]:
        """What is known before the first input is run."""
        walked = walk(model, self.example)
        found = costs_of(walked) | {"energy_model_mj": energy_of(walked, self._plan.profile)}
        found["size_bytes"] = float(len(packed.dumps(model, self.example, baked)))
        _require_finite(found)
        ratios = {RATIOS[key]: found[key] / self.baseline[key] for key in RATIOS if self.baseline.get(key)}
        return found | ratios | self.stopwatch.predicted(walked)

    def _built(self, policy: Policy, rung: int, monitor: Monitor) -> Compression:
        steps = self._plan.rungs[rung].steps
        self.bookmarks.begin(policy, rung)
        return self._builder(policy, self._plan.order, steps, self._seed(policy, rung), monitor, self.bookmarks)

    def _seed(self, policy: Policy, rung: int) -> int:
        text = f"{self._plan.seed} {rung} {policy.fingerprint}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    @property
    def task(self) -> Task:
        """What the network is for."""
        return self._repair.task

    def outputs(self, model: nn.Module, split: str) -> dict[str, NDArray[Any]]:
        """What a network answers to a whole split in the form that is measured, by name of the output, row by row."""
        found: dict[str, list[NDArray[Any]]] = {}
        model = fast(model, self.example)
        with one_thread(), torch.inference_mode():
            for inputs in torch.split(self.data.split(split).inputs, BATCH):
                for name, each in named_outputs(model(self.data.normalise(inputs)), model).items():
                    found.setdefault(name, []).append(each.numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def check_split(self, split: str) -> None:
        """See Fitting.split; and whether the network takes its first inputs."""
        self._fitting.split(split)
        first = self.data.normalise(self.data.split(split).inputs[:2])
        answered(self._teacher, first, f"{self.data.name}, {split} split")

    def __getstate__(self) -> dict[str, Any]:
        # What trials share is computed here, once, and not by every worker; who stays at home finds it when needed.
        with one_thread(), self.stopwatch.computing():
            self._builder.warm(self._plan.rules)
        ship_user_modules()
        return self.__dict__ | {"_probing": None}


def prepare(
    spec: StudySpec,
    model: nn.Module | None = None,
    data: Data | None = None,
    task: Task | None = None,
    known: Known | None = None,
) -> NetworkEvaluator:
    """The evaluator of a study.

    Args:
        model, data, task: objects in the place of the ones that the spec names. The model is copied.
        known: latencies of single layers by device, as core.store.LatencyStore.latencies tells them; what the study
            needs beside them is measured, and is then in ``stopwatch.lookup.table.rows``.

    Raises:
        SpecError, ModelError, DataError: what is wrong, in one line.
    """
    kinds = (Recipe, Device, Doubt, Caching, LatencySettings, Restoring, Energy, ProbeSettings, BookmarkSettings)
    recipe, device, doubt, *others, energy, probing, bookmarks = sorted_out(spec.evaluator.settings, *kinds)
    device.require_speed()
    profile = load_profile(energy.device_profile)
    data = data if data is not None else load_data(spec.data)
    teacher = copy.deepcopy(model) if model is not None else load_model(spec.model)
    if not isinstance(teacher, nn.Module):
        raise ModelError(f"model must be an nn.Module, not {type(teacher).__name__}")
    chosen = as_task(task, "task") if task is not None else load_task(spec.task)
    asked = (spec.objectives, spec.constraints, doubt.doubt, *others, profile, probing, bookmarks)
    plan = Plan(spec.order, spec.rungs, spec.seed, *asked, rules=spec.rules)
    plan.clock.require_device(plan.wanted)
    return NetworkEvaluator(teacher.eval(), data, Repair(data, chosen, recipe, device), plan, known)


def _values(scores: Mapping[str, Estimate]) -> dict[str, float]:
    """The metrics without their errors. Raises NotFinite."""
    found = {name: score.value for name, score in scores.items()}
    _require_finite(found)
    return found


def _require_finite(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            nothing = METRICS[name].sampled and math.isnan(value) if name in METRICS else False
            why = ": no input has what it is measured on" if nothing else ""
            raise NotFinite(f"metric {name} became {value}{why}")
