/* test_kernels.c - every row of the kernel table against the scalar row.
 *
 * Equal bits, always: over all types, sizes that are no multiple of a vector,
 * addresses that are not aligned, and values at the ends of their ranges. The
 * scalar row itself is held against double precision.
 */
#if defined __x86_64__ || defined __i386__
#include <cpuid.h>
#include <stdbool.h>

/* What cpuid says in place of this CPU, if `asked`. */
static struct {
    bool asked, no1, no7;
    unsigned c1, a7, b7, c7, a71;
} fake;

static int fake_cpuid(unsigned leaf, unsigned *a, unsigned *b, unsigned *c,
                      unsigned *d)
{
    if (!fake.asked)
        return __get_cpuid(leaf, a, b, c, d);
    *a = *b = *d = 0;
    *c = fake.c1;
    return leaf == 1 && !fake.no1;
}

static int fake_cpuid_count(unsigned leaf, unsigned sub, unsigned *a,
                            unsigned *b, unsigned *c, unsigned *d)
{
    if (!fake.asked)
        return __get_cpuid_count(leaf, sub, a, b, c, d);
    *a = sub ? fake.a71 : fake.a7;
    *b = sub ? 0 : fake.b7;
    *c = sub ? 0 : fake.c7;
    *d = 0;
    return leaf == 7 && !fake.no7;
}
#define __get_cpuid fake_cpuid
#define __get_cpuid_count fake_cpuid_count
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"

#include <math.h>

enum { MAX_IN = 11 * 256, MAX_ROWS = 35, MAX_TOKENS = 145 };

/* The i-th row that this CPU can run, NULL behind the last. */
static const k_row *usable(size_t i)
{
    u32 have = cpu_features();
    for (size_t k = 0; k < KS_LEN(K_TABLE); k++)
        if ((K_TABLE[k]->needs & have) == K_TABLE[k]->needs && i-- == 0)
            return K_TABLE[k];
    return NULL;
}

#if defined KS_X86 && !defined KS_EMULATED
/* A row's instructions all exist, and the system saves their registers. Each
 * bit that is missing takes away what rests on it, and nothing else. */
TEST(features_of_the_cpu)
{
    enum { WIDE = CPU_AVX512_VNNI | CPU_AVX512_VBMI,
           ALL = CPU_AVX2 | WIDE | CPU_AVX_VNNI };
    static const struct { unsigned *at; unsigned bit; u32 takes; } bits[] = {
        {&fake.c1, 27, ALL}, {&fake.c1, 28, ALL},       /* OSXSAVE, AVX */
        {&fake.c1, 12, CPU_AVX2}, {&fake.c1, 29, CPU_AVX2}, /* FMA, F16C */
        {&fake.b7, 5, CPU_AVX2}, {&fake.b7, 16, WIDE}, {&fake.b7, 30, WIDE},
        {&fake.b7, 31, WIDE}, {&fake.c7, 11, WIDE},
        {&fake.c7, 1, CPU_AVX512_VBMI}, {&fake.a7, 0, CPU_AVX_VNNI},
        {&fake.a71, 4, CPU_AVX_VNNI}};
    u32 a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return;                         /* XCR0 cannot be read */
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    const u32 can = (saved & 6) != 6 ? 0
        : (saved & 0xe6) == 0xe6 ? ALL : ALL & ~(u32)WIDE;
    fake.asked = true;
    for (size_t i = 0; i < KS_LEN(bits); i++)
        *bits[i].at |= 1u << bits[i].bit;
    CHECK_EQ(cpu_features(), can);
    for (size_t i = 0; i < KS_LEN(bits); i++) {
        *bits[i].at &= ~(1u << bits[i].bit);
        CHECK_EQ(cpu_features(), can & ~bits[i].takes);
        *bits[i].at |= 1u << bits[i].bit;
    }
    fake.no7 = true;
    CHECK_EQ(cpu_features(), 0);
    fake.no1 = true;
    CHECK_EQ(cpu_features(), 0);
    CHECK(k_choose("scalar") != NULL && k_at(1) == NULL);
    CHECK(k_choose("avx2") == NULL);
    memset(&fake, 0, sizeof fake);
}
#endif

/* A caller can ask for each of them. */
TEST(rows_have_public_names)
{
    const k_row *k;
    size_t n = 0;
    for (; (k = usable(n)) != NULL; n++) {
        CHECK_STR(ksllm_isa_at(n), k->name);
        CHECK(k_choose(k->name) == k);
    }
    CHECK(ksllm_isa_at(n) == NULL);
}

#define EACH_ROW(k) \
    for (size_t i_##k = 0; (k = usable(i_##k)) != NULL; i_##k++)

static const k_row *scalar(void)
{
    return k_choose("scalar");
}

/* -0 and 0 are told apart here, NaNs are not. */
static bool same_floats(const f32 *a, const f32 *b, size_t n)
{
#if defined __arm__ /* NEON of 32 bits takes a subnormal for 0: no more than */
    const f32 least = 1e-30f; /* this much comes of it in any of these tests */
#else
    const f32 least = 0;
#endif
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) &&
            !(isnan(a[i]) && isnan(b[i])) &&
            !(fabsf(a[i]) < least && fabsf(b[i]) < least))
            return false;
    return true;
}

/* Kinds of numbers: 0 to 2 ordinary, then what could go wrong; of quantized
 * inputs also all at one end and all at the other. */
enum { KINDS = 9, ALL_HIGH = KINDS, ALL_LOW, INPUT_KINDS };

static f32 number(int kind, uint64_t *rng)
{
    f32 x = (f32)((int32_t)(fx_next(rng) >> 40) - 8388608) * 0x1p-23f;
    switch (kind) {
    case 1: return x * 30;
    case 2: return x * x * x * 1000;
    case 3: return 0;
    case 4: return fx_below(rng, 2) ? -0.0f : 0.0f;
    case 5: return (f32)((int)fx_below(rng, 255) - 127) + 0.5f;
    case 6: return x * 1e-38f;          /* subnormal */
    case 7: return x * 1e18f;           /* its square still fits */
    case 8: return fx_below(rng, 8) ? 0 : x * 1e5f;
    default: return x;
    }
}

