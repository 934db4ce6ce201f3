"""The least damage under bounds on costs.

Lagrange's relaxation: with a price on every bound the sum of damage and priced costs is minimised exactly
(``Tables.minimum``), which bounds the damage of every policy that keeps the bounds from below (Everett 1963); the best
prices are found by cutting planes (Kelley 1960). What the prices leave of the budget is used up move by move, and
``exact`` closes the gap where that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from automc.core.metrics import Constraint
from automc.proposers.allocate.tables import Floats, Indices, Tables

ROUNDS = 40
"""Prices tried at most."""

_CLOSE, _NEAR = 1e-9, 1e-4


class Solution(NamedTuple):
    """A choice (indices by axis), its damage, and a lower bound on that of any choice that keeps the bounds.

    ``holds``: whether it keeps them itself; where it does not, none was found.
    """

    choice: Indices
    damage: float
    bound: float
    holds: bool

    @property
    def proved(self) -> bool:
        """Whether it is known to be the best under the model."""
        return self.holds and self.damage <= self.bound + _CLOSE * max(abs(self.damage), 1.0)


class Question(NamedTuple):
    """Least damage with ``rows @ cost <= limits``: damages by axis and value, the same over the tables (``flat``), and
    the costs of the tables in rows, shape (bounds, entries).
    """

    tables: Tables
    damages: Sequence[Floats]
    flat: Floats
    costs: Floats
    limits: Floats

    def damage(self, choice: Indices) -> float:
        return float(sum(damage[i] for damage, i in zip(self.damages, choice, strict=True)))

    def excess(self, choice: Indices) -> Floats:
        """Shape (bounds,): above 0 where a bound is broken."""
        found: Floats = self.costs[:, self.tables.entries(choice)].sum(axis=1) - self.limits
        return found


def ask(tables: Tables, damages: Sequence[Floats], bounds: Sequence[Constraint]) -> Question:
    """Damages as the table of a model, bounds of metrics of core.budget.ANALYTIC."""
    rows, limits = tables.limits(bounds)
    return Question(tables, damages, tables.spread(damages), rows @ tables.costs, limits)


def solve(tables: Tables, damages: Sequence[Floats], bounds: Sequence[Constraint], exact: bool = False) -> Solution:
    """The choice with the least damage.

    Args:
        damages: by axis, one a value. exact: close the gap (see ``exact.closed``), in up to some seconds.
    """
    question = ask(tables, damages, bounds)
    prices, bound, seen = _priced(question)
    found = [_filled(question, _repaired(question, choice)) for choice in seen]
    best = min(found, key=lambda choice: (_over(question, choice), question.damage(choice)))
    solution = Solution(best, question.damage(best), bound, _over(question, best) <= 0)
    if exact and not solution.proved:
        from automc.proposers.allocate.exact import closed

        return closed(question, prices, solution)
    return solution


def neighbours(
    tables: Tables, damages: Sequence[Floats], bounds: Sequence[Constraint], choice: Indices
) -> Iterator[Indices]:
    """Choices that differ in one axis and keep the bounds, the least damage first."""
    question = ask(tables, damages, bounds)
    axis, value, harm, _ = _moves(question, choice)
    for i in np.lexsort((value, axis, harm)):
        other = choice.copy()
        other[axis[i]] = value[i]
        if value[i] != choice[axis[i]] and _over(question, other) <= 0:
            yield other


def _over(question: Question, choice: Indices) -> float:
    """By how much bounds are broken; 0 up to rounding."""
    excess = question.excess(choice)
    return float(np.where(excess > _CLOSE * np.maximum(np.abs(question.limits), 1e-3), excess, 0.0).sum())


def _priced(question: Question) -> tuple[Floats, float, list[Indices]]:
    """The best prices found, the bound they prove, and the choices at the ends: the best that hold, the nearest that
    do not."""
    pieces: list[tuple[float, Floats, Indices]] = []

    def at(prices: Floats) -> float:
        choice, least, _ = question.tables.minimum(question.flat + prices @ question.costs)
        pieces.append((question.damage(choice), question.excess(choice), choice))
        return least - float(prices @ question.limits)

    worst = float(sum(damage.max() for damage in question.damages))
    prices, bound = np.zeros(len(question.limits)), -np.inf
    trial = prices
    for _ in range(ROUNDS):
        value = at(trial)
        if value > bound:
            prices, bound = trial, value
        trial, hoped = _next(pieces, trial, max(worst, 1e-9))
        if hoped <= bound + _NEAR * abs(bound) or bound > worst:  # beyond the worst nothing holds
            break
        if len(prices) > 1 and np.isfinite(hoped):  # half way to the best found keeps cutting planes from swinging
            trial = (trial + prices) / 2
    holding = [piece for piece in pieces if (piece[1] <= _CLOSE).all()]
    broken = [piece for piece in pieces if not (piece[1] <= _CLOSE).all()]
    ends = sorted(holding, key=lambda p: p[0])[:1] + sorted(broken, key=lambda p: float(np.maximum(p[1], 0).sum()))[:1]
    return prices, bound, [piece[2] for piece in ends]


def _next(pieces: Sequence[tuple[float, Floats, Indices]], last: Floats, unit: float) -> tuple[Floats, float]:
    """The prices where the smallest of the pieces, damage + prices @ excess, is largest, and that value."""
    damage = np.array([piece[0] for piece in pieces])
    excess = np.array([piece[1] for piece in pieces])
    if not excess.shape[1]:
        return last, float(damage.min())
    # While nothing limits them, prices grow by a factor of ten a step, instead of to the end at once.
    return _master(damage, excess, max(10 * float(last.max()), unit))


def _master(damage: Floats, excess: Floats, most: float) -> tuple[Floats, float]:
    """Prices in [0, most] that maximise the smallest of damage + prices @ excess, and that value; infinite if unsure.

    The simplex method on the dual, the mixture of pieces with the least damage that keeps the bounds on average
    (Dantzig & Wolfe 1960): it has a row a bound and one more, which a general solver takes a hundred times as long for.

    Args:
        damage: shape (n,). excess: shape (n, bounds).
    """
    n, bounds = excess.shape
    unit = np.vstack([np.eye(bounds), np.zeros((1, bounds))])
    columns = np.hstack([np.vstack([excess.T, np.ones((1, n))]), unit, -unit])
    price = np.concatenate([damage, np.zeros(bounds), np.full(bounds, most)])
    start = int(damage.argmin())
    basis = [start, *(n + i + bounds * int(e > 0) for i, e in enumerate(excess[start]))]
    close = 1e-12 * max(float(np.abs(damage).max()), 1e-12)
    value = np.zeros(bounds + 1)
    for _ in range(20 * (bounds + 1)):
        inverse = np.linalg.inv(columns[:, basis])
        value = price[basis] @ inverse
        reduced = price - value @ columns
        enters = int(reduced.argmin())
        if reduced[enters] >= -close:
            return np.clip(-value[:bounds], 0.0, most), float(value[bounds])
        step, level = inverse @ columns[:, enters], np.maximum(inverse[:, bounds], 0.0)
        leaves = int(np.where(step > 1e-12, level / np.where(step > 1e-12, step, 1.0), np.inf).argmin())
        if step[leaves] <= 1e-12:
            break
        basis[leaves] = enters
    return np.clip(-value[:bounds], 0.0, most), np.inf


def _moves(question: Question, choice: Indices) -> tuple[Indices, Indices, Floats, Floats]:
    """What changing one axis to one value changes: axes, values, damage (n,) and costs (bounds, n)."""
    tables = question.tables
    axis, value, factor, starts = tables.rows
    here = tables.entries(choice)
    there = here[factor] + (value - choice[axis]) * tables.strides[factor, axis]
    change = question.costs[:, there] - question.costs[:, here[factor]]
    moved_axis, moved_value = axis[starts], value[starts]
    damage = np.concatenate(question.damages)
    firsts = np.cumsum([0, *tables.sizes[:-1]])
    harm = damage[firsts[moved_axis] + moved_value] - damage[firsts + choice][moved_axis]
    return moved_axis, moved_value, harm, np.add.reduceat(change, starts, axis=1)


def _repaired(question: Question, choice: Indices) -> Indices:
    """Until the bounds hold: the move that adds the least damage to what it takes off the excess."""
    choice = choice.copy()
    for _ in range(4 * len(choice)):
        excess = question.excess(choice)
        over = np.maximum(excess, 0)[:, None]
        if not over.any():
            break
        axis, value, harm, change = _moves(question, choice)
        gain = (over - np.maximum(excess[:, None] + change, 0)).sum(axis=0)
        score = np.where(gain > _CLOSE, np.maximum(harm, 1e-12) / np.maximum(gain, 1e-300), np.inf)
        best = int(score.argmin())
        if not np.isfinite(score[best]):
            break
        choice[axis[best]] = value[best]
    return choice


def _filled(question: Question, choice: Indices) -> Indices:
    """While the bounds hold: the move that takes off the most damage for its share of what is left."""
    choice = choice.copy()
    slack = -question.excess(choice)
    if (slack < 0).any():
        return choice
    for _ in range(8 * len(choice)):
        slack = np.maximum(-question.excess(choice), 0)[:, None]
        axis, value, harm, change = _moves(question, choice)
        fits = (change <= slack).all(axis=0) & (harm < -1e-15)
        if not fits.any():
            break
        share = np.maximum(change / np.maximum(slack, 1e-15), 0).max(axis=0, initial=0.0)
        score = np.where(fits, -harm / (share + 1e-6), -np.inf)
        best = int(score.argmax())
        choice[axis[best]] = value[best]
    return choice
