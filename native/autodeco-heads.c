// Heads from GGUF: a heads file (tensors), or a single file (metadata arrays inside a model).
//
// Owns reading, validation and memory of struct autodeco_heads. The wide weights stay in the type of the
// file; everything else is F32. Knows gguf.h and docs/format.md;
// does not know graphs or samplers. The files are untrusted: gguf's own getters abort the process
// on a wrong type, so every access goes through a helper that checks key and type first.

#include "autodeco-impl.h"

#include "ggml.h"
#include "gguf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION 1
#define TEMP_SCALE     2.0f    // T = 2 sigmoid(z), semantics 2.2
#define MAX_WIDTH      (1 << 20) // no hidden state or hidden layer is wider

enum autodeco_status autodeco_fail(enum autodeco_status status, char * err, size_t n_err, const char * fmt, ...) {
    if (err && n_err > 0) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err, n_err, fmt, args);
        va_end(args);
    }
    return status;
}

// What a read is about: the file, its metadata, and where to complain.
struct reader {
    const char *          path;
    struct gguf_context * gguf;
    struct ggml_context * tensors; // infos only
    FILE *                file;
    bool                  single;  // heads in the metadata of a model
    char *                err;
    size_t                n_err;
};

#define FAIL(r, ...) autodeco_fail(AUTODECO_STATUS_FORMAT, (r)->err, (r)->n_err, __VA_ARGS__)

// ---- metadata ---------------------------------------------------------------------------

// -1 when absent or of another type
static int64_t find_key(const struct reader * r, const char * key, enum gguf_type type) {
    const int64_t id = gguf_find_key(r->gguf, key);
    return id >= 0 && gguf_get_kv_type(r->gguf, id) == type ? id : -1;
}

static int64_t find_array(const struct reader * r, const char * key, enum gguf_type type) {
    const int64_t id = find_key(r, key, GGUF_TYPE_ARRAY);
    return id >= 0 && gguf_get_arr_type(r->gguf, id) == type ? id : -1;
}

static bool has_key(const struct reader * r, const char * key) {
    return gguf_find_key(r->gguf, key) >= 0;
}

static enum autodeco_status read_u32(const struct reader * r, const char * key, uint32_t lo, uint32_t hi, int32_t * out) {
    const int64_t id = find_key(r, key, GGUF_TYPE_UINT32);
    if (id < 0) {
        return FAIL(r, "%s: key %s (u32) is missing or of another type; convert the heads again", r->path, key);
    }
    const uint32_t v = gguf_get_val_u32(r->gguf, id);
    if (v < lo || v > hi) {
        return FAIL(r, "%s: key %s is %u, allowed %u to %u; convert the heads again", r->path, key, v, lo, hi);
    }
    *out = (int32_t) v;
    return AUTODECO_STATUS_OK;
}

