"""Repair checkpoints: a repair that was killed anywhere goes on there and ends with the very same bits."""

from __future__ import annotations

import copy
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec, Part, StudySpec
from automc.errors import SpecError
from automc.evaluation import bookmarks
from automc.evaluation.bookmarks import Bookmark, Bookmarks, BookmarkSettings
from automc.evaluation.building import Builder
from automc.evaluation.data import Data
from automc.evaluation.evaluator import prepare
from automc.evaluation.finetune import Recipe, Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.state import digest, dumps, loads, put_back, taken
from automc.evaluation.tasks.classification import Classification

ORDER = ("prune", "sparsify", "quantize", "distill")
STEPS = 10
ALWAYS = 1e-9
"""Seconds: a checkpoint after every step."""


@pytest.fixture(autouse=True)
def _however_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookmarks, "DEAREST", 0)


class Killed(Exception):
    """What ends a repair in the middle here."""


def quiet(step: int, value: float) -> bool:
    return True


def until(step: int) -> Any:
    def monitor(now: int, value: float) -> bool:
        if now > step:
            raise Killed
        return True

    return monitor


@pytest.fixture(scope="module")
def builder() -> Builder:
    spec = StudySpec("study", ModelSpec("digits_net"), Part("digits"), (), ORDER, (Objective("top1"),))
    return prepare(spec)._builder


def everywhere(builder: Builder, **chosen: Value) -> Policy:
    """Half the channels, half the weights that stay, four bits, in the first layers; and these settings."""
    table = builder.trace.table
    values: dict[Site, Value] = {Site("prune", group.name, "prune_ratio"): 0.5 for group in table.groups[:2]}
    for layer in table.layers[:4]:
        values[Site("sparsify", layer.name, "sparsity")] = 0.5
        values[Site("quantize", layer.name, "weight_bits")] = 4
        values[Site("quantize", layer.name, "activation_bits")] = 4
        for name in ("qat", "weight_format", "granularity"):
            if name in chosen:
                values[Site("quantize", layer.name, name)] = chosen[name]
        if "regrow" in chosen:
            values[Site("sparsify", layer.name, "regrow")] = chosen["regrow"]
    kd = {name: value for name, value in chosen.items() if name.startswith("kd_")}
    return Policy(values | {Site("distill", "*", name): value for name, value in kd.items()})


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in taken(model).items()}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


CASES: list[tuple[dict[str, Any], dict[str, Value]]] = [
    ({"optimizer": "sgd", "ema": 0.9}, {"regrow": True, "kd_alpha": 0.5}),
    ({"optimizer": "adamw", "augment": "shift"}, {"qat": "lsq", "kd_features": "hint"}),
    ({"ema": 0.9}, {"qat": "incremental", "kd_alpha": 0.5, "kd_teacher": "self"}),
    ({"optimizer": "adamw"}, {"qat": "pact", "granularity": "tensor", "kd_alpha": 0.9, "kd_teacher": "assistant"}),
    ({"precision": "bfloat16"}, {"weight_format": "codebook", "kd_features": "fsp", "kd_teacher": "self"}),
]


