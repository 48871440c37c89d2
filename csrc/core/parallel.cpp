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

}  // namespace metaedit
