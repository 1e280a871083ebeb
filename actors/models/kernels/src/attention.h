// How keys and values lie in the paged cache, and the one order in which attention adds: what a token's result is made
// of does not depend on how it is computed.
//
// Sixteen slots are a tile; one key head of a tile is [head_dim / 2][16 positions][2] of keys and
// [8 pairs of positions][head_dim][2] of values, in floats [head_dim][16] and [16][head_dim]; its scales are [16].
// Scores and sums of values are then column arithmetic, with lanes along positions or dimensions for a single row and
// along rows for many, and neither kernel moves a number between lanes.
//
// The order, the same in `decode.cpp` and `prefill.cpp`:
// - a score is one chain over the head's units;
// - positions are taken in passes of 64 and segments of 512, both counted from the sequence's first position;
// - within a segment the softmax runs along pass by pass (Milakov and Gimelshein 2018; FlashAttention), its total by
//   `total_of`, and the sum of values is one chain over units of positions;
// - segments start from nothing and are joined from left to right, so that threads may share a context.
// What a row does not see has a weight of exactly 0, and a pass without anything to see multiplies by exactly 1: so a
// kernel may leave out tiles that none of its rows sees.
#pragma once
#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "vectors.h"

namespace strata {

constexpr int kTile = kLanes;  // positions whose keys lie side by side
constexpr int kTiles = 4;      // of a pass: its scores stay in registers or in the first cache
constexpr int64_t kPass = kTiles * kTile;
constexpr int64_t kSegment = 512;  // joining costs a hundredth of computing one

// T: the type of queries and results. C: that of keys and values, T again or Int8.
template <class T, class C>
struct Pages {
  using Element = typename T::Element;
  static constexpr bool scaled = std::is_same_v<C, Int8>;
  const Attention& shape;
  const Step& step;
  const Element* q;
  int64_t q_stride;
  Cache cache;
  Element* out;
  int64_t out_stride;

  int64_t group() const { return shape.heads / shape.kv_heads; }

  int64_t units() const { return shape.head_dim / C::per_unit; }  // of a key, and lines of a tile

  // The number of the tile in which `position` of a sequence lies.
  int64_t tile(int64_t sequence, int64_t position) const {
    const int64_t block = position / step.block_tokens, inside = position % step.block_tokens;
    return (step.tables[sequence * step.table_width + block] * step.block_tokens + inside) / kTile;
  }
};

// One key head of one tile.
struct Tile {
  const char *keys, *values;
  const float *key_scales, *value_scales;
};

template <class T, class C>
inline Tile tile_at(const Pages<T, C>& pages, int64_t tile, int64_t kv_head) {
  const int64_t at = tile * pages.shape.kv_heads + kv_head;
  const int64_t bytes = at * kTile * pages.shape.head_dim * sizeof(typename C::Element);
  const Cache& cache = pages.cache;
  if constexpr (!Pages<T, C>::scaled) return {(char*)cache.keys + bytes, (char*)cache.values + bytes, nullptr, nullptr};
  return {(char*)cache.keys + bytes, (char*)cache.values + bytes, cache.key_scales + at * kTile,
          cache.value_scales + at * kTile};
}

// A tile's values with zeros where nobody has written yet: what lies there may not be a number.
template <class C>
void copy_written(const char* from, int64_t written, int64_t dim, Unit* into) {
  for (int64_t i = 0; i < kTile / C::per_unit; i++) {
    const int64_t left = written - i * C::per_unit;
    const __m512i keep = _mm512_set1_epi32(left >= C::per_unit ? -1 : left <= 0 ? 0 : 0xffff);
    for (int64_t d = 0; d < dim; d += kLanes) {
      const __mmask16 mask = first(dim - d);
      _mm512_mask_storeu_epi32(into + i * dim + d, mask,
                               _mm512_and_si512(keep, _mm512_maskz_loadu_epi32(mask, (Unit*)from + i * dim + d)));
    }
  }
}

// How the units of a cache are multiplied: a float, a pair of bf16, or a pair of bytes as 16-bit integers, whose sums
// are exact. Queries and weights are rounded to 16 bits for the last, so that what is lost is lost in the cache.
template <class C>
struct Units {
  using Sum = __m512;
  static constexpr int bytes = 4;
  static Sum none() { return _mm512_setzero_ps(); }
  static Sum dot(Sum sum, __m512i a, __m512i b) { return C::dot(sum, a, b); }
  static __m512i load(const char* at, __mmask16 mask = 0xffff) { return _mm512_maskz_loadu_epi32(mask, at); }
};

template <>
struct Units<Int8> {
  using Sum = __m512i;
  static constexpr int bytes = 2;
  static Sum none() { return _mm512_setzero_si512(); }
  static Sum dot(Sum sum, __m512i a, __m512i b) {
#ifdef __AVX512VNNI__
    // by name: GCC 12 takes its own intrinsic for one that needs a second register, and spills sums that have one
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    return strata::dot(sum, a, b);
#endif
  }
  static __m512i load(const char* at, __mmask16 mask = 0xffff) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi16(mask, at));
  }
};

