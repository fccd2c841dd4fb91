/* test_quant.c - the offline tool from the inside: block encoders against the
 * library's readers, the search against plain rounding, refine's algebra,
 * JSON, and what the program does with files. Plain C kernels: these are not
 * about them, and the encoders have an AVX2 of their own. */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#define main quant_main
#include "../quant/ksllm-quant.c"
#undef main

#include "fixture.h"
#include "test.h"

static u64 rng = 88172645463325252ull;

static f32 uniform(void) {
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return (f32)(rng >> 40) * 0x1p-24f;
}

/* Near to a normal distribution, like weights. */
static f32 normal(void) {
    f32 s = 0;
    for (int i = 0; i < 12; i++) s += uniform();
    return s - 6;
}

static const ksllm_type TYPES[] = {KSLLM_TYPE_Q4_0, KSLLM_TYPE_Q4_1,
    KSLLM_TYPE_Q5_0, KSLLM_TYPE_Q5_1, KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q2_K,
    KSLLM_TYPE_Q3_K, KSLLM_TYPE_Q4_K, KSLLM_TYPE_Q5_K, KSLLM_TYPE_Q6_K,
    KSLLM_TYPE_IQ4_NL, KSLLM_TYPE_IQ4_XS};

/* Any fitted block survives packing and reading: all codes, all scales. */
TEST(pack_is_the_inverse_of_read) {
    for (size_t k = 0; k < KS_LEN(TYPES); k++) {
        ksllm_type type = TYPES[k];
        const blk_type *t = &BLK_TYPES[type];
        enc_levels l = enc_levels_of(type);
        for (int round = 0; round < 300; round++) {
            blk a = {.d = enc_half_base(normal()),
                .dmin = enc_half_base(normal())}, b;
            for (int i = 0; i < t->n; i++)
                a.q[i] = l.book ? BLK_IQ4[(int)(uniform() * 16)]
                    : (i8)(l.lo + (f32)(int)(uniform() * (l.hi - l.lo + 1)));
            for (int g = 0; g < 16; g++) {
                int pair = g - g % (l.n / 16);
                i32 s = (i32)(uniform() * (f32)(l.sc_hi - l.sc_lo + 1));
                a.scale[g] = g == pair ? (i16)(l.sc_lo + s) : a.scale[pair];
                a.min[g] = g == pair ? (i16)(uniform() * (f32)(l.mn_hi + 1))
                                     : a.min[pair];
            }
            if (t->n == 32) blk_no_scales(&a);
            u8 bytes[256];
            enc_pack(type, &a, bytes);
            blk_read(&b, bytes, type);
            int bad = 0;
            for (int i = 0; i < t->n; i++) bad += a.q[i] != b.q[i];
            for (int g = 0; g < 16 && t->n == 256; g++) {
                bad += a.scale[g] != b.scale[g];
                bad += t->has_min && a.min[g] != b.min[g];
            }
            bad += a.d < b.d || a.d > b.d;
            bad += t->has_min && (a.dmin < b.dmin || a.dmin > b.dmin);
            if (!CHECK_EQ(bad, 0)) {
                printf("%s\n", t->name);
                break;
            }
        }
    }
}

static f64 error_of(ksllm_type type, const f32 *x, size_t n, const u8 *row) {
    f32 y[1024];
    f64 e = 0;
    blk_row(type, row, n, y);
    for (size_t i = 0; i < n; i++)
        e += (f64)(x[i] - y[i]) * (f64)(x[i] - y[i]);
    return e / (f64)n;
}

/* Mean squared error on normal weights, as a share of their variance. The
 * limits are what was measured plus 3 %: a search that lost its way, or a
 * wrong layout, is far above. */
TEST(errors_are_small) {
    static const struct {
        ksllm_type type;
        f64 limit;
    } rows[] = {
        {KSLLM_TYPE_Q8_0, 2.35e-5}, {KSLLM_TYPE_Q6_K, 2.86e-4},
        {KSLLM_TYPE_Q5_K, 1.20e-3}, {KSLLM_TYPE_Q5_1, 1.15e-3},
        {KSLLM_TYPE_Q5_0, 1.60e-3}, {KSLLM_TYPE_Q4_K, 4.91e-3},
        {KSLLM_TYPE_Q4_1, 4.98e-3}, {KSLLM_TYPE_Q4_0, 6.66e-3},
        {KSLLM_TYPE_IQ4_NL, 5.38e-3}, {KSLLM_TYPE_IQ4_XS, 5.53e-3},
        {KSLLM_TYPE_Q3_K, 2.08e-2}, {KSLLM_TYPE_Q2_K, 7.05e-2},
    };
    f32 x[1024];
    u8 row[8192];
    for (size_t k = 0; k < KS_LEN(rows); k++) {
        f64 e = 0;
        for (int r = 0; r < 40; r++) {
            for (int i = 0; i < 1024; i++) x[i] = normal();
            enc_row(rows[k].type, x, 1024, NULL, row);
            e += error_of(rows[k].type, x, 1024, row) / 40;
        }
        if (!CHECK(e <= rows[k].limit))
            printf("%s: %.3e\n", BLK_TYPES[rows[k].type].name, e);
        if (getenv("SHOW"))
            printf("%s %.4e\n", BLK_TYPES[rows[k].type].name, e);
    }
}

/* What a type can hold exactly stays as it is. */
TEST(exact_values_stay) {
    for (size_t k = 0; k < KS_LEN(TYPES); k++) {
        ksllm_type type = TYPES[k];
        f32 x[256] = {0};
        u8 row[1024];
        enc_row(type, x, 256, NULL, row);
        CHECK(error_of(type, x, 256, row) <= 0);
        if (enc_levels_of(type).book || BLK_TYPES[type].n == 256) continue;
        for (int i = 0; i < 256; i++)
            x[i] = 0.125f * (f32)(i % 8 - (i % 32 < 8 ? 8 : 0));
        enc_row(type, x, 256, NULL, row);
        if (type != KSLLM_TYPE_Q8_0 && type != KSLLM_TYPE_Q5_0
            && type != KSLLM_TYPE_Q5_1)
            CHECK(error_of(type, x, 256, row) <= 1e-12);
    }
}

/* Columns that matter more get smaller errors. */
TEST(importance_counts) {
    for (size_t k = 0; k < KS_LEN(TYPES); k++) {
        f64 heavy[2] = {0, 0};
        f32 imp[256], x[256], y[256];
        u8 row[1024];
        for (int i = 0; i < 256; i++) imp[i] = i % 4 ? 0.01f : 1;
        for (int r = 0; r < 60; r++) {
            for (int i = 0; i < 256; i++) x[i] = normal();
            for (int w = 0; w < 2; w++) {
                enc_row(TYPES[k], x, 256, w ? imp : NULL, row);
                blk_row(TYPES[k], row, 256, y);
                for (int i = 0; i < 256; i += 4)
                    heavy[w] += (f64)(x[i] - y[i]) * (f64)(x[i] - y[i]);
            }
        }
        if (!CHECK(heavy[1] < heavy[0]))
            printf("%s\n", BLK_TYPES[TYPES[k]].name);
    }
}

/* Sizes at the ends of half precision: no NaN, no infinity, and the same bytes
 * whatever was fitted before. */
TEST(extreme_scales) {
    static const f32 sizes[] = {1e-38f, 1e-20f, 1e-7f, 1e4f, 60000, 1e7f,
        1e30f, 3e38f};
    for (size_t k = 0; k < KS_LEN(TYPES); k++)
        for (size_t s = 0; s < KS_LEN(sizes); s++) {
            f32 x[256], y[256];
            u8 row[1024], again[1024];
            int bad = 0;
            for (int i = 0; i < 256; i++) {
                y[i] = normal();
                x[i] = (uniform() - 0.5f) * sizes[s];
            }
            enc_row(TYPES[k], x, 256, NULL, row);
            enc_row(TYPES[k], y, 256, NULL, again);
            enc_row(TYPES[k], x, 256, NULL, again);
            CHECK(!memcmp(row, again, 256 / BLK_TYPES[TYPES[k]].n
                * BLK_TYPES[TYPES[k]].bytes));
            blk_row(TYPES[k], row, 256, y);
            for (int i = 0; i < 256; i++) bad += y[i] - y[i] != 0;
            if (!CHECK_EQ(bad, 0))
                printf("%s %g\n", BLK_TYPES[TYPES[k]].name, (f64)sizes[s]);
        }
}

#if defined ENC_X86
TEST(instruction_sets_agree) {
    if (!enc_has_avx2()) return;
    _Alignas(32) f32 x[256], w[256];
    for (size_t k = 0; k < KS_LEN(TYPES); k++)
        for (int r = 0; r < 50; r++) {
            blk a = {.d = 0}, b = {.d = 0};
            u8 p[512] = {0}, q[512] = {0};
            for (int i = 0; i < 256; i++) x[i] = normal(), w[i] = uniform();
            enc_fit_base(TYPES[k], x, w, &a);
            enc_fit_avx2(TYPES[k], x, w, &b);
            enc_pack(TYPES[k], &a, p);
            enc_pack(TYPES[k], &b, q);
            if (!CHECK(!memcmp(p, q, sizeof p))) break;
        }
}
#endif

/* H = (U + 1) D (U + 1)^T, the identity that refine rests on. */
TEST(factor) {
    enum { N = 83 };
    static f32 h[N * N], u[N * N + 64], d[N], y[N * REF_PANEL];
    for (int t = 0; t < 300; t++) {
        f32 x[N];
        for (int i = 0; i < N; i++) x[i] = normal() + (i ? x[i - 1] : 0);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) h[i * N + j] += x[i] * x[j] / 300;
    }
    for (int i = 0; i < N; i++) h[i * N + i] += 1;
    memcpy(u, h, sizeof h);
    CHECK(ref_factor(u, N, d, y));
    f64 worst = 0;
    for (int i = 0; i < N; i++)
        for (int j = i; j < N; j++) {
            f64 s = 0;
            for (int k = j; k < N; k++) {
                f64 a = k == i ? 1 : (f64)u[i * N + k];
                f64 b = k == j ? 1 : (f64)u[j * N + k];
                s += a * (f64)d[k] * b;
            }
            f64 e = fabs(s - (f64)h[i * N + j]) / (f64)h[N * N - 1];
            worst = e > worst ? e : worst;
        }
    if (!CHECK(worst < 1e-4)) printf("%g\n", worst);
}

