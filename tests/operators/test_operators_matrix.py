"""Every operator on every family of networks, and every pair of operators on three: applied, run, trained, reloaded."""

from pathlib import Path

import pytest
from matrix import NO_SITE, PAIRED, PAIRS, SETTINGS, SINGLES, markdown, tried

import automc
from automc.operators import OPERATORS, ORDER

NO_BLOCK = "no module of the network is a residual block of its own, so nothing can be dropped"
UNSUPPORTED: dict[tuple[tuple[str, ...], str], tuple[str, str]] = {
    **{(("drop",), family): (NO_SITE, NO_BLOCK) for family in ("densenet", "vgg", "lstm", "unet", "detector")},
    **{(("drop", other), "lstm"): (NO_SITE, NO_BLOCK) for other in ORDER if other != "drop"},
}
"""The cells that cannot be: what is said there (part of the CompressionError, or NO_SITE), and why."""


@pytest.mark.parametrize(
    ("operators", "family"), SINGLES + PAIRS, ids=lambda part: part if isinstance(part, str) else "+".join(part)
)
def test_a_cell_of_the_matrix(operators: tuple[str, ...], family: str) -> None:
    said, _ = UNSUPPORTED.get((operators, family), ("", ""))
    found = tried(operators, family)
    assert bool(found) == bool(said), found or "this works by now: take it out of UNSUPPORTED"
    assert said in found


def test_the_matrix_is_whole_and_asks_something_of_every_operator() -> None:
    assert len(SINGLES) == 6 * 11
    assert len(PAIRS) == 15 * len(PAIRED)
    assert set(UNSUPPORTED) <= set(SINGLES + PAIRS)
    for name, chosen in SETTINGS.items():
        assert all(OPERATORS[name].settings[setting].neutral != value for setting, value in chosen.items())


def test_the_readme_shows_this_matrix() -> None:
    readme = (Path(automc.__file__).parent / "operators" / "README.md").read_text(encoding="utf-8")
    assert markdown(UNSUPPORTED) in readme
