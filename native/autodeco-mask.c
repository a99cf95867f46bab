// A mask over the vocabulary as a llama_sampler: what a grammar, a schema or a regular expression allows next.
//
// Knows llama.h and a bitmask, and nothing of grammars: the caller writes the words before each draw, one
// bit a token, and keeps them alive as long as the sampler looks at them.

#include "autodeco.h"

#include "llama.h"

#include <math.h>
#include <stdlib.h>

_Static_assert(sizeof(struct llama_sampler_i) == 12 * sizeof(void *), "llama_sampler_i has changed: port the stanza below");

struct mask {
    const uint32_t * words; // [n_words], borrowed; NULL = everything is allowed
    int32_t          n_words;
};

static const char * mask_name(const struct llama_sampler * smpl) {
    (void) smpl;
    return "autodeco-mask";
}

// Candidates come in any order, and as many as are left. The branch is well predicted: of a grammar's mask nearly
// all or nearly none is allowed. Whole words at a time were three times as slow.
static void mask_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p) {
    const struct mask * m = smpl->ctx;
    if (m && !m->words) {
        return;
    }
    const uint32_t n_ids = m ? (uint32_t) m->n_words * 32 : 0;
    for (size_t i = 0; i < cur_p->size; i++) {
        const uint32_t id   = (uint32_t) cur_p->data[i].id; // a negative one is large, and masked
        const uint32_t word = id < n_ids ? m->words[id / 32] : 0;
        if (!((word >> (id % 32)) & 1)) {
            cur_p->data[i].logit = -INFINITY;
        }
    }
}

static struct llama_sampler_i mask_i;

// NULL would crash llama.cpp's chain. Without memory the clone has no state, and allows nothing.
static struct llama_sampler * mask_clone(const struct llama_sampler * smpl) {
    struct mask * copy = smpl->ctx ? malloc(sizeof *copy) : NULL;
    if (copy) {
        *copy = *(const struct mask *) smpl->ctx;
    }
    return llama_sampler_init(&mask_i, copy);
}

static void mask_free(struct llama_sampler * smpl) {
    free(smpl->ctx);
}

static struct llama_sampler_i mask_i = {
    .name              = mask_name,
    .accept            = NULL, // the words are the caller's
    .apply             = mask_apply,
    .reset             = NULL,
    .clone             = mask_clone,
    .free              = mask_free,
    .backend_init      = NULL, // never in the graph
    .backend_accept    = NULL,
    .backend_apply     = NULL,
    .backend_set_input = NULL,
    .backend_reset     = NULL,
    .copy_state        = NULL,
};

struct llama_sampler * autodeco_mask_init(void) {
    struct mask * m = autodeco_check_llama(NULL, 0) == AUTODECO_STATUS_OK ? calloc(1, sizeof *m) : NULL; // GCOV_EXCL_BR_LINE as autodeco_check_llama
    return m ? llama_sampler_init(&mask_i, m) : NULL;
}

void autodeco_mask_set(struct llama_sampler * smpl, const uint32_t * words, int32_t n_words) {
    struct mask * m = smpl && smpl->iface == &mask_i ? smpl->ctx : NULL;
    if (m) {
        m->words   = words;
        m->n_words = n_words > 0 ? n_words : 0;
    }
}
