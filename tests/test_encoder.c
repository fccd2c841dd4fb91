/* test_encoder.c - XLM-R, as llama.cpp writes it, against transformers.
 *
 * The file and the values are tools/make_encoder.py's.
 */
#include "../ksllm.h"
#include "test.h"

#include <math.h>

#define FOLDER "tests/data/"

enum { MOST = 96, EMBD = 32 };

typedef struct text {
    int32_t tokens[MOST];
    uint32_t n;
    float first[EMBD], last[EMBD], mean[EMBD], score;
} text;

static text texts[8];
static uint32_t n_texts;

static ksllm_model *open_encoder(const char *isa)
{
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    uint32_t head[2] = {0, 0};
    FILE *f = fopen(FOLDER "encoder.bin", "rb");
    bool good = f && fread(head, 4, 2, f) == 2 && head[1] == EMBD;
    n_texts = head[0];
    for (uint32_t i = 0; good && i < n_texts; i++) {
        text *t = &texts[i];
        good = fread(&t->n, 4, 1, f) == 1 && t->n <= MOST
            && fread(t->tokens, 4, t->n, f) == t->n
            && fread(t->first, 4, EMBD, f) == EMBD
            && fread(t->last, 4, EMBD, f) == EMBD
            && fread(t->mean, 4, EMBD, f) == EMBD
            && fread(&t->score, 4, 1, f) == 1;
    }
    CHECK(good);
    if (f)
        fclose(f);
    ksllm_model_options_init(&o);
    o.isa = isa;
    if (!CHECK_OK(ksllm_model_open(FOLDER "encoder.gguf", &o, &m, &e), e))
        exit(1);
    return m;
}

static ksllm_session *session_of(const ksllm_model *m, ksllm_pooling pooling,
                                 ksllm_type kv, uint32_t threads)
{
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error e;
    ksllm_session_options_init(&o);
    o.pooling = pooling;
    o.kv_type = kv;
    o.n_threads = threads;
    CHECK_OK(ksllm_session_create(m, &o, &s, &e), e);
    return s;
}

static const float *embed(ksllm_session *s, const text *t)
{
    ksllm_error e;
    CHECK_OK(ksllm_session_sync(s, t->tokens, t->n, NULL, &e), e);
    return ksllm_session_embedding(s);
}

