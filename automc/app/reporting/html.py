"""A document as one HTML file that asks for nothing else: no fonts, no scripts, no pictures from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from automc.app.reporting.document import Block, Code, Document, Facts, Folded, Grid, Picture, Section, Text
from automc.app.reporting.style import SCRIPT, STYLE


def to_html(document: Document) -> str:
    """The page. Without JavaScript the hints are those that browsers show for SVG titles.

    Its policy lets a browser run this one script and load nothing, so that even text that slipped through unescaped
    could do nothing.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<a href="#{i}">{escape(s.title)}</a> ' for i, s in enumerate(document.sections, 1))
    sections = "\n".join(_section(i, s) for i, s in enumerate(document.sections, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(document.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(document.title)}</h1>
<p class="lead">{escape(document.lead)}</p>
<nav>{links}</nav>
{sections}
<div id="hint"></div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(number: int, section: Section) -> str:
    body = "\n".join(map(_block, section.blocks))
    return f'<section id="{number}">\n<h2>{escape(section.title)}</h2>\n{body}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Facts(facts):
            return f"<dl>{''.join(f'<dt>{escape(n)}</dt><dd>{escape(v)}</dd>' for n, v in facts.items())}</dl>"
        case Grid():
            return _grid(block)
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Picture(svg, caption):
            return f'<figure><div class="wide">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'
        case Folded(summary, inside):
            return f"<details><summary>{escape(summary)}</summary>{_block(inside)}</details>"


def _grid(grid: Grid) -> str:
    if not grid.rows:
        return "<p>-</p>"
    head = "".join(f"<th{_kind(name, grid)}>{escape(name)}</th>" for name in grid.rows[0])
    rows = "".join(f"<tr>{_cells(row, grid)}</tr>" for row in grid.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cells(row: Mapping[str, str], grid: Grid) -> str:
    return "".join(
        f'<td class="num"><span class="bar"><i style="width: {_share(value)}"></i></span> {escape(value)}</td>'
        if name == grid.bar
        else f"<td{_kind(name, grid)}>{escape(value)}</td>"
        for name, value in row.items()
    )


def _kind(name: str, grid: Grid) -> str:
    return ' class="num"' if name in grid.right else ""


def _share(value: str) -> str:
    """The length of a bar; of anything but a share none."""
    number = value.removesuffix("%")
    return value if value.endswith("%") and number.replace(".", "", 1).isdecimal() else "0%"
