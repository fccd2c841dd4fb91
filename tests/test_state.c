/* test_state.c - sessions saved and loaded: the same bits from there on, on
 * every machine; damage of every kind, other models, power cuts.
 */
#include "test.h"
#include "state.h"

#include <time.h>

static const ksllm_type kv_types[] = {
    KSLLM_TYPE_Q8_0, KSLLM_TYPE_F16, KSLLM_TYPE_F32};

/* Small, so that there can be many: windows in six of seven layers, keys with
 * two scales and values that are filled up. */
static const fx_spec windows = {
    "windows", "gemma3", 7, 32, 32, 4, 2, 16, 24, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_MINI, FX_SOUND};
static const fx_spec wide = {
    "wide", "llama", 2, 32, 32, 4, 2, 72, 0, KSLLM_TYPE_Q8_0, true,
    FX_ROPE_PLAIN, FX_MINI, FX_SOUND};

/* ---- helpers ---- */

static ksllm_model *open_spec(const fx_spec *spec, fx_file *f)
{
    ksllm_model *m = NULL;
    ksllm_error e;
    *f = fx_model(spec);
    fx_must(ksllm_model_open_memory(f->data, f->size, NULL, &m, &e), &e);
    return m;
}

/* Token ids that every vocabulary has. */
static void prompt_of(const ksllm_model *m, int32_t *tokens, size_t n,
                      uint64_t seed)
{
    uint32_t most = (uint32_t)fx_n_vocab(m);
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)fx_below(&seed, most < 256 ? most : 256);
}

static void save(const ksllm_session *s, st_memory *to, ksllm_saved *saved)
{
    ksllm_error e;
    CHECK_OK(ksllm_session_save(s, 0, st_memory_write, to, NULL, saved, &e),
             e);
}

static size_t n_held(const ksllm_session *s)
{
    size_t n;
    ksllm_session_tokens(s, &n);
    return n;
}

/* Loads and says how many tokens came. */
static size_t load(ksllm_session *s, st_memory *from, const int32_t *tokens,
                   size_t n, ksllm_saved *saved)
{
    ksllm_error e;
    from->at = 0;
    CHECK_OK(ksllm_session_load(s, tokens, n, st_memory_read, from, NULL,
                                saved, &e), e);
    CHECK(!ksllm_session_logits(s));
    return n_held(s);
}

/* The logits after these tokens, of a session that never saw a file. */
static uint64_t fresh(const ksllm_model *m, const int32_t *tokens, size_t n,
                      ksllm_type kv)
{
    ksllm_error e;
    ksllm_session *s = session_of(m, (uint32_t)n, 16, kv);
    CHECK_OK(ksllm_session_sync(s, tokens, n, NULL, &e), e);
    uint64_t h = fx_logits_hash(m, s);
    ksllm_session_free(s);
    return h;
}

static void note_total(void *ctx, size_t n_done, size_t n_total)
{
    (void)n_done;
    *(size_t *)ctx = n_total;
}

/* Makes the context these tokens and says how many were evaluated for it; the
 * last one always is, after a load. */
static size_t cost_of(ksllm_session *s, const int32_t *tokens, size_t n)
{
    ksllm_error e;
    ksllm_control c;
    size_t total = 0;
    ksllm_control_init(&c);
    c.on_progress = note_total;
    c.progress_ctx = &total;
    CHECK_OK(ksllm_session_sync(s, tokens, n, &c, &e), e);
    return total;
}

/* The most likely tokens, n of them, and a hash of the logits of all. */
static uint64_t go_on(const ksllm_model *m, ksllm_session *s, size_t n)
{
    uint64_t h = FX_HASH;
    ksllm_sampling greedy;
    ksllm_sampling_init(&greedy);
    for (size_t i = 0; i < n; i++) {
        ksllm_token_prob p;
        ksllm_error e;
        if (!CHECK_OK(ksllm_sample(s, &greedy, i, &p, NULL, 0, &e), e) ||
            !CHECK_OK(ksllm_session_append(s, &p.token, 1, NULL, &e), e))
            return 0;
        uint64_t logits = fx_logits_hash(m, s);
        h = fx_hash(fx_hash(h, &p.token, sizeof p.token), &logits, 8);
    }
    return h;
}

/* ---- the same bits on every machine ---- */

/* A file of the smallest model with the int8 cache: 70 tokens saved as they
 * came, 6 and 64. If this test fails on a file that once was loaded, the bits
 * of keys or values have changed: raise ST_CONTRACT, and put the new file here.
 * `test_state print` writes it. */
static const uint8_t golden_file[] = {
#include "state_golden.h"
};

enum { GOLDEN = 70 };

static void golden_prompt(const ksllm_model *m, int32_t *tokens)
{
    prompt_of(m, tokens, GOLDEN, 5);
}

static void write_golden(ksllm_session *s, const int32_t *tokens,
                         st_memory *to)
{
    ksllm_error e;
    ksllm_saved saved = {0};
    CHECK_OK(ksllm_session_sync(s, tokens, 6, NULL, &e), e);
    save(s, to, &saved);
    CHECK_OK(ksllm_session_sync(s, tokens, GOLDEN, NULL, &e), e);
    save(s, to, &saved);
    CHECK_EQ(saved.n_tokens, GOLDEN);
    CHECK_EQ(saved.n_bytes, to->b.size);
}

TEST(shortest_golden_file_of_state)
{
    fx_file f;
    st_memory was = {0}, is = {0};
    int32_t tokens[GOLDEN];
    ksllm_error e;
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 200, 16, KSLLM_TYPE_Q8_0);
    ksllm_session *t = session_of(m, 150, 3, KSLLM_TYPE_Q8_0);
    golden_prompt(m, tokens);
    write_golden(s, tokens, &is);
    CHECK_EQ(is.b.size, sizeof golden_file);
    CHECK(is.b.size == sizeof golden_file &&
          memcmp(is.b.data, golden_file, is.b.size) == 0);
    fx_put(&was.b, golden_file, sizeof golden_file);
    CHECK_EQ(load(t, &was, NULL, 0, NULL), GOLDEN);
    CHECK(memcmp(ksllm_session_tokens(t, NULL), tokens, sizeof tokens) == 0);
    CHECK_OK(ksllm_session_sync(t, tokens, GOLDEN, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(m, t), fx_logits_hash(m, s));
    CHECK_HEX(go_on(m, t, 64), go_on(m, s, 64));
    ksllm_session_free(s);
    ksllm_session_free(t);
    fx_close(m, &f);
    free(was.b.data);
    free(is.b.data);
}

/* Written with one shape of session, read with another: the file's bytes, the
 * next 64 tokens and all their logits are what they were on the machine that
 * made this table. */
