"""Every member of a front as a folder of its own, with an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.app.delivery import deliver
from automc.app.study import Study
from automc.app.tables import cell
from automc.errors import AutomcError, ProofError, SpecError

if TYPE_CHECKING:
    from automc.export.proof.proving import Proof

INDEX = "FRONT.md"


@dataclass(frozen=True)
class Member:
    """What came of one member: where it is and its proof, or why it could not be exported.

    Attributes:
        folder: below the one asked for; "" where nothing was written.
    """

    number: int
    folder: str = ""
    proof: Proof | None = None
    error: str = ""

    @property
    def verdict(self) -> str:
        """``proved``, or what is wrong."""
        if self.proof is None:
            return self.error
        return "proved" if self.proof.passed else "; ".join(self.proof.reasons)

    def row(self) -> dict[str, Any]:
        """Plain data."""
        proof = self.proof
        row: dict[str, Any] = {"trial": self.number, "folder": self.folder or None}
        if proof is not None:
            row |= proof.metrics() | {f"{name}_error": error for name, error in list(proof.errors.items())[:1]}
        return {**row, "passed": bool(proof and proof.passed), "verdict": self.verdict}


def export_front(
    study: Study,
    folder: Path,
    formats: Sequence[str],
    batches: Sequence[int] = (),
    told: Callable[[Member], None] = lambda member: None,
) -> list[Member]:
    """Export all members of the front to ``folder/NUMBER``, those that break a promise to ``folder/rejected/NUMBER``.

    One that cannot be exported does not stop the others.

    Args:
        told: hears of each when it is done.

    Raises:
        SpecError: the front is empty, the study has no network, or the index cannot be written.
    """
    members = study.front()
    if not members:
        raise SpecError(f"study {study.name!r} has no front yet: no complete trial meets its constraints")
    found: list[Member] = []
    for trial in members:
        try:
            written = deliver(study, trial, folder / str(trial.number), formats, batches)
            place = str(written.folder.relative_to(folder))
            found.append(Member(trial.number, place, written.proof))
        except AutomcError as error:
            if isinstance(error, SpecError):  # it would be the same for all
                raise
            found.append(Member(trial.number, error=str(error).splitlines()[0]))
        told(found[-1])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).write_text("\n".join(_index(study.name, found)) + "\n", encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{folder / INDEX}: cannot be written: {error.strerror}") from error
    return found


def require(members: Sequence[Member]) -> None:
    """Raises ProofError where one was not proved."""
    wrong = [member for member in members if not (member.proof and member.proof.passed)]
    if wrong:
        said = "\n".join(f"trial {member.number}: {member.verdict}" for member in wrong)
        raise ProofError(f"{len(wrong)} of {len(members)} members are not as promised:\n{said}")


def columns(members: Sequence[Member]) -> list[str]:
    """What a table of them shows: the task's first metric, bytes and latency."""
    lead = next((name for member in members if member.proof for name in member.proof.scores), "")
    errors = [lead, f"{lead}_error"] if lead else []
    return ["trial", "folder", *errors, "size_bytes", "latency_ms", "latency_ratio", "verdict"]


def _index(name: str, members: Sequence[Member]) -> Iterator[str]:
    shown = columns(members)
    yield f"# The front of study {name}"
    yield ""
    yield "Measured from the files, on the test split; each folder has its model card, `README.md`."
    yield ""
    yield f"| {' | '.join(shown)} |"
    yield "|---" * len(shown) + "|"
    for member in members:
        row = {**member.row(), "trial": str(member.number)}
        if member.folder:
            row["folder"] = f"[{member.folder}]({member.folder})"
        yield f"| {' | '.join(cell(column, row.get(column)).replace('|', '/') for column in shown)} |"
