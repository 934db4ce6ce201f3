"""What a network costs: analytic (cost.py) and measured (latency.py)."""