typedef struct golden_row {
    const char *model;
    uint64_t file[3], next[3];  /* by cache type */
} golden_row;

static void golden_check(const golden_row *g, const ksllm_model *m, int k)
{
    st_memory file = {0};
    int32_t tokens[80];
    ksllm_error e;
    ksllm_session *s = session_of(m, 150, 16, kv_types[k]);
    ksllm_session *t = session_of(m, 200, 5, kv_types[k]);
    prompt_of(m, tokens, 80, 1);
    CHECK_OK(ksllm_session_sync(s, tokens, 50, NULL, &e), e);
    ksllm_saved saved = {0};
    save(s, &file, &saved);
    CHECK_OK(ksllm_session_sync(s, tokens, 80, NULL, &e), e);
    save(s, &file, &saved);
    CHECK_EQ(load(t, &file, tokens, 80, NULL), 80);
    CHECK_OK(ksllm_session_sync(t, tokens, 80, NULL, &e), e);
    uint64_t h = fx_hash(FX_HASH, file.b.data, file.b.size);
    uint64_t next = go_on(m, t, 64);
    CHECK_HEX(next, go_on(m, s, 64));
    int same = CHECK_HEX(h, g->file[k]) & CHECK_HEX(next, g->next[k]);
    if (!same)
        printf("%s %d 0x%016" PRIx64 " 0x%016" PRIx64 "\n", g->model, k, h,
               next);
    ksllm_session_free(s);
    ksllm_session_free(t);
    free(file.b.data);
}

static const golden_row golden_rows[] = {
    {"llama",
     {0x6b6b2930337910ec,
      0x0ddd83404bbc58c8,
      0x2767fa213860c255},
     {0x9ee4c8698af610f3,
      0x1236ac9107dfe92a,
      0x67b04b55b9d03944}},
    {"window",
     {0xee300853669f667b,
      0x2c847aa34c9bfad6,
      0xe4e5692f7978c157},
     {0x10ee3803816c8ebe,
      0x5eba11f2d72f5c40,
      0x73a1381a11afeb8b}},
};

TEST(shortest_golden_state)
{
    for (size_t i = 0; i < sizeof golden_rows / sizeof *golden_rows; i++) {
        fx_file f;
        ksllm_model *m = fx_open(golden_rows[i].model, &f);
        for (int k = 0; k < 3; k++)
            golden_check(&golden_rows[i], m, k);
        fx_close(m, &f);
    }
}

/* ---- what fits is used ---- */

TEST(any_prefix_of_a_prompt)
{
    const fx_spec *specs[] = {&fx_mini, &wide, &windows};
    for (size_t i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) {
            fx_file f;
            st_memory file = {0};
            int32_t a[200], b[200];
            ksllm_error e;
            ksllm_saved saved;
            ksllm_model *m = open_spec(specs[i], &f);
            ksllm_session *s = session_of(m, 200, 64, kv_types[k]);
            prompt_of(m, a, 200, 1);
            /* Before a window has turned: then it serves all beginnings. */
            saved = (ksllm_saved){0};
            CHECK_OK(ksllm_session_sync(s, a, 64, NULL, &e), e);
            save(s, &file, &saved);
            CHECK_OK(ksllm_session_sync(s, a, 128, NULL, &e), e);
            save(s, &file, &saved);
            CHECK_OK(ksllm_session_sync(s, a, 170, NULL, &e), e);
            save(s, &file, &saved);
            /* These leave it after 0, 1, 63, 64 ... tokens. */
            static const size_t same[] = {0, 1, 63, 64, 65, 128, 170};
            for (size_t j = 0; j < 7; j++) {
                memcpy(b, a, sizeof b);
                b[same[j]] = (b[same[j]] + 1) % 8;
                CHECK_EQ(load(s, &file, b, 190, &saved), same[j]);
                size_t whole = same[j] == 170 ? 170 : same[j] / 64 * 64;
                CHECK_EQ(saved.n_tokens, whole);
                CHECK_EQ(cost_of(s, b, 190), 190 - same[j]);
                CHECK_HEX(fx_logits_hash(m, s),
                          fresh(m, b, 190, kv_types[k]));
            }
            /* A prompt that is shorter than the file. */
            CHECK_EQ(load(s, &file, a, 90, NULL), 90);
            CHECK_EQ(cost_of(s, a, 90), 1);
            CHECK_HEX(fx_logits_hash(m, s), fresh(m, a, 90, kv_types[k]));
            ksllm_session_free(s);
            fx_close(m, &f);
            free(file.b.data);
        }
}

/* Appended in random steps, by sessions that come and go. */
TEST(a_file_grows)
{
    uint64_t rng = 3;
    for (int round = 0; round < 9 / TEST_ONE_OF + 3; round++) {
        fx_file f;
        st_memory file = {0}, once = {0};
        int32_t a[300];
        ksllm_error e;
        ksllm_saved saved = {0};
        ksllm_type kv = kv_types[round % 3];
        ksllm_model *m = open_spec(round & 1 ? &windows : &wide, &f);
        ksllm_session *s = session_of(m, 300, 16, kv);
        prompt_of(m, a, 300, 1 + (uint64_t)round);
        for (size_t n = 0; n < 300; ) {
            n += 1 + fx_below(&rng, 90);
            n = n < 300 ? n : 300;
            CHECK_OK(ksllm_session_sync(s, a, n, NULL, &e), e);
            save(s, &file, &saved);
            CHECK_EQ(saved.n_tokens, n);
            CHECK_EQ(saved.n_bytes, file.b.size);
            size_t before = file.b.size;
            save(s, &file, &saved);     /* nothing new */
            CHECK_EQ(file.b.size, before);
            if (fx_below(&rng, 3) == 0) {
                ksllm_session_free(s);
                s = session_of(m, 300, 1 + fx_below(&rng, 40), kv);
                CHECK_EQ(load(s, &file, NULL, 0, &saved), n);
                CHECK_EQ(saved.n_bytes, file.b.size);
            }
        }
        CHECK_EQ(load(s, &file, a, 300, NULL), 300);
        CHECK_OK(ksllm_session_sync(s, a, 300, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), fresh(m, a, 300, kv));
        /* The bytes of a session do not depend on how it was saved: less
         * heads and sums, it is as long as the file that is written at once. */
        ksllm_session *t = session_of(m, 300, 300, kv);
        CHECK_EQ(load(t, &file, NULL, 0, NULL), 300);
        save(t, &once, NULL);
        CHECK(once.b.size <= file.b.size);
        ksllm_session_free(s);
        ksllm_session_free(t);
        fx_close(m, &f);
        free(file.b.data);
        free(once.b.data);
    }
}

