"""The packed file: a network's numbers in as few bytes as they need, written and read. Loads no torch to read."""

from automc.export.packed.file import compressed_weights, dumps, pack, read, tensors, write

__all__ = ["compressed_weights", "dumps", "pack", "read", "tensors", "write"]