@pytest.mark.parametrize(("recipe", "chosen"), CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_a_repair_that_was_killed_goes_on_with_the_same_bits(
    builder: Builder, tmp_path: Path, recipe: dict[str, Any], chosen: dict[str, Value]
) -> None:
    device = replace(builder.repair.device, **{k: recipe[k] for k in recipe if k == "precision"})
    own = Recipe(reports=STEPS, batch_size=32, **{k: v for k, v in recipe.items() if k != "precision"})
    made = replace(builder, repair=replace(builder.repair, recipe=own, device=device))
    policy, heard = everywhere(builder, **chosen), {"whole": [], "again": []}

    def monitor(which: str) -> Any:
        return lambda step, value: heard[which].append((step, value)) or True

    whole = made(policy, ORDER, STEPS, 7, monitor("whole"))
    lines: list[str] = []
    marks = Bookmarks(tmp_path, ALWAYS, lines.append)
    marks.begin(policy, 1)
    with pytest.raises(Killed):  # behind the assistant's three steps
        made(policy, ORDER, STEPS, 7, until(random.Random(str(chosen)).randrange(5, STEPS - 1)), marks)
    again = made(policy, ORDER, STEPS, 7, monitor("again"), marks)
    assert equal(tensors(again.model), tensors(whole.model))
    assert heard["again"] == heard["whole"]
    assert [line for line in lines if "goes on at step" in line]
    assert not [line for line in lines if "ignored" in line]
    marks.forget(policy, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def noisy(teacher: nn.Module) -> nn.Module:
    """A network with dropout, so that the repair draws random numbers in every step."""
    model = copy.deepcopy(teacher)
    return nn.Sequential(model, nn.Dropout(0.2)).eval()


def bookmark(path: Path, lines: list[str]) -> Bookmark:
    return Bookmark(path, ALWAYS, lines.append)


def test_dropout_goes_on_with_the_numbers_it_would_have_drawn(data: Data, noisy: nn.Module, tmp_path: Path) -> None:
    repair = Repair(data, Classification(), Recipe(reports=STEPS))
    whole, broken, again = (copy.deepcopy(noisy) for _ in range(3))
    repair(whole, Lesson(noisy), STEPS, 3, quiet)
    with pytest.raises(Killed):
        repair(broken, Lesson(noisy), STEPS, 3, until(7), bookmark(tmp_path / "x.repair", []))
    lines: list[str] = []
    torch.manual_seed(11)
    repair(again, Lesson(noisy), STEPS, 3, quiet, bookmark(tmp_path / "x.repair", lines))
    assert equal(tensors(again), tensors(whole))
    assert lines == [f"repair goes on at step 7 of {STEPS}"]
    drawn = torch.rand(3)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(11)))


def begun(data: Data, model: nn.Module, path: Path, **changes: Any) -> list[str]:
    """The lines that a repair of one more step says that finds this file; it must run whatever lies there."""
    lines: list[str] = []
    recipe = Recipe(reports=STEPS, **changes)
    Repair(data, Classification(), recipe)(copy.deepcopy(model), Lesson(model), STEPS, 3, quiet, bookmark(path, lines))
    return lines