TEST(only_the_first_tokens)
{
    fx_file f;
    st_memory file = {0}, other = {0};
    int32_t a[100];
    ksllm_error e;
    ksllm_model *m = open_spec(&wide, &f);
    ksllm_session *s = session_of(m, 100, 16, KSLLM_TYPE_Q8_0);
    ksllm_session *t = session_of(m, 100, 16, KSLLM_TYPE_Q8_0);
    ksllm_saved saved = {0};
    prompt_of(m, a, 100, 1);
    CHECK_OK(ksllm_session_sync(s, a, 100, NULL, &e), e);
    CHECK_OK(ksllm_session_save(s, 70, st_memory_write, &file, NULL, &saved,
                                &e), e);
    CHECK_EQ(saved.n_tokens, 70);
    CHECK_EQ(load(t, &file, a, 100, NULL), 70);
    /* Less than the file has: nothing to do. */
    size_t before = file.b.size;
    CHECK_OK(ksllm_session_save(s, 20, st_memory_write, &file, NULL, &saved,
                                &e), e);
    CHECK_EQ(file.b.size, before);
    CHECK_EQ(saved.n_tokens, 70);
    /* It is the file of a session with 70 tokens. */
    CHECK_OK(ksllm_session_rewind(s, 70, &e), e);
    save(s, &other, NULL);
    CHECK_EQ(other.b.size, before);
    CHECK(memcmp(other.b.data, file.b.data, before) == 0);
    /* An empty session, too, has a state. */
    CHECK_OK(ksllm_session_rewind(s, 0, &e), e);
    other.b.size = 0;
    save(s, &other, NULL);
    CHECK_EQ(other.b.size, ST_HEADER_BYTES);
    CHECK_EQ(load(t, &other, NULL, 0, &saved), 0);
    CHECK_EQ(saved.n_bytes, ST_HEADER_BYTES);
    ksllm_session_free(s);
    ksllm_session_free(t);
    fx_close(m, &f);
    free(file.b.data);
    free(other.b.data);
}

/* ---- sliding windows ---- */

/* A session whose window has turned many times. Its file serves its whole
 * length and what a rewind would; never a wrong bit, whatever is asked. */
TEST(saved_after_the_window_has_turned)
{
    static const uint32_t batches[] = {1, 16, 64, 200};
    for (int i = 0; i < 4; i++) {
        fx_file f;
        st_memory file = {0}, again = {0};
        int32_t a[420];
        ksllm_error e;
        ksllm_type kv = kv_types[i % 3];
        ksllm_model *m = open_spec(&windows, &f);
        ksllm_session *s = session_of(m, 420, batches[i % 4], kv);
        ksllm_session *t = session_of(m, 420, batches[(i / 2 + 1) % 4], kv);
        prompt_of(m, a, 420, 1);
        CHECK_OK(ksllm_session_sync(s, a, 400, NULL, &e), e);
        save(s, &file, NULL);
        CHECK_EQ(load(t, &file, a, 420, NULL), 400);
        /* Saved again by one that never had the beginning. */
        save(t, &again, NULL);
        CHECK_EQ(cost_of(t, a, 420), 20);
        CHECK_HEX(fx_logits_hash(m, t), fresh(m, a, 420, kv));
        CHECK_EQ(load(t, &again, a, 420, NULL), 400);
        static const size_t beginnings[] = {400, 399, 360, 300, 70};
        for (size_t j = 0; j < 5; j++) {
            size_t n = beginnings[j];
            CHECK_EQ(load(t, &file, NULL, 0, NULL), 400);
            CHECK_OK(ksllm_session_rewind(t, n, &e), e);
            CHECK_OK(ksllm_session_append(t, a + n, 1, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, t), fresh(m, a, n + 1, kv));
            CHECK_EQ(load(t, &file, a, n, NULL), n);
            size_t cost = cost_of(t, a, n);
            CHECK(cost == 1 || (cost == n && n < 400));
            CHECK_HEX(fx_logits_hash(m, t), fresh(m, a, n, kv));
        }
        ksllm_session_free(s);
        ksllm_session_free(t);
        fx_close(m, &f);
        free(file.b.data);
        free(again.b.data);
    }
}

/* Saved early, then late: between lies a stretch without local layers. */
TEST(a_gap_in_the_windows)
{
    for (int k = 0; k < 3; k++) {
        fx_file f;
        st_memory file = {0};
        int32_t a[500];
        ksllm_error e;
        ksllm_saved saved = {0};
        ksllm_model *m = open_spec(&windows, &f);
        ksllm_session *s = session_of(m, 500, 16, kv_types[k]);
        ksllm_session *t = session_of(m, 500, 64, kv_types[k]);
        prompt_of(m, a, 500, 1);
        CHECK_OK(ksllm_session_sync(s, a, 100, NULL, &e), e);
        save(s, &file, &saved);
        CHECK_OK(ksllm_session_sync(s, a, 450, NULL, &e), e);
        save(s, &file, &saved);
        CHECK_EQ(load(t, &file, a, 500, NULL), 450);
        /* What ends in the gap gets what was complete before it. */
        for (size_t n = 50; n < 450; n += 50) {
            CHECK_EQ(load(t, &file, a, n, NULL), n);
            CHECK_EQ(cost_of(t, a, n), n <= 100 || n > 340 ? 1 : n - 100);
            CHECK_HEX(fx_logits_hash(m, t), fresh(m, a, n, kv_types[k]));
            CHECK_OK(ksllm_session_rewind(t, n / 2, &e), e);
            CHECK_OK(ksllm_session_append(t, a + n / 2, 3, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, t),
                      fresh(m, a, n / 2 + 3, kv_types[k]));
        }
        ksllm_session_free(s);
        ksllm_session_free(t);
        fx_close(m, &f);
        free(file.b.data);
    }
}

TEST(a_fork_of_what_was_loaded)
{
    fx_file f;
    st_memory file = {0};
    int32_t a[400];
    ksllm_error e;
    ksllm_model *m = open_spec(&windows, &f);
    ksllm_session *s = session_of(m, 400, 16, KSLLM_TYPE_Q8_0);
    ksllm_session *t = session_of(m, 400, 16, KSLLM_TYPE_Q8_0);
    prompt_of(m, a, 400, 1);
    CHECK_OK(ksllm_session_sync(s, a, 390, NULL, &e), e);
    save(s, &file, NULL);
    CHECK_EQ(load(s, &file, NULL, 0, NULL), 390);
    CHECK_OK(ksllm_session_fork(s, t, &e), e);
    for (size_t n = 389; n > 0; n = n * 7 / 8) {
        CHECK_OK(ksllm_session_fork(s, t, &e), e);
        CHECK_OK(ksllm_session_rewind(t, n, &e), e);
        CHECK_OK(ksllm_session_append(t, a + n, 1, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, t), fresh(m, a, n + 1, KSLLM_TYPE_Q8_0));
    }
    ksllm_session_free(s);
    ksllm_session_free(t);
    fx_close(m, &f);
    free(file.b.data);
}

