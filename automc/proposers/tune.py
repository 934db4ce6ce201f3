"""Searchers of Ray Tune (``ray.tune.search``) as proposers, driven through their plain interface: no Tune, no Ray runs.

``optuna``, ``hyperopt`` and ``bayesopt`` (of ordered decisions only) work here where their packages are installed, as
does any other that can be told of trials it did not suggest: by ``add_evaluated_point``, or by being given them as its
first points. Those that cannot be are refused, because a study could not be resumed or extended with them:

- ZOOpt ignores first points (0.4.2); BOHB steers running trials from step to step.
- Nevergrad's wants an optimizer of yours, so it needs a factory; what it makes of first points decides then.
- ``random`` and ``variant_generator`` are no searchers: the proposers ``random`` and ``uniform`` are the same.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy
from automc.core.ports import Proposal
from automc.core.rules import nearest
from automc.core.signature import Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.errors import SpecError, one_line
from automc.proposers.coordinates import Coordinates, seeded
from automc.proposers.random import RandomProposer
from automc.proposers.told import Told

Searcher = Any
"""ray.tune.search.Searcher."""

METRIC = "loss"
SEEDS = ("seed", "random_state_seed", "random_state")
"""What searchers call the argument that seeds them."""

REFUSED: Mapping[str, str] = {
    "bohb": "it steers running trials from step to step; give the study rungs instead",
    "nevergrad": "it wants an optimizer; name a factory of yours that gives it one",
    "random": "use the proposer random",
    "variant_generator": "use the proposer uniform or random",
    "zoopt": "it cannot be told of trials that it did not suggest itself",
}


class TuneProposer:
    """A searcher of Ray Tune, built anew for every proposal from what was told.

    It is given the rows that are worth remembering (see Told), seeded by the trial's number, asked once, and dropped:
    so a resumed study asks what an uninterrupted one would have asked, if the searcher's draws come from its seed or
    from Python's and NumPy's global generators. What a searcher would remember beside trials and losses (suggestions
    on their way, its own generator) is not kept. It sees one number, to be minimised: the loss, and for policies that
    break a constraint one behind all that keep them (Told.scalars). Ordered decisions are ``tune.uniform(0, 1)``,
    others ``tune.choice``. Where a searcher has nothing to suggest, the policy is drawn at random.

    Args:
        searcher: a name that ``ray.tune.search.create_searcher`` knows, or ``package.module:factory``, which is called
            with those of ``metric``, ``mode``, ``points_to_evaluate`` and SEEDS that it takes, and gets the space by
            ``set_search_properties``.
        memory: how many rows it is shown at most, at least 20: the best half of all, and the last.

    Raises:
        SpecError: ray[tune] or what the searcher needs is not installed, an unknown searcher, one that cannot be told
            or cannot search this space, or several objectives.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        searcher: str = "optuna",
        memory: Annotated[int, Within(20, 100_000)] = 100,
    ) -> None:
        if len(objectives) > 1:
            names = ", ".join(o.metric for o in objectives)
            raise SpecError(
                f"proposer tune: its searchers have one objective, the study has {len(objectives)} ({names}); "
                "make all but one a constraint, or use nsga2"
            )
        self._seed, self._name, self._make = seed, searcher, _maker(searcher)
        self._coordinates = Coordinates(space)
        # Names of their own: Tune takes a slash in a name for a nested space.
        self._names = {name: f"x{place}" for place, name in enumerate(self._coordinates.options)}
        self._told = Told(space, objectives, constraints, memory)
        self._random = RandomProposer(space, objectives, constraints, seed)
        self._suggested(0, [(space.decode([0.5] * len(space)), 0.0)])

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        self._told.tell(trials)

    def _ask(self, number: int) -> Proposal:
        few = self._told.few()
        values = dict(zip(few, self._told.scalars(few).tolist(), strict=True))
        rows = {self._told.rows[i].policy: value for i, value in values.items()}  # a policy told twice has one loss
        found = self._suggested((self._seed * 1_000_003 + number) % 2**31, list(rows.items()))
        return self._random.ask(range(number, number + 1))[0] if found is None else Proposal(found)

    def _suggested(self, seed: int, rows: Sequence[tuple[Policy, float]]) -> Policy | None:
        """What a fresh searcher suggests that was told these policies and losses; None: nothing."""
        try:
            with seeded(seed), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._asked(seed, rows)
        except SpecError:
            raise
        except Exception as error:
            why = f"{one_line(error)}; choose another searcher"
            raise SpecError(f"proposer.settings.searcher: {self._name} cannot search this space: {why}") from error

    def _asked(self, seed: int, rows: Sequence[tuple[Policy, float]]) -> Policy | None:
        points = [self._point(policy) for policy, _ in rows]
        made = self._made(seed, points)
        if _listens(made):
            made = self._made(seed, [])
            for point, (_, value) in zip(points, rows, strict=True):
                made.add_evaluated_point(point, value)
        else:
            for place, (_, value) in enumerate(rows):
                suggested = made.suggest(str(place))
                if suggested is None:
                    continue  # to it, the same point as an earlier one
                if not isinstance(suggested, dict) or not _near(suggested, points[place]):
                    raise SpecError(
                        f"proposer.settings.searcher: {self._name} cannot be told of trials that it did not suggest "
                        "itself, so a study could not be resumed; choose another searcher"
                    )
                made.on_trial_complete(str(place), {METRIC: value, "training_iteration": 1})
        found = made.suggest("next")
        return self._policy(found) if isinstance(found, dict) else None

    def _made(self, seed: int, points: list[dict[str, Any]]) -> Searcher:
        from ray import tune

        offered = {
            "metric": METRIC,
            "mode": "min",
            "points_to_evaluate": copy.deepcopy(points) or None,
            **dict.fromkeys(SEEDS, seed),
        }
        taken = inspect.signature(self._make).parameters
        made = self._make(**{name: value for name, value in offered.items() if name in taken})
        options = self._coordinates.options
        words = {
            self._names[n]: tune.choice(list(range(o))) if o else tune.uniform(0.0, 1.0) for n, o in options.items()
        }
        made.set_search_properties(METRIC, "min", words)
        return made

    def _point(self, policy: Policy) -> dict[str, Any]:
        return {self._names[name]: value for name, value in self._coordinates.point(policy).items()}

    def _policy(self, point: Mapping[str, Any]) -> Policy:
        return self._coordinates.policy({name: point[short] for name, short in self._names.items()})


