// What stands around the kernels: the check of a graph, the sharing out of work, the choice of a level.

#include <atomic>
#include <limits>
#include <stdexcept>

#include "cases.hpp"
#include "check.hpp"
#include "core/parallel.hpp"

namespace metaedit::test {
namespace {

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

// A good graph of two dense blocks and an identity block, with one field of one block replaced.
void check_with(std::size_t block, std::int64_t Block::* field, std::int64_t value) {
    Blocks blocks({{3, 4, 4}, {{1, 2}}});
    if (field != nullptr) blocks.table[block].*field = value;
    check(blocks.graph());
}

}  // namespace

TEST(a_graph_is_checked) {
    check_with(0, nullptr, 0);
    EXPECT_THROWS(check_with(0, &Block::n_src, 0), std::invalid_argument, "blocks[0]: n_src");
    EXPECT_THROWS(check_with(1, &Block::n_dst, -1), std::invalid_argument, "blocks[1]: n_dst");
    EXPECT_THROWS(check_with(2, &Block::n_dst, 3), std::invalid_argument, "identity block");
    EXPECT_THROWS(check_with(1, &Block::src_offset, -1), std::invalid_argument, "src_offset");
    EXPECT_THROWS(check_with(1, &Block::src_offset, kHuge), std::invalid_argument, "src_offset");
    EXPECT_THROWS(check_with(1, &Block::dst_offset, 8), std::invalid_argument, "dst_offset");
    EXPECT_THROWS(check_with(2, &Block::edge_offset, 0), std::invalid_argument, "edge_offset");
    EXPECT_THROWS(check_with(0, &Block::n_src, kHuge), std::invalid_argument, "src_offset");
    Blocks unknown({{3, 4}, {}});
    unknown.table[0].kind = static_cast<BlockKind>(7);
    EXPECT_THROWS(check(unknown.graph()), std::invalid_argument, "kind");
    const Blocks blocks({{3, 4}, {}});
    EXPECT_THROWS(check({blocks.table, 7, 13}), std::invalid_argument, "expected 13 edges in all, got 12");
    EXPECT_THROWS(check({blocks.table, 7, 11}), std::invalid_argument, "at most the 11 edges that are left");
}

TEST(edges_are_counted_without_overflow) {
    Blocks blocks({{3, 4, 4}, {{1, 2}}});
    EXPECT(count_edges(blocks.table) == 12 + 16 + 4, "three blocks");
    EXPECT(count_edges({}) == 0, "none");
    blocks.table[0].n_src = blocks.table[0].n_dst = kHuge;
    EXPECT(count_edges(blocks.table) == kHuge, "too many");
}

TEST(every_item_is_worked_on_once) {
    for (const int n_workers : {1, 2, 7}) {
        for (const std::size_t n_items : {std::size_t{0}, std::size_t{1}, std::size_t{100}}) {
            std::vector<std::atomic<int>> times(n_items);
            for_each_item(n_items, n_workers, [&](std::size_t item, int worker) {
                EXPECT(worker >= 0 && worker < n_workers, "worker " + std::to_string(worker));
                ++times[item];
            });
            for (const std::atomic<int>& n : times) EXPECT(n == 1, std::to_string(n_workers) + " workers");
        }
    }
}

TEST(an_exception_of_a_worker_comes_out) {
    for (const int n_workers : {1, 3}) {
        const auto work = [](std::size_t item, int) {
            if (item == 3) throw std::runtime_error("item 3");
        };
        EXPECT_THROWS(for_each_item(50, n_workers, work), std::runtime_error, "item 3");
    }
}

TEST(a_team_ends_each_phase_before_the_next) {
    for (const int n_workers : {1, 2, 5}) {
        Team team(n_workers);
        std::vector<int> values(40);
        for (int phase = 1; phase <= 50; ++phase) {
            team.run(values.size(), [&](std::size_t item) { values[values.size() - 1 - item] += phase; });
            for (const int value : values) EXPECT(value == phase * (phase + 1) / 2, std::to_string(n_workers));
        }
        team.run(0, [](std::size_t) {});
    }
}

TEST(levels_have_names) {
    EXPECT(available_levels().front().isa == Isa::serial, "the plain one is everywhere");
    for (const Level& level : available_levels()) {
        EXPECT(available_level(level.name, "test").name == level.name, level.name);
        EXPECT(available_isa(level.name, "test") == level.isa, level.name);
    }
    EXPECT_THROWS(available_level("sse9", "test"), std::invalid_argument, "test: expected an instruction set");
    EXPECT_THROWS(precision_named("half"), std::invalid_argument, "got 'half'");
    EXPECT(precision_named("bf16") == Precision::bf16, "by its name");
}

}  // namespace metaedit::test
