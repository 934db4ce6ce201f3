"""Studies given as Python data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automc.app.config import check_space, read_study, study_from
from automc.app.writer import to_yaml
from automc.core.layers import Group, Layer, LayerTable
from automc.core.study import Budget, ModelSpec
from automc.errors import SpecError

DOCUMENT: dict[str, Any] = {
    "name": "call",
    "model": {"name": "digits_net", "settings": {"widths": (8, 16)}},
    "data": "digits",
    "space": {"rules": [{"operator": "prune", "settings": {"prune_ratio": (0.0, 0.5)}}]},
    "objectives": {"top1": "maximize"},
}


def test_python_data_gives_the_spec_its_file_would(tmp_path: Path) -> None:
    study = study_from(DOCUMENT, "automc.search()")
    path = tmp_path / "study.yaml"
    path.write_text(to_yaml(study.spec), encoding="utf-8")
    assert read_study(path).spec == study.spec
    assert study.spec.model.settings == {"widths": [8, 16]}


def test_numbers_of_numpy_and_paths_are_plain_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pt").touch()
    model = {"name": "digits_net", "weights": Path("w.pt")}
    budget = {"trials": np.int64(3), "seconds": np.float32(0.5)}
    spec = study_from({**DOCUMENT, "model": model, "budget": budget}, "here").spec
    assert spec.budget == Budget(3, 0.5)
    assert [type(value) for value in (spec.budget.trials, spec.budget.seconds)] == [int, float]
    assert spec.model == ModelSpec("digits_net", {}, "w.pt")


def test_a_bundled_space_may_be_named() -> None:
    assert len(study_from({**DOCUMENT, "space": "joint"}, "here").spec.rules) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "automc.search(): seed: -1 is not allowed (allowed: a whole number from 0 to 4294967295)"),
        ({"sede": 1}, "automc.search(): unknown key 'sede' (allowed: "),
        ({"space": "jiont"}, "automc.search(): space: no search space 'jiont' (bundled: "),
        ({"constraints": [object()]}, "automc.search(): constraints[0]: must be plain data, not object"),
        ({"budget": {"trials": np.nan}}, "automc.search(): budget.trials: nan is not allowed"),
    ],
)
def test_mistakes_name_the_call(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        study_from({**DOCUMENT, **change}, "automc.search()")
    assert str(caught.value).split("\n")[0].startswith(message)


def test_data_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SpecError, match=r"^here: rungs\[0\].*: nested more than 20 levels deep$"):
        study_from({**DOCUMENT, "rungs": loop}, "here")


def test_a_rule_that_fits_nothing_names_the_call() -> None:
    layer = Layer("fc", 0, "linear", 4, 4, (), (), (4,), 20, 16, "fc")
    table = LayerTable((layer,), (Group("fc", 4, ("fc",), ()),))
    rules = [{"operator": "prune", "layers": "cf"}]
    with pytest.raises(SpecError, match=r"^here: space\.rules\[0\]: prune: the model has no layer 'cf'"):
        check_space(study_from({**DOCUMENT, "space": {"rules": rules}}, "here"), table)
