// A float weight [columns, inner] in panels: 16 columns of y side by side, unit after unit.
//
// Panel i holds rows 16 i .. 16 i + 15 of the row-major weight as [unit][16 columns], so that both forms of it fill the
// same bytes: packing turns every panel where it lies. The last panel has as many columns as are left.
#pragma once
#include <omp.h>

#include <algorithm>

#include "kernels.h"
#include "vectors.h"

namespace strata {

constexpr int64_t kSharedWork = 1 << 15;  // elements below which one thread is faster: about 2 us of work

struct Panels {
  const Unit* at;
  int64_t columns, units;

  Panels(Type type, const Weights& w)
      : at((const Unit*)w.weight), columns(w.columns), units(type == kBf16 ? w.inner / 2 : w.inner) {}

  int64_t count() const { return (columns + kLanes - 1) / kLanes; }
  int64_t size() const { return kLanes * units; }  // of a whole panel, in units
  const Unit* panel(int64_t i) const { return at + i * size(); }
  int64_t width(int64_t i) const { return std::min<int64_t>(kLanes, columns - i * kLanes); }
};

// Where registers are few, pairs of bf16 of x are made floats once for all columns, and broadcast from memory.
template <class T>
constexpr bool kSpread = kNarrow && T::per_unit == 2;
template <class T>
constexpr int64_t kUnitBytes = kSpread<T> ? 2 * sizeof(float) : sizeof(Unit);  // of x as `add_unit` reads it

// Rows of x, `stride` bytes apart, as `add_unit` reads them.
struct RowsOfX {
  const char* at;
  int64_t stride;
};

template <class T>
RowsOfX spread(const void* x, int64_t rows, int64_t units, int64_t stride) {
  if constexpr (!kSpread<T>) return {(const char*)x, stride * (int64_t)sizeof(typename T::Element)};
  const int64_t width = T::per_unit * units;
  float* at = (float*)scratch<kRows>(rows * width * sizeof(float));
  const int threads = rows * width < kSharedWork ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1) schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; r++) {
    const auto* from = (const typename T::Element*)x + r * stride;
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) store(at + r * width + i, T::load(from + i));
    if (i < width) store(at + r * width + i, first(width - i), T::load(from + i, first(width - i)));
  }
  return {(const char*)at, width * (int64_t)sizeof(float)};
}

// Adds a unit of MR rows of x, `stride` bytes apart, times units of NR panels of a weight, in the order of `T::dot`.
template <class T, int MR, int NR>
inline __attribute__((always_inline)) void add_unit(Floats (&sum)[MR][NR], const char* x, int64_t stride,
                                                    const Ints (&w)[NR]) {
  if constexpr (kSpread<T>) {
    const auto half = [&](int64_t odd) __attribute__((always_inline)) {  // one after the other: registers are few
      Floats v[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; j++) v[j] = as_floats(odd ? bit_and(w[j], ints(0xffff0000)) : shift_left(w[j], 16));
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) {
        const Floats a = floats(((const float*)(x + i * stride))[odd]);
#pragma GCC unroll 8
        for (int j = 0; j < NR; j++) sum[i][j] = add_product(sum[i][j], a, v[j]);
      }
    };
    half(0), half(1);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
      int32_t value;
      memcpy(&value, x + i * stride, sizeof(value));
      const Ints a = ints(value);
#pragma GCC unroll 8
      for (int j = 0; j < NR; j++) sum[i][j] = T::dot(sum[i][j], a, w[j]);
    }
  }
}

// Row `column` of the row-major weight.
inline void read_row(const Panels& p, int64_t column, Unit* to) {
  const int64_t panel = column / kLanes, width = p.width(panel);
  const Unit* from = p.panel(panel) + column % kLanes;
  for (int64_t k = 0; k < p.units; k++) to[k] = from[k * width];
}

}  // namespace strata
