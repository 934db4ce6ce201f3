"""Criteria that ask what the layers behind a channel lose with it, from second moments of what they read.

Both need H = X^T X of the consumers' inputs in the original network alone (moments.py), which ``reconstruct`` uses too.
A consumer's error counts in shares of its whole output, so that all have an equal say.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria.channels import calibration, equal_say, per_channel
from automc.operators.groups.slicing import Cut, Plan
from automc.operators.moments import centred, damped, filters, original_moments, places, refittable

_DAMPING = 1e-3
"""Share of its mean that is added to H's diagonal; the order hardly depends on it between 1e-6 and 1e-2."""


def obs(state: Compression, plan: Plan) -> Tensor:
    """The turn in which a structured optimal brain surgeon removes a channel, from 0 (Kurtic et al. 2023, ZipLM).

    Backward elimination: next goes the channel whose removal costs least after all weights that stay were refitted, as
    ``reconstruct`` does. For the weights W_j that read channel j this costs ``tr(W_j ([H^-1]_jj)^-1 W_j^T)``, and both
    the weights and H^-1 then follow in closed form. Where the consumer has a bias, H is centred, the bias being
    refitted too.

    Raises:
        CompressionError: no layer that ``reconstruct`` refits reads the channels.
    """
    calibration(state)
    problems = list(_problems(state, plan))
    if not problems:
        raise CompressionError("no layer reads the channels whose weights could be refitted; choose 'l1' or 'wanda'")
    turn = torch.zeros(plan.channels, dtype=torch.float64)
    left = torch.ones(plan.channels, dtype=torch.bool)
    for number in range(plan.channels):
        cost = torch.stack([problem.costs() for problem in problems]).sum(0)
        # Among equals the last one, as everywhere in pruning.
        goes = plan.channels - 1 - int(torch.where(left, cost, torch.inf).flip(0).argmin())
        left[goes], turn[goes] = False, number
        for problem in problems:
            problem.remove(goes)
    return turn


def wanda(state: Compression, plan: Plan) -> Tensor:
    """``sqrt(sum_s w_s^2 mean(x_s^2))`` over the weights s that read a channel, and what they read (Sun et al. 2024).

    The rms of what the channel adds to its consumers' outputs, were all that they read uncorrelated; every consumer has
    an equal say.

    Raises:
        CompressionError: no convolution, linear or recurrent layer reads the channels.
    """
    calibration(state)
    readers = {cut.module: state.teacher.get_submodule(cut.module) for cut in plan.consumers}
    whole = original_moments(state, [path for path in readers if refittable(state, path)])
    squares = {path: sums.diagonal(dim1=1, dim2=2)[:, :-1] for path, sums in whole.items()}
    squares |= original_moments(state, [path for path in readers if path not in squares], diagonal=True)
    parts = []
    for cut in plan.consumers:
        if cut.module in squares:
            module = readers[cut.module]
            weights = torch.cat([filters(module, name).double() for name, _ in cut.tensors], dim=1)
            damage = weights.square().sum(1) * squares[cut.module]
            damage = damage.view(len(damage), places(module), -1).sum(1)
            parts.append((cut, per_channel(damage.flatten(), cut).sqrt()))
    if not parts:
        raise CompressionError("no layer reads the channels on the calibration inputs; choose 'l1'")
    return equal_say(parts, plan.channels)


class _Problem:
    """One matrix of weights and what it reads; channels that are gone have zero weights and the identity in H^-1.

    Args:
        weight: shape (outputs, length). inverse: H^-1, (length, length). columns: by channel, those it has of them.
        whole: what the errors are divided by.
    """

    def __init__(self, weight: Tensor, inverse: Tensor, columns: list[list[int]], whole: Tensor) -> None:
        self._members = [channel for channel, own in enumerate(columns) if own]
        self._channels, self._whole = len(columns), whole
        self._size = max(map(len, columns))
        index = torch.tensor([own + [-1] * (self._size - len(own)) for own in columns if own]).flatten()
        there = (index >= 0).double()  # where a channel has fewer columns than another, it gets such that nothing reads
        index = index.clamp_min(0)
        self._weight = weight[:, index] * there
        self._inverse = inverse[index][:, index] * there * there.unsqueeze(1) + torch.diag(1 - there)

    def costs(self) -> Tensor:
        """The rise of the error without each channel, shape (channels,)."""
        count, size = len(self._members), self._size
        blocks = self._inverse.view(count, size, count, size).diagonal(dim1=0, dim2=2).movedim(2, 0)
        weights = self._weight.view(-1, count, size).permute(1, 2, 0)
        halves: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(blocks), weights, upper=False)
        found = halves.new_zeros(self._channels)
        found[self._members] = halves.square().sum((1, 2)) / self._whole
        return found

    def remove(self, channel: int) -> None:
        """Refit everything without this channel."""
        if channel not in self._members:
            return
        first = self._members.index(channel) * self._size
        own = slice(first, first + self._size)
        taken = torch.linalg.solve(self._inverse[own, own], self._inverse[own])
        self._weight -= self._weight[:, own] @ taken
        self._inverse -= self._inverse[:, own] @ taken
        self._weight[:, own] = 0
        self._inverse[own] = 0
        self._inverse[:, own] = 0
        self._inverse[own, own] = torch.eye(self._size, dtype=self._inverse.dtype)


def _problems(state: Compression, plan: Plan) -> Iterator[_Problem]:
    """One for every consumer of the group, group of its channels and matrix of its weights."""
    cuts = [cut for cut in plan.consumers if refittable(state, cut.module)]
    moments = original_moments(state, [cut.module for cut in cuts])
    for cut in cuts:
        if cut.module in moments:
            module = state.teacher.get_submodule(cut.module)
            for name, _ in cut.tensors:
                yield from _of_weight(module, name, cut, moments[cut.module])


def _of_weight(module: nn.Module, name: str, cut: Cut, moments: Tensor) -> Iterator[_Problem]:
    biased = getattr(module, name.replace("weight", "bias"), None) is not None
    sums = centred(moments)[0] if biased else moments[:, :-1, :-1]
    weight = filters(module, name).double()
    whole = ((weight @ sums) * weight).sum().clamp_min(torch.finfo(torch.float64).tiny)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(sums, _DAMPING)))
    size = cut.block
    for block in range(cut.blocks):
        columns = [
            [place * size + i % size for i in own if i // size == block for place in range(places(module))]
            for own in cut.index
        ]
        if any(columns):
            yield _Problem(weight[block], inverse[block], columns, whole)
