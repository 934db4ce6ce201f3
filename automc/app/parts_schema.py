"""Reading the named parts of a study (model, data, proposer, ...): a name of the catalogue, or a user's factory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automc.app import catalog
from automc.app.paths import DATA_PATHS, PROFILE, seen_from
from automc.app.places import Node
from automc.app.readers import Fields, Reader, settings, text
from automc.core.required import show
from automc.core.rules import nearest
from automc.core.study import ModelSpec, Part
from automc.errors import SpecError

_FACTORY = re.compile(r"(.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def part(table: Mapping[str, object], what: str, folder: Path | None = None) -> Reader[Part]:
    """A name of the table, or a user's factory where a ``folder`` to look for its file is given."""

    def read(node: Node) -> Part:
        if not isinstance(node.value, dict):
            return Part(_known(node, table, what, folder))
        fields = Fields(node, ("name", "settings"), f"; what {what} takes belongs below settings")
        name = fields.need("name", lambda n: _known(n, table, what, folder), "", next(iter(table)))
        chosen: dict[str, Any] = fields.get("settings", settings, {})
        for key in DATA_PATHS if folder is not None and name in table else ():
            if chosen.get(key) is not None:
                chosen[key] = fields["settings"].deepest(key).read(_path(folder), "")
        return Part(name, chosen)

    return read


def built_part(table: Mapping[str, str], what: str) -> Reader[Part]:
    """As ``part``; settings that it does not take, or not so, are mistakes at their lines."""

    def read(node: Node) -> Part:
        found = part(table, what)(node)
        for key, message in catalog.mistakes(table, what, found).items() if found.name else ():
            node.deepest("settings", key).complain(message)
        return found

    return read


def evaluator(table: Mapping[str, object], folder: Path) -> Reader[Part]:
    """As ``part``; a device profile of the user's own is looked for beside the study."""

    def read(node: Node) -> Part:
        found = part(table, "evaluator")(node)
        if not str(found.settings.get(PROFILE, "")).endswith((".yaml", ".yml")):
            return found
        own = node.deepest("settings", PROFILE).read(_path(folder), "")
        return Part(found.name, {**found.settings, PROFILE: own})

    return read


def model(table: Mapping[str, object], folder: Path) -> Reader[ModelSpec]:
    """As ``part``, with weights."""

    def read(node: Node) -> ModelSpec:
        if not isinstance(node.value, dict):
            return ModelSpec(_known(node, table, "model", folder))
        fields = Fields(node, ("name", "settings", "weights"), "; what the factory takes belongs below settings")
        name = fields.need("name", lambda n: _known(n, table, "model", folder), "", "digits_net")
        weights: str | None = fields.get("weights", _path(folder), None)
        chosen: dict[str, Any] = fields.get("settings", settings, {})
        return ModelSpec(name, chosen, weights)

    return read


def _path(folder: Path | None) -> Reader[str]:
    return lambda node: seen_from(folder or Path(), text(node))


def _known(node: Node, table: Mapping[str, object], what: str, folder: Path | None) -> str:
    if isinstance(node.value, list):
        raise SpecError(f"must be a name or a mapping {{name, settings}}, not {show(node.value)}")
    name = text(node)
    if name in table:
        return name
    own = " or package.module:factory or file.py:factory" if folder is not None else ""
    if folder is None or ":" not in name:
        if folder is not None and name.endswith(".py"):
            raise SpecError(f"{show(name)} must also say which function, as in {name}:build")
        raise SpecError(f"unknown {what} {show(name)} (allowed: {', '.join(table)}{own}){nearest(name, table)}")
    if not _FACTORY.fullmatch(name):
        raise SpecError(f"{show(name)} must read package.module:factory or file.py:factory")
    source, _, factory = name.rpartition(":")
    return f"{seen_from(folder, source)}:{factory}" if source.endswith(".py") else name
