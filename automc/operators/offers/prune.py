"""What ``prune`` offers to the search."""

from __future__ import annotations

from automc.core.space import Choice, OperatorInfo, Real, Setting

_WEIGHTS = ("l1", "l2", "fpgm", "bn_scale")
_DATA = ("taylor", "fisher", "apoz", "thinet", "lasso", "wanda", "obs")
_PEERS = ("tp_magnitude", "tp_fpgm", "nni_l1", "nni_l2", "nni_fpgm")

PRUNE = OperatorInfo(
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
            legal=Choice((*_WEIGHTS, *_DATA, "random", *_PEERS)),
            neutral="l1",
            doc="which channels go first: by their weights, by calibration inputs (taylor, fisher, apoz, thinet, "
            "lasso, wanda, obs), at random, or as Torch-Pruning (tp_) or NNI (nni_, an extra) say",
        ),
        "channel_multiple": Setting(
            legal=Choice((1, 2, 4, 8, 16, 32)),
            neutral=1,
            doc="the number of channels that stay is rounded up to a multiple of this",
        ),
    },
    implementation="automc.operators.prune:prune",
    doc="removes output channels of coupled layers, and the matching inputs of their consumers",
)
