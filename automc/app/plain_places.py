"""Python data to a tree with places, so that a study given in a call is checked as one in a file is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from automc.app.places import Mistakes, Node, Place
from automc.app.yaml_places import MAX_DEPTH
from automc.errors import SpecError


def grow(value: Any, path: str, place: Place, mistakes: Mistakes, depth: int = 0) -> Node:
    """The tree of mappings, lists, tuples, text, numbers (NumPy's too), paths, true/false and None.

    Raises:
        SpecError: more than MAX_DEPTH levels deep, as data that contains itself is.
    """
    if depth > MAX_DEPTH:
        raise SpecError(f"{place}: {path[:60]}: nested more than {MAX_DEPTH} levels deep")
    node = Node(None, path, place, mistakes)
    if isinstance(value, Mapping):
        keys = {str(key): item for key, item in value.items()}
        node.value = {key: grow(item, node.below(key), place, mistakes, depth + 1) for key, item in keys.items()}
    elif isinstance(value, (list, tuple)):
        node.value = [grow(item, node.below(i), place, mistakes, depth + 1) for i, item in enumerate(value)]
    elif isinstance(value, np.generic):
        node.value = value.item()
    elif isinstance(value, Path):
        node.value = str(value)
    elif value is None or isinstance(value, (str, int, float)):
        node.value = value
    else:
        node.complain(f"must be plain data, not {type(value).__name__}")
    return node