/* ---- damage ---- */

/* Three chunks of the smallest model, one of them not whole. */
static void three_chunks(ksllm_session *s, int32_t *tokens, st_memory *file,
                         size_t ends[3])
{
    ksllm_error e;
    ksllm_saved saved = {0};
    static const size_t n[] = {64, 100, 128};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(ksllm_session_sync(s, tokens, n[i], NULL, &e), e);
        save(s, file, &saved);
        ends[i] = file->b.size;
    }
}

static size_t tokens_within(size_t size, const size_t ends[3])
{
    return size >= ends[2] ? 128 : size >= ends[1] ? 100
           : size >= ends[0] ? 64 : 0;
}

TEST(torn_at_every_byte)
{
    fx_file f;
    st_memory file = {0};
    int32_t a[140];
    size_t ends[3];
    ksllm_error e;
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 140, 16, KSLLM_TYPE_Q8_0);
    prompt_of(m, a, 140, 1);
    three_chunks(s, a, &file, ends);
    uint64_t want = fresh(m, a, 140, KSLLM_TYPE_Q8_0);
    size_t size = file.b.size;
    for (size_t n = 0; n <= size; n++) {
        ksllm_saved saved;
        file.at = 0;
        file.b.size = n;
        ksllm_status st = ksllm_session_load(s, a, 140, st_memory_read, &file,
                                             NULL, &saved, &e);
        if (n < ST_HEADER_BYTES) {
            CHECK_EQ(st, KSLLM_ERR_IO);
            CHECK_EQ(saved.n_bytes, 0);
            CHECK_EQ(n_held(s), 128);   /* as it was */
            continue;
        }
        CHECK_EQ(st, KSLLM_OK);
        CHECK_EQ(n_held(s), tokens_within(n, ends));
        CHECK_EQ(saved.n_tokens, tokens_within(n, ends));
        CHECK(saved.n_bytes <= n);
        if (n % 61 == 0) {
            CHECK_OK(ksllm_session_sync(s, a, 140, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, s), want);
        }
    }
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

TEST(every_bit_of_the_header)
{
    fx_file f;
    st_memory file = {0};
    int32_t a[140];
    size_t ends[3];
    ksllm_error e;
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 140, 16, KSLLM_TYPE_Q8_0);
    prompt_of(m, a, 140, 1);
    three_chunks(s, a, &file, ends);
    for (size_t bit = 0; bit < 8 * ST_HEADER_BYTES; bit++)
        for (int sealed = 0; sealed < 2; sealed++) {
            uint8_t before[ST_HEADER_BYTES];
            memcpy(before, file.b.data, sizeof before);
            file.b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (sealed)
                st_seal_header(file.b.data);
            file.at = 0;
            e.text[0] = 0;
            ksllm_status st = ksllm_session_load(
                s, a, 140, st_memory_read, &file, NULL, NULL, &e);
            size_t at = bit / 8;
            if (at < 8)
                CHECK_EQ(st, KSLLM_ERR_FORMAT);
            else if (at < 16)
                CHECK_EQ(st, KSLLM_ERR_UNSUPPORTED);
            else if (!sealed)
                CHECK_EQ(st, KSLLM_ERR_FORMAT);
            else if (at < 80)
                CHECK_EQ(st, KSLLM_ERR_UNSUPPORTED);
            else if (at == 87 && bit % 8 > 5)   /* 2^62 tokens slid out */
                CHECK_EQ(st, KSLLM_ERR_FORMAT);
            else    /* the draws' number, what is not used, the sum */
                CHECK_EQ(st, KSLLM_OK);
            CHECK(st == KSLLM_OK || e.text[0]);
            CHECK_EQ(n_held(s), 128);
            memcpy(file.b.data, before, sizeof before);
        }
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

TEST(every_bit_of_a_chunk)
{
    fx_file f;
    st_memory file = {0};
    int32_t a[140];
    size_t ends[3];
    ksllm_error e;
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 140, 16, KSLLM_TYPE_Q8_0);
    prompt_of(m, a, 140, 1);
    three_chunks(s, a, &file, ends);
    uint64_t want = fresh(m, a, 140, KSLLM_TYPE_Q8_0);
    for (size_t at = ST_HEADER_BYTES; at < file.b.size; at++) {
        uint8_t *p = file.b.data + at, was = *p;
        *p ^= (uint8_t)(1 << at % 8);
        size_t n = load(s, &file, NULL, 0, NULL);
        CHECK_EQ(n, tokens_within(at, ends));
        /* An id that changed is only one that does not fit. */
        size_t wanted = load(s, &file, a, 140, NULL);
        CHECK(wanted <= n);
        if (at % 61 == 0) {
            CHECK_OK(ksllm_session_sync(s, a, 140, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, s), want);
        }
        *p = was;
    }
    CHECK_EQ(load(s, &file, NULL, 0, NULL), 128);
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

