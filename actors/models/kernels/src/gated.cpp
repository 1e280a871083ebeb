// activation(x g^T) * (x u^T) for a float weight of gates g above as many ups u, both in whole panels: a tile has the
// same columns of both, so that the product of twice the width is never stored nor read.
//
// Each sum is the chain over K that `linear` makes of it and is rounded as `linear` stores it: the bits are those of a
// product and a pass over it.
#include <omp.h>

#include "activation.h"
#include "amx.h"
#include "panels.h"
#include "quantized.h"

namespace strata {
namespace {

// Of a tile: with a panel of each kind 16 sums, enough to keep both multipliers busy. 6 rows with two of each kind are
// 1 % slower, 12 rows with one of each run out of registers for addresses (one core of a Zen 5, 768 x 4864, 512 rows:
// 8.55 ms, where `linear` takes 8.30 and the pass over what it made another 0.5).
constexpr int kMostRows = kNarrow ? 2 : 8;
constexpr int64_t kCache = (kNarrow ? 256 : 640) << 10;  // bytes of x that stay in the second cache while weights pass by

template <class T>
struct Gated {
  Panels w;
  const char* x;
  const float* bias;
  typename T::Element* y;
  int64_t rows, x_stride, y_stride;  // strides: x in bytes once it is as tiles read it, y in elements
  Activation activation;

  int64_t half() const { return w.count() / 2; }  // panels of gates
  Gated part(int64_t m, int64_t count) const {
    return {w, x + m * x_stride, bias, y + m * y_stride, count, x_stride, y_stride, activation};
  }
};

// Where a tile fetches its part of what comes next: two streams, one `apart` from the other.
struct Ahead {
  const char* at;
  int64_t step, apart;
};

// MR rows of x from `m` on with a panel of gates and the ups of the same columns.
template <class T, int MR>
void tile(const Gated<T>& p, int64_t m, int64_t panel, Ahead ahead) {
  const int64_t half = p.half();
  const Unit *gates = p.w.panel(panel), *ups = p.w.panel(half + panel);
  const char* x = p.x + m * p.x_stride;
  Floats sum[MR][2];  // of gates and ups
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = floats(0);
  for (int64_t k = 0; k < p.w.units; k++, gates += kLanes, ups += kLanes, x += kUnitBytes<T>) {
    const Ints both[2] = {load_ints(gates), load_ints(ups)};
    _mm_prefetch(ahead.at, _MM_HINT_T1);
    _mm_prefetch(ahead.at + ahead.apart, _MM_HINT_T1);
    ahead.at += ahead.step;
    add_unit<T, MR, 2>(sum, x, p.x_stride, both);
  }
  const int64_t column = panel * kLanes;
  const auto bias = [&](int64_t at) { return p.bias ? load_floats(p.bias + at) : floats(0); };
  const Floats gate_bias = bias(column), up_bias = bias(half * kLanes + column);
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++) {
    const Floats g = rounded<T>(add(sum[i][0], gate_bias)), u = rounded<T>(add(sum[i][1], up_bias));
    T::store(p.y + (m + i) * p.y_stride + column, mul(activate<T>(p.activation, g), u));
  }
}

template <class T, int MR>
void rows_of(const Gated<T>& p, int64_t count, int64_t m, int64_t panel, Ahead ahead) {
  if constexpr (MR > 1) {
    if (count < MR) return rows_of<T, MR - 1>(p, count, m, panel, ahead);
  }
  tile<T, MR>(p, m, panel, ahead);
}

// A panel of each kind for all rows. The first tile finds them in the second cache because the tiles before fetched
// them, each its part.
template <class T>
void group(const Gated<T>& p, int64_t panel, const char* next, int64_t apart) {
  const int64_t tiles = (p.rows + kMostRows - 1) / kMostRows, bytes = p.w.size() * sizeof(Unit);
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m = p.rows * i / tiles, count = p.rows * (i + 1) / tiles - m;
    rows_of<T, kMostRows>(p, count, m, panel, {next + bytes * i / tiles, 64 / tiles, apart});
  }
}

// Panels [begin, end) of gates; `after` is what is read next.
template <class T>
void columns_of(const Gated<T>& p, int64_t begin, int64_t end, const char* after) {
  const int64_t apart = p.half() * p.w.size() * sizeof(Unit), fitting = kCache / (p.w.units * kUnitBytes<T>);
  const int64_t most = std::max<int64_t>(64, fitting), count = (p.rows + most - 1) / most;
  for (int64_t i = 0; i < count; i++) {
    // whole tiles in all chunks but the last
    const auto from = [&](int64_t at) { return at < count ? p.rows * at / count / kMostRows * kMostRows : p.rows; };
    const Gated<T> part = p.part(from(i), from(i + 1) - from(i));
    const char* then = i + 1 < count ? (const char*)p.w.panel(begin) : after;
    for (int64_t panel = begin; panel < end; panel++) {
      const bool last = panel + 1 == end;
      const char* next = last ? then : (const char*)p.w.panel(panel + 1);
      group(part, panel, next, last && i + 1 == count ? 64 : apart);
    }
  }
}

template <class T>
void multiply(Gated<T> p, const Panels& next) {
  const RowsOfX x = spread<T>(p.x, p.rows, p.w.units, p.x_stride);
  p.x = x.at, p.x_stride = x.stride;
  const int64_t threads = omp_get_max_threads();
  int64_t parts = 1;  // of the rows, so that no thread of many is left with a panel or two of many rows
  while (threads % (2 * parts) == 0 && 2 * p.half() * parts < 12 * threads && p.rows >= 128 * parts) parts *= 2;
  const int64_t shares = threads / parts;
#pragma omp parallel for if (threads > 1) schedule(static, 1) num_threads(threads)
  for (int64_t i = 0; i < threads; i++) {
    const int64_t part = i / shares, share = i % shares, m = p.rows * part / parts;
    const Gated<T> own = p.part(m, p.rows * (part + 1) / parts - m);
    columns_of(own, p.half() * share / shares, p.half() * (share + 1) / shares,
               (const char*)next.panel(next.count() * share / shares));
  }
}

}  // namespace

bool joins_gate(const Weights& w, int64_t rows) {  // AVX2 has too few registers for two panels
  if (w.columns % (2 * kLanes)) return false;
  return w.bits ? quantized_gates(w, rows) : w.group && rows > 8 && !kNarrow;
}

void gated_linear(Type type, Activation activation, const void* x, const Weights& w, const float* bias, void* y,
                  int64_t rows, int64_t x_stride, int64_t y_stride, const Weights* next) {
  const Weights& then = next && !next->bits == !w.bits && next->group ? *next : w;
  if (w.bits) return quantized_gated(type, activation, x, w, bias, y, rows, x_stride, y_stride, then);
  if (type == kBf16 && amx()) return amx_gated(activation, x, w, bias, y, rows, x_stride, y_stride, then);
  const Panels own(type, w), following(type, then);
  if (type == kF32)
    multiply<F32>({own, (const char*)x, bias, (float*)y, rows, x_stride, y_stride, activation}, following);
  else
    multiply<Bf16>({own, (const char*)x, bias, (uint16_t*)y, rows, x_stride, y_stride, activation}, following);
}

}  // namespace strata
