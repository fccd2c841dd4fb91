/* fixture.h - what the tests run on: GGUF files made in memory, the same
 * bytes on every machine, and an allocator that counts and fails on demand.
 *
 *     fx_bytes    a growing byte string
 *     fx_gguf     a writer: metadata and tensors of every type, version 2 or
 *                 3, any alignment
 *     fx_model    tiny random models of the supported architectures, with
 *                 every part of their graph switched on
 *     fx_alloc    a ksllm_allocator with a ledger
 *
 * Weights come from integers and exact powers of two alone, so no compiler,
 * flag or libm can change a byte. There is no quantizer: the blocks of a
 * quantized type are random bits with scales of a sane size.
 *
 * Running out of memory here ends the program: it is the test's, not the
 * library's.
 */
#ifndef KSLLM_FIXTURE_H
#define KSLLM_FIXTURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../ksllm.h"

/* ---- Numbers ------------------------------------------------------------ */

/* splitmix64 (S. Vigna, public domain). */
static inline uint64_t fx_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint32_t fx_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)((fx_next(state) >> 32) * n >> 32);
}

/* FNV-1a, 64 bits. Begin with FX_HASH. */
#define FX_HASH UINT64_C(0xcbf29ce484222325)
static inline uint64_t fx_hash(uint64_t h, const void *data, size_t size)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* The bits of floats, little end first, with -0 counted as 0 and every NaN as
 * the same one: which of two NaN an operation returns is the compiler's choice,
 * and files that a fuzzer damaged have many. */
static inline uint64_t fx_hash_floats(uint64_t h, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        if (u == 0x80000000u)
            u = 0;
        if (u << 1 > 0xff000000u)
            u = 0x7fc00000u;
        uint8_t b[4] = {(uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16),
                        (uint8_t)(u >> 24)};
        h = fx_hash(h, b, 4);
    }
    return h;
}

/* All that a piece of an answer says. */
static inline uint64_t fx_hash_piece(uint64_t h, const ksllm_piece *p)
{
    h = fx_hash(h, p->text.data, p->text.size);
    h = fx_hash(h, &p->token, sizeof p->token);
    h = fx_hash(h, &p->index, sizeof p->index);
    if (p->logprob == p->logprob)
        h = fx_hash_floats(h, &p->logprob, 1);
    for (size_t i = 0; i < p->n_top; i++) {
        h = fx_hash(h, &p->top[i].token, sizeof p->top[i].token);
        h = fx_hash_floats(h, &p->top[i].logprob, 1);
    }
    return h;
}

/* ---- Bytes -------------------------------------------------------------- */

typedef struct fx_bytes {
    uint8_t *data;
    size_t size, cap;
} fx_bytes;

static inline void *fx_memory(void *p, size_t size)
{
    p = realloc(p, size ? size : 1);
    if (!p) {
        fprintf(stderr, "the test ran out of memory\n");
        exit(2);
    }
    return p;
}

static inline uint8_t *fx_grow(fx_bytes *b, size_t n)
{
    if (b->size + n > b->cap || !b->data) {
        b->cap = (b->size + n) * 2 + 16;
        b->data = fx_memory(b->data, b->cap);
    }
    b->size += n;
    return b->data + b->size - n;
}

static inline void fx_put(fx_bytes *b, const void *p, size_t n)
{
    if (n)
        memcpy(fx_grow(b, n), p, n);
}

/* The low n bytes of v, little end first. */
static inline void fx_set(uint8_t *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static inline void fx_int(fx_bytes *b, uint64_t v, int n)
{
    fx_set(fx_grow(b, (size_t)n), v, n);
}

static inline void fx_f32(fx_bytes *b, float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    fx_int(b, u, 4);
}

static inline void fx_text_n(fx_bytes *b, const void *s, size_t n)
{
    fx_int(b, n, 8);
    fx_put(b, s, n);
}

static inline void fx_text(fx_bytes *b, const char *s)
{
    fx_text_n(b, s, strlen(s));
}

/* Where `what` begins, or SIZE_MAX. */
static inline size_t fx_find_n(const uint8_t *data, size_t size,
                               const void *what, size_t n)
{
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(data + i, what, n) == 0)
            return i;
    return SIZE_MAX;
}

/* ---- GGUF --------------------------------------------------------------- */

typedef struct fx_gguf {
    fx_bytes kv, info, data;
    uint64_t n_kv, n_tensors;
    uint32_t version;
    uint32_t alignment;
} fx_gguf;

/* A finished file. `header` is where the tensor directory ends: the padding
 * before the data begins there. */
typedef struct fx_file {
    uint8_t *data;
    size_t size, header;
} fx_file;

static inline void fx_begin(fx_gguf *g)
{
    memset(g, 0, sizeof *g);
    g->version = 3;
    g->alignment = 32;
}

static inline void fx_key(fx_gguf *g, const char *key, ksllm_meta_type type)
{
    fx_text(&g->kv, key);
    fx_int(&g->kv, type, 4);
    g->n_kv++;
}

