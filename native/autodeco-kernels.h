// The inner loops of a step, one table of functions an instruction set.

#ifndef AUTODECO_KERNELS_H
#define AUTODECO_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTODECO_N_VECTOR 16 // floats that a kernel works on together, on every CPU
#define AUTODECO_PAD(n) (((n) + AUTODECO_N_VECTOR - 1) / AUTODECO_N_VECTOR * AUTODECO_N_VECTOR) // to whole vectors
#define AUTODECO_N_TILE 512 // logits a kernel takes at once; partial sums are added tile by tile
#define AUTODECO_LOG2E  1.44269504f
#define AUTODECO_LN2    0.693147181f
#define AUTODECO_MIN_Z  -125.0f // z is held above this: the lightest weight, 2^-125, is a normal number

// How the first layer's wide weights are stored.
enum autodeco_type {
    AUTODECO_TYPE_F32,
    AUTODECO_TYPE_F16,
    AUTODECO_TYPE_BF16,
    AUTODECO_TYPE_Q8_0, // blocks of 32: one half d, then 32 int8; value = d x int8
    AUTODECO_TYPE_COUNT,
};

#define AUTODECO_Q8_BLOCK 32
#define AUTODECO_Q8_BYTES 34

// Sums over one tile, with w = 2^z and z = (l - max) c: relative to the tile's own maximum.
struct autodeco_tile {
    float max;     // -INFINITY where no logit counts
    float sum;     // of w
    float sum_sq;  // of w^2
    float sum_zw;  // of z w
    float sum_one; // of exp(l - max), temperature 1, where asked for
};

// What a sweep with a threshold found in one tile.
struct autodeco_split {
    float   mass;      // of w over l >= hi
    int32_t n_above;   // l >= hi
    int32_t n_between; // lo <= l < hi: their ids were written
};

struct autodeco_kernels {
    const char * name;

    // out[u] = weights[u] . x for n_units rows of weights, `stride` bytes apart, padded with zeros to whole vectors; x [n]
    void (*dot[AUTODECO_TYPE_COUNT])(const void * weights, size_t stride, int32_t n_units, int32_t n, const float * x, float * out);

    // out[r][u] = weights[u] . x[r] for n_rows of x, the same bits; the weights come from memory once for all of them
    void (*dots[AUTODECO_TYPE_COUNT])(const void * weights, size_t stride, int32_t n_units, int32_t n, const float * const * x, float * const * out, int32_t n_rows);

    // The four below read one tile.
    void  (*scale)(const float * logits, float c, bool one, struct autodeco_tile * out);

    // sum of r ln(1 + 1/r) with r = 2^((l - max) c + k): what the 1e-8 inside the logarithm adds to the entropy
    float (*guard)(const float * logits, float max, float c, float k);

    // ids from `first` on, with 16 places to spare behind the last; weights relative to `max`. sums: whether
    // any logit reaches hi
    struct autodeco_split (*split)(const float * logits, float max, float c, float lo, float hi, bool sums, int32_t first, int32_t * ids);

    // out[i] = 2^((l[i] - max) c) for n logits, n a multiple of 16
    void  (*weigh)(const float * logits, int32_t n, float max, float c, float * out);
};

// The i-th set of kernels that this CPU can run, fastest first; NULL past the last. The last one is
// "baseline", which every CPU of the architecture runs.
const struct autodeco_kernels * autodeco_kernels_get(int32_t i);

// By name; NULL = the fastest, or what the environment variable AUTODECO_KERNELS names. A name that is
// unknown or that this CPU cannot run gives the baseline.
const struct autodeco_kernels * autodeco_kernels_find(const char * name);

#endif // AUTODECO_KERNELS_H
