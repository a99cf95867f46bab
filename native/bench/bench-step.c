// One sampling step: AutoDeco in a ggml graph against stock chains on the same logits.
//
// Owns the graph, made as llama.cpp makes it (llm_graph_context::build_sampling): the sampler's own
// vtable is called on a graph that holds "result_norm", with a view of the logits padded by one row. Whether
// that copy is made depends on whether the sampler reads it. Does not know a model, and computes no
// statistics.
//
// Timed, AutoDeco: set_input, graph, accept, a row each. Timed, stock: what llama_sampler_sample does with raw
// logits: candidates, chain, accept; not the copy that llama.cpp makes of them before (LOGITS_COPY).

#include "bench-util.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "llama.h"

#include <stdlib.h>
#include <string.h>

#define N_NODES_A_ROW 64 // far more than a sampler builds

typedef struct autodeco_bench_step_params step_params;

struct step {
    step_params             params;
    ggml_backend_t          backend;
    struct ggml_context *   ctx;
    ggml_backend_buffer_t   buffer;                               // behind all tensors of ctx
    struct ggml_tensor *    logits;                               // [n_vocab, n_rows], read by everybody
    struct ggml_tensor *    norm;                                 // [n_embd, n_rows]
    struct ggml_cgraph *    graph;                                // of the AutoDeco samplers
    struct ggml_cgraph *    empty;
    struct ggml_cgraph *    pad;
    struct ggml_tensor **   sampled;                              // [n_rows], in `graph`
    struct llama_sampler ** samplers[AUTODECO_BENCH_N_SAMPLERS];  // [n_rows] each
    llama_token_data *      candidates;                           // [n_vocab]
    float *                 copy;                                 // of the logits
    float *                 weights;                              // [n_weight_bytes / 4]
    volatile float          sink;                                 // keeps the sweeps alive
};

// ---- the graphs -------------------------------------------------------------------------

static size_t max_nodes(int32_t n_rows) {
    return (size_t) n_rows * N_NODES_A_ROW + GGML_DEFAULT_GRAPH_SIZE;
}

static struct ggml_context * new_context(int32_t n_rows) {
    struct ggml_init_params params = {
        .mem_size   = max_nodes(n_rows) * ggml_tensor_overhead() + 3 * ggml_graph_overhead_custom(max_nodes(n_rows), false),
        .mem_buffer = NULL,
        .no_alloc   = true,
    };
    return ggml_init(params);
}

static struct ggml_cgraph * new_graph(struct ggml_context * ctx, int32_t n_rows) {
    return ggml_new_graph_custom(ctx, max_nodes(n_rows), false);
}

// llama.cpp first asks for the nodes on bare logits, to know how many there will be.
static bool probe(struct llama_sampler * smpl, int32_t n_vocab) {
    struct ggml_context * ctx = new_context(1);
    if (!ctx) {
        return false;
    }
    struct llama_sampler_data data = { .logits = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_vocab) };
    smpl->iface->backend_reset(smpl);
    smpl->iface->backend_apply(smpl, ctx, new_graph(ctx, 1), &data);
    smpl->iface->backend_reset(smpl);
    ggml_free(ctx);
    return true;
}

static struct ggml_tensor * add_row(struct step * s, struct ggml_tensor * padded, struct llama_sampler * smpl, int32_t row) {
    struct llama_sampler_data data = {
        .logits = ggml_view_1d(s->ctx, padded, padded->ne[0], (size_t) row * padded->nb[1]),
    };
    smpl->iface->backend_reset(smpl);
    smpl->iface->backend_apply(smpl, s->ctx, s->graph, &data);
    if (data.sampled) {
        ggml_build_forward_expand(s->graph, data.sampled);
    }
    return data.sampled;
}

