"""Decisions of policies as a filter sees them: which of them a name means, and their values as bytes that sort.

A trial keeps, beside the fingerprint of its policy, the policy's values packed: eight bytes a decision, in the order of
the policy's sites, which are the same for all trials of a layout. So SQL compares decisions without reading JSON.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from automc.core.policy import Policy, Site, Value
from automc.core.rules import nearest
from automc.errors import SpecError

WHOLE = "*"
"""The layer of a decision that is about the whole network."""

WIDTH = 8
"""Bytes of a packed decision."""

INFINITE = bytes.fromhex("fff0000000000000")
"""Above the codes of all finite numbers, below those of all words."""

_SIGN, _ALL, _WORDS = 1 << 63, (1 << 64) - 1, 0xFFF8 << 48


class Places(NamedTuple):
    """Which decisions a filter speaks of.

    Attributes:
        layer: a glob over layers, groups and blocks (``*``, ``?``, ``[...]``); None for the whole network.
        operator: only this operator's; "" for any.
        every: whether all of them must meet a test (of which there must be one), or any.
    """

    setting: str
    layer: str | None = None
    operator: str = ""
    every: bool = False

    def hold(self, site: Site) -> bool:
        """Whether the decision is one of them."""
        if site.setting != self.setting or self.operator not in ("", site.operator):
            return False
        if self.layer is None or site.layer == WHOLE:
            return self.layer is None and site.layer == WHOLE
        return fnmatchcase(site.layer, self.layer)


class Vocabulary:
    """The decisions there are in a study; knowing none, everything about layers is taken as it comes."""

    def __init__(self, sites: Iterable[Site] = ()) -> None:
        self.sites = tuple(dict.fromkeys(sites))

    @cached_property
    def whole(self) -> list[str]:
        """The settings of the whole network."""
        return sorted({site.setting for site in self.sites if site.layer == WHOLE})

    @cached_property
    def by_layer(self) -> list[str]:
        """The settings that layers, groups or blocks have, each its own."""
        return sorted({site.setting for site in self.sites if site.layer != WHOLE})

    def check(self, places: Places) -> None:
        """Raises SpecError, for a message to be put after its place, unless the study decides something there."""
        if not self.sites or any(places.hold(site) for site in self.sites):
            return
        known = self.whole if places.layer is None else self.by_layer
        of = "the whole network" if places.layer is None else "a layer"
        if places.setting not in known:
            raise SpecError(
                f"{places.setting!r} is no setting of {of}{nearest(places.setting, known)} ({_some(known) or 'none'})"
            )
        mine = [site for site in self.sites if site.setting == places.setting]
        operators = sorted({site.operator for site in mine})
        if places.operator not in ("", *operators):
            hint = nearest(places.operator, operators)
            raise SpecError(f"operator {places.operator!r} has no {places.setting} here{hint} ({_some(operators)})")
        layers = list(dict.fromkeys(site.layer for site in mine if site.layer != WHOLE))
        hint = nearest((places.layer or "").rstrip("*"), layers)
        raise SpecError(f"no layer with {places.setting} is called {places.layer!r}{hint} ({_some(layers)})")


def space_sites(facts: Mapping[str, Any]) -> list[Site]:
    """The decisions of a study's space, of its facts; none where they do not tell."""
    space = facts.get("space", {})
    rows = [*space.get("decisions", ()), *space.get("fixed", ())]
    return [Site(*row[:3]) for row in rows]


def packed(policy: Policy) -> bytes:
    """The policy's values, ``WIDTH`` bytes each, in the order of its sites."""
    return b"".join(map(code, policy.values()))


@lru_cache(maxsize=65536)  # a policy has few values and many decisions; values that are equal have one code
def code(value: Value) -> bytes:
    """Bytes in the order of the values: numbers by size (true is 1), and after them words in no order of meaning.

    A number is its IEEE 754 double, big-endian, with the sign bit turned (all bits where it is negative); a word is 51
    bits of its SHA-256 in the place that NaN would have.
    """
    if isinstance(value, str):
        return (_WORDS | int.from_bytes(hashlib.sha256(value.encode()).digest()[:7], "big") >> 5).to_bytes(WIDTH, "big")
    bits = int.from_bytes(struct.pack(">d", number(value) + 0.0), "big")  # adding zero makes -0.0 the other zero
    return (bits ^ (_ALL if bits & _SIGN else _SIGN)).to_bytes(WIDTH, "big")


def number(value: float) -> float:
    """A number as SQL compares it."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
