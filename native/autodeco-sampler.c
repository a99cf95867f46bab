// AutoDeco as a llama_sampler: the vtable, the state behind it, the pairing with the CPU draw.
//
// Owns which row of which decode belongs to which step, the random number's position, and the refusals.
// The maths is in autodeco-row.c.
//
// Two stanzas share one state:
//   autodeco       first in the chain; its nodes run in the model's graph. Draws there, unless made
//                  with cpu_draw: then it lets the logits through for grammar, penalties and bias.
//   autodeco-draw  last in the chain of a cpu_draw sampler; cuts and draws what they left over.

#include "autodeco-graph.h"

#include "ggml.h"
#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The struct is experimental in llama.cpp and has grown before: a vtable of another size is another library.
_Static_assert(sizeof(struct llama_sampler_i) == 12 * sizeof(void *), "llama_sampler_i has changed: port the stanzas below");

struct state {
    int                            n_refs; // the two stanzas, and a parent's `heir`
    const struct autodeco_heads *  heads;
    struct autodeco_sampler_params params;
    uint64_t                       n_accepted;
    struct state *                 heir;   // clone made for `autodeco`, waiting for the clone of `autodeco-draw`

    // the graph: fixed between two builds
    int32_t                n_nodes;
    int32_t                n_built;
    struct autodeco_node * nodes;   // [n_nodes]
    enum autodeco_status   graph;   // NO_NORM or N_VOCAB where one was built that the heads do not fit
    int64_t                n_logits; // of that graph

    // the last decode
    int32_t              n_steps;
    int32_t              n_taken; // rows drawn on the CPU, or fetched
    struct autodeco_step * steps;   // [n_nodes]
    enum autodeco_status status;

    float * scratch;   // [n_scratch] logits after the CPU samplers
    int32_t n_scratch;
};

// ---- state ------------------------------------------------------------------------------

static bool same_version(char * err, size_t n_err) {
    return autodeco_check_llama(err, n_err) == AUTODECO_STATUS_OK;
}

static void free_nodes(struct state * s) {
    for (int32_t i = 0; i < s->n_nodes; i++) {
        autodeco_row_free(&s->nodes[i].row);
    }
    free(s->nodes);
    free(s->steps);
    s->nodes   = NULL;
    s->steps   = NULL;
    s->n_nodes = 0;
}

static void release(struct state * s) {
    if (!s || --s->n_refs > 0) {
        return;
    }
    release(s->heir);
    free_nodes(s);
    free(s->scratch);
    free(s);
}

static struct state * new_state(const struct autodeco_heads * heads, struct autodeco_sampler_params params) {
    struct state * s = calloc(1, sizeof *s);
    if (s) {
        s->n_refs = 1;
        s->heads  = heads;
        s->params = params;
    }
    return s;
}

// The first that went wrong: kept from earlier decodes, or of the first rows of the last one.
static enum autodeco_status status_of(const struct state * s, int32_t n_rows) {
    enum autodeco_status status = s->status;
    for (int32_t i = 0; status == AUTODECO_STATUS_OK && i < s->n_steps && i < n_rows; i++) {
        status = s->nodes[i].row.status;
    }
    return status;
}

// Rows of the last decode that count: those taken, the rest of a draft that was rejected does not. All of them for a caller
// who takes rows by llama_sampler_sample, of which we do not hear.
static int32_t n_counted(const struct state * s) {
    return s->n_taken > 0 ? s->n_taken : s->n_steps;
}

static void copy_mutable(const struct state * src, struct state * dst) {
    dst->params     = src->params;
    dst->n_accepted = src->n_accepted;
    dst->status     = status_of(src, n_counted(src));
    dst->n_taken  = src->n_taken;
    dst->n_steps    = src->n_steps < dst->n_nodes ? src->n_steps : dst->n_nodes;
    for (int32_t i = 0; i < dst->n_steps; i++) {
        dst->steps[i] = src->steps[i];
        dst->nodes[i].row.status = AUTODECO_STATUS_OK;
    }
}

// ---- in the graph -----------------------------------------------------------------------