/* The point of it: on correlated inputs the output error gets smaller. */
TEST(refine_beats_rounding) {
    enum { N = 256, TOKENS = 1500, ROWS = 8 };
    static f32 x[TOKENS][N], gram[N * N], w[ROWS * N], e[ROWS * N];
    static ref_scratch scratch;
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < N; i++)
            x[t][i] = normal() + (i ? 0.9f * x[t][i - 1] : 0);
    enc_gemm(gram, N, x[0], 1, N, x[0], N, TOKENS, N, N);
    for (int i = 0; i < ROWS * N; i++) w[i] = normal();
    gguf_tensor g = {.data = (const u8 *)gram, .dims = {N, N, 1, 1}};
    ref_basis b = {.n = N, .u = xalloc(N * N, 4), .d = xalloc(N, 4)};
    ref_prepare(&b, &g, TOKENS, 0.01f);
    for (size_t k = 0; k < KS_LEN(TYPES); k++) {
        gw_tensor t = {.type = TYPES[k], .dims = {N, ROWS, 1, 1}};
        t.row_bytes = N / BLK_TYPES[t.type].n * BLK_TYPES[t.type].bytes;
        static u8 plain[ROWS * 1024], refined[ROWS * 1024];
        for (int r = 0; r < ROWS; r++)
            enc_row(t.type, w + r * N, N, NULL, plain + r * t.row_bytes);
        ref_rows(&t, &b, ROWS, w, e, refined, &scratch);
        f64 err[2] = {0, 0}, told = 0, real = 0;
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < 2; v++) {
                f32 y[N];
                blk_row(t.type, (v ? refined : plain) + r * t.row_bytes, N, y);
                for (int i = 0; i < N; i++) y[i] = w[r * N + i] - y[i];
                for (int i = 0; i < N && v; i++) {
                    real += fabs((f64)y[i]);
                    told += fabs((f64)y[i] - (f64)e[r * N + i]);
                }
                for (int s = 0; s < TOKENS; s++) {
                    f64 o = 0;
                    for (int i = 0; i < N; i++)
                        o += (f64)y[i] * (f64)x[s][i];
                    err[v] += o * o;
                }
            }
        /* the errors it reckons with are those of the file */
        CHECK(told <= 1e-3 * real);
        if (!CHECK(err[1] < 0.6 * err[0]))
            printf("%s %.3f\n", BLK_TYPES[t.type].name, err[1] / err[0]);
    }
    free(b.u);
    free(b.d);
}

TEST(halves_and_brains) {
    for (u32 h = 0; h < 65536; h++) {
        f32 f = f32_of_bf16((u16)h);
        if (f - f != 0) continue;
        if (!CHECK_EQ(bf16_of_f32(f), h)) break;
    }
    CHECK_EQ(bf16_of_f32(1.00390625f), 0x3f80);     /* a tie, to even */
    CHECK_EQ(bf16_of_f32(1.01171875f), 0x3f82);
    CHECK(f32_of_e4m3(0x7e) == 448 && f32_of_e4m3(0xfe) == -448);
    CHECK(f32_of_e4m3(1) == 0x1p-9f && f32_of_e4m3(0x38) == 1);
    CHECK(f32_of_e4m3(0x7f) != f32_of_e4m3(0x7f));
    CHECK(f32_of_e4m3(0x08) == 0x1p-6f && f32_of_e4m3(0) == 0);
}

static bool json_ok(const char *text) {
    js_reader r;
    js *v = js_parse(&r, "test", (const u8 *)text, strlen(text));
    js_free(&r);
    return v != NULL;
}

TEST(json) {
    static const char *const good[] = {"{}", "[]", " [1, -2.5e3, true] ",
        "{\"a\": {\"b\": [null, \"\\u00e9\\ud55c\\n\"]}}", "\"x\"", "0",
        "[NaN, Infinity]"};
    static const char *const bad[] = {"", "{", "[1,]", "{\"a\" 1}", "\"x",
        "{\"a\":1,\"a\":2}", "01x", "[1] 2", "\"\\x\"", "\"\\u12\"", "-",
        "1.", "tru", "{1:2}", "\"\x01\"", "[\"\\", "nul", "+1", "[1 2]"};
    for (size_t i = 0; i < KS_LEN(good); i++)
        if (!CHECK(json_ok(good[i]))) printf("%s\n", good[i]);
    for (size_t i = 0; i < KS_LEN(bad); i++)
        if (!CHECK(!json_ok(bad[i]))) printf("%s\n", bad[i]);
    char deep[400];
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    js_reader r;
    CHECK(!js_parse(&r, "deep", (const u8 *)deep, 400));
    js_free(&r);
    const char *text = "{\"k\": \"\\ud83d\\ude00\\uac00\\t\"}";
    js *v = js_parse(&r, "test", (const u8 *)text, strlen(text));
    CHECK(v && js_is(js_get(v, "k"), "\xf0\x9f\x98\x80\xea\xb0\x80\t"));
    js_free(&r);
}

/* Every cut of a text is refused or read, and nothing reads past its end. */
TEST(json_cut_anywhere) {
    const char *text =
        "{\"a\": [1, \"b\\u0041\", {\"c\": false}], \"d\": -1e5}";
    size_t n = strlen(text);
    for (size_t cut = 0; cut <= n; cut++) {
        u8 *copy = xalloc(cut, 1);
        memcpy(copy, text, cut);
        js_reader r;
        CHECK_EQ(js_parse(&r, "cut", copy, cut) != NULL, cut == n);
        js_free(&r);
        free(copy);
    }
}

/* ---- the program, as a child: what it does with files ---- */

#include <fnmatch.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Patterns of the same letters as the texts, so that many fit. */
TEST(glob_against_fnmatch) {
    static const char in_pattern[] = "ab.**?[]!-\\", in_text[] = "aab.]-";
    u32 n_fit = 0;
    for (int round = 0; round < 300000; round++) {
        char p[10] = "", z[10] = "";
        size_t n = (size_t)(uniform() * 9), m = (size_t)(uniform() * 9);
        for (size_t i = 0; i < n; i++)
            p[i] = in_pattern[(size_t)(uniform() * (sizeof in_pattern - 1))];
        for (size_t i = 0; i < m; i++)
            z[i] = in_text[(size_t)(uniform() * (sizeof in_text - 1))];
        if (strstr(p, "[.")) continue; /* a collating symbol: not here */
        bool fits = !fnmatch(p, z, 0);
        n_fit += fits;
        if (!CHECK_EQ(glob_fits(p, z), fits)) {
            printf("'%s' and '%s'\n", p, z);
            return;
        }
    }
    CHECK(n_fit > 10000);
}

TEST(names_from_files_stay_in_their_folder) {
    static const char *const out[] = {"", "..", "a/b", "/a", "..\\a", "C:a"};
    CHECK(name_is_plain(str_of("model-00001-of-00002.safetensors")));
    CHECK(name_is_plain(str_of("1_Pooling")));
    CHECK(!name_is_plain((str){"a\0b", 3}));
    for (size_t i = 0; i < KS_LEN(out); i++)
        CHECK(!name_is_plain(str_of(out[i])));
}

static char folder[64], said[4096];
static bool as_nobody; /* root may write everywhere */

static char *in_folder(const char *name) {
    return path_join(folder, str_of(name));
}

