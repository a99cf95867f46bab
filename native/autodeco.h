// AutoDeco for llama.cpp: heads that set the temperature and the top-p of every token.
//
// The library evaluates two small MLPs on the last hidden state inside llama.cpp's own
// compute graph, divides the logits by the predicted temperature, keeps the predicted
// nucleus and draws. llama.cpp is not patched: everything goes through llama_sampler_i.
//
//     struct autodeco_heads * heads = NULL;
//     char err[256];
//     if (autodeco_heads_load_from_file("heads.gguf", &heads, err, sizeof err) != AUTODECO_STATUS_OK) { ... }
//     if (autodeco_heads_check_model(heads, model, err, sizeof err) != AUTODECO_STATUS_OK) { ... }
//
//     struct autodeco_sampler_params params = autodeco_sampler_default_params();
//     params.seed = 42;
//     struct llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
//     struct llama_sampler * smpl  = autodeco_sampler_init(heads, params);
//     llama_sampler_chain_add(chain, smpl);                     // the chain owns smpl; AutoDeco comes first
//
//     struct llama_sampler_seq_config seq = { 0, chain };
//     cparams.samplers = &seq; cparams.n_samplers = 1;          // the context borrows the chain
//     struct llama_context * ctx = llama_init_from_model(model, cparams);
//     if (autodeco_sampler_status(smpl, err, sizeof err) != AUTODECO_STATUS_OK) { ... }
//
//     llama_decode(ctx, batch);
//     if (autodeco_sampler_status(smpl, err, sizeof err) != AUTODECO_STATUS_OK) { ... }
//     llama_token id = llama_sampler_sample(chain, ctx, -1);
//     struct autodeco_step step;
//     autodeco_sampler_get_steps(smpl, &step, 1);               // step.temp, step.top_p, ...
//
// Ownership: heads are immutable and borrowed by every sampler made from them; free them
// after the last sampler and its clones. A context borrows its chains: free the context
// first, then the chains, then the heads. A chain can be attached to a context once.
//
// A NULL pointer, a sampler that is not of this library, or a number out of range is refused: with ARGUMENT, or
// where there is no status with 0, NAN, false or NULL. Samplers and heads must not have been freed.
//
// Every function that takes `err` writes at most n_err bytes, zero-terminated; err may be
// NULL. The library never exits, never prints (unless the log is verbose) and keeps no global state
// but the log's.

#ifndef AUTODECO_H
#define AUTODECO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#    ifdef AUTODECO_BUILD
#        define AUTODECO_API __declspec(dllexport)
#    else
#        define AUTODECO_API __declspec(dllimport)
#    endif
#else
#    define AUTODECO_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct llama_context;
struct llama_model;
struct llama_sampler;
struct autodeco_heads;

enum autodeco_status {
    AUTODECO_STATUS_OK           = 0,
    AUTODECO_STATUS_NOT_FOUND    = 1, // the file cannot be opened
    AUTODECO_STATUS_FORMAT       = 2, // the file is damaged or is not an AutoDeco file
    AUTODECO_STATUS_NO_HEADS     = 3, // a sound GGUF that holds no AutoDeco heads
    AUTODECO_STATUS_ARCH         = 4, // heads of another architecture
    AUTODECO_STATUS_N_EMBD       = 5, // heads of another hidden size
    AUTODECO_STATUS_N_VOCAB      = 6, // heads of another vocabulary size
    AUTODECO_STATUS_VERSION      = 7, // another llama.cpp than the one compiled against
    AUTODECO_STATUS_MEMORY       = 8,
    AUTODECO_STATUS_NO_NORM      = 9, // the model's graph has no usable "result_norm"
    AUTODECO_STATUS_NOT_ATTACHED = 10, // sampled without having run in a context's graph
    AUTODECO_STATUS_NO_LOGIT     = 11, // no finite logit: nothing can be drawn
    AUTODECO_STATUS_BYPASSED     = 12, // llama.cpp returned another token than was drawn
    AUTODECO_STATUS_ARGUMENT     = 13, // a pointer is NULL, a sampler is not of this library, a number is out of range
    AUTODECO_STATUS_IO           = 14, // the file could be opened but not read to its end
};

// Which heads are applied. A head that is off counts as 1; TOP_P still evaluates the
// temperature head, because its output is an input of the top-p head.
enum autodeco_heads_mode {
    AUTODECO_HEADS_BOTH  = 0,
    AUTODECO_HEADS_TEMP  = 1,
    AUTODECO_HEADS_TOP_P = 2,
    AUTODECO_HEADS_NONE  = 3,
};

struct autodeco_sampler_params {
    uint64_t                 seed;
    float                    temp;       // user's temperature, multiplies T; 0 = greedy
    float                    top_p;      // user's top-p, multiplies P
    float                    min_p;      // drop tokens below min_p x the largest, after T and before the cut; 0 = off
    enum autodeco_heads_mode heads_mode;
    bool                     cpu_draw;   // T and P in the graph, cut and draw in autodeco_sampler_init_draw
    bool                     logprob;    // report it: a second exponential for every logit
    float                    temp_min;   // limits of T*, after the user's factor; 0 = none. Greedy stays greedy.
    float                    temp_max;
    float                    top_p_min;  // limits of P*, likewise
    float                    top_p_max;
};

