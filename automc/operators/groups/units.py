"""Finding groups without a graph: which channels of one layer depend on which of another is measured.

Between two layers the forward of a network is any Python at all. So cut the network at every layer: what a layer gives
is replaced by fresh random numbers, and gradients say which of them each channel of the next layer's input depends on.
Channels that are connected through such dependences form a unit, which can only go as a whole: a single channel
of a feed-forward layer, a whole head of an attention with its rows of a fused query-key-value layer, a hidden unit
of an LSTM. Norms mix channels, but they are cut like layers and prune along, so they end a connection too.

A dependence that exists has a gradient that is not zero for almost all numbers; where rectifiers let little pass, the
network runs several times. What is missed all the same, the proof finds (proof.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.rnn import PackedSequence

from automc.operators.groups.adapters import find_adapters
from automc.operators.groups.ports import channel_axis
from automc.operators.outputs import tensors_of

_POSITIONS = 32
"""Numbers that are drawn for a channel, at least: as many rectifiers let nothing pass once in 2^32."""
_NODES = (nn.Linear, _ConvNd, _NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU, nn.Embedding, nn.LSTM, nn.GRU)
_SEED = 0

Port = tuple[str, str]
"""A side of a layer: its path, and ``in`` or ``out``."""


@dataclass
class _Wire:
    """One tensor that enters or leaves a layer, and the axis of its channels; ``copies`` of each channel lie on it."""

    tensor: Tensor
    axis: int
    copies: int = 1

    @property
    def width(self) -> int:
        return self.tensor.shape[self.axis] // self.copies

    @property
    def places(self) -> int:
        """How many numbers a channel has."""
        return self.tensor.numel() // max(self.width, 1)

    def channels(self, values: Tensor) -> Tensor:
        """For every channel, whether something of it is not zero; bool, shape (channels,)."""
        hit = (values != 0).movedim(self.axis, 0).flatten(1).any(1)
        return hit.view(self.copies, -1).any(0)

    def at(self, channels: Tensor, generator: torch.Generator) -> Tensor:
        """Random numbers at these channels (bool, shape (channels,)), zeros elsewhere."""
        mask = channels.repeat(self.copies)
        shape = [-1 if axis == self.axis % self.tensor.dim() else 1 for axis in range(self.tensor.dim())]
        noise = torch.rand(self.tensor.shape, generator=generator, dtype=self.tensor.dtype) + 0.5
        return noise.to(self.tensor.device) * mask.to(self.tensor).view(shape)


@dataclass
class Measured:
    """One run of the network, cut at its layers.

    Attributes:
        ports: whose wires are kept; None for all. wires: what entered and left there. outputs: of the network.
    """

    ports: Set[Port] | None = None
    wires: dict[Port, list[_Wire]] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)

    def keep(self, port: Port, wire: _Wire) -> None:
        if self.ports is None or port in self.ports:
            self.wires.setdefault(port, []).append(wire)


class Units:
    """The dependences between the layers of one network.

    Args:
        model: in eval mode, with random weights; not changed. inputs: what its forward takes, n >= 1.

    Attributes:
        widths: by port, how many channels it has. reach: by ``in`` port, the ``out`` ports that matter to it.
    """

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self._model = copy.deepcopy(model).requires_grad_(False)
        self._adapters = find_adapters(model, inputs)
        self._generator = torch.Generator().manual_seed(_SEED)
        self._runs = [self._measure(inputs, None)]
        first = self._runs[0].wires
        self.widths = {port: wires[0].width for port, wires in first.items()}
        self.reach = {port: set(self.touched(port)) for port in first if port[1] == "in"}
        self._run_again(inputs)

    def _run_again(self, inputs: Tensor) -> None:
        """Where a dependence had few places to show, let it show in more runs; only what is needed of them is kept."""
        places = {port: sum(wire.places for wire in wires) for port, wires in self._runs[0].wires.items()}
        fewest = {
            port: min(places[port], *(places[maker] for maker in makers))
            for port, makers in self.reach.items()
            if makers
        }
        ports = {port for port, count in fewest.items() if count < _POSITIONS}
        ports |= {maker for port in ports for maker in self.reach[port]}
        runs = -(-_POSITIONS // max(min(fewest.values(), default=_POSITIONS), 1)) - 1
        self._runs += [self._measure(inputs, ports) for _ in range(runs)]

    def touched(self, reader: Port | None, channels: Tensor | None = None) -> dict[Port, Tensor]:
        """What these channels of a layer's input, or of the network's output (None), depend on.

        Args:
            channels: bool, shape (channels,); None for all.

        Returns:
            By the ``out`` port of each layer that matters, bool, shape (channels,).
        """
        found: dict[Port, Tensor] = {}
        for run in self._with(reader):
            leaves = [(port, wire) for port, wires in run.wires.items() if port[1] == "out" for wire in wires]
            ends, seeds = self._ends(run, reader, channels)
            if not ends or not leaves:
                continue
            gradients = torch.autograd.grad(
                ends, [wire.tensor for _, wire in leaves], seeds, retain_graph=True, allow_unused=True
            )
            for (port, wire), gradient in zip(leaves, gradients, strict=True):
                if gradient is not None and bool((hit := wire.channels(gradient)).any()):
                    found[port] = found[port] | hit if port in found else hit
        return found

    def seen(self, reader: Port, makers: dict[Port, Tensor]) -> Tensor:
        """Which channels of a layer's input depend on these channels; bool, shape (channels,).

        The derivative along a direction is the gradient of a gradient that is linear in its seed.
        """
        found = torch.zeros(self.widths[reader], dtype=torch.bool)
        for run in self._with(reader):
            pairs = [(wire, mask) for port, mask in makers.items() for wire in run.wires[port]]
            for end in run.wires[reader]:
                if not end.tensor.requires_grad:
                    continue
                seed = torch.zeros_like(end.tensor, requires_grad=True)
                leaves = [wire.tensor for wire, _ in pairs]
                pulled = torch.autograd.grad(end.tensor, leaves, seed, create_graph=True, allow_unused=True)
                used = [
                    (gradient, wire.at(mask, self._generator))
                    for gradient, (wire, mask) in zip(pulled, pairs, strict=True)
                    if gradient is not None and gradient.requires_grad
                ]
                if not used:
                    continue
                pushed = torch.autograd.grad([g for g, _ in used], seed, [v for _, v in used], allow_unused=True)[0]
                if pushed is not None:
                    found |= end.channels(pushed).cpu()
        return found

    def _ends(self, run: Measured, reader: Port | None, channels: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        if reader is None:
            ends = [tensor for tensor in run.outputs if tensor.requires_grad]
            return ends, [self._weights(tensor) for tensor in ends]
        wires = [wire for wire in run.wires[reader] if wire.tensor.requires_grad]
        masks = torch.ones(self.widths[reader], dtype=torch.bool) if channels is None else channels
        return [wire.tensor for wire in wires], [wire.at(masks, self._generator) for wire in wires]

    def _weights(self, tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=self._generator).to(tensor) + 0.5

    def _with(self, reader: Port | None) -> list[Measured]:
        return [run for run in self._runs if reader is None or reader in run.wires]

    def _measure(self, inputs: Tensor, ports: Set[Port] | None) -> Measured:
        run = Measured(ports)
        with self._cut(run), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            run.outputs = [tensor for tensor in tensors_of(self._model(inputs)) if tensor.is_floating_point()]
        return run

    @contextmanager
    def _cut(self, run: Measured) -> Iterator[None]:
        with ExitStack() as hooks:
            for name, module in self._model.named_modules():
                if isinstance(module, _NODES) or name in self._adapters:
                    hooks.enter_context(module.register_forward_pre_hook(self._entering(run, name)))
                    hooks.enter_context(module.register_forward_hook(self._leaving(run, name)))
            yield

    def _entering(self, run: Measured, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            entered = args[0] if args else None
            tensor = entered.data if isinstance(entered, PackedSequence) else entered
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                return args
            run.keep((name, "in"), _Wire(tensor, channel_axis(module)))
            cut = tensor.detach()
            return (entered._replace(data=cut) if isinstance(entered, PackedSequence) else cut, *args[1:])

        return hook

    def _leaving(self, run: Measured, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            copies = 2 if isinstance(module, nn.RNNBase) and module.bidirectional else 1

            def leaf(tensor: Tensor, copies: int) -> Tensor:
                fresh = torch.randn(tensor.shape, generator=self._generator, dtype=tensor.dtype).to(tensor.device)
                run.keep((name, "out"), _Wire(fresh.requires_grad_(), channel_axis(module), copies))
                return fresh.clone()  # a forward may write into it

            if isinstance(output, Tensor):
                return leaf(output, copies)
            series, state = output
            if isinstance(series, PackedSequence):
                series = series._replace(data=leaf(series.data, copies))
            else:
                series = leaf(series, copies)
            return series, tuple(leaf(s, 1) for s in state) if isinstance(state, tuple) else leaf(state, 1)

        return hook


def partition(units: Units, reader: Port) -> list[tuple[Tensor, dict[Port, Tensor]]]:
    """The finest blocks of a layer's input channels, each with what it depends on, that share nothing.

    Each channel alone needs as many gradients as channels have binary digits: if no channel in front is touched
    both from the channels with a digit 1 and from those with a 0, whatever the digit, each is touched from one
    channel alone, and the digits spell its number. Otherwise blocks grow from one channel until nothing is added.
    """
    return _by_digits(units, reader) or _by_growth(units, reader)


def _by_digits(units: Units, reader: Port) -> list[tuple[Tensor, dict[Port, Tensor]]]:
    count = units.widths[reader]
    numbers = torch.arange(count)
    spelled = {port: torch.zeros(len(hit), dtype=torch.long) for port, hit in units.touched(reader).items()}
    reached = {port: torch.zeros(len(number), dtype=torch.bool) for port, number in spelled.items()}
    for digit in range(max(count - 1, 1).bit_length()):
        ones = (numbers >> digit) % 2 == 1
        high, low = (units.touched(reader, mask) for mask in (ones, ~ones))
        for port, number in spelled.items():
            none = torch.zeros_like(reached[port])
            up, down = high.get(port, none).cpu(), low.get(port, none).cpu()
            if bool((up & down).any()):
                return []
            number += up.long() << digit
            reached[port] |= up | down
    blocks = []
    for channel in range(count):
        makers = {port: (spelled[port] == channel) & reached[port] for port in spelled}
        blocks.append((numbers == channel, {port: mask for port, mask in makers.items() if bool(mask.any())}))
    return blocks


def _by_growth(units: Units, reader: Port) -> list[tuple[Tensor, dict[Port, Tensor]]]:
    left = torch.ones(units.widths[reader], dtype=torch.bool)
    blocks = []
    while bool(left.any()):
        block = torch.zeros_like(left)
        block[int(left.nonzero()[0])] = True
        while True:
            makers = {port: mask.cpu() for port, mask in units.touched(reader, block).items()}
            grown = block | units.seen(reader, makers) if makers else block
            if bool((grown == block).all()):
                break
            block = grown
        blocks.append((block, makers))
        left &= ~block
    return blocks
