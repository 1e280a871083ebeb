// Products with a weight of 8 or 4 bits, by tiles: `quantized_linear` for more than a few rows where the processor has
// them.
//
// The sums of bytes are whole numbers, so that tiles and VNNI agree to the last bit and each takes the rows that it is
// faster for. A tile's sums hold one group of the weight or one part of x; while those of a part become floats (the
// vector units' work), the tiles already multiply the next. Of 4 bits a block is spread into bytes once for all rows,
// signed and with its zeros taken off, so that nothing is left to be added to its sums. Where nobody asked for exact
// sums, small groups are merged on the way: values times their group's factor are rounded to bytes of one scale a
// column (half a step of 1/127 of its largest), which spares a sum and its scaling for each group.
#include <optional>

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

// The factor of a group as `times` wants it: in both halves of each column, 2048 times that of a byte.
inline __m512i factor(const Packed& p, const uint8_t* block, int64_t group) {
  __m512 ratio = _mm512_set1_ps(1);
  if (p.grouped) ratio = _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(block + p.ratios + group * 32)));
  const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(ratio, _mm512_set1_ps(2048 * 127 / p.most())));
  return _mm512_mask_mov_epi16(whole, 0xaaaaaaaa, _mm512_slli_epi32(whole, 16));
}

// Signed bytes of 5 bits times `factor`, rounded.
inline __m512i times(__m512i bytes, __m512i factor) {
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 4);
  const __m512i odd = _mm512_srai_epi16(_mm512_and_si512(bytes, _mm512_set1_epi16((int16_t)0xff00)), 4);
  const __m512i high = _mm512_slli_epi16(_mm512_mulhrs_epi16(odd, factor), 8);
  return _mm512_mask_mov_epi8(high, 0x5555555555555555, _mm512_mulhrs_epi16(even, factor));
}

// 4 bits of a block as signed bytes with their zeros taken off, and where `Merged` times their group's factor.
template <bool Merged>
void spread(const Packed& p, const uint8_t* at, uint8_t* to) {
  const __m512i low = _mm512_set1_epi8(15);
  const uint8_t* values = at + p.values;
  for (int64_t group = 0; group < p.w.inner / p.group; group++) {
    const __m512i off = offset(p, at, group), by = Merged ? factor(p, at, group) : off;
    const auto put = [&](__m512i nibbles) __attribute__((always_inline)) {
      const __m512i bytes = _mm512_sub_epi8(_mm512_and_si512(nibbles, low), off);
      _mm512_store_si512(to, Merged ? times(bytes, by) : bytes), to += 64;
    };
    for (int64_t k = 0; k < p.group; k += 8, values += 64) {
      const __m512i both = _mm512_load_si512(values);
      put(both), put(_mm512_srli_epi16(both, 4));
    }
  }
}

