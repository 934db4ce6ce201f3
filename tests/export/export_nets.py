"""Networks for the tests of export: stand-ins for quantized layers, and a small network fitted to the digits."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from automc.core.stored import Stored


class Rounding(nn.Module):
    """Affine rounding of inputs to 2**bits levels."""

    def __init__(self, bits: int, low: float, high: float) -> None:
        super().__init__()
        self.top = 2**bits - 1
        self.register_buffer("scale", torch.tensor((high - low) / self.top))
        self.register_buffer("zero", torch.tensor(round(-low / (high - low) * self.top) * 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.clamp(torch.round(x / self.scale) + self.zero, 0, self.top) - self.zero) * self.scale


def symmetric(weight: np.ndarray, bits: int) -> Stored:
    """Signed codes with the largest number of each row at the largest code."""
    flat = np.abs(weight).reshape(len(weight), -1)
    if bits == 1:
        return Stored(1, np.where(weight < 0, -1, 1).astype(np.int16), flat.mean(axis=1))
    top = 2 ** (bits - 1) - 1
    scale = (np.maximum(flat.max(axis=1), 1e-12) / top).astype(np.float32)
    codes = np.clip(np.round(weight / rows(scale, weight)), -top, top).astype(np.int16)
    return Stored(bits, codes, scale)


def asymmetric(weight: np.ndarray, bits: int) -> Stored:
    """Unsigned codes with a zero point a row."""
    flat = weight.reshape(len(weight), -1)
    low, top = np.minimum(flat.min(axis=1), 0), 2**bits - 1
    scale = (np.maximum(np.maximum(flat.max(axis=1), 0) - low, 1e-12) / top).astype(np.float32)
    zero = np.clip(np.round(-low / scale), 0, top).astype(np.int16)
    codes = np.clip(np.round(weight / rows(scale, weight)) + rows(zero, weight), 0, top).astype(np.int16)
    return Stored(bits, codes, scale, zero=zero)


def per_tensor(weight: np.ndarray, bits: int) -> Stored:
    """Signed codes, one scale for all rows."""
    top = 2 ** (bits - 1) - 1
    scale = np.full(len(weight), np.abs(weight).max() / top, np.float32)
    return Stored(bits, np.round(weight / scale[0]).astype(np.int16), scale)


def codebook(weight: np.ndarray, bits: int) -> Stored:
    """A table of quantiles, zero among them, and no scale."""
    levels = np.quantile(weight, np.linspace(0, 1, 2**bits)).astype(np.float32)
    levels[np.abs(levels).argmin()] = 0
    return Stored(bits, np.abs(weight[..., None] - levels).argmin(axis=-1).astype(np.int16), levels=levels)


def ternary(weight: np.ndarray, bits: int) -> Stored:
    """-1, 0 and 1 times a scale a row (Li et al. 2016)."""
    flat = np.abs(weight).reshape(len(weight), -1)
    threshold = rows(0.7 * flat.mean(axis=1), weight)
    signs = np.where(np.abs(weight) > threshold, np.sign(weight), 0)
    large = flat > threshold.reshape(-1, 1)
    scale = ((flat * large).sum(axis=1) / np.maximum(large.sum(axis=1), 1)).astype(np.float32)
    return Stored(2, (signs + 1).astype(np.int16), scale, levels=np.array([-1, 0, 1], np.float32))


def plain(weight: np.ndarray, bits: int) -> Stored:
    """Float values, to be masked."""
    return Stored(32, values=weight)


def unstructured(weight: np.ndarray, share: float) -> np.ndarray:
    """A mask without this share of the smallest numbers."""
    order = np.argsort(np.abs(weight).ravel(), kind="stable")
    mask = np.ones(weight.size, np.bool_)
    mask[order[: round(share * weight.size)]] = False
    return mask.reshape(weight.shape)


def n_of_m(weight: np.ndarray, n: int, m: int, axis: int = 1) -> np.ndarray:
    """A mask with the n largest of every m that follow each other along an axis, which is a multiple of m long."""
    moved = np.moveaxis(np.abs(weight), axis, -1)
    ranks = np.argsort(np.argsort(-moved.reshape(-1, m), axis=1, kind="stable"), axis=1)
    return np.ascontiguousarray(np.moveaxis((ranks < n).reshape(moved.shape), -1, axis))


FORMS = {
    "signed": symmetric,
    "unsigned": asymmetric,
    "per tensor": per_tensor,
    "codebook": codebook,
    "ternary": ternary,
    "float": plain,
}


def rows(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (weight.ndim - 1))


@dataclass
class Recipe:
    """What a stand-in does with its weight: a form, its bits, and a mask by hand."""

    form: str = "signed"
    bits: int = 4
    sparsity: float = 0.0

    def __call__(self, weight: np.ndarray) -> Stored:
        mask = unstructured(weight, self.sparsity) if self.sparsity else None
        used = weight if mask is None else np.where(mask, weight, np.float32(0))
        return replace(FORMS[self.form](used, self.bits), mask=mask)


class _Quantized:
    """The convention of live layers with numpy alone, whatever automc.operators does."""

    weight_bits = 32
    activation_bits = 32
    frozen = False
    recipe: Recipe | None = None

    def stored(self) -> dict[str, Stored]:
        return {} if self.recipe is None else {"weight": self.recipe(self.weight.detach().numpy())}

    def freeze(self, tensors: dict[str, Tensor | None]) -> None:
        self.frozen = True
        for name, tensor in tensors.items():
            setattr(self, name, None if tensor is None else nn.Parameter(tensor, requires_grad=False))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x if self.input_quantizer is None else self.input_quantizer(x)
        if self.frozen or self.recipe is None:
            return x, self.weight
        return x, torch.from_numpy(self.stored()["weight"].dense())


class QuantConv(_Quantized, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.parts(x)
        return self._conv_forward(x, weight, self.bias)


class QuantLinear(_Quantized, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.parts(x)
        return F.linear(x, weight, self.bias)


def quantized(
    layer: nn.Module, weight_bits: int, rounding: Rounding | None = None, activation_bits: int = 8
) -> nn.Module:
    """A conv or linear layer turned into its quantized stand-in, in place."""
    compressed = stand_in(layer, Recipe(bits=weight_bits) if weight_bits < 32 else None)
    layer.weight_bits = weight_bits
    layer.input_quantizer, layer.activation_bits = rounding, activation_bits if rounding else 32
    return compressed


def stand_in(layer: nn.Module, recipe: Recipe | None) -> nn.Module:
    """A conv or linear layer turned into its stand-in with this recipe, in place."""
    layer.__class__ = QuantConv if isinstance(layer, nn.Conv2d) else QuantLinear
    layer.input_quantizer, layer.recipe = None, recipe
    layer.ways = nn.ModuleDict({"weight": Helper(layer.weight)})
    return layer


class Helper(nn.Module):
    """Numbers that only the training form needs."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.ones(len(weight)))
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))


