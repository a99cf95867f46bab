// What the translation units of libautodeco share and nobody else sees.
//
// Owns the layout of the heads in memory and of one row of work. Knows neither ggml nor
// llama, so that the maths can be tested alone.

#ifndef AUTODECO_IMPL_H
#define AUTODECO_IMPL_H

#include "autodeco.h"
#include "autodeco-kernels.h"

#include <float.h>
#include <math.h>

#define AUTODECO_TEMP_EPS 1e-8f // added to T in the features' softmax and to q in the entropy
#define AUTODECO_MIN_TEMP 1e-5f // T* below this is argmax
#define AUTODECO_MAX_TEMP 1e30f // T* is held below: the cut's lowest logit must stay above -INFINITY
#define AUTODECO_N_TOP    5
#define AUTODECO_N_ROWS   16 // rows whose first layer is computed together

// The wide weights of a head in the type of the file, rows padded with zeros to whole vectors.
struct autodeco_matrix {
    enum autodeco_type type;
    size_t             stride; // bytes a row
    size_t             size;   // bytes allocated
    void *             data;   // 64-byte aligned
    void *             block;  // what free() takes
};

struct autodeco_head {
    bool    present;
    struct autodeco_matrix fc1; // [n_hidden][n_embd]
    float * fc1_bias;           // [n_hidden]
    float * fc1_extra;          // [n_hidden][n_extra], NULL for temperature
    float * fc2_weight;         // [n_hidden]
    float   fc2_bias;
};

struct autodeco_heads {
    int32_t n_embd;
    int32_t n_hidden;
    int32_t n_vocab; // 0 = unknown
    int32_t n_extra; // 0, 1 or 5
    float   temp_scale;
    float   mean_temp;
    float   mean_top_p;
    char    arch[64];
    char    type[16]; // storage type of the wide weights, for people
    struct autodeco_head temp;
    struct autodeco_head top_p;
};

// The cut: keep l > logit, and l == logit up to this id.
struct autodeco_nucleus {
    float   logit;
    int32_t id;
    int32_t n_kept;
};

// One output row at work. The stages run in order; within a stage, slices run in parallel. What grows
// with the vocabulary is `ids`, 4 bytes an entry.
struct autodeco_row {
    const struct autodeco_heads *   heads; // may be NULL
    const struct autodeco_kernels * kernels;
    struct autodeco_sampler_params  params;
    int32_t                n_vocab;
    int32_t                n_tiles;
    float *                act;     // [2 * n_hidden] first-layer sums before ReLU: temperature, top-p
    double *               huge;    // [2 * n_hidden] the same, where a float overflows: read only where `act` is not finite
    struct autodeco_tile * tiles;   // [n_tiles]
    float *                maxima;  // [n_tiles, to whole vectors] of the tiles, -INFINITY behind
    double *               guards;  // [n_tiles]
    double *               kept;    // [n_tiles] mass inside the nucleus
    int32_t *              ids;     // [n_vocab + 16] candidates of the cut
    float *                raw;     // [n_vocab] logits before the CPU samplers; NULL until a log-probability needs them
    size_t                 size;    // bytes of all these
    float                  max;     // of the logits that are drawn from
    float                  max_one; // of the raw ones
    float                  temp;    // feature temperature: T, or 1 without a temperature head
    double                 sum;     // Z: of w, relative to `max`
    double                 sum_one; // at temperature 1, relative to `max_one`
    int64_t                n_fallbacks;
    enum autodeco_status   status;
    struct autodeco_step   step;
};

// autodeco-math.c
float autodeco_sigmoid(float z);
double autodeco_head_unit(const struct autodeco_head * head, int32_t n_embd, int32_t i, const float * hidden); // W0 . h + b0 of hidden unit i
float autodeco_head_logit(const struct autodeco_head * head, int32_t n_embd, int32_t n_hidden, int32_t n_extra, const float * hidden, const float * extra);
void  autodeco_combine_params(const struct autodeco_sampler_params * params, struct autodeco_step * step);

// autodeco-row.c
bool autodeco_row_init(struct autodeco_row * row, const struct autodeco_heads * heads, int32_t n_vocab);
void autodeco_row_free(struct autodeco_row * row);
void autodeco_rows_first_layer(struct autodeco_row * const * rows, const float * const * hidden, int32_t n_rows, int32_t ith, int32_t nth); // of the same heads
void autodeco_row_scale      (struct autodeco_row * row, const float * logits, int32_t ith, int32_t nth);
void autodeco_row_guard      (struct autodeco_row * row, const float * logits, int32_t ith, int32_t nth);
void autodeco_row_finish     (struct autodeco_row * row, const float * logits);
bool autodeco_row_keep_raw   (struct autodeco_row * row, const float * logits); // for autodeco_row_logprob after a CPU draw; false without memory
void autodeco_row_draw       (struct autodeco_row * row, const float * logits, bool same_logits, double u);
void autodeco_row_logprob    (struct autodeco_row * row, float logit);

// Lowest id of the largest logit, row->max.
int32_t autodeco_row_argmax(const struct autodeco_row * row, const float * logits);

// A tile as the kernels want it: in place, or a copy in buf[AUTODECO_N_TILE] where it is the last one,
// cut short, or holds +inf (then everything else in the row counts for nothing).
const float * autodeco_row_tile(const struct autodeco_row * row, const float * logits, int32_t t, float * buf);

// autodeco-nucleus.c; c = log2(e) / T*, row->max and the row's tiles as they stand for these logits
void    autodeco_nucleus_find(struct autodeco_row * row, const float * logits, float c, struct autodeco_nucleus * out);
int32_t autodeco_nucleus_draw(const struct autodeco_row * row, const float * logits, float c, const struct autodeco_nucleus * nucleus, double u);

// autodeco-heads.c; the bytes of a file, for tests and the fuzzer
enum autodeco_status autodeco_heads_load_from_memory(const void * data, size_t n, struct autodeco_heads ** out, char * err, size_t n_err);

// Error text: printf into err, returns status.
enum autodeco_status autodeco_fail(enum autodeco_status status, char * err, size_t n_err, const char * fmt, ...);

#endif // AUTODECO_IMPL_H
