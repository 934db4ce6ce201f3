"""The latency table of a device: milliseconds of single layers on a grid of widths, and what lies between."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from onnx import TensorProto, helper

from automc.core.interleave import Timing, timings
from automc.measure.forms import OPSET, Form, input_shape, onnx_file
from automc.measure.latency import runner, sample

YARDSTICK = Form("conv", 16, 16, 1, (16, 16), (3, 3), (1, 1), (1, 1), (1, 1))
"""A layer timed beside all others: how fast the machine is at that moment."""

NODES = 4
"""Widths of one alignment that are measured, at most."""

ROUNDS = 24
LAYER_MS = 60.0
"""How long the rounds of one layer may take; a slow one has fewer, at least 3."""

YARDSTICK_ROUNDS = 300
NETWORK_ROUNDS = 50

_LEAST = 1e-4
"""Milliseconds below which nothing can be told from nothing."""

Timer = Callable[[Sequence[Callable[[], object]], int], Sequence[Timing]]


class LatencyTable:
    """Milliseconds of layers, above those of a network that does nothing.

    Each is scaled by the yardstick: what was measured while the machine was half as fast counts half.

    Args:
        rows: what was measured earlier, as ``rows`` gave it. batch: inputs of a run.
    """

    def __init__(self, rows: Mapping[str, float] | None = None, batch: int = 1) -> None:
        self.batch = batch
        self._times: dict[str, dict[tuple[int, int], float]] = {}
        for key, ms in (rows or {}).items():
            family, _, widths = key.rpartition(" ")
            if family.endswith(f" n{batch}"):
                inputs, _, outputs = widths.partition(">")
                self._times.setdefault(family, {})[int(inputs), int(outputs)] = ms

    @property
    def rows(self) -> dict[str, float]:
        """Everything measured: ``{"conv g1 8x8 3x3 1x1 1x1 1x1 float n1 64>32": 0.057, ...}``."""
        return {f"{family} {i}>{o}": ms for family, found in self._times.items() for (i, o), ms in found.items()}

    def get(self, form: Form) -> float | None:
        """Milliseconds of a layer: measured, or bilinear between the widths around its own; None where neither is.

        See ``alignment``: only widths of one alignment are compared.
        """
        known = self._times.get(form.family(self.batch), {})
        if (form.inputs, form.outputs) in known:
            return known[form.inputs, form.outputs]
        if form.groups == 0:
            return _mean(around(form.inputs, sorted(n for n, _ in known)), lambda n: known[n, n])
        rows: dict[int, list[int]] = {}
        for a, b in known:
            rows.setdefault(a, []).append(b)
        # Layers of one family have grids of their own: only rows that reach as far as this layer serve it.
        long = sorted(a for a, row in rows.items() if max(row) >= form.outputs)
        if form.groups > 1 or not long or long[-1] < form.inputs:
            return None
        return _mean(
            around(form.inputs, long),
            lambda a: _mean(around(form.outputs, sorted(rows[a])), lambda b: known[a, b]),
        )

    def measure(self, wanted: Iterable[Form], timer: Timer = timings) -> None:
        """Time the forms that were not measured yet. The machine should do nothing else meanwhile."""
        missing = [form for form in dict.fromkeys(wanted) if not self._measured(form)]
        if not missing:
            return
        fixed = [_call(YARDSTICK, self.batch), _nothing()]
        if not self._measured(YARDSTICK):
            yard, nothing = timer(fixed, YARDSTICK_ROUNDS)
            self._keep(YARDSTICK, max(yard.low - nothing.low, _LEAST))
        unit = self._times[YARDSTICK.family(self.batch)][YARDSTICK.inputs, YARDSTICK.outputs]
        for form in missing:
            call = _call(form, self.batch)
            (once,) = timer([call], 1)
            rounds = int(min(max(LAYER_MS / max(once.median, _LEAST), 3), ROUNDS))
            yard, nothing, own = timer([*fixed, call], rounds)
            # Lower quartiles: what others do on the machine only ever adds time.
            pace = max(yard.low - nothing.low, _LEAST) / unit
            self._keep(form, max(own.low - nothing.low, 0.0) / pace)

    def networks(self, files: Sequence[bytes], shape: Sequence[int], timer: Timer = timings) -> list[float]:
        """Milliseconds of whole networks, ONNX files with one input of this shape, in the yardstick's pace.

        Lower quartiles, as of the layers.
        """
        fixed = [_call(YARDSTICK, self.batch), _nothing()]
        calls = [runner(file, sample(shape, self.batch)) for file in files]
        yard, nothing, *own = timer([*fixed, *calls], NETWORK_ROUNDS)
        pace = max(yard.low - nothing.low, _LEAST) / self._times[YARDSTICK.family(self.batch)][16, 16]
        return [found.low / pace for found in own]

    def _measured(self, form: Form) -> bool:
        return (form.inputs, form.outputs) in self._times.get(form.family(self.batch), {})

    def _keep(self, form: Form, ms: float) -> None:
        self._times.setdefault(form.family(self.batch), {}).setdefault((form.inputs, form.outputs), ms)


def grid(form: Form, fewer_inputs: bool, fewer_outputs: bool) -> list[Form]:
    """The forms to measure so that every narrower layer lies between some: a node on each axis that can shrink."""
    if form.groups == 0:
        return [form.at(n, n) for n in (nodes(form.inputs) if fewer_inputs or fewer_outputs else [form.inputs])]
    if form.groups > 1:
        return [form]
    inputs = nodes(form.inputs) if fewer_inputs else [form.inputs]
    outputs = nodes(form.outputs) if fewer_outputs else [form.outputs]
    return [form.at(a, b) for a, b in product(inputs, outputs)]


def alignment(width: int) -> int:
    """16, 4 or 1: the largest of them that divides it. Kernels work on blocks of channels: 31 channels can take twice
    the time of 32, so that nothing is interpolated between the two.
    """
    return next(n for n in (16, 4, 1) if width % n == 0)


def nodes(width: int) -> list[int]:
    """The widths up to this one that are measured: of each alignment the least, the greatest and some between."""
    found = {width}
    for kind in (16, 4, 1):
        alike = [n for n in range(1, width + 1) if alignment(n) == kind]
        steps = min(NODES, len(alike))
        found |= {alike[round(i * (len(alike) - 1) / max(steps - 1, 1))] for i in range(steps)}
    return sorted(found)


def around(width: int, known: Sequence[int]) -> list[tuple[int, float]]:
    """The known widths of its alignment that it lies between, with their weights; the nearest one beyond the ends."""
    if width in known:
        return [(width, 1.0)]
    alike = [n for n in known if alignment(n) == alignment(width)]
    at = bisect_left(alike, width)
    if at in (0, len(alike)):
        return [(alike[max(at - 1, 0)], 1.0)] if alike else []
    low, high = alike[at - 1], alike[at]
    return [(low, (high - width) / (high - low)), (high, (width - low) / (high - low))]


def _mean(shares: Sequence[tuple[int, float]], value: Callable[[int], float | None]) -> float | None:
    """The weighted mean of values; None where there are none."""
    found = [(share, value(n)) for n, share in shares]
    return sum(share * ms for share, ms in found if ms is not None) if found else None


def _call(form: Form, batch: int) -> Callable[[], object]:
    return runner(onnx_file(form), sample(input_shape(form), batch))


def _nothing() -> Callable[[], object]:
    """One operation on one number: what a run costs beside the layers."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "nothing", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return runner(bytes(model.SerializeToString()), sample((1,), 1))
