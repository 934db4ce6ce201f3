"""What a study says of its errors, of what early stops saved, and the audit of these stops."""

from __future__ import annotations

import json
from statistics import median

import pytest

from automc.app import runs
from automc.app.confidence import savings
from automc.app.config import study_from
from automc.app.report import study_text, trial_data
from automc.app.study import Study
from automc.app.tables import to_json
from automc.core.hopeless import looks
from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.tally import tally
from automc.core.trial import Trial, TrialState

INPUTS, DOUBT = 1000, 0.01
STUDY = {
    "name": "sampled",
    "model": "digits_net",
    "data": "digits",
    "space": {
        "rules": [
            {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
            {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8]}},
        ]
    },
    "objectives": {"top1": "maximize", "size_bytes": "minimize"},
    "proposer": "random",
    "evaluator": {"name": "synthetic", "settings": {"layers": 6, "inputs": INPUTS, "doubt": DOUBT}},
    "budget": {"trials": 80},
    "workers": {"count": 0},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    storage = str(tmp_path_factory.mktemp("study") / "s.db")
    runs.start(study_from({**STUDY, "storage": storage}, "test")).run()
    return runs.open_study("sampled", storage)


def test_what_was_saved_is_what_was_not_run(study: Study) -> None:
    trials = [(t, t.measurement) for t in study.records() if t.twin is None]
    parts = [m.samples for t, m in trials if m and t.state is TrialState.STOPPED]
    whole = [m.samples for t, m in trials if m and t.state is TrialState.COMPLETE]
    assert set(whole) == {INPUTS}
    assert set(parts) <= set(looks(INPUTS))
    assert len(parts) > 10
    facts = study.summary()["inputs"]
    assert facts["run"] == sum(parts) + sum(whole)
    assert facts["saved"] == INPUTS * (len(parts) + len(whole)) - facts["run"]
    assert (facts["stopped"], facts["trials"], facts["inputs"]) == (len(parts), len(trials), INPUTS)
    assert facts["share"] == pytest.approx(facts["saved"] / (INPUTS * len(trials)))
    said = f"{facts['share']:.0%} of {len(trials)} x 1,000 saved by ending {len(parts)} hopeless trials early"
    assert said in study_text(study)
    assert "with a probability of at most 0.01" in study_text(study)


def test_the_error_of_a_share_is_that_of_wilson(study: Study) -> None:
    found = [t.measurement for t in study.records() if t.state is TrialState.COMPLETE and t.measurement]
    for measured in found:
        p = measured.metrics["top1"]
        assert measured.errors == {"top1": pytest.approx((p * (1 - p) * INPUTS + 0.25) ** 0.5 / (INPUTS + 1))}
    assert study.summary()["median_errors"]["top1"] == pytest.approx(median(m.errors["top1"] for m in found))
    frame = study.trials(where="state == stopped and samples < 300 and top1_error > 0.001")
    assert set(frame["reason"]) == {"dominated"}
    assert (frame["top1_error"] * (frame["samples"] + 1)).tolist() == pytest.approx(
        (frame["samples"] * frame["top1"] * (1 - frame["top1"]) + 0.25).pow(0.5).tolist()
    )
    assert "top1_error" in study_text(study)
    assert json.loads(to_json(study.pareto()))[0]["samples"] == INPUTS
    data = trial_data(study.trial(int(frame["number"].iloc[0])))
    assert data["samples"] == frame["samples"].iloc[0]
    assert set(data["errors"]) == {"top1"}


def test_an_audit_measures_the_stopped_trials_in_full_and_compares_the_fronts(study: Study) -> None:
    before = study.records()
    found = study.audit()
    assert study.records() == before
    assert found.unchanged
    assert found.front == tuple(t.number for t in study.front())
    assert list(found.stopped) == [t.number for t in before if t.hopeless]
    for number, pairs in found.estimates.items():
        trial = before[number]
        full = study.evaluator.evaluate(trial.policy, 0, lambda step, value: True)
        assert trial.measurement is not None
        assert pairs["top1"] == (trial.measurement.metrics["top1"], full.metrics["top1"])
        assert pairs["size_bytes"][0] == pairs["size_bytes"][1]


def test_an_audit_sees_a_wrong_stop(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest stopped trial is made out to be right everywhere, so it must be missed on the front."""
    records = study.records()
    lost = max((t for t in records if t.hopeless), key=lambda t: t.number)
    evaluate = study.evaluator.evaluate

    def flattered(policy: Policy, rung: int, *others: object) -> Measurement:
        found = evaluate(policy, rung, lambda step, value: True)
        return Measurement({**found.metrics, "top1": 1.0}) if policy == lost.policy else found

    monkeypatch.setattr(study.evaluator, "evaluate", flattered)
    found = study.audit()
    assert not found.unchanged
    assert lost.number in found.full_front
    assert lost.number not in found.front


def test_answers_from_the_store_and_trials_without_inputs_count_neither_way() -> None:
    def trial(number: int, samples: int, **changes: object) -> Trial:
        found = Measurement({"top1": 0.5}, samples=samples)
        return Trial(number, Policy({}), state=TrialState.COMPLETE, measurement=found, **changes)  # type: ignore[arg-type]

    stopped = Trial(
        1, Policy({}), state=TrialState.STOPPED, reason="dominated", measurement=Measurement({}, samples=25)
    )
    found = savings(tally([trial(0, 100), stopped, trial(2, 100, twin=0), trial(3, 0), Trial(4, Policy({}))]))
    assert (found.trials, found.inputs, found.run, found.stopped, found.saved) == (2, 100, 125, 1, 75)
    assert savings(tally([trial(0, 0)])).share == 0.0
