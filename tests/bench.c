/* bench.c - how fast a model runs here, through the public interface alone.
 *
 *     bench [--model FILE | --shape NAME --type TYPE] [--write FILE]
 *           [--threads N] [--isa NAME] [--kv TYPE] [--batch N]
 *           [--prefill 128,512,2048] [--depth 0,1024,4096,8192]
 *           [--check 4,8] [--slice 256] [--tokens 64] [--rounds 5] [--csv]
 *           [--paced]
 *
 * Without --model it makes one: random weights in a real model's dimensions,
 * with a vocabulary of the real size, in a second or two. A TYPE in capitals
 * (Q4_0) is the type of every matrix; in small letters (q4_0, q4_k_m) it is
 * the mix that llama-quantize writes under that name. --write puts the model
 * into a file and ends.
 *
 * Every round measures every case once, so that a slow minute of the machine
 * falls on all of them; what is printed is the median of the rounds.
 *
 *     open, create      a model and a session, ms
 *     memory            what ksllm_session_memory says, MiB
 *     private           anonymous memory of the process above that before the
 *                       model was opened, MiB; Linux only
 *     prefill n         a prompt of n tokens, tokens per second
 *     prefill_at n      --slice tokens more behind n tokens
 *     decode n          --tokens tokens one by one behind n tokens (0: behind
 *                       one), greedy, stops ignored, no drafts
 *     check k           the time to score k tokens, with logits for each, over
 *                       that for one, behind the first depth: what it costs
 *                       to check k - 1 guesses
 *     read              all threads read the weights and do nothing else;
 *                       taken before and after each decode case
 *     share n           bytes of weights that one token needs times decode,
 *                       over that round's read. The KV cache is not counted
 *
 * Of a file, `type` is the type that most of its bytes have.
 *
 * --paced is for bench_peer.py: one round for each line on standard input,
 * its values at once, then an empty line.
 */
#define _GNU_SOURCE
#include "fixture.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LIST = 16, MAX_ROUNDS = 99, MAX_ROWS = 96, MAX_WEIGHTS = 1024,
       MAX_THREADS = 256 };

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(1);
}

static void check(ksllm_status status, const char *what,
                  const ksllm_error *err)
{
    if (status != KSLLM_OK)
        fail(what, err->text);
}

/* ---- The model ---------------------------------------------------------- */

typedef struct shape {
    const char *name, *arch, *about;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
    bool tied;
} shape;

