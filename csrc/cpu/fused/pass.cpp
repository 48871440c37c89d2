#include "cpu/fused/pass.hpp"

#include <limits>

namespace metaedit::fused {
namespace {

// Sources of a chunk. Their edges fill whole tiles, whatever the targets, so that chunks cut no tile.
constexpr std::int64_t kChunk = 64;
// Nodes, or rows of a block, that a thread takes at a time.
constexpr std::int64_t kNodeRows = 48;

// The last chunk takes what does not fill one.
std::int64_t chunks_of(const Block& block) {
    return block.kind == BlockKind::dense ? std::max<std::int64_t>(1, block.n_src / kChunk) : 1;
}

Block rows_of(const Block& block, std::int64_t first, std::int64_t n_rows) {
    Block rows = block;
    rows.src_offset += first;
    rows.n_src = n_rows;
    rows.edge_offset += first * block.n_dst;
    return rows;
}

// work(i) for i below a multiple of kPanel, a panel's in a loop that the compiler unrolls.
template <class Work>
void for_panels(std::int64_t size, const Work& work) {
    for (std::int64_t panel = 0; panel < size; panel += kPanel) {
        for (std::int64_t i = 0; i < kPanel; ++i) work(panel + i);
    }
}

// Sums 0, and minima behind them infinite.
void clear(float* row, std::int64_t size, bool minima) {
    for_panels(size, [&](std::int64_t i) { row[i] = 0.0F; });
    if (!minima) return;
    for_panels(size, [&](std::int64_t i) { row[size + i] = std::numeric_limits<float>::infinity(); });
}

void merge(const float* from, std::int64_t size, bool minima, float* into) {
    for_panels(size, [&](std::int64_t i) { into[i] += from[i]; });
    if (!minima) return;
    for_panels(size, [&](std::int64_t i) { into[size + i] = std::min(from[size + i], into[size + i]); });
}

}  // namespace

Pass::Pass(const Kernels& kernels, const StateSizes& sizes, const FoldedValues& values, const WeightGraph& graph,
           Workspace& work, Team* team)
    : kernels_(kernels), sizes_(sizes), values_(values), graph_(graph), work_(work), team_(team) {
    count_degrees(graph, work.degree.data());
}

void Pass::share(std::int64_t n, std::int64_t step, const std::function<void(Range)>& work) const {
    if (team_ == nullptr) return work({0, n});
    const auto n_items = static_cast<std::size_t>((n + step - 1) / step);
    team_->run(n_items, [&](std::size_t item) {
        const std::int64_t first = static_cast<std::int64_t>(item) * step;
        work({first, std::min(n, first + step)});
    });
}

void Pass::share_dense_blocks(const std::function<void(const Block*, std::int64_t)>& work) const {
    std::vector<Block> blocks;
    for (const Block& block : graph_.blocks) {
        if (block.kind != BlockKind::dense) continue;
        const std::int64_t step = team_ == nullptr ? block.n_src : kNodeRows;
        for (std::int64_t row = 0; row < block.n_src; row += step) {
            blocks.push_back(rows_of(block, row, std::min(step, block.n_src - row)));
        }
    }
    if (team_ == nullptr) return work(blocks.data(), static_cast<std::int64_t>(blocks.size()));
    team_->run(blocks.size(), [&](std::size_t item) { work(&blocks[item], 1); });
}

void Pass::dense(const FoldedMatrix& matrix, const float* x, std::int64_t x_stride, float* out, Then then,
                 Range rows) const {
    kernels_.dense({.matrix = values_.panels(matrix),
                    .x = x + rows.first * x_stride,
                    .x_stride = x_stride,
                    .rows = rows.size(),
                    .out = out + rows.first * matrix.n_out,
                    .out_stride = matrix.n_out,
                    .then = then});
}

void Pass::normalise(Range nodes) const {
    kernels_.normalise({.x = work_.nodes.data() + nodes.first * sizes_.node,
                        .keeps = work_.keeps.data(),
                        .scale = nullptr,
                        .shift = nullptr,
                        .rows = nodes.size(),
                        .width = sizes_.node,
                        .size = sizes_.size_v,
                        .out = work_.seen.data() + nodes.first * sizes_.seen(),
                        .out_stride = sizes_.seen()});
}

void Pass::layer(const FoldedShipped& layer, float* edges) const {
    const std::int64_t n = graph_.n_nodes, row = sizes_.seen();
    float* const seen = work_.seen.data();
    share(n, kNodeRows, [&](Range nodes) {
        normalise(nodes);
        clear_aggregates(nodes);
        dense(layer.terms, seen, row, work_.terms.data(), Then::store, nodes);
    });
    const Aggregates received{seen + sizes_.node, row, 0}, returned{seen + sizes_.node + 2 * sizes_.edge, row, 0};
    share_parts(received, true, [&](const Part& part) {
        kernels_.pass_messages[sizes_.edge_index]({.edge = values_.panels(layer.edge),
                                                   .update = values_.panels(layer.update),
                                                   .size = sizes_.size_e,
                                                   .blocks = &part.block,
                                                   .n_blocks = 1,
                                                   .n_nodes = n,
                                                   .target_sink = part.target_sink,
                                                   .edges = edges,
                                                   .terms = work_.terms.data(),
                                                   .received = part.received,
                                                   .returned = returned});
    });
    share(n, kNodeRows, [&](Range nodes) {
        finish_aggregates(nodes);
        dense(layer.node_in, seen, row, work_.hidden.data(), Then::scaled_silu, nodes);
        dense(layer.node_out, work_.hidden.data(), layer.node_in.n_out, work_.nodes.data(), Then::add, nodes);
    });
}

void Pass::layer(const FoldedOfficial& layer, float* edges) const {
    const std::int64_t n = graph_.n_nodes, row = sizes_.seen();
    float *const seen = work_.seen.data(), *const hidden = work_.hidden.data();
    share(n, kNodeRows, [&](Range nodes) {
        fill_seen(nodes);
        dense(layer.terms, seen, row, work_.terms.data(), Then::store, nodes);
    });
    const Aggregates received{seen + sizes_.node, row, 0}, returned{seen + sizes_.node + sizes_.edge, row, 0};
    share_parts(received, false, [&](const Part& part) {
        kernels_.pass_official[sizes_.edge_index]({.edge = values_.panels(layer.edge),
                                                   .scale = values_.vector(layer.scale),
                                                   .shift = values_.vector(layer.shift),
                                                   .size = sizes_.size_e,
                                                   .blocks = &part.block,
                                                   .n_blocks = 1,
                                                   .n_nodes = n,
                                                   .target_sink = part.target_sink,
                                                   .edges = edges,
                                                   .terms = work_.terms.data(),
                                                   .received = part.received,
                                                   .returned = returned});
    });
    share(n, kNodeRows, [&](Range nodes) {
        float* const own = hidden + nodes.first * sizes_.node;
        dense(layer.node_in, seen, row, hidden, Then::store, nodes);
        kernels_.normalise({.x = own,
                            .keeps = work_.keeps.data(),
                            .scale = values_.vector(layer.node_scale),
                            .shift = values_.vector(layer.node_shift),
                            .rows = nodes.size(),
                            .width = sizes_.node,
                            .size = sizes_.size_v,
                            .out = own,
                            .out_stride = sizes_.node});
        dense(layer.residual, seen, row, work_.nodes.data(), Then::store, nodes);
        dense(layer.node_out, hidden, sizes_.node, work_.nodes.data(), Then::add, nodes);
    });
}

void Pass::update(const OfficialPlaces& places, float* edges) const {
    AlignedFloats messages(graph_.n_edges * sizes_.edge);
    std::copy_n(edges, messages.size(), messages.data());
    dense(places.update, messages.data(), sizes_.edge, edges, Then::store, {0, graph_.n_edges});
}

// Chunk 0 and whole blocks go to the nodes' own rows, other chunks to table `slot` of the targets of their block.
Pass::Part Pass::part_of(const Block& block, std::int64_t chunk, std::int64_t n_chunks, const Aggregates& received,
                         std::int64_t width, std::int64_t slot) const {
    const std::int64_t first = chunk * kChunk;
    const std::int64_t n_rows = chunk + 1 < n_chunks ? kChunk : block.n_src - first;
    const Block rows = n_chunks == 1 ? block : rows_of(block, first, n_rows);
    if (chunk == 0) return {rows, received, graph_.n_nodes};
    const std::int64_t size = (block.n_dst + 1) * width;
    return {rows, {work_.partial.data() + slot * size, width, block.dst_offset}, block.dst_offset + block.n_dst};
}

void Pass::share_parts(const Aggregates& received, bool minima, const std::function<void(const Part&)>& pass) const {
    const std::int64_t width = minima ? 2 * sizes_.edge : sizes_.edge;
    for (const Block& block : graph_.blocks) {
        const std::int64_t n_chunks = chunks_of(block);
        const std::int64_t n_slots = team_ == nullptr ? 1 : n_chunks - 1;  // tables at a time
        if (n_chunks > 1) work_.expect_partial(n_slots * (block.n_dst + 1) * width);
        const auto run = [&](std::int64_t chunk) {
            const std::int64_t slot = team_ == nullptr ? 0 : chunk - 1;
            const Part part = part_of(block, chunk, n_chunks, received, width, slot);
            if (chunk > 0) {
                for (std::int64_t v = 0; v <= block.n_dst; ++v) {
                    clear(part.received.values + v * width, sizes_.edge, minima);
                }
            }
            pass(part);
        };
        const auto add = [&](std::int64_t chunk, Range targets) {
            const std::int64_t slot = team_ == nullptr ? 0 : chunk - 1;
            const Aggregates from = part_of(block, chunk, n_chunks, received, width, slot).received;
            for (std::int64_t v = targets.first; v < targets.last; ++v) {
                const std::int64_t node = block.dst_offset + v;
                merge(from.of(node), sizes_.edge, minima, received.of(node));
            }
        };
        if (team_ == nullptr || n_chunks == 1) {
            for (std::int64_t chunk = 0; chunk < n_chunks; ++chunk) {
                run(chunk);
                if (chunk > 0) add(chunk, {0, block.n_dst});
            }
            continue;
        }
        team_->run(static_cast<std::size_t>(n_chunks),
                   [&](std::size_t chunk) { run(static_cast<std::int64_t>(chunk)); });
        share(block.n_dst, kNodeRows, [&](Range targets) {
            for (std::int64_t chunk = 1; chunk < n_chunks; ++chunk) add(chunk, targets);
        });
    }
}

// For the official form: nodes, sums of 0, degrees. With the last node its successor, which fills up tiles.
void Pass::fill_seen(Range nodes) const {
    for (std::int64_t v = nodes.first; v < nodes.last; ++v) {
        float* row = work_.seen.data() + v * sizes_.seen();
        std::copy_n(work_.nodes.data() + v * sizes_.node, sizes_.node, row);
        std::fill_n(row + sizes_.node, sizes_.seen_official() - sizes_.node, 0.0F);
        std::copy_n(work_.degree.data() + 2 * v, 2, row + sizes_.node + 2 * sizes_.edge);
    }
    if (nodes.last == graph_.n_nodes) {
        std::fill_n(work_.seen.data() + nodes.last * sizes_.seen(), sizes_.seen_official(), 0.0F);
    }
}

// Sums 0, minima infinite. With the last node its successor, which fills up tiles.
void Pass::clear_aggregates(Range nodes) const {
    const std::int64_t last = nodes.last == graph_.n_nodes ? nodes.last + 1 : nodes.last;
    for (std::int64_t v = nodes.first; v < last; ++v) {
        float* row = work_.seen.data() + v * sizes_.seen() + sizes_.node;
        for (std::int64_t side = 0; side < 2; ++side) clear(row + 2 * side * sizes_.edge, sizes_.edge, true);
    }
}

// Sums become means; a node without edges on one side has zeros there.
void Pass::finish_aggregates(Range nodes) const {
    for (std::int64_t v = nodes.first; v < nodes.last; ++v) {
        float* row = work_.seen.data() + v * sizes_.seen() + sizes_.node;
        for (std::int64_t side = 0; side < 2; ++side) {
            float* sum = row + 2 * side * sizes_.edge;
            const float degree = work_.degree[2 * v + side];
            const float scale = degree > 0.0F ? 1.0F / degree : 0.0F;
            for_panels(sizes_.edge, [&](std::int64_t i) { sum[i] *= scale; });
            if (degree == 0.0F) for_panels(sizes_.edge, [&](std::int64_t i) { sum[sizes_.edge + i] = 0.0F; });
        }
    }
}

}  // namespace metaedit::fused
