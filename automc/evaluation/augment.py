"""Random shifts and flips of raw images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from automc.errors import SpecError

Augment = Callable[[Tensor, torch.Generator], Tensor]

AUGMENTS = ("auto", "none", "shift", "flip-shift")


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


def augmentation(name: str, input_shape: tuple[int, ...]) -> Augment:
    """The augmentation of a recipe.

    ``auto`` flips and shifts colour images (by an eighth of their side, as usual for CIFAR), shifts grey ones
    and leaves everything else alone. Shifts need images: (channels, height, width).

    Raises:
        SpecError: another name, or shifts of inputs that are no images.
    """
    if name not in AUGMENTS:
        raise SpecError(f"augment must be one of {', '.join(AUGMENTS)}, not {name!r}")
    image = len(input_shape) == 3 and input_shape[0] in (1, 3) and min(input_shape[1:]) >= 8
    if name == "auto":
        name = ("shift" if input_shape[0] == 1 else "flip-shift") if image else "none"
    if name == "none":
        return lambda inputs, generator: inputs
    if len(input_shape) != 3:
        raise SpecError(f"augment {name!r} needs images (channels, height, width), not inputs of shape {input_shape}")
    reach = max(min(input_shape[1:]) // 8, 1)
    if name == "shift":
        return lambda inputs, generator: shift(inputs, reach, generator)
    return lambda inputs, generator: flip(shift(inputs, reach, generator), generator)
