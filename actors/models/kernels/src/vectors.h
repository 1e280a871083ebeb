// Sixteen lanes at a time: the two element types, their dot product, and moves between lanes.
//
// Weights and activations are walked in 32-bit units: one float, or a pair of neighbouring bf16. A unit is what
// one lane of `dot` takes, so that every kernel above this file is written once for both types.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#ifdef __AVX512F__
#include "lanes_avx512.h"
#else
#include "lanes_avx2.h"
#endif

namespace strata {

using Unit = uint32_t;
constexpr int kLanes = 16;
constexpr Picked kAll = 0xffff;
constexpr bool kNarrow = kRegisters < 32;  // products then have smaller tiles

inline Picked first(int64_t n) { return n >= kLanes ? kAll : (n <= 0 ? 0 : (1u << n) - 1); }

struct F32 {
  using Element = float;
  static constexpr int per_unit = 1;
  static inline Floats dot(Floats sum, Ints a, Ints b) { return fmadd(as_floats(a), as_floats(b), sum); }
  static inline Floats load(const Element* p) { return load_floats(p); }
  static inline Floats load(const Element* p, Picked m) { return load_floats(m, p); }
  static inline void store(Element* p, Floats v) { strata::store(p, v); }
  static inline void store(Element* p, Floats v, Picked m) { strata::store(p, m, v); }
};

struct Bf16 {
  using Element = uint16_t;
  static constexpr int per_unit = 2;
  static inline Floats dot(Floats sum, Ints a, Ints b) { return dot_bf16(sum, a, b); }
  static inline Floats wide(Halves v) { return as_floats(shift_left(widen_u16(v), 16)); }
  static inline Floats load(const Element* p) { return wide(load16(p)); }
  static inline Floats load(const Element* p, Picked m) { return wide(load16(m, p)); }
  static inline void store(Element* p, Floats v) { store16(p, narrow(v)); }
  static inline void store(Element* p, Floats v, Picked m) { store16(p, m, narrow(v)); }
};

// Signed bytes of a cache, each of which a scale turns into a number; bf16 holds them all exactly.
struct Int8 {
  using Element = int8_t;
  static constexpr int per_unit = 2;
};

// The largest magnitude among numbers that `load(i, mask)` gives; NaN if one of them is NaN.
template <class F>
inline float magnitude(int64_t count, F&& load) {
  Floats most = floats(0);
  bool odd = false;
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats v = load(i, first(count - i));
    odd |= any(not_a_number(v));
    most = max(most, abs(v));
  }
  return odd ? NAN : largest(most);
}

// Sixteen rows of sixteen 32-bit values become sixteen columns, in place.
inline void transpose(Ints r[kLanes]) {
  Ints t[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = interleave_low(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = interleave_high(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = interleave_low64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = interleave_high64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = interleave_low64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = interleave_high64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = order_blocks<0x88>(r[i], r[i + 4]);
    t[i + 4] = order_blocks<0xdd>(r[i], r[i + 4]);
    t[i + 8] = order_blocks<0x88>(r[i + 8], r[i + 12]);
    t[i + 12] = order_blocks<0xdd>(r[i + 8], r[i + 12]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = order_blocks<0x88>(t[i], t[i + 8]);
    r[i + 8] = order_blocks<0xdd>(t[i], t[i + 8]);
    r[i + 4] = order_blocks<0x88>(t[i + 4], t[i + 12]);
    r[i + 12] = order_blocks<0xdd>(t[i + 4], t[i + 12]);
  }
}

constexpr float kLog2E = 1.44269504f;

// 2^x, 0 below 2^-125; exactly 1 at 0. Minimax polynomials on [-1/2, 1/2]: to 2 units in the last place, or for bf16,
// which keeps 8 bits, to 3e-6. A result below the normal floats, zero included, would cost the processor a hundred times
// as much, and a position that attention does not see has one.
template <class T>
inline Floats power(Floats x) {
  const Mask normal = not_less(x, floats(-125.0f));  // a NaN stays one
  const Floats n = nearest(x), f = sub(x, n);
  const auto with = [&](std::initializer_list<float> coefficients) __attribute__((always_inline)) {
    Floats p = floats(*coefficients.begin());
    for (const float* c = coefficients.begin() + 1; c != coefficients.end(); c++)
      p = fmadd(p, f, floats(*c));
    return times_power_where(normal, p, n);
  };
  if constexpr (T::per_unit == 2) return with({9.5828529e-3f, 5.5906426e-2f, 2.4024099e-1f, 6.9312418e-1f, 1.0f});
  return with({1.5353362e-4f, 1.3398874e-3f, 9.6184369e-3f, 5.5503324e-2f, 2.4022648e-1f, 6.9314718e-1f, 1.0f});
}

// e^x to about 2 units in the last place (Cephes' expf: range reduction by ln 2, polynomial of degree 6).
inline Floats exp(Floats x) {
  x = max(min(x, floats(88.0f)), floats(-87.0f));
  const Floats n = nearest(mul(x, floats(kLog2E)));
  Floats r = fnmadd(n, floats(0.693359375f), x);
  r = fnmadd(n, floats(-2.12194440e-4f), r);
  Floats p = floats(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = fmadd(p, r, floats(c));
  p = add(fmadd(p, mul(r, r), r), floats(1.0f));
  return times_power(p, n);
}

inline Floats tanh(Floats x) {
  const Floats one = floats(1.0f);
  const Floats e = exp(add(x, x));
  return sub(one, div(floats(2.0f), add(e, one)));
}

// Memory of this thread that lasts until it asks for the same purpose again; never shrinks.
enum Purpose { kPacked, kDecode, kPrefill, kPartial, kHidden, kMerged, kSeen, kAngles, kBlock, kQueries,
               kRows, kSums, kChosen, kPanel0, kPanel1, kPanel2, kPanel3 };

template <Purpose P>
inline void* scratch(size_t bytes) {
  struct Owned {
    void* at = nullptr;
    size_t size = 0;
    ~Owned() { free(at); }
  };
  static thread_local Owned owned;
  if (owned.size < bytes) {
    free(owned.at);
    owned.size = (bytes + 4095) / 4096 * 4096;
    owned.at = aligned_alloc(4096, owned.size);
  }
  return owned.at;
}

}  // namespace strata
