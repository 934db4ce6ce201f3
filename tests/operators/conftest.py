"""Operators are tested on one thread: the networks are small, and threads would fight for two cores."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
