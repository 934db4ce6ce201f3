"""The live kinds of torch's layers, and turning a layer into its live kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from automc.errors import CompressionError
from automc.operators.live import UNTOUCHED, LiveLayer, LiveWeight


class _LiveConv(LiveLayer):
    _conv_forward: Any

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = self._conv_forward(self._rounded(input), self.used("weight"), self.bias)
        return product


class LiveConv1d(_LiveConv, nn.Conv1d):
    """A live Conv1d."""


class LiveConv2d(_LiveConv, nn.Conv2d):
    """A live Conv2d."""


class LiveConv3d(_LiveConv, nn.Conv3d):
    """A live Conv3d."""


class _LiveTransposed(LiveLayer):
    _output_padding: Any

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        layer: Any = self
        sizes = (layer.stride, layer.padding, layer.kernel_size, len(layer.kernel_size), layer.dilation)
        padding = self._output_padding(input, output_size, *sizes)
        product: Tensor = _TRANSPOSED[len(layer.kernel_size)](
            self._rounded(input),
            self.used("weight"),
            layer.bias,
            layer.stride,
            layer.padding,
            padding,
            layer.groups,
            layer.dilation,
        )
        return product


_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class LiveConvTranspose1d(_LiveTransposed, nn.ConvTranspose1d):
    """A live ConvTranspose1d."""


class LiveConvTranspose2d(_LiveTransposed, nn.ConvTranspose2d):
    """A live ConvTranspose2d."""


class LiveConvTranspose3d(_LiveTransposed, nn.ConvTranspose3d):
    """A live ConvTranspose3d."""


class LiveLinear(LiveLayer, nn.Linear):
    """A live Linear."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self._rounded(input), self.used("weight"), self.bias)


class _LiveRecurrent(LiveLayer):
    _flat_weights: list[Any]
    _flat_weights_names: list[str]

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        kept = self._flat_weights
        self._flat_weights = [self.used(name) for name in self._flat_weights_names]
        try:
            return super().forward(self._packed_or_not(input), hx)
        finally:
            self._flat_weights = kept

    def _packed_or_not(self, input: Any) -> Any:
        if isinstance(input, PackedSequence):
            return input._replace(data=self._rounded(input.data))
        return self._rounded(input)


class LiveLSTM(_LiveRecurrent, nn.LSTM):  # type: ignore[misc]
    """A live LSTM."""


class LiveGRU(_LiveRecurrent, nn.GRU):  # type: ignore[misc]
    """A live GRU."""


_LIVE: tuple[tuple[type[nn.Module], type[LiveLayer]], ...] = (
    (nn.Conv1d, LiveConv1d),
    (nn.Conv2d, LiveConv2d),
    (nn.Conv3d, LiveConv3d),
    (nn.ConvTranspose1d, LiveConvTranspose1d),
    (nn.ConvTranspose2d, LiveConvTranspose2d),
    (nn.ConvTranspose3d, LiveConvTranspose3d),
    (nn.Linear, LiveLinear),
    (nn.LSTM, LiveLSTM),
    (nn.GRU, LiveGRU),
)


def live(layer: nn.Module) -> LiveLayer:
    """Turn a layer into its live kind, in place: it keeps its path, parameters and hooks. A live one stays as it is.

    Its ways are plain, its bits untouched. A layer of a subclass stays one of that class, with its methods.

    Raises:
        CompressionError: it is no Conv1d/2d/3d, ConvTranspose1d/2d/3d, Linear, LSTM or GRU.
    """
    if isinstance(layer, LiveLayer):
        return layer
    found = next(((plain, kind) for plain, kind in _LIVE if isinstance(layer, plain)), None)
    if found is None:
        raise CompressionError(f"a {type(layer).__name__} has no live kind, so its weights cannot be compressed")
    plain, kind = found
    layer.__class__ = kind if type(layer) is plain else _both(kind, type(layer))
    assert isinstance(layer, LiveLayer)
    layer.weight_bits = layer.activation_bits = UNTOUCHED
    layer.input_quantizer, layer.frozen, layer.norm = None, False, ""
    layer.ways = nn.ModuleDict({name: LiveWeight() for name in weight_names(layer)})
    layer.ways.train(layer.training)
    return layer


_MADE: dict[tuple[type[LiveLayer], type[nn.Module]], type[LiveLayer]] = {}


def _both(kind: type[LiveLayer], own: type[nn.Module]) -> type[LiveLayer]:
    """The live kind of a user's subclass of a torch layer: both classes, the live kind first.

    It lies in no module, so that pickling an instance says which two classes it is made of.
    """
    if (kind, own) in _MADE:
        return _MADE[kind, own]

    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        whole: Any = own.__reduce_ex__(self, 2)  # maker, its arguments, the state
        return (_blank, (kind, own), *whole[2:])

    name = own.__name__
    made = type(f"Live{name}", (kind, own), {"__reduce_ex__": reduce, "__doc__": f"A live {name}."})
    return _MADE.setdefault((kind, own), made)


def _blank(kind: type[LiveLayer], own: type[nn.Module]) -> nn.Module:
    made = _both(kind, own)
    return made.__new__(made)


def shared_weights(model: nn.Module) -> set[int]:
    """Ids of the parameters that lie in several modules, or under several names of one: tied weights."""
    owners = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    return {key for key, count in owners.items() if count > 1 and key != id(None)}


def weight_names(layer: nn.Module) -> list[str]:
    """Names of a layer's weight matrices and filters: ``weight``, or those of a recurrent layer."""
    return [name for name, tensor in layer.named_parameters(recurse=False) if name.startswith("weight")]
