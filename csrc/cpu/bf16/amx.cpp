// Products of bf16 numbers on AMX's tiles. Compiled with AVX512_BF16 and what avx512 has; the tiles are
// assembly. Nothing in here runs before cpu/isa.cpp has found them all.

#include "cpu/bf16/dense.hpp"
#include "cpu/bf16/edges.hpp"
#include "cpu/bf16/official.hpp"
#include "cpu/bf16/unit_amx.hpp"
#ifdef METAEDIT_EMULATE_AMX
#include "cpu/bf16/tiles_emulated.hpp"
#else
#include "cpu/bf16/tiles_amx.hpp"
#endif

namespace metaedit::amx {
using Simd = bf16::AmxUnit<bf16::RoughSimd, bf16::Tiles, false>;
}

#define METAEDIT_LEVEL amx
#define METAEDIT_KERNELS bf16
#define METAEDIT_SECTION "metaedit_amx"
#include "cpu/fused/entry_points.hpp"
