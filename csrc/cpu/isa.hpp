// Instruction sets: which kernels this machine can run, and which of them runs.
#pragma once

#include <span>
#include <string_view>

namespace metaedit {

// In the order of preference, last best. avx2 includes FMA; avx512 is F, BW, DQ and VL.
enum class Isa { serial, avx2, avx512 };

std::string_view name_of(Isa isa);

// What this build contains and both the processor and the operating system support; never empty.
std::span<const Isa> available_isas();

// The available level of that name. Throws std::invalid_argument, naming `origin`, for any other name.
Isa available_isa(std::string_view name, std::string_view origin);

// The level that runs: the one METAEDIT_ISA names, else the best one. Read at the first call that succeeds.
// Throws std::invalid_argument where the variable names an unknown level, or one that this machine lacks: a
// silent fallback would make a measurement or a test of that level worthless.
Isa active_isa();

}  // namespace metaedit
