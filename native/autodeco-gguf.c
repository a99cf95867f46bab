// A bounded reader of GGUF headers.
//
// Owns the walk over keys and tensors, and what is wrong with a header. Knows nothing of heads. gguf.h's own loader is not
// used: it throws, asserts, and copies everything; here no count, length or offset is believed before it was compared with
// the size of the file, nothing is copied, and the work grows with the bytes that are there.

#include "autodeco-gguf.h"
#include "autodeco-impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_BUFFER 16384
#define N_SHOWN  64 // bytes of a name in a message

// Reads forward through the source.
struct cursor {
    struct autodeco_gguf * g;
    uint64_t      at;    // next byte of the file
    uint64_t      begin; // of the buffer in the file
    size_t        n;     // bytes in the buffer
    uint64_t      text;      // bytes of strings so far
    uint64_t      n_strings; // in arrays so far
    char          where[N_SHOWN + 32]; // what is being read, for messages
    unsigned char buf[N_BUFFER];
};

#define FAIL(c, ...) fail((c)->g, (c)->where, __VA_ARGS__)

static enum autodeco_status fail(struct autodeco_gguf * g, const char * where, const char * what, uint64_t a, uint64_t b) {
    char text[160];
    snprintf(text, sizeof text, what, (unsigned long long) a, (unsigned long long) b);
    return autodeco_fail(AUTODECO_STATUS_FORMAT, g->err, g->n_err, "%s: not a sound GGUF file: %s%s", g->path, where, text);
}

enum autodeco_status autodeco_gguf_fail_read(const struct autodeco_gguf * g, const char * where) {
    return autodeco_fail(AUTODECO_STATUS_IO, g->err, g->n_err, "%s: %s cannot be read: the disk failed, or the file has become shorter", g->path, where);
}

#define ENDS " ends behind the file (needs %llu bytes, %llu are left; truncated?)"

static uint64_t left(const struct cursor * c) {
    return c->g->source.size - c->at; // `at` never passes the end
}

static bool fill(struct cursor * c) {
    c->begin = c->at;
    c->n     = left(c) < N_BUFFER ? (size_t) left(c) : N_BUFFER;
    return autodeco_source_read(&c->g->source, c->begin, c->buf, c->n);
}

// n bytes, at most N_BUFFER
static enum autodeco_status take(struct cursor * c, void * out, size_t n) {
    if (n > left(c)) {
        return FAIL(c, ENDS, n, left(c));
    }
    if ((c->at - c->begin > c->n || c->n - (size_t) (c->at - c->begin) < n) && !fill(c)) {
        return autodeco_gguf_fail_read(c->g, c->where);
    }
    memcpy(out, c->buf + (c->at - c->begin), n);
    c->at += n;
    return AUTODECO_STATUS_OK;
}

static enum autodeco_status skip(struct cursor * c, uint64_t n) {
    if (n > left(c)) {
        return FAIL(c, ENDS, n, left(c));
    }
    c->at += n;
    return AUTODECO_STATUS_OK;
}

// ---- text ---------------------------------------------------------------------------------

// The length of a string, which then lies at c->at.
static enum autodeco_status take_length(struct cursor * c, uint64_t max, uint64_t * out) {
    enum autodeco_status s = take(c, out, sizeof *out);
    if (s == AUTODECO_STATUS_OK && *out > max) {
        return FAIL(c, " has %llu bytes, at most %llu are allowed", *out, max);
    }
    if (s == AUTODECO_STATUS_OK && *out > left(c)) {
        return FAIL(c, ENDS, *out, left(c));
    }
    if (s == AUTODECO_STATUS_OK) {
        c->text += sizeof *out + *out;
        if (c->text > AUTODECO_GGUF_MAX_TEXT) {
            return FAIL(c, ": more than %llu bytes of text in the header", AUTODECO_GGUF_MAX_TEXT, 0);
        }
    }
    return s;
}

