/* test_obey.c - answers under a grammar. The model has random weights, so it
 * says anything that it may: what comes out is whole and right because of the
 * grammar alone, or not at all.
 */
#include "test.h"
#include "fixture.h"
#include "json.h"

#include <math.h>

/* ---- a validator of its own ---- */

/* Behind the value at p, which is JSON. */
static const char *skip(const char *p)
{
    p = json_of(p, 0);
    return p ? p : "";
}

static const char *blank(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

/* The same value, but for white space between tokens. */
static bool same(const char *a, const char *b)
{
    a = blank(a), b = blank(b);
    const char *end_a = skip(a), *end_b = skip(b);
    bool text = false;
    while (a < end_a && b < end_b) {
        if (*a != *b)
            return false;
        text = *a == '"' ? !text : text;
        a = text ? a + 1 : blank(a + 1);
        b = text ? b + 1 : blank(b + 1);
    }
    return a >= end_a && b >= end_b;
}

/* The next item of a list or member of an object; *key is that of a member.
 * `p` is behind the opening bracket or the last value; NULL: there is none. */
static const char *next(const char *p, const char **key)
{
    p = blank(p);
    if (*p == ',')
        p = blank(p + 1);
    if (!*p || *p == ']' || *p == '}')
        return NULL;
    if (key) {
        *key = p;
        p = blank(skip(p)) + 1;
    }
    return blank(p);
}

static const char *member(const char *object, const char *name)
{
    const char *key, *p = object ? blank(object) : "";
    size_t n = strlen(name);
    if (*p != '{')
        return NULL;
    for (p++; (p = next(p, &key)) != NULL; p = skip(p))
        if (strncmp(key + 1, name, n) == 0 && key[n + 1] == '"')
            return p;
    return NULL;
}

static int count(const char *list)
{
    const char *key, *p = blank(list);
    int n = 0;
    bool object = *p == '{';
    for (p++; (p = next(p, object ? &key : NULL)) != NULL; p = skip(p))
        n++;
    return n;
}

static int characters(const char *text)
{
    int n = 0;
    for (const char *p = text + 1; *p != '"'; p++) {
        if (*p == '\\')
            p += p[1] == 'u' ? 5 : 1;
        n += ((unsigned char)*p & 0xc0) != 0x80;
    }
    return n;
}

static bool is_type(const char *v, const char *type)
{
    char c = *v;
    bool number = c == '-' || (c >= '0' && c <= '9');
    if (strncmp(type, "\"string", 7) == 0)
        return c == '"';
    if (strncmp(type, "\"object", 7) == 0)
        return c == '{';
    if (strncmp(type, "\"array", 6) == 0)
        return c == '[';
    if (strncmp(type, "\"boolean", 8) == 0)
        return c == 't' || c == 'f';
    if (strncmp(type, "\"null", 5) == 0)
        return c == 'n';
    size_t n = strspn(v, "-0123456789");
    if (strncmp(type, "\"integer", 8) == 0)
        return number && !(v[n] && strchr(".eE", v[n]));
    return number;
}

static bool valid(const char *schema, const char *v);

static bool valid_object(const char *schema, const char *v)
{
    const char *key, *p = v + 1, *all = member(schema, "properties");
    const char *need = member(schema, "required");
    const char *more = member(schema, "additionalProperties");
    for (const char *r = need ? need + 1 : ""; need && (r = next(r, NULL));
         r = skip(r)) {
        char name[64] = "";
        snprintf(name, sizeof name, "%.*s", (int)(skip(r) - r - 2), r + 1);
        if (!member(v, name))
            return false;
    }
    for (; (p = next(p, &key)) != NULL; p = skip(p)) {
        char name[64] = "";
        snprintf(name, sizeof name, "%.*s", (int)(skip(key) - key - 2),
                 key + 1);
        const char *sub = all ? member(all, name) : NULL;
        if (sub && member(v, name) != p)
            return false;       /* twice */
        if (!sub && more && *more == 'f')
            return false;
        if (sub && !valid(sub, p))
            return false;
    }
    return true;
}

static bool limit(const char *schema, const char *min, const char *max,
                  double v)
{
    const char *a = member(schema, min), *b = member(schema, max);
    return (!a || v >= atof(a)) && (!b || v <= atof(b));
}

/* What the schemas of this file use of JSON Schema. Both are JSON. */
static bool valid(const char *schema, const char *v)
{
    const char *type = member(schema, "type"), *p;
    const char *list = member(schema, "enum");
    v = blank(v);
    if (type && !is_type(v, type))
        return false;
    if (list) {
        for (p = list + 1; (p = next(p, NULL)) != NULL; p = skip(p))
            if (same(p, v))
                break;
        if (!p)
            return false;
    }
    if (*v == '"' && !limit(schema, "minLength", "maxLength", characters(v)))
        return false;
    if (strchr("-0123456789", *v) &&
        !limit(schema, "minimum", "maximum", atof(v)))
        return false;
    if (*v == '[' && !limit(schema, "minItems", "maxItems", count(v)))
        return false;
    const char *items = member(schema, "items");
    for (p = v + 1; *v == '[' && items && (p = next(p, NULL)); p = skip(p))
        if (!valid(items, p))
            return false;
    return *v != '{' || valid_object(schema, v);
}

/* ---- grammars ---- */

static const char *const schemas[] = {
    "{\"type\":\"object\",\"properties\":{\"action\":{\"enum\":[\"go\",\"stop\","
    "\"turn\"]},\"speed\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":30}},"
    "\"required\":[\"action\"],\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\","
    "\"maxLength\":6},\"tags\":{\"type\":\"array\",\"items\":{\"type\":"
    "\"string\"},\"minItems\":1,\"maxItems\":3}},\"required\":[\"name\","
    "\"tags\"]}",
    "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"a\":"
    "{\"type\":\"boolean\"},\"b\":{\"type\":\"null\"}},\"required\":[\"b\"],"
    "\"additionalProperties\":false},\"minItems\":1}",
    "{\"type\":\"string\",\"minLength\":3}",
    "{\"enum\":[\"안녕\",\"아니\",12,null,[1,2]]}",
};
#define SCHEMAS (sizeof schemas / sizeof *schemas)

enum { CHOICES = SCHEMAS, REGEX, GBNF, JSON, COMPACT, KINDS };

static const char choices[] = "[\"go\",\"stop\",\"gone\",\"안녕\",\"\\n\\n\"]";

static bool is_choice(const char *s)
{
    return !strcmp(s, "go") || !strcmp(s, "stop") || !strcmp(s, "gone") ||
           !strcmp(s, "안녕") || !strcmp(s, "\n\n");
}