// Where the tiles of a block lie: in the block itself, or spread out.
template <int Bits>
const uint8_t* bytes_of(const Packed& p, int64_t block, uint8_t* into) {
  const uint8_t* at = p.block(block);
  if constexpr (Bits == 8) return at + p.values;
  p.merged ? spread<true>(p, at, into) : spread<false>(p, at, into);
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

// What sums of a block are multiplied by in the end.
inline __m512 scales(const Pair& pair, int64_t j) {
  const __m512 scale = _mm512_load_ps((const float*)pair.at(j));
  return pair.p.merged ? _mm512_mul_ps(scale, _mm512_set1_ps(pair.p.most() / 127)) : scale;
}

inline __m512 bias_of(const Target& to, int64_t column, __mmask16 mask = 0xffff) {
  return to.bias ? _mm512_maskz_loadu_ps(mask, to.bias + column) : _mm512_setzero_ps();
}

// Where a row of a pair's floats goes: to the parts that follow,
template <int NB>
struct Kept {
  float* floats;

  void operator()(int64_t i, const __m512 (&row)[NB]) const {
#pragma GCC unroll 2
    for (int j = 0; j < NB; j++) _mm512_store_ps(floats + (i * NB + j) * kLanes, row[j]);
  }
};

// into y,
template <class T, int NB>
struct Written {
  typename T::Element* y[NB];
  int64_t stride;
  __m512 scale[NB], bias[NB];
  __mmask16 mask[NB];

  Written(const Pair& pair, const Target& to) : stride(to.stride) {
    for (int j = 0; j < NB; j++) {
      const int64_t column = (pair.block + j * pair.apart) * kColumns;
      mask[j] = first(pair.p.w.columns - column);
      scale[j] = scales(pair, j), bias[j] = bias_of(to, column, mask[j]);
      y[j] = (typename T::Element*)to.y + pair.row * stride + column;
    }
  }

  void operator()(int64_t i, const __m512 (&row)[NB]) const {
#pragma GCC unroll 2
    for (int j = 0; j < NB; j++)
      T::store(y[j] + i * stride, _mm512_add_ps(_mm512_mul_ps(row[j], scale[j]), bias[j]), mask[j]);
  }
};

// or as a gate times the up of the same column.
template <class T>
struct Joined {
  typename T::Element* y;
  int64_t stride;
  Activation activation;
  __m512 scale[2], bias[2];

  Joined(const Pair& pair, const Target& to) : stride(to.stride), activation(to.activation) {
    for (int j = 0; j < 2; j++)
      scale[j] = scales(pair, j), bias[j] = bias_of(to, (pair.block + j * pair.apart) * kColumns);
    y = (typename T::Element*)to.y + pair.row * stride + pair.block * kColumns;
  }

  void operator()(int64_t i, const __m512 (&row)[2]) const {
    const auto number = [&](int j) { return rounded<T>(_mm512_add_ps(_mm512_mul_ps(row[j], scale[j]), bias[j])); };
    T::store(y + i * stride, _mm512_mul_ps(activate<T>(activation, number(0)), number(1)));
  }
};

// Rows [from, to) of a part's `Count` sums, each `apart` from the one before, scaled, and added to the floats of the parts
// before.
template <int Bits, int NB, int Count, class Sink>
inline void scale(const Pair& pair, int64_t part, const int32_t* sums, int64_t apart, const float* floats, int64_t from,
                  int64_t to, const Sink& sink) {
  const Packed& p = pair.p;
  const int64_t parts = p.parts(), all = p.sums(), begin = p.first(part), tile = pair.row / kTileRows;
  const bool grouped = p.grouped && !p.merged;
  const __mmask16 begun = part ? 0xffff : 0;
  __m512 ratio[Count][NB];
  __m512i added[Count][NB];
#pragma GCC unroll 4
  for (int g = 0; g < Count; g++)
#pragma GCC unroll 2
    for (int j = 0; j < NB; j++) {
      const uint8_t* at = pair.at(j);
      const int64_t group = p.group_of(begin + g);
      ratio[g][j] = grouped ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(at + p.ratios + group * 32)))
                            : _mm512_set1_ps(1);
      if (Bits == 8 && !p.centred)
        added[g][j] = _mm512_add_epi32(
            _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i*)(at + p.zeros + group * kColumns))),
            _mm512_set1_epi32(128));
    }
  const auto each = [&](auto grouped, auto centred) __attribute__((always_inline)) {
    for (int64_t i = from; i < to;) {
      const int64_t half = i / kTileRows, stop = std::min(to, (half + 1) * kTileRows), first = half * kTileRows;
      const float* own = pair.x.scales + ((tile + half) * parts + part) * kTileRows - first;
      const int32_t* starts = Bits == 8 ? pair.x.starts + ((tile + half) * all + begin) * kTileRows - first : nullptr;
      for (; i < stop; i++) {
        __m512 number[NB];
#pragma GCC unroll 4
        for (int g = 0; g < Count; g++)
#pragma GCC unroll 2
          for (int j = 0; j < NB; j++) {
            __m512i sum = _mm512_load_si512(sums + g * apart + (i * NB + j) * kLanes);
            if constexpr (Bits == 8) {
              const __m512i start = _mm512_set1_epi32(starts[g * kTileRows + i]);
              sum = _mm512_add_epi32(sum, centred ? start : _mm512_mullo_epi32(start, added[g][j]));
            }
            const __m512 whole = _mm512_cvtepi32_ps(sum);
            if (g)
              number[j] = _mm512_fmadd_ps(whole, ratio[g][j], number[j]);
            else
              number[j] = grouped ? _mm512_mul_ps(whole, ratio[0][j]) : whole;
          }
        const __m512 by = _mm512_set1_ps(own[i]);
#pragma GCC unroll 2
        for (int j = 0; j < NB; j++)
          number[j] = _mm512_fmadd_ps(number[j], by, _mm512_maskz_load_ps(begun, floats + (i * NB + j) * kLanes));
        sink(i, number);
      }
    }
  };
  using Yes = std::true_type;
  using No = std::false_type;
  if (Bits == 8 && !p.centred)
    each(Yes(), No());
  else
    grouped ? each(Yes(), Yes()) : each(No(), Yes());
}

// Pairs one after the other: while the tiles multiply a part, the sums of the part before become floats, and those of a
// pair's last part are finished.
template <int Bits, int NB>
class Belt {
 public:
  explicit Belt(const Target& to) : to(to) {}

  // Parts [from, end) of a pair. `last`: then its floats are whole. `fetch` is told of each step.
  template <class Fetch>
  void take(const Pair& pair, const uint8_t* const (&w)[kBlocks], int64_t from, int64_t end, float* floats, bool last,
            const Fetch& fetch) {
    pair.rows > kTileRows ? taken<2>(pair, w, from, end, floats, last, fetch)
                          : taken<1>(pair, w, from, end, floats, last, fetch);
  }

  void end() { proceed(0, 1); }

 private:
  static constexpr int64_t kSize = 2 * kTileRows * NB * kLanes;

