"""The zoo: sizes against closed forms and published figures, weights that load, mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from automc.core.study import ModelSpec, Part
from automc.errors import ModelError
from automc.evaluation.data import load_data
from automc.evaluation.entries import ZOO
from automc.evaluation.zoo import load_model


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one input, counted here by hooks, with nothing from automc."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        counts.append(output.numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, *shape))
    return sum(counts)


def resnet_parameters(blocks: int, option_b: bool) -> int:
    """9 c^2 a convolution, 2 c a batch norm, 650 the linear layer; option B c_in c_out + 2 c_out a stage."""
    total = 3 * 16 * 9 + 2 * 16 + 64 * 10 + 10
    for stage, width in enumerate((16, 32, 64)):
        before = width if stage == 0 else width // 2
        total += 9 * before * width + 9 * width * width * (2 * blocks - 1) + 2 * width * 2 * blocks
        total += before * width + 2 * width if option_b and stage else 0
    return total


@pytest.mark.parametrize(
    ("depth", "known"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_resnets_have_the_published_number_of_parameters(depth: int, known: int) -> None:
    model = load_model(ModelSpec(f"resnet{depth}"))
    assert parameters(model) == known == resnet_parameters((depth - 2) // 6, option_b=False)
    wide = load_model(ModelSpec(f"resnet{depth}", {"shortcut": "B"}))
    assert parameters(wide) == resnet_parameters((depth - 2) // 6, option_b=True)


def test_resnet20_macs_are_the_published_40_55_million() -> None:
    assert macs(load_model(ModelSpec("resnet20")), (3, 32, 32)) == 40_551_040
    assert macs(load_model(ModelSpec("plain20")), (3, 32, 32)) == 40_551_040


@pytest.mark.parametrize(
    ("name", "classes", "known"),
    [("vgg16_bn", 10, 14_728_266), ("mobilenet_v2", 1000, 3_504_872), ("plain20", 10, 269_722)],
)
def test_other_networks_have_the_published_number_of_parameters(name: str, classes: int, known: int) -> None:
    assert parameters(load_model(ModelSpec(name, {"num_classes": classes}))) == known


@pytest.mark.parametrize("name", list(ZOO))
def test_every_network_gives_scores_per_class_and_is_repeatable(name: str) -> None:
    one, two = load_model(ModelSpec(name, {"num_classes": 7})), load_model(ModelSpec(name, {"num_classes": 7}))
    inputs = torch.randn(2, *ZOO[name].input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = one(inputs)
    assert found.shape == (2, 7)
    assert not one.training
    assert torch.equal(found, two(inputs))
    assert "num_classes" not in ZOO[name].doc
    assert ZOO[name].doc


def test_option_a_shortcut_is_the_subsampled_input_between_zeros() -> None:
    block = load_model(ModelSpec("resnet20")).layer2[0]  # type: ignore[index,operator]
    x = torch.randn(1, 16, 8, 8)
    found = block.shortcut(x)
    assert torch.equal(found[:, 8:24], x[:, :, ::2, ::2])
    assert found.shape == (1, 32, 4, 4)
    assert found[:, :8].abs().sum() + found[:, 24:].abs().sum() == 0


def test_bundled_digits_network_is_small_and_reaches_its_accuracy() -> None:
    model, data = load_model(ModelSpec("digits_net")), load_data(Part("digits"))
    assert 60_000 <= parameters(model) <= 150_000
    test = data.split("test")
    with torch.inference_mode():
        top1 = float((model(data.normalise(test.inputs)).argmax(1) == test.targets).float().mean())
    assert top1 >= 0.985


def test_loading_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    load_model(ModelSpec("plain20"))
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.shared
def test_public_resnet20_weights_reach_their_accuracy(shared: Path) -> None:
    weights = shared / "models" / "cifar10_resnet20.safetensors"
    model = load_model(ModelSpec("resnet20", {}, str(weights)))
    train = str(shared / "data" / "cifar10-jpeg" / "train.parquet")
    normal = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    data = load_data(Part("parquet", {"train": train, "search": [45_000, 50_000], "search_limit": 1000, **normal}))
    split = data.split("search")
    with torch.inference_mode():
        outputs = torch.cat([model(data.normalise(part)) for part in split.inputs.split(100)])
    top1 = float((outputs.argmax(1) == split.targets).float().mean())
    # 0.928 on all 5,000 rows; a sample of 1,000 has a standard error of 0.008.
    assert abs(top1 - 0.928) < 0.02
    assert dict(data.openings) == {"search": 1}


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return dict(load_model(ModelSpec("plain20")).state_dict())


def spoiled(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    if how == "unknown":
        weights["layer1.0.conv9.weight"] = weights.pop("layer1.0.conv1.weight")
    elif how == "missing":
        del weights["linear.bias"]
    elif how == "shape":
        weights["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    elif how == "nan":
        weights["bn1.bias"] = torch.full((16,), np.nan)
    return weights


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unknown", "'layer1.0.conv9.weight' is no tensor of the model, did you mean 'layer1.0.conv1.weight'"),
        ("missing", "no 'linear.bias', which the model needs"),
        ("shape", r"'conv1.weight': the file has shape \(16, 1, 3, 3\), the model \(16, 3, 3, 3\)"),
        ("nan", "'bn1.bias' holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_that_do_not_fit(
    weights: dict[str, Tensor], how: str, message: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{suffix}"
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    save(spoiled(weights, how), path)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(ModelSpec("plain20", {}, str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pt", "pth", "th"])
def test_wrapped_weights_of_data_parallel_training_load(
    weights: dict[str, Tensor], suffix: str, tmp_path: Path
) -> None:
    weights = {key: value + 1 if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, tmp_path / f"w.{suffix}")
    found = load_model(ModelSpec("plain20", {}, f"w.{suffix}"), tmp_path).state_dict()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("kept", [0, 7, 5000])
def test_truncated_weights(weights: dict[str, Tensor], suffix: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(weights, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"unreadable or truncated|refused") as caught:
        load_model(ModelSpec("plain20", {}, str(path)))
    assert "\n" not in str(caught.value)


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return (Path.touch, (Path(tmp_path / "ran"),))  # type: ignore[return-value]

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="refused by the weights-only loader") as caught:
        load_model(ModelSpec("plain20", {}, str(tmp_path / "evil.pt")))
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "must hold a state dict"),
        ({}, "must hold a state dict"),
        ({"a": 1}, "'a' must be a tensor, not int"),
    ],
)
def test_files_without_a_state_dict(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        load_model(ModelSpec("plain20", {}, str(tmp_path / "w.pt")))


MODELS = """
import torch.nn.functional as F
from torch import nn

