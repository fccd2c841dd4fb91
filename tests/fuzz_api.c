/* fuzz_api.c - a program of calls on two sessions, alone and both at once,
 * against a naive timeline.
 *
 * An input: the model, the sizes of the session, its options; then calls, each
 * of an opcode, a seed, a control and what it wants to know. The naive timeline
 * is an array of tokens. After each call the session holds what the array
 * holds, and its logits are those of a fresh session with these tokens, bit by
 * bit, whatever was cancelled, rewound or copied before.
 */
#include "fuzz.h"

#include <math.h>

enum { MAX_CTX = 100, MAX_LIST = 512, MAX_CALLS = 24 };

/* The first SMALL are small, so most programs run on them. */
enum { MODELS = 9, SMALL = 6 };
static struct {
    ksllm_model *m;
    ksllm_grammar *g;
    size_t n_vocab, n_embd;
    bool encoder;
} models[MODELS];
static const fx_spec mini_window = {
    "mini window", "gemma3", 2, 32, 32, 2, 1, 16, 24, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_MINI, FX_SOUND};

static void open_models(void)
{
    static fx_file files[MODELS];
    const fx_spec *specs[MODELS] = {&fx_mini, &mini_window,
        fx_spec_of("lfm2"), fx_spec_of("lfm2moe"), fx_spec_of("bert"),
        fx_spec_of("gemma4"),
        fx_spec_of("window"), fx_spec_of("qwen2"), fx_spec_of("spm")};
    ksllm_error e;
    for (size_t i = 0; i < MODELS && !models[i].m; i++) {
        ksllm_model_info info = {.size = sizeof info};
        files[i] = fx_model(specs[i]);
        fx_must(ksllm_model_open_memory(files[i].data, files[i].size, NULL,
                                        &models[i].m, &e), &e);
        ksllm_model_get_info(models[i].m, &info, NULL);
        models[i].n_vocab = info.n_vocab;
        models[i].n_embd = info.n_embd;
        models[i].encoder = strcmp(specs[i]->arch, "bert") == 0;
        ksllm_grammar_options o;
        ksllm_grammar_options_init(&o);
        o.kind = KSLLM_GRAMMAR_REGEX;
        o.source.data = "(ab|c){1,9}d?";
        fx_must(ksllm_grammar_create(models[i].m, &o, &models[i].g, &e), &e);
    }
}

/* ---- The state ----------------------------------------------------------- */

typedef struct state {
    const ksllm_model *m;
    const ksllm_grammar *grammar;
    size_t n_vocab, n_embd;
    bool encoder;               /* gives embeddings alone */
    ksllm_session_options options;
    ksllm_session *s, *other;
    fx_alloc memory;
    int32_t tokens[MAX_LIST];   /* the naive timeline */
    size_t n;
    uint32_t batch;             /* of the next fresh session */
    fuzz_reader r;
    uint64_t rng;
    const char *what;           /* the call */
} state;

static bool slides(const state *x)
{
    return x->options.overflow == KSLLM_OVERFLOW_SLIDE;
}

/* What the session holds becomes the timeline: for calls that slide. */
static void adopt(state *x)
{
    const int32_t *held = ksllm_session_tokens(x->s, &x->n);
    MUST(x->n <= x->options.n_ctx, "%s: %zu tokens", x->what, x->n);
    for (size_t i = 0; i < x->n; i++) {
        MUST(held[i] >= 0 && (size_t)held[i] < x->n_vocab, "%s: holds %d",
             x->what, held[i]);
        x->tokens[i] = held[i];
    }
}

