"""What all judges have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from automc.core.metrics import Estimate

Array = NDArray[Any]


class Judge(Protocol):
    """Says how good outputs are. Stateless; outputs are arrays, or mappings of arrays by name.

    ``metrics``: all that it may measure, the one that says most first.
    """

    @property
    def metrics(self) -> tuple[str, ...]: ...

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        """Names of METRICS that ``summarise`` gives, the one that says most first.

        Args:
            classes: of the data, 0 where it has none or they are not known. labelled: whether there are targets.
        """
        ...

    def answer(self, outputs: Any) -> Any:
        """What of the original network's outputs others are compared with: all that needs to be kept of them."""
        ...

    def judge(self, outputs: Any, teacher: Any, targets: Array) -> dict[str, Array]:
        """What each input of a batch adds to the metrics, by name, shape (n, ...).

        Batches are judged one by one and joined along their first axis.

        Args:
            teacher: ``answer`` of the original network's outputs for the same inputs.
            targets: shape (n, ...); (n, 0) where there are none.
        """
        ...

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        """The metrics of all inputs that were judged, n >= 1."""
        ...


def labelled(targets: Any) -> bool:
    """Whether there is something to know of the inputs: targets of shape (n, 0) say that there is not."""
    return not (len(targets.shape) == 2 and targets.shape[1] == 0)
