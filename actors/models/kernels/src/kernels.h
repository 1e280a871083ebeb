// What the extension offers, in plain C++ types. All pointers are to memory that the caller keeps alive, all
// strides count elements, and nothing here checks its arguments: `operations.py` does.
#pragma once
#include <cstdint>

namespace strata {

enum Type : int64_t { kF32 = 0, kBf16 = 1 };

// One step's rows as `Batch` describes them, and how long the batch is.
struct Step {
  const int64_t* tokens;
  const int64_t* positions;
  const int64_t* slots;
  const int32_t* starts;
  const int32_t* contexts;
  const int32_t* tables;
  const int64_t* wanted;  // the rows whose logits are wanted
  int64_t rows, sequences, decodes, table_width, block_tokens, wanted_rows;
};

// One layer's attention; `head_dim` is even.
struct Attention {
  int64_t heads, kv_heads, head_dim;
  int64_t window;  // positions that a row sees, itself included; 0 for all
  float scale;
  float softcap;  // 0 for none
};

// One layer's keys and values: in the model's type where there are no scales (both null), else bytes, and a number is
// byte * scale. All lie in tiles of 16 slots as `attention.h` says; a block of the cache is a number of whole tiles.
struct Cache {
  void* keys;
  void* values;
  float* key_scales;
  float* value_scales;
};

// `q` and `out` point at row 0 of the step, [rows, heads, head_dim] with `q_stride` and `out_stride` between rows.
void attend(Type type, const Attention& shape, const Step& step, const void* q, int64_t q_stride, const Cache& cache,
            void* out, int64_t out_stride);

// A root-mean-square norm; `weight` is float, null for no norm at all.
struct Norm {
  const float* weight;
  float eps;
};

enum Activation : int64_t { kSilu = 0, kGeluTanh = 1 };

// In the model's type where `bits` is 0: row-major where `group` is 0 too, else in panels of `group` columns as
// `panels.h` says. Else packed as `quantized.h` says: 8 or 4 bits, a scale for each `group` of the `inner` places of a
// row, and whether there are zeros. `exact`: a row of y is the same to the last bit whatever rows are beside it; if not,
// many rows may be computed in a way that is faster for them.
struct Weights {
  const void* weight;
  const float* bias;  // may be null
  int64_t columns, inner, bits, group, zeros, exact;
};

// y[rows, columns] = x[rows, inner] w[columns, inner]^T + bias for a float weight in panels; bf16 needs `inner` even.
// `bias` is float or null. `out` is the type of y: that of x, or float. `next`, unless null, is the weight that is read
// after this one: its first bytes are fetched while the last of this one are used.
void linear(Type type, Type out, const void* x, const Weights& w, const float* bias, void* y, int64_t rows,
            int64_t x_stride, int64_t y_stride, const Weights* next);
// Whether `gated_linear` takes it: gates and ups fill whole panels each, and the rows more than one tile.
bool joins_gate(const Weights& w, int64_t rows);
// y [rows, columns / 2] = activation(gates) * ups, of which `linear` would make `columns` side by side; to the same bits.
void gated_linear(Type type, Activation activation, const void* x, const Weights& w, const float* bias, void* y,
                  int64_t rows, int64_t x_stride, int64_t y_stride, const Weights* next);
// Turns a row-major float weight into panels where it lies, or back.
void pack_panels(Type type, const Weights& w);
void unpack_panels(Type type, const Weights& w);

// y = x w^T + bias for a weight of 8 or 4 bits; x becomes bytes on the way. `next`, unless null, is the weight that is
// read after this one: its first bytes are fetched while the last of this one are used.
void quantized_linear(Type type, Type out, const void* x, const Weights& w, const float* bias, void* y, int64_t rows,
                      int64_t x_stride, int64_t y_stride, const Weights* next);

struct Layer {
  Norm input_norm, query_norm, key_norm, attention_out_norm, mlp_norm, mlp_out_norm;
  Weights qkv, output, gate_up, down;
  Cache cache;
  const float* inverse;  // rope's inverse frequencies [head_dim / 2]
  float rope_factor;
  Attention attention;
};

// What a decoder is besides its layers. All of a rank's heads; `hidden` is whole on every rank.
struct Model {
  Type type;
  Activation activation;
  int64_t hidden, layer_count;
  const Layer* layers;
  Norm norm;
  Weights embedding;  // rows [vocab_start, vocab_start + vocab_rows) of the vocabulary
  float embedding_scale;
  int64_t vocab_start, vocab_rows;
  Weights head;
};

// The ranks of one machine. `memory` is zeroed at first, of `collective_bytes`, and mapped by all of them; `count` is
// this rank's own and begins at 0. `patience`: nanoseconds that a wait spins before it sleeps.
struct Collective {
  int64_t rank, size;
  void* memory;
  int64_t patience;
  uint32_t count;
};

int64_t collective_bytes(int64_t ranks);
// x becomes the sum over all ranks.
void all_reduce(Collective& c, Type type, void* x, int64_t count);
// whole [rows, size * width]: every rank's piece [rows, width] side by side.
void all_gather(Collective& c, const float* piece, float* whole, int64_t rows, int64_t width);
// Rank 0 alone gets the whole: its `logits` are [rows, size * width] with its own columns in them; of all others they are
// their piece [rows, width].
void gather(Collective& c, float* logits, int64_t rows, int64_t width);
// Where a rank may write its next part itself, null if it is too long; then `sum_buffers` in place of `all_reduce`.
void* collective_buffer(const Collective& c, int64_t bytes);
void sum_buffers(Collective& c, Type type, void* out, int64_t count);

// The pieces of a step between two sums over ranks. `residual`, `in` and `out` are [rows, hidden]; `in` is the summed
// output of the piece before (unread by the first), `out` this rank's share of this piece's; they may be one.
// Biases of row-parallel layers are added with the sum, by the next piece.
void embed(const Model& model, const Step& step, void* residual);
void attention_piece(const Model& model, const Step& step, int64_t layer, void* residual, const void* in, void* out);
void mlp_piece(const Model& model, const Step& step, int64_t layer, void* residual, const void* in, void* out);
// Of the wanted rows only: logits [wanted_rows, head.columns], float, `stride` of them from row to row.
void logits_piece(const Model& model, const Step& step, void* residual, const void* x, float* logits, int64_t stride);
// y [rows, columns / 2] = activation(gates) * ups of any weight whose upper rows are gates, with its bias.
void gated_product(Type type, Activation activation, const Weights& w, const void* x, void* y, int64_t rows,
                   const Weights* next);
// All of the above for a world of one.
void forward(const Model& model, const Step& step, void* residual, void* x, float* logits);
// And for the ranks of one machine; `logits` as for `gather`.
void forward_together(const Model& model, const Step& step, Collective& c, void* residual, void* x, float* logits);

// Row by row: out = norm(x), both [rows, width] with the given strides.
void rms_norm(Type type, const Norm& norm, const void* x, int64_t x_stride, void* out, int64_t out_stride, int64_t rows,
              int64_t width);
// residual += out_norm(x + bias); out = norm(residual). x may be null (nothing is added), out may be x.
void join(Type type, const float* bias, const Norm& out_norm, const Norm& norm, const void* x, void* residual,
          void* out, int64_t rows, int64_t width);
// out [rows, width] = activation(gate) * up of both [rows, 2 * width].
void gate(Type type, Activation activation, const void* both, void* out, int64_t rows, int64_t width);
// Cosine and sine [rows, half] of the step's positions.
void angles(const Step& step, const float* inverse, float factor, int64_t half, float* cosine, float* sine);
// Norms and turns queries and keys of merged rows [rows, heads + 2 kv_heads, head_dim] in place; writes keys and values
// to the cache.
void place(Type type, const Layer& layer, const Step& step, void* merged, const float* cosine, const float* sine);

// How one row of logits wants its token. `fits`: bits of the tokens that may be taken, null for all of them.
struct Wish {
  const uint32_t* fits;
  double uniform;  // in [0, 1): where in the distribution the token lies; below 0: the likeliest
  double top_p, min_p;
  int64_t top_k, row;  // 0 or at least the vocabulary: no such filter
  float temperature;
};

// A token for each of `count` wishes about rows that lie `stride` apart; -1 where no number is allowed.
void choose(const float* logits, int64_t stride, int64_t vocab, const Wish* wishes, int64_t count, int64_t* tokens);

// Of each of `count` rows the largest logit, the sum of e^(logit - largest), and the places of the `most` largest, the
// largest first and equal ones in order; -1 where there are fewer.
void weigh_rows(const float* logits, int64_t stride, int64_t vocab, const int64_t* rows, int64_t count, int64_t most,
                float* tops, double* sums, int64_t* places);

}  // namespace strata
