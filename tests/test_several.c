/* test_several.c - several sessions in one call: each gets what it gets alone,
 * bit for bit, whatever the others do, and no heap call.
 *
 * Every session has a twin that makes the same calls alone.
 */
#include "test.h"
#include "fixture.h"

enum { MOST = KSLLM_MAX_SESSIONS, CTX = 100, TEXT = 4096 };

/* What a call is asked for, and what came. */
typedef struct ask {
    ksllm_generation g;
    bool chats;
    ksllm_chat chat;
    ksllm_sampling p;
    ksllm_control c;
    ksllm_cancel cancel;
    int32_t tokens[CTX];
    size_t n;
    size_t cancel_at, stop_at;
    ksllm_status status;
    ksllm_result r;
    ksllm_error e;
    size_t n_pieces, n_text, n_parts[KSLLM_PART_MESSAGE + 1];
    uint64_t pieces;            /* and of the parts */
    char text[TEXT];
} ask;

static int on_piece(void *ctx, const ksllm_piece *p)
{
    ask *x = ctx;
    x->pieces = fx_hash_piece(x->pieces, p);
    if (x->n_text + p->text.size < TEXT)
        memcpy(x->text + x->n_text, p->text.data, p->text.size);
    x->n_text += p->text.size;
    if (++x->n_pieces == x->cancel_at)
        ksllm_cancel_set(&x->cancel);
    return x->n_pieces == x->stop_at;
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    ask *x = ctx;
    x->pieces = fx_hash(x->pieces ^ part, text.data, text.size);
    x->n_parts[part]++;
    return 0;
}

static void on_progress(void *ctx, size_t n_done, size_t n_total)
{
    (void)ctx;
    CHECK(n_done <= n_total);
}

enum { GRAMMARS = 3, CALLS = 2 };    /* the last is for chats alone */

typedef struct group {
    fx_file f;
    ksllm_model *m;
    ksllm_session *s[MOST], *twin[MOST];
    ksllm_grammar *g[GRAMMARS];
    fx_alloc heap;
    ask a[MOST], b[MOST];       /* alone and together */
    uint64_t rng;
} group;

static uint32_t any(group *x, uint32_t n) { return fx_below(&x->rng, n); }

/* Sessions that differ in all that they may differ in. */
static ksllm_session_options options(group *x, ksllm_type kv)
{
    ksllm_session_options o = fx_small_options();
    o.n_ctx = CTX - any(x, 30);
    o.n_batch = MOST + any(x, 30);
    o.n_threads = 1 + any(x, 3);
    o.kv_type = kv;
    o.pooling = (ksllm_pooling)(any(x, 2) ? any(x, 3) : 0);
    o.overflow = any(x, 4) ? KSLLM_OVERFLOW_ERROR : KSLLM_OVERFLOW_SLIDE;
    o.n_keep = o.overflow ? any(x, 9) : 0;
    o.grammar_bytes = 1 << 17;
    o.allocator = &x->heap.allocator;
    return o;
}

static group *open_group(const char *name, ksllm_type kv)
{
    static const char *const sources[GRAMMARS] = {
        "{\"type\":\"object\",\"properties\":{\"go\":{\"enum\":[\"on\",\"off\"]"
        "},\"n\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":30}},"
        "\"required\":[\"go\"]}",
        "(ab|c){1,9}d?",
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"};
    static const ksllm_grammar_kind kinds[GRAMMARS] = {
        KSLLM_GRAMMAR_SCHEMA, KSLLM_GRAMMAR_REGEX, KSLLM_GRAMMAR_TOOLS};
    group *x = fx_memory(NULL, sizeof *x);
    ksllm_error e;
    memset(x, 0, sizeof *x);
    x->rng = test_seed + (uint64_t)kv;
    fx_alloc_init(&x->heap);
    x->m = fx_open(name, &x->f);
    for (int i = 0; i < MOST; i++) {
        ksllm_session_options o = options(x, kv);
        x->s[i] = fx_create(x->m, &o);
        o.n_batch = 1 + any(x, 40);
        o.n_threads = 1;
        x->twin[i] = fx_create(x->m, &o);
    }
    for (int i = 0; i < GRAMMARS; i++) {
        ksllm_grammar_options o;
        ksllm_grammar_options_init(&o);
        o.kind = kinds[i];
        o.format = i == CALLS ? "json" : NULL;
        o.calls = KSLLM_CALLS_REQUIRED;
        o.source.data = sources[i];
        fx_must(ksllm_grammar_create(x->m, &o, &x->g[i], &e), &e);
    }
    return x;
}

