// Attention of single new tokens: each key and value is read once for all the query heads that share it, and the
// cache is walked in the order in which it lies.
//
// A thread computes every so many-th segment of a sequence's context, of all key heads where there are enough of them;
// what it reads next is fetched meanwhile, as only whoever knows the next block table entry can fetch in time.
//
// One core of a Zen 5 reads 20 to 25 GB/s of bf16 keys and values that lie in memory at any context from 128 to 8,000
// positions and batch from 1 to 32 (4 to 8 key heads of 64 or 128 dimensions; 33 GB/s is what it streams), and 13 to 20
// GB/s of bytes.
#include <omp.h>

#include "amx_attention.h"
#include "decode_pass.h"

namespace strata {
namespace {

// The spans that one thread computes, in order.
template <class T, class C>
struct Walk {
  const Pages<T, C>& pages;
  int64_t items, segments, each, item, stride;  // an item: `each` key heads over one of `segments` segments
  int64_t from = 0, end = 0;
  Span span;

  Walk(const Pages<T, C>& pages, int64_t items, int64_t segments, int64_t each, int64_t item, int64_t stride)
      : pages(pages), items(items), segments(segments), each(each), item(item), stride(stride) {
    open();
  }

  bool live() const { return item < items; }
  int64_t sequence() const { return item / segments * each / pages.shape.kv_heads; }
  int64_t kv_head() const { return item / segments * each % pages.shape.kv_heads; }

  void take(const Walk& other) { item = other.item, from = other.from, end = other.end, span = other.span; }

  void advance() {
    from = (from / kPass + 1) * kPass;
    if (from < end) return locate();
    item += stride;
    open();
  }

 private:
  // The first span of the next item that has any.
  void open() {
    for (; live(); item += stride) {
      const int64_t context = pages.step.contexts[sequence()], first = first_seen(pages.shape, context);
      const int64_t segment = (first / kSegment + item % segments) * kSegment;
      from = std::max(segment, first / kTile * kTile), end = std::min(segment + kSegment, context);
      if (from < end) return locate();
    }
  }

  void locate() {
    const int64_t context = pages.step.contexts[sequence()], first_position = first_seen(pages.shape, context);
    const int64_t stop = std::min(end, (from / kPass + 1) * kPass);
    span.count = 0;
    for (int64_t p = from; p < stop; p += kTile) {
      span.tiles[span.count] = pages.tile(sequence(), p);
      span.last = std::min<int64_t>(kTile, stop - p);
      span.seen[span.count++] = first(stop - p) & ~first(first_position - p);
    }
  }

 public:
  static int64_t first_seen(const Attention& shape, int64_t context) {
    return shape.window && shape.window < context ? context - shape.window : 0;
  }

  static int64_t segments_of(const Attention& shape, int64_t context) {
    return (context - 1) / kSegment - first_seen(shape, context) / kSegment + 1;
  }

  Places places(int64_t kv_head) const {
    Places made;
    for (int64_t t = 0; t < kTiles; t++)
      made.tile[t] = tile_at(pages, span.tiles[std::min(t, span.count - 1)], kv_head);
    return made;
  }
};

template <class T, class C>
void attend_heads(const Pages<T, C>& pages, const Queries& queries, const Span& span, const Places& now,
                  const Places& ahead, Running* r) {
  const int64_t group = pages.group();
  for (int64_t h = 0; h < group; h += 4) {
    const Queries four{queries.units + h * queries.stride, queries.stride, queries.scales + h};
    const auto run = [&](auto with) { with(pages, four, span, now, ahead, r + h); };
    if (group - h >= 4)
      run(attend_span<T, C, 4>);
    else if (group - h == 3)
      run(attend_span<T, C, 3>);
    else if (group - h == 2)
      run(attend_span<T, C, 2>);
    else
      run(attend_span<T, C, 1>);
  }
}

// The queries of all decodes, rounded where the cache is.
template <class T, class C>
struct AllQueries {
  const Pages<T, C>& pages;
  const int64_t places;  // 16-bit integers of a head
  int16_t* numbers = nullptr;
  float* scales = nullptr;

