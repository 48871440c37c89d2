"""From the network's results to edited parameters: what is kept, what is written."""

from __future__ import annotations

import numpy as np
from onnx import FunctionProto

from metaedit_fast.export.builder import BOOL, DOMAIN, FLOAT, INT64, GraphBuilder
from metaedit_fast.export.operators import features, network
from metaedit_fast.export.operators.structure import layer_column, parameters, structure
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.metanet.config import MetanetConfig


def functions(config: MetanetConfig, requirement: str) -> list[FunctionProto]:
    """The bodies that an editor for the requirement of this name needs."""
    if requirement == "pruning":
        return [_write_back_function(), _top_weights_function(), _pruned_edit_function(config)]
    if requirement == "data_minimisation":
        return [_write_back_function(), _kept_inputs_function(config), _weights_of_inputs_function(config)]
    return [_write_back_function()]


def pruned_edit(g: GraphBuilder, config: MetanetConfig, condition: str, gain: str, kept: str) -> list[str]:
    """Edited θ and scores."""
    names = [name for name, _ in weight_shapes(config)]
    settings = {**features.attributes(config), **network.attributes(config)}
    inputs = ("theta", "layers", "skips", condition, gain, kept, *features.inputs(config)[3:], *names)
    return g.ops("PrunedEdit_v1", *inputs, n_outputs=2, domain=DOMAIN, **settings)


def _pruned_edit_function(config: MetanetConfig) -> FunctionProto:
    """The whole edit of pruning but for the arithmetic of the budget."""
    g = GraphBuilder()
    edge, saliency, rms, node, node_type = features.features(g, config)
    score, *residuals = network.metanetwork(g, config, edge, saliency, node, node_type)
    mask = g.op("TopWeights_v1", "theta", "layers", score, "kept", domain=DOMAIN)
    edited = write_back(g, rms, residuals, "gain", mask)
    names = [name for name, _ in weight_shapes(config)]
    inputs = ["theta", "layers", "skips", "condition", "gain", "kept", *features.inputs(config)[3:], *names]
    settings = {**features.attributes(config), **network.attributes(config)}
    return g.function("PrunedEdit_v1", inputs, {"edited": edited, "score": score}, list(settings))


def write_back(g: GraphBuilder, rms: str, residuals: list[str], gain: str, mask: str) -> str:
    """θ' (``metanet.apply.edited_theta``) for the residuals of weights, relative and additive, and of neurons."""
    return g.op("WriteBack_v1", "theta", "layers", rms, *residuals, gain, mask, domain=DOMAIN)


def _write_back_function() -> FunctionProto:
    """Where the step is 0 the bits of θ stay, and a weight that is 0 already stays so."""
    g = GraphBuilder()
    s = structure(g)
    places = parameters(g, s)
    zero = g.constant(0.0, FLOAT)
    layer_gain = g.gather("gain", layer_column(g, "model"))
    w = g.gather("theta", places.weights)
    inner = g.add(g.mul("relative", w), g.mul("rms", "additive"))
    step = g.mul(g.gather(layer_gain, s.layer), inner)
    stays = g.op("Or", g.op("Equal", step, zero), g.op("Equal", w, zero))
    weights = g.where("mask", g.where(stays, w, g.add(w, step)), zero)

    present = g.op("Reshape", places.present, g.constant([-1]))
    rest = g.op("Compress", places.rest, present)  # of the flattened matrix
    owned = g.op("Compress", places.owned, present)
    step = g.op("Compress", g.mul(g.unsqueeze(g.gather(layer_gain, s.node_layer), 1), "node"), present)
    old = g.gather("theta", rest)
    stays = g.op("Or", g.op("Equal", step, zero), g.op("Not", owned))
    others = g.where(stays, old, g.add(old, step))
    edited = g.put("theta", g.concat(places.weights, rest), g.concat(weights, others))
    inputs = ["theta", "layers", "rms", "relative", "additive", "node", "gain", "mask"]
    return g.function("WriteBack_v1", inputs, {"edited": edited})


