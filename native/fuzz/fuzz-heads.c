// What a file of heads can do to the library: loaded from memory, described, and one step taken with it.
//
// Owns the entry that libFuzzer calls; driver.c calls the same one where there is no clang. Bytes behind the
// file seed the step, so that settings, hidden states and logits are hostile too.

#include "autodeco-impl.h"

#include <stdlib.h>
#include <string.h>

#define N_MOST 4096 // wider steps are slow, and no different

int  LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);
bool fuzz_heads(const uint8_t * data, size_t size);

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

// n floats out of the bytes, over and over from `from` on: any bit pattern.
static float * floats(const uint8_t * data, size_t size, size_t from, int32_t n) {
    float * x = malloc((size_t) n * sizeof *x);
    check(x != NULL);
    for (size_t i = 0; i < (size_t) n * sizeof *x; i++) {
        ((uint8_t *) x)[i] = data[(from + i) % size];
    }
    return x;
}

// Logits and hidden states as a model has them, with holes: bit patterns alone are NaN or huge too often.
static void tame(float * x, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (isfinite(x[i]) && i % 8 != 0) {
            x[i] = remainderf(x[i], 16.0f);
        }
    }
}

static struct autodeco_sampler_params settings(const float * x, uint8_t bits) {
    struct autodeco_sampler_params params = {
        .seed = bits, .temp = 1.0f, .top_p = 1.0f, .heads_mode = (enum autodeco_heads_mode) (bits & 3), .logprob = bits & 4,
    };
    if (bits & 8) {
        params.temp  = x[0];
        params.top_p = x[1];
        params.min_p = x[2];
    }
    if (bits & 16) {
        params.temp_min  = x[3];
        params.temp_max  = x[4];
        params.top_p_min = x[5];
        params.top_p_max = x[6];
    }
    return params;
}

static void take_step(const struct autodeco_heads * heads, const uint8_t * data, size_t size) {
    const int32_t n_embd  = autodeco_heads_n_embd(heads);
    const int32_t n_vocab = autodeco_heads_n_vocab(heads) ? autodeco_heads_n_vocab(heads) : 600;
    if (n_embd > N_MOST || n_vocab > N_MOST || autodeco_heads_n_hidden(heads) > N_MOST) {
        return;
    }
    const uint8_t bits = data[size - 1];
    float * hidden = floats(data, size, size / 2, n_embd);
    float * logits = floats(data, size, size / 3 + bits, n_vocab);
    float * x      = floats(data, size, bits, 7);
    if (bits & 32) {
        tame(hidden, n_embd);
        tame(logits, n_vocab);
    }
    struct autodeco_step step;
    const struct autodeco_kernels * set = autodeco_kernels_get(bits % 3);
    const enum autodeco_status status = autodeco_step_once(heads, settings(x, bits), set ? set->name : NULL, hidden, logits, n_vocab, bits, 1 + bits % 5, &step);
    if (status == AUTODECO_STATUS_OK) {
        check(step.token >= 0 && step.token < n_vocab && step.n_kept >= 1 && step.n_kept <= n_vocab);
        check(isnan(step.temp)  || (step.temp  >= 0.0f && step.temp  <= 2.0f));
        check(isnan(step.top_p) || (step.top_p >= 0.0f && step.top_p <= 1.0f));
    } else {
        check(status == AUTODECO_STATUS_NO_LOGIT && step.token == -1);
    }
    free(hidden);
    free(logits);
    free(x);
}

// Whether these were heads.
bool fuzz_heads(const uint8_t * data, size_t size) {
    struct autodeco_heads * heads = NULL;
    char err[256] = "";
    const enum autodeco_status status = autodeco_heads_load_from_memory(data, size, &heads, err, sizeof err);
    check((status == AUTODECO_STATUS_OK) == (heads != NULL));
    if (status != AUTODECO_STATUS_OK) {
        check(status == AUTODECO_STATUS_FORMAT || status == AUTODECO_STATUS_NO_HEADS || status == AUTODECO_STATUS_MEMORY);
        check(strlen(err) > 0);
        return false;
    }
    char text[128];
    check(autodeco_heads_desc(heads, text, sizeof text) > 0);
    check(autodeco_heads_memory(heads) < 65536 + 64 * size); // rows are padded to 64 bytes
    take_step(heads, data, size);
    autodeco_heads_free(heads);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    fuzz_heads(data, size);
    return 0;
}
