/* test_families.c - every model family against the reference implementation.
 *
 * tests/reference/ROW/ holds a tiny checkpoint in the layout of the published
 * ones and what Hugging Face transformers computes with it in float32
 * (make_reference.py there). Each is converted with ksllm-quant and run: the
 * logits of every position, 64 greedy tokens, the same bits however many
 * threads, however the tokens are cut, with other sessions in the same passes,
 * and when the session is saved and loaded in between; then with weights of 8 and 4 bits.
 *
 * The tool is linked in as an object of its own (tests/quant.o), with a private
 * copy of the library; the models run in the library as it ships.
 */
#include "../ksllm.h"

#include "adapter.h"
#include "picture.h"
#include "sound.h"
#include "state.h"
#include "test.h"

#include <dirent.h>
#include <math.h>
#include <sys/wait.h>

int quant_main(int argc, char **argv); /* main of quant/ksllm-quant.c */

#define KS_LEN(a) (sizeof(a) / sizeof(*(a)))

typedef uint8_t u8;
typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef float f32;
typedef double f64;

#define REFERENCE "tests/reference/"

/* Largest difference of a logit; their standard deviation is 1. Measured: at
 * most 2.4e-5, which is how far float32 sums in another order go. */
#define LIMIT 1e-4

/* Mean KL divergence from the reference in nats, dense rows and rows with
 * experts: a router that decides otherwise changes all that follows. Measured:
 * at most 0.0015 and 0.027 with 8 bits, 0.10 and 0.31 with 4. These networks
 * are random and narrow; a trained one of usual width loses far less. */
static const struct {
    const char *type;
    double limit[2];
} STORED[] = {{"f32", {0, 0}}, {"q8_0", {0.003, 0.05}}, {"q4_0", {0.2, 0.6}}};

enum { N_GREEDY = 64 };

typedef struct {
    u8 *p;
    size_t n;
} bytes;

static void *xalloc(size_t n, size_t size) {
    void *p = calloc(n + !n, size);
    if (!p) abort();
    return p;
}

/* A whole file, and a NUL behind it. */
static bool read_file(const char *path, bytes *b) {
    FILE *f = fopen(path, "rb");
    *b = (bytes){NULL, 0};
    if (!CHECK(f != NULL)) return false;
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    b->p = xalloc(n + 1, 1);
    b->n = fread(b->p, 1, n, f);
    fclose(f);
    return CHECK_EQ(b->n, n);
}

typedef struct {
    i32 *prompt, greedy[N_GREEDY];
    size_t n, n_vocab;
    const f32 *logits; /* [n][n_vocab] */
    bytes file;
} reference;

static size_t read_ids(const char **at, i32 *out, size_t cap) {
    size_t n = 0;
    char *end;
    for (;;) {
        long v = strtol(*at, &end, 10);
        if (end == *at || n == cap) return n;
        out[n++] = (i32)v;
        *at = end;
        if (**at == '\n') return n;
    }
}

static bool read_reference(const char *row, reference *r) {
    char path[256];
    snprintf(path, sizeof path, REFERENCE "%s/reference.bin", row);
    if (!read_file(path, &r->file)) return false;
    const char *at = (const char *)r->file.p;
    r->prompt = xalloc(4096, sizeof *r->prompt);
    at += strlen("prompt ");
    r->n = read_ids(&at, r->prompt, 4096);
    at += strlen("\ngreedy ");
    size_t n_greedy = read_ids(&at, r->greedy, N_GREEDY), n = 0;
    int used = 0;
    sscanf(at, "\nlogits %zu %zu%n", &n, &r->n_vocab, &used);
    at += used + 1;
    r->logits = (const f32 *)(const void *)at;
    size_t want = (size_t)(at - (const char *)r->file.p)
        + n * r->n_vocab * sizeof(f32);
    return CHECK_EQ(n_greedy, N_GREEDY) & CHECK_EQ(n, r->n)
        & CHECK_EQ(r->file.n, want);
}

static void free_reference(reference *r) {
    free(r->prompt);
    free(r->file.p);
}

/* Runs convert on a folder, with a base for an adapter, and gives what it
 * printed. The tool ends the process when it refuses, hence a child. */
static const char *media_flag; /* --no-media, --media-only; NULL: neither */
static const char *tower_type; /* of a tower's matrices; NULL: as the text's */

static const char *const TOWER_MATRICES_OF[] = {
    "[va].blk.*_*.weight", "mm.[012amr]*weight"};

static int run_convert_on(const char *dir, const char *base, const char *type,
    char *out, char said[2048]) {
    char log[64];
    int status = -1;
    strcpy(out, "/tmp/ksllm-family-XXXXXX");
    close(mkstemp(out));
    snprintf(log, sizeof log, "%s.log", out);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        if (!freopen(log, "w", stdout) || dup2(1, 2) < 0) _exit(9);
        char *argv[24] = {"ksllm-quant", "convert", (char *)dir, "-o", out,
            "-t", (char *)type, "--threads", "1", "--quiet"};
        char put[KS_LEN(TOWER_MATRICES_OF)][64];
        int n = 10;
        if (base) argv[n++] = "--base", argv[n++] = (char *)base;
        else if (media_flag) argv[n++] = (char *)media_flag;
        for (size_t i = 0; tower_type && i < KS_LEN(TOWER_MATRICES_OF); i++) {
            snprintf(put[i], sizeof put[i], "%s=%s", TOWER_MATRICES_OF[i],
                tower_type);
            argv[n++] = "--tensor";
            argv[n++] = put[i];
        }
        status = quant_main(n, argv);
        fflush(NULL);
        _exit(status);
    }
    waitpid(child, &status, 0);
    FILE *f = fopen(log, "r");
    said[f ? fread(said, 1, 2047, f) : 0] = 0;
    if (f) fclose(f);
    unlink(log);
    return status;
}

static int run_convert(const char *dir, const char *type, char *out,
    char said[2048]) {
    return run_convert_on(dir, NULL, type, out, said);
}

static bool convert(const char *row, const char *type, char *out) {
    char dir[256], said[2048];
    snprintf(dir, sizeof dir, REFERENCE "%s", row);
    int status = run_convert(dir, type, out, said);
    if (status) printf("%s: %s", row, said);
    return CHECK_EQ(status, 0);
}

typedef struct {
    u32 n_threads, n_batch;
    size_t step; /* tokens of a call */
    ksllm_type kv;
    bool saved; /* goes on in another session after every call */
    const ksllm_adapter *adapter;
    size_t from; /* where the adapter begins */
} way;

/* The session as it comes out of a file, in one of another shape. */
static ksllm_session *reborn(
    const ksllm_model *m, ksllm_session *s, ksllm_session_options *o,
    const way *w) {
    st_memory file = {.at = 0};
    ksllm_session *t = NULL;
    ksllm_error err;
    o->n_batch = o->n_batch % 30 + 5;
    CHECK_OK(
        ksllm_session_save(s, 0, st_memory_write, &file, NULL, NULL, &err),
        err);
    if (CHECK_OK(ksllm_session_create(m, o, &t, &err), err)
        && CHECK_OK(
            ksllm_session_set_adapter(t, w->adapter, 1, w->from, &err), err))
        CHECK_OK(ksllm_session_load(
                     t, NULL, 0, st_memory_read, &file, NULL, NULL, &err), err);
    ksllm_session_free(s);
    free(file.b.data);
    return t;
}

/* The logits of all positions, and then the greedy tokens. */
static f32 *run(const ksllm_model *m, const reference *r, way w, i32 *greedy) {
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error err;
    ksllm_session_options_init(&o);
    o.n_ctx = (u32)r->n + N_GREEDY;
    o.n_threads = w.n_threads;
    o.n_batch = w.n_batch;
    o.kv_type = w.kv;
    o.max_rank = ksllm_adapter_rank(w.adapter);
    f32 *logits = xalloc(r->n * r->n_vocab, sizeof *logits);
    if (!CHECK_OK(ksllm_session_create(m, &o, &s, &err), err)) return logits;
    CHECK_OK(ksllm_session_set_adapter(s, w.adapter, 1, w.from, &err), err);
    for (size_t at = 0; at < r->n; at += w.step) {
        size_t left = r->n - at, n = w.step < left ? w.step : left;
        if (!CHECK_OK(ksllm_session_append_logits(s, r->prompt + at, n,
                          logits + at * r->n_vocab, NULL, &err), err))
            break;
        if (w.saved && !(s = reborn(m, s, &o, &w))) return logits;
    }
    for (size_t i = 0; greedy && i < N_GREEDY; i++) {
        ksllm_token_prob best;
        ksllm_sampling argmax;
        ksllm_sampling_init(&argmax);
        if (!CHECK_OK(ksllm_sample(s, &argmax, i, &best, NULL, 0, &err), err)
            || (i + 1 < N_GREEDY && !CHECK_OK(ksllm_session_append(
                    s, &best.token, 1, NULL, &err), err)))
            break;
        greedy[i] = best.token;
    }
    ksllm_session_free(s);
    return logits;
}

static f64 largest_difference(const reference *r, const f32 *x) {
    f64 most = 0;
    for (size_t i = 0; i < r->n * r->n_vocab; i++) {
        f64 d = fabs((f64)x[i] - (f64)r->logits[i]);
        if (!(d <= most)) most = d; /* NaN stays */
    }
    return most;
}

static f64 mean_kl(const reference *r, const f32 *x) {
    f64 sum = 0;
    for (size_t t = 0; t < r->n; t++) {
        const f32 *a = r->logits + t * r->n_vocab, *b = x + t * r->n_vocab;
        f64 za = 0, zb = 0, kl = 0;
        for (size_t i = 0; i < r->n_vocab; i++) {
            za += exp((f64)a[i]);
            zb += exp((f64)b[i]);
        }
        for (size_t i = 0; i < r->n_vocab; i++)
            kl += exp((f64)a[i]) / za
                * ((f64)a[i] - log(za) - (f64)b[i] + log(zb));
        sum += kl;
    }
    return sum / (f64)r->n;
}

/* Other sessions in the same passes do not change a bit. */
static void together(const ksllm_model *m, const reference *r,
    const f32 *want, const way *w) {
    enum { SESSIONS = 3 };
    static const size_t steps[SESSIONS] = {1, 5, 17};
    ksllm_session *s[SESSIONS] = {NULL};
    size_t at[SESSIONS] = {0}, left = SESSIONS;
    ksllm_session_options o;
    ksllm_error err;
    ksllm_session_options_init(&o);
    o.n_ctx = (u32)r->n + 1;
    o.n_batch = 20;
    o.n_threads = 2;
    o.kv_type = w->kv;
    o.max_rank = ksllm_adapter_rank(w->adapter);
    for (size_t i = 0; i < SESSIONS; i++)
        if (!CHECK_OK(ksllm_session_create(m, &o, &s[i], &err), err)
            || !CHECK_OK(ksllm_session_set_adapter(
                             s[i], w->adapter, 1, w->from, &err), err))
            left = 0;
    while (left) {
        ksllm_member part[SESSIONS];
        size_t which[SESSIONS], n = 0;
        for (size_t i = 0; i < SESSIONS; i++) {
            size_t step = r->n - at[i] < steps[i] ? r->n - at[i] : steps[i];
            if (!step) continue;
            part[n] = (ksllm_member){.session = s[i],
                .tokens = r->prompt + at[i], .n_tokens = step};
            at[i] += step;
            which[n++] = i;
        }
        left = n;
        if (n && !CHECK_OK(ksllm_sessions_append(part, n, &err), err)) break;
        for (size_t i = 0; i < n; i++)
            CHECK(!memcmp(ksllm_session_logits(part[i].session),
                want + (at[which[i]] - 1) * r->n_vocab,
                r->n_vocab * sizeof *want));
    }
    for (size_t i = 0; i < SESSIONS; i++) ksllm_session_free(s[i]);
}

