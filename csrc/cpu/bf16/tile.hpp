// The tile that the bf16 kernels are made of: sixteen rows of pairs of bf16 numbers.
//
// Kernels are templates of a unit: the vectors of the float32 kernels (fused/simd_*.hpp) and beside them
//     kSplit             whether a factor is the sum of two bf16 numbers,
//     start(n), stop()   around the products of a kernel, n being the pairs of one row,
//     store_pairs(to, at, x)      x as eight dwords at `at`,
//     multiply<kPanels, kInputs>(x, matrix, panel, start, finish)
//                        finish(r, j, start(r, j) + x[r] times panel j) for all rows r and for kPanels panels j;
//                        kInputs is the matrix's n_in, or 0 where only the matrix knows.
#pragma once

#include "core/panels.hpp"
#include "cpu/fused/tile.hpp"

namespace metaedit::bf16 {

// What a tile register holds, and the lanes of a vector.
inline constexpr int kRows = 16;

// Columns of a panel, as the loops over registers count them.
template <int kWidth>
inline constexpr int kPanelsOf = kWidth / static_cast<int>(kPanel);

// Rows of bf16 numbers, two to a dword as vdpbf16ps and the tiles read them: [kRows][stride]; `low` holds what
// rounding to bf16 left, where factors are split.
struct Pairs {
    std::uint32_t* high;
    std::uint32_t* low;
    std::int64_t stride;
};

// Memory for kRows rows of kWidth values.
template <class U, int kWidth>
class RowsOfPairs {
  public:
    METAEDIT_INLINE Pairs view() { return {high_, low_, kStride}; }

    // Row r, panel j.
    METAEDIT_INLINE void set(int r, int j, typename U::V x) { U::store_pairs(view(), r * kStride + j * 8, x); }

    // All rows, from [kRows][kWidth].
    METAEDIT_INLINE void fill(const float* x) {
        for (int i = 0; i < kRows * kWidth; i += U::kLanes) U::store_pairs(view(), i / 2, U::load(x + i));
    }

  private:
    static constexpr int kStride = kWidth / 2;
    static_assert(kStride == pairs_of(kWidth));

    alignas(64) std::uint32_t high_[kRows * kStride];
    alignas(64) std::uint32_t low_[U::kSplit ? kRows * kStride : 1];
};

}  // namespace metaedit::bf16
