// One pass over a few tiles for one row's heads that share a key head: lanes run along positions, then dimensions.
#pragma once
#include "attention.h"

namespace strata {

// The running softmax of one query head over one segment: acc = sum of e^(score - top) value.
struct Running {
  float top, total;
  float* acc;  // [head_dim] floats, padded to whole vectors
};

// A segment joins those before it.
template <class T>
inline void join_segment(Running& before, const Running& piece, int64_t dim) {
  const Joint<T> joint(floats(before.top), floats(piece.top));
  before.top = lowest(joint.top);
  before.total = lowest(joint.join(floats(before.total), floats(piece.total)));
  for (int64_t d = 0; d < dim; d += kLanes)
    store(before.acc + d, joint.join(load_floats(before.acc + d), load_floats(piece.acc + d)));
}

template <class T>
inline void write_head(const Running& all, int64_t dim, typename T::Element* out) {
  const Floats share = floats(1.0f / all.total);
  for (int64_t d = 0; d < dim; d += kLanes)
    T::store(out + d, mul(load_floats(all.acc + d), share), first(dim - d));
}

// The tiles of a pass that hold something to see, one after the other in the sequence.
struct Span {
  int64_t tiles[kTiles];
  int64_t count = 0;
  Picked seen[kTiles];  // positions of each
  int64_t last = 0;        // places of the last tile that were ever written
};

// One key head of a span. Places after the last tile repeat it, for what is computed and not used.
struct Places {
  Tile tile[kTiles];
};

// Queries of one row and key head, as units; scales only where they were rounded.
struct Queries {
  const Unit* units;
  int64_t stride;  // of a head
  const float* scales;
};

template <class C, int H>
struct Shares {
  static constexpr int steps = kTile / C::per_unit;
  alignas(64) Unit units[H][kTiles][steps];
  Floats shrink[H];  // what sums so far are to be multiplied by
  Floats scale[H];   // and what makes numbers of the sums of integers
};

// The units of `ahead` are fetched line by line while those of `now` are multiplied: in one burst they would fill the
// processor's miss buffers and then hold up everything.
template <class T, class C, int H>
inline void score(const Pages<T, C>& pages, const Queries& queries, const Places& now, const Places& ahead,
                  Floats (&out)[H][kTiles]) {
  using U = Units<C>;
  typename U::Sum sum[H][kTiles];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; t++) sum[h][t] = U::none();
  constexpr int64_t step = kTile * U::bytes;
  const int64_t units = pages.units();
  const char* keys[kTiles];
  for (int t = 0; t < kTiles; t++) keys[t] = now.tile[t].keys;
  for (int64_t k = 0; k < units; k++) {
    Ints key[kTiles];
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; t++) {
      key[t] = U::load(keys[t] + k * step);
      if (U::bytes == 4 || k % 2 == 0) _mm_prefetch(ahead.tile[t].keys + k * step, _MM_HINT_T0);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const Ints q = ints(queries.units[h * queries.stride + k]);
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; t++) sum[h][t] = U::dot(sum[h][t], q, key[t]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; t++)
      if constexpr (Pages<T, C>::scaled) {
        const Floats scale = mul(load_floats(now.tile[t].key_scales), floats(queries.scales[h]));
        out[h][t] = mul(to_floats(sum[h][t]), scale);
      } else {
        out[h][t] = sum[h][t];
      }
}