/* Nor do threads and cuts of the prompt. */
static void same_bits(const ksllm_model *m, const reference *r,
    const f32 *want, way like) {
    const way ways[] = {{4, 64, SIZE_MAX, 0, false, NULL, 0},
        {1, 64, 1, 0, false, NULL, 0}, {4, 64, 1, 0, false, NULL, 0},
        {1, 7, 11, 0, false, NULL, 0}, {1, 16, 13, 0, true, NULL, 0}};
    for (size_t i = 0; i < KS_LEN(ways); i++) {
        way w = like;
        w.n_threads = ways[i].n_threads;
        w.n_batch = ways[i].n_batch;
        w.step = ways[i].step;
        w.saved = ways[i].saved;
        f32 *got = run(m, r, w, NULL);
        if (!CHECK(!memcmp(want, got, r->n * r->n_vocab * sizeof *got)))
            printf("way %zu\n", i);
        free(got);
    }
    together(m, r, want, &like);
}

static void check_exact(const char *row, const ksllm_model *m,
    const reference *r, const ksllm_adapter *adapter) {
    i32 greedy[N_GREEDY] = {0};
    const way w = {1, 64, SIZE_MAX, KSLLM_TYPE_F32, false, adapter,
        ksllm_adapter_begins(adapter, r->prompt, r->n)};
    f32 *logits = run(m, r, w, greedy);
    f64 d = largest_difference(r, logits);
    int same = !memcmp(greedy, r->greedy, sizeof greedy);
    printf("%-18s F32: largest difference %.1e, greedy %s\n", row, d,
        same ? "the same" : "DIFFERS");
    CHECK(d <= LIMIT);
    CHECK(same);
    same_bits(m, r, logits, w);
    free(logits);
}

/* Nor does the instruction set; with the int8 cache, as it is by default. */
static void same_everywhere(const char *path, const reference *r) {
    const char *name;
    f32 *want = NULL;
    for (size_t i = 0; (name = ksllm_isa_at(i)) != NULL; i++) {
        ksllm_model_options o;
        ksllm_model *m = NULL;
        ksllm_error err;
        ksllm_model_options_init(&o);
        o.isa = name;
        if (!CHECK_OK(ksllm_model_open(path, &o, &m, &err), err)) continue;
        way w = {2, 64, SIZE_MAX, KSLLM_TYPE_Q8_0, false, NULL, 0};
        f32 *got = run(m, r, w, NULL);
        if (!want) same_bits(m, r, want = got, w);
        else if (!CHECK(!memcmp(want, got, r->n * r->n_vocab * sizeof *got)))
            printf("%s\n", name);
        if (want != got) free(got);
        ksllm_model_close(m);
    }
    free(want);
}

static bool has_experts(const ksllm_model *m) {
    ksllm_tensor t = {.size = sizeof t};
    return !ksllm_tensor_find(m, "blk.1.ffn_gate_inp.weight", &t);
}

static void check_row(const char *row) {
    reference r = {.n = 0};
    bool ok = read_reference(row, &r);
    for (size_t i = 0; i < KS_LEN(STORED) && ok; i++) {
        char path[64];
        ksllm_model *m = NULL;
        ksllm_model_info info = {.size = sizeof info};
        ksllm_error err;
        ok = convert(row, STORED[i].type, path)
            && CHECK_OK(ksllm_model_open(path, NULL, &m, &err), err)
            && CHECK_OK(ksllm_model_get_info(m, &info, NULL), err)
            && CHECK_EQ(info.n_vocab, r.n_vocab);
        if (ok && !i) check_exact(row, m, &r, NULL);
        if (ok && i) {
            const way w = {1, 64, SIZE_MAX, KSLLM_TYPE_F16, false, NULL, 0};
            f32 *x = run(m, &r, w, NULL);
            f64 kl = mean_kl(&r, x);
            printf(" %s: KL %.5f%s", STORED[i].type, kl, i == 2 ? "\n" : ";");
            CHECK(kl <= STORED[i].limit[has_experts(m)]);
            same_bits(m, &r, x, w);
            free(x);
            same_everywhere(path, &r);
        }
        ksllm_model_close(m);
        unlink(path);
    }
    free_reference(&r);
}

#define ROWS(X)                                                               \
    X(llama_tied) X(llama_mha) X(llama_llama3) X(llama_yarn) X(exaone)        \
    X(exaone4) X(exaone4_hybrid) X(exaone4_5) X(exaone_moe) X(hyperclovax)    \
    X(hyperclovax_omni) X(hyperclovax_vision) X(hyperclovax_seed) X(qwen2)    \
    X(qwen3) X(qwen3_embedding) X(qwen3_asr) X(varco_vision)                  \
    X(deepseek_v3) X(deepseek_v3_groups) X(solar_open) X(solar) X(axk1)       \
    X(axk2) X(kanana2_tiny) X(vaetki) X(kormo) X(granite)                     \
    X(granite_hybrid) X(smollm3) X(ministral3) X(phi3) X(qwen2_5_vl)          \
    X(qwen3_vl) X(lfm2) X(lfm2_moe) X(qwen3_5) X(qwen3_5_moe)        \
    X(gemma4) X(gemma4_moe)

#define ROW_TEST(name) TEST(name) { check_row(#name); }
#define ROW_NAME(name) #name,

ROWS(ROW_TEST)

static const char *const NAMES[] = {ROWS(ROW_NAME)};

TEST(every_folder_is_a_row) {
    DIR *d = opendir(REFERENCE);
    size_t n = 0;
    if (!CHECK(d != NULL)) return;
    for (struct dirent *e; (e = readdir(d));) {
        bool known = false;
        if (strstr(e->d_name, ".py") || e->d_name[0] == '.') continue;
        for (size_t i = 0; i < KS_LEN(NAMES); i++)
            known |= !strcmp(NAMES[i], e->d_name);
        if (!CHECK(known)) printf("%s\n", e->d_name);
        n++;
    }
    closedir(d);
    CHECK_EQ(n, KS_LEN(NAMES));
}

/* ---- models that see or hear ----
 * see.bin has prompts with pictures, hear.bin with sounds: make_reference.py,
 * write_media. */

/* Of the largest value of a picture's rows. Measured: at most 1.3e-6. */
#define ROWS_LIMIT 2e-5

enum { SEEN_GREEDY = 12, MOST_PICTURES = 2, MOST_SEEN = 400 };

typedef struct {
    char chat[512]; /* messages; empty: none */
    i32 tiles, n_pictures, pictures[MOST_PICTURES][3];
    i32 prompt[MOST_SEEN], tokens[MOST_PICTURES], greedy[SEEN_GREEDY];
    size_t n, n_rows, n_embd, n_last, n_vocab;
    /* Float32, at any address; logits of the last n_last positions. */
    const u8 *rows, *logits;
} sight;

static f32 float_at(const u8 *p, size_t i) {
    f32 v;
    memcpy(&v, p + 4 * i, 4);
    return v;
}

/* "WORD A B" and the floats after it. */
static const u8 *read_floats(const char **at, const char *word, size_t *a,
    size_t *b) {
    char format[32];
    int used = 0;
    snprintf(format, sizeof format, "%s %%zu %%zu%%n", word);
    if (!CHECK_EQ(sscanf(*at, format, a, b, &used), 2)) return NULL;
    const u8 *p = (const u8 *)*at + used + 1;
    *at = (const char *)p + *a * *b * sizeof(f32);
    return p;
}

/* The numbers of the line that begins with this word. */
static size_t read_line(const char **at, const char *word, i32 *out,
    size_t cap) {
    if (!CHECK(!strncmp(*at, word, strlen(word)))) return 0;
    *at += strlen(word);
    size_t n = read_ids(at, out, cap);
    *at += **at == '\n';
    return n;
}

static bool read_sight(const char **at, sight *s) {
    i32 line[1 + 3 * MOST_PICTURES];
    size_t end = strcspn(*at, "\n");
    memset(s, 0, sizeof *s);
    if (!CHECK(!strncmp(*at, "chat", 4) && end < sizeof s->chat)) return false;
    if (end > 5) memcpy(s->chat, *at + 5, end - 5);
    *at += end + 1;
    size_t n = read_line(at, "pictures", line, KS_LEN(line));
    s->tiles = line[0];
    s->n_pictures = (i32)(n / 3);
    memcpy(s->pictures, line + 1, sizeof s->pictures);
    s->n = read_line(at, "prompt", s->prompt, MOST_SEEN);
    n = read_line(at, "tokens", s->tokens, MOST_PICTURES);
    bool ok = CHECK_EQ(n, s->n_pictures)
        & CHECK_EQ(read_line(at, "greedy", s->greedy, SEEN_GREEDY),
            SEEN_GREEDY);
    s->rows = read_floats(at, "rows", &s->n_rows, &s->n_embd);
    s->logits = read_floats(at, "logits", &s->n_last, &s->n_vocab);
    return ok && s->rows && s->logits;
}

/* A sound's rows by the tower, in memory of their own. */
static ksllm_media listen(const ksllm_model *m, ksllm_encoder *x,
    const i32 p[3]) {
    f32 *samples = sound((u32)p[0], (u32)p[1]);
    const ksllm_sound heard = {samples, (size_t)p[1]};
    ksllm_media_size size = {.size = sizeof size};
    ksllm_media media = {.size = sizeof media};
    ksllm_error err;
    CHECK_OK(ksllm_media_measure_sound(m, &heard, &size, &err), err);
    media.memory = xalloc(size.memory, 1);
    media.memory_size = size.memory;
    CHECK_OK(ksllm_media_encode_sound(x, &heard, NULL, &media, &err), err);
    free(samples);
    return media;
}

/* A picture's rows by the tower, in memory of their own. */
static ksllm_media look(const ksllm_model *m, ksllm_encoder *x,
    const i32 p[3], i32 tiles) {
    u8 *rgb = picture((u32)p[0], (u32)p[1], (u32)p[2]);
    const ksllm_image image = {rgb, (u32)p[0], (u32)p[1], 0};
    ksllm_media_options o;
    ksllm_media_size size = {.size = sizeof size};
    ksllm_media media = {.size = sizeof media};
    ksllm_error err;
    ksllm_media_options_init(&o);
    o.max_tiles = (u32)tiles;
    CHECK_OK(ksllm_media_measure(m, &image, &o, &size, &err), err);
    media.memory = xalloc(size.memory, 1);
    media.memory_size = size.memory;
    CHECK_OK(ksllm_media_encode(x, &image, &o, NULL, &media, &err), err);
    free(rgb);
    return media;
}

/* The largest difference of a row's value, relative to the largest value. */
static f64 rows_differ(const sight *s, const ksllm_media *media) {
    f64 most = 0, scale = 0;
    size_t at = 0;
    for (i32 i = 0; i < s->n_pictures; i++) {
        size_t n = (size_t)media[i].n_tokens * s->n_embd;
        if (!CHECK_EQ(media[i].n_tokens, s->tokens[i])
            || !CHECK_EQ(media[i].n_embd, s->n_embd) || !media[i].rows)
            return INFINITY;
        for (size_t k = 0; k < n; k++, at++) {
            f64 v = (f64)float_at(s->rows, at);
            f64 d = fabs((f64)media[i].rows[k] - v);
            if (!(d <= most)) most = d;
            if (fabs(v) > scale) scale = fabs(v);
        }
    }
    return most / scale;
}

/* The prompt is what the model's template makes of the messages; with media,
 * what ksllm_media_expand makes of that. */
static void check_chat(const ksllm_model *m, const sight *s,
    const ksllm_media *const *lent) {
    i32 ids[MOST_SEEN], want[MOST_SEEN];
    ksllm_chat chat;
    ksllm_error err;
    if (!*s->chat) return;
    ksllm_chat_init(&chat);
    chat.messages.data = s->chat;
    int64_t n = ksllm_chat_encode(m, &chat, 0, ids, MOST_SEEN, &err);
    if (CHECK_OK(n, err) && CHECK_EQ(n, s->n))
        CHECK(!memcmp(ids, s->prompt, s->n * sizeof *ids));
    chat.media = lent;
    chat.n_media = (size_t)s->n_pictures;
    n = ksllm_media_expand(m, s->prompt, s->n, lent, chat.n_media, want,
        MOST_SEEN, &err);
    if (CHECK_EQ(ksllm_chat_encode(m, &chat, 0, ids, MOST_SEEN, &err), n))
        CHECK(!memcmp(ids, want, (size_t)n * sizeof *ids));
}

