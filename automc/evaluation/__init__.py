"""Models, data, repair and measurement: what turns a policy into numbers."""
