"""YAML text to a tree with places: the core schema of YAML 1.2, no tags, no duplicate keys, bounded in size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from automc.app.places import Mistakes, Node, Place, Scalar, one_line
from automc.core.rules import nearest
from automc.errors import SpecError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 20_000
_MAX_DIGITS = 200
"""Plain text longer than this is text even where it looks like a number: no number of a study is that long."""

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        SpecError: no such file, unreadable, larger than 1 MB, binary, or not UTF-8; one line with file and line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise SpecError(f"{path}: no such file{nearest(path.name, siblings)}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}: larger than 1 MB, which no study needs: is this the right file?")
    if b"\0" in data:
        raise SpecError(f"{path}:{_line(data, data.index(0))}: a binary or UTF-16 file, not YAML text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = data[error.start]
        raise SpecError(f"{path}:{_line(data, error.start)}: not UTF-8 (byte 0x{wrong:02x}); save as UTF-8") from error


def parse(text: str, origin: Place, mistakes: Mistakes, path: str = "") -> Node:
    """The tree of one YAML document; no document at all counts as null.

    Args:
        origin: its ``line`` is added to the lines of the text where it is above 0, else they are not shown.

    Raises:
        SpecError: not YAML, more than one document, tags, undefined aliases, or too deep. Duplicate keys and
            the like are recorded in ``mistakes``.
    """
    composer = _Composer(text, origin)
    return _Planter(origin, mistakes).plant(composer.document(), path)


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


@dataclass(frozen=True)
class _Raw:
    """A value without its path: what an anchor stands for, shared by all its aliases."""

    line: int
    scalar: Scalar = None
    items: list[_Raw] | None = None
    pairs: list[tuple[str, int, _Raw]] | None = None


class _Composer:
    """From parser events to raw values."""

    def __init__(self, text: str, origin: Place) -> None:
        self._text = text
        self._origin = origin
        self._anchors: dict[str, _Raw] = {}
        self._at = 1
        self._events = self._walk()

    def document(self) -> _Raw:
        next(self._events)
        if isinstance(next(self._events), ev.StreamEndEvent):
            return _Raw(1)
        root = self._value(next(self._events), 0)
        next(self._events)
        if not isinstance(next(self._events), ev.StreamEndEvent):
            raise self._wrong("a second YAML document begins here; a file holds one")
        return root

    def _walk(self) -> Iterator[Any]:
        try:
            for event in YAML(typ="safe", pure=True).parse(self._text):
                self._at = event.start_mark.line + 1
                yield event
        except MarkedYAMLError as error:
            unclosed = "<stream end>" in str(error.problem) and error.context_mark
            mark = unclosed or error.problem_mark or error.context_mark
            self._at = mark.line + 1 if mark else self._at
            raise self._wrong(f"not YAML: {error.problem or error.context}{self._hint()}") from error
        except (YAMLError, ValueError, OverflowError) as error:
            position = getattr(error, "position", None)
            self._at = self._text.count("\n", 0, position) + 1 if isinstance(position, int) else self._at
            raise self._wrong(f"not YAML: {getattr(error, 'reason', error)}") from error

    def _hint(self) -> str:
        lines = self._text.split("\n")
        line = lines[self._at - 1] if self._at <= len(lines) else ""
        if "\t" in line:
            return " (indent with spaces, not tabs)"
        return ' (write "*" in quotes)' if "*" in line else ""

    def _wrong(self, message: str) -> SpecError:
        place = self._origin._replace(line=self._at) if self._origin.line else self._origin
        return SpecError(one_line(f"{place}: {' '.join(message.split())}"))

    def _value(self, event: Any, depth: int) -> _Raw:
        self._at = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise self._wrong(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, ev.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._wrong(f"alias *{event.anchor} stands for nothing; a glob that begins with * needs quotes")
            return self._anchors[event.anchor]
        if event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            raise self._wrong(f"tag {tag} is refused: a study is plain data")
        raw = self._plain(event, depth)
        if event.anchor:
            self._anchors[event.anchor] = raw
        return raw

    def _plain(self, event: Any, depth: int) -> _Raw:
        line = self._at
        if isinstance(event, ev.ScalarEvent):
            return _Raw(line, self._scalar(event))
        if isinstance(event, ev.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self._events), ev.SequenceEndEvent):
                items.append(self._value(item, depth + 1))
            return _Raw(line, items=items)
        pairs = []
        while not isinstance(key := next(self._events), ev.MappingEndEvent):
            if not isinstance(key, ev.ScalarEvent) or key.tag is not None:
                raise self._wrong("a key must be plain text")
            key_line = self._at
            pairs.append((str(key.value), key_line, self._value(next(self._events), depth + 1)))
        return _Raw(line, pairs=pairs)

    def _scalar(self, event: Any) -> Scalar:
        text = str(event.value)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._wrong("half of a surrogate pair is no character") from error
        return core_scalar(text) if event.style is None and len(text) <= _MAX_DIGITS else text


def core_scalar(text: str) -> Scalar:
    """What plain text means in the core schema of YAML 1.2 (so ``yes`` and ``1_000`` are text)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _SPECIAL.fullmatch(text) else text


class _Planter:
    """From raw values to nodes: expands aliases, and counts what that makes."""

    def __init__(self, origin: Place, mistakes: Mistakes) -> None:
        self._origin = origin
        self._mistakes = mistakes
        self._left = MAX_VALUES

    def plant(self, raw: _Raw, path: str, line: int | None = None) -> Node:
        place = self._place(raw.line if line is None else line)
        self._left -= 1
        if self._left < 0:
            raise SpecError(f"{place}: more than {MAX_VALUES} values, aliases counted as often as they are used")
        node = Node(None, path, place, self._mistakes)
        if raw.pairs is not None:
            node.value = self._mapping(raw.pairs, node)
        elif raw.items is not None:
            node.value = [self.plant(item, node.below(i)) for i, item in enumerate(raw.items)]
        else:
            node.value = raw.scalar
        return node

    def _mapping(self, pairs: list[tuple[str, int, _Raw]], node: Node) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key, line, child in pairs:
            if key in children:
                first = children[key].place
                seen = f", first on line {first.line}" if first.line else ""
                self._mistakes.add(self._place(line), node.below(key), f"this key is given twice{seen}")
            else:
                children[key] = self.plant(child, node.below(key), line)
        return children

    def _place(self, line: int) -> Place:
        return self._origin._replace(line=line) if self._origin.line else self._origin