static void close_group(group *x)
{
    for (int i = 0; i < MOST; i++) {
        ksllm_session_free(x->s[i]);
        ksllm_session_free(x->twin[i]);
    }
    for (int i = 0; i < GRAMMARS; i++)
        ksllm_grammar_free(x->g[i]);
    CHECK(!x->heap.n_live && !x->heap.wrong_size);
    fx_close(x->m, &x->f);
    free(x);
}

/* Any request there is. */
static void wish(group *x, ask *a)
{
    static const ksllm_text stop = {"a", 1};
    static const char *const texts[] = {"abcabcab", "안녕 안녕", "x {\"go\""};
    memset(a, 0, sizeof *a);
    a->pieces = FX_HASH;
    a->r.size = sizeof a->r;
    ksllm_sampling_init(&a->p);
    ksllm_control_init(&a->c);
    ksllm_generation_init(&a->g);
    a->n = 1 + any(x, any(x, 3) ? 6 : 60);
    fx_prompt(a->tokens, a->n, x->rng++);
    a->p.temperature = any(x, 2) ? 0 : 0.9f;
    a->p.top_k = any(x, 2) ? 0 : 7;
    a->p.repeat_penalty = any(x, 3) ? 0 : 1.2f;
    a->p.seed = x->rng;
    a->c.max_tokens_per_second = any(x, 6) ? 0 : 3000;
    a->g.max_tokens = 1 + any(x, 24);
    a->g.ignore_stop = any(x, 2);
    a->g.n_top = any(x, 3);
    a->g.append = any(x, 2);
    a->g.unit = (ksllm_unit)any(x, 3);
    a->g.n_stop_texts = any(x, 4) == 0;
    a->g.stop_texts = &stop;
    a->stop_at = any(x, 6) ? 0 : 1 + any(x, 9);
    uint32_t prompt = any(x, 5);
    if (prompt < 2)
        a->g.text = texts[any(x, 3)];
    else if (prompt < 4)
        a->g.n_tokens = a->n;
    a->g.grammar = any(x, 3) ? NULL : x->g[any(x, CALLS)];
    a->g.allowed_only = a->g.grammar && any(x, 2);
}

/* A turn of a chat, one in two of which begins in thinking. */
static void wish_turn(group *x, ask *a)
{
    static const char *const messages[] = {
        "[{\"role\": \"user\", \"content\": \"a b\"}]",
        "[{\"role\": \"user\", \"content\": \"안녕\"}]"};
    wish(x, a);
    a->chats = true;
    a->g.text = NULL;
    a->g.n_tokens = 0;
    a->g.append = false;
    a->g.max_tokens = 60;
    a->g.max_thinking = any(x, 2) ? 0 : 1 + any(x, 5);
    a->g.grammar = any(x, 2) ? NULL : x->g[any(x, GRAMMARS)];
    a->g.allowed_only = a->g.grammar && any(x, 2);
    ksllm_chat_init(&a->chat);
    a->chat.messages.data = messages[any(x, 2)];
    a->chat.template_text.data = any(x, 2)
        ? "{{ messages[0].content }}:<think>\n" : "{{ messages[0].content }}:";
    a->chat.format = "json";
}

/* A copy of a request that points into itself. */
static void settle(ask *a, const ask *from)
{
    *a = *from;
    a->c.cancel = &a->cancel;
    a->c.on_progress = on_progress;
    a->g.sampling = &a->p;
    a->g.control = &a->c;
    a->g.on_piece = on_piece;
    a->g.piece_ctx = a;
    a->g.tokens = a->g.n_tokens ? a->tokens : NULL;
}

