/* test_generate.c - sampling against a naive one, and generation: what text
 * comes out, in which pieces, and why it ended.
 *
 * A random model says nothing in particular, so most tests dictate its
 * answer: a logit filter forbids every token but the next one of a script.
 */
#include "test.h"
#include "fixture.h"

#include <math.h>

enum { V = FX_BPE_SIZE };

typedef struct world {
    fx_file f;
    ksllm_model *m;
    ksllm_session *s;
    ksllm_error e;
} world;

static ksllm_session *session_of(const ksllm_model *m, uint32_t n_ctx,
                                 ksllm_overflow overflow)
{
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error e;
    ksllm_session_options_init(&o);
    o.n_ctx = n_ctx;
    o.n_threads = 1;
    o.overflow = overflow;
    o.n_keep = 2;
    if (!CHECK_OK(ksllm_session_create(m, &o, &s, &e), e))
        exit(1);
    return s;
}

static world begin(const char *fixture, uint32_t n_ctx)
{
    world w = {.f = fx_model(fx_spec_of(fixture))};
    if (!CHECK_OK(ksllm_model_open_memory(w.f.data, w.f.size, NULL, &w.m,
                                          &w.e), w.e))
        exit(1);
    w.s = session_of(w.m, n_ctx, KSLLM_OVERFLOW_ERROR);
    return w;
}

static void end(world *w)
{
    ksllm_session_free(w->s);
    ksllm_model_close(w->m);
    free(w->f.data);
}

/* ---- A naive sampler ---------------------------------------------------- */

/* ln of the softmax, in double. */
static void naive_logprobs(const float *logits, size_t n, double *out)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, (double)logits[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - top);
    for (size_t i = 0; i < n; i++)
        out[i] = (double)logits[i] - top - log(sum);
}

/* Indices by falling value. */
static void naive_order(const double *x, size_t n, int *order)
{
    for (size_t i = 0; i < n; i++) {
        size_t k = i;
        for (; k && x[order[k - 1]] < x[i]; k--)
            order[k] = order[k - 1];
        order[k] = (int)i;
    }
}

/* The probabilities that `sm` leaves of these logits. Sets *narrow when a
 * token is so close to a limit that rounding decides about it. */
static void naive_sample(const float *logits, const ksllm_sampling *sm,
                         double *p, bool *narrow)
{
    int order[V];
    double x[V], sum = 0, top;
    size_t n = V;
    for (size_t i = 0; i < V; i++)
        x[i] = (double)logits[i] / (double)sm->temperature;
    naive_order(x, V, order);
    top = x[order[0]];
    memset(p, 0, V * sizeof *p);
    *narrow = false;
    if (sm->top_k && sm->top_k < n) {
        n = sm->top_k;
        *narrow |= x[order[n - 1]] - x[order[n]] < 1e-5;
    }
    for (size_t i = 0; i < n; i++)
        sum += exp(x[order[i]] - top);
    double before = 0;
    for (size_t i = 0; i < n; i++) {
        double share = exp(x[order[i]] - top) / sum;
        *narrow |= sm->top_p < 1 &&
                   fabs(before - (double)sm->top_p) < 1e-5;
        if (i && before >= (double)sm->top_p)
            n = i;
        else
            before += share;
    }
    for (size_t i = 1; i < n; i++) {
        double ratio = exp(x[order[i]] - top);
        *narrow |= sm->min_p > 0 && fabs(ratio - (double)sm->min_p) < 1e-5;
        if (ratio < (double)sm->min_p)
            n = i;
    }
    sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp(x[order[i]] - top);
    for (size_t i = 0; i < n; i++)
        p[order[i]] = exp(x[order[i]] - top) / sum;
}

/* A filter that replaces the logits. */
static void put_logits(void *ctx, float *logits, size_t n)
{
    memcpy(logits, ctx, n * sizeof *logits);
}

/* Something like a bell, a few units wide. */
static void random_logits(float *l, uint64_t *rng)
{
    for (int i = 0; i < V; i++) {
        int32_t sum = 0;
        for (int k = 0; k < 4; k++)
            sum += (int32_t)fx_below(rng, 8192) - 4096;
        l[i] = (float)sum * 0x1p-10f;
    }
}

static void hold_prompt(world *w, size_t n)
{
    int32_t tokens[128];
    fx_prompt(tokens, n, 9);
    CHECK_OK(ksllm_session_sync(w->s, tokens, n, NULL, &w->e), w->e);
}

TEST(cuts_against_naive)
{
    world w = begin("llama", 64);
    uint64_t rng = test_seed;
    hold_prompt(&w, 10);
    for (int trial = 0; trial < 60; trial++) {
        enum { DRAWS = 3000 };
        float logits[V];
        double p[V];
        int count[V] = {0};
        bool narrow;
        ksllm_sampling sm;
        random_logits(logits, &rng);
        ksllm_sampling_init(&sm);
        sm.filter = put_logits;
        sm.filter_ctx = logits;
        sm.seed = fx_next(&rng);
        sm.temperature = 0.25f + 0.25f * (float)fx_below(&rng, 6);
        if (trial % 4 == 0 || trial > 40)
            sm.top_k = 1 + fx_below(&rng, 30);
        if (trial % 4 == 1 || trial > 40)
            sm.top_p = 0.05f + 0.05f * (float)fx_below(&rng, 19);
        if (trial % 4 == 2 || trial > 40)
            sm.min_p = 0.01f * (float)(1 + fx_below(&rng, 50));
        naive_sample(logits, &sm, p, &narrow);
        if (narrow)
            continue;
        for (uint64_t step = 0; step < DRAWS; step++) {
            ksllm_token_prob t;
            if (!CHECK_OK(ksllm_sample(w.s, &sm, step, &t, NULL, 0, &w.e),
                          w.e))
                break;
            if (CHECK(t.token >= 0 && t.token < V))
                count[t.token]++;
        }
        /* Six standard deviations: never by chance, and the seeds are fixed
         * anyway. */
        for (int i = 0; i < V; i++) {
            double want = p[i] * DRAWS;
            if (p[i] == 0 && !CHECK_EQ(count[i], 0))
                printf("trial %d: token %d was cut\n", trial, i);
            if (!CHECK(fabs(count[i] - want) <
                       3 + 6 * sqrt(want * (1 - p[i]))))
                printf("trial %d: token %d %d times, not %g\n", trial, i,
                       count[i], want);
        }
    }
    end(&w);
}

