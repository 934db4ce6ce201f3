"""Data: splits that never overlap, a test split that stays shut, and what unreadable files get."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from automc.core.metrics import Objective
from automc.core.study import ModelSpec, Part, StudySpec
from automc.errors import DataError, SpecError
from automc.evaluation.data import Data, load_data
from automc.evaluation.entries import DATA
from automc.evaluation.evaluator import prepare
from automc.evaluation.readers.user import as_data
from automc.evaluation.splits import SPLITS, Split

SPEC = StudySpec("study", ModelSpec("given"), Part("given"), (), ("quantize",), (Objective("top1"),))


def encoded(value: int, size: tuple[int, int] = (8, 8), form: str = "PNG", mode: str = "RGB") -> bytes:
    """An image of one colour, so that its decoded pixels are known."""
    out = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(out, form)
    return out.getvalue()


def write_parquet(path: Path, values: list[int], columns: tuple[str, str] = ("img", "label"), group: int = 7) -> None:
    cells = [{"bytes": encoded(value), "path": None} for value in values]
    pq.write_table(pa.table({columns[0]: cells, columns[1]: [v % 3 for v in values]}), path, row_group_size=group)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "train.parquet", list(range(50)))
    write_parquet(tmp_path / "test.parquet", list(range(100, 120)))
    return tmp_path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split, count in (("train", 20), ("test", 5)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.png").write_bytes(encoded(100 * label + i))
    return tmp_path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, rows in (("train", 40), ("test", 10)):
        arrays[f"x_{split}"] = draw.integers(0, 256, (rows, 1, 8, 8), dtype=np.uint8)
        arrays[f"y_{split}"] = draw.integers(0, 4, rows)
    arrays["y_train"][0] = 3
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def rows(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in split.inputs}


def sizes(data: Data) -> dict[str, int]:
    return {name: len(data.split(name)) for name in SPLITS}


def test_digits_are_split_once_and_for_all() -> None:
    data = load_data(Part("digits"))
    assert sizes(data) == {"train": 988, "calibration": 256, "search": 359, "test": 450}
    assert (data.classes, data.input_shape) == (10, (1, 8, 8))
    # One permutation: no scan is in two splits (the 1,797 scans are all different).
    assert len(rows(data.split("train")) | rows(data.split("search")) | rows(data.split("test"))) == 1797
    assert torch.equal(data.split("calibration").inputs, data.split("train").inputs[:256])
    for name in SPLITS:
        assert set(data.split(name).targets.tolist()) == set(range(10))
    normal = data.normalise(data.split("train").inputs)
    assert normal.dtype == torch.float32
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02


def test_digests_are_those_of_the_bytes_and_repeat() -> None:
    one, two = load_data(Part("digits")), load_data(Part("digits"))
    split = one.split("search")
    found = hashlib.sha256()
    for array in (split.inputs.numpy(), split.targets.numpy()):
        found.update(f"{array.shape} {array.dtype.str}".encode() + array.tobytes())
    assert one.digest("search") == two.digest("search") == found.hexdigest()
    assert one.digest("search") != one.digest("test")


def test_parquet_splits(parquet: Path) -> None:
    data = load_data(Part("parquet", {"train": "train.parquet", "test": "test.parquet"}), parquet)
    assert sizes(data) == {"train": 45, "calibration": 45, "search": 5, "test": 20}
    red = [image[0, 0, 0].item() for image in data.split("search").inputs]
    assert red == [45, 46, 47, 48, 49]
    assert data.split("search").targets.tolist() == [v % 3 for v in red]
    assert data.split("test").inputs[0, :, 0, 0].tolist() == [100, 0, 155]
    assert (data.classes, data.input_shape) == (3, (3, 8, 8))


def test_a_search_range_in_the_middle_is_held_out_of_train(parquet: Path) -> None:
    settings = {"train": "train.parquet", "search": [10, 31], "search_limit": 4, "calibration": 12}
    data = load_data(Part("parquet", settings), parquet)
    assert [v[0, 0, 0].item() for v in data.split("search").inputs] == [10, 11, 12, 13]
    assert [v[0, 0, 0].item() for v in data.split("train").inputs] == [*range(10), *range(31, 50)]
    assert [v[0, 0, 0].item() for v in data.split("calibration").inputs] == [*range(10), 31, 32]


def test_row_ranges_decode_nothing_else(parquet: Path) -> None:
    table = pq.read_table(parquet / "train.parquet")
    cells = [
        cell if 44 <= i < 46 else {"bytes": b"no image", "path": None}
        for i, cell in enumerate(table["img"].to_pylist())
    ]
    pq.write_table(pa.table({"img": cells, "label": table["label"]}), parquet / "train.parquet", row_group_size=7)
    data = load_data(Part("parquet", {"train": "train.parquet", "search": [44, 46]}), parquet)
    assert len(data.split("search")) == 2
    with pytest.raises(DataError, match=r"row 0 of the split: unreadable or truncated image \(8 bytes\)"):
        data.split("train")


def test_normalisation_is_per_channel(parquet: Path) -> None:
    settings = {"train": "train.parquet", "mean": [0.5, 0.25, 0.0], "std": [0.5, 0.25, 1.0]}
    data = load_data(Part("parquet", settings), parquet)
    pixel = data.normalise(data.split("search").inputs)[0, :, 0, 0].tolist()
    assert pixel == pytest.approx([(45 / 255 - 0.5) / 0.5, -1.0, 210 / 255])


def test_folder_splits(images: Path) -> None:
    data = load_data(Part("folder", {"path": str(images)}))
    assert sizes(data) == {"train": 36, "calibration": 36, "search": 4, "test": 10}
    assert not rows(data.split("train")) & rows(data.split("search"))
    for name in SPLITS:
        split = data.split(name)
        red = split.inputs[:, 0, 0, 0]
        assert torch.equal((red >= 100).long(), split.targets)
    assert set(data.split("train").head(12).targets.tolist()) == {0, 1}


def test_a_folder_with_its_own_search_split(images: Path) -> None:
    (images / "train").rename(images / "search")
    for name in ("cat", "dog"):
        (images / "train" / name).mkdir(parents=True)
        (images / "train" / name / "a.jpg").write_bytes(encoded(7, form="JPEG"))
    assert sizes(load_data(Part("folder", {"path": str(images)}))) == {
        "train": 2,
        "calibration": 2,
        "search": 40,
        "test": 10,
    }


def test_grey_images_keep_one_channel_and_sizes_can_be_made_equal(tmp_path: Path) -> None:
    for name, size in (("a", (8, 8)), ("b", (12, 6))):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "train" / name / f"{i}.png").write_bytes(encoded(9, size, mode="L"))
    with pytest.raises(DataError, match=r"shape \(1, 6, 12\), but the first|shape \(1, 8, 8\), but the first"):
        load_data(Part("folder", {"path": str(tmp_path)})).split("train")
    assert load_data(Part("folder", {"path": str(tmp_path), "size": [10, 4]})).input_shape == (1, 10, 4)


def test_npz_splits(npz: Path) -> None:
    data = load_data(Part("npz", {"path": str(npz)}))
    assert sizes(data) == {"train": 36, "calibration": 36, "search": 4, "test": 10}
    with np.load(npz) as archive:
        assert np.array_equal(data.split("search").inputs.numpy(), archive["x_train"][36:])
        assert np.array_equal(data.split("test").targets.numpy(), archive["y_test"])
    assert data.facts.scale == 255


def test_npz_with_one_pair_has_no_test_split_of_its_own(tmp_path: Path) -> None:
    x, y = np.linspace(0, 1, 60).reshape(20, 3), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", inputs=x, targets=y)
    np.savez(tmp_path / "b.npz", inputs=x[:5] + 1, targets=y[:5])
    data = load_data(Part("npz", {"path": "a.npz"}), tmp_path)
    assert len(data.split("train")) == 18
    assert torch.equal(data.normalise(data.split("search").inputs), torch.from_numpy(x[18:]).float())
    with pytest.raises(DataError, match="needs arrays x_test and y_test, or give test"):
        data.split("test")
    assert len(load_data(Part("npz", {"path": "a.npz", "test": "b.npz"}), tmp_path).split("test")) == 5


def test_npz_never_unpickles(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    np.savez(tmp_path / "a.npz", x_train=np.array([Evil()], dtype=object), y_train=np.zeros(1, dtype=np.int64))
    with pytest.raises(DataError, match="'x_train' is unreadable, truncated or pickled"):
        load_data(Part("npz", {"path": str(tmp_path / "a.npz")}))
    assert not (tmp_path / "ran").exists()


FACTORY = """
import numpy as np

