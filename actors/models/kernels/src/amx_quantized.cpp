// Products with a weight of 8 or 4 bits, by tiles: `quantized_linear` for more than a few rows where the processor has
// them.
//
// The sums of bytes are whole numbers, so that tiles and VNNI agree to the last bit and each takes the rows that it is
// faster for. A tile's sums hold one group of the weight or one part of x; while those of a part become floats (the
// vector units' work), the tiles already multiply the next. Of 4 bits a block is spread into bytes once for all rows,
// signed and with its zeros taken off, so that nothing is left to be added to its sums.
#include "activation.h"
#include "amx.h"
#include "quantized.h"

#ifdef STRATA_AMX

namespace strata {
namespace {

constexpr int64_t kCache = 1 << 20;    // bytes of x and of sums that stay in the second cache while weights pass by
constexpr int64_t kFirst = 40 << 10;   // of them, of a pair of blocks in the first
constexpr int64_t kFirstSmall = 16 << 10;  // and where groups are small and leave more sums there
constexpr int64_t kDistance = 4096;    // bytes that each of two streams is fetched ahead, of up to 32 rows
constexpr int64_t kMostSums = kSmallGroup / 32;  // of a part
constexpr int kBlocks = 2;             // of 16 columns at a time

// What is computed together: up to 32 rows of x with up to two blocks.
struct Pair {
  const Packed& p;
  const Quantized& x;
  int64_t row, rows;     // of x
  int64_t block, apart;  // of the weight: the first, and how much further the second

  const uint8_t* at(int64_t j) const { return p.block(block + j * apart); }
};

// What is taken off the values of 4 bits of a group, for each of the 16 columns' four bytes.
inline __m512i offset(const Packed& p, const uint8_t* block, int64_t group) {
  if (p.centred) return _mm512_set1_epi8(8);
  const __m128i zeros = _mm_load_si128((const __m128i*)(block + p.zeros + group * kColumns));
  const __m512i added = _mm512_cvtepu8_epi32(_mm_add_epi8(zeros, _mm_set1_epi8(8)));
  return _mm512_mullo_epi32(added, _mm512_set1_epi32(0x01010101));
}

// Where the tiles of a block lie: in the block itself, or spread out.
template <int Bits>
const uint8_t* bytes_of(const Packed& p, int64_t block, uint8_t* into) {
  const uint8_t *at = p.block(block), *values = at + p.values;
  if constexpr (Bits == 8) return values;
  const __m512i low = _mm512_set1_epi8(15);
  uint8_t* to = into;
  for (int64_t index = 0; index < p.sums(); index++) {
    const __m512i off = offset(p, at, p.group_of(index));
    for (int64_t k = 0; k < p.places(index); k += 8, values += 64, to += 128) {
      const __m512i both = _mm512_load_si512(values);
      _mm512_store_si512(to, _mm512_sub_epi8(_mm512_and_si512(both, low), off));
      _mm512_store_si512(to + 64, _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), off));
    }
  }
  return into;
}

// The sums of some places, in the registers. `fetch` is told of each step of a tile's places.
template <int Bits, int MA, int NB, class Fetch>
inline void multiply(const Pair& pair, const uint8_t* const (&w)[kBlocks], int64_t from, int64_t places,
                     const Fetch& fetch) {
  const int64_t step = pair.x.step, inner = pair.p.w.inner, held = pair.x.held;
  const int8_t *upper = pair.x.tile(pair.row, inner), *lower = MA > 1 ? pair.x.tile(pair.row + kTileRows, inner) : nullptr;
  _tile_zero(0);
  if constexpr (NB > 1) _tile_zero(1);
  if constexpr (MA > 1) _tile_zero(2);
  if constexpr (MA > 1 && NB > 1) _tile_zero(3);
  int64_t turn = from / step;
  for (int64_t k = from; k < from + places; k += step) {
    fetch(turn++);
    _tile_stream_loadd(4, upper + k * held, step);
    _tile_loadd(6, w[0] + k * kColumns, kTileBytes);
    if constexpr (MA > 1) _tile_stream_loadd(5, lower + k * held, step);
    if constexpr (NB > 1) _tile_loadd(7, w[1] + k * kColumns, kTileBytes);
    if constexpr (Bits == 8) {
      _tile_dpbsud(0, 4, 6);
      if constexpr (MA > 1) _tile_dpbsud(2, 5, 6);
      if constexpr (NB > 1) _tile_dpbsud(1, 4, 7);
      if constexpr (MA > 1 && NB > 1) _tile_dpbsud(3, 5, 7);
    } else {
      _tile_dpbssd(0, 4, 6);
      if constexpr (MA > 1) _tile_dpbssd(2, 5, 6);
      if constexpr (NB > 1) _tile_dpbssd(1, 4, 7);
      if constexpr (MA > 1 && NB > 1) _tile_dpbssd(3, 5, 7);
    }
  }
}

