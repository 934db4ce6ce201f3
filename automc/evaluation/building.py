"""From a policy to the network that is measured: compressed, repaired where the order says so, recalibrated."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from automc.core.policy import Policy
from automc.core.ports import Monitor
from automc.core.rules import Rule
from automc.evaluation.bookmarks import Bookmark, Bookmarks
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.restoring import Restoring
from automc.evaluation.travel import pack, unpack
from automc.operators.base import Compression, order_of, split_at_training
from automc.operators.distillation.milder import milder
from automc.operators.layers import Trace
from automc.operators.recalibrate import recalibrate
from automc.operators.warm import offered, warm

ASSISTANT_SHARE = 1 / 3
"""Of a repair's steps, those that train the teaching assistant; the student has the others."""


@dataclass
class Builder:
    """Builds networks from one original.

    ``distill``'s place in the order is the repair's: operators before it are live while the network trains, those after
    it are applied to the trained network. An order without it has the repair last. Without steps the order is simply
    the order.

    Attributes:
        original: in eval mode, never changed. trace: of it. calibration: normalised inputs.
        targets: their class numbers, if they have such (see Task.hard).
        restoring: what is put right after compressing, before any repair and without it.
        memory: facts of the original that operators keep between trials. It travels to other processes, where its
            tensors may be views of shared read-only memory (see travel.py): nobody writes into them.
    """

    original: nn.Module
    trace: Trace
    calibration: Tensor
    targets: Tensor | None
    repair: Repair
    restoring: Restoring = field(default_factory=Restoring)
    memory: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __call__(
        self,
        policy: Policy,
        order: Sequence[str],
        steps: int,
        seed: int,
        monitor: Monitor,
        bookmarks: Bookmarks | None = None,
    ) -> Compression:
        """The network of this policy after a repair of so many steps; the empty policy is never repaired.

        Args:
            bookmarks: of this policy's repairs, where they leave word how far they are.

        Raises:
            NotFinite, CompressionError: as the repair and ``compress``.
        """
        order = order_of(policy, order)
        if not policy or not steps:
            return self._compressed(self.start(), policy, order, [name for name in order if name != "distill"])
        before, after = split_at_training(order)
        state = self._compressed(self.start(), policy, order, before)
        marks = bookmarks or Bookmarks()
        lesson, spent = self._lesson(state, policy, order, (steps, seed), marks.of("assistant"))
        later = partial(_later, monitor, spent)
        self.repair(state.model, lesson, steps - spent, seed, later, marks.of("student"))
        # The running statistics lag behind the last steps and have seen augmented inputs.
        recalibrate(state.model, self.calibration)
        state = replace(state, ranges="observed")  # the repair has moved the weights
        if any(site.operator in after for site in policy):
            state = self._compressed(state, policy, order, after)
        return state

    def start(self) -> Compression:
        """The original at the beginning of its way through the operators."""
        facts: dict[str, Any] = {"scores": self.repair.task.scores, "memory": self.memory}
        facts["ranges"] = self.restoring.ranges
        return Compression(self.original, self.original, self.trace, self.calibration, self.targets, **facts)

    def _compressed(self, state: Compression, policy: Policy, order: Sequence[str], only: Sequence[str]) -> Compression:
        """These operators applied, and the batch-norm statistics those of the result."""
        state = self.restoring(state, policy, order, only)
        if state.stale:
            recalibrate(state.model, self.calibration, original=self.original)
        return replace(state, stale=False)

    def _lesson(
        self,
        state: Compression,
        policy: Policy,
        order: Sequence[str],
        length: tuple[int, int],
        bookmark: Bookmark | None,
    ) -> tuple[Lesson, int]:
        """What the student learns from, and how many of the steps its teacher took.

        Args:
            length: steps and seed of the repair. bookmark: of the teacher's own repair.
        """
        steps, seed = length
        alone = state.teaching == "self" and not self.repair.supervised("train")  # nobody would know what is right
        if not state.losses or state.teaching == "original" or alone:
            return Lesson(self.original, state.losses, self.memory), 0
        if state.teaching == "self":
            return Lesson(None, state.losses), 0
        between = self._compressed(self.start(), milder(policy), order, split_at_training(order)[0])
        spent = round(ASSISTANT_SHARE * steps) if state.teaching == "assistant" else 0
        if spent:
            # A seed of its own: the student is not to meet the very batches that its teacher saw.
            lesson = Lesson(self.original, between.losses, self.memory)
            self.repair(between.model, lesson, spent, seed + 1, _heedless, bookmark)
            recalibrate(between.model, self.calibration)
        return Lesson(between.model, state.losses), spent

    def warm(self, rules: Sequence[Rule]) -> None:
        """Compute ahead what trials of a space with these rules can need of the original, before it travels."""
        state, space = self.start(), offered(rules)
        warm(state, space)
        self.restoring.warm(state, space)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "memory": pack(self.memory)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "memory": unpack(state["memory"])}


def _later(monitor: Monitor, spent: int, step: int, value: float) -> bool:
    return monitor(step + spent, value)


def _heedless(step: int, value: float) -> bool:
    return True
