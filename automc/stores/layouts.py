"""Which sites the policies of a study have: most often one list for all of its trials."""

from __future__ import annotations

import json
from functools import lru_cache

import sqlalchemy as sa

from automc.core.policy import Policy, Site
from automc.stores import tables as t
from automc.stores.codec import loads
from automc.stores.decisions import Vocabulary, space_sites

_L = t.layout.c
_KNOWN = sa.select(_L.layout).where(_L.study_id == sa.bindparam("study"), _L.sites == sa.bindparam("text"))


def keep_layout(connection: sa.Connection, study_id: int, policy: Policy) -> int:
    """The number of the policy's layout in this study, which nobody else writes to meanwhile; a new one is added."""
    text = _written(tuple(policy))
    found: int | None = connection.execute(_KNOWN, {"study": study_id, "text": text}).scalar()
    if found is None:
        last = sa.select(sa.func.max(_L.layout)).where(_L.study_id == study_id)
        found = 1 + (connection.execute(last).scalar() or 0)
        connection.execute(t.layout.insert().values(study_id=study_id, layout=found, sites=text))
    return found


@lru_cache(maxsize=16)
def _written(sites: tuple[Site, ...]) -> str:
    return json.dumps(sites, separators=(",", ":"))


def read_layouts(connection: sa.Connection, study_id: int) -> dict[int, list[Site]]:
    """The sites of each layout, by its number."""
    rows = connection.execute(sa.select(_L.layout, _L.sites).where(_L.study_id == study_id).order_by(_L.layout))
    return {number: [Site(*site) for site in json.loads(text)] for number, text in rows}


def vocabulary(connection: sa.Connection, study_id: int, layouts: dict[int, list[Site]]) -> Vocabulary:
    """The decisions of the study's trials; while there are none, those of its space."""
    if layouts:
        return Vocabulary(site for sites in layouts.values() for site in sites)
    facts = connection.execute(sa.select(t.study.c.facts).where(t.study.c.id == study_id)).scalar_one()
    return Vocabulary(space_sites(loads(facts)))
