// y = x w^T + bias for a weight of 8 or 4 bits: x becomes bytes row by row, in parts of at most 1,280 places, and the
// products are sums of bytes (VNNI, or what AVX2 has for it). Lanes run along 16 columns of y, so that no sums across
// lanes are left to do.
//
// The weight's bytes are unsigned, as the instruction wants them on one side: what was added to them is taken off
// again by what each sum starts from, which depends on x alone.
//
// One core of a Zen 5 beside other work, weight 4864 x 768 in the third cache, x in bf16, G = 10^9 multiplications and
// additions a second (linear.cpp's bf16: 86-96 GB/s for 1 row, 440 G for 8 and for 32):
//   8 bits, a scale a row     1 row 78 GB/s   2 rows 300 G   4: 530   8: 660   32: 735   64: 760
//   4 bits, groups of 128     1 row 60 GB/s   2 rows 410 G   4: 650   8: 720   32: 750   64: 760
//   4 bits, groups of 32      1 row 60 GB/s   2 rows 390 G   4: 590   8: 600   32: 665   64: 665
// A weight of 100 MB comes from memory at 37 GB/s for 1 row, with 8 or with 4 bits; bf16's at 31.
// One core of a Zen 3 (AVX2): 8 bits 55-62 G for 1 row, 96-131 from 8 on; 4 bits in groups of 32 50 G and 74-122.
#include "quantized.h"

#include "amx.h"

#include <omp.h>

#include <algorithm>

namespace strata {
namespace {

constexpr int64_t kSharedRows = 1 << 15;    // elements below which one thread quantizes x faster
constexpr int64_t kDistance = 2048;         // bytes that each stream is fetched ahead
constexpr int64_t kShares = 4;              // of a product of many rows, for each thread
constexpr int kMostRows = kNarrow ? 4 : 8;  // of a tile
constexpr int64_t kTiledRows = 17;          // from which on AMX is faster
// Bytes of x and y that stay in the second cache while weights pass by.
constexpr int64_t kCache = (kNarrow ? 256 : 640) << 10;

// Bytes of the row that `x` is, the first at `values` and each further `step` places `apart`. What is not finite keeps the
// scale from being so, and with it every sum.
template <class T>
void quantize_row(const Packed& p, const typename T::Element* x, int8_t* values, int64_t step, int64_t apart,
                  const Quantized& q, int64_t row) {
  const int32_t added = p.centred ? (p.w.bits == 8 ? kAdded8 : 8) : 1;
  for (int64_t part = 0; part < p.parts(); part++) {
    const int64_t sums = p.end(part), size = std::min(p.shared, p.w.inner - part * p.shared);
    Ints most = ints(0);
    for (int64_t i = 0; i < size; i += kLanes)  // as integers, NaN is the largest
      most = max(
          most, bit_and(as_ints(T::load(x + i)), ints(0x7fffffff)));
    const int32_t bits = largest(most);
    float top;
    memcpy(&top, &bits, sizeof(top));
    const Floats factor = floats(top == 0 ? 0 : 127 / top);
    q.scales[q.place(row, part, p.parts())] = top / 127;
    for (int64_t index = p.first(part); index < sums; index++) {
      Ints sum = ints(0);
      for (const auto* end = x + p.places(index); x < end; values += apart)
        for (int64_t i = 0; i < step; i += kLanes, x += kLanes) {
          const Ints v = to_ints(mul(T::load(x), factor));
          store8(values + i, saturate8(v));
          sum = add(sum, v);
        }
      if (q.starts) q.starts[q.place(row, index, p.sums())] = -added * total(sum);
    }
  }
}

template <class T>
Quantized quantize(const Packed& p, const void* x, int64_t rows, int64_t stride, bool tiles) {
  const int64_t inner = p.w.inner, parts = p.parts(), places = tiles ? (rows + 15) / 16 * 16 : rows;
  const int64_t size = (places * inner + 63) / 64 * 64, held = std::min(rows, kTileRows);
  const int64_t step = (p.each | p.shared | inner) % kTileBytes ? kTileBytes / 2 : kTileBytes;
  const bool starts = !tiles || p.w.bits == 8;  // tiles take what was added off the weights of 4 bits
  char* all = (char*)scratch<kPacked>(size + places * (parts + (starts ? p.sums() : 0)) * 4 + 64);
  float* scales = (float*)(all + size);
  const Quantized q{(int8_t*)all, scales, starts ? (int32_t*)scales + places * parts : nullptr, tiles ? step : 0, held};
  const int threads = rows * inner < kSharedRows ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1) schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; r++) {  // what lies in the last tile beyond the rows is nobody's
    int8_t* at = q.values + (tiles ? r / kTileRows * kTileRows * inner + r % kTileRows * step : r * inner);
    quantize_row<T>(p, (const typename T::Element*)x + r * stride, at, tiles ? step : kLanes,
                    tiles ? held * step : kLanes, q, r);
  }
  return q;
}

