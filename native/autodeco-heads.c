// Heads from GGUF: a heads file (tensors), or a single file (metadata arrays inside a model).
//
// Owns validation and memory of struct autodeco_heads. The wide weights stay in the type of the file; everything
// else is F32. Knows docs/format.md; does not know graphs or samplers, nor ggml or llama.cpp. The files are
// untrusted: sizes are compared with the file before memory is asked for, and rows are read where they stay.

#include "autodeco-gguf.h"
#include "autodeco-impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION 1
#define TEMP_SCALE     2.0f    // T = 2 sigmoid(z), equations 2
#define MAX_WIDTH      (1 << 20) // no hidden state or hidden layer is wider
#define MAX_HEADS      (256u << 20) // bytes of all tensors

enum autodeco_status autodeco_fail(enum autodeco_status status, char * err, size_t n_err, const char * fmt, ...) {
    if (err && n_err > 0) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err, n_err, fmt, args);
        va_end(args);
    }
    return status;
}

// ---- names ------------------------------------------------------------------------------

enum { TEMP_FC1, TEMP_FC1_BIAS, TEMP_FC2, TEMP_FC2_BIAS, TOP_P_FC1, TOP_P_EXTRA, TOP_P_FC1_BIAS, TOP_P_FC2, TOP_P_FC2_BIAS, N_TENSORS };

#define TENSOR_NAMES(begin, end)                                                                             \
    begin "temp.fc1.weight" end, begin "temp.fc1.bias" end, begin "temp.fc2.weight" end, begin "temp.fc2.bias" end, \
    begin "top_p.fc1.weight" end, begin "top_p.fc1_extra.weight" end, begin "top_p.fc1.bias" end,            \
    begin "top_p.fc2.weight" end, begin "top_p.fc2.bias" end

static const char * const TENSORS[N_TENSORS] = { TENSOR_NAMES("autodeco.", "") };

static const char * const KEYS[] = {
    "general.alignment",
    "general.architecture",
    "adapter.type",
    "autodeco.format_version",
    "autodeco.architecture",
    "autodeco.embedding_length",
    "autodeco.hidden_length",
    "autodeco.vocab_size",
    "autodeco.temperature.scale",
    "autodeco.mean_temperature",
    "autodeco.mean_top_p",
    "autodeco.top_p.features",
    TENSOR_NAMES("autodeco.tensor.", ".type"),
    TENSOR_NAMES("autodeco.tensor.", ".shape"),
    TENSOR_NAMES("autodeco.tensor.", ".data"),
};

#define N_KEYS ((int) (sizeof KEYS / sizeof *KEYS))

// What a read is about: the file, what its header says, and where to complain.
struct reader {
    const char *                path;
    char *                      err;
    size_t                      n_err;
    bool                        single; // heads in the metadata of a model
    struct autodeco_gguf        gguf;
    struct autodeco_gguf_value  values[sizeof KEYS / sizeof *KEYS];
    struct autodeco_gguf_tensor tensors[N_TENSORS];
};

#define FAIL(r, ...) autodeco_fail(AUTODECO_STATUS_FORMAT, (r)->err, (r)->n_err, __VA_ARGS__)

static enum autodeco_status read_bytes(const struct reader * r, const char * name, uint64_t offset, void * out, size_t n) {
    return autodeco_source_read(&r->gguf.source, offset, out, n) ? AUTODECO_STATUS_OK : autodeco_gguf_fail_read(&r->gguf, name);
}

// ---- metadata ---------------------------------------------------------------------------

// NULL when absent. `key` is one of KEYS.
static const struct autodeco_gguf_value * find_any(const struct reader * r, const char * key) {
    int i = 0;
    while (strcmp(KEYS[i], key) != 0) {
        i++;
    }
    return r->values[i].present ? &r->values[i] : NULL;
}

static bool has_key(const struct reader * r, const char * key) {
    return find_any(r, key) != NULL;
}

// NULL when absent or of another type
static const struct autodeco_gguf_value * find_key(const struct reader * r, const char * key, uint32_t type) {
    const struct autodeco_gguf_value * v = find_any(r, key);
    return v && v->type == type ? v : NULL;
}

