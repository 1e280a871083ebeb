// Sixteen lanes of 32 bits in two registers of AVX2: what `lanes_avx512.h` says, for processors that have no more.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define LANES inline __attribute__((always_inline))

namespace strata {

// The first eight lanes and the others.
struct Floats {
  __m256 low, high;
};
struct Ints {
  __m256i low, high;
};
using Halves = __m256i;   // sixteen numbers of 16 bits
using Bytes = __m128i;    // of 8
using Picked = uint16_t;  // some of the lanes, the first lowest

// The same, as comparisons give it: all bits of a lane or none.
struct Mask {
  __m256i low, high;

  LANES Mask(__m256i low, __m256i high) : low(low), high(high) {}
  LANES Mask(Picked m) {
    const __m256i lanes = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    low = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(m), lanes), lanes);
    high = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(m >> 8), lanes), lanes);
  }
};

constexpr int kRegisters = 8;  // for sixteen lanes each

LANES Floats floats(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
LANES Ints ints(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
LANES Ints bytes(int8_t v) { return {_mm256_set1_epi8(v), _mm256_set1_epi8(v)}; }
LANES Floats as_floats(Ints v) { return {_mm256_castsi256_ps(v.low), _mm256_castsi256_ps(v.high)}; }
LANES Ints as_ints(Floats v) { return {_mm256_castps_si256(v.low), _mm256_castps_si256(v.high)}; }
LANES Floats to_floats(Ints v) { return {_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)}; }
LANES Ints to_ints(Floats v) { return {_mm256_cvtps_epi32(v.low), _mm256_cvtps_epi32(v.high)}; }
LANES Floats nearest(Floats v) {
  constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(v.low, how), _mm256_round_ps(v.high, how)};
}
LANES float lowest(Floats v) { return _mm256_cvtss_f32(v.low); }

LANES Floats load_floats(const void* p) {
  return {_mm256_loadu_ps((const float*)p), _mm256_loadu_ps((const float*)p + 8)};
}
LANES Ints load_ints(const void* p) { return as_ints(load_floats(p)); }
// A mask is made only where it leaves something out, as it takes longer than what it saves.
LANES Floats load_floats(Picked m, const void* p) {
  if (m == 0xffff) return load_floats(p);
  const Mask lanes(m);
  return {_mm256_maskload_ps((const float*)p, lanes.low), _mm256_maskload_ps((const float*)p + 8, lanes.high)};
}
LANES Ints load_ints(Picked m, const void* p) { return as_ints(load_floats(m, p)); }
LANES void store(void* p, Floats v) { _mm256_storeu_ps((float*)p, v.low), _mm256_storeu_ps((float*)p + 8, v.high); }
LANES void store(void* p, Picked m, Floats v) {
  if (m == 0xffff) return store(p, v);
  const Mask lanes(m);
  _mm256_maskstore_ps((float*)p, lanes.low, v.low), _mm256_maskstore_ps((float*)p + 8, lanes.high, v.high);
}
LANES void store(void* p, Ints v) { store(p, as_floats(v)); }
LANES void store(void* p, Picked m, Ints v) { store(p, m, as_floats(v)); }

