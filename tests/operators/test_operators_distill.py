"""The distillation loss against its formula, its limits and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.operators.base import Compression, compress
from automc.operators.distill import Distillation
from automc.operators.layers import trace


def logits(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_hand(student, teacher, temperature):
    def softmax(x):
        e = np.exp(x / temperature - (x / temperature).max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = softmax(teacher.numpy()), softmax(student.numpy())
    return temperature**2 * (p * np.log(p / q)).sum(1).mean()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 100), st.floats(0, 1))
def test_the_formula(seed, temperature, alpha):
    student, teacher, targets = logits(seed, 6, 5), logits(seed + 1, 6, 5), torch.arange(6) % 5
    task = F.cross_entropy(student, targets)
    value = Distillation(temperature, alpha)(student, teacher, targets, task)
    wanted = (1 - alpha) * task.item() + alpha * by_hand(student, teacher, temperature)
    assert value.item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_the_gradient_against_finite_differences():
    student, teacher, targets = logits(0, 4, 5).requires_grad_(), logits(1, 4, 5), torch.tensor([0, 1, 2, 3])
    term = Distillation(3.0, 0.7)
    assert torch.autograd.gradcheck(lambda s: term(s, teacher, targets, F.cross_entropy(s, targets)), (student,))


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(0, 4, 5).requires_grad_(), logits(1, 4, 5).requires_grad_()
    Distillation(3.0, 1.0)(student, teacher, torch.zeros(4), torch.zeros(())).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_high_temperature_is_the_squared_distance_of_centred_logits():
    student, teacher = logits(0, 6, 5), logits(1, 6, 5)
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    wanted = gap.square().sum(1).mean() / (2 * 5)
    value = Distillation(1e4, 1.0)(student, teacher, torch.zeros(6), torch.zeros(()))
    # The next term of the series is smaller by the logits over the temperature.
    assert value.item() == pytest.approx(wanted.item(), rel=1e-2)


def test_equal_logits_cost_nothing_and_alpha_weighs():
    x = logits(0, 6, 5)
    assert Distillation(4.0, 1.0)(x, x, torch.zeros(6), torch.tensor(9.0)).item() == pytest.approx(0.0, abs=1e-12)
    assert Distillation(4.0, 0.0)(x, logits(1, 6, 5), torch.zeros(6), torch.tensor(9.0)).item() == 9.0


def test_a_map_of_predictions_is_a_mean_over_all_of_them():
    student, teacher = logits(0, 2, 5, 3, 3), logits(1, 2, 5, 3, 3)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    term = Distillation(2.0, 1.0)
    zero = torch.zeros(())
    assert term(student, teacher, zero, zero).item() == pytest.approx(term(*flat, zero, zero).item())


def test_the_operator_adds_a_term_only_when_it_has_weight():
    model, inputs = make("plain")
    state = Compression(model, model, trace(model, inputs), inputs)
    sites = {name: Site("distill", "*", name) for name in ("kd_temperature", "kd_alpha")}
    with_weight = compress(state, Policy({sites["kd_temperature"]: 2.0, sites["kd_alpha"]: 0.25}), ("distill",))
    assert with_weight.losses == (Distillation(2.0, 0.25),)
    assert with_weight.realized == {"*": {"kd_temperature": 2.0, "kd_alpha": 0.25}}
    assert compress(state, Policy({sites["kd_alpha"]: 0.5}), ("distill",)).losses == (Distillation(4.0, 0.5),)
    assert compress(state, Policy({sites["kd_temperature"]: 2.0}), ("distill",)).losses == ()
