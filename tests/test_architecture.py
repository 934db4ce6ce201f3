"""The floors of the house: who may import whom, and what the light parts must not load."""

import ast
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "automc"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "errors": 0,
    "core": 1,
    **dict.fromkeys(("proposers", "stoppers", "operators", "measure", "stores", "workers", "export"), 2),
    "evaluation": 3,
    "app": 4,
    "service": 5,
    "cli": 6,
    "__init__": 6,
}
HEAVY = ("torch", "ray", "pandas", "sqlalchemy", "optuna")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, at the top or inside a function; relative ones made absolute.

    ``module`` is the dotted path of the package that the file lies in.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module[: len(module) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            # `from automc import core` names a room in the list, not in the module.
            yield from ((node.lineno, f"{name}.{a.name}" if name == "automc" else name) for a in node.names)


def breaches(path: Path, text: str) -> list[str]:
    """The imports of a file that go up, or sideways between the rooms of floor 2."""
    own = room(path)
    package = ("automc", *path.relative_to(PACKAGE).parent.parts)
    found = []
    for line, name in imports(ast.parse(text), package):
        parts = name.split(".")
        if parts[0] != "automc" or len(parts) < 2 or parts[1] == own:
            continue
        if parts[1] not in FLOORS or FLOORS[parts[1]] >= FLOORS[own]:
            found.append(f"{path.relative_to(ROOT)}:{line} {own} -> {parts[1]}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_downward(path: Path) -> None:
    assert room(path) in FLOORS, f"{path} lies in no room of the house"
    assert breaches(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/x.py", "from automc.operators import OPERATORS"),
        ("core/x.py", "def f():\n    import automc.app.runs"),
        ("measure/x.py", "from automc.operators.quantize import bits"),
        ("measure/x.py", "from ..operators import quantize"),
        ("stores/deep/x.py", "from ...workers import inline"),
        ("evaluation/x.py", "from automc import app"),
        ("app/x.py", "from automc.nowhere import x"),
    ],
)
def test_the_check_finds_breaches(file: str, line: str) -> None:
    assert len(breaches(PACKAGE / file, line)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("measure/x.py", "from .cost import costs\nfrom ..core import policy\nfrom automc.errors import SpecError"),
        ("evaluation/x.py", "from automc.operators.base import compress"),
        ("cli/x.py", "from automc.app import runs"),
    ],
)
def test_the_check_lets_the_rest_pass(file: str, line: str) -> None:
    assert breaches(PACKAGE / file, line) == []


def test_core_knows_only_numpy_and_the_standard_library() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "automc"}
    strange = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in (*(PACKAGE / "core").rglob("*.py"), PACKAGE / "errors.py")
        for line, name in imports(ast.parse(path.read_text()), ("automc", "core"))
        if name.split(".")[0] not in allowed
    ]
    assert strange == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_says_what_it_is_for(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said is not None
    assert len(said) > 10


def loaded(code: str) -> set[str]:
    """Which of the heavy libraries a fresh process has loaded after running ``code``."""
    report = f"import sys; print('LOADED', *(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_probe_sees_a_heavy_import() -> None:
    assert loaded("import sqlalchemy") == {"sqlalchemy"}


def test_import_automc_is_light() -> None:
    assert loaded("import automc") == set()


def test_help_is_light(capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded("from automc.cli import main; assert main(['--help']) == 0") == set()
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "automc.cli", "--help"], capture_output=True, timeout=60, check=True)
    with capsys.disabled():
        print(f"\nautomc --help: {time.perf_counter() - started:.2f} s")


def test_the_catalogue_and_the_operator_table_are_light() -> None:
    assert loaded("import automc.app.catalog, automc.operators, automc.errors, automc.core.search") == set()


def test_every_package_is_listed_for_the_wheel():
    """pyproject lists packages by hand; a forgotten one would be missing after ``pip install``."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "automc").rglob("*.py")}
    assert set(listed) == {".".join(folder.parts) for folder in folders} | {"automc.search_spaces"}


def test_every_file_beside_the_code_is_in_the_wheel() -> None:
    """Pages, styles, migrations, weights, tables of devices; not what is for readers of the source."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, folder in {"automc": PACKAGE, "automc.search_spaces": ROOT / "search_spaces"}.items():
        found = {pattern: set(folder.glob(pattern)) for pattern in listed[package]}
        assert [pattern for pattern, paths in found.items() if not any(map(Path.is_file, paths))] == []
        files = {p for p in folder.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
        left = files - set().union(*found.values())
        assert {path.name for path in left} <= {"README.md"}, sorted(map(str, left))
