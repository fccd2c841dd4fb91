/* What a picture or a sound costs before the first token: the tower's time and
 * memory.
 *
 *     build/tests/bench_tower MODEL.gguf MMPROJ.gguf WIDTH HEIGHT THREADS
 *         ROUNDS TILES [ROWS]
 *     build/tests/bench_tower MODEL.gguf MMPROJ.gguf SECONDS 0 THREADS ROUNDS 0
 *
 * prints rows, 10^9 multiply-adds, MiB of the encoder and of the media, and
 * milliseconds, the median of the rounds; the rows go to the file ROWS. `make
 * bench-tower` makes towers of real shapes and runs it on them, and llama.cpp
 * beside it. */
#include "../ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_ROUNDS = 99, RATE = 16000 };

/* With one thread its own time, which what else runs changes less. */
static double now_ms(bool alone)
{
    struct timespec t;
    clock_gettime(alone ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *noise(size_t n, size_t size)
{
    unsigned v = 1;
    void *p = malloc(n * size);
    for (size_t i = 0; p && i < n; i++) {
        v = v * 1664525 + 1013904223;
        if (size == 1) ((uint8_t *)p)[i] = (uint8_t)(v >> 24);
        else ((float *)p)[i] = (float)(v >> 16) / 65536 - 0.5f;
    }
    return p;
}

int main(int argc, char **argv)
{
    double ms[MAX_ROUNDS];
    ksllm_model *m = NULL;
    ksllm_model_options mo;
    ksllm_encoder *x = NULL;
    ksllm_encoder_options eo;
    ksllm_media_options o;
    ksllm_media_size z = {.size = sizeof z};
    ksllm_media media = {.size = sizeof media};
    ksllm_error e;
    size_t bytes;
    if (argc < 8) {
        fprintf(stderr, "usage: bench_tower MODEL.gguf MMPROJ.gguf WIDTH "
                "HEIGHT THREADS ROUNDS TILES [ROWS]\n");
        return 2;
    }
    const uint32_t w = (uint32_t)atoi(argv[3]), h = (uint32_t)atoi(argv[4]);
    const int rounds = atoi(argv[6]) < MAX_ROUNDS ? atoi(argv[6]) : MAX_ROUNDS;
    const ksllm_image image = {h ? noise((size_t)w * h * 3, 1) : NULL, w, h, 0};
    const ksllm_sound sound = {h ? NULL : noise((size_t)w * RATE, 4),
                               (size_t)w * RATE};
    ksllm_media_options_init(&o);
    ksllm_encoder_options_init(&eo);
    ksllm_model_options_init(&mo);
    mo.media_path = argv[2];
    o.max_tiles = (uint32_t)atoi(argv[7]);
    eo.n_threads = (uint32_t)atoi(argv[5]);
    if (ksllm_model_open(argv[1], &mo, &m, &e)
        || (h ? ksllm_media_measure(m, &image, &o, &z, &e)
              : ksllm_media_measure_sound(m, &sound, &z, &e)))
        goto failed;
    eo.max_tokens = z.n_tokens;
    if (ksllm_encoder_memory(m, &eo, &bytes, &e)
        || ksllm_encoder_create(m, &eo, &x, &e))
        goto failed;
    media.memory = malloc(z.memory);
    media.memory_size = z.memory;
    for (int i = -1; i < rounds; i++) {     /* the first one reads the file */
        double begin = now_ms(eo.n_threads == 1);
        if (h ? ksllm_media_encode(x, &image, &o, NULL, &media, &e)
              : ksllm_media_encode_sound(x, &sound, NULL, &media, &e))
            goto failed;
        if (i >= 0) ms[i] = now_ms(eo.n_threads == 1) - begin;
    }
    qsort(ms, (size_t)rounds, sizeof *ms, by_value);
    printf("%u rows, %.1f GMAC, encoder %.1f MiB, media %.1f MiB, %.1f ms\n",
           (unsigned)z.n_tokens, (double)z.n_macs / 1e9,
           (double)bytes / 1048576, (double)z.memory / 1048576,
           ms[rounds / 2]);
    if (argc > 8) {
        FILE *f = fopen(argv[8], "wb");
        size_t n = (size_t)media.n_tokens * media.n_embd;
        if (!f || fwrite(media.rows, 4, n, f) != n || fclose(f)) return 1;
    }
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    return 0;
failed:
    fprintf(stderr, "%s\n", e.text);
    return 1;
}