/* The prompt's last logits and the greedy tokens, evaluated in steps. */
static f64 answers(const ksllm_model *m, const sight *s,
    const ksllm_media *const *lent, size_t step, bool *same) {
    ksllm_session_options o;
    ksllm_session *x = NULL;
    ksllm_error err;
    ksllm_session_options_init(&o);
    o.n_ctx = MOST_SEEN;
    o.n_threads = step > 5 ? 2 : 1;
    o.kv_type = KSLLM_TYPE_F32;
    i32 ids[MOST_SEEN];
    f64 most = 0;
    size_t n_lent = (size_t)s->n_pictures;
    int64_t n = ksllm_media_expand(m, s->prompt, s->n, lent, n_lent, ids,
        MOST_SEEN, &err);
    if (!CHECK_OK(n, err) || !CHECK(n <= MOST_SEEN - SEEN_GREEDY)
        || !CHECK((size_t)n >= s->n_last)
        || !CHECK_OK(ksllm_session_create(m, &o, &x, &err), err))
        return INFINITY;
    CHECK_OK(ksllm_session_lend(x, lent, n_lent, &err), err);
    f32 *logits = xalloc((size_t)n * s->n_vocab, sizeof *logits);
    for (size_t at = 0; at < (size_t)n; at += step) {
        size_t left = (size_t)n - at, k = step < left ? step : left;
        CHECK_OK(ksllm_session_append_logits(x, ids + at, k,
                     logits + at * s->n_vocab, NULL, &err), err);
    }
    const f32 *last = logits + ((size_t)n - s->n_last) * s->n_vocab;
    for (size_t i = 0; i < s->n_last * s->n_vocab; i++) {
        f64 d = fabs((f64)last[i] - (f64)float_at(s->logits, i));
        if (!(d <= most)) most = d;
    }
    *same = true;
    for (size_t i = 0; i < SEEN_GREEDY; i++) {
        ksllm_token_prob best;
        ksllm_sampling argmax;
        ksllm_sampling_init(&argmax);
        CHECK_OK(ksllm_sample(x, &argmax, i, &best, NULL, 0, &err), err);
        *same &= best.token == s->greedy[i];
        CHECK_OK(ksllm_session_append(x, &s->greedy[i], 1, NULL, &err), err);
    }
    free(logits);
    ksllm_session_free(x);
    return most;
}

/* Of the last position's answer, in nats, from the reference. */
static f64 answer_kl(const ksllm_model *m, const sight *s,
    const ksllm_media *const *lent) {
    ksllm_session_options o;
    ksllm_session *x = NULL;
    ksllm_error err;
    i32 ids[MOST_SEEN];
    f64 za = 0, zb = 0, kl = 0;
    size_t n_lent = (size_t)s->n_pictures, v = s->n_vocab;
    ksllm_session_options_init(&o);
    o.n_ctx = MOST_SEEN;
    o.n_threads = 1;
    o.kv_type = KSLLM_TYPE_F32;
    int64_t n = ksllm_media_expand(m, s->prompt, s->n, lent, n_lent, ids,
        MOST_SEEN, &err);
    if (!CHECK_OK(n, err)
        || !CHECK_OK(ksllm_session_create(m, &o, &x, &err), err))
        return INFINITY;
    CHECK_OK(ksllm_session_lend(x, lent, n_lent, &err), err);
    CHECK_OK(ksllm_session_sync(x, ids, (size_t)n, NULL, &err), err);
    const f32 *b = ksllm_session_logits(x);
    for (size_t i = 0; i < v; i++) {
        za += exp((f64)float_at(s->logits, (s->n_last - 1) * v + i));
        zb += exp((f64)b[i]);
    }
    for (size_t i = 0; i < v; i++) {
        f64 a = (f64)float_at(s->logits, (s->n_last - 1) * v + i);
        kl += exp(a) / za * (a - log(za) - (f64)b[i] + log(zb));
    }
    ksllm_session_free(x);
    return kl;
}

static void check_sight(const char *row, const ksllm_model *m,
    const sight *s, ksllm_encoder *x) {
    ksllm_media media[MOST_PICTURES];
    const ksllm_media *lent[MOST_PICTURES] = {&media[0], &media[1]};
    bool same = false;
    i32 n_heard = 0;
    for (i32 i = 0; i < s->n_pictures; i++) {
        bool heard = !s->pictures[i][2]; /* a picture has a seed */
        n_heard += heard;
        media[i] = heard ? listen(m, x, s->pictures[i])
                         : look(m, x, s->pictures[i], s->tiles);
    }
    f64 rows = rows_differ(s, media);
    CHECK(rows <= ROWS_LIMIT);
    check_chat(m, s, lent);
    for (size_t step = 1000; step; step = step > 5 ? 5 : 0) {
        f64 d = answers(m, s, lent, step, &same);
        CHECK(d <= LIMIT);
        CHECK(same);
        if (step > 5)
            printf("%-18s %d pictures, %d sounds: rows %.1e, logits %.1e, "
                "greedy %s\n", row, s->n_pictures - n_heard, n_heard, rows, d,
                same ? "the same" : "DIFFERS");
    }
    for (i32 i = 0; i < s->n_pictures; i++) free(media[i].memory);
}

static void check_sights(const char *row, bool hears) {
    char path[256], file[64];
    bytes b;
    ksllm_model *m = NULL;
    ksllm_encoder *x = NULL;
    ksllm_error err;
    size_t n = 0;
    snprintf(path, sizeof path, REFERENCE "%s/%s.bin", row,
        hears ? "hear" : "see");
    if (!read_file(path, &b) || !convert(row, "f32", file)
        || !CHECK_OK(ksllm_model_open(file, NULL, &m, &err), err)
        || !CHECK_OK(ksllm_encoder_create(m, NULL, &x, &err), err))
        return;
    sight *s = xalloc(1, sizeof *s);
    for (const char *at = (const char *)b.p; at < (const char *)b.p + b.n; n++)
        if (!read_sight(&at, s)) break;
        else check_sight(row, m, s, x);
    CHECK_EQ(n, 5);
    free(s);
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    unlink(file);
    free(b.p);
}

#define SEES(X)                                                               \
    X(varco_vision) X(hyperclovax_vision) X(hyperclovax_omni) X(exaone4_5)    \
    X(hyperclovax_seed)

#define SEE_TEST(name) TEST(name##_sees) { check_sights(#name, false); }

SEES(SEE_TEST)

/* Of the prompts of a row: the worst error of a tower's rows, and KL divergence
 * of the last position's answer. */
static void compare_tower(const char *row, bool hears, const char *type,
    f64 *error, f64 *kl) {
    char path[256], file[64];
    bytes b;
    ksllm_model *m = NULL;
    ksllm_encoder *x = NULL;
    ksllm_error err;
    sight *s = xalloc(1, sizeof *s);
    size_t n = 0;
    *error = *kl = 0;
    snprintf(path, sizeof path, REFERENCE "%s/%s.bin", row,
        hears ? "hear" : "see");
    tower_type = type;
    bool ok = read_file(path, &b) && convert(row, "f32", file)
        && CHECK_OK(ksllm_model_open(file, NULL, &m, &err), err)
        && CHECK_OK(ksllm_encoder_create(m, NULL, &x, &err), err);
    tower_type = NULL;
    for (const char *at = (const char *)b.p; ok && at < (const char *)b.p + b.n
         && read_sight(&at, s); n++) {
        ksllm_media media[MOST_PICTURES];
        const ksllm_media *lent[MOST_PICTURES] = {&media[0], &media[1]};
        f64 rows, d;
        for (i32 i = 0; i < s->n_pictures; i++)
            media[i] = s->pictures[i][2] ? look(m, x, s->pictures[i], s->tiles)
                                         : listen(m, x, s->pictures[i]);
        rows = rows_differ(s, media);
        d = answer_kl(m, s, lent);
        *error = rows > *error ? rows : *error;
        *kl += d;
        for (i32 i = 0; i < s->n_pictures; i++) free(media[i].memory);
    }
    *kl /= (f64)(n + !n);
    free(s);
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    unlink(file);
    free(b.p);
}

/* The text is in F32: what is lost is lost by the tower. tests/README.md has
 * the figures. */
TEST(types_of_towers_cost) {
    static const struct {
        const char *type;
        f64 error, kl; /* at most */
    } types[] = {{"f16", 2e-6, 1e-8}, {"q8_0", 0.05, 5e-3}};
    static const char *const rows[] = {"varco_vision", "hyperclovax_seed",
        "hyperclovax_vision", "exaone4_5", "qwen3_asr"};
    for (size_t i = 0; i < KS_LEN(rows); i++)
        for (size_t k = 0; k < KS_LEN(types); k++) {
            f64 error, kl;
            compare_tower(rows[i], i == 4, types[k].type, &error, &kl);
            printf("%-18s tower in %s: rows %.1e, KL %.1e\n", rows[i],
                types[k].type, error, kl);
            CHECK(error <= types[k].error);
            CHECK(kl <= types[k].kl);
        }
}

TEST(qwen3_asr_hears) { check_sights("qwen3_asr", true); }
TEST(hyperclovax_omni_hears) { check_sights("hyperclovax_omni", true); }

/* A row converted to a model of text and a file of its towers. */
static bool convert_two(const char *row, const char *type, char text[64],
    char towers[64]) {
    media_flag = "--no-media";
    bool ok = convert(row, type, text);
    media_flag = "--media-only";
    ok &= convert(row, type, towers);
    media_flag = NULL;
    return ok;
}

/* The rows of two files are those of one. */
TEST(towers_in_a_second_file) {
    static const struct {
        const char *row;
        i32 media[3];
    } rows[] = {{"varco_vision", {79, 47, 2}}, {"exaone4_5", {40, 33, 8}},
        {"hyperclovax_omni", {40, 33, 8}}, {"hyperclovax_omni", {1, 40123, 0}},
        {"qwen3_asr", {1, 16000, 0}}};
    for (size_t i = 0; i < KS_LEN(rows); i++) {
        char one[64], text[64], towers[64];
        const i32 *p = rows[i].media;
        ksllm_media media[2];
        if (!convert(rows[i].row, "q8_0", one)
            || !convert_two(rows[i].row, "q8_0", text, towers))
            return;
        for (int two = 0; two < 2; two++) {
            ksllm_model_options o;
            ksllm_model *m = NULL;
            ksllm_encoder *x = NULL;
            ksllm_error err;
            ksllm_model_options_init(&o);
            if (two) o.media_path = towers;
            if (!CHECK_OK(ksllm_model_open(two ? text : one, &o, &m, &err),
                    err)
                || !CHECK_OK(ksllm_encoder_create(m, NULL, &x, &err), err))
                return;
            media[two] = p[2] ? look(m, x, p, 0) : listen(m, x, p);
            ksllm_encoder_free(x);
            ksllm_model_close(m);
        }
        size_t n = (size_t)media[0].n_tokens * media[0].n_embd;
        CHECK_EQ(media[0].n_tokens, media[1].n_tokens);
        CHECK(!memcmp(media[0].rows, media[1].rows, n * sizeof(f32)));
        free(media[0].memory);
        free(media[1].memory);
        unlink(one);
        unlink(text);
        unlink(towers);
    }
}

/* ---- what the converter says, and what it refuses ---- */

TEST(what_is_left_out_is_said) {
    static const char *const rows[][2] = {
        {"exaone4_5", "6 tensors left out: for predicting more than one token"},
        {"exaone_moe", "6 tensors left out: for predicting"},
        {"deepseek_v3_groups", "4 tensors left out: for predicting"},
        {"hyperclovax_omni", "2 tensors left out: for discrete codes of "
         "images and sound"},
        {"varco_vision", ""},
        {"axk1", "1 tensor left out: for layers without experts"},
        {"qwen3_vl", "tensors left out: for images and sound"},
        {"axk2", "10 tensors left out: for sparse attention"},
        {"qwen3", ""},
    };
    for (size_t i = 0; i < KS_LEN(rows); i++) {
        char dir[256], out[64], said[2048];
        snprintf(dir, sizeof dir, REFERENCE "%s", rows[i][0]);
        CHECK_EQ(run_convert(dir, "f32", out, said), 0);
        bool ok = *rows[i][1] ? strstr(said, rows[i][1]) != NULL : !*said;
        if (!CHECK(ok)) printf("%s: %s\n", rows[i][0], said);
        unlink(out);
    }
}

