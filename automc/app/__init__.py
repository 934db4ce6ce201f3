"""What a user does: read a study file, search, ask, take a model away."""