static void put_file(const char *name, const void *data, size_t n) {
    char *path = in_folder(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    free(path);
}

static bool exists(const char *name) {
    char *path = in_folder(name);
    bool there = !access(path, F_OK);
    free(path);
    return there;
}

static bool has_debris(void) {
    char command[128];
    snprintf(command, sizeof command, "ls %s | grep -q tmp", folder);
    return !system(command);
}

/* Runs the program; its messages go to `said`. Returns its status. */
static int run_program(const char *line) {
    int to[2];
    fflush(NULL);
    if (pipe(to)) abort();
    pid_t child = fork();
    if (!child) {
        char *copy = strdup(line), *argv[32] = {(char *)"ksllm-quant"};
        int argc = 1;
        for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
            argv[argc++] = w;
        dup2(to[1], 2);
        dup2(open("/dev/null", O_WRONLY), 1);
        if (chdir(folder)) _exit(99);
        if (as_nobody && !geteuid() && setuid(65534)) _exit(99);
        alarm(TEST_SECONDS);
        exit(quant_main(argc, argv));
    }
    close(to[1]);
    size_t n = 0;
    for (ssize_t k; n + 1 < sizeof said
        && (k = read(to[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)k;
    said[n] = 0;
    close(to[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

enum { E = 32, F = 64, V = 260 }; /* embedding, FFN, vocabulary */

static const char CONFIG[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": "
    "64, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
    "\"num_key_value_heads\": 1, \"max_position_embeddings\": 64, "
    "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": true, \"hidden_act\": "
    "\"silu\", \"rope_theta\": 10000, \"vocab_size\": 260}";

static bytes tokenizer_json(void) {
    bytes b = {0};
    char z[160];
#define PUT(...) bytes_put(&b, z, (size_t)snprintf(z, sizeof z, __VA_ARGS__))
    PUT("{\"added_tokens\": [{\"id\": 258, \"content\": \"<s>\", \"special\": "
        "true}], \"normalizer\": null, \"pre_tokenizer\": {\"type\": "
        "\"ByteLevel\", ");
    PUT("\"add_prefix_space\": false, \"use_regex\": true}, \"model\": "
        "{\"type\": \"BPE\", \"vocab\": {");
    for (u32 i = 0; i < 256; i++) {
        u8 text[5] = {0};
        text[txt_put(text, tok_letter_of((u8)i))] = 0;
        bool quoted = text[0] == '"' || text[0] == '\\';
        PUT("\"%s%s\": %u, ", quoted ? "\\" : "", (char *)text, i);
    }
    PUT("\"ab\": 256, \"abc\": 257}, \"merges\": [\"a b\", [\"ab\", "
        "\"c\"]]}}");
#undef PUT
    return b;
}

static const struct {
    const char *name;
    u32 rows, cols;
} SHAPES[] = {
    {"model.embed_tokens.weight", V, E}, {"model.norm.weight", 0, E},
    {"model.layers.0.input_layernorm.weight", 0, E},
    {"model.layers.0.post_attention_layernorm.weight", 0, E},
    {"model.layers.0.self_attn.q_proj.weight", E, E},
    {"model.layers.0.self_attn.k_proj.weight", E / 2, E},
    {"model.layers.0.self_attn.v_proj.weight", E / 2, E},
    {"model.layers.0.self_attn.o_proj.weight", E, E},
    {"model.layers.0.mlp.gate_proj.weight", F, E},
    {"model.layers.0.mlp.up_proj.weight", F, E},
    {"model.layers.0.mlp.down_proj.weight", E, F},
    {"lm_head.weight", V, E},
};

/* A header of the tensors, and their data: normal numbers but for one. head:
 * 0: none, 1: the embedding again, 2: another. */
static bytes safetensors(f32 first, int head_kind) {
    bytes head = {0}, file = {0};
    char z[256];
    u64 at = 0, n = 0;
    bytes_put(&head, "{", 1);
    for (size_t i = 0; i < KS_LEN(SHAPES) - !head_kind; i++) {
        u32 r = SHAPES[i].rows, c = SHAPES[i].cols;
        u64 size = 4ull * (r ? r : 1) * c;
        int k = r ? snprintf(z, sizeof z, "[%u, %u]", r, c)
                  : snprintf(z, sizeof z, "[%u]", c);
        char line[400];
        int m = snprintf(line, sizeof line, "%s\"%s\": {\"dtype\": \"F32\", "
            "\"shape\": %.*s, \"data_offsets\": [%llu, %llu]}",
            i ? ", " : "", SHAPES[i].name, k, z, (unsigned long long)at,
            (unsigned long long)(at + size));
        bytes_put(&head, line, (size_t)m);
        at += size;
    }
    bytes_put(&head, "}", 1);
    n = head.n;
    bytes_put(&file, &n, 8);
    bytes_put(&file, head.p, head.n);
    for (u64 i = 0; i < at / 4; i++) {
        f32 v = i == 5 ? first : normal() * 0.2f;
        bytes_put(&file, &v, 4);
    }
    if (head_kind == 1)
        memcpy(file.p + file.n - 4 * V * E, file.p + 8 + head.n, 4 * V * E);
    free(head.p);
    return file;
}

static void write_model(void) {
    bytes t = tokenizer_json(), s = safetensors(0.5f, 0);
    put_file("config.json", CONFIG, strlen(CONFIG));
    put_file("tokenizer.json", t.p, t.n);
    put_file("model.safetensors", s.p, s.n);
    free(t.p);
    free(s.p);
}

static void begin(void) {
    snprintf(folder, sizeof folder, "/tmp/quant-test-XXXXXX");
    if (!mkdtemp(folder)) abort();
    write_model();
}

static void end(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(!has_debris());
    if (system(command)) abort();
}

static void old_stays(void) {
    char *path = in_folder("out.gguf"), old[8];
    FILE *f = fopen(path, "rb");
    CHECK(f && fread(old, 1, 8, f) == 3 && !memcmp(old, "old", 3));
    if (f) fclose(f);
    CHECK(!has_debris());
    free(path);
}

/* The program fails, says this, and leaves out.gguf, which holds "old". */
static void fails(const char *line, const char *why) {
    int status = run_program(line);
    if (!CHECK_EQ(status, 1) || !CHECK(strstr(said, why)))
        printf("wanted '%s' of '%s', got %d '%s'\n", why, line, status, said);
    old_stays();
}

static void refused(const char *line, const char *why) {
    put_file("out.gguf", "old", 3);
    fails(line, why);
}

TEST(convert_quantize_compare) {
    begin();
    if (!CHECK_EQ(run_program("convert . -o a.gguf -t f32"), 0))
        printf("%s\n", said);
    char *path = in_folder("a.gguf");
    ksllm_model *m = NULL;
    ksllm_error err = {0};
    CHECK_OK(ksllm_model_open(path, NULL, &m, &err), err);
    if (m) {
        i32 ids[8];
        CHECK_EQ(ksllm_encode(m, "abcab", 5, 0, ids, 8, &err), 2);
        CHECK_EQ(ids[0], 257);
        CHECK_EQ(ids[1], 256);
        ksllm_model_close(m);
    }
    free(path);
    for (size_t i = 0; i < KS_LEN(QZ_MIXES); i++) {
        char line[128];
        snprintf(line, sizeof line, "quantize a.gguf -o q.gguf -t %s",
            QZ_MIXES[i].name);
        if (!CHECK_EQ(run_program(line), 0)) printf("%s\n", said);
    }
    put_file("text", "abcabcabcab bab cab abc cba abcabc bca", 38);
    CHECK_EQ(run_program("calibrate a.gguf text -o stats --gram"), 0);
    CHECK_EQ(run_program("quantize a.gguf -o r.gguf -t q4_0 --stats stats "
        "--refine"), 0);
    CHECK_EQ(run_program("compare a.gguf q.gguf r.gguf text --json"), 0);
    CHECK_EQ(run_program("inspect r.gguf --json"), 0);
    CHECK_EQ(run_program("convert . -o c.gguf -t q4_0 --stats stats"), 0);
    CHECK_EQ(run_program("convert . -o never.gguf --dry-run"), 0);
    CHECK(!exists("never.gguf"));
    end();
}

/* A tensor of several matrices has one entry, under its own name. */
TEST(calibration_knows_fused_tensors) {
    static const struct {
        const char *spec;
        u32 layer, matrix;
        const char *apart, *fused;
    } cases[] = {
        {"qwen2", 1, M_Q, "attn_q.weight", "attn_qkv.weight"},
        {"qwen2", 1, M_K, "attn_k.weight", NULL},
        {"qwen2", 1, M_V, "attn_v.weight", NULL},
        {"qwen2", 1, M_O, "attn_output.weight", "attn_output.weight"},
        {"qwen2", 1, M_UP, "ffn_up.weight", "ffn_up.weight"},
        {"gemma4", 1, M_GATE_EXPERTS, "ffn_gate_up_exps.weight",
            "ffn_gate_up_exps.weight"},
        {"gemma4", 1, M_UP_EXPERTS, NULL, NULL},
        {"lfm2moe", 1, M_UP_EXPERTS, "ffn_up_exps.weight",
            "ffn_up_exps.weight"},
    };
    for (size_t i = 0; i < 2 * KS_LEN(cases); i++) {
        fx_spec s = *fx_spec_of(cases[i / 2].spec);
        s.fused = i % 2;
        fx_file f = fx_model(&s);
        ksllm_model *m = NULL;
        ksllm_error err = {0};
        if (CHECK_OK(ksllm_model_open_memory(f.data, f.size, NULL, &m, &err),
                err)) {
            const char *want =
                s.fused ? cases[i / 2].fused : cases[i / 2].apart;
            const char *name = cal_name(
                m, &m->layers[cases[i / 2].layer], cases[i / 2].matrix);
            CHECK_STR(name ? name : "none", want ? want : "none");
        }
        ksllm_model_close(m);
        free(f.data);
    }
}

/* What met each tensor of a.gguf, known by where its data lie and nothing else:
 * none shares the sums of another. */
static cal sums_of_tensors(const ksllm_model *m, const char *text, u32 window) {
    cal c = {.pass = 0};
    ksllm_session *s;
    ksllm_session_options so;
    ksllm_error err;
    progress bar = {.quiet = true};
    u64 n = 0;
    i32 *tokens = cmp_read_text(m, text, &n);
    for (u32 i = 0; i < m->g.n_tensors; i++) {
        const gguf_tensor *t = &m->g.tensors[i];
        c.in = xgrow(c.in, c.n + 1, sizeof *c.in);
        c.in[c.n++] = (cal_input){.w = t->data, .name = t->name,
            .n = t->dims[0], .first = true,
            .sum2 = xalloc((size_t)t->dims[0], sizeof(f64))};
    }
    ksllm_session_options_init(&so);
    so.n_ctx = window;
    so.n_batch = CAL_BATCH;
    so.kv_type = KSLLM_TYPE_F32;
    fx_must(ksllm_session_create(m, &so, &s, &err), &err);
    f32 *logits = xalloc((size_t)CAL_BATCH * fx_n_vocab(m), sizeof *logits);
    cal_now = &c;
    cal_run_text(&c, s, tokens, n, m->tok.adds_bos ? m->tok.bos : -1, window,
        logits, &bar);
    cal_now = NULL;
    ksllm_session_free(s);
    free(logits);
    free(tokens);
    return c;
}

/* Whether the file knows of a tensor what met it, squares and products. */
static bool knows(const stats *st, const cal_input *in) {
    const gguf_tensor *sum2 = stats_find(st, in->name, ".in_sum2");
    const gguf_tensor *gram = stats_find(st, in->name, ".in_gram");
    if (!(in->count > 0)) return !sum2;
    if (!sum2 || !gram || sum2->dims[0] != in->n || gram->dims[0] != in->n
        || gram->n_rows != in->n
        || stats_count(st, in->name) != (f32)in->count) return false;
    for (u64 i = 0; i < in->n; i++) {
        f64 want = in->sum2[i];
        f64 is = (f64)ld_f32(gram->data + 4 * i * (in->n + 1));
        if (ld_f32(sum2->data + 4 * i) != (f32)want
            || fabs(is - want) > 1e-4 * want) return false;
    }
    return true;
}

static void check_statistics(const char *of) {
    char *path = in_folder("a.gguf"), *text = in_folder("text");
    char *sums = in_folder("stats");
    ksllm_model *m = NULL;
    ksllm_error err;
    stats st = {.open = false};
    u32 n_met = 0, n_known = 0;
    if (!CHECK_EQ(run_program("calibrate a.gguf text -o stats --gram --window "
            "16"), 0)) printf("%s: %s\n", of, said);
    else if (CHECK_OK(ksllm_model_open(path, NULL, &m, &err), err)) {
        cal c = sums_of_tensors(m, text, 16);
        stats_open(&st, sums);
        for (u32 i = 0; i < st.g.n_tensors; i++)
            n_known += str_has(st.g.tensors[i].name, ".in_sum2");
        for (u32 i = 0; i < c.n; i++) {
            n_met += c.in[i].count > 0;
            if (!CHECK(knows(&st, &c.in[i])))
                printf("%s: %.*s\n", of, STR(c.in[i].name));
            free(c.in[i].sum2);
        }
        CHECK_EQ(n_met, n_known);
        CHECK(n_met > 7);
        free(c.in);
        gguf_close(&st.g, &MEM_LIBC);
        n_in_files = 0;
    }
    ksllm_model_close(m);
    free(path);
    free(text);
    free(sums);
}

/* Layers of every kind: gated attention, delta nets, convolutions, latent keys,
 * experts, embeddings of layers, tensors of several matrices. */
TEST(each_matrix_has_the_statistics_of_what_met_it) {
    static const char *const folders[] = {"qwen3_5", "qwen3_5_moe", "gemma4",
        "gemma4_moe", "lfm2_moe", "axk2", "phi3"};
    static const char *const fused[] = {"qwen2", "gemma4"};
    static const char text[] = "abc cab 안녕하세요 the cat, the dog; 12 34 ()";
    begin();
    put_file("text", text, sizeof text - 1);
    for (size_t i = 0; i < KS_LEN(folders); i++) {
        char dir[256], line[320];
        snprintf(line, sizeof line, "convert %s/tests/reference/%s -o a.gguf "
            "-t f32", getcwd(dir, sizeof dir), folders[i]);
        if (!CHECK_EQ(run_program(line), 0)) printf("%s\n", said);
        check_statistics(folders[i]);
    }
    for (size_t i = 0; i < KS_LEN(fused); i++) {
        fx_spec s = *fx_spec_of(fused[i]);
        s.fused = true;
        fx_file f = fx_model(&s);
        put_file("a.gguf", f.data, f.size);
        check_statistics(fused[i]);
        free(f.data);
    }
    end();
}

TEST(bad_headers) {
    static const struct {
        const char *header, *why;
    } cases[] = {
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, "
            "8]}, \"b\": {\"dtype\": \"F32\", \"shape\": [2], "
            "\"data_offsets\": [4, 12]}}", "overlap"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296, "
            "16], \"data_offsets\": [0, 0]}}", "overflows"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, "
            "8]}}", "contradict"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [8, "
            "0]}}", "contradict"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [-2], \"data_offsets\": "
            "[0, 8]}}", "no whole number"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2.5], \"data_offsets\": "
            "[0, 10]}}", "no whole number"},
        {"{\"a\": {\"dtype\": \"I4\", \"shape\": [2], \"data_offsets\": [0, "
            "8]}}", "dtype 'I4'"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2000], \"data_offsets\": "
            "[0, 8000]}}", "past the end"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, "
            "4]}, \"a\": {\"dtype\": \"F32\", \"shape\": [1], "
            "\"data_offsets\": [4, 8]}}", "occurs twice"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1]}}", "data_offsets"},
        {"{\"a\": 3}", "dtype"}, {"[1]", "not an object"}, {"{\"a\"", "':'"},
        {"{\"strange.weight\": {\"dtype\": \"F32\", \"shape\": [2], "
            "\"data_offsets\": [0, 8]}}", "strange.weight"},
    };
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        bytes b = {0};
        u64 n = strlen(cases[i].header);
        bytes_put(&b, &n, 8);
        bytes_put(&b, cases[i].header, n);
        bytes_put(&b, "0123456789abcdef", 16);
        put_file("model.safetensors", b.p, b.n);
        refused("convert . -o out.gguf", cases[i].why);
        free(b.p);
    }
    u64 huge[2] = {1ull << 40, 0};
    put_file("model.safetensors", huge, sizeof huge);
    refused("convert . -o out.gguf", "header of 1099511627776");
    put_file("model.safetensors", huge, 3);
    refused("convert . -o out.gguf", "no header");
    end();
}

/* Two bytes of text make 80 of tree. */
TEST(gigantic_header) {
    enum { N = 24 << 20 };
    begin();
    u8 *file = xalloc(8 + N, 1);
    u64 n = N;
    memcpy(file, &n, 8);
    for (size_t i = 0; i < N; i++) file[8 + i] = i & 1 ? '0' : ',';
    file[8] = '[';
    put_file("model.safetensors", file, 8 + N);
    free(file);
    refused("convert . -o out.gguf", "too much JSON");
    end();
}

TEST(truncated_anywhere) {
    begin();
    bytes s = safetensors(0.5f, 0);
    for (size_t n = 0; n < s.n; n += s.n / 23 + 1) {
        put_file("model.safetensors", s.p, n);
        refused("convert . -o out.gguf", "model.safetensors");
    }
    free(s.p);
    end();
}

TEST(missing_shard_and_index) {
    static const char index[] = "{\"weight_map\": {\"model.norm.weight\": "
        "\"gone.safetensors\"}}";
    static const char away[] = "{\"weight_map\": {\"model.norm.weight\": "
        "\"../x.safetensors\"}}";
    static const char other[] = "{\"weight_map\": {\"no.such\": "
        "\"shard.safetensors\"}}";
    begin();
    char *from = in_folder("model.safetensors");
    char *to = in_folder("shard.safetensors");
    if (rename(from, to)) abort();
    free(from);
    free(to);
    put_file("model.safetensors.index.json", index, strlen(index));
    refused("convert . -o out.gguf", "gone.safetensors: missing");
    put_file("model.safetensors.index.json", away, strlen(away));
    refused("convert . -o out.gguf", "outside");
    put_file("model.safetensors.index.json", other, strlen(other));
    refused("convert . -o out.gguf", "should be in it");
    end();
}

static void config_with(const char *from, const char *to) {
    bytes b = {0};
    const char *at = strstr(CONFIG, from);
    if (!at) abort();
    bytes_put(&b, CONFIG, (size_t)(at - CONFIG));
    bytes_put(&b, to, strlen(to));
    bytes_put(&b, at + strlen(from), strlen(at + strlen(from)));
    put_file("config.json", b.p, b.n);
    free(b.p);
}

TEST(bad_configs) {
    begin();
    config_with("\"llama\"", "\"mystery\"");
    refused("convert . -o out.gguf", "'mystery'");
    config_with("\"silu\"", "\"relu\"");
    refused("convert . -o out.gguf", "'relu'");
    config_with("\"hidden_size\"", "\"hidden\"");
    refused("convert . -o out.gguf", "hidden_size");
    config_with("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
    refused("convert . -o out.gguf", "blk.1.");
    config_with("\"tie_word_embeddings\": true",
        "\"tie_word_embeddings\": false");
    refused("convert . -o out.gguf", "lm_head");
    config_with("\"rope_theta\"", "\"logits_scaling\": 0.125, \"rope_theta\"");
    refused("convert . -o out.gguf", "logits_scaling");
    config_with("\"rope_theta\"", "\"rope_scaling\": {\"rope_type\": "
        "\"longrope\"}, \"rope_theta\"");
    refused("convert . -o out.gguf", "longrope");
    put_file("config.json", "{", 1);
    refused("convert . -o out.gguf", "config.json");
    end();
}

TEST(bad_tokenizers) {
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"{", "tokenizer.json"}, {"{}", "no model"},
        {"{\"model\": {\"type\": \"Unigram\"}}", "no Metaspace"},
        {"{\"model\": {\"type\": \"BPE\"}}", "no merges"},
        {"{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {}}}",
            "no vocabulary"},
        {"{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"a\": "
            "0, \"b\": 0}}}", "one id"},
        {"{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"a\": "
            "999999999}}}", "too large"},
        {"{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"a\": "
            "-1}}}", "no id"},
        {"{\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"a\": "
            "0}}, \"pre_tokenizer\": {\"type\": \"Split\", "
            "\"behavior\": \"Isolated\", \"pattern\": {\"Regex\": "
            "\"x+\"}}}", "split: x+"},
        {"{\"model\": {\"type\": \"BPE\", \"merges\": [3], \"vocab\": "
            "{\"a\": 0}}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
            "\"use_regex\": true, \"add_prefix_space\": false}}", "merge 0"},
    };
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        put_file("tokenizer.json", cases[i].text, strlen(cases[i].text));
        refused("convert . -o out.gguf", cases[i].why);
    }
    char *path = in_folder("tokenizer.json");
    unlink(path);
    free(path);
    refused("convert . -o out.gguf", "neither");
    put_file("tokenizer.model", "\x0a\xff\xff\xff\xff\xff", 6);
    refused("convert . -o out.gguf", "damaged");
    end();
}

TEST(numbers_that_are_none) {
    begin();
    static const f32 bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < KS_LEN(bad); i++) {
        bytes s = safetensors(bad[i], 0);
        put_file("model.safetensors", s.p, s.n);
        free(s.p);
        refused("convert . -o out.gguf -t q8_0", "NaN or infinite");
        CHECK(strstr(said, "token_embd.weight: 1 weights") != NULL);
        CHECK_EQ(run_program("convert . -o z.gguf -t q8_0 --nonfinite zero"),
            0);
        CHECK(strstr(said, "token_embd.weight: 1 weights") != NULL);
    }
    bytes s = safetensors(1e6f, 0);
    put_file("model.safetensors", s.p, s.n);
    free(s.p);
    refused("convert . -o out.gguf -t f16", "too large for F16");
    CHECK_EQ(run_program("convert . -o z.gguf -t bf16"), 0);
    end();
}

