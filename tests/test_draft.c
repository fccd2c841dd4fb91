/* test_draft.c - drafts: whatever is tried, and how often, an answer is the one
 * that it is without, token for token and bit for bit.
 *
 * White-box, so that drafts are tried wherever there are any: otherwise the
 * clock decides, and hardly one would be on models as small as these.
 *
 * KSLLM_DRAFTS=50000 compares as many tokens in many_tokens_are_the_same; two
 * short answers without it. They are of the fixtures, or of KSLLM_DRAFTS_MODEL=FILE, which
 * wants the kernels: compile with -O2 -DDRAFT_KERNELS.
 */
#ifndef KSLLM_DRAFT_ALWAYS
#define KSLLM_DRAFT_ALWAYS 1
#endif
#if !defined KSLLM_NO_SIMD && !defined DRAFT_KERNELS
#define KSLLM_NO_SIMD
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"
#include "state.h"

/* ---- what an answer was ---- */

enum { CTX = 160, BATCH = 24, TEXT = 1 << 14 };

typedef struct said {
    ksllm_status status;
    ksllm_result r;
    ksllm_error e;
    size_t n, n_text;
    uint64_t pieces;    /* of all that the callback was given */
    uint64_t logits;    /* those that are left */
    int32_t tokens[CTX];
    size_t n_tokens;    /* of the session */
    char text[TEXT];
    size_t stop_at, cancel_at, n_progress;
    ksllm_cancel cancel;
    bool unevaluated;
} said;

static int on_piece(void *ctx, const ksllm_piece *p)
{
    said *x = ctx;
    x->pieces = fx_hash_piece(x->pieces, p);
    if (x->n_text + p->text.size < TEXT)
        memcpy(x->text + x->n_text, p->text.data, p->text.size);
    x->n_text += p->text.size;
    x->n += p->token >= 0;
    if (x->cancel_at && x->n == x->cancel_at)
        ksllm_cancel_set(&x->cancel);
    return x->stop_at && x->n == x->stop_at;
}

static void on_progress(void *ctx, size_t n_done, size_t n_total)
{
    said *x = ctx;
    x->n_progress++;
    CHECK(n_done <= n_total);
}

static void say(ksllm_session *s, const ksllm_generation *g, uint64_t budget,
                said *x)
{
    ksllm_generation mine = *g;
    ksllm_control c;
    ksllm_control_init(&c);
    c.cancel = &x->cancel;
    c.budget_us = budget;
    c.on_progress = on_progress;
    c.progress_ctx = x;
    mine.control = &c;
    mine.on_piece = on_piece;
    mine.piece_ctx = x;
    x->pieces = FX_HASH;
    x->r.size = sizeof x->r;
    x->status = ksllm_generate(s, &mine, &x->r, &x->e);
    const int32_t *t = ksllm_session_tokens(s, &x->n_tokens);
    memcpy(x->tokens, t, x->n_tokens * sizeof *t);
    x->logits = fx_logits_hash(s->m, s);
    if (s->m->n_states)     /* what is evaluated again goes by the states */
        x->n_progress = 0;  /* that are there */
}

static bool same(const said *a, const said *b)
{
    return CHECK_EQ(a->status, b->status) && CHECK_EQ(a->r.stop, b->r.stop)
        && CHECK_EQ(a->r.n_generated, b->r.n_generated)
        && CHECK_EQ(a->r.n_prompt, b->r.n_prompt)
        && CHECK_EQ(a->r.stop_token, b->r.stop_token)
        && CHECK_EQ(a->r.stop_text, b->r.stop_text)
        && CHECK_EQ(a->r.n_closed, b->r.n_closed)
        && CHECK_EQ(a->r.n_thinking, b->r.n_thinking)
        && CHECK_EQ(a->n, b->n) && CHECK_EQ(a->n_tokens, b->n_tokens)
        && CHECK(!memcmp(a->tokens, b->tokens, a->n_tokens * sizeof(int32_t)))
        && CHECK_EQ(a->n_text, b->n_text)
        && CHECK(!memcmp(a->text, b->text, a->n_text < TEXT ? a->n_text : TEXT))
        && CHECK_EQ(a->pieces, b->pieces) && CHECK_EQ(a->logits, b->logits)
        && CHECK_EQ(a->n_progress, b->n_progress);
}

/* ---- requests ---- */

