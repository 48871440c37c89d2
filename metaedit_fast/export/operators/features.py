"""``Features_v1``: what the metanetwork sees of every model (``metanet.features``), in float32."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import FunctionProto

from metaedit_fast.export.builder import DOMAIN, DOUBLE, FLOAT, INT64, GraphBuilder
from metaedit_fast.export.operators.structure import Structure, layer_column, parameters, structure
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import LIMIT, TINY_FISHER, TINY_WEIGHT
from metaedit_fast.models.spec import NORMS

PROBE_INPUTS = ("mean", "std", "gradient", "fisher")
OUTPUTS = ("edge_features", "saliency", "rms", "node_features", "node_type")


def inputs(config: MetanetConfig) -> list[str]:
    """Of the operator: θ, the structure, and with a probe its statistics."""
    return ["theta", "layers", "skips", *(PROBE_INPUTS if config.probe else ())]


def attributes(config: MetanetConfig) -> dict[str, int]:
    """What a kernel needs to know."""
    return {"n_inputs": config.n_inputs, "n_classes": config.n_classes, "probe": int(config.probe)}


def features(g: GraphBuilder, config: MetanetConfig) -> list[str]:
    """Its results, as ``OUTPUTS``."""
    return g.ops("Features_v1", *inputs(config), n_outputs=len(OUTPUTS), domain=DOMAIN, **attributes(config))


def function(config: MetanetConfig) -> FunctionProto:
    """The body."""
    g = GraphBuilder()
    writer = _Writer(g, config)
    edge, saliency = writer.edges()
    node = writer.nodes()
    if config.probe:
        more_edge, saliency, more_node = writer.probe()
        edge, node = edge + more_edge, node + more_node
    results = (g.clip(g.columns(*edge), LIMIT), saliency, writer.rms, g.clip(g.columns(*node), LIMIT), writer.types())
    return g.function("Features_v1", inputs(config), dict(zip(OUTPUTS, results, strict=True)), list(attributes(config)))


class _Writer:
    """Columns of features, on top of what several of them share: root mean squares of matrices, columns and rows."""

    def __init__(self, g: GraphBuilder, config: MetanetConfig) -> None:
        self.g, self.config = g, config
        self.s = structure(g)
        self.places = parameters(g, self.s)
        self.n_in, self.n_out = layer_column(g, "n_in"), layer_column(g, "n_out")
        self.layer_model = layer_column(g, "model")
        self.is_input = g.op("Less", self.s.place, g.constant(0))
        self.w = g.gather("theta", self.places.weights)
        rms_in, rms_out, rms, self.moved = self._roots()
        tiny = g.constant([TINY_WEIGHT], FLOAT)
        # A neuron that no weight ends, or starts, at counts as one of rms 1.
        one = g.constant([1.0], FLOAT)
        self.rms_in = g.gather(g.concat(g.add(rms_in, tiny), one), self.s.in_row)
        self.rms_out = g.gather(g.concat(g.add(rms_out, tiny), one), self.s.out_row)
        self.layer_rms = g.add(rms, tiny)
        self.rms = g.gather(self.layer_rms, self.s.layer)

    def _roots(self) -> tuple[str, str, str, str]:
        """Of every target, source and matrix; with a probe also of the inputs' spread, as it arrives at every target
        (a sum, no mean), else an empty name.
        """
        g, s = self.g, self.s
        first, last = g.unsqueeze(s.weights_from, 1), g.unsqueeze(s.weights_to, 1)
        shape = g.columns(self.n_in, self.n_out)
        if self.config.probe:
            moves = g.mul(self.w, g.gather("std", s.source))
            moves = g.mul(moves, moves)
        squares = g.mul(self.w, self.w)

        def body(step: str) -> list[str]:
            a, b, matrix = g.gather(first, step), g.gather(last, step), g.gather(shape, step)
            block = g.reshape(g.slice(squares, a, b), matrix)
            by_source = g.reduce("Mean", block, 1)
            found = [g.reduce("Mean", block, 0), by_source, g.reduce("Mean", by_source, 0, keepdims=True)]
            return found + ([g.reduce("Sum", g.reshape(g.slice(moves, a, b), matrix), 0)] if self.config.probe else [])

        n = 4 if self.config.probe else 3
        found = g.collect(g.scalar(g.length("layers")), [(FLOAT, ())] * n, body)
        roots = [g.op("Sqrt", x) for x in found]
        return roots[0], roots[1], roots[2], roots[3] if self.config.probe else ""

    def edges(self) -> tuple[list[str], str]:
        g, s, w = self.g, self.s, self.w
        size = g.add(g.op("Abs", w), g.constant(TINY_WEIGHT, FLOAT))
        (log_w,) = self._centred([g.log(size)], of_weights=True)
        columns = [
            g.op("Div", w, self.rms),
            log_w,
            g.op("Div", w, g.gather(self.rms_in, s.target)),
            g.op("Div", w, g.gather(self.rms_out, s.source)),
            g.gather(g.cast(g.log(self.layer_rms), FLOAT), s.layer),
        ]
        return columns, self._poisoned(log_w)

    def nodes(self) -> list[str]:
        g, s = self.g, self.s
        one, zero = g.constant(1.0, FLOAT), g.constant(0.0, FLOAT)

        def parameter(column: int, otherwise: str) -> str:
            present = g.column(self.places.present, column)
            place = g.where(present, g.column(self.places.rest, column), g.constant(0))
            return g.where(present, g.gather("theta", place), otherwise)

        def log(x: str) -> str:
            return g.cast(g.log(x), FLOAT)

        has_norm = g.op("Equal", layer_column(g, "norm"), g.constant(NORMS.index("layer")))
        normed = g.op("And", g.gather(has_norm, s.node_layer), g.op("Not", self.is_input))
        first = g.gather(g.gather(s.first_layer, self.layer_model), s.node_layer)
        last = g.gather(g.gather(s.last_layer, self.layer_model), s.node_layer)
        position = g.add(g.sub(s.node_layer, first), g.cast(g.op("Not", self.is_input), INT64))
        depth = g.cast(g.add(g.sub(last, first), g.constant(1)), DOUBLE)
        share = g.op("Div", g.cast(position, DOUBLE), depth)
        width = g.where(self.is_input, g.gather(self.n_in, s.node_layer), g.gather(self.n_out, s.node_layer))
        return [
            parameter(0, zero),
            log(self.rms_in),
            log(self.rms_out),
            g.sub(parameter(1, one), one),
            parameter(2, zero),
            g.cast(normed, FLOAT),
            g.cast(share, FLOAT),
            g.cast(g.sub(g.constant(1.0, DOUBLE), share), FLOAT),
            g.cast(g.op("Div", depth, g.constant(4.0, DOUBLE)), FLOAT),
            log(g.op("Div", g.cast(width, FLOAT), g.constant(16.0, FLOAT))),
        ]

    def probe(self) -> tuple[list[str], str, list[str]]:
        """Columns of edges, the saliency, columns of nodes."""
        g, s = self.g, self.s
        tiny = g.constant(TINY_FISHER, FLOAT)

        def half_log(x: str) -> str:
            return g.mul(g.log(g.add(x, tiny)), g.constant(0.5, DOUBLE))

        of_weight = half_log(g.mul(g.mul(self.w, self.w), "fisher"))
        saliency, sensitivity = self._centred([of_weight, half_log("fisher")], of_weights=True)
        (gradient,) = self._centred([half_log("gradient")], of_weights=False)
        total = g.op("Max", self.moved, g.constant(TINY_WEIGHT, FLOAT))
        total = g.gather(g.concat(total, g.constant([1.0], FLOAT)), s.in_row)
        moved = g.op("Div", g.mul(self.w, g.gather("std", s.source)), g.gather(total, s.target))
        at_neuron = g.gather(g.concat(gradient, g.constant([0.0], FLOAT)), s.in_row)
        return [saliency, sensitivity, moved], self._poisoned(saliency, "fisher", moved), ["mean", "std", at_neuron]

    def types(self) -> str:
        """``MetanetConfig.node_types``."""
        g, s, config = self.g, self.s, self.config
        n_out = g.gather(self.n_out, s.node_layer)
        output = g.where(
            g.op("Equal", n_out, g.constant(config.n_classes)),
            g.add(s.place, g.constant(config.n_inputs)),
            g.constant(config.n_inputs + config.n_classes),
        )
        activation = g.gather(layer_column(g, "activation"), s.node_layer)
        hidden = g.add(activation, g.constant(config.n_inputs + config.n_classes + 1))
        last = g.gather(g.gather(s.last_layer, self.layer_model), s.node_layer)
        target = g.where(g.op("Equal", s.node_layer, last), output, hidden)
        return g.where(self.is_input, g.add(s.place, g.constant(config.n_inputs)), target)

    def _centred(self, values: Sequence[str], *, of_weights: bool) -> list[str]:
        """Minus the mean over the model, clamped: of each weight, or of each neuron that a layer ends at; from
        doubles to floats.
        """
        g, s = self.g, self.s
        if of_weights:
            bounds, layer = (s.weights_from, s.weights_to), s.layer
        else:
            ends_from, _ = g.starts(self.n_out)
            bounds = (ends_from, g.add(ends_from, self.n_out))
            layer, _ = g.spread(self.n_out)
        means = model_means(g, s, values, bounds)
        return [
            g.clip(g.cast(g.sub(x, g.gather(g.gather(mean, self.layer_model), layer)), FLOAT), LIMIT)
            for x, mean in zip(values, means, strict=True)
        ]

    def _poisoned(self, saliency: str, *others: str) -> str:
        """The saliency, but NaN where a number of which it is told is not finite, which clamping might hide."""
        g = self.g
        for x in (self.rms, *others):
            saliency = g.add(saliency, g.mul(x, g.constant(0.0, FLOAT)))
        return saliency


def model_means(g: GraphBuilder, s: Structure, values: Sequence[str], bounds: tuple[str, str]) -> list[str]:
    """Means of every model's part of double vectors, ``[M]``; ``bounds`` are those of each layer's part."""
    first = g.unsqueeze(g.gather(bounds[0], s.first_layer), 1)
    last = g.unsqueeze(g.gather(bounds[1], s.last_layer), 1)

    def body(step: str) -> list[str]:
        a, b = g.gather(first, step), g.gather(last, step)
        return [g.reduce("Mean", g.slice(x, a, b), 0, keepdims=True) for x in values]

    return g.collect(g.scalar(g.length(s.first_layer)), [(DOUBLE, ())] * len(values), body)


def zeros_like(g: GraphBuilder, x: str) -> str:
    """Float zeros, one for each entry of a vector."""
    return g.fill(g.op("Shape", x), 0.0, FLOAT)