static const char *const FOLDER[] = {"model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "config.json", "preprocessor_config.json"};

/* A row's folder with a file changed; the others are linked. */
static void folder_changed(const char *row, const char *file,
    const char *from, const char *to, char dir[64]) {
    char path[512], link[512], cwd[256];
    bytes b;
    strcpy(dir, "/tmp/ksllm-folder-XXXXXX");
    if (!CHECK(mkdtemp(dir) && getcwd(cwd, sizeof cwd))) return;
    for (size_t i = 0; i < KS_LEN(FOLDER); i++) {
        snprintf(path, sizeof path, "%s/" REFERENCE "%s/%s", cwd, row,
            FOLDER[i]);
        snprintf(link, sizeof link, "%s/%s", dir, FOLDER[i]);
        if (strcmp(FOLDER[i], file) && !access(path, R_OK))
            CHECK_EQ(symlink(path, link), 0);
    }
    snprintf(path, sizeof path, REFERENCE "%s/%s", row, file);
    if (!read_file(path, &b)) return;
    char *at = strstr((char *)b.p, from);
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *out = fopen(path, "w");
    if (CHECK(at != NULL) && CHECK(out != NULL))
        fprintf(out, "%.*s%s%s", (int)(at - (char *)b.p), (char *)b.p, to,
            at + strlen(from));
    if (out) fclose(out);
    free(b.p);
}

static void folder_with(const char *row, const char *from, const char *to,
    char dir[64]) {
    folder_changed(row, "config.json", from, to, dir);
}

static void remove_folder(const char *dir) {
    char path[512];
    for (size_t i = 0; i < KS_LEN(FOLDER); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, FOLDER[i]);
        unlink(path);
    }
    rmdir(dir);
}

TEST(configs_that_no_graph_has) {
    static const struct {
        const char *row, *from, *to, *why;
    } cases[] = {
        {"qwen3", "\"model_type\"", "\"use_bidirectional_attention\": true, "
            "\"model_type\"", "later ones are not supported for 'qwen3'"},
        {"exaone_moe", "\"num_experts\": 8", "\"num_experts\": 9",
            "expert 8 of 9 is missing"},
        {"exaone_moe", "\"num_experts\": 8", "\"num_experts\": 7",
            "beyond the 7 experts"},
        {"exaone_moe", "\"num_experts_per_tok\": 3",
            "\"num_experts_per_tok\": 9", "expert_used_count"},
        {"exaone_moe", "\"norm_topk_prob\"", "\"x\"", "norm_topk_prob"},
        {"exaone_moe", "\"n_group\"", "\"scoring_func\": \"softmax\", \"x\"",
            "scoring_func"},
        {"exaone_moe", "\"sparse\",\n  \"sparse\",\n  \"sparse\"",
            "\"sparse\",\n  \"dense\",\n  \"sparse\"", "mlp_layer_types"},
        {"exaone4_hybrid", "\"sliding_attention\",", "", "layer_types"},
        {"deepseek_v3", "\"rope_interleave\": true",
            "\"rope_interleave\": false", "rope_interleave"},
        {"deepseek_v3", "\"qk_nope_head_dim\": 32",
            "\"qk_nope_head_dim\": 24", "kv_b_proj"},
        {"exaone_moe", "\"num_experts\": 8", "\"num_experts\": 100000",
            "100000 experts"},
        {"solar", "\"bskcn_tv\"", "\"x\"", "bskcn_tv"},
        {"llama_mha", "\"rope_theta\"",
            "\"partial_rotary_factor\": 0.5, \"rope_theta\"",
            "partial_rotary_factor"},
        {"llama_mha", "\"rope_type\": \"default\"",
            "\"rope_type\": \"longrope\"", "longrope"},
        {"llama_mha", "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1", "beyond the 1 layers"},
        {"qwen3_5_moe", "\"num_experts\": 5",
            "\"norm_topk_prob\": false, \"num_experts\": 5", "norm_topk_prob"},
        {"qwen3_5_moe", "\"num_experts\": 5",
            "\"mlp_only_layers\": [1], \"num_experts\": 5", "mlp_only_layers"},
        {"gemma4", "\"enable_moe_block\": false", "\"enable_moe_block\": true",
            "num_experts"},
        {"gemma4", "\"attention_bias\": false", "\"attention_bias\": true",
            "attention_bias"},
        {"gemma4", "\"use_bidirectional_attention\": null",
            "\"use_bidirectional_attention\": \"all\"", "'all'"},
        {"gemma4", "\"proportional\"", "\"dynamic\"", "dynamic"},
        {"../data/xlmr", "\"pad_token_id\": 1", "\"position_embedding_type\": "
            "\"relative_key\", \"pad_token_id\": 1", "'absolute'"},
        {"../data/xlmr", "\"pad_token_id\": 1", "\"pad_token_id\": 129",
            "no place after pad_token_id"},
        {"../data/xlmr", "\"gelu\"", "\"relu\"", "relu"},
    };
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        char dir[64], out[64], said[2048];
        folder_with(cases[i].row, cases[i].from, cases[i].to, dir);
        int status = run_convert(dir, "f32", out, said);
        if (!CHECK(status != 0 && strstr(said, cases[i].why)))
            printf("%s %s: %s\n", cases[i].row, cases[i].to, said);
        unlink(out);
        remove_folder(dir);
    }
}

/* A unigram vocabulary that is not XLM-R's, or damaged. */
TEST(unigrams_that_are_cut_otherwise) {
    static const struct {
        const char *from, *to, *why;
    } cases[] = {
        {"\"WhitespaceSplit\"", "\"Whitespace\"", "(Whitespace)"},
        {"\"prepend_scheme\":\"always\"", "\"prepend_scheme\":\"never\"",
            "XLM-R's"},
        {"\"byte_fallback\":false", "\"byte_fallback\":true", "XLM-R's"},
        {"\"precompiled_charsmap\":\"", "\"precompiled_charsmap\":\"!",
            "no base64"},
        {"[\"<pad>\",0.0]", "[\"<pad>\"]", "piece 1 is damaged"},
    };
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        char dir[64], out[64], said[2048];
        folder_changed("../data/xlmr", "tokenizer.json", cases[i].from,
            cases[i].to, dir);
        int status = run_convert(dir, "f32", out, said);
        if (!CHECK(status != 0 && strstr(said, cases[i].why)))
            printf("%s: %s\n", cases[i].to, said);
        unlink(out);
        remove_folder(dir);
    }
}

/* What the tower would be given wrongly, or compute wrongly. */
TEST(towers_that_no_graph_has) {
    static const char config[] = "config.json",
        pre[] = "preprocessor_config.json", varco[] = "varco_vision",
        hcx[] = "hyperclovax_vision", seed[] = "hyperclovax_seed";
    static const struct {
        const char *row, *file, *from, *to, *why;
    } cases[] = {
        {varco, config, "anyres_max_9", "anyres", "vision_aspect_ratio"},
        {varco, config, "\"vision_feature_layer\": -1",
            "\"vision_feature_layer\": 0", "vision_feature_layer"},
        {varco, config, "\"image_token_index\"", "\"x\"",
            "image_token_id"},
        {varco, config, "siglip_vision_model", "clip_vision_model",
            "vision_config"},
        {varco, config, "gelu_pytorch_tanh", "relu", "hidden_act"},
        {varco, config, "\"full\"", "\"default\"",
            "vision_feature_select_strategy"},
        {varco, config, "\"patch_size\": 8", "\"patch_size\": 16",
            "patch_embedding"},
        {varco, config, "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 5", "heads"},
        {varco, config, "\"image_size\": 32", "\"image_size\": 64",
            "'size'"},
        {varco, pre, "\"resample\": 3", "\"resample\": 1", "resample"},
        {varco, pre, "\"do_rescale\": true", "\"do_rescale\": false",
            "do_rescale"},
        {varco, pre, "\"image_mean\"", "\"x\"", "image_mean"},
        {varco, pre, "0.5,", "", "image_mean"},
        {varco, pre, "LlavaOnevision", "LlavaNext", "image_processor_type"},
        {varco, pre, "   96\n", "   64\n", "image_grid_pinpoints"},
        {hcx, config, "\"fullatt_block_indexes\": [\n   1",
            "\"fullatt_block_indexes\": [\n   2", "fullatt_block_indexes"},
        {hcx, config, "\"temporal_patch_size\": 2",
            "\"temporal_patch_size\": 1", "frames"},
        {hcx, config, "\"spatial_merge_size\": 2",
            "\"spatial_merge_size\": 4", "merge_size"},
        {hcx, config, "\"num_heads\": 2", "\"num_key_value_heads\": 1, "
            "\"num_heads\": 2", "does not divide into queries"},
        {hcx, pre, "\"max_pixels\": 4800", "\"max_pixels\": 0",
            "max_pixels"},
        {hcx, pre, "{", "[{", "preprocessor_config.json"},
        {seed, config, "\"use_nth_layer\"", "\"x\"", "use_nth_layer"},
        {seed, config, "\"anyres\": true", "\"anyres\": false", "anyres"},
        {seed, config, "\"unpad\"", "\"x\"", "unpad"},
        {seed, config, "\"proj_prenorm\": false", "\"proj_prenorm\": true",
            "proj_prenorm"},
        {seed, config, "\"proj_pos_emb\": true", "\"proj_pos_emb\": false",
            "proj_pos_emb"},
        {seed, config, "\"max_num_grids\": 4", "\"max_num_grids\": 9",
            "possible_resolutions"},
        {seed, config, "\"use_1x1_grid\": false", "\"use_1x1_grid\": true",
            "possible_resolutions"},
        {seed, config, "\"mm_projector_type\": \"cabstractor\"",
            "\"mm_projector_type\": \"mlp\"", "mm_projector_type"},
        {seed, config, "\"img_start_id\"", "\"x\"", "image_token_id"},
        {seed, pre, "\"num_queries_vis_abstractor\": 9",
            "\"num_queries_vis_abstractor\": 4",
            "num_queries_vis_abstractor"},
        {seed, pre, "\"pad_to_square\"", "\"x\"", "pad_to_square"},
        {seed, pre, "\"unpad\": true", "\"unpad\": false", "unpad"},
        {seed, pre, "\"height\": 40", "\"height\": 32", "crop_size"},
        {seed, pre, "\"shortest_edge\": 40", "\"shortest_edge\": 48",
            "size"},
    };
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        char dir[64], out[64], said[2048];
        folder_changed(cases[i].row, cases[i].file, cases[i].from,
            cases[i].to, dir);
        int status = run_convert(dir, "f32", out, said);
        if (!CHECK(status != 0 && strstr(said, cases[i].why)))
            printf("%s %s: %s\n", cases[i].row, cases[i].to, said);
        unlink(out);
        remove_folder(dir);
    }
}

static uint64_t u64_at(const u8 *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The value of a key in a file, after its type; NULL if there is none. */
static u8 *value_of(bytes *b, const char *key) {
    size_t n = strlen(key);
    for (size_t i = 0; i + n + 16 < b->n; i++)
        if (u64_at(b->p + i) == n && !memcmp(b->p + i + 8, key, n))
            return b->p + i + 8 + n + 4;
    return NULL;
}

static bool converted(const char *dir, bytes *b) {
    char path[64], said[2048];
    *b = (bytes){NULL, 0};
    if (!CHECK_EQ(run_convert(dir, "f32", path, said), 0)) {
        printf("%s", said);
        return false;
    }
    bool ok = read_file(path, b);
    unlink(path);
    return ok;
}

static bool converted_row(const char *row, bytes *b) {
    char dir[256];
    snprintf(dir, sizeof dir, REFERENCE "%s", row);
    return converted(dir, b);
}

/* What a tower's matrices become, and that they can be left out. */
TEST(types_of_a_tower) {
    char dir[256], path[64], said[2048];
    snprintf(dir, sizeof dir, REFERENCE "varco_vision");
    for (int alone = 0; alone < 2; alone++) {
        ksllm_model *m = NULL;
        ksllm_model_info info = {.size = sizeof info};
        ksllm_tensor t = {.size = sizeof t};
        ksllm_error err;
        media_flag = alone ? "--no-media" : NULL;
        CHECK_EQ(run_convert(dir, "q4_0", path, said), 0);
        media_flag = NULL;
        if (!CHECK_OK(ksllm_model_open(path, NULL, &m, &err), err)) return;
        CHECK_OK(ksllm_model_get_info(m, &info, &err), err);
        CHECK_EQ(info.picture_tokens == 0, alone);
        CHECK(!alone == !ksllm_tensor_find(m, "v.blk.0.ffn_down.weight", &t));
        CHECK(alone || t.type == KSLLM_TYPE_Q8_0);
        CHECK(!strstr(said, "images and sound") == !alone);
        ksllm_model_close(m);
        unlink(path);
    }
}

/* Without the key it is the vocabulary's control token of that name: as in
 * llama.cpp's files. */
TEST(a_place_without_a_key) {
    char dir[64], path[64], said[2048];
    bytes b = {0};
    folder_changed("varco_vision", "tokenizer.json", "<|extra_3|>",
        "<|image_pad|>", dir);
    for (int missing = 0; missing < 2; missing++) {
        ksllm_model *m = NULL;
        ksllm_model_info info = {.size = sizeof info};
        ksllm_error err;
        CHECK_EQ(run_convert(dir, "f16", path, said), 0);
        if (!read_file(path, &b)) return;
        for (size_t i = 0; missing && i + 26 < b.n; i++)
            if (!memcmp(b.p + i, "clip.vision.image_token_id", 26))
                b.p[i + 25] = 'x';
        CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err);
        CHECK_OK(ksllm_model_get_info(m, &info, &err), err);
        CHECK_EQ(info.picture_place, missing ? 261 : 258);
        ksllm_model_close(m);
        free(b.p);
        unlink(path);
    }
    remove_folder(dir);
}

