"""What CI does before the tests: Chromium is installed where that can be done, and its absence fails no run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "env", "mktemp", "rm", "tail", "timeout")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs that a bare system has, root's id among them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        os.symlink(str(shutil.which(name)), folder / name)
    write(folder / "id", "echo 0")
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(programs: Path) -> tuple[int, str]:
    done = subprocess.run(
        [str(ROOT / ".ci" / "chromium")], env={"PATH": str(programs)}, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


def test_chromium_that_is_there_is_left_alone(programs: Path) -> None:
    write(programs / "chromium", "exit 1")
    write(programs / "apt-get", "exit 1")
    assert run(programs) == (0, "")


def test_nobody_but_root_installs(programs: Path) -> None:
    write(programs / "id", "echo 1000")
    assert run(programs) == (
        0,
        "chromium: not there, and only root may install it; the tests in a browser will be skipped\n",
    )


def test_without_apt_nothing_is_installed(programs: Path) -> None:
    code, said = run(programs)
    assert (code, said.count("\n")) == (0, 1)
    assert "this system has no apt" in said


def test_an_archive_that_does_not_answer_fails_nothing(programs: Path) -> None:
    write(programs / "apt-get", "echo E: cannot reach the archive; exit 100")
    code, said = run(programs)
    assert code == 0
    assert said.startswith("chromium: apt-get update: E: cannot reach the archive; the tests")


def test_it_is_downloaded_within_a_limit_and_installed_without_questions(programs: Path, tmp_path: Path) -> None:
    write(programs / "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/calls')
    assert run(programs) == (0, "")
    update, download, install = (tmp_path / "calls").read_text().splitlines()
    assert " update" in update
    assert "--download-only install --yes --no-install-recommends chromium" in download
    assert install == "noninteractive --quiet install --yes --no-install-recommends chromium"
