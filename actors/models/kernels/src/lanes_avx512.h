// Sixteen lanes of 32 bits in one register of AVX-512. `lanes_avx2.h` says the same in two of AVX2.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace strata {

using Floats = __m512;
using Ints = __m512i;
using Halves = __m256i;    // sixteen numbers of 16 bits
using Bytes = __m128i;     // of 8
using Picked = __mmask16;  // some of the lanes, the first lowest
using Mask = __mmask16;    // the same, as comparisons give it

constexpr int kRegisters = 32;  // for sixteen lanes each

inline Floats floats(float v) { return _mm512_set1_ps(v); }
inline Ints ints(int32_t v) { return _mm512_set1_epi32(v); }
inline Ints bytes(int8_t v) { return _mm512_set1_epi8(v); }
inline Floats as_floats(Ints v) { return _mm512_castsi512_ps(v); }
inline Ints as_ints(Floats v) { return _mm512_castps_si512(v); }
inline Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
inline Ints to_ints(Floats v) { return _mm512_cvtps_epi32(v); }  // to nearest even
inline Floats nearest(Floats v) { return _mm512_roundscale_ps(v, 0); }
inline float lowest(Floats v) { return _mm512_cvtss_f32(v); }

// Lanes that are not picked are zero when they are loaded, and left alone when they are stored.
inline Floats load_floats(const void* p) { return _mm512_loadu_ps(p); }
inline Floats load_floats(Picked m, const void* p) { return _mm512_maskz_loadu_ps(m, p); }
inline Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
inline Ints load_ints(Picked m, const void* p) { return _mm512_maskz_loadu_epi32(m, p); }
inline Halves load16(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Halves load16(Picked m, const void* p) { return _mm256_maskz_loadu_epi16(m, p); }
inline Bytes load8(const void* p) { return _mm_loadu_si128((const __m128i*)p); }
inline Bytes load8(Picked m, const void* p) { return _mm_maskz_loadu_epi8(m, p); }
inline void store(void* p, Floats v) { _mm512_storeu_ps(p, v); }
inline void store(void* p, Picked m, Floats v) { _mm512_mask_storeu_ps(p, m, v); }
inline void store(void* p, Ints v) { _mm512_storeu_si512(p, v); }
inline void store(void* p, Picked m, Ints v) { _mm512_mask_storeu_epi32(p, m, v); }
inline void store16(void* p, Halves v) { _mm256_storeu_si256((__m256i*)p, v); }
inline void store16(void* p, Picked m, Halves v) { _mm256_mask_storeu_epi16(p, m, v); }
inline void store8(void* p, Bytes v) { _mm_storeu_si128((__m128i*)p, v); }
inline void store8(void* p, Picked m, Bytes v) { _mm_mask_storeu_epi8(p, m, v); }

// The picked lanes side by side; what follows them, up to sixteen lanes, is overwritten.
inline void store_picked(void* p, Picked m, Floats v) { _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m, v)); }

// Every other of 32 numbers at `p`, from the first or the second on; the others may be somebody's.
inline void store_between(uint16_t* p, Picked m, const uint16_t* from, int64_t second) {
  const __m512i wide = _mm512_cvtepu16_epi32(load16(m, from));
  _mm512_mask_storeu_epi16(p, _pdep_u32(m, 0x55555555) << second, _mm512_slli_epi32(wide, second * 16));
}
inline void store_between(uint8_t* p, Picked m, const uint8_t* from, int64_t second) {
  const __m256i wide = _mm256_cvtepu8_epi16(load8(m, from));
  _mm256_mask_storeu_epi8(p, _pdep_u32(m, 0x55555555) << second, _mm256_slli_epi16(wide, second * 8));
}

inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // b where one is NaN
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats abs(Floats v) { return _mm512_abs_ps(v); }
inline Floats fmadd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats fmsub(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
inline Floats fnmadd(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
inline Floats add_product(Floats sum, Floats a, Floats b) { return fmadd(a, b, sum); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints mul(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
inline Ints max(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints max_unsigned(Ints a, Ints b) { return _mm512_max_epu32(a, b); }
inline Ints bit_and(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints bit_or(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints shift_left(Ints v, int n) { return _mm512_slli_epi32(v, n); }
inline Ints shift_right(Ints v, int n) { return _mm512_srli_epi32(v, n); }
inline Ints shift_right16(Ints v, int n) { return _mm512_srli_epi16(v, n); }

inline float total(Floats v) { return _mm512_reduce_add_ps(v); }
inline int32_t total(Ints v) { return _mm512_reduce_add_epi32(v); }
inline float largest(Floats v) { return _mm512_reduce_max_ps(v); }
inline int32_t largest(Ints v) { return _mm512_reduce_max_epi32(v); }
inline uint32_t largest_unsigned(Ints v) { return _mm512_reduce_max_epu32(v); }

inline Mask equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline Mask less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask not_less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }  // true where one is NaN
inline Mask not_a_number(Floats v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q); }
inline Mask greater(Ints a, Ints b) { return _mm512_cmpgt_epi32_mask(a, b); }
inline Mask greater_where(Mask m, Ints a, Ints b) { return _mm512_mask_cmpgt_epi32_mask(m, a, b); }
inline Mask at_least(Ints a, Ints b) { return _mm512_cmpge_epi32_mask(a, b); }
inline Mask at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Picked picked(Mask m) { return m; }
inline bool any(Mask m) { return m != 0; }
inline Floats merge(Floats otherwise, Mask m, Floats v) { return _mm512_mask_mov_ps(otherwise, m, v); }
inline Ints merge(Ints otherwise, Mask m, Ints v) { return _mm512_mask_mov_epi32(otherwise, m, v); }

inline Ints widen_u16(Halves v) { return _mm512_cvtepu16_epi32(v); }
inline Ints widen_u8(Bytes v) { return _mm512_cvtepu8_epi32(v); }
inline Ints widen_s8(Bytes v) { return _mm512_cvtepi8_epi32(v); }
inline Ints widen_s8_to_16(__m256i v) { return _mm512_cvtepi8_epi16(v); }  // 32 bytes
inline Floats from_halves(Halves v) { return _mm512_cvtph_ps(v); }         // IEEE half precision
inline Halves low16(Ints v) { return _mm512_cvtepi32_epi16(v); }
inline Halves saturate16(Ints v) { return _mm512_cvtsepi32_epi16(v); }
inline Bytes saturate8(Ints v) { return _mm512_cvtsepi32_epi8(v); }

// Neighbouring 16-bit integers' products, added.
inline Ints pair_products(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }

// Within each 128 bits.
inline Ints interleave_low(Ints a, Ints b) { return _mm512_unpacklo_epi32(a, b); }
inline Ints interleave_high(Ints a, Ints b) { return _mm512_unpackhi_epi32(a, b); }
inline Ints interleave_low64(Ints a, Ints b) { return _mm512_unpacklo_epi64(a, b); }
inline Ints interleave_high64(Ints a, Ints b) { return _mm512_unpackhi_epi64(a, b); }
template <int kOrder>
inline Floats order_lanes(Floats v) { return _mm512_permute_ps(v, kOrder); }
// Two of the four 128-bit blocks of a, then two of b.
template <int kOrder>
inline Ints order_blocks(Ints a, Ints b) { return _mm512_shuffle_i32x4(a, b, kOrder); }
template <int kOrder>
inline Floats order_blocks(Floats v) { return _mm512_shuffle_f32x4(v, v, kOrder); }

// v * 2^n for a whole n; 0 where the mask says no.
inline Floats times_power(Floats v, Floats n) { return _mm512_scalef_ps(v, n); }
inline Floats times_power_where(Mask m, Floats v, Floats n) { return _mm512_maskz_scalef_ps(m, v, n); }

// 1 / v to a unit in the last place, for normal v: a division holds up the vector units four times as long.
inline Floats inverse(Floats v) {
  const Floats about = _mm512_rcp14_ps(v);
  return fmadd(about, fnmadd(v, about, floats(1)), about);
}

inline Halves narrow(Floats v) {  // to bf16, to nearest even
#ifdef __AVX512BF16__
  return (__m256i)_mm512_cvtneps_pbh(v);
#else
  const Ints bits = as_ints(v), odd = bit_and(shift_right(bits, 16), ints(1));
  const Ints rounded = add(bits, add(odd, ints(0x7fff)));
  return low16(shift_right(merge(rounded, not_a_number(v), ints(0x7fc00000)), 16));  // a carry would make some infinite
#endif
}

// Both as bf16, neighbours: `even` in the lower half of each lane.
inline Ints narrow_pairs(Floats even, Floats odd) {
  const Ints all = _mm512_inserti64x4(_mm512_castsi256_si512(narrow(even)), narrow(odd), 1);
  const Ints order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                      20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, all);
}

// Adds a pair of bf16 products, 32-bit lane by lane.
inline Floats dot_bf16(Floats sum, Ints a, Ints b) {
#ifdef __AVX512BF16__
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
  const Ints high = ints(0xffff0000);
  const Floats even = fmadd(as_floats(shift_left(a, 16)), as_floats(shift_left(b, 16)), sum);
  return fmadd(as_floats(bit_and(a, high)), as_floats(bit_and(b, high)), even);
#endif
}

// Adds a pair of products of 16-bit integers.
inline Ints dot16(Ints sum, Ints a, Ints b) {
#ifdef __AVX512VNNI__
  // by name: GCC 12 takes its own intrinsic for one that needs a second register, and spills sums that have one
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
#else
  return add(sum, pair_products(a, b));
#endif
}

// Adds four products of bytes: of a weight, to which kAdded8 (8 bits) or 8 (4 bits) was added, and signed ones.
constexpr int32_t kAdded8 = 128;

template <int kBits>
inline Ints dot8(Ints sum, Ints w, Ints x) {
#ifdef __AVX512VNNI__
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
  return sum;
#else
  const Ints low = pair_products(bit_and(w, _mm512_set1_epi16(0xff)), _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8));
  const Ints high = pair_products(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(x, 8));
  return add(sum, add(low, high));
#endif
}

}  // namespace strata
