/* How far the kernels are from the machine: products with one token in the L2
 * cache and against the read bandwidth, a few tokens against one, many against
 * a loop of multiplies in registers; and each row against the last one of the
 * table that has kernels of its own. What is compared is measured in turns;
 * medians of what the thread had of the processor, so that others on the
 * machine spoil less.
 *
 *     make bench-kernels            (one thread; --all for every type)
 *
 * GB/s counts bytes of weights; Gop/s counts a multiply-add as two. Weights
 * are random bits: speed does not depend on values here. */
#include "../ksllm.c"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 9, N_IN = 2048, MAX_M = 128 };

static const ksllm_type TYPES[] = {KSLLM_TYPE_Q4_0, KSLLM_TYPE_Q4_K,
    KSLLM_TYPE_Q6_K, KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q4_1, KSLLM_TYPE_Q5_0,
    KSLLM_TYPE_Q5_1, KSLLM_TYPE_Q2_K, KSLLM_TYPE_Q3_K, KSLLM_TYPE_Q5_K,
    KSLLM_TYPE_IQ4_NL, KSLLM_TYPE_IQ4_XS, KSLLM_TYPE_IQ3_S, KSLLM_TYPE_F16, KSLLM_TYPE_BF16,
    KSLLM_TYPE_F32};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

typedef struct {
    u8 *w;
    size_t w_bytes;
    f32 *x, *y;
    k_acts acts;
} rig;

/* Sums 8-byte words, unrolled; the compiler vectorises it. */
static double read_rate(const rig *r) {
    const u64 *p = (const void *)r->w;
    size_t n = r->w_bytes / 8;
    u64 s[32] = {0};
    double t = now();
    for (size_t i = 0; i + 32 <= n; i += 32) {
        __builtin_prefetch((const char *)(p + i) + 4096);
        __builtin_prefetch((const char *)(p + i) + 4096 + 64);
        __builtin_prefetch((const char *)(p + i) + 4096 + 128);
        __builtin_prefetch((const char *)(p + i) + 4096 + 192);
        for (size_t k = 0; k < 32; k++) s[k] += p[i + k];
    }
    t = now() - t;
    u64 all = 0;
    for (size_t k = 0; k < 32; k++) all ^= s[k];
    r->y[0] = (f32)all;
    return (double)r->w_bytes / t * 1e-9;
}

/* The most that multiplies of this row's kind do without touching memory. */
#if defined KS_X86
/* What a product of nibbles cannot do without: a multiplication and an
 * addition of 16 bits for 32 weights. */
__attribute__((target("avx2"))) static double peak_avx2(f32 *sink) {
    __m256i a[8], x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5);
    for (int k = 0; k < 8; k++) a[k] = _mm256_set1_epi8((char)k);
    double t = now();
    for (int i = 0; i < 4000000; i++) {
        KS_UNROLL
        for (int k = 0; k < 8; k++) {
            __asm__("" : "+x"(y)); /* or the product would leave the loop */
            a[k] = _mm256_add_epi16(a[k], _mm256_maddubs_epi16(x, y));
        }
    }
    t = now() - t;
    for (int k = 1; k < 8; k++) a[0] = _mm256_add_epi32(a[0], a[k]);
    *sink = (f32)_mm256_extract_epi32(a[0], 0);
    return 4e6 * 8 * 64 / t * 1e-9;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static double
peak_avx512vnni(f32 *sink) {
    __m512i a[16], x = _mm512_set1_epi8(3);
    for (int k = 0; k < 16; k++) a[k] = _mm512_set1_epi8((char)k);
    double t = now();
    for (int i = 0; i < 4000000; i++)
        for (int k = 0; k < 16; k++)
            a[k] = _mm512_dpbusd_epi32(a[k], x, a[k]);
    t = now() - t;
    for (int k = 1; k < 16; k++) a[0] = _mm512_add_epi32(a[0], a[k]);
    *sink = (f32)_mm512_reduce_add_epi32(a[0]);
    return 4e6 * 16 * 128 / t * 1e-9;
}
#endif

static double peak_rate(const char *isa, f32 *sink) {
#if defined KS_X86
    if (strncmp(isa, "avx512", 6) == 0) return peak_avx512vnni(sink);
    if (strcmp(isa, "avx2") == 0) return peak_avx2(sink);
#endif
    (void)isa;
    (void)sink;
    return 0;
}

static k_product product_of(rig *r, ksllm_type type, size_t bytes, size_t m) {
    size_t row = N_IN / BLK_TYPES[type].n * BLK_TYPES[type].bytes;
    size_t rows = min_size(bytes, r->w_bytes) / row;
    r->acts.n_in = N_IN;
    r->acts.x = r->x;
    return (k_product){.type = type, .w = r->w, .row_bytes = row,
        .n_rows = rows / 16 * 16, .acts = &r->acts, .m = m, .y = r->y,
        .y_stride = rows};
}

static double run(const k_row *k, k_product *p) {
    double t = now();
    k->product[p->type](p);
    return now() - t;
}

