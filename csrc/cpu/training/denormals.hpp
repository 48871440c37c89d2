// Denormal numbers as zeros on this thread, for as long as the object lives. Elsewhere than on x86 they stay: there
// they cost little.
#pragma once

#ifdef METAEDIT_X86_KERNELS
#include <xmmintrin.h>
#endif

namespace metaedit::training {

class FlushDenormals {
  public:
#ifdef METAEDIT_X86_KERNELS
    FlushDenormals() : before_(_mm_getcsr()) {
        constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZeros = 0x0040;
        _mm_setcsr(before_ | kFlushToZero | kDenormalsAreZeros);
    }
    ~FlushDenormals() { _mm_setcsr(before_); }

  private:
    unsigned before_;

  public:
#else
    FlushDenormals() = default;
    ~FlushDenormals() = default;
#endif
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace metaedit::training
