"""Distances between a student and its teacher, and the teachers between them."""
