// Attention of single new tokens: each key and value is read once for all the query heads that share it, and the
// cache is walked in the order in which it lies, all heads of a position together.
//
// The softmax runs along with the scores (Milakov and Gimelshein 2018; FlashAttention). Where there are fewer
// (sequence, head) pairs than threads, a long context is cut and the pieces are joined afterwards.
#include <omp.h>

#include "attention.h"

namespace strata {
namespace {

constexpr int64_t kMostCuts = 256;

// The running softmax of one query head over one piece of context: acc = sum of e^(score - top) value.
struct Running {
  float top, total;
  float* acc;  // [head_dim] floats, padded to whole vectors
};

template <class T>
void score(const Pages<T, T>& pages, const Unit* q, const typename T::Element* keys, const int64_t* at, int64_t count,
           float* out) {
  const int64_t units = pages.units();
  for (int64_t group = 0; group < count; group += kLanes) {
    __m512 sum[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < units; k += kLanes) {
      const __mmask16 mask = first(units - k);
      const __m512i part = _mm512_maskz_loadu_epi32(mask, q + k);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; i++) {
        const Unit* key = (const Unit*)(keys + at[group + i]) + k;
        sum[i] = T::dot(sum[i], part, _mm512_maskz_loadu_epi32(mask, key));
      }
    }
    _mm512_store_ps(out + group, bend(pages.shape, sum16(sum)));
  }
}

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

// Turns scores into weights against the new top; returns what the sum so far is to be multiplied by.
float soften(float* scores, int64_t count, Running& r) {
  __m512 top = _mm512_set1_ps(r.top);
  for (int64_t i = 0; i < count; i += kLanes)
    top = _mm512_mask_max_ps(top, first(count - i), top, _mm512_load_ps(scores + i));
  const float now = _mm512_reduce_max_ps(top);
  __m512 total = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m512 weight = exp(_mm512_sub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(now)));
    total = _mm512_mask_add_ps(total, first(count - i), total, weight);
    _mm512_store_ps(scores + i, weight);
  }
  const float shrink = r.total > 0 ? std::exp(r.top - now) : 0;
  r.total = r.total * shrink + _mm512_reduce_add_ps(total);
  r.top = now;
  return shrink;
}

// Fetches the rows of a later chunk a few lines at a time, between the arithmetic of this one: prefetches in one
// burst would fill the processor's miss buffers and then hold up everything (7 against 14 GB/s, Zen 5).
struct Fetch {
  const char *keys = nullptr, *values = nullptr;
  const int64_t* at = nullptr;
  const int64_t* last = nullptr;
  int64_t scale = 1, line = 0, lines = 0, each = 0;  // bytes an element, next line, lines a row, lines a call
  const float *key_scales = nullptr, *value_scales = nullptr;
  const int64_t* row = nullptr;  // of `at`, in the scales

  inline void some() {
    for (int64_t i = 0; i < each && at < last; i++) {
      _mm_prefetch(keys + *at * scale + line * 64, _MM_HINT_T0);
      _mm_prefetch(values + *at * scale + line * 64, _MM_HINT_T0);
      if (++line < lines) continue;
      line = 0, at++;
      if (key_scales == nullptr) continue;
      _mm_prefetch((const char*)(key_scales + *row), _MM_HINT_T0);
      _mm_prefetch((const char*)(value_scales + *row), _MM_HINT_T0);
      row++;
    }
  }
};

// acc = acc * shrink + weights values, for H heads and V vectors of the head's dimensions from `d` on.
template <class T, class C, int H, int V>
void gather(const Pages<T, C>& pages, const typename C::Element* values, const int64_t* at, const float* weights,
            int64_t count, const float* shrink, Running* r, int64_t d, Fetch& fetch) {
  __m512 sum[H][V];
  const __mmask16 mask = V == 1 ? first(pages.shape.head_dim - d) : (__mmask16)0xffff;
#pragma GCC unroll 4
  for (int h = 0; h < H; h++)
#pragma GCC unroll 4
    for (int i = 0; i < V; i++)
      sum[h][i] = _mm512_mul_ps(_mm512_load_ps(r[h].acc + d + i * kLanes), _mm512_set1_ps(shrink[h]));
  for (int64_t p = 0; p < count; p++) {
    fetch.some();
    __m512 value[V];
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) value[i] = C::load(values + at[p] + d + i * kLanes, mask);
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

template <class T, class C, int H>
void gather_all(const Pages<T, C>& pages, const typename C::Element* values, const int64_t* at, const float* weights,
                int64_t count, const float* shrink, Running* r, Fetch& fetch) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= pages.shape.head_dim; d += 4 * kLanes)
    gather<T, C, H, 4>(pages, values, at, weights, count, shrink, r, d, fetch);
  for (; d < pages.shape.head_dim; d += kLanes)
    gather<T, C, H, 1>(pages, values, at, weights, count, shrink, r, d, fetch);
}

