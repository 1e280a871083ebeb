// One token of each row of logits: the likeliest, or one at random by the row's temperature, top_k, top_p and min_p.
//
// A row is read once for the largest logit of each block of 256 and, where something is drawn, once more for what its
// numbers weigh. Those maxima say which blocks can hold anything that a filter keeps, so that top_k reads a few blocks
// and top_p hardly more: what weighs less than 1 - top_p of a mean token cannot be needed. Only what is left is gathered
// and put in order. The order of filters is vLLM's, min_p, top_k, top_p, and equal logits stand or fall together.
//
// The same says how likely tokens are: the sum of a row's weights, and its `most` largest logits.
#include <omp.h>

#include <algorithm>
#include <cfloat>
#include <functional>

#include "kernels.h"
#include "vectors.h"

namespace strata {
namespace {

constexpr int64_t kBlock = 256;           // logits
constexpr int64_t kSharedWork = 1 << 14;  // logits below which one thread is faster
constexpr int kBins = 1024;               // of candidates, by what they weigh

inline Floats none() { return floats(-INFINITY); }

// The logits of one row, as far as its form allows; what is no number is as little as can be, what is infinite the most.
struct Line {
  const float* at;
  const uint32_t* fits;  // bits; null for all
  int64_t count;

  int64_t blocks() const { return (count + kBlock - 1) / kBlock; }
  Picked allowed(int64_t i) const {
    const Picked lanes = first(count - i);
    return fits ? lanes & (fits[i / 32] >> (i % 32)) : lanes;
  }
  Floats load(int64_t i) const {
    const Picked lanes = allowed(i);
    const Floats v = min(max(load_floats(lanes, at + i), none()), floats(FLT_MAX));
    return lanes == kAll ? v : merge(none(), Mask(lanes), v);
  }

  // Calls `what` with the places in block b at which a vector has something that is allowed.
  template <class What>
  void each(int64_t b, const What& what) const {
    const int64_t begin = b * kBlock, end = std::min(count, begin + kBlock);
    for (int64_t i = begin; i < end; i += fits ? 32 : kLanes) {
      if (!fits) {
        what(i);
      } else if (const uint32_t word = fits[i / 32]) {
        for (int64_t j = 0; j < 32 && i + j < end; j += kLanes)
          if (Picked(word >> j)) what(i + j);
      }
    }
  }
};

// A candidate's place and its power of two: what it weighs beside the largest.
struct Candidates {
  float* powers;
  float* weights;
  int32_t* places;
  int64_t count = 0;
};

// All of a row that its thread keeps.
struct Desk {
  float* tops;     // the largest logit of each block
  double* sums;    // of the weights of each
  float* order;    // to be put in order
  Candidates all;

  explicit Desk(int64_t count) {
    const int64_t wide = (count + kBlock - 1) / kBlock * kBlock, blocks = wide / kBlock;
    char* at = (char*)scratch<kChosen>(blocks * (sizeof(double) + sizeof(float)) + wide * 4 * sizeof(float) + 512);
    sums = (double*)at, at += blocks * sizeof(double);
    all.powers = (float*)at, all.weights = all.powers + wide + kLanes;
    all.places = (int32_t*)(all.weights + wide + kLanes);
    order = (float*)(all.places + wide + kLanes), tops = order + wide;
  }
};

// Of numbers that lie below `best`: how often one has to be halved to be the other's weight.
struct Scale {
  float best, factor;  // the latter finite, as 0 times it has to be 0

