"""The network of a study in tables of its own, so that SQL users need not take its facts apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from automc.core.layers import Layer, LayerTable
from automc.core.study import StudySpec
from automc.stores import more_tables as m
from automc.stores.codec import dumps


def keep_network(connection: sa.Connection, study_id: int, spec: StudySpec, facts: Mapping[str, Any]) -> None:
    """Put the layer table of the facts, where they have one, in the place of an older one."""
    data = facts.get("layers")
    if not isinstance(data, Mapping):
        return
    table = LayerTable.from_data(data)
    for kept in (m.layer, m.model):
        connection.execute(kept.delete().where(kept.c.study_id == study_id))
    model = {"name": spec.model.name, "weights": spec.model.weights, "params": table.params, "macs": table.macs}
    connection.execute(m.model.insert().values(model | {"study_id": study_id, "input_shape": dumps(table.input_shape)}))
    if table.layers:
        connection.execute(m.layer.insert(), [_row(study_id, layer) for layer in table.layers])


def _row(study_id: int, layer: Layer) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "position": layer.index,
        "name": layer.name,
        "kind": layer.kind,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "params": layer.params,
        "kernel": dumps(layer.kernel),
        "stride": dumps(layer.stride),
        "out_shape": dumps(layer.out_shape),
        "macs": layer.macs,
        "group_name": layer.group,
        "reason": layer.reason,
    }
