"""Few-bit numbers: formats of weights, grids of inputs, and the rules that choose their ranges."""

from automc.operators.quantizers.affine import AffineQuantizer, LearnedStepQuantizer, SymmetricQuantizer
from automc.operators.quantizers.codebook import CodebookQuantizer, kmeans
from automc.operators.quantizers.fixed import BinaryQuantizer, DoReFaQuantizer, PowerOfTwoQuantizer, TernaryQuantizer
from automc.operators.quantizers.incremental import IncrementalQuantizer
from automc.operators.quantizers.inputs import InputQuantizer, LearnedClipInput, LearnedStepInput
from automc.operators.quantizers.rows import ScaledQuantizer, straight_through

__all__ = [
    "AffineQuantizer",
    "BinaryQuantizer",
    "CodebookQuantizer",
    "DoReFaQuantizer",
    "IncrementalQuantizer",
    "InputQuantizer",
    "LearnedClipInput",
    "LearnedStepInput",
    "LearnedStepQuantizer",
    "PowerOfTwoQuantizer",
    "ScaledQuantizer",
    "SymmetricQuantizer",
    "TernaryQuantizer",
    "kmeans",
    "straight_through",
]
