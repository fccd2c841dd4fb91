/* test_model.c - the forward pass: right, and the same bits everywhere.
 *
 * Three witnesses. A naive forward pass in double precision, written from the
 * papers with plain loops over the dequantized weights, says whether the
 * logits are right. A table of golden hashes says that they are the same on
 * every machine and compiler. And every way to reach the same tokens (threads,
 * batches, instruction sets, cached prefixes, forks) must give the same bits.
 */
#include "test.h"
#include "fixture.h"

#include <math.h>
#include <pthread.h>

/* ---- Golden hashes ------------------------------------------------------ */

/* FNV-1a of the logits after 70 tokens and after each of 4 more, one by one,
 * with an int8, an f16 and an f32 cache. Taken from the scalar row. They change
 * when the arithmetic changes on purpose, and for no other reason:
 *
 *     build/tests/test_model golden     prints the lines that differ
 */
typedef struct golden_case {
    const char *name;
    uint64_t hash[3];
} golden_case;

static const golden_case golden_cases[] = {
#define G(name, a, b, c) {name, {UINT64_C(a), UINT64_C(b), UINT64_C(c)}}
    G("llama", 0x211367b8b6032530, 0xb4159680f68fff75,
      0x29fe36791d4446e7),
    G("qwen2", 0xb18a9676232bdce2, 0x2c34ed4345fdfa1c,
      0xf0f2d3fb6c4ee555),
    G("qwen3", 0x4c5d60404e0c3f58, 0x9bc3675aea6058c9,
      0x42fe8bc3f7813980),
    G("gemma3", 0xf314617f3d3e37f7, 0xa626c025ec100f70,
      0x5e3f0016bdf42956),
    G("freqs", 0x7642c233cd11017a, 0x8fff67f116d09410,
      0x192511f927d8b088),
    G("linear", 0x737214bd0944e1be, 0x9b66b7a2ea432ccc,
      0x4c0972bf0d6a0458),
    G("yarn", 0xa42a73f5d6137b19, 0x30f1f91b64cbc312,
      0xc9b772e73aac2372),
    G("spm", 0x8d35bcbd5031fe4d, 0xc35dfe435c66c5bd,
      0x35b34aed0afeb3cd),
    G("window", 0x028e4f95247eb52d, 0xb2f132f6e8001436,
      0x4cd74837f4af0ef3),
    G("mixed", 0x917c65df9f4b93aa, 0x0b38b85eb67122cb,
      0x1e749e16b27e702b),
    G("type_F32", 0xe21c0da9ad0fe240, 0xa30f7951072308ba,
      0x09ddf6bb41fa4b00),
    G("type_F16", 0x9b31a0623f8c6dd3, 0x95bf7fd3d9738566,
      0xf03302e73c40d81d),
    G("type_BF16", 0xd7babec95a0ac853, 0x25b0206463475f01,
      0xb40352c34906991a),
    G("type_Q4_0", 0xae6fddca64eee52b, 0xdfaa27da239b2a42,
      0xa2073fdde0f61f94),
    G("type_Q4_1", 0x57083ec3937bcc03, 0x06bc5624469d05f2,
      0x37754c972c3f8fc7),
    G("type_Q5_0", 0xe955c734faa9623e, 0xca640796f04912e7,
      0x436677f655591bdf),
    G("type_Q5_1", 0x9e84c39510fd6612, 0x30836324afa6f12e,
      0x70f1506495aa9121),
    G("type_Q8_0", 0x95dab49f7bc4e899, 0x8727f6d73d601ee7,
      0xfc7a9230fff051ec),
    G("type_Q2_K", 0xed67d7fd83777ec5, 0x4325318e0b2d0a17,
      0x243cd07fcbb27fdd),
    G("type_Q3_K", 0xe287925bd25e9f2d, 0x7c25964f64829da5,
      0xee66ee424b940bfe),
    G("type_Q4_K", 0x8be56e4c79fef496, 0x7e8f8e9f4f22555b,
      0x6440030a7fc64238),
    G("type_Q5_K", 0xdaa04c679c29ddbb, 0x1adb62d1b4b9eb8d,
      0x3e47873555c08f34),
    G("type_Q6_K", 0xbabb94126480a0c5, 0xd0a2026b5083d6bc,
      0xa9ad9b741b3efc5a),
    G("type_IQ4_NL", 0x8e65b737a4271b51, 0xded5576f925a31d0,
      0x157997242def2a0e),
    G("type_IQ4_XS", 0x69d1c3cb3539bc2c, 0xb42da6f03e3195fd,
      0xecf29366034dc0e6),
#undef G
};

enum { N_PROMPT = 70, N_MORE = 4, N_ALL = N_PROMPT + N_MORE };

typedef struct way {
    uint32_t threads, batch;
    size_t split;               /* tokens per call */
} way;

static const char *isa_used;    /* for messages */

static ksllm_model *open_spec(const fx_spec *s, const char *isa, fx_file *f)
{
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    ksllm_model_options_init(&o);
    o.isa = isa;
    isa_used = isa ? isa : "best";
    *f = fx_model(s);
    CHECK_OK(ksllm_model_open_memory(f->data, f->size, &o, &m, &e), e);
    return m;
}

static ksllm_session *new_session(const ksllm_model *m, uint32_t n_ctx,
                                  way w, ksllm_type kv)
{
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error e;
    ksllm_session_options_init(&o);
    o.n_ctx = n_ctx;
    o.n_threads = w.threads;
    o.n_batch = w.batch;
    o.kv_type = kv;
    CHECK_OK(ksllm_session_create(m, &o, &s, &e), e);
    return s;
}

