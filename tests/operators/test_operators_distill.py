"""Logit distillation against its formulas, their limits and finite differences; the operator that adds the terms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from torch import nn

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import OPERATORS
from automc.operators.base import Answer, Compression, compress
from automc.operators.distillation.distances import FeatureTerm
from automc.operators.distillation.logits import LogitTerm
from automc.operators.layers import trace


def logits(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def value(term, student, teacher):
    own, wanted = Answer(student, {}), Answer(teacher, {})
    return term.start(own, wanted)(own, wanted)


def by_hand(student, teacher, temperature):
    def softmax(x):
        e = np.exp(x / temperature - (x / temperature).max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = softmax(teacher.numpy()), softmax(student.numpy())
    return temperature**2 * (p * np.log(p / q)).sum(1).mean()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 100), st.floats(0, 1))
def test_the_soft_distance(seed, temperature, alpha):
    student, teacher = logits(seed, 6, 5), logits(seed + 1, 6, 5)
    term = LogitTerm(temperature, alpha)
    assert term.keeps == pytest.approx(1 - alpha)
    wanted = alpha * by_hand(student, teacher, temperature)
    assert value(term, student, teacher).item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 100), st.floats(0, 1))
def test_the_plain_distance_is_the_mean_square_at_any_temperature(seed, temperature, alpha):
    student, teacher = logits(seed, 6, 5), logits(seed + 1, 6, 5)
    wanted = alpha * np.mean((student.numpy() - teacher.numpy()) ** 2)
    assert value(LogitTerm(temperature, alpha, "plain"), student, teacher).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("kind", ["soft", "plain"])
def test_the_gradient_against_finite_differences(kind):
    student, teacher = logits(0, 4, 5).requires_grad_(), logits(1, 4, 5)
    assert torch.autograd.gradcheck(lambda s: value(LogitTerm(3.0, 0.7, kind), s, teacher), (student,))


@pytest.mark.parametrize("kind", ["soft", "plain"])
def test_no_gradient_reaches_the_teacher(kind):
    student, teacher = logits(0, 4, 5).requires_grad_(), logits(1, 4, 5).requires_grad_()
    value(LogitTerm(3.0, 1.0, kind), student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_high_temperature_is_the_squared_distance_of_centred_logits():
    student, teacher = logits(0, 6, 5), logits(1, 6, 5)
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    wanted = gap.square().sum(1).mean() / (2 * 5)
    # The next term of the series is smaller by the logits over the temperature.
    assert value(LogitTerm(1e4, 1.0), student, teacher).item() == pytest.approx(wanted.item(), rel=1e-2)


def test_equal_logits_cost_nothing():
    x = logits(0, 6, 5)
    for kind in ("soft", "plain"):
        assert value(LogitTerm(4.0, 1.0, kind), x, x).item() == pytest.approx(0.0, abs=1e-12)


def test_a_map_of_predictions_is_a_mean_over_all_of_them():
    student, teacher = logits(0, 2, 5, 3, 3), logits(1, 2, 5, 3, 3)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    for kind in ("soft", "plain"):
        term = LogitTerm(2.0, 1.0, kind)
        assert value(term, student, teacher).item() == pytest.approx(value(term, *flat).item())


@pytest.fixture(scope="module")
def state():
    model, inputs = make("resnet_a")
    return Compression(model, model, trace(model, inputs), inputs)


def distilled(state, **chosen):
    return compress(state, Policy({Site("distill", "*", name): value for name, value in chosen.items()}), ("distill",))


def test_the_operator_adds_a_term_only_when_it_has_weight(state):
    neutral = {name: setting.neutral for name, setting in OPERATORS["distill"].settings.items()}
    with_weight = distilled(state, kd_temperature=2.0, kd_alpha=0.25)
    assert with_weight.losses == (LogitTerm(2.0, 0.25),)
    assert with_weight.realized == {"*": neutral | {"kd_temperature": 2.0, "kd_alpha": 0.25}}
    assert distilled(state, kd_alpha=0.5, kd_logits="plain").losses == (LogitTerm(4.0, 0.5, "plain"),)
    assert distilled(state, kd_temperature=2.0).losses == ()
    assert distilled(state, kd_beta=2.0).losses == ()


def test_features_have_their_own_weight_and_name_what_they_compare(state):
    after = distilled(state, kd_alpha=0.5, kd_features="hint", kd_beta=3.0, kd_teacher="self")
    logit, feature = after.losses
    assert isinstance(feature, FeatureTerm)
    assert (logit.keeps, feature.keeps, feature.kind, feature.beta) == (0.5, 1.0, "hint", 3.0)
    assert after.teaching == "self"
    assert after.realized["*"]["kd_layers"] == "layer1 layer2 layer3"
    assert feature.layers == ("layer1", "layer2", "layer3")
    assert not any(module._forward_hooks for module in after.model.modules())
    assert distilled(state, kd_features="relational").losses[0].layers == ("layer3",)


def test_what_is_known_of_the_original_is_found_once(state, monkeypatch):
    distilled(state, kd_features="hint")
    forwards = []
    monkeypatch.setattr(type(state.teacher), "forward", counted(type(state.teacher).forward, state.teacher, forwards))
    distilled(state, kd_features="attention")
    assert forwards == []
    fresh = Compression(state.model, state.teacher, state.trace, state.calibration)
    assert distilled(fresh, kd_features="hint").losses == distilled(state, kd_features="hint").losses
    assert len(forwards) == 1


def counted(forward, module, seen):
    def wrapper(self, x):
        if self is module:
            seen.append(len(x))
        return forward(self, x)

    return wrapper


def test_features_that_cannot_be_found_are_refused():
    linear = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    inputs = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    state = Compression(linear, linear, trace(linear, inputs), inputs)
    assert distilled(state, kd_features="relational").losses[0].layers == ("1",)
    with pytest.raises(CompressionError, match="'attention': the network has not a layer with more than one position"):
        distilled(state, kd_features="attention")
    with pytest.raises(CompressionError, match="'fsp': the network has not two layers with as many axes"):
        distilled(state, kd_features="fsp")
    without = Compression(linear, linear, state.trace, None)
    with pytest.raises(CompressionError, match="'hint' needs calibration inputs to find the features; there are none"):
        distilled(without, kd_features="hint")
    single = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(CompressionError, match="the network has not a layer before its outputs; use none"):
        distilled(Compression(single, single, trace(single, inputs), inputs), kd_features="hint")
