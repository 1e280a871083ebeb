// The processor's tiles (AMX): products of 16 rows of x with 16 columns of a weight, 64 bytes of each at a time.
//
// A panel (panels.h) and a block of bytes (quantized.h) hold 16 columns exactly as such a product reads them, so that
// weights lie the same with tiles and without. A product of bf16 adds 16 units to each sum, even and odd halves apart,
// which is another order than AVX-512's: where there are tiles, all numbers of rows go through them.
#pragma once
#include <algorithm>

#include "kernels.h"
#include "vectors.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define STRATA_AMX
#endif

namespace strata {

constexpr int64_t kTileRows = 16, kTileBytes = 64;  // of one tile; it holds 1 KB

// Whether tiles are used: the processor has them, the kernel lets this process, and no test has said otherwise.
bool amx();
void use_amx(bool wanted);

// `linear` and `gated_linear` of kernels.h for x and a weight in bf16.
void amx_linear(Type out, const void* x, const Weights& w, const float* bias, void* y, int64_t rows, int64_t x_stride,
                int64_t y_stride, const Weights& next);
void amx_gated(Activation activation, const void* x, const Weights& w, const float* bias, void* y, int64_t rows,
               int64_t x_stride, int64_t y_stride, const Weights& next);

#ifdef STRATA_AMX

// The registers of a thread, shaped: sums 0 to 3, rows 4 and 5, columns 6 and 7. Sums 0 and 1 are those of rows 4; 2 and
// 3 are those of rows 5, or where there are `four` panels of rows 4 too. A step takes `bytes` of each row.
class Shaped {
 public:
  Shaped(int64_t first, int64_t second, bool four = false, int64_t bytes = kTileBytes) {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    const int64_t rows[] = {first, first, four ? first : second, four ? first : second, first, second, bytes / 4, bytes / 4};
    for (int i = 0; i < 8; i++) {
      shape.rows[i] = rows[i];
      shape.bytes[i] = !rows[i] ? 0 : i == 4 || i == 5 ? bytes : kTileBytes;
    }
    asm volatile("" : : "r"(&shape) : "memory");  // GCC 12 drops stores that only the next instruction reads
    _tile_loadconfig(&shape);
  }
  ~Shaped() { _tile_release(); }
  Shaped(const Shaped&) = delete;
};

#endif

}  // namespace strata
