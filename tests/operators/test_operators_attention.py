"""The written-out attention is torch's, whatever it is called with; and it loses whole heads."""

import copy

import pytest
import torch
from families import TOKENS, Bert
from torch import nn

from automc.errors import CompressionError
from automc.operators.attention import Attention
from automc.operators.canonical import canonical
from automc.operators.groups.slicing import remove_channels
from automc.operators.layers import trace

# Single precision, sums of at most 32 terms, a few layers.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
FLOAT_MASK = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
BOOL_MASK = torch.ones(5, 7, dtype=torch.bool).triu(3)
PADDING = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])


def attention(**options):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    return layer.eval(), Attention(layer)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 3}])
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"need_weights": False},
        {"average_attn_weights": False},
        {"attn_mask": FLOAT_MASK},
        {"attn_mask": BOOL_MASK, "need_weights": False, "is_causal": False},
        {"attn_mask": torch.stack([FLOAT_MASK, -FLOAT_MASK, FLOAT_MASK / 2, 2 * FLOAT_MASK])},
        {"key_padding_mask": PADDING, "attn_mask": BOOL_MASK},
    ],
)
def test_outputs_and_weights_are_torchs(batch_first, options, call):
    theirs, ours = attention(batch_first=batch_first, **options)
    generator = torch.Generator().manual_seed(2)
    shapes = [(5, 8), (7, options.get("kdim", 8)), (7, options.get("vdim", 8))]
    inputs = [torch.randn(*((2, n, d) if batch_first else (n, 2, d)), generator=generator) for n, d in shapes]
    if call.get("key_padding_mask") is not None:
        call = {**call, "key_padding_mask": PADDING.float().mul(-1e9), "attn_mask": BOOL_MASK.float().mul(-1e9)}
    with torch.no_grad():
        for a, b in zip(ours(*inputs, **call), theirs(*inputs, **call), strict=True):
            if b is None:
                assert a is None
            else:
                torch.testing.assert_close(a, b, **CLOSE)


def test_bool_padding_and_inputs_without_a_batch():
    theirs, ours = attention(batch_first=True)
    x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for need in (True, False):
            a, b = (layer(x, x, x, key_padding_mask=PADDING, need_weights=need)[0] for layer in (ours, theirs))
            torch.testing.assert_close(a, b, **CLOSE)
        single = [layer(x[0], x[0], x[0], key_padding_mask=PADDING[0]) for layer in (ours, theirs)]
        for a, b in zip(*single, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)


def test_a_causal_hint_needs_its_mask():
    theirs, ours = attention(batch_first=True)
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(4))
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    with torch.no_grad():
        a, b = (layer(x, x, x, attn_mask=causal, is_causal=True, need_weights=False)[0] for layer in (ours, theirs))
        torch.testing.assert_close(a, b, **CLOSE)
    with pytest.raises(CompressionError, match="is_causal is a hint about attn_mask, and attn_mask is None; give both"):
        ours(x, x, x, is_causal=True)


def test_gradients_are_torchs():
    theirs, ours = attention(batch_first=True)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(5))
    for layer in (theirs, ours):
        layer(x, x, x)[0].square().sum().backward()
    torch.testing.assert_close(
        torch.cat([ours.query.weight.grad, ours.key.weight.grad, ours.value.weight.grad]),
        theirs.in_proj_weight.grad,
        **CLOSE,
    )
    torch.testing.assert_close(ours.out.bias.grad, theirs.out_proj.bias.grad, **CLOSE)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True", "ignore:The PyTorch API of nested tensors")
def test_a_transformer_encoder_with_masks(norm_first):
    torch.manual_seed(6)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2).eval()
    equal = canonical(model)
    assert [type(m) for m in equal.modules()].count(Attention) == 2
    assert not any(isinstance(m, nn.MultiheadAttention) for m in equal.modules())
    assert any(isinstance(m, nn.MultiheadAttention) for m in model.modules())  # the model is not changed
    x = torch.randn(2, 7, 8)
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    for call in ({}, {"mask": causal}, {"src_key_padding_mask": PADDING}):
        with torch.no_grad():
            a, b = equal(x, **call), model(x, **call)
        real = ~PADDING if "src_key_padding_mask" in call else torch.ones(2, 7, dtype=torch.bool)
        torch.testing.assert_close(a[real], b[real], **CLOSE)


def test_a_whole_transformer_with_its_cross_attention():
    torch.manual_seed(7)
    model = nn.Transformer(8, 2, 1, 1, 12, batch_first=True).eval()
    equal = canonical(model)
    assert [type(m) for m in equal.modules()].count(Attention) == 3
    source, target = torch.randn(2, 6, 8), torch.randn(2, 4, 8)
    with torch.no_grad():
        torch.testing.assert_close(equal(source, target), model(source, target), **CLOSE)


def test_bert_is_traced_in_its_canonical_form():
    torch.manual_seed(9)
    model, inputs = Bert(depth=1).eval(), torch.randint(TOKENS, (2, 6))
    assert canonical(model.layers[0].linear1) is model.layers[0].linear1
    equal = canonical(model)
    with torch.no_grad():
        torch.testing.assert_close(equal(inputs), model(inputs), **CLOSE)
    names = {layer.name for layer in trace(equal, inputs).table.layers}
    assert {f"layers.0.self_attn.{part}" for part in ("query", "key", "value", "out")} < names
    assert len(trace(model, inputs).table.layers) == len(names) - 4  # without it, attention is no layer


def test_what_cannot_be_written_out_stays():
    class Own(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    model = nn.Sequential(Own(8, 2))
    assert canonical(model) is model
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        layer = nn.MultiheadAttention(8, 2, **options)
        assert canonical(layer) is layer
    shared = nn.ModuleList([nn.MultiheadAttention(8, 2)] * 2)
    twice = canonical(shared)
    assert twice[0] is twice[1]


def test_a_pruned_head_is_gone_from_all_four_layers():
    """Against torch's own attention with the other heads' rows copied into a smaller one."""
    torch.manual_seed(8)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 2)

        def forward(self, x):
            return self.head(self.attention(x, x, x, need_weights=False)[0])

    model = Net().eval()
    nn.init.normal_(model.attention.in_proj_bias)
    small = canonical(model)
    x = torch.randn(2, 5, 12)
    found = trace(small, x)
    group = found.table.group("attention.query")
    assert (group.channels, group.producers) == (3, tuple(f"attention.{part}" for part in ("query", "key", "value")))
    remove_channels(small, found.plans, {group.name: [1]})
    assert small.attention.query.weight.shape == (8, 12)
    wanted = copy.deepcopy(model)
    with torch.no_grad():
        wanted.attention.out_proj.weight[:, 4:8] = 0
        torch.testing.assert_close(small(x), wanted(x), **CLOSE)
    assert {cut.full for cut in found.plans[group.name].cuts} == {""}  # nothing has to be translated
