// Threads of a call's own. A pool that outlives its call would be dead in a forked child (and a Python user forks:
// multiprocessing, gunicorn); starting a thread costs some ten microseconds, a model some hundred.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace metaedit {

// Runs work(item, worker) for every item in [0, n_items), each once, in the order in which workers become free.
// Workers are numbered from 0, the caller's thread, and are at most n_workers. The first exception that work threw
// comes out when all have ended; the items left are then skipped. Where the system refuses a thread, the others
// do its share.
void for_each_item(std::size_t n_items, int n_workers, const std::function<void(std::size_t, int)>& work);

// Threads that go through the phases of one job together, for jobs of phases that are short beside the start of a
// thread. As above, the caller's thread is one of them, and fewer do where the system refuses one.
class Team {
  public:
    explicit Team(int n_workers);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    // Runs work(item) for every item of [0, n_items), each once, and returns when all have ended: at most 2^32 - 1.
    // `work` must not throw.
    void run(std::size_t n_items, const std::function<void(std::size_t)>& work);

  private:
    void follow();
    bool take_item();

    // The phase and how many of its items nobody has begun, in one number: who comes late for a phase takes nothing
    // from it, and nobody waits for a thread that has not begun.
    static constexpr int kLeftBits = 32;
    std::atomic<std::uint64_t> left_{0};
    std::atomic<const std::function<void(std::size_t)>*> work_{nullptr};
    std::atomic<std::uint32_t> unfinished_{0};
    std::atomic<std::uint32_t> phase_{0};  // to wait for
    std::atomic<bool> ended_{false};
    std::vector<std::thread> threads_;
};

}  // namespace metaedit