static const shape shapes[] = {
    {"1b", "llama", "Llama 3.2 1B", 16, 2048, 8192, 32, 8, 64, 128256, true},
    {"0.5b", "qwen2", "Qwen2.5 0.5B", 24, 896, 4864, 14, 2, 64, 151936, true},
    {"8b", "llama", "Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128, 128256,
     false},
    /* On Qwen3's graph, which costs the same: its norms stand elsewhere. */
    {"exaone-1.2b", "qwen3", "EXAONE 4.0 1.2B", 30, 2048, 4096, 32, 8, 64,
     102400, true},
    {"hcx-0.5b", "llama", "HyperCLOVA X SEED 0.5B", 24, 1024, 4096, 16, 8,
     128, 110592, true},
    {"hcx-1.5b", "llama", "HyperCLOVA X SEED 1.5B", 24, 2048, 7168, 16, 8,
     128, 110592, true},
    {"hcx-8b", "llama", "HyperCLOVA X SEED Omni 8B", 36, 4096, 12288, 32, 8,
     128, 200704, false},
    {"tiny", "llama", "to try the program itself", 2, 256, 512, 4, 2, 64,
     1024, true},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

/* Types by role: most matrices; the half of the value and down projections
 * that gets more bits; the output matrix. */
typedef struct mix {
    const char *name;
    ksllm_type most, more, head;
} mix;

static const mix mixes[] = {
    {"q4_0", KSLLM_TYPE_Q4_0, KSLLM_TYPE_Q4_0, KSLLM_TYPE_Q6_K},
    {"q4_k_m", KSLLM_TYPE_Q4_K, KSLLM_TYPE_Q6_K, KSLLM_TYPE_Q6_K},
    {"q5_k_m", KSLLM_TYPE_Q5_K, KSLLM_TYPE_Q6_K, KSLLM_TYPE_Q6_K},
    {"q8_0", KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q8_0},
};

typedef struct weight {
    const fx_type *type;
    uint64_t bytes;
    bool is_norm;
} weight;

typedef struct plan {
    weight weights[MAX_WEIGHTS];
    uint32_t n;
    uint64_t bytes;
    fx_gguf gguf;
} plan;

/* Rows that do not fill blocks of 256 get the type that llama-quantize
 * takes instead. */
static ksllm_type fitting(ksllm_type type, uint64_t n_in)
{
    if (n_in % fx_type_of(type)->items == 0)
        return type;
    return type == KSLLM_TYPE_Q4_K   ? KSLLM_TYPE_Q5_0
           : type == KSLLM_TYPE_Q5_K ? KSLLM_TYPE_Q5_1
           : type == KSLLM_TYPE_Q6_K ? KSLLM_TYPE_Q8_0
                                     : KSLLM_TYPE_IQ4_NL;
}

/* n_out 0: a vector. */
static void add_weight(plan *p, const char *name, ksllm_type type,
                       uint64_t n_in, uint64_t n_out, bool is_norm)
{
    const fx_type *t = fx_type_of(fitting(type, n_in));
    uint64_t dims[2] = {n_in, n_out};
    if (p->n == MAX_WEIGHTS)
        fail(name, "too many tensors");
    fx_tensor_raw(&p->gguf, name, n_out ? 2 : 1, dims, t->type, p->bytes);
    uint64_t bytes = fx_type_bytes(t, n_in) * (n_out ? n_out : 1);
    p->weights[p->n++] = (weight){t, bytes, is_norm};
    p->bytes += (bytes + 31) / 32 * 32;
}

static void add_layer(plan *p, const shape *s, const mix *m, uint32_t layer)
{
    uint64_t e = s->n_embd, q = (uint64_t)s->n_heads * s->head_dim;
    uint64_t kv = (uint64_t)s->n_kv_heads * s->head_dim;
    uint32_t n8 = s->n_layers / 8;
    bool extra = layer < n8 || layer >= 7 * s->n_layers / 8 ||
                 (layer - n8) % 3 == 2;
    ksllm_type more = extra ? m->more : m->most;
    const struct {
        const char *name, *only;
        ksllm_type type;
        uint64_t n_in, n_out;
    } all[] = {
        {"attn_norm.weight", "", KSLLM_TYPE_F32, e, 0},
        {"attn_q.weight", "", m->most, e, q},
        {"attn_k.weight", "", m->most, e, kv},
        {"attn_v.weight", "", more, e, kv},
        {"attn_output.weight", "", m->most, q, e},
        {"attn_q.bias", "qwen2", KSLLM_TYPE_F32, q, 0},
        {"attn_k.bias", "qwen2", KSLLM_TYPE_F32, kv, 0},
        {"attn_v.bias", "qwen2", KSLLM_TYPE_F32, kv, 0},
        {"attn_q_norm.weight", "qwen3", KSLLM_TYPE_F32, s->head_dim, 0},
        {"attn_k_norm.weight", "qwen3", KSLLM_TYPE_F32, s->head_dim, 0},
        {"ffn_norm.weight", "", KSLLM_TYPE_F32, e, 0},
        {"ffn_gate.weight", "", m->most, e, s->n_ff},
        {"ffn_up.weight", "", m->most, e, s->n_ff},
        {"ffn_down.weight", "", more, s->n_ff, e},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char name[64];
        if (all[i].only[0] && strcmp(all[i].only, s->arch) != 0)
            continue;
        snprintf(name, sizeof name, "blk.%u.%s", (unsigned)layer,
                 all[i].name);
        add_weight(p, name, all[i].type, all[i].n_in, all[i].n_out,
                   strstr(name, "norm") != NULL);
    }
}

/* All bytes, then words that grow by a letter: each is an earlier word and
 * one of its four next letters, so none comes twice and every one is a
 * merge. 128k of them are seven letters long in the mean. */
static void add_vocab(fx_gguf *g, uint32_t n_vocab)
{
    enum { WORD = 24, N_CONTROL = 2 };
    char (*words)[WORD] = fx_memory(NULL, (size_t)n_vocab * WORD);
    fx_bytes merges = {0};
    uint32_t n = 0, n_merges = 0;
    for (; n < 256; n++)
        words[n][fx_alphabet((uint8_t)n, words[n])] = 0;
    for (uint32_t parent = 'a'; n < n_vocab - N_CONTROL; n_merges++) {
        uint32_t child = n_merges % 4;
        char letter = (char)('a' + (parent * 7 + child * 5) % 26);
        char pair[WORD];
        snprintf(words[n++], WORD, "%.20s%c", words[parent], letter);
        snprintf(pair, WORD, "%.20s %c", words[parent], letter);
        fx_text(&merges, pair);
        if (child == 3)
            parent = parent == 'z' ? 256 : parent + 1;
    }
    snprintf(words[n++], WORD, "<|im_start|>");
    snprintf(words[n++], WORD, "<|im_end|>");
    fx_kv_text(g, "tokenizer.ggml.model", "gpt2");
    fx_kv_text(g, "tokenizer.ggml.pre", "gpt-2");
    fx_kv_array(g, "tokenizer.ggml.tokens", KSLLM_META_TEXT, n);
    for (uint32_t i = 0; i < n; i++)
        fx_text(&g->kv, words[i]);
    fx_kv_array(g, "tokenizer.ggml.token_type", KSLLM_META_I32, n);
    for (uint32_t i = 0; i < n; i++)
        fx_int(&g->kv, i < n - N_CONTROL ? FX_NORMAL : FX_CONTROL, 4);
    fx_kv_array(g, "tokenizer.ggml.merges", KSLLM_META_TEXT, n_merges);
    fx_put(&g->kv, merges.data, merges.size);
    fx_kv_u32(g, "tokenizer.ggml.bos_token_id", n - 2);
    fx_kv_u32(g, "tokenizer.ggml.eos_token_id", n - 1);
    fx_kv_bool(g, "tokenizer.ggml.add_bos_token", false);
    free(words);
    free(merges.data);
}

/* Random blocks, then the same ones over and over: a second, not a minute.
 * Their number is odd and the blocks of a row are even, so that neighbouring
 * rows differ. */
static void fill(uint8_t *out, const plan *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const weight *w = &p->weights[i];
        uint64_t blocks = (1u << 18) / w->type->bytes | 1;
        uint64_t size = blocks * w->type->bytes;
        uint64_t at = size < w->bytes ? size : w->bytes, rng = FX_HASH + i, n;
        fx_fill(out, w->type, at / w->type->bytes * w->type->items, &rng);
        for (; at < w->bytes; at += n) {
            n = size < w->bytes - at ? size : w->bytes - at;
            memcpy(out + at, out + at - size, n);
        }
        const float one = 1;
        for (at = 0; w->is_norm && at < w->bytes; at += 4)
            memcpy(out + at, &one, 4);
        out += (w->bytes + 31) / 32 * 32;
    }
}

