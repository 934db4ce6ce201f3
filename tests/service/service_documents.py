"""A study as a client sends it."""

from __future__ import annotations

from typing import Any

BASE = "http://127.0.0.1:8765"
SPACE = {
    "rules": [
        {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.7, "step": 0.1}}},
        {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
    ]
}


def document(**changes: Any) -> dict[str, Any]:
    """A study as a client sends it."""
    said: dict[str, Any] = {
        "name": "s",
        "model": "digits_net",
        "data": "digits",
        "space": SPACE,
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "constraints": ["macs_ratio <= 0.8"],
        "evaluator": {"name": "synthetic", "settings": {"layers": 5}},
        "proposer": "random",
        "budget": {"trials": 20},
        "workers": {"count": 0},
    }
    return said | changes
