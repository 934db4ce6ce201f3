"""The models: a zoo of small image networks, and any nn.Module a user's factory makes."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import nn

from automc.core.rules import nearest
from automc.core.study import ModelSpec
from automc.errors import ModelError
from automc.evaluation.checkpoints import load_weights
from automc.evaluation.entries import ZOO
from automc.evaluation.factories import call_factory, find_factory, resolve_path

INIT_SEED = 0


def load_model(spec: ModelSpec, base: Path | None = None) -> nn.Module:
    """The model in eval mode, on the CPU, in float32.

    Args:
        base: folder that relative paths of files and weights are seen from, before the current one.

    Raises:
        ModelError: an unknown name or setting (with the nearest spelling), a factory that raises or returns no
            nn.Module, weights that cannot be read or do not fit. Always one line.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        model = _build(spec, base)
    weights = _weights(spec, base)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def _build(spec: ModelSpec, base: Path | None) -> nn.Module:
    if spec.name in ZOO:
        module, _, attribute = ZOO[spec.name].factory.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    elif ":" in spec.name:
        factory = find_factory(spec.name, base)
    else:
        own = "or package.module:factory or file.py:factory"
        raise ModelError(f"unknown model {spec.name!r}{nearest(spec.name, ZOO)} (zoo: {', '.join(ZOO)}; {own})")
    model = call_factory(spec.name, factory, spec.settings)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.name}: the factory must return an nn.Module, not {type(model).__name__}")
    return model


def _weights(spec: ModelSpec, base: Path | None) -> Path | None:
    if spec.weights is not None:
        return resolve_path(spec.weights, base)
    fits = spec.settings.get("num_classes", 10) == 10
    bundled = ZOO[spec.name].weights if spec.name in ZOO and fits else ""
    return Path(__file__).parent / "weights" / bundled if bundled else None
