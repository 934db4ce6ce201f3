"""The proof: what an export is, measured again in fresh processes from its files alone."""
