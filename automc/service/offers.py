"""What studies that come over HTTP may name: what is bundled, and what ``automc.toml`` beside the database lists.

    [model.shelf_net]
    name = "nets.py:build"          # as a study file has it; paths are seen from the folder of automc.toml
    weights = "shelf.safetensors"
    settings = {width = 16}

    [data.shelf]
    name = "folder"
    settings = {path = "images"}

    [task.counting]
    name = "tasks.py:build"

    [workers]
    address = "10.0.0.1:6379"       # of every study

A study says ``model: shelf_net``, and never a path, a factory, a storage or an address.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automc.app import catalog
from automc.app.paths import DATA_PATHS, bundled_spaces
from automc.core.rules import nearest
from automc.errors import SpecError
from automc.stores.engine import parse_url, sqlite_file

FILE = "automc.toml"
PLAIN_DATA = ("digits",)
"""Bundled data sets that need no path."""

UPLOADED = "upload:"
"""Before the SHA-256 of weights that were uploaded."""

_NAMES_MORE = re.compile(r"[:/\\]|\.(ya?ml|py)$")
_KINDS = {"model": ("name", "settings", "weights"), "data": ("name", "settings"), "task": ("name", "settings")}


@dataclass(frozen=True)
class Offers:
    """What a server offers by kind and name, each as a study file has it; ``workers`` are for every study."""

    entries: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    workers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def beside(cls, storage: str) -> Offers:
        """Read ``automc.toml`` beside a SQLite file, else in the current folder; nothing is listed without one.

        Raises:
            SpecError: it cannot be read, or lists something else.
        """
        file = sqlite_file(parse_url(storage))
        path = (file.parent if file else Path()) / FILE
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise SpecError(f"{path}: cannot be read: {error}") from error
        strange = sorted(said.keys() - {*_KINDS, "workers"})
        if strange:
            raise SpecError(f"{path}: {strange[0]}: must be model, data, task or workers{nearest(strange[0], _KINDS)}")
        found = {
            kind: {name: _entry(path, kind, name, one) for name, one in said.get(kind, {}).items()} for kind in _KINDS
        }
        return cls(found, said.get("workers", {}))

    def names(self) -> dict[str, list[str]]:
        """What a study may say under ``model``, ``data``, ``task`` and ``space``."""
        own = {kind: list(self.entries.get(kind, {})) for kind in _KINDS}
        return {
            "model": [*own["model"], *catalog.MODELS],
            "data": [*own["data"], *PLAIN_DATA],
            "task": [*own["task"], *catalog.TASKS],
            "space": list(bundled_spaces()),
        }

    def vetted(self, document: Mapping[str, Any], weights: Callable[[str], Path]) -> dict[str, Any]:
        """A study as ``config.study_from`` takes it, its names replaced by what they stand for.

        Args:
            weights: the file of uploaded weights by their SHA-256.

        Raises:
            SpecError: it names what is not offered; one line a mistake, each behind its key.
        """
        found, mistakes = dict(document), list[str]()
        for kind in ("model", "data", "task"):
            if kind in found:
                try:
                    found[kind] = self._part(kind, found[kind], weights)
                except SpecError as error:
                    mistakes.append(f"{kind}: {error}")
        mistakes += [*_forbidden(found), *_smuggled(found)]
        if mistakes:
            raise SpecError("\n".join(mistakes))
        if self.workers:
            found["workers"] = {**_mapping(found.get("workers")), **self.workers}
        return found

    def _part(self, kind: str, said: Any, weights: Callable[[str], Path]) -> Any:
        name = said.get("name") if isinstance(said, Mapping) else said
        if not isinstance(name, str):
            return said  # the study's own reader says what is wrong with it
        own = self.entries.get(kind, {})
        if name in own:
            if isinstance(said, Mapping) and said.keys() != {"name"}:
                raise SpecError(f"{name!r} is offered as it is: give its name alone")
            return dict(own[name])
        offered = self.names()[kind]
        if name not in offered:
            raise SpecError(
                f"{name[:60]!r} is not offered here (offered: {', '.join(offered)}){nearest(name, offered)}"
            )
        if not isinstance(said, Mapping):
            return said
        opened = [key for key in DATA_PATHS if kind == "data" and key in _mapping(said.get("settings"))]
        if opened:
            raise SpecError(f"settings.{opened[0]} would open a file; the server offers such data in {FILE}")
        if not said.get("weights"):
            return said
        given = str(said["weights"])
        if not given.startswith(UPLOADED):
            raise SpecError(f"weights must read {UPLOADED}SHA256, of a file that was uploaded, not {given[:60]!r}")
        return {**said, "weights": str(weights(given.removeprefix(UPLOADED)))}


def _forbidden(document: Mapping[str, Any]) -> list[str]:
    """Keys that are the server's to decide."""
    found = []
    if "storage" in document:
        found.append("storage: the service keeps studies in its own database; leave it out")
    if _mapping(document.get("workers")).get("address") is not None:
        found.append(f"workers.address: is the server's to decide ([workers] of {FILE}); leave it out")
    space = document.get("space")
    if isinstance(space, str) and space not in bundled_spaces():
        names = ", ".join(bundled_spaces())
        found.append(f"space: {space[:60]!r} is not bundled (bundled: {names}); or give its rules in place")
    return found


def _smuggled(document: Mapping[str, Any]) -> list[str]:
    """Settings that would make a part import or open something."""
    found = []
    for section in ("proposer", "stopper", "evaluator"):
        for key, value in _mapping(_mapping(document.get(section)).get("settings")).items():
            strange = [text for text in _texts(value) if _NAMES_MORE.search(text)]
            if strange:
                found.append(f"{section}.settings.{key}: {strange[0][:60]!r} would open a file or import a module")
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _entry(path: Path, kind: str, name: str, said: Any) -> dict[str, Any]:
    """An entry of the file, its paths made absolute."""
    allowed = _KINDS[kind]
    if not isinstance(said, dict) or not isinstance(said.get("name"), str) or not said.keys() <= set(allowed):
        raise SpecError(f"{path}: {kind}.{name}: must be a table of {', '.join(allowed)}, with a name")
    found, folder = dict(said), path.resolve().parent
    source, colon, factory = said["name"].rpartition(":")
    if colon and source.endswith(".py"):
        found["name"] = f"{folder / source}:{factory}"
    if "weights" in said:
        found["weights"] = str(folder / said["weights"])
    settings = said.get("settings", {})
    if kind == "data" and settings and ":" not in said["name"]:
        paths = {key: str(folder / settings[key]) for key in DATA_PATHS if isinstance(settings.get(key), str)}
        found["settings"] = {**settings, **paths}
    return found
