"""One thread for every test of this room, and the shared data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from automc.core.study import ModelSpec, Part
from automc.evaluation.data import Data, load_data
from automc.evaluation.zoo import load_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    folder = Path(os.environ.get("AUTOMC_SHARED", beside))
    if not (folder / "models").is_dir():
        pytest.skip(f"no shared data and weights in {folder}")
    return folder


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(Part("digits"))


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return load_model(ModelSpec("digits_net"))