TEST(targets_that_cannot_be) {
    begin();
    refused("convert . -o no/such/out.gguf", "cannot write");
    CHECK_EQ(run_program("convert . -o a.gguf"), 0);
    refused("quantize a.gguf -o . -t q4_0", "not a regular file");
    refused("quantize none.gguf -o out.gguf -t q4_0", "none.gguf");
    refused("quantize a.gguf -o out.gguf -t q9", "'q9'");
    refused("quantize config.json -o out.gguf -t q8_0", "not a GGUF");
    refused("quantize a.gguf -o out.gguf -t q4_0 --stats a.gguf",
        "not a file of activation");
    end();
}

/* A file size limit stands in for a full disk. */
TEST(full_disk) {
    begin();
    CHECK_EQ(run_program("convert . -o a.gguf -t f32"), 0);
    struct rlimit old, small = {20000, 20000};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    refused("quantize a.gguf -o out.gguf -t f16", "cannot write");
    setrlimit(RLIMIT_FSIZE, &old);
    end();
}

TEST(read_only_targets) {
    begin();
    char *out = in_folder("out.gguf");
    put_file("out.gguf", "old", 3);
    as_nobody = true;
    if (chmod(out, 0666) || chmod(folder, 0555)) abort();
    fails("convert . -o out.gguf", "cannot write: Permission denied");
    if (chmod(out, 0444) || chmod(folder, 0777)) abort();
    fails("convert . -o out.gguf", "out.gguf: permission denied");
    as_nobody = false;
    free(out);
    end();
}

static int signal_to_send;

static void rows_then_signal(
    const gw_tensor *t, u64 row, u64 n, f32 *out) {
    memset(out, 0, n * t->dims[0] * sizeof *out);
    if (!row) return;
    /* SIGBUS comes to the thread that reads. */
    if (signal_to_send == SIGBUS) raise(SIGBUS);
    else kill(getpid(), signal_to_send);
    for (;;) pause();
}

/* In the middle of writing: after one piece of the tensor, before another. */
TEST(signals) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGBUS};
    begin();
    put_file("out.gguf", "old", 3);
    for (size_t i = 0; i < KS_LEN(signals); i++) {
        fflush(NULL);
        pid_t child = fork();
        if (!child) {
            gw g = {.bar = {.quiet = true}};
            u64 dims[2] = {256, 2 * GW_CHUNK / 256};
            gw_tensor *t = gw_add(&g, str_of("x.weight"), 2, dims);
            t->type = KSLLM_TYPE_Q8_0;
            t->rows = rows_then_signal;
            signal_to_send = signals[i];
            dup2(open("/dev/null", O_WRONLY), 2);
            if (chdir(folder)) _exit(99);
            alarm(TEST_SECONDS);
            out_catch_signals();
            gw_write(&g, "out.gguf");
            _exit(98);
        }
        int status = 0;
        waitpid(child, &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 128 + signals[i]);
        old_stays();
    }
    end();
}

