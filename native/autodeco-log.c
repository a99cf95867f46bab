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
