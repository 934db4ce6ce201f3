"""What ``drop`` offers to the search."""

from __future__ import annotations

from automc.core.space import Choice, OperatorInfo, Setting

DROP = OperatorInfo(
    name="drop",
    scope="block",
    kinds=(),
    settings={
        "dropped": Setting(
            legal=Choice((False, True)),
            neutral=False,
            doc="whether the block is taken out, so that its input is passed on",
            suggested=Choice((False, True)),
            spread=True,
        ),
    },
    implementation="automc.operators.drop:drop",
    doc="takes whole residual blocks or transformer layers out",
)
