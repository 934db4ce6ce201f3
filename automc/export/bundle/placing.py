"""Where a bundle may be written, and how it gets there in one step."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from automc.errors import ProofError, SpecError
from automc.export.bundle.manifest import read_data

REJECTED = "rejected"
"""Folder beside the one asked for, where a bundle goes that does not keep its promise."""


def rejected(folder: Path) -> Path:
    """Where the bundle goes that was to be in this folder."""
    return folder.parent / REJECTED / folder.name


def beside(folder: Path) -> Path:
    """A new name in the same folder, hidden."""
    return folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"


def require_free(*folders: Path) -> None:
    """Raises SpecError where one is neither absent, empty, nor an older bundle."""
    for folder in folders:
        taken = folder.is_symlink() or folder.exists()
        if taken and not (folder.is_dir() and (not any(folder.iterdir()) or _is_bundle(folder))):
            raise SpecError(f"bundle {folder}: holds something that is no automc bundle; give a new or empty folder")


def swap(part: Path, folder: Path) -> None:
    """Put the finished folder in its place; an older bundle is moved aside first and removed last.

    Raises:
        OSError: it cannot be renamed; then the older one is where it was.
    """
    old = part.with_name(part.name + ".old")
    if folder.exists():
        folder.rename(old)
    try:
        part.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_bundle(folder: Path) -> bool:
    try:
        return bool(read_data(folder))
    except ProofError:
        return False