/* Builds the model in shared memory, or in a file when there is a path.
 * Shared, so that it does not count as the process's private memory and lies
 * on small pages, as a mapped file does. */
static fx_file make_model(const shape *s, const mix *m, const char *path)
{
    plan *p = fx_memory(NULL, sizeof *p);
    memset(p, 0, sizeof *p);
    fx_begin(&p->gguf);
    fx_model_keys(&p->gguf, &(fx_spec){
        .name = s->about, .arch = s->arch, .n_layers = s->n_layers,
        .n_embd = s->n_embd, .n_ff = s->n_ff, .n_heads = s->n_heads,
        .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim});
    add_vocab(&p->gguf, s->n_vocab);
    add_weight(p, "token_embd.weight", s->tied ? m->head : m->most,
               s->n_embd, s->n_vocab, false);
    for (uint32_t i = 0; i < s->n_layers; i++)
        add_layer(p, s, m, i);
    add_weight(p, "output_norm.weight", KSLLM_TYPE_F32, s->n_embd, 0, true);
    if (!s->tied)
        add_weight(p, "output.weight", m->head, s->n_embd, s->n_vocab,
                   false);
    fx_file head = fx_end(&p->gguf);
    size_t data = (head.header + 31) / 32 * 32;
    fx_file f = {NULL, data + p->bytes, head.header};
    int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
    if (path && fd < 0)
        fail(path, "cannot be opened for writing");
    /* Without room the pages would fail later, with SIGBUS. */
    if (path && posix_fallocate(fd, 0, (off_t)f.size) != 0)
        fail(path, "no room");
    f.data = mmap(NULL, f.size, PROT_READ | PROT_WRITE,
                  path ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS, fd, 0);
    if (f.data == MAP_FAILED)
        fail(path ? path : s->name, "no memory");
    memcpy(f.data, head.data, head.header);
    fill(f.data + data, p);
    if (path)
        close(fd);
    free(head.data);
    free(p);
    return f;
}