static void numbers(f32 *x, size_t n, int kind, uint64_t *rng)
{
    for (size_t i = 0; i < n; i++)
        x[i] = number(kind, rng);
}

TEST(rows_are_there)
{
    CHECK(scalar() != NULL);
    CHECK(usable(0) != NULL);
    CHECK(k_choose(NULL) == usable(0));
    CHECK(k_choose("no such") == NULL);
    size_t n = 0;
    const k_row *k;
    EACH_ROW(k) {
        n++;
        for (int i = 0; i < FX_TYPES; i++)
            CHECK(k->product[fx_types[i].type] != NULL);
    }
    CHECK(usable(n - 1) == scalar());
}

/* ---- Activations -------------------------------------------------------- */

TEST(quantize)
{
    uint64_t rng = test_seed;
    for (int trial = 0; trial < 400; trial++) {
        f32 x[MAX_IN], want_d[MAX_IN / 32], d[MAX_IN / 32];
        i8 want_q[MAX_IN], q[MAX_IN];
        i16 want_sum[MAX_IN / 16], sum[MAX_IN / 16];
        size_t block = trial & 1 ? 256 : 32;
        size_t n = block * (1 + fx_below(&rng, 3));
        int kind = trial / 2 % KINDS;
        numbers(x, n, kind, &rng);
        scalar()->quantize(x, n, block, want_q, want_d, want_sum);
        const k_row *k;
        EACH_ROW(k) {
            k->quantize(x, n, block, q, d, sum);
            CHECK(memcmp(q, want_q, n) == 0);
            CHECK(same_floats(d, want_d, n / block));
            CHECK(memcmp(sum, want_sum, n / 16 * sizeof *sum) == 0);
        }
        for (size_t i = 0; i < n; i++) {
            double step = (double)want_d[i / block];
            CHECK(want_q[i] >= -127);
            if (kind != 6)
                CHECK(fabs(want_q[i] * step - (double)x[i]) <=
                      step * 0.50001);
        }
        for (size_t i = 0; i < n; i += 16) {
            int s = 0;
            for (size_t j = i; j < i + 16; j++)
                s += want_q[j];
            CHECK_EQ(s, want_sum[i / 16]);
        }
    }
}

/* ---- Products ----------------------------------------------------------- */

typedef struct inputs {
    f32 x[MAX_TOKENS * MAX_IN];
    i8 q[MAX_TOKENS * MAX_IN];
    f32 d[MAX_TOKENS * MAX_IN / 32];
    i16 sum[MAX_TOKENS * MAX_IN / 16];
    k_acts acts;
} inputs;

static void fill_inputs(inputs *in, const fx_type *t, size_t n_in, size_t m,
                        int kind, uint64_t *rng)
{
    size_t block = t->items;
    memset(&in->acts, 0, sizeof in->acts);
    in->acts.x = in->x;
    in->acts.n_in = n_in;
    numbers(in->x, m * n_in, kind, rng);
    if (block == 1)
        return;
    for (size_t i = 0; i < m; i++)
        scalar()->quantize(in->x + i * n_in, n_in, block, in->q + i * n_in,
                           in->d + i * n_in / block,
                           in->sum + i * n_in / 16);
    if (kind == 3 || kind >= KINDS) {   /* 3: at both ends, not zeros */
        for (size_t i = 0; i < m * n_in; i++)
            in->q[i] = kind == 3 ? i / 7 % 3 ? 127 : -127
                                 : kind == ALL_HIGH ? 127 : -127;
        for (size_t i = 0; i < m * n_in / 16; i++) {
            int s = 0;
            for (size_t j = 16 * i; j < 16 * i + 16; j++)
                s += in->q[j];
            in->sum[i] = (i16)s;
        }
        for (size_t i = 0; i < m * n_in / block; i++)
            in->d[i] = 0.01f;
    }
    in->acts.q[block == 256] = in->q;
    in->acts.d[block == 256] = in->d;
    in->acts.sum[block == 256] = in->sum;
}

/* Weights: random ones, or with every bit but the scales' alike. */
static void fill_weights(u8 *w, const fx_type *t, size_t n, int kind,
                         uint64_t *rng)
{
    fx_fill(w, t, n, rng);
    for (size_t i = 0; kind && t->items > 1 && i < n / t->items; i++)
        for (int k = 0; k < t->bytes; k++) {
            bool scale = (t->d < 0 && k == 0) ||
                         (t->d >= 0 && k / 2 == t->d / 2) ||
                         (t->m >= 0 && k / 2 == t->m / 2);
            if (!scale)
                w[i * t->bytes + (size_t)k] = kind == 1 ? 0xff :
                                              kind == 2 ? 0 :
                                              kind == 3 ? 0x80 : 0x7f;
        }
}

/* What the product of a row and a token should be, and the size of its
 * terms. */
static double exact(const inputs *in, const fx_type *t, const u8 *row,
                    size_t token, double *size)
{
    f32 w[MAX_IN];
    size_t n = in->acts.n_in, block = t->items;
    double sum = 0, apart = 0;
    blk_row(t->type, row, n, w);
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = token * n + i;
        double x = block == 1 ? (double)in->x[at]
                              : in->q[at] * (double)in->d[at / block];
        sum += (double)w[i] * x;
        /* d * (q - 1) is multiplied as d * q and d: so large are its terms. */
        if (t->type == KSLLM_TYPE_TQ1_0 || t->type == KSLLM_TYPE_TQ2_0)
            apart = f32_of_f16(ld_u16(row + i / 256 * t->bytes + (size_t)t->d));
        *size += (fabs((double)w[i]) + fabs(apart)) * fabs(x);
    }
    return sum;
}