static double node_uniform(void * owner, int32_t index) {
    const struct state * s = owner;
    return autodeco_ref_uniform(s->params.seed, s->n_accepted + (uint64_t) index);
}

static bool sampler_backend_init(struct llama_sampler * smpl, ggml_backend_buffer_type_t buft, uint32_t n_outputs_max_per_seq) {
    (void) buft; // custom nodes run on the CPU whatever holds the output layer
    struct state * s = smpl->ctx;
    free_nodes(s);
    s->nodes = calloc(n_outputs_max_per_seq, sizeof *s->nodes);
    s->steps = calloc(n_outputs_max_per_seq, sizeof *s->steps);
    if (!s->nodes || !s->steps) {
        s->status = AUTODECO_STATUS_MEMORY;
        return false;
    }
    s->n_nodes = (int32_t) n_outputs_max_per_seq;
    return true;
}

// Buffers are made when the width of the logits is known: at the first real graph.
static struct autodeco_node * prepare_node(struct state * s, int64_t n_vocab, bool probe) {
    if (s->n_nodes == 0) { // llama.cpp builds its probe even where backend_init has failed
        return NULL;
    }
    const int32_t index = s->n_built < s->n_nodes ? s->n_built++ : s->n_nodes - 1;
    struct autodeco_node * node = &s->nodes[index];
    if (!probe && node->row.n_vocab != n_vocab) {
        autodeco_row_free(&node->row);
        if (!autodeco_row_init(&node->row, s->heads, (int32_t) n_vocab)) {
            s->status = AUTODECO_STATUS_MEMORY;
            return NULL;
        }
    }
    node->row.heads = s->heads;
    node->step      = &s->steps[index];
    node->index     = index;
    node->owner     = s;
    node->uniform   = node_uniform;
    return node;
}

// The probe graph has bare logits; in a model's graph they are a view of the padded matrix.
static bool is_probe(const struct llama_sampler_data * data) {
    return data->logits->view_src == NULL;
}

// The hidden states, [n_embd, n_outputs]. NULL where the graph has none to read.
static struct ggml_tensor * find_hidden(struct state * s, struct ggml_cgraph * gf, const struct llama_sampler_data * data) {
    if (is_probe(data) || !s->heads) {
        return data->logits; // nothing reads it
    }
    struct ggml_tensor * norm = ggml_graph_get_tensor(gf, "result_norm");
    if (!norm || norm->type != GGML_TYPE_F32 || norm->ne[0] != s->heads->n_embd || norm->ne[2] != 1) {
        s->graph = AUTODECO_STATUS_NO_NORM;
        return NULL;
    }
    if (s->heads->n_vocab != 0 && data->logits->ne[0] != s->heads->n_vocab) {
        s->graph    = AUTODECO_STATUS_N_VOCAB;
        s->n_logits = data->logits->ne[0];
        return NULL;
    }
    return norm;
}

// The matrix that these logits are a row of, [n_vocab, n_outputs]. llama.cpp pads it by a row with ggml_pad, a scalar loop over
// every element (0.65 ms for 151,936); reading what it pads leaves that node out of the graph.
static struct ggml_tensor * find_logits(const struct llama_sampler_data * data) {
    struct ggml_tensor * matrix = is_probe(data) ? data->logits : data->logits->view_src;
    return matrix->op == GGML_OP_PAD ? matrix->src[0] : matrix;
}

// Called for the probe graph, for reserved worst-case graphs and for real ones; no sampling state may
// change here. The first call sets the node budget; no later one builds more nodes.
static void sampler_backend_apply(struct llama_sampler * smpl, struct ggml_context * ctx, struct ggml_cgraph * gf, struct llama_sampler_data * data) {
    struct state * s = smpl->ctx;
    struct ggml_tensor *   hidden = find_hidden(s, gf, data);
    struct autodeco_node * node   = hidden ? prepare_node(s, data->logits->ne[0], is_probe(data)) : NULL;
    if (!node) {
        return; // reported by autodeco_sampler_status
    }
    // The offset says which row. A sequence without an output in this batch gets the first one; it is not computed.
    const int64_t output = is_probe(data) ? 0 : (int64_t) (data->logits->view_offs / data->logits->view_src->nb[1]);
    struct ggml_tensor * logits = find_logits(data);
    if (s->params.cpu_draw) {
        data->logits = autodeco_graph_predict(ctx, gf, hidden, logits, output, node);
        return;
    }
    data->sampled = autodeco_graph_sample(ctx, gf, hidden, logits, output, node);
    data->logits  = NULL; // nobody needs a copy of them
}

