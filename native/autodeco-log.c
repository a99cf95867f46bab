// llama.cpp's log, kept in C. llama.cpp logs a line for every token drawn in the graph; a callback into
// Python would cost time there, and lose an interrupt that arrives while it runs.

#include "autodeco-impl.h"

#include "llama.h"

#include <stdio.h>
#include <string.h>

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

static void write_line(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    if (verbose) {
        fputs(text, stderr);
        fflush(stderr);
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
