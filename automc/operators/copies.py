"""Copying a network, twice as fast as ``copy.deepcopy`` alone: every trial begins with it."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


def duplicate(model: nn.Module) -> nn.Module:
    """What ``copy.deepcopy(model)`` gives: nothing in it is shared with the model.

    A deep copy spends its time on the dozen empty dictionaries of hooks in every module, and on tensors one by one.
    Both are made here and handed to it as copied already; all else, what modules share included, it does itself.
    """
    made: dict[int, Any] = {}
    storages = Counter(_storage(buffer) for buffer in model.buffers())
    for module in model.modules():
        for value in module.__dict__.values():
            if type(value) in (dict, OrderedDict, set) and not value:
                made[id(value)] = type(value)()
        for parameter in module._parameters.values():
            if type(parameter) is nn.Parameter:
                made[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        for buffer in module._buffers.values():
            if type(buffer) is Tensor and not buffer.requires_grad and storages[_storage(buffer)] == 1:
                made[id(buffer)] = buffer.clone()
    return copy.deepcopy(model, made)


def _storage(tensor: Tensor) -> int:
    """Where its numbers lie: views of one storage must stay views of one storage."""
    return tensor.untyped_storage().data_ptr()


def equal(model: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers, bit for bit."""
    own, others = model.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[key], others[key]) for key in own)
