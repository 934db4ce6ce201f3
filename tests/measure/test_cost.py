"""Costs against closed forms and against fvcore."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.errors import ModelError
from automc.measure.cost import costs, layer_macs


def basic(cin, cout, stride):
    return nn.ModuleDict(
        {
            "conv1": nn.Conv2d(cin, cout, 3, stride, 1, bias=False),
            "bn1": nn.BatchNorm2d(cout),
            "conv2": nn.Conv2d(cout, cout, 3, 1, 1, bias=False),
            "bn2": nn.BatchNorm2d(cout),
        }
    )


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.Linear(64, 10)
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.ModuleList([basic(*row) for row in widths])

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            y = block["bn2"](block["conv2"](F.relu(block["bn1"](block["conv1"](x)))))
            if y.shape != x.shape:
                extra = y.shape[1] // 4
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
            x = F.relu(x + y)
        return self.head(x.mean((2, 3)))


def test_resnet20_of_he_et_al():
    model = ResNet20()
    found = costs(model, torch.zeros(1, 3, 32, 32))
    wanted = {"params": 269_722.0, "params_nonzero": 269_722.0, "macs": 40_551_040.0, "bops": 40_551_040.0 * 32 * 32}
    assert found == wanted | {"activation_bytes": 3 * 16 * 32 * 32 * 4.0}  # shortcut, input and output of a convolution


MODELS = {
    "resnet20": (ResNet20, (3, 32, 32)),
    "strided": (lambda: nn.Conv2d(3, 8, 5, stride=3, padding=2, dilation=2), (3, 21, 17)),
    "grouped": (lambda: nn.Conv2d(8, 12, 3, groups=4), (8, 9, 9)),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.Conv2d(8, 4, 1)), (8, 9, 9)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (4, 20)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 5, 6, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(6, 4, 3, stride=2), (6, 5, 5)),
    "mlp": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 2)), (2, 12)),
    "linear_in_rows": (lambda: nn.Linear(12, 5), (7, 12)),
}


def chain():
    """A convolution as a product of three, as factorize leaves it."""
    parts = [nn.Conv2d(6, 3, 1, bias=False), nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 8, 1)]
    return nn.Sequential(nn.Sequential(*parts), nn.BatchNorm2d(8), nn.ReLU())


MODELS["chain"] = (chain, (6, 9, 9))


@pytest.mark.filterwarnings("ignore")  # fvcore traces with an interface that torch calls deprecated
@pytest.mark.parametrize("name", MODELS)
def test_as_fvcore_counts(name):
    fvcore = pytest.importorskip("fvcore.nn")
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    build, shape = MODELS[name]
    model, example = build().eval(), torch.randn(1, *shape)
    analysis = fvcore.FlopCountAnalysis(model, example).unsupported_ops_warnings(False)
    wanted = {
        n: round(v) for n, v in analysis.by_operator().items() if n in ("conv", "linear", "matmul", "addmm", "bmm")
    }
    assert costs(model, example)["macs"] == sum(wanted.values()) > 0
    assert costs(model, example)["params"] == fvcore.parameter_count(model)[""]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_multiplies_every_input_with_every_tap(groups):
    model = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, groups=groups)
    assert costs(model, torch.zeros(2, 6, 5, 7))["macs"] == 5 * 7 * 6 * (4 // groups) * 9


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_multihead_attention(first, training):
    """Four projections, QK^T and its product with V; the fast path of eval mode counts alike."""

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=10, batch_first=first)

        def forward(self, x: Tensor) -> Tensor:
            batch = x.shape[0]
            keys, values = torch.zeros(batch, 3, 6), torch.zeros(batch, 3, 10)
            if first:
                return self.attention(x, keys, values)[0]
            return self.attention(*(t.transpose(0, 1) for t in (x, keys, values)))[0].transpose(0, 1)

    model = Cross().train(training)
    wanted = 5 * 8 * 8 * 2 + 3 * 8 * 6 + 3 * 8 * 10 + 2 * 5 * 3 * 8
    assert layer_macs(model, torch.zeros(2, 5, 8)) == {"attention": wanted}
    assert model.training is training


def test_attention_as_one_function_and_as_two_products():
    class Fused(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x[..., :4, :], x[..., :4, :])

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            key = x[..., :4, :]
            return torch.softmax(x @ key.transpose(-1, -2), -1) @ key

    class Letters(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            key = x[..., :4, :]
            scores = torch.softmax(torch.einsum("bhqd, bhkd -> bhqk", x, key), -1)
            return torch.einsum("bhqk,bhkd->bhqd", [scores, key])

    x = torch.zeros(2, 3, 7, 5)
    assert {costs(model, x)["macs"] for model in (Fused(), Plain(), Letters())} == {2 * 3 * 7 * 4 * 5}


@pytest.mark.filterwarnings("ignore")
def test_attention_of_linear_layers_as_fvcore_counts_it():
    fvcore = pytest.importorskip("fvcore.nn")
    logging.getLogger("fvcore").setLevel(logging.ERROR)

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                part(x).reshape(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            mixed = torch.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v
            return self.out(mixed.transpose(1, 2).flatten(2))

    model, example = Heads().eval(), torch.randn(1, 5, 8)
    analysis = fvcore.FlopCountAnalysis(model, example).unsupported_ops_warnings(False)
    operators = analysis.by_operator()
    wanted = sum(operators[name] for name in ("linear", "matmul"))
    assert costs(model, example)["macs"] == wanted == 4 * 5 * 64 + 2 * 5 * 5 * 8
    counted = layer_macs(model, example)
    assert counted == {"query": 320, "key": 320, "value": 320, "": 400, "out": 320}


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind, gates):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(6, 5, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    first, second = 2 * gates * 5 * (6 + 5), 2 * gates * 5 * (10 + 5)
    assert layer_macs(Net(), torch.zeros(3, 7, 6)) == {"rnn": 7 * (first + second)}


def test_every_form_of_a_matrix_product():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            eye, rows = torch.zeros(4, 4), x[0]
            total = [x @ eye, x.matmul(eye), torch.matmul(x, eye), eye @ rows, torch.mm(eye, rows), rows.mm(rows)]
            total += [torch.bmm(x, x)[0], x.bmm(x)[0], torch.addmm(rows, rows, rows), torch.baddbmm(x, x, x)[0]]
            return sum(t.sum() for t in total)[None] * (rows @ rows[0] + torch.mv(rows, rows[0])).sum()

    assert layer_macs(Net(), torch.zeros(1, 4, 4)) == {"": 10 * 64 + 2 * 16}


def test_macs_of_a_layer_called_by_its_owner_and_by_plain_python():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.weight = nn.Linear(4, 4), nn.Parameter(torch.zeros(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.twice(self.twice(x)), self.weight)

    assert layer_macs(Net(), torch.zeros(5, 4)) == {"twice": 32, "": 12}


class Few(nn.Linear):
    weight_bits, activation_bits = 4, 8


def test_bops_take_the_bits_that_a_module_says_it_has():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), Few(5, 4), nn.Linear(4, 3))
    model[3].weight_bits = 2
    assert costs(model, torch.zeros(7, 6))["bops"] == 30 * 32 * 32 + 20 * 4 * 8 + 12 * 2 * 32


class Rounds(nn.Module):
    """A helper of a live layer: it has parameters, and computes a matrix product that is no part of the network."""

    def __init__(self):
        super().__init__()
        self.step = nn.Parameter(torch.ones(3))

    def forward(self, weight):
        return weight + 0 * (weight @ weight.T).sum() * self.step.sum()


class Live(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight_bits, self.activation_bits = 4, 8
        self.ways, self.input_quantizer = nn.ModuleDict({"weight": Rounds()}), nn.PReLU(5)

    def stored(self):
        return {}

    def freeze(self, tensors):
        pass

    def forward(self, x):
        return F.linear(self.input_quantizer(x), self.ways["weight"](self.weight), self.bias)


def test_what_a_live_layer_needs_to_train_is_no_part_of_the_network():
    plain, live = nn.Linear(5, 4), Live(5, 4)
    assert sum(p.numel() for p in live.parameters()) == 20 + 4 + 3 + 5
    wanted = costs(plain, torch.zeros(2, 5))
    # The input is read at 8 bits, the output is float32.
    assert costs(live, torch.zeros(2, 5)) == {**wanted, "bops": 20 * 4 * 8, "activation_bytes": 5 + 4 * 4}
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in live.modules())


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_bops_of_a_recurrent_layer_round_its_inputs_and_not_its_state(kind, bidirectional):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(6, 5, num_layers=2, bidirectional=bidirectional, batch_first=True)
            self.rnn.weight_bits, self.rnn.activation_bits = 4, 8

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    gates, ways = 4 if kind is nn.LSTM else 3, 2 if bidirectional else 1
    given, own, second = ways * gates * 5 * 6, ways * gates * 5 * 5, ways * gates * 5 * (5 * ways + 5)
    found = costs(Net(), torch.zeros(3, 7, 6))
    assert found["macs"] == 7 * (given + own + second)
    assert found["bops"] == pytest.approx(7 * 4 * (given * 8 + (own + second) * 32), rel=1e-12)  # float64


def test_norms_count_as_parameters_only_and_shared_parameters_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Linear(4, 4))
    model[4].weight = model[0].weight
    wanted = {"params": 16 + 4 + 8 + 8 + 8 + 4, "macs": 32.0, "bops": 32.0 * 1024}
    assert costs(model, torch.zeros(2, 4)).items() >= wanted.items()


def test_nothing_of_the_model_is_changed():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    before = [b.clone() for b in model.buffers()]
    costs(model, torch.randn(3, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_a_forward_that_fails_is_one_line():
    with pytest.raises(
        ModelError, match=r"the forward fails on inputs \(1, 3\) \(RuntimeError: mat1 and mat2"
    ) as caught:
        costs(nn.Linear(4, 4), torch.zeros(1, 3))
    assert "\n" not in str(caught.value)


class Masked(nn.Linear):
    """A live layer's convention: a mask on the way of a tensor."""

    def __init__(self, kept: int, *sizes: int):
        super().__init__(*sizes)
        way = nn.Module()
        way.register_buffer("mask", torch.arange(self.weight.numel()).reshape(self.weight.shape) < kept)
        self.ways = nn.ModuleDict({"weight": way})


