// What the gradient kernels need of AVX2 beyond mlp/lanes_avx2.hpp; the other vectors_*.hpp have the same names.
#pragma once

#include "cpu/gradient/exp2.hpp"
#include "cpu/mlp/lanes_avx2.hpp"

namespace metaedit::avx2 {

struct Vectors : Lanes {
    METAEDIT_INLINE static V exp2(V x) { return gradient::exp2_of<Lanes>(x); }
};

}  // namespace metaedit::avx2
