"""Where the files are that a study names: its space, its weights, its Python files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import automc
from automc.core.rules import nearest
from automc.core.study import Part, StudySpec
from automc.errors import SpecError

DATA_PATHS = ("path", "train", "test")
"""Settings of the catalogue's data sets that are paths. What a user's factory takes is left as it is."""


PROFILE = "device_profile"
"""The evaluator's setting that is a path where it ends in .yaml or .yml."""


def bundled_folder() -> Path:
    """The folder of the bundled spaces: inside an installed package, beside it in a checkout."""
    package = Path(automc.__file__).resolve().parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def bundled_spaces() -> dict[str, Path]:
    """Bundled spaces by name."""
    return {path.stem: path for path in sorted(bundled_folder().glob("*.yaml"))}


def find_space(name: str, study: Path) -> Path:
    """The file of a space: a path seen from the study, a neighbour of the study, or a bundled space.

    Raises:
        SpecError: there is none.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name or os.sep in name:
        return shown(Path(seen_from(study.parent, name)))
    neighbours = {path.stem: path for path in study.parent.glob("*.y*ml") if path.is_file() and path.name != study.name}
    known = bundled_spaces() | neighbours
    if name not in known:
        names = ", ".join(bundled_spaces())
        raise SpecError(f"no search space {name!r} (bundled: {names}; or a path to a YAML file){nearest(name, known)}")
    return shown(known[name])


def seen_from(folder: Path, name: str) -> str:
    """A path as seen from the current folder: looked up from the study's folder, then from the current one.

    Raises:
        SpecError: there is no such file or folder.
    """
    try:
        path = Path(name).expanduser()
        beside = folder / path
        if beside.exists():
            return os.path.normpath(beside)
        if path.exists():
            return os.path.normpath(path)
        siblings = [p.name for p in beside.parent.iterdir()] if beside.parent.is_dir() else []
        # An ending in common makes no neighbour of a.yaml and nope.yaml.
        alike = [name for name in siblings if nearest(path.stem, [Path(name).stem])]
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{name[:60]!r} is no path: {reason}") from error
    raise SpecError(f"no file {name!r} beside the study or in the current folder{nearest(path.name, alike)}")


def rooted(spec: StudySpec) -> StudySpec:
    """The spec with absolute paths, so that a study can be resumed from any folder."""
    name, data, task = (_rooted(each.name) for each in (spec.model, spec.data, spec.task))
    weights = spec.model.weights and os.path.abspath(spec.model.weights)
    paths = {
        key: os.path.abspath(value)
        for key, value in spec.data.settings.items()
        if ":" not in spec.data.name and key in DATA_PATHS and isinstance(value, str)
    }
    profile = {
        key: os.path.abspath(value)
        for key, value in spec.evaluator.settings.items()
        if key == PROFILE and str(value).endswith((".yaml", ".yml"))
    }
    return replace(
        spec,
        model=replace(spec.model, name=name, weights=weights),
        data=Part(data, {**spec.data.settings, **paths}),
        task=Part(task, spec.task.settings),
        evaluator=Part(spec.evaluator.name, {**spec.evaluator.settings, **profile}),
    )


def _rooted(name: str) -> str:
    source, colon, factory = name.rpartition(":")
    return f"{os.path.abspath(source)}:{factory}" if colon and source.endswith(".py") else name


def shown(path: Path) -> Path:
    """The path as messages show it: relative to the current folder where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
