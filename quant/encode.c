/* encode.c, part of ksllm-quant.c - floats to blocks. Fitting (encode_fit.h)
 * gives a block in the unpacked form of ksllm.c; packing here writes its
 * bytes. What ksllm.c's blk_read makes of them is the fitted block again:
 * tests hold that. */


/* Vectors are passed between always-inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

typedef f32 v8 __attribute__((vector_size(32)));
typedef i32 v8i __attribute__((vector_size(32)));
typedef i8 v8c __attribute__((vector_size(8)));
typedef f32 v8u __attribute__((vector_size(32), aligned(4), may_alias));

/* What a type's numbers can be, for n weights under one scale. */
typedef struct {
    int n;
    f32 lo, hi; /* levels; unused with book */
    bool book;  /* levels are BLK_IQ4 */
    bool has_min, m_positive;
    i32 sc_lo, sc_hi, mn_hi; /* integer scales and minima */
    int n_try;
    const f32 *tries; /* places to put the peak, or number of steps */
} enc_levels;

/* Where the search puts a block's largest weight, in levels. Wider steps than
 * these cost quality, narrower ones only time (quant/README.md). */
static const f32 ENC_TRY_Q4_0[] = {-8, -7.5f, -7, -8.5f, 7, 7.5f, 8};
static const f32 ENC_TRY_Q5_0[] = {-16, -15.5f, -15, -16.5f, -17, -17.5f,
    -18, 15, 15.5f, 16, 16.5f, 17};
static const f32 ENC_TRY_Q8_0[] = {127, 126.5f, 126, 125.5f, 125, 124.4f,
    123.8f, 123.2f, 122.6f, 122, 121.2f, 120.4f, 119.6f, 118.8f, 118, 127.4f,
    127.8f};
static const f32 ENC_TRY_Q3_K[] = {-4, -3.75f, -3.5f, -3.25f, -3, -4.25f,
    -4.5f, -4.75f, -5, 3, 3.25f, 3.5f, 3.75f, 4, 4.5f};
static const f32 ENC_TRY_Q6_K[] = {-32, -31.6f, -31.2f, -30.8f, -32.4f,
    -32.8f, -33.2f, -34, -30.4f, 31, 31.5f, 32};
static const f32 ENC_TRY_IQ4[] = {-127, -122, -117, -112, -107, -132, -137,
    -142, -147, -155, -165, 113, 108, 103, 118, 123, 128, 135};
static const f32 ENC_TRY_3[] = {3, 2.75f, 2.5f, 2.25f, 2, 3.25f, 3.5f, 3.75f,
    4, 1.75f};
static const f32 ENC_TRY_15[] = {15, 14.5f, 14, 13.5f, 15.4f, 15.8f, 16.2f,
    16.6f, 17, 17.5f, 18, 19};
static const f32 ENC_TRY_31[] = {31, 30.4f, 29.8f, 31.5f, 32, 32.5f, 33, 33.5f,
    34, 35};

enum { ENC_MAX_TRIES = 20 };

#define TRIES(a) .n_try = KS_LEN(a), .tries = (a)
#define ENC_Q4_0 \
    ((enc_levels){.n = 32, .lo = -8, .hi = 7, TRIES(ENC_TRY_Q4_0)})
#define ENC_Q5_0 \
    ((enc_levels){.n = 32, .lo = -16, .hi = 15, TRIES(ENC_TRY_Q5_0)})
#define ENC_Q8_0 \
    ((enc_levels){.n = 32, .lo = -127, .hi = 127, TRIES(ENC_TRY_Q8_0)})
#define ENC_Q4_1 \
    ((enc_levels){.n = 32, .hi = 15, .has_min = true, TRIES(ENC_TRY_15)})
#define ENC_Q5_1 \
    ((enc_levels){.n = 32, .hi = 31, .has_min = true, TRIES(ENC_TRY_31)})
#define ENC_IQ4_NL ((enc_levels){.n = 32, .book = true, TRIES(ENC_TRY_IQ4)})
#define ENC_Q2_K \
    ((enc_levels){.n = 16, .hi = 3, .has_min = true, .m_positive = true, \
        .sc_hi = 15, .mn_hi = 15, TRIES(ENC_TRY_3)})
#define ENC_Q3_K \
    ((enc_levels){.n = 16, .lo = -4, .hi = 3, .sc_lo = -32, .sc_hi = 31, \
        TRIES(ENC_TRY_Q3_K)})
