"""Where everything of a ragged batch lies, derived from its layers and skips: functions of int64 tensors.

``Layers_v1`` tells where layers begin, ``Structure_v1`` numbers edges and neurons, ``Skips_v1`` the edges of skip
connections, ``Parameters_v1`` tells where parameters lie in θ. Neurons are numbered model by model, neuron layer by
neuron layer; edges in the order of θ.
"""

from __future__ import annotations

import dataclasses

from onnx import FunctionProto

from metaedit_fast.export.builder import DOMAIN, INT64, GraphBuilder
from metaedit_fast.models.spec import NORMS

# Columns of the graph's input ``layers``; ``owned`` has a bit for the bias and one for the norm's parameters.
LAYER_COLUMNS = ("model", "n_in", "n_out", "activation", "norm", "owned")
OWNS_BIAS, OWNS_NORM = 1, 2
# Of the graph's input ``skips``; both layers are neuron layers of that model, 0 the inputs.
SKIP_COLUMNS = ("model", "source", "target")


@dataclasses.dataclass(frozen=True)
class Layers:
    """Names of the results of ``Layers_v1``.

    ``weights_from`` and ``weights_to`` bound the weights of each layer, ``[L]``; ``first_layer`` and ``last_layer``
    are those of each model, ``[M]``.
    """

    weights_from: str
    weights_to: str
    first_layer: str
    last_layer: str


def layers(g: GraphBuilder) -> Layers:
    """Of the batch that the tensor ``layers`` describes. Where this is enough, ask for no ``structure``: runtimes
    compute all of an operator, however little of it is read.
    """
    return Layers(*g.ops("Layers_v1", "layers", n_outputs=len(dataclasses.fields(Layers)), domain=DOMAIN))


@dataclasses.dataclass(frozen=True)
class Structure:
    """Names of the results of ``Structure_v1``.

    ``source``, ``target`` and ``layer`` are those of each weight, ``[W]``, ``source`` and ``target`` as numbers of
    neurons. ``node_layer`` is the layer that ends at each neuron, for an input the model's first, and ``place`` the
    neuron's place in it, for an input below 0, ``[N]``. ``in_row`` and ``out_row [N]`` count the neurons that a layer
    ends or starts at; for the others they are the number of such neurons. ``target_from`` is the first neuron that a
    layer ends at, ``weights_from`` and ``weights_to`` bound its weights, ``[L]``; ``first_layer`` and ``last_layer``
    are those of each model, ``[M]``.
    """

    source: str
    target: str
    layer: str
    node_layer: str
    place: str
    in_row: str
    out_row: str
    target_from: str
    weights_from: str
    weights_to: str
    first_layer: str
    last_layer: str


def structure(g: GraphBuilder) -> Structure:
    """Of the batch that the tensors ``layers`` and ``skips`` describe."""
    n = len(dataclasses.fields(Structure))
    return Structure(*g.ops("Structure_v1", "layers", n_outputs=n, domain=DOMAIN))


@dataclasses.dataclass(frozen=True)
class Skips:
    """Names of the results of ``Skips_v1``.

    ``source`` and ``target [S]`` of each edge; ``at_target`` and ``at_source`` are ``[C, N]``: the numbers of up to
    ``C`` of these edges that end or start at each neuron, ``S`` in the other places.
    """

    source: str
    target: str
    at_target: str
    at_source: str