static void products_of(const fx_type *t)
{
    static inputs in;
    uint64_t rng = test_seed + t->type;
    f32 *want = fx_memory(NULL, MAX_TOKENS * 40 * sizeof *want);
    f32 *y = fx_memory(NULL, MAX_TOKENS * 40 * sizeof *y);
    f32 *want_more = fx_memory(NULL, MAX_TOKENS * 40 * sizeof *y);
    for (int trial = 0; trial < test_times(100, 150); trial++) {
        static const u8 tokens[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64,
                                    65, 70, 145};
        /* Floats go by spans of 256, some more than 2^17 inputs in two turns. */
        size_t n_in = t->items * (1 + fx_below(&rng, t->items == 256
                                  ? trial % 8 ? 3 : 11
                                  : t->items == 32 ? 9
                                  : trial % 8 ? 130 : MAX_IN));
        size_t rows = 1 + fx_below(&rng, MAX_ROWS);
        size_t m = tokens[fx_below(&rng, trial % 5 ? 8 : KS_LEN(tokens))];
        /* One token goes its own way through blocks of 256, eight by eight. */
        if (t->items == 256 && trial % 16 == 0)
            m = 1;
        size_t row_bytes = n_in / t->items * t->bytes;
        /* The matrix ends with its block and begins at any address: of a
         * file nothing may be read that is not there. */
        size_t bytes = rows * row_bytes, shift = fx_below(&rng, 8);
        u8 *w = fx_memory(NULL, bytes + shift);
        fill_inputs(&in, t, n_in, m, trial % INPUT_KINDS, &rng);
        fill_weights(w + shift, t, rows * n_in, trial / INPUT_KINDS % 5, &rng);
        k_product p = {.type = t->type, .w = w + shift,
                       .row_bytes = row_bytes, .n_rows = rows,
                       .acts = &in.acts, .m = m, .y = want, .y_stride = 40};
        for (size_t i = 0; i < m * 40; i++)
            want[i] = y[i] = 12345;
        scalar()->product[t->type](&p);
        const k_row *k;
        EACH_ROW(k) {
            p.y = y;
            k->product[t->type](&p);
            if (!CHECK(same_floats(y, want, m * 40)))
                printf("%s on %s: %d rows of %d, %d tokens, trial %d\n",
                       t->name, k->name, (int)rows, (int)n_in, (int)m, trial);
            if (t->items > 1)
                continue;
            k_product more = p; /* what is there, and a share of it */
            memcpy(want_more, want, m * 40 * sizeof *want);
            more.adds = true;
            more.share = 0.3f;
            k->product[t->type](&more);
            for (size_t i = 0; i < m * 40; i++)
                if (i % 40 < rows)
                    want_more[i] = want[i] + 0.3f * want[i];
            CHECK(same_floats(y, want_more, m * 40));
        }
        for (size_t i = 0; i < m * 40; i++)
            if (i % 40 >= rows)
                CHECK(want[i] == 12345);
        for (size_t i = 0; i < m; i++)
            for (size_t r = 0; r < rows; r++) {
                double size, e = exact(&in, t, w + shift + r * row_bytes, i,
                                       &size);
                double off = fabs((double)want[i * 40 + r] - e);
                if (!CHECK(off <= 1e-6 * size + 1e-37))
                    printf("%s: %g should be %g, trial %d\n", t->name,
                           (double)want[i * 40 + r], e, trial);
            }
        free(w);
    }
    free(want_more);
    free(want);
    free(y);
}

TEST(products)
{
    for (int i = 0; i < FX_TYPES; i++)
        products_of(&fx_types[i]);
}

/* Rows of more than 56 * 256 inputs are too long for some ways (X_CROSSED), of
 * more than 73 * 256 for others (K_WIDE). Two to eight tokens have 8192 inputs
 * at a time on Arm (SOME_IN), and 64 rows. */
TEST(products_of_long_rows)
{
    enum { ROWS = 70, TOKENS = 8, STRIDE = 72 };
    static const struct { u16 spans; u8 rows, m; } shapes[] = {
        {56, 5, 1}, {57, 9, 1}, {73, 5, 1}, {74, 5, 1}, {57, 17, 3},
        {74, 17, 2}, {17, 5, 2}, {9, ROWS, 3}, {9, 66, 4}, {4, ROWS, 4},
        {6, 5, 6}, {7, 69, 5}, {5, ROWS, 7}, {5, 67, TOKENS}, {4, 66, TOKENS}};
    static const int kinds[] = {0, ALL_HIGH, ALL_LOW, 3};
    static inputs in;
    static f32 want[TOKENS * STRIDE], y[TOKENS * STRIDE];
    uint64_t rng = test_seed;
    for (size_t i = 0; i < FX_TYPES * KS_LEN(shapes); i++) {
        const fx_type *t = &fx_types[i / KS_LEN(shapes)];
        size_t s = i % KS_LEN(shapes), n_in = 256 * shapes[s].spans;
        size_t row_bytes = n_in / t->items * t->bytes;
        u8 *w = fx_memory(NULL, shapes[s].rows * row_bytes);
        fill_inputs(&in, t, n_in, shapes[s].m, kinds[(i + s) % 4], &rng);
        fill_weights(w, t, shapes[s].rows * n_in, (int)(i % 5), &rng);
        k_product p = {.type = t->type, .w = w, .row_bytes = row_bytes,
                       .n_rows = shapes[s].rows, .acts = &in.acts,
                       .m = shapes[s].m, .y = want, .y_stride = STRIDE};
        for (size_t k = 0; k < TOKENS * STRIDE; k++)
            want[k] = y[k] = 12345;
        scalar()->product[t->type](&p);
        p.y = y;
        const k_row *k;
        EACH_ROW(k) {
            k->product[t->type](&p);
            if (!CHECK(same_floats(y, want, TOKENS * STRIDE)))
                printf("%s on %s: %d rows of %d, %d tokens\n", t->name,
                       k->name, (int)p.n_rows, (int)n_in, (int)p.m);
        }
        free(w);
    }
}

/* A sum that is all but 0 and rounds to -0 would show the sign of a zero that
 * is added after it, which is not the same in all kernels: P * d with P = 0 and
 * d < 0. Inputs that would make such sums are zeros to k_quantize. */
