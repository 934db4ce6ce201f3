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
from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from automc.errors import CompressionError, one_line
from automc.operators.groups.slicing import Plan, losses
from automc.operators.groups.variants import amplified, masked, pruned
from automc.operators.outputs import tensors_of

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest accepted difference over the largest output: about 1e8 (1e4) times the rounding of one operation."""
_SEED = 0

_Removal = tuple[Mapping[str, Plan], Mapping[str, Sequence[int]]]
"""Plans, and the channels that go by them."""


class Prover:
    """Proves plans of one network.

    Args:
        model: in eval mode; not changed. example: shape (n, ...), at most two inputs are used.

    Attributes:
        model: a copy with random weights, in double precision where its forward allows it. inputs: random ones, or
            the given ones where they are whole numbers.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        inputs = example[:2]
        if example.is_floating_point():
            inputs = torch.randn(inputs.shape, generator=generator).to(example.device)
        self.model = copy.deepcopy(model)
        _randomise(self.model, generator)
        try:
            self.model = self.model.double()
            self.inputs = inputs.double() if inputs.is_floating_point() else inputs
            self._whole = self._run()
        except RuntimeError:  # somewhere its forward insists on single precision
            self.model = self.model.float()
            self.inputs = inputs.float() if inputs.is_floating_point() else inputs
            self._whole = self._run()
        self._params = _params(self.model)

    def check(self, plan: Plan) -> None:
        """Return silently when the plan holds.

        Raises:
            CompressionError: it does not; the message completes "layer x ...".
        """
        self._check({plan.name: plan}, {plan.name: _half(plan)})

    def refused(self, plans: Mapping[str, Plan], beside: Mapping[str, Plan] | None = None) -> dict[str, str]:
        """The names of the plans that do not hold, each with its reason.

        All plans are tried at once, and only where that fails the halves of them alone: a deep network has many
        plans, and nearly always all of them hold.

        Args:
            beside: plans that hold, of other channels; the new ones must hold together with them.
        """
        halves, reasons = {}, {}
        for name, plan in plans.items():
            try:
                half = _half(plan)
                if not plan.read:  # the network's output, nearly always
                    self._check({name: plan}, {name: half})
                halves[name] = half
            except CompressionError as error:
                reasons[name] = str(error)
        beside = beside or {}
        proved = (beside, {name: _half(plan) for name, plan in beside.items()})
        return reasons | self._refused(({name: plans[name] for name in halves}, halves), proved)

    def _refused(self, new: _Removal, proved: _Removal) -> dict[str, str]:
        plans, removed = new
        if not plans:
            return {}
        try:
            self._check({**proved[0], **plans}, {**proved[1], **removed})
            return {}
        except CompressionError as error:
            if len(plans) == 1:
                return dict.fromkeys(plans, str(error))
        names = list(plans)
        parts = (names[: len(names) // 2], names[len(names) // 2 :])
        refused = [
            self._refused(({n: plans[n] for n in part}, {n: removed[n] for n in part}), proved) for part in parts
        ]
        return refused[0] | refused[1]

    def _check(self, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> None:
        with amplified(self.model, plans, removed):
            self._compare(plans, removed)

    def _compare(self, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> None:
        planned = self._params - _planned(self.model, plans, removed)
        with pruned(self.model, plans, removed):
            params = _params(self.model)
            try:
                output = self._run()
            except Exception as error:
                raise CompressionError(f"cannot lose channels: the forward then fails ({one_line(error)})") from error
        if [tensor.shape for tensor in output] != [tensor.shape for tensor in self._whole]:
            raise CompressionError("is the network's output")
        if params != planned:
            raise CompressionError("loses other parameters than planned when it is pruned")
        if any(not plan.read for plan in plans.values()):
            raise CompressionError("has channels that no layer reads")
        with masked(self.model, plans, removed):
            wanted = self._run()
        worst = max(map(_difference, output, wanted), default=0.0)
        if not worst <= _TOLERANCE[self._dtype]:
            raise CompressionError(
                f"cannot lose channels: the rest of the network changes too (outputs by {worst:.1g} of the largest)"
            )

    @property
    def _dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point())

    def _run(self) -> list[Tensor]:
        with torch.inference_mode():
            return [tensor for tensor in tensors_of(self.model(self.inputs)) if tensor.is_floating_point()]


def _difference(output: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest output; infinite where one of them is not finite."""
    if not wanted.numel():
        return 0.0
    worst = float((output - wanted).abs().max() / wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny))
    return worst if math.isfinite(worst) else math.inf


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


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _planned(model: nn.Module, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> int:
    """How many parameters the plans take away."""
    shares: dict[tuple[str, str], float] = {}
    for loss in losses(plans, removed):
        left = 1 - len(loss.gone) / loss.cut.length
        for name, _ in loss.cut.tensors:
            if isinstance(getattr(model.get_submodule(loss.cut.module), name, None), nn.Parameter):
                key = loss.cut.module, name
                shares[key] = shares.get(key, 1.0) * left
    sizes = {key: model.get_submodule(key[0]).get_parameter(key[1]).numel() for key in shares}
    return sum(round(sizes[key] * (1 - left)) for key, left in shares.items())