/* [a-c]{2,}(안녕|,)?z */
static bool is_match(const char *s)
{
    size_t n = strspn(s, "abc");
    s += n;
    s += *s == ',' ? 1 : strncmp(s, "안녕", 6) == 0 ? 6 : 0;
    return n >= 2 && strcmp(s, "z") == 0;
}

/* root ::= "<" root ">" | "12" */
static bool is_nested(const char *s)
{
    size_t n = strspn(s, "<");
    s += n;
    if (strncmp(s, "12", 2))
        return false;
    return strspn(s + 2, ">") == n && !s[2 + n];
}

static bool is_right(int kind, const char *text)
{
    if (kind < (int)SCHEMAS)
        return is_json(text) && valid(schemas[kind], text);
    if (kind == CHOICES)
        return is_choice(text);
    if (kind == REGEX)
        return is_match(text);
    return kind == GBNF ? is_nested(text) : is_json(text);
}

static ksllm_grammar *compile(const ksllm_model *m, int kind)
{
    ksllm_grammar_options o;
    ksllm_grammar *g = NULL;
    ksllm_error e;
    ksllm_grammar_options_init(&o);
    o.kind = kind < (int)SCHEMAS ? KSLLM_GRAMMAR_SCHEMA
        : kind == CHOICES ? KSLLM_GRAMMAR_CHOICES
        : kind == REGEX ? KSLLM_GRAMMAR_REGEX
        : kind == GBNF ? KSLLM_GRAMMAR_GBNF : KSLLM_GRAMMAR_JSON;
    o.source.data = kind < (int)SCHEMAS ? schemas[kind]
        : kind == CHOICES ? choices
        : kind == REGEX ? "[a-c]{2,}(안녕|,)?z"
        : kind == GBNF ? "root ::= \"<\" root \">\" | \"12\"" : NULL;
    if (kind == COMPACT)
        o.max_space = 0;
    fx_must(ksllm_grammar_create(m, &o, &g, &e), &e);
    return g;
}

/* ---- a stage ---- */

enum { ROOM = 1 << 14 };

typedef struct stage {
    fx_file f;
    ksllm_model *m;
    ksllm_session *s;
    ksllm_grammar *g[KINDS];
    ksllm_generation want;
    ksllm_sampling sampling;
    ksllm_control control;
    ksllm_cancel cancel;
    ksllm_result r;
    ksllm_error e;
    char text[ROOM];
    size_t n_text, n_pieces, n_unevaluated, n_sure;
    size_t stop_at, cancel_at;      /* pieces; 0: never */
} stage;

static const fx_spec small = {
    "small", "llama", 1, 32, 32, 2, 1, 16, 0, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_JSON, FX_SOUND};

static int on_piece(void *ctx, const ksllm_piece *p)
{
    stage *x = ctx;
    if (x->n_text + p->text.size >= ROOM)
        exit(1);
    for (size_t i = 0; i < p->text.size; i++)   /* thinking may have NULs */
        x->text[x->n_text++] = p->text.data[i] ? p->text.data[i] : '?';
    x->text[x->n_text] = '\0';
    x->n_unevaluated += p->token >= 0 && isnan(p->logprob);
    x->n_pieces += p->token >= 0;
    x->n_sure += p->token >= 0 && p->logprob > -1e-5f;
    if (x->cancel_at && x->n_pieces == x->cancel_at)
        ksllm_cancel_set(&x->cancel);
    return x->stop_at && x->n_pieces == x->stop_at;
}

static ksllm_session *session(const stage *x, uint32_t n_ctx)
{
    ksllm_session_options o = fx_small_options();
    o.n_ctx = n_ctx;
    return fx_create(x->m, &o);
}

static void begin_of(stage *x, const fx_spec *spec, uint32_t n_ctx)
{
    memset(x, 0, sizeof *x);
    x->f = fx_model(spec);
    fx_must(ksllm_model_open_memory(x->f.data, x->f.size, NULL, &x->m, &x->e),
            &x->e);
    x->s = session(x, n_ctx);
    for (int i = 0; i < KINDS; i++)
        x->g[i] = compile(x->m, i);
    ksllm_sampling_init(&x->sampling);
    ksllm_control_init(&x->control);
    x->control.cancel = &x->cancel;
    ksllm_generation_init(&x->want);
    x->want.sampling = &x->sampling;
    x->want.control = &x->control;
    x->want.on_piece = on_piece;
    x->want.piece_ctx = x;
    x->r.size = sizeof x->r;
}

static void begin(stage *x, uint32_t n_ctx)
{
    begin_of(x, &small, n_ctx);
}

static void end(stage *x)
{
    for (int i = 0; i < KINDS; i++)
        ksllm_grammar_free(x->g[i]);
    ksllm_session_free(x->s);
    ksllm_model_close(x->m);
    free(x->f.data);
}

static void clear(stage *x)
{
    x->text[0] = '\0';
    x->n_text = x->n_pieces = x->n_unevaluated = 0;
}

static ksllm_status answer(stage *x, int kind, const char *prompt,
                           uint32_t max_tokens)
{
    x->want.text = prompt;
    x->want.grammar = x->g[kind];
    x->want.max_tokens = max_tokens;
    return ksllm_generate(x->s, &x->want, &x->r, &x->e);
}

/* Random sampling for a seed, 0: greedy. */
static void sample(stage *x, uint64_t seed)
{
    ksllm_sampling_init(&x->sampling);
    if (!seed)
        return;
    x->sampling.seed = seed;
    x->sampling.temperature = seed % 3 == 0 ? 2 : 1;
    x->sampling.top_k = seed % 2 ? 0 : 5;
    x->sampling.top_p = seed % 5 == 4 ? 0.8f : 0;
    x->sampling.repeat_penalty = seed % 4 == 1 ? 1.3f : 0;
}

static bool check_right(const stage *x, int kind, const char *what, long n)
{
    bool right = is_right(kind, x->text);
    if (!CHECK(right))
        printf("kind %d, %s %ld: '%s', stop %d, closed %zu\n", kind, what, n,
               x->text, x->r.stop, x->r.n_closed);
    return right;
}

/* Tokens of the shortest answer. */
static int64_t shortest(const stage *x, int kind)
{
    size_t size = ksllm_matcher_bytes(x->g[kind], 0);
    void *memory = fx_memory(NULL, size);
    ksllm_matcher *m;
    ksllm_error e;
    int64_t n = -1;
    if (CHECK_OK(ksllm_matcher_init(x->g[kind], memory, size, &m, &e), e))
        n = ksllm_matcher_close(m, NULL, 0);
    free(memory);
    return n;
}

/* ---- whole, whatever the limit ---- */