static inline int fx_meta_size(ksllm_meta_type type)
{
    static const int size[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return size[type];
}

/* Any integer type, and bool. */
static inline void fx_kv_int(fx_gguf *g, const char *key,
                             ksllm_meta_type type, uint64_t v)
{
    fx_key(g, key, type);
    fx_int(&g->kv, v, fx_meta_size(type));
}

static inline void fx_kv_u32(fx_gguf *g, const char *key, uint32_t v)
{
    fx_kv_int(g, key, KSLLM_META_U32, v);
}

static inline void fx_kv_bool(fx_gguf *g, const char *key, bool v)
{
    fx_kv_int(g, key, KSLLM_META_BOOL, v);
}

static inline void fx_kv_f32(fx_gguf *g, const char *key, float v)
{
    fx_key(g, key, KSLLM_META_F32);
    fx_f32(&g->kv, v);
}

static inline void fx_kv_f64(fx_gguf *g, const char *key, double v)
{
    uint64_t u;
    memcpy(&u, &v, 8);
    fx_key(g, key, KSLLM_META_F64);
    fx_int(&g->kv, u, 8);
}

static inline void fx_kv_text(fx_gguf *g, const char *key, const char *v)
{
    fx_key(g, key, KSLLM_META_TEXT);
    fx_text(&g->kv, v);
}

/* The items follow: fx_int, fx_f32, fx_text on g->kv. */
static inline void fx_kv_array(fx_gguf *g, const char *key,
                               ksllm_meta_type item, uint64_t n)
{
    fx_key(g, key, KSLLM_META_ARRAY);
    fx_int(&g->kv, item, 4);
    fx_int(&g->kv, n, 8);
}

/* An entry of the tensor directory, whatever it says. */
static inline void fx_tensor_raw(fx_gguf *g, const char *name,
                                 uint32_t n_dims, const uint64_t *dims,
                                 uint32_t type, uint64_t offset)
{
    fx_text(&g->info, name);
    fx_int(&g->info, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        fx_int(&g->info, dims[i], 8);
    fx_int(&g->info, type, 4);
    fx_int(&g->info, offset, 8);
    g->n_tensors++;
}

typedef struct fx_type {
    ksllm_type type;
    const char *name;
    uint16_t items, bytes;      /* of a block */
    /* Where f16 scales stand in a block (-1: none), and the exponent e that
     * makes weights of about 0.1: scales are 2^-e to 2^(1-e). The second is
     * the minimum: `ratio` binary digits larger, so that the mean is near 0.
     */
    int16_t d, m;
    uint8_t e, ratio;
} fx_type;

#define FX_TYPES 25
#define FX_MIXED_TYPES 15       /* those of the model "mixed": the first */
static const fx_type fx_types[FX_TYPES] = {
    {KSLLM_TYPE_F32, "F32", 1, 4, -1, -1, 0, 0},
    {KSLLM_TYPE_F16, "F16", 1, 2, -1, -1, 0, 0},
    {KSLLM_TYPE_Q4_0, "Q4_0", 32, 18, 0, -1, 6, 0},
    {KSLLM_TYPE_Q4_1, "Q4_1", 32, 20, 0, 2, 6, 3},
    {KSLLM_TYPE_Q5_0, "Q5_0", 32, 22, 0, -1, 7, 0},
    {KSLLM_TYPE_Q5_1, "Q5_1", 32, 24, 0, 2, 7, 4},
    {KSLLM_TYPE_Q8_0, "Q8_0", 32, 34, 0, -1, 10, 0},
    {KSLLM_TYPE_Q2_K, "Q2_K", 256, 84, 80, 82, 7, 0},
    {KSLLM_TYPE_Q3_K, "Q3_K", 256, 110, 108, -1, 9, 0},
    {KSLLM_TYPE_Q4_K, "Q4_K", 256, 144, 0, 2, 12, 3},
    {KSLLM_TYPE_Q5_K, "Q5_K", 256, 176, 0, 2, 13, 4},
    {KSLLM_TYPE_Q6_K, "Q6_K", 256, 210, 208, -1, 14, 0},
    {KSLLM_TYPE_IQ4_NL, "IQ4_NL", 32, 18, 0, -1, 10, 0},
    {KSLLM_TYPE_IQ4_XS, "IQ4_XS", 256, 136, 0, -1, 14, 0},
    {KSLLM_TYPE_BF16, "BF16", 1, 2, -1, -1, 0, 0},
    {KSLLM_TYPE_IQ2_XXS, "IQ2_XXS", 256, 66, 0, -1, 9, 0},
    {KSLLM_TYPE_IQ2_XS, "IQ2_XS", 256, 74, 0, -1, 9, 0},
    {KSLLM_TYPE_IQ3_XXS, "IQ3_XXS", 256, 98, 0, -1, 10, 0},
    {KSLLM_TYPE_IQ1_S, "IQ1_S", 256, 50, 0, -1, 7, 0},
    {KSLLM_TYPE_IQ3_S, "IQ3_S", 256, 110, 0, -1, 11, 0},
    {KSLLM_TYPE_IQ2_S, "IQ2_S", 256, 82, 0, -1, 9, 0},
    {KSLLM_TYPE_IQ1_M, "IQ1_M", 256, 56, 54, -1, 7, 0},
    {KSLLM_TYPE_TQ1_0, "TQ1_0", 256, 54, 52, -1, 4, 0},
    {KSLLM_TYPE_TQ2_0, "TQ2_0", 256, 66, 64, -1, 4, 0},
    {KSLLM_TYPE_MXFP4, "MXFP4", 32, 17, -1, -1, 5, 0},
};

static inline const fx_type *fx_type_of(ksllm_type type)
{
    for (int i = 0; i < FX_TYPES; i++)
        if (fx_types[i].type == type)
            return &fx_types[i];
    return NULL;
}

/* n weights of about 0.1, with mean near 0. n is a multiple of t->items. */
static inline void fx_fill(uint8_t *p, const fx_type *t, uint64_t n,
                           uint64_t *rng)
{
    for (uint64_t i = 0; i < n / t->items; i++, p += t->bytes) {
        for (int k = 0; k < t->bytes; k++)
            p[k] = (uint8_t)(fx_next(rng) >> 56);
        uint32_t r = (uint32_t)(fx_next(rng) >> 32);
        if (t->type == KSLLM_TYPE_F32) {        /* (-1/8, 1/8) */
            float f = (float)((int32_t)(r >> 16) - 32768) * 0x1p-18f;
            memcpy(&r, &f, 4);
            fx_set(p, r, 4);
        } else if (t->type == KSLLM_TYPE_F16) { /* 2^-6 to 2^-2 */
            fx_set(p, (r & 0x8000) | (9 + (r >> 30)) << 10 | (r & 0x3ff), 2);
        } else if (t->type == KSLLM_TYPE_BF16) {
            fx_set(p, (r & 0x8000) | (121 + (r >> 30)) << 7 | (r & 0x7f), 2);
        } else if (t->d < 0) {                  /* MXFP4: a power of two */
            p[0] = (uint8_t)(127 - t->e + (r >> 31));
        } else {
            uint32_t d = (uint32_t)(15 - t->e) << 10 | (r & 0x3ff);
            /* A minimum is subtracted, but the ones of Q4_1 and Q5_1 are
             * added. Other bits at the low end: not a multiple of d. */
            uint32_t m = (d + ((uint32_t)t->ratio << 10)) ^ (r >> 27);
            if (t->items == 32)
                m |= 0x8000;
            fx_set(p + t->d, d, 2);
            if (t->m >= 0)
                fx_set(p + t->m, m, 2);
        }
    }
}

/* Bytes of n weights, 0 when they do not fill blocks. */
static inline uint64_t fx_type_bytes(const fx_type *t, uint64_t n)
{
    return n % t->items ? 0 : n / t->items * t->bytes;
}

/* Enters a tensor and returns where its data goes, zeroed. A length of 0 ends
 * the list of lengths. */
static inline uint8_t *fx_tensor_3(fx_gguf *g, const char *name,
                                   ksllm_type type, uint64_t ne0,
                                   uint64_t ne1, uint64_t ne2)
{
    const fx_type *t = fx_type_of(type);
    uint64_t dims[3] = {ne0, ne1, ne2};
    uint64_t n = fx_type_bytes(t, ne0) * (ne1 ? ne1 : 1) * (ne2 ? ne2 : 1);
    fx_tensor_raw(g, name, ne2 ? 3 : ne1 ? 2 : 1, dims, type, g->data.size);
    size_t size = (size_t)n, pad = g->alignment - 1;
    size_t room = (size + pad) / g->alignment * g->alignment;
    return memset(fx_grow(&g->data, room), 0, room);
}

static inline uint8_t *fx_tensor(fx_gguf *g, const char *name,
                                 ksllm_type type, uint64_t ne0, uint64_t ne1)
{
    return fx_tensor_3(g, name, type, ne0, ne1, 0);
}

/* Puts the parts together; the writer is empty afterwards. */
static inline fx_file fx_end(fx_gguf *g)
{
    fx_bytes b = {0};
    fx_put(&b, "GGUF", 4);
    fx_int(&b, g->version, 4);
    fx_int(&b, g->n_tensors, 8);
    fx_int(&b, g->n_kv, 8);
    fx_put(&b, g->kv.data, g->kv.size);
    fx_put(&b, g->info.data, g->info.size);
    size_t header = b.size;
    if (g->n_tensors)
        while (b.size % g->alignment)
            fx_int(&b, 0, 1);
    fx_put(&b, g->data.data, g->data.size);
    fx_file f = {fx_memory(NULL, b.size), b.size, header};
    /* An exact block: a sanitizer sees the first byte read past it. */
    memcpy(f.data, b.data, b.size);
    free(b.data);
    free(g->kv.data);
    free(g->info.data);
    free(g->data.data);
    memset(g, 0, sizeof *g);
    return f;
}

/* Where the text `s` (with its length in front) stands in the file. */
static inline size_t fx_where(const fx_file *f, const char *s)
{
    fx_bytes b = {0};
    fx_text(&b, s);
    size_t at = fx_find_n(f->data, f->size, b.data, b.size);
    free(b.data);
    return at;
}

/* The same, and the position just behind it. */
static inline size_t fx_behind(const fx_file *f, const char *s)
{
    size_t at = fx_where(f, s);
    return at == SIZE_MAX ? at : at + 8 + strlen(s);
}

/* ---- Vocabularies ------------------------------------------------------- */

typedef enum fx_vocab_kind { FX_BPE, FX_SPM, FX_MINI, FX_JSON } fx_vocab_kind;

typedef struct fx_vocab {
    fx_bytes tokens, merges, scores, types;
    uint32_t n, n_merges;
} fx_vocab;

enum { FX_NORMAL = 1, FX_UNKNOWN = 2, FX_CONTROL = 3, FX_USER = 4,
       FX_BYTE = 6 };

static inline void fx_vocab_add_n(fx_vocab *v, const void *s, size_t n,
                                  int type)
{
    fx_text_n(&v->tokens, s, n);
    fx_f32(&v->scores, type == FX_NORMAL ? -(float)v->n : 0.0f);
    fx_int(&v->types, (uint64_t)type, 4);
    v->n++;
}

static inline void fx_vocab_add(fx_vocab *v, const char *s, int type)
{
    fx_vocab_add_n(v, s, strlen(s), type);
}

/* A byte as a character of GPT-2's byte alphabet, in UTF-8. */
static inline size_t fx_alphabet(uint8_t byte, char *out)
{
    uint32_t c = 0;
    for (uint32_t b = 0; b <= byte; b++) {
        bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) ||
                      b >= 174;
        if (b == byte)
            c = itself ? b : 256 + c;
        else
            c += !itself;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static inline size_t fx_alphabet_text(const char *s, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += fx_alphabet((uint8_t)s[i], out + k);
    return k;
}

/* The token s, made of its first `left` bytes and the rest. */
static inline void fx_merge(fx_vocab *v, const char *s, size_t left)
{
    char a[64] = "", m[130];
    size_t n = strlen(s), k = fx_alphabet_text(s, n, a);
    fx_vocab_add_n(v, a, k, FX_NORMAL);
    k = fx_alphabet_text(s, left, m);
    m[k++] = ' ';
    k += fx_alphabet_text(s + left, n - left, m + k);
    fx_text_n(&v->merges, m, k);
    v->n_merges++;
}

/* 8 syllables: three bytes each in UTF-8. */
static const char *const fx_syllables[8] = {
    "안", "녕", "하", "세", "요", "다", "는", "이"};

/* Token ids that the tests name. The bytes are the tokens 0 to 255. */
enum { FX_IM_START = 277, FX_IM_END = 278, FX_END = 279, FX_BPE_SIZE = 281 };

/* 256 bytes, 21 merges, 3 control tokens and a plain added one: 281, an odd
 * number of rows for the output matrix. */
static inline void fx_vocab_bpe(fx_vocab *v)
{
    char s[8];
    for (int i = 0; i < 256; i++)
        fx_vocab_add_n(v, s, fx_alphabet((uint8_t)i, s), FX_NORMAL);
    for (int i = 0; i < 8; i++) {
        memcpy(s, fx_syllables[i], 3);
        s[2] = 0;
        /* Some syllables begin with the same two bytes. */
        bool known = false;
        for (int k = 0; k < i; k++)
            known = known || memcmp(fx_syllables[k], s, 2) == 0;
        if (!known)
            fx_merge(v, s, 1);
        fx_merge(v, fx_syllables[i], 2);
    }
    fx_merge(v, "안녕", 3);
    fx_merge(v, "하세", 3);
    fx_merge(v, "하세요", 6);
    fx_merge(v, " t", 1);
    fx_merge(v, "he", 1);
    while (v->n < FX_IM_START) {
        s[0] = (char)('a' + (v->n - 256));
        s[1] = s[0];
        s[2] = 0;
        fx_merge(v, s, 1);
    }
    fx_vocab_add(v, "<|im_start|>", FX_CONTROL);
    fx_vocab_add(v, "<|im_end|>", FX_CONTROL);
    fx_vocab_add(v, "<|endoftext|>", FX_CONTROL);
    fx_vocab_add(v, "[added]", FX_USER);
}

/* SentencePiece as llama-2 has it: unknown, BOS, EOS, bytes, pieces. */
static inline void fx_vocab_spm(fx_vocab *v)
{
    char s[8];
    fx_vocab_add(v, "<unk>", FX_UNKNOWN);
    fx_vocab_add(v, "<s>", FX_CONTROL);
    fx_vocab_add(v, "</s>", FX_CONTROL);
    for (int i = 0; i < 256; i++) {
        snprintf(s, sizeof s, "<0x%02X>", (unsigned)i);
        fx_vocab_add(v, s, FX_BYTE);
    }
    fx_vocab_add(v, "안녕", FX_NORMAL);
    fx_vocab_add(v, "\xe2\x96\x81th", FX_NORMAL);
    fx_vocab_add(v, "he", FX_NORMAL);
    fx_vocab_add(v, "\xe2\x96\x81t", FX_NORMAL);
    fx_vocab_add(v, "\xe2\x96\x81", FX_NORMAL);
    for (int i = 0; i < 8; i++)
        fx_vocab_add(v, fx_syllables[i], FX_NORMAL);
    for (char c = 'a'; c <= 'z'; c++) {
        s[0] = c;
        s[1] = 0;
        fx_vocab_add(v, s, FX_NORMAL);
    }
}

/* As small as a vocabulary can be, for tests that walk over every bit. */
static inline void fx_vocab_mini(fx_vocab *v)
{
    fx_vocab_add(v, "<e>", FX_CONTROL);
    fx_vocab_add(v, "<s>", FX_CONTROL);
    for (const char *c = "abcd"; *c; c++)
        fx_vocab_add_n(v, c, 1, FX_NORMAL);
    fx_merge(v, "ab", 1);
    fx_merge(v, "abc", 2);
}

/* All bytes, tokens as models have them for JSON, and the marks of notations:
 * <think> is text, those of "solar" are control tokens. */
enum { FX_JSON_END = 256 };
static inline void fx_vocab_json(fx_vocab *v)
{
    static const struct { const char *text; size_t left; } merges[] = {
        {"{\"", 1}, {"\":", 1}, {"\",", 1}, {"\"}", 1}, {"\"]", 1}, {"[\"", 1},
        {"\":\"", 2}, {"\",\"", 2}, {", ", 1}, {": ", 1}, {"  ", 1},
        {"\n\n", 1}, {"\": ", 2}, {"\n  ", 1}, {"}}", 1}, {"[]", 1}, {"{}", 1},
        {"tr", 1}, {"ue", 1}, {"true", 2}, {"nu", 1}, {"ll", 1}, {"null", 2},
        {"12", 1}, {"00", 1}, {"go", 1}, {" t", 1}, {"he", 1}, {" the", 2},
        {"\xec\x95", 1}, {"\xec\x95\x88", 2}, {"\xeb\x85", 1},
        {"\xeb\x85\x95", 2}, {"\xec\x95\x88\xeb\x85\x95", 3}, {">\n", 1},
        {"</", 1}, {"\\n", 1}, {"\\\"", 1}, {"a\"", 1}, {">{", 1}};
    static const char *const marks[] = {
        "<|im_start|>", "<|end|>", "<|begin|>", "<|content|>", "<|think|>",
        "<|flush|>", "<|tool_calls|>", "<unused>"};
    char s[8];
    for (int i = 0; i < 256; i++)
        fx_vocab_add_n(v, s, fx_alphabet((uint8_t)i, s), FX_NORMAL);
    fx_vocab_add(v, "<|im_end|>", FX_CONTROL);
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        fx_merge(v, merges[i].text, merges[i].left);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        fx_vocab_add(v, marks[i], FX_CONTROL);
    fx_vocab_add(v, "<think>", FX_USER);
    fx_vocab_add(v, "</think>", FX_USER);
}

static inline fx_vocab fx_vocab_of(fx_vocab_kind kind)
{
    fx_vocab v = {0};
    if (kind == FX_BPE)
        fx_vocab_bpe(&v);
    else if (kind == FX_SPM)
        fx_vocab_spm(&v);
    else if (kind == FX_JSON)
        fx_vocab_json(&v);
    else
        fx_vocab_mini(&v);
    return v;
}

static inline void fx_vocab_free(fx_vocab *v)
{
    free(v->tokens.data);
    free(v->merges.data);
    free(v->scores.data);
    free(v->types.data);
}

/* The lists of a vocabulary, which is freed. */
static inline void fx_put_lists(fx_gguf *g, fx_vocab *v, bool spm)
{
    fx_kv_text(g, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    fx_kv_text(g, "tokenizer.ggml.pre", spm ? "default" : "gpt-2");
    fx_kv_array(g, "tokenizer.ggml.tokens", KSLLM_META_TEXT, v->n);
    fx_put(&g->kv, v->tokens.data, v->tokens.size);
    fx_kv_array(g, "tokenizer.ggml.token_type", KSLLM_META_I32, v->n);
    fx_put(&g->kv, v->types.data, v->types.size);
    if (spm) {
        fx_kv_array(g, "tokenizer.ggml.scores", KSLLM_META_F32, v->n);
        fx_put(&g->kv, v->scores.data, v->scores.size);
        fx_kv_u32(g, "tokenizer.ggml.unknown_token_id", 0);
    } else {
        fx_kv_array(g, "tokenizer.ggml.merges", KSLLM_META_TEXT, v->n_merges);
        fx_put(&g->kv, v->merges.data, v->merges.size);
    }
    fx_vocab_free(v);
}

static inline void fx_put_vocab(fx_gguf *g, fx_vocab_kind kind)
{
    fx_vocab v = fx_vocab_of(kind);
    fx_put_lists(g, &v, kind == FX_SPM);
    uint32_t bos = kind == FX_BPE ? FX_IM_START : 1;
    uint32_t eos = kind == FX_BPE ? FX_IM_END : kind == FX_SPM ? 2
        : kind == FX_JSON ? FX_JSON_END : 0;
    fx_kv_u32(g, "tokenizer.ggml.bos_token_id", bos);
    fx_kv_u32(g, "tokenizer.ggml.eos_token_id", eos);
    fx_kv_bool(g, "tokenizer.ggml.add_bos_token", kind == FX_SPM);
}

static inline uint32_t fx_vocab_size(fx_vocab_kind kind)
{
    fx_vocab v = fx_vocab_of(kind);
    fx_vocab_free(&v);
    return v.n;
}

/* ---- Models ------------------------------------------------------------- */

/* Every matrix another type. */
#define FX_MIXED ((ksllm_type)99)

typedef enum fx_rope { FX_ROPE_PLAIN, FX_ROPE_LINEAR, FX_ROPE_YARN,
                       FX_ROPE_FREQS } fx_rope;

struct fx_build;

typedef struct fx_spec {
    const char *name, *arch;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, window;
    ksllm_type type;
    bool tied;
    fx_rope rope;
    fx_vocab_kind vocab;
    /* For damaged files: */
    const char *skip;           /* leave this tensor out */
    const char *widen;          /* one block or item too wide */
    const char *skip_key;       /* leave this metadata key out */
    uint32_t version, alignment;    /* 0: 3 and 32 */
    /* For chosen weights: this matrix has this type and these bytes. */
    const char *put;
    ksllm_type put_type;
    const uint8_t *put_data;
    /* What comes after the tensors above: keys and tensors. */
    void (*more)(struct fx_build *b);
    bool fused;                 /* queries, keys, values in one tensor */
} fx_spec;

#define FX_SOUND NULL, NULL, NULL, 0, 0, NULL, KSLLM_TYPE_F32, NULL, \
    NULL, false

/* Head sizes are not n_embd / n_heads, row counts are odd where they can be,
 * and the last six of the first group have parts that files of the first
 * rarely have. The second group has one model per weight type. */
#define FX_ONE(t) {"type_" #t, "llama", 1, 256, 256, 2, 1, 128, 0, \
    KSLLM_TYPE_##t, true, FX_ROPE_PLAIN, FX_BPE, FX_SOUND}
#define FX(name, arch, l, e, f, h, k, d, w, type, tied, rope, vocab) \
    {name, arch, l, e, f, h, k, d, w, KSLLM_TYPE_##type, tied, \
     FX_ROPE_##rope, vocab, FX_SOUND}
static const fx_spec fx_specs[] = {
    FX("llama", "llama", 2, 64, 96, 4, 2, 32, 0, F32, false, PLAIN, FX_BPE),
    FX("qwen2", "qwen2", 3, 64, 96, 4, 1, 32, 0, F32, true, PLAIN, FX_BPE),
    FX("qwen3", "qwen3", 2, 64, 96, 6, 2, 48, 0, F32, true, PLAIN, FX_BPE),
    FX("gemma3", "gemma3", 7, 96, 160, 4, 1, 32, 24, F32, true, PLAIN,
       FX_SPM),
    FX("freqs", "llama", 2, 64, 96, 4, 2, 32, 0, F16, true, FREQS, FX_BPE),
    FX("linear", "llama", 2, 64, 96, 4, 2, 64, 0, BF16, true, LINEAR,
       FX_BPE),
    FX("yarn", "qwen3", 2, 64, 96, 4, 4, 32, 0, Q8_0, true, YARN, FX_BPE),
    FX("spm", "llama", 2, 64, 96, 4, 2, 32, 0, Q4_1, false, PLAIN, FX_SPM),
    FX("window", "gemma3", 7, 64, 96, 4, 2, 32, 24, Q5_0, true, LINEAR,
       FX_SPM),
    {"mixed", "llama", 3, 256, 96, 4, 2, 128, 0, FX_MIXED, false,
     FX_ROPE_PLAIN, FX_BPE, FX_SOUND},
    FX_ONE(F32), FX_ONE(F16), FX_ONE(BF16), FX_ONE(Q4_0), FX_ONE(Q4_1),
    FX_ONE(Q5_0), FX_ONE(Q5_1), FX_ONE(Q8_0), FX_ONE(Q2_K), FX_ONE(Q3_K),
    FX_ONE(Q4_K), FX_ONE(Q5_K), FX_ONE(Q6_K), FX_ONE(IQ4_NL),
    FX_ONE(IQ4_XS),
};
#define FX_SPECS (sizeof fx_specs / sizeof fx_specs[0])

/* The smallest model that a session can run. */
static const fx_spec fx_mini = {
    "mini", "llama", 1, 32, 32, 2, 1, 16, 0, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_MINI, FX_SOUND};

/* Small models of other graphs: convolutions, convolutions with experts, an
 * encoder with a reranker's head, layers with embeddings and shared caches and
 * experts beside their feed-forward. */
enum { FX_OTHERS = 4, FX_CONV = 3, FX_EXPERTS = 4, FX_PLACES = 72,
       FX_LAYER = 32 };
static const fx_spec fx_others[FX_OTHERS] = {
    FX("lfm2", "lfm2", 3, 32, 32, 2, 1, 16, 0, Q4_0, true, PLAIN, FX_BPE),
    FX("lfm2moe", "lfm2moe", 3, 32, 32, 2, 1, 16, 0, Q4_0, true, PLAIN,
       FX_BPE),
    FX("bert", "bert", 2, 32, 64, 2, 2, 16, 0, Q4_0, true, PLAIN, FX_MINI),
    FX("gemma4", "gemma4", 4, 32, 32, 2, 1, 64, 8, Q4_0, true, FREQS, FX_BPE),
};

static inline const fx_spec *fx_spec_of(const char *name)
{
    for (size_t i = 0; i < FX_SPECS; i++)
        if (strcmp(fx_specs[i].name, name) == 0)
            return &fx_specs[i];
    for (size_t i = 0; i < FX_OTHERS; i++)
        if (strcmp(fx_others[i].name, name) == 0)
            return &fx_others[i];
    fprintf(stderr, "no fixture is called %s\n", name);
    exit(2);
}

#define FX_MAX_PARTS 4
typedef struct fx_build {
    const fx_spec *spec;
    fx_gguf part[FX_MAX_PARTS];
    uint32_t n_parts, n_tensors;
    uint32_t mixed, mixed32;    /* the next types of a mixed model: for any
                                   matrix, for rows of no 256 items */
} fx_build;

/* Tensors are dealt to the parts in turn. A tensor's bytes come from its
 * name alone: a split model has the same weights as the whole. */
static inline uint8_t *fx_enter(fx_build *b, const char *name,
                                ksllm_type type, uint64_t ne0, uint64_t ne1,
                                uint64_t ne2, uint64_t *rng)
{
    *rng = fx_hash(FX_HASH, name, strlen(name));
    if (b->spec->skip && strcmp(b->spec->skip, name) == 0)
        return NULL;
    if (b->spec->widen && strcmp(b->spec->widen, name) == 0)
        ne0 += fx_type_of(type)->items;
    fx_gguf *g = &b->part[b->n_tensors++ % b->n_parts];
    return fx_tensor_3(g, name, type, ne0, ne1, ne2);
}

/* n matrices in one tensor; 0: a tensor of two lengths. */
static inline void fx_matrices(fx_build *b, const char *name, uint64_t n_in,
                               uint64_t n_out, uint64_t n)
{
    const fx_type *t = fx_type_of(b->spec->type);
    uint64_t rng;
    if (b->spec->type == FX_MIXED && n_in % 256 == 0)
        t = &fx_types[b->mixed++ % FX_MIXED_TYPES];
    else if (b->spec->type == FX_MIXED)
        t = &fx_types[b->mixed32++ % 7];
    bool put = b->spec->put && strcmp(b->spec->put, name) == 0;
    if (put)
        t = fx_type_of(b->spec->put_type);
    uint8_t *p = fx_enter(b, name, t->type, n_in, n_out, n, &rng);
    if (p && put)
        memcpy(p, b->spec->put_data, fx_type_bytes(t, n_in) * n_out);
    else if (p)
        fx_fill(p, t, n_in * n_out * (n ? n : 1), &rng);
}

static inline void fx_matrix(fx_build *b, const char *name,
                             uint64_t n_in, uint64_t n_out)
{
    fx_matrices(b, name, n_in, n_out, 0);
}

/* Values from `base` - 1/2 to `base` + 1/2. */
static inline void fx_values(uint8_t *p, uint64_t n, float base, uint64_t *rng)
{
    for (uint64_t i = 0; i < n; i++) {
        int32_t r = (int32_t)(fx_next(rng) >> 48) - 32768;
        float f = base + (float)r * 0x1p-16f;
        uint32_t u;
        memcpy(&u, &f, 4);
        fx_set(p + 4 * i, u, 4);
    }
}

/* n_out vectors, 0: one. */
static inline void fx_vectors(fx_build *b, const char *name, uint64_t n,
                              uint64_t n_out, float base)
{
    uint64_t rng;
    uint8_t *p = fx_enter(b, name, KSLLM_TYPE_F32, n, n_out, 0, &rng);
    if (p)
        fx_values(p, n * (n_out ? n_out : 1), base, &rng);
}

static inline void fx_vector(fx_build *b, const char *name, uint64_t n,
                             float base)
{
    fx_vectors(b, name, n, 0, base);
}

/* Queries, keys and values of a layer in one tensor, with the bytes that each
 * has in its own; n_in 0: their biases. */
static inline void fx_fused(fx_build *b, uint32_t layer, uint64_t n_in,
                            uint64_t q, uint64_t kv)
{
    const char *what = n_in ? "weight" : "bias";
    const fx_type *t = fx_type_of(n_in ? b->spec->type : KSLLM_TYPE_F32);
    uint64_t rng, n = q + 2 * kv;
    char name[64];
    snprintf(name, sizeof name, "blk.%u.attn_qkv.%s", (unsigned)layer, what);
    uint8_t *p = fx_enter(b, name, t->type, n_in ? n_in : n, n_in ? n : 0, 0,
                          &rng);
    for (int i = 0; i < 3; i++) {
        uint64_t items = (i ? kv : q) * (n_in ? n_in : 1);
        int size = snprintf(name, sizeof name, "blk.%u.attn_%c.%s",
                            (unsigned)layer, "qkv"[i], what);
        rng = fx_hash(FX_HASH, name, (size_t)size);
        if (n_in)
            fx_fill(p, t, items, &rng);
        else
            fx_values(p, items, 0, &rng);
        p += fx_type_bytes(t, items);
    }
}

static inline bool fx_convolves(const fx_spec *s, uint32_t layer)
{
    return strncmp(s->arch, "lfm2", 4) == 0 && layer % 2 == 0;
}

/* Gemma 4: every second layer sees a window, with shorter heads and more of
 * them for keys; the others have these for values. The last two see the keys of
 * the first two, and are wider. No published model has all of this. */
static inline bool fx_is_layered(const fx_spec *s)
{
    return strcmp(s->arch, "gemma4") == 0;
}

static inline uint32_t fx_head(const fx_spec *s, uint32_t layer)
{
    return fx_is_layered(s) && layer % 2 == 0 ? s->head_dim / 2 : s->head_dim;
}

static inline uint32_t fx_kv(const fx_spec *s, uint32_t layer)
{
    return fx_is_layered(s) && layer % 2 == 0 ? s->n_heads
        : fx_convolves(s, layer) ? 0 : s->n_kv_heads;
}

static inline uint32_t fx_ff(const fx_spec *s, uint32_t layer)
{
    return fx_is_layered(s) && layer > 1 ? 2 * s->n_ff : s->n_ff;
}

/* The first layer of a model with experts has none. */
static inline bool fx_has_experts(const fx_spec *s, uint32_t layer)
{
    return (strcmp(s->arch, "lfm2moe") == 0 || fx_is_layered(s)) && layer > 0;
}

static inline void fx_layer(fx_build *b, uint32_t layer)
{
    const fx_spec *s = b->spec;
    char name[64];
    uint32_t head = fx_head(s, layer), ff = fx_ff(s, layer);
    uint64_t e = s->n_embd, q = (uint64_t)s->n_heads * head;
    uint64_t kv = (uint64_t)fx_kv(s, layer) * head;
    bool layered = fx_is_layered(s), own = !layered || layer < 2;
    bool gemma = layered || strcmp(s->arch, "gemma3") == 0;
    bool bert = strcmp(s->arch, "bert") == 0;
#define FX_NAME(x) \
    (snprintf(name, sizeof name, "blk.%u." x, (unsigned)layer), name)
    if (!bert)
        fx_vector(b, FX_NAME("attn_norm.weight"), e, 1);
    if (fx_convolves(s, layer)) {
        fx_matrix(b, FX_NAME("shortconv.in_proj.weight"), e, 3 * e);
        fx_vectors(b, FX_NAME("shortconv.conv.weight"), FX_CONV, e, 0);
        fx_matrix(b, FX_NAME("shortconv.out_proj.weight"), e, e);
    } else {
        bool values = own && (!layered || layer % 2 == 0);
        bool fused = s->fused && values;
        if (fused)
            fx_fused(b, layer, e, q, kv);
        else
            fx_matrix(b, FX_NAME("attn_q.weight"), e, q);
        if (own && !fused)
            fx_matrix(b, FX_NAME("attn_k.weight"), e, kv);
        if (values && !fused)
            fx_matrix(b, FX_NAME("attn_v.weight"), e, kv);
        fx_matrix(b, FX_NAME("attn_output.weight"), q, e);
        bool biased = bert || strcmp(s->arch, "qwen2") == 0;
        if (biased && fused) {
            fx_fused(b, layer, 0, q, kv);
        } else if (biased) {
            fx_vector(b, FX_NAME("attn_q.bias"), q, 0);
            fx_vector(b, FX_NAME("attn_k.bias"), kv, 0);
            fx_vector(b, FX_NAME("attn_v.bias"), kv, 0);
        }
        if (gemma || strcmp(s->arch, "qwen3") == 0 ||
            strncmp(s->arch, "lfm2", 4) == 0) {
            fx_vector(b, FX_NAME("attn_q_norm.weight"), head, 1);
            if (own)
                fx_vector(b, FX_NAME("attn_k_norm.weight"), head, 1);
        }
    }
    if (gemma)
        fx_vector(b, FX_NAME("post_attention_norm.weight"), e, 1);
    if (!bert)
        fx_vector(b, FX_NAME("ffn_norm.weight"), e, 1);
    if (fx_has_experts(s, layer)) {
        fx_matrix(b, FX_NAME("ffn_gate_inp.weight"), e, FX_EXPERTS);
        if (layered) {
            fx_matrices(b, FX_NAME("ffn_gate_up_exps.weight"), e, 2 * s->n_ff,
                        FX_EXPERTS);
            fx_vector(b, FX_NAME("ffn_gate_inp.scale"), e, 1);
            fx_vector(b, FX_NAME("ffn_down_exps.scale"), FX_EXPERTS, 1);
            fx_vector(b, FX_NAME("post_ffw_norm_1.weight"), e, 1);
            fx_vector(b, FX_NAME("pre_ffw_norm_2.weight"), e, 1);
            fx_vector(b, FX_NAME("post_ffw_norm_2.weight"), e, 1);
        } else {
            fx_vector(b, FX_NAME("exp_probs_b.bias"), FX_EXPERTS, 0);
            fx_matrices(b, FX_NAME("ffn_gate_exps.weight"), e, s->n_ff,
                        FX_EXPERTS);
            fx_matrices(b, FX_NAME("ffn_up_exps.weight"), e, s->n_ff,
                        FX_EXPERTS);
        }
        fx_matrices(b, FX_NAME("ffn_down_exps.weight"), s->n_ff, e,
                    FX_EXPERTS);
    }
    if (layered || !fx_has_experts(s, layer)) {
        if (!bert)
            fx_matrix(b, FX_NAME("ffn_gate.weight"), e, ff);
        fx_matrix(b, FX_NAME("ffn_up.weight"), e, ff);
        fx_matrix(b, FX_NAME("ffn_down.weight"), ff, e);
    }
    if (layered) {
        fx_matrix(b, FX_NAME("inp_gate.weight"), e, FX_LAYER);
        fx_matrix(b, FX_NAME("proj.weight"), FX_LAYER, e);
        fx_vector(b, FX_NAME("post_norm.weight"), e, 1);
        fx_vector(b, FX_NAME("layer_output_scale.weight"), 1, 1);
    }
    if (gemma)
        fx_vector(b, FX_NAME("post_ffw_norm.weight"), e, 1);
    if (bert) {
        fx_vector(b, FX_NAME("attn_output.bias"), e, 0);
        fx_vector(b, FX_NAME("attn_output_norm.weight"), e, 1);
        fx_vector(b, FX_NAME("attn_output_norm.bias"), e, 0);
        fx_vector(b, FX_NAME("ffn_up.bias"), s->n_ff, 0);
        fx_vector(b, FX_NAME("ffn_down.bias"), e, 0);
        fx_vector(b, FX_NAME("layer_output_norm.weight"), e, 1);
        fx_vector(b, FX_NAME("layer_output_norm.bias"), e, 0);
    }
#undef FX_NAME
}

static inline void fx_rope_keys(fx_gguf *g, const fx_spec *s)
{
    char key[96];
#define FX_KEY(x) (snprintf(key, sizeof key, "%s." x, s->arch), key)
    if (s->rope == FX_ROPE_LINEAR || s->rope == FX_ROPE_YARN) {
        fx_kv_text(g, FX_KEY("rope.scaling.type"),
                   s->rope == FX_ROPE_YARN ? "yarn" : "linear");
        fx_kv_f32(g, FX_KEY("rope.scaling.factor"), 4);
    }
    if (s->rope == FX_ROPE_YARN)
        fx_kv_u32(g, FX_KEY("rope.scaling.original_context_length"), 32);
}

static inline void fx_model_keys(fx_gguf *g, const fx_spec *s)
{
    char key[96];
    bool conv = fx_convolves(s, 0), bert = strcmp(s->arch, "bert") == 0;
    bool experts = fx_has_experts(s, s->n_layers), layered = fx_is_layered(s);
    const struct { const char *key; uint32_t v; } u32[] = {
        {"block_count", s->n_layers},
        {"context_length", bert ? FX_PLACES : 4096},
        {"embedding_length", s->n_embd}, 
        {"feed_forward_length", layered ? 0 : s->n_ff},
        {"attention.head_count", s->n_heads},
        {"attention.head_count_kv", conv || layered ? 0 : s->n_kv_heads},
        {"attention.key_length", s->head_dim},
        {"attention.value_length", s->head_dim},
        {"rope.dimension_count", s->head_dim},
        {"attention.sliding_window", s->window},
        {"shortconv.l_cache", conv ? FX_CONV : 0},
        {"expert_count", experts ? FX_EXPERTS : 0},
        {"expert_used_count", experts ? 2 : 0},
        {"expert_feed_forward_length", experts ? s->n_ff : 0},
        {"leading_dense_block_count", experts},
        {"attention.sliding_window_pattern", layered ? 2 : 0},
        {"attention.key_length_swa", layered ? fx_head(s, 0) : 0},
        {"attention.value_length_swa", layered ? fx_head(s, 0) : 0},
        {"rope.dimension_count_swa", layered ? fx_head(s, 0) : 0},
        {"attention.shared_kv_layers", layered ? 2 : 0},
        {"embedding_length_per_layer_input", layered ? FX_LAYER : 0},
        {"pooling_type", bert ? 4 : 0}};
    fx_kv_text(g, "general.architecture", s->arch);
    fx_kv_text(g, "general.name", s->name);
    for (size_t i = 0; i < sizeof u32 / sizeof u32[0]; i++)
        if ((!s->skip_key || strcmp(s->skip_key, u32[i].key)) && u32[i].v)
            fx_kv_u32(g, (snprintf(key, sizeof key, "%s.%s", s->arch,
                                   u32[i].key), key), u32[i].v);
    if (!s->skip_key ||
        strcmp(s->skip_key, "attention.layer_norm_rms_epsilon"))
        fx_kv_f32(g, FX_KEY("attention.layer_norm_rms_epsilon"),
                  0x1p-17f);
    fx_kv_f32(g, FX_KEY("rope.freq_base"), 10000);
    if (conv || layered)
        fx_kv_array(g, FX_KEY("attention.head_count_kv"), KSLLM_META_I32,
                    s->n_layers);
    for (uint32_t i = 0; (conv || layered) && i < s->n_layers; i++)
        fx_int(&g->kv, fx_kv(s, i), 4);
    if (layered) {
        fx_kv_f32(g, FX_KEY("final_logit_softcapping"), 30);
        fx_kv_array(g, FX_KEY("feed_forward_length"), KSLLM_META_I32,
                    s->n_layers);
    }
    for (uint32_t i = 0; layered && i < s->n_layers; i++)
        fx_int(&g->kv, fx_ff(s, i), 4);
    fx_rope_keys(g, s);
    if (g->alignment != 32)
        fx_kv_u32(g, "general.alignment", g->alignment);
#undef FX_KEY
}

/* What an encoder has around its layers. */
static inline void fx_encoder(fx_build *b)
{
    uint64_t e = b->spec->n_embd;
    fx_matrix(b, "position_embd.weight", e, FX_PLACES);
    fx_matrix(b, "token_types.weight", e, 1);
    fx_vector(b, "token_embd_norm.weight", e, 1);
    fx_vector(b, "token_embd_norm.bias", e, 0);
    fx_matrix(b, "cls.weight", e, e);
    fx_vector(b, "cls.bias", e, 0);
    fx_matrix(b, "cls.output.weight", e, 1);
    fx_vector(b, "cls.output.bias", 1, 0);
}

/* What a model with embeddings of layers has before them. */
static inline void fx_embds(fx_build *b)
{
    uint64_t n = (uint64_t)FX_LAYER * b->spec->n_layers;
    fx_matrix(b, "per_layer_token_embd.weight", n,
              fx_vocab_size(b->spec->vocab));
    fx_matrix(b, "per_layer_model_proj.weight", b->spec->n_embd, n);
    fx_vector(b, "per_layer_proj_norm.weight", FX_LAYER, 1);
}

/* Writes a model in n_parts files; more than one carry the split.* keys. */
static inline void fx_model_split(const fx_spec *s, uint32_t n_parts,
                                  fx_file *out)
{
    fx_build b = {.spec = s, .n_parts = n_parts};
    for (uint32_t i = 0; i < n_parts; i++) {
        fx_begin(&b.part[i]);
        if (s->version)
            b.part[i].version = s->version;
        if (s->alignment)
            b.part[i].alignment = s->alignment;
    }
    fx_model_keys(&b.part[0], s);
    fx_put_vocab(&b.part[0], s->vocab);
    uint32_t n_vocab = fx_vocab_size(s->vocab);
    fx_matrix(&b, "token_embd.weight", s->n_embd, n_vocab);
    if (fx_is_layered(s))
        fx_embds(&b);
    for (uint32_t i = 0; i < s->n_layers; i++)
        fx_layer(&b, i);
    if (strcmp(s->arch, "bert") == 0)
        fx_encoder(&b);
    else
        fx_vector(&b, "output_norm.weight", s->n_embd, 1);
    if (!s->tied)
        fx_matrix(&b, "output.weight", s->n_embd, n_vocab);
    if (s->rope == FX_ROPE_FREQS)
        fx_vector(&b, "rope_freqs.weight", s->head_dim / 2, 3);
    if (s->more)
        s->more(&b);
    for (uint32_t i = 0; i < n_parts; i++) {
        fx_gguf *g = &b.part[i];
        if (n_parts > 1) {
            fx_kv_int(g, "split.no", KSLLM_META_U16, i);
            fx_kv_int(g, "split.count", KSLLM_META_U16, n_parts);
            fx_kv_int(g, "split.tensors.count", KSLLM_META_I32, b.n_tensors);
        }
        out[i] = fx_end(g);
    }
}

/* Tokens that no draw gives. */
static inline void fx_suppress(struct fx_build *b, const int32_t *ids, size_t n)
{
    fx_kv_array(&b->part[0], "tokenizer.ggml.suppress_tokens", KSLLM_META_I32,
                n);
    for (size_t i = 0; i < n; i++)
        fx_int(&b->part[0].kv, (uint32_t)ids[i], 4);
}

/* Two of those that every vocabulary has, and two that none has. */
static inline void fx_suppress_some(struct fx_build *b)
{
    static const int32_t ids[] = {5, -1, 3, 1 << 30, 5};
    fx_suppress(b, ids, 5);
}

static inline fx_file fx_model(const fx_spec *s)
{
    fx_file f;
    fx_model_split(s, 1, &f);
    return f;
}

/* What comes after a model, in a file of its own: towers. `of` NULL: it does
 * not say which model's. */
static inline fx_file fx_second(const fx_spec *s, const char *of)
{
    fx_build b = {.spec = s, .n_parts = 1};
    fx_begin(&b.part[0]);
    fx_kv_text(&b.part[0], "general.architecture", "clip");
    if (of)
        fx_kv_text(&b.part[0], "clip.text_architecture", of);
    s->more(&b);
    return fx_end(&b.part[0]);
}

/* A prompt: n token ids from the first 256 tokens of a vocabulary. */
static inline void fx_prompt(int32_t *tokens, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)fx_below(&seed, 256);
}

/* ---- Allocator ---------------------------------------------------------- */

/* Counts calls and live bytes, and checks what the library says about a
 * block. Call number `fail_at` (from 1) returns NULL, once; so does every
 * block larger than `limit`. Use one per thread. */
typedef struct fx_alloc {
    ksllm_allocator allocator;
    size_t live, n_live, peak, largest, limit;
    long calls, fail_at;
    bool wrong_size, failed;
} fx_alloc;

static inline void *fx_resize(void *ctx, void *ptr, size_t old_size,
                              size_t new_size)
{
    enum { HEAD = 32 };         /* keeps malloc's alignment */
    fx_alloc *a = ctx;
    uint8_t *block = ptr ? (uint8_t *)ptr - HEAD : NULL;
    size_t known = 0;
    if (block)
        memcpy(&known, block, sizeof known);
    if (known != old_size)
        a->wrong_size = true;
    a->calls++;
    if (new_size > a->largest)
        a->largest = new_size;
    if (new_size && (a->calls == a->fail_at || new_size > a->limit)) {
        a->failed = true;
        return NULL;
    }
    a->live = a->live - known + new_size;
    a->n_live += (new_size != 0) - (size_t)(known != 0);
    if (a->live > a->peak)
        a->peak = a->live;
    if (!new_size) {
        if (block)
            memset(block, 0xdd, HEAD + known);
        free(block);
        return NULL;
    }
    uint8_t *fresh = fx_memory(NULL, HEAD + new_size);
    /* What the library does not set must not look like zero. */
    memset(fresh, 0xcb, HEAD + new_size);
    memcpy(fresh, &new_size, sizeof new_size);
    if (block) {
        size_t keep = known < new_size ? known : new_size;
        memcpy(fresh + HEAD, block + HEAD, keep);
        free(block);
    }
    return fresh + HEAD;
}

static inline void fx_alloc_init(fx_alloc *a)
{
    memset(a, 0, sizeof *a);
    a->allocator.resize = fx_resize;
    a->allocator.ctx = a;
    a->limit = (size_t)1 << 28;
}

/* ---- opened --------------------------------------------------------------
 * What every test of a running model begins with. Ends the program where that
 * fails: nothing after it could work. */

static inline void fx_must(ksllm_status status, const ksllm_error *e)
{
    if (status == KSLLM_OK)
        return;
    fprintf(stderr, "fixture: %s\n", e->text);
    exit(1);
}

/* The file has to be freed (f->data) after the model is closed. */
static inline ksllm_model *fx_open(const char *name, fx_file *f)
{
    ksllm_model *m = NULL;
    ksllm_error e;
    *f = fx_model(fx_spec_of(name));
    fx_must(ksllm_model_open_memory(f->data, f->size, NULL, &m, &e), &e);
    return m;
}

/* The same of a vocabulary alone, with chat templates: one without a name
 * unless NULL, and one named "short". */
static inline ksllm_model *fx_open_vocab(const char *chat_template,
                                         fx_vocab_kind kind, fx_file *f)
{
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    fx_gguf g;
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_put_vocab(&g, kind);
    if (chat_template)
        fx_kv_text(&g, "tokenizer.chat_template", chat_template);
    fx_kv_text(&g, "tokenizer.chat_template.short", "{{ bos_token }}");
    *f = fx_end(&g);
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    fx_must(ksllm_model_open_memory(f->data, f->size, &o, &m, &e), &e);
    return m;
}

static inline void fx_close(ksllm_model *m, fx_file *f)
{
    ksllm_model_close(m);
    free(f->data);
    f->data = NULL;
}

static inline ksllm_session_options fx_small_options(void)
{
    ksllm_session_options o;
    ksllm_session_options_init(&o);
    o.n_ctx = 64;
    o.n_batch = 16;
    o.n_threads = 1;
    return o;
}

static inline ksllm_session *fx_create(const ksllm_model *m,
                                       const ksllm_session_options *o)
{
    ksllm_session *s = NULL;
    ksllm_error e;
    fx_must(ksllm_session_create(m, o, &s, &e), &e);
    return s;
}

/* A short conversation, and a callback that drops the parts of its answer. */
static inline void fx_chat(ksllm_chat *chat)
{
    ksllm_chat_init(chat);
    chat->messages.data = "[{\"role\": \"user\", \"content\": \"a b\"}]";
    chat->template_text.data =
        "{% for m in messages %}<{{ m.role }}>"
        "{{ m.content | upper | tojson }}{% endfor %}";
}

static inline int fx_drop_part(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx, (void)part, (void)text;
    return 0;
}

static inline size_t fx_n_vocab(const ksllm_model *m)
{
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(m, &info, NULL);
    return info.n_vocab;
}

/* 0 when there are none. */
static inline uint64_t fx_logits_hash(const ksllm_model *m,
                                      const ksllm_session *s)
{
    const float *l = ksllm_session_logits(s);
    return l ? fx_hash_floats(FX_HASH, l, fx_n_vocab(m)) : 0;
}

#endif
