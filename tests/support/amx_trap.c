// A guard for tests: where AUTODECO_SIMULATE_AMX_TRAP is set, whoever loads a model with repacked weights dies at once.
//
// A real trap comes later, with the first large enough matrix product, on another machine. Here libllama's question
// for the extra buffer types, which it asks where use_extra_bufts is set (and for a LoRA adapter), is the end: by the signal
// that the variable names, in Python, in C and in child processes alike. Preloaded (LD_PRELOAD), so that neither
// libllama nor the program under test is changed.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char * asked) {
    const int number = strcmp(asked, "SIGSEGV") == 0 ? SIGSEGV : SIGILL;
    fprintf(stderr, "amx_trap: a model was loaded with use_extra_bufts\n");
    signal(number, SIG_DFL); // a fault handler must not hide it
    raise(number);
}

void * ggml_backend_reg_get_proc_address(void * reg, const char * name) {
    const char * asked = getenv("AUTODECO_SIMULATE_AMX_TRAP");
    if (asked && *asked && strcmp(asked, "0") != 0 && strcmp(name, "ggml_backend_dev_get_extra_bufts") == 0) {
        die(asked);
    }
    void * (*real)(void *, const char *) = NULL;
    *(void **) &real = dlsym(RTLD_NEXT, "ggml_backend_reg_get_proc_address");
    if (!real) { // llama_cpp was loaded by dlopen, outside the global scope: its own copy
        void * library = dlopen("libggml-base.so.0", RTLD_NOLOAD | RTLD_LAZY);
        *(void **) &real = library ? dlsym(library, "ggml_backend_reg_get_proc_address") : NULL;
    }
    return real ? real(reg, name) : NULL;
}
