// Arrays whose memory is used again: to clear fresh pages for a tape takes the system a fifth of a training step.
#pragma once

#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "python/arrays.hpp"

namespace metaedit::python {

// Hands out arrays and takes their memory back when Python drops them. It keeps as much as one step of training
// needs: a few blocks, for good.
class KeptMemory {
  public:
    // Whatever was in it before is in it still. Touch the arrays of one with the interpreter lock held.
    static py::array_t<float> array(py::ssize_t size) {
        auto block = std::make_unique<Block>(take(static_cast<std::size_t>(size)));
        float* values = block->values.get();
        const py::capsule owner(block.get(), [](void* given) {
            const std::unique_ptr<Block> dropped(static_cast<Block*>(given));
            give_back(std::move(*dropped));
        });
        static_cast<void>(block.release());  // the capsule has it
        return py::array_t<float>(size, values, owner);
    }

  private:
    static constexpr std::size_t kBlocks = 2, kAlignment = 64;

    struct Free {
        void operator()(float* values) const { ::operator delete(values, std::align_val_t{kAlignment}); }
    };
    struct Block {
        std::unique_ptr<float, Free> values;
        std::size_t capacity = 0;
    };

    // The smallest kept block that is large enough, else a new one with room for a somewhat larger batch, in place of
    // the largest kept.
    static Block take(std::size_t size) {
        const std::lock_guard<std::mutex> guard(lock());
        std::vector<Block>& blocks = kept();  // in rising order
        for (auto block = blocks.begin(); block != blocks.end(); ++block) {
            if (block->capacity < size) continue;
            Block found = std::move(*block);
            blocks.erase(block);
            return found;
        }
        if (blocks.size() == kBlocks) blocks.pop_back();
        const std::size_t capacity = size + size / 4;
        return {std::unique_ptr<float, Free>(
                    static_cast<float*>(::operator new(capacity * sizeof(float), std::align_val_t{kAlignment}))),
                capacity};
    }

    static void give_back(Block block) {
        const std::lock_guard<std::mutex> guard(lock());
        std::vector<Block>& blocks = kept();
        auto place = blocks.begin();
        while (place != blocks.end() && place->capacity < block.capacity) ++place;
        blocks.insert(place, std::move(block));
        if (blocks.size() > kBlocks) blocks.erase(blocks.begin());
    }

    // Never destroyed: an array may outlive whatever is destroyed at the end of the process.
    static std::mutex& lock() {
        static auto* const mutex = new std::mutex;
        return *mutex;
    }
    static std::vector<Block>& kept() {
        static auto* const blocks = new std::vector<Block>;
        return *blocks;
    }
};

}  // namespace metaedit::python
