"""What policies cost, as one table a layer over the values of the decisions that meet in it.

The cost of a layer depends on its own bits and rank, on the group it produces and on the groups that feed it; the cost
of a network is the sum over its layers. Minimising a sum of such tables is elimination of variables (Bertele & Brioschi
1972; Dechter 1999): decisions of one layer alone go first, then groups, each where the fewest others are tied to it.
On a chain this is dynamic programming along the layers; the stages of a residual network are carried along.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import COSTS, RATIOS, Analytic
from automc.core.metrics import Constraint
from automc.core.policy import Policy, Site, Value
from automc.core.space import SearchSpace
from automc.proposers.allocate.axes import LEVELS, Axis, axes_of

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LARGEST = 60_000
"""Entries of a layer's table, and of what is tied together when a decision is eliminated. What would be larger is
linearised: layers behind long concatenations."""


class Factor(NamedTuple):
    """A table: a layer's cost over the axes in ``scope``, the others at their middle; ``change`` from the middle."""

    layer: str
    scope: tuple[int, ...]
    change: bool = False


class Step(NamedTuple):
    """Axes eliminated together: the tables summed for it with the shape each is given, and the axes left."""

    gone: tuple[int, ...]
    left: tuple[int, ...]
    inputs: tuple[tuple[int, tuple[int, ...]], ...]


