"""The edge: a command line in, an exit code out."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer

from automc.cli import searching, asking, reading, querying, reporting, models  # isort: skip  (in the order of the help)
from automc.cli import solving, database, serving  # isort: skip
from automc.cli.app import app, talk
from automc.errors import AutomcError

COMMANDS = (searching, asking, reading, querying, reporting, models, solving, database, serving)
"""The modules whose commands there are."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. The only place where errors are caught."""
    words = list(sys.argv[1:] if args is None else args)
    if strange := [word for word in words if not _is_text(word)]:
        talk(f"{strange[0]!r}: is no text in UTF-8")
        return 2
    try:
        with _terminable():
            command = typer.main.get_command(app)
            with command.make_context("automc", words or ["--help"]) as context:
                command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as ending:
        return ending.exit_code
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "automc")
        print(f"{where}: {' '.join(error.format_message().split())}", file=sys.stderr)
        return 2
    except AutomcError as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            talk(line)
        return error.exit_code
    except KeyboardInterrupt:
        talk("interrupted")
        return 130
    except _Terminated:
        talk("terminated")
        return 143
    except BrokenPipeError:
        _give_up_stdout()
        return 141
    except Exception as error:
        if os.environ.get("AUTOMC_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            talk(f"{error.filename or 'the output'}: cannot be written: {error.strerror}; free some space")
            _give_up_stdout()
            return 1
        said = " ".join(f"{type(error).__name__}: {error}".split())
        talk(f"internal error ({said}); rerun with AUTOMC_DEBUG=1 for the traceback")
        return 70


class _Terminated(BaseException):
    """SIGTERM: whatever is open is closed, and what is half written removed."""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises, unless somebody handles or ignores it already."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _give_up_stdout() -> None:
    """Python flushes stdout once more at exit and would complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_text(word: str) -> bool:
    """Whether no byte of the argument was kept as it is, which neither a database nor a file of ours could hold."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
