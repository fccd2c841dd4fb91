/* score.c - how well a model knows a text: perplexity and bits per byte.
 *
 *     cc -O2 examples/score.c ksllm.c -lm -pthread -o score
 *     ./score model.gguf text.txt
 *
 * Shows: encoding a whole file, the logits of every position at once
 * (ksllm_session_append_logits), and a cut into windows of the context's length.
 * Bits per byte can be compared between models with different vocabularies,
 * perplexity cannot.
 */
#include "../ksllm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 32 };    /* positions at a time: [CHUNK][n_vocab] floats */

static char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *data = NULL;
    size_t n = 0, cap = 0;
    while (f && !feof(f) && !ferror(f)) {
        if (n == cap) {
            char *more = realloc(data, cap = cap * 2 + 65536);
            if (!more)
                break;
            data = more;
        }
        n += fread(data + n, 1, cap - n, f);
    }
    bool ok = f && feof(f) && !ferror(f);
    if (f)
        fclose(f);
    if (!ok) {
        free(data);
        return NULL;
    }
    *size = n;
    return data;
}

/* -ln of the probability that softmax gives to `token`. */
static double surprise(const float *logits, size_t n_vocab, int32_t token)
{
    double max = logits[0], sum = 0;
    for (size_t i = 1; i < n_vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    for (size_t i = 0; i < n_vocab; i++)
        sum += exp(logits[i] - max);
    return log(sum) + max - logits[token];
}

/* Sum over tokens[1..n), each given those before it in its own window. */
static ksllm_status score(ksllm_session *session, const int32_t *tokens,
                          size_t n, float *logits, size_t n_vocab,
                          double *nats, size_t *n_scored, ksllm_error *err)
{
    size_t window = ksllm_session_capacity(session);
    for (size_t start = 0; start + 1 < n; start += window) {
        size_t end = start + window < n - 1 ? start + window : n - 1;
        ksllm_session_rewind(session, 0, NULL);
        for (size_t at = start; at < end; at += CHUNK) {
            size_t m = end - at < CHUNK ? end - at : CHUNK;
            ksllm_status status = ksllm_session_append_logits(
                session, tokens + at, m, logits, NULL, err);
            if (status != KSLLM_OK)
                return status;
            for (size_t i = 0; i < m; i++)
                *nats += surprise(logits + i * n_vocab, n_vocab,
                                  tokens[at + i + 1]);
            *n_scored += m;
        }
    }
    return KSLLM_OK;
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error err = {.status = KSLLM_OK};
    size_t size = 0, n_scored = 0;
    double nats = 0;

    char *text = argc == 3 ? read_file(argv[2], &size) : NULL;
    if (!text) {
        fprintf(stderr, "usage: score MODEL.gguf TEXTFILE\n");
        return 2;
    }
    if (ksllm_model_open(argv[1], NULL, &model, &err) != KSLLM_OK ||
        ksllm_session_create(model, NULL, &session, &err) != KSLLM_OK ||
        ksllm_model_get_info(model, &info, NULL) != KSLLM_OK) {
        fprintf(stderr, "%s\n", err.text);
        free(text);
        ksllm_model_close(model);
        return 1;
    }
    int64_t n = ksllm_encode(model, text, size, KSLLM_ENCODE_BOS, NULL, 0,
                             &err);
    int32_t *tokens = n > 0 ? malloc((size_t)n * sizeof *tokens) : NULL;
    float *logits = malloc(CHUNK * (size_t)info.n_vocab * sizeof *logits);
    bool ok = tokens && logits &&
              ksllm_encode(model, text, size, KSLLM_ENCODE_BOS, tokens,
                           (size_t)n, &err) == n &&
              score(session, tokens, (size_t)n, logits, info.n_vocab, &nats,
                    &n_scored, &err) == KSLLM_OK && n_scored > 0;
    if (ok)
        printf("%zu bytes, %lld tokens, perplexity %.4f, %.4f bits per byte\n",
               size, (long long)n, exp(nats / (double)n_scored),
               nats / log(2) / (double)size);
    else
        fprintf(stderr, "%s\n", err.status ? err.text : "nothing to score");
    free(logits);
    free(tokens);
    free(text);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