// Only for sequences with an output in this batch, before the graph runs.
static void sampler_backend_set_input(struct llama_sampler * smpl) {
    struct state * s = smpl->ctx;
    s->status    = status_of(s, n_counted(s));
    s->n_steps   = s->n_built;
    s->n_taken = 0;
    for (int32_t i = 0; i < s->n_steps; i++) {
        s->nodes[i].row.params = s->params;
        s->nodes[i].row.status = AUTODECO_STATUS_OK;
        s->steps[i].token      = -1; // should the graph not come to its end
    }
}

static void sampler_backend_reset(struct llama_sampler * smpl) {
    struct state * s = smpl->ctx;
    s->n_built = 0;
}

// ---- on the CPU -------------------------------------------------------------------------

static const char * sampler_name(const struct llama_sampler * smpl) {
    (void) smpl;
    return "autodeco";
}

static void sampler_accept(struct llama_sampler * smpl, llama_token token) {
    (void) token;
    struct state * s = smpl->ctx;
    s->n_accepted++;
}

static void select_largest(llama_token_data_array * cur_p) {
    cur_p->selected = 0;
    for (size_t i = 1; i < cur_p->size; i++) {
        if (cur_p->data[i].logit > cur_p->data[cur_p->selected].logit) {
            cur_p->selected = (int64_t) i;
        }
    }
}

// A chain skips this when the nodes ran. Reached without a graph there is no hidden state: with a draw
// sampler behind, leave the candidates alone; else pick the likeliest, so that llama_sampler_sample does
// not abort, and report.
static void sampler_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p) {
    struct state * s = smpl->ctx;
    if (s->status == AUTODECO_STATUS_OK) {
        s->status = AUTODECO_STATUS_NOT_ATTACHED;
    }
    if (!s->params.cpu_draw) {
        select_largest(cur_p);
    }
}

static void sampler_reset(struct llama_sampler * smpl) {
    struct state * s = smpl->ctx;
    s->n_accepted = 0;
    s->n_steps    = 0;
    s->n_taken  = 0;
    s->status     = AUTODECO_STATUS_OK;
}

static void sampler_free(struct llama_sampler * smpl) {
    release(smpl->ctx);
}

static void sampler_copy_state(const struct llama_sampler * src, struct llama_sampler * dst) {
    copy_mutable(src->ctx, dst->ctx);
}

// ---- a clone without memory -------------------------------------------------------------

// llama.cpp's chain takes what a clone gives it, and NULL would crash it later. So a clone for which there was no
// memory is a sampler without a state: it reports that, and picks the likeliest token so that nothing aborts.

static const char * broken_name(const struct llama_sampler * smpl) {
    (void) smpl;
    return "autodeco-no-memory";
}

static void broken_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p) {
    (void) smpl;
    select_largest(cur_p);
}

static struct llama_sampler_i broken_i = {
    .name  = broken_name,
    .apply = broken_apply, // no clone: llama.cpp copies what has no state
};

// ---- cloning ----------------------------------------------------------------------------

static struct llama_sampler * sampler_clone(const struct llama_sampler * smpl);

static struct llama_sampler_i sampler_i = {
    .name              = sampler_name,
    .accept            = sampler_accept,
    .apply             = sampler_apply,
    .reset             = sampler_reset,
    .clone             = sampler_clone,
    .free              = sampler_free,
    .backend_init      = sampler_backend_init,
    .backend_accept    = NULL, // accept counts; llama.cpp does not call this one yet
    .backend_apply     = sampler_backend_apply,
    .backend_set_input = sampler_backend_set_input,
    .backend_reset     = sampler_backend_reset,
    .copy_state        = sampler_copy_state,
};

