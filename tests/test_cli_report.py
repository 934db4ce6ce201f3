"""Policies by layer, and proofs, as people see them."""

from dataclasses import replace

from automc.app.proof_report import proof_text
from automc.app.report import policy_rows, trial_columns, trial_text
from automc.core.interleave import Ratio, Timing
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.trial import Trial, TrialState
from automc.export.proof.alone import Alone
from automc.export.proof.judged import Likeness
from automc.export.proof.proving import Proof
from automc.export.proof.racing import Race


def layer(name: str, index: int) -> Layer:
    return Layer(name, index, "conv", 8, 8, (3, 3), (1, 1), (8, 8, 8), 576, 36864)


TABLE = LayerTable(
    layers=(layer("stem", 0), layer("mid", 1), layer("tail", 2)),
    groups=(Group("stem", 8, ("stem", "tail"), ("mid",)),),
    input_shape=(1, 8, 8),
)
POLICY = Policy(
    {
        Site("prune", "stem", "prune_ratio"): 0.3,
        Site("quantize", "stem", "weight_bits"): 4,
        Site("quantize", "mid", "weight_bits"): 3,
        Site("quantize", "tail", "weight_bits"): 8,
        Site("distill", "*", "kd_alpha"): 0.5,
    }
)
REALIZED = {
    "stem": {"prune_ratio": 0.25, "channels": 6, "weight_bits": 4},
    "mid": {"weight_bits": 3},
    "tail": {"weight_bits": 8},
}
TRIAL = Trial(17, POLICY, state=TrialState.COMPLETE, measurement=Measurement({"top1": 0.9}, REALIZED, seconds=1.0))


def test_a_group_speaks_for_its_producers_and_a_layer_for_itself() -> None:
    stem, mid, tail = policy_rows(TRIAL, TABLE)
    # Tail is pruned with its group, but its bits are its own, though the group bears the stem's name.
    assert stem == {
        "layer": "stem",
        "kind": "conv",
        "group": "stem",
        "prune_ratio": 0.3,
        "weight_bits": 4,
        "real prune_ratio": 0.25,
        "real channels": 6,
    }
    assert tail == stem | {"layer": "tail", "weight_bits": 8}
    assert mid["prune_ratio"] is mid["real channels"] is None
    assert mid["weight_bits"] == 3


def test_settings_of_the_whole_network_have_lines_of_their_own() -> None:
    said = trial_text(TRIAL, TABLE, {"top1": 0.95})
    assert "distill kd_alpha  0.5" in said
    assert "top1    0.9000    0.9500" in said


def test_columns_follow_the_study_and_the_question() -> None:
    spec = StudySpec(
        name="demo",
        model=ModelSpec("digits_net"),
        data=Part("digits"),
        rules=(),
        order=(),
        objectives=(Objective("top1"),),
        constraints=(Constraint.parse("macs_ratio <= 0.5"),),
    )
    known = ["number", "state", "top1", "macs_ratio", "loss", "params", "fingerprint"]
    assert trial_columns(spec, known) == ["number", "state", "top1", "macs_ratio", "fingerprint"]
    asked = trial_columns(spec, known, "loss < 3 -size_bytes")
    assert asked == ["number", "state", "top1", "macs_ratio", "loss", "fingerprint"]
    more = [*known, "top1_error", "loss_error", "samples"]
    assert trial_columns(spec, more) == ["number", "state", "top1", "top1_error", "macs_ratio", "fingerprint"]
    wanted = ["top1", "top1_error", "macs_ratio", "loss", "loss_error", "samples", "fingerprint"]
    assert trial_columns(spec, more, "loss < 3 -samples")[2:] == wanted


def test_errors_stand_beside_the_task_s_metrics_with_the_number_of_inputs() -> None:
    metrics = {"latency_ms": 0.25, "macs": 1000.0, "top1": 0.9}
    found = Measurement(metrics, seconds=1.0, errors={"top1": 0.003, "latency_ms": 0.0125}, samples=10_000)
    said = trial_text(replace(TRIAL, measurement=found), TABLE, {"top1": 0.95, "macs": 2000.0}).splitlines()
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in said if line}
    assert lines["top1"] == "0.9000 ± 0.0030 (10,000 inputs) 0.9500"
    assert lines["macs"] == "1,000 2,000"
    assert lines["latency_ms"] == "0.250 ± 0.013 -" or lines["latency_ms"] == "0.250 ± 0.012 -"


def test_a_proof_shows_the_original_beside_and_every_broken_promise() -> None:
    proof = Proof(
        passed=True,
        reasons=(),
        scores={"top1": 0.96, "agreement": 0.98},
        baseline_scores={"top1": 0.97, "agreement": 1.0},
        size_bytes=1000,
        baseline_bytes=8000,
        races=(Race(1, Timing(0.2, 0.1, 0.3), Timing(0.4, 0.3, 0.5), Ratio(0.5, 0.45, 0.55)),),
        compared=3,
        merged=(),
        errors={"top1": 0.01},
        samples=300,
        networks={
            "onnx": Alone(3.0, 10**6, 3 * 10**6, Likeness(300, 0.99, 0.5, 0.1, 0.001)),
            "lite": Alone(missing="x"),
        },
    )
    said = proof_text(proof).splitlines()
    assert said[0].split() == ["metric", "exported", "original", "ratio"]
    assert said[2].split() == ["top1", "0.9600", "0.9700", "0.990"]
    assert said[3].split() == ["size_bytes", "1,000", "8,000", "0.125"]
    assert said[4].split() == ["latency_ms", "0.200", "0.400", "0.500"]
    assert said[5].split() == ["agreement", "0.9800", "-", "-"]
    assert said[7:] == [
        "top1 ± 0.0100 on 300 test inputs",
        "latency of 1 input: 0.200 ms (quartiles 0.100 to 0.300), 0.500 of the original's (95%: 0.450 to 0.550)",
        "onnx: loads in 3 ms, 2.0 MB; 99.00% of the answers of the searched network, outputs at most 0.5 off",
        "lite: not run, x is not installed",
        "",
        "proved: every promise holds",
    ]
    broken = proof_text(replace(proof, passed=False, reasons=("top1: promised 1", "size: 2"), size_bytes=None))
    assert broken.splitlines()[-2:] == ["NOT KEPT: top1: promised 1", "NOT KEPT: size: 2"]
    assert broken.splitlines()[3].split() == ["size_bytes", "-", "8,000", "-"]
