/* The first token of a model that is on the disk and not in memory: what
 * reading its weights costs, and which way of asking for them costs least.
 *
 *     build/tests/bench_cold MODEL.gguf [ROUNDS] [TOKENS]
 *
 * Before each run the file is dropped from the page cache (posix_fadvise), and
 * the run refuses to start if pages are left. The ways take turns, in another
 * order each round:
 *
 *     plain        open, create, a prompt of TOKENS (16), one token
 *     preload      ksllm_model_preload before the prompt
 *     beside       ksllm_model_preload on a thread of its own beside the prompt
 *     willneed     posix_fadvise(WILLNEED) on the file, then as plain
 *     sequential   a mapping with MADV_SEQUENTIAL, then as plain
 *     populate     a mapping with MADV_POPULATE_READ, then as plain
 *     reader       as plain, beside a thread that reads the file in order
 *     warm         as plain, with the file in memory
 *
 * Printed are medians: ms to the prompt's beginning, from there to the first
 * token, both together; and the anonymous memory that it took, MiB.
 * `make bench-cold` runs it on a synthetic 1B model. Linux only. */
#define _GNU_SOURCE
#include "../ksllm.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if !defined MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

enum { MAX_ROUNDS = 50, MAX_TOKENS = 2048, READ = 1 << 20 };
enum { PLAIN, PRELOAD, BESIDE, WILLNEED, SEQUENTIAL, POPULATE, READER, WARM,
       N_WAYS };
static const char *const NAMES[] = {"plain", "preload", "beside", "willneed",
                                    "sequential", "populate", "reader",
                                    "warm"};
static const int ADVICE[N_WAYS] = {[SEQUENTIAL] = MADV_SEQUENTIAL,
                                   [POPULATE] = MADV_POPULATE_READ};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench_cold: %s: %s\n", what, why);
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double anonymous_mib(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    double kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "Anonymous:", 10) == 0)
            kib = strtod(line + 10, NULL);
    if (f)
        fclose(f);
    return kib / 1024;
}

/* Drops the file from memory. It may be mapped by nobody. */
static void drop(int fd, size_t size)
{
    static unsigned char resident[1 << 20];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), left = 0;
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    for (size_t at = 0; at < size; at += sizeof resident * page) {
        size_t n = size - at < sizeof resident * page ? size - at
                                                      : sizeof resident * page;
        void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)at);
        if (p == MAP_FAILED || mincore(p, n, resident))
            fail("mincore", "failed");
        for (size_t i = 0; i < (n + page - 1) / page; i++)
            left += resident[i] & 1;
        munmap(p, n);
    }
    if (left > size / page / 100)
        fail("the page cache", "the file stays in it");
}

static void *read_all(void *path)
{
    int fd = open(path, O_RDONLY);
    char *buffer = malloc(READ);
    while (buffer && read(fd, buffer, READ) > 0)
        ;
    free(buffer);
    close(fd);
    return NULL;
}

static void *preload(void *model)
{
    if (ksllm_model_preload(model, NULL, NULL))
        fail("preload", "failed");
    return NULL;
}

typedef struct result {
    double ready[MAX_ROUNDS], token[MAX_ROUNDS], all[MAX_ROUNDS],
        memory[MAX_ROUNDS];
} result;

static void run(const char *path, int way, uint32_t n_prompt, result *r, int i)
{
    static int32_t tokens[MAX_TOKENS];
    ksllm_model *m;
    ksllm_session *s;
    ksllm_error e;
    ksllm_sampling greedy;
    pthread_t reader;
    void *map = NULL;
    ksllm_token_prob next;
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        fail(path, "cannot be opened");
    size_t size = (size_t)st.st_size;
    if (way == WARM)
        read_all((void *)(uintptr_t)path);
    else
        drop(fd, size);
    for (uint32_t k = 0; k < n_prompt; k++)
        tokens[k] = (int32_t)(300 + k * 7 % 1000);
    ksllm_sampling_init(&greedy);
    greedy.temperature = 0;

    double before = anonymous_mib(), begin = now_ms();
    if (way == READER)
        pthread_create(&reader, NULL, read_all, (void *)(uintptr_t)path);
    if (way == WILLNEED)
        posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
    if (ADVICE[way]) {
        map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED || madvise(map, size, ADVICE[way]))
            fail(NAMES[way], "this system cannot");
    }
    if ((map ? ksllm_model_open_memory(map, size, NULL, &m, &e)
             : ksllm_model_open(path, NULL, &m, &e))
        || (way == PRELOAD && ksllm_model_preload(m, NULL, &e))
        || ksllm_session_create(m, NULL, &s, &e))
        fail(path, e.text);
    double ready = now_ms();
    if (way == BESIDE)
        pthread_create(&reader, NULL, preload, m);
    if (ksllm_session_sync(s, tokens, n_prompt, NULL, &e)
        || ksllm_sample(s, &greedy, 0, &next, NULL, 0, &e))
        fail(path, e.text);
    double end = now_ms();
    r->ready[i] = ready - begin;
    r->token[i] = end - ready;
    r->all[i] = end - begin;
    r->memory[i] = anonymous_mib() - before;
    if (way == READER || way == BESIDE)
        pthread_join(reader, NULL);
    ksllm_session_free(s);
    ksllm_model_close(m);
    if (map)
        munmap(map, size);
    close(fd);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

int main(int argc, char **argv)
{
    static result results[N_WAYS];
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    int n_prompt = argc > 3 ? atoi(argv[3]) : 16;
    if (argc < 2 || rounds < 1 || rounds > MAX_ROUNDS || n_prompt < 1
        || n_prompt > MAX_TOKENS) {
        fprintf(stderr, "usage: bench_cold MODEL.gguf [ROUNDS] [TOKENS]\n");
        return 2;
    }
    for (int i = 0; i < rounds; i++)
        for (int k = 0; k < N_WAYS; k++) {
            int way = (3 * i + k) % N_WAYS;
            run(argv[1], way, (uint32_t)n_prompt, &results[way], i);
        }
    printf("%-11s%10s%10s%10s%12s%8s\n", "", "ready", "token", "all",
           "anonymous", "worst");
    for (int k = 0; k < N_WAYS; k++) {
        result *r = &results[k];
        double all = median(r->all, rounds); /* sorts */
        printf("%-11s%10.0f%10.0f%10.0f%12.1f%8.0f\n", NAMES[k],
               median(r->ready, rounds), median(r->token, rounds), all,
               median(r->memory, rounds), r->all[rounds - 1]);
    }
    return 0;
}