static const char *const schemas[] = {
    "{\"type\":\"object\",\"properties\":{\"action\":{\"enum\":[\"go\",\"stop\","
    "\"turn\"]},\"temperature\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":"
    "30}},\"required\":[\"action\"],\"additionalProperties\":false}",
    "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"open\":"
    "{\"type\":\"boolean\"},\"name\":{\"type\":\"string\",\"maxLength\":5}},"
    "\"required\":[\"name\"]},\"minItems\":1,\"maxItems\":4}",
    "{\"enum\":[\"안녕하세요\",\"아니요\",12,null,[1,2]]}",
};
enum { GRAMMARS = 3 };

/* Two sessions of a model, one without drafts, and what may draft for it. */
typedef struct pair {
    fx_file f;
    ksllm_model *m;
    ksllm_session *plain, *drafts, *same, *other;
    ksllm_grammar *g[GRAMMARS];
    uint64_t rng;
    ksllm_sampling p;
    ksllm_generation want;
    ksllm_logit_bias bias;
    ksllm_text stop;
    char prompt[200];
    uint32_t most;          /* tokens of a short answer; 0: any number */
    said a, b;
    size_t n_said, n_drafted, n_accepted;   /* tokens of the answers in talk */
} pair;

static ksllm_session *session(const ksllm_model *m, size_t n_draft,
                              ksllm_type kv, ksllm_overflow overflow)
{
    ksllm_session_options o = fx_small_options();
    o.n_ctx = CTX;
    o.n_batch = BATCH;
    o.n_draft = n_draft;
    o.kv_type = kv;
    o.overflow = overflow;
    o.n_keep = overflow ? 3 : 0;
    o.grammar_bytes = 1 << 17;
    return fx_create(m, &o);
}

