// The gradient kernels of one instruction set, as a table of functions: the network forward, keeping what the way
// back needs, and the way back. What calls them is ordinary code (gradient/forward.cpp, gradient/backward.cpp).
//
// SiLU is scaled as in fused/kernels.hpp: s(x) = x / (1 + 2^x). Matrices, their transposes and the places of their
// gradients are panels (core/panels.hpp). Gradients of parameters are added to what is there.
#pragma once

#include "core/metanetwork_gradient.hpp"
#include "cpu/fused/kernels.hpp"

namespace metaedit::gradient {

// values += x^T g, bias += the sum of g's rows; either may be left out (null). n_out is a multiple of kPanel.
struct WeightGradient {
    const float* x;  // [rows] rows of n_in, `x_stride` apart
    std::int64_t x_stride, n_in;
    const float* g;  // [rows] rows of n_out
    std::int64_t g_stride, n_out;
    std::int64_t rows;
    float* values;
    float* bias;
};

// out = s(y) and, where `gradient` is given, gradient *= s'(y).
struct Activate {
    const float* y;
    std::int64_t y_stride, rows, width;  // width: a multiple of kPanel
    float* out;                          // [rows][width]
    float* gradient;                     // [rows][width], or null
};

// out += the gradient of the normalised rows' inputs, given that of the normalised rows. out may be g.
struct NormaliseGradient {
    const float* normed;
    std::int64_t normed_stride;
    const float* inverse;
    std::int64_t inverse_stride;
    const float* g;
    std::int64_t g_stride;
    const float* keeps;
    std::int64_t rows, width, size;
    float* out;  // [rows][width]
    bool add;    // to what is in out, else in its place
};

// out = s(z), z = normed * scale + shift; where `gradient` is given, it becomes that of `normed`, and those of scale
// and shift are added.
struct ScaledActivate {
    const float* normed;
    std::int64_t normed_stride, rows, width;
    const float* scale;
    const float* shift;
    float* out;       // [rows][width]
    float* gradient;  // [rows][width], or null
    float* scale_gradient;
    float* shift_gradient;
};

// Forward: edges[k] = out(s(in(features[k]) + hidden_bias)).
struct Embed {
    Panels in, out;
    const float* hidden_bias;
    const float* features;  // [n][in.n_in]
    std::int64_t n;
    float* edges;  // [n][out.n_out]
};
struct EmbedGradient {
    Embed forward;  // its `edges` holds the gradient of the edges
    Panels out_back;
    float *in_values, *hidden_bias, *out_values, *out_bias;
};

// The edges of a graph, and values per node in tables of one row more than there are nodes, for what fills up the
// last tile of a block. That row holds zeros where it is read.
struct Edges {
    const Block* blocks;
    std::int64_t n_blocks;
    std::int64_t n_nodes;
};

// Forward: q = s(e B + source + target), sum and minimum at both ends, e_out = e + update(q).
struct Messages {
    Edges edges;
    Panels edge, update;
    const float* e;      // [E][d]
    float* e_out;        // [E][d], or null: not wanted
    const float* terms;  // [V + 1][2 d]
    float* aggregates;   // [V + 1] rows of: sum in, minimum in, sum out, minimum out
    std::int64_t aggregates_row;
};
struct MessagesGradient {
    Edges edges;
    Panels edge, edge_back, update_back;
    const float* e;
    float* gradient;  // [E][d], in: of e_out; out: of e
    const float* terms;
    const float* aggregates;  // as `forward` left them; the sums' places are not read
    std::int64_t aggregates_row;
    // Rows like those of the aggregates, of each edge's share in the sums, and of the minima, which go to the first
    // edge that has the minimum; what was given becomes 0.
    float* aggregates_gradient;
    std::int64_t aggregates_gradient_row;
    float* terms_gradient;  // [V + 1][2 d], added to
    float *edge_values, *update_values, *update_bias;
};

// Forward: m_f, m_b, m_e = s(LN(a B + terms)), sums of m_f at the target and of m_b at the source, a_out = m_e. The
// matrix and terms are centred, so LN has no mean to subtract.
struct Official {
    Edges edges;
    Panels edge;                 // d -> 3 d: forward, backward, edge
    const float *scale, *shift;  // [3 d]
    float size;                  // the true d
    const float* a;
    float* a_out;
    const float* terms;  // [V + 1][4 d]
    float* sums;         // [V + 1] rows of: received, returned
    std::int64_t sums_row;
};
struct OfficialGradient {
    Edges edges;
    Panels edge, edge_back;
    const float *scale, *shift;
    float size;
    const float* a;
    float* gradient;  // [E][d], in: of a_out; out: of a
    const float* terms;
    const float* sums_gradient;
    std::int64_t sums_gradient_row;
    float* terms_gradient;
    float* edge_values;
    float *scale_gradient, *shift_gradient;
};

// Forward: hidden = s(e B + source + target), output o = hidden readout[o] + bias, over the panels [first, last).
struct Heads {
    static constexpr int kOutputs = 3;
    struct Output {
        const float* readout;
        std::int64_t first_panel, last_panel;  // equal: not there
        float bias;
        float* values;  // [E]; the gradient on the way back
    };
    Edges edges;  // dense blocks alone
    Panels edge;
    const float* e;
    const float* terms;  // [V + 1][2 hidden]
    Output outputs[kOutputs];
};
struct HeadsGradient {
    Heads forward;
    Panels edge_back;
    float* hidden;    // room for kMaxChunk rows
    float* gradient;  // [E][d], out: of e
    float* terms_gradient;
    float* edge_values;
    float* readouts[Heads::kOutputs];
};

// Edges that the kernels take at a time, at most.
inline constexpr std::int64_t kMaxChunk = 64;

struct Kernels {
    void (*dense)(const fused::Dense&);
    void (*weight_gradient)(const WeightGradient&);
    void (*activate)(const Activate&);
    void (*normalise)(const fused::Normalise&);
    void (*normalise_gradient)(const NormaliseGradient&);
    void (*scaled_activate)(const ScaledActivate&);
    // By the index of d_e in kEdgeWidths.
    void (*embed[4])(const Embed&);
    void (*embed_gradient[4])(const EmbedGradient&);
    void (*messages[4])(const Messages&);
    void (*messages_gradient[4])(const MessagesGradient&);
    void (*official[4])(const Official&);
    void (*official_gradient[4])(const OfficialGradient&);
    void (*heads[4])(const Heads&);
    void (*heads_gradient[4])(const HeadsGradient&);
};

const Kernels& kernels_of(Isa isa);

}  // namespace metaedit::gradient
