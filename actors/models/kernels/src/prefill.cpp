// Attention of many new tokens of one sequence over its paged cache.
//
// Lanes run along 16 rows of the step, times up to three query heads that share keys: scores, softmax and sums of
// values are then all plain column arithmetic, and both products are the wide tile of the matrix product.
#include <omp.h>

#include "attention.h"
#include "tile.h"

namespace strata {
namespace {

struct Item {
  int64_t sequence, row, rows, position, context, head;  // position: that of the first row
};

// What one thread keeps between passes, for `lanes` = MT * 16 columns.
template <class T>
struct Desk {
  Unit *q, *keys, *values, *weights;  // [units][lanes], [64][units], [width][64 positions], [64 positions][lanes]
  float *scores, *sums, *part;        // [64][lanes], [width][lanes] twice
  int64_t width;                      // head_dim in whole vectors

  explicit Desk(int64_t head_dim) : width((head_dim + kLanes - 1) / kLanes * kLanes) {
    const int64_t lanes = 3 * kLanes, units = width / T::per_unit, positions = kPositions / T::per_unit;
    const int64_t sizes[] = {units * lanes,      kPositions * units, width * positions, positions * lanes,
                             kPositions * lanes, width * lanes,      width * lanes};
    int64_t all = 0;
    for (const int64_t size : sizes) all += size;
    Unit* at = (Unit*)scratch<kPrefill>(all * sizeof(Unit));
    void** into[] = {(void**)&q,      (void**)&keys, (void**)&values, (void**)&weights,
                     (void**)&scores, (void**)&sums, (void**)&part};
    for (int i = 0; i < 7; i++) *into[i] = at, at += sizes[i];
  }
};

// The rows' queries of MT heads as [unit][head][row].
template <class T, class C, int MT>
void turn_queries(const Pages<T, C>& pages, const Item& item, Desk<T>& desk) {
  const int64_t units = pages.units();
  for (int t = 0; t < MT; t++)
    for (int64_t k = 0; k < units; k += kLanes) {
      __m512i r[kLanes];
      for (int i = 0; i < kLanes; i++) {
        const auto* q = pages.q + (item.row + i) * pages.q_stride + (item.head + t) * pages.shape.head_dim;
        r[i] = i < item.rows ? _mm512_maskz_loadu_epi32(first(units - k), (const Unit*)q + k) : _mm512_setzero_si512();
      }
      transpose(r);
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, units - k); i++)
        _mm512_store_si512(desk.q + ((k + i) * MT + t) * kLanes, r[i]);
    }
}

template <class T, class C>
void copy_keys(const Pages<T, C>& pages, const int64_t* at, Desk<T>& desk) {
  const int64_t units = pages.units();
  for (int p = 0; p < kPositions; p++)
    if constexpr (Pages<T, C>::scaled) {
      for (int64_t d = 0; d < pages.shape.head_dim; d += kLanes) {  // the bytes themselves: scores are scaled later
        const __mmask16 mask = first(pages.shape.head_dim - d);
        T::store((typename T::Element*)(desk.keys + p * units) + d, C::load(pages.keys + at[p] + d, mask), mask);
      }
    } else {
      for (int64_t k = 0; k < units; k += kLanes) {
        const __mmask16 mask = first(units - k);
        _mm512_mask_storeu_epi32(desk.keys + p * units + k, mask,
                                 _mm512_maskz_loadu_epi32(mask, (const Unit*)(pages.keys + at[p]) + k));
      }
    }
}

// Values as [dimension][position], neighbouring positions paired where a unit holds two.
template <class T, class C>
void turn_values(const Pages<T, C>& pages, const int64_t* at, Desk<T>& desk) {
  constexpr int64_t positions = kPositions / T::per_unit;
  for (int64_t d = 0; d < pages.shape.head_dim; d += kLanes) {
    const __mmask16 mask = first(pages.shape.head_dim - d);
    for (int64_t p = 0; p < positions; p += kLanes) {
      __m512i r[kLanes];
      for (int i = 0; i < kLanes; i++) {
        // bf16 is the upper half of a float, and bytes fit it exactly
        const auto load = [&](int64_t p) { return _mm512_castps_si512(C::load(pages.values + at[p] + d, mask)); };
        if constexpr (T::per_unit == 1)
          r[i] = load(p + i);
        else
          r[i] = _mm512_or_si512(_mm512_srli_epi32(load(2 * (p + i)), 16), load(2 * (p + i) + 1));
      }
      transpose(r);
      for (int i = 0; i < kLanes; i++) _mm512_store_si512(desk.values + (d + i) * positions + p, r[i]);
    }
  }
}