static ksllm_member member(ksllm_session *s, ask *a)
{
    return (ksllm_member){.session = s, .tokens = a->tokens,
        .n_tokens = a->n, .control = &a->c, .generation = &a->g,
        .result = &a->r, .err = &a->e, .chat = a->chats ? &a->chat : NULL,
        .on_part = on_part, .part_ctx = a};
}

static void answer_alone(ksllm_session *s, ask *a)
{
    a->status = a->chats
        ? ksllm_chat_generate(s, &a->chat, &a->g, on_part, a, &a->r, &a->e)
        : ksllm_generate(s, &a->g, &a->r, &a->e);
}

static bool same_session(group *x, int i)
{
    size_t n, k;
    const int32_t *a = ksllm_session_tokens(x->twin[i], &n);
    const int32_t *b = ksllm_session_tokens(x->s[i], &k);
    const float *p = ksllm_session_embedding(x->twin[i]);
    const float *q = ksllm_session_embedding(x->s[i]);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(x->m, &info, NULL);
    return CHECK_EQ(n, k) && CHECK(!memcmp(a, b, n * sizeof *a))
        && CHECK_HEX(fx_logits_hash(x->m, x->twin[i]),
                     fx_logits_hash(x->m, x->s[i]))
        && CHECK(!p == !q)
        && CHECK(!p || !memcmp(p, q, info.n_embd * sizeof *p));
}

static bool same_answer(const ask *a, const ask *b)
{
    return CHECK_EQ(a->status, b->status) && CHECK_EQ(a->r.stop, b->r.stop)
        && CHECK_EQ(a->r.n_generated, b->r.n_generated)
        && CHECK_EQ(a->r.n_prompt, b->r.n_prompt)
        && CHECK_EQ(a->r.n_closed, b->r.n_closed)
        && CHECK_EQ(a->r.n_thinking, b->r.n_thinking)
        && CHECK_EQ(a->r.stop_token, b->r.stop_token)
        && CHECK_EQ(a->r.stop_text, b->r.stop_text)
        && CHECK_EQ(a->n_pieces, b->n_pieces)
        && CHECK(!memcmp(a->n_parts, b->n_parts, sizeof a->n_parts))
        && CHECK_EQ(a->n_text, b->n_text) && CHECK_HEX(a->pieces, b->pieces)
        && CHECK(!memcmp(a->text, b->text, a->n_text < TEXT ? a->n_text : TEXT))
        /* the counts that follow are those of a pass, drafts included */
        && (!a->status || CHECK(!strncmp(a->e.text, b->e.text, 9)));
}

/* One call of n sessions, from number `from` on, and those of their twins. */
static bool once(group *x, uint32_t from, uint32_t n, bool generates)
{
    ksllm_member m[MOST];
    ksllm_error e;
    ksllm_status first = KSLLM_OK;
    bool ok = true;
    for (uint32_t i = 0; i < n; i++) {
        ask a = x->a[i];
        settle(&x->a[i], &a);
        settle(&x->b[i], &a);
        m[i] = member(x->s[(from + i) % MOST], &x->b[i]);
    }
    long calls = x->heap.calls;
    ksllm_status status = generates ? ksllm_sessions_generate(m, n, &e)
                                    : ksllm_sessions_append(m, n, &e);
    CHECK_EQ(x->heap.calls, calls);
    for (uint32_t i = 0; i < n && ok; i++) {
        ask *a = &x->a[i], *b = &x->b[i];
        int k = (int)((from + i) % MOST);
        b->status = m[i].status;
        if (generates)
            answer_alone(x->twin[k], a);
        else
            a->status = ksllm_session_append(x->twin[k], a->tokens, a->n, &a->c,
                                             &a->e);
        first = first ? first : a->status;
        ok = same_answer(a, b) && same_session(x, k);
    }
    CHECK_EQ(status, first);
    return ok;
}

/* ---- the same bits ---- */

