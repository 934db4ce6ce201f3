"""Commands that ask a running search something, from any terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automc.app import options as o
from automc.cli.app import app, connected, shown

if TYPE_CHECKING:
    from automc.core.store import Control

_ASKED = {
    "pause": "was asked to finish its running trials and wait; go on with: automc resume {at}",
    "stop": "was asked to finish its running trials and end",
    "cancel": "was asked to end at once; what runs waits for a resume",
}


@app.command()
def pause(name: o.Name, storage: o.Storage = None, server: o.Server = None, as_json: o.Json = False) -> None:
    """Ask a running search to start nothing new until it is resumed."""
    from automc.core.store import Control

    _ask(name, Control.PAUSE, storage, server, as_json)


@app.command()
def stop(name: o.Name, storage: o.Storage = None, server: o.Server = None, as_json: o.Json = False) -> None:
    """Ask a running search to finish its trials and end."""
    from automc.core.store import Control

    _ask(name, Control.STOP, storage, server, as_json)


@app.command()
def cancel(name: o.Name, storage: o.Storage = None, server: o.Server = None, as_json: o.Json = False) -> None:
    """Ask a running search to end at once; what runs waits again."""
    from automc.core.store import Control

    _ask(name, Control.CANCEL, storage, server, as_json)


def _ask(name: str, word: Control, storage: str | None, server: str | None, as_json: bool) -> None:
    """Ask, and say what the driver finds: an earlier and stronger word stays. A server refuses what means nothing."""
    from automc.app import asking

    if server is None:
        told = asking.ask(name, word, o.storage_of(storage))
    else:
        ask = getattr(connected(storage, server).open_study(name), word.value)
        ask()
        told = word
    at = name if server is None else f"{name} --server {server}"
    said = f"is not being searched; nothing to {word.value}" if told is None else _ASKED[told.value].format(at=at)
    data = {"study": name, "asked": told is not None, "word": told.value if told else None}
    shown(as_json, data, lambda: f"study {name} {said}")
