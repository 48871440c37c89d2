#include "core/peaks.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/aligned.hpp"
#include "core/parallel.hpp"
#include "cpu/kernels_of.hpp"
#include "cpu/peaks/loops.hpp"

namespace metaedit {

METAEDIT_X86_TABLES(peaks::Loops, peak_loops)
#ifdef METAEDIT_X86_KERNELS
namespace avx512_bf16 {
extern const peaks::Loops peak_loops;
}
#endif

namespace {

using peaks::Loop;
using peaks::Loops;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kNames[] = {"multiply_add", "addition", "silu", "bf16_product", "bf16_silu", "copy"};

// No stretch is so long that it would often be interrupted, nor so short that the clock would count.
constexpr double kStretch = 1e-4;
constexpr std::int64_t kCopied = std::int64_t{8} << 20;  // floats: 32 MB read and 32 MB written, more than a cache

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// Calls stretch() until the seconds are over, twice at least; it gives seconds per value. The first does not count.
template <class F>
double median_until(double seconds, const F& stretch) {
    const Clock::time_point start = Clock::now();
    stretch();
    std::vector<double> found;
    do found.push_back(stretch());
    while (seconds_since(start) < seconds);
    return median(found);
}

// The loop's input: small numbers, so that nothing grows without limit and none is subnormal.
AlignedFloats loop_buffer() {
    AlignedFloats buffer(peaks::kBuffer);
    for (std::int64_t i = 0; i < peaks::kBuffer; ++i) buffer[i] = 0.25F + static_cast<float>(i) / 4096.0F;
    return buffer;
}

double seconds_of(Loop loop, std::int64_t rounds, const AlignedFloats& start, AlignedFloats& buffer,
                  std::int64_t& values) {
    std::copy_n(start.data(), peaks::kBuffer, buffer.data());
    const Clock::time_point begin = Clock::now();
    values = loop(rounds, buffer.data());
    return seconds_since(begin);
}

// Rounds that take about kStretch.
std::int64_t rounds_of(Loop loop, const AlignedFloats& start, AlignedFloats& buffer) {
    std::int64_t rounds = 1, values = 0;
    while (seconds_of(loop, rounds, start, buffer, values) < kStretch) rounds *= 2;
    return rounds;
}

double time_loop(Loop loop, double seconds) {
    const AlignedFloats start = loop_buffer();
    AlignedFloats buffer = loop_buffer();
    const std::int64_t rounds = rounds_of(loop, start, buffer);
    return median_until(seconds, [&] {
        std::int64_t values = 0;
        const double took = seconds_of(loop, rounds, start, buffer, values);
        return took / static_cast<double>(values);
    });
}

// Of one addition, by what a stretch of multiply-adds takes longer with them.
double time_additions(const Loops& loops, double seconds) {
    const AlignedFloats start = loop_buffer();
    AlignedFloats buffer = loop_buffer();
    const std::int64_t rounds = rounds_of(loops.multiply_add, start, buffer);
    return std::max(0.0, median_until(seconds, [&] {
                        std::int64_t plain = 0, added = 0;
                        const double without = seconds_of(loops.multiply_add, rounds, start, buffer, plain);
                        const double with = seconds_of(loops.with_additions, rounds, start, buffer, added);
                        return (with - without) / static_cast<double>(added);
                    }));
}

double time_copy(double seconds) {
    AlignedFloats from(kCopied), to(kCopied);
    return median_until(seconds, [&] {
        from[0] += 1.0F;
        const Clock::time_point begin = Clock::now();
        std::memcpy(to.data(), from.data(), static_cast<std::size_t>(kCopied) * sizeof(float));
        return seconds_since(begin) / static_cast<double>(kCopied) / static_cast<double>(sizeof(float));
    });
}

const Loops* loops_of([[maybe_unused]] const Level& level, [[maybe_unused]] bool bf16) {
#ifdef METAEDIT_X86_KERNELS
    if (bf16) return level.bf16 == Bf16::avx512 ? &avx512_bf16::peak_loops : nullptr;
    if (level.isa == Isa::avx2) return &avx2::peak_loops;
    if (level.isa == Isa::avx512) return &avx512::peak_loops;
#endif
    return nullptr;
}

double time_on_this_thread(Peak peak, const Loops* loops, double seconds) {
    if (peak == Peak::copy) return time_copy(seconds);
    if (loops == nullptr) return 0.0;
    if (peak == Peak::addition) return time_additions(*loops, seconds);
    if (peak == Peak::multiply_add) return time_loop(loops->multiply_add, seconds);
    if (peak == Peak::bf16_product) return time_loop(loops->bf16_product, seconds);
    return time_loop(loops->silu, seconds);
}

}  // namespace

Peak peak_named(std::string_view name) {
    std::string names;
    for (std::size_t i = 0; i < std::size(kNames); ++i) {
        if (kNames[i] == name) return static_cast<Peak>(i);
        names += (i == 0 ? "" : ", ") + std::string(kNames[i]);
    }
    throw std::invalid_argument("peak: expected one of " + names + ", got '" + std::string(name) + "'");
}

double seconds_per_value(Peak peak, const Level& level, int n_threads, double seconds) {
    const Loops* loops = loops_of(level, peak == Peak::bf16_product || peak == Peak::bf16_silu);
    std::vector<double> found(static_cast<std::size_t>(n_threads));
    for_each_item(found.size(), n_threads,
                  [&](std::size_t item, int) { found[item] = time_on_this_thread(peak, loops, seconds); });
    double sum = 0.0;
    for (const double of_thread : found) sum += of_thread;
    return sum / static_cast<double>(n_threads);
}

}  // namespace metaedit
