// Products with a weight of 8 or 4 bits, by tiles: `quantized_linear` for more than a few rows where the processor has
// them.
//
// The sums of bytes are whole numbers, so that tiles and VNNI agree to the last bit and each takes the rows that it is
// faster for. A tile's sums hold one part of the inner places; while they become floats (the vector units' work), the
// tiles already multiply the next part. Of 4 bits a block is spread into bytes once for all rows.
#include "activation.h"
#include "amx.h"
#include "quantized.h"

#ifdef STRATA_AMX

namespace strata {
namespace {

constexpr int64_t kCache = 1 << 20;    // bytes of x and of sums that stay in the second cache while weights pass by
constexpr int64_t kFirst = 40 << 10;   // of them, of a pair of blocks in the first
constexpr int kBlocks = 2;             // of 16 columns at a time

// What is computed together: up to 32 rows of x with up to two blocks.
struct Pair {
  const Packed& p;
  const Quantized& x;
  int64_t row, rows;     // of x
  int64_t block, apart;  // of the weight: the first, and how much further the second

  const uint8_t* at(int64_t j) const { return p.block(block + j * apart); }
};

// Where the tiles of a block lie: in the block itself, or spread out.
template <int Bits>
const uint8_t* bytes_of(const Packed& p, int64_t block, uint8_t* into) {
  const uint8_t* values = p.block(block) + p.values;
  if constexpr (Bits == 8) return values;
  const __m512i low = _mm512_set1_epi8(15);
  for (int64_t k = 0; k < p.w.inner / 8; k++) {
    const __m512i both = _mm512_load_si512(values + k * 64);
    _mm512_store_si512(into + k * 128, _mm512_and_si512(both, low));
    _mm512_store_si512(into + k * 128 + 64, _mm512_and_si512(_mm512_srli_epi16(both, 4), low));
  }
  return into;
}

// The sums of one part, in the registers.
template <int MA, int NB>
inline void multiply(const Pair& pair, const uint8_t* const (&w)[kBlocks], int64_t part) {
  const int64_t step = pair.x.step, inner = pair.p.w.inner, held = pair.x.held;
  const int64_t from = part * pair.p.shared, to = from + pair.p.size(part);
  const int8_t *upper = pair.x.tile(pair.row, inner), *lower = MA > 1 ? pair.x.tile(pair.row + kTileRows, inner) : nullptr;
  _tile_zero(0);
  if constexpr (NB > 1) _tile_zero(1);
  if constexpr (MA > 1) _tile_zero(2);
  if constexpr (MA > 1 && NB > 1) _tile_zero(3);
  for (int64_t k = from; k < to; k += step) {
    _tile_stream_loadd(4, upper + k * held, step);
    _tile_loadd(6, w[0] + k * kColumns, kTileBytes);
    _tile_dpbsud(0, 4, 6);
    if constexpr (MA > 1) {
      _tile_stream_loadd(5, lower + k * held, step);
      _tile_dpbsud(2, 5, 6);
    }
    if constexpr (NB > 1) {
      _tile_loadd(7, w[1] + k * kColumns, kTileBytes);
      _tile_dpbsud(1, 4, 7);
      if constexpr (MA > 1) _tile_dpbsud(3, 5, 7);
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

// Adds a part's sums, scaled, to the floats of the parts before; the first begins them.
template <int Bits, int NB>
inline void scale(const Pair& pair, int64_t part, const int32_t* sums, float* floats) {
  const Packed& p = pair.p;
  const int64_t parts = p.parts(), group = part / p.ratio();
  const __mmask16 begun = part ? 0xffff : 0;
  __m512 ratio[NB];
  __m512i added[NB];
#pragma GCC unroll 2
  for (int j = 0; j < NB; j++) {
    const uint8_t* at = pair.at(j);
    if (p.grouped) ratio[j] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(at + p.ratios + group * 32)));
    if (!p.centred)
      added[j] = _mm512_add_epi32(
          _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i*)(at + p.zeros + group * kColumns))),
          _mm512_set1_epi32(Bits == 8 ? 128 : 8));
  }
  const int64_t rows = std::min(pair.rows, kTileRows), later = pair.rows - rows;
  const auto each = [&](auto grouped, auto centred) __attribute__((always_inline)) {
    const auto tile = [&](int64_t row, int64_t count) __attribute__((always_inline)) {
      const int64_t at = pair.x.place(row, part, parts);
      for (int64_t i = 0; i < count; i++, sums += NB * kLanes, floats += NB * kLanes) {
        const __m512i start = _mm512_set1_epi32(pair.x.starts[at + i]);
        const __m512 own = _mm512_set1_ps(pair.x.scales[at + i]);
#pragma GCC unroll 2
        for (int j = 0; j < NB; j++) {
          const __m512i off = centred ? start : _mm512_mullo_epi32(start, added[j]);
          __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(sums + j * kLanes), off));
          if (grouped) sum = _mm512_mul_ps(sum, ratio[j]);
          _mm512_store_ps(floats + j * kLanes, _mm512_fmadd_ps(sum, own, _mm512_maskz_load_ps(begun, floats + j * kLanes)));
        }
      }
    };
    tile(pair.row, rows);
    if (later) tile(pair.row + kTileRows, later);
  };
  using Yes = std::true_type;
  using No = std::false_type;
  p.grouped ? (p.centred ? each(Yes(), Yes()) : each(Yes(), No())) : (p.centred ? each(No(), Yes()) : each(No(), No()));
}

