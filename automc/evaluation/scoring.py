"""The task's metrics of a network on a split, each with its standard error; on a part of it where that is enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from automc.core.hopeless import Contest, Sample
from automc.core.metrics import EarlyEnd, Estimate
from automc.evaluation.answers import Answers
from automc.evaluation.tasks.base import Judging


@dataclass(frozen=True)
class Scorer:
    """Judges networks batch by batch."""

    answers: Answers
    task: Judging

    def __call__(self, model: nn.Module, split: str = "search") -> dict[str, Estimate]:
        """The metrics on a whole split.

        Raises:
            NotFinite: an output is NaN or infinite.
        """
        return self._walk(model, split, None)[0]

    def against(self, model: nn.Module, contest: Contest | None) -> tuple[dict[str, Estimate], EarlyEnd | None]:
        """The metrics on the search split, or on its first inputs, where these lose the contest.

        Raises:
            NotFinite: an output is NaN or infinite.
        """
        return self._walk(model, "search", contest)

    def _walk(
        self, model: nn.Module, split: str, contest: Contest | None
    ) -> tuple[dict[str, Estimate], EarlyEnd | None]:
        judged: dict[str, list[Tensor]] = {}
        looks, seen = contest.looks if contest else [], 0
        for outputs, teacher, targets in self.answers.batches(model, split):
            batch = self.task.judge(outputs, teacher, targets)
            for name, each in batch.items():
                judged.setdefault(name, []).append(each)
            seen += len(next(iter(batch.values())))
            if contest and looks and looks[0] <= seen < contest.total:
                looks = [look for look in looks if look > seen]
                so_far, total = _joined(judged), contest.total
                scores = self.task.summarise(so_far)
                ended = contest.verdict({name: _sample(s, so_far.get(name), seen, total) for name, s in scores.items()})
                if ended is not None:
                    return scores, ended
        return self.task.summarise(_joined(judged)), None


def _joined(judged: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(each) for name, each in judged.items()}


def _sample(score: Estimate, each: Tensor | None, seen: int, total: int) -> Sample:
    """A metric that is the mean of truths, one an input, is a share, and its test exact.

    Other means are tested by the spread of these inputs, which is 0 where they are all alike; the error of the estimate
    need not be.
    """
    if each is None or each.shape != (seen,) or not math.isclose(score.value, each.double().mean(), abs_tol=1e-9):
        return Sample(score, seen, total, mean=False)
    if each.dtype == torch.bool:
        return Sample(score, seen, total, hits=int(each.sum()))
    return Sample(replace(score, error=float(each.double().std(correction=0)) / math.sqrt(seen)), seen, total)
