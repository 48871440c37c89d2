"""``Metanetwork_v1``: the network itself (``metanet.metanetwork``), in float32.

Edges are reduced at neurons by a loop over the weight matrices: ONNX Runtime's scatter with addition is
unsynchronised (ScatterND) or slow (ScatterElements). The official form is computed with two exact identities: a
linear of a concatenation splits, and the second linear of a message commutes with the sum.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from onnx import FunctionProto

from metaedit_fast.export.builder import DOMAIN, FLOAT, GraphBuilder
from metaedit_fast.export.operators.features import zeros_like
from metaedit_fast.export.operators.structure import layer_column, skip_edges, structure
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.metanet.apply import SCORE_GAIN
from metaedit_fast.metanet.config import MetanetConfig

INPUTS = ("layers", "skips", "edge_features", "saliency", "node_features", "node_type", "condition")
OUTPUTS = ("score", "relative", "additive", "node")
_LAYER_NAMES = {"shipped": "ShippedLayer_v1", "official": "OfficialLayer_v1"}


def attributes(config: MetanetConfig) -> dict[str, str | int | float]:
    """What a kernel needs to know, beside the weights' shapes."""
    names = ("form", "d_e", "d_v", "n_layers", "head_hidden", "n_edge_features", "n_node_features", "n_node_types")
    found = {name: getattr(config, name) for name in names}
    return {**found, "edits_parameters": int(config.edits_parameters), "score_gain": SCORE_GAIN}


def metanetwork(
    g: GraphBuilder,
    config: MetanetConfig,
    edge_features: str = "edge_features",
    saliency: str = "saliency",
    node_features: str = "node_features",
    node_type: str = "node_type",
    condition: str = "condition",
) -> list[str]:
    """Its results, as ``OUTPUTS``."""
    told = (edge_features, saliency, node_features, node_type, condition)
    names = (name for name, _ in weight_shapes(config))
    settings = attributes(config)
    return g.ops("Metanetwork_v1", "layers", "skips", *told, *names, n_outputs=4, domain=DOMAIN, **settings)


def functions(config: MetanetConfig) -> list[FunctionProto]:
    """The bodies of the operator and of those that it is made of."""
    return [_layer(config), _edge_head(), _network(config)]


@dataclasses.dataclass(frozen=True)
class _Graph:
    """What every layer needs of the graph: the ends of all edges, those of the skips behind the weights; of each
    weight matrix its bounds ``[L, 1]`` and shape ``[L, 3]``; ``in_row`` and ``out_row`` of ``Structure``; the tables of
    ``Skips``; degrees ``[N, 1]``; the number of weights ``[1]``.
    """

    source: str = "source"
    target: str = "target"
    first: str = "first"
    last: str = "last"
    shape: str = "shape"
    in_row: str = "in_row"
    out_row: str = "out_row"
    at_target: str = "at_target"
    at_source: str = "at_source"
    in_degree: str = "in_degree"
    out_degree: str = "out_degree"
    n_weights: str = "n_weights"

    @property
    def names(self) -> tuple[str, ...]:
        return dataclasses.astuple(self)


def _network(config: MetanetConfig) -> FunctionProto:
    g = GraphBuilder()
    s = structure(g)
    skips = skip_edges(g, s)
    layer_model = layer_column(g, "model")
    node_model, edge_model = g.gather(layer_model, s.node_layer), g.gather(layer_model, s.layer)
    n_in, n_out = layer_column(g, "n_in"), layer_column(g, "n_out")
    minus_one = g.sub(g.sub(n_in, n_in), g.constant(1))  # reshape finds the edge size
    nothing = g.constant([[0.0]], FLOAT)
    ones = g.fill(g.concat(g.length(skips.source), g.constant([1])), 1.0, FLOAT)

    def degree(sizes: str, row: str, table: str) -> str:
        """Edges at each neuron; a layer gives as many of them to each of its neurons as ``sizes`` says."""
        others = n_out if sizes == n_in else n_in
        layer, _ = g.spread(others)
        dense = g.gather(g.concat(g.cast(g.columns(g.gather(sizes, layer)), FLOAT), nothing), row)
        (found,) = _with_skips(g, [dense], [g.concat(ones, nothing)], ["Add"], table)
        return found

    graph = _Graph(
        source=g.concat(s.source, skips.source),
        target=g.concat(s.target, skips.target),
        first=g.unsqueeze(s.weights_from, 1),
        last=g.unsqueeze(s.weights_to, 1),
        shape=g.columns(n_in, n_out, minus_one),
        in_row=s.in_row,
        out_row=s.out_row,
        at_target=skips.at_target,
        at_source=skips.at_source,
        in_degree=degree(n_in, s.in_row, skips.at_target),
        out_degree=degree(n_out, s.out_row, skips.at_source),
        n_weights=g.length("edge_features"),
    )
    budget = g.silu(g.linear("condition", "condition_in"))
    h = g.add(g.linear("node_features", "node_in"), g.gather("node_type.weight", "node_type"))
    h = g.add(h, g.gather(g.linear(budget, "condition_node"), node_model))
    at_edge = g.add(g.linear(budget, "condition_edge"), "edge_in.bias")
    e = g.linear(g.silu(g.affine("edge_features", "edge_in.weight", g.gather(at_edge, edge_model))), "edge_out")
    shape = g.concat(g.length(skips.source), g.constant([config.d_e]))
    e = g.concat(e, g.op("Expand", "skip_edge", shape))
    own = [name for name, _ in _layer_weights(config)]
    for i in range(config.n_layers):
        learned = [f"layers.{i}.{name}" for name in own]
        h, e = g.ops(_LAYER_NAMES[config.form], h, e, *graph.names, *learned, n_outputs=2, domain=DOMAIN)
    results = _heads(g, config, h, g.slice(e, 0, graph.n_weights), s.source, s.target)
    inputs = [*INPUTS, *(name for name, _ in weight_shapes(config))]
    found = dict(zip(OUTPUTS, results, strict=True))
    return g.function("Metanetwork_v1", inputs, found, list(attributes(config)))