def _top_weights_function() -> FunctionProto:
    """Of every model the ``kept`` weights of the highest scores, of equal ones the first, bool ``[W]``; weights that
    are 0 already rank last.
    """
    g = GraphBuilder()
    s = structure(g)
    w = g.gather("theta", parameters(g, s).weights)
    ranked = g.where(g.op("Equal", w, g.constant(0.0, FLOAT)), g.constant(-np.inf, FLOAT), "score")
    first = g.unsqueeze(g.gather(s.weights_from, s.first_layer), 1)
    last = g.unsqueeze(g.gather(s.weights_to, s.last_layer), 1)
    count = g.unsqueeze("kept", 1)

    def body(step: str) -> list[str]:
        a, b, k = (g.gather(x, step) for x in (first, last, count))
        _, best = g.ops("TopK", g.slice(ranked, a, b), k, n_outputs=2)
        return [g.add(best, a)]

    (best,) = g.collect(g.scalar(g.length(s.first_layer)), [(INT64, ())], body)
    ones = g.fill(g.op("Shape", best), 1, INT64)
    mask = g.cast(g.put(g.fill(g.op("Shape", "score"), 0, INT64), best, ones), BOOL)
    return g.function("TopWeights_v1", ["theta", "layers", "score", "kept"], {"mask": mask})


def kept_inputs(g: GraphBuilder, node: str, kept: str) -> list[str]:
    """Scores ``[M, n_inputs]``, and which inputs stay, bool."""
    return g.ops("KeptInputs_v1", "theta", "layers", node, kept, n_outputs=2, domain=DOMAIN)


def _kept_inputs_function(config: MetanetConfig) -> FunctionProto:
    """An input's score is what the node head gives for it; inputs that the model does not use go first."""
    g = GraphBuilder()
    s = structure(g)
    w = g.gather("theta", parameters(g, s).weights)
    shape = g.columns(layer_column(g, "n_in"), layer_column(g, "n_out"))
    first, last, shape = (g.gather(x, s.first_layer) for x in (s.weights_from, s.weights_to, shape))
    first, last = g.unsqueeze(first, 1), g.unsqueeze(last, 1)
    size = g.op("Abs", w)

    def body(step: str) -> list[str]:
        a, b, matrix = (g.gather(x, step) for x in (first, last, shape))
        return [g.reduce("Max", g.reshape(g.slice(size, a, b), matrix), 1)]

    n = config.n_inputs
    (largest,) = g.collect(g.scalar(g.length(s.first_layer)), [(FLOAT, ())], body)
    used = g.op("Greater", g.reshape(largest, g.constant([-1, n])), g.constant(0.0, FLOAT))
    inputs_from = g.sub(g.gather(s.target_from, s.first_layer), g.constant(n))
    neurons = g.add(g.unsqueeze(inputs_from, 1), g.constant(np.arange(n)))
    score = g.gather(g.column("node_residual", 0), neurons)
    number = g.where(g.op("IsNaN", score), g.constant(0.0, FLOAT), score)
    ranked = g.where(used, number, g.constant(-np.inf, FLOAT))
    _, order = g.ops("TopK", ranked, g.constant([n]), n_outputs=2, axis=1)
    stays = g.cast(g.op("Less", g.constant([np.arange(n)]), g.unsqueeze("kept", 1)), INT64)
    mask = g.op("ScatterElements", g.fill(g.op("Shape", order), 0, INT64), order, stays, axis=1)
    inputs = ["theta", "layers", "node_residual", "kept"]
    return g.function("KeptInputs_v1", inputs, {"score": score, "stays": g.cast(mask, BOOL)})


def weights_of_inputs(g: GraphBuilder, stays: str) -> str:
    """Which weights stay where inputs do, bool ``[W]``."""
    return g.op("WeightsOfInputs_v1", "layers", stays, domain=DOMAIN)


def _weights_of_inputs_function(config: MetanetConfig) -> FunctionProto:
    """A weight goes with the input that it leaves."""
    g = GraphBuilder()
    s = structure(g)
    n = config.n_inputs
    place, model = g.gather(s.place, s.source), g.gather(layer_column(g, "model"), s.layer)
    is_hidden = g.op("GreaterOrEqual", place, g.constant(0))
    number = g.add(g.mul(model, g.constant(n)), g.add(place, g.constant(n)))
    own = g.gather(g.flat("stays"), g.where(is_hidden, g.constant(0), number))
    return g.function("WeightsOfInputs_v1", ["layers", "stays"], {"mask": g.op("Or", is_hidden, own)})
