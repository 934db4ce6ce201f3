"""From encoded image files to raw pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from automc.core.required import DATA_SET, show
from automc.errors import DataError, SpecError

Pixels = NDArray[np.uint8]


def decode(content: bytes, where: str, size: tuple[int, int] | None) -> Pixels:
    """An encoded image (JPEG, PNG, ...) as uint8 (channels, height, width); grey stays one channel, the rest is RGB.

    Args:
        where: names the image in an error. size: (height, width) to resize to, bilinear; None keeps it.

    Raises:
        DataError: no image, or a truncated one.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            plain = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as raised:
        raise DataError(f"{where}: unreadable or truncated image ({len(content)} bytes)") from raised
    if size is not None:
        plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(plain, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def stack(count: int, load: Callable[[int], Pixels], names: Sequence[str] | Callable[[int], str]) -> Tensor:
    """``load(0..count-1)`` as one uint8 tensor (count, channels, height, width).

    Raises:
        DataError: no image, or one with another shape than the first.
    """
    if not count:
        raise DataError("no images")
    first = load(0)
    out = np.empty((count, *first.shape), dtype=np.uint8)
    out[0] = first
    for i in range(1, count):
        image = load(i)
        if image.shape != first.shape:
            name = names(i) if callable(names) else names[i]
            shapes = f"shape {image.shape}, but the first image has {first.shape}"
            raise DataError(f"{name}: {shapes}; give size: [height, width]")
        out[i] = image
    return torch.from_numpy(out)


def image_size(value: object) -> tuple[int, int] | None:
    """The setting ``size``: None, one number, or [height, width].

    Raises:
        SpecError: anything else.
    """
    if value is None:
        return None
    pair: list[Any] = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in pair):
        raise SpecError(f"{DATA_SET}.size: must be one whole number or [height, width], not {show(value)}")
    return int(pair[0]), int(pair[1])
