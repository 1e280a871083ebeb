// What is done to a gate before it is multiplied with its neighbour.
#pragma once
#include "kernels.h"
#include "vectors.h"

namespace strata {

// As it would be read again after it was stored.
template <class T>
inline __m512 rounded(__m512 v) {
  if constexpr (T::per_unit == 1) return v;
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(v)), 16));
}

// 1 / v to a unit in the last place, for normal v: a division holds up the vector units four times as long.
inline __m512 inverse(__m512 v) {
  const __m512 about = _mm512_rcp14_ps(v);
  return _mm512_fmadd_ps(about, _mm512_fnmadd_ps(v, about, _mm512_set1_ps(1.0f)), about);
}

template <class T>
inline __m512 activate(Activation activation, __m512 v) {
  const __m512 one = _mm512_set1_ps(1.0f);
  if (activation == kSilu) {
    const __m512 most = _mm512_set1_ps(125.0f);  // in this order a NaN stays one
    const __m512 falling = power<T>(_mm512_min_ps(most, _mm512_mul_ps(v, _mm512_set1_ps(-kLog2E))));
    return _mm512_mul_ps(v, inverse(_mm512_add_ps(one, falling)));
  }
  const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(v, v), _mm512_mul_ps(v, _mm512_set1_ps(0.044715f)));
  const __m512 bent = tanh(_mm512_mul_ps(_mm512_add_ps(v, cube), _mm512_set1_ps(0.7978845608f)));  // sqrt(2 / pi)
  return _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(0.5f)), _mm512_add_ps(one, bent));
}

}  // namespace strata
