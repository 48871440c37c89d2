// The edges of the official form's layer, in bf16: see fused/official.hpp.
#pragma once

#include "cpu/bf16/tile.hpp"
#include "cpu/fused/official.hpp"

namespace metaedit::bf16 {

using fused::PassOfficial;

// use(r, j, message) for every row and panel of one slot's messages, s(LN(e B + terms)). `sums` is a buffer.
template <class U, int kWidth, int kSlot, class Use>
METAEDIT_INLINE void official_message(const PassOfficial& op, const Pairs& e, const std::int64_t* sources,
                                      const std::int64_t* targets, float* sums, const Use& use) {
    using V = typename U::V;
    constexpr float kEpsilon = 1e-5F;
    constexpr int kPanels = kPanelsOf<kWidth>;
    V squares[kRows];
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) squares[r] = U::all(0.0F);
    U::template multiply<kPanels, kWidth>(
        e, op.edge, kSlot * kPanels,
        [&](int r, int j) METAEDIT_INLINE_LAMBDA {
            return fused::term_of<U, kWidth, kSlot>(op.terms, sources[r], targets[r], j * U::kLanes);
        },
        [&](int r, int j, V sum) METAEDIT_INLINE_LAMBDA {
            squares[r] = U::fma(sum, sum, squares[r]);
            U::store(sums + r * kWidth + j * U::kLanes, sum);
        });
    alignas(64) float inverse[kRows];
    const V variance = U::mul(U::sums_of(squares), U::all(1.0F / static_cast<float>(op.size)));
    U::store(inverse, U::inverse_root(U::add(variance, U::all(kEpsilon))));
    const float* scale = op.scale + kSlot * kWidth;
    const float* shift = op.shift + kSlot * kWidth;
    for (int r = 0; r < kRows; ++r) {
        METAEDIT_UNROLL
        for (int j = 0; j < kPanels; ++j) {
            const int at = j * U::kLanes;
            const V normed = U::mul(U::load(sums + r * kWidth + at), U::all(inverse[r]));
            use(r, j, U::scaled_silu(U::fma(normed, U::load(scale + at), U::load(shift + at))));
        }
    }
}

template <class U, int kWidth>
METAEDIT_INLINE void pass_official(const PassOfficial& op) {
    using V = typename U::V;
    std::int64_t sources[kRows], targets[kRows];
    alignas(64) float last[kRows * kWidth] = {};
    alignas(64) float sums[kRows * kWidth];
    RowsOfPairs<U, kWidth> e_pairs;
    const auto add_to = [&](float* at, V value) METAEDIT_INLINE_LAMBDA { U::store(at, U::add(U::load(at), value)); };
    U::start(pairs_of(kWidth));
    for (std::int64_t b = 0; b < op.n_blocks; ++b) {
        fused::EdgeWalk walk(op.blocks[b]);
        while (walk.edge < walk.end) {
            float* const given = op.edges + walk.edge * kWidth;
            const int n = walk.take(kRows, op.n_nodes, op.target_sink, sources, targets);
            if (n < kRows) fused::copy(given, n * kWidth, last);
            float* const e = n < kRows ? last : given;
            e_pairs.fill(e);
            bf16::official_message<U, kWidth, 0>(op, e_pairs.view(), sources, targets, sums,
                                                 [&](int r, int j, V m) METAEDIT_INLINE_LAMBDA {
                                                     add_to(op.received.of(targets[r]) + j * U::kLanes, m);
                                                 });
            bf16::official_message<U, kWidth, 1>(op, e_pairs.view(), sources, targets, sums,
                                                 [&](int r, int j, V m) METAEDIT_INLINE_LAMBDA {
                                                     add_to(op.returned.of(sources[r]) + j * U::kLanes, m);
                                                 });
            bf16::official_message<U, kWidth, 2>(
                op, e_pairs.view(), sources, targets, sums,
                [&](int r, int j, V m) METAEDIT_INLINE_LAMBDA { U::store(e + r * kWidth + j * U::kLanes, m); });
            if (n < kRows) fused::copy(last, n * kWidth, given);
        }
    }
    U::stop();
}

}  // namespace metaedit::bf16
