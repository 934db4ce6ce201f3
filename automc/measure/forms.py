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

from automc.core.integers import integers
from automc.measure.walk import Walk

OPSET = 18


@dataclass(frozen=True, order=True)
class Form:
    """What decides how long a convolution or linear layer takes in the file that export writes.

    Attributes:
        kind: ``conv``, ``transposed`` or ``linear``. inputs, outputs: channels or features.
        groups: 0 for depthwise (one group a channel). places: spatial input shape; leading axes of a linear's input.
        kernel, stride, padding, dilation: one number a spatial axis (padding: of both ends).
        arithmetic: ``float``; ``dequantized``: its input is rounded, whatever the bits, and then multiplied as floats;
            ``int8``: rounded inputs and integer weights, from codes to codes, or of a linear layer to floats.
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
    arithmetic: str = "float"

    def at(self, inputs: int, outputs: int) -> Form:
        """The same layer with other widths; the two must be equal where it is depthwise."""
        return replace(self, inputs=inputs, outputs=outputs)

    def family(self, batch: int) -> str:
        """Its name in the table but for the widths, with the inputs of a run: ``conv g1 8x8 3x3 ... int8 n1``."""
        parts = (self.places, self.kernel, self.stride, self.padding, self.dilation)
        shown = " ".join("x".join(map(str, part)) or "-" for part in parts)
        return f"{self.kind} g{self.groups} {shown} {self.arithmetic} n{batch}"


def forms(walked: Walk) -> Iterator[tuple[str, Form, int]]:
    """The network's convolutions and linear layers in order of execution: name, form, calls of one forward."""
    for name, work in walked.work.items():
        module = walked.model.get_submodule(name)
        if isinstance(module, nn.Linear):
            yield name, _linear(module, work.shape), work.calls
        elif isinstance(module, _ConvNd):
            yield name, _convolution(module, work.shape), work.calls


def _arithmetic(module: Any) -> str:
    """How the exported file computes such a layer; a transposed convolution has no integer kernel there."""
    if getattr(module, "input_quantizer", None) is None:
        return "float"
    stored = module.stored() if hasattr(module, "stored") and not getattr(module, "frozen", True) else {}
    whole = "weight" in stored and integers(stored["weight"]) is not None
    return "int8" if whole and not isinstance(module, _ConvTransposeNd) else "dequantized"


def onnx_file(form: Form) -> bytes:
    """A network of this one layer, with a free batch axis and random weights under a fixed seed.

    In integers its input is uint8, and so is what a convolution makes: rounding is its neighbours' work.
    """
    rng, parts, whole = np.random.default_rng(0), _Parts([], {}), form.arithmetic == "int8"
    groups = form.groups or form.inputs
    last = "input"
    if form.arithmetic != "float":
        codes = "input" if whole else parts.node("QuantizeLinear", ["input", *parts.grid("x", 0.02, 3)], "codes")
        last = parts.node("DequantizeLinear", [codes, *parts.grid("x", 0.02, 3)], "rounded")
    if form.kind == "linear":
        shape: tuple[int, ...] = (form.outputs, form.inputs)
    elif form.kind == "transposed":
        shape = (form.inputs, form.outputs // groups, *form.kernel)
    else:
        shape = (form.outputs, form.inputs // groups, *form.kernel)
    weight = rng.standard_normal(shape, np.float32) / prod(shape[1:]) ** 0.5
    bias, last_of = rng.standard_normal(form.outputs, np.float32), "output"
    if form.kind == "linear" and form.places:
        parts.node("MatMul", [last, parts.weight(weight.T.copy(), 1, whole)], "product")
        parts.node("Add", [parts.constant("bias", bias), "product"], "output")
    elif form.kind == "linear":
        given = [last, parts.weight(weight, 0, whole), parts.bias(bias, whole)]
        parts.node("Gemm", given, "output", transB=1)
    else:
        last_of = "made" if whole else "output"
        kind = "ConvTranspose" if form.kind == "transposed" else "Conv"
        settings: dict[str, Any] = {"kernel_shape": form.kernel, "strides": form.stride, "dilations": form.dilation}
        settings |= {"pads": form.padding * 2, "group": groups}
        parts.node(kind, [last, parts.weight(weight, 0, whole), parts.bias(bias, whole)], last_of, **settings)
        if whole:
            parts.node("QuantizeLinear", ["made", *parts.grid("y", 0.02, 3)], "output")
    ends = (form.places, (form.inputs,)) if form.kind == "linear" else ((form.inputs,), form.places)
    kinds = [TensorProto.UINT8 if codes else TensorProto.FLOAT for codes in (whole, last_of == "made")]
    slot = helper.make_tensor_value_info("input", kinds[0], ["batch", *ends[0], *ends[1]])
    result = helper.make_tensor_value_info("output", kinds[1], None)
    graph = helper.make_graph(parts.nodes, "layer", [slot], [result], list(parts.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def input_shape(form: Form) -> tuple[int, ...]:
    """Shape of one input."""
    return (*form.places, form.inputs) if form.kind == "linear" else (form.inputs, *form.places)


@dataclass
class _Parts:
    """A graph in the making."""

    nodes: list[Any]
    constants: dict[str, Any]

    def node(self, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **settings))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def grid(self, name: str, scale: float, zero: int) -> list[str]:
        """The step and the zero point of uint8 codes."""
        zero_name = self.constant(f"{name}.zero", np.uint8(zero))
        return [self.constant(f"{name}.scale", np.float32(scale)), zero_name]

    def weight(self, weight: Any, axis: int, whole: bool) -> str:
        """A weight, as int8 codes with a scale a row where it is whole; rows are along the axis."""
        if not whole:
            return self.constant("weight", weight)
        codes = self.constant("weight.codes", np.clip(np.round(weight * 40), -127, 127).astype(np.int8))
        ends = self._ends("weight", np.full(weight.shape[axis], 0.025, np.float32), np.int8)
        return self.node("DequantizeLinear", [codes, *ends], "weight", axis=axis)

    def bias(self, bias: Any, whole: bool) -> str:
        """A bias, as int32 codes on the grid of the sums where it is whole."""
        if not whole:
            return self.constant("bias", bias)
        codes = self.constant("bias.codes", np.round(bias * 100).astype(np.int32))
        ends = self._ends("bias", np.full(len(bias), 0.02 * 0.025, np.float32), np.int32)
        return self.node("DequantizeLinear", [codes, *ends], "bias", axis=0)

    def _ends(self, name: str, scale: Any, kind: Any) -> list[str]:
        zero = self.constant(f"{name}.zero", np.zeros(len(scale), kind))
        return [self.constant(f"{name}.scale", scale), zero]


def _linear(module: nn.Linear, shape: tuple[int, ...]) -> Form:
    return Form("linear", module.in_features, module.out_features, 1, shape[:-1], arithmetic=_arithmetic(module))


def _convolution(module: _ConvNd, shape: tuple[int, ...]) -> Form:
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
        _arithmetic(module),
    )
