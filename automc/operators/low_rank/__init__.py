"""Layers as products of smaller ones: decompositions, ranks, and what layers answer."""