TEST(greedy_and_penalties)
{
    world w = begin("llama", 128);
    uint64_t rng = test_seed;
    int32_t tokens[100];
    for (int i = 0; i < 100; i++)       /* few kinds, many repetitions */
        tokens[i] = (int32_t)fx_below(&rng, 30) * 9;
    CHECK_OK(ksllm_session_sync(w.s, tokens, 100, NULL, &w.e), w.e);
    for (int trial = 0; trial < 300; trial++) {
        float logits[V];
        double x[V];
        int count[V] = {0}, order[V];
        ksllm_token_prob t;
        ksllm_sampling sm;
        random_logits(logits, &rng);
        ksllm_sampling_init(&sm);
        sm.filter = put_logits;
        sm.filter_ctx = logits;
        if (trial % 4 == 1 || trial > 200)
            sm.repeat_penalty = 0.8f + 0.1f * (float)fx_below(&rng, 20);
        if (trial % 4 == 2 || trial > 200)
            sm.frequency_penalty = 0.1f * (float)fx_below(&rng, 20);
        if (trial % 4 == 3 || trial > 200)
            sm.presence_penalty = 0.2f * (float)fx_below(&rng, 20);
        sm.penalty_window = fx_below(&rng, 110);
        size_t window = sm.penalty_window ? sm.penalty_window : 64;
        for (size_t i = window < 100 ? 100 - window : 0; i < 100; i++)
            count[tokens[i]]++;
        for (int i = 0; i < V; i++) {
            x[i] = (double)logits[i];
            if (!count[i])
                continue;
            x[i] = x[i] > 0 ? x[i] / (double)sm.repeat_penalty
                            : x[i] * (double)sm.repeat_penalty;
            x[i] -= count[i] * (double)sm.frequency_penalty +
                    (double)sm.presence_penalty;
        }
        naive_order(x, V, order);
        if (x[order[0]] - x[order[1]] < 1e-4)
            continue;
        CHECK_OK(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e), w.e);
        if (!CHECK_EQ(t.token, order[0]))
            printf("trial %d\n", trial);
    }
    end(&w);
}

TEST(logprobs_and_alternatives)
{
    world w = begin("llama", 64);
    hold_prompt(&w, 20);
    const float *logits = ksllm_session_logits(w.s);
    double lp[V];
    int order[V];
    naive_logprobs(logits, V, lp);
    naive_order(lp, V, order);
    ksllm_sampling sm;
    ksllm_token_prob t, top[KSLLM_MAX_TOP + 1];
    ksllm_sampling_init(&sm);
    for (size_t n = 0; n <= KSLLM_MAX_TOP; n += 1 + n) {
        for (size_t i = 0; i <= KSLLM_MAX_TOP; i++)
            top[i].token = -7;
        CHECK_OK(ksllm_sample(w.s, &sm, 0, &t, n ? top : NULL, n, &w.e),
                 w.e);
        CHECK_EQ(t.token, order[0]);
        CHECK(fabs((double)t.logprob - lp[order[0]]) < 1e-4);
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ(top[i].token, order[i]);
            CHECK(fabs((double)top[i].logprob - lp[order[i]]) < 1e-4);
        }
        CHECK_EQ(top[n].token, -7);
    }
    /* Under the model: whatever is done to the logits afterwards. */
    ksllm_logit_bias bias[2] = {{order[50], 1000}, {order[1], -INFINITY}};
    sm.biases = bias;
    sm.n_biases = 2;
    sm.temperature = 3;
    CHECK_OK(ksllm_sample(w.s, &sm, 0, &t, top, 3, &w.e), w.e);
    CHECK_EQ(t.token, order[50]);
    CHECK(fabs((double)t.logprob - lp[order[50]]) < 1e-4);
    CHECK_EQ(top[1].token, order[1]);
    /* The session keeps its logits. */
    CHECK(ksllm_session_logits(w.s) == logits);
    double again[V];
    naive_logprobs(logits, V, again);
    CHECK(memcmp(lp, again, sizeof lp) == 0);
    end(&w);
}

TEST(bias_and_filter)
{
    world w = begin("llama", 64);
    ksllm_sampling sm;
    ksllm_token_prob t;
    ksllm_logit_bias bias[V];
    hold_prompt(&w, 20);
    /* All but one forbidden, by bias. */
    for (int i = 0; i < V; i++)
        bias[i] = (ksllm_logit_bias){i, -INFINITY};
    ksllm_sampling_init(&sm);
    sm.biases = bias;
    for (int k = 0; k < 2; k++) {
        sm.temperature = (float)k;
        sm.repeat_penalty = 1.3f;
        sm.n_biases = V;
        CHECK_EQ(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e),
                 KSLLM_ERR_STATE);
        CHECK(w.e.text[0]);
        sm.n_biases = V - 1;
        CHECK_OK(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e), w.e);
        CHECK_EQ(t.token, V - 1);
    }
    /* Bad entries. */
    bias[0].token = V;
    CHECK(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e) < 0);
    bias[0].token = -1;
    CHECK(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e) < 0);
    sm.biases = NULL;
    CHECK(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e) < 0);
    /* A filter that leaves nothing, or rubbish. */
    static const float rubbish[] = {-INFINITY, NAN, INFINITY, 0, -0.0f,
                                    3e38f, -3e38f, 1e-45f};
    for (size_t i = 0; i < 8; i++)
        for (int k = 0; k < 3; k++) {
            float logits[V];
            for (int j = 0; j < V; j++)
                logits[j] = k == 2 && j & 1 ? 1.0f : rubbish[i];
            ksllm_sampling_init(&sm);
            sm.filter = put_logits;
            sm.filter_ctx = logits;
            sm.temperature = (float)k;
            sm.top_k = 20;
            sm.top_p = 0.9f;
            sm.min_p = 0.05f;
            sm.frequency_penalty = 0.5f;
            ksllm_status st = ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e);
            if (i == 0 && k < 2)
                CHECK_EQ(st, KSLLM_ERR_STATE);
            else if (i >= 3)
                CHECK_EQ(st, KSLLM_OK);
            if (st == KSLLM_OK)
                CHECK(t.token >= 0 && t.token < V);
            if (i == 0 && k == 2)
                CHECK(st == KSLLM_OK && t.token % 2 == 1);
        }
    end(&w);
}

static int32_t suppressed[V];
static size_t n_suppressed;

static void suppress(struct fx_build *b)
{
    fx_suppress(b, suppressed, n_suppressed);
}

/* What the file suppresses is as what the caller forbids, and no bias or filter
 * of the caller's brings it back. Probabilities are the model's own. */
