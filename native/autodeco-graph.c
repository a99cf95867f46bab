// The graph nodes: the stages of a row as ggml custom operations on llama.cpp's own threads.
//
// Owns the wiring of stages to nodes. Knows ggml; knows neither llama.h nor what a sampler is.
// Each node boundary is a barrier between threads, so there is one node a stage. GGML_OP_CUSTOM
// runs on the CPU backend only: behind a GPU the scheduler copies the two rows to the host, the
// same traffic as stock CPU sampling.

#include "autodeco-graph.h"

#include "ggml.h"

#include <string.h>

static const float * row_data(const struct ggml_tensor * dst, int arg) {
    return dst->src[arg]->data;
}

static void run_first_layer(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct autodeco_node * node = userdata;
    autodeco_row_first_layer(&node->row, row_data(dst, 0), ith, nth);
}

static void run_scale(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct autodeco_node * node = userdata;
    autodeco_row_scale(&node->row, row_data(dst, 1), ith, nth);
}

static void run_guard(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct autodeco_node * node = userdata;
    autodeco_row_guard(&node->row, row_data(dst, 1), ith, nth);
}

static void run_draw(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    (void) nth;
    if (ith != 0) {
        return;
    }
    struct autodeco_node * node   = userdata;
    struct autodeco_row *  row    = &node->row;
    const float *          logits = row_data(dst, 1);
    autodeco_row_finish(row, logits);
    if (row->status == AUTODECO_STATUS_OK) {
        autodeco_row_draw(row, logits, true, node->uniform(node->owner, node->index));
    }
    if (row->status == AUTODECO_STATUS_OK) {
        autodeco_row_logprob(row, logits[row->step.token]);
    }
    memcpy(dst->data, &row->step.token, sizeof row->step.token);
    node->done(node->owner, node->index);
}

static void run_predict(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    (void) nth;
    if (ith != 0) {
        return;
    }
    struct autodeco_node * node   = userdata;
    struct autodeco_row *  row    = &node->row;
    const float *          logits = row_data(dst, 1);
    autodeco_row_finish(row, logits);
    memcpy(dst->data, logits, (size_t) row->n_vocab * sizeof(float));
    if (row->status == AUTODECO_STATUS_OK && !autodeco_row_keep_raw(row, logits)) {
        row->status = AUTODECO_STATUS_MEMORY;
    }
    node->done(node->owner, node->index);
}

// `before` orders the node behind the stage before it; its value is not read.
static struct ggml_tensor * add_stage(struct ggml_context * ctx, struct ggml_tensor * before, struct ggml_tensor * logits, ggml_custom_op_t fun, struct autodeco_node * node) {
    struct ggml_tensor * args[2] = { before, logits };
    return ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, args, 2, fun, GGML_N_TASKS_MAX, node);
}

static struct ggml_tensor * add_statistics(struct ggml_context * ctx, struct ggml_tensor * hidden, struct ggml_tensor * logits, struct autodeco_node * node) {
    struct ggml_tensor * cur = add_stage(ctx, hidden, logits, run_first_layer, node);
    cur = add_stage(ctx, cur, logits, run_scale, node);
    return add_stage(ctx, cur, logits, run_guard, node);
}

struct ggml_tensor * autodeco_graph_sample(struct ggml_context * ctx, struct ggml_tensor * hidden, struct ggml_tensor * logits, struct autodeco_node * node) {
    struct ggml_tensor * args[2] = { add_statistics(ctx, hidden, logits, node), logits };
    return ggml_custom_4d(ctx, GGML_TYPE_I32, 1, 1, 1, 1, args, 2, run_draw, 1, node);
}

struct ggml_tensor * autodeco_graph_predict(struct ggml_context * ctx, struct ggml_tensor * hidden, struct ggml_tensor * logits, struct autodeco_node * node) {
    struct ggml_tensor * args[2] = { add_statistics(ctx, hidden, logits, node), logits };
    return ggml_custom_4d(ctx, GGML_TYPE_F32, logits->ne[0], 1, 1, 1, args, 2, run_predict, 1, node);
}
