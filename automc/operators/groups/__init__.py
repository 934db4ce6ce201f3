"""Coupled groups: finding the channels that must go together, proving it, and removing them."""
