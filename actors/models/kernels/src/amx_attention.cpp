// See amx_attention.h. Rows are query heads: of a new token those that share a key head, of a prompt 16 at a time from
// neighbouring tokens, four times as many over the same keys and values while those are in the first cache.
#include "amx_attention.h"

#include <omp.h>

#include <vector>

namespace strata {

#ifdef STRATA_AMX

namespace {

using Here = Pages<Bf16, Bf16>;

constexpr int64_t kMost = 4 * kTileRows;  // rows of an item
constexpr int kTogether = 2;              // tiles of rows: what one has stored is in the cache when a tile reads it
constexpr int64_t kStep = 32;             // dimensions of a product
constexpr int64_t kRow = kPass * 2;       // bytes of a row's weights in a pass

// Registers: sums 0 to 3, queries 4, weights 5, keys 6, values 7, of which a tile has 8 pairs of positions.
void shape(int64_t rows) {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 32, 64, 64};
    uint8_t rows[16] = {};
  } wanted;
  for (int i = 0; i < 6; i++) wanted.rows[i] = rows;
  wanted.rows[6] = kTile, wanted.rows[7] = kTile / 2;
  asm volatile("" : : "r"(&wanted) : "memory");  // GCC 12 drops stores that only the next instruction reads
  _tile_loadconfig(&wanted);
}

struct Desk {
  alignas(64) float scores[kTileRows][kPass];
  alignas(64) float sums[kTileRows][kPass];
  alignas(64) Unit weights[kTileRows][kTiles][kTile / 2];
  alignas(64) float shrink[kTileRows];  // what sums so far are to be multiplied by
};

// Up to 16 rows, the first of them the `first` of an item. `open`: they see all positions of a pass. `begins`: nothing
// was written to their sums before.
struct Rows {
  const char* queries;
  int64_t stride, first, count;
  bool open, begins;
  Running* r;
};

inline void fetch(const char* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T0);
}

// Fetches `ahead` where there is one.
void score(const Rows& rows, int64_t dim, const Places& now, const Places* ahead, Desk& desk) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t d = 0; d < dim; d += kStep) {
    const int64_t at = d / 2 * kTileBytes;
    if (ahead)
      for (int t = 0; t < kTiles; t++) fetch(ahead->tile[t].keys + at, kTileRows * kTileBytes);
    _tile_loadd(4, rows.queries + 2 * d, rows.stride);
    _tile_loadd(6, now.tile[0].keys + at, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(6, now.tile[1].keys + at, kTileBytes);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(6, now.tile[2].keys + at, kTileBytes);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(6, now.tile[3].keys + at, kTileBytes);
    _tile_dpbf16ps(3, 4, 6);
  }
  _tile_stored(0, desk.scores[0], kPass * 4);
  _tile_stored(1, desk.scores[0] + 16, kPass * 4);
  _tile_stored(2, desk.scores[0] + 32, kPass * 4);
  _tile_stored(3, desk.scores[0] + 48, kPass * 4);
}

// The weights times the values of up to 64 dimensions from `d` on, into desk.sums.
void gather(int64_t tiles, int64_t d, int64_t dim, const Places& now, const char* last, const Places* ahead,
            Desk& desk) {
  const int64_t stride = 4 * dim, blocks = std::min<int64_t>(4, (dim - d) / kLanes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t t = 0; t < tiles; t++) {
    const char* values = (t + 1 == tiles ? last : now.tile[t].values) + 4 * d;
    if (ahead)
      for (int i = 0; i < kTile / 2; i++) fetch(ahead->tile[t].values + 4 * d + i * stride, blocks * 64);
    _tile_loadd(5, desk.weights[0][t], kRow);
    _tile_loadd(7, values, stride);
    _tile_dpbf16ps(0, 5, 7);
    _tile_loadd(7, values + 64, stride);
    _tile_dpbf16ps(1, 5, 7);
    if (blocks > 2) {
      _tile_loadd(7, values + 128, stride);
      _tile_dpbf16ps(2, 5, 7);
      _tile_loadd(7, values + 192, stride);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, desk.sums[0], kPass * 4);
  _tile_stored(1, desk.sums[0] + 16, kPass * 4);
  if (blocks > 2) {
    _tile_stored(2, desk.sums[0] + 32, kPass * 4);
    _tile_stored(3, desk.sums[0] + 48, kPass * 4);
  }
}

// Sixteen vectors, of which each becomes a lane: `vectors[i]` holds what the i-th lane of each was.
inline void across(__m512 vectors[kLanes]) {
  __m512i lanes[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) lanes[i] = _mm512_castps_si512(vectors[i]);
  transpose(lanes);
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) vectors[i] = _mm512_castsi512_ps(lanes[i]);
}

