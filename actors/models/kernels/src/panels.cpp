// Turning float weights into panels and back, where they lie.
#include "panels.h"

#include <omp.h>

namespace strata {
namespace {

// `rows` rows of `columns` units become `columns` rows of `rows` units; at most 16 of one of them.
void turn(const Unit* from, Unit* to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const Picked high = first(rows - i), wide = first(columns - j);
      Ints r[kLanes];
      for (int k = 0; k < kLanes; k++)
        r[k] = load_ints(high >> k & 1 ? wide : 0, from + (i + k) * columns + j);
      transpose(r);
      for (int k = 0; k < kLanes; k++)
        if (wide >> k & 1) store(to + (j + k) * rows + i, high, r[k]);
    }
}

template <class F>
void each_panel(const Panels& p, F&& f) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < p.count(); i++) {
    const int64_t width = p.width(i), bytes = width * p.units * sizeof(Unit);
    Unit* held = (Unit*)scratch<kPacked>(bytes);
    memcpy(held, p.panel(i), bytes);
    f(held, (Unit*)p.panel(i), width);
  }
}

}  // namespace

void pack_panels(Type type, const Weights& w) {
  const Panels p(type, w);
  each_panel(p, [&](const Unit* from, Unit* to, int64_t width) { turn(from, to, width, p.units); });
}

void unpack_panels(Type type, const Weights& w) {
  const Panels p(type, w);
  each_panel(p, [&](const Unit* from, Unit* to, int64_t width) { turn(from, to, p.units, width); });
}

}  // namespace strata