static void check_fresh(state *x)
{
    const float *logits = ksllm_session_logits(x->s);
    const float *pooled = ksllm_session_embedding(x->s);
    ksllm_session_options o = x->options;
    ksllm_error e;
    MUST(!logits || !x->encoder, "%s: an encoder's logits", x->what);
    /* a mean is of the tokens of one call, of an encoder of all */
    if (o.pooling == KSLLM_POOLING_MEAN && !x->encoder)
        pooled = NULL;
    if (!logits && !pooled)
        return;
    MUST(x->n, "%s: logits of nothing", x->what);
    o.n_batch = x->batch = 1 + (x->batch + 2) % 7;
    o.n_threads = 1;
    o.allocator = NULL;
    o.overflow = KSLLM_OVERFLOW_ERROR;
    o.n_keep = 0;
    ksllm_session *fresh = fx_create(x->m, &o);
    MUST(ksllm_session_sync(fresh, x->tokens, x->n, NULL, &e) == KSLLM_OK,
         "fresh: %s", e.text);
    MUST(!logits || memcmp(logits, ksllm_session_logits(fresh),
                           x->n_vocab * sizeof(float)) == 0,
         "%s: other logits than a fresh session's, %zu tokens", x->what, x->n);
    MUST(!pooled || memcmp(pooled, ksllm_session_embedding(fresh),
                           x->n_embd * sizeof(float)) == 0,
         "%s: another embedding than a fresh session's, %zu tokens", x->what,
         x->n);
    ksllm_session_free(fresh);
}

/* The session holds the timeline, or a beginning of it when it was stopped. */
static void check_held(state *x, ksllm_status st)
{
    size_t n, before = x->n;
    const int32_t *held = ksllm_session_tokens(x->s, &n);
    bool stopped = st == KSLLM_ERR_CANCELLED || st == KSLLM_ERR_DEADLINE;
    MUST(stopped ? n <= before : n == before, "%s: %zu tokens, not %zu",
         x->what, n, before);
    MUST(n == 0 || memcmp(held, x->tokens, n * sizeof *held) == 0,
         "%s: other tokens", x->what);
    x->n = n;
}

/* ---- Calls --------------------------------------------------------------- */

/* What may stop a call. */
typedef struct stopper {
    ksllm_control control;
    ksllm_cancel cancel;
    int after, seen;            /* batches until it is set */
    bool used;
} stopper;

static void on_progress(void *ctx, size_t n_done, size_t n_total)
{
    stopper *stop = ctx;
    MUST(n_done <= n_total, "%zu of %zu", n_done, n_total);
    if (++stop->seen == stop->after)
        ksllm_cancel_set(&stop->cancel);
}

static void read_stopper(state *x, stopper *stop)
{
    uint8_t how = fuzz_byte(&x->r);
    memset(stop, 0, sizeof *stop);
    ksllm_control_init(&stop->control);
    stop->control.cancel = &stop->cancel;
    stop->used = how % 8 < 4;
    if (how % 8 == 1)
        ksllm_cancel_set(&stop->cancel);
    if (how % 8 == 2)
        stop->control.budget_us = 1 + how / 8;
    if (how % 8 == 3) {
        stop->after = 1 + how / 64;
        stop->control.on_progress = on_progress;
        stop->control.progress_ctx = stop;
    }
}

static size_t read_tokens(state *x, int32_t *tokens, size_t most)
{
    size_t n = 1 + fuzz_byte(&x->r) % most;
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)fx_below(&x->rng, (uint32_t)x->n_vocab);
    return n;
}

static void check_status(const state *x, ksllm_status st, const stopper *stop,
                         const ksllm_error *e)
{
    bool stopped = st == KSLLM_ERR_CANCELLED || st == KSLLM_ERR_DEADLINE;
    MUST(st == KSLLM_OK || (stopped && stop->used), "%s: %s", x->what,
         e->text);
}

