// What one call leaves for a later one: memory that is costly to make anew, because the system clears fresh pages.
#pragma once

#include <array>
#include <atomic>
#include <memory>

namespace metaedit {

// Anything that can lie on a shelf.
struct Kept {
    virtual ~Kept() = default;
};

// Has a few places, and no lock, which a forked child could find held for good by a thread that it does not have.
class Shelf {
  public:
    Shelf() = default;
    ~Shelf() {
        while (take() != nullptr) continue;
    }
    Shelf(const Shelf&) = delete;
    Shelf& operator=(const Shelf&) = delete;

    // Null where nothing lies there.
    std::unique_ptr<Kept> take() {
        for (std::atomic<Kept*>& place : places_) {
            if (Kept* found = place.exchange(nullptr, std::memory_order_acq_rel)) return std::unique_ptr<Kept>(found);
        }
        return nullptr;
    }

    // Drops it where all places are taken.
    void put(std::unique_ptr<Kept> kept) {
        for (std::atomic<Kept*>& place : places_) {
            Kept* none = nullptr;
            if (place.compare_exchange_strong(none, kept.get(), std::memory_order_acq_rel)) {
                static_cast<void>(kept.release());  // the shelf has it
                return;
            }
        }
    }

  private:
    std::array<std::atomic<Kept*>, 4> places_{};
};

}  // namespace metaedit
