/* test_session.c - a session's promises: memory known to the byte, no
 * allocation while it lives, every failure clean, nothing changed by a call
 * that was refused, and a call that was stopped goes on to the same bits.
 */
#include "test.h"
#include "fixture.h"

#include <pthread.h>
#include <time.h>

static uint64_t fresh_hash(const ksllm_model *m, const int32_t *tokens,
                           size_t n)
{
    ksllm_session_options o = fx_small_options();
    ksllm_error e;
    o.n_ctx = (uint32_t)n;
    o.n_batch = 64;
    ksllm_session *s = fx_create(m, &o);
    CHECK_OK(ksllm_session_sync(s, tokens, n, NULL, &e), e);
    uint64_t h = fx_logits_hash(m, s);
    ksllm_session_free(s);
    return h;
}

/* The session holds the first `n` of these; returns n. */
static size_t check_prefix(const ksllm_session *s, const int32_t *tokens,
                           size_t most)
{
    size_t n = 0;
    const int32_t *t = ksllm_session_tokens(s, &n);
    if (CHECK(n <= most) && n)
        CHECK(memcmp(t, tokens, n * sizeof *t) == 0);
    return n;
}

/* ---- Memory ------------------------------------------------------------- */

/* Kinds of options; false behind the last. */
static bool options_at(int i, ksllm_session_options *o)
{
    static const struct {
        uint32_t ctx, batch, threads;
        ksllm_type kv;
        ksllm_pooling pooling;
    } kinds[] = {
        {64, 16, 1, KSLLM_TYPE_Q8_0, KSLLM_POOLING_NONE},
        {1, 1, 1, KSLLM_TYPE_F16, KSLLM_POOLING_NONE},
        {33, 7, 2, KSLLM_TYPE_F32, KSLLM_POOLING_MEAN},
        {500, 64, 3, KSLLM_TYPE_Q8_0, KSLLM_POOLING_LAST},
        {0, 0, 1, KSLLM_TYPE_F16, KSLLM_POOLING_NONE},
        {16, 200, 4, KSLLM_TYPE_F32, KSLLM_POOLING_NONE}};
    if (i >= (int)(sizeof kinds / sizeof kinds[0]))
        return false;
    ksllm_session_options_init(o);
    o->n_ctx = kinds[i].ctx;
    o->n_batch = kinds[i].batch;
    o->n_threads = kinds[i].threads;
    o->kv_type = kinds[i].kv;
    o->pooling = kinds[i].pooling;
    return true;
}

static const char *const some[] = {"llama", "window", "mixed"};

/* Uses what a session has scratch memory for. */
static uint64_t use_session(const ksllm_model *m, ksllm_session *s)
{
    int32_t tokens[40];
    ksllm_error e;
    size_t n = ksllm_session_capacity(s);
    fx_prompt(tokens, 40, 5);
    n = n < 40 ? n : 40;
    CHECK_OK(ksllm_session_sync(s, tokens, n, NULL, &e), e);
    return fx_logits_hash(m, s);
}

TEST(estimate_is_exact)
{
    for (size_t i = 0; i < 3; i++) {
        fx_file f;
        ksllm_model *m = fx_open(some[i], &f);
        ksllm_session_options o;
        for (int k = 0; options_at(k, &o); k++) {
            fx_alloc a;
            ksllm_memory mem = {.size = sizeof mem};
            ksllm_error e;
            fx_alloc_init(&a);
            o.allocator = &a.allocator;
            CHECK_OK(ksllm_session_memory(m, &o, &mem, &e), e);
            CHECK_EQ(a.calls, 0);
            ksllm_session *s = fx_create(m, &o);
            CHECK_EQ(a.calls, 1);
            CHECK_EQ(a.live, mem.total);
            CHECK(mem.kv + mem.scratch + mem.output <= mem.total);
            CHECK(mem.kv && mem.scratch && mem.output);
            CHECK_EQ(mem.n_ctx, o.n_ctx ? o.n_ctx : 4096);
            CHECK_EQ(mem.n_ctx, ksllm_session_capacity(s));
            uint32_t batch = o.n_batch ? o.n_batch : 64;
            CHECK_EQ(mem.n_batch, batch < mem.n_ctx ? batch : mem.n_ctx);
            CHECK_EQ(mem.n_threads, o.n_threads);
            use_session(m, s);
            CHECK_EQ(a.calls, 1);
            ksllm_session_free(s);
            CHECK_EQ(a.calls, 2);
            CHECK_EQ(a.live, 0);
            CHECK(!a.wrong_size);
        }
        ksllm_model_close(m);
        free(f.data);
    }
}

