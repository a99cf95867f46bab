// A reply in C: model, heads, prompt, and every token with its T and P.
//
//     autodeco-simple MODEL.gguf [HEADS.gguf] "prompt"
//
// Without HEADS.gguf, the heads inside the model are used.

#include "autodeco.h"

#include "llama.h"

#include <stdio.h>
#include <string.h>

#define N_PROMPT_MAX 1024
#define N_REPLY      64

static int fail(const char * what) {
    fprintf(stderr, "error: %s\n", what);
    return 1;
}

static void quiet(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static int reply(struct llama_context * ctx, const struct llama_vocab * vocab, struct llama_sampler * chain, struct llama_sampler * smpl, llama_token * tokens, int32_t n) {
    char err[256];
    struct llama_batch batch = llama_batch_get_one(tokens, n);
    for (int i = 0; i < N_REPLY; i++) {
        if (llama_decode(ctx, batch) != 0) {
            return fail("llama_decode failed");
        }
        if (autodeco_sampler_status(smpl, err, sizeof err) != AUTODECO_STATUS_OK) {
            return fail(err);
        }
        tokens[0] = llama_sampler_sample(chain, ctx, -1); // drawn in the graph already
        if (llama_vocab_is_eog(vocab, tokens[0])) {
            break;
        }
        struct autodeco_step step;
        autodeco_sampler_get_steps(smpl, &step, 1);
        char piece[128];
        const int32_t len = llama_token_to_piece(vocab, tokens[0], piece, sizeof piece, 0, true);
        printf("T %.3f  P %.3f  kept %5d  %.*s\n", step.temp, step.top_p, step.n_kept, len > 0 ? len : 0, piece);
        batch = llama_batch_get_one(tokens, 1);
    }
    return 0;
}

static int run(const char * model_path, const char * heads_path, const char * prompt) {
    char err[256];
    struct autodeco_heads * heads = NULL;
    if (autodeco_heads_load_from_file(heads_path, &heads, err, sizeof err) != AUTODECO_STATUS_OK) {
        return fail(err);
    }
    struct llama_model_params mparams = llama_model_default_params();
    mparams.use_extra_bufts = false; // some virtual machines advertise AMX and trap on it; true where yours does not
    struct llama_model * model = llama_model_load_from_file(model_path, mparams);
    if (!model) {
        return fail("the model cannot be loaded");
    }
    if (autodeco_heads_check_model(heads, model, err, sizeof err) != AUTODECO_STATUS_OK) {
        return fail(err);
    }
    const struct llama_vocab * vocab = llama_model_get_vocab(model);
    llama_token   tokens[N_PROMPT_MAX];
    const int32_t n = llama_tokenize(vocab, prompt, (int32_t) strlen(prompt), tokens, N_PROMPT_MAX, true, true);
    if (n < 1) {
        return fail("the prompt is empty or too long");
    }

    struct llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    struct llama_sampler * smpl  = autodeco_sampler_init(heads, autodeco_sampler_default_params());
    if (!smpl) {
        return fail("the sampler cannot be made");
    }
    llama_sampler_chain_add(chain, smpl);

    struct llama_sampler_seq_config seq = { .seq_id = 0, .sampler = chain };
    struct llama_context_params cparams = llama_context_default_params();
    cparams.n_ctx      = N_PROMPT_MAX + N_REPLY;
    cparams.n_batch    = N_PROMPT_MAX;
    cparams.samplers   = &seq;
    cparams.n_samplers = 1;
    struct llama_context * ctx = llama_init_from_model(model, cparams);
    if (!ctx) {
        return fail("no memory for the context");
    }
    const int code = reply(ctx, vocab, chain, smpl, tokens, n);

    llama_free(ctx); // borrows the chain, so it goes first
    llama_sampler_free(chain);
    llama_model_free(model);
    autodeco_heads_free(heads);
    return code;
}

int main(int argc, char ** argv) {
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: %s MODEL.gguf [HEADS.gguf] \"prompt\"\n", argv[0]);
        return 2;
    }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    return run(argv[1], argc == 4 ? argv[2] : argv[1], argv[argc - 1]);
}
