// y = x w^T + bias for a float weight in panels (panels.h). Lanes run along 16 columns of y, and each unit of x is
// broadcast from where it lies: every element of y is one chain of sums over K, in order and in one register, so that
// it is the same to the last bit whatever rows are computed beside it and however columns and rows are shared out.
//
// Up to 8 rows are one tile: it takes a panel each from streams through w that lie far from each other, which are
// fetched a little ahead (one core reads four streams best: with 8, memory gives a quarter less). More rows pass three
// neighbouring panels in tiles of up to 8, and fetch the next three into the second cache meanwhile. Half as many
// registers of half the width (AVX2) hold the sums of 5 or 6 rows with one panel, and bf16 of x is made floats first.
//
// One core of a Zen 5 (its peak: 470 GFLOP/s in bf16), weights of 768 x 4864 to 3072 x 1024 in the third cache, bf16:
// 1 row 90-96 GB/s; 4 rows 330-390 GFLOP/s, 8: 425-455, 9: 340-370, 16: 440-455, 32 to 512: 435-460. Weights of 250 MB
// come from memory at 36 GB/s for 1 row, 33 for 2 to 8, 26 (420 GFLOP/s) for 16; on two cores at 40-48 up to 16 rows.
// float32: 1 row 100 GB/s, from 5 rows on 215-235 GFLOP/s. torch's oneDNN in bf16: 27-34 GB/s, 190 for 8 rows, 380
// for 512, and 10 GB/s from memory. One core of a Zen 3 (AVX2, its peak: 105 GFLOP/s), bf16: 1 row 30-32 GB/s, 8 rows
// 63-68 GFLOP/s, 512 92-96; torch 10 (`benchmarks.products`).
#include <omp.h>

#include "amx.h"
#include "panels.h"

namespace strata {
namespace {

constexpr int64_t kDistance = 2048;                      // bytes that each stream is fetched ahead
constexpr int64_t kCache = (kNarrow ? 256 : 640) << 10;  // bytes of x that the second cache keeps while weights pass by

// Of a tile. AVX-512: with 3 panels 24 sums of the 32 registers. AVX2: with one panel 5 or 6 of what 8 can be made of.
template <class T>
constexpr int kMost = !kNarrow ? 8 : kSpread<T> ? 5 : 6;

// Where a tile fetches what comes later. Many tiles: `step` bytes further each time. A single one: its streams go on
// at `at`, `step` bytes from one to the next, when their panels end.
struct Ahead {
  const char* at;
  int64_t step;
};

template <class T, class O>
struct Product {
  Panels w;
  const char* x;
  const float* bias;
  typename O::Element* y;
  int64_t rows, x_stride, y_stride;  // strides: x in bytes once it is as tiles read it, y in elements

