"""A trial database with a large study in it, in seconds: for tests and figures of what is asked of many trials.

    python experiments/benchmarks/engine/filled.py runs/filled.db --trials 100000

A policy has 60 decisions: prune ratio, weight bits and activation bits of 19 layers, and three of the whole network.
The metrics follow from them, so there is a front. One seed gives the same trials in every database.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Site
from automc.core.rules import Rule
from automc.core.space import Choice, Decision, SearchSpace
from automc.core.study import Budget, ModelSpec, Part, Rung, StudySpec
from automc.stores import tables as t
from automc.stores.codec import now_text
from automc.stores.decisions import code
from automc.stores.sql import SqlStore

LAYERS = sorted(
    ["conv1", *(f"layer{stage}.{block}.conv{half}" for stage in (1, 2, 3) for block in range(3) for half in (1, 2))]
)
PRUNE = [round(0.05 * step, 2) for step in range(17)]
BITS = [2, 3, 4, 6, 8]
ALPHAS, TEMPERATURES, CRITERIA = [0.0, 0.5, 0.9], [1.0, 2.0, 4.0, 8.0], ["l1", "l2", "taylor"]
AT_ONCE = 10_000
"""Trials of one transaction."""


def spec(name: str = "filled", trials: int = 100_000) -> StudySpec:
    """The study that the trials belong to."""
    whole = Rule("distill", {"kd_alpha": Choice(tuple(ALPHAS)), "kd_temperature": Choice(tuple(TEMPERATURES))})
    rules = (
        Rule("prune", {"prune_ratio": Choice(tuple(PRUNE))}),
        Rule("quantize", {"weight_bits": Choice(tuple(BITS)), "activation_bits": Choice(tuple(BITS))}),
        whole,
    )
    return StudySpec(
        name,
        ModelSpec("resnet20"),
        Part("digits"),
        rules,
        ("prune", "quantize", "distill"),
        (Objective("top1"), Objective("size_bytes")),
        (Constraint.parse("macs_ratio <= 0.9"),),
        evaluator=Part("synthetic"),
        proposer=Part("random"),
        rungs=(Rung(), Rung(100, share=0.5), Rung(400, share=0.5)),
        budget=Budget(trials=trials),
    )


def space() -> SearchSpace:
    """The space of the study: the 60 decisions of SITES."""
    domains = {"prune_ratio": PRUNE, "weight_bits": BITS, "activation_bits": BITS, "criterion": CRITERIA}
    domains |= {"kd_alpha": ALPHAS, "kd_temperature": TEMPERATURES}
    decisions = [Decision(Site(*site), Choice(tuple(domains[site[2]])), site[0] == "distill") for site in SITES]
    return SearchSpace(tuple(decisions), ("prune", "quantize", "distill"), table())


def table() -> LayerTable:
    """Layers of the names that the decisions have, all alike."""
    layer = Layer("", 0, "conv", 16, 16, (3, 3), (1, 1), (16, 32, 32), 2304, 2_359_296)
    named = [replace(layer, name=name, index=index, group=name) for index, name in enumerate(LAYERS)]
    return LayerTable(tuple(named), tuple(Group(name, 16, (name,), ()) for name in LAYERS), (3, 32, 32))


def facts() -> dict[str, Any]:
    """What a search keeps of the network and of the original model."""
    original = {"top1": 0.95, "loss": 0.05, "macs": 41e6, "macs_ratio": 1.0, "bops": 41e9, "size_bytes": 1.1e6}
    original |= {"size_ratio": 1.0, "params": 270e3, "params_ratio": 1.0}
    return {"layers": table().to_data(), "space": space().to_data(), "baseline": original}


def fill(store: SqlStore, name: str = "filled", trials: int = 100_000, seed: int = 0) -> None:
    """Add a study with so many trials: 94% complete, the rest stopped, failed or waiting; each finished in its turn."""
    store.create(spec(name, trials), facts())
    with store._changing() as connection:
        study_id = connection.execute(sa.select(t.study.c.id).where(t.study.c.name == name)).scalar_one()
        connection.execute(t.layout.insert().values(study_id=study_id, layout=1, sites=json.dumps(SITES)))
    draw, filling = np.random.default_rng(seed), _Filling(study_id)
    for first in range(0, trials, AT_ONCE):
        rows = filling.rows(draw, range(first, min(first + AT_ONCE, trials)))
        with store._changing() as connection:
            for table, found in rows.items():
                _insert(connection, table, found)


Row = tuple[Any, ...]

_COLUMNS = {
    "automc_policy": "fingerprint json",
    "automc_trial": "study_id number policy memo state rung reason message attempts realized seconds samples created "
    "finished place layout decisions",
    "automc_metric": "study_id number name value kind error error_kind",
    "automc_front_change": "study_id place number entered",
}


def _insert(connection: sa.Connection, table: str, rows: list[Row]) -> None:
    """By the driver itself: a hundred thousand trials have a million metrics."""
    names = _COLUMNS[table].split()
    cursor: Any = connection.connection.cursor()
    if connection.dialect.name == "sqlite":
        cursor.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", rows)
        return
    if table == "automc_policy":  # a second study may bring the same ones
        cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s) ON CONFLICT DO NOTHING", rows)
        return
    with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


class _Filling:
    """The trials of a study, one after the other: what finished in which place, and what is on the front."""

    def __init__(self, study_id: int) -> None:
        self._study, self._place = study_id, 0
        self._front: dict[int, tuple[float, float]] = {}

    def rows(self, draw: np.random.Generator, numbers: range) -> dict[str, list[Row]]:
        """The rows of these trials, by table."""
        count, layers = len(numbers), len(LAYERS)
        prune = draw.integers(len(PRUNE), size=(count, layers))
        bits = draw.integers(len(BITS), size=(2, count, layers))
        whole = draw.integers(12, size=(count, 3))
        values = _metrics(draw, prune, bits)
        chance, now = draw.random(count), now_text()
        found: dict[str, list[Row]] = {table: [] for table in _COLUMNS}
        for at, number in enumerate(numbers):
            text, decisions = _policy(prune[at].tolist(), bits[:, at].tolist(), whole[at].tolist())
            fingerprint = sha256(text.encode()).hexdigest()
            state, reason = _fate(float(chance[at]))
            measured = {name: float(column[at]) for name, column in values.items()} if state in _MEASURED else {}
            done = state != "waiting"
            self._place += done
            found["automc_policy"].append((fingerprint, text))
            own = (self._study, number, fingerprint, "", state, int(whole[at].sum() % 3), reason, "", int(done))
            result = ("{}", measured.pop("seconds"), 5000) if measured else (None, None, 0)
            ended = (now, self._place) if done else (None, None)
            found["automc_trial"].append((*own, *result, now, *ended, 1, decisions))
            found["automc_metric"] += _measured(self._study, number, measured)
            if state == "complete" and measured["macs_ratio"] <= 0.9:
                found["automc_front_change"] += self._changes(number, (-measured["top1"], measured["size_bytes"]))
        return found

    def _changes(self, number: int, losses: tuple[float, float]) -> list[Row]:
        if any(other[0] <= losses[0] and other[1] <= losses[1] for other in self._front.values()):
            return []
        beaten = [n for n, other in self._front.items() if losses[0] <= other[0] and losses[1] <= other[1]]
        for gone in beaten:
            del self._front[gone]
        self._front[number] = losses
        return [(self._study, self._place, n, n == number) for n in sorted([*beaten, number])]


_MEASURED = ("complete", "stopped")


def _measured(study_id: int, number: int, metrics: dict[str, float]) -> list[Row]:
    rows: list[Row] = []
    for name, value in metrics.items():
        finite = math.isfinite(value)
        error: Row = (0.004, "finite") if name in ("top1", "loss", "agreement") else (None, None)
        rows.append((study_id, number, name, value if finite else None, "finite" if finite else "nan", *error))
    return rows


def _metrics(draw: np.random.Generator, prune: Any, bits: Any) -> dict[str, NDArray[np.float64]]:
    """Ten metrics of each trial: costs that the policy implies, and scores that fall with them."""
    kept = 1 - np.array(PRUNE)[prune]
    weight, activation = np.array(BITS)[bits]
    macs, size = (kept**2).mean(axis=1), (kept**2 * weight / 32).mean(axis=1)
    damage = ((1 - kept) ** 2 + 2.0**-weight + 2.0**-activation).mean(axis=1)
    top1 = np.clip(0.95 - damage + draw.normal(0, 0.01, len(damage)), 0, 1)
    loss = np.where(draw.random(len(top1)) < 0.01, np.nan, -np.log(np.clip(top1, 0.01, 1)))
    return {
        "top1": np.round(top1 * 5000) / 5000,
        "loss": loss,
        "agreement": np.round(top1 * 4900) / 5000,
        "macs": np.round(macs * 41e6),
        "macs_ratio": macs,
        "bops": np.round(macs * 41e9),
        "size_bytes": np.round(size * 1.1e6),
        "size_ratio": size,
        "params": np.round(macs * 270e3),
        "params_ratio": macs,
        "seconds": draw.uniform(0.2, 2.0, len(damage)),
    }


SITES = [
    ["distill", "*", "kd_alpha"],
    ["distill", "*", "kd_temperature"],
    ["prune", "*", "criterion"],
    *(["prune", layer, "prune_ratio"] for layer in LAYERS),
    *(["quantize", layer, setting] for layer in LAYERS for setting in ("activation_bits", "weight_bits")),
]
_CODES: dict[Any, bytes] = {value: code(value) for value in (*PRUNE, *BITS, *ALPHAS, *TEMPERATURES, *CRITERIA)}


def _policy(prune: list[int], bits: list[list[int]], whole: list[int]) -> tuple[str, bytes]:
    """Canonical JSON as Policy writes it, and its packed decisions, without the cost of a Policy."""
    pruned = [PRUNE[place] for place in prune]
    rounded = [(BITS[a], BITS[w]) for w, a in zip(*bits, strict=True)]
    alpha, temperature, criterion = ALPHAS[whole[0] % 3], TEMPERATURES[whole[1] % 4], CRITERIA[whole[2] % 3]
    text = (
        f'{{"distill":{{"*":{{"kd_alpha":{alpha},"kd_temperature":{temperature}}}}},'
        f'"prune":{{"*":{{"criterion":"{criterion}"}},'
        + ",".join(f'"{layer}":{{"prune_ratio":{ratio}}}' for layer, ratio in zip(LAYERS, pruned, strict=True))
        + '},"quantize":{'
        + ",".join(
            f'"{layer}":{{"activation_bits":{a},"weight_bits":{w}}}'
            for layer, (a, w) in zip(LAYERS, rounded, strict=True)
        )
        + "}}"
    )
    values = (alpha, temperature, criterion, *pruned, *(bit for pair in rounded for bit in pair))
    return text, b"".join(_CODES[value] for value in values)


def _fate(chance: float) -> tuple[str, str]:
    if chance < 0.94:
        return "complete", ""
    if chance < 0.97:
        return "stopped", "dominated"
    return ("failed", "oom") if chance < 0.995 else ("waiting", "")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a trial database with a large study.")
    parser.add_argument("storage")
    parser.add_argument("--trials", type=int, default=100_000)
    wanted = parser.parse_args()
    started = time.perf_counter()
    store = SqlStore(wanted.storage)
    fill(store, trials=wanted.trials)
    store.close()
    print(f"{wanted.trials} trials in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