class Lambda(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f
    def forward(self, x):
        return self.f(x)

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.shortcut = Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, width - 2)))
        self.fc = nn.Linear(width, 10)
    def forward(self, x):
        return self.fc((self.conv(x)[:, :, ::2, ::2] + self.shortcut(x)).mean((2, 3)))

def build(width=4):
    return Net(width)
def needs(width):
    return Net(width)
def broken():
    raise RuntimeError("no luck\\nat all")
def nothing():
    return None
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(MODELS)
    (tmp_path / "bad.py").write_text("import no_such_library_at_all\n")
    package = tmp_path / "userpackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(MODELS)
    return tmp_path


@pytest.mark.parametrize("name", ["nets.py:build", "userpackage.models:build"])
def test_user_models_are_found_beside_the_study(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("")
    model = load_model(ModelSpec(name, {"width": 6}), folder)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert parameters(model) == 6 * 10 + 6 * 10 + 10


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnt20", {}, "unknown model 'resnt20', did you mean 'resnet20'"),
        ("resnet20", {"num_clases": 3}, "unknown setting 'num_clases', did you mean 'num_classes'"),
        ("resnet20", {"shortcut": "C"}, "the factory raised ValueError: shortcut must be one of A, B, none, not 'C'"),
        ("nets.py:biuld", {}, "nets.py has no 'biuld', did you mean 'build'"),
        ("nets.py:needs", {}, "missing a required argument: 'width'"),
        ("nets.py:broken", {}, "the factory raised RuntimeError: no luck$"),
        ("nets.py:nothing", {}, "must return an nn.Module, not NoneType"),
        ("nets.py:number", {}, "number must be callable, not int"),
        ("nets.py:", {}, "must read package.module:factory or file.py:factory"),
        ("absent.py:build", {}, r"absent.py: no such file \(looked in /[^ ]+ and /[^ ]+\)$"),
        ("/no/absent.py:build", {}, "^/no/absent.py: no such file$"),
        ("bad.py:build", {}, "importing it raised ModuleNotFoundError: No module named 'no_such_library_at_all'"),
        ("no.such.module:build", {}, "no.such.module: no such module"),
        ("torch.nope:build", {}, "torch.nope: no such module"),
    ],
)
def test_mistakes_get_one_line(name: str, settings: dict[str, object], message: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(ModelSpec(name, settings), folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("path", "message"), [("absent.pt", "no such file"), ("w.bin", "the suffix must be one of")])
def test_weights_that_are_not_there(path: str, message: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(ModelSpec("plain20", {}, path), folder)