TEST(callers_buffer)
{
    for (size_t i = 0; i < 3; i++) {
        fx_file f;
        ksllm_model *m = fx_open(some[i], &f);
        ksllm_session_options o;
        for (int k = 0; options_at(k, &o); k++) {
            fx_alloc a;
            ksllm_memory mem = {.size = sizeof mem};
            ksllm_error e;
            uint64_t hash = 0;
            o.n_ctx = o.n_ctx ? o.n_ctx : 100;
            fx_alloc_init(&a);
            o.allocator = &a.allocator;
            CHECK_OK(ksllm_session_memory(m, &o, &mem, &e), e);
            for (size_t shift = 0; shift < 65;
                 shift += TEST_ONE_OF > 1 ? 21 : 1 + shift / 8) {
                /* An exact block: a sanitizer watches both its ends. */
                uint8_t *raw = fx_memory(NULL, mem.total + shift);
                memset(raw, 0xa5, mem.total + shift);
                ksllm_session *s = (ksllm_session *)(void *)&a;
                o.memory = raw + shift;
                o.memory_size = mem.total - 1;
                CHECK_EQ(ksllm_session_create(m, &o, &s, &e),
                         KSLLM_ERR_BUFFER);
                CHECK(s == NULL);
                o.memory_size = mem.total;
                s = fx_create(m, &o);
                uint64_t h = use_session(m, s);
                if (shift == 0)
                    hash = h;
                CHECK_HEX(h, hash);
                ksllm_session_free(s);
                for (size_t j = 0; j < shift; j++)
                    CHECK_EQ(raw[j], 0xa5);
                free(raw);
            }
            o.memory = &o;
            o.memory_size = 0;
            ksllm_session *s;
            CHECK_EQ(ksllm_session_create(m, &o, &s, &e), KSLLM_ERR_BUFFER);
            CHECK_EQ(a.calls, 0);
        }
        ksllm_model_close(m);
        free(f.data);
    }
}

TEST(estimates_that_overflow)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    static const uint32_t huge[] = {1u << 20, 1u << 28, 1u << 31,
                                    UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        ksllm_session_options o = fx_small_options();
        ksllm_memory mem = {.size = sizeof mem};
        ksllm_error e;
        fx_alloc a;
        fx_alloc_init(&a);
        o.allocator = &a.allocator;
        o.n_ctx = huge[i];
        ksllm_status st = ksllm_session_memory(m, &o, &mem, &e);
        /* A token: 2 layers x 2 heads x (32 + 32 bytes, 2 scales). */
        if (st == KSLLM_OK)
            CHECK((uint64_t)mem.total > 288 * (uint64_t)huge[i]);
        else
            CHECK(st == KSLLM_ERR_MEMORY || st == KSLLM_ERR_ARGUMENT);
        ksllm_session *s;
        CHECK(ksllm_session_create(m, &o, &s, &e) < 0);
        CHECK(s == NULL);
        CHECK_EQ(a.live, 0);
    }
    ksllm_model_close(m);
    free(f.data);
}

static int count_piece(void *ctx, const ksllm_piece *p)
{
    (void)p;
    ++*(int *)ctx;
    return 0;
}

