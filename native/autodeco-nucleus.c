// The nucleus without a sort: a threshold on the logits.
//
// Owns the search for the crossing token and the draw over the kept set. Knows neither the heads nor
// where the logits come from.
//
//     keep i  <=>  l_i > l_c, or l_i == l_c and i <= id_c
//
// where (l_c, id_c) is the crossing token of equations 5 in the order (l descending, id ascending).
//
// 1. A floor: tokens lighter than (1 - P) Z / n together weigh less than what may be cut, so the
//    crossing token is not among them. Whole tiles below the floor are never read.
// 2. The heaviest tokens, those above the typical maximum of a tile, are listed first: for a peaked
//    distribution the crossing is among them, and half of the tiles were not read. Otherwise the
//    crossing lies below. One vector in every tile is looked at there, and brackets it between two
//    logits. A bad guess costs time, not correctness: the search then starts again from the floor.
// 3. One sweep sums what lies above the bracket, tile by tile, and lists the ids inside.
// 4. The list is narrowed by counting it into bins, until it is short enough to be sorted.
//
// The mass kept in each tile serves the draw, which reads one tile more.

#include "autodeco-impl.h"

#include <string.h>

#define N_BINS   1024
#define N_SORT   64      // ids that insertion sorts faster than bins do
#define N_MANY   4096    // estimated candidates from which a bracket pays
#define N_SAMPLE 16      // logits looked at in each tile

struct search {
    struct autodeco_row * row;
    const float *         logits;
    float   c;
    double  target;  // mass that the nucleus must reach: P* Z
    float   lo;      // candidates: lo <= l < hi
    float   hi;
    bool    guessed; // the crossing may lie outside
    double  above;   // mass taken so far
    int32_t n_above;
    int32_t n_ids;   // candidates left in row->ids, ascending
};

struct bin {
    double  mass;
    int32_t count;
};

// ---- floor and bracket ------------------------------------------------------------------

// Logit of weight w in (0, 1], or of the lightest that counts.
static float logit_of(const struct autodeco_row * row, float c, double w) {
    const double z = w > 0.0 ? fmin(fmax(log2(w), AUTODECO_MIN_Z), 0.0) : AUTODECO_MIN_Z;
    return (float) (row->max + z / c);
}

// Bins of n logits >= lo. A loop of its own, for the compiler to vectorise.
static void find_bins(const float * l, int32_t n, double lo, double scale, int32_t * bins) {
    for (int32_t i = 0; i < n; i++) {
        const int32_t b = (int32_t) ((l[i] - lo) * scale);
        bins[i] = b < N_BINS ? b : N_BINS - 1;
    }
}

// Mean of the tiles' maxima, those below the floor counted as the floor.
static float typical_max(const struct autodeco_row * row, float floor) {
    double sum = 0.0;
    for (int32_t t = 0; t < row->n_tiles; t++) {
        sum += row->maxima[t] > floor ? row->maxima[t] : floor;
    }
    return (float) (sum / row->n_tiles);
}

// Weights seen in one vector of every whole tile, in bins over [lo, hi): what is lighter lies in the first,
// what is heavier in none.
struct sample {
    struct { double mass, mass_sq; } bins[N_BINS];
    int32_t n_seen;
    int32_t n_between; // lo <= l < hi
};

static void draw_sample(const struct search * s, float lo, float hi, struct sample * out) {
    const struct autodeco_row * row = s->row;
    const double scale = N_BINS / ((double) hi - lo);
    memset(out, 0, sizeof *out);
    for (int32_t t = 0; t < row->n_tiles; t++) {
        if (!(row->maxima[t] < FLT_MAX) || (t + 1) * AUTODECO_N_TILE > row->n_vocab) {
            continue;
        }
        const float * l = s->logits + t * AUTODECO_N_TILE + t * N_SAMPLE % AUTODECO_N_TILE;
        float   clipped[N_SAMPLE];
        float   w[N_SAMPLE];
        int32_t b[N_SAMPLE];
        for (int k = 0; k < N_SAMPLE; k++) {
            clipped[k] = l[k] > lo ? (l[k] < hi ? l[k] : hi) : lo;
        }
        row->kernels->weigh(l, N_SAMPLE, row->max, s->c, w);
        find_bins(clipped, N_SAMPLE, lo, scale, b);
        for (int k = 0; k < N_SAMPLE; k++) {
            const double x = l[k] < hi ? w[k] : 0.0f;
            out->bins[b[k]].mass    += x;
            out->bins[b[k]].mass_sq += x * x;
            out->n_between          += l[k] < hi && l[k] >= lo;
        }
        out->n_seen += N_SAMPLE;
    }
}