// Lanes of fewer than 32 bits are picked one by one: only what a row has beyond whole vectors is.
template <class E>
inline void copy_picked(E* to, Picked m, const E* from) {
  for (; m; m &= m - 1) to[__builtin_ctz(m)] = from[__builtin_ctz(m)];
}
LANES Halves load16(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
LANES Halves load16(Picked m, const void* p) {
  if (m == 0xffff) return load16(p);
  alignas(32) uint16_t all[16] = {};
  copy_picked(all, m, (const uint16_t*)p);
  return load16(all);
}
LANES Bytes load8(const void* p) { return _mm_loadu_si128((const __m128i*)p); }
LANES Bytes load8(Picked m, const void* p) {
  if (m == 0xffff) return load8(p);
  alignas(16) uint8_t all[16] = {};
  copy_picked(all, m, (const uint8_t*)p);
  return load8(all);
}
LANES void store16(void* p, Halves v) { _mm256_storeu_si256((__m256i*)p, v); }
LANES void store16(void* p, Picked m, Halves v) {
  if (m == 0xffff) return store16(p, v);
  alignas(32) uint16_t all[16];
  store16(all, v);
  copy_picked((uint16_t*)p, m, all);
}
LANES void store8(void* p, Bytes v) { _mm_storeu_si128((__m128i*)p, v); }
LANES void store8(void* p, Picked m, Bytes v) {
  if (m == 0xffff) return store8(p, v);
  alignas(16) uint8_t all[16];
  store8(all, v);
  copy_picked((uint8_t*)p, m, all);
}
inline void store_picked(void* p, Picked m, Floats v) {
  alignas(32) float all[16];
  store(all, v);
  for (char* to = (char*)p; m; m &= m - 1, to += sizeof(float)) memcpy(to, all + __builtin_ctz(m), sizeof(float));
}
template <class E>
inline void store_between(E* p, Picked m, const E* from, int64_t second) {
  for (int i = 0; i < 16; i++)
    if (m >> i & 1) p[2 * i + second] = from[i];
}

#define STRATA_OF_BOTH(type, name, instruction) \
  LANES type name(type a, type b) { return {instruction(a.low, b.low), instruction(a.high, b.high)}; }
STRATA_OF_BOTH(Floats, add, _mm256_add_ps)
STRATA_OF_BOTH(Floats, sub, _mm256_sub_ps)
STRATA_OF_BOTH(Floats, mul, _mm256_mul_ps)
STRATA_OF_BOTH(Floats, div, _mm256_div_ps)
STRATA_OF_BOTH(Floats, max, _mm256_max_ps)
STRATA_OF_BOTH(Floats, min, _mm256_min_ps)
STRATA_OF_BOTH(Ints, add, _mm256_add_epi32)
STRATA_OF_BOTH(Ints, sub, _mm256_sub_epi32)
STRATA_OF_BOTH(Ints, mul, _mm256_mullo_epi32)
STRATA_OF_BOTH(Ints, max, _mm256_max_epi32)
STRATA_OF_BOTH(Ints, max_unsigned, _mm256_max_epu32)
STRATA_OF_BOTH(Ints, bit_and, _mm256_and_si256)
STRATA_OF_BOTH(Ints, bit_or, _mm256_or_si256)
STRATA_OF_BOTH(Ints, pair_products, _mm256_madd_epi16)
STRATA_OF_BOTH(Ints, interleave_low, _mm256_unpacklo_epi32)
STRATA_OF_BOTH(Ints, interleave_high, _mm256_unpackhi_epi32)
STRATA_OF_BOTH(Ints, interleave_low64, _mm256_unpacklo_epi64)
STRATA_OF_BOTH(Ints, interleave_high64, _mm256_unpackhi_epi64)
#undef STRATA_OF_BOTH

LANES Floats fmadd(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
LANES Floats fmsub(Floats a, Floats b, Floats c) {
  return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
LANES Floats fnmadd(Floats a, Floats b, Floats c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
// sum + a * b where a's lanes are equal. In this form: GCC 12 takes others, which need a register more, and then spills
// sums that have one.
LANES Floats add_product(Floats sum, Floats a, Floats b) {
  __m256 low = sum.low, high = sum.high;
  asm("vfmadd231ps %2, %1, %0" : "+x"(low) : "x"(a.low), "x"(b.low));
  asm("vfmadd231ps %2, %1, %0" : "+x"(high) : "x"(a.low), "x"(b.high));
  return {low, high};
}
LANES Ints shift_left(Ints v, int n) { return {_mm256_slli_epi32(v.low, n), _mm256_slli_epi32(v.high, n)}; }
LANES Ints shift_right(Ints v, int n) { return {_mm256_srli_epi32(v.low, n), _mm256_srli_epi32(v.high, n)}; }
LANES Ints shift_right16(Ints v, int n) { return {_mm256_srli_epi16(v.low, n), _mm256_srli_epi16(v.high, n)}; }
LANES Floats abs(Floats v) { return as_floats(bit_and(as_ints(v), ints(0x7fffffff))); }

// Halves are folded onto each other until a lane is left.
template <class V, class F>
LANES V folded(V v, F&& f) {
  v = f(v, V{v.high, v.low});
  const auto low = v.low;
  v.low = (decltype(low))_mm256_permute2x128_si256((__m256i)low, (__m256i)low, 1);
  v = f(V{low, low}, V{v.low, v.low});
  v = f(v, V{(decltype(low))_mm256_shuffle_epi32((__m256i)v.low, 0x4e), v.high});
  return f(v, V{(decltype(low))_mm256_shuffle_epi32((__m256i)v.low, 0xb1), v.high});
}
LANES float total(Floats v) { return lowest(folded(v, [](Floats a, Floats b) { return add(a, b); })); }
LANES float largest(Floats v) { return lowest(folded(v, [](Floats a, Floats b) { return max(a, b); })); }
LANES int32_t lowest(Ints v) { return _mm256_cvtsi256_si32(v.low); }
LANES int32_t total(Ints v) { return lowest(folded(v, [](Ints a, Ints b) { return add(a, b); })); }
LANES int32_t largest(Ints v) { return lowest(folded(v, [](Ints a, Ints b) { return max(a, b); })); }
LANES uint32_t largest_unsigned(Ints v) {
  return lowest(folded(v, [](Ints a, Ints b) { return max_unsigned(a, b); }));
}

template <int kHow>
LANES Mask compare(Floats a, Floats b) {
  return {_mm256_castps_si256(_mm256_cmp_ps(a.low, b.low, kHow)),
          _mm256_castps_si256(_mm256_cmp_ps(a.high, b.high, kHow))};
}
LANES Mask equal(Floats a, Floats b) { return compare<_CMP_EQ_OQ>(a, b); }
LANES Mask less(Floats a, Floats b) { return compare<_CMP_LT_OQ>(a, b); }
LANES Mask not_less(Floats a, Floats b) { return compare<_CMP_NLT_UQ>(a, b); }
LANES Mask not_a_number(Floats v) { return compare<_CMP_UNORD_Q>(v, v); }
LANES Mask greater(Ints a, Ints b) {
  return {_mm256_cmpgt_epi32(a.low, b.low), _mm256_cmpgt_epi32(a.high, b.high)};
}
LANES Mask greater_where(Mask m, Ints a, Ints b) {
  const Mask found = greater(a, b);
  return {_mm256_and_si256(m.low, found.low), _mm256_and_si256(m.high, found.high)};
}
LANES Mask at_least(Ints a, Ints b) {
  const Mask below = greater(b, a);
  const __m256i all = _mm256_set1_epi32(-1);
  return {_mm256_xor_si256(below.low, all), _mm256_xor_si256(below.high, all)};
}
LANES Mask at_least(Floats a, Floats b) { return compare<_CMP_GE_OQ>(a, b); }
LANES Picked picked(Mask m) {
  return _mm256_movemask_ps(_mm256_castsi256_ps(m.low)) | _mm256_movemask_ps(_mm256_castsi256_ps(m.high)) << 8;
}
LANES bool any(Mask m) { return _mm256_movemask_epi8(_mm256_or_si256(m.low, m.high)) != 0; }
LANES Ints merge(Ints otherwise, Mask m, Ints v) {
  return {_mm256_blendv_epi8(otherwise.low, v.low, m.low), _mm256_blendv_epi8(otherwise.high, v.high, m.high)};
}
LANES Floats merge(Floats otherwise, Mask m, Floats v) { return as_floats(merge(as_ints(otherwise), m, as_ints(v))); }

LANES __m128i upper(__m256i v) { return _mm256_extracti128_si256(v, 1); }
LANES __m128i lower(__m256i v) { return _mm256_castsi256_si128(v); }
LANES Ints widen_u16(Halves v) { return {_mm256_cvtepu16_epi32(lower(v)), _mm256_cvtepu16_epi32(upper(v))}; }
LANES Ints widen_u8(Bytes v) { return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))}; }
LANES Ints widen_s8(Bytes v) { return {_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))}; }
LANES Ints widen_s8_to_16(__m256i v) { return {_mm256_cvtepi8_epi16(lower(v)), _mm256_cvtepi8_epi16(upper(v))}; }
LANES Floats from_halves(Halves v) { return {_mm256_cvtph_ps(lower(v)), _mm256_cvtph_ps(upper(v))}; }
// Packing goes by 128 bits: what it brings into 0, 2, 1, 3 is put in order.
LANES Halves saturate16(Ints v) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(v.low, v.high), 0xd8); }
LANES Bytes saturate8(Ints v) {
  const Halves all = saturate16(v);
  return _mm_packs_epi16(lower(all), upper(all));
}
LANES Halves low16(Ints v) {  // of numbers below 2^16
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(v.low, v.high), 0xd8);
}

