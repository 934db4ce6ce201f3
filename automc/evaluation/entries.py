"""What the zoo and the data readers offer, as tables: no torch is loaded to list or to check names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo.

    Attributes:
        factory: ``module:attribute``, imported when it is used.
        input_shape: of one input, without the batch axis.
        doc: one line. weights: file name of bundled trained weights, "" where there are none.
    """

    factory: str
    input_shape: tuple[int, ...]
    doc: str
    weights: str = ""


_NETS = "automc.evaluation.nets"
_IMAGE = (3, 32, 32)
_SHORTCUTS = "shortcut: A (padding) or B (1x1 convolution)"


def _resnet(depth: int) -> ZooEntry:
    return ZooEntry(f"{_NETS}.resnet:resnet{depth}", _IMAGE, f"CIFAR ResNet-{depth} (He et al. 2016), {_SHORTCUTS}")


ZOO: Mapping[str, ZooEntry] = {
    "digits_net": ZooEntry(
        f"{_NETS}.digits:DigitsNet",
        (1, 8, 8),
        "residual network with a depthwise block for the 8x8 digits; trained weights are bundled",
        "digits_net.safetensors",
    ),
    **{f"resnet{depth}": _resnet(depth) for depth in (20, 32, 44, 56, 110)},
    "plain20": ZooEntry(f"{_NETS}.resnet:plain20", _IMAGE, "CIFAR ResNet-20 without its shortcuts"),
    "vgg16_bn": ZooEntry(f"{_NETS}.vgg:Vgg16Bn", _IMAGE, "VGG-16 with batch norm and one linear layer"),
    "mobilenet_v2": ZooEntry(f"{_NETS}.mobilenet:MobileNetV2", _IMAGE, "MobileNetV2 (Sandler et al. 2018), dropout"),
}
"""All take ``num_classes``. Where ``weights`` is None, digits_net with its ten classes gets its bundled trained
weights; every other network gets random ones under a fixed seed, which serve for costs and tests only."""


@dataclass(frozen=True)
class DataEntry:
    """A kind of data set.

    Attributes:
        reader: ``module:attribute`` of what opens it, imported when it is used.
        settings: its own, beside the common ones. doc: one line.
    """

    reader: str
    settings: tuple[str, ...]
    doc: str


_READERS = "automc.evaluation.readers"

DATA: Mapping[str, DataEntry] = {
    "digits": DataEntry(f"{_READERS}.digits:open_digits", (), "scikit-learn's bundled 8x8 scans of digits"),
    "parquet": DataEntry(
        f"{_READERS}.parquet:open_parquet",
        ("train", "test", "image_column", "label_column", "search", "size"),
        "images in Hugging Face style parquet files",
    ),
    "folder": DataEntry(f"{_READERS}.folder:open_folder", ("path", "size"), "image files in one folder per class"),
    "npz": DataEntry(f"{_READERS}.npz:open_npz", ("path", "test"), "arrays in .npz files"),
}

COMMON: Mapping[str, str] = {
    "calibration": "number of train inputs for calibration and batch-norm statistics (256)",
    "search_limit": "use only so many inputs of the search split (all)",
    "mean": "per channel, subtracted from the inputs (pixels first become [0, 1])",
    "std": "per channel, the inputs are divided by it after that",
    "classes": "number of classes (found from the train labels)",
}
"""Settings that every kind of data set takes. A user's factory gets all but these as arguments."""