TEST(suppressed_tokens_are_not_drawn)
{
    world w = begin("llama", 64), other = {.m = NULL};
    fx_spec spec = *fx_spec_of("llama");
    ksllm_logit_bias bias[V];
    float logits[V];
    uint64_t rng = test_seed;
    spec.more = suppress;
    for (n_suppressed = 0; n_suppressed < V - 1; n_suppressed++)
        suppressed[n_suppressed] = (int32_t)n_suppressed + 1;
    for (size_t i = V - 1; i > 0; i--) {    /* in any order, 3 times and more */
        size_t k = fx_below(&rng, (uint32_t)i);
        int32_t id = suppressed[i - 1];
        suppressed[i - 1] = suppressed[k], suppressed[k] = id;
    }
    for (n_suppressed = V - 1; n_suppressed > 0; n_suppressed /= 4) {
        other.f = fx_model(&spec);
        fx_must(ksllm_model_open_memory(other.f.data, other.f.size, NULL,
                                        &other.m, &other.e), &other.e);
        other.s = session_of(other.m, 64, KSLLM_OVERFLOW_ERROR);
        hold_prompt(&w, 20);
        hold_prompt(&other, 20);
        for (size_t i = 0; i < n_suppressed; i++)
            bias[i] = (ksllm_logit_bias){suppressed[i], -INFINITY};
        for (int round = 0; round < 60; round++) {
            ksllm_sampling p, q;
            ksllm_token_prob a, b, top_a[4], top_b[4];
            ksllm_sampling_init(&p);
            p.temperature = (float)(round % 3);
            p.top_k = round % 4 == 1 ? 7 : 0;
            p.top_p = round % 5 == 2 ? 0.7f : 0;
            p.min_p = round % 7 == 3 ? 0.1f : 0;
            p.repeat_penalty = round % 2 ? 1.2f : 0;
            p.seed = fx_next(&rng);
            if (round % 6 >= 4) {
                for (int i = 0; i < V; i++)
                    logits[i] = (float)fx_below(&rng, 1000) / 50;
                p.filter = put_logits;
                p.filter_ctx = logits;
            }
            q = p;
            p.biases = bias;
            p.n_biases = n_suppressed;
            if (p.filter)               /* it runs after biases */
                for (size_t i = 0; i < n_suppressed; i++)
                    logits[suppressed[i]] = -INFINITY;
            CHECK_OK(ksllm_sample(w.s, &p, 1, &a, top_a, 4, &w.e), w.e);
            for (size_t i = 0; i < n_suppressed; i++) {
                logits[suppressed[i]] = 1e6f;
                bias[i].bias = INFINITY;
            }
            q.biases = bias;
            q.n_biases = round % 2 ? n_suppressed : 0;
            CHECK_OK(ksllm_sample(other.s, &q, 1, &b, top_b, 4, &w.e), w.e);
            for (size_t i = 0; i < n_suppressed; i++)
                bias[i].bias = -INFINITY;
            CHECK_EQ(a.token, b.token);
            CHECK(a.logprob == b.logprob);
            CHECK(!memcmp(top_a, top_b, sizeof top_a));
        }
        end(&other);
    }
    end(&w);
}

static void forbid_all(void *ctx, float *logits, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++)
        logits[i] = -INFINITY;
}

/* A token that cannot be drawn ends the answer, and leaves the prompt. */
TEST(every_token_is_forbidden)
{
    world w = begin("llama", 64);
    ksllm_sampling sm;
    ksllm_generation g;
    ksllm_result res = {.size = sizeof res};
    ksllm_token_prob t;
    const int32_t ids[3] = {5, 6, 7};
    size_t have;
    ksllm_sampling_init(&sm);
    ksllm_generation_init(&g);
    sm.filter = forbid_all;
    g.sampling = &sm;
    g.tokens = ids;
    g.n_tokens = 3;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_STATE);
    CHECK_EQ(res.n_prompt, 3);
    CHECK_EQ(res.n_generated, 0);
    ksllm_session_tokens(w.s, &have);
    CHECK_EQ(have, 3);
    CHECK_EQ(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e), KSLLM_ERR_STATE);
    sm.filter = NULL;
    CHECK_OK(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e), w.e);
    end(&w);
}

/* More alternatives than there are tokens: the rest is none, -1. */
TEST(more_alternatives_than_tokens)
{
    fx_file f = fx_model(&fx_mini);
    ksllm_model *m = NULL;
    ksllm_error e;
    ksllm_session_options o = fx_small_options();
    ksllm_sampling sm;
    ksllm_token_prob t, top[KSLLM_MAX_TOP + 1];
    const int32_t id = 3;
    fx_must(ksllm_model_open_memory(f.data, f.size, NULL, &m, &e), &e);
    ksllm_session *s = fx_create(m, &o);
    size_t n = fx_n_vocab(m);
    double sum = 0;
    CHECK(n < KSLLM_MAX_TOP);
    CHECK_OK(ksllm_session_append(s, &id, 1, NULL, &e), e);
    ksllm_sampling_init(&sm);
    CHECK_EQ(ksllm_sample(s, &sm, 0, &t, top, KSLLM_MAX_TOP + 1, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK_OK(ksllm_sample(s, &sm, 0, &t, top, KSLLM_MAX_TOP, &e), e);
    for (size_t i = 0; i < KSLLM_MAX_TOP; i++) {
        CHECK((top[i].token >= 0) == (i < n));
        CHECK(i < n || top[i].logprob == -INFINITY);
        CHECK(i == 0 || top[i].logprob <= top[i - 1].logprob);
        sum += exp((double)top[i].logprob);
    }
    CHECK(fabs(sum - 1) < 1e-4);
    ksllm_session_free(s);
    fx_close(m, &f);
}

TEST(odd_sampling_options)
{
    world w = begin("llama", 64);
    static const float odd[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e-30f,
                                1e30f, 2};
    hold_prompt(&w, 20);
    for (int field = 0; field < 6; field++)
        for (size_t i = 0; i < 8; i++) {
            ksllm_sampling sm;
            ksllm_token_prob t = {-5, 0};
            ksllm_sampling_init(&sm);
            sm.temperature = 1;
            float *f[] = {&sm.temperature, &sm.top_p, &sm.min_p,
                          &sm.repeat_penalty, &sm.frequency_penalty,
                          &sm.presence_penalty};
            *f[field] = odd[i];
            ksllm_status st = ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e);
            if (st == KSLLM_OK)
                CHECK(t.token >= 0 && t.token < V);
            else
                CHECK_EQ(st, KSLLM_ERR_ARGUMENT);
            if (i == 0)
                CHECK_EQ(st, KSLLM_ERR_ARGUMENT);
        }
    ksllm_sampling sm;
    ksllm_token_prob t;
    ksllm_sampling_init(&sm);
    sm.penalty_window = 1025;
    CHECK_EQ(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e),
             KSLLM_ERR_ARGUMENT);
    sm.penalty_window = 1024;
    sm.top_k = UINT32_MAX;
    CHECK_OK(ksllm_sample(w.s, &sm, UINT64_MAX, &t, NULL, 0, &w.e), w.e);
    sm.size = 0;
    CHECK_EQ(ksllm_sample(w.s, &sm, 0, &t, NULL, 0, &w.e),
             KSLLM_ERR_ARGUMENT);
    end(&w);
}

/* The generator is the same everywhere: these are its first draws from even
 * logits, and so part of the interface. */
TEST(draws_are_fixed)
{
    world w = begin("llama", 64);
    float logits[V] = {0};
    ksllm_sampling sm;
    uint64_t hash = FX_HASH;
    hold_prompt(&w, 3);
    ksllm_sampling_init(&sm);
    sm.temperature = 1;
    sm.seed = 42;
    sm.filter = put_logits;
    sm.filter_ctx = logits;
    int32_t first[64], previous = -1;
    int same = 0;
    for (uint64_t step = 0; step < 64; step++) {
        ksllm_token_prob t;
        CHECK_OK(ksllm_sample(w.s, &sm, step, &t, NULL, 0, &w.e), w.e);
        first[step] = t.token;
        uint8_t b[4];
        fx_set(b, (uint64_t)t.token, 4);
        hash = fx_hash(hash, b, 4);
        same += t.token == previous;
        previous = t.token;
    }
    CHECK(same < 4);
    CHECK_HEX(hash, UINT64_C(0xdde6556a97034dc5));
    /* Any order of steps; another seed. */
    int equal = 0;
    for (uint64_t step = 64; step-- > 0;) {
        ksllm_token_prob t;
        sm.seed = 42;
        CHECK_OK(ksllm_sample(w.s, &sm, step, &t, NULL, 0, &w.e), w.e);
        CHECK_EQ(t.token, first[step]);
        sm.seed = 43;
        CHECK_OK(ksllm_sample(w.s, &sm, step, &t, NULL, 0, &w.e), w.e);
        equal += t.token == first[step];
    }
    CHECK(equal < 6);
    end(&w);
}

