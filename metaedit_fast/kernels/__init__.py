"""The metanetwork layer: the plain-torch reference and the native kernels."""
