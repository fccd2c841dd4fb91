/* tokens.c - encodes and decodes texts for tests/check_tokens.py.
 *
 *     tokens MODEL.gguf [PRETOKENIZER] < records > answers
 *     tokens MODEL.gguf [PRETOKENIZER] --bench TEXT_FILE
 *
 * A record: u32 encode flags, u32 decode flags, u32 length, the text.
 * Its answer: i32 number of ids, the ids, i32 length, the ids decoded.
 * Numbers are of this machine's byte order. A failing call ends the program
 * with status 1 and the library's message; a model that cannot be opened, 2.
 * --bench prints the time to open the vocabulary and MB/s of both directions,
 * of processor time, best of five; a short text is taken several times.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *grow(void *p, size_t *cap, size_t n)
{
    if (n > *cap || p == NULL) {
        *cap = n + n / 2 + 64;
        p = realloc(p, *cap);
    }
    if (p == NULL) {
        fprintf(stderr, "tokens: no memory\n");
        exit(1);
    }
    return p;
}

static int64_t check(int64_t n, const ksllm_error *err)
{
    if (n < 0) {
        fprintf(stderr, "tokens: %s: %s\n",
                ksllm_status_name((ksllm_status)n), err->text);
        exit(1);
    }
    return n;
}

static void read_all(void *p, size_t n)
{
    if (fread(p, 1, n, stdin) != n) {
        fprintf(stderr, "tokens: the input ends within a record\n");
        exit(1);
    }
}

static void answer(const ksllm_model *model)
{
    uint32_t head[3];
    char *text = NULL, *back = NULL;
    int32_t *ids = NULL;
    size_t text_cap = 0, ids_cap = 0, back_cap = 0;

    while (fread(head, sizeof head, 1, stdin) == 1) {
        ksllm_error err;
        int64_t n, m;
        int32_t count;
        text = grow(text, &text_cap, head[2]);
        read_all(text, head[2]);
        n = check(ksllm_encode(model, text, head[2], head[0], NULL, 0, &err),
                  &err);
        ids = grow(ids, &ids_cap, (size_t)n * sizeof *ids);
        check(ksllm_encode(model, text, head[2], head[0], ids, (size_t)n,
                           &err), &err);
        m = check(ksllm_decode(model, ids, (size_t)n, head[1], NULL, 0, &err),
                  &err);
        back = grow(back, &back_cap, (size_t)m);
        check(ksllm_decode(model, ids, (size_t)n, head[1], back, (size_t)m,
                           &err), &err);
        count = (int32_t)n;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(ids, sizeof *ids, (size_t)n, stdout);
        count = (int32_t)m;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(back, 1, (size_t)m, stdout);
    }
    free(text);
    free(ids);
    free(back);
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bench(const char *path, const ksllm_model_options *options,
                  const char *text_path)
{
    FILE *f = fopen(text_path, "rb");
    size_t size = 0, cap = 0, n = 0;
    char *text = grow(NULL, &cap, 1 << 16);
    double open = 1e9, encode = 1e9, decode = 1e9;

    if (f == NULL) {
        fprintf(stderr, "tokens: cannot open %s\n", text_path);
        exit(1);
    }
    while ((n = fread(text + size, 1, 1 << 16, f)) > 0)
        text = grow(text, &cap, (size += n) + (1 << 16));
    fclose(f);
    int32_t *ids = malloc((size + 16) * sizeof *ids);
    char *back = malloc(3 * size + 16);
    int times = size < 1000000 ? (int)(1000000 / (size + 1)) + 1 : 1;
    for (int round = 0; ids != NULL && back != NULL && round < 5; round++) {
        ksllm_model *model;
        ksllm_error err;
        double t0 = seconds(), t1, t2, t3;
        check(ksllm_model_open(path, options, &model, &err), &err);
        t1 = seconds();
        int64_t k = 0;
        for (int i = 0; i < times; i++)
            k = check(ksllm_encode(model, text, size, 0, ids, size + 16,
                                   &err), &err);
        t2 = seconds();
        for (int i = 0; i < times; i++)
            check(ksllm_decode(model, ids, (size_t)k, 0, back, 3 * size + 16,
                               &err), &err);
        t3 = seconds();
        open = t1 - t0 < open ? t1 - t0 : open;
        encode = (t2 - t1) / times < encode ? (t2 - t1) / times : encode;
        decode = (t3 - t2) / times < decode ? (t3 - t2) / times : decode;
        ksllm_model_close(model);
    }
    printf("open %.2f ms, encode %.1f MB/s, decode %.1f MB/s\n", open * 1e3,
           (double)size / encode * 1e-6, (double)size / decode * 1e-6);
    free(ids);
    free(back);
    free(text);
}

int main(int argc, char **argv)
{
    ksllm_model_options options;
    ksllm_model *model;
    ksllm_error err;
    bool named = argc > 2 && strcmp(argv[2], "--bench") != 0;
    int at = named ? 3 : 2;

    if (argc < 2) {
        fprintf(stderr, "usage: tokens MODEL [PRETOKENIZER] [--bench FILE]\n");
        return 2;
    }
    ksllm_model_options_init(&options);
    options.vocab_only = true;
    if (named && argv[2][0] != '\0')
        options.pretokenizer = argv[2];
    if (argc == at + 2 && strcmp(argv[at], "--bench") == 0) {
        bench(argv[1], &options, argv[at + 1]);
        return 0;
    }
    if (ksllm_model_open(argv[1], &options, &model, &err) != KSLLM_OK) {
        fprintf(stderr, "tokens: %s\n", err.text);
        return 2;
    }
    answer(model);
    ksllm_model_close(model);
    return 0;
}
