// The graph nodes: the stages of all rows of a batch as ggml custom operations on llama.cpp's own threads.
//
// Owns the wiring of stages to nodes and the sharing of rows among threads. Knows ggml; knows neither llama.h nor what a
// sampler is. Each node boundary is a barrier between threads, so there is one node a stage, for all rows together:
// samplers are asked for their nodes one by one, and those after the first find its nodes in the graph and join them.
// GGML_OP_CUSTOM runs on the CPU backend only: behind a GPU the scheduler copies the rows to the host, the same traffic
// as stock CPU sampling.
//
// As many rows as divide evenly among the threads are taken whole, each by one thread, while its logits are in that thread's
// cache. What is left is cut into slices, so that one row keeps all threads busy too. Neither changes a bit of any row.

#include "autodeco-graph.h"

#include "ggml.h"

#include <stdio.h>
#include <string.h>

// ---- the rows of a graph ----------------------------------------------------------------

// Rows of sequences without an output in this batch stand in the graph, and are not computed.
static struct autodeco_node * computed(struct autodeco_node * node) {
    while (node && !(node->result->flags & GGML_TENSOR_FLAG_COMPUTE)) {
        node = node->next;
    }
    return node;
}

static int32_t count_computed(struct autodeco_node * first) {
    int32_t n = 0;
    for (struct autodeco_node * node = computed(first); node; node = computed(node->next)) {
        n++;
    }
    return n;
}

static const float * row_of(const struct ggml_tensor * dst, int arg, const struct autodeco_node * node) {
    return (const float *) ((const char *) dst->src[arg]->data + (size_t) node->output * dst->src[arg]->nb[1]);
}

static bool is_drawn_here(const struct autodeco_node * node) {
    return !node->row.params.cpu_draw;
}

static void conclude(struct autodeco_node * node, const float * logits) {
    struct autodeco_row * row = &node->row;
    autodeco_row_finish(row, logits);
    if (row->status == AUTODECO_STATUS_OK && is_drawn_here(node)) {
        autodeco_row_draw(row, logits, true, node->uniform(node->owner, node->index));
    }
    if (row->status == AUTODECO_STATUS_OK && is_drawn_here(node)) {
        autodeco_row_logprob(row, logits[row->step.token]);
    }
    if (row->status == AUTODECO_STATUS_OK && !is_drawn_here(node) && !autodeco_row_keep_raw(row, logits)) {
        row->status = AUTODECO_STATUS_MEMORY;
    }
    *node->step = row->step;
}

// ---- stages -----------------------------------------------------------------------------

static void run_first_layer(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct autodeco_row * rows[AUTODECO_N_ROWS];
    const float *         hidden[AUTODECO_N_ROWS];
    struct autodeco_node * node = computed(userdata);
    while (node) {
        int32_t n = 0;
        for (; node && n < AUTODECO_N_ROWS; node = computed(node->next)) {
            rows[n]     = &node->row;
            hidden[n++] = row_of(dst, 0, node);
        }
        autodeco_rows_first_layer(rows, hidden, n, ith, nth);
    }
}

// The rows that are taken whole, all of them; of the others the scale.
static void run_rows(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    const int32_t n_whole = count_computed(userdata) / nth * nth;
    int32_t i = 0;
    for (struct autodeco_node * node = computed(userdata); node; node = computed(node->next), i++) {
        const float * logits = row_of(dst, 1, node);
        if (i >= n_whole) {
            autodeco_row_scale(&node->row, logits, ith, nth);
        } else if (i % nth == ith) {
            autodeco_row_scale(&node->row, logits, 0, 1);
            autodeco_row_guard(&node->row, logits, 0, 1);
            conclude(node, logits);
        }
    }
}

static void run_guard(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    const int32_t n_whole = count_computed(userdata) / nth * nth;
    int32_t i = 0;
    for (struct autodeco_node * node = computed(userdata); node; node = computed(node->next), i++) {
        if (i >= n_whole) {
            autodeco_row_guard(&node->row, row_of(dst, 1, node), ith, nth);
        }
    }
}

