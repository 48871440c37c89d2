// Memory for vectors of numbers, aligned to a cache line: a 64-byte load that straddles two lines costs twice.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace metaedit {

template <class T>
class AlignedArray {
  public:
    AlignedArray() = default;

    // Zeros.
    explicit AlignedArray(std::int64_t size)
        : size_(size), values_(static_cast<T*>(::operator new(bytes(size), std::align_val_t{kAlignment}))) {
        std::fill_n(values_.get(), size, T{0});
    }

    std::int64_t size() const { return size_; }
    T* data() { return values_.get(); }
    const T* data() const { return values_.get(); }
    T& operator[](std::int64_t i) { return values_.get()[i]; }

  private:
    static constexpr std::size_t kAlignment = 64;

    struct Free {
        void operator()(T* values) const { ::operator delete(values, std::align_val_t{kAlignment}); }
    };

    static std::size_t bytes(std::int64_t size) { return static_cast<std::size_t>(size) * sizeof(T); }

    std::int64_t size_ = 0;
    std::unique_ptr<T, Free> values_;
};

using AlignedFloats = AlignedArray<float>;

}  // namespace metaedit
