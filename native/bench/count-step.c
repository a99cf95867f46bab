// One step after another on made-up heads and logits, for counting instructions.
//
// Owns nothing but a loop: `valgrind --tool=callgrind` around two runs of different length gives the
// instructions of one step, the same number on every run. The line it prints says whether two machines
// compute the same bits. Linked with the sources of the row, not with
// ggml or llama: valgrind does not know every instruction that those are compiled to.
//
//     autodeco-count-step KERNELS N_VOCAB N_EMBD SIGMA N_STEPS

#include "autodeco-impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_HIDDEN 256

// Sum of twelve uniforms: near enough to a normal number, and the same on every machine.
static float normal(uint64_t seed, uint64_t index) {
    double sum = -6.0;
    for (uint64_t k = 0; k < 12; k++) {
        sum += autodeco_ref_uniform(seed, 12 * index + k);
    }
    return (float) sum;
}

static float * normals(uint64_t seed, size_t n, float sigma) {
    float * x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = sigma * normal(seed, i);
    }
    return x;
}

// F16 weights of about 1/64 with either sign: speed does not depend on their values.
static void make_head(struct autodeco_head * head, int32_t n_embd, int32_t n_extra, uint64_t seed, float bias) {
    struct autodeco_matrix * m = &head->fc1;
    m->type   = AUTODECO_TYPE_F16;
    m->stride = (size_t) AUTODECO_PAD(n_embd) * sizeof(uint16_t);
    m->size   = m->stride * N_HIDDEN;
    m->block  = calloc(1, m->size + 64);
    m->data   = (void *) (((uintptr_t) m->block + 63) / 64 * 64);
    uint16_t * w = m->data;
    for (size_t i = 0; i < m->size / sizeof *w; i++) {
        w[i] = (uint16_t) (0x2400 | (i * 40503u & 0x83ff));
    }
    head->fc1_bias   = normals(seed, N_HIDDEN, 0.1f);
    head->fc1_extra  = n_extra ? normals(seed + 1, (size_t) N_HIDDEN * (size_t) n_extra, 0.1f) : NULL;
    head->fc2_weight = normals(seed + 2, N_HIDDEN, 0.01f);
    head->fc2_bias   = bias;
    head->present    = true;
}

static void run_step(struct autodeco_row * row, const float * hidden, const float * logits, uint64_t index) {
    autodeco_rows_first_layer(&row, &hidden, 1, 0, 1);
    autodeco_row_scale(row, logits, 0, 1);
    autodeco_row_guard(row, logits, 0, 1);
    autodeco_row_finish(row, logits);
    autodeco_row_draw(row, logits, true, autodeco_ref_uniform(1, index));
    autodeco_row_logprob(row, logits[row->step.token]);
}

int main(int argc, char ** argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: autodeco-count-step KERNELS N_VOCAB N_EMBD SIGMA N_STEPS\n");
        return 2;
    }
    const int32_t n_vocab = atoi(argv[2]);
    const int32_t n_embd  = atoi(argv[3]);
    const int32_t n_steps = atoi(argv[5]);
    struct autodeco_heads heads = { .n_embd = n_embd, .n_hidden = N_HIDDEN, .n_extra = 5, .temp_scale = 2.0f };
    make_head(&heads.temp,  n_embd, 0, 11, -0.4f); // T near 0.8
    make_head(&heads.top_p, n_embd, 5, 21,  3.0f); // P near 0.95
    float * hidden = normals(31, (size_t) n_embd, 1.0f);
    float * logits = normals(41, (size_t) n_vocab, (float) atof(argv[4]));

    struct autodeco_row row;
    if (!autodeco_row_init(&row, &heads, n_vocab)) {
        return 1;
    }
    row.params  = (struct autodeco_sampler_params) { .temp = 1.0f, .top_p = 1.0f };
    row.kernels = autodeco_kernels_find(argv[1]);
    if (strcmp(row.kernels->name, argv[1]) != 0) {
        fprintf(stderr, "this CPU has no %s kernels\n", argv[1]);
        return 3;
    }
    for (int32_t i = 0; i < n_steps; i++) {
        run_step(&row, hidden, logits, (uint64_t) i);
    }
    const struct autodeco_step * step = &row.step; // %a: to the bit
    printf("T %.3f %a P %.3f %a entropy %a kept %d token %d\n", (double) step->temp, (double) step->temp,
            (double) step->top_p, (double) step->top_p, (double) step->entropy, step->n_kept, step->token);
    return row.status == AUTODECO_STATUS_OK ? 0 : 1;
}
