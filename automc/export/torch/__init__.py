"""The format ``torch``: a program, plain weights and a script to read, which need no automc."""
