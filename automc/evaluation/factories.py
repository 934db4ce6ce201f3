"""Finding a user's own factory: ``package.module:factory`` or ``file.py:factory``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from automc.core.rules import nearest
from automc.errors import AutomcError, ModelError, one_line

_BY_VALUE: set[str] = set()
"""Modules that a worker cannot import by name: their classes travel with the evaluator."""


def resolve_path(path: str, base: Path | None) -> Path:
    """``path`` seen from the study's folder if it is there, else from the current one."""
    beside = (base or Path()) / Path(path).expanduser()
    return beside if beside.exists() else Path(path).expanduser()


def find_factory(name: str, base: Path | None, error: type[AutomcError] = ModelError) -> Callable[..., Any]:
    """The callable that ``name`` means; importing it runs the user's code.

    Raises:
        error: no such file, module or attribute (with the nearest spelling), or the import raises.
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute.isidentifier():
        raise error(f"{name!r} must read package.module:factory or file.py:factory")
    module = _file_module(source, base, error) if source.endswith(".py") else _named_module(source, base, error)
    factory = getattr(module, attribute, None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]
    if factory is not None:
        raise error(f"{name}: {attribute} must be callable, not {type(factory).__name__}")
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise error(f"{name}: {source} has no {attribute!r}{nearest(attribute, public)}")


def call_factory(
    name: str, factory: Callable[..., Any], settings: Mapping[str, Any], error: type[AutomcError] = ModelError
) -> Any:
    """``factory(**settings)``, with what it raises in one line.

    Raises:
        error: an argument it does not take (with the nearest spelling) or lacks, or whatever it raises.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        _check_arguments(name, signature, settings, error)
    try:
        return factory(**settings)
    except Exception as raised:
        raise error(f"{name}: the factory raised {one_line(raised)}") from raised


def ship_user_modules() -> None:
    """Make cloudpickle carry the classes of user modules by value; to be called while something is pickled.

    Ray bundles a cloudpickle of its own, so every copy that is loaded is told.
    """
    for library in ("cloudpickle", "ray.cloudpickle"):
        pickler = sys.modules.get(library)
        for name in _BY_VALUE if pickler else ():
            if name in sys.modules:
                pickler.register_pickle_by_value(sys.modules[name])  # type: ignore[union-attr]


def _check_arguments(
    name: str, signature: inspect.Signature, settings: Mapping[str, Any], error: type[AutomcError]
) -> None:
    kinds = {p.kind for p in signature.parameters.values()}
    known = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    strange = [key for key in settings if key not in known]
    if strange and inspect.Parameter.VAR_KEYWORD not in kinds:
        hint = nearest(strange[0], known)
        raise error(f"{name}: unknown setting {strange[0]!r}{hint} (it takes: {', '.join(known) or 'none'})")
    try:
        signature.bind(**settings)
    except TypeError as raised:
        raise error(f"{name}: {raised} (give it under settings)") from raised


def _file_module(source: str, base: Path | None, error: type[AutomcError]) -> ModuleType:
    path = resolve_path(source, base).resolve()
    if not path.is_file():
        folders = dict.fromkeys(str(folder.resolve()) for folder in (base or Path(), Path()))
        looked = "" if Path(source).is_absolute() else f" (looked in {' and '.join(folders)})"
        raise error(f"{source}: no such file{looked}")
    name = f"automc_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{source}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class up by its module's name
    _BY_VALUE.add(name)
    try:
        spec.loader.exec_module(module)
    except Exception as raised:
        del sys.modules[name]
        raise error(f"{source}: importing it raised {one_line(raised)}") from raised
    return module


def _named_module(source: str, base: Path | None, error: type[AutomcError]) -> ModuleType:
    top = source.partition(".")[0]
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as raised:
        if raised.name is None or raised.name.partition(".")[0] != top:
            raise error(f"{source}: importing it raised {one_line(raised)}") from raised
    except Exception as raised:
        raise error(f"{source}: importing it raised {one_line(raised)}") from raised
    folder = next((f for f in (base or Path(), Path()) if (f / top).is_dir() or (f / f"{top}.py").is_file()), None)
    if folder is None or str(folder.resolve()) in sys.path:
        raise error(f"{source}: no such module (neither installed nor beside the study)")
    sys.path.insert(0, str(folder.resolve()))
    _BY_VALUE.add(top)
    try:
        return importlib.import_module(source)
    except Exception as raised:
        raise error(f"{source}: importing it raised {one_line(raised)}") from raised
