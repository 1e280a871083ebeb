// The product at the heart of wide matrix products and of prefill attention.
#pragma once
#include "vectors.h"

namespace strata {

// NR rows of w [NR][units] against MT*16 columns of packed [units][MT*16]: out [NR][MT*16].
// The rows of w that follow are prefetched: whoever walks w walks it in order.
template <class T, int MT, int NR>
inline void wide_tile(const Unit* w, int64_t units, const Unit* packed, float* out) {
  __m512 sum[NR][MT];
#pragma GCC unroll 16
  for (int j = 0; j < NR; j++)
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++) sum[j][t] = _mm512_setzero_ps();
  auto step = [&](int64_t k) __attribute__((always_inline)) {
    __m512i x[MT];
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++) x[t] = _mm512_load_si512(packed + (k * MT + t) * kLanes);
#pragma GCC unroll 16
    for (int j = 0; j < NR; j++) {
      const __m512i b = _mm512_set1_epi32(w[j * units + k]);
#pragma GCC unroll 4
      for (int t = 0; t < MT; t++) sum[j][t] = T::dot(sum[j][t], b, x[t]);
    }
  };
  int64_t line = 0;
  for (; line + kLanes <= units; line += kLanes)
    for (int64_t i = 0; i < kLanes; i++) {  // beside each unit, one line of the rows that come next
      if (i < NR) _mm_prefetch((const char*)(w + (NR + i) * units + line), _MM_HINT_T0);
      step(line + i);
    }
  for (; line < units; line++) step(line);
#pragma GCC unroll 16
  for (int j = 0; j < NR; j++)
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++) _mm512_store_ps(out + (j * MT + t) * kLanes, sum[j][t]);
}

}  // namespace strata
