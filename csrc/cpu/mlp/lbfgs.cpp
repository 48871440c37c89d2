#include "cpu/mlp/lbfgs.hpp"

#include <algorithm>

namespace metaedit::mlp {

void Lbfgs::start(std::int64_t size) {
    size_ = size;
    n_added_ = 0;
}

float Lbfgs::dot(const float* x, const float* y) const {
    double sum;
    kernels_.dot(x, y, size_ / kPanelRows, &sum);
    return static_cast<float>(sum);
}

void Lbfgs::add_scaled(const float* x, float factor, const float* y, float* out) const {
    kernels_.add_scaled({x, factor, y, out, size_ / kPanelRows});
}

void Lbfgs::add(const float* direction, float factor, const float* before, const float* after) {
    Pair& pair = pairs_[n_added_ % kMemory];
    pair.step = pair.step_buffer.of_size(size_);
    pair.change = pair.change_buffer.of_size(size_);
    add_scaled(direction, factor, nullptr, pair.step);
    add_scaled(before, -1.0F, after, pair.change);
    const float product = dot(pair.step, pair.change);
    if (!(product > 0.0F)) return;
    pair.inverse = 1.0F / product;
    ++n_added_;
}

void Lbfgs::direction(const float* gradient, double value, float* out) {
    if (n_added_ == 0) {
        const double factor = value / static_cast<double>(dot(gradient, gradient));
        return add_scaled(gradient, -static_cast<float>(factor), nullptr, out);
    }
    add_scaled(gradient, -1.0F, nullptr, out);
    const std::size_t n = std::min(n_added_, kMemory);
    float weights[kMemory];
    for (std::size_t i = 0; i < n; ++i) {
        const Pair& pair = latest(i);
        weights[i] = pair.inverse * dot(pair.step, out);
        add_scaled(pair.change, -weights[i], out, out);
    }
    const Pair& last = latest(0);
    add_scaled(out, 1.0F / (last.inverse * dot(last.change, last.change)), nullptr, out);
    for (std::size_t i = n; i-- > 0;) {
        const Pair& pair = latest(i);
        add_scaled(pair.step, weights[i] - pair.inverse * dot(pair.change, out), out, out);
    }
}

}  // namespace metaedit::mlp
