"""What flows through the operators, and the walk through them."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from automc.core.policy import Policy, Value
from automc.core.rules import nearest
from automc.core.space import OperatorInfo
from automc.errors import CompressionError
from automc.operators import OPERATORS
from automc.operators.groups import one_line
from automc.operators.layers import Trace

Settings = Mapping[str, Mapping[str, Value]]
"""One operator's part of a policy: ``{layer, group or "*": {setting: value}}``, every setting given and legal."""


class LossTerm(Protocol):
    """A term of the repair loss. Terms are applied in turn, each to the loss so far, beginning with the task's."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, task_loss: Tensor) -> Tensor:
        """The loss with this term, a scalar.

        Args:
            student_logits, teacher_logits: shape (n, classes, ...). targets: what the task loss compares with.
            task_loss: the loss so far, a scalar.
        """
        ...


@dataclass(frozen=True)
class Compression:
    """A network on its way through the operators.

    Attributes:
        model: the network as compressed so far, in eval mode.
        teacher: the original network, for distillation; never changed.
        trace: what is known of the original network.
        calibration: normalised inputs, shape (n, ...), or None where no operator needs data.
        losses: terms of the repair loss; with none it is the task loss alone.
        realized: what was really done, ``{layer or group: {setting or fact: value}}``.
        stale: the batch-norm statistics no longer belong to the weights (see recalibrate.py).
    """

    model: nn.Module
    teacher: nn.Module
    trace: Trace
    calibration: Tensor | None
    losses: tuple[LossTerm, ...] = ()
    realized: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    stale: bool = False

    def with_realized(self, facts: Settings) -> Compression:
        """The same with more facts about some layers."""
        merged = {name: {**self.realized.get(name, {}), **more} for name, more in facts.items()}
        return replace(self, realized={**self.realized, **merged})


class Operator(Protocol):
    """One way of compressing. It may change ``state.model``, which ``compress`` has copied for it."""

    def __call__(self, state: Compression, settings: Settings) -> Compression:
        """Compress as the settings say.

        Raises:
            CompressionError: it cannot be done.
        """
        ...


def compress(state: Compression, policy: Policy, order: Sequence[str]) -> Compression:
    """Apply the operators that the policy names, in this order. ``state`` and its networks stay as they are.

    An empty policy gives an equal network.

    Args:
        state: the original network. order: names of OPERATORS, each at most once.

    Raises:
        CompressionError: an unknown operator, layer, setting or value, one that ``order`` leaves out, something an
            operator cannot do, or a compressed network whose forward fails.
    """
    named = {site.operator for site in policy}
    for name in (*named, *order):
        if name not in OPERATORS:
            raise CompressionError(
                f"unknown operator {name!r}{nearest(name, OPERATORS)}; there are {', '.join(OPERATORS)}"
            )
    if left_out := sorted(named - set(order)):
        raise CompressionError(f"the policy names {left_out[0]!r}, which the order {list(order)} leaves out")
    state = replace(state, model=copy.deepcopy(state.model).eval())
    for name in order:
        if name in named:
            settings = _settings(policy, OPERATORS[name], state.trace)
            state = _operator(OPERATORS[name])(state, settings)
    if named:
        _try(state)
    return state


def _operator(info: OperatorInfo) -> Operator:
    module, _, attribute = info.implementation.partition(":")
    operator: Operator = getattr(importlib.import_module(module), attribute)
    return operator


def _settings(policy: Policy, info: OperatorInfo, trace: Trace) -> Settings:
    """The policy's values for this operator, checked, with the neutral ones filled in."""
    chosen = policy.settings(info.name)
    for target, settings in chosen.items():
        _check_target(info, target, trace)
        for name, value in settings.items():
            place = f"{info.name}({target}).{name}"
            if name not in info.settings:
                raise CompressionError(
                    f"{place}: unknown setting{nearest(name, info.settings)}; there are {list(info.settings)}"
                )
            if not info.settings[name].legal.holds(value):
                raise CompressionError(f"{place} must be in {info.settings[name].legal}, not {value!r}")
    neutral = {name: setting.neutral for name, setting in info.settings.items()}
    return {target: {**neutral, **settings} for target, settings in chosen.items()}


def _check_target(info: OperatorInfo, target: str, trace: Trace) -> None:
    layers = {layer.name: layer for layer in trace.table.layers}
    if info.scope == "network":
        if target != "*":
            raise CompressionError(f"{info.name}: applies to the whole network, '*', not to {target!r}")
    elif info.scope == "group":
        if target in trace.plans:
            return
        if target not in layers:
            raise CompressionError(f"{info.name}: no group {target!r}{nearest(target, trace.plans)}")
        layer = layers[target]
        why = f"it belongs to group {layer.group!r}" if layer.group else f"it {layer.reason}"
        raise CompressionError(f"{info.name}: {target!r} names no group: {why}")
    elif target not in layers:
        raise CompressionError(f"{info.name}: no layer {target!r}{nearest(target, layers)}")
    elif info.kinds and layers[target].kind not in info.kinds:
        kinds = ", ".join(info.kinds)
        raise CompressionError(f"{info.name}: {target!r} is of kind {layers[target].kind}; it takes {kinds}")


def _try(state: Compression) -> None:
    """One input through the compressed network: a structure that does not fit is found here, not in training."""
    if state.calibration is None:
        return
    try:
        with torch.no_grad():
            state.model(state.calibration[:1])
    except Exception as error:
        raise CompressionError(f"the compressed network's forward fails ({one_line(error)})") from error
