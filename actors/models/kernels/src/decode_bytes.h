// The same over keys and values of 8 bits, by products of 16-bit integers: queries and weights are rounded to 16.
//
// So nothing is lost but what the cache lost, and `dpwssd` does for 16-bit queries what `dpbusd` would do for 8-bit ones
// with twice the products; most of the work is loads, sums over lanes and the softmax.
#pragma once
#include "running.h"

namespace strata {

// Queries of 16 bits for keys of 8, so that whatever is lost is lost in the cache. [heads][places] with a scale each.
struct Queries {
  int16_t* numbers;
  float* scales;
  int64_t places;  // head_dim in whole vectors

  template <class T>
  void round(const typename T::Element* q, int64_t head, int64_t dim) {
    // as large as the sum of `dim` products can take
    const float most = std::min<int64_t>(INT16_MAX, INT32_MAX / 127 / dim - 1);
    float& scale = scales[head];
    scale = magnitude(dim, [&](int64_t i, __mmask16 m) { return T::load(q + i, m); }) / most;
    const __m512 unit = _mm512_set1_ps(scale == 0 ? 1.0f : scale);
    for (int64_t i = 0; i < places; i += kLanes)
      _mm256_store_si256(
          (__m256i*)(numbers + head * places + i),
          _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_div_ps(T::load(q + i, first(dim - i)), unit))));
  }
};

// Of H heads at once: the keys are widened once for all of them.
template <class T, int H>
void score(const Pages<T, Int8>& pages, const Queries& queries, int64_t head, const int8_t* keys, const float* scales,
           const int64_t* at, int64_t count, float* out) {
  constexpr int P = 4;
  const int64_t places = queries.places, dim = pages.shape.head_dim;
  const int16_t* q = queries.numbers + head * places;
  for (int64_t p = 0; p < count; p += P) {
    __m512i sum[H][P];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
#pragma GCC unroll 4
      for (int i = 0; i < P; i++) sum[h][i] = _mm512_setzero_si512();
    for (int64_t d = 0; d < dim; d += 2 * kLanes) {
      const __mmask32 mask = d + 2 * kLanes <= dim ? 0xffffffff : (1u << (dim - d)) - 1;
      __m512i key[P];
#pragma GCC unroll 4
      for (int i = 0; i < P; i++) key[i] = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, keys + at[p + i] + d));
#pragma GCC unroll 4
      for (int h = 0; h < H; h++) {
        const __m512i part = _mm512_load_si512(q + h * places + d);
#pragma GCC unroll 4
        for (int i = 0; i < P; i++) sum[h][i] = dot(sum[h][i], part, key[i]);
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
      _mm_store_si128((__m128i*)(out + h * kPositions + p), sum4(sum[h][0], sum[h][1], sum[h][2], sum[h][3]));
  }
  for (int h = 0; h < H; h++)
    for (int64_t p = 0; p < count; p += kLanes) {
      float* scores = out + h * kPositions + p;
      const __m512 whole = _mm512_cvtepi32_ps(_mm512_load_si512(scores));
      const __m512 scale = _mm512_mul_ps(_mm512_load_ps(scales + p), _mm512_set1_ps(queries.scales[head + h]));
      _mm512_store_ps(scores, bend(pages.shape, _mm512_mul_ps(whole, scale)));
    }
}

// Weights of 16 bits for values of 8: two positions to one product, with no value turned into a float.
template <int H>
struct Weights16 {
  alignas(64) int16_t numbers[H * kPositions];
  float scales[H];

  void round(int h, const float* weights, int64_t count) {
    const auto load = [&](int64_t p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, weights + p); };
    scales[h] = magnitude(count, load) / INT16_MAX;
    const __m512 unit = _mm512_set1_ps(scales[h] == 0 ? 1.0f : scales[h]);
    for (int64_t p = 0; p < count; p += kLanes)  // zeros after the last
      _mm256_store_si256((__m256i*)(numbers + h * kPositions + p),
                         _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_div_ps(load(p, first(count - p)), unit))));
  }
};

// acc = acc * shrink + weights values, for H heads and G times 32 of the head's dimensions from `d` on.
template <class T, int H, int G>
void gather(const Pages<T, Int8>& pages, const int8_t* values, const int64_t* at, const Weights16<H>& weights,
            int64_t count, const float* shrink, Running* r, int64_t d, Fetch& fetch) {
  const int64_t left = pages.shape.head_dim - d;
  const __mmask32 mask = G > 1 || left >= 2 * kLanes ? 0xffffffff : (1u << left) - 1;
  __m512i sum[H][2 * G];
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < 2 * G; i++) sum[h][i] = _mm512_setzero_si512();
  for (int64_t p = 0; p < count; p += 2) {
    fetch.some();
    fetch.some();
    __m512i pairs[2 * G];
#pragma GCC unroll 2
    for (int g = 0; g < G; g++) {
      const auto load = [&](int64_t p) {
        return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, values + at[p] + d + g * 2 * kLanes));
      };
      const __m512i even = load(p), odd = load(p + 1);
      pairs[2 * g] = _mm512_unpacklo_epi16(even, odd), pairs[2 * g + 1] = _mm512_unpackhi_epi16(even, odd);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      int32_t both;
      memcpy(&both, weights.numbers + h * kPositions + p, sizeof(both));
      const __m512i weight = _mm512_set1_epi32(both);
#pragma GCC unroll 4
      for (int i = 0; i < 2 * G; i++) sum[h][i] = dot(sum[h][i], weight, pairs[i]);
    }
  }
  // unpacking took every other four dimensions into either vector
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < 2 * G && i * kLanes < left; i++) {
      const __m512i whole = _mm512_permutex2var_epi64(sum[h][i / 2 * 2], i % 2 ? high : low, sum[h][i / 2 * 2 + 1]);
      const __m512 added = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(weights.scales[h]));
      float* acc = r[h].acc + d + i * kLanes;
      _mm512_store_ps(acc, _mm512_fmadd_ps(_mm512_load_ps(acc), _mm512_set1_ps(shrink[h]), added));
    }
}

template <class T, int H>
void gather_all(const Pages<T, Int8>& pages, const int8_t* values, const int64_t* at, const Weights16<H>& weights,
                int64_t count, const float* shrink, Running* r, Fetch& fetch) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= pages.shape.head_dim; d += 4 * kLanes)
    gather<T, H, 2>(pages, values, at, weights, count, shrink, r, d, fetch);
  for (; d < pages.shape.head_dim; d += 2 * kLanes)
    gather<T, H, 1>(pages, values, at, weights, count, shrink, r, d, fetch);
}

// The queries of all decodes as integers, where keys are.
template <class T, class C>
Queries rounded(const Pages<T, C>& pages) {
  if constexpr (!Pages<T, C>::scaled) return {};
  const auto& shape = pages.shape;
  const int64_t places = (shape.head_dim + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes);
  const int64_t heads = pages.step.decodes * shape.heads, bytes = heads * places * sizeof(int16_t);
  char* memory = (char*)scratch<kQueries>(bytes + heads * sizeof(float));
  Queries made{(int16_t*)memory, (float*)(memory + bytes), places};
  for (int64_t i = 0; i < heads; i++)
    made.template round<T>(pages.q + i / shape.heads * pages.q_stride + i % shape.heads * shape.head_dim, i,
                           shape.head_dim);
  return made;
}

}  // namespace strata
