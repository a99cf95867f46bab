// Bytes that are read at an offset: a file, or memory.

#ifndef AUTODECO_SOURCE_H
#define AUTODECO_SOURCE_H

#include "autodeco.h"

struct autodeco_source {
    const unsigned char * data; // of a source in memory, borrowed; NULL: a file
    int                   fd;   // of a file
    uint64_t              size; // bytes, as of the opening
};

// OK, NOT_FOUND where the file cannot be opened, or FORMAT where it is no regular file (a pipe would block for
// ever). Asks for no memory.
enum autodeco_status autodeco_source_open(struct autodeco_source * source, const char * path);
void autodeco_source_close(struct autodeco_source * source); // what was opened

// Exactly n bytes from `offset`. False beyond the end, and where the file has shrunk or cannot be read.
bool autodeco_source_read(const struct autodeco_source * source, uint64_t offset, void * out, size_t n);

#endif // AUTODECO_SOURCE_H