// Located positions of a chunk: in elements of the cache and, where it has them, in its scales.
struct Places {
  int64_t at[kPositions], rows[kPositions], count = 0;
};

// One pass over located positions for H query heads of one key head, `head` the first of the sequence's row.
template <class T, class C, int H>
void pass(const Pages<T, C>& pages, const Queries& queries, int64_t sequence, int64_t head, const Places& places,
          Running* r, Fetch& fetch) {
  const int64_t dim = pages.shape.head_dim, kv_head = head / (pages.shape.heads / pages.shape.kv_heads);
  const int64_t *at = places.at, count = places.count;
  const auto *keys = pages.keys + kv_head * dim, *values = pages.values + kv_head * dim;
  alignas(64) float weights[H * kPositions];
  float shrink[H];
  if constexpr (Pages<T, C>::scaled) {
    alignas(64) float key_scales[kPositions], value_scales[kPositions];
    for (int64_t p = 0; p < (count + kLanes - 1) / kLanes * kLanes; p++) {
      key_scales[p] = pages.key_scales[places.rows[p] + kv_head];
      value_scales[p] = pages.value_scales[places.rows[p] + kv_head];
    }
    score<T, H>(pages, queries, sequence * pages.shape.heads + head, keys, key_scales, at, count, weights);
    for (int h = 0; h < H; h++) {
      shrink[h] = soften(weights + h * kPositions, count, r[h]);
      for (int64_t p = 0; p < count; p += kLanes) {
        float* weight = weights + h * kPositions + p;
        _mm512_store_ps(weight, _mm512_mul_ps(_mm512_load_ps(weight), _mm512_load_ps(value_scales + p)));
      }
    }
  } else {
    const auto* q = pages.q + sequence * pages.q_stride + head * dim;
    for (int h = 0; h < H; h++) {
      score(pages, (const Unit*)(q + h * dim), keys, at, count, weights + h * kPositions);
      shrink[h] = soften(weights + h * kPositions, count, r[h]);
    }
  }
  gather_all<T, C, H>(pages, values, at, weights, count, shrink, r, fetch);
}

// All query heads of one key head.
template <class T, class C>
void pass_group(const Pages<T, C>& pages, const Queries& queries, int64_t sequence, int64_t kv_head,
                const Places& places, Running* r, Fetch& fetch) {
  const int64_t group = pages.shape.heads / pages.shape.kv_heads;
  for (int64_t h = 0; h < group; h += 4) {
    const auto run = [&](auto with) { with(pages, queries, sequence, kv_head * group + h, places, r + h, fetch); };
    if (group - h >= 4)
      run(pass<T, C, 4>);
    else if (group - h == 3)
      run(pass<T, C, 3>);
    else if (group - h == 2)
      run(pass<T, C, 2>);
    else
      run(pass<T, C, 1>);
  }
}

// The chunks of up to 64 positions that one thread computes, in order, each known one ahead of its turn: the cache
// of a step is larger than the processor's, and only whoever knows the next block table entry can fetch in time.
template <class T, class C>
struct Walk {
  const Pages<T, C>& pages;
  int64_t items, stride, cuts, each;  // `stride` items from one of this thread's to its next; `each` key heads an item
  int64_t item, from = 0, end = 0;
  Places places;

  Walk(const Pages<T, C>& pages, int64_t items, int64_t cuts, int64_t each, int64_t item, int64_t stride)
      : pages(pages), items(items), stride(stride), cuts(cuts), each(each), item(item) {
    if (live()) open(), locate();
  }

  bool live() const { return item < items; }
  int64_t sequence() const { return item / cuts * each / pages.shape.kv_heads; }
  int64_t kv_head() const { return item / cuts * each % pages.shape.kv_heads; }

  void take(const Walk& other) {
    item = other.item, from = other.from, end = other.end, places = other.places;
  }