  explicit AllQueries(const Pages<T, C>& pages)
      : pages(pages), places((pages.shape.head_dim + kLanes - 1) / kLanes * kLanes) {
    if constexpr (!Pages<T, C>::scaled) return;
    const int64_t dim = pages.shape.head_dim, heads = pages.step.decodes * pages.shape.heads;
    numbers = (int16_t*)scratch<kQueries>(heads * (places * sizeof(int16_t) + sizeof(float)));
    scales = (float*)(numbers + heads * places);
    for (int64_t i = 0; i < heads; i++)
      scales[i] = round_query<T>(pages.q + i / pages.shape.heads * pages.q_stride + i % pages.shape.heads * dim, dim,
                                 numbers + i * places);
  }

  Queries of(int64_t sequence, int64_t kv_head) const {
    const int64_t head = kv_head * pages.group(), row = sequence * pages.shape.heads + head;
    if constexpr (Pages<T, C>::scaled) return {(const Unit*)(numbers + row * places), places / 2, scales + row};
    return {(const Unit*)(pages.q + sequence * pages.q_stride + head * pages.shape.head_dim), pages.units(), scales};
  }
};

// Joins the segments of one query head, `stride` apart, and writes its row.
template <class T, class C>
void finish(const Pages<T, C>& pages, Running* pieces, int64_t count, int64_t stride, typename T::Element* out) {
  const int64_t dim = pages.shape.head_dim;
  for (int64_t i = 1; i < count; i++) join_segment<T>(pieces[0], pieces[i * stride], dim);
  write_head<T>(pieces[0], dim, out);
}

}  // namespace

template <class T, class C>
void attend_decodes(const Pages<T, C>& pages) {
  const auto& shape = pages.shape;
  const int64_t group = pages.group(), decodes = pages.step.decodes;
  const int threads = omp_get_max_threads();
  int64_t segments = 1;
  for (int64_t s = 0; s < decodes; s++)
    segments = std::max(segments, Walk<T, C>::segments_of(shape, pages.step.contexts[s]));
  // few items are made smaller, so that no thread waits long for another
  const int64_t each = threads == 1 || decodes * segments >= 4 * threads ? shape.kv_heads : 1;
  const int64_t pairs = decodes * shape.kv_heads / each;
  const int64_t width = (shape.head_dim + kLanes - 1) / kLanes * kLanes, items = pairs * segments;
  const int64_t heads = each * group;
  float* acc = (float*)scratch<kDecode>(items * heads * width * sizeof(float));
  Running* running = (Running*)scratch<kPartial>(items * heads * sizeof(Running));
  const AllQueries<T, C> queries(pages);
  const bool tiles = tiled(pages);
#pragma omp parallel for if (threads > 1 && items > 1) schedule(static, 1) num_threads(threads)
  for (int64_t thread = 0; thread < threads; thread++) {
    Walk<T, C> now(pages, items, segments, each, thread, threads), ahead(now);
    const HeadTiles shaped(tiles ? group : 0);
    for (int64_t opened = -1; now.live(); now.take(ahead)) {
      Running* own = running + now.item * heads;
      if (opened != now.item) {
        for (int64_t i = 0; i < heads; i++) own[i] = {-INFINITY, 0, acc + (now.item * heads + i) * width};
        memset(own->acc, 0, heads * width * sizeof(float));
        opened = now.item;
      }
      ahead.advance();
      Places places = now.places(now.kv_head());
      for (int64_t h = 0; h < each; h++) {
        Places next = places;
        if (h + 1 < each)
          next = now.places(now.kv_head() + h + 1);
        else if (ahead.live())
          next = ahead.places(ahead.kv_head());
        const Queries asking = queries.of(now.sequence(), now.kv_head() + h);
        if (tiles)
          amx_heads(pages, asking, now.span, places, next, own + h * group);
        else
          attend_heads(pages, asking, now.span, places, next, own + h * group);
        places = next;
      }
    }
  }
#pragma omp parallel for if (threads > 1 && decodes > 1) schedule(static) num_threads(threads)
  for (int64_t pair = 0; pair < pairs; pair++) {
    const int64_t head = pair * each, sequence = head / shape.kv_heads;
    const int64_t count = Walk<T, C>::segments_of(shape, pages.step.contexts[sequence]);
    auto* out = pages.out + sequence * pages.out_stride + head % shape.kv_heads * group * shape.head_dim;
    for (int64_t h = 0; h < heads; h++)
      finish(pages, running + pair * segments * heads + h, count, heads, out + h * shape.head_dim);
  }
}

template void attend_decodes(const Pages<F32, F32>&);
template void attend_decodes(const Pages<Bf16, Bf16>&);
template void attend_decodes(const Pages<F32, Int8>&);
template void attend_decodes(const Pages<Bf16, Int8>&);

}  // namespace strata
