"""Format ``executorch``: one program for phones and boards, its layers in XNNPACK's integer kernels where they are."""
