"""Devices that measure: Ray nodes which say of themselves that they are one.

``ray start --address=HEAD --resources '{"device:pi4": 1}'`` makes a node the device ``pi4``. A measurement is a task
that takes the whole resource, so there is one at a time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from automc.core.rules import nearest
from automc.errors import AutomcError, WorkerError, one_line

PREFIX = "device:"

KNOCK_SECONDS = 5.0
"""How long a Ray cluster may take to answer a call."""

relay: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any] | None = None
"""Who measures in the place of a process that cannot reach Ray itself; set in the processes of wards."""


def on_device(device: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function(*arguments)`` returns on the node that declares the device.

    The function is sent as its name: the node has automc installed.

    Raises:
        WorkerError: no Ray is running, or no node of it declares the device. AutomcError: what the function raises.
    """
    if relay is not None:
        return relay(device, function, arguments)
    find_device(device)
    import ray

    name = f"{PREFIX}{device}"
    task = ray.remote(num_cpus=0, resources={name: 1}, max_retries=0)(_run)
    try:
        return ray.get(task.remote(function, arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AutomcError):
            raise error.cause from None
        raise WorkerError(f"device {device!r}: {one_line(error.cause)}") from error
    except ray.exceptions.RayError as error:
        raise WorkerError(f"device {device!r}: {one_line(error)}") from error


def find_device(device: str) -> None:
    """Join the running Ray cluster, if this process is in none, and look for the node that declares the device.

    Raises:
        WorkerError: no Ray is running, or no node of it declares the device.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    name = f"{PREFIX}{device}"
    if not ray.is_initialized():
        _join(ray, name)
    declared = sorted({key for node in ray.nodes() if node["Alive"] for key in node["Resources"] if _is_device(key)})
    if name not in declared:
        known = [key.removeprefix(PREFIX) for key in declared]
        raise WorkerError(
            f"device {device!r}: no node of the Ray cluster declares it{nearest(device, known)} "
            f"(declared: {', '.join(known) or 'none'}); start one with: ray start --address=HEAD {_resources(name)}"
        )


def _resources(name: str) -> str:
    return f"""--resources '{{"{name}": 1}}'"""


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def _is_device(key: str) -> bool:
    return key.startswith(PREFIX)


def _join(ray: Any, name: str) -> None:
    """Join the running cluster, as RAY_ADDRESS or this machine's Ray says."""
    try:
        _knock(ray)
        ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise WorkerError(
            f"device {name.removeprefix(PREFIX)!r}: no Ray cluster to ask ({one_line(error)}); start one with: "
            f"ray start --head {_resources(name)}, or set RAY_ADDRESS to a running one"
        ) from error


def _knock(ray: Any) -> None:
    """Whether anybody listens where Ray would look: it waits for a cluster that ended for most of a minute, and then
    ends the process. Raises OSError.
    """
    from ray._private.services import canonicalize_bootstrap_address

    host, _, port = (canonicalize_bootstrap_address("auto") or "").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"nobody answers at {host}:{port}") from error
