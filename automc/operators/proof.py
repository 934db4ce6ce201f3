"""Proving that a plan prunes what it says: the pruned network equals the network that ignores the same channels.

Half of a group's channels are removed by the plan. Then, at full size again, the consumers' weights for those
channels are set to zero, so that nobody sees them. Both must give the same outputs. Masking the consumers
and not the producers makes the comparison exact for any function in between: a sigmoid turns a zeroed channel into
0.5, but a consumer that ignores the channel does not mind. Layer and group norms mix channels; the masked network
computes them over the kept channels alone, which is what they do after pruning.

Structure does not depend on values. So the proof runs on random weights (a branch that happens to be zero would hide a
wrong index) in double precision (a rounding error cannot be mistaken for a wrong index).
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from automc.errors import CompressionError
from automc.operators.groups import one_line
from automc.operators.slicing import Cut, Plan, remove_channels

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest accepted difference over the largest output: about 1e8 (1e4) times the rounding of one operation."""
_SEED = 0


class Prover:
    """Proves plans of one network, one at a time.

    Args:
        model: in eval mode; not changed. example: shape (n, ...), at most two inputs are used.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self._inputs = example[:2]
        if example.is_floating_point():
            self._inputs = torch.randn(self._inputs.shape, generator=generator).to(example.device)
        self._model = copy.deepcopy(model)
        _randomise(self._model, generator)
        try:
            self._model = self._model.double()
            self._whole = self._run(self._model)
        except RuntimeError:  # somewhere its forward insists on single precision
            self._model = self._model.float()
            self._whole = self._run(self._model)
        self._params = _params(self._model)

    def check(self, plan: Plan) -> None:
        """Return silently when the plan holds.

        Raises:
            CompressionError: it does not; the message completes "layer x ...".
        """
        removed = _half(plan)
        planned = self._params - _planned(self._model, plan, removed)
        with _pruned(self._model, plan, removed):
            params = _params(self._model)
            try:
                output = self._run(self._model)
            except Exception as error:
                raise CompressionError(f"cannot lose channels: the forward then fails ({one_line(error)})") from error
        if output.shape != self._whole.shape:
            raise CompressionError("is the network's output")
        if params != planned:
            raise CompressionError("loses other parameters than planned when it is pruned")
        with _masked(self._model, plan, removed):
            wanted = self._run(self._model)
        if torch.equal(wanted, self._whole):
            raise CompressionError("has channels that no convolution or linear layer reads")
        worst = (output - wanted).abs().max() / wanted.abs().max()
        if not worst <= _TOLERANCE[wanted.dtype]:
            raise CompressionError(
                f"cannot lose channels: the rest of the network changes too (outputs by {worst:.1g} of the largest)"
            )

    def _run(self, model: nn.Module) -> Tensor:
        inputs = self._inputs
        if inputs.is_floating_point():
            inputs = inputs.to(next(self._model.parameters()).dtype)
        with torch.inference_mode():
            output: Tensor = model(inputs)
        return output


def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Random weights of He et al. (2015) size, norms near one: nothing is zero, nothing grows out of bounds."""

    def normal(tensor: Tensor, scale: float) -> Tensor:
        return torch.randn(tensor.shape, generator=generator) * scale

    with torch.no_grad():
        for module in model.modules():
            norm = isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm))
            for name, tensor in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
                if not tensor.is_floating_point():
                    continue
                if norm and name in ("weight", "running_var"):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
                elif norm or (isinstance(tensor, nn.Parameter) and tensor.dim() == 1):
                    tensor.copy_(normal(tensor, 0.1))
                elif isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
                    tensor.copy_(normal(tensor, math.sqrt(2 / tensor[0].numel())))


def _half(plan: Plan) -> list[int]:
    """Half of every cell, drawn at random so that a shifted index shows."""
    draw = random.Random(_SEED)
    cells = plan.members()
    if len(cells[0]) < 2:
        rest = " in each of the groups that must stay equal" if len(cells) > 1 else ""
        raise CompressionError(f"has one channel{rest}, and one must stay")
    return sorted(c for cell in cells for c in draw.sample(cell, len(cell) // 2))


@contextmanager
def _pruned(model: nn.Module, plan: Plan, removed: Sequence[int]) -> Iterator[None]:
    """The model without these channels; as it was afterwards. A deep copy for each plan would take twice as long."""
    modules = {model.get_submodule(cut.module) for cut in plan.cuts}
    # Removing channels puts new tensors and numbers in the place of old ones and writes into none.
    kept = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in modules]
    try:
        remove_channels(model, {plan.name: plan}, {plan.name: removed})
        yield
    finally:
        for module, attributes, parameters, buffers in kept:
            module.__dict__.update(attributes)
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _planned(model: nn.Module, plan: Plan, removed: Sequence[int]) -> int:
    """How many parameters the plan takes away."""
    shares: dict[tuple[str, str], float] = {}
    for cut in plan.cuts:
        left = 1 - len(cut.gone(removed)) / cut.length
        for name, _ in cut.tensors:
            if isinstance(getattr(model.get_submodule(cut.module), name, None), nn.Parameter):
                shares[cut.module, name] = shares.get((cut.module, name), 1.0) * left
    sizes = {key: model.get_submodule(key[0]).get_parameter(key[1]).numel() for key in shares}
    return round(sum(sizes[key] * (1 - left) for key, left in shares.items()))


@contextmanager
def _masked(model: nn.Module, plan: Plan, removed: Sequence[int]) -> Iterator[None]:
    """The model with nobody reading the removed channels; as it was afterwards."""
    kept: list[tuple[Tensor, Tensor]] = []
    hooks: list[RemovableHandle] = []
    try:
        for cut in plan.cuts:
            module, gone = model.get_submodule(cut.module), cut.gone(removed)
            if cut.role in ("in", "parameter"):
                for name, axis in cut.tensors:
                    tensor = getattr(module, name).data
                    kept.append((tensor, tensor.clone()))
                    _zero(tensor, axis, gone, cut)
            elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                hooks.append(module.register_forward_hook(_norm_of_kept(cut, gone)))
        yield
    finally:
        for tensor, values in kept:
            tensor.copy_(values)
        for hook in hooks:
            hook.remove()


def _zero(tensor: Tensor, axis: int, gone: Sequence[int], cut: Cut) -> None:
    for i in gone:
        if cut.role == "in" and cut.blocks > 1:
            tensor.chunk(cut.blocks, dim=0)[i // cut.block].select(axis, i % cut.block).zero_()
        else:
            tensor.select(axis, i).zero_()


def _norm_of_kept(cut: Cut, gone: Sequence[int]) -> Callable[..., Tensor]:
    """A hook that gives the norm over the channels that stay, and zeros at the others."""

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        small = copy.deepcopy(module)
        alone = replace(cut, module="", index=tuple((i,) for i in range(cut.length)))
        remove_channels(small, {"": Plan("", cut.length, (alone,), (0,) * cut.length)}, {"": gone})
        axis = 1 if isinstance(module, nn.GroupNorm) else -1
        keep = torch.tensor([i for i in range(cut.length) if i not in set(gone)], device=output.device)
        return torch.zeros_like(output).index_copy(axis, keep, small.forward(args[0].index_select(axis, keep)))

    return hook