// Scores of a head become weights against the new top.
template <class T, class C, int H>
inline void soften(const Pages<T, C>& pages, const Span& span, const Places& now, const Floats* scores, int h,
                   Running& r, Shares<C, H>& weights) {
  const Floats slope = floats(slope_of(pages.shape)), old = floats(r.top);
  Floats score[kTiles], weight[kTiles], most = floats(-INFINITY);
  for (int t = 0; t < span.count; t++) {
    score[t] = pages.shape.softcap == 0 ? scores[t] : bend(pages.shape, scores[t]);
    score[t] = merge(floats(-INFINITY), span.seen[t], score[t]);
    most = max(most, score[t]);
  }
  const Floats top = max(old, mul(floats(largest(most)), slope));
  const Floats base = base_of(top);
  Floats sum = floats(0);
  for (int t = 0; t < span.count; t++) {
    weight[t] = power<T>(fmsub(score[t], slope, base));
    sum = add(sum, weight[t]);
  }
  weights.shrink[h] = power<T>(sub(old, base));
  r.total = lowest(fmadd(floats(r.total), weights.shrink[h], total_of(sum)));
  r.top = lowest(top);
  if constexpr (Pages<T, C>::scaled) {
    Ints largest = ints(0);  // by bits, which order what is not negative and put a NaN on top
    for (int t = 0; t < span.count; t++) {
      weight[t] = mul(weight[t], load_floats(span.seen[t], now.tile[t].value_scales));
      largest = max_unsigned(largest, as_ints(weight[t]));
    }
    const Floats whole = as_floats(ints(largest_unsigned(largest)));
    const Floats unit = rounding_of(whole);
    weights.scale[h] = mul(whole, floats(1.0f / INT16_MAX));
    for (int t = 0; t < span.count; t++)
      store16(weights.units[h][t], saturate16(to_ints(mul(weight[t], unit))));
  } else {
    for (int t = 0; t < span.count; t++) T::store((typename T::Element*)weights.units[h][t], weight[t]);
  }
}

// acc = acc * shrink + weights values, for H heads and V vectors of the head's dimensions from `d` on.
template <class T, class C, int H, int V>
inline void gather(const Pages<T, C>& pages, const Span& span, const Places& now, const Places& ahead,
                   const Shares<C, H>& weights, int64_t d, Running* r) {
  using U = Units<C>;
  const Picked mask = first(pages.shape.head_dim - d);
  const int64_t stride = pages.shape.head_dim * U::bytes;
  typename U::Sum sum[H][V];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
      if constexpr (Pages<T, C>::scaled)
        sum[h][v] = U::none();
      else
        sum[h][v] = mul(load_floats(r[h].acc + d + v * kLanes), weights.shrink[h]);
  const auto load = [&](const char* at) __attribute__((always_inline)) {
    return V == 1 ? U::load(at, mask) : U::load(at);
  };
  const auto step = [&](int64_t t, int64_t i, Ints keep) __attribute__((always_inline)) {
    Ints value[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      const int64_t at = i * stride + (d + v * kLanes) * U::bytes;
      value[v] = bit_and(keep, load(now.tile[t].values + at));
      if (U::bytes == 4 || v % 2 == 0) _mm_prefetch(ahead.tile[t].values + at, _MM_HINT_T0);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const Ints weight = ints(weights.units[h][t][i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[h][v] = U::dot(sum[h][v], weight, value[v]);
    }
  };
  const Ints all = ints(-1);
  constexpr int64_t steps = Shares<C, H>::steps;
  for (int64_t t = 0; t + 1 < span.count; t++)
    for (int64_t i = 0; i < steps; i++) step(t, i, all);
  const int64_t last = span.count - 1, whole = span.last / C::per_unit;
  for (int64_t i = 0; i < whole; i++) step(last, i, all);
  // the other half of a pair may be anyone's, and not a number
  if (span.last % C::per_unit) step(last, whole, ints(0xffff));
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      float* acc = r[h].acc + d + v * kLanes;
      if constexpr (Pages<T, C>::scaled)
        store(acc, fmadd(load_floats(acc), weights.shrink[h],
                                             mul(to_floats(sum[h][v]), weights.scale[h])));
      else
        store(acc, sum[h][v]);
    }
}

// The whole pass for H query heads.
template <class T, class C, int H>
void attend_span(const Pages<T, C>& pages, const Queries& queries, const Span& span, const Places& now,
                 const Places& ahead, Running* r) {
  Floats scores[H][kTiles];
  Shares<C, H> weights;
  score<T, C, H>(pages, queries, now, ahead, scores);
#pragma GCC unroll 4
  for (int h = 0; h < H; h++) soften<T, C, H>(pages, span, now, scores[h], h, r[h], weights);
  int64_t d = 0;
  for (; d + 4 * kLanes <= pages.shape.head_dim; d += 4 * kLanes)
    gather<T, C, H, 4>(pages, span, now, ahead, weights, d, r);
  for (; d < pages.shape.head_dim; d += kLanes) gather<T, C, H, 1>(pages, span, now, ahead, weights, d, r);
}

}  // namespace strata
