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

inline __m512 activate(Activation activation, __m512 v) {
  const __m512 one = _mm512_set1_ps(1.0f);
  if (activation == kSilu) return _mm512_div_ps(v, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), v))));
  const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(v, v), _mm512_mul_ps(v, _mm512_set1_ps(0.044715f)));
  const __m512 bent = tanh(_mm512_mul_ps(_mm512_add_ps(v, cube), _mm512_set1_ps(0.7978845608f)));  // sqrt(2 / pi)
  return _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(0.5f)), _mm512_add_ps(one, bent));
}

}  // namespace strata
