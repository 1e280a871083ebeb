// What one piece of a decode's context adds up, and how its next rows are fetched meanwhile.
#pragma once
#include "attention.h"

namespace strata {

// The running softmax of one query head over one piece of context: acc = sum of e^(score - top) value.
struct Running {
  float top, total;
  float* acc;  // [head_dim] floats, padded to whole vectors
};

// Turns scores into weights against the new top; returns what the sum so far is to be multiplied by.
inline float soften(float* scores, int64_t count, Running& r) {
  __m512 top = _mm512_set1_ps(r.top);
  for (int64_t i = 0; i < count; i += kLanes)
    top = _mm512_mask_max_ps(top, first(count - i), top, _mm512_load_ps(scores + i));
  const float now = _mm512_reduce_max_ps(top);
  __m512 total = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m512 weight = exp(_mm512_sub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(now)));
    total = _mm512_mask_add_ps(total, first(count - i), total, weight);
    _mm512_store_ps(scores + i, weight);
  }
  const float shrink = r.total > 0 ? std::exp(r.top - now) : 0;
  r.total = r.total * shrink + _mm512_reduce_add_ps(total);
  r.top = now;
  return shrink;
}

// Fetches the rows of a later chunk a few lines at a time, between the arithmetic of this one: prefetches in one
// burst would fill the processor's miss buffers and then hold up everything (7 against 14 GB/s, Zen 5).
struct Fetch {
  const char *keys = nullptr, *values = nullptr;
  const int64_t* at = nullptr;
  const int64_t* last = nullptr;
  int64_t scale = 1, line = 0, lines = 0, each = 0;  // bytes an element, next line, lines a row, lines a call
  const float *key_scales = nullptr, *value_scales = nullptr;
  const int64_t* row = nullptr;  // of `at`, in the scales

  inline void some() {
    for (int64_t i = 0; i < each && at < last; i++) {
      _mm_prefetch(keys + *at * scale + line * 64, _MM_HINT_T0);
      _mm_prefetch(values + *at * scale + line * 64, _MM_HINT_T0);
      if (++line < lines) continue;
      line = 0, at++;
      if (key_scales == nullptr) continue;
      _mm_prefetch((const char*)(key_scales + *row), _MM_HINT_T0);
      _mm_prefetch((const char*)(value_scales + *row), _MM_HINT_T0);
      row++;
    }
  }
};

}  // namespace strata
