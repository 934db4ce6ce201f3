"""Exported folders that somebody else changed: are they refused in a line, and is nothing touched outside?

    python experiments/benchmarks/export/hostile.py [--mutations 10000]

A small network is exported. Its manifest is then changed at random, in its bytes or in its values (with a seal that
fits, as somebody would who knows how it is made), and read; every tenth that is read is also proved. After that,
about a hundred archives, ONNX files, links and names that mean harm take the place of what was exported, and the folder
is proved, each in a process of its own with bounded memory and time. A neighbouring folder holds a file that the
hostile ones point to; the kernel tells (inotify) whether anybody opens, reads or makes a file there. Allowed is a typed
error in one line, or a proof. The table is written to ``hostile.md``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table
from hostile_files import Case, cases

from automc.core.policy import Policy
from automc.errors import AutomcError
from automc.export.bundle import manifest as names
from automc.export.bundle.manifest import Manifest, describe
from automc.export.bundle.writing import TestSplit, write_bundle
from automc.export.proof.proving import Proof, verify

HERE = Path(__file__).resolve().parent
MEMORY, SECONDS = 6 * 2**30, 60
"""Of the address space of a process that proves a hostile folder, and its time."""

_OPENED, _READ, _WRITTEN, _MADE = 0x20, 0x1, 0x2, 0x100
"""inotify's events (inotify.h): IN_OPEN, IN_ACCESS, IN_MODIFY, IN_CREATE."""

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "../x", "/etc/passwd", "a\0b", "\ud800", "9" * 5000, "top1 <= 1e999", "nan", "__import__('os')"),
    *([], {}, [[]], [None] * 100, {"": {}}, {"name": "classification", "settings": {"x": 1}}, ["top1 >= 0"] * 50),
)
"""What takes the place of a value, a key or an item."""


def proved(folder: Path) -> Proof:
    """In this process, without the timing."""
    return verify(folder, rounds=1, apart=False)


