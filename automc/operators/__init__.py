"""The compression operators: this table says what each offers; the implementation is imported on use.

No torch is imported here, so a study can be checked and listed without it.
"""

from __future__ import annotations

from collections.abc import Mapping

from automc.core.space import OperatorInfo
from automc.operators.offers.distill import DISTILL
from automc.operators.offers.drop import DROP
from automc.operators.offers.factorize import FACTORIZE
from automc.operators.offers.prune import PRUNE
from automc.operators.offers.quantize import QUANTIZE
from automc.operators.offers.sparsify import SPARSIFY

OPERATORS: Mapping[str, OperatorInfo] = {
    info.name: info for info in (DROP, PRUNE, FACTORIZE, SPARSIFY, QUANTIZE, DISTILL)
}
"""In the default order of application."""

ORDER: tuple[str, ...] = tuple(OPERATORS)
"""The default order in which operators are applied."""
