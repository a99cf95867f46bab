// Output rows at work, in stages whose slices can run on several threads.
//
// Owns the fast form of the step: heads, statistics, cut and draw over one row of logits. Knows
// neither ggml nor llama: autodeco-graph.c calls the stages as graph nodes, the CPU path and the
// tests call them in a loop.
//
// Sums are taken tile by tile and the tiles are added in order, so that T, P and the token do not
// depend on how many threads there are, to the last bit.
//
//     first_layer   a = W0 . h + b0 of both heads, of all rows of a batch at once
//     scale         T; each tile's maximum and sums of w, w^2, z w, with w = 2^z = exp((l - max) / (T + 1e-8))
//     guard         Z; what the 1e-8 inside the logarithm adds to each tile's entropy
//     finish        the four statistics; P; T* and P*
//     draw          nucleus and token
//
// The logits are read twice (scale, guard) and never copied. The cut reads again only tiles whose
// maximum says that they hold a candidate.

#include "autodeco-impl.h"

#include <stdlib.h>
#include <string.h>

// ---- a row ------------------------------------------------------------------------------

static void * take(struct autodeco_row * row, size_t n, size_t size) {
    void * taken = calloc(n, size);
    row->size += taken ? n * size : 0;
    return taken;
}

bool autodeco_row_init(struct autodeco_row * row, const struct autodeco_heads * heads, int32_t n_vocab) {
    memset(row, 0, sizeof *row);
    row->heads   = heads;
    row->kernels = autodeco_kernels_find(NULL);
    row->n_vocab = n_vocab;
    row->n_tiles = (n_vocab + AUTODECO_N_TILE - 1) / AUTODECO_N_TILE;
    const size_t n_tiles  = (size_t) row->n_tiles;
    const size_t n_padded = AUTODECO_PAD((size_t) row->n_tiles);
    const size_t n_units  = heads ? 2 * (size_t) heads->n_hidden : 1;
    row->act    = take(row, n_units, sizeof *row->act);
    row->huge   = take(row, n_units, sizeof *row->huge);
    row->tiles  = take(row, n_tiles, sizeof *row->tiles);
    row->maxima = take(row, n_padded, sizeof *row->maxima);
    row->guards = take(row, n_tiles, sizeof *row->guards);
    row->kept   = take(row, n_tiles, sizeof *row->kept);
    row->ids    = take(row, (size_t) n_vocab + AUTODECO_N_VECTOR, sizeof *row->ids);
    if (!row->act || !row->huge || !row->tiles || !row->maxima || !row->guards || !row->kept || !row->ids) {
        autodeco_row_free(row);
        return false;
    }
    for (size_t t = n_tiles; t < n_padded; t++) {
        row->maxima[t] = -INFINITY;
    }
    return true;
}

void autodeco_row_free(struct autodeco_row * row) {
    free(row->act);
    free(row->huge);
    free(row->tiles);
    free(row->maxima);
    free(row->guards);
    free(row->kept);
    free(row->ids);
    free(row->raw);
    memset(row, 0, sizeof *row);
}

static bool needs_temp(const struct autodeco_row * row) {
    return row->heads && row->heads->temp.present && row->params.heads_mode != AUTODECO_HEADS_NONE;
}

static bool needs_top_p(const struct autodeco_row * row) {
    const enum autodeco_heads_mode mode = row->params.heads_mode;
    return row->heads && row->heads->top_p.present && (mode == AUTODECO_HEADS_BOTH || mode == AUTODECO_HEADS_TOP_P);
}

// Contiguous slice [*begin, *end) of n things for thread ith of nth.
static void slice(int32_t n, int32_t ith, int32_t nth, int32_t * begin, int32_t * end) {
    *begin = (int32_t) ((int64_t) n * ith / nth);
    *end   = (int32_t) ((int64_t) n * (ith + 1) / nth);
}

// ---- stage 1 ----------------------------------------------------------------------------