TEST(every_length_is_whole)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 128);
    for (int kind = 0; kind < KINDS; kind++) {
        int64_t least = shortest(x, kind);
        for (uint32_t n = 1; n <= 60; n++)
            for (int seed = 0; seed < test_times(2, 5); seed++) {
                clear(x);
                sample(x, seed ? (uint64_t)seed * 61 + n : 0);
                ksllm_status s = answer(x, kind, "ab", n);
                if (n < least) {
                    CHECK_EQ(s, KSLLM_ERR_BUFFER);
                    CHECK(x->n_pieces == 0);
                    continue;
                }
                if (!CHECK_OK(s, x->e) ||
                    !check_right(x, kind, "max_tokens", (long)n))
                    goto done;
                CHECK(x->r.n_generated <= n);
                CHECK_EQ(x->n_unevaluated, 0);
                CHECK(x->r.stop == KSLLM_STOP_COMPLETE ||
                      x->r.stop == KSLLM_STOP_TOKEN ||
                      x->r.stop == KSLLM_STOP_LENGTH);
                if (x->r.n_closed)
                    CHECK_EQ(x->r.stop, KSLLM_STOP_LENGTH);
                if (x->r.stop == KSLLM_STOP_TOKEN)
                    CHECK(ksllm_token_is_stop(x->m, x->r.stop_token));
            }
    }
done:
    end(x);
    free(x);
}

TEST(a_full_context_is_whole)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 40);
    for (int kind = 0; kind < KINDS; kind++) {
        int64_t least = shortest(x, kind);
        for (int n = 1; n <= 40; n++)
            for (int seed = 0; seed < test_times(2, 4); seed++) {
                char prompt[64] = "";
                memset(prompt, 'a', (size_t)n);
                clear(x);
                sample(x, seed ? (uint64_t)(seed * 41 + n) : 0);
                ksllm_status s = answer(x, kind, prompt, 0);
                if (40 - n < least) {
                    CHECK_EQ(s, KSLLM_ERR_CONTEXT);
                    CHECK(x->n_pieces == 0);
                    continue;
                }
                if (!CHECK_OK(s, x->e) ||
                    !check_right(x, kind, "prompt", n))
                    goto done;
                if (x->r.n_closed)
                    CHECK_EQ(x->r.stop, KSLLM_STOP_CONTEXT);
            }
    }
done:
    end(x);
    free(x);
}

TEST(a_deadline_is_whole)
{
    stage *x = fx_memory(NULL, sizeof *x);
    uint64_t rng = test_seed;
    size_t late = 0, closed = 0;
    begin(x, 512);
    for (int i = 0; i < 600 / TEST_ONE_OF; i++) {
        int kind = (int)fx_below(&rng, KINDS);
        clear(x);
        sample(x, fx_below(&rng, 50));
        x->control.budget_us = 1 + fx_below(&rng, i % 2 ? 3000 : 30000);
        ksllm_status s = answer(x, kind, "ab", i % 3 ? 0 : 100);
        late += s == KSLLM_ERR_DEADLINE;
        closed += x->n_unevaluated > 0;
        if (s == KSLLM_ERR_DEADLINE)
            CHECK_EQ(x->r.stop, KSLLM_STOP_DEADLINE);
        else if (!CHECK_OK(s, x->e))
            break;
        if (x->r.n_generated && !check_right(x, kind, "round", i))
            break;
        CHECK(x->n_unevaluated <= x->r.n_closed);
    }
    CHECK(late > 20 && closed > 10);
    /* What was put without evaluation is evaluated by who goes on. */
    x->control.budget_us = 0;
    end(x);
    free(x);
}

/* ---- stopped and continued ---- */

/* The tokens of an answer. */
typedef struct said {
    int32_t ids[256];
    size_t n;
} said;

static void take_down(const stage *x, size_t start, said *to)
{
    size_t n;
    const int32_t *t = ksllm_session_tokens(x->s, &n);
    to->n = n - start;
    if (n < start || to->n > 256)
        exit(1);
    memcpy(to->ids, t + start, to->n * sizeof *t);
}

static bool check_said(const said *a, const said *b)
{
    return CHECK_EQ(a->n, b->n) &&
           CHECK(memcmp(a->ids, b->ids, a->n * sizeof *a->ids) == 0);
}

/* Stops at piece k of an answer by `how`, goes on, and compares. */
static bool disturb(stage *x, int kind, uint32_t max_tokens, size_t k, int how,
                    const said *whole)
{
    said now;
    clear(x);
    x->stop_at = how ? 0 : k;
    x->cancel_at = how ? k : 0;
    size_t came = 0;
    ksllm_status s = answer(x, kind, "ab", max_tokens);
    size_t prompt = x->r.n_prompt;
    for (int calls = 0; calls < 100; calls++) {
        came += x->r.n_generated;
        ksllm_cancel_clear(&x->cancel);
        if (s == KSLLM_ERR_CANCELLED)
            CHECK_EQ(x->r.stop, KSLLM_STOP_CANCELLED);
        else if (!CHECK_OK(s, x->e))
            return false;
        if (x->r.stop != KSLLM_STOP_CANCELLED &&
            x->r.stop != KSLLM_STOP_CALLBACK)
            break;
        if (max_tokens && came == max_tokens)
            break;
        x->n_pieces = 0;
        s = answer(x, kind, NULL, max_tokens ? max_tokens - (uint32_t)came : 0);
    }
    x->stop_at = x->cancel_at = 0;
    take_down(x, prompt, &now);
    return check_said(&now, whole);
}

TEST(a_stopped_answer_goes_on_to_the_same_tokens)
{
    stage *x = fx_memory(NULL, sizeof *x);
    said whole;
    begin(x, 256);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t max = 20; max <= 60; max += 20)
            for (uint64_t seed = 0; seed < 3; seed++) {
                clear(x);
                sample(x, seed);
                if (answer(x, kind, "ab", max)) {
                    CHECK_EQ(x->e.status, KSLLM_ERR_BUFFER);
                    continue;
                }
                take_down(x, x->r.n_prompt, &whole);
                for (size_t k = 1; k <= 7; k += 3)
                    for (int how = 0; how < 2; how++)
                        if (!disturb(x, kind, max, k, how, &whole)) {
                            printf("kind %d max %u seed %d k %zu how %d\n",
                                   kind, max, (int)seed, k, how);
                            goto done;
                        }
            }
done:
    end(x);
    free(x);
}

