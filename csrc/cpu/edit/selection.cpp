#include "cpu/edit/selection.hpp"

#include <array>
#include <bit>

namespace metaedit::edit {
namespace {

constexpr std::uint32_t kSign = 0x80000000U, kInfinity = 0x7F800000U;

// Unsigned numbers in the order of the floats. Adding 0 makes the two zeros one.
std::uint32_t key_of(float score) {
    const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);
    return bits ^ ((bits & kSign) != 0 ? ~0U : kSign);
}

// The digits of a key, highest first.
struct Digit {
    std::uint32_t shift, bits;
};
constexpr Digit kDigits[] = {{21, 11}, {10, 11}, {0, 10}};

}  // namespace

bool Selection::select(const float* weight, const float* score, std::int64_t n, std::int64_t kept) {
    constexpr std::uint32_t kLast = ~(kSign | kInfinity);  // the key of minus infinity
    keys_.resize(static_cast<std::size_t>(n));
    std::uint32_t nan = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        nan |= (std::bit_cast<std::uint32_t>(score[i]) & ~kSign) > kInfinity ? 1U : 0U;
        keys_[static_cast<std::size_t>(i)] = weight[i] == 0.0F ? kLast : key_of(score[i]);
    }
    if (nan != 0) return false;
    if (kept == 0) {
        threshold_ = ~0U;  // the key of a NaN
        tie_end_ = 0;
        return true;
    }
    std::int64_t ties = find_threshold(kept);
    for (tie_end_ = 0; ties > 0; ++tie_end_) ties -= keys_[static_cast<std::size_t>(tie_end_)] == threshold_ ? 1 : 0;
    return true;
}

// The kept-th highest key, digit by digit, among the keys that agree with it in all digits before. Returns how many
// of the keys equal to it are kept.
std::int64_t Selection::find_threshold(std::int64_t kept) {
    threshold_ = 0;
    std::span<const std::uint32_t> keys = keys_;
    candidates_.resize(keys_.size());
    for (const auto& [shift, bits] : kDigits) {
        const std::uint32_t mask = (1U << bits) - 1;
        std::array<std::int64_t, 2048> counts{};
        for (const std::uint32_t key : keys) ++counts[(key >> shift) & mask];
        std::uint32_t digit = mask;
        for (; counts[digit] < kept; --digit) kept -= counts[digit];
        threshold_ |= digit << shift;
        std::size_t n = 0;
        for (const std::uint32_t key : keys) {  // in place from the second digit on: written behind what is read
            candidates_[n] = key;
            n += ((key >> shift) & mask) == digit ? 1U : 0U;
        }
        keys = std::span<const std::uint32_t>(candidates_).first(n);
    }
    return kept;
}

void ListedWeights::start(std::int64_t capacity) {
    const auto room = static_cast<std::size_t>(capacity + EdgeList::kTile);
    for (std::vector<std::int64_t>* values : {&edges_, &sources_, &targets_}) {
        if (values->size() < room) values->resize(room);
    }
    size_ = 0;
}

EdgeList ListedWeights::list() {
    std::size_t end = size_;
    for (; end % EdgeList::kTile != 0; ++end) {  // the last one once more
        for (std::vector<std::int64_t>* values : {&edges_, &sources_, &targets_}) (*values)[end] = (*values)[end - 1];
    }
    return {edges_.data(), sources_.data(), targets_.data(), static_cast<std::int64_t>(end)};
}

}  // namespace metaedit::edit