static void same_bits(const char *name, ksllm_type kv)
{
    static const uint32_t sizes[] = {1, 2, 4, 8};
    group *x = open_group(name, kv);
    for (int i = 0; i < 8; i++) {
        uint32_t n = sizes[any(x, 4)], from = any(x, MOST);
        bool generates = any(x, 3);
        for (uint32_t k = 0; k < n; k++)
            wish(x, &x->a[k]);
        if (!once(x, from, n, generates)) {
            printf("%s, call %d of %u\n", name, i, (unsigned)n);
            break;
        }
    }
    close_group(x);
}

TEST(as_alone_float) { same_bits("llama", KSLLM_TYPE_F32); }
TEST(as_alone_half) { same_bits("qwen3", KSLLM_TYPE_F16); }
TEST(as_alone_int8) { same_bits("mixed", KSLLM_TYPE_Q8_0); }
TEST(as_alone_with_windows) { same_bits("window", KSLLM_TYPE_Q8_0); }
TEST(as_alone_with_windows_float) { same_bits("gemma3", KSLLM_TYPE_F32); }

/* ---- turns of chats ---- */

TEST(turns_as_alone)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    size_t seen[KSLLM_PART_MESSAGE + 1] = {0}, forced = 0;
    for (int i = 0; i < 12; i++) {
        uint32_t n = 1 + any(x, 4);
        for (uint32_t k = 0; k < n; k++)
            (any(x, 4) ? wish_turn : wish)(x, &x->a[k]);
        x->a[any(x, n)].cancel_at = any(x, 3) ? 0 : 1 + any(x, 6);
        if (!once(x, any(x, MOST), n, true))
            break;
        for (uint32_t k = 0; k < n; k++) {
            for (int p = 0; p <= KSLLM_PART_MESSAGE; p++)
                seen[p] += x->b[k].n_parts[p];
            forced += x->b[k].g.max_thinking && x->b[k].n_parts[0];
        }
    }
    for (int p = 0; p <= KSLLM_PART_MESSAGE; p++)
        if (!CHECK(seen[p] > 0))
            printf("no part %d\n", p);
    CHECK(forced > 0);
    close_group(x);
}

/* Questions to one session, which come when they come. */
enum { QUEUE = 4 };
typedef struct queue {
    group *x;
    ask a[QUEUE], b[QUEUE];
    int at;
    bool runs;
} queue;

static bool next_ask(void *ctx, ksllm_member *m)
{
    queue *q = ctx;
    if (q->runs)
        q->b[q->at++].status = m->status;
    q->runs = q->at < QUEUE && any(q->x, 4) == 0;
    if (!q->runs)
        return false;
    ask *b = &q->b[q->at];
    settle(b, &q->a[q->at]);
    m->chat = b->chats ? &b->chat : NULL;
    m->generation = &b->g;
    m->result = &b->r;
    m->err = &b->e;
    m->on_part = on_part;
    m->part_ctx = b;
    return true;
}

TEST(answers_that_join)
{
    enum { N = 3 };
    group *x = open_group("window", KSLLM_TYPE_Q8_0);
    queue *q = fx_memory(NULL, N * sizeof *q);
    ksllm_member m[N];
    bool more = true;
    memset(q, 0, N * sizeof *q);
    memset(m, 0, sizeof m);
    for (int i = 0; i < N; i++) {
        q[i].x = x;
        for (int k = 0; k < QUEUE; k++) {
            (any(x, 2) ? wish_turn : wish)(x, &q[i].a[k]);
            q[i].a[k].cancel_at = any(x, 6) ? 0 : 1 + any(x, 6);
        }
        q[i].a[1].g.max_tokens = 0;
        q[i].a[1].g.n_top = KSLLM_MAX_TOP + 1;      /* one is refused */
        m[i] = (ksllm_member){.session = x->s[i], .next = next_ask,
                              .next_ctx = &q[i]};
    }
    long calls = x->heap.calls;
    for (int round = 0; more && round < 1000; round++) {
        ksllm_sessions_generate(m, N, NULL);
        more = false;
        for (int i = 0; i < N; i++)
            more = more || q[i].at < QUEUE;
    }
    CHECK(!more);
    CHECK_EQ(x->heap.calls, calls);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < QUEUE; k++) {
            ask a = q[i].a[k];
            settle(&q[i].a[k], &a);
            answer_alone(x->twin[i], &q[i].a[k]);
            if (k == 1)
                CHECK_EQ(q[i].b[k].status, KSLLM_ERR_ARGUMENT);
            if (!same_answer(&q[i].a[k], &q[i].b[k])
                    || (k == QUEUE - 1 && !same_session(x, i)))
                printf("session %d, question %d\n", i, k);
        }
    free(q);
    close_group(x);
}

