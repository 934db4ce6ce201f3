"""Layer removal: which modules are blocks, what is left without them, and what that means for the other operators."""

import copy
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from families import FAMILIES
from nets import make
from torch import Tensor, nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import ORDER
from automc.operators.base import Compression, compress, order_of
from automc.operators.blocks import find_blocks
from automc.operators.canonical import canonical
from automc.operators.drop import Dropped
from automc.operators.layers import trace


def blocks_of(model: nn.Module, inputs: Tensor) -> list[str]:
    return [block.name for block in trace(model.eval(), inputs).table.blocks]


def state_of(model: nn.Module, inputs: Tensor) -> Compression:
    return Compression(model, model, trace(model, inputs), inputs)


def dropping(*names: str) -> dict[Site, bool]:
    return {Site("drop", name, "dropped"): True for name in names}


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("resnet_a", ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]),
        ("resnet_b", ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]),
        ("mobilenet", ["blocks.1", "blocks.3"]),
        ("shufflenet", ["blocks.0"]),
        ("vit", ["blocks.0", "blocks.1"]),
        ("bert", ["layers.0", "layers.1"]),
        *((family, []) for family in ("densenet", "vgg", "lstm", "unet", "detector")),
    ],
)
def test_the_blocks_of_a_family(family, blocks):
    model, inputs = FAMILIES[family]()
    before = copy.deepcopy(model.state_dict())
    table = trace(model, inputs).table
    assert [block.name for block in table.blocks] == blocks
    for block in table.blocks:
        assert block.layers == tuple(layer.name for layer in table.layers if layer.name.startswith(block.name + "."))
        assert block.params == sum(p.numel() for p in model.get_submodule(block.name).parameters())
        assert block.macs == sum(table.layer(name).macs for name in block.layers)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Add(nn.Module):
    """``after(x * gain + inner(before(x)))``, or what another rule makes of x and the inner result."""

    def __init__(self, inner: nn.Module, rule=torch.add) -> None:
        super().__init__()
        self.inner, self.rule = inner, rule

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.rule(x * scale, self.inner(x))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))


