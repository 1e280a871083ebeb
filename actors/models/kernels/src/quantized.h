// A quantized weight as `quantized.py` packs it, and where its parts lie.
//
// Columns of y come in blocks of 16, one after the other. A block is: 16 float scales; if `groups` > 1 or there are
// zeros, half-precision factors of those scales [groups][16]; if there are zeros, bytes [groups][16]; then the values.
// Each part is filled up to whole lines of 64 bytes. 8 bits: [inner / 4][16 columns][4] bytes, value + 128. 4 bits:
// [inner / 8][16 columns][4] bytes, value + 8 of the first four inner places low, of the next four high.
#pragma once
#include <algorithm>

#include "kernels.h"
#include "vectors.h"

namespace strata {

constexpr int64_t kColumns = 16;
constexpr int64_t kPart = 1280;       // places: fewer have their sums scaled oftener, more are rounded more coarsely
constexpr int64_t kSmallGroup = 128;  // and of these the parts are where groups are no larger

// A row of x is rounded in parts, each with a scale of its own; a part is one or several groups of the weight, or of a
// larger group a piece. Sums are taken of `each` places: a group, or a part where that is smaller.
//
// `merged`: small groups of 4 bits whose factors go into the values, which are rounded to bytes of one scale a column.
struct Packed {
  const Weights& w;
  int64_t group;  // inner places that share a scale
  bool merged, grouped, centred, small;
  int64_t shared, each;  // that share a scale of x, and that are added up; the last ones of a row may be fewer
  int64_t ratios, zeros, values, bytes;  // offsets in a block; its size

  // As few parts as may be, of whole tiles, and as equal as that allows.
  static int64_t part_of(int64_t inner) {
    const int64_t unit = inner % 64 ? 32 : 64, units = inner / unit, parts = (inner + kPart - 1) / kPart;
    return (units + parts - 1) / parts * unit;
  }

  explicit Packed(const Weights& w, bool merged = false)
      : w(w), group(w.group), merged(merged), grouped(w.group < w.inner || w.zeros), centred(!w.zeros),
        small(!merged && w.group <= kSmallGroup), shared(small ? kSmallGroup : part_of(w.inner)),
        each(merged ? shared : std::min(group, shared)) {
    const int64_t groups = w.inner / w.group;
    const auto lines = [](int64_t n) { return (n + 63) / 64 * 64; };
    ratios = 64;
    zeros = ratios + (grouped ? lines(groups * 32) : 0);
    values = zeros + (centred ? 0 : lines(groups * 16));
    bytes = values + w.inner * w.bits * kColumns / 8;
  }

  const uint8_t* block(int64_t i) const { return (const uint8_t*)w.weight + i * bytes; }
  int64_t blocks() const { return (w.columns + kColumns - 1) / kColumns; }
  int64_t parts() const { return (w.inner + shared - 1) / shared; }  // scales of a row of x
  int64_t sums() const { return (w.inner + each - 1) / each; }       // of a row of x and a column
  int64_t first(int64_t part) const { return part * (shared / each); }  // of a part
  int64_t end(int64_t part) const { return std::min(first(part + 1), sums()); }
  int64_t places(int64_t sum) const { return std::min(each, w.inner - sum * each); }
  int64_t group_of(int64_t sum) const { return small ? sum : 0; }
  float most() const { return centred ? 8 : 15; }  // of 4 bits, by how much a value lies off its zero
};

// Sixteen inner places from `at` on of one column, which is a row of the weight as others see it; `at` is a multiple of 16.
inline Floats sixteen(const Packed& p, int64_t column, int64_t at) {
  const int64_t lane = column % kColumns, group = at / p.group;
  const uint8_t* block = p.block(column / kColumns);
  const uint8_t* values = block + p.values + lane * 4;
  alignas(16) uint8_t bytes[16];
  if (p.w.bits == 8) {
    for (int i = 0; i < 4; i++) memcpy(bytes + 4 * i, values + (at / 4 + i) * 64, 4);
  } else {
    for (int i = 0; i < 2; i++) {
      uint32_t word;
      memcpy(&word, values + (at / 8 + i) * 64, 4);
      const uint32_t low = word & 0x0f0f0f0f, high = word >> 4 & 0x0f0f0f0f;
      memcpy(bytes + 8 * i, &low, 4);
      memcpy(bytes + 8 * i + 4, &high, 4);
    }
  }
  float scale;
  memcpy(&scale, block + lane * 4, 4);
  if (p.grouped) {
    uint16_t ratio;
    memcpy(&ratio, block + p.ratios + (group * kColumns + lane) * 2, 2);
    scale *= _cvtsh_ss(ratio);
  }
  const int32_t added = p.w.bits == 8 ? 128 : 8;
  const int32_t zero = p.centred ? 0 : (int8_t)block[p.zeros + group * kColumns + lane];
  const Ints v = widen_u8(load8(bytes));
  return mul(to_floats(sub(v, ints(added + zero))), floats(scale));
}

// Whether so many rows join gates and ups, and `gated_linear` for them.
bool quantized_gates(const Weights& w, int64_t rows);
void quantized_gated(Type type, Activation activation, const void* x, const Weights& w, const float* bias, void* y,
                     int64_t rows, int64_t x_stride, int64_t y_stride, const Weights& next);

// Rows of x as bytes: x = values * scales, one scale for each part. Row by row where `step` is 0, else in tiles of `held`
// rows, 16 where there are as many, and `step` places: [tile][inner / step][held][step].
struct Quantized {
  int8_t* values;   // [rows][inner]
  float* scales;    // [rows][parts], or [tile][parts][16]
  int32_t* starts;  // [rows][sums], or [tile][sums][16]: minus the sum of values times what was added to the weight's
  int64_t step, held;

  int64_t place(int64_t row, int64_t index, int64_t count) const {
    return step ? (row / 16 * count + index) * 16 + row % 16 : row * count + index;
  }

  const int8_t* tile(int64_t row, int64_t inner) const { return values + row * inner; }
};

// Where a product goes: as it is, or where `half` is not 0, `activation` of gates times ups, whose blocks begin there.
struct Target {
  char* y;
  int64_t stride;
  Type type;
  const float* bias;
  int64_t half = 0;
  Activation activation = kSilu;
};

inline void put(const Target& to, int64_t row, int64_t column, Floats v, Picked mask) {
  if (to.bias) v = add(v, load_floats(mask, to.bias + column));
  if (to.type == kF32)
    F32::store((float*)to.y + row * to.stride + column, v, mask);
  else
    Bf16::store((uint16_t*)to.y + row * to.stride + column, v, mask);
}

// What is read after a weight: lines from `at` on, and those of a second stream `between` bytes further.
struct Next {
  const char* at;
  int64_t between;
};

// Blocks [begin, end) of the weight for all rows of x, which lie in tiles; `after` is what is read next. Where `to`
// joins gates, those of gates, each with the block of the ups of its columns.
void amx_quantized(const Packed& p, const Quantized& x, int64_t rows, int64_t begin, int64_t end, Next after,
                   const Target& to);

}  // namespace strata