/* ---- Measuring ---------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Anonymous memory of this process in MiB; below 0 when nobody says. */
static double private_mib(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    double kib = -1;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "Anonymous:", 10) == 0)
            kib = strtod(line + 10, NULL);
    if (f)
        fclose(f);
    return kib < 0 ? -1 : kib / 1024;
}

typedef struct row {
    const char *name, *unit;
    uint32_t n;
    int n_values;
    double v[MAX_ROUNDS];
} row;

typedef struct bench {
    const char *path, *out, *isa, *kv, *shape_name, *type_name;
    const char *prefill_text, *depth_text, *check_text;
    const shape *shape;
    mix mix;
    ksllm_session_options options;
    uint32_t prefill[MAX_LIST], depth[MAX_LIST], checks[MAX_LIST];
    uint32_t n_prefill, n_depth, n_checks;
    uint32_t slice, n_tokens, rounds;
    bool csv, paced;

    fx_file file;               /* of a made model */
    ksllm_model *model;
    ksllm_model_info info;
    ksllm_session *base;        /* holds the deepest context; only copied */
    ksllm_session *work;
    int32_t *tokens;
    float *logits;              /* of the most tokens scored at once */
    uint32_t n_threads;
    uint64_t bytes;             /* of weights that a token needs */
    row rows[MAX_ROWS];
    int n_rows;
} bench;

static void record(bench *b, const char *name, uint32_t n, const char *unit,
                   double value)
{
    int i = 0;
    while (i < b->n_rows &&
           (b->rows[i].n != n || strcmp(b->rows[i].name, name) != 0))
        i++;
    row *r = &b->rows[i];
    if (i == b->n_rows) {
        if (b->n_rows == MAX_ROWS)
            fail(name, "too many cases");
        b->n_rows++;
        *r = (row){.name = name, .n = n, .unit = unit};
    }
    if (r->n_values < MAX_ROUNDS)
        r->v[r->n_values++] = value;
}

static bool is_read(const bench *b, const ksllm_tensor *t)
{
    ksllm_tensor output = {.size = sizeof output};
    return !(t->name.size == 17 &&
             memcmp(t->name.data, "token_embd.weight", 17) == 0 &&
             ksllm_tensor_find(b->model, "output.weight", &output) ==
                 KSLLM_OK);
}

typedef struct reader {
    pthread_t thread;
    const bench *b;
    uint32_t index, passes;
} reader;

/* A register of every machine. Longer vectors are kept on the stack by gcc
 * 12, at a third of the speed. */
typedef uint64_t vec __attribute__((vector_size(16), aligned(8), may_alias));

static void *read_part(void *arg)
{
    const reader *r = arg;
    vec a = {0}, b = {0}, c = {0}, d = {0};
    ksllm_tensor t = {.size = sizeof t};
    for (uint32_t i = 0, pass = 0; pass < r->passes; i++) {
        if (ksllm_tensor_at(r->b->model, i, &t) != KSLLM_OK) {
            i = UINT32_MAX;     /* the next is tensor 0 */
            pass++;
            continue;
        }
        size_t n = is_read(r->b, &t) ? t.bytes / 64 : 0;
        size_t step = n / r->b->n_threads + 1, from = r->index * step;
        size_t to = from + step < n ? from + step : n;
        for (; from < to; from++) {
            const vec *p = (const vec *)t.data + 4 * from;
            __builtin_prefetch((const char *)p + 4096);
            a += p[0];
            b += p[1];
            c += p[2];
            d += p[3];
        }
    }
    /* The sum counts as used: the reads cannot be left out. */
    const vec sum = a + b + c + d;
    __asm__ volatile("" : : "r"(&sum) : "memory");
    return NULL;
}