// The crossing lies in [floor, top). Narrows that to where the sample has it, give or take three standard
// errors. Counted from below, since the light tokens are many and alike: their sum is known best.
static void guess_bracket(struct search * s, float floor, float top, double total) {
    struct sample sample;
    s->lo = floor;
    s->hi = top;
    draw_sample(s, floor, top, &sample);
    const double one_in = (double) s->row->n_vocab / (sample.n_seen > 0 ? sample.n_seen : 1);
    if (sample.n_between * one_in < N_MANY) {
        return;
    }
    const double below = total - s->target; // mass under the crossing
    const double width = ((double) top - floor) / N_BINS;
    double run    = 0.0;
    double run_sq = 0.0;
    for (int b = 0; b < N_BINS; b++) {
        run    += one_in * sample.bins[b].mass;
        run_sq += one_in * one_in * sample.bins[b].mass_sq;
        const float edge = (float) (floor + (b + 1) * width);
        if (run + 3.0 * sqrt(run_sq) < below) {
            s->lo = fminf(edge, top);
        }
        if (run - 3.0 * sqrt(run_sq) > below) {
            s->hi = fminf(edge, top);
            return;
        }
    }
}

// ---- sweep ------------------------------------------------------------------------------

// Sums the mass of l >= hi into row->kept and lists the ids of [lo, hi).
static void sweep(struct search * s) {
    struct autodeco_row * row = s->row;
    float buf[AUTODECO_N_TILE];
    s->above = 0.0;
    s->n_above = s->n_ids = 0;
    for (int32_t t = 0; t < row->n_tiles; t++) {
        row->kept[t] = 0.0;
        if (row->maxima[t] < s->lo) {
            continue;
        }
        const float * l = autodeco_row_tile(row, s->logits, t, buf);
        const struct autodeco_split found = row->kernels->split(l, row->max, s->c, s->lo, s->hi, row->maxima[t] >= s->hi, t * AUTODECO_N_TILE, row->ids + s->n_ids);
        row->kept[t] = found.mass;
        s->above    += found.mass;
        s->n_above  += found.n_above;
        s->n_ids    += found.n_between;
    }
}

// ---- narrowing --------------------------------------------------------------------------

// Candidates from `from` on, at most a tile of them: their logits and weights. Returns how many.
static int32_t gather(const struct search * s, int32_t from, float * l, float * w) {
    const int32_t n = s->n_ids - from < AUTODECO_N_TILE ? s->n_ids - from : AUTODECO_N_TILE;
    for (int32_t i = 0; i < n; i++) {
        const float x = s->logits[s->row->ids[from + i]];
        l[i] = x > FLT_MAX ? FLT_MAX : x;
    }
    const int32_t padded = AUTODECO_PAD(n);
    for (int32_t i = n; i < padded; i++) {
        l[i] = -INFINITY;
    }
    s->row->kernels->weigh(l, padded, s->row->max, s->c, w);
    return n;
}

static void find_range(const struct search * s, float * lo, float * hi) {
    float smallest = FLT_MAX;
    float largest  = -FLT_MAX;
    for (int32_t i = 0; i < s->n_ids; i++) {
        const float x = s->logits[s->row->ids[i]];
        smallest = x < smallest ? x : smallest;
        largest  = x > largest  ? x : largest;
    }
    *lo = smallest;
    *hi = largest > FLT_MAX ? FLT_MAX : largest;
}

