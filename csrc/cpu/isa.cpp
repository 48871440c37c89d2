#include "cpu/isa.hpp"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef METAEDIT_X86_KERNELS
#include <cpuid.h>
#endif
#if defined(METAEDIT_X86_KERNELS) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace metaedit {
namespace {

constexpr Level kSerial{"serial", Isa::serial, Bf16::none};

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

// AMX-BF16 and AMX-TILE of leaf 7's edx, the states in XCR0, and Linux's word: it gives the registers of tiles to a
// process that asks, all its threads included.
bool has_tiles([[maybe_unused]] unsigned features, [[maybe_unused]] std::uint64_t saved) {
#if defined(METAEDIT_EMULATE_AMX)
    return true;
#elif defined(__linux__)
    constexpr std::uint64_t kAmx = (1U << 22U) | (1U << 24U), kTileStates = 0x60000;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return has_bits(features, kAmx) && has_bits(saved, kTileStates) &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

std::vector<Level> detect() {
    constexpr std::uint64_t kFma = 1U << 12U, kOsXsave = 1U << 27U, kAvx = 1U << 28U;         // leaf 1, ecx
    constexpr std::uint64_t kAvx2 = 1U << 5U;                                                 // leaf 7, ebx
    constexpr std::uint64_t kAvx512 = (1U << 16U) | (1U << 17U) | (1U << 30U) | (1U << 31U);  // F, DQ, BW, VL
    constexpr std::uint64_t kAvx512Bf16 = 1U << 5U;                                           // leaf 7.1, eax
    constexpr std::uint64_t kYmm = 0x06, kZmm = 0xE6;                                         // XCR0

    std::vector<Level> found{kSerial};
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !has_bits(c, kFma | kOsXsave | kAvx)) return found;
    const std::uint64_t saved = saved_states();
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || !has_bits(b, kAvx2) || !has_bits(saved, kYmm)) return found;
    found.push_back({"avx2", Isa::avx2, Bf16::none});
    if (!has_bits(b, kAvx512) || !has_bits(saved, kZmm)) return found;
    found.push_back({"avx512", Isa::avx512, Bf16::none});
    const unsigned features = d;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || !has_bits(a, kAvx512Bf16)) return found;
    found.push_back({"avx512_bf16", Isa::avx512, Bf16::avx512});
    if (has_tiles(features, saved)) found.push_back({"amx", Isa::avx512, Bf16::amx});
    return found;
}

#else

std::vector<Level> detect() {
    return {kSerial};
}

#endif

}  // namespace

std::span<const Level> available_levels() {
    static const std::vector<Level> found = detect();
    return found;
}

const Level& available_level(std::string_view name, std::string_view origin) {
    std::string names;
    for (const Level& level : available_levels()) {
        if (level.name == name) return level;
        names += (names.empty() ? "" : ", ") + std::string(level.name);
    }
    throw std::invalid_argument(std::string(origin) +
                                ": expected an instruction set that this machine and build have (" + names +
                                "), got '" + std::string(name) + "'");
}

const Level& active_level() {
    // A throwing initialiser runs again at the next call.
    static const Level& active = []() -> const Level& {
        const char* forced = std::getenv("METAEDIT_ISA");
        if (forced != nullptr && *forced != '\0') return available_level(forced, "METAEDIT_ISA");
        return available_levels().back();
    }();
    return active;
}

Isa available_isa(std::string_view name, std::string_view origin) {
    return available_level(name, origin).isa;
}

Isa active_isa() {
    return active_level().isa;
}

}  // namespace metaedit