/* Text with a word for another wherever it stands. */
static bytes replaced(bytes b, const char *from, const char *to) {
    size_t n = strlen(from), m = strlen(to);
    bytes out = {xalloc(b.n, 2), 0};
    for (size_t i = 0; i < b.n;) {
        bool here = i + n <= b.n && !memcmp(b.p + i, from, n);
        memcpy(out.p + out.n, here ? (const u8 *)to : b.p + i, here ? m : 1);
        out.n += here ? m : 1;
        i += here ? n : 1;
    }
    free(b.p);
    return out;
}

static void write_bytes(const char *dir, const char *file, const char *before,
    bytes b, const char *after) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    unlink(path); /* a link to the fixture */
    FILE *f = fopen(path, "wb");
    if (!CHECK(f != NULL)) return;
    fprintf(f, "%s", before);
    fwrite(b.p, 1, b.n, f);
    fprintf(f, "%s", after);
    fclose(f);
    free(b.p);
}

/* Qwen3-ASR as Qwen published it: other names, all inside thinker_config. */
static void thinker_folder(char dir[64]) {
    static const char *const names[][2] = {
        {"\"model.audio_tower.", "\"thinker.audio_tower."},
        {"\"model.language_model.", "\"thinker.model."},
        {"\"model.multi_modal_projector.linear_1.",
            "\"thinker.audio_tower.proj1."},
        {"\"model.multi_modal_projector.linear_2.",
            "\"thinker.audio_tower.proj2."}};
    bytes config, pre, st;
    uint64_t n;
    folder_changed("qwen3_asr", "config.json", "{", "{", dir);
    if (!read_file(REFERENCE "qwen3_asr/config.json", &config)
        || !read_file(REFERENCE "qwen3_asr/preprocessor_config.json", &pre)
        || !read_file(REFERENCE "qwen3_asr/model.safetensors", &st))
        return;
    memcpy(&n, st.p, 8);
    bytes head = {xalloc((size_t)n, 1), (size_t)n};
    memcpy(head.p, st.p + 8, (size_t)n);
    for (size_t i = 0; i < KS_LEN(names); i++)
        head = replaced(head, names[i][0], names[i][1]);
    const size_t rest = st.n - 8 - (size_t)n;
    bytes all = {xalloc(8 + head.n + rest, 1), 8 + head.n + rest};
    memcpy(all.p, &(uint64_t){head.n}, 8);
    memcpy(all.p + 8, head.p, head.n);
    memcpy(all.p + 8 + head.n, st.p + 8 + n, rest);
    free(head.p);
    free(st.p);
    write_bytes(dir, "model.safetensors", "", all, "");
    config = replaced(config, "qwen3_asr_encoder", "qwen3_asr_audio_encoder");
    config = replaced(config, "\"qwen3\"", "\"qwen3_asr_text\"");
    write_bytes(dir, "config.json",
        "{\"model_type\": \"qwen3_asr\", \"thinker_config\": ", config, "}");
    write_bytes(dir, "preprocessor_config.json", "",
        replaced(pre, "Qwen3ASRFeatureExtractor", "WhisperFeatureExtractor"),
        "");
}

TEST(an_ear_as_it_was_published) {
    char dir[64], one[64], two[64], said[2048];
    ksllm_model *a = NULL, *b = NULL;
    ksllm_error err;
    thinker_folder(dir);
    if (!convert("qwen3_asr", "f16", one)
        || !CHECK_EQ(run_convert(dir, "f16", two, said), 0))
        return;
    if (*said) printf("%s\n", said);
    CHECK(!*said);
    CHECK_OK(ksllm_model_open(one, NULL, &a, &err), err);
    CHECK_OK(ksllm_model_open(two, NULL, &b, &err), err);
    CHECK_EQ(ksllm_tensor_count(a), ksllm_tensor_count(b));
    for (size_t i = 0; i < ksllm_tensor_count(a); i++) {
        ksllm_tensor x = {.size = sizeof x}, y = {.size = sizeof y};
        CHECK_EQ(ksllm_tensor_at(a, i, &x), KSLLM_OK);
        snprintf(said, sizeof said, "%.*s", (int)x.name.size, x.name.data);
        CHECK_EQ(ksllm_tensor_find(b, said, &y), KSLLM_OK);
        CHECK(x.bytes == y.bytes && !memcmp(x.data, y.data, x.bytes));
    }
    CHECK_EQ(ksllm_meta_count(a), ksllm_meta_count(b));
    ksllm_model_close(a);
    ksllm_model_close(b);
    unlink(one);
    unlink(two);
    remove_folder(dir);
}

/* Its feed-forward is 72 wide: zeros up to the next block. */
TEST(feed_forward_of_a_tower_fills_blocks) {
    bytes b;
    if (!converted_row("varco_vision", &b)) return;
    const u8 *v = value_of(&b, "clip.vision.feed_forward_length");
    u32 n = 0;
    if (v) memcpy(&n, v, sizeof n);
    CHECK_EQ(n, 96);
    free(b.p);
}

/* Without a list of layers the period tells which have the window. */
TEST(windows_by_period) {
    static const char key[] = "exaone4.attention.sliding_window_pattern";
    static const u8 want[] = {1, 1, 1, 0, 1};
    char dir[64];
    bytes b;
    folder_with("exaone4_hybrid", "\"layer_types\"", "\"x\"", dir);
    if (converted(dir, &b)) {
        const u8 *v = value_of(&b, key);
        CHECK(v && u64_at(v + 4) == 5 && !memcmp(v + 12, want, 5));
        free(b.p);
    }
    remove_folder(dir);
}

/* Kanana-2-1.3B as other converters write it, qwen3 without windows, becomes
 * itself again. */
TEST(overrides_mend_a_file) {
    const ksllm_override set[] = {
        {"general.architecture", KSLLM_META_TEXT, 0, 0, "kanana2-tiny"},
        {"kanana2-tiny.attention.sliding_window", KSLLM_META_I64, 8, 0, NULL},
        {"kanana2-tiny.rope.freq_base_swa", KSLLM_META_F64, 0, 10000, NULL}};
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error err;
    char dir[64];
    bytes b;
    reference r;
    folder_with("kanana2_tiny", "\"model_type\": \"kanana2_tiny\"",
        "\"model_type\": \"qwen3\", \"tie_word_embeddings\": true", dir);
    ksllm_model_options_init(&o);
    o.overrides = set;
    o.n_overrides = KS_LEN(set);
    if (converted(dir, &b) && read_reference("kanana2_tiny", &r)) {
        if (CHECK_OK(ksllm_model_open_memory(b.p, b.n, &o, &m, &err), err))
            check_exact("kanana2_tiny as qwen3", m, &r, NULL);
        ksllm_model_close(m);
        free_reference(&r);
        free(b.p);
    }
    remove_folder(dir);
}

/* Files that others write of Qwen-VL's text, under its own names. */
TEST(text_of_qwen_vl) {
    static const char *const rows[][2] = {
        {"qwen2_5_vl", "qwen2vl"}, {"qwen3_vl", "qwen3vl"}};
    for (size_t i = 0; i < KS_LEN(rows); i++) {
        const ksllm_override set = {"general.architecture", KSLLM_META_TEXT, 0,
            0, rows[i][1]};
        ksllm_model_options o;
        ksllm_model *m = NULL;
        ksllm_error err;
        bytes b;
        reference r;
        ksllm_model_options_init(&o);
        o.overrides = &set;
        o.n_overrides = 1;
        if (!converted_row(rows[i][0], &b) || !read_reference(rows[i][0], &r))
            continue;
        if (CHECK_OK(ksllm_model_open_memory(b.p, b.n, &o, &m, &err), err))
            check_exact(rows[i][1], m, &r, NULL);
        ksllm_model_close(m);
        free_reference(&r);
        free(b.p);
    }
}

/* ---- embeddings ---- */

/* make_reference.py has the same. */
static const char *const TEXTS[] = {
    "Instruct: 질문에 답이 되는 글을 찾는다\nQuery:서울은 어디에 있나",
    "서울은 한강을 끼고 있다.", "오늘은 비가 온다", "a"};

static f64 dot(const f32 *a, const f32 *b, size_t n) {
    f64 sum = 0;
    for (size_t i = 0; i < n; i++) sum += (f64)a[i] * (f64)b[i];
    return sum;
}

static ksllm_session *pooled(const ksllm_model *m, ksllm_pooling pooling) {
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_error err;
    ksllm_session_options_init(&o);
    o.n_ctx = 128;
    o.kv_type = KSLLM_TYPE_F32;
    o.pooling = pooling;
    CHECK_OK(ksllm_session_create(m, &o, &s, &err), err);
    return s;
}

/* Tokens as the tokenizer adds them, vectors, and what a reranker says. */
static void check_embeddings(const ksllm_model *m, const char *at) {
    enum { N = KS_LEN(TEXTS), EMBD = 64, CAP = 128 };
    i32 want[N][CAP], got[CAP];
    size_t n[N];
    ksllm_session *s[2] = {pooled(m, KSLLM_POOLING_MODEL),
        pooled(m, KSLLM_POOLING_MEAN)};
    ksllm_error err;
    for (size_t i = 0; i < N; i++) {
        at += strlen("ids ");
        n[i] = read_ids(&at, want[i], CAP);
        at++;
    }
    int yes, no, used = 0;
    f64 score, least = 1;
    sscanf(at, "score %d %d %lf\nlogits 8 64%n", &yes, &no, &score, &used);
    if (!CHECK(used > 0) || !s[0] || !s[1]) return;
    const f32 *v = (const f32 *)(const void *)(at + used + 1);
    for (size_t i = 0; i < 2 * N; i++, v += EMBD) {
        f32 out[EMBD];
        ksllm_session *x = s[i & 1];
        int64_t k = ksllm_encode(m, TEXTS[i / 2], KSLLM_NUL,
            KSLLM_ENCODE_BOS | KSLLM_ENCODE_EOS, got, CAP, &err);
        CHECK_EQ(k, n[i / 2]);
        CHECK(!memcmp(got, want[i / 2], n[i / 2] * sizeof *got));
        if (!CHECK_OK(ksllm_session_sync(x, got, (size_t)k, NULL, &err), err)
            || !CHECK_OK(ksllm_session_unit_embedding(x, 0, out, &err), err))
            break;
        f64 cosine = dot(out, v, EMBD);
        least = cosine < least ? cosine : least;
        CHECK(fabs(dot(out, out, EMBD) - 1) < 1e-6);
        CHECK_OK(ksllm_session_unit_embedding(x, 16, out, &err), err);
        CHECK(fabs(dot(out, v, 16) - sqrt(dot(v, v, 16))) < 1e-6);
    }
    printf("embeddings: cosine %.7f at least\n", least);
    CHECK(least >= 0.9999);
    const f32 *x = ksllm_session_logits(s[0]);
    CHECK(x && fabs(1 / (1 + exp((f64)x[no] - (f64)x[yes])) - score) < 2e-5);
    f32 out[EMBD + 1];
    CHECK_EQ(ksllm_session_unit_embedding(NULL, 0, out, &err), -1);
    CHECK_EQ(ksllm_session_unit_embedding(s[0], 0, NULL, &err), -1);
    CHECK_EQ(ksllm_session_unit_embedding(s[0], EMBD + 1, out, &err), -1);
    CHECK_OK(ksllm_session_rewind(s[0], 0, &err), err);
    CHECK_EQ(ksllm_session_unit_embedding(s[0], 0, out, &err),
        KSLLM_ERR_STATE);
    for (int i = 0; i < 2; i++) ksllm_session_free(s[i]);
}

