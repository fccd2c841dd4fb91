/* embed.c - how close two sentences are, and where every byte comes from.
 *
 *     cc -O2 examples/embed.c ksllm.c -lm -pthread -o embed
 *     ./embed                                  the demo model, in a checkout
 *     ./embed model.gguf "오늘 비가 온다" "하늘에서 비가 내린다"
 *
 * Shows: a sentence's vector, pooled as the file of an embedding model says or
 * else as the mean of the final hidden states, an allocator that keeps count,
 * and a session placed in the caller's own block whose size is known before it
 * is taken.
 */
#include "../ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEMO "examples/demo-model/ksllm-demo.gguf"

enum { MAX_TOKENS = 512 };

typedef struct count {
    size_t bytes, peak, calls;
} count;

static void *counted(void *ctx, void *ptr, size_t old_size, size_t new_size)
{
    count *c = ctx;
    c->calls++;
    if (new_size == 0) {
        free(ptr);
        c->bytes -= old_size;
        return NULL;
    }
    void *block = realloc(ptr, new_size);
    if (block)
        c->bytes += new_size - old_size;
    c->peak = c->bytes > c->peak ? c->bytes : c->peak;
    return block;
}

static ksllm_status embed(const ksllm_model *model, ksllm_session *session,
                          const char *text, float *out, size_t n_embd,
                          ksllm_error *err)
{
    int32_t tokens[MAX_TOKENS];
    int64_t n = ksllm_encode(model, text, strlen(text),
                             KSLLM_ENCODE_BOS | KSLLM_ENCODE_EOS
                                 | KSLLM_ENCODE_COMPOSE, tokens,
                             MAX_TOKENS, err);
    if (n < 0)
        return (ksllm_status)n;
    /* A text of more than MAX_TOKENS counts with its beginning. */
    ksllm_status status = ksllm_session_sync(
        session, tokens, n < MAX_TOKENS ? (size_t)n : MAX_TOKENS, NULL, err);
    if (status == KSLLM_OK)
        status = ksllm_session_unit_embedding(session, n_embd, out, err);
    return status;
}

/* Of vectors of length 1. */
static double cosine(const float *a, const float *b, size_t n)
{
    double ab = 0;
    for (size_t i = 0; i < n; i++)
        ab += (double)a[i] * b[i];
    return ab;
}

int main(int argc, char **argv)
{
    count used = {0, 0, 0};
    const ksllm_allocator allocator = {counted, &used};
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_model_options model_options;
    ksllm_session_options options;
    ksllm_model_info info = {.size = sizeof info};
    ksllm_memory memory = {.size = sizeof memory};
    ksllm_error err = {.status = KSLLM_OK};

    if (argc != 1 && argc != 4) {
        fprintf(stderr, "usage: embed [MODEL.gguf SENTENCE SENTENCE]\n");
        return 2;
    }
    const char *path = argc == 4 ? argv[1] : DEMO;
    const char *one = argc == 4 ? argv[2] : "거실 불 켜 줘";
    const char *two = argc == 4 ? argv[3] : "거실에 있는 조명 좀 켜 줄래?";
    ksllm_model_options_init(&model_options);
    model_options.allocator = &allocator;
    ksllm_session_options_init(&options);
    options.n_ctx = MAX_TOKENS;
    options.pooling = KSLLM_POOLING_MODEL;

    if (ksllm_model_open(path, &model_options, &model, &err) == KSLLM_OK)
        ksllm_model_get_info(model, &info, NULL);
    if (model &&
        ksllm_session_memory(model, &options, &memory, &err) != KSLLM_OK)
        options.pooling = KSLLM_POOLING_MEAN;
    if (model &&
        ksllm_session_memory(model, &options, &memory, &err) == KSLLM_OK) {
        options.memory = malloc(memory.total);
        options.memory_size = memory.total;
    }
    if (options.memory)
        ksllm_session_create(model, &options, &session, &err);

    float *a = malloc(2 * (size_t)info.n_embd * sizeof *a + 1);
    float *b = a ? a + info.n_embd : NULL;
    bool ok = session && a &&
              embed(model, session, one, a, info.n_embd, &err) == 0 &&
              embed(model, session, two, b, info.n_embd, &err) == 0;
    if (ok)
        printf("cosine %.4f\nmodel: %zu bytes at most, in %zu calls\n"
               "session: %zu bytes (KV cache %zu), placed by the caller\n",
               cosine(a, b, info.n_embd), used.peak, used.calls,
               memory.total, memory.kv);
    else
        fprintf(stderr, "%s\n", err.status ? err.text : "out of memory");
    free(a);
    ksllm_session_free(session);
    ksllm_model_close(model);
    free(options.memory);       /* not before the session is freed */
    return ok ? 0 : 1;
}