/* The same with windows that have just room for one block. */
TEST(damage_beside_a_window)
{
    fx_file f;
    int32_t a[420];
    ksllm_error e;
    ksllm_model *m = open_spec(&windows, &f);
    uint64_t rng = 9;
    prompt_of(m, a, 420, 1);
    uint64_t want = fresh(m, a, 420, KSLLM_TYPE_Q8_0);
    ksllm_session *s = session_of(m, 420, 16, KSLLM_TYPE_Q8_0);
    st_memory file = {0};
    ksllm_saved saved = {0};
    size_t ends[420] = {0}, n_ends = 0, n[420];
    for (size_t i = 30; i <= 400; i += 37) {
        CHECK_OK(ksllm_session_sync(s, a, i, NULL, &e), e);
        save(s, &file, &saved);
        ends[n_ends] = file.b.size;
        n[n_ends++] = i;
    }
    for (int i = 0; i < 200; i++) {
        size_t at = ST_HEADER_BYTES + fx_below(&rng, (uint32_t)(
            file.b.size - ST_HEADER_BYTES)), least = 0;
        for (size_t k = 0; k < n_ends && ends[k] <= at; k++)
            least = n[k];
        file.b.data[at] ^= 0x10;
        size_t got = load(s, &file, a, 420, NULL);
        /* What was appended at once may be several chunks. */
        CHECK(got >= least && got < 400);
        if (i % 10 == 0) {
            CHECK_OK(ksllm_session_sync(s, a, 420, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, s), want);
        }
        file.b.data[at] ^= 0x10;
    }
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

/* Chunks with right sums that say what cannot be. */
TEST(forged_chunks)
{
    fx_file f;
    int32_t a[10];
    ksllm_error e;
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 70, 16, KSLLM_TYPE_Q8_0);
    static const struct { int at, bytes; uint64_t value; } lies[] = {
        {0, 4, 0}, {4, 4, 0}, {4, 4, 9}, {4, 4, 11}, {4, 4, 64}, {4, 4, 65},
        {4, 4, 0xffffffff}, {8, 8, 1}, {8, 8, 64}, {8, 8, UINT64_MAX},
        {16, 4, 0}, {16, 4, 3}, {16, 4, 0x80000002}, {20, 4, 1}, {28, 4, 1}, {32, 4, 99},
        {36, 4, 0xffffffff}, {40, 4, 0x80000000}};
    prompt_of(m, a, 10, 1);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        st_memory file = {0};
        CHECK_OK(ksllm_session_sync(s, a, 10, NULL, &e), e);
        save(s, &file, NULL);
        uint8_t *chunk = file.b.data + ST_HEADER_BYTES;
        uint64_t chain = st_chain_of(file.b.data);
        size_t size = file.b.size - ST_HEADER_BYTES;
        /* Sealed without a lie it is sound. */
        st_seal_chunk(chunk, size, &chain);
        CHECK_EQ(load(s, &file, NULL, 0, NULL), 10);
        chain = st_chain_of(file.b.data);
        fx_set(chunk + lies[i].at, lies[i].value, lies[i].bytes);
        st_seal_chunk(chunk, size, &chain);
        CHECK_EQ(load(s, &file, NULL, 0, NULL), 0);
        free(file.b.data);
    }
    ksllm_session_free(s);
    fx_close(m, &f);
}

/* A chunk of another conversation behind the beginning of this one. */
TEST(what_was_appended_to_another_beginning)
{
    fx_file f;
    st_memory file = {0}, other = {0};
    int32_t a[128];
    ksllm_error e;
    ksllm_model *m = open_spec(&wide, &f);
    ksllm_session *s = session_of(m, 128, 16, KSLLM_TYPE_Q8_0);
    ksllm_saved saved = {0};
    prompt_of(m, a, 128, 1);
    CHECK_OK(ksllm_session_sync(s, a, 64, NULL, &e), e);
    save(s, &file, &saved);
    size_t first = file.b.size;
    a[5] = (a[5] + 1) % 8;
    CHECK_OK(ksllm_session_sync(s, a, 128, NULL, &e), e);
    /* The library sees it, if it is asked. */
    ksllm_saved before = saved;
    CHECK_EQ(ksllm_session_save(s, 0, st_memory_write, &file, NULL, &saved,
                                &e), KSLLM_ERR_STATE);
    CHECK_EQ(file.b.size, first);
    CHECK(memcmp(&saved, &before, sizeof saved) == 0);
    /* A program that appends all the same gains nothing. */
    save(s, &other, NULL);
    fx_put(&file.b, other.b.data + first, other.b.size - first);
    CHECK_EQ(load(s, &file, NULL, 0, &saved), 64);
    CHECK_EQ(saved.n_bytes, first);
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
    free(other.b.data);
}

/* The power goes while a conversation is appended to; the next start cuts off
 * what is torn and goes on. What was complete is there. */
TEST(power_cuts)
{
    uint64_t rng = 1;
    for (int round = 0; round < 40 / TEST_ONE_OF + 1; round++) {
        fx_file f;
        st_memory file = {0};
        int32_t a[250];
        ksllm_error e;
        ksllm_saved saved = {0};
        size_t sound = 0;       /* tokens of saves that returned */
        ksllm_model *m = open_spec(round & 1 ? &windows : &wide, &f);
        prompt_of(m, a, 250, 1);
        for (size_t n = 0; n < 250; ) {
            ksllm_session *s = session_of(m, 250, 1 + fx_below(&rng, 70),
                                          KSLLM_TYPE_Q8_0);
            if (file.b.size >= ST_HEADER_BYTES) {
                n = load(s, &file, NULL, 0, &saved);
                CHECK(n >= sound);
                CHECK(saved.n_bytes <= file.b.size);
            } else {
                saved = (ksllm_saved){0};
                n = 0;
            }
            file.b.size = saved.n_bytes;
            for (int turn = 0; turn < 3 && n < 250; turn++) {
                n += 1 + fx_below(&rng, 60);
                n = n < 250 ? n : 250;
                CHECK_OK(ksllm_session_sync(s, a, n, NULL, &e), e);
                save(s, &file, &saved);
                sound = n;
            }
            /* The last save is torn. */
            size_t end = file.b.size;
            if (n < 250 && fx_below(&rng, 2)) {
                size_t more = n + 1 + fx_below(&rng, (uint32_t)(250 - n));
                CHECK_OK(ksllm_session_sync(s, a, more, NULL, &e), e);
                save(s, &file, &saved);
                file.b.size = end + fx_below(
                    &rng, (uint32_t)(file.b.size - end));
            }
            ksllm_session_free(s);
        }
        ksllm_session *s = session_of(m, 250, 16, KSLLM_TYPE_Q8_0);
        CHECK_EQ(load(s, &file, a, 250, NULL), 250);
        CHECK_OK(ksllm_session_sync(s, a, 250, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), fresh(m, a, 250, KSLLM_TYPE_Q8_0));
        ksllm_session_free(s);
        fx_close(m, &f);
        free(file.b.data);
    }
}

/* A disk that is full at any byte: what was written is sound, and after some
 * room was made the file goes on. */
TEST(failed_writes)
{
    fx_file f;
    int32_t a[140];
    ksllm_error e;
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 140, 16, KSLLM_TYPE_Q8_0);
    ksllm_session *t = session_of(m, 140, 16, KSLLM_TYPE_Q8_0);
    st_memory whole = {0};
    prompt_of(m, a, 140, 1);
    CHECK_OK(ksllm_session_sync(s, a, 130, NULL, &e), e);
    save(s, &whole, NULL);
    for (size_t n = 1; n < whole.b.size; n += 1 + n % 7) {
        st_memory file = {.fails = n};
        ksllm_saved saved = {0};
        CHECK_EQ(ksllm_session_save(s, 0, st_memory_write, &file, NULL, &saved,
                                    &e), KSLLM_ERR_IO);
        CHECK(saved.n_bytes <= n);
        file.fails = 0;
        if (n >= ST_HEADER_BYTES) {
            CHECK_EQ(load(t, &file, NULL, 0, NULL), saved.n_tokens);
            CHECK(n_held(t) == 0 || n_held(t) == 64 || n_held(t) == 128);
        }
        file.b.size = saved.n_bytes;
        save(s, &file, &saved);
        CHECK_EQ(file.b.size, whole.b.size);
        CHECK(memcmp(file.b.data, whole.b.data, whole.b.size) == 0);
        free(file.b.data);
    }
    ksllm_session_free(s);
    ksllm_session_free(t);
    fx_close(m, &f);
    free(whole.b.data);
}