// A float that overflows stays so, as infinity or NaN: such a unit is summed again in double.
static void add_bias(struct autodeco_row * row, const struct autodeco_head * head, const float * hidden, int32_t first, int32_t begin, int32_t end) {
    float * act = row->act + first;
    for (int32_t i = begin; i < end; i++) {
        act[i] += head->fc1_bias[i];
        if (!isfinite(act[i])) {
            row->huge[first + i] = autodeco_head_unit(head, row->heads->n_embd, i, hidden);
        }
    }
}

// Of the rows that need the head; its units stand in row->act from `first` on.
static void first_layer_of(
        struct autodeco_row * const * rows, const float * const * hidden, int32_t n_rows, const struct autodeco_head * head,
        bool (*needed)(const struct autodeco_row * row), int32_t first, int32_t begin, int32_t end) {
    const float * x[AUTODECO_N_ROWS];
    float *       out[AUTODECO_N_ROWS];
    int32_t n = 0;
    for (int32_t r = 0; r < n_rows; r++) {
        if (needed(rows[r])) {
            x[n]     = hidden[r];
            out[n++] = rows[r]->act + first + begin;
        }
    }
    const struct autodeco_kernels * kernels = rows[0]->kernels;
    const struct autodeco_matrix *  m       = &head->fc1;
    const char * units = (const char *) m->data + (size_t) begin * m->stride;
    if (n == 1) { // as below, faster
        kernels->dot[m->type](units, m->stride, end - begin, rows[0]->heads->n_embd, x[0], out[0]);
    } else if (n > 1) {
        kernels->dots[m->type](units, m->stride, end - begin, rows[0]->heads->n_embd, x, out, n);
    }
    for (int32_t r = 0; r < n_rows; r++) {
        if (needed(rows[r])) {
            add_bias(rows[r], head, hidden[r], first, begin, end);
        }
    }
}

// n_rows from 1 to AUTODECO_N_ROWS, each with its hidden[n_embd]; that may be NULL where no head is evaluated
void autodeco_rows_first_layer(struct autodeco_row * const * rows, const float * const * hidden, int32_t n_rows, int32_t ith, int32_t nth) {
    const struct autodeco_heads * heads = rows[0]->heads;
    if (!heads) {
        return;
    }
    int32_t begin;
    int32_t end;
    slice(heads->n_hidden, ith, nth, &begin, &end);
    first_layer_of(rows, hidden, n_rows, &heads->temp, needs_temp, 0, begin, end);
    first_layer_of(rows, hidden, n_rows, &heads->top_p, needs_top_p, heads->n_hidden, begin, end);
}

// ---- stage 2 ----------------------------------------------------------------------------

// Of a sum that is rounded to float, unless that overflows. NaN passes, to be seen at the output.
static double relu(double a) {
    const double x = isfinite((float) a) ? (float) a : a;
    return x < 0.0 ? 0.0 : x;
}

// z = W2 . relu(a + E . extra) + b2. first: the head's first unit in row->act
static float second_layer(const struct autodeco_row * row, const struct autodeco_head * head, int32_t first, int32_t n_extra, const float * extra) {
    double z = head->fc2_bias;
    for (int32_t i = 0; i < row->heads->n_hidden; i++) {
        double a = row->act[first + i];
        if (!isfinite(a)) {
            a = row->huge[first + i];
        }
        for (int32_t k = 0; k < n_extra; k++) {
            a += (double) head->fc1_extra[(size_t) i * n_extra + k] * extra[k];
        }
        z += (double) head->fc2_weight[i] * relu(a);
    }
    return (float) z;
}

// Every thread computes T for itself: 256 multiplications are cheaper than a barrier.
static float predict_temp(const struct autodeco_row * row, bool * fell_back) {
    *fell_back = false;
    if (!needs_temp(row)) {
        return 1.0f;
    }
    const struct autodeco_heads * heads = row->heads;
    const float t = heads->temp_scale * autodeco_sigmoid(second_layer(row, &heads->temp, 0, 0, NULL));
    *fell_back = !isfinite(t);
    return *fell_back ? 1.0f : t;
}

