// Compiled with the flags of fused/avx512.cpp; nothing in here runs before cpu/isa.cpp has found that instruction set.

#include "cpu/mlp/lanes_avx512.hpp"

#define METAEDIT_LEVEL avx512
#define METAEDIT_SECTION "metaedit_avx512"
#include "cpu/edit/entry_points.hpp"
