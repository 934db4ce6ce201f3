"""One forward of one input, watched: what every module multiplies, reads and makes, and the memory at its peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from automc.errors import ModelError, one_line
from automc.measure.activations import Activations, tensors_in
from automc.measure.macs import of_function, of_module


@dataclass
class Work:
    """What one module does for one input, all its calls together.

    Attributes:
        macs: multiply-accumulates. read, made: elements of the activations that its products read and make.
        calls: how many products that were. shape: of what its last product read, without the batch axis.
    """

    macs: int = 0
    read: int = 0
    made: int = 0
    calls: int = 0
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Walk:
    """A network and what its forward did.

    Attributes:
        work: by the innermost module that multiplies, in order of execution; outside every submodule under ``""``.
        activation_bytes: see activations.Activations.
    """

    model: nn.Module
    work: Mapping[str, Work]
    activation_bytes: int


def walk(model: nn.Module, example: Tensor) -> Walk:
    """Run the network once, in eval mode, on the first input of the example.

    Args:
        model: not changed. example: shape (n, ...), n >= 1.

    Raises:
        ModelError: the forward fails.
    """
    watcher = _Watcher(model)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), watcher.on(model), watcher:
            watcher.activations.given(example := example[:1])
            outputs = model(example)
    except Exception as error:
        raise ModelError(f"model: the forward fails on inputs {tuple(example.shape)} ({one_line(error)})") from error
    finally:
        for module in training:
            module.training = True
    return Walk(model, watcher.work, watcher.activations.peak(outputs))


def helpers(model: nn.Module) -> Iterator[nn.Module]:
    """Parts of live layers that are no part of the network: what a weight takes on its way, and input rounding."""
    for module in model.modules():
        if hasattr(module, "stored") and hasattr(module, "freeze"):
            yield from (p for p in (getattr(module, "ways", None), module.input_quantizer) if isinstance(p, nn.Module))


class _Watcher(TorchFunctionMode):
    """Notes every function that runs under the module that is running."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.work: dict[str, Work] = {}
        self.activations = Activations([*model.parameters(), *model.buffers()])
        self._stack: list[str] = [""]
        self._muted = 0
        """Above 0 inside a helper and inside a module that is counted as a whole."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self._muted and isinstance(output, (Tensor, tuple, list)):
            handler = of_function(func)
            self.activations.step((args, kwargs), output, in_place=handler is None)
            if handler is not None:
                self._count(handler(output, *args, **kwargs), args, kwargs, output)
        return output

    def _count(self, macs: int, args: Any, kwargs: Any, output: Any) -> None:
        found = self.work.setdefault(self._stack[-1], Work())
        read = [tensor for tensor in tensors_in((args, kwargs)) if not isinstance(tensor, nn.Parameter)]
        found.macs += macs
        found.calls += 1
        found.read += sum(tensor.numel() for tensor in read)
        found.made += sum(tensor.numel() for tensor in tensors_in(output))
        found.shape = tuple(read[0].shape[1:]) if read else ()

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Follow which module of the network runs."""
        hooks: list[Any] = []
        muted = {part for helper in helpers(model) for part in helper.modules()}
        for name, module in model.named_modules():
            if module in muted:
                hooks.append(module.register_forward_pre_hook(self._mute))
                hooks.append(module.register_forward_hook(self._unmute))
                continue
            quantizer = getattr(module, "input_quantizer", None)
            if quantizer in muted:
                hooks.append(quantizer.register_forward_hook(self._rounds(module)))
            if of_module(module) is not None:
                hooks.append(module.register_forward_pre_hook(self._mute))
                hooks.append(module.register_forward_hook(self._whole(name), with_kwargs=True))
            elif not _is_bare(module):
                hooks.append(module.register_forward_pre_hook(self._enter(name)))
                hooks.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _mute(self, *_: Any) -> None:
        self._muted += 1

    def _unmute(self, *_: Any) -> None:
        self._muted -= 1

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda module, args: self._stack.append(name)

    def _leave(self, *_: Any) -> None:
        self._stack.pop()

    def _rounds(self, module: nn.Module) -> Callable[..., None]:
        return lambda quantizer, args, output: self.activations.rounded(args, output, int(module.activation_bits))  # type: ignore[arg-type]

    def _whole(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._muted -= 1
            if not self._muted:
                bits = int(getattr(module, "activation_bits", 64))
                handler = of_module(module)
                assert handler is not None
                self.activations.step((args, kwargs), output, in_place=False, bits=bits)
                self._stack.append(name)
                self._count(handler(module, output, *args, **kwargs), args, kwargs, output)
                self._stack.pop()

        return hook


def _is_bare(module: nn.Module) -> bool:
    """Nothing is multiplied under its own name: torch's norms, activation functions and containers."""
    return type(module).__module__.startswith("torch.nn.modules.") and not isinstance(
        module, (nn.Linear, nn.modules.conv._ConvNd, nn.Bilinear, nn.RNNBase, nn.RNNCellBase)
    )