TEST(lengths_add_up)
{
    /* LENGTH without `complete` may cut; the next call goes on. */
    stage *x = fx_memory(NULL, sizeof *x);
    said whole, now;
    begin(x, 256);
    for (int kind = 0; kind < KINDS; kind++) {
        clear(x);
        sample(x, 5);
        x->want.complete = false;
        CHECK_OK(answer(x, kind, "ab", 100), x->e);
        if (x->r.stop == KSLLM_STOP_LENGTH)
            continue;       /* it went on and on */
        CHECK(check_right(x, kind, "free", 0));
        ksllm_stop stop = x->r.stop;
        size_t start = x->r.n_prompt;
        take_down(x, start, &whole);
        CHECK_OK(answer(x, kind, "ab", 1), x->e);
        for (int i = 0; i < 100 && x->r.stop == KSLLM_STOP_LENGTH; i++)
            CHECK_OK(answer(x, kind, NULL, 1 + (uint32_t)i % 3), x->e);
        take_down(x, start, &now);
        check_said(&now, &whole);
        CHECK_EQ(x->r.stop, stop);
        /* and again, when all is said */
        clear(x);
        CHECK_OK(answer(x, kind, NULL, 5), x->e);
        CHECK_EQ(x->r.stop, stop);
        CHECK_EQ(x->r.n_generated, 0);
    }
    end(x);
    free(x);
}

TEST(a_finished_answer_is_finished)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 128);
    sample(x, 1);
    CHECK_OK(answer(x, 0, "ab", 0), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_COMPLETE);
    CHECK(ksllm_session_logits(x->s) == NULL);  /* the last is not evaluated */
    for (int i = 0; i < 2; i++) {
        size_t n, k;
        ksllm_session_tokens(x->s, &n);
        CHECK_OK(answer(x, 0, NULL, 1), x->e);
        CHECK_EQ(x->r.stop, KSLLM_STOP_COMPLETE);
        CHECK_EQ(x->r.n_generated, 0);
        ksllm_session_tokens(x->s, &k);
        CHECK_EQ(n, k);
    }
    /* Another grammar begins anew behind it, and so does the same one when
     * something was added. */
    clear(x);
    CHECK_OK(answer(x, CHOICES, NULL, 8), x->e);
    CHECK(check_right(x, CHOICES, "second", 0));
    int32_t id = 'a';
    CHECK_OK(ksllm_session_append(x->s, &id, 1, NULL, &x->e), x->e);
    clear(x);
    CHECK_OK(answer(x, CHOICES, NULL, 8), x->e);
    CHECK(check_right(x, CHOICES, "third", 0));
    end(x);
    free(x);
}

TEST(rewind_and_fork_go_on)
{
    stage *x = fx_memory(NULL, sizeof *x);
    said whole, now;
    begin(x, 128);
    ksllm_session *other = session(x, 128), *first = x->s;
    for (int kind = 0; kind < KINDS; kind++)
        for (int seed = 0; seed < test_times(2, 4); seed++) {
            sample(x, (uint64_t)seed);
            clear(x);
            CHECK_OK(answer(x, kind, "ab", 50), x->e);
            size_t start = x->r.n_prompt;
            take_down(x, start, &whole);
            for (size_t k = 0; k <= whole.n && k < 50; k += 2) {
                CHECK_OK(ksllm_session_rewind(x->s, start + k, &x->e), x->e);
                CHECK_OK(ksllm_session_fork(x->s, other, &x->e), x->e);
                for (int i = 0; i < 2; i++) {
                    x->s = i ? first : other;
                    clear(x);
                    CHECK_OK(answer(x, kind, NULL, 50 - (uint32_t)k), x->e);
                    take_down(x, start, &now);
                    if (!check_said(&now, &whole))
                        printf("kind %d seed %d k %zu\n", kind, seed, k);
                }
            }
        }
    /* Before the answer it begins anew. */
    sample(x, 0);
    clear(x);
    CHECK_OK(answer(x, 0, "abc", 50), x->e);
    CHECK_OK(ksllm_session_rewind(x->s, 2, &x->e), x->e);
    clear(x);
    CHECK_OK(answer(x, 0, NULL, 50), x->e);
    CHECK(check_right(x, 0, "rewound", 0));
    ksllm_session_free(other);
    end(x);
    free(x);
}

/* ---- choosing ---- */

typedef struct naive {
    ksllm_matcher *m;
    bool stops;         /* also the caller's stop token */
} naive;

static void naive_filter(void *ctx, float *logits, size_t n)
{
    const naive *f = ctx;
    for (size_t i = 0; i < n; i++)
        if (!ksllm_matcher_takes(f->m, (int32_t)i) &&
            !(f->stops && i == 'q' && ksllm_matcher_may_end(f->m)))
            logits[i] = -INFINITY;
}

TEST(the_token_is_the_best_allowed_one)
{
    stage *x = fx_memory(NULL, sizeof *x);
    static const ksllm_logit_bias biases[] = {{'a', 3}, {'"', -2}, {'{', -50}};
    static const int32_t stops[] = {'q'};
    begin(x, 256);
    ksllm_session *other = session(x, 256);
    for (int kind = 0; kind < KINDS; kind++) {
        size_t size = ksllm_matcher_bytes(x->g[kind], 0);
        void *memory = fx_memory(NULL, size);
        for (uint64_t seed = 0; seed < 12; seed++) {
            naive f = {.stops = seed % 3 == 1};
            sample(x, seed);
            x->sampling.biases = biases;
            x->sampling.n_biases = seed % 4 == 3 ? 3 : 0;
            x->want.stop_tokens = stops;
            x->want.n_stop_tokens = f.stops;
            clear(x);
            CHECK_OK(answer(x, kind, "ab", 60), x->e);
            if (x->r.n_closed)
                continue;
            ksllm_result r = x->r;
            size_t n;
            const int32_t *t = ksllm_session_tokens(x->s, &n);
            CHECK_OK(ksllm_matcher_init(x->g[kind], memory, size, &f.m, &x->e),
                     x->e);
            ksllm_sampling p = x->sampling;
            p.filter = naive_filter;
            p.filter_ctx = &f;
            CHECK_OK(ksllm_session_sync(other, t, r.n_prompt, NULL, &x->e),
                     x->e);
            for (size_t i = r.n_prompt; i <= n; i++) {
                ksllm_token_prob c;
                if (i == n && r.stop != KSLLM_STOP_TOKEN)
                    break;
                CHECK_OK(ksllm_sample(other, &p, i, &c, NULL, 0, &x->e), x->e);
                if (!CHECK_EQ(c.token, i < n ? t[i] : r.stop_token))
                    break;
                if (i == n)
                    break;
                CHECK_EQ(ksllm_matcher_next(f.m, c.token), KSLLM_OK);
                CHECK_OK(ksllm_session_append(other, &c.token, 1, NULL, &x->e),
                         x->e);
            }
        }
        free(memory);
    }
    ksllm_session_free(other);
    end(x);
    free(x);
}

