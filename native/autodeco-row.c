// One output row at work, in stages whose slices can run on several threads.
//
// Owns the fast form of the step: heads, statistics, cut and draw over one row of logits.
// Knows neither ggml nor llama: autodeco-graph.c calls the stages as graph nodes, the CPU
// path and the tests call them in a loop.
//
// The vocabulary is summed in fixed blocks and the blocks are added in order, so that T, P
// and the token do not depend on how many threads there are, to the last bit.
//
//     first_layer   a = W0 . h + b0 of both heads; block maxima of the logits
//     scale         T; w = exp((l - m) / (T + 1e-8)), block sums
//     entropy       block sums of -q ln(q + 1e-8), q = w / Z
//     finish        the four statistics; P; T* and P*
//     draw          nucleus and token

#include "autodeco-impl.h"

#include <stdlib.h>
#include <string.h>

// ---- small kernels ----------------------------------------------------------------------

#define N_LANES 16 // independent partial sums, so that the compiler can use vector registers

static float dot(const float * a, const float * b, int32_t n) {
    float lanes[N_LANES] = { 0 };
    int32_t i = 0;
    for (; i + N_LANES <= n; i += N_LANES) {
        for (int32_t k = 0; k < N_LANES; k++) {
            lanes[k] += a[i + k] * b[i + k];
        }
    }
    double sum = 0.0;
    for (int32_t k = 0; k < N_LANES; k++) {
        sum += lanes[k];
    }
    for (; i < n; i++) {
        sum += (double) a[i] * b[i];
    }
    return (float) sum;
}

// exp(x) for x <= 0, below 3e-7 relative; 0 under -87, where a float would be denormal. NaN gives 0.
// Branch-free, so that loops over it vectorise: libm's expf would be called once an element.
static inline float exp_neg(float x) {
    const float c  = x > -87.0f ? x : -87.0f;
    const float n  = (c * 1.44269504f + 12582912.0f) - 12582912.0f;    // nearest integer to x / ln 2
    const float r  = (c - n * 0.693359375f) + n * 2.12194440e-4f;      // ln 2 in two parts (Cody and Waite)
    float p = 1.9875691500e-4f;                                        // minimax polynomial (Cephes)
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r) * r + r + 1.0f;
    const int32_t bits = ((int32_t) n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return x > -87.0f ? p * scale : 0.0f;
}

static float relu(float x) {
    return x < 0.0f ? 0.0f : x; // NaN passes, to be seen at the output
}

static double max_of(double a, double b) {
    return a > b ? a : b;
}

static void top_insert(float top[AUTODECO_N_TOP], float w) {
    int i = AUTODECO_N_TOP - 1;
    if (w <= top[i]) {
        return;
    }
    for (; i > 0 && top[i - 1] < w; i--) {
        top[i] = top[i - 1];
    }
    top[i] = w;
}

// ---- a row ------------------------------------------------------------------------------

bool autodeco_row_init(struct autodeco_row * row, const struct autodeco_heads * heads, int32_t n_vocab) {
    memset(row, 0, sizeof *row);
    row->heads    = heads;
    row->n_vocab  = n_vocab;
    row->n_blocks = (n_vocab + AUTODECO_N_BLOCK - 1) / AUTODECO_N_BLOCK;
    row->act      = calloc(heads ? 2 * (size_t) heads->n_hidden : 1, sizeof *row->act);
    row->blocks   = calloc((size_t) row->n_blocks, sizeof *row->blocks);
    row->weights  = calloc((size_t) n_vocab, sizeof *row->weights);
    if (!row->act || !row->blocks || !row->weights) {
        autodeco_row_free(row);
        return false;
    }
    return true;
}

void autodeco_row_free(struct autodeco_row * row) {
    free(row->act);
    free(row->blocks);
    free(row->weights);
    memset(row, 0, sizeof *row);
}

static bool needs_temp(const struct autodeco_row * row) {
    return row->heads && row->heads->temp.present && row->params.heads_mode != AUTODECO_HEADS_NONE;
}

static bool needs_top_p(const struct autodeco_row * row) {
    const enum autodeco_heads_mode mode = row->params.heads_mode;
    return row->heads && row->heads->top_p.present && (mode == AUTODECO_HEADS_BOTH || mode == AUTODECO_HEADS_TOP_P);
}

