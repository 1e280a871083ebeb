// The product at the heart of attention of many rows: lanes are columns, each a row and a query head.
#pragma once
#include "attention.h"

namespace strata {

// Adds to sum [NR][MT] vectors: `parts` times `steps` steps, each NR neighbouring units of a part, `stride` apart from
// step to step, times MT vectors of `packed`. A line of `ahead` is fetched beside each step, unless it is null.
template <class C, int MT, int NR>
__attribute__((always_inline)) inline void multiply(const Unit* const* parts, int64_t count, int64_t steps,
                                                    int64_t stride, const Unit* packed, const char* ahead,
                                                    typename Units<C>::Sum (&sum)[NR][MT]) {
  for (int64_t part = 0; part < count; part++) {
    const Unit* w = parts[part];
    for (int64_t k = 0; k < steps; k++, w += stride, packed += MT * kLanes) {
      Ints x[MT];
#pragma GCC unroll 4
      for (int t = 0; t < MT; t++) x[t] = load_ints(packed + t * kLanes);
      if (ahead) _mm_prefetch(ahead, _MM_HINT_T0), ahead += 64;
#pragma GCC unroll 16
      for (int j = 0; j < NR; j++) {
        const Ints b = ints(w[j]);
#pragma GCC unroll 4
        for (int t = 0; t < MT; t++) sum[j][t] = Units<C>::dot(sum[j][t], b, x[t]);
      }
    }
  }
}

// NR units from `at` on of 16 positions' keys become their scores [NR][MT * 16], still integers where keys are.
template <class C, int MT, int NR>
void score_columns(const Unit* keys, int64_t units, const Unit* queries, const char* ahead, float* out) {
  typename Units<C>::Sum sum[NR][MT];
#pragma GCC unroll 16
  for (int j = 0; j < NR; j++)
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++) sum[j][t] = Units<C>::none();
  multiply<C, MT, NR>(&keys, 1, units, kTile, queries, ahead, sum);
#pragma GCC unroll 16
  for (int j = 0; j < NR; j++)
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++)
      if constexpr (std::is_same_v<C, Int8>)
        store(out + (j * MT + t) * kLanes, to_floats(sum[j][t]));
      else
        store(out + (j * MT + t) * kLanes, sum[j][t]);
}

// sums [NR dimensions][MT * 16] = sums * shrink + values weights, over all tiles of a pass.
template <class C, int MT, int NR>
void gather_columns(const Unit* const* values, int64_t tiles, int64_t dim, const Unit* weights, const Floats* shrink,
                    const Floats* scale, float* sums) {
  constexpr bool whole = std::is_same_v<C, Int8>;
  typename Units<C>::Sum sum[NR][MT];
#pragma GCC unroll 16
  for (int j = 0; j < NR; j++)
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++)
      if constexpr (whole)
        sum[j][t] = Units<C>::none();
      else
        sum[j][t] = mul(load_floats(sums + (j * MT + t) * kLanes), shrink[t]);
  multiply<C, MT, NR>(values, tiles, kTile / C::per_unit, dim, weights, nullptr, sum);
#pragma GCC unroll 16
  for (int j = 0; j < NR; j++)
#pragma GCC unroll 4
    for (int t = 0; t < MT; t++) {
      float* at = sums + (j * MT + t) * kLanes;
      if constexpr (whole)
        store(at, fmadd(load_floats(at), shrink[t],
                                            mul(to_floats(sum[j][t]), scale[t])));
      else
        store(at, sum[j][t]);
    }
}

}  // namespace strata
