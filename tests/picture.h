/* picture.h - pictures that reference/make_media.py computes too. */
#ifndef KSLLM_TEST_PICTURE_H
#define KSLLM_TEST_PICTURE_H

#include <stdint.h>
#include <stdlib.h>

/* Odd seeds: noise. Even ones: waves under a little noise. To be freed. */
static inline uint8_t *picture(uint32_t w, uint32_t h, uint32_t seed)
{
    uint8_t *p = malloc((size_t)w * h * 3);
    for (uint32_t n = 0; p && n < w * h * 3; n++) {
        uint32_t v = n * 2654435761u + seed * 40503u;
        v ^= v >> 15;
        v *= 2246822519u;
        v ^= v >> 13;
        if (seed % 2 == 0) {
            uint32_t x = n / 3 % w, y = n / 3 / w;
            uint32_t t = (x * 5 + y * 3 * (n % 3 + 1) + seed * 11) & 255;
            v = (t < 128 ? 2 * t : 510 - 2 * t) * 3 / 4 + (v & 63);
        }
        p[n] = (uint8_t)v;
    }
    return p;
}

#endif
