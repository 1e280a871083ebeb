// Where a sequence's positions lie in a paged cache; what the decode and the prefill kernel share.
#pragma once
#include <algorithm>

#include "kernels.h"
#include "vectors.h"

namespace strata {

constexpr int kPositions = 64;  // of one pass of the online softmax: their scores stay in the first cache

template <class T>
struct Pages {
  using Element = typename T::Element;
  const Attention& shape;
  const Step& step;
  const Element* q;
  int64_t q_stride;
  const Element* keys;
  const Element* values;
  Element* out;
  int64_t out_stride;

  int64_t units() const { return shape.head_dim / T::per_unit; }

  // Where positions [from, from + kPositions) of one head lie, in elements. Past `end` the last one is given again:
  // finite numbers of the sequence's own, for the mask to drop.
  void locate(int64_t sequence, int64_t head, int64_t from, int64_t end, int64_t* at) const {
    const int32_t* table = step.tables + sequence * step.table_width;
    for (int i = 0; i < kPositions; i++) {
      const int64_t p = std::min(from + i, end - 1);
      const int64_t slot = table[p / step.block_tokens] * step.block_tokens + p % step.block_tokens;
      at[i] = (slot * shape.kv_heads + head) * shape.head_dim;
    }
  }
};

// Scores as the softmax wants them: scaled, and bent by tanh where the model asks for it.
inline __m512 bend(const Attention& shape, __m512 score) {
  if (shape.softcap == 0) return _mm512_mul_ps(score, _mm512_set1_ps(shape.scale));
  const __m512 bent = tanh(_mm512_mul_ps(score, _mm512_set1_ps(shape.scale / shape.softcap)));
  return _mm512_mul_ps(bent, _mm512_set1_ps(shape.softcap));
}

template <class T>
void attend_decodes(const Pages<T>& pages);
template <class T>
void attend_chunks(const Pages<T>& pages);

}  // namespace strata
