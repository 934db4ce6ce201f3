"""Valid study files, overrides, and the check of a space against a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from automc.app.config import StudyFile, check_space, read_study
from automc.app.domains import describe
from automc.app.paths import bundled_folder, bundled_spaces
from automc.app.template import TEMPLATE
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import METRICS, Constraint, Objective
from automc.core.policy import Site
from automc.core.rules import Rule
from automc.core.space import Choice, Real
from automc.core.study import Budget, ModelSpec, Part, Rung, StudySpec, Workers
from automc.errors import SpecError
from automc.evaluation.tasks import TASK_METRICS, TASKS
from automc.operators import OPERATORS, ORDER

SMALL = """\
model: digits_net
data: digits
space: joint
objectives: {top1: maximize}
"""

FULL = """\
name: full.study-1
model:
  name: net.py:build
  settings: {depth: 20, widths: [16, 32], note: "yes", no: no}
  weights: w.safetensors
data: {name: npz, settings: {path: d.npz, calibration: 128}}
space:
  order: [quantize, prune]
  rules:
    - operator: prune
      kind: [conv, linear]
      except: [stem, "head*"]
      settings: {prune_ratio: {low: 0, high: 0.5, step: 0.25}, criterion: l2}
    - operator: quantize
      layers: body.*
      index: -1
      settings: {weight_bits: {low: 3, high: 6}, activation_bits: 8}