TEST(embeddings_are_those_of_transformers) {
    ksllm_model *m = NULL;
    ksllm_session_options o;
    ksllm_memory need = {.size = sizeof need};
    ksllm_error err = {.text = ""};
    bytes b, file;
    if (!converted_row("qwen3_embedding", &b)
        || !read_file(REFERENCE "qwen3_embedding/embedding.bin", &file))
        return;
    if (CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err))
        check_embeddings(m, (const char *)file.p);
    ksllm_model_close(m);
    /* of a kind that is not there, and of none */
    ksllm_session_options_init(&o);
    o.pooling = KSLLM_POOLING_MODEL;
    for (int i = 0; i < 2; i++) {
        u8 *value = value_of(&b, "qwen3.pooling_type");
        if (i) value[-5] = '?';
        else *value = 5;
        if (!CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err))
            continue;
        CHECK_EQ(ksllm_session_memory(m, &o, &need, &err),
            KSLLM_ERR_UNSUPPORTED);
        CHECK(strstr(err.text, "qwen3.pooling_type") != NULL);
        ksllm_model_close(m);
    }
    free(b.p);
    free(file.p);
}

/* EmbeddingGemma: tokens see both ways, in a window or all; the mean goes
 * through two matrices. On every instruction set. */
static void check_both_ways(const bytes *b, const char *isa, const char *at) {
    enum { N = KS_LEN(TEXTS), EMBD = 64, CAP = 128 };
    ksllm_model_info info = {.size = sizeof info};
    i32 want[N][CAP], got[CAP];
    size_t n[N];
    int used = 0;
    ksllm_error err;
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_model_options_init(&o);
    o.isa = isa;
    if (!CHECK_OK(ksllm_model_open_memory(b->p, b->n, &o, &m, &err), err))
        return;
    ksllm_session *s = pooled(m, KSLLM_POOLING_MODEL);
    for (size_t i = 0; i < N; i++) {
        at += strlen("ids ");
        n[i] = read_ids(&at, want[i], CAP);
        at++;
    }
    ksllm_model_get_info(m, &info, NULL);
    sscanf(at, "logits 4 %*d%n", &used);
    const f32 *v = (const f32 *)(const void *)(at + used + 1);
    f64 least = 1;
    for (size_t i = 0; CHECK(used > 0) && s && i < N; i++, v += info.n_embd) {
        f32 out[EMBD];
        int64_t k = ksllm_encode(m, TEXTS[i], KSLLM_NUL,
            KSLLM_ENCODE_BOS | KSLLM_ENCODE_EOS, got, CAP, &err);
        CHECK_EQ(k, n[i]);
        CHECK(!memcmp(got, want[i], n[i] * sizeof *got));
        CHECK_OK(ksllm_session_sync(s, got, n[i], NULL, &err), err);
        CHECK_OK(ksllm_session_unit_embedding(s, 0, out, &err), err);
        f64 cosine = dot(out, v, info.n_embd);
        least = cosine < least ? cosine : least;
    }
    printf("vectors, %s: cosine %.7f at least\n", isa, least);
    CHECK(least >= 0.999999);
    ksllm_session_free(s);
    ksllm_model_close(m);
}

#define GEMMA "../data/embedding_gemma"

TEST(embedding_gemma_is_that_of_transformers) {
    bytes b, file;
    const char *isa;
    if (!converted_row(GEMMA, &b)
        || !read_file(REFERENCE GEMMA "/embedding.bin", &file))
        return;
    for (size_t i = 0; (isa = ksllm_isa_at(i)) != NULL; i++)
        check_both_ways(&b, isa, (const char *)file.p);
    u8 *name = value_of(&b, "dense_3.weight") - 4 - strlen("3.weight");
    ksllm_model *m = NULL;
    ksllm_error err;
    *name = '4';
    CHECK_EQ(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err),
        KSLLM_ERR_UNSUPPORTED);
    free(b.p);
    free(file.p);
}

/* BGE-M3's layout: a unigram vocabulary with a map of characters, positions
 * from the third row on, the first token's state. */
TEST(xlmr_is_that_of_transformers) {
    bytes b, file;
    const char *isa;
    if (!converted_row("../data/xlmr", &b)
        || !read_file(REFERENCE "../data/xlmr/embedding.bin", &file))
        return;
    for (size_t i = 0; (isa = ksllm_isa_at(i)) != NULL; i++)
        check_both_ways(&b, isa, (const char *)file.p);
    free(b.p);
    free(file.p);
}

/* BGE's reranker: question and passage as its tokenizer joins them, the score
 * in place of a vector. On every instruction set. */
TEST(reranker_of_xlmr_is_that_of_transformers) {
    enum { N = KS_LEN(TEXTS), CAP = 128 };
    bytes b, file;
    const char *isa;
    if (!converted_row("../data/xlmr_rank", &b)
        || !read_file(REFERENCE "../data/xlmr_rank/rank.txt", &file))
        return;
    for (size_t k = 0; (isa = ksllm_isa_at(k)) != NULL; k++) {
        const char *at = (const char *)file.p;
        ksllm_model_options o;
        ksllm_error err;
        ksllm_model *m = NULL;
        f64 most = 0;
        ksllm_model_options_init(&o);
        o.isa = isa;
        if (!CHECK_OK(ksllm_model_open_memory(b.p, b.n, &o, &m, &err), err))
            continue;
        ksllm_session *s = pooled(m, KSLLM_POOLING_MODEL);
        for (size_t i = 0; s && i < N; i++) {
            i32 want[CAP], got[CAP];
            f64 score = 0;
            int used = 0;
            at += strlen("ids ");
            size_t n = read_ids(&at, want, CAP);
            CHECK_EQ(sscanf(at, " score %lf%n", &score, &used), 1);
            at += used + 1;
            int64_t first = ksllm_encode(m, TEXTS[i], KSLLM_NUL,
                KSLLM_ENCODE_BOS | KSLLM_ENCODE_EOS, got, CAP, &err);
            if (!CHECK(first > 0 && first < CAP)) break;
            got[first] = got[first - 1];
            int64_t rest = ksllm_encode(m, TEXTS[(i + 1) % N], KSLLM_NUL,
                KSLLM_ENCODE_EOS, got + first + 1, (size_t)(CAP - first - 1),
                &err);
            if (!CHECK_EQ(first + 1 + rest, (int64_t)n)) break;
            CHECK(!memcmp(got, want, n * sizeof *got));
            CHECK_OK(ksllm_session_sync(s, got, n, NULL, &err), err);
            f64 d = fabs((f64)ksllm_session_embedding(s)[0] - score);
            most = d > most ? d : most;
        }
        printf("scores, %s: off by %.1e at most\n", isa, most);
        CHECK(most < 1e-5);
        ksllm_session_free(s);
        ksllm_model_close(m);
    }
    free(b.p);
    free(file.p);
}

/* Other converters leave the two matrices out. */
TEST(embedding_gemma_without_its_end) {
    const ksllm_override set = {"gemma-embedding.pooling_type",
        KSLLM_META_U32, 1, 0, NULL};
    ksllm_model_options o;
    ksllm_session_options so;
    ksllm_memory need = {.size = sizeof need};
    ksllm_model *m = NULL;
    ksllm_error err;
    char dir[64];
    bytes b;
    ksllm_model_options_init(&o);
    o.overrides = &set;
    o.n_overrides = 1;
    folder_with(GEMMA, "\"model_type\"", "\"model_type\"", dir);
    if (converted(dir, &b)
        && CHECK_OK(ksllm_model_open_memory(b.p, b.n, &o, &m, &err), err)) {
        ksllm_session_options_init(&so);
        so.pooling = KSLLM_POOLING_MODEL;
        CHECK_EQ(ksllm_session_memory(m, &so, &need, &err),
            KSLLM_ERR_UNSUPPORTED);
        CHECK(strstr(err.text, "dense_2.weight") != NULL);
        so.pooling = KSLLM_POOLING_MEAN;
        CHECK_OK(ksllm_session_memory(m, &so, &need, &err), err);
    }
    ksllm_model_close(m);
    free(b.p);
    remove_folder(dir);
}

/* ---- adapters ---- */

/* What follows the mean has none. */
TEST(adapter_of_embedding_gemma) {
    ksllm_session_options o;
    ksllm_model *m = NULL;
    ksllm_session *s = NULL;
    ksllm_adapter *a = NULL;
    ksllm_error err;
    i32 tokens[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    f32 plain = 0;
    fx_gguf g;
    bytes b;
    if (!converted_row(GEMMA, &b)) return;
    ad_begin(&g, "gemma-embedding");
    ad_pair(&g, "blk.0.ffn_down.weight", 64, 64, 4, 1);
    fx_file f = fx_end(&g);
    ksllm_session_options_init(&o);
    o.pooling = KSLLM_POOLING_MODEL;
    o.max_rank = 4;
    bool ok = CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err)
        && CHECK_OK(ksllm_adapter_open_memory(
            m, f.data, f.size, &a, &err), err)
        && CHECK_OK(ksllm_session_create(m, &o, &s, &err), err);
    for (int with = 0; with < 2 && ok; with++) {
        ok = CHECK_OK(ksllm_session_set_adapter(
                 s, with ? a : NULL, 1, 0, &err), err)
            && CHECK_OK(ksllm_session_sync(s, tokens, 9, NULL, &err), err);
        f32 v = ok ? *ksllm_session_embedding(s) : 0;
        CHECK(!with || v < plain || v > plain);
        plain = v;
    }
    ksllm_session_free(s);
    ksllm_adapter_close(a);
    ksllm_model_close(m);
    free(f.data);
    free(b.p);
}

/* Also with weights of four bits, on every instruction set. */
static void adapter_everywhere(const char *row, const char *file,
    const reference *r) {
    char path[64];
    const char *name;
    f32 *want = NULL;
    if (!convert(row, "q4_0", path)) return;
    for (size_t i = 0; (name = ksllm_isa_at(i)) != NULL; i++) {
        ksllm_model_options o;
        ksllm_model *m = NULL;
        ksllm_adapter *a = NULL;
        ksllm_error err;
        ksllm_model_options_init(&o);
        o.isa = name;
        if (CHECK_OK(ksllm_model_open(path, &o, &m, &err), err)
            && CHECK_OK(ksllm_adapter_open(m, file, &a, &err), err)) {
            way w = {2, 64, SIZE_MAX, KSLLM_TYPE_Q8_0, false, a,
                ksllm_adapter_begins(a, r->prompt, r->n)};
            f32 *got = run(m, r, w, NULL);
            if (!want) same_bits(m, r, want = got, w);
            else if (!CHECK(!memcmp(want, got, r->n * r->n_vocab * sizeof *got)))
                printf("%s\n", name);
            if (want != got) free(got);
        }
        ksllm_adapter_close(a);
        ksllm_model_close(m);
    }
    free(want);
    unlink(path);
}

static void check_adapter(const char *row, u32 rank, size_t begins) {
    char dir[256], base[256], name[64], out[64], said[2048];
    reference r = {.n = 0};
    ksllm_model *m = NULL;
    ksllm_adapter *a = NULL;
    ksllm_error err;
    bytes b = {NULL, 0};
    snprintf(base, sizeof base, REFERENCE "%s", row);
    snprintf(dir, sizeof dir, REFERENCE "%s/lora", row);
    snprintf(name, sizeof name, "%s/lora", row);
    int status = run_convert_on(dir, base, "f16", out, said);
    if (status) printf("%s", said);
    if (CHECK_EQ(status, 0) && read_reference(name, &r)
        && converted_row(row, &b)
        && CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err)
        && CHECK_OK(ksllm_adapter_open(m, out, &a, &err), err)) {
        CHECK_EQ(ksllm_adapter_rank(a), rank);
        CHECK_EQ(ksllm_adapter_begins(a, r.prompt, r.n), begins);
        check_exact(name, m, &r, a);
        adapter_everywhere(row, out, &r);
    }
    ksllm_adapter_close(a);
    ksllm_model_close(m);
    unlink(out);
    free_reference(&r);
    free(b.p);
}

