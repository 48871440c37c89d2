// The functions of one instruction set's object file, all of them: include this once, behind the definition of
// METAEDIT_LEVEL (a namespace that holds Simd), METAEDIT_SECTION (a string; see cpu/entry.hpp) and METAEDIT_KERNELS
// (the namespace of the templates, fused or bf16).
#pragma once

#include "cpu/entry.hpp"
#include "cpu/fused/dense.hpp"
#include "cpu/fused/edges.hpp"
#include "cpu/fused/official.hpp"

namespace metaedit::METAEDIT_LEVEL {

METAEDIT_ENTRY dense(const fused::Dense& op) {
    METAEDIT_KERNELS::dense<Simd>(op);
}
METAEDIT_ENTRY normalise(const fused::Normalise& op) {
    METAEDIT_KERNELS::normalise<Simd>(op);
}

#define METAEDIT_EDGE_ENTRIES(width)                                      \
    METAEDIT_ENTRY embed_edges_##width(const fused::EmbedEdges& op) {     \
        METAEDIT_KERNELS::embed_edges<Simd, width>(op);                   \
    }                                                                     \
    METAEDIT_ENTRY pass_messages_##width(const fused::PassMessages& op) { \
        METAEDIT_KERNELS::pass_messages<Simd, width>(op);                 \
    }                                                                     \
    METAEDIT_ENTRY pass_official_##width(const fused::PassOfficial& op) { \
        METAEDIT_KERNELS::pass_official<Simd, width>(op);                 \
    }                                                                     \
    METAEDIT_ENTRY edge_heads_##width(const fused::EdgeHeads& op) {       \
        METAEDIT_KERNELS::edge_heads<Simd, width>(op);                    \
    }
METAEDIT_EDGE_ENTRIES(16)
METAEDIT_EDGE_ENTRIES(32)
METAEDIT_EDGE_ENTRIES(64)
METAEDIT_EDGE_ENTRIES(128)
#undef METAEDIT_EDGE_ENTRIES

extern const fused::Kernels kernels;
constinit const fused::Kernels kernels = {
    .dense = &dense,
    .normalise = &normalise,
    .embed_edges = {&embed_edges_16, &embed_edges_32, &embed_edges_64, &embed_edges_128},
    .pass_messages = {&pass_messages_16, &pass_messages_32, &pass_messages_64, &pass_messages_128},
    .pass_official = {&pass_official_16, &pass_official_32, &pass_official_64, &pass_official_128},
    .edge_heads = {&edge_heads_16, &edge_heads_32, &edge_heads_64, &edge_heads_128},
};

}  // namespace metaedit::METAEDIT_LEVEL
