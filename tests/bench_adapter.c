/* bench_adapter.c - what an adapter costs.
 *
 *     bench_adapter MODEL.gguf [RANK [ROUNDS]]
 *
 * An adapter of random weights, F16, on every matrix of the model's layers. A
 * prompt of 64 tokens and 16 tokens one by one, with it and without in turns, on
 * one thread, in time of the processor; prints the medians over ROUNDS (9) and
 * of the ratios of a round.
 */
#include "adapter.h"

#include <time.h>

enum { PROMPT = 64, TOKENS = 16, MOST = 99 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static fx_file adapter_of(const ksllm_model *m, uint64_t rank, size_t *bytes)
{
    ksllm_model_info info = {.size = sizeof info};
    fx_gguf g;
    ksllm_model_get_info(m, &info, NULL);
    char arch[64];
    snprintf(arch, sizeof arch, "%.*s", (int)info.architecture.size,
             info.architecture.data);
    ad_begin(&g, arch);
    for (size_t i = 0; i < ksllm_tensor_count(m); i++) {
        ksllm_tensor t = {.size = sizeof t};
        char name[96];
        ksllm_tensor_at(m, i, &t);
        snprintf(name, sizeof name, "%.*s", (int)t.name.size, t.name.data);
        if (t.n_dims != 2 || strncmp(name, "blk.", 4))
            continue;
        ad_half(&g, name, "a", KSLLM_TYPE_F16, t.dims[0], rank, 1);
        ad_half(&g, name, "b", KSLLM_TYPE_F16, rank, t.dims[1], 1);
    }
    *bytes = g.data.size;
    return fx_end(&g);
}

/* Seconds of the prompt and of one token after it. */
static void measure(ksllm_session *s, const ksllm_adapter *a, double out[2])
{
    int32_t tokens[PROMPT + TOKENS];
    ksllm_error e;
    fx_prompt(tokens, PROMPT + TOKENS, 1);
    fx_must(ksllm_session_rewind(s, 0, &e), &e);
    fx_must(ksllm_session_set_adapter(s, a, 1e-3f, 0, &e), &e);
    double begin = now();
    fx_must(ksllm_session_sync(s, tokens, PROMPT, NULL, &e), &e);
    out[0] = now() - begin;
    begin = now();
    for (int i = 0; i < TOKENS; i++)
        fx_must(ksllm_session_append(s, tokens + PROMPT + i, 1, NULL, &e), &e);
    out[1] = (now() - begin) / TOKENS;
}

static int less(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, less);
    return x[n / 2];
}

int main(int argc, char **argv)
{
    ksllm_model *m = NULL;
    ksllm_adapter *a = NULL;
    ksllm_session_options o;
    ksllm_error e;
    uint64_t rank = argc > 2 ? strtoull(argv[2], NULL, 10) : 16;
    int rounds = argc > 3 ? atoi(argv[3]) : 9;
    size_t bytes;
    if (argc < 2 || !rank || rounds < 1 || rounds > MOST) {
        fprintf(stderr, "bench_adapter MODEL.gguf [RANK [ROUNDS]]\n");
        return 2;
    }
    fx_must(ksllm_model_open(argv[1], NULL, &m, &e), &e);
    fx_file f = adapter_of(m, rank, &bytes);
    fx_must(ksllm_adapter_open_memory(m, f.data, f.size, &a, &e), &e);
    ksllm_session_options_init(&o);
    o.n_ctx = PROMPT + TOKENS;
    o.n_threads = 1;
    o.max_rank = ksllm_adapter_rank(a);
    ksllm_session *s = fx_create(m, &o);
    double with[2][MOST], without[2][MOST], ratio[2][MOST];
    for (int i = -1; i < rounds; i++) {
        double x[2][2];
        measure(s, i & 1 ? a : NULL, x[i & 1]);
        measure(s, i & 1 ? NULL : a, x[~i & 1]);
        for (int k = 0; k < 2 && i >= 0; k++) {
            without[k][i] = x[0][k];
            with[k][i] = x[1][k];
            ratio[k][i] = x[1][k] / x[0][k];
        }
    }
    printf("rank %u, %.1f MB: a prompt of %d tokens %.3f s, %.3f without, "
           "ratio %.3f; a token %.2f ms, %.2f without, ratio %.3f\n",
           (unsigned)rank, (double)bytes / 1e6, PROMPT,
           median(with[0], rounds), median(without[0], rounds),
           median(ratio[0], rounds), 1e3 * median(with[1], rounds),
           1e3 * median(without[1], rounds), median(ratio[1], rounds));
    ksllm_session_free(s);
    ksllm_adapter_close(a);
    ksllm_model_close(m);
    free(f.data);
    return 0;
}
