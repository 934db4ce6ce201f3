"""A known landscape in microseconds: whole searches, crashes and 100,000-trial studies become fast tests.

The network is imaginary: convolutions in a row and a linear layer. Costs follow from the policy as they would
for a real one. Damage is a sum over layers, so the optimum of a space follows from dynamic programming over
layers, or from trying everything:

    damage = sum_i  s_i * prune_ratio_i^2  +  w_i * 4^-(weight_bits_i - 2)  +  a_i * 4^-(activation_bits_i - 2)
    top1   = TOP1 * exp(-damage * left),    loss = -ln(top1),    agreement = exp(-damage * left)

Without repair ``left`` is 1. With repair it is REPAIRED times one plus a quarter of the squared distance of
kd_temperature and kd_alpha from their best values, (ln(T / BEST_TEMPERATURE))^2 + (alpha - BEST_ALPHA)^2;
a policy that does not distil has T = 1 and alpha = 0.

With ``inputs`` the network has that many imaginary inputs, of which a policy gets each right with the probability
top1, and the measured top1 is the share that came out right.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np

from automc.core.analytic import Kept, bytes_of
from automc.core.hopeless import Contest, Rival, Sample
from automc.core.judges.estimates import proportion_error
from automc.core.layers import Group, Layer, LayerTable, kept_channels
from automc.core.metrics import METRICS, Constraint, Estimate, Measurement, Objective
from automc.core.policy import Policy, Value
from automc.core.ports import Monitor
from automc.core.required import EVALUATOR, no_such_setting, require
from automc.core.rules import nearest
from automc.core.study import Rung, StudySpec
from automc.errors import CompressionError, EvaluationError, NotFinite, SpecError

TOP1, REPAIRED, BEST_TEMPERATURE, BEST_ALPHA = 0.95, 0.3, 4.0, 0.7
SIDE, CLASSES, REPORTS = 16, 10, 5
FAILURES = ("error", "nan", "oom", "lost")


@dataclass(frozen=True)
class SyntheticSettings:
    """How the landscape looks and misbehaves; trials are chosen to fail by their fingerprint, never by chance.

    Attributes:
        layers: number of layers, at least 2. seed: of the layers' sensitivities.
        noise: standard deviation of a fixed error of top1, one draw per policy and rung.
        inputs: of the search split, on which top1 is measured; 0 gives the true top1.
        doubt: with inputs, see core.hopeless.Doubt.
        sleep_s: wall time of an evaluation.
        fail: share of the policies by reason: ``error``, ``nan``, ``oom``; ``lost`` kills the process at once
            (the driver's own, when it evaluates by itself).
        hang: share of the policies whose evaluation does not end by itself within an hour.
    """

    layers: int = 8
    seed: int = 0
    noise: float = 0.0
    inputs: int = 0
    doubt: float = 0.0
    sleep_s: float = 0.0
    fail: Mapping[str, float] | None = None
    hang: float = 0.0


class SyntheticEvaluator:
    """Evaluates policies of the imaginary network; a pure function of settings, study seed, policy and rung."""

    def __init__(
        self,
        settings: SyntheticSettings,
        rungs: tuple[Rung, ...] = (Rung(),),
        seed: int = 0,
        aims: tuple[tuple[Objective, ...], tuple[Constraint, ...]] = ((), ()),
    ) -> None:
        self.settings = settings
        self.rungs = rungs
        self.seed = seed
        self.aims = aims
        self.table = _table(settings.layers)
        names = [layer.name for layer in self.table.layers]
        draw = np.random.default_rng(settings.seed)
        self.sensitivity: dict[str, dict[str, float]] = {
            "prune_ratio": dict(zip(names, draw.lognormal(-1.0, 1.0, len(names)).tolist(), strict=True)),
            "weight_bits": dict(zip(names, draw.lognormal(-3.0, 1.0, len(names)).tolist(), strict=True)),
            "activation_bits": dict(zip(names, draw.lognormal(-3.0, 1.0, len(names)).tolist(), strict=True)),
        }
        self._original = self._costs({}, {})
        self.baseline: dict[str, float] = dict(self._metrics(Policy({}), 0))

    def evaluate(
        self, policy: Policy, rung: int, monitor: Monitor, rivals: Sequence[Rival] | None = None
    ) -> Measurement:
        """See core.ports.Evaluator; on a rung with repair the monitor hears REPORTS times of the falling loss."""
        start = time.perf_counter()
        self._misbehave(policy)
        steps, stopped = self.rungs[rung].steps, False
        metrics = self._metrics(policy, rung)
        for report in range(1, REPORTS + 1) if steps else ():
            before = math.exp(-3 * report / REPORTS)
            if not monitor(steps * report // REPORTS, metrics["loss"] + before):
                stopped = True
                break
        if stopped:
            metrics = self._metrics(policy, 0)
        time.sleep(self.settings.sleep_s)
        measured = Measurement(metrics, self._realized(policy))
        if self.settings.inputs:
            measured = self._sampled(measured, policy, rung, rivals)
        return replace(measured, seconds=time.perf_counter() - start)

    def _sampled(self, measured: Measurement, policy: Policy, rung: int, rivals: Sequence[Rival] | None) -> Measurement:
        """The same with top1 as the share of right inputs: of all, or of the first ones where these are enough."""
        total = self.settings.inputs
        draw = np.random.default_rng(int(self._hash(policy, f"inputs {rung}") * 2**48))
        right = np.cumsum(draw.random(total) < measured.metrics["top1"])
        objectives, constraints = self.aims
        final = constraints if rung == len(self.rungs) - 1 else ()
        known = {name: value for name, value in measured.metrics.items() if not METRICS[name].sampled}
        contest = Contest(objectives, final, known, tuple(rivals or ()), self.settings.doubt, total)
        for seen in [*(contest.looks if rivals is not None else ()), total]:
            score = _share(int(right[seen - 1]), seen)
            sample = Sample(score, seen, total, hits=int(right[seen - 1]))
            ended = contest.verdict({"top1": sample}) if seen < total else None
            if ended is not None:
                break
        metrics = {**measured.metrics, "top1": score.value}
        return replace(measured, metrics=metrics, errors={"top1": score.error}, samples=seen, ended=ended)

    def damage(self, policy: Policy, measures: Sequence[str]) -> dict[str, float]:
        """See core.ports.Prober: by every measure the sum above, which is how much the loss grows without repair."""
        return dict.fromkeys(measures, self.harm(policy))

    def harm(self, policy: Policy) -> float:
        """The sum above: 0 for the original, no upper bound.

        Raises:
            CompressionError: the policy names a layer that is not there.
        """
        total = 0.0
        for operator in ("prune", "quantize"):
            for layer, values in policy.settings(operator).items():
                self._known(layer)
                for setting, value in values.items():
                    if setting in self.sensitivity:
                        total += self.sensitivity[setting][layer] * harm_of(setting, float(value))
        return total

    def _metrics(self, policy: Policy, rung: int) -> dict[str, float]:
        damage = self.harm(policy) * self._left(policy, rung)
        top1 = max(TOP1 * math.exp(-damage), 1e-6)
        if self.settings.noise:
            draw = np.random.default_rng(int(self._hash(policy, f"noise {rung}") * 2**53))
            top1 = min(max(top1 + self.settings.noise * float(draw.standard_normal()), 1e-6), 1.0)
        costs = self._costs(policy.settings("prune"), policy.settings("quantize"))
        ratios = {f"{key.removesuffix('_bytes')}_ratio": value / self._original[key] for key, value in costs.items()}
        return {"top1": top1, "loss": -math.log(top1), "agreement": math.exp(-damage), **costs, **ratios}

    def _left(self, policy: Policy, rung: int) -> float:
        if not self.rungs[rung].steps:
            return 1.0
        distill = policy.settings("distill").get("*", {})
        temperature, alpha = float(distill.get("kd_temperature", 1.0)), float(distill.get("kd_alpha", 0.0))
        return REPAIRED * (1 + (math.log(temperature / BEST_TEMPERATURE) ** 2 + (alpha - BEST_ALPHA) ** 2) / 4)

    def _costs(
        self, prune: Mapping[str, Mapping[str, Value]], bits: Mapping[str, Mapping[str, Value]]
    ) -> dict[str, float]:
        rows, inputs = [], 3
        for layer in self.table.layers:
            outputs = kept_channels(layer.out_channels, float(prune.get(layer.name, {}).get("prune_ratio", 0.0)))
            weight, activation = (int(bits.get(layer.name, {}).get(k, 32)) for k in ("weight_bits", "activation_bits"))
            rows.append(layer_costs(layer, inputs, outputs, weight, activation))
            inputs = outputs
        params, macs, bops, stored = map(sum, zip(*rows, strict=True))
        return {"params": params, "macs": macs, "bops": bops, "size_bytes": stored}

    def _realized(self, policy: Policy) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, values in policy.settings("prune").items():
            count = self.table.layer(name).out_channels
            found[name] = {"channels": kept_channels(count, float(values.get("prune_ratio", 0.0)))}
        return found

    def _known(self, layer: str) -> None:
        names = self.sensitivity["prune_ratio"]
        if layer not in names:
            raise CompressionError(f"the synthetic network has no layer {layer!r}{nearest(layer, names)}")

    def _hash(self, policy: Policy, what: str) -> float:
        """A number in [0, 1) that the policy and the seeds decide."""
        text = f"{self.settings.seed} {self.seed} {what} {policy.fingerprint}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48

    def _misbehave(self, policy: Policy) -> None:
        if self._hash(policy, "hang") < self.settings.hang:
            time.sleep(3600)
        u, edge = self._hash(policy, "fail"), 0.0
        for reason, share in (self.settings.fail or {}).items():
            edge += share
            if u < edge:
                _fail(reason)
                return


def _share(right: int, seen: int) -> Estimate:
    share = right / seen
    return Estimate(share, proportion_error(share, seen), seen)


def _fail(reason: str) -> None:
    if reason == "lost":
        os._exit(17)
    if reason == "nan":
        raise NotFinite("synthetic: the loss became nan at step 1")
    if reason == "oom":
        raise MemoryError("synthetic: out of memory")
    raise EvaluationError("synthetic: this policy always fails")


def harm_of(setting: str, value: float) -> float:
    """What one setting adds to the damage before its layer's sensitivity; 0 at the neutral value."""
    if setting == "prune_ratio":
        return value**2
    return 4.0 ** -(value - 2) if value < 32 else 0.0


def layer_costs(
    layer: Layer, inputs: int, outputs: int, weight: int, activation: int
) -> tuple[float, float, float, float]:
    """params, macs, bops and bytes of a layer with so many channels and bits; all as proposers predict them."""
    weights = inputs * outputs * math.prod(layer.kernel)
    macs = weights * math.prod(layer.out_shape[1:])
    return weights + outputs, macs, macs * weight * activation, bytes_of(weights, outputs, Kept(weight_bits=weight))


def _table(count: int) -> LayerTable:
    """``count - 1`` convolutions, their channels doubled and their sides halved every third, and a linear layer."""
    layers: list[Layer] = []
    inputs = 3
    for i in range(count - 1):
        stage = min(3 * i // max(count - 1, 1), 2)
        outputs, side = SIDE << stage, SIDE >> stage
        weights = inputs * outputs * 9
        name, shape = f"conv{i}", (outputs, side, side)
        macs = weights * side * side
        layers.append(Layer(name, i, "conv", inputs, outputs, (3, 3), (1, 1), shape, weights + outputs, macs, name))
        inputs = outputs
    macs = inputs * CLASSES
    why = "it makes the model's output"
    layers.append(
        Layer("linear", count - 1, "linear", inputs, CLASSES, (), (), (CLASSES,), macs + CLASSES, macs, "", why)
    )
    names = [layer.name for layer in layers]
    groups = [Group(a, layers[i].out_channels, (a,), (names[i + 1],)) for i, a in enumerate(names[:-1])]
    return LayerTable(tuple(layers), tuple(groups), (3, SIDE, SIDE))


def prepare_synthetic(spec: StudySpec) -> SyntheticEvaluator:
    """The evaluator of a study whose ``evaluator`` is ``synthetic``; its model and data are not looked at.

    Raises:
        SpecError: an unknown setting (with the nearest spelling) or values out of range, one line each.
    """
    settings = spec.evaluator.settings
    known = [field.name for field in fields(SyntheticSettings)]
    for key in settings:
        if key not in known:
            raise SpecError(f"{EVALUATOR}.{key}: {no_such_setting('synthetic', key, known)}")
    made = SyntheticSettings(**settings)
    fail = cast(object, made.fail)
    shares = list(fail.values()) if isinstance(fail, Mapping) and all(k in FAILURES for k in fail) else [math.nan]
    fits = fail is None or (all(_number(each) and each >= 0 for each in shares) and sum(shares) <= 1)
    rules = {
        "layers": (_whole(made.layers, 2), "a whole number of at least 2"),
        "seed": (_whole(made.seed, 0), "a whole number of at least 0"),
        "inputs": (_whole(made.inputs, 0), "a whole number of at least 0"),
        "doubt": (_number(made.doubt) and 0 <= made.doubt <= 0.5, "a probability in [0, 0.5]"),
        "noise": (_number(made.noise) and made.noise >= 0, "a number of at least 0"),
        "sleep_s": (_number(made.sleep_s) and made.sleep_s >= 0, "a number of at least 0"),
        "hang": (_number(made.hang) and 0 <= made.hang <= 1, "a share in [0, 1]"),
        "fail": (fits, f"shares by reason ({', '.join(FAILURES)}), each at least 0, at most 1 together"),
    }
    require(made, rules)
    return SyntheticEvaluator(made, spec.rungs, spec.seed, (spec.objectives, spec.constraints))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
