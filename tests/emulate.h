/* emulate.h - AVX-512 and AVX-VNNI on a machine with AVX2, by SIMDe (Debian:
 * libsimde-dev), for the tests of the rows of those instruction sets:
 *
 *     make test CC='gcc -mavx2 -mfma -mf16c -Wno-psabi' \
 *         CFLAGS='-O1 -include tests/emulate.h' FRAME=
 *
 * `make matrix` does that as `emulated`. ksllm.c knows nothing of this file: it
 * takes from here what to compile these rows for, and which features the CPU
 * has beyond its own. */
#ifndef EMULATE_H
#define EMULATE_H

#define _GNU_SOURCE /* before any include, as ksllm.c would */
#define KS_HAS_AVX512 "avx2,fma,f16c"
#define KS_HAS_VBMI "avx2,fma,f16c"
#define KS_HAS_AVXVNNI "avx2,fma,f16c"
#define KS_IN_TURN(v)
#define KS_EMULATED (CPU_AVX512_VNNI | CPU_AVX512_VBMI | CPU_AVX_VNNI)

#if !defined __AVX2__ || defined __AVX512F__
#error "compile with -mavx2 -mfma -mf16c and nothing newer"
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop

/* Not in version 0.7. */
static inline simde__m512i emulate_srai_epi32(simde__m512i a, int n)
{
    simde__m512i_private p = simde__m512i_to_private(a);
    for (int i = 0; i < 2; i++)
        p.m256i[i] = _mm256_srai_epi32(p.m256i[i], n);
    return simde__m512i_from_private(p);
}
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 emulate_srai_epi32

static inline __m256i emulate_cvtepi32_epi16(simde__m512i a)
{
    simde__m512i_private p = simde__m512i_to_private(a);
    int16_t to[16];
    for (int i = 0; i < 16; i++)
        to[i] = (int16_t)p.i32[i];
    return _mm256_loadu_si256((const void *)to);
}
#undef _mm512_cvtepi32_epi16
#define _mm512_cvtepi32_epi16 emulate_cvtepi32_epi16

static inline simde__m512i emulate_zextsi256_si512(__m256i a)
{
    simde__m512i_private p;
    p.m256i[0] = a;
    p.m256i[1] = _mm256_setzero_si256();
    return simde__m512i_from_private(p);
}
#undef _mm512_zextsi256_si512
#define _mm512_zextsi256_si512 emulate_zextsi256_si512

/* Half a register to a whole one, each half by the instruction of 256 bits. */
#define EMULATE_WIDEN(widen)                                                   \
    static inline simde__m512i emulate_##widen(__m256i a)                      \
    {                                                                          \
        simde__m512i_private p;                                                \
        p.m256i[0] = _mm256_##widen(_mm256_castsi256_si128(a));                \
        p.m256i[1] = _mm256_##widen(_mm256_extracti128_si256(a, 1));           \
        return simde__m512i_from_private(p);                                   \
    }
EMULATE_WIDEN(cvtepu8_epi16)
EMULATE_WIDEN(cvtepu16_epi32)
#undef _mm512_cvtepu8_epi16
#define _mm512_cvtepu8_epi16 emulate_cvtepu8_epi16
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emulate_cvtepu16_epi32

static inline simde__m512 emulate_cvtepi32_ps(simde__m512i a)
{
    simde__m512i_private in = simde__m512i_to_private(a);
    simde__m512_private out;
    for (int i = 0; i < 2; i++)
        out.m256[i] = _mm256_cvtepi32_ps(in.m256i[i]);
    return simde__m512_from_private(out);
}
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emulate_cvtepi32_ps

static inline simde__m512 emulate_cvtph_ps(__m256i a)
{
    simde__m512_private out;
    out.m256[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
    out.m256[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
    return simde__m512_from_private(out);
}
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emulate_cvtph_ps

static inline simde__m512 emulate_maskz_loadu_ps(unsigned mask, const float *p)
{
    simde__m512_private out;
    for (int i = 0; i < 16; i++)
        out.f32[i] = mask >> i & 1 ? p[i] : 0;
    return simde__m512_from_private(out);
}
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps emulate_maskz_loadu_ps

static inline void emulate_mask_storeu_ps(
    float *p, unsigned mask, simde__m512 a)
{
    simde__m512_private in = simde__m512_to_private(a);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            p[i] = in.f32[i];
}
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps emulate_mask_storeu_ps

static inline simde__m512i emulate_madd_epi16(simde__m512i a, simde__m512i b)
{
    simde__m512i_private x = simde__m512i_to_private(a);
    simde__m512i_private y = simde__m512i_to_private(b);
    for (int i = 0; i < 2; i++)
        x.m256i[i] = _mm256_madd_epi16(x.m256i[i], y.m256i[i]);
    return simde__m512i_from_private(x);
}
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 emulate_madd_epi16

#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#define _mm256_dpwssd_avx_epi32 simde_mm256_dpwssd_epi32

#endif