def skip_edges(g: GraphBuilder, found: Structure) -> Skips:
    n = len(dataclasses.fields(Skips))
    inputs = ("layers", "skips", found.first_layer, found.target_from, found.node_layer)
    return Skips(*g.ops("Skips_v1", *inputs, n_outputs=n, domain=DOMAIN))


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Names of the results of ``Parameters_v1``: places in θ of the weights ``[W]``, and ``[N, 3]`` of each neuron's
    bias, norm scale and norm shift, which are there and which the model owns, bool ``[N, 3]``.
    """

    weights: str
    rest: str
    present: str
    owned: str


def parameters(g: GraphBuilder, found: Structure) -> Parameters:
    n = len(dataclasses.fields(Parameters))
    of_layers = (found.weights_from, found.weights_to, found.first_layer, found.last_layer)
    inputs = ("layers", found.layer, found.node_layer, found.place, *of_layers)
    return Parameters(*g.ops("Parameters_v1", *inputs, n_outputs=n, domain=DOMAIN))


def layer_column(g: GraphBuilder, name: str) -> str:
    """One of ``LAYER_COLUMNS`` of every layer, ``[L]``."""
    return g.column("layers", LAYER_COLUMNS.index(name))


def functions() -> list[FunctionProto]:
    """The bodies."""
    return [_layers(), _structure(), _skips(), _parameters()]


def _layers() -> FunctionProto:
    g = GraphBuilder()
    model = layer_column(g, "model")
    sizes = g.mul(layer_column(g, "n_in"), layer_column(g, "n_out"))
    weights_from, _ = g.starts(sizes)
    found = Layers(
        weights_from=weights_from,
        weights_to=g.add(weights_from, sizes),
        first_layer=g.places(_changes(g, model, after=False)),
        last_layer=g.places(_changes(g, model, after=True)),
    )
    return g.function("Layers_v1", ["layers"], dataclasses.asdict(found))


def _structure() -> FunctionProto:
    g = GraphBuilder()
    model, n_in, n_out = (layer_column(g, name) for name in ("model", "n_in", "n_out"))
    is_first, is_last = _changes(g, model, after=False), _changes(g, model, after=True)
    new_neurons = g.add(g.mul(g.cast(is_first, INT64), n_in), n_out)
    neurons_from, n_neurons = g.starts(new_neurons)
    target_from = g.sub(g.add(neurons_from, new_neurons), n_out)

    # A row of edges starts at a neuron, and its targets are neighbours.
    row_layer, rows_from = g.spread(n_in)
    source_shift = g.sub(g.sub(target_from, n_in), rows_from)
    row_neuron = g.add(g.arange(g.length(row_layer)), g.gather(source_shift, row_layer))
    edge_row, row_from = g.spread(g.gather(n_out, row_layer))
    target_shift = g.sub(g.gather(target_from, row_layer), row_from)
    target = g.add(g.arange(g.length(edge_row)), g.gather(target_shift, edge_row))

    node_layer, _ = g.spread(new_neurons)
    place = g.sub(g.arange(n_neurons), g.gather(target_from, node_layer))
    is_input = g.op("Less", place, g.constant(0))
    is_output = g.op("And", g.gather(is_last, node_layer), g.op("Not", is_input))
    ends_from, n_ends = g.starts(n_out)
    in_row = g.where(is_input, n_ends, g.add(g.gather(ends_from, node_layer), place))
    out_row = g.add(g.gather(g.add(rows_from, n_in), node_layer), place)
    return g.function(
        "Structure_v1",
        ["layers"],
        dataclasses.asdict(
            Structure(
                source=g.gather(row_neuron, edge_row),
                target=target,
                layer=g.gather(row_layer, edge_row),
                node_layer=node_layer,
                place=place,
                in_row=in_row,
                out_row=g.where(is_output, g.length(row_layer), out_row),
                target_from=target_from,
                **dataclasses.asdict(layers(g)),
            )
        ),
    )


def _changes(g: GraphBuilder, values: str, *, after: bool) -> str:
    """Where a vector's value differs from the one before, or after; at its end it does. Values are at least 0."""
    nothing = g.constant([-1])
    other = g.slice(g.concat(values, nothing), 1) if after else g.slice(g.concat(nothing, values), 0, -1)
    return g.op("Not", g.op("Equal", values, other))


