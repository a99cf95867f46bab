// The clock, the order of a round, the stock chains, an error line.
//
// Owns which samplers a stock chain is made of. Does not know what is timed.

#define _POSIX_C_SOURCE 200112L // clock_gettime, and snprintf in Apple's headers

#include "bench-util.h"

#include "llama.h"

#include <stdio.h>
#include <time.h>

double bench_now_us(void) {
    struct timespec t;
#ifdef CLOCK_MONOTONIC
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return 1e6 * (double) t.tv_sec + 1e-3 * (double) t.tv_nsec;
}

int32_t bench_order(int32_t round, int32_t i, int32_t n) {
    return (round + (round / n % 2 == 0 ? i : n - 1 - i)) % n;
}

static void add_default(struct llama_sampler * chain) {
    llama_sampler_chain_add(chain, llama_sampler_init_top_k(40));
    llama_sampler_chain_add(chain, llama_sampler_init_top_p(0.95f, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_min_p(0.05f, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_temp(0.8f));
}

struct llama_sampler * bench_stock_chain(enum autodeco_bench_sampler sampler, float temp, float top_p, uint32_t seed) {
    struct llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    if (!chain) {
        return NULL;
    }
    if (sampler == AUTODECO_BENCH_GREEDY) {
        llama_sampler_chain_add(chain, llama_sampler_init_greedy());
        return chain;
    }
    if (sampler == AUTODECO_BENCH_DEFAULT) {
        add_default(chain);
    }
    if (sampler == AUTODECO_BENCH_TEMP_TOP_P) {
        llama_sampler_chain_add(chain, llama_sampler_init_temp(temp));
        llama_sampler_chain_add(chain, llama_sampler_init_top_p(top_p, 1));
    }
    llama_sampler_chain_add(chain, llama_sampler_init_dist(seed));
    return chain;
}

enum autodeco_status bench_fail(enum autodeco_status status, char * err, size_t n_err, const char * message) {
    if (err && n_err > 0) {
        snprintf(err, n_err, "%s", message);
    }
    return status;
}