// log2(e) / T: exp(x / T) = 2^(x c)
static float exponent_of(float temp) {
    return AUTODECO_LOG2E / temp;
}

static const float * copy_tile(const struct autodeco_row * row, const float * logits, int32_t t, float * buf) {
    const int32_t from = t * AUTODECO_N_TILE;
    const int32_t n    = row->n_vocab - from < AUTODECO_N_TILE ? row->n_vocab - from : AUTODECO_N_TILE;
    for (int32_t i = 0; i < AUTODECO_N_TILE; i++) {
        const float l = i < n ? logits[from + i] : -INFINITY;
        buf[i] = l > FLT_MAX ? FLT_MAX : l; // everything finite then lies infinitely far below
    }
    return buf;
}

const float * autodeco_row_tile(const struct autodeco_row * row, const float * logits, int32_t t, float * buf) {
    const bool whole = (t + 1) * AUTODECO_N_TILE <= row->n_vocab;
    return whole && row->maxima[t] < FLT_MAX ? logits + t * AUTODECO_N_TILE : copy_tile(row, logits, t, buf);
}

static void scale_tiles(struct autodeco_row * row, const float * logits, float c, int32_t begin, int32_t end) {
    float buf[AUTODECO_N_TILE];
    for (int32_t t = begin; t < end; t++) {
        struct autodeco_tile * tile = &row->tiles[t];
        row->maxima[t] = 0.0f; // not yet known: take the logits as they are
        row->kernels->scale(autodeco_row_tile(row, logits, t, buf), c, row->params.logprob, tile);
        if (tile->max > FLT_MAX) {
            row->kernels->scale(copy_tile(row, logits, t, buf), c, row->params.logprob, tile);
        }
        row->maxima[t] = tile->max;
    }
}

void autodeco_row_scale(struct autodeco_row * row, const float * logits, int32_t ith, int32_t nth) {
    bool        fell_back;
    const float temp = predict_temp(row, &fell_back);
    if (ith == 0) {
        row->temp         = temp;
        row->n_fallbacks += fell_back;
    }
    int32_t begin;
    int32_t end;
    slice(row->n_tiles, ith, nth, &begin, &end);
    scale_tiles(row, logits, exponent_of(temp + AUTODECO_TEMP_EPS), begin, end);
}

// ---- stage 3 ----------------------------------------------------------------------------

static float row_max(const struct autodeco_row * row) {
    float m = -INFINITY;
    for (int32_t t = 0; t < row->n_tiles; t++) {
        m = row->maxima[t] > m ? row->maxima[t] : m;
    }
    return m;
}

// Z = sum over tiles of 2^((max_t - m) c) sum_t. Every thread for itself, from what no one writes now.
static double total_weight(const struct autodeco_row * row, float m, float c) {
    double sum = 0.0;
    for (int32_t t = 0; t < row->n_tiles; t += AUTODECO_N_VECTOR) {
        float scales[AUTODECO_N_VECTOR];
        row->kernels->weigh(row->maxima + t, AUTODECO_N_VECTOR, m, c, scales);
        for (int32_t k = 0; k < AUTODECO_N_VECTOR && t + k < row->n_tiles; k++) {
            sum += (double) scales[k] * row->tiles[t + k].sum;
        }
    }
    return sum;
}

// The guard against log(0), -q ln(q + 1e-8), splits into -q ln q, whose sum needs no second look at the
// logits, and -q ln(1 + 1e-8 / q) = -1e-8 g(r), g(r) = r ln(1 + 1/r), r = q / 1e-8, which does: it needs Z.
//
// Where a tile's r are small, g(r) = -r ln r + r^2 - r^3 / 2 + ... comes out of the sums at hand, and the
// tile is not read. r^3 stays below the largest r times r^2: at this bound all tiles of a vocabulary of
// 262144 together miss 1e-7 nats.
#define SMALL_CUBES 0.04

// largest = 2^y, the largest r of the tile
static double guard_of_small(const struct autodeco_tile * tile, double largest, double y) {
    return largest * largest * tile->sum_sq - largest * AUTODECO_LN2 * (tile->sum_zw + y * tile->sum);
}

