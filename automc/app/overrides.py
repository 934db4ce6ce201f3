"""Overrides from the command line: ``budget.trials=10``, applied to the tree before it is checked."""

from __future__ import annotations

import re
from collections.abc import Callable

from automc.app.places import OVERRIDE, Node, Place, one_line
from automc.app.yaml_places import parse
from automc.core.required import show
from automc.errors import SpecError

Key = str | int
_STEP = re.compile(r"\.?([^.\[\]\s]+)|\[(-?[0-9]{1,9})\]")
_SHORTHAND = ("model", "data", "task", "proposer", "stopper", "evaluator")
_DEFAULTS = {"task": "classification", "proposer": "portfolio", "stopper": "never", "evaluator": "network"}
"""Names of the parts that a study may leave out."""


def override(root: Node, setting: str, open_space: Callable[[Node], None]) -> None:
    """Put the value of ``key.path=YAML`` into the tree; missing mappings on the way are made.

    A part written by its name alone becomes ``{name: ...}`` when a key below it is set.

    Args:
        open_space: replaces a space named in ``space`` by its content, where a key below it is set.

    Raises:
        SpecError: not of that form, or no such list item. Unknown keys are found by the check of the whole.
    """
    place = Place(OVERRIDE, f"--set {setting if len(setting) <= 80 else setting[:77] + '...'}")
    path, separator, text = setting.partition("=")
    if not separator or not path.strip():
        raise _wrong(place, "must read key=value, as in --set budget.trials=10")
    *way, last = _keys(path.strip(), place)
    node = root
    for key in way:
        node = _child(_opened(node, key, place), key, place)
        if node.path == "space" and isinstance(node.value, str):
            open_space(node)
            if isinstance(node.value, str):
                node.mistakes.raise_all()
    _put(_opened(node, last, place), last, text, place)


def _keys(path: str, place: Place) -> list[Key]:
    keys: list[Key] = []
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if not step or path[0] in ".[" or not path.isprintable():
            raise _wrong(place, f"{path!r} is no key path; one reads budget.trials or rungs[1].steps")
        keys.append(step[1] if step[1] is not None else int(step[2]))
        position = step.end()
    return keys


def _opened(node: Node, key: Key, place: Place) -> Node:
    """The node, ready to hold the key."""
    if isinstance(key, str) and node.value is None:
        node.value = {}
        if key != "name" and node.path in _DEFAULTS:
            node.value["name"] = Node(_DEFAULTS[node.path], node.below("name"), node.place, node.mistakes)
    elif isinstance(key, str) and isinstance(node.value, str) and node.path in _SHORTHAND:
        node.value = {"name": Node(node.value, node.below("name"), node.place, node.mistakes)}
    if isinstance(key, str) and isinstance(node.value, dict):
        return node
    if isinstance(key, int) and isinstance(node.value, list):
        count = len(node.value)
        if not -count <= key < count:
            raise _wrong(place, f"{node.path} has {count} items, so there is no {node.below(key)}")
        return node
    where = node.path or "the study"
    raise _wrong(place, f"{where} is {show(node.value)} and has no {key if isinstance(key, str) else f'[{key}]'}")


def _child(node: Node, key: Key, place: Place) -> Node:
    if isinstance(node.value, list):
        return node.value[int(key)]
    assert isinstance(node.value, dict)
    return node.value.setdefault(str(key), Node(None, node.below(key), place, node.mistakes))


def _put(node: Node, key: Key, text: str, place: Place) -> None:
    value = parse(text.strip(), place, node.mistakes, node.below(key))
    if isinstance(node.value, list):
        node.value[int(key)] = value
    elif isinstance(node.value, dict):
        node.value[str(key)] = value


def _wrong(place: Place, message: str) -> SpecError:
    return SpecError(one_line(f"{place}: {message}"))
