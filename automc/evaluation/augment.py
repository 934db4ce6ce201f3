"""Random shifts, flips and holes of raw images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from automc.errors import SpecError

Augment = Callable[[Tensor, torch.Generator], Tensor]

AUGMENTS = ("auto", "none", "shift", "flip-shift", "flip-shift-cutout")


def shift(inputs: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to ``reach`` pixels along both axes; raw zeros come in at the border.

    Args:
        inputs: shape (n, channels, height, width). Returns: the same shape and type.
    """
    height, width = inputs.shape[-2:]
    padded = F.pad(inputs, (reach, reach, reach, reach))
    moves = torch.randint(0, 2 * reach + 1, (len(inputs), 2), generator=generator)
    rows = (moves[:, :1] + torch.arange(height))[:, :, None]
    columns = (moves[:, 1:] + torch.arange(width))[:, None, :]
    return padded[torch.arange(len(inputs))[:, None, None], :, rows, columns].movedim(-1, 1)


def flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Every image mirrored left to right with probability 1/2."""
    chosen = torch.rand(len(inputs), generator=generator) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), inputs.flip(-1), inputs)


def cutout(inputs: Tensor, side: int, blank: Tensor, generator: torch.Generator) -> Tensor:
    """A square hole in every image, its centre anywhere, so that part of it may lie outside (DeVries & Taylor 2017).

    Args:
        inputs: shape (n, channels, height, width). side: of the hole, in pixels.
        blank: what is seen in it, of the inputs' type, shape (channels, 1, 1) or ().
    """
    height, width = inputs.shape[-2:]
    top = torch.randint(0, height, (len(inputs), 1), generator=generator) - side // 2
    left = torch.randint(0, width, (len(inputs), 1), generator=generator) - side // 2
    rows, columns = torch.arange(height) - top, torch.arange(width) - left
    hole = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return torch.where(hole[:, None], blank, inputs)


def chosen(name: str, input_shape: tuple[int, ...]) -> str:
    """What ``auto`` means for inputs of this shape; another name stays.

    Colour images are flipped and shifted, grey ones shifted, all else is left alone. Images are (1 or 3, height,
    width), at least 8 pixels wide and high.
    """
    if name != "auto":
        return name
    image = len(input_shape) == 3 and input_shape[0] in (1, 3) and min(input_shape[1:]) >= 8
    return ("shift" if input_shape[0] == 1 else "flip-shift") if image else "none"


def augmentation(name: str, input_shape: tuple[int, ...], blank: Sequence[float] = ()) -> Augment:
    """The augmentation of a recipe.

    Shifts go up to an eighth of an image's side and holes have half of it, as usual for CIFAR.

    Args:
        name: one of AUGMENTS. input_shape: of one input; all but ``none`` need images (channels, height, width).
        blank: raw values by channel that holes have; 0 when empty.

    Raises:
        SpecError: another name, or inputs that are no images.
    """
    if name not in AUGMENTS:
        raise SpecError(f"augment must be one of {', '.join(AUGMENTS)}, not {name!r}")
    name = chosen(name, input_shape)
    if name == "none":
        return lambda inputs, generator: inputs
    if len(input_shape) != 3:
        raise SpecError(f"augment {name!r} needs images (channels, height, width), not inputs of shape {input_shape}")
    side = min(input_shape[1:])

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        inputs = shift(inputs, max(side // 8, 1), generator)
        if "flip" in name:
            inputs = flip(inputs, generator)
        if "cutout" in name:
            seen = torch.tensor(blank or [0.0]).view(-1, 1, 1)
            inputs = cutout(inputs, side // 2, seen.to(inputs.dtype), generator)
        return inputs

    return augment
