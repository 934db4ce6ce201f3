"""A network's layers, groups and blocks, and the space over them, as text and as plain data."""

from __future__ import annotations

import math
from typing import Any

from automc.app.tables import table
from automc.core.layers import LayerTable
from automc.core.order import SITE as ORDER_SITE
from automc.core.space import SearchSpace


def layer_rows(layers: LayerTable) -> list[dict[str, Any]]:
    """One row a layer: shape, cost and its share of the network's, coupled group, why it cannot be pruned."""
    params, macs = max(layers.params, 1), max(layers.macs, 1)
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "in": layer.in_channels,
            "out": layer.out_channels,
            "kernel": layer.kernel or "-",
            "params": layer.params,
            "params %": f"{layer.params / params:.1%}",
            "macs": layer.macs,
            "macs %": f"{layer.macs / macs:.1%}",
            "group": layer.group or "-",
            "not prunable": layer.reason,
        }
        for layer in layers.layers
    ]


def group_rows(layers: LayerTable) -> list[dict[str, Any]]:
    """One row a group of layers that lose channels together."""
    return [
        {
            "group": group.name,
            "channels": group.channels,
            "producers": " ".join(group.producers),
            "consumers": " ".join(group.consumers),
        }
        for group in layers.groups
    ]


def block_rows(layers: LayerTable) -> list[dict[str, Any]]:
    """One row a block that can be dropped whole: its share of the network, the layers in it."""
    params, macs = max(layers.params, 1), max(layers.macs, 1)
    return [
        {
            "block": block.name,
            "params": block.params,
            "params %": f"{block.params / params:.1%}",
            "macs": block.macs,
            "macs %": f"{block.macs / macs:.1%}",
            "layers": " ".join(block.layers),
        }
        for block in layers.blocks
    ]


def layers_text(layers: LayerTable) -> str:
    """The layer table, its groups and its blocks."""
    shape = "x".join(str(size) for size in layers.input_shape)
    head = f"{len(layers.layers)} layers, {layers.params:,} parameters, {layers.macs:,} MACs for one {shape} input"
    groups = table(group_rows(layers)) if layers.groups else "(no group of channels can be pruned)"
    blocks = [table(block_rows(layers))] if layers.blocks else []
    return "\n\n".join([head, table(layer_rows(layers)), groups, *blocks])


def space_data(space: SearchSpace) -> dict[str, Any]:
    """How large a space is: ``log10_size`` counts the decisions that are not continuous."""
    discrete = [d.domain.size for d in space.decisions if math.isfinite(d.domain.size)]
    return {
        "decisions": len(space),
        "continuous": len(space) - len(discrete),
        "log10_size": sum(math.log10(size) for size in discrete),
        "fixed": len(space.fixed),
        "order": list(space.order),
        "domains": _domain_rows(space),
    }


def _domain_rows(space: SearchSpace) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str, str], int] = {}
    for decision in space.decisions:
        key = (decision.site.operator, decision.site.setting, str(decision.domain))
        counts[key] = counts.get(key, 0) + 1
    return [{"operator": o, "setting": s, "domain": d, "decisions": n} for (o, s, d), n in counts.items()]


def space_text(space: SearchSpace) -> str:
    """The domains of a space and its size."""
    data = space_data(space)
    extra = f", and {data['continuous']} continuous decisions beside them" if data["continuous"] else ""
    size = f"{data['decisions']} decisions, {data['fixed']} fixed; 10^{data['log10_size']:.1f} policies{extra}"
    rows = [row for row in data["domains"] if row["operator"] != ORDER_SITE.operator]  # the last line says more
    return f"{table(rows)}\n\n{size}\noperators are applied in {_order_text(space)}"


def _order_text(space: SearchSpace) -> str:
    orders = [d.domain.values(0) for d in space.decisions if d.site == ORDER_SITE]
    if not orders:
        return f"the order {', '.join(space.order)}"
    return "one of the orders " + "; ".join(", ".join(str(names).split()) for names in orders[0])
