"""What policies damage, without training: the measures of core/sensitivity on a few inputs.

A probe mostly changes one layer or group, so it costs one pass of the part of the network behind the change
(prefix.py). In this pass batch norms whose statistics went stale normalise by the very inputs that are measured: what
the network gives then is what it will give once it is recalibrated on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from automc.core.policy import Policy
from automc.core.required import require
from automc.core.sensitivity import MEASURES
from automc.errors import NotFinite, SpecError
from automc.evaluation.building import Builder
from automc.evaluation.curvature import Traces, traces
from automc.evaluation.layer_errors import LayerErrors
from automc.evaluation.prefix import Caching, Prefix, Runner
from automc.evaluation.tasks.teaching import hessian_root, teacher_loss
from automc.measure.cost import layer_macs
from automc.operators.base import Compression, order_of
from automc.operators.changes import squared_changes
from automc.operators.copies import duplicate
from automc.operators.distillation.distances import relative
from automc.operators.distillation.features import watched
from automc.operators.factorized import Factorized
from automc.operators.live import LiveLayer
from automc.operators.outputs import tensors_of
from automc.operators.recalibrate import batch_statistics, entered, recalibrate

_FEW = 2
"""Inputs on which it is proved that the original's graph computes what the network does."""


@dataclass(frozen=True)
class ProbeSettings:
    """How damage is measured.

    Attributes:
        probe_inputs: calibration inputs that it is measured on, at most; at least 2.
    """

    probe_inputs: int = 128

    def __post_init__(self) -> None:
        require(self, {"probe_inputs": (self.probe_inputs >= _FEW, f"at least {_FEW}")})


class Answered(NamedTuple):
    """What a compressed network did with the probe inputs.

    Attributes:
        outputs: of the network. seen: outputs of changed layers by name. rounded: by name of a layer with rounded
            inputs, the squared change of these, mean over the probe inputs. fresh: paths of the batch norms that went
            by the statistics of the probe inputs.
    """

    state: Compression
    outputs: Any
    seen: Mapping[str, Tensor]
    rounded: Mapping[str, float]
    fresh: frozenset[str]


