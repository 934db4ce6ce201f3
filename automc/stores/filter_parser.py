"""From the text of a filter to its tree; see filters.py for the language."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from automc.core.rules import nearest
from automc.errors import SpecError
from automc.stores.decisions import Places, Vocabulary
from automc.stores.filters import (
    ALIASES,
    NAMES,
    WORDS,
    Begins,
    Both,
    Compare,
    Decided,
    Either,
    Filter,
    Literal,
    Member,
    Name,
    Not,
    Null,
    hint,
)

MAX_LENGTH = 2000
"""Characters of a filter: it bounds the depth of the tree, and so of the SQL."""

_GRAMMAR = r"""
?start: either
?either: both ("or" both)*
?both: negated ("and" negated)*
?negated: "not" negated -> invert | test
?test: "(" either ")"
     | operand SIGN operand -> compare
     | subject "in" "(" operand ("," operand)* ")" -> member
     | subject "not" "in" "(" operand ("," operand)* ")" -> stranger
     | subject "is" "null" -> null
     | subject "is" "not" "null" -> known
?operand: subject | NUMBER | DIGITS | TEXT
?subject: NAME | NAME "." NAME -> whole | layers
layers: [ANY | ALL] "layer" "(" TEXT ")" "." NAME ["." NAME]
SIGN: "<=" | ">=" | "==" | "!=" | "<" | ">"
ANY: "any"
ALL: "all"
NAME: /[A-Za-z_]\w*/
NUMBER.2: /[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?!\w)/
DIGITS: /\d[0-9a-f]*(?!\w)/
TEXT: /"[^"]*"|'[^']*'/
%ignore /\s+/
"""

_TRUTH = {"true": 1.0, "false": 0.0}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def read_filter(text: str, known: Vocabulary) -> Filter:
    """See ``filters.parse``."""
    if len(text) > MAX_LENGTH:
        raise SpecError(f"filter: at most {MAX_LENGTH} characters, not {len(text)}")
    try:
        return _Reading(known).tree(_parser().parse(text))
    except UnexpectedInput as error:
        if isinstance(error, UnexpectedCharacters):
            found, column = repr(text[error.pos_in_stream or 0]), (error.pos_in_stream or 0) + 1
        else:
            token = error.token if isinstance(error, UnexpectedToken) else None
            ended = isinstance(error, UnexpectedEOF) or token is None or token.type == "$END"
            found, column = ("its end", len(text) + 1) if ended or token is None else (repr(str(token)), _at(token))
        raise SpecError(
            f"filter {' '.join(text.split())!r}, column {column}: {found} is not expected here; "
            'a filter reads like: top1 >= 0.95 and (rung == 1 or layer("conv*").weight_bits in (4, 8))'
        ) from None


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=True)


Node = Token | Tree[Token]


class _Reading:
    """One filter, read with the words of one study."""

    def __init__(self, known: Vocabulary) -> None:
        self._known = known

    def tree(self, node: Tree[Token]) -> Filter:
        children: list[Any] = list(node.children)
        match str(node.data):
            case "both":
                return Both(tuple(self.tree(child) for child in children))
            case "either":
                return Either(tuple(self.tree(child) for child in children))
            case "invert":
                inner = self.tree(children[0])
                return inner.inner if isinstance(inner, Not) else Not(inner)
            case "compare":
                return self._compare(*children)
            case "member" | "stranger" as kind:
                return self._member(kind == "stranger", *children)
            case "null":
                return Null(self._subject(children[0]))
        return Not(Null(self._subject(children[0])))

    def _subject(self, node: Node) -> Name | Places:
        """What a name stands for. Raises SpecError where nobody is called so."""
        if isinstance(node, Token):
            name = ALIASES.get(str(node), str(node))
            if name in NAMES:
                return Name(name)
            if name in self._known.whole:
                return Places(name)
            if name in self._known.by_layer:
                layers = f'layer("*").{name}'
                raise _fault(node, f"{name} is decided for each layer: write {layers}, or all {layers}")
            raise _fault(node, f"unknown name {name!r}{hint(name, self._known)}")
        parts = [None if part is None else str(part) for part in node.children]
        if str(node.data) == "whole":
            places = Places(parts[1] or "", None, parts[0] or "")
        else:
            quantifier, layer, first, second = parts
            operator, setting = (first, second) if second else ("", first)
            places = Places(setting or "", (layer or "")[1:-1], operator or "", quantifier == "all")
        try:
            self._known.check(places)
        except SpecError as error:
            raise _fault(node, str(error)) from None
        return places

    def _compare(self, left: Node, sign: Token, right: Node) -> Filter:
        """The side that decides what the other may be: a word's name, then a setting, then any name."""
        flipped = self._weight(right) > self._weight(left)
        first, second = (right, left) if flipped else (left, right)
        if not self._weight(first):
            raise _fault(left, f"a comparison needs a name: {', '.join(NAMES)}")
        subject = self._subject(first)
        wordy = isinstance(subject, Name) and subject.name in (*WORDS, "fingerprint")
        if wordy and sign not in ("==", "!="):
            known = "is a word and knows" if subject != Name("fingerprint") else "knows"
            raise _fault(sign, f"{first} {known} ==, != and in, not {str(sign)!r}")
        if isinstance(subject, Places):
            value = self._setting(second)
            if isinstance(value, str) and sign not in ("==", "!="):
                raise _fault(sign, f"a word knows ==, != and in, not {str(sign)!r}")
            return Decided(subject, _MIRRORED.get(sign, str(sign)) if flipped else str(sign), (value,))
        if subject == Name("fingerprint"):
            return Begins((_digits(second),), sign == "!=")
        other = self._value(second, subject)
        return Compare(other, str(sign), subject) if flipped else Compare(subject, str(sign), other)

    def _member(self, negated: bool, name: Node, *values: Node) -> Filter:
        subject = self._subject(name)
        if isinstance(subject, Places):
            return Decided(subject, "not in" if negated else "in", tuple(self._setting(value) for value in values))
        if subject == Name("fingerprint"):
            return Begins(tuple(map(_digits, values)), negated)
        found = tuple(self._value(value, subject) for value in values)
        for node, value in zip(values, found, strict=True):
            if isinstance(value, Name):
                raise _fault(node, f"a list holds values, not the name {value.name!r}")
        return replace(Member(subject, tuple(v for v in found if not isinstance(v, Name))), negated=negated)

    def _weight(self, node: Node) -> int:
        if isinstance(node, Tree):
            return 2
        if node.type != "NAME":
            return 0
        return 3 if node in (*WORDS, "fingerprint") else 2 if self._is_setting(node) else 1

    def _is_setting(self, name: str) -> bool:
        return name not in (*NAMES, *ALIASES) and name in (*self._known.whole, *self._known.by_layer)

    def _value(self, node: Node, subject: Name) -> Name | Literal:
        """What stands beside a name: for state and reason one of their words, quoted or not, else a name or number."""
        if subject.name in WORDS:
            return _word(node, subject.name)
        if isinstance(node, Token) and node.type == "NUMBER":
            return float(node)
        if isinstance(node, Token) and node.type != "NAME":
            raise _fault(node, f"text can be compared with state and reason only, not {node}")
        found = self._subject(node)
        if isinstance(found, Places):
            raise _fault(node, "a setting can be compared with a value only")
        if found.name in (*WORDS, "fingerprint"):
            raise _fault(node, f"{found.name} can be compared with a word only")
        return found

    def _setting(self, node: Node) -> Literal:
        """What stands beside a setting: a number, true, false, or a word, quoted or not."""
        if isinstance(node, Token) and node.type == "NUMBER":
            return float(node)
        if isinstance(node, Token) and node.type == "TEXT":
            return str(node)[1:-1]
        if isinstance(node, Tree) or self._is_setting(node) or node in (*NAMES, *ALIASES):
            raise _fault(node, "a setting can be compared with a value only; quote a word that is also a name")
        return _TRUTH.get(str(node).lower(), str(node))


def _word(node: Node, field: str) -> str:
    if isinstance(node, Tree):
        raise _fault(node, f"{field} can be compared with a word only")
    word = str(node)[1:-1] if node.type == "TEXT" else str(node)
    if node.type == "NUMBER" or word not in WORDS[field]:
        known = f"{nearest(word, WORDS[field])} (it is one of: {', '.join(filter(None, WORDS[field]))})"
        raise _fault(node, f"{field} is never {word!r}{known}")
    return word


def _digits(node: Node) -> str:
    found = "" if isinstance(node, Tree) else str(node)[1:-1] if node.type == "TEXT" else str(node)
    if not re.fullmatch(r"[0-9a-f]{1,64}", found):
        raise _fault(node, f"a fingerprint is named by its first hexadecimal digits, such as 7ac10ef5, not {found!r}")
    return found


def _at(node: Node) -> int:
    return 1 + ((node.start_pos or 0) if isinstance(node, Token) else node.meta.start_pos)


def _fault(node: Node, said: str) -> SpecError:
    return SpecError(f"filter, column {_at(node)}: {said}")
