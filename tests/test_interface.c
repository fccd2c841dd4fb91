/* test_interface.c - what version 0.2 promises at its border: structs of any
 * age, one call at a time on a session, callbacks that may call in, and the
 * calls that came with it (score, preload, on_thread, pacing, the file's
 * sampling).
 */
#include "test.h"
#include "fixture.h"

#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

/* `size` bytes that end where memory ends: one byte more is a SIGSEGV. */
static void *at_the_edge(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, page, PROT_NONE) != 0)
        exit(1);
    memset(p, 0xa5, page);
    return p + page - size;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- structs ---- */

static ksllm_status open_and_close(const fx_file *f,
                                   const ksllm_model_options *o,
                                   ksllm_error *e)
{
    ksllm_model *m;
    ksllm_status status = ksllm_model_open_memory(f->data, f->size, o, &m, e);
    ksllm_model_close(m);
    return status;
}

static ksllm_status compile_and_free(const ksllm_model *m,
                                     const ksllm_grammar_options *o,
                                     ksllm_error *e)
{
    ksllm_grammar *g;
    ksllm_status status = ksllm_grammar_create(m, o, &g, e);
    ksllm_grammar_free(g);
    return status;
}

static ksllm_status create_and_free(const ksllm_model *m,
                                    const ksllm_session_options *o,
                                    ksllm_error *e)
{
    ksllm_session *s;
    ksllm_status status = ksllm_session_create(m, o, &s, e);
    ksllm_session_free(s);
    return status;
}

/* Every struct with a size: too small is refused and not written to, a field
 * of a later version may be zero and nothing else. */
TEST(sizes_are_looked_at)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so);
    ksllm_error e;
    const int32_t id = 5;

    /* What the library reads: as it is now, as it was in version 0.2, one byte
     * less than that, and longer. */
