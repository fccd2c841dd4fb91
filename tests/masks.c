/* masks.c - what a vocabulary's index, schemas and their masks cost, for
 * check_schemas.py and by hand.
 *
 *     masks MODEL.gguf [--table BYTES] [--wall] [--each] [--complete N] [CASES]
 *
 * Prints one "name value" a line: the index (milliseconds, bytes, nodes of each
 * trie), the matcher's bytes, and the time that a schema takes to be ready and
 * the masks along its texts, before each of their tokens. Times are this
 * thread's own, or with --wall those of the clock on the wall.
 *
 * CASES is a file of records: a schema as u32 length and bytes, u32 count and
 * as many texts. Without it the case is one of our own. With --each a line of
 * JSON tells everything about a case, after one with the vocabulary's bytes, in
 * hexadecimal; texts that --complete draws at random are in it too, one that
 * found no end with a "!" behind it.
 */
#ifndef KSLLM_NO_SIMD
#define KSLLM_NO_SIMD
#endif
#include "../ksllm.c"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct times { double *us; size_t n, cap; } times;

typedef struct bench {
    const ksllm_model *model;
    FILE *cases;
    size_t table, bytes;        /* bytes: of a matcher, the largest */
    void *memory;
    times ready, masks, taken;  /* taken: the token after the mask */
    bool each, wrong;
    clockid_t clock;
    unsigned completions, refused, rejected, n_cases, too_much;
    u64 random;
} bench;