// One drawn token. temp and top_p are the heads' own values, NAN where not evaluated.
struct autodeco_step {
    int32_t token;     // -1 until drawn
    float   temp;      // T, (0, 2)
    float   top_p;     // P, (0, 1)
    float   temp_eff;  // T* = T x user's, within the user's limits
    float   top_p_eff; // P* = P x user's, likewise
    int32_t n_kept;    // size of the nucleus
    float   entropy;   // nats, of softmax(l / T), at least 0
    float   max_prob;  // of softmax(l / T)
    float   logprob;   // ln softmax(l)[token], temperature 1, before any cut; NAN unless asked for
};

// ---- library --------------------------------------------------------------------------

// The llama.cpp compiled against, and whether the one loaded now is the same.
AUTODECO_API const char *         autodeco_llama_version(void);
AUTODECO_API enum autodeco_status autodeco_check_llama(char * err, size_t n_err);

// Name of the i-th set of vector instructions that this CPU can run the step with, fastest first and
// "baseline" last; NULL past the end. The first is used, or the one that the environment variable
// AUTODECO_KERNELS names.
AUTODECO_API const char * autodeco_kernels_name(int32_t i);

// ---- llama.cpp's log ------------------------------------------------------------------

// Takes over llama.cpp's log for good. The last warnings and errors of each thread are kept; the rest is
// dropped, or with verbose printed to stderr as well. For programs that must not be called back.
AUTODECO_API void autodeco_log_capture(void);
AUTODECO_API void autodeco_log_set_verbose(bool verbose);

// The calling thread's lines since its last clear, oldest first, at most 12; NULL past the end. Valid until
// the thread's next call of llama.cpp.
AUTODECO_API const char * autodeco_log_line(int32_t i);
AUTODECO_API void         autodeco_log_clear(void);

// ---- heads ----------------------------------------------------------------------------

// Reads a heads file, or a single file with the heads in its metadata. *out is set on OK only.
AUTODECO_API enum autodeco_status autodeco_heads_load_from_file(
        const char * path, struct autodeco_heads ** out, char * err, size_t n_err);

AUTODECO_API void autodeco_heads_free(struct autodeco_heads * heads); // NULL is allowed

AUTODECO_API int32_t autodeco_heads_n_embd   (const struct autodeco_heads * heads);
AUTODECO_API int32_t autodeco_heads_n_hidden (const struct autodeco_heads * heads);
AUTODECO_API int32_t autodeco_heads_n_vocab  (const struct autodeco_heads * heads); // 0 = unknown
AUTODECO_API int32_t autodeco_heads_n_extra  (const struct autodeco_heads * heads); // 0, 1 or 5
AUTODECO_API bool    autodeco_heads_has_temp (const struct autodeco_heads * heads);
AUTODECO_API bool    autodeco_heads_has_top_p(const struct autodeco_heads * heads);
AUTODECO_API float   autodeco_heads_mean_temp (const struct autodeco_heads * heads); // NAN = unknown
AUTODECO_API float   autodeco_heads_mean_top_p(const struct autodeco_heads * heads); // NAN = unknown

// Bytes of weights in memory.
AUTODECO_API size_t autodeco_heads_memory(const struct autodeco_heads * heads);

// One line for people, like snprintf.
AUTODECO_API int autodeco_heads_desc(const struct autodeco_heads * heads, char * buf, size_t n_buf);

// ARCH, N_EMBD or N_VOCAB, each with its own message.
AUTODECO_API enum autodeco_status autodeco_heads_check_model(
        const struct autodeco_heads * heads, const struct llama_model * model, char * err, size_t n_err);

// ---- sampler --------------------------------------------------------------------------

AUTODECO_API struct autodeco_sampler_params autodeco_sampler_default_params(void);

// heads may be NULL: plain sampling with the user's temperature and top-p, same reports.
// NULL when the loaded llama.cpp is not the one compiled against or memory ran out.
AUTODECO_API struct llama_sampler * autodeco_sampler_init(
        const struct autodeco_heads * heads, struct autodeco_sampler_params params);

// The last sampler of a chain whose first one was made with cpu_draw: applies T and P to what
// the samplers between (grammar, penalties, bias, top-k) left over, and draws. It shares its
// state with smpl; a clone of the chain keeps the pair together.
AUTODECO_API struct llama_sampler * autodeco_sampler_init_draw(struct llama_sampler * smpl);

// The steps of the last decode, a row each, in output order. Returns how many there are.
AUTODECO_API int32_t autodeco_sampler_get_steps(
        const struct llama_sampler * smpl, struct autodeco_step * out, int32_t n_max);

// What went wrong since the last call of reset, if anything. Call it after making the
// context (NO_NORM) and after each decode, before llama_sampler_sample.
AUTODECO_API enum autodeco_status autodeco_sampler_status(const struct llama_sampler * smpl, char * err, size_t n_err);