// And in memory: [MA tiles][16 rows][NB blocks][16 columns].
template <int MA, int NB>
inline void store(int32_t* sums) {
  constexpr int64_t stride = NB * kTileBytes, half = kTileRows * NB * kLanes;
  _tile_stored(0, sums, stride);
  if constexpr (NB > 1) _tile_stored(1, sums + kLanes, stride);
  if constexpr (MA > 1) _tile_stored(2, sums + half, stride);
  if constexpr (MA > 1 && NB > 1) _tile_stored(3, sums + half + kLanes, stride);
}

// Adds rows [from, to) of a part's `Count` sums, each `apart` from the one before, scaled, to the floats of the parts
// before; the first part begins them.
template <int Bits, int NB, int Count>
inline void scale(const Pair& pair, int64_t part, const int32_t* sums, int64_t apart, float* floats, int64_t from,
                  int64_t to) {
  const Packed& p = pair.p;
  const int64_t parts = p.parts(), all = p.sums(), begin = p.first(part);
  const __mmask16 begun = part ? 0xffff : 0;
  __m512 ratio[Count][NB];
  __m512i added[Count][NB];
#pragma GCC unroll 4
  for (int g = 0; g < Count; g++)
#pragma GCC unroll 2
    for (int j = 0; j < NB; j++) {
      const uint8_t* at = pair.at(j);
      const int64_t group = p.group_of(begin + g);
      ratio[g][j] = p.grouped ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(at + p.ratios + group * 32)))
                              : _mm512_set1_ps(1);
      if (Bits == 8 && !p.centred)
        added[g][j] = _mm512_add_epi32(
            _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i*)(at + p.zeros + group * kColumns))),
            _mm512_set1_epi32(128));
    }
  const auto each = [&](auto grouped, auto centred) __attribute__((always_inline)) {
    for (int64_t i = from; i < to; i++) {
      const int64_t row = pair.row + i;
      const __m512 own = _mm512_set1_ps(pair.x.scales[pair.x.place(row, part, parts)]);
      __m512 number[NB];
#pragma GCC unroll 4
      for (int g = 0; g < Count; g++)
#pragma GCC unroll 2
        for (int j = 0; j < NB; j++) {
          __m512i sum = _mm512_load_si512(sums + g * apart + (i * NB + j) * kLanes);
          if constexpr (Bits == 8) {
            const __m512i start = _mm512_set1_epi32(pair.x.starts[pair.x.place(row, begin + g, all)]);
            sum = _mm512_add_epi32(sum, centred ? start : _mm512_mullo_epi32(start, added[g][j]));
          }
          const __m512 whole = _mm512_cvtepi32_ps(sum);
          if (g)
            number[j] = _mm512_fmadd_ps(whole, ratio[g][j], number[j]);
          else
            number[j] = grouped ? _mm512_mul_ps(whole, ratio[0][j]) : whole;
        }
#pragma GCC unroll 2
      for (int j = 0; j < NB; j++) {
        float* at = floats + (i * NB + j) * kLanes;
        _mm512_store_ps(at, _mm512_fmadd_ps(number[j], own, _mm512_maskz_load_ps(begun, at)));
      }
    }
  };
  using Yes = std::true_type;
  using No = std::false_type;
  if (Bits == 8 && !p.centred)
    each(Yes(), No());
  else
    p.grouped ? each(Yes(), Yes()) : each(No(), Yes());
}

// Adds parts [from, to) to `floats`. `fetch` is told of each step.
template <int Bits, int MA, int NB, class Fetch>
void add(const Pair& pair, const uint8_t* const (&w)[kBlocks], int64_t from, int64_t to, float* floats,
         const Fetch& fetch) {
  constexpr int64_t size = MA * kTileRows * NB * kLanes;
  alignas(64) int32_t sums[2][kMostSums][size];
  const Packed& p = pair.p;
  const int64_t first = p.first(from), end = p.end(to - 1);
  const auto floated = [&](int64_t part, int64_t row, int64_t stop) __attribute__((always_inline)) {
    const int32_t* of = sums[part & 1][0];
    switch (p.end(part) - p.first(part)) {
      case 1: return scale<Bits, NB, 1>(pair, part, of, size, floats, row, stop);
      case 2: return scale<Bits, NB, 2>(pair, part, of, size, floats, row, stop);
      case 3: return scale<Bits, NB, 3>(pair, part, of, size, floats, row, stop);
      default: return scale<Bits, NB, 4>(pair, part, of, size, floats, row, stop);
    }
  };
  const auto multiplied = [&](int64_t index) __attribute__((always_inline)) {
    multiply<Bits, MA, NB>(pair, w, index * p.each, p.places(index), fetch);
  };
  asm volatile("" : : : "memory");  // GCC 12 does not know that loads of tiles read memory
  multiplied(first);
  for (int64_t part = from, index = first; part < to; part++) {
    const int64_t begin = index, count = p.end(part) - begin;
    for (; index < begin + count; index++) {
      // In this order: stores of sums that the tiles still work on would hold up loads of the same address modulo 4096.
      const int64_t turn = index - begin;
      if (part > from) floated(part - 1, pair.rows * turn / count, pair.rows * (turn + 1) / count);
      store<MA, NB>(sums[part & 1][turn]);
      if (index + 1 < end) multiplied(index + 1);
    }
  }
  floated(to - 1, 0, pair.rows);
}