static bool build_graph(struct step * s) {
    s->graph = new_graph(s->ctx, s->params.n_rows);
    ggml_build_forward_expand(s->graph, s->norm);
    ggml_build_forward_expand(s->graph, s->logits);
    struct ggml_tensor * padded = ggml_pad(s->ctx, s->logits, 0, 1, 0, 0);
    for (int32_t row = 0; row < s->params.n_rows; row++) {
        s->sampled[row] = add_row(s, padded, s->samplers[AUTODECO_BENCH_AUTODECO][row], row);
        if (!s->sampled[row]) {
            return false;
        }
    }
    return true;
}

static void run_nothing(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    (void) dst;
    (void) ith;
    (void) nth;
    (void) userdata;
}

// What ggml itself costs: start the threads, one node, one barrier.
static void build_empty(struct step * s) {
    s->empty = new_graph(s->ctx, 1);
    ggml_build_forward_expand(s->empty, ggml_custom_4d(s->ctx, GGML_TYPE_I32, 1, 1, 1, 1, &s->logits, 1, run_nothing, GGML_N_TASKS_MAX, NULL));
}

static void build_pad(struct step * s) {
    s->pad = new_graph(s->ctx, 1);
    ggml_build_forward_expand(s->pad, ggml_pad(s->ctx, s->logits, 0, 1, 0, 0));
}

static bool init_graphs(struct step * s, int32_t n_embd, const float * hidden, const float * logits) {
    s->ctx     = new_context(s->params.n_rows);
    s->sampled = calloc((size_t) s->params.n_rows, sizeof *s->sampled);
    if (!s->ctx || !s->sampled) {
        return false;
    }
    s->logits = ggml_new_tensor_2d(s->ctx, GGML_TYPE_F32, s->params.n_vocab, s->params.n_rows);
    s->norm   = ggml_new_tensor_2d(s->ctx, GGML_TYPE_F32, n_embd, s->params.n_rows);
    ggml_set_name(s->norm, "result_norm");
    build_empty(s);
    build_pad(s);
    if (!build_graph(s)) {
        return false;
    }
    s->buffer = ggml_backend_alloc_ctx_tensors(s->ctx, s->backend);
    if (!s->buffer) {
        return false;
    }
    ggml_backend_tensor_set(s->norm, hidden, 0, ggml_nbytes(s->norm));
    ggml_backend_tensor_set(s->logits, logits, 0, ggml_nbytes(s->logits));
    return true;
}

// ---- the contenders ---------------------------------------------------------------------

static void run_autodeco(struct step * s, int32_t * tokens) {
    struct llama_sampler ** smpl = s->samplers[AUTODECO_BENCH_AUTODECO];
    for (int32_t row = 0; row < s->params.n_rows; row++) {
        smpl[row]->iface->backend_set_input(smpl[row]);
    }
    ggml_backend_graph_compute(s->backend, s->graph);
    for (int32_t row = 0; row < s->params.n_rows; row++) {
        tokens[row] = *(const int32_t *) s->sampled[row]->data;
        llama_sampler_accept(smpl[row], tokens[row]);
    }
}

static void run_stock(struct step * s, enum autodeco_bench_sampler sampler, int32_t * tokens) {
    const int32_t n_vocab = s->params.n_vocab;
    for (int32_t row = 0; row < s->params.n_rows; row++) {
        const float * logits = (const float *) s->logits->data + (size_t) row * (size_t) n_vocab;
        for (int32_t id = 0; id < n_vocab; id++) {
            s->candidates[id] = (llama_token_data) { id, logits[id], 0.0f };
        }
        llama_token_data_array cur = { .data = s->candidates, .size = (size_t) n_vocab, .selected = -1, .sorted = false };
        struct llama_sampler * chain = s->samplers[sampler][row];
        llama_sampler_apply(chain, &cur);
        tokens[row] = cur.selected < 0 ? -1 : cur.data[cur.selected].id;
        llama_sampler_accept(chain, tokens[row]);
    }
}

