// Attention of single new tokens: each key and value is read once for all the query heads that share it.
//
// The softmax runs along with the scores (Milakov and Gimelshein 2018; FlashAttention). Where there are fewer
// (sequence, head) pairs than threads, a long context is cut and the pieces are joined afterwards.
#include <omp.h>

#include "attention.h"

namespace strata {
namespace {

// The running softmax of one query head over one piece of context: acc = sum of e^(score - top) value.
struct Running {
  float top, total;
  float* acc;  // [head_dim] floats, padded to whole vectors
};

template <class T>
void score(const Pages<T>& pages, const Unit* q, const int64_t* at, float* out) {
  const int64_t units = pages.units();
  for (int group = 0; group < kPositions; group += kLanes) {
    __m512 sum[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < units; k += kLanes) {
      const __mmask16 mask = first(units - k);
      const __m512i part = _mm512_maskz_loadu_epi32(mask, q + k);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; i++) {
        const Unit* key = (const Unit*)(pages.keys + at[group + i]) + k;
        sum[i] = T::dot(sum[i], part, _mm512_maskz_loadu_epi32(mask, key));
      }
    }
    _mm512_store_ps(out + group, bend(pages.shape, sum16(sum)));
  }
}

// Turns scores into weights against the new top; returns what the sum so far is to be multiplied by.
float soften(float* scores, int64_t count, Running& r) {
  __m512 v[kPositions / kLanes], top = _mm512_set1_ps(r.top);
  for (int i = 0; i < kPositions / kLanes; i++) {
    v[i] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), first(count - i * kLanes), _mm512_load_ps(scores + i * kLanes));
    top = _mm512_max_ps(top, v[i]);
  }
  const float now = _mm512_reduce_max_ps(top);
  const float shrink = _mm512_cvtss_f32(exp(_mm512_set1_ps(r.top - now)));
  __m512 total = _mm512_setzero_ps();
  for (int i = 0; i < kPositions / kLanes; i++) {
    v[i] = _mm512_maskz_mov_ps(first(count - i * kLanes), exp(_mm512_sub_ps(v[i], _mm512_set1_ps(now))));
    total = _mm512_add_ps(total, v[i]);
    _mm512_store_ps(scores + i * kLanes, v[i]);
  }
  r.total = r.total * shrink + _mm512_reduce_add_ps(total);
  r.top = now;
  return shrink;
}

// acc = acc * shrink + weights values, for H heads and V vectors of the head's dimensions from `d` on.
template <class T, int H, int V>
void gather(const Pages<T>& pages, const int64_t* at, const float* weights, int64_t count, const float* shrink,
            Running* r, int64_t d) {
  __m512 sum[H][V];
  const __mmask16 mask = V == 1 ? first(pages.shape.head_dim - d) : (__mmask16)0xffff;
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < V; i++)
      sum[h][i] = _mm512_mul_ps(_mm512_load_ps(r[h].acc + d + i * kLanes), _mm512_set1_ps(shrink[h]));
  for (int64_t p = 0; p < count; p++) {
    __m512 value[V];
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) value[i] = T::load(pages.values + at[p] + d + i * kLanes, mask);
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
      const __m512 weight = _mm512_set1_ps(weights[h * kPositions + p]);
#pragma GCC unroll 4
      for (int i = 0; i < V; i++) sum[h][i] = _mm512_fmadd_ps(weight, value[i], sum[h][i]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) _mm512_store_ps(r[h].acc + d + i * kLanes, sum[h][i]);
}

template <class T, int H>
void gather_all(const Pages<T>& pages, const int64_t* at, const float* weights, int64_t count, const float* shrink, Running* r) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= pages.shape.head_dim; d += 4 * kLanes) gather<T, H, 4>(pages, at, weights, count, shrink, r, d);
  for (; d < pages.shape.head_dim; d += kLanes) gather<T, H, 1>(pages, at, weights, count, shrink, r, d);
}

