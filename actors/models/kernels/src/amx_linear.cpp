// Products with a bf16 weight in panels, by tiles: `linear` and `gated_linear` where the processor has them.
//
// x is copied into tiles first, so that a tile is one piece of memory and its lines do not fall onto one another's place
// in a cache. Up to 32 rows read each panel once, from streams that lie far from each other and are fetched ahead. More
// rows pass a pair of panels, 32 at a time, as many steps at once as have the pair stay in the first cache: tiles of x
// are loaded so that they leave it alone. The next pair is fetched into the second cache meanwhile.
#include <omp.h>

#include <type_traits>

#include "activation.h"
#include "amx.h"
#include "panels.h"

#ifdef STRATA_AMX

namespace strata {
namespace {

constexpr int64_t kTile = kTileRows * kTileBytes;
constexpr int64_t kFew = 2 * kTileRows;
constexpr int64_t kDistance = 4096;       // bytes that each stream is fetched ahead
constexpr int64_t kCache = 1280 << 10;    // bytes of x that stay in the second cache while weights pass by
constexpr int64_t kSteps = 20;            // of a pair of panels, 40 of the 48 KB of the first cache
constexpr int64_t kSharedWork = 1 << 16;  // bytes of x that one thread copies faster

// x in tiles [tile][step][its rows][64 bytes]; what a row has beyond its width is zero, and where `filled` so are the
// rows that the last tile lacks.
struct Rows {
  const char* at;
  int64_t rows, steps;
  bool filled;

  int64_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  int64_t held(int64_t tile) const { return filled ? kTileRows : std::min(kTileRows, rows - tile * kTileRows); }
  const char* tile(int64_t i) const { return at + i * steps * kTile; }
  Rows from(int64_t first, int64_t count) const {
    return {tile(first), std::min(count * kTileRows, rows - first * kTileRows), steps, filled};
  }
};

void copy_tile(const char* x, int64_t rows, int64_t held, int64_t bytes, int64_t stride, char* to) {
  for (int64_t k = 0; k < bytes; k += kTileBytes) {
    const __mmask64 mask = bytes - k >= kTileBytes ? ~0ull : (1ull << (bytes - k)) - 1;
    for (int64_t i = 0; i < held; i++, to += kTileBytes)
      _mm512_store_si512(to, _mm512_maskz_loadu_epi8(i < rows ? mask : 0, x + i * stride + k));
  }
}

Rows in_tiles(const char* x, int64_t rows, int64_t bytes, int64_t stride) {
  const int64_t steps = (bytes + kTileBytes - 1) / kTileBytes, tiles = (rows + kTileRows - 1) / kTileRows;
  char* at = (char*)scratch<kRows>(tiles * steps * kTile);
  const Rows made{at, rows, steps, rows > kFew};
  const int threads = omp_in_parallel() || rows * bytes < kSharedWork ? 1 : omp_get_max_threads();
#pragma omp parallel for if (threads > 1) schedule(static) num_threads(threads)
  for (int64_t i = 0; i < tiles; i++)
    copy_tile(x + i * kTileRows * stride, std::min(kTileRows, rows - i * kTileRows), made.held(i), bytes, stride,
              at + i * steps * kTile);
  return made;
}

// A bf16 weight in panels, as tiles read it.
struct Whole {
  Panels w;

  int64_t width(int64_t panel) const { return w.width(panel); }
  const char* at(int64_t panel) const { return (const char*)w.panel(panel); }
  int64_t bytes() const { return w.size() * sizeof(Unit); }  // of a panel

  // The panel, 16 columns wide and in whole tiles: itself, or a copy that is filled up with zeros.
  template <Purpose P>
  const char* lines(int64_t panel) const {
    const int64_t width = w.width(panel), tiles = (w.units + kTileRows - 1) / kTileRows;
    const Unit* from = w.panel(panel);
    if (width == kLanes && w.units % kTileRows == 0) return (const char*)from;
    char* copy = (char*)scratch<P>(tiles * kTile);
    for (int64_t k = 0; k < tiles * kTileRows; k++)
      _mm512_store_si512(copy + k * kTileBytes,
                         _mm512_maskz_loadu_epi32(k < w.units ? first(width) : 0, from + k * width));
    return copy;
  }
};

// The panels that are computed together, NB at a time: the j-th of the i-th time is begin + i * step + j * apart.
struct Walk {
  const Whole& w;
  int64_t begin, count, step, apart;

