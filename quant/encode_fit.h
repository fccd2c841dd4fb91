/* encode_fit.h, part of ksllm-quant.c - the scale search; included by encode.c
 * once per instruction set, with ENC(name) giving the suffix. No guard: that
 * is the point.
 *
 * A block is fitted in its unpacked form (struct blk of ksllm.c): integers q,
 * integer sub-scales, and the two float scales rounded to half precision. All
 * sums have one shape (8 lanes, fixed tree) and nothing is contracted, so
 * every instruction set gives the same file.
 *
 * What is minimised: sum of w (x - value)^2 over a block, for weights w >= 0
 * that say how much a column matters. */

#if defined ENC_AVX2
KS_INLINE v8 ENC(min)(v8 a, v8 b) { return (v8)_mm256_min_ps(a, b); }
KS_INLINE v8 ENC(max)(v8 a, v8 b) { return (v8)_mm256_max_ps(a, b); }
#else
KS_INLINE v8 ENC(min)(v8 a, v8 b) {
    v8i m = a < b;
    return (v8)(((v8i)a & m) | ((v8i)b & ~m));
}
KS_INLINE v8 ENC(max)(v8 a, v8 b) {
    v8i m = a > b;
    return (v8)(((v8i)a & m) | ((v8i)b & ~m));
}
#endif

KS_INLINE v8 ENC(all)(f32 f) { return (v8){f, f, f, f, f, f, f, f}; }

/* To the nearest whole number, ties to even. Adding 1.5 * 2^23 rounds, for
 * numbers below 2^22. */
KS_INLINE v8 ENC(round)(v8 a) {
#if defined ENC_AVX2
    return (v8)_mm256_round_ps((__m256)a, 8);
#else
    const v8 magic = ENC(all)(12582912.0f);
    return (a + magic) - magic;
#endif
}

KS_INLINE v8 ENC(root)(v8 a) {
#if defined ENC_AVX2
    return (v8)_mm256_sqrt_ps(a);
#else
    for (int i = 0; i < 8; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
#endif
}

KS_INLINE f32 ENC(sum)(v8 a) {
#if defined ENC_AVX2
    __m128 h = _mm_add_ps(_mm256_castps256_ps128((__m256)a),
        _mm256_extractf128_ps((__m256)a, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps(h, h, 1)));
#else
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
#endif
}

/* The level nearest to y, as a float. */
KS_INLINE v8 ENC(nearest)(v8 y, enc_levels l) {
    if (!l.book)
        return ENC(round)(
            ENC(min)(ENC(max)(y, ENC(all)(l.lo)), ENC(all)(l.hi)));
    v8 v = ENC(all)((f32)BLK_IQ4[0]);
    for (int k = 0; k < 15; k++) {
        v8 edge = ENC(all)(0.5f * (f32)(BLK_IQ4[k] + BLK_IQ4[k + 1]));
        v8 step = ENC(all)((f32)(BLK_IQ4[k + 1] - BLK_IQ4[k]));
        v += (v8)((v8i)(y > edge) & (v8i)step);
    }
    return v;
}

/* ---- without minimum: value = d q ---- */

/* Sums for the levels that 1/scale = inv gives. */
KS_INLINE void ENC(sym_sums)(const v8 *x, const v8 *w, enc_levels l, f32 inv,
    f32 *xq, f32 *qq) {
    v8 a = {0}, b = {0}, s = ENC(all)(inv);
#pragma GCC unroll 4
    for (int i = 0; i < l.n / 8; i++) {
        v8 q = ENC(nearest)(x[i] * s, l), wq = w[i] * q;
        a += wq * x[i];
        b += wq * q;
    }
    *xq = ENC(sum)(a);
    *qq = ENC(sum)(b);
}

/* Of the 8 lanes. */
KS_INLINE f32 ENC(largest)(v8 a) {
#if defined ENC_AVX2
    __m128 h = _mm_max_ps(_mm256_castps256_ps128((__m256)a),
        _mm256_extractf128_ps((__m256)a, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_shuffle_ps(h, h, 1)));
#else
    f32 top = a[0];
    for (int i = 1; i < 8; i++) top = a[i] > top ? a[i] : top;
    return top;
#endif
}

/* Rounded to half precision, and within it: an infinite scale makes a block
 * of NaN. */
KS_INLINE f32 ENC(half)(f32 f) {
    f = f > 65504 ? 65504 : f < -65504 ? -65504 : f;
#if defined ENC_AVX2
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(f), 0)));
#else
    return f32_of_f16(f16_of_f32(f));
