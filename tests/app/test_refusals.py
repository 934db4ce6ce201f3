"""What ``automc check`` refuses about evaluator, data and network: each mistake in one line, at its place."""

from pathlib import Path

import pytest
import torch

from automc.app import runs
from automc.app.api import _first_metric
from automc.app.config import read_study
from automc.errors import AutomcError, DataError, ModelError, SpecError, WorkerError
from automc.evaluation.readers.user import as_data
from automc.workers import devices

HEAD = "model: digits_net\ndata: digits\nspace: joint\nobjectives: {top1: maximize}\nworkers: {count: 0}\n"


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """The lines with which a study is refused, and nothing was written."""
    monkeypatch.chdir(tmp_path)

    def ask(text: str, *overrides: str, error: type[AutomcError] = SpecError) -> list[str]:
        before = sorted(tmp_path.iterdir())
        Path("s.yaml").write_text(text)
        with pytest.raises(error) as caught:
            runs.check(read_study(Path("s.yaml"), overrides))
        now = {path for path in tmp_path.iterdir() if path.name != "__pycache__"}  # of a model file that was imported
        assert now == {*before, tmp_path / "s.yaml"}
        return str(caught.value).splitlines()

    return ask


def test_all_wrong_settings_of_an_evaluator_each_at_its_line(refused):
    wrong = "momentum: 2\noptimizer: adamww\nclip: much\ncache_mb: -1\nlerning_rate: 3\ndoubt: 0.9\nridge: 0\n"
    block = "evaluator:\n  name: network\n  settings:\n" + "".join(f"    {line}\n" for line in wrong.splitlines())
    lines = refused(HEAD + block, "evaluator.settings.ema=7")
    path = "evaluator.settings"
    assert lines[0] == f"s.yaml:9: {path}.momentum: must be in [0, 1), not 2"
    assert lines[1].endswith("optimizer: must be one of sgd, adamw, not 'adamww', did you mean 'adamw'?")
    assert lines[2] == f"s.yaml:11: {path}.clip: must be a number, not 'much'"
    assert lines[3] == f"s.yaml:12: {path}.cache_mb: must be at least 0, not -1"
    assert lines[4].startswith(f"s.yaml:13: {path}.lerning_rate: network has no such setting")
    assert lines[5] == f"s.yaml:14: {path}.doubt: must be a probability in [0, 0.5], not 0.9"
    assert lines[6] == f"s.yaml:15: {path}.ridge: must be in (0, 1], not 0"
    assert lines[7:] == [f"--set {path}.ema=7: {path}.ema: must be in [0, 1), not 7"]


def test_all_wrong_settings_of_the_synthetic_evaluator_too(refused):
    block = "evaluator:\n  name: synthetic\n  settings:\n    layers: 1\n    hang: 3\n    fail: {x: 1}\n"
    lines = refused(HEAD + block)
    assert [line.partition(": ")[0] for line in lines] == ["s.yaml:9", "s.yaml:10", "s.yaml:11"]
    assert lines[1] == "s.yaml:10: evaluator.settings.hang: must be a share in [0, 1], not 3"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has float16")
def test_float16_needs_a_gpu(refused):
    (line,) = refused(HEAD + "evaluator: {name: network, settings: {precision: float16}}\n")
    assert line.startswith("s.yaml:6: evaluator.settings.precision: float16 needs a GPU")
    assert line.endswith("use bfloat16 or float32")


def test_all_wrong_settings_of_a_proposer_and_a_stopper_each_at_its_line(refused):
    block = "proposer:\n  name: evolve\n  settings:\n    startup: -1\n    childern: 3\n    generations: many\n"
    lines = refused(HEAD + block + "stopper: {name: median, settings: {peers: 0}}\nseed: x\n")
    path = "proposer.settings"
    assert lines[0] == f"s.yaml:9: {path}.startup: must be from 0 to 1,000,000, not -1"
    assert lines[1].startswith(f"s.yaml:10: {path}.childern: evolve has no such setting (it has: startup, ")
    assert lines[1].endswith(", did you mean 'children'?")
    assert lines[2] == f"s.yaml:11: {path}.generations: must be a whole number from 1 to 1,000, not 'many'"
    assert lines[3] == "s.yaml:12: stopper.settings.peers: must be from 1 to 1,000,000, not 0"
    assert lines[4].startswith("s.yaml:13: seed: 'x' is not allowed")


