// The header of a GGUF file that nobody vouches for: which keys and tensors it has, and where.

#ifndef AUTODECO_GGUF_H
#define AUTODECO_GGUF_H

#include "autodeco-source.h"

// Limits, as in docs/format.md section 8.
#define AUTODECO_GGUF_MAX_KEYS      65536
#define AUTODECO_GGUF_MAX_KEY       1024        // bytes of a key's name
#define AUTODECO_GGUF_MAX_STRING    (64u << 20) // bytes
#define AUTODECO_GGUF_MAX_STRINGS   2097152     // in all arrays
#define AUTODECO_GGUF_MAX_NUMBERS   (1u << 28)  // bytes of an array of numbers
#define AUTODECO_GGUF_MAX_TEXT      (256u << 20) // bytes of all names and strings, with their lengths
#define AUTODECO_GGUF_MAX_ALIGNMENT 65536
#define AUTODECO_GGUF_MAX_NAME      63          // bytes of a tensor's name

enum autodeco_gguf_type {
    AUTODECO_GGUF_UINT32  = 4,
    AUTODECO_GGUF_FLOAT32 = 6,
    AUTODECO_GGUF_STRING  = 8,
    AUTODECO_GGUF_ARRAY   = 9,
    AUTODECO_GGUF_UINT64  = 10,
    AUTODECO_GGUF_N_TYPES = 13,
};

// Where the value of a key lies.
struct autodeco_gguf_value {
    bool     present;
    uint32_t type;
    uint32_t item_type; // of an array
    uint64_t n;         // bytes of a string, items of an array, 1 otherwise
    uint64_t offset;    // of its first byte in the file
};

// Where the data of a tensor lie. The size is the reader's business: it follows from types that heads do not have.
struct autodeco_gguf_tensor {
    bool     present;
    uint32_t type;
    uint64_t ne[4];
    uint64_t offset; // of its first byte in the file
};

struct autodeco_gguf {
    struct autodeco_source source;
    const char *           path;      // for messages
    char *                 err;
    size_t                 n_err;
    uint64_t               n_tensors; // promised
    uint64_t               table;     // offset of the tensor table
    uint64_t               alignment;
};

// Walks the keys of an open source: values[i] is where the value of names[i] lies, names[0] "general.alignment". Fails
// with FORMAT and a message that names the key, with IO, or with MEMORY.
enum autodeco_status autodeco_gguf_read_keys(struct autodeco_gguf * g, const char * const * names, int n, struct autodeco_gguf_value * values);

// Walks the tensor table, likewise. Tensors of other names are passed over.
enum autodeco_status autodeco_gguf_read_tensors(struct autodeco_gguf * g, const char * const * names, int n, struct autodeco_gguf_tensor * tensors);

// IO, for bytes that the file's size promised. where: "key 'x'", for the message
enum autodeco_status autodeco_gguf_fail_read(const struct autodeco_gguf * g, const char * where);

#endif // AUTODECO_GGUF_H