#endif
}

/* The value of largest magnitude. */
KS_INLINE f32 ENC(peak)(const v8 *x, int nv) {
    v8 hi = x[0], lo = x[0];
    for (int i = 1; i < nv; i++) {
        hi = ENC(max)(hi, x[i]);
        lo = ENC(min)(lo, x[i]);
    }
    f32 h = ENC(largest)(hi), m = ENC(largest)(-lo);
    return h > m ? h : -m;
}

/* The best float scale. For a choice of levels the best scale is xq / qq and
 * leaves an error of xx - xq^2 / qq: so the largest xq^2 / qq wins. Tried are
 * scales that put the peak at the lowest level and around it, and at the
 * highest one; then two rounds of choosing levels by the scale found. */
KS_INLINE f32 ENC(sym_search)(const v8 *x, const v8 *w, enc_levels l) {
    f32 peak = ENC(peak)(x, l.n / 8), xq, qq, xs[ENC_MAX_TRIES],
        qs[ENC_MAX_TRIES];
    if (!(peak > 1e-30f || peak < -1e-30f)) return 0;
    f32 one = 1 / peak;
    /* All before the first is judged: a branch on each costs as much as the
     * sums, for nothing foretells it. */
    for (int i = 0; i < l.n_try; i++)
        ENC(sym_sums)(x, w, l, l.tries[i] * one, &xs[i], &qs[i]);
    f32 bx = xs[0], bq = qs[0];
    for (int i = 1; i < l.n_try; i++) {
        /* xq^2 / qq > bx^2 / bq, without dividing */
        bool better = xs[i] * xs[i] * bq > bx * bx * qs[i];
        bx = better ? xs[i] : bx;
        bq = better ? qs[i] : bq;
    }
    for (int i = 0; i < 2 && bq > 0; i++) {
        f32 inv = bq / bx;
        if (!(inv < 1e30f && inv > -1e30f)) break;
        ENC(sym_sums)(x, w, l, inv, &xq, &qq);
        if (!(xq * xq * bq > bx * bx * qq)) break;
        bx = xq, bq = qq;
    }
    return bq > 0 ? bx / bq : 0;
}

/* ---- with minimum: value = d q - m ---- */

typedef struct {
    f32 d, m;
} ENC(pair);

/* Best (d, m) for the levels of (x + m0) * inv, and its error up to a
 * constant. With m >= 0 wanted and a negative m best, m is 0. */
KS_INLINE f32 ENC(asym_fit)(const v8 *x, const v8 *w, enc_levels l, f32 inv,
    f32 m0, f32 sw, f32 sx, ENC(pair) *out) {
    v8 a = {0}, b = {0}, c = {0}, s = ENC(all)(inv), o = ENC(all)(m0);
    for (int i = 0; i < l.n / 8; i++) {
        v8 q = ENC(nearest)((x[i] + o) * s, l), wq = w[i] * q;
        a += wq;
        b += wq * q;
        c += wq * x[i];
    }
    f32 sq = ENC(sum)(a), qq = ENC(sum)(b), xq = ENC(sum)(c);
    f32 det = sw * qq - sq * sq, d = 0, m = 0;
    if (det > 0) {
        d = (sw * xq - sx * sq) / det;
        m = (sq * xq - qq * sx) / det;
    }
    if (det <= 0 || (l.m_positive && m < 0)) {
        m = 0;
        d = qq > 0 ? xq / qq : 0;
    }
    *out = (ENC(pair)){d, m};
    return d * d * qq + m * m * sw
        - 2 * (d * xq - m * sx + d * m * sq);
}

