"""Closing the gap: what can still be part of a better choice is little, and over that the optimum is exact.

A value of an axis can be in a better choice only if the best priced sum with this value is below that of the choice in
hand; these sums for all values come from one walk back over the elimination (min-marginals). What is left falls into
components that share no table. Where each has few combinations this is a multiple-choice knapsack, solved by dynamic
programming over labels that no bound and no other label excludes (Pisinger 1995); else an integer program
(scipy's HiGHS) over indicator variables of values, with the tables as in the local polytope of a graphical model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from automc.proposers.allocate.solve import Question, Solution
from automc.proposers.allocate.tables import Floats, Indices

COMBINATIONS, LABELS, COLUMNS = 4_096, 60_000, 40_000
"""Of a component; of the knapsack at a time; of the integer program. Beyond these a choice stays unproved."""

NODES = 2_000
"""Of the integer program's tree: a limit in seconds would not repeat."""

_ROUNDING = 1e-9


class Item(NamedTuple):
    """A component's combinations: values by axis (n, axes), damage (n,), costs (bounds, n)."""

    axes: tuple[int, ...]
    values: Indices
    damage: Floats
    costs: Floats


def closed(question: Question, prices: Floats, found: Solution) -> Solution:
    """The best choice, proved, or what was ``found`` with the bound as it is where that takes too much."""
    if not found.holds:
        return program(question, [np.arange(size) for size in question.tables.sizes], found)
    kept = candidates(question, prices, found)
    parts = components(question, kept)
    if all(math.prod(len(kept[v]) for v in part) <= COMBINATIONS for part in parts):
        better = knapsack(question, [enumerated(question, kept, part) for part in parts], prices, found)
        if better is not None:
            return better
    return program(question, kept, found)


def candidates(question: Question, prices: Floats, found: Solution) -> list[Indices]:
    """By axis, the values that a better choice can have."""
    tables = question.tables
    flat = question.flat + prices @ question.costs
    _, least, sums = tables.minimum(flat)
    gap = found.damage - (least - float(prices @ question.limits))
    gap += _ROUNDING * max(abs(found.damage), float(np.abs(prices) @ np.abs(question.limits)), 1.0)
    kept: list[Indices] = [np.zeros(0, dtype=np.int64)] * len(tables.axes)
    beliefs: list[Floats] = list(sums)
    parents = {t - len(tables.factors): s for s, step in enumerate(tables.steps) for t, _ in step.inputs}
    for s in reversed(range(len(tables.steps))):
        step = tables.steps[s]
        if step.left:
            above = tables.steps[parents[s]]
            clique = (*above.gone, *above.left)
            whole = beliefs[parents[s]].reshape([tables.sizes[v] for v in clique])
            others = tuple(i for i, v in enumerate(clique) if v not in step.left)
            beliefs[s] = sums[s] + (whole.min(axis=others).reshape(-1) - sums[s].min(axis=0))
        shape = [tables.sizes[v] for v in (*step.gone, *step.left)]
        belief = beliefs[s].reshape(shape)
        for i, v in enumerate(step.gone):
            lowest = belief.min(axis=tuple(j for j in range(len(shape)) if j != i))
            near = lowest - lowest.min() <= gap
            near[found.choice[v]] = True
            kept[v] = np.flatnonzero(near)
    return kept


def components(question: Question, kept: Sequence[Indices]) -> list[tuple[int, ...]]:
    """Axes with a choice left, in sets that share no table."""
    of: dict[int, set[int]] = {v: {v} for v, values in enumerate(kept) if len(values) > 1}
    for factor in question.tables.factors:
        tied = [v for v in factor.scope if v in of]
        joined = set().union(*(of[v] for v in tied)) if tied else set()
        for v in joined:
            of[v] = joined
    return [tuple(sorted(part)) for v, part in of.items() if v == min(part)]