// Where a tile fetches what comes later. Many tiles: `step` bytes further each time. A single one: its streams go on
// at `at`, `step` bytes from one to the next, when their blocks end.
struct Ahead {
  const uint8_t* at;
  int64_t step;
};

// Fetches `Each` lines a step from `ahead` on, or where that is 0 a little ahead on its own streams.
template <int Bits, int MR, int NB, int Each>
__attribute__((noinline)) void tile(const Packed& p, const Quantized& x, int64_t m, int64_t block, Ahead ahead,
                                    const Target& to) {
  const int64_t inner = p.w.inner, parts = p.parts(), sums = p.sums();
  const uint8_t *at = p.block(block), *w = at + p.values;
  const int8_t* values = x.values + m * inner;
  Floats kept[MR * NB];
#pragma GCC unroll 24
  for (int i = 0; i < MR * NB; i++) kept[i] = floats(0);
  Floats* sum = kept;
  // Of a large tile they lie in memory and the compiler must not see it: it would keep them in registers and push the
  // integer sums of the inner loop out of those.
  Floats pending[MR * NB], *some = pending;  // of a part, before x's scale
  if constexpr (MR * NB > 12) asm("" : "+r"(sum), "+r"(some) : : "memory");
  for (int64_t part = 0, index = 0; part < parts; part++)
  for (const int64_t begin = index, end = p.end(part); index < end; index++) {
    Ints whole[MR][NB];
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
      for (int j = 0; j < NB; j++) whole[i][j] = ints(x.starts[(m + i) * sums + index]);
    if (!p.centred) {
      const uint8_t* zeros = at + p.zeros + p.group_of(index) * kColumns;
#pragma GCC unroll 8
      for (int j = 0; j < NB; j++) {
        const Ints added = add(widen_s8(load8(zeros + j * p.bytes)), ints(Bits == 8 ? kAdded8 : 8));
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) whole[i][j] = mul(whole[i][j], added);
      }
    }
    const int64_t past = w - at + kDistance - p.bytes;  // the end of the block
    const uint8_t* soon = past < 0 ? w + kDistance : ahead.at + past;
    const int64_t apart = past < 0 ? p.bytes : ahead.step;
    const int64_t size = p.places(index);
    for (int64_t k = 0; k < size; k += 32 / Bits, w += 64, soon += 64) {
      Ints v[NB];
#pragma GCC unroll 8
      for (int j = 0; j < NB; j++) {
        v[j] = load_ints(w + j * p.bytes);
        if constexpr (Each == 0) _mm_prefetch((const char*)(soon + j * apart), _MM_HINT_T0);
      }
      if constexpr (Each > 0) {
#pragma GCC unroll 8
        for (int j = 0; j < Each; j++) _mm_prefetch((const char*)(ahead.at + j * 64), _MM_HINT_T1);
        ahead.at += ahead.step;
      }
      const auto take = [&](const int8_t* from, const Ints* by) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) {
          int32_t four;
          memcpy(&four, from + i * inner, 4);
          const Ints a = ints(four);
#pragma GCC unroll 8
          for (int j = 0; j < NB; j++) whole[i][j] = dot8<Bits>(whole[i][j], by[j], a);
        }
      };
      if constexpr (Bits == 8) {
        take(values + k, v);
      } else {
        const Ints low = bytes(15);
        Ints half[NB];
#pragma GCC unroll 8
        for (int j = 0; j < NB; j++) half[j] = bit_and(v[j], low);
        take(values + k, half);
#pragma GCC unroll 8
        for (int j = 0; j < NB; j++) half[j] = bit_and(shift_right16(v[j], 4), low);
        take(values + k + 4, half);
      }
    }
    values += size;
    const bool opens = index == begin, closes = index + 1 == end;
