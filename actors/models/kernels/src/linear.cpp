// y = x w^T + bias for a row-major weight [N, K], read where it lies: no second, packed copy of it is kept.
//
// Few rows (decoding alone): lanes run along K. Up to 3 of them are bound by memory: four long streams through w, far
// from each other, are fetched a little ahead. More take four neighbouring rows of w and prefetch the next four.
// Many rows: x is packed so that lanes run along its rows, and each unit of w is broadcast to all of them; no sums
// across lanes are left to do. `kWideRows` decides.
//
// bf16, one core of a Zen 5, weight 4864 x 768 in the third cache: 1 row 66-90 GB/s, 8 rows 365 GFLOP/s, 16 rows 400,
// 32 rows 457, 512 rows 405; torch's oneDNN 27-34 GB/s, 190, 280, 340, 380. Weights of 250 MB come from
// memory at 33 GB/s for 1 row, at 40 on two cores, which read 47 at most; torch's at 10.
#include <omp.h>

#include <algorithm>

#include "kernels.h"
#include "tile.h"
#include "vectors.h"

namespace strata {
namespace {

// Fewer rows would leave more lanes empty than turning saves: 28 of 32 is where both take the same time (Zen 5).
constexpr int64_t kWideRows = 28;
constexpr int kStreams = 4;         // that one core reads side by side: with 8, memory gives a quarter less
constexpr int64_t kDistance = 1024;  // bytes that each is fetched ahead
constexpr int kSpan = 48;  // columns of y that the wide kernel finishes before it turns them: 3 blocks of 16

template <class T, class O>
struct Product {
  const Unit* x;
  const Unit* w;
  const float* bias;
  typename O::Element* y;
  int64_t rows, columns, units, x_stride, y_stride;  // strides: x in units, y in elements

  Product from_row(int64_t m) const {
    return {x + m * x_stride, w, bias, y + m * y_stride, rows - m, columns, units, x_stride, y_stride};
  }
};

// MR rows of x with NR rows of w. Keeps the smaller side in registers: at most 24 sums + 8 + 1 of the 32.
template <class T, class O, int MR, int NR, bool Ahead>
inline void narrow_tile(const Product<T, O>& p, int64_t m, int64_t n) {
  const Unit* x = p.x + m * p.x_stride;
  const Unit* w = p.w + n * p.units;
  __m512 sum[MR][NR];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NR; j++) sum[i][j] = _mm512_setzero_ps();
  auto step = [&](int64_t k, __mmask16 mask) __attribute__((always_inline)) {
    __m512i held[MR < NR ? MR : NR];
    if constexpr (MR < NR) {
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) held[i] = _mm512_maskz_loadu_epi32(mask, x + i * p.x_stride + k);
#pragma GCC unroll 8
      for (int j = 0; j < NR; j++) {
        const __m512i b = _mm512_maskz_loadu_epi32(mask, w + j * p.units + k);
        if constexpr (Ahead) _mm_prefetch((const char*)(w + (j + NR) * p.units + k), _MM_HINT_T0);
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) sum[i][j] = T::dot(sum[i][j], held[i], b);
      }
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < NR; j++) {
        held[j] = _mm512_maskz_loadu_epi32(mask, w + j * p.units + k);
        if constexpr (Ahead) _mm_prefetch((const char*)(w + (j + NR) * p.units + k), _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) {
        const __m512i a = _mm512_maskz_loadu_epi32(mask, x + i * p.x_stride + k);
#pragma GCC unroll 8
        for (int j = 0; j < NR; j++) sum[i][j] = T::dot(sum[i][j], a, held[j]);
      }
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= p.units; k += kLanes) step(k, 0xffff);
  if (k < p.units) step(k, first(p.units - k));
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++) {
    __m512 out = _mm512_setzero_ps();
    if constexpr (NR == 1) {
      out = _mm512_castps128_ps512(_mm_set_ss(_mm512_reduce_add_ps(sum[i][0])));
    } else {
      out = _mm512_castps128_ps512(sum4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
    }
    if (p.bias) out = _mm512_add_ps(out, _mm512_maskz_loadu_ps(first(NR), p.bias + n));
    O::store(p.y + (m + i) * p.y_stride + n, out, first(NR));
  }
}