  void advance() {
    from += places.count;
    if (from == end) {
      item += stride;
      if (live()) open();
    }
    if (live()) locate();
  }

  // A fetch of this chunk in `calls` calls.
  Fetch fetch(int64_t calls) const {
    constexpr int64_t size = sizeof(typename C::Element);
    const int64_t first = kv_head() * pages.shape.head_dim * size;
    const int64_t lines = (each * pages.shape.head_dim * size + 63) / 64;
    const int64_t *at = places.at, count = places.count;
    return {(const char*)pages.keys + first,
            (const char*)pages.values + first,
            at,
            at + count,
            size,
            0,
            lines,
            (count * lines + calls - 1) / calls,
            pages.key_scales,
            pages.value_scales,
            places.rows};
  }

 private:
  void open() {
    const int64_t context = pages.step.contexts[sequence()], window = pages.shape.window, cut = item % cuts;
    const int64_t seen = window && window < context ? window : context;
    from = context - seen + seen * cut / cuts;
    end = context - seen + seen * (cut + 1) / cuts;
  }

  void locate() {
    const int64_t count = places.count = std::min<int64_t>(kPositions, end - from);
    pages.locate(sequence(), from, count, pages.stride(), places.at);
    Pages<T, C>::pad(places.at, count);
    if constexpr (Pages<T, C>::scaled) {
      pages.locate(sequence(), from, count, pages.shape.kv_heads, places.rows);
      Pages<T, C>::pad(places.rows, count);
    }
  }
};

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

// Joins the pieces of one query head and writes its row.
template <class T, class C>
void finish(const Pages<T, C>& pages, Running* pieces, int64_t count, int64_t stride, typename T::Element* out) {
  float top = -INFINITY, total = 0, factor[kMostCuts];
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

template <class T, class C>
void attend_decodes(const Pages<T, C>& pages) {
  const auto& shape = pages.shape;
  const int64_t group = shape.heads / shape.kv_heads, decodes = pages.step.decodes;
  const int threads = omp_get_max_threads();
  const int64_t each = decodes >= threads ? shape.kv_heads : 1, pairs = decodes * shape.kv_heads / each;
  int64_t longest = 0;
  for (int64_t s = 0; s < decodes; s++) longest = std::max<int64_t>(longest, pages.step.contexts[s]);
  // a piece below 4 passes costs more to join than it saves
  const int64_t cuts =
      std::clamp<int64_t>(std::min((threads + pairs - 1) / pairs, longest / (4 * kPositions)), 1, kMostCuts);
  const int64_t width = (shape.head_dim + kLanes - 1) / kLanes * kLanes, items = pairs * cuts, heads = each * group;
  float* acc = (float*)scratch<kDecode>(items * heads * width * sizeof(float));
  Running* running = (Running*)scratch<kPartial>(items * heads * sizeof(Running));
  for (int64_t i = 0; i < items * heads; i++) running[i] = {-INFINITY, 0, acc + i * width};
  memset(acc, 0, items * heads * width * sizeof(float));
  const Queries queries = rounded(pages);
#pragma omp parallel for if (threads > 1 && items > 1) schedule(static, 1) num_threads(threads)
  for (int64_t thread = 0; thread < threads; thread++) {
    Walk<T, C> now(pages, items, cuts, each, thread, threads), ahead(now);
    for (; now.live(); now.take(ahead)) {
      ahead.advance();
      Fetch fetch;
      if (ahead.live()) fetch = ahead.fetch(each * now.places.count);
      for (int64_t h = 0; h < each; h++)
        pass_group(pages, queries, now.sequence(), now.kv_head() + h, now.places,
                   running + now.item * heads + h * group, fetch);
    }
  }
  for (int64_t pair = 0; pair < pairs; pair++) {
    const int64_t head = pair * each, sequence = head / shape.kv_heads;
    auto* out = pages.out + sequence * pages.out_stride + head % shape.kv_heads * group * shape.head_dim;
    for (int64_t h = 0; h < heads; h++)
      finish(pages, running + pair * cuts * heads + h, cuts, heads, out + h * shape.head_dim);
  }
}

template void attend_decodes(const Pages<F32, F32>&);
template void attend_decodes(const Pages<Bf16, Bf16>&);
template void attend_decodes(const Pages<F32, Int8>&);
template void attend_decodes(const Pages<Bf16, Int8>&);

}  // namespace strata
