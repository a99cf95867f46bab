// The inner loops, compiled once an instruction set.
//
// Owns what touches every logit or every weight of a head. Knows 16-lane vectors and nothing of
// rows, threads or ggml. CMake compiles this file several times, each with other compiler flags
// and another AUTODECO_KERNELS_NAME; autodeco-dispatch.c picks one at run time.
//
// A tile is AUTODECO_N_TILE logits. Weights are powers of two, 2^z with z = (l - m) c and
// c = log2(e) / T, so that exp(x / T) costs no multiplication of its own.

#include "autodeco-kernels.h"
#include "autodeco-simd.h"

_Static_assert(VF_LANES == AUTODECO_N_VECTOR, "callers pad to the vectors of autodeco-simd.h");

// ---- 2^z ----------------------------------------------------------------------------------

// 2^z = 2^n 2^f, n the nearest integer: splits off n and returns f in [-1/2, 1/2].
VF_INLINE vf split_exponent(vf z, vf * n) {
    *n = vf_round(z);
    return vf_sub(z, *n);
}

// Minimax polynomials of 2^f with the constant held at 1, so that the largest logit weighs exactly 1.
VF_INLINE vf exp2_fine(vf z) { // 9e-8 relative
    vf n;
    const vf f = split_exponent(vf_max(z, vf_set(AUTODECO_MIN_Z)), &n);
    vf p = vf_set(1.3264727e-3f);
    p = vf_fma(p, f, vf_set(9.6715130e-3f));
    p = vf_fma(p, f, vf_set(5.5507336e-2f));
    p = vf_fma(p, f, vf_set(2.4022242e-1f));
    p = vf_fma(p, f, vf_set(6.9314700e-1f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_ldexp(p, n);
}

VF_INLINE vf exp2_fair(vf z) { // 3e-6 relative: for the log-probability, which decides nothing
    vf n;
    const vf f = split_exponent(vf_max(z, vf_set(AUTODECO_MIN_Z)), &n);
    vf p = vf_set(9.5828529e-3f);
    p = vf_fma(p, f, vf_set(5.5906426e-2f));
    p = vf_fma(p, f, vf_set(2.4024099e-1f));
    p = vf_fma(p, f, vf_set(6.9312418e-1f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_ldexp(p, n);
}

VF_INLINE vf exp2_rough(vf z) { // 1e-4 relative, z in [AUTODECO_MIN_Z, 0]
    vf n;
    const vf f = split_exponent(z, &n);
    vf p = vf_set(5.5008933e-2f);
    p = vf_fma(p, f, vf_set(2.4221097e-1f));
    p = vf_fma(p, f, vf_set(6.9328290e-1f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_ldexp(p, n);
}

// ---- tiles of logits ------------------------------------------------------------------------

static float tile_max(const float * logits) {
    vf m0 = vf_set(-INFINITY);
    vf m1 = m0;
    for (int i = 0; i < AUTODECO_N_TILE; i += 2 * VF_LANES) {
        m0 = vf_max(vf_load(logits + i), m0); // a NaN leaves the maximum alone
        m1 = vf_max(vf_load(logits + i + VF_LANES), m1);
    }
    return vf_top(vf_max(m0, m1));
}

VF_INLINE void scale_tile(const float * logits, float c, struct autodeco_tile * out, int one) {
    const float m = tile_max(logits);
    const vf vm = vf_set(m);
    const vf vc = vf_set(-c);
    const vf v1 = vf_set(-AUTODECO_LOG2E);
    vf sum = vf_set(0.0f), sum_sq = sum, sum_zw = sum, sum_one = sum;
    for (int i = 0; i < AUTODECO_N_TILE; i += VF_LANES) {
        const vf x = vf_sub(vm, vf_load(logits + i)); // this way round the load is part of the subtraction
        const vf z = vf_max(vf_mul(x, vc), vf_set(AUTODECO_MIN_Z));
        const vf w = exp2_fine(z);
        sum     = vf_add(sum, w);
        sum_sq  = vf_fma(w, w, sum_sq);
        sum_zw  = vf_fma(w, z, sum_zw);
        if (one) {
            sum_one = vf_add(sum_one, exp2_fair(vf_mul(x, v1)));
        }
    }
    out->max     = m;
    out->sum     = vf_sum(sum);
    out->sum_sq  = vf_sum(sum_sq);
    out->sum_zw  = vf_sum(sum_zw);
    out->sum_one = vf_sum(sum_one);
}

static void scale(const float * logits, float c, bool one, struct autodeco_tile * out) {
    if (one) {
        scale_tile(logits, c, out, 1);
    } else {
        scale_tile(logits, c, out, 0);
    }
}

// g(r) = r ln(1 + 1/r) with r = q / 1e-8 = 2^y, y = (l - m) c + k. With a = 2^-|y| no logarithm and
// no division is left: g = M(a) for y >= 0, a (a M(a) + |y| ln 2) below, M(a) = ln(1 + a) / a.
static float guard(const float * logits, float m, float c, float k) {
    const vf vm = vf_set(m);
    const vf vc = vf_set(-c);
    const vf vk = vf_set(k);
    vf sum = vf_set(0.0f);
    for (int i = 0; i < AUTODECO_N_TILE; i += VF_LANES) {
        const vf y = vf_max(vf_fma(vf_sub(vm, vf_load(logits + i)), vc, vk), vf_set(AUTODECO_MIN_Z));
        const vf t = vf_negabs(y);
        const vf a = exp2_rough(t);
        vf p = vf_set(-7.6268494e-2f); // M, 3e-4 absolute
        p = vf_fma(p, a, vf_set(2.5692225e-1f));
        p = vf_fma(p, a, vf_set(-4.8750657e-1f));
        p = vf_fma(p, a, vf_set(9.9966848e-1f));
        const vf below = vf_mul(a, vf_fma(a, p, vf_mul(t, vf_set(-AUTODECO_LN2))));
        sum = vf_add(sum, vf_if_ge(y, vf_set(0.0f), p, below));
    }
    return vf_sum(sum);
}

// Where no logit reaches hi (`sums` is false) nothing is summed. No branch inside: on logits never seen
// before, a wrongly predicted one costs more than an exponential.
VF_INLINE struct autodeco_split split_tile(const float * logits, float m, float c, float lo, float hi, int32_t first, int32_t * ids, int sums) {
    const vf vm = vf_set(m);
    const vf vc = vf_set(-c);
    const vf vlo = vf_set(lo);
    const vf vhi = vf_set(hi);
    vf mass = vf_set(0.0f);
    struct autodeco_split out = { 0.0f, 0, 0 };
    for (int i = 0; i < AUTODECO_N_TILE; i += VF_LANES) {
        const vf l = vf_load(logits + i);
        const uint32_t from_lo = vf_bits_ge(l, vlo);
        const uint32_t from_hi = sums ? vf_bits_ge(l, vhi) : 0;
        if (sums) {
            const vf w = exp2_fine(vf_mul(vf_sub(vm, l), vc));
            mass = vf_add(mass, vf_if_ge(l, vhi, w, vf_set(0.0f)));
            out.n_above += count_bits(from_hi);
        }
        out.n_between += vf_append_ids(ids + out.n_between, from_lo & ~from_hi, first + i);
    }
    out.mass = sums ? vf_sum(mass) : 0.0f;
    return out;
}

static struct autodeco_split split(const float * logits, float m, float c, float lo, float hi, bool sums, int32_t first, int32_t * ids) {
    return sums ? split_tile(logits, m, c, lo, hi, first, ids, 1) : split_tile(logits, m, c, lo, hi, first, ids, 0);
}

static void weigh(const float * logits, int32_t n, float m, float c, float * out) {
    const vf vm = vf_set(m);
    const vf vc = vf_set(c);
    for (int32_t i = 0; i < n; i += VF_LANES) {
        vf_store(out + i, exp2_fine(vf_mul(vf_sub(vf_load(logits + i), vm), vc)));
    }
}

// ---- rows of a head -------------------------------------------------------------------------

// Some rows at once share each load of x; the last group may be smaller. After a model's weights have gone
// through the caches, those of the heads come from memory: fetched 8 kB ahead, in 2/3 of the time.
#if NF_LANES == VF_LANES
#    define N_GROUP 8
#else
#    define N_GROUP 4
#endif
#define N_AHEAD (8192 / N_GROUP) // bytes of each row

// x[n] ends anywhere; the rows are padded. The last vector of x, with zeros behind it.
VF_INLINE vf load_tail(const float * x, int32_t n) {
    float tail[VF_LANES] = { 0 };
    memcpy(tail, x, (size_t) n * sizeof *x);
    return vf_load(tail);
}

#define DEFINE_DOT(name, element, from)                                                                                   \
static void name(const void * weights, size_t stride, int32_t n_rows, int32_t n, const float * x, float * out) {          \
    for (int32_t r = 0; r < n_rows; r += N_GROUP) {                                                                       \
        const int32_t n_group = n_rows - r < N_GROUP ? n_rows - r : N_GROUP;                                              \
        const element * w[N_GROUP];                                                                                       \
        vf sum[N_GROUP];                                                                                                  \
        for (int g = 0; g < N_GROUP; g++) {                                                                               \
            w[g]   = (const element *) ((const char *) weights + (size_t) (r + (g < n_group ? g : 0)) * stride);          \
            sum[g] = vf_set(0.0f);                                                                                        \
        }                                                                                                                 \
        int32_t i = 0;                                                                                                    \
        for (; i + VF_LANES <= n; i += VF_LANES) {                                                                        \
            const vf h = vf_load(x + i);                                                                                  \
            for (int g = 0; g < N_GROUP; g++) {                                                                           \
                prefetch((const char *) (w[g] + i) + N_AHEAD);                                                            \
                sum[g] = vf_fma(from(w[g] + i), h, sum[g]);                                                               \
            }                                                                                                             \
        }                                                                                                                 \
        if (i < n) {                                                                                                      \
            const vf h = load_tail(x + i, n - i);                                                                         \
            for (int g = 0; g < N_GROUP; g++) {                                                                           \
                sum[g] = vf_fma(from(w[g] + i), h, sum[g]);                                                               \
            }                                                                                                             \
        }                                                                                                                 \
        for (int g = 0; g < n_group; g++) {                                                                               \
            out[r + g] = vf_sum(sum[g]);                                                                                  \
        }                                                                                                                 \
    }                                                                                                                     \
}

DEFINE_DOT(dot_f32,  float,    vf_load)
DEFINE_DOT(dot_f16,  uint16_t, vf_from_f16)
DEFINE_DOT(dot_bf16, uint16_t, vf_from_bf16)

static void dot_q8_0(const void * weights, size_t stride, int32_t n_rows, int32_t n, const float * x, float * out) {
    for (int32_t r = 0; r < n_rows; r++) {
        const char * block = (const char *) weights + (size_t) r * stride;
        vf sum = vf_set(0.0f);
        for (int32_t i = 0; i < n; i += AUTODECO_Q8_BLOCK, block += AUTODECO_Q8_BYTES) {
            const int8_t * q = (const int8_t *) block + 2;
            prefetch(block + N_AHEAD);
            vf part = vf_mul(vf_from_i8(q), vf_load(x + i));
            part = vf_fma(vf_from_i8(q + VF_LANES), vf_load(x + i + VF_LANES), part);
            sum  = vf_fma(part, vf_set(half_to_float(block)), sum);
        }
        out[r] = vf_sum(sum);
    }
}

// ---- units of a head for many hidden states --------------------------------------------------

// N_UNITS units times N_ROWS hidden states at once, each sum in registers of its own: a weight is read and converted once for
// all of them, and a block's weights stay in the first-level cache until the last hidden state has had them. The terms of a
// sum and their order are those of dot_*, so its bits are too, whatever stands beside it in the block. As many sums as the
// registers hold: with 16 of them, two or four to a sum, 12 stay for sums.
#if NF_LANES == VF_LANES
#    define N_UNITS 4
#    define N_ROWS  4
#elif 2 * NF_LANES == VF_LANES
#    define N_UNITS 3
#    define N_ROWS  2
#else
#    define N_UNITS 1
#    define N_ROWS  2
#endif

// Of n_units <= N_UNITS units; those that are not there are the first one again, and dropped. n_r, a constant: of x and out.
// Register by register, not vector by vector: the loads of x are then shared without more registers than there are.
#define DEFINE_BLOCK(name, element, convert, from)                                                                        \
VF_INLINE void name(const char * weights, size_t stride, int32_t n_units, int32_t n, const float * const * x,             \
        float * const * out, int32_t unit, const int n_r) {                                                               \
    const element * w[N_UNITS];                                                                                           \
    vf sum[N_UNITS][N_ROWS];                                                                                              \
    for (int u = 0; u < N_UNITS; u++) {                                                                                   \
        w[u] = (const element *) (weights + (size_t) (u < n_units ? u : 0) * stride);                                     \
        for (int r = 0; r < n_r; r++) {                                                                                   \
            sum[u][r] = vf_set(0.0f);                                                                                     \
        }                                                                                                                 \
    }                                                                                                                     \
    int32_t i = 0;                                                                                                        \
    for (; i + VF_LANES <= n; i += VF_LANES) {                                                                            \
        for (int k = 0; k < VF_PARTS; k++) {                                                                              \
            nf h[N_ROWS];                                                                                                 \
            for (int r = 0; r < n_r; r++) {                                                                               \
                h[r] = nf_load(x[r] + i + k * NF_LANES);                                                                  \
            }                                                                                                             \
            for (int u = 0; u < N_UNITS; u++) {                                                                           \
                const nf a = convert(w[u] + i + k * NF_LANES);                                                            \
                for (int r = 0; r < n_r; r++) {                                                                           \
                    sum[u][r].part[k] = nf_fma(a, h[r], sum[u][r].part[k]);                                               \
                }                                                                                                         \
            }                                                                                                             \
        }                                                                                                                 \
        for (int u = 0; u < N_UNITS; u++) {                                                                               \
            prefetch((const char *) (w[u] + i) + N_AHEAD);                                                                \
        }                                                                                                                 \
    }                                                                                                                     \
    for (int r = 0; r < n_r && i < n; r++) {                                                                              \
        const vf h = load_tail(x[r] + i, n - i);                                                                          \
        for (int u = 0; u < N_UNITS; u++) {                                                                               \
            sum[u][r] = vf_fma(from(w[u] + i), h, sum[u][r]);                                                             \
        }                                                                                                                 \
    }                                                                                                                     \
    for (int u = 0; u < n_units; u++) {                                                                                   \
        for (int r = 0; r < n_r; r++) {                                                                                   \
            out[r][unit + u] = vf_sum(sum[u][r]);                                                                         \
        }                                                                                                                 \
    }                                                                                                                     \
}

DEFINE_BLOCK(block_f32,  float,    nf_load,      vf_load)
DEFINE_BLOCK(block_f16,  uint16_t, nf_from_f16,  vf_from_f16)
DEFINE_BLOCK(block_bf16, uint16_t, nf_from_bf16, vf_from_bf16)

VF_INLINE void block_q8_0(const char * weights, size_t stride, int32_t n_units, int32_t n, const float * const * x,
        float * const * out, int32_t unit, const int n_r) {
    for (int u = 0; u < n_units; u++) {
        const char * block = weights + (size_t) u * stride;
        vf sum[N_ROWS];
        for (int r = 0; r < n_r; r++) {
            sum[r] = vf_set(0.0f);
        }
        for (int32_t i = 0; i < n; i += AUTODECO_Q8_BLOCK, block += AUTODECO_Q8_BYTES) {
            const int8_t * q = (const int8_t *) block + 2;
            prefetch(block + N_AHEAD);
            const vf low  = vf_from_i8(q);
            const vf high = vf_from_i8(q + VF_LANES);
            const vf d    = vf_set(half_to_float(block));
            for (int r = 0; r < n_r; r++) {
                const vf part = vf_fma(high, vf_load(x[r] + i + VF_LANES), vf_mul(low, vf_load(x[r] + i)));
                sum[r] = vf_fma(part, d, sum[r]);
            }
        }
        for (int r = 0; r < n_r; r++) {
            out[r][unit + u] = vf_sum(sum[r]);
        }
    }
}

#define DEFINE_DOTS(name, block)                                                                                          \
static void name(const void * weights, size_t stride, int32_t n_units, int32_t n, const float * const * x,                \
        float * const * out, int32_t n_rows) {                                                                            \
    for (int32_t unit = 0; unit < n_units; unit += N_UNITS) {                                                             \
        const char *  w       = (const char *) weights + (size_t) unit * stride;                                          \
        const int32_t n_group = n_units - unit < N_UNITS ? n_units - unit : N_UNITS;                                      \
        int32_t r = 0;                                                                                                    \
        for (; r + N_ROWS <= n_rows; r += N_ROWS) {                                                                       \
            block(w, stride, n_group, n, x + r, out + r, unit, N_ROWS);                                                   \
        }                                                                                                                 \
        if (r + 2 <= n_rows) {                                                                                            \
            block(w, stride, n_group, n, x + r, out + r, unit, 2);                                                        \
            r += 2;                                                                                                       \
        }                                                                                                                 \
        if (r < n_rows) {                                                                                                 \
            block(w, stride, n_group, n, x + r, out + r, unit, 1);                                                        \
        }                                                                                                                 \
    }                                                                                                                     \
}

DEFINE_DOTS(dots_f32,  block_f32)
DEFINE_DOTS(dots_f16,  block_f16)
DEFINE_DOTS(dots_bf16, block_bf16)
DEFINE_DOTS(dots_q8_0, block_q8_0)

// ---- the table --------------------------------------------------------------------------------

#define JOIN_(a, b)   a##b
#define JOIN(a, b)    JOIN_(a, b)
#define QUOTE_(a)     #a
#define QUOTE(a)      QUOTE_(a)

const struct autodeco_kernels JOIN(autodeco_kernels_, AUTODECO_KERNELS_NAME) = {
    .name  = QUOTE(AUTODECO_KERNELS_NAME),
    .dot   = { dot_f32, dot_f16, dot_bf16, dot_q8_0 },
    .dots  = { dots_f32, dots_f16, dots_bf16, dots_q8_0 },
    .scale = scale,
    .guard = guard,
    .split = split,
    .weigh = weigh,
};
