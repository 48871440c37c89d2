// The walk of the serial kernels over the edges of a graph.
#pragma once

#include <algorithm>

#include "core/weight_graph.hpp"

namespace metaedit::serial {

// Edges are handled in tiles whose intermediate values fit the first-level cache.
constexpr std::int64_t kTileEdges = 64;

struct Tile {
    std::int64_t first_edge;
    std::int64_t size;
    std::int64_t source[kTileEdges];  // node numbers
    std::int64_t target[kTileEdges];
};

template <class Visit>
void for_each_tile(const WeightGraph& graph, const Visit& visit) {
    Tile tile;
    for (const Block& block : graph.blocks) {
        const std::int64_t n_edges = block.n_edges();
        const bool dense = block.kind == BlockKind::dense;
        for (std::int64_t first = 0; first < n_edges; first += kTileEdges) {
            tile.first_edge = block.edge_offset + first;
            tile.size = std::min(kTileEdges, n_edges - first);
            for (std::int64_t k = 0; k < tile.size; ++k) {
                const std::int64_t edge = first + k;
                tile.source[k] = block.src_offset + (dense ? edge / block.n_dst : edge);
                tile.target[k] = block.dst_offset + (dense ? edge % block.n_dst : edge);
            }
            visit(tile);
        }
    }
}

}  // namespace metaedit::serial