// Scores of up to 16 rows become weights against their new tops: what is one number a row is one vector for them all.
// `Open`: every row sees every position of all tiles of a pass.
template <bool Open, class See>
void soften_rows(const Here& pages, const Rows& rows, const Span& span, const See& see, Desk& desk) {
  const __m512 slope = _mm512_set1_ps(slope_of(pages.shape)), none = _mm512_set1_ps(-INFINITY);
  const int64_t tiles = Open ? kTiles : span.count;
  alignas(64) float tops[kLanes], totals[kLanes], bases[kLanes];
  __m512 most[kLanes], sums[kLanes];
  for (int64_t i = 0; i < kLanes; i++) {
    const bool there = i < rows.count;
    tops[i] = there ? rows.r[i].top : 0, totals[i] = there ? rows.r[i].total : 0;
    most[i] = sums[i] = none;
  }
  for (int64_t i = 0; i < rows.count; i++) {
    float* scores = desk.scores[i];
    if constexpr (Open) {
      const __m512 left = _mm512_max_ps(_mm512_load_ps(scores), _mm512_load_ps(scores + kLanes));
      const __m512 right = _mm512_max_ps(_mm512_load_ps(scores + 2 * kLanes), _mm512_load_ps(scores + 3 * kLanes));
      most[i] = _mm512_max_ps(left, right);
    } else {
      const Span& own = see(rows.first + i, span);
      for (int64_t t = 0; t < tiles; t++) {
        __m512 score = _mm512_load_ps(scores + t * kLanes);
        if (pages.shape.softcap != 0) score = bend(pages.shape, score);
        score = _mm512_mask_mov_ps(none, own.seen[t], score);
        _mm512_store_ps(scores + t * kLanes, score);
        most[i] = _mm512_max_ps(most[i], score);
      }
    }
  }
  across(most);
  __m512 top = most[0];
  for (int i = 1; i < kLanes; i++) top = _mm512_max_ps(top, most[i]);
  const __m512 old = _mm512_load_ps(tops);
  top = _mm512_max_ps(old, _mm512_mul_ps(top, slope));
  const __m512 base = base_of(top), shrink = power<Bf16>(_mm512_sub_ps(old, base));
  _mm512_store_ps(tops, top);
  _mm512_store_ps(bases, base);
  _mm512_store_ps(desk.shrink, shrink);
  const auto weigh = [&](int64_t i, int64_t t, __m512 own) __attribute__((always_inline)) {
    const __m512 score = _mm512_load_ps(desk.scores[i] + t * kLanes);
    const __m512 weight = power<Bf16>(_mm512_fmsub_ps(score, slope, own));
    Bf16::store((uint16_t*)desk.weights[i][t], weight);
    return weight;
  };
  for (int64_t i = 0; i < rows.count; i++) {
    const __m512 own = _mm512_set1_ps(bases[i]);
    __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int64_t t = 0; t < tiles; t++) sum = _mm512_add_ps(sum, weigh(i, t, own));
    sums[i] = sum;
  }
  across(sums);
  __m512 pairs[kLanes / 2];
#pragma GCC unroll 8
  for (int i = 0; i < kLanes / 2; i++) pairs[i] = _mm512_add_ps(sums[2 * i], sums[2 * i + 1]);
  _mm512_store_ps(totals, _mm512_fmadd_ps(_mm512_load_ps(totals), shrink, total_of(pairs)));
  for (int64_t i = 0; i < rows.count; i++) rows.r[i].top = tops[i], rows.r[i].total = totals[i];
}

