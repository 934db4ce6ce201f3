"""From a trial to files: rebuild, repair at the last rung, measure on the test split, write, prove."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from automc.app.study import Study, networked
from automc.core.policy import Policy
from automc.core.trial import Trial

if TYPE_CHECKING:
    from automc.export.proof import Proof


def deliver(study: Study, trial: Trial, folder: Path, formats: tuple[str, ...]) -> Proof:
    """Export one trial. This is the only place where the test split is read.

    Raises:
        SpecError: the study has no network (a synthetic evaluator), or the folder cannot be used.
        ProofError: the files are not what was promised.
    """
    spec, evaluator = study.spec, networked(study)
    from automc.export.bundle import TestSplit, write_bundle
    from automc.export.proof import verify_fresh
    from automc.export.runtime import Normalisation

    rung = len(spec.rungs) - 1
    model, original = evaluator.build(trial.policy, rung), evaluator.build(Policy({}), rung)
    evaluator.check_split("test")
    facts, test, task = evaluator.data.facts, evaluator.data.split("test"), evaluator.task.judged_as
    assert trial.measurement is not None
    write_bundle(
        folder,
        model=model,
        baseline_model=original,
        example=evaluator.example,
        test=TestSplit(
            test.inputs.numpy(),
            test.targets.numpy(),
            Normalisation(facts.scale, tuple(facts.mean), tuple(facts.std)),
            {} if task else evaluator.outputs(model, "test"),
        ),
        policy=trial.policy,
        facts={
            "metrics": evaluator.measure(model, "test"),
            "baseline": evaluator.measure(original, "test"),
            # How long the search took to measure it is no property of the file.
            "constraints": [str(c) for c in spec.constraints if c.metric != "seconds"],
            "realized": dict(trial.measurement.realized),
            "layers": evaluator.table.to_data(),
            "task": asdict(task) if task else None,
            "study": study.name,
            "trial": trial.number,
            "rung": rung,
            "latency_batch": evaluator.stopwatch.batch,
            "searched": dict(trial.measurement.metrics),
            "spec": spec.to_data(),
        },
        formats=formats,
    )
    return verify_fresh(folder)