// Which of the 16 rows see position `p`.
template <class T, class C>
inline __mmask16 sees(const Pages<T, C>& pages, const Item& item, int64_t p) {
  const int64_t row = p - item.position;  // the first row that does
  const int64_t window = pages.shape.window;
  const __mmask16 late = row <= 0 ? 0xffff : row >= kLanes ? 0 : (__mmask16)(0xffff << row);
  return window ? late & first(row + window) : late;
}

// What makes numbers of the bytes of a pass.
struct Scales {
  float keys[kPositions], values[kPositions];
};

// One pass: scores of up to 64 positions become weights; top, total and sums follow.
template <class T, class C, int MT>
void pass(const Pages<T, C>& pages, const Item& item, Desk<T>& desk, const Scales& scales, int64_t from,
          int64_t count, __m512* top, __m512* total) {
  constexpr int NR = 8;
  constexpr int64_t lanes = MT * kLanes, positions = kPositions / T::per_unit;
  const int64_t units = pages.units();
  for (int p = 0; p < kPositions; p += NR)
    wide_tile<T, MT, NR>(desk.keys + p * units, units, desk.q, desk.scores + p * lanes);
  __m512 shrink[MT];
  for (int t = 0; t < MT; t++) {
    float* column = desk.scores + t * kLanes;
    __m512 now = top[t];
    for (int64_t p = 0; p < kPositions; p++) {
      const __mmask16 mask = p < count ? sees(pages, item, from + p) : (__mmask16)0;
      __m512 whole = _mm512_load_ps(column + p * lanes);
      if constexpr (Pages<T, C>::scaled) whole = _mm512_mul_ps(whole, _mm512_set1_ps(scales.keys[p]));
      const __m512 score = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), mask, bend(pages.shape, whole));
      _mm512_store_ps(column + p * lanes, score);
      now = _mm512_max_ps(now, score);
    }
    // a row that has seen nothing yet has top -inf: take 0 so that no inf - inf arises
    const __m512 base =
        _mm512_mask_mov_ps(now, _mm512_cmp_ps_mask(now, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ), _mm512_setzero_ps());
    shrink[t] = exp(_mm512_sub_ps(top[t], base));
    top[t] = now;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t p = 0; p < positions; p++) {
      __m512 weight[T::per_unit];
      for (int i = 0; i < T::per_unit; i++) {
        const __m512 score = _mm512_load_ps(column + (p * T::per_unit + i) * lanes);
        // e^x never reaches 0 here, so that what is masked is dropped by hand
        weight[i] = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(score, _mm512_set1_ps(-INFINITY), _CMP_NEQ_OQ),
                                        exp(_mm512_sub_ps(score, base)));
        sum = _mm512_add_ps(sum, weight[i]);
        if constexpr (Pages<T, C>::scaled)
          weight[i] = _mm512_mul_ps(weight[i], _mm512_set1_ps(scales.values[p * T::per_unit + i]));
      }
      __m512i unit = _mm512_castps_si512(weight[0]);
      if constexpr (T::per_unit == 2)
        unit = _mm512_or_si512(_mm512_cvtepu16_epi32(narrow(weight[0])),
                               _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(weight[1])), 16));
      _mm512_store_si512(desk.weights + p * lanes + t * kLanes, unit);
    }
    total[t] = _mm512_fmadd_ps(total[t], shrink[t], sum);
  }
  for (int64_t d = 0; d < desk.width; d += NR)
    wide_tile<T, MT, NR>(desk.values + d * positions, positions, desk.weights, desk.part + d * lanes);
  for (int64_t d = 0; d < desk.width; d++)
    for (int t = 0; t < MT; t++) {
      float* sum = desk.sums + d * lanes + t * kLanes;
      _mm512_store_ps(
          sum, _mm512_fmadd_ps(_mm512_load_ps(sum), shrink[t], _mm512_load_ps(desk.part + d * lanes + t * kLanes)));
    }
}

template <class T, class C>
void locate_scales(const Pages<T, C>& pages, const Item& item, int64_t from, int64_t count, Scales& scales) {
  const int64_t kv_head = item.head / (pages.shape.heads / pages.shape.kv_heads);
  int64_t rows[kPositions];
  pages.locate(item.sequence, from, count, pages.shape.kv_heads, rows);
  for (int64_t i = 0; i < kPositions; i++) {
    const int64_t row = rows[std::min(i, count - 1)] + kv_head;
    scales.keys[i] = pages.key_scales[row], scales.values[i] = pages.value_scales[row];
  }
}

