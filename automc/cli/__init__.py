"""The command line: a thin skin over the Python API. Every error of automc ends here, as one line and a status."""

from automc.cli.app import app
from automc.cli.main import main

__all__ = ["app", "main"]