static int32_t block_begin(int32_t b) {
    return b * AUTODECO_N_BLOCK;
}

static int32_t block_end(const struct autodeco_row * row, int32_t b) {
    const int32_t end = (b + 1) * AUTODECO_N_BLOCK;
    return end < row->n_vocab ? end : row->n_vocab;
}

// Contiguous slice [*begin, *end) of n things for thread ith of nth.
static void slice(int32_t n, int32_t ith, int32_t nth, int32_t * begin, int32_t * end) {
    *begin = (int32_t) ((int64_t) n * ith / nth);
    *end   = (int32_t) ((int64_t) n * (ith + 1) / nth);
}

// ---- stage 1 ----------------------------------------------------------------------------

static void first_layer_of(const struct autodeco_heads * heads, const struct autodeco_head * head, const float * hidden, float * act, int32_t begin, int32_t end) {
    for (int32_t i = begin; i < end; i++) {
        act[i] = dot(head->fc1_weight + (size_t) i * heads->n_embd, hidden, heads->n_embd) + head->fc1_bias[i];
    }
}

static void block_max(struct autodeco_row * row, const float * logits, int32_t b) {
    float m = -INFINITY;
    for (int32_t i = block_begin(b); i < block_end(row, b); i++) {
        m = logits[i] > m ? logits[i] : m; // false for NaN
    }
    row->blocks[b].max = m;
}

// hidden[n_embd] may be NULL where no head is evaluated; logits[n_vocab] raw
void autodeco_row_first_layer(struct autodeco_row * row, const float * hidden, const float * logits, int32_t ith, int32_t nth) {
    int32_t begin;
    int32_t end;
    if (needs_temp(row) || needs_top_p(row)) {
        slice(row->heads->n_hidden, ith, nth, &begin, &end);
        if (needs_temp(row)) {
            first_layer_of(row->heads, &row->heads->temp, hidden, row->act, begin, end);
        }
        if (needs_top_p(row)) {
            first_layer_of(row->heads, &row->heads->top_p, hidden, row->act + row->heads->n_hidden, begin, end);
        }
    }
    slice(row->n_blocks, ith, nth, &begin, &end);
    for (int32_t b = begin; b < end; b++) {
        block_max(row, logits, b);
    }
}

// ---- stage 2 ----------------------------------------------------------------------------

// z = W2 . relu(a + E . extra) + b2
static float second_layer(const struct autodeco_head * head, int32_t n_hidden, int32_t n_extra, const float * act, const float * extra) {
    double z = head->fc2_bias;
    for (int32_t i = 0; i < n_hidden; i++) {
        double a = act[i];
        for (int32_t k = 0; k < n_extra; k++) {
            a += (double) head->fc1_extra[(size_t) i * n_extra + k] * extra[k];
        }
        z += (double) head->fc2_weight[i] * relu((float) a);
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
    const float t = heads->temp_scale * autodeco_sigmoid(second_layer(&heads->temp, heads->n_hidden, 0, row->act, NULL));
    *fell_back = !isfinite(t);
    return *fell_back ? 1.0f : t;
}

static float row_max(const struct autodeco_row * row) {
    float m = -INFINITY;
    for (int32_t b = 0; b < row->n_blocks; b++) {
        m = row->blocks[b].max > m ? row->blocks[b].max : m;
    }
    return m;
}

// w[n] = exp((l - m) / temp); in place is allowed. Where m is +inf, only those tokens count.
static void fill_weights(const float * logits, float * w, int32_t n, float m, float temp) {
    if (isinf(m)) {
        for (int32_t i = 0; i < n; i++) {
            w[i] = logits[i] == INFINITY ? 1.0f : 0.0f;
        }
        return;
    }
    const float inv = 1.0f / temp;
    for (int32_t i = 0; i < n; i++) {
        w[i] = exp_neg((logits[i] - m) * inv);
    }
}

static double sum_one_of(const float * logits, int32_t n, float m) {
    if (isinf(m)) {
        double sum = 0.0;
        for (int32_t i = 0; i < n; i++) {
            sum += logits[i] == INFINITY;
        }
        return sum;
    }
    double lanes[8] = { 0 };
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int32_t k = 0; k < 8; k++) {
            lanes[k] += exp_neg(logits[i + k] - m);
        }
    }
    for (; i < n; i++) {
        lanes[0] += exp_neg(logits[i] - m);
    }
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static void sum_block(struct autodeco_block * block, const float * w, int32_t n) {
    double sum[8]    = { 0 };
    double sum_sq[8] = { 0 };
    memset(block->top, 0, sizeof block->top);
    for (int32_t i = 0; i < n; i++) {
        const double x = w[i];
        sum   [i & 7] += x;
        sum_sq[i & 7] += x * x;
        if (w[i] > block->top[AUTODECO_N_TOP - 1]) {
            top_insert(block->top, w[i]);
        }
    }
    block->sum = block->sum_sq = 0.0;
    for (int32_t k = 0; k < 8; k++) {
        block->sum    += sum[k];
        block->sum_sq += sum_sq[k];
    }
}

