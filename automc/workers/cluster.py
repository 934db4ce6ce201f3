"""The Ray that workers live in: joined, or started on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from automc.core.ports import Evaluator
from automc.core.study import Workers
from automc.errors import WorkerError

# One arithmetic thread a worker; and who asks torch for a GPU before the fork must not wake CUDA, which would not
# survive it.
_WORKERS = {"OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

# Quiet and lean, and read by Ray when it is imported: no usage statistics.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", **_WORKERS}

TOLD_CHARACTERS = 160
"""Of what Ray says about a node."""

LOCAL = "local"
"""The address that starts a Ray here, as no address does."""


def connect(ray: Any, workers: Workers, say: Callable[[str], None]) -> None:
    """Join the Ray at ``workers.address``, or start one here; ``say`` hears in a line what becomes of its nodes."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Workers import what the driver can: a user's model may live beside the study file.
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    shared = {"env_vars": {"PYTHONPATH": paths, **_WORKERS}}
    quiet = {"logging_level": "ERROR", "log_to_driver": False, "runtime_env": shared}
    if workers.address not in (None, LOCAL):
        ray.init(address=workers.address, **quiet)
    else:
        own = len(os.sched_getaffinity(0))
        cpus = own if workers.count == "auto" else max(own, workers.count)
        # The default object store is 30% of the memory; model and data rarely need more than this.
        ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, object_store_memory=512 * 2**20, **quiet)
    if threading.current_thread() is threading.main_thread() and on_sigterm is not None:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own exits wherever it stands
    _divert(say)


def _divert(say: Callable[[str], None]) -> None:
    """Ray tells the death of a node on stdout, which is data, with thirty lines of the node's log."""
    from ray._private import worker

    def tell(data: dict[str, Any], **_: Any) -> None:
        for text in data["lines"]:
            said = " ".join(text.partition("\n")[0].split())
            say(f"Ray: {said if len(said) <= TOLD_CHARACTERS else said[:TOLD_CHARACTERS] + ' ...'}")

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = tell


def nodes(ray: Any) -> list[dict[str, float]]:
    """What each living node has, by Ray's names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def put(ray: Any, evaluator: Evaluator) -> Any:
    """The evaluator in the object store: it travels once to each node, however many workers read it there."""
    try:
        return ray.put(evaluator)
    except TypeError as error:
        raise WorkerError(
            f"workers: model and data cannot be sent to a worker ({line(error.__cause__ or error)}); "
            "name the model as package.module:factory or file.py:factory, or use workers 0"
        ) from error


def place(workers: Workers) -> str:
    return "a local Ray" if workers.address in (None, LOCAL) else f"the Ray cluster at {workers.address}"


def remedy(workers: Workers, error: BaseException) -> str:
    """What helps a driver whose cluster does not answer it; "" where nothing is known to.

    Ray's nodes ask for a token where they find one, and Ray's drivers show none to an address that is named.
    """
    if workers.address in (None, LOCAL, "auto") or "RAY_AUTH_MODE" in os.environ:
        return ""
    if not isinstance(error, ConnectionError):
        return ""
    return "; is it up? Nodes that were started beside a ~/.ray/auth_token want that token: set RAY_AUTH_MODE=token"


def line(error: BaseException) -> str:
    """First and last line of an error of Ray: between them stands a traceback."""
    said = lines(error)
    return said[0] if len(said) == 1 else f"{said[0]} ... {said[-1]}"


def lines(error: BaseException) -> list[str]:
    """The lines of an error that say something; at least one."""
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
