"""Decisions that are no numbers: blocks that are dropped or not, and the order of the operators."""

import pytest
from test_proposer_contract import NARROW, QUICK, SINGLE

from automc.app.catalog import PROPOSERS, build
from automc.core.layers import Block, Layer, LayerTable
from automc.core.metrics import Measurement, Objective
from automc.core.order import SITE
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, SearchSpace
from automc.core.study import Part
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.operators import OPERATORS
from automc.proposers.uniform import UniformProposer

ORDERS = (("drop", "quantize"), ("quantize", "drop"))
OBJECTIVES = (Objective("top1"), Objective("size_bytes"))


def space(blocks: int, bits: bool = True) -> SearchSpace:
    names = [f"body.{i}" for i in range(blocks)]
    layers = tuple(Layer(f"{n}.a", i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 580, 9216) for i, n in enumerate(names))
    table = LayerTable(layers, (), (8, 4, 4), blocks=tuple(Block(n, (f"{n}.a",), 580, 9216) for n in names))
    rules = [Rule("drop", {"dropped": Choice((False, True))})]
    rules += [Rule("quantize", {"weight_bits": Choice((2, 4, 8))})] if bits else []
    return resolve(rules, ORDERS[0], table, OPERATORS, ORDERS if bits else ())


SPACE = space(5)


def measured(number: int, proposal) -> Trial:
    """Odd blocks are worthless, the others worth much; the second order is better by a constant."""
    gone = {layer: of["dropped"] for layer, of in proposal.policy.settings("drop").items()}
    lost = sum(0.15 for layer, dropped in gone.items() if dropped and int(layer[-1]) % 2 == 0)
    top1 = 0.8 - lost + (0.1 if proposal.policy[SITE] == "quantize drop" else 0.0)
    metrics = {"top1": top1, "size_bytes": 1000.0 - 150 * sum(gone.values())}
    return Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, Measurement(metrics), attempts=1)


def history(name: str, count: int) -> list[Trial]:
    objectives = OBJECTIVES[:1] if name in SINGLE else OBJECTIVES
    asked, trials = build(PROPOSERS, "proposer", Part(name, QUICK.get(name, {})), SPACE, objectives, (), 0), []
    for number in range(count):
        trials.append(measured(number, asked.ask(range(number, number + 1))[0]))
        asked.tell(trials[-1:])
    return trials


@pytest.mark.parametrize("name", PROPOSERS)
def test_every_proposer_gives_true_false_and_orders(name):
    if name == "nni":
        pytest.importorskip("nni", reason="nni is not installed: pip install 'automc[nni]'")
    if name in NARROW:
        with pytest.raises(SpecError, match="the space also has drop"):
            history(name, 1)
        return
    trials = history(name, 40)
    for trial in trials:
        assert SPACE.policy(trial.policy) == trial.policy
        assert {type(of["dropped"]) for of in trial.policy.settings("drop").values()} == {bool}
    assert {trial.policy[SITE] for trial in trials} == {"drop quantize", "quantize drop"}


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_samplers_learn_the_better_order_and_the_worthless_blocks(name):
    """Against the half that chance gives: of 60 draws, 42 or more have probability below 0.002."""
    late = history(name, 140)[80:]
    assert sum(trial.policy[SITE] == "quantize drop" for trial in late) >= 42
    odd = [trial.policy.settings("drop")[f"body.{i}"]["dropped"] for trial in late for i in (1, 3)]
    assert sum(odd) >= 72, "of 120 draws; by chance below 0.02"


def test_the_uniform_grid_drops_a_share_of_the_blocks_evenly_spread():
    def dropped(blocks: int) -> list[list[int]]:
        grid = UniformProposer(space(blocks, bits=False), OBJECTIVES, (), 0)
        policies = [grid.policy(i).settings("drop") for i in range(grid.total)]
        return [[i for i in range(blocks) if policy[f"body.{i}"]["dropped"]] for policy in policies]

    assert dropped(1) == [[], [0]]
    assert dropped(3) == [[], [2], [1, 2]]
    assert [len(chosen) for chosen in dropped(9)] == [0, 2, 4, 6, 8]
    assert dropped(9)[2] == [2, 4, 6, 8]


def test_the_uniform_grid_of_a_joint_space_has_every_combination_once():
    grid = UniformProposer(SPACE, OBJECTIVES, (), 0)
    assert grid.total == 5 * 3 * 2
    assert len({grid.policy(i) for i in range(grid.total)}) == grid.total
    assert len({p.policy for p in grid.ask(range(grid.total))}) == grid.total
