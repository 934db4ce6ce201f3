"""What flows through the operators, and the walk through them."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from automc.core.order import SITE as ORDER_SITE
from automc.core.order import fault
from automc.core.policy import Policy, Value
from automc.core.rules import nearest
from automc.core.space import OperatorInfo
from automc.errors import CompressionError, one_line
from automc.operators import OPERATORS
from automc.operators.copies import duplicate
from automc.operators.layers import Trace

Settings = Mapping[str, Mapping[str, Value]]
"""One operator's part of a policy: ``{layer, group or "*": {setting: value}}``, every setting given and legal."""


class Answer(NamedTuple):
    """What a network said of a batch: its outputs, shape (n, classes, ...), and the outputs of some of its modules."""

    outputs: Tensor
    features: Mapping[str, Tensor]


class LossTerm(Protocol):
    """A term of the repair loss, as plain data: ``loss = keeps * loss so far + term(student, teacher)``.

    The loss so far begins with the task's. Where all ``keeps`` multiply to 0, the labels are never read.

    Attributes:
        keeps: weight of the loss so far, in [0, 1].
        layers: paths of the modules whose outputs the term compares; both networks have them.
    """

    @property
    def keeps(self) -> float: ...

    @property
    def layers(self) -> tuple[str, ...]: ...

    def start(self, student: Answer, teacher: Answer) -> nn.Module:
        """The term as a module ``(student, teacher) -> scalar``, made anew for each repair from its first batch.

        Its parameters (adapters between features of unequal widths) are trained beside the student's, then thrown away.
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
        targets: labels of the calibration inputs, shape (n, ...), or None where there are none.
        scores: outputs are scores of classes, which softmax makes probabilities; else they are compared as they are.
        losses: terms of the repair loss; with none it is the task loss alone.
        teaching: who the terms compare with during the repair: ``original``, ``self``, ``assistant`` or ``compressed``.
        realized: what was really done, ``{layer or group: {setting or fact: value}}``.
        stale: the batch-norm statistics no longer belong to the weights (see recalibrate.py).
        ranges: where the ranges of layer inputs come from: ``original`` (what the original network reads there, where
            that is sound) or ``observed`` (the network as it is by now; so after a repair, which moves the weights).
        removed: by group, the channels that ``prune`` took out, as the original network counts them.
        memory: facts of the original network (``teacher``) that an operator computed once, under keys of its own: the
            same mapping travels through all trials of one evaluator. What lies in it depends on nothing but the
            original network and the calibration inputs, so that a trial's result does not depend on earlier trials.
    """

    model: nn.Module
    teacher: nn.Module
    trace: Trace
    calibration: Tensor | None
    targets: Tensor | None = None
    scores: bool = True
    losses: tuple[LossTerm, ...] = ()
    teaching: str = "original"
    realized: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    stale: bool = False
    ranges: str = "original"
    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    memory: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

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


def compress(
    state: Compression, policy: Policy, order: Sequence[str], only: Sequence[str] | None = None
) -> Compression:
    """Apply the operators that the policy names, in this order. ``state`` and its networks stay as they are.

    An empty policy gives an equal network.

    A layer in a block that the policy drops has no settings of other operators, whatever the order; nor has a group
    without a producer outside such blocks.

    Args:
        state: the original network. order: names of OPERATORS, each at most once; a policy that says its own order
            (see core/order.py) goes by that. only: those of them to apply now, all
            when None; ``split_at_training`` says which go before the repair and which after it, on its result.

    Raises:
        CompressionError: an unknown operator, layer, setting or value, one that ``order`` leaves out, something an
            operator cannot do, or a compressed network whose forward fails.
    """
    order = order_of(policy, order)
    named = {site.operator for site in policy} - {ORDER_SITE.operator}
    _check_operators(named, order)
    checked = {name: _settings(policy, OPERATORS[name], state.trace) for name in order if name in named}
    state = replace(state, model=duplicate(state.model).eval())
    for name, chosen in _alive(checked, state.trace).items():
        if chosen and (only is None or name in only):
            state = _operator(OPERATORS[name])(state, chosen)
    if named:
        _try(state)
    return state


def order_of(policy: Policy, default: Sequence[str]) -> tuple[str, ...]:
    """The order in which a policy's operators are applied: its own where it says one, else the default."""
    return tuple(str(policy[ORDER_SITE]).split()) if ORDER_SITE in policy else tuple(default)


def split_at_training(order: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The operators that are live while the repair trains, ``distill`` the last of them, and those applied after it.

    An order without ``distill`` has the repair last.
    """
    place = order.index("distill") + 1 if "distill" in order else len(order)
    return tuple(order[:place]), tuple(order[place:])


def _check_operators(named: Collection[str], order: Sequence[str]) -> None:
    for name in (*named, *order):
        if name not in OPERATORS:
            raise CompressionError(
                f"unknown operator {name!r}{nearest(name, OPERATORS)}; there are {', '.join(OPERATORS)}"
            )
    if left_out := sorted(set(named) - set(order)):
        raise CompressionError(f"the policy names {left_out[0]!r}, which the order {list(order)} leaves out")
    if problem := fault(order, OPERATORS):
        raise CompressionError(f"the order {list(order)} {problem}")


def _alive(settings: Mapping[str, Settings], trace: Trace) -> dict[str, Settings]:
    """The settings without those of layers inside blocks that go, and of groups with all their producers there."""
    drops = settings.get("drop", {})
    blocks = [block for block in trace.table.blocks if drops.get(block.name, {}).get("dropped")]
    layers = {name for block in blocks for name in block.layers}
    groups = {group.name for group in trace.table.groups if set(group.producers) <= layers}
    gone = {"layer": layers, "group": groups}
    return {
        name: {target: of for target, of in chosen.items() if target not in gone.get(OPERATORS[name].scope, ())}
        for name, chosen in settings.items()
    }


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
    elif info.scope == "block":
        blocks = [block.name for block in trace.table.blocks]
        if target not in blocks:
            raise CompressionError(f"{info.name}: no block {target!r}{nearest(target, blocks)}")
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