  int64_t panel(int64_t i, int64_t j) const { return begin + i * step + j * apart; }
  const char* at(int64_t i) const { return w.at(panel(i, 0)); }
  int64_t between() const { return apart * w.bytes(); }

  template <int NB>
  void all(int64_t i, const char* (&found)[NB]) const {
    found[0] = w.lines<kPanel0>(panel(i, 0));
    if constexpr (NB > 1) found[1] = w.lines<kPanel1>(panel(i, 1));
    if constexpr (NB > 2) {
      found[2] = w.lines<kPanel2>(panel(i, 2));
      found[3] = w.lines<kPanel3>(panel(i, 3));
    }
  }
};

// What is fetched while something is computed: lines from `at` on, for each panel of a walk `between` bytes further.
struct Ahead {
  const char* at;
  int64_t between;
};

// Sums of MA tiles of rows and NB panels in the registers, and in memory: [MA][16 rows][NB][16 columns].
template <int MA, int NB>
struct Sums {
  static constexpr int64_t stride = NB * kTileBytes, half = kTileRows * NB * kLanes, size = MA * half;

  static void zero() {
    _tile_zero(0);
    if constexpr (NB > 1) _tile_zero(1);
    if constexpr (MA > 1 || NB > 2) _tile_zero(2);
    if constexpr (NB > (MA > 1 ? 1 : 2)) _tile_zero(3);
  }

  static void load(const float* sums) {
    _tile_loadd(0, sums, stride);
    if constexpr (NB > 1) _tile_loadd(1, sums + kLanes, stride);
    if constexpr (MA > 1) _tile_loadd(2, sums + half, stride);
    if constexpr (MA > 1 && NB > 1) _tile_loadd(3, sums + half + kLanes, stride);
  }