/* Rendering takes memory, which may fail: the others do not notice. */
TEST(memory_of_turns)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    fx_alloc heap;
    ksllm_member m[2];
    ksllm_error e;
    int failed = 0;
    for (long k = 1; k < 100; k++) {
        fx_alloc_init(&heap);
        heap.fail_at = k;
        x->rng = 5;
        for (int i = 0; i < 2; i++) {
            ask a;
            wish_turn(x, &a);
            a.chat.allocator = i ? NULL : &heap.allocator;
            settle(&x->a[i], &a);
            settle(&x->b[i], &a);
            m[i] = member(x->s[i], &x->b[i]);
        }
        ksllm_status status = ksllm_sessions_generate(m, 2, &e);
        CHECK_EQ(heap.n_live, 0);
        CHECK_EQ(status, m[0].status);
        answer_alone(x->twin[1], &x->a[1]);
        x->b[1].status = m[1].status;
        if (!same_answer(&x->a[1], &x->b[1]) || !status)
            break;
        CHECK_EQ(status, KSLLM_ERR_MEMORY);
        failed++;
    }
    CHECK(failed > 0 && failed < 99);
    close_group(x);
}

/* ---- one is stopped ---- */

TEST(one_is_cancelled_at_a_token)
{
    group *x = open_group("window", KSLLM_TYPE_Q8_0);
    int stopped = 0;
    for (int i = 0; i < 12; i++) {
        uint32_t n = 2 + any(x, 4);
        for (uint32_t k = 0; k < n; k++)
            wish(x, &x->a[k]);
        x->a[any(x, n)].cancel_at = 1 + any(x, 6);
        if (!once(x, any(x, MOST), n, true))
            break;
        for (uint32_t k = 0; k < n; k++)
            stopped += x->b[k].r.stop == KSLLM_STOP_CANCELLED;
    }
    CHECK(stopped > 2);
    close_group(x);
}

/* The others go on; it goes on later, to what it would have been. */
TEST(one_is_out_of_time)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    int late = 0;
    for (int i = 0; i < 30; i++) {
        ksllm_member m[3];
        ksllm_error e;
        for (int k = 0; k < 3; k++) {
            ask a;
            wish(x, &a);
            a.g.append = false;
            a.stop_at = a.c.max_tokens_per_second = 0;
            a.g.grammar = NULL;
            a.g.allowed_only = false;
            a.g.text = NULL;
            a.g.n_tokens = a.n;
            a.g.n_stop_texts = 0;
            a.p.repeat_penalty = 0;
            settle(&x->a[k], &a);
            settle(&x->b[k], &a);
            x->a[k].status =
                ksllm_generate(x->twin[k], &x->a[k].g, &x->a[k].r, &e);
            m[k] = member(x->s[k], &x->b[k]);
        }
        /* where it began does not depend on the call before */
        x->b[1].c.budget_us = i ? 1 + any(x, 20000) : 1;
        ksllm_status status = ksllm_sessions_generate(m, 3, &e);
        for (int k = 0; k < 3; k += 2) {
            x->b[k].status = m[k].status;
            same_answer(&x->a[k], &x->b[k]);
            same_session(x, k);
        }
        if (m[1].status) {
            late++;
            CHECK_EQ(status, KSLLM_ERR_DEADLINE);
            CHECK_EQ(m[1].status, KSLLM_ERR_DEADLINE);
            CHECK_EQ(x->b[1].r.stop, KSLLM_STOP_DEADLINE);
            CHECK(strstr(x->b[1].e.text, "out of time") != NULL);
        }
        size_t n, all;
        const int32_t *want = ksllm_session_tokens(x->twin[1], &all);
        const int32_t *got = ksllm_session_tokens(x->s[1], &n);
        if (!CHECK(n <= all) || !CHECK(!memcmp(got, want, n * sizeof *got)))
            break;
        CHECK_OK(ksllm_session_sync(x->s[1], want, all, NULL, &e), e);
        CHECK_OK(ksllm_session_sync(x->twin[1], want, all, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(x->m, x->s[1]),
                  fx_logits_hash(x->m, x->twin[1]));
    }
    CHECK(late > 1);
    close_group(x);
}

