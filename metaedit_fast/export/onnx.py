"""An editor as one ONNX graph: the whole edit of a ragged batch of models, weights in and weights out.

The graph is made of a few operators of the domain ``metaedit``, each of them a function of standard operators
(opset 18) in the same file, so that any ONNX runtime runs it; one that has kernels for an operator may run these
instead. docs/formats.md, "The graph", lists inputs and outputs. The initializers are the torch module's
``state_dict``, name by name and in its layout.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto, ValueInfoProto

from metaedit_fast.export.builder import BOOL, DOUBLE, FLOAT, INT64, GraphBuilder, tensor
from metaedit_fast.export.operators import budget, context, edit, features, network, structure
from metaedit_fast.export.weights import Weights, checked_weights
from metaedit_fast.metanet.config import CONDITION_SIZE, MetanetConfig


def build_editor(config: MetanetConfig, requirement: str, weights: Weights) -> ModelProto:
    """The graph of an editor for the requirement of this name; needs no torch.

    Raises ``ValueError`` where the weights do not fit the config, or the config's context is not the requirement's.
    """
    writers: dict[str, tuple[str, Callable[[GraphBuilder, MetanetConfig], list[ValueInfoProto]]]] = {
        "pruning": ("none", _pruning),
        "data_minimisation": ("inputs", _data_minimisation),
        "equalized_odds": ("groups", _equalized_odds),
    }
    if requirement not in writers:
        raise ValueError(f"requirement: expected one of {sorted(writers)}, got {requirement!r}")
    told, write = writers[requirement]
    if config.context != told:
        raise ValueError(f"config context: expected {told!r} for {requirement}, got {config.context!r}")
    g = GraphBuilder()
    learned = checked_weights(config, weights)
    outputs = write(g, config)
    functions = [
        *structure.functions(),
        features.function(config),
        *network.functions(config),
        *edit.functions(config, requirement),
        *([] if told == "none" else [context.function(config)]),
        budget.function(config, requirement),
    ]
    return g.model(f"{requirement}_editor", _inputs(config), outputs, learned, functions)


def build_network(config: MetanetConfig, weights: Weights) -> ModelProto:
    """The metanetwork alone: a graph of one ``Metanetwork_v1``, whose inputs and outputs are the operator's.

    Raises ``ValueError`` where the weights do not fit the config.
    """
    g = GraphBuilder()
    learned = checked_weights(config, weights)
    for result, name in zip(network.metanetwork(g, config), network.OUTPUTS, strict=True):
        g.rename(result, name)
    inputs = [
        *_structure_inputs(),
        tensor("edge_features", FLOAT, "W", config.n_edge_features),
        tensor("saliency", FLOAT, "W"),
        tensor("node_features", FLOAT, "N", config.n_node_features),
        tensor("node_type", INT64, "N"),
        tensor("condition", FLOAT, "M", CONDITION_SIZE),
    ]
    outputs = [*(tensor(name, FLOAT, "W") for name in network.OUTPUTS[:3]), tensor("node", FLOAT, "N", 3)]
    return g.model("metanetwork", inputs, outputs, learned, [*structure.functions(), *network.functions(config)])


def _structure_inputs() -> list[ValueInfoProto]:
    return [
        tensor("layers", INT64, "L", len(structure.LAYER_COLUMNS)),
        tensor("skips", INT64, "K", len(structure.SKIP_COLUMNS)),
    ]


def _inputs(config: MetanetConfig) -> list[ValueInfoProto]:
    found = [tensor("theta", FLOAT, "P"), *_structure_inputs(), tensor("budget", DOUBLE, "M")]
    if config.probe:
        sizes = {"mean": "N", "std": "N", "gradient": "T", "fisher": "W"}
        found += [tensor(name, FLOAT, sizes[name]) for name in features.PROBE_INPUTS]
    if config.context == "inputs" and config.probe:
        found.append(tensor("worth", DOUBLE, "M", config.n_inputs, 2))
    if config.context == "groups":
        shapes: dict[str, tuple[str | int, ...]] = {
            "rates": ("M", 2, 2),
            "cell_means": ("N", 4),
            "gap_gradient": (2, "P"),
        }
        found += [tensor(name, FLOAT, *shapes[name]) for name in context.GROUP_INPUTS]
    return found


def _edited() -> ValueInfoProto:
    return tensor("edited", FLOAT, "P")


def _pruning(g: GraphBuilder, config: MetanetConfig) -> list[ValueInfoProto]:
    edited, score = edit.pruned_edit(g, config, *budget.asked(g, "pruning"))
    g.rename(edited, "edited")
    g.rename(score, "score")
    return [_edited(), tensor("score", FLOAT, "W")]


def _data_minimisation(g: GraphBuilder, config: MetanetConfig) -> list[ValueInfoProto]:
    """A first pass of the network, which is told that nothing is removed, ranks the inputs; a second one knows which
    are and edits what stays.
    """
    condition, gain, kept = budget.asked(g, "data_minimisation")
    edge, saliency, rms, node, node_type = features.features(g, config)

    def heads(removed: str) -> list[str]:
        told_edge, told_node = context.input_context(g, config, edge, node, removed)
        return network.metanetwork(g, config, told_edge, saliency, told_node, node_type, condition)

    shape = g.concat(g.length("budget"), g.constant([config.n_inputs]))
    score, stays = edit.kept_inputs(g, heads(g.fill(shape, False, BOOL))[3], kept)
    _, *residuals = heads(g.op("Not", stays))
    mask = edit.weights_of_inputs(g, stays)
    g.rename(edit.write_back(g, rms, residuals, gain, mask), "edited")
    g.rename(score, "score")
    g.rename(stays, "kept")
    return [_edited(), tensor("score", FLOAT, "M", config.n_inputs), tensor("kept", BOOL, "M", config.n_inputs)]


def _equalized_odds(g: GraphBuilder, config: MetanetConfig) -> list[ValueInfoProto]:
    condition, gain = budget.asked(g, "equalized_odds")
    edge, saliency, rms, node, node_type = features.features(g, config)
    edge, node = context.group_context(g, edge, node, rms)
    _, *residuals = network.metanetwork(g, config, edge, saliency, node, node_type, condition)
    mask = g.fill(g.op("Shape", rms), True, BOOL)
    g.rename(edit.write_back(g, rms, residuals, gain, mask), "edited")
    return [_edited()]