static uint64_t run_way(const ksllm_model *m, way w, ksllm_type kv)
{
    int32_t tokens[N_ALL];
    uint64_t hash = FX_HASH;
    ksllm_error e;
    ksllm_session *s = new_session(m, 128, w, kv);
    if (!s)
        return 0;
    fx_prompt(tokens, N_ALL, 7);
    for (size_t i = 0; i < N_PROMPT; i += w.split) {
        size_t n = N_PROMPT - i < w.split ? N_PROMPT - i : w.split;
        CHECK_OK(ksllm_session_append(s, tokens + i, n, NULL, &e), e);
    }
    for (size_t i = N_PROMPT; i <= N_ALL; i++) {
        const float *l = ksllm_session_logits(s);
        if (!CHECK(l != NULL))
            break;
        hash = fx_hash_floats(hash, l, fx_n_vocab(m));
        if (i < N_ALL)
            CHECK_OK(ksllm_session_append(s, tokens + i, 1, NULL, &e), e);
    }
    ksllm_session_free(s);
    return hash;
}

static const ksllm_type cache_types[3] = {
    KSLLM_TYPE_Q8_0, KSLLM_TYPE_F16, KSLLM_TYPE_F32};

static const golden_case *golden_of(const char *name)
{
    static const golden_case none = {"", {0, 0, 0}};
    for (size_t i = 0; i < sizeof golden_cases / sizeof golden_cases[0]; i++)
        if (strcmp(golden_cases[i].name, name) == 0)
            return &golden_cases[i];
    return &none;
}

/* The scalar row is slow, and was run by the caller: one way, with `cache`. So
 * are all of them in a build for coverage. */
static void same_on_all_ways(const fx_spec *s, int cache)
{
    const uint64_t *want = golden_of(s->name)->hash;
    static const way ways[] = {
        {1, 64, N_PROMPT}, {2, 64, 1}, {3, 5, 7}, {4, 0, 32},
        {1, 1, N_PROMPT}, {2, 200, N_PROMPT}};
    const char *isa;
    for (size_t k = 0; (isa = ksllm_isa_at(k)) != NULL; k++) {
        fx_file f;
        ksllm_model *m = open_spec(s, isa, &f);
        bool one = test_times(1, 0) &&
            (strcmp(isa, "scalar") == 0 || TEST_ONE_OF > 1);
        for (int i = one ? 2 : 0; m && i < (one ? 3 : 6); i++)
            for (int c = 0; c < 3; c++)
                if ((one ? c == cache : !c || i == 1 || i == 2) &&
                    !CHECK_HEX(run_way(m, ways[i], cache_types[c]), want[c]))
                    printf("%s on %s, way %d\n", s->name, isa, i);
        ksllm_model_close(m);
        free(f.data);
    }
}

/* The plain way of going through a model, with each cache, or one of them. */
static bool golden_plain(const fx_spec *s, const char *isa, int only)
{
    const golden_case *g = golden_of(s->name);
    uint64_t h[3] = {g->hash[0], g->hash[1], g->hash[2]};
    const way plain = {1, 0, N_PROMPT};
    fx_file f;
    ksllm_model *m = open_spec(s, isa, &f);
    bool ok = true;
    for (int c = 0; c < 3 && m; c++) {
        if (only >= 0 && c != only)
            continue;
        h[c] = run_way(m, plain, cache_types[c]);
        ok &= CHECK_HEX(h[c], g->hash[c]);
    }
    if (!ok && only < 0)
        printf("    G(\"%s\", 0x%016" PRIx64 ",\n      0x%016" PRIx64
               ", 0x%016" PRIx64 "),\n", s->name, h[0], h[1], h[2]);
    ksllm_model_close(m);
    free(f.data);
    if (!ok && only >= 0)       /* says what the line is now */
        return golden_plain(s, isa, -1);
    return m && CHECK(h[0] != h[1] && h[1] != h[2]);
}

/* Where a cache has another type, the weights' types do not matter: of the
 * types each has one of the three. */
static void golden_range(size_t from, size_t to, bool each)
{
    for (size_t i = from; i < to; i++)
        if (golden_plain(&fx_specs[i], "scalar",
                         each || test_times(0, 1) ? -1 : (int)(i % 3)))
            same_on_all_ways(&fx_specs[i], (int)(i % 3));
}

/* For machines that are slow: under an emulator the two below take minutes. */
TEST(shortest_golden)
{
    const char *isa;
    for (size_t k = 0; (isa = ksllm_isa_at(k)) != NULL; k++)
        golden_plain(fx_spec_of("mixed"), isa, -1);
}

TEST(golden_architectures) { golden_range(0, 10, true); }
TEST(golden_types) { golden_range(10, FX_SPECS, false); }

/* Queries, keys and values as one tensor are the same model (llama.cpp's
 * converter has --fuse-qkv). */
TEST(fused_queries_keys_and_values)
{
    static const char *const names[] = {
        "llama", "qwen2", "yarn", "gemma3", "type_Q4_K", "lfm2", "gemma4"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fx_spec s = *fx_spec_of(names[i]);
        uint64_t hash[2] = {0};
        for (int fused = 0; fused < 2; fused++) {
            fx_file f;
            s.fused = fused;
            ksllm_model *m = open_spec(&s, NULL, &f);
            if (m)
                hash[fused] = run_way(m, (way){1, 0, N_PROMPT},
                                      KSLLM_TYPE_Q8_0);
            ksllm_model_close(m);
            free(f.data);
        }
        if (!CHECK_HEX(hash[0], hash[1]))
            printf("%s\n", names[i]);
    }
}