/* Sets a cancel in the middle of a pass: at piece number `at`. */
typedef struct spoiler {
    ksllm_cancel *cancel;
    long seen, at;
} spoiler;

static void lent(void *ctx, uint32_t n, ksllm_task task, void *arg)
{
    spoiler *x = ctx;
    for (uint32_t i = 0; i < n; i++) {
        if (x->seen++ == x->at)
            ksllm_cancel_set(x->cancel);
        task(arg, i);
    }
}

/* The pass is done again without it; nothing counts twice. */
static void stopped_within_a_pass(const char *name, ksllm_pooling pooling)
{
    enum { N = 3, LONG = 50 };
    fx_file f;
    ksllm_model *m = fx_open(name, &f);
    ksllm_cancel cancel = {0};
    spoiler spoil = {&cancel, 0, -1};
    ksllm_session *s[N], *alone[N];
    ksllm_control control;
    ksllm_error e;
    int32_t tokens[N][LONG];
    uint64_t rng = 7;
    int early = 0, late = 0;
    ksllm_control_init(&control);
    control.cancel = &cancel;
    for (int i = 0; i < N; i++) {
        ksllm_session_options o = fx_small_options();
        o.n_batch = 20;
        o.pooling = pooling;
        alone[i] = fx_create(m, &o);
        o.parallel_for = lent;
        o.parallel_ctx = &spoil;
        o.n_threads = 2;
        s[i] = fx_create(m, &o);
        fx_prompt(tokens[i], LONG, (uint64_t)i + 1);
        CHECK_OK(ksllm_session_append(alone[i], tokens[i], LONG, NULL, &e), e);
    }
    for (long at = 0; !late; at += 1 + fx_below(&rng, TEST_ONE_OF * 300)) {
        ksllm_member all[N];
        memset(all, 0, sizeof all);
        for (int i = 0; i < N; i++) {
            ksllm_session_rewind(s[i], 0, NULL);
            all[i].session = s[i];
            all[i].tokens = tokens[i];
            all[i].n_tokens = LONG;
            all[i].control = i == 1 ? &control : NULL;
        }
        ksllm_cancel_clear(&cancel);
        spoil.seen = 0;
        spoil.at = at;
        ksllm_status status = ksllm_sessions_append(all, N, &e);
        CHECK_EQ(status, all[1].status);
        CHECK_EQ(all[0].status | all[2].status, 0);
        early += status != 0;
        late += status == 0;
        if (status) {
            CHECK_EQ(status, KSLLM_ERR_CANCELLED);
            CHECK(strstr(e.text, "cancelled with") != NULL);
            spoil.at = -1;
            CHECK_OK(ksllm_session_sync(s[1], tokens[1], LONG, NULL, &e), e);
        }
        for (int i = 0; i < N; i++) {
            const float *p = ksllm_session_embedding(alone[i]);
            const float *q = ksllm_session_embedding(s[i]);
            CHECK_HEX(fx_logits_hash(m, s[i]), fx_logits_hash(m, alone[i]));
            /* of the last call: that was another one where it was stopped */
            CHECK(!p || (i == 1 && status) || (q && p[0] == q[0]));
        }
    }
    CHECK(early > (TEST_ONE_OF > 1 ? 0 : 3));
    for (int i = 0; i < N; i++) {
        ksllm_session_free(s[i]);
        ksllm_session_free(alone[i]);
    }
    fx_close(m, &f);
}

