"""A metanetwork as one ONNX graph of standard operators (opset 18), for one model at a time.

Inputs, for a model of ``V`` neurons, ``E`` weights and ``S`` skip edges; *edges* are the weights in
the order of θ, then the skip edges (``WeightGraphBatch``):

    edge_features [E, F_e], saliency [E]         node_features [V, F_n], node_type [V]   (``ModelFeatures``)
    condition [1, 4]                             (``Requirement.condition``)
    source, target [E + S]                       neuron numbers of each edge
    blocks [B, 3]                                first edge, n_src, n_dst of each weight matrix
    skip_in, skip_out [V, K]                     skip edges at each neuron, 0..S-1, filled up with S
    in_degree, out_degree [V]                    edges at each neuron, float

Outputs are those of ``apply.Heads``: ``score``, ``relative``, ``additive`` ``[E]``, ``node [V, 3]``.

The initializers are the torch module's ``state_dict``, name by name and in its layout. Edges are
reduced at neurons by a loop over the blocks: ONNX Runtime's scatter with addition is unsynchronised
(ScatterND) or slow (ScatterElements). The official form is computed with two exact
identities: a linear of a concatenation splits, and the second linear of a message commutes with the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper

from metaedit_fast.export.builder import GraphBuilder, tensor
from metaedit_fast.export.weights import Weights, checked_weights, network_weights
from metaedit_fast.metanet.apply import SCORE_GAIN
from metaedit_fast.metanet.config import CONDITION_SIZE, MetanetConfig

if TYPE_CHECKING:
    from metaedit_fast.metanet.metanetwork import Metanetwork


def export_metanetwork(net: Metanetwork) -> ModelProto:
    """``net`` as an ONNX model; see the module for its inputs and outputs."""
    return build_metanetwork(net.config, network_weights(net))


def build_metanetwork(config: MetanetConfig, weights: Weights) -> ModelProto:
    """The ONNX model of a metanetwork given as numpy arrays; needs no torch.

    Raises ``ValueError`` where the weights do not fit the config.
    """
    g = GraphBuilder(checked_weights(config, weights))
    graph = _MetanetGraph(g, config)
    h, e = graph.embed()
    layer = graph.shipped_layer if config.form == "shipped" else graph.official_layer
    for i in range(config.n_layers):
        with g.scope(f"layers.{i}"):
            h, e = layer(f"layers.{i}.", h, e)
    graph.heads(h, e)
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    return g.model(
        f"metanetwork_{config.form}",
        inputs=[
            tensor("edge_features", f32, "E", config.n_edge_features),
            tensor("saliency", f32, "E"),
            tensor("node_features", f32, "V", config.n_node_features),
            tensor("node_type", i64, "V"),
            tensor("condition", f32, 1, CONDITION_SIZE),
            tensor("source", i64, "E_and_S"),
            tensor("target", i64, "E_and_S"),
            tensor("blocks", i64, "B", 3),
            tensor("skip_in", i64, "V", "K_in"),
            tensor("skip_out", i64, "V", "K_out"),
            tensor("in_degree", f32, "V"),
            tensor("out_degree", f32, "V"),
        ],
        outputs=[
            tensor("score", f32, "E"),
            tensor("relative", f32, "E"),
            tensor("additive", f32, "E"),
            tensor("node", f32, "V", 3),
        ],
    )


class _MetanetGraph:
    """The parts of the graph, on top of what all layers share: edge counts, block bounds, degrees."""

    def __init__(self, g: GraphBuilder, config: MetanetConfig) -> None:
        self.g, self.config = g, config
        with g.scope("topology"):
            self.n_weights = g.op("Shape", "edge_features", start=0, end=1)
            n_edges = g.op("Shape", "source", start=0, end=1)
            self.n_skip = g.op("Sub", n_edges, self.n_weights)
            self.n_blocks = g.op("Squeeze", g.op("Shape", "blocks", start=0, end=1))
            self.first = g.slice("blocks", 0, 1, axis=1)
            n_src, n_dst = g.slice("blocks", 1, 2, axis=1), g.slice("blocks", 2, 3, axis=1)
            self.last = g.add(self.first, g.op("Mul", n_src, n_dst))
            rest = g.op("Sub", g.op("Sub", n_src, n_src), g.constant([1]))  # -1: reshape finds the edge size
            self.shapes = g.concat(n_src, n_dst, rest, axis=1)
            nothing = g.constant([0])
            # Neurons that no weight matrix reaches: the inputs as targets, the outputs as sources.
            inputs = g.op("Reshape", g.gather(n_src, nothing), g.constant([1]))
            outputs = g.op("Reshape", g.gather(n_dst, g.constant([-1])), g.constant([1]))
            self.in_pads = g.concat(inputs, g.constant([0, 0, 0]), axis=0)
            self.out_pads = g.concat(nothing, nothing, outputs, nothing, axis=0)
            self.in_degree = g.op("Unsqueeze", "in_degree", g.constant([1]))
            self.out_degree = g.op("Unsqueeze", "out_degree", g.constant([1]))

    def embed(self) -> tuple[str, str]:
        """States of nodes ``[V, d_v]`` and edges ``[E + S, d_e]``."""
        g = self.g
        with g.scope("embed"):
            budget = g.silu(g.linear("condition", "condition_in"))
            typed = g.gather("node_type.weight", "node_type")
            h = g.add(g.linear("node_features", "node_in"), typed, g.linear(budget, "condition_node"))
            seen = g.add(g.linear("edge_features", "edge_in"), g.linear(budget, "condition_edge"))
            shape = g.concat(self.n_skip, g.constant([self.config.d_e]), axis=0)
            e = g.concat(g.linear(g.silu(seen), "edge_out"), g.op("Expand", "skip_edge", shape), axis=0)
        return h, e

    def shipped_layer(self, name: str, h: str, e: str) -> tuple[str, str]:
        g = self.g
        normed = g.layer_norm(h, f"{name}norm")
        q = g.silu(self.edge_linear(e, normed, name, ("source", "target")))
        in_sum, out_sum, in_max, out_max = self.gather_edges((q, "Sum", 0), (q, "Sum", 1), (q, "Max", 0), (q, "Max", 1))
        one = g.constant([1.0], np.float32)
        in_mean = g.op("Div", in_sum, g.op("Max", self.in_degree, one))
        out_mean = g.op("Div", out_sum, g.op("Max", self.out_degree, one))
        seen = g.concat(normed, in_mean, in_max, out_mean, out_max, axis=1)
        h = g.add(h, g.linear(g.silu(g.linear(seen, f"{name}node_in")), f"{name}node_out"))
        return h, g.add(e, g.linear(q, f"{name}update"))

    def official_layer(self, name: str, h: str, e: str) -> tuple[str, str]:
        g, d_e, d_v = self.g, self.config.d_e, self.config.d_v

        def message(part: str, ends: tuple[str, ...]) -> str:
            """SiLU(LN(linear([e, h at each end]))), its linear split into a part per edge and parts per node."""
            weight = f"{name}{part}_in.weight"
            x = g.affine(e, g.slice(weight, 0, d_e, axis=1), f"{name}{part}_in.bias")
            for i, end in enumerate(ends):
                start = d_e + i * d_v
                x = g.add(x, g.gather(g.affine(h, g.slice(weight, start, start + d_v, axis=1)), end))
            return g.silu(g.layer_norm(x, f"{name}{part}_norm"))

        forward, backward = message("forward", ("source",)), message("backward", ("target",))
        e = g.linear(message("edge", ("source", "target")), f"{name}edge_out")
        in_sum, out_sum = self.gather_edges((forward, "Sum", 0), (backward, "Sum", 1))
        received = self.linear_of_sum(in_sum, self.in_degree, f"{name}forward_out")
        returned = self.linear_of_sum(out_sum, self.out_degree, f"{name}backward_out")
        seen = g.linear(g.concat(h, received, returned, axis=1), f"{name}node_in")
        inner = g.silu(g.layer_norm(seen, f"{name}node_norm"))
        return g.add(g.linear(inner, f"{name}node_out"), g.linear(h, f"{name}residual")), e

    def linear_of_sum(self, total: str, degree: str, name: str) -> str:
        """The sum of a linear's results from the sum of its inputs: the bias counts once an edge."""
        return self.g.add(self.g.linear(total, name, bias=False), self.g.op("Mul", degree, f"{name}.bias"))

    def edge_linear(self, e: str, h: str, name: str, ends: tuple[str, str]) -> str:
        """``edge(e) + source(h) + target(h)``, linears of ``name``, at edges with these ``ends``.

        The bias is added at the neurons, which are few, and the product is added to the joined ends in
        one pass: on thin edges each pass counts.
        """
        g = self.g
        at_source = g.linear(h, f"{name}source", bias=False)
        at_target = g.affine(h, f"{name}target.weight", f"{name}edge.bias")
        joined = g.add(g.gather(at_source, ends[0]), g.gather(at_target, ends[1]))
        return g.affine(e, f"{name}edge.weight", joined)

    def gather_edges(self, *wanted: tuple[str, str, int]) -> list[str]:
        """Reduce edge values ``[E + S, d]`` at their neurons, ``[V, d]``; 0 at neurons without such edges.

        Each of ``wanted`` is (values, "Sum" or "Max", axis): axis 0 of a weight matrix runs over its
        sources, so it reduces at the targets; axis 1 the other way round.
        """
        g = self.g
        dense = self.reduce_blocks(wanted)
        found = []
        for (values, how, axis), part in zip(wanted, dense, strict=True):
            padded = g.op("Pad", part, self.in_pads if axis == 0 else self.out_pads)
            width = self.config.d_e
            none = np.full((1, width), 0.0 if how == "Sum" else -np.inf)
            skips = g.concat(g.slice(values, self.n_weights), g.constant(none, np.float32), axis=0)
            at_node = g.reduce(how, g.gather(skips, "skip_in" if axis == 0 else "skip_out"), 1)
            found.append(g.op("Add" if how == "Sum" else "Max", padded, at_node))
        return found

    def reduce_blocks(self, wanted: tuple[tuple[str, str, int], ...]) -> list[str]:
        """The weights' part of ``gather_edges``: weight matrices in model order cover neurons in order."""
        g = self.g
        with g.scope("blocks"):
            always = g.constant(True, np.bool_)  # optional, but ONNX's own evaluator takes a missing one for False
            sequences = [g.op("SequenceEmpty", dtype=TensorProto.FLOAT) for _ in wanted]
            carried = [f"{name}_before" for name in sequences]
            step, go_on = f"{sequences[0]}_step", f"{sequences[0]}_go_on"
            with g.subgraph() as nodes:
                first, last, shape = (g.gather(x, step) for x in (self.first, self.last, self.shapes))
                views = {values: g.op("Reshape", g.slice(values, first, last), shape) for values, _, _ in wanted}
                grown = [
                    g.op("SequenceInsert", before, g.reduce(how, views[values], axis))
                    for before, (values, how, axis) in zip(carried, wanted, strict=True)
                ]
                still = g.op("Identity", go_on)
            sequence = helper.make_tensor_sequence_value_info
            body = helper.make_graph(
                nodes,
                "block",
                [
                    tensor(step, TensorProto.INT64),
                    tensor(go_on, TensorProto.BOOL),
                    *(sequence(name, TensorProto.FLOAT, None) for name in carried),
                ],
                [tensor(still, TensorProto.BOOL), *(sequence(name, TensorProto.FLOAT, None) for name in grown)],
            )
            done = g.ops("Loop", self.n_blocks, always, *sequences, n_outputs=len(wanted), body=body)
            return [g.op("ConcatFromSequence", name, axis=0) for name in done]

    def heads(self, h: str, e: str) -> None:
        g = self.g
        with g.scope("heads"):
            h = g.layer_norm(h, "final_norm")
            e = g.slice(e, 0, self.n_weights)
            ends = g.slice("source", 0, self.n_weights), g.slice("target", 0, self.n_weights)
            flat = g.constant([-1])
            learned = g.op("Reshape", self.edge_head("score_head", h, e, ends), flat)
            learned = g.op("Mul", learned, g.constant(SCORE_GAIN, np.float32))
            g.rename(g.add(learned, g.op("Mul", "saliency_gain", "saliency")), "score")
            if self.config.edits_parameters:
                edit = self.edge_head("edit_head", h, e, ends)
                g.rename(g.op("Reshape", g.slice(edit, 0, 1, axis=1), flat), "relative")
                g.rename(g.op("Reshape", g.slice(edit, 1, 2, axis=1), flat), "additive")
                g.rename(g.linear(h, "node_head"), "node")
            else:
                for name in ("relative", "additive"):
                    g.rename(g.zeros(self.n_weights), name)
                n_nodes = g.op("Shape", "node_type")
                g.rename(g.zeros(g.concat(n_nodes, g.constant([3]), axis=0)), "node")

    def edge_head(self, name: str, h: str, e: str, ends: tuple[str, str]) -> str:
        return self.g.linear(self.g.silu(self.edge_linear(e, h, f"{name}.", ends)), f"{name}.out")
