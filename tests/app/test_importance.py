"""What mattered: the forest against functions whose importances are known, and the words around it."""

import numpy as np
import pytest

from automc.app.importance import LEAST, MOST, forest_importance, importance, importance_text
from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError

DRAW = np.random.default_rng(7)


def test_of_a_sum_the_shares_are_those_of_the_squared_slopes() -> None:
    columns = DRAW.random((800, 5))
    shares, r2 = forest_importance(columns, 4 * columns[:, 0] + 2 * columns[:, 1])
    # Shuffling a term adds twice its variance: 16 to 4. A forest of finite depth is a few percent off.
    assert shares == pytest.approx([0.8, 0.2, 0, 0, 0], abs=0.03)
    assert shares.sum() == pytest.approx(1)
    assert r2 > 0.9


def test_decisions_that_matter_only_together_matter_alike() -> None:
    columns = DRAW.integers(0, 2, (400, 6)).astype(float)
    shares, r2 = forest_importance(columns, (columns[:, 0] != columns[:, 1]) * 1.0)
    assert shares == pytest.approx([0.5, 0.5, 0, 0, 0, 0], abs=0.05)
    assert r2 > 0.9


def test_of_noise_the_forest_knows_nothing_and_says_so() -> None:
    _, r2 = forest_importance(DRAW.random((200, 5)), DRAW.random(200))
    assert r2 < 0.15


def trial(number: int, **changes: object) -> Trial:
    bits, ratio, word = int(DRAW.integers(2, 9)), float(DRAW.random()), str(DRAW.choice(["a", "b", "c"]))
    policy = Policy(
        {
            Site("quantize", "stem", "weight_bits"): bits,
            Site("prune", "stem", "prune_ratio"): ratio,
            Site("prune", "tail", "prune_ratio"): float(DRAW.random()),
            Site("prune", "tail", "criterion"): "l1",
            Site("distill", "*", "kd_logits"): word,
        }
    )
    metrics = {"top1": 1 - ratio + 0.3 * (word == "b"), "macs": 5.0}
    found = {"state": TrialState.COMPLETE, "measurement": Measurement(metrics, seconds=1.0), **changes}
    return Trial(number, policy, **found)  # type: ignore[arg-type]


TRIALS = [trial(number) for number in range(400)]


def test_shares_sum_by_layer_and_by_setting_and_what_never_varied_is_left_out() -> None:
    found = importance("s", TRIALS, "top1")
    shares = {weight.site: weight.share for weight in found.decisions}
    assert len(shares) == 4
    assert list(shares) == sorted(shares, key=lambda site: -shares[site])
    # Variances of the two terms: 1/12, and 0.3^2 * 1/3 * 2/3.
    assert shares[Site("prune", "stem", "prune_ratio")] == pytest.approx((1 / 12) / (1 / 12 + 0.02), abs=0.03)
    assert found.by_layer["stem"] == pytest.approx(sum(share for site, share in shares.items() if site.layer == "stem"))
    assert found.by_layer["(whole network)"] == shares[Site("distill", "*", "kd_logits")]
    assert set(found.by_setting) == {"prune prune_ratio", "quantize weight_bits", "distill kd_logits"}
    assert sum(found.by_setting.values()) == pytest.approx(1)
    trends = {weight.site: weight.trend for weight in found.decisions}
    assert trends[Site("prune", "stem", "prune_ratio")] == pytest.approx(-0.88, abs=0.05)
    assert trends[Site("distill", "*", "kd_logits")] is None


def test_the_text_has_the_note_and_the_rest() -> None:
    said = importance_text(importance("s", TRIALS, "top1"), 2)
    assert said.startswith("a random forest of 400 trials on rung 0 predicts 9")
    assert "\n2 more decisions  " in said
    noise = [trial(n, measurement=Measurement({"top1": float(DRAW.random())})) for n in range(60)]
    assert "the shares mean little" in importance("s", noise, "top1").note


def test_the_rung_with_most_trials_is_asked_and_an_answer_from_the_store_counts_once() -> None:
    others = [trial(n, rung=1) for n in range(400, 450)] + [trial(n, twin=3) for n in range(450, 800)]
    found = importance("s", [*TRIALS, *others, trial(900, state=TrialState.STOPPED)], "top1")
    assert (found.rung, found.trials, found.known) == (0, 400, 400)


def test_of_very_many_trials_an_even_choice_is_asked() -> None:
    found = importance("s", [trial(n) for n in range(MOST + 500)], "top1")
    assert (found.trials, found.known) == (MOST, MOST + 500)


@pytest.mark.parametrize(
    ("trials", "metric", "message"),
    [
        (TRIALS[: LEAST - 1], "top1", f"study 's' has {LEAST - 1} complete trials on one rung; at least {LEAST} are"),
        ([], "top1", "study 's' has 0 complete trials"),
        (TRIALS, "top11", "no metric 'top11', did you mean 'top1'"),
        (TRIALS, "loss", "study 's' did not measure loss .it has: top1, macs."),
        (TRIALS, "macs", "macs is the same in all 400 trials"),
        ([TRIALS[0]] * LEAST, "seconds", "seconds is the same in all"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_line(trials: list[Trial], metric: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        importance("s", trials, metric)
    assert "\n" not in str(caught.value)