static double now_us(const bench *b)
{
    struct timespec t;
    clock_gettime(b->clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *room(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p) {
        fprintf(stderr, "masks: no memory\n");
        exit(1);
    }
    return p;
}

static void add_time(times *t, double us)
{
    if (t->n == t->cap) {
        t->cap = 2 * t->cap + 1024;
        t->us = room(t->us, t->cap * sizeof *t->us);
    }
    t->us[t->n++] = us;
}

static void print_times(const char *name, times *t)
{
    double sum = 0;
    if (!t->n)
        return;
    qsort(t->us, t->n, sizeof *t->us, by_value);
    for (size_t i = 0; i < t->n; i++)
        sum += t->us[i];
    printf("%s_us_mean %.2f\n%s_us_p50 %.2f\n%s_us_p99 %.2f\n%s_us_max %.2f\n",
           name, sum / (double)t->n, name, t->us[t->n / 2], name,
           t->us[t->n * 99 / 100], name, t->us[t->n - 1]);
    free(t->us);
}

/* ---- cases -------------------------------------------------------------- */

static const char our_schema[] =
    "{\"type\":\"object\",\"required\":[\"name\",\"id\"],"
    "\"properties\":{\"name\":{\"type\":\"string\"},"
    "\"title\":{\"type\":\"string\",\"maxLength\":20},"
    "\"id\":{\"type\":\"string\",\"pattern\":\"^[a-z_]+$\"},"
    "\"n\":{\"type\":\"number\",\"minimum\":0}}}";
static const char our_text[] =
    "{\"name\": \"현대자동차 아이오닉 5, \\\"long range\\\"\", "
    "\"title\": \"서울에서 부산까지\", \"id\": \"seoul_busan\", \"n\": 325.5}";

static u32 get_u32(FILE *f)
{
    u32 n;
    return fread(&n, 1, sizeof n, f) == sizeof n ? n : UINT32_MAX;
}

/* False at the end of the file. */
static bool get_text(FILE *f, str *out)
{
    u32 n = get_u32(f);
    if (n == UINT32_MAX)
        return false;
    char *p = room(NULL, n);
    *out = (str){p, fread(p, 1, n, f)};
    return true;
}

/* ---- a text ------------------------------------------------------------- */

static bool has(const uint64_t *mask, i32 token)
{
    return mask[token / 64] >> token % 64 & 1;
}

/* A token of a text: its mask, and whether it was taken. */
static bool step(bench *b, ksllm_matcher *m, i32 token)
{
    double from = now_us(b);
    const uint64_t *mask = ksllm_matcher_allowed(m, NULL);
    double us = now_us(b) - from;
    add_time(&b->masks, us);
    bool may = mask ? has(mask, token) : ksllm_matcher_takes(m, token);
    b->too_much += !mask;
    from = now_us(b);
    bool good = ksllm_matcher_next(m, token) == KSLLM_OK;
    add_time(&b->taken, now_us(b) - from);
    if (b->each)
        printf("[%d,%.2f],", (int)token, us);
    if (good != may) {
        fprintf(stderr, "masks: token %d and its mask differ\n", (int)token);
        b->wrong = true;
    }
    return good;
}

static bool run_text(bench *b, const ksllm_grammar *g, str text)
{
    ksllm_error err;
    ksllm_matcher *m;
    i64 n = ksllm_encode(b->model, text.p, text.n, 0, NULL, 0, &err);
    i32 *tokens = room(NULL, (size_t)(n > 0 ? n : 0) * sizeof *tokens);
    bool good = n > 0
        && ksllm_encode(b->model, text.p, text.n, 0, tokens, (size_t)n, &err)
            == n
        && ksllm_matcher_init(g, b->memory, b->bytes, &m, &err) == KSLLM_OK;
    for (i64 i = 0; good && i < n; i++)
        good = step(b, m, tokens[i]);
    good = good && ksllm_matcher_may_end(m);
    free(tokens);
    return good;
}

/* ---- at random ---------------------------------------------------------- */

static u64 draw(bench *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random >> 11;
}

/* One of the set bits, or -1. */
static i32 draw_bit(bench *b, const uint64_t *mask, size_t n)
{
    u64 bits = 0;
    for (size_t i = 0; i < n; i++)
        bits += (u64)__builtin_popcountll(mask[i]);
    if (!bits)
        return -1;
    bits = draw(b) % bits;
    for (i32 i = 0;; i++)
        if (has(mask, i) && !bits--)
            return i;
}

static void put_token(const bench *b, i32 token)
{
    char bytes[1024];
    i64 n = ksllm_token_bytes(b->model, token, 0, bytes, sizeof bytes);
    for (i64 i = 0; i < n; i++)
        printf("%02x", (unsigned char)bytes[i]);
}

/* A mask against the tokens one by one, some of them. */
static void check_mask(bench *b, ksllm_matcher *m, const uint64_t *mask)
{
    u32 n = b->model->tok.n_vocab;
    for (int i = 0; i < 16; i++) {
        i32 token = (i32)(draw(b) % n);
        if (has(mask, token) == ksllm_matcher_takes(m, token))
            continue;
        fprintf(stderr, "masks: token %d and its mask differ\n", (int)token);
        b->wrong = true;
    }
}

/* Half of the tokens are of the first 4,096, which are mostly short: so texts
 * go deeper. */
static bool draw_text(bench *b, ksllm_matcher *m)
{
    i32 end[8192];
    for (u64 left = draw(b) % 60; left; left--) {
        size_t n;
        if (ksllm_matcher_may_end(m) && draw(b) % 8 == 0)
            return true;
        const uint64_t *mask = ksllm_matcher_allowed(m, &n);
        if (!mask)
            break;
        check_mask(b, m, mask);
        i32 token = draw(b) % 2 ? draw_bit(b, mask, min_size(n, 64)) : -1;
        if (token < 0)
            token = draw_bit(b, mask, n);
        if (token < 0 || ksllm_token_is_stop(b->model, token))
            break;
        if (ksllm_matcher_next(m, token))
            return false;
        put_token(b, token);
    }
    i64 n = ksllm_matcher_close(m, end, KS_LEN(end));
    if (n < 0 || n > (i64)KS_LEN(end))
        return false;
    for (i64 i = 0; i < n; i++) {
        if (ksllm_matcher_next(m, end[i]))
            return false;
        put_token(b, end[i]);
    }
    return ksllm_matcher_may_end(m);
}

static void run_completions(bench *b, const ksllm_grammar *g)
{
    ksllm_matcher *m;
    ksllm_error err;
    printf(",\"texts\":[");
    for (unsigned i = 0; i < b->completions; i++) {
        printf(i ? ",\"" : "\"");
        if (ksllm_matcher_init(g, b->memory, b->bytes, &m, &err)
            || !draw_text(b, m))
            putchar('!');
        putchar('"');
    }
    putchar(']');
}

/* ---- a schema ----------------------------------------------------------- */

/* Counts what the grammar holds. */
static void *resize(void *ctx, void *p, size_t old, size_t size)
{
    size_t *held = ctx;
    void *to = NULL;
    if (size)
        to = realloc(p, size);
    else
        free(p);
    if (to || !size)
        *held += size - old;
    return to;
}

static ksllm_grammar *ready(bench *b, str schema, size_t *held,
                            ksllm_error *err)
{
    ksllm_grammar_options o;
    ksllm_grammar *g;
    ksllm_matcher *m;
    ksllm_allocator a = {resize, held};
    ksllm_grammar_options_init(&o);
    o.kind = KSLLM_GRAMMAR_SCHEMA;
    o.source = (ksllm_text){schema.p, schema.n};
    o.allocator = &a;
    double from = now_us(b);
    if (ksllm_grammar_create(b->model, &o, &g, err))
        return NULL;
    ksllm_status status = ksllm_matcher_init(g, b->memory, b->bytes, &m, err);
    from = now_us(b) - from;
    if (status) {
        ksllm_grammar_free(g);
        return NULL;
    }
    add_time(&b->ready, from);
    if (b->each)
        printf("\"ready\":%.2f,\"bytes\":%zu", from, *held);
    return g;
}

static void put_message(const ksllm_error *err)
{
    printf("\"status\":%d,\"message\":\"", (int)err->status);
    for (const char *c = err->text; *c; c++)
        putchar(*c == '"' || *c == '\\' || (unsigned char)*c < 32 ? '\'' : *c);
    putchar('"');
}

/* With no file the text is ours. */
static void run_case(bench *b, str schema)
{
    size_t held = 0;
    ksllm_error err;
    if (b->each)
        putchar('{');
    ksllm_grammar *g = ready(b, schema, &held, &err);
    u32 n = b->cases ? get_u32(b->cases) : 1;
    b->n_cases++;
    b->refused += !g;
    if (b->each) {
        if (!g)
            put_message(&err);
        printf(",\"steps\":[");
    }
    for (u32 i = 0; i < n; i++) {
        str text = {our_text, sizeof our_text - 1};
        if (b->cases && !get_text(b->cases, &text))
            break;
        if (b->each)
            putchar('[');
        bool good = g && run_text(b, g, text);
        b->rejected += g && !good;
        if (b->each)
            printf("%s]%s", good ? "true" : "false", i + 1 < n ? "," : "");
        if (b->cases)
            free((void *)text.p);
    }
    if (b->each)
        putchar(']');
    if (b->each && g)
        run_completions(b, g);
    if (b->each)
        printf("}\n");
    ksllm_grammar_free(g);
}

/* ---- all of it ---------------------------------------------------------- */

/* The vocabulary as others want it: a control token has no bytes. */
static void put_vocabulary(const bench *b)
{
    for (u32 i = 0; i < b->model->tok.n_vocab; i++) {
        printf(i ? "," : "[");
        putchar('"');
        put_token(b, (i32)i);
        putchar('"');
    }
    printf("]\n");
}

static bool run_index(bench *b)
{
    ksllm_error err;
    voc *v = NULL;
    double best = 1e30;
    for (int i = 0; i < 5; i++) {
        voc_free(v);
        double from = now_us(b);
        if (voc_build(&b->model->tok, &MEM_LIBC, &v, &err)) {
            fprintf(stderr, "masks: %s\n", err.text);
            return false;
        }
        from = now_us(b) - from;
        best = from < best ? from : best;
    }
    b->bytes = mat_bytes(v, b->table) + 2 * API_MATCHER;
    b->memory = room(NULL, b->bytes);
    if (!b->each) {
        printf("tokens %u\nindex_ms %.2f\nindex_bytes %zu\nnodes",
               (unsigned)b->model->tok.n_vocab, best / 1e3, v->bytes);
        for (int k = 0; k < VOC_TRIES; k++)
            printf(" %u", (unsigned)v->n_nodes[k]);
        printf("\nmatcher_bytes %zu\n", b->bytes);
    } else {
        printf("{\"index_ms\":%.2f,\"index_bytes\":%zu,\"matcher_bytes\":%zu}"
               "\n", best / 1e3, v->bytes, b->bytes);
        put_vocabulary(b);
    }
    voc_free(v);
    return true;
}

static bool run(bench *b)
{
    if (!run_index(b))
        return false;
    str schema = {our_schema, sizeof our_schema - 1};
    size_t held = 0;
    ksllm_error err;
    bool each = b->each;
    b->each = false;
    ksllm_grammar_free(ready(b, schema, &held, &err));  /* the model's index */
    b->each = each;
    b->ready.n = 0;
    if (!b->cases)
        run_case(b, schema);
    while (b->cases && get_text(b->cases, &schema)) {
        run_case(b, schema);
        free((void *)schema.p);
    }
    free(b->memory);
    if (!b->each) {
        printf("schemas %u\nrefused %u\nrejected_texts %u\nmasks %zu\n"
               "masks_too_much %u\n", b->n_cases, b->refused, b->rejected,
               b->masks.n, b->too_much);
        print_times("ready", &b->ready);
        print_times("mask", &b->masks);
        print_times("taken", &b->taken);
    }
    return b->masks.n > 0 && !b->wrong;
}

int main(int argc, char **argv)
{
    bench b = {.table = SES_GRAMMAR_BYTES, .clock = CLOCK_THREAD_CPUTIME_ID,
        .random = 88172645463325252u};
    bool good = argc > 1;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--table") == 0 && i + 1 < argc)
            b.table = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--complete") == 0 && i + 1 < argc)
            b.completions = (unsigned)strtoul(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--wall") == 0)
            b.clock = CLOCK_MONOTONIC;
        else if (strcmp(argv[i], "--each") == 0)
            b.each = true;
        else
            good &= !b.cases && (b.cases = fopen(argv[i], "rb"));
    }
    if (!good) {
        fprintf(stderr, "usage: masks MODEL.gguf [--table BYTES] [--wall] "
                "[--each] [--complete N] [CASES]\n");
        return 2;
    }
    ksllm_model_options o;
    ksllm_model *model = NULL;
    ksllm_error err;
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    if (ksllm_model_open(argv[1], &o, &model, &err)) {
        fprintf(stderr, "masks: %s\n", err.text);
        return 1;
    }
    b.model = model;
    good = run(&b);
    ksllm_model_close(model);
    return !good;
}
