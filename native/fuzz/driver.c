// A fuzzer for compilers without libFuzzer: mutates the files of a corpus, the same way on every run.
//
// Owns the mutations, the count and the clock. Execution i of a seed does not depend on those before it, so that
// a finding is repeated by its number, and a long run can be cut into ranges.
//
//     fuzz-heads CORPUS N_EXECUTIONS [SEED [FIRST]]

#define _POSIX_C_SOURCE 200809L

#include "autodeco-impl.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool fuzz_heads(const uint8_t * data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void));

#define N_SECONDS 1.0 // of the processor: no execution may take longer
#define N_GROW    64  // bytes a mutation may add

struct file {
    uint8_t * data;
    size_t    size;
};

// Those named ok-* come first: sound files, which half of the executions begin with.
struct corpus {
    struct file * files;
    int           n;
    int           n_sound;
};

static uint64_t seed, execution, n_loaded;

static void report(void) {
    fprintf(stderr, "finding in execution %llu of seed %llu: repeat with N_EXECUTIONS 1 and FIRST %llu\n",
            (unsigned long long) execution, (unsigned long long) seed, (unsigned long long) execution);
}

// ---- corpus -----------------------------------------------------------------------------

static struct file read_file(const char * folder, const char * name) {
    char path[1024];
    struct file file = { 0 };
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE * f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    file.size = (size_t) ftell(f);
    file.data = malloc(file.size + 1);
    rewind(f);
    if (!file.data || fread(file.data, 1, file.size, f) != file.size) {
        exit(1);
    }
    fclose(f);
    return file;
}

static int is_gguf(const struct dirent * entry) {
    const size_t n = strlen(entry->d_name);
    return n > 5 && strcmp(entry->d_name + n - 5, ".gguf") == 0;
}

static bool is_sound(const char * name) {
    return strncmp(name, "ok-", 3) == 0;
}

static int sound_first(const struct dirent ** a, const struct dirent ** b) {
    const int x = is_sound((*b)->d_name) - is_sound((*a)->d_name);
    return x ? x : strcmp((*a)->d_name, (*b)->d_name);
}

