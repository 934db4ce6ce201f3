"""Write a baked network as one ONNX file: a float graph, with the rounding of layer inputs as plain operators."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from automc.errors import ModelError, one_line
from automc.export.bake import bake
from automc.export.outputs import Flattened, named_outputs

INPUT = "input"
OPSET = 18
"""ai.onnx operator set of the files: the one torch's newer exporter writes without a conversion, and the older one
knows; ONNX Runtime reads it since 1.14 (2023)."""

_CHECKS_OF_SHAPES = tuple(
    str(Path(torch.__file__).parent / "nn" / file) for file in ("functional.py", "modules/rnn.py")
)


def write_onnx(model: nn.Module, example: Tensor, path: Path, *, fast: bool = False) -> None:
    """Bake the network, write it to ``path``, and let the ONNX checker read it.

    The batch axis is free. The outputs are called ``output``, ``output_1`` and so on, those of a dict by its keys.
    Weights are initializers inside the file. torch's older exporter is tried first: 0.3 s for a quantized ResNet-20
    where the newer one takes 4 to 12, and ONNX Runtime runs both files equally fast. It follows one example, so a
    network whose branches depend on the data is left to the newer one.

    Args:
        model: the compressed network, not baked yet. Not changed.
        example: normalised inputs, shape (n, ...); whole numbers for an embedding.
        fast: for a latency inside a trial: the example's branch will do, and the checker is not run.

    Raises:
        ModelError: neither exporter can write the network, or the checker refuses the file.
        OSError: the path cannot be written.
    """
    baked = bake(model, example)
    inputs = torch.cat([example[:1], example[:1]])  # a batch of one would be taken for a constant
    names, axes, several = _outputs(baked, inputs)
    if several:
        baked = Flattened(baked)
    failures = []
    for name, export in (("older", _older), ("newer", _newer)):
        try:
            with _quiet() as seen:
                export(baked, inputs, path, names, axes)
            if not fast:
                _refuse_branches(seen)
            return _finish(path, check=not fast)
        except OSError:
            raise
        except Exception as error:  # torch's exporters raise whatever they meet
            failures.append(f"{name} exporter: {one_line(_root(error))}")
    path.unlink(missing_ok=True)
    raise ModelError(f"model {type(model).__name__}: cannot be written as ONNX ({'; '.join(failures)})")


Axes = dict[str, dict[int, str]]
"""By name of an input or output, which of its axes are as long as the batch."""


def _outputs(baked: nn.Module, inputs: Tensor) -> tuple[list[str], Axes, bool]:
    """Names and free axes of what the network returns, and whether that is more than one tensor.

    An axis is free when it is longer for two inputs than for one: a recurrent layer's state has it in the middle.
    """
    with torch.no_grad():
        two, one = baked(inputs), named_outputs(baked(inputs[:1]), baked)
    found = named_outputs(two, baked)
    axes = {INPUT: {0: "batch"}}
    for name, tensor in found.items():
        first = one[name].shape if name in one else tensor.shape
        axes[name] = {i: "batch" for i, (a, b) in enumerate(zip(first, tensor.shape, strict=False)) if a != b}
    return list(found), axes, not isinstance(two, Tensor)


def _newer(model: nn.Module, inputs: Tensor, path: Path, names: list[str], _: Axes) -> None:
    torch.onnx.export(
        model,
        (inputs,),
        str(path),
        dynamo=True,
        external_data=False,
        input_names=[INPUT],
        output_names=names,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )


def _older(model: nn.Module, inputs: Tensor, path: Path, names: list[str], axes: Axes) -> None:
    torch.onnx.export(
        model,
        (inputs,),
        str(path),
        dynamo=False,
        input_names=[INPUT],
        output_names=names,
        opset_version=OPSET,
        dynamic_axes=axes,
    )


def _finish(path: Path, check: bool) -> None:
    """Drop what the exporter notes about this machine (stack traces with paths), and check the file."""
    proto = onnx.load(str(path))
    _strip(proto.graph)
    for function in proto.functions:
        _strip(function)
    proto.ClearField("metadata_props")
    proto.ClearField("doc_string")
    if check:
        onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _strip(graph: Any) -> None:
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    parts = [*graph.node, *getattr(graph, "initializer", ()), *graph.input, *graph.output, *graph.value_info]
    for part in parts:
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
        if hasattr(part, "doc_string"):
            part.ClearField("doc_string")
        for attribute in getattr(part, "attribute", ()):
            if attribute.HasField("g"):
                _strip(attribute.g)


def _refuse_branches(seen: Sequence[warnings.WarningMessage]) -> None:
    """The older exporter warns where a branch depends on data: its file would always take the example's branch.

    It also warns of the checks of shapes in torch's own attention and recurrent layers, which are no such branches.
    """
    for warning in seen:
        traced = issubclass(warning.category, torch.jit.TracerWarning)  # type: ignore[attr-defined]
        if traced and not warning.filename.endswith(_CHECKS_OF_SHAPES):
            raise ModelError(str(warning.message).split(".")[0])


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _quiet() -> Iterator[Sequence[warnings.WarningMessage]]:
    """Nothing printed, logged or warned; the warnings come back in the list."""
    level, log = logging.root.manager.disable, torch._C._jit_onnx_log
    logging.disable(logging.WARNING)
    torch._C._jit_onnx_log = lambda *_: None  # torch 2.13 writes the whole graph of a failure to stdout, from C++
    try:
        with warnings.catch_warnings(record=True) as seen, contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")
            yield seen
    finally:
        torch._C._jit_onnx_log = log
        logging.disable(level)
