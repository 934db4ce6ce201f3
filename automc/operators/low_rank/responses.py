"""Second moments of what layers answer to the calibration inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.copies import equal
from automc.operators.factorized import like
from automc.operators.low_rank.decompositions import Part
from automc.operators.recalibrate import check_finite, entered, observe

_KEY = "factorize responses"
_KEPT = 2**27
"""Bytes of the original network's sums that are kept for later trials."""


def second_moments(state: Compression, parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """By layer, the sum of z z^T over the answers z of this part of it to what the layer sees; float64.

    All in the network as it is by now. Where its batch-norm statistics are stale the same pass recalibrates them (see
    ``quantize``); where it is still the original, the sums are the same in every trial and are remembered, as far as
    there is room.

    Args:
        parts: by layer name, from the layer's inputs to rows that each see them (see ``decompositions.response``).

    Returns:
        Shape (rows, rows) each.

    Raises:
        CompressionError: there are no calibration inputs, the layer does not run on them, or what it reads then is NaN
            or infinite.
    """
    if not parts:
        return {}
    model, inputs = state.model, state.calibration
    if inputs is None or not len(inputs):
        raise CompressionError(f"factorize({next(iter(parts))}).data_aware needs calibration inputs; there are none")
    memory = state.memory if equal(model, state.teacher) else {}
    places = {name: (_KEY, name, part.axes) for name, part in parts.items()}
    found = {name: memory[place] for name, place in places.items() if place in memory}
    wanted = {name: part for name, part in parts.items() if name not in found}
    if wanted:
        with _observed(model, wanted) as sums:
            observe(model, inputs, state.stale, state.teacher)
        for name, moment in sums.items():
            check_finite(f"factorize({name}).data_aware", moment)
            found[name] = moment
            if moment.nbytes + _held(memory) <= _KEPT:
                memory[places[name]] = moment
    for name in parts:
        if name not in found:
            raise CompressionError(f"factorize({name}).data_aware: the layer does not run on the calibration inputs")
    return found


def _held(memory: Mapping[Hashable, Any]) -> int:
    """Bytes of the sums that are remembered."""
    return sum(value.nbytes for key, value in memory.items() if isinstance(key, tuple) and key[0] == _KEY)


@contextmanager
def _observed(model: nn.Module, parts: Mapping[str, Part]) -> Iterator[dict[str, Tensor]]:
    """The sums, filled by every forward inside the block."""
    sums: dict[str, Tensor] = {}

    def watch(name: str, part: nn.Module, axis: int) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> None:
            answers = part(entered(args, kwargs).detach()).movedim(axis, -1).flatten(0, -2).double()
            sums[name] = sums.get(name, 0) + answers.T @ answers

        return hook

    with ExitStack() as hooks:
        for name, part in parts.items():
            layer = model.get_submodule(name)
            watching = watch(name, like(layer, part), 1 - part.weight.dim())
            hooks.enter_context(layer.register_forward_pre_hook(watching, with_kwargs=True))
        yield sums
