/* bench_state.c - how fast a session is saved and loaded.
 *
 *     bench_state [MODEL.gguf or - [TOKENS [FILE]]]
 *
 * Evaluates TOKENS (1,000), then, eleven times: saves to FILE (in /tmp, with
 * stdio, no sync), appends nothing to it, which is what a save costs besides
 * its bytes, and loads it out of the page cache. The same bytes are also written
 * and read in one piece, which is what the system takes. Prints medians: time on
 * the clock, and of the processor, which other programs disturb less. Without a
 * model it makes one with the cache of EXAONE 4.0 1.2B (30 layers, 8 KV heads
 * of 64) and next to no weights, for these are not what is measured.
 */
#define _GNU_SOURCE
#include "fixture.h"

#include <time.h>

enum { ROUNDS = 11 };

/* Seconds by both clocks. */
typedef struct times {
    double clock[ROUNDS], cpu[ROUNDS];
} times;

static double seconds(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void begin(times *t, int i)
{
    t->clock[i] = -seconds(CLOCK_MONOTONIC);
    t->cpu[i] = -seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void end(times *t, int i)
{
    t->clock[i] += seconds(CLOCK_MONOTONIC);
    t->cpu[i] += seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static int write_file(void *ctx, const void *data, size_t n)
{
    return fwrite(data, 1, n, ctx) != n;
}

static int read_file(void *ctx, void *data, size_t n)
{
    return fread(data, 1, n, ctx) != n;
}

/* To nowhere: what the library itself takes. */
static int drop(void *ctx, const void *data, size_t n)
{
    (void)data;
    *(size_t *)ctx += n;
    return 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(const char *what, times *t, double bytes)
{
    qsort(t->clock, ROUNDS, sizeof *t->clock, compare);
    qsort(t->cpu, ROUNDS, sizeof *t->cpu, compare);
    double s = t->clock[ROUNDS / 2], cpu = t->cpu[ROUNDS / 2];
    printf("%-28s %8.2f ms, processor %8.2f ms", what, 1e3 * s, 1e3 * cpu);
    if (bytes > 0)
        printf(", %6.2f GB/s", bytes / cpu / 1e9);
    putchar('\n');
}

static FILE *open_file(const char *path, const char *mode)
{
    FILE *f = fopen(path, mode);
    if (!f) {
        perror(path);
        exit(1);
    }
    /* Pieces have 8 KiB at most. glibc ignores the size where it is to find
     * the buffer itself. */
    static char buffer[1 << 18];
    setvbuf(f, buffer, _IOFBF, sizeof buffer);
    return f;
}

int main(int argc, char **argv)
{
    static const fx_spec exaone = {
        "cache of EXAONE 4.0 1.2B", "qwen3", 30, 32, 32, 32, 8, 64, 0,
        KSLLM_TYPE_Q4_0, true, FX_ROPE_PLAIN, FX_BPE, FX_SOUND};
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000, held, sum;
    const char *path = argc > 3 ? argv[3] : "/tmp/ksllm-bench-state";
    ksllm_model *m = NULL;
    ksllm_session_options o;
    ksllm_error e;
    static times prefill, save, dropped, nothing, load, write, read;
    fx_file file = {NULL, 0, 0};
    if (argc > 1 && strcmp(argv[1], "-") != 0) {
        fx_must(ksllm_model_open(argv[1], NULL, &m, &e), &e);
    } else {
        file = fx_model(&exaone);
        fx_must(ksllm_model_open_memory(file.data, file.size, NULL, &m, &e),
                &e);
    }
    ksllm_session_options_init(&o);
    o.n_ctx = (uint32_t)n + 1;
    ksllm_session *s = fx_create(m, &o), *t = fx_create(m, &o);
    int32_t *tokens = fx_memory(NULL, n * sizeof *tokens);
    fx_prompt(tokens, n, 1);
    begin(&prefill, 0);
    fx_must(ksllm_session_sync(s, tokens, n, NULL, &e), &e);
    end(&prefill, 0);
    ksllm_saved saved = {0, 0, 0};
    for (int i = 0; i < ROUNDS; i++) {
        saved = (ksllm_saved){0, 0, 0};
        FILE *f = open_file(path, "wb");
        begin(&save, i);
        fx_must(ksllm_session_save(s, 0, write_file, f, NULL, &saved, &e), &e);
        fflush(f);
        end(&save, i);
        begin(&nothing, i);
        fx_must(ksllm_session_save(s, 0, write_file, f, NULL, &saved, &e), &e);
        end(&nothing, i);
        fclose(f);
        sum = 0;
        begin(&dropped, i);
        fx_must(ksllm_session_save(s, 0, drop, &sum, NULL, NULL, &e), &e);
        end(&dropped, i);
        f = open_file(path, "rb");
        begin(&load, i);
        fx_must(ksllm_session_load(t, tokens, n, read_file, f, NULL, NULL,
                                   &e), &e);
        end(&load, i);
        fclose(f);
        void *bytes = fx_memory(NULL, (size_t)saved.n_bytes);
        f = open_file(path, "rb");
        begin(&read, i);
        sum = fread(bytes, 1, (size_t)saved.n_bytes, f);
        end(&read, i);
        fclose(f);
        f = open_file(path, "wb");
        begin(&write, i);
        sum -= fwrite(bytes, 1, (size_t)saved.n_bytes, f);
        fflush(f);
        end(&write, i);
        fclose(f);
        free(bytes);
        ksllm_session_tokens(t, &held);
        if (held != n || sum) {
            fprintf(stderr, "%zu of %zu tokens\n", held, n);
            return 1;
        }
    }
    double bytes = (double)saved.n_bytes;
    printf("%zu tokens, %.1f MB; evaluated in %.0f ms\n", n, bytes / 1e6,
           1e3 * prefill.clock[0]);
    print("save to a file", &save, bytes);
    print("the same bytes alone", &write, bytes);
    print("save to nowhere", &dropped, bytes);
    print("save when nothing is new", &nothing, 0);
    print("load from the page cache", &load, bytes);
    print("the same bytes alone", &read, bytes);
    remove(path);
    ksllm_session_free(s);
    ksllm_session_free(t);
    ksllm_model_close(m);
    free(tokens);
    free(file.data);
    return 0;
}