// Adds parts [from, to) to `floats`. `fetch` is told of each part.
template <int Bits, int MA, int NB, class Fetch>
void add(const Pair& pair, const uint8_t* const (&w)[kBlocks], int64_t from, int64_t to, float* floats,
         const Fetch& fetch) {
  alignas(64) int32_t sums[MA * kTileRows * NB * kLanes];
  asm volatile("" : : : "memory");  // GCC 12 does not know that loads of tiles read memory
  multiply<MA, NB>(pair, w, from);
  for (int64_t part = from; part < to; part++) {
    // In this order: stores of sums that the tiles still work on would hold up loads of the same address modulo 4096.
    store<MA, NB>(sums);
    if (part + 1 < to) multiply<MA, NB>(pair, w, part + 1);
    fetch(part);
    scale<Bits, NB>(pair, part, sums, floats);
  }
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

// NB blocks for rows [row, row + rows), as many parts at once as have the blocks stay in the first cache; fetches `next`
// meanwhile and as much `apart` from it.
template <int Bits, int NB>
void pass(const Packed& p, const Quantized& x, int64_t row, int64_t rows, int64_t block, int64_t apart,
          const uint8_t* next, const Target& to) {
  constexpr int64_t floats_of = 2 * kTileRows * NB * kLanes;
  const int64_t pairs = (rows + 2 * kTileRows - 1) / (2 * kTileRows), parts = p.parts();
  const int64_t spans = (p.w.inner * kBlocks * kColumns + kFirst - 1) / kFirst;
  const int64_t lines = p.bytes / 64, each = (lines + pairs * parts - 1) / (pairs * parts);
  float* all = (float*)scratch<kSums>(pairs * floats_of * sizeof(float));
  uint8_t* into = Bits == 8 ? nullptr : (uint8_t*)scratch<kPanel0>(NB * p.w.inner * kColumns);
  const uint8_t* w[kBlocks];
  for (int j = 0; j < NB; j++) w[j] = bytes_of<Bits>(p, block + j * apart, into + j * p.w.inner * kColumns);
  for (int64_t span = 0; span < spans; span++)
    for (int64_t i = 0; i < pairs; i++) {
      const Pair pair{p,     x,    row + 2 * kTileRows * i, std::min(2 * kTileRows, rows - 2 * kTileRows * i),
                      block, apart};
      const auto fetch = [&](int64_t part) __attribute__((always_inline)) {
        const int64_t from = (i * parts + part) * each, stop = std::min(from + each, lines);
        for (int64_t line = from; line < stop; line++)
#pragma GCC unroll 2
          for (int j = 0; j < NB; j++)
            _mm_prefetch((const char*)next + j * apart * p.bytes + line * 64, _MM_HINT_T1);
      };
      float* floats = all + i * floats_of;
      const int64_t from = parts * span / spans, end = parts * (span + 1) / spans;
      pair.rows > kTileRows ? add<Bits, 2, NB>(pair, w, from, end, floats, fetch)
                            : add<Bits, 1, NB>(pair, w, from, end, floats, fetch);
      if (span + 1 < spans) continue;
      if (NB > 1 && to.half)
        to.type == kF32 ? join<F32>(pair, floats, to) : join<Bf16>(pair, floats, to);
      else
        write<NB>(pair, floats, to);
    }
}

template <int Bits>
void passes(const Packed& p, const Quantized& x, int64_t row, int64_t rows, int64_t begin, int64_t end,
            const uint8_t* after, const Target& to) {
  const int64_t step = to.half ? 1 : kBlocks, apart = to.half ? to.half : 1;
  for (; begin + step <= end; begin += step)
    pass<Bits, kBlocks>(p, x, row, rows, begin, apart, begin + step < end ? p.block(begin + step) : after, to);
  if (begin < end) pass<Bits, 1>(p, x, row, rows, begin, apart, after, to);
}

}  // namespace

void amx_quantized(const Packed& p, const Quantized& x, int64_t rows, int64_t begin, int64_t end, const uint8_t* after,
                   const Target& to) {
  const int64_t width = p.w.inner + kBlocks * kColumns * (int64_t)sizeof(float);
  const int64_t most = std::max<int64_t>(1, kCache / width / (2 * kTileRows)) * 2 * kTileRows;
  const Shaped shaped(x.held, x.held, false, x.step);
  for (int64_t row = 0; row < rows; row += most) {
    const int64_t now = std::min(most, rows - row);
    const uint8_t* then = row + now < rows ? p.block(begin) : after;
    p.w.bits == 8 ? passes<8>(p, x, row, now, begin, end, then, to) : passes<4>(p, x, row, now, begin, end, then, to);
  }
}

}  // namespace strata

#else

namespace strata {

void amx_quantized(const Packed&, const Quantized&, int64_t, int64_t, int64_t, const uint8_t*, const Target&) {}

}  // namespace strata

#endif