TEST(mixed_model_has_all_types)
{
    fx_file f;
    ksllm_model *m = open_spec(fx_spec_of("mixed"), NULL, &f);
    uint64_t seen = 0;
    for (size_t i = 0; i < ksllm_tensor_count(m); i++) {
        ksllm_tensor t = {.size = sizeof t};
        ksllm_tensor_at(m, i, &t);
        seen |= (uint64_t)1 << t.type;
    }
    for (int i = 0; i < FX_MIXED_TYPES; i++)
        CHECK(seen >> fx_types[i].type & 1);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- The naive forward pass --------------------------------------------- */

/* Beside quantized weights the library rounds activations to int8, with one
 * scale for as many as the weights' blocks have. */
static void naive_quantize(const ksllm_model *m, const char *name,
                           const double *x, size_t n, double *out)
{
    ksllm_tensor t = {.size = sizeof t};
    size_t block = 1;
    if (ksllm_tensor_find(m, name, &t) == KSLLM_OK)
        block = fx_type_of(t.type)->items;
    for (size_t i = 0; i < n; i += block) {
        double top = 0;
        for (size_t k = i; k < i + block; k++)
            top = fmax(top, fabs(x[k]));
        for (size_t k = i; k < i + block; k++)
            out[k] = block > 1 && top > 0
                         ? rint(x[k] / top * 127) * top / 127 : x[k];
    }
}

typedef struct naive {
    const ksllm_model *m;
    const fx_spec *s;
    bool int8;                  /* round activations */
    double *x, *h, *q, *att, *gate, *up, *out;
    double *k, *v;              /* [layer][position][kv] */
    size_t n;
    bool bad;
} naive;

/* Row r of a tensor, in double. */
static void naive_row(naive *a, const char *name, uint64_t r, double *out,
                      size_t n)
{
    ksllm_tensor t = {.size = sizeof t};
    float row[512];
    if (ksllm_tensor_find(a->m, name, &t) || t.dims[0] != n || n > 512 ||
        ksllm_tensor_row(a->m, &t, r, row)) {
        a->bad = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = row[i];
}

static bool naive_has(naive *a, const char *name)
{
    ksllm_tensor t = {.size = sizeof t};
    return ksllm_tensor_find(a->m, name, &t) == KSLLM_OK;
}

static void naive_matmul(naive *a, const char *name, const double *x,
                         size_t n_in, double *y, size_t n_out)
{
    double row[512], rounded[512];
    if (a->int8) {
        naive_quantize(a->m, name, x, n_in, rounded);
        x = rounded;
    }
    for (size_t r = 0; r < n_out && !a->bad; r++) {
        double sum = 0;
        naive_row(a, name, r, row, n_in);
        for (size_t i = 0; i < n_in; i++)
            sum += row[i] * x[i];
        y[r] = sum;
    }
}

static void naive_norm(naive *a, const char *name, const double *x, size_t n,
                       double *y)
{
    double w[512], sum = 0;
    naive_row(a, name, 0, w, n);
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double r = 1 / sqrt(sum / (double)n + 0x1p-17);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

/* Rotates one head in place. */
static void naive_rope(naive *a, double *x, size_t pos, bool local)
{
    const fx_spec *s = a->s;
    size_t d = s->head_dim;
    bool pairs = strcmp(s->arch, "llama") == 0;
    double base = 10000, pi = 3.14159265358979323846, freqs[256], scale = 1;
    for (size_t i = 0; i < d / 2; i++)
        freqs[i] = 1;
    if (s->rope == FX_ROPE_FREQS)
        naive_row(a, "rope_freqs.weight", 0, freqs, d / 2);
    double low = floor((double)d * log(32 / (32 * 2 * pi)) / (2 * log(base)));
    double high = ceil((double)d * log(32 / (2 * pi)) / (2 * log(base)));
    low = fmax(low, 0);
    high = fmin(high, (double)d - 1);
    for (size_t i = 0; i < d / 2; i++) {
        double f = pow(base, -2.0 * (double)i / (double)d) / freqs[i];
        if (s->rope == FX_ROPE_LINEAR && !local)
            f /= 4;
        if (s->rope == FX_ROPE_YARN) {
            double ramp = ((double)i - low) / fmax(0.001, high - low);
            ramp = fmin(fmax(ramp, 0), 1);
            f = f * (1 - ramp) + f / 4 * ramp;
            scale = 1 + 0.1 * log(4.0);
        }
        double c = cos((double)pos * f) * scale;
        double n = sin((double)pos * f) * scale;
        size_t j = pairs ? 2 * i : i, k = pairs ? 2 * i + 1 : i + d / 2;
        double xj = x[j], xk = x[k];
        x[j] = xj * c - xk * n;
        x[k] = xj * n + xk * c;
    }
}

static void naive_attention(naive *a, uint32_t layer, size_t pos, bool local)
{
    const fx_spec *s = a->s;
    size_t d = s->head_dim, kv = s->n_kv_heads * d;
    const double *keys = a->k + layer * a->n * kv;
    const double *values = a->v + layer * a->n * kv;
    size_t from = local && pos + 1 > s->window ? pos + 1 - s->window : 0;
    for (size_t h = 0; h < s->n_heads; h++) {
        size_t g = h / (s->n_heads / s->n_kv_heads) * d;
        double p[256], top = -1e300, sum = 0;
        for (size_t t = from; t <= pos; t++) {
            p[t] = 0;
            for (size_t i = 0; i < d; i++)
                p[t] += a->q[h * d + i] * keys[t * kv + g + i];
            p[t] /= sqrt((double)d);
            top = fmax(top, p[t]);
        }
        for (size_t t = from; t <= pos; t++)
            sum += p[t] = exp(p[t] - top);
        for (size_t i = 0; i < d; i++) {
            double o = 0;
            for (size_t t = from; t <= pos; t++)
                o += p[t] / sum * values[t * kv + g + i];
            a->att[h * d + i] = o;
        }
    }
}

static void naive_bias(naive *a, const char *name, double *x, size_t n)
{
    double b[512];
    if (!naive_has(a, name))
        return;
    naive_row(a, name, 0, b, n);
    for (size_t i = 0; i < n; i++)
        x[i] += b[i];
}

static void naive_layer(naive *a, uint32_t layer, size_t pos)
{
    const fx_spec *s = a->s;
    size_t e = s->n_embd, d = s->head_dim, q = s->n_heads * d;
    size_t kv = s->n_kv_heads * d;
    bool gemma = strcmp(s->arch, "gemma3") == 0;
    bool local = gemma && layer % 6 < 5;
    double *k = a->k + (layer * a->n + pos) * kv;
    double *v = a->v + (layer * a->n + pos) * kv;
    char name[64];
#define NAME(x) (snprintf(name, sizeof name, "blk.%u." x, layer), name)
    naive_norm(a, NAME("attn_norm.weight"), a->x, e, a->h);
    naive_matmul(a, NAME("attn_q.weight"), a->h, e, a->q, q);
    naive_matmul(a, NAME("attn_k.weight"), a->h, e, k, kv);
    naive_matmul(a, NAME("attn_v.weight"), a->h, e, v, kv);
    naive_bias(a, NAME("attn_q.bias"), a->q, q);
    naive_bias(a, NAME("attn_k.bias"), k, kv);
    naive_bias(a, NAME("attn_v.bias"), v, kv);
    bool norms = naive_has(a, NAME("attn_q_norm.weight"));
    for (size_t i = 0; i < q; i += d) {
        if (norms)
            naive_norm(a, NAME("attn_q_norm.weight"), a->q + i, d, a->q + i);
        naive_rope(a, a->q + i, pos, local);
    }
    for (size_t i = 0; i < kv; i += d) {
        if (norms)
            naive_norm(a, NAME("attn_k_norm.weight"), k + i, d, k + i);
        naive_rope(a, k + i, pos, local);
    }
    naive_attention(a, layer, pos, local);
    naive_matmul(a, NAME("attn_output.weight"), a->att, q, a->h, e);
    if (gemma)
        naive_norm(a, NAME("post_attention_norm.weight"), a->h, e, a->h);
    for (size_t i = 0; i < e; i++)
        a->x[i] += a->h[i];
    naive_norm(a, NAME("ffn_norm.weight"), a->x, e, a->h);
    naive_matmul(a, NAME("ffn_gate.weight"), a->h, e, a->gate, s->n_ff);
    naive_matmul(a, NAME("ffn_up.weight"), a->h, e, a->up, s->n_ff);
    for (size_t i = 0; i < s->n_ff; i++) {
        double g = a->gate[i];
        g = gemma ? 0.5 * g * (1 + tanh(0.79788456080286535588 *
                                        (g + 0.044715 * g * g * g)))
                  : g / (1 + exp(-g));
        a->up[i] *= g;
    }
    naive_matmul(a, NAME("ffn_down.weight"), a->up, s->n_ff, a->h, e);
    if (gemma)
        naive_norm(a, NAME("post_ffw_norm.weight"), a->h, e, a->h);
    for (size_t i = 0; i < e; i++)
        a->x[i] += a->h[i];
#undef NAME
}

/* Logits of the last of n tokens. Slow: it dequantizes rows again and again. */
static bool naive_logits(const ksllm_model *m, const fx_spec *s, bool int8,
                         const int32_t *tokens, size_t n, double *logits)
{
    size_t kv = s->n_kv_heads * s->head_dim, big = 512;
    naive a = {.m = m, .s = s, .int8 = int8, .n = n};
    double *room = fx_memory(NULL, (7 * big + 2 * s->n_layers * n * kv) *
                                   sizeof(double));
    a.x = room;
    a.h = a.x + big;
    a.q = a.h + big;
    a.att = a.q + big;
    a.gate = a.att + big;
    a.up = a.gate + big;
    a.k = a.up + 2 * big;
    a.v = a.k + s->n_layers * n * kv;
    const char *head = s->tied ? "token_embd.weight" : "output.weight";
    for (size_t pos = 0; pos < n; pos++) {
        naive_row(&a, "token_embd.weight", (uint64_t)tokens[pos], a.x,
                  s->n_embd);
        if (strcmp(s->arch, "gemma3") == 0)
            for (size_t i = 0; i < s->n_embd; i++)
                a.x[i] *= sqrt((double)s->n_embd);
        for (uint32_t l = 0; l < s->n_layers; l++)
            naive_layer(&a, l, pos);
    }
    naive_norm(&a, "output_norm.weight", a.x, s->n_embd, a.h);
    naive_matmul(&a, head, a.h, s->n_embd, logits, fx_n_vocab(m));
    free(room);
    return !a.bad;
}

/* The root of the mean square of the difference, over that of the logits. */
static double logits_error(const fx_spec *s, ksllm_type kv, bool int8)
{
    enum { N = 40 };
    fx_file f;
    ksllm_error e;
    ksllm_model *m = open_spec(s, NULL, &f);
    int32_t tokens[N];
    double want[512], off = 0, all = 0, worst = 1e300;
    fx_prompt(tokens, N, 3);
    const way w = {2, 16, 0};
    ksllm_session *t = m ? new_session(m, 64, w, kv) : NULL;
    if (t && CHECK(naive_logits(m, s, int8, tokens, N, want)) &&
        CHECK_OK(ksllm_session_sync(t, tokens, N, NULL, &e), e)) {
        const float *l = ksllm_session_logits(t);
        for (size_t i = 0; i < fx_n_vocab(m); i++) {
            double d = (double)l[i] - want[i];
            off += d * d;
            all += want[i] * want[i];
        }
        worst = sqrt(off / all);
    }
    ksllm_session_free(t);
    ksllm_model_close(m);
    free(f.data);
    return worst;
}

static void error_below(const fx_spec *s, ksllm_type kv, bool int8,
                        double most)
{
    double d = logits_error(s, kv, int8);
    if (!CHECK(d < most))
        printf("%s: relative error %g, not below %g\n", s->name, d, most);
}

TEST(right_in_float32)
{
    for (size_t i = 0; i < 10; i++) {
        fx_spec s = fx_specs[i];
        s.type = KSLLM_TYPE_F32;
        error_below(&s, KSLLM_TYPE_F32, false, 1e-5);
        /* 11 bits of mantissa in keys and values. */
        error_below(&s, KSLLM_TYPE_F16, false, 3e-3);
    }
}

TEST(right_in_every_type)
{
    for (size_t i = 4; i < FX_SPECS; i++) {
        /* Rarely an activation is so near the middle that float and double
         * round it to different sides; over three layers that adds up. */
        error_below(&fx_specs[i], KSLLM_TYPE_F32, true, 0.015);
        /* What int8 costs: these random models are hard on it. */
        error_below(&fx_specs[i], KSLLM_TYPE_F32, false, 0.06);
    }
}

/* ---- Ways to the same tokens -------------------------------------------- */

/* The models whose caches differ: all global, and mostly local. */
static const char *const cached[] = {"llama", "window", "freqs"};

/* What a fresh session has after these tokens. */
static uint64_t fresh_hash(const ksllm_model *m, const int32_t *tokens,
                           size_t n)
{
    const way w = {1, 64, 0};
    ksllm_error e;
    ksllm_session *s = new_session(m, 300, w, KSLLM_TYPE_F16);
    CHECK_OK(ksllm_session_sync(s, tokens, n, NULL, &e), e);
    uint64_t h = fx_logits_hash(m, s);
    ksllm_session_free(s);
    return h;
}

TEST(score_equals_append)
{
    for (size_t i = 0; i < 3; i++) {
        fx_file f;
        ksllm_error e;
        ksllm_model *m = open_spec(fx_spec_of(cached[i]), NULL, &f);
        const way w = {2, 16, 0};
        ksllm_session *a = new_session(m, 128, w, KSLLM_TYPE_F16);
        ksllm_session *b = new_session(m, 128, w, KSLLM_TYPE_F16);
        size_t v = fx_n_vocab(m);
        float *all = fx_memory(NULL, N_PROMPT * v * sizeof *all);
        int32_t tokens[N_PROMPT];
        fx_prompt(tokens, N_PROMPT, 11);
        CHECK_OK(ksllm_session_append_logits(a, tokens, 20, all, NULL, &e), e);
        CHECK_OK(ksllm_session_append_logits(a, tokens + 20, N_PROMPT - 20,
                                     all + 20 * v, NULL, &e), e);
        for (size_t t = 0; t < N_PROMPT; t++) {
            CHECK_OK(ksllm_session_append(b, tokens + t, 1, NULL, &e), e);
            CHECK(memcmp(ksllm_session_logits(b), all + t * v,
                         v * sizeof *all) == 0);
        }
        CHECK(memcmp(ksllm_session_logits(a), ksllm_session_logits(b),
                     v * sizeof *all) == 0);
        free(all);
        ksllm_session_free(a);
        ksllm_session_free(b);
        ksllm_model_close(m);
        free(f.data);
    }
}

static void check_tokens(const ksllm_session *s, const int32_t *tokens,
                         size_t n)
{
    size_t have = 0;
    const int32_t *t = ksllm_session_tokens(s, &have);
    if (CHECK_EQ(have, n) && n)
        CHECK(memcmp(t, tokens, n * sizeof *t) == 0);
}

TEST(sync_keeps_the_prefix)
{
    for (size_t i = 0; i < 3; i++) {
        enum { N = 200 };
        fx_file f;
        ksllm_error e;
        ksllm_model *m = open_spec(fx_spec_of(cached[i]), NULL, &f);
        const way w = {2, 16, 0};
        ksllm_session *s = new_session(m, 256, w, KSLLM_TYPE_F16);
        int32_t a[N], b[N];
        fx_prompt(a, N, 1);
        CHECK_OK(ksllm_session_sync(s, a, N, NULL, &e), e);
        uint64_t whole = fx_logits_hash(m, s);
        CHECK_HEX(whole, fresh_hash(m, a, N));
        static const size_t common[] = {199, 180, 150, 100, 24, 23, 1, 0};
        for (size_t k = 0; k < 8; k++) {
            fx_prompt(b, N, 2 + k);
            memcpy(b, a, common[k] * sizeof *a);
            CHECK_OK(ksllm_session_sync(s, b, N - k, NULL, &e), e);
            check_tokens(s, b, N - k);
            CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, b, N - k));
            CHECK_OK(ksllm_session_sync(s, a, N, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, s), whole);
        }
        /* The same again, and a prefix: the last token must be evaluated
         * anew for its logits, or they must be kept. */
        CHECK_OK(ksllm_session_sync(s, a, N, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), whole);
        CHECK_OK(ksllm_session_sync(s, a, 61, NULL, &e), e);
        check_tokens(s, a, 61);
        CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, a, 61));
        ksllm_session_free(s);
        ksllm_model_close(m);
        free(f.data);
    }
}

