"""A document as Markdown: tables instead of pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from automc.app.reporting.document import Block, Code, Document, Facts, Folded, Grid, Picture, Section, Text


def to_markdown(document: Document) -> str:
    """The text, as GitHub and most other readers show it."""
    parts = [f"# {plain(document.title)}", plain(document.lead), *map(_section, document.sections)]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> str:
    blocks = [text for text in map(_block, section.blocks) if text]
    return "\n\n".join([f"## {plain(section.title)}", *blocks])


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return plain(text)
        case Facts(facts):
            return "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in facts.items())
        case Grid():
            return _grid(block.rows, block.right)
        case Code(text):
            # A fence longer than any run of backticks inside.
            fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
            return f"{fence}\n{text.rstrip()}\n{fence}"
        case Picture():
            return ""
        case Folded(summary, inside):
            return f"{plain(summary[0].upper() + summary[1:])}:\n\n{_block(inside)}"


def _grid(rows: Sequence[object], right: Sequence[str]) -> str:
    found = [dict(row) for row in rows]  # type: ignore[call-overload]
    if not found:
        return "-"
    names = list(found[0])
    lines = [names, ["---:" if name in right else "---" for name in names]]
    body = [[plain(str(row[name])) for name in names] for row in found]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [[plain(n) for n in names], lines[1], *body])


def plain(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([\\`*\[\]<>|#~])", r"\\\1", " ".join(text.split())).replace("&", "&amp;")