static struct corpus read_corpus(const char * folder) {
    struct dirent ** names;
    struct corpus corpus = { .n = scandir(folder, &names, is_gguf, sound_first) };
    if (corpus.n <= 0) {
        fprintf(stderr, "%s: no .gguf files\n", folder);
        exit(1);
    }
    corpus.files = malloc((size_t) corpus.n * sizeof *corpus.files);
    for (int i = 0; i < corpus.n; i++) {
        corpus.files[i]  = read_file(folder, names[i]->d_name);
        corpus.n_sound  += is_sound(names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return corpus;
}

// ---- mutations --------------------------------------------------------------------------

static uint64_t next(uint64_t * state) { // splitmix64
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static const uint64_t NUMBERS[] = {
    0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 31, 32, 33, 63, 64, 127, 128, 255, 256, 1024, 1025, 65535, 65536, 65537, 1u << 20,
    (1u << 20) + 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 1ull << 40, 1ull << 61, 1ull << 62, INT64_MAX,
    1ull << 63, UINT64_MAX - 31, UINT64_MAX, 0x7f800000, 0x7fc00000, 0x7f7fffff, 0x00800000,
};

static void overwrite(struct file * f, uint64_t * rng) {
    const size_t   n     = (size_t) 1 << next(rng) % 4;
    const uint64_t value = next(rng) % 4 == 0 ? next(rng) % (f->size + 1) : NUMBERS[next(rng) % (sizeof NUMBERS / sizeof *NUMBERS)];
    if (f->size >= n) {
        memcpy(f->data + next(rng) % (f->size - n + 1), &value, n);
    }
}

static void insert(struct file * f, uint64_t * rng) {
    const size_t at = next(rng) % (f->size + 1);
    const size_t n  = 1 + next(rng) % 8;
    memmove(f->data + at + n, f->data + at, f->size - at);
    memset(f->data + at, (int) (next(rng) & 0xff), n);
    f->size += n;
}

static void erase(struct file * f, uint64_t * rng) {
    const size_t at = next(rng) % f->size;
    const size_t n  = 1 + next(rng) % 16;
    const size_t m  = n < f->size - at ? n : f->size - at;
    memmove(f->data + at, f->data + at + m, f->size - at - m);
    f->size -= m;
}

static void splice(struct file * f, const struct file * other, uint64_t * rng) {
    if (other->size == 0) {
        return;
    }
    const size_t to   = next(rng) % f->size;
    const size_t from = next(rng) % other->size;
    const size_t most = f->size - to < other->size - from ? f->size - to : other->size - from;
    memcpy(f->data + to, other->data + from, 1 + next(rng) % most);
}

static void mutate(struct file * f, const struct file * other, uint64_t * rng) {
    if (f->size == 0) {
        return;
    }
    switch (next(rng) % 12) {
        case 0:  f->data[next(rng) % f->size] ^= (uint8_t) (1u << next(rng) % 8); break;
        case 1:  f->data[next(rng) % f->size] = (uint8_t) next(rng); break;
        case 2:  f->size = next(rng) % f->size; break;
        case 3:  insert(f, rng); break;
        case 4:  erase(f, rng); break;
        case 5:  splice(f, other, rng); break;
        case 6:  f->data[f->size - 1] = (uint8_t) next(rng); break; // the settings of the step
        default: overwrite(f, rng); break;
    }
}

// ---- runs -------------------------------------------------------------------------------

static const struct file * pick(const struct corpus * corpus, uint64_t * rng) {
    const bool sound = corpus->n_sound > 0 && next(rng) % 2 == 0;
    return &corpus->files[next(rng) % (uint64_t) (sound ? corpus->n_sound : corpus->n)];
}

// The input in a block of its exact size, for the sanitizer to guard.
static void run_one(const struct corpus * corpus) {
    uint64_t rng = seed * 0xD1342543DE82EF95u + execution;
    const struct file * from = pick(corpus, &rng);
    const uint64_t n_mutations = next(&rng) % 4;
    struct file f = { malloc(from->size + N_GROW), from->size };
    memcpy(f.data, from->data, from->size);
    for (uint64_t i = 0; i < n_mutations; i++) {
        mutate(&f, pick(corpus, &rng), &rng);
    }
    uint8_t * exact = malloc(f.size);
    memcpy(exact, f.data, f.size);
    n_loaded += fuzz_heads(exact, f.size);
    free(exact);
    free(f.data);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: fuzz-heads CORPUS N_EXECUTIONS [SEED [FIRST]]\n");
        return 2;
    }
    struct corpus  corpus = read_corpus(argv[1]);
    const uint64_t count = strtoull(argv[2], NULL, 10);
    seed      = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    execution = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
    __sanitizer_set_death_callback(report);
    const double begin   = now(CLOCK_MONOTONIC);
    double       slowest = 0.0;
    for (const uint64_t end = execution + count; execution < end; execution++) {
        const double before = now(CLOCK_PROCESS_CPUTIME_ID); // the machine may be busy with something else
        run_one(&corpus);
        const double took = now(CLOCK_PROCESS_CPUTIME_ID) - before;
        slowest = took > slowest ? took : slowest;
        if (took > N_SECONDS) {
            fprintf(stderr, "an execution took %.1f s\n", took);
            report();
            return 1;
        }
    }
    const double took = now(CLOCK_MONOTONIC) - begin;
    printf("%llu executions from %d files, %llu loaded, in %.1f s (%.0f a second), the slowest %.1f ms: no finding\n",
            (unsigned long long) count, corpus.n, (unsigned long long) n_loaded, took, (double) count / took, 1e3 * slowest);
    for (int i = 0; i < corpus.n; i++) {
        free(corpus.files[i].data);
    }
    free(corpus.files);
    return 0;
}
