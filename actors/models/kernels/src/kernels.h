// What the extension offers, in plain C++ types. All pointers are to memory that the caller keeps alive.
#pragma once
#include <cstdint>

namespace strata {

enum Type : int64_t { kF32 = 0, kBf16 = 1 };

// y[rows, columns] = x[rows, inner] w[columns, inner]^T + bias. Strides in elements; bf16 needs `inner` and
// `x_stride` even. bias is float or null.
void linear(Type type, const void* x, const void* w, const float* bias, void* y, int64_t rows, int64_t columns,
            int64_t inner, int64_t x_stride, int64_t y_stride);

}  // namespace strata
