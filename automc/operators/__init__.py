"""The compression operators: this table says what each offers; the implementation is imported on use.

No torch is imported here, so a study can be checked and listed without it.
"""

from __future__ import annotations

from collections.abc import Mapping

from automc.core.space import Choice, OperatorInfo, Real, Setting

_BITS = Choice((1, 2, 3, 4, 5, 6, 7, 8, 32))
_QUANTIZED_KINDS = ("conv", "depthwise", "linear")

OPERATORS: Mapping[str, OperatorInfo] = {
    "prune": OperatorInfo(
        name="prune",
        scope="group",
        kinds=(),
        settings={
            "prune_ratio": Setting(
                legal=Real(0.0, 0.99),
                neutral=0.0,
                doc="fraction of the group's channels removed",
                suggested=Real(0.0, 0.8, step=0.1),
            ),
            "criterion": Setting(
                legal=Choice(("l1", "l2", "random")),
                neutral="l1",
                doc="which channels go first: smallest L1 or L2 norm of the producers' filters, or at random",
            ),
        },
        implementation="automc.operators.prune:prune",
        doc="removes output channels of coupled layers, and the matching inputs of their consumers",
    ),
    "quantize": OperatorInfo(
        name="quantize",
        scope="layer",
        kinds=_QUANTIZED_KINDS,
        settings={
            "weight_bits": Setting(
                legal=_BITS,
                neutral=32,
                doc="bits of a weight: symmetric, one scale per output channel; 32 leaves it as it is",
                suggested=Choice((2, 3, 4, 5, 6, 8)),
            ),
            "activation_bits": Setting(
                legal=_BITS,
                neutral=32,
                doc="bits of the layer's input: affine, one scale per tensor, calibrated; 32 leaves it as it is",
                suggested=Choice((4, 5, 6, 8)),
            ),
        },
        implementation="automc.operators.quantize:quantize",
        doc="rounds weights and inputs of a layer to few bits, live during repair (straight-through)",
    ),
    "distill": OperatorInfo(
        name="distill",
        scope="network",
        kinds=(),
        settings={
            "kd_temperature": Setting(
                legal=Real(0.1, 100.0),
                neutral=4.0,
                doc="softmax temperature of the distillation loss (Hinton et al. 2015)",
                needs_training=True,
                suggested=Real(1.0, 10.0, log=True),
            ),
            "kd_alpha": Setting(
                legal=Real(0.0, 1.0),
                neutral=0.0,
                doc="weight of the distillation loss; 1 - kd_alpha is the weight of the labels' loss",
                needs_training=True,
                suggested=Real(0.0, 1.0),
            ),
        },
        implementation="automc.operators.distill:distill",
        doc="adds the distance to the original model's logits to the loss of the repair",
    ),
}

ORDER: tuple[str, ...] = tuple(OPERATORS)
"""The default order in which operators are applied."""
