"""Energy of one input by a model: operations and memory traffic times what a device profile says each costs.

A model, not a measurement: in the manner of HAQ's (Wang et al. 2019), with the figures of a profile in YAML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from automc.core.required import EVALUATOR, require, show
from automc.core.rules import nearest
from automc.errors import SpecError, one_line
from automc.measure.cost import UNTOUCHED, at_bits
from automc.measure.walk import Walk

PROFILES = Path(__file__).parent / "devices"

_SETTING = f"{EVALUATOR}.device_profile"


@dataclass(frozen=True)
class Energy:
    """The setting ``device_profile``: a bundled profile's name, or a path of a .yaml file."""

    device_profile: str = "horowitz_45nm"

    def __post_init__(self) -> None:
        load_profile(self.device_profile)


@dataclass(frozen=True)
class Profile:
    """What operations and memory cost on a device, in picojoules.

    Attributes:
        float_mac_pj: a multiply-accumulate of float32, which every MAC is of which one side is not rounded.
        multiply_8x8_pj: of two 8-bit integers. accumulate_pj: the addition that follows it.
        on_chip_pj_per_bit, dram_pj_per_bit: of a bit read or written.
        on_chip_bytes: size of the on-chip memory.

    Raises:
        SpecError: a figure is no number, infinite or negative.
    """

    float_mac_pj: float
    multiply_8x8_pj: float
    accumulate_pj: float
    on_chip_pj_per_bit: float
    dram_pj_per_bit: float
    on_chip_bytes: float

    def __post_init__(self) -> None:
        rules = {}
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            rules[field.name] = (number and math.isfinite(value) and value >= 0, "a finite number of at least 0")
        require(self, rules, path="")

    def mac(self, weight_bits: int, activation_bits: int) -> float:
        """Picojoules of a multiply-accumulate.

        Integer multiplication takes energy as its operands' bits multiplied (an array multiplier has so many cells):
        ``multiply_8x8 * w * a / 64``. By that rule 32 x 32 bits take 3.2 pJ in the bundled profile; 3.1 is published.
        """
        if max(weight_bits, activation_bits) >= UNTOUCHED:
            return self.float_mac_pj
        return self.multiply_8x8_pj * weight_bits * activation_bits / 64 + self.accumulate_pj


def energy_of(walked: Walk, profile: Profile) -> float:
    """Millijoules of one input by the model.

    Each product's MACs, by the bits of its weights and inputs; its weights, once from DRAM; what it reads and makes,
    once each, at the bits of its inputs, on the chip where ``activation_bytes`` fit there and in DRAM where not. Norms,
    activation functions and sums cost nothing; nor do the scales of weights. Zeros of a mask cost as any number.
    """
    model, total = walked.model, 0.0
    fits = walked.activation_bytes <= profile.on_chip_bytes
    per_bit = profile.on_chip_pj_per_bit if fits else profile.dram_pj_per_bit
    for name, work in walked.work.items():
        module = model.get_submodule(name)
        weight_bits = getattr(module, "weight_bits", UNTOUCHED)
        activation_bits = getattr(module, "activation_bits", UNTOUCHED)
        weights = sum(p.numel() for p in module.parameters(recurse=False))
        total += sum(n * profile.mac(w, a) for n, w, a in at_bits(model, name, work.macs))
        total += weights * weight_bits * profile.dram_pj_per_bit
        total += (work.read * activation_bits + work.made * UNTOUCHED) * per_bit
    return total * 1e-9


def load_profile(name: str) -> Profile:
    """A bundled profile by name, or a YAML file of your own.

    Raises:
        SpecError: no such profile or file, or it breaks a rule; in one line.
    """
    bundled = {path.stem: path for path in sorted(PROFILES.glob("*.yaml"))}
    own = name.endswith((".yaml", ".yml"))
    if name not in bundled and not own:
        raise SpecError(
            f"{_SETTING}: no profile {name!r}{nearest(name, bundled)} "
            f"(bundled: {', '.join(bundled)}; or a .yaml file of your own)"
        )
    path = Path(name) if own else bundled[name]
    data = _read(path)
    known = [field.name for field in fields(Profile)]
    if not isinstance(data, dict) or set(data) != set(known):
        given = ", ".join(map(str, data)) if isinstance(data, dict) else show(data)
        raise SpecError(f"{_SETTING}: {path}: must have exactly the keys {', '.join(known)}, not {given}")
    try:
        return Profile(**data)
    except SpecError as error:
        lines = str(error).splitlines()
        raise SpecError("\n".join(f"{_SETTING}: {path}: {line}" for line in lines)) from None


def _read(path: Path) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise SpecError(f"{_SETTING}: {path}: cannot be read: {reason}") from error
