"""Feature distillation: the compressed network learns what its teacher's layers say.

Every distance is relative (to the teacher's size, or between normalised maps), so that one weight means about the same
in every network. A feature has the form (n, channels, positions ...) here; both networks' have the same positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.operators.base import Answer
from automc.operators.distillation.features import Feature

RIDGE = 1e-3
"""Of an adapter's first fit, relative to the mean square of its inputs."""


def hint(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """``|adapter(student) - teacher|^2 / |teacher|^2`` (FitNets, Romero et al. 2015)."""
    return [relative(own, wanted) for own, wanted in zip(student, teacher, strict=True)]


def attention(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """``1/2 |q_s / |q_s| - q_t / |q_t||^2``, q the sum over channels of the squares (Zagoruyko & Komodakis 2017)."""
    pairs = zip(student, teacher, strict=True)
    return [0.5 * (where(own) - where(wanted)).square().sum(1).mean() for own, wanted in pairs]


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """``|G_s - G_t|^2 / |G_t|^2``, G the Gram matrix between one feature and the next (FSP, Yim et al. 2017)."""
    pairs = zip(pairwise(student), pairwise(teacher), strict=True)
    return [relative(gram(*own), gram(*wanted)) for own, wanted in pairs if own[0].dim() == own[1].dim()]


def relational(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """Distances and angles between the inputs' embeddings agree (RKD, Park et al. 2019).

    ``huber(distances) + 2 * huber(cosines)`` of the last feature, averaged over its positions; the paper's weights, 25
    and 50, have this ratio. Two inputs have no angle, so batches need three.
    """
    own, wanted = embedding(student[-1]), embedding(teacher[-1])
    found = F.smooth_l1_loss(distances(own), distances(wanted))
    return [found if len(own) < 3 else found + 2 * F.smooth_l1_loss(cosines(own), cosines(wanted))]


FEATURES: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]] = {
    function.__name__: function for function in (hint, attention, fsp, relational)
}
"""By the value of ``kd_features``: features of student and teacher in, scalars out, the term is their mean."""

ADAPTED = ("hint", "fsp")
"""Those that need as many channels in the student as in the teacher."""


@dataclass(frozen=True)
class FeatureTerm:
    """``loss = loss so far + beta * distance of the features``: see base.LossTerm.

    Attributes:
        kind: a key of FEATURES. beta: above 0. features: what is compared, in execution order.
    """

    kind: str
    beta: float
    features: tuple[Feature, ...]

    @property
    def keeps(self) -> float:
        return 1.0

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(feature.path for feature in self.features)

    def start(self, student: Answer, teacher: Answer) -> nn.Module:
        """The term, with adapters where this student is narrower than this teacher."""
        return _Compared(self, student, teacher)

    def of(self, answer: Answer) -> list[Tensor]:
        """An answer's features, each (n, channels, ...)."""
        values = ((answer.features[feature.path], feature.last) for feature in self.features)
        return [value.movedim(-1, 1) if last else value for value, last in values]


class _Compared(nn.Module):
    def __init__(self, term: FeatureTerm, student: Answer, teacher: Answer) -> None:
        super().__init__()
        self.term = term
        pairs = zip(term.of(student), term.of(teacher), strict=True)
        adapters = [Adapter(own, wanted) if term.kind in ADAPTED else nn.Identity() for own, wanted in pairs]
        self.adapters = nn.ModuleList(adapters)

    def forward(self, student: Answer, teacher: Answer) -> Tensor:
        """The weighted distance, a scalar. No gradient reaches the teacher."""
        own = [adapter(value) for adapter, value in zip(self.adapters, self.term.of(student), strict=True)]
        wanted = [value.detach() for value in self.term.of(teacher)]
        return self.term.beta * torch.stack(FEATURES[self.term.kind](own, wanted)).mean()


class Adapter(nn.Module):
    """A regressor from the student's channels to the teacher's, a 1x1 convolution (Romero et al. 2015).

    It starts as the ridge regression on the first batch, not at random: a repair is too short to learn it from nothing.
    Where both are equally wide it is the identity and has no parameters.
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        self.same = student.shape[1] == teacher.shape[1]
        if self.same:
            return
        x, y = (flat(t.detach().double()).transpose(1, 2).flatten(0, 1) for t in (student, teacher))
        mean_x, mean_y = x.mean(0), y.mean(0)
        squares = (x - mean_x).T @ (x - mean_x)
        squares.diagonal().add_((RIDGE * squares.diagonal().mean()).clamp_min(torch.finfo(torch.float32).tiny))
        weight = torch.linalg.solve(squares, (x - mean_x).T @ (y - mean_y)).T
        self.weight = nn.Parameter(weight.to(student.dtype))
        self.bias = nn.Parameter((mean_y - weight @ mean_x).to(student.dtype))

    def forward(self, feature: Tensor) -> Tensor:
        """(n, student's channels, ...) to (n, teacher's channels, ...)."""
        if self.same:
            return feature
        wide: Tensor = self.weight @ flat(feature) + self.bias[:, None]
        return wide.reshape(*wide.shape[:2], *feature.shape[2:])


def flat(feature: Tensor) -> Tensor:
    """(n, channels, ...) to (n, channels, positions); without any there is one position."""
    return feature.flatten(2) if feature.dim() > 2 else feature[:, :, None]


def relative(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance over the teacher's squared size, a scalar."""
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp_min(torch.finfo(teacher.dtype).tiny)


def where(feature: Tensor) -> Tensor:
    """Where a feature is large, the attention map: (n, channels, ...) to (n, positions), each row of length 1."""
    return F.normalize(flat(feature).square().sum(1), dim=1)


def gram(first: Tensor, second: Tensor) -> Tensor:
    """Mean over positions of the products of two features' channels: (n, c, ...), (n, d, ...) to (n, c, d).

    Both are max-pooled to the positions of the smaller.
    """
    if first.shape[2:] != second.shape[2:]:
        pool = {3: F.adaptive_max_pool1d, 4: F.adaptive_max_pool2d, 5: F.adaptive_max_pool3d}[first.dim()]
        size = [min(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
        first, second = pool(first, size), pool(second, size)
    return flat(first) @ flat(second).transpose(1, 2) / flat(first).shape[2]


def embedding(feature: Tensor) -> Tensor:
    """Mean over the positions: (n, channels, ...) to (n, channels)."""
    return flat(feature).mean(2)


def distances(points: Tensor) -> Tensor:
    """Distances of all ordered pairs of different points over their mean: (n, d) to (n * (n - 1),)."""
    pairs = ~torch.eye(len(points), dtype=torch.bool)
    squares = (points[:, None] - points[None])[pairs].square().sum(1)
    found = squares.clamp_min(1e-12).sqrt()  # two equal points have no direction, and no gradient
    return found / found.mean()


def cosines(points: Tensor) -> Tensor:
    """Cosines of the angles at j between i and k, for all different i, j, k: (n, d) to (n * (n - 1) * (n - 2),)."""
    same = torch.eye(len(points), dtype=torch.bool)
    edges = F.normalize(points[None] - points[:, None], dim=2)  # [j, i]: from j to i
    different = ~(same[:, :, None] | same[:, None, :] | same[None])
    return (edges @ edges.transpose(1, 2))[different]