#pragma GCC unroll 8
    for (int j = 0; j < NB; j++) {
      Floats scale = floats(1);
      if (p.grouped)
        scale = from_halves(load16(at + j * p.bytes + p.ratios + p.group_of(index) * 32));
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) {
        const Floats number = to_floats(whole[i][j]);
        Floats& before = some[i * NB + j];
        const Floats now = opens ? mul(number, scale) : fmadd(number, scale, before);
        if (closes)
          sum[i * NB + j] = fmadd(now, floats(x.scales[(m + i) * parts + part]), sum[i * NB + j]);
        else
          before = now;
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < NB; j++) {
    const Floats scale = load_floats((const float*)(at + j * p.bytes));
    const int64_t column = (block + j) * kColumns;
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
      put(to, m + i, column, mul(sum[i * NB + j], scale), first(p.w.columns - column));
  }
}

// `count` rows of x, at most MR, by the tile that is made for them.
template <int Bits, int MR, int NB, int Each>
void rows_of(const Packed& p, const Quantized& x, int64_t count, int64_t m, int64_t block, Ahead ahead,
             const Target& to) {
  if constexpr (MR > 1) {
    if (count < MR) return rows_of<Bits, MR - 1, NB, Each>(p, x, count, m, block, ahead, to);
  }
  tile<Bits, MR, NB, Each>(p, x, m, block, ahead, to);
}

// Small groups end often: their tiles are small enough to keep the float sums in registers too (groups of 32, 32 rows:
// 665 against 550 G).
int64_t tiles_of(const Packed& p, int64_t rows) {
  const int64_t most = p.each <= 64 ? kMostRows / 2 : kMostRows;
  return (rows + most - 1) / most;
}

// A panel of NB blocks for all rows. Its first tile finds it in the second cache because the tiles of the panel before
// fetched it, each its part; a panel of a single tile fetches a little ahead of itself.
template <int Bits, int MR, int NB>
void panel(const Packed& p, const Quantized& x, int64_t rows, int64_t block, int64_t end, Ahead after,
           const Target& to) {
  const int64_t tiles = tiles_of(p, rows);
  const Ahead next = block + NB < end ? Ahead{p.block(block + NB), p.bytes} : after;
  if (tiles == 1) return rows_of<Bits, MR, NB, 0>(p, x, rows, 0, block, next, to);
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t m = rows * i / tiles, count = rows * (i + 1) / tiles - m;
    const Ahead ahead{next.at + NB * p.bytes * i / tiles, NB * 64 / tiles};
    tiles == 2 ? rows_of<Bits, MR, NB, 2>(p, x, count, m, block, ahead, to)
               : rows_of<Bits, MR, NB, 1>(p, x, count, m, block, ahead, to);
  }
}

template <int Bits>
void panels(const Packed& p, const Quantized& x, int64_t rows, int64_t block, int64_t end, Ahead after,
            const Target& to) {
  const int64_t tiles = tiles_of(p, rows), most = (rows + tiles - 1) / tiles;
  if constexpr (kNarrow) {
    if (most == 1)
      for (; block + 4 <= end; block += 4) panel<Bits, 1, 4>(p, x, rows, block, end, after, to);
    if (most == 2)
      for (; block + 2 <= end; block += 2) panel<Bits, 2, 2>(p, x, rows, block, end, after, to);
    for (; block < end; block++) panel<Bits, kMostRows, 1>(p, x, rows, block, end, after, to);
    return;
  }
  if (most == 1)
    for (; block + 8 <= end; block += 8) panel<Bits, 1, 8>(p, x, rows, block, end, after, to);
  else if (most <= 3)
    for (; block + 4 <= end; block += 4) panel<Bits, 3, 4>(p, x, rows, block, end, after, to);
  else
    for (; block + 3 <= end; block += 3) panel<Bits, 8, 3>(p, x, rows, block, end, after, to);
  for (; block < end; block++) panel<Bits, 8, 1>(p, x, rows, block, end, after, to);
}

