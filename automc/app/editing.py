"""Policies that people write or edit: ``layer3.*.weight_bits=4``, or the whole of one as nested data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from automc.core.policy import Policy, Site
from automc.core.rules import nearest, resolve
from automc.core.space import SearchSpace
from automc.errors import SpecError
from automc.operators import OPERATORS

if TYPE_CHECKING:
    from automc.app.study import Study

_EDIT = re.compile(r"(?:(?P<glob>\S+)\.)?(?P<setting>[a-z_]+)\s*=\s*(?P<value>.+)")


def space_of(study: Study) -> SearchSpace:
    """The search space in force, made of the stored layer table; no model is loaded."""
    spec = study.spec
    return resolve(spec.rules, spec.order, study.layers, OPERATORS, spec.orders)


def written(study: Study, nested: Mapping[str, Any]) -> Policy:
    """The policy that ``{operator: {layer: {setting: value}}}`` says, if the study's space holds it.

    Raises:
        SpecError: it is no such data. OutOfSpace: a value is missing, strange, or outside its domain.
    """
    return space_of(study).policy(Policy.from_json(json.dumps(nested)))


def edited(study: Study, policy: Policy, edits: Sequence[str]) -> Policy:
    """A policy with some decisions changed.

    Args:
        edits: ``GLOB.SETTING=VALUE``, where the glob is of layers, groups or blocks, as they stand in the policy; a
            setting of the whole network needs none. Values are JSON, or text. Later edits go over earlier ones.

    Raises:
        SpecError: an edit cannot be read, or changes nothing that the space decides. OutOfSpace: a value is outside
            its domain.
    """
    space, values = space_of(study), dict(policy)
    for edit in edits:
        match = _EDIT.fullmatch(edit.strip())
        if not match:
            raise SpecError(f"edit {edit[:60]!r}: must read GLOB.SETTING=VALUE, such as layer3.*.weight_bits=4")
        sites = _sites(space, edit, match["glob"] or "*", match["setting"])
        values |= dict.fromkeys(sites, _value(match["value"]))
    return space.policy(values)


def _sites(space: SearchSpace, edit: str, glob: str, setting: str) -> list[Site]:
    decided = [decision.site for decision in space.decisions]
    known = sorted({site.setting for site in decided})
    if setting not in known:
        raise SpecError(f"edit {edit[:60]!r}: this space decides no {setting}{nearest(setting, known)}")
    layers = [site.layer for site in decided if site.setting == setting]
    found = [site for site in decided if site.setting == setting and fnmatchcase(site.layer, glob)]
    if not found:
        raise SpecError(f"edit {edit[:60]!r}: {setting} is decided for no {glob!r}{nearest(glob, layers)}")
    return found


def _value(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()
    return found if isinstance(found, (bool, int, float)) else text.strip()
