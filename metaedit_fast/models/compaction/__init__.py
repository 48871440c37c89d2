"""Smaller networks with the same predictions: what removed weights leave without effect is taken out."""