/* ---- what two files say, and what GGUF cannot ---- */

/* tokenizer.json with more in front of what it says. */
static void tokenizer_with(const char *more) {
    bytes t = tokenizer_json(), b = {0};
    bytes_put(&b, "{", 1);
    bytes_put(&b, more, strlen(more));
    bytes_put(&b, t.p + 1, t.n - 1);
    put_file("tokenizer.json", b.p, b.n);
    free(t.p);
    free(b.p);
}

static void put_text(const char *name, const char *text) {
    put_file(name, text, strlen(text));
}

static void remove_file(const char *name) {
    char *path = in_folder(name);
    unlink(path);
    free(path);
}

/* Runs a line that makes out.gguf and opens it; NULL, and said why, if not. */
static ksllm_model *made(const char *line) {
    ksllm_model *m = NULL;
    ksllm_error err;
    char *path = in_folder("out.gguf");
    if (!CHECK_EQ(run_program(line), 0)) printf("%s: %s\n", line, said);
    else CHECK_OK(ksllm_model_open(path, NULL, &m, &err), err);
    free(path);
    return m;
}

/* A number of the file's metadata, -1 when it has none of this name. */
static f64 number(const ksllm_model *m, const char *key) {
    const gguf_kv *kv = gguf_find(&m->g, key);
    f64 v = -1;
    if (kv) gguf_num_at(kv, 0, &v);
    return v;
}

static bool is(f64 a, f64 b) { return fabs(a - b) < 1e-9; }

/* transformers ends an answer at each of these; some are in one file only. */
TEST(every_eos_ends_an_answer) {
    static const i32 ids[] = {3, 65, 66, 67, 256, 257, 259};
    begin();
    config_with("\"rope_theta\"", "\"eos_token_id\": [65, 3, 259], "
        "\"rope_theta\"");
    put_text("generation_config.json", "{\"eos_token_id\": [256, 257, 65, 66, "
        "67]}");
    for (int k = 0; k < 2; k++) {
        ksllm_model *m = made(k ? "quantize a.gguf -o out.gguf -t q8_0"
                                : "convert . -o out.gguf");
        for (size_t i = 0; m && i < KS_LEN(ids); i++)
            if (!CHECK(tok_is_stop(&m->tok, ids[i])))
                printf("%d %d\n", k, (int)ids[i]);
        if (m) CHECK_EQ(m->tok.eos, 256);
        if (m) CHECK(!tok_is_stop(&m->tok, 4));
        ksllm_model_close(m);
        CHECK_EQ(run_program("convert . -o a.gguf"), 0);
    }
    put_text("generation_config.json", "{\"eos_token_id\": 300}");
    ksllm_model_close(made("convert . -o out.gguf"));
    CHECK(strstr(said, "eos_token_id 300 is no token"));
    bytes b = {0};
    for (int i = 0; i < 40; i++) {
        char z[16];
        bytes_put(&b, z, (size_t)snprintf(z, sizeof z, "%c %d",
            i ? ',' : '[', i));
    }
    char z[512];
    snprintf(z, sizeof z, "{\"eos_token_id\": %.*s]}", (int)b.n, b.p);
    put_text("generation_config.json", z);
    refused("convert . -o out.gguf", "at most 32");
    free(b.p);
    end();
}

#define SPECIAL(name) "{\"SpecialToken\": {\"id\": \"" name "\", "            \
    "\"type_id\": 0}}"
#define TEXT_A "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define KNOWN(name, id) "\"" name "\": {\"id\": \"" name "\", \"ids\": [" id  \
    "], \"tokens\": [\"" name "\"]}"
#define POST(single) "\"post_processor\": {\"type\": \"TemplateProcessing\", " \
    "\"single\": [" single "], \"pair\": [], \"special_tokens\": {"           \
    KNOWN("<s>", "258") ", " KNOWN("two", "97, 98") ", " KNOWN("abc", "257")  \
    "}}, "

/* What AutoTokenizer of transformers 5.23 puts around "ab" (256), written down
 * from there; tests/quant_families.py asks it again. With a tokenizer.json the
 * flags of tokenizer_config.json are nothing to it. */
TEST(post_processors) {
    static const struct {
        const char *post, *config;
        i32 before, after; /* -1: nothing */
        const char *why;   /* refused */
    } cases[] = {
        {"", "{\"bos_token\": \"<s>\", \"add_bos_token\": true, "
            "\"eos_token\": \"abc\", \"add_eos_token\": true}", -1, -1, NULL},
        {POST(SPECIAL("<s>") ", " TEXT_A), "{\"bos_token\": \"<s>\", "
            "\"add_bos_token\": false}", 258, -1, NULL},
        {POST(TEXT_A ", " SPECIAL("abc")), "{\"eos_token\": \"abc\", "
            "\"add_eos_token\": false}", -1, 257, NULL},
        {POST(SPECIAL("<s>") ", " TEXT_A ", " SPECIAL("abc")),
            "{\"bos_token\": \"<s>\", \"eos_token\": \"abc\"}", 258, 257, NULL},
        /* Qwen3-Embedding: not the tokenizer's EOS */
        {"\"post_processor\": {\"type\": \"Sequence\", \"processors\": ["
            "{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\", "
            "\"single\": [" TEXT_A ", " SPECIAL("abc") "], "
            "\"special_tokens\": {" KNOWN("abc", "257") "}}]}, ",
            "{\"eos_token\": \"<s>\"}", -1, 257, NULL},
        {"\"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": "
            "[\"abc\", 257], \"cls\": [\"<s>\", 258]}, ",
            "{\"bos_token\": \"<s>\", \"eos_token\": \"abc\"}", 258, 257, NULL},
        {POST(SPECIAL("<s>") ", " TEXT_A), "{\"bos_token\": \"abc\", "
            "\"chat_template\": \"{{ bos_token }}\"}", 0, 0,
            "before every text what is not the bos_token"},
        {POST(TEXT_A ", " SPECIAL("<s>")), "{\"eos_token\": \"abc\", "
            "\"chat_template\": \"{{ eos_token }}\"}", 0, 0,
            "after every text what is not the eos_token"},
        {POST(SPECIAL("two") ", " TEXT_A), "{}", 0, 0, "before every text"},
        {POST(TEXT_A ", " SPECIAL("none")), "{}", 0, 0, "'none' has no id"},
        {POST(SPECIAL("<s>")), "{}", 0, 0, "without the text"},
        {"\"post_processor\": {\"type\": \"Odd\"}, ", "{}", 0, 0, "'Odd'"},
    };
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        tokenizer_with(cases[i].post);
        put_text("tokenizer_config.json", cases[i].config);
        if (cases[i].why) {
            refused("convert . -o out.gguf", cases[i].why);
            continue;
        }
        ksllm_model *m = made("convert . -o out.gguf");
        if (!m) continue;
        const tokenizer *t = &m->tok;
        i32 before = t->adds_bos ? t->bos : -1;
        i32 after = t->adds_eos ? t->eos : -1;
        bool same = CHECK_EQ(before, cases[i].before);
        if (!CHECK_EQ(after, cases[i].after) || !same) printf("case %zu\n", i);
        /* the tokenizer's own EOS still ends an answer */
        if (i == 4) CHECK(tok_is_stop(t, 258) && tok_is_stop(t, 257));
        ksllm_model_close(m);
    }
    end();
}

TEST(added_tokens_that_gguf_cannot_say) {
    static const char *const how[] = {"lstrip", "rstrip", "single_word"};
    begin();
    for (size_t i = 0; i < KS_LEN(how); i++) {
        char z[256];
        bytes t = tokenizer_json(), b = {0};
        const char *at = strstr((const char *)t.p, "\"special\"");
        bytes_put(&b, t.p, (size_t)(at - (const char *)t.p));
        bytes_put(&b, z, (size_t)snprintf(z, sizeof z, "\"%s\": true, ",
            how[i]));
        bytes_put(&b, at, t.n - (size_t)(at - (const char *)t.p));
        put_file("tokenizer.json", b.p, b.n);
        refused("convert . -o out.gguf", how[i]);
        CHECK(strstr(said, "'<s>'"));
        free(t.p);
        free(b.p);
    }
    end();
}

/* Pieces: what GGUF says of spaces is the normalizer Prepend. */
TEST(spaces_before_pieces) {
    static const struct {
        const char *space, *more;
        int prefix; /* -1: refused */
    } cases[] = {
        {"\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": "
            "\"\xe2\x96\x81\", \"prepend_scheme\": \"never\"}", "", 0},
        {"\"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": "
            "\"first\"}", "", -1},
        {"\"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": "
            "\"always\"}", "", -1},
        {"\"pre_tokenizer\": {\"type\": \"Metaspace\", \"add_prefix_space\": "
            "true}", "", -1},
        {"\"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": "
            "\"first\"}", " --pre default", 1},
        {"\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": "
            "[{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, "
            "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
            "\"content\": \"\xe2\x96\x81\"}]}", "", 1},
    };
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        char z[1024], line[64];
        snprintf(z, sizeof z, "{%s, \"model\": {\"type\": \"BPE\", "
            "\"byte_fallback\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": "
            "2, \"\xe2\x96\x81\": 3}, \"merges\": [\"a b\"]}}",
            cases[i].space);
        put_text("tokenizer.json", z);
        snprintf(line, sizeof line, "convert . -o out.gguf%s", cases[i].more);
        if (cases[i].prefix < 0) {
            refused(line, "Metaspace with prepend_scheme");
            continue;
        }
        ksllm_model *m = made(line);
        if (m && !CHECK_EQ(m->tok.prefix, cases[i].prefix))
            printf("case %zu\n", i);
        ksllm_model_close(m);
    }
    refused("convert . -o out.gguf --pre gpt-2", "no rule but 'default'");
    end();
}

/* As transformers: the one file, whatever an index beside it says. */
TEST(one_file_beside_an_index) {
    static const char index[] = "{\"weight_map\": {\"model.norm.weight\": "
        "\"old.safetensors\"}}";
    begin();
    put_text("model.safetensors.index.json", index);
    ksllm_model_close(made("convert . -o out.gguf"));
    CHECK(strstr(said, "model.safetensors is read"));
    end();
}

/* As transformers: two that differ are not tied, whatever the config says. */
TEST(heads_beside_embeddings) {
    begin();
    for (int k = 0; k < 3; k++) {
        bytes s = safetensors(0.5f, k);
        put_file("model.safetensors", s.p, s.n);
        free(s.p);
        ksllm_model *m = made("convert . -o out.gguf -t f32");
        ksllm_tensor t = {.size = sizeof t};
        if (m) CHECK_EQ(!ksllm_tensor_find(m, "output.weight", &t), k == 2);
        CHECK_EQ(strstr(said, "tie_word_embeddings is set, but") != NULL,
            k == 2);
        ksllm_model_close(m);
    }
    end();
}