/* ---- A recorder for pieces ---------------------------------------------- */

typedef struct record {
    /* What came. */
    fx_bytes text;
    int32_t tokens[512];
    float logprobs[512];
    ksllm_token_prob top[512][4];
    size_t piece_bytes[512];
    size_t n_pieces, n_tokens;
    size_t offset;              /* tokens of the calls before */
    bool last;                  /* the call with token -1 came */
    bool wrong;
    /* What is told. */
    size_t stop_after;          /* return 1 from this piece on; 0: never */
    const int32_t *script;
    size_t n_script, at;
    ksllm_sampling sampling;
} record;

static bool whole_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint8_t c = (uint8_t)s[i];
        size_t k = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 :
                   c >= 0xc2 ? 2 : 0;
        if (!k || k > n - i || c > 0xf4)
            return false;
        for (size_t j = 1; j < k; j++)
            if ((s[i + j] & 0xc0) != 0x80)
                return false;
        i += k;
    }
    return true;
}

static int on_piece(void *ctx, const ksllm_piece *p)
{
    record *r = ctx;
    r->wrong |= !whole_utf8(p->text.data, p->text.size) || r->last ||
                r->n_pieces >= 512;
    if (r->wrong)
        return 1;
    fx_put(&r->text, p->text.data, p->text.size);
    r->piece_bytes[r->n_pieces++] = p->text.size;
    if (p->token < 0) {
        r->last = true;
        r->wrong |= p->text.size == 0;
    } else {
        r->wrong |= p->index + r->offset != r->n_tokens;
        for (size_t i = 0; i < p->n_top && i < 4; i++)
            r->top[r->n_tokens][i] = p->top[i];
        r->logprobs[r->n_tokens] = p->logprob;
        r->tokens[r->n_tokens++] = p->token;
    }
    return r->stop_after && r->n_pieces >= r->stop_after;
}

/* Forbids all but the script's next token; ends with FX_IM_END. */
static void follow_script(void *ctx, float *logits, size_t n)
{
    record *r = ctx;
    int32_t t = r->at < r->n_script ? r->script[r->at] : FX_IM_END;
    r->at++;
    for (size_t i = 0; i < n; i++)
        if ((int32_t)i != t)
            logits[i] = -INFINITY;
}

static ksllm_generation scripted(record *r, const int32_t *script, size_t n)
{
    ksllm_generation g;
    free(r->text.data);
    memset(r, 0, sizeof *r);
    r->script = script;
    r->n_script = n;
    ksllm_generation_init(&g);
    g.text = "he";
    g.on_piece = on_piece;
    g.piece_ctx = r;
    ksllm_sampling_init(&r->sampling);
    r->sampling.filter = follow_script;
    r->sampling.filter_ctx = r;
    g.sampling = &r->sampling;
    return g;
}

/* A script of one token per byte. */
static size_t byte_script(const char *s, int32_t *script)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        script[i] = (uint8_t)s[i];
    return n;
}

static void text_is(const record *r, const char *want, int line)
{
    size_t n = strlen(want);
    int ok = r->text.size == n && (!n || !memcmp(r->text.data, want, n));
    if (!ok && test_failed(__FILE__, line))
        printf("text is \"%.*s\", should be \"%s\"\n", (int)r->text.size,
               r->text.size ? (char *)r->text.data : "", want);
}
#define TEXT_IS(r, want) text_is(r, want, __LINE__)

/* ---- Generation --------------------------------------------------------- */

TEST(a_scripted_answer)
{
    world w = begin("llama", 128);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t script[100];
    const char *text = "안녕하세요, the end. \xf0\x9f\x98\x80!";
    int64_t n = ksllm_encode(w.m, text, KSLLM_NUL, 0, script, 100, &w.e);
    CHECK(n > 0);
    ksllm_generation g = scripted(&r, script, (size_t)n);
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    TEXT_IS(&r, text);
    CHECK(!r.wrong && !r.last);
    CHECK_EQ(r.n_tokens, n);
    CHECK(memcmp(r.tokens, script, (size_t)n * sizeof *script) == 0);
    CHECK_EQ(res.stop, KSLLM_STOP_TOKEN);
    CHECK_EQ(res.stop_token, FX_IM_END);
    CHECK_EQ(res.stop_text, -1);
    CHECK_EQ(res.n_prompt, 1);          /* "he" is one token */
    CHECK_EQ(res.n_generated, n);
    CHECK(res.prompt_ns > 0 && res.prompt_ns <= res.first_ns &&
          res.first_ns <= res.total_ns);
    /* The session: prompt and answer, without the stop token. */
    size_t have;
    const int32_t *t = ksllm_session_tokens(w.s, &have);
    if (CHECK_EQ(have, n + 1))
        CHECK(memcmp(t + 1, script, (size_t)n * sizeof *t) == 0);
    /* Byte by byte: characters come whole. */
    n = (int64_t)byte_script(text, script);
    g = scripted(&r, script, (size_t)n);
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    TEXT_IS(&r, text);
    CHECK(!r.wrong);
    CHECK_EQ(r.piece_bytes[0], 0);
    CHECK_EQ(r.piece_bytes[1], 0);
    CHECK_EQ(r.piece_bytes[2], 3);
    free(r.text.data);
    end(&w);
}

TEST(broken_characters)
{
    static const struct { const char *bytes, *text; } cases[] = {
        {"\xec\x95", "\xef\xbf\xbd"},
        {"a\xec\x95" "b", "a\xef\xbf\xbd" "b"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"a\xec", "a\xef\xbf\xbd"}};
    world w = begin("llama", 128);
    record r = {0};
    for (size_t i = 0; i < 4; i++) {
        ksllm_result res = {.size = sizeof res};
        int32_t script[16];
        char text[64];
        size_t n = byte_script(cases[i].bytes, script);
        ksllm_generation g = scripted(&r, script, n);
        CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
        TEXT_IS(&r, cases[i].text);
        CHECK(!r.wrong);
        CHECK_EQ(r.last, i != 1);
        int64_t k = ksllm_decode(w.m, script, n, 0, text, sizeof text, &w.e);
        if (CHECK_EQ(k, r.text.size))
            CHECK(memcmp(text, r.text.data, (size_t)k) == 0);
        /* The same when a limit ends it. */
        g = scripted(&r, script, n);
        g.max_tokens = (uint32_t)n;
        CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
        CHECK_EQ(res.stop, KSLLM_STOP_LENGTH);
        TEXT_IS(&r, cases[i].text);
    }
    free(r.text.data);
    end(&w);
}

