"""Every operator on every family of networks: what a cell of the matrix tries, and the matrix as Markdown."""

from __future__ import annotations

import copy
from functools import cache
from itertools import combinations

import safetensors.torch
import torch
from families import FAMILIES
from torch import Tensor, nn

from automc.core.policy import Policy, Site, Value
from automc.errors import CompressionError
from automc.operators import OPERATORS, ORDER
from automc.operators.base import Answer, Compression, compress
from automc.operators.canonical import canonical
from automc.operators.distillation.features import watched
from automc.operators.layers import trace
from automc.operators.outputs import tensors_of

SETTINGS: dict[str, dict[str, Value]] = {
    "drop": {"dropped": True},
    "prune": {"prune_ratio": 0.5},
    "factorize": {"rank_ratio": 0.25},
    "sparsify": {"sparsity": 0.5},
    "quantize": {"weight_bits": 4, "activation_bits": 8},
    "distill": {"kd_alpha": 0.5, "kd_features": "hint"},
}
PAIRED = ("resnet_b", "bert", "lstm")
SINGLES = [((operator,), family) for family in FAMILIES for operator in ORDER]
PAIRS = [(pair, family) for family in PAIRED for pair in combinations(ORDER, 2)]
NO_SITE = "no site"


@cache
def original(family: str) -> Compression:
    """The family's network, ready to be compressed; nobody changes it."""
    model, inputs = FAMILIES[family]()
    model = canonical(model)
    return Compression(model, model, trace(model, inputs), inputs)


def sites(state: Compression, operator: str) -> list[str]:
    """Everything an operator can be applied to; of several blocks every second, so that some stay."""
    info, table = OPERATORS[operator], state.trace.table
    if info.scope == "network":
        return ["*"]
    if info.scope == "group":
        return [group.name for group in table.groups]
    if info.scope == "block":
        return [block.name for block in table.blocks][::2]
    return [layer.name for layer in table.layers if not info.kinds or layer.kind in info.kinds]


def tried(operators: tuple[str, ...], family: str) -> str:
    """What comes of applying these operators everywhere: "" when all goes well, else why it cannot be.

    Raises:
        AssertionError: it was applied and does not work.
    """
    state = original(family)
    named = {operator: sites(state, operator) for operator in operators}
    if not all(named.values()):
        return NO_SITE
    policy = Policy(
        {
            Site(operator, target, setting): value
            for operator, targets in named.items()
            for target in targets
            for setting, value in SETTINGS[operator].items()
        }
    )
    try:
        after = compress(state, policy, ORDER)
    except CompressionError as error:
        return str(error)
    _applied(state, after, operators)
    _trains(after)
    _reloads(after, compress(state, policy, ORDER))
    return ""


def outputs(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [tensor.clone() for tensor in tensors_of(model.eval()(inputs))]


def _applied(before: Compression, after: Compression, operators: tuple[str, ...]) -> None:
    """The outputs keep their shapes and change, and with distillation there is something to learn."""
    assert before.calibration is not None
    old, new = outputs(before.model, before.calibration), outputs(after.model, before.calibration)
    assert [tensor.shape for tensor in old] == [tensor.shape for tensor in new]
    assert all(bool(tensor.isfinite().all()) for tensor in new)
    changed = any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert changed == any(operator != "distill" for operator in operators)
    assert bool(after.losses) == ("distill" in operators)


def _trains(state: Compression) -> None:
    """One step of gradient descent on the squared outputs and the terms of distillation, in train mode."""
    model, inputs = state.model.train(), state.calibration
    torch.manual_seed(0)  # dropout
    paths = dict.fromkeys(path for term in state.losses for path in term.layers)
    with watched(model, paths) as ours, watched(state.teacher, paths) as theirs:
        found = tensors_of(model(inputs))
        with torch.no_grad():
            wanted = tensors_of(state.teacher(inputs))
    loss = sum((tensor.square().sum() for tensor in found), torch.zeros(()))
    for student, teacher in zip(found, wanted, strict=True):
        answers = Answer(student, ours), Answer(teacher, theirs)
        for term in state.losses:
            loss = term.keeps * loss + term.start(*answers)(*answers)
    loss.backward()
    moved = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert bool(parameter.grad.isfinite().all()), name
                moved += int(bool(parameter.grad.any()))
                parameter -= 0.01 / (1 + parameter.grad.abs().max()) * parameter.grad
    assert moved, "no parameter learns"


def _reloads(trained: Compression, fresh: Compression) -> None:
    """What was trained and saved, loaded into a network compressed anew, answers alike."""
    inputs = trained.calibration
    assert inputs is not None
    wanted = outputs(trained.model, inputs)
    saved = safetensors.torch.save(
        {name: tensor.clone().contiguous() for name, tensor in trained.model.state_dict().items()}
    )
    before = copy.deepcopy(fresh.model)
    fresh.model.load_state_dict(safetensors.torch.load(saved), strict=True)
    found = outputs(fresh.model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(wanted, outputs(before, inputs), strict=True))


def markdown(unsupported: dict[tuple[tuple[str, ...], str], tuple[str, str]]) -> str:
    """The matrix as two tables: operators by families, and pairs of operators on three of them."""
    reasons = list(dict.fromkeys(reason for _, reason in unsupported.values()))

    def cell(operators: tuple[str, ...], family: str) -> str:
        found = unsupported.get((operators, family))
        return "yes" if found is None else f"no ({reasons.index(found[1]) + 1})"

    lines = [f"| family | {' | '.join(ORDER)} |", "|---" * (len(ORDER) + 1) + "|"]
    lines += [f"| {f} | {' | '.join(cell((o,), f) for o in ORDER)} |" for f in FAMILIES]
    lines += ["", f"| pair | {' | '.join(PAIRED)} |", "|---" * (len(PAIRED) + 1) + "|"]
    lines += [f"| {' + '.join(p)} | {' | '.join(cell(p, f) for f in PAIRED)} |" for p in combinations(ORDER, 2)]
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    return "\n".join(lines) + "\n"