class Twice(nn.Module):
    """One block that runs twice, one that shares a layer with the head, and one that is free."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.sharing, self.free = Add(mlp()), Add(nn.Linear(6, 6)), Add(mlp())
        self.head = self.sharing.inner

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.free(self.sharing(self.again(self.again(x))), scale=0.5))


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (lambda: Add(mlp()), True),
        (lambda: Add(mlp(), lambda x, y: F.relu(x + y)), True),
        (lambda: Add(mlp(), lambda x, y: F.layer_norm(x + y, (6,))), True),
        (lambda: Add(mlp(), lambda x, y: x + 0.1 * y), True),
        (lambda: Add(mlp(), torch.mul), False),
        (lambda: Add(mlp(), lambda x, y: x * torch.sigmoid(y)), False),
        (lambda: Add(mlp(), lambda x, y: torch.cat([x[:, :3], y[:, 3:]], 1)), False),
        (mlp, False),
    ],
    ids=["sum", "relu", "post_norm", "scaled", "product", "gate", "half", "chain"],
)
def test_a_shortcut_is_told_from_a_gate_a_concatenation_and_a_chain(block, found):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(block()), nn.Linear(6, 3))
    assert blocks_of(model, torch.randn(4, 6)) == (["1.0"] if found else [])


def test_a_block_that_was_trained_to_nothing_is_still_one():
    model = nn.Sequential(nn.Linear(6, 6), Add(mlp()), nn.Linear(6, 3))
    nn.init.zeros_(model[1].inner[2].weight)
    nn.init.zeros_(model[1].inner[2].bias)
    assert blocks_of(model, torch.randn(4, 6)) == ["1"]


def test_what_runs_twice_or_shares_a_layer_is_no_block():
    assert blocks_of(Twice(), torch.randn(4, 6)) == ["free"]


def test_a_network_with_whole_numbers_and_a_dictionary():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.block, self.head = nn.Embedding(9, 6), Add(mlp()), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": self.head(self.block(self.tokens(x)))}

    model, inputs = Named().eval(), torch.randint(9, (4, 5))
    state = state_of(model, inputs)
    after = compress(state, Policy(dropping("block")), ORDER)
    assert torch.equal(after.model(inputs)["scores"], model.head(model.tokens(inputs)))


def test_without_its_blocks_a_network_is_what_is_left_of_it():
    model, inputs = FAMILIES["vit"]()
    state = state_of(model, inputs)
    after = compress(
        state, Policy(dropping("blocks.0", "blocks.1") | {Site("drop", "blocks.1", "dropped"): False}), ORDER
    )
    x = torch.cat([model.cls_token.expand(4, -1, -1), model.patch(inputs).flatten(2).transpose(1, 2)], 1)
    wanted = model.head(model.norm(model.blocks[1](x + model.position))[:, 0])
    torch.testing.assert_close(after.model(inputs), wanted, rtol=1e-5, atol=1e-5)  # single precision, two attentions
    assert isinstance(after.model.blocks[0], Dropped)
    assert after.stale
    gone = {name: {"dropped": True} for name in ("blocks.0", *state.trace.table.blocks[0].layers)}
    assert after.realized == {**gone, "blocks.1": {"dropped": False}}


def test_nothing_is_stale_where_nothing_goes():
    state = state_of(*make("resnet_b"))
    after = compress(state, Policy({Site("drop", "layer1.0", "dropped"): False}), ORDER)
    assert torch.equal(after.model(state.calibration), state.model(state.calibration))
    assert (after.stale, after.realized) == (False, {"layer1.0": {"dropped": False}})


@pytest.mark.parametrize("form", [lambda model: model, canonical], ids=["fused", "canonical"])
def test_every_layer_of_torch_s_encoder_can_go(form):
    """nn.TransformerEncoder asks its first layer which axis is the batch."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model, inputs = nn.Sequential(nn.Linear(5, 8), encoder, nn.Linear(8, 3)).eval(), torch.randn(4, 6, 5)
    model = form(model)
    state = state_of(model, inputs)
    assert [block.name for block in state.trace.table.blocks] == ["1.layers.0", "1.layers.1"]
    after = compress(state, Policy(dropping("1.layers.0", "1.layers.1")), ORDER)
    torch.testing.assert_close(after.model(inputs), model[2](model[0](inputs)))


ALL = {"prune": ("prune_ratio", 0.5), "quantize": ("weight_bits", 4), "sparsify": ("sparsity", 0.5)}


def joint(state: Compression, gone: list[str]) -> Policy:
    table = state.trace.table
    values: dict[Site, object] = dict(dropping(*gone))
    for operator, (setting, value) in ALL.items():
        names = [group.name for group in table.groups] if operator == "prune" else [x.name for x in table.layers]
        values |= {Site(operator, name, setting): value for name in names}
    return Policy(values)


@pytest.mark.parametrize("family", ["resnet_a", "resnet_b", "mobilenet"])
@pytest.mark.parametrize("order", list(permutations(("drop", "prune", "quantize"))), ids=" ".join)
def test_in_any_order_a_dropped_block_takes_its_settings_along(family, order):
    """The result has the parameters that pruning without the block leaves, counted on a network built by hand."""
    state = state_of(*FAMILIES[family]())
    gone = [block.name for block in state.trace.table.blocks][::2]
    inside = {name for block in state.trace.table.blocks if block.name in gone for name in block.layers}
    after = compress(state, joint(state, gone), (*order, "sparsify"))
    assert all(isinstance(after.model.get_submodule(name), Dropped) for name in gone)
    assert all(
        after.realized[name] == {"dropped": True} for name in (*gone, *inside) if not _alive(state, name, inside)
    )
    assert not any("weight_bits" in after.realized[name] for name in inside)
    whole = compress(state, joint(state, []), (*order, "sparsify"))
    left = {
        name: p.shape for name, p in whole.model.named_parameters() if not name.startswith(tuple(f"{n}." for n in gone))
    }
    assert {name: p.shape for name, p in after.model.named_parameters()} == left


