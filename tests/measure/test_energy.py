"""The energy model against its closed form, and profiles that break a rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from automc.errors import SpecError
from automc.measure.energy import Profile, energy_of, load_profile
from automc.measure.walk import walk

PROFILE = Profile(5.0, 0.2, 0.1, 2.0, 30.0, 1000.0)


class Few(nn.Linear):
    weight_bits, activation_bits = 4, 8


def test_two_layers_by_hand() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), Few(5, 4))
    macs = 30 * 5.0 + 20 * (0.2 * 4 * 8 / 64 + 0.1)
    weights = (30 + 5) * 32 * 30.0 + (20 + 4) * 4 * 30.0
    traffic = ((6 * 32 + 5 * 32) + (5 * 8 + 4 * 32)) * 2.0
    found = energy_of(walk(model, torch.zeros(3, 6)), PROFILE)
    assert found == pytest.approx((macs + weights + traffic) * 1e-9, rel=1e-12)  # float64


def test_activations_that_do_not_fit_on_the_chip_go_to_dram() -> None:
    model = nn.Linear(300, 10)
    macs, weights = 3000 * 5.0, 3010 * 32 * 30.0
    found = energy_of(walk(model, torch.zeros(1, 300)), PROFILE)  # 1,240 bytes of 1,000
    assert found == pytest.approx((macs + weights + 310 * 32 * 30.0) * 1e-9, rel=1e-12)


def test_the_bundled_profile_has_the_published_figures() -> None:
    """Horowitz, ISSCC 2014, 45 nm: float32 multiply 3.7 and add 0.9 pJ, int8 multiply 0.2, int32 multiply 3.1, int32
    add 0.1, 100 pJ for 64 bits of a 1 MB SRAM, 1.3 to 2.6 nJ for 64 bits of DRAM.
    """
    profile = load_profile("horowitz_45nm")
    assert profile.mac(32, 32) == pytest.approx(3.7 + 0.9)
    assert profile.mac(8, 8) == pytest.approx(0.2 + 0.1)
    assert profile.mac(8, 32) == profile.mac(32, 8) == profile.mac(32, 32)
    assert profile.multiply_8x8_pj * 32 * 32 / 64 == pytest.approx(3.1, rel=0.05)  # the interpolation rule's own check
    assert profile.on_chip_pj_per_bit * 64 == pytest.approx(100.0)
    assert 1300 < profile.dram_pj_per_bit * 64 < 2600


def test_fewer_bits_never_cost_more() -> None:
    profile = load_profile("horowitz_45nm")
    energies = [profile.mac(bits, bits) for bits in (1, 2, 4, 8, 32)]
    assert energies == sorted(energies)


GOOD = """
float_mac_pj: 5
multiply_8x8_pj: 0.2
accumulate_pj: 0.1
on_chip_pj_per_bit: 2
dram_pj_per_bit: 30
on_chip_bytes: 1000
"""


def test_a_profile_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert load_profile(str(path)) == PROFILE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("float_mac_pj: 5", "float_mac: 5"), "must have exactly the keys float_mac_pj, .* not float_mac,"),
        (GOOD.replace("0.1", "-0.1"), "accumulate_pj: must be a finite number of at least 0, not -0.1"),
        (GOOD.replace("0.1", ".inf"), "accumulate_pj: must be a finite number"),
        (GOOD.replace("0.1", "yes"), "accumulate_pj: must be a finite number of at least 0, not"),
        ("- 1\n", "must have exactly the keys .* not \\[1\\]"),
        ("a: [", "cannot be read: ParserError"),
        ("", "must have exactly the keys .* not nothing"),
    ],
)
def test_a_bad_profile_is_one_line_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=f"evaluator.settings.device_profile: .*bad.yaml: {said}") as caught:
        load_profile(str(path))
    assert "\n" not in str(caught.value)


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(SpecError, match=r"device_profile: no profile 'horowitz_45', did you mean 'horowitz_45nm'"):
        load_profile("horowitz_45")
    with pytest.raises(SpecError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_profile("nowhere.yaml")
