// Sixteen floats at a time, in whatever registers the target has.
//
// Owns the few vector operations that autodeco-kernels.c is written in. Included by that file
// alone, which is compiled once an instruction set: the macros of the compiler (__AVX512F__,
// __AVX2__, __SSE2__, __ARM_NEON) choose the registers here.
//
// A vf is always 16 lanes: one AVX-512 register, two of AVX2, four of SSE or NEON, or sixteen
// plain floats. Lanes are added up in one fixed order, so every set that has FMA computes the
// same bits; SSE2 and plain C round the product too.
//
// NaN: max(x, y) returns y where x is NaN, comparisons are false.

#ifndef AUTODECO_SIMD_H
#define AUTODECO_SIMD_H

#include <stdint.h>
#include <string.h>

#define VF_LANES 16

// Not a hint: a vf passed through memory would cost more than the arithmetic.
#ifdef _MSC_VER
#    define VF_INLINE static __forceinline
#else
#    define VF_INLINE static inline __attribute__((always_inline))
#endif

#if defined(__SSE2__) || defined(_M_X64)

#include <immintrin.h>
VF_INLINE float four_sum(__m128 a) { a = _mm_add_ps(a, _mm_movehl_ps(a, a)); return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1))); }
VF_INLINE float four_max(__m128 a) { a = _mm_max_ps(a, _mm_movehl_ps(a, a)); return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1))); }
#if defined(__AVX2__)
VF_INLINE float eight_sum(__m256 a) { return four_sum(_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1))); }
VF_INLINE float eight_max(__m256 a) { return four_max(_mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1))); }
#endif

#endif

#if defined(__AVX512F__)

typedef __m512 nf;
#define NF_LANES 16
VF_INLINE nf       nf_load   (const float * p)     { return _mm512_loadu_ps(p); }
VF_INLINE void     nf_store  (float * p, nf a)     { _mm512_storeu_ps(p, a); }
VF_INLINE nf       nf_set    (float x)             { return _mm512_set1_ps(x); }
VF_INLINE nf       nf_add    (nf a, nf b)          { return _mm512_add_ps(a, b); }
VF_INLINE nf       nf_sub    (nf a, nf b)          { return _mm512_sub_ps(a, b); }
VF_INLINE nf       nf_mul    (nf a, nf b)          { return _mm512_mul_ps(a, b); }
VF_INLINE nf       nf_fma    (nf a, nf b, nf c)    { return _mm512_fmadd_ps(a, b, c); }
VF_INLINE nf       nf_max    (nf a, nf b)          { return _mm512_max_ps(a, b); }
VF_INLINE nf       nf_round  (nf a)                { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VF_INLINE nf       nf_ldexp  (nf a, nf n)          { return _mm512_scalef_ps(a, n); }
VF_INLINE nf       nf_negabs (nf a)                { return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN))); }
VF_INLINE nf       nf_if_ge  (nf a, nf b, nf x, nf y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), y, x); }
VF_INLINE uint32_t nf_bits_ge(nf a, nf b)          { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
VF_INLINE nf       nf_from_f16 (const uint16_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
VF_INLINE nf       nf_from_bf16(const uint16_t * p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) p)), 16)); }
VF_INLINE nf       nf_from_i8  (const int8_t * p)   { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p))); }
VF_INLINE float    nf_reduce_add(nf a)             { return eight_sum(_mm256_add_ps(_mm512_castps512_ps256(a), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)))); }
VF_INLINE float    nf_reduce_max(nf a)             { return eight_max(_mm256_max_ps(_mm512_castps512_ps256(a), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)))); }

#elif defined(__AVX2__)

typedef __m256 nf;
#define NF_LANES 8
VF_INLINE nf       nf_load   (const float * p)     { return _mm256_loadu_ps(p); }
VF_INLINE void     nf_store  (float * p, nf a)     { _mm256_storeu_ps(p, a); }
VF_INLINE nf       nf_set    (float x)             { return _mm256_set1_ps(x); }
VF_INLINE nf       nf_add    (nf a, nf b)          { return _mm256_add_ps(a, b); }
VF_INLINE nf       nf_sub    (nf a, nf b)          { return _mm256_sub_ps(a, b); }
VF_INLINE nf       nf_mul    (nf a, nf b)          { return _mm256_mul_ps(a, b); }
VF_INLINE nf       nf_fma    (nf a, nf b, nf c)    { return _mm256_fmadd_ps(a, b, c); }
VF_INLINE nf       nf_max    (nf a, nf b)          { return _mm256_max_ps(a, b); }
VF_INLINE nf       nf_round  (nf a)                { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VF_INLINE nf       nf_ldexp  (nf a, nf n)          { return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23))); }
VF_INLINE nf       nf_negabs (nf a)                { return _mm256_or_ps(a, _mm256_set1_ps(-0.0f)); }
VF_INLINE nf       nf_if_ge  (nf a, nf b, nf x, nf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GE_OQ)); }
VF_INLINE uint32_t nf_bits_ge(nf a, nf b)          { return (uint32_t) _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)); }
VF_INLINE nf       nf_from_f16 (const uint16_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
VF_INLINE nf       nf_from_bf16(const uint16_t * p) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) p)), 16)); }
VF_INLINE nf       nf_from_i8  (const int8_t * p)   { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p))); }
VF_INLINE float    nf_reduce_add(nf a)             { return eight_sum(a); }
VF_INLINE float    nf_reduce_max(nf a)             { return eight_max(a); }