template <int NB>
void write(const Pair& pair, const float* floats, const Target& to) {
#pragma GCC unroll 2
  for (int j = 0; j < NB; j++) {
    const __m512 scale = _mm512_load_ps((const float*)pair.at(j));
    const int64_t column = (pair.block + j * pair.apart) * kColumns;
    const __mmask16 mask = first(pair.p.w.columns - column);
    for (int64_t i = 0; i < pair.rows; i++)
      put(to, pair.row + i, column, _mm512_mul_ps(_mm512_load_ps(floats + (i * NB + j) * kLanes), scale), mask);
  }
}

// Gates and ups of the same columns.
template <class T>
void join(const Pair& pair, const float* floats, const Target& to) {
  const int64_t column = pair.block * kColumns, up_column = (pair.block + pair.apart) * kColumns;
  const auto bias = [&](int64_t at) { return to.bias ? _mm512_loadu_ps(to.bias + at) : _mm512_setzero_ps(); };
  const __m512 gate_scale = _mm512_load_ps((const float*)pair.at(0)), gate_bias = bias(column);
  const __m512 up_scale = _mm512_load_ps((const float*)pair.at(1)), up_bias = bias(up_column);
  const auto number = [&](const float* at, __m512 scale, __m512 bias) __attribute__((always_inline)) {
    const __m512 product = _mm512_mul_ps(_mm512_load_ps(at), scale);
    return rounded<T>(to.bias ? _mm512_add_ps(product, bias) : product);
  };
  for (int64_t i = 0; i < pair.rows; i++, floats += 2 * kLanes) {
    const __m512 gate = number(floats, gate_scale, gate_bias), up = number(floats + kLanes, up_scale, up_bias);
    T::store((typename T::Element*)to.y + (pair.row + i) * to.stride + column,
             _mm512_mul_ps(activate<T>(to.activation, gate), up));
  }
}

template <int NB>
void finish(const Pair& pair, const float* floats, const Target& to) {
  if (NB > 1 && to.half)
    to.type == kF32 ? join<F32>(pair, floats, to) : join<Bf16>(pair, floats, to);
  else
    write<NB>(pair, floats, to);
}

// Where NB blocks lie, of 4 bits as bytes.
template <int Bits, int NB>
void find(const Packed& p, int64_t block, int64_t apart, const uint8_t* (&w)[kBlocks]) {
  uint8_t* into = Bits == 8 ? nullptr : (uint8_t*)scratch<kPanel0>(NB * p.w.inner * kColumns);
  for (int j = 0; j < NB; j++) w[j] = bytes_of<Bits>(p, block + j * apart, into + j * p.w.inner * kColumns);
}

// From 17 to 32 rows: `count` blocks, or with NB of 2 twice as many, those of the second stream `apart` from the first. The
// streams fetch ahead of themselves, and where they end from `after` on.
template <int Bits, int NB>
void streams(const Packed& p, const Quantized& x, int64_t rows, int64_t begin, int64_t count, int64_t apart, Next after,
             const Target& to) {
  alignas(64) float floats[2 * kTileRows * NB * kLanes];
  const int64_t lines = p.bytes / 64, steps = (p.w.inner + x.step - 1) / x.step;
  const uint8_t* w[kBlocks];
  for (int64_t i = 0; i < count; i++) {
    const Pair pair{p, x, 0, rows, begin + i, apart};
    const int64_t left = i + 1 < count ? lines : std::max<int64_t>(0, lines - kDistance / 64);
    const char* own = (const char*)pair.at(0) + kDistance;
    find<Bits, NB>(p, pair.block, apart, w);
    add<Bits, 2, NB>(pair, w, 0, p.parts(), floats, [&](int64_t step) __attribute__((always_inline)) {
      for (int64_t line = lines * step / steps; line < lines * (step + 1) / steps; line++) {
        const char* soon = line < left ? own + line * 64 : after.at + (line - left) * 64;
        _mm_prefetch(soon, _MM_HINT_T0);
        if constexpr (NB > 1) _mm_prefetch(soon + (line < left ? apart * p.bytes : after.between), _MM_HINT_T0);
      }
    });
    finish<NB>(pair, floats, to);
  }
}

