"""One tiny network of every family that the operators must understand, in eval mode, with an example batch of four."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nets import ResNet, conv_bn, settle
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, TOKENS, IMAGE = 5, 11, (3, 8, 8)


class InvertedResidual(nn.Module):
    """MobileNetV2: expand, depthwise, project; a residual where the sizes agree."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int = 3) -> None:
        super().__init__()
        self.same = stride == 1 and cin == cout
        wide = expand * cin
        self.expand = nn.Sequential(nn.Conv2d(cin, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depthwise = conv_bn(wide, wide, stride, groups=wide)
        self.project = nn.Sequential(nn.Conv2d(wide, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.same else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        sizes = ((8, 12, 2), (12, 12, 1), (12, 16, 1), (16, 16, 1))
        self.blocks = nn.Sequential(*(InvertedResidual(*size) for size in sizes))
        self.last, self.head = conv_bn(16, 24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class DenseLayer(nn.Module):
    """Norm before convolution, a bottleneck, and the new channels behind the old ones."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.dense1 = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4))
        self.transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2))
        self.dense2 = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4))
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense2(self.transition(self.dense1(self.stem(x))))
        return self.head(F.relu(self.norm(x)).mean((2, 3)))


class Vgg(nn.Module):
    """Plain convolutions with biases, flattened into linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True),
            nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(12 * 4, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleV1(nn.Module):
    """Grouped 1x1 convolutions with a channel shuffle between them."""

    def __init__(self, channels: int, groups: int = 2) -> None:
        super().__init__()
        self.groups = groups
        self.squeeze = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = channel_shuffle(F.relu(self.norm1(self.squeeze(x))), self.groups)
        return F.relu(x + self.norm3(self.expand(self.norm2(self.depthwise(y)))))


class ShuffleV2(nn.Module):
    """Half of the channels pass, half go through a branch, and both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat([kept, self.branch(changed)], 1), 2)


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 2)
        self.blocks = nn.Sequential(ShuffleV1(16), ShuffleV2(16), ShuffleV2(16))
        self.last, self.head = conv_bn(16, 12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class Attention(nn.Module):
    """Self-attention as users write it: one linear layer makes queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class VitBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, dim: int = 16, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 2, 2)
        self.cls_token = nn.Parameter(0.2 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.2 * torch.randn(1, 17, dim))
        self.blocks = nn.Sequential(*(VitBlock(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Bert(nn.Module):
    """Token and position embeddings, encoder layers of torch's own, a pooled classifier; int64 inputs."""

    def __init__(self, dim: int = 16, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(TOKENS, dim), nn.Embedding(6, dim)
        layers = (nn.TransformerEncoderLayer(dim, heads, 2 * dim, batch_first=True) for _ in range(depth))
        self.layers = nn.ModuleList(layers)
        self.pool, self.head = nn.Linear(dim, dim), nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.tanh(self.pool(x[:, 0])))


class Lstm(nn.Module):
    """A classifier of token sequences, int64 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 8)
        self.rnn = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.tokens(x))[0][:, -1])


class Unet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, skips by concatenation; the output is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv_bn(3, 8), conv_bn(8, 12), conv_bn(12, 16)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.merge2, self.merge1 = conv_bn(24, 12), conv_bn(20, 8)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.merge2(torch.cat([self.up(self.bottom(F.max_pool2d(second, 2))), second], 1))
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        return self.head(self.merge1(torch.cat([y, first], 1)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


class Detector(nn.Module):
    """A class map and a box map from one backbone, as a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attention, self.neck = conv_bn(3, 8), SqueezeExcite(8), conv_bn(8, 16, 2)
        self.classes = nn.Sequential(conv_bn(16, 8), nn.Conv2d(8, 3, 1))
        self.boxes = nn.Sequential(conv_bn(16, 8), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.neck(self.attention(self.stem(x)))
        return {"classes": self.classes(x), "boxes": self.boxes(x)}


def _images(build: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        model = build()
        inputs = torch.randn(4, *IMAGE)
        return settle(model, torch.randn(64, *IMAGE)), inputs

    return make


def _tokens(build: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        model = build()
        inputs = torch.randint(TOKENS, (4, 6))
        return settle(model, torch.randint(TOKENS, (64, 6))), inputs

    return make


FAMILIES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet_a": _images(lambda: ResNet(2, 8, "A")),
    "resnet_b": _images(lambda: ResNet(2, 8, "B")),
    "mobilenet": _images(MobileNet),
    "densenet": _images(DenseNet),
    "vgg": _images(Vgg),
    "shufflenet": _images(ShuffleNet),
    "vit": _images(Vit),
    "bert": _tokens(Bert),
    "lstm": _tokens(Lstm),
    "unet": _images(Unet),
    "detector": _images(Detector),
}