def enumerated(question: Question, kept: Sequence[Indices], part: tuple[int, ...]) -> Item:
    """All combinations of a component, with the costs of its tables; the other axes there have one candidate each."""
    tables = question.tables
    values = np.array(list(itertools.product(*(kept[v] for v in part))), dtype=np.int64).reshape(-1, len(part))
    damage = np.sum([question.damages[v][values[:, i]] for i, v in enumerate(part)], axis=0)
    used = np.flatnonzero(tables.strides[:, list(part)].any(axis=1))
    first = np.array([options[0] for options in kept], dtype=np.int64)
    choice = np.tile(first, (len(values), 1))
    choice[:, list(part)] = values
    entries = tables.offsets[used][:, None] + tables.strides[used] @ choice.T
    return Item(part, values, damage, question.costs[:, entries].sum(axis=1))


def knapsack(question: Question, items: Sequence[Item], prices: Floats, found: Solution) -> Solution | None:
    """One combination of every item: the least damage within the limits; None where labels become too many."""
    limits, base = _left_over(question, items, found)
    items = sorted(items, key=lambda item: (-len(item.damage), item.axes))
    priced = [float((item.damage + prices @ item.costs).min()) for item in items]
    cheapest = [item.costs.min(axis=1) for item in items]
    best = found.damage - base
    damage, costs = np.zeros(1), np.zeros((len(limits), 1))
    trail: list[tuple[Indices, Indices]] = []
    room = np.maximum(np.abs(question.limits), 1e-3)[:, None] * _ROUNDING
    for i, item in enumerate(items):
        if len(damage) * len(item.damage) > 50 * LABELS:
            return None
        damage = (damage[:, None] + item.damage[None]).reshape(-1)
        costs = (costs[:, :, None] + item.costs[:, None, :]).reshape(len(limits), -1)
        rest = np.sum([np.zeros(len(limits)), *cheapest[i + 1 :]], axis=0)
        able = (costs + rest[:, None] <= limits[:, None] + room).all(axis=0)
        hope = damage + prices @ (costs - limits[:, None]) + sum(priced[i + 1 :])
        able &= hope <= best + _ROUNDING * max(abs(found.damage), 1.0)
        index = np.flatnonzero(able)
        index = index[_undominated(damage[index], costs[:, index])]
        if len(index) > LABELS:
            return None
        damage, costs = damage[index], costs[:, index]
        trail.append((index // len(item.damage), index % len(item.damage)))
    if not len(damage) or damage.min() >= best:
        return found._replace(bound=found.damage)
    label, choice = int(damage.argmin()), found.choice.copy()
    for item, (before, taken) in zip(reversed(items), reversed(trail), strict=True):
        choice[list(item.axes)] = item.values[taken[label]]
        label = int(before[label])
    return Solution(choice, question.damage(choice), question.damage(choice), True)


def program(question: Question, kept: Sequence[Indices], found: Solution) -> Solution:
    """The same as an integer program: values are binary, tables follow from them."""
    made = _Program(question, kept)
    if made.columns > COLUMNS:
        return found
    least = np.concatenate([np.full(len(question.limits), -np.inf), made.wanted])
    most = np.concatenate([question.limits + 1e-12, made.wanted])
    answer = milp(
        made.harm,
        integrality=made.whole,
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(made.matrix(), least, most),
        options={"node_limit": NODES, "mip_rel_gap": 0.0},
    )
    bound = found.bound
    if getattr(answer, "mip_dual_bound", None) is not None and np.isfinite(answer.mip_dual_bound):
        bound = max(bound, float(answer.mip_dual_bound))
    if answer.x is None:
        return found._replace(bound=min(bound, found.damage) if found.holds else bound)
    choice = found.choice.copy()
    for v, columns in made.of.items():
        choice[v] = kept[v][int(np.argmax(answer.x[columns]))]
    damage = question.damage(choice)
    if (damage < found.damage or not found.holds) and (question.excess(choice) <= _ROUNDING).all():
        found = found._replace(choice=choice, damage=damage, holds=True)
    # HiGHS proves within its own tolerance of feasibility, 1e-6.
    near = answer.status == 0 and bound >= found.damage - 1e-6 * max(1.0, found.damage)
    return found._replace(bound=found.damage if near else min(bound, found.damage))


def _undominated(damage: Floats, costs: Floats) -> NDArray[np.bool_] | slice:
    """With one bound: in order of cost only what has less damage than all before."""
    if costs.shape[0] != 1 or not len(damage):
        return slice(None)
    order = np.lexsort((damage, costs[0]))
    ahead = np.minimum.accumulate(np.append(np.inf, damage[order][:-1]))
    keep = np.zeros(len(damage), dtype=np.bool_)
    keep[order] = damage[order] < ahead
    return keep


def _left_over(question: Question, items: Sequence[Item], found: Solution) -> tuple[Floats, float]:
    """The limits and the damage less what is decided already."""
    open_axes = {v for item in items for v in item.axes}
    base = sum(
        float(d[i]) for v, (d, i) in enumerate(zip(question.damages, found.choice, strict=True)) if v not in open_axes
    )
    strides = question.tables.strides
    decided = ~strides[:, sorted(open_axes)].any(axis=1) if open_axes else np.ones(len(strides), dtype=bool)
    spent = question.costs[:, question.tables.entries(found.choice)[decided]].sum(axis=1)
    return question.limits - spent, base


class _Program:
    """Columns: one a candidate value of an open axis, one an entry of a table that ties several open axes.

    Attributes:
        of: the columns of an axis. harm, whole: damage and integrality by column. wanted: right sides of the equations.
    """

    def __init__(self, question: Question, kept: Sequence[Indices]) -> None:
        self._question, self._kept = question, kept
        self.of: dict[int, NDArray[np.int64]] = {}
        self.columns = 0
        for v, values in enumerate(kept):
            self.of[v] = np.arange(self.columns, self.columns + len(values))
            self.columns += len(values)
        values_only = self.columns
        self._tied: list[tuple[int, int]] = []
        for f, factor in enumerate(question.tables.factors):
            if sum(len(kept[v]) > 1 for v in factor.scope) > 1:
                self._tied.append((f, self.columns))
                self.columns += math.prod(len(kept[v]) for v in factor.scope)
        self.harm = np.zeros(self.columns)
        for v, values in enumerate(kept):
            self.harm[self.of[v]] = question.damages[v][values]
        self.whole = (np.arange(self.columns) < values_only).astype(np.int64)

    @property
    def wanted(self) -> Floats:
        """One value an axis; and an entry's axes have its values."""
        ties = sum(len(self._kept[v]) for f, _ in self._tied for v in self._question.tables.factors[f].scope)
        return np.concatenate([np.ones(len(self._kept)), np.zeros(ties)])

    def matrix(self) -> csr_array:
        """Rows: costs by bound, then the equations in the order of ``wanted``."""
        question, cells = self._question, []
        bounds = len(question.limits)
        row = bounds
        for v in range(len(self._kept)):
            cells += [(row, column, 1.0) for column in self.of[v].tolist()]
            row += 1
        starts = dict(self._tied)
        for f, factor in enumerate(question.tables.factors):
            entries, values = self._entries(f)
            if f not in starts:  # at most one axis is open: its columns carry the table
                lead = max(factor.scope, key=lambda v: len(self._kept[v]))
                columns = self.of[lead]
            else:
                columns = np.arange(starts[f], starts[f] + len(entries))
                for i, v in enumerate(factor.scope):
                    for at, value in enumerate(self._kept[v].tolist()):
                        cells += [(row, int(c), 1.0) for c in columns[values[:, i] == value]]
                        cells.append((row, int(self.of[v][at]), -1.0))
                        row += 1
            for m in range(bounds):
                costs = question.costs[m, entries].tolist()
                cells += [(m, int(c), cost) for c, cost in zip(columns, costs, strict=True)]
        where = np.array([cell[:2] for cell in cells]).T
        return csr_array(([cell[2] for cell in cells], (where[0], where[1])), shape=(row, self.columns))

    def _entries(self, f: int) -> tuple[Indices, Indices]:
        """Of a table what the candidates leave: where it is, and its values by axis."""
        tables, scope = self._question.tables, self._question.tables.factors[f].scope
        values = np.array(list(itertools.product(*(self._kept[v] for v in scope))), dtype=np.int64)
        return tables.offsets[f] + values @ tables.strides[f, list(scope)], values
