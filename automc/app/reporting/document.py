"""A document before anybody knows whether it becomes HTML or Markdown. All text is raw: whoever writes it escapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Grid:
    """A table: one mapping a row, all with the same names. ``right`` are the columns of numbers.

    ``bar`` is a column of shares such as ``12.5%``, which may be drawn as bars.
    """

    rows: Sequence[Mapping[str, str]]
    right: Sequence[str] = ()
    bar: str = ""


@dataclass(frozen=True)
class Code:
    """Text to copy, as it is."""

    text: str


@dataclass(frozen=True)
class Picture:
    """An SVG element, which must be valid XML, and what it shows. Markdown has the caption's tables instead."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Folded:
    """A block that is shown on demand, under a line that says what it is."""

    summary: str
    block: Block


Block: TypeAlias = "Text | Facts | Grid | Code | Picture | Folded"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    lead: str
    sections: Sequence[Section]
