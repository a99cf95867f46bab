// Preloaded: makes the Nth allocation or the Nth read that libautodeco asks for fail, and no other library's.
//
// Owns malloc, calloc, realloc and pread of the process (glibc). Who asks is seen by the address to which the call returns.

#define _GNU_SOURCE

#include <errno.h>
#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void * __libc_malloc(size_t size);
extern void * __libc_calloc(size_t n, size_t size);
extern void * __libc_realloc(void * old, size_t size);

static uintptr_t begin, end; // of libautodeco's code; none until armed
static long      n_asked;
static long      fail_at; // 0 = never
static bool      and_on;  // all from there on

static bool fails(const void * from) {
    const uintptr_t at = (uintptr_t) from;
    if (at < begin || at >= end) {
        return false;
    }
    n_asked++;
    const bool fail = fail_at > 0 && (n_asked == fail_at || (and_on && n_asked > fail_at));
    if (fail) {
        errno = ENOMEM;
    }
    return fail;
}

void * malloc (size_t size)             { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }
void * calloc (size_t n, size_t size)   { return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size); }
void * realloc(void * old, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size); }

static int find(struct dl_phdr_info * info, size_t size, void * data) {
    (void) size;
    (void) data;
    if (!strstr(info->dlpi_name, "libautodeco")) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) * p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
            begin = info->dlpi_addr + p->p_vaddr;
            end   = begin + p->p_memsz;
        }
    }
    return 1;
}

// ---- reads --------------------------------------------------------------------------------

enum { READ_EIO, READ_INTERRUPTED, READ_SHORT, READ_END };

static long n_reads;
static long fail_read_at;
static int  how;

static ssize_t read_badly(int fd, void * out, size_t n, off64_t offset, ssize_t (*real)(int, void *, size_t, off64_t)) {
    switch (how) {
        case READ_SHORT: return real(fd, out, n / 2 + 1, offset);
        case READ_END:   return 0;
        default:         errno = how == READ_EIO ? EIO : EINTR; return -1;
    }
}

ssize_t pread64(int fd, void * out, size_t n, off64_t offset) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) {
        *(void **) &real = dlsym(RTLD_NEXT, "pread64");
    }
    const uintptr_t from = (uintptr_t) __builtin_return_address(0);
    if (from >= begin && from < end && ++n_reads == fail_read_at) {
        return read_badly(fd, out, n, offset, real);
    }
    return real(fd, out, n, offset);
}

// The nth read goes wrong in this way. Returns how many there were since the last call.
long failing_reads_arm(long n, int way) {
    const long before = n_reads;
    n_reads      = 0;
    fail_read_at = n;
    how          = way;
    return before;
}

// ---- allocations ----------------------------------------------------------------------------

// Counts anew; the nth allocation fails, with `on` every later one too. False where libautodeco is not loaded.
bool failing_malloc_arm(long n, bool on) {
    dl_iterate_phdr(find, NULL);
    n_asked = 0;
    fail_at = n;
    and_on  = on;
    return begin != 0;
}

long failing_malloc_disarm(void) { // returns how many were asked for
    fail_at = 0;
    return n_asked;
}
