"""What a worker needs of its node, and whether a cluster has such nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from automc.core.rules import nearest
from automc.core.study import Rung
from automc.errors import WorkerError

_COMMON = ("CPU", "GPU")
_UNSAID = ("memory", "object_store_memory", "node:")


class Shape(NamedTuple):
    """The resources of a worker; rungs that need the same share their workers."""

    cpus: float
    gpus: float
    resources: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, rung: Rung) -> Shape:
        return cls(rung.cpus, rung.gpus, tuple(sorted(rung.resources.items())))

    @property
    def needs(self) -> dict[str, float]:
        """By Ray's names, what is above 0."""
        needs = {"CPU": self.cpus, "GPU": self.gpus, **dict(self.resources)}
        return {name: amount for name, amount in needs.items() if amount > 0}

    @property
    def options(self) -> dict[str, Any]:
        """For an actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.resources)}


def require(shapes: Sequence[Shape], nodes: Sequence[Mapping[str, float]], place: str) -> None:
    """Whether every rung's workers fit on some node, when it is empty.

    Args:
        shapes: one a rung. nodes: what each node of the cluster has, by Ray's names.

    Raises:
        WorkerError: a rung's do not; the message has what the nodes have.
    """
    for rung, shape in enumerate(shapes):
        if not any(all(node.get(name, 0.0) >= amount for name, amount in shape.needs.items()) for node in nodes):
            known = sorted({name for node in nodes for name in node})
            unknown = next((name for name in shape.needs if name not in known and name not in _COMMON), "")
            raise WorkerError(
                f"rungs[{rung}]: no node of {place} has {listed(shape.needs)} for a worker"
                f"{nearest(unknown, known) if unknown else ''} (it has: {inventory(nodes)}); "
                "ask for less, or start a node that has it"
            )


def inventory(nodes: Sequence[Mapping[str, float]]) -> str:
    """What the nodes have, alike ones counted: ``CPU 8, GPU 1; 2 nodes of CPU 4``."""
    kinds = Counter(listed({k: v for k, v in node.items() if not k.startswith(_UNSAID)}) for node in nodes)
    counted = [f"{count} nodes of {kind}" if count > 1 else kind for kind, count in sorted(kinds.items())]
    return "; ".join(counted) or "no nodes"


def listed(amounts: Mapping[str, float]) -> str:
    names = sorted(amounts, key=lambda name: (name not in _COMMON, name))
    return ", ".join(f"{name} {amounts[name]:g}" for name in names) or "nothing"
