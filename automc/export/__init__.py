"""Export: the compressed network as files a user can take away, and the proof that they keep the promise.

Imports nothing by itself: the proof runs in a process without torch.
"""