// llama_sampler_chain clones its members in order, so the clone of `autodeco` waits as heir for the
// clone of `autodeco-draw`, which takes it.
static struct llama_sampler * sampler_clone(const struct llama_sampler * smpl) {
    struct state * s = smpl->ctx;
    struct state * c = new_state(s->heads, s->params);
    if (!c) {
        return llama_sampler_init(&broken_i, NULL);
    }
    copy_mutable(s, c);
    if (s->params.cpu_draw) {
        release(s->heir);
        s->heir = c;
        c->n_refs++;
    }
    return llama_sampler_init(&sampler_i, c);
}

// ---- the draw on the CPU ----------------------------------------------------------------

static const char * draw_name(const struct llama_sampler * smpl) {
    (void) smpl;
    return "autodeco-draw";
}

// Candidates (filtered, reordered, biased) back into vocabulary order; absent ones are masked.
static bool fill_scratch(struct state * s, const llama_token_data_array * cur_p, int32_t n_vocab) {
    if (s->n_scratch != n_vocab) {
        free(s->scratch);
        s->scratch   = malloc((size_t) n_vocab * sizeof *s->scratch);
        s->n_scratch = s->scratch ? n_vocab : 0;
    }
    if (!s->scratch) {
        return false;
    }
    for (int32_t i = 0; i < n_vocab; i++) {
        s->scratch[i] = -INFINITY;
    }
    for (size_t i = 0; i < cur_p->size; i++) {
        const llama_token id = cur_p->data[i].id;
        if (id >= 0 && id < n_vocab) {
            s->scratch[id] = cur_p->data[i].logit;
        }
    }
    return true;
}

static void select_token(llama_token_data_array * cur_p, int32_t token) {
    cur_p->selected = 0; // llama_sampler_sample aborts on "none"; an error is in the status
    for (size_t i = 0; i < cur_p->size; i++) {
        if (cur_p->data[i].id == token) {
            cur_p->selected = (int64_t) i;
            return;
        }
    }
}

static void draw_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p) {
    struct state * s = smpl->ctx;
    cur_p->selected  = 0;
    if (s->n_taken >= s->n_steps) {
        if (s->status == AUTODECO_STATUS_OK) {
            s->status = AUTODECO_STATUS_NOT_ATTACHED;
        }
        return;
    }
    const int32_t         index = s->n_taken++;
    struct autodeco_row * row   = &s->nodes[index].row;
    if (!fill_scratch(s, cur_p, row->n_vocab)) {
        s->status = AUTODECO_STATUS_MEMORY;
        return;
    }
    autodeco_row_draw(row, s->scratch, false, node_uniform(s, 0));
    if (row->status != AUTODECO_STATUS_OK) {
        return;
    }
    if (row->raw) {
        autodeco_row_logprob(row, row->raw[row->step.token]);
    }
    s->steps[index] = row->step;
    select_token(cur_p, row->step.token);
}

static struct llama_sampler * draw_clone(const struct llama_sampler * smpl);

static struct llama_sampler_i draw_i = {
    .name              = draw_name,
    .accept            = NULL, // the first stanza counts
    .apply             = draw_apply,
    .reset             = NULL, // likewise
    .clone             = draw_clone,
    .free              = sampler_free,
    .backend_init      = NULL, // never in the graph
    .backend_accept    = NULL,
    .backend_apply     = NULL,
    .backend_set_input = NULL,
    .backend_reset     = NULL,
    .copy_state        = NULL, // likewise
};

static struct llama_sampler * draw_clone(const struct llama_sampler * smpl) {
    struct state * s = smpl->ctx;
    struct state * c = s->heir; // takes over the heir's reference
    s->heir = NULL;
    if (!c) {
        c = new_state(s->heads, s->params); // cloned alone: reports NOT_ATTACHED when used
    }
    return c ? llama_sampler_init(&draw_i, c) : llama_sampler_init(&broken_i, NULL);
}