TEST(rewind_and_go_on)
{
    for (size_t i = 0; i < 3; i++) {
        enum { N = 200 };
        static const size_t back[] = {199, 198, 190, 176, 150, 100, 64, 24,
                                      1, 0};
        fx_file f;
        ksllm_error e;
        ksllm_model *m = open_spec(fx_spec_of(cached[i]), NULL, &f);
        const way w = {1, 16, 0};
        ksllm_session *s = new_session(m, 256, w, KSLLM_TYPE_F16);
        int32_t a[N];
        fx_prompt(a, N, 1);
        uint64_t whole = fresh_hash(m, a, N);
        for (size_t k = 0; k < sizeof back / sizeof back[0]; k++) {
            CHECK_OK(ksllm_session_sync(s, a, N, NULL, &e), e);
            CHECK_EQ(ksllm_session_rewind(s, N, NULL), KSLLM_OK);
            CHECK_EQ(ksllm_session_rewind(s, N + 1, NULL), KSLLM_ERR_ARGUMENT);
            CHECK_EQ(ksllm_session_rewind(s, back[k], NULL), KSLLM_OK);
            CHECK(ksllm_session_logits(s) == NULL);
            check_tokens(s, a, back[k]);
            size_t half = (back[k] + N) / 2 + 1;
            CHECK_OK(ksllm_session_append(s, a + back[k], half - back[k],
                                          NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, a, half));
            if (half == N)
                continue;
            CHECK_OK(ksllm_session_append(s, a + half, N - half, NULL, &e),
                     e);
            CHECK_HEX(fx_logits_hash(m, s), whole);
        }
        ksllm_session_free(s);
        ksllm_model_close(m);
        free(f.data);
    }
}