KS_INLINE ENC(pair) ENC(asym_search)(
    const v8 *x, const v8 *w, enc_levels l) {
    v8 hi = x[0], lo = x[0], vw = {0}, vx = {0};
    for (int i = 0; i < l.n / 8; i++) {
        hi = ENC(max)(hi, x[i]);
        lo = ENC(min)(lo, x[i]);
        vw += w[i];
        vx += w[i] * x[i];
    }
    f32 top = ENC(largest)(hi), low = -ENC(largest)(-lo);
    f32 sw = ENC(sum)(vw), sx = ENC(sum)(vx);
    if (l.m_positive && low > 0) low = 0;
    if (l.m_positive && top < 0) top = 0;
    ENC(pair) best = {0, -low}, p;
    f32 range = top - low, best_e = INFINITY;
    if (!(range > 1e-30f)) return best;
    for (int i = 0; i < l.n_try; i++) {
        f32 e = ENC(asym_fit)(
            x, w, l, l.tries[i] / range, -low, sw, sx, &p);
        if (e < best_e && p.d > 0) best_e = e, best = p;
    }
    for (int i = 0; i < 3 && best.d > 1e-30f; i++) {
        f32 e = ENC(asym_fit)(x, w, l, 1 / best.d, best.m, sw, sx, &p);
        if (!(e < best_e && p.d > 0)) break;
        best_e = e, best = p;
    }
    return best;
}

/* ---- levels for given scales ---- */

/* Levels of one group for value = s q - m; returns the error. */
KS_INLINE f32 ENC(levels)(const v8 *x, const v8 *w, enc_levels l, f32 s,
    f32 m, v8 *q) {
    v8 e = {0}, vs = ENC(all)(s), vm = ENC(all)(m);
    f32 inv = 1 / s;
    if (!(inv < 1e38f && inv > -1e38f)) inv = 0;
    v8 vi = ENC(all)(inv);
    for (int i = 0; i < l.n / 8; i++) {
        v8 y = x[i] + vm, d;
        q[i] = ENC(nearest)(y * vi, l);
        d = y - vs * q[i];
        e += w[i] * d * d;
    }
    return ENC(sum)(e);
}

KS_INLINE void ENC(store)(blk *b, int at, const v8 *q, int n) {
#if defined ENC_AVX2
    /* 32 bytes in one store: packing loads them at once in larger words. */
    for (int i = 0; i < n; i += 32) {
        const __m256 *v = (const __m256 *)(q + i / 8);
        __m256i a = _mm256_packs_epi32(
            _mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
        __m256i c = _mm256_packs_epi32(
            _mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
        a = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, c),
            _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)(b->q + at + i), a);
    }
#else
    for (int i = 0; i < n; i += 8) {
        v8c c = __builtin_convertvector(q[i / 8], v8c);
        memcpy(b->q + at + i, &c, 8);
    }
#endif
}

/* From the least to the largest. */
KS_INLINE ENC(pair) ENC(plain)(const v8 *x, enc_levels l) {
    v8 hi = x[0], lo = x[0];
    for (int i = 1; i < l.n / 8; i++) {
        hi = ENC(max)(hi, x[i]);
        lo = ENC(min)(lo, x[i]);
    }
    f32 top = ENC(largest)(hi), low = -ENC(largest)(-lo);
    return (ENC(pair)){(top - low) / l.hi, -low};
}