/* All pieces together are what decoding all tokens gives, whatever the
 * tokens are. */
TEST(pieces_equal_decode)
{
    static const char *const models[] = {"llama", "spm"};
    for (int i = 0; i < 2; i++) {
        world w = begin(models[i], 256);
        record r = {0};
        int32_t prompt[3] = {65, 66, 67};
        uint64_t rng = test_seed;
        size_t v = fx_vocab_size(i ? FX_SPM : FX_BPE);
        for (int k = 0; k < 60; k++) {
            int32_t script[100];
            char text[4096];
            ksllm_result res = {.size = sizeof res};
            for (int j = 0; j < 100; j++)
                script[j] = (int32_t)fx_below(&rng, (uint32_t)v);
            ksllm_generation g = scripted(&r, script, 100);
            g.text = NULL;
            g.tokens = prompt;
            g.n_tokens = 3;
            g.ignore_stop = true;
            g.max_tokens = 100;
            g.decode_flags = k & 1 ? KSLLM_DECODE_SPECIAL : 0;
            CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
            CHECK_EQ(res.stop, KSLLM_STOP_LENGTH);
            CHECK_EQ(res.n_generated, 100);
            CHECK(!r.wrong);
            CHECK_EQ(r.n_tokens, 100);
            int64_t n = ksllm_decode(w.m, script, 100, g.decode_flags, text,
                                     sizeof text, &w.e);
            /* SentencePiece drops the space before the first word of a text,
             * but an answer is the rest of one. */
            if (i && n != (int64_t)r.text.size)
                CHECK(r.text.size == (size_t)n + 1 &&
                      memcmp(r.text.data + 1, text, (size_t)n) == 0);
            else if (CHECK_EQ(n, r.text.size))
                CHECK(memcmp(r.text.data, text, (size_t)n) == 0);
        }
        free(r.text.data);
        end(&w);
    }
}

TEST(stop_tokens)
{
    world w = begin("llama", 128);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t script[100], stops[2] = {'z', ' '};
    size_t n = byte_script("one two zed", script);
    ksllm_generation g = scripted(&r, script, n);
    g.stop_tokens = stops;
    g.n_stop_tokens = 2;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    TEXT_IS(&r, "one");
    CHECK_EQ(res.stop, KSLLM_STOP_TOKEN);
    CHECK_EQ(res.stop_token, ' ');
    CHECK_EQ(res.n_generated, 3);
    size_t have;
    ksllm_session_tokens(w.s, &have);
    CHECK_EQ(have, 4);
    /* Ignored: on to the limit. */
    g = scripted(&r, script, n);
    g.stop_tokens = stops;
    g.n_stop_tokens = 2;
    g.ignore_stop = true;
    g.max_tokens = (uint32_t)n + 5;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    TEXT_IS(&r, "one two zed");
    CHECK_EQ(res.stop, KSLLM_STOP_LENGTH);
    CHECK_EQ(res.stop_token, -1);
    CHECK_EQ(res.n_generated, n + 5);
    /* The first token already. */
    g = scripted(&r, script, 0);
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    CHECK_EQ(res.stop, KSLLM_STOP_TOKEN);
    CHECK_EQ(res.n_generated, 0);
    TEXT_IS(&r, "");
    free(r.text.data);
    end(&w);
}

/* The answer `text`, byte by byte and in merged tokens, with these stops. */
static void stops_at(world *w, const char *text, const char *const *stops,
                     size_t n_stops, int which, const char *want, int line)
{
    for (int merged = 0; merged < 2; merged++) {
        record r = {0};
        ksllm_result res = {.size = sizeof res};
        int32_t script[200];
        ksllm_text list[KSLLM_MAX_STOPS];
        size_t n = merged ? (size_t)ksllm_encode(w->m, text, KSLLM_NUL, 0,
                                                 script, 200, &w->e)
                          : byte_script(text, script);
        for (size_t i = 0; i < n_stops; i++)
            list[i] = (ksllm_text){stops[i], strlen(stops[i])};
        ksllm_generation g = scripted(&r, script, n);
        g.stop_texts = list;
        g.n_stop_texts = n_stops;
        CHECK_OK(ksllm_generate(w->s, &g, &res, &w->e), w->e);
        text_is(&r, want, line);
        test_eq(res.stop_text, which, "the stop string", __FILE__, line);
        test_eq(res.stop, which < 0 ? KSLLM_STOP_TOKEN : KSLLM_STOP_TEXT,
                "why it stopped", __FILE__, line);
        CHECK(!r.wrong);
        size_t have;
        ksllm_session_tokens(w->s, &have);
        CHECK_EQ(have, 1 + res.n_generated);
        CHECK(res.n_generated <= n);
        free(r.text.data);
    }
}
#define STOPS(text, which, want, ...)                                   \
    do {                                                                \
        const char *list_[] = {__VA_ARGS__};                            \
        stops_at(&w, text, list_, sizeof list_ / sizeof *list_, which,  \
                 want, __LINE__);                                       \
    } while (0)

TEST(stop_strings)
{
    world w = begin("llama", 256);
    STOPS("one STOP two", 0, "one ", "STOP");
    STOPS("one STO two", -1, "one STO two", "STOP");
    STOPS("one STO", -1, "one STO", "STOP");
    STOPS("one SSTOP", 0, "one S", "STOP");
    STOPS("STOP", 0, "", "STOP");
    STOPS("aabaabaac", 0, "aab", "aabaac");
    STOPS("ababababc!", 0, "abab", "ababc");
    STOPS("안녕하세요", 0, "안녕하", "세");
    STOPS("안녕하세요", 0, "안", "녕하");
    STOPS("안녕하세요", -1, "안녕하세요", "녕세");
    STOPS("하세 하세요", 0, "하세 ", "하세요");
    STOPS("a b c", 1, "a ", "c", "b");
    STOPS("xyz", 1, "x", "xyzw", "yz");
    STOPS("abcd", 1, "a", "cd", "bc");
    STOPS("abcd", 0, "a", "bcd", "cd");
    STOPS("the\n\nend", 0, "the", "\n\n");
    STOPS("the\nend", -1, "the\nend", "\n\n");
    STOPS("\xf0\x9f\x98\x80\xf0\x9f\x98\x81", 0, "\xf0\x9f\x98\x80",
          "\xf0\x9f\x98\x81");
    char longest[KSLLM_MAX_STOP_BYTES + 2];
    memset(longest, 'x', sizeof longest);
    longest[KSLLM_MAX_STOP_BYTES] = 0;
    char text[200];
    snprintf(text, sizeof text, "yxxy%sz", longest);
    STOPS(text, 0, "yxxy", longest);
    text[60] = 'y';
    STOPS(text, -1, text, longest);
    end(&w);
}