template <class T, class C, int MT>
void write(const Pages<T, C>& pages, const Item& item, const Desk<T>& desk, const __m512* total) {
  for (int t = 0; t < MT; t++) {
    const __m512 share = _mm512_div_ps(_mm512_set1_ps(1.0f), total[t]);
    for (int64_t d = 0; d < pages.shape.head_dim; d += kLanes) {
      __m512i r[kLanes];
      for (int i = 0; i < kLanes; i++)
        r[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(desk.sums + ((d + i) * MT + t) * kLanes), share));
      transpose(r);
      for (int64_t i = 0; i < item.rows; i++)
        T::store(pages.out + (item.row + i) * pages.out_stride + (item.head + t) * pages.shape.head_dim + d,
                 _mm512_castsi512_ps(r[i]), first(pages.shape.head_dim - d));
    }
  }
}

template <class T, class C, int MT>
void run(const Pages<T, C>& pages, const Item& item, Desk<T>& desk) {
  const int64_t end = item.position + item.rows, window = pages.shape.window;
  const int64_t start = window ? std::max<int64_t>(0, item.position - window + 1) : 0;
  const int64_t first_head = item.head / (pages.shape.heads / pages.shape.kv_heads) * pages.shape.head_dim;
  __m512 top[MT], total[MT];
  for (int t = 0; t < MT; t++) top[t] = _mm512_set1_ps(-INFINITY), total[t] = _mm512_setzero_ps();
  memset(desk.sums, 0, desk.width * MT * kLanes * sizeof(float));
  turn_queries<T, C, MT>(pages, item, desk);
  int64_t at[kPositions];
  Scales scales;
  for (int64_t from = start; from < end; from += kPositions) {
    const int64_t count = std::min<int64_t>(kPositions, end - from);
    if constexpr (Pages<T, C>::scaled) locate_scales(pages, item, from, count, scales);
    pages.locate(item.sequence, from, count, pages.stride(), at);
    for (int64_t i = 0; i < kPositions; i++) at[i] = at[std::min(i, count - 1)] + (i < count ? first_head : 0);
    copy_keys(pages, at, desk);
    turn_values(pages, at, desk);
    pass<T, C, MT>(pages, item, desk, scales, from, count, top, total);
  }
  write<T, C, MT>(pages, item, desk, total);
}

// All heads that share the keys of `kv_head`, three at most at a time.
template <class T, class C>
void run_group(const Pages<T, C>& pages, Item item, int64_t kv_head) {
  Desk<T> desk(pages.shape.head_dim);
  const int64_t group = pages.shape.heads / pages.shape.kv_heads;
  for (int64_t h = 0; h < group;) {
    item.head = kv_head * group + h;
    const int64_t left = group - h, now = left == 4 ? 2 : std::min<int64_t>(3, left);
    if (now == 3)
      run<T, C, 3>(pages, item, desk);
    else if (now == 2)
      run<T, C, 2>(pages, item, desk);
    else
      run<T, C, 1>(pages, item, desk);
    h += now;
  }
}

}  // namespace

template <class T, class C>
void attend_chunks(const Pages<T, C>& pages) {
  const Step& step = pages.step;
  const int threads = omp_get_max_threads();
  for (int64_t s = step.decodes; s < step.sequences; s++) {
    const int64_t rows = step.starts[s + 1] - step.starts[s], tiles = (rows + kLanes - 1) / kLanes;
    const int64_t items = tiles * pages.shape.kv_heads;
#pragma omp parallel for if (threads > 1 && items > 1) schedule(dynamic, 1) num_threads(threads)
    for (int64_t i = 0; i < items; i++) {
      const int64_t tile = tiles - 1 - i / pages.shape.kv_heads;  // the longest first
      const int64_t row = tile * kLanes, context = step.contexts[s];
      run_group(pages,
                {s, step.starts[s] + row, std::min<int64_t>(kLanes, rows - row), context - rows + row, context, 0},
                i % pages.shape.kv_heads);
    }
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
  using Cached = typename C::Element;
  const Pages<T, C> pages{shape,
                          step,
                          (const Element*)q,
                          q_stride,
                          (const Cached*)cache.keys,
                          (const Cached*)cache.values,
                          cache.key_scales,
                          cache.value_scales,
                          (Element*)out,
                          out_stride};
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