  Product part(int64_t m, int64_t count) const {
    return {w, x + m * x_stride, bias, y + m * y_stride, count, x_stride, y_stride};
  }
};

// MR rows of x from `m` on with NR panels from `panel` on, `apart` from each other. `Whole`: they have 16 columns.
// Fetches from `ahead` on, or where they are `Streams` a little ahead on each of them. Not inlined: it wants all
// registers.
template <class T, class O, int MR, int NR, bool Streams, bool Whole>
__attribute__((noinline)) void tile(const Product<T, O>& p, int64_t m, int64_t panel, int64_t apart, Ahead ahead) {
  const int64_t width = Whole ? kLanes : p.w.width(panel), step = apart * p.w.size();
  const Picked mask = Whole ? kAll : first(width);
  const Unit* w = p.w.panel(panel);
  const char* x = p.x + m * p.x_stride;
  Floats sum[MR][NR];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NR; j++) sum[i][j] = floats(0);
  const auto walk = [&](int64_t units, const char* soon, int64_t between) __attribute__((always_inline)) {
    for (int64_t k = 0; k < units; k++, w += width, x += kUnitBytes<T>) {
      Ints v[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; j++) {
        v[j] = Whole ? load_ints(w + j * step) : load_ints(mask, w + j * step);
        if constexpr (Streams) _mm_prefetch(soon + j * between, _MM_HINT_T0);
      }
      soon += sizeof(Ints);
      if constexpr (!Streams) {  // two lines, which is what two tiles that share three panels need
        _mm_prefetch(ahead.at, _MM_HINT_T1);
        _mm_prefetch(ahead.at + 64, _MM_HINT_T1);
        ahead.at += ahead.step;
      }
      add_unit<T, MR, NR>(sum, x, p.x_stride, v);
    }
  };
  if constexpr (Streams) {
    const int64_t last = std::min<int64_t>(p.w.units, kDistance / sizeof(Ints));
    walk(p.w.units - last, (const char*)w + kDistance, step * sizeof(Unit));
    walk(last, ahead.at, ahead.step);
  } else {
    walk(p.w.units, nullptr, 0);
  }
#pragma GCC unroll 8
  for (int j = 0; j < NR; j++) {
    const int64_t column = (panel + j * apart) * kLanes;
    const Floats bias = p.bias ? load_floats(mask, p.bias + column) : floats(0);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
      O::store(p.y + (m + i) * p.y_stride + column, add(sum[i][j], bias), mask);
  }
}

// `count` rows of x, `Least` to MR, by the tile that is made for them.
template <class T, class O, int Least, int MR, int NR, bool Streams, bool Whole = true>
void rows_of(const Product<T, O>& p, int64_t count, int64_t m, int64_t panel, int64_t apart, Ahead ahead) {
  if constexpr (MR > Least) {
    if (count < MR) return rows_of<T, O, Least, MR - 1, NR, Streams, Whole>(p, count, m, panel, apart, ahead);
  }
  tile<T, O, MR, NR, Streams, Whole>(p, m, panel, apart, ahead);
}

template <class T>
int64_t tiles_of(int64_t rows) {
  return (rows + kMost<T> - 1) / kMost<T>;
}

// NR panels for all rows. The first tile finds them in the second cache because the tiles before fetched them, each
// its part.
template <class T, class O, int Least, int NR, bool Whole = true>
void group(const Product<T, O>& p, int64_t panel, const char* next) {
  const int64_t tiles = tiles_of<T>(p.rows), bytes = NR * p.w.size() * sizeof(Unit);
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m = p.rows * i / tiles, count = p.rows * (i + 1) / tiles - m;
    const Ahead ahead{next + bytes * i / tiles, NR * 64 / tiles};
    rows_of<T, O, Least, kMost<T>, NR, false, Whole>(p, count, m, panel, 1, ahead);
  }
}

// One tile of rows: NR streams far from each other.
template <class T, class O, int Least, int MR, int NR>
int64_t streams(const Product<T, O>& p, int64_t begin, int64_t end, Ahead after) {
  const int64_t apart = (end - begin) / NR;
  for (int64_t i = 0; i < apart; i++) {
    const Ahead own{(const char*)p.w.panel(begin + i + 1), apart * p.w.size() * (int64_t)sizeof(Unit)};
    rows_of<T, O, Least, MR, NR, true>(p, p.rows, 0, begin + i, apart, i + 1 < apart ? own : after);
  }
  return begin + NR * apart;
}

// Panels [begin, end), which are whole.
template <class T, class O>
void whole_panels(const Product<T, O>& p, int64_t begin, int64_t end, Ahead after) {
  if constexpr (kNarrow) {
    if (p.rows > kMost<T>) {
      for (; begin < end; begin++)  // several tiles have 3 rows at least
        group<T, O, 3, 1>(p, begin, begin + 1 < end ? (const char*)p.w.panel(begin + 1) : after.at);
      return;
    }
    if (p.rows == 1) begin = streams<T, O, 1, 1, 4>(p, begin, end, after);
    if (p.rows == 2) begin = streams<T, O, 2, 2, 2>(p, begin, end, after);
    for (; begin < end; begin++) rows_of<T, O, 1, kMost<T>, 1, true>(p, p.rows, 0, begin, 1, after);
    return;
  }
  if (p.rows <= kMost<T>) {
    begin = p.rows <= 6 ? streams<T, O, 1, 6, 4>(p, begin, end, after) : streams<T, O, 7, 8, 3>(p, begin, end, after);
    for (; begin < end; begin++) rows_of<T, O, 1, 8, 1, true>(p, p.rows, 0, begin, 1, after);
    return;
  }
  constexpr int kFewest = kMost<T> / 2;  // rows in each of several tiles
  while (begin < end) {
    const int64_t left = end - begin, taken = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
    const char* next = taken < left ? (const char*)p.w.panel(begin + taken) : after.at;
    taken == 1   ? group<T, O, kFewest, 1>(p, begin, next)
    : taken == 2 ? group<T, O, kFewest, 2>(p, begin, next)
                 : group<T, O, kFewest, 3>(p, begin, next);
    begin += taken;
  }
}