void chunks(const Packed& p, const Quantized& x, int64_t rows, int64_t begin, int64_t end, Ahead after,
            const Target& to) {
  const int64_t size = to.type == kF32 ? 4 : 2, width = p.w.inner + (end - begin) * kColumns * size;
  const int64_t most = std::max<int64_t>(8, kCache / width / kMostRows) * kMostRows, count = (rows + most - 1) / most;
  for (int64_t i = 0; i < count; i++) {
    const int64_t m = rows * i / count, now = rows * (i + 1) / count - m;
    const Quantized part{x.values + m * p.w.inner, x.scales + m * p.parts(), x.starts + m * p.sums(), 0, 0};
    const Target there{to.y + m * to.stride * size, to.stride, to.type, to.bias, 0, kSilu};
    const Ahead then = i + 1 < count ? Ahead{p.block(begin), p.bytes} : after;
    p.w.bits == 8 ? panels<8>(p, part, now, begin, end, then, there) : panels<4>(p, part, now, begin, end, then, there);
  }
}

bool merges(const Weights& w, int64_t rows) {
  return amx() && rows >= kTiledRows && w.bits == 4 && w.group <= kSmallGroup && !w.exact;
}

// Many rows: a share of the blocks is so much work that threads take one after the other as they come to it, since a
// core that something else slows down would hold up all.
void shared(const Packed& p, const Quantized& q, const Packed& next, int64_t rows, int64_t blocks, const Target& to) {
  const int64_t threads = omp_get_max_threads(), count = std::min(threads * kShares, (blocks + 1) / 2);
  const auto from = [&](int64_t i) { return std::min(blocks, (blocks * i / count + 1) / 2 * 2); };  // whole pairs
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; i++) {
    const int64_t then = i + threads;
    const uint8_t* at = then < count ? p.block(from(then)) : next.block(next.blocks() * (then - count) / (count * 2));
    amx_quantized(p, q, rows, from(i), i + 1 == count ? blocks : from(i + 1), {(const char*)at, 0}, to);
  }
}

void multiply(Type type, const void* x, const Packed& p, const Packed& next, int64_t rows, int64_t x_stride,
              const Target& to) {
  const bool tiles = amx() && rows >= kTiledRows;
  const Quantized q = type == kF32 ? quantize<F32>(p, x, rows, x_stride, tiles)
                                   : quantize<Bf16>(p, x, rows, x_stride, tiles);
  const int64_t threads = omp_get_max_threads(), blocks = to.half ? to.half : p.blocks();
  if (tiles && rows > 2 * kTileRows && threads > 1) return shared(p, q, next, rows, blocks, to);
#pragma omp parallel for if (threads > 1) schedule(static, 1) num_threads(threads)
  for (int64_t i = 0; i < threads; i++) {
    const int64_t soon = next.blocks() * i / threads, share = next.blocks() * (i + 1) / threads - soon;
    const int64_t begin = blocks * i / threads, end = blocks * (i + 1) / threads;
    const uint8_t* at = next.block(soon);
    tiles ? amx_quantized(p, q, rows, begin, end, {(const char*)at, share / 2 * next.bytes}, to)
          : chunks(p, q, rows, begin, end, {at, next.bytes}, to);
  }
}

}  // namespace

void quantized_linear(Type type, Type out, const void* x, const Weights& w, const float* bias, void* y, int64_t rows,
                      int64_t x_stride, int64_t y_stride, const Weights* next) {
  const Weights& then = next && next->bits ? *next : w;
  multiply(type, x, Packed(w, merges(w, rows)), Packed(then), rows, x_stride, {(char*)y, y_stride, out, bias});
}

bool quantized_gates(const Weights& w, int64_t rows) { return amx() && rows >= kTiledRows; }

void quantized_gated(Type type, Activation activation, const void* x, const Weights& w, const float* bias, void* y,
                     int64_t rows, int64_t x_stride, int64_t y_stride, const Weights& next) {
  multiply(type, x, Packed(w, merges(w, rows)), Packed(next), rows, x_stride,
           {(char*)y, y_stride, type, bias, w.columns / kColumns / 2, activation});
}

}  // namespace strata
