"""From a trial to files: rebuild, repair at the last rung, measure on the test split, write, prove, keep the proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.app.report import policy_rows
from automc.app.reporting.found import without_password
from automc.app.study import Study, networked
from automc.core.analytic import Analytic
from automc.core.history import Artifact
from automc.core.layers import LayerTable
from automc.core.policy import Policy
from automc.core.trial import Trial
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.evaluation.evaluator import NetworkEvaluator
    from automc.export.bundle.writing import Written

SPLITS = ("calibration", "search", "test")
"""That every export has read; train only where a rung trains."""


def deliver(study: Study, trial: Trial, folder: Path, formats: Sequence[str], batches: Sequence[int] = ()) -> Written:
    """Export one trial, and keep its files' digests and proof in the database. Only here the test split is read.

    Args:
        batches: inputs of one timed run; the study's own batch is timed first, and 1 where none is given.

    Raises:
        SpecError: the trial has no measurement, the study has no network (a synthetic evaluator), or the folder cannot
            be used.
        ProofError: the files cannot be measured. What was measured and is not as promised is written as well, see
            ``export.bundle.Written``.
    """
    if trial.measurement is None:
        raise SpecError(
            f"trial {study.name}/{trial.number} is {trial.state.value}: only a measured trial can be exported"
        )
    from automc.export.bundle import placing
    from automc.export.bundle.normalisation import Normalisation
    from automc.export.formats import formats_named

    formats_named(formats)  # what is wrong is said before anything is built
    placing.require_free(folder, placing.rejected(folder))
    evaluator = networked(study)
    from automc.export.bundle.writing import TestSplit, write_bundle

    rung = len(study.spec.rungs) - 1
    model, original = evaluator.build(trial.policy, rung), evaluator.build(Policy({}), rung)
    evaluator.check_split("test")
    data, test = evaluator.data.facts, evaluator.data.split("test")
    written = write_bundle(
        folder,
        model=model,
        baseline_model=original,
        example=evaluator.examples,
        test=TestSplit(
            test.inputs.numpy(),
            test.targets.numpy(),
            Normalisation(data.scale, tuple(data.mean), tuple(data.std)),
            evaluator.outputs(model, "test"),
        ),
        policy=trial.policy,
        facts=_facts(study, trial, evaluator, rung)
        | {
            "metrics": evaluator.measure(model, "test") | _latencies(trial),
            "baseline": evaluator.measure(original, "test"),
            "command": _command(study, trial, folder, formats, batches),
        },
        formats=formats,
        batches=[evaluator.stopwatch.batch, *(batches or (1,))],
    )
    _keep(study, trial, formats, written)
    return written


def _facts(study: Study, trial: Trial, evaluator: NetworkEvaluator, rung: int) -> dict[str, Any]:
    """What the manifest says of the study and the trial."""
    spec, task = study.spec, evaluator.task.judged_as
    splits = [*SPLITS, *(["train"] if spec.rungs[-1].steps else [])]
    assert trial.measurement is not None
    return {
        # How long the search took to measure it is no property of the file.
        "constraints": [str(c) for c in spec.constraints if c.metric != "seconds"],
        "realized": dict(trial.measurement.realized),
        "layers": evaluator.table.to_data(),
        "rows": _rows(trial, evaluator.table),
        "task": asdict(task) if task else None,
        "study": study.name,
        "trial": trial.number,
        "policy": json.loads(trial.policy.to_json()),
        "fingerprint": trial.policy.fingerprint,
        "splits": {name: evaluator.data.digest(name) for name in splits},
        "rung": rung,
        "searched": dict(trial.measurement.metrics),
        "spec": spec.to_data(),
    }


def _command(study: Study, trial: Trial, folder: Path, formats: Sequence[str], batches: Sequence[int]) -> str:
    """What repeats the export, in the folder of the database; a password is none of the manifest's business."""
    words = ["automc export", f"{study.name}/{trial.number}", f"-o {folder.name}", f"--format {','.join(formats)}"]
    words += [f"--batches {','.join(map(str, batches))}"] if batches else []
    place = without_password(study.storage)
    return " ".join([*words, f"--storage {place if '://' in place else Path(place).name}"])


def _rows(trial: Trial, table: LayerTable) -> list[dict[str, Any]]:
    """The layer table: what the policy asked, what rounding made of it, and each layer's share of the packed file, by
    the formulas of core/analytic.
    """
    sizes = Analytic(table).bytes_of(trial.policy)
    whole = sum(sizes.values()) or 1.0
    return [{**row, "share": sizes[row["layer"]] / whole} for row in policy_rows(trial, table)]


def _latencies(trial: Trial) -> dict[str, float]:
    """As the search measured or predicted them: the promise, for a repair changes no network's latency."""
    assert trial.measurement is not None
    return {name: value for name, value in trial.measurement.metrics.items() if name.startswith("latency_")}


def _keep(study: Study, trial: Trial, formats: Sequence[str], written: Written) -> None:
    """The files of each format, with the proof, in the database."""
    from automc.export.bundle.manifest import describe
    from automc.export.formats import FORMATS

    proof = written.proof.to_data()
    for form in (FORMATS[name] for name in formats):
        for file in form.files:
            facts = describe(written.folder / file)
            made = Artifact(facts["sha256"], trial.number, form.name, known_as(written, file), facts["bytes"], proof)
            study.store.keep_artifact(study.name, made)


def known_as(written: Written, file: str) -> str:
    """A file's name in the database: of a folder whose proof did not pass, ``rejected/NAME``."""
    from automc.export.bundle.placing import REJECTED

    return file if written.proof.passed else f"{REJECTED}/{file}"
