// The nucleus without a sort: a threshold on the weights, found by radix selection.
//
// Owns the search for the crossing token and the draw over the kept set. Knows neither the
// heads nor where the weights come from.
//
//     keep i  <=>  w_i > w_c, or w_i == w_c and i <= id_c
//
// where (w_c, id_c) is the crossing token of semantics 3.3 in the order (w descending, id
// ascending). The bits of a non-negative float grow with its value, so they can be searched
// like digits: sum the weights by their upper bits, walk down to the bin in which the mass
// crosses P, then sum that bin by its next bits, until all 32 are fixed. Three sweeps over
// the vocabulary whatever its shape, and nothing allocated.

#include "autodeco-impl.h"

#include <string.h>

#define N_BINS 4096 // 12 bits a level

struct bin {
    double  mass;
    int32_t count;
};

// Which bits a level looks at, from the top: 12 (1.0f is 0x3F8 there), 12 and 8.
static const int LEVEL_SHIFT[3] = { 20, 8, 0 };
static const int LEVEL_BITS [3] = { 12, 12, 8 };

static uint32_t bits_of(float w) {
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    return bits;
}

// Sums the positive weights whose bits above this level equal `prefix`.
static void fill_bins(const float * weights, int32_t n, int level, uint32_t prefix, struct bin * bins) {
    const int      shift = LEVEL_SHIFT[level];
    const uint32_t mask  = (1u << LEVEL_BITS[level]) - 1;
    memset(bins, 0, (mask + 1) * sizeof *bins);
    for (int32_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of(weights[i]);
        if (weights[i] > 0.0f && (level == 0 || bits >> (shift + LEVEL_BITS[level]) == prefix)) {
            struct bin * b = &bins[(bits >> shift) & mask];
            b->mass += weights[i];
            b->count++;
        }
    }
}

static double total_mass(const struct bin * bins) {
    double total = 0.0;
    for (int32_t b = N_BINS - 1; b >= 0; b--) {
        total += bins[b].mass;
    }
    return total;
}

// Takes whole bins from the top into *out while they do not cross the target; returns the one that
// does. Rounding may hide the crossing at a lower level: then the last bin that holds anything is it.
static uint32_t descend(const struct bin * bins, int level, double target, struct autodeco_nucleus * out) {
    int32_t last = -1;
    for (int32_t b = (1 << LEVEL_BITS[level]) - 1; b >= 0; b--) {
        if (bins[b].count == 0) {
            continue;
        }
        if (last >= 0) {
            out->mass   += bins[last].mass;
            out->n_kept += bins[last].count;
        }
        last = b;
        if (out->mass + bins[b].mass >= target) {
            break;
        }
    }
    return (uint32_t) last;
}

// Among the tokens of exactly the crossing weight, the lower ids are kept.
static void take_equals(const float * weights, int32_t n, double target, struct autodeco_nucleus * out) {
    for (int32_t i = 0; i < n && (out->n_kept == 0 || out->mass < target); i++) {
        if (weights[i] == out->weight) {
            out->mass += weights[i];
            out->n_kept++;
            out->id = i;
        }
    }
}

// weights[n] in [0, 1] with at least one positive, top_p in [0, 1].
void autodeco_nucleus_find(const float * weights, int32_t n, float top_p, struct autodeco_nucleus * out) {
    struct bin bins[N_BINS];
    fill_bins(weights, n, 0, 0, bins);
    const double total  = total_mass(bins);
    const double target = (double) top_p * total;
    *out = (struct autodeco_nucleus) { .weight = 0.0f, .id = -1, .n_kept = 0, .mass = 0.0 };
    if (top_p >= 1.0f) { // removes only tokens of zero weight, whatever the rounding of the sums
        out->mass = total;
        for (int32_t b = 0; b < N_BINS; b++) {
            out->n_kept += bins[b].count;
        }
        return;
    }
    uint32_t prefix = descend(bins, 0, target, out);
    for (int level = 1; level < 3; level++) {
        fill_bins(weights, n, level, prefix, bins);
        prefix = prefix << LEVEL_BITS[level] | descend(bins, level, target, out);
    }
    memcpy(&out->weight, &prefix, sizeof out->weight);
    take_equals(weights, n, target, out);
}

// First kept id, ascending, whose running mass exceeds u x kept mass.
int32_t autodeco_nucleus_draw(const float * weights, int32_t n, const struct autodeco_nucleus * nucleus, double u) {
    const double target = u * nucleus->mass;
    double  run   = 0.0;
    int32_t token = -1;
    for (int32_t i = 0; i < n; i++) {
        const float w = weights[i];
        if (w > nucleus->weight || (w == nucleus->weight && i <= nucleus->id)) {
            token = i; // the last kept id stands where rounding leaves run below the target
            run  += w;
            if (run > target) {
                break;
            }
        }
    }
    return token;
}
