"""The teacher's answers to the train split, computed once where every row always gives the same inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from automc.evaluation.batches import Batches
from automc.evaluation.device import Device, widened
from automc.evaluation.lesson import Lesson

LIMIT = 64 * 2**20
"""Bytes of answers kept at most; a teacher that says more runs in every step."""

KEY = ("repair", "answers")
"""Of the answers in a lesson's memory."""


def recalled(lesson: Lesson, batches: Batches, device: Device, carry: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The teacher's answers by row, float32, shape (rows, ...), on the CPU; or None where it has to run.

    It has to where inputs are augmented, where a term compares features, where the teacher follows the student, where
    the answers are no tensor or more than LIMIT, and where a repair of so many steps does not show every row: then to
    ask for all of them costs more than it saves. All of this is the same in every repair of a study, so a result does
    not depend on what was kept. Answers come from batches as large as the repair's: a CPU's convolutions and matrix
    products then give each row the very same bits as in a shuffled batch.

    Args:
        carry: puts inputs onto the device, as the repair does.
    """
    rows = len(batches.data.split("train").targets)
    epoch = rows // batches.size
    if not (lesson.terms and lesson.teacher is not None and batches.fixed) or lesson.layers or batches.steps < epoch:
        return None
    if lesson.memory is not None and KEY in lesson.memory:
        kept: Tensor | None = lesson.memory[KEY]
        return kept
    found = _answers(lesson.teacher, batches, device, carry)
    if lesson.memory is not None:
        lesson.memory[KEY] = found
    return found


def _answers(teacher: nn.Module, batches: Batches, device: Device, carry: Callable[[Tensor], Tensor]) -> Tensor | None:
    found: Tensor | None = None
    inputs, size = batches.data.split("train").inputs, batches.size
    for start in range(0, len(inputs), size):
        low = min(start, len(inputs) - size)  # the last batch is filled up with rows that were there before
        with torch.no_grad(), device.mixed():
            answers = teacher(carry(batches.data.normalise(inputs[low : low + size])))
        answers = widened(answers)
        if found is None:
            if not isinstance(answers, Tensor) or 4 * len(inputs) * answers[0].numel() > LIMIT:
                return None
            found = torch.empty(len(inputs), *answers.shape[1:])
        found[low : low + size] = answers.cpu()
    return found
