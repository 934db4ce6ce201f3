"""Where a repair computes, and in which precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automc.core.required import EVALUATOR, require
from automc.errors import SpecError
from automc.operators.copies import duplicate

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS: dict[str, torch.dtype | None] = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Device:
    """The device of the repair, and the type of its matrix products (mixed precision, Micikevicius et al. 2018).

    Weights, losses, quantizers' steps and averages are float32 everywhere. Measurement does not follow: it stays on the
    CPU, in float32. Results of a CPU and of a GPU differ in rounding, so workers of one study should be alike.

    Attributes:
        device: ``auto`` (a GPU where this process sees one), ``cpu`` or ``cuda``.
        precision: ``auto`` (bfloat16 on a GPU that has it, else float32), ``float32``, ``bfloat16`` or ``float16``
            (its gradients are scaled so that small ones do not vanish; slow on a CPU, see ``require_speed``).

    Raises:
        SpecError: another word, or a GPU where there is none.
    """

    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        require(self, {}, {"device": DEVICES, "precision": PRECISIONS})
        if self.device == "cuda" and not torch.cuda.is_available():
            raise SpecError(f"{EVALUATOR}.device: is cuda, but torch sees no GPU here; use auto or cpu")

    @property
    def place(self) -> torch.device:
        """What the repair's tensors lie on."""
        gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")

    def require_speed(self) -> None:
        """Raises SpecError where the precision would make the repair slower than float32."""
        if self.dtype is torch.float16 and self.place.type == "cpu":
            why = "and the repair runs on the CPU here; use bfloat16 or float32"
            raise SpecError(f"{EVALUATOR}.precision: float16 needs a GPU, {why}")

    @property
    def dtype(self) -> torch.dtype:
        """The type that convolutions and matrix products have."""
        if (found := PRECISIONS[self.precision]) is not None:
            return found
        return torch.bfloat16 if self.place.type == "cuda" and torch.cuda.is_bf16_supported(False) else torch.float32

    def mixed(self) -> AbstractContextManager[Any]:
        """For forwards of networks; their outputs may have ``dtype`` inside, see ``widened``."""
        return nullcontext() if self.dtype is torch.float32 else torch.autocast(self.place.type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales losses and gradients in float16 and does nothing otherwise."""
        return torch.amp.GradScaler(self.place.type, enabled=self.dtype is torch.float16)

    def seeded(self) -> AbstractContextManager[Any]:
        """Inside the block the random state may be changed; afterwards it is what it was."""
        return torch.random.fork_rng(devices=[self.place.index] if self.place.type == "cuda" else [])

    def layout(self, model: nn.Module, inputs: Tensor) -> torch.memory_format:
        """Channels last where the inputs are images and the network can take it: convolutions train faster.

        Args:
            model: on the device, in eval mode. inputs: some.
        """
        if inputs.dim() != 4:
            return torch.contiguous_format
        try:
            with torch.no_grad():
                model(inputs[:2].to(self.place, memory_format=torch.channels_last))
        except RuntimeError:  # a view that wants the channels first
            return torch.contiguous_format
        return torch.channels_last

    def copied(self, model: nn.Module) -> nn.Module:
        """A network on the device: the network itself on the CPU, elsewhere a copy."""
        return model if self.place.type == "cpu" else duplicate(model).to(self.place)


def widened(value: Any) -> Any:
    """Outputs with every tensor of half precision made float32."""
    return mapped(value, lambda tensor: tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Every tensor in a value changed: one tensor, or dicts, lists and tuples of tensors; all else stays."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        made = [mapped(each, change) for each in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    return value