// ---- public -----------------------------------------------------------------------------

// NULL where smpl is NULL, a sampler of somebody else, or a clone without memory.
static struct state * state_of(const struct llama_sampler * smpl) {
    return smpl && (smpl->iface == &sampler_i || smpl->iface == &draw_i) ? smpl->ctx : NULL;
}

const char * autodeco_kernels_name(int32_t i) {
    const struct autodeco_kernels * kernels = autodeco_kernels_get(i);
    return kernels ? kernels->name : NULL;
}

struct autodeco_sampler_params autodeco_sampler_default_params(void) {
    return (struct autodeco_sampler_params) { .seed = 0, .temp = 1.0f, .top_p = 1.0f, .min_p = 0.0f, .heads_mode = AUTODECO_HEADS_BOTH, .cpu_draw = false, .logprob = false, .temp_min = 0.0f, .temp_max = 0.0f, .top_p_min = 0.0f, .top_p_max = 0.0f };
}

struct llama_sampler * autodeco_sampler_init(const struct autodeco_heads * heads, struct autodeco_sampler_params params) {
    struct state * s = same_version(NULL, 0) ? new_state(heads, params) : NULL; // GCOV_EXCL_BR_LINE likewise
    return s ? llama_sampler_init(&sampler_i, s) : NULL;
}

struct llama_sampler * autodeco_sampler_init_draw(struct llama_sampler * smpl) {
    struct state * s = state_of(smpl);
    if (!s) {
        return NULL;
    }
    s->n_refs++;
    return llama_sampler_init(&draw_i, s);
}

int32_t autodeco_sampler_get_steps(const struct llama_sampler * smpl, struct autodeco_step * out, int32_t n_max) {
    const struct state * s = state_of(smpl);
    if (!s || (!out && n_max > 0)) {
        return 0;
    }
    for (int32_t i = 0; i < s->n_steps && i < n_max; i++) {
        out[i] = s->steps[i];
    }
    return s->n_steps;
}