static const struct autodeco_gguf_value * find_array(const struct reader * r, const char * key, uint32_t item_type) {
    const struct autodeco_gguf_value * v = find_key(r, key, AUTODECO_GGUF_ARRAY);
    return v && v->item_type == item_type ? v : NULL;
}

static enum autodeco_status read_u32(const struct reader * r, const char * key, uint32_t lo, uint32_t hi, int32_t * out) {
    const struct autodeco_gguf_value * at = find_key(r, key, AUTODECO_GGUF_UINT32);
    uint32_t v;
    if (!at) {
        return FAIL(r, "%s: key %s (u32) is missing or of another type; convert the heads again", r->path, key);
    }
    const enum autodeco_status s = read_bytes(r, key, at->offset, &v, sizeof v);
    if (s == AUTODECO_STATUS_OK && (v < lo || v > hi)) {
        return FAIL(r, "%s: key %s is %u, allowed %u to %u; convert the heads again", r->path, key, v, lo, hi);
    }
    *out = s == AUTODECO_STATUS_OK ? (int32_t) v : 0;
    return s;
}

// NAN when absent or of another type
static enum autodeco_status read_f32(const struct reader * r, const char * key, float * out) {
    const struct autodeco_gguf_value * at = find_key(r, key, AUTODECO_GGUF_FLOAT32);
    *out = NAN;
    return at ? read_bytes(r, key, at->offset, out, sizeof *out) : AUTODECO_STATUS_OK;
}

// optional, in (0, hi]; NAN where the key is absent
static enum autodeco_status read_mean(const struct reader * r, const char * key, float hi, float * out) {
    const enum autodeco_status s = read_f32(r, key, out);
    if (s == AUTODECO_STATUS_OK && has_key(r, key) && !(*out > 0.0f && *out <= hi)) {
        return FAIL(r, "%s: key %s must be f32 in (0, %g]; convert the heads again", r->path, key, hi);
    }
    return s;
}

static enum autodeco_status read_scale(const struct reader * r, float * out) {
    const char * key = "autodeco.temperature.scale";
    const enum autodeco_status s = read_f32(r, key, out);
    if (s == AUTODECO_STATUS_OK && *out != TEMP_SCALE) {
        return FAIL(r, "%s: key %s must be f32 %g; convert the heads again", r->path, key, TEMP_SCALE);
    }
    return s;
}

static enum autodeco_status read_arch(const struct reader * r, struct autodeco_heads * heads) {
    const char * key = r->single ? "autodeco.architecture" : "general.architecture";
    const struct autodeco_gguf_value * at = find_key(r, key, AUTODECO_GGUF_STRING);
    if (!at) {
        return FAIL(r, "%s: key %s (string) is missing or of another type; convert the heads again", r->path, key);
    }
    if (at->n == 0 || at->n >= sizeof heads->arch) {
        return FAIL(r, "%s: key %s has %llu bytes, allowed 1 to %zu; convert the heads again", r->path, key, (unsigned long long) at->n, sizeof heads->arch - 1);
    }
    return read_bytes(r, key, at->offset, heads->arch, (size_t) at->n); // zeros behind it
}

static const char * const FEATURES[5] = { "temperature", "max_prob", "entropy", "prob_var", "top5_sum" };

#define N_FEATURE 32 // bytes that are compared and shown