/* append and score: one more list at the end. */
static ksllm_status call_append(state *x, stopper *stop, bool score)
{
    int32_t *more = x->tokens + x->n;
    size_t n = read_tokens(x, more, score ? 20 : 40);
    ksllm_error e;
    float logprobs[20];
    bool bad = fuzz_byte(&x->r) % 16 == 1;
    if (bad)
        more[n - 1] = x->rng & 1 ? -1 : (int32_t)x->n_vocab;
    x->what = score ? "score" : "append";
    ksllm_status st = score
        ? ksllm_session_score(x->s, more, n, logprobs, &stop->control, &e)
        : ksllm_session_append(x->s, more, n, &stop->control, &e);
    bool fits = x->n + n <= x->options.n_ctx;
    if (st == KSLLM_ERR_TOKEN || st == KSLLM_ERR_CONTEXT) {
        MUST(st == KSLLM_ERR_TOKEN ? bad : !fits, "%s: %s", x->what, e.text);
        return st;
    }
    MUST(!bad, "%s took a token that is none", x->what);
    check_status(x, st, stop, &e);
    MUST(fits || slides(x), "%s took %zu and %zu", x->what, x->n, n);
    size_t before = x->n, held;
    x->n += n;
    ksllm_session_tokens(x->s, &held);
    for (size_t i = 0; score && fits && before + i < held; i++)
        MUST(before + i == 0 ? logprobs[0] != logprobs[0]
                             : logprobs[i] <= 0.001f, "logprob %g",
             (double)logprobs[i]);
    return st;
}

/* How many sessions a call may have. */
static bool takes_two(const state *x)
{
    return (x->options.n_batch > 1 || x->encoder) && x->options.n_ctx > 1;
}

static void exchange(state *x)
{
    ksllm_session *s = x->s;
    x->s = x->other;
    x->other = s;
}

/* append to both sessions in one call, one of them with the control; then the
 * other one is checked. */
static ksllm_status call_several(state *x, stopper *stop)
{
    int32_t *more = x->tokens + x->n;
    size_t n = read_tokens(x, more, 40), held;
    uint8_t how = fuzz_byte(&x->r);
    ksllm_member m[2], *one = &m[how & 1], *two = &m[!(how & 1)];
    ksllm_error e, f;
    memset(m, 0, sizeof m);
    *one = (ksllm_member){.session = x->s, .tokens = more, .n_tokens = n,
        .control = &stop->control, .err = &e};
    *two = (ksllm_member){.session = x->other, .tokens = more,
        .n_tokens = 1 + how % n};
    x->what = "append to two";
    ksllm_session_tokens(x->other, &held);
    ksllm_status st = ksllm_sessions_append(m, 2, &f);
    MUST((st == KSLLM_ERR_ARGUMENT) == !takes_two(x), "two: %s", f.text);
    if (!takes_two(x))
        return st;
    MUST(st == (m[0].status ? m[0].status : m[1].status), "two: %d", (int)st);
    MUST(two->status == (held + two->n_tokens <= x->options.n_ctx || slides(x)
        ? KSLLM_OK : KSLLM_ERR_CONTEXT), "the second of two: %s", f.text);
    st = one->status;
    if (st == KSLLM_ERR_CONTEXT) {
        MUST(x->n + n > x->options.n_ctx && !slides(x), "two: %s", e.text);
    } else {
        check_status(x, st, stop, &e);
        x->n += n;
    }
    if (slides(x))
        adopt(x);
    else
        check_held(x, st);
    check_fresh(x);
    exchange(x);
    adopt(x);
    check_fresh(x);
    return st;
}

static ksllm_status call_sync(state *x, stopper *stop)
{
    int32_t list[MAX_LIST];
    ksllm_error e;
    size_t keep = x->n ? fx_below(&x->rng, (uint32_t)x->n + 1) : 0;
    memcpy(list, x->tokens, keep * sizeof *list);
    size_t n = keep + read_tokens(x, list + keep, 20);
    x->what = "sync";
    ksllm_status st = ksllm_session_sync(x->s, list, n, &stop->control, &e);
    if (st == KSLLM_ERR_CONTEXT) {
        MUST(n > x->options.n_ctx && !slides(x), "sync: %s", e.text);
        return st;
    }
    check_status(x, st, stop, &e);
    memcpy(x->tokens, list, n * sizeof *list);
    x->n = n;
    return st;
}

static ksllm_status call_rewind(state *x)
{
    size_t n = fx_below(&x->rng, (uint32_t)x->n + 2);
    ksllm_error e;
    x->what = "rewind";
    ksllm_status st = ksllm_session_rewind(x->s, n, &e);
    MUST(st == (n > x->n ? KSLLM_ERR_ARGUMENT : KSLLM_OK), "rewind: %d",
         (int)st);
    if (st)
        return st;
    MUST(n == x->n || !ksllm_session_logits(x->s), "logits after rewind");
    x->n = n;
    return st;
}