def splits(rows=20, lazy=False):
    def make(seed):
        return np.random.default_rng(seed).normal(size=(rows, 1, 8, 8)).astype("float32"), np.arange(rows) % 2
    if lazy:
        def shut():
            raise RuntimeError("test was opened")
        return {"train": lambda: make(0), "search": lambda: make(1), "test": shut}
    return {"train": make(0), "search": make(1), "test": make(2)}

def nothing():
    return {"train": ([], [])}
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FACTORY)
    return tmp_path


def test_user_factories(factory: Path) -> None:
    data = load_data(Part("mine.py:splits", {"rows": 30, "calibration": 4}), factory)
    assert sizes(data) == {"train": 30, "calibration": 4, "search": 30, "test": 30}
    assert data.classes == 2
    with pytest.raises(DataError, match="must be a Data or a dict with train, search, test, not no 'search'"):
        load_data(Part("mine.py:nothing"), factory)
    lazy = load_data(Part("mine.py:splits", {"lazy": True}), factory)
    assert len(lazy.split("search")) == 20
    with pytest.raises(DataError, match="the factory raised RuntimeError: test was opened"):
        lazy.split("test")


def test_arrays_and_functions_as_splits() -> None:
    x, y = np.zeros((6, 2, 4, 4), dtype=np.uint8) + 51, np.arange(6) % 3

    def shut() -> tuple[Any, Any]:
        raise AssertionError("test was opened")

    data = as_data("mine", {"train": (torch.from_numpy(x), torch.from_numpy(y)), "search": (x, y), "test": shut})
    assert (data.classes, data.input_shape) == (3, (2, 4, 4))
    assert torch.equal(data.normalise(data.split("search").inputs), torch.full((6, 2, 4, 4), 0.2))
    for splits, message in (([1], "not list"), ({"train": (x, y)}, "not no 'search'")):
        with pytest.raises(DataError, match=message):
            as_data("mine", splits)
    empty = {"train": (x[:0], y[:0]), "search": (x, y), "test": (x, y)}
    with pytest.raises(DataError, match="mine: the train split is empty"):
        as_data("mine", empty)