objectives: {top1: null, size_bytes: minimize}
constraints: ["macs_ratio <= 0.5", top1 >= 0.9]
proposer: {name: nsga2, settings: {population: 10}}
stopper: median
evaluator: synthetic
rungs: [{steps: 0}, {steps: 1_0, cpus: 2}, {steps: 20, share: 1, gpus: 0.25, resources: {"device:pi4": 1}}]
budget: {trials: 7, seconds: 90}
workers: {count: 3, address: "10.0.0.1:6379", window: 6, timeout_s: 12.5, memory_mb: 900, retries: 1}
storage: runs/db.sqlite
seed: 0x10
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the files that FULL names."""
    for name in ("net.py", "w.safetensors", "d.npz"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, path: str = "study.yaml") -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def layer(index: int, name: str, kind: str = "conv", group: str = "") -> Layer:
    return Layer(name, index, kind, 8, 8, (3, 3), (1, 1), (8, 4, 4), 576, 9216, group)


TABLE = LayerTable(
    layers=(
        layer(0, "stem", group="stem"),
        layer(1, "body.0", group="body.0"),
        layer(2, "body.1", "depthwise", group="body.0"),
        layer(3, "head", "linear"),
    ),
    groups=(Group("stem", 8, ("stem",), ("body.0",)), Group("body.0", 8, ("body.0", "body.1"), ("head",))),
    input_shape=(1, 8, 8),
)


def test_the_smallest_study_takes_the_defaults_of_core(folder: Path) -> None:
    study = read_study(write(SMALL, "digits-joint.yaml"))
    plain = StudySpec(
        name="digits-joint",
        model=ModelSpec("digits_net"),
        data=Part("digits"),
        rules=study.spec.rules,
        order=("prune", "quantize"),
        objectives=(Objective("top1", "maximize"),),
    )
    assert study.spec == plain
    assert study.storage == "sqlite:///automc.db"
    assert study.path == Path("digits-joint.yaml")


def test_every_key_arrives(folder: Path) -> None:
    study = read_study(write(FULL.replace("1_0", "10")))
    prune = {"prune_ratio": Real(0.0, 0.5, 0.25), "criterion": Choice(("l2",))}
    bits = {"weight_bits": Choice((3, 4, 5, 6)), "activation_bits": Choice((8,))}
    assert study.spec == StudySpec(
        name="full.study-1",
        model=ModelSpec("net.py:build", {"depth": 20, "widths": [16, 32], "note": "yes", "no": "no"}, "w.safetensors"),
        data=Part("npz", {"path": "d.npz", "calibration": 128}),
        rules=(
            Rule("prune", prune, ("*",), ("stem", "head*"), ("conv", "linear"), ()),
            Rule("quantize", bits, ("body.*",), (), (), (-1,)),
        ),
        order=("quantize", "prune"),
        objectives=(Objective("top1", "maximize"), Objective("size_bytes", "minimize")),
        constraints=(Constraint("macs_ratio", "<=", 0.5), Constraint("top1", ">=", 0.9)),
        proposer=Part("nsga2", {"population": 10}),
        stopper=Part("median"),
        evaluator=Part("synthetic"),
        rungs=(Rung(0), Rung(10, cpus=2.0), Rung(20, 1.0, gpus=0.25, resources={"device:pi4": 1.0})),
        budget=Budget(7, 90.0),
        workers=Workers(3, "10.0.0.1:6379", 6, 12.5, 900, 1),
        seed=16,
    )
    assert study.storage == "runs/db.sqlite"
    assert StudySpec.from_data(json.loads(json.dumps(study.spec.to_data()))) == study.spec


def test_numbers_are_those_of_yaml_1_2(folder: Path) -> None:
    # 1_0 was a number in YAML 1.1 and is text in 1.2.
    with pytest.raises(SpecError, match=r"rungs\[1\]\.steps: '1_0' is not allowed \(allowed: a whole number"):
        read_study(write(FULL))


def test_settings_left_out_are_the_suggested_ones(folder: Path) -> None:
    space = "{rules: [{operator: prune}, {operator: quantize, settings: {weight_bits: null}}]}"
    rules = read_study(write(SMALL.replace("joint", space))).spec.rules
    assert dict(rules[0].settings) == {"prune_ratio": OPERATORS["prune"].settings["prune_ratio"].suggested}
    assert dict(rules[1].settings) == {"weight_bits": OPERATORS["quantize"].settings["weight_bits"].suggested}


def test_a_list_for_a_real_setting_is_a_choice_of_floats(folder: Path) -> None:
    space = "{rules: [{operator: prune, settings: {prune_ratio: [0.5, 0]}}]}"
    domain = read_study(write(SMALL.replace("joint", space))).spec.rules[0].settings["prune_ratio"]
    assert domain == Choice((0.0, 0.5))
    assert [type(value) for value in domain.values(2)] == [float, float]


def test_a_range_of_bits_keeps_the_steps(folder: Path) -> None:
    space = "{rules: [{operator: quantize, settings: {weight_bits: {low: 2, high: 32, step: 2}}}]}"
    domain = read_study(write(SMALL.replace("joint", space))).spec.rules[0].settings["weight_bits"]
    assert domain == Choice((2, 4, 6, 8, 32))


def test_anchors_and_aliases_are_plain_yaml(folder: Path) -> None:
    rules = "rules: [{operator: quantize, settings: &s {weight_bits: [2, 4]}}, {operator: quantize, settings: *s}]"
    spec = read_study(write(SMALL.replace("joint", f"{{{rules}}}"))).spec
    assert spec.rules[0].settings == spec.rules[1].settings == {"weight_bits": Choice((2, 4))}


def test_windows_line_ends_and_a_byte_order_mark_are_read(folder: Path) -> None:
    Path("study.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert read_study(Path("study.yaml")).spec.model == ModelSpec("digits_net")


def test_paths_are_seen_from_the_study_and_then_from_here(folder: Path) -> None:
    text = SMALL.replace("digits_net", "{name: net.py:build, weights: w.safetensors}")
    here = read_study(write(text, "deep/er/study.yaml")).spec.model
    assert here == ModelSpec("net.py:build", {}, "w.safetensors")
    write("", "deep/er/net.py")
    write("", "deep/w.safetensors")
    beside = read_study(write(text.replace("w.saf", "../w.saf"), "deep/er/study.yaml")).spec.model
    assert (beside.name, beside.weights) == ("deep/er/net.py:build", "deep/w.safetensors")


def test_a_space_beside_the_study_comes_before_a_bundled_one(folder: Path) -> None:
    path = write(SMALL)
    assert len(read_study(path).spec.rules) == 3
    write("rules: [{operator: prune}]\n", "joint.yaml")
    assert [rule.operator for rule in read_study(path).spec.rules] == ["prune"]


def test_a_study_is_not_its_own_space(folder: Path) -> None:
    assert len(read_study(write(SMALL, "joint.yaml")).spec.rules) == 3


def test_a_space_may_be_a_path(folder: Path) -> None:
    write("rules: [{operator: prune}]\n", "spaces/own.yml")
    spec = read_study(write(SMALL.replace("joint", "../spaces/own.yml"), "studies/study.yaml")).spec
    assert spec.order == ORDER


def test_overrides_apply_in_order_and_before_the_check(folder: Path) -> None:
    broken = write(SMALL + "seed: -1\nbudget:\n")
    settings = [
        "seed=3",
        "budget.trials=10",
        "budget.seconds=1.5",
        "proposer=nsga2",
        "proposer.settings.population=7",
        "model.settings.depth=20",
        "rungs=[{steps: 0}, {steps: 5}]",
        "rungs[-1].share=0.5",
        "objectives.size_bytes=",
        "constraints=macs_ratio <= 0.5",
        "space=prune",
        "space.rules[0].settings.prune_ratio.high=0.4",
        'name="17"',
    ]
    spec = read_study(broken, settings).spec
    assert (spec.seed, spec.budget, spec.proposer) == (3, Budget(10, 1.5), Part("nsga2", {"population": 7}))
    assert spec.model == ModelSpec("digits_net", {"depth": 20})
    assert spec.rungs == (Rung(0), Rung(5, 0.5))
    assert spec.objectives == (Objective("top1"), Objective("size_bytes"))
    assert spec.constraints == (Constraint("macs_ratio", "<=", 0.5),)
    assert spec.rules[0].settings["prune_ratio"] == Real(0.0, 0.4, 0.1)
    assert spec.name == "17"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("budget.trails=1", "budget: unknown key 'trails' (allowed: trials, seconds), did you mean 'trials'?"),
        ("bugdet.trials=1", "unknown key 'bugdet' (allowed: "),
        ("budget.trials=0", "budget.trials: 0 is not allowed (allowed: a whole number from 1 to 10000000)"),
        ("budget.trials", "must read key=value, as in --set budget.trials=10"),
        ("=1", "must read key=value"),
        ("budget..trials=1", "'budget..trials' is no key path"),
        ("[0]=1", "'[0]' is no key path"),
        ("seed=[", "not YAML: "),
        ("seed=!!python/name:os.system x", "tag !!python/name:os.system is refused"),
        ("seed.x=1", "seed is 0 and has no x"),
        ("rungs[2].steps=1", "rungs has 1 items, so there is no rungs[2]"),
        ("rungs.steps=1", "rungs is a list and has no steps"),
        ("objectives[0]=top1", "objectives is a mapping and has no [0]"),
        ("space=jiont", "space: no search space 'jiont'"),
        ("space.rules[9].operator=prune", "rules has 3 items, so there is no rules[9]"),
        (
            "space.rules[0].settings.prune_ratio.high=2",
            "rules[0].settings.prune_ratio.high: 2 is not allowed (allowed: a number from 0 to 0.99)",
        ),
        (
            "space.rules[0].settings.prune_ratio.low=0.7",
            "rules[0].settings.prune_ratio: a range needs finite low <= high, not low 0.7, high 0.6",
        ),
        ("workers.window=1", "workers.window: window 1 is below count 2"),
        (
            "workers.count=many",
            "workers.count: 'many' is not allowed (allowed: a whole number from 0 to 1",
        ),
        ("workers={count: 0, memory_mb: 9}", "workers.memory_mb: is enforced by killing the process that evaluates"),
        ("rungs[0].gpus=1.5", "a share of one GPU, or a whole number of them), did you mean 2?"),
        ("rungs[0].resources={CPU: 1}", "rungs[0].resources.CPU: CPU has a key of its own: write cpus"),
        ("rungs[0].resources={memory: 1}", "the memory of a trial is limited by workers.memory_mb"),
        ("rungs[0].resources=pi4", "must be a mapping of Ray resource to amount, as in {'device:pi4': 1}, not "),
        ("rungs[0].resources={pi4: 0}", "rungs[0].resources.pi4: 0 is not allowed (allowed: a number above 0"),
    ],
)
def test_a_bad_override_is_named_as_the_place(setting: str, message: str, folder: Path) -> None:
    path = write(SMALL + "seed: 0\nrungs: [{steps: 0}]\nworkers: {count: 2}\n")
    with pytest.raises(SpecError) as caught:
        read_study(path, [setting])
    line = str(caught.value)
    assert line.startswith(f"--set {setting}: ")
    assert message in line
    assert "\n" not in line


def test_an_override_below_a_space_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:3: space: no search space 'jiont'.* did you mean 'joint'\?$"):
        read_study(write(SMALL.replace("joint", "jiont")), ["space.order=[prune]"])


def test_the_file_stem_must_serve_as_a_name(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"name is missing, and the file name 'my study' cannot serve"):
        read_study(write(SMALL, "my study.yaml"))
    with pytest.raises(SpecError, match=r"name is missing, and the file name 'my study' cannot serve"):
        read_study(Path("my study.yaml"), ["name="])
    assert read_study(Path("my study.yaml"), ["name=mine"]).spec.name == "mine"


def lined(text: str) -> StudyFile:
    return read_study(write(text))


def test_check_space_resolves_the_rules(folder: Path) -> None:
    space = check_space(lined(SMALL), TABLE)
    sites = {decision.site: decision.domain for decision in space.decisions}
    assert sites == {
        Site("prune", "stem", "prune_ratio"): Real(0.0, 0.6, 0.1),
        Site("prune", "body.0", "prune_ratio"): Real(0.0, 0.6, 0.1),
        **{Site("quantize", name, "weight_bits"): Choice((3, 4, 5, 6, 8)) for name in ("body.0", "body.1")},
        **{Site("quantize", name, "activation_bits"): Choice((4, 6, 8)) for name in ("body.0", "body.1")},
    }
    assert space.fixed == {
        Site("quantize", name, f"{what}_bits"): 8 for name in ("stem", "head") for what in ("weight", "activation")
    }


def test_check_space_names_the_line_of_every_rule_that_fits_nothing(folder: Path) -> None:
    study = lined(
        """\
