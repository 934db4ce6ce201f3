"""Evolution on a predictor that learns from the trials."""