/* ---- other models ---- */

/* What the message of a refusal says of the field. */
static void refused(const fx_spec *spec, ksllm_type kv, st_memory *file,
                    const char *field)
{
    fx_file f;
    ksllm_error e = {.text = ""};
    const int32_t one = 1;
    ksllm_model *m = open_spec(spec, &f);
    ksllm_session *s = session_of(m, 100, 16, kv);
    ksllm_saved saved = {1, 2, 3};
    CHECK_OK(ksllm_session_append(s, &one, 1, NULL, &e), e);
    uint64_t logits = fx_logits_hash(m, s);
    file->at = 0;
    CHECK_EQ(ksllm_session_load(s, NULL, 0, st_memory_read, file, NULL,
                                &saved, &e), KSLLM_ERR_UNSUPPORTED);
    if (!CHECK(strstr(e.text, field)))
        printf("  %s\n", e.text);
    CHECK_EQ(saved.n_bytes, 0);
    CHECK_EQ(n_held(s), 1);
    CHECK_HEX(fx_logits_hash(m, s), logits);
    ksllm_session_free(s);
    fx_close(m, &f);
}

TEST(another_model)
{
    fx_file f;
    st_memory file = {0};
    const fx_spec base = {
        "base", "llama", 2, 64, 96, 4, 2, 32, 0, KSLLM_TYPE_F32, false,
        FX_ROPE_PLAIN, FX_MINI, FX_SOUND};
    fx_spec other = base;
    int32_t a[80];
    ksllm_error e;
    ksllm_model *m = open_spec(&base, &f);
    ksllm_session *s = session_of(m, 100, 16, KSLLM_TYPE_Q8_0);
    prompt_of(m, a, 80, 1);
    CHECK_OK(ksllm_session_sync(s, a, 80, NULL, &e), e);
    save(s, &file, NULL);
    refused(&base, KSLLM_TYPE_F16, &file, "cache type");
    other.n_layers = 3;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "number of layers");
    other = base, other.n_kv_heads = 4;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "number of KV heads");
    other = base, other.head_dim = 64;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "length of a key");
    other = base, other.n_heads = 6;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "hyperparameters");
    other = base, other.rope = FX_ROPE_LINEAR;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "hyperparameters");
    other = base, other.vocab = FX_SPM;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "vocabulary");
    other = base, other.type = KSLLM_TYPE_F16;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "tensor table");
    other = base, other.tied = true;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "tensor table");
    /* Other weights in one matrix. */
    uint8_t weights[64 * 64 * 4];
    uint64_t rng = 5;
    fx_fill(weights, fx_type_of(KSLLM_TYPE_F32), 64 * 64, &rng);
    other = base;
    other.put = "blk.1.attn_k.weight";
    other.put_type = KSLLM_TYPE_F32;
    other.put_data = weights;
    refused(&other, KSLLM_TYPE_Q8_0, &file, "weights");
    /* Names and templates may change; so may the number of parts. */
    ksllm_session_free(s);
    fx_close(m, &f);
    other = base, other.name = "renamed", other.alignment = 64;
    m = open_spec(&other, &f);
    s = session_of(m, 100, 16, KSLLM_TYPE_Q8_0);
    CHECK_EQ(load(s, &file, NULL, 0, NULL), 80);
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

/* ---- calls ---- */

typedef struct inside {
    st_memory file;
    ksllm_session *s, *other;
    const ksllm_model *m;
    size_t calls;
    bool write_too;
} inside;

static int read_calls_in(void *ctx, void *data, size_t n)
{
    inside *x = ctx;
    st_memory none = {0};
    const int32_t id = 1;
    ksllm_error e;
    x->calls++;
    CHECK_EQ(ksllm_session_load(x->s, NULL, 0, st_memory_read, &none, NULL,
                                NULL, &e), KSLLM_ERR_STATE);
    CHECK_EQ(ksllm_session_save(x->s, 0, st_memory_write, &none, NULL, NULL,
                                &e), KSLLM_ERR_STATE);
    CHECK_EQ(ksllm_session_append(x->s, &id, 1, NULL, &e), KSLLM_ERR_STATE);
    CHECK_EQ(ksllm_session_rewind(x->s, 0, &e), KSLLM_ERR_STATE);
    CHECK_EQ(none.calls, 0);
    return st_memory_read(&x->file, data, n);
}

static int write_calls_in(void *ctx, const void *data, size_t n)
{
    inside *x = ctx;
    st_memory twin = {0};
    const int32_t id = 1;
    ksllm_error e;
    x->calls++;
    CHECK_EQ(ksllm_session_load(x->s, NULL, 0, st_memory_read, &twin, NULL,
                                NULL, &e), KSLLM_ERR_STATE);
    CHECK_EQ(ksllm_session_append(x->s, &id, 1, NULL, &e), KSLLM_ERR_STATE);
    /* Several may read at once. */
    CHECK_OK(ksllm_session_save(x->s, 0, st_memory_write, &twin, NULL, NULL,
                                &e), e);
    CHECK_OK(ksllm_session_fork(x->s, x->other, &e), e);
    free(twin.b.data);
    return st_memory_write(&x->file, data, n);
}

static int piece_saves(void *ctx, const ksllm_piece *piece)
{
    inside *x = ctx;
    ksllm_error e;
    (void)piece;
    x->calls++;
    CHECK_EQ(ksllm_session_save(x->s, 0, st_memory_write, &x->file, NULL,
                                NULL, &e), KSLLM_ERR_STATE);
    return 0;
}