TEST(fork)
{
    for (size_t i = 0; i < 3; i++) {
        fx_file f;
        ksllm_error e;
        ksllm_model *m = open_spec(fx_spec_of(cached[i]), NULL, &f);
        const way w = {1, 16, 0}, other = {3, 16, 0}, wide = {1, 32, 0};
        ksllm_session *s = new_session(m, 128, w, KSLLM_TYPE_F16);
        ksllm_session *t = new_session(m, 128, other, KSLLM_TYPE_F16);
        ksllm_session *u = new_session(m, 64, w, KSLLM_TYPE_F16);
        ksllm_session *v = new_session(m, 128, w, KSLLM_TYPE_F32);
        ksllm_session *x = new_session(m, 128, wide, KSLLM_TYPE_F16);
        int32_t a[100], b[100];
        fx_prompt(a, 100, 1);
        fx_prompt(b, 100, 2);
        memcpy(b, a, 60 * sizeof *a);
        CHECK_OK(ksllm_session_sync(s, a, 60, NULL, &e), e);
        CHECK_OK(ksllm_session_sync(t, b + 50, 50, NULL, &e), e);
        CHECK_EQ(ksllm_session_fork(s, t, NULL), KSLLM_OK);
        check_tokens(t, a, 60);
        CHECK_HEX(fx_logits_hash(m, t), fx_logits_hash(m, s));
        CHECK_OK(ksllm_session_append(t, b + 60, 40, NULL, &e), e);
        CHECK_OK(ksllm_session_append(s, a + 60, 40, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, a, 100));
        CHECK_HEX(fx_logits_hash(m, t), fresh_hash(m, b, 100));
        /* An empty one, and one without logits. */
        ksllm_session_rewind(s, 50, NULL);
        CHECK_EQ(ksllm_session_fork(s, t, NULL), KSLLM_OK);
        CHECK(ksllm_session_logits(t) == NULL);
        CHECK_OK(ksllm_session_append(t, a + 50, 1, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(m, t), fresh_hash(m, a, 51));
        CHECK_EQ(ksllm_session_fork(s, u, NULL), KSLLM_ERR_ARGUMENT);
        CHECK_EQ(ksllm_session_fork(s, v, NULL), KSLLM_ERR_ARGUMENT);
        CHECK_EQ(ksllm_session_fork(s, x, NULL), KSLLM_ERR_ARGUMENT);
        check_tokens(u, NULL, 0);
        fx_file g;
        ksllm_model *m2 = open_spec(fx_spec_of(cached[i]), NULL, &g);
        ksllm_session *y = new_session(m2, 128, w, KSLLM_TYPE_F16);
        CHECK_EQ(ksllm_session_fork(s, y, NULL), KSLLM_ERR_ARGUMENT);
        ksllm_session *all[] = {s, t, u, v, x, y};
        for (size_t k = 0; k < 6; k++)
            ksllm_session_free(all[k]);
        ksllm_model_close(m2);
        ksllm_model_close(m);
        free(g.data);
        free(f.data);
    }
}

/* Verbs in random order; after each the logits are those of a fresh run. */
static void random_timeline(const char *name, uint64_t seed, int steps)
{
    fx_file f;
    ksllm_error e;
    ksllm_model *m = open_spec(fx_spec_of(name), NULL, &f);
    const way w = {2, 8, 0};
    ksllm_session *s = new_session(m, 128, w, KSLLM_TYPE_F16);
    ksllm_session *t = new_session(m, 128, w, KSLLM_TYPE_F16);
    int32_t now[128];
    size_t n = 0;
    for (int i = 0; i < steps; i++) {
        uint32_t verb = fx_below(&seed, 4);
        bool evaluated = false;
        if (verb == 0 && n < 128) {
            size_t add = 1 + fx_below(&seed, 128 - (uint32_t)n);
            add = add > 40 ? 40 : add;
            fx_prompt(now + n, add, fx_next(&seed));
            CHECK_OK(ksllm_session_append(s, now + n, add, NULL, &e), e);
            n += add;
            evaluated = true;
        } else if (verb == 1) {
            size_t keep = fx_below(&seed, (uint32_t)n + 1);
            n = keep + 1 + fx_below(&seed, 128 - (uint32_t)keep);
            if (n > 128)
                n = 128;
            if (n > keep)
                fx_prompt(now + keep, n - keep, fx_next(&seed));
            CHECK_OK(ksllm_session_sync(s, now, n, NULL, &e), e);
            evaluated = true;
        } else if (verb == 2) {
            n = fx_below(&seed, (uint32_t)n + 1);
            CHECK_EQ(ksllm_session_rewind(s, n, NULL), KSLLM_OK);
        } else if (verb == 3) {
            CHECK_EQ(ksllm_session_fork(s, t, NULL), KSLLM_OK);
            ksllm_session *swap = s;
            s = t;
            t = swap;
        }
        check_tokens(s, now, n);
        if (evaluated &&
            !CHECK_HEX(fx_logits_hash(m, s), fresh_hash(m, now, n)))
            printf("%s: step %d\n", name, i);
    }
    ksllm_session_free(s);
    ksllm_session_free(t);
    ksllm_model_close(m);
    free(f.data);
}

TEST(random_timelines)
{
    random_timeline("llama", test_seed, 60);
    random_timeline("window", test_seed + 1, 60);
    random_timeline("yarn", test_seed + 2, 30);
}

/* ---- Threads ------------------------------------------------------------ */

static void backwards(void *ctx, uint32_t n, ksllm_task task, void *arg)
{
    ++*(int *)ctx;
    while (n--)
        task(arg, n);
}

/* A poor man's pool: new threads for every call. */
typedef struct crowd {
    ksllm_task task;
    void *arg;
    uint32_t n, step, first;
} crowd;

static void *crowd_run(void *p)
{
    const crowd *c = p;
    for (uint32_t i = c->first; i < c->n; i += c->step)
        c->task(c->arg, i);
    return NULL;
}

static void crowded(void *ctx, uint32_t n, ksllm_task task, void *arg)
{
    pthread_t id[3];
    crowd c[3];
    ++*(int *)ctx;
    for (uint32_t i = 0; i < 3; i++) {
        c[i] = (crowd){task, arg, n, 3, i};
        if (pthread_create(&id[i], NULL, crowd_run, &c[i]))
            abort();
    }
    for (int i = 0; i < 3; i++)
        pthread_join(id[i], NULL);
}

TEST(lent_threads)
{
    static const ksllm_parallel_for pools[] = {backwards, crowded};
    fx_file f;
    ksllm_error e;
    ksllm_model *m = open_spec(fx_spec_of("mixed"), NULL, &f);
    int32_t tokens[40];
    fx_prompt(tokens, 40, 5);
    uint64_t want = fresh_hash(m, tokens, 40);
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t n = 0; n < 8; n += 1 + 2 * n) {
            ksllm_session_options o;
            ksllm_session *s = NULL;
            int calls = 0;
            ksllm_session_options_init(&o);
            o.n_ctx = 64;
            o.kv_type = KSLLM_TYPE_F16; /* as fresh_hash */
            o.n_threads = n;
            o.parallel_for = pools[i];
            o.parallel_ctx = &calls;
            CHECK_OK(ksllm_session_create(m, &o, &s, &e), e);
            CHECK_OK(ksllm_session_append(s, tokens, 30, NULL, &e), e);
            CHECK_OK(ksllm_session_append(s, tokens + 30, 9, NULL, &e), e);
            CHECK_OK(ksllm_session_append(s, tokens + 39, 1, NULL, &e), e);
            CHECK_HEX(fx_logits_hash(m, s), want);
            CHECK(n == 1 || calls > 0);
            ksllm_session_free(s);
        }
    ksllm_model_close(m);
    free(f.data);
}