def _skips() -> FunctionProto:
    g = GraphBuilder()
    model, source_layer, target_layer = (g.column("skips", i) for i in range(len(SKIP_COLUMNS)))
    n_in, n_out = layer_column(g, "n_in"), layer_column(g, "n_out")
    input_from = g.sub("target_from", n_in)

    def first_and_width(layer: str) -> tuple[str, str]:
        """Of a neuron layer: its first neuron, and how many it has."""
        before = g.op("Max", g.sub(layer, g.constant(1)), g.constant(0))
        row = g.add(g.gather("first_layer", model), before)
        is_input = g.op("Equal", layer, g.constant(0))
        first = g.where(is_input, g.gather(input_from, row), g.gather("target_from", row))
        return first, g.where(is_input, g.gather(n_in, row), g.gather(n_out, row))

    source_first, source_width = first_and_width(source_layer)
    target_first, target_width = first_and_width(target_layer)
    shared = g.op("Min", source_width, target_width)
    of_edge, edges_from = g.spread(shared)
    n_edges = g.length(of_edge)
    place = g.sub(g.arange(n_edges), g.gather(edges_from, of_edge))

    def table(first: str) -> str:
        """``[C, N]`` numbers of the edges at each neuron of the layers that begin at the neurons ``first``."""
        # Of equal ones the first comes first.
        _, order = g.ops("TopK", first, g.length("skips"), n_outputs=2, largest=0)
        ordered = g.gather(first, order)
        is_new = _changes(g, ordered, after=False)
        count = g.op("CumSum", g.concat(g.constant([0]), g.cast(is_new, INT64)), g.constant(0))
        run = g.sub(g.slice(count, 1), g.constant(1))
        rank = g.sub(g.arange(g.length(ordered)), g.gather(g.places(is_new), run))
        most = g.add(g.reduce("Max", g.concat(g.constant([-1]), rank), 0, keepdims=True), g.constant([1]))
        skip, skips_from = g.spread(g.gather(shared, order))
        own_place = g.sub(g.arange(n_edges), g.gather(skips_from, skip))
        number = g.add(g.gather(g.gather(edges_from, order), skip), own_place)
        neuron = g.add(g.gather(ordered, skip), own_place)
        empty = g.op("Expand", n_edges, g.concat(most, g.length("node_layer")))
        return g.op("ScatterND", empty, g.columns(g.gather(rank, skip), neuron), number)

    found = Skips(
        source=g.add(g.gather(source_first, of_edge), place),
        target=g.add(g.gather(target_first, of_edge), place),
        at_target=table(target_first),
        at_source=table(source_first),
    )
    return g.function(
        "Skips_v1", ["layers", "skips", "first_layer", "target_from", "node_layer"], dataclasses.asdict(found)
    )


def _parameters() -> FunctionProto:
    g = GraphBuilder()
    model, n_in, n_out, norm, owned = (layer_column(g, n) for n in ("model", "n_in", "n_out", "norm", "owned"))
    has_norm = g.op("Equal", norm, g.constant(NORMS.index("layer")))
    norm_sizes = g.mul(g.mul(n_out, g.constant(2)), g.cast(has_norm, INT64))
    theta_from, _ = g.starts(g.add(g.mul(n_in, n_out), n_out, norm_sizes))
    biases_from, _ = g.starts(n_out)
    norms_from, _ = g.starts(norm_sizes)

    def of_model(values: str) -> str:
        """What the model's first layer has, for each layer."""
        return g.gather(g.gather(values, "first_layer"), model)

    weights_before = of_model("weights_from")
    n_weights = g.sub(g.gather(g.gather("weights_to", "last_layer"), model), weights_before)
    biases_before = of_model(biases_from)
    n_biases = g.sub(g.gather(g.gather(g.add(biases_from, n_out), "last_layer"), model), biases_before)
    start = of_model(theta_from)
    bias_from = g.add(start, n_weights, g.sub(biases_from, biases_before))
    scale_from = g.add(start, n_weights, n_biases, g.sub(norms_from, of_model(norms_from)))
    shift_from = g.add(scale_from, n_out)
    weight_shift = g.gather(g.sub(start, weights_before), "layer")

    from_layer = g.columns(bias_from, scale_from, shift_from)
    rest = g.add(g.gather(from_layer, "node_layer"), g.unsqueeze("place", 1))
    not_input = g.unsqueeze(g.op("Not", g.op("Less", "place", g.constant(0))), 1)
    owns_norm = g.op("And", has_norm, g.op("GreaterOrEqual", owned, g.constant(OWNS_NORM)))
    owns_bias = g.op("Equal", g.op("Mod", owned, g.constant(OWNS_NORM)), g.constant(OWNS_BIAS))
    always = g.op("Equal", n_out, n_out)

    def at_neurons(*flags: str) -> str:
        return g.op("And", not_input, g.gather(g.columns(*flags), "node_layer"))

    found = Parameters(
        weights=g.add(g.arange(g.length("layer")), weight_shift),
        rest=rest,
        present=at_neurons(always, has_norm, has_norm),
        owned=at_neurons(owns_bias, owns_norm, owns_norm),
    )
    inputs = ["layers", "layer", "node_layer", "place", "weights_from", "weights_to", "first_layer", "last_layer"]
    return g.function("Parameters_v1", inputs, dataclasses.asdict(found))
