// Attention of single new tokens: each key and value is read once for all the query heads that share it, and the
// cache is walked in the order in which it lies, all heads of a position together.
//
// The softmax runs along with the scores (Milakov and Gimelshein 2018; FlashAttention). Where there are fewer
// (sequence, head) pairs than threads, a long context is cut and the pieces are joined afterwards.
#include <omp.h>

#include "decode_bytes.h"
#include "decode_floats.h"

namespace strata {
namespace {

constexpr int64_t kMostCuts = 256;

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
    Weights16<H> rounded;
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
      rounded.round(h, weights + h * kPositions, count);
    }
    gather_all(pages, values, at, rounded, count, shrink, r, fetch);
  } else {
    const auto* q = pages.q + sequence * pages.q_stride + head * dim;
    for (int h = 0; h < H; h++) {
      score(pages, (const Unit*)(q + h * dim), keys, at, count, weights + h * kPositions);
      shrink[h] = soften(weights + h * kPositions, count, r[h]);
    }
    gather_all<T, H>(pages, values, at, weights, count, shrink, r, fetch);
  }
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
