// Instruction sets: which kernels this machine can run, and which of them run.
#pragma once

#include <span>
#include <string_view>

namespace metaedit {

// Which float32 kernels: avx2 includes FMA; avx512 is F, BW, DQ and VL.
enum class Isa { serial, avx2, avx512 };

// Which instructions multiply bf16 numbers: vdpbf16ps of AVX512_BF16, the tiles of AMX-BF16.
enum class Bf16 { none, avx512, amx };

// What METAEDIT_ISA and isa= name. avx512_bf16 and amx run the float32 kernels of avx512 for all that is float32.
struct Level {
    std::string_view name;
    Isa isa;
    Bf16 bf16;
};

// What this build contains and both the processor and the operating system support, in the order of preference,
// last best; never empty. The first call asks the operating system for the tiles of AMX, which Linux gives to a
// process that asks.
std::span<const Level> available_levels();

// The available level of that name. Throws std::invalid_argument, naming `origin`, for any other name.
const Level& available_level(std::string_view name, std::string_view origin);

// The level that runs: the one METAEDIT_ISA names, else the best one. Read at the first call that succeeds.
// Throws std::invalid_argument where the variable names an unknown level, or one that this machine lacks: a
// silent fallback would make a measurement or a test of that level worthless.
const Level& active_level();

// The same, for code that has float32 kernels alone.
Isa available_isa(std::string_view name, std::string_view origin);
Isa active_isa();

}  // namespace metaedit
