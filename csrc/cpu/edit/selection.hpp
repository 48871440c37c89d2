// Exact top-k in linear time: which weights a budget keeps, and a list of these. Equivalent to top_k_mask of
// metaedit_fast/requirements/masks.py.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/metanetwork.hpp"

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

// The weights of one model at a time whose edit is wanted, with the nodes at their ends.
class ListedWeights {
  public:
    // Starts a list of at most that many.
    void start(std::int64_t capacity);

    // The next weight, if it is `wanted`.
    void add(bool wanted, std::int64_t weight, std::int64_t source, std::int64_t target) {
        edges_[size_] = weight;
        sources_[size_] = source;
        targets_[size_] = target;
        size_ += wanted ? 1 : 0;
    }

    // How many there are; list() has some behind them that fill up its last tile.
    std::int64_t size() const { return static_cast<std::int64_t>(size_); }
    EdgeList list();

  private:
    std::vector<std::int64_t> edges_, sources_, targets_;
    std::size_t size_ = 0;
};

}  // namespace metaedit::edit