def test_bounds_that_nothing_keeps_each_at_its_line(refused):
    block = "evaluator: synthetic\nconstraints:\n  - top1 >= 0.5\n  - macs_ratio <= 0.0001\n  - size_ratio <= 0.0001\n"
    lines = refused(HEAD + block)
    assert [line.partition(" no policy")[0] for line in lines] == [
        "s.yaml:9: constraints[1]:",
        "s.yaml:10: constraints[2]:",
    ]


OWN = """
import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.hidden, self.second = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.out = nn.Linear(8, 10)

    def forward(self, x):
        if self.how == "eval only" and self.training:
            raise RuntimeError("for inference only")
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        x = nn.functional.dropout(x, 0.5, True) if self.how == "random" else x
        x = self.out(torch.relu(self.second(self.hidden(x))))
        return 0 * x if self.how == "zero" else x


def build(how=""):
    torch.manual_seed(0)
    return Net(how)


def data(train=60, search=40, rows=(), label=0, split="train", numbers=False, value=None):
    draw = np.random.default_rng(0)

    def some(count, name):
        targets = np.arange(count) % 10
        if name == split:
            targets[list(rows)] = label
        if numbers:
            targets = draw.normal(size=(count, 10)).astype("float32")
            targets = targets if value is None else np.full_like(targets, value)
        return draw.normal(size=(count, 1, 6, 6)).astype("float32"), targets

    return {"train": some(train, "train"), "search": some(search, "search"), "test": some(20, "test")}
"""


def own(model: str = "{}", data: str = "{}", aim: str = "top1", more: str = "") -> str:
    """A study of the file above that trains on its second rung."""
    Path("own.py").write_text(OWN)
    return (
        f"model: {{name: own.py:build, settings: {model}}}\ndata: {{name: own.py:data, settings: {data}}}\n"
        f"space: joint_kd\nobjectives: {{{aim}: maximize, size_bytes: minimize}}\nworkers: {{count: 0}}\n"
        f"rungs: [{{steps: 0}}, {{steps: 5}}]\n{more}\n"
    )


def test_a_network_that_cannot_train_is_refused_where_a_rung_trains(refused):
    (line,) = refused(own("{how: eval only}"), error=ModelError)
    assert line.startswith("model: cannot take a training step, which a rung with steps asks for")
    assert line.endswith("RuntimeError: for inference only")
    untrained = ["space=joint", "rungs=[{steps: 0}]"]
    assert runs.check(read_study(Path("s.yaml"), untrained)).seconds_per_evaluation > 0


def test_a_train_split_of_one_row_is_too_small_for_batch_norm(refused):
    more = "data.settings.classes=10"
    (line,) = refused(own(data="{train: 1}"), more, error=ModelError)
    assert line.endswith("; batch norm needs two inputs a step, and the train split has one")


def test_a_network_whose_answers_are_random_is_told_so(refused):
    (line,) = refused(own("{how: random}"), error=ModelError)
    assert line.startswith("model: its outputs change from call to call in eval mode")
    assert "F.dropout(x, p, self.training)" in line


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        (
            "{rows: [7, 9], label: 12}",
            "(the first rows of train): labels must be 0..9, found 12 in row 7",
        ),
        ("{rows: [5], label: 11, split: search}", "search split: labels must be 0..9, found 11 in row 5"),
        ("{train: 500, rows: [400], label: 12}", "train split: labels must be 0..9, found 12 in row 400"),
    ],
)
def test_a_wrong_label_is_found_where_it_is_with_both_cures(settings, where, refused):
    (line,) = refused(own(data=settings), error=DataError)
    assert line.startswith("data own.py:data, ")
    assert where in line
    assert "; give the model, which has 10 scores, num_classes: 1" in line
    assert line.endswith(" or other weights, or mend the labels")


def test_classes_that_no_train_label_speaks_of(refused):
    (line,) = refused(own(data="{train: 9}"), error=ModelError)
    assert "returns 10 scores, but the data has 9 classes; set data.settings.classes: 10 if the train split" in line
    assert runs.check(read_study(Path("s.yaml"), ["data.settings.classes=10"])).baseline["top1"] >= 0


def test_an_empty_split_is_called_empty(refused):
    assert refused(own(data="{search: 0}"), error=DataError) == ["data own.py:data, search split: is empty"]