/* GB/s. A small model is read several times, so that starting the threads
 * does not count. */
static double read_rate(const bench *b)
{
    reader r[MAX_THREADS];
    uint32_t passes = 1 + (uint32_t)(((uint64_t)1 << 28) / (b->bytes + 1));
    double t = now();
    for (uint32_t i = 0; i < b->n_threads; i++) {
        r[i] = (reader){.b = b, .index = i, .passes = passes};
        if (i && pthread_create(&r[i].thread, NULL, read_part, &r[i]))
            fail("read", "cannot start a thread");
    }
    read_part(&r[0]);
    for (uint32_t i = 1; i < b->n_threads; i++)
        pthread_join(r[i].thread, NULL);
    return (double)b->bytes * passes / (now() - t) * 1e-9;
}

static ksllm_model *open_model(const bench *b)
{
    ksllm_model_options o;
    ksllm_model_options_init(&o);
    o.isa = b->isa;
    ksllm_model *m = NULL;
    ksllm_error err = {.status = KSLLM_OK};
    ksllm_status status =
        b->path ? ksllm_model_open(b->path, &o, &m, &err)
                : ksllm_model_open_memory(b->file.data, b->file.size, &o, &m,
                                          &err);
    check(status, "open", &err);
    return m;
}

static ksllm_session *create(const bench *b)
{
    ksllm_session *s = NULL;
    ksllm_error err = {.status = KSLLM_OK};
    check(ksllm_session_create(b->model, &b->options, &s, &err), "create",
          &err);
    return s;
}

/* Evaluates the tokens from `from` to `to`; seconds. */
static double evaluate(const bench *b, ksllm_session *s, uint32_t from,
                       uint32_t to)
{
    ksllm_error err = {.status = KSLLM_OK};
    double t = now();
    check(ksllm_session_append(s, b->tokens + from, to - from, NULL, &err),
          "evaluate", &err);
    return now() - t;
}

/* Leaves the session with n tokens (one for 0) and logits. The last token is
 * evaluated anew: a sliding window that cannot go back recomputes here, not
 * where time is taken. */
static void put_at(const bench *b, uint32_t n)
{
    if (n <= 1 || !b->base) {
        ksllm_session_rewind(b->work, 0, NULL);
        evaluate(b, b->work, 0, 1);
        return;
    }
    if (ksllm_session_fork(b->base, b->work, NULL) != KSLLM_OK ||
        ksllm_session_rewind(b->work, n - 1, NULL) != KSLLM_OK)
        fail("fork", "failed");
    evaluate(b, b->work, n - 1, n);
}

typedef struct times {
    uint32_t n;
    double first, last;
} times;

static int note_time(void *ctx, const ksllm_piece *piece)
{
    times *t = ctx;
    if (piece->token < 0)
        return 0;
    t->last = now();
    if (t->n++ == 0)
        t->first = t->last;
    return 0;
}

/* From the first token to the last: as many evaluations as tokens behind the
 * first. (Of the last token there need not be one.) */
static double decode(const bench *b, uint32_t depth)
{
    ksllm_generation g;
    times t = {.n = 0};
    ksllm_error err = {.status = KSLLM_OK};
    put_at(b, depth);
    ksllm_generation_init(&g);
    g.max_tokens = b->n_tokens + 1;
    g.ignore_stop = true;
    g.drafts = false; /* random weights repeat themselves: many come true */
    g.on_piece = note_time;
    g.piece_ctx = &t;
    check(ksllm_generate(b->work, &g, NULL, &err), "decode", &err);
    if (t.n != b->n_tokens + 1)
        fail("decode", "it stopped early");
    return b->n_tokens / (t.last - t.first);
}

