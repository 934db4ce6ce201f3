"""Scores on a part of the search split: the order of the inputs, where a score may end, and what it says then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from automc.core.hopeless import Contest, Rival
from automc.core.metrics import Constraint, Estimate, Objective
from automc.evaluation.answers import BATCH, Answers
from automc.evaluation.data import Data, Facts, Split
from automc.evaluation.scoring import Scorer
from automc.evaluation.tasks.classification import Classification

AIMS = (Objective("top1"), Objective("size_bytes"))
ROWS = 640


class Sorted:
    """Inputs are one-hot class scores, and the rows are sorted by class, as a folder of images is."""

    def read(self, split: str, limit: int | None) -> Split:
        labels = torch.arange(ROWS) * 4 // ROWS
        return Split(nn.functional.one_hot(labels, 4).float(), labels)


class Biased(nn.Module):
    """Right but for class 3, where it answers 0; counts the rows that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows += len(inputs)
        return 5 * torch.stack([inputs[:, 0] + inputs[:, 3] * 2, inputs[:, 1], inputs[:, 2], inputs[:, 3]], 1)


@pytest.fixture
def scorer() -> Scorer:
    data = Data("sorted", Facts(4, 1.0), Sorted())
    return Scorer(Answers(nn.Identity(), data, keep=Classification().answer), Classification())


def contest(top1: float, doubt: float = 0.01, **changes: Any) -> Contest:
    rival = Rival(5, {"top1": top1, "size_bytes": 10.0})
    given = {"objectives": AIMS, "constraints": (), "known": {"size_bytes": 10.0}, "rivals": (rival,)}
    return Contest(**{**given, **changes}, doubt=doubt, total=ROWS)


def test_the_first_batches_are_a_sample_of_a_sorted_split(scorer: Scorer) -> None:
    targets = [t for _, _, t in scorer.answers.batches(nn.Identity(), "search")]
    assert sorted(torch.cat(targets).tolist()) == sorted(Sorted().read("search", None).targets.tolist())
    counts = np.bincount(targets[0].numpy(), minlength=4)
    # 25 of each class are expected among 100; 4 standard deviations of a hypergeometric draw are 16.
    assert (abs(counts - BATCH / 4) < 16).all()
    again = [t for _, _, t in scorer.answers.batches(Biased(), "search")]
    assert torch.equal(torch.cat(again), torch.cat(targets))


def test_outputs_answers_and_labels_belong_together(scorer: Scorer) -> None:
    for outputs, teacher, targets in scorer.answers.batches(nn.Identity(), "search"):
        assert torch.equal(outputs.argmax(1), targets)
        assert torch.equal(teacher if teacher.dim() == 1 else teacher.argmax(1), targets)


def test_a_hopeless_network_is_run_on_the_first_inputs_only(scorer: Scorer) -> None:
    whole, part = Biased(), Biased()
    full = scorer(whole)
    assert (full["top1"].value, whole.rows) == (0.75, ROWS)
    scores, ended = scorer.against(part, contest(1.0))
    assert ended is not None
    assert ended.reason == "dominated"
    assert "trial 5 costs no more, top1 1; top1 0." in ended.message
    assert part.rows == scores["top1"].samples == BATCH
    first = next(iter(scorer.answers.batches(nn.Identity(), "search")))[2]
    assert scores["top1"].value == pytest.approx(float((first != 3).float().mean()))
    p = scores["top1"].value
    assert scores["top1"].error == pytest.approx((p * (1 - p) * BATCH + 0.25) ** 0.5 / (BATCH + 1))


@pytest.mark.parametrize("asked", [None, contest(1.0, doubt=0.0), contest(0.76), contest(1.0, rivals=())])
def test_otherwise_every_input_counts_and_the_scores_are_the_same(scorer: Scorer, asked: Contest | None) -> None:
    network = Biased()
    scores, ended = scorer.against(network, asked)
    assert ended is None
    assert network.rows == ROWS
    assert scores == scorer(Biased())


def test_a_broken_constraint_ends_it_too(scorer: Scorer) -> None:
    limit = (Constraint.parse("agreement >= 0.95"),)
    _, ended = scorer.against(Biased(), contest(0.1, rivals=(), constraints=limit))
    assert ended is not None
    assert (ended.reason, ended.message.split(";")[0]) == ("infeasible", "breaks agreement >= 0.95")


def test_what_is_no_mean_over_inputs_ends_nothing(scorer: Scorer) -> None:
    """The same numbers under a statistic that a part of the inputs may bias: the square of a mean."""

    class Squared(Classification):
        def summarise(self, judged: Any) -> dict[str, Estimate]:
            found = super().summarise(judged)["top1"]
            return {"top1": Estimate(found.value**2, found.error, found.samples)}

    squared = Scorer(scorer.answers, Squared())
    assert squared.against(Biased(), contest(1.0))[1] is None
    assert scorer.against(Biased(), contest(1.0))[1] is not None


def test_inputs_that_are_all_alike_tell_nothing_of_other_means(scorer: Scorer) -> None:
    """Whole numbers may be any: the error of a share that they happen to look like is no spread of theirs."""

    class Counted(Classification):
        def judge(self, outputs: Tensor, teacher: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return {"top1": torch.zeros(len(outputs), dtype=torch.int64)}

        def summarise(self, judged: Any) -> dict[str, Estimate]:
            return {"top1": Estimate(0.0, 0.001, len(judged["top1"]))}

    assert Scorer(scorer.answers, Counted()).against(Biased(), contest(1.0))[1] is None


def test_an_abandoned_walk_leaves_nothing_behind(scorer: Scorer) -> None:
    scorer.against(Biased(), contest(1.0))

    def values() -> Iterator[float]:
        for name, score in scorer(Biased()).items():
            yield score.value if name else 0.0

    assert list(values()) == list(values())
    assert scorer(Biased())["top1"].value == 0.75