TEST(allowed_rows_alone_give_the_same_answer)
{
    stage *x = fx_memory(NULL, sizeof *x);
    said whole, now;
    size_t sure = 0;
    begin(x, 256);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint64_t seed = 0; seed < 6; seed++) {
            sample(x, seed);
            clear(x);
            CHECK_OK(answer(x, kind, "ab", 40), x->e);
            take_down(x, x->r.n_prompt, &whole);
            CHECK_EQ(x->n_sure, 0);
            x->n_sure = 0;
            x->want.allowed_only = true;
            clear(x);
            x->stop_at = 5;
            CHECK_OK(answer(x, kind, "ab", 40), x->e);
            size_t start = x->r.n_prompt;
            for (int i = 0; x->r.stop == KSLLM_STOP_CALLBACK; i++) {
                CHECK(i < 10);
                size_t n;
                ksllm_session_tokens(x->s, &n);
                if (n - start == 40)
                    break;
                x->n_pieces = 0;
                CHECK_OK(answer(x, kind, NULL, 40 - (uint32_t)(n - start)),
                         x->e);
            }
            take_down(x, start, &now);
            check_said(&now, &whole);
            /* The only token that is allowed is certain. */
            sure += x->n_sure;
            x->n_sure = 0;
            /* Whatever comes next has all of them. */
            float first, again;
            int32_t id = 'a';
            ksllm_session *other = session(x, 256);
            size_t n;
            const int32_t *t = ksllm_session_tokens(x->s, &n);
            CHECK_OK(ksllm_session_sync(other, t, n, NULL, &x->e), x->e);
            CHECK_OK(ksllm_session_score(x->s, &id, 1, &first, NULL, &x->e),
                     x->e);
            CHECK_OK(ksllm_session_score(other, &id, 1, &again, NULL, &x->e),
                     x->e);
            CHECK(first == again);
            CHECK_HEX(fx_logits_hash(x->m, x->s), fx_logits_hash(x->m, other));
            ksllm_session_free(other);
            x->want.allowed_only = false;
            x->stop_at = 0;
        }
    CHECK(sure > 100);
    end(x);
    free(x);
}

static void allow_all(void *ctx, float *logits, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++)
        logits[i] = i == 'x' ? 1e6f : logits[i] > -1e30f ? logits[i] : 1e5f;
}

TEST(a_filter_does_not_allow_more)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 128);
    for (uint64_t seed = 0; seed < 6; seed++) {
        sample(x, seed);
        x->sampling.filter = allow_all;
        clear(x);
        CHECK_OK(answer(x, 0, "ab", 50), x->e);
        check_right(x, 0, "filter", (long)seed);
    }
    /* What it needs is forbidden: that is an error as ever. */
    static const ksllm_logit_bias no[] = {{'{', -INFINITY}, {257, -INFINITY},
        {273, -INFINITY}};
    sample(x, 0);
    x->sampling.biases = no;
    x->sampling.n_biases = 3;
    clear(x);
    x->want.complete = false;
    CHECK_EQ(answer(x, 0, "ab", 50), KSLLM_ERR_STATE);
    CHECK(x->r.stop == KSLLM_STOP_NONE && x->n_text == 0);
    end(x);
    free(x);
}

/* Tokens of one character, and the stop: what is longer says the same. */
static const int32_t not_these[] = {'{', ':', 't', '1', ',', FX_JSON_END};
enum { NOT_THESE = sizeof not_these / sizeof *not_these };
static const int32_t no_braces[] = {'{', 257, 273};

static void suppress(struct fx_build *b)
{
    fx_suppress(b, not_these, NOT_THESE);
}

static void suppress_braces(struct fx_build *b)
{
    fx_suppress(b, no_braces, 3);
}

static bool is_one_of_these(int32_t token)
{
    for (size_t i = 0; i < NOT_THESE; i++)
        if (token == not_these[i])
            return true;
    return false;
}

/* Neither drawn, nor forced, nor to end an answer that is cut short. */
TEST(suppressed_tokens_do_not_come)
{
    stage *x = fx_memory(NULL, sizeof *x);
    fx_spec spec = small;
    size_t closed = 0;
    spec.more = suppress;
    begin_of(x, &spec, 256);
    for (int kind = 0; kind < KINDS; kind++) {
        size_t n, n_words, size = ksllm_matcher_bytes(x->g[kind], 0);
        void *memory = fx_memory(NULL, size);
        ksllm_matcher *m;
        for (uint64_t seed = 0; seed < 12; seed++) {
            sample(x, seed);
            if (seed % 4 == 2)
                x->sampling.filter = allow_all;
            clear(x);
            ksllm_status st = answer(x, kind, "ab{t1", seed % 2 ? 200 : 24);
            if (st == KSLLM_ERR_BUFFER || st == KSLLM_ERR_STATE)
                continue;               /* it needs one of them */
            CHECK_OK(st, x->e);
            check_right(x, kind, "suppressed", (long)seed);
            closed += x->r.n_closed;
            const int32_t *t = ksllm_session_tokens(x->s, &n);
            for (size_t i = x->r.n_prompt; i < n; i++)
                CHECK(!is_one_of_these(t[i]));
            CHECK(x->r.stop != KSLLM_STOP_TOKEN ||
                  x->r.stop_token != FX_JSON_END);
            CHECK_OK(ksllm_matcher_init(x->g[kind], memory, size, &m, &x->e),
                     x->e);
            for (size_t i = x->r.n_prompt; i < n; i++) {
                const uint64_t *may = ksllm_matcher_allowed(m, &n_words);
                for (size_t k = 0; k < NOT_THESE; k++) {
                    uint32_t id = (uint32_t)not_these[k];
                    CHECK(!(may[id / 64] >> id % 64 & 1));
                    CHECK(!ksllm_matcher_takes(m, not_these[k]));
                }
                CHECK_EQ(ksllm_matcher_next(m, t[i]), KSLLM_OK);
            }
            CHECK(ksllm_matcher_next(m, FX_JSON_END) == KSLLM_ERR_ARGUMENT);
        }
        free(memory);
    }
    CHECK(closed > 0);
    end(x);
    /* What it needs is not there in any form. */
    spec.more = suppress_braces;
    begin_of(x, &spec, 128);
    for (int complete = 0; complete < 2; complete++) {
        clear(x);
        x->want.complete = complete != 0;
        CHECK_EQ(answer(x, 0, "ab", 50), KSLLM_ERR_STATE);
        CHECK(strstr(x->e.text, "suppress_tokens") != NULL);
        CHECK(x->n_text == 0);
    }
    end(x);
    free(x);
}