TEST(stopped_within_a_pass_of_windows)
{
    stopped_within_a_pass("window", KSLLM_POOLING_NONE);
}

TEST(stopped_within_a_pass_that_is_pooled)
{
    stopped_within_a_pass("llama", KSLLM_POOLING_MEAN);
    stopped_within_a_pass("llama", KSLLM_POOLING_LAST);
}

/* One that waits for its next token's time does not hold up the others. */
TEST(a_slow_one_waits_alone)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    ksllm_member m[2];
    ksllm_error e;
    for (int i = 0; i < 2; i++) {
        ask a;
        wish(x, &a);
        a.c.max_tokens_per_second = i ? 0 : 2;
        a.g.text = NULL;
        a.g.n_tokens = a.n = 4;
        a.stop_at = a.g.n_stop_texts = 0;
        a.g.max_tokens = i ? 20 : 3;
        a.g.ignore_stop = true;
        a.g.grammar = NULL;
        a.g.allowed_only = false;
        settle(&x->b[i], &a);
        m[i] = member(x->s[i], &x->b[i]);
    }
    CHECK_OK(ksllm_sessions_generate(m, 2, &e), e);
    CHECK(x->b[0].r.total_ns >= 1000000000);
    CHECK(x->b[1].r.total_ns < x->b[0].r.total_ns);
    CHECK_EQ(x->b[1].r.n_generated, 20);
    close_group(x);
}

/* ---- what is refused ---- */