TEST(rope_said_twice) {
    static const struct {
        const char *to, *why; /* NULL: fine */
    } cases[] = {
        {"\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
            "10000.0}, \"rope_theta\"", NULL},
        {"\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
            "500000}, \"rope_theta\"", "the base of rope is 10000 and, in "
            "rope_parameters, 500000"},
        {"\"rope_local_base_freq\": 1000, \"rope_parameters\": "
            "{\"sliding_attention\": {\"rope_theta\": 100}}, "
            "\"rope_theta\"", "is 1000 and, in sliding_attention, 100"},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
            "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2.0, "
            "\"rope_theta\": 10000}, \"rope_theta\"", NULL},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
            "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4}, "
            "\"rope_theta\"", "rope_scaling and rope_parameters differ"},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
            "\"rope_parameters\": {\"rope_type\": \"default\"}, "
            "\"rope_theta\"", "rope_scaling and rope_parameters differ"},
        {"\"rope_scaling\": {\"rope_type\": \"default\", \"rope_theta\": 9}, "
            "\"rope_theta\"", "in rope_scaling, 9"},
        /* transformers: rope_scaling or rope_parameters */
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
            "\"rope_parameters\": {}, \"rope_theta\"", NULL},
    };
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        config_with("\"rope_theta\"", cases[i].to);
        if (cases[i].why) {
            refused("convert . -o out.gguf", cases[i].why);
            continue;
        }
        ksllm_model *m = made("convert . -o out.gguf");
        f64 factor = i ? 2 : -1;
        if (m) CHECK(is(number(m, "llama.rope.scaling.factor"), factor));
        ksllm_model_close(m);
    }
    config_with("\"rope_theta\"", "\"rope_scaling\": {\"rope_type\": "
        "\"default\", \"partial_rotary_factor\": 0.5}, "
        "\"partial_rotary_factor\": 1, \"rope_theta\"");
    refused("convert . -o out.gguf", "partial_rotary_factor 0.5");
    end();
}

/* do_sample false is greedy, in transformers too: only the penalty counts. */
TEST(sampling_defaults) {
    static const char numbers[] = "\"temperature\": 0.5, \"top_k\": 20, "
        "\"top_p\": 0.25, \"min_p\": 0.125, \"repetition_penalty\": 1.5}";
    static const struct {
        const char *begin;
        f64 temp;
        bool others;
    } cases[] = {{"{\"do_sample\": true, ", 0.5, true}, {"{", 0.5, true},
        {"{\"do_sample\": false, ", 0, false}};
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        char z[256];
        snprintf(z, sizeof z, "%s%s", cases[i].begin, numbers);
        put_text("generation_config.json", z);
        ksllm_model *m = made("convert . -o out.gguf");
        if (!m) continue;
        CHECK(is(number(m, "general.sampling.temp"), cases[i].temp));
        CHECK(is(number(m, "general.sampling.penalty_repeat"), 1.5));
        bool all = cases[i].others;
        CHECK(is(number(m, "general.sampling.top_k"), all ? 20 : -1));
        CHECK(is(number(m, "general.sampling.top_p"), all ? 0.25 : -1));
        CHECK(is(number(m, "general.sampling.min_p"), all ? 0.125 : -1));
        ksllm_model_close(m);
    }
    end();
}

/* What transformers never draws is not drawn, nor of what is made of the file. */
TEST(suppressed_tokens) {
    static const char *const wrong[] = {"3", "\"3\"", "{}", "[3, \"a\"]",
        "[1.5]", "[[3]]"};
    static const char *const none[] = {"null", "[]", "[-1, 260, 1e9]"};
    char z[64];
    begin();
    put_text("generation_config.json", "{\"suppress_tokens\": [259, 7, 300, 7, "
        "-4]}");
    for (int k = 0; k < 2; k++) {
        ksllm_model *m = made(k ? "quantize a.gguf -o out.gguf -t q8_0"
                                : "convert . -o out.gguf");
        if (!k) CHECK(strstr(said, "300 is no token"));
        for (i32 id = 0; m && id < V; id++)
            CHECK_EQ(tok_is_drawn(&m->tok, id), id != 7 && id != 259);
        ksllm_model_close(m);
        CHECK_EQ(run_program("convert . -o a.gguf"), 0);
    }
    for (size_t i = 0; i < KS_LEN(none); i++) {
        snprintf(z, sizeof z, "{\"suppress_tokens\": %s}", none[i]);
        put_text("generation_config.json", z);
        ksllm_model *m = made("convert . -o out.gguf");
        if (m) CHECK(!gguf_find(&m->g, "tokenizer.ggml.suppress_tokens"));
        ksllm_model_close(m);
    }
    for (size_t i = 0; i < KS_LEN(wrong); i++) {
        snprintf(z, sizeof z, "{\"suppress_tokens\": %s}", wrong[i]);
        put_text("generation_config.json", z);
        refused("convert . -o out.gguf", "suppress_tokens");
    }
    end();
}

/* ---- options that would do nothing, files that are none ---- */

TEST(options_that_change_nothing) {
    begin();
    put_text("text", "abcabcabcab bab cab abc cba abcabc bca");
    CHECK_EQ(run_program("convert . -o a.gguf -t f32"), 0);
    CHECK_EQ(run_program("calibrate a.gguf text -o plain"), 0);
    CHECK(strstr(said, "1 pass,"));
    CHECK_EQ(run_program("calibrate a.gguf text -o gram --gram"), 0);
    refused("quantize a.gguf -o out.gguf -t q4_0 --stats plain --refine",
        "calibrate --gram");
    refused("convert . -o out.gguf -t q4_0 --stats plain --refine",
        "calibrate --gram");
    CHECK_EQ(run_program("quantize a.gguf -o q8.gguf -t q8_0 --stats gram "
        "--refine"), 0);
    CHECK(strstr(said, "--refine changes nothing"));
    refused("quantize a.gguf -o out.gguf -t q8_0 --tensor nosuch=q4_0",
        "--tensor nosuch: no tensor");
    refused("convert . -o out.gguf -t q8_0 --tensor nosuch=q4_0",
        "--tensor nosuch: no tensor");
    refused("quantize a.gguf -o out.gguf -t q8_0 --fast",
        "no option '--fast'");
    refused("inspect a.gguf --fast", "no option '--fast'");
    refused("quantize a.gguf b.gguf -o out.gguf -t q8_0", "one file too many");
    refused("quantize a.gguf -o out.gguf -t q4_0 --stats gram --refine --damp "
        "x", "--damp needs a number");
    CHECK_EQ(run_program("quantize a.gguf -o q4.gguf -t q4_0"), 0);
    CHECK(!strstr(said, "nothing is gained"));
    CHECK_EQ(run_program("quantize q4.gguf -o q8.gguf -t q8_0"), 0);
    CHECK(strstr(said, "nothing is gained"));
    end();
}

TEST(set_metadata) {
    static const char set[] = " --set llama.context_length=77 --set "
        "general.name=12 --set tokenizer.ggml.add_eos_token=true --set "
        "llama.attention.scale=0.25";
    char line[256];
    begin();
    CHECK_EQ(run_program("convert . -o a.gguf -t f32"), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(line, sizeof line, "%s -o out.gguf -t q8_0%s",
            i ? "quantize a.gguf" : "convert .", set);
        ksllm_model *m = made(line);
        if (!m) continue;
        CHECK(number(m, "llama.context_length") == 77);
        CHECK(number(m, "llama.attention.scale") == 0.25);
        CHECK(number(m, "tokenizer.ggml.add_eos_token") == 1);
        CHECK(str_eq(gguf_get_str(&m->g, "general.name"), str_of("12")));
        ksllm_model_close(m);
    }
    ksllm_model *m = made("quantize a.gguf -o out.gguf -t q8_0 --set "
        "general.architecture=exaone");
    if (m) {
        CHECK(number(m, "exaone.block_count") > 0);
        CHECK(!gguf_find(&m->g, "llama.block_count"));
    }
    ksllm_model_close(m);
    refused("convert . -o out.gguf --set llama.block_cuont=2", "block_cuont");
    refused("quantize a.gguf -o out.gguf -t q8_0 --set llama.block_count=x",
        "llama.block_count=x");
    refused("quantize a.gguf -o out.gguf -t q8_0 --set nosuch.key=2",
        "nosuch.key");
    refused("quantize a.gguf -o out.gguf -t q8_0 --set general.name",
        "KEY=VALUE");
    refused("quantize a.gguf -o out.gguf -t q8_0 --set a=1 --set a=2", "twice");
    end();
}

/* By its name, another path, a link of either kind. */
TEST(output_over_the_input) {
    static const char *const names[] = {"out.gguf", "./out.gguf", "hard.gguf",
        "soft.gguf"};
    begin();
    char *out = in_folder("out.gguf"), *hard = in_folder("hard.gguf"),
        *soft = in_folder("soft.gguf"), line[128];
    for (size_t i = 0; i < KS_LEN(names); i++) {
        CHECK_EQ(run_program("convert . -o a.gguf -t f32"), 0);
        char *a = in_folder("a.gguf");
        if (rename(a, out)) abort();
        free(a);
        unlink(hard);
        unlink(soft);
        if (link(out, hard) || symlink("out.gguf", soft)) abort();
        snprintf(line, sizeof line, "quantize out.gguf -o %s -t q8_0",
            names[i]);
        CHECK_EQ(run_program(line), 1);
        if (!CHECK(strstr(said, "write to another file")))
            printf("%s: %s\n", line, said);
        ksllm_model *m = NULL;
        ksllm_error err;
        CHECK_OK(ksllm_model_open(out, NULL, &m, &err), err);
        ksllm_tensor t = {.size = sizeof t};
        if (m && CHECK(!ksllm_tensor_find(m, "token_embd.weight", &t)))
            CHECK_EQ(t.type, KSLLM_TYPE_F32); /* the old file */
        ksllm_model_close(m);
    }
    unlink(hard);
    unlink(soft);
    refused("convert . -o model.safetensors", "write to another file");
    put_text("text", "abcabcabcab bab cab abc cba abcabc bca");
    refused("calibrate out.gguf text -o text", "out.gguf");
    CHECK_EQ(run_program("convert . -o a.gguf"), 0);
    CHECK_EQ(run_program("calibrate a.gguf text -o text"), 1);
    CHECK(strstr(said, "write to another file"));
    free(out);
    free(hard);
    free(soft);
    end();
}