/* Types with one scale per block. */
KS_INLINE void ENC(fit_single)(
    const v8 *x, const v8 *w, enc_levels l, blk *b) {
    v8 q[4], q2[4];
    b->d = b->dmin = 0;
    blk_no_scales(b);
    if (l.has_min) {
        /* The search ends in float; half precision may favour the plain
         * scale, and for weights that were of this type before it is exact. */
        ENC(pair) p[2] = {ENC(asym_search)(x, w, l), ENC(plain)(x, l)};
        f32 d = ENC(half)(p[1].d), m = -ENC(half)(-p[1].m);
        b->d = ENC(half)(p[0].d);
        b->dmin = -ENC(half)(-p[0].m);
        f32 e = ENC(levels)(x, w, l, b->d, b->dmin, q);
        if (ENC(levels)(x, w, l, d, m, q2) < e) {
            b->d = d;
            b->dmin = m;
            ENC(store)(b, 0, q2, l.n);
            return;
        }
    } else {
        b->d = ENC(half)(ENC(sym_search)(x, w, l));
        ENC(levels)(x, w, l, b->d, b->dmin, q);
    }
    ENC(store)(b, 0, q, l.n);
}

/* ---- super-blocks: d and dmin over integer scales per group ---- */

typedef struct {
    int n; /* groups */
    f32 s[16], m[16];  /* what the groups would like */
    i32 sc[16], mn[16];
    f32 d, dmin;
} ENC(super);

/* The two float scales that are best for the integers chosen: a weighted
 * least squares in two unknowns. */
KS_INLINE void ENC(refit)(const v8 *x, const v8 *w, enc_levels l,
    const v8 *q, ENC(super) *u) {
    f32 aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    int nv = l.n / 8;
    for (int g = 0; g < u->n; g++) {
        v8 sq = {0}, qq = {0}, xq = {0}, sw = {0}, sx = {0};
        for (int i = g * nv; i < (g + 1) * nv; i++) {
            v8 wq = w[i] * q[i];
            qq += wq * q[i];
            xq += wq * x[i];
            if (!l.has_min) continue;
            sq += wq;
            sw += w[i];
            sx += w[i] * x[i];
        }
        f32 sc = (f32)u->sc[g], mn = (f32)u->mn[g];
        aa += sc * sc * ENC(sum)(qq);
        ax += sc * ENC(sum)(xq);
        if (!l.has_min) continue;
        ab -= sc * mn * ENC(sum)(sq);
        bb += mn * mn * ENC(sum)(sw);
        bx -= mn * ENC(sum)(sx);
    }
    if (!l.has_min) {
        if (aa > 0) u->d = ENC(half)(ax / aa);
        return;
    }
    f32 det = aa * bb - ab * ab;
    if (det > 1e-6f * aa * bb) {
        f32 d = (ax * bb - bx * ab) / det, m = (bx * aa - ax * ab) / det;
        if (d > 0 && m >= 0) u->d = ENC(half)(d), u->dmin = ENC(half)(m);
    } else if (aa > 0 && ax > 0 && !(bb > 0)) {
        u->d = ENC(half)(ax / aa);
    }
}

/* Chooses each group's integers near what they are for the float scales, and
 * its levels. Returns the error of the whole. Of weights so large that every
 * error is infinite it is the first that counts. */
KS_INLINE f32 ENC(choose)(const v8 *x, const v8 *w, enc_levels l, int reach,
    ENC(super) *u, v8 *q) {
    int nv = l.n / 8;
    f32 total = 0;
    v8 t[4];
    for (int g = 0; g < u->n; g++) {
        const v8 *gx = x + g * nv, *gw = w + g * nv;
        i32 sc = u->sc[g], mn = u->mn[g];
        f32 best = INFINITY;
        bool chosen = false;
        for (i32 a = sc - reach; a <= sc + reach; a++) {
            if (a < l.sc_lo || a > l.sc_hi) continue;
            for (i32 b = mn - reach; b <= mn + reach; b++) {
                if (b < 0 || b > l.mn_hi || (!l.has_min && b != mn)) continue;
                f32 e = ENC(levels)(gx, gw, l, u->d * (f32)a,
                    u->dmin * (f32)b, t);
                if (chosen && !(e < best)) continue;
                if (e < best) best = e;
                chosen = true;
                u->sc[g] = a;
                u->mn[g] = b;
                for (int i = 0; i < nv; i++) q[g * nv + i] = t[i];
            }
        }
        total += best;
    }
    return total;
}