TEST(adapter_of_llama) { check_adapter("llama_tied", 8, 0); }
TEST(adapter_of_qwen3_by_root_of_rank) { check_adapter("qwen3", 16, 0); }
TEST(adapter_of_phi3_on_fused_tensors) { check_adapter("phi3", 5, 0); }
TEST(adapter_of_exaone4_with_two_ranks) {
    check_adapter("exaone4_hybrid", 20, 0);
}
TEST(adapter_of_qwen2_from_its_invocation) { check_adapter("qwen2", 8, 20); }

/* Contexts of Phi end where its first factors do, unless the file says that
 * the others count. */
TEST(longer_contexts_of_phi) {
    const ksllm_override set = {"phi3.rope.scaling.long_factors",
        KSLLM_META_BOOL, 1, 0, NULL};
    bytes b;
    if (!converted_row("phi3", &b)) return;
    for (int longer = 0; longer < 2; longer++) {
        ksllm_model_options o;
        ksllm_session_options so;
        ksllm_memory need = {.size = sizeof need};
        ksllm_model *m = NULL;
        ksllm_error err = {.text = ""};
        ksllm_model_options_init(&o);
        ksllm_session_options_init(&so);
        o.overrides = &set;
        o.n_overrides = (size_t)longer;
        so.n_ctx = 257;
        if (!CHECK_OK(ksllm_model_open_memory(b.p, b.n, &o, &m, &err), err))
            break;
        CHECK_EQ(ksllm_session_memory(m, &so, &need, &err),
            longer ? KSLLM_OK : KSLLM_ERR_UNSUPPORTED);
        if (!longer) CHECK(strstr(err.text, "long_factors"));
        ksllm_model_close(m);
    }
    free(b.p);
}

/* Biases come together; NAVER's name of epsilon is as good as the other. */
TEST(biases_and_spellings) {
    ksllm_model *m = NULL;
    ksllm_error err = {.text = ""};
    bytes b;
    if (converted_row("qwen2", &b)) {
        for (size_t i = 0; i + 16 < b.n; i++)
            if (!memcmp(b.p + i, "blk.1.attn_k.bias", 17)) b.p[i + 16] = 'S';
        CHECK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err) != KSLLM_OK);
        CHECK(strstr(err.text, "blk.1.attn_k.biaS") != NULL);
        free(b.p);
    }
    if (converted_row("hyperclovax", &b)) {
        const ksllm_override set = {"hyperclovax.attention.layer_norm_epsilon",
            KSLLM_META_F32, 0, 1e-5, NULL};
        ksllm_model_options o;
        ksllm_model_options_init(&o);
        value_of(&b, "hyperclovax.attention.layer_norm_rms_epsilon")[-5] = '?';
        o.overrides = &set;
        o.n_overrides = 1;
        CHECK_OK(ksllm_model_open_memory(b.p, b.n, &o, &m, &err), err);
        ksllm_model_close(m);
        free(b.p);
    }
}

/* ---- files that contradict themselves ---- */

static const struct {
    const char *row, *key;
    enum { SET_U32, SET_F32, REMOVE } how;
    f64 value;
} LIES[] = {
    {"exaone4", "exaone4.attention.head_count_kv", SET_U32, 4},
    {"exaone4", "exaone4.attention.head_count_kv", SET_U32, 3},
    {"exaone4", "exaone4.attention.key_length", SET_U32, 48},
    {"exaone4", "exaone4.feed_forward_length", SET_U32, 95},
    {"exaone4_hybrid", "exaone4.attention.sliding_window", SET_U32, 0},
    {"kanana2_tiny", "kanana2-tiny.attention.sliding_window", REMOVE, 0},
    {"exaone_moe", "exaone-moe.expert_used_count", SET_U32, 9},
    {"exaone_moe", "exaone-moe.expert_used_count", SET_U32, 0},
    {"exaone_moe", "exaone-moe.expert_used_count", REMOVE, 0},
    {"exaone_moe", "exaone-moe.expert_count", SET_U32, 7},
    {"exaone_moe", "exaone-moe.expert_feed_forward_length", SET_U32, 33},
    {"exaone_moe", "exaone-moe.expert_gating_func", SET_U32, 3},
    {"exaone_moe", "exaone-moe.leading_dense_block_count", SET_U32, 5},
    {"deepseek_v3_groups", "deepseek2.expert_group_count", SET_U32, 3},
    {"deepseek_v3_groups", "deepseek2.expert_group_used_count", SET_U32, 5},
    {"deepseek_v3", "deepseek2.attention.kv_lora_rank", SET_U32, 31},
    {"deepseek_v3", "deepseek2.attention.key_length_mla", SET_U32, 16},
    {"deepseek_v3", "deepseek2.attention.value_length_mla", SET_U32, 25},
    {"phi3", "phi3.feed_forward_length", SET_U32, 95},
    {"ministral3", "mistral3.attention.temperature_scale", SET_F32, -1},
    {"llama_yarn", "llama.rope.scaling.factor", REMOVE, 0},
    {"llama_yarn", "llama.rope.scaling.factor", SET_F32, 0},
    {"solar", "solar.skip.weight", REMOVE, 0},
    {"solar", "solar.skip.save", REMOVE, 0},
    {"axk2", "axk2.attention.indexer.top_k", REMOVE, 0},
    {"gemma4_moe", "gemma4.expert_used_count", SET_U32, 5},
    {"gemma4_moe", "gemma4.expert_count", SET_U32, 3},
    {"gemma4_moe", "gemma4.expert_feed_forward_length", SET_U32, 15},
    {"lfm2", "lfm2.attention.head_count_kv", REMOVE, 0},
    {"lfm2", "lfm2.shortconv.l_cache", REMOVE, 0},
    {"lfm2", "lfm2.shortconv.l_cache", SET_U32, 4},
};

TEST(contradictions_are_refused_by_name) {
    for (size_t i = 0; i < KS_LEN(LIES); i++) {
        ksllm_model *m = NULL;
        ksllm_error err = {.text = ""};
        bytes b;
        if (!converted_row(LIES[i].row, &b)) continue;
        u8 *value = value_of(&b, LIES[i].key);
        if (!CHECK(value != NULL)) {
            printf("%s\n", LIES[i].key);
            continue;
        }
        u32 number = (u32)LIES[i].value;
        f32 real = (f32)LIES[i].value;
        if (LIES[i].how == SET_U32) memcpy(value, &number, 4);
        if (LIES[i].how == SET_F32) memcpy(value, &real, 4);
        if (LIES[i].how == REMOVE) value[-5] = '?'; /* its last letter */
        ksllm_status status =
            ksllm_model_open_memory(b.p, b.n, NULL, &m, &err);
        bool named = strstr(err.text, strrchr(LIES[i].key, '.') + 1) != NULL;
        if (!CHECK(status != KSLLM_OK && named))
            printf("%s %g: %s: %s\n", LIES[i].key, LIES[i].value,
                ksllm_status_name(status), err.text);
        CHECK(m == NULL);
        ksllm_model_close(m);
        free(b.p);
    }
}

/* A layer with a window keeps its window, and the estimate knows it: with 4
 * of 5 layers so, little more than a fifth remains. */
TEST(windows_keep_the_cache_small) {
    size_t kv[2] = {0};
    for (int i = 0; i < 2; i++) {
        ksllm_model *m = NULL;
        ksllm_session_options o;
        ksllm_memory need = {.size = sizeof need};
        ksllm_error err;
        bytes b;
        if (!converted_row("exaone4_hybrid", &b)) return;
        u8 *key = value_of(&b, "exaone4.attention.sliding_window");
        if (i) key[-5] = '?'; /* no such key: every layer sees everything */
        ksllm_session_options_init(&o);
        o.n_ctx = 16384;
        if (CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err)
            && CHECK_OK(ksllm_session_memory(m, &o, &need, &err), err))
            kv[i] = need.kv;
        ksllm_model_close(m);
        free(b.p);
    }
    CHECK(kv[0] * 4 < kv[1]);
    CHECK(kv[0] * 5 >= kv[1]);
}

/* Solar's streams: what was never kept would be another batch's memory. */
TEST(streams_are_kept_before_they_are_mixed) {
    static const struct {
        const char *key;
        u32 block, value;
    } cases[] = {{"solar.skip.mix", 0, 1}, {"solar.skip.mix", 1, 4},
        {"solar.skip.save", 1, 0}, {"solar.skip.save", 0, 0x80000000u}};
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        ksllm_model *m = NULL;
        ksllm_error err = {.text = ""};
        bytes b;
        if (!converted_row("solar", &b)) return;
        u8 *items = value_of(&b, cases[i].key) + 12;
        memcpy(items + 4 * cases[i].block, &cases[i].value, 4);
        CHECK_EQ(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err),
            KSLLM_ERR_FORMAT);
        if (!CHECK(strstr(err.text, "skip"))) printf("%zu: %s\n", i, err.text);
        ksllm_model_close(m);
        free(b.p);
    }
}

/* LFM2's layers without KV heads are convolutions; Gemma 4's layers of one
 * window have as many: a file that says otherwise has not the tensors. */
TEST(layers_have_heads_or_convolve) {
    static const char lfm2[] = "lfm2", gemma[] = "gemma4";
    static const struct {
        const char *row, *arch;
        u32 block, value;
        const char *what;
    } cases[] = {{lfm2, lfm2, 0, 2, "shortconv"}, {lfm2, lfm2, 1, 0, "attn_"},
        {lfm2, lfm2, 1, 4, "head_count_kv"},
        {lfm2, lfm2, 0, 0xffffffffu, "head_count_kv"},
        {gemma, gemma, 1, 2, "2 KV heads for 2 heads in layer 1"},
        {"gemma4_moe", gemma, 0, 1, "attn_k.weight"},
        {"gemma4_moe", gemma, 1, 2, "attn_k.weight"},
        {"gemma4_moe", gemma, 1, 0, "must have numbers of heads"},
        {"gemma4_moe", gemma, 0, 3, "do not go together"}};
    for (size_t i = 0; i < KS_LEN(cases); i++) {
        ksllm_model *m = NULL;
        ksllm_error err = {.text = ""};
        bytes b;
        char key[64];
        if (!converted_row(cases[i].row, &b)) return;
        snprintf(key, sizeof key, "%s.attention.head_count_kv", cases[i].arch);
        u8 *items = value_of(&b, key) + 12;
        memcpy(items + 4 * cases[i].block, &cases[i].value, 4);
        CHECK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err) != KSLLM_OK);
        if (!CHECK(strstr(err.text, cases[i].what)))
            printf("%zu: %s\n", i, err.text);
        ksllm_model_close(m);
        free(b.p);
    }
}

/* Whatever was rewound, forked or stopped on the way: what comes out is
 * what a fresh session computes. */
static void any_timeline(const char *row, u32 n_ctx, int rounds) {
    ksllm_model *m = NULL;
    ksllm_session *s = NULL, *fresh = NULL;
    ksllm_session_options o;
    ksllm_control hurry;
    ksllm_error err;
    i32 tokens[2048];
    u32 seed = 1;
    bytes b;
    if (!converted_row(row, &b)) return;
    ksllm_control_init(&hurry);
    ksllm_session_options_init(&o);
    o.n_ctx = n_ctx;
    bool ok = CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err);
    o.n_batch = 8;
    ok = ok && CHECK_OK(ksllm_session_create(m, &o, &s, &err), err);
    for (u32 i = 0; i < n_ctx; i++) tokens[i] = (i32)i * 37 % 256;
    for (int i = 0; i < rounds && ok; i++) {
        seed = seed * 1664525 + 1013904223;
        u32 n = 1 + seed / 65536 % (n_ctx - 1), from = seed / 256 % n;
        for (u32 j = from; j < n; j++) tokens[j] = (tokens[j] + 1) % 256;
        hurry.budget_us = 1 + seed % 3000;
        ksllm_status status = ksllm_session_sync(s, tokens, n, &hurry, &err);
        CHECK(!status || status == KSLLM_ERR_DEADLINE);
        ok = CHECK_OK(ksllm_session_sync(s, tokens, n, NULL, &err), err);
        if (ok && i % 4 == 3) {
            ksllm_session *copy = NULL;
            ok = CHECK_OK(ksllm_session_create(m, &o, &copy, &err), err)
                && CHECK_OK(ksllm_session_fork(s, copy, &err), err);
            ksllm_session_free(s);
            s = copy;
            tokens[n] = (i32)n % 256;
            ok = ok && CHECK_OK(
                ksllm_session_append(s, tokens + n++, 1, NULL, &err), err);
        }
        o.n_batch = 64;
        ok = ok && CHECK_OK(ksllm_session_create(m, &o, &fresh, &err), err)
            && CHECK_OK(ksllm_session_sync(fresh, tokens, n, NULL, &err), err)
            && CHECK(!memcmp(ksllm_session_logits(s),
                ksllm_session_logits(fresh), 264 * sizeof(f32)));
        o.n_batch = 8;
        ksllm_session_free(fresh);
        fresh = NULL;
    }
    ksllm_session_free(s);
    ksllm_model_close(m);
    free(b.p);
}

