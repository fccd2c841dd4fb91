/* How late a control loop of 50 Hz wakes up while a model answers on two
 * threads: as the system schedules it, as SCHED_FIFO, and with the memory
 * locked too.
 *
 *     build/tests/bench_loop MODEL.gguf [SECONDS]     of each; 20
 *
 * SCHED_FIFO and mlockall need root or CAP_SYS_NICE and CAP_IPC_LOCK; without
 * them the row says so. `make bench-loop` runs it on a synthetic 1B model. */
#if !defined _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "../ksllm.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PERIOD_NS = 20000000, SECOND_NS = 1000000000, MAX_SECONDS = 3600 };

typedef struct {
    ksllm_session *session;
    ksllm_cancel cancel;
    atomic_long n_tokens;
    atomic_bool failed;
} mind;

static int on_piece(void *ctx, const ksllm_piece *piece)
{
    (void)piece;
    atomic_fetch_add(&((mind *)ctx)->n_tokens, 1);
    return 0;
}

/* Reads a prompt and answers, again and again. */
static void *think(void *arg)
{
    static const int32_t prompt[] = {300, 301, 302, 303, 304, 305, 306, 307,
                                     308, 309, 310, 311, 312, 313, 314, 315};
    mind *m = arg;
    ksllm_control control;
    ksllm_generation g;
    ksllm_error e;
    ksllm_control_init(&control);
    control.cancel = &m->cancel;
    ksllm_generation_init(&g);
    g.tokens = prompt;
    g.n_tokens = sizeof prompt / sizeof prompt[0];
    g.max_tokens = 200;
    g.ignore_stop = true;
    g.control = &control;
    g.on_piece = on_piece;
    g.piece_ctx = m;
    for (;;) {
        ksllm_session_rewind(m->session, 0, NULL);
        ksllm_status status = ksllm_generate(m->session, &g, NULL, &e);
        if (status == KSLLM_ERR_CANCELLED)
            return NULL;
        if (status != KSLLM_OK) {
            fprintf(stderr, "%s\n", e.text);
            atomic_store(&m->failed, true);
            return NULL;
        }
    }
}

/* What a controller computes in its period: 50 us or so. */
static void control_step(void)
{
    volatile double x = 0;
    for (int i = 0; i < 20000; i++)
        x = x * 0.999 + i;
}

static void loop(long *late_ns, long n)
{
    struct timespec next, now;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long i = 0; i < n; i++) {
        next.tv_nsec += PERIOD_NS;
        if (next.tv_nsec >= SECOND_NS) {
            next.tv_nsec -= SECOND_NS;
            next.tv_sec++;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL)
               == EINTR)
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
        late_ns[i] = (now.tv_sec - next.tv_sec) * (long)SECOND_NS
                   + now.tv_nsec - next.tv_nsec;
        control_step();
    }
}

static int by_value(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, long *ns, long n, double tokens)
{
    qsort(ns, (size_t)n, sizeof *ns, by_value);
    printf("%-21s median %.3f, 99 %% %.3f, 99.9 %% %.3f, most %.3f ms; "
           "%.1f tokens/s\n", what, (double)ns[n / 2] * 1e-6,
           (double)ns[n * 99 / 100] * 1e-6, (double)ns[n * 999 / 1000] * 1e-6,
           (double)ns[n - 1] * 1e-6, tokens);
    fflush(stdout);
}

/* The loop's thread alone: the session's were started before it. */
static int be_fifo(void)
{
    struct sched_param p = {.sched_priority = 50};
    return pthread_setschedparam(pthread_self(), SCHED_FIFO, &p);
}

static int run(mind *m, int seconds, long *late)
{
    static const char *const rows[] = {
        "as the system does it", "SCHED_FIFO", "SCHED_FIFO, mlockall"};
    long n = (long)seconds * (SECOND_NS / PERIOD_NS);
    for (int row = 0; row < 3; row++) {
        int why = row == 1 ? be_fifo()
                : row == 2 && mlockall(MCL_CURRENT) ? errno : 0;
        if (why) {
            printf("%-21s skipped: %s\n", rows[row], strerror(why));
            return 0;
        }
        long before = atomic_load(&m->n_tokens);
        loop(late, n);
        report(rows[row], late, n,
               (double)(atomic_load(&m->n_tokens) - before) / seconds);
        if (atomic_load(&m->failed))
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int seconds = argc > 2 ? atoi(argv[2]) : 20;
    ksllm_model *model;
    ksllm_session_options o;
    ksllm_error e;
    mind m = {.session = NULL};
    pthread_t thread;
    if (argc < 2 || seconds < 1 || seconds > MAX_SECONDS) {
        fprintf(stderr, "usage: bench_loop MODEL.gguf [SECONDS]\n");
        return 2;
    }
    long *late = calloc((size_t)seconds * (SECOND_NS / PERIOD_NS),
                        sizeof *late);
    if (!late)
        return 1;
    ksllm_session_options_init(&o);
    o.n_ctx = 512;
    o.n_threads = 2;
    if (ksllm_model_open(argv[1], NULL, &model, &e)
        || ksllm_session_create(model, &o, &m.session, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    if (pthread_create(&thread, NULL, think, &m))
        return 1;
    while (!atomic_load(&m.n_tokens) && !atomic_load(&m.failed))
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    int failed = run(&m, seconds, late);
    ksllm_cancel_set(&m.cancel);
    pthread_join(thread, NULL);
    ksllm_session_free(m.session);
    ksllm_model_close(model);
    free(late);
    return failed;
}
