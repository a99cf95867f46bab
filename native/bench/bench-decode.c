// llama.cpp's own decode loop on a model: a context a sampler, all alive, one computing at a time.
//
// Owns the contexts, their positions and the timing of llama_decode and llama_sampler_sample. The
// contexts are made as autodeco_edge.engine makes its own, so that only the sampling differs. Does not
// load models and computes no statistics.

#include "bench-util.h"

#include "llama.h"

#include <stdlib.h>

#define N_SAMPLERS AUTODECO_BENCH_DIST // those before it

struct contender {
    struct llama_context * ctx;
    struct llama_sampler * chain;
    int32_t                n_past;
};

struct autodeco_bench_decode {
    struct autodeco_bench_decode_params params;
    struct contender                    contenders[N_SAMPLERS];
    struct llama_sampler *              smpl; // AutoDeco's, owned by its chain
    struct llama_batch                  batch;
};

// ---- contexts ---------------------------------------------------------------------------

static struct llama_context * new_context(struct llama_model * model, const struct autodeco_bench_decode_params * p, struct llama_sampler * attached) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx                 = (uint32_t) p->n_ctx;
    params.n_batch               = (uint32_t) p->n_batch;
    params.n_ubatch              = (uint32_t) p->n_batch;
    params.n_seq_max             = 1;
    params.n_outputs_max_per_seq = 1;
    params.n_threads             = p->n_threads;
    params.n_threads_batch       = p->n_threads;
    params.no_perf               = true;
    struct llama_sampler_seq_config seq = { .seq_id = 0, .sampler = attached };
    if (attached) {
        params.samplers   = &seq;
        params.n_samplers = 1;
    }
    return llama_init_from_model(model, params);
}

static struct llama_sampler * new_autodeco_chain(struct autodeco_bench_decode * b, const struct autodeco_heads * heads) {
    struct autodeco_sampler_params params = autodeco_sampler_default_params();
    params.seed = b->params.seed;
    b->smpl = autodeco_sampler_init(heads, params);
    if (!b->smpl) {
        return NULL;
    }
    struct llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, b->smpl);
    return chain;
}

static bool init_contender(struct autodeco_bench_decode * b, int32_t i, struct llama_model * model, const struct autodeco_heads * heads) {
    struct contender * c = &b->contenders[i];
    const bool learned = i == AUTODECO_BENCH_AUTODECO;
    c->chain = learned
        ? new_autodeco_chain(b, heads)
        : bench_stock_chain((enum autodeco_bench_sampler) i, b->params.temp, b->params.top_p, (uint32_t) b->params.seed);
    if (c->chain) {
        c->ctx = new_context(model, &b->params, learned ? c->chain : NULL);
    }
    return c->ctx != NULL;
}

enum autodeco_status autodeco_bench_decode_init(
        struct llama_model * model, const struct autodeco_heads * heads, struct autodeco_bench_decode_params params,
        struct autodeco_bench_decode ** out, char * err, size_t n_err) {
    struct autodeco_bench_decode * b = calloc(1, sizeof *b);
    if (!b) {
        return bench_fail(AUTODECO_STATUS_MEMORY, err, n_err, "no memory for the benchmark of a decode");
    }
    b->params = params;
    b->batch  = llama_batch_init(params.n_batch, 0, 1);
    enum autodeco_status status = AUTODECO_STATUS_OK;
    for (int32_t i = 0; i < N_SAMPLERS && status == AUTODECO_STATUS_OK; i++) {
        if (!init_contender(b, i, model, heads)) {
            status = bench_fail(AUTODECO_STATUS_MEMORY, err, n_err, "no memory for a context of the benchmark; fewer tokens need less");
        }
    }
    if (status == AUTODECO_STATUS_OK) {
        status = autodeco_sampler_status(b->smpl, err, n_err);
    }
    if (status != AUTODECO_STATUS_OK) {
        autodeco_bench_decode_free(b);
        return status;
    }
    *out = b;
    return AUTODECO_STATUS_OK;
}

void autodeco_bench_decode_free(struct autodeco_bench_decode * b) {
    if (!b) {
        return;
    }
    for (int32_t i = 0; i < N_SAMPLERS; i++) {
        if (b->contenders[i].ctx) {
            llama_free(b->contenders[i].ctx); // borrows the chain, so it goes first
        }
        if (b->contenders[i].chain) {
            llama_sampler_free(b->contenders[i].chain);
        }
    }
    llama_batch_free(b->batch);
    free(b);
}

int32_t autodeco_bench_decode_n_samplers(void) {
    return N_SAMPLERS;
}