TEST(convolutions_on_any_timeline) { any_timeline("lfm2", 200, 40); }
TEST(shared_caches_on_any_timeline) { any_timeline("gemma4", 200, 40); }
TEST(recurrence_on_any_timeline) { any_timeline("qwen3_5", 200, 40); }
TEST(recurrence_on_a_long_timeline) { any_timeline("qwen3_5", 1500, 12); }

static void total_of(void *ctx, size_t n_done, size_t n_total) {
    (void)n_done;
    *(size_t *)ctx = n_total;
}

/* A session of the tiny Qwen 3.5. What runs with `c` leaves in `total` how many
 * tokens it evaluates. */
typedef struct {
    bytes b;
    ksllm_model *m;
    ksllm_session *s;
    ksllm_control c;
    size_t total;
} recurrent;

static bool recurrent_open(recurrent *x, size_t n_ctx) {
    ksllm_session_options o;
    ksllm_error err;
    *x = (recurrent){.total = 0};
    if (!converted_row("qwen3_5", &x->b)) return false;
    ksllm_control_init(&x->c);
    x->c.on_progress = total_of;
    x->c.progress_ctx = &x->total;
    ksllm_session_options_init(&o);
    o.n_ctx = n_ctx;
    return CHECK_OK(
               ksllm_model_open_memory(x->b.p, x->b.n, NULL, &x->m, &err), err)
        && CHECK_OK(ksllm_session_create(x->m, &o, &x->s, &err), err);
}

static void recurrent_close(recurrent *x) {
    ksllm_session_free(x->s);
    ksllm_model_close(x->m);
    free(x->b.p);
}

/* A file of states that was cut or damaged anywhere costs time and no bit; one
 * that is sound costs none. */
TEST(recurrence_of_any_file) {
    enum { N = 70, MORE = 3 };
    ksllm_saved saved = {0, 0, 0};
    recurrent x;
    ksllm_error err;
    st_memory file = {.at = 0};
    i32 tokens[N + MORE];
    f32 want[264];
    for (int i = 0; i < N + MORE; i++) tokens[i] = i * 37 % 256;
    bool ok = recurrent_open(&x, 128);
    for (int i = 40; i <= N && ok; i += 30) /* the second one is appended */
        ok = CHECK_OK(
                 ksllm_session_sync(x.s, tokens, (size_t)i, NULL, &err), err)
            && CHECK_OK(ksllm_session_save(
                x.s, 0, st_memory_write, &file, NULL, &saved, &err), err);
    CHECK_EQ(saved.n_bytes, file.b.size);
    ok = ok && CHECK_OK(
        ksllm_session_append(x.s, tokens + N, MORE, NULL, &err), err);
    if (ok) memcpy(want, ksllm_session_logits(x.s), sizeof want);
    st_memory part = file;
    for (size_t i = 0; ok && i < 2 * file.b.size; i += i ? 211 * TEST_ONE_OF : 1) {
        size_t at = i % file.b.size;
        u8 *p = (u8 *)file.b.data + at;
        bool cut = i >= file.b.size;
        part.at = 0;
        part.b.size = cut ? at : file.b.size;
        if (i && !cut) *p ^= 64;
        ksllm_session_load(
            x.s, NULL, 0, st_memory_read, &part, NULL, NULL, &err);
        if (i && !cut) *p ^= 64;
        x.total = 0;
        ok = CHECK_OK(
                 ksllm_session_sync(x.s, tokens, N + MORE, &x.c, &err), err)
            && CHECK(!memcmp(want, ksllm_session_logits(x.s), sizeof want));
        CHECK(i || x.total == MORE);
    }
    recurrent_close(&x);
    free(file.b.data);
}

/* The second time that a prompt begins as before, its beginning is not
 * evaluated: the state is kept where the first one was taken back to. And an
 * answer taken back leaves the state after its prompt. */
TEST(recurrence_is_kept_where_prompts_part) {
    enum { BEGIN = 100, N = 120 };
    recurrent x;
    ksllm_error err;
    i32 tokens[N];
    bool ok = recurrent_open(&x, 256);
    for (int i = 0; i < N; i++) tokens[i] = i * 37 % 256;
    for (i32 turn = 0; turn < 4 && ok; turn++) {
        for (int i = BEGIN; i < N; i++) tokens[i] = (i + turn) % 256;
        ok = CHECK_OK(ksllm_session_sync(x.s, tokens, N, &x.c, &err), err);
        CHECK_EQ(x.total, turn < 2 ? N : N - BEGIN);
        for (i32 i = 0; i < 9 && ok; i++)
            ok = CHECK_OK(ksllm_session_append(x.s, &i, 1, NULL, &err), err);
    }
    tokens[0] = 9;
    ok = ok && CHECK_OK(ksllm_session_append(x.s, tokens, 1, NULL, &err), err)
        && CHECK_OK(ksllm_session_rewind(x.s, N, &err), err)
        && CHECK_OK(ksllm_session_append(x.s, tokens, 2, &x.c, &err), err);
    CHECK_EQ(x.total, 2);
    recurrent_close(&x);
}

/* So is a state that was there by chance, as one of the last two. */
TEST(recurrence_is_kept_where_a_rewind_finds_it) {
    enum { N = 40 };
    recurrent x;
    ksllm_error err;
    i32 tokens[N + 4];
    for (int i = 0; i < N + 4; i++) tokens[i] = i * 37 % 256;
    bool ok = recurrent_open(&x, 64)
        && CHECK_OK(ksllm_session_sync(x.s, tokens, N, NULL, &err), err);
    for (int i = 0; i < 3 && ok; i++)
        ok = CHECK_OK(
            ksllm_session_append(x.s, tokens + N + i, 1, NULL, &err), err);
    for (int turn = 0; turn < 3 && ok; turn++) {
        ok = CHECK_OK(ksllm_session_rewind(x.s, N + 2, &err), err)
            && CHECK_OK(ksllm_session_append(x.s, tokens, 1, &x.c, &err), err);
        CHECK_EQ(x.total, 1);
        for (int i = 0; i < 5 && ok; i++)
            ok = CHECK_OK(
                ksllm_session_append(x.s, tokens + turn, 1, NULL, &err), err);
    }
    recurrent_close(&x);
}

/* Files whose heads have a gate, but whose values are not as long as keys, or
 * that have no layer with a state. */
TEST(gates_of_any_file) {
    const ksllm_override set[] = {
        {"qwen35.nextn_predict_layers", KSLLM_META_I64, 4, 0, NULL},
        {"qwen35.full_attention_interval", KSLLM_META_I64, 1, 0, NULL},
        {"qwen35.attention.value_length", KSLLM_META_I64, 8, 0, NULL}};
    enum { N = 32 };
    ksllm_model_options mo;
    ksllm_session_options o;
    ksllm_error err = {.text = ""};
    f32 logits[2][264];
    i32 tokens[N];
    bytes b;
    if (!converted_row("qwen3_5", &b)) return;
    ksllm_model_options_init(&mo);
    ksllm_session_options_init(&o);
    ksllm_model *m = NULL;
    mo.overrides = set + 2;
    mo.n_overrides = 1;
    CHECK_EQ(ksllm_model_open_memory(b.p, b.n, &mo, &m, &err),
        KSLLM_ERR_UNSUPPORTED);
    CHECK(strstr(err.text, "value_length"));
    for (size_t i = 0; i + 6 < b.n; i++) /* the one that attends comes first */
        if (!memcmp(b.p + i, "blk.", 4) && b.p[i + 5] == '.'
            && (b.p[i + 4] == '0' || b.p[i + 4] == '1')) b.p[i + 4] ^= 1;
    mo.overrides = set;
    mo.n_overrides = 2;
    o.n_ctx = 64;
    for (int i = 0; i < N; i++) tokens[i] = i * 37 % 256;
    bool ok = CHECK_OK(ksllm_model_open_memory(b.p, b.n, &mo, &m, &err), err);
    for (int i = 0; i < 2 && ok; i++) {
        ksllm_session *s = NULL;
        o.n_batch = i ? 1 : N;
        ok = CHECK_OK(ksllm_session_create(m, &o, &s, &err), err)
            && CHECK_OK(ksllm_session_sync(s, tokens, N, NULL, &err), err);
        if (ok) memcpy(logits[i], ksllm_session_logits(s), sizeof logits[i]);
        ksllm_session_free(s);
    }
    CHECK(ok && !memcmp(logits[0], logits[1], sizeof logits[0]));
    ksllm_model_close(m);
    free(b.p);
}

/* What Gemma 4's layers must have in common. */
TEST(layers_that_differ)
{
    static const struct {
        const char *key;
        i64 v;
        const char *said;
    } wrong[] = {
        {"gemma4.attention.shared_kv_layers", 5, "no layer before those"},
        {"gemma4.attention.key_length_swa", 33, "key_length_swa"},
        {"gemma4.attention.value_length_swa", 8, "value_length_swa"},
        {"gemma4.rope.dimension_count_swa", 3, "dimension_count_swa"},
        {"gemma4.rope.dimension_count", 2, "above rope.dimension_count"},
        {"gemma4.embedding_length_per_layer_input", 0, "has no place"},
        {"gemma4.embedding_length_per_layer_input", 8, "has a length"},
        {"gemma4.attention.shared_kv_layers", 2, "is missing"},
        /* of the file with experts: their place is the feed-forward's */
        {"gemma4.expert_shared_count", 1, "expert_shared_count"},
    };
    ksllm_model_options mo;
    ksllm_error err = {.text = ""};
    bytes b;
    if (!converted_row("gemma4", &b)) return;
    ksllm_model_options_init(&mo);
    for (size_t i = 0; i < KS_LEN(wrong); i++) {
        if (i + 1 == KS_LEN(wrong)) {
            free(b.p);
            if (!converted_row("gemma4_moe", &b)) return;
        }
        const ksllm_override set = {
            wrong[i].key, KSLLM_META_I64, wrong[i].v, 0, NULL};
        ksllm_model *m = NULL;
        mo.overrides = &set;
        mo.n_overrides = 1;
        CHECK(ksllm_model_open_memory(b.p, b.n, &mo, &m, &err) < 0);
        if (!CHECK(strstr(err.text, wrong[i].said))) printf("%s\n", err.text);
        ksllm_model_close(m);
    }
    free(b.p);
}

/* A.X K2 ends where its sparse attention begins; so does the context that a
 * caller gets who asks for none. */
TEST(default_context_is_one_that_runs) {
    ksllm_model *m = NULL;
    ksllm_memory need = {.size = sizeof need};
    ksllm_session_options o;
    ksllm_error err;
    bytes b;
    const u32 top = 100;
    if (!converted_row("axk2", &b)) return;
    memcpy(value_of(&b, "axk2.attention.indexer.top_k"), &top, 4);
    ksllm_session_options_init(&o);
    if (CHECK_OK(ksllm_model_open_memory(b.p, b.n, NULL, &m, &err), err)
        && CHECK_OK(ksllm_session_memory(m, &o, &need, &err), err))
        CHECK_EQ(need.n_ctx, top);
    o.n_ctx = top + 1;
    CHECK_EQ(ksllm_session_memory(m, &o, &need, &err),
        KSLLM_ERR_UNSUPPORTED);
    ksllm_model_close(m);
    free(b.p);
}

TEST_MAIN