// The item at *offset, cut to what can be shown, zero-terminated.
static enum autodeco_status read_feature(const struct reader * r, uint64_t * offset, char name[N_FEATURE + 1]) {
    uint64_t n;
    enum autodeco_status s = read_bytes(r, "autodeco.top_p.features", *offset, &n, sizeof n);
    const size_t n_read = s != AUTODECO_STATUS_OK ? 0 : n < N_FEATURE ? (size_t) n : N_FEATURE;
    if (s == AUTODECO_STATUS_OK) {
        s = read_bytes(r, "autodeco.top_p.features", *offset + sizeof n, name, n_read);
        *offset += sizeof n + n;
    }
    for (size_t i = 0; i < n_read; i++) {
        name[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    }
    name[n_read] = '\0';
    return s;
}

// The order is part of the format: a file with another one was made for other maths.
static enum autodeco_status read_features(const struct reader * r, struct autodeco_heads * heads) {
    const struct autodeco_gguf_value * at = find_array(r, "autodeco.top_p.features", AUTODECO_GGUF_STRING);
    if (!at) {
        return FAIL(r, "%s: key autodeco.top_p.features (array of string) is missing or of another type; convert the heads again", r->path);
    }
    if (at->n != 0 && at->n != 1 && at->n != 5) {
        return FAIL(r, "%s: autodeco.top_p.features holds %llu names, allowed 5 (enhanced) or 1 (basic)", r->path, (unsigned long long) at->n);
    }
    uint64_t offset = at->offset;
    for (size_t i = 0; i < at->n; i++) {
        char name[N_FEATURE + 1];
        const enum autodeco_status s = read_feature(r, &offset, name);
        if (s != AUTODECO_STATUS_OK) {
            return s;
        }
        if (strcmp(name, FEATURES[i]) != 0) {
            return FAIL(r, "%s: autodeco.top_p.features[%zu] is '%s', expected '%s'", r->path, i, name, FEATURES[i]);
        }
    }
    heads->n_extra = (int32_t) at->n;
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_header(const struct reader * r, struct autodeco_heads * heads) {
    int32_t version = 0;
    enum autodeco_status s = read_u32(r, "autodeco.format_version", 1, UINT32_MAX >> 1, &version);
    if (s == AUTODECO_STATUS_OK && version != FORMAT_VERSION) {
        return FAIL(r, "%s: AutoDeco format version %d, this program reads %d; update autodeco-edge", r->path, version, FORMAT_VERSION);
    }
    if (s == AUTODECO_STATUS_OK) s = read_arch(r, heads);
    if (s == AUTODECO_STATUS_OK) s = read_u32(r, "autodeco.embedding_length", 1, MAX_WIDTH, &heads->n_embd);
    if (s == AUTODECO_STATUS_OK) s = read_u32(r, "autodeco.hidden_length", 1, MAX_WIDTH, &heads->n_hidden);
    if (s == AUTODECO_STATUS_OK && has_key(r, "autodeco.vocab_size")) {
        s = read_u32(r, "autodeco.vocab_size", 2, INT32_MAX, &heads->n_vocab);
    }
    if (s == AUTODECO_STATUS_OK) s = read_scale(r, &heads->temp_scale);
    if (s == AUTODECO_STATUS_OK) s = read_mean(r, "autodeco.mean_temperature", TEMP_SCALE, &heads->mean_temp);
    if (s == AUTODECO_STATUS_OK) s = read_mean(r, "autodeco.mean_top_p", 1.0f, &heads->mean_top_p);
    if (s == AUTODECO_STATUS_OK) s = read_features(r, heads);
    return s;
}

// ---- types ------------------------------------------------------------------------------

// How a type lies in a file, by ggml's numbers. A whole row is a number of blocks.
static const struct storage {
    uint32_t           number;
    enum autodeco_type type;
    uint32_t           n_block; // values
    uint32_t           size;    // bytes a block
    const char *       name;
} STORAGES[] = {
    { 0,  AUTODECO_TYPE_F32,  1, 4, "f32"  },
    { 1,  AUTODECO_TYPE_F16,  1, 2, "f16"  },
    { 30, AUTODECO_TYPE_BF16, 1, 2, "bf16" },
    { 8,  AUTODECO_TYPE_Q8_0, AUTODECO_Q8_BLOCK, AUTODECO_Q8_BYTES, "q8_0" },
};

static const struct storage * find_storage(uint32_t number) {
    for (size_t i = 0; i < sizeof STORAGES / sizeof *STORAGES; i++) {
        if (STORAGES[i].number == number) {
            return &STORAGES[i];
        }
    }
    return NULL;
}

static bool all_ordinary(const unsigned char * x, size_t n, size_t stride, uint16_t exponent) { // of 16-bit floats
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, x + i * stride, sizeof bits);
        if ((bits & exponent) == exponent) {
            return false;
        }
    }
    return true;
}

