// What is done to one row at a time: norms, residual sums, gating, rotary positions, writing the cache.
//
// All arithmetic is float; a row is rounded once, where it is stored. Rows are spread over threads when there are
// enough of them to pay for waking one.
#include <omp.h>

#include "activation.h"
#include "panels.h"
#include "quantized.h"
#include "vectors.h"

namespace strata {
namespace {

constexpr int64_t kSharedWork = 1 << 15;  // elements below which one thread is faster: about 2 us of work

template <class F>
void each_row(int64_t rows, int64_t width, F&& f) {
  const int threads = rows * width < kSharedWork ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1) schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; r++) f(r);
}

template <class F>
inline void each_vector(int64_t width, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) f(i, (__mmask16)0xffff);
  if (i < width) f(i, first(width - i));
}

inline __m512 scale_of(__m512 squares, int64_t width, float eps) {
  return _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps));
}

template <class T>
inline void norm_row(const Norm& norm, const typename T::Element* x, typename T::Element* out, int64_t width) {
  __m512 squares = _mm512_setzero_ps();
  each_vector(width, [&](int64_t i, __mmask16 m) {
    const __m512 v = T::load(x + i, m);
    squares = _mm512_fmadd_ps(v, v, squares);
  });
  const __m512 scale = scale_of(squares, width, norm.eps);
  each_vector(width, [&](int64_t i, __mmask16 m) {
    T::store(out + i, _mm512_mul_ps(_mm512_mul_ps(T::load(x + i, m), scale), _mm512_maskz_loadu_ps(m, norm.weight + i)),
             m);
  });
}

template <class T>
void join_row(const float* bias, const Norm& out_norm, const Norm& norm, const typename T::Element* x,
              typename T::Element* residual, typename T::Element* out, int64_t width) {
  const auto added = [&](int64_t i, __mmask16 m) {
    return _mm512_add_ps(T::load(x + i, m), bias ? _mm512_maskz_loadu_ps(m, bias + i) : _mm512_setzero_ps());
  };
  __m512 scale = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  if (x && out_norm.weight) {
    each_vector(width, [&](int64_t i, __mmask16 m) {
      const __m512 v = added(i, m);
      squares = _mm512_fmadd_ps(v, v, squares);
    });
    scale = scale_of(squares, width, out_norm.eps);
    squares = _mm512_setzero_ps();
  }
  each_vector(width, [&](int64_t i, __mmask16 m) {
    __m512 v = T::load(residual + i, m);
    if (x) {
      __m512 a = added(i, m);
      if (out_norm.weight) a = _mm512_mul_ps(_mm512_mul_ps(a, scale), _mm512_maskz_loadu_ps(m, out_norm.weight + i));
      T::store(residual + i, _mm512_add_ps(v, a), m);
      v = T::load(residual + i, m);  // the next piece reads the rounded sum, so the norm does
    }
    squares = _mm512_fmadd_ps(v, v, squares);
  });
  scale = scale_of(squares, width, norm.eps);
  each_vector(width, [&](int64_t i, __mmask16 m) {
    T::store(out + i,
             _mm512_mul_ps(_mm512_mul_ps(T::load(residual + i, m), scale), _mm512_maskz_loadu_ps(m, norm.weight + i)),
             m);
  });
}

// One head turned in place, halves paired as in GPT-NeoX and Llama; `out` may be elsewhere.
template <class T>
inline void turn(const typename T::Element* x, typename T::Element* out, const float* cosine, const float* sine,
                 int64_t half) {
  each_vector(half, [&](int64_t i, __mmask16 m) {
    const __m512 left = T::load(x + i, m), right = T::load(x + half + i, m);
    const __m512 c = _mm512_maskz_loadu_ps(m, cosine + i), s = _mm512_maskz_loadu_ps(m, sine + i);
    T::store(out + i, _mm512_fmsub_ps(left, c, _mm512_mul_ps(right, s)), m);
    T::store(out + half + i, _mm512_fmadd_ps(right, c, _mm512_mul_ps(left, s)), m);
  });
}

// One head as bytes `out` [d], and the scale that turns them back: the largest magnitude becomes 127.
template <class T>
inline void round_head(const typename T::Element* x, int8_t* out, float* scale, int64_t d) {
  *scale = magnitude(d, [&](int64_t i, __mmask16 m) { return T::load(x + i, m); }) / 127;
  const __m512 unit = _mm512_set1_ps(*scale == 0 ? 1.0f : *scale);
  each_vector(d, [&](int64_t i, __mmask16 m) {
    _mm_mask_storeu_epi8(out + i, m, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_div_ps(T::load(x + i, m), unit))));
  });
}

// One position's units of a tile's keys [units][16]: a line for each, which attention reads next anyway. 32 tokens of 32
// sequences are placed in 28 us at 4 key heads of 64 dimensions, 512 of one in 110 us (Zen 5, one core).
template <class U>
inline void place_key(U* tile, const U* key, int64_t lane, int64_t units) {
  for (int64_t k = 0; k < units; k++) tile[k * kLanes + lane] = key[k];
}

// One position's numbers of a tile's values [8 pairs of positions][d][2]; the other half of the pair is left alone, as
// another thread may write it.
template <class E>
inline void place_pair(E* tile, const E* value, int64_t lane, int64_t d) {
  E* to = tile + lane / 2 * 2 * d;
  each_vector(d, [&](int64_t i, __mmask16 m) {
    if constexpr (sizeof(E) == 2) {
      const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, value + i));
      const __mmask32 own = _pdep_u32(m, 0x55555555) << lane % 2;
      _mm512_mask_storeu_epi16(to + 2 * i, own, _mm512_slli_epi32(wide, lane % 2 * 16));
    } else {
      const __m256i wide = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(m, value + i));
      const __mmask32 own = _pdep_u32(m, 0x55555555) << lane % 2;
      _mm256_mask_storeu_epi8(to + 2 * i, own, _mm256_slli_epi16(wide, lane % 2 * 8));
    }
  });
}

