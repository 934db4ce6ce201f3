"""What needs a network (checks, new studies, revisions, exports, uploads), in a process of its own.

So the process that answers stays light, and lives on whatever becomes of the other. It reads one job, JSON, from stdin
and writes one answer to stdout.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

from automc import errors as e
from automc.app.tables import plain

Job = Mapping[str, Any]
Build = Callable[[Job, float], Any]
"""Does a job within so many seconds; raises what went wrong as an error of automc."""

_TAIL = 400
_INSPECTED, _CPU_SECONDS = 8 << 30, 60


def apart(job: Job, seconds: float) -> Any:
    """Do a job in a child process.

    Raises:
        AutomcError: as the job raised it. WorkerError: the child died, or took too long and was killed.
    """
    words = [sys.executable, "-m", "automc.service.builder"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            out, err = child.communicate(json.dumps(job).encode(), seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise e.WorkerError(f"{job['do']}: took longer than {seconds:g} s and was ended") from None
    try:
        answer = json.loads(out)
    except ValueError:
        said = " ".join(err.decode(errors="replace").split())[-_TAIL:]
        raise e.WorkerError(f"{job['do']}: its process ended with {child.returncode}: {said or 'no word'}") from None
    if "error" in answer:
        raise getattr(e, answer["error"])(answer["said"])
    return answer["done"]


def here(job: Job, seconds: float = 0.0) -> Any:
    """Do a job in this process, as the child does."""
    from automc.service import jobs

    return plain(getattr(jobs, job["do"])(**{key: value for key, value in job.items() if key != "do"}))


def main() -> None:
    """The child: a job in, an answer out."""
    job = json.load(sys.stdin)
    if job["do"] == "inspect":  # of a stranger's file
        resource.setrlimit(resource.RLIMIT_AS, (_INSPECTED, _INSPECTED))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    try:
        with redirect_stdout(sys.stderr):
            answer = {"done": here(job)}
    except e.AutomcError as error:
        answer = {"error": type(error).__name__, "said": str(error)}
    sys.stdout.write(json.dumps(answer, allow_nan=False))


if __name__ == "__main__":
    main()
