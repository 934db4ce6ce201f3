"""Small networks with the structures that pruning must understand, or must refuse."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.operators.base import Compression


def conv_bn(cin: int, cout: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


class Plain(nn.Module):
    """conv - conv - pool - linear, with biases and no norms."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 12, 3, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(torch.relu_(self.a(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ConvBnRelu(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), conv_bn(8, 10, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))


class Pad(nn.Module):
    """The option-A shortcut of He et al. (2016), written in a lambda."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        extra = planes // 4
        self.cut = lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra), "constant", 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(x)


class Block(nn.Module):
    def __init__(self, cin: int, planes: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride > 1 and option == "A":
            self.shortcut = Pad(planes)
        elif stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet of depth 6 * blocks + 2, with the names of the shared weights."""

    def __init__(self, blocks: int = 3, width: int = 16, option: str = "A", classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = (width, width, 2 * width, 4 * width)
        for stage in (1, 2, 3):
            rows = [
                Block(widths[stage - 1 if i == 0 else stage], widths[stage], 2 if i == 0 and stage > 1 else 1, option)
                for i in range(blocks)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*rows))
        self.linear = nn.Linear(widths[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))


class Inverted(nn.Module):
    """MobileNetV2: expand, depthwise, project, with and without a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.expand, self.depth = conv_bn(8, 24), conv_bn(24, 24, groups=24)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.depth(self.expand(x)))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Each layer reads all earlier ones; a batch norm stands behind the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.c = nn.Conv2d(10, 8, 3, padding=1)
        self.head = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        x = torch.cat([a, F.relu(self.b(a))], 1)
        x = torch.cat([F.relu(self.c(F.relu(self.norm(x)))), x], 1)
        return self.head(x.mean((2, 3)))


class WideSum(nn.Module):
    """A wide layer is summed with the concatenation of two narrow ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(3, 10, 1)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(torch.cat([self.a(x), self.b(x)], 1) + self.wide(x))
        return self.head(x.mean((2, 3)))


class FlattenNet(nn.Module):
    """Every channel is 16 inputs of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6 * 16, 5)
        self.hidden = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a(x)), 2)
        return self.hidden(F.relu(self.head(x.view(x.size(0), -1))))


class Grouped(nn.Module):
    """A convolution of 4 groups, with all its groups' inputs and outputs free to go in equal numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 16), conv_bn(16, 24, groups=4)
        self.c = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.c(self.b(self.a(x)))).mean((2, 3)))


class Normed(nn.Module):
    """Group norm over convolutions, layer norm over linear layers, instance norm and PReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gn = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.b, self.inorm, self.act = nn.Conv2d(16, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)
        self.c, self.ln, self.head = nn.Linear(8, 12), nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.inorm(self.b(F.gelu(self.gn(self.a(x))))))
        return self.head(F.gelu(self.ln(self.c(x.mean((2, 3))))))


class Mlp(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))


class Sigmoid(nn.Module):
    """f(0) is not 0: a masked channel still speaks, a removed one does not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.gate, self.open = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.sigmoid(self.bn(self.a(x))))
        gate = torch.sigmoid(self.open(torch.cos(self.gate(x.mean((2, 3))))))
        return self.head((F.softplus(x) * gate[:, :, None, None]).mean((2, 3)))


class Functional(nn.Module):
    """Plain Python in the forward: a list of layers, a layer used twice, a bare per-channel parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)])
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8)[None, :, None])
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.layers[0](x))
        for _ in range(2):
            x = F.leaky_relu(self.layers[1](x)) * self.scale
        return self.out(F.dropout(x, training=self.training).sum(-1))


class Recurrent(nn.Module):
    """A convolution in front of an LSTM, whose inputs cannot be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.out = nn.Conv1d(4, 8, 3), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.conv(x).transpose(1, 2))[0][:, -1])


class Buffered(nn.Module):
    """A per-channel buffer that no plan knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)
        self.register_buffer("gain", torch.linspace(1, 2, 8)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.conv(x) * self.gain).mean((2, 3)))


class Mixing(nn.Module):
    """A softmax over the channels: what is left depends on what went, and sizes do not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.softmax(self.conv(x), 1).mean((2, 3)))


class Volume(nn.Module):
    """3-d convolutions, and a transposed one that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.up, self.b = nn.Conv3d(2, 6, 3, padding=1), nn.ConvTranspose3d(6, 4, 2, 2), nn.Conv3d(4, 4, 1)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.b(F.relu(self.up(F.relu(self.a(x)))))).mean((2, 3, 4)))


IMAGE, SEQUENCE, CUBE = (3, 8, 8), (4, 12), (2, 4, 4, 4)
PRUNABLE: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "plain": (Plain, IMAGE),
    "conv_bn_relu": (ConvBnRelu, IMAGE),
    "resnet_a": (lambda: ResNet(2, 8, "A"), IMAGE),  # type: ignore[dict-item]
    "resnet_b": (lambda: ResNet(2, 8, "B"), IMAGE),  # type: ignore[dict-item]
    "inverted": (Inverted, IMAGE),
    "dense": (Dense, IMAGE),
    "wide_sum": (WideSum, IMAGE),
    "flatten": (FlattenNet, IMAGE),
    "grouped": (Grouped, IMAGE),
    "normed": (Normed, IMAGE),
    "mlp": (Mlp, IMAGE),
    "sigmoid": (Sigmoid, IMAGE),
    "functional": (Functional, SEQUENCE),
    "volume": (Volume, CUBE),
}


def make(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with lively batch-norm statistics, and four inputs."""
    torch.manual_seed(seed)
    build, shape = PRUNABLE[name]
    model = build()
    shake(model)
    inputs = torch.randn(4, *shape)
    return adapt(model, torch.randn(64, *shape)), inputs


def settle(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The network in eval mode, with norms as training leaves them on these inputs."""
    shake(model)
    return adapt(model, inputs)


def shake(model: nn.Module) -> None:
    """Norms scale and shift."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)


def adapt(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The network in eval mode, with the batch-norm statistics of these inputs."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.momentum = 1.0
    with torch.no_grad():
        model.train()(inputs)
    for module in norms:
        module.momentum = 0.1
    return model.eval()


def entering(state: Compression, path: str) -> Tensor:
    """What the layer reads in the original network."""
    seen: list[Tensor] = []
    model = copy.deepcopy(state.teacher)
    model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(state.calibration)
    return torch.cat(seen)
