"""The network as it is written: batch norms folded, compressed weights as they are stored."""
