// Compiled with the flags of fused/avx2.cpp; nothing in here runs before cpu/isa.cpp has found that instruction set.

#include "cpu/mlp/lanes_avx2.hpp"

#define METAEDIT_LEVEL avx2
#define METAEDIT_SECTION "metaedit_avx2"
#include "cpu/edit/entry_points.hpp"