TEST(sums_never_become_minus_zero)
{
    enum { ROWS = 32, N_IN = 96, M = 9 };
    static inputs in;
    blk_q4_0 w[ROWS][3];
    f32 want[M * ROWS], y[M * ROWS], v = 1e-30f;
    uint64_t rng = test_seed;
    memset(w, 0x88, sizeof w);              /* weights of 0 */
    for (size_t r = 0; r < ROWS; r++) {
        w[r][0].d = w[r][1].d = 1, w[r][2].d = 0x8001;
        w[r][0].qs[0] = 0x89, w[r][1].qs[0] = 0x87; /* 1, -1 */
    }
    fill_inputs(&in, fx_type_of(KSLLM_TYPE_Q4_0), N_IN, M, 0, &rng);
    k_product p = {.type = KSLLM_TYPE_Q4_0, .w = (const u8 *)w,
                   .row_bytes = sizeof w[0], .n_rows = ROWS,
                   .acts = &in.acts, .m = M, .y_stride = ROWS};
    while (v < 1e-27f) {
        memset(in.x, 0, M * N_IN * sizeof *in.x);
        for (size_t i = 0; i < 3 * M; i++) {
            if (i % 3 == 0)
                v *= 1.003f;
            in.x[32 * i] = v;
        }
        scalar()->quantize(in.x, M * N_IN, 32, in.q, in.d, in.sum);
        p.y = want;
        scalar()->product[p.type](&p);
        p.y = y;
        const k_row *k;
        EACH_ROW(k) {
            k->product[p.type](&p);
            CHECK(same_floats(y, want, M * ROWS));
        }
    }
}

/* Every exponent that a scale of MXFP4 may have. */
TEST(products_of_any_power)
{
    enum { ROWS = 32, STEP = 8 * 17, N_IN = 8 * 32 };
    static inputs in;
    u8 w[ROWS * STEP];
    f32 want[9 * ROWS], y[9 * ROWS];
    uint64_t rng = test_seed;
    fill_inputs(&in, fx_type_of(KSLLM_TYPE_MXFP4), N_IN, 9, 0, &rng);
    for (int trial = 0; trial < 8; trial++) {
        for (size_t i = 0; i < sizeof w; i++)
            w[i] = i % 17 ? (u8)fx_next(&rng) : (u8)(i / STEP * 8 + trial);
        for (size_t m = 1; m <= 9; m++) {
            k_product p = {.type = KSLLM_TYPE_MXFP4, .w = w, .row_bytes = STEP,
                           .n_rows = ROWS, .acts = &in.acts, .m = m,
                           .y = want, .y_stride = ROWS};
            const k_row *k;
            scalar()->product[KSLLM_TYPE_MXFP4](&p);
            p.y = y;
            EACH_ROW(k) {
                k->product[KSLLM_TYPE_MXFP4](&p);
                CHECK(same_floats(y, want, m * ROWS));
            }
        }
    }
}

#if defined KS_X86 && !defined KSLLM_NO_IQ
/* Inputs of up to 127, `room` together, that make the most of eight weights:
 * the largest weights have the largest ones. Returns the sum. */
static int share_out(const i8 *w, int room, i8 *x)
{
    int sum = 0;
    memset(x, -1, 8);
    for (int n = 0; n < 8; n++) {
        int best = -1;
        for (int j = 0; j < 8; j++)
            if (x[j] < 0 && (best < 0 || w[j] > w[best]))
                best = j;
        x[best] = (i8)(room < 127 ? room : 127);
        room -= x[best];
        sum += w[best] * x[best];
    }
    return sum;
}

/* Where x_book_room has it, eight weights times as many inputs fit 16 bits,
 * however inputs share it out. One more may not fit: rows have to notice. */
TEST(room_of_codebooks)
{
    static const ksllm_type types[] = {KSLLM_TYPE_IQ2_XXS, KSLLM_TYPE_IQ2_XS,
                                       KSLLM_TYPE_IQ2_S, KSLLM_TYPE_IQ3_XXS};
    static inputs in;
    uint64_t rng = test_seed;
    for (size_t i = 0; i < KS_LEN(types); i++) {
        const bool fours = blk_has_fours(types[i]);
        const u16 *book = blk_book_of(types[i]);
        const int n = blk_book_rows(types[i]);
        const int room = x_book_room(types[i]);
        i8 worst[8];
        int most = 0, at = 0;
        for (int k = 0; k < (fours ? n * n : n); k++) {
            i8 w[8], x[8];
            if (fours) {
                blk_levels(w, book[k / n], 4, 3, BLK_LEVELS_IQ3_XXS, 0);
                blk_levels(w + 4, book[k % n], 4, 3, BLK_LEVELS_IQ3_XXS, 0);
            } else {
                blk_levels(w, book[k], 8, 2, BLK_LEVELS_IQ2, 0);
            }
            const int sum = share_out(w, room, x);
            if (sum > most) {
                most = sum, at = k;
                memcpy(worst, w, 8);
            }
        }
        CHECK(most <= INT16_MAX);
        CHECK(room == INT16_MAX || most > INT16_MAX - 62);
        const fx_type *t = fx_type_of(types[i]);
        for (int more = 0; more < 2 && room < INT16_MAX; more++) {
            u8 w[16 * 98];
            f32 want[4 * 16], y[4 * 16];
            i8 x[8];
            if (more)
                CHECK(share_out(worst, room + 1, x) > INT16_MAX);
            else
                share_out(worst, room, x);
            fill_inputs(&in, t, 256, 4, ALL_HIGH, &rng);
            fill_weights(w, t, 16 * 256, 1, &rng); /* of IQ2 the worst row */
            for (int k = 0; k < 16 && fours; k++)
                for (int q = 0; q < 64; q++)
                    w[98 * k + 2 + q] = (u8)(q % 2 ? at % n : at / n);
            for (int k = 0; k < 4 * 256; k++)
                in.q[k] = x[k % 8];
            for (int k = 0; k < 4 * 16; k++)
                in.sum[k] = (i16)(2 * (room + more));
            k_product p = {.type = t->type, .w = w, .row_bytes = t->bytes,
                           .n_rows = 16, .acts = &in.acts, .m = 4,
                           .y = want, .y_stride = 16};
            const k_row *k;
            scalar()->product[t->type](&p);
            p.y = y;
            EACH_ROW(k) {
                k->product[t->type](&p);
                CHECK(same_floats(y, want, 4 * 16));
            }
        }
    }
}
#endif

