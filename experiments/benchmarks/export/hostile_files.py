"""A hundred ways to put something harmful in the place of an exported file."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from automc.export.bundle import manifest as names
from automc.export.formats import FORMATS, MODEL

Case = Callable[[Path, Path], object]
"""Changes a folder (first) so that it points to a file outside (second)."""

ARRAYS = ("inputs", "targets")


def cases() -> Mapping[str, Case]:
    """All, by name."""
    found: dict[str, Case] = {}
    for name, entry in _entries().items():
        found[f"test.npz: an entry named {name}"] = _archive({entry: _npy(np.zeros(4))})
    for name, (header, body) in _headers().items():
        found[f"test.npz: an array {name}"] = _archive({"inputs.npy": _claiming(header) + body})
    found |= {f"test.npz: {name}": case for name, case in _bombs().items()}
    for file in (
        *FORMATS["onnx"].files,
        *FORMATS["packed"].files,
        names.BASELINE,
        names.POLICY,
        names.TEST,
        names.CARD,
        names.NAME,
    ):
        found[f"{file}: a link to a file outside"] = _linked(file)
        found[f"{file}: a link to a device"] = _linked(file, "/dev/zero")
        found[f"{file}: a pipe"] = _pipe(file)
        found[f"{file}: a folder"] = _folder(file)
        found[f"{file}: empty"] = _written(file, b"")
        found[f"{file}: 9 GB of zeros that take no room"] = _sparse(file)
    for name, location in _locations().items():
        for part in ("initializer", "constant", "branch"):
            found[f"{MODEL}: external data {name}, of a {part}"] = _external(part, location)
    found |= {f"{MODEL}: {name}": case for name, case in _models().items()}
    for name in ("../outside/secret.bin", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "MODEL.ONNX", "C:\\x", "~"):
        found[f"manifest: lists {name!r}"] = _lists(name)
    return found


def _entries() -> dict[str, str]:
    plain = {"/etc/x": "/etc/x.npy", "../x": "../x.npy", "../../outside/x": "../../outside/x.npy", "a/b": "a/b.npy"}
    odd = {"..\\x": "..\\x.npy", "C:x": "C:x.npy", "no .npy": "inputs.exe", "nothing": ".npy", "..": "...npy"}
    return {**plain, **odd, "600 letters": "x" * 600 + ".npy"}


def _headers() -> dict[str, tuple[str, bytes]]:
    shape = "{'descr': %r, 'fortran_order': False, 'shape': %s, }"
    return {
        "of a thousand terabytes": (shape % ("<f4", "(10**14,)".replace("10**14", str(10**14))), b""),
        "of a negative shape": (shape % ("<f4", "(-1,)"), b""),
        "of a shape that overflows": (shape % ("<f4", f"({2**40}, {2**40})"), b""),
        "of many axes": (shape % ("<f4", "(" + "1, " * 200 + ")"), b"\0" * 4),
        "of a shape with no end": (shape % ("<f4", "(" * 90), b""),
        "of objects": (shape % ("|O", "(1,)"), b"cos\nsystem\n(S'touch /tmp/automc-hostile'\ntR."),
        "of a record of objects": ("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        "of text": (shape % ("<U1000", "(1,)"), b"\0" * 4000),
        "of nothing": (shape % ("|V0", "(9999999999,)"), b""),
        "of a call": ("__import__('os').system('touch /tmp/automc-hostile')", b""),
    }


def _bombs() -> dict[str, Case]:
    zeros = _claiming(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**30},), }}") + b"\0" * 2**20
    wide = np.zeros(2**27, np.uint8)
    return {
        "a gigabyte claimed, a megabyte there": _archive({"inputs.npy": zeros}),
        "128 MB of zeros in 130 kB": _archive({"inputs.npy": _npy(wide), "targets.npy": _npy(np.zeros(1))}),
        "5,000 entries": _archive({f"a{i}.npy": b"" for i in range(5000)}),
        "the same name twice": _twice,
        "a length that the directory lies about": _lied,
        "no archive": _written(names.TEST, b"PK\x05\x06 nothing"),
        "a cut archive": _cut(names.TEST),
        "encrypted": _flagged,
        "an unknown compression": _unknown,
        "bytes changed inside": _scrambled,
    }


def _locations() -> dict[str, str]:
    return {"outside": "../outside/secret.bin", "at an absolute path": "ABSOLUTE", "through a link": "link.bin"}


def _models() -> dict[str, Case]:
    return {
        "an operator of somebody's": _model(
            lambda g: g.node[0].MergeFrom(onnx.NodeProto(domain="evil")), domain="evil"
        ),
        "a tensor of a shape that overflows": _model(lambda g: g.initializer[0].dims.__setitem__(0, 2**62)),
        "a tensor of a negative shape": _model(lambda g: g.initializer[0].dims.__setitem__(0, -5)),
        "an input with no name": _model(lambda g: g.input[0].MergeFrom(onnx.ValueInfoProto(name="other"))),
        "a graph that goes round": _model(lambda g: g.node[0].input.__setitem__(0, g.node[-1].output[0])),
        "no graph": _written(MODEL, onnx.ModelProto(ir_version=8).SerializeToString()),
        "random bytes": _written(MODEL, np.random.default_rng(0).bytes(5000)),
        "cut": _cut(MODEL),
    }


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def _claiming(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _archive(entries: Mapping[str, bytes]) -> Case:
    def case(folder: Path, _: Path) -> None:
        with zipfile.ZipFile(folder / names.TEST, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in entries.items():
                file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)

    return case


def _twice(folder: Path, _: Path) -> None:
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(folder / names.TEST, "w") as file:
        warnings.simplefilter("ignore")
        for content in (np.zeros(3), np.ones(9)):
            file.writestr("inputs.npy", _npy(content))


def _patched(mark: bytes, at: int, value: bytes) -> Case:
    """A whole archive of which some bytes behind every ``mark`` are others."""

    def case(folder: Path, secret: Path) -> None:
        _archive({"inputs.npy": _npy(np.zeros((9, 3))), "targets.npy": _npy(np.zeros(9))})(folder, secret)
        data = bytearray((folder / names.TEST).read_bytes())
        place = data.find(mark)
        while place >= 0:
            data[place + at : place + at + len(value)] = value
            place = data.find(mark, place + 4)
        (folder / names.TEST).write_bytes(bytes(data))

    return case


_DIRECTORY = b"PK\x01\x02"
_lied = _patched(_DIRECTORY, 24, struct.pack("<I", 2**31))
_flagged = _patched(_DIRECTORY, 8, struct.pack("<H", 1))
_unknown = _patched(_DIRECTORY, 10, struct.pack("<H", 97))


def _scrambled(folder: Path, _: Path) -> None:
    data = bytearray((folder / names.TEST).read_bytes())
    data[200:260] = bytes(60)
    (folder / names.TEST).write_bytes(bytes(data))


def _linked(file: str, to: str = "") -> Case:
    def case(folder: Path, secret: Path) -> None:
        (folder / file).unlink()
        inside = secret.parent / file
        (folder / file).symlink_to(to or (inside if inside.exists() else secret))

    return case


def _pipe(file: str) -> Case:
    def case(folder: Path, _: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return case


def _folder(file: str) -> Case:
    def case(folder: Path, _: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return case


def _written(file: str, content: bytes) -> Case:
    return lambda folder, _: (folder / file).write_bytes(content)


def _sparse(file: str) -> Case:
    def case(folder: Path, _: Path) -> None:
        # The seal keeps the old digest: 9 GB are not to be read to find that they are others.
        (folder / file).rename(folder / "aside")
        with (folder / file).open("wb") as hole:
            hole.truncate(9 * 10**9)
        if file != names.NAME:
            (folder / file).chmod(0o600)
        (folder / "aside").unlink()

    return case


def _cut(file: str) -> Case:
    return lambda folder, _: (folder / file).write_bytes((folder / file).read_bytes()[:-60])


def _model(change: Callable[[Any], object], domain: str = "") -> Case:
    def case(folder: Path, _: Path) -> None:
        proto = onnx.load(str(folder / MODEL), load_external_data=False)
        change(proto.graph)
        if domain:
            proto.opset_import.append(helper.make_opsetid(domain, 1))
        (folder / MODEL).write_bytes(proto.SerializeToString())

    return case


def _external(part: str, location: str) -> Case:
    """A model whose weight lies in another file."""

    def case(folder: Path, secret: Path) -> None:
        if location == "link.bin":
            (folder / location).symlink_to(secret)
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL, dims=[64, 5])
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", str(secret) if location == "ABSOLUTE" else location
        nodes, weights = [helper.make_node("Flatten", ["input"], ["flat"])], []
        if part == "initializer":
            weights = [tensor]
        elif part == "constant":
            nodes.append(onnx.NodeProto(op_type="Constant", output=["w"]))
            nodes[-1].attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor))
        else:
            told = helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 5])
            branch = helper.make_graph([], "branch", [], [told], [tensor])
            yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
            nodes.append(helper.make_node("Constant", [], ["yes"], value=yes))
            nodes.append(helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch))
        nodes.append(helper.make_node("MatMul", ["flat", "w"], ["output"]))
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 8, 8])
        answer = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 5])
        graph = helper.make_graph(nodes, "g", [given], [answer], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        (folder / MODEL).write_bytes(model.SerializeToString())

    return case


def _lists(name: str) -> Case:
    def case(folder: Path, _: Path) -> None:
        import json

        data = json.loads((folder / names.NAME).read_text())
        data["files"][name] = {"sha256": "0" * 64, "bytes": 16384}
        data.pop("seal")
        (folder / names.NAME).write_text(json.dumps({**data, "seal": names._seal(data)}))

    return case