TEST(what_is_no_model_is_said) {
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:0\nsize 3\n";
    begin();
    CHECK_EQ(run_program("convert . -o a.gguf"), 0);
    refused("convert nosuch -o out.gguf", "nosuch: there is no such folder");
    refused("convert a.gguf -o out.gguf", "a file; convert takes a model's");
    refused("quantize . -o out.gguf -t q8_0", "a folder; 'ksllm-quant convert");
    refused("inspect .", "a folder; 'ksllm-quant convert");
    refused("compare . a.gguf config.json", "a folder; 'ksllm-quant convert");
    refused("calibrate . config.json -o out.gguf", "a folder; 'ksllm-quant");
    put_text("tokenizer.json", lfs);
    refused("convert . -o out.gguf", "tokenizer.json: a git-LFS pointer");
    put_text("model.safetensors", lfs);
    refused("convert . -o out.gguf", "model.safetensors: a git-LFS pointer");
    put_text("a.gguf", lfs);
    refused("quantize a.gguf -o out.gguf -t q8_0", "a.gguf: a git-LFS pointer");
    remove_file("model.safetensors");
    remove_file("a.gguf");
    refused("convert . -o out.gguf", "out.gguf: that is what 'quantize' takes");
    char *empty = in_folder("empty");
    if (mkdir(empty, 0777)) abort();
    free(empty);
    refused("convert empty -o out.gguf", "no config.json");
    put_text("empty/config.json", CONFIG);
    refused("convert empty -o out.gguf", "the weights are missing");
    put_text("model.pt", "PK");
    refused("convert . -o out.gguf", "model.pt: save them as safetensors");
    put_text("training_args.bin", "PK");
    put_text("pytorch_model.bin", "PK");
    refused("convert . -o out.gguf",
        "pytorch_model.bin: save them as safetensors");
    static const struct {
        const char *config, *options, *why;
    } adapters[] = {
        {"{}", "", "peft_type ''; LORA can be converted"},
        {"{\"peft_type\":\"LORA\",\"use_dora\":true}", "", "'use_dora'"},
        {"{\"peft_type\":\"LORA\",\"modules_to_save\":[\"x\"]}", "",
            "'modules_to_save'"},
        {"{\"peft_type\":\"LORA\",\"bias\":\"all\"}", "", "'bias'"},
        {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"pissa\"}", "",
            "'pissa' changes the model's own weights"},
        {"{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":1}", "",
            "no sensible 'r'"},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1,"
         "\"use_rslora\":true,\"rank_pattern\":{\"q\":2}}", "",
            "'use_rslora' with 'rank_pattern'"},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1,"
         "\"base_model_name_or_path\":\"a/b\"}", "",
            "the folder of its model ('a/b') with --base"},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1}",
            " --base empty -t q4_0", "-t f16, f32 or bf16"},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1}",
            " --base empty", "truncated: no header"},
    };
    put_text("adapter_model.safetensors", "x");
    for (size_t i = 0; i < KS_LEN(adapters); i++) {
        char line[80];
        snprintf(line, sizeof line, "convert . -o out.gguf%s",
            adapters[i].options);
        put_text("adapter_config.json", adapters[i].config);
        refused(line, adapters[i].why);
    }
    remove_file("adapter_config.json");
    remove_file("config.json");
    refused("convert . -o out.gguf", "no config.json");
    end();
}

/* The folder's name, not the memory where it is tried. */
TEST(what_cannot_be_run_is_said_of_the_folder) {
    begin();
    config_with("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 2");
    refused("convert . -o out.gguf", "cannot be run: .: tensor");
    CHECK(!strstr(said, "memory"));
    end();
}

/* A file of towers, as --media-only and llama.cpp write it, is no model: there
 * is nothing to try. */
TEST(towers_alone_are_quantized) {
    fx_gguf g;
    begin();
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "clip");
    fx_tensor(&g, "mm.0.weight", KSLLM_TYPE_F32, 64, 32);
    fx_file f = fx_end(&g);
    put_file("mm.gguf", f.data, f.size);
    free(f.data);
    if (!CHECK_EQ(run_program("quantize mm.gguf -o out.gguf -t q8_0"), 0))
        printf("%s\n", said);
    end();
}

/* ---- a number for each layer ---- */

/* The file again, with this key's number as an array. */
static void with_array(const char *key, u32 n, const u32 *values) {
    gguf g;
    gw w = {.n_kv = 0, .bar = {.quiet = true}};
    qz_options o = {.mix = qz_mix_by_name("f32")};
    char *path = in_folder("a.gguf"), *out = in_folder("array.gguf");
    gguf_file(&g, path);
    n_in_files = 0; /* a program ends; this process writes more of them */
    for (u32 i = 0; i < g.n_kv; i++)
        if (!str_eq(g.kv[i].key, str_of(key))) gw_copy_kv(&w, &g.kv[i]);
    gw_kv_array(&w, key, KSLLM_META_U32, n);
    bytes_put(&w.kv, values, n * sizeof *values);
    qz_plan(&g, &o, &w);
    gw_lay(&w);
    gw_write(&w, out);
    gguf_close(&g, &MEM_LIBC);
    free(path);
    free(out);
}

TEST(numbers_for_each_layer) {
    static const struct {
        const char *key;
        u32 value;
    } keys[] = {{"llama.attention.head_count", 2},
        {"llama.attention.head_count_kv", 1},
        {"llama.feed_forward_length", F}};
    begin();
    char dir[256], line[320];
    snprintf(line, sizeof line, "convert %s/tests/reference/llama_tied -o "
        "a.gguf -t f32", getcwd(dir, sizeof dir));
    CHECK_EQ(run_program(line), 0);
    char *from = in_folder("a.gguf"), *path = in_folder("array.gguf");
    for (size_t i = 0; i < KS_LEN(keys); i++)
        for (int k = 0; k < 4; k++) { /* equal, unequal, too few, none */
            ksllm_model *m = NULL;
            ksllm_error err;
            ksllm_model_info was = {.size = sizeof was}, is = was;
            if (!CHECK_OK(ksllm_model_open(from, NULL, &m, &err), err)) break;
            i64 value = 0;
            gguf_get_int(&m->g, keys[i].key, &value);
            ksllm_model_get_info(m, &was, NULL);
            u32 n = m->n_blocks, values[64];
            ksllm_model_close(m);
            m = NULL;
            for (u32 j = 0; j < n; j++) values[j] = (u32)value;
            if (k == 1) values[n - 1]++;
            with_array(keys[i].key, k > 1 ? k == 2 ? n - 1 : 0 : n, values);
            ksllm_status status = ksllm_model_open(path, NULL, &m, &err);
            CHECK_EQ(status, k > 1 ? KSLLM_ERR_FORMAT
                : k ? KSLLM_ERR_UNSUPPORTED : KSLLM_OK);
            if (status && !CHECK(strstr(err.text, keys[i].key)))
                printf("%s\n", err.text);
            if (m) ksllm_model_get_info(m, &is, NULL);
            if (m) CHECK_EQ(is.n_parameters, was.n_parameters);
            ksllm_model_close(m);
        }
    free(from);
    free(path);
    end();
}

/* The mixes ask how many heads share keys: of an array, too. */
TEST(mixes_read_numbers_for_each_layer) {
    begin();
    CHECK_EQ(run_program("convert . -o a.gguf -t f32"), 0);
    const u32 one = 1;
    with_array("llama.attention.head_count_kv", 1, &one);
    gguf g;
    qz_options o = {.gqa = 0};
    char *path = in_folder("array.gguf");
    gguf_file(&g, path);
    n_in_files = 0;
    qz_read_shape(&g, &o);
    CHECK_EQ(o.gqa, 2);
    gguf_close(&g, &MEM_LIBC);
    free(path);
    end();
}

/* llama.cpp's choices (llama-quant.cpp, de3ff81): a fused tensor is treated as
 * the values in it, experts as other feed-forwards. */
TEST(mixes_know_tensors_by_what_they_hold) {
    static const char *const alike[][2] = {{"attn_qkv", "attn_v"},
        {"ffn_down_exps", "ffn_down"}, {"ffn_down_shexp", "ffn_down"}};
    static const struct {
        const char *mix, *tensor;
        u32 gqa, layer;
        ksllm_type type;
    } cases[] = {
        {"q4_k_m", "attn_qkv", 1, 0, KSLLM_TYPE_Q6_K},
        {"q4_k_m", "attn_qkv", 1, 2, KSLLM_TYPE_Q6_K},
        {"q4_k_m", "attn_qkv", 1, 3, KSLLM_TYPE_Q4_K},
        {"q4_k_m", "attn_qkv", 1, 5, KSLLM_TYPE_Q6_K},
        {"q4_k_m", "attn_qkv", 1, 19, KSLLM_TYPE_Q4_K},
        {"q4_k_m", "attn_qkv", 1, 21, KSLLM_TYPE_Q6_K},
        {"q5_k_m", "ffn_down_exps", 1, 23, KSLLM_TYPE_Q6_K},
        {"q4_k_s", "attn_qkv", 1, 3, KSLLM_TYPE_Q5_K},
        {"q4_k_s", "attn_qkv", 1, 4, KSLLM_TYPE_Q4_K},
        {"q4_k_s", "ffn_down_exps", 1, 2, KSLLM_TYPE_Q5_K},
        {"q3_k_m", "attn_qkv", 1, 1, KSLLM_TYPE_Q5_K},
        {"q3_k_m", "attn_qkv", 1, 2, KSLLM_TYPE_Q4_K},
        {"q3_k_m", "attn_q", 1, 0, KSLLM_TYPE_Q3_K},
        {"q3_k_l", "attn_qkv", 1, 23, KSLLM_TYPE_Q5_K},
        {"q2_k", "attn_qkv", 1, 0, KSLLM_TYPE_Q3_K},
        {"q2_k", "attn_qkv", 4, 0, KSLLM_TYPE_Q4_K},
        {"iq4_xs", "attn_qkv", 4, 9, KSLLM_TYPE_Q5_K},
        {"iq4_xs", "attn_qkv", 3, 9, KSLLM_TYPE_IQ4_XS},
        {"q4_0", "attn_qkv", 8, 0, KSLLM_TYPE_Q4_0},
    };
    char name[64];
    qz_options o = {.n_layers = 24};
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        o.mix = qz_mix_by_name(cases[i].mix);
        o.gqa = cases[i].gqa;
        snprintf(name, sizeof name, "blk.%u.%s.weight", cases[i].layer,
            cases[i].tensor);
        if (!CHECK_EQ(qz_wanted(&o, str_of(name)), cases[i].type))
            printf("%s: %s\n", cases[i].mix, name);
    }
    for (size_t k = 0; k < KS_LEN(QZ_MIXES) * KS_LEN(alike); k++)
        for (u32 layer = 0; layer < o.n_layers; layer++) {
            ksllm_type types[2];
            o.mix = &QZ_MIXES[k / KS_LEN(alike)];
            o.gqa = 1 + 3 * (layer & 1);
            for (int i = 0; i < 2; i++) {
                snprintf(name, sizeof name, "blk.%u.%s.weight", layer,
                    alike[k % KS_LEN(alike)][i]);
                types[i] = qz_wanted(&o, str_of(name));
            }
            if (!CHECK_EQ(types[0], types[1]))
                printf("%s: layer %u\n", o.mix->name, layer);
        }
}