static void fill_bins(const struct search * s, double lo, double scale, struct bin * bins) {
    float   l[AUTODECO_N_TILE];
    float   w[AUTODECO_N_TILE];
    int32_t b[AUTODECO_N_TILE];
    memset(bins, 0, N_BINS * sizeof *bins);
    for (int32_t from = 0; from < s->n_ids; from += AUTODECO_N_TILE) {
        const int32_t n = gather(s, from, l, w);
        find_bins(l, n, lo, scale, b);
        for (int32_t i = 0; i < n; i++) {
            bins[b[i]].mass += w[i];
            bins[b[i]].count++;
        }
    }
}

// The bin in which the mass crosses the target; -1 where all of them do not reach it.
static int crossing_bin(const struct search * s, const struct bin * bins) {
    double run = s->above;
    for (int b = N_BINS - 1; b >= 0; b--) {
        run += bins[b].mass;
        if (bins[b].count > 0 && run >= s->target) {
            return b;
        }
    }
    return -1;
}

// Takes what lies above the bin, keeps the bin's own ids in the list, forgets the rest. The ids ascend, so a
// tile's mass is summed in a register; no branch on the bins: half of them would be predicted wrongly.
static void keep_bin(struct search * s, int crossing, double lo, double scale) {
    float   l[AUTODECO_N_TILE];
    float   w[AUTODECO_N_TILE];
    int32_t b[AUTODECO_N_TILE];
    int32_t * ids   = s->row->ids;
    int32_t n_left  = 0;
    int32_t n_taken = 0;
    int32_t tile    = 0;
    double  mass    = 0.0; // taken in this tile
    for (int32_t from = 0; from < s->n_ids; from += AUTODECO_N_TILE) {
        const int32_t n = gather(s, from, l, w);
        find_bins(l, n, lo, scale, b);
        for (int32_t i = 0; i < n; i++) {
            const int32_t id = ids[from + i];
            if (id / AUTODECO_N_TILE != tile) {
                s->row->kept[tile] += mass;
                s->above           += mass;
                tile = id / AUTODECO_N_TILE;
                mass = 0.0;
            }
            mass       += b[i] > crossing ? w[i] : 0.0f;
            n_taken    += b[i] > crossing;
            ids[n_left] = id;
            n_left     += b[i] == crossing;
        }
    }
    s->row->kept[tile] += mass;
    s->above           += mass;
    s->n_above         += n_taken;
    s->n_ids            = n_left;
}

// One level over [lo, hi]. *reached is false where the list does not cover the target.
static void narrow(struct search * s, float lo, float hi, bool * reached) {
    struct bin bins[N_BINS];
    const double scale = N_BINS / ((double) hi - lo);
    fill_bins(s, lo, scale, bins);
    int crossing = crossing_bin(s, bins);
    *reached = crossing >= 0;
    if (crossing < 0) {
        crossing = 0; // rounding: the lowest is the last to be kept
    }
    keep_bin(s, crossing, lo, scale);
}

// Levels until the list is short, or all its logits are equal. From the second on, the smallest goes to bin 0
// and the largest to the last, so each drops some.
static bool narrow_all(struct search * s) {
    bool  reached = true;
    float lo = s->lo;
    float hi = fminf(s->hi, s->row->max);
    for (int level = 0; s->n_ids > N_SORT; level++) {
        if (level > 0) { // before the first, the bracket does
            find_range(s, &lo, &hi);
        }
        if (!(hi > lo)) {
            break;
        }
        narrow(s, lo, hi, &reached);
        if (!reached && s->guessed) {
            return false;
        }
    }
    return true;
}

static void sort_ids(const struct search * s) {
    int32_t * ids = s->row->ids;
    for (int32_t i = 1; i < s->n_ids; i++) {
        const int32_t id = ids[i];
        int32_t j = i;
        for (; j > 0 && s->logits[ids[j - 1]] < s->logits[id]; j--) { // stable: equals stay in ascending id
            ids[j] = ids[j - 1];
        }
        ids[j] = id;
    }
}

// Takes candidates in order until the target is reached. False where it is not.
static bool take_in_order(struct search * s, struct autodeco_nucleus * out) {
    float l[AUTODECO_N_TILE];
    float w[AUTODECO_N_TILE];
    for (int32_t from = 0; from < s->n_ids; from += AUTODECO_N_TILE) {
        const int32_t n = gather(s, from, l, w);
        for (int32_t i = 0; i < n; i++) {
            if (s->n_above > 0 && s->above >= s->target) {
                return true;
            }
            out->logit = l[i];
            out->id    = s->row->ids[from + i];
            s->row->kept[out->id / AUTODECO_N_TILE] += w[i];
            s->above += w[i];
            s->n_above++;
        }
    }
    return s->above >= s->target;
}

