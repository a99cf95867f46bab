// The first layer of many rows against that of each row alone, to the bit, without ggml and llama.
//
//     first_layer KERNELS
//
// Compiled by tests/native/test_rows.py for every set of kernels. Prints the number of comparisons; the first
// difference ends it with status 1. KERNELS that this CPU lacks: status 3.

#include "autodeco-impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 19

static uint64_t counter;

static float uniform(float scale) {
    return scale * (float) (2.0 * autodeco_ref_uniform(5, counter++) - 1.0);
}

// Halves and brains near 1/64 to 1, and any int8 with a small scale: finite all.
static void fill(struct autodeco_matrix * m, enum autodeco_type type, int32_t n_units, int32_t n) {
    const size_t widths[] = { 4, 2, 2, 0 };
    const size_t n_padded = AUTODECO_PAD((size_t) n);
    m->type   = type;
    m->stride = type == AUTODECO_TYPE_Q8_0 ? n_padded / AUTODECO_Q8_BLOCK * AUTODECO_Q8_BYTES : n_padded * widths[type];
    m->size   = m->stride * (size_t) n_units;
    m->block  = calloc(1, m->size + 64);
    m->data   = (void *) (((uintptr_t) m->block + 63) / 64 * 64);
    for (int32_t u = 0; u < n_units; u++) {
        unsigned char * row = (unsigned char *) m->data + (size_t) u * m->stride;
        for (int32_t i = 0; i < n; i++) {
            const uint32_t bits = (uint32_t) (autodeco_ref_uniform(6, counter++) * 65536.0);
            const float    x    = uniform(0.1f);
            const uint16_t h    = (uint16_t) (type == AUTODECO_TYPE_F16 ? 0x2400 | (bits & 0x93ff) : 0x3c80 | (bits & 0x80ff));
            if (type == AUTODECO_TYPE_F32) {
                memcpy(row + 4 * (size_t) i, &x, 4);
            } else if (type != AUTODECO_TYPE_Q8_0) {
                memcpy(row + 2 * (size_t) i, &h, 2);
            } else {
                unsigned char * block = row + (size_t) (i / AUTODECO_Q8_BLOCK) * AUTODECO_Q8_BYTES;
                const uint16_t d = (uint16_t) (0x1c00 | (bits & 0x3ff));
                memcpy(block, &d, 2);
                block[2 + i % AUTODECO_Q8_BLOCK] = (unsigned char) (bits >> 8);
            }
        }
    }
}

static float * numbers(int32_t n, float scale) {
    float * x = malloc((size_t) n * sizeof *x);
    for (int32_t i = 0; i < n; i++) {
        x[i] = uniform(scale);
    }
    return x;
}

static void fill_head(struct autodeco_head * head, enum autodeco_type type, int32_t n_units, int32_t n) {
    fill(&head->fc1, type, n_units, n);
    head->fc1_bias = numbers(n_units, 1.0f);
    head->present  = true;
}

static void free_head(struct autodeco_head * head) {
    free(head->fc1.block);
    free(head->fc1_bias);
}

// A row of many modes: both heads, one, none; every seventh hidden state overflows a float.
static bool make_row(struct autodeco_row * row, const struct autodeco_heads * heads, const struct autodeco_kernels * kernels, int32_t r) {
    if (!autodeco_row_init(row, heads, 16)) {
        return false;
    }
    row->kernels           = kernels;
    row->params.heads_mode = (enum autodeco_heads_mode) (r % 5 == 4 ? AUTODECO_HEADS_NONE : r % 3 == 2 ? AUTODECO_HEADS_TEMP : AUTODECO_HEADS_BOTH);
    return true;
}

static bool equal_rows(const struct autodeco_row * a, const struct autodeco_row * b) {
    const size_t n = 2 * (size_t) a->heads->n_hidden;
    return memcmp(a->act, b->act, n * sizeof *a->act) == 0 && memcmp(a->huge, b->huge, n * sizeof *a->huge) == 0;
}

static bool check(const struct autodeco_heads * heads, const struct autodeco_kernels * kernels, int32_t n_rows, int32_t n_threads) {
    struct autodeco_row   together[MAX_ROWS];
    struct autodeco_row   alone[MAX_ROWS];
    struct autodeco_row * rows[MAX_ROWS];
    const float *         hidden[MAX_ROWS];
    bool same = true;
    for (int32_t r = 0; r < n_rows; r++) {
        hidden[r] = numbers(heads->n_embd, r % 7 == 6 ? 3e38f : 4.0f);
        rows[r]   = &together[r];
        if (!make_row(&together[r], heads, kernels, r) || !make_row(&alone[r], heads, kernels, r)) {
            exit(2);
        }
    }
    for (int32_t i = 0; i < n_threads; i++) {
        for (int32_t r = 0; r < n_rows; r += AUTODECO_N_ROWS) {
            autodeco_rows_first_layer(rows + r, hidden + r, n_rows - r < AUTODECO_N_ROWS ? n_rows - r : AUTODECO_N_ROWS, i, n_threads);
        }
    }
    for (int32_t r = 0; r < n_rows; r++) {
        struct autodeco_row * one = &alone[r];
        autodeco_rows_first_layer(&one, &hidden[r], 1, 0, 1);
        same = same && equal_rows(&together[r], &alone[r]);
        autodeco_row_free(&together[r]);
        autodeco_row_free(&alone[r]);
        free((void *) hidden[r]);
    }
    return same;
}

int main(int argc, char ** argv) {
    const struct autodeco_kernels * kernels = autodeco_kernels_find(argc == 2 ? argv[1] : "");
    if (argc != 2 || strcmp(kernels->name, argv[1]) != 0) {
        fprintf(stderr, "this CPU has no %s kernels\n", argc == 2 ? argv[1] : "unnamed");
        return 3;
    }
    const int32_t widths[] = { 1, 15, 16, 17, 31, 33, 64, 160, 352, 1000 };
    const int32_t units[]  = { 1, 2, 3, 5, 8, 13 };
    int32_t n = 0;
    for (int32_t t = 0; t < AUTODECO_TYPE_COUNT; t++) {
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
                if (t == AUTODECO_TYPE_Q8_0 && widths[w] % AUTODECO_Q8_BLOCK != 0) {
                    continue;
                }
                struct autodeco_heads heads = { .n_embd = widths[w], .n_hidden = units[u], .n_extra = 0, .temp_scale = 2.0f };
                fill_head(&heads.temp,  (enum autodeco_type) t, units[u], widths[w]);
                fill_head(&heads.top_p, (enum autodeco_type) t, units[u], widths[w]);
                for (int32_t r = 1; r <= MAX_ROWS; r++, n++) {
                    if (!check(&heads, kernels, r, 1 + r % 3)) {
                        printf("type %d, width %d, %d units, %d rows differ\n", t, widths[w], units[u], r);
                        return 1;
                    }
                }
                free_head(&heads.temp);
                free_head(&heads.top_p);
            }
        }
    }
    printf("%d\n", n);
    return 0;
}