#define ENC_Q4_K \
    ((enc_levels){.n = 32, .hi = 15, .has_min = true, .m_positive = true, \
        .sc_hi = 63, .mn_hi = 63, TRIES(ENC_TRY_15)})
#define ENC_Q5_K \
    ((enc_levels){.n = 32, .hi = 31, .has_min = true, .m_positive = true, \
        .sc_hi = 63, .mn_hi = 63, TRIES(ENC_TRY_31)})
#define ENC_Q6_K \
    ((enc_levels){.n = 16, .lo = -32, .hi = 31, .sc_lo = -128, .sc_hi = 127, \
        TRIES(ENC_TRY_Q6_K)})
#define ENC_IQ4_XS \
    ((enc_levels){.n = 32, .book = true, .sc_lo = -32, .sc_hi = 31, \
        TRIES(ENC_TRY_IQ4)})

static enc_levels enc_levels_of(ksllm_type t) {
    switch (t) {
    case KSLLM_TYPE_Q4_0: return ENC_Q4_0;
    case KSLLM_TYPE_Q4_1: return ENC_Q4_1;
    case KSLLM_TYPE_Q5_0: return ENC_Q5_0;
    case KSLLM_TYPE_Q5_1: return ENC_Q5_1;
    case KSLLM_TYPE_Q8_0: return ENC_Q8_0;
    case KSLLM_TYPE_Q2_K: return ENC_Q2_K;
    case KSLLM_TYPE_Q3_K: return ENC_Q3_K;
    case KSLLM_TYPE_Q4_K: return ENC_Q4_K;
    case KSLLM_TYPE_Q5_K: return ENC_Q5_K;
    case KSLLM_TYPE_Q6_K: return ENC_Q6_K;
    case KSLLM_TYPE_IQ4_NL: return ENC_IQ4_NL;
    case KSLLM_TYPE_IQ4_XS: return ENC_IQ4_XS;
    default: return (enc_levels){0};
    }
}

#define ENC(name) enc_##name##_base
#include "encode_fit.h"
#undef ENC

/* By the compiler's word, not by KS_X86: KSLLM_NO_SIMD is about the library's
 * kernels. */
#if defined __x86_64__ || defined __i386__
#define ENC_X86 1
#include <immintrin.h>
KS_TARGET_BEGIN("avx2,f16c")
#define ENC(name) enc_##name##_avx2
#define ENC_AVX2 1
#include "encode_fit.h"
#undef ENC_AVX2
#undef ENC
KS_TARGET_END
#endif

#if defined ENC_X86
/* No CPU has AVX2 without F16C. */
static bool enc_has_avx2(void) { return SYS_HAS_AVX2; }
#endif

static void enc_fit(ksllm_type type, const f32 *x, const f32 *w, blk *b) {
#if defined ENC_X86
    if (enc_has_avx2()) {
        enc_fit_avx2(type, x, w, b);
        return;
    }
#endif
    enc_fit_base(type, x, w, b);
}

/* n values of a float type or of whole blocks. */
static void enc_floats(ksllm_type type, const u8 *p, u64 n, f32 *out) {
    if (type != KSLLM_TYPE_F16) {
        blk_row(type, p, n, out);
        return;
    }
#if defined ENC_X86
    if (enc_has_avx2()) {
        enc_from_f16_avx2(p, n, out);
        return;
    }
#endif
    enc_from_f16_base(p, n, out);
}

static void enc_weights(
    const f32 *x, const f32 *imp, size_t n, f32 *w) {
#if defined ENC_X86
    if (enc_has_avx2()) {
        enc_weights_avx2(x, imp, n, w);
        return;
    }
#endif
    enc_weights_base(x, imp, n, w);
}

static void enc_gemm(f32 *c, size_t c_row, const f32 *a, size_t a_row,
    size_t a_col, const f32 *y, size_t y_row, size_t n_k, size_t m,
    size_t n) {
#if defined ENC_X86
    if (enc_has_avx2()) {
        enc_gemm_avx2(c, c_row, a, a_row, a_col, y, y_row, n_k, m, n);
        return;
    }
#endif
    enc_gemm_base(c, c_row, a, a_row, a_col, y, y_row, n_k, m, n);
}

/* ---- packing: the inverse of blk_read ---- */

static void enc_u16(u8 *to, u16 v) { memcpy(to, &v, 2); }
static void enc_f16(u8 *to, f32 f) { enc_u16(to, f16_of_f32(f)); }