void autodeco_row_scale(struct autodeco_row * row, const float * logits, int32_t ith, int32_t nth) {
    bool        fell_back;
    const float temp = predict_temp(row, &fell_back);
    const float m    = row_max(row);
    if (ith == 0) {
        row->max          = m;
        row->temp         = temp;
        row->n_fallbacks += fell_back;
    }
    if (m == -INFINITY) {
        return; // no finite logit; the draw reports it
    }
    int32_t begin;
    int32_t end;
    slice(row->n_blocks, ith, nth, &begin, &end);
    for (int32_t b = begin; b < end; b++) {
        const int32_t from = block_begin(b);
        const int32_t n    = block_end(row, b) - from;
        fill_weights(logits + from, row->weights + from, n, m, temp + AUTODECO_TEMP_EPS);
        sum_block(&row->blocks[b], row->weights + from, n);
        row->blocks[b].sum_one = sum_one_of(logits + from, n, m);
    }
}

// ---- stage 3 ----------------------------------------------------------------------------

static double total_weight(const struct autodeco_row * row) {
    double sum = 0.0;
    for (int32_t b = 0; b < row->n_blocks; b++) {
        sum += row->blocks[b].sum;
    }
    return sum;
}

void autodeco_row_entropy(struct autodeco_row * row, int32_t ith, int32_t nth) {
    if (row->max == -INFINITY) {
        return;
    }
    const float inv = (float) (1.0 / total_weight(row));
    int32_t begin;
    int32_t end;
    slice(row->n_blocks, ith, nth, &begin, &end);
    for (int32_t b = begin; b < end; b++) {
        double sum = 0.0;
        for (int32_t i = block_begin(b); i < block_end(row, b); i++) {
            const float q = row->weights[i] * inv;
            if (q > 0.0f) {
                sum -= (double) q * logf(q + 1e-8f);
            }
        }
        row->blocks[b].entropy = sum;
    }
}

// ---- stage 4 ----------------------------------------------------------------------------

struct totals {
    double sum_sq;
    double entropy;
    float  top[AUTODECO_N_TOP];
};

static struct totals add_blocks(struct autodeco_row * row) {
    struct totals t = { 0 };
    row->sum     = total_weight(row);
    row->sum_one = 0.0;
    for (int32_t b = 0; b < row->n_blocks; b++) {
        const struct autodeco_block * block = &row->blocks[b];
        row->sum_one += block->sum_one;
        t.sum_sq     += block->sum_sq;
        t.entropy    += block->entropy;
        for (int32_t k = 0; k < AUTODECO_N_TOP; k++) {
            top_insert(t.top, block->top[k]);
        }
    }
    return t;
}

static float predict_top_p(struct autodeco_row * row, const struct totals * t) {
    const struct autodeco_heads * heads = row->heads;
    const double n    = row->n_vocab;
    const double top5 = (double) t->top[0] + t->top[1] + t->top[2] + t->top[3] + t->top[4];
    const float extra[5] = {
        row->temp,
        (float) (t->top[0] / row->sum),
        (float) t->entropy,
        (float) (max_of(t->sum_sq / (row->sum * row->sum) - 1.0 / n, 0.0) / (n - 1.0)), // closed form, semantics 2.3
        (float) (top5 / row->sum),
    };
    const float z = second_layer(&heads->top_p, heads->n_hidden, heads->n_extra, row->act + heads->n_hidden, extra);
    const float p = autodeco_sigmoid(z);
    row->n_fallbacks += !isfinite(p);
    return isfinite(p) ? p : 1.0f;
}

