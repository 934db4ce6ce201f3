"""Where the service keeps files that are no part of the trial database."""

from __future__ import annotations

import os
from pathlib import Path

from automc.stores.engine import parse_url, sqlite_file


def beside(storage: str, what: str) -> Path:
    """``x.db.WHAT`` beside the SQLite file ``x.db``; for other databases ``automc.WHAT`` in the current folder."""
    path = sqlite_file(parse_url(storage))
    return Path(os.path.abspath(f"automc.{what}" if path is None else path.with_name(f"{path.name}.{what}")))
