"""Facts of the original on their way to workers: once computed, shared, and of no influence on any result."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site
from automc.core.rules import Rule
from automc.core.space import Choice, Real
from automc.core.study import ModelSpec, Part, StudySpec
from automc.evaluation import travel
from automc.evaluation.data import Data
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.travel import pack, unpack
from automc.operators import OPERATORS

RULES = (
    Rule("prune", {"prune_ratio": Real(0.0, 0.5), "criterion": Choice(("l1", "apoz"))}),
    Rule(
        "quantize",
        {"weight_bits": Choice((4, 32)), "activation_bits": Choice((4, 8)), "granularity": Choice(("tensor",))},
    ),
    Rule("sparsify", {"sparsity": Real(0.0, 0.5), "method": Choice(("obs", "wanda"))}),
    Rule("factorize", {"rank_ratio": Real(0.2, 1.0), "data_aware": Choice((False, True)), "method": Choice(("svd",))}),
)
SPEC = StudySpec(
    name="t",
    model=ModelSpec("digits_net"),
    data=Part("digits"),
    rules=RULES,
    order=("prune", "factorize", "sparsify", "quantize", "distill"),
    objectives=(Objective("top1", "maximize"),),
)


@dataclass(frozen=True)
class Pair:
    first: Tensor
    second: tuple[Tensor, ...]


def quiet(step: int, value: float) -> bool:
    return True


@pytest.fixture
def evaluator(teacher: nn.Module, data: Data) -> NetworkEvaluator:
    return prepare(SPEC, teacher, data)


def trip(facts: Any) -> Any:
    """As Ray does it: arrays stay outside the bytes, and come back as read-only memory."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(pack(facts), protocol=5, buffer_callback=buffers.append)
    return unpack(pickle.loads(data, buffers=[memoryview(bytes(buffer.raw())) for buffer in buffers])), len(data)


def test_tensors_travel_outside_the_bytes_wherever_they_lie() -> None:
    torch.manual_seed(0)
    big, layer = torch.randn(1000, 100), nn.Linear(100, 1000)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    facts = {("a", 1): Pair(big, (big, torch.arange(5))), "layer": layer, "images": images, "none": None}
    facts |= {"half": torch.ones(3, dtype=torch.bfloat16), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    found, size = trip(facts)
    assert list(found) == list(facts)
    assert torch.equal(found["a", 1].first, big)
    assert found["a", 1].first is found["a", 1].second[0]
    assert torch.equal(found["layer"].weight, layer.weight)
    assert isinstance(found["layer"].weight, nn.Parameter)
    assert found["images"].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(found[name], facts[name]) for name in ("images", "half", "scalar", "empty"))
    assert size < 20_000 < big.nbytes


@given(st.permutations(range(4)), st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8]))
def test_values_and_their_order_in_memory_survive(order: list[int], kind: torch.dtype) -> None:
    tensor = torch.arange(120).reshape(2, 3, 4, 5).to(kind).permute(order)
    found, _ = trip({"x": tensor})
    assert torch.equal(found["x"], tensor)
    assert found["x"].dtype == kind
    assert found["x"].stride() == tensor.stride()


def test_loaded_twice_the_numbers_lie_in_memory_once() -> None:
    packed = pack({"x": torch.randn(500)})
    first, second = unpack(packed), unpack(packed)
    assert first["x"].data_ptr() == second["x"].data_ptr()
    held = packed[0][1][0]
    assert held.ctypes.data <= first["x"].data_ptr() < held.ctypes.data + held.nbytes


def test_what_is_too_large_or_does_not_pickle_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "MOST", 10_000)
    facts = {"large": torch.zeros(5000), "local": lambda: None, "small": torch.zeros(10), "text": "a"}
    assert list(unpack(pack(facts))) == ["small", "text"]


ROUNDED = {"weight_bits": 4, "activation_bits": 8, "granularity": "tensor"}
POLICIES: list[dict[str, dict[str, Any]]] = [
    {"prune": {"prune_ratio": 0.5, "criterion": "apoz"}, "quantize": ROUNDED},
    {"factorize": {"rank_ratio": 0.3, "data_aware": True, "method": "svd"}},
    {"sparsify": {"sparsity": 0.5, "method": "wanda"}, "quantize": {"activation_bits": 4}},
    {"prune": {"prune_ratio": 0.25}},
]


def policy(evaluator: NetworkEvaluator, chosen: dict[str, dict[str, Any]]) -> Policy:
    table = evaluator.table
    sites: dict[Site, Any] = {}
    for operator, settings in chosen.items():
        kinds = OPERATORS[operator].kinds
        layers = [layer.name for layer in table.layers if not kinds or layer.kind in kinds]
        targets = [group.name for group in table.groups] if operator == "prune" else layers
        sites |= {Site(operator, target, name): value for target in targets for name, value in settings.items()}
    return Policy(sites)


def passes(evaluator: NetworkEvaluator) -> list[int]:
    """Sizes of the batches that go through the original network (not its copies) from now on."""
    counted: list[int] = []
    original = evaluator._builder.original
    original.register_forward_pre_hook(lambda module, args: counted.extend([len(args[0])] * (module is original)))
    return counted


def test_a_worker_finds_what_it_needs_and_never_runs_the_calibration_inputs(evaluator: NetworkEvaluator) -> None:
    travelled: NetworkEvaluator = pickle.loads(cloudpickle.dumps(evaluator))
    memory, counted = travelled._builder.memory, passes(travelled)
    for chosen in POLICIES:
        before = set(memory)
        travelled.evaluate(policy(travelled, chosen), 0, quiet)
        assert max(counted, default=0) <= 2, chosen  # one or two inputs try something
        assert not {key for key in set(memory) - before if not _of_one_weight(key)}, chosen


def _of_one_weight(key: Any) -> bool:
    """Fitted to a weight of the original, without data."""
    return isinstance(key, tuple) and (key[0] == "factorize" or key[:2] == ("quantize", "bytes") or len(key) == 3)


def test_trials_are_the_same_warm_or_cold_here_or_there(evaluator: NetworkEvaluator, data: Data) -> None:
    warm: NetworkEvaluator = pickle.loads(cloudpickle.dumps(evaluator))
    plain = prepare(replace(SPEC, rules=()), evaluator._teacher, data)
    far: NetworkEvaluator = pickle.loads(cloudpickle.dumps(plain))
    assert len(warm._builder.memory) > len(far._builder.memory)
    for chosen in POLICIES:
        results = [each.evaluate(policy(each, chosen), 0, quiet) for each in (plain, warm, far)]
        assert results[0].metrics == results[1].metrics == results[2].metrics
        assert results[0].realized == results[1].realized == results[2].realized


def test_trials_write_into_nothing_that_travelled(evaluator: NetworkEvaluator) -> None:
    """The memory is read-only in a worker: a write would end the process."""
    evaluator._builder.warm(RULES)
    packed = pack(evaluator._builder.memory)
    before = [array.copy() for _, arrays in packed for array in arrays]
    evaluator._builder.memory = unpack(packed)
    for chosen in POLICIES:
        evaluator.evaluate(policy(evaluator, chosen), 0, quiet)
    after = [array for _, arrays in packed for array in arrays]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_nothing_is_computed_ahead_that_the_space_does_not_ask(teacher: nn.Module, data: Data) -> None:
    rules = (Rule("distill", {"kd_alpha": Choice((0.5, 0.9))}),)
    evaluator = prepare(replace(SPEC, rules=rules), teacher, data)
    counted = passes(evaluator)
    cloudpickle.dumps(evaluator)
    assert not counted
    assert not evaluator._builder.memory