static double cosine(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < EMBD; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

TEST(encoder_gives_the_vectors_of_transformers)
{
    static const struct { ksllm_pooling pooling; size_t at; } of[] = {
        {KSLLM_POOLING_FIRST, offsetof(text, first)},
        {KSLLM_POOLING_LAST, offsetof(text, last)},
        {KSLLM_POOLING_MEAN, offsetof(text, mean)}};
    ksllm_model *m = open_encoder(NULL);
    for (size_t k = 0; k < 3; k++) {
        ksllm_session *s = session_of(m, of[k].pooling, KSLLM_TYPE_F32, 1);
        ksllm_session *q = session_of(m, of[k].pooling, KSLLM_TYPE_Q8_0, 2);
        for (uint32_t i = 0; i < n_texts; i++) {
            const float *want =
                (const float *)(const void *)((char *)&texts[i] + of[k].at);
            const float *got = embed(s, &texts[i]);
            for (int j = 0; j < EMBD; j++)
                CHECK(fabsf(got[j] - want[j]) < 1e-4f);
            CHECK(cosine(got, want) > 0.9999999);
            CHECK(cosine(embed(q, &texts[i]), want) > 0.999);
        }
        ksllm_session_free(s);
        ksllm_session_free(q);
    }
    ksllm_model_close(m);
}

TEST(encoder_ranks)
{
    ksllm_model *m = open_encoder(NULL);
    for (int file = 0; file < 2; file++) {      /* which says that it does */
        ksllm_session *s = session_of(m, file ? KSLLM_POOLING_MODEL
            : KSLLM_POOLING_RANK, KSLLM_TYPE_F32, 2);
        for (uint32_t i = 0; i < n_texts; i++) {
            const float *got = embed(s, &texts[i]);
            CHECK(fabsf(got[0] - texts[i].score) < 1e-4f);
            CHECK(got[1] == 0 && got[EMBD - 1] == 0);
        }
        ksllm_session_free(s);
    }
    ksllm_model_close(m);
}

/* Whatever the threads, the instruction set and the calls it came in. */
TEST(encoder_has_the_same_bits)
{
    ksllm_model *m = open_encoder("scalar");
    ksllm_session *s = session_of(m, KSLLM_POOLING_MEAN, KSLLM_TYPE_F32, 1);
    float want[EMBD];
    const text *t = &texts[2];
    ksllm_error e;
    memcpy(want, embed(s, t), sizeof want);
    CHECK_OK(ksllm_session_rewind(s, 3, &e), e);
    CHECK(ksllm_session_embedding(s) == NULL);
    CHECK_OK(ksllm_session_append(s, t->tokens + 3, t->n - 3, NULL, &e), e);
    CHECK(memcmp(want, ksllm_session_embedding(s), sizeof want) == 0);
    ksllm_session_free(s);
    ksllm_model_close(m);
    for (size_t i = 0; ksllm_isa_at(i); i++) {
        m = open_encoder(ksllm_isa_at(i));
        for (uint32_t threads = 1; threads <= 3; threads++) {
            s = session_of(m, KSLLM_POOLING_MEAN, KSLLM_TYPE_F32, threads);
            CHECK(memcmp(want, embed(s, t), sizeof want) == 0);
            ksllm_session_free(s);
        }
        ksllm_model_close(m);
    }
}

/* What needs a next token is refused by name, a text too long with the limit. */
TEST(encoder_refuses)
{
    ksllm_model *m = open_encoder(NULL);
    ksllm_session *s = session_of(m, KSLLM_POOLING_MEAN, KSLLM_TYPE_F32, 1);
    ksllm_session_options o;
    ksllm_session *other = NULL;
    ksllm_generation g;
    ksllm_token_prob p;
    ksllm_error e;
    float out[EMBD * 4];
    int32_t many[69] = {0};
    embed(s, &texts[0]);
    ksllm_generation_init(&g);
    g.text = "a";
    CHECK_EQ(ksllm_generate(s, &g, NULL, &e), KSLLM_ERR_UNSUPPORTED);
    CHECK(strstr(e.text, "encoder (bert)") != NULL);
    CHECK_EQ(ksllm_sample(s, NULL, 0, &p, NULL, 0, &e), KSLLM_ERR_UNSUPPORTED);
    CHECK_EQ(ksllm_session_score(s, many, 1, out, NULL, &e),
             KSLLM_ERR_UNSUPPORTED);
    CHECK_EQ(ksllm_session_append_logits(s, many, 1, out, NULL, &e),
             KSLLM_ERR_UNSUPPORTED);
    CHECK(ksllm_session_logits(s) == NULL);
    CHECK(ksllm_session_embedding(s) != NULL);
    CHECK_EQ(ksllm_session_sync(s, many, 69, NULL, &e), KSLLM_ERR_CONTEXT);
    CHECK(strstr(e.text, "68") != NULL);
    ksllm_session_options_init(&o);
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    CHECK_EQ(ksllm_session_create(m, &o, &other, &e), KSLLM_ERR_UNSUPPORTED);
    o.overflow = KSLLM_OVERFLOW_ERROR;
    o.n_ctx = 69;
    CHECK_EQ(ksllm_session_create(m, &o, &other, &e), KSLLM_ERR_UNSUPPORTED);
    ksllm_session_free(s);
    ksllm_model_close(m);
}

/* A file with damage in its metadata is refused, or runs. */
TEST(encoder_files_that_are_damaged)
{
    enum { ROUNDS = 400, HEAD = 5000 };
    ksllm_session_options o;
    ksllm_error e;
    uint64_t seed = test_seed;
    int runs = 0;
    FILE *f = fopen(FOLDER "encoder.gguf", "rb");
    uint8_t *file = malloc(1 << 20), *copy = malloc(1 << 20);
    size_t n = f ? fread(file, 1, 1 << 20, f) : 0;
    if (f)
        fclose(f);
    CHECK(n > HEAD);
    ksllm_session_options_init(&o);
    o.n_threads = 1;
    for (int round = 0; round < ROUNDS && n > HEAD; round++) {
        ksllm_model *m = NULL;
        ksllm_session *s = NULL;
        memcpy(copy, file, n);
        for (int k = 0; k < 2; k++) {
            uint64_t r = seed =
                seed * 6364136223846793005u + 1442695040888963407u;
            copy[24 + (r >> 40) % HEAD] = (uint8_t)(r >> 32);
        }
        o.pooling = round % 2 ? KSLLM_POOLING_RANK : KSLLM_POOLING_FIRST;
        if (!ksllm_model_open_memory(copy, n, NULL, &m, &e)
            && !ksllm_session_create(m, &o, &s, &e))
            runs += !ksllm_session_sync(s, texts[1].tokens, texts[1].n, NULL,
                                        &e);
        ksllm_session_free(s);
        ksllm_model_close(m);
    }
    CHECK(runs > ROUNDS / 10);
    free(file);
    free(copy);
}

TEST_MAIN