#elif defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>
typedef float32x4_t nf;
#define NF_LANES 4
VF_INLINE nf       nf_load   (const float * p)     { return vld1q_f32(p); }
VF_INLINE void     nf_store  (float * p, nf a)     { vst1q_f32(p, a); }
VF_INLINE nf       nf_set    (float x)             { return vdupq_n_f32(x); }
VF_INLINE nf       nf_add    (nf a, nf b)          { return vaddq_f32(a, b); }
VF_INLINE nf       nf_sub    (nf a, nf b)          { return vsubq_f32(a, b); }
VF_INLINE nf       nf_mul    (nf a, nf b)          { return vmulq_f32(a, b); }
VF_INLINE nf       nf_fma    (nf a, nf b, nf c)    { return vfmaq_f32(c, a, b); }
VF_INLINE nf       nf_max    (nf a, nf b)          { return vbslq_f32(vcgtq_f32(a, b), a, b); }
VF_INLINE nf       nf_round  (nf a)                { return vrndnq_f32(a); }
VF_INLINE nf       nf_ldexp  (nf a, nf n)          { return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), vshlq_n_s32(vcvtnq_s32_f32(n), 23))); }
VF_INLINE nf       nf_negabs (nf a)                { return vnegq_f32(vabsq_f32(a)); }
VF_INLINE nf       nf_if_ge  (nf a, nf b, nf x, nf y) { return vbslq_f32(vcgeq_f32(a, b), x, y); }
VF_INLINE uint32_t nf_bits_ge(nf a, nf b)          { static const uint32_t lane[4] = { 1, 2, 4, 8 }; return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), vld1q_u32(lane))); }
VF_INLINE nf       nf_from_f16 (const uint16_t * p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
VF_INLINE nf       nf_from_bf16(const uint16_t * p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
VF_INLINE nf       nf_from_i8  (const int8_t * p)   { int32_t four; memcpy(&four, p, 4); return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)))))); }
VF_INLINE float    nf_reduce_add(nf a)             { const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a)); return vget_lane_f32(b, 0) + vget_lane_f32(b, 1); }
VF_INLINE float    nf_reduce_max(nf a)             { return vmaxvq_f32(a); }

#else // plain C: also what a compiler without intrinsics for its target gets

#if defined(__SSE2__) || defined(_M_X64)

typedef __m128 nf;
#define NF_LANES 4
VF_INLINE nf       nf_load   (const float * p)     { return _mm_loadu_ps(p); }
VF_INLINE void     nf_store  (float * p, nf a)     { _mm_storeu_ps(p, a); }
VF_INLINE nf       nf_set    (float x)             { return _mm_set1_ps(x); }
VF_INLINE nf       nf_add    (nf a, nf b)          { return _mm_add_ps(a, b); }
VF_INLINE nf       nf_sub    (nf a, nf b)          { return _mm_sub_ps(a, b); }
VF_INLINE nf       nf_mul    (nf a, nf b)          { return _mm_mul_ps(a, b); }
VF_INLINE nf       nf_max    (nf a, nf b)          { return _mm_max_ps(a, b); }
VF_INLINE nf       nf_ldexp  (nf a, nf n)          { return _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(a), _mm_slli_epi32(_mm_cvtps_epi32(n), 23))); }
VF_INLINE nf       nf_negabs (nf a)                { return _mm_or_ps(a, _mm_set1_ps(-0.0f)); }
VF_INLINE nf       nf_if_ge  (nf a, nf b, nf x, nf y) { const nf m = _mm_cmpge_ps(a, b); return _mm_or_ps(_mm_and_ps(m, x), _mm_andnot_ps(m, y)); }
VF_INLINE uint32_t nf_bits_ge(nf a, nf b)          { return (uint32_t) _mm_movemask_ps(_mm_cmpge_ps(a, b)); }
VF_INLINE __m128i  sse_load8   (const void * p)     { return _mm_loadl_epi64((const __m128i *) p); }
VF_INLINE nf       nf_from_f16 (const uint16_t * p) { // finite halves only: the loader has seen to it
    const __m128i h    = _mm_unpacklo_epi16(sse_load8(p), _mm_setzero_si128());
    const __m128i size = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x7fff)), 13);
    const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16);
    return _mm_or_ps(_mm_mul_ps(_mm_castsi128_ps(size), _mm_set1_ps(0x1p112f)), _mm_castsi128_ps(sign)); // 127 - 15: the difference of the exponents' bias
}
VF_INLINE nf       nf_from_bf16(const uint16_t * p) { return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), sse_load8(p))); }
VF_INLINE nf       nf_from_i8  (const int8_t * p)   {
    int32_t four;
    memcpy(&four, p, sizeof four);
    const __m128i b = _mm_cvtsi32_si128(four);
    const __m128i w = _mm_unpacklo_epi8(b, b);
    return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(w, w), 24));
}
VF_INLINE float    nf_reduce_add(nf a)             { return four_sum(a); }
VF_INLINE float    nf_reduce_max(nf a)             { return four_max(a); }