#define END(type, last) (offsetof(type, last) + sizeof((type *)0)->last)
#define READS(type, last, init, call)                                   \
    do {                                                                \
        type *p = at_the_edge(sizeof *p);                               \
        init(p);                                                        \
        CHECK_EQ(p->size, sizeof *p);                                   \
        CHECK_OK(call, e);                                              \
        p->size = END(type, last);                                      \
        CHECK_OK(call, e);                                              \
        p->size--;                                                      \
        CHECK_EQ(call, KSLLM_ERR_ARGUMENT);                             \
        CHECK(strstr(e.text, #type) != NULL);                           \
        p->size = 0;                                                    \
        CHECK_EQ(call, KSLLM_ERR_ARGUMENT);                             \
        p->size = (size_t)-1;                                           \
        CHECK_EQ(call, KSLLM_ERR_ARGUMENT);                             \
        uint64_t longer[(sizeof *p + 128) / 8] = {0};                    \
        p->size = sizeof *p;                                            \
        memcpy(longer, p, sizeof *p);                                   \
        p = (void *)longer;                                             \
        p->size = sizeof longer;                                        \
        CHECK_OK(call, e);                                              \
        longer[sizeof longer / 8 - 1] = 1;                              \
        CHECK_EQ(call, KSLLM_ERR_UNSUPPORTED);                          \
        CHECK(strstr(e.text, "newer") != NULL);                         \
    } while (0)
    READS(ksllm_model_options, isa, ksllm_model_options_init,
          open_and_close(&f, p, &e));
    READS(ksllm_session_options, thread_ctx, ksllm_session_options_init,
          create_and_free(m, p, &e));
    READS(ksllm_control, progress_ctx, ksllm_control_init,
          ksllm_session_sync(s, &id, 1, p, &e));
    ksllm_token_prob drawn;
    READS(ksllm_sampling, filter_ctx, ksllm_sampling_init,
          ksllm_sample(s, p, 0, &drawn, NULL, 0, &e));
    READS(ksllm_generation, max_thinking, ksllm_generation_init,
          (p->tokens = &id, p->n_tokens = 1, p->max_tokens = 1,
           ksllm_generate(s, p, NULL, &e)));
    READS(ksllm_chat, format, ksllm_chat_init,
          (p->messages.data = "[]", p->template_text.data = "x",
           p->template_text.size = 1,
           (ksllm_status)ksllm_chat_render(m, p, NULL, 0, &e)));
    ksllm_splitter splitter;
    READS(ksllm_splitter_options, ctx, ksllm_splitter_options_init,
          (p->format = "json", ksllm_splitter_init(&splitter, m, p, &e)));
    READS(ksllm_grammar_options, allocator, ksllm_grammar_options_init,
          compile_and_free(m, p, &e));
#undef READS

    /* What it writes. */
#define WRITES(type, last, call)                                           \
    do {                                                                \
        type *p = at_the_edge(sizeof *p);                               \
        p->size = sizeof *p;                                            \
        CHECK_EQ(call, KSLLM_OK);                                       \
        CHECK_EQ(p->size, sizeof *p);                                   \
        type was;                                                       \
        memset(&was, 0x5a, sizeof was);                                 \
        memcpy(p, &was, sizeof was);                                    \
        p->size = END(type, last) - 1;                                  \
        CHECK_EQ(call, KSLLM_ERR_ARGUMENT);                             \
        p->size = was.size;                                             \
        CHECK(memcmp(p, &was, sizeof *p) == 0);                         \
        uint64_t longer[(sizeof *p + 128) / 8];                          \
        memset(longer, 0xa5, sizeof longer);                            \
        p = (void *)longer;                                             \
        p->size = sizeof longer;                                        \
        CHECK_EQ(call, KSLLM_OK);                                       \
        CHECK_EQ(p->size, sizeof longer);                               \
        CHECK_EQ(longer[sizeof longer / 8 - 1], 0);                     \
    } while (0)
    WRITES(ksllm_model_info, max_piece_bytes,
           ksllm_model_get_info(m, p, &e));
    WRITES(ksllm_meta, text, ksllm_meta_at(m, 0, p));
    WRITES(ksllm_tensor, offset, ksllm_tensor_at(m, 0, p));
    WRITES(ksllm_memory, output, ksllm_session_memory(m, &so, p, &e));
    ksllm_generation g;
    ksllm_generation_init(&g);
    g.tokens = &id;
    g.n_tokens = g.max_tokens = 1;
    for (int i = 0; i < 2; i++) {       /* its times differ */
        ksllm_result *r = at_the_edge(sizeof *r);
        r->size = i ? END(ksllm_result, total_ns) - 1 : sizeof *r;
        CHECK_EQ(ksllm_generate(s, &g, r, &e), i ? KSLLM_ERR_ARGUMENT : 0);
    }
#undef WRITES
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* A program of an older version has shorter structs: an _init writes no byte
 * more than the program says it has. */
TEST(init_writes_what_the_program_has)
{
    for (size_t size = 0; size <= 64; size += 8) {
        void *p = at_the_edge(size);
        ksllm_model_options_init_sized(p, size);
        ksllm_session_options_init_sized(p, size);
        ksllm_control_init_sized(p, size);
        ksllm_sampling_init_sized(p, size);
        ksllm_sampling_from_model_sized(p, size, NULL);
        ksllm_generation_init_sized(p, size);
        ksllm_chat_init_sized(p, size);
        ksllm_grammar_options_init_sized(p, size);
        if (size)
            CHECK_EQ(*(size_t *)p, size);
    }
    ksllm_model_options_init_sized(NULL, 64);
    uint64_t big[64];
    memset(big, 0xa5, sizeof big);
    ksllm_sampling_init_sized((void *)big, sizeof big);
    CHECK_EQ(big[63], 0);
}

TEST(a_struct_without_init)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so);
    ksllm_error e;
    ksllm_result r = {.size = sizeof r};
    /* text_size 0 is up to the NUL, a stop string may be too. */
    ksllm_text stop = {"x", KSLLM_NUL};
    ksllm_generation g = {.size = sizeof g, .text = "ab", .max_tokens = 1,
                          .stop_texts = &stop, .n_stop_texts = 1};
    CHECK_OK(ksllm_generate(s, &g, &r, &e), e);
    CHECK_EQ(r.n_prompt, ksllm_encode(m, "ab", 2, 0, NULL, 0, &e));
    /* top_p and repeat_penalty of 0 are none. */
    ksllm_sampling zero = {.size = sizeof zero, .temperature = 1}, init;
    ksllm_token_prob a, b;
    ksllm_sampling_init(&init);
    init.temperature = 1;
    CHECK_OK(ksllm_session_append(s, (int32_t[]){5}, 1, NULL, &e), e);
    for (uint64_t i = 0; i < 50; i++) {
        CHECK_OK(ksllm_sample(s, &zero, i, &a, NULL, 0, &e), e);
        CHECK_OK(ksllm_sample(s, &init, i, &b, NULL, 0, &e), e);
        CHECK_EQ(a.token, b.token);
    }
    CHECK_EQ(ksllm_text_units("가나 다", KSLLM_NUL, KSLLM_UNIT_EOJEOL), 7);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- one call at a time ---- */

typedef struct inside {
    ksllm_session *s, *other;
    size_t n_calls, n_refused;
} inside;

/* Every call that takes a session, from within a call on it. */
static void call_in(inside *x)
{
    const int32_t id = 3;
    float out[512];
    ksllm_error e;
    ksllm_generation g;
    ksllm_token_prob p;
    ksllm_generation_init(&g);
    g.tokens = &id;
    g.n_tokens = 1;
    ksllm_status got[] = {
        ksllm_session_sync(x->s, &id, 1, NULL, &e),
        ksllm_session_append(x->s, &id, 1, NULL, &e),
        ksllm_session_score(x->s, &id, 1, out, NULL, &e),
        ksllm_session_append_logits(x->s, &id, 1, out, NULL, &e),
        ksllm_session_rewind(x->s, 0, &e),
        ksllm_session_fork(x->s, x->other, &e),
        ksllm_session_fork(x->other, x->s, &e),
        ksllm_sample(x->s, NULL, 0, &p, NULL, 0, &e),
        ksllm_generate(x->s, &g, NULL, &e),
    };
    for (size_t i = 0; i < sizeof got / sizeof *got; i++) {
        x->n_calls++;
        x->n_refused += got[i] == KSLLM_ERR_STATE;
    }
    CHECK(strstr(e.text, "another call is running") != NULL);
}

static int piece_calls_in(void *ctx, const ksllm_piece *piece)
{
    (void)piece;
    call_in(ctx);
    return 0;
}

static void progress_calls_in(void *ctx, size_t done, size_t total)
{
    (void)done, (void)total;
    call_in(ctx);
}

static void filter_calls_in(void *ctx, float *logits, size_t n)
{
    (void)logits, (void)n;
    call_in(ctx);
}

TEST(callbacks_that_call_in_are_refused)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so), *other = fx_create(m, &so);
    ksllm_error e;
    int32_t prompt[40];
    fx_prompt(prompt, 40, 7);
    CHECK_OK(ksllm_session_sync(other, prompt, 3, NULL, &e), e);

    ksllm_generation g;
    ksllm_generation_init(&g);
    g.tokens = prompt;
    g.n_tokens = 40;
    g.max_tokens = 8;
    g.ignore_stop = true;
    CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
    uint64_t quiet = fx_logits_hash(m, s);

    inside x = {s, other, 0, 0};
    ksllm_sampling p;
    ksllm_control c;
    ksllm_sampling_init(&p);
    ksllm_control_init(&c);
    g.on_piece = piece_calls_in;
    p.filter = filter_calls_in;
    c.on_progress = progress_calls_in;
    g.piece_ctx = p.filter_ctx = c.progress_ctx = &x;
    g.sampling = &p;
    g.control = &c;
    ksllm_session_rewind(s, 0, NULL);
    CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
    CHECK(x.n_calls > 100);
    CHECK_EQ(x.n_refused, x.n_calls);
    CHECK_HEX(fx_logits_hash(m, s), quiet);
    /* After the call all of them work again. */
    CHECK_EQ(ksllm_session_rewind(s, 5, &e), KSLLM_OK);
    CHECK_EQ(ksllm_session_fork(other, s, &e), KSLLM_OK);
    ksllm_session_free(s);
    ksllm_session_free(other);
    ksllm_model_close(m);
    free(f.data);
}