/* Seconds to score n tokens behind `depth` others, the least of four times. */
static double score(const bench *b, uint32_t depth, uint32_t n)
{
    ksllm_error err = {.status = KSLLM_OK};
    uint32_t at = depth > 1 ? depth : 1;
    double least = 1e9;
    for (int i = 0; i < 4; i++) {
        put_at(b, depth);
        double t = now();
        check(ksllm_session_append_logits(b->work, b->tokens + at, n,
                                          b->logits, NULL, &err),
              "score", &err);
        t = now() - t;
        least = t < least ? t : least;
    }
    return least;
}

static void run_round(bench *b)
{
    double t = now();
    ksllm_model *m = open_model(b);
    record(b, "open", 0, "ms", (now() - t) * 1e3);
    ksllm_model_close(m);
    t = now();
    ksllm_session *s = create(b);
    record(b, "create", 0, "ms", (now() - t) * 1e3);
    ksllm_session_free(s);
    for (uint32_t i = 0; i < b->n_prefill; i++) {
        uint32_t n = b->prefill[i];
        ksllm_session_rewind(b->work, 0, NULL);
        record(b, "prefill", n, "tok/s", n / evaluate(b, b->work, 0, n));
    }
    double one = b->n_depth && b->n_checks ? score(b, b->depth[0], 1) : 0;
    for (uint32_t i = 0; b->n_depth && i < b->n_checks; i++)
        record(b, "check", b->checks[i], "",
               score(b, b->depth[0], b->checks[i]) / one);
    for (uint32_t i = 0; i < b->n_depth; i++) {
        uint32_t n = b->depth[i];
        double before = read_rate(b), rate = decode(b, n);
        double read = (before + read_rate(b)) / 2;
        record(b, "decode", n, "tok/s", rate);
        record(b, "read", n, "GB/s", read);
        record(b, "share", n, "", rate * (double)b->bytes * 1e-9 / read);
        if (n == 0 || b->slice == 0)
            continue;
        put_at(b, n);
        record(b, "prefill_at", n, "tok/s",
               b->slice / evaluate(b, b->work, n, n + b->slice));
    }
}

/* ---- Telling ------------------------------------------------------------ */

static void print_rows(bench *b)
{
    char date[16] = "";
    time_t t = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&t));
    const char *slash = b->path ? strrchr(b->path, '/') : NULL;
    const char *model = slash ? slash + 1 : b->path ? b->path : b->shape->name;
    for (int i = 0; i < b->n_rows; i++) {
        row *r = &b->rows[i];
        int n = r->n_values;
        if (n == 0)
            continue;
        qsort(r->v, (size_t)n, sizeof r->v[0], by_value);
        double median = (r->v[n / 2] + r->v[(n - 1) / 2]) / 2;
        if (b->csv)
            printf("%s,%s,%u,%s,%s,%s,%u,%.6g,%s\n", date, b->info.isa,
                   (unsigned)b->n_threads, model, b->type_name, r->name,
                   (unsigned)r->n, median, r->unit);
        else
            printf("%-16s %6u %10.2f %10.2f %10.2f  %s\n", r->name,
                   (unsigned)r->n, median, r->v[0], r->v[n - 1], r->unit);
        r->n_values = 0;
    }
}

static void announce(const bench *b)
{
    FILE *to = b->csv ? stderr : stdout;
    fprintf(to, "%.*s, %s, %.0f MB; %s, %u threads, ksllm %s\n"
                "%u rounds; prefill %s; decode at %s, %u tokens; slices of"
                " %u; context %u\n",
            (int)b->info.name.size, b->info.name.data, b->type_name,
            (double)b->info.weight_bytes * 1e-6, b->info.isa,
            (unsigned)b->n_threads, ksllm_version(), (unsigned)b->rounds,
            b->prefill_text, b->depth_text, (unsigned)b->n_tokens,
            (unsigned)b->slice, (unsigned)b->options.n_ctx);
    fflush(to);
}

/* ---- Running ------------------------------------------------------------ */