TEST(one_call_at_a_time)
{
    fx_file f;
    int32_t a[90];
    ksllm_error e;
    ksllm_model *m = open_spec(&wide, &f);
    inside x = {.m = m, .s = session_of(m, 100, 16, KSLLM_TYPE_Q8_0),
                .other = session_of(m, 100, 16, KSLLM_TYPE_Q8_0)};
    prompt_of(m, a, 90, 1);
    CHECK_OK(ksllm_session_sync(x.s, a, 90, NULL, &e), e);
    CHECK_OK(ksllm_session_save(x.s, 0, write_calls_in, &x, NULL, NULL, &e),
             e);
    CHECK_OK(ksllm_session_load(x.s, NULL, 0, read_calls_in, &x, NULL, NULL,
                                &e), e);
    CHECK_EQ(n_held(x.s), 90);
    CHECK(x.calls >= 10);
    ksllm_generation g;
    ksllm_generation_init(&g);
    g.tokens = a;
    g.n_tokens = 90;
    g.max_tokens = 3;
    g.ignore_stop = true;
    g.on_piece = piece_saves;
    g.piece_ctx = &x;
    x.calls = 0;
    CHECK_OK(ksllm_generate(x.s, &g, NULL, &e), e);
    CHECK(x.calls >= 3);
    ksllm_session_free(x.s);
    ksllm_session_free(x.other);
    fx_close(m, &f);
    free(x.file.b.data);
}

TEST(arguments_of_saved_state)
{
    fx_file f;
    st_memory file = {0};
    const int32_t id = 1;
    ksllm_error e;
    ksllm_control bad = {0};
    ksllm_model *m = open_spec(&wide, &f);
    ksllm_session *s = session_of(m, 100, 16, KSLLM_TYPE_Q8_0);
    CHECK_OK(ksllm_session_append(s, &id, 1, NULL, &e), e);
    ksllm_status got[] = {
        ksllm_session_save(NULL, 0, st_memory_write, &file, NULL, NULL, &e),
        ksllm_session_save(s, 0, NULL, &file, NULL, NULL, &e),
        ksllm_session_save(s, 2, st_memory_write, &file, NULL, NULL, &e),
        ksllm_session_save(s, 0, st_memory_write, &file, &bad, NULL, &e),
        ksllm_session_load(NULL, NULL, 0, st_memory_read, &file, NULL, NULL,
                           &e),
        ksllm_session_load(s, NULL, 0, NULL, &file, NULL, NULL, &e),
        ksllm_session_load(s, NULL, 1, st_memory_read, &file, NULL, NULL, &e),
        ksllm_session_load(s, NULL, 0, st_memory_read, &file, &bad, NULL, &e),
    };
    for (size_t i = 0; i < sizeof got / sizeof *got; i++)
        CHECK_EQ(got[i], KSLLM_ERR_ARGUMENT);
    CHECK_EQ(file.calls, 0);
    CHECK_EQ(n_held(s), 1);
    /* Nonsense in *saved is a file that does not fit. */
    ksllm_saved saved = {UINT64_MAX, 5, 6};
    CHECK_EQ(ksllm_session_save(s, 0, st_memory_write, &file, NULL, &saved,
                                &e), KSLLM_ERR_STATE);
    saved = (ksllm_saved){1, UINT64_MAX, 6};
    CHECK_EQ(ksllm_session_save(s, 0, st_memory_write, &file, NULL, &saved,
                                &e), KSLLM_ERR_STATE);
    /* A list of no tokens fits nothing; the same call without err. */
    save(s, &file, NULL);
    CHECK_EQ(load(s, &file, &id, 0, NULL), 0);
    file.at = 0;
    CHECK_EQ(ksllm_session_load(s, NULL, 0, st_memory_read, &file, NULL, NULL,
                                NULL), KSLLM_OK);
    CHECK_EQ(n_held(s), 1);
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

TEST(nothing_is_allocated)
{
    fx_file f;
    st_memory file = {0};
    int32_t a[200];
    ksllm_error e;
    fx_alloc memory;
    ksllm_model *m = open_spec(&windows, &f);
    ksllm_session_options o = fx_small_options();
    fx_alloc_init(&memory);
    o.n_ctx = 200;
    o.allocator = &memory.allocator;
    ksllm_session *s = fx_create(m, &o);
    long calls = memory.calls;
    prompt_of(m, a, 200, 1);
    CHECK_OK(ksllm_session_sync(s, a, 190, NULL, &e), e);
    save(s, &file, NULL);
    CHECK_EQ(load(s, &file, a, 200, NULL), 190);
    CHECK_EQ(memory.calls, calls);
    ksllm_session_free(s);
    fx_close(m, &f);
    free(file.b.data);
}

/* A context that is too small for the file. */
TEST(more_than_fits)
{
    static const uint32_t sizes[] = {1, 20, 63, 64, 65, 127, 128, 129};
    fx_file f;
    st_memory file = {0};
    int32_t a[130];
    ksllm_error e;
    ksllm_model *m = open_spec(&windows, &f);
    ksllm_session *s = session_of(m, 130, 16, KSLLM_TYPE_F16);
    prompt_of(m, a, 130, 1);
    ksllm_saved saved = {0};
    CHECK_OK(ksllm_session_sync(s, a, 64, NULL, &e), e);
    save(s, &file, &saved);
    CHECK_OK(ksllm_session_sync(s, a, 130, NULL, &e), e);
    save(s, &file, &saved);
    ksllm_session_free(s);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], whole = n / 64 * 64;
        s = session_of(m, sizes[i], 16, KSLLM_TYPE_F16);
        file.at = 0;
        CHECK_EQ(ksllm_session_load(s, NULL, 0, st_memory_read, &file, NULL,
                                    NULL, &e), KSLLM_ERR_CONTEXT);
        CHECK_EQ(n_held(s), whole);     /* no chunk is used in part */
        CHECK_EQ(load(s, &file, a, 130, NULL), n);
        CHECK_OK(ksllm_session_sync(s, a, n, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), fresh(m, a, n, KSLLM_TYPE_F16));
        ksllm_session_free(s);
    }
    fx_close(m, &f);
    free(file.b.data);
}

typedef struct stopper {
    ksllm_cancel cancel;
    size_t after, seen, n_done, n_total;
} stopper;

static void stop_later(void *ctx, size_t n_done, size_t n_total)
{
    stopper *x = ctx;
    CHECK(n_done > x->n_done && n_done <= n_total);
    x->n_done = n_done;
    x->n_total = n_total;
    if (++x->seen == x->after)
        ksllm_cancel_set(&x->cancel);
}

