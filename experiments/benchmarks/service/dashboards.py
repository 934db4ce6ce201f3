"""Many dashboards of one study at once: each hears its events and polls as the page does. What they saw, as JSON.

    python dashboards.py URL TOKEN STUDY --dashboards 20 --seconds 60

The times of events are this machine's, so a lag is from the moment the driver wrote an event until it was read here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

EVERY = 5.0
"""Seconds between two polls of a page."""


@dataclass
class Seen:
    """What dashboards saw: lags of events and times of answers in seconds, answers by status, faults by their text.

    ``asked``: how many answers were waited for, of which the last may not have come.
    """

    lags: list[float] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    asked: int = 0


async def begin(url: str, token: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which this was asked."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=1 << 26)
    secret = f"authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {at.netloc}\r\n{secret}connection: close\r\n\r\n".encode())
    return reader, writer


async def ask(url: str, token: str, path: str, seen: Seen) -> None:
    """One answer, to its end."""
    began = time.perf_counter()
    seen.asked += 1
    reader, writer = await begin(url, token, path)
    answer = await reader.read()
    writer.close()
    seen.polls.append(time.perf_counter() - began)
    status = answer.split(b" ", 2)[1].decode() if answer else "none"
    seen.statuses[status] += 1
    if status != "200":
        seen.faults["locked" if b"locked" in answer else f"{path} {status}"] += 1


async def hear(url: str, token: str, study: str, seen: Seen) -> None:
    """The stream of events, until it is cancelled."""
    reader, _ = await begin(url, token, f"/api/v1/studies/{study}/events")
    status = (await reader.readline()).decode()
    if " 200 " not in status:
        seen.faults[f"events {status.strip()}"] += 1
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            now, event = time.time(), json.loads(line[6:])
            if "at" in event:
                seen.lags.append(now - datetime.fromisoformat(event["at"]).timestamp())
    seen.faults["a stream ended"] += 1


async def poll(url: str, token: str, paths: list[str], offset: float, seen: Seen) -> None:
    """These paths together, every few seconds, until it is cancelled."""
    await asyncio.sleep(offset)
    while True:
        began = time.perf_counter()
        found = await asyncio.gather(*(ask(url, token, path, seen) for path in paths), return_exceptions=True)
        for one in found:
            if isinstance(one, Exception):
                seen.faults[type(one).__name__] += 1
        await asyncio.sleep(max(EVERY - (time.perf_counter() - began), 0))


async def watch(url: str, token: str, study: str, paths: list[str], dashboards: int, seconds: float) -> Seen:
    """All of them for so long; ``study`` "": nobody hears events."""
    seen = Seen()
    tasks = [asyncio.create_task(hear(url, token, study, seen)) for _ in range(dashboards) if study]
    tasks += [
        asyncio.create_task(poll(url, token, paths, EVERY * n / dashboards, seen)) for n in range(dashboards) if paths
    ]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Exception):  # not that it was cancelled
            seen.faults[type(found).__name__] += 1
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description="Be many dashboards of one study.")
    parser.add_argument("url")
    parser.add_argument("--token", default="")
    parser.add_argument("--study", default="")
    parser.add_argument("--paths", nargs="*", default=[])
    parser.add_argument("--dashboards", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    said = parser.parse_args()
    seen = asyncio.run(watch(said.url, said.token, said.study, said.paths, said.dashboards, said.seconds))
    json.dump(vars(seen), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
