"""What runtimes have kernels for, as data: one JSON file a runtime, by its name.

A value of a setting without a kernel still makes the file smaller; it brings no speed there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from automc.core.policy import Value
from automc.core.space import OperatorInfo, SearchSpace, written

FOLDER = Path(__file__).resolve().parent
RUNTIMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@dataclass(frozen=True)
class Kernels:
    """What a runtime computes faster of one setting.

    Attributes:
        operator, setting: of the space. kinds: of layers; empty for all. fast: the values with kernels of their own.
        others: what happens to the other values, as the end of a sentence.
    """

    operator: str
    setting: str
    kinds: tuple[str, ...]
    fast: tuple[Value, ...]
    others: str


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        latencies: the metrics that automc measures or predicts in it.
    """

    name: str
    about: str
    latencies: tuple[str, ...]
    kernels: tuple[Kernels, ...]


@cache
def runtime(name: str) -> Runtime:
    """The table of a runtime of RUNTIMES."""
    data = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    rows = (row | {"kinds": tuple(row["kinds"]), "fast": tuple(row["fast"])} for row in data["settings"])
    return Runtime(name, data["about"], tuple(data["latencies"]), tuple(Kernels(**row) for row in rows))


def without_kernels(name: str, space: SearchSpace, operators: Iterable[OperatorInfo]) -> Iterator[str]:
    """One line for each setting of which the space has values that bring no speed in a runtime.

    Args:
        operators: whose settings the space has.
    """
    known = {each.name: each for each in operators}
    kinds = {layer.name: layer.kind for layer in space.layers.layers}
    chosen = {decision.site: decision.domain.values(2) for decision in space.decisions}
    chosen |= {site: [value] for site, value in space.fixed.items()}
    for kernels in runtime(name).kernels:
        found: dict[Value, set[str]] = {}
        for site, values in chosen.items():
            same = (site.operator, site.setting) == (kernels.operator, kernels.setting)
            if not same or (kernels.kinds and kinds.get(site.layer) not in kernels.kinds):
                continue
            neutral = known[site.operator].settings[site.setting].neutral
            for value in values:
                if value not in kernels.fast and value != neutral:
                    found.setdefault(value, set()).add(site.layer)
        if found:
            layers = len(set().union(*found.values()))
            numbers = ", ".join(written(value) for value in sorted(found, key=lambda v: (str(type(v)), v)))
            where = f"{layers} layer{'s' if layers > 1 else ''}"
            yield f"{name}: {kernels.operator}.{kernels.setting} {numbers} on {where} {kernels.others}"
