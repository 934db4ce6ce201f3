"""Malformed study files: each says in its first lines what must be reported, ``# expect: LINE: fragment``.

LINE 0 means a message about the file as a whole, or one whose line does not matter.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from automc.app.config import read_study
from automc.errors import SpecError

FOLDER = Path(__file__).parent / "malformed"
FILES = sorted(FOLDER.glob("*.yaml"))
EXPECT = re.compile(r"# expect: (\d+): (.+)")


def expected(path: Path) -> list[tuple[int, str]]:
    heads = [EXPECT.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(int(head[1]), head[2]) for head in heads if head]


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_mistake_has_one_line_with_file_line_and_key(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        read_study(path)
    lines = str(caught.value).split("\n")
    wanted = expected(path)
    assert len(lines) == len(wanted) >= 1, str(caught.value)
    for line, (number, fragment) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{path}:{number}: " if number else str(path)), line
        assert fragment in line
        assert line.isprintable()
        assert len(line) < len(str(path)) + 400
    assert list(tmp_path.iterdir()) == []


RAW = {
    "empty": (b"", "is empty; automc init -o study.yaml writes a study to start from"),
    "blank": (b"\n \n", "is empty"),
    "binary": (b"PK\x03\x04\n\x00\x00", ":2: a binary or UTF-16 file, not YAML text in UTF-8"),
    "utf16": ("model: digits_net\n".encode("utf-16"), ":1: a binary or UTF-16 file"),
    "latin1": ("model: digits_net\n# naïve\n".encode("latin-1"), ":2: not UTF-8 (byte 0xef); save as UTF-8"),
    "huge": (b"# x\n" * 260_000, "larger than 1 MB"),
    "brackets": (b"[" * 900_000, ":1: nested more than 20 levels deep"),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_yaml_text_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, fragment = RAW[name]
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_study(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert fragment in message
    assert "\n" not in message


def test_a_missing_file_is_told_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("model: digits_net\n")
    with pytest.raises(SpecError, match=r"stduy\.yaml: no such file, did you mean 'study\.yaml'\?$"):
        read_study(tmp_path / "stduy.yaml")


def test_a_folder_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        read_study(tmp_path)


def test_many_mistakes_are_cut_after_twenty(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("".join(f"key{i}: 1\n" for i in range(40)))
    with pytest.raises(SpecError) as caught:
        read_study(path)
    lines = str(caught.value).split("\n")
    # 40 unknown keys and four required ones missing.
    assert len(lines) == 21
    assert lines[-1] == "... and 24 more mistakes"


def test_mistakes_in_a_space_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rules:\n  - operator: prune\n    settings:\n      prune_ratio: 2\n")
    path = tmp_path / "study.yaml"
    path.write_text("model: digits_net\ndata: digits\nspace: mine\nobjectives: {top1: maximize}\nseed: -1\n")
    with pytest.raises(SpecError) as caught:
        read_study(path)
    first, second = str(caught.value).split("\n")
    assert first.startswith(f"{path}:5: seed: -1 is not allowed")
    assert second.startswith(f"{tmp_path / 'mine.yaml'}:4: rules[0].settings.prune_ratio: 2 is not allowed")