class Tables:
    """Costs of all policies of a space, over the original's, as a sum of tables.

    Attributes:
        axes: the decisions allocated.
        costs: shape (4, entries): of analytic.COSTS, all tables one behind the other.
        rest: costs of layers without an axis, shape (4,).
        steps: how minimisation goes. exact: whether no layer had to be linearised.
        rows: all changes of one axis: axis, value, factor of every table changed, and where a new change starts.

    Args:
        free: values of the decisions that are no axes, where they change costs.
    """

    def __init__(self, space: SearchSpace, levels: int = LEVELS, free: Mapping[Site, Value] | None = None) -> None:
        self.space, self.axes = space, axes_of(space, levels)
        self._analytic = Analytic(space.layers)
        self.sizes = [len(axis.values) for axis in self.axes]
        touched = [self._analytic.touched(axis.site) for axis in self.axes]
        meets = {x.name: tuple(v for v, names in enumerate(touched) if x.name in names) for x in space.layers.layers}
        self._meets = meets
        self.factors, groups = self._tied(meets)
        self.exact = not any(factor.change for factor in self.factors)
        place = {v: i for i, v in enumerate(itertools.chain(*groups))}
        self.factors = [f._replace(scope=tuple(sorted(f.scope, key=place.__getitem__))) for f in self.factors]
        self.steps = _steps([f.scope for f in self.factors], groups, place, self.sizes)
        self._lay_out()
        self._settings = _nested({**space.fixed, **(free or {})})
        scale = np.array([max(self._analytic.original[name], 1.0) for name in COSTS])
        rows = [self._table(factor) for factor in self.factors]
        self.costs: Floats = np.concatenate(rows, axis=1) / scale[:, None] if rows else np.zeros((4, 0))
        alone = [self._analytic.layer(name, self._settings) for name, scope in meets.items() if not scope]
        self.rest: Floats = np.sum([np.zeros(len(COSTS)), *map(np.array, alone)], axis=0) / scale
        self._scale = scale

    def limits(self, bounds: Sequence[Constraint]) -> tuple[Floats, Floats]:
        """The bounds as rows A (m, 4) and b (m,), ``A @ cost <= b``, the tightest one a metric and sign."""
        found: dict[tuple[int, float], float] = {}
        names = {name: (i, self._scale[i]) for i, name in enumerate(COSTS)}
        names |= {RATIOS[name]: (i, 1.0) for i, name in enumerate(COSTS)}
        for bound in bounds:
            row, scale = names[bound.metric]
            sign = 1.0 if bound.sign == "<=" else -1.0
            value = sign * (bound.bound / scale - self.rest[row])
            found[row, sign] = min(found.get((row, sign), math.inf), value)
        rows = np.zeros((len(found), len(COSTS)))
        for i, (row, sign) in enumerate(found):
            rows[i, row] = sign
        return rows, np.array(list(found.values()))

    def spread(self, damages: Sequence[Floats]) -> Floats:
        """Damages by axis (one array of its values each) as tables, shape (entries,)."""
        flat = np.zeros(self.costs.shape[1])
        for v, damage in enumerate(damages):
            f = self._home[v]
            scope, shape = self.factors[f].scope, self.shapes[f]
            view = flat[self.offsets[f] : self.offsets[f] + math.prod(shape)].reshape(shape)
            view += damage.reshape([-1 if u == v else 1 for u in scope])
        return flat

    def entries(self, choice: Indices) -> Indices:
        """Where in the tables a choice (indices by axis) is, shape (factors,)."""
        found: Indices = self.offsets + self.strides @ choice
        return found

    def cost(self, choice: Indices) -> Floats:
        """Of analytic.COSTS over the original's, shape (4,), without ``rest``."""
        found: Floats = self.costs[:, self.entries(choice)].sum(axis=1)
        return found

    def minimum(self, flat: Floats) -> tuple[Indices, float, list[Floats]]:
        """The choice with the least sum of tables, that sum, and the table of every step for ``exact``."""
        tables = [flat[o : o + math.prod(s)] for o, s in zip(self.offsets, self.shapes, strict=True)]
        least, sums = 0.0, []
        for step in self.steps:
            total = tables[step.inputs[0][0]].reshape(step.inputs[0][1])
            for table, shape in step.inputs[1:]:
                total = total + tables[table].reshape(shape)
            total = total.reshape(math.prod(self.sizes[v] for v in step.gone), -1)
            sums.append(total)
            tables.append(total.min(axis=0))
            least += 0.0 if step.left else float(tables[-1][0])
        choice = np.zeros(len(self.axes), dtype=np.int64)
        for step, total in zip(reversed(self.steps), reversed(sums), strict=True):
            column = 0
            for v in step.left:
                column = column * self.sizes[v] + int(choice[v])
            row = int(total[:, column].argmin())
            for v in reversed(step.gone):
                row, choice[v] = divmod(row, self.sizes[v])
        return choice, least, sums

    def policy_values(self, choice: Indices) -> dict[Site, Value]:
        """The choice by site."""
        return {axis.site: axis.values[int(i)] for axis, i in zip(self.axes, choice, strict=True)}

    def choice(self, policy: Policy) -> Indices:
        """The indices nearest to a policy."""
        return np.array([round(axis.place(policy[axis.site])) for axis in self.axes], dtype=np.int64)

    def _tied(self, meets: Mapping[str, tuple[int, ...]]) -> tuple[list[Factor], list[tuple[int, ...]]]:
        """Factors whose elimination stays small, and its order; where it does not, layers are linearised."""
        most = dict.fromkeys(meets, LARGEST)
        while True:
            factors: list[Factor] = []
            for name, scope in meets.items():
                kept = self._narrowed(scope, most[name])
                factors += [Factor(name, kept)] if scope else []
                factors += [Factor(name, (v,), change=True) for v in scope if v not in kept]
            reached = {v for factor in factors for v in factor.scope}
            factors += [Factor("", (v,)) for v in range(len(self.axes)) if v not in reached]
            groups, tight = _order([f.scope for f in factors], self.sizes)
            if tight is None:
                return factors, groups
            widest = max((f for f in factors if set(f.scope) & tight and len(f.scope) > 1), key=lambda f: len(f.scope))
            most[widest.layer] = 0

    def _narrowed(self, scope: tuple[int, ...], most: int) -> tuple[int, ...]:
        """The axes of a layer that its table keeps: its own first, then groups while there is room."""
        shared = [v for v in scope if self.axes[v].site.operator in ("prune", "drop")]
        kept = [v for v in scope if v not in shared]
        for v in shared:
            if math.prod(self.sizes[u] for u in (*kept, v)) <= max(most, 1):
                kept.append(v)
        return tuple(kept) if kept or not scope else scope[:1]

    def _lay_out(self) -> None:
        self.shapes = [tuple(self.sizes[v] for v in f.scope) for f in self.factors]
        ends = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)])
        self.offsets: Indices = ends[:-1].astype(np.int64)
        self.strides: Indices = np.zeros((len(self.factors), len(self.axes)), dtype=np.int64)
        self._home = [0] * len(self.axes)
        for f in reversed(range(len(self.factors))):
            stride = 1
            for v in reversed(self.factors[f].scope):
                self.strides[f, v], self._home[v] = stride, f
                stride *= self.sizes[v]
        of = [np.flatnonzero(self.strides[:, v]) for v in range(len(self.axes))]
        rows = [(v, i, f) for v, size in enumerate(self.sizes) for i in range(size) for f in of[v]]
        axis, value, factor = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        first = (np.diff(axis, prepend=-1) != 0) | (np.diff(value, prepend=-1) != 0)
        self.rows = axis, value, factor, np.flatnonzero(first)

    def _table(self, factor: Factor) -> Floats:
        """Costs of a layer for all values of its scope, shape (4, entries)."""
        shape = tuple(self.sizes[v] for v in factor.scope)
        if not factor.layer:
            return np.zeros((len(COSTS), math.prod(shape)))
        for v in self._meets[factor.layer]:
            self._write(self.axes[v], self.sizes[v] // 2)
        found = self._filled(factor)
        return found - found[:, [self.sizes[factor.scope[0]] // 2]] if factor.change else found

    def _filled(self, factor: Factor) -> Floats:
        """BOPs are proportional to the bits of the inputs and nothing else depends on them: these need no count."""
        axes = [self.axes[v] for v in factor.scope]
        linear = [axis.kind == "activation_bits" for axis in axes]
        ranges = [range(1) if once else range(len(axis.values)) for axis, once in zip(axes, linear, strict=True)]
        rows = []
        for point in itertools.product(*ranges):
            for axis, i in zip(axes, point, strict=True):
                self._write(axis, i)
            rows.append(self._analytic.layer(factor.layer, self._settings))
        found = np.array(rows).T.reshape(len(COSTS), *map(len, ranges))
        full = np.broadcast_to(found, (len(COSTS), *(len(axis.values) for axis in axes))).copy()
        for i, (axis, once) in enumerate(zip(axes, linear, strict=True)):
            if once:
                bits = np.array([float(value) for value in axis.values]) / float(axis.values[0])
                full[COSTS.index("bops")] *= bits.reshape([-1 if i == j else 1 for j in range(len(axes))])
        return full.reshape(len(COSTS), -1)

    def _write(self, axis: Axis, i: int) -> None:
        operator, layer, setting = axis.site
        self._settings.setdefault(operator, {}).setdefault(layer, {})[setting] = axis.values[i]


def _nested(values: Mapping[Site, Value]) -> dict[str, dict[str, dict[str, Value]]]:
    found: dict[str, dict[str, dict[str, Value]]] = {}
    for (operator, layer, setting), value in values.items():
        found.setdefault(operator, {}).setdefault(layer, {})[setting] = value
    return found


def _order(scopes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> tuple[list[tuple[int, ...]], set[int] | None]:
    """Groups of axes in the order of their elimination; and the first that ties more than LARGEST together, or None."""
    homes: dict[int, list[int]] = {}
    for f, scope in enumerate(scopes):
        for v in scope:
            homes.setdefault(v, []).append(f)
    groups = [tuple(v for v in scope if len(homes[v]) == 1) for scope in scopes]
    groups = [group for group in groups if group]
    gone = {v for group in groups for v in group}
    left = [set(scope) - gone for scope in scopes]
    while todo := set().union(*left):
        cliques = {v: set().union(*(scope for scope in left if v in scope)) for v in sorted(todo)}
        v = min(cliques, key=lambda u: (math.prod(sizes[w] for w in cliques[u]), u))
        if math.prod(sizes[w] for w in cliques[v]) > LARGEST and any(len(scope) > 1 for scope in left if v in scope):
            return groups, cliques[v]
        groups.append((v,))
        left = [scope for scope in left if v not in scope] + [cliques[v] - {v}]
    return groups, None


def _steps(
    scopes: Sequence[tuple[int, ...]],
    groups: Sequence[tuple[int, ...]],
    place: Mapping[int, int],
    sizes: Sequence[int],
) -> list[Step]:
    """The order as steps. Every table has its axes in that order, so that summing them needs no transposition."""
    tables = dict(enumerate(scopes))
    steps = []
    for group in groups:
        used = [t for t, scope in tables.items() if set(scope) & set(group)]
        clique = sorted({v for t in used for v in tables[t]}, key=place.__getitem__)
        gone = tuple(v for v in clique if v in group)
        left = tuple(v for v in clique if v not in group)
        shapes = [tuple(sizes[v] if v in tables[t] else 1 for v in clique) for t in used]
        # The widest first: sums then broadcast into its shape.
        inputs = sorted(zip(used, shapes, strict=True), key=lambda x: (-math.prod(x[1]), x[0]))
        steps.append(Step(gone, left, tuple(inputs)))
        for t in used:
            del tables[t]
        tables[len(scopes) + len(steps) - 1] = left
    return steps
