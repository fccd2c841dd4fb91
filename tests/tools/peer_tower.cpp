// What a picture costs in llama.cpp's towers, without its language model: the
// picture of bench_tower.c, which has the tower's size already.
//
//     peer_tower MMPROJ.gguf WIDTH HEIGHT THREADS ROUNDS [ROWS]
//
// prints milliseconds, the median of the rounds; the rows go to the file ROWS.
// bench_tower.py runs it beside ours. `make bench-tower PEER=1` makes it of
// llama.cpp's tools/mtmd and the libraries of ggml.
#include "clip.h"
#include "clip-impl.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

// As bench_tower.c: with one thread its own time.
static double now_ms(bool alone)
{
    timespec t;
    clock_gettime(alone ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

int main(int argc, char **argv)
{
    if (argc < 6) return 2;
    const int w = atoi(argv[2]), h = atoi(argv[3]), rounds = atoi(argv[5]);
    const int threads = atoi(argv[4]);
    clip_context_params params = {};
    params.flash_attn_type = CLIP_FLASH_ATTN_TYPE_AUTO;
    clip_ctx *ctx = clip_init(argv[1], params).ctx_v;
    if (!ctx) return 1;
    clip_image_f32 image;
    image.set_size({w, h}, false, false);
    unsigned v = 1;
    std::vector<float> pixels((size_t)w * h * 3), out;
    for (float &x : pixels) {
        v = v * 1664525 + 1013904223;
        x = ((float)((v >> 24) / 255.0) - 0.5f) / 0.5f;
    }
    image.cpy_buf(pixels);
    out.resize((size_t)clip_n_output_tokens(ctx, &image)
               * (size_t)clip_n_mmproj_embd(ctx));
    std::vector<double> ms;
    for (int i = -1; i < rounds; i++) {
        double begin = now_ms(threads == 1);
        if (!clip_image_encode(ctx, threads, &image, out)) return 1;
        if (i >= 0) ms.push_back(now_ms(threads == 1) - begin);
    }
    std::sort(ms.begin(), ms.end());
    printf("%zu values, %.1f ms\n", out.size(), ms[ms.size() / 2]);
    if (argc > 6) {
        FILE *f = fopen(argv[6], "wb");
        if (!f || fwrite(out.data(), 4, out.size(), f) != out.size()
            || fclose(f))
            return 1;
    }
    return 0;
}
