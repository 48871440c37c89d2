// What every file of the vectorised kernels shares before a kernel is written: inlining, unrolling, 2^x.
//
// All code in the kernel headers is METAEDIT_INLINE, so it exists only inside the entry points of one
// instruction set's object file. An ordinary inline function would be emitted by several object files under one
// name, and the linker could keep the AVX-512 copy for everybody: an illegal instruction on older machines. For
// the same reason these headers use nothing of the standard library but types.
#pragma once

#ifdef _MSC_VER
#define METAEDIT_INLINE __forceinline
#else
#define METAEDIT_INLINE inline __attribute__((always_inline))
#endif

// The same for a lambda, behind its parameters.
#ifdef _MSC_VER
#define METAEDIT_INLINE_LAMBDA [[msvc::forceinline]]
#else
#define METAEDIT_INLINE_LAMBDA __attribute__((always_inline))
#endif

// In front of loops over the registers of a tile, whose bounds are small constants.
#ifdef _MSC_VER
#define METAEDIT_UNROLL
#elif defined(__clang__)
#define METAEDIT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define METAEDIT_UNROLL _Pragma("GCC unroll 32")
#endif

namespace metaedit {

// 2^x on [0, 1), highest power first: relative error below 8e-8 (1.5e-7 with rounding), by the Remez algorithm.
inline constexpr int kExp2Terms = 6;
inline constexpr float kExp2[kExp2Terms] = {0.00187778415F, 0.00898912735F, 0.0558261722F,
                                            0.240153819F,   0.693153024F,   0.99999994F};

}  // namespace metaedit