static u8 enc_code(i8 q, int bias, bool book) {
    if (!book) return (u8)(q + bias);
    u8 k = 0;
    while (k < 15 && BLK_IQ4[k] < q) k++;
    return k;
}

/* 32 weights to 16 bytes of nibbles. */
static void enc_nibbles(u8 *to, const i8 *q, int bias, bool book) {
    for (int l = 0; l < 16; l++)
        to[l] = (u8)((enc_code(q[l], bias, book) & 15)
            | (enc_code(q[16 + l], bias, book) & 15) << 4);
}

static void enc_fifth_bits(u8 *to, const i8 *q, int bias) {
    u32 h = 0;
    for (int l = 0; l < 32; l++) h |= (u32)((q[l] + bias) >> 4 & 1) << l;
    memcpy(to, &h, 4);
}

/* 64 weights at a time: lo nibbles of 32 bytes, then hi nibbles. */
static void enc_nibbles_k(u8 *to, const i8 *q) {
    for (int n = 0; n < 4; n++)
        for (int l = 0; l < 32; l++)
            to[32 * n + l] = (u8)((q[64 * n + l] & 15)
                | (q[64 * n + 32 + l] & 15) << 4);
}

static void enc_crumbs(u8 *to, const i8 *q, int bias) {
    memset(to, 0, 64);
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++)
                to[32 * h + l] |= (u8)(
                    ((q[128 * h + 32 * j + l] + bias) & 3) << 2 * j);
}

static void enc_scales_6bit(u8 *s, const blk *b) {
    for (int g = 0; g < 4; g++) {
        int s0 = b->scale[2 * g], m0 = b->min[2 * g];
        int s1 = b->scale[2 * g + 8], m1 = b->min[2 * g + 8];
        s[g] = (u8)(s0 | s1 >> 4 << 6);
        s[4 + g] = (u8)(m0 | m1 >> 4 << 6);
        s[8 + g] = (u8)((s1 & 15) | (m1 & 15) << 4);
    }
}

static void enc_pack_q3_k(const blk *b, blk_q3_k *o) {
    memset(o->hmask, 0, sizeof o->hmask);
    memset(o->scales, 0, sizeof o->scales);
    enc_crumbs(o->qs, b->q, 4);
    for (int i = 0; i < 256; i++)
        o->hmask[i % 32] |= (u8)(((b->q[i] + 4) >> 2 & 1) << i / 32);
    for (int g = 0; g < 16; g++) {
        int sc = b->scale[g] + 32;
        o->scales[g % 8] |= (u8)((sc & 15) << (g < 8 ? 0 : 4));
        o->scales[8 + g % 4] |= (u8)(sc >> 4 << 2 * (g / 4));
    }
    o->d = f16_of_f32(b->d);
}

static void enc_pack_q6_k(const blk *b, blk_q6_k *o) {
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const i8 *q = b->q + 128 * h + l;
            int c[4] = {q[0] + 32, q[32] + 32, q[64] + 32, q[96] + 32};
            o->ql[64 * h + l] = (u8)((c[0] & 15) | (c[2] & 15) << 4);
            o->ql[64 * h + 32 + l] = (u8)((c[1] & 15) | (c[3] & 15) << 4);
            o->qh[32 * h + l] = (u8)(c[0] >> 4 | c[1] >> 4 << 2
                | c[2] >> 4 << 4 | c[3] >> 4 << 6);
        }
    for (int g = 0; g < 16; g++)
        o->scales[g] = (i8)b->scale[g];
    o->d = f16_of_f32(b->d);
}

static void enc_pack_iq4_xs(const blk *b, blk_iq4_xs *o) {
    o->d = f16_of_f32(b->d);
    o->scales_h = 0;
    memset(o->scales_l, 0, 4);
    for (int g = 0; g < 8; g++) {
        int sc = b->scale[2 * g] + 32;
        o->scales_l[g / 2] |= (u8)((sc & 15) << 4 * (g & 1));
        o->scales_h = (u16)(o->scales_h | sc >> 4 << 2 * g);
        enc_nibbles(o->qs + 16 * g, b->q + 32 * g, 0, true);
    }
}

