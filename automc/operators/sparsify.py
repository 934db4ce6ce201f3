"""Weight sparsity: single weights, blocks or all but N of every M weights become zero, and stay so or may come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from automc.core.policy import Value
from automc.errors import CompressionError
from automc.operators.base import Compression, Settings
from automc.operators.factorized import parts
from automc.operators.live import LiveLayer, LiveWeight
from automc.operators.live_kinds import live, shared_weights
from automc.operators.moments import input_moments
from automc.operators.recalibrate import check_finite
from automc.operators.sparsity.patterns import RowPattern, as_rows, from_rows, pattern_of
from automc.operators.sparsity.second_order import obs

_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def sparsify(state: Compression, settings: Settings) -> Compression:
    """Set weights of the named layers to zero, each part of a factorized layer by itself.

    ``sparsity`` is rounded down to whole weights or blocks, so never all of them go. An n:m pattern has a sparsity of
    its own: any ``sparsity`` above 0 switches it on, and ``realized`` says what came of it. The masks hold through a
    repair; with ``regrow`` they are chosen anew by |w| before each of its steps, and weights may come back (dynamic
    network surgery, Guo et al. 2016).

    Methods: ``magnitude`` keeps the largest |w|. ``wanda`` keeps the largest |w_ij| * ||x_j||, compared over the whole
    layer (Sun et al. 2024 compare within an output). ``obs`` keeps what the other weights cannot make up for, and
    refits them (second_order.py). The last two see the layers' inputs as the network computes them by now, all in one
    pass over the calibration inputs. They need a convolution or linear layer; ``obs`` moves weights, so none that
    another module shares or that are rounded already. Elsewhere ``magnitude`` takes their place, and ``realized`` says
    so. No MACs are saved.

    Settings: see offers/sparsify.py. Realized per layer: ``sparsity`` (weights that the masks set to zero / weights),
    ``pattern``, ``sparsity_method``.

    Raises:
        CompressionError: a layer has no live kind, or a method lacks calibration inputs.
    """
    shared = shared_weights(state.model)
    jobs = [job for name, chosen in settings.items() for job in _jobs(state.model, name, chosen, shared)]
    wanted = {job.path: job.method == "wanda" for job in jobs if job.method != "magnitude"}
    if wanted and (state.calibration is None or not len(state.calibration)):
        job = next(job for job in jobs if job.path in wanted)
        raise CompressionError(f"sparsify({job.layer}).method: {job.method} needs calibration inputs; there are none")
    moments, state = input_moments(state, wanted)
    for path, sums in moments.items():
        check_finite(f"sparsify({path}).method", sums)
    done = [_Done.of(job, state.model, moments.get(job.path), shared) for job in jobs]
    facts = {
        name: _facts([each for each in done if each.layer == name], str(chosen["pattern"]), str(chosen["method"]))
        for name, chosen in settings.items()
    }
    return replace(state.with_realized(facts), stale=state.stale or any(each.zeros for each in done))


@dataclass(frozen=True)
class _Job:
    """What is to be done with one plain layer, at ``path``, of the named ``layer``."""

    layer: str
    path: str
    method: str
    pattern: RowPattern
    regrow: bool


@dataclass(frozen=True)
class _Done:
    """What was done: weights set to zero, of how many, and how they were chosen."""

    layer: str
    zeros: int
    weights: int
    method: str

    @classmethod
    def of(cls, job: _Job, model: nn.Module, sums: Tensor | None, shared: set[int]) -> _Done:
        """Do it."""
        layer = live(model.get_submodule(job.path))
        method = "magnitude" if sums is None else job.method
        zeros = weights = 0
        for name in layer.ways:
            mask = _sparsify(layer, name, replace(job, method=method), sums, shared)
            zeros, weights = zeros + int((~mask).sum()), weights + mask.numel()
        return cls(job.layer, zeros, weights, method)


def _jobs(model: nn.Module, name: str, chosen: Mapping[str, Value], shared: set[int]) -> list[_Job]:
    sparsity, regrow = float(chosen["sparsity"]), bool(chosen["regrow"])
    if not sparsity:
        return []
    pattern = pattern_of(str(chosen["pattern"]), sparsity)
    return [
        _Job(name, path, _possible(str(chosen["method"]), layer, shared), pattern, regrow)
        for path, layer in parts(model, name).items()
    ]


def _possible(method: str, layer: nn.Module, shared: set[int]) -> str:
    """This method, or ``magnitude`` where the layer does not allow it."""
    if not isinstance(layer, _PLAIN):
        return "magnitude"
    rounded = isinstance(layer, LiveLayer) and layer.ways["weight"].quantizer is not None
    return "magnitude" if method == "obs" and (rounded or id(layer.weight) in shared) else method


def _sparsify(layer: LiveLayer, name: str, job: _Job, sums: Tensor | None, shared: set[int]) -> Tensor:
    """Choose the mask of one weight tensor, which is returned, and settle what is under it."""
    weight, way = layer.get_parameter(name), layer.ways[name]
    assert isinstance(way, LiveWeight)
    rows = as_rows(weight.detach())
    if job.method == "obs" and sums is not None:
        rows, mask = obs(rows, sums, job.pattern)
    elif job.method == "wanda" and sums is not None:
        norms = sums.sqrt().to(rows.dtype)
        mask = job.pattern.of_rows(rows.abs() * norms.repeat_interleave(len(rows) // len(norms), dim=0))
    else:
        mask = job.pattern.of_rows(rows.abs())
    if not job.regrow:
        rows = torch.where(mask, rows, 0.0)  # so that whoever reads the parameter sees what is used
    if id(weight) not in shared:
        with torch.no_grad():
            weight.copy_(from_rows(rows, weight.shape).clone())  # rows may be the weight itself
    way.mask = from_rows(mask, weight.shape)
    way.pattern = job.pattern if job.regrow else None
    return mask


def _facts(done: Sequence[_Done], pattern: str, method: str) -> dict[str, Value]:
    """What became of a layer; ``method`` as asked where nothing had to be chosen."""
    zeros, weights = sum(each.zeros for each in done), sum(each.weights for each in done)
    used = dict.fromkeys(each.method for each in done)
    return {
        "sparsity": zeros / weights if weights else 0.0,
        "pattern": pattern,
        "sparsity_method": "+".join(used) or method,
    }
