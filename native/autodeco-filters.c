// A chain inside a chain, to be replaced between two replies: what a user puts between the heads and the draw.
//
// Knows llama.h, and nothing of the filters. An attached chain is part of a context's graph, and another one would be
// another graph; this sampler stays where it is, runs on the CPU, and only what is inside changes.

#include "autodeco.h"

#include "llama.h"

#include <math.h>
#include <stdlib.h>

_Static_assert(sizeof(struct llama_sampler_i) == 12 * sizeof(void *), "llama_sampler_i has changed: port the stanza below");

struct filters {
    struct llama_sampler * inner; // owned; NULL = none
};

static const char * filters_name(const struct llama_sampler * smpl) {
    (void) smpl;
    return "autodeco-filters";
}

static void filters_accept(struct llama_sampler * smpl, llama_token token) {
    const struct filters * f = smpl->ctx;
    if (f && f->inner) {
        llama_sampler_accept(f->inner, token);
    }
}

static void filters_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p) {
    const struct filters * f = smpl->ctx;
    if (f && f->inner) {
        llama_sampler_apply(f->inner, cur_p);
    }
    for (size_t i = 0; !f && i < cur_p->size; i++) { // a clone without memory lets nothing through
        cur_p->data[i].logit = -INFINITY;
    }
}

static void filters_reset(struct llama_sampler * smpl) {
    const struct filters * f = smpl->ctx;
    if (f && f->inner) {
        llama_sampler_reset(f->inner);
    }
}

static struct llama_sampler_i filters_i;

static struct llama_sampler * filters_clone(const struct llama_sampler * smpl) {
    const struct filters * f    = smpl->ctx;
    struct filters *       copy = f ? calloc(1, sizeof *copy) : NULL;
    if (copy && f->inner) {
        copy->inner = llama_sampler_clone(f->inner);
    }
    return llama_sampler_init(&filters_i, copy);
}

static void filters_free(struct llama_sampler * smpl) {
    struct filters * f = smpl->ctx;
    if (f && f->inner) {
        llama_sampler_free(f->inner);
    }
    free(f);
}

static struct llama_sampler_i filters_i = {
    .name              = filters_name,
    .accept            = filters_accept,
    .apply             = filters_apply,
    .reset             = filters_reset,
    .clone             = filters_clone,
    .free              = filters_free,
    .backend_init      = NULL, // never in the graph, whatever is inside
    .backend_accept    = NULL,
    .backend_apply     = NULL,
    .backend_set_input = NULL,
    .backend_reset     = NULL,
    .copy_state        = NULL,
};

struct llama_sampler * autodeco_filters_init(void) {
    struct filters * f = autodeco_check_llama(NULL, 0) == AUTODECO_STATUS_OK ? calloc(1, sizeof *f) : NULL; // GCOV_EXCL_BR_LINE as autodeco_check_llama
    return f ? llama_sampler_init(&filters_i, f) : NULL;
}

enum autodeco_status autodeco_filters_set(struct llama_sampler * smpl, struct llama_sampler * inner) {
    struct filters * f = smpl && smpl->iface == &filters_i ? smpl->ctx : NULL;
    if (!f || inner == smpl) {
        return AUTODECO_STATUS_ARGUMENT;
    }
    if (f->inner && f->inner != inner) {
        llama_sampler_free(f->inner);
    }
    f->inner = inner;
    return AUTODECO_STATUS_OK;
}
