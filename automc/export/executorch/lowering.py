"""A process that lowers a program, loads the file and runs it: ``python -m ...lowering FOLDER NAMES``.

Reads ``program.pt2`` and ``inputs`` of the folder, which automc wrote; writes the file and ``outputs`` beside them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from safetensors.torch import load_file, save_file

from automc.errors import ProofError, one_line
from automc.export.executorch.files import NAMES, opened
from automc.export.formats import EXECUTORCH


def lower(folder: Path, names: str) -> None:
    """Raises whatever torch and ExecuTorch meet, ProofError where the file cannot be run."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.load(folder / "program.pt2")
    parts = [XnnpackPartitioner()]
    edge = to_edge_transform_and_lower(program, partitioner=parts, constant_methods={NAMES: names})
    (folder / EXECUTORCH).write_bytes(edge.to_executorch().buffer)
    found = opened(folder).outputs(load_file(folder / "inputs")["x"].numpy())
    save_file({str(i): torch.from_numpy(each) for i, each in enumerate(found.values())}, folder / "outputs")


def main() -> int:
    """Prints {} when all went well, else says why in the last line of stderr."""
    warnings.simplefilter("ignore")
    logging.disable()
    folder, names = sys.argv[1:]
    said = os.dup(1)
    os.dup2(2, 1)  # stdout is the answer alone
    try:
        lower(Path(folder), names)
    except ProofError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # torch and ExecuTorch raise whatever they meet
        print(one_line(error), file=sys.stderr)
        return 1
    os.write(said, json.dumps({}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
