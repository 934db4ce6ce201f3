"""Which weights go: patterns, second-order costs, and what layers read."""
