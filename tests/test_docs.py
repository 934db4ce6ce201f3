"""The README is complete: every name a user can write stands in its tables, and its links lead somewhere."""

import inspect
import re
import shlex
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from automc import errors
from automc.app import catalog
from automc.app.study_schema import STUDY_KEYS
from automc.cli import app
from automc.core.hopeless import Doubt
from automc.core.metrics import METRICS
from automc.core.signature import Within
from automc.core.trial import REASONS
from automc.evaluation.bookmarks import BookmarkSettings
from automc.evaluation.device import Device
from automc.evaluation.entries import COMMON
from automc.evaluation.prefix import Caching
from automc.evaluation.probing import ProbeSettings
from automc.evaluation.recipe import Recipe
from automc.evaluation.restoring import Restoring
from automc.evaluation.synthetic import SyntheticSettings
from automc.evaluation.timing import LatencySettings
from automc.measure.energy import Energy
from automc.operators import OPERATORS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = typer.main.get_command(app)


def commands(group: typer.core.TyperGroup, before: str = "") -> dict[str, typer.core.TyperCommand]:
    """Every command by the words that call it; those of a group behind the group's."""
    found = {}
    for name, command in group.commands.items():
        inner = isinstance(command, typer.core.TyperGroup)
        found |= commands(command, f"{before}{name} ") if inner else {before + name: command}
    return found


COMMANDS = commands(COMMAND)  # type: ignore[arg-type]


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of every table, by the heading of its first column; tables with one heading are one."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heading = ""
        elif not heading:
            heading = cells[0]
        elif not set(cells[0]) <= {"-"} or not cells[0]:
            found.setdefault(heading, []).append(cells)
    return found


TABLES = tables(README)


def named(heading: str, column: int = 0) -> set[str]:
    """The words in code type in a column of a table."""
    return {word for row in TABLES[heading] for word in re.findall(r"`([^`]+)`", row[column])}


def exit_codes() -> set[str]:
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AutomcError))
    return {str(kind.exit_code) for kind in kinds} | {"0", "70", "130", "141", "143"}


def environment_variables() -> set[str]:
    files = [*(ROOT / "automc").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return {name for path in files for name in re.findall(r"\bAUTOMC_[A-Z]+\b", path.read_text(encoding="utf-8"))}


def views() -> set[str]:
    files = (ROOT / "automc" / "stores" / "migrations").rglob("*.py")
    return {name for path in files for name in re.findall(r"CREATE VIEW (\w+)", path.read_text(encoding="utf-8"))}


EVALUATOR_SETTINGS = (
    Recipe,
    Caching,
    Device,
    Doubt,
    LatencySettings,
    Energy,
    Restoring,
    ProbeSettings,
    BookmarkSettings,
    SyntheticSettings,
)


PROPOSER_SETTINGS = {
    name: list(inspect.signature(catalog.part(catalog.PROPOSERS, "proposer", name)).parameters)[4:]
    for name in catalog.PROPOSERS
}
"""What follows space, objectives, constraints and seed."""


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("heading", "column", "names"),
    [
        ("command", 0, COMMANDS),
        ("key", 0, STUDY_KEYS),
        ("operator", 0, OPERATORS),
        ("operator", 1, [name for operator in OPERATORS.values() for name in operator.settings]),
        ("proposer", 0, catalog.PROPOSERS),
        ("proposer setting", 0, {name for own in PROPOSER_SETTINGS.values() for name in own}),
        ("stopper", 0, catalog.STOPPERS),
        ("evaluator", 0, catalog.EVALUATORS),
        ("model", 0, catalog.MODELS),
        ("data", 0, catalog.DATA_SETS),
        ("task", 0, catalog.TASKS),
        ("task", 3, {metric for entry in catalog.TASKS.values() for metric in entry.metrics}),
        ("task setting", 0, {name for entry in catalog.TASKS.values() for name in entry.settings}),
        ("data setting", 0, {*COMMON, *(name for entry in catalog.DATA_SETS.values() for name in entry.settings)}),
        ("evaluator setting", 0, {f.name for kind in EVALUATOR_SETTINGS for f in fields(kind)}),
        ("metric", 0, METRICS),
        ("reason", 0, REASONS),
        ("exit code", 0, exit_codes()),
        ("environment variable", 0, environment_variables()),
        ("view", 0, views()),
        ("extra", 0, extras()),
    ],
)
def test_a_table_names_exactly_what_there_is(heading: str, column: int, names: Iterable[str]) -> None:
    assert named(heading, column) == set(names)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_row_names_its_options(name: str) -> None:
    row = next(row for row in TABLES["command"] if row[0] == f"`{name}`")
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts if option.startswith("--")}
    assert set(re.findall(r"`(--[a-z-]+)`", row[2])) == options - {"--json"}


