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

template <class F>
void each_row(int64_t rows, int64_t width, F&& f) {
  const int threads = rows * width < kSharedWork ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1) schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; r++) f(r);
}

template <class F>
inline void each_vector(int64_t width, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) f(i, kAll);
  if (i < width) f(i, first(width - i));
}

inline Floats scale_of(Floats squares, int64_t width, float eps) {
  return floats(1.0f / std::sqrt(total(squares) / width + eps));
}

template <class T>
inline void norm_row(const Norm& norm, const typename T::Element* x, typename T::Element* out, int64_t width) {
  Floats squares = floats(0);
  each_vector(width, [&](int64_t i, Picked m) {
    const Floats v = T::load(x + i, m);
    squares = fmadd(v, v, squares);
  });
  const Floats scale = scale_of(squares, width, norm.eps);
  each_vector(width, [&](int64_t i, Picked m) {
    T::store(out + i, mul(mul(T::load(x + i, m), scale), load_floats(m, norm.weight + i)),
             m);
  });
}

template <class T>
void join_row(const float* bias, const Norm& out_norm, const Norm& norm, const typename T::Element* x,
              typename T::Element* residual, typename T::Element* out, int64_t width) {
  const auto added = [&](int64_t i, Picked m) {
    return add(T::load(x + i, m), bias ? load_floats(m, bias + i) : floats(0));
  };
  Floats scale = floats(0), squares = floats(0);
  if (x && out_norm.weight) {
    each_vector(width, [&](int64_t i, Picked m) {
      const Floats v = added(i, m);
      squares = fmadd(v, v, squares);
    });
    scale = scale_of(squares, width, out_norm.eps);
    squares = floats(0);
  }
  each_vector(width, [&](int64_t i, Picked m) {
    Floats v = T::load(residual + i, m);
    if (x) {
      Floats a = added(i, m);
      if (out_norm.weight) a = mul(mul(a, scale), load_floats(m, out_norm.weight + i));
      T::store(residual + i, add(v, a), m);
      v = T::load(residual + i, m);  // the next piece reads the rounded sum, so the norm does
    }
    squares = fmadd(v, v, squares);
  });
  scale = scale_of(squares, width, norm.eps);
  each_vector(width, [&](int64_t i, Picked m) {
    T::store(out + i,
             mul(mul(T::load(residual + i, m), scale), load_floats(m, norm.weight + i)),
             m);
  });
}

// One head turned in place, halves paired as in GPT-NeoX and Llama; `out` may be elsewhere.
template <class T>
inline void turn(const typename T::Element* x, typename T::Element* out, const float* cosine, const float* sine,
                 int64_t half) {
  each_vector(half, [&](int64_t i, Picked m) {
    const Floats left = T::load(x + i, m), right = T::load(x + half + i, m);
    const Floats c = load_floats(m, cosine + i), s = load_floats(m, sine + i);
    T::store(out + i, fmsub(left, c, mul(right, s)), m);
    T::store(out + half + i, fmadd(right, c, mul(left, s)), m);
  });
}

// One head as bytes `out` [d], and the scale that turns them back: the largest magnitude becomes 127.
template <class T>
inline void round_head(const typename T::Element* x, int8_t* out, float* scale, int64_t d) {
  *scale = magnitude(d, [&](int64_t i, Picked m) { return T::load(x + i, m); }) / 127;
  const Floats unit = floats(*scale == 0 ? 1.0f : *scale);
  each_vector(d, [&](int64_t i, Picked m) {
    store8(out + i, m, saturate8(to_ints(div(T::load(x + i, m), unit))));
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
  each_vector(d, [&](int64_t i, Picked m) { store_between(to + 2 * i, m, value + i, lane % 2); });
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
    each_vector(width, [&](int64_t i, Picked m) {
      T::store(o + i, mul(activate<T>(activation, T::load(g + i, m)), T::load(g + width + i, m)), m);
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
    const Floats scale = floats(here ? model.embedding_scale : 0);
    if (table.bits && here) {
      const Packed packed(table);
      each_vector(model.hidden, [&](int64_t i, Picked m) {
        T::store(to + i, mul(sixteen(packed, own, i), scale), m);
      });
    } else {
      const Element* from = (const Element*)table.weight + (here ? own : 0) * model.hidden;
      if (table.group && here) {
        read_row(Panels(type, table), own, (Unit*)to);
        from = to;
      }
      each_vector(model.hidden, [&](int64_t i, Picked m) {
        T::store(to + i, here ? mul(T::load(from + i, m), scale) : floats(0), m);
      });
    }
  }))
}

}  // namespace strata
