#include "cpu/bf16/tiles_emulated.hpp"

#include <bit>
#include <cstdio>
#include <cstdlib>

namespace metaedit::bf16 {
namespace {

constexpr int kTiles = 8, kMax = 16;

struct Tile {
    int rows = 0, columns = 0;  // dwords; 0: not configured
    std::uint32_t values[kMax][kMax] = {};
};

// A thread has tiles of its own, as it has registers.
thread_local Tile tiles[kTiles];

Tile& configured(int tile) {
    if (tiles[tile].rows == 0) {
        std::fprintf(stderr, "emulated AMX: tile %d is used before it is configured\n", tile);
        std::abort();
    }
    return tiles[tile];
}

float low_half(std::uint32_t pair) {
    return std::bit_cast<float>(pair << 16U);
}

float high_half(std::uint32_t pair) {
    return std::bit_cast<float>(pair & 0xFFFF0000U);
}

}  // namespace

void emulated_configure(std::int64_t pairs) {
    for (int i = 0; i < kTiles; ++i) {
        tiles[i] = {};
        tiles[i].rows = i < 6 ? kMax : static_cast<int>(pairs);
        tiles[i].columns = i == 4 || i == 5 ? static_cast<int>(pairs) : kMax;
    }
}

void emulated_release() {
    for (Tile& tile : tiles) tile = {};
}

void emulated_zero(int tile) {
    Tile& zeroed = configured(tile);
    for (auto& row : zeroed.values) {
        for (std::uint32_t& value : row) value = 0;
    }
}

void emulated_load(int tile, const std::uint32_t* from, std::int64_t stride) {
    Tile& to = configured(tile);
    for (int r = 0; r < to.rows; ++r) {
        for (int c = 0; c < to.columns; ++c) to.values[r][c] = from[r * stride + c];
    }
}

void emulated_store(int tile, float* to, std::int64_t stride) {
    const Tile& from = configured(tile);
    for (int r = 0; r < from.rows; ++r) {
        for (int c = 0; c < from.columns; ++c) to[r * stride + c] = std::bit_cast<float>(from.values[r][c]);
    }
}

void emulated_dot(int sum, int x, int w) {
    Tile& to = configured(sum);
    const Tile &left = configured(x), &right = configured(w);
    if (left.columns != right.rows || left.rows != to.rows || right.columns != to.columns) {
        std::fprintf(stderr, "emulated AMX: the shapes of tiles %d, %d and %d do not fit\n", sum, x, w);
        std::abort();
    }
    for (int r = 0; r < to.rows; ++r) {
        for (int c = 0; c < to.columns; ++c) {
            float even = std::bit_cast<float>(to.values[r][c]), odd = 0.0F;
            for (int k = 0; k < left.columns; ++k) {
                even += low_half(left.values[r][k]) * low_half(right.values[k][c]);
                odd += high_half(left.values[r][k]) * high_half(right.values[k][c]);
            }
            to.values[r][c] = std::bit_cast<std::uint32_t>(even + odd);
        }
    }
}

}  // namespace metaedit::bf16
