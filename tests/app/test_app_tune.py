"""The evaluator as a Ray Tune trainable: against the evaluator itself, and under a real Tune run."""

import signal
from pathlib import Path

import pytest

import automc
from automc.core.space import Choice, Real
from automc.errors import SpecError

pytest.importorskip("ray.tune", reason="ray[tune] is not installed: pip install 'automc[tune]'", exc_type=ImportError)

STUDY = {
    "name": "tuned",
    "model": "digits_net",
    "data": "digits",
    "space": {
        "order": ["prune", "quantize", "distill"],
        "rules": [
            {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
            {
                "operator": "quantize",
                "settings": {"weight_bits": [2, 4, 8], "weight_format": ["symmetric", "codebook"]},
            },
            {"operator": "distill", "settings": {"kd_temperature": {"low": 1, "high": 10, "log": True}}},
        ],
    },
    "objectives": {"top1": "maximize"},
    "constraints": ["size_ratio <= 0.1"],
    "evaluator": "synthetic",
    "rungs": [{"steps": 0}, {"steps": 10}, {"steps": 40}],
}


@pytest.fixture(autouse=True)
def _handler_of_ctrl_c():
    """Tune leaves one of its own behind."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def ready():
    return automc.tune.prepare(STUDY)


def test_the_space_has_a_domain_a_decision_and_configurations_become_policies(ready):
    from ray.tune.search.sample import Categorical, Float

    space = automc.tune.param_space(ready)
    assert list(space) == [str(d.site) for d in ready.space.decisions]
    for decision in ready.space.decisions:
        domain = space[str(decision.site)]
        assert isinstance(domain, Float if isinstance(decision.domain, Real) else Categorical)
        if isinstance(decision.domain, Choice):
            assert domain.categories == list(decision.domain.options)
    for _ in range(20):
        config = {name: domain.sample() for name, domain in space.items()}
        policy = ready.policy(config)
        for decision in ready.space.decisions:
            assert decision.domain.holds(policy[decision.site])
            if isinstance(decision.domain, Real):
                assert (
                    abs(policy[decision.site] - config[str(decision.site)]) <= (decision.domain.step or 1e-9) / 2 + 1e-9
                )
        assert ready.policy({str(site): value for site, value in policy.items()}) == policy
    name = next(name for name in space if name.endswith("weight_bits"))
    with pytest.raises(SpecError, match=r"tune: .*weight_bits must be one of \{2, 4, 8\}, not 3"):
        ready.policy({**config, name: 3})
    del config[name]
    with pytest.raises(SpecError, match=r"tune: the configuration lacks .*weight_bits; take param_space from"):
        ready.policy(config)


def trained(ready, config):
    """The trainable, as Tune makes it on a worker."""
    from automc.app.tune_steps import Evaluation

    class Here(Evaluation):
        def setup(self, config):
            super().setup(config, ready)

    return Here(config)


def test_each_step_is_the_next_rung_and_says_what_the_evaluator_says(ready, tmp_path: Path):
    config = {name: domain.sample() for name, domain in automc.tune.param_space(ready).items()}
    made = trained(ready, config)
    results = [made.train() for _ in range(3)]
    assert [r["rung"] for r in results] == [0, 1, 2]
    assert [r["done"] for r in results] == [False, False, True]
    for rung, result in enumerate(results):
        wanted = ready.evaluator.evaluate(ready.policy(config), rung, lambda step, value: True).metrics
        assert {name: result[name] for name in wanted} == wanted
        assert result["violation"] == pytest.approx(max(wanted["size_ratio"] / 0.1 - 1, 0))
    again = trained(ready, config)
    first = again.train()
    kept = again.save(str(tmp_path))
    other = trained(ready, config)
    other.restore(kept)
    assert other.train()["rung"] == 1
    again.reset_config(config)
    assert again.train()["top1"] == first["top1"], "a reused actor begins at the first rung"


def test_a_study_file_serves_too(tmp_path: Path):
    path = tmp_path / "study.yaml"
    automc_yaml = "model: digits_net\ndata: digits\nspace: prune\nobjectives: {top1: }\nevaluator: synthetic\n"
    path.write_text(automc_yaml)
    assert automc.tune.param_space(path)
    with pytest.raises(SpecError, match=r"none\.yaml"):
        automc.tune.prepare(tmp_path / "none.yaml")


def test_a_scheduler_of_tune_decides_who_goes_on(ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real Tune run on a Ray of its own, which takes half a minute to start and stop."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )  # fmt: skip
    try:
        config = tune.TuneConfig(
            metric="top1", mode="max", num_samples=6, reuse_actors=True, max_concurrent_trials=1,
            scheduler=ASHAScheduler(max_t=3, grace_period=1, reduction_factor=2),
        )  # fmt: skip
        made = automc.tune.trainable(ready)
        run = tune.RunConfig(storage_path=str(tmp_path), name="x", verbose=0)
        results = tune.Tuner(made, param_space=automc.tune.param_space(ready), tune_config=config, run_config=run).fit()
    finally:
        ray.shutdown()
    assert results.num_errors == 0
    rungs = [result.metrics["rung"] for result in results]
    assert len(rungs) == 6
    assert max(rungs) == 2
    assert min(rungs) == 0, "ASHA ended some after the first rung"
    best = results.get_best_result()
    wanted = ready.measured(ready.policy(best.config), best.metrics["rung"])
    assert best.metrics["top1"] == wanted["top1"]