template <class T, class O>
void columns_of(const Product<T, O>& p, int64_t begin, int64_t end, Ahead after) {
  const bool broken = end > begin && p.w.width(end - 1) < kLanes;
  const int64_t whole = end - broken, fitting = kCache / (p.w.units * kUnitBytes<T>) / kMost<T>;
  const int64_t most = std::max<int64_t>(8, fitting) * kMost<T>, count = (p.rows + most - 1) / most;
  const auto from = [&](int64_t i) { return i < count ? tiles_of<T>(p.rows) * i / count * kMost<T> : p.rows; };
  for (int64_t i = 0; i < count; i++) {
    const Product<T, O> part = p.part(from(i), from(i + 1) - from(i));
    whole_panels(part, begin, whole, i + 1 < count ? Ahead{(const char*)p.w.panel(begin), 64} : after);
    if (broken) group<T, O, 1, 1, false>(part, whole, after.at);
  }
}

// In how many parts the rows are shared out, so that no thread of many is left with a panel or two of many rows.
int64_t parts_of(int64_t rows, int64_t panels, int64_t threads) {
  int64_t parts = 1;
  while (threads % (2 * parts) == 0 && panels * parts < 12 * threads && rows >= 128 * parts) parts *= 2;
  return parts;
}

template <class T, class O>
void multiply(Product<T, O> p, const Panels& next) {
  if (!p.rows) return;  // the head of a step in which nobody's prompt ends
  const RowsOfX x = spread<T>(p.x, p.rows, p.w.units, p.x_stride);
  p.x = x.at, p.x_stride = x.stride;
  const int64_t threads = omp_get_max_threads(), panels = p.w.count(), following = next.count();
  const int64_t parts = parts_of(p.rows, panels, threads), shares = threads / parts;
#pragma omp parallel for if (threads > 1) schedule(static, 1) num_threads(threads)
  for (int64_t i = 0; i < threads; i++) {
    const int64_t part = i / shares, share = i % shares, m = p.rows * part / parts;
    const int64_t soon = following * share / shares, streamed = following * (share + 1) / shares - soon;
    const Ahead after{(const char*)next.panel(soon), streamed / 4 * next.size() * (int64_t)sizeof(Unit)};
    const Product<T, O> own = p.part(m, p.rows * (part + 1) / parts - m);
    columns_of(own, panels * share / shares, panels * (share + 1) / shares, after);
  }
}

}  // namespace

void linear(Type type, Type out, const void* x, const Weights& w, const float* bias, void* y, int64_t rows,
            int64_t x_stride, int64_t y_stride, const Weights* next) {
  const Weights& then = next && !next->bits && next->group ? *next : w;
  if (type == kBf16 && amx()) return amx_linear(out, x, w, bias, y, rows, x_stride, y_stride, then);
  const Panels own(type, w), following(type, then);
  const char* from = (const char*)x;
  if (type == kF32)
    multiply<F32, F32>({own, from, bias, (float*)y, rows, x_stride, y_stride}, following);
  else if (out == kF32)
    multiply<Bf16, F32>({own, from, bias, (float*)y, rows, x_stride, y_stride}, following);
  else
    multiply<Bf16, Bf16>({own, from, bias, (uint16_t*)y, rows, x_stride, y_stride}, following);
}

}  // namespace strata
