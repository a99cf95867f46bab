// What both benchmarks share: the clock, the order of a round, the stock chains, an error line.

#ifndef AUTODECO_BENCH_UTIL_H
#define AUTODECO_BENCH_UTIL_H

#include "autodeco-bench.h"

struct llama_sampler;

double bench_now_us(void);

// Which of n contenders runs at place i of a round. The start moves on and the direction alternates, so
// that nobody always finds the caches as the same neighbour left them.
int32_t bench_order(int32_t round, int32_t i, int32_t n);

// A chain of stock samplers; NULL when memory ran out.
struct llama_sampler * bench_stock_chain(enum autodeco_bench_sampler sampler, float temp, float top_p, uint32_t seed);

// Writes one line into err and returns the status.
enum autodeco_status bench_fail(enum autodeco_status status, char * err, size_t n_err, const char * message);

#endif // AUTODECO_BENCH_UTIL_H