static bool parse_list(const char *s, uint32_t *v, uint32_t *n)
{
    while (*s && strcmp(s, "none") != 0) {
        char *end;
        unsigned long number = strtoul(s, &end, 10);
        if (end == s || *n == MAX_LIST || number > 1 << 20)
            return false;
        v[(*n)++] = (uint32_t)number;
        s = *end == ',' ? end + 1 : end;
    }
    return true;
}

/* From names to what they stand for. */
static bool resolve(bench *b)
{
    for (size_t i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, b->shape_name) == 0)
            b->shape = &shapes[i];
    for (size_t i = 0; i < sizeof mixes / sizeof mixes[0]; i++)
        if (strcmp(mixes[i].name, b->type_name) == 0)
            b->mix = mixes[i];
    for (int i = 0; i < FX_TYPES; i++) {
        const fx_type *t = &fx_types[i];
        if (strcmp(t->name, b->type_name) == 0)
            b->mix = (mix){t->name, t->type, t->type, t->type};
        if (b->kv && strcmp(t->name, b->kv) == 0) {
            b->options.kv_type = t->type;
            b->kv = NULL;
        }
    }
    return b->shape && b->mix.name && !b->kv && b->n_tokens > 0 &&
           b->rounds > 0 && b->rounds <= MAX_ROUNDS &&
           parse_list(b->prefill_text, b->prefill, &b->n_prefill) &&
           parse_list(b->depth_text, b->depth, &b->n_depth) &&
           parse_list(b->check_text, b->checks, &b->n_checks);
}

static bool parse(bench *b, int argc, char **argv)
{
    const struct {
        const char *name, **text;
        uint32_t *number;
        bool *flag;
    } known[] = {
        {"--model", &b->path, NULL, NULL},
        {"--write", &b->out, NULL, NULL},
        {"--shape", &b->shape_name, NULL, NULL},
        {"--type", &b->type_name, NULL, NULL},
        {"--isa", &b->isa, NULL, NULL},
        {"--kv", &b->kv, NULL, NULL},
        {"--prefill", &b->prefill_text, NULL, NULL},
        {"--depth", &b->depth_text, NULL, NULL},
        {"--check", &b->check_text, NULL, NULL},
        {"--threads", NULL, &b->options.n_threads, NULL},
        {"--batch", NULL, &b->options.n_batch, NULL},
        {"--slice", NULL, &b->slice, NULL},
        {"--tokens", NULL, &b->n_tokens, NULL},
        {"--rounds", NULL, &b->rounds, NULL},
        {"--csv", NULL, NULL, &b->csv},
        {"--paced", NULL, NULL, &b->paced},
    };
    const size_t n_known = sizeof known / sizeof known[0];
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < n_known && strcmp(known[k].name, argv[i]) != 0)
            k++;
        if (k == n_known)
            return false;
        if (known[k].flag) {
            *known[k].flag = true;
            continue;
        }
        if (++i == argc)
            return false;
        char *end = argv[i] + strlen(argv[i]);
        if (known[k].text)
            *known[k].text = argv[i];
        else
            *known[k].number = (uint32_t)strtoul(argv[i], &end, 10);
        if (*end)
            return false;
    }
    return resolve(b);
}

/* Opens the model and looks at it: the bytes a token needs, and the type
 * that most of them have. */
static void look(bench *b)
{
    uint64_t by_type[64] = {0}, most = 0;
    b->model = open_model(b);
    b->info.size = sizeof b->info;
    ksllm_model_get_info(b->model, &b->info, NULL);
    ksllm_tensor t = {.size = sizeof t};
    for (size_t i = 0; ksllm_tensor_at(b->model, i, &t) == KSLLM_OK; i++) {
        if (!is_read(b, &t))
            continue;
        b->bytes += t.bytes;
        by_type[t.type % 64] += t.bytes;
        if (b->path && by_type[t.type % 64] > most) {
            most = by_type[t.type % 64];
            b->type_name = t.type_name;
        }
    }
}

static uint32_t max_of(const uint32_t *v, uint32_t n)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++)
        max = v[i] > max ? v[i] : max;
    return max;
}

