"""From a study file to a StudySpec, and from its rules to the search space of a network.

Every mistake becomes one line ``file:line: key path: what was given, what is allowed, the nearest spelling``;
all of them are reported together. The grammar is described in search_spaces/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from automc.app.overrides import override
from automc.app.paths import bundled_spaces, find_space
from automc.app.places import SPACE, STUDY, Mistakes, Node, Place
from automc.app.plain_places import grow
from automc.app.readers import text
from automc.app.study_schema import study
from automc.app.writer import document
from automc.app.yaml_places import parse, read_text
from automc.core.layers import LayerTable
from automc.core.required import show
from automc.core.rules import Rule, nearest, resolve
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.errors import SpecError
from automc.operators import OPERATORS


@dataclass(frozen=True)
class StudyFile:
    """A study file that was read and checked.

    Attributes:
        storage: URL or path of the trial database.
        path: the study file. Paths in ``spec`` are as seen from the current folder.
        rule_nodes, root: where the rules of the space, and everything else, were written, for messages.
    """

    spec: StudySpec
    storage: str
    path: Path
    rule_nodes: tuple[Node, ...] = field(default=(), compare=False, repr=False)
    root: Node | None = field(default=None, compare=False, repr=False)

    def placed(self, message: str) -> str:
        """Lines that begin with a key path (``proposer.settings.anchors: ...``), each behind the place of that key."""
        if self.root is None or message.startswith(str(self.path)):
            return message
        lines = [(self._place(line), line) for line in message.splitlines()]
        lines.sort(key=lambda item: (item[0].source, item[0].line))
        return "\n".join(f"{place}: {line}" for place, line in lines)

    def _place(self, line: str) -> Place:
        assert self.root is not None
        keys = re.findall(r"\w+", line.replace(":", " ").split(" ", 1)[0])
        return self.root.deepest(*keys).place


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudyFile:
    """Read a study file, with ``key.path=value`` overrides in force.

    Nothing is written and no network is loaded: names of layers are checked by ``check_space``.

    Raises:
        SpecError: one line a mistake, in the order of their lines; overrides last.
    """
    root = _load(path, STUDY, Mistakes())
    for setting in overrides:
        override(root, setting, lambda node: _open_space(node, path))
    return _checked(root, path)


def study_from(document: Mapping[str, Any], label: str) -> StudyFile:
    """As ``read_study``, from the content of a study file as Python data.

    Args:
        label: stands in messages where a file has its name and line. Paths are seen from the current folder.

    Raises:
        SpecError: one line a mistake.
    """
    return _checked(grow(document, "", Place(STUDY, label), Mistakes()), Path(label))


def read_again(spec: StudySpec, sections: Mapping[str, Any], overrides: Sequence[str]) -> StudyFile:
    """A study that exists, read like a file: with ``sections`` in the place of its own, then with the overrides.

    Raises:
        SpecError: one line a mistake.
    """
    path = Path("extend")
    root = grow({**document(spec), **sections}, "", Place(STUDY, str(path)), Mistakes())
    for setting in overrides:
        override(root, setting, lambda node: _open_space(node, path))
    return _checked(root, path)


def check_space(study: StudyFile, table: LayerTable) -> SearchSpace:
    """The search space that the study's rules make of this network.

    A rule must match something, and a layer that is named without wildcards must exist.

    Raises:
        SpecError: one line a mistake, with the file and line of the rule.
    """
    rules, mistakes = study.spec.rules, Mistakes()
    places = [(node.place, node.path) for node in study.rule_nodes]
    places = places or [(Place(STUDY, str(study.path)), f"space.rules[{i}]") for i in range(len(rules))]
    for rule, place in zip(rules, places, strict=True):
        problem = _absent_name(rule, table) or _no_match(rule, table, study.spec.order)
        if problem:
            mistakes.add(*place, problem)
    mistakes.raise_all()
    try:
        return resolve(rules, study.spec.order, table, OPERATORS, study.spec.orders)
    except SpecError as error:
        raise SpecError(f"{study.path}: space: {error}") from error


def _checked(root: Node, path: Path) -> StudyFile:
    if isinstance(root.value, dict) and "space" in root.value:
        _open_space(root.value["space"], path)
    spec, storage, space = study(root, path)
    return StudyFile(spec, storage, path, space.nodes, root)


def _load(path: Path, source: int, mistakes: Mistakes) -> Node:
    root = parse(read_text(path), Place(source, str(path), 1), mistakes)
    if root.value is None:
        raise SpecError(f"{path}: is empty; automc init -o study.yaml writes a study to start from")
    if not isinstance(root.value, dict):
        raise SpecError(f"{root.place}: must be a mapping of keys to values, not {show(root.value)}")
    return root


def _open_space(node: Node, study_path: Path) -> None:
    """Put the content of a named space in the place of its name; a name that cannot be opened is a mistake."""
    if isinstance(node.value, str):
        for space in node.attempt(lambda named: _space_file(text(named), study_path, named.mistakes)):
            node.value, node.path, node.place = space.value, space.path, space.place


def _space_file(name: str, study_path: Path, mistakes: Mistakes) -> Node:
    found = find_space(name, study_path)
    root = _load(found, SPACE, mistakes)
    assert isinstance(root.value, dict)  # _load refuses anything else
    if "objectives" in root.value and "rules" not in root.value:
        hides = f", and hides the bundled space {name!r}: rename it" if name in bundled_spaces() else ""
        raise SpecError(f"{found} is a study, not a search space{hides}")
    return root


def _absent_name(rule: Rule, table: LayerTable) -> str:
    """A layer that is named in full and does not exist: most likely a slip, even when other globs match."""
    names = [layer.name for layer in table.layers]
    what = "layer"
    if OPERATORS[rule.operator].scope == "block":
        what = "block or layer"
        names = [block.name for block in table.blocks] + names
    for glob in rule.layers + rule.exclude:
        if not any(mark in glob for mark in "*?[") and not any(fnmatchcase(name, glob) for name in names):
            return f"{rule.operator}: the model has no {what} {glob!r}{nearest(glob, names) or _some(names)}"
    return ""


def _some(names: Sequence[str]) -> str:
    return f" (it has: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"


def _no_match(rule: Rule, table: LayerTable, order: tuple[str, ...]) -> str:
    """Why the rule alone matches nothing, "" where it does."""
    try:
        resolve([rule], order, table, OPERATORS)
    except SpecError as error:
        number, _, message = str(error).partition(": ")
        return message if number == "rule 1" else ""
    return ""
