/* sound.h - sounds that reference/make_media.py computes too. */
#ifndef KSLLM_TEST_SOUND_H
#define KSLLM_TEST_SOUND_H

#include <stdint.h>
#include <stdlib.h>

/* 0: silence. 1: tones that come and go, under noise. 2: too loud, so clipped.
 * 3: near the floor. To be freed. */
static inline float *sound(uint32_t kind, uint32_t n)
{
    float *x = calloc((size_t)n + 1, sizeof *x);
    for (uint32_t i = 0; x && i < n; i++) {
        uint32_t v = i * 2654435761u;
        v ^= v >> 15;
        v *= 2246822519u;
        v ^= v >> 13;
        int32_t noise = (int32_t)(v & 255) - 128;
        int32_t loud = (int32_t)(i / 1600 % 7);
        int32_t a = (int32_t)(i * 1931 & 65535) - 32768;
        int32_t b = (int32_t)(i * (5000 + i / 4000 * 377) & 65535) - 32768;
        a = ((a < 0 ? -a : a) - 16384) * loud;
        b = (b < 0 ? -b : b) - 16384;
        int32_t y = (a >> 3) + (b >> 2) + noise * 4;    /* floors, as // does */
        y = kind == 1 ? y : kind == 2 ? y * 9 : kind == 3 ? noise >> 6 : 0;
        y = y < -32768 ? -32768 : y > 32767 ? 32767 : y;
        x[i] = (float)y / 32768;
    }
    return x;
}

#endif
