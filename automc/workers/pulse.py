"""Whether the head of the Ray that workers live in still answers."""

from __future__ import annotations

import socket
import time
from typing import Any

from automc.errors import WorkerError

KNOCK_SECONDS = 2.0
"""How often it is asked."""

GONE_SECONDS = 20.0
"""After so long without an answer it is taken for gone. Ray waits for a minute, and then ends the process unasked."""


class Pulse:
    """Knocks at the head's door from time to time.

    Args:
        place: where it is, for people.
    """

    def __init__(self, ray: Any, place: str) -> None:
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._door, self._place = (host.strip("[]"), int(port)), place
        self._next = 0.0
        self._silent: float | None = None
        self.gone = False

    @property
    def silent(self) -> bool:
        """Whether the last knock had no answer: what asks the head now waits until Ray ends the process."""
        return self._silent is not None

    def feel(self) -> None:
        """Raises WorkerError once it is gone."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + KNOCK_SECONDS
        try:
            socket.create_connection(self._door, timeout=KNOCK_SECONDS).close()
            self._silent = None
        except OSError as error:
            self._silent = now if self._silent is None else self._silent
            if now - self._silent >= GONE_SECONDS:
                self.gone = True
                raise WorkerError(
                    f"workers: {self._place} is gone: its head does not answer ({error.strerror or error}); what is "
                    "finished is kept: start it again and resume"
                ) from error