typedef struct user {
    const ksllm_model *m;
    uint64_t hash[4];
    uint32_t threads;
} user;

static void *user_run(void *p)
{
    user *u = p;
    for (uint64_t i = 0; i < 4; i++) {
        ksllm_error e;
        const way w = {u->threads, 16, 0};
        ksllm_session *s = new_session(u->m, 64, w, KSLLM_TYPE_F16);
        int32_t tokens[40];
        fx_prompt(tokens, 40, i);
        CHECK_OK(ksllm_session_sync(s, tokens, 40, NULL, &e), e);
        u->hash[i] = fx_logits_hash(u->m, s);
        ksllm_session_free(s);
        char text[300];
        int32_t ids[64];
        CHECK(ksllm_encode(u->m, "안녕하세요 there", KSLLM_NUL, 0, ids, 64,
                           &e) > 0);
        CHECK(ksllm_decode(u->m, tokens, 40, 0, text, sizeof text, &e) > 0);
    }
    return NULL;
}

TEST(two_sessions_in_two_threads)
{
    fx_file f;
    ksllm_model *m = open_spec(fx_spec_of("window"), NULL, &f);
    user u[3] = {{m, {0}, 1}, {m, {0}, 1}, {m, {0}, 2}};
    pthread_t id[3];
    for (int i = 0; i < 3; i++)
        if (pthread_create(&id[i], NULL, user_run, &u[i]))
            abort();
    for (int i = 0; i < 3; i++)
        pthread_join(id[i], NULL);
    for (uint64_t i = 0; i < 4; i++) {
        int32_t tokens[40];
        fx_prompt(tokens, 40, i);
        uint64_t want = fresh_hash(m, tokens, 40);
        for (int k = 0; k < 3; k++)
            CHECK_HEX(u[k].hash[i], want);
    }
    ksllm_model_close(m);
    free(f.data);
}