static ksllm_status call_fork(state *x)
{
    ksllm_error e;
    x->what = "fork";
    ksllm_status st = ksllm_session_fork(x->s, x->other, &e);
    MUST(st == KSLLM_OK, "fork: %s", e.text);
    exchange(x);
    return st;
}

static void filter(void *ctx, float *logits, size_t n)
{
    uint64_t *rng = ctx;
    for (int i = 0; i < 5; i++)
        logits[fx_below(rng, (uint32_t)n)] = i % 2 ? -INFINITY : 3;
}

static void read_sampling(state *x, ksllm_sampling *sampling,
                          ksllm_logit_bias *bias)
{
    uint8_t how = fuzz_byte(&x->r);
    ksllm_sampling_init(sampling);
    sampling->seed = how;
    if (how & 1)
        sampling->temperature = (float)(1 + fuzz_byte(&x->r)) / 100;
    if (how & 2)
        sampling->top_k = fuzz_byte(&x->r) % 40;
    if (how & 4)
        sampling->top_p = (float)fuzz_byte(&x->r) / 255;
    if (how & 8)
        sampling->min_p = (float)fuzz_byte(&x->r) / 255;
    if (how & 16)
        sampling->repeat_penalty = 0.5f + (float)fuzz_byte(&x->r) / 128;
    if (how & 32)
        sampling->frequency_penalty = (float)fuzz_byte(&x->r) / 64 - 2;
    bias->token = (int32_t)fx_below(&x->rng, (uint32_t)x->n_vocab);
    bias->bias = how & 2 ? -INFINITY : 5;
    if (how & 64) {
        sampling->biases = bias;
        sampling->n_biases = 1;
    }
    if (how & 128) {
        sampling->filter = filter;
        sampling->filter_ctx = &x->rng;
    }
}

static ksllm_status call_sample(state *x)
{
    ksllm_sampling sampling;
    ksllm_logit_bias bias;
    ksllm_token_prob p, top[8];
    ksllm_error e;
    read_sampling(x, &sampling, &bias);
    x->what = "sample";
    ksllm_status st = ksllm_sample(x->s, &sampling, x->n, &p, top, 8, &e);
    if (st == KSLLM_OK)
        MUST(p.token >= 0 && (size_t)p.token < x->n_vocab &&
             p.logprob <= 0.001f, "sample: %d %g", p.token,
             (double)p.logprob);
    else
        MUST(st == KSLLM_ERR_STATE || st == KSLLM_ERR_ARGUMENT, "sample: %s",
             e.text);
    return KSLLM_OK;
}

/* Stops, or sets the cancel, at a token; tries what a callback may not. */
typedef struct listener {
    state *x;
    stopper *stop;
    int seen, stop_at, cancel_at;
} listener;

static int on_piece(void *ctx, const ksllm_piece *piece)
{
    listener *l = ctx;
    ksllm_error e;
    MUST(fuzz_is_utf8(piece->text.data, piece->text.size), "a piece is cut");
    MUST(ksllm_session_rewind(l->x->s, 0, &e) == KSLLM_ERR_STATE,
         "a busy session takes a call");
    if (++l->seen == l->cancel_at)
        ksllm_cancel_set(&l->stop->cancel);
    return l->seen == l->stop_at;
}

/* Whether a text is in the language of the grammar, or begins one that is. */
static bool in_grammar(const char *p, size_t n, bool whole)
{
    size_t i = 0, items = 0;
    for (; i < n && (p[i] == 'a' || p[i] == 'c'); items++) {
        if (p[i] == 'a' && i + 1 == n)
            return !whole && items < 9;
        if (p[i] == 'a' && p[i + 1] != 'b')
            return false;
        i += p[i] == 'a' ? 2 : 1;
    }
    if (items > 9)
        return false;
    if (i < n && p[i] == 'd' && items)
        i++;
    return i == n && (items || !whole);
}