model: digits_net
data: digits
objectives: {top1: maximize}
space:
  rules:
    - operator: prune
    - operator: quantize
      layers: "boddy.*"
    - operator: quantize
      layers: [stem, haed]
    - operator: quantize
      except: body.00
    - operator: prune
      layers: head
"""
    )
    with pytest.raises(SpecError) as caught:
        check_space(study, TABLE)
    lines = str(caught.value).split("\n")
    assert [line.split(": ", 2)[:2] for line in lines] == [
        ["study.yaml:7", "space.rules[1]"],
        ["study.yaml:9", "space.rules[2]"],
        ["study.yaml:11", "space.rules[3]"],
        ["study.yaml:13", "space.rules[4]"],
    ]
    assert "layers ['boddy.*'] matches no layer of the model" in lines[0]
    assert lines[1].endswith("quantize: the model has no layer 'haed', did you mean 'head'?")
    assert lines[2].endswith("quantize: the model has no layer 'body.00', did you mean 'body.0'?")
    assert "matches no prunable group" in lines[3]


def test_check_space_names_the_space_file(folder: Path) -> None:
    write("rules:\n  - operator: prune\n\n  - operator: quantize\n    layers: nix*\n", "own.yaml")
    with pytest.raises(SpecError, match=r"^own\.yaml:4: rules\[1\]: quantize: layers \['nix\*'\] matches no layer"):
        check_space(lined(SMALL.replace("joint", "own")), TABLE)


def test_check_space_without_nodes_still_names_the_rule(folder: Path) -> None:
    study = lined(SMALL.replace("joint", "{rules: [{operator: prune, layers: nix}]}"))
    bare = StudyFile(study.spec, study.storage, study.path)
    assert bare == study
    with pytest.raises(SpecError, match=r"^study\.yaml: space\.rules\[0\]: prune: the model has no layer 'nix'"):
        check_space(bare, TABLE)


def test_a_space_that_later_rules_fix_everywhere_leaves_nothing(folder: Path) -> None:
    rules = "{operator: quantize}, {operator: quantize, settings: {weight_bits: 8, activation_bits: 8}}"
    with pytest.raises(SpecError, match=r"^study\.yaml: space: the space leaves nothing to decide"):
        check_space(lined(SMALL.replace("joint", f"{{rules: [{rules}]}}")), TABLE)


@pytest.mark.parametrize("name", bundled_spaces())
def test_bundled_spaces_resolve_and_hold_first_and_last_at_8_bits(name: str, folder: Path) -> None:
    study = lined(SMALL.replace("joint", name) + "rungs: [{steps: 0}, {steps: 10}]\n")
    space = check_space(study, TABLE)
    assert set(space.order) == {rule.operator for rule in study.spec.rules}
    if "quantize" in space.order:
        assert {space.fixed[Site("quantize", layer, "weight_bits")] for layer in ("stem", "head")} == {8}
    trains = any(decision.needs_training for decision in space.decisions)
    assert trains == (name in ("kd", "joint_kd", "everything"))


def test_bundled_spaces_are_the_documented_ones() -> None:
    readme = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## The bundled spaces")[2].partition("\n## ")[0]
    names = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    assert names == set(bundled_spaces()) >= {"prune", "bits", "joint", "kd"}


def test_the_grammar_table_has_every_key_operator_setting_and_selector() -> None:
    from automc.app.effort_schema import RUNG_KEYS, WORKER_KEYS
    from automc.app.space_schema import KINDS, RULE_KEYS
    from automc.app.study_schema import STUDY_KEYS

    readme = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    first = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}
    keys = {key for key in STUDY_KEYS if key != "workers"}
    assert keys | set(RULE_KEYS) <= first
    assert {f"workers.{key}" for key in WORKER_KEYS} <= first
    assert all(f"`rungs[n].{key}`" in readme for key in RUNG_KEYS[2:])
    assert {f"{name}.{setting}" for name, info in OPERATORS.items() for setting in info.settings} <= first
    assert all(f"`{name}`" in readme for name in (*OPERATORS, *KINDS))


def test_the_settings_table_has_the_allowed_and_suggested_values_of_the_operators() -> None:
    readme = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    rows = [line.replace("`", "").split("|") for line in readme.splitlines() if line.startswith("| `")]
    cells = {row[1].strip(): (row[2], row[4]) for row in rows if len(row) == 6}
    for operator, info in OPERATORS.items():
        for name, setting in info.settings.items():
            allowed, suggested = cells[f"{operator}.{name}"]
            assert describe(setting.legal) in allowed
            if setting.suggested is not None:
                assert str(setting.suggested).strip("{}") in suggested


def test_the_example_of_the_grammar_is_a_valid_space(folder: Path) -> None:
    readme = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    write(readme.partition("```yaml\n")[2].partition("```")[0], "example.yaml")
    rules = read_study(write(SMALL.replace("joint", "example"))).spec.rules
    assert [rule.operator for rule in rules] == ["prune", "quantize", "quantize", "quantize"]
    assert (rules[2].layers, rules[2].exclude, rules[3].indices) == (("layer3.*", "layer4.*"), ("*.shortcut",), (0, -1))


def test_the_template_is_a_valid_study(folder: Path) -> None:
    """As it is, so that the first check and the first search of a new user work."""
    study = lined(TEMPLATE)
    assert study.spec == replace(
        lined(SMALL.replace("space: joint\n", "space: joint_kd\n") + "rungs: [{steps: 1}]\n").spec,
        objectives=(Objective("top1"), Objective("size_bytes")),
        constraints=(Constraint("macs_ratio", "<=", 0.5),),
        rungs=(Rung(0), Rung(200, 0.25)),
        workers=Workers(2),
    )


def test_the_template_names_all_bundled_spaces_and_its_commented_space_is_valid(folder: Path) -> None:
    assert all(name in TEMPLATE for name in bundled_spaces())
    lines = TEMPLATE.splitlines()
    start = lines.index("#   space:")
    block = [line[4:] for line in lines[start : lines.index("space: joint_kd")]]
    study = lined(SMALL.replace("space: joint\n", "\n".join(block) + "\n"))
    assert [rule.operator for rule in study.spec.rules] == ["prune", "quantize", "quantize"]


@pytest.mark.parametrize("storage", ["memory:", "a b/automc.db", "sqlite:////tmp/x.db", "postgresql+psycopg://u@h/db"])
def test_storage_is_a_url_or_a_path(storage: str, folder: Path) -> None:
    assert lined(SMALL + f"storage: {json.dumps(storage)}\n").storage == storage


@pytest.mark.parametrize("task", [*TASKS, "file.py:make"])
def test_every_metric_of_a_task_can_be_an_objective_and_a_constraint(task: str, folder: Path) -> None:
    (folder / "file.py").touch()
    metrics = [m for m in METRICS if task not in TASKS or m not in TASK_METRICS or m in TASKS[task].metrics]
    assert 0 < sum(m in TASK_METRICS for m in metrics) < len(metrics)
    objectives = "{" + ", ".join(metrics) + "}"
    constraints = json.dumps([f"{metric} >= 0.0" for metric in metrics])
    more = f"task: {task}\nconstraints: {constraints}\n"
    spec = lined(SMALL.replace("{top1: maximize}", objectives) + more).spec
    assert spec.task == Part(task)
    assert [objective.metric for objective in spec.objectives] == metrics
    assert len(spec.constraints) == len(metrics)


def test_what_may_be_negative_may_be_bounded_by_a_negative_number(folder: Path) -> None:
    text = SMALL.replace("{top1: maximize}", "{r2: }") + 'task: regression\nconstraints: ["r2 >= -0.5"]\n'
    assert lined(text).spec.constraints[0].bound == -0.5


def test_reading_a_study_imports_no_torch(folder: Path) -> None:
    write(SMALL)
    code = (
        "import sys; from pathlib import Path; from automc.app.config import read_study;"
        "read_study(Path('study.yaml')); print(*sorted({'torch', 'ray', 'pandas', 'optuna'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ), check=False
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
