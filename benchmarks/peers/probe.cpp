// What this machine can do at the most: `probe THREADS BYTES` prints one line of JSON; `probe` alone says which share of a
// tenth of a second two threads lost that hand a number to and fro: on two cores of one's own almost nothing, and most of
// it where one of them belongs to somebody else at times, be that a process or another guest of the host.
//
// Streams: BYTES are read again and again by all threads, each its own part, eight streams a thread over huge pages. The
// sum of what was read is compared with what was written, so that no load can have been removed. Products: chains of the
// widest multiply-adds on registers, as many as hide their latency, whose result is compared with what it has to be; where
// the processor has tiles (AMX), of two by two of them with numbers of both signs, as equal ones cost it less power.
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define PROBE_TILES
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#endif

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begun) { return std::chrono::duration<double>(Clock::now() - begun).count(); }

// Seconds that the slowest of `threads` takes for `work(thread)`, the start of a thread not counted.
double together(int threads, const std::function<void(int)>& work) {
  std::vector<double> taken(threads);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      const auto begun = Clock::now();
      work(t);
      taken[t] = seconds_since(begun);
    });
  for (auto& one : running) one.join();
  double most = 0;
  for (double one : taken) most = one > most ? one : most;
  return most;
}

uint64_t sum(const uint64_t* at, size_t words) {
  constexpr size_t kStreams = 8;
  const size_t part = words / kStreams;  // a multiple of 16: main rounds
  uint64_t total = 0;
#if defined(__AVX512F__)
  __m512i sums[kStreams];
#pragma GCC unroll 24
  for (auto& one : sums) one = _mm512_setzero_si512();
  for (size_t i = 0; i < part; i += 8)
#pragma GCC unroll 8
    for (size_t s = 0; s < kStreams; ++s) {
      const uint64_t* from = at + s * part + i;
      _mm_prefetch(reinterpret_cast<const char*>(from) + 1536, _MM_HINT_T0);
      sums[s] = _mm512_add_epi64(sums[s], _mm512_load_si512(from));
    }
  for (auto& one : sums) total += static_cast<uint64_t>(_mm512_reduce_add_epi64(one));
#else
  uint64_t sums[kStreams] = {};
  for (size_t i = 0; i < part; ++i)
    for (size_t s = 0; s < kStreams; ++s) sums[s] += at[s * part + i];
  for (uint64_t one : sums) total += one;
#endif
  return total;
}

double stream(int threads, size_t bytes) {
  const size_t words = bytes / 8 / (threads * 8 * 16) * (threads * 8 * 16), share = words / threads;
  const size_t huge = size_t{2} << 20, size = (words * 8 + 4096 + huge - 1) / huge * huge;
  void* mapped = mmap(nullptr, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return 0;
  auto* data = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(mapped) + huge - 1) / huge * huge);
  madvise(data, size, MADV_HUGEPAGE);
  uint64_t written = 0;
  for (size_t i = 0; i < words; ++i) written += data[i] = i * 0x9E3779B97F4A7C15ull;
  double best = 1e30;
  const auto begun = Clock::now();
  for (int pass = 0; pass < 4 || seconds_since(begun) < 0.7; ++pass) {
    std::vector<uint64_t> read(threads);
    const double taken = together(threads, [&](int t) { read[t] = sum(data + t * share, share); });
    uint64_t total = 0;
    for (uint64_t one : read) total += one;
    if (total != written) std::exit(2);
    best = taken < best ? taken : best;
  }
  munmap(mapped, size + huge);
  return words * 8 / best / 1e9;
}

#if defined(__AVX512F__)
constexpr size_t kChains = 16;  // a latency of 4 to 6 cycles, two units; the rest of the registers holds operands
constexpr long kRounds = 1000000;

// Whether kRounds steps of each chain give `expected` in the sum of their lanes' means. An index that is a constant keeps
// a chain in a register; steps are in assembler, as the compiler takes equal chains for one, and copies what it need not.
template <typename Register, typename Step, typename Mean, size_t... I>
bool chains(Register zero, __m512i ones, Step step, Mean mean, double expected, std::index_sequence<I...>) {
  Register sums[kChains] = {((void)I, zero)...};
  const __m512i a = ones, b = ones;
  for (long i = 0; i < kRounds; ++i) (step(sums[I], a, b), ...);
  return (mean(sums[I]) + ...) == expected * kRounds * kChains;
}

// Thousand millions of operations a second of all threads.
template <typename Register, typename Step, typename Mean>
double products(int threads, int lanes, Register zero, __m512i ones, Step step, Mean mean) {
  const double expected = lanes / 16.0;  // products that a sum of 32 bits takes up in a step
  double best = 1e30;
  for (int pass = 0; pass < 20; ++pass) {
    const double taken = together(threads, [&](int) {
      if (!chains(zero, ones, step, mean, expected, std::make_index_sequence<kChains>())) std::exit(3);
    });
    best = taken < best ? taken : best;
  }
  return 2.0 * lanes * kChains * kRounds * threads / best / 1e9;
}

double mean_of_floats(__m512 sums) { return _mm512_reduce_add_ps(sums) / 16; }
#endif

