/* Products on Arm for an emulator that counts instructions; bench_arm.py runs
 * this and tells what it means.
 *
 *     bench_arm N_IN ROWS TOKENS...
 *
 * Runs each product once between two marks (tests/tools/icount.c) and names
 * it on a line: instruction set, type, tokens, multiply-adds / 32. Weights are
 * zeros: no kernel branches on a value. */
#include "../ksllm.c"

#include <stdio.h>
#include <unistd.h>

enum { MAX_IN = 4096, MAX_M = 128, MAX_ROWS = 256 };

static const ksllm_type TYPES[] = {KSLLM_TYPE_Q4_0, KSLLM_TYPE_Q4_K,
    KSLLM_TYPE_Q6_K, KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q4_1, KSLLM_TYPE_Q5_0,
    KSLLM_TYPE_Q5_1, KSLLM_TYPE_Q5_K, KSLLM_TYPE_IQ4_NL, KSLLM_TYPE_IQ4_XS,
    KSLLM_TYPE_Q2_K, KSLLM_TYPE_Q3_K, KSLLM_TYPE_IQ3_S,
    KSLLM_TYPE_IQ1_S, KSLLM_TYPE_IQ1_M, KSLLM_TYPE_IQ2_XXS,
    KSLLM_TYPE_IQ2_XS, KSLLM_TYPE_IQ2_S, KSLLM_TYPE_IQ3_XXS};

static f32 x[MAX_M * MAX_IN], y[MAX_M * MAX_ROWS], d[MAX_M * MAX_IN / 32];
static u8 w[MAX_ROWS * MAX_IN * 2];
static i8 q[MAX_M * MAX_IN];
static i16 sum[MAX_M * MAX_IN / 16];

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    size_t n_in = strtoul(argv[1], NULL, 0), rows = strtoul(argv[2], NULL, 0);
    if (n_in > MAX_IN || rows > MAX_ROWS) return 2;
    k_acts acts = {x, {q, q}, {d, d}, {sum, sum}, n_in};
    const k_row *k;
    for (size_t i = 0; (k = k_at(i)) != NULL && k->needs; i++) {
        for (size_t t = 0; t < KS_LEN(TYPES); t++)
            for (int j = 3; j < argc; j++) {
                size_t m = strtoul(argv[j], NULL, 0);
                const blk_type *b = &BLK_TYPES[TYPES[t]];
                k_product p = {.type = TYPES[t], .w = w,
                    .row_bytes = n_in / b->n * b->bytes, .n_rows = rows,
                    .acts = &acts, .m = min_size(m, MAX_M), .y = y,
                    .y_stride = rows};
                (void)getppid();
                k->product[p.type](&p);
                (void)getppid();
                printf("%s %s %zu %zu\n", k->name, b->name, p.m,
                    p.m * rows * n_in / 32);
            }
    }
    return 0;
}
