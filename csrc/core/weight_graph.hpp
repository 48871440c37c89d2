// The weight graph of many MLPs: a node per neuron, an edge per weight, and no edge index.
//
// Nodes are numbered model by model, neuron layer by neuron layer. Edges come in blocks. A dense block is a
// weight matrix, source-major: its edge from source u to target v is number edge_offset + u * n_dst + v. An
// identity block is a skip connection: its edge k joins source k to target k, and n_src == n_dst.
// Values per edge are row-major [E][d] in that numbering, values per node row-major [V][d].
//
// Built by metaedit_fast/graph.py (WeightGraphBatch), whose int64 table [B, 6] has the layout of Block[B].
#pragma once

#include <cstdint>
#include <span>

namespace metaedit {

enum class BlockKind : std::int64_t { dense = 0, identity = 1 };

struct Block {
    std::int64_t src_offset;  // number of the first source node
    std::int64_t n_src;
    std::int64_t dst_offset;  // number of the first target node
    std::int64_t n_dst;
    std::int64_t edge_offset;  // number of the first edge
    BlockKind kind;

    std::int64_t n_edges() const { return kind == BlockKind::dense ? n_src * n_dst : n_src; }
};
static_assert(sizeof(Block) == 6 * sizeof(std::int64_t), "a Block is one row of the int64 table [B, 6]");

struct WeightGraph {
    std::span<const Block> blocks;
    std::int64_t n_nodes;
    std::int64_t n_edges;
};

// The edges of all blocks, which need not have passed check(): at most the largest number there is.
std::int64_t count_edges(std::span<const Block> blocks);

// Throws std::invalid_argument, naming the block and the field, unless every kind is known, every node number
// is below n_nodes, and the blocks' edges lie one block after the other and are n_edges in all. Kernels trust
// a graph that passed: they index without looking.
void check(const WeightGraph& graph);

// Numbers of edges of every node, [n_nodes][2]: in, out.
void count_degrees(const WeightGraph& graph, float* degree);

}  // namespace metaedit
