"""The folder a user takes away: its files, manifest and model card."""
