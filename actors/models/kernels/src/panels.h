// A float weight [columns, inner] in panels: 16 columns of y side by side, unit after unit.
//
// Panel i holds rows 16 i .. 16 i + 15 of the row-major weight as [unit][16 columns], so that both forms of it fill the
// same bytes: packing turns every panel where it lies. The last panel has as many columns as are left.
#pragma once
#include <algorithm>

#include "kernels.h"
#include "vectors.h"

namespace strata {

struct Panels {
  const Unit* at;
  int64_t columns, units;

  Panels(Type type, const Weights& w)
      : at((const Unit*)w.weight), columns(w.columns), units(type == kBf16 ? w.inner / 2 : w.inner) {}

  int64_t count() const { return (columns + kLanes - 1) / kLanes; }
  int64_t size() const { return kLanes * units; }  // of a whole panel, in units
  const Unit* panel(int64_t i) const { return at + i * size(); }
  int64_t width(int64_t i) const { return std::min<int64_t>(kLanes, columns - i * kLanes); }
};

// Row `column` of the row-major weight.
inline void read_row(const Panels& p, int64_t column, Unit* to) {
  const int64_t panel = column / kLanes, width = p.width(panel);
  const Unit* from = p.panel(panel) + column % kLanes;
  for (int64_t k = 0; k < p.units; k++) to[k] = from[k * width];
}

}  // namespace strata
