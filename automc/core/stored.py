"""A weight as a file holds it: few-bit codes, tables, masks; and the float32 weight they stand for.

Operators make it, export writes it, a reader without torch reads it: all three agree on ``dense``, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ROUNDING = 2.0**-21
"""Relative: the quotient and the product of single-precision numbers may differ by some 2^-24 each."""


@dataclass(frozen=True, eq=False)
class Stored:
    """One weight tensor. Row r is its r-th slice along axis 0, the output channel of a convolution or linear layer.

    ``w[r] = number(codes[r]) * scale[r]``, and 0 where ``mask`` is False. The number of a code is ``levels[code]``
    where there are levels, else ``code - zero[r]``, else the code itself. A weight that is only sparse has ``values``
    and no codes.

    Attributes:
        bits: of one code, 1 to 8; 32 with ``values``.
        codes: int16, the weight's shape. Without zero and levels signed: ``|code| <= 2^(bits-1) - 1``, or -1 and +1
            with one bit; with them from 0 to ``2^bits - 1``. None with ``values``.
        scale: float32, shape (rows,); negative ones are allowed where there are levels or zeros. None means 1.
        zero: int16, shape (rows,), or None. levels: float32, shape (k,), k <= 2^bits, or None.
        mask: bool, the weight's shape: False where the weight is 0 and need not be stored; None where all are kept.
        values: float32, the weight's shape, or None.
    """

    bits: int
    codes: Array | None = None
    scale: Array | None = None
    zero: Array | None = None
    levels: Array | None = None
    mask: Array | None = None
    values: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        held = self.values if self.codes is None else self.codes
        assert held is not None
        return tuple(held.shape)

    def dense(self) -> Array:
        """The weight, float32: one multiplication a number, in single precision."""
        if self.codes is None:
            assert self.values is not None
            weight = self.values.astype(np.float32)
        elif self.levels is not None:
            weight = self.levels.astype(np.float32)[self.codes]
        else:
            zero = 0 if self.zero is None else self._along_rows(self.zero)
            weight = (self.codes - zero).astype(np.float32)
        if self.scale is not None:
            weight = weight * self._along_rows(self.scale.astype(np.float32))
        return weight if self.mask is None else np.where(self.mask, weight, np.float32(0))

    def scaled(self, factor: Array) -> Stored:
        """This weight with row r multiplied by ``factor[r]``, as the fold of a batch norm does.

        Symmetric codes change their sign with a negative factor and keep their scale positive, as integer kernels
        want it. Scales that are then equal up to rounding become one: where the scale was one of the product, the file
        is to hold one.

        Args:
            factor: float64, shape (rows,).
        """
        if self.codes is None:
            assert self.values is not None
            return replace(self, values=(self.values * self._along_rows(factor)).astype(np.float32))
        scale = np.ones(len(self.codes)) if self.scale is None else self.scale.astype(np.float64)
        if self.zero is not None or self.levels is not None:
            return replace(self, scale=(scale * factor).astype(np.float32))._with_one_scale()
        flip = np.where(factor < 0, -1, 1).astype(self.codes.dtype)
        scale = (scale * np.abs(factor)).astype(np.float32)
        return replace(self, codes=self.codes * self._along_rows(flip), scale=scale)._with_one_scale()

    def _with_one_scale(self) -> Stored:
        """The first row's scale for all where they differ by rounding; rows with scale 0 only if they are 0 anyhow."""
        assert self.scale is not None
        used = self.scale != 0
        one = self.scale[used][0] if used.any() else np.float32(0)
        if not (np.abs(self.scale[used] - one) <= _ROUNDING * np.abs(one)).all():
            return self
        empty = replace(self, scale=np.where(used, np.float32(0), np.float32(1)))
        return replace(self, scale=np.where(used | (not empty.dense().any()), one, np.float32(0)))

    def _along_rows(self, values: Array) -> Array:
        return values.reshape(-1, *[1] * (len(self.shape) - 1))
