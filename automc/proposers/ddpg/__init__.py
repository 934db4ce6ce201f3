"""Agents that learn to compress layer by layer: AMC, HAQ, and the agent they share."""