static void template_is(const char *key, const char *want) {
    ksllm_error err;
    os_file f;
    gguf g = {.name = str_of("t")};
    char *path = in_folder("t.gguf");
    if (!CHECK_EQ(run_program("convert . -o t.gguf"), 0)) printf("%s\n", said);
    else if (CHECK(!os_open(path, NULL, &f, &err)
        && !gguf_open(&g, f, "t", &MEM_LIBC, &err)))
        CHECK(str_eq(gguf_get_str(&g, key), str_of(want)));
    free(path);
}

/* The places where folders keep their chat template; the later ones here come
 * first in rank, and what is left out then is said. */
TEST(chat_templates) {
    static const char key[] = "tokenizer.chat_template";
    static const struct {
        const char *file, *text, *want, *left; /* left: NULL: not a word */
    } cases[] = {
        {"chat_template.json", "{\"chat_template\": \"one\"}", "one", NULL},
        {"tokenizer_config.json", "{\"chat_template\": \"one\"}", "one",
            NULL},
        {"tokenizer_config.json", "{\"chat_template\": \"two\"}", "two",
            "of chat_template.json differs from that of tokenizer_config"},
        {"tokenizer_config.json", "{\"chat_template\": [{\"name\": "
            "\"default\", \"template\": \"three\"}, {\"name\": "
            "\"tool_use\", \"template\": \"tools\"}]}", "three",
            "of chat_template.json differs"},
        {"chat_template.jinja", "four\n", "four\n",
            "of tokenizer_config.json differs"},
    };
    begin();
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        put_text(cases[i].file, cases[i].text);
        template_is(key, cases[i].want);
        if (!CHECK(cases[i].left ? strstr(said, cases[i].left) != NULL
                                 : !strstr(said, "differs")))
            printf("case %zu: %s\n", i, said);
        if (i == 3) template_is("tokenizer.chat_template.tool_use", "tools");
    }
    char *more = in_folder("additional_chat_templates");
    if (mkdir(more, 0777)) abort();
    put_text("additional_chat_templates/rag.jinja", "five");
    put_text("additional_chat_templates/tool-use.jinja", "six");
    put_text("additional_chat_templates/notes.txt", "seven");
    template_is(key, "four\n");
    template_is("tokenizer.chat_template.rag", "five");
    template_is("tokenizer.chat_template.tool_use", "six");
    ksllm_model *m = made("convert . -o out.gguf");
    const gguf_kv *kv = m ? gguf_find(&m->g, "tokenizer.chat_templates") : NULL;
    if (CHECK(kv && kv->count == 2)) {
        const u8 *p = kv->data;
        CHECK(str_eq(gguf_next_str(&p), str_of("rag")));
        CHECK(str_eq(gguf_next_str(&p), str_of("tool_use")));
    }
    ksllm_model_close(m);
    /* without the file: the config's default is gone in transformers, too */
    remove_file("chat_template.jinja");
    template_is("tokenizer.chat_template.rag", "five");
    CHECK(strstr(said, "of tokenizer_config.json differs"));
    template_is(key, "");
    free(more);
    end();
}

static int read_state(void *ctx, void *data, size_t n) {
    return fread(data, 1, n, ctx) != n;
}

/* The text whose state is in car.kv, by the model. */
static void state_is(const ksllm_model *m, ksllm_type kv, const char *want) {
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error err = {0};
    char got[256], *path = in_folder("car.kv");
    FILE *f = fopen(path, "rb");
    size_t n;
    ksllm_session_options_init(&o);
    o.kv_type = kv;
    o.n_threads = 1;
    if (CHECK(f != NULL)
        && CHECK_OK(ksllm_session_create(m, &o, &s, &err), err)) {
        CHECK_OK(ksllm_session_load(
                     s, NULL, 0, read_state, f, NULL, NULL, &err), err);
        const i32 *tokens = ksllm_session_tokens(s, &n);
        i64 k = ksllm_decode(
            m, tokens, n, KSLLM_DECODE_SPECIAL, got, sizeof got - 1, &err);
        got[k > 0 ? k : 0] = 0;
        CHECK_STR(got, want);
        CHECK_OK(ksllm_session_append(s, (i32[]){5}, 1, NULL, &err), err);
    }
    ksllm_session_free(s);
    if (f) fclose(f);
    free(path);
}

/* What conversations with a system prompt share, and no more. */
TEST(state_of_a_prompt) {
    static const struct {
        const char *prompt, *want;
    } cases[] = {
        {"[{\"role\": \"system\", \"content\": \"abc\"}]\n",
            "<system>abc<user>"},
        {" {\"tools\": [{\"type\": \"function\", \"function\": {\"name\": "
            "\"f]\"}}] , \"variables\": {\"x\": [\"7\"]},\"messages\" : [ "
            "{\"content\": \"a\", \"role\": \"system\"} ] }",
            "7Tf]<system>a<user>"},
        {"\xef\xbb\xbf[{\"role\": \"user\", \"content\": \"b\"}]",
            "<user>b<assistant>"},
        {"[]", "<user>"},
    };
    begin();
    put_text("chat_template.jinja", "{{ x[0] if x }}{% for t in tools or [] "
        "%}T{{ t.function.name }}{% endfor %}{% for m in messages %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}");
    ksllm_model *m = made("convert . -o out.gguf");
    for (size_t i = 0; m && i < KS_LEN(cases); i++) {
        put_text("prompt", cases[i].prompt);
        if (!CHECK_EQ(run_program("prefix out.gguf prompt -o car.kv"), 0))
            printf("case %zu: %s\n", i, said);
        state_is(m, KSLLM_TYPE_Q8_0, cases[i].want);
    }
    put_text("prompt", "abcab");
    CHECK_EQ(run_program("prefix out.gguf prompt -o car.kv --text --quiet "
        "--kv-type f16 --threads 1"), 0);
    if (m) state_is(m, KSLLM_TYPE_F16, "abcab");
    static const char *const bad[][2] = {
        {"{\"message\": []}", "'message' is none of"},
        {"{\"tools\": []}", "neither an array of messages nor"},
        {"[", "prompt: "}, {"", "prompt: "}, {"7", "neither an array"},
        {"{\"messages\": 7}", "messages is no array"},
        {"[7]", "prompt: "},
    };
    put_text("car.kv", "old");
    for (size_t i = 0; i < KS_LEN(bad); i++) {
        put_text("prompt", bad[i][0]);
        CHECK_EQ(run_program("prefix out.gguf prompt -o car.kv"), 1);
        if (!CHECK(strstr(said, bad[i][1]))) printf("%s\n", said);
        CHECK(!has_debris());
    }
    CHECK_EQ(run_program("prefix out.gguf prompt -o out.gguf --text"), 1);
    CHECK(strstr(said, "is read for this"));
    CHECK_EQ(run_program("prefix out.gguf none -o car.kv"), 1);
    CHECK_EQ(run_program("prefix out.gguf prompt --kv-type q4_0 -o car.kv "
        "--text"), 1);
    CHECK(strstr(said, "kv_type"));
    CHECK_EQ(run_program("prefix out.gguf prompt more -o car.kv"), 1);
    CHECK_EQ(run_program("prefix out.gguf -o car.kv"), 1);
    CHECK_EQ(run_program("prefix --help"), 0);
    put_text("prompt", "");
    CHECK_EQ(run_program("prefix out.gguf prompt -o car.kv --text"), 1);
    CHECK(strstr(said, "no token"));
    ksllm_model_close(m);
    end();
}

/* A model of tests/reference, converted and open; NULL if that failed. */
static ksllm_model *open_converted(const char *reference, const char *type) {
    char line[512], cwd[256];
    ksllm_model *m = NULL;
    ksllm_error err;
    char *path = in_folder("converted.gguf");
    snprintf(line, sizeof line,
        "convert %s/tests/reference/%s -o converted.gguf -t %s",
        getcwd(cwd, sizeof cwd), reference, type);
    if (CHECK_EQ(run_program(line), 0))
        CHECK_OK(ksllm_model_open(path, NULL, &m, &err), err);
    free(path);
    return m;
}

/* The rank of gated norms comes from a tensor: room for its activations as
 * floats and as integers, of both kinds, is in the plan. */
TEST(gates_of_any_rank_have_room) {
    ksllm_memory was = {.size = sizeof was}, is = {.size = sizeof is};
    ksllm_error err;
    begin();
    ksllm_model *m = open_converted("axk2", "f32");
    if (m && CHECK_OK(ksllm_session_memory(m, NULL, &was, &err), err)) {
        const size_t rank = 1 << 16;
        m->dim[D_NORM_RANK] = rank;
        CHECK_OK(ksllm_session_memory(m, NULL, &is, &err), err);
        CHECK(is.scratch - was.scratch > is.n_batch * (rank - 2048) * 6);
    }
    ksllm_model_close(m);
    end();
}

/* With --weights-only, rows of experts lie where their file has them, also if
 * gate and up share a tensor, and become floats one after another. */
TEST(experts_become_floats) {
    begin();
    ksllm_model *m = open_converted("gemma4_moe", "f16");
    if (m) {
        u32 apart = 0;
        for (u32 i = 0; i < m->n_layers * N_MATRICES; i++) {
            const mdl_layer *l = &m->layers[i / N_MATRICES];
            const mdl_matrix was = l->mat[i % N_MATRICES];
            mdl_matrix now = was;
            cmp_dequantize(&now);
            if (now.type == was.type) continue;
            apart += was.apart > was.n_out * was.row_bytes;
            f32 *row = xalloc(was.n_in, sizeof *row);
            bool same = true;
            for (size_t k = 0; k < was.n; k++)
                for (size_t r = 0; r < was.n_out; r++) {
                    blk_row(was.type, was.w + k * was.apart
                        + r * was.row_bytes, was.n_in, row);
                    same = same && !memcmp(row, now.w + k * now.apart
                        + r * now.row_bytes, was.n_in * sizeof *row);
                }
            CHECK(same);
            free(row);
            free((void *)(uintptr_t)now.w);
        }
        CHECK(apart > 0);
    }
    ksllm_model_close(m);
    end();
}

TEST_MAIN