class Probing:
    """Measures the damage of policies of one network.

    What the original does is computed when it is first needed, and kept: its answers, what its layers give, its traces,
    and the activations at which the latest probes left it.
    """

    def __init__(self, builder: Builder, order: Sequence[str], settings: ProbeSettings, caching: Caching) -> None:
        """
        Args:
            builder: of the study's networks. order: its operators.
        """
        count = settings.probe_inputs
        inputs, labels = builder.calibration[:count], builder.targets
        # A memory of its own: what operators find on fewer inputs is none of the trials' business.
        labels = labels if labels is None else labels[:count]
        self._builder = replace(builder, calibration=inputs, targets=labels, memory={})
        self._order, self._inputs, self._original = tuple(order), inputs, builder.original
        self._task = builder.repair.task
        self._prefix = Prefix(builder.original, layer_macs(builder.original, inputs[:_FEW]), caching)
        self._errors = LayerErrors(self._builder.start())
        self._references: dict[frozenset[str], Any] = {}

    def __call__(self, policy: Policy, measures: Sequence[str]) -> dict[str, float]:
        """See core.ports.Prober.

        Raises:
            SpecError: an unknown measure. ModelError: the task cannot compare such outputs.
        """
        for name in measures:
            if name not in MEASURES:
                raise SpecError(f"sensitivity: the measures are {', '.join(MEASURES)}, not {name!r}")
        if not policy or not measures:
            return dict.fromkeys(measures, 0.0)
        rounds = any(site.setting == "activation_bits" for site in policy)
        answered = self._answered(policy) if rounds or set(measures) != {"trace"} else None
        found: dict[str, float] = {}
        if answered and "loss" in measures:
            found["loss"] = self._loss(answered)
        if answered and "error" in measures:
            found["error"] = self._error(answered)
        if "trace" in measures:
            found["trace"] = self._trace(policy, answered.rounded if answered else {})
        return {name: found[name] for name in measures}

    def _answered(self, policy: Policy) -> Answered:
        order = order_of(policy, self._order)
        only = [name for name in order if name != "distill"]
        state = self._builder.restoring(self._builder.start(), policy, order, only)
        if state.stale and any(isinstance(module, LiveLayer) and module.norm for module in state.model.modules()):
            # Weights that count a batch norm as part of them are rounded anew for what it says by now.
            recalibrate(state.model, self._inputs, original=self._original)
            state = replace(state, stale=False)
        places = self._errors.places(state)
        with torch.no_grad(), batch_statistics(state.model, self._inputs, state.stale, self._original):
            fresh = frozenset(path for path, module in state.model.named_modules() if module.training)
            run = self._runner(state.model)
            with watched(state.model, places) as seen, _rounding(state.model) as rounded:
                outputs = run(1, self._inputs)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors_of(outputs) if tensor.is_floating_point()):
            raise NotFinite("the network's outputs are NaN or infinite for some calibration inputs")
        return Answered(state, outputs, seen, rounded, fresh)

    def _runner(self, model: nn.Module) -> Runner:
        """To be asked for batch 1, all probe inputs; batch 0 has shown how it may be run."""
        run = self._prefix.runner(model, "probe", 2)
        run(0, self._inputs[:_FEW])
        return run

    def _loss(self, answered: Answered) -> float:
        """At least 0, up to rounding."""
        return max(teacher_loss(self._task, answered.outputs, self._reference(answered.fresh)).item(), 0.0)

    def _reference(self, fresh: frozenset[str]) -> Any:
        """What the original answers when these batch norms go by the probe inputs too.

        Statistics of so few inputs cost it something, whatever the change is: against its own statistics that would
        count again with every term of a sum over sites.
        """
        if fresh not in self._references:
            twin = duplicate(self._original)
            for path in fresh:
                norm: Any = twin.get_submodule(path)
                norm.training, norm.track_running_stats = True, False
            with torch.no_grad():
                self._references[fresh] = self._runner(twin)(1, self._inputs)
        return self._references[fresh]

    def _error(self, answered: Answered) -> float:
        """Of the changed layers, or of the network's answers where none of these can be compared."""
        found = self._errors(answered.state, answered.seen)
        if found is not None:
            return found
        return relative(*map(self._task.compared, (answered.outputs, self._reference(answered.fresh)))).item()

    def _trace(self, policy: Policy, rounded: Mapping[str, float]) -> float:
        """Of weights that are gone as if they had become 0, of the others without what restoring does to them: it moves
        them along directions in which the loss is flat, of which the mean trace knows nothing.

        Rounded inputs count in the same way, by the mean trace with respect to them.
        """
        changes = squared_changes(self._builder.start(), policy, order_of(policy, self._order))
        weights = sum(self._traces.weights[name] * change for name, change in changes.items())
        return weights + sum(self._traces.inputs.get(name, 0.0) * change for name, change in rounded.items())

    @cached_property
    def _traces(self) -> Traces:
        names = [layer.name for layer in self._builder.trace.table.layers]
        root = partial(hessian_root, self._task.scores)
        return traces(self._original, names, self._inputs, self._task.compared, root)


@contextmanager
def _rounding(model: nn.Module) -> Iterator[dict[str, float]]:
    """By layer with rounded inputs, of the latest forward: their squared change, mean over the inputs."""
    found: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: LiveLayer, args: Any, kwargs: Any) -> None:
            x = tensors_of(entered(args, kwargs))[0]
            assert layer.input_quantizer is not None
            change = (layer.input_quantizer(x) - x).square().sum(dtype=torch.float64)
            found[name] = float(change) / len(x)

        return hook

    chains = [(path, each) for path, each in model.named_modules() if isinstance(each, Factorized)]
    whole = {part: path for path, each in chains for part in each.children()}
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if isinstance(module, LiveLayer) and module.input_quantizer is not None:
                hook = watch(whole.get(module, path))
                hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield found
