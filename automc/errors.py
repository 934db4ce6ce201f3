"""Every error automc raises on purpose.

    AutomcError                     exit  what went wrong
    |-- SpecError (ValueError)        2   a study file, argument or filter breaks a rule
    |   `-- OutOfSpace                2   a policy that its search space does not hold
    |-- ModelError (ValueError)       3   a model cannot be built, loaded or traced
    |-- DataError (ValueError)        3   a data set cannot be read or does not fit the model
    |-- CompressionError (ValueError) 4   an operator cannot do what the policy asks of it
    |-- EvaluationError (RuntimeError) 4  an evaluation ended without a measurement
    |   `-- NotFinite                 4   a loss or a metric became NaN or infinite
    |-- StoreError (RuntimeError)     5   the trial database cannot be used
    |   |-- UnknownStudy (LookupError)  5
    |   |-- UnknownTrial (LookupError)  5
    |   |-- StudyExists               5
    |   |-- IllegalTransition         5   a trial may not take that step (or someone else took it first)
    |   |-- LeaseHeld                 5   another driver owns the study
    |   `-- SchemaMismatch            5   the database was written by a newer automc
    |-- WorkerError (RuntimeError)    6   the worker pool cannot be started, or is gone
    `-- ProofError (RuntimeError)     7   an exported file is not what was promised

Each is also a built-in error, so that callers who know nothing of automc catch it in the usual way.
A message says the rule, the value given and the place. The errors are caught at the command line's
edge only, which turns ``exit_code`` into the process's status.
"""

from __future__ import annotations


class AutomcError(Exception):
    """Root of every error raised on purpose; ``exit_code`` is the status the command line ends with."""

    exit_code = 1


class SpecError(AutomcError, ValueError):
    exit_code = 2


class OutOfSpace(SpecError):
    pass


class ModelError(AutomcError, ValueError):
    exit_code = 3


class DataError(AutomcError, ValueError):
    exit_code = 3


class CompressionError(AutomcError, ValueError):
    exit_code = 4


class EvaluationError(AutomcError, RuntimeError):
    exit_code = 4


class NotFinite(EvaluationError):
    pass


class StoreError(AutomcError, RuntimeError):
    exit_code = 5


class UnknownStudy(StoreError, LookupError):
    pass


class UnknownTrial(StoreError, LookupError):
    pass


class StudyExists(StoreError):
    pass


class IllegalTransition(StoreError):
    pass


class LeaseHeld(StoreError):
    pass


class SchemaMismatch(StoreError):
    pass


class WorkerError(AutomcError, RuntimeError):
    exit_code = 6


class ProofError(AutomcError, RuntimeError):
    exit_code = 7


def one_line(error: BaseException) -> str:
    """Any error for use inside a sentence: ``Type: first line of the message``, of which at most 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
