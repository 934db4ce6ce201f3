"""The HTTP service: a thin floor over ``app``; every figure comes from the function that the command line uses."""
