"""What ``distill`` offers to the search."""

from __future__ import annotations

from automc.core.space import Choice, OperatorInfo, Real, Setting

DISTILL = OperatorInfo(
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
        "kd_logits": Setting(
            legal=Choice(("soft", "plain")),
            neutral="soft",
            doc="distance of the logits: softened probabilities, or squared (Ba & Caruana 2014; no temperature)",
            needs_training=True,
        ),
        "kd_features": Setting(
            legal=Choice(("none", "hint", "attention", "fsp", "relational")),
            neutral="none",
            doc="what is compared of the features: nothing, values (FitNets), attention maps, flow matrices, relations",
            needs_training=True,
        ),
        "kd_beta": Setting(
            legal=Real(0.001, 1000.0, log=True),
            neutral=1.0,
            doc="weight of the features' distance, beside the weights of labels and logits; idle without features",
            needs_training=True,
        ),
        "kd_teacher": Setting(
            legal=Choice(("original", "self", "assistant", "compressed")),
            neutral="original",
            doc="who teaches: the original, the student's moving average, or the policy at half strength, "
            "repaired first (assistant) or not (compressed)",
            needs_training=True,
        ),
    },
    implementation="automc.operators.distill:distill",
    doc="adds the distance to a teacher's logits and features to the loss of the repair",
)
