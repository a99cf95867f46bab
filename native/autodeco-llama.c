// What is asked of llama.cpp itself and not of a sampler: its version, its model, its log.
//
// Knows llama.h, as the stanzas do (autodeco-sampler.c, autodeco-mask.c, autodeco-filters.c), and nothing of rows.

#include "autodeco-impl.h"

#include "ggml.h"
#include "llama.h"

#include <stdio.h>
#include <string.h>

// ---- version and model ------------------------------------------------------------------

const char * autodeco_llama_version(void) {
    return AUTODECO_LLAMA_VERSION;
}

enum autodeco_status autodeco_check_llama(char * err, size_t n_err) {
    const char * loaded = llama_version();
    if (strcmp(loaded, AUTODECO_LLAMA_VERSION) != 0 || strcmp(ggml_version(), AUTODECO_GGML_VERSION) != 0) { // GCOV_EXCL_BR_LINE tests/native/test_refusals.py changes a copy of the library
        return autodeco_fail(AUTODECO_STATUS_VERSION, err, n_err,
                "libautodeco was compiled against llama.cpp %s (ggml %s), loaded is %s (ggml %s); reinstall autodeco-edge",
                AUTODECO_LLAMA_VERSION, AUTODECO_GGML_VERSION, loaded, ggml_version());
    }
    return AUTODECO_STATUS_OK;
}

enum autodeco_status autodeco_heads_check_model(const struct autodeco_heads * heads, const struct llama_model * model, char * err, size_t n_err) {
    char arch[64] = "";
    if (!heads || !model) {
        return autodeco_fail(AUTODECO_STATUS_ARGUMENT, err, n_err, "autodeco_heads_check_model: heads and model must not be NULL");
    }
    llama_model_meta_val_str(model, "general.architecture", arch, sizeof arch);
    if (strcmp(arch, heads->arch) != 0) {
        return autodeco_fail(AUTODECO_STATUS_ARCH, err, n_err,
                "the heads were made for architecture %s, the model is %s; use the heads of this model", heads->arch, arch);
    }
    const int32_t n_embd = llama_model_n_embd(model);
    if (n_embd != heads->n_embd) {
        return autodeco_fail(AUTODECO_STATUS_N_EMBD, err, n_err,
                "the heads read a hidden state of %d, the model's has %d; use the heads of this model", heads->n_embd, n_embd);
    }
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    if (heads->n_vocab != 0 && n_vocab != heads->n_vocab) {
        return autodeco_fail(AUTODECO_STATUS_N_VOCAB, err, n_err,
                "the heads were made for a vocabulary of %d, the model's has %d; use the heads of this model", heads->n_vocab, n_vocab);
    }
    return AUTODECO_STATUS_OK;
}

// ---- log --------------------------------------------------------------------------------

// llama.cpp logs a line for every token drawn in the graph; a callback into Python would cost time there, and lose an
// interrupt that arrives while it runs.

#define N_LINES 12
#define N_LINE  512

// A thread sees its own lines: an error belongs to the call that failed. No lock is needed.
struct log_lines {
    enum ggml_log_level level; // of the line that a continuation goes on
    int32_t             n;     // lines written since the last clear
    char                text[N_LINES][N_LINE];
};

#ifdef _MSC_VER
static __declspec(thread) struct log_lines lines;
#else
static _Thread_local struct log_lines lines;
#endif

static volatile bool verbose;

static const char * trim(const char * text, size_t * n) {
    while (*text == ' ' || *text == '\n' || *text == '\t' || *text == '\r') {
        text++;
    }
    *n = strlen(text);
    while (*n > 0 && strchr(" \n\t\r", text[*n - 1]) != NULL) {
        (*n)--;
    }
    return text;
}

// Bytes of a character that a terminal would obey, or that turns the reading order round; 0 for any other.
// llama.cpp quotes names of files and values out of them.
static size_t acts(const char * at) {
    const unsigned char * c = (const unsigned char *) at;
    if ((c[0] < 0x20 && c[0] != '\n' && c[0] != '\t') || c[0] == 0x7F) {
        return 1;
    }
    if (c[0] == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0) {
        return 2;
    }
    const bool order = c[0] == 0xE2 && ((c[1] == 0x80 && c[2] >= 0xA8 && c[2] <= 0xAE) || (c[1] == 0x81 && c[2] >= 0xA6 && c[2] <= 0xA9));
    return order ? 3 : 0;
}

static void print_safely(const char * text) {
    while (*text != '\0') {
        size_t n = acts(text);
        if (n == 0) {
            fputc(*text++, stderr);
        }
        for (; n > 0; n--) {
            fprintf(stderr, "\\x%02x", (unsigned char) *text++);
        }
    }
    fflush(stderr);
}

static void write_line(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    if (verbose) {
        print_safely(text);
    }
    if (level != GGML_LOG_LEVEL_CONT) {
        lines.level = level;
    }
    size_t n;
    text = trim(text, &n);
    if (n == 0 || (lines.level != GGML_LOG_LEVEL_WARN && lines.level != GGML_LOG_LEVEL_ERROR)) {
        return;
    }
    char * line = lines.text[lines.n++ % N_LINES];
    n = n < N_LINE ? n : N_LINE - 1;
    memcpy(line, text, n);
    line[n] = '\0';
}

void autodeco_log_capture(void) {
    llama_log_set(write_line, NULL);
}

void autodeco_log_set_verbose(bool on) {
    verbose = on;
}

void autodeco_log_clear(void) {
    lines.n = 0;
}

const char * autodeco_log_line(int32_t i) {
    const int32_t first = lines.n > N_LINES ? lines.n - N_LINES : 0;
    return i >= 0 && first + i < lines.n ? lines.text[(first + i) % N_LINES] : NULL;
}
