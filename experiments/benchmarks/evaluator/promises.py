"""Whether what a study says holds: the front of a search with early stops, and the bytes of what it exports.

    python experiments/benchmarks/evaluator/promises.py [stops|sizes] [--trials 40] [--exports 10]

Searches at random, in this process: ResNet-20 (5,000 inputs of the search split) and digits_net. Every trial that was
ended early is then measured on all inputs, and the two fronts are compared: ``stops.md``. Random joint policies with
every operator are searched and exported, the size in the database against the length of the file: ``sizes.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import cifar_file, publish, table

from automc.app import runs
from automc.app.confidence import audit, savings
from automc.app.config import StudyFile, read_study
from automc.app.study import Study
from automc.core.hopeless import Doubt
from automc.core.trial import TrialState

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parents[1] / "digits" / "study.yaml"
SEARCH = ("proposer=random", "rungs=[{steps: 0}, {steps: 8, share: 0.01}]", "workers={count: 0}")


def files(folder: Path, trials: int, *changes: str) -> dict[str, StudyFile]:
    """Both studies as this benchmark wants them."""
    shared = [*SEARCH, f"storage={folder / 'studies.db'}", f"budget={{trials: {trials}}}", *changes]
    return {
        "ResNet-20": cifar_file(*shared, "data.settings.search_limit=5000", "constraints=[]"),
        "digits_net": read_study(DIGITS, [*shared, "constraints=[]"]),
    }


def searched(file: StudyFile, name: str) -> Study:
    """The study, searched to its end."""
    study = runs.start(replace(file, spec=replace(file.spec, name=name)))
    study.run()
    return study


def stopped(name: str, study: Study) -> list[str]:
    """What early stops saved, and whether the front is the one of full evaluations."""
    saved, found = savings(study.records()), audit(study)
    doubt = study.spec.evaluator.settings.get("doubt", Doubt().doubt)
    return [
        name,
        f"{saved.trials} x {saved.inputs:,}",
        f"{doubt}",
        str(saved.stopped),
        f"{saved.share:.0%}",
        str(len(found.front)),
        "the same" if found.unchanged else f"CHANGED: {found.front} and {found.full_front}",
    ]


def exported(name: str, study: Study, count: int, folder: Path) -> list[list[str]]:
    """Rows of promised and written bytes."""
    rows = []
    for trial in [t for t in study.records() if t.state is TrialState.COMPLETE][:count]:
        assert trial.measurement is not None
        out = folder / f"{study.name}-{trial.number}"
        proof = study.export(trial.number, out, ("onnx", "packed"))
        promised, written = trial.measurement.metrics["size_bytes"], (out / "model.safetensors").stat().st_size
        verdict = "equal" if promised == written else "DIFFERENT"
        rows.append([f"{name} {trial.number}", f"{promised:,.0f}", f"{written:,}", verdict, str(proof.passed)])
        print(*rows[-1], sep="  ", flush=True)
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["stops", "sizes"], help="only this one")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--exports", type=int, default=10, help="of each network")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.part != "sizes":
            rows = []
            for name, file in files(folder, given.trials).items():
                rows.append(stopped(name, searched(file, f"{name}-stops")))
                print(*rows[-1], sep="  ", flush=True)
            head = ["network", "evaluations", "doubt", "stopped", "saved", "front", "front of full evaluations"]
            publish(HERE / "stops.md", table(head, rows))
        if given.part != "stops":
            rows = []
            for name, file in files(folder, given.exports, "space=everything", "evaluator.settings.doubt=0").items():
                rows += exported(name, searched(file, f"{name}-sizes"), given.exports, folder)
            head = ["random joint policy", "bytes in the database", "bytes of the file", "", "proved"]
            publish(HERE / "sizes.md", table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
