// Attention by tiles of the processor, for few rows and for many: of bf16 over bf16, heads of whole steps of 32
// dimensions, at most 16 of them on a key head.
//
// Another order than attention.h's within a pass: a score is a chain over steps of 32 dimensions, a sum of values one
// over tiles of 16 positions, as the processor adds them. Passes, segments and the softmax are the same.
#pragma once
#include "amx.h"
#include "decode_pass.h"

namespace strata {

template <class T, class C>
inline bool tiled(const Pages<T, C>& pages) {
  constexpr bool both = std::is_same_v<T, Bf16> && std::is_same_v<C, Bf16>;
  return both && amx() && pages.shape.head_dim % 32 == 0 && pages.group() <= kTileRows;
}

// A thread's registers, shaped for `rows` query rows; 0: left alone.
class HeadTiles {
 public:
  explicit HeadTiles(int64_t rows);
  ~HeadTiles();
  HeadTiles(const HeadTiles&) = delete;

 private:
  bool shaped_;
};

// A pass of one row's heads that share a key head: `attend_span` by tiles.
template <class T, class C>
void amx_heads(const Pages<T, C>& pages, const Queries& queries, const Span& span, const Places& now,
               const Places& ahead, Running* r);
template <class T, class C>
void amx_chunks(const Pages<T, C>& pages);

}  // namespace strata
