/* tokens.c - encodes and decodes texts for tests/check_tokens.py.
 *
 *     tokens MODEL.gguf [PRETOKENIZER] < records > answers
 *     tokens MODEL.gguf [PRETOKENIZER] --bench TEXT_FILE
 *     tokens MODEL.gguf [PRETOKENIZER] --open COUNT
 *     tokens MODEL.gguf [PRETOKENIZER] --stream COUNT
 *     tokens --units < records
 *
 * A record: u32 encode flags, u32 decode flags, u32 length, the text.
 * Its answer: i32 number of ids, the ids, i32 length, the ids decoded.
 * Numbers are of this machine's byte order. A failing call ends the program
 * with status 1 and the library's message; a model that cannot be opened, 2.
 * --bench prints MB/s of both directions, of processor time, best of three; the
 * text goes in by pieces of 4 KiB.
 * --open opens the vocabulary COUNT times, as a file that is in memory already,
 * and prints the least and the median time of one.
 * --stream decodes COUNT random tokens one by one, in streams of up to 100,000,
 * and compares with ksllm_decode; status 1 if a stream went wrong.
 * --units says how the texts stream in grapheme clusters.
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

/* For each record the bytes given out after each of its characters, when it
 * is streamed in grapheme clusters; a line each. */
static void units(void)
{
    uint32_t head[3];
    char *text = NULL;
    size_t cap = 0;

    while (fread(head, sizeof head, 1, stdin) == 1) {
        size_t begin = 0;
        text = grow(text, &cap, head[2]);
        read_all(text, head[2]);
        for (size_t at = 1; at <= head[2]; at++) {
            if (at < head[2] && (text[at] & 0xc0) == 0x80)
                continue;       /* within a character */
            size_t n = ksllm_text_units(text + begin, at - begin,
                                        KSLLM_UNIT_GRAPHEME);
            printf("%zu ", n);
            begin += n;
        }
        putchar('\n');
    }
    free(text);
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Speed ---- */

typedef struct { char *p; size_t n; } text_file;

static text_file read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t cap = 0, n = 0;
    text_file t = {grow(NULL, &cap, 1 << 16), 0};

    if (f == NULL) {
        fprintf(stderr, "tokens: cannot open %s\n", path);
        exit(1);
    }
    while ((n = fread(t.p + t.n, 1, 1 << 16, f)) > 0)
        t.p = grow(t.p, &cap, (t.n += n) + (1 << 16));
    fclose(f);
    return t;
}

/* The end of the text that begins at `from`: the line end behind CHUNK bytes.
 * bench_tokens.py cuts in the same way. */
enum { CHUNK = 4096 };

static size_t chunk_end(const text_file *t, size_t from)
{
    const char *q = t->n - from <= CHUNK ? NULL
        : memchr(t->p + from + CHUNK, '\n', t->n - from - CHUNK);

    return q == NULL ? t->n : (size_t)(q - t->p) + 1;
}

/* Encodes (`encode`) or decodes the chunks; ids[at] has those of the chunk
 * that begins at `at`, n_ids[at] how many. Returns seconds. */
static double pass(const ksllm_model *model, const text_file *t, bool encode,
                   int32_t *ids, uint32_t *n_ids, char *back)
{
    ksllm_error err;
    double begun = seconds();

    for (size_t at = 0, end; at < t->n; at = end) {
        end = chunk_end(t, at);
        if (encode)
            n_ids[at] = (uint32_t)check(ksllm_encode(
                model, t->p + at, end - at, 0, ids + at, end - at, &err),
                &err);
        else
            check(ksllm_decode(model, ids + at, n_ids[at], 0, back,
                               4 * (end - at) + 16, &err), &err);
    }
    return seconds() - begun;
}

static void bench(const ksllm_model *model, const char *text_path)
{
    text_file t = read_file(text_path);
    int32_t *ids = malloc((t.n + 1) * sizeof *ids);
    uint32_t *n_ids = malloc((t.n + 1) * sizeof *n_ids);
    char *back = malloc(4 * t.n + 16);
    double best[2] = {1e9, 1e9};

    for (int round = 0; ids != NULL && n_ids != NULL && back != NULL
                        && round < 3; round++) {
        double encode = pass(model, &t, true, ids, n_ids, back);
        double decode = pass(model, &t, false, ids, n_ids, back);
        best[0] = encode < best[0] ? encode : best[0];
        best[1] = decode < best[1] ? decode : best[1];
    }
    printf("encode %.1f MB/s, decode %.1f MB/s\n",
           (double)t.n / best[0] * 1e-6, (double)t.n / best[1] * 1e-6);
    free(ids);
    free(n_ids);
    free(back);
    free(t.p);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void open_many(const char *path, const ksllm_model_options *options,
                      size_t count)
{
    double *took = malloc((count + 1) * sizeof *took);

    for (size_t i = 0; took != NULL && i < count; i++) {
        ksllm_model *model;
        ksllm_error err;
        double begun = seconds();
        check(ksllm_model_open(path, options, &model, &err), &err);
        took[i] = seconds() - begun;
        ksllm_model_close(model);
    }
    if (took != NULL && count > 0) {
        qsort(took, count, sizeof *took, by_size);
        printf("opens in %.2f ms, median %.2f ms of %zu\n", took[0] * 1e3,
               took[count / 2] * 1e3, count);
    }
    free(took);
}

/* ---- Streams ---- */

/* Whether text is UTF-8 as RFC 3629 has it, written down apart from the
 * library's own reader. */
static bool is_utf8(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + n;

    while (p < end) {
        int more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1
                 : *p >= 0xe0 && *p < 0xf0 ? 2
                 : *p >= 0xf0 && *p < 0xf5 ? 3 : -1;
        unsigned low = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80;
        unsigned high = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf;
        if (more < 0 || end - p <= more)
            return false;
        for (p++; more > 0; more--, p++, low = 0x80, high = 0xbf)
            if (*p < low || *p > high)
                return false;
    }
    return true;
}

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 32) * n >> 32);
}

