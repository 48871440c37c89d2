// Runs every test, or those whose name contains the argument. Exit code 0 if at least one ran and none failed.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>

#include "check.hpp"

namespace metaedit::test {

namespace {
std::atomic<int> failures{0};  // threads of a test may fail at the same time
}

std::vector<Test>& all_tests() {
    static std::vector<Test> tests;
    return tests;
}

void fail(const char* file, int line, const std::string& what) {
    ++failures;
    std::printf("%s:%d: %s\n", file, line, what.c_str());
}

}  // namespace metaedit::test

int main(int argc, char** argv) {
    using namespace metaedit::test;
    const std::string_view wanted = argc > 1 ? argv[1] : "";
    int n_run = 0, n_failed = 0;
    for (const Test& test : all_tests()) {
        if (test.name.find(wanted) == std::string_view::npos) continue;
        const int before = failures;
        const auto start = std::chrono::steady_clock::now();
        try {
            test.run();
        } catch (const std::exception& error) {
            fail(__FILE__, __LINE__, std::string("unexpected exception: ") + error.what());
        }
        const bool passed = failures == before;
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        std::printf("%s %s (%.1f s)\n", passed ? "passed" : "FAILED", std::string(test.name).c_str(), took.count());
        std::fflush(stdout);
        ++n_run;
        n_failed += passed ? 0 : 1;
    }
    std::printf("%d tests, %d failed\n", n_run, n_failed);
    return n_run > 0 && n_failed == 0 ? 0 : 1;
}