TEST(no_allocation_while_it_lives)
{
    fx_file f = fx_model(fx_spec_of("window"));
    fx_alloc a;
    ksllm_error e;
    ksllm_model *m = NULL;
    ksllm_model_options mo;
    ksllm_session *s, *t;
    fx_alloc_init(&a);
    ksllm_model_options_init(&mo);
    mo.allocator = &a.allocator;
    CHECK_OK(ksllm_model_open_memory(f.data, f.size, &mo, &m, &e), e);
    ksllm_session_options o = fx_small_options();
    o.n_threads = 2;
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    o.n_keep = 4;
    o.pooling = KSLLM_POOLING_MEAN;
    s = fx_create(m, &o);
    t = fx_create(m, &o);
    long calls = a.calls;
    int32_t tokens[200];
    int pieces = 0;
    size_t v = fx_n_vocab(m);
    float *logits = fx_memory(NULL, 20 * v * sizeof *logits);
    fx_prompt(tokens, 200, 3);
    CHECK_OK(ksllm_session_sync(s, tokens, 60, NULL, &e), e);
    for (int i = 0; i < 30; i++)
        CHECK_OK(ksllm_session_append(s, tokens + i, 1, NULL, &e), e);
    CHECK_OK(ksllm_session_sync(s, tokens, 30, NULL, &e), e);
    CHECK_OK(ksllm_session_append_logits(s, tokens, 20, logits, NULL, &e), e);
    CHECK_EQ(ksllm_session_rewind(s, 10, NULL), KSLLM_OK);
    CHECK_OK(ksllm_session_append(s, tokens, 9, NULL, &e), e);
    CHECK_EQ(ksllm_session_fork(s, t, NULL), KSLLM_OK);
    ksllm_token_prob p, top[32];
    ksllm_sampling sm;
    ksllm_sampling_init(&sm);
    sm.temperature = 1;
    sm.top_k = 20;
    sm.top_p = 0.9f;
    sm.min_p = 0.01f;
    sm.repeat_penalty = 1.1f;
    sm.frequency_penalty = 0.1f;
    sm.penalty_window = 1024;
    for (uint64_t i = 0; i < 20; i++)
        CHECK_OK(ksllm_sample(s, &sm, i, &p, top, 32, &e), e);
    ksllm_text stops[2] = {{"\n\n", 2}, {"end", 3}};
    ksllm_generation g;
    ksllm_result r = {.size = sizeof r};
    ksllm_generation_init(&g);
    g.text = "안녕하세요 there, 안녕히 가세요";
    g.max_tokens = 100;
    g.ignore_stop = true;
    g.sampling = &sm;
    g.stop_texts = stops;
    g.n_stop_texts = 2;
    g.n_top = 5;
    g.on_piece = count_piece;
    g.piece_ctx = &pieces;
    CHECK_OK(ksllm_generate(s, &g, &r, &e), e);
    CHECK(pieces > 0);
    g.append = true;
    CHECK_OK(ksllm_generate(s, &g, &r, &e), e);
    CHECK_EQ(a.calls, calls);
    ksllm_session_free(s);
    ksllm_session_free(t);
    ksllm_model_close(m);
    CHECK_EQ(a.live, 0);
    CHECK(!a.wrong_size);
    free(logits);
    free(f.data);
}

TEST(every_allocation_fails_in_turn)
{
    static const char *const names[] = {"llama", "gemma3", "spm", "freqs",
        "lfm2", "lfm2moe", "bert", "gemma4"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fx_spec spec = *fx_spec_of(names[i]);
        if (i == 0)
            spec.more = fx_suppress_some;
        fx_file f = fx_model(&spec);
        long n = 0;
        for (bool done = false; !done && n < 1000;) {
            fx_alloc a;
            ksllm_error e = {0};
            ksllm_model *m = (ksllm_model *)(void *)&a;
            ksllm_model_options mo;
            ksllm_session *s = (ksllm_session *)(void *)&a;
            ksllm_session_options o = fx_small_options();
            fx_alloc_init(&a);
            a.fail_at = ++n;
            ksllm_model_options_init(&mo);
            mo.allocator = &a.allocator;
            ksllm_status st = ksllm_model_open_memory(f.data, f.size, &mo,
                                                      &m, &e);
            if (st == KSLLM_OK) {
                st = ksllm_session_create(m, &o, &s, &e);
                if (st == KSLLM_OK)
                    done = CHECK(!a.failed);
                else
                    CHECK(s == NULL);
                ksllm_session_free(s);
                ksllm_model_close(m);
            } else {
                CHECK(m == NULL);
            }
            if (!done) {
                CHECK_EQ(st, KSLLM_ERR_MEMORY);
                CHECK_EQ(e.status, KSLLM_ERR_MEMORY);
                CHECK(a.failed && e.text[0]);
            }
            CHECK_EQ(a.live, 0);
            CHECK(!a.wrong_size);
        }
        /* At least the tables and the session. */
        CHECK(n > 3 && n < 1000);
        free(f.data);
    }
}

