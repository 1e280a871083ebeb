// Sixteen lanes at a time: the two element types, their dot product, and moves between lanes.
//
// Weights and activations are walked in 32-bit units: one float, or a pair of neighbouring bf16. A unit is what
// one lane of `dot` takes, so that every kernel above this file is written once for both types.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace strata {

using Unit = uint32_t;
constexpr int kLanes = 16;

inline __mmask16 first(int64_t n) { return n >= kLanes ? 0xffff : (n <= 0 ? 0 : (1u << n) - 1); }

struct F32 {
  using Element = float;
  static constexpr int per_unit = 1;
  static inline __m512 dot(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static inline __m512 load(const Element* p, __mmask16 m = 0xffff) { return _mm512_maskz_loadu_ps(m, p); }
  static inline void store(Element* p, __m512 v, __mmask16 m = 0xffff) { _mm512_mask_storeu_ps(p, m, v); }
};

inline __m256i narrow(__m512 v) {  // to bf16, to nearest even
#ifdef __AVX512BF16__
  return (__m256i)_mm512_cvtneps_pbh(v);
#else
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);  // the carry would turn some NaN into infinity
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000)), 16));
#endif
}

struct Bf16 {
  using Element = uint16_t;
  static constexpr int per_unit = 2;
  static inline __m512 dot(__m512 sum, __m512i a, __m512i b) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
    const __m512i high = _mm512_set1_epi32(0xffff0000);
    const __m512 even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                                        _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                           _mm512_castsi512_ps(_mm512_and_si512(b, high)), even);
#endif
  }
  static inline __m512 load(const Element* p, __mmask16 m = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
  }
  static inline void store(Element* p, __m512 v, __mmask16 m = 0xffff) { _mm256_mask_storeu_epi16(p, m, narrow(v)); }
};

// Signed bytes of a cache, each of which a scale turns into a number; bf16 holds them all exactly.
struct Int8 {
  using Element = int8_t;
  static constexpr int per_unit = 2;
  static inline __m512 load(const Element* p, __mmask16 m = 0xffff) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, p)));
  }
};

// Adds the products of 32 pairs of 16-bit integers to 16 sums.
inline __m512i dot(__m512i sum, __m512i a, __m512i b) {
#ifdef __AVX512VNNI__
  return _mm512_dpwssd_epi32(sum, a, b);
#else
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}

// The largest magnitude among numbers that `load(i, mask)` gives; NaN if one of them is NaN.
template <class F>
inline float magnitude(int64_t count, F&& load) {
  __m512 most = _mm512_setzero_ps();
  __mmask16 odd = 0;
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m512 v = load(i, first(count - i));
    odd |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    most = _mm512_max_ps(most, _mm512_abs_ps(v));
  }
  return odd ? NAN : _mm512_reduce_max_ps(most);
}

// The sums of four vectors' lanes, in order: 13 instructions where four separate sums take 28.
inline __m128 sum4(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

inline __m128i sum4(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti32x8_epi32(all, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

inline __m512 sum16(const __m512* v) {
  const __m128 a = sum4(v[0], v[1], v[2], v[3]), b = sum4(v[4], v[5], v[6], v[7]);
  const __m128 c = sum4(v[8], v[9], v[10], v[11]), d = sum4(v[12], v[13], v[14], v[15]);
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_set_m128(b, a)), _mm256_set_m128(d, c), 1);
}

// Sixteen rows of sixteen 32-bit values become sixteen columns, in place.
inline void transpose(__m512i r[kLanes]) {
  __m512i t[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

constexpr float kLog2E = 1.44269504f;

// 2^x, 0 below 2^-125; exactly 1 at 0. Minimax polynomials on [-1/2, 1/2]: to 2 units in the last place, or for bf16,
// which keeps 8 bits, to 3e-6. A result below the normal floats, zero included, would cost the processor a hundred times
// as much, and a position that attention does not see has one.
template <class T>
inline __m512 power(__m512 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ);  // a NaN stays one
  const __m512 n = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, n);
  const auto with = [&](std::initializer_list<float> coefficients) __attribute__((always_inline)) {
    __m512 p = _mm512_set1_ps(*coefficients.begin());
    for (const float* c = coefficients.begin() + 1; c != coefficients.end(); c++)
      p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(*c));
    return _mm512_maskz_scalef_ps(normal, p, n);
  };
  if constexpr (T::per_unit == 2) return with({9.5828529e-3f, 5.5906426e-2f, 2.4024099e-1f, 6.9312418e-1f, 1.0f});
  return with({1.5353362e-4f, 1.3398874e-3f, 9.6184369e-3f, 5.5503324e-2f, 2.4022648e-1f, 6.9314718e-1f, 1.0f});
}

// e^x to about 2 units in the last place (Cephes' expf: range reduction by ln 2, polynomial of degree 6).
inline __m512 exp(__m512 x) {
  x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-103.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(kLog2E)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

inline __m512 tanh(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 e = exp(_mm512_add_ps(x, x));
  return _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one)));
}

// Memory of this thread that lasts until it asks for the same purpose again; never shrinks.
enum Purpose { kPacked, kDecode, kPrefill, kPartial, kHidden, kMerged, kSeen, kAngles, kBlock, kQueries,
               kRows, kSums, kPanel0, kPanel1, kPanel2, kPanel3 };

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