  // A part whose sums are in memory.
  struct Waiting {
    Pair pair;
    int64_t part;
    float* floats;
    bool last;
  };

  template <int MA, class Fetch>
  inline void taken(const Pair& pair, const uint8_t* const (&w)[kBlocks], int64_t from, int64_t end, float* floats,
                    bool last, const Fetch& fetch) {
    const Packed& p = pair.p;
    asm volatile("" : : : "memory");  // GCC 12 does not know that loads of tiles read memory
    for (int64_t part = from; part < end; part++) {
      const int64_t begin = p.first(part), count = p.end(part) - begin;
      for (int64_t turn = 0; turn < count; turn++) {
        // In this order: stores of sums that the tiles still work on would hold up loads of the same address modulo 4096.
        multiply<Bits, MA, NB>(pair, w, (begin + turn) * p.each, p.places(begin + turn), fetch);
        proceed(turn, count);
        store<MA, NB>(sums[side][turn]);
      }
      waiting.emplace(Waiting{pair, part, floats, last && part + 1 == end});
      side ^= 1;
    }
  }

  // The `turn`-th of `count` shares of what waits.
  void proceed(int64_t turn, int64_t count) {
    if (!waiting) return;
    const Pair& pair = waiting->pair;
    const int64_t part = waiting->part, from = pair.rows * turn / count, stop = pair.rows * (turn + 1) / count;
    const int32_t* of = sums[side ^ 1][0];
    float* floats = waiting->floats;
    const auto run = [&](const auto& sink) __attribute__((always_inline)) {
      switch (pair.p.end(part) - pair.p.first(part)) {
        case 1: return scale<Bits, NB, 1>(pair, part, of, kSize, floats, from, stop, sink);
        case 2: return scale<Bits, NB, 2>(pair, part, of, kSize, floats, from, stop, sink);
        case 3: return scale<Bits, NB, 3>(pair, part, of, kSize, floats, from, stop, sink);
        default: return scale<Bits, NB, 4>(pair, part, of, kSize, floats, from, stop, sink);
      }
    };
    if (!waiting->last) return run(Kept<NB>{floats});
    if constexpr (NB > 1)
      if (to.half) return to.type == kF32 ? run(Joined<F32>(pair, to)) : run(Joined<Bf16>(pair, to));
    to.type == kF32 ? run(Written<F32, NB>(pair, to)) : run(Written<Bf16, NB>(pair, to));
  }

  alignas(64) int32_t sums[2][kMostSums][kSize];
  int side = 0;  // that is written
  std::optional<Waiting> waiting;
  const Target& to;
};

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
  Belt<Bits, NB> belt(to);
  const int64_t lines = p.bytes / 64, steps = (p.w.inner + x.step - 1) / x.step;
  const int64_t distance = Bits == 8 ? kDistance : p.bytes;  // 4 bits are spread whole before they are multiplied
  const uint8_t* w[kBlocks];
  for (int64_t i = 0; i < count; i++) {
    const Pair pair{p, x, 0, rows, begin + i, apart};
    const int64_t left = i + 1 < count ? lines : std::max<int64_t>(0, lines - distance / 64);
    const char* own = (const char*)pair.at(0) + distance;
    find<Bits, NB>(p, pair.block, apart, w);
    belt.take(pair, w, 0, p.parts(), floats, true, [&](int64_t step) __attribute__((always_inline)) {
      for (int64_t line = lines * step / steps; line < lines * (step + 1) / steps; line++) {
        const char* soon = line < left ? own + line * 64 : after.at + (line - left) * 64;
        _mm_prefetch(soon, _MM_HINT_T0);
        if constexpr (NB > 1) _mm_prefetch(soon + (line < left ? apart * p.bytes : after.between), _MM_HINT_T0);
      }
    });
  }
  belt.end();
}

// More rows: NB blocks for all of them, as many parts at once as have the blocks stay in the first cache; fetches `next`
// into the second meanwhile, and as much `apart` from it.
template <int Bits, int NB>
void pass(const Packed& p, const Quantized& x, int64_t row, int64_t rows, int64_t block, int64_t apart,
          const char* next, Belt<Bits, NB>& belt) {
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
      belt.take(pair, w, from, end, floats, span + 1 == spans, fetch);
    }
}

template <int Bits>
void passes(const Packed& p, const Quantized& x, int64_t row, int64_t rows, int64_t begin, int64_t end,
            Next after, const Target& to) {
  const int64_t step = to.half ? 1 : kBlocks, apart = to.half ? to.half : 1;
  const auto at = [&](int64_t block) { return (const char*)p.block(block); };
  Belt<Bits, kBlocks> belt(to);
  for (; begin + step <= end; begin += step)
    pass<Bits, kBlocks>(p, x, row, rows, begin, apart, begin + step < end ? at(begin + step) : after.at, belt);
  belt.end();
  if (begin == end) return;
  Belt<Bits, 1> single(to);
  pass<Bits, 1>(p, x, row, rows, begin, apart, after.at, single);
  single.end();
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
