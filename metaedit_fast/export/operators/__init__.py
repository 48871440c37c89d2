"""The operators of the ONNX domain ``metaedit``, each as a function of standard operators.

A function's body is written for one config: what the config lacks is absent. Shapes are in terms of a batch of ``M``
models one after the other, with ``N`` neurons, ``W`` weights, ``P`` parameters, ``L`` weight matrices, ``K`` skips
and ``S`` edges of skips (docs/formats.md, "The graph").
"""
