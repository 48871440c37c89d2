// Exact top-k in linear time: which weights a budget keeps. Equivalent to top_k_mask of
// metaedit_fast/requirements/masks.py.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace metaedit::edit {

// Of the scores of one model at a time, in memory that is reused.
class Selection {
  public:
    // Keeps the `kept` highest scores, 0 <= kept <= n; of equal ones the first. A weight that is 0 ranks last, as
    // if its score were minus infinity. Returns whether no score is NaN; else nothing is selected.
    bool select(const float* weight, const float* score, std::int64_t n, std::int64_t kept);

    // Of the last call.
    bool keeps(std::int64_t i) const {
        const std::uint32_t key = keys_[static_cast<std::size_t>(i)];
        return key > threshold_ || (key == threshold_ && i < tie_end_);
    }

  private:
    std::int64_t find_threshold(std::int64_t kept);

    std::vector<std::uint32_t> keys_, candidates_;
    std::uint32_t threshold_ = 0;
    std::int64_t tie_end_ = 0;  // ties are kept in front of this index
};

}  // namespace metaedit::edit