typedef struct rival {
    ksllm_session *s, *own;
    atomic_int go, end;
    atomic_long refused, done;
} rival;

static void *compete(void *arg)
{
    rival *r = arg;
    const int32_t id = 9;
    ksllm_error e;
    while (!atomic_load(&r->go)) {}
    while (!atomic_load(&r->end)) {
        ksllm_status st = ksllm_session_append(r->s, &id, 1, NULL, &e);
        if (st == KSLLM_ERR_STATE)
            atomic_fetch_add(&r->refused, 1);
        else
            atomic_fetch_add(&r->done, 1);
    }
    return NULL;
}

/* Until the rival was refused: a busy machine may not let it run at once. */
static int slow_piece(void *ctx, const ksllm_piece *piece)
{
    struct timespec t = {0, 2000000};
    rival *r = ctx;
    (void)piece;
    atomic_store(&r->go, 1);
    for (int i = 0; i < 5000 && (!i || !atomic_load(&r->refused)); i++)
        nanosleep(&t, NULL);
    return 0;
}

/* Another thread on a session in use, with workers (this hung) and without
 * (this ran into damaged memory). */
TEST(a_second_thread_is_refused)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    for (uint32_t threads = 1; threads <= 2; threads++) {
        ksllm_session_options so = fx_small_options();
        so.n_threads = threads;
        ksllm_session *s = fx_create(m, &so);
        ksllm_error e;
        int32_t prompt[10];
        fx_prompt(prompt, 10, 7);
        ksllm_generation g;
        ksllm_generation_init(&g);
        g.tokens = prompt;
        g.n_tokens = 10;
        g.max_tokens = 40;
        g.ignore_stop = true;
        CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
        uint64_t quiet = fx_logits_hash(m, s);
        rival r = {.s = s};
        pthread_t t;
        g.on_piece = slow_piece;
        g.piece_ctx = &r;
        ksllm_session_rewind(s, 0, NULL);
        if (pthread_create(&t, NULL, compete, &r) != 0)
            exit(1);
        CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
        /* The rival may begin a call between that one's end and this one. */
        atomic_store(&r.end, 1);
        pthread_join(t, NULL);
        CHECK(atomic_load(&r.refused) > 0);
        CHECK_OK(ksllm_session_sync(s, prompt, 10, NULL, &e), e);
        CHECK_OK(ksllm_generate(s, &g, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), quiet);
        ksllm_session_free(s);
    }
    ksllm_model_close(m);
    free(f.data);
}