/* What a new answer under the grammar has to be. */
static void check_answer(const state *x, const ksllm_result *r, ksllm_status st,
                         bool text_stops)
{
    char text[1024];
    bool whole = r->stop == KSLLM_STOP_COMPLETE || r->stop == KSLLM_STOP_TOKEN ||
        r->stop == KSLLM_STOP_LENGTH || r->stop == KSLLM_STOP_CONTEXT ||
        (r->stop == KSLLM_STOP_DEADLINE && r->n_generated);
    if ((st && st != KSLLM_ERR_CANCELLED && st != KSLLM_ERR_DEADLINE) ||
        (text_stops && r->stop == KSLLM_STOP_TEXT))
        return;
    int64_t n = 0;
    for (size_t i = x->n - r->n_generated; i < x->n; i++) {
        int64_t k = ksllm_token_bytes(x->m, x->tokens[i], 0, text + n,
                                      sizeof text - (size_t)n);
        MUST(k > 0, "token %d is no text", x->tokens[i]);
        n += k;
    }
    MUST(in_grammar(text, (size_t)n, whole), "'%.*s', stop %d", (int)n, text,
         r->stop);
}

/* Asks for a few answers beside another one, each a turn of a chat or not. */
typedef struct beside {
    state *x;
    ksllm_generation g;
    ksllm_chat chat;
    ksllm_error e;
    int left;
} beside;

static bool ask_beside(void *ctx, ksllm_member *m)
{
    static const int32_t prompt[] = {1, 2, 3};
    static char memory[1 << 20];
    beside *b = ctx;
    MUST(m->status == KSLLM_OK || m->status == KSLLM_ERR_CONTEXT
         || (m->chat && m->status == KSLLM_ERR_ARGUMENT),
         "beside it: %d %s", (int)m->status, b->e.text);
    uint8_t how = fuzz_byte(&b->x->r);
    if (!b->left || how % 4 == 3)
        return false;
    b->left--;
    ksllm_generation_init(&b->g);
    b->g.max_tokens = 5;
    b->g.tokens = how % 2 ? NULL : prompt;
    b->g.n_tokens = how % 2 ? 0 : b->x->options.n_ctx < 3 ? 1 : 3;
    fx_chat(&b->chat);
    b->chat.memory = memory;
    b->chat.memory_size = sizeof memory;
    m->generation = &b->g;
    m->chat = how % 2 ? &b->chat : NULL;
    m->on_part = fx_drop_part;
    m->err = &b->e;
    return true;
}

/* Alone, or beside other answers. */
static ksllm_status generate(state *x, const ksllm_generation *g,
                             ksllm_result *r, bool alone, ksllm_error *e)
{
    if (alone || !takes_two(x))
        return ksllm_generate(x->s, g, r, e);
    beside b = {.x = x, .left = 3};
    ksllm_member m[2] = {{.session = x->other, .next = ask_beside,
        .next_ctx = &b},
        {.session = x->s, .generation = g, .result = r, .err = e}};
    ksllm_sessions_generate(m, 2, NULL);
    return m[1].status;
}

