// Matrix products on panels of 64 rows, and sums over rows. The order of the additions into a number depends on
// the shapes alone: a row's bits are the same wherever it stands in a panel.
#pragma once

#include "cpu/mlp/kernels.hpp"
#include "cpu/mlp/math.hpp"

namespace metaedit::mlp {

// The same pointer, of unknown origin: GCC would keep the addresses of all rows of a tile in registers and on the
// stack, as sums of what two pointers have in common, where a pointer and a constant do.
template <class T>
METAEDIT_INLINE T* plain(T* pointer) {
#ifdef __GNUC__
    __asm__("" : "+r"(pointer));
#endif
    return pointer;
}

// kRows values of a target from `first` on by kVectors vectors of rows from `lane` on. One choice for all of them, not
// one for each.
template <class S, int kRows, int kVectors>
METAEDIT_INLINE void begin_tile(const Target& to, std::int64_t first, std::int64_t lane,
                                typename S::V (&sums)[kRows][kVectors]) {
    const float* bias = to.bias;
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        const typename S::V start = S::all(bias != nullptr ? bias[first + r] : 0.0F);
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) sums[r][j] = start;
    }
    if (bias != nullptr || !to.add) return;
    const float* c = plain(to.c + first * kPanelRows + lane);
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) sums[r][j] = S::load(c + r * kPanelRows + j * S::kLanes);
    }
}

template <class S, int kRows, int kVectors>
METAEDIT_INLINE void end_tile(const Target& to, std::int64_t first, std::int64_t lane,
                              typename S::V (&sums)[kRows][kVectors]) {
    const std::int64_t at = first * kPanelRows + lane;
    float* c = plain(to.c + at);
    const auto each = [&](const auto& change) {
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) sums[r][j] = change(sums[r][j], r * kPanelRows + j * S::kLanes);
        }
    };
    using V = typename S::V;
    const V zero = S::all(0.0F);
    if (to.rectify) {
        each([&](V sum, std::int64_t) { return S::max(zero, sum); });
    } else if (to.factor != nullptr) {
        const float* factor = plain(to.factor + at);
        each([&](V sum, std::int64_t i) { return S::mul(sum, S::load(factor + i)); });
    } else if (to.gate != nullptr) {
        const float* gate = plain(to.gate + at);
        each([&](V sum, std::int64_t i) { return S::if_less(zero, S::load(gate + i), sum, zero); });
    }
    METAEDIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) S::store(c + r * kPanelRows + j * S::kLanes, sums[r][j]);
    }
}

template <class S, int kRows, int kVectors>
METAEDIT_INLINE void product_tile(const Product& op, std::int64_t first, std::int64_t lane) {
    using V = typename S::V;
    V sums[kRows][kVectors];
    begin_tile<S>(op.to, first, lane, sums);
    const float* a = op.a + first * op.row_stride;
    const float* b = op.b + lane;
    const std::int64_t row_stride = op.row_stride, column_stride = op.column_stride, n_b = op.n_b;
    for (std::int64_t k = 0; k < n_b; ++k, a += column_stride, b += kPanelRows) {
        V x[kVectors];
        METAEDIT_UNROLL
        for (int j = 0; j < kVectors; ++j) x[j] = S::load(b + j * S::kLanes);
        METAEDIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const V weight = S::all(a[r * row_stride]);
            METAEDIT_UNROLL
            for (int j = 0; j < kVectors; ++j) sums[r][j] = S::fma(weight, x[j], sums[r][j]);
        }
    }
    end_tile<S>(op.to, first, lane, sums);
}

template <class S, int kRows>
METAEDIT_INLINE void product_rows(const Product& op, std::int64_t first) {
    constexpr int kWidth = S::kProductVectors * S::kLanes;
    for (std::int64_t lane = 0; lane < kPanelRows; lane += kWidth) {
        product_tile<S, kRows, S::kProductVectors>(op, first, lane);
    }
}

