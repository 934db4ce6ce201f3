"""What ``factorize`` offers to the search."""

from __future__ import annotations

from automc.core.space import Choice, OperatorInfo, Real, Setting

FACTORIZE = OperatorInfo(
    name="factorize",
    scope="layer",
    kinds=("conv", "linear"),
    settings={
        "rank_ratio": Setting(
            legal=Real(0.01, 1.0),
            neutral=1.0,
            doc="kept rank over full rank; 1 leaves the layer as it is",
            suggested=Choice((0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)),  # above 0.5 few layers become smaller
        ),
        "method": Setting(
            legal=Choice(("auto", "svd", "spatial", "tucker2", "cp")),
            neutral="auto",
            doc="the form of the product; a form that does not fit a layer (k x 1 for a linear layer) means svd there",
        ),
        "rank_by": Setting(
            legal=Choice(("ratio", "energy", "vbmf")),
            neutral="ratio",
            doc="what rank_ratio means: a share of the rank, a share of the squared singular values, or below 1 only"
            " that variational Bayes chooses the rank",
        ),
        "data_aware": Setting(
            legal=Choice((False, True)),
            neutral=False,
            doc="least error of the layer's outputs on the calibration inputs, not of its weights; svd only",
        ),
    },
    implementation="automc.operators.factorize:factorize",
    doc="writes a layer as a product of smaller ones",
    before=("sparsify", "quantize"),
)