/* `spec` NULL: the model in x->m. */
static void open_pair(pair *x, const fx_spec *spec, size_t n_draft,
                      ksllm_type kv, ksllm_overflow overflow)
{
    ksllm_error e;
    *x = (pair){.m = spec ? NULL : x->m, .rng = test_seed + n_draft};
    if (spec) {
        x->f = fx_model(spec);
        fx_must(ksllm_model_open_memory(x->f.data, x->f.size, NULL, &x->m, &e),
                &e);
    }
    x->plain = session(x->m, KSLLM_NO_DRAFTS, kv, overflow);
    x->drafts = session(x->m, n_draft, kv, overflow);
    x->same = session(x->m, 0, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    for (int i = 0; i < GRAMMARS; i++) {
        ksllm_grammar_options o;
        ksllm_grammar_options_init(&o);
        o.kind = KSLLM_GRAMMAR_SCHEMA;
        o.source.data = schemas[i];
        fx_must(ksllm_grammar_create(x->m, &o, &x->g[i], &e), &e);
    }
}

static void close_pair(pair *x)
{
    for (int i = 0; i < GRAMMARS; i++)
        ksllm_grammar_free(x->g[i]);
    ksllm_session_free(x->plain);
    ksllm_session_free(x->drafts);
    ksllm_session_free(x->same);
    if (x->f.data)
        fx_close(x->m, &x->f);
}

static uint32_t any(pair *x, uint32_t n) { return fx_below(&x->rng, n); }

/* Any request there is; half of them greedy, a third under a grammar. */
static void wish(pair *x)
{
    static const char *const prompts[] = {
        "abcabcabcabcab", "the cat the dog the cat the", "안녕 안녕 안", "x",
        "{\"action\": \"go\", \"temperature\": 20} {\"a",
        "The tram line connects the old station with the university. The tram "};
    ksllm_sampling_init(&x->p);
    ksllm_generation_init(&x->want);
    uint32_t kinds = x->most ? 4 : 6;       /* the last two are long */
    snprintf(x->prompt, sizeof x->prompt, "%s%s", prompts[any(x, kinds)],
             prompts[any(x, kinds)]);
    x->want.text = x->prompt;
    x->want.max_tokens = any(x, 4) ? 1 + any(x, 60) : 0;
    if (x->plain->overflow && !x->want.max_tokens)
        x->want.max_tokens = CTX;           /* it would never end */
    if (x->most && (!x->want.max_tokens || x->want.max_tokens > x->most))
        x->want.max_tokens = x->most;
    x->want.sampling = &x->p;
    x->p.temperature = any(x, 2) ? 0 : any(x, 2) ? 1 : 0.3f;
    x->p.seed = x->rng;
    x->p.top_k = any(x, 2) ? 0 : 5;
    x->p.top_p = any(x, 2) ? 0 : 0.8f;
    x->p.repeat_penalty = any(x, 3) ? 0 : 1.2f;
    x->p.penalty_window = 20;
    x->bias = (ksllm_logit_bias){(int32_t)any(x, 200), 3};
    x->p.biases = &x->bias;
    x->p.n_biases = any(x, 4) == 0;
    x->want.n_top = any(x, 3) ? 0 : 4;
    x->want.unit = (ksllm_unit)any(x, 3);
    x->want.ignore_stop = any(x, 3) == 0;
    x->stop = (ksllm_text){"ab", any(x, 2) ? 1 : 2};
    x->want.stop_texts = &x->stop;
    x->want.n_stop_texts = any(x, 6) == 0;
    if (any(x, 3) == 0) {
        x->want.grammar = x->g[any(x, GRAMMARS)];
        x->want.allowed_only = any(x, 3) == 0;
        x->want.complete = any(x, 3) > 0;
        x->want.thinking = any(x, 4) ? NULL : "ab";
        if (x->want.max_tokens)
            x->want.max_tokens += 40;
    }
    x->want.drafter = any(x, 3) ? NULL : any(x, 2) && x->other ? x->other
                                                               : x->same;
}

static bool both(pair *x, size_t stop_at, size_t cancel_at)
{
    ksllm_generation plain = x->want;
    memset(&x->a, 0, sizeof x->a);
    memset(&x->b, 0, sizeof x->b);
    x->a.stop_at = x->b.stop_at = stop_at;
    x->a.cancel_at = x->b.cancel_at = cancel_at;
    plain.drafter = NULL;
    say(x->plain, &plain, 0, &x->a);
    say(x->drafts, &x->want, 0, &x->b);
    CHECK(x->b.r.n_accepted <= x->b.r.n_drafted);
    CHECK_EQ(x->a.r.n_drafted, 0);
    return same(&x->a, &x->b);
}

/* One that counts. */
static bool answer(pair *x, size_t stop_at, size_t cancel_at)
{
    bool fine = both(x, stop_at, cancel_at);
    x->n_said += x->b.r.n_generated;
    x->n_drafted += x->b.r.n_drafted;
    x->n_accepted += x->b.r.n_accepted;
    return fine;
}

/* Answers in turn on two sessions, stopped, cancelled, gone on, rewound. */
static bool talk(pair *x, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        wish(x);
        bool fine = answer(x, any(x, 4) ? 0 : 1 + any(x, 20),
                           any(x, 4) ? 0 : 1 + any(x, 20));
        if (fine && x->a.status >= KSLLM_OK && any(x, 2)) {
            x->want.text = NULL;            /* and on */
            fine = answer(x, 0, 0);
        }
        size_t keep = x->a.n_tokens ? any(x, (uint32_t)x->a.n_tokens) : 0;
        if (keep && any(x, 2)) {
            CHECK(!ksllm_session_rewind(x->plain, keep, NULL));
            CHECK(!ksllm_session_rewind(x->drafts, keep, NULL));
            x->want.grammar = NULL;
            x->want.thinking = NULL;
            x->want.allowed_only = false;
            x->want.text = any(x, 2) ? NULL : "ab";
            x->want.append = true;
            fine = fine && answer(x, 0, 0);
        }
        if (!fine) {
            printf("round %d, '%s', grammar %d, temperature %g\n", i, x->prompt,
                   x->want.grammar != NULL, (double)x->p.temperature);
            return false;
        }
    }
    return true;
}

static const fx_spec small = {
    "small", "llama", 1, 32, 32, 2, 1, 16, 0, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_JSON, FX_SOUND};
static const fx_spec windows = {
    "windows", "gemma3", 7, 32, 32, 2, 1, 16, 24, KSLLM_TYPE_F32, true,
    FX_ROPE_PLAIN, FX_JSON, FX_SOUND};

TEST(answers_are_the_same)
{
    static const ksllm_type kv[] = {
        KSLLM_TYPE_Q8_0, KSLLM_TYPE_F16, KSLLM_TYPE_F32};
    static const size_t n_draft[] = {0, 1, 2, 7, 15};
    pair *x = fx_memory(NULL, sizeof *x);
    size_t drafted = 0, accepted = 0;
    for (int k = 0; k < 3; k++)
        for (int n = 0; n < 5; n++) {
            open_pair(x, &small, n_draft[n], kv[k],
                      n % 2 ? KSLLM_OVERFLOW_SLIDE : KSLLM_OVERFLOW_ERROR);
            talk(x, 3);
            drafted += x->n_drafted;
            accepted += x->n_accepted;
            close_pair(x);
        }
    printf("%zu drafted, %zu accepted\n", drafted, accepted);
    CHECK(accepted * 10 > drafted && drafted > accepted);
    free(x);
}

