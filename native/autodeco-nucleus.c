// The nucleus without a sort: a threshold on the weights, found through a histogram.
//
// Owns the search for the crossing token and the draw over the kept set. Knows neither the
// heads nor where the weights come from.
//
//     keep i  <=>  w_i > w_c, or w_i == w_c and i <= id_c
//
// where (w_c, id_c) is the crossing token of semantics 3.3 in the order (w descending, id
// ascending). The bits of a float in [0, 1] grow with its value, so their upper part is a
// bin number: sum the bins, walk down to the one in which the mass crosses P, and sort only
// that one.

#include "autodeco-impl.h"

#include <stdlib.h>
#include <string.h>

#define BIN_SHIFT 18 // 0x3F800000 (1.0f) >> 18 = 4064 < AUTODECO_N_BINS

struct bin {
    double  mass;
    int32_t count;
};

struct member {
    float   weight;
    int32_t id;
};

static uint32_t bin_of(float w) {
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    return bits >> BIN_SHIFT;
}

static int compare_members(const void * a, const void * b) {
    const struct member * x = a;
    const struct member * y = b;
    if (x->weight != y->weight) {
        return x->weight < y->weight ? 1 : -1;
    }
    return x->id < y->id ? -1 : 1;
}

// The crossing token inside one bin; `before` is the mass of all higher bins.
static bool refine_bin(const float * weights, int32_t n, uint32_t b, int32_t count, double before, double target, struct autodeco_nucleus * out) {
    struct member * members = malloc((size_t) count * sizeof *members);
    if (!members) {
        return false;
    }
    int32_t k = 0;
    for (int32_t i = 0; i < n; i++) {
        if (weights[i] > 0.0f && bin_of(weights[i]) == b) {
            members[k].weight = weights[i];
            members[k].id     = i;
            k++;
        }
    }
    qsort(members, (size_t) k, sizeof *members, compare_members);
    for (int32_t i = 0; i < k && (out->n_kept == 0 || before < target); i++) {
        out->weight = members[i].weight;
        out->id     = members[i].id;
        out->n_kept++;
        before += members[i].weight;
    }
    out->mass = before;
    free(members);
    return true;
}

static void fill_bins(const float * weights, int32_t n, struct bin * bins) {
    memset(bins, 0, AUTODECO_N_BINS * sizeof *bins);
    for (int32_t i = 0; i < n; i++) {
        if (weights[i] > 0.0f) {
            struct bin * b = &bins[bin_of(weights[i])];
            b->mass += weights[i];
            b->count++;
        }
    }
}

// weights[n] in [0, 1] with at least one positive. False when memory ran out.
bool autodeco_nucleus_find(const float * weights, int32_t n, float top_p, struct autodeco_nucleus * out) {
    struct bin bins[AUTODECO_N_BINS];
    fill_bins(weights, n, bins);
    double total = 0.0;
    for (int32_t b = AUTODECO_N_BINS - 1; b >= 0; b--) {
        total += bins[b].mass;
    }
    const double target = (double) top_p * total;

    *out = (struct autodeco_nucleus) { .weight = 0.0f, .id = -1, .n_kept = 0, .mass = 0.0 };
    for (int32_t b = AUTODECO_N_BINS - 1; b >= 0; b--) {
        if (bins[b].count == 0) {
            continue;
        }
        // P = 1 removes only tokens of zero weight, whatever the rounding of the sums
        const bool crosses = top_p < 1.0f && out->mass + bins[b].mass >= target;
        if (crosses) {
            return refine_bin(weights, n, (uint32_t) b, bins[b].count, out->mass, target, out);
        }
        out->mass   += bins[b].mass;
        out->n_kept += bins[b].count;
    }
    out->weight = 0.0f; // everything above zero
    return true;
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