static void prepare(bench *b)
{
    double start = private_mib();
    look(b);
    double opened = private_mib();
    uint32_t deepest = max_of(b->depth, b->n_depth);
    uint32_t n_ctx = max_of(b->prefill, b->n_prefill);
    uint32_t most_checked = max_of(b->checks, b->n_checks);
    uint32_t more = b->n_tokens + 1 > b->slice ? b->n_tokens + 1 : b->slice;
    if (more < most_checked)
        more = most_checked;
    if (n_ctx < 1 + deepest + more)
        n_ctx = 1 + deepest + more;
    b->options.n_ctx = n_ctx;
    ksllm_memory memory = {.size = sizeof memory};
    ksllm_error err = {.status = KSLLM_OK};
    check(ksllm_session_memory(b->model, &b->options, &memory, &err),
          "estimate", &err);
    b->n_threads = memory.n_threads;
    if (b->n_threads > MAX_THREADS)
        fail("--threads", "too many");
    if (!b->paced)
        announce(b);
    b->tokens = fx_memory(NULL, n_ctx * sizeof *b->tokens);
    uint64_t seed = 1;
    for (uint32_t i = 0; i < n_ctx; i++)
        b->tokens[i] = (int32_t)fx_below(&seed, b->info.n_vocab);
    record(b, "memory", 0, "MiB", (double)memory.total / (1 << 20));
    record(b, "memory_kv", 0, "MiB", (double)memory.kv / (1 << 20));
    b->work = create(b);
    double created = private_mib();
    /* The first session is the deep one: the process has no second yet. */
    evaluate(b, b->work, 0, deepest > 1 ? deepest : 1);
    double full = private_mib();
    const float *logits = ksllm_session_logits(b->work);
    for (uint32_t i = 0; i < b->info.n_vocab; i++)
        if (!logits || !isfinite(logits[i]))
            fail("evaluate", "logits are not finite");
    if (start >= 0) {
        record(b, "private_open", 0, "MiB", opened - start);
        record(b, "private_create", 0, "MiB", created - start);
        record(b, "private_at", deepest, "MiB", full - start);
    }
    if (deepest > 1) {
        b->base = b->work;
        b->work = create(b);
    }
    b->logits = fx_memory(NULL, (most_checked + 1) * (size_t)b->info.n_vocab
                                    * sizeof *b->logits);
}

int main(int argc, char **argv)
{
    static bench b = {
        .shape_name = "1b", .type_name = "Q4_0", .slice = 256,
        .prefill_text = "128,512,2048", .depth_text = "0,1024,4096,8192",
        .check_text = "4,8",
        .n_tokens = 64, .rounds = 5};
    ksllm_session_options_init(&b.options);
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "bench: wrong arguments; the head of bench.c lists "
                        "them. Shapes:\n");
        for (size_t i = 0; i < N_SHAPES; i++)
            fprintf(stderr, "  %-12s %s\n", shapes[i].name, shapes[i].about);
        return 2;
    }
    b.type_name = b.mix.name;
    if (!b.path) {
        fprintf(b.csv ? stderr : stdout, "making %s (%s), %s%s%s\n",
                b.shape->name, b.shape->about, b.mix.name,
                b.out ? ", in " : "", b.out ? b.out : "");
        fflush(stdout);
        b.file = make_model(b.shape, &b.mix, b.out);
    }
    if (b.out)
        return 0;
    prepare(&b);
    if (b.csv)
        printf("date,isa,threads,model,type,case,n,value,unit\n");
    else
        printf("\n%-16s %6s %10s %10s %10s\n", "case", "n", "median", "least",
               "most");
    fflush(stdout);
    if (!b.paced) {
        for (uint32_t i = 0; i < b.rounds; i++)
            run_round(&b);
        print_rows(&b);
    }
    for (int c; b.paced && (c = getchar()) != EOF;)
        if (c == '\n') {
            run_round(&b);
            print_rows(&b);
            printf("\n");
            fflush(stdout);
        }
    ksllm_session_free(b.work);
    ksllm_session_free(b.base);
    ksllm_model_close(b.model);
    free(b.tokens);
    free(b.logits);
    if (b.file.data)
        munmap(b.file.data, b.file.size);
    return 0;
}
