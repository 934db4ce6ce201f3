"""graph.json: what a network does with its numbers, written from a network and run again without its code."""
