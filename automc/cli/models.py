"""Commands about networks: a layer table, an exported folder and its proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automc.app import options as o
from automc.cli.app import app, opened, shown, talk
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.app.front_export import Member
    from automc.app.study import Study


@app.command()
def export(
    ref: o.Chosen,
    output: o.NewFolder,
    pick: o.Pick = None,
    least: o.Least = None,
    most: o.Most = None,
    front: o.Front = False,
    formats: o.Formats = "onnx,packed",
    batches: o.Batches = "",
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Write a trial's model, or the whole front, and prove it is as promised.

    The model is rebuilt from its policy, repaired, written, loaded in a fresh process and measured there. What breaks a
    promise is written to rejected/ beside its folder, with the reasons, and the command ends with 7.
    """
    chosen, sizes = o.listed(formats), o.batch_sizes(batches)
    if front:
        if pick or least or most:
            raise SpecError("export: --front writes all members; leave out --pick, --min and --max")
        _front(opened(ref, storage), output, chosen, sizes, as_json)
    elif pick or least or most:
        study = opened(ref, storage)
        number = _picked(study, pick, least, most)
        talk(f"trial {study.name}/{number}")
        _one(study, number, output, chosen, sizes, as_json)
    else:
        name, number = o.split_ref(ref)
        _one(opened(name, storage), number, output, chosen, sizes, as_json)


def _one(study: Study, number: int, output: Path, formats: list[str], batches: list[int], as_json: bool) -> None:
    from automc.app.delivery import deliver
    from automc.app.proof_report import proof_text

    folder, proof = deliver(study, study.trial(number), output, formats, batches)
    shown(as_json, {"trial": number, "folder": str(folder), **proof.to_data()}, lambda: proof_text(proof))
    if not proof.passed:
        talk(f"written to {folder}, where it can be looked at")
    proof.require()


def _picked(study: Study, pick: str | None, least: str | None, most: str | None) -> int:
    """The member that the options name."""
    from automc.app.picking import objective

    if least and most:
        raise SpecError("export: --min and --max together leave the choice open; give one of them")
    best = objective("min", least) if least else objective("max", most) if most else None
    return study.picked(pick or ("" if best else "knee"), best=best).number


def _front(study: Study, folder: Path, formats: list[str], batches: list[int], as_json: bool) -> None:
    from automc.app.front_export import columns, export_front, require
    from automc.app.tables import table

    def told(member: Member) -> None:
        talk(f"trial {study.name}/{member.number}: {member.verdict}")

    members = export_front(study, folder, formats, batches, told)
    rows = [member.row() for member in members]
    shown(as_json, {"members": rows}, lambda: table(rows, columns(members)))
    require(members)


@app.command()
def verify(folder: o.Folder, as_json: o.Json = False) -> None:
    """Repeat the proof of an exported folder."""
    from automc.app import runs
    from automc.app.proof_report import proof_text

    proof = runs.verify(folder)
    shown(as_json, proof.to_data(), lambda: proof_text(proof))
    proof.require()


@app.command()
def profile(
    model: o.Model,
    shape: o.Shape = "",
    weights: o.Weights = None,
    arguments: o.Arguments = None,
    as_json: o.Json = False,
) -> None:
    """Show a model's layers, their cost, groups and blocks."""
    from automc.app import runs
    from automc.app.space_report import layers_text
    from automc.core.study import ModelSpec

    spec = ModelSpec(model, o.settings(arguments), str(weights) if weights else None)
    layers = runs.profile(spec, o.shape(shape))
    shown(as_json, layers.to_data(), lambda: layers_text(layers))
