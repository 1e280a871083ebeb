// Attention of many new tokens of one sequence over its paged cache.
//
// Lanes run along the rows of the step times the query heads that share keys, 48 of them at a time: keys and values
// are read as they lie, and scores, softmax and sums of values are all plain column arithmetic.
//
// One core of a Zen 5 does 340 GFLOP/s at 64 dimensions and 380 at 128 where 512 rows follow 1,500 to 3,500 positions,
// 250 where they are the first; with bytes 290 to 320. The products are four fifths of it and run at 440 of 470.
#include <omp.h>

#include <vector>

#include "amx_attention.h"
#include "columns.h"

namespace strata {
namespace {

// Vectors of columns at a time, and units of the cache: as many as keep all sums in registers.
constexpr int kMost = kNarrow ? 1 : 3, kUnits = kNarrow ? 4 : 8;

struct Item {
  int64_t sequence, kv_head, column, columns;  // column: row of the chunk * group + head of the group
};

// What one thread keeps between passes, for up to `lanes` columns.
template <class T, class C>
struct Desk {
  Unit *queries, *keys, *values, *weights;  // [units][lanes], [tile][units][16] and [tile][16/2][dim], [positions][lanes]
  float *scores, *sums, *joined;            // [64][lanes], [width][lanes] twice
  int16_t* rounded;                         // queries of 16 columns

  explicit Desk(int64_t head_dim) {
    const int64_t lanes = kMost * kLanes, width = (head_dim + kLanes - 1) / kLanes * kLanes;
    const int64_t units = width / C::per_unit, tile = kTile * units;
    const int64_t sizes[] = {units * lanes, kTiles * tile, kTiles * tile, kPass / C::per_unit * lanes,
                             kPass * lanes, width * lanes, width * lanes, kLanes * width / 2};
    int64_t all = 0;
    for (const int64_t size : sizes) all += size;
    Unit* at = (Unit*)scratch<kPrefill>(all * sizeof(Unit));
    void** into[] = {(void**)&queries, (void**)&keys, (void**)&values, (void**)&weights,
                     (void**)&scores,  (void**)&sums, (void**)&joined, (void**)&rounded};
    for (int i = 0; i < 8; i++) *into[i] = at, at += sizes[i];
  }
};

// What the columns of an item are: lanes past the last are nobody's and see nothing.
template <class T, class C, int MT>
struct Columns {
  const Pages<T, C>& pages;
  const Item& item;
  int64_t begin, context;  // position of the chunk's first row
  Ints position[MT];
  float scales[MT * kLanes];  // of rounded queries

  Columns(const Pages<T, C>& pages, const Item& item) : pages(pages), item(item) {
    const Step& step = pages.step;
    context = step.contexts[item.sequence];
    begin = context - (step.starts[item.sequence + 1] - step.starts[item.sequence]);
    alignas(64) int32_t at[MT * kLanes];
    for (int64_t i = 0; i < MT * kLanes; i++) at[i] = i < item.columns ? begin + row(i) : -1, scales[i] = 0;
    for (int t = 0; t < MT; t++) position[t] = load_ints(at + t * kLanes);
  }

  int64_t row(int64_t column) const { return (item.column + column) / pages.group(); }
  int64_t first() const { return begin + row(0); }
  int64_t last() const { return begin + row(item.columns - 1); }
  int64_t first_seen() const {
    const int64_t window = pages.shape.window;
    return window && window <= first() ? first() - window + 1 : 0;
  }

  // Whether every row sees all of [from, from + count).
  bool open(int64_t from, int64_t count) const {
    const int64_t window = pages.shape.window;
    return from + count <= first() + 1 && (window == 0 || from > last() - window) && item.columns == MT * kLanes;
  }

  Mask sees(int t, int64_t place) const {
    const Ints p = ints(place);
    const Mask late = at_least(position[t], p);
    if (pages.shape.window == 0) return late;
    const Ints window = ints(std::min<int64_t>(pages.shape.window, INT32_MAX / 2));
    return greater_where(late, add(p, window), position[t]);
  }

  template <class E>
  E* head(E* rows, int64_t stride, int64_t column) const {
    const int64_t at = item.column + column, group = pages.group();
    return rows + (pages.step.starts[item.sequence] + at / group) * stride +
           (item.kv_head * group + at % group) * pages.shape.head_dim;
  }