// More rows: NB blocks for all of them, as many parts at once as have the blocks stay in the first cache; fetches `next`
// into the second meanwhile, and as much `apart` from it.
template <int Bits, int NB>
void pass(const Packed& p, const Quantized& x, int64_t row, int64_t rows, int64_t block, int64_t apart,
          const char* next, const Target& to) {
  constexpr int64_t floats_of = 2 * kTileRows * NB * kLanes;
  const int64_t pairs = (rows + 2 * kTileRows - 1) / (2 * kTileRows), parts = p.parts();
  const int64_t first = p.small ? kFirstSmall : kFirst;
  const int64_t spans = std::min(parts, (p.w.inner * kBlocks * kColumns + first - 1) / first);
  const int64_t lines = p.bytes / 64, steps = (p.w.inner + x.step - 1) / x.step;
  const int64_t each = (lines + pairs * steps - 1) / (pairs * steps);
  float* all = (float*)scratch<kSums>(pairs * floats_of * sizeof(float));
  const uint8_t* w[kBlocks];
  find<Bits, NB>(p, block, apart, w);
  for (int64_t span = 0; span < spans; span++)
    for (int64_t i = 0; i < pairs; i++) {
      const Pair pair{p,     x,    row + 2 * kTileRows * i, std::min(2 * kTileRows, rows - 2 * kTileRows * i),
                      block, apart};
      const auto fetch = [&](int64_t step) __attribute__((always_inline)) {
        const int64_t from = (i * steps + step) * each, stop = std::min(from + each, lines);
        for (int64_t line = from; line < stop; line++)
#pragma GCC unroll 2
          for (int j = 0; j < NB; j++) _mm_prefetch(next + j * apart * p.bytes + line * 64, _MM_HINT_T1);
      };
      float* floats = all + i * floats_of;
      const int64_t from = parts * span / spans, end = parts * (span + 1) / spans;
      pair.rows > kTileRows ? add<Bits, 2, NB>(pair, w, from, end, floats, fetch)
                            : add<Bits, 1, NB>(pair, w, from, end, floats, fetch);
      if (span + 1 == spans) finish<NB>(pair, floats, to);
    }
}

template <int Bits>
void passes(const Packed& p, const Quantized& x, int64_t row, int64_t rows, int64_t begin, int64_t end,
            Next after, const Target& to) {
  const int64_t step = to.half ? 1 : kBlocks, apart = to.half ? to.half : 1;
  const auto at = [&](int64_t block) { return (const char*)p.block(block); };
  for (; begin + step <= end; begin += step)
    pass<Bits, kBlocks>(p, x, row, rows, begin, apart, begin + step < end ? at(begin + step) : after.at, to);
  if (begin < end) pass<Bits, 1>(p, x, row, rows, begin, apart, after.at, to);
}

template <int Bits>
void few(const Packed& p, const Quantized& x, int64_t rows, int64_t begin, int64_t end, Next after, const Target& to) {
  const int64_t count = to.half ? end - begin : (end - begin) / kBlocks, apart = to.half ? to.half : count;
  streams<Bits, kBlocks>(p, x, rows, begin, count, apart, after, to);
  if (!to.half && (end - begin) % kBlocks) streams<Bits, 1>(p, x, rows, end - 1, 1, 0, after, to);
}

}  // namespace

void amx_quantized(const Packed& p, const Quantized& x, int64_t rows, int64_t begin, int64_t end, Next after,
                   const Target& to) {
  const int64_t width = p.w.inner + kBlocks * kColumns * (int64_t)sizeof(float);
  const int64_t most = std::max<int64_t>(1, kCache / width / (2 * kTileRows)) * 2 * kTileRows;
  const Shaped shaped(x.held, x.held, false, x.step);
  const bool byte = p.w.bits == 8;
  if (rows <= 2 * kTileRows)
    return byte ? few<8>(p, x, rows, begin, end, after, to) : few<4>(p, x, rows, begin, end, after, to);
  for (int64_t row = 0; row < rows; row += most) {
    const int64_t now = std::min(most, rows - row);
    const Next then = row + now < rows ? Next{(const char*)p.block(begin), 0} : after;
    byte ? passes<8>(p, x, row, now, begin, end, then, to) : passes<4>(p, x, row, now, begin, end, then, to);
  }
}

}  // namespace strata

#else

namespace strata {

void amx_quantized(const Packed&, const Quantized&, int64_t, int64_t, int64_t, Next, const Target&) {}

}  // namespace strata

#endif
