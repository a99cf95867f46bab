// Benchmarks of AutoDeco against stock llama.cpp: what has to be timed in C.
//
// Both files run every contender in one process, in turn, and hand back single durations in
// microseconds; medians and ratios are the caller's business. Nothing is printed, and nothing
// here is needed to use the sampler.
//
// Every function that takes `err` writes at most n_err bytes, zero-terminated; err may be NULL.

#ifndef AUTODECO_BENCH_H
#define AUTODECO_BENCH_H

#include "autodeco.h"

#ifdef _WIN32
#    ifdef AUTODECO_BENCH_BUILD
#        define AUTODECO_BENCH_API __declspec(dllexport)
#    else
#        define AUTODECO_BENCH_API __declspec(dllimport)
#    endif
#else
#    define AUTODECO_BENCH_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// What stock sampling is run as, and AutoDeco among them.
enum autodeco_bench_sampler {
    AUTODECO_BENCH_AUTODECO   = 0,
    AUTODECO_BENCH_GREEDY     = 1,
    AUTODECO_BENCH_DEFAULT    = 2, // top-k 40, top-p 0.95, min-p 0.05, temperature 0.8, dist
    AUTODECO_BENCH_TEMP_TOP_P = 3, // temperature and top-p of the caller, dist
    AUTODECO_BENCH_DIST       = 4,
    AUTODECO_BENCH_N_SAMPLERS = 5,
};

// ---- bench-step.c: one sampling step on given logits ------------------------------------

// The samplers above, then what they are measured by.
enum autodeco_bench_contender {
    AUTODECO_BENCH_GRAPH         = AUTODECO_BENCH_N_SAMPLERS, // a ggml graph of one empty custom node
    AUTODECO_BENCH_LOGITS_SWEEP  = 6, // one plain read of the logits
    AUTODECO_BENCH_WEIGHTS_SWEEP = 7, // one plain read of n_weight_bytes
    AUTODECO_BENCH_LOGITS_COPY   = 8, // llama.cpp's copy of the logits for stock samplers: one memcpy
    AUTODECO_BENCH_LOGITS_PAD    = 9, // its copy for samplers in the graph that read it: ggml_pad by one row
    AUTODECO_BENCH_N_CONTENDERS  = 10,
};

struct autodeco_bench_step_params {
    uint64_t seed;
    size_t   n_weight_bytes;
    int32_t  n_vocab;
    int32_t  n_rows;     // sequences in one graph; the stock side does its work once a row
    int32_t  n_rounds;   // each round runs every contender once
    int32_t  n_warmup;   // rounds before them, not recorded
    int32_t  n_threads;  // of the graphs; stock sampling has one
    float    temp;       // of TEMP_TOP_P
    float    top_p;
};

// hidden [n_rows, n_embd], logits [n_rows, n_vocab] -> us [n_rounds, N_CONTENDERS], tokens
// [n_rounds, N_SAMPLERS, n_rows], steps [n_rows] of the last round, bytes the samplers hold for all rows.
AUTODECO_BENCH_API enum autodeco_status autodeco_bench_step(
        const struct autodeco_heads * heads, struct autodeco_bench_step_params params, const float * hidden, const float * logits,
        double * us, int32_t * tokens, struct autodeco_step * steps, size_t * n_sampler_bytes, char * err, size_t n_err);

// ---- bench-decode.c: llama.cpp's own loop on a model ------------------------------------

struct autodeco_bench_decode;

struct autodeco_bench_decode_params {
    uint64_t seed;
    int32_t  n_ctx;
    int32_t  n_batch;
    int32_t  n_threads;
    float    temp;   // of TEMP_TOP_P
    float    top_p;
};

// One context a sampler, AUTODECO to TEMP_TOP_P. Borrows model and heads. *out is set on OK only.
AUTODECO_BENCH_API enum autodeco_status autodeco_bench_decode_init(
        struct llama_model * model, const struct autodeco_heads * heads, struct autodeco_bench_decode_params params,
        struct autodeco_bench_decode ** out, char * err, size_t n_err);

AUTODECO_BENCH_API void autodeco_bench_decode_free(struct autodeco_bench_decode * bench); // NULL is allowed

AUTODECO_BENCH_API int32_t autodeco_bench_decode_n_samplers(void);

// Forgets everything, decodes a prompt (*us: until the logits stand) and samples after it, untimed.
AUTODECO_BENCH_API enum autodeco_status autodeco_bench_decode_prompt(
        struct autodeco_bench_decode * bench, enum autodeco_bench_sampler sampler, const int32_t * prompt, int32_t n_prompt,
        double * us, int32_t * sampled, char * err, size_t n_err);

// Decodes one token behind what stands there and samples the next.
AUTODECO_BENCH_API enum autodeco_status autodeco_bench_decode_token(
        struct autodeco_bench_decode * bench, enum autodeco_bench_sampler sampler, int32_t token,
        double * us, int32_t * sampled, char * err, size_t n_err);

// The prompt and n_tokens tokens behind it, all samplers in turn, the first of a round another one
// each time. All are fed what greedy draws, so the model's work is the same.
// -> prompt_us [n_samplers], token_us [n_tokens, n_samplers], tokens [n_tokens, n_samplers].
AUTODECO_BENCH_API enum autodeco_status autodeco_bench_decode_round(
        struct autodeco_bench_decode * bench, const int32_t * prompt, int32_t n_prompt, int32_t n_tokens, int32_t first,
        double * prompt_us, double * token_us, int32_t * tokens, char * err, size_t n_err);

// Bytes the AutoDeco sampler holds for its row.
AUTODECO_BENCH_API size_t autodeco_bench_decode_n_sampler_bytes(const struct autodeco_bench_decode * bench);

#ifdef __cplusplus
}
#endif

#endif // AUTODECO_BENCH_H