// False where the crossing is not inside [lo, hi).
static bool search_list(struct search * s, struct autodeco_nucleus * out) {
    sweep(s);
    if (s->n_ids == 0 || (s->n_above > 0 && s->above >= s->target) || !narrow_all(s)) {
        return false;
    }
    sort_ids(s);
    const bool reached = take_in_order(s, out);
    out->n_kept = s->n_above;
    return reached;
}

static void keep_largest(struct autodeco_row * row, const float * logits, struct autodeco_nucleus * out) {
    const int32_t id = autodeco_row_argmax(row, logits);
    memset(row->kept, 0, (size_t) row->n_tiles * sizeof *row->kept);
    row->kept[id / AUTODECO_N_TILE] = 1.0;
    *out = (struct autodeco_nucleus) { .logit = row->max, .id = id, .n_kept = 1 };
}

// ---- public -----------------------------------------------------------------------------

void autodeco_nucleus_find(struct autodeco_row * row, const float * logits, float c, struct autodeco_nucleus * out) {
    const float  top_p  = row->step.top_p_eff;
    const float  lowest = logit_of(row, c, row->params.min_p);
    const double slack  = 1.001; // the sums are rounded; a lower floor is never wrong
    struct search s = { .row = row, .logits = logits, .c = c, .lo = lowest, .hi = lowest };
    double total = row->sum;
    if (top_p >= 1.0f || row->params.min_p > 0.0f) { // all of it, or a total without what min-p drops
        sweep(&s);
        total = s.above;
    }
    if (top_p >= 1.0f) {
        *out = (struct autodeco_nucleus) { .logit = lowest, .id = row->n_vocab, .n_kept = s.n_above };
        return;
    }
    if (top_p * total <= 1.0) { // the weight of the largest logit: most tokens of a model that is sure end here
        keep_largest(row, logits, out);
        return;
    }
    const float floor = fmaxf(lowest, logit_of(row, c, (1.0 - top_p) * total / (slack * row->n_vocab)));
    const float top   = typical_max(row, floor);
    s.target  = (double) top_p * total;
    s.lo      = top;
    s.hi      = INFINITY;
    s.guessed = top > floor;
    if (search_list(&s, out) || !s.guessed) {
        return;
    }
    guess_bracket(&s, floor, top, total);
    if (search_list(&s, out)) {
        return;
    }
    s.lo      = floor;
    s.hi      = INFINITY;
    s.guessed = false;
    search_list(&s, out);
}

// The tile in which the running mass passes u x kept mass, then the first kept id there. Where rounding
// leaves the run below, the last kept id stands.
int32_t autodeco_nucleus_draw(const struct autodeco_row * row, const float * logits, float c, const struct autodeco_nucleus * nucleus, double u) {
    double mass = 0.0;
    for (int32_t t = 0; t < row->n_tiles; t++) {
        mass += row->kept[t];
    }
    const double target = u * mass;
    double  run  = 0.0;
    int32_t tile = 0;
    for (int32_t t = 0; t < row->n_tiles; t++) {
        if (row->kept[t] > 0.0) {
            tile = t;
            if (run + row->kept[t] > target) {
                break;
            }
            run += row->kept[t];
        }
    }
    float buf[AUTODECO_N_TILE];
    float w[AUTODECO_N_TILE];
    const float * l = autodeco_row_tile(row, logits, tile, buf);
    row->kernels->weigh(l, AUTODECO_N_TILE, row->max, c, w);
    int32_t token = -1;
    for (int32_t i = 0; i < AUTODECO_N_TILE; i++) {
        const int32_t id = tile * AUTODECO_N_TILE + i;
        if (l[i] > nucleus->logit || (l[i] == nucleus->logit && id <= nucleus->id)) {
            token = id;
            run  += w[i];
            if (run > target) {
                break;
            }
        }
    }
    return token;
}
