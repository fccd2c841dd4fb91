/* logits.c - writes the logits of every position, for check_models.py.
 *
 *     logits MODEL.gguf TOKENS.bin OUT.bin [--threads N] [--batch N]
 *            [--kv q8_0|f16|f32] [--isa NAME]
 *            [--greedy N]
 *
 * TOKENS.bin holds int32 ids, OUT.bin gets float32 [n][n_vocab], both little
 * endian. With --greedy, the N most likely tokens that follow, one after the
 * other, are printed on one line; tokens that end an answer do not end it.
 */
#include "ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 64 };    /* positions whose logits are held at a time */

typedef struct args {
    const char *model, *tokens, *out;
    ksllm_model_options model_options;
    ksllm_session_options session_options;
    uint32_t n_greedy;
} args;

static bool parse(int argc, char **argv, args *a)
{
    if (argc < 4 || argc % 2 != 0)
        return false;
    a->model = argv[1];
    a->tokens = argv[2];
    a->out = argv[3];
    for (int i = 4; i < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        uint32_t number = (uint32_t)strtoul(value, NULL, 10);
        if (strcmp(name, "--threads") == 0)
            a->session_options.n_threads = number;
        else if (strcmp(name, "--batch") == 0)
            a->session_options.n_batch = number;
        else if (strcmp(name, "--greedy") == 0)
            a->n_greedy = number;
        else if (strcmp(name, "--isa") == 0)
            a->model_options.isa = value;
        else if (strcmp(name, "--kv") == 0 && strcmp(value, "q8_0") == 0)
            a->session_options.kv_type = KSLLM_TYPE_Q8_0;
        else if (strcmp(name, "--kv") == 0 && strcmp(value, "f16") == 0)
            a->session_options.kv_type = KSLLM_TYPE_F16;
        else if (strcmp(name, "--kv") == 0 && strcmp(value, "f32") == 0)
            a->session_options.kv_type = KSLLM_TYPE_F32;
        else
            return false;
    }
    return true;
}

static int32_t *read_tokens(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    int32_t *tokens = NULL;
    if (fseek(f, 0, SEEK_END) == 0 && ftell(f) > 0) {
        *n = (size_t)ftell(f) / sizeof *tokens;
        rewind(f);
        tokens = malloc(*n * sizeof *tokens);
        if (tokens && fread(tokens, sizeof *tokens, *n, f) != *n) {
            free(tokens);
            tokens = NULL;
        }
    }
    fclose(f);
    return tokens;
}

static ksllm_status write_logits(ksllm_session *session,
                                 const int32_t *tokens, size_t n,
                                 size_t n_vocab, FILE *out, ksllm_error *err)
{
    float *logits = malloc(CHUNK * n_vocab * sizeof *logits);
    ksllm_status status = logits ? KSLLM_OK : KSLLM_ERR_MEMORY;
    for (size_t at = 0; at < n && status == KSLLM_OK; at += CHUNK) {
        size_t m = n - at < CHUNK ? n - at : CHUNK;
        status = ksllm_session_append_logits(session, tokens + at, m, logits,
                                             NULL, err);
        if (status == KSLLM_OK &&
            fwrite(logits, n_vocab * sizeof *logits, m, out) != m)
            status = KSLLM_ERR_IO;
    }
    free(logits);
    return status;
}

static int print_id(void *ctx, const ksllm_piece *piece)
{
    (void)ctx;
    if (piece->token >= 0)
        printf("%s%d", piece->index ? " " : "", (int)piece->token);
    return 0;
}

static ksllm_status print_greedy(ksllm_session *session, uint32_t n,
                                 ksllm_error *err)
{
    ksllm_generation want;
    ksllm_generation_init(&want);   /* no prompt: from where it stands */
    want.max_tokens = n;
    want.ignore_stop = true;
    want.on_piece = print_id;
    ksllm_status status = ksllm_generate(session, &want, NULL, err);
    putchar('\n');
    return status;
}

int main(int argc, char **argv)
{
    args a = {0};
    ksllm_model_options_init(&a.model_options);
    ksllm_session_options_init(&a.session_options);
    if (!parse(argc, argv, &a)) {
        fprintf(stderr, "usage: logits MODEL.gguf TOKENS.bin OUT.bin"
                        " [--threads N] [--batch N] [--kv q8_0|f16|f32]"
                        " [--isa NAME] [--greedy N]\n");
        return 2;
    }
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error err = {.status = KSLLM_OK};
    size_t n = 0;
    int32_t *tokens = read_tokens(a.tokens, &n);
    FILE *out = fopen(a.out, "wb");
    ksllm_status status = tokens && out ? KSLLM_OK : KSLLM_ERR_IO;

    a.session_options.n_ctx = (uint32_t)n + a.n_greedy;
    if (status == KSLLM_OK)
        status = ksllm_model_open(a.model, &a.model_options, &model, &err);
    if (status == KSLLM_OK)
        status = ksllm_model_get_info(model, &info, NULL);
    if (status == KSLLM_OK)
        status = ksllm_session_create(model, &a.session_options, &session,
                                      &err);
    if (status == KSLLM_OK)
        status = write_logits(session, tokens, n, info.n_vocab, out, &err);
    if (status == KSLLM_OK && a.n_greedy > 0)
        status = print_greedy(session, a.n_greedy, &err);
    if (out && fclose(out) != 0 && status == KSLLM_OK)
        status = KSLLM_ERR_IO;
    if (status != KSLLM_OK)
        fprintf(stderr, "logits: %s: %s\n", ksllm_status_name(status),
                err.status ? err.text : "reading tokens or writing logits");
    free(tokens);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return status == KSLLM_OK ? 0 : 1;
}
