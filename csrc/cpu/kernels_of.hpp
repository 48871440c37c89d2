// Kernels that every level has, the baseline too: the choice of the table of one of them.
#pragma once

#include "cpu/isa.hpp"

#ifdef METAEDIT_X86_KERNELS
#define METAEDIT_X86_TABLES(Kernels, table) \
    namespace avx2 {                        \
    extern const Kernels table;             \
    }                                       \
    namespace avx512 {                      \
    extern const Kernels table;             \
    }
#define METAEDIT_CHOOSE_X86(isa, table)         \
    if ((isa) == Isa::avx2) return avx2::table; \
    if ((isa) == Isa::avx512) return avx512::table;
#else
#define METAEDIT_X86_TABLES(Kernels, table)
#define METAEDIT_CHOOSE_X86(isa, table)
#endif

// Defines part::kernels_of(isa), declared as `const Kernels& kernels_of(Isa isa)`, for the tables of that name which
// the object files of the levels define (entry_points.hpp of the part). Use it in the namespace metaedit.
#define METAEDIT_KERNELS_OF(part, table)                              \
    METAEDIT_X86_TABLES(part::Kernels, table)                         \
    namespace serial {                                                \
    extern const part::Kernels table;                                 \
    }                                                                 \
    const part::Kernels& part::kernels_of([[maybe_unused]] Isa isa) { \
        METAEDIT_CHOOSE_X86(isa, table)                               \
        return serial::table;                                         \
    }
