"""A compression policy: one value per decision."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, ItemsView, Iterator, Mapping
from typing import Any, NamedTuple

from automc.errors import SpecError

Value = int | float | str | bool

_KINDS = (int, float, str)  # of which bool is one; asking a union type takes three times as long
# Sites are in order, and so are the keys of what they nest to.
_CANONICAL = json.JSONEncoder(separators=(",", ":"))


class Site(NamedTuple):
    """Where a decision applies: one setting of one operator at one layer or group.

    ``layer`` is the dotted module name of a layer, the name of a group, or ``"*"`` for a setting of the
    whole network (kd_temperature, kd_alpha).
    """

    operator: str
    layer: str
    setting: str

    def __str__(self) -> str:
        return f"{self.operator}({self.layer}).{self.setting}"


class Policy(Mapping[Site, Value]):
    """An immutable, hashable mapping from site to value.

    Two policies are equal when their canonical JSON is: keys sorted, no spaces, numbers as Python writes
    them. ``fingerprint`` is the SHA-256 of that text, and so the same on every machine.

    Raises:
        SpecError: a value is not a finite int, float, str or bool.
    """

    __slots__ = ("_decoded", "_json")

    def __init__(self, values: Mapping[Site, Value]) -> None:
        sites = sorted(site if type(site) is Site else Site(*site) for site in values)
        self._decoded: dict[Site, Value] | None = {site: values[site] for site in sites}
        for site, value in self._decoded.items():
            if not isinstance(value, _KINDS) or (isinstance(value, float) and not math.isfinite(value)):
                raise SpecError(f"policy: {site} must be a finite number, text or true/false, not {value!r}")
        self._json = _CANONICAL.encode(_nest(self._decoded))

    @property
    def _values(self) -> dict[Site, Value]:
        if self._decoded is None:
            self._decoded = _sites(self._json)
        return self._decoded

    def __getitem__(self, site: Site) -> Value:
        return self._values[site]

    def __contains__(self, site: object) -> bool:
        return site in self._values

    def __iter__(self) -> Iterator[Site]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def items(self) -> ItemsView[Site, Value]:
        return self._values.items()

    def __hash__(self) -> int:
        return hash(self._json)

    def __eq__(self, other: object) -> bool:
        return self._json == other._json if isinstance(other, Policy) else NotImplemented

    def __repr__(self) -> str:
        return f"Policy({self._json})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self._json.encode()).hexdigest()

    def settings(self, operator: str) -> dict[str, dict[str, Value]]:
        """The values of one operator: ``{layer: {setting: value}}``; empty when the policy names none."""
        found: dict[str, dict[str, Value]] = {}
        for site, value in self._values.items():
            if site.operator == operator:
                found.setdefault(site.layer, {})[site.setting] = value
        return found

    def without(self, sites: Container[Site]) -> Policy:
        """The policy that says nothing at these sites."""
        kept = {site: value for site, value in self._values.items() if site not in sites}
        found = Policy.canonical(_CANONICAL.encode(_nest(kept)))
        found._decoded = kept
        return found

    def to_json(self) -> str:
        """Canonical JSON: ``{operator: {layer: {setting: value}}}``."""
        return self._json

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy that ``to_json`` wrote.

        Raises:
            SpecError: the text is not such JSON.
        """
        return cls(_sites(text))

    @classmethod
    def canonical(cls, text: str) -> Policy:
        """The same of a text that ``to_json`` is known to have written: it is read when a value is asked for, and not
        before, because of very many policies most are only counted and compared.

        Raises:
            SpecError: at that time, the text is no such JSON.
        """
        found = cls.__new__(cls)
        found._json, found._decoded = text, None
        return found


def _sites(text: str) -> dict[Site, Value]:
    try:
        nested: Any = json.loads(text)
        return {
            Site(operator, layer, setting): value
            for operator, layers in nested.items()
            for layer, settings in layers.items()
            for setting, value in settings.items()
        }
    except ValueError as error:
        raise SpecError(f"policy: not {{operator: {{layer: {{setting: value}}}}}} JSON: {error}") from error
    except AttributeError as error:
        said = "policy: must be {operator: {layer: {setting: value}}}, and something else stands where an object should"
        raise SpecError(said) from error


def _nest(values: Mapping[Site, Value]) -> dict[str, dict[str, dict[str, Value]]]:
    nested: dict[str, dict[str, dict[str, Value]]] = {}
    for site, value in values.items():
        nested.setdefault(site.operator, {}).setdefault(site.layer, {})[site.setting] = value
    return nested
