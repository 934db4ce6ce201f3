"""The Ray actor: holds model and data on its node, and keeps the process that evaluates."""

from __future__ import annotations

import os
from collections.abc import Sequence

from automc.core.hopeless import Rival
from automc.core.ports import Evaluator, Outcome, Worth
from automc.core.study import Workers
from automc.core.trial import Trial
from automc.workers.ward import Ward

Reports = list[tuple[int, float]]


class Keeper:
    """One evaluation at a time, and beside it the questions about it. See Ward for its errors."""

    def __init__(self, evaluator: Evaluator, workers: Workers) -> None:
        self._ward = Ward(evaluator, workers)
        self._reports: Reports = []

    def ready(self) -> int:
        return os.getpid()

    def evaluate(self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None) -> tuple[Outcome, Reports]:
        """The outcome, and all that was reported on the way: step and value.

        The stopper's verdict is passed there and not in the driver, whose answer would come some steps too late.
        """
        reports: Reports = []
        self._reports = reports
        return self._ward.evaluate(trial, worth, rivals, lambda *report: reports.append(report)), reports

    def reports(self, seen: int) -> Reports:
        return self._reports[seen:]
