// What the translation units of libautodeco share and nobody else sees.
//
// Owns the layout of the heads in memory and of one row of work. Knows neither ggml nor
// llama, so that the maths can be tested alone.

#ifndef AUTODECO_IMPL_H
#define AUTODECO_IMPL_H

#include "autodeco.h"

#include <math.h>

#define AUTODECO_TEMP_EPS 1e-8f // added to T in the features' softmax and to q in the entropy
#define AUTODECO_MIN_TEMP 1e-5f // T* below this is argmax
#define AUTODECO_N_TOP    5
#define AUTODECO_N_BLOCK  4096  // vocabulary entries per partial sum: results do not depend on the thread count

struct autodeco_head {
    bool    present;
    float * fc1_weight; // [n_hidden][n_embd]
    float * fc1_bias;   // [n_hidden]
    float * fc1_extra;  // [n_hidden][n_extra], NULL for temperature
    float * fc2_weight; // [n_hidden]
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

// Partial results of one block of the vocabulary.
struct autodeco_block {
    float  max;                // -INFINITY where no logit counts
    double sum;                // sum of w = exp((l - m) / (T + eps))
    double sum_sq;             // sum of w^2
    double sum_one;            // sum of exp(l - m), for the log-probability at temperature 1
    double entropy;            // sum of -q ln(q + 1e-8)
    float  top[AUTODECO_N_TOP]; // largest w, descending
};

// One output row at work. The stages run in order; within a stage, slices run in parallel.
struct autodeco_row {
    const struct autodeco_heads *  heads; // may be NULL
    struct autodeco_sampler_params params;
    int32_t                 n_vocab;
    int32_t                 n_blocks;
    float *                 act;     // [2 * n_hidden] first-layer sums before ReLU: temperature, top-p
    struct autodeco_block * blocks;  // [n_blocks]
    float *                 weights; // [n_vocab] w, reused as scratch by the draw
    float                   max;     // m
    float                   temp;    // feature temperature: T, or 1 without a temperature head
    double                  sum;     // Z of w
    double                  sum_one;
    int64_t                 n_fallbacks;
    enum autodeco_status    status;
    struct autodeco_step    step;
};

// autodeco-math.c
float autodeco_sigmoid(float z);
float autodeco_head_logit(const struct autodeco_head * head, int32_t n_embd, int32_t n_hidden, int32_t n_extra, const float * hidden, const float * extra);
void  autodeco_combine_params(const struct autodeco_sampler_params * params, struct autodeco_step * step);

// autodeco-row.c
bool autodeco_row_init(struct autodeco_row * row, const struct autodeco_heads * heads, int32_t n_vocab);
void autodeco_row_free(struct autodeco_row * row);
void autodeco_row_first_layer(struct autodeco_row * row, const float * hidden, const float * logits, int32_t ith, int32_t nth);
void autodeco_row_scale      (struct autodeco_row * row, const float * logits, int32_t ith, int32_t nth);
void autodeco_row_entropy    (struct autodeco_row * row, int32_t ith, int32_t nth);
void autodeco_row_finish     (struct autodeco_row * row);
void autodeco_row_draw       (struct autodeco_row * row, const float * logits, bool weights_ready, double u);
void autodeco_row_logprob    (struct autodeco_row * row, float logit);

// autodeco-nucleus.c
struct autodeco_nucleus {
    float   weight; // keep w > weight, and w == weight up to this id
    int32_t id;
    int32_t n_kept;
    double  mass;
};
void    autodeco_nucleus_find(const float * weights, int32_t n, float top_p, struct autodeco_nucleus * out);
int32_t autodeco_nucleus_draw(const float * weights, int32_t n, const struct autodeco_nucleus * nucleus, double u);

// Error text: printf into err, returns status.
enum autodeco_status autodeco_fail(enum autodeco_status status, char * err, size_t n_err, const char * fmt, ...);

#endif // AUTODECO_IMPL_H