TEST(held_back_text)
{
    world w = begin("llama", 128);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t script[100];
    ksllm_text stop = {"\nUser:", 6};
    size_t n = byte_script("a\nUsb\nUser", script);
    ksllm_generation g = scripted(&r, script, n);
    g.stop_texts = &stop;
    g.n_stop_texts = 1;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    TEXT_IS(&r, "a\nUsb\nUser");
    /* a, nothing for "\nUs", then "\nUsb", nothing for "\nUser"; and what
     * was held back at the end. */
    static const size_t want[] = {1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 5};
    if (CHECK_EQ(r.n_pieces, 11))
        for (size_t i = 0; i < 11; i++)
            CHECK_EQ(r.piece_bytes[i], want[i]);
    CHECK(r.last && !r.wrong);
    CHECK_EQ(res.stop, KSLLM_STOP_TOKEN);
    free(r.text.data);
    end(&w);
}

/* Pieces in whole units; a unit without an end comes in parts. */
TEST(units)
{
    world w = begin("llama", 1024);
    static const struct {
        const char *text;
        ksllm_unit unit;
        size_t want[12];
    } cases[] = {
        {"ab c\n", KSLLM_UNIT_CHARACTER, {1, 1, 1, 1, 1}},
        {"ab c\n", KSLLM_UNIT_EOJEOL, {0, 0, 3, 0, 2}},
        {"ab\r\n", KSLLM_UNIT_GRAPHEME, {0, 1, 1, 2}},
        {"e\u0301x", KSLLM_UNIT_GRAPHEME, {0, 0, 0, 3, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        record r = {0};
        int32_t script[100];
        size_t n = byte_script(cases[i].text, script);
        ksllm_generation g = scripted(&r, script, n);
        g.unit = cases[i].unit;
        CHECK_OK(ksllm_generate(w.s, &g, NULL, &w.e), w.e);
        TEXT_IS(&r, cases[i].text);
        for (size_t k = 0; k < r.n_pieces; k++)
            CHECK_EQ(r.piece_bytes[k], cases[i].want[k]);
        CHECK(!r.wrong);
        free(r.text.data);
    }
    /* a letter with 200 accents, and an eojeol of 401 letters */
    for (int i = 0; i < 2; i++) {
        record r = {0};
        int32_t script[402];
        char text[803] = "a";
        for (int k = 0; k < 200; k++)
            memcpy(text + 1 + 2 * k, i ? "bc" : "\u0301", 3);
        size_t n = byte_script(text, script), longest = 0;
        ksllm_generation g = scripted(&r, script, n);
        g.unit = i ? KSLLM_UNIT_EOJEOL : KSLLM_UNIT_GRAPHEME;
        CHECK_OK(ksllm_generate(w.s, &g, NULL, &w.e), w.e);
        TEXT_IS(&r, text);
        for (size_t k = 0; k < r.n_pieces; k++)
            if (longest < r.piece_bytes[k])
                longest = r.piece_bytes[k];
        CHECK(longest > KSLLM_MAX_UNIT_BYTES &&
              longest <= KSLLM_MAX_UNIT_BYTES + 4);
        CHECK(!r.wrong);
        free(r.text.data);
    }
    record r = {0};
    int32_t script[10];
    ksllm_generation g = scripted(&r, script, byte_script("a", script));
    g.unit = (ksllm_unit)3;
    CHECK_EQ(ksllm_generate(w.s, &g, NULL, &w.e), KSLLM_ERR_ARGUMENT);
    end(&w);
}

TEST(stopped_by_the_callback)
{
    world w = begin("llama", 128);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t script[100];
    size_t n = byte_script("abcdefgh", script), have;
    for (size_t after = 1; after < 5; after++) {
        ksllm_generation g = scripted(&r, script, n);
        r.stop_after = after;
        CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
        CHECK_EQ(res.stop, KSLLM_STOP_CALLBACK);
        CHECK_EQ(res.n_generated, after);
        CHECK_EQ(r.n_pieces, after);
        CHECK_EQ(r.text.size, after);
        ksllm_session_tokens(w.s, &have);
        CHECK_EQ(have, 1 + after);
    }
    free(r.text.data);
    end(&w);
}

TEST(limits)
{
    world w = begin("llama", 16);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t script[100], prompt[17];
    size_t n = byte_script("abcdefghijklmnopqrstuvwxyz", script), have;
    fx_prompt(prompt, 17, 1);
    ksllm_generation g = scripted(&r, script, n);
    g.max_tokens = 5;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    CHECK_EQ(res.stop, KSLLM_STOP_LENGTH);
    CHECK_EQ(res.n_generated, 5);
    TEXT_IS(&r, "abcde");
    for (size_t k = 10; k <= 16; k += 3) {
        g = scripted(&r, script, n);
        g.text = NULL;
        g.tokens = prompt;
        g.n_tokens = k;
        CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
        CHECK_EQ(res.stop, KSLLM_STOP_CONTEXT);
        CHECK_EQ(res.n_prompt, k);
        CHECK_EQ(res.n_generated, 16 - k);
        CHECK_EQ(r.n_tokens, 16 - k);
        ksllm_session_tokens(w.s, &have);
        CHECK_EQ(have, 16);
    }
    /* Prompts that do not fit, by tokens and by bytes. */
    g.n_tokens = 17;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_CONTEXT);
    CHECK_EQ(res.stop, KSLLM_STOP_NONE);
    char text[16 * 16 + 2];
    memset(text, '!', sizeof text);
    g.tokens = NULL;
    g.n_tokens = 0;
    g.text = text;
    g.text_size = 17;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_CONTEXT);
    g.text_size = 16 * 16 + 1;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_CONTEXT);
    ksllm_session_tokens(w.s, &have);
    CHECK_EQ(have, 16);
    g.text_size = 16;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    CHECK_EQ(res.n_prompt, 16);
    /* The session that slides goes on. */
    ksllm_session *s = session_of(w.m, 16, KSLLM_OVERFLOW_SLIDE);
    g = scripted(&r, script, n);
    g.max_tokens = 24;
    CHECK_OK(ksllm_generate(s, &g, &res, &w.e), w.e);
    CHECK_EQ(res.stop, KSLLM_STOP_LENGTH);
    CHECK_EQ(res.n_generated, 24);
    TEXT_IS(&r, "abcdefghijklmnopqrstuvwx");
    const int32_t *t = ksllm_session_tokens(s, &have);
    CHECK(have <= 16 && t[have - 1] == 'x' && t[1] == 'a');
    ksllm_session_free(s);
    free(r.text.data);
    end(&w);
}