def made(folder: Path) -> Path:
    """A small network, exported."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    g = np.random.default_rng(0)
    test = TestSplit(g.standard_normal((60, 1, 8, 8), dtype=np.float32), g.integers(0, 5, 60))
    with torch.no_grad():
        found = model(torch.from_numpy(test.inputs)).argmax(1).numpy()
    promise = {"top1": float((found == test.targets).mean()), "size_bytes": 1.0}
    facts = {"metrics": promise, "baseline": {"top1": promise["top1"]}, "study": "s", "trial": 1}
    arguments = {"model": model, "baseline_model": model, "example": torch.zeros(1, 1, 8, 8), "policy": Policy({})}
    probe = write_bundle(folder, **arguments, test=test, facts=facts, prove=proved)
    promise["size_bytes"] = float(probe.proof.size_bytes or 0)
    shutil.rmtree(probe.folder)
    return write_bundle(folder, **arguments, test=test, facts=facts, prove=proved).folder


def reseal(folder: Path, data: dict[str, Any]) -> None:
    """Write a manifest with a seal that fits."""
    data.pop("seal", None)
    (folder / names.NAME).write_text(json.dumps({**data, "seal": names._seal(data)}))


def refreshed(folder: Path) -> None:
    """Seal the folder with the digests of the files as they are; what cannot be read, or soon enough, keeps its own."""
    where = folder / names.NAME
    if where.is_symlink() or not where.is_file() or not 0 < where.stat().st_size < 2**20:
        return
    data = json.loads(where.read_text())
    for path in folder.iterdir():
        if path.name in data["files"] and path.is_file() and not path.is_symlink() and path.stat().st_size < 2**30:
            data["files"][path.name] = describe(path)
    reseal(folder, data)


def mutated(draw: random.Random, whole: bytes) -> bytes | dict[str, Any]:
    """Some bytes changed, or some values."""
    if draw.random() < 0.4:
        return _bytes_changed(draw, bytearray(whole))
    data: dict[str, Any] = json.loads(whole)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        _value_changed(draw, data)
    return data


def _bytes_changed(draw: random.Random, data: bytearray) -> bytes:
    for _ in range(draw.choice((1, 1, 3, 20))):
        at = draw.randrange(len(data)) if data else 0
        kind = draw.randrange(5)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at:at] = draw.randbytes(draw.randrange(1, 20))
        elif kind == 2:
            del data[at : at + draw.randrange(1, 200)]
        elif kind == 3:
            data[at:at] = data[at : at + draw.randrange(1, 500)]
        elif draw.random() < 0.2:
            data[at:] = draw.choice((b"", b"[" * 10**5, b'{"a":' * 10**4, b"9" * 10**5))
    return bytes(data)


def _value_changed(draw: random.Random, data: dict[str, Any]) -> None:
    """Go down to a random place and put something else there."""
    place: Any = data
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw.choice(keys)
        inside = place[key]
        if isinstance(inside, (dict, list)) and inside and draw.random() < 0.8:
            place = inside
            continue
        kind = draw.randrange(4)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[str(draw.choice(VALUES))[:60]] = inside
        elif kind == 2 and type(inside) in (int, float) and abs(inside) < 1e300:
            place[key] = inside * draw.choice((-1, 0, 2, 1e9, 0.999))
        else:
            place[key] = draw.choice(VALUES)
        return


def mutations(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """What became of so many mutations of the manifest; "ESCAPED" of those that raised something else."""
    whole = (folder / names.NAME).read_bytes()
    draw, found = random.Random(seed), Counter[str]()
    for _ in range(count):
        change = mutated(draw, whole)
        try:
            if isinstance(change, bytes):
                (folder / names.NAME).write_bytes(change)
            else:
                reseal(folder, change)
            manifest = Manifest.read(folder)
            manifest.check_files(folder)
            found["read"] += 1
            if found["read"] % 10 == 0:
                found["proved, kept" if proved(folder).passed else "proved, broken promises"] += 1
        except AutomcError as error:
            found["refused" if "\n" not in str(error) else "ESCAPED: more than a line"] += 1
        except Exception as error:
            found[f"ESCAPED: {type(error).__name__}: {error}"[:200]] += 1
    (folder / names.NAME).write_bytes(whole)
    return found


class Watched:
    """Counts what happens to the files of a folder, as the kernel tells it."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.inotify_init1(os.O_NONBLOCK)
        mask = _OPENED | _READ | _WRITTEN | _MADE
        if self._file < 0 or libc.inotify_add_watch(self._file, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def events(self) -> int:
        """Bytes of events since it was last asked; 0 where nothing happened."""
        try:
            return len(os.read(self._file, 2**16))
        except BlockingIOError:
            return 0


def tried(folder: Path) -> str:
    """What a process says that proves the folder: ``refused``, ``proved ...``, or how it ended otherwise."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _in_child(folder, write)
    os.close(write)
    end = time.monotonic() + SECONDS
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(read)
            return "ESCAPED: took too long"
        time.sleep(0.005)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    return said if not done[1] else f"ESCAPED: the process ended with {done[1]}"


def _in_child(folder: Path, write: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        said = "proved" if proved(folder).passed else "proved, broken promises"
    except AutomcError as error:
        plain = re.sub("0x[0-9a-f]+", "0x...", str(error).replace(str(folder), ""))
        said = f"refused: {plain[:160]}"
        said = said if "\n" not in str(error) else "ESCAPED: more than a line"
    except BaseException as error:
        said = f"ESCAPED: {type(error).__name__}: {error}"[:200]
    os.write(write, said.encode(errors="replace"))
    os._exit(0)


def harmed(whole: Path, place: Path, some: Mapping[str, Case] | None = None) -> Iterator[tuple[str, str, bool]]:
    """By case its name, what became of it, and whether anything outside its folder was touched."""
    outside = place / "outside"
    outside.mkdir()
    secret = outside / "secret.bin"
    watched = Watched(outside)
    secret.touch()
    if not watched.events():
        raise OSError("inotify does not see what happens in the folder")
    for name, case in (some or cases()).items():
        secret.write_bytes(np.arange(4096, dtype=np.float32).tobytes())
        shutil.copy(whole / names.TEST, outside / names.TEST)
        folder = place / "folder"
        shutil.copytree(whole, folder)
        case(folder, secret)
        refreshed(folder)
        watched = Watched(outside)
        said = tried(folder)
        yield name, said, bool(watched.events())
        shutil.rmtree(folder)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        whole = made(place / "whole")
        start = time.perf_counter()
        found = mutations(whole, given.mutations)
        took = time.perf_counter() - start
        rows = [[name, said, "TOUCHED" if touched else "nothing"] for name, said, touched in harmed(whole, place)]
    escaped = sum(count for what, count in found.items() if what.startswith("ESCAPED"))
    escaped += sum(said.startswith("ESCAPED") or touched != "nothing" for _, said, touched in rows)
    first = table(
        ["of the manifest's mutations", "count"], [[what, f"{count:,}"] for what, count in sorted(found.items())]
    )
    second = table(["instead of what was exported", "what became of it", "touched outside"], rows)
    summed = f"{given.mutations:,} mutations in {took:.0f} s, {len(rows)} hostile folders: {escaped} escaped."
    publish(HERE / "hostile.md", summed, first, second)
    return int(bool(escaped))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