// A pass for `count` tiles of rows; `see(row, span)` says what a row sees, where not all of it, `last` are the values of
// the last tile. A tile that reads what was just stored would wait for the stores to end, so that all take turns.
template <class See>
void attend_rows(const Here& pages, const Rows* rows, int count, const Span& span, const Places& now, const char* last,
                 const Places* ahead, const See& see, Desk* desks) {
  const int64_t dim = pages.shape.head_dim;
  asm volatile("" : : : "memory");  // GCC 12 does not know that loads of tiles read memory
  for (int g = 0; g < count; g++) score(rows[g], dim, now, g ? nullptr : ahead, desks[g]);
  for (int g = 0; g < count; g++)
    if (rows[g].open && span.count == kTiles && pages.shape.softcap == 0)
      soften_rows<true>(pages, rows[g], span, see, desks[g]);
    else
      soften_rows<false>(pages, rows[g], span, see, desks[g]);
  asm volatile("" : : : "memory");
  for (int64_t d = 0; d < dim; d += 4 * kLanes) {
    for (int g = 0; g < count; g++) gather(span.count, d, dim, now, last, g ? nullptr : ahead, desks[g]);
    const int64_t width = std::min<int64_t>(4 * kLanes, dim - d);
    for (int g = 0; g < count; g++) {
      const __mmask16 kept = rows[g].begins ? 0 : 0xffff;
      for (int64_t i = 0; i < rows[g].count; i++) {
        const __m512 shrink = _mm512_set1_ps(desks[g].shrink[i]);
        for (int64_t j = 0; j < width; j += kLanes) {
          float* acc = rows[g].r[i].acc + d + j;
          const __m512 before = _mm512_maskz_load_ps(kept, acc);
          _mm512_store_ps(acc, _mm512_fmadd_ps(before, shrink, _mm512_load_ps(desks[g].sums[i] + j)));
        }
      }
    }
  }
}

// The last tile's values, copied where a part of them was never written.
const char* written(const Here& pages, const Span& span, const Places& now) {
  const char* own = now.tile[span.count - 1].values;
  if (span.last == kTile) return own;
  const int64_t dim = pages.shape.head_dim;
  Unit* copy = (Unit*)scratch<kBlock>(kTile / 2 * dim * sizeof(Unit));
  copy_written<Bf16>(own, span.last, dim, copy);
  return (const char*)copy;
}

// Up to 64 rows of a prompt: tokens from `column / group` of the chunk on, each with the heads of the group.
struct Item {
  int64_t sequence, kv_head, column, columns;
};

struct Chunk {
  const Here& pages;
  const Item& item;
  int64_t context, begin;  // position of the chunk's first token

  Chunk(const Here& pages, const Item& item) : pages(pages), item(item) {
    const Step& step = pages.step;
    context = step.contexts[item.sequence];
    begin = context - (step.starts[item.sequence + 1] - step.starts[item.sequence]);
  }

  int64_t position(int64_t column) const { return begin + (item.column + column) / pages.group(); }
  int64_t first_seen(int64_t position) const {
    const int64_t window = pages.shape.window;
    return window && window <= position ? position - window + 1 : 0;
  }

  template <class E>
  E* head(E* rows, int64_t stride, int64_t column) const {
    const int64_t at = item.column + column, group = pages.group();
    return rows + (pages.step.starts[item.sequence] + at / group) * stride +
           (item.kv_head * group + at % group) * pages.shape.head_dim;
  }

  Span span(int64_t from, int64_t end) const {
    Span made;
    const int64_t stop = std::min(end, (from / kPass + 1) * kPass);
    for (int64_t p = from; p < stop; p += kTile) {
      made.tiles[made.count++] = pages.tile(item.sequence, p);
      made.last = std::min<int64_t>(kTile, context - p);
    }
    return made;
  }

  Places places(const Span& span) const {
    Places made;
    for (int64_t t = 0; t < kTiles; t++)
      made.tile[t] = tile_at(pages, span.tiles[std::min(t, span.count - 1)], item.kv_head);
    return made;
  }

  void run() const {
    const int64_t dim = pages.shape.head_dim, end = position(item.columns - 1) + 1;
    const int64_t start = first_seen(position(0)) / kTile * kTile, bytes = 2 * dim;
    static thread_local Desk desks[kTogether];
    char* queries = (char*)scratch<kQueries>(kMost * bytes);
    float* floats = (float*)scratch<kPrefill>(2 * kMost * dim * sizeof(float));
    Running all[kMost], segment[kMost];
    for (int64_t i = 0; i < item.columns; i++) {
      memcpy(queries + i * bytes, head(pages.q, pages.q_stride, i), bytes);
      all[i] = {-INFINITY, 0, floats + i * dim}, segment[i] = {-INFINITY, 0, floats + (kMost + i) * dim};
    }
    bool only = true;
    Span now = span(start, end);
    for (int64_t from = start, next; from < end; from = next) {
      next = (from / kPass + 1) * kPass;
      const Span later = next < end ? span(next, end) : now;
      pass(from, from == start || from % kSegment == 0, now, places(now), places(later), queries, segment, desks);
      now = later;
      if (next % kSegment != 0 && next < end) continue;
      for (int64_t i = 0; i < item.columns; i++) {
        if (only)
          std::swap(all[i], segment[i]);
        else if (segment[i].total != 0)
          join_segment<Bf16>(all[i], segment[i], dim);
        segment[i].top = -INFINITY, segment[i].total = 0;
      }
      only = false;
    }
    for (int64_t i = 0; i < item.columns; i++)
      write_head<Bf16>(all[i], dim, head(pages.out, pages.out_stride, i));
  }