KS_INLINE i32 ENC(scale_int)(f32 s, f32 d, i32 lo, i32 hi) {
    f32 v = d != 0 ? s / d : 0;
    v = v < (f32)lo ? (f32)lo : v > (f32)hi ? (f32)hi : v;
    return (i32)(v < 0 ? v - 0.5f : v + 0.5f);
}

KS_INLINE void ENC(start)(enc_levels l, ENC(super) *u) {
    f32 top = 0, m = 0;
    for (int g = 0; g < u->n; g++) {
        f32 a = u->s[g] < 0 ? -u->s[g] : u->s[g];
        f32 b = top < 0 ? -top : top;
        if (a > b) top = u->s[g];
        if (u->m[g] > m) m = u->m[g];
    }
    /* signed scales: the largest goes to the lowest integer */
    u->d = ENC(half)(top / (f32)(l.sc_lo < 0 ? l.sc_lo : l.sc_hi));
    u->dmin = l.has_min ? ENC(half)(m / (f32)l.mn_hi) : 0;
    for (int g = 0; g < u->n; g++) {
        u->sc[g] = ENC(scale_int)(u->s[g], u->d, l.sc_lo, l.sc_hi);
        u->mn[g] = l.has_min
            ? ENC(scale_int)(u->m[g], u->dmin, 0, l.mn_hi) : 0;
    }
}

KS_INLINE void ENC(fit_super)(
    const v8 *x, const v8 *w, enc_levels l, blk *b) {
    ENC(super) u = {.n = 256 / l.n}, keep;
    int nv = l.n / 8;
    v8 q[32], kept[32];
    for (int g = 0; g < u.n; g++) {
        if (l.has_min) {
            ENC(pair) p = ENC(asym_search)(x + g * nv, w + g * nv, l);
            u.s[g] = p.d;
            u.m[g] = p.m;
        } else {
            u.s[g] = ENC(sym_search)(x + g * nv, w + g * nv, l);
        }
    }
    ENC(start)(l, &u);
    f32 e = ENC(choose)(x, w, l, 1, &u, q);
    for (int round = 0; round < 2; round++) {
        keep = u;
        memcpy(kept, q, sizeof q);
        ENC(refit)(x, w, l, q, &u);
        f32 now = ENC(choose)(x, w, l, round ? 0 : 1, &u, q);
        if (now < e) {
            e = now;
            continue;
        }
        u = keep;
        memcpy(q, kept, sizeof q);
        break;
    }
    b->d = u.d;
    b->dmin = u.dmin;
    ENC(store)(b, 0, q, 256);
    int per = l.n / 16; /* 16-weight groups that share a scale */
    for (int g = 0; g < 16; g++) {
        b->scale[g] = (i16)u.sc[g / per];
        b->min[g] = (i16)u.mn[g / per];
    }
}

static void ENC(from_f16)(const u8 *p, u64 n, f32 *out) {
    u64 i = 0;
#if defined ENC_AVX2
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(
            (const __m128i *)(const void *)(p + 2 * i))));
#endif
    for (; i < n; i++) out[i] = f32_of_f16(ld_u16(p + 2 * i));
}

/* Weights of the squared errors of a block of n. `imp` is E[x_i^2] of the
 * input that meets column i, or NULL. Larger weights count a little more:
 * without statistics that is a sixth less KL at Q4_0 than weights that are all
 * alike (SmolLM2), with them it is neutral. */
