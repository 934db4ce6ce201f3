"""A search grants wishes first, whoever proposes."""

from __future__ import annotations

import pytest

from automc.app import runs
from automc.app.config import study_from
from automc.app.study import Study
from automc.core.policy import Policy, Site
from automc.core.search import Ending
from automc.stores.memory import MemoryStore


def searched(proposer: str, trials: int = 12) -> Study:
    said = {
        "name": "w",
        "model": "digits_net",
        "data": "digits",
        "space": {"rules": [{"operator": "quantize", "settings": {"weight_bits": [2, 4, 8]}}]},
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "evaluator": {"name": "synthetic", "settings": {"layers": 4}},
        "budget": {"trials": trials},
        "workers": {"count": 0},
        "proposer": proposer,
        "storage": "memory:",
    }
    return runs.start(study_from(said, "test"))


def bits(*values: int) -> Policy:
    names = ("conv0", "conv1", "conv2", "linear")
    return Policy({Site("quantize", name, "weight_bits"): value for name, value in zip(names, values, strict=True)})


@pytest.mark.parametrize("proposer", ["random", "portfolio", "nsga2", "ddpg", "evolve", "tpe", "greedy", "cluster"])
def test_a_search_grants_wishes_first_and_beyond_its_budget(proposer: str) -> None:
    study = searched(proposer)
    assert isinstance(study.store, MemoryStore)
    study.store.wish("w", bits(2, 8, 4, 2), 0)
    study.store.wish("w", bits(3, 8, 4, 2), 0)  # of no space of this study
    assert study.run() is Ending.DONE
    records = study.records()
    assert (len(records), records[0].policy) == (12, bits(2, 8, 4, 2))
    assert all(trial.state.finished for trial in records)
    study.store.wish("w", bits(8, 8, 2, 4), 0)
    assert study.run() is Ending.DONE
    assert (len(study.records()), study.records()[12].policy) == (13, bits(8, 8, 2, 4))
    assert study.records()[12].state.finished
    assert [wish.policy for wish in study.store.wishes("w")] == [bits(3, 8, 4, 2)], "it waits for such a space"
