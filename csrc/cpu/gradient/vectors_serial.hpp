// The names of vectors_avx512.hpp for every machine.
#pragma once

#include "cpu/gradient/exp2.hpp"
#include "cpu/mlp/lanes_serial.hpp"

namespace metaedit::serial {

struct Vectors : Lanes {
    // Eight sums, four vectors of a matrix and a broadcast operand, of sixteen registers.
    static constexpr int kTileVectors = 4;
    static constexpr int rows_of_tile(int vectors) { return 8 / vectors; }
    static constexpr int rows_of_dense_tile(int vectors) { return rows_of_tile(vectors); }

    METAEDIT_INLINE static V exp2(V x) { return gradient::exp2_of<Lanes>(x); }
};

}  // namespace metaedit::serial