// `m` is the first of `rows` rows of x to take together; the first tile also fetches the next rows of w.
template <class T, class O, int NR, bool Ahead>
inline void narrow_rows(const Product<T, O>& p, int rows, int64_t m, int64_t n) {
  if constexpr (NR == 1) {
    if (rows == 1) return narrow_tile<T, O, 1, NR, Ahead>(p, m, n);
    if (rows == 2) return narrow_tile<T, O, 2, NR, Ahead>(p, m, n);
  }
  if (rows == 3) return narrow_tile<T, O, 3, NR, Ahead>(p, m, n);
  if (rows == 4) return narrow_tile<T, O, 4, NR, Ahead>(p, m, n);
  if (rows == 5) return narrow_tile<T, O, 5, NR, Ahead>(p, m, n);
  return narrow_tile<T, O, 6, NR, Ahead>(p, m, n);
}

template <class T, class O, int NR>
inline void narrow_group(const Product<T, O>& p, int64_t n) {
  const int64_t tiles = (p.rows + 5) / 6;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m = p.rows * i / tiles, after = p.rows * (i + 1) / tiles;
    i ? narrow_rows<T, O, NR, false>(p, after - m, m, n) : narrow_rows<T, O, NR, true>(p, after - m, m, n);
  }
}

// MR rows of x with one row of w from each of four streams that lie `apart` rows from each other.
template <class T, class O, int MR>
inline void stream_tile(const Product<T, O>& p, int64_t n, int64_t apart) {
  const Unit* w = p.w + n * p.units;
  __m512 sum[MR][kStreams];
#pragma GCC unroll 4
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int j = 0; j < kStreams; j++) sum[i][j] = _mm512_setzero_ps();
  auto step = [&](int64_t k, __mmask16 mask) __attribute__((always_inline)) {
    __m512i held[MR];
#pragma GCC unroll 4
    for (int i = 0; i < MR; i++) held[i] = _mm512_maskz_loadu_epi32(mask, p.x + i * p.x_stride + k);
#pragma GCC unroll 4
    for (int j = 0; j < kStreams; j++) {
      const Unit* from = w + j * apart * p.units + k;
      const __m512i b = _mm512_maskz_loadu_epi32(mask, from);
      _mm_prefetch((const char*)from + kDistance, _MM_HINT_T0);
#pragma GCC unroll 4
      for (int i = 0; i < MR; i++) sum[i][j] = T::dot(sum[i][j], held[i], b);
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= p.units; k += kLanes) step(k, 0xffff);
  if (k < p.units) step(k, first(p.units - k));
#pragma GCC unroll 4
  for (int i = 0; i < MR; i++) {
    alignas(16) float out[kStreams];
    _mm_store_ps(out, sum4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
    for (int j = 0; j < kStreams; j++) {
      const int64_t column = n + j * apart;
      const __m512 v = _mm512_castps128_ps512(_mm_set_ss(out[j] + (p.bias ? p.bias[column] : 0.0f)));
      O::store(p.y + i * p.y_stride + column, v, first(1));
    }
  }
}

template <class T, class O>
void narrow_columns(const Product<T, O>& p, int64_t n, int64_t end) {
  if (p.rows <= 3) {
    const int64_t apart = (end - n) / kStreams;
    for (int64_t i = 0; i < apart; i++)
      p.rows == 1   ? stream_tile<T, O, 1>(p, n + i, apart)
      : p.rows == 2 ? stream_tile<T, O, 2>(p, n + i, apart)
                    : stream_tile<T, O, 3>(p, n + i, apart);
    n += kStreams * apart;
  } else {
    for (; n + 4 <= end; n += 4) narrow_group<T, O, 4>(p, n);
  }
  for (; n < end; n++) narrow_group<T, O, 1>(p, n);
}

// x as [tile of MT*16 rows][unit][row]: one load gives a unit of every row.
template <class T, class O>
void pack(const Product<T, O>& p, Unit* packed, int64_t lanes, int64_t m) {
  const int64_t rows = std::min<int64_t>(lanes, p.rows - m);
  for (int64_t block = 0; block < lanes; block += kLanes)
    for (int64_t k = 0; k < p.units; k += kLanes) {
      const __mmask16 mask = first(p.units - k);
      __m512i r[kLanes];
      for (int i = 0; i < kLanes; i++)
        r[i] = block + i < rows ? _mm512_maskz_loadu_epi32(mask, p.x + (m + block + i) * p.x_stride + k)
                                : _mm512_setzero_si512();
      transpose(r);
      const int64_t count = std::min<int64_t>(kLanes, p.units - k);
      for (int64_t i = 0; i < count; i++) _mm512_store_si512(packed + (k + i) * lanes + block, r[i]);
    }
}

// Columns [n, n + count) of MT*16 rows of y, out of their turned form.
template <class T, class O, int MT>
void unturn(const Product<T, O>& p, const float* turned, int64_t m, int64_t n, int64_t count) {
  for (int64_t column = 0; column < count; column += kLanes) {
    const __mmask16 mask = first(count - column);
    const __m512 bias = p.bias ? _mm512_maskz_loadu_ps(mask, p.bias + n + column) : _mm512_setzero_ps();
    for (int t = 0; t < MT; t++) {
      __m512i r[kLanes];
      for (int i = 0; i < kLanes; i++) r[i] = _mm512_load_si512(turned + ((column + i) * MT + t) * kLanes);
      transpose(r);
      const int64_t row = m + t * kLanes, rows = std::min<int64_t>(kLanes, p.rows - row);
      for (int64_t i = 0; i < rows; i++)
        O::store(p.y + (row + i) * p.y_stride + n + column, _mm512_add_ps(_mm512_castsi512_ps(r[i]), bias), mask);
    }
  }
}

template <class T, class O, int MT>
void wide_span(const Product<T, O>& p, const Unit* packed, int64_t m, int64_t n, int64_t count) {
  constexpr int NR = MT == 3 ? 8 : 12;
  alignas(64) float turned[kSpan * MT * kLanes];
  int64_t j = 0;
  for (; j + NR <= count; j += NR)
    wide_tile<T, MT, NR>(p.w + (n + j) * p.units, p.units, packed, turned + j * MT * kLanes);
  for (; j < count; j++) wide_tile<T, MT, 1>(p.w + (n + j) * p.units, p.units, packed, turned + j * MT * kLanes);
  unturn<T, O, MT>(p, turned, m, n, count);
}

// How many blocks of 16 rows the next wide tile takes; 0 where the rows left are better taken narrow.
int wide_blocks(int64_t rows) { return rows < kWideRows ? 0 : (rows >= 42 && rows != 64) ? 3 : 2; }

template <class T, class O>
void wide_columns(const Product<T, O>& p, const Unit* packed, int64_t begin, int64_t end) {
  // A block of w that stays in the second cache while all rows of x pass by.
  const int64_t block = std::max<int64_t>(kSpan, (256 << 10) / (4 * p.units) / kSpan * kSpan);
  for (int64_t from = begin; from < end; from += block) {
    const int64_t to = std::min(end, from + block);
    int64_t m = 0;
    for (int blocks; (blocks = wide_blocks(p.rows - m)); m += blocks * kLanes)
      for (int64_t n = from; n < to; n += kSpan) {
        const int64_t count = std::min<int64_t>(kSpan, to - n);
        blocks == 3 ? wide_span<T, O, 3>(p, packed + m * p.units, m, n, count)
                    : wide_span<T, O, 2>(p, packed + m * p.units, m, n, count);
      }
    if (m < p.rows) narrow_columns<T, O>(p.from_row(m), from, to);
  }
}

template <class T, class O>
const Unit* pack_all(const Product<T, O>& p) {
  Unit* packed = (Unit*)scratch<kPacked>((p.rows + 3 * kLanes) * p.units * sizeof(Unit));
  int64_t m = 0;
  for (int blocks; (blocks = wide_blocks(p.rows - m)); m += blocks * kLanes)
    pack(p, packed + m * p.units, blocks * kLanes, m);
  return packed;
}

template <class T, class O>
void multiply(const Product<T, O>& p) {
  if (!p.rows) return;  // the head of a step in which nobody's prompt ends
  const int threads = omp_get_max_threads();
  const bool wide = p.rows >= kWideRows;
  const Unit* packed = wide ? pack_all(p) : nullptr;
  const int64_t share = (p.columns / threads / kSpan + 1) * kSpan;
#pragma omp parallel for if (threads > 1) schedule(static, 1) num_threads(threads)
  for (int i = 0; i < threads; i++) {
    const int64_t begin = std::min(p.columns, i * share),
                  end = i + 1 < threads ? std::min(p.columns, begin + share) : p.columns;
    wide ? wide_columns<T, O>(p, packed, begin, end) : narrow_columns<T, O>(p, begin, end);
  }
}

}  // namespace

void linear(Type type, Type out, const void* x, const void* w, const float* bias, void* y, int64_t rows,
            int64_t columns, int64_t inner, int64_t x_stride, int64_t y_stride) {
  const auto *from = (const Unit*)x, *by = (const Unit*)w;
  if (type == kF32)
    multiply<F32, F32>({from, by, bias, (float*)y, rows, columns, inner, x_stride, y_stride});
  else if (out == kF32)
    multiply<Bf16, F32>({from, by, bias, (float*)y, rows, columns, inner / 2, x_stride / 2, y_stride});
  else
    multiply<Bf16, Bf16>({from, by, bias, (uint16_t*)y, rows, columns, inner / 2, x_stride / 2, y_stride});
}

}  // namespace strata