  // The columns' queries as units [unit][column].
  void turn_queries(Desk<T, C>& desk) {
    const int64_t units = pages.units(), dim = pages.shape.head_dim;
    const int64_t width = (dim + kLanes - 1) / kLanes * kLanes;
    for (int t = 0; t < MT; t++) {
      const Unit* from[kLanes];
      for (int i = 0; i < kLanes; i++) {
        const int64_t column = t * kLanes + i;
        from[i] = nullptr;
        if (column >= item.columns) continue;
        const auto* q = head(pages.q, pages.q_stride, column);
        from[i] = (const Unit*)q;
        if constexpr (Pages<T, C>::scaled) {
          scales[column] = round_query<T>(q, dim, desk.rounded + i * width);
          from[i] = (const Unit*)(desk.rounded + i * width);
        }
      }
      for (int64_t k = 0; k < units; k += kLanes) {
        Ints r[kLanes];
        for (int i = 0; i < kLanes; i++)
          r[i] = from[i] ? load_ints(strata::first(units - k), from[i] + k) : ints(0);
        transpose(r);
        for (int64_t i = 0; i < std::min<int64_t>(kLanes, units - k); i++)
          store(desk.queries + ((k + i) * MT + t) * kLanes, r[i]);
      }
    }
  }

  void write(const float* sums, const Floats* total) const {
    for (int t = 0; t < MT; t++) {
      const Floats share = div(floats(1.0f), total[t]);
      for (int64_t d = 0; d < pages.shape.head_dim; d += kLanes) {
        Ints r[kLanes];
        for (int i = 0; i < kLanes; i++)
          r[i] = as_ints(mul(load_floats(sums + ((d + i) * MT + t) * kLanes), share));
        transpose(r);
        for (int64_t i = 0; i < std::min<int64_t>(kLanes, item.columns - t * kLanes); i++)
          T::store(head(pages.out, pages.out_stride, t * kLanes + i) + d, as_floats(r[i]),
                   strata::first(pages.shape.head_dim - d));
      }
    }
  }
};

// The tiles of a pass for one key head, as the products read them.
struct Span {
  const Unit *keys[kTiles], *values[kTiles];
  const char *next_keys[kTiles], *own_values[kTiles];  // to be fetched
  alignas(64) float key_scales[kPass], value_scales[kPass];
  int64_t count = 0;
};

// Bytes of a tile as 16-bit integers in the same order.
inline void widen(const char* from, int64_t units, Unit* into) {
  for (int64_t i = 0; i < units; i += kLanes) store(into + i, Units<Int8>::load(from + 2 * i));
}

template <class T, class C>
void open_span(const Pages<T, C>& pages, const Item& item, int64_t from, int64_t end, Desk<T, C>& desk, Span& span) {
  const int64_t context = pages.step.contexts[item.sequence], dim = pages.shape.head_dim;
  const int64_t stop = std::min(end, (from / kPass + 1) * kPass), size = kTile * pages.units();
  span.count = 0;
  for (int64_t p = from; p < stop; p += kTile) {
    const int64_t i = span.count++, written = std::min<int64_t>(kTile, context - p);
    const Tile tile = tile_at(pages, pages.tile(item.sequence, p), item.kv_head);
    span.keys[i] = (const Unit*)tile.keys, span.values[i] = (const Unit*)tile.values;
    span.own_values[i] = tile.values, span.next_keys[i] = tile.keys;
    if (i) span.next_keys[i - 1] = tile.keys;
    if constexpr (Pages<T, C>::scaled) {
      Unit *keys = desk.keys + i * size, *values = desk.values + i * size;
      widen(tile.keys, size, keys), widen(tile.values, size, values);
      span.keys[i] = keys, span.values[i] = values;
      store(span.key_scales + i * kTile, load_floats(tile.key_scales));
      store(span.value_scales + i * kTile, load_floats(first(written), tile.value_scales));
    } else if (written < kTile) {
      copy_written<C>(tile.values, written, dim, desk.values);
      span.values[i] = desk.values;
    }
  }
  if (stop < end) span.next_keys[span.count - 1] = tile_at(pages, pages.tile(item.sequence, stop), item.kv_head).keys;
}

// The running softmax of MT vectors of columns.
template <int MT>
struct State {
  Floats top[MT], total[MT];

