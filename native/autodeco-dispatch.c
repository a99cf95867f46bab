// Which kernels this CPU runs.
//
// Owns the choice among the compiled sets of autodeco-kernels.c. One binary serves every CPU of
// its architecture: nothing is compiled for the machine it happens to be built on.

#include "autodeco-kernels.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

extern const struct autodeco_kernels autodeco_kernels_baseline;

#ifdef AUTODECO_KERNELS_X86

extern const struct autodeco_kernels autodeco_kernels_avx2;
extern const struct autodeco_kernels autodeco_kernels_avx512;

#ifdef _MSC_VER
#    include <intrin.h>
static void cpuid(int leaf, int out[4]) { __cpuidex(out, leaf, 0); }
static uint64_t enabled_state(void)     { return _xgetbv(0); }
#else
#    include <cpuid.h>
static void cpuid(int leaf, int out[4]) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid_count((unsigned) leaf, 0, &a, &b, &c, &d);
    out[0] = (int) a; out[1] = (int) b; out[2] = (int) c; out[3] = (int) d;
}
static uint64_t enabled_state(void) {
    uint32_t lo, hi;
    __asm__ volatile ("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t) hi << 32 | lo;
}
#endif

static bool has_bits(int value, int bits) {
    return (value & bits) == bits;
}

// The instructions, and the operating system's promise to save their registers.
static void find_features(bool * avx2, bool * avx512) {
    int one[4];
    int seven[4];
    cpuid(1, one);
    cpuid(7, seven);
    *avx2 = *avx512 = false;
    if (!has_bits(one[2], 1 << 27)) { // OSXSAVE: without it xgetbv traps. GCOV_EXCL_BR_LINE a matter of the processor
        return; // GCOV_EXCL_LINE likewise
    }
    const uint64_t state = enabled_state();
    const bool fma_f16c = has_bits(one[2], 1 << 12 | 1 << 29);
    *avx2   = (state & 0x06) == 0x06 && fma_f16c && has_bits(seven[1], 1 << 5);  // GCOV_EXCL_BR_LINE likewise
    *avx512 = (state & 0xe6) == 0xe6 && *avx2 && has_bits(seven[1], 1 << 16); // GCOV_EXCL_BR_LINE likewise
}

#endif

const struct autodeco_kernels * autodeco_kernels_get(int32_t i) {
    const struct autodeco_kernels * found[3];
    int32_t n = 0;
#ifdef AUTODECO_KERNELS_X86
    bool avx2;
    bool avx512;
    find_features(&avx2, &avx512);
    if (avx512) found[n++] = &autodeco_kernels_avx512; // GCOV_EXCL_BR_LINE likewise
    if (avx2)   found[n++] = &autodeco_kernels_avx2;   // GCOV_EXCL_BR_LINE likewise
#endif
    found[n++] = &autodeco_kernels_baseline;
    return i >= 0 && i < n ? found[i] : NULL;
}

const struct autodeco_kernels * autodeco_kernels_find(const char * name) {
    if (!name) {
        name = getenv("AUTODECO_KERNELS");
    }
    if (!name) {
        return autodeco_kernels_get(0);
    }
    const struct autodeco_kernels * kernels;
    for (int32_t i = 0; (kernels = autodeco_kernels_get(i)) != NULL; i++) {
        if (strcmp(kernels->name, name) == 0) {
            return kernels;
        }
    }
    return &autodeco_kernels_baseline;
}