template <class T>
void place_row(const Layer& layer, int64_t slot, typename T::Element* row, const float* cosine, const float* sine) {
  using Element = typename T::Element;
  const Attention& shape = layer.attention;
  const int64_t d = shape.head_dim, half = d / 2;
  for (int64_t h = 0; h < shape.heads; h++) {
    Element* q = row + h * d;
    if (layer.query_norm.weight) norm_row<T>(layer.query_norm, q, q, d);
    turn<T>(q, q, cosine, sine, half);
  }
  Element* k = row + shape.heads * d;
  Element* v = k + shape.kv_heads * d;
  const Cache& cache = layer.cache;
  const int64_t lane = slot % kLanes, first_head = slot / kLanes * shape.kv_heads;
  for (int64_t h = first_head; h < first_head + shape.kv_heads; h++, k += d, v += d) {
    if (layer.key_norm.weight) norm_row<T>(layer.key_norm, k, k, d);
    turn<T>(k, k, cosine, sine, half);
    if (cache.key_scales) {
      int8_t* bytes = (int8_t*)scratch<kBlock>(d);
      round_head<T>(k, bytes, cache.key_scales + h * kLanes + lane, d);
      place_key((uint16_t*)cache.keys + h * kLanes * half, (const uint16_t*)bytes, lane, half);
      round_head<T>(v, bytes, cache.value_scales + h * kLanes + lane, d);
      place_pair((uint8_t*)cache.values + h * kLanes * d, (const uint8_t*)bytes, lane, d);
    } else {
      const int64_t units = d / T::per_unit;
      place_key((Unit*)cache.keys + h * kLanes * units, (const Unit*)k, lane, units);
      Element* values = (Element*)cache.values + h * kLanes * d;
      if constexpr (T::per_unit == 2)
        place_pair(values, v, lane, d);
      else
        memcpy(values + lane * d, v, d * sizeof(Element));
    }
  }
}

}  // namespace

#define STRATA_BY_TYPE(call)    \
  if (type == kBf16) {          \
    using T = Bf16;             \
    using Element = T::Element; \
    call;                       \
  } else {                      \
    using T = F32;              \
    using Element = T::Element; \
    call;                       \
  }

void rms_norm(Type type, const Norm& norm, const void* x, int64_t x_stride, void* out, int64_t out_stride, int64_t rows,
              int64_t width) {
  STRATA_BY_TYPE(each_row(rows, width, [&](int64_t r) {
    norm_row<T>(norm, (const Element*)x + r * x_stride, (Element*)out + r * out_stride, width);
  }))
}

void join(Type type, const float* bias, const Norm& out_norm, const Norm& norm, const void* x, void* residual,
          void* out, int64_t rows, int64_t width) {
  STRATA_BY_TYPE(each_row(rows, width, [&](int64_t r) {
    join_row<T>(bias, out_norm, norm, x ? (const Element*)x + r * width : nullptr, (Element*)residual + r * width,
                (Element*)out + r * width, width);
  }))
}

void gate(Type type, Activation activation, const void* both, void* out, int64_t rows, int64_t width) {
  STRATA_BY_TYPE(each_row(rows, width, [&](int64_t r) {
    const Element* g = (const Element*)both + r * 2 * width;
    Element* o = (Element*)out + r * width;
    each_vector(width, [&](int64_t i, __mmask16 m) {
      T::store(o + i, _mm512_mul_ps(activate<T>(activation, T::load(g + i, m)), T::load(g + width + i, m)), m);
    });
  }))
}

void angles(const Step& step, const float* inverse, float factor, int64_t half, float* cosine, float* sine) {
  each_row(step.rows, half * 64, [&](int64_t r) {
    for (int64_t i = 0; i < half; i++) {
      const float angle = (float)step.positions[r] * inverse[i];
      cosine[r * half + i] = std::cos(angle) * factor;
      sine[r * half + i] = std::sin(angle) * factor;
    }
  });
}

void place(Type type, const Layer& layer, const Step& step, void* merged, const float* cosine, const float* sine) {
  const Attention& shape = layer.attention;
  const int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim, half = shape.head_dim / 2;
  STRATA_BY_TYPE(each_row(step.rows, width, [&](int64_t r) {
    place_row<T>(layer, step.slots[r], (Element*)merged + r * width, cosine + r * half, sine + r * half);
  }))
}

void embed(const Model& model, const Step& step, void* residual) {
  const Type type = model.type;
  const Weights& table = model.embedding;
  STRATA_BY_TYPE(each_row(step.rows, model.hidden, [&](int64_t r) {
    const int64_t own = step.tokens[r] - model.vocab_start;
    const bool here = own >= 0 && own < model.vocab_rows;
    Element* to = (Element*)residual + r * model.hidden;
    const __m512 scale = _mm512_set1_ps(here ? model.embedding_scale : 0);
    if (table.bits && here) {
      const Packed packed(table);
      each_vector(model.hidden, [&](int64_t i, __mmask16 m) {
        T::store(to + i, _mm512_mul_ps(sixteen(packed, own, i), scale), m);
      });
    } else {
      const Element* from = (const Element*)table.weight + (here ? own : 0) * model.hidden;
      if (table.group && here) {
        read_row(Panels(type, table), own, (Unit*)to);
        from = to;
      }
      each_vector(model.hidden, [&](int64_t i, __mmask16 m) {
        T::store(to + i, here ? _mm512_mul_ps(T::load(from + i, m), scale) : _mm512_setzero_ps(), m);
      });
    }
  }))
}

}  // namespace strata
