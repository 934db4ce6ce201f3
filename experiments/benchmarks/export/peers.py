"""ResNet-20 on CIFAR-10, exported by automc and by its peers: bytes, accuracy and time side by side.

    pip install nncf
    python experiments/benchmarks/export/peers.py [--folder FOLDER] [--steps 703] [--rounds 400]

Contestants, all of the same trained network: its float ONNX file; ONNX Runtime's own static INT8 (QDQ, per channel);
NNCF's INT8 on the ONNX file; Torch-Pruning to half of the MACs, trained for as many steps as automc's pick, then INT8;
and what automc picks at a drop of at most one point. FOLDER is an export of ``study.yaml`` beside this file:

    automc search study.yaml
    automc export peers --pick "top1 >= 0.91" --min latency_ratio -o FOLDER

Accuracy is that of the 10,000 test inputs in ONNX Runtime; times are of one thread, all files in turn, with the median
ratio to the float file and its 95 % interval. The table is written to ``peers.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import cifar_file, publish, table

from automc.core.interleave import interleaved, ratio, summary
from automc.evaluation.augment import flip, shift
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.export.onnx.writing import INPUT

HERE = Path(__file__).resolve().parent
CALIBRATION = 512
BATCHES = (1, 64)


def quantized_by_onnxruntime(source: Path, target: Path, inputs: np.ndarray) -> None:
    """ONNX Runtime's static quantization with the settings that are fast on x86: QDQ, U8S8, per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(np.split(inputs, len(inputs) // 32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch}

    prepared = target.with_suffix(".pre.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, **kinds)


def quantized_by_nncf(source: Path, target: Path, inputs: np.ndarray) -> None:
    """NNCF's post-training quantization of the ONNX file, as its documentation shows it."""
    import nncf
    import onnx

    data = nncf.Dataset([{INPUT: each[None]} for each in inputs])
    onnx.save(nncf.quantize(onnx.load(str(source)), data, subset_size=len(inputs)), str(target))


def half_pruned(model: nn.Module, example: Tensor) -> nn.Module:
    """Torch-Pruning's magnitude pruner, inner channels of the blocks (its shortcuts of option A break otherwise)."""
    import torch_pruning as tp

    inner = {module: 0.5 for name, module in model.named_modules() if name.endswith(".conv1") and "layer" in name}
    kept = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in inner]
    pruner = tp.pruner.MagnitudePruner(
        model,
        example,
        tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.0,
        pruning_ratio_dict=inner,
        ignored_layers=kept,
        in_channel_groups={},
        out_channel_groups={},
        round_to=8,
    )
    pruner.step()
    return model


def trained(model: nn.Module, evaluator: NetworkEvaluator, steps: int) -> nn.Module:
    """Plain fine-tuning with SGD, as a user of a pruning library would do it."""
    data, generator = evaluator.data, torch.Generator().manual_seed(0)
    split = data.split("train")
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, steps)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(split), (64,), generator=generator)
        inputs = flip(shift(split.inputs[rows], 4, generator), generator)
        with torch.autocast("cpu", torch.bfloat16):
            answers = model(data.normalise(inputs))
        loss = F.cross_entropy(answers.float(), split.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    found = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: found.run(None, {found.get_inputs()[0].name: inputs})[0]


def top1(run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, targets: np.ndarray) -> float:
    right = [
        (run(inputs[start : start + 100]).argmax(1) == targets[start : start + 100]).sum()
        for start in range(0, len(inputs), 100)
    ]
    return float(sum(right)) / len(inputs)


def contestants(folder: Path, place: Path, steps: int) -> Iterator[tuple[str, Path, int]]:
    """Name, ONNX file, and the bytes of the smallest file that holds the network."""
    evaluator = prepare(cifar_file("data.settings.search_limit=1000").spec)
    train = evaluator.data.split("train")
    inputs = evaluator.data.normalise(train.inputs[:CALIBRATION]).numpy()
    plain = folder / "baseline.onnx"
    yield "float", plain, plain.stat().st_size
    for name, by in (("ONNX Runtime INT8", quantized_by_onnxruntime), ("NNCF INT8", quantized_by_nncf)):
        target = place / f"{name}.onnx"
        by(plain, target, inputs)
        yield name, target, target.stat().st_size
    model = trained(half_pruned(evaluator.original().model, evaluator.example[:1]), evaluator, steps)
    from automc.export.onnx.writing import write_onnx

    pruned = place / "pruned.onnx"
    write_onnx(model, evaluator.example, pruned)
    yield "Torch-Pruning 50 %", pruned, pruned.stat().st_size
    target = place / "pruned int8.onnx"
    quantized_by_onnxruntime(pruned, target, inputs)
    yield "Torch-Pruning 50 % + INT8", target, target.stat().st_size
    yield "automc, onnx", folder / "model.onnx", (folder / "model.onnx").stat().st_size
    yield "automc, packed", folder / "model.onnx", (folder / "model.safetensors").stat().st_size


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE / "pick")
    parser.add_argument("--steps", type=int, default=703, help="of the fine-tuning after Torch-Pruning")
    parser.add_argument("--rounds", type=int, default=400)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    test = np.load(given.folder / "test.npz")
    manifest = json.loads((given.folder / "MANIFEST.json").read_text())
    normal = manifest["normalisation"]
    mean, std = (np.array(normal[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    inputs = (test["inputs"].astype(np.float32) / np.float32(normal["scale"]) - mean) / std
    with tempfile.TemporaryDirectory() as place:
        found = list(contestants(given.folder, Path(place), given.steps))
        runs = {name: session(path) for name, path, _ in found}
        scores = {name: top1(run, inputs, test["targets"]) for name, run in runs.items()}
        timed: dict[int, list[list[float]]] = {}
        for batch in BATCHES:
            calls: list[Callable[[], Any]] = [lambda run=run, x=inputs[:batch]: run(x) for run in runs.values()]
            timed[batch] = interleaved(calls, given.rounds if batch == 1 else given.rounds // 8)
    rows = []
    for i, (name, _, size) in enumerate(found):
        cells = [name, f"{scores[name]:.4f}", f"{size:,}", f"{found[0][2] / size:.1f}"]
        for batch in BATCHES:
            each, share = summary(timed[batch][i]), ratio(timed[batch][i], timed[batch][0])
            cells += [f"{each.median:.3f}", f"{share.median:.3f} ({share.low:.3f} to {share.high:.3f})"]
        rows.append(cells)
    head = ["", "top1", "bytes", "times smaller"]
    head += [cell for batch in BATCHES for cell in (f"ms, batch {batch}", "of float")]
    publish(HERE / "peers.md", table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