def _near(suggested: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a searcher returned the point that it was given; rounding is its own."""
    return suggested.keys() == point.keys() and all(abs(suggested[key] - point[key]) < 1e-6 for key in point)


def _listens(searcher: Searcher) -> bool:
    """Whether it can be told a point outright."""
    from ray.tune.search import Searcher as Base

    return type(searcher).add_evaluated_point is not Base.add_evaluated_point


def _maker(name: str) -> Callable[..., Searcher]:
    """What makes a searcher.

    Raises:
        SpecError: see TuneProposer.
    """
    where = "proposer.settings.searcher"
    known = _known()
    module, colon, attribute = name.partition(":")
    if name in REFUSED:
        raise SpecError(f"{where}: {name} cannot be used: {REFUSED[name]}")
    if not colon and name not in known:
        names = [key for key in known if key not in REFUSED]
        raise SpecError(
            f"{where}: must be one of {', '.join(names)}, or package.module:factory, not {name!r}{nearest(name, names)}"
        )
    try:
        found = getattr(import_module(module), attribute) if colon else known[name]()
    except Exception as error:
        raise SpecError(f"{where}: {name}: {one_line(error)}") from error
    if not callable(found):
        raise SpecError(f"{where}: {name}: must be callable, not {type(found).__name__}")
    return found


def _known() -> Mapping[str, Callable[[], Callable[..., Searcher]]]:
    """The searchers of the installed Tune by name, each imported when called.

    Raises:
        SpecError: ray[tune] is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        search = import_module("ray.tune.search")
    except ImportError as error:
        raise SpecError(f"proposer tune: ray[tune] is not whole ({error}); pip install 'automc[tune]'") from error
    for noisy in ("ray.tune.search", "hyperopt", "optuna"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    found: Mapping[str, Callable[[], Callable[..., Searcher]]] = search.SEARCH_ALG_IMPORT
    return found