static void *fork_often(void *arg)
{
    rival *r = arg;
    ksllm_error e;
    for (int i = 0; i < 200; i++)
        if (ksllm_session_fork(r->s, r->own, &e) != KSLLM_OK)
            atomic_fetch_add(&r->refused, 1);
    return NULL;
}

TEST(many_may_fork_from_one)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so);
    rival r[3] = {{.s = s}, {.s = s}, {.s = s}};
    pthread_t t[3];
    ksllm_error e;
    int32_t prompt[20];
    fx_prompt(prompt, 20, 7);
    CHECK_OK(ksllm_session_sync(s, prompt, 20, NULL, &e), e);
    for (int i = 0; i < 3; i++) {
        r[i].own = fx_create(m, &so);
        if (pthread_create(&t[i], NULL, fork_often, &r[i]) != 0)
            exit(1);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        CHECK_EQ(atomic_load(&r[i].refused), 0);
        CHECK_HEX(fx_logits_hash(m, r[i].own), fx_logits_hash(m, s));
        ksllm_session_free(r[i].own);
    }
    CHECK_OK(ksllm_session_append(s, prompt, 1, NULL, &e), e);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- reasons ---- */

TEST(refusals_give_a_reason)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so);
    so.n_ctx = 65;
    ksllm_session *t = fx_create(m, &so);
    ksllm_error e;
    CHECK_EQ(ksllm_session_rewind(s, 1, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "holds 0") != NULL);
    CHECK_EQ(ksllm_session_fork(s, t, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "n_ctx") != NULL);
    CHECK_EQ(ksllm_session_fork(s, s, &e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_model_get_info(m, NULL, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "info") != NULL);
    ksllm_session_free(s);
    ksllm_session_free(t);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- score ---- */

/* Against the softmax of append_logits, in double. */
static double naive(const float *logits, size_t n, int32_t token)
{
    double max = logits[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    return logits[token] - max - log(sum);
}

TEST(score_is_ln_p)
{
    static const char *const names[] = {"llama", "gemma3", "mixed"};
    enum { N = 50 };
    for (size_t k = 0; k < 3; k++) {
        fx_file f;
        ksllm_model *m = fx_open(names[k], &f);
        ksllm_session_options so = fx_small_options();
        ksllm_session *s = fx_create(m, &so);
        size_t v = fx_n_vocab(m);
        float *rows = fx_memory(NULL, N * v * sizeof *rows), ln[N], again[N];
        int32_t prompt[N];
        ksllm_error e;
        fx_prompt(prompt, N, 11);
        CHECK_OK(ksllm_session_append_logits(s, prompt, N, rows, NULL, &e), e);
        uint64_t last = fx_logits_hash(m, s);
        ksllm_session_rewind(s, 0, NULL);
        CHECK_OK(ksllm_session_score(s, prompt, N, ln, NULL, &e), e);
        CHECK(isnan(ln[0]));
        for (int i = 1; i < N; i++)
            CHECK(fabs(ln[i] - naive(rows + (size_t)(i - 1) * v, v, prompt[i]))
                  < 1e-5);
        CHECK_HEX(fx_logits_hash(m, s), last);
        /* The same bits in any pieces, and after a rewind. */
        for (size_t step = 1; step < 30; step += 14) {
            ksllm_session_rewind(s, 0, NULL);
            for (size_t at = 0; at < N; at += step)
                CHECK_OK(ksllm_session_score(s, prompt + at,
                             N - at < step ? N - at : step, again + at, NULL,
                             &e), e);
            CHECK(memcmp(again + 1, ln + 1, sizeof ln - sizeof *ln) == 0);
            CHECK_HEX(fx_logits_hash(m, s), last);
        }
        ksllm_session_rewind(s, 20, NULL);
        CHECK_OK(ksllm_session_score(s, prompt + 20, N - 20, again, NULL, &e),
                 e);
        CHECK(memcmp(again, ln + 20, (N - 20) * sizeof *ln) == 0);
        /* A token outside the vocabulary changes nothing. */
        const int32_t bad[2] = {1, (int32_t)v};
        ksllm_session_rewind(s, 20, NULL);
        CHECK_EQ(ksllm_session_score(s, bad, 2, again, NULL, &e),
                 KSLLM_ERR_TOKEN);
        CHECK_EQ(ksllm_session_score(s, bad + 1, 1, again, NULL, &e),
                 KSLLM_ERR_TOKEN);
        size_t n;
        ksllm_session_tokens(s, &n);
        CHECK_EQ(n, 20);
        free(rows);
        ksllm_session_free(s);
        ksllm_model_close(m);
        free(f.data);
    }
}

/* A robot's loop: rewind, score the candidates, and be late. What the session
 * held before the call it holds after it. */
TEST(a_late_call_loses_no_token)
{
    static const char *const names[] = {"llama", "gemma3"};
    for (int k = 0; k < 2; k++) {
        fx_file f;
        ksllm_model *m = fx_open(names[k], &f);
        ksllm_session_options so = fx_small_options();
        ksllm_session *s = fx_create(m, &so);
        ksllm_cancel cancel = {1};
        ksllm_control c;
        ksllm_error e;
        int32_t prompt[20];
        float ln[2];
        size_t n;
        fx_prompt(prompt, 20, 5);
        ksllm_control_init(&c);
        c.cancel = &cancel;
        CHECK_OK(ksllm_session_sync(s, prompt, 20, NULL, &e), e);
        uint64_t quiet = fx_logits_hash(m, s);
        for (int i = 0; i < 3; i++) {
            ksllm_generation g;
            ksllm_generation_init(&g);
            g.control = &c;
            CHECK_OK(ksllm_session_rewind(s, 10, &e), e);
            CHECK_EQ(i == 0 ? ksllm_session_score(s, prompt, 2, ln, &c, &e)
                     : i == 1 ? ksllm_generate(s, &g, NULL, &e)
                     : ksllm_session_sync(s, prompt, 10, &c, &e),
                     KSLLM_ERR_CANCELLED);
            ksllm_session_tokens(s, &n);
            CHECK_EQ(n, 10);
        }
        CHECK_OK(ksllm_session_rewind(s, 10, &e), e);
        CHECK_OK(ksllm_session_append(s, prompt + 10, 10, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), quiet);
        ksllm_session_free(s);
        ksllm_model_close(m);
        free(f.data);
    }
}

TEST(unknown_flags_and_odd_numbers)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so);
    ksllm_generation g;
    ksllm_sampling p;
    ksllm_token_prob out;
    ksllm_error e;
    const int32_t id = 5;
    CHECK_EQ(ksllm_encode(m, "a", 1, 16, NULL, 0, &e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_decode(m, &id, 1, 2, NULL, 0, &e), KSLLM_ERR_ARGUMENT);
    ksllm_generation_init(&g);
    g.text = "a";
    g.encode_flags |= 0x100;
    CHECK_EQ(ksllm_generate(s, &g, NULL, &e), KSLLM_ERR_ARGUMENT);
    ksllm_generation_init(&g);
    g.text = "a";
    g.decode_flags = 4;
    CHECK_EQ(ksllm_generate(s, &g, NULL, &e), KSLLM_ERR_ARGUMENT);
    CHECK_OK(ksllm_session_append(s, &id, 1, NULL, &e), e);
    ksllm_sampling_init(&p);
    p.temperature = 1e-40f;
    CHECK_EQ(ksllm_sample(s, &p, 0, &out, NULL, 0, &e), KSLLM_ERR_ARGUMENT);
    p.temperature = 1e-6f;
    CHECK_OK(ksllm_sample(s, &p, 0, &out, NULL, 0, &e), e);
    ksllm_logit_bias bias = {5, NAN};
    p.biases = &bias;
    p.n_biases = 1;
    CHECK_EQ(ksllm_sample(s, &p, 0, &out, NULL, 0, &e), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- preload ---- */

typedef struct progress {
    size_t calls, last, total;
    ksllm_cancel *cancel;
} progress;

static void count_bytes(void *ctx, size_t done, size_t total)
{
    progress *p = ctx;
    CHECK(done > p->last && done <= total);
    p->calls++;
    p->last = done;
    p->total = total;
    if (p->cancel)
        ksllm_cancel_set(p->cancel);
}

TEST(preload_reads_every_weight)
{
    fx_file f;
    ksllm_model *m = fx_open("mixed", &f);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_cancel cancel = {0};
    ksllm_control c;
    ksllm_error e;
    progress p = {0};
    ksllm_model_get_info(m, &info, NULL);
    ksllm_control_init(&c);
    c.on_progress = count_bytes;
    c.progress_ctx = &p;
    CHECK_OK(ksllm_model_preload(m, &c, &e), e);
    CHECK_EQ(p.last, info.weight_bytes);
    CHECK_EQ(p.total, info.weight_bytes);
    CHECK_OK(ksllm_model_preload(m, NULL, &e), e);
    c.cancel = p.cancel = &cancel;
    p.last = 0;
    CHECK_EQ(ksllm_model_preload(m, &c, &e), KSLLM_ERR_CANCELLED);
    CHECK(p.last > 0 && p.last < info.weight_bytes);
    CHECK_EQ(ksllm_model_preload(NULL, NULL, &e), KSLLM_ERR_ARGUMENT);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- workers ---- */

typedef struct roll {
    atomic_int seen[8];
    atomic_int n;
} roll;

static void called_first(void *ctx, uint32_t index)
{
    roll *r = ctx;
    if (index < 8)
        atomic_fetch_add(&r->seen[index], 1);
    atomic_fetch_add(&r->n, 1);
}

TEST(on_thread_names_each_worker)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    roll r = {.n = 0};
    ksllm_session_options so = fx_small_options();
    so.n_threads = 4;
    so.on_thread = called_first;
    so.thread_ctx = &r;
    ksllm_session *s = fx_create(m, &so);
    const int32_t id = 4;
    ksllm_error e;
    for (int i = 0; i < 20; i++)
        CHECK_OK(ksllm_session_append(s, &id, 1, NULL, &e), e);
    ksllm_session_free(s);      /* waits for every worker */
    CHECK_EQ(atomic_load(&r.n), 3);
    CHECK_EQ(atomic_load(&r.seen[0]), 0);
    for (int i = 1; i < 4; i++)
        CHECK_EQ(atomic_load(&r.seen[i]), 1);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- pacing ---- */

TEST(a_rate_is_kept)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options so = fx_small_options();
    ksllm_session *s = fx_create(m, &so);
    ksllm_generation g;
    ksllm_control c;
    ksllm_error e;
    ksllm_result r = {.size = sizeof r};
    ksllm_control_init(&c);
    ksllm_generation_init(&g);
    c.max_tokens_per_second = 100;
    g.text = "a";
    g.max_tokens = 11;
    g.ignore_stop = true;
    g.control = &c;
    uint64_t begin = now_ns();
    CHECK_OK(ksllm_generate(s, &g, &r, &e), e);
    CHECK(now_ns() - begin >= 99000000);        /* ten pauses of 10 ms */
    CHECK_EQ(r.n_generated, 11);
    /* A pause of a quarter of an hour ends with the budget. */
    c.max_tokens_per_second = 0.001f;
    c.budget_us = 300000;
    begin = now_ns();
    CHECK_EQ(ksllm_generate(s, &g, &r, &e), KSLLM_ERR_DEADLINE);
    CHECK_EQ(r.stop, KSLLM_STOP_DEADLINE);
    CHECK_EQ(r.n_generated, 1);
    CHECK(now_ns() - begin < 10000000000u);     /* on the busiest machine */
    static const float wrong[] = {-1, NAN, INFINITY, 1e-9f};
    for (int i = 0; i < 4; i++) {
        c.max_tokens_per_second = wrong[i];
        CHECK_EQ(ksllm_generate(s, &g, &r, &e), KSLLM_ERR_ARGUMENT);
    }
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- the file's sampling ---- */

static ksllm_model *with_sampling(fx_file *f, float temp, int32_t top_k,
                                  float top_p, float penalty)
{
    static fx_gguf g;
    ksllm_model *m = NULL;
    ksllm_model_options o;
    ksllm_error e;
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_put_vocab(&g, FX_BPE);
    if (!(temp < 0))
        fx_kv_f32(&g, "general.sampling.temp", temp);
    if (top_k >= 0)
        fx_kv_int(&g, "general.sampling.top_k", KSLLM_META_I32,
                  (uint64_t)top_k);
    if (top_p != 0)
        fx_kv_f32(&g, "general.sampling.top_p", top_p);
    if (penalty != 0)
        fx_kv_f32(&g, "general.sampling.penalty_repeat", penalty);
    *f = fx_end(&g);
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    fx_must(ksllm_model_open_memory(f->data, f->size, &o, &m, &e), &e);
    return m;
}

TEST(sampling_from_the_file)
{
    static const struct {
        float temp; int32_t top_k; float top_p, penalty;
        float want_temp; uint32_t want_k; float want_p, want_penalty;
    } rows[] = {
        {-1, -1, 0, 0, 0, 0, 1, 1},                     /* silent: greedy */
        {0.7f, 20, 0.8f, 1.05f, 0.7f, 20, 0.8f, 1.05f},
        {-1, 50, 0, 0, 1, 50, 1, 1},                    /* as transformers */
        {0.3f, -1, 7, -2, 0.3f, 0, 1, 1},               /* out of range */
        {NAN, -1, 0.9f, 0, 1, 0, 0.9f, 1},
        {1e-30f, -1, 0, 0, 0, 0, 1, 1},         /* so is this one */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fx_file f;
        ksllm_model *m = with_sampling(&f, rows[i].temp, rows[i].top_k,
                                       rows[i].top_p, rows[i].penalty);
        ksllm_sampling p;
        ksllm_sampling_from_model(&p, m);
        CHECK_EQ(p.size, sizeof p);
        CHECK(p.temperature == rows[i].want_temp);
        CHECK_EQ(p.top_k, rows[i].want_k);
        CHECK(p.top_p == rows[i].want_p);
        CHECK(p.repeat_penalty == rows[i].want_penalty);
        ksllm_model_close(m);
        free(f.data);
    }
}

/* Sessions that differ are not copied into each other. */
TEST(a_fork_needs_a_twin)
{
    fx_file f[2];
    ksllm_model *m = fx_open("llama", &f[0]), *other = fx_open("llama", &f[1]);
    ksllm_session_options o = fx_small_options(), differ[5];
    ksllm_session *from = fx_create(m, &o);
    ksllm_error e;
    static const char *const why[] = {"n_ctx", "n_batch", "kv_type", "pooling",
                                      "two models"};
    for (int i = 0; i < 5; i++)
        differ[i] = o;
    differ[0].n_ctx = 128;
    differ[1].n_batch = 8;
    differ[2].kv_type = KSLLM_TYPE_F32;
    differ[3].pooling = KSLLM_POOLING_MEAN;
    for (int i = 0; i < 5; i++) {
        ksllm_session *to = fx_create(i < 4 ? m : other, &differ[i]);
        CHECK_EQ(ksllm_session_fork(from, to, &e), KSLLM_ERR_ARGUMENT);
        CHECK(strstr(e.text, why[i]) != NULL);
        ksllm_session_free(to);
    }
    CHECK_EQ(ksllm_session_fork(from, from, &e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_session_fork(NULL, from, &e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_session_fork(from, NULL, &e), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(from);
    fx_close(m, &f[0]);
    fx_close(other, &f[1]);
}

/* A place that is missing, and a number that is none of its kind. */
TEST(missing_arguments)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_session *s = fx_create(m, &o);
    ksllm_error e;
    ksllm_token_prob t;
    ksllm_chat chat;
    ksllm_control control;
    ksllm_generation g;
    ksllm_decoder decoder;
    ksllm_tensor none = {.size = sizeof none};
    const int32_t id = 5;
    float x;
    char text[8];
    fx_chat(&chat);
    ksllm_control_init(&control);
    ksllm_generation_init(&g);
    CHECK_OK(ksllm_session_append(s, &id, 1, NULL, &e), e);
#define REFUSED(call) CHECK_EQ(call, KSLLM_ERR_ARGUMENT)
    REFUSED(ksllm_session_score(s, &id, 1, NULL, NULL, &e));
    REFUSED(ksllm_session_append_logits(s, &id, 1, NULL, NULL, &e));
    REFUSED(ksllm_sample(s, NULL, 0, &t, NULL, 1, &e));
    REFUSED(ksllm_sample(s, NULL, 0, NULL, NULL, 0, &e));
    REFUSED(ksllm_sample(NULL, NULL, 0, &t, NULL, 0, &e));
    REFUSED(ksllm_chat_encode(m, NULL, 0, NULL, 0, &e));
    REFUSED(ksllm_chat_encode(m, &chat, 0, NULL, 1, &e));
    REFUSED(ksllm_tensor_row(m, &none, 0, &x));
    REFUSED(ksllm_splitter_next(NULL, "a", 1, &e));
    REFUSED(ksllm_splitter_end(NULL, &e));
    ksllm_decoder_init(&decoder, m, 0);
    REFUSED(ksllm_decoder_next(&decoder, id, NULL, 0));
    REFUSED(ksllm_decoder_end(&decoder, NULL, 0));
    REFUSED(ksllm_decoder_end(NULL, text, sizeof text));
    ksllm_decoder_init(&decoder, NULL, 0);
    REFUSED(ksllm_decoder_next(&decoder, id, text, sizeof text));
    REFUSED(ksllm_decoder_end(&decoder, text, sizeof text));
    control.size = 0;
    REFUSED(ksllm_model_preload(m, &control, &e));
    g.n_top = KSLLM_MAX_TOP + 1;
    REFUSED(ksllm_chat_generate(s, &chat, &g, NULL, NULL, NULL, &e));
#undef REFUSED
    CHECK_EQ(ksllm_text_units(NULL, 0, KSLLM_UNIT_EOJEOL), 0);
    CHECK_EQ(ksllm_text_units("a b", 3, (ksllm_unit)99), 0);
    CHECK_EQ(ksllm_text_units("a b", 1, KSLLM_UNIT_EOJEOL), 0);
    CHECK_EQ(ksllm_text_units("a b", KSLLM_NUL, KSLLM_UNIT_EOJEOL), 2);
    CHECK(!ksllm_token_is_stop(m, 5) && !ksllm_token_is_stop(m, -1));
    CHECK(!ksllm_token_is_stop(NULL, 5) && ksllm_token_is_stop(m, FX_IM_END));
    /* the session is as before */
    CHECK_OK(ksllm_sample(s, NULL, 0, &t, NULL, 0, &e), e);
    ksllm_session_free(s);
    fx_close(m, &f);
}

/* The other two, and entries of a type that has no number. */
TEST(sampling_of_every_type)
{
    static fx_gguf g;
    for (int wrong = 0; wrong < 3; wrong++) {
        ksllm_model_options o;
        ksllm_model *m = NULL;
        ksllm_error e;
        fx_begin(&g);
        fx_kv_text(&g, "general.architecture", "llama");
        fx_put_vocab(&g, FX_BPE);
        if (wrong == 1) {
            fx_kv_text(&g, "general.sampling.top_p", "0.5");
            fx_kv_array(&g, "general.sampling.min_p", KSLLM_META_F32, 1);
            fx_f32(&g.kv, 0.5f);
        } else {
            fx_kv_f64(&g, "general.sampling.min_p", wrong ? 1.5 : 0.25);
            fx_kv_u32(&g, "general.sampling.penalty_last_n",
                      wrong ? 1025 : 1024);
        }
        fx_file f = fx_end(&g);
        ksllm_model_options_init(&o);
        o.vocab_only = true;
        fx_must(ksllm_model_open_memory(f.data, f.size, &o, &m, &e), &e);
        ksllm_sampling p, plain;
        ksllm_sampling_init(&plain);
        ksllm_sampling_from_model(&p, m);
        CHECK(p.min_p == (wrong ? 0 : 0.25f));
        CHECK(p.temperature == (wrong ? 0 : 1));
        CHECK_EQ(p.penalty_window, wrong ? plain.penalty_window : 1024);
        fx_close(m, &f);
    }
}

/* A prompt that ended with EOS would be answered after its end. */
TEST(eos_comes_when_asked_for)
{
    static fx_gguf g;
    ksllm_model *m = NULL;
    ksllm_model_options o;
    ksllm_error e;
    int32_t ids[8];
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_put_vocab(&g, FX_BPE);
    fx_kv_bool(&g, "tokenizer.ggml.add_eos_token", true);
    fx_file f = fx_end(&g);
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    fx_must(ksllm_model_open_memory(f.data, f.size, &o, &m, &e), &e);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(m, &info, NULL);
    CHECK(info.adds_eos && info.eos >= 0);
    int64_t n = ksllm_encode(m, "a", 1, KSLLM_ENCODE_BOS, ids, 8, &e);
    CHECK(n >= 1 && ids[n - 1] != info.eos);
    CHECK_EQ(ksllm_encode(m, "a", 1, KSLLM_ENCODE_BOS | KSLLM_ENCODE_EOS, ids,
                          8, &e), n + 1);
    CHECK_EQ(ids[n], info.eos);
    ksllm_model_close(m);
    free(f.data);
}

TEST_MAIN
