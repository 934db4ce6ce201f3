"""A policy at half strength lies between the neutral one and itself, and is legal."""

from hypothesis import given
from hypothesis import strategies as st

from automc.core.policy import Policy, Site
from automc.core.space import Choice
from automc.operators import OPERATORS
from automc.operators.distillation.milder import milder

SITES = [
    (Site(info.name, "x", name), setting) for info in OPERATORS.values() for name, setting in info.settings.items()
]


def legal(setting):
    domain = setting.legal
    return st.sampled_from(domain.options) if isinstance(domain, Choice) else st.floats(domain.low, domain.high)


policies = st.fixed_dictionaries({}, optional={site: legal(setting) for site, setting in SITES})


@given(policies)
def test_every_value_is_legal_and_between_neutral_and_itself(values):
    found = milder(Policy(values))
    assert set(found) == set(values)
    for site, setting in SITES:
        if site not in values:
            continue
        before, after = values[site], found[site]
        assert setting.legal.holds(after)
        if isinstance(before, (bool, str)):
            assert after in (before, setting.neutral) or (before, after) == ("1:4", "2:4")
        else:
            assert min(before, setting.neutral) <= after <= max(before, setting.neutral)


@given(policies)
def test_it_comes_to_rest_where_nothing_is_left(values):
    policy = Policy(values)
    for _ in range(200):
        policy = milder(policy)
    strength = {"prune_ratio": 0.0, "sparsity": 0.0, "rank_ratio": 1.0, "dropped": False, "kd_teacher": "original"}
    for site, value in policy.items():
        if site.setting in strength:
            assert abs(value - strength[site.setting]) < 1e-9 if site.setting != "kd_teacher" else value == "original"
        elif site.setting.endswith("_bits") and site.operator == "quantize":
            assert value in (8, 32)


def test_half_of_each_by_hand():
    values = {
        Site("prune", "a", "prune_ratio"): 0.6,
        Site("sparsify", "a", "sparsity"): 0.5,
        Site("sparsify", "a", "pattern"): "1:4",
        Site("sparsify", "b", "pattern"): "2:4",
        Site("sparsify", "c", "pattern"): "block_1x4",
        Site("factorize", "a", "rank_ratio"): 0.2,
        Site("quantize", "a", "weight_bits"): 3,
        Site("quantize", "a", "activation_bits"): 32,
        Site("quantize", "b", "weight_bits"): 8,
        Site("drop", "b", "dropped"): True,
        Site("prune", "a", "criterion"): "l2",
        Site("distill", "*", "kd_teacher"): "assistant",
        Site("distill", "*", "kd_alpha"): 0.5,
    }
    wanted = [0.3, 0.25, "2:4", "unstructured", "block_1x4", 0.6, 6, 32, 8, False, "l2", "original", 0.5]
    assert [milder(Policy(values))[site] for site in values] == wanted