@pytest.mark.parametrize("kind", ["parquet", "folder", "npz"])
def test_nothing_but_split_test_opens_the_test_file(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Train and search work with an unreadable test file; asking for it is what fails."""
    request.getfixturevalue({"parquet": "parquet", "folder": "images", "npz": "npz"}[kind])
    settings: dict[str, Any] = {"parquet": {"train": "train.parquet", "test": "test.parquet"}}.get(kind, {"path": "."})
    if kind == "npz":
        (tmp_path / "other.npz").write_bytes(b"PK no archive")
        settings = {"path": "data.npz", "test": "other.npz"}
    elif kind == "parquet":
        (tmp_path / "test.parquet").write_bytes((tmp_path / "test.parquet").read_bytes()[:-9])
    else:
        (tmp_path / "test" / "cat" / "0.png").write_bytes(b"\x89PNG truncated")
    data = load_data(Part(kind, settings), tmp_path)
    for name in ("calibration", "search", "train"):
        assert len(data.split(name))
    assert data.openings["test"] == 0
    with pytest.raises(DataError, match="unreadable or truncated"):
        data.split("test")
    assert data.openings["test"] == 1


def test_a_missing_test_file_does_not_matter_before_it_is_asked_for(parquet: Path) -> None:
    data = load_data(Part("parquet", {"train": "train.parquet", "test": "gone.parquet"}), parquet)
    assert len(data.split("train")) == 45
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        data.split("test")
    with pytest.raises(DataError, match="there is no test file"):
        load_data(Part("parquet", {"train": "train.parquet"}), parquet).split("test")


def test_a_split_is_read_once(parquet: Path) -> None:
    data = load_data(Part("parquet", {"train": "train.parquet"}), parquet)
    for _ in range(3):
        data.split("search")
        data.split("train")
        data.split("calibration")
    assert dict(data.openings) == {"search": 1, "train": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "train is missing: path of a parquet file"),
        ({"train": "gone.parquet"}, "gone.parquet: no such file"),
        ({"train": "cut.parquet"}, "cut.parquet: unreadable or truncated parquet file"),
        (
            {"train": "train.parquet", "image_column": "imgs"},
            r"no column 'imgs', did you mean 'img'\? \(it has: img, label\)",
        ),
        ({"train": "other.parquet"}, r"no column img or image \(it has: picture, label\)"),
        ({"train": "train.parquet", "search": [40, 60]}, r"row range \[low, high\] within 0..50, not \[40, 60\]"),
        ({"train": "train.parquet", "search": [5, 5]}, r"not \[5, 5\]"),
        ({"train": "train.parquet", "size": "big"}, r"size: must be one whole number or \[height, width\], not 'big'"),
        ({"train": "train.parquet", "image_column": 5}, "image_column: must be the name of a column, not 5"),
        ({"train": "train.parquet", "size": True}, r"size: must be one whole number or \[height, width\], not true"),
        ({"train": "train.parquet", "mean": [0.5]}, r"std: .* one per channel as in mean: \[0.5\], not nothing"),
        ({"train": "train.parquet", "std": 0}, "std: must be a list of numbers above 0, .* not 0"),
        ({"train": "train.parquet", "mean": [0.5], "std": [0]}, r"std: must be .* above 0, .* not \[0\]"),
        ({"train": "train.parquet", "mean": ["a"], "std": [1]}, r"mean: must be a list of numbers, .* not \['a'\]"),
        ({"train": "train.parquet", "classes": True}, "classes: must be a whole number of at least 1, not true"),
        ({"train": "train.parquet", "calibration": None}, "calibration: must be a whole number of .* not nothing"),
    ],
)
def test_parquet_mistakes(settings: dict[str, Any], message: str, parquet: Path) -> None:
    (parquet / "cut.parquet").write_bytes((parquet / "train.parquet").read_bytes()[:300])
    write_parquet(parquet / "other.parquet", [1], ("picture", "label"))
    with pytest.raises((SpecError, DataError), match=message) as caught:
        load_data(Part("parquet", settings), parquet)
    assert "\n" not in str(caught.value)


def test_all_mistakes_in_the_settings_are_told_at_once(parquet: Path) -> None:
    settings = {"train": "train.parquet", "clases": 3, "calibration": 0, "search_limit": 1.5, "std": [1, -1, 1]}
    with pytest.raises(SpecError) as caught:
        load_data(Part("parquet", settings), parquet)
    places = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert places == [f"data.settings.{key}" for key in ("clases", "calibration", "search_limit", "std")]


def test_an_empty_mean_and_std_leave_the_inputs_as_they_are(parquet: Path) -> None:
    plain = load_data(Part("parquet", {"train": "train.parquet", "mean": [], "std": []}), parquet)
    assert (plain.mean, plain.std) == ((), ())


def test_truncated_jpegs_name_their_row(tmp_path: Path) -> None:
    good = encoded(5, (32, 32), "JPEG")
    cells = [{"bytes": good, "path": None}] * 5 + [{"bytes": good[:-200], "path": None}] * 5
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 5}), tmp_path / "t.parquet")
    data = load_data(Part("parquet", {"train": "t.parquet", "search": [4, 10]}), tmp_path)
    with pytest.raises(DataError, match=r"t.parquet: row 1 of the split: unreadable or truncated image"):
        data.split("search")


def test_labels_out_of_range(parquet: Path) -> None:
    data = load_data(Part("parquet", {"train": "train.parquet", "classes": 2}), parquet)
    with pytest.raises(DataError, match=r"data parquet, calibration split .*: labels must be 0..1, found 2"):
        prepare(SPEC, model=nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), data=data)


def test_pixels_that_are_not_finite(tmp_path: Path) -> None:
    x = np.zeros((20, 4), dtype=np.float32)
    x[19, 2] = np.nan
    np.savez(tmp_path / "a.npz", inputs=x, targets=np.arange(20) % 2)
    data = load_data(Part("npz", {"path": str(tmp_path / "a.npz")}))
    assert len(data.split("train")) == 18
    with pytest.raises(DataError, match="search split: inputs must be finite, row 1 holds NaN"):
        data.split("search")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": np.zeros(4, int)}, "needs arrays x_train and y_train"),
        ({"x_train": np.zeros((4, 2)), "y_train": np.array(["cat"] * 4)}, "needs numeric inputs .* float64 and <U3"),
    ],
)
def test_npz_mistakes(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_data(Part("npz", {"path": str(tmp_path / "a.npz")})).split("train")


def test_inputs_and_labels_must_be_equally_many(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        x_train=np.zeros((9, 2)),
        y_train=np.zeros(4, int),
        x_search=np.zeros((2, 2)),
        y_search=[0, 0],
    )
    with pytest.raises(DataError, match="train split: needs one label for each input, not 4 for 9"):
        load_data(Part("npz", {"path": str(tmp_path / "a.npz")})).split("train")


def test_empty_class_folders(images: Path) -> None:
    (images / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="emu: needs at least one image"):
        load_data(Part("folder", {"path": str(images)})).split("train")
    with pytest.raises(DataError, match="must be a folder with one sub-folder of images per class"):
        load_data(Part("folder", {"path": str(images / "train" / "emu")}))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part("digit"), "unknown data 'digit', did you mean 'digits'"),
        (Part("digits", {"calibraton": 5}), "calibraton: digits has no such setting .* mean 'calibration'"),
        (Part("digits", {"calibration": 0}), "calibration: must be a whole number of at least 1, not 0"),
        (Part("digits", {"calibration": None}), "calibration: must be a whole number of at least 1, not nothing"),
        (Part("digits", {"search_limit": 2.5}), "search_limit: must be a whole number of at least 1, not 2.5"),
        (Part("digits", {"classes": "ten"}), "classes: must be a whole number of at least 1, not 'ten'"),
    ],
)
def test_names_and_settings_are_checked(part: Part, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_data(part)


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(DataError, match="the splits are train, calibration, search, test, not 'val'"):
        load_data(Part("digits")).split("val")
    assert all(entry.doc for entry in DATA.values())


def test_normalising_leaves_raw_inputs_alone() -> None:
    data = load_data(Part("digits"))
    before = data.digest("search")
    data.normalise(data.split("search").inputs).zero_()
    assert data.digest("search") == before