// optional, in (0, hi]: *out stays where the key is absent
static enum autodeco_status read_mean(const struct reader * r, const char * key, float hi, float * out) {
    if (!has_key(r, key)) {
        return AUTODECO_STATUS_OK;
    }
    const int64_t id = find_key(r, key, GGUF_TYPE_FLOAT32);
    const float   v  = id >= 0 ? gguf_get_val_f32(r->gguf, id) : NAN;
    if (!(v > 0.0f && v <= hi)) {
        return FAIL(r, "%s: key %s must be f32 in (0, %g]; convert the heads again", r->path, key, hi);
    }
    *out = v;
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_scale(const struct reader * r, float * out) {
    const char *  key = "autodeco.temperature.scale";
    const int64_t id  = find_key(r, key, GGUF_TYPE_FLOAT32);
    *out = id >= 0 ? gguf_get_val_f32(r->gguf, id) : NAN;
    if (*out != TEMP_SCALE) {
        return FAIL(r, "%s: key %s must be f32 %g; convert the heads again", r->path, key, TEMP_SCALE);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_arch(const struct reader * r, struct autodeco_heads * heads) {
    const char *  key = r->single ? "autodeco.architecture" : "general.architecture";
    const int64_t id  = find_key(r, key, GGUF_TYPE_STRING);
    if (id < 0) {
        return FAIL(r, "%s: key %s (string) is missing or of another type; convert the heads again", r->path, key);
    }
    snprintf(heads->arch, sizeof heads->arch, "%s", gguf_get_val_str(r->gguf, id));
    return AUTODECO_STATUS_OK;
}

static const char * const FEATURES[5] = { "temperature", "max_prob", "entropy", "prob_var", "top5_sum" };

// The order is part of the format: a file with another one was made for other maths.
static enum autodeco_status read_features(const struct reader * r, struct autodeco_heads * heads) {
    const int64_t id = find_array(r, "autodeco.top_p.features", GGUF_TYPE_STRING);
    if (id < 0) {
        return FAIL(r, "%s: key autodeco.top_p.features (array of string) is missing or of another type; convert the heads again", r->path);
    }
    const size_t n = gguf_get_arr_n(r->gguf, id);
    if (n != 0 && n != 1 && n != 5) {
        return FAIL(r, "%s: autodeco.top_p.features holds %zu names, allowed 5 (enhanced) or 1 (basic)", r->path, n);
    }
    for (size_t i = 0; i < n; i++) {
        const char * name = gguf_get_arr_str(r->gguf, id, i);
        if (strcmp(name, FEATURES[i]) != 0) {
            return FAIL(r, "%s: autodeco.top_p.features[%zu] is '%.32s', expected '%s'", r->path, i, name, FEATURES[i]);
        }
    }
    heads->n_extra = (int32_t) n;
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_header(const struct reader * r, struct autodeco_heads * heads) {
    int32_t version;
    heads->mean_temp  = NAN;
    heads->mean_top_p = NAN;
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

// ---- tensors ----------------------------------------------------------------------------

// A tensor before it is turned into floats.
struct raw {
    enum ggml_type type;
    int64_t        ne[2];
    size_t         size; // bytes
    void *         data; // malloc'ed
};

static bool tensor_exists(const struct reader * r, const char * name) {
    char key[128];
    snprintf(key, sizeof key, r->single ? "autodeco.tensor.%s.data" : "autodeco.%s", name);
    return r->single ? has_key(r, key) : gguf_find_tensor(r->gguf, key) >= 0;
}

static enum autodeco_status check_shape(const struct reader * r, const char * name, const struct raw * raw, int64_t ne0, int64_t ne1) {
    if (raw->ne[0] != ne0 || raw->ne[1] != ne1) {
        return FAIL(r, "%s: tensor %s is [%lld, %lld], expected [%lld, %lld]; convert the heads again", r->path, name,
                (long long) raw->ne[0], (long long) raw->ne[1], (long long) ne0, (long long) ne1);
    }
    const bool wide  = strstr(name, ".fc1.weight") != NULL;
    const bool known = raw->type == GGML_TYPE_F32 || (wide && (raw->type == GGML_TYPE_F16 || raw->type == GGML_TYPE_BF16 || raw->type == GGML_TYPE_Q8_0));
    if (!known || ne0 % ggml_blck_size(raw->type) != 0) {
        return FAIL(r, "%s: tensor %s has type %d; allowed: F32, and for fc1.weight F16, BF16, or Q8_0 with rows of whole blocks", r->path, name, (int) raw->type);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_file_tensor(const struct reader * r, const char * name, int64_t ne0, int64_t ne1, struct raw * raw) {
    char key[128];
    snprintf(key, sizeof key, "autodeco.%s", name);
    const int64_t              id   = gguf_find_tensor(r->gguf, key);
    const struct ggml_tensor * info = id >= 0 ? ggml_get_tensor(r->tensors, key) : NULL;
    if (!info || ggml_n_dims(info) > 2) {
        return FAIL(r, "%s: tensor %s is missing or has more than 2 dimensions; convert the heads again", r->path, key);
    }
    raw->type  = info->type;
    raw->ne[0] = info->ne[0];
    raw->ne[1] = info->ne[1];
    const enum autodeco_status s = check_shape(r, key, raw, ne0, ne1);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    raw->size = ggml_row_size(raw->type, ne0) * (size_t) ne1;
    raw->data = malloc(raw->size);
    if (!raw->data) {
        return autodeco_fail(AUTODECO_STATUS_MEMORY, r->err, r->n_err, "%s: no memory for %zu bytes of heads", r->path, raw->size);
    }
    const size_t offset = gguf_get_data_offset(r->gguf) + gguf_get_tensor_offset(r->gguf, id);
    if (fseek(r->file, (long) offset, SEEK_SET) != 0 || fread(raw->data, 1, raw->size, r->file) != raw->size) {
        return FAIL(r, "%s: tensor %s lies beyond the end of the file; the file is truncated", r->path, key);
    }
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_meta_shape(const struct reader * r, const char * name, struct raw * raw) {
    char key[128];
    snprintf(key, sizeof key, "autodeco.tensor.%s.type", name);
    const int64_t type = find_key(r, key, GGUF_TYPE_UINT32);
    snprintf(key, sizeof key, "autodeco.tensor.%s.shape", name);
    const int64_t shape = find_array(r, key, GGUF_TYPE_UINT64);
    const size_t  n     = shape >= 0 ? gguf_get_arr_n(r->gguf, shape) : 0;
    if (type < 0 || n < 1 || n > 2) {
        return FAIL(r, "%s: autodeco.tensor.%s needs .type (u32) and .shape (1 or 2 u64); merge the heads again", r->path, name);
    }
    const uint64_t * ne = gguf_get_arr_data(r->gguf, shape);
    const uint32_t   t  = gguf_get_val_u32(r->gguf, type);
    raw->type  = t < GGML_TYPE_COUNT ? (enum ggml_type) t : GGML_TYPE_COUNT;
    raw->ne[0] = ne[0] <= MAX_WIDTH ? (int64_t) ne[0] : -1;
    raw->ne[1] = n < 2 ? 1 : ne[1] <= MAX_WIDTH ? (int64_t) ne[1] : -1;
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status read_meta_tensor(const struct reader * r, const char * name, int64_t ne0, int64_t ne1, struct raw * raw) {
    enum autodeco_status s = read_meta_shape(r, name, raw);
    if (s == AUTODECO_STATUS_OK) {
        s = check_shape(r, name, raw, ne0, ne1);
    }
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    char key[128];
    snprintf(key, sizeof key, "autodeco.tensor.%s.data", name);
    const int64_t id = find_array(r, key, GGUF_TYPE_UINT64);
    raw->size = ggml_row_size(raw->type, ne0) * (size_t) ne1;
    if (id < 0 || gguf_get_arr_n(r->gguf, id) != (raw->size + 7) / 8) {
        return FAIL(r, "%s: key %s must hold %zu u64; merge the heads again", r->path, key, (raw->size + 7) / 8);
    }
    raw->data = malloc(raw->size);
    if (!raw->data) {
        return autodeco_fail(AUTODECO_STATUS_MEMORY, r->err, r->n_err, "%s: no memory for %zu bytes of heads", r->path, raw->size);
    }
    memcpy(raw->data, gguf_get_arr_data(r->gguf, id), raw->size);
    return AUTODECO_STATUS_OK;
}

static bool all_finite(const float * x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

static enum autodeco_status read_raw(const struct reader * r, const char * name, int64_t ne0, int64_t ne1, struct raw * raw) {
    return r->single ? read_meta_tensor(r, name, ne0, ne1, raw) : read_file_tensor(r, name, ne0, ne1, raw);
}

static enum autodeco_status fail_not_finite(const struct reader * r, const char * name) {
    return FAIL(r, "%s: tensor %s holds values that are not finite; convert the heads again", r->path, name);
}

static enum autodeco_status fail_memory(const struct reader * r, const char * name) {
    return autodeco_fail(AUTODECO_STATUS_MEMORY, r->err, r->n_err, "%s: no memory for %s", r->path, name);
}

// A narrow tensor, F32.
static enum autodeco_status read_vector(const struct reader * r, const char * name, int64_t ne0, int64_t ne1, float ** out) {
    struct raw raw = { .data = NULL };
    enum autodeco_status s = read_raw(r, name, ne0, ne1, &raw);
    if (s == AUTODECO_STATUS_OK && !all_finite(raw.data, ne0 * ne1)) {
        s = fail_not_finite(r, name);
    }
    if (s != AUTODECO_STATUS_OK) {
        free(raw.data);
        return s;
    }
    *out = raw.data;
    return s;
}

// ---- the wide matrix --------------------------------------------------------------------

#define ALIGNMENT 64 // of a cache line

static const struct { enum ggml_type from; enum autodeco_type to; } TYPES[] = {
    { GGML_TYPE_F32,  AUTODECO_TYPE_F32  },
    { GGML_TYPE_F16,  AUTODECO_TYPE_F16  },
    { GGML_TYPE_BF16, AUTODECO_TYPE_BF16 },
    { GGML_TYPE_Q8_0, AUTODECO_TYPE_Q8_0 },
};

static enum autodeco_type type_of(enum ggml_type type) {
    size_t i = 0;
    while (TYPES[i].from != type) { // check_shape has let no other through
        i++;
    }
    return TYPES[i].to;
}

static bool row_is_finite(const struct raw * raw, const char * row, float * scratch) {
    if (raw->type == GGML_TYPE_F32) {
        memcpy(scratch, row, (size_t) raw->ne[0] * sizeof *scratch);
    } else {
        ggml_get_type_traits(raw->type)->to_float(row, scratch, raw->ne[0]);
    }
    return all_finite(scratch, raw->ne[0]);
}

// Rows start on whole vectors and end in zeros, so that the kernels need no remainder of the weights.
static bool alloc_matrix(const struct raw * raw, struct autodeco_matrix * m) {
    const int64_t n_cols = AUTODECO_PAD(raw->ne[0]);
    m->type   = type_of(raw->type);
    m->stride = raw->type == GGML_TYPE_Q8_0 ? ggml_row_size(raw->type, raw->ne[0]) : (size_t) n_cols * ggml_type_size(raw->type);
    m->size   = m->stride * (size_t) raw->ne[1] + ALIGNMENT;
    m->block  = calloc(1, m->size);
    m->data   = (void *) (((uintptr_t) m->block + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return m->block != NULL;
}

static enum autodeco_status copy_rows(const struct reader * r, const char * name, const struct raw * raw, struct autodeco_matrix * m) {
    float * scratch = malloc((size_t) raw->ne[0] * sizeof *scratch);
    if (!scratch || !alloc_matrix(raw, m)) {
        free(scratch);
        return fail_memory(r, name);
    }
    const size_t n_bytes = ggml_row_size(raw->type, raw->ne[0]);
    enum autodeco_status s = AUTODECO_STATUS_OK;
    for (int64_t i = 0; i < raw->ne[1] && s == AUTODECO_STATUS_OK; i++) {
        const char * row = (const char *) raw->data + (size_t) i * n_bytes;
        if (!row_is_finite(raw, row, scratch)) {
            s = fail_not_finite(r, name);
        }
        memcpy((char *) m->data + (size_t) i * m->stride, row, n_bytes);
    }
    free(scratch);
    return s;
}

static enum autodeco_status read_matrix(const struct reader * r, const char * name, int64_t ne0, int64_t ne1, struct autodeco_matrix * m, char * type) {
    struct raw raw = { .data = NULL };
    enum autodeco_status s = read_raw(r, name, ne0, ne1, &raw);
    if (s == AUTODECO_STATUS_OK) {
        s = copy_rows(r, name, &raw, m);
        snprintf(type, 16, "%s", ggml_type_name(raw.type));
    }
    free(raw.data);
    return s;
}

static enum autodeco_status read_head(const struct reader * r, struct autodeco_heads * heads, const char * name, int32_t n_extra, struct autodeco_head * head) {
    char fc1_w[64], fc1_b[64], fc1_e[64], fc2_w[64], fc2_b[64];
    snprintf(fc1_w, sizeof fc1_w, "%s.fc1.weight", name);
    snprintf(fc1_b, sizeof fc1_b, "%s.fc1.bias", name);
    snprintf(fc1_e, sizeof fc1_e, "%s.fc1_extra.weight", name);
    snprintf(fc2_w, sizeof fc2_w, "%s.fc2.weight", name);
    snprintf(fc2_b, sizeof fc2_b, "%s.fc2.bias", name);

    float * fc2_bias = NULL;
    enum autodeco_status s = read_matrix(r, fc1_w, heads->n_embd, heads->n_hidden, &head->fc1, heads->type);
    if (s == AUTODECO_STATUS_OK) s = read_vector(r, fc1_b, heads->n_hidden, 1, &head->fc1_bias);
    if (s == AUTODECO_STATUS_OK && n_extra > 0) s = read_vector(r, fc1_e, n_extra, heads->n_hidden, &head->fc1_extra);
    if (s == AUTODECO_STATUS_OK) s = read_vector(r, fc2_w, heads->n_hidden, 1, &head->fc2_weight);
    if (s == AUTODECO_STATUS_OK) s = read_vector(r, fc2_b, 1, 1, &fc2_bias);
    if (s == AUTODECO_STATUS_OK) {
        head->fc2_bias = fc2_bias[0];
        head->present  = true;
    }
    free(fc2_bias);
    return s;
}

static enum autodeco_status read_heads(const struct reader * r, struct autodeco_heads * heads) {
    enum autodeco_status s = read_header(r, heads);
    const bool temp  = tensor_exists(r, "temp.fc1.weight");
    const bool top_p = tensor_exists(r, "top_p.fc1.weight");
    if (s == AUTODECO_STATUS_OK && !temp && !top_p) {
        return FAIL(r, "%s: neither a temperature nor a top-p head inside; convert the heads again", r->path);
    }
    const int64_t n_tensors = (temp ? 4 : 0) + (top_p ? 5 : 0);
    if (s == AUTODECO_STATUS_OK && !r->single && gguf_get_n_tensors(r->gguf) != n_tensors) {
        return FAIL(r, "%s: %lld tensors, expected %lld for these heads; convert the heads again", r->path, (long long) gguf_get_n_tensors(r->gguf), (long long) n_tensors);
    }
    if (s == AUTODECO_STATUS_OK && top_p != (heads->n_extra > 0)) {
        return FAIL(r, "%s: autodeco.top_p.features and the top-p head do not go together; convert the heads again", r->path);
    }
    if (s == AUTODECO_STATUS_OK && temp)  s = read_head(r, heads, "temp", 0, &heads->temp);
    if (s == AUTODECO_STATUS_OK && top_p) s = read_head(r, heads, "top_p", heads->n_extra, &heads->top_p);
    return s;
}

// ---- public -----------------------------------------------------------------------------

static bool is_heads_file(const struct reader * r) {
    const int64_t id = find_key(r, "adapter.type", GGUF_TYPE_STRING);
    return id >= 0 && strcmp(gguf_get_val_str(r->gguf, id), "autodeco") == 0;
}

static enum autodeco_status open_and_read(struct reader * r, struct autodeco_heads * heads) {
    r->file = fopen(r->path, "rb");
    if (!r->file) {
        return autodeco_fail(AUTODECO_STATUS_NOT_FOUND, r->err, r->n_err, "%s: cannot be opened; check the path", r->path);
    }
    struct gguf_init_params params = { .no_alloc = true, .ctx = &r->tensors };
    r->gguf = gguf_init_from_file(r->path, params);
    if (!r->gguf) {
        return FAIL(r, "%s: not a sound GGUF file (truncated, damaged or another format)", r->path);
    }
    r->single = !is_heads_file(r);
    if (r->single && !has_key(r, "autodeco.format_version")) {
        return autodeco_fail(AUTODECO_STATUS_NO_HEADS, r->err, r->n_err,
                "%s: holds no AutoDeco heads; pass a heads file, or merge heads into the model", r->path);
    }
    return read_heads(r, heads);
}

enum autodeco_status autodeco_heads_load_from_file(const char * path, struct autodeco_heads ** out, char * err, size_t n_err) {
    struct reader r = { .path = path, .err = err, .n_err = n_err };
    struct autodeco_heads * heads = calloc(1, sizeof *heads);
    if (!heads) {
        return autodeco_fail(AUTODECO_STATUS_MEMORY, err, n_err, "%s: no memory", path);
    }
    const enum autodeco_status s = open_and_read(&r, heads);
    if (r.file)    fclose(r.file);
    if (r.gguf)    gguf_free(r.gguf);
    if (r.tensors) ggml_free(r.tensors);
    if (s != AUTODECO_STATUS_OK) {
        autodeco_heads_free(heads);
        return s;
    }
    *out = heads;
    return AUTODECO_STATUS_OK;
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

int32_t autodeco_heads_n_embd    (const struct autodeco_heads * heads) { return heads->n_embd; }
int32_t autodeco_heads_n_hidden  (const struct autodeco_heads * heads) { return heads->n_hidden; }
int32_t autodeco_heads_n_vocab   (const struct autodeco_heads * heads) { return heads->n_vocab; }
int32_t autodeco_heads_n_extra   (const struct autodeco_heads * heads) { return heads->n_extra; }
bool    autodeco_heads_has_temp  (const struct autodeco_heads * heads) { return heads->temp.present; }
bool    autodeco_heads_has_top_p (const struct autodeco_heads * heads) { return heads->top_p.present; }
float   autodeco_heads_mean_temp (const struct autodeco_heads * heads) { return heads->mean_temp; }
float   autodeco_heads_mean_top_p(const struct autodeco_heads * heads) { return heads->mean_top_p; }

static size_t head_memory(const struct autodeco_heads * heads, const struct autodeco_head * head, int32_t n_extra) {
    return head->present ? head->fc1.size + (size_t) heads->n_hidden * (size_t) (2 + n_extra) * sizeof(float) : 0;
}

size_t autodeco_heads_memory(const struct autodeco_heads * heads) {
    return sizeof *heads + head_memory(heads, &heads->temp, 0) + head_memory(heads, &heads->top_p, heads->n_extra);
}

int autodeco_heads_desc(const struct autodeco_heads * heads, char * buf, size_t n_buf) {
    const char * which = !heads->top_p.present ? "temperature only" : !heads->temp.present ? "top-p only" : "temperature + top-p";
    const char * kind  = heads->n_extra == 5 ? ", enhanced" : heads->n_extra == 1 ? ", basic" : "";
    return snprintf(buf, n_buf, "%s%s, %s, %d -> %d -> 1, %s", which, kind, heads->arch, heads->n_embd, heads->n_hidden, heads->type);
}
