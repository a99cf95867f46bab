// The graph nodes of one output row.

#ifndef AUTODECO_GRAPH_H
#define AUTODECO_GRAPH_H

#include "autodeco-impl.h"

struct ggml_context;
struct ggml_tensor;

// A row in a graph. `done` runs on one thread once T and P stand (and the token, if it is drawn here).
struct autodeco_node {
    struct autodeco_row row;
    int32_t             index;                      // of the output among those of its sequence
    void *              owner;
    double            (*uniform)(void * owner, int32_t index);
    void              (*done)   (void * owner, int32_t index);
};

// hidden [n_embd] F32 (or any placeholder where there are no heads) and logits [n_vocab] F32, one row
// each. Returns the drawn token, I32 [1].
struct ggml_tensor * autodeco_graph_sample(struct ggml_context * ctx, struct ggml_tensor * hidden, struct ggml_tensor * logits, struct autodeco_node * node);

// The same without the draw. Returns the logits unchanged, F32 [n_vocab]: whoever reads them gets T and P first.
struct ggml_tensor * autodeco_graph_predict(struct ggml_context * ctx, struct ggml_tensor * hidden, struct ggml_tensor * logits, struct autodeco_node * node);

#endif // AUTODECO_GRAPH_H