def _alive(state: Compression, name: str, inside: set[str]) -> bool:
    """The layer gives its name to a group that has producers elsewhere."""
    return any(g.name == name and not set(g.producers) <= inside for g in state.trace.table.groups)


def test_pruned_behind_a_dropped_block_equals_dropped_behind_a_pruned_one():
    """With random weights taken the same way, the order of drop and prune does not matter for what is inside."""
    state = state_of(*FAMILIES["vit"]())
    policy = Policy(
        dropping("blocks.0")
        | {Site("prune", g.name, "prune_ratio"): 0.5 for g in state.trace.table.groups if g.name.startswith("blocks")}
    )
    one, two = (compress(state, policy, order).model for order in (("drop", "prune"), ("prune", "drop")))
    assert torch.equal(one(state.calibration), two(state.calibration))


def test_what_is_no_block_is_refused_with_the_nearest():
    state = state_of(*make("resnet_b"))
    with pytest.raises(CompressionError, match=r"^drop: no block 'layer1', did you mean 'layer\d.1'\?$"):
        compress(state, Policy(dropping("layer1")), ORDER)
    with pytest.raises(CompressionError, match=r"drop\(layer1.0\).dropped must be in \{false, true\}, not 1"):
        compress(state, Policy({Site("drop", "layer1.0", "dropped"): 1}), ORDER)


def test_settings_inside_a_dropped_block_are_checked_all_the_same():
    state = state_of(*make("resnet_b"))
    values = dropping("layer1.0") | {Site("quantize", "layer1.0.conv1", "weight_bits"): 9}
    with pytest.raises(CompressionError, match=r"quantize\(layer1.0.conv1\).weight_bits must be in"):
        compress(state, Policy(values), ORDER)


def test_a_policy_s_own_order_wins_and_must_be_one():
    state = state_of(*make("resnet_b"))
    values = {Site("prune", "layer1.0.conv1", "prune_ratio"): 0.5, Site("quantize", "layer1.0.conv1", "weight_bits"): 3}

    def under(order: str) -> Compression:
        return compress(state, Policy(values | {Site("order", "*", "order"): order}), ORDER)

    assert order_of(Policy(values), ORDER) == ORDER
    early = compress(state, Policy(values), ("quantize", "prune"))
    assert torch.equal(under("quantize prune").model(state.calibration), early.model(state.calibration))
    for order, message in (
        ("prune", r"names 'quantize', which the order \['prune'\] leaves out"),
        ("prune prune quantize", "names prune twice"),
        ("prune quantise", "unknown operator 'quantise', did you mean 'quantize'"),
        ("prune quantize factorize", "has factorize after quantize, but it must come first: move it before quantize"),
    ):
        with pytest.raises(CompressionError, match=message):
            under(order)


def test_blocks_are_found_alike_with_and_without_gradients():
    model, inputs = FAMILIES["bert"]()
    layers = trace(model, inputs).table.layers
    with torch.inference_mode():
        first = find_blocks(model, inputs, layers)
    assert first == find_blocks(model, inputs, layers)
    assert len(first) == 2


@pytest.mark.parametrize("criterion", ["l1", "bn_scale", "taylor", "apoz", "thinet", "tp_magnitude"])
def test_what_an_earlier_trial_dropped_does_not_change_the_scores_of_a_later_one(criterion):
    state = state_of(*FAMILIES["resnet_b"]())
    group, block = state.trace.table.groups[0].name, state.trace.table.blocks[0].name
    pruned = Policy({Site("prune", group, "prune_ratio"): 0.5, Site("prune", group, "criterion"): criterion})
    dropped = Policy({**pruned, Site("drop", block, "dropped"): True})
    fresh = compress(replace(state, memory={}), pruned, ORDER).model.state_dict()
    compress(state, dropped, ORDER)
    after = compress(state, pruned, ORDER).model.state_dict()
    assert all(torch.equal(after[key], fresh[key]) for key in fresh)
    assert {key: tensor.shape for key, tensor in after.items()} == {key: tensor.shape for key, tensor in fresh.items()}
