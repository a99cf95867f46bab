// Preloaded: makes the Nth allocation that libautodeco asks for fail, and no other library's.
//
// Owns malloc, calloc and realloc of the process (glibc). Who asks is seen by the address to which the call returns.

#define _GNU_SOURCE

#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
