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
  const Joint<T> joint(_mm512_set1_ps(before.top), _mm512_set1_ps(piece.top));
  before.top = _mm512_cvtss_f32(joint.top);
  before.total = _mm512_cvtss_f32(joint.join(_mm512_set1_ps(before.total), _mm512_set1_ps(piece.total)));
  for (int64_t d = 0; d < dim; d += kLanes)
    _mm512_store_ps(before.acc + d, joint.join(_mm512_load_ps(before.acc + d), _mm512_load_ps(piece.acc + d)));
}

template <class T>
inline void write_head(const Running& all, int64_t dim, typename T::Element* out) {
  const __m512 share = _mm512_set1_ps(1.0f / all.total);
  for (int64_t d = 0; d < dim; d += kLanes)
    T::store(out + d, _mm512_mul_ps(_mm512_load_ps(all.acc + d), share), first(dim - d));
}

// The tiles of a pass that hold something to see, one after the other in the sequence.
struct Span {
  int64_t tiles[kTiles];
  int64_t count = 0;
  __mmask16 seen[kTiles];  // positions of each
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
  __m512 shrink[H];  // what sums so far are to be multiplied by
  __m512 scale[H];   // and what makes numbers of the sums of integers
};

// The units of `ahead` are fetched line by line while those of `now` are multiplied: in one burst they would fill the
// processor's miss buffers and then hold up everything.
template <class T, class C, int H>
inline void score(const Pages<T, C>& pages, const Queries& queries, const Places& now, const Places& ahead,
                  __m512 (&out)[H][kTiles]) {
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
    __m512i key[kTiles];
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; t++) {
      key[t] = U::load(keys[t] + k * step);
      if (U::bytes == 4 || k % 2 == 0) _mm_prefetch(ahead.tile[t].keys + k * step, _MM_HINT_T0);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const __m512i q = _mm512_set1_epi32(queries.units[h * queries.stride + k]);
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; t++) sum[h][t] = U::dot(sum[h][t], q, key[t]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; t++)
      if constexpr (Pages<T, C>::scaled) {
        const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(now.tile[t].key_scales), _mm512_set1_ps(queries.scales[h]));
        out[h][t] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[h][t]), scale);
      } else {
        out[h][t] = sum[h][t];
      }
}

// Scores of a head become weights against the new top.
template <class T, class C, int H>
inline void soften(const Pages<T, C>& pages, const Span& span, const Places& now, const __m512* scores, int h,
                   Running& r, Shares<C, H>& weights) {
  const __m512 slope = _mm512_set1_ps(slope_of(pages.shape)), old = _mm512_set1_ps(r.top);
  __m512 score[kTiles], weight[kTiles], most = _mm512_set1_ps(-INFINITY);
  for (int t = 0; t < span.count; t++) {
    score[t] = pages.shape.softcap == 0 ? scores[t] : bend(pages.shape, scores[t]);
    score[t] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), span.seen[t], score[t]);
    most = _mm512_max_ps(most, score[t]);
  }
  const __m512 top = _mm512_max_ps(old, _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(most)), slope));
  const __m512 base = base_of(top);
  __m512 sum = _mm512_setzero_ps();
  for (int t = 0; t < span.count; t++) {
    weight[t] = power<T>(_mm512_fmsub_ps(score[t], slope, base));
    sum = _mm512_add_ps(sum, weight[t]);
  }
  weights.shrink[h] = power<T>(_mm512_sub_ps(old, base));
  r.total = _mm512_cvtss_f32(_mm512_fmadd_ps(_mm512_set1_ps(r.total), weights.shrink[h], total_of(sum)));
  r.top = _mm512_cvtss_f32(top);
  if constexpr (Pages<T, C>::scaled) {
    __m512i largest = _mm512_setzero_si512();  // by bits, which order what is not negative and put a NaN on top
    for (int t = 0; t < span.count; t++) {
      weight[t] = _mm512_mul_ps(weight[t], _mm512_maskz_loadu_ps(span.seen[t], now.tile[t].value_scales));
      largest = _mm512_max_epu32(largest, _mm512_castps_si512(weight[t]));
    }
    const __m512 whole = _mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epu32(largest)));
    const __m512 unit = rounding_of(whole);
    weights.scale[h] = _mm512_mul_ps(whole, _mm512_set1_ps(1.0f / INT16_MAX));
    for (int t = 0; t < span.count; t++)
      _mm256_store_si256((__m256i*)weights.units[h][t],
                         _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(weight[t], unit))));
  } else {
    for (int t = 0; t < span.count; t++) T::store((typename T::Element*)weights.units[h][t], weight[t]);
  }
}

// acc = acc * shrink + weights values, for H heads and V vectors of the head's dimensions from `d` on.
template <class T, class C, int H, int V>
inline void gather(const Pages<T, C>& pages, const Span& span, const Places& now, const Places& ahead,
                   const Shares<C, H>& weights, int64_t d, Running* r) {
  using U = Units<C>;
  const __mmask16 mask = V == 1 ? first(pages.shape.head_dim - d) : (__mmask16)0xffff;
  const int64_t stride = pages.shape.head_dim * U::bytes;
  typename U::Sum sum[H][V];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
      if constexpr (Pages<T, C>::scaled)
        sum[h][v] = U::none();
      else
        sum[h][v] = _mm512_mul_ps(_mm512_load_ps(r[h].acc + d + v * kLanes), weights.shrink[h]);
  const auto step = [&](int64_t t, int64_t i, __m512i keep) __attribute__((always_inline)) {
    __m512i value[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      const int64_t at = i * stride + (d + v * kLanes) * U::bytes;
      value[v] = _mm512_and_si512(keep, U::load(now.tile[t].values + at, mask));
      if (U::bytes == 4 || v % 2 == 0) _mm_prefetch(ahead.tile[t].values + at, _MM_HINT_T0);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const __m512i weight = _mm512_set1_epi32(weights.units[h][t][i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[h][v] = U::dot(sum[h][v], weight, value[v]);
    }
  };
  const __m512i all = _mm512_set1_epi32(-1);
  constexpr int64_t steps = Shares<C, H>::steps;
  for (int64_t t = 0; t + 1 < span.count; t++)
    for (int64_t i = 0; i < steps; i++) step(t, i, all);
  const int64_t last = span.count - 1, whole = span.last / C::per_unit;
  for (int64_t i = 0; i < whole; i++) step(last, i, all);
  // the other half of a pair may be anyone's, and not a number
  if (span.last % C::per_unit) step(last, whole, _mm512_set1_epi32(0xffff));
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      float* acc = r[h].acc + d + v * kLanes;
      if constexpr (Pages<T, C>::scaled)
        _mm512_store_ps(acc, _mm512_fmadd_ps(_mm512_load_ps(acc), weights.shrink[h],
                                             _mm512_mul_ps(_mm512_cvtepi32_ps(sum[h][v]), weights.scale[h])));
      else
        _mm512_store_ps(acc, sum[h][v]);
    }
}

// The whole pass for H query heads.
template <class T, class C, int H>
void attend_span(const Pages<T, C>& pages, const Queries& queries, const Span& span, const Places& now,
                 const Places& ahead, Running* r) {
  __m512 scores[H][kTiles];
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
