"""Layers as users write and call them: subclasses, keywords, tied and computed weights, inputs that are not finite."""

import copy
import pickle

import cloudpickle
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import ORDER, fitting
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.live import LiveLayer
from automc.operators.live_kinds import live


class Tagged(nn.Linear):
    """A subclass with no forward of its own, but with more."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.tag = "mine"

    def total(self):
        return self.weight.sum()


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.up, self.fc = nn.Conv1d(2, 4, 3), nn.ConvTranspose1d(4, 4, 2), Tagged(4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        x = self.up(input=torch.relu(self.conv(input=x)))
        return self.out(input=torch.relu(self.fc(input=x.mean(2))))


def state_of(model, inputs):
    model.eval()
    return Compression(model, model, trace(model, inputs[:2]), inputs)


@pytest.fixture
def inputs():
    return torch.randn(32, 2, 9, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("chosen", [{"rounding": "adaptive"}, {"qat": "lsq"}])
def test_layers_called_by_keyword_are_compressed_like_others(inputs, chosen):
    torch.manual_seed(0)
    state = state_of(ByKeyword(), inputs)
    names = [layer.name for layer in state.trace.table.layers]
    assert names == ["conv", "up", "fc", "out"]
    values = {Site("quantize", n, "weight_bits"): 8 for n in names}
    values |= {Site("quantize", n, "activation_bits"): 8 for n in names}
    values |= {Site("quantize", n, key): value for n in names for key, value in chosen.items()}
    values |= {Site("sparsify", "fc", "sparsity"): 0.25, Site("sparsify", "fc", "method"): "wanda"}
    after = compress(state, Policy(values), ORDER)
    assert after.realized["fc"]["sparsity_method"] == "wanda"
    assert all(isinstance(after.model.get_submodule(n), LiveLayer) for n in names)
    masked = copy.deepcopy(state.model)
    with torch.no_grad():
        masked.fc.weight *= after.model.fc.ways["weight"].mask
        gap = (after.model(inputs) - masked(inputs)).norm() / masked(inputs).norm()
    assert 0 < gap < 0.05  # four layers of 8 bits: each is off by less than a hundredth


def test_a_live_subclass_keeps_its_class_and_travels():
    torch.manual_seed(0)
    plain = Tagged(4, 5)
    x, other = torch.randn(3, 4), Tagged(2, 2)
    wanted = plain(x)
    layer = live(plain)
    assert layer is plain
    assert isinstance(layer, LiveLayer)
    assert isinstance(layer, Tagged)
    assert type(live(other)) is type(layer)
    layer.ways["weight"].mask = layer.weight > 0
    masked = layer(x)
    assert not torch.equal(masked, wanted)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), cloudpickle.loads(cloudpickle.dumps(layer))]
    for twin in copies:
        assert torch.equal(twin(x), masked)
        assert isinstance(twin, LiveLayer)
        assert twin.total() == plain.weight.sum()
        assert twin.tag == "mine"
        assert twin.weight is not layer.weight


def test_a_class_that_cannot_be_imported_travels_by_cloudpickle():
    class Local(nn.Conv2d):
        def total(self):
            return self.weight.sum()

    layer = live(Local(1, 2, 3))
    twin = cloudpickle.loads(cloudpickle.dumps(layer))
    assert torch.equal(twin.total(), layer.total())
    assert torch.equal(twin(torch.ones(1, 1, 4, 4)), layer(torch.ones(1, 1, 4, 4)))


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_computed_weight_makes_a_custom_layer(norm):
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(16, 4)), nn.Linear(4, 2))
    x = torch.zeros(2, 3, 4, 4)
    state = state_of(model, x)
    assert [layer.kind for layer in state.trace.table.layers] == ["custom", "custom", "linear"]
    with pytest.raises(CompressionError, match="quantize: '0' is of kind custom"):
        compress(state, Policy({Site("quantize", "0", "weight_bits"): 4}), ORDER)


def test_a_computed_recurrent_weight_makes_a_custom_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = nn.GRU(4, 4, batch_first=True)
            self.normed = parametrizations.weight_norm(nn.LSTM(4, 4, batch_first=True), "weight_hh_l0")

        def forward(self, x):
            return self.normed(input=self.plain(input=x)[0])[0]

    table = trace(Net(), torch.zeros(2, 5, 4)).table
    assert [layer.kind for layer in table.layers] == ["gru", "custom"]


NOT_FINITE = [
    ("quantize", {"activation_bits": 4}, "activation_bits"),
    *(("quantize", {"activation_bits": 4, "activation_range": rule}, "activation_bits") for rule in ("kl", "minmax")),
    ("quantize", {"weight_bits": 4, "rounding": "adaptive"}, "rounding"),
    ("sparsify", {"sparsity": 0.5, "method": "obs"}, "method"),
    ("sparsify", {"sparsity": 0.5, "method": "wanda"}, "method"),
    ("factorize", {"rank_ratio": 0.5, "method": "svd", "data_aware": True}, "data_aware"),
]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("operator", "chosen", "setting"), NOT_FINITE)
def test_inputs_that_are_not_finite_are_an_error_with_the_layers_name(operator, chosen, setting, value):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    x[70, 3] = value  # neither in the first batch nor in the last
    x[5, 3] = value if setting == "rounding" else x[5, 3]  # that looks at the first 128 inputs alone
    state = state_of(model, x)
    values = {Site(operator, "0", key): given for key, given in chosen.items()}
    with pytest.raises(CompressionError, match=rf"{operator}\(0\)\.{setting}: the layer's inputs are NaN or infinite"):
        compress(state, Policy(values), ORDER)


def test_incremental_quantizers_are_wrapped_anew_and_memory_is_bounded(inputs, monkeypatch):
    torch.manual_seed(0)
    state = state_of(ByKeyword(), inputs)
    names = [layer.name for layer in state.trace.table.layers]

    def policy(bits, qat):
        each = {"weight_bits": bits, "qat": qat}
        return Policy({Site("quantize", n, key): value for n in names for key, value in each.items()})

    plain = compress(state, policy(4, "ste"), ORDER)
    count = len(state.memory)
    first = compress(state, policy(4, "incremental"), ORDER).model
    assert len(state.memory) == count  # both have the same one inside
    weights = {parameter.shape for parameter in state.model.parameters() if parameter.dim() > 1}
    kept = [made for made in state.memory.values() if isinstance(made, nn.Module)]
    assert not any(tensor.shape in weights for made in kept for tensor in made.state_dict().values())
    assert torch.equal(first.eval()(inputs), plain.model(inputs))
    monkeypatch.setattr(fitting, "_KEPT", 0)
    wanted = {bits: compress(state, policy(bits, "incremental"), ORDER).model(inputs) for bits in (4, 3)}
    assert len(state.memory) == count
    monkeypatch.undo()
    for bits, outputs in wanted.items():
        assert torch.equal(compress(state, policy(bits, "incremental"), ORDER).model(inputs), outputs)
    assert len(state.memory) > count
