"""Studies that begin with what others found: trials, sensitivities; and extensions that need new measurements."""

import math
import os
import sys
from dataclasses import replace
from types import ModuleType

import pytest

import automc
from automc.app import catalog, report, runs, warm
from automc.app.config import study_from
from automc.cli import main
from automc.core.probing import probes_of
from automc.core.search import Ending
from automc.core.sensitivity import Sensitivity
from automc.core.study import Part
from automc.errors import EvaluationError, LeaseHeld, SpecError, StoreError, UnknownStudy
from automc.evaluation.synthetic import SyntheticEvaluator, prepare_synthetic
from automc.proposers.random import RandomProposer

SPACE = {
    "rules": [
        {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
        {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
    ]
}


class Sensing(RandomProposer):
    """Asks at random, but wants a table; ``measures`` may be "trace" too."""

    measures = ("loss",)

    def __init__(self, space, objectives, constraints, seed, want: str = "loss"):
        super().__init__(space, objectives, constraints, seed)
        self.measures = tuple(want.split())
        if want == "colour":
            raise SpecError("decides no colours; use random")


class Mute:
    """The synthetic evaluator without its damage."""

    def __init__(self, spec):
        inner = prepare_synthetic(replace(spec, evaluator=Part("synthetic", {"layers": 7})))
        self.table, self.baseline, self.evaluate = inner.table, inner.baseline, inner.evaluate


@pytest.fixture(autouse=True)
def own_parts(monkeypatch):
    module = ModuleType("own_parts")
    module.Sensing, module.Mute = Sensing, Mute
    monkeypatch.setitem(sys.modules, "own_parts", module)
    monkeypatch.setitem(catalog.PROPOSERS, "sensing", "own_parts:Sensing")
    monkeypatch.setitem(catalog.EVALUATORS, "mute", "own_parts:Mute")


@pytest.fixture
def calls(monkeypatch):
    """The measures of every probe."""
    found, real = [], SyntheticEvaluator.damage

    def damage(self, policy, measures):
        found.append(tuple(measures))
        return real(self, policy, measures)

    monkeypatch.setattr(SyntheticEvaluator, "damage", damage)
    return found


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "studies.db")


def given(storage, name="new", layers=4, **changes):
    said = {
        "name": name,
        "model": "digits_net",
        "data": "digits",
        "space": SPACE,
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "constraints": ["macs_ratio <= 0.8"],
        "evaluator": {"name": "synthetic", "settings": {"layers": layers}},
        "proposer": {"name": "tpe", "settings": {"anchors": 0, "startup": 1}},
        "budget": {"trials": 12},
        "workers": {"count": 0},
        "storage": str(storage),
    }
    return study_from(said | changes, "test")


def searched(storage, name="new", warm_start=(), **changes):
    study = runs.start(given(storage, name, **changes), warm_start)
    assert study.run() is Ending.DONE
    return study


def policies(study):
    return [t.policy for t in study.records()]


def test_a_warm_start_is_reported_kept_and_told_but_never_counted(storage, capsys):
    old = searched(storage, "old", proposer="random", budget={"trials": 15})
    new = searched(storage, warm_start=["old"])
    assert capsys.readouterr().err == "automc: warm start from old (the same network): 15 trials reused\n"
    told = warm.told(new.facts, new.space)
    assert [t.number for t in told] == list(range(-15, 0))
    assert [t.policy for t in told] == policies(old)
    assert [t.measurement.metrics for t in told] == [t.measurement.metrics for t in old.records()]
    assert policies(new) != policies(searched(storage, "cold"))
    summary = new.summary()
    assert summary["counts"]["complete"] == 12
    assert summary["warm_start"] == [{"study": "old", "same_network": True, "excluded": {}, "reused": 15}]
    assert max(summary["front"]) < 12
    assert len(new.trials()) == 12
    assert "started from  15 trials of old" in report.study_text(new)


def test_resume_tells_the_warm_start_again_even_if_the_other_study_is_gone(storage, tmp_path):
    elsewhere = str(tmp_path / "other.db")
    searched(elsewhere, "old", proposer="random", budget={"trials": 15}).close()
    whole = searched(storage, warm_start=[f"old@{elsewhere}"])
    again = runs.start(given(tmp_path / "again.db", budget={"trials": 5}), [f"old@{elsewhere}"])
    again.run()
    again.close()
    os.remove(elsewhere)
    longer = automc.open_study("new", str(tmp_path / "again.db"))
    # More trials in the same revision: what a kill after the fifth would leave.
    spec = replace(longer.spec, budget=replace(longer.spec.budget, trials=12))
    longer.store.spec = lambda name: spec
    assert longer.run() is Ending.DONE
    assert policies(longer) == policies(whole)


def test_a_similar_network_s_trials_are_matched_and_rescaled(storage, capsys):
    searched(storage, "small", layers=4, proposer="random", budget={"trials": 20})
    new = runs.start(given(storage, layers=9), ["small"])
    said = capsys.readouterr().err
    assert "warm start from small (another network, layers matched by their part in it): 20 trials reused" in said
    old = automc.open_study("small", storage)
    for carried, trial in zip(warm.told(new.facts, new.space), old.records(), strict=True):
        before, after = trial.measurement.metrics, carried.measurement.metrics
        assert (after["top1"], after["size_ratio"]) == (before["top1"], before["size_ratio"])
        grown = new.baseline["size_bytes"] / old.baseline["size_bytes"]
        assert after["size_bytes"] == pytest.approx(before["size_bytes"] * grown)
        assert carried.policy.settings("prune")["conv0"] == trial.policy.settings("prune")["conv0"]
    assert new.run() is Ending.DONE


def test_several_studies_and_what_is_left_out_of_each(storage, capsys):
    searched(storage, "a", evaluator={"name": "synthetic", "settings": {"layers": 4, "fail": {"error": 0.4}}})
    bits = {"rules": [*SPACE["rules"][:1], {"operator": "quantize", "settings": {"weight_bits": 3}}]}
    searched(storage, "b", space=bits, proposer="random", budget={"trials": 6})
    failed = automc.open_study("a", storage).summary()["counts"]["failed"]
    assert failed > 0
    capsys.readouterr()
    new = runs.start(given(storage), ["a", "b", "a"])
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(f"{12 - failed} trials reused; {failed} left out: {failed} not measured to the end")
    assert second.endswith("0 trials reused; 6 left out: 6 outside this space, first at quantize(conv0).weight_bits")
    assert [t.number for t in warm.told(new.facts, new.space)] == list(range(failed - 12, 0))


@pytest.mark.parametrize(
    ("ref", "error", "message"),
    [
        ("oldd", UnknownStudy, "no study 'oldd', did you mean 'old'"),
        ("old@nowhere.db", StoreError, "nowhere.db"),
        ("bare", SpecError, "warm start from 'bare': this automc cannot read what that study searched"),
    ],
)
def test_a_study_that_is_not_there_or_cannot_be_read_is_refused_and_nothing_written(storage, ref, error, message):
    old = searched(storage, "old", budget={"trials": 1})
    old.store.create(replace(old.spec, name="bare"), {})
    for call in (
        lambda: runs.start(given(storage), [ref]),
        lambda: automc.extend("old", 2, None, storage, warm_start=[ref]),
    ):
        with pytest.raises(error, match=message):
            call()
    assert [s.spec.name for s in old.store.studies()] == ["old", "bare"]
    assert old.store.spec("old").revision == 0
    automc.resume("old", storage).run()  # the lease was given back


def test_an_extension_adds_to_the_warm_start(storage):
    for name, seed in (("a", 1), ("b", 2)):
        searched(storage, name, proposer="random", seed=seed, budget={"trials": 5})
    study = searched(storage, warm_start=["a"])
    longer = automc.extend("new", 4, storage=storage, warm_start=[automc.open_study("b", storage)])
    assert [e["reused"] for e in longer.summary()["warm_start"]] == [5, 5]
    assert [t.number for t in warm.told(longer.facts, longer.space)] == list(range(-10, 0))
    assert longer.run() is Ending.DONE
    assert policies(longer)[:12] == policies(study)[:12]


def test_api(storage):
    searched(storage, "old", proposer="random")
    said = {"space": SPACE, "evaluator": {"name": "synthetic", "settings": {"layers": 4}}, "workers": 0}
    study = automc.search("digits_net", "digits", trials=3, storage=storage, warm_start=["old"], **said)
    assert study.summary()["warm_start"][0]["reused"] == 12


# Sensitivities


def test_a_table_of_the_same_network_is_not_measured_again(storage, calls):
    old = searched(storage, "old", proposer="sensing", budget={"trials": 1})
    probes = sum(1 for *_, policy in probes_of(old.space) if policy)
    assert len(calls) == probes > 0
    new = runs.start(given(storage, proposer="sensing"), ["old"])
    assert len(calls) == probes
    assert new.layers.sensitivity == old.layers.sensitivity
    other = runs.start(given(storage, "other", layers=5, proposer="sensing"), ["old"])
    assert len(calls) > probes, "another network is measured"
    assert bool(other.layers.sensitivity)


def test_where_nothing_can_be_measured_a_similar_network_s_table_stands_in(storage, capsys):
    old = searched(storage, "old", proposer="sensing", budget={"trials": 1})
    new = runs.start(given(storage, evaluator="mute", proposer="sensing"), ["old"])
    found, known = new.layers.sensitivity, old.layers.sensitivity
    site = found.probes[0].site
    assert [p.damage for p in found.probes if p.site == site] == [p.damage for p in known.probes if p.site == site]
    capsys.readouterr()
    alone = runs.start(given(storage, "alone", evaluator="mute", proposer="sensing"))
    assert capsys.readouterr().err == "automc: evaluator mute measures no sensitivities; sensing does without them\n"
    assert not alone.layers.sensitivity
    assert alone.run() is Ending.DONE


def test_an_extension_measures_what_its_proposer_wants_first(storage, calls):
    study = searched(storage)
    assert not calls
    longer = automc.extend("new", 3, {"name": "sensing", "settings": {"want": "loss"}}, storage)
    assert longer.layers.sensitivity.measures == ("loss",)
    count = len(calls)
    assert calls == [("loss",)] * count
    assert automc.open_study("new", storage).layers.sensitivity == longer.layers.sensitivity
    assert longer.run() is Ending.DONE
    more = automc.extend("new", 1, storage=storage, changes=['proposer.settings.want="loss trace"'])
    assert more.layers.sensitivity.measures == ("loss", "trace")
    assert calls[count:] == [("trace",)] * count, "what is known is not measured again"
    automc.extend("new", 1, storage=storage)
    assert len(calls) == 2 * count
    assert study.baseline == more.baseline


def test_an_extension_that_fails_while_measuring_changes_nothing(storage, monkeypatch):
    study = searched(storage)

    def broken(self, policy, measures):
        raise EvaluationError("the device is gone")

    monkeypatch.setattr(SyntheticEvaluator, "damage", broken)
    with pytest.raises(EvaluationError, match="device is gone"):
        automc.extend("new", 3, "sensing", storage)
    again = automc.open_study("new", storage)
    assert (again.spec, again.facts) == (study.spec, study.facts)
    assert again.run() is Ending.DONE


def test_an_extension_of_a_study_that_is_searched_is_refused_before_anything_is_measured(storage, calls):
    from automc.app import driving

    study = searched(storage)
    with driving.Tenure(study.store, "new"), pytest.raises(LeaseHeld, match="is driven by pid"):
        automc.extend("new", 3, "sensing", storage)
    assert calls == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--proposer", "sensing", "--set", "proposer.settings.want=colour"],
            "proposer sensing: decides no colours; use random",
        ),
        (["--set", "proposer.settings.anchor=3"], "did you mean 'anchors'?"),
        (
            ["--set", "proposer.settings.anchors=x"],
            "settings.anchors: must be a whole number from 0 to 1,000,000, not 'x'",
        ),
        (["--set", "budget.trials=3"], "budget.trials: 5 is below the 12 trials there are"),
        (["--proposer", "tpee"], "unknown proposer 'tpee'"),
        (["--from", "oldd"], "no study 'oldd'"),
    ],
)
def test_what_an_extension_refuses_is_one_line(storage, capsys, more, said):
    searched(storage)
    capsys.readouterr()
    assert main(["extend", "new", "--trials", "+2", "--storage", storage, *more]) in (2, 5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("automc: ")
    assert said in line
    assert automc.open_study("new", storage).spec.revision == 0


# The command line


@pytest.fixture
def file(tmp_path, monkeypatch, storage):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(
        f"model: digits_net\ndata: digits\nspace: joint\nobjectives: {{top1: maximize, size_bytes: minimize}}\n"
        f"evaluator: {{name: synthetic, settings: {{layers: 4}}}}\nproposer: sensing\nbudget: {{trials: 3}}\n"
        f"workers: {{count: 0}}\nstorage: {storage}\n"
    )
    return "s.yaml"


def test_the_command_line_starts_from_others(file, storage, capsys):
    assert main(["search", file, "--name", "one"]) == 0
    said = capsys.readouterr().err
    assert "automc: measuring what single decisions damage: " in said
    assert main(["search", file, "--name", "two", "--from", "one", "--from", f"one@{storage}"]) == 0
    said = capsys.readouterr().err
    assert said.count("(the same network): 3 trials reused") == 2
    assert "measuring" not in said
    assert main(["extend", "two", "--trials", "+2", "--proposer", "nsga2", "--set", "proposer.settings.population=4",
                 "--from", "one", "--storage", storage]) == 0  # fmt: skip
    spec = automc.open_study("two", storage).spec
    assert (spec.proposer.name, dict(spec.proposer.settings)) == ("nsga2", {"population": 4})


def test_check_says_what_is_measured_and_reused(file, storage, capsys, calls):
    assert main(["search", file, "--name", "one"]) == 0
    probes = len(calls)
    capsys.readouterr()
    assert main(["check", file]) == 0
    assert f"first {probes} probes of single decisions: about " in capsys.readouterr().out
    assert len(calls) == probes + 2, "two of them are measured, for the time they take"
    assert main(["search", file, "--name", "two", "--from", "one", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "probes of single decisions" not in out
    assert "warm start from one (the same network): 3 trials reused" in out
    assert list(runs.studies(storage)["study"]) == ["one"]
    checked = runs.check(given(storage, proposer="sensing"))
    assert report.check_data(checked)["cost"]["probes"] == checked.probes > 0
    assert checked.seconds_per_probe > 0


@pytest.mark.parametrize("command", [["check"], ["search", "--name", "x"]])
def test_an_unusable_proposer_is_refused_at_its_line(file, capsys, command):
    assert main([command[0], file, *command[1:], "--set", "proposer.settings.want=colour"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "automc: s.yaml:6: proposer sensing: decides no colours; use random"


def test_a_probe_that_fails_counts_as_infinite_damage(storage, monkeypatch):
    from automc.errors import CompressionError

    def refuse(self, policy, measures):
        raise CompressionError("not here")

    monkeypatch.setattr(SyntheticEvaluator, "damage", refuse)
    assert runs.check(given(storage, proposer="sensing")).seconds_per_probe >= 0
    study = runs.start(given(storage, proposer="sensing"))
    assert {p.damage["loss"] for p in study.layers.sensitivity.probes} == {0.0, math.inf}
    assert isinstance(automc.open_study("new", storage).layers.sensitivity, Sensitivity)