/* Fills ids with random tokens: any, or (every other stream) only those of at
 * most two bytes, so that most characters begin and end inside of tokens. */
static void random_tokens(const ksllm_model *model, uint32_t n_vocab,
                          bool small, int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        do
            ids[i] = (int32_t)random_below(n_vocab);
        while (small && random_below(64) != 0
               && ksllm_token_bytes(model, ids[i], 0, NULL, 0) > 2);
}

/* Decodes n tokens one at a time; what comes out has to be UTF-8 each time,
 * and together what ksllm_decode says. Returns bytes, or -1. */
static int64_t stream(const ksllm_model *model, const int32_t *ids, size_t n,
                      uint32_t flags, char *text, const char *whole, size_t m)
{
    ksllm_decoder d;
    size_t at = 0;

    ksllm_decoder_init(&d, model, flags);
    for (size_t i = 0; i <= n; i++) {
        char *p = text + at;
        int64_t k = i < n ? ksllm_decoder_next(&d, ids[i], p, 1 << 12)
                          : ksllm_decoder_end(&d, p, 1 << 12);
        if (k < 0 || !is_utf8(p, (size_t)k))
            return -1;
        at += (size_t)k;
    }
    return at == m && memcmp(text, whole, m) == 0 ? (int64_t)m : -1;
}

enum { STREAM = 100000 };   /* tokens of one stream */

static int streams(const ksllm_model *model, uint64_t wanted)
{
    ksllm_model_info info = {.size = sizeof info};
    int32_t *ids = malloc(STREAM * sizeof *ids);
    uint64_t n_tokens = 0, n_bytes = 0;
    size_t cap = 0;
    bool ok = true;

    ksllm_model_get_info(model, &info, NULL);
    char *whole = NULL, *text = NULL;
    for (int i = 0; ok && ids != NULL && n_tokens < wanted; i++) {
        size_t n = 1 + random_below(2 * STREAM) / 2;
        uint32_t flags = i & 2 ? KSLLM_DECODE_SPECIAL : 0;
        ksllm_error err;
        random_tokens(model, info.n_vocab, i & 1, ids, n);
        int64_t m = check(ksllm_decode(model, ids, n, flags, NULL, 0, &err),
                          &err), k = -1;
        if (text == NULL || cap < (size_t)m) {
            free(text);
            free(whole);
            cap = (size_t)m * 2;
            text = malloc(cap + (1 << 13));
            whole = malloc(cap + 1);
        }
        if (text != NULL && whole != NULL) {
            check(ksllm_decode(model, ids, n, flags, whole, cap, &err), &err);
            k = stream(model, ids, n, flags, text, whole, (size_t)m);
        }
        ok = k >= 0;
        n_tokens += n;
        n_bytes += (uint64_t)m;
    }
    printf("%llu random tokens, %llu bytes: %s\n",
           (unsigned long long)n_tokens, (unsigned long long)n_bytes,
           ok ? "every piece UTF-8, all pieces the one-shot text"
              : "a stream went WRONG");
    free(ids);
    free(text);
    free(whole);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    ksllm_model_options options;
    ksllm_model *model;
    ksllm_error err;
    bool named = argc > 2 && strncmp(argv[2], "--", 2) != 0;
    int at = named ? 3 : 2;

    if (argc < 2) {
        fprintf(stderr, "usage: tokens MODEL [PRETOKENIZER] "
                        "[--bench FILE | --open COUNT | --stream COUNT]\n");
        return 2;
    }
    if (strcmp(argv[1], "--units") == 0) {
        units();
        return 0;
    }
    ksllm_model_options_init(&options);
    options.vocab_only = true;
    if (named && argv[2][0] != '\0')
        options.pretokenizer = argv[2];
    if (argc == at + 2 && strcmp(argv[at], "--open") == 0) {
        open_many(argv[1], &options, strtoul(argv[at + 1], NULL, 10));
        return 0;
    }
    if (ksllm_model_open(argv[1], &options, &model, &err) != KSLLM_OK) {
        fprintf(stderr, "tokens: %s\n", err.text);
        return 2;
    }
    int status = 0;
    if (argc == at + 2 && strcmp(argv[at], "--bench") == 0)
        bench(model, argv[at + 1]);
    else if (argc == at + 2 && strcmp(argv[at], "--stream") == 0)
        status = streams(model, strtoull(argv[at + 1], NULL, 10));
    else
        answer(model);
    ksllm_model_close(model);
    return status;
}
