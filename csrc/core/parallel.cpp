#include "core/parallel.hpp"

#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace metaedit {

void for_each_item(std::size_t n_items, int n_workers, const std::function<void(std::size_t, int)>& work) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_lock;
    const auto run = [&](int worker) {
        try {
            for (std::size_t item; (item = next.fetch_add(1)) < n_items;) work(item, worker);
        } catch (...) {
            next = n_items;
            const std::lock_guard<std::mutex> guard(failure_lock);
            if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    threads.reserve(static_cast<std::size_t>(n_workers - 1));
    try {
        for (int worker = 1; worker < n_workers; ++worker) threads.emplace_back(run, worker);
    } catch (const std::system_error&) {  // no more threads: those there are go on
    }
    run(0);
    for (std::thread& thread : threads) thread.join();
    if (failure) std::rethrow_exception(failure);
}

namespace {

// Looks at a changing value for some ten microseconds, the length of a phase, before the thread goes to sleep: to be
// woken takes as long.
template <class Value>
void wait_while(const std::atomic<Value>& value, Value old) {
    constexpr int kLooks = 20'000;
    for (int look = 0; look < kLooks; ++look) {
        if (value.load(std::memory_order_acquire) != old) return;
    }
    value.wait(old, std::memory_order_acquire);
}

}  // namespace

Team::Team(int n_workers) {
    threads_.reserve(static_cast<std::size_t>(n_workers - 1));
    try {
        for (int worker = 1; worker < n_workers; ++worker) threads_.emplace_back([this] { follow(); });
    } catch (const std::system_error&) {  // no more threads: those there are go on
    }
}

Team::~Team() {
    ended_.store(true, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Team::run(std::size_t n_items, const std::function<void(std::size_t)>& work) {
    const std::uint64_t phase = (left_.load(std::memory_order_relaxed) >> kLeftBits) + 1;
    work_.store(&work, std::memory_order_relaxed);
    unfinished_.store(static_cast<std::uint32_t>(n_items), std::memory_order_relaxed);
    left_.store(phase << kLeftBits | n_items, std::memory_order_release);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
    while (take_item()) continue;
    for (std::uint32_t some; (some = unfinished_.load(std::memory_order_acquire)) != 0;) wait_while(unfinished_, some);
}

void Team::follow() {
    std::uint32_t seen = 0;
    while (true) {
        wait_while(phase_, seen);
        seen = phase_.load(std::memory_order_acquire);
        if (ended_.load(std::memory_order_relaxed)) return;
        while (take_item()) continue;
    }
}

// The exchange fails where another thread took the item or the phase is over. So where it succeeds, the phase waits
// for this item, and what was read of it before is still true.
bool Team::take_item() {
    std::uint64_t left = left_.load(std::memory_order_acquire);
    while (static_cast<std::uint32_t>(left) > 0) {
        const auto* work = work_.load(std::memory_order_relaxed);
        if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire))
            continue;
        (*work)(static_cast<std::uint32_t>(left) - 1);
        if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
        return true;
    }
    return false;
}

}  // namespace metaedit
