"""The metanetwork: features, layers, heads and the edit they make."""
