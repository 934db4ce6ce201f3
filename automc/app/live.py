"""A running search on stderr: a live view on a terminal, otherwise one plain line per finished trial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from automc.app.board import Board, Cell, cells
from automc.app.driving import utter
from automc.app.tables import cell
from automc.core.layers import LayerTable
from automc.core.trial import Trial, TrialState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_SHADES = " ░▒▓█"


@contextmanager
def watch(board: Board, layers: LayerTable, stream: TextIO) -> Iterator[Lines | Screen]:
    """The listener that suits the stream; the live view is closed on the way out."""
    if not stream.isatty():
        yield Lines(board, stream)
        return
    from rich.console import Console
    from rich.live import Live

    screen = Screen(board, layers, Console(file=stream))
    with Live(
        get_renderable=screen.render,
        console=screen.console,
        refresh_per_second=4,
        redirect_stdout=False,
        transient=False,
    ):
        yield screen


@contextmanager
def counting(what: str, stream: TextIO) -> Iterator[Callable[[int, int], None]]:
    """Tells how far something is, told (done, total): on a terminal one line that is wiped at the end, else nothing."""
    start = time.monotonic()

    def show(done: int, total: int) -> None:
        left = clock((time.monotonic() - start) / done * (total - done))
        stream.write(f"\r{what} {done}/{total}, {left} left\x1b[K")
        stream.flush()

    try:
        yield show if stream.isatty() else lambda done, total: None
    finally:
        if stream.isatty():
            stream.write("\r\x1b[K")
            stream.flush()


class Lines:
    """One plain line per finished trial: for logs, pipes and machines."""

    def __init__(self, board: Board, stream: TextIO) -> None:
        self._board, self._stream = board, stream

    def added(self, trial: Trial) -> None:
        self._board.added(trial)

    def noted(self, number: int, step: int, value: float) -> None:
        self._board.noted(number, step, value)

    def paused(self, now: bool) -> None:
        self._board.paused = now
        said = "paused: running trials finish, then it waits for 'automc resume'" if now else "goes on"
        utter(said, self._stream)

    def finished(self, trial: Trial) -> None:
        joined = self._board.finished(trial)
        utter(self._line(trial, joined), self._stream)

    def _line(self, trial: Trial, joined: bool) -> str:
        board = self._board
        head = f"[{board.done}/{board.total}] trial {trial.number} rung {trial.rung} {trial.state.value}"
        if trial.state is TrialState.FAILED:
            return f"{head} {trial.reason}: {trial.message}".replace("\n", " ")
        twin = [] if trial.twin is None else [f"same as trial {trial.twin}"]
        return "  ".join([head, *_metrics(board, trial), *twin, *(["front"] if joined else [])])


def _metrics(board: Board, trial: Trial) -> list[str]:
    if trial.measurement is None:
        return []
    names = dict.fromkeys([*(o.metric for o in board.spec.objectives), *(c.metric for c in board.spec.constraints)])
    known = {name: trial.measurement.metrics.get(name) for name in names} | {"seconds": trial.measurement.seconds}
    return [f"{name} {cell(name, value)}" for name, value in known.items()]


class Screen:
    """The live view. ``render`` is called by the display's own thread, so a lock guards the board."""

    def __init__(self, board: Board, layers: LayerTable, console: Console) -> None:
        self.console = console
        self._board, self._layers, self._lock = board, layers, threading.Lock()

    def added(self, trial: Trial) -> None:
        with self._lock:
            self._board.added(trial)

    def noted(self, number: int, step: int, value: float) -> None:
        with self._lock:
            self._board.noted(number, step, value)

    def paused(self, now: bool) -> None:
        with self._lock:
            self._board.paused = now

    def finished(self, trial: Trial) -> None:
        with self._lock:
            self._board.finished(trial)

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        with self._lock:
            facts, board = _facts(self._board), self._board
            strip = self._strip()
        grid = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            grid.add_row(f"[dim]{name}[/dim]", value)
        bar = ProgressBar(total=max(board.total, 1), completed=board.done, width=60)
        return Group(bar, grid, *strip)

    def _strip(self) -> Sequence[Text]:
        newest = self._board.newest
        if newest is None:
            return ()
        from rich.text import Text

        row = cells(newest.policy, self._layers)
        head = f"newest on the front: trial {newest.number} (a cell a layer: shade = pruned share, digit = weight bits)"
        if self.console.color_system is None:
            return Text(head), Text("".join(_shade(c) for c in row)), Text("".join(_digit(c) for c in row))
        return Text(head, style="dim"), Text.assemble(*((_digit(c), f"{_ink(c)} on {_paper(c)}") for c in row))


def _facts(board: Board) -> Mapping[str, str]:
    failed = ", ".join(f"{reason} {count}" for reason, count in sorted(board.failures.items())) or "none"
    best = ", ".join(f"{name} {cell(name, value)}" for name, value in board.best().items()) or "-"
    steps = "  ".join(f"{n}: step {step}, {value:.4g}" for n, (step, value) in sorted(board.reports.items()))
    left = "-" if board.left is None else clock(board.left)
    return {
        "study": board.spec.name,
        "trials": f"{board.done}/{board.total} done, {len(board.open)} under way{', paused' if board.paused else ''}",
        "failed": failed,
        "time": f"{clock(board.elapsed)} elapsed, {left} left",
        "best": best,
        "front": f"{len(board.front)} trials, covering {board.covered:.1%} of the box below the original model",
        **({"repair": steps} if steps else {}),
    }


def clock(seconds: float) -> str:
    """``59 s``, ``3:07`` or ``2:03:09``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def _digit(layer: Cell) -> str:
    return str(layer.bits) if layer.bits < 10 else "·"


def _shade(layer: Cell) -> str:
    return _SHADES[min(int(layer.prune * len(_SHADES)), len(_SHADES) - 1)]


def _paper(layer: Cell) -> str:
    """The more is pruned, the darker: from almost white to almost black."""
    grey = round(230 - 200 * min(layer.prune, 1.0))
    return f"rgb({grey},{grey},{grey})"


def _ink(layer: Cell) -> str:
    return "black" if layer.prune < 0.5 else "white"
