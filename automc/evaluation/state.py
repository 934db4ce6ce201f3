"""The state of something that trains, as plain data and tensors: bytes of it, and modules taken down and put back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

State = dict[Any, Any]
"""Numbers, text, None and tensors in nested dicts and lists; keys are numbers or text."""

_HEAD = "state"


def dumps(state: State) -> bytes:
    """A safetensors file; what is no tensor is JSON in its header, beside a digest of it all."""
    tensors: list[Tensor] = []
    skeleton = json.dumps(_outlined(state, tensors))
    head = json.dumps({"sum": digest(skeleton, *tensors), "outline": skeleton})
    content: bytes = safetensors.torch.save({str(place): tensor for place, tensor in enumerate(tensors)}, {_HEAD: head})
    return content


def loads(content: bytes) -> State:
    """What ``dumps`` was given, every tensor on the CPU and in the memory layout that it had.

    Raises:
        ValueError: these are not such bytes, or not all of them; in one line.
    """
    try:
        tensors = safetensors.torch.load(content)
        size = int.from_bytes(content[:8], "little")
        head = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_HEAD])
        outline, found = head["outline"], [tensors[str(place)] for place in range(len(tensors))]
        wanted = head["sum"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no state of automc's, or a torn one ({type(error).__name__})") from error
    if digest(outline, *found) != wanted:
        raise ValueError("damaged: its bytes are not what was written")
    state: State = _filled(json.loads(outline), found)
    return state


def digest(*parts: str | Tensor) -> str:
    """SHA-256 of texts and of tensors with their types and shapes, 64 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
            found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            found.update(f"{part}\n".encode())
    return found.hexdigest()


def taken(module: nn.Module) -> State:
    """All parameters and buffers of a module by name, whether a state dict would have them or not."""
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


@torch.no_grad()
def put_back(module: nn.Module, state: State) -> None:
    """Make a module of the same build what it was when ``taken``: parameters in place, buffers as new tensors, because
    what lies in a buffer may be somebody else's too."""
    for name, parameter in module.named_parameters():
        parameter.copy_(state[name])
    old = list(module.named_buffers(remove_duplicate=False))
    new = {id(tensor): state[name].to(tensor.device) for name, tensor in module.named_buffers()}
    for name, tensor in old:
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, new[id(tensor)])


def _outlined(value: Any, tensors: list[Tensor]) -> Any:
    """The value with numbers in the place of its tensors, which are added to ``tensors``."""
    if isinstance(value, Tensor):
        # Strides too, of axes of length 1 as well: by them a convolution chooses how it computes, and so the last bits.
        spread = all(step or size == 1 for step, size in zip(value.stride(), value.shape, strict=True))
        tensors.append(value.detach().cpu().contiguous().clone())
        return {"tensor": len(tensors) - 1, "strides": value.stride() if spread else tensors[-1].stride()}
    if isinstance(value, dict):
        return {"keys": list(value), "values": _each(value.values(), tensors)}
    return {"list": _each(value, tensors)} if isinstance(value, (list, tuple)) else {"plain": value}


def _each(values: Iterable[Any], tensors: list[Tensor]) -> list[Any]:
    return [_outlined(value, tensors) for value in values]


def _filled(outline: Any, tensors: list[Tensor]) -> Any:
    if "plain" in outline:
        return outline["plain"]
    if "tensor" in outline:
        held = tensors[outline["tensor"]]
        return torch.empty_strided(held.shape, outline["strides"], dtype=held.dtype).copy_(held)
    if "keys" in outline:
        values = (_filled(value, tensors) for value in outline["values"])
        return dict(zip(outline["keys"], values, strict=True))
    return [_filled(value, tensors) for value in outline["list"]]