static ksllm_status call_generate(state *x, stopper *stop)
{
    static const ksllm_text stops[] = {{"a", 1}, {"\xec\x95\x88", 3}};
    ksllm_sampling sampling;
    ksllm_logit_bias bias;
    ksllm_generation g;
    ksllm_result result = {.size = sizeof result};
    ksllm_error e;
    int32_t prompt[20];
    read_sampling(x, &sampling, &bias);
    uint8_t how = fuzz_byte(&x->r);
    listener l = {x, stop, 0, fuzz_byte(&x->r) % 16, 0};
    if (stop->used)
        l.cancel_at = fuzz_byte(&x->r) % 16;
    ksllm_generation_init(&g);
    g.sampling = &sampling;
    g.control = &stop->control;
    g.on_piece = on_piece;
    g.piece_ctx = &l;
    g.max_tokens = 1 + how % 12;
    g.append = how & 16;
    g.ignore_stop = how & 32;
    g.unit = (ksllm_unit)(how % 3);
    g.n_top = how % 5;
    if (how & 64) {
        g.stop_texts = stops;
        g.n_stop_texts = 2;
    }
    if (how % 3 == 0) {
        g.text = "ab cd\xec\x95\x88\xff";
    } else if (how % 3 == 1) {
        g.tokens = prompt;
        g.n_tokens = read_tokens(x, prompt, 20);
    }
    if (how & 128)
        g.grammar = x->grammar;
    g.drafts = how % 7 > 0;
    if (how % 5 == 4)
        g.drafter = x->other;
    x->what = "generate";
    bool alone = fuzz_byte(&x->r) % 2;
    ksllm_status st = generate(x, &g, &result, alone, &e);
    MUST(result.n_generated <= g.max_tokens, "%zu", result.n_generated);
    MUST(result.n_accepted <= result.n_drafted &&
         (result.n_drafted == 0 || g.drafts), "%zu drafts, %zu came true",
         result.n_drafted, result.n_accepted);
    switch (st) {
    case KSLLM_OK: case KSLLM_ERR_CANCELLED: case KSLLM_ERR_DEADLINE:
    case KSLLM_ERR_CONTEXT: case KSLLM_ERR_STATE: case KSLLM_ERR_ARGUMENT:
        break;
    default:
        MUST(st == KSLLM_ERR_BUFFER && g.grammar && g.max_tokens == 1,
             "generate: %s", e.text);
    }
    adopt(x);
    if (g.grammar && (g.text || g.tokens))
        check_answer(x, &result, st, g.n_stop_texts > 0);
    return st;
}

static ksllm_status call_wrongly(state *x)
{
    ksllm_session_options o = x->options;
    ksllm_error e;
    x->what = "what is refused";
    o.allocator = NULL;
    o.n_ctx = o.n_ctx > 1 ? o.n_ctx - 1 : 2;
    o.n_keep = 0;
    ksllm_session *s = fx_create(x->m, &o);
    MUST(ksllm_session_fork(x->s, s, &e) == KSLLM_ERR_ARGUMENT, "fork");
    MUST(ksllm_session_fork(x->s, x->s, &e) < 0, "fork onto itself");
    ksllm_session_free(s);
    MUST(ksllm_session_append(x->s, NULL, 1, NULL, &e) == KSLLM_ERR_ARGUMENT,
         "append");
    MUST(ksllm_session_sync(x->s, x->tokens, 0, NULL, &e) ==
         KSLLM_ERR_ARGUMENT, "sync of nothing");
    return KSLLM_OK;
}

/* What needs a next token. */
static ksllm_status call_encoder(state *x)
{
    float out[20];
    ksllm_token_prob p;
    ksllm_generation g;
    ksllm_error e;
    ksllm_generation_init(&g);
    x->what = "what an encoder refuses";
    MUST(ksllm_session_score(x->s, x->tokens, 1, out, NULL, &e) ==
         KSLLM_ERR_UNSUPPORTED, "score");
    MUST(ksllm_sample(x->s, NULL, 0, &p, NULL, 0, &e) ==
         KSLLM_ERR_UNSUPPORTED, "sample");
    MUST(ksllm_generate(x->s, &g, NULL, &e) == KSLLM_ERR_UNSUPPORTED,
         "generate");
    return KSLLM_OK;
}

/* ---- A program ----------------------------------------------------------- */

