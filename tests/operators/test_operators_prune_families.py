"""Every criterion on every family of network: scores for every group, or a typed error that names another criterion."""

import pytest
import sklearn.linear_model  # noqa: F401 - seconds to import, which are not lasso's
import torch
from families import FAMILIES

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators.base import Compression, compress
from automc.operators.criteria import CRITERIA, scores
from automc.operators.layers import trace

ALWAYS = ("l1", "l2", "fpgm", "taylor", "fisher", "thinet", "lasso", "random")


@pytest.fixture(scope="module", params=FAMILIES)
def state(request):
    model, inputs = FAMILIES[request.param]()
    return Compression(model, model, trace(model, inputs), inputs)


def answer(state, plan, criterion):
    """The scores, or why there are none."""
    try:
        return scores(state, plan, criterion)
    except CompressionError as error:
        return str(error)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_for_every_group_or_a_way_out(state, criterion):
    if criterion.startswith("nni"):
        pytest.importorskip("nni", exc_type=ImportError)
    assert state.trace.plans
    for plan in state.trace.plans.values():
        found = answer(state, plan, criterion)
        if isinstance(found, str):
            assert criterion not in ALWAYS
            assert found.startswith(f"prune({plan.name}).criterion = {criterion!r}: ")
            assert "choose" in found
        else:
            assert (found.shape, found.dtype) == ((plan.channels,), torch.float64)
            assert found.unique().numel() > 1


@pytest.mark.parametrize("criterion", ["taylor", "thinet"])
def test_the_pruned_network_still_runs(state, criterion):
    chosen = {"prune_ratio": 0.4, "criterion": criterion, "channel_multiple": 2}
    policy = Policy({Site("prune", name, s): v for name in state.trace.plans for s, v in chosen.items()})
    after = compress(state, policy, ("prune",))
    for name, plan in state.trace.plans.items():
        kept = after.realized[name]["channels"]
        assert kept >= 0.6 * plan.channels
        assert kept % 2 == 0 or kept == plan.channels
    assert sum(p.numel() for p in after.model.parameters()) < sum(p.numel() for p in state.model.parameters())