@pytest.mark.parametrize(
    ("model", "data", "aim", "said"),
    [
        ("{}", "{numbers: true, value: 3}", "r2", "the targets of the search split are all alike, so r2 says nothing"),
        ("{how: zero}", "{numbers: true}", "teacher_r2", "the original's outputs on the search split are all alike"),
    ],
)
def test_r2_with_what_never_changes_is_refused_where_it_is_asked_for(model, data, aim, said, refused):
    (line,) = refused(own(model, data, aim, "task: regression"))
    assert line.startswith(f"s.yaml:4: objectives.{aim}: {said}")
    other = ["objectives={mse: minimize}"]
    assert runs.check(read_study(Path("s.yaml"), other)).baseline[aim] == (1.0 if aim == "teacher_r2" else 0.0)


def test_embeddings_that_are_all_zero_have_no_cosine(refused):
    (line,) = refused(own("{how: zero}", aim="cosine", more="task: embeddings"))
    assert line.startswith("s.yaml:4: objectives.cosine: the original's embeddings of the search split are all zero")


def test_mistakes_of_a_device_profile_name_its_file_and_keys(refused):
    Path("own.yaml").write_text(
        "float_mac_pj: -1\nmultiply_8x8_pj: x\naccumulate_pj: 0.1\non_chip_pj_per_bit: 1\n"
        "dram_pj_per_bit: 30\non_chip_bytes: 10\n"
    )
    block = "evaluator:\n  name: network\n  settings:\n    device_profile: own.yaml\n    momentum: 3\n"
    place = "s.yaml:9: evaluator.settings.device_profile: own.yaml"
    assert refused(HEAD + block) == [
        f"{place}: float_mac_pj: must be a finite number of at least 0, not -1",
        f"{place}: multiply_8x8_pj: must be a finite number of at least 0, not 'x'",
        "s.yaml:10: evaluator.settings.momentum: must be in [0, 1), not 3",
    ]


def test_a_device_profile_that_is_not_there_is_named_at_its_key_with_no_far_neighbour(refused):
    place = "s.yaml:9: evaluator.settings.device_profile: no file 'nope.yaml' beside the study or in the current folder"
    block = "evaluator:\n  name: network\n  settings:\n    device_profile: nope.yaml\n"
    assert refused(HEAD + block) == [place]  # s.yaml is there, and has only its ending in common
    Path("noper.yaml").write_text("")
    assert refused(HEAD + block) == [f"{place}, did you mean 'noper.yaml'?"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (HEAD + "proposer: {name: ddpg, settings: {hindsight: .nan}}\n", "proposer.settings.hindsight"),
        (HEAD.replace("digits\n", "{name: digits, settings: {mean: [.inf], std: [1]}}\n"), "data.settings.mean[0]"),
    ],
)
def test_a_number_that_is_not_finite_is_one_mistake(text, key, refused):
    (line,) = refused(text)
    assert f"{key}: " in line
    assert "is not allowed (allowed: finite numbers" in line


def test_an_unknown_latency_device_is_refused_whether_or_not_latency_is_asked_for(refused, monkeypatch):
    def find(device: str) -> None:
        raise WorkerError(f"device {device!r}: no node of the Ray cluster declares it (declared: pi5)")

    monkeypatch.setattr(devices, "find_device", find)
    (line,) = refused(HEAD + "evaluator:\n  name: network\n  settings:\n    latency_device: pi4\n")
    assert line.startswith("s.yaml:9: evaluator.settings.latency_device: device 'pi4': no node")


@pytest.mark.parametrize("shorthand", ["", "evaluator: network\n", "evaluator: {name: network, settings: null}\n"])
def test_settings_can_be_set_of_a_part_that_the_study_leaves_out(shorthand, refused):
    (line,) = refused(HEAD + shorthand, "evaluator.settings.momentum=2")
    path = "evaluator.settings.momentum"
    assert line == f"--set {path}=2: {path}: must be in [0, 1), not 2"


def test_without_labels_the_default_objective_is_agreement_in_python_too():
    inputs = torch.zeros(4, 1, 8, 8)
    bare, known = (
        as_data("data", dict.fromkeys(("train", "search", "test"), (inputs, y))) for y in (None, [0, 1, 2, 3])
    )
    assert _first_metric("classification", {"data": bare}) == "agreement"
    assert _first_metric("regression", {"data": bare}) == "teacher_r2"
    assert _first_metric("classification", {"data": known}) == _first_metric("classification", {}) == "top1"
