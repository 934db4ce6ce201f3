"""A proposer's memory as bytes: safetensors, with JSON in their header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from automc.errors import StoreError

_KEY = "automc"


def packed(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Args: facts: what JSON can carry."""
    found: bytes = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {_KEY: json.dumps(facts)})
    return found


def unpacked(state: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What was packed.

    Raises:
        StoreError: the bytes are not such a memory.
    """
    try:
        tensors = load(state)
        header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
        facts = json.loads(header["__metadata__"][_KEY])
        if not isinstance(facts, dict):
            raise ValueError("its facts are no mapping")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"not the memory of a proposer: {error}") from error
    return tensors, facts
