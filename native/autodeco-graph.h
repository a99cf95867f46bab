// The graph nodes of the output rows.

#ifndef AUTODECO_GRAPH_H
#define AUTODECO_GRAPH_H

#include "autodeco-impl.h"

struct ggml_cgraph;
struct ggml_context;
struct ggml_tensor;

// A row in a graph. The last three stand from the build on, until the next one.
struct autodeco_node {
    struct autodeco_row    row;
    struct autodeco_step * step;                       // written once T and P stand (and the token, if it is drawn here)
    int32_t                index;                      // of the output among those of its sequence
    void *                 owner;
    double               (*uniform)(void * owner, int32_t index);
    int64_t                output;                     // which row of the matrices
    struct ggml_tensor *   result;                     // what llama.cpp takes: it computes only those of sequences with an output
    struct autodeco_node * next;                       // in the same graph
};

// hidden [n_embd, n_outputs] F32 (or any placeholder where there are no heads) and logits [n_vocab, n_outputs] F32. Adds row
// `output` of them to the rows of the graph that have the same heads. Returns the drawn token, I32 [1].
struct ggml_tensor * autodeco_graph_sample(
        struct ggml_context * ctx, struct ggml_cgraph * gf, struct ggml_tensor * hidden, struct ggml_tensor * logits, int64_t output, struct autodeco_node * node);

// The same without the draw. Returns the logits unchanged, F32 [n_vocab]: whoever reads them gets T and P first.
struct ggml_tensor * autodeco_graph_predict(
        struct ggml_context * ctx, struct ggml_cgraph * gf, struct ggml_tensor * hidden, struct ggml_tensor * logits, int64_t output, struct autodeco_node * node);

#endif // AUTODECO_GRAPH_H
