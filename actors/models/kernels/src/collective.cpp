// Sums and gathers over the ranks of one machine, through memory that all of them map.
//
// Every rank has two buffers and a count of what it has put there. It writes its part, raises its count, waits until
// the others' counts have come as far, and adds all parts up in the order of the ranks: the sum is the same, bit for
// bit, everywhere. Two buffers suffice: who has written part n + 1 has read all of part n.
//
// A wait spins for a moment and then sleeps in the kernel. On a machine where something else has to run on the ranks'
// cores, a rank that spins keeps from running what the rank that it waits for is waiting for.
#include <linux/futex.h>
#include <omp.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "kernels.h"
#include "vectors.h"

namespace strata {
namespace {

constexpr int64_t kPart = 1 << 20;  // bytes that cross at a time
constexpr int64_t kLine = 128;      // two cache lines: processors fetch them in pairs
constexpr int64_t kMostRanks = 64;
constexpr int64_t kSharedSum = 1 << 17;  // elements below which one thread adds up faster

struct alignas(kLine) Door {
  std::atomic<uint32_t> count;  // parts that the rank has put into its buffers; a futex
  std::atomic<uint32_t> sleepers;
};

Door& door(const Collective& c, int64_t rank) { return ((Door*)c.memory)[rank]; }

char* buffer(const Collective& c, int64_t rank, uint32_t count) {
  return (char*)c.memory + kMostRanks * sizeof(Door) + (2 * rank + (count & 1)) * kPart;
}

int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

bool reached(const Door& d, uint32_t count) { return (int32_t)(d.count.load(std::memory_order_acquire) - count) >= 0; }

void await(Door& d, uint32_t count, int64_t patience) {
  for (int i = 0; i < 64; i++) {
    if (reached(d, count)) return;
    _mm_pause();
  }
  for (const int64_t until = nanoseconds() + patience; nanoseconds() < until;)
    for (int i = 0; i < 16; i++) {
      if (reached(d, count)) return;
      _mm_pause();
    }
  d.sleepers.fetch_add(1);
  while (true) {
    const uint32_t seen = d.count.load();
    if ((int32_t)(seen - count) >= 0) break;
    const timespec while_ = {0, 100000000};
    syscall(SYS_futex, &d.count, FUTEX_WAIT, seen, &while_, nullptr, 0);
  }
  d.sleepers.fetch_sub(1);
}

// This rank's next part lies in its buffer: tell the others, and return when theirs do too.
void meet(Collective& c) {
  Door& own = door(c, c.rank);
  own.count.store(++c.count);
  if (own.sleepers.load()) syscall(SYS_futex, &own.count, FUTEX_WAKE, 1 << 30, nullptr, nullptr, 0);
  for (int64_t r = 0; r < c.size; r++)
    if (r != c.rank) await(door(c, r), c.count, c.patience);
}

// out = the sum of all ranks' buffers.
template <class T>
void add_up(const Collective& c, typename T::Element* out, int64_t count) {
  using Element = typename T::Element;
  const int threads = count < kSharedSum ? 1 : omp_get_max_threads();
  const int64_t share = (count / threads / kLanes + 1) * kLanes;
#pragma omp parallel for if (threads > 1) schedule(static, 1) num_threads(threads)
  for (int t = 0; t < threads; t++)
    for (int64_t i = t * share; i < std::min(count, (t + 1) * share); i += kLanes) {
      const Picked mask = first(count - i);
      Floats sum = T::load((const Element*)buffer(c, 0, c.count) + i, mask);
      for (int64_t r = 1; r < c.size; r++)
        sum = add(sum, T::load((const Element*)buffer(c, r, c.count) + i, mask));
      T::store(out + i, sum, mask);
    }
}

void add_up(const Collective& c, Type type, void* out, int64_t count) {
  type == kBf16 ? add_up<Bf16>(c, (uint16_t*)out, count) : add_up<F32>(c, (float*)out, count);
}

int64_t size_of(Type type) { return type == kBf16 ? 2 : 4; }

}  // namespace

int64_t collective_bytes(int64_t ranks) { return kMostRanks * sizeof(Door) + 2 * ranks * kPart; }

void* collective_buffer(const Collective& c, int64_t bytes) {
  return bytes <= kPart ? buffer(c, c.rank, c.count + 1) : nullptr;
}

void sum_buffers(Collective& c, Type type, void* out, int64_t count) {
  meet(c);
  add_up(c, type, out, count);
}

void all_reduce(Collective& c, Type type, void* x, int64_t count) {
  const int64_t size = size_of(type), most = kPart / size;
  for (int64_t from = 0; from < count; from += most) {
    const int64_t here = std::min(most, count - from);
    char* at = (char*)x + from * size;
    memcpy(buffer(c, c.rank, c.count + 1), at, here * size);
    sum_buffers(c, type, at, here);
  }
}

void gather(Collective& c, float* logits, int64_t rows, int64_t width) {
  const int64_t count = rows * width, most = kPart / sizeof(float), stride = width * c.size;
  for (int64_t from = 0; from < count; from += most) {
    const int64_t here = std::min(most, count - from);
    if (c.rank) memcpy(buffer(c, c.rank, c.count + 1), logits + from, here * sizeof(float));
    meet(c);
    if (c.rank) continue;
    for (int64_t r = 1; r < c.size; r++) {
      const float* theirs = (const float*)buffer(c, r, c.count);
      for (int64_t i = from; i < from + here;) {
        const int64_t row = i / width, column = i % width, run = std::min(width - column, from + here - i);
        memcpy(logits + row * stride + r * width + column, theirs + i - from, run * sizeof(float));
        i += run;
      }
    }
  }
}

void all_gather(Collective& c, const float* piece, float* whole, int64_t rows, int64_t width) {
  const int64_t count = rows * width, most = kPart / sizeof(float);
  for (int64_t from = 0; from < count; from += most) {
    const int64_t here = std::min(most, count - from);
    memcpy(buffer(c, c.rank, c.count + 1), piece + from, here * sizeof(float));
    meet(c);
    for (int64_t r = 0; r < c.size; r++) {
      const float* theirs = (const float*)buffer(c, r, c.count);
      for (int64_t i = from; i < from + here;) {
        const int64_t row = i / width, column = i % width, run = std::min(width - column, from + here - i);
        memcpy(whole + row * width * c.size + r * width + column, theirs + i - from, run * sizeof(float));
        i += run;
      }
    }
  }
}

}  // namespace strata