TEST(cancel_and_deadline_of_saved_state)
{
    fx_file f;
    int32_t a[250];
    ksllm_error e;
    ksllm_model *m = open_spec(&wide, &f);
    ksllm_session *s = session_of(m, 250, 16, KSLLM_TYPE_Q8_0);
    st_memory whole = {0};
    prompt_of(m, a, 250, 1);
    CHECK_OK(ksllm_session_sync(s, a, 250, NULL, &e), e);
    save(s, &whole, NULL);
    for (size_t after = 0; after < 6; after++) {
        stopper x = {.after = after};
        ksllm_control c;
        st_memory file = {0};
        ksllm_saved saved = {0};
        ksllm_control_init(&c);
        c.cancel = &x.cancel;
        c.on_progress = stop_later;
        c.progress_ctx = &x;
        size_t done = after * 64 < 250 ? after * 64 : 250;
        if (!after)
            ksllm_cancel_set(&x.cancel);
        ksllm_status st = ksllm_session_save(s, 0, st_memory_write, &file, &c,
                                             &saved, &e);
        CHECK_EQ(st, after < 4 ? KSLLM_ERR_CANCELLED : KSLLM_OK);
        CHECK_EQ(saved.n_tokens, done);
        if (after)
            CHECK_EQ(x.n_total, 250);
        file.b.size = saved.n_bytes;
        save(s, &file, &saved);
        CHECK(file.b.size == whole.b.size &&
              memcmp(file.b.data, whole.b.data, whole.b.size) == 0);
        x = (stopper){.after = after};
        if (!after)
            ksllm_cancel_set(&x.cancel);
        file.at = 0;
        st = ksllm_session_load(s, a, 250, st_memory_read, &file, &c, &saved,
                                &e);
        CHECK_EQ(st, after < 4 ? KSLLM_ERR_CANCELLED : KSLLM_OK);
        CHECK_EQ(n_held(s), done);
        CHECK_OK(ksllm_session_sync(s, a, 250, NULL, &e), e);
        free(file.b.data);
    }
    ksllm_control c;
    st_memory file = {0};
    struct timespec pause = {0, 1000};
    ksllm_control_init(&c);
    c.budget_us = 1;
    nanosleep(&pause, NULL);
    CHECK_EQ(ksllm_session_save(s, 0, st_memory_write, &file, &c, NULL, &e),
             KSLLM_ERR_DEADLINE);
    CHECK(strstr(e.text, "tokens saved"));
    CHECK_EQ(ksllm_session_load(s, NULL, 0, st_memory_read, &whole, &c, NULL,
                                &e), KSLLM_ERR_DEADLINE);
    CHECK_OK(ksllm_session_sync(s, a, 250, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(m, s), fresh(m, a, 250, KSLLM_TYPE_Q8_0));
    ksllm_session_free(s);
    fx_close(m, &f);
    free(whole.b.data);
    free(file.b.data);
}

/* Draws are numbered by position, slid tokens included: an answer that goes on
 * after a load is the one that an undisturbed session gives. */
TEST(an_answer_goes_on)
{
    fx_file f;
    st_memory file = {0};
    int32_t a[30];
    ksllm_error e;
    ksllm_sampling p;
    ksllm_generation g;
    ksllm_model *m = open_spec(&wide, &f);
    ksllm_session_options o = fx_small_options();
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    o.n_keep = 4;
    ksllm_session *s = fx_create(m, &o), *t = fx_create(m, &o);
    ksllm_saved saved = {0};
    prompt_of(m, a, 30, 1);
    ksllm_sampling_init(&p);
    p.temperature = 1;
    p.seed = 7;
    ksllm_generation_init(&g);
    g.tokens = a;
    g.n_tokens = 30;
    g.sampling = &p;
    g.ignore_stop = true;
    g.max_tokens = 100;
    CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
    save(s, &file, &saved);
    /* The last token is not evaluated; the file has it all the same. */
    CHECK_EQ(saved.n_tokens, n_held(s) - 1);
    CHECK(saved.n_bytes < file.b.size);
    CHECK_EQ(load(t, &file, NULL, 0, &saved), n_held(s));
    CHECK_EQ(saved.n_tokens, n_held(s) - 1);
    g.tokens = NULL;
    g.n_tokens = 0;
    g.max_tokens = 50;
    CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
    CHECK_OK(ksllm_generate(t, &g, NULL, &e), e);
    CHECK_EQ(n_held(s), n_held(t));
    CHECK(memcmp(ksllm_session_tokens(s, NULL), ksllm_session_tokens(t, NULL),
                 n_held(s) * sizeof *a) == 0);
    CHECK_HEX(fx_logits_hash(m, s), fx_logits_hash(m, t));
    /* What was written of it is cut off, and comes again with its values. */
    saved = (ksllm_saved){0};
    file.b.size = 0;
    CHECK_OK(ksllm_session_rewind(s, 20, &e), e);
    save(s, &file, &saved);
    g.max_tokens = 10;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
        file.b.size = saved.n_bytes;
        save(s, &file, &saved);
        CHECK_EQ(load(t, &file, NULL, 0, NULL), n_held(s));
        CHECK_EQ(saved.n_tokens, n_held(s) - 1);
    }
    ksllm_session_free(s);
    ksllm_session_free(t);
    fx_close(m, &f);
    free(file.b.data);
}

/* With a mean over all tokens, all are evaluated: a load is no help, and no
 * harm. */
TEST(pooling_and_saved_state)
{
    for (int pooling = 1; pooling < 3; pooling++) {
        fx_file f;
        st_memory file = {0};
        int32_t a[60];
        ksllm_error e;
        ksllm_model *m = open_spec(&wide, &f);
        ksllm_session_options o = fx_small_options();
        o.pooling = (ksllm_pooling)pooling;
        ksllm_session *s = fx_create(m, &o), *t = fx_create(m, &o);
        prompt_of(m, a, 60, 1);
        CHECK_OK(ksllm_session_sync(s, a, 60, NULL, &e), e);
        save(s, &file, NULL);
        CHECK_EQ(load(t, &file, a, 60, NULL), 60);
        CHECK(!ksllm_session_embedding(t));
        CHECK_OK(ksllm_session_sync(t, a, 60, NULL, &e), e);
        CHECK(memcmp(ksllm_session_embedding(s), ksllm_session_embedding(t),
                     32 * sizeof(float)) == 0);
        ksllm_session_free(s);
        ksllm_session_free(t);
        fx_close(m, &f);
        free(file.b.data);
    }
}

/* The golden file again, when the bits changed on purpose:
 *     build/tests/test_state print >tests/state_golden.h */
static int print_golden(void)
{
    fx_file f;
    st_memory file = {0};
    int32_t tokens[GOLDEN];
    ksllm_model *m = open_spec(&fx_mini, &f);
    ksllm_session *s = session_of(m, 200, 16, KSLLM_TYPE_Q8_0);
    golden_prompt(m, tokens);
    write_golden(s, tokens, &file);
    for (size_t i = 0; i < file.b.size; i++)
        printf("%u,%s", file.b.data[i],
               i % 20 == 19 || i + 1 == file.b.size ? "\n" : "");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "print") == 0)
        return print_golden();
    return test_main(argc, argv);
}