static void read_options(state *x)
{
    static const uint32_t sizes[8] = {1, 7, 26, 33, 64, 65, 70, MAX_CTX};
    ksllm_session_options *o = &x->options;
    uint8_t model = fuzz_byte(&x->r);
    size_t which = model < 240 ? model % SMALL : SMALL + model % 3;
    uint8_t a = fuzz_byte(&x->r), b = fuzz_byte(&x->r);
    x->m = models[which].m;
    x->grammar = models[which].g;
    x->n_vocab = models[which].n_vocab;
    x->n_embd = models[which].n_embd;
    x->encoder = models[which].encoder;
    ksllm_session_options_init(o);
    o->n_ctx = sizes[a & 7];
    if (x->encoder) {
        o->n_ctx = o->n_ctx < FX_PLACES ? o->n_ctx : FX_PLACES;
        b &= (uint8_t)~4;       /* it cannot slide */
    }
    o->n_batch = 1 + (a >> 3 & 15);
    o->kv_type = b % 3 == 0 ? KSLLM_TYPE_Q8_0 : b % 3 == 1 ? KSLLM_TYPE_F16
               : KSLLM_TYPE_F32;
    o->overflow = b & 4 ? KSLLM_OVERFLOW_SLIDE : KSLLM_OVERFLOW_ERROR;
    o->n_keep = b & 4 ? (b >> 3) % o->n_ctx : 0;
    o->pooling = (ksllm_pooling)((b >> 3) % 3);
    if (x->encoder && (a ^ b) % 3 == 0)
        o->pooling = b & 16 ? KSLLM_POOLING_FIRST : KSLLM_POOLING_RANK;
    o->n_threads = b >> 6 == 3 ? 2 : 1;
    o->n_draft = (a ^ b) % 17;
    if (o->n_draft == 16)
        o->n_draft = KSLLM_NO_DRAFTS;
    o->allocator = &x->memory.allocator;
}

static ksllm_status call(state *x, stopper *stop)
{
    uint8_t how = fuzz_byte(&x->r) % 11;
    if (x->encoder && how >= 6 && how <= 8)
        return call_encoder(x);
    switch (how) {
    case 0: case 1: return call_append(x, stop, false);
    case 2: case 3: return call_sync(x, stop);
    case 4: return call_rewind(x);
    case 5: return call_fork(x);
    case 6: return call_append(x, stop, true);
    case 7: return call_sample(x);
    case 8: return call_generate(x, stop);
    case 9: return call_several(x, stop);
    default: return call_wrongly(x);
    }
}

static void one(const uint8_t *data, size_t size)
{
    static state x;
    stopper stop;
    ksllm_error e;
    open_models();
    memset(&x, 0, sizeof x);
    x.r = (fuzz_reader){data, size};
    fx_alloc_init(&x.memory);
    read_options(&x);
    x.s = fx_create(x.m, &x.options);
    x.other = fx_create(x.m, &x.options);
    long calls = x.memory.calls;
    for (int i = 0; i < MAX_CALLS && x.r.n; i++) {
        x.rng = fuzz_byte(&x.r);
        read_stopper(&x, &stop);
        ksllm_status st = call(&x, &stop);
        if (slides(&x))
            adopt(&x);
        else
            check_held(&x, st);
        if (x.r.n % 4 == 0 || st)
            check_fresh(&x);
    }
    MUST(x.memory.calls == calls, "a call on a session allocates");
    if (x.n < x.options.n_ctx) {        /* whatever happened, it goes on */
        x.what = "the last sync";
        x.tokens[x.n++] = 1;
        MUST(ksllm_session_sync(x.s, x.tokens, x.n, NULL, &e) == KSLLM_OK,
             "%s", e.text);
        check_held(&x, KSLLM_OK);
        check_fresh(&x);
    }
    ksllm_session_free(x.s);
    ksllm_session_free(x.other);
    MUST(!x.memory.live && !x.memory.wrong_size, "a leak");
}

/* Random programs, and one of each call. */
static bool seed(size_t i, fx_bytes *out)
{
    uint64_t rng = i;
    if (i >= 24)
        return false;
    fx_int(out, i < 21 ? i : 219 + i, 1);
    fx_int(out, fx_next(&rng), 2);
    for (int k = 0; k < 12; k++) {
        fx_int(out, i + (uint64_t)k, 1);
        fx_int(out, fx_next(&rng), 1);
        fx_int(out, (i + (uint64_t)k) % 11, 1);
        fx_int(out, fx_next(&rng), 4);
    }
    return true;
}

static const fuzz_target fuzz = {"fuzz_api", one, seed, NULL, NULL, 400};
FUZZ_MAIN