  State() {
    for (int t = 0; t < MT; t++) top[t] = floats(-INFINITY), total[t] = floats(0);
  }
};

// Scores as they are compared: scaled, bent, and -inf where a row does not look. Returns the largest of each column.
template <class T, class C, int MT>
Floats bend_column(const Columns<T, C, MT>& columns, const Span& span, int64_t from, int t, float* column) {
  constexpr int64_t lanes = MT * kLanes;
  const Attention& shape = columns.pages.shape;
  const bool open = columns.open(from, span.count * kTile), changes = Pages<T, C>::scaled || shape.softcap != 0 || !open;
  const Floats none = floats(-INFINITY), scales = load_floats(columns.scales + t * kLanes);
  Floats most[4] = {none, none, none, none};
  for (int64_t p = 0; p < span.count * kTile; p += 4)
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; i++) {
      float* at = column + (p + i) * lanes;
      Floats score = load_floats(at);
      if (changes) {
        if constexpr (Pages<T, C>::scaled)
          score = mul(score, mul(floats(span.key_scales[p + i]), scales));
        if (shape.softcap != 0) score = bend(shape, score);
        if (!open) score = merge(none, columns.sees(t, from + p + i), score);
        store(at, score);
      }
      most[i] = max(most[i], score);
    }
  return max(max(most[0], most[1]), max(most[2], most[3]));
}

// Two positions' weights as units.
template <class C>
inline void store_pair(Unit* at, int64_t lanes, Floats even, Floats odd) {
  if constexpr (C::per_unit == 1) {
    store(at, even), store(at + lanes, odd);
  } else {
    store(at, narrow_pairs(even, odd));
  }
}

// Scores of one vector of columns become weights; returns what sums so far are to be multiplied by.
template <class T, class C, int MT>
Floats soften(const Columns<T, C, MT>& columns, const Span& span, int64_t from, int t, Desk<T, C>& desk,
              State<MT>& state, Floats& scale) {
  constexpr int64_t lanes = MT * kLanes;
  float* column = desk.scores + t * kLanes;
  const Floats slope = floats(slope_of(columns.pages.shape)), old = state.top[t];
  const Floats top = max(old, mul(bend_column(columns, span, from, t, column), slope));
  const Floats base = base_of(top);
  Floats pairs[kTile / 2];
  Ints largest = ints(0);
#pragma GCC unroll 8
  for (int64_t i = 0; i < kTile / 2; i++) {
    Floats left = floats(0), right = floats(0);
    for (int64_t tile = 0; tile < span.count; tile++) {
      const int64_t p = tile * kTile + 2 * i;
      float* at = column + p * lanes;
      Floats even = power<T>(fmsub(load_floats(at), slope, base));
      Floats odd = power<T>(fmsub(load_floats(at + lanes), slope, base));
      left = add(left, even), right = add(right, odd);
      if constexpr (Pages<T, C>::scaled) {
        even = mul(even, floats(span.value_scales[p]));
        odd = mul(odd, floats(span.value_scales[p + 1]));
        largest = max_unsigned(largest, as_ints(even));
        largest = max_unsigned(largest, as_ints(odd));
        store(at, even), store(at + lanes, odd);
      } else {
        store_pair<C>(desk.weights + p / C::per_unit * lanes + t * kLanes, lanes, even, odd);
      }
    }
    pairs[i] = add(left, right);
  }
  if constexpr (Pages<T, C>::scaled) {
    const Floats most = as_floats(largest), unit = rounding_of(most);
    scale = mul(most, floats(1.0f / INT16_MAX));
    for (int64_t p = 0; p < span.count * kTile; p += 2) {
      const auto whole = [&](const float* at) { return to_ints(mul(load_floats(at), unit)); };
      const float* at = column + p * lanes;
      store(desk.weights + p / 2 * lanes + t * kLanes,
                         bit_or(whole(at), shift_left(whole(at + lanes), 16)));
    }
  }
  const Floats shrink = power<T>(sub(old, base));
  state.top[t] = top;
  state.total[t] = fmadd(state.total[t], shrink, total_of(pairs));
  return shrink;
}

template <class T, class C, int MT>
void pass(const Columns<T, C, MT>& columns, const Span& span, int64_t from, Desk<T, C>& desk, State<MT>& state) {
  constexpr int64_t lanes = MT * kLanes;
  const int64_t units = columns.pages.units(), dim = columns.pages.shape.head_dim;
  for (int64_t i = 0; i < span.count; i++) {
    float* out = desk.scores + i * kTile * lanes;
    for (int64_t p = 0; p < kTile; p += kUnits) {
      const char* ahead = p == 0 ? span.next_keys[i] : p == kUnits ? span.own_values[i] : nullptr;
      score_columns<C, MT, kUnits>(span.keys[i] + p, units, desk.queries, ahead, out + p * lanes);
    }
  }
  Floats shrink[MT], scale[MT];
  for (int t = 0; t < MT; t++) shrink[t] = soften(columns, span, from, t, desk, state, scale[t]);
  const Unit* values[kTiles];
  for (int64_t d = 0; d < dim;) {
    for (int64_t i = 0; i < span.count; i++) values[i] = span.values[i] + d;
    const auto run = [&](auto with, int64_t taken) {
      with(values, span.count, dim, desk.weights, shrink, scale, desk.sums + d * lanes);
      d += taken;
    };
    if (dim - d >= kUnits)
      run(gather_columns<C, MT, kUnits>, kUnits);
    else
      run(gather_columns<C, MT, 2>, 2);
  }
}

// Joins the segment that is done to those before it and makes room for the next.
template <class T, class C, int MT>
void close_segment(Desk<T, C>& desk, int64_t dim, bool only, State<MT>& segment, State<MT>& joined) {
  if (only) {
    std::swap(desk.sums, desk.joined);
    joined = segment;
  } else {
    for (int t = 0; t < MT; t++) {
      const Joint<T> joint(joined.top[t], segment.top[t]);
      joined.top[t] = joint.top, joined.total[t] = joint.join(joined.total[t], segment.total[t]);
      for (int64_t d = 0; d < dim; d++) {
        float* at = desk.joined + (d * MT + t) * kLanes;
        store(at,
                        joint.join(load_floats(at), load_floats(desk.sums + (d * MT + t) * kLanes)));
      }
    }
  }
  segment = State<MT>();
}

template <class T, class C, int MT>
void run(const Pages<T, C>& pages, const Item& item) {
  Desk<T, C> desk(pages.shape.head_dim);
  Columns<T, C, MT> columns(pages, item);
  columns.turn_queries(desk);
  const int64_t begin = columns.first_seen() / kTile * kTile, end = columns.last() + 1, dim = pages.shape.head_dim;
  State<MT> segment, joined;
  Span span;
  bool only = true;
  for (int64_t from = begin; from < end; from = (from / kPass + 1) * kPass) {
    if (from == begin || from % kSegment == 0) memset(desk.sums, 0, dim * MT * kLanes * sizeof(float));
    open_span(pages, item, from, end, desk, span);
    pass(columns, span, from, desk, segment);
    const int64_t next = (from / kPass + 1) * kPass;
    if (next % kSegment != 0 && next < end) continue;
    close_segment<T, C, MT>(desk, dim, only, segment, joined);
    only = false;
  }
  columns.write(desk.joined, joined.total);
}

}  // namespace

