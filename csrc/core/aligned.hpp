// Memory for vectors of floats, aligned to a cache line: a 64-byte load that straddles two lines costs twice.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace metaedit {

class AlignedFloats {
  public:
    AlignedFloats() = default;

    // Zeros.
    explicit AlignedFloats(std::int64_t size)
        : size_(size), values_(static_cast<float*>(::operator new(bytes(size), std::align_val_t{kAlignment}))) {
        std::fill_n(values_.get(), size, 0.0F);
    }

    std::int64_t size() const { return size_; }
    float* data() { return values_.get(); }
    const float* data() const { return values_.get(); }
    float& operator[](std::int64_t i) { return values_.get()[i]; }

  private:
    static constexpr std::size_t kAlignment = 64;

    struct Free {
        void operator()(float* values) const { ::operator delete(values, std::align_val_t{kAlignment}); }
    };

    static std::size_t bytes(std::int64_t size) { return static_cast<std::size_t>(size) * sizeof(float); }

    std::int64_t size_ = 0;
    std::unique_ptr<float, Free> values_;
};

}  // namespace metaedit