static bool all_finite(const float * x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

static bool row_is_finite(enum autodeco_type type, const void * row, size_t n) {
    switch (type) {
        case AUTODECO_TYPE_F16:  return all_ordinary(row, n, sizeof(uint16_t), 0x7c00);
        case AUTODECO_TYPE_BF16: return all_ordinary(row, n, sizeof(uint16_t), 0x7f80);
        case AUTODECO_TYPE_Q8_0: return all_ordinary(row, n / AUTODECO_Q8_BLOCK, AUTODECO_Q8_BYTES, 0x7c00);
        default:                 return all_finite(row, n);
    }
}

// ---- tensors ----------------------------------------------------------------------------

// A tensor of two dimensions in the file, checked: it lies inside, and its type and shape are right.
struct place {
    const char *           name;
    const struct storage * storage;
    int64_t                ne[2];
    size_t                 n_row;  // bytes
    uint64_t               offset; // in the file
};

static bool tensor_exists(const struct reader * r, int i) {
    char key[64];
    snprintf(key, sizeof key, "autodeco.tensor.%s.data", TENSORS[i] + strlen("autodeco."));
    return r->single ? has_key(r, key) : r->tensors[i].present;
}

static int64_t width_of(uint64_t ne) { // -1: wider than anything
    return ne <= MAX_WIDTH ? (int64_t) ne : -1;
}

static enum autodeco_status check_shape(const struct reader * r, const char * name, const uint64_t ne[2], int64_t ne0, int64_t ne1) {
    if (width_of(ne[0]) != ne0 || width_of(ne[1]) != ne1) {
        return FAIL(r, "%s: tensor %s is [%llu, %llu], expected [%lld, %lld]; convert the heads again", r->path, name,
                (unsigned long long) ne[0], (unsigned long long) ne[1], (long long) ne0, (long long) ne1);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status check_type(const struct reader * r, struct place * p, uint32_t type) {
    const bool wide = strstr(p->name, ".fc1.weight") != NULL;
    p->storage = find_storage(type);
    if (!p->storage || (!wide && p->storage->type != AUTODECO_TYPE_F32) || p->ne[0] % p->storage->n_block != 0) {
        return FAIL(r, "%s: tensor %s has type %u; allowed: F32, and for fc1.weight F16, BF16, or Q8_0 with rows of whole blocks", r->path, p->name, type);
    }
    p->n_row = (size_t) p->ne[0] / p->storage->n_block * p->storage->size;
    if ((uint64_t) p->n_row * (uint64_t) p->ne[1] > MAX_HEADS) {
        return FAIL(r, "%s: tensor %s has %llu bytes, at most %u are allowed", r->path, p->name, (unsigned long long) p->n_row * (unsigned long long) p->ne[1], MAX_HEADS);
    }
    return AUTODECO_STATUS_OK;
}

static size_t size_of(const struct place * p) {
    return p->n_row * (size_t) p->ne[1];
}

static enum autodeco_status find_file_tensor(const struct reader * r, int i, struct place * p) {
    const struct autodeco_gguf_tensor * t = &r->tensors[i];
    p->name = TENSORS[i];
    if (!t->present || t->ne[2] != 1 || t->ne[3] != 1) {
        return FAIL(r, "%s: tensor %s is missing or has more than 2 dimensions; convert the heads again", r->path, p->name);
    }
    enum autodeco_status s = check_shape(r, p->name, t->ne, p->ne[0], p->ne[1]);
    if (s == AUTODECO_STATUS_OK) {
        s = check_type(r, p, t->type);
    }
    if (s == AUTODECO_STATUS_OK && (t->offset > r->gguf.source.size || size_of(p) > r->gguf.source.size - t->offset)) {
        return FAIL(r, "%s: tensor %s lies beyond the end of the file; the file is truncated", r->path, p->name);
    }
    p->offset = t->offset;
    return s;
}

static enum autodeco_status read_meta_shape(const struct reader * r, const char * name, uint32_t * type, uint64_t ne[2]) {
    char key[64];
    snprintf(key, sizeof key, "autodeco.tensor.%s.type", name);
    const struct autodeco_gguf_value * t = find_key(r, key, AUTODECO_GGUF_UINT32);
    snprintf(key, sizeof key, "autodeco.tensor.%s.shape", name);
    const struct autodeco_gguf_value * shape = find_array(r, key, AUTODECO_GGUF_UINT64);
    if (!t || !shape || shape->n < 1 || shape->n > 2) {
        return FAIL(r, "%s: autodeco.tensor.%s needs .type (u32) and .shape (1 or 2 u64); merge the heads again", r->path, name);
    }
    ne[1] = 1;
    const enum autodeco_status s = read_bytes(r, key, t->offset, type, sizeof *type);
    return s == AUTODECO_STATUS_OK ? read_bytes(r, key, shape->offset, ne, (size_t) shape->n * sizeof *ne) : s;
}

// What fills the last u64 behind the data must be zero.
static enum autodeco_status check_padding(const struct reader * r, const char * key, uint64_t offset, size_t size) {
    uint64_t pad = 0;
    const enum autodeco_status s = read_bytes(r, key, offset + size, &pad, (8 - size % 8) % 8);
    if (s == AUTODECO_STATUS_OK && pad != 0) {
        return FAIL(r, "%s: key %s is padded with bytes that are not zero; merge the heads again", r->path, key);
    }
    return s;
}

static enum autodeco_status find_meta_tensor(const struct reader * r, int i, struct place * p) {
    uint32_t type  = 0;
    uint64_t ne[2] = { 0 };
    char     key[64];
    p->name = TENSORS[i] + strlen("autodeco.");
    enum autodeco_status s = read_meta_shape(r, p->name, &type, ne);
    if (s == AUTODECO_STATUS_OK) s = check_shape(r, p->name, ne, p->ne[0], p->ne[1]);
    if (s == AUTODECO_STATUS_OK) s = check_type(r, p, type);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    snprintf(key, sizeof key, "autodeco.tensor.%s.data", p->name);
    const struct autodeco_gguf_value * data = find_array(r, key, AUTODECO_GGUF_UINT64);
    if (!data || data->n != (size_of(p) + 7) / 8) {
        return FAIL(r, "%s: key %s must hold %zu u64; merge the heads again", r->path, key, (size_of(p) + 7) / 8);
    }
    p->offset = data->offset;
    return check_padding(r, key, data->offset, size_of(p));
}

// ne: the shape that it must have
static enum autodeco_status find_tensor(const struct reader * r, int i, int64_t ne0, int64_t ne1, struct place * p) {
    *p = (struct place) { .ne = { ne0, ne1 } };
    return r->single ? find_meta_tensor(r, i, p) : find_file_tensor(r, i, p);
}

static enum autodeco_status find_head(const struct reader * r, const struct autodeco_heads * heads, int first, int32_t n_extra, struct place * places) {
    const int32_t n_embd = heads->n_embd;
    const int32_t m      = heads->n_hidden;
    int i = first;
    enum autodeco_status s = find_tensor(r, i, n_embd, m, &places[i]);
    i++;
    if (n_extra > 0) {
        if (s == AUTODECO_STATUS_OK) s = find_tensor(r, i, n_extra, m, &places[i]);
        i++;
    }
    if (s == AUTODECO_STATUS_OK) s = find_tensor(r, i, m, 1, &places[i]);
    if (s == AUTODECO_STATUS_OK) s = find_tensor(r, i + 1, m, 1, &places[i + 1]);
    if (s == AUTODECO_STATUS_OK) s = find_tensor(r, i + 2, 1, 1, &places[i + 2]);
    return s;
}

static bool overlap(const struct place * a, const struct place * b) {
    return a->offset < b->offset + size_of(b) && b->offset < a->offset + size_of(a);
}

static enum autodeco_status check_total(const struct reader * r, const struct place * places) {
    uint64_t total = 0;
    for (int i = 0; i < N_TENSORS; i++) {
        total += places[i].name ? size_of(&places[i]) : 0;
    }
    if (total > MAX_HEADS) {
        return FAIL(r, "%s: the heads have %llu bytes, at most %u are allowed", r->path, (unsigned long long) total, MAX_HEADS);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status check_overlaps(const struct reader * r, const struct place * places) {
    for (int i = 0; i < N_TENSORS; i++) {
        for (int j = 0; j < i; j++) {
            if (places[i].name && places[j].name && overlap(&places[i], &places[j])) {
                return FAIL(r, "%s: tensors %s and %s overlap; convert the heads again", r->path, places[j].name, places[i].name);
            }
        }
    }
    return AUTODECO_STATUS_OK;
}

// ---- weights ----------------------------------------------------------------------------

#define ALIGNMENT 64 // of a cache line

static enum autodeco_status fail_not_finite(const struct reader * r, const char * name) {
    return FAIL(r, "%s: tensor %s holds values that are not finite; convert the heads again", r->path, name);
}

static enum autodeco_status fail_memory(const struct reader * r, size_t size) {
    return autodeco_fail(AUTODECO_STATUS_MEMORY, r->err, r->n_err, "%s: no memory for %zu bytes of heads", r->path, size);
}

// A narrow tensor, F32.
static enum autodeco_status read_vector(const struct reader * r, const struct place * p, float ** out) {
    *out = malloc(size_of(p));
    if (!*out) {
        return fail_memory(r, size_of(p));
    }
    const enum autodeco_status s = read_bytes(r, p->name, p->offset, *out, size_of(p));
    return s == AUTODECO_STATUS_OK && !all_finite(*out, size_of(p) / sizeof **out) ? fail_not_finite(r, p->name) : s;
}

// Rows start on whole vectors and end in zeros, so that the kernels need no remainder of the weights.
static bool alloc_matrix(const struct place * p, struct autodeco_matrix * m) {
    m->type   = p->storage->type;
    m->stride = m->type == AUTODECO_TYPE_Q8_0 ? p->n_row : AUTODECO_PAD((size_t) p->ne[0]) * p->storage->size;
    m->size   = m->stride * (size_t) p->ne[1] + ALIGNMENT;
    m->block  = calloc(1, m->size);
    m->data   = (void *) (((uintptr_t) m->block + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return m->block != NULL;
}

static enum autodeco_status read_matrix(const struct reader * r, const struct place * p, struct autodeco_matrix * m) {
    if (!alloc_matrix(p, m)) {
        return fail_memory(r, m->size);
    }
    enum autodeco_status s = AUTODECO_STATUS_OK;
    for (int64_t i = 0; i < p->ne[1] && s == AUTODECO_STATUS_OK; i++) {
        char * row = (char *) m->data + (size_t) i * m->stride;
        s = read_bytes(r, p->name, p->offset + (size_t) i * p->n_row, row, p->n_row);
        if (s == AUTODECO_STATUS_OK && !row_is_finite(m->type, row, (size_t) p->ne[0])) {
            s = fail_not_finite(r, p->name);
        }
    }
    return s;
}

static enum autodeco_status read_head(const struct reader * r, const struct place * p, int32_t n_extra, struct autodeco_head * head) {
    float * fc2_bias = NULL;
    enum autodeco_status s = read_matrix(r, p++, &head->fc1);
    if (s == AUTODECO_STATUS_OK && n_extra > 0) s = read_vector(r, p++, &head->fc1_extra);
    if (s == AUTODECO_STATUS_OK) s = read_vector(r, p++, &head->fc1_bias);
    if (s == AUTODECO_STATUS_OK) s = read_vector(r, p++, &head->fc2_weight);
    if (s == AUTODECO_STATUS_OK) s = read_vector(r, p, &fc2_bias);
    if (s == AUTODECO_STATUS_OK) {
        head->fc2_bias = fc2_bias[0];
        head->present  = true;
    }
    free(fc2_bias);
    return s;
}

// Which heads there are, before any tensor is looked at.
static enum autodeco_status check_heads(const struct reader * r, const struct autodeco_heads * heads, bool temp, bool top_p) {
    if (!temp && !top_p) {
        return FAIL(r, "%s: neither a temperature nor a top-p head inside; convert the heads again", r->path);
    }
    const uint64_t n_tensors = (temp ? 4 : 0) + (top_p ? 5 : 0);
    if (!r->single && r->gguf.n_tensors != n_tensors) {
        return FAIL(r, "%s: %llu tensors, expected %llu for these heads; convert the heads again", r->path, (unsigned long long) r->gguf.n_tensors, (unsigned long long) n_tensors);
    }
    if (top_p != (heads->n_extra > 0)) {
        return FAIL(r, "%s: autodeco.top_p.features and the top-p head do not go together; convert the heads again", r->path);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_table(struct reader * r) {
    if (r->single) {
        return AUTODECO_STATUS_OK; // the tensors are the model's
    }
    if (r->gguf.n_tensors > N_TENSORS) {
        return FAIL(r, "%s: %llu tensors, heads have at most %d; convert the heads again", r->path, (unsigned long long) r->gguf.n_tensors, N_TENSORS);
    }
    return autodeco_gguf_read_tensors(&r->gguf, TENSORS, N_TENSORS, r->tensors);
}

static enum autodeco_status read_heads(struct reader * r, struct autodeco_heads * heads) {
    struct place places[N_TENSORS] = { { 0 } };
    enum autodeco_status s = read_header(r, heads);
    if (s == AUTODECO_STATUS_OK) s = read_table(r);
    const bool temp  = tensor_exists(r, TEMP_FC1);
    const bool top_p = tensor_exists(r, TOP_P_FC1);
    if (s == AUTODECO_STATUS_OK) s = check_heads(r, heads, temp, top_p);
    if (s == AUTODECO_STATUS_OK && temp)  s = find_head(r, heads, TEMP_FC1, 0, places);
    if (s == AUTODECO_STATUS_OK && top_p) s = find_head(r, heads, TOP_P_FC1, heads->n_extra, places);
    if (s == AUTODECO_STATUS_OK) s = check_total(r, places);
    if (s == AUTODECO_STATUS_OK) s = check_overlaps(r, places);
    if (s == AUTODECO_STATUS_OK && temp)  s = read_head(r, &places[TEMP_FC1], 0, &heads->temp);
    if (s == AUTODECO_STATUS_OK && top_p) s = read_head(r, &places[TOP_P_FC1], heads->n_extra, &heads->top_p);
    if (s == AUTODECO_STATUS_OK) {
        snprintf(heads->type, sizeof heads->type, "%s", places[top_p ? TOP_P_FC1 : TEMP_FC1].storage->name);
    }
    return s;
}

// ---- public -----------------------------------------------------------------------------

static enum autodeco_status find_kind(struct reader * r) {
    const struct autodeco_gguf_value * at = find_key(r, "adapter.type", AUTODECO_GGUF_STRING);
    char type[8];
    r->single = true;
    if (!at || at->n != sizeof type) {
        return AUTODECO_STATUS_OK;
    }
    const enum autodeco_status s = read_bytes(r, "adapter.type", at->offset, type, sizeof type);
    r->single = s != AUTODECO_STATUS_OK || memcmp(type, "autodeco", sizeof type) != 0;
    return s;
}

static enum autodeco_status read_source(struct reader * r, struct autodeco_heads * heads) {
    enum autodeco_status s = autodeco_gguf_read_keys(&r->gguf, KEYS, N_KEYS, r->values);
    if (s == AUTODECO_STATUS_OK) s = find_kind(r);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    if (r->single && !has_key(r, "autodeco.format_version")) {
        return autodeco_fail(AUTODECO_STATUS_NO_HEADS, r->err, r->n_err,
                "%s: holds no AutoDeco heads; pass a heads file, or merge heads into the model", r->path);
    }
    return read_heads(r, heads);
}

static enum autodeco_status load(struct autodeco_source source, const char * path, struct autodeco_heads ** out, char * err, size_t n_err) {
    struct reader r = { .path = path, .err = err, .n_err = n_err, .gguf = { .source = source, .path = path, .err = err, .n_err = n_err } };
    struct autodeco_heads * heads = calloc(1, sizeof *heads);
    if (!heads) {
        return fail_memory(&r, sizeof *heads);
    }
    const enum autodeco_status s = read_source(&r, heads);
    if (s != AUTODECO_STATUS_OK) {
        autodeco_heads_free(heads);
        return s;
    }
    *out = heads;
    return s;
}

enum autodeco_status autodeco_heads_load_from_memory(const void * data, size_t n, struct autodeco_heads ** out, char * err, size_t n_err) { // GCOV_EXCL_LINE not exported: the fuzzer calls it
    return load((struct autodeco_source) { .data = data, .fd = -1, .size = n }, "memory", out, err, n_err); // GCOV_EXCL_LINE
}

enum autodeco_status autodeco_heads_load_from_file(const char * path, struct autodeco_heads ** out, char * err, size_t n_err) {
    if (!path || !out) {
        return autodeco_fail(AUTODECO_STATUS_ARGUMENT, err, n_err, "autodeco_heads_load_from_file: path and out must not be NULL");
    }
    struct autodeco_source source;
    enum autodeco_status s = autodeco_source_open(&source, path);
    if (s == AUTODECO_STATUS_NOT_FOUND) {
        return autodeco_fail(s, err, n_err, "%s: cannot be opened; check the path", path);
    }
    if (s != AUTODECO_STATUS_OK) {
        return autodeco_fail(s, err, n_err, "%s: not a sound GGUF file: it is no regular file", path);
    }
    s = load(source, path, out, err, n_err);
    autodeco_source_close(&source);
    return s;
}

static void free_head(struct autodeco_head * head) {
    free(head->fc1.block);
    free(head->fc1_bias);
    free(head->fc1_extra);
    free(head->fc2_weight);
}

void autodeco_heads_free(struct autodeco_heads * heads) {
    if (!heads) {
        return;
    }
    free_head(&heads->temp);
    free_head(&heads->top_p);
    free(heads);
}

int32_t autodeco_heads_n_embd    (const struct autodeco_heads * heads) { return heads ? heads->n_embd : 0; }
int32_t autodeco_heads_n_hidden  (const struct autodeco_heads * heads) { return heads ? heads->n_hidden : 0; }
int32_t autodeco_heads_n_vocab   (const struct autodeco_heads * heads) { return heads ? heads->n_vocab : 0; }
int32_t autodeco_heads_n_extra   (const struct autodeco_heads * heads) { return heads ? heads->n_extra : 0; }
bool    autodeco_heads_has_temp  (const struct autodeco_heads * heads) { return heads && heads->temp.present; }
bool    autodeco_heads_has_top_p (const struct autodeco_heads * heads) { return heads && heads->top_p.present; }
float   autodeco_heads_mean_temp (const struct autodeco_heads * heads) { return heads ? heads->mean_temp : NAN; }
float   autodeco_heads_mean_top_p(const struct autodeco_heads * heads) { return heads ? heads->mean_top_p : NAN; }

static size_t head_memory(const struct autodeco_heads * heads, const struct autodeco_head * head, int32_t n_extra) {
    return head->present ? head->fc1.size + (size_t) heads->n_hidden * (size_t) (2 + n_extra) * sizeof(float) : 0;
}

size_t autodeco_heads_memory(const struct autodeco_heads * heads) {
    if (!heads) {
        return 0;
    }
    return sizeof *heads + head_memory(heads, &heads->temp, 0) + head_memory(heads, &heads->top_p, heads->n_extra);
}

int autodeco_heads_desc(const struct autodeco_heads * heads, char * buf, size_t n_buf) {
    if (!heads) {
        return snprintf(buf, n_buf, "no heads");
    }
    const char * which = !heads->top_p.present ? "temperature only" : !heads->temp.present ? "top-p only" : "temperature + top-p";
    const char * kind  = heads->n_extra == 5 ? ", enhanced" : heads->n_extra == 1 ? ", basic" : "";
    return snprintf(buf, n_buf, "%s%s, %s, %d -> %d -> 1, %s", which, kind, heads->arch, heads->n_embd, heads->n_hidden, heads->type);
}
