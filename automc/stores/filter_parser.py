"""From the text of a filter to its tree; see filters.py for the language."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from automc.core.rules import nearest
from automc.errors import SpecError
from automc.stores.filters import NAMES, WORDS, Both, Compare, Either, Filter, Literal, Member, Name, Not, hint

MAX_LENGTH = 2000
"""Characters of a filter: it bounds the depth of the tree, and so of the SQL."""


_GRAMMAR = r"""
?start: either
?either: both ("or" both)*
?both: negated ("and" negated)*
?negated: "not" negated -> invert | test
?test: "(" either ")"
     | operand SIGN operand -> compare
     | NAME "in" "(" operand ("," operand)* ")" -> member
     | NAME "not" "in" "(" operand ("," operand)* ")" -> stranger
?operand: NAME | NUMBER | TEXT
SIGN: "<=" | ">=" | "==" | "!=" | "<" | ">"
NAME: /[A-Za-z_]\w*/
NUMBER: /[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?!\w)/
TEXT: /"[^"]*"|'[^']*'/
%ignore /\s+/
"""


def read_filter(text: str) -> Filter:
    """See ``filters.parse``."""
    if len(text) > MAX_LENGTH:
        raise SpecError(f"filter: at most {MAX_LENGTH} characters, not {len(text)}")
    try:
        return _build(_parser().parse(text))
    except UnexpectedInput as error:
        if isinstance(error, UnexpectedCharacters):
            found, column = repr(text[error.pos_in_stream or 0]), error.column
        else:
            token = error.token if isinstance(error, UnexpectedToken) else None
            ended = isinstance(error, UnexpectedEOF) or token is None or token.type == "$END"
            found, column = ("its end", len(text) + 1) if ended else (repr(str(token)), error.column)
        raise SpecError(
            f"filter {text!r}, column {column}: {found} is not expected here; "
            "a filter reads like: top1 >= 0.95 and (rung == 1 or state in (complete, stopped))"
        ) from None


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr")


def _build(node: Tree[Token]) -> Filter:
    children: list[Any] = list(node.children)
    match str(node.data):
        case "both":
            return Both(tuple(_build(child) for child in children))
        case "either":
            return Either(tuple(_build(child) for child in children))
        case "invert":
            inner = _build(children[0])
            return inner.inner if isinstance(inner, Not) else Not(inner)
        case "compare":
            return _compare(*children)
        case "member":
            return _member(*children)
    return replace(_member(*children), negated=True)


def _compare(left: Token, sign: Token, right: Token) -> Compare:
    if "NAME" not in (left.type, right.type):
        raise SpecError(f"filter, column {left.column}: a comparison needs a name: {', '.join(NAMES)}")
    field = next((str(t) for t in (left, right) if t.type == "NAME" and str(t) in WORDS), "")
    if field and sign not in ("==", "!="):
        raise SpecError(f"filter, column {sign.column}: {field} is a word and knows ==, != and in, not {str(sign)!r}")
    sides = [Name(field) if str(t) == field and t.type == "NAME" else _value(t, field) for t in (left, right)]
    return Compare(sides[0], str(sign), sides[1])


def _member(name: Token, *values: Token) -> Member:
    if name not in NAMES:
        raise _unknown(name)
    found = tuple(_value(value, str(name) if name in WORDS else "") for value in values)
    for token, value in zip(values, found, strict=True):
        if isinstance(value, Name):
            raise SpecError(f"filter, column {token.column}: a list holds values, not the name {value.name!r}")
    return Member(Name(str(name)), tuple(value for value in found if not isinstance(value, Name)))


def _value(token: Token, field: str) -> Name | Literal:
    """A token on its own: beside a word field a word, quoted or not, and elsewhere a name or a number."""
    if field:
        word = str(token)[1:-1] if token.type == "TEXT" else str(token)
        if token.type == "NUMBER" or word not in WORDS[field]:
            known = f"{nearest(word, WORDS[field])} (it is one of: {', '.join(filter(None, WORDS[field]))})"
            raise SpecError(f"filter, column {token.column}: {field} is never {word!r}{known}")
        return word
    if token.type == "NUMBER":
        return float(token)
    if token.type == "TEXT":
        raise SpecError(f"filter, column {token.column}: text can be compared with state and reason only, not {token}")
    if token not in NAMES:
        raise _unknown(token)
    return Name(str(token))


def _unknown(token: Token) -> SpecError:
    return SpecError(f"filter, column {token.column}: unknown name {str(token)!r}{hint(str(token))}")