static bool is_small(const struct autodeco_tile * tile, double largest) {
    return largest * largest * largest * tile->sum_sq < SMALL_CUBES;
}

void autodeco_row_guard(struct autodeco_row * row, const float * logits, int32_t ith, int32_t nth) {
    const float m = row_max(row);
    if (m == -INFINITY) {
        return;
    }
    const float c = exponent_of(row->temp + AUTODECO_TEMP_EPS);
    const float k = -(float) log2(AUTODECO_TEMP_EPS * total_weight(row, m, c));
    int32_t begin;
    int32_t end;
    slice(row->n_tiles, ith, nth, &begin, &end);
    float buf[AUTODECO_N_TILE];
    for (int32_t t = begin; t < end; t++) {
        const struct autodeco_tile * tile = &row->tiles[t];
        const double y       = fmax((double) (tile->max - m) * c + k, AUTODECO_MIN_Z);
        const double largest = exp2(y);
        row->guards[t] = is_small(tile, largest) ? guard_of_small(tile, largest, y)
                                                 : row->kernels->guard(autodeco_row_tile(row, logits, t, buf), m, c, k);
    }
}

// ---- stage 4 ----------------------------------------------------------------------------

struct totals {
    double sum_sq;
    double sum_zw;
    double guard;
};

// row->sum and ->sum_one, and the sums of the statistics, from the tiles
static struct totals add_tiles(struct autodeco_row * row, float c) {
    struct totals total = { 0 };
    const float m = row->max;
    row->sum = row->sum_one = 0.0;
    for (int32_t t = 0; t < row->n_tiles; t += AUTODECO_N_VECTOR) {
        float scales[AUTODECO_N_VECTOR];
        float ones[AUTODECO_N_VECTOR] = { 0 };
        row->kernels->weigh(row->maxima + t, AUTODECO_N_VECTOR, m, c, scales);
        if (row->params.logprob) {
            row->kernels->weigh(row->maxima + t, AUTODECO_N_VECTOR, m, AUTODECO_LOG2E, ones);
        }
        for (int32_t k = 0; k < AUTODECO_N_VECTOR && t + k < row->n_tiles; k++) {
            const struct autodeco_tile * tile = &row->tiles[t + k];
            const double s = scales[k];
            if (tile->max == -INFINITY) {
                continue; // nothing counts in it
            }
            row->sum     += s * tile->sum;
            row->sum_one += (double) ones[k] * tile->sum_one;
            total.sum_sq += s * s * tile->sum_sq;
            const double z = fmax((double) (tile->max - m) * c, AUTODECO_MIN_Z); // of the tile's maximum, as weigh() has it
            total.sum_zw += s * (tile->sum_zw + z * tile->sum);
            total.guard  += row->guards[t + k];
        }
    }
    return total;
}

static void top_insert(float top[AUTODECO_N_TOP], float l) {
    int i = AUTODECO_N_TOP - 1;
    if (!(l > top[i])) {
        return;
    }
    for (; i > 0 && top[i - 1] < l; i--) {
        top[i] = top[i - 1];
    }
    top[i] = l;
}

// The tiles of the five largest maxima, in *tiles. Returns how many there are.
static int32_t find_top_tiles(const struct autodeco_row * row, int32_t tiles[AUTODECO_N_TOP]) {
    int32_t n = 0;
    for (int32_t t = 0; t < row->n_tiles; t++) {
        const float m = row->maxima[t];
        if (m == -INFINITY || (n == AUTODECO_N_TOP && m <= row->maxima[tiles[n - 1]])) {
            continue;
        }
        int32_t i = n < AUTODECO_N_TOP ? n++ : n - 1;
        for (; i > 0 && row->maxima[tiles[i - 1]] < m; i--) {
            tiles[i] = tiles[i - 1];
        }
        tiles[i] = t;
    }
    return n;
}