TEST(stops_count_where_the_answer_may_end)
{
    stage *x = fx_memory(NULL, sizeof *x);
    static const int32_t stops[] = {'"', 'e'};
    static const ksllm_text text = {"\":", 2};
    begin(x, 256);
    /* A stop token of the caller's that the answer needs does not stop it. */
    for (uint64_t seed = 0; seed < 6; seed++) {
        sample(x, seed);
        x->want.stop_tokens = stops;
        x->want.n_stop_tokens = 2;
        for (int kind = 0; kind < KINDS; kind++) {
            clear(x);
            CHECK_OK(answer(x, kind, "ab", 50), x->e);
            check_right(x, kind, "stop tokens", (long)seed);
            x->want.ignore_stop = true;
            clear(x);
            CHECK_OK(answer(x, kind, "ab", 50), x->e);
            check_right(x, kind, "no stop tokens", (long)seed);
            CHECK(x->r.stop != KSLLM_STOP_TOKEN ||
                  x->r.stop_token != FX_JSON_END);
            x->want.ignore_stop = false;
        }
    }
    /* A stop text ends it anywhere. */
    x->want.n_stop_tokens = 0;
    x->want.stop_texts = &text;
    x->want.n_stop_texts = 1;
    clear(x);
    CHECK_OK(answer(x, 0, "ab", 50), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_TEXT);
    CHECK(strstr(x->text, "\":") == NULL && x->n_text > 2);
    end(x);
    free(x);
}

/* ---- behind the thinking ---- */

/* The answer of a text that begins with thinking. */
static const char *behind(const char *text, const char *mark)
{
    const char *p = strstr(text, mark);
    if (!CHECK(p != NULL))
        return "";
    p += strlen(mark);
    size_t n = strspn(p, " \n\r\t");
    CHECK(n <= 8);
    return p + n;
}

TEST(an_answer_begins_behind_the_thinking)
{
    stage *x = fx_memory(NULL, sizeof *x);
    static const char *const marks[] = {"</think>", ">>"};
    size_t thought = 0, ended = 0;
    begin(x, 256);
    for (int mark = 0; mark < 2; mark++)
        for (int kind = 0; kind < KINDS; kind++) {
            if (kind == CHOICES)    /* one of them is white space */
                continue;
            for (uint32_t n = 1; n <= 60; n++) {
                x->want.thinking = marks[mark];
                x->want.decode_flags = KSLLM_DECODE_SPECIAL;
                clear(x);
                sample(x, n % 7 ? n : 0);
                ksllm_status s = answer(x, kind, "<think>\n", n);
                if (s == KSLLM_ERR_BUFFER) {
                    CHECK(n <= shortest(x, kind) + 3);
                    continue;
                }
                if (!CHECK_OK(s, x->e))
                    goto done;
                char text[ROOM];
                strcpy(text, behind(x->text, marks[mark]));
                if (!CHECK(is_right(kind, text))) {
                    printf("kind %d max %u: '%s'\n", kind, n, x->text);
                    goto done;
                }
                CHECK(x->r.n_thinking > 0);
                CHECK(x->r.n_thinking < x->r.n_generated);
                thought += x->r.n_thinking > 2;
                ended += !x->r.n_closed;
            }
        }
    CHECK(thought > 50 && ended > 5);
done:
    end(x);
    free(x);
}

TEST(thinking_goes_on_too)
{
    stage *x = fx_memory(NULL, sizeof *x);
    said whole;
    begin(x, 256);
    x->want.thinking = "</think>";
    for (uint64_t seed = 0; seed < 6; seed++) {
        sample(x, seed);
        clear(x);
        CHECK_OK(answer(x, 0, "ab", 40), x->e);
        take_down(x, x->r.n_prompt, &whole);
        for (size_t k = 1; k < 39; k += 4)
            if (!disturb(x, 0, 40, k, (int)k & 1, &whole))
                printf("seed %d k %zu\n", (int)seed, k);
    }
    /* Other thinking is another answer. */
    CHECK_OK(answer(x, 0, "ab", 40), x->e);
    x->want.thinking = NULL;
    clear(x);
    CHECK_OK(answer(x, 0, NULL, 40), x->e);
    check_right(x, 0, "after thinking", 0);
    end(x);
    free(x);
}

/* ---- a turn of a chat ---- */

typedef struct parts {
    char text[ROOM], thinking[ROOM], message[ROOM];
} parts;

static int on_part(void *ctx, ksllm_part part, ksllm_text t)
{
    parts *p = ctx;
    char *to = part == KSLLM_PART_TEXT ? p->text
        : part == KSLLM_PART_THINKING ? p->thinking
        : part == KSLLM_PART_MESSAGE ? p->message : NULL;
    if (CHECK(to) && strlen(to) + t.size < ROOM)
        strncat(to, t.data, t.size);
    return 0;
}

TEST(a_turn_of_a_chat_obeys)
{
    static const struct { const char *format, *open; bool thinks; } rows[] = {
        {"json", "<think>\n", true}, {"json", "", false},
        {"thought", "<thought>\n", true}, {"text", "", false},
        {"solar", "<|begin|>assistant<|think|>", true},
        {"solar", "<|begin|>assistant", false},
        {"solar", "<|begin|>assistant<|content|>", false},
        {"hcx-think", "<|im_start|>assistant/think{{ \"\\n\" }}", true},
        {"hcx-think", "<|im_start|>assistant", false},
        {"hcx-think", "<|im_start|>assistant{{ \"\\n\" }}", false},
    };
    stage *x = fx_memory(NULL, sizeof *x);
    parts *p = fx_memory(NULL, sizeof *p);
    begin(x, 256);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint64_t seed = 0; seed < 24; seed++) {
            int kind = (int)(seed % SCHEMAS);
            ksllm_chat chat;
            ksllm_chat_init(&chat);
            chat.messages.data = "[{\"role\": \"user\", \"content\": \"a\"}]";
            chat.template_text.data = rows[i].open[0] ? rows[i].open : "ab";
            chat.format = rows[i].format;
            sample(x, seed);
            x->want.text = NULL;
            x->want.grammar = x->g[kind];
            x->want.max_tokens = (uint32_t)(30 + seed);
            x->want.max_thinking = seed % 3 == 0 ? 8 : 0;
            clear(x);
            p->text[0] = p->thinking[0] = p->message[0] = '\0';
            if (!CHECK_OK(ksllm_chat_generate(x->s, &chat, &x->want, on_part,
                    p, &x->r, &x->e), x->e))
                continue;
            /* White space at the beginning is the notation's. */
            char text[ROOM];
            strcpy(text, p->text + strspn(p->text, "\n\t \r"));
            if (!CHECK(is_right(kind, text)) || !CHECK(is_json(p->message)) ||
                !CHECK(rows[i].thinks || !p->thinking[0]))
                printf("%s '%s' seed %d: '%s' of '%s'\n", rows[i].format,
                       rows[i].open, (int)seed, p->text, x->text);
            CHECK(x->r.stop != KSLLM_STOP_NONE);
            if (rows[i].thinks)
                CHECK(x->r.n_thinking > 0);
        }
    end(x);
    free(p);
    free(x);
}