/* A product does not depend on how many rows or tokens go with it. */
TEST(products_in_pieces)
{
    static inputs in;
    for (int i = 0; i < FX_TYPES; i++) {
        const fx_type *t = &fx_types[i];
        uint64_t rng = test_seed + (uint64_t)i;
        size_t n_in = 256, rows = 33, m = 35, stride = 33;
        size_t row_bytes = n_in / t->items * t->bytes;
        u8 *w = fx_memory(NULL, rows * row_bytes);
        f32 all[35 * 33], few[9 * 33], one[1];
        fill_inputs(&in, t, n_in, m, 0, &rng);
        fill_weights(w, t, rows * n_in, 0, &rng);
        const k_row *k;
        EACH_ROW(k) {
            k_product p = {.type = t->type, .w = w, .row_bytes = row_bytes,
                           .n_rows = rows, .acts = &in.acts, .m = m,
                           .y = all, .y_stride = stride};
            k->product[t->type](&p);
            for (size_t token = 0; token < m; token += 6)
                for (size_t r = 0; r < rows; r++) {
                    k_acts a = in.acts;
                    size_t at = token * n_in;
                    a.x += at;
                    for (int b = 0; b < 2; b++)
                        if (a.q[b]) {
                            a.q[b] += at;
                            a.d[b] += at / (b ? 256 : 32);
                            a.sum[b] += at / 16;
                        }
                    k_product q = p;
                    q.acts = &a;
                    q.w = w + r * row_bytes;
                    q.n_rows = q.m = 1;
                    q.y = one;
                    k->product[t->type](&q);
                    CHECK(same_floats(one, all + token * stride + r, 1));
                }
            p.y = few;
            for (p.m = 2; p.m <= 9; p.m++) {
                k->product[t->type](&p);
                CHECK(same_floats(few, all, p.m * stride));
            }
        }
        free(w);
    }
}

/* ---- Vectors of floats -------------------------------------------------- */

TEST(norms)
{
    uint64_t rng = test_seed;
    for (int trial = 0; trial < 600; trial++) {
        f32 x[300], w[300], want[300], y[300];
        size_t n = 1 + fx_below(&rng, 299);
        int kind = trial % KINDS;
        numbers(x, n, kind, &rng);
        numbers(w, n, 1, &rng);
        const u8 *wp = (const u8 *)w;
        scalar()->norm(x, wp, n, 1e-6f, want);
        const k_row *k;
        EACH_ROW(k) {
            k->norm(x, wp, n, 1e-6f, y);
            CHECK(same_floats(y, want, n));
            memcpy(y, x, n * sizeof *x);
            k->norm(y, wp, n, 1e-6f, y);
            CHECK(same_floats(y, want, n));
        }
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += (double)x[i] * (double)x[i];
        double r = 1 / sqrt(sum / (double)n + 1e-6);
        for (size_t i = 0; i < n; i++) {
            double e = (double)x[i] * r * (double)w[i];
            CHECK(fabs((double)want[i] - e) <= 1e-6 * fabs(e) + 1e-37);
        }
    }
}

/* A step of the delta rule as its definition says, and in place. */
TEST(recurrence)
{
    enum { K = 48, N = 64 };
    static const size_t widths[] = {16, 32, 48, 64};
    uint64_t rng = test_seed;
    for (int trial = 0; trial < 40; trial++) {
        f32 s[K * N], to[K * N], want[K * N], k[K], q[K], v[N], out[N], y[N];
        size_t n = widths[trial % 4], keys = 1 + fx_below(&rng, K);
        numbers(s, keys * n, 0, &rng);
        numbers(k, keys, 0, &rng);
        numbers(q, keys, 0, &rng);
        numbers(v, n, 0, &rng);
        k_delta a = {.from = s, .to = want, .k = k, .q = q, .v = v,
                     .out = out, .decay = 0.75f, .beta = 0.375f,
                     .key_dim = keys, .n = n};
        scalar()->recur(&a);
        const k_row *r;
        EACH_ROW(r) {
            k_delta b = a;
            memcpy(to, s, sizeof to);
            b.from = b.to = to;
            b.out = y;
            r->recur(&b);
            CHECK(same_floats(to, want, keys * n));
            CHECK(same_floats(y, out, n));
        }
        for (size_t j = 0; j < n; j++) {
            double read = 0, e = 0, size = 0;
            for (size_t i = 0; i < keys; i++)
                read += (double)s[i * n + j] * 0.75 * (double)k[i];
            for (size_t i = 0; i < keys; i++) {
                double z = (double)s[i * n + j] * 0.75
                    + (double)k[i] * 0.375 * ((double)v[j] - read);
                CHECK(fabs((double)want[i * n + j] - z)
                    <= 1e-5 * (1 + fabs(z) + fabs(read)) * (double)keys);
                e += z * (double)q[i];
                size += fabs(z * (double)q[i]);
            }
            CHECK(fabs((double)out[j] - e) <= 1e-5 * (1 + size) * K);
        }
    }
}

TEST(gates)
{
    static const f32 ends[] = {0, -0.0f, 1e-30f, -1e-30f, 87, 88, 89, -87,
                               -88, -89, 500, -500, 1e10f, -1e10f, 3e38f,
                               -3e38f};
    uint64_t rng = test_seed;
    for (int trial = 0; trial < 400; trial++) {
        f32 g[100], u[100], want[100], y[100];
        size_t n = 1 + fx_below(&rng, 99);
        k_activation act = trial % 3 ? trial % 3 == 1 ? K_GELU : K_GELU_ERF
                                     : K_SILU;
        numbers(g, n, trial / 2 % 3, &rng);
        numbers(u, n, 0, &rng);
        for (size_t i = 0; trial % 8 > 5 && i < n; i++)
            g[i] = ends[fx_below(&rng, 16)];
        memcpy(want, g, sizeof g);
        const f32 *by = trial % 4 < 3 ? u : NULL;
        scalar()->gate(want, by, n, act);
        const k_row *k;
        EACH_ROW(k) {
            memcpy(y, g, sizeof g);
            k->gate(y, by, n, act);
            CHECK(same_floats(y, want, n));
        }
        for (size_t i = 0; i < n; i++) {
            double x = (double)g[i];
            if (fabs(x) > 1e9)
                continue;
            double z = act == K_SILU ? x : 2 * 0.7978845608028654 *
                                           (x + 0.044715 * x * x * x);
            double e = x / (1 + exp(-z)) * (by ? (double)by[i] : 1);
            /* An error of the exponent is one of the result; below e^-86
             * that may be anything small. */
            double most = (2e-6 + 4e-7 * fabs(z)) * fabs(e) + 1e-35 * fabs(x);
            if (act == K_GELU_ERF) {    /* within 1.5e-7 of the share below */
                e = x / 2 * erfc(-x * 0.7071067811865476)
                    * (by ? (double)by[i] : 1);
                most = 1e-6 * fabs(e)
                    + 3e-7 * fabs(x * (by ? (double)by[i] : 1));
            }
            if (!CHECK(fabs((double)want[i] - e) <= most))
                printf("act %d of %g: %g should be %g\n", (int)act, x,
                       (double)want[i], e);
        }
    }
}

