// A quantized weight as `quantized.py` packs it, and where its parts lie.
//
// Columns of y come in blocks of 16, one after the other. A block is: 16 float scales; if `groups` > 1 or there are
// zeros, half-precision factors of those scales [groups][16]; if there are zeros, bytes [groups][16]; then the values.
// Each part is filled up to whole lines of 64 bytes. 8 bits: [inner / 4][16 columns][4] bytes, value + 128. 4 bits:
// [inner / 8][16 columns][4] bytes, value + 8 of the first four inner places low, of the next four high.
#pragma once
#include "kernels.h"
#include "vectors.h"

namespace strata {

constexpr int64_t kColumns = 16;

struct Packed {
  const Weights& w;
  int64_t group;     // inner places that share a scale
  int64_t shared;    // of those, places that also share a scale of x: 32, 64 or 128
  bool grouped, centred;
  int64_t ratios, zeros, values, bytes;  // offsets in a block; its size

  explicit Packed(const Weights& w)
      : w(w), group(w.group), shared(w.group <= 128   ? w.group
                                     : w.inner % 128 == 0 ? 128
                                     : w.inner % 64 == 0  ? 64
                                                          : 32),
        grouped(w.group < w.inner || w.zeros), centred(!w.zeros) {
    const int64_t groups = w.inner / w.group;
    const auto lines = [](int64_t n) { return (n + 63) / 64 * 64; };
    ratios = 64;
    zeros = ratios + (grouped ? lines(groups * 32) : 0);
    values = zeros + (centred ? 0 : lines(groups * 16));
    bytes = values + w.inner * w.bits * kColumns / 8;
  }

  const uint8_t* block(int64_t i) const { return (const uint8_t*)w.weight + i * bytes; }
  int64_t blocks() const { return (w.columns + kColumns - 1) / kColumns; }
  int64_t parts() const { return w.inner / shared; }  // scales of a row of x
};

// Rows of x as bytes: x = values * scales, one scale for each `shared` places.
struct Quantized {
  int8_t* values;   // [rows][inner]
  float* scales;    // [rows][parts]
  int32_t* starts;  // [rows][parts]: minus the sum of the part's values times what was added to the weight's
};

}  // namespace strata
