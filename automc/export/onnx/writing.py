"""Write a baked network as one ONNX file: torch's exporter, then integers where they are (qdq.py)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.core.stored import Stored
from automc.errors import ModelError, one_line
from automc.export.baking.bake import Baked, fold
from automc.export.baking.outputs import Flattened, named_outputs
from automc.export.formats import MODEL, Source
from automc.export.onnx.qdq import SUMS, lowered
from automc.export.onnx.ranges import difference, ranges, stay

INPUT = "input"
OPSET = 18
"""ai.onnx operator set of the files: the one torch's newer exporter writes without a conversion, and the older one
knows; ONNX Runtime reads it since 1.14 (2023)."""

LEAST, SEEN = 32, 128
"""Examples on which ranges of sums are chosen: at least, at most."""

_CHECKS_OF_SHAPES = tuple(
    str(Path(torch.__file__).parent / "nn" / file) for file in ("functional.py", "modules/rnn.py")
)


def write(folder: Path, source: Source) -> None:
    """The files of format ``onnx``. Raises as ``write_onnx``."""
    write_onnx(source.model, source.example, folder / MODEL, baked=source.baked)


def write_onnx(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    fast: bool = False,
    plain: bool = False,
    baked: Baked | None = None,
) -> None:
    """Bake the network, write it to ``path``, and let the ONNX checker read it.

    Rounded inputs and integer weights are QDQ pairs, other compressed weights few-bit initializers (qdq.py). Sums are
    rounded to 8 bits (sums.py) where there are LEAST examples to choose their ranges on, and where that moves the
    outputs and the answers no further than ranges.py allows.

    The batch axis is free. The outputs are called ``output``, ``output_1`` and so on, those of a dict by its keys.
    Weights are initializers inside the file. torch's older exporter is tried first: 0.3 s for a quantized ResNet-20
    where the newer one takes 4 to 12, and ONNX Runtime runs both files equally fast. It follows one example, so a
    network whose branches depend on the data is left to the newer one.

    Args:
        model: the compressed network, not baked yet. Not changed.
        example: normalised inputs, shape (n, ...); whole numbers for an embedding.
        fast: for a latency inside a trial: the example's branch will do, the checker is not run, and sums are rounded
            also on fewer examples, because time does not depend on these.
        plain: for runtimes whose integer convolutions give floats: sums are not rounded, all integer weights are int8.
        baked: what ``fold(model, example)`` gave, where that is known.

    Raises:
        ModelError: neither exporter can write the network, or the checker refuses the file.
        OSError: the path cannot be written.
    """
    whole = baked if baked is not None else fold(model, example)
    network = whole.model
    inputs = torch.cat([example[:1], example[:1]])  # a batch of one would be taken for a constant
    names, axes, several = _outputs(network, inputs)
    if several:
        network = Flattened(network)
    failures = []
    for name, export in (("older", _older), ("newer", _newer)):
        try:
            with _quiet() as seen:
                export(network, inputs, path, names, axes)
            if not fast:
                _refuse_branches(seen)
            return _finish(path, whole.stored, example, fast, plain)
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


def _finish(path: Path, stored: Mapping[str, Stored], example: Tensor, fast: bool, plain: bool) -> None:
    """Drop what the exporter notes about this machine (stack traces with paths), write integers, check the file."""
    proto = onnx.load(str(path))
    _strip(proto.graph)
    for function in proto.functions:
        _strip(function)
    proto.ClearField("metadata_props")
    proto.ClearField("doc_string")
    if plain:
        proto = lowered(proto, stored, plain=True)
    else:
        proto = _in_integers(proto, stored, example.detach().cpu().numpy(), fast)
    if not fast:
        onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _in_integers(proto: Any, stored: Mapping[str, Stored], inputs: NDArray[Any], fast: bool) -> Any:
    """The lowered model: with rounded sums where they are harmless, else without. Where there are such sums, the file
    says under SUMS what became of them.
    """
    content, few = proto.SerializeToString(), len(inputs) < LEAST
    summed = lowered(proto, stored, partial(ranges, content, inputs[:SEEN]))
    if few and fast:
        return summed
    rounded = any(".sum" in node.output[0] for node in summed.graph.node)
    if not rounded and not few:
        return summed
    exact = lowered(onnx.load_model_from_string(content), stored)
    if not rounded:
        return exact
    if few:
        return _noted(exact, f"floats, because {len(inputs)} examples are too few to round them on, {LEAST} are needed")
    moved, changed = difference(exact, summed, inputs[:SEEN])
    found = f"on {min(len(inputs), SEEN)} examples outputs move by {moved:.2%}, and {changed:.2%} of the answers change"
    if stay(moved, changed):
        return _noted(summed, f"8 bits: {found}")
    return _noted(exact, f"floats, because with 8 bits {found}")


def _noted(proto: Any, sums: str) -> Any:
    entry = proto.metadata_props.add()
    entry.key, entry.value = SUMS, sums
    return proto


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