static enum autodeco_status graph_status(const struct state * s, char * err, size_t n_err) {
    if (s->graph == AUTODECO_STATUS_NO_NORM) {
        return autodeco_fail(s->graph, err, n_err,
                "llama.cpp's graph of this architecture has no post-norm hidden state (result_norm) of width %d; AutoDeco cannot run on it", s->heads->n_embd);
    }
    if (s->graph == AUTODECO_STATUS_N_VOCAB) {
        return autodeco_fail(s->graph, err, n_err,
                "the heads were made for a vocabulary of %d, the graph's logits have %lld; use the heads of this model", s->heads->n_vocab, (long long) s->n_logits);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status no_state(const struct llama_sampler * smpl, char * err, size_t n_err) {
    if (smpl && smpl->iface == &broken_i) {
        return autodeco_fail(AUTODECO_STATUS_MEMORY, err, n_err, "no memory for the clone of a sampler");
    }
    return autodeco_fail(AUTODECO_STATUS_ARGUMENT, err, n_err, "this is no sampler of autodeco_sampler_init");
}

static enum autodeco_status report(const struct llama_sampler * smpl, int32_t n_rows, char * err, size_t n_err) {
    const struct state * s = state_of(smpl);
    if (!s) {
        return no_state(smpl, err, n_err);
    }
    if (s->graph != AUTODECO_STATUS_OK) {
        return graph_status(s, err, n_err);
    }
    const enum autodeco_status status = status_of(s, n_rows);
    switch (status) {
        case AUTODECO_STATUS_OK:
            return AUTODECO_STATUS_OK;
        case AUTODECO_STATUS_NO_LOGIT:
            return autodeco_fail(status, err, n_err, "no finite logit: the model gave NaN, or every token is masked");
        case AUTODECO_STATUS_NOT_ATTACHED:
            return autodeco_fail(status, err, n_err, "the sampler has not run in a graph; pass its chain in llama_context_params.samplers");
        default:
            return autodeco_fail(status, err, n_err, "no memory for the sampler");
    }
}

enum autodeco_status autodeco_sampler_status(const struct llama_sampler * smpl, char * err, size_t n_err) {
    const struct state * s = state_of(smpl);
    return report(smpl, s ? n_counted(s) : 0, err, n_err);
}

// The row that the next call takes. Rows behind it may come to nothing, and are not asked.
static int32_t next_row(const struct state * s) {
    if (!s) {
        return -1;
    }
    return s->n_taken < s->n_steps ? s->n_taken : s->n_steps - 1;
}

// llama_sampler_sample would abort without.
static bool has_output(struct llama_context * ctx, int32_t i_batch) {
    return llama_get_sampled_token_ith(ctx, i_batch) != LLAMA_TOKEN_NULL || llama_get_sampled_logits_ith(ctx, i_batch) || llama_get_logits_ith(ctx, i_batch);
}

enum autodeco_status autodeco_sampler_sample(
        const struct llama_sampler * smpl, struct llama_sampler * chain, struct llama_context * ctx, int32_t i_batch,
        struct autodeco_step * out, char * err, size_t n_err) {
    struct state *       s      = state_of(smpl);
    const int32_t        index  = next_row(s);
    enum autodeco_status status = report(smpl, index + 1, err, n_err);
    if (status != AUTODECO_STATUS_OK) {
        return status;
    }
    if (!chain || !ctx || !out) {
        return autodeco_fail(AUTODECO_STATUS_ARGUMENT, err, n_err, "autodeco_sampler_sample: chain, ctx and out must not be NULL");
    }
    if (!has_output(ctx, i_batch)) {
        return autodeco_fail(AUTODECO_STATUS_NOT_ATTACHED, err, n_err, "the last batch has no output to sample; set its logits flag");
    }
    const llama_token token = llama_sampler_sample(chain, ctx, i_batch);
    s->n_taken = index + 1;
    status = report(smpl, index + 1, err, n_err);
    if (status != AUTODECO_STATUS_OK) {
        return status;
    }
    *out = index >= 0 ? s->steps[index] : (struct autodeco_step) { .token = -1 };
    if (out->token != token) {
        return autodeco_fail(AUTODECO_STATUS_BYPASSED, err, n_err,
                "llama.cpp returned token %d, AutoDeco drew %d: the chain was bypassed", token, out->token);
    }
    return AUTODECO_STATUS_OK;
}

int64_t autodeco_sampler_n_fallbacks(const struct llama_sampler * smpl) {
    const struct state * s = state_of(smpl);
    int64_t n = 0;
    for (int32_t i = 0; s && i < s->n_nodes; i++) {
        n += s->nodes[i].row.n_fallbacks;
    }
    return n;
}

size_t autodeco_sampler_memory(const struct llama_sampler * smpl) {
    const struct state * s = state_of(smpl);
    if (!s) {
        return 0;
    }
    size_t size = (size_t) s->n_scratch * sizeof *s->scratch;
    for (int32_t i = 0; i < s->n_nodes; i++) {
        size += s->nodes[i].row.size;
    }
    return size;
}

void autodeco_sampler_set_params(struct llama_sampler * smpl, struct autodeco_sampler_params params) {
    struct state * s = state_of(smpl);
    if (s) {
        params.cpu_draw = s->params.cpu_draw; // the graph was built for it
        s->params = params;
    }
}

struct autodeco_sampler_params autodeco_sampler_get_params(const struct llama_sampler * smpl) {
    const struct state * s = state_of(smpl);
    return s ? s->params : autodeco_sampler_default_params();
}

void autodeco_sampler_set_seed(struct llama_sampler * smpl, uint64_t seed) {
    struct state * s = state_of(smpl);
    if (s) {
        s->params.seed = seed;
    }
}

uint64_t autodeco_sampler_get_position(const struct llama_sampler * smpl) {
    const struct state * s = state_of(smpl);
    return s ? s->n_accepted : 0;
}

void autodeco_sampler_set_position(struct llama_sampler * smpl, uint64_t n_accepted) {
    struct state * s = state_of(smpl);
    if (s) {
        s->n_accepted = n_accepted;
    }
}