@pytest.fixture
def written(data: Data, teacher: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "x.repair"
    repair = Repair(data, Classification(), Recipe(reports=STEPS))
    with pytest.raises(Killed):
        repair(copy.deepcopy(teacher), Lesson(teacher), STEPS, 3, until(5), bookmark(path, []))
    return path


def damages(content: bytes) -> Iterator[bytes]:
    """Torn, empty, foreign, with one bit turned in the tensors, in the header, and a pickle."""
    draw = random.Random(0)
    yield from (content[:cut] for cut in (0, 1, 8, 100, len(content) // 2, len(content) - 1))
    for place in (draw.randrange(2000, len(content)), len(content) - 1, 60, 3):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    yield b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."
    yield safetensors.torch.save({"a": torch.ones(3)}, {"state": "[]"})
    yield safetensors.torch.save({"a": torch.ones(3)})


def test_a_torn_or_foreign_file_is_ignored_with_one_line(data: Data, teacher: nn.Module, written: Path) -> None:
    content = written.read_bytes()
    for damaged in damages(content):
        written.write_bytes(damaged)
        lines: list[str] = []
        assert Bookmark(written, ALWAYS, lines.append).opened("key") is None
        assert len(lines) == 1
        assert "is ignored: " in lines[0]
        assert "\n" not in lines[0]
    assert len(begun(data, teacher, written)) == 1, "the repair runs all the same"
    written.unlink()
    written.mkdir()
    (line, refused) = begun(data, teacher, written)
    assert "is ignored: IsADirectoryError" in line
    assert "cannot be written, the repair goes on" in refused


@pytest.mark.parametrize("changes", [{"momentum": 0.8}, {"batch_size": 50}, {"ema": 0.5}])
def test_a_stale_one_is_ignored(data: Data, teacher: nn.Module, written: Path, changes: dict[str, Any]) -> None:
    (line,) = begun(data, teacher, written, **changes)
    assert line.endswith("is ignored: it is of another model, data set, recipe or torch")


def test_another_model_makes_it_stale_and_the_same_one_does_not(data: Data, teacher: nn.Module, written: Path) -> None:
    assert begun(data, teacher, written) == [f"repair goes on at step 5 of {STEPS}"]
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    (line,) = begun(data, other, written)
    assert "is ignored" in line


def test_a_full_disk_is_said_once_and_the_repair_goes_on(data: Data, teacher: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (ignored, line) = begun(data, teacher, tmp_path / "file" / "x.repair")
    assert "NotADirectoryError" in ignored
    assert "cannot be written, the repair goes on" in line


def test_nothing_is_written_before_it_is_time_or_where_nobody_wants_it(builder: Builder, tmp_path: Path) -> None:
    policy = everywhere(builder)
    for marks in (Bookmarks(tmp_path, 3600.0), Bookmarks(tmp_path, 0.0), Bookmarks(None)):
        marks.begin(policy, 1)
        builder(policy, ORDER, 3, 7, quiet, marks)
    assert list(tmp_path.iterdir()) == []
    assert Bookmarks(tmp_path, 0.0).of("student") is None
    with pytest.raises(SpecError, match=r"evaluator\.settings\.checkpoint_s: must be at least 0; 0: never, not -1"):
        BookmarkSettings(-1)


def test_a_dear_one_is_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = bookmark(tmp_path / "x.repair", [])
    for dearest, due in ((0, True), (1e9, False)):
        monkeypatch.setattr(bookmarks, "DEAREST", dearest)
        mark.write({"step": 1})
        assert mark.due == due


def test_the_next_trial_forgets_the_one_before_and_no_other(tmp_path: Path) -> None:
    marks = Bookmarks(tmp_path, ALWAYS, print)
    first, second = Policy({Site("prune", "a", "prune_ratio"): 0.5}), Policy({Site("prune", "a", "prune_ratio"): 0.25})
    for policy, rung in ((first, 1), (first, 2), (second, 1)):
        Bookmarks(tmp_path, ALWAYS, print, _open=f"{policy.fingerprint}-{rung}").of("student").write({"step": 1})  # type: ignore[union-attr]
    marks.begin(first, 1)
    marks.begin(first, 1)
    assert len(list(tmp_path.iterdir())) == 3, "a second attempt needs it"
    marks.begin(second, 1)
    assert sorted(path.name.split("-")[1] for path in tmp_path.iterdir()) == ["1", "2"]
    marks.forget(second, 1)
    assert [path.name.split("-")[1] for path in tmp_path.iterdir()] == ["2"]
    (old,) = tmp_path.iterdir()
    os.utime(old, (0, time.time() - 6 * 86_400))
    marks.begin(second, 1)
    assert old.exists()
    os.utime(old, (0, time.time() - 8 * 86_400))
    marks.begin(second, 1)
    assert not old.exists(), "nobody will come for it"


def test_states_come_back_as_they_were() -> None:
    wide = torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last)
    state = {
        "a": [1, 0.1, None, "x", True, float("inf"), {7: wide, "empty": torch.empty(0, 3)}],
        "b": {"half": torch.ones(3, dtype=torch.bfloat16), "flag": torch.tensor([True, False]), "one": torch.tensor(2)},
    }
    found = loads(dumps(state))
    assert found["a"][:6] == state["a"][:6]
    again = found["a"][6][7]
    assert torch.equal(again, wide)
    assert again.stride() == wide.stride()
    again += 1
    assert digest(*found["b"].values()) == digest(*state["b"].values())
    assert found["a"][6]["empty"].shape == (0, 3)


def test_buffers_that_two_names_share_stay_one() -> None:
    model = nn.Module()
    model.one, model.two = nn.Module(), nn.Module()
    shared = torch.zeros(2)
    model.one.register_buffer("x", shared, persistent=False)
    model.two.register_buffer("x", shared)
    put_back(model, {"one.x": torch.ones(2)})
    assert model.one.x is model.two.x
    assert model.two.x.tolist() == [1, 1]
    assert shared.tolist() == [0, 0]


def repairing(data: Data, teacher: nn.Module, path: Path) -> int:
    """The id of a forked process that repairs for ever."""
    pid = os.fork()
    if pid == 0:
        try:
            repair = Repair(data, Classification(), Recipe(augment="shift", ema=0.9))
            repair(copy.deepcopy(teacher), Lesson(None), 100_000, 3, quiet, bookmark(path, []))
        finally:
            os._exit(1)
    return pid


def test_sigkill_leaves_a_whole_file_at_any_moment(data: Data, teacher: nn.Module, tmp_path: Path) -> None:
    """Real processes that write after every step; each attempt gets further than the one before."""
    path, reached, draw = tmp_path / "x.repair", 0, random.Random(0)
    for _ in range(6):
        pid = repairing(data, teacher, path)
        written = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == written:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        step = loads(path.read_bytes())["state"]["step"]
        assert step > reached
        reached = step