// The weights of the five largest logits, summed: they lie in the five tiles of the largest maxima.
static double top5_weight(const struct autodeco_row * row, const float * logits, float c) {
    float   top[AUTODECO_N_VECTOR];
    float   w[AUTODECO_N_VECTOR];
    int32_t tiles[AUTODECO_N_TOP];
    for (int k = 0; k < AUTODECO_N_VECTOR; k++) {
        top[k] = -INFINITY;
    }
    const int32_t n = find_top_tiles(row, tiles);
    for (int32_t i = 0; i < n; i++) {
        float buf[AUTODECO_N_TILE];
        const float * l = autodeco_row_tile(row, logits, tiles[i], buf);
        for (int32_t j = 0; j < AUTODECO_N_TILE; j++) {
            top_insert(top, l[j]);
        }
    }
    row->kernels->weigh(top, AUTODECO_N_VECTOR, row->max, c, w);
    return (double) w[0] + w[1] + w[2] + w[3] + w[4];
}

static float predict_top_p(struct autodeco_row * row, const float * logits, const struct totals * total, float c) {
    const struct autodeco_heads * heads = row->heads;
    const double n    = row->n_vocab;
    const double var  = total->sum_sq / (row->sum * row->sum) - 1.0 / n; // closed form, equations 3
    const float extra[5] = {
        row->temp,
        row->step.max_prob,
        row->step.entropy,
        (float) ((var > 0.0 ? var : 0.0) / (n - 1.0)),
        heads->n_extra == 5 ? (float) (top5_weight(row, logits, c) / row->sum) : 0.0f,
    };
    const float z = second_layer(row, &heads->top_p, heads->n_hidden, heads->n_extra, extra);
    const float p = autodeco_sigmoid(z);
    row->n_fallbacks += !isfinite(p);
    return isfinite(p) ? p : 1.0f;
}

void autodeco_row_finish(struct autodeco_row * row, const float * logits) {
    struct autodeco_step * step = &row->step;
    *step       = (struct autodeco_step) { .token = -1, .temp = NAN, .top_p = NAN, .logprob = NAN };
    row->max    = row->max_one = row_max(row);
    row->status = row->max == -INFINITY ? AUTODECO_STATUS_NO_LOGIT : AUTODECO_STATUS_OK;
    if (row->status != AUTODECO_STATUS_OK) {
        return;
    }
    const float c = exponent_of(row->temp + AUTODECO_TEMP_EPS);
    const struct totals total = add_tiles(row, c);
    const double plain = log(row->sum) - total.sum_zw / row->sum * AUTODECO_LN2; // sum of -q ln q
    step->max_prob = (float) (1.0 / row->sum);
    step->entropy  = (float) (plain - AUTODECO_TEMP_EPS * total.guard);
    if (needs_temp(row)) {
        step->temp = row->temp;
    }
    if (needs_top_p(row)) {
        step->top_p = predict_top_p(row, logits, &total, c);
    }
    // Of a certain token the 1e-8 makes it -1e-8. The head was fed that, as officially; what is reported is no less than 0.
    step->entropy = step->entropy > 0.0f ? step->entropy : 0.0f;
    autodeco_combine_params(&row->params, step);
}

bool autodeco_row_keep_raw(struct autodeco_row * row, const float * logits) {
    if (!row->params.logprob) {
        return true;
    }
    if (!row->raw) {
        row->raw = take(row, (size_t) row->n_vocab, sizeof *row->raw);
    }
    if (row->raw) {
        memcpy(row->raw, logits, (size_t) row->n_vocab * sizeof *row->raw);
    }
    return row->raw != NULL;
}

// ---- stage 5 ----------------------------------------------------------------------------

int32_t autodeco_row_argmax(const struct autodeco_row * row, const float * logits) {
    float buf[AUTODECO_N_TILE];
    for (int32_t t = 0; t < row->n_tiles; t++) {
        if (row->maxima[t] == row->max) {
            const float * l = autodeco_row_tile(row, logits, t, buf);
            for (int32_t i = 0; i < AUTODECO_N_TILE; i++) {
                if (l[i] == row->max) {
                    return t * AUTODECO_N_TILE + i;
                }
            }
        }
    }
    return -1;
}