  Scale(float best, float temperature) : best(best), factor(std::min(kLog2E / temperature, FLT_MAX)) {}
  Floats powers(Floats v) const { return mul(sub(v, floats(best)), floats(factor)); }
  float power(float v) const { return (v - best) * factor; }
};

float find_tops(const Line& line, float* tops) {
  Floats best = none();
  for (int64_t b = 0; b < line.blocks(); b++) {
    Floats top = none();
    line.each(b, [&](int64_t i) { top = max(top, line.load(i)); });
    tops[b] = largest(top), best = max(best, top);
  }
  return largest(best);
}

int64_t likeliest(const Line& line, float best, const float* tops) {
  int64_t b = 0;
  while (tops[b] != best) b++;
  for (int64_t i = b * kBlock;; i += kLanes)
    if (const Picked found = picked(equal(line.load(i), floats(best)))) return i + __builtin_ctz(found);
}

// The weights of the numbers whose power is at least `floor`, added up block by block; returns their sum.
double weigh(const Line& line, const Scale& scale, float floor, Desk& desk) {
  double all = 0;
  for (int64_t b = 0; b < line.blocks(); b++) {
    desk.sums[b] = 0;
    if (!(scale.power(desk.tops[b]) >= floor)) continue;
    Floats sum = floats(0);
    line.each(b, [&](int64_t i) {
      const Floats powers = scale.powers(line.load(i));
      sum = add(sum, merge(floats(0), not_less(powers, floats(floor)), power<F32>(powers)));
    });
    all += desk.sums[b] = total(sum);
  }
  return all;
}

// Those whose power is at least `floor`, in the order of their places.
void gather(const Line& line, const Scale& scale, float floor, Desk& desk) {
  Candidates& all = desk.all;
  alignas(64) int32_t lanes[kLanes];
  for (int i = 0; i < kLanes; i++) lanes[i] = i;
  all.count = 0;
  for (int64_t b = 0; b < line.blocks(); b++) {
    if (!(scale.power(desk.tops[b]) >= floor)) continue;
    line.each(b, [&](int64_t i) {
      const Floats powers = scale.powers(line.load(i));
      const Picked kept = picked(at_least(powers, floats(floor)));
      if (!kept) return;
      store_picked(all.powers + all.count, kept, powers);
      store_picked(all.places + all.count, kept, as_floats(add(load_ints(lanes), ints(i))));
      all.count += __builtin_popcount(kept);
    });
  }
  for (int64_t i = 0; i < all.count; i += kLanes) store(all.weights + i, power<F32>(load_floats(all.powers + i)));
}

// Leaves those whose power is at least `floor`.
void keep(Candidates& all, float floor) {
  int64_t kept = 0;
  for (int64_t i = 0; i < all.count; i++) {
    all.powers[kept] = all.powers[i], all.weights[kept] = all.weights[i], all.places[kept] = all.places[i];
    kept += all.powers[i] >= floor;
  }
  all.count = kept;
}

// The k-th largest of `count` numbers, which are put into another order.
float kth(float* numbers, int64_t count, int64_t k) {
  std::nth_element(numbers, numbers + k - 1, numbers + count, std::greater<float>());
  return numbers[k - 1];
}

double sum_of(const Candidates& all) {
  double sum = 0;
  for (int64_t i = 0; i < all.count; i++) sum += all.weights[i];
  return sum;
}

// The power at which the sum of weights, the largest first, reaches `needed`. Candidates are counted by their powers in
// equal steps first, so that few of them have to be put in order.
float reaching(const Candidates& all, double needed, float* order) {
  float least = 0;
  for (int64_t i = 0; i < all.count; i++) least = std::min(least, all.powers[i]);
  const float step = (kBins - 1) / std::min(126.0f, std::max(-least, 1e-6f));  // what lies lower weighs nothing
  const auto bin = [&](int64_t i) { return (int)std::min<float>(kBins - 1, -all.powers[i] * step); };
  double sums[kBins] = {}, passed = 0;
  for (int64_t i = 0; i < all.count; i++) sums[bin(i)] += all.weights[i];
  int at = 0;
  while (at < kBins - 1 && passed + sums[at] < needed) passed += sums[at++];
  int64_t count = 0;
  for (int64_t i = 0; i < all.count; i++)
    if (bin(i) == at) order[count++] = all.powers[i];
  std::sort(order, order + count, std::greater<float>());
  for (int64_t i = 0; i < count; i++) {
    passed += lowest(power<F32>(floats(order[i])));
    if (passed >= needed) return order[i];
  }
  return count ? order[count - 1] : least;
}

// The first of some numbers where their running sum is more than `target`; the last that is not 0 where it never is.
template <class N>
int64_t reached(const N* numbers, int64_t count, double& target) {
  int64_t last = 0;
  for (int64_t i = 0; i < count; i++) {
    if (!(numbers[i] > 0)) continue;
    last = i;
    if (target < numbers[i]) return i;
    target -= numbers[i];
  }
  target = 0;
  return last;
}

int64_t one_of(const Line& line, const Scale& scale, float floor, double sum, double uniform, const Desk& desk) {
  double target = uniform * sum;
  const int64_t begin = reached(desk.sums, line.blocks(), target) * kBlock;
  alignas(64) float weights[kBlock];
  for (int64_t i = 0; i < kBlock && begin + i < line.count; i += kLanes) {
    const Floats powers = scale.powers(line.load(begin + i));
    store(weights + i, merge(floats(0), not_less(powers, floats(floor)), power<F32>(powers)));
  }
  return begin + reached(weights, std::min(kBlock, line.count - begin), target);
}

// The candidates are the k largest, and what equals the least of them.
void gather_largest(const Line& line, const Scale& scale, float floor, int64_t k, Desk& desk) {
  Candidates& all = desk.all;
  float least = floor;  // of k blocks' largest the least is no more than the k-th largest of all
  if (k <= line.blocks()) {
    std::copy(desk.tops, desk.tops + line.blocks(), desk.order);
    least = std::max(floor, scale.power(kth(desk.order, line.blocks(), k)));
  }
  gather(line, scale, least, desk);
  if (all.count <= k) return;
  std::copy(all.powers, all.powers + all.count, desk.order);
  keep(all, kth(desk.order, all.count, k));
}

int64_t chosen(const Line& line, const Wish& wish) {
  Desk desk(line.count);
  const float best = find_tops(line, desk.tops);
  if (best == -INFINITY) return -1;
  if (wish.uniform < 0) return likeliest(line, best, desk.tops);
  const Scale scale(best, wish.temperature);
  float floor = wish.min_p > 0 ? std::min(0.0f, (float)std::log2(wish.min_p)) : -FLT_MAX;
  Candidates& all = desk.all;
  const bool few = wish.top_k > 0 && wish.top_k < line.count;
  double sum;
  if (few) {
    gather_largest(line, scale, floor, wish.top_k, desk);
    sum = sum_of(all);
  } else {
    sum = weigh(line, scale, floor, desk);
    if (wish.top_p >= 1) return one_of(line, scale, floor, sum, wish.uniform, desk);
    const double little = (1 - wish.top_p) * sum / line.count / 2;  // halved, as sums are rounded
    gather(line, scale, std::max(floor, (float)std::log2(std::max(little, (double)FLT_MIN))), desk);
  }
  if (wish.top_p < 1) keep(all, reaching(all, wish.top_p * sum, desk.order));
  double target = wish.uniform * (wish.top_p < 1 ? sum_of(all) : sum);
  return all.places[reached(all.weights, all.count, target)];
}

void tell(const Line& line, int64_t most, float* top, double* sum, int64_t* places) {
  Desk desk(line.count);
  *top = find_tops(line, desk.tops);
  std::fill(places, places + most, -1);
  *sum = 0;
  if (*top == -INFINITY) return;
  *sum = weigh(line, Scale(*top, 1), -FLT_MAX, desk);
  if (!most) return;
  gather_largest(line, Scale(0, kLog2E), -FLT_MAX, most, desk);  // by the logits as they are
  Candidates& all = desk.all;
  int32_t* order = (int32_t*)desk.order;
  for (int64_t i = 0; i < all.count; i++) order[i] = i;
  const auto before = [&](int32_t a, int32_t b) {
    return all.powers[a] != all.powers[b] ? all.powers[a] > all.powers[b] : a < b;
  };
  const int64_t told = std::min(most, all.count);
  std::partial_sort(order, order + told, order + all.count, before);
  for (int64_t i = 0; i < told; i++) places[i] = all.places[order[i]];
}

}  // namespace

void choose(const float* logits, int64_t stride, int64_t vocab, const Wish* wishes, int64_t count, int64_t* tokens) {
  const int threads = count * vocab < kSharedWork ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1 && count > 1) schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; i++)
    tokens[i] = chosen({logits + wishes[i].row * stride, wishes[i].fits, vocab}, wishes[i]);
}

void weigh_rows(const float* logits, int64_t stride, int64_t vocab, const int64_t* rows, int64_t count, int64_t most,
                float* tops, double* sums, int64_t* places) {
  const int threads = count * vocab < kSharedWork ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1 && count > 1) schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; i++)
    tell({logits + rows[i] * stride, nullptr, vocab}, most, tops + i, sums + i, places + i * most);
}

}  // namespace strata