TEST(encoding_without_memory)
{
    static const char *const names[] = {"llama", "spm"};
    char word[5000];
    static int32_t want[5100], ids[5100];
    for (size_t i = 0; i < sizeof word; i++)
        word[i] = (char)('a' + i % 3);
    for (size_t i = 0; i < 2; i++) {
        fx_file f = fx_model(fx_spec_of(names[i]));
        fx_alloc a;
        ksllm_error e;
        ksllm_model *m = NULL;
        ksllm_model_options mo;
        fx_alloc_init(&a);
        ksllm_model_options_init(&mo);
        mo.allocator = &a.allocator;
        CHECK_OK(ksllm_model_open_memory(f.data, f.size, &mo, &m, &e), e);
        size_t live = a.live;
        int64_t n = ksllm_encode(m, word, sizeof word, 0, want, 5100, &e);
        CHECK(n > 0 && n <= 5100);
        CHECK_EQ(a.live, live);
        long last = a.calls;
        for (int k = 1; k < 20; k++) {
            a.failed = false;
            a.fail_at = a.calls + k;
            int64_t r = ksllm_encode(m, word, sizeof word, 0, ids, 5100, &e);
            CHECK_EQ(r, a.failed ? (int64_t)KSLLM_ERR_MEMORY : n);
            CHECK_EQ(a.live, live);
            if (!a.failed)
                break;
        }
        (void)last;
        /* A short text needs none. */
        a.fail_at = 0;
        long calls = a.calls;
        CHECK(ksllm_encode(m, word, 60, 0, ids, 5100, &e) > 0);
        CHECK(ksllm_encode(m, "안녕하세요 he the", KSLLM_NUL, 7, ids, 5100,
                           &e) > 0);
        CHECK_EQ(a.calls, calls);
        ksllm_model_close(m);
        CHECK_EQ(a.live, 0);
        CHECK(!a.wrong_size);
        free(f.data);
    }
}

/* ---- Refused calls ------------------------------------------------------ */

