/* bench_several.c - what several sessions in one call are worth.
 *
 *     bench_several MODEL.gguf [ROUNDS [TOKENS [THREADS [DEPTH]]]]
 *
 * In every round 1, 2, 4 and 8 sessions answer TOKENS (16) tokens behind DEPTH
 * (32), all in one call, greedily and without drafts, on THREADS (1). Prints
 * medians over ROUNDS (5): tokens a second of all together, and the ratio to
 * one session in the same round, by the clock and by the time of the process,
 * which other programs do not take part in. Ends with 1 unless all answers are
 * those of the session alone.
 */
#include "fixture.h"

#include <time.h>

enum { MOST = KSLLM_MAX_SESSIONS, ROUNDS = 31, DEPTH = 4096 };

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return x[n / 2];
}

/* The clock and the process's time that n of them take; all tokens to *hash. */
static void answer(ksllm_session **s, size_t n, uint32_t n_tokens,
                   uint64_t *hash, double *took)
{
    ksllm_member m[MOST];
    ksllm_generation g;
    ksllm_sampling p;
    ksllm_error e;
    ksllm_sampling_init(&p);
    ksllm_generation_init(&g);
    g.sampling = &p;
    g.max_tokens = n_tokens;
    g.ignore_stop = true;
    g.drafts = false;
    memset(m, 0, sizeof m);
    for (size_t i = 0; i < n; i++) {
        m[i].session = s[i];
        m[i].generation = &g;
    }
    took[0] = now(CLOCK_MONOTONIC);
    took[1] = now(CLOCK_PROCESS_CPUTIME_ID);
    fx_must(ksllm_sessions_generate(m, n, &e), &e);
    took[0] = now(CLOCK_MONOTONIC) - took[0];
    took[1] = now(CLOCK_PROCESS_CPUTIME_ID) - took[1];
    for (size_t i = 0; i < n; i++) {
        size_t held;
        const int32_t *t = ksllm_session_tokens(s[i], &held);
        hash[i] = fx_hash(FX_HASH, t, held * sizeof *t);
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {1, 2, 4, 8};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    static double speed[SIZES][ROUNDS], ratio[2][SIZES][ROUNDS];
    static int32_t prompt[DEPTH];
    int rounds = argc > 2 ? atoi(argv[2]) : 5, wrong = 0;
    uint32_t n_tokens = argc > 3 ? (uint32_t)atoi(argv[3]) : 16;
    size_t depth = argc > 5 ? strtoul(argv[5], NULL, 10) : 32;
    if (argc < 2 || rounds < 1 || rounds > ROUNDS || !depth || depth > DEPTH) {
        fprintf(stderr, "bench_several MODEL.gguf [ROUNDS [TOKENS [THREADS "
                "[DEPTH]]]]\n");
        return 2;
    }
    ksllm_model *model = NULL;
    ksllm_session *s[MOST];
    ksllm_session_options o;
    ksllm_error e;
    uint64_t alone[MOST], hash[MOST];
    double took[2], one[2] = {0, 0};
    fx_must(ksllm_model_open(argv[1], NULL, &model, &e), &e);
    ksllm_session_options_init(&o);
    o.n_ctx = (uint32_t)depth + n_tokens + 1;
    o.n_threads = argc > 4 ? (uint32_t)atoi(argv[4]) : 1;
    for (size_t i = 0; i < MOST; i++) {
        s[i] = fx_create(model, &o);
        fx_prompt(prompt, depth, i + 1);
        fx_must(ksllm_session_sync(s[i], prompt, depth, NULL, &e), &e);
        answer(s + i, 1, n_tokens, alone + i, took);
    }
    for (int r = 0; r < rounds; r++)
        for (size_t k = 0; k < SIZES; k++) {
            for (size_t i = 0; i < sizes[k]; i++) {
                fx_prompt(prompt, depth, i + 1);
                fx_must(ksllm_session_rewind(s[i], depth - 1, &e), &e);
                fx_must(ksllm_session_sync(s[i], prompt, depth, NULL, &e), &e);
            }
            answer(s, sizes[k], n_tokens, hash, took);
            for (size_t i = 0; i < sizes[k]; i++)
                wrong += hash[i] != alone[i];
            for (int t = 0; t < 2; t++) {
                one[t] = k ? one[t] : took[t];
                ratio[t][k][r] = (double)sizes[k] * one[t] / took[t];
            }
            speed[k][r] = (double)sizes[k] * n_tokens / took[0];
        }
    printf("sessions  tokens/s  ratio  ratio by the process's time%s\n",
           wrong ? "  DIFFERENT" : "");
    for (size_t k = 0; k < SIZES; k++)
        printf("%8zu %9.2f %6.2f %6.2f\n", sizes[k], median(speed[k], rounds),
               median(ratio[0][k], rounds), median(ratio[1][k], rounds));
    for (size_t i = 0; i < MOST; i++)
        ksllm_session_free(s[i]);
    ksllm_model_close(model);
    return wrong != 0;
}