static bool near(f64 got, f64 want, f64 part)
{
    return fabs(got - want) <= part * fmax(1, fabs(want));
}

/* Against libm, and at the ends of what they are given. */
TEST(elementary_functions)
{
    for (f64 x = 1e-300; x < 1e300; x *= 1.7)
        if (!CHECK(near(m_ln(x), log(x), 1e-14)))
            printf("    ln %.17g\n", x);
    for (f64 x = -40; x <= 700; x += 0.37)
        if (!CHECK(fabs(m_exp(x) / exp(x) - 1) < 1e-13))
            printf("    exp %.17g\n", x);
    CHECK(m_exp(0) == 1);
    CHECK(m_exp(-701) == 0 && m_exp(-INFINITY) == 0 && m_exp(NAN) == 0);
    CHECK(m_exp(1e9) == m_exp(700) && m_exp(INFINITY) == m_exp(700));
    CHECK(near(m_pow(10000, -0.25), 0.1, 1e-15));
    CHECK(near(m_pow(2, 10), 1024, 1e-14));
    for (f64 x = -100000; x < 100000; x = x * 0.999 + 0.73) {
        f64 s, c;
        m_sincos(x, &s, &c);
        if (!CHECK(near(s, sin(x), 1e-14) && near(c, cos(x), 1e-14)))
            printf("    sin and cos of %.17g\n", x);
        if (x > 729)
            break;
    }
    static const f64 odd[] = {NAN, INFINITY, -INFINITY, 1e18, -1e18, 1e300};
    for (size_t i = 0; i < KS_LEN(odd); i++) {
        f64 s = 9, c = 9;
        m_sincos(odd[i], &s, &c);
        CHECK(s == 0 && c == 1);
    }
}

/* Frequencies of scaled rotations, as ROPE_INIT_FUNCTIONS of transformers
 * computes them. */
static void check_frequencies(const char *fixture, ksllm_override set,
                              f32 gain, const f32 (*want)[2], size_t n)
{
    fx_file f = fx_model(fx_spec_of(fixture));
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    ksllm_model_options_init(&o);
    o.isa = "scalar";
    o.overrides = &set;
    o.n_overrides = 1;
    if (CHECK_OK(ksllm_model_open_memory(f.data, f.size, &o, &m, &e), e)) {
        CHECK(near((f64)m->rope[0].gain, (f64)gain, 1e-7));
        for (size_t i = 0; i < n; i++)
            CHECK(near((f64)m->rope[0].freq[(int)want[i][0]] / (f64)want[i][1],
                       1, 1e-6));
    }
    ksllm_model_close(m);
    free(f.data);
}

TEST(scaled_rotations)
{
    static const f32 linear[][2] = {
        {0, 0.25f}, {16, 0.0025f}, {31, 3.33380376e-05f}};
    static const f32 llama3[][2] = {
        {0, 1}, {10, 0.0562341288f}, {16, 0.00999999978f},
        {17, 0.00749894232f}, {18, 0.00515371142f}, {20, 0.00162974675f},
        {22, 0.000515371154f}, {24, 0.000250000012f}, {31, 3.33380376e-05f}};
    static const f32 yarn[][2] = {
        {0, 1}, {1, 0.42175597f}, {2, 0.158113882f}, {3, 0.0444569848f},
        {8, 0.00249999994f}, {15, 4.44569851e-05f}};
    /* A factor says linear where there is no type, as llama.cpp has it. */
    static const f32 untyped[][2] = {
        {0, 0.25f}, {8, 0.0025f}, {15, 4.44569851e-05f}};
    static const f32 none[][2] = {
        {0, 1}, {16, 0.01f}, {31, 0.000133352152f}};
    const ksllm_meta_type text = KSLLM_META_TEXT, real = KSLLM_META_F32;
    const struct {
        const char *fixture;
        ksllm_override set;
        f32 gain;
        const f32 (*want)[2];
        size_t n;
    } cases[] = {
        {"linear", {"llama.rope.scaling.type", text, 0, 0, "linear"}, 1,
            linear, KS_LEN(linear)},
        {"linear", {"llama.rope.scaling.type", text, 0, 0, "llama3"}, 1,
            llama3, KS_LEN(llama3)},
        {"linear", {"llama.rope.scaling.type", text, 0, 0, "none"}, 1, none,
            KS_LEN(none)},
        {"linear", {"llama.rope.scaling.attn_factor", real, 0, 2, NULL}, 2,
            linear, KS_LEN(linear)},
        {"linear", {"llama.rope.scale_linear", real, 0, 9, NULL}, 1, linear,
            KS_LEN(linear)},
        {"llama", {"llama.rope.scale_linear", real, 0, 4, NULL}, 1, untyped,
            KS_LEN(untyped)},
        {"llama", {"llama.rope.scaling.factor", real, 0, 4, NULL}, 1, untyped,
            KS_LEN(untyped)},
        {"yarn", {"qwen3.rope.scaling.type", text, 0, 0, "yarn"}, 1.13862944f,
            yarn, KS_LEN(yarn)},
        {"yarn", {"qwen3.rope.scaling.attn_factor", real, 0, 2, NULL},
            2.27725887f, yarn, KS_LEN(yarn)},
        {"yarn", {"qwen3.rope.scaling.yarn_attn_factor", real, 0, 1.5, NULL},
            1.5f, yarn, KS_LEN(yarn)},
    };
    for (size_t i = 0; i < KS_LEN(cases); i++)
        check_frequencies(cases[i].fixture, cases[i].set, cases[i].gain,
                          cases[i].want, cases[i].n);
}

