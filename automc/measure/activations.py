"""The memory that activations take at their peak, from what each function of a forward read and made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from torch import Tensor


def tensors_in(data: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, (tuple, list)):
        for part in data:
            yield from tensors_in(part)
    elif isinstance(data, dict):
        for part in data.values():
            yield from tensors_in(part)


@dataclass
class _Array:
    """An activation: what it takes unrounded, and which functions read it at how many bits an element."""

    elements: int
    bits: int
    made: int
    reads: list[tuple[int, int]] = field(default_factory=list)
    follows: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        return max((step for step, _ in self.reads), default=self.made)


class Activations:
    """Lifetimes of the activations of one forward.

    An activation lives from the function that makes it to the last one that reads it, whatever Python still holds; the
    network's inputs live from the start and are never written over, its outputs live to the end. A function that
    multiplies nothing (norms, activation functions, sums) writes in the place of an input of the same size that nobody
    reads later, as runtimes do. An element takes the bits of its type; where every reader rounds it (the inputs of
    quantized layers), only as many bits as the finest of them keeps. Views share their tensor's memory; parameters,
    buffers and what is made of them alone are no activations. Scratch memory inside a function is not counted.
    """

    def __init__(self, constants: Sequence[Tensor]) -> None:
        self._arrays: list[_Array] = []
        self._known: dict[int, tuple[int, int]] = {}  # storage -> (array or -1, bits it is read at)
        self._held: list[Any] = []  # a storage that is freed would pass its address on
        self._step = 0
        for tensor in constants:
            self._know(tensor, -1, 0)

    def given(self, data: Any) -> None:
        """The inputs of the network."""
        for tensor in tensors_in(data):
            self._make(tensor)

    def step(self, read: Any, made: Any, in_place: bool, bits: int = 64) -> None:
        """A function ran: it read these tensors, at most at so many bits an element, and made those.

        Args:
            in_place: it multiplies nothing, so that it could write where it read.
        """
        self._step += 1
        found: dict[int, int] = {}
        for tensor in tensors_in(read):
            index, kept = self._known.get(_storage(tensor), (-1, 0))
            if index >= 0:
                found[index] = max(min(kept, bits), found.get(index, 0))
        new = [tensor for tensor in tensors_in(made) if _storage(tensor) not in self._known]
        if not found:
            for tensor in new:
                self._know(tensor, -1, 0)
            return
        for index, kept in found.items():
            self._arrays[index].reads.append((self._step, kept))
        for tensor in new:
            self._make(tensor)
            if in_place:
                self._arrays[-1].follows.extend(found)

    def rounded(self, source: Any, result: Any, bits: int) -> None:
        """The result is the source with so many bits left: whoever reads it reads the source at these bits."""
        for tensor, new in zip(tensors_in(source), tensors_in(result), strict=False):
            index, kept = self._known.get(_storage(tensor), (-1, 0))
            if index >= 0 and _storage(new) != _storage(tensor):
                self._know(new, index, min(bits, kept))

    def peak(self, outputs: Any) -> int:
        """Bytes at the peak, given what the network returned."""
        self._step += 1
        for tensor in tensors_in(outputs):
            index, _ = self._known.get(_storage(tensor), (-1, 0))
            if index >= 0:
                self._arrays[index].reads.append((self._step, self._arrays[index].bits))
        change: defaultdict[int, int] = defaultdict(int)
        for members in self._places():
            size = _bytes([self._arrays[i] for i in members])
            change[self._arrays[members[0]].made] += size
            change[max(self._arrays[i].last for i in members) + 1] -= size
        return max(accumulate(change[step] for step in sorted(change)), default=0)

    def _places(self) -> list[list[int]]:
        """Arrays by the memory that they share, each written in the place of the one before it."""
        place: dict[int, list[int]] = {}
        for index, array in enumerate(self._arrays):
            before = next((i for i in array.follows if self._gives_way(i, array, place)), None)
            members = place[before] if before is not None else []
            members.append(index)
            place[index] = members
        return list({id(members): members for members in place.values()}.values())

    def _gives_way(self, index: int, array: _Array, place: dict[int, list[int]]) -> bool:
        other = self._arrays[index]
        free = other.made > 0 and other.last == array.made and place[index][-1] == index
        return free and other.elements * other.bits == array.elements * array.bits

    def _make(self, tensor: Tensor) -> None:
        self._know(tensor, len(self._arrays), 8 * tensor.element_size())
        self._arrays.append(_Array(tensor.numel(), 8 * tensor.element_size(), self._step))

    def _know(self, tensor: Tensor, index: int, bits: int) -> None:
        self._known[_storage(tensor)] = index, bits
        self._held.append(tensor)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(members: Sequence[_Array]) -> int:
    """What a place takes: its last array has readers of its own, the earlier ones were only written over.

    The finest reader of any of them decides, apart from the functions that wrote over.
    """
    over = {array.made for array in members[1:]}
    bits = [kept for array in members for step, kept in array.reads if step not in over]
    widest = max(members, key=lambda array: array.elements * array.bits)
    return (widest.elements * max(bits, default=widest.bits) + 7) // 8