/* ---- grammars and sessions that do not fit ---- */

static ksllm_status try_grammar(const ksllm_model *m, ksllm_grammar_kind kind,
                                const char *source, ksllm_error *e)
{
    ksllm_grammar_options o;
    ksllm_grammar *g;
    ksllm_grammar_options_init(&o);
    o.kind = kind;
    o.source.data = source;
    e->text[0] = '\0';
    ksllm_status s = ksllm_grammar_create(m, &o, &g, e);
    CHECK((s == KSLLM_OK) == (g != NULL));
    CHECK(s == KSLLM_OK || e->text[0]);
    ksllm_grammar_free(g);
    return s;
}

TEST(bad_grammars_are_refused)
{
    static const struct {
        ksllm_grammar_kind kind;
        const char *source;
        ksllm_status status;
        uint64_t offset;
    } rows[] = {
        {KSLLM_GRAMMAR_CHOICES, "[]", KSLLM_ERR_ARGUMENT, 2},
        {KSLLM_GRAMMAR_CHOICES, "[\"a\",1]", KSLLM_ERR_ARGUMENT, 5},
        {KSLLM_GRAMMAR_CHOICES, "{\"a\":1}", KSLLM_ERR_ARGUMENT, 0},
        {KSLLM_GRAMMAR_CHOICES, "[\"a\"", KSLLM_ERR_ARGUMENT, 4},
        {KSLLM_GRAMMAR_CHOICES, "[\"a\"] 1", KSLLM_ERR_ARGUMENT, 6},
        {KSLLM_GRAMMAR_CHOICES, "[\"a\xff\"]", KSLLM_ERR_ARGUMENT, 3},
        {KSLLM_GRAMMAR_CHOICES, NULL, KSLLM_ERR_ARGUMENT, KSLLM_NO_OFFSET},
        {KSLLM_GRAMMAR_CHOICES, "[\"\",\"a\",\"a\",\"\"]", KSLLM_OK, 0},
        {KSLLM_GRAMMAR_REGEX, "a(b", KSLLM_ERR_ARGUMENT, 1},
        {KSLLM_GRAMMAR_SCHEMA, "{\"type\":", KSLLM_ERR_ARGUMENT, 8},
        {KSLLM_GRAMMAR_GBNF, "root ::= root \"a\"", KSLLM_ERR_UNSUPPORTED,
         KSLLM_NO_OFFSET},
        {(ksllm_grammar_kind)6, "", KSLLM_ERR_ARGUMENT, KSLLM_NO_OFFSET},
    };
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 64);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ksllm_status s = try_grammar(x->m, rows[i].kind, rows[i].source,
                                     &x->e);
        if (!CHECK_EQ(s, rows[i].status) ||
            (s && rows[i].offset != KSLLM_NO_OFFSET &&
             !CHECK_EQ(x->e.offset, rows[i].offset)))
            printf("row %zu: %s\n", i, x->e.text);
    }
    ksllm_grammar_options o;
    ksllm_grammar *g;
    ksllm_grammar_options_init(&o);
    CHECK_EQ(ksllm_grammar_create(NULL, &o, &g, &x->e), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_grammar_create(x->m, &o, NULL, &x->e), KSLLM_ERR_ARGUMENT);
    o.max_program = 3;
    CHECK_EQ(ksllm_grammar_create(x->m, &o, &g, &x->e), KSLLM_ERR_BUFFER);
    ksllm_grammar_free(NULL);
    end(x);
    free(x);
}

TEST(choices_are_exactly_these)
{
    stage *x = fx_memory(NULL, sizeof *x);
    static const char *const lists[] = {
        "[\"a\",\"ab\",\"abc\",\"b\"]", "[\"abc\",\"abd\",\"ab\",\"xbd\"]",
        "[\"\\uc548\\ub155\",\"\\\"\\n\",\"\"]", "[\"b\",\"b\",\"a\"]"};
    static const char *const texts[] = {
        "", "a", "ab", "abc", "abd", "xbd", "b", "안녕", "\"\n", "xb", "안",
        "abcd", "bb"};
    static const uint32_t right[] = {
        0x4e, 0x3c, 0x181, 0x42};
    begin(x, 64);
    for (size_t i = 0; i < 4; i++) {
        ksllm_grammar_options o;
        ksllm_grammar *g;
        ksllm_matcher *m;
        ksllm_grammar_options_init(&o);
        o.kind = KSLLM_GRAMMAR_CHOICES;
        o.source.data = lists[i];
        fx_must(ksllm_grammar_create(x->m, &o, &g, &x->e), &x->e);
        size_t size = ksllm_matcher_bytes(g, 1 << 14);
        void *memory = fx_memory(NULL, size);
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            fx_must(ksllm_matcher_init(g, memory, size, &m, &x->e), &x->e);
            bool ok = true;
            for (const char *p = texts[k]; *p && ok; p++) /* bytes are tokens */
                ok = ksllm_matcher_next(m, (uint8_t)*p) == KSLLM_OK;
            ok = ok && ksllm_matcher_may_end(m);
            if (!CHECK_EQ(ok, right[i] >> k & 1))
                printf("list %zu, '%s'\n", i, texts[k]);
        }
        free(memory);
        ksllm_grammar_free(g);
    }
    end(x);
    free(x);
}