def _heads(g: GraphBuilder, config: MetanetConfig, h: str, e: str, source: str, target: str) -> tuple[str, ...]:
    h = g.layer_norm(h, "final_norm")

    def head(name: str) -> str:
        parts = ("edge.weight", "edge.bias", "source.weight", "target.weight", "out.weight", "out.bias")
        learned = [f"{name}.{part}" for part in parts]
        return g.op("EdgeHead_v1", h, e, source, target, *learned, domain=DOMAIN)

    learned = g.mul(g.flat(head("score_head")), g.constant(SCORE_GAIN, FLOAT))
    score = g.add(learned, g.mul("saliency_gain", "saliency"))
    if not config.edits_parameters:
        none = zeros_like(g, score)
        return score, none, none, g.fill(g.concat(g.length(h), g.constant([3])), 0.0, FLOAT)
    edit = head("edit_head")
    return score, g.column(edit, 0), g.column(edit, 1), g.linear(h, "node_head")


def _edge_head() -> FunctionProto:
    """Values of every weight from its state and those of the neurons at its ends, ``[W, n_out]``."""
    g = GraphBuilder()
    inner = _edge_linear(g, "e", "h", "", "source", "target")
    found = g.linear(g.silu(inner), "out")
    learned = ["edge.weight", "edge.bias", "source.weight", "target.weight", "out.weight", "out.bias"]
    return g.function("EdgeHead_v1", ["h", "e", "source", "target", *learned], {"values": found})


def _edge_linear(g: GraphBuilder, e: str, h: str, name: str, source: str, target: str) -> str:
    """``edge(e) + source(h) + target(h)``, linears of ``name``, at edges with these ends.

    The bias is added at the neurons, which are few, and the product is added to the joined ends in
    one pass: on thin edges each pass counts.
    """
    at_source = g.linear(h, f"{name}source", bias=False)
    at_target = g.affine(h, f"{name}target.weight", f"{name}edge.bias")
    return g.affine(e, f"{name}edge.weight", g.add(g.gather(at_source, source), g.gather(at_target, target)))