// A name of at most `max` bytes into out[max + 1].
static enum autodeco_status take_name(struct cursor * c, uint64_t max, char * out) {
    uint64_t n;
    enum autodeco_status s = take_length(c, max, &n);
    if (s == AUTODECO_STATUS_OK) {
        s = take(c, out, (size_t) n);
    }
    if (s == AUTODECO_STATUS_OK) {
        out[n] = '\0';
        if (n == 0 || strlen(out) != n) {
            return FAIL(c, " is empty or holds a zero byte", 0, 0);
        }
    }
    return s;
}

// From here on messages are about `what` of this name. It comes from the file: whatever is not plain is shown as '?'.
static void set_where(struct cursor * c, const char * what, const char * name) {
    const int n = snprintf(c->where, sizeof c->where, "%s '%.*s", what, N_SHOWN, name);
    for (int i = 0; i < n; i++) {
        c->where[i] = c->where[i] >= ' ' && c->where[i] <= '~' ? c->where[i] : '?';
    }
    memcpy(c->where + n, "'", 2);
}

static int find_name(const char * const * names, int n, const char * name) {
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

// ---- values -------------------------------------------------------------------------------

static size_t size_of(uint32_t type) { // 0: of no fixed size, or unknown
    static const uint8_t sizes[AUTODECO_GGUF_N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < AUTODECO_GGUF_N_TYPES ? sizes[type] : 0;
}

static enum autodeco_status skip_strings(struct cursor * c, uint64_t n) {
    enum autodeco_status s = AUTODECO_STATUS_OK;
    if (n > AUTODECO_GGUF_MAX_STRINGS - c->n_strings) {
        return FAIL(c, " has %llu strings, at most %llu are allowed in all arrays", n, AUTODECO_GGUF_MAX_STRINGS);
    }
    c->n_strings += n;
    if (n > left(c) / sizeof(uint64_t)) {
        return FAIL(c, ENDS, n * sizeof(uint64_t), left(c));
    }
    for (uint64_t i = 0; i < n && s == AUTODECO_STATUS_OK; i++) {
        uint64_t length;
        s = take_length(c, AUTODECO_GGUF_MAX_STRING, &length);
        c->at += s == AUTODECO_STATUS_OK ? length : 0;
    }
    return s;
}

static enum autodeco_status skip_items(struct cursor * c, const struct autodeco_gguf_value * v) {
    const size_t size = size_of(v->item_type);
    if (v->item_type == AUTODECO_GGUF_STRING) {
        return skip_strings(c, v->n);
    }
    if (size == 0) {
        return FAIL(c, " is an array of type %llu, allowed are the types 0 to 8 and 10 to 12", v->item_type, 0);
    }
    if (v->n > AUTODECO_GGUF_MAX_NUMBERS / size) {
        return FAIL(c, " has %llu numbers, at most %llu are allowed", v->n, AUTODECO_GGUF_MAX_NUMBERS / size);
    }
    return skip(c, v->n * size);
}

static enum autodeco_status walk_array(struct cursor * c, struct autodeco_gguf_value * v) {
    enum autodeco_status s = take(c, &v->item_type, sizeof v->item_type);
    if (s == AUTODECO_STATUS_OK) s = take(c, &v->n, sizeof v->n);
    v->offset = c->at;
    return s == AUTODECO_STATUS_OK ? skip_items(c, v) : s;
}

static enum autodeco_status walk_value(struct cursor * c, struct autodeco_gguf_value * v) {
    *v = (struct autodeco_gguf_value) { .present = true, .n = 1 };
    enum autodeco_status s = take(c, &v->type, sizeof v->type);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    if (v->type == AUTODECO_GGUF_ARRAY) {
        return walk_array(c, v);
    }
    if (v->type == AUTODECO_GGUF_STRING) {
        s = take_length(c, AUTODECO_GGUF_MAX_STRING, &v->n);
        v->offset = c->at;
        return s == AUTODECO_STATUS_OK ? skip(c, v->n) : s;
    }
    if (size_of(v->type) == 0) {
        return FAIL(c, " is of type %llu, the last known is %llu", v->type, AUTODECO_GGUF_N_TYPES - 1);
    }
    v->offset = c->at;
    return skip(c, size_of(v->type));
}

// ---- names seen ---------------------------------------------------------------------------

// Hashes of the keys so far; 0 = a free place. Two names of one hash are taken for one: by chance that
// happens to one file in 10^9 of the largest, and who makes it happen gets his file refused.
struct seen {
    uint64_t * hashes;
    uint64_t   mask;
};

static bool make_seen(struct seen * seen, uint64_t n) {
    uint64_t size = 64;
    while (size < 2 * n) {
        size *= 2;
    }
    seen->mask   = size - 1;
    seen->hashes = calloc((size_t) size, sizeof *seen->hashes);
    return seen->hashes != NULL;
}

static uint64_t hash_of(const char * name) { // FNV-1a
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) {
        h = (h ^ (unsigned char) *name) * 0x100000001b3u;
    }
    return h | 1;
}

static bool is_new(struct seen * seen, const char * name) {
    const uint64_t h = hash_of(name);
    uint64_t i = (h >> 20) & seen->mask;
    for (; seen->hashes[i] != 0; i = (i + 1) & seen->mask) {
        if (seen->hashes[i] == h) {
            return false;
        }
    }
    seen->hashes[i] = h;
    return true;
}

// ---- keys ---------------------------------------------------------------------------------

static enum autodeco_status walk_key(struct cursor * c, struct seen * seen, const char * const * names, int n, struct autodeco_gguf_value * values) {
    char name[AUTODECO_GGUF_MAX_KEY + 1];
    enum autodeco_status s = take_name(c, AUTODECO_GGUF_MAX_KEY, name);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    set_where(c, "key", name);
    if (!is_new(seen, name)) {
        return FAIL(c, " appears twice", 0, 0);
    }
    struct autodeco_gguf_value value;
    s = walk_value(c, &value);
    const int i = find_name(names, n, name);
    if (s == AUTODECO_STATUS_OK && i >= 0) {
        values[i] = value;
    }
    return s;
}

static enum autodeco_status read_alignment(struct cursor * c, const struct autodeco_gguf_value * value) {
    uint32_t alignment = 32;
    if (value->present) {
        set_where(c, "key", "general.alignment");
        if (value->type != AUTODECO_GGUF_UINT32) {
            return FAIL(c, " is of type %llu, expected u32 (%llu)", value->type, AUTODECO_GGUF_UINT32);
        }
        if (!autodeco_source_read(&c->g->source, value->offset, &alignment, sizeof alignment)) {
            return autodeco_gguf_fail_read(c->g, c->where);
        }
        if (alignment == 0 || alignment > AUTODECO_GGUF_MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0) {
            return FAIL(c, " is %llu, allowed is a power of two up to %llu", alignment, AUTODECO_GGUF_MAX_ALIGNMENT);
        }
    }
    c->g->alignment = alignment;
    return AUTODECO_STATUS_OK;
}

struct header {
    char     magic[4];
    uint32_t version;
    uint64_t n_tensors;
    uint64_t n_keys;
};

static enum autodeco_status take_header(struct cursor * c, struct header * h) {
    snprintf(c->where, sizeof c->where, "its header");
    enum autodeco_status s = take(c, h, sizeof *h);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    if (memcmp(h->magic, "GGUF", sizeof h->magic) != 0) {
        return FAIL(c, " does not begin with GGUF", 0, 0);
    }
    if (h->version == 0 || (h->version & 0xffff) == 0) {
        return FAIL(c, " is big-endian or of version 0; convert the heads again", 0, 0);
    }
    if (h->version != 2 && h->version != 3) {
        return FAIL(c, " is of version %llu, this program reads 2 and 3", h->version, 0);
    }
    if (h->n_keys > AUTODECO_GGUF_MAX_KEYS) {
        return FAIL(c, " promises %llu keys, at most %llu are allowed", h->n_keys, AUTODECO_GGUF_MAX_KEYS);
    }
    return s;
}

static enum autodeco_status walk_keys(struct cursor * c, struct seen * seen, uint64_t n_keys, const char * const * names, int n, struct autodeco_gguf_value * values) {
    enum autodeco_status s = AUTODECO_STATUS_OK;
    for (uint64_t i = 0; i < n_keys && s == AUTODECO_STATUS_OK; i++) {
        snprintf(c->where, sizeof c->where, "the name of key %llu", (unsigned long long) i);
        s = walk_key(c, seen, names, n, values);
    }
    return s;
}

enum autodeco_status autodeco_gguf_read_keys(struct autodeco_gguf * g, const char * const * names, int n, struct autodeco_gguf_value * values) {
    struct cursor c = { .g = g };
    struct header h;
    struct seen   seen;
    enum autodeco_status s = take_header(&c, &h);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    if (!make_seen(&seen, h.n_keys)) {
        return autodeco_fail(AUTODECO_STATUS_MEMORY, g->err, g->n_err, "%s: no memory for %zu bytes of key names", g->path, (size_t) (seen.mask + 1) * sizeof *seen.hashes);
    }
    s = walk_keys(&c, &seen, h.n_keys, names, n, values);
    free(seen.hashes);
    g->n_tensors = h.n_tensors;
    g->table     = c.at;
    return s == AUTODECO_STATUS_OK ? read_alignment(&c, &values[0]) : s;
}

// ---- tensors ------------------------------------------------------------------------------

static enum autodeco_status take_shape(struct cursor * c, struct autodeco_gguf_tensor * t) {
    uint32_t n_dims;
    enum autodeco_status s = take(c, &n_dims, sizeof n_dims);
    if (s == AUTODECO_STATUS_OK && (n_dims < 1 || n_dims > 4)) {
        return FAIL(c, " has %llu dimensions, allowed are 1 to %llu", n_dims, 4);
    }
    t->ne[0] = t->ne[1] = t->ne[2] = t->ne[3] = 1;
    return s == AUTODECO_STATUS_OK ? take(c, t->ne, n_dims * sizeof *t->ne) : s;
}

static enum autodeco_status walk_tensor(struct cursor * c, const char * const * names, int n, struct autodeco_gguf_tensor * tensors) {
    char name[AUTODECO_GGUF_MAX_NAME + 1];
    struct autodeco_gguf_tensor t = { .present = true };
    enum autodeco_status s = take_name(c, AUTODECO_GGUF_MAX_NAME, name);
    if (s != AUTODECO_STATUS_OK) {
        return s;
    }
    set_where(c, "tensor", name);
    s = take_shape(c, &t);
    if (s == AUTODECO_STATUS_OK) s = take(c, &t.type, sizeof t.type);
    if (s == AUTODECO_STATUS_OK) s = take(c, &t.offset, sizeof t.offset);
    if (s == AUTODECO_STATUS_OK && t.offset % c->g->alignment != 0) {
        return FAIL(c, " lies at %llu, which is no multiple of the alignment of %llu", t.offset, c->g->alignment);
    }
    const int i = find_name(names, n, name);
    if (s == AUTODECO_STATUS_OK && i >= 0) {
        if (tensors[i].present) {
            return FAIL(c, " appears twice", 0, 0);
        }
        tensors[i] = t;
    }
    return s;
}

// Offsets count from the data section, which begins behind the table.
static void place_tensors(const struct cursor * c, int n, struct autodeco_gguf_tensor * tensors) {
    const uint64_t mask = c->g->alignment - 1;
    const uint64_t base = (c->at + mask) & ~mask;
    for (int i = 0; i < n; i++) {
        if (tensors[i].present) {
            tensors[i].offset = tensors[i].offset > UINT64_MAX - base ? UINT64_MAX : base + tensors[i].offset;
        }
    }
}

enum autodeco_status autodeco_gguf_read_tensors(struct autodeco_gguf * g, const char * const * names, int n, struct autodeco_gguf_tensor * tensors) {
    struct cursor c = { .g = g, .at = g->table };
    enum autodeco_status s = AUTODECO_STATUS_OK;
    for (uint64_t i = 0; i < g->n_tensors && s == AUTODECO_STATUS_OK; i++) {
        snprintf(c.where, sizeof c.where, "the name of tensor %llu", (unsigned long long) i);
        s = walk_tensor(&c, names, n, tensors);
    }
    place_tensors(&c, n, tensors);
    return s;
}