// Positions [from, end) of one sequence for the query heads of one key head.
template <class T>
void run(const Pages<T>& pages, int64_t sequence, int64_t kv_head, int64_t from, int64_t end, Running* r) {
  const int64_t group = pages.shape.heads / pages.shape.kv_heads;
  const auto* q = pages.q + sequence * pages.q_stride + kv_head * group * pages.shape.head_dim;
  int64_t at[kPositions];
  alignas(64) float weights[4 * kPositions];
  float shrink[4];
  for (; from < end; from += kPositions) {
    pages.locate(sequence, kv_head, from, end, at);
    const int64_t count = std::min<int64_t>(kPositions, end - from);
    for (int64_t h = 0; h < group; h += 4) {
      const int now = std::min<int64_t>(4, group - h);
      for (int i = 0; i < now; i++) {
        score(pages, (const Unit*)(q + (h + i) * pages.shape.head_dim), at, weights + i * kPositions);
        shrink[i] = soften(weights + i * kPositions, count, r[h + i]);
      }
      if (now == 4) gather_all<T, 4>(pages, at, weights, count, shrink, r + h);
      else if (now == 3) gather_all<T, 3>(pages, at, weights, count, shrink, r + h);
      else if (now == 2) gather_all<T, 2>(pages, at, weights, count, shrink, r + h);
      else gather_all<T, 1>(pages, at, weights, count, shrink, r + h);
    }
  }
}

// Joins the pieces of one query head and writes its row.
template <class T>
void finish(const Pages<T>& pages, Running* pieces, int64_t count, int64_t stride, typename T::Element* out) {
  float top = -INFINITY, total = 0, factor[256];
  for (int64_t i = 0; i < count; i++) top = std::max(top, pieces[i * stride].top);
  for (int64_t i = 0; i < count; i++) {
    factor[i] = pieces[i * stride].total > 0 ? std::exp(pieces[i * stride].top - top) : 0;
    total += factor[i] * pieces[i * stride].total;
  }
  for (int64_t d = 0; d < pages.shape.head_dim; d += kLanes) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i++)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(factor[i] / total), _mm512_load_ps(pieces[i * stride].acc + d), sum);
    T::store(out + d, sum, first(pages.shape.head_dim - d));
  }
}

}  // namespace

template <class T>
void attend_decodes(const Pages<T>& pages) {
  const auto& shape = pages.shape;
  const int64_t group = shape.heads / shape.kv_heads, pairs = pages.step.decodes * shape.kv_heads;
  const int threads = omp_get_max_threads();
  int64_t longest = 0;
  for (int64_t s = 0; s < pages.step.decodes; s++) longest = std::max<int64_t>(longest, pages.step.contexts[s]);
  // a piece below 4 passes costs more to join than it saves
  const int64_t cuts = std::clamp<int64_t>(std::min((threads + pairs - 1) / pairs, longest / (4 * kPositions)), 1, 256);
  const int64_t width = (shape.head_dim + kLanes - 1) / kLanes * kLanes, items = pairs * cuts;
  float* acc = (float*)scratch<kDecode>(items * group * width * sizeof(float));
  Running* running = (Running*)scratch<kPartial>(items * group * sizeof(Running));
#pragma omp parallel for if (threads > 1 && items > 1) schedule(dynamic, 1) num_threads(threads)
  for (int64_t item = 0; item < items; item++) {
    const int64_t cut = item % cuts, pair = item / cuts, sequence = pair / shape.kv_heads;
    const int64_t context = pages.step.contexts[sequence];
    const int64_t seen = shape.window && shape.window < context ? shape.window : context, start = context - seen;
    Running* r = running + item * group;
    for (int64_t h = 0; h < group; h++) r[h] = {-INFINITY, 0, acc + (item * group + h) * width};
    memset(r[0].acc, 0, group * width * sizeof(float));
    run(pages, sequence, pair % shape.kv_heads, start + seen * cut / cuts, start + seen * (cut + 1) / cuts, r);
  }
  for (int64_t pair = 0; pair < pairs; pair++)
    for (int64_t h = 0; h < group; h++)
      finish<T>(pages, running + pair * cuts * group + h, cuts, group,
                pages.out + pair / shape.kv_heads * pages.out_stride + (pair % shape.kv_heads * group + h) * shape.head_dim);
}

template void attend_decodes<F32>(const Pages<F32>&);
template void attend_decodes<Bf16>(const Pages<Bf16>&);

}  // namespace strata
