"""The command that answers what-if budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from automc.app import options as o
from automc.cli.app import app, connected, opened, shown
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.app.study import Study


@app.command()
def solve(
    name: o.Name,
    most: o.Below = None,
    least: o.Above = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Answer what could be had under other budgets, from the database.

    The best trial that keeps them, or, where none does, the policy that the study's sensitivities predict to.
    """
    from automc.app.amounts import bound
    from automc.app.solve_report import answer_text
    from automc.app.solving import Answer
    from automc.app.solving import solve as solved

    asked = [*(bound(text, "<=") for text in most or ()), *(bound(text, ">=") for text in least or ())]
    if not asked:
        raise SpecError("solve: give a bound, such as --max size_bytes=60kB or --min top1=0.9")
    if server is None:
        study = opened(name, storage)
        answer = solved(study, asked)
    else:
        remote = connected(storage, server).open_study(name)
        study, answer = cast("Study", remote), Answer.from_data(remote.solve([str(each) for each in asked]))
    shown(as_json, answer.to_data(), lambda: answer_text(study, answer))