size_t autodeco_bench_decode_n_sampler_bytes(const struct autodeco_bench_decode * b) {
    return autodeco_sampler_memory(b->smpl);
}

// ---- decoding ---------------------------------------------------------------------------

static void fill_batch(struct llama_batch * batch, const int32_t * tokens, int32_t n, int32_t n_past, bool last) {
    batch->n_tokens = n;
    for (int32_t i = 0; i < n; i++) {
        batch->token[i]     = tokens[i];
        batch->pos[i]       = n_past + i;
        batch->n_seq_id[i]  = 1;
        batch->seq_id[i][0] = 0;
        batch->logits[i]    = last && i == n - 1;
    }
}

static bool decode(struct autodeco_bench_decode * b, struct contender * c, const int32_t * tokens, int32_t n, bool last) {
    fill_batch(&b->batch, tokens, n, c->n_past, last);
    c->n_past += n;
    return llama_decode(c->ctx, b->batch) == 0;
}

static enum autodeco_status fail_decode(char * err, size_t n_err) {
    return bench_fail(AUTODECO_STATUS_MEMORY, err, n_err, "llama.cpp could not decode the batch");
}

static enum autodeco_status check_sampler(const struct autodeco_bench_decode * b, enum autodeco_bench_sampler sampler, char * err, size_t n_err) {
    return sampler == AUTODECO_BENCH_AUTODECO ? autodeco_sampler_status(b->smpl, err, n_err) : AUTODECO_STATUS_OK;
}

enum autodeco_status autodeco_bench_decode_prompt(
        struct autodeco_bench_decode * b, enum autodeco_bench_sampler sampler, const int32_t * prompt, int32_t n_prompt,
        double * us, int32_t * sampled, char * err, size_t n_err) {
    struct contender * c = &b->contenders[sampler];
    llama_memory_clear(llama_get_memory(c->ctx), false);
    llama_sampler_reset(c->chain);
    c->n_past = 0;
    const double start = bench_now_us();
    for (int32_t i = 0; i < n_prompt; i += b->params.n_batch) {
        const int32_t n = n_prompt - i < b->params.n_batch ? n_prompt - i : b->params.n_batch;
        if (!decode(b, c, prompt + i, n, i + n == n_prompt)) {
            return fail_decode(err, n_err);
        }
    }
    llama_synchronize(c->ctx);
    *us      = bench_now_us() - start;
    *sampled = llama_sampler_sample(c->chain, c->ctx, -1);
    return check_sampler(b, sampler, err, n_err);
}

enum autodeco_status autodeco_bench_decode_token(
        struct autodeco_bench_decode * b, enum autodeco_bench_sampler sampler, int32_t token,
        double * us, int32_t * sampled, char * err, size_t n_err) {
    struct contender * c = &b->contenders[sampler];
    const double start = bench_now_us();
    if (!decode(b, c, &token, 1, true)) {
        return fail_decode(err, n_err);
    }
    *sampled = llama_sampler_sample(c->chain, c->ctx, -1);
    *us      = bench_now_us() - start;
    return check_sampler(b, sampler, err, n_err);
}

enum autodeco_status autodeco_bench_decode_round(
        struct autodeco_bench_decode * b, const int32_t * prompt, int32_t n_prompt, int32_t n_tokens, int32_t first,
        double * prompt_us, double * token_us, int32_t * tokens, char * err, size_t n_err) {
    int32_t sampled[N_SAMPLERS];
    for (int32_t i = 0; i < N_SAMPLERS; i++) {
        const int32_t k = bench_order(first, i, N_SAMPLERS);
        const enum autodeco_status status = autodeco_bench_decode_prompt(
                b, (enum autodeco_bench_sampler) k, prompt, n_prompt, &prompt_us[k], &sampled[k], err, n_err);
        if (status != AUTODECO_STATUS_OK) {
            return status;
        }
    }
    int32_t next = sampled[AUTODECO_BENCH_GREEDY];
    for (int32_t t = 0; t < n_tokens; t++) {
        int32_t * drawn = tokens + (size_t) t * N_SAMPLERS;
        for (int32_t i = 0; i < N_SAMPLERS; i++) {
            const int32_t k = bench_order(first + t, i, N_SAMPLERS);
            const enum autodeco_status status = autodeco_bench_decode_token(
                    b, (enum autodeco_bench_sampler) k, next, &token_us[(size_t) t * N_SAMPLERS + (size_t) k], &drawn[k], err, n_err);
            if (status != AUTODECO_STATUS_OK) {
                return status;
            }
        }
        next = drawn[AUTODECO_BENCH_GREEDY];
    }
    return AUTODECO_STATUS_OK;
}