def shake_norms(model: nn.Module, seed: int) -> nn.Module:
    """Give every batch norm random statistics and factors, about half of them negative."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, -2.0, 2.0),
                (norm.bias, -1.0, 1.0),
                (norm.running_mean, -1.0, 1.0),
                (norm.running_var, 0.1, 3.0),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return model


class DigitsStandIn(nn.Module):
    """Random convolutions (one depthwise) with batch norms, a shortcut kept in a lambda, and a linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 1)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.shortcut = lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, width // 2, width // 2))
        self.linear = nn.Linear(2 * width * 16, 10)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + F.relu(self.bn2(self.conv2(x)))
        return F.relu(F.max_pool2d(self.bn3(self.conv3(x)), 2) + self.shortcut(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Raw inputs 0..16 float32 (n, 1, 8, 8) and targets (n,)."""
    data = load_digits()
    return data.images.astype(np.float32)[:, None], data.target.astype(np.int64)


MEAN, STD, SCALE = (0.3,), (0.37,), 16.0


def normalise(raw: np.ndarray) -> Tensor:
    return (torch.from_numpy(raw) / SCALE - MEAN[0]) / STD[0]


def fitted(width: int, seed: int = 0) -> DigitsStandIn:
    """The stand-in with its linear layer fitted by ridge regression on the first 1,200 digits."""
    raw, targets = digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DigitsStandIn(width)
    shake_norms(model, seed).eval()
    refit(model, normalise(raw[:1200]), torch.from_numpy(targets[:1200]))
    return model


def refit(model: DigitsStandIn, inputs: Tensor, targets: Tensor) -> None:
    with torch.no_grad():
        x = torch.cat([model.features(inputs), torch.ones(len(inputs), 1)], 1).double()
        gram = x.T @ x + 10.0 * torch.eye(x.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(gram, x.T @ F.one_hot(targets, 10).double()).float()
        model.linear.weight.copy_(solved[:-1].T)
        model.linear.bias.copy_(solved[-1])


def compressed(model: DigitsStandIn, bits: int = 4) -> DigitsStandIn:
    """The model with all layers quantized in place and its linear layer fitted again."""
    raw, targets = digits()
    for layer in (model.conv1, model.conv2, model.conv3):
        quantized(layer, bits)
    model.conv2.input_quantizer, model.conv2.activation_bits = Rounding(8, 0.0, 12.0), 8
    refit(model, normalise(raw[:1200]), torch.from_numpy(targets[:1200]))
    quantized(model.linear, 8, Rounding(8, 0.0, 20.0))
    return model