#define N_LANES 64 // independent sums, so that the compiler may use vectors without changing the result

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default"))) // the yardstick must not be slower than it has to be
#endif
static float sweep(const float * x, size_t n) {
    float sum[N_LANES] = { 0 };
    size_t i = 0;
    for (; i + N_LANES <= n; i += N_LANES) {
        for (int k = 0; k < N_LANES; k++) {
            sum[k] += x[i + (size_t) k];
        }
    }
    for (; i < n; i++) {
        sum[0] += x[i];
    }
    float total = 0.0f;
    for (int k = 0; k < N_LANES; k++) {
        total += sum[k];
    }
    return total;
}

static void read_logits(struct step * s) {
    s->sink = sweep(s->logits->data, (size_t) ggml_nelements(s->logits));
}

static void run_contender(struct step * s, int32_t contender, int32_t * tokens) {
    switch (contender) {
        case AUTODECO_BENCH_AUTODECO:
            run_autodeco(s, tokens);
            break;
        case AUTODECO_BENCH_GRAPH:
            ggml_backend_graph_compute(s->backend, s->empty);
            break;
        case AUTODECO_BENCH_LOGITS_SWEEP:
            read_logits(s);
            break;
        case AUTODECO_BENCH_WEIGHTS_SWEEP:
            s->sink = sweep(s->weights, s->params.n_weight_bytes / sizeof(float));
            break;
        case AUTODECO_BENCH_LOGITS_COPY:
            memcpy(s->copy, s->logits->data, ggml_nbytes(s->logits));
            s->sink = s->copy[0];
            break;
        case AUTODECO_BENCH_LOGITS_PAD:
            ggml_backend_graph_compute(s->backend, s->pad);
            break;
        default:
            run_stock(s, (enum autodeco_bench_sampler) contender, tokens);
    }
}

// us [N_CONTENDERS], tokens [N_SAMPLERS, n_rows]. A model has just written its logits, so everybody finds
// them in the cache; the heads' weights lie wherever the others' work has left them.
static void run_round(struct step * s, int32_t round, double * us, int32_t * tokens) {
    for (int32_t i = 0; i < AUTODECO_BENCH_N_CONTENDERS; i++) {
        const int32_t contender = bench_order(round, i, AUTODECO_BENCH_N_CONTENDERS);
        int32_t *     drawn     = contender < AUTODECO_BENCH_N_SAMPLERS ? tokens + contender * s->params.n_rows : NULL;
        read_logits(s);
        const double start = bench_now_us();
        run_contender(s, contender, drawn);
        us[contender] = bench_now_us() - start;
    }
}

// ---- set-up -----------------------------------------------------------------------------

static struct llama_sampler * new_sampler(const struct step * s, const struct autodeco_heads * heads, enum autodeco_bench_sampler sampler, int32_t row) {
    const uint64_t seed = s->params.seed + (uint64_t) row;
    if (sampler != AUTODECO_BENCH_AUTODECO) {
        return bench_stock_chain(sampler, s->params.temp, s->params.top_p, (uint32_t) seed);
    }
    struct autodeco_sampler_params params = autodeco_sampler_default_params();
    params.seed = seed;
    struct llama_sampler * smpl = autodeco_sampler_init(heads, params);
    if (smpl && smpl->iface->backend_init(smpl, ggml_backend_cpu_buffer_type(), 1) && probe(smpl, s->params.n_vocab)) {
        return smpl;
    }
    if (smpl) {
        llama_sampler_free(smpl);
    }
    return NULL;
}

static bool init_samplers(struct step * s, const struct autodeco_heads * heads) {
    for (int32_t i = 0; i < AUTODECO_BENCH_N_SAMPLERS; i++) {
        s->samplers[i] = calloc((size_t) s->params.n_rows, sizeof *s->samplers[i]);
        for (int32_t row = 0; s->samplers[i] && row < s->params.n_rows; row++) {
            s->samplers[i][row] = new_sampler(s, heads, (enum autodeco_bench_sampler) i, row);
            if (!s->samplers[i][row]) {
                return false;
            }
        }
        if (!s->samplers[i]) {
            return false;
        }
    }
    return true;
}

