// Compiled with AVX512_BF16 and what avx512 has; nothing in here runs before cpu/isa.cpp has found it.

#include "cpu/bf16/dense.hpp"
#include "cpu/bf16/edges.hpp"
#include "cpu/bf16/official.hpp"
#include "cpu/bf16/unit_avx512.hpp"

namespace metaedit::avx512_bf16 {
using Simd = bf16::Avx512Unit;
}

#define METAEDIT_LEVEL avx512_bf16
#define METAEDIT_KERNELS bf16
#define METAEDIT_SECTION "metaedit_avx512_bf16"
#include "cpu/fused/entry_points.hpp"