static const int32_t not_these[] = {'a', ' ', 't', 'e', '"', 256};

static void suppress(struct fx_build *b)
{
    fx_suppress(b, not_these, KS_LEN(not_these));
}

/* A prompt may hold what the file suppresses: it is not what follows. */
TEST(suppressed_tokens_are_not_drafted)
{
    pair *x = fx_memory(NULL, sizeof *x);
    fx_spec spec = small;
    gen look = {.room = 7};
    spec.more = suppress;
    open_pair(x, &spec, 7, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    for (int i = 0; i < 12; i++) {
        wish(x);
        x->want.thinking = NULL;    /* its end is put, whatever it is */
        both(x, 0, 0);
        size_t from = x->a.n_tokens - x->a.r.n_generated;
        for (size_t k = from; k < x->a.n_tokens; k++)
            for (size_t n = 0; n < KS_LEN(not_these); n++)
                CHECK(x->a.tokens[k] != not_these[n]);
    }
    ksllm_generation want;
    ksllm_generation_init(&want);
    look.s = x->drafts;
    look.g = &want;
    static const int32_t next[] = {'x', 'y', 'a', 'z'};
    memcpy(look.d.token, next, sizeof next);
    CHECK_EQ(draft_sift(&look, 4), 2);
    close_pair(x);
    free(x);
}

TEST(windows_are_the_same)
{
    pair *x = fx_memory(NULL, sizeof *x);
    size_t accepted = 0;
    for (int n = 1; n < 16; n += 7) {
        open_pair(x, &windows, (size_t)n, KSLLM_TYPE_Q8_0,
                  n % 2 ? KSLLM_OVERFLOW_SLIDE : KSLLM_OVERFLOW_ERROR);
        talk(x, 3);
        accepted += x->n_accepted;
        close_pair(x);
    }
    CHECK(accepted > 20);
    free(x);
}

/* Each architecture and type of the fixtures. */
TEST(every_model_is_the_same)
{
    size_t accepted = 0;
    for (size_t i = 0; i < FX_SPECS; i++) {
        pair *x = fx_memory(NULL, sizeof *x);
        open_pair(x, &fx_specs[i], 3, i % 2 ? KSLLM_TYPE_Q8_0 : KSLLM_TYPE_F16,
                  KSLLM_OVERFLOW_ERROR);
        x->most = (uint32_t)test_times(24 / TEST_ONE_OF + 1, 0);
        talk(x, 1);
        accepted += x->n_accepted;
        close_pair(x);
        free(x);
    }
    CHECK(accepted > 20);
}

/* ---- recurrent layers: after a wrong draft their states are computed again,
 * from what they were before the pass ---- */

int quant_main(int argc, char **argv);

static ksllm_model *recurrent_model(void)
{
    char path[] = "/tmp/ksllm-draft-XXXXXX";
    char *argv[] = {"ksllm-quant", "convert", "tests/reference/qwen3_5", "-o",
        path, "-t", "f32", "--threads", "1", "--quiet", NULL};
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    close(mkstemp(path));
    if (quant_main(10, argv))
        exit(1);
    ksllm_model_options_init(&o);
    o.in_memory = true;
    fx_must(ksllm_model_open(path, &o, &m, &e), &e);
    unlink(path);
    return m;
}

TEST(recurrent_ones_are_the_same)
{
    static const ksllm_type kv[] = {
        KSLLM_TYPE_Q8_0, KSLLM_TYPE_F16, KSLLM_TYPE_F32};
    ksllm_model *m = recurrent_model();
    pair *x = fx_memory(NULL, sizeof *x);
    size_t drafted = 0, accepted = 0;
    for (int i = 0; i < 3; i++) {
        x->m = m;
        open_pair(x, NULL, i ? 15 : 3, kv[i],
                  i == 1 ? KSLLM_OVERFLOW_SLIDE : KSLLM_OVERFLOW_ERROR);
        talk(x, 3);
        drafted += x->n_drafted;
        accepted += x->n_accepted;
        close_pair(x);
    }
    printf("%zu drafted, %zu accepted\n", drafted, accepted);
    CHECK(accepted > 10 && drafted > accepted);
    ksllm_model_close(m);
    free(x);
}

/* States that are to be kept are kept, wherever a draft ends. */
TEST(recurrent_ones_keep_the_same_states)
{
    enum { N = 40 };
    ksllm_model *m = recurrent_model();
    ksllm_session *s[2];
    static int32_t prompt[SES_STRIDE];
    uint64_t hash[2];
    uint32_t stay[2][3];
    fx_prompt(prompt, SES_STRIDE, 7);
    for (int i = 0; i < 2; i++) {
        ksllm_session_options o = fx_small_options();
        o.n_ctx = SES_STRIDE + N;
        o.n_batch = 64;
        o.n_draft = i ? 6 : KSLLM_NO_DRAFTS;
        s[i] = fx_create(m, &o);
    }
    CHECK(!ksllm_session_sync(s[0], prompt, SES_STRIDE - N / 2, NULL, NULL));
    CHECK(!ksllm_session_fork(s[0], s[1], NULL));
    for (int i = 0; i < 2; i++) {
        ksllm_result r = {.size = sizeof r};
        ksllm_generation g;
        ksllm_error e;
        ksllm_generation_init(&g);
        g.max_tokens = N;
        g.ignore_stop = true;
        CHECK_OK(ksllm_generate(s[i], &g, &r, &e), e);
        CHECK((r.n_drafted > 0) == i);
        hash[i] = fx_logits_hash(m, s[i]);
        for (uint32_t k = 0; k < 3; k++) {
            static const uint32_t to[] = {
                SES_STRIDE + N / 2 - 1, SES_STRIDE + 3, SES_STRIDE - 2};
            ksllm_session_rewind(s[i], to[k], NULL);
            stay[i][k] = s[i]->n_eval;
        }
    }
    CHECK_HEX(hash[0], hash[1]);
    CHECK_EQ(stay[0][1], SES_STRIDE);
    for (int k = 1; k < 3; k++)
        CHECK_EQ(stay[0][k], stay[1][k]);
    CHECK(stay[1][0] >= SES_STRIDE);
    ksllm_session_free(s[0]);
    ksllm_session_free(s[1]);
    ksllm_model_close(m);
}

TEST(many_tokens_are_the_same)
{
    const char *wanted = getenv("KSLLM_DRAFTS");
    const char *file = getenv("KSLLM_DRAFTS_MODEL");
    static const ksllm_type kv[] = {
        KSLLM_TYPE_Q8_0, KSLLM_TYPE_F16, KSLLM_TYPE_F32};
    size_t n = wanted ? strtoul(wanted, NULL, 10) : 1;
    size_t said = 0, drafted = 0, accepted = 0;
    uint64_t rng = test_seed;
    ksllm_model *m = NULL;
    ksllm_error e;
    pair *x = fx_memory(NULL, sizeof *x);
    if (file)
        fx_must(ksllm_model_open(file, NULL, &m, &e), &e);
    for (bool fine = true; fine && said < n;) {
        x->m = m;
        open_pair(x, file ? NULL : &fx_specs[fx_below(&rng, FX_SPECS)],
                  1 + fx_below(&rng, 15), kv[fx_below(&rng, 3)],
                  fx_below(&rng, 4) ? KSLLM_OVERFLOW_ERROR
                                    : KSLLM_OVERFLOW_SLIDE);
        x->rng = fx_next(&rng);
        x->most = wanted ? 0 : 24;
        fine = talk(x, file ? 20 : wanted ? 5 : 2);
        said += x->n_said;
        drafted += x->n_drafted;
        accepted += x->n_accepted;
        close_pair(x);
    }
    printf("%zu tokens the same, %zu drafted, %zu accepted\n", said, drafted,
           accepted);
    ksllm_model_close(m);
    free(x);
}

/* ---- the drafter ---- */

TEST(a_drafter_drafts)
{
    fx_file f;
    ksllm_model *other = fx_open("qwen3", &f);
    pair *x = fx_memory(NULL, sizeof *x);
    open_pair(x, fx_spec_of("llama"), 3, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    x->other = session(other, 0, KSLLM_TYPE_F16, KSLLM_OVERFLOW_ERROR);
    talk(x, 4);
    /* The model itself is always right where it is greedy. */
    ksllm_generation_init(&x->want);
    x->want.text = "drafts of the same model";
    x->want.drafter = x->same;
    x->want.ignore_stop = true;
    x->want.max_tokens = 81;
    x->drafts->drafts.trust[DRAFT_MODEL] = 1;
    for (int i = DRAFT_SHORTEST; i <= DRAFT_LONGEST; i++)
        x->drafts->drafts.trust[i] = 0.1f;
    CHECK(both(x, 0, 0));
    CHECK_EQ(x->b.r.n_accepted, x->b.r.n_drafted);
    CHECK(x->b.r.n_accepted >= 60);
    CHECK_EQ(x->drafts->busy, 0);
    CHECK_EQ(x->same->busy, 0);
    ksllm_session_free(x->other);
    x->other = NULL;
    close_pair(x);
    free(x);
    fx_close(other, &f);
}

TEST(drafters_that_are_refused)
{
    fx_file f, g;
    ksllm_model *m = fx_open("llama", &f), *other = fx_open("spm", &g);
    ksllm_session *s = session(m, 0, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    ksllm_session *none = session(m, KSLLM_NO_DRAFTS, KSLLM_TYPE_Q8_0,
                                  KSLLM_OVERFLOW_ERROR);
    ksllm_session *d = session(other, 0, KSLLM_TYPE_Q8_0,
                               KSLLM_OVERFLOW_ERROR);
    ksllm_generation want;
    ksllm_error e;
    ksllm_generation_init(&want);
    want.text = "a";
    want.max_tokens = 5;
    want.drafter = d;
    CHECK_EQ(ksllm_generate(s, &want, NULL, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "vocabulary: its token ") != NULL);
    want.drafter = s;
    CHECK_EQ(ksllm_generate(s, &want, NULL, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "the session itself") != NULL);
    want.drafter = s;
    CHECK_EQ(ksllm_generate(none, &want, NULL, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "without memory for drafts") != NULL);
    want.drafts = false;                    /* then nobody is asked */
    CHECK_OK(ksllm_generate(none, &want, NULL, &e), e);
    want.drafts = true;
    want.drafter = none;
    none->busy = -1;
    CHECK_EQ(ksllm_generate(s, &want, NULL, &e), KSLLM_ERR_STATE);
    none->busy = 0;
    CHECK_OK(ksllm_generate(s, &want, NULL, &e), e);
    CHECK_EQ(none->busy, 0);
    CHECK_EQ(s->busy, 0);
    CHECK_EQ(d->busy, 0);
    ksllm_session_free(s);
    ksllm_session_free(d);
    ksllm_session_free(none);
    fx_close(m, &f);
    fx_close(other, &g);
}

/* ---- stopped at any time ---- */

static void stopped_anywhere(ksllm_model *m, const fx_spec *spec, int rounds)
{
    pair *x = fx_memory(NULL, sizeof *x);
    size_t late = 0;
    x->m = m;
    open_pair(x, spec, 7, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    for (int i = 0; i < rounds; i++) {
        wish(x);
        x->want.grammar = NULL;             /* which would close by the clock */
        x->want.thinking = NULL;
        x->want.allowed_only = false;
        x->want.max_tokens = 60;
        x->want.n_stop_texts = 0;
        x->want.unit = KSLLM_UNIT_CHARACTER;
        ksllm_generation plain = x->want;
        plain.drafter = NULL;
        memset(&x->a, 0, sizeof x->a);
        memset(&x->b, 0, sizeof x->b);
        say(x->plain, &plain, 0, &x->a);
        say(x->drafts, &x->want, 1 + any(x, 4000), &x->b);
        late += x->b.status == KSLLM_ERR_DEADLINE;
        size_t n = x->b.r.n_generated;
        for (int k = 0; x->b.status == KSLLM_ERR_DEADLINE && k < 1000; k++) {
            if (x->b.n_tokens > x->a.n_tokens || memcmp(x->a.tokens,
                    x->b.tokens, x->b.n_tokens * sizeof(int32_t)))
                break;
            memset(&x->b, 0, sizeof x->b);
            if (n)
                x->want.text = NULL;
            x->want.max_tokens = 60 - (uint32_t)n;
            if (n == 60)
                break;
            say(x->drafts, &x->want, k < 3 ? 1 + any(x, 4000) : 0, &x->b);
            n += x->b.r.n_generated;
        }
        CHECK_EQ(n, x->a.r.n_generated);
        if (n < 60 && !(CHECK_EQ(x->a.n_tokens, x->b.n_tokens)
                && CHECK(!memcmp(x->a.tokens, x->b.tokens,
                    x->a.n_tokens * sizeof(int32_t)))))
            break;
    }
    CHECK(late > (size_t)rounds / 6);
    close_pair(x);
    free(x);
}

TEST(stopped_anywhere_it_goes_on_the_same)
{
    stopped_anywhere(NULL, &windows, 12);
}

TEST(stopped_anywhere_recurrent_ones_go_on_the_same)
{
    ksllm_model *m = recurrent_model();
    stopped_anywhere(m, NULL, 3);
    ksllm_model_close(m);
}

/* ---- what is left ---- */

static void saved_and_forked(ksllm_model *m, const fx_spec *spec, int rounds)
{
    pair *x = fx_memory(NULL, sizeof *x);
    x->m = m;
    open_pair(x, spec, 7, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    ksllm_session *fork = session(x->m, KSLLM_NO_DRAFTS, KSLLM_TYPE_Q8_0,
                                  KSLLM_OVERFLOW_ERROR);
    for (int i = 0; i < rounds; i++) {
        st_memory a, b;
        memset(&a, 0, sizeof a);
        memset(&b, 0, sizeof b);
        wish(x);
        if (!both(x, 0, 0))
            break;
        if (x->a.n_tokens) {
            CHECK(!ksllm_session_save(x->plain, 0, st_memory_write, &a, NULL,
                                      NULL, NULL));
            CHECK(!ksllm_session_save(x->drafts, 0, st_memory_write, &b, NULL,
                                      NULL, NULL));
            CHECK_EQ(a.b.size, b.b.size);
            CHECK(!memcmp(a.b.data, b.b.data, a.b.size));
        }
        free(a.b.data);
        free(b.b.data);
        /* The fork has no room for drafts and goes on all the same. */
        CHECK(!ksllm_session_fork(x->drafts, fork, NULL));
        x->want.text = "ab";
        x->want.append = true;
        x->want.grammar = NULL;
        x->want.thinking = NULL;
        x->want.allowed_only = false;
        x->want.drafter = NULL;
        memset(&x->a, 0, sizeof x->a);
        memset(&x->b, 0, sizeof x->b);
        say(fork, &x->want, 0, &x->a);
        say(x->drafts, &x->want, 0, &x->b);
        same(&x->a, &x->b);
    }
    ksllm_session_free(fork);
    close_pair(x);
    free(x);
}

TEST(saved_and_forked_like_plain_ones)
{
    ksllm_model *m = recurrent_model();
    saved_and_forked(NULL, &small, 8);
    saved_and_forked(m, NULL, 2);
    ksllm_model_close(m);
}

/* ---- memory ---- */

TEST(memory_is_planned)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    size_t n_vocab = fx_n_vocab(m);
    ksllm_session_options o = fx_small_options();
    ksllm_memory none = {.size = sizeof none}, some = none;
    ksllm_error e;
    o.n_draft = KSLLM_NO_DRAFTS;
    CHECK_OK(ksllm_session_memory(m, &o, &none, &e), e);
    for (o.n_draft = 1; o.n_draft <= 15; o.n_draft++) {
        CHECK_OK(ksllm_session_memory(m, &o, &some, &e), e);
        size_t rows = (o.n_draft + 1) * n_vocab * sizeof(float);
        CHECK_EQ(some.output - none.output, (rows + 63) / 64 * 64);
    }
    CHECK_EQ(ksllm_session_memory(m, &o, &some, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "n_draft") != NULL);
    o.n_draft = 15;
    o.n_batch = 1;                          /* a pass is a batch */
    CHECK_OK(ksllm_session_memory(m, &o, &some, &e), e);
    o.n_draft = KSLLM_NO_DRAFTS;
    CHECK_OK(ksllm_session_memory(m, &o, &none, &e), e);
    CHECK_EQ(some.total, none.total);
    fx_close(m, &f);
}

TEST(nothing_is_allocated)
{
    fx_file f;
    fx_alloc a, b;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_session *s = NULL, *d = NULL;
    ksllm_generation want;
    ksllm_error e;
    fx_alloc_init(&a);
    fx_alloc_init(&b);
    o.allocator = &a.allocator;
    o.n_draft = 7;
    for (long k = 1; !s; k++) {
        a.fail_at = a.calls + k;
        ksllm_status status = ksllm_session_create(m, &o, &s, &e);
        if (k == 1)
            CHECK_EQ(status, KSLLM_ERR_MEMORY);
        CHECK(s || a.n_live == 0);
        if (k > 3)
            break;
    }
    o.allocator = &b.allocator;
    fx_must(ksllm_session_create(m, &o, &d, &e), &e);
    long calls = a.calls + b.calls;
    ksllm_generation_init(&want);
    want.text = "abababab";
    want.max_tokens = 40;
    want.ignore_stop = true;
    ksllm_result r = {.size = sizeof r};
    for (int i = 0; i < 2; i++) {
        want.drafter = i ? d : NULL;
        CHECK_OK(ksllm_generate(s, &want, &r, &e), e);
        CHECK(r.n_drafted > 0);
    }
    CHECK_EQ(a.calls + b.calls, calls);
    ksllm_session_free(s);
    ksllm_session_free(d);
    CHECK(a.n_live + b.n_live == 0 && !a.wrong_size && !b.wrong_size);
    fx_close(m, &f);
}

/* ---- parts ---- */

TEST(what_follows_is_looked_up)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_session *s = session(m, 7, KSLLM_TYPE_Q8_0, KSLLM_OVERFLOW_ERROR);
    gen x = {.s = s};
    static const struct {
        int n;
        int32_t tokens[12];
        uint32_t found, run;
        int32_t out[4];
    } cases[] = {
        {1, {1}, 0, 0, {0}},
        {2, {1, 1}, 0, 0, {0}},
        {3, {1, 1, 1}, 4, 2, {1, 1, 1, 1}},
        {4, {1, 2, 1, 2}, 4, 2, {1, 2, 1, 2}},
        {5, {1, 2, 1, 2, 1}, 4, 3, {2, 1, 2, 1}},
        {6, {1, 2, 3, 4, 1, 2}, 4, 2, {3, 4, 1, 2}},
        {6, {1, 2, 1, 2, 1, 2}, 4, 4, {1, 2, 1, 2}},
        {9, {5, 1, 2, 9, 1, 2, 8, 1, 2}, 4, 2, {8, 1, 2, 8}},
        {10, {5, 1, 2, 9, 7, 1, 2, 5, 1, 2}, 4, 3, {9, 7, 1, 2}},
    };
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        s->n_tokens = (uint32_t)cases[i].n;
        memcpy(s->tokens, cases[i].tokens, sizeof cases[i].tokens);
        if (!CHECK_EQ(draft_look_up(&x, 4), cases[i].found))
            printf("case %d\n", (int)i);
        for (uint32_t k = 0; k < cases[i].found; k++) {
            CHECK_EQ(x.d.token[k], cases[i].out[k]);
            CHECK_EQ(x.d.kind[k], cases[i].run + k < 8 ? cases[i].run + k : 8);
        }
    }
    s->n_tokens = 0;
    ksllm_session_free(s);
    fx_close(m, &f);
}

TEST(as_many_are_tried_as_pay)
{
    static const u8 kinds[] = {2, 3, 4, 5, 6, 7, 8};
    ses_drafts c;
    memset(&c, 0, sizeof c);
    for (int i = 0; i < SES_TRUSTS; i++)
        c.trust[i] = 1;
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 0);  /* nothing is known */
    c.cost[0] = 100;
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 7);
    CHECK_EQ(draft_length(&c, kinds, 3, false, 0), 3);
    CHECK_EQ(draft_length(&c, kinds, 0, false, 0), 0);
    for (int i = 1; i < 8; i++)
        c.cost[i] = 100.0f + 50 * (float)i;             /* 4 tokens: 2.5 */
    for (int i = 0; i < SES_TRUSTS; i++)
        c.trust[i] = 0.4f;
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 0);
    c.trust[2] = 0.6f;                                  /* too little */
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 0);
    c.trust[2] = 0.7f;
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 1);
    c.trust[3] = 0.95f;
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 2);
    CHECK_EQ(draft_length(&c, kinds, 7, false, 50), 0); /* and their making */
    c.few = 70;                                         /* to beat */
    CHECK_EQ(draft_length(&c, kinds, 7, true, 0), 0);
    CHECK_EQ(draft_length(&c, kinds, 7, false, 0), 2);
    f32 mean = 0;
    draft_note(&mean, 100);
    CHECK_EQ((int)mean, 100);
    draft_note(&mean, 1e9f);                            /* a hiccup */
    CHECK((int)mean > 100 && (int)mean < 120);
}

TEST_MAIN
