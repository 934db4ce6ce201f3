"""What ``quantize`` offers to the search."""

from __future__ import annotations

from automc.core.space import Choice, OperatorInfo, Setting

_BITS = Choice((1, 2, 3, 4, 5, 6, 7, 8, 32))
_RANGES = Choice(("mse", "minmax", "percentile", "kl"))

QUANTIZE = OperatorInfo(
    name="quantize",
    scope="layer",
    kinds=("conv", "depthwise", "transposed", "linear", "lstm", "gru"),
    settings={
        "weight_bits": Setting(
            legal=_BITS,
            neutral=32,
            doc="bits of a weight; 1 is binary (sign and mean size), 32 leaves it as it is",
            suggested=Choice((2, 3, 4, 5, 6, 8)),
        ),
        "activation_bits": Setting(
            legal=_BITS,
            neutral=32,
            doc="bits of the layer's input: affine, one scale per tensor, calibrated; 32 leaves it as it is",
            suggested=Choice((4, 5, 6, 8)),
        ),
        "weight_format": Setting(
            legal=Choice(("symmetric", "asymmetric", "codebook", "ternary", "power_of_two")),
            neutral="symmetric",
            doc="what a weight's code stands for: steps around zero, steps with a zero point, a k-means table,"
            " -1/0/+1 (at 2 bits, else symmetric), or powers of two",
        ),
        "granularity": Setting(
            legal=Choice(("channel", "tensor")),
            neutral="channel",
            doc="one scale per output channel, or per weight tensor (always so for transposed convolutions)",
        ),
        "weight_range": Setting(
            legal=_RANGES,
            neutral="mse",
            doc="how the range of equal steps and powers of two is chosen: least squared error, all weights,"
            " 99.9 % of them, or KL divergence",
        ),
        "activation_range": Setting(
            legal=_RANGES,
            neutral="mse",
            doc="how the input's range is chosen on the calibration inputs, likewise",
        ),
        "rounding": Setting(
            legal=Choice(("nearest", "adaptive")),
            neutral="nearest",
            doc="weights to the nearest step, or up or down so that the layer's output error is least (AdaRound)",
        ),
        "qat": Setting(
            legal=Choice(("ste", "lsq", "dorefa", "pact", "incremental")),
            neutral="ste",
            doc="how rounded layers train: straight-through, learned steps, DoReFa's tanh grid, learned input clips,"
            " or ever more weights fixed (INQ)",
        ),
    },
    implementation="automc.operators.quantize:quantize",
    doc="rounds weights and inputs of a layer to few bits, live during repair",
)