def test_metrics_have_their_unit() -> None:
    assert {row[0].strip("`"): row[1] for row in TABLES["metric"]} == {name: m.unit for name, m in METRICS.items()}


def test_the_settings_of_an_operator_stand_below_it() -> None:
    found: dict[str, list[str]] = {}
    operator = ""
    for row in TABLES["operator"]:
        operator = row[0].strip("`") or operator
        found.setdefault(operator, []).extend(re.findall(r"`(\w+)`", row[1]))
    assert found == {name: list(operator.settings) for name, operator in OPERATORS.items()}


def test_nothing_is_left_to_fill_in() -> None:
    assert "<!--" not in README


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "CHANGELOG.md",
        "search_spaces/README.md",
        "automc/operators/README.md",
        "experiments/benchmarks/README.md",
    ],
)
def test_links_lead_somewhere(path: str) -> None:
    file = ROOT / path
    targets = re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith("https://") and not (file.parent / t).exists()]
    assert missing == []


BENCHMARKS = (ROOT / "experiments" / "benchmarks" / "README.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^(#+) (.+)$", BENCHMARKS, re.M)
BESIDE = README.partition("\n## Beside others\n")[2].partition("\n## ")[0]
COMPARED = re.findall(r"^\|.*benchmarks/README\.md#.*$", BESIDE, re.M)


@pytest.mark.parametrize("row", COMPARED, ids=lambda row: row[2:40])
def test_a_comparison_s_figures_are_its_benchmark_s(row: str) -> None:
    """A figure may not outlive the run that it came from: it stands in the section that the row links to."""
    [(text, anchor)] = re.findall(r"\[([^]]+)\]\([^)#]+#([^)]+)\)", row)
    levels = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"): (len(marks), title) for marks, title in HEADINGS
    }
    depth, title = levels[anchor]
    section = re.split(rf"\n#{{1,{depth}}} ", BENCHMARKS.partition(f"\n{'#' * depth} {title}\n")[2])[0]
    figures = re.findall(r"\d+\.\d+|\d[\d,]*\d\d", text + row.partition(")")[2])
    assert figures
    assert [figure for figure in figures if figure not in section] == []


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    parts = ["Apache License", "1. Definitions.", "9. Accepting Warranty", "END OF TERMS AND CONDITIONS", "APPENDIX"]
    assert [part for part in parts if part not in text] == []


def test_the_readme_s_python_compiles_and_uses_what_is_there() -> None:
    import automc

    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")
        used = set(re.findall(r"\bautomc\.(\w+)", block))
        assert used <= set(automc.__all__)


def test_the_readme_s_commands_parse() -> None:
    for line in re.findall(r"^automc (.+)$", README, re.MULTILINE):
        words = shlex.split(line, comments=True)
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert COMMANDS[name].make_context(name, words[len(name.split()) :]).info_name == name


@pytest.mark.parametrize("name", catalog.PROPOSERS)
def test_a_proposer_s_row_names_its_settings(name: str) -> None:
    row = next(row for row in TABLES["proposer"] if row[0] == f"`{name}`")
    assert re.findall(r"`(\w+)`", row[2]) == PROPOSER_SETTINGS[name]


@pytest.mark.parametrize("name", catalog.PROPOSERS)
def test_the_readme_says_what_a_proposer_s_settings_may_be(name: str) -> None:
    found = inspect.signature(catalog.part(catalog.PROPOSERS, "proposer", name), eval_str=True).parameters
    rows = {key: row for row in TABLES["proposer setting"] for key in re.findall(r"`(\w+)`", row[0]) if name in row[1]}
    for key in PROPOSER_SETTINGS[name]:
        rules = [rule for rule in getattr(found[key].annotation, "__metadata__", ()) if isinstance(rule, Within)]
        assert all(str(rule).replace("from ", "") in rows[key][3] for rule in rules), key
