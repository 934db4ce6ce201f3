"""What ``sparsify`` offers to the search."""

from __future__ import annotations

from automc.core.space import Choice, OperatorInfo, Real, Setting

SPARSIFY = OperatorInfo(
    name="sparsify",
    scope="layer",
    kinds=("conv", "depthwise", "linear", "lstm", "gru"),
    settings={
        "sparsity": Setting(
            legal=Real(0.0, 0.99),
            neutral=0.0,
            doc="fraction of the layer's weights set to zero; above 0 it switches 2:4 (really 0.5) and 1:4 (0.75) on",
            suggested=Real(0.0, 0.9, step=0.1),
        ),
        "pattern": Setting(
            legal=Choice(("unstructured", "block_1x4", "block_4x1", "2:4", "1:4")),
            neutral="unstructured",
            doc="which weights go together: none, blocks of outputs x inputs, or all but 2 or 1 of every 4 inputs",
        ),
        "method": Setting(
            legal=Choice(("magnitude", "wanda", "obs")),
            neutral="magnitude",
            doc="smallest |w| first, smallest |w| x input norm first, or second order with a refit of the weights left",
        ),
        "regrow": Setting(
            legal=Choice((False, True)),
            neutral=False,
            doc="the mask is chosen anew from |w| before each step of the repair: zeros may come back",
            needs_training=True,
        ),
    },
    implementation="automc.operators.sparsify:sparsify",
    doc="sets single weights, blocks or N of M weights to zero",
)