template <class S>
METAEDIT_INLINE void product(const Product& op) {
    constexpr int kRows = S::kProductRows;
    const std::int64_t n = op.to.n;
    std::int64_t first = 0;
    // Two tiles of 4 are better than one of 6 and one of 2.
    for (; n - first >= kRows && n - first != 8; first += kRows) product_rows<S, kRows>(op, first);
    for (; n - first >= 4; first += 4) product_rows<S, 4>(op, first);
    for (; n - first >= 2; first += 2) product_rows<S, 2>(op, first);
    for (; first < n; ++first) product_rows<S, 1>(op, first);
}

// Each product needs a vector of b of its own, so loads are the limit; four sums hide the latency of the additions.
template <class S>
METAEDIT_INLINE void sparse_product(const SparseProduct& op) {
    using V = typename S::V;
    constexpr int kVectors = 4;
    const float* values = op.values;
    const std::int32_t *starts = op.starts, *columns = op.columns;
    for (std::int64_t m = 0; m < op.to.n; ++m) {
        for (std::int64_t lane = 0; lane < kPanelRows; lane += kVectors * S::kLanes) {
            V sums[1][kVectors];
            begin_tile<S>(op.to, m, lane, sums);
            for (std::int32_t k = starts[m]; k < starts[m + 1]; ++k) {
                const V weight = S::all(values[k]);
                const float* b = op.b + columns[k] * kPanelRows + lane;
                METAEDIT_UNROLL
                for (int j = 0; j < kVectors; ++j) sums[0][j] = S::fma(weight, S::load(b + j * S::kLanes), sums[0][j]);
            }
            end_tile<S>(op.to, m, lane, sums);
        }
    }
}

// Sums over rows are sums across lanes. They are taken for kLanes pairs of features together, in a tree of additions
// that transposes: a tile of kA features of a by kB of b. What a tile reads from a1 and b1 on it does not write.
template <class S, int kA, int kB>
METAEDIT_INLINE void row_products_tile(const RowProducts& op, std::int64_t i, std::int64_t a1, std::int64_t j,
                                       std::int64_t b1) {
    using V = typename S::V;
    static_assert(kA * kB == S::kLanes);
    const float* a[kA];
    const float* b[kB];
    METAEDIT_UNROLL
    for (int r = 0; r < kA; ++r) a[r] = op.a.values + (i + r < op.a.n ? i + r : op.a.n - 1) * kPanelRows;
    METAEDIT_UNROLL
    for (int s = 0; s < kB; ++s) b[s] = op.b.values + (j + s < op.b.n ? j + s : op.b.n - 1) * kPanelRows;
    V sums[S::kLanes];
    METAEDIT_UNROLL
    for (int t = 0; t < S::kLanes; ++t) sums[t] = S::all(0.0F);
    for (std::int64_t panel = 0; panel < op.a.n_panels; ++panel) {
        const std::int64_t from_a = panel * op.a.n * kPanelRows, from_b = panel * op.b.n * kPanelRows;
        for (std::int64_t lane = 0; lane < kPanelRows; lane += S::kLanes) {
            V y[kB];
            METAEDIT_UNROLL
            for (int s = 0; s < kB; ++s) y[s] = S::load(b[s] + from_b + lane);
            METAEDIT_UNROLL
            for (int r = 0; r < kA; ++r) {
                const V x = S::load(a[r] + from_a + lane);
                METAEDIT_UNROLL
                for (int s = 0; s < kB; ++s) sums[r * kB + s] = S::fma(x, y[s], sums[r * kB + s]);
            }
        }
    }
    float tile[S::kLanes];
    S::store(tile, S::sums_of(sums));
    for (int r = 0; r < kA && i + r < a1; ++r) {
        float* out = op.out + (i + r) * op.b.n + j;
        if (j + kB <= b1 && !op.add) {
            for (int s = 0; s < kB; ++s) out[s] = tile[r * kB + s];
        } else {
            for (int s = 0; s < kB && j + s < b1; ++s) out[s] = tile[r * kB + s] + (op.add ? out[s] : 0.0F);
        }
    }
}

