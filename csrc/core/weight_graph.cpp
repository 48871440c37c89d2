#include "core/weight_graph.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace metaedit {
namespace {

[[noreturn]] void fail(std::size_t block, const std::string& field, const std::string& expected, std::int64_t got) {
    throw std::invalid_argument("blocks[" + std::to_string(block) + "]: " + field + ": expected " + expected +
                                ", got " + std::to_string(got));
}

// Whether [offset, offset + count) lies in [0, size); subtracts, because a sum could overflow.
bool is_within(std::int64_t offset, std::int64_t count, std::int64_t size) {
    return offset >= 0 && offset <= size && count <= size - offset;
}

}  // namespace

std::int64_t count_edges(std::span<const Block> blocks) {
    std::int64_t room = std::numeric_limits<std::int64_t>::max();
    for (const Block& block : blocks) {
        const std::int64_t per_source = block.kind == BlockKind::identity ? 1 : std::max<std::int64_t>(block.n_dst, 1);
        const std::int64_t n_src = std::max<std::int64_t>(block.n_src, 0);
        room -= n_src > room / per_source ? room : n_src * per_source;
    }
    return std::numeric_limits<std::int64_t>::max() - room;
}

void check(const WeightGraph& graph) {
    const std::string nodes = " with the others inside the " + std::to_string(graph.n_nodes) + " nodes";
    std::int64_t next_edge = 0;
    for (std::size_t b = 0; b < graph.blocks.size(); ++b) {
        const Block& block = graph.blocks[b];
        if (block.kind != BlockKind::dense && block.kind != BlockKind::identity) {
            fail(b, "kind", "0 (dense) or 1 (identity)", static_cast<std::int64_t>(block.kind));
        }
        if (block.n_src < 1) fail(b, "n_src", "at least 1", block.n_src);
        if (block.n_dst < 1) fail(b, "n_dst", "at least 1", block.n_dst);
        if (block.kind == BlockKind::identity && block.n_src != block.n_dst) {
            fail(b, "n_dst", "n_src (" + std::to_string(block.n_src) + ") in an identity block", block.n_dst);
        }
        if (!is_within(block.src_offset, block.n_src, graph.n_nodes)) {
            fail(b, "src_offset", "a first source" + nodes, block.src_offset);
        }
        if (!is_within(block.dst_offset, block.n_dst, graph.n_nodes)) {
            fail(b, "dst_offset", "a first target" + nodes, block.dst_offset);
        }
        if (block.edge_offset != next_edge) {
            fail(b, "edge_offset", std::to_string(next_edge) + " (edges lie block after block, without gaps)",
                 block.edge_offset);
        }
        const std::int64_t room = graph.n_edges - next_edge;
        const std::int64_t per_source = block.kind == BlockKind::dense ? block.n_dst : 1;
        if (block.n_src > room / per_source) {
            fail(b, "n_src", "at most the " + std::to_string(room) + " edges that are left", block.n_src);
        }
        next_edge += block.n_edges();
    }
    if (next_edge != graph.n_edges) {
        throw std::invalid_argument("blocks: expected " + std::to_string(graph.n_edges) + " edges in all, got " +
                                    std::to_string(next_edge));
    }
}

void count_degrees(const WeightGraph& graph, float* degree) {
    std::fill_n(degree, 2 * graph.n_nodes, 0.0F);
    for (const Block& block : graph.blocks) {
        const bool dense = block.kind == BlockKind::dense;
        const float n_in = dense ? static_cast<float>(block.n_src) : 1.0F;
        const float n_out = dense ? static_cast<float>(block.n_dst) : 1.0F;
        for (std::int64_t v = 0; v < block.n_dst; ++v) degree[2 * (block.dst_offset + v)] += n_in;
        for (std::int64_t u = 0; u < block.n_src; ++u) degree[2 * (block.src_offset + u) + 1] += n_out;
    }
}

}  // namespace metaedit
