"""Training of editors; needs torch."""
