// The maths of AutoDeco, scalar, in double, written to be read: the oracle.
//
// Owns the equations of a step (equations 2 to 5) and the random number. Knows
// neither ggml nor llama, and no threads. Every faster path is tested against this file,
// which is itself tested against numpy.

#include "autodeco-impl.h"

#include <stdlib.h>
#include <string.h>

float autodeco_sigmoid(float z) {
    // two branches so that exp never overflows
    if (z >= 0.0f) {
        return (float) (1.0 / (1.0 + exp(-(double) z)));
    }
    const double e = exp((double) z);
    return (float) (e / (1.0 + e));
}

// ---- heads ------------------------------------------------------------------------------

static float half_to_float(uint16_t h) { // finite halves; 2^112 = 2^(127 - 15) moves the exponent's bias
    const uint32_t bits = (uint32_t) (h & 0x7fff) << 13;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (h & 0x8000 ? -0x1p112f : 0x1p112f) * x;
}

static float brain_to_float(uint16_t b) {
    const uint32_t bits = (uint32_t) b << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float q8_to_float(const unsigned char * row, int32_t j) {
    const unsigned char * block = row + (size_t) (j / AUTODECO_Q8_BLOCK) * AUTODECO_Q8_BYTES;
    uint16_t d;
    memcpy(&d, block, sizeof d);
    return half_to_float(d) * (float) (int8_t) block[2 + j % AUTODECO_Q8_BLOCK];
}

static float weight_at(const struct autodeco_matrix * m, int32_t i, int32_t j) {
    const unsigned char * row = (const unsigned char *) m->data + (size_t) i * m->stride;
    switch (m->type) {
        case AUTODECO_TYPE_F16:  return half_to_float (((const uint16_t *) row)[j]);
        case AUTODECO_TYPE_BF16: return brain_to_float(((const uint16_t *) row)[j]);
        case AUTODECO_TYPE_Q8_0: return q8_to_float(row, j);
        default:                 return ((const float *) row)[j];
    }
}

double autodeco_head_unit(const struct autodeco_head * head, int32_t n_embd, int32_t i, const float * hidden) {
    double a = head->fc1_bias[i];
    for (int32_t j = 0; j < n_embd; j++) {
        a += (double) weight_at(&head->fc1, i, j) * hidden[j];
    }
    return a;
}

// z = W2 . relu(W0 . [hidden, extra] + b0) + b2
float autodeco_head_logit(const struct autodeco_head * head, int32_t n_embd, int32_t n_hidden, int32_t n_extra, const float * hidden, const float * extra) {
    double z = head->fc2_bias;
    for (int32_t i = 0; i < n_hidden; i++) {
        double a = autodeco_head_unit(head, n_embd, i, hidden);
        for (int32_t k = 0; k < n_extra; k++) {
            a += (double) head->fc1_extra[(size_t) i * n_extra + k] * extra[k];
        }
        z += head->fc2_weight[i] * (a < 0.0 ? 0.0 : a); // NaN passes, to be seen at the output
    }
    return (float) z;
}

// x within [min, max], 0 = no limit; the upper one has the last word
static float within(float x, float min, float max) {
    x = min > 0.0f && x < min ? min : x;
    return max > 0.0f && x > max ? max : x;
}

// T* = T x user's (0 = greedy), P* = clamp(P x user's, 0, 1), both within the user's limits; a head that is
// off counts as 1
void autodeco_combine_params(const struct autodeco_sampler_params * params, struct autodeco_step * step) {
    const bool use_temp  = params->heads_mode == AUTODECO_HEADS_BOTH || params->heads_mode == AUTODECO_HEADS_TEMP;
    const bool use_top_p = params->heads_mode == AUTODECO_HEADS_BOTH || params->heads_mode == AUTODECO_HEADS_TOP_P;
    const float t = use_temp  && !isnan(step->temp)  ? step->temp  : 1.0f;
    const float p = use_top_p && !isnan(step->top_p) ? step->top_p : 1.0f;
    const float t_eff = within(t * params->temp, params->temp_min, params->temp_max);
    step->temp_eff  = params->temp == 0.0f ? 0.0f : t_eff > AUTODECO_MAX_TEMP ? AUTODECO_MAX_TEMP : t_eff;
    step->top_p_eff = within(fminf(fmaxf(p * params->top_p, 0.0f), 1.0f), params->top_p_min, params->top_p_max);
}

// ---- random number ----------------------------------------------------------------------

static void philox_round(uint32_t c[4], const uint32_t k[2]) {
    const uint64_t p0 = (uint64_t) 0xD2511F53u * c[0];
    const uint64_t p1 = (uint64_t) 0xCD9E8D57u * c[2];
    const uint32_t c1 = c[1];
    const uint32_t c3 = c[3];
    c[0] = (uint32_t) (p1 >> 32) ^ c1 ^ k[0];
    c[1] = (uint32_t) p1;
    c[2] = (uint32_t) (p0 >> 32) ^ c3 ^ k[1];
    c[3] = (uint32_t) p0;
}

// Philox4x32-10 (Salmon et al., SC 2011): counter = index, key = seed
double autodeco_ref_uniform(uint64_t seed, uint64_t index) {
    uint32_t c[4] = { (uint32_t) index, (uint32_t) (index >> 32), 0, 0 };
    uint32_t k[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };
    for (int i = 0; i < 10; i++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    const uint64_t bits = ((uint64_t) c[0] << 21) | (c[1] >> 11); // 53 of them
    return (double) bits * 0x1p-53;
}

// ---- logits -----------------------------------------------------------------------------

// NaN counts as masked; where a logit is +inf, only those tokens count. Raw logits are never written.
static double clean_max(const float * logits, int32_t n) {
    double m = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (logits[i] > m) { // false for NaN
            m = logits[i];
        }
    }
    return m;
}

static double clean_weight(float logit, double m, double temp) {
    if (isinf(m)) {
        return logit == INFINITY ? 1.0 : 0.0;
    }
    return isnan(logit) ? 0.0 : exp((logit - m) / temp);
}

static void top_insert(double top[AUTODECO_N_TOP], double w) {
    int i = AUTODECO_N_TOP - 1;
    if (w <= top[i]) {
        return;
    }
    for (; i > 0 && top[i - 1] < w; i--) {
        top[i] = top[i - 1];
    }
    top[i] = w;
}

bool autodeco_ref_stats(const float * logits, int32_t n_vocab, float temp, struct autodeco_stats * out) {
    const double m = logits && out ? clean_max(logits, n_vocab) : -INFINITY;
    if (m == -INFINITY) { // no finite logit, or none at all
        return false;
    }
    const double t = (double) temp + AUTODECO_TEMP_EPS;
    double top[AUTODECO_N_TOP] = { 0 };
    double sum = 0.0;
    for (int32_t i = 0; i < n_vocab; i++) {
        const double w = clean_weight(logits[i], m, t);
        sum += w;
        top_insert(top, w);
    }
    const double n = n_vocab;
    double entropy = 0.0;
    double var     = 0.0;
    for (int32_t i = 0; i < n_vocab; i++) {
        const double q = clean_weight(logits[i], m, t) / sum;
        entropy -= q * log(q + 1e-8);
        var     += (q - 1.0 / n) * (q - 1.0 / n);
    }
    out->max_prob = (float) (top[0] / sum);
    out->entropy  = (float) entropy;
    out->prob_var = (float) (var / (n - 1.0));
    out->top5_sum = (float) ((top[0] + top[1] + top[2] + top[3] + top[4]) / sum);
    return true;
}

static float finite_or_one(float x) {
    return isfinite(x) ? x : 1.0f;
}

bool autodeco_ref_forward(
        const struct autodeco_heads * heads, const float * hidden, const float * logits, int32_t n_vocab,
        float * temp, float * top_p, struct autodeco_stats * stats) {
    if (!heads || !hidden || !temp || !top_p || (heads->n_vocab != 0 && heads->n_vocab != n_vocab)) {
        return false;
    }
    *temp = *top_p = NAN;
    if (heads->temp.present) {
        const float z = autodeco_head_logit(&heads->temp, heads->n_embd, heads->n_hidden, 0, hidden, NULL);
        *temp = finite_or_one(heads->temp_scale * autodeco_sigmoid(z));
    }
    const float t = isnan(*temp) ? 1.0f : *temp;
    if (!autodeco_ref_stats(logits, n_vocab, t, stats)) {
        return false;
    }
    if (heads->top_p.present) {
        const float extra[5] = { t, stats->max_prob, stats->entropy, stats->prob_var, stats->top5_sum };
        const float z = autodeco_head_logit(&heads->top_p, heads->n_embd, heads->n_hidden, heads->n_extra, hidden, extra);
        *top_p = finite_or_one(autodeco_sigmoid(z));
    }
    return true;
}

// ---- nucleus and draw -------------------------------------------------------------------

struct candidate {
    double  weight;
    float   logit; // decides the order: weights of logits that differ may round to the same double
    int32_t id;
};

static int compare_candidates(const void * a, const void * b) {
    const struct candidate * x = a;
    const struct candidate * y = b;
    if (x->logit != y->logit) {
        return x->logit < y->logit ? 1 : -1;
    }
    return x->id < y->id ? -1 : 1;
}

// Number of leading candidates that stay: one is kept iff it is the first or the mass before it is < P* x total.
static int32_t count_kept(const struct candidate * sorted, int32_t n, double total, float top_p) {
    double  before = 0.0;
    int32_t kept   = 0;
    for (int32_t i = 0; i < n && sorted[i].weight > 0.0; i++) {
        if (i > 0 && top_p < 1.0f && before >= top_p * total) {
            break;
        }
        before += sorted[i].weight;
        kept++;
    }
    return kept;
}

int32_t autodeco_ref_draw(
        const float * logits, int32_t n_vocab, float temp_eff, float top_p_eff, double u, bool * kept, int32_t * n_kept) {
    const double m = logits ? clean_max(logits, n_vocab) : -INFINITY;
    if (m == -INFINITY) {
        return -1;
    }
    struct candidate * sorted  = malloc((size_t) n_vocab * sizeof *sorted);
    double *           weights = calloc((size_t) n_vocab, sizeof *weights);
    if (!sorted || !weights) {
        free(sorted);
        free(weights);
        return -2;
    }
    double total = 0.0;
    for (int32_t i = 0; i < n_vocab; i++) {
        sorted[i].id     = i;
        sorted[i].logit  = isnan(logits[i]) ? -INFINITY : logits[i];
        sorted[i].weight = clean_weight(logits[i], m, temp_eff);
        total += sorted[i].weight;
    }
    if (temp_eff < AUTODECO_MIN_TEMP) { // argmax, the lowest id of equals
        for (int32_t i = 0; i < n_vocab; i++) {
            sorted[i].weight = logits[i] == m ? 1.0 : 0.0;
        }
        total     = 1.0;
        top_p_eff = 0.0f;
    }
    qsort(sorted, (size_t) n_vocab, sizeof *sorted, compare_candidates);
    const int32_t count = count_kept(sorted, n_vocab, total, top_p_eff);

    double mass = 0.0;
    if (kept) {
        memset(kept, 0, (size_t) n_vocab * sizeof *kept);
    }
    for (int32_t i = 0; i < count; i++) {
        weights[sorted[i].id] = sorted[i].weight;
        mass += sorted[i].weight;
        if (kept) {
            kept[sorted[i].id] = true;
        }
    }
    int32_t token = -1;
    double  run   = 0.0;
    for (int32_t i = 0; i < n_vocab && run <= u * mass; i++) {
        if (weights[i] > 0.0) {
            token = i; // rounding may leave run just below u x mass: the last kept id stands
            run  += weights[i];
        }
    }
    if (n_kept) {
        *n_kept = count;
    }
    free(sorted);
    free(weights);
    return token;
}
