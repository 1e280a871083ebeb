// The C names that `interface.py` calls. `strata_sizes` lets it check that both sides see the same structures.
#include "amx.h"
#include "kernels.h"

using namespace strata;

extern "C" {

void strata_sizes(int64_t* sizes) {
  const int64_t all[] = {sizeof(Step),  sizeof(Attention), sizeof(Norm),  sizeof(Weights),
                         sizeof(Cache), sizeof(Layer),     sizeof(Model), sizeof(Collective), sizeof(Wish)};
  for (int i = 0; i < 9; i++) sizes[i] = all[i];
}

void strata_use_amx(int64_t wanted) { use_amx(wanted); }

void strata_linear(int64_t type, int64_t out, const void* x, const Weights* w, void* y, int64_t rows, int64_t x_stride,
                   int64_t y_stride) {
  linear((Type)type, (Type)out, x, *w, w->bias, y, rows, x_stride, y_stride, nullptr);
}

void strata_pack_panels(int64_t type, const Weights* w) { pack_panels((Type)type, *w); }

void strata_unpack_panels(int64_t type, const Weights* w) { unpack_panels((Type)type, *w); }

void strata_quantized_linear(int64_t type, int64_t out, const void* x, const Weights* w, void* y, int64_t rows,
                             int64_t x_stride, int64_t y_stride) {
  quantized_linear((Type)type, (Type)out, x, *w, w->bias, y, rows, x_stride, y_stride, nullptr);
}

void strata_attend(int64_t type, const Attention* shape, const Step* step, const void* q, int64_t q_stride,
                   const Cache* cache, void* out, int64_t out_stride) {
  attend((Type)type, *shape, *step, q, q_stride, *cache, out, out_stride);
}

void strata_join(int64_t type, const float* bias, const Norm* out_norm, const Norm* norm, const void* x, void* residual,
                 void* out, int64_t rows, int64_t width) {
  join((Type)type, bias, *out_norm, *norm, x, residual, out, rows, width);
}

void strata_rms_norm(int64_t type, const Norm* norm, const void* x, int64_t x_stride, void* out, int64_t out_stride,
                     int64_t rows, int64_t width) {
  rms_norm((Type)type, *norm, x, x_stride, out, out_stride, rows, width);
}

void strata_gate(int64_t type, int64_t activation, const void* both, void* out, int64_t rows, int64_t width) {
  gate((Type)type, (Activation)activation, both, out, rows, width);
}

void strata_gated_product(int64_t type, int64_t activation, const void* x, const Weights* w, void* y, int64_t rows) {
  gated_product((Type)type, (Activation)activation, *w, x, y, rows, nullptr);
}

void strata_angles(const Step* step, const float* inverse, float factor, int64_t half, float* cosine, float* sine) {
  angles(*step, inverse, factor, half, cosine, sine);
}

void strata_place(int64_t type, const Layer* layer, const Step* step, void* merged, const float* cosine,
                  const float* sine) {
  place((Type)type, *layer, *step, merged, cosine, sine);
}

void strata_embed(const Model* model, const Step* step, void* residual) { embed(*model, *step, residual); }

void strata_attention_piece(const Model* model, const Step* step, int64_t layer, void* residual, void* x) {
  attention_piece(*model, *step, layer, residual, x, x);
}

void strata_mlp_piece(const Model* model, const Step* step, int64_t layer, void* residual, void* x) {
  mlp_piece(*model, *step, layer, residual, x, x);
}

void strata_logits_piece(const Model* model, const Step* step, void* residual, const void* x, float* logits) {
  logits_piece(*model, *step, residual, x, logits, model->head.columns);
}

void strata_forward(const Model* model, const Step* step, void* residual, void* x, float* logits) {
  forward(*model, *step, residual, x, logits);
}

void strata_choose(const float* logits, int64_t stride, int64_t vocab, const Wish* wishes, int64_t count,
                   int64_t* tokens) {
  choose(logits, stride, vocab, wishes, count, tokens);
}

void strata_weigh_rows(const float* logits, int64_t stride, int64_t vocab, const int64_t* rows, int64_t count,
                       int64_t most, float* tops, double* sums, int64_t* places) {
  weigh_rows(logits, stride, vocab, rows, count, most, tops, sums, places);
}

void strata_collective_bytes(int64_t ranks, int64_t* bytes) { *bytes = collective_bytes(ranks); }

void strata_all_reduce(Collective* c, int64_t type, void* x, int64_t count) { all_reduce(*c, (Type)type, x, count); }

void strata_all_gather(Collective* c, const float* piece, float* whole, int64_t rows, int64_t width) {
  all_gather(*c, piece, whole, rows, width);
}

void strata_forward_together(const Model* model, const Step* step, Collective* c, void* residual, void* x,
                             float* logits) {
  forward_together(*model, *step, *c, residual, x, logits);
}

}  // extern "C"
