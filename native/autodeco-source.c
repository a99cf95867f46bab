// Files and memory, read at an offset.
//
// Owns the descriptor and the bounds. Knows nothing of what the bytes mean. Not stdio: fopen asks for memory,
// and its long offsets end at 2 GB on Windows. Not mmap: a file that shrinks would end the process.

#define _FILE_OFFSET_BITS 64
#define _POSIX_C_SOURCE 200809L

#include "autodeco-source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#ifdef _WIN32
#    include <io.h>
typedef struct _stat64 file_stat;
static int  open_file (const char * path)                               { return _open(path, _O_RDONLY | _O_BINARY); }
static int  stat_file (int fd, file_stat * out)                         { return _fstat64(fd, out); }
static void close_file(int fd)                                          { _close(fd); }
static bool is_regular(const file_stat * st)                            { return (st->st_mode & _S_IFMT) == _S_IFREG; }
static int  read_file (int fd, void * out, unsigned n, uint64_t offset) { return _lseeki64(fd, (int64_t) offset, SEEK_SET) < 0 ? -1 : _read(fd, out, n); }
#else
#    include <unistd.h>
typedef struct stat file_stat;
static int  open_file (const char * path)                               { return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); }
static int  stat_file (int fd, file_stat * out)                         { return fstat(fd, out); }
static void close_file(int fd)                                          { close(fd); }
static bool is_regular(const file_stat * st)                            { return S_ISREG(st->st_mode); }
static int  read_file (int fd, void * out, unsigned n, uint64_t offset) { return (int) pread(fd, out, n, (off_t) offset); }
#endif

#define N_READ (1u << 30) // at once: counts are int on Windows

enum autodeco_status autodeco_source_open(struct autodeco_source * source, const char * path) {
    *source = (struct autodeco_source) { .fd = open_file(path) };
    if (source->fd < 0) {
        return AUTODECO_STATUS_NOT_FOUND;
    }
    file_stat st;
    if (stat_file(source->fd, &st) != 0 || !is_regular(&st)) { // GCOV_EXCL_BR_LINE fstat of an open file does not fail
        autodeco_source_close(source);
        return AUTODECO_STATUS_FORMAT;
    }
    source->size = (uint64_t) st.st_size;
    return AUTODECO_STATUS_OK;
}

void autodeco_source_close(struct autodeco_source * source) {
    close_file(source->fd);
}

static bool read_all(int fd, uint64_t offset, unsigned char * out, size_t n) {
    while (n > 0) {
        const int got = read_file(fd, out, n < N_READ ? (unsigned) n : N_READ, offset);
        if (got > 0) {
            out    += got;
            offset += (uint64_t) got;
            n      -= (size_t) got;
        } else if (got == 0 || errno != EINTR) { // a signal without SA_RESTART is no failure
            return false;
        }
    }
    return true;
}

bool autodeco_source_read(const struct autodeco_source * source, uint64_t offset, void * out, size_t n) {
    if (offset > source->size || n > source->size - offset) { // GCOV_EXCL_BR_LINE callers know the size: a second lock
        return false; // GCOV_EXCL_LINE likewise
    }
    if (source->data) { // GCOV_EXCL_BR_LINE the fuzzer's
        memcpy(out, source->data + offset, n); // GCOV_EXCL_LINE the fuzzer reads from memory
        return true;                           // GCOV_EXCL_LINE
    }
    return read_all(source->fd, offset, out, n);
}
