// Threads of a call's own. A pool that outlives its call would be dead in a forked child (and a Python user forks:
// multiprocessing, gunicorn); starting a thread costs some ten microseconds, a model some hundred.
#pragma once

#include <cstddef>
#include <functional>

namespace metaedit {

// Runs work(item, worker) for every item in [0, n_items), each once, in the order in which workers become free.
// Workers are numbered from 0, the caller's thread, and are at most n_workers. The first exception that work threw
// comes out when all have ended; the items left are then skipped. Where the system refuses a thread, the others
// do its share.
void for_each_item(std::size_t n_items, int n_workers, const std::function<void(std::size_t, int)>& work);

}  // namespace metaedit