// Features a0 to a1 by b0 to b1. So many features of b as the first-level cache holds beside a's go with all of a's.
template <class S, int kA, int kB>
METAEDIT_INLINE void row_products_of(const RowProducts& op, std::int64_t a0, std::int64_t a1, std::int64_t b0,
                                     std::int64_t b1) {
    constexpr std::int64_t kBlock = 16;
    for (std::int64_t block = b0; block < b1; block += kBlock) {
        const std::int64_t end = block + kBlock < b1 ? block + kBlock : b1;
        for (std::int64_t i = a0; i < a1; i += kA) {
            for (std::int64_t j = block; j < end; j += kB) row_products_tile<S, kA, kB>(op, i, a1, j, b1);
        }
    }
}

template <class S>
METAEDIT_INLINE void row_products(const RowProducts& op) {
    if constexpr (S::kLanes == 16) {
        // What is left of a square tile's 4 features is 1 or 2 by more of the others, or 3 in one more tile.
        const auto square = [](std::int64_t n) { return n % 4 == 3 ? n : n / 4 * 4; };
        const std::int64_t a1 = square(op.a.n), b1 = square(op.b.n);
        row_products_of<S, 4, 4>(op, 0, a1, 0, b1);
        if (op.b.n - b1 == 2) row_products_of<S, 8, 2>(op, 0, op.a.n, b1, op.b.n);
        if (op.b.n - b1 == 1) row_products_of<S, 16, 1>(op, 0, op.a.n, b1, op.b.n);
        if (op.a.n - a1 == 2) row_products_of<S, 2, 8>(op, a1, op.a.n, 0, b1);
        if (op.a.n - a1 == 1) row_products_of<S, 1, 16>(op, a1, op.a.n, 0, b1);
    } else {
        constexpr int kB = S::kLanes < 4 ? 1 : 4;
        row_products_of<S, S::kLanes / kB, kB>(op, 0, op.a.n, 0, op.b.n);
    }
}

// The values of one b stay in registers (where there are enough) for all its pairs; the sums across lanes are taken
// for kLanes pairs together.
template <class S, int kPanels>
METAEDIT_INLINE void sparse_row_products_of(const SparseRowProducts& op) {
    using V = typename S::V;
    constexpr int kVectors = kPanelRows / S::kLanes, kSums = 4 < kVectors ? 4 : kVectors;
    V queue[S::kLanes];
    int n_queued = 0;
    float* out = op.out;
    const auto flush = [&] {
        float sums[S::kLanes];
        S::store(sums, S::sums_of(queue));
        for (int i = 0; i < n_queued; ++i) out[i] = op.add ? out[i] + sums[i] : sums[i];
        out += n_queued;
        n_queued = 0;
    };
    METAEDIT_UNROLL
    for (int i = 0; i < S::kLanes; ++i) queue[i] = S::all(0.0F);
    for (std::int64_t j = 0; j < op.b.n; ++j) {
        if (op.starts[j] == op.starts[j + 1]) continue;
        V y[kPanels * kVectors];
        METAEDIT_UNROLL
        for (int v = 0; v < kPanels * kVectors; ++v) {
            y[v] = S::load(op.b.values + (v / kVectors * op.b.n + j) * kPanelRows + v % kVectors * S::kLanes);
        }
        for (std::int32_t k = op.starts[j]; k < op.starts[j + 1]; ++k) {
            const float* a = op.a.values + op.columns[k] * kPanelRows;
            V sums[kSums];
            METAEDIT_UNROLL
            for (int v = 0; v < kPanels * kVectors; ++v) {
                const V x = S::load(a + v / kVectors * op.a.n * kPanelRows + v % kVectors * S::kLanes);
                sums[v % kSums] = v < kSums ? S::mul(x, y[v]) : S::fma(x, y[v], sums[v % kSums]);
            }
            METAEDIT_UNROLL
            for (int step = kSums / 2; step > 0; step /= 2) {
                METAEDIT_UNROLL
                for (int i = 0; i < step; ++i) sums[i] = S::add(sums[i], sums[i + step]);
            }
            queue[n_queued++] = sums[0];
            if (n_queued == S::kLanes) flush();
        }
    }
    if (n_queued > 0) flush();
}