def test_parameters_that_no_mask_sets_to_zero():
    model = nn.Sequential(Masked(7, 5, 4), nn.Linear(4, 3), Masked(2, 3, 3))
    found = costs(model, torch.zeros(1, 5))
    assert found["params"] == 24 + 15 + 12
    assert found["params_nonzero"] == (7 + 4) + 15 + (2 + 3)


ZOO_PATHS = ["digits_net", "resnet20", "resnet56", "plain20", "vgg16_bn", "mobilenet_v2"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO_PATHS)
def test_the_zoo_as_fvcore_counts_it(name):
    """Within 1 %, as the issue asks; in fact to the last multiplication."""
    from automc.core.study import ModelSpec
    from automc.evaluation.entries import ZOO
    from automc.evaluation.zoo import load_model

    fvcore = pytest.importorskip("fvcore.nn")
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    model, example = load_model(ModelSpec(name)).eval(), torch.zeros(1, *ZOO[name].input_shape)
    operators = fvcore.FlopCountAnalysis(model, example).unsupported_ops_warnings(False).by_operator()
    wanted = sum(operators[kind] for kind in ("conv", "linear", "matmul", "addmm"))
    assert costs(model, example)["macs"] == pytest.approx(wanted, rel=0.01)
    assert costs(model, example)["params"] == fvcore.parameter_count(model)[""]