void autodeco_row_finish(struct autodeco_row * row) {
    struct autodeco_step * step = &row->step;
    *step = (struct autodeco_step) { .token = -1, .temp = NAN, .top_p = NAN, .logprob = NAN };
    row->status = row->max == -INFINITY ? AUTODECO_STATUS_NO_LOGIT : AUTODECO_STATUS_OK;
    if (row->status != AUTODECO_STATUS_OK) {
        return;
    }
    const struct totals t = add_blocks(row);
    step->max_prob = (float) (t.top[0] / row->sum);
    step->entropy  = (float) t.entropy;
    if (needs_temp(row)) {
        step->temp = row->temp;
    }
    if (needs_top_p(row)) {
        step->top_p = predict_top_p(row, &t);
    }
    autodeco_combine_params(&row->params, step);
}

// ---- stage 5 ----------------------------------------------------------------------------

static int32_t argmax(const float * logits, int32_t n) {
    int32_t best = -1;
    float   m    = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (logits[i] > m) {
            m    = logits[i];
            best = i;
        }
    }
    return best;
}

// logits[n_vocab]: raw, or what the CPU samplers before the draw left over (then weights_ready is
// false, and logits may be row->weights itself). u in [0, 1).
void autodeco_row_draw(struct autodeco_row * row, const float * logits, bool weights_ready, double u) {
    struct autodeco_step * step = &row->step;
    const int32_t best = argmax(logits, row->n_vocab);
    if (best < 0) {
        row->status = AUTODECO_STATUS_NO_LOGIT;
        return;
    }
    step->n_kept = 1;
    step->token  = best;
    if (!(step->temp_eff >= AUTODECO_MIN_TEMP)) {
        return;
    }
    // the statistics' weights serve again where the user does not scale T and 1e-8 vanishes in it
    if (!weights_ready || step->temp_eff != row->temp + AUTODECO_TEMP_EPS) {
        fill_weights(logits, row->weights, row->n_vocab, logits[best], step->temp_eff);
    }
    for (int32_t i = 0; row->params.min_p > 0.0f && i < row->n_vocab; i++) {
        row->weights[i] = row->weights[i] >= row->params.min_p ? row->weights[i] : 0.0f; // the largest is 1
    }
    struct autodeco_nucleus nucleus;
    autodeco_nucleus_find(row->weights, row->n_vocab, step->top_p_eff, &nucleus);
    step->n_kept = nucleus.n_kept;
    step->token  = autodeco_nucleus_draw(row->weights, row->n_vocab, &nucleus, u);
}

// ln softmax(l)[token] at temperature 1, from the raw logit of the drawn token
void autodeco_row_logprob(struct autodeco_row * row, float logit) {
    const double above = isinf(row->max) ? 0.0 : (double) logit - row->max;
    row->step.logprob = (float) (above - log(row->sum_one));
}

// ---- all stages -------------------------------------------------------------------------

enum autodeco_status autodeco_step_once(
        const struct autodeco_heads * heads, struct autodeco_sampler_params params, const float * hidden,
        const float * logits, int32_t n_vocab, uint64_t index, int32_t n_threads, struct autodeco_step * out) {
    struct autodeco_row row;
    if (!autodeco_row_init(&row, heads, n_vocab)) {
        return AUTODECO_STATUS_MEMORY;
    }
    row.params = params;
    for (int32_t i = 0; i < n_threads; i++) autodeco_row_first_layer(&row, hidden, logits, i, n_threads);
    for (int32_t i = 0; i < n_threads; i++) autodeco_row_scale(&row, logits, i, n_threads);
    for (int32_t i = 0; i < n_threads; i++) autodeco_row_entropy(&row, i, n_threads);
    autodeco_row_finish(&row);
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