template <class S>
METAEDIT_INLINE void sparse_row_products(const SparseRowProducts& op) {
    static_assert(kChunkPanels == 4);
    switch (op.a.n_panels) {
        case 1:
            return sparse_row_products_of<S, 1>(op);
        case 2:
            return sparse_row_products_of<S, 2>(op);
        case 3:
            return sparse_row_products_of<S, 3>(op);
        default:
            return sparse_row_products_of<S, 4>(op);
    }
}

template <class S>
METAEDIT_INLINE void row_sums(const RowSums& op) {
    using V = typename S::V;
    for (std::int64_t first = 0; first < op.x.n; first += S::kLanes) {
        V sums[S::kLanes];
        for (int r = 0; r < S::kLanes; ++r) {
            const std::int64_t i = first + r < op.x.n ? first + r : op.x.n - 1;
            V sum = S::all(0.0F);
            for (std::int64_t panel = 0; panel < op.x.n_panels; ++panel) {
                const float* x = op.x.values + (panel * op.x.n + i) * kPanelRows;
                for (std::int64_t lane = 0; lane < kPanelRows; lane += 4 * S::kLanes) {
                    const V low = S::add(S::load(x + lane), S::load(x + lane + S::kLanes));
                    const V high = S::add(S::load(x + lane + 2 * S::kLanes), S::load(x + lane + 3 * S::kLanes));
                    sum = S::add(sum, S::add(low, high));
                }
            }
            sums[r] = sum;
        }
        float found[S::kLanes];
        S::store(found, S::sums_of(sums));
        for (int r = 0; r < S::kLanes && first + r < op.x.n; ++r) {
            op.out[first + r] = found[r] + (op.add ? op.out[first + r] : 0.0F);
        }
    }
}

template <class S>
METAEDIT_INLINE void moments(const Moments& op) {
    using V = typename S::V;
    for (std::int64_t i = 0; i < op.x.n; ++i) {
        float mean = 0.0F;
        for (const bool squares : {false, true}) {
            const V centre = S::all(mean);
            V sum = S::all(0.0F);
            for (std::int64_t panel = 0; panel < op.x.n_panels; ++panel) {
                const float* x = op.x.values + (panel * op.x.n + i) * kPanelRows;
                const bool last = panel == op.x.n_panels - 1;
                for (std::int64_t lane = 0; lane < kPanelRows; lane += S::kLanes) {
                    const V value = S::sub(S::load(x + lane), centre);
                    const V keeps = last ? S::load(op.keeps + lane) : S::all(1.0F);
                    sum = S::fma(squares ? S::mul(value, value) : value, keeps, sum);
                }
            }
            if (squares) {
                op.squares[i] = S::sum(sum);
            } else {
                mean = S::sum(sum) / static_cast<float>(op.n_rows);
            }
        }
        op.mean[i] = mean;
    }
}

// y += x, out = x y, y = x² or y += x² on n features of a panel.
template <class S>
METAEDIT_INLINE void add(const float* x, float* y, std::int64_t n) {
    for (std::int64_t i = 0; i < n * kPanelRows; i += S::kLanes)
        S::store(y + i, S::add(S::load(y + i), S::load(x + i)));
}

template <class S>
METAEDIT_INLINE void multiply(const float* x, const float* y, float* out, std::int64_t n) {
    for (std::int64_t i = 0; i < n * kPanelRows; i += S::kLanes)
        S::store(out + i, S::mul(S::load(x + i), S::load(y + i)));
}

template <class S>
METAEDIT_INLINE void square(const float* x, float* y, std::int64_t n, bool to_sum) {
    for (std::int64_t i = 0; i < n * kPanelRows; i += S::kLanes) {
        const typename S::V value = S::load(x + i);
        S::store(y + i, to_sum ? S::fma(value, value, S::load(y + i)) : S::mul(value, value));
    }
}

}  // namespace metaedit::mlp