// llama_sampler_sample on the chain that holds smpl, with the status before and after and the step: what a decode
// loop calls after llama_decode for each sequence with an output. i_batch: index of the output's token in the
// batch, -1 = the last output; it must belong to the sequence that the chain is attached to. Several outputs of one
// sequence (n_outputs_max_per_seq) are taken in their order, as far as they are wanted: what went wrong in
// a row behind them, of a draft that was rejected, is not reported.
AUTODECO_API enum autodeco_status autodeco_sampler_sample(
        const struct llama_sampler * smpl, struct llama_sampler * chain, struct llama_context * ctx, int32_t i_batch,
        struct autodeco_step * out, char * err, size_t n_err);

// Head outputs that were not finite and fell back to 1, since init.
AUTODECO_API int64_t autodeco_sampler_n_fallbacks(const struct llama_sampler * smpl);

// Bytes held for the rows sampled at once, heads not counted: about 4 per vocabulary entry and row, 4 more
// for the draw on the CPU and 4 more there for log-probabilities. 0 before the first decode.
AUTODECO_API size_t autodeco_sampler_memory(const struct llama_sampler * smpl);

// Take effect from the next decode on. cpu_draw cannot change.
AUTODECO_API void                           autodeco_sampler_set_params(struct llama_sampler * smpl, struct autodeco_sampler_params params);
AUTODECO_API struct autodeco_sampler_params autodeco_sampler_get_params(const struct llama_sampler * smpl);
AUTODECO_API void                           autodeco_sampler_set_seed  (struct llama_sampler * smpl, uint64_t seed);

// Tokens accepted so far: the index of the next random number. Set it to restore a session.
AUTODECO_API uint64_t autodeco_sampler_get_position(const struct llama_sampler * smpl);
AUTODECO_API void     autodeco_sampler_set_position(struct llama_sampler * smpl, uint64_t n_accepted);

// ---- mask -------------------------------------------------------------------------------

// A sampler between autodeco and autodeco-draw that takes every token away whose bit is 0 (token i: bit i % 32 of
// word i / 32) or that the words do not reach. The words are borrowed: write them before each draw, and keep them
// until the sampler is freed or given others. NULL, as after init, lets everything through. NULL from init: as above.
AUTODECO_API struct llama_sampler * autodeco_mask_init(void);
AUTODECO_API void                   autodeco_mask_set(struct llama_sampler * smpl, const uint32_t * words, int32_t n_words);

// ---- filters ----------------------------------------------------------------------------

// A sampler between autodeco and autodeco-draw that passes everything on to another one, a chain of filters say, which can be
// replaced while the chain is attached: no new graph. It owns what it is given; NULL, as after init, is none. Between two
// tokens only. ARGUMENT where smpl is not of autodeco_filters_init, or is `inner`, which is then still the caller's.
AUTODECO_API struct llama_sampler * autodeco_filters_init(void);
AUTODECO_API enum autodeco_status   autodeco_filters_set(struct llama_sampler * smpl, struct llama_sampler * inner);

// ---- reference maths (scalar, double accumulation; the oracle of every faster path) ---

struct autodeco_stats {
    float max_prob;
    float entropy;  // nats
    float prob_var; // unbiased
    float top5_sum;
};

// Philox4x32-10 keyed by the seed: u in [0, 1) with 53 bits, a pure function.
AUTODECO_API double autodeco_ref_uniform(uint64_t seed, uint64_t index);

// Statistics of softmax(logits / (temp + 1e-8)); false when no logit is finite.
AUTODECO_API bool autodeco_ref_stats(const float * logits, int32_t n_vocab, float temp, struct autodeco_stats * out);

// T and P from hidden[n_embd] and logits[n_vocab]; NAN for a missing head. False when no logit is finite, or
// n_vocab is not the heads'.
AUTODECO_API bool autodeco_ref_forward(
        const struct autodeco_heads * heads, const float * hidden, const float * logits, int32_t n_vocab,
        float * temp, float * top_p, struct autodeco_stats * stats);

// Sorts, cuts and draws. kept[n_vocab] may be NULL. Returns the token, -1 when no logit is finite,
// -2 when memory ran out.
AUTODECO_API int32_t autodeco_ref_draw(
        const float * logits, int32_t n_vocab, float temp_eff, float top_p_eff, double u, bool * kept, int32_t * n_kept);

// The whole step of the sampler outside any graph, by the code the graph nodes run, in n_threads
// slices one after the other: what the tests compare with the reference. kernels: a name, NULL = the
// fastest. hidden may be NULL without heads. N_VOCAB where n_vocab is not the heads'.
AUTODECO_API enum autodeco_status autodeco_step_once(
        const struct autodeco_heads * heads, struct autodeco_sampler_params params, const char * kernels, const float * hidden,
        const float * logits, int32_t n_vocab, uint64_t index, int32_t n_threads, struct autodeco_step * out);

#ifdef __cplusplus
}
#endif

#endif // AUTODECO_H
