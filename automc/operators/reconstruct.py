"""Least squares behind pruned channels: what is left of a layer's inputs takes over what the others contributed.

For the rows X of numbers that a layer's products read in the original network, split into the columns K that stay and
the columns R that go, and its weight W (one row an output), the weights that stay change by

    D = argmin |X_R W_R^T - X_K D^T|^2 + ridge * mean(diag(H_KK)) * |D|^2 = W_R H_RK (H_KK + ridge * mean I)^-1

with H = X^T X. At D = 0 that is plain pruning, so on the inputs that H was summed over no layer's error rises. A bias
is refitted with them: X and H are then centred. (He et al. 2017 refit so after every layer that they prune; here H is
computed once, in the original, so that a policy costs a Cholesky factor a layer and no data.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from automc.operators.base import Compression
from automc.operators.groups.slicing import Loss, losses
from automc.operators.moments import centred, damped, filters, length, original_moments, places, refittable, set_filters
from automc.operators.recalibrate import check_finite


def reconstruct(before: Compression, after: Compression, ridge: float) -> Compression:
    """Refit the weights of every layer that reads pruned channels, so that it gives what it gave before.

    Convolutions of all kinds but depthwise ones (where a channel reads itself alone), linear layers, and what LSTM and
    GRU layers read of their inputs. Of a layer that lost outputs too, only the kept ones are refitted. Left as they
    are: layers that are factorized, rounded or masked by now, layers with a forward of their own, products of more than
    8,000 numbers, and what a recurrent layer reads of its own hidden units.

    Args:
        before: the network that ``prune`` was given. after: what it made of it; it is changed. ridge: above 0.

    Returns:
        ``after``, stale where a layer was refitted. It is as it was without calibration inputs.

    Raises:
        CompressionError: what a layer reads in the original network is NaN or infinite.
    """
    if not after.removed or after.calibration is None or not len(after.calibration):
        return after
    jobs = list(_jobs(before, after))
    moments = original_moments(after, [job.path for job in jobs])
    for job in jobs:
        if job.path in moments:
            check_finite(f"reconstruct({job.path})", moments[job.path][:, -1])  # the columns' sums
            _refit(job, moments[job.path], ridge)
    return replace(after, stale=after.stale or bool(jobs))


@dataclass(frozen=True)
class _Job:
    """A layer that lost inputs, as it was and as it is; ``weights`` that read them; what it kept of both sides."""

    path: str
    old: nn.Module
    new: nn.Module
    weights: tuple[str, ...]
    inputs: Tensor
    outputs: Tensor | None


def _jobs(before: Compression, after: Compression) -> Iterator[_Job]:
    lost = losses(after.trace.plans, after.removed)
    outputs = {loss.cut.module: _kept(loss) for loss in lost if loss.cut.role == "out" and loss.cut.tensors}
    old, new = (dict(state.model.named_modules()) for state in (before, after))
    for loss in lost:
        path, names = loss.cut.module, tuple(name for name, _ in loss.cut.tensors)
        if loss.cut.role != "in" or not names or path not in new or not refittable(after, path):
            continue
        if type(after.teacher.get_submodule(path)) is type(old[path]) is type(new[path]):
            yield _Job(path, old[path], new[path], names, _kept(loss), outputs.get(path))


def _kept(loss: Loss) -> Tensor:
    """What stays of a side, by block, counted from the block's first: shape (blocks, kept)."""
    return torch.tensor(loss.keep).view(loss.cut.blocks, -1) % loss.cut.block


def _refit(job: _Job, moments: Tensor, ridge: float) -> None:
    """Change the new layer's weights, and its biases where it has some."""
    numbers = length(job.old)
    channels = numbers // places(job.old)
    keep = _columns(job.inputs, numbers, channels)
    for name in job.weights:
        weight = filters(job.old, name).double()
        if job.outputs is not None:
            weight = torch.stack([rows[own] for rows, own in zip(weight, job.outputs, strict=True)])
        bias = getattr(job.new, name.replace("weight", "bias"), None)
        sums, means = (moments[:, :-1, :-1], None) if bias is None else centred(moments)
        lost = weight.scatter(2, keep.unsqueeze(1).expand(-1, weight.shape[1], -1), 0.0)
        change = absorbed(lost, sums, keep, ridge)
        set_filters(job.new, name, filters(job.new, name) + change)
        if bias is not None and means is not None:
            own = means.gather(2, keep.unsqueeze(1))
            bias.detach().add_((lost @ means.mT - change @ own.mT).flatten().to(bias))


def absorbed(lost: Tensor, sums: Tensor, keep: Tensor, ridge: float) -> Tensor:
    """D of this module's text.

    Args:
        lost: W with zeros in the columns that stay, shape (groups, rows, length). sums: H, (groups, length, length).
        keep: the columns that stay, (groups, kept). ridge: share of the mean of H_KK's diagonal, above 0.

    Returns:
        Shape (groups, rows, kept), float64.
    """
    beside = torch.stack([own.index_select(0, index) for own, index in zip(sums, keep, strict=True)])
    kept = torch.stack([own.index_select(1, index) for own, index in zip(beside, keep, strict=True)])
    while True:
        factor, failed = torch.linalg.cholesky_ex(damped(kept, ridge))
        if not bool(failed.any()):
            return torch.cholesky_solve(beside @ lost.mT, factor).mT
        ridge = 10 * ridge  # H is a sum in single precision, and the ridge was smaller than its rounding


def _columns(channels: Tensor, length: int, step: int) -> Tensor:
    """Where these channels of each block lie among the numbers of a product, shape (blocks, columns).

    Args:
        step: how many channels lie side by side, before those of the kernel's next place.
    """
    return (torch.arange(0, length, step).view(1, -1, 1) + channels.unsqueeze(1)).flatten(1)
