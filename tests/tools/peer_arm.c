/* llama.cpp's products on Arm, counted as bench_arm.c counts ours; see
 * bench_arm.py, which builds this once per instruction set with ROW its name.
 * Prints the same lines, with `raw` or `repacked` behind them. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RAW(t, q) void ggml_vec_dot_##t##_##q(int n, float *s, size_t bs, \
    const void *w, size_t bx, const void *x, size_t by, int nrc);
#define TILED(t) void t(int n, float *s, size_t bs, const void *w, \
    const void *x, int n_tokens, int n_rows);
RAW(q4_0, q8_0) RAW(q4_1, q8_1) RAW(q5_0, q8_0) RAW(q5_1, q8_1)
RAW(q8_0, q8_0) RAW(iq4_nl, q8_0) RAW(q2_K, q8_K) RAW(q3_K, q8_K)
RAW(q4_K, q8_K) RAW(q5_K, q8_K) RAW(q6_K, q8_K) RAW(iq4_xs, q8_K)
RAW(iq3_s, q8_K) RAW(iq1_s, q8_K) RAW(iq1_m, q8_K) RAW(iq2_xxs, q8_K)
RAW(iq2_xs, q8_K) RAW(iq2_s, q8_K) RAW(iq3_xxs, q8_K)

static const struct {
    const char *name;
    void (*dot)(int, float *, size_t, const void *, size_t, const void *,
        size_t, int);
    size_t n, bytes, x_bytes; /* weights, bytes of a block and of its inputs */
} DOTS[] = {
    {"Q4_0", ggml_vec_dot_q4_0_q8_0, 32, 18, 34},
    {"Q4_1", ggml_vec_dot_q4_1_q8_1, 32, 20, 36},
    {"Q5_0", ggml_vec_dot_q5_0_q8_0, 32, 22, 34},
    {"Q5_1", ggml_vec_dot_q5_1_q8_1, 32, 24, 36},
    {"Q8_0", ggml_vec_dot_q8_0_q8_0, 32, 34, 34},
    {"IQ4_NL", ggml_vec_dot_iq4_nl_q8_0, 32, 18, 34},
    {"Q2_K", ggml_vec_dot_q2_K_q8_K, 256, 84, 292},
    {"Q3_K", ggml_vec_dot_q3_K_q8_K, 256, 110, 292},
    {"Q4_K", ggml_vec_dot_q4_K_q8_K, 256, 144, 292},
    {"Q5_K", ggml_vec_dot_q5_K_q8_K, 256, 176, 292},
    {"Q6_K", ggml_vec_dot_q6_K_q8_K, 256, 210, 292},
    {"IQ4_XS", ggml_vec_dot_iq4_xs_q8_K, 256, 136, 292},
    {"IQ3_S", ggml_vec_dot_iq3_s_q8_K, 256, 110, 292},
    {"IQ1_S", ggml_vec_dot_iq1_s_q8_K, 256, 50, 292},
    {"IQ1_M", ggml_vec_dot_iq1_m_q8_K, 256, 56, 292},
    {"IQ2_XXS", ggml_vec_dot_iq2_xxs_q8_K, 256, 66, 292},
    {"IQ2_XS", ggml_vec_dot_iq2_xs_q8_K, 256, 74, 292},
    {"IQ2_S", ggml_vec_dot_iq2_s_q8_K, 256, 82, 292},
    {"IQ3_XXS", ggml_vec_dot_iq3_xxs_q8_K, 256, 98, 292},
};

typedef void tiled(int, float *, size_t, const void *, const void *, int, int);
/* What llama.cpp picks on a CPU with and without i8mm. */
#if defined I8MM
#define SHAPES(X) X(Q4_0, q4_0_4x8_q8_0) X(Q8_0, q8_0_4x8_q8_0)                \
    X(Q4_K, q4_K_8x8_q8_K) X(Q5_K, q5_K_8x8_q8_K) X(Q6_K, q6_K_8x8_q8_K)       \
    X(IQ4_NL, iq4_nl_4x4_q8_0)
#elif defined DOTPROD
#define SHAPES(X) X(Q4_0, q4_0_4x4_q8_0) X(Q8_0, q8_0_4x4_q8_0)                \
    X(Q4_K, q4_K_8x4_q8_K) X(Q5_K, q5_K_8x4_q8_K) X(Q6_K, q6_K_8x4_q8_K)       \
    X(IQ4_NL, iq4_nl_4x4_q8_0)
#else
#define SHAPES(X)
#endif
#define DECLARE(t, f) TILED(ggml_gemv_##f) TILED(ggml_gemm_##f)
SHAPES(DECLARE)
#define ROW_OF(t, f) {#t, ggml_gemv_##f, ggml_gemm_##f},
static const struct {
    const char *name;
    tiled *one, *many;
} TILES[] = {SHAPES(ROW_OF) {0, 0, 0}};

enum { MAX_IN = 4096, MAX_M = 128, MAX_ROWS = 256 };
static _Alignas(64) char w[MAX_ROWS * MAX_IN * 2], x[MAX_M * MAX_IN * 2];
static float y[MAX_M * MAX_ROWS];

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    size_t n = strtoul(argv[1], NULL, 0), rows = strtoul(argv[2], NULL, 0);
    if (n > MAX_IN || rows > MAX_ROWS) return 2;
    for (int j = 3; j < argc; j++) {
        size_t m = strtoul(argv[j], NULL, 0);
        if (m > MAX_M) return 2;
        for (size_t i = 0; i < sizeof DOTS / sizeof *DOTS; i++) {
            size_t row = n / DOTS[i].n * DOTS[i].bytes;
            size_t x_row = n / DOTS[i].n * DOTS[i].x_bytes;
            (void)getppid();
            for (size_t r = 0; r < rows; r++)
                for (size_t t = 0; t < m; t++)
                    DOTS[i].dot((int)n, y + t * rows + r, 0, w + r * row, 0,
                        x + t * x_row, 0, 1);
            (void)getppid();
            printf("%s %s %zu %zu raw\n", ROW, DOTS[i].name, m,
                m * rows * n / 32);
        }
        for (size_t i = 0; TILES[i].name; i++) {
            (void)getppid();
            if (m % 4 == 0)
                TILES[i].many((int)n, y, rows, w, x, (int)m, (int)rows);
            else
                for (size_t t = 0; t < m; t++)
                    TILES[i].one((int)n, y, rows, w, x, 1, (int)rows);
            (void)getppid();
            printf("%s %s %zu %zu repacked\n", ROW, TILES[i].name, m,
                m * rows * n / 32);
        }
    }
    return 0;
}