static void enc_pack(ksllm_type type, const blk *b, u8 *to) {
#define AT(T, f) (to + offsetof(T, f))
    switch ((int)type) {
    case KSLLM_TYPE_Q4_0:
        enc_f16(to, b->d);
        enc_nibbles(AT(blk_q4_0, qs), b->q, 8, false);
        return;
    case KSLLM_TYPE_Q4_1:
        enc_f16(to, b->d);
        enc_f16(AT(blk_q4_1, m), -b->dmin);
        enc_nibbles(AT(blk_q4_1, qs), b->q, 0, false);
        return;
    case KSLLM_TYPE_Q5_0:
        enc_f16(to, b->d);
        enc_fifth_bits(AT(blk_q5_0, qh), b->q, 16);
        enc_nibbles(AT(blk_q5_0, qs), b->q, 16, false);
        return;
    case KSLLM_TYPE_Q5_1:
        enc_f16(to, b->d);
        enc_f16(AT(blk_q5_1, m), -b->dmin);
        enc_fifth_bits(AT(blk_q5_1, qh), b->q, 0);
        enc_nibbles(AT(blk_q5_1, qs), b->q, 0, false);
        return;
    case KSLLM_TYPE_Q8_0:
        enc_f16(to, b->d);
        memcpy(AT(blk_q8_0, qs), b->q, 32);
        return;
    case KSLLM_TYPE_IQ4_NL:
        enc_f16(to, b->d);
        enc_nibbles(AT(blk_iq4_nl, qs), b->q, 0, true);
        return;
    case KSLLM_TYPE_Q2_K:
        for (int g = 0; g < 16; g++)
            to[g] = (u8)(b->scale[g] | b->min[g] << 4);
        enc_crumbs(AT(blk_q2_k, qs), b->q, 0);
        enc_f16(AT(blk_q2_k, d), b->d);
        enc_f16(AT(blk_q2_k, dmin), b->dmin);
        return;
    case KSLLM_TYPE_Q4_K:
        enc_f16(to, b->d);
        enc_f16(AT(blk_q4_k, dmin), b->dmin);
        enc_scales_6bit(AT(blk_q4_k, scales), b);
        enc_nibbles_k(AT(blk_q4_k, qs), b->q);
        return;
    case KSLLM_TYPE_Q5_K:
        enc_f16(to, b->d);
        enc_f16(AT(blk_q5_k, dmin), b->dmin);
        enc_scales_6bit(AT(blk_q5_k, scales), b);
        memset(AT(blk_q5_k, qh), 0, 32);
        for (int i = 0; i < 256; i++)
            AT(blk_q5_k, qh)[i % 32] |= (u8)((b->q[i] >> 4 & 1) << i / 32);
        enc_nibbles_k(AT(blk_q5_k, qs), b->q);
        return;
    case KSLLM_TYPE_Q3_K: {
        blk_q3_k o;
        enc_pack_q3_k(b, &o);
        memcpy(to, &o, sizeof o);
        return;
    }
    case KSLLM_TYPE_Q6_K: {
        blk_q6_k o;
        enc_pack_q6_k(b, &o);
        memcpy(to, &o, sizeof o);
        return;
    }
    case KSLLM_TYPE_IQ4_XS: {
        blk_iq4_xs o;
        enc_pack_iq4_xs(b, &o);
        memcpy(to, &o, sizeof o);
        return;
    }
    case KSLLM_TYPE_F32: case KSLLM_TYPE_F16: case KSLLM_TYPE_BF16: return;
    }
#undef AT
}

/* ---- rows ---- */

static u16 bf16_of_f32(f32 f) { /* to nearest even; NaN stays NaN */
    u32 u = bits_of_f32(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (u16)(u >> 16 | 64);
    return (u16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* One row of n floats (a multiple of the type's block) to `to`. imp: n
 * importances of columns, or NULL. Finite input only. */
static void enc_row(
    ksllm_type type, const f32 *x, size_t n, const f32 *imp, u8 *to) {
    const blk_type *t = &BLK_TYPES[type];
    _Alignas(32) f32 bx[256], w[256];
    blk b;
    if (type == KSLLM_TYPE_F32) memcpy(to, x, n * 4);
    else if (type == KSLLM_TYPE_F16)
        for (size_t i = 0; i < n; i++) enc_f16(to + 2 * i, x[i]);
    else if (type == KSLLM_TYPE_BF16)
        for (size_t i = 0; i < n; i++) enc_u16(to + 2 * i, bf16_of_f32(x[i]));
    else
        for (size_t i = 0; i < n; i += t->n, to += t->bytes) {
            memcpy(bx, x + i, t->n * sizeof *bx);
            enc_weights(bx, imp ? imp + i : NULL, t->n, w);
            enc_fit(type, bx, w, &b);
            enc_pack(type, &b, to);
        }
}
