// Scores and sums of values for one new token, over keys and values in the model's type.
#pragma once
#include "running.h"

namespace strata {

template <class T>
void score(const Pages<T, T>& pages, const Unit* q, const typename T::Element* keys, const int64_t* at, int64_t count,
           float* out) {
  const int64_t units = pages.units();
  for (int64_t group = 0; group < count; group += kLanes) {
    __m512 sum[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < units; k += kLanes) {
      const __mmask16 mask = first(units - k);
      const __m512i part = _mm512_maskz_loadu_epi32(mask, q + k);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; i++) {
        const Unit* key = (const Unit*)(keys + at[group + i]) + k;
        sum[i] = T::dot(sum[i], part, _mm512_maskz_loadu_epi32(mask, key));
      }
    }
    _mm512_store_ps(out + group, bend(pages.shape, sum16(sum)));
  }
}

// acc = acc * shrink + weights values, for H heads and V vectors of the head's dimensions from `d` on.
template <class T, int H, int V>
void gather(const Pages<T, T>& pages, const typename T::Element* values, const int64_t* at, const float* weights,
            int64_t count, const float* shrink, Running* r, int64_t d, Fetch& fetch) {
  __m512 sum[H][V];
  const __mmask16 mask = V == 1 ? first(pages.shape.head_dim - d) : (__mmask16)0xffff;
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < V; i++)
      sum[h][i] = _mm512_mul_ps(_mm512_load_ps(r[h].acc + d + i * kLanes), _mm512_set1_ps(shrink[h]));
  for (int64_t p = 0; p < count; p++) {
    fetch.some();
    __m512 value[V];
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) value[i] = T::load(values + at[p] + d + i * kLanes, mask);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const __m512 weight = _mm512_set1_ps(weights[h * kPositions + p]);
#pragma GCC unroll 4
      for (int i = 0; i < V; i++) sum[h][i] = _mm512_fmadd_ps(weight, value[i], sum[h][i]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) _mm512_store_ps(r[h].acc + d + i * kLanes, sum[h][i]);
}

template <class T, int H>
void gather_all(const Pages<T, T>& pages, const typename T::Element* values, const int64_t* at, const float* weights,
                int64_t count, const float* shrink, Running* r, Fetch& fetch) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= pages.shape.head_dim; d += 4 * kLanes)
    gather<T, H, 4>(pages, values, at, weights, count, shrink, r, d, fetch);
  for (; d < pages.shape.head_dim; d += kLanes) gather<T, H, 1>(pages, values, at, weights, count, shrink, r, d, fetch);
}

}  // namespace strata