#else

typedef float nf;
#define NF_LANES 1
VF_INLINE nf       nf_load   (const float * p)     { return *p; }
VF_INLINE void     nf_store  (float * p, nf a)     { *p = a; }
VF_INLINE nf       nf_set    (float x)             { return x; }
VF_INLINE nf       nf_add    (nf a, nf b)          { return a + b; }
VF_INLINE nf       nf_sub    (nf a, nf b)          { return a - b; }
VF_INLINE nf       nf_mul    (nf a, nf b)          { return a * b; }
VF_INLINE nf       nf_max    (nf a, nf b)          { return a > b ? a : b; }
VF_INLINE nf       nf_ldexp  (nf a, nf n)          { int32_t i; memcpy(&i, &a, 4); i += (int32_t) n * (1 << 23); memcpy(&a, &i, 4); return a; }
VF_INLINE nf       nf_negabs (nf a)                { return a < 0.0f ? a : -a; }
VF_INLINE nf       nf_if_ge  (nf a, nf b, nf x, nf y) { return a >= b ? x : y; }
VF_INLINE uint32_t nf_bits_ge(nf a, nf b)          { return a >= b; }
VF_INLINE nf       nf_from_f16 (const uint16_t * p) { const uint32_t bits = (uint32_t) (*p & 0x7fff) << 13; float x; memcpy(&x, &bits, sizeof x); return (*p & 0x8000 ? -0x1p112f : 0x1p112f) * x; }
VF_INLINE nf       nf_from_bf16(const uint16_t * p) { const uint32_t bits = (uint32_t) *p << 16; float x; memcpy(&x, &bits, sizeof x); return x; }
VF_INLINE nf       nf_from_i8  (const int8_t * p)   { return *p; }
VF_INLINE float    nf_reduce_add(nf a)             { return a; }
VF_INLINE float    nf_reduce_max(nf a)             { return a; }

#endif

VF_INLINE nf nf_fma  (nf a, nf b, nf c) { return nf_add(nf_mul(a, b), c); }
VF_INLINE nf nf_round(nf a)             { const nf big = nf_set(12582912.0f); return nf_sub(nf_add(a, big), big); } // 1.5 x 2^23; for |a| < 2^22

#endif

// ---- sixteen lanes ----------------------------------------------------------------------

#define VF_PARTS (VF_LANES / NF_LANES)

typedef struct { nf part[VF_PARTS]; } vf;

#define VF_MAP(expression) vf r; for (int k = 0; k < VF_PARTS; k++) { r.part[k] = (expression); } return r