TEST(texts_of_bytes)
{
    const str none = {NULL, 0}, empty = {"", 0}, a = {"a\0b", 1};
    const str ab = {"a\0b", 3}, b = {"b", 1};
    CHECK(str_eq(none, empty) && str_eq(str_of(NULL), none));
    CHECK(str_eq(a, str_of("a")) && !str_eq(a, ab) && !str_eq(a, b));
    CHECK(str_cmp(none, empty) == 0 && str_cmp(none, a) < 0);
    CHECK(str_cmp(a, empty) > 0 && str_cmp(a, ab) < 0 && str_cmp(ab, a) > 0);
    CHECK(str_cmp(ab, b) < 0 && str_cmp(b, b) == 0);
    ksllm_error e;
    fail(&e, KSLLM_ERR_FORMAT, 7, "%.*s|%.*s|", STR(none), STR(b));
    CHECK_STR(e.text, "|b|");
    CHECK_EQ(e.offset, 7);
    CHECK_EQ(fail(NULL, KSLLM_ERR_FORMAT, 7, "x"), KSLLM_ERR_FORMAT);
}

TEST(halves)
{
    /* Every half is its own float. */
    for (u32 h = 0; h < 65536; h++) {
        f32 f = f32_of_f16((u16)h);
        int e = (int)(h >> 10 & 31);
        double want = e ? ldexp(1024 + (h & 1023), e - 25)
                        : ldexp(h & 1023, -24);
        if (e == 31) {
            CHECK(h & 1023 ? isnan(f) : isinf(f));
            continue;
        }
        CHECK((double)f == (h & 0x8000 ? -want : want));
        CHECK_EQ(f16_of_f32(f), h);
    }
    /* Between two halves: to the nearer, at the middle to the even one. */
    for (u32 h = 0; h < 0x7bff; h++) {
        double a = (double)f32_of_f16((u16)h);
        double b = (double)f32_of_f16((u16)(h + 1));
        f32 middle = (f32)((a + b) / 2);
        CHECK_EQ(f16_of_f32(middle), h + (h & 1));
        CHECK_EQ(f16_of_f32(nextafterf(middle, 0)), h);
        CHECK_EQ(f16_of_f32(nextafterf(middle, 1e6f)), h + 1);
    }
    /* A NaN stays one, and keeps its sign and upper bits, as in hardware. */
    CHECK_EQ(f16_of_f32(f32_of_bits(0x7f800001)), 0x7e00);
    CHECK_EQ(f16_of_f32(f32_of_bits(0xffc12345)), 0xfe09);
    uint64_t rng = test_seed;
    for (int trial = 0; trial < 500; trial++) {
        f32 x[50];
        u8 want[102], y[102];
        size_t n = 1 + fx_below(&rng, 49), shift = fx_below(&rng, 2);
        for (size_t i = 0; i < n; i++) {
            u32 bits = (u32)fx_next(&rng);
            x[i] = trial & 1 ? number(trial / 2 % KINDS, &rng)
                             : f32_of_bits(bits);
            if (isnan(x[i]))
                x[i] = 0;
        }
        memset(want, 0x77, sizeof want);
        scalar()->to_f16(x, n, want + shift);
        const k_row *k;
        EACH_ROW(k) {
            memset(y, 0x77, sizeof y);
            k->to_f16(x, n, y + shift);
            CHECK(memcmp(y, want, sizeof y) == 0);
        }
    }
}

TEST(maxima_and_sums)
{
    uint64_t rng = test_seed;
    for (int trial = 0; trial < 600; trial++) {
        f32 x[200], want[200], y[200];
        size_t n = 1 + fx_below(&rng, 199);
        numbers(x, n, trial % KINDS, &rng);
        f32 top = scalar()->max(x, n), sum = scalar()->sum_exp(x, n, top,
                                                               want);
        double exact_top = -INFINITY, exact_sum = 0;
        for (size_t i = 0; i < n; i++)
            exact_top = fmax(exact_top, (double)x[i]);
        CHECK((double)top == exact_top);
        for (size_t i = 0; i < n; i++) {
            double z = (double)x[i] - exact_top, e = exp(z);
            exact_sum += e;
            CHECK(fabs((double)want[i] - e) <= (1e-6 - 2e-7 * z) * e + 1e-37);
        }
        CHECK(fabs((double)sum - exact_sum) <= 2e-6 * exact_sum);
        const k_row *k;
        EACH_ROW(k) {
            f32 most = k->max(x, n);
            CHECK(most == top || same_floats(&most, &top, 1));
            CHECK(k->sum_exp(x, n, top, y) == sum);
            CHECK(same_floats(y, want, n));
            CHECK(k->sum_exp(x, n, top, NULL) == sum);
            memcpy(y, x, n * sizeof *x);
            CHECK(k->sum_exp(y, n, top, y) == sum);
            CHECK(same_floats(y, want, n));
        }
    }
}

/* ---- Attention ---------------------------------------------------------- */

enum { SLOTS = 192, MOST = 256, TOKENS = 3 };

/* Random keys or values x as a cache holds them; x becomes what they stand
 * for there. Int8 values have one scale, keys one for 64 dimensions. */
static void fill_cache(k_cache kind, bool value, f32 *x, size_t slots,
                       size_t d, u8 *to, f32 *scale)
{
    size_t stride = value ? (d + 15) / 16 * 16 : (d + 3) / 4 * 4;
    size_t part = value ? d : K_HADAMARD;
    memset(to, 0x80, kind == K_I8 ? slots * stride : 0);
    for (size_t p = 0; p < slots; p++, x += d) {
        i8 q[MOST + 16];
        if (kind == K_F16)
            scalar()->to_f16(x, d, to + 2 * p * d);
        for (size_t j = 0; j < d; j++)
            if (kind == K_F16)
                x[j] = f32_of_f16(ld_u16(to + 2 * (p * d + j)));
        if (kind == K_F32)
            memcpy(to + 4 * p * d, x, d * sizeof *x);
        for (size_t i = 0; i < d && kind == K_I8; i += part) {
            size_t n = min_size(part, d - i);
            f32 k = scale[i / part * slots + p] = scalar()->to_i8(x + i, n, q);
            for (size_t j = i; j < i + n; j++) {
                u8 byte = (u8)q[j - i];
                if (value)
                    to[p / 4 * 4 * stride + 4 * j + p % 4] = byte;
                else
                    to[p / 16 * 16 * stride + j / 4 * 64 + p % 16 * 4 +
                       j % 4] = byte ^ 0x80;
                x[j] = (f32)q[j - i] * k;
            }
        }
    }
}

