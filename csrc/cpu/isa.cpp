#include "cpu/isa.hpp"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef METAEDIT_X86_KERNELS
#include <cpuid.h>
#endif

namespace metaedit {
namespace {

constexpr std::string_view kNames[] = {"serial", "avx2", "avx512"};

#ifdef METAEDIT_X86_KERNELS

bool has_bits(std::uint64_t value, std::uint64_t bits) {
    return (value & bits) == bits;
}

// Which register states the operating system saves (XCR0). Written in assembly because the intrinsic needs
// a compiler flag that this file, which runs on every machine, must not have.
std::uint64_t saved_states() {
    std::uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<std::uint64_t>(high) << 32U) | low;
}

std::vector<Isa> detect() {
    constexpr std::uint64_t kFma = 1U << 12U, kOsXsave = 1U << 27U, kAvx = 1U << 28U;         // leaf 1, ecx
    constexpr std::uint64_t kAvx2 = 1U << 5U;                                                 // leaf 7, ebx
    constexpr std::uint64_t kAvx512 = (1U << 16U) | (1U << 17U) | (1U << 30U) | (1U << 31U);  // F, DQ, BW, VL
    constexpr std::uint64_t kYmm = 0x06, kZmm = 0xE6;                                         // XCR0

    std::vector<Isa> found{Isa::serial};
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !has_bits(c, kFma | kOsXsave | kAvx)) return found;
    const std::uint64_t saved = saved_states();
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return found;
    if (has_bits(b, kAvx2) && has_bits(saved, kYmm)) found.push_back(Isa::avx2);
    if (has_bits(b, kAvx2 | kAvx512) && has_bits(saved, kZmm)) found.push_back(Isa::avx512);
    return found;
}

#else

std::vector<Isa> detect() {
    return {Isa::serial};
}

#endif

}  // namespace

std::string_view name_of(Isa isa) {
    return kNames[static_cast<std::size_t>(isa)];
}

std::span<const Isa> available_isas() {
    static const std::vector<Isa> found = detect();
    return found;
}

Isa available_isa(std::string_view name, std::string_view origin) {
    std::string names;
    for (const Isa isa : available_isas()) {
        if (name_of(isa) == name) return isa;
        names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
    }
    throw std::invalid_argument(std::string(origin) +
                                ": expected an instruction set that this machine and build have (" + names +
                                "), got '" + std::string(name) + "'");
}

Isa active_isa() {
    // A throwing initialiser runs again at the next call.
    static const Isa active = [] {
        const char* forced = std::getenv("METAEDIT_ISA");
        if (forced != nullptr && *forced != '\0') return available_isa(forced, "METAEDIT_ISA");
        return available_isas().back();
    }();
    return active;
}

}  // namespace metaedit