TEST(refused)
{
    world w = begin("llama", 64);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t id = 5, bad = V, script[4] = {'a', 'b', 'c', 'd'};
    ksllm_text stops[17];
    char longer[KSLLM_MAX_STOP_BYTES + 1] = {'x'};
    for (int i = 0; i < 17; i++)
        stops[i] = (ksllm_text){"x", 1};
    /* Nothing to go on from. */
    ksllm_generation g = scripted(&r, script, 4);
    g.text = NULL;
    CHECK(ksllm_generate(w.s, &g, &res, &w.e) < 0);
    CHECK(w.e.text[0]);
    g.text = NULL;
    g.tokens = &bad;
    g.n_tokens = 1;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_TOKEN);
    CHECK_EQ(res.stop, KSLLM_STOP_NONE);
    CHECK_EQ(res.n_generated, 0);
    CHECK_EQ(res.stop_token, -1);
    CHECK_EQ(res.stop_text, -1);
    g.tokens = &id;
    g.n_top = KSLLM_MAX_TOP + 1;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    g.n_top = 0;
    g.stop_texts = stops;
    g.n_stop_texts = 17;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    g.n_stop_texts = 16;
    stops[3] = (ksllm_text){longer, sizeof longer};
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    stops[3] = (ksllm_text){"", 0};
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    stops[3] = (ksllm_text){&"각"[1], 2};
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(w.e.text, "inside a character") != NULL);
    stops[3] = (ksllm_text){NULL, 1};
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    g.stop_texts = NULL;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    g.n_stop_texts = 0;
    g.n_stop_tokens = 1;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    g.n_stop_tokens = 0;
    g.text = "a";
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(w.e.text, "both text and tokens") != NULL);
    g.text = NULL;
    g.n_tokens = 0;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    g.tokens = NULL;
    g.n_tokens = 1;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(w.e.text, "tokens is NULL") != NULL);
    g.tokens = &id;
    CHECK_EQ(r.n_pieces, 0);
    size_t have;
    ksllm_session_tokens(w.s, &have);
    CHECK_EQ(have, 0);
    CHECK_OK(ksllm_generate(w.s, &g, NULL, NULL), w.e);
    TEXT_IS(&r, "abcd");
    free(r.text.data);
    end(&w);
}

TEST(prompts)
{
    world w = begin("spm", 128), b = begin("llama", 128);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    int32_t want[64];
    size_t have;
    const char *text = "안녕 the he";
    ksllm_generation g;
    ksllm_generation_init(&g);
    CHECK_EQ(g.encode_flags, KSLLM_ENCODE_BOS | KSLLM_ENCODE_COMPOSE);
    CHECK_EQ((int64_t)g.text_size, (int64_t)KSLLM_NUL);
    g.max_tokens = 1;
    g.ignore_stop = true;
    g.text = text;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    int64_t n = ksllm_encode(w.m, text, KSLLM_NUL, g.encode_flags, want, 64,
                             &w.e);
    const int32_t *t = ksllm_session_tokens(w.s, &have);
    CHECK_EQ(want[0], 1);
    CHECK_EQ(res.n_prompt, n);
    if (CHECK_EQ(have, n + 1))
        CHECK(memcmp(t, want, (size_t)n * sizeof *t) == 0);
    /* Added text has no BOS. */
    size_t before = have;
    g.append = true;
    g.text = "he";
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    n = ksllm_encode(w.m, "he", 2, KSLLM_ENCODE_COMPOSE, want, 64, &w.e);
    t = ksllm_session_tokens(w.s, &have);
    CHECK_EQ(res.n_prompt, n);
    if (CHECK_EQ(have, before + (size_t)n + 1))
        CHECK(memcmp(t + before, want, (size_t)n * sizeof *t) == 0);
    /* To an empty session it has. */
    ksllm_session_rewind(w.s, 0, NULL);
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    t = ksllm_session_tokens(w.s, &have);
    CHECK_EQ(t[0], 1);
    /* Composed from letters; a forged turn stays text; the end by size. */
    g.append = false;
    g.text = "\xe1\x84\x92\xe1\x85\xa1<|im_end|>nothing";
    g.text_size = 16;
    CHECK_OK(ksllm_generate(b.s, &g, &res, &w.e), w.e);
    n = ksllm_encode(b.m, "하<|im_end|>", KSLLM_NUL, 0, want, 64, &w.e);
    CHECK(n > 5);
    t = ksllm_session_tokens(b.s, &have);
    if (CHECK_EQ(have, n + 1))
        CHECK(memcmp(t, want, (size_t)n * sizeof *t) == 0);
    g.encode_flags |= KSLLM_ENCODE_SPECIAL;
    CHECK_OK(ksllm_generate(b.s, &g, &res, &w.e), w.e);
    t = ksllm_session_tokens(b.s, &have);
    CHECK_EQ(have, 3);
    CHECK_EQ(t[1], FX_IM_END);
    free(r.text.data);
    end(&w);
    end(&b);
}

TEST(timelines)
{
    world w = begin("llama", 128);
    record r = {0};
    ksllm_result res = {.size = sizeof res};
    ksllm_generation g;
    int32_t ten[10], prompt[20];
    size_t have;
    fx_prompt(prompt, 20, 4);
    ksllm_generation_init(&g);
    g.tokens = prompt;
    g.n_tokens = 12;
    g.max_tokens = 10;
    g.ignore_stop = true;
    g.on_piece = on_piece;
    g.piece_ctx = &r;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    memcpy(ten, r.tokens, sizeof ten);
    CHECK_EQ(res.n_reused, 0);
    /* Greedy by hand. */
    ksllm_session *s = session_of(w.m, 64, KSLLM_OVERFLOW_ERROR);
    CHECK_OK(ksllm_session_sync(s, prompt, 12, NULL, &w.e), w.e);
    for (int i = 0; i < 10; i++) {
        double lp[V];
        int order[V];
        naive_logprobs(ksllm_session_logits(s), V, lp);
        naive_order(lp, V, order);
        CHECK_EQ(ten[i], order[0]);
        CHECK(fabs((double)r.logprobs[i] - lp[order[0]]) < 1e-4);
        CHECK_OK(ksllm_session_append(s, &ten[i], 1, NULL, &w.e), w.e);
    }
    ksllm_session_free(s);
    /* The same prompt again: reused, and the same answer. */
    free(r.text.data);
    memset(&r, 0, sizeof r);
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    CHECK(res.n_reused >= 11 && res.n_reused <= 12);
    CHECK_EQ(res.n_prompt, 12);
    CHECK(memcmp(r.tokens, ten, sizeof ten) == 0);
    /* In two halves, the second going on from the session. */
    free(r.text.data);
    memset(&r, 0, sizeof r);
    g.max_tokens = 5;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    g.tokens = NULL;
    g.n_tokens = 0;
    r.n_tokens = 0;
    r.n_pieces = 0;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    CHECK(memcmp(r.tokens, ten + 5, 5 * sizeof *ten) == 0);
    CHECK_EQ(res.n_prompt, 0);
    ksllm_session_tokens(w.s, &have);
    CHECK_EQ(have, 22);
    /* Appended tokens keep what was there. */
    g.tokens = prompt + 12;
    g.n_tokens = 8;
    g.append = true;
    r.n_tokens = 0;
    r.n_pieces = 0;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    const int32_t *t = ksllm_session_tokens(w.s, &have);
    CHECK_EQ(have, 35);
    CHECK(memcmp(t, prompt, 12 * sizeof *t) == 0);
    CHECK(memcmp(t + 12, ten, sizeof ten) == 0);
    CHECK(memcmp(t + 22, prompt + 12, 8 * sizeof *t) == 0);
    CHECK_EQ(res.n_prompt, 8);
    free(r.text.data);
    end(&w);
}

