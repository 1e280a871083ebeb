// The pieces of a decoder's step, each one call from Python: what lies between two sums over ranks.
#include <algorithm>

#include "kernels.h"
#include "vectors.h"

namespace strata {
namespace {

int64_t bytes(Type type) { return type == kBf16 ? 2 : 4; }

void product(Type type, Type out, const Weights& w, const void* x, int64_t inner, void* y, int64_t y_stride,
             int64_t rows, bool biased, const Weights* next) {
  const float* bias = biased ? w.bias : nullptr;
  if (w.bits)
    quantized_linear(type, out, x, w, bias, y, rows, inner, y_stride, next);
  else
    linear(type, out, x, w, bias, y, rows, inner, y_stride, next);
}

void apply(const Model& model, const Weights& w, const void* x, int64_t inner, void* y, int64_t rows, bool biased,
           const Weights& next) {
  product(model.type, model.type, w, x, inner, y, w.columns, rows, biased, &next);
}

// Angles are the same for all layers of one kind of rope, and the pieces of a step come in order.
struct Angles {
  const float *cosine, *sine;
};

Angles angles_of(const Layer& layer, const Step& step, bool again) {
  const int64_t half = layer.attention.head_dim / 2, size = step.rows * half;
  struct Kept {
    const float* inverse;
    int64_t at;
  };
  static thread_local Kept kept[4];
  static thread_local int count = 0;
  if (again) count = 0;
  float* all = (float*)scratch<kAngles>(4 * 2 * size * sizeof(float));
  for (int i = 0; i < count; i++)
    if (kept[i].inverse == layer.inverse) return {all + 2 * i * size, all + (2 * i + 1) * size};
  const int i = count < 4 ? count++ : 3;
  kept[i] = {layer.inverse, i};
  angles(step, layer.inverse, layer.rope_factor, half, all + 2 * i * size, all + (2 * i + 1) * size);
  return {all + 2 * i * size, all + (2 * i + 1) * size};
}

}  // namespace

void attention_piece(const Model& model, const Step& step, int64_t index, void* residual, const void* in, void* out) {
  const Layer& layer = model.layers[index];
  const Attention& shape = layer.attention;
  const int64_t size = bytes(model.type), width = shape.heads * shape.head_dim, merged_width = layer.qkv.columns;
  void* hidden = scratch<kHidden>(step.rows * model.hidden * size);
  char* merged = (char*)scratch<kMerged>(step.rows * merged_width * size);
  void* seen = scratch<kSeen>(step.rows * std::max(width, layer.gate_up.columns / 2) * size);
  static const Norm none{nullptr, 0};
  const Layer* before = index ? &model.layers[index - 1] : nullptr;
  join(model.type, before ? before->down.bias : nullptr, before ? before->mlp_out_norm : none, layer.input_norm,
       before ? in : nullptr, residual, hidden, step.rows, model.hidden);
  apply(model, layer.qkv, hidden, model.hidden, merged, step.rows, true, layer.output);
  const Angles turned = angles_of(layer, step, index == 0);
  place(model.type, layer, step, merged, turned.cosine, turned.sine);
  attend(model.type, shape, step, merged, merged_width, layer.cache, seen, width);
  apply(model, layer.output, seen, width, out, step.rows, false, layer.gate_up);
}

void gated_product(Type type, Activation activation, const Weights& w, const void* x, void* y, int64_t rows,
                   const Weights* next) {
  const int64_t width = w.columns / 2;
  if (joins_gate(w, rows)) return gated_linear(type, activation, x, w, w.bias, y, rows, w.inner, width, next);
  void* both = scratch<kMerged>(rows * w.columns * bytes(type));
  product(type, type, w, x, w.inner, both, w.columns, rows, true, next);
  gate(type, activation, both, y, rows, width);
}

void mlp_piece(const Model& model, const Step& step, int64_t index, void* residual, const void* in, void* out) {
  const Layer& layer = model.layers[index];
  const int64_t size = bytes(model.type), width = layer.gate_up.columns / 2;
  void* hidden = scratch<kHidden>(step.rows * model.hidden * size);
  void* gated = scratch<kSeen>(step.rows * std::max(width, layer.attention.heads * layer.attention.head_dim) * size);
  join(model.type, layer.output.bias, layer.attention_out_norm, layer.mlp_norm, in, residual, hidden, step.rows,
       model.hidden);
  gated_product(model.type, model.activation, layer.gate_up, hidden, gated, step.rows, &layer.down);
  const Weights& next = index + 1 < model.layer_count ? model.layers[index + 1].qkv : model.head;
  apply(model, layer.down, gated, width, out, step.rows, false, next);
}

void logits_piece(const Model& model, const Step& step, void* residual, const void* x, float* logits, int64_t stride) {
  const int64_t size = bytes(model.type), row_bytes = model.hidden * size;
  const Layer& last = model.layers[model.layer_count - 1];
  char* rows = (char*)scratch<kHidden>(3 * step.wanted_rows * row_bytes);
  char* added = rows + step.wanted_rows * row_bytes;
  char* normed = added + step.wanted_rows * row_bytes;
  for (int64_t i = 0; i < step.wanted_rows; i++) {
    memcpy(rows + i * row_bytes, (const char*)residual + step.wanted[i] * row_bytes, row_bytes);
    memcpy(added + i * row_bytes, (const char*)x + step.wanted[i] * row_bytes, row_bytes);
  }
  join(model.type, last.down.bias, last.mlp_out_norm, model.norm, added, rows, normed, step.wanted_rows, model.hidden);
  product(model.type, kF32, model.head, normed, model.hidden, logits, stride, step.wanted_rows, true,
          &model.layers[0].qkv);
}

void forward(const Model& model, const Step& step, void* residual, void* x, float* logits) {
  embed(model, step, residual);
  for (int64_t i = 0; i < model.layer_count; i++) {
    attention_piece(model, step, i, residual, x, x);
    mlp_piece(model, step, i, residual, x, x);
  }
  logits_piece(model, step, residual, x, logits, model.head.columns);
}

void forward_together(const Model& model, const Step& step, Collective& c, void* residual, void* x, float* logits) {
  const int64_t count = step.rows * model.hidden;
  // `piece` writes its share straight into the shared buffer where that is large enough
  const auto summed = [&](auto piece) {
    void* shared = collective_buffer(c, count * bytes(model.type));
    piece(shared ? shared : x);
    shared ? sum_buffers(c, model.type, x, count) : all_reduce(c, model.type, x, count);
  };
  embed(model, step, residual);
  all_reduce(c, model.type, residual, count);
  for (int64_t i = 0; i < model.layer_count; i++) {
    summed([&](void* out) { attention_piece(model, step, i, residual, x, out); });
    summed([&](void* out) { mlp_piece(model, step, i, residual, x, out); });
  }
  const int64_t width = model.head.columns;
  logits_piece(model, step, residual, x, logits, c.rank ? width : width * c.size);
  gather(c, logits, step.wanted_rows, width);
}

}  // namespace strata
