"""Executors: where trials are evaluated."""