  void pass(int64_t from, bool begins, const Span& span, const Places& now, const Places& ahead, const char* queries,
            Running* r, Desk* desks) const {
    const int64_t bytes = 2 * pages.shape.head_dim;
    const char* last = written(pages, span, now);
    Span own = span;
    const auto see = [&](int64_t row, const Span&) -> const Span& {
      const int64_t position = this->position(row), earliest = first_seen(position);
      for (int64_t t = 0; t < own.count; t++)
        own.seen[t] = first(position + 1 - from - t * kTile) & ~first(earliest - from - t * kTile);
      return own;
    };
    Rows rows[kTogether];
    int count = 0;
    bool fetched = false;
    const auto attend = [&] {
      if (count) attend_rows(pages, rows, count, span, now, last, fetched ? nullptr : &ahead, see, desks);
      fetched = true, count = 0;
    };
    for (int64_t column = 0; column < item.columns; column += kTileRows) {
      const int64_t some = std::min(kTileRows, item.columns - column), last_position = position(column + some - 1);
      if (last_position < from) continue;
      const bool open = position(column) + 1 >= from + kPass && first_seen(last_position) <= from;
      rows[count++] = {queries + column * bytes, bytes, column, some, open, begins, r + column};
      if (count == kTogether) attend();
    }
    attend();
  }
};

}  // namespace

HeadTiles::HeadTiles(int64_t rows) : shaped_(rows > 0) {
  if (shaped_) shape(rows);
}

HeadTiles::~HeadTiles() {
  if (shaped_) _tile_release();
}

template <>
void amx_heads(const Here& pages, const Queries& queries, const Span& span, const Places& now, const Places& ahead,
               Running* r) {
  static thread_local Desk desk;
  const auto see = [](int64_t, const Span& all) -> const Span& { return all; };
  const Rows rows{(const char*)queries.units, queries.stride * (int64_t)sizeof(Unit), 0, pages.group(), false, false, r};
  attend_rows(pages, &rows, 1, span, now, written(pages, span, now), &ahead, see, &desk);
}

template <>
void amx_chunks(const Here& pages) {
  const Step& step = pages.step;
  const int threads = omp_get_max_threads();
  std::vector<Item> items;
  for (int64_t s = step.decodes; s < step.sequences; s++) {
    const int64_t columns = (step.starts[s + 1] - step.starts[s]) * pages.group();
    for (int64_t at = (columns - 1) / kMost * kMost; at >= 0; at -= kMost)  // the longest first
      for (int64_t head = 0; head < pages.shape.kv_heads; head++)
        items.push_back({s, head, at, std::min(kMost, columns - at)});
  }
#pragma omp parallel if (threads > 1 && items.size() > 1) num_threads(threads)
  {
    const HeadTiles shaped(kTileRows);
#pragma omp for schedule(dynamic, 1)
    for (size_t i = 0; i < items.size(); i++) Chunk(pages, items[i]).run();
  }
}

#else

HeadTiles::HeadTiles(int64_t) : shaped_(false) {}
HeadTiles::~HeadTiles() {}

template <>
void amx_heads(const Pages<Bf16, Bf16>&, const Queries&, const Span&, const Places&, const Places&, Running*) {}
template <>
void amx_chunks(const Pages<Bf16, Bf16>&) {}

#endif

template <class T, class C>
void amx_heads(const Pages<T, C>&, const Queries&, const Span&, const Places&, const Places&, Running*) {}
template <class T, class C>
void amx_chunks(const Pages<T, C>&) {}

template void amx_heads(const Pages<F32, F32>&, const Queries&, const Span&, const Places&, const Places&, Running*);
template void amx_heads(const Pages<F32, Int8>&, const Queries&, const Span&, const Places&, const Places&, Running*);
template void amx_heads(const Pages<Bf16, Int8>&, const Queries&, const Span&, const Places&, const Places&, Running*);
template void amx_chunks(const Pages<F32, F32>&);
template void amx_chunks(const Pages<F32, Int8>&);
template void amx_chunks(const Pages<Bf16, Int8>&);

}  // namespace strata
