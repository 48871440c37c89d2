"""What a metanetwork is told beside the model, as further columns of its features (``metanet.context``)."""

from __future__ import annotations

from onnx import FunctionProto

from metaedit_fast.export.builder import DOMAIN, DOUBLE, FLOAT, GraphBuilder
from metaedit_fast.export.operators.features import model_means
from metaedit_fast.export.operators.structure import layer_column, parameters, structure
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.context import TINY_GRADIENT, TINY_JSD, TINY_STD
from metaedit_fast.metanet.features import LIMIT

GROUP_INPUTS = ("rates", "cell_means", "gap_gradient")


def input_context(g: GraphBuilder, config: MetanetConfig, edge: str, node: str, removed: str) -> list[str]:
    """Edge and node features with those of the context ``"inputs"``; ``removed`` is bool ``[M, n_inputs]``."""
    inputs = ("layers", edge, node, removed, *(("worth",) if config.probe else ()))
    return g.ops("InputContext_v1", *inputs, n_outputs=2, domain=DOMAIN)


def group_context(g: GraphBuilder, edge: str, node: str, rms: str) -> list[str]:
    """Edge and node features with those of the context ``"groups"``."""
    inputs = ("layers", edge, node, rms, "mean", "std", *GROUP_INPUTS)
    return g.ops("GroupContext_v1", *inputs, n_outputs=2, domain=DOMAIN)


def function(config: MetanetConfig) -> FunctionProto:
    """The body of the config's context."""
    return _input_context(config) if config.context == "inputs" else _group_context()


def _joined(g: GraphBuilder, edge: list[str], node: list[str]) -> dict[str, str]:
    """The outputs: given features with further columns, matrices or vectors."""
    return {
        "edge_features": g.concat("edge", g.clip(g.columns(*edge), LIMIT), axis=1),
        "node_features": g.concat("node", g.clip(g.columns(*node), LIMIT), axis=1),
    }


def _input_context(config: MetanetConfig) -> FunctionProto:
    g = GraphBuilder()
    s = structure(g)
    is_input = g.op("Less", s.place, g.constant(0))
    model = g.gather(layer_column(g, "model"), s.node_layer)
    number = g.add(g.mul(model, g.constant(config.n_inputs)), g.add(s.place, g.constant(config.n_inputs)))
    number = g.where(is_input, number, g.constant(0))

    def at_inputs(values: str) -> str:
        """Of a value for each model and input the input's own; 0 at the other neurons."""
        return g.where(is_input, g.gather(g.flat(values), number), g.constant(0.0, FLOAT))

    removed = at_inputs(g.cast("removed", FLOAT))
    node = [removed]
    if config.probe:
        for i in range(2):
            worth = g.op("Gather", "worth", g.constant(i), axis=2)
            log_jsd = g.op("Log", g.add(worth, g.constant(TINY_JSD, DOUBLE)))
            half = g.mul(log_jsd, g.constant(0.5, DOUBLE))
            centred = g.sub(log_jsd, g.reduce("Mean", log_jsd, 1, keepdims=True))
            for values in (g.add(half, g.constant(3.0, DOUBLE)), g.mul(centred, g.constant(0.5, DOUBLE))):
                node.append(at_inputs(g.cast(values, FLOAT)))
    leaves = g.gather(removed, s.source)
    inputs = ["layers", "edge", "node", "removed", *(["worth"] if config.probe else [])]
    found = _joined(g, [leaves, g.mul(leaves, g.column("edge", 0))], node)
    return g.function("InputContext_v1", inputs, found)


def _group_context() -> FunctionProto:
    g = GraphBuilder()
    s = structure(g)
    places = parameters(g, s)
    n_out, model = layer_column(g, "n_out"), layer_column(g, "model")
    bias_layer, biases_from = g.spread(n_out)
    is_bias = g.op("Not", g.op("Less", s.place, g.constant(0)))
    bias_places = g.op("Compress", g.column(places.rest, 0), is_bias, axis=0)
    zero = g.constant([0.0], FLOAT)

    def signed_and_log(gradient: str, bounds: tuple[str, str], layer: str) -> list[str]:
        """A gradient in units of its root mean square over the model, and the logarithm of its size."""
        wide = g.cast(gradient, DOUBLE)
        (mean,) = model_means(g, s, [g.mul(wide, wide)], bounds)
        unit = g.add(g.op("Sqrt", mean), g.constant(TINY_GRADIENT, DOUBLE))
        signed = g.op("Div", wide, g.gather(g.gather(unit, model), layer))
        size = g.add(g.op("Abs", signed), g.constant(TINY_STD, DOUBLE))
        return [g.cast(x, FLOAT) for x in (signed, g.op("Log", size))]

    edge, at_bias = [], []
    for gap in range(2):
        gradient = g.op("Gather", "gap_gradient", g.constant(gap), axis=0)
        of_weights = g.mul(g.gather(gradient, places.weights), "rms")
        edge += signed_and_log(of_weights, (s.weights_from, s.weights_to), s.layer)
        bounds = (biases_from, g.add(biases_from, n_out))
        found = signed_and_log(g.gather(gradient, bias_places), bounds, bias_layer)
        at_bias += [g.gather(g.concat(x, zero), s.in_row) for x in found]
    spread = g.add(g.unsqueeze("std", 1), g.constant(TINY_STD, FLOAT))
    means = g.clip(g.op("Div", g.sub("cell_means", g.unsqueeze("mean", 1)), spread), 5.0)
    rates = g.mul(g.reshape("rates", g.constant([-1, 4])), g.constant(3.0, FLOAT))
    rates = g.gather(rates, g.gather(model, s.node_layer))
    node = [*(g.column(means, i) for i in range(4)), *at_bias, *(g.column(rates, i) for i in range(4))]
    inputs = ["layers", "edge", "node", "rms", "mean", "std", *GROUP_INPUTS]
    return g.function("GroupContext_v1", inputs, _joined(g, edge, node))
