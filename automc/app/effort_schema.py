"""Reading how much is done and by whom: rungs, budget, workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from automc.app.places import Node
from automc.app.readers import Fields, integer, items, number, refused, text
from automc.core.required import show
from automc.core.study import Budget, Rung, Workers
from automc.errors import SpecError

WORKER_KEYS = ("count", "address", "window", "timeout_s", "memory_mb", "retries")
RUNG_KEYS = ("steps", "share", "cpus", "gpus", "resources")
_MOST = 10**6
MOST_TRIALS = 10**7
"""That a study may have."""

_OWN_KEYS = {"CPU": "cpus", "GPU": "gpus", "cpu": "cpus", "gpu": "gpus", "cpus": "cpus", "gpus": "gpus"}


def rungs(node: Node) -> tuple[Rung, ...]:
    nodes = items(node, "list of rungs")
    found = [rung for item in nodes for rung in item.attempt(_rung)]
    for i in range(1, len(found) if len(found) == len(nodes) else 0):
        if found[i].steps < found[i - 1].steps:
            message = f"{found[i].steps} is fewer than the {found[i - 1].steps} of the rung before; rungs go upwards"
            nodes[i].deepest("steps").complain(message)
    return tuple(found)


def _rung(node: Node) -> Rung:
    fields, base = Fields(node, RUNG_KEYS), Rung()
    return Rung(
        fields.get("steps", integer(0, 10**9), base.steps),
        fields.get("share", number(0, 1, above=True), base.share),
        fields.get("cpus", number(0, _MOST), base.cpus),
        fields.get("gpus", _gpus, base.gpus),
        fields.get("resources", _resources, {}),
    )


def _gpus(node: Node) -> float:
    gpus = number(0, _MOST)(node)
    if gpus > 1 and gpus % 1:
        raise refused(gpus, "a share of one GPU, or a whole number of them", f", did you mean {round(gpus)}?")
    return gpus


def _resources(node: Node) -> dict[str, float]:
    if not isinstance(node.value, dict):
        raise SpecError(
            f"must be a mapping of Ray resource to amount, as in {{'device:pi4': 1}}, not {show(node.value)}"
        )
    found = {}
    for name, child in node.value.items():
        if name in _OWN_KEYS:
            child.complain(f"{name} has a key of its own: write {_OWN_KEYS[name]} beside resources")
        elif name in ("memory", "object_store_memory"):
            child.complain(f"{name} is Ray's own; the memory of a trial is limited by workers.memory_mb")
        else:
            found[name] = child.read(number(0, _MOST, above=True), 1.0)
    return found


def budget(node: Node) -> Budget:
    fields = Fields(node, ("trials", "seconds"))
    seconds: float | None = fields.get("seconds", number(0, above=True), None)
    return Budget(fields.get("trials", integer(1, MOST_TRIALS), Budget().trials), seconds)


def workers(node: Node) -> Workers:
    base = Workers()
    before = len(node.mistakes.found)
    fields = Fields(node, WORKER_KEYS)
    address: str | None = fields.get("address", text, None)
    timeout: float | None = fields.get("timeout_s", number(0, above=True), None)
    memory: int | None = fields.get("memory_mb", integer(1, 10**9), None)
    count = fields.get("count", worker_count, base.count)
    window = fields.get("window", integer(1, 10_000), base.window)
    found = Workers(count, address, window, timeout, memory, fields.get("retries", integer(0, 1000), base.retries))
    if len(node.mistakes.found) == before:
        if window < found.most:
            at = fields["window" if "window" in fields else "count"]
            at.complain(
                f"window {window} is below count {count}: some workers would idle; set workers.window to {count}"
            )
        for key in limits(found) if count == 0 else ():
            fields[key].complain(NOBODY_TO_KILL)
    return found


def restaffed(given: Workers, count: int | str | None, address: str | None) -> Workers:
    """The workers of a study, with another number or another cluster; None changes nothing.

    Raises:
        SpecError: more than the window, or none where there are limits.
    """
    chosen: int | Literal["auto"] = given.count if count is None else "auto" if count == "auto" else int(count)
    found = replace(given, count=chosen, address=given.address if address is None else address)
    if found.most > found.window:
        raise SpecError(
            f"workers {chosen} is above its window {found.window}, which decides what each proposal knows: more "
            "workers would idle"
        )
    if chosen == 0 and limits(found):
        raise SpecError(f"workers 0: workers.{limits(found)[0]} {NOBODY_TO_KILL}")
    return found


NOBODY_TO_KILL = (
    "is enforced by killing the process that evaluates, and with workers.count 0 that is this one; "
    "set workers.count to 1 or more, or this to null"
)


def limits(found: Workers) -> list[str]:
    """The keys of the limits that are set."""
    return [key for key in ("timeout_s", "memory_mb") if getattr(found, key) is not None]


def worker_count(node: Node) -> int | Literal["auto"]:
    if node.value == "auto":
        return "auto"
    if isinstance(node.value, str):
        raise refused(node.value, "a whole number from 0 to 10000, or auto")
    return integer(0, 10_000)(node)
