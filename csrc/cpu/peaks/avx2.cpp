// Compiled with AVX2 and FMA; nothing in here runs before cpu/isa.cpp has found them.

#include "cpu/fused/simd_avx2.hpp"

#define METAEDIT_LEVEL avx2
#define METAEDIT_SECTION "metaedit_avx2"
#include "cpu/peaks/entry_points.hpp"
