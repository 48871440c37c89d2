// The layers of a network over one graph, whole or shared out to a team of threads.
//
// No bit depends on the team. What is computed for one node or one edge does not depend on its neighbours in a
// tile; and the sums at the targets of a block with many sources are always taken in chunks of sources, each in a
// table of its own but the first, which are added in their order.
#pragma once

#include "core/parallel.hpp"
#include "cpu/fused/model.hpp"

namespace metaedit::fused {

struct Range {
    std::int64_t first, last;
    std::int64_t size() const { return last - first; }
};

class Pass {
  public:
    // team: null for the caller's thread alone.
    Pass(const Kernels& kernels, const StateSizes& sizes, const FoldedValues& values, const WeightGraph& graph,
         Workspace& work, Team* team);

    // work(range) for ranges that make up [0, n), a multiple of `step` apart.
    void share(std::int64_t n, std::int64_t step, const std::function<void(Range)>& work) const;

    // work(blocks, n_blocks) for blocks that make up the dense ones; rows of large ones apart for a team.
    void share_dense_blocks(const std::function<void(const Block*, std::int64_t)>& work) const;

    // Some rows of: out = x B + bias, out += it, or s(it).
    void dense(const FoldedMatrix& matrix, const float* x, std::int64_t x_stride, float* out, Then then,
               Range rows) const;

    // LayerNorm of nodes, without scale and shift, into the front of `seen`.
    void normalise(Range nodes) const;

    // `edges` is [E][sizes.edge].
    void layer(const FoldedShipped& layer, float* edges) const;
    // As above, but what reads the edges then has their update inside (update()).
    void layer(const FoldedOfficial& layer, float* edges) const;

    // What a layer by itself leaves to do.
    void update(const ShippedPlaces&, float*) const {}
    void update(const OfficialPlaces& places, float* edges) const;

  private:
    // Where the edges of a block, or of a chunk of its rows, leave their sums at the targets.
    struct Part {
        Block block;
        Aggregates received;
        std::int64_t target_sink;
    };

    // pass(part) for every block, so that `received` has sums, and minima behind them where these are wanted.
    void share_parts(const Aggregates& received, bool minima, const std::function<void(const Part&)>& pass) const;
    Part part_of(const Block& block, std::int64_t chunk, std::int64_t n_chunks, const Aggregates& received,
                 std::int64_t width, std::int64_t slot) const;
    void fill_seen(Range nodes) const;
    void clear_aggregates(Range nodes) const;
    void finish_aggregates(Range nodes) const;

    const Kernels& kernels_;
    const StateSizes& sizes_;
    const FoldedValues& values_;
    const WeightGraph& graph_;
    Workspace& work_;
    Team* team_;
};

}  // namespace metaedit::fused