template <int kOrder>
LANES Floats order_lanes(Floats v) { return {_mm256_permute_ps(v.low, kOrder), _mm256_permute_ps(v.high, kOrder)}; }
template <int kOrder>
LANES Ints order_blocks(Ints a, Ints b) {
  return {_mm256_permute2x128_si256(a.low, a.high, (kOrder & 3) | (kOrder >> 2 & 3) << 4),
          _mm256_permute2x128_si256(b.low, b.high, (kOrder >> 4 & 3) | (kOrder >> 6 & 3) << 4)};
}
template <int kOrder>
LANES Floats order_blocks(Floats v) { return as_floats(order_blocks<kOrder>(as_ints(v), as_ints(v))); }

// For n from -126 to 127, and any v that makes of it a number no smaller than the least normal one.
LANES Floats times_power(Floats v, Floats n) {
  return mul(v, as_floats(shift_left(add(to_ints(n), ints(127)), 23)));
}
LANES Floats times_power_where(Mask m, Floats v, Floats n) {
  return as_floats(bit_and(Ints{m.low, m.high}, as_ints(times_power(v, n))));
}
LANES Floats inverse(Floats v) { return div(floats(1), v); }

LANES Ints rounded_bf16(Floats v) {  // to nearest even, in the upper half of each lane; below it is anything
  const Ints bits = as_ints(v), odd = bit_and(shift_right(bits, 16), ints(1));
  return merge(add(bits, add(odd, ints(0x7fff))), not_a_number(v), ints(0x7fc00000));  // the carry makes some infinite
}
LANES Halves narrow(Floats v) { return low16(shift_right(rounded_bf16(v), 16)); }
LANES Ints narrow_pairs(Floats even, Floats odd) {
  return bit_or(shift_right(rounded_bf16(even), 16), bit_and(rounded_bf16(odd), ints(0xffff0000)));
}
LANES Floats dot_bf16(Floats sum, Ints a, Ints b) {
  const Ints high = ints(0xffff0000);
  const Floats even = fmadd(as_floats(shift_left(a, 16)), as_floats(shift_left(b, 16)), sum);
  return fmadd(as_floats(bit_and(a, high)), as_floats(bit_and(b, high)), even);
}
LANES Ints dot16(Ints sum, Ints a, Ints b) { return add(sum, pair_products(a, b)); }

// The instruction takes unsigned bytes by signed ones and adds pairs to 16 bits: enough for 15 * 127, and for bytes if
// the weight's sign goes over to the other side, so that 2 * 128 * 127 is the most. So nothing was added to these.
constexpr int32_t kAdded8 = 0;

template <int kBits>
LANES Ints dot8(Ints sum, Ints w, Ints x) {
  const auto four = [](__m256i sum, __m256i w, __m256i x) __attribute__((always_inline)) {
    if constexpr (kBits == 8) {
      const __m256i own = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
      w = _mm256_abs_epi8(own), x = _mm256_sign_epi8(x, own);
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
  };
  return {four(sum.low, w.low, x.low), four(sum.high, w.high, x.high)};
}

}  // namespace strata

#undef LANES