/* ---- Embeddings --------------------------------------------------------- */

static ksllm_session *pooled_session(const ksllm_model *m,
                                     ksllm_pooling pooling, uint32_t batch)
{
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error e;
    ksllm_session_options_init(&o);
    o.n_ctx = 64;
    o.n_threads = 2;
    o.n_batch = batch;
    o.pooling = pooling;
    CHECK_OK(ksllm_session_create(m, &o, &s, &e), e);
    return s;
}

TEST(embeddings)
{
    enum { N = 40 };
    fx_file f;
    ksllm_error e;
    const fx_spec *spec = fx_spec_of("llama");
    ksllm_model *m = open_spec(spec, NULL, &f);
    int32_t tokens[N];
    size_t n = spec->n_embd;
    double mean[512] = {0}, tail[512] = {0};
    fx_prompt(tokens, N, 5);
    ksllm_session *last = pooled_session(m, KSLLM_POOLING_LAST, 16);
    CHECK(ksllm_session_embedding(last) == NULL);
    ksllm_tensor out = {.size = sizeof out};
    CHECK_EQ(ksllm_tensor_find(m, "output.weight", &out), KSLLM_OK);
    for (size_t i = 0; i < N; i++) {
        CHECK_OK(ksllm_session_append(last, tokens + i, 1, NULL, &e), e);
        const float *x = ksllm_session_embedding(last);
        if (!CHECK(x != NULL))
            break;
        for (size_t k = 0; k < n; k++) {
            mean[k] += (double)x[k] / N;
            tail[k] += i >= 30 ? (double)x[k] / (N - 30) : 0;
        }
        /* The logits are the output matrix times the embedding. */
        for (uint64_t v = 0; v < FX_BPE_SIZE; v += 40) {
            float row[512];
            double dot = 0;
            ksllm_tensor_row(m, &out, v, row);
            for (size_t k = 0; k < n; k++)
                dot += (double)row[k] * (double)x[k];
            CHECK(fabs(dot - (double)ksllm_session_logits(last)[v]) < 1e-4);
        }
    }
    uint64_t hash = fx_hash_floats(FX_HASH, ksllm_session_embedding(last), n);
    ksllm_session_rewind(last, 0, NULL);
    CHECK_OK(ksllm_session_sync(last, tokens, N, NULL, &e), e);
    CHECK_HEX(fx_hash_floats(FX_HASH, ksllm_session_embedding(last), n),
              hash);
    uint64_t means[2];
    for (uint32_t i = 0; i < 2; i++) {
        ksllm_session *s = pooled_session(m, KSLLM_POOLING_MEAN, 64 - 57 * i);
        /* A prefix that is there already counts as well. */
        CHECK_OK(ksllm_session_sync(s, tokens, 30, NULL, &e), e);
        CHECK_OK(ksllm_session_sync(s, tokens, N, NULL, &e), e);
        const float *x = ksllm_session_embedding(s);
        if (CHECK(x != NULL)) {
            means[i] = fx_hash_floats(FX_HASH, x, n);
            for (size_t k = 0; k < n; k++)
                CHECK(fabs((double)x[k] - mean[k]) < 1e-5);
        }
        /* An append counts only what it brings. */
        CHECK_EQ(ksllm_session_rewind(s, 30, NULL), KSLLM_OK);
        CHECK_OK(ksllm_session_append(s, tokens + 30, N - 30, NULL, &e), e);
        x = ksllm_session_embedding(s);
        if (CHECK(x != NULL))
            for (size_t k = 0; k < n; k++)
                CHECK(fabs((double)x[k] - tail[k]) < 1e-5);
        ksllm_session_free(s);
    }
    CHECK_HEX(means[0], means[1]);
    ksllm_session *none = pooled_session(m, KSLLM_POOLING_NONE, 16);
    CHECK_OK(ksllm_session_sync(none, tokens, N, NULL, &e), e);
    CHECK(ksllm_session_embedding(none) == NULL);
    CHECK_EQ(ksllm_session_fork(last, none, NULL), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(none);
    ksllm_session_free(last);
    ksllm_model_close(m);
    free(f.data);
}

TEST_MAIN