  static void store(float* sums) {
    _tile_stored(0, sums, stride);
    if constexpr (NB > 1) _tile_stored(1, sums + kLanes, stride);
    if constexpr (MA > 1) _tile_stored(2, sums + half, stride);
    if constexpr (MA > 1 && NB > 1) _tile_stored(3, sums + half + kLanes, stride);
    if constexpr (NB > 2) {
      _tile_stored(2, sums + 2 * kLanes, stride);
      _tile_stored(3, sums + 3 * kLanes, stride);
    }
  }
};

// Adds steps [from, to) to the sums; `Passing`: x is not to stay in the first cache. `fetch(k)` fetches what comes later.
template <int MA, int NB, bool Passing, class Fetch>
inline void add(const Rows& x, const char* const (&w)[NB], int64_t from, int64_t to, const Fetch& fetch) {
  const int64_t left = x.held(0) * kTileBytes, right = MA > 1 ? x.held(1) * kTileBytes : 0;
  const char *upper = x.tile(0), *lower = MA > 1 ? x.tile(1) : nullptr;
  for (int64_t k = from; k < to; k++) {
    fetch(k);
    if constexpr (Passing)
      _tile_stream_loadd(4, upper + k * left, kTileBytes);
    else
      _tile_loadd(4, upper + k * left, kTileBytes);
    _tile_loadd(6, w[0] + k * kTile, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (MA > 1) {
      if constexpr (Passing)
        _tile_stream_loadd(5, lower + k * right, kTileBytes);
      else
        _tile_loadd(5, lower + k * right, kTileBytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (NB > 1) {
      _tile_loadd(7, w[1] + k * kTile, kTileBytes);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (MA > 1) _tile_dpbf16ps(3, 5, 7);
    }
    if constexpr (NB > 2) {
      _tile_loadd(6, w[2] + k * kTile, kTileBytes);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(7, w[3] + k * kTile, kTileBytes);
      _tile_dpbf16ps(3, 4, 7);
    }
  }
}

inline void written() { asm volatile("" : : : "memory"); }  // GCC 12 does not know that loads of tiles read memory

// Where sums go: plain, with a bias.
template <class O>
struct Plain {
  const float* bias;
  typename O::Element* y;
  int64_t stride;

  Plain from(int64_t row) const { return {bias, y + row * stride, stride}; }

  template <int NB>
  void take(const Walk& walk, int64_t i, int64_t row, const float* sums) const {
#pragma GCC unroll 4
    for (int j = 0; j < NB; j++) {
      const int64_t panel = walk.panel(i, j), column = panel * kLanes;
      const __mmask16 mask = first(walk.w.width(panel));
      __m512 v = _mm512_load_ps(sums + j * kLanes);
      if (bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + column));
      O::store(y + row * stride + column, v, mask);
    }
  }
};

// Sums of a panel of gates and of the ups of the same columns.
struct Gated {
  const float* bias;
  uint16_t* y;
  int64_t stride;
  Activation activation;

  Gated from(int64_t row) const { return {bias, y + row * stride, stride, activation}; }

  template <int NB>
  void take(const Walk& walk, int64_t i, int64_t row, const float* sums) const {
    const int64_t column = walk.panel(i, 0) * kLanes;
    __m512 gate = _mm512_load_ps(sums), up = _mm512_load_ps(sums + kLanes);
    if (bias) {
      gate = _mm512_add_ps(gate, _mm512_loadu_ps(bias + column));
      up = _mm512_add_ps(up, _mm512_loadu_ps(bias + walk.panel(i, 1) * kLanes));
    }
    Bf16::store(y + row * stride + column, _mm512_mul_ps(activate<Bf16>(activation, rounded<Bf16>(gate)), rounded<Bf16>(up)));
  }
};

template <int NB, class Out>
inline void take(const Walk& walk, int64_t i, const Rows& x, const float* sums, const Out& out) {
  for (int64_t r = 0; r < std::min<int64_t>(x.rows, kFew); r++)
    out.template take<NB>(walk, i, r, sums + r * NB * kLanes);
}

// Up to two tiles of rows: the panels of a walk are streams. The last of each fetches from `after` on.
template <int MA, int NB, class Out>
void streams(const Walk& walk, const Rows& x, Ahead after, const Out& out) {
  if (!walk.count) return;
  const Shaped shaped(x.held(0), MA > 1 ? x.held(1) : 0, NB > 2);
  alignas(64) float sums[Sums<MA, NB>::size];
  const char* w[NB];
  for (int64_t i = 0; i < walk.count; i++) {
    walk.all(i, w);
    const bool last = i + 1 == walk.count;
    const int64_t turn = last ? std::max<int64_t>(0, x.steps - kDistance / kTile) : x.steps, between = walk.between();
    const char* own = walk.at(i) + kDistance;
    written();
    Sums<MA, NB>::zero();
    add<MA, NB, false>(x, w, 0, x.steps, [&](int64_t k) __attribute__((always_inline)) {
      const char* soon = k < turn ? own + k * kTile : after.at + (k - turn) * kTile;
      const int64_t apart = k < turn ? between : after.between;
#pragma GCC unroll 4
      for (int j = 0; j < NB; j++)
#pragma GCC unroll 16
        for (int line = 0; line < 16; line++) _mm_prefetch(soon + j * apart + line * 64, _MM_HINT_T0);
    });
    Sums<MA, NB>::store(sums);
    take<NB>(walk, i, x, sums, out);
  }
}

// One pair of panels and one of tiles of rows, of which the last may lack the second.
template <int NB, class Fetch>
inline void add_pair(const Rows& x, const char* const (&w)[NB], int64_t from, int64_t to, float* sums,
                     const Fetch& fetch) {
  const auto run = [&](auto both) __attribute__((always_inline)) {
    constexpr int MA = decltype(both)::value;
    from ? Sums<MA, NB>::load(sums) : Sums<MA, NB>::zero();
    add<MA, NB, true>(x, w, from, to, fetch);
  };
  x.tiles() > 1 ? run(std::integral_constant<int, 2>()) : run(std::integral_constant<int, 1>());
}

// Many rows: a pair of panels passes all of a chunk.
template <int NB, class Out>
void passes(const Walk& walk, const Rows& x, Ahead after, const Out& out) {
  const Shaped shaped(kTileRows, kTileRows);
  const int64_t pairs = (x.tiles() + 1) / 2, own = walk.between(), bytes = walk.w.bytes();
  const int64_t each = (bytes / 64 + pairs * x.steps - 1) / (pairs * x.steps);  // lines of a panel in each step
  const int64_t spans = (x.steps + kSteps - 1) / kSteps;
  float* all = (float*)scratch<kSums>(pairs * Sums<2, NB>::size * sizeof(float));
  const char* w[NB];
  for (int64_t i = 0; i < walk.count; i++) {
    walk.all(i, w);
    written();
    const bool last = i + 1 == walk.count;
    const char* next = last ? after.at : walk.at(i + 1);
    const int64_t between = last ? after.between : own;
    const auto rows = [&](int64_t pair) { return x.from(2 * pair, 2); };
    const auto taken = [&](int64_t pair) {
      take<NB>(walk, i, rows(pair), all + pair * Sums<2, NB>::size, out.from(2 * pair * kTileRows));
    };
    for (int64_t span = 0; span < spans; span++)
      for (int64_t pair = 0; pair < pairs; pair++) {
        float* sums = all + pair * Sums<2, NB>::size;
        const auto fetch = [&](int64_t k) __attribute__((always_inline)) {
          const int64_t line_from = (pair * x.steps + k) * each, line_to = std::min(line_from + each, bytes / 64);
          for (int64_t line = line_from; line < line_to; line++)
#pragma GCC unroll 2
            for (int j = 0; j < NB; j++) _mm_prefetch(next + j * between + line * 64, _MM_HINT_T1);
        };
        add_pair<NB>(rows(pair), w, x.steps * span / spans, x.steps * (span + 1) / spans, sums, fetch);
        if (span + 1 == spans && pair) taken(pair - 1);  // while the tiles are still at work
        rows(pair).tiles() > 1 ? Sums<2, NB>::store(sums) : Sums<1, NB>::store(sums);
      }
    taken(pairs - 1);
  }
}

// Chunks of rows that stay in the second cache.
template <int NB, class Out>
void chunks(const Walk& walk, const Rows& x, Ahead after, const Out& out) {
  if (!walk.count) return;
  const int64_t fitting = std::max<int64_t>(2, kCache / (x.steps * kTile) / 2 * 2), tiles = x.tiles();
  const int64_t count = (tiles + fitting - 1) / fitting, most = ((tiles + count - 1) / count + 1) / 2 * 2;
  for (int64_t tile = 0; tile < tiles; tile += most) {
    const bool last = tile + most >= tiles;
    passes<NB>(walk, x.from(tile, most), last ? after : Ahead{walk.at(0), walk.between()}, out.from(tile * kTileRows));
  }
}

// Panels [begin, end) of a weight; `after` is what is read next.
template <class Out>
void columns(const Whole& w, int64_t, const Rows& x, int64_t begin, int64_t end, Ahead after, const Out& out) {
  const int64_t count = end - begin;
  if (x.filled) {
    chunks<2>(Walk{w, begin, count / 2, 2, 1}, x, after, out);
    chunks<1>(Walk{w, begin + count / 2 * 2, count % 2, 1, 0}, x, after, out);
  } else if (x.tiles() > 1) {
    streams<2, 2>(Walk{w, begin, count / 2, 1, count / 2}, x, after, out);
    streams<2, 1>(Walk{w, begin + count / 2 * 2, count % 2, 1, 0}, x, after, out);
  } else {
    streams<1, 4>(Walk{w, begin, count / 4, 1, count / 4}, x, after, out);
    streams<1, 1>(Walk{w, begin + count / 4 * 4, count % 4, 1, 0}, x, after, out);
  }
}

// The same of gates, with the ups of the same columns, which begin `half` panels later.
void columns(const Whole& w, int64_t half, const Rows& x, int64_t begin, int64_t end, Ahead after, const Gated& out) {
  const Walk walk{w, begin, end - begin, 1, half};
  if (x.filled)
    chunks<2>(walk, x, after, out);
  else if (x.tiles() > 1)
    streams<2, 2>(walk, x, after, out);
  else
    streams<1, 2>(walk, x, after, out);
}

// What a thread gets: of many rows a part of the rows, which it also copies into tiles, so that they lie in its own
// cache; of few rows a part of the `count` panels. `x`: rows of `bytes`, `stride` apart. `next` is the weight that is
// read after this one.
struct Input {
  const char* x;
  int64_t rows, bytes, stride;
  const char* next;
  int64_t next_panels, next_bytes;
};

template <class Out>
void multiply(const Whole& w, int64_t count, const Input& in, const Out& out) {
  const int64_t threads = omp_get_max_threads(), tiles = (in.rows + kTileRows - 1) / kTileRows;
  int64_t parts = 1;
  while (threads % (2 * parts) == 0 && tiles >= 8 * parts) parts *= 2;
  const int64_t shares = threads / parts;
  const Rows all = shares == 1 ? Rows{} : in_tiles(in.x, in.rows, in.bytes, in.stride);
#pragma omp parallel for if (threads > 1) schedule(static, 1) num_threads(threads)
  for (int64_t i = 0; i < threads; i++) {
    const int64_t part = i / shares, share = i % shares, from = tiles * part / parts, to = tiles * (part + 1) / parts;
    const int64_t row = from * kTileRows, mine = std::min(in.rows, to * kTileRows) - row;
    if (mine <= 0) continue;
    const int64_t soon = in.next_panels * share / shares, streamed = in.next_panels * (share + 1) / shares - soon;
    const Ahead after{in.next + soon * in.next_bytes, streamed / 4 * in.next_bytes};
    columns(w, count, shares == 1 ? in_tiles(in.x + row * in.stride, mine, in.bytes, in.stride) : all.from(from, to - from),
            count * share / shares, count * (share + 1) / shares, after, out.from(row));
  }
}

Input input(const void* x, const Weights& w, int64_t rows, int64_t x_stride, const Weights& next) {
  const Panels panels(kBf16, next);
  return {(const char*)x, rows, 2 * w.inner, 2 * x_stride, (const char*)panels.at, panels.count(),
          panels.size() * (int64_t)sizeof(Unit)};
}

}  // namespace

void amx_linear(Type out, const void* x, const Weights& w, const float* bias, void* y, int64_t rows, int64_t x_stride,
                int64_t y_stride, const Weights& next) {
  if (!rows) return;  // the head of a step in which nobody's prompt ends
  const auto run = [&](const auto& to) {
    const Input in = input(x, w, rows, x_stride, next);
    const int64_t count = (w.columns + kLanes - 1) / kLanes;
    multiply(Whole{Panels(kBf16, w)}, count, in, to);
  };
  out == kF32 ? run(Plain<F32>{bias, (float*)y, y_stride}) : run(Plain<Bf16>{bias, (uint16_t*)y, y_stride});
}

void amx_gated(Activation activation, const void* x, const Weights& w, const float* bias, void* y, int64_t rows,
               int64_t x_stride, int64_t y_stride, const Weights& next) {
  const Input in = input(x, w, rows, x_stride, next);
  const int64_t half = w.columns / kLanes / 2;
  const Gated to{bias, (uint16_t*)y, y_stride, activation};
  multiply(Whole{Panels(kBf16, w)}, half, in, to);
}

}  // namespace strata

#else

namespace strata {

void amx_linear(Type, const void*, const Weights&, const float*, void*, int64_t, int64_t, int64_t, const Weights&) {}
void amx_gated(Activation, const void*, const Weights&, const float*, void*, int64_t, int64_t, int64_t, const Weights&) {
}

}  // namespace strata

#endif
