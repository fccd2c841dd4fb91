/* test_pool.c - the worker threads of § 5: each piece of a run is done once,
 * before the run ends, and by nobody after it, however late a worker wakes.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "test.h"

#include <time.h>

enum { PIECES = 200 };

typedef struct {
    u32 run, n;
    u32 over;               /* the caller has gone on */
    u32 times[PIECES];      /* plain: one thread each, and the caller after */
    u32 late, wrong;
} job;

static void pause_ns(long ns)
{
    struct timespec t = {0, ns};
    nanosleep(&t, NULL);
}

static void piece(void *arg, u32 i)
{
    job *j = arg;
    if (i >= j->n) {
        AT_ADD(&j->wrong, 1);
        return;
    }
    /* Now and then somebody is slow, so that others sleep and wake late. */
    if ((j->run + i) % 97 == 0)
        pause_ns(200000);
    j->times[i]++;
    if (AT_LOAD(&j->over))
        AT_ADD(&j->late, 1);
}

static void many_runs(u32 n_threads, u32 runs)
{
    static job jobs[8];     /* an old one stays, to see whether it is touched */
    pool p = {0};
    ksllm_error e;
    if (!CHECK_OK(pool_start(&p, n_threads, &e), e))
        return;
    memset(jobs, 0, sizeof jobs);
    for (u32 r = 0; r < runs; r++) {
        job *j = &jobs[r % 8];
        CHECK_EQ(j->late, 0);
        *j = (job){.run = r, .n = 1 + r * 7 % PIECES};
        pool_run(&p, j->n, piece, j);
        AT_STORE(&j->over, 1);
        u32 once = 0;
        for (u32 i = 0; i < j->n; i++)
            once += j->times[i] == 1;
        if (!CHECK_EQ(once, j->n) || !CHECK_EQ(j->wrong, 0))
            printf("%u threads, run %u\n", n_threads, r);
        if (r % 50 == 0)
            pause_ns(300000);       /* long enough for all to sleep */
    }
    pool_stop(&p);
    for (u32 i = 0; i < 8; i++)
        CHECK_EQ(jobs[i].late, 0);
}

TEST(each_piece_once)
{
    many_runs(1, 50);
    many_runs(2, 2000);
    many_runs(3, 2000);
    many_runs(8, 1000);
    many_runs(POOL_MAX_THREADS, 100);
}

/* No more atomics than a 32-bit machine has: it would want libatomic. */
TEST(no_word_of_the_pool_is_wider_than_32_bits)
{
    pool p;
    CHECK_EQ(sizeof p.n_left, 4);
    CHECK_EQ(sizeof p.n_done, 4);
    CHECK_EQ(sizeof ((ksllm_cancel *)0)->flag, 4);
}

TEST_MAIN