/* GB/s of one token and a matrix that stays in the L2 cache. */
static double run_l2(rig *r, const k_row *k, ksllm_type type) {
    enum { TIMES = 64 };
    k_product p = product_of(r, type, (size_t)256 << 10, 1);
    double t = now();
    for (int i = 0; i < TIMES; i++) k->product[type](&p);
    return TIMES * (double)(p.n_rows * p.row_bytes) / (now() - t) * 1e-9;
}

static void prepare(rig *r, const k_row *k) {
    u32 seed = 1;
    r->w_bytes = (size_t)256 << 20;
    r->w = aligned_alloc(64, r->w_bytes);
    r->x = calloc((size_t)MAX_M * N_IN, sizeof *r->x);
    r->y = calloc((size_t)64 << 20, 1);
    /* Bytes below 0x38 everywhere: as halves they are small and finite. */
    for (size_t i = 0; i < r->w_bytes; i++) {
        seed = seed * 1664525 + 1013904223;
        r->w[i] = (u8)(seed >> 24) % 0x38;
    }
    for (size_t i = 0; i < (size_t)MAX_M * N_IN; i++) {
        seed = seed * 1664525 + 1013904223;
        r->x[i] = (f32)(i32)seed * 1e-9f;
    }
    for (int i = 0; i < 2; i++) {
        size_t nb = i ? 256 : 32;
        r->acts.q[i] = aligned_alloc(64, (size_t)MAX_M * N_IN);
        r->acts.d[i] = malloc((size_t)MAX_M * N_IN / nb * sizeof(f32));
        r->acts.sum[i] = malloc((size_t)MAX_M * N_IN / 16 * sizeof(i16));
        k->quantize(r->x, (size_t)MAX_M * N_IN, nb, r->acts.q[i],
            r->acts.d[i], r->acts.sum[i]);
    }
}

static void bench_row(
    rig *r, const k_row *k, const k_row *base, size_t n_types) {
    static const size_t few[] = {2, 4, 8, 16}, many[] = {64, 128};
    double peak = peak_rate(k->name, r->y);
    printf("\n%s, n_in %d, one thread\n", k->name, N_IN);
    printf("%-7s %6s %9s | %6s %6s %6s | tokens over one:", "type", "L2",
        base->name, "memory", "read", "share");
    for (size_t i = 0; i < KS_LEN(few); i++) printf(" %5zu", few[i]);
    printf(" | Gop/s with");
    for (size_t i = 0; i < KS_LEN(many); i++) printf(" %5zu", many[i]);
    if (peak > 0) printf(" of %.0f", peak);
    printf("\n");
    for (size_t i = 0; i < n_types; i++) {
        double l2[ROUNDS], beside[ROUNDS], rate[ROUNDS], read[ROUNDS];
        double share[ROUNDS], over[KS_LEN(few)][ROUNDS];
        double gop[KS_LEN(many)][ROUNDS];
        for (int round = 0; round < ROUNDS; round++) {
            l2[round] = run_l2(r, k, TYPES[i]);
            beside[round] = l2[round] / run_l2(r, base, TYPES[i]);
            k_product p = product_of(r, TYPES[i], (size_t)64 << 20, 1);
            read[round] = read_rate(r);
            double one = run(k, &p);
            rate[round] = (double)(p.n_rows * p.row_bytes) / one * 1e-9;
            share[round] = rate[round] / read[round];
            for (size_t j = 0; j < KS_LEN(few); j++) {
                p = product_of(r, TYPES[i], (size_t)64 << 20, few[j]);
                over[j][round] = run(k, &p) / one;
            }
            for (size_t j = 0; j < KS_LEN(many); j++) {
                p = product_of(r, TYPES[i], (size_t)2 << 20, many[j]);
                gop[j][round] = 2.0 * (double)p.n_rows * N_IN
                    * (double)many[j] / run(k, &p) * 1e-9;
            }
        }
        printf("%-7s %6.1f %9.2f | %6.1f %6.1f %6.2f |                 ",
            BLK_TYPES[TYPES[i]].name, median(l2, ROUNDS),
            median(beside, ROUNDS), median(rate, ROUNDS),
            median(read, ROUNDS), median(share, ROUNDS));
        for (size_t j = 0; j < KS_LEN(few); j++)
            printf(" %5.2f", median(over[j], ROUNDS));
        printf(" |           ");
        for (size_t j = 0; j < KS_LEN(many); j++)
            printf(" %5.0f", median(gop[j], ROUNDS));
        printf("\n");
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    bool all = argc > 1 && strcmp(argv[1], "--all") == 0;
    rig r = {0};
    prepare(&r, k_choose(NULL));
    const k_row *k, *base = k_at(0);
    for (size_t i = 0; (k = k_at(i)) != NULL; i++)
        if (k->needs) base = k;
    for (size_t i = 0; (k = k_at(i)) != NULL; i++)
        if (k->needs || k == base)
            bench_row(&r, k, base, all ? KS_LEN(TYPES) : 4);
    return 0;
}
