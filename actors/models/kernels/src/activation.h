// What is done to a gate before it is multiplied with its neighbour.
#pragma once
#include "kernels.h"
#include "vectors.h"

namespace strata {

// As it would be read again after it was stored.
template <class T>
inline Floats rounded(Floats v) {
  if constexpr (T::per_unit == 1) return v;
  return Bf16::wide(narrow(v));
}

template <class T>
inline Floats activate(Activation activation, Floats v) {
  const Floats one = floats(1.0f);
  if (activation == kSilu) {
    const Floats most = floats(125.0f);  // in this order a NaN stays one
    const Floats falling = power<T>(min(most, mul(v, floats(-kLog2E))));
    return mul(v, inverse(add(one, falling)));
  }
  const Floats cube = mul(mul(v, v), mul(v, floats(0.044715f)));
  const Floats bent = tanh(mul(add(v, cube), floats(0.7978845608f)));  // sqrt(2 / pi)
  return mul(mul(v, floats(0.5f)), add(one, bent));
}

}  // namespace strata
