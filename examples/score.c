/* score.c - how well a model knows a text: perplexity and bits per byte.
 *
 *     cc -O2 examples/score.c ksllm.c -lm -pthread -o score
 *     ./score text.txt                  by the demo model, in a checkout
 *     ./score model.gguf text.txt
 *
 * Shows: encoding a whole file, the log-probability of every token
 * (ksllm_session_score), and a cut into windows of the context's length.
 * Bits per byte can be compared between models with different vocabularies,
 * perplexity cannot.
 */
#include "../ksllm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DEMO "examples/demo-model/ksllm-demo.gguf"

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

/* Prints what the model makes of tokens[1..n), each given those before it in
 * its own window. The first one has nothing before it: NAN. */
static ksllm_status score(ksllm_session *session, const int32_t *tokens,
                          size_t n, size_t n_bytes, float *logprobs,
                          ksllm_error *err)
{
    size_t window = ksllm_session_capacity(session), n_scored = 0;
    double nats = 0;
    for (size_t start = 0; start + 1 < n; start += window - 1) {
        size_t m = n - start < window ? n - start : window;
        ksllm_status status = ksllm_session_rewind(session, 0, err);
        if (status == KSLLM_OK)
            status = ksllm_session_score(session, tokens + start, m, logprobs,
                                         NULL, err);
        if (status != KSLLM_OK)
            return status;
        for (size_t i = 1; i < m; i++)
            nats -= logprobs[i];
        n_scored += m - 1;
    }
    printf("%zu bytes, %zu tokens, perplexity %.4f, %.4f bits per byte\n",
           n_bytes, n, exp(nats / (double)n_scored),
           nats / log(2) / (double)n_bytes);
    return KSLLM_OK;
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_error err = {.text = "nothing to score"};
    size_t size = 0;

    char *text = argc == 2 || argc == 3 ? read_file(argv[argc - 1], &size)
                                        : NULL;
    if (!text) {
        fprintf(stderr, "usage: score [MODEL.gguf] TEXTFILE\n");
        return 2;
    }
    bool ok = ksllm_model_open(argc == 3 ? argv[1] : DEMO, NULL, &model,
                               &err) == KSLLM_OK &&
              ksllm_session_create(model, NULL, &session, &err) == KSLLM_OK;
    int64_t n = ok ? ksllm_encode(model, text, size, KSLLM_ENCODE_BOS, NULL, 0,
                                  &err) : 0;
    int32_t *tokens = n > 1 ? malloc((size_t)n * sizeof *tokens) : NULL;
    float *logprobs = n > 1 ? malloc((size_t)n * sizeof *logprobs) : NULL;
    ok = tokens && logprobs &&
         ksllm_encode(model, text, size, KSLLM_ENCODE_BOS, tokens, (size_t)n,
                      &err) == n &&
         score(session, tokens, (size_t)n, size, logprobs, &err) == KSLLM_OK;
    if (!ok)
        fprintf(stderr, "%s\n", err.text);
    free(logprobs);
    free(tokens);
    free(text);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
