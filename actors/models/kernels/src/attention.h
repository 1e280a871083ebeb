// Where a sequence's positions lie in a paged cache; what the decode and the prefill kernel share.
#pragma once
#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "vectors.h"

namespace strata {

constexpr int kPositions = 64;  // of one pass of the online softmax: their scores stay in the first cache

// T: the type of queries and results. C: that of keys and values, T again or Int8.
template <class T, class C>
struct Pages {
  using Element = typename T::Element;
  using Cached = typename C::Element;
  static constexpr bool scaled = std::is_same_v<C, Int8>;
  const Attention& shape;
  const Step& step;
  const Element* q;
  int64_t q_stride;
  const Cached* keys;
  const Cached* values;
  const float* key_scales;  // null unless `scaled`
  const float* value_scales;
  Element* out;
  int64_t out_stride;

  int64_t units() const { return shape.head_dim / T::per_unit; }

  int64_t stride() const { return shape.kv_heads * shape.head_dim; }

  // Where positions [from, from + count) lie, in elements from the start of a cache with `stride` of them in a slot.
  void locate(int64_t sequence, int64_t from, int64_t count, int64_t stride, int64_t* at) const {
    const int32_t* table = step.tables + sequence * step.table_width;
    const int64_t size = step.block_tokens;
    int64_t block = from / size, inside = from % size;  // one division, not one for each position
    for (int64_t i = 0; i < count; block++, inside = 0)
      for (; inside < size && i < count; inside++, i++) at[i] = (table[block] * size + inside) * stride;
  }

  // Fills up to the next whole vector with the last place: finite numbers of the sequence's own, for masks to drop.
  static int64_t pad(int64_t* at, int64_t count) {
    const int64_t whole = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < whole; i++) at[i] = at[count - 1];
    return whole;
  }
};

// Scores as the softmax wants them: scaled, and bent by tanh where the model asks for it.
inline __m512 bend(const Attention& shape, __m512 score) {
  if (shape.softcap == 0) return _mm512_mul_ps(score, _mm512_set1_ps(shape.scale));
  const __m512 bent = tanh(_mm512_mul_ps(score, _mm512_set1_ps(shape.scale / shape.softcap)));
  return _mm512_mul_ps(bent, _mm512_set1_ps(shape.softcap));
}

template <class T, class C>
void attend_decodes(const Pages<T, C>& pages);
template <class T, class C>
void attend_chunks(const Pages<T, C>& pages);

}  // namespace strata