// A score times `slope` is the logarithm to base 2 of its weight, but for what all positions share.
inline float slope_of(const Attention& shape) { return shape.softcap == 0 ? shape.scale * kLog2E : 1.0f; }

// Scores bent by tanh where the model asks for it, after which their slope is 1.
inline __m512 bend(const Attention& shape, __m512 score) {
  const __m512 bent = tanh(_mm512_mul_ps(score, _mm512_set1_ps(shape.scale / shape.softcap)));
  return _mm512_mul_ps(bent, _mm512_set1_ps(shape.softcap * kLog2E));
}

// Of the largest score so far, which is -inf where nothing was seen: what scores are taken relative to.
inline __m512 base_of(__m512 top) {
  const __m512 none = _mm512_set1_ps(-INFINITY);
  return _mm512_mask_mov_ps(top, _mm512_cmp_ps_mask(top, none, _CMP_EQ_OQ), _mm512_setzero_ps());
}

// The total of a pass from the sums of its even and odd neighbours, `pairs[i]` of positions 2i and 2i + 1 of all tiles.
inline __m512 total_of(const __m512* pairs) {
  const __m512 a = _mm512_add_ps(pairs[0], pairs[4]), b = _mm512_add_ps(pairs[1], pairs[5]);
  const __m512 c = _mm512_add_ps(pairs[2], pairs[6]), d = _mm512_add_ps(pairs[3], pairs[7]);
  return _mm512_add_ps(_mm512_add_ps(a, c), _mm512_add_ps(b, d));
}

// The same where the 16 sums of a place within a tile are the lanes of one vector; every lane is the total.
inline __m512 total_of(__m512 places) {
  const __m512 pairs = _mm512_add_ps(places, _mm512_permute_ps(places, 0xb1));
  const __m512 a = _mm512_add_ps(pairs, _mm512_shuffle_f32x4(pairs, pairs, 0x4e));
  const __m512 b = _mm512_add_ps(a, _mm512_shuffle_f32x4(a, a, 0xb1));
  return _mm512_add_ps(b, _mm512_permute_ps(b, 0x4e));
}

// What two neighbouring segments' sums are multiplied by before they are added, and their common top.
template <class T>
struct Joint {
  __m512 top, left, right;

  Joint(__m512 a, __m512 b) : top(_mm512_max_ps(a, b)) {
    const __m512 base = base_of(top);
    left = power<T>(_mm512_sub_ps(a, base)), right = power<T>(_mm512_sub_ps(b, base));
  }

  __m512 join(__m512 a, __m512 b) const { return _mm512_fmadd_ps(a, left, _mm512_mul_ps(b, right)); }
};

// Weights for values of bytes as 16-bit integers: what they are multiplied by, from the largest of them.
inline __m512 rounding_of(__m512 most) {
  const __m512 unit = _mm512_div_ps(_mm512_set1_ps(INT16_MAX), most);
  // so small that the quotient may be infinite: nothing is left of it. A NaN stays one.
  return _mm512_mask_mov_ps(unit, _mm512_cmp_ps_mask(most, _mm512_set1_ps(1e-30f), _CMP_LT_OQ), _mm512_setzero_ps());
}

// One head of a query as 16-bit integers, `out` [head_dim in whole vectors]; returns the scale that turns them back.
template <class T>
inline float round_query(const typename T::Element* q, int64_t dim, int16_t* out) {
  // as large as the sum of `dim` products can take
  const float most = std::min<int64_t>(INT16_MAX, INT32_MAX / 127 / dim - 1);
  const float scale = magnitude(dim, [&](int64_t i, __mmask16 m) { return T::load(q + i, m); }) / most;
  const __m512 unit = _mm512_set1_ps(scale == 0 ? 1.0f : scale);
  for (int64_t i = 0; i < dim; i += kLanes)
    _mm256_storeu_si256(
        (__m256i*)(out + i),
        _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_div_ps(T::load(q + i, first(dim - i)), unit))));
  return scale;
}

template <class T, class C>
void attend_decodes(const Pages<T, C>& pages);
template <class T, class C>
void attend_chunks(const Pages<T, C>& pages);

}  // namespace strata
