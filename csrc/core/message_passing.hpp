// One layer of the metanetwork, forward, in its two forms. Equivalent to ShippedLayer and OfficialLayer of
// metaedit_fast/kernels/reference.py, whose parameters have the same names and shapes.
//
// Shipped: one message q for both directions and the edge update; hidden size of the node MLP is 2 d_v.
//     q_uv  = SiLU(W e_uv + U LN(h_u) + V LN(h_v))
//     h_v  += MLP([LN h_v, mean_u q_uv, max_u q_uv, mean_w q_vw, max_w q_vw])
//     e_uv += P q_uv
// Official: each MLP is linear, LayerNorm, SiLU, linear; messages are summed.
//     h'_v = MLP_n([h_v, sum_u MLP_f([e_uv, h_u]), sum_w MLP_b([e_vw, h_w])]) + Q h_v
//     e'_uv = MLP_e([e_uv, h_u, h_v])
//
// A node without edges on one side aggregates 0 there. Edges of identity blocks count as edges. The result of
// a node depends on nothing but its own model, and its sums are taken in the order of the edges: no result
// depends on what else is in the batch.
#pragma once

#include "core/weight_graph.hpp"
#include "cpu/arithmetic.hpp"

namespace metaedit {

// y = weight x + bias; weight is [n_out][n_in], as torch stores it, and bias may be null.
struct Linear {
    const float* weight;
    const float* bias;
    std::int64_t n_out;
    std::int64_t n_in;
};

// y = (x - mean) / sqrt(variance + 1e-5) * scale + shift over a vector, with the variance divided by its length.
struct LayerNorm {
    const float* scale;
    const float* shift;
    std::int64_t size;
};

struct ShippedLayer {
    std::int64_t d_e, d_v;
    Linear edge, source, target, update;  // W, U, V, P
    LayerNorm norm;
    Linear node_in, node_out;
};

struct OfficialLayer {
    std::int64_t d_e, d_v;
    Linear forward_in, forward_out, backward_in, backward_out, edge_in, edge_out, node_in, node_out, residual;
    LayerNorm forward_norm, backward_norm, edge_norm, node_norm;
};

// Inputs nodes [V][d_v] and edges [E][d_e]; the outputs have the same shapes and overlap neither input.
struct LayerStates {
    const float* nodes;
    const float* edges;
    float* nodes_out;
    float* edges_out;
};

// On one thread. A level without kernels for these sizes runs the serial code.
void shipped_forward(const WeightGraph& graph, const ShippedLayer& layer, const LayerStates& states,
                     const Arithmetic& arithmetic);
void official_forward(const WeightGraph& graph, const OfficialLayer& layer, const LayerStates& states,
                      const Arithmetic& arithmetic);

// Plain C++: what the vectorised kernels are compared with, and what runs where there is none.
namespace serial {
void shipped_forward(const WeightGraph& graph, const ShippedLayer& layer, const LayerStates& states);
void official_forward(const WeightGraph& graph, const OfficialLayer& layer, const LayerStates& states);
}  // namespace serial

}  // namespace metaedit