def _layer_weights(config: MetanetConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the weights of one layer, without the layer's own name."""
    start = "layers.0."
    return [(name[len(start) :], shape) for name, shape in weight_shapes(config) if name.startswith(start)]


def _layer(config: MetanetConfig) -> FunctionProto:
    g = GraphBuilder()
    write = _shipped_layer if config.form == "shipped" else _official_layer
    h, e = write(g, config, _Graph())
    inputs = ["h", "e", *_Graph().names, *(name for name, _ in _layer_weights(config))]
    return g.function(_LAYER_NAMES[config.form], inputs, {"h_after": h, "e_after": e})


def _shipped_layer(g: GraphBuilder, config: MetanetConfig, graph: _Graph) -> tuple[str, str]:
    normed = g.layer_norm("h", "norm")
    q = g.silu(_edge_linear(g, "e", normed, "", graph.source, graph.target))
    wanted = [(q, how, at_target) for at_target in (True, False) for how in ("Sum", "Max")]
    in_sum, in_max, out_sum, out_max = _gather_edges(g, config, graph, wanted)
    one = g.constant([1.0], FLOAT)
    in_mean = g.op("Div", in_sum, g.op("Max", graph.in_degree, one))
    out_mean = g.op("Div", out_sum, g.op("Max", graph.out_degree, one))
    seen = g.concat(normed, in_mean, in_max, out_mean, out_max, axis=1)
    h = g.add("h", g.linear(g.silu(g.linear(seen, "node_in")), "node_out"))
    return h, g.add("e", g.linear(q, "update"))


def _official_layer(g: GraphBuilder, config: MetanetConfig, graph: _Graph) -> tuple[str, str]:
    d_e, d_v = config.d_e, config.d_v

    def message(part: str, *ends: str) -> str:
        """SiLU(LN(linear([e, h at each end]))), its linear split into a part per edge and parts per node."""
        weight = f"{part}_in.weight"
        x = g.affine("e", g.slice(weight, 0, d_e, axis=1), f"{part}_in.bias")
        for i, end in enumerate(ends):
            start = d_e + i * d_v
            x = g.add(x, g.gather(g.affine("h", g.slice(weight, start, start + d_v, axis=1)), end))
        return g.silu(g.layer_norm(x, f"{part}_norm"))

    def linear_of_sum(total: str, degree: str, name: str) -> str:
        """The sum of a linear's results from the sum of its inputs: the bias counts once an edge."""
        return g.add(g.linear(total, name, bias=False), g.mul(degree, f"{name}.bias"))

    forward, backward = message("forward", graph.source), message("backward", graph.target)
    in_sum, out_sum = _gather_edges(g, config, graph, [(forward, "Sum", True), (backward, "Sum", False)])
    there = linear_of_sum(in_sum, graph.in_degree, "forward_out")
    back = linear_of_sum(out_sum, graph.out_degree, "backward_out")
    e = g.linear(message("edge", graph.source, graph.target), "edge_out")
    seen = g.linear(g.concat("h", there, back, axis=1), "node_in")
    inner = g.silu(g.layer_norm(seen, "node_norm"))
    return g.add(g.linear(inner, "node_out"), g.linear("h", "residual")), e


def _gather_edges(
    g: GraphBuilder, config: MetanetConfig, graph: _Graph, wanted: list[tuple[str, str, bool]]
) -> list[str]:
    """Reduce edge values ``[W + S, d_e]`` at neurons, ``[N, d_e]``; 0 at neurons without such edges.

    Each of ``wanted`` is (values, "Sum" or "Max", whether at the edges' targets, else at their sources).
    """

    def body(step: str) -> list[str]:
        a, b, shape = (g.gather(x, step) for x in (graph.first, graph.last, graph.shape))
        views = {values: g.reshape(g.slice(values, a, b), shape) for values in {w[0]: None for w in wanted}}
        found = []
        for values, how, at_target in wanted:
            if how == "Sum" and not at_target:
                found.append(_sum_at_sources(g, views[values], shape))
            else:
                found.append(g.reduce(how, views[values], 0 if at_target else 1))
        return found

    width = config.d_e
    dense = g.collect(g.scalar(g.length(graph.first)), [(FLOAT, (width,))] * len(wanted), body)
    none = g.constant(np.zeros((1, width)), FLOAT)
    least = {"Sum": none, "Max": g.constant(np.full((1, width), -np.inf), FLOAT)}
    found: dict[int, str] = {}
    for side, row, table in ((True, graph.in_row, graph.at_target), (False, graph.out_row, graph.at_source)):
        here = [i for i, (_, _, at_target) in enumerate(wanted) if at_target is side]
        at_node = [g.gather(g.concat(dense[i], none), row) for i in here]
        skips = [g.concat(g.slice(wanted[i][0], graph.n_weights), least[wanted[i][1]]) for i in here]
        how = ["Add" if wanted[i][1] == "Sum" else "Max" for i in here]
        found.update(zip(here, _with_skips(g, at_node, skips, how, table), strict=True))
    return [found[i] for i in range(len(wanted))]


def _sum_at_sources(g: GraphBuilder, block: str, shape: str) -> str:
    """``[n_src, d]`` of ``[n_src, n_dst, d]``, as a product with ones.

    ONNX Runtime's sum over the middle dimension groups its terms by the threads that it has.
    """
    ones = g.fill(g.slice(shape, 1, 2), 1.0, FLOAT)
    return g.op("MatMul", ones, block)


def _with_skips(g: GraphBuilder, dense: list[str], skips: list[str], how: list[str], table: str) -> list[str]:
    """``dense [N, d]`` combined with the values of skip edges, ``[S + 1, d]`` with what none of them is at the end.

    A column of the ``table`` at a time, so that a neuron's result does not depend on how many skips others have.
    """

    def body(step: str, *found: str) -> list[str]:
        edge = g.gather(table, step)
        return [g.op(op, x, g.gather(values, edge)) for op, x, values in zip(how, found, skips, strict=True)]

    return g.loop(g.scalar(g.length(table)), dense, [FLOAT] * len(dense), body)
