"""What check says of proposers and spaces before anything is paid for, and what it refuses about them."""

from pathlib import Path

import pytest

from automc.app import runs
from automc.app.config import read_study
from automc.core.metrics import Objective
from automc.core.rules import Rule, resolve
from automc.core.space import Real
from automc.errors import SpecError
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.members import member

HEAD = "model: digits_net\ndata: digits\nspace: joint\nobjectives: {top1: maximize}\nworkers: {count: 0}\n"
BOUND = "constraints: bops_ratio <= 0.2\n"


@pytest.fixture
def checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ask(text: str) -> runs.Checked:
        Path("s.yaml").write_text(text)
        return runs.check(read_study(Path("s.yaml")))

    return ask


@pytest.fixture
def refused(checked):
    def ask(text: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            checked(text)
        return str(caught.value).splitlines()

    return ask


@pytest.fixture
def remarks(checked):
    def ask(space: str, objectives: str, proposer: str, more: str = "") -> tuple[str, ...]:
        text = f"model: digits_net\ndata: digits\nspace: {space}\nobjectives: {objectives}\nproposer: {proposer}\n"
        return tuple(checked(text + "workers: {count: 0}\nevaluator: synthetic\n" + more).remarks)

    return ask


def test_a_study_with_the_name_of_a_space_is_no_space(refused, tmp_path):
    (tmp_path / "joint.yaml").write_text(HEAD)
    (line,) = refused(HEAD)
    assert line == (
        "s.yaml:3: space: joint.yaml is a study, not a search space, and hides the bundled space 'joint': rename it"
    )


def test_bits_that_haq_could_not_keep_to_are_refused(refused):
    head = HEAD.replace("joint", "bits") + BOUND + "evaluator: synthetic\n"
    (line,) = refused(head + "proposer: {name: haq, settings: {low: 9, high: 12}}\n")
    assert line.startswith("s.yaml:8: proposer.settings.high: haq: quantize(")
    assert "has no value from 9 to 12 bits (it has: 2, 3, 4, 5, 6, 8)" in line


def test_check_says_which_members_take_part(remarks):
    (line,) = remarks(
        "bits",
        "{top1: maximize}",
        "{name: portfolio, settings: {members: [haq, amc]}}",
        "constraints: bops_ratio <= 0.2",
    )
    assert line.startswith("portfolio: members are haq; left out: amc (decides prune_ratio only, ")


def test_check_says_what_no_decision_can_change(remarks):
    assert remarks("bits", "{top1: maximize, macs: minimize}", "random")[0].startswith("objective macs cannot change")
    assert remarks("bits", "{top1: maximize, bops: minimize}", "random") == ()


def test_check_says_what_is_aimed_at_in_the_place_of_a_latency():
    spec = (Objective("top1"), Objective("latency_ms"))
    table = SyntheticEvaluator(SyntheticSettings()).table
    space = resolve([Rule("prune", {"prune_ratio": Real(0.0, 0.8)})], ORDER, table, OPERATORS)
    for name in ("allocate", "ddpg", "greedy", "amc", "portfolio"):
        assert "levels of bops_ratio, because latency_ms is known only" in member(name, space, spec, (), 0).remarks[-1]


def test_haq_says_when_the_ends_are_above_high(remarks):
    bits = "{rules: [{operator: quantize, settings: {weight_bits: [2, 4, 8]}}]}"
    found = [
        remarks(
            bits,
            "{top1: maximize}",
            f"{{name: haq, settings: {{high: 4, ends: {ends}}}}}",
            "constraints: bops_ratio <= 0.2",
        )
        for ends in (0, 8)
    ]
    assert found == [(), ("haq: the first and the last layer have 8 bits, as 'ends' says, which is above 'high' 4",)]


def test_check_says_which_values_bring_no_speed_in_the_runtime_of_the_space(remarks):
    aims = "{top1: maximize, size_bytes: minimize}"
    assert remarks("bits", aims, "random") == ()
    found = remarks(WHOLE, aims, "random")
    assert found == (
        "onnxruntime-cpu: quantize.weight_bits 2, 4 on 8 layers run on the kernels of 8 bits, and only where "
        "activation_bits are 8 or less: smaller, no faster",
        "onnxruntime-cpu: sparsify.sparsity 0.5 on 2 layers are multiplied like any other number: smaller, no faster",
    )
    assert remarks(WHOLE.replace("onnxruntime-cpu", "torch-cpu"), aims, "random")[0].startswith(
        "torch-cpu: quantize.weight_bits 2, 4, 8 on 8 layers run in floats"
    )


WHOLE = (
    "{runtime: onnxruntime-cpu, rules: ["
    "{operator: quantize, settings: {weight_bits: [2, 4, 8, 32], activation_bits: 8}},"
    " {operator: sparsify, index: [0, 1], settings: {sparsity: [0.0, 0.5]}}]}"
)


def test_a_latency_that_the_runtime_of_the_space_does_not_have_is_refused(refused):
    head = HEAD.replace("joint", WHOLE.replace("onnxruntime", "torch")).replace(
        "top1: maximize", "latency_ms: minimize"
    )
    (line,) = refused(head + "constraints: size_ratio <= 0.5\n")
    assert line == (
        "s.yaml:4: objectives: latency_ms is not measured in torch-cpu, the runtime of the space "
        "(those measured there: latency_torch_ms)"
    )
    (line,) = refused(HEAD.replace("joint", WHOLE.replace("onnxruntime-cpu", "onnxruntime")))
    assert "space.runtime: unknown runtime 'onnxruntime'" in line
