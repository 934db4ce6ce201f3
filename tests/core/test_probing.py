"""What is probed for a sensitivity table, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import pytest

from automc.core.layers import LayerTable
from automc.core.policy import Policy, Site
from automc.core.probing import LEVELS, measures_of, probed, probes_of, unknown_probes
from automc.core.rules import Rule, resolve
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Real, SearchSpace
from automc.errors import CompressionError, EvaluationError, NotFinite
from automc.operators import OPERATORS, ORDER


class Counting:
    """A prober with a known answer, which raises where it is told to."""

    def __init__(self, errors: Mapping[int, Exception] | None = None) -> None:
        self.asked: list[tuple[Policy, tuple[str, ...]]] = []
        self._errors = errors or {}

    def damage(self, policy: Policy, measures: Sequence[str]) -> Mapping[str, float]:
        self.asked.append((policy, tuple(measures)))
        if len(self.asked) in self._errors:
            raise self._errors[len(self.asked)]
        return {name: float(len(self.asked)) for name in measures}


def bits_space(table: LayerTable) -> SearchSpace:
    return resolve((Rule("quantize", {"weight_bits": Choice((4, 8, 32))}),), ORDER, table, OPERATORS)


def test_every_decision_with_damage_of_its_own_at_its_values_and_the_neutral_one(mixed: SearchSpace) -> None:
    values: dict[Site, list[object]] = {}
    for site, value, _ in probes_of(mixed):
        values.setdefault(site, []).append(value)
    silent = {"method", "pattern", "kd_temperature"}
    assert set(values) == {d.site for d in mixed.decisions if d.site.setting not in silent}
    by_setting = {site.setting: found for site, found in values.items()}
    assert by_setting["weight_bits"] == [2, 3, 4, 6, 8, 32]
    assert by_setting["dropped"] == [False, True]
    assert by_setting["rank_ratio"] == [0.1, 0.25, 0.5, 1.0]
    assert by_setting["channel_multiple"] == [1, 4]
    assert by_setting["prune_ratio"] == [0.0, 0.2, 0.3, 0.5, 0.6, 0.8]
    assert len(by_setting["prune_ratio"]) == LEVELS + 1


def test_a_probe_has_one_value_and_what_is_fixed_beside_it(mixed_table: LayerTable) -> None:
    criterion = Rule("prune", {"criterion": Choice(("l2",))})
    rules = (Rule("prune", {"prune_ratio": Real(0.0, 0.8)}), criterion, Rule("quantize", {"weight_bits": Choice((4,))}))
    space = resolve(rules, ORDER, mixed_table, OPERATORS)
    for site, value, policy in probes_of(space):
        alone = {site: value, site._replace(setting="criterion"): "l2"}
        assert policy == (Policy(alone) if value else Policy({}))


def test_layers_come_in_the_order_of_the_network(mixed: SearchSpace) -> None:
    index = {layer.name: layer.index for layer in mixed.layers.layers}
    first = {block.name: index[block.layers[0]] for block in mixed.layers.blocks}
    depths = [first.get(site.layer, index.get(site.layer)) for site, _, _ in probes_of(mixed)]
    assert depths == sorted(depths)
    assert len(set(depths)) == len(index)


def test_the_neutral_value_is_not_measured_and_does_nothing(mixed_table: LayerTable) -> None:
    space, prober = bits_space(mixed_table), Counting()
    heard: list[tuple[int, int]] = []
    found = probed(space, prober, ("loss", "error"), heard=lambda done, total: heard.append((done, total)))
    count = len(mixed_table.layers)
    assert len(prober.asked) == 2 * count
    assert all(len(policy) == 1 and measures == ("loss", "error") for policy, measures in prober.asked)
    assert heard == [(done, 2 * count) for done in range(1, 2 * count + 1)]
    assert [found.damage(d.site, 32) for d in space.decisions] == [0.0] * count
    assert found.damage(Site("quantize", "stem", "weight_bits"), 4, "error") == 1.0


def test_what_cannot_be_built_or_answers_nan_is_infinitely_bad(mixed_table: LayerTable) -> None:
    space = bits_space(mixed_table)
    found = probed(space, Counting({1: CompressionError("no"), 4: NotFinite("nan")}), ("loss",))
    damages = {(site.layer, value): found.damage(site, value) for site, value, _ in probes_of(space)}
    assert [key for key, damage in damages.items() if damage == math.inf] == [("stem", 4), ("block1.expand", 8)]


def test_other_errors_are_raised(mixed_table: LayerTable) -> None:
    with pytest.raises(EvaluationError, match="the disk is gone"):
        probed(bits_space(mixed_table), Counting({2: EvaluationError("the disk is gone")}), ("loss",))


def test_what_is_known_is_not_measured_again(mixed_table: LayerTable) -> None:
    space, prober = bits_space(mixed_table), Counting()
    site = Site("quantize", "stem", "weight_bits")
    known = Sensitivity((Probe(site, 4, {"loss": 7.0}), Probe(site, 8, {"loss": 6.0, "error": 5.0})))
    assert len(unknown_probes(space, ("loss", "error"), known)) == 2 * len(mixed_table.layers) - 1
    found = probed(space, prober, ("loss", "error"), known)
    assert prober.asked[0] == (Policy({site: 4}), ("error",))
    assert (found.damage(site, 4), found.damage(site, 4, "error")) == (7.0, 1.0)
    assert (found.damage(site, 8), found.damage(site, 8, "error")) == (6.0, 5.0)


def test_a_proposer_says_what_it_wants_also_from_inside_a_wrapper() -> None:
    wants = SimpleNamespace(measures=("loss",))
    assert measures_of(wants) == measures_of(SimpleNamespace(inner=wants)) == ("loss",)
    assert measures_of(SimpleNamespace()) == ()