TEST(what_does_not_fit_is_refused)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 64);
    ksllm_session *s = x->s;
    fx_file f;
    ksllm_model *other = fx_open("llama", &f);
    ksllm_session_options o = fx_small_options();
    ksllm_memory with = {.size = sizeof with}, without = with;
    x->s = fx_create(other, &o);
    CHECK_EQ(answer(x, 0, "ab", 50), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(x->s);
    fx_close(other, &f);
    CHECK_OK(ksllm_session_memory(x->m, &o, &with, &x->e), x->e);
    o.grammar_bytes = KSLLM_NO_GRAMMAR_BYTES;
    CHECK_OK(ksllm_session_memory(x->m, &o, &without, &x->e), x->e);
    CHECK(with.total - without.total >= 1 << 18);
    CHECK(with.total - without.total <= (1 << 18) + (1 << 14));
    x->s = fx_create(x->m, &o);
    CHECK_EQ(answer(x, 0, "ab", 50), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(x->s);
    /* Tables that are too small: a clean refusal, or the right answer. */
    for (o.grammar_bytes = 1; o.grammar_bytes < 1 << 18;
         o.grammar_bytes *= 3)
        for (int kind = 0; kind < KINDS; kind++) {
            x->s = fx_create(x->m, &o);
            clear(x);
            sample(x, 7);
            ksllm_status status = answer(x, kind, "ab", 50);
            if (status != KSLLM_ERR_BUFFER && CHECK_OK(status, x->e))
                check_right(x, kind, "bytes", (long)o.grammar_bytes);
            ksllm_session_free(x->s);
        }
    x->s = s;
    x->want.thinking = "</think>";
    x->want.grammar = NULL;
    x->want.text = "ab";
    CHECK_EQ(ksllm_generate(x->s, &x->want, &x->r, &x->e), KSLLM_ERR_ARGUMENT);
    end(x);
    free(x);
}

TEST(a_matcher_alone)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 64);
    size_t size = ksllm_matcher_bytes(x->g[0], 0), n_words, vocab;
    uint8_t *memory = fx_memory(NULL, size + 1);
    ksllm_matcher *m;
    vocab = fx_n_vocab(x->m);
    CHECK_EQ(ksllm_matcher_bytes(NULL, 0), 0);
    CHECK_EQ(ksllm_matcher_init(NULL, memory, size, &m, &x->e),
             KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_matcher_init(x->g[0], NULL, size, &m, &x->e),
             KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_matcher_init(x->g[0], memory, 100, &m, &x->e),
             KSLLM_ERR_BUFFER);
    CHECK(m == NULL);
    fx_must(ksllm_matcher_init(x->g[0], memory + 1, size, &m, &x->e), &x->e);
    const char *text = "{\"action\":\"go\"}";
    for (const char *p = text; *p; p++) {
        const uint64_t *bits = ksllm_matcher_allowed(m, &n_words);
        CHECK_EQ(n_words, (vocab + 63) / 64);
        for (size_t i = 0; i < vocab; i++)
            CHECK_EQ(bits[i / 64] >> (i & 63) & 1,
                     ksllm_matcher_takes(m, (int32_t)i));
        CHECK(!ksllm_matcher_takes(m, -1));
        CHECK(!ksllm_matcher_takes(m, (int32_t)vocab));
        CHECK_EQ(ksllm_matcher_next(m, (int32_t)vocab), KSLLM_ERR_TOKEN);
        CHECK_EQ(ksllm_matcher_next(m, 'Z'), KSLLM_ERR_ARGUMENT);
        CHECK(!ksllm_matcher_may_end(m));
        CHECK(ksllm_matcher_close(m, NULL, 0) > 0);
        CHECK_EQ(ksllm_matcher_next(m, (uint8_t)*p), KSLLM_OK);
    }
    CHECK(ksllm_matcher_may_end(m) && ksllm_matcher_must_end(m));
    CHECK_EQ(ksllm_matcher_close(m, NULL, 0), 0);
    CHECK(ksllm_matcher_takes(m, FX_JSON_END));
    CHECK_EQ(ksllm_matcher_next(m, FX_JSON_END), KSLLM_OK);
    CHECK(ksllm_matcher_must_end(m) && !ksllm_matcher_takes(m, FX_JSON_END));
    CHECK_EQ(ksllm_matcher_next(m, FX_JSON_END), KSLLM_ERR_ARGUMENT);
    /* What must come. */
    char forced[16] = "";
    fx_must(ksllm_matcher_init(x->g[CHOICES], memory, size, &m, &x->e), &x->e);
    CHECK_EQ(ksllm_matcher_forced(m, forced, sizeof forced), 0);
    CHECK_EQ(ksllm_matcher_next(m, 's'), KSLLM_OK);
    CHECK_EQ(ksllm_matcher_forced(m, forced, sizeof forced), 3);
    CHECK(memcmp(forced, "top", 3) == 0);
    CHECK_EQ(ksllm_matcher_forced(m, forced, 2), 2);
    int32_t ids[8];
    CHECK_EQ(ksllm_matcher_close(m, ids, 8), 3);
    CHECK(ids[0] == 't' && ids[2] == 'p');
    free(memory);
    end(x);
    free(x);
}

/* ---- memory ---- */

TEST(nothing_is_allocated_while_it_answers)
{
    fx_alloc a;
    fx_file f = fx_model(&small);
    ksllm_model_options mo;
    ksllm_model *m;
    ksllm_error e;
    fx_alloc_init(&a);
    ksllm_model_options_init(&mo);
    mo.allocator = &a.allocator;
    fx_must(ksllm_model_open_memory(f.data, f.size, &mo, &m, &e), &e);
    size_t open = a.live;
    ksllm_session_options o = fx_small_options();
    ksllm_session *s = fx_create(m, &o);
    ksllm_grammar *g = compile(m, 0);
    long calls = a.calls;
    ksllm_generation want;
    ksllm_generation_init(&want);
    want.grammar = g;
    want.max_tokens = 40;
    want.text = "ab";
    CHECK_OK(ksllm_generate(s, &want, NULL, &e), e);
    want.text = NULL;
    CHECK_OK(ksllm_generate(s, &want, NULL, &e), e);
    CHECK_EQ(a.calls, calls);
    ksllm_grammar_free(g);
    ksllm_session_free(s);
    CHECK(a.live > open);       /* the index stays with the model */
    ksllm_model_close(m);
    CHECK_EQ(a.live, 0);
    CHECK(!a.wrong_size);
    free(f.data);
}

TEST(every_allocation_of_a_grammar_may_fail)
{
    fx_file f = fx_model(&small);
    for (int kind = 0; kind < KINDS; kind++)
        for (long k = 0; k < 400; k++) {
            fx_alloc a;
            ksllm_model_options mo;
            ksllm_grammar_options o;
            ksllm_model *m;
            ksllm_grammar *g;
            ksllm_error e;
            fx_alloc_init(&a);
            ksllm_model_options_init(&mo);
            mo.allocator = &a.allocator;
            fx_must(ksllm_model_open_memory(f.data, f.size, &mo, &m, &e), &e);
            ksllm_grammar_options_init(&o);
            o.kind = kind < (int)SCHEMAS ? KSLLM_GRAMMAR_SCHEMA
                : kind == CHOICES ? KSLLM_GRAMMAR_CHOICES
                : KSLLM_GRAMMAR_JSON;
            o.source.data = kind < (int)SCHEMAS ? schemas[kind] : choices;
            a.fail_at = a.calls + 1 + k;
            ksllm_status s = ksllm_grammar_create(m, &o, &g, &e);
            if (a.failed && s)
                CHECK_EQ(s, KSLLM_ERR_MEMORY);
            ksllm_grammar_free(g);
            ksllm_model_close(m);
            CHECK_EQ(a.live, 0);
            CHECK(!a.wrong_size);
            if (!a.failed)
                break;
        }
    free(f.data);
}

TEST_MAIN
