"""Studies as people use them, on the synthetic network: start, resume, extend, stop, pick, and what is refused."""

import multiprocessing
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import automc
from automc.app import asking, runs
from automc.app.config import read_study, study_from
from automc.core.metrics import losses
from automc.core.pareto import front
from automc.core.search import Ending
from automc.core.sensitivity import Sensitivity
from automc.core.study import Part
from automc.core.trial import TrialState
from automc.errors import LeaseHeld, SpecError, StoreError, StudyExists, UnknownStudy, UnknownTrial
from automc.evaluation.synthetic import prepare_synthetic

SPACE = {
    "rules": [
        {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
        {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
    ]
}


def given(storage, **changes):
    said = {
        "name": "s",
        "model": "digits_net",
        "data": "digits",
        "space": SPACE,
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "constraints": ["macs_ratio <= 0.8"],
        "evaluator": {"name": "synthetic", "settings": {"layers": 5}},
        "budget": {"trials": 20},
        "workers": {"count": 0},
        "storage": str(storage),
    }
    return study_from(said | changes, "test")


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "studies.db")


@pytest.fixture
def study(storage):
    made = runs.start(given(storage))
    assert made.run() is Ending.DONE
    return made


def test_a_study_is_read_back_from_its_database(study, storage):
    again = automc.open_study("s", storage)
    assert again.spec == study.spec
    assert replace(again.layers, sensitivity=Sensitivity()) == study.evaluator.table
    assert again.layers.sensitivity.measures == ("loss",), "which the default proposer asks for"
    assert again.baseline == study.evaluator.baseline
    assert [t.policy for t in again.records()] == [t.policy for t in study.records()]
    assert again.trial(7) == again.records()[7]


def test_frames(study):
    frame = study.trials()
    assert isinstance(frame, pd.DataFrame)
    assert frame["number"].tolist() == list(range(20))
    assert {"state", "rung", "top1", "size_bytes", "macs_ratio", "seconds", "fingerprint"} <= set(frame.columns)
    some = study.trials(where="macs_ratio <= 0.5 and top1 > 0.1", sort=["-top1"], limit=3)
    expected = frame[(frame.macs_ratio <= 0.5) & (frame.top1 > 0.1)].sort_values("top1", ascending=False).head(3)
    assert some["number"].tolist() == expected["number"].tolist()
    assert study.pareto()["number"].tolist() == [t.number for t in study.front()]


def test_an_empty_study_has_empty_frames(storage):
    made = runs.start(given(storage))
    assert list(made.trials().columns)[:3] == ["number", "state", "rung"]
    assert len(made.pareto()) == 0
    assert made.summary()["front"] == []
    with pytest.raises(UnknownTrial, match="has no front yet"):
        made.picked()


def test_picks(study):
    members = study.front()
    metrics = [t.measurement.metrics for t in members]
    assert study.picked("max:top1").measurement.metrics["top1"] == max(m["top1"] for m in metrics)
    assert study.picked("min:size_bytes").measurement.metrics["size_bytes"] == min(m["size_bytes"] for m in metrics)
    bound = sorted(m["top1"] for m in metrics)[len(metrics) // 2]
    smallest = study.picked(f"top1 >= {bound}")
    assert smallest.measurement.metrics["size_bytes"] == min(m["size_bytes"] for m in metrics if m["top1"] >= bound)
    ratio = sorted(m["size_ratio"] for m in metrics)[len(metrics) // 2]
    best = study.picked(f"size_ratio <= {ratio}")
    assert best.measurement.metrics["top1"] == max(m["top1"] for m in metrics if m["size_ratio"] <= ratio)
    assert study.picked("knee") in members
    assert study.pareto(pick="knee")["number"].tolist() == [study.picked("knee").number]


@pytest.mark.parametrize(
    ("pick", "error", "message"),
    [
        ("kne", SpecError, "did you mean 'knee'"),
        ("min:latency_ms", SpecError, "did not measure latency_ms"),
        ("max:top2", SpecError, "did you mean 'top5'"),
        ("top1 >= 2", UnknownTrial, "no member of the front"),
        ("topp1 >= 0.5", SpecError, "top1"),
    ],
)
def test_picks_that_are_none(study, pick, error, message):
    with pytest.raises(error, match=message):
        study.picked(pick)


def test_summary_counts(study):
    summary = study.summary()
    assert summary["counts"]["complete"] == 20
    assert summary["front"] == [t.number for t in front(study.records(), study.spec.objectives, study.spec.constraints)]
    assert 0 < summary["covered"] < 1
    assert summary["best"]["top1"] == max(t.measurement.metrics["top1"] for t in study.front())


def test_names_are_unique_and_unknown_ones_get_the_nearest(study, storage):
    with pytest.raises(StudyExists, match="s"):
        runs.start(given(storage))
    with pytest.raises(UnknownStudy):
        automc.open_study("t", storage)
    with pytest.raises(UnknownTrial, match="no trial 20"):
        study.trial(20)
    with pytest.raises(StoreError, match="nowhere"):
        automc.open_study("s", storage + "nowhere")
    assert not os.path.exists(storage + "nowhere")


def test_extend_tells_another_proposer_and_starts_a_revision(study, storage):
    longer = automc.extend("s", trials=10, proposer="nsga2", storage=storage)
    assert longer.run() is Ending.DONE
    assert len(longer.records()) == 30
    assert [t.policy for t in longer.records()[:20]] == [t.policy for t in study.records()[:20]]
    spec = longer.spec
    assert (spec.revision, spec.first_trial, spec.proposer.name, spec.budget.trials) == (1, 20, "nsga2", 30)


@pytest.mark.parametrize(
    ("changes", "message"), [({"trials": 0}, "at least 1"), ({"trials": 5, "proposer": "tpee"}, "did you mean 'tpe'")]
)
def test_extend_refuses_and_changes_nothing(study, storage, changes, message):
    with pytest.raises(SpecError, match=message):
        automc.extend("s", storage=storage, **changes)
    assert automc.open_study("s", storage).spec == study.spec


def test_resume_of_a_finished_study_has_nothing_to_do(study, storage):
    assert automc.resume("s", storage).run() is Ending.DONE
    assert len(automc.open_study("s", storage).records()) == 20


def test_stop_from_another_process_acts_soon_and_resume_goes_on(storage):
    slow = {"name": "synthetic", "settings": {"layers": 5, "sleep_s": 0.05}}
    runs.start(given(storage, evaluator=slow, budget={"trials": 80})).close()
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(storage,))
    driver.start()
    watch = automc.open_study("s", storage)
    wait(lambda: any(t.state is TrialState.COMPLETE for t in watch.records()))
    with pytest.raises(LeaseHeld, match=rf"pid {driver.pid} on host"):
        automc.resume("s", storage).run()
    assert automc.stop("s", storage)
    wait(lambda: not automc.stop("s", storage))
    driver.join(20)
    assert driver.exitcode == 0
    done = len(watch.records())
    assert 0 < done < 80, "it acted before the rest of them"
    assert not [t for t in watch.records() if t.state is TrialState.RUNNING]
    assert not automc.stop("s", storage), "nobody drives it any more"
    # A stop is for the driver that was running: the next one is not stopped by it.
    assert automc.open_study("s", storage).run() is Ending.DONE
    assert len(watch.records()) == 80


def drive(storage, ending=Ending.DRAINED):
    assert automc.resume("s", storage).run() is ending


def driven(storage, sleep_s, ending):
    """A study under way in another process."""
    slow = {"name": "synthetic", "settings": {"layers": 5, "sleep_s": sleep_s}}
    runs.start(given(storage, evaluator=slow, budget={"trials": 60})).close()
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(storage, ending))
    driver.start()
    watch = automc.open_study("s", storage)
    wait(lambda: any(t.state is TrialState.RUNNING for t in watch.records()), 120.0)
    return driver, watch


def test_a_cancel_ends_an_evaluation_in_the_middle(storage):
    """One evaluation sleeps for a minute, in the driver's own process."""
    driver, watch = driven(storage, 60.0, Ending.INTERRUPTED)
    assert automc.cancel("s", storage)
    asked = time.monotonic()
    wait(lambda: watch.store.driver("s") is None)
    assert time.monotonic() - asked < 20.0
    driver.join(20)
    assert driver.exitcode == 0
    assert [t.state for t in watch.records()] == [TrialState.WAITING]
    assert not automc.cancel("s", storage)


def test_a_pause_holds_the_study_until_a_resume_lifts_it(storage):
    driver, watch = driven(storage, 0.1, Ending.DONE)
    assert not asking.lift("s", storage)
    assert automc.pause("s", storage)

    def quiet():
        before = watch.records()
        time.sleep(0.5)
        return watch.records() == before and not [t for t in before if t.state is TrialState.RUNNING]

    wait(quiet)
    held = watch.records()
    assert 0 < len(held) < 60
    assert quiet()
    assert watch.records() == held
    assert watch.store.driver("s").pid == driver.pid, "it waits with its lease"
    assert asking.lift("s", storage)
    wait(lambda: len(watch.records()) > len(held))
    driver.join(30)
    assert driver.exitcode == 0
    assert len(watch.records()) == 60


def wait(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ray_and_in_process_give_the_same_trials(storage, tmp_path):
    """Ray starts in 3 s."""
    other = str(tmp_path / "ray.db")
    inline = runs.start(given(storage))
    inline.run()
    pool = runs.start(given(other, workers={"count": 2}))
    assert pool.run() is Ending.DONE
    told = [[(t.policy, t.state, t.measurement.metrics) for t in s.records()] for s in (inline, pool)]
    assert told[0] == told[1]


def test_ctrl_c_behind_the_last_trial_is_an_ending_too(storage, monkeypatch):
    made, leave = runs.start(given(storage)), runs.driving.Tenure.__exit__

    def interrupted(*args):
        leave(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.driving.Tenure, "__exit__", interrupted)
    assert made.run() is Ending.INTERRUPTED
    assert len(made.records()) == 20


def test_search_works_outside_the_main_thread(storage):
    made, endings = runs.start(given(storage)), []
    thread = threading.Thread(target=lambda: endings.append(made.run()))
    thread.start()
    thread.join(60)
    assert endings == [Ending.DONE]


def test_a_model_that_changed_is_refused(study, storage):
    automc.extend("s", trials=5, storage=storage)
    changed = automc.open_study("s", storage)
    changed.evaluator = prepare_synthetic(replace(changed.spec, evaluator=Part("synthetic", {"layers": 6})))
    with pytest.raises(SpecError, match="another space than when it began"):
        changed.run()
    assert len(changed.records()) == 20


def test_more_workers_than_the_window_are_refused_and_nothing_changes(study, storage):
    with pytest.raises(SpecError, match="workers 9 is above its window 4"):
        automc.resume("s", storage, workers=9)
    assert automc.open_study("s", storage).spec == study.spec


def test_what_a_synthetic_study_cannot_do(study, tmp_path):
    with pytest.raises(SpecError, match="there is no network to build or export"):
        study.best()
    with pytest.raises(SpecError, match="there is no network to build or export"):
        study.export(0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_when_a_study_is_wrong(storage):
    with pytest.raises(SpecError, match="colour"):
        runs.start(given(storage, proposer={"name": "tpe", "settings": {"colour": 1}}))
    assert not os.path.exists(storage)


def test_check_writes_nothing_and_measures(storage):
    checked = runs.check(given(storage))
    assert not os.path.exists(storage)
    assert checked.seconds_per_evaluation > 0
    assert len(checked.space) == 9
    assert losses(checked.spec.objectives, checked.baseline)[0] == -checked.baseline["top1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("proposer: {name: tpe, settings: {anchor: 3}}", "did you mean 'anchors'?"),
        (
            "proposer: {name: tpe, settings: {startup: x}}",
            "proposer.settings.startup: must be a whole number from 1 to 1,000,000, not 'x'",
        ),
        ("stopper: {name: median, settings: {grce: 1}}", "did you mean 'grace'?"),
        ("evaluator: {name: synthetic, settings: {layer: 3}}", "did you mean 'layers'?"),
        ("evaluator: {name: network, settings: {learnin_rate: 3}}", "did you mean 'learning_rate'?"),
    ],
)
def test_a_wrong_setting_of_a_part_names_its_line(tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    head = "model: digits_net\ndata: digits\nspace: joint\nobjectives: {top1: maximize}\n"
    (tmp_path / "s.yaml").write_text(head + line + "\n")
    with pytest.raises(SpecError) as caught:
        runs.start(read_study(Path("s.yaml")))
    assert str(caught.value).startswith("s.yaml:5: " + line.partition(":")[0] + ".settings.")
    assert said in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["s.yaml"]