template <class T, class C>
void attend_chunks(const Pages<T, C>& pages) {
  if (tiled(pages)) return amx_chunks(pages);
  const Step& step = pages.step;
  const int threads = omp_get_max_threads();
  std::vector<Item> items;
  for (int64_t s = step.decodes; s < step.sequences; s++) {
    const int64_t columns = (step.starts[s + 1] - step.starts[s]) * pages.group(), most = kMost * kLanes;
    for (int64_t at = (columns - 1) / most * most; at >= 0; at -= most)  // the longest first
      for (int64_t head = 0; head < pages.shape.kv_heads; head++)
        items.push_back({s, head, at, std::min(most, columns - at)});
  }
#pragma omp parallel for if (threads > 1 && items.size() > 1) schedule(dynamic, 1) num_threads(threads)
  for (size_t i = 0; i < items.size(); i++) {
    const Item& item = items[i];
    if (kMost > 2 && item.columns > 2 * kLanes)
      run<T, C, kMost>(pages, item);
    else if (kMost > 1 && item.columns > kLanes)
      run<T, C, std::min(kMost, 2)>(pages, item);
    else
      run<T, C, 1>(pages, item);
  }
}

template void attend_chunks(const Pages<F32, F32>&);
template void attend_chunks(const Pages<Bf16, Bf16>&);
template void attend_chunks(const Pages<F32, Int8>&);
template void attend_chunks(const Pages<Bf16, Int8>&);

namespace {

template <class T, class C>
void attend_over(const Attention& shape, const Step& step, const void* q, int64_t q_stride, const Cache& cache,
                 void* out, int64_t out_stride) {
  using Element = typename T::Element;
  const Pages<T, C> pages{shape, step, (const Element*)q, q_stride, cache, (Element*)out, out_stride};
  if (step.decodes) attend_decodes(pages);
  if (step.sequences > step.decodes) attend_chunks(pages);
}

}  // namespace

void attend(Type type, const Attention& shape, const Step& step, const void* q, int64_t q_stride, const Cache& cache,
            void* out, int64_t out_stride) {
  const auto run = [&](auto with) { with(shape, step, q, q_stride, cache, out, out_stride); };
  if (type == kBf16)
    cache.key_scales ? run(attend_over<Bf16, Int8>) : run(attend_over<Bf16, Bf16>);
  else
    cache.key_scales ? run(attend_over<F32, Int8>) : run(attend_over<F32, F32>);
}

}  // namespace strata
