// The functions of one instruction set's object file, all of them: include this once, behind the definition of
// METAEDIT_LEVEL (a namespace that holds Vectors) and, for a level beyond the baseline, METAEDIT_SECTION (a string;
// see cpu/entry.hpp).
#pragma once

#include "cpu/entry.hpp"
#include "cpu/fused/dense.hpp"
#include "cpu/gradient/edges.hpp"
#include "cpu/gradient/nodes.hpp"
#include "cpu/gradient/official.hpp"
#include "cpu/gradient/shipped.hpp"

namespace metaedit::METAEDIT_LEVEL {

METAEDIT_ENTRY dense(const fused::Dense& op) {
    if (op.then == fused::Then::add) return fused::dense_all<Vectors, fused::Then::add>(op);
    fused::dense_all<Vectors, fused::Then::store>(op);
}

METAEDIT_ENTRY normalise(const fused::Normalise& op) {
    fused::normalise_rows<Vectors>(op, [](std::int64_t, Vectors::V y) METAEDIT_INLINE_LAMBDA { return y; });
}

#define METAEDIT_NODE_ENTRY(name, Op)             \
    METAEDIT_ENTRY name(const gradient::Op& op) { \
        gradient::name<Vectors>(op);              \
    }
METAEDIT_NODE_ENTRY(weight_gradient, WeightGradient)
METAEDIT_NODE_ENTRY(activate, Activate)
METAEDIT_NODE_ENTRY(normalise_gradient, NormaliseGradient)
METAEDIT_NODE_ENTRY(scaled_activate, ScaledActivate)
#undef METAEDIT_NODE_ENTRY

#define METAEDIT_EDGE_ENTRY(name, Op, width)                \
    METAEDIT_ENTRY name##_##width(const gradient::Op& op) { \
        gradient::name<Vectors, width>(op);                 \
    }
#define METAEDIT_EDGE_ENTRIES(width)                                \
    METAEDIT_EDGE_ENTRY(embed, Embed, width)                        \
    METAEDIT_EDGE_ENTRY(embed_gradient, EmbedGradient, width)       \
    METAEDIT_EDGE_ENTRY(messages, Messages, width)                  \
    METAEDIT_EDGE_ENTRY(messages_gradient, MessagesGradient, width) \
    METAEDIT_EDGE_ENTRY(official, Official, width)                  \
    METAEDIT_EDGE_ENTRY(official_gradient, OfficialGradient, width) \
    METAEDIT_EDGE_ENTRY(heads, Heads, width)                        \
    METAEDIT_EDGE_ENTRY(heads_gradient, HeadsGradient, width)
METAEDIT_EDGE_ENTRIES(16)
METAEDIT_EDGE_ENTRIES(32)
METAEDIT_EDGE_ENTRIES(64)
METAEDIT_EDGE_ENTRIES(128)
#undef METAEDIT_EDGE_ENTRIES
#undef METAEDIT_EDGE_ENTRY

#define METAEDIT_WIDTHS(name) {&name##_16, &name##_32, &name##_64, &name##_128}
extern const gradient::Kernels gradient_kernels;
constinit const gradient::Kernels gradient_kernels = {
    .dense = &dense,
    .weight_gradient = &weight_gradient,
    .activate = &activate,
    .normalise = &normalise,
    .normalise_gradient = &normalise_gradient,
    .scaled_activate = &scaled_activate,
    .embed = METAEDIT_WIDTHS(embed),
    .embed_gradient = METAEDIT_WIDTHS(embed_gradient),
    .messages = METAEDIT_WIDTHS(messages),
    .messages_gradient = METAEDIT_WIDTHS(messages_gradient),
    .official = METAEDIT_WIDTHS(official),
    .official_gradient = METAEDIT_WIDTHS(official_gradient),
    .heads = METAEDIT_WIDTHS(heads),
    .heads_gradient = METAEDIT_WIDTHS(heads_gradient),
};
#undef METAEDIT_WIDTHS

}  // namespace metaedit::METAEDIT_LEVEL
