// Compiled with AVX-512 F, BW, DQ and VL; nothing in here runs before cpu/isa.cpp has found them.

#include "cpu/fused/simd_avx512.hpp"

#define METAEDIT_LEVEL avx512
#define METAEDIT_SECTION "metaedit_avx512"
#include "cpu/peaks/entry_points.hpp"
