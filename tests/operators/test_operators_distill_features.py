"""Feature distances against numpy, hand-made figures and finite differences; adapters; which modules are compared."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES
from nets import make
from torch import nn
from torch.func import functional_call

from automc.core.policy import Policy, Site
from automc.operators import ORDER
from automc.operators.base import Answer, Compression, compress
from automc.operators.distillation.distances import FEATURES, RIDGE, Adapter, FeatureTerm
from automc.operators.distillation.features import LIMIT, Feature, choose, shapes, watched
from automc.operators.layers import trace

MAPS = (Feature("a", False), Feature("b", False))
SIZES = {"a": (5, 6, 4, 4), "b": (5, 8, 2, 2)}
NARROW = {"a": (5, 3, 4, 4), "b": (5, 4, 2, 2)}


def answer(seed, sizes=SIZES):
    generator = torch.Generator().manual_seed(seed)
    features = {name: torch.randn(*size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    return Answer(torch.zeros(5, 3, dtype=torch.float64), features)


def value(kind, student, teacher, features=MAPS, beta=1.0):
    return FeatureTerm(kind, beta, features).start(student, teacher)(student, teacher).item()


def test_hint_is_the_relative_squared_distance():
    student, teacher = answer(0), answer(1)
    pairs = [(student.features[n].numpy(), teacher.features[n].numpy()) for n in "ab"]
    wanted = np.mean([((s - t) ** 2).sum() / (t**2).sum() for s, t in pairs])
    assert value("hint", student, teacher) == pytest.approx(wanted, rel=1e-12)
    assert value("hint", student, teacher, beta=7.0) == pytest.approx(7 * wanted, rel=1e-12)


def test_attention_compares_normalised_maps_of_any_width():
    student, teacher = answer(0, NARROW), answer(1)

    def maps(x):
        rows = (x.numpy() ** 2).sum(1).reshape(len(x), -1)
        return rows / np.sqrt((rows**2).sum(1, keepdims=True))

    squares = [((maps(student.features[n]) - maps(teacher.features[n])) ** 2).sum(1).mean() for n in "ab"]
    assert value("attention", student, teacher) == pytest.approx(0.5 * np.mean(squares), rel=1e-12)


def test_attention_forgets_the_size_and_sees_the_place():
    here = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    here[0, :, 0, 0] = 1
    there = here.flip(-1)
    features = (Feature("a", False),)
    say = [Answer(torch.zeros(1, 1), {"a": x}) for x in (3 * here, here, there)]
    assert value("attention", say[0], say[1], features) == pytest.approx(0, abs=1e-15)
    assert value("attention", say[0], say[2], features) == pytest.approx(1)  # half of |e1 - e2|^2


def test_flow_compares_gram_matrices_of_max_pooled_maps():
    student, teacher = answer(0), answer(1)

    def gram(x):
        a, b = x.features["a"].numpy(), x.features["b"].numpy()
        pooled = a.reshape(5, 6, 2, 2, 2, 2).max((3, 5))
        return np.einsum("nchw,ndhw->ncd", pooled, b) / 4

    s, t = gram(student), gram(teacher)
    assert value("fsp", student, teacher) == pytest.approx(((s - t) ** 2).sum() / (t**2).sum(), rel=1e-12)


def test_relations_of_three_points_by_hand():
    """A 3-4-5 triangle against an equilateral one: distances over their mean 3/4, 1, 5/4; cosines 0, 3/5, 4/5."""
    right = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    even = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, 3**0.5, 0.0]], dtype=torch.float64)
    student, teacher = (Answer(torch.zeros(3, 1), {"a": points}) for points in (right, even))
    by_distance = (0.25**2 + 0 + 0.25**2) / 2 / 3
    by_angle = (0.5**2 + 0.1**2 + 0.3**2) / 2 / 3
    found = value("relational", student, teacher, (Feature("a", False),))
    assert found == pytest.approx(by_distance + 2 * by_angle, rel=1e-12)


def test_relations_ignore_size_place_and_turning_and_average_positions():
    teacher = answer(1)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    points = teacher.features["b"].mean((2, 3))
    student = Answer(teacher.outputs, {"a": teacher.features["a"], "b": 5 * points @ turn + 2})
    assert value("relational", student, teacher) == pytest.approx(0, abs=1e-12)
    assert value("relational", answer(0), teacher) > 0.01


@pytest.mark.parametrize("kind", FEATURES)
def test_equal_features_cost_nothing(kind):
    assert value(kind, answer(3), answer(3)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", FEATURES)
def test_gradients_against_finite_differences(kind):
    """Of the features, and of the adapters that a narrower student gets."""
    student, teacher = answer(0, NARROW), answer(1)
    module = FeatureTerm(kind, 0.5, MAPS).start(student, teacher)
    weights = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    assert len(weights) == (4 if kind in ("hint", "fsp") else 0)
    features = [x.clone().requires_grad_() for x in student.features.values()]

    def loss(a, b, *values):
        own = Answer(student.outputs, {"a": a, "b": b})
        return functional_call(module, dict(zip(weights, values, strict=True)), (own, teacher))

    assert torch.autograd.gradcheck(loss, (*features, *weights.values()))


@pytest.mark.parametrize("kind", FEATURES)
def test_no_gradient_reaches_the_teachers_features(kind):
    student, teacher = answer(0), answer(1)
    for tensor in (*student.features.values(), *teacher.features.values()):
        tensor.requires_grad_()
    FeatureTerm(kind, 1.0, MAPS).start(student, teacher)(student, teacher).backward()
    assert all(tensor.grad is None for tensor in teacher.features.values())
    assert student.features["b"].grad.abs().sum() > 0


@pytest.mark.parametrize("kind", FEATURES)
def test_tokens_have_their_channels_last(kind):
    swapped = [
        Answer(x.outputs, {n: f.flatten(2).transpose(1, 2) for n, f in x.features.items()}) for x in map(answer, (0, 1))
    ]
    flat = [Answer(x.outputs, {n: f.flatten(2) for n, f in x.features.items()}) for x in map(answer, (0, 1))]
    last = tuple(Feature(name, True) for name in "ab")
    assert value(kind, *swapped, last) == pytest.approx(value(kind, *flat), rel=1e-12)


def test_an_adapter_starts_as_the_ridge_regression():
    """The same as least squares with RIDGE times the mean square as pseudo-observations of zero."""
    narrow, wide = answer(0, NARROW).features["a"], answer(1).features["a"]
    adapter = Adapter(narrow, wide)
    x, y = (t.numpy().transpose(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in (narrow, wide))
    centred = x - x.mean(0)
    size = np.sqrt(RIDGE * (centred**2).sum(0).mean())
    rows = np.concatenate([centred, size * np.eye(3)])
    weight, *_ = np.linalg.lstsq(rows, np.concatenate([y - y.mean(0), np.zeros((3, 6))]), rcond=None)
    assert np.allclose(adapter.weight.detach().numpy(), weight.T, atol=1e-10)
    wanted = centred @ weight + y.mean(0)
    found = adapter(narrow).detach().numpy().transpose(0, 2, 3, 1).reshape(-1, 6)
    assert np.allclose(found, wanted, atol=1e-10)
    assert list(Adapter(wide, wide).parameters()) == []


def test_an_adapter_of_dead_channels_is_finite():
    adapter = Adapter(torch.zeros(4, 2, 3, 3), torch.ones(4, 5, 3, 3))
    assert torch.equal(adapter(torch.zeros(4, 2, 3, 3)), torch.ones(4, 5, 3, 3))


def test_watching_sees_outputs_and_leaves_nothing():
    model, inputs = make("resnet_a")
    before = copy.deepcopy(model)
    with watched(model, ["layer1", "bn1"]) as seen:
        model(inputs)
        assert torch.equal(seen["bn1"], before.bn1(before.conv1(inputs)))
        assert list(seen) == ["bn1", "layer1"]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet_a", ["layer1", "layer2", "layer3"]),
        ("resnet_b", ["layer1", "layer2", "layer3"]),
        ("conv_bn_relu", ["0", "1"]),
        ("mlp", None),
        ("volume", None),
    ],
)
def test_the_ends_of_the_resolutions_are_chosen(name, wanted):
    model, inputs = make(name)
    known = shapes(model, inputs)
    found = [feature.path for feature in choose(trace(model, inputs).table, known, known)]
    assert found
    if wanted:
        assert found == wanted


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_features_that_stay_comparable_when_pruned(name):
    """Half of every group's channels go; the two networks' features then differ in nothing but the channels."""
    model, inputs = FAMILIES[name]()
    state = Compression(model, model, trace(model, inputs), inputs)
    model = state.model
    policy = Policy({Site("prune", group.name, "prune_ratio"): 0.5 for group in state.trace.table.groups})
    pruned = compress(state, policy, ORDER).model
    found = choose(state.trace.table, shapes(model, inputs), shapes(pruned, inputs))
    assert 1 <= len(found) <= LIMIT
    with watched(model, [f.path for f in found]) as wide, watched(pruned, [f.path for f in found]) as narrow:
        model(inputs), pruned(inputs)
    for path, last in found:
        axis = wide[path].dim() - 1 if last else 1
        positions = [[s for i, s in enumerate(x[path].shape) if i != axis] for x in (wide, narrow)]
        assert positions[0] == positions[1]
        assert positions[0][0] == len(inputs)


def test_a_block_that_became_the_identity_does_not_matter():
    model, inputs = make("resnet_a")
    table = trace(model, inputs).table
    shorter = copy.deepcopy(model)
    shorter.layer1[1] = nn.Identity()
    found = choose(table, shapes(model, inputs), shapes(shorter, inputs))
    assert [feature.path for feature in found] == ["layer1", "layer2", "layer3"]
