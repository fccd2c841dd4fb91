/* What a grammar costs while a model decodes, in turns with free decoding.
 *
 *     build/tests/bench_obey MODEL.gguf [TOKENS [ROUNDS [THREADS]]]
 *
 * `make bench-obey` runs it on a synthetic model of EXAONE 4.0 1.2B's shape. A
 * line for each way: tokens per second, and the median of the rounds' ratios to
 * free decoding. An answer under the schema is stopped before it has to end. The
 * weights are random, so what its drafts gain is text that has to come. */
#include "../ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROUNDS = 99, N_WAYS = 4 };

/* Each has what those before it have; drafts are the last one's. */
static const char *const ways[N_WAYS] = {
    "free", "schema", "allowed_only", "drafts"};
static const char schema[] =
    "{\"type\": \"array\", \"minItems\": 20, \"items\": {\"type\": \"object\", "
    "\"properties\": {\"tool\": {\"enum\": [\"set_temperature\", "
    "\"open_window\", \"start_navigation\"]}, \"on\": {\"type\": \"boolean\"}, "
    "\"level\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 100}, "
    "\"note\": {\"type\": \"string\", \"maxLength\": 12}}, "
    "\"required\": [\"tool\", \"on\", \"level\"], "
    "\"additionalProperties\": false}}";

typedef struct run {
    unsigned n, most;
    double first, last;
} run;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(ksllm_status status, const ksllm_error *e)
{
    if (status == KSLLM_OK)
        return;
    fprintf(stderr, "bench_obey: %s\n", e->text);
    exit(1);
}

static int on_piece(void *ctx, const ksllm_piece *piece)
{
    run *r = ctx;
    if (piece->token < 0)
        return 0;
    r->last = now();
    if (r->n++ == 0)
        r->first = r->last;
    return r->n > r->most;
}

/* Tokens per second behind the first one. */
static double decode(ksllm_session *s, const ksllm_grammar *grammar, int way,
                     unsigned n)
{
    ksllm_generation want;
    ksllm_error e;
    run r = {.most = n};
    ksllm_generation_init(&want);
    want.text = "Set the temperature.";
    want.text_size = strlen(want.text);
    want.max_tokens = 4096;
    want.on_piece = on_piece;
    want.piece_ctx = &r;
    want.ignore_stop = way == 0;
    want.grammar = way ? grammar : NULL;
    want.allowed_only = way >= 2;
    want.drafts = way >= 3;
    check(ksllm_generate(s, &want, NULL, &e), &e);
    if (r.n < 2) {
        fprintf(stderr, "bench_obey: it stopped early\n");
        exit(1);
    }
    return (r.n - 1) / (r.last - r.first);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static double rate[N_WAYS][MAX_ROUNDS], ratio[N_WAYS][MAX_ROUNDS];
    unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 64;
    int rounds = argc > 3 ? atoi(argv[3]) : 5;
    ksllm_session_options options;
    ksllm_grammar_options wanted;
    ksllm_grammar *grammar;
    ksllm_session *s;
    ksllm_model *m;
    ksllm_error e;
    if (argc < 2 || n < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_obey MODEL.gguf [TOKENS [ROUNDS "
                        "[THREADS]]]\n");
        return 2;
    }
    ksllm_session_options_init(&options);
    ksllm_grammar_options_init(&wanted);
    options.n_ctx = 8192;
    options.n_threads = argc > 4 ? (uint32_t)atoi(argv[4]) : 0;
    wanted.kind = KSLLM_GRAMMAR_SCHEMA;
    wanted.source = (ksllm_text){schema, KSLLM_NUL};
    check(ksllm_model_open(argv[1], NULL, &m, &e), &e);
    check(ksllm_grammar_create(m, &wanted, &grammar, &e), &e);
    check(ksllm_session_create(m, &options, &s, &e), &e);
    decode(s, grammar, 1, 4);           /* the weights come into memory */
    for (int i = 0; i < rounds; i++)
        for (int k = 0; k < N_WAYS; k++) {
            rate[k][i] = decode(s, grammar, k, n);
            ratio[k][i] = rate[k][i] / rate[0][i];
        }
    for (int k = 0; k < N_WAYS; k++) {
        qsort(rate[k], (size_t)rounds, sizeof rate[k][0], by_value);
        qsort(ratio[k], (size_t)rounds, sizeof ratio[k][0], by_value);
        printf("%-12s %7.2f tokens/s  %.3f of free decoding\n", ways[k],
               rate[k][rounds / 2], ratio[k][rounds / 2]);
    }
    ksllm_session_free(s);
    ksllm_grammar_free(grammar);
    ksllm_model_close(m);
    return 0;
}