static void run_draw(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    const int32_t n_whole = count_computed(userdata) / nth * nth;
    int32_t i = 0;
    for (struct autodeco_node * node = computed(userdata); node; node = computed(node->next), i++) {
        if (i % nth == ith) {
            if (i >= n_whole) {
                conclude(node, row_of(dst, 1, node));
            }
            ((int32_t *) dst->data)[node->output] = node->row.step.token;
        }
    }
}

static void run_copy(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    const int64_t begin = dst->ne[0] * ith / nth;
    const int64_t end   = dst->ne[0] * (ith + 1) / nth;
    memcpy((float *) dst->data + begin, row_of(dst, 1, userdata) + begin, (size_t) (end - begin) * sizeof(float));
}

// ---- nodes ------------------------------------------------------------------------------

// `before` orders the node behind the stage before it; its value is not read.
static struct ggml_tensor * add_stage(struct ggml_context * ctx, struct ggml_tensor * before, struct ggml_tensor * logits, ggml_custom_op_t fun, struct autodeco_node * first) {
    struct ggml_tensor * args[2] = { before, logits };
    return ggml_custom_4d(ctx, GGML_TYPE_I32, logits->ne[1] > 0 ? logits->ne[1] : 1, 1, 1, 1, args, 2, fun, GGML_N_TASKS_MAX, first);
}

static void name_of(const struct autodeco_heads * heads, char name[GGML_MAX_NAME]) {
    snprintf(name, GGML_MAX_NAME, "autodeco-%p", (const void *) heads);
}

// The tokens of all rows, I32 [n_outputs]. Its `extra` is the first row, for those that join.
static struct ggml_tensor * add_stages(struct ggml_context * ctx, struct ggml_tensor * hidden, struct ggml_tensor * logits, struct autodeco_node * first) {
    struct ggml_tensor * cur = add_stage(ctx, hidden, logits, run_first_layer, first);
    cur = add_stage(ctx, cur, logits, run_rows, first);
    cur = add_stage(ctx, cur, logits, run_guard, first);
    cur = add_stage(ctx, cur, logits, run_draw, first);
    name_of(first->row.heads, cur->name);
    cur->extra = first;
    ggml_set_output(cur); // views of it are
    return cur;
}

static struct ggml_tensor * join(struct ggml_context * ctx, struct ggml_cgraph * gf, struct ggml_tensor * hidden, struct ggml_tensor * logits, int64_t output, struct autodeco_node * node) {
    char name[GGML_MAX_NAME];
    name_of(node->row.heads, name);
    struct ggml_tensor * tokens = ggml_graph_get_tensor(gf, name);
    node->output = output;
    node->next   = NULL;
    if (!tokens) {
        return add_stages(ctx, hidden, logits, node);
    }
    struct autodeco_node * last = tokens->extra;
    while (last->next) {
        last = last->next;
    }
    last->next = node;
    return tokens;
}

struct ggml_tensor * autodeco_graph_sample(struct ggml_context * ctx, struct ggml_cgraph * gf, struct ggml_tensor * hidden, struct ggml_tensor * logits, int64_t output, struct autodeco_node * node) {
    struct ggml_tensor * tokens = join(ctx, gf, hidden, logits, output, node);
    node->result = ggml_view_1d(ctx, tokens, 1, (size_t) output * tokens->nb[0]);
    return node->result;
}

struct ggml_tensor * autodeco_graph_predict(struct ggml_context * ctx, struct ggml_cgraph * gf, struct ggml_tensor * hidden, struct ggml_tensor * logits, int64_t output, struct autodeco_node * node) {
    struct ggml_tensor * args[2] = { join(ctx, gf, hidden, logits, output, node), logits };
    node->result = ggml_custom_4d(ctx, GGML_TYPE_F32, logits->ne[0], 1, 1, 1, args, 2, run_copy, GGML_N_TASKS_MAX, node);
    return node->result;
}
