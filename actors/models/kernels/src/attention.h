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
    const Ints keep = ints(left >= C::per_unit ? -1 : left <= 0 ? 0 : 0xffff);
    for (int64_t d = 0; d < dim; d += kLanes) {
      const Picked mask = first(dim - d);
      store(into + i * dim + d, mask,
                               bit_and(keep, load_ints(mask, (Unit*)from + i * dim + d)));
    }
  }
}

// How the units of a cache are multiplied: a float, a pair of bf16, or a pair of bytes as 16-bit integers, whose sums
// are exact. Queries and weights are rounded to 16 bits for the last, so that what is lost is lost in the cache.
template <class C>
struct Units {
  using Sum = Floats;
  static constexpr int bytes = 4;
  static Sum none() { return floats(0); }
  static Sum dot(Sum sum, Ints a, Ints b) { return C::dot(sum, a, b); }
  static Ints load(const char* at) { return load_ints(at); }
  static Ints load(const char* at, Picked mask) { return load_ints(mask, at); }
};

template <>
struct Units<Int8> {
  using Sum = Ints;
  static constexpr int bytes = 2;
  static Sum none() { return ints(0); }
  static Sum dot(Sum sum, Ints a, Ints b) { return dot16(sum, a, b); }
  static Ints load(const char* at) { return widen_s8_to_16(load16(at)); }
  static Ints load(const char* at, Picked mask) { return widen_s8_to_16(load16(mask, at)); }
};

// A score times `slope` is the logarithm to base 2 of its weight, but for what all positions share.
inline float slope_of(const Attention& shape) { return shape.softcap == 0 ? shape.scale * kLog2E : 1.0f; }

// Scores bent by tanh where the model asks for it, after which their slope is 1.
inline Floats bend(const Attention& shape, Floats score) {
  const Floats bent = tanh(mul(score, floats(shape.scale / shape.softcap)));
  return mul(bent, floats(shape.softcap * kLog2E));
}

// Of the largest score so far, which is -inf where nothing was seen: what scores are taken relative to.
inline Floats base_of(Floats top) {
  const Floats none = floats(-INFINITY);
  return merge(top, equal(top, none), floats(0));
}

// The total of a pass from the sums of its even and odd neighbours, `pairs[i]` of positions 2i and 2i + 1 of all tiles.
inline Floats total_of(const Floats* pairs) {
  const Floats a = add(pairs[0], pairs[4]), b = add(pairs[1], pairs[5]);
  const Floats c = add(pairs[2], pairs[6]), d = add(pairs[3], pairs[7]);
  return add(add(a, c), add(b, d));
}

// The same where the 16 sums of a place within a tile are the lanes of one vector; every lane is the total.
inline Floats total_of(Floats places) {
  const Floats pairs = add(places, order_lanes<0xb1>(places));
  const Floats a = add(pairs, order_blocks<0x4e>(pairs));
  const Floats b = add(a, order_blocks<0xb1>(a));
  return add(b, order_lanes<0x4e>(b));
}

// What two neighbouring segments' sums are multiplied by before they are added, and their common top.
template <class T>
struct Joint {
  Floats top, left, right;

  Joint(Floats a, Floats b) : top(max(a, b)) {
    const Floats base = base_of(top);
    left = power<T>(sub(a, base)), right = power<T>(sub(b, base));
  }

  Floats join(Floats a, Floats b) const { return fmadd(a, left, mul(b, right)); }
};

// Weights for values of bytes as 16-bit integers: what they are multiplied by, from the largest of them.
inline Floats rounding_of(Floats most) {
  const Floats unit = div(floats(INT16_MAX), most);
  // so small that the quotient may be infinite: nothing is left of it. A NaN stays one.
  return merge(unit, less(most, floats(1e-30f)), floats(0));
}

// One head of a query as 16-bit integers, `out` [head_dim in whole vectors]; returns the scale that turns them back.
template <class T>
inline float round_query(const typename T::Element* q, int64_t dim, int16_t* out) {
  // as large as the sum of `dim` products can take
  const float most = std::min<int64_t>(INT16_MAX, INT32_MAX / 127 / dim - 1);
  const float scale = magnitude(dim, [&](int64_t i, Picked m) { return T::load(q + i, m); }) / most;
  const Floats unit = floats(scale == 0 ? 1.0f : scale);
  for (int64_t i = 0; i < dim; i += kLanes)
    store16(out + i, saturate16(to_ints(div(T::load(q + i, first(dim - i)), unit))));
  return scale;
}

template <class T, class C>
void attend_decodes(const Pages<T, C>& pages);
template <class T, class C>
void attend_chunks(const Pages<T, C>& pages);

}  // namespace strata
