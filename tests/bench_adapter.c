/* bench_adapter.c - what an adapter costs.
 *
 *     bench_adapter MODEL.gguf [RANK [ROUNDS]]
 *
 * An adapter of random weights, F16, on every matrix of the model's layers. After
 * a prompt of 64 tokens, two sessions evaluate a token in turns, one with it and
 * one without; after 16 tokens they begin again. On one thread, in time of the
 * processor; prints medians over ROUNDS (96) tokens.
 */
#include "adapter.h"

#include <time.h>

enum { PROMPT = 64, TOKENS = 16, MOST = 999 };

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

/* Seconds that n more tokens take. */
static double measure(ksllm_session *s, size_t n)
{
    int32_t tokens[PROMPT];
    ksllm_error e;
    fx_prompt(tokens, n, n);
    double begin = now();
    fx_must(ksllm_session_append(s, tokens, n, NULL, &e), &e);
    return now() - begin;
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
    int rounds = argc > 3 ? atoi(argv[3]) : 96;
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
    ksllm_session *s[2] = {fx_create(m, &o), fx_create(m, &o)};
    fx_must(ksllm_session_set_adapter(s[1], a, 1e-3f, 0, &e), &e);
    double x[2][2][MOST], ratio[2][MOST];
    for (int i = 0; i < rounds; i++) {
        bool prompt = i % TOKENS == 0;
        for (int k = 0; k < 4; k++) {
            int which = (k ^ i) & 1, what = k / 2;
            if (k == 0 && prompt)
                for (int c = 0; c < 2; c++)
                    fx_must(ksllm_session_rewind(s[c], 0, &e), &e);
            if (what || prompt)
                x[what][which][what ? i : i / TOKENS] =
                    measure(s[which], what ? 1 : PROMPT);
        }
    }
    for (int what = 0; what < 2; what++) {
        int n = what ? rounds : (rounds + TOKENS - 1) / TOKENS;
        for (int i = 0; i < n; i++)
            ratio[what][i] = x[what][1][i] / x[what][0][i];
        printf("%s: %.2f ms with rank %u (%.1f MB), %.2f without, ratio %.3f\n",
               what ? "a token" : "a prompt", 1e3 * median(x[what][1], n),
               (unsigned)rank, (double)bytes / 1e6,
               1e3 * median(x[what][0], n), median(ratio[what], n));
    }
    for (int i = 0; i < 2; i++)
        ksllm_session_free(s[i]);
    ksllm_adapter_close(a);
    ksllm_model_close(m);
    free(f.data);
    return 0;
}
