// Shapes of arrays, and how messages name them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace metaedit {

using Extents = std::vector<std::int64_t>;

inline constexpr std::int64_t kAny = -1;  // in a shape that is expected

inline std::string text_of(const Extents& extents) {
    std::string result = "[";
    for (std::size_t i = 0; i < extents.size(); ++i) {
        result += (i == 0 ? "" : ", ") + (extents[i] == kAny ? "any" : std::to_string(extents[i]));
    }
    return result + "]";
}

// Whether an array of this shape is what is expected.
inline bool fits(const Extents& expected, const Extents& got) {
    bool same = expected.size() == got.size();
    for (std::size_t i = 0; same && i < got.size(); ++i) same = expected[i] == kAny || expected[i] == got[i];
    return same;
}

}  // namespace metaedit
