// The vectorised kernels of one instruction set, as a table of functions. What calls them is ordinary code
// (fused/model.cpp); only these functions are compiled with that instruction set's flags.
//
// Scaled SiLU. Kernels compute s(x) = x / (1 + 2^x). With x = -y log2(e) that is -SiLU(y) log2(e), so the packed
// matrix in front of it carries the factor -log2(e) and the one behind it -ln(2), and two multiplications per
// value are saved. s falls where SiLU rises: the maximum of SiLU is the minimum of s.
#pragma once

#include "core/metanetwork.hpp"
#include "core/panels.hpp"
#include "cpu/fused/inline.hpp"

namespace metaedit::fused {

enum class Then { store, add, scaled_silu };

// out[r] = x[r] B + bias, or out[r] += it, or s(it), for every row r. out must not overlap x.
struct Dense {
    Panels matrix;
    const float* x;
    std::int64_t x_stride;
    std::int64_t rows;
    float* out;
    std::int64_t out_stride;
    Then then;
};

// out[r] = (x[r] - mean) / sqrt(variance + 1e-5) over the first `size` of `width` columns, 0 in the others; then
// out[r] = s(out[r] * scale + shift) where these are given. x may be out. 1 / sqrt(...) goes to `inverse` where that
// is given.
struct Normalise {
    const float* x;      // [rows][width]
    const float* keeps;  // [width], 1 below `size` and 0 from there on
    const float* scale;  // [width] or null
    const float* shift;
    std::int64_t rows, width, size;
    float* out;
    std::int64_t out_stride;
    float* inverse = nullptr;  // [rows], `inverse_stride` apart
    std::int64_t inverse_stride = 0;
};

// edges[k] = out(s(in(features[k]) + hidden_bias)), the bias of `in` being part of hidden_bias. The hidden layer
// has kEmbed values.
struct EmbedEdges {
    Panels in;
    Panels out;
    const float* hidden_bias;
    const float* features;  // [n][in.n_in]
    std::int64_t n;
    float* edges;  // [n][out.n_out]
};

// A table of what the edges of one side aggregate at their nodes, from node `first` on.
struct Aggregates {
    float* values;
    std::int64_t row;  // distance of two nodes
    std::int64_t first;

    METAEDIT_INLINE float* of(std::int64_t node) const { return values + (node - first) * row; }
};

// The edges of one layer, in place: q_uv = s(e_uv B + source_u + target_v), e_uv += update(q_uv), and sum and
// minimum of q at both ends. What fills up the last tile of a block reads and writes at nodes V and target_sink,
// for which the tables have rows.
struct PassMessages {
    Panels edge;
    Panels update;
    std::int64_t size;  // the true d: what lies behind is zero
    const Block* blocks;
    std::int64_t n_blocks;
    std::int64_t n_nodes;           // V
    std::int64_t target_sink;       // at most V
    float* edges;                   // [E][d], d = edge.n_out
    const float* terms;             // [V + 1][2 d]: source, target
    Aggregates received, returned;  // at targets, at sources: sum and minimum, each d
};

// The edges of one official layer, in place: m_f, m_b and m_e are s(LN(e_uv B + terms)) of three column ranges, with
// centred B and terms, so that LN has no mean to subtract; sums of m_f at the target and m_b at the source, and
// e_uv = m_e, whose second linear is part of what reads it. The sinks are as above.
struct PassOfficial {
    Panels edge;         // d -> 3 d: forward, backward, edge
    const float* scale;  // [3 d]
    const float* shift;
    std::int64_t size;  // the true d, over which LN takes its mean
    const Block* blocks;
    std::int64_t n_blocks;
    std::int64_t n_nodes;  // V
    std::int64_t target_sink;
    float* edges;                   // [E][d]
    const float* terms;             // [V + 1][4 d]: source's for forward and edge, target's for backward and edge
    Aggregates received, returned;  // sums of d
};

// Two-layer MLPs on [e_uv, h_u, h_v], all in one pass: hidden = s(e_uv B + source_u + target_v), and output o is
// its product with readout[o] over the panels [first, last) plus a bias. Outputs 1 and 2 read the same panels.
// Of all edges of the blocks; or, where `listed` has some, outputs 1 and 2 of these alone, in the order of the list,
// which ends with a whole tile.
struct EdgeHeads {
    static constexpr int kOutputs = 3;
    struct Output {
        const float* readout;  // [edge.n_out], 0 outside its panels
        std::int64_t first_panel, last_panel;
        float bias;
        float* values;  // [E] or [listed.n], or null: this output is not wanted, nor is 2 where 1 is not
    };
    Panels edge;
    std::int64_t size;  // as above
    const Block* blocks;
    std::int64_t n_blocks;
    std::int64_t n_nodes;  // V
    const float* edges;    // [E][edge.n_in]
    const float* terms;    // [V + 1][2 edge.n_out]: source, target
    Output outputs[kOutputs];
    EdgeList listed;
};

struct Kernels {
    void (*dense)(const Dense&);
    void (*normalise)(const Normalise&);
    // By the index of d_e in kEdgeWidths.
    void (*embed_edges[4])(const EmbedEdges&);
    void (*pass_messages[4])(const PassMessages&);
    void (*pass_official[4])(const PassOfficial&);
    void (*edge_heads[4])(const EdgeHeads&);
};

// Null for a level that has no vectorised kernels.
const Kernels* kernels_of(const Arithmetic& arithmetic);

}  // namespace metaedit::fused