TEST(seeds)
{
    world w = begin("llama", 128);
    static record r[3];
    ksllm_result res = {.size = sizeof res};
    ksllm_sampling sm;
    ksllm_sampling_init(&sm);
    sm.temperature = 1.5f;
    sm.top_p = 0.95f;
    memset(r, 0, sizeof r);
    for (int i = 0; i < 3; i++) {
        ksllm_session *s = session_of(w.m, 128, KSLLM_OVERFLOW_ERROR);
        ksllm_generation g;
        ksllm_generation_init(&g);
        g.text = "안녕하세요";
        g.max_tokens = 60;
        g.ignore_stop = true;
        sm.seed = i == 2 ? 8 : 7;
        g.sampling = &sm;
        g.n_top = 4;
        g.on_piece = on_piece;
        g.piece_ctx = &r[i];
        if (i == 1) {               /* in two calls: the same draws */
            g.max_tokens = 25;
            CHECK_OK(ksllm_generate(s, &g, &res, &w.e), w.e);
            g.max_tokens = 35;
            g.text = NULL;
            r[1].offset = 25;       /* indices begin at 0 again */
        }
        CHECK_OK(ksllm_generate(s, &g, &res, &w.e), w.e);
        CHECK_EQ(r[i].n_tokens, 60);
        ksllm_session_free(s);
    }
    CHECK(!r[0].wrong && !r[1].wrong && !r[2].wrong);
    CHECK(memcmp(r[0].tokens, r[1].tokens, 60 * sizeof(int32_t)) == 0);
    CHECK(memcmp(r[0].tokens, r[2].tokens, 60 * sizeof(int32_t)) != 0);
    /* Log-probabilities and alternatives of each step. */
    int32_t prompt[16];
    int64_t n = ksllm_encode(w.m, "안녕하세요", KSLLM_NUL, 1, prompt, 16,
                             &w.e);
    CHECK_OK(ksllm_session_sync(w.s, prompt, (size_t)n, NULL, &w.e), w.e);
    for (int i = 0; i < 60; i++) {
        double lp[V];
        int order[V];
        naive_logprobs(ksllm_session_logits(w.s), V, lp);
        naive_order(lp, V, order);
        int32_t t = r[0].tokens[i];
        ksllm_token_prob drawn;
        sm.seed = 7;
        CHECK_OK(ksllm_sample(w.s, &sm, (uint64_t)(n + i), &drawn, NULL, 0,
                              &w.e), w.e);
        CHECK_EQ(drawn.token, t);
        CHECK(fabs((double)r[0].logprobs[i] - lp[t]) < 1e-4);
        for (int k = 0; k < 4; k++) {
            CHECK_EQ(r[0].top[i][k].token, order[k]);
            CHECK(fabs((double)r[0].top[i][k].logprob - lp[order[k]])
                  < 1e-4);
        }
        CHECK_OK(ksllm_session_append(w.s, &t, 1, NULL, &w.e), w.e);
    }
    for (int i = 0; i < 3; i++)
        free(r[i].text.data);
    end(&w);
}

/* Byte tokens of SentencePiece: one byte each, together any text. */
TEST(byte_tokens)
{
    world w = begin("spm", 64);
    const char *text = "\xf0\x9f\x98\x80 \xe2\x82\xac";
    char out[64];
    int32_t ids[64];
    for (int32_t i = 0; i < 256; i++) {
        CHECK_EQ(ksllm_token_bytes(w.m, 3 + i, 0, out, sizeof out), 1);
        CHECK_EQ((uint8_t)out[0], i);
    }
    int64_t n = ksllm_encode(w.m, text, KSLLM_NUL, 0, ids, 64, &w.e);
    CHECK(n > 5 && n < 64);
    int64_t k = ksllm_decode(w.m, ids, (size_t)n, 0, out, sizeof out, &w.e);
    if (CHECK_EQ(k, strlen(text)))
        CHECK(memcmp(out, text, (size_t)k) == 0);
    end(&w);
}

/* ---- Stopped from outside ----------------------------------------------- */

typedef struct canceller {
    ksllm_cancel cancel;
    int left;
} canceller;

static int cancel_later(void *ctx, const ksllm_piece *p)
{
    canceller *c = ctx;
    (void)p;
    if (c->left-- == 0)
        ksllm_cancel_set(&c->cancel);
    return 0;
}

TEST(cancelled_and_late)
{
    world w = begin("llama", 128);
    ksllm_result res = {.size = sizeof res};
    ksllm_generation g;
    int32_t prompt[60], whole[20];
    size_t have;
    fx_prompt(prompt, 60, 4);
    ksllm_generation_init(&g);
    g.tokens = prompt;
    g.n_tokens = 60;
    g.max_tokens = 20;
    g.ignore_stop = true;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    memcpy(whole, ksllm_session_tokens(w.s, &have) + 60, sizeof whole);
    ksllm_control control;
    ksllm_control_init(&control);
    g.control = &control;
    for (int k = 0; k < 4; k++) {
        canceller c = {{0}, 3 * k};
        ksllm_session_rewind(w.s, 0, NULL);
        g.tokens = prompt;
        g.n_tokens = 60;
        g.max_tokens = 20;
        g.on_piece = cancel_later;
        g.piece_ctx = &c;
        control.cancel = &c.cancel;
        CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_CANCELLED);
        CHECK_EQ(w.e.status, KSLLM_ERR_CANCELLED);
        CHECK_EQ(res.stop, KSLLM_STOP_CANCELLED);
        const int32_t *t = ksllm_session_tokens(w.s, &have);
        CHECK(have >= 60 && have <= (size_t)(61 + 3 * k));
        CHECK(memcmp(t, prompt, sizeof prompt) == 0);
        CHECK(memcmp(t + 60, whole, (have - 60) * sizeof *t) == 0);
        /* The rest as if nothing had happened: the tokens are given, so the
         * logits come back even if the stopped call lost them. */
        int32_t all[80];
        memcpy(all, t, have * sizeof *t);
        ksllm_cancel_clear(&c.cancel);
        g.on_piece = NULL;
        g.tokens = all;
        g.n_tokens = have;
        g.max_tokens = (uint32_t)(80 - have);
        CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
        t = ksllm_session_tokens(w.s, &have);
        CHECK_EQ(have, 80);
        CHECK(memcmp(t + 60, whole, sizeof whole) == 0);
        /* Before it begins. */
        ksllm_cancel_set(&c.cancel);
        CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_CANCELLED);
        control.cancel = NULL;
    }
    ksllm_session_rewind(w.s, 0, NULL);
    g.tokens = prompt;
    g.n_tokens = 60;
    control.budget_us = 1;
    CHECK_EQ(ksllm_generate(w.s, &g, &res, &w.e), KSLLM_ERR_DEADLINE);
    CHECK_EQ(res.stop, KSLLM_STOP_DEADLINE);
    CHECK_EQ(res.n_generated, 0);
    control.budget_us = 0;
    g.max_tokens = 20;
    CHECK_OK(ksllm_generate(w.s, &g, &res, &w.e), w.e);
    CHECK(memcmp(ksllm_session_tokens(w.s, &have) + 60, whole,
                 sizeof whole) == 0);
    end(&w);
}

TEST_MAIN
