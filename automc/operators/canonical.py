"""The form in which networks are compressed: fused modules are written out as plain layers that do the same."""

from __future__ import annotations

import copy

from torch import nn

from automc.operators.attention import Attention


def canonical(model: nn.Module) -> nn.Module:
    """A copy in which every nn.MultiheadAttention is an Attention of four linear layers; without any, the model itself.

    Outputs are those of the original up to rounding, in training and in eval; nn.TransformerEncoder then computes
    padded positions like the others instead of leaving zeros there. An attention with ``add_bias_kv`` or
    ``add_zero_attn``, or of a class with a forward of its own, stays as it is.
    """
    if not any(_plain(module) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    made: dict[nn.Module, Attention] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if _plain(module):
            assert isinstance(module, nn.MultiheadAttention)
            new = made[module] if module in made else made.setdefault(module, Attention(module))
            if not path:
                return new
            model.set_submodule(path, new)
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


def _plain(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.MultiheadAttention)
        and type(module).forward is nn.MultiheadAttention.forward
        and module.bias_k is None
        and not module.add_zero_attn
    )
