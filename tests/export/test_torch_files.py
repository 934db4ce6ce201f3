"""Format torch: a process that has the folder, torch and safetensors runs model.py; automc cannot be imported there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file
from test_export_families import FAMILIES, outputs
from test_load import Odd, rounded
from torch import nn

from automc.errors import ModelError
from automc.export.formats import FORMATS, Source
from automc.export.torch import files as torch_files

torch.set_num_threads(1)

ALONE = """
import sys
sys.path[0:0] = [sys.argv[1]]
class No:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "automc":
            raise ImportError(name)
sys.meta_path.insert(0, No())
import torch, model
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
network = model.load()
assert not network.training
with torch.no_grad():
    found = network(load_file("x")["x"])
if torch.is_tensor(found):
    found = {"output": found}
save_file({name: y.contiguous() for name, y in found.items()}, "y")
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_script_runs_alone_and_gives_the_same(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rounded(family, "4 bits")
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(torch_files, "_try", lambda *_: None)  # the same again, once for all families below
    torch_files.write(folder, source)
    assert {path.name for path in folder.iterdir()} == set(FORMATS["torch"].files)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # weights are no secret
    save_file({"x": source.example}, tmp_path / "x")
    command = [sys.executable, "-I", "-c", ALONE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, wanted = safetensors.numpy.load_file(tmp_path / "y"), outputs(source.baked.model, source.example)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.array_equal(found[name], array), name
    text = (folder / "model.py").read_text()
    assert max(map(len, text.splitlines())) <= 120
    assert "torch.ops" not in text or family in ("lstm", "unet", "shufflenet", "vit", "bert", "resnet_a", "densenet")
    assert ast.get_docstring(ast.parse(text))


def test_odd_names_constants_and_nested_outputs_are_written(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ModuleDict({"class": nn.Linear(6, 6)})["class"], Odd()).eval()
    torch_files.write(tmp_path, Source(model, torch.randn(3, 6)))  # which tries script and program
    text = (tmp_path / "model.py").read_text()
    assert "self[0].weight" in text
    assert "return {'a': (" in text


def test_a_script_that_gives_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(nn.Linear(3, 2), torch.randn(2, 3))
    written = torch_files.source_of
    monkeypatch.setattr(torch_files, "source_of", lambda *a: written(*a).replace("F.linear(x", "F.linear(2 * x"))
    with pytest.raises(ModelError, match=r"Linear: model.py gives other outputs; leave out --format torch"):
        torch_files.write(tmp_path, source)
    monkeypatch.setattr(torch_files, "source_of", lambda *a: "import nothing_like_it")
    with pytest.raises(ModelError, match=r"does not run: ModuleNotFoundError: No module named 'nothing_like_it'"):
        torch_files.write(tmp_path, source)
    assert not list(tmp_path.glob(".*"))