// logits[n_vocab]: those of the stages before, or what the CPU samplers left over (same_logits is false).
// u in [0, 1).
void autodeco_row_draw(struct autodeco_row * row, const float * logits, bool same_logits, double u) {
    struct autodeco_step * step = &row->step;
    const bool  greedy = !(step->temp_eff >= AUTODECO_MIN_TEMP);
    const float c      = greedy ? 1.0f : exponent_of(step->temp_eff);
    // the sums of the statistics serve again where the user does not scale T and 1e-8 vanishes in it
    if (!same_logits || (!greedy && step->temp_eff != row->temp + AUTODECO_TEMP_EPS)) {
        scale_tiles(row, logits, c, 0, row->n_tiles);
        row->max = row_max(row);
        row->sum = total_weight(row, row->max, c);
    }
    if (row->max == -INFINITY) {
        row->status = AUTODECO_STATUS_NO_LOGIT;
        return;
    }
    step->n_kept = 1;
    if (greedy) {
        step->token = autodeco_row_argmax(row, logits);
        return;
    }
    struct autodeco_nucleus nucleus;
    autodeco_nucleus_find(row, logits, c, &nucleus);
    step->n_kept = nucleus.n_kept;
    step->token  = autodeco_nucleus_draw(row, logits, c, &nucleus, u);
}

// ln softmax(l)[token] at temperature 1, from the raw logit of the drawn token; where it is asked for
void autodeco_row_logprob(struct autodeco_row * row, float logit) {
    if (!row->params.logprob) {
        return;
    }
    const double above = (double) (logit > FLT_MAX ? FLT_MAX : logit) - row->max_one;
    row->step.logprob = (float) (above - log(row->sum_one));
}

// ---- all stages -------------------------------------------------------------------------

#define MAX_VOCAB (INT32_MAX - AUTODECO_N_TILE) // tiles are counted in int32_t

static enum autodeco_status check_step(const struct autodeco_heads * heads, const float * hidden, const float * logits, int32_t n_vocab, int32_t n_threads, const struct autodeco_step * out) {
    if (!logits || !out || n_vocab < 1 || n_vocab > MAX_VOCAB || n_threads < 1 || (heads && !hidden)) {
        return AUTODECO_STATUS_ARGUMENT;
    }
    return heads && heads->n_vocab != 0 && heads->n_vocab != n_vocab ? AUTODECO_STATUS_N_VOCAB : AUTODECO_STATUS_OK;
}

enum autodeco_status autodeco_step_once(
        const struct autodeco_heads * heads, struct autodeco_sampler_params params, const char * kernels, const float * hidden,
        const float * logits, int32_t n_vocab, uint64_t index, int32_t n_threads, struct autodeco_step * out) {
    const enum autodeco_status checked = check_step(heads, hidden, logits, n_vocab, n_threads, out);
    if (checked != AUTODECO_STATUS_OK) {
        return checked;
    }
    struct autodeco_row row;
    if (!autodeco_row_init(&row, heads, n_vocab)) {
        return AUTODECO_STATUS_MEMORY;
    }
    row.params  = params;
    row.kernels = autodeco_kernels_find(kernels);
    struct autodeco_row * rows = &row;
    for (int32_t i = 0; i < n_threads; i++) autodeco_rows_first_layer(&rows, &hidden, 1, i, n_threads);
    for (int32_t i = 0; i < n_threads; i++) autodeco_row_scale(&row, logits, i, n_threads);
    for (int32_t i = 0; i < n_threads; i++) autodeco_row_guard(&row, logits, i, n_threads);
    autodeco_row_finish(&row, logits);
    if (row.status == AUTODECO_STATUS_OK) {
        autodeco_row_draw(&row, logits, true, autodeco_ref_uniform(params.seed, index));
    }
    if (row.status == AUTODECO_STATUS_OK) {
        autodeco_row_logprob(&row, logits[row.step.token]);
    }
    *out = row.step;
    const enum autodeco_status status = row.status;
    autodeco_row_free(&row);
    return status;
}