static void attend(k_cache kind, int trial, uint64_t *rng)
{
    static const u16 dims[] = {2, 8, 16, 20, 32, 48, 64, 80, 96, 128, 256};
    static f32 kv[2][SLOTS * MOST], scale[2][SLOTS * MOST / 64];
    static u8 bytes[2][SLOTS * MOST * 4];
    static f32 q[TOKENS * 4 * MOST], want[TOKENS * 4 * MOST];
    static f32 y[TOKENS * 4 * MOST], q_scale[TOKENS * 4 * 8];
    static i8 q8[TOKENS * 4 * MOST];
    int heads = 1 << fx_below(rng, 3);
    size_t d = dims[fx_below(rng, 11)], d16 = (d + 15) / 16 * 16;
    size_t parts = (d + K_HADAMARD - 1) / K_HADAMARD;
    size_t slots = 64 * (1 + fx_below(rng, 3)), m = 1 + fx_below(rng, TOKENS);
    size_t length = 1 + fx_below(rng, (u32)(slots - m));
    size_t lo = fx_below(rng, trial % 3 ? 1 : 500);
    size_t hi = lo + length, rows = m * (size_t)heads;
    size_t size = kind == K_F32 ? 4 : 2;
    numbers(q, rows * d, trial % 2, rng);
    for (size_t r = 0; r < rows && kind == K_I8; r++)
        for (size_t i = 0; i < d; i += K_HADAMARD) {
            size_t n = min_size(K_HADAMARD, d - i);
            f32 *k = q_scale + 2 * (r * parts + i / K_HADAMARD);
            k[0] = scalar()->to_i8(q + r * d + i, n, q8 + r * d16 + i);
            k[1] = 0;
            for (size_t j = i; j < i + n; j++) {
                k[1] += q8[r * d16 + j];
                q[r * d + j] = (f32)q8[r * d16 + j] * k[0];
            }
        }
    for (int i = 0; i < 2; i++) {
        numbers(kv[i], slots * d, i ? trial % 3 : 0, rng);
        fill_cache(kind, i, kv[i], slots, d, bytes[i], scale[i]);
    }
    k_query a = {.q = q, .q8 = q8, .q_scale = q_scale, .k = bytes[0],
                 .v = bytes[1], .k_scale = scale[0], .v_scale = scale[1],
                 .key_dim = d, .value_dim = d,
                 .k_stride = kind == K_I8 ? (d + 3) / 4 * 4 : d * size,
                 .v_stride = kind == K_I8 ? d16 : d * size,
                 .n_slots = slots, .m = m, .hi = hi,
                 .window = lo ? length : 0, .scale = 1 / sqrtf((f32)d),
                 .q_heads = (size_t)heads, .out = want, .out_head = d,
                 .out_token = (size_t)heads * d, .kind = kind,
                 .group = (size_t)heads};
    k_attend(scalar(), &a);
    a.out = y;
    const k_row *k;
    EACH_ROW(k) {
        memset(y, 0x77, sizeof y);
        k_attend(k, &a);
        if (!CHECK(same_floats(y, want, d * rows)))
            printf("%s: head of %d, %d slots, %d to %d\n", k->name, (int)d,
                   (int)slots, (int)lo, (int)hi);
    }
    /* Together or alone: the same bits. */
    for (size_t r = 0; r < rows; r++) {
        k_query one = a;
        one.m = one.group = 1;
        one.hi = hi + r / (size_t)heads;
        one.q = q + r * d;
        one.q8 = q8 + r * d16;
        one.q_scale = q_scale + 2 * r * parts;
        k_attend(scalar(), &one);
        CHECK(same_floats(y, want + r * d, d));
    }
    double p[SLOTS], top = -INFINITY, sum = 0;
    for (size_t t = 0; t < length; t++) {
        const f32 *key = kv[0] + (lo + t) % slots * d;
        p[t] = 0;
        for (size_t i = 0; i < d; i++)
            p[t] += (double)q[i] * (double)key[i];
        p[t] *= (double)a.scale;
        top = fmax(top, p[t]);
    }
    for (size_t t = 0; t < length; t++)
        sum += p[t] = exp(p[t] - top);
    /* What rounding to int8 may do to a key's share: half of a 254th of the
     * largest product of probability and scale in its block. */
    double step[SLOTS];
    for (size_t t = 0; t < length; t++) {
        step[t] = 0;
        for (size_t u = 0; u < length && kind == K_I8; u++)
            if ((lo + u) / K_KEYS == (lo + t) / K_KEYS)
                step[t] = fmax(step[t],
                    p[u] / sum * (double)scale[1][(lo + u) % slots]);
    }
    for (size_t i = 0; i < d; i++) {
        double e = 0, magnitude = 0, may = 0;
        for (size_t t = 0; t < length; t++) {
            size_t slot = (lo + t) % slots;
            double v = (double)kv[1][slot * d + i];
            e += v * p[t] / sum;
            magnitude += fabs(v) * p[t] / sum;
            if (kind == K_I8 && scale[1][slot] > 0)
                may += 0.51 / 254 * step[t] * fabs(v / (double)scale[1][slot]);
        }
        if (!CHECK(fabs((double)want[i] - e)
                   <= may + 1e-4 * magnitude + 1e-30))
            printf("head of %d, %d to %d: %g should be %g\n", (int)d,
                   (int)lo, (int)hi, (double)want[i], e);
    }
}

TEST(attention)
{
    uint64_t rng = test_seed;
    for (int trial = 0; trial < test_times(225, 450); trial++)
        attend((k_cache)(trial % 3), trial / 3, &rng);
}

__attribute__((weak)) TEST_MAIN     /* see KERNELS in the Makefile */