TEST(groups_that_are_none)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    fx_file f;
    ksllm_model *other = fx_open("qwen2", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_session *strange = fx_create(other, &o);
    o.kv_type = KSLLM_TYPE_F16;
    ksllm_session *half = fx_create(x->m, &o);
    o.kv_type = KSLLM_TYPE_Q8_0;
    o.n_batch = 1;
    ksllm_session *narrow = fx_create(x->m, &o);
    const int32_t token = 5;
    const struct {
        ksllm_session *second;
        size_t n;
        const char *says;
    } cases[] = {
        {x->s[1], 0, "n_members"}, {x->s[1], 9, "n_members"},
        {NULL, 2, "NULL"}, {x->s[0], 2, "twice"}, {strange, 2, "two models"},
        {half, 2, "kv_type"}, {narrow, 2, "n_batch"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int generates = 0; generates < 2; generates++) {
            ksllm_member m[9];
            ksllm_error e;
            size_t n;
            for (int k = 0; k < 9; k++)
                m[k] = (ksllm_member){.session = x->s[k % MOST],
                    .tokens = &token, .n_tokens = 1, .status = 77};
            m[1].session = cases[i].second;
            CHECK_EQ(generates ? ksllm_sessions_generate(m, cases[i].n, &e)
                               : ksllm_sessions_append(m, cases[i].n, &e),
                     KSLLM_ERR_ARGUMENT);
            CHECK(strstr(e.text, cases[i].says) != NULL);
            CHECK_EQ(m[0].status, 77);      /* nobody is touched */
            ksllm_session_tokens(x->s[0], &n);
            CHECK_EQ(n, 0);
        }
    ksllm_error e;
    CHECK_EQ(ksllm_sessions_append(NULL, 1, &e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_sessions_generate(NULL, 1, NULL), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(strange);
    ksllm_session_free(half);
    ksllm_session_free(narrow);
    fx_close(other, &f);
    close_group(x);
}

/* Errors of members: the others do what they were asked for. */
TEST(members_that_cannot_begin)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    ksllm_member m[4];
    ksllm_error e, own = {.text = ""};
    ksllm_result r = {.size = sizeof r};
    ksllm_generation g;
    const int32_t good[3] = {1, 2, 3}, bad[2] = {1, -1};
    size_t n;
    memset(m, 0, sizeof m);
    for (int i = 0; i < 4; i++) {
        m[i].session = x->s[i];
        m[i].tokens = i == 1 ? bad : good;
        m[i].n_tokens = i == 0 ? 0 : 2;
    }
    m[0].err = &own;
    CHECK_EQ(ksllm_sessions_append(m, 4, &e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(m[0].status, KSLLM_ERR_ARGUMENT);
    CHECK(strstr(own.text, "n_tokens is 0") != NULL);
    CHECK_EQ(m[1].status, KSLLM_ERR_TOKEN);
    CHECK(strstr(e.text, "-1") != NULL);
    CHECK_EQ(m[2].status | m[3].status, 0);
    for (int i = 0; i < 4; i++) {
        ksllm_session_tokens(x->s[i], &n);
        CHECK_EQ(n, i < 2 ? 0 : 2);
    }
    CHECK(fx_logits_hash(x->m, x->s[2]) == fx_logits_hash(x->m, x->s[3]));
    ksllm_generation_init(&g);
    g.max_tokens = 3;
    g.ignore_stop = true;
    for (int i = 0; i < 4; i++) {           /* the first two have no prompt */
        m[i].generation = &g;
        m[i].result = i == 3 ? &r : NULL;
    }
    CHECK_EQ(ksllm_sessions_generate(m, 4, NULL), KSLLM_ERR_STATE);
    CHECK_EQ(m[1].status, KSLLM_ERR_STATE);
    CHECK_EQ(m[2].status | m[3].status, 0);
    CHECK_EQ(r.n_generated, 3);
    CHECK_EQ(ksllm_sessions_generate(m, 2, NULL), KSLLM_ERR_STATE);
    for (int i = 0; i < 4; i++)             /* and nobody stays busy */
        CHECK_OK(ksllm_session_append(x->s[i], good, 1, NULL, &e), e);
    close_group(x);
}

/* From a callback: sessions of the running call are busy, others are not. */
typedef struct intruder {
    group *x;
    int calls;
} intruder;

static int intrude(void *ctx, const ksllm_piece *p)
{
    intruder *i = ctx;
    const int32_t token = 3;
    ksllm_member m[3];
    ksllm_error e;
    ksllm_result r = {.size = sizeof r, .n_generated = 9};
    (void)p;
    memset(m, 0, sizeof m);
    for (int k = 0; k < 3; k++) {
        m[k].session = i->x->s[k];
        m[k].tokens = &token;
        m[k].n_tokens = 1;
    }
    CHECK_EQ(ksllm_sessions_append(m, 3, &e), KSLLM_ERR_STATE);
    CHECK_EQ(m[0].status, KSLLM_ERR_STATE);
    CHECK_EQ(m[1].status, KSLLM_ERR_STATE);
    CHECK_EQ(m[2].status, KSLLM_OK);
    CHECK_EQ(ksllm_generate(i->x->s[0], NULL, &r, &e), KSLLM_ERR_STATE);
    CHECK_EQ(r.n_generated, 0);             /* filled on errors too */
    CHECK_EQ(r.stop_token, -1);
    i->calls++;
    return 0;
}

TEST(busy_sessions)
{
    group *x = open_group("llama", KSLLM_TYPE_Q8_0);
    intruder in = {x, 0};
    ksllm_generation g;
    ksllm_member m[2];
    ksllm_error e;
    ksllm_generation_init(&g);
    g.text = "ab";
    g.max_tokens = 4;
    g.ignore_stop = true;
    g.on_piece = intrude;
    g.piece_ctx = &in;
    memset(m, 0, sizeof m);
    for (int i = 0; i < 2; i++) {
        m[i].session = x->s[i];
        m[i].generation = &g;
    }
    CHECK_OK(ksllm_sessions_generate(m, 2, &e), e);
    CHECK(in.calls >= 8);
    size_t n;
    ksllm_session_tokens(x->s[2], &n);
    CHECK_EQ(n, in.calls);
    close_group(x);
}

TEST_MAIN
