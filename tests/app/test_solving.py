"""What-if budgets: the best trial that keeps them, or the policy that allocation predicts to."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from automc.app import runs
from automc.app.amounts import bound, constraint
from automc.app.config import study_from
from automc.app.predicting import NEAREST, Prediction, line
from automc.app.solve_report import answer_text
from automc.app.solving import solve
from automc.app.study import Study
from automc.core.analytic import Analytic
from automc.core.metrics import Constraint
from automc.core.rules import resolve
from automc.core.trial import Trial
from automc.errors import SpecError
from automc.operators import OPERATORS
from automc.proposers.allocate import DamageModel


def searched(trials: int = 40, **more: Any) -> Study:
    said = {
        "name": "s",
        "model": "digits_net",
        "data": "digits",
        "space": {"rules": [{"operator": "quantize", "settings": {"weight_bits": [2, 3, 4, 6, 8]}}]},
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "evaluator": {"name": "synthetic", "settings": {"layers": 4}},
        "budget": {"trials": trials},
        "workers": {"count": 0},
        "proposer": "allocate",
        "storage": "memory:",
    }
    study = runs.start(study_from({**said, **more}, "test"))
    study.run()
    return study


@pytest.fixture(scope="module")
def study() -> Study:
    return searched()


def metrics(trial: Trial) -> dict[str, float]:
    assert trial.measurement is not None
    return dict(trial.measurement.metrics)


def test_the_best_measured_trial_that_keeps_the_bounds(study: Study) -> None:
    sizes = sorted(metrics(t)["size_bytes"] for t in study.records())
    bounds = [Constraint("size_bytes", "<=", sizes[len(sizes) // 2]), Constraint("top1", ">=", 0.1)]
    answer = solve(study, bounds)
    fitting = [t for t in study.records() if metrics(t)["size_bytes"] <= bounds[0].bound and metrics(t)["top1"] >= 0.1]
    assert not answer.predicted
    assert answer.metrics["top1"] == max(metrics(t)["top1"] for t in fitting)
    assert answer.trial in {t.number for t in fitting}
    assert answer.kept == {str(b): True for b in bounds}
    assert answer.to_data()["trial"] == answer.trial
    said = answer_text(study, answer)
    assert said.startswith(f"trial s/{answer.trial}, measured: the best of those that keep these bounds")
    assert said.endswith(f"automc export s/{answer.trial} -o FOLDER")


def test_a_bound_of_the_study_holds_too_unless_it_is_asked_about() -> None:
    middle = 60_000
    made = searched(20, constraints=[f"size_bytes <= {middle}"])
    fitting = solve(made, [Constraint("top1", ">=", 0.0)])
    assert [str(b) for b in fitting.bounds] == ["top1 >= 0", "size_bytes <= 60000"]
    assert fitting.metrics["size_bytes"] <= middle
    assert [str(b) for b in solve(made, [Constraint("size_bytes", "<=", 70_000)]).bounds] == ["size_bytes <= 70000"]


def test_where_no_trial_keeps_them_it_is_the_allocation_of_least_damage() -> None:
    made = searched(6)
    spec, table = made.spec, made.layers
    space = resolve(spec.rules, spec.order, table, OPERATORS, spec.orders)
    analytic, prediction = Analytic(table), Prediction(space, made.counted())
    domains = [d.domain.values(9) for d in space.decisions]
    policies = [
        space.policy(dict(zip([d.site for d in space.decisions], values, strict=True)))
        for values in itertools.product(*domains)
    ]
    sizes = {p: analytic.costs(p)["size_bytes"] for p in policies}
    told = {t.policy for t in made.records()}
    limit = sorted(sizes.values())[len(policies) // 4]
    top1 = max(metrics(t)["top1"] for t in made.records()) + 0.001
    answer = solve(made, [Constraint("size_bytes", "<=", limit), Constraint("top1", ">=", top1)])
    assert answer.predicted
    assert answer.trial is None
    assert answer.kept[f"size_bytes <= {limit:.12g}"] is True
    assert answer.kept[f"top1 >= {top1:.12g}"] is False
    assert answer.policy not in told
    # Weights are refitted to the trials, so of all that keep the bound it is among the best by the table alone.
    model = DamageModel(space, table.sensitivity.measures[0])
    fitting = [p for p in policies if sizes[p] <= limit]
    damages = sorted(model.damage(fitting).tolist())
    assert float(model.damage([answer.policy])[0]) <= damages[len(damages) // 20]
    assert answer.metrics["size_bytes"] == pytest.approx(sizes[answer.policy] * prediction.off("size_bytes"))
    said = answer_text(made, answer)
    assert said.startswith("PREDICTED: no trial keeps these bounds; nothing below was measured; for rung 0")
    assert f"top1 >= {top1:.12g}: NOT kept" in said


def test_predictions_are_near_what_is_measured_then(study: Study) -> None:
    spec = study.spec
    space = resolve(spec.rules, spec.order, study.layers, OPERATORS, spec.orders)
    records = study.counted()
    prediction = Prediction(space, records[:30])
    for trial in records[30:]:
        found, errors = prediction.metrics(trial.policy)
        assert found["size_bytes"] == pytest.approx(metrics(trial)["size_bytes"], rel=0.1)
        assert abs(found["top1"] - metrics(trial)["top1"]) < 4 * errors["top1"]


def test_the_error_of_a_prediction_is_that_of_a_new_point_of_a_regression() -> None:
    """Beside the covariance of the coefficients: ``s^2 (1 + v' (X'X)^-1 v)``."""
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 1, NEAREST)
    y = 2 * x + draw.normal(0, 0.1, NEAREST)
    rows = np.stack([np.ones(NEAREST), x], axis=1)
    weights, left, *_ = np.linalg.lstsq(rows, y, rcond=None)
    for at in (0.5, 3.0):
        new = np.array([1.0, at])
        error = np.sqrt(left[0] / (NEAREST - 2) * (1 + new @ np.linalg.inv(rows.T @ rows) @ new))
        assert line(x, y, at) == pytest.approx((new @ weights, error))
    assert line(x, y, 3.0)[1] > 2 * line(x, y, 0.5)[1], "far from all that was measured it is a guess"


def test_trials_of_one_rung_teach_and_the_answer_says_which() -> None:
    rungs = [{"steps": 0}, {"steps": 20, "share": 0.3}]
    made = searched(rungs=rungs)
    counts = [sum(trial.rung == rung for trial in made.counted()) for rung in (0, 1)]
    assert min(counts) >= 4
    space = resolve(made.spec.rules, made.spec.order, made.layers, OPERATORS, made.spec.orders)
    assert [Prediction(space, made.counted(), rung).rung for rung in (None, 0, 1)] == [1, 0, 1]
    assert Prediction(space, made.counted(), 7).rung == 1
    answer = solve(made, [Constraint("size_bytes", "<=", 1e9)])
    assert answer.trial is not None
    assert answer.rung == made.trial(answer.trial).rung
    top1 = max(metrics(trial)["top1"] for trial in made.counted() if trial.measurement)
    predicted = solve(made, [Constraint("size_bytes", "<=", 1e9), Constraint("top1", ">=", top1 + 1e-6)])
    assert (predicted.trial, predicted.rung) == (None, 1)
    assert "for rung 1" in answer_text(made, predicted)


def test_costs_are_corrected_by_what_trials_measured(study: Study) -> None:
    """As where a formula is only near, of recurrent layers for one."""
    space = resolve(study.spec.rules, study.spec.order, study.layers, OPERATORS, study.spec.orders)
    off = []
    for trial in study.counted():
        assert trial.measurement is not None
        computed = Analytic(study.layers).costs(trial.policy)["params"]
        more = replace(trial.measurement, metrics={**trial.measurement.metrics, "params": 1.04 * computed})
        off.append(replace(trial, measurement=more))
    policy = off[0].policy
    assert Prediction(space, off).costs(policy)["params"] == pytest.approx(
        1.04 * Analytic(study.layers).costs(policy)["params"]
    )


def test_it_answers_within_a_second(study: Study) -> None:
    solve(study, [Constraint("size_bytes", "<=", 50_000)])  # imports
    start = time.process_time()
    solve(study, [Constraint("size_bytes", "<=", 50_000), Constraint("top1", ">=", 0.99999)])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([], "give a bound, such as --max size_bytes=60kB"),
        (
            [Constraint("size_bytes", "<=", 10)],
            r"no trial keeps size_bytes <= 10, and no policy of this space is predicted",
        ),
        ([Constraint("latency_ms", "<=", 1)], r"study 's' did not measure latency_ms \(it has: .*top1"),
        ([Constraint("top1", ">=", 1.5)], "no trial keeps top1 >= 1.5, and nothing limits what a policy costs"),
    ],
)
def test_what_cannot_be_answered_is_one_line(study: Study, bounds: list[Constraint], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        solve(study, bounds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("size_bytes=60kB", 60_000),
        ("size_bytes = 1.5 MiB", 1.5 * 2**20),
        ("size_bytes=512", 512),
        ("latency_ms=0.4", 0.4),
        ("latency_ms=400us", 0.4),
        ("latency_ms=2e-3s", 2.0),
        ("macs=1.5M", 1.5e6),
        ("top1=0.9", 0.9),
    ],
)
def test_amounts(text: str, value: float) -> None:
    assert bound(text, "<=").bound == pytest.approx(value)
    for sign in ("<=", ">="):
        assert constraint(text.replace("=", f" {sign} ")) == bound(text, sign)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size_bytes", "must read METRIC=AMOUNT"),
        ("size=3", "unknown metric 'size'"),
        ("size_bytes=3kb", "with or without one of B, kB"),
        ("top1=90%", r"must be a number$"),
        ("top1=95", "top1 is a share, from 0 to 1"),
        ("size_bytes=1.2.3", "'1.2.3' is no finite number"),
        ("size_bytes=1e999", "is no finite number"),
        ("size_bytes=nan", "must be a number with or without"),
    ],
)
def test_amounts_that_are_none(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        bound(text, "<=")
    with pytest.raises(SpecError, match=message.replace("=AMOUNT", " <= AMOUNT")):
        constraint(text.replace("=", "<="))