static void ENC(weights)(const f32 *x, const f32 *imp, size_t n, f32 *w) {
    const v8 *vx = (const v8 *)(const void *)x;
    v8 *vw = (v8 *)(void *)w, ss = {0}, hi = {0};
    size_t nv = n / 8;
    for (size_t i = 0; i < nv; i++) ss += vx[i] * vx[i];
    v8 base = ENC(all)(4 * ENC(sum)(ss) / (f32)n);
    for (size_t i = 0; i < nv; i++) {
        v8 v = ENC(root)(base + vx[i] * vx[i]);
        if (imp) v *= *(const v8u *)(const void *)(imp + 8 * i);
        vw[i] = v;
        hi = ENC(max)(hi, v);
    }
    /* Scaled to at most 1: the sums must neither overflow nor vanish. */
    f32 top = ENC(largest)(hi);
    v8 k = ENC(all)(top > 0 ? 1 / top : 0), add = ENC(all)(1e-9f);
    for (size_t i = 0; i < nv; i++) vw[i] = vw[i] * k + add;
}

/* Fits one block of a type to x with weights w, both 32-byte aligned. */
static void ENC(fit)(ksllm_type type, const f32 *x, const f32 *w, blk *b) {
    const v8 *vx = (const v8 *)(const void *)x;
    const v8 *vw = (const v8 *)(const void *)w;
    switch (type) {
#define SINGLE(T)                                                             \
    case KSLLM_TYPE_##T: ENC(fit_single)(vx, vw, ENC_##T, b); return;
#define SUPER(T)                                                              \
    case KSLLM_TYPE_##T: ENC(fit_super)(vx, vw, ENC_##T, b); return;
    SINGLE(Q4_0) SINGLE(Q4_1) SINGLE(Q5_0) SINGLE(Q5_1) SINGLE(Q8_0)
    SINGLE(IQ4_NL)
    SUPER(Q2_K) SUPER(Q3_K) SUPER(Q4_K) SUPER(Q5_K) SUPER(Q6_K)
    SUPER(IQ4_XS)
#undef SINGLE
#undef SUPER
    default: return;
    }
}

/* c[i][0, n) += sum over k of a[i * a_row + k * a_col] * y[k][0, n), for m rows
 * and n a multiple of 8. Each c is one sum over ascending k from 0, added
 * once. */
KS_INLINE void ENC(gemm_tile)(f32 *c, size_t c_row, const f32 *a,
    size_t a_row, size_t a_col, const f32 *y, size_t y_row, size_t n_k,
    int m, int nv) {
    v8u s[4][2] = {{{0}}};
    for (size_t k = 0; k < n_k; k++) {
        const f32 *b = y + k * y_row;
        v8u b0 = *(const v8u *)(const void *)b;
        v8u b1 = nv > 1 ? *(const v8u *)(const void *)(b + 8) : b0;
        for (int i = 0; i < m; i++) {
            v8u x = ENC(all)(a[(size_t)i * a_row + k * a_col]);
            s[i][0] += x * b0;
            if (nv > 1) s[i][1] += x * b1;
        }
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < nv; j++)
            *(v8u *)(void *)(c + (size_t)i * c_row + 8 * j) += s[i][j];
}

static void ENC(gemm)(f32 *c, size_t c_row, const f32 *a, size_t a_row,
    size_t a_col, const f32 *y, size_t y_row, size_t n_k, size_t m,
    size_t n) {
    for (size_t i = 0; i < m; i += 4) {
        const f32 *ai = a + i * a_row;
        f32 *ci = c + i * c_row;
        size_t j = 0;
        if (m - i >= 4)
            for (; j + 16 <= n; j += 16)
                ENC(gemm_tile)(ci + j, c_row, ai, a_row, a_col, y + j, y_row,
                    n_k, 4, 2);
        for (; j < n; j += 8)
            for (size_t r = i; r < m && r < i + 4; r++)
                ENC(gemm_tile)(c + r * c_row + j, c_row, a + r * a_row, a_row,
                    a_col, y + j, y_row, n_k, 1, 1);
    }
}
