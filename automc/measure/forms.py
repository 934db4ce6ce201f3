"""A layer as the latency table knows it, and as an ONNX file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.measure.walk import Walk

OPSET = 18


@dataclass(frozen=True, order=True)
class Form:
    """What decides how long a convolution or linear layer takes in a float graph.

    Attributes:
        kind: ``conv``, ``transposed`` or ``linear``. inputs, outputs: channels or features.
        groups: 0 for depthwise (one group a channel). places: spatial input shape; leading axes of a linear's input.
        kernel, stride, padding, dilation: one number a spatial axis (padding: of both ends).
        rounded: its input goes through the rounding operations that export writes for any number of activation bits:
            one float graph, whatever the bits, until exports compute with integers.
    """

    kind: str
    inputs: int
    outputs: int
    groups: int
    places: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    rounded: bool = False

    def at(self, inputs: int, outputs: int) -> Form:
        """The same layer with other widths; the two must be equal where it is depthwise."""
        return replace(self, inputs=inputs, outputs=outputs)

    def family(self, batch: int) -> str:
        """Its name in the table but for the widths, with the inputs of a run: ``conv g1 8x8 3x3 ... float n1``."""
        parts = (self.places, self.kernel, self.stride, self.padding, self.dilation)
        shown = " ".join("x".join(map(str, part)) or "-" for part in parts)
        return f"{self.kind} g{self.groups} {shown} {'rounded' if self.rounded else 'float'} n{batch}"


def forms(walked: Walk) -> Iterator[tuple[str, Form, int]]:
    """The network's convolutions and linear layers in order of execution: name, form, calls of one forward."""
    for name, work in walked.work.items():
        module = walked.model.get_submodule(name)
        rounded = getattr(module, "input_quantizer", None) is not None
        if isinstance(module, nn.Linear):
            yield name, _linear(module, work.shape, rounded), work.calls
        elif isinstance(module, _ConvNd):
            yield name, _convolution(module, work.shape, rounded), work.calls


def onnx_file(form: Form) -> bytes:
    """A network of this one layer, with a free batch axis and random weights under a fixed seed.

    The rounding of the input is written as export writes an InputQuantizer.
    """
    rng, parts = np.random.default_rng(0), _Parts([], [])
    groups = form.groups or form.inputs
    last = _rounding(parts) if form.rounded else "input"
    if form.kind == "linear":
        shape: tuple[int, ...] = (form.outputs, form.inputs)
    elif form.kind == "transposed":
        shape = (form.inputs, form.outputs // groups, *form.kernel)
    else:
        shape = (form.outputs, form.inputs // groups, *form.kernel)
    weight = rng.standard_normal(shape, np.float32) / prod(shape[1:]) ** 0.5
    bias = parts.constant("bias", rng.standard_normal(form.outputs, np.float32))
    if form.kind == "linear" and form.places:
        parts.node("MatMul", [last, parts.constant("weight", weight.T.copy())], "product")
        parts.node("Add", [bias, "product"], "output")
    elif form.kind == "linear":
        parts.node("Gemm", [last, parts.constant("weight", weight), bias], "output", transB=1)
    else:
        kind = "ConvTranspose" if form.kind == "transposed" else "Conv"
        settings: dict[str, Any] = {"kernel_shape": form.kernel, "strides": form.stride, "dilations": form.dilation}
        settings |= {"pads": form.padding * 2, "group": groups}
        parts.node(kind, [last, parts.constant("weight", weight), bias], "output", **settings)
    ends = (form.places, (form.inputs,)) if form.kind == "linear" else ((form.inputs,), form.places)
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *ends[0], *ends[1]])
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    graph = helper.make_graph(parts.nodes, "layer", [given], [result], parts.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def input_shape(form: Form) -> tuple[int, ...]:
    """Shape of one input."""
    return (*form.places, form.inputs) if form.kind == "linear" else (form.inputs, *form.places)


@dataclass
class _Parts:
    """A graph in the making."""

    nodes: list[Any]
    constants: list[Any]

    def node(self, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **settings))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name


def _rounding(parts: _Parts) -> str:
    """``(clamp(round(x / scale) + zero, 0, 255) - zero) * scale``."""
    scale, zero = parts.constant("scale", 0.02), parts.constant("zero", 3.0)
    ends = [parts.constant("low", 0.0), parts.constant("high", 255.0)]
    parts.node("Div", ["input", scale], "scaled")
    parts.node("Round", ["scaled"], "whole")
    parts.node("Add", ["whole", zero], "code")
    parts.node("Clip", ["code", *ends], "clipped")
    parts.node("Sub", ["clipped", zero], "steps")
    return parts.node("Mul", ["steps", scale], "rounded")


def _linear(module: nn.Linear, shape: tuple[int, ...], rounded: bool) -> Form:
    return Form("linear", module.in_features, module.out_features, 1, shape[:-1], rounded=rounded)


def _convolution(module: _ConvNd, shape: tuple[int, ...], rounded: bool) -> Form:
    depthwise = 1 < module.groups == module.in_channels == module.out_channels
    padding = module.padding
    if isinstance(padding, str):  # an odd one has one more at the end, which takes no longer
        sizes = zip(module.dilation, module.kernel_size, strict=True)
        padding = tuple(d * (k - 1) // 2 if padding == "same" else 0 for d, k in sizes)
    return Form(
        "transposed" if isinstance(module, _ConvTransposeNd) else "conv",
        module.in_channels,
        module.out_channels,
        0 if depthwise else module.groups,
        shape[1:],
        module.kernel_size,
        module.stride,
        padding,
        module.dilation,
        rounded,
    )