static bool init_buffers(struct step * s) {
    const size_t n_logits  = (size_t) s->params.n_rows * (size_t) s->params.n_vocab;
    const size_t n_weights = s->params.n_weight_bytes / sizeof(float);
    s->candidates = malloc((size_t) s->params.n_vocab * sizeof *s->candidates);
    s->copy       = malloc(n_logits * sizeof *s->copy);
    s->weights    = malloc((n_weights + 1) * sizeof *s->weights);
    for (size_t i = 0; s->weights && i < n_weights; i++) {
        s->weights[i] = 1.0f; // written, so that it is memory of its own
    }
    return s->candidates && s->copy && s->weights;
}

static bool init_step(struct step * s, const struct autodeco_heads * heads, const float * hidden, const float * logits) {
    s->backend = ggml_backend_cpu_init();
    if (!s->backend) {
        return false;
    }
    ggml_backend_cpu_set_n_threads(s->backend, s->params.n_threads);
    return init_samplers(s, heads) && init_buffers(s) && init_graphs(s, autodeco_heads_n_embd(heads), hidden, logits);
}

static void free_step(struct step * s) {
    ggml_backend_buffer_free(s->buffer);
    ggml_free(s->ctx);
    free(s->sampled);
    for (int32_t i = 0; i < AUTODECO_BENCH_N_SAMPLERS; i++) {
        for (int32_t row = 0; s->samplers[i] && row < s->params.n_rows; row++) {
            if (s->samplers[i][row]) {
                llama_sampler_free(s->samplers[i][row]);
            }
        }
        free(s->samplers[i]);
    }
    free(s->candidates);
    free(s->copy);
    free(s->weights);
    ggml_backend_free(s->backend);
}

static enum autodeco_status run_rounds(struct step * s, double * us, int32_t * tokens, char * err, size_t n_err) {
    for (int32_t round = -s->params.n_warmup; round < s->params.n_rounds; round++) {
        const size_t place = (size_t) (round < 0 ? 0 : round); // a warm-up is overwritten
        run_round(s, round + s->params.n_warmup, us + place * AUTODECO_BENCH_N_CONTENDERS,
                tokens + place * AUTODECO_BENCH_N_SAMPLERS * (size_t) s->params.n_rows);
    }
    for (int32_t row = 0; row < s->params.n_rows; row++) {
        const enum autodeco_status status = autodeco_sampler_status(s->samplers[AUTODECO_BENCH_AUTODECO][row], err, n_err);
        if (status != AUTODECO_STATUS_OK) {
            return status;
        }
    }
    return AUTODECO_STATUS_OK;
}

static void report_samplers(const struct step * s, struct autodeco_step * steps, size_t * n_bytes) {
    *n_bytes = 0;
    for (int32_t row = 0; row < s->params.n_rows; row++) {
        const struct llama_sampler * smpl = s->samplers[AUTODECO_BENCH_AUTODECO][row];
        autodeco_sampler_get_steps(smpl, &steps[row], 1);
        *n_bytes += autodeco_sampler_memory(smpl);
    }
}

enum autodeco_status autodeco_bench_step(
        const struct autodeco_heads * heads, struct autodeco_bench_step_params params, const float * hidden, const float * logits,
        double * us, int32_t * tokens, struct autodeco_step * steps, size_t * n_sampler_bytes, char * err, size_t n_err) {
    struct step s = { .params = params };
    enum autodeco_status status = bench_fail(AUTODECO_STATUS_MEMORY, err, n_err, "no memory for the benchmark of a step");
    if (init_step(&s, heads, hidden, logits)) {
        status = run_rounds(&s, us, tokens, err, n_err);
        report_samplers(&s, steps, n_sampler_bytes);
    }
    free_step(&s);
    return status;
}
