/* How long a running prompt takes to stop: by its time budget and by a cancel
 * from another thread, at random moments.
 *
 *     build/tests/bench_cancel MODEL.gguf [TRIALS]
 *
 * `make bench-cancel` runs it on a synthetic 1B model. */
#include "../ksllm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N_PROMPT = 1024, MAX_TRIALS = 1000 };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

typedef struct {
    ksllm_cancel cancel;
    double after_ms, at_ms;
} bell;

static void *ring(void *arg)
{
    bell *b = arg;
    struct timespec t = {0, (long)(b->after_ms * 1e6)};
    nanosleep(&t, NULL);
    b->at_ms = now_ms();
    ksllm_cancel_set(&b->cancel);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, by_value);
    printf("%-9s %d trials: median %.2f ms, 99 %% within %.2f ms, "
           "longest %.2f ms\n", what, n, ms[n / 2], ms[n * 99 / 100],
           ms[n - 1]);
}

int main(int argc, char **argv)
{
    static double late[2][MAX_TRIALS];
    static int32_t tokens[N_PROMPT];
    int trials = argc > 2 ? atoi(argv[2]) : 100;
    ksllm_model *m;
    ksllm_session *s;
    ksllm_error e;
    if (argc < 2 || trials < 1 || trials > MAX_TRIALS) {
        fprintf(stderr, "usage: bench_cancel MODEL.gguf [TRIALS]\n");
        return 2;
    }
    if (ksllm_model_open(argv[1], NULL, &m, &e)
        || ksllm_session_create(m, NULL, &s, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    for (int i = 0; i < N_PROMPT; i++)
        tokens[i] = 300 + i * 7 % 1000;
    for (int i = 0; i < 2 * trials; i++) {
        ksllm_control c;
        ksllm_control_init(&c);
        bell b = {.after_ms = 5 + i * 37 % 300};
        pthread_t thread;
        ksllm_session_rewind(s, 0, NULL);
        if (i % 2) {
            c.cancel = &b.cancel;
            pthread_create(&thread, NULL, ring, &b);
        } else {
            b.at_ms = now_ms() + b.after_ms;
            c.budget_us = (uint64_t)(b.after_ms * 1000);
        }
        ksllm_status status =
            ksllm_session_sync(s, tokens, N_PROMPT, &c, &e);
        double end = now_ms();
        if (i % 2)
            pthread_join(thread, NULL);
        if (status != KSLLM_ERR_CANCELLED && status != KSLLM_ERR_DEADLINE) {
            fprintf(stderr, "not stopped (%s): the model is too fast for "
                    "this\n", ksllm_status_name(status));
            return 1;
        }
        late[i % 2][i / 2] = end - b.at_ms;
    }
    report("deadline", late[0], trials);
    report("cancel", late[1], trials);
    ksllm_session_free(s);
    ksllm_model_close(m);
    return 0;
}
