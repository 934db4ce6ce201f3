"""What a graph file may call: operators of aten that compute tensors from tensors, and arithmetic of sizes.

None reads or writes anything outside its arguments, makes random numbers or frees memory. A name stands for all of its
overloads. Loads no torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

_NAMES = """
abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d add add_ addbmm addcdiv addcmul addmm addmv affine_grid_generator alias all
alpha_dropout amax amin aminmax any arange argmax argmin argsort asin asinh atan atan2 atanh avg_pool1d
avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_to bucketize cat
cdist ceil ceil_ celu celu_ channel_shuffle chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone
column_stack concat concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d copy_ cos cosh cosine_similarity cross cumprod cumsum deg2rad detach detach_ diag diag_embed diagonal
diff div div_ divide dot dropout dropout_ dstack einsum elu elu_ embedding eq erf erfc exp exp2 exp_ expand expand_as
expm1 eye feature_alpha_dropout feature_dropout fill fill_ flatten flip fliplr flipud float_power floor floor_
floor_divide fmax fmin fmod frac full full_like gather gcd ge gelu gelu_ glu greater greater_equal grid_sampler
grid_sampler_2d group_norm gru gt hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_
heaviside hstack hypot im2col col2im index index_add index_copy index_fill index_put index_select inner instance_norm
isfinite isinf isnan item kron l1_loss layer_norm le leaky_relu leaky_relu_ lerp less less_equal lift_fresh
lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp
logical_and logical_not logical_or logical_xor logit logsumexp lstm lt masked_fill masked_fill_ masked_scatter matmul
max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean median meshgrid min minimum mish mish_ mm
movedim mse_loss mul mul_ multiply mv narrow ne neg neg_ negative new_full new_ones new_zeros norm not_equal numpy_T
mT mH one_hot ones ones_like outer pad permute pixel_shuffle pixel_unshuffle pow prelu prod ravel reciprocal
reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 relu6_ relu_ remainder repeat repeat_interleave
replication_pad1d replication_pad2d replication_pad3d reshape reshape_as rms_norm rnn_relu rnn_tanh roll rot90 round
round_ rsqrt rsqrt_ rsub scaled_dot_product_attention scatter scatter_add scatter_reduce select select_scatter selu
selu_ sigmoid sigmoid_ sign silu silu_ sin sinh slice slice_scatter smooth_l1_loss softmax softplus softshrink sort
split split_with_sizes sqrt square square_ squeeze stack std std_mean sub sub_ subtract sum swapaxes swapdims
sym_numel sym_size t tan tanh tanh_ tensor_split threshold threshold_ tile to topk transpose tril triu true_divide
trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d
upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean vdot view
view_as vstack where zeros zeros_like _to_copy _unsafe_view _softmax _log_softmax _upsample_bilinear2d_aa
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
"""

ATEN = frozenset(_NAMES.split())
"""Without overloads."""

LISTS = frozenset(
    ("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split"),
)
"""Those that make as many tensors as an argument or a size says."""

ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
}
"""Of numbers only."""

GETITEM = "getitem"

_OTHERS = frozenset(("dim_max", "dim_min", "dim_values", "values", "values_stable", "data"))
"""Overloads that write into a tensor given for the result and do not have ``out`` among the words of their name, and
those of packed sequences.
"""

CHECKS = frozenset(
    (
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    )
)
"""What the exporter adds to a graph that computes nothing: left out."""


def allowed(name: str) -> bool:
    """Whether a graph may call ``aten.NAME.OVERLOAD``, ``operator.NAME`` or ``operator.getitem``."""
    room, _, rest = name.partition(".")
    if room == "operator":
        return rest in ARITHMETIC or rest == GETITEM
    base, _, overload = rest.partition(".")
    plain = overload.isidentifier() and overload[0] != "_" and "out" not in overload.split("_")
    return room == "aten" and base in ATEN and plain and overload not in _OTHERS
