"""Judges against scikit-learn, against sums by hand, and their errors against closed forms and repeated draws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    jaccard_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    recall_score,
    top_k_accuracy_score,
)

from automc.core.judges import JUDGES, judge_named, labelled
from automc.core.judges.base import Array
from automc.core.judges.boxes import intersection_over_union
from automc.core.judges.estimates import RESAMPLES, bootstrap, mean, proportion, proportion_error, ratio
from automc.core.metrics import METRICS, Estimate
from automc.errors import SpecError


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def judged(name: str, outputs: Any, teacher: Any, targets: Array | None, **settings: Any) -> dict[str, Estimate]:
    """In batches of 7, as the evaluator does it."""
    judge = judge_named(name, settings)
    first = outputs["scores"] if isinstance(outputs, dict) else outputs
    count = len(first)
    targets = np.empty((count, 0), np.int64) if targets is None else targets
    found: dict[str, list[Array]] = {}
    for start in range(0, count, 7):
        rows = slice(start, start + 7)
        own, original = (
            {k: v[rows] for k, v in x.items()} if isinstance(x, dict) else x[rows] for x in (outputs, teacher)
        )
        for key, each in judge.judge(own, judge.answer(original), targets[rows]).items():
            found.setdefault(key, []).append(each)
    scores = judge.summarise({key: np.concatenate(each) for key, each in found.items()})
    classes = first.shape[1] if first.ndim > 1 else 0
    assert set(scores) == set(judge.measures(classes, labelled(targets)))
    assert {each.samples for each in scores.values()} == {count}
    return scores


def softmax(scores: Array, axis: int = -1) -> Array:
    e = np.exp(scores - scores.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("name", JUDGES)
def test_all_that_a_judge_measures_is_in_the_table_with_an_error(name: str) -> None:
    kind = JUDGES[name]
    for metric in kind.metrics:
        assert METRICS[metric].sampled
    assert set(kind().measures(99, True)) == set(kind.metrics)
    assert set(kind().measures(99, False)) <= set(kind.metrics)


def test_classification_agrees_with_scikit_learn() -> None:
    g = draw()
    outputs, teacher, labels = g.normal(size=(90, 8)), g.normal(size=(90, 8)), g.integers(0, 8, 90)
    found = judged("classification", outputs, teacher, labels)
    top1 = accuracy_score(labels, outputs.argmax(1))
    assert found["top1"].value == pytest.approx(top1, abs=1e-12)
    assert found["top1"].error == pytest.approx(math.sqrt(90 * top1 * (1 - top1) + 0.25) / 91)  # Wilson
    assert found["top5"].value == pytest.approx(top_k_accuracy_score(labels, outputs, k=5), abs=1e-12)
    assert found["loss"].value == pytest.approx(log_loss(labels, softmax(outputs), labels=range(8)))
    assert found["agreement"].value == accuracy_score(teacher.argmax(1), outputs.argmax(1))
    recalls = recall_score(labels, outputs.argmax(1), average=None)
    assert found["top1_worst_class"].value == pytest.approx(recalls.min())
    assert found["top1_worst_class"].by_class == pytest.approx(dict(enumerate(recalls)))


def test_top5_is_not_measured_of_five_classes() -> None:
    outputs = draw().normal(size=(20, 5))
    assert "top5" not in judged("classification", outputs, outputs, np.arange(20) % 5)
    assert list(judged("classification", outputs, outputs, None)) == ["agreement"]


def test_of_two_equally_bad_classes_the_bootstrap_error_is_that_of_a_minimum() -> None:
    """Shares p of n each: the minimum of two independent normals has the deviation sd * sqrt(1 - 1 / pi)."""
    label = np.repeat([0, 1], 1000)
    right = np.tile([1, 0], 1000)
    outputs = np.eye(2)[np.where(right, label, 1 - label)]
    found = judged("classification", outputs, outputs, label)["top1_worst_class"]
    wanted = math.sqrt(0.25 / 1000 * (1 - 1 / math.pi))
    assert found.value == 0.5
    assert found.error == pytest.approx(wanted, rel=4 / math.sqrt(2 * RESAMPLES))  # four of its own deviations


@pytest.mark.parametrize("shape", [(80,), (80, 1), (80, 3), (80, 2, 5)])
def test_regression_agrees_with_scikit_learn(shape: tuple[int, ...]) -> None:
    g = draw()
    targets = g.normal(1e4, 2.0, size=shape)  # far from zero: variances must not cancel
    outputs, teacher = targets + g.normal(size=shape), targets + g.normal(size=shape)
    found = judged("regression", outputs, teacher, targets)
    flat = [
        each.reshape(80, -1) if each.ndim < 3 else each.transpose(0, 2, 1).reshape(-1, 2) for each in (targets, outputs)
    ]
    assert found["mse"].value == pytest.approx(mean_squared_error(targets.ravel(), outputs.ravel()))
    assert found["mae"].value == pytest.approx(mean_absolute_error(targets.ravel(), outputs.ravel()))
    assert found["r2"].value == pytest.approx(r2_score(*flat), abs=1e-9)
    assert judged("regression", teacher, teacher, None)["teacher_r2"].value == 1.0
    squares = np.square(outputs - targets).reshape(80, -1).mean(1)
    assert found["mse"].error == pytest.approx(squares.std() / math.sqrt(80))


def test_segmentation_agrees_with_scikit_learn() -> None:
    g = draw()
    outputs, teacher = g.normal(size=(30, 4, 5, 6)), g.normal(size=(30, 4, 5, 6))
    labels = g.integers(0, 3, (30, 5, 6))  # class 3 is answered only
    labels[g.random(labels.shape) < 0.2] = 255
    found = judged("segmentation", outputs, teacher, labels)
    answers, counted = outputs.argmax(1), labels != 255
    y, z = labels[counted], answers[counted]
    assert found["miou"].value == pytest.approx(jaccard_score(y, z, average="macro"))
    assert found["miou"].by_class == pytest.approx(dict(enumerate(jaccard_score(y, z, average=None))))
    assert found["pixel_accuracy"].value == pytest.approx(accuracy_score(y, z))
    assert found["agreement"].value == pytest.approx(accuracy_score(teacher.argmax(1)[counted], z))
    chances = softmax(outputs, 1).transpose(0, 2, 3, 1)[counted]
    assert found["loss"].value == pytest.approx(log_loss(y, chances, labels=range(4)))
    other = judged("segmentation", outputs, teacher, np.where(labels == 255, 9, labels), ignore_index=9)
    assert other["miou"].value == found["miou"].value


def test_outputs_that_never_change_have_no_r2() -> None:
    g = draw()
    targets = np.concatenate([g.normal(size=(40, 2)), np.full((40, 1), 7.0)], 1)
    outputs = targets + g.normal(size=(40, 3))
    found = judged("regression", outputs, outputs, targets)["r2"]
    assert found.value == pytest.approx(r2_score(targets[:, :2], outputs[:, :2]))
    flat = np.full((40, 1), 7.0)
    assert judged("regression", flat, flat, flat)["r2"].value == 1.0
    assert judged("regression", flat + 1, flat, flat)["r2"].value == 0.0


def test_perplexity_by_hand() -> None:
    """Two texts of three tokens; p(target) is 1/2, 1/4, ignored; 1/8, 1/8, 1/2: the mean of the logs is 2 bits."""
    chances = [[0.5, 0.25, 0.9], [0.125, 0.125, 0.5]]
    outputs = np.array([[[math.log(p), math.log(1 - p)] for p in row] for row in chances])
    targets = np.array([[0, 0, -100], [0, 0, 0]])
    found = judged("language_modelling", outputs, outputs, targets)
    assert found["perplexity"].value == pytest.approx(2 ** ((1 + 2 + 3 + 3 + 1) / 5))
    assert found["loss"].value == pytest.approx(2 * math.log(2))
    assert found["top1"].value == pytest.approx(2 / 5)  # a tie goes to the first, which is the target
    # Sums of -log2 p: 3 of 2 tokens, 7 of 3; off the mean of 2 by -1 and +1.
    assert found["loss"].error == pytest.approx(math.sqrt(2) * math.log(2) / 5)
    assert found["perplexity"].error == pytest.approx(4 * math.sqrt(2) * math.log(2) / 5)
    assert list(judged("language_modelling", outputs, outputs, None)) == ["agreement"]


def test_an_enormous_loss_gives_infinite_perplexity_and_no_warning() -> None:
    outputs = np.array([[[0.0, 2000.0]]])
    assert judged("language_modelling", outputs, outputs, np.array([[0]]))["perplexity"].value == math.inf


def test_cosine_is_that_of_numpy() -> None:
    g = draw()
    a, b = g.normal(size=(20, 3, 5)).astype(np.float32), g.normal(size=(20, 3, 5)).astype(np.float32)
    wanted = [
        np.mean([u @ v / np.sqrt((u @ u) * (v @ v)) for u, v in zip(x, y, strict=True)])
        for x, y in zip(a, b, strict=True)
    ]
    found = judged("embeddings", a, b, None)["cosine"]
    assert found.value == pytest.approx(np.mean(wanted), abs=1e-6)
    assert found.error == pytest.approx(np.std(wanted) / math.sqrt(20), abs=1e-6)
    zero, one = np.zeros((3, 4)), np.ones((3, 4))
    assert judged("embeddings", zero, one, None)["cosine"].value == 0.0
    assert judged("embeddings", zero, zero, None)["cosine"].value == 1.0


def brute_force_precision(outputs: dict[str, Array], targets: Array, overlap: float) -> float:
    """Average precision as its definition reads, one class after the other, one box after the other."""
    found = []
    for each in sorted({int(c) for c in targets[..., 4].ravel() if c >= 0}):
        boxes = [
            (float(s), i, b)
            for i in range(len(targets))
            for s, b, c in zip(outputs["scores"][i], outputs["boxes"][i], outputs["labels"][i], strict=True)
            if c == each and s > 0
        ]
        free = {(i, j) for i, j in itertools.product(*map(range, targets.shape[:2])) if targets[i, j, 4] == each}
        wanted, hits = len(free), []
        for _, i, box in sorted(boxes, key=lambda row: -row[0]):
            near = [
                (float(intersection_over_union(box[None], targets[i, j, None, :4])[0, 0]), j)
                for k, j in sorted(free)
                if k == i
            ]
            best = max(near, key=lambda row: row[0], default=(0.0, -1))
            hits.append(best[0] >= overlap)
            if hits[-1]:
                free.remove((i, best[1]))
        precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
        found.append(sum(max(precision[k:]) for k in range(len(hits)) if hits[k]) / wanted)
    return float(np.mean(found))


def some_boxes(seed: int, count: int = 12) -> tuple[dict[str, Array], Array]:
    g = draw(seed)
    low = g.integers(0, 6, (count, 4, 2)).astype(np.float64)
    targets = np.concatenate([low, low + g.integers(2, 6, (count, 4, 2)), g.integers(-1, 2, (count, 4, 1))], 2)
    targets[0, 0, 4] = 0
    moved = targets[..., :4] + g.integers(0, 2, (count, 4, 4)) * 0.5
    boxes = np.concatenate([moved, moved[:, ::-1]], 1)
    scores = g.permutation(count * 8).reshape(count, 8) / (count * 8)  # no ties; one score is 0: no box
    labels = np.concatenate([np.maximum(targets[..., 4], 0), g.integers(0, 2, (count, 4))], 1).astype(np.int64)
    return {"boxes": boxes, "scores": scores, "labels": labels}, targets


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_its_definition(seed: int) -> None:
    outputs, targets = some_boxes(seed)
    found = judged("detection", outputs, outputs, targets)
    assert found["map50"].value == pytest.approx(brute_force_precision(outputs, targets, 0.5))
    several = [brute_force_precision(outputs, targets, overlap) for overlap in np.linspace(0.5, 0.95, 10)]
    assert found["map"].value == pytest.approx(np.mean(several))
    assert 0 < found["map"].value < found["map50"].value < 1
    assert found["agreement"].value == 1.0


def test_average_precision_of_known_boxes() -> None:
    """One class, two targets: found first, missed second, found third: (1 * 1 + 1 * 2/3) / 2."""
    box, other, far = [0, 0, 4, 4], [10, 10, 14, 14], [50, 50, 60, 60]
    targets = np.array([[[*box, 0], [*other, 0]]], dtype=float)
    outputs = {
        "boxes": np.array([[box, far, other]]),
        "scores": np.array([[0.9, 0.8, 0.7]]),
        "labels": np.zeros((1, 3), int),
    }
    assert judged("detection", outputs, outputs, targets)["map50"].value == pytest.approx((1 + 2 / 3) / 2)
    outputs["boxes"][0, 1] = box
    assert judged("detection", outputs, outputs, targets)["map50"].value == pytest.approx((1 + 2 / 3) / 2)
    outputs["labels"][:] = 1
    assert judged("detection", outputs, outputs, targets)["map50"].value == 0.0


def test_intersection_over_union_by_hand() -> None:
    boxes, others = np.array([[0, 0, 2, 2], [0, 0, 0, 0]]), np.array([[1, 1, 3, 3], [0, 0, 2, 2], [0, 0, 0, 0]])
    assert np.allclose(intersection_over_union(boxes, others), [[1 / 7, 1, 0], [0, 0, 0]])


def test_without_boxes_there_is_no_precision() -> None:
    outputs, targets = some_boxes(0)
    targets[..., 4] = -1
    found = judged("detection", outputs, outputs, targets, confident=1.0)
    assert all(math.isnan(each.value) and math.isnan(each.error) for each in found.values())
    with pytest.raises(SpecError, match="confident must be above 0, at most 1, not 0"):
        judge_named("detection", {"confident": 0})


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 40), (40, 40), (39, 40), (20, 40), (700, 1000)])
def test_the_error_of_a_share_is_half_of_wilsons_interval_and_never_zero(right: int, count: int) -> None:
    """Its ends are where the share is one standard deviation off: ``(p - x)^2 = x (1 - x) / n``, by bisection."""
    p = right / count

    def end(away: float) -> float:
        inside = p
        for _ in range(200):
            middle = (inside + away) / 2
            inside, away = (middle, away) if (p - middle) ** 2 <= middle * (1 - middle) / count else (inside, middle)
        return inside

    error = mean(np.arange(count) < right).error
    assert error == pytest.approx((end(1.0) - end(0.0)) / 2, abs=1e-9)
    assert error > 0


def test_a_share_of_positions_has_the_error_of_as_many_independent_ones() -> None:
    """Texts that are right or wrong as a whole count as one each; one alone or perfect ones count fully."""
    whole = proportion(np.repeat([10, 0, 10, 10], 25), np.full(100, 10))
    assert whole.error == pytest.approx(proportion_error(0.75, 100))
    assert proportion(np.full(7, 10), np.full(7, 10)).error == pytest.approx(0.5 / 71)
    assert proportion(np.array([4]), np.array([10])).error == pytest.approx(proportion_error(0.4, 10))
    assert math.isnan(proportion(np.zeros(3), np.zeros(3)).error)


def test_where_no_class_is_ever_missed_the_worst_has_the_error_of_the_smallest() -> None:
    label = np.repeat([0, 1], [30, 9])
    found = judged("classification", np.eye(2)[label], np.eye(2)[label], label)["top1_worst_class"]
    assert (found.value, found.error) == (1.0, pytest.approx(0.5 / 10))


def test_the_error_of_a_ratio_is_the_spread_of_ratios_of_fresh_samples() -> None:
    """Texts of unequal length: 400 samples of 300 texts, and what one of them says of its error."""
    g = draw()
    values, errors = [], []
    for _ in range(400):
        lengths = g.integers(1, 30, 300)
        found = ratio(lengths * g.normal(1.0, 0.5, 300), lengths)
        values.append(found.value)
        errors.append(found.error)
    # The spread of 400 values is known to 1 / sqrt(800) = 3.5%; four times that.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60))
def test_the_bootstrap_of_a_mean_has_the_error_of_a_mean(values: list[float]) -> None:
    each = np.array(values)
    found = bootstrap(lambda counts: counts @ each / counts.sum(1), len(each))
    closed = mean(each)
    assert found.value == pytest.approx(closed.value, abs=1e-12)
    # 200 resamples know a deviation to 5% of a normal's; values with long tails to 25%, in small samples even worse.
    assert found.error == pytest.approx(closed.error, rel=0.5, abs=1e-9)
    assert found == bootstrap(lambda counts: counts @ each / counts.sum(1), len(each))


def test_nothing_that_counts_is_no_number() -> None:
    assert math.isnan(ratio(np.zeros(3), np.zeros(3)).value)


def test_targets_without_columns_are_none() -> None:
    assert not labelled(np.empty((4, 0)))
    assert labelled(np.empty((4, 0, 5)))  # no box anywhere is something to know
    assert labelled(np.zeros(4))