double float_products(int threads) {
#if defined(__AVX512F__)
  const auto step = [](__m512& sum, __m512i a, __m512i b) {
    asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  };
  return products(threads, 16, _mm512_setzero_ps(), _mm512_castps_si512(_mm512_set1_ps(1)), step, mean_of_floats);
#else
  return 0;
#endif
}

#if defined(PROBE_TILES)
constexpr long kTileRounds = 100000;  // so that sums of floats stay whole numbers below 2^24

template <bool Bytes>
void tile_rounds() {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shape;
  asm volatile("" : : "r"(&shape) : "memory");
  _tile_loadconfig(&shape);
  alignas(64) uint8_t from[4][16][64];
  uint32_t chance = 1;
  for (int t = 0; t < 4; ++t)
    for (int row = 0; row < 16; ++row)
      for (int i = 0; i < 32; ++i) {
        const uint16_t drawn = (chance = chance * 1664525u + 1013904223u) >> 16, one = 0x3f80 | (drawn & 0x8000);
        std::memcpy(&from[t][row][2 * i], Bytes ? &drawn : &one, 2);
      }
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  asm volatile("" : : "r"(from) : "memory");
  _tile_loadd(4, from[0], 64);
  _tile_loadd(5, from[1], 64);
  _tile_loadd(6, from[2], 64);
  _tile_loadd(7, from[3], 64);
  for (long i = 0; i < kTileRounds; ++i) {
    if constexpr (Bytes) {
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  alignas(64) uint32_t made[16][16];
  _tile_stored(3, made, 64);
  _tile_release();
  uint32_t expected = 0;  // of the last row and column
  float sum = 0;
  for (int k = 0; k < 64; ++k) {
    const uint8_t a = from[1][15][k], b = from[3][k / 4][60 + k % 4];
    expected += static_cast<uint32_t>(static_cast<int8_t>(a) * static_cast<int>(b)) * kTileRounds;
    if (k % 2) sum += (a ^ from[3][k / 4][60 + k % 4]) & 0x80 ? -kTileRounds : kTileRounds;
  }
  if constexpr (!Bytes) std::memcpy(&expected, &sum, 4);
  if (made[15][15] != expected) std::exit(4);
}

template <bool Bytes>
double tiles(int threads) {
  if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) return 0;  // the kernel has to allow it
  double best = 1e30;
  for (int pass = 0; pass < 20; ++pass) {
    const double taken = together(threads, [](int) { tile_rounds<Bytes>(); });
    best = taken < best ? taken : best;
  }
  return 2.0 * 4 * 16 * 16 * (Bytes ? 64 : 32) * kTileRounds * threads / best / 1e9;
}
#endif

double bf16_products(int threads) {
#if defined(PROBE_TILES)
  if (const double found = tiles<false>(threads)) return found;
#endif
#if defined(__AVX512BF16__)
  const auto step = [](__m512& sum, __m512i a, __m512i b) {
    asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  };
  return products(threads, 32, _mm512_setzero_ps(), _mm512_set1_epi16(0x3f80), step, mean_of_floats);
#else
  return 0;
#endif
}

double byte_products(int threads) {
#if defined(PROBE_TILES)
  if (const double found = tiles<true>(threads)) return found;
#endif
#if defined(__AVX512VNNI__)
  const auto step = [](__m512i& sum, __m512i a, __m512i b) {
    asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  };
  const auto mean = [](__m512i sums) { return _mm512_reduce_add_epi32(_mm512_srli_epi32(sums, 2)) / 4.0; };
  return products(threads, 64, _mm512_setzero_si512(), _mm512_set1_epi8(1), step, mean);
#else
  return 0;
#endif
}

double lost() {
  constexpr double kLong = 20e-6;  // a hand-over takes less than a microsecond; an interrupt some
  constexpr double kWhole = 0.1;
  std::atomic<long> turn{0};
  std::atomic<bool> over{false};
  std::thread other([&] {
    for (long i = 1; !over; i += 2) {
      while (turn.load(std::memory_order_acquire) != i)
        if (over) return;
      turn.store(i + 1, std::memory_order_release);
    }
  });
  double waited = 0;
  const auto begun = Clock::now();
  for (long i = 0; seconds_since(begun) < kWhole; i += 2) {
    const auto at = Clock::now();
    turn.store(i + 1, std::memory_order_release);
    while (turn.load(std::memory_order_acquire) != i + 2) {
    }
    const double taken = seconds_since(at);
    if (taken > kLong) waited += taken;
  }
  const double whole = seconds_since(begun);
  over = true;
  other.join();
  return waited / whole;
}

}  // namespace

int main(int count, char** words) {
  if (count == 1) {
    std::printf("{\"lost\": %.3f}\n", lost());
    return 0;
  }
  const int threads = std::atoi(words[1]);
  const double streamed = stream(threads, std::strtoull(words[2], nullptr, 10));
  std::printf("{\"stream_gb\": %.2f, \"float32_gflops\": %.0f, \"bf16_gflops\": %.0f, \"int8_gops\": %.0f}\n", streamed,
              float_products(threads), bf16_products(threads), byte_products(threads));
}