VF_INLINE vf vf_load   (const float * p)              { VF_MAP(nf_load(p + k * NF_LANES)); }
VF_INLINE vf vf_set    (float x)                      { VF_MAP(nf_set(x)); }
VF_INLINE vf vf_add    (vf a, vf b)                   { VF_MAP(nf_add(a.part[k], b.part[k])); }
VF_INLINE vf vf_sub    (vf a, vf b)                   { VF_MAP(nf_sub(a.part[k], b.part[k])); }
VF_INLINE vf vf_mul    (vf a, vf b)                   { VF_MAP(nf_mul(a.part[k], b.part[k])); }
VF_INLINE vf vf_fma    (vf a, vf b, vf c)             { VF_MAP(nf_fma(a.part[k], b.part[k], c.part[k])); } // a b + c
VF_INLINE vf vf_max    (vf a, vf b)                   { VF_MAP(nf_max(a.part[k], b.part[k])); }
VF_INLINE vf vf_round  (vf a)                         { VF_MAP(nf_round(a.part[k])); }  // to nearest even
VF_INLINE vf vf_ldexp  (vf a, vf n)                   { VF_MAP(nf_ldexp(a.part[k], n.part[k])); } // a 2^n, normal numbers only
VF_INLINE vf vf_negabs (vf a)                         { VF_MAP(nf_negabs(a.part[k])); } // -|a|
VF_INLINE vf vf_if_ge  (vf a, vf b, vf x, vf y)       { VF_MAP(nf_if_ge(a.part[k], b.part[k], x.part[k], y.part[k])); } // a >= b ? x : y
VF_INLINE vf vf_from_f16 (const uint16_t * p)         { VF_MAP(nf_from_f16 (p + k * NF_LANES)); }
VF_INLINE vf vf_from_bf16(const uint16_t * p)         { VF_MAP(nf_from_bf16(p + k * NF_LANES)); }
VF_INLINE vf vf_from_i8  (const int8_t * p)           { VF_MAP(nf_from_i8  (p + k * NF_LANES)); }

VF_INLINE void vf_store(float * p, vf a) {
    for (int k = 0; k < VF_PARTS; k++) {
        nf_store(p + k * NF_LANES, a.part[k]);
    }
}

// Bit i: a >= b in lane i.
VF_INLINE uint32_t vf_bits_ge(vf a, vf b) {
    uint32_t bits = 0;
    for (int k = 0; k < VF_PARTS; k++) {
        bits |= nf_bits_ge(a.part[k], b.part[k]) << (k * NF_LANES);
    }
    return bits;
}

// Lane i + lane i + 8, then 4, 2, 1 apart: the same tree on every target.
#define VF_REDUCE(a, op) \
    nf r[VF_PARTS]; \
    for (int k = 0; k < VF_PARTS; k++) r[k] = (a).part[k]; \
    for (int half = VF_PARTS / 2; half > 0; half /= 2) { \
        for (int k = 0; k < half; k++) r[k] = nf_##op(r[k], r[k + half]); \
    } \
    return nf_reduce_##op(r[0])

VF_INLINE float vf_sum(vf a) { VF_REDUCE(a, add); }
VF_INLINE float vf_top(vf a) { VF_REDUCE(a, max); }

// One finite half.
VF_INLINE float half_to_float(const void * p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
#if defined(__AVX2__)
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
#else
    const uint32_t bits = (uint32_t) (h & 0x7fff) << 13;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (h & 0x8000 ? -0x1p112f : 0x1p112f) * x;
#endif
}

// ---- memory -----------------------------------------------------------------------------

VF_INLINE void prefetch(const char * p) { // any address: it does not fault
#ifdef _MSC_VER
    (void) p;
#else
    __builtin_prefetch(p);
#endif
}

// ---- bits -------------------------------------------------------------------------------

VF_INLINE int32_t count_bits(uint32_t bits) {
#ifdef _MSC_VER
    return (int32_t) __popcnt(bits);
#else
    return __builtin_popcount(bits);
#endif
}

// Writes first + i for each bit i that is set, ascending, and returns how many. Up to 16 places behind the
// last are overwritten, so that the number of bits needs no branch.
VF_INLINE int32_t vf_append_ids(int32_t * ids, uint32_t bits, int32_t first) {
#if defined(__AVX512F__)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i id   = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32((__mmask16) bits, id));
    return count_bits(bits);
#else
    static const struct { int8_t n, lane[4]; } set[16] = { // bits of a nibble
        { 0, { 0 } }, { 1, { 0 } }, { 1, { 1 } }, { 2, { 0, 1 } }, { 1, { 2 } }, { 2, { 0, 2 } }, { 2, { 1, 2 } }, { 3, { 0, 1, 2 } },
        { 1, { 3 } }, { 2, { 0, 3 } }, { 2, { 1, 3 } }, { 3, { 0, 1, 3 } }, { 2, { 2, 3 } }, { 3, { 0, 2, 3 } }, { 3, { 1, 2, 3 } }, { 4, { 0, 1, 2, 3 } },
    };
    int32_t n = 0;
    for (int32_t i = 0; bits; i += 4, bits >>= 4) {
        for (int32_t k = 0; k < 4; k++) {
            ids[n + k] = first + i + set[bits & 15].lane[k];
        }
        n += set[bits & 15].n;
    }
    return n;
#endif
}

#endif // AUTODECO_SIMD_H