TEST(a_full_context)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    int32_t tokens[20];
    float *logits = fx_memory(NULL, 20 * fx_n_vocab(m) * sizeof *logits);
    fx_prompt(tokens, 20, 1);
    o.n_ctx = 16;
    ksllm_session *s = fx_create(m, &o);
    CHECK_EQ(ksllm_session_append(s, tokens, 17, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK(e.text[0]);
    CHECK_EQ(check_prefix(s, tokens, 0), 0);
    CHECK(ksllm_session_logits(s) == NULL);
    CHECK_EQ(ksllm_session_sync(s, tokens, 17, NULL, &e), KSLLM_ERR_CONTEXT);
    CHECK_EQ(ksllm_session_sync(s, tokens, SIZE_MAX, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_EQ(ksllm_session_append(s, tokens, SIZE_MAX, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_EQ(ksllm_session_append_logits(s, tokens, 17, logits, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_OK(ksllm_session_append(s, tokens, 10, NULL, &e), e);
    uint64_t hash = fx_logits_hash(m, s);
    CHECK_EQ(ksllm_session_append(s, tokens, 7, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_EQ(ksllm_session_append(s, tokens, SIZE_MAX - 5, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_EQ(ksllm_session_append_logits(s, tokens, 7, logits, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_EQ(ksllm_session_sync(s, tokens, 17, NULL, &e), KSLLM_ERR_CONTEXT);
    CHECK_EQ(check_prefix(s, tokens, 10), 10);
    CHECK_HEX(fx_logits_hash(m, s), hash);
    CHECK_OK(ksllm_session_append(s, tokens + 10, 6, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, tokens, 16));
    CHECK_EQ(ksllm_session_append(s, tokens, 1, NULL, &e),
             KSLLM_ERR_CONTEXT);
    CHECK_OK(ksllm_session_sync(s, tokens, 16, NULL, &e), e);
    CHECK_EQ(check_prefix(s, tokens, 16), 16);
    free(logits);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* Appends `add` tokens and checks what slid out: the first n_keep stay, the
 * end stays, the older half of the rest goes. */
static void slide(const ksllm_model *m, ksllm_session *s, int32_t *now,
                  size_t *n, size_t keep, size_t n_ctx, const int32_t *add,
                  size_t n_add)
{
    ksllm_error e;
    size_t have = 0, rest = *n - keep, drop = 0;
    int32_t all[200];
    memcpy(all, now, *n * sizeof *now);
    memcpy(all + *n, add, n_add * sizeof *add);
    CHECK_OK(ksllm_session_append(s, add, n_add, NULL, &e), e);
    const int32_t *t = ksllm_session_tokens(s, &have);
    if (!CHECK(have <= n_ctx && have <= *n + n_add && have > keep))
        return;
    drop = *n + n_add - have;
    CHECK(memcmp(t, all, keep * sizeof *t) == 0);
    CHECK(memcmp(t + keep, all + keep + drop,
                 (have - keep) * sizeof *t) == 0);
    if (*n + n_add <= n_ctx)
        CHECK_EQ(drop, 0);
    else if (n_add == 1)
        CHECK(drop == rest / 2 || drop == (rest + 1) / 2);
    memcpy(now, t, have * sizeof *t);
    *n = have;
    CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, now, have));
}

TEST(sliding)
{
    static const uint32_t keeps[] = {0, 1, 4, 15, 30, 31};
    for (size_t i = 0; i < 2; i++) {
        fx_file f;
        ksllm_error e;
        ksllm_model *m = fx_open(some[i], &f);
        for (size_t k = 0; k < 6; k++) {
            ksllm_session_options o = fx_small_options();
            o.n_ctx = 32;
            o.overflow = KSLLM_OVERFLOW_SLIDE;
            o.n_keep = keeps[k];
            ksllm_session *s = fx_create(m, &o);
            int32_t tokens[200], now[64];
            size_t n = 0, at = 0;
            fx_prompt(tokens, 200, k);
            CHECK_OK(ksllm_session_append(s, tokens, 31, NULL, &e), e);
            memcpy(now, tokens, 31 * sizeof *now);
            n = at = 31;
            for (int j = 0; j < (keeps[k] > 15 ? 5 : 50); j++)
                slide(m, s, now, &n, keeps[k], 32, tokens + at++, 1);
            if (keeps[k] <= 4) {
                slide(m, s, now, &n, keeps[k], 32, tokens + at, 9);
                slide(m, s, now, &n, keeps[k], 32, tokens + at + 9, 14);
                slide(m, s, now, &n, keeps[k], 32, tokens, 20);
            }
            /* More than the context at once: as one by one, but for what
             * would slide out at once. */
            slide(m, s, now, &n, keeps[k], 32, tokens, 33);
            slide(m, s, now, &n, keeps[k], 32, tokens, 100);
            /* Scores are of all their tokens, or refused. */
            float logits[1];
            uint64_t hash = fx_logits_hash(m, s);
            CHECK_EQ(ksllm_session_append_logits(s, tokens, 33 - n, logits,
                                                 NULL, &e), KSLLM_ERR_CONTEXT);
            CHECK_EQ(ksllm_session_append_logits(s, tokens, 33, logits,
                                                 NULL, &e),
                     KSLLM_ERR_CONTEXT);
            CHECK_EQ(check_prefix(s, now, n), n);
            CHECK_HEX(fx_logits_hash(m, s), hash);
            ksllm_session_free(s);
        }
        ksllm_model_close(m);
        free(f.data);
    }
}

/* A copy made after the ring of a layer with a window has turned goes on as
 * the original does; so does one that goes back further than the ring. */
TEST(fork_after_the_window_has_turned)
{
    fx_file f;
    ksllm_model *m = fx_open("window", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_error e;
    int32_t ids[100];
    o.n_ctx = 128;
    o.n_batch = 8;
    ksllm_session *a = fx_create(m, &o), *b = fx_create(m, &o);
    fx_prompt(ids, 100, 3);
    CHECK_OK(ksllm_session_append(a, ids, 99, NULL, &e), e);
    CHECK_OK(ksllm_session_fork(a, b, &e), e);
    for (int turn = 0; turn < 2; turn++) {
        CHECK_OK(ksllm_session_append(a, ids + 99, 1, NULL, &e), e);
        CHECK_OK(ksllm_session_append(b, ids + 99, 1, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, a), fx_logits_hash(m, b));
        /* far: `a` begins again; `b` is new */
        CHECK_OK(ksllm_session_rewind(a, 30, &e), e);
        ksllm_session_free(b);
        b = fx_create(m, &o);
        CHECK_OK(ksllm_session_append(b, ids, 30, NULL, &e), e);
    }
    ksllm_session_free(a);
    ksllm_session_free(b);
    fx_close(m, &f);
}

TEST(tokens_out_of_range)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_session *s = fx_create(m, &o);
    int32_t tokens[20], good[20];
    static const int32_t bad[] = {-1, FX_BPE_SIZE, INT32_MAX, INT32_MIN};
    float *logits = fx_memory(NULL, 20 * fx_n_vocab(m) * sizeof *logits);
    fx_prompt(good, 20, 1);
    CHECK_OK(ksllm_session_sync(s, good, 10, NULL, &e), e);
    uint64_t hash = fx_logits_hash(m, s);
    for (int i = 0; i < 4; i++)
        for (size_t at = 0; at < 20; at += 19) {
            memcpy(tokens, good, sizeof tokens);
            tokens[at] = bad[i];
            CHECK_EQ(ksllm_session_sync(s, tokens, 20, NULL, &e),
                     KSLLM_ERR_TOKEN);
            CHECK_EQ(ksllm_session_append(s, tokens, 20, NULL, &e),
                     KSLLM_ERR_TOKEN);
            CHECK_EQ(ksllm_session_append_logits(s, tokens, 20, logits,
                                                 NULL, &e),
                     KSLLM_ERR_TOKEN);
            char number[16];
            snprintf(number, sizeof number, "%ld", (long)bad[i]);
            CHECK(strstr(e.text, number));
            CHECK_EQ(check_prefix(s, good, 10), 10);
            CHECK_HEX(fx_logits_hash(m, s), hash);
        }
    tokens[0] = FX_BPE_SIZE - 1;
    CHECK_OK(ksllm_session_append(s, tokens, 1, NULL, &e), e);
    free(logits);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- Stopping ----------------------------------------------------------- */

enum { N_LONG = 48 };

/* After a call that was stopped: a prefix is there, what logits there are
 * belong to it, and the rest gives the same bits. */
static void goes_on(const ksllm_model *m, ksllm_session *s,
                    const int32_t *tokens, size_t total, bool by_sync,
                    uint64_t want)
{
    ksllm_error e;
    size_t n = check_prefix(s, tokens, total);
    if (ksllm_session_logits(s) && n)
        CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, tokens, n));
    if (by_sync || n == total)
        CHECK_OK(ksllm_session_sync(s, tokens, total, NULL, &e), e);
    else
        CHECK_OK(ksllm_session_append(s, tokens + n, total - n, NULL, &e),
                 e);
    CHECK_EQ(check_prefix(s, tokens, total), total);
    CHECK_HEX(fx_logits_hash(m, s), want);
}

TEST(cancelled_before)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_session *s = fx_create(m, &o);
    int32_t tokens[N_LONG];
    ksllm_cancel c = {0};
    ksllm_control control;
    fx_prompt(tokens, N_LONG, 2);
    uint64_t want = fresh_hash(m, tokens, N_LONG);
    ksllm_control_init(&control);
    CHECK_EQ(control.size, sizeof control);
    control.cancel = &c;
    ksllm_cancel_set(&c);
    CHECK_EQ(ksllm_session_sync(s, tokens, N_LONG, &control, &e),
             KSLLM_ERR_CANCELLED);
    CHECK(e.text[0] && e.status == KSLLM_ERR_CANCELLED);
    CHECK_EQ(check_prefix(s, tokens, 0), 0);
    /* It stays set. */
    CHECK_EQ(ksllm_session_append(s, tokens, 5, &control, &e),
             KSLLM_ERR_CANCELLED);
    ksllm_cancel_clear(&c);
    CHECK_OK(ksllm_session_append(s, tokens, 5, &control, &e), e);
    ksllm_cancel_set(&c);
    CHECK_EQ(ksllm_session_append(s, tokens + 5, 1, &control, &e),
             KSLLM_ERR_CANCELLED);
    goes_on(m, s, tokens, N_LONG, false, want);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* A call that was stopped leaves no embedding: neither a part of one nor that
 * of other tokens. */
TEST(cancelled_embeddings)
{
    static const struct { const char *name; ksllm_pooling pooling; } cases[] = {
        {"llama", KSLLM_POOLING_LAST}, {"llama", KSLLM_POOLING_MEAN},
        {"bert", KSLLM_POOLING_FIRST}, {"bert", KSLLM_POOLING_MEAN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const int32_t tokens[] = {2, 3, 4, 5, 6, 7};
        fx_file f;
        ksllm_error e;
        ksllm_model *m = fx_open(cases[i].name, &f);
        ksllm_session_options o = fx_small_options();
        o.pooling = cases[i].pooling;
        ksllm_session *s = fx_create(m, &o);
        ksllm_cancel c = {0};
        ksllm_control control;
        ksllm_control_init(&control);
        control.cancel = &c;
        CHECK_OK(ksllm_session_sync(s, tokens, 4, &control, &e), e);
        CHECK(ksllm_session_embedding(s) != NULL);
        ksllm_cancel_set(&c);
        CHECK_EQ(ksllm_session_append(s, tokens + 4, 2, &control, &e),
                 KSLLM_ERR_CANCELLED);
        CHECK(ksllm_session_embedding(s) == NULL);
        CHECK_OK(ksllm_session_rewind(s, 2, &e), e);
        CHECK(ksllm_session_embedding(s) == NULL);
        CHECK_OK(ksllm_session_append(s, tokens + 4, 2, NULL, &e), e);
        CHECK(ksllm_session_embedding(s) != NULL);
        ksllm_session_free(s);
        ksllm_model_close(m);
        free(f.data);
    }
}

/* Lends a thread and cancels at the `at`-th piece of work. */
typedef struct stopper {
    ksllm_cancel cancel;
    long calls, at;
} stopper;

static void stop_at(void *ctx, uint32_t n, ksllm_task task, void *arg)
{
    stopper *p = ctx;
    for (uint32_t i = 0; i < n; i++) {
        if (++p->calls == p->at)
            ksllm_cancel_set(&p->cancel);
        task(arg, i);
    }
}

TEST(cancelled_at_every_point)
{
    for (size_t i = 0; i < 2; i++) {
        fx_file f;
        ksllm_model *m = fx_open(some[i], &f);
        stopper p = {{0}, 0, 0};
        ksllm_session_options o = fx_small_options();
        o.parallel_for = stop_at;
        o.parallel_ctx = &p;
        o.n_threads = 2;
        ksllm_session *s = fx_create(m, &o);
        int32_t tokens[N_LONG], other[N_LONG];
        ksllm_control control;
        ksllm_control_init(&control);
        control.cancel = &p.cancel;
        fx_prompt(tokens, N_LONG, 2);
        fx_prompt(other, N_LONG, 3);
        memcpy(other, tokens, 20 * sizeof *other);
        uint64_t want = fresh_hash(m, tokens, N_LONG);
        bool finished = false;
        long k = 1;
        for (; !finished && k < 100000; k += 1 + k / 16) {
            ksllm_error e;
            /* Begins from another timeline with a common prefix. */
            p.at = 0;
            CHECK_OK(ksllm_session_sync(s, other, N_LONG, NULL, &e), e);
            p.calls = 0;
            p.at = k;
            ksllm_status st = ksllm_session_sync(s, tokens, N_LONG, &control,
                                                 &e);
            finished = p.calls < k;
            CHECK(st == KSLLM_ERR_CANCELLED ||
                  (st == KSLLM_OK && p.calls <= k + 64));
            ksllm_cancel_clear(&p.cancel);
            p.at = 0;
            size_t n;
            ksllm_session_tokens(s, &n);
            /* Whole batches of 16 behind the prefix of 20. */
            CHECK(n >= 20 || n == 0 || i == 1);
            goes_on(m, s, tokens, N_LONG, k & 1, want);
        }
        CHECK(finished && k > 20);
        ksllm_session_free(s);
        ksllm_model_close(m);
        free(f.data);
    }
}

TEST(cancelled_single_steps)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("window", &f);
    stopper p = {{0}, 0, 0};
    ksllm_session_options o = fx_small_options();
    o.parallel_for = stop_at;
    o.parallel_ctx = &p;
    o.n_threads = 2;
    ksllm_session *s = fx_create(m, &o);
    int32_t tokens[N_LONG];
    ksllm_control control;
    ksllm_control_init(&control);
    control.cancel = &p.cancel;
    fx_prompt(tokens, N_LONG, 2);
    uint64_t want = fresh_hash(m, tokens, N_LONG), seed = test_seed;
    CHECK_OK(ksllm_session_sync(s, tokens, 4, NULL, &e), e);
    p.calls = 0;
    CHECK_OK(ksllm_session_append(s, tokens + 4, 1, NULL, &e), e);
    const uint32_t one = (uint32_t)p.calls;     /* of one token */
    for (size_t n = 5; n < N_LONG;) {
        p.calls = 0;
        p.at = 1 + fx_below(&seed, 2 * one);    /* half of them succeed */
        ksllm_status st = ksllm_session_append(s, tokens + n, 1, &control,
                                               &e);
        CHECK(st == KSLLM_OK || st == KSLLM_ERR_CANCELLED);
        ksllm_cancel_clear(&p.cancel);
        CHECK_EQ(check_prefix(s, tokens, N_LONG), n + (st == KSLLM_OK));
        n += st == KSLLM_OK;
    }
    CHECK_HEX(fx_logits_hash(m, s), want);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

static void *cancel_soon(void *p)
{
    const struct timespec wait = {0, 5000000};
    nanosleep(&wait, NULL);
    ksllm_cancel_set(p);
    return NULL;
}

static uint64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A prompt that takes some hundred milliseconds: 3000 tokens, one batch. */
enum { N_SLOW = 3000 };

TEST(cancelled_by_another_thread)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("mixed", &f);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = N_SLOW;
    o.n_batch = N_SLOW;
    o.n_threads = 2;
    ksllm_session *s = fx_create(m, &o);
    int32_t *tokens = fx_memory(NULL, N_SLOW * sizeof *tokens);
    ksllm_cancel c = {0};
    ksllm_control control;
    pthread_t id;
    fx_prompt(tokens, N_SLOW, 2);
    ksllm_control_init(&control);
    control.cancel = &c;
    uint64_t begun = milliseconds();
    CHECK_EQ(pthread_create(&id, NULL, cancel_soon, &c), 0);
    CHECK_EQ(ksllm_session_sync(s, tokens, N_SLOW, &control, &e),
             KSLLM_ERR_CANCELLED);
    pthread_join(id, NULL);
    /* Generous: the machine may be busy and the build unoptimised. */
    CHECK(milliseconds() - begun < 2000);
    goes_on(m, s, tokens, 100, true, fresh_hash(m, tokens, 100));
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(tokens);
    free(f.data);
}

TEST(out_of_time)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("mixed", &f);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = N_SLOW;
    ksllm_session *s = fx_create(m, &o);
    int32_t *tokens = fx_memory(NULL, N_SLOW * sizeof *tokens);
    ksllm_control control;
    fx_prompt(tokens, N_SLOW, 2);
    ksllm_control_init(&control);
    control.budget_us = 1;
    CHECK_EQ(ksllm_session_sync(s, tokens, N_SLOW, &control, &e),
             KSLLM_ERR_DEADLINE);
    CHECK(e.text[0] && e.status == KSLLM_ERR_DEADLINE);
    control.budget_us = 2000;
    CHECK_EQ(ksllm_session_sync(s, tokens, N_SLOW, &control, &e),
             KSLLM_ERR_DEADLINE);
    /* By budgets that grow the prompt is done in the end, and the beginning
     * is not evaluated again. */
    const size_t total = 200;
    size_t before = 0;
    for (control.budget_us = 500; ;
         control.budget_us += 500 + control.budget_us / 16) {
        ksllm_status st = ksllm_session_sync(s, tokens, total, &control, &e);
        size_t n = check_prefix(s, tokens, N_SLOW);
        CHECK(n >= (before < total ? before : total));
        before = n;
        if (st == KSLLM_OK)
            break;
        if (!CHECK_EQ(st, KSLLM_ERR_DEADLINE))
            break;
    }
    CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, tokens, total));
    control.budget_us = UINT64_MAX;
    CHECK_OK(ksllm_session_append(s, tokens, 1, &control, &e), e);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(tokens);
    free(f.data);
}

typedef struct progress {
    size_t calls, last, total;
    bool backwards;
    ksllm_cancel *cancel;
} progress;

static void on_progress(void *ctx, size_t done, size_t total)
{
    progress *p = ctx;
    p->backwards = p->backwards || done <= p->last || done > total ||
                   (p->calls && total != p->total);
    p->calls++;
    p->last = done;
    p->total = total;
    if (p->cancel)
        ksllm_cancel_set(p->cancel);
}

TEST(progress_of_a_prompt)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_session *s = fx_create(m, &o);
    int32_t tokens[N_LONG];
    progress p = {0};
    ksllm_cancel c = {0};
    ksllm_control control;
    fx_prompt(tokens, N_LONG, 2);
    ksllm_control_init(&control);
    control.on_progress = on_progress;
    control.progress_ctx = &p;
    CHECK_OK(ksllm_session_sync(s, tokens, N_LONG, &control, &e), e);
    CHECK_EQ(p.calls, 3);               /* batches of 16 */
    CHECK(!p.backwards);
    CHECK_EQ(p.last, N_LONG);
    CHECK_EQ(p.total, N_LONG);
    /* Cancelled from inside. */
    ksllm_session_rewind(s, 0, NULL);
    memset(&p, 0, sizeof p);
    p.cancel = &c;
    control.cancel = &c;
    CHECK_EQ(ksllm_session_sync(s, tokens, N_LONG, &control, &e),
             KSLLM_ERR_CANCELLED);
    CHECK_EQ(p.calls, 1);
    CHECK_EQ(check_prefix(s, tokens, N_LONG), 16);
    goes_on(m, s, tokens, N_LONG, true, fresh_hash(m, tokens, N_LONG));
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

TEST_MAIN
