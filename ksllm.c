/* ksllm.c - Korean language models on the device: the library.
 *
 * SPDX-License-Identifier: MIT
 *
 * ksllm.h says what it does; this file is how. It is one file, in sections
 * from small and general to public. A section uses only what stands above it:
 * there is no forward declaration of a static function, so the compiler keeps
 * the layers in order. `grep -n '^ \* §' ksllm.c` prints the contents.
 *
 *   § 1  PLATFORM    compilers, systems, the floating-point rules
 *   § 2  BASE        short names, errors, memory, checked sizes, own maths
 *   § 3  OS          the only place that talks to the operating system
 *   § 4  CPU         which instruction sets may be used
 *   § 5  POOL        worker threads
 *   § 6  BLOCKS      the weight formats
 *   § 7  KERNELS     the arithmetic, once per instruction set
 *   § 8  GGUF        the file format, all checks on bytes from outside
 *   § 9  TEXT        UTF-8, Hangul, character classes
 *   § 10 TOKENIZER   text to tokens and back
 *   § 11 JSON        the one reader, and strings out
 *   § 12 TEMPLATE    the Jinja that chat templates are written in
 *   § 13 CHAT        a conversation to tokens, an answer to parts
 *   § 14 MODEL       architectures as data, tensors bound to the graph
 *   § 15 SESSION     the memory plan, the timeline, the KV cache
 *   § 16 FORWARD     the one graph
 *   § 17 SAMPLING    from logits to a token
 *   § 18 GENERATE    prompt in, pieces of text out
 *   § 19 API         every public function: check, call, report
 *
 * DESIGN. What holds the file together (each has a test in tests/):
 *
 *   I1 No exit, abort, assert, print, signal or longjmp. Only ksllm_ symbols.
 *   I2 No heap call between creating and freeing a session.
 *   I3 No mutable global state.
 *   I4 A model is immutable once open and may be shared by threads.
 *   I5 Bytes from a file are checked once (§ 8, 10, 14) and trusted after.
 *   I6 Results do not depend on threads, batch split, cache or instruction
 *      set. See THE ARITHMETIC below.
 *   I7 Every allocation may fail; nothing leaks.
 *   I8 A stopped call leaves a session that continues to the same bits.
 *
 * THE ARITHMETIC. Every kernel computes the same float operations in the same
 * order, whatever its vector width:
 *
 *   - A product with quantized weights goes over the blocks of a row in
 *     ascending order. A block of 32 or 256 weights meets activations
 *     quantized to int8 with one scale per block of the same length, and its
 *     integer part is exact:
 *         P = sum over groups of 16: scale_g * sum of q_i * x_i
 *         M = sum over groups of 16: min_g * sum of x_i
 *         acc = fma(P * d, dx, acc);  then, for formats with minima,
 *         acc = fma(M * -dmin, dx, acc)
 *     Integers may be added in any order. A lane of floats is a row, a token
 *     or a block, never a slice of a row's sum.
 *     Scales are taken to be finite: after an infinite one in a damaged file,
 *     one row may give NaN where another gives infinity.
 *   - A sum over floats (norms, softmax, attention, float weights) has 16
 *     partial sums, element i goes to partial i mod 16 in ascending order with
 *     one fma each, and the partials are added as a fixed tree.
 *   - fma only where written; no contraction by the compiler. Own exp, log,
 *     sin, cos; libm gives nothing but sqrt, which IEEE 754 defines exactly.
 *   - Attention goes over blocks of 64 keys at fixed absolute positions. With
 *     the int8 cache, whose keys and values are rotated (k_hadamard), scores
 *     are exact integer sums over 64 dimensions and values over a block of
 *     keys.
 *
 * NOT TAKEN:
 *
 *   - Requantizing a prompt's weights to one scale for 256. It takes sdot from
 *     3.6 to 2.7 and smmla from 2.8 to 1.9 instructions for 32 multiply-adds
 *     (prototypes, Q4_0). But a single token would need the same weights:
 *     either every block is requantized for each token, or logits depend on
 *     how a prompt was split (I6).
 *   - AMX. Its tiles need such weights to win: with exact sums of 32 they did
 *     205 Gop/s, AVX512-VNNI 270 to 355 (prototypes, Sapphire Rapids).
 *   - Keeping top-k while logits are computed. All of sampling takes 0.15 % of
 *     a decode (0.5B model, 110,592 tokens).
 *   - fail() as a cold function. gcc then splits the functions that call it:
 *     2.7 KB more at -O2, as each part has unwind tables of its own.
 */
#ifndef KS_ISA

/* ==========================================================================
 * § 1 PLATFORM (private)
 * Compilers, systems, and the rules that floating point must follow. Knows
 * nothing of the library. Everything that is #if by platform and is not a
 * kernel stands here or in § 3.
 * ======================================================================== */

#if !defined _GNU_SOURCE && defined __linux__
#define _GNU_SOURCE 1 /* sched_getaffinity; before any include */
#endif
#if !defined _FILE_OFFSET_BITS && defined __linux__
#define _FILE_OFFSET_BITS 64 /* 32-bit glibc: files above 2 GB */
#endif
#if !defined _DARWIN_C_SOURCE && defined __APPLE__
#define _DARWIN_C_SOURCE 1
#endif

#include "ksllm.h"

#include <float.h>
#include <limits.h>
#include <math.h> /* INFINITY; no function */
#include <stdarg.h>
#include <stdio.h> /* vsnprintf; nothing here touches a FILE */
#include <stdlib.h>
#include <string.h>

#if !defined __GNUC__
#error "ksllm needs gcc or clang (C11 with the usual extensions)"
#endif
#if defined __BYTE_ORDER__ && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ksllm needs a little-endian machine: GGUF weights are used in place"
#endif
#if defined __FAST_MATH__
#error "-ffast-math breaks ksllm: compile ksllm.c without it"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "x87 arithmetic gives other bits: add -msse2 -mfpmath=sse"
#endif

/* The compiler must not fuse a*b+c. gcc ignores the standard pragma, clang
 * ignores gcc's. */
#if defined __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

#if !defined KSLLM_NO_SIMD
#if defined __x86_64__ || defined __i386__
#define KS_X86 1
#include <immintrin.h>
/* What to compile a row for. A header given by -include may define these to run
 * all rows anywhere, and KS_EMULATED to the features that it emulates. */
#if !defined KS_EMULATED
#define KS_HAS_AVX512 "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni"
#if (defined __clang__ && __clang_major__ >= 12)                               \
    || (!defined __clang__ && __GNUC__ >= 11)
#define KS_HAS_AVXVNNI "avx2,fma,f16c,avxvnni"
#endif
#endif
#elif defined __aarch64__
#define KS_ARM64 1
#include <arm_neon.h>
/* The target strings for sdot and smmla. clang has none before 16. */
#if defined __clang__ && __clang_major__ >= 16
#define KS_HAS_DOTPROD "dotprod"
#define KS_HAS_I8MM "dotprod,i8mm"
#elif !defined __clang__
#define KS_HAS_DOTPROD "arch=armv8.2-a+dotprod"
#define KS_HAS_I8MM "arch=armv8.2-a+dotprod+i8mm"
#endif
#endif
#endif

/* Opens and closes a stretch of code compiled for another instruction set. */
#define KS_STRING_(x) #x
#define KS_STRING(x) KS_STRING_(x)
#if defined __clang__
#define KS_TARGET_BEGIN(t) \
    _Pragma(KS_STRING(clang attribute push( \
        __attribute__((target(t))), apply_to = function)))
#define KS_TARGET_END _Pragma("clang attribute pop")
#else
#define KS_TARGET_BEGIN(t) \
    _Pragma("GCC push_options") _Pragma(KS_STRING(GCC target(t)))
#define KS_TARGET_END _Pragma("GCC pop_options")
#endif

#define KS_INLINE static inline __attribute__((always_inline))
#define KS_NOINLINE static __attribute__((noinline))
/* Before a short loop over registers: unroll it whatever -O says. FULLY is for
 * loops up to 16; elsewhere on x86 it only makes code larger. ROLLED stays. */
#if defined __clang__
#define KS_UNROLL _Pragma("clang loop unroll(full)")
#define KS_UNROLL_FULLY KS_UNROLL
#define KS_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define KS_ROLLED _Pragma("GCC unroll 1")
#define KS_UNROLL_FULLY _Pragma("GCC unroll 16")
#if defined __aarch64__
#define KS_UNROLL KS_UNROLL_FULLY
#else
#define KS_UNROLL _Pragma("GCC unroll 8")
#endif
#endif
/* Keeps the compiler from moving loads up and running out of registers. */
#define KS_FENCE __asm__ volatile("" ::: "memory")
/* x86: s += p in the register that holds s; `op` is a vector addition. Left
 * alone, gcc reorders the additions, keeps every term live, and spills, or
 * copies the sum before it adds. After the bar: the operands under
 * -masm=intel. */
#define KS_ADD(op, s, p)                                                       \
    __asm__(op " {%1, %0, %0|%0, %0, %1}" : "+x"(s) : "x"(p))
/* Arm: forces both vectors to be ready here. Then one instruction loads
 * neighbours, and reads of a register end before it changes. */
#define KS_TOGETHER(a, b) __asm__ volatile("" : "+w"(a), "+w"(b))
/* Hides p's origin from the compiler, so it increments p and addresses
 * relative to it; otherwise gcc keeps every address in memory. */
#define KS_OPAQUE(p) __asm__("" : "+r"(p))
#define KS_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define KS_UNUSED __attribute__((unused))
#define KS_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Atomics: the gcc/clang builtins on plain integers, so that public structs
 * need no <stdatomic.h> in C++. */
#define AT_LOAD(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define AT_RELAXED(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define AT_STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define AT_ADD(p, v) __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST)
/* A store that the next load must not pass. A plain store is enough on a
 * processor, but qemu 7 seems to let loads pass Arm's: once the caller of a
 * pool and its worker both slept. */
#define AT_SWAP(p, v) ((void)__atomic_exchange_n(p, v, __ATOMIC_SEQ_CST))

/* ==========================================================================
 * § 2 BASE (private)
 * Short names, byte loads, checked sizes, the error record, the allocator,
 * half precision, and elementary functions with one result everywhere. Pure
 * code: no system, no library state.
 * ======================================================================== */

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int16_t i16;
typedef uint32_t u32;
typedef int32_t i32;
typedef uint64_t u64;
typedef int64_t i64;
typedef float f32;
typedef double f64;

/* Bytes that do not end with NUL. */
typedef struct {
    const char *p;
    size_t n;
} str;

KS_INLINE str str_of(const char *z) { return (str){z, z ? strlen(z) : 0}; }

static bool str_eq(str a, str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static int str_cmp(str a, str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* For "%.*s": the length, cut so that a message keeps its end. */
static int str_len(str s) { return (int)(s.n < 120 ? s.n : 120); }
#define STR(s) str_len(s), (s).p ? (s).p : ""
/* For "%llu". */
#define LLU(n) ((unsigned long long)(n))

/* Unaligned little-endian loads. */
#define LOAD(T, name)                                                          \
    KS_UNUSED KS_INLINE T ld_##name(const void *p) {                           \
        T v;                                                                   \
        memcpy(&v, p, sizeof v);                                               \
        return v;                                                              \
    }
LOAD(u16, u16)
LOAD(i16, i16)
LOAD(u32, u32)
LOAD(i32, i32)
LOAD(u64, u64)
LOAD(i64, i64)
LOAD(f32, f32)
LOAD(f64, f64)
#undef LOAD

KS_INLINE u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
KS_INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
KS_INLINE size_t max_size(size_t a, size_t b) { return a > b ? a : b; }
KS_INLINE u64 min_u64(u64 a, u64 b) { return a < b ? a : b; }
KS_INLINE u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }

/* a + b and a * b in 64 bits; false on overflow. */
KS_INLINE bool add_ok(u64 a, u64 b, u64 *r) {
    return !__builtin_add_overflow(a, b, r);
}
KS_INLINE bool mul_ok(u64 a, u64 b, u64 *r) {
    return !__builtin_mul_overflow(a, b, r);
}

/* ---- errors ---- */

/* Bytes of the UTF-8 character at s; 0 if there is none. Stops at NUL. */
static u32 utf8_size(const u8 *s) {
    u32 n = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3
        : *s < 0xf5 ? 4 : 0;
    for (u32 i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return n;
}

/* Names and excerpts come from outside and may be cut anywhere: the rest of a
 * cut character is dropped, what cannot be printed becomes a question mark. */
static void keep_whole(char *text) {
    u8 *to = (u8 *)text;
    for (const u8 *p = to; *p;) {
        u32 n = utf8_size(p);
        if (n > 1) {
            for (; n > 0; n--) *to++ = *p++;
            continue;
        }
        bool cut = n == 0 && *p >= 0xc2;
        if (!cut) *to++ = n && *p >= 32 && *p != 127 ? *p : '?';
        for (p++; cut && (*p & 0xc0) == 0x80;) p++;
    }
    *to = 0;
}

static void fail_va(ksllm_error *err, ksllm_status status, u64 offset,
    str name, const char *fmt, va_list ap) {
    if (!err) return;
    err->status = status;
    err->offset = offset;
    const size_t cap = sizeof err->text;
    int n = name.p ? snprintf(err->text, cap, "%.*s: ", STR(name)) : 0;
    if (n < 0) n = 0;
    if (vsnprintf(err->text + n, cap - (size_t)n, fmt, ap) < 0)
        err->text[n] = 0;
    keep_whole(err->text);
}

static KS_PRINTF(4, 5) ksllm_status fail(
    ksllm_error *err, ksllm_status status, u64 offset, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail_va(err, status, offset, (str){NULL, 0}, fmt, ap);
    va_end(ap);
    return status;
}

#define NO_OFFSET KSLLM_NO_OFFSET

static ksllm_status fail_memory(ksllm_error *err, size_t bytes) {
    return fail(err, KSLLM_ERR_MEMORY, NO_OFFSET,
        "out of memory: could not allocate %llu bytes", LLU(bytes));
}

/* Ends the function if the call fails. */
#define TRY(call)                                                              \
    do {                                                                       \
        ksllm_status tried = (call);                                           \
        if (tried) return tried;                                               \
    } while (0)

/* ---- allocator ---- */

static void *mem_libc(void *ctx, void *p, size_t old_size, size_t new_size) {
    (void)ctx;
    (void)old_size;
    if (new_size) return realloc(p, new_size);
    free(p);
    return NULL;
}

static const ksllm_allocator MEM_LIBC = {mem_libc, NULL};

static void *mem_alloc(const ksllm_allocator *a, size_t size) {
    return size ? a->resize(a->ctx, NULL, 0, size) : NULL;
}

static void mem_free(const ksllm_allocator *a, void *p, size_t size) {
    if (p) a->resize(a->ctx, p, size, 0);
}

/* ---- sorting ----
 * Indexes idx[0..n) in ascending order by less(); tmp holds n. Bottom-up merge
 * sort: n log n for every input, so no file can make it quadratic; stable, so
 * there is one result. */
typedef bool (*sort_less)(const void *ctx, u32 a, u32 b);

static void sort_merge(u32 *to, const u32 *from, size_t lo, size_t mid,
    size_t hi, sort_less less, const void *ctx) {
    size_t a = lo, b = mid;
    for (size_t k = lo; k < hi; k++) {
        bool right = a >= mid || (b < hi && less(ctx, from[b], from[a]));
        to[k] = right ? from[b++] : from[a++];
    }
}

static void sort_u32(
    u32 *idx, u32 *tmp, size_t n, sort_less less, const void *ctx) {
    for (size_t w = 1; w < n; w *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * w)
            sort_merge(tmp, idx, lo, min_size(lo + w, n),
                min_size(lo + 2 * w, n), less, ctx);
        memcpy(idx, tmp, n * sizeof *idx);
    }
}

/* ---- half precision ---- */

KS_INLINE f32 f32_of_bits(u32 u) {
    f32 f;
    memcpy(&f, &u, 4);
    return f;
}
KS_INLINE u32 bits_of_f32(f32 f) {
    u32 u;
    memcpy(&u, &f, 4);
    return u;
}

KS_INLINE f32 f32_of_bf16(u16 h) { return f32_of_bits((u32)h << 16); }

/* Exact. The exponent is rebiased by a multiplication with 2^112, which also
 * normalises subnormals. */
KS_INLINE f32 f32_of_f16(u16 h) {
    u32 sign = (u32)(h & 0x8000) << 16, mag = (u32)(h & 0x7fff) << 13;
    if (mag >= 0x0f800000) return f32_of_bits(sign | mag | 0x7f800000);
    return f32_of_bits(sign | bits_of_f32(f32_of_bits(mag) * 0x1p112f));
}

/* Round to nearest even, as vcvtps2ph and fcvtn do. */
KS_INLINE u16 f16_of_f32(f32 f) {
    u32 u = bits_of_f32(f), sign = u >> 16 & 0x8000, mag = u & 0x7fffffff;
    if (mag > 0x7f800000) return (u16)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
    if (mag >= 0x477ff000) return (u16)(sign | 0x7c00);
    if (mag < 0x38800000) { /* subnormal: let the FPU round at 2^-24 */
        f32 v = f32_of_bits(mag) + 0.5f;
        return (u16)(sign | (bits_of_f32(v) - 0x3f000000));
    }
    mag += 0xfff + (mag >> 13 & 1);
    return (u16)(sign | (mag - 0x38000000) >> 13);
}

/* ---- one fma everywhere ----
 * Where the target has the instruction, that; otherwise exact arithmetic in
 * double, rounded once: the sum is forced to odd when it was inexact, which
 * makes the second rounding (to float) the right one. */
KS_INLINE f32 ks_fma(f32 a, f32 b, f32 c) {
#if defined __FMA__ || defined __ARM_FEATURE_FMA || defined __aarch64__
    return __builtin_fmaf(a, b, c);
#else
    f64 p = (f64)a * (f64)b, z = (f64)c, s = p + z;
    f64 t = s - p, e = (p - (s - t)) + (z - t);
    if (e < 0 || e > 0) {
        u64 u;
        memcpy(&u, &s, 8);
        if (!(u & 1)) u = (e > 0) == (s > 0) ? u + 1 : u - 1;
        memcpy(&s, &u, 8);
    }
    return (f32)s;
#endif
}

/* ---- elementary functions in double ----
 * For tables (rope) and single values (log-probabilities): plain * and + in a
 * fixed order, so the same bits on every machine; better than 1e-14 relative
 * over the ranges used here. */

static f64 m_ln(f64 x) { /* x > 0, finite, normal */
    u64 u;
    memcpy(&u, &x, 8);
    i32 e = (i32)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffu) | 0x3ff0000000000000u;
    memcpy(&x, &u, 8);
    if (x > 1.4142135623730951) x *= 0.5, e++;
    f64 t = (x - 1) / (x + 1), t2 = t * t, s = 0; /* ln x = 2 artanh t */
    for (int k = 23; k > 0; k -= 2) s = s * t2 + 1.0 / k;
    return 2 * t * s + e * 0.6931471805599453;
}

static f64 m_exp(f64 x) {
    if (!(x >= -700)) return 0; /* NaN too */
    if (x > 700) x = 700;
    f64 k = x * 1.4426950408889634;
    i32 n = (i32)(k < 0 ? k - 0.5 : k + 0.5);
    f64 r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    f64 s = 1;
    for (int i = 14; i > 0; i--) s = 1 + s * r / i;
    u64 u = (u64)(n + 1023) << 52;
    f64 scale;
    memcpy(&scale, &u, 8);
    return s * scale;
}

static f64 m_pow(f64 x, f64 y) { return m_exp(y * m_ln(x)); }

/* sin and cos of an angle up to 2^31 or so. pi/2 in three parts of 33 bits:
 * n * part is exact for n < 2^20, the error stays near 1e-15 beyond. */
static void m_sincos(f64 x, f64 *sine, f64 *cosine) {
    if (!(x > -1e18 && x < 1e18)) x = 0; /* from a file: no i64 holds it */
    f64 k = x * 0.63661977236758134308;
    i64 n = (i64)(k < 0 ? k - 0.5 : k + 0.5);
    f64 r = ((x - (f64)n * 1.57079632673412561417e+00)
        - (f64)n * 6.07710050630396597660e-11)
        - (f64)n * 2.02226624879595063154e-21;
    f64 r2 = r * r, s = 0, c = 0;
    for (int i = 17; i > 1; i -= 2) s = (1 + s) * -r2 / (i * (i - 1));
    for (int i = 18; i > 1; i -= 2) c = (1 + c) * -r2 / (i * (i - 1));
    s = r + r * s, c = 1 + c;
    *sine = n & 1 ? c : s;
    *cosine = n & 1 ? s : c;
    if (n & 2) *sine = -*sine;
    if ((n + 1) & 2) *cosine = -*cosine;
}

/* ==========================================================================
 * § 3 OS (private)
 * The only place that talks to the operating system: mapping files, the clock,
 * counting cores. May use § 1-2. Porting to another system means this section
 * and the thread part of § 5.
 * ======================================================================== */

#if !defined KSLLM_NO_MMAP
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#endif
#if !defined KSLLM_NO_THREADS
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#endif
#if !defined KSLLM_NO_MMAP || !defined KSLLM_NO_THREADS
#include <fcntl.h>
#include <unistd.h>
#endif
#if defined __APPLE__
#include <sys/sysctl.h>
#endif
#include <time.h>

/* Nanoseconds of a clock that never goes back. */
static u64 os_now(void) {
    struct timespec t = {0}; /* a clock that fails must not look far ahead */
#if defined CLOCK_MONOTONIC
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

/* A file's bytes [p, p + n). map is NULL for memory of the caller. */
typedef struct {
    const u8 *p;
    u64 n;
    void *map;
    size_t map_n;
    bool copied; /* map comes from the allocator */
} os_file;

#if !defined KSLLM_NO_MMAP

/* strerror is not thread-safe, and its safe form differs between systems. */
static const char *os_reason(int e) {
    switch (e) {
    case ENOENT: return "there is no such file";
    case EACCES: case EPERM: return "permission denied";
    case EISDIR: case ENODEV: return "it is not a regular file";
    case EMFILE: case ENFILE: return "too many files are open";
    case ENOMEM: return "no address space left";
    case EBADF: return "the descriptor is not open for reading";
    default: return "the system refused it";
    }
}

/* Checks that [offset, offset + *length) lies within the file; a length of 0
 * means all that follows. */
static ksllm_status os_measure(
    int fd, u64 offset, u64 *length, str name, ksllm_error *err) {
    struct stat st;
    int e = fstat(fd, &st) != 0 ? errno : S_ISREG(st.st_mode) ? 0 : ENODEV;
    if (e)
        return fail(err, KSLLM_ERR_IO, NO_OFFSET, "%.*s: cannot be read: %s",
            STR(name), os_reason(e));
    u64 size = (u64)st.st_size, end;
    if (!*length && offset <= size) *length = size - offset;
    if (!add_ok(offset, *length, &end) || end > size)
        return fail(err, KSLLM_ERR_IO, size,
            "%.*s: offset %llu and length %llu reach past its %llu bytes",
            STR(name), LLU(offset), LLU(*length), LLU(size));
    if (!*length)
        return fail(err, KSLLM_ERR_FORMAT, 0, "%.*s: the file is empty",
            STR(name));
    if (*length > SIZE_MAX / 2 - 65536) /* a page more is mapped */
        return fail(err, KSLLM_ERR_IO, NO_OFFSET,
            "%.*s: %llu bytes do not fit this system's address space",
            STR(name), LLU(*length));
    return KSLLM_OK;
}

/* Maps [offset, offset + length); offset need not be a multiple of the page.
 * Clean pages: the kernel may drop them and share them between processes. A
 * file that shrinks while it is mapped is a SIGBUS. */
static ksllm_status os_map_fd(int fd, u64 offset, u64 length, str name,
    os_file *out, ksllm_error *err) {
    u64 page = (u64)sysconf(_SC_PAGESIZE), skip = offset % page;
    size_t n = (size_t)(length + skip);
    void *map = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd,
        (off_t)(offset - skip));
    if (map == MAP_FAILED)
        return fail(err, KSLLM_ERR_IO, NO_OFFSET, "%.*s: cannot be mapped: %s",
            STR(name), os_reason(errno));
    *out = (os_file){(u8 *)map + skip, length, map, n, false};
    return KSLLM_OK;
}

/* Into memory, so that nothing that happens to the file later matters. */
static ksllm_status os_copy_fd(int fd, u64 offset, u64 length, str name,
    const ksllm_allocator *a, os_file *out, ksllm_error *err) {
    size_t n = (size_t)length, most = (size_t)1 << 30; /* one read's limit */
    u8 *p = mem_alloc(a, n);
    if (!p) return fail_memory(err, n);
    ssize_t got = 1;
    for (size_t at = 0; at < n && got > 0;) {
        got = pread(fd, p + at, min_size(n - at, most), (off_t)(offset + at));
        if (got < 0 && errno == EINTR) got = 1;
        else if (got > 0) at += (size_t)got;
    }
    if (got > 0) {
        *out = (os_file){p, length, p, n, true};
        return KSLLM_OK;
    }
    int e = errno;
    mem_free(a, p, n);
    return fail(err, KSLLM_ERR_IO, NO_OFFSET, "%.*s: cannot be read: %s",
        STR(name), got ? os_reason(e) : "it became shorter meanwhile");
}

/* copy: the allocator of a model that wants its file in memory, or NULL. */
static ksllm_status os_open_fd(int fd, u64 offset, u64 length, str name,
    const ksllm_allocator *copy, os_file *out, ksllm_error *err) {
    ksllm_status status = os_measure(fd, offset, &length, name, err);
    if (status) return status;
    return copy ? os_copy_fd(fd, offset, length, name, copy, out, err)
                : os_map_fd(fd, offset, length, name, out, err);
}

static ksllm_status os_open(const char *path, const ksllm_allocator *copy,
    os_file *out, ksllm_error *err) {
    int fd;
    do fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail(err, KSLLM_ERR_IO, NO_OFFSET, "%.*s: cannot be opened: %s",
            STR(str_of(path)), os_reason(errno));
    ksllm_status status =
        os_open_fd(fd, 0, 0, str_of(path), copy, out, err);
    close(fd);
    return status;
}

static void os_close(os_file *f, const ksllm_allocator *a) {
    if (f->copied) mem_free(a, f->map, f->map_n);
    else if (f->map) munmap(f->map, f->map_n);
    *f = (os_file){0};
}

#else

static void os_close(os_file *f, const ksllm_allocator *a) {
    (void)a;
    *f = (os_file){0};
}

static ksllm_status os_open_fd(int fd, u64 offset, u64 length, str name,
    const ksllm_allocator *copy, os_file *out, ksllm_error *err) {
    (void)fd, (void)offset, (void)length, (void)copy, (void)out;
    return fail(err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
        "%.*s: built with KSLLM_NO_MMAP: use ksllm_model_open_memory",
        STR(name));
}

static ksllm_status os_open(const char *path, const ksllm_allocator *copy,
    os_file *out, ksllm_error *err) {
    return os_open_fd(-1, 0, 0, str_of(path), copy, out, err);
}

#endif

#if !defined KSLLM_NO_THREADS && defined __linux__
/* cpu_capacity of a core, 1024 for the fastest; 0 where the kernel has no
 * such file, because all cores are alike. */
static u32 os_capacity(u32 cpu) {
    char path[64], text[16];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cpu_capacity",
        (unsigned)cpu);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    u32 v = 0;
    for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
        v = v * 10 + (u32)(text[i] - '0');
    return v;
}
#endif

/* Cores worth running on: those that this process may use, without the small
 * ones of a mixed system (below half of the fastest), 16 at most. A run ends
 * with its slowest piece, so a small core would slow the others. */
static u32 os_fast_cores(void) {
    u32 n = 1;
#if defined KSLLM_NO_THREADS
#elif defined __linux__
    cpu_set_t set;
    u32 capacity[CPU_SETSIZE], best = 0, n_all = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    for (u32 i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) {
            capacity[n_all] = os_capacity(i);
            if (capacity[n_all] > best) best = capacity[n_all];
            n_all++;
        }
    n = 0;
    for (u32 i = 0; i < n_all; i++) n += capacity[i] * 2 >= best;
#elif defined __APPLE__
    int cores = 0;
    size_t size = sizeof cores;
    if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, NULL, 0) == 0
        && cores > 0)
        n = (u32)cores;
    else
        n = (u32)sysconf(_SC_NPROCESSORS_ONLN);
#else
    n = (u32)sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return n < 1 ? 1 : min_u32(n, 16);
}

/* May return early: a signal ends the sleep. */
static void os_sleep(u64 ns) {
    struct timespec t = {
        (time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

/* Reads a byte of every page of [p, p + n), which brings them into memory. */
static void os_touch(const u8 *p, size_t n) {
    enum { PAGE = 4096 }; /* the smallest; larger ones are touched again */
#if !defined KSLLM_NO_MMAP && defined MADV_WILLNEED
    size_t skip = (uintptr_t)p % (size_t)sysconf(_SC_PAGESIZE);
    madvise((void *)(uintptr_t)(p - skip), n + skip, MADV_WILLNEED);
#endif
    for (size_t i = 0; i < n; i += PAGE) (void)*(const volatile u8 *)(p + i);
}

/* Seconds since 1970 of the system's clock. */
KS_UNUSED static i64 os_wall(void) {
    struct timespec t;
    return clock_gettime(CLOCK_REALTIME, &t) ? 0 : (i64)t.tv_sec;
}

/* ==========================================================================
 * § 4 CPU (private)
 * What this processor may run. Facts only: § 7 chooses by them. Asking costs
 * well under a microsecond and is done when a model is opened; nothing is
 * kept. An instruction set counts only if the operating system saves its
 * registers (XCR0 on x86).
 * ======================================================================== */

enum { /* bits of cpu_features */
    CPU_AVX2 = 1 << 0,        /* with FMA and F16C */
    CPU_AVX512_VNNI = 1 << 1, /* with F, BW and VL */
    CPU_NEON = 1 << 2,        /* every 64-bit Arm */
    CPU_DOTPROD = 1 << 3,
    CPU_I8MM = 1 << 4,
    CPU_AVX_VNNI = 1 << 5,
};

#if defined KS_ARM64 && defined __linux__
#include <sys/auxv.h>
#endif
#if defined KS_X86
#include <cpuid.h>

static u32 cpu_features(void) {
    u32 a, b, c, d, bits = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    bool osxsave = c >> 27 & 1, avx = c >> 28 & 1;
    bool fma = c >> 12 & 1, f16c = c >> 29 & 1;
    if (!osxsave || !avx) return 0;
    u32 xcr0, hi; /* xgetbv as bytes: no -mxsave, no old assembler */
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(xcr0), "=d"(hi) : "c"(0));
    if ((xcr0 & 6) != 6) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((b >> 5 & 1) && fma && f16c) bits |= CPU_AVX2;
    const u32 f_bw_vl = 1u << 16 | 1u << 30 | 1u << 31;
    if ((xcr0 & 0xe6) == 0xe6 && (b & f_bw_vl) == f_bw_vl && (c >> 11 & 1))
        bits |= CPU_AVX512_VNNI;
    if (a && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1))
        bits |= CPU_AVX_VNNI;
#if defined KS_EMULATED
    if (bits & CPU_AVX2) bits |= KS_EMULATED;
#endif
    return bits;
}
#elif defined KS_ARM64

/* By what the system says: reading the ID registers traps on old Android. */
static u32 cpu_features(void) {
    u32 bits = CPU_NEON;
#if defined __linux__
    if (getauxval(AT_HWCAP) >> 20 & 1) bits |= CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) >> 13 & 1) bits |= CPU_I8MM;
#elif defined __APPLE__
    static const struct { const char *name; u32 bit; } ASK[] = {
        {"hw.optional.arm.FEAT_DotProd", CPU_DOTPROD},
        {"hw.optional.arm.FEAT_I8MM", CPU_I8MM},
    };
    for (size_t i = 0; i < KS_LEN(ASK); i++) {
        int has = 0;
        size_t size = sizeof has;
        if (sysctlbyname(ASK[i].name, &has, &size, NULL, 0) == 0 && has)
            bits |= ASK[i].bit;
    }
#endif
    return bits;
}
#else
static u32 cpu_features(void) { return 0; }
#endif

/* ==========================================================================
 * § 5 POOL (private)
 * A fixed set of worker threads that run numbered pieces of work, owned by one
 * session. May use § 1-3.
 *
 * One word, n_left, announces a run: how many of its pieces are not taken yet.
 * A thread that takes 1 from it and finds that it was above zero holds a piece
 * of the current run, and that run cannot end before the piece is done. Only
 * then does it read task, arg and n_pieces. So it does not matter for which run
 * a worker woke: a late one gets a piece of the next run, or nothing. The
 * caller takes pieces too and never waits for a worker that has not begun. A
 * core that another process takes therefore costs its share and no more.
 * Waiting spins briefly and then sleeps. Every atomic has 32 bits: processors
 * without 64-bit ones need no libatomic.
 * ======================================================================== */

enum {
    POOL_MAX_THREADS = 64,
    POOL_MAX_PIECES = 1 << 20,
    POOL_SPINS = 2000, /* about 20-60 us: longer than the gap between runs */
};

typedef struct {
    ksllm_parallel_for lent; /* the caller's pool, or NULL */
    void *lent_ctx;
    u32 n_threads; /* with the caller */
    ksllm_task task;
    void *arg;
    i32 n_left; /* pieces to take; below zero by the threads that got none */
    u32 n_done, n_pieces;
#if !defined KSLLM_NO_THREADS
    u32 n_started;
    u32 n_sleeping; /* workers */
    u32 caller_sleeps;
    u32 quit;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t threads[POOL_MAX_THREADS];
    void (*on_thread)(void *ctx, u32 index); /* the caller's, or NULL */
    void *thread_ctx;
    u32 n_named;
#endif
} pool;

KS_UNUSED KS_INLINE void cpu_relax(void) {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

#if !defined KSLLM_NO_THREADS

/* Takes pieces until there are none. */
static void pool_work(pool *p) {
    i32 left;
    while ((left = AT_ADD(&p->n_left, -1)) > 0) {
        u32 n = p->n_pieces; /* not after n_done says that the run may end */
        p->task(p->arg, n - (u32)left);
        if (AT_ADD(&p->n_done, 1) + 1 != n) continue;
        if (__atomic_load_n(&p->caller_sleeps, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

KS_INLINE bool pool_news(pool *p) {
    return __atomic_load_n(&p->n_left, __ATOMIC_SEQ_CST) > 0
        || AT_LOAD(&p->quit);
}

static void *pool_thread(void *arg) {
    pool *p = arg;
    if (p->on_thread) p->on_thread(p->thread_ctx, AT_ADD(&p->n_named, 1) + 1);
    while (!AT_LOAD(&p->quit)) {
        for (u32 i = 0; i < POOL_SPINS && !pool_news(p); i++) cpu_relax();
        if (!pool_news(p)) {
            pthread_mutex_lock(&p->lock);
            AT_ADD(&p->n_sleeping, 1);
            while (!pool_news(p)) pthread_cond_wait(&p->work, &p->lock);
            AT_ADD(&p->n_sleeping, (u32)-1);
            pthread_mutex_unlock(&p->lock);
        }
        pool_work(p);
    }
    return NULL;
}

static void pool_stop(pool *p) {
    if (!p->n_threads || p->lent) return;
    pthread_mutex_lock(&p->lock);
    AT_STORE(&p->quit, 1);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (u32 i = 0; i < p->n_started; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    p->n_threads = 0;
}

/* The host's signals are for the host's threads: workers block them all. */
static bool pool_spawn(pool *p) {
    pthread_attr_t attr;
    sigset_t all, old;
    if (pthread_attr_init(&attr) != 0) return false;
    pthread_attr_setstacksize(&attr, 512 * 1024);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool ok = true;
    while (ok && p->n_started + 1 < p->n_threads) {
        ok = pthread_create(
            &p->threads[p->n_started], &attr, pool_thread, p) == 0;
        p->n_started += ok;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return ok;
}

static bool pool_make_locks(pool *p) {
    if (pthread_mutex_init(&p->lock, NULL) != 0) return false;
    if (pthread_cond_init(&p->work, NULL) == 0) {
        if (pthread_cond_init(&p->done, NULL) == 0) return true;
        pthread_cond_destroy(&p->work);
    }
    pthread_mutex_destroy(&p->lock);
    return false;
}

static ksllm_status pool_start(pool *p, u32 n_threads, ksllm_error *err) {
    if (!pool_make_locks(p))
        return fail(err, KSLLM_ERR_THREAD, NO_OFFSET,
            "the system has no room for a lock");
    p->n_threads = n_threads;
    if (n_threads == 1 || pool_spawn(p)) return KSLLM_OK;
    u32 n = p->n_started;
    pool_stop(p);
    return fail(err, KSLLM_ERR_THREAD, NO_OFFSET,
        "only %u of %u worker threads could be started; "
        "ask for fewer in ksllm_session_options.n_threads",
        (unsigned)n, (unsigned)(n_threads - 1));
}

/* The caller's wait for pieces that workers have begun. */
static void pool_wait(pool *p) {
    for (u32 i = 0; i < POOL_SPINS; i++) {
        if (AT_LOAD(&p->n_done) == p->n_pieces) return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    AT_SWAP(&p->caller_sleeps, 1);
    while (__atomic_load_n(&p->n_done, __ATOMIC_SEQ_CST) != p->n_pieces)
        pthread_cond_wait(&p->done, &p->lock);
    __atomic_store_n(&p->caller_sleeps, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&p->lock);
}

/* n_pieces before n_left: a worker that sees the pieces must see their number.
 * n_sleeping after n_left: a worker counts itself before it looks at n_left
 * for the last time, so one of the two sees the other. */
static void pool_share(pool *p, u32 n) {
    AT_STORE(&p->n_done, 0);
    p->n_pieces = n;
    AT_SWAP(&p->n_left, (i32)n);
    if (__atomic_load_n(&p->n_sleeping, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    pool_work(p);
    pool_wait(p);
}

#else

static void pool_stop(pool *p) { p->n_threads = 0; }

static ksllm_status pool_start(pool *p, u32 n_threads, ksllm_error *err) {
    (void)err;
    (void)n_threads;
    p->n_threads = 1;
    return KSLLM_OK;
}

static void pool_share(pool *p, u32 n) {
    for (u32 i = 0; i < n; i++) p->task(p->arg, i);
}

#endif

/* Runs task(arg, i) for i in [0, n) and returns when all are done. */
static void pool_run(pool *p, u32 n, ksllm_task task, void *arg) {
    if (p->lent && n > 1) {
        p->lent(p->lent_ctx, n, task, arg);
        return;
    }
    if (p->n_threads < 2 || n < 2) {
        for (u32 i = 0; i < n; i++) task(arg, i);
        return;
    }
    p->task = task;
    p->arg = arg;
    pool_share(p, n);
}

/* ==========================================================================
 * § 6 BLOCKS (private)
 * The weight formats of GGUF: one struct and one drawing each, the one type
 * table, and a reader per quantized format that unpacks a block to a common
 * form (block). A new format is a struct, a table row and a reader; kernels
 * know only the common form. Layouts are those of ggml (ggml-common.h). The
 * readers are plain C: the scalar row of § 7 computes with what they give, and
 * is what the others are held against.
 * ======================================================================== */

/* An unpacked block. value_i = d * scale(i/16) * q_i - dmin * min[i/16].
 * Formats without sub-scales have scale 1; without minima, dmin is unused. */
typedef struct {
    i8 q[256];
    i16 scale[16];
    i16 min[16];
    f32 d, dmin;
} blk;

/* Drawings: one line per field; "lo/hi" are the nibbles of a byte.
 * w[i] is the i-th weight of the block. */

/* Q4_0: w[i] = d * (q - 8)                     lo: w[0..15], hi: w[16..31] */
typedef struct { u16 d; u8 qs[16]; } blk_q4_0;
/* Q4_1: w[i] = d * q + m                       nibbles as Q4_0 */
typedef struct { u16 d, m; u8 qs[16]; } blk_q4_1;
/* Q5_0: w[i] = d * (q - 16)                    bit 4 of w[i]: bit i of qh */
typedef struct { u16 d; u8 qh[4]; u8 qs[16]; } blk_q5_0;
/* Q5_1: w[i] = d * q + m */
typedef struct { u16 d, m; u8 qh[4]; u8 qs[16]; } blk_q5_1;
/* Q8_0: w[i] = d * q */
typedef struct { u16 d; i8 qs[32]; } blk_q8_0;
/* Q2_K: 16 groups of 16; w = d * sc * q - dmin * m
 *   scales[g]: lo = sc, hi = m of group g
 *   qs[32h + l], bits 2j..2j+1: w[128h + 32j + l] */
typedef struct { u8 scales[16]; u8 qs[64]; u16 d, dmin; } blk_q2_k;
/* Q3_K: 16 groups of 16; w = d * (sc - 32) * (q - 4)
 *   qs as Q2_K (bits 0-1 of q); hmask[l] bit 4h+j: bit 2 of w[128h+32j+l]
 *   scales: sc bits 0-3 of groups 0-7 in lo, 8-15 in hi of bytes 0-7;
 *   bits 4-5 of group g in bits 2(g/4) of byte 8 + g%4 */
typedef struct { u8 hmask[32]; u8 qs[64]; u8 scales[12]; u16 d; } blk_q3_k;
/* Q4_K: 8 groups of 32; w = d * sc * q - dmin * m
 *   qs[32n + l]: lo = w[64n + l], hi = w[64n + 32 + l]
 *   scales: see blk_six_bits */
typedef struct { u16 d, dmin; u8 scales[12]; u8 qs[128]; } blk_q4_k;
/* Q5_K: as Q4_K; bit 4 of group g's weight l: bit g of qh[l] */
typedef struct { u16 d, dmin; u8 scales[12]; u8 qh[32]; u8 qs[128]; } blk_q5_k;
/* Q6_K: 16 groups of 16; w = d * sc * (q - 32)
 *   for h = 0, 1 and l = 0..31, low four bits and high two bits of
 *   w[128h + l]      lo of ql[64h + l]        bits 0-1 of qh[32h + l]
 *   w[128h + 32 + l] lo of ql[64h + 32 + l]   bits 2-3
 *   w[128h + 64 + l] hi of ql[64h + l]        bits 4-5
 *   w[128h + 96 + l] hi of ql[64h + 32 + l]   bits 6-7 */
typedef struct { u8 ql[128]; u8 qh[64]; i8 scales[16]; u16 d; } blk_q6_k;
/* IQ4_NL: w[i] = d * BLK_IQ4[q]                nibbles as Q4_0 */
typedef struct { u16 d; u8 qs[16]; } blk_iq4_nl;
/* IQ4_XS: 8 groups of 32; w = d * (sc - 32) * BLK_IQ4[q]
 *   qs[16g + l]: lo = w[32g + l], hi = w[32g + 16 + l]
 *   sc of group g: nibble g of scales_l, bits 2g..2g+1 of scales_h above */
typedef struct {
    u16 d, scales_h;
    u8 scales_l[4];
    u8 qs[128];
} blk_iq4_xs;

static const i8 BLK_IQ4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
    1, 13, 25, 38, 53, 69, 89, 113};

_Static_assert(sizeof(blk_q4_0) == 18, "Q4_0");
_Static_assert(sizeof(blk_q4_1) == 20, "Q4_1");
_Static_assert(sizeof(blk_q5_0) == 22, "Q5_0");
_Static_assert(sizeof(blk_q5_1) == 24, "Q5_1");
_Static_assert(sizeof(blk_q8_0) == 34, "Q8_0");
_Static_assert(sizeof(blk_q2_k) == 84, "Q2_K");
_Static_assert(sizeof(blk_q3_k) == 110, "Q3_K");
_Static_assert(sizeof(blk_q4_k) == 144, "Q4_K");
_Static_assert(sizeof(blk_q5_k) == 176, "Q5_K");
_Static_assert(sizeof(blk_q6_k) == 210, "Q6_K");
_Static_assert(sizeof(blk_iq4_nl) == 18, "IQ4_NL");
_Static_assert(sizeof(blk_iq4_xs) == 136, "IQ4_XS");

typedef struct {
    const char *name; /* NULL: a number that GGUF knows and ksllm does not */
    u16 n;            /* weights in a block */
    u16 bytes;        /* bytes of a block */
    bool has_min;
    u8 d, m;    /* where in a block the halves d and dmin (or m) lie */
    u8 bias;    /* added, it makes the integers unsigned; 128: eight bits */
    u8 span;    /* weights under a scale of their own */
} blk_type;

static const blk_type BLK_TYPES[] = {
    [KSLLM_TYPE_F32] = {"F32", 1, 4, false, 0, 0, 0, 1},
    [KSLLM_TYPE_F16] = {"F16", 1, 2, false, 0, 0, 0, 1},
    [KSLLM_TYPE_BF16] = {"BF16", 1, 2, false, 0, 0, 0, 1},
    [KSLLM_TYPE_Q4_0] = {"Q4_0", 32, sizeof(blk_q4_0), false, 0, 0, 8, 32},
    [KSLLM_TYPE_Q4_1] = {"Q4_1", 32, sizeof(blk_q4_1), true, 0, 2, 0, 32},
    [KSLLM_TYPE_Q5_0] = {"Q5_0", 32, sizeof(blk_q5_0), false, 0, 0, 16, 32},
    [KSLLM_TYPE_Q5_1] = {"Q5_1", 32, sizeof(blk_q5_1), true, 0, 2, 0, 32},
    [KSLLM_TYPE_Q8_0] = {"Q8_0", 32, sizeof(blk_q8_0), false, 0, 0, 128, 32},
    [KSLLM_TYPE_Q2_K] = {"Q2_K", 256, sizeof(blk_q2_k), true, 80, 82, 0, 16},
    [KSLLM_TYPE_Q3_K] = {"Q3_K", 256, sizeof(blk_q3_k), false, 108, 0, 4, 16},
    [KSLLM_TYPE_Q4_K] = {"Q4_K", 256, sizeof(blk_q4_k), true, 0, 2, 0, 32},
    [KSLLM_TYPE_Q5_K] = {"Q5_K", 256, sizeof(blk_q5_k), true, 0, 2, 0, 32},
    [KSLLM_TYPE_Q6_K] = {"Q6_K", 256, sizeof(blk_q6_k), false, 208, 0, 32, 16},
    [KSLLM_TYPE_IQ4_NL] = {"IQ4_NL", 32, sizeof(blk_iq4_nl), false, 0, 0, 128,
        32},
    [KSLLM_TYPE_IQ4_XS] = {"IQ4_XS", 256, sizeof(blk_iq4_xs), false, 0, 0, 128,
        32},
};

static const blk_type *blk_type_of(u32 type) {
    if (type >= KS_LEN(BLK_TYPES) || !BLK_TYPES[type].name) return NULL;
    return &BLK_TYPES[type];
}

/* Whether the integers, signed where they have eight bits, are above what they
 * stand for. */
KS_UNUSED KS_INLINE bool blk_biased(ksllm_type type) {
    return BLK_TYPES[type].bias && BLK_TYPES[type].bias < 128;
}

/* ---- readers: src is one block of the file, unaligned ---- */

#define FIELD_OF(p, T, f) ((p) + offsetof(T, f))
#define FIELD(T, f) FIELD_OF(src, T, f)
#define HALF(T, f) f32_of_f16(ld_u16(FIELD(T, f)))

KS_INLINE void blk_no_scales(blk *b) {
    b->scale[0] = b->scale[1] = 1;
    b->min[0] = b->min[1] = 1;
}

/* 16 bytes of nibbles to 32 weights */
KS_INLINE void blk_nibbles(i8 *q, const u8 *qs, int bias) {
    for (int l = 0; l < 16; l++) {
        q[l] = (i8)((qs[l] & 15) - bias);
        q[16 + l] = (i8)((qs[l] >> 4) - bias);
    }
}

KS_INLINE void blk_fifth_bits(i8 *q, const u8 *qh, int bias) {
    u32 h = ld_u32(qh);
    for (int l = 0; l < 32; l++)
        q[l] = (i8)(q[l] + (int)(h >> l & 1) * 16 - bias);
}

KS_INLINE void blk_read_q4_0(blk *b, const u8 *src) {
    b->d = HALF(blk_q4_0, d);
    blk_nibbles(b->q, FIELD(blk_q4_0, qs), 8);
    blk_no_scales(b);
}

KS_INLINE void blk_read_q4_1(blk *b, const u8 *src) {
    b->d = HALF(blk_q4_1, d);
    b->dmin = -HALF(blk_q4_1, m);
    blk_nibbles(b->q, FIELD(blk_q4_1, qs), 0);
    blk_no_scales(b);
}

KS_INLINE void blk_read_q5_0(blk *b, const u8 *src) {
    b->d = HALF(blk_q5_0, d);
    blk_nibbles(b->q, FIELD(blk_q5_0, qs), 0);
    blk_fifth_bits(b->q, FIELD(blk_q5_0, qh), 16);
    blk_no_scales(b);
}

KS_INLINE void blk_read_q5_1(blk *b, const u8 *src) {
    b->d = HALF(blk_q5_1, d);
    b->dmin = -HALF(blk_q5_1, m);
    blk_nibbles(b->q, FIELD(blk_q5_1, qs), 0);
    blk_fifth_bits(b->q, FIELD(blk_q5_1, qh), 0);
    blk_no_scales(b);
}

KS_INLINE void blk_read_q8_0(blk *b, const u8 *src) {
    b->d = HALF(blk_q8_0, d);
    memcpy(b->q, FIELD(blk_q8_0, qs), 32);
    blk_no_scales(b);
}

/* Two bits of each weight, for Q2_K and Q3_K. */
KS_INLINE void blk_crumbs(i8 *q, const u8 *qs) {
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++)
                q[128 * h + 32 * j + l] = (i8)(qs[32 * h + l] >> 2 * j & 3);
}

/* The 12 bytes of Q4_K and Q5_K, six bits for the scale and the minimum of
 * each group of 32 (s: scale, m: minimum, number = group, ^ = top 2 bits):
 *   byte 0-3   s4^..s7^ : s0..s3        byte 4-7  m4^..m7^ : m0..m3
 *   byte 8-11  m4..m7 low 4 : s4..s7 low 4 */
KS_INLINE void blk_six_bits(const u8 *s, u64 *scales, u64 *mins) {
    u32 a = ld_u32(s), b = ld_u32(s + 4), c = ld_u32(s + 8);
    u32 high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    *scales = (u64)high << 32 | (a & 0x3f3f3f3f);
    high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    *mins = (u64)high << 32 | (b & 0x3f3f3f3f);
}

#define LOW_NIBBLES 0x0f0f0f0f0f0f0f0fu

/* Eight bytes of 0 to 63, each less 32. */
KS_INLINE u64 blk_less_32(u64 v) {
    v ^= 0x2020202020202020u;
    u64 sign = v & 0x2020202020202020u;
    return v | sign << 1 | sign << 2;
}

/* The scales, and minima if there are any, of a block of 256 as bytes, one for
 * each `span` weights; scales may be negative. */
KS_INLINE void blk_scale_bytes(
    const u8 *src, ksllm_type type, u64 *scales, u64 *mins) {
    switch ((int)type) {
    case KSLLM_TYPE_Q2_K:
        for (int i = 0; i < 2; i++) {
            u64 v = ld_u64(FIELD(blk_q2_k, scales) + 8 * i);
            scales[i] = v & LOW_NIBBLES;
            mins[i] = v >> 4 & LOW_NIBBLES;
        }
        return;
    case KSLLM_TYPE_Q3_K: {
        u64 low = ld_u64(FIELD(blk_q3_k, scales));
        u32 top = ld_u32(FIELD(blk_q3_k, scales) + 8);
        for (int i = 0; i < 2; i++) {
            u64 t = (u64)(top >> (4 * i + 2) & 0x03030303) << 32
                | (top >> 4 * i & 0x03030303);
            scales[i] = blk_less_32((low >> 4 * i & LOW_NIBBLES) | t << 4);
        }
        return;
    }
    case KSLLM_TYPE_Q6_K:
        memcpy(scales, FIELD(blk_q6_k, scales), 16);
        return;
    case KSLLM_TYPE_IQ4_XS: { /* spread by halves: 4 and 2 bits to a byte */
        u64 v = ld_u32(FIELD(blk_iq4_xs, scales_l));
        u64 t = ld_u16(FIELD(blk_iq4_xs, scales_h));
        v = (v | v << 16) & 0x0000ffff0000ffffu;
        v = (v | v << 8) & 0x00ff00ff00ff00ffu;
        v = (v | v << 4) & LOW_NIBBLES;
        t = (t | t << 24) & 0x000000ff000000ffu;
        t = (t | t << 12) & 0x000f000f000f000fu;
        t = (t | t << 6) & 0x0303030303030303u;
        scales[0] = blk_less_32(v | t << 4);
        return;
    }
    default: blk_six_bits(src + 4, scales, mins); /* Q4_K and Q5_K */
    }
}

KS_INLINE void blk_read_scales(blk *b, const u8 *src, ksllm_type type) {
    const int per = BLK_TYPES[type].span / 16;
    u64 sc[2] = {0, 0}, mn[2] = {0, 0};
    blk_scale_bytes(src, type, sc, mn);
    for (int g = 0; g < 16; g++) {
        int at = g / per;
        b->scale[g] = (i8)(u8)(sc[at / 8] >> at % 8 * 8);
        if (BLK_TYPES[type].has_min)
            b->min[g] = (u8)(mn[at / 8] >> at % 8 * 8);
    }
}

KS_INLINE void blk_read_q2_k(blk *b, const u8 *src) {
    b->d = HALF(blk_q2_k, d);
    b->dmin = HALF(blk_q2_k, dmin);
    blk_crumbs(b->q, FIELD(blk_q2_k, qs));
    blk_read_scales(b, src, KSLLM_TYPE_Q2_K);
}

KS_INLINE void blk_read_q3_k(blk *b, const u8 *src) {
    const u8 *hmask = FIELD(blk_q3_k, hmask);
    b->d = HALF(blk_q3_k, d);
    blk_crumbs(b->q, FIELD(blk_q3_k, qs));
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 32; l++)
            b->q[32 * j + l] = (i8)(b->q[32 * j + l]
                + ((hmask[l] >> j & 1) * 4 - 4));
    blk_read_scales(b, src, KSLLM_TYPE_Q3_K);
}

KS_INLINE void blk_nibbles_k(i8 *q, const u8 *qs) {
    for (int n = 0; n < 4; n++)
        for (int l = 0; l < 32; l++) {
            q[64 * n + l] = (i8)(qs[32 * n + l] & 15);
            q[64 * n + 32 + l] = (i8)(qs[32 * n + l] >> 4);
        }
}

KS_INLINE void blk_read_q4_k(blk *b, const u8 *src) {
    b->d = HALF(blk_q4_k, d);
    b->dmin = HALF(blk_q4_k, dmin);
    blk_read_scales(b, src, KSLLM_TYPE_Q4_K);
    blk_nibbles_k(b->q, FIELD(blk_q4_k, qs));
}

KS_INLINE void blk_read_q5_k(blk *b, const u8 *src) {
    const u8 *qh = FIELD(blk_q5_k, qh);
    b->d = HALF(blk_q5_k, d);
    b->dmin = HALF(blk_q5_k, dmin);
    blk_read_scales(b, src, KSLLM_TYPE_Q5_K);
    blk_nibbles_k(b->q, FIELD(blk_q5_k, qs));
    for (int g = 0; g < 8; g++)
        for (int l = 0; l < 32; l++)
            b->q[32 * g + l] = (i8)(b->q[32 * g + l] | (qh[l] >> g & 1) << 4);
}

KS_INLINE void blk_read_q6_k(blk *b, const u8 *src) {
    b->d = HALF(blk_q6_k, d);
    for (int h = 0; h < 2; h++) {
        const u8 *ql = FIELD(blk_q6_k, ql) + 64 * h;
        const u8 *qh = FIELD(blk_q6_k, qh) + 32 * h;
        i8 *q = b->q + 128 * h;
        for (int l = 0; l < 32; l++) {
            q[l] = (i8)(((ql[l] & 15) | (qh[l] & 3) << 4) - 32);
            q[32 + l] = (i8)(((ql[32 + l] & 15) | (qh[l] >> 2 & 3) << 4) - 32);
            q[64 + l] = (i8)((ql[l] >> 4 | (qh[l] >> 4 & 3) << 4) - 32);
            q[96 + l] = (i8)((ql[32 + l] >> 4 | (qh[l] >> 6) << 4) - 32);
        }
    }
    blk_read_scales(b, src, KSLLM_TYPE_Q6_K);
}

KS_INLINE void blk_codebook(i8 *q, const u8 *qs) {
    for (int l = 0; l < 16; l++) {
        q[l] = BLK_IQ4[qs[l] & 15];
        q[16 + l] = BLK_IQ4[qs[l] >> 4];
    }
}

KS_INLINE void blk_read_iq4_nl(blk *b, const u8 *src) {
    b->d = HALF(blk_iq4_nl, d);
    blk_codebook(b->q, FIELD(blk_iq4_nl, qs));
    blk_no_scales(b);
}

KS_INLINE void blk_read_iq4_xs(blk *b, const u8 *src) {
    b->d = HALF(blk_iq4_xs, d);
    blk_read_scales(b, src, KSLLM_TYPE_IQ4_XS);
    for (int g = 0; g < 8; g++)
        blk_codebook(b->q + 32 * g, FIELD(blk_iq4_xs, qs) + 16 * g);
}

/* With a constant type the switch disappears. */
KS_INLINE void blk_read(blk *b, const u8 *src, ksllm_type type) {
    switch (type) {
    case KSLLM_TYPE_Q4_0: blk_read_q4_0(b, src); return;
    case KSLLM_TYPE_Q4_1: blk_read_q4_1(b, src); return;
    case KSLLM_TYPE_Q5_0: blk_read_q5_0(b, src); return;
    case KSLLM_TYPE_Q5_1: blk_read_q5_1(b, src); return;
    case KSLLM_TYPE_Q8_0: blk_read_q8_0(b, src); return;
    case KSLLM_TYPE_Q2_K: blk_read_q2_k(b, src); return;
    case KSLLM_TYPE_Q3_K: blk_read_q3_k(b, src); return;
    case KSLLM_TYPE_Q4_K: blk_read_q4_k(b, src); return;
    case KSLLM_TYPE_Q5_K: blk_read_q5_k(b, src); return;
    case KSLLM_TYPE_Q6_K: blk_read_q6_k(b, src); return;
    case KSLLM_TYPE_IQ4_NL: blk_read_iq4_nl(b, src); return;
    case KSLLM_TYPE_IQ4_XS: blk_read_iq4_xs(b, src); return;
    case KSLLM_TYPE_F32: case KSLLM_TYPE_F16: case KSLLM_TYPE_BF16: break;
    }
    memset(b, 0, sizeof *b);
}

#undef FIELD
#undef HALF
#undef LOW_NIBBLES

/* One row of n weights as float. */
static void blk_row_quantized(ksllm_type type, const u8 *src, u64 n, f32 *out) {
    const blk_type *t = &BLK_TYPES[type];
    blk b;
    for (u64 i = 0; i < n; i += t->n, src += t->bytes) {
        blk_read(&b, src, type);
        for (u32 k = 0; k < t->n; k++) {
            f32 v = b.d * (f32)b.scale[k / 16] * (f32)b.q[k];
            if (t->has_min) v -= b.dmin * (f32)b.min[k / 16];
            out[i + k] = v;
        }
    }
}

static void blk_row(ksllm_type type, const u8 *src, u64 n, f32 *out) {
    if (type == KSLLM_TYPE_F32)
        memcpy(out, src, (size_t)n * 4);
    else if (type == KSLLM_TYPE_F16)
        for (u64 i = 0; i < n; i++) out[i] = f32_of_f16(ld_u16(src + 2 * i));
    else if (type == KSLLM_TYPE_BF16)
        for (u64 i = 0; i < n; i++) out[i] = f32_of_bf16(ld_u16(src + 2 * i));
    else
        blk_row_quantized(type, src, n, out);
}

#endif /* ifndef KS_ISA: what follows is compiled once per instruction set */

/* ==========================================================================
 * § 7 KERNELS (private)
 * The arithmetic. This file includes itself once per instruction set, with
 * KS_ISA naming it; only 7b to 7g are live then.
 *
 *   7a  what all passes share: records, the slots of a row
 *   7b  vocabulary: small vector operations for plain C, x86 and Arm
 *   7c  kernels on floats, written once over the vocabulary
 *   7d  products with quantized weights: in plain C, on x86, on Arm
 *   7e  products with float weights; the product of each format
 *   7f  the steps of attention
 *   7g  the row: which kernel fills which slot
 *   7h  the passes: one block of settings per instruction set
 *   7i  the table, best first, from which a model chooses
 *   7j  attention over all keys, for any row
 *
 * To add an instruction set: a feature bit in § 4, its settings in 7h, a line
 * in 7i, operations in 7b, and products in 7d: k_direct for few tokens, k_panel
 * for many. One that only multiplies faster than another (AVX-VNNI, AVX-512,
 * dotprod, i8mm) names that one as KS_BASE and takes its kernels on floats;
 * KS_BASE_I8 lends attention with the int8 cache. What a kernel must compute,
 * to the bit, is THE ARITHMETIC at the head of this file and is tested against
 * the scalar row. To add a format: § 6, x_block or x_group and q_block or
 * q_group in 7d, a line in 7e.
 *
 * vf is 16 floats everywhere, however many registers that takes.
 * ======================================================================== */

/* ---- 7a shared by all passes ---- */

#ifndef KS_ISA

/* m vectors of n_in activations, as floats and quantized: for blocks of 32 at
 * [0] and of 256 at [1]; NULL where no matrix needs it. A token's scales lie
 * n_in / block apart, its sums of 16 (for the minima) n_in / 16. */
typedef struct {
    const f32 *x;
    i8 *q[2];
    f32 *d[2];
    i16 *sum[2];
    size_t n_in;
} k_acts;

/* Rows [0, n_rows) of a matrix, without gaps between them, times m > 0 vectors;
 * y[t * y_stride + row]. */
typedef struct {
    ksllm_type type;
    const u8 *w;
    size_t row_bytes, n_rows;
    const k_acts *acts;
    size_t m;
    f32 *y;
    size_t y_stride;
} k_product;

typedef enum { K_F32, K_F16, K_I8 } k_cache; /* what the KV cache holds */

/* Some query heads, one after the other, of m consecutive tokens,
 * against the keys of their KV head. Token t sees [hi + t - window, hi + t),
 * or [0, hi + t) if window is 0. Position p lies in slot p % n_slots; n_slots
 * is a multiple of K_KEYS.
 *
 * Keys and values as floats lie token by token. As int8 with a scale for each
 * token they lie in tiles, so that lanes are keys in the scores and dimensions
 * in the values, and no sum runs across lanes:
 *   keys    [n_slots / 16][key_dim / 4][16 tokens][4]   plus 128, unsigned
 *   values  [n_slots / 4][value_dim][4 tokens]
 * with key_dim rounded up to 4 and value_dim to 16. A value has one scale, a
 * key and a query one for every K_HADAMARD dimensions. */
typedef struct {
    const f32 *q;           /* [m][heads][key_dim] */
    const i8 *q8;           /* the same as int8, rounded up to 16 */
    const f32 *q_scale;     /* [m][heads][key_dim / K_HADAMARD, rounded up][2]:
                               the scale, and the sum of the integers */
    const u8 *k, *v;
    const f32 *k_scale;     /* [key_dim / K_HADAMARD, rounded up][n_slots] */
    const f32 *v_scale;     /* [n_slots] */
    size_t key_dim, value_dim;
    size_t k_stride, v_stride;    /* bytes of a token */
    size_t n_slots, m, hi, window;
    f32 scale;
    f32 *out;               /* [m][heads][value_dim] */
    size_t q_heads;         /* heads of a token in q, q8 and q_scale */
    size_t out_head, out_token; /* from one to the next, in out */
    k_cache kind;
    size_t group;           /* heads that go together: 1, 2 or 4 */
} k_query;

typedef enum { K_SILU, K_GELU } k_activation;

enum {
    K_ROWS = 8,   /* rows that a product takes at a time: lanes of a register */
    K_TOKENS = 32, /* tokens for which it keeps partial sums */
    K_KEYS = 64,  /* keys in a block of attention */
    K_HADAMARD = 64, /* dimensions of a key that share a scale */
    K_QUERIES = 8, /* tokens that share it while it is in the L1 cache */
};

/* A block of K_KEYS keys, of which the heads of token t see [first, first + n):
 * their scores, then probabilities; for the int8 cache these times the values'
 * scales, as bytes times `share`. What was summed before counts `keep`. */
typedef struct {
    size_t t, slot, first, n;
    f32 s[4][K_KEYS];
    u8 s8[4][K_KEYS];
    f32 keep[4], share[4];
} k_keys;

typedef struct {
    const char *name;
    u32 needs; /* CPU_ bits */
    void (*quantize)(
        const f32 *x, size_t n, size_t n_block, i8 *q, f32 *d, i16 *sum);
    void (*norm)(const f32 *x, const u8 *w, size_t n, f32 eps, f32 *y);
    void (*product[KSLLM_TYPE_BF16 + 1])(const k_product *p);
    /* the steps of k_attend, for 1, 2 or 4 query heads */
    void (*scores[K_I8 + 1][3])(const k_query *a, k_keys *b);
    f32 (*softmax)(f32 *s, size_t first, size_t n, f32 *max, f32 *sum);
    f32 (*shares)(
        f32 *p, const f32 *v_scale, size_t first, size_t n, u8 *out);
    void (*values[K_I8 + 1][3])(const k_query *a, k_keys *b);
    f32 (*to_i8)(const f32 *x, size_t n, i8 *q); /* see k_to_i8 */
    void (*hadamard)(f32 *x, size_t n);          /* see k_hadamard */
    void (*gate)(f32 *g, const f32 *u, size_t n, k_activation act);
    void (*to_f16)(const f32 *x, size_t n, u8 *out);
    f32 (*max)(const f32 *x, size_t n);
    f32 (*sum_exp)(const f32 *x, size_t n, f32 max, f32 *out);
} k_row;

/* Of an int8 cache and its queries: bytes of a row, scales of a key. */
KS_INLINE size_t k_padded(size_t n) { return (n + 15) / 16 * 16; }
KS_INLINE size_t k_scales(size_t n) {
    return (n + K_HADAMARD - 1) / K_HADAMARD;
}

KS_INLINE f32 *k_out(const k_query *a, size_t t, size_t head) {
    return a->out + t * a->out_token + head * a->out_head;
}

/* n < 16 numbers of a type without blocks, filled up. */
KS_NOINLINE void k_tail(
    const u8 *p, size_t n, ksllm_type type, f32 fill, f32 *to) {
    for (size_t i = n; i < 16; i++) to[i] = fill;
    blk_row(type, p, n, to);
}

/* Fetches n bytes to the L2 cache. */
KS_INLINE void k_fetch(const u8 *p, size_t n) {
    for (size_t i = 0; i < n; i += 64) __builtin_prefetch(p + i, 0, 2);
}

#if defined KS_X86
/* x86: 256 weights of 16 rows, four to a step, and what stands beside them. For
 * blocks of 32 that is d and dmin of each; for one of 256 also the scale of
 * each span, twice, and for two spans at a time, in the order of x_span_sums,
 * their minima or, where weights have a bias, their scales. */
typedef struct {
    u8 p[64][16][4];
    f32 d[8][16], dmin[8][16];
    i32 scale[16][16], side[8][16];
} x_panel;

/* What stands beside the weights of eight blocks of 256: the scales of the
 * first and of the second half of each group of 32; for each span of 16 its
 * minimum, or its scale where weights have a bias; and in a lane for each block
 * d and -dmin. */
typedef struct {
    i8 scale[8][16], other[8][16];
    f32 d[8], dmin[8];
} x_heads;

/* Inputs, sums of 16 and scales of a few tokens, from a panel's weights on. */
typedef struct {
    const i8 *x[8];
    const i16 *sums[8];
    const f32 *dx[8];
} x_tokens;

/* Lays out n blocks of 16 rows, from `at` on; `next` is fetched meanwhile. */
typedef void (*x_layer)(x_panel *to, const u8 *const *row, size_t at,
    size_t n, const u8 *next, bool raise);
/* acc[token][row] += panel times T tokens. */
typedef void (*x_tiler)(const x_panel *w, const x_tokens *in, size_t T,
    size_t n, const blk_type *b, f32 *acc);

/* T tokens from t on, inputs k0 and after; the last of m is repeated. */
KS_NOINLINE KS_UNUSED void x_tokens_at(const k_acts *a, size_t n_block,
    size_t k0, size_t t, size_t m, size_t T, x_tokens *in) {
    const int kind = n_block == 256, shift = kind ? 8 : 5;
    size_t at = t * a->n_in + k0;
    for (size_t k = 0; k < T; k++) {
        in->x[k] = a->q[kind] + at;
        in->sums[k] = a->sum[kind] + at / 16;
        in->dx[k] = a->d[kind] + (at >> shift);
        if (k + 1 < m) at += a->n_in;
    }
}
#endif

#define KS_PASTE_(a, b) a##_##b
#define KS_PASTE(a, b) KS_PASTE_(a, b)
#define KS_NAME(x) KS_PASTE(x, KS_ISA) /* x_scalar, x_avx2 */

#define KS_ISA scalar
#define KS_SCALAR 1
#define KS_FIRST_PASS 1
#endif

#if defined KS_FOR
KS_TARGET_BEGIN(KS_FOR)
#endif
#if defined KSLLM_ISA_ONLY /* there is no other row to take kernels from */
#undef KS_BASE
#undef KS_BASE_I8
#endif

/* The same in each pass: they mean what KS_ISA is where they stand. */
#define vf KS_NAME(vf)
#define v_load KS_NAME(v_load)
#define v_load_f16 KS_NAME(v_load_f16)
#define v_load_bf16 KS_NAME(v_load_bf16)
#define v_store KS_NAME(v_store)
#define v_store_f16 KS_NAME(v_store_f16)
#define v_store_i8 KS_NAME(v_store_i8)
#define v_set1 KS_NAME(v_set1)
#define v_add KS_NAME(v_add)
#define v_mul KS_NAME(v_mul)
#define v_div KS_NAME(v_div)
#define v_fma KS_NAME(v_fma)
#define v_max KS_NAME(v_max)
#define v_abs KS_NAME(v_abs)
#define v_exp2i KS_NAME(v_exp2i)
#define v_sum KS_NAME(v_sum)
#define v_top KS_NAME(v_top)
#define vi KS_NAME(vi)
#define vi_zero KS_NAME(vi_zero)
#define vi_start KS_NAME(vi_start)
#define vi_add KS_NAME(vi_add)
#define vi_dot_k KS_NAME(vi_dot_k)
#define vi_dot_v KS_NAME(vi_dot_v)
#define vi_float KS_NAME(vi_float)
#define vr KS_NAME(vr)
#define vr_load KS_NAME(vr_load)
#define vr_store KS_NAME(vr_store)
#define vr_minus KS_NAME(vr_minus)
#define vr_add KS_NAME(vr_add)

/* ---- 7b vocabulary ----
 * v_exp2i(p, t): p * 2^n where n is the integer in the low bits of t (t was
 * made by adding 1.5 * 2^23). v_sum: the fixed tree; v[i] + v[i + 8] first,
 * then half the distance at each step. v_top: the largest. v_store_i8: values
 * that are integers already.
 * vi: 16 integers. vi_dot_k(acc, tile, q) adds to each lane the products of
 * its 4 keys, stored plus 128, with 4 of a query; acc began as vi_start(sum of
 * the query). vi_dot_v(acc, tile, p) the same of signed values with shares
 * that are from 0 to 254, less VI_OFFSET. V_WIDTH(G), VI_WIDTH(G): so many vf
 * or vi at a time for G query heads.
 * vr: one float per row of a group of K_ROWS rows.
 * sc_dot: sum over groups of 16 of scale * sum of q * x, for n weights of each
 * row; sc_min the same for min * sum of x. Both are exact in 32 bits.
 * vr_add(acc, i, d, dx): fma((float)i * d, dx, acc). */

#if defined KS_SCALAR

/* Not forced: sixteen floats in memory, a hundred times inlined, take gcc
 * minutes under a sanitizer. */
#define V_INLINE static inline KS_UNUSED
#define V_UNROLL /* what would be sixteen floats in memory each */
#define V_WIDTH(G) G

typedef struct { f32 f[16]; } vf;
#define EACH for (int i = 0; i < 16; i++)

V_INLINE vf v_load(const void *p) {
    vf r;
    memcpy(&r, p, sizeof r);
    return r;
}
V_INLINE vf v_load_f16(const void *p) {
    vf r;
    EACH r.f[i] = f32_of_f16(ld_u16((const u8 *)p + 2 * i));
    return r;
}
V_INLINE vf v_load_bf16(const void *p) {
    vf r;
    EACH r.f[i] = f32_of_bf16(ld_u16((const u8 *)p + 2 * i));
    return r;
}
V_INLINE void v_store(void *p, vf a) { memcpy(p, &a, sizeof a); }
V_INLINE void v_store_f16(void *p, vf a) {
    u16 h[16];
    EACH h[i] = f16_of_f32(a.f[i]);
    memcpy(p, h, sizeof h);
}
/* By the bits of x + 1.5 * 2^23: no conversion that a NaN could make
 * undefined. */
V_INLINE void v_store_i8(i8 *p, vf a) {
    EACH p[i] = (i8)(u8)(bits_of_f32(a.f[i] + 12582912.0f) & 255);
}
V_INLINE vf v_set1(f32 x) {
    vf r;
    EACH r.f[i] = x;
    return r;
}
V_INLINE vf v_add(vf a, vf b) {
    EACH a.f[i] += b.f[i];
    return a;
}
V_INLINE vf v_mul(vf a, vf b) {
    EACH a.f[i] *= b.f[i];
    return a;
}
V_INLINE vf v_div(vf a, vf b) {
    EACH a.f[i] /= b.f[i];
    return a;
}
V_INLINE vf v_fma(vf a, vf b, vf c) {
    EACH c.f[i] = ks_fma(a.f[i], b.f[i], c.f[i]);
    return c;
}
V_INLINE vf v_max(vf a, vf b) {
    EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i];
    return a;
}
V_INLINE vf v_abs(vf a) {
    EACH a.f[i] = f32_of_bits(bits_of_f32(a.f[i]) & 0x7fffffff);
    return a;
}
V_INLINE vf v_exp2i(vf p, vf t) {
    EACH p.f[i] =
        f32_of_bits(bits_of_f32(p.f[i]) + (bits_of_f32(t.f[i]) << 23));
    return p;
}
V_INLINE f32 v_sum(vf v) {
    f32 s[8];
    for (int i = 0; i < 8; i++) s[i] = v.f[i] + v.f[i + 8];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
V_INLINE f32 v_top(vf v) {
    f32 m = v.f[0];
    for (int i = 1; i < 16; i++) m = v.f[i] > m ? v.f[i] : m;
    return m;
}

typedef struct { f32 f[K_ROWS]; } vr;
typedef struct { i32 i[K_ROWS]; } KS_NAME(vri);

V_INLINE vr vr_load(const f32 *p) {
    vr r;
    memcpy(&r, p, sizeof r);
    return r;
}
V_INLINE void vr_store(f32 *p, vr a) { memcpy(p, &a, sizeof a); }
V_INLINE KS_NAME(vri) sc_dot(const blk *b, const i8 *x, int n) {
    KS_NAME(vri) s;
    for (int r = 0; r < K_ROWS; r++) {
        i32 all = 0;
        for (int g = 0; g < n / 16; g++) {
            i32 part = 0;
            for (int i = 16 * g; i < 16 * g + 16; i++) part += b[r].q[i] * x[i];
            all += b[r].scale[g] * part;
        }
        s.i[r] = all;
    }
    return s;
}
V_INLINE KS_NAME(vri) sc_min(const blk *b, const i16 *sum, int n) {
    KS_NAME(vri) s;
    for (int r = 0; r < K_ROWS; r++) {
        s.i[r] = 0;
        for (int g = 0; g < n / 16; g++) s.i[r] += b[r].min[g] * sum[g];
    }
    return s;
}
V_INLINE vr vr_add(vr acc, KS_NAME(vri) s, vr d, f32 dx) {
    for (int r = 0; r < K_ROWS; r++)
        acc.f[r] = ks_fma((f32)s.i[r] * d.f[r], dx, acc.f[r]);
    return acc;
}

#define VI_WIDTH(G) G
#define VI_OFFSET 0
typedef struct { i32 i[16]; } vi;

V_INLINE vi vi_zero(void) { return (vi){{0}}; }
V_INLINE vi vi_start(i32 sum) {
    (void)sum;
    return vi_zero();
}
V_INLINE vi vi_add(vi a, vi b) {
    EACH a.i[i] += b.i[i];
    return a;
}
V_INLINE vi vi_dot_k(vi acc, const u8 *tile, const i8 *q) {
    EACH for (int k = 0; k < 4; k++)
        acc.i[i] += ((i32)tile[4 * i + k] - 128) * q[k];
    return acc;
}
V_INLINE vi vi_dot_v(vi acc, const u8 *tile, const u8 *p) {
    EACH for (int k = 0; k < 4; k++) acc.i[i] += (i8)tile[4 * i + k] * p[k];
    return acc;
}
V_INLINE vf vi_float(vi a) {
    vf r;
    EACH r.f[i] = (f32)a.i[i];
    return r;
}
#undef EACH

#elif defined KS_AVX2

#define V_INLINE KS_INLINE
#define V_UNROLL KS_UNROLL_FULLY
#define V_WIDTH(G) 4

typedef struct { __m256 a, b; } vf;

V_INLINE vf v_load(const void *p) {
    const f32 *f = p;
    return (vf){_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
}
V_INLINE vf v_load_f16(const void *p) {
    __m256i h = _mm256_loadu_si256(p);
    return (vf){_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
        _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
}
V_INLINE vf v_load_bf16(const void *p) {
    __m256i h = _mm256_loadu_si256(p);
    __m256i a = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(h));
    __m256i b = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(h, 1));
    return (vf){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
        _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
V_INLINE void v_store(void *p, vf x) {
    f32 *f = p;
    _mm256_storeu_ps(f, x.a);
    _mm256_storeu_ps(f + 8, x.b);
}
V_INLINE void v_store_f16(void *p, vf x) {
    u8 *h = p;
    _mm_storeu_si128((void *)h, _mm256_cvtps_ph(x.a, 0));
    _mm_storeu_si128((void *)(h + 16), _mm256_cvtps_ph(x.b, 0));
}
V_INLINE void v_store_i8(i8 *p, vf x) {
    __m256 magic = _mm256_set1_ps(12582912.0f);
    __m256i low = _mm256_set1_epi32(255);
    __m256i a = _mm256_castps_si256(_mm256_add_ps(x.a, magic));
    __m256i b = _mm256_castps_si256(_mm256_add_ps(x.b, magic));
    a = _mm256_packus_epi32(
        _mm256_and_si256(a, low), _mm256_and_si256(b, low));
    a = _mm256_permute4x64_epi64(a, 0xd8);
    a = _mm256_packus_epi16(a, a);
    a = _mm256_permute4x64_epi64(a, 0x08);
    _mm_storeu_si128((void *)p, _mm256_castsi256_si128(a));
}
V_INLINE vf v_set1(f32 x) {
    return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
V_INLINE vf v_add(vf x, vf y) {
    return (vf){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
V_INLINE vf v_mul(vf x, vf y) {
    return (vf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
V_INLINE vf v_div(vf x, vf y) {
    return (vf){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
V_INLINE vf v_fma(vf x, vf y, vf z) {
    return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
V_INLINE vf v_max(vf x, vf y) {
    return (vf){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
V_INLINE vf v_abs(vf x) {
    __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return (vf){_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
V_INLINE __m256 KS_NAME(exp2i)(__m256 p, __m256 t) {
    __m256i e = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
}
V_INLINE vf v_exp2i(vf p, vf t) {
    return (vf){KS_NAME(exp2i)(p.a, t.a), KS_NAME(exp2i)(p.b, t.b)};
}
V_INLINE f32 v_sum(vf v) {
    __m256 y = _mm256_add_ps(v.a, v.b);
    __m128 x = _mm_add_ps(
        _mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
V_INLINE f32 v_top(vf v) {
    __m256 y = _mm256_max_ps(v.a, v.b);
    __m128 x = _mm_max_ps(
        _mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

typedef __m256 vr;

V_INLINE vr vr_load(const f32 *p) { return _mm256_loadu_ps(p); }
V_INLINE void vr_store(f32 *p, vr a) { _mm256_storeu_ps(p, a); }
V_INLINE vr vr_minus(vr a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }

V_INLINE vr vr_add(vr acc, __m256i s, vr d, f32 dx) {
    __m256 p = _mm256_mul_ps(_mm256_cvtepi32_ps(s), d);
    return _mm256_fmadd_ps(p, _mm256_set1_ps(dx), acc);
}

#if defined KS_VNNI && !defined KS_AVXVNNI

#define VI_WIDTH(G) 16
#define VI_OFFSET 0
typedef __m512i vi;

V_INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
V_INLINE vi vi_start(i32 sum) { return _mm512_set1_epi32(-128 * sum); }
V_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
V_INLINE vi vi_dot_k(vi acc, const u8 *tile, const i8 *q) {
    i32 four;
    memcpy(&four, q, 4);
    return _mm512_dpbusd_epi32(
        acc, _mm512_loadu_si512(tile), _mm512_set1_epi32(four));
}
V_INLINE vi vi_dot_v(vi acc, const u8 *tile, const u8 *p) {
    i32 four;
    memcpy(&four, p, 4);
    return _mm512_dpbusd_epi32(
        acc, _mm512_set1_epi32(four), _mm512_loadu_si512(tile));
}
V_INLINE vf vi_float(vi a) {
    __m512 f = _mm512_cvtepi32_ps(a);
    __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(f), 1);
    return (vf){_mm512_castps512_ps256(f), _mm256_castpd_ps(high)};
}

#else

#define VI_WIDTH(G) 4
#define VI_OFFSET 127
typedef struct { __m256i v[2]; } vi;

V_INLINE vi vi_zero(void) {
    return (vi){{_mm256_setzero_si256(), _mm256_setzero_si256()}};
}
V_INLINE vi vi_start(i32 sum) {
    (void)sum;
    return vi_zero();
}
V_INLINE vi vi_add(vi a, vi b) {
    return (vi){{_mm256_add_epi32(a.v[0], b.v[0]),
        _mm256_add_epi32(a.v[1], b.v[1])}};
}
/* One factor must be unsigned: |q|, with its sign given to the key. Pairs of
 * products stay below 2^15: 2 * 127 * 128. */
V_INLINE vi vi_dot_k(vi acc, const u8 *tile, const i8 *q) {
    const __m256i flip = _mm256_set1_epi8(-128), one = _mm256_set1_epi16(1);
    i32 four;
    memcpy(&four, q, 4);
    __m256i y = _mm256_set1_epi32(four), z = _mm256_abs_epi8(y);
    KS_UNROLL
    for (int i = 0; i < 2; i++) {
        __m256i x = _mm256_xor_si256(
            _mm256_loadu_si256((const void *)(tile + 32 * i)), flip);
        x = _mm256_maddubs_epi16(z, _mm256_sign_epi8(x, y));
        x = _mm256_madd_epi16(x, one);
        KS_ADD("vpaddd", acc.v[i], x);
    }
    return acc;
}
V_INLINE vi vi_dot_v(vi acc, const u8 *tile, const u8 *p) {
    const __m256i one = _mm256_set1_epi16(1);
    i32 four;
    memcpy(&four, p, 4);
    __m256i y = _mm256_set1_epi32(four);
    KS_UNROLL
    for (int i = 0; i < 2; i++) {
        __m256i x = _mm256_loadu_si256((const void *)(tile + 32 * i));
        x = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(y, x));
        x = _mm256_madd_epi16(x, one);
        KS_ADD("vpaddd", acc.v[i], x);
    }
    return acc;
}
V_INLINE vf vi_float(vi a) {
    return (vf){_mm256_cvtepi32_ps(a.v[0]), _mm256_cvtepi32_ps(a.v[1])};
}

#endif

#elif defined KS_NEON

#define V_INLINE KS_INLINE
#define V_UNROLL KS_UNROLL_FULLY
#define V_WIDTH(G) 4

typedef struct { float32x4_t v[4]; } vf;
#define EACH KS_UNROLL for (int i = 0; i < 4; i++)

V_INLINE vf v_load(const void *p) {
    vf r;
    EACH r.v[i] = vreinterpretq_f32_u8(vld1q_u8((const u8 *)p + 16 * i));
    return r;
}
V_INLINE vf v_load_f16(const void *p) {
    vf r;
    EACH r.v[i] = vcvt_f32_f16(
        vreinterpret_f16_u8(vld1_u8((const u8 *)p + 8 * i)));
    return r;
}
V_INLINE vf v_load_bf16(const void *p) {
    vf r;
    EACH r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(
        vreinterpret_u16_u8(vld1_u8((const u8 *)p + 8 * i)), 16));
    return r;
}
V_INLINE void v_store(void *p, vf a) {
    EACH vst1q_u8((u8 *)p + 16 * i, vreinterpretq_u8_f32(a.v[i]));
}
V_INLINE void v_store_f16(void *p, vf a) {
    EACH vst1_u8((u8 *)p + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(a.v[i])));
}
V_INLINE void v_store_i8(i8 *p, vf a) {
    int32x4_t k[4];
    EACH k[i] = vreinterpretq_s32_f32(
        vaddq_f32(a.v[i], vdupq_n_f32(12582912.0f)));
    int16x8_t lo = vcombine_s16(vmovn_s32(k[0]), vmovn_s32(k[1]));
    int16x8_t hi = vcombine_s16(vmovn_s32(k[2]), vmovn_s32(k[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}
V_INLINE vf v_set1(f32 x) {
    vf r;
    EACH r.v[i] = vdupq_n_f32(x);
    return r;
}
V_INLINE vf v_add(vf a, vf b) {
    EACH a.v[i] = vaddq_f32(a.v[i], b.v[i]);
    return a;
}
V_INLINE vf v_mul(vf a, vf b) {
    EACH a.v[i] = vmulq_f32(a.v[i], b.v[i]);
    return a;
}
V_INLINE vf v_div(vf a, vf b) {
    EACH a.v[i] = vdivq_f32(a.v[i], b.v[i]);
    return a;
}
V_INLINE vf v_fma(vf a, vf b, vf c) {
    EACH c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
    return c;
}
/* Not vmaxq: that has its own mind about NaN and -0. */
V_INLINE vf v_max(vf a, vf b) {
    EACH a.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]);
    return a;
}
V_INLINE vf v_abs(vf a) {
    EACH a.v[i] = vabsq_f32(a.v[i]);
    return a;
}
V_INLINE vf v_exp2i(vf p, vf t) {
    EACH p.v[i] = vreinterpretq_f32_s32(
        vaddq_s32(vreinterpretq_s32_f32(p.v[i]),
            vshlq_n_s32(vreinterpretq_s32_f32(t.v[i]), 23)));
    return p;
}
V_INLINE f32 v_sum(vf v) {
    float32x4_t x = vaddq_f32(
        vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
    return vpadds_f32(vadd_f32(vget_low_f32(x), vget_high_f32(x)));
}
V_INLINE f32 v_top(vf v) {
    return vmaxvq_f32(vmaxq_f32(
        vmaxq_f32(v.v[0], v.v[1]), vmaxq_f32(v.v[2], v.v[3])));
}
#undef EACH

typedef struct { float32x4_t v[2]; } vr;
typedef struct { int32x4_t v[2]; } KS_NAME(vri);

V_INLINE vr vr_load(const f32 *p) {
    return (vr){{vld1q_f32(p), vld1q_f32(p + 4)}};
}
V_INLINE void vr_store(f32 *p, vr a) {
    vst1q_f32(p, a.v[0]);
    vst1q_f32(p + 4, a.v[1]);
}
V_INLINE vr vr_minus(vr a) {
    return (vr){{vnegq_f32(a.v[0]), vnegq_f32(a.v[1])}};
}
V_INLINE vr vr_add(vr acc, KS_NAME(vri) s, vr d, f32 dx) {
    KS_UNROLL
    for (int i = 0; i < 2; i++) {
        float32x4_t p = vmulq_f32(vcvtq_f32_s32(s.v[i]), d.v[i]);
        acc.v[i] = vfmaq_f32(acc.v[i], p, vdupq_n_f32(dx));
    }
    return acc;
}

#define VI_WIDTH(G) 4
#define VI_OFFSET 127
typedef struct { int32x4_t v[4]; } vi;

V_INLINE vi vi_zero(void) {
    vi r;
    KS_UNROLL
    for (int i = 0; i < 4; i++) r.v[i] = vdupq_n_s32(0);
    return r;
}
V_INLINE vi vi_start(i32 sum) {
    (void)sum;
    return vi_zero();
}
V_INLINE vi vi_add(vi a, vi b) {
    KS_UNROLL
    for (int i = 0; i < 4; i++) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
    return a;
}
/* Sums of 4 products each. */
V_INLINE int32x4_t KS_NAME(vi_dot)(int32x4_t acc, int8x16_t x, int8x16_t y) {
#if defined KS_DOTPROD
    return vdotq_s32(acc, x, y);
#else
    int32x4_t a = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)));
    int32x4_t b = vpaddlq_s16(vmull_s8(vget_high_s8(x), vget_high_s8(y)));
    return vaddq_s32(acc, vpaddq_s32(a, b));
#endif
}
V_INLINE vi vi_dot_k(vi acc, const u8 *tile, const i8 *q) {
    i32 four;
    memcpy(&four, q, 4);
    int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(four));
    KS_UNROLL
    for (int i = 0; i < 4; i++) {
        uint8x16_t x = veorq_u8(vld1q_u8(tile + 16 * i), vdupq_n_u8(128));
        acc.v[i] = KS_NAME(vi_dot)(acc.v[i], vreinterpretq_s8_u8(x), y);
    }
    return acc;
}
V_INLINE vi vi_dot_v(vi acc, const u8 *tile, const u8 *p) {
    i32 four;
    memcpy(&four, p, 4);
    int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(four));
    KS_UNROLL
    for (int i = 0; i < 4; i++)
        acc.v[i] = KS_NAME(vi_dot)(
            acc.v[i], vreinterpretq_s8_u8(vld1q_u8(tile + 16 * i)), y);
    return acc;
}
V_INLINE vf vi_float(vi a) {
    vf r;
    KS_UNROLL
    for (int i = 0; i < 4; i++) r.v[i] = vcvtq_f32_s32(a.v[i]);
    return r;
}

#endif

/* ---- 7c kernels on floats ---- */

/* The last n < 16 values, filled up. */
V_INLINE vf KS_NAME(v_tail)(const f32 *x, size_t n, f32 fill) {
    f32 f[16];
    k_tail((const u8 *)x, n, KSLLM_TYPE_F32, fill, f);
    return v_load(f);
}

/* e^x to about 1e-7 relative, clamped to [-86, 88]: no subnormals, no
 * infinity. 2^n by the exponent bits, a polynomial of degree 6 (Taylor; its
 * error at ln2/2 is below 2^-24) for the rest. */
V_INLINE vf KS_NAME(v_exp)(vf x) {
    x = v_max(x, v_set1(-86.0f));
    vf neg = v_mul(x, v_set1(-1.0f)); /* min by max */
    x = v_mul(v_max(neg, v_set1(-88.0f)), v_set1(-1.0f));
    vf t = v_fma(x, v_set1(1.44269504f), v_set1(12582912.0f));
    vf n = v_add(t, v_set1(-12582912.0f));
    vf r = v_fma(n, v_set1(-0.693359375f), x);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.0f / 720);
    p = v_fma(p, r, v_set1(1.0f / 120));
    p = v_fma(p, r, v_set1(1.0f / 24));
    p = v_fma(p, r, v_set1(1.0f / 6));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_exp2i(p, t);
}

#if !defined KS_BASE

static f32 KS_NAME(k_max)(const f32 *x, size_t n) {
    vf m = v_set1(x[0]);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) m = v_max(m, v_load(x + i));
    if (i < n) m = v_max(m, KS_NAME(v_tail)(x + i, n - i, x[0]));
    return v_top(m);
}

/* Sum of e^(x - max); the terms go to `out` if that is not NULL. */
static f32 KS_NAME(k_sum_exp)(const f32 *x, size_t n, f32 max, f32 *out) {
    vf s = v_set1(0.0f), shift = v_set1(-max);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        vf e = KS_NAME(v_exp)(v_add(v_load(x + i), shift));
        s = v_add(s, e);
        if (out) v_store(out + i, e);
    }
    f32 sum = v_sum(s), e[16];
    if (i == n) return sum;
    v_store(e,
        KS_NAME(v_exp)(v_add(KS_NAME(v_tail)(x + i, n - i, max), shift)));
    for (size_t k = i; k < n; k++) {
        sum += e[k - i];
        if (out) out[k] = e[k - i];
    }
    return sum;
}

/* y = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019). y may be x. */
static void KS_NAME(k_norm)(
    const f32 *x, const u8 *w, size_t n, f32 eps, f32 *y) {
    vf s = v_set1(0.0f);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) s = v_fma(v_load(x + i), v_load(x + i), s);
    if (i < n) {
        vf t = KS_NAME(v_tail)(x + i, n - i, 0.0f);
        s = v_fma(t, t, s);
    }
    f32 mean = v_sum(s) / (f32)n;
    f32 k = 1.0f / __builtin_sqrtf(mean + eps);
    for (i = 0; i + 16 <= n; i += 16)
        v_store(
            y + i, v_mul(v_mul(v_load(x + i), v_set1(k)), v_load(w + 4 * i)));
    for (; i < n; i++) y[i] = x[i] * k * ld_f32(w + 4 * i);
}

/* n values in blocks of n_block (32 or 256): scale = max|x| / 127, integers
 * rounded to nearest even, sums over 16. n is a multiple of n_block. A block
 * of nothing above 1e-30 is zero: 127 / max would overflow further down, and
 * products with its scale would underflow. */
static void KS_NAME(k_quantize)(
    const f32 *x, size_t n, size_t n_block, i8 *q, f32 *d, i16 *sum) {
    for (size_t b = 0; b < n; b += n_block) {
        vf m = v_abs(v_load(x + b));
        for (size_t i = 16; i < n_block; i += 16)
            m = v_max(m, v_abs(v_load(x + b + i)));
        f32 top = v_top(m);
        if (top <= 1e-30f) top = 0;
        vf inverse = v_set1(top > 0 ? 127.0f / top : 0.0f);
        *d++ = top / 127.0f;
        for (size_t i = b; i < b + n_block; i += 16) {
            v_store_i8(q + i, v_mul(v_load(x + i), inverse));
            i32 s = 0;
            for (size_t k = i; k < i + 16; k++) s += q[k];
            *sum++ = (i16)s;
        }
    }
}

static void KS_NAME(k_to_f16)(const f32 *x, size_t n, u8 *out) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) v_store_f16(out + 2 * i, v_load(x + i));
    for (; i < n; i++) {
        u16 h = f16_of_f32(x[i]);
        memcpy(out + 2 * i, &h, 2);
    }
}

/* Walsh-Hadamard transform of stretches of up to K_HADAMARD, its own inverse.
 * Keys and queries rotated alike have the same product, and no channel is
 * louder than the others, which a scale for many channels would pay for. */
static void KS_NAME(k_hadamard)(f32 *x, size_t n) {
    size_t block = 1;
    while (block < K_HADAMARD && n % (2 * block) == 0) block *= 2;
    f32 scale = 1.0f / __builtin_sqrtf((f32)block);
    for (size_t h = 1; h < block; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j++) {
                f32 a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

/* n values as q times the scale that is returned; q is filled up with 0 to a
 * multiple of 16. */
static f32 KS_NAME(k_to_i8)(const f32 *x, size_t n, i8 *q) {
    vf m = v_set1(0.0f);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) m = v_max(m, v_abs(v_load(x + i)));
    vf rest = KS_NAME(v_tail)(x + i, n - i, 0.0f);
    f32 top = v_top(v_max(m, v_abs(rest)));
    vf inverse = v_set1(top > 0 ? 127.0f / top : 0.0f);
    for (i = 0; i + 16 <= n; i += 16)
        v_store_i8(q + i, v_mul(v_load(x + i), inverse));
    if (i < n) v_store_i8(q + i, v_mul(rest, inverse));
    return top / 127.0f;
}

/* g = act(g) * u; silu(x) = x / (1 + e^-x); gelu by its tanh form, which is
 * x / (1 + e^-2y), y = sqrt(2/pi) (x + 0.044715 x^3). */
V_INLINE vf KS_NAME(v_act)(vf x, k_activation act) {
    vf z = v_mul(x, v_set1(-1.0f));
    if (act == K_GELU) {
        vf x2 = v_mul(x, x);
        vf c = v_fma(x2, v_set1(0.044715f), v_set1(1.0f));
        z = v_mul(v_mul(z, c), v_set1(1.5957691216f));
    }
    return v_div(x, v_add(v_set1(1.0f), KS_NAME(v_exp)(z)));
}

static void KS_NAME(k_gate)(f32 *g, const f32 *u, size_t n, k_activation act) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        v_store(g + i,
            v_mul(KS_NAME(v_act)(v_load(g + i), act), v_load(u + i)));
    if (i == n) return;
    f32 f[16];
    v_store(f, KS_NAME(v_act)(KS_NAME(v_tail)(g + i, n - i, 0.0f), act));
    for (size_t k = i; k < n; k++) g[k] = f[k - i] * u[k];
}

#endif

/* ---- 7d products with quantized weights: plain C ---- */

#if defined KS_SCALAR

/* Sums of K_ROWS rows and m <= K_TOKENS tokens, acc[token][row]. Rows beyond
 * the matrix are stand-ins: row[] repeats the last one. `ahead` bytes on lies
 * the next group of rows, fetched while this one is computed. */
V_INLINE void KS_NAME(k_group)(const u8 *const *row, size_t ahead,
    const k_acts *acts, size_t t0, size_t m, ksllm_type type, f32 *acc) {
    const size_t nb = BLK_TYPES[type].n, bytes = BLK_TYPES[type].bytes;
    const bool has_min = BLK_TYPES[type].has_min;
    const int kind = nb == 256;
    const size_t n = acts->n_in;
    blk b[K_ROWS];
    f32 d[K_ROWS], dmin[K_ROWS];
    for (size_t i = 0; i < n / nb; i++) {
        for (int r = 0; r < K_ROWS; r++) {
            const u8 *src = row[r] + i * bytes;
            for (size_t k = 0; k < bytes; k += 64)
                __builtin_prefetch(src + ahead + k);
            blk_read(&b[r], src, type);
            d[r] = b[r].d;
            if (has_min) dmin[r] = -b[r].dmin;
        }
        vr dv = vr_load(d);
        for (size_t t = 0; t < m; t++) {
            size_t at = (t0 + t) * n + i * nb;
            f32 dx = acts->d[kind][at / nb];
            vr a = vr_load(acc + t * K_ROWS);
            a = vr_add(a, sc_dot(b, acts->q[kind] + at, (int)nb), dv, dx);
            if (has_min)
                a = vr_add(a, sc_min(b, acts->sum[kind] + at / 16, (int)nb),
                    vr_load(dmin), dx);
            vr_store(acc + t * K_ROWS, a);
        }
    }
}

V_INLINE void KS_NAME(k_quantized)(const k_product *p, ksllm_type type) {
    f32 acc[K_TOKENS * K_ROWS];
    const u8 *row[K_ROWS];
    for (size_t t0 = 0; t0 < p->m; t0 += K_TOKENS)
        for (size_t r0 = 0; r0 < p->n_rows; r0 += K_ROWS) {
            size_t m = min_size(K_TOKENS, p->m - t0);
            size_t n = min_size(K_ROWS, p->n_rows - r0);
            size_t ahead = p->n_rows - r0 >= 2 * K_ROWS
                ? K_ROWS * p->row_bytes : 0;
            for (size_t r = 0; r < K_ROWS; r++)
                row[r] = p->w + (r0 + min_size(r, n - 1)) * p->row_bytes;
            memset(acc, 0, m * K_ROWS * sizeof *acc);
            KS_NAME(k_group)(row, ahead, p->acts, t0, m, type, acc);
            for (size_t t = 0; t < m; t++)
                memcpy(p->y + (t0 + t) * p->y_stride + r0, acc + t * K_ROWS,
                    n * sizeof *acc);
        }
}

#endif

/* ---- 7d products on x86 ----
 * The same sums as k_quantized, by another route: a lane is a row from the
 * start. Eight rows are transposed as they lie in the file, four bytes at a
 * time (x_four), and whatever unpacks them does so for all eight. x_block and
 * x_group give 32 weights of eight rows as eight vectors of four each, x_lanes
 * what stands beside them. With few tokens (k_direct) they are multiplied at
 * once. With many (k_panel) those of sixteen rows are laid out first, and meet
 * all tokens, tile by tile: a format is a function that lays out (k_lay_*), a
 * shape of blocks a tile (x_tile32_8 and others), and there is one loop. One
 * token and blocks of 256, which need a float but once, go another way: a
 * vector is a stretch of one block (k_stream).
 * Eight streams in turns are read at two thirds of the speed of one. So what
 * comes next is fetched in the order of its addresses, and to the L2 cache:
 * L1 is too small for what lies between (EPYC 7003: 12.0 instead of 8.3 GB/s
 * for rows of 1,152 bytes). */

#if defined KS_AVX2

/* The two encodings have names of their own. */
#undef KS_VEX
#if defined KS_AVXVNNI
#define KS_VEX(op) _mm256_##op##_avx_epi32
#else
#define KS_VEX(op) _mm256_##op##_epi32
#endif

V_INLINE __m256i KS_NAME(x_load)(const void *p) {
    return _mm256_loadu_si256(p);
}

/* Four inputs or two sums of a token, for every row. */
V_INLINE __m256i KS_NAME(x_dword)(const void *p) {
    return _mm256_set1_epi32(ld_i32(p));
}

V_INLINE __m256i KS_NAME(x_and)(__m256i v, int mask) {
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

/* Bits [n, n + width) of each byte. */
V_INLINE __m256i KS_NAME(x_bits)(__m256i v, int n, int width) {
    if (n) v = _mm256_srli_epi16(v, n);
    return KS_NAME(x_and)(v, (1 << width) - 1);
}

/* 16 bytes from each. */
V_INLINE __m256i KS_NAME(x_two)(const u8 *low, const u8 *high) {
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const void *)low)),
        _mm_loadu_si128((const void *)high), 1);
}

/* Dword j of half h of a[i] becomes dword i of half h of to[j]. */
V_INLINE void KS_NAME(x_turn)(const __m256i *a, __m256i *to) {
    __m256i e = _mm256_unpacklo_epi32(a[0], a[1]);
    __m256i f = _mm256_unpackhi_epi32(a[0], a[1]);
    __m256i g = _mm256_unpacklo_epi32(a[2], a[3]);
    __m256i h = _mm256_unpackhi_epi32(a[2], a[3]);
    to[0] = _mm256_unpacklo_epi64(e, g);
    to[1] = _mm256_unpackhi_epi64(e, g);
    to[2] = _mm256_unpacklo_epi64(f, h);
    to[3] = _mm256_unpackhi_epi64(f, h);
}

/* 16 bytes at `at` of eight rows: to[i] has bytes 4 * i to 4 * i + 3 of each,
 * in the order of the rows. */
V_INLINE void KS_NAME(x_four)(const u8 *const *row, size_t at, __m256i *to) {
    __m256i a[4];
    KS_UNROLL
    for (int r = 0; r < 4; r++)
        a[r] = KS_NAME(x_two)(row[r] + at, row[r + 4] + at);
    KS_NAME(x_turn)(a, to);
}

V_INLINE __m256i KS_NAME(x_codebook)(__m256i nibbles) {
    __m128i t = _mm_loadu_si128((const void *)BLK_IQ4);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), nibbles);
}

/* Nibbles of 16 bytes of each row: the low ones first. */
V_INLINE void KS_NAME(x_nibbles)(const __m256i *q, __m256i *w) {
    KS_UNROLL
    for (int k = 0; k < 4; k++) {
        w[4 + k] = KS_NAME(x_and)(_mm256_srli_epi16(q[k], 4), 15);
        w[k] = KS_NAME(x_and)(q[k], 15);
    }
}

/* ---- x86: blocks of 32 ---- */

V_INLINE __m256 KS_NAME(x_halves)(const u8 *const *row, size_t at) {
    __m128i h = _mm_cvtsi32_si128(ld_u16(row[0] + at));
#define HALF(r) h = _mm_insert_epi16(h, ld_i16(row[r] + at), r)
    HALF(1), HALF(2), HALF(3), HALF(4), HALF(5), HALF(6), HALF(7);
#undef HALF
    return _mm256_cvtph_ps(h);
}

/* 16 in the bytes of w[k] whose bits 4 * k to 4 * k + 3 are set at qh. */
V_INLINE void KS_NAME(x_fifth)(
    const u8 *const *row, size_t qh, __m256i *w) {
#define BITS(r) ld_i32(row[r] + qh)
    const __m256i h = _mm256_setr_epi32(BITS(0), BITS(1), BITS(2), BITS(3),
        BITS(4), BITS(5), BITS(6), BITS(7));
#undef BITS
    const __m256i first = _mm256_setr_epi32(0, 0x04040404, 0x08080808,
        0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
    KS_UNROLL
    for (int k = 0; k < 8; k++) {
        __m256i bit = _mm256_set1_epi32(
            k % 2 ? (i32)0x80402010 : 0x08040201);
        __m256i v = _mm256_shuffle_epi8(
            h, _mm256_add_epi8(first, _mm256_set1_epi8((char)(k / 2))));
        v = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
        w[k] = _mm256_or_si256(w[k], KS_NAME(x_and)(v, 16));
    }
}

/* The block at `at`, raised by the type's bias unless that is 128: w[k] has
 * weights 4 * k to 4 * k + 3 of each row. */
V_INLINE void KS_NAME(x_block)(
    const u8 *const *row, size_t at, ksllm_type type, __m256i *w) {
    const size_t end = at + BLK_TYPES[type].bytes;
    if (type == KSLLM_TYPE_Q8_0) {
        KS_NAME(x_four)(row, end - 32, w);
        KS_NAME(x_four)(row, end - 16, w + 4);
        return;
    }
    __m256i q[4];
    KS_NAME(x_four)(row, end - 16, q);
    KS_NAME(x_nibbles)(q, w);
    if (type == KSLLM_TYPE_Q5_0 || type == KSLLM_TYPE_Q5_1)
        KS_NAME(x_fifth)(row, end - 20, w);
    KS_UNROLL
    for (int k = 0; k < 8; k++)
        if (type == KSLLM_TYPE_IQ4_NL) w[k] = KS_NAME(x_codebook)(w[k]);
}

/* ---- x86: blocks of 256 ---- */

/* A block of eight rows in stretches of 16 bytes, transposed. */
typedef struct { __m256i v[4 * 14]; } KS_NAME(xraw);

/* Groups of 32 weights that are unpacked from the same bytes. */
V_INLINE int KS_NAME(x_unit)(ksllm_type type) {
    return type == KSLLM_TYPE_Q2_K || type == KSLLM_TYPE_Q3_K
            || type == KSLLM_TYPE_Q6_K ? 4 : 2;
}

/* Group g of unit i, as x_block gives it. */
V_INLINE void KS_NAME(x_group)(const KS_NAME(xraw) *raw, ksllm_type type,
    size_t i, const int g, __m256i *w) {
    const __m256i *q = raw->v;
    if (type == KSLLM_TYPE_IQ4_XS)
        KS_NAME(x_nibbles)(q + 4 + 8 * i + 4 * g, w);
    KS_UNROLL
    for (int k = 0; k < 8; k++) {
        __m256i h;
        switch ((int)type) {
        case KSLLM_TYPE_Q4_K:
            w[k] = KS_NAME(x_bits)(q[4 + 8 * i + (size_t)k], 4 * g, 4);
            break;
        case KSLLM_TYPE_Q5_K:
            w[k] = KS_NAME(x_bits)(q[12 + 8 * i + (size_t)k], 4 * g, 4);
            h = KS_NAME(x_bits)(q[4 + k], 2 * (int)i + g, 1);
            w[k] = _mm256_or_si256(w[k], _mm256_slli_epi16(h, 4));
            break;
        case KSLLM_TYPE_Q6_K:
            w[k] = KS_NAME(x_bits)(
                q[16 * i + (size_t)(g % 2 * 8 + k)], g / 2 * 4, 4);
            h = q[32 + 8 * i + (size_t)k];
            h = g < 2 ? _mm256_slli_epi16(h, 4 - 2 * g)
                      : _mm256_srli_epi16(h, 2 * g - 4);
            w[k] = _mm256_or_si256(w[k], KS_NAME(x_and)(h, 48));
            break;
        case KSLLM_TYPE_Q2_K:
            w[k] = KS_NAME(x_bits)(q[4 + 8 * i + (size_t)k], 2 * g, 2);
            break;
        case KSLLM_TYPE_Q3_K:
            w[k] = KS_NAME(x_bits)(q[8 + 8 * i + (size_t)k], 2 * g, 2);
            h = KS_NAME(x_bits)(q[k], 4 * (int)i + g, 1);
            w[k] = _mm256_or_si256(w[k], _mm256_slli_epi16(h, 2));
            break;
        default: w[k] = KS_NAME(x_codebook)(w[k]); /* IQ4_XS */
        }
    }
}

/* What belongs to the weights of a block of 256, a lane for each row: the
 * scale of each span, twice, as a pair; pairs of minima, or else of scales, of
 * the spans 4 * i + j and 4 * i + j + 2, for j = 0 and 1, at [2 * i + j]. */
typedef struct {
    __m256i scale[16], side[8];
    __m256 d, dmin;
} KS_NAME(xlanes);

/* The scales and minima of four spans in the four bytes of each row. */
V_INLINE void KS_NAME(x_scale_bytes)(
    const __m256i *q, ksllm_type type, __m256i *s, __m256i *m) {
    const __m256i tail = _mm256_set1_epi8(32);
    __m256i a, b, c;
    switch ((int)type) {
    case KSLLM_TYPE_Q4_K: case KSLLM_TYPE_Q5_K: /* see blk_six_bits */
        a = q[1], b = q[2], c = q[3];
        s[0] = KS_NAME(x_and)(a, 63);
        m[0] = KS_NAME(x_and)(b, 63);
        s[1] = _mm256_or_si256(KS_NAME(x_bits)(c, 0, 4),
            KS_NAME(x_and)(_mm256_srli_epi16(a, 2), 48));
        m[1] = _mm256_or_si256(KS_NAME(x_bits)(c, 4, 4),
            KS_NAME(x_and)(_mm256_srli_epi16(b, 2), 48));
        return;
    case KSLLM_TYPE_Q2_K:
        KS_UNROLL
        for (int i = 0; i < 4; i++) {
            s[i] = KS_NAME(x_bits)(q[i], 0, 4);
            m[i] = KS_NAME(x_bits)(q[i], 4, 4);
        }
        return;
    case KSLLM_TYPE_Q3_K: /* the scales begin two bytes into the last 16 */
        KS_UNROLL
        for (int i = 0; i < 3; i++)
            m[i] = _mm256_or_si256(_mm256_srli_epi32(q[24 + i], 16),
                _mm256_slli_epi32(q[25 + i], 16));
        c = m[2];
        KS_UNROLL
        for (int i = 0; i < 4; i++)
            s[i] = _mm256_sub_epi8(_mm256_or_si256(
                KS_NAME(x_bits)(m[i % 2], i / 2 * 4, 4),
                _mm256_slli_epi16(KS_NAME(x_bits)(c, 2 * i, 2), 4)), tail);
        return;
    case KSLLM_TYPE_IQ4_XS: /* nibbles at q[1], two bits above in q[0] */
        KS_UNROLL
        for (int i = 0; i < 2; i++) {
            const __m256i rows = _mm256_setr_epi32(0, 0x04040404, 0x08080808,
                0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
            a = _mm256_shuffle_epi8(q[1], _mm256_add_epi8(rows,
                _mm256_set1_epi32(i ? 0x03030202 : 0x01010000)));
            b = _mm256_shuffle_epi8(q[0], _mm256_add_epi8(
                rows, _mm256_set1_epi8((char)(2 + i))));
            a = _mm256_or_si256(
                _mm256_and_si256(a, _mm256_set1_epi16(0x000f)),
                _mm256_and_si256(
                    _mm256_srli_epi16(a, 4), _mm256_set1_epi16(0x0f00)));
            c = _mm256_and_si256(
                _mm256_slli_epi32(b, 4), _mm256_set1_epi32(0x30));
            c = _mm256_or_si256(c, _mm256_and_si256(
                _mm256_slli_epi32(b, 2), _mm256_set1_epi32(0x3000)));
            c = _mm256_or_si256(
                c, _mm256_and_si256(b, _mm256_set1_epi32(0x300000)));
            c = _mm256_or_si256(c, _mm256_and_si256(
                _mm256_srli_epi32(b, 2), _mm256_set1_epi32(0x30000000)));
            s[i] = _mm256_sub_epi8(_mm256_or_si256(a, c), tail);
        }
        return;
    default: /* Q6_K */
        KS_UNROLL
        for (int i = 0; i < 4; i++) s[i] = q[48 + i];
    }
}

/* The halves of eight dwords, as floats. */
V_INLINE void KS_NAME(x_two_halves)(__m256i v, __m256 *low, __m256 *high) {
    __m256i h = _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)));
    h = _mm256_permute4x64_epi64(h, 0xd8);
    *low = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
    *high = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
}

/* d and dmin are the halves of one dword, or d is one of them. */
V_INLINE void KS_NAME(x_lanes)(
    const KS_NAME(xraw) *raw, ksllm_type type, KS_NAME(xlanes) *to) {
    const blk_type *b = &BLK_TYPES[type];
    const int n = b->span == 32 ? 2 : 4;
    __m256i s[4], m[4];
    KS_NAME(x_scale_bytes)(raw->v, type, s, m);
    for (int i = 0; i < n; i++) {
        KS_UNROLL
        for (int j = 0; j < 4; j++) {
            const i32 at = 0x00800080 | j << 8 | j << 24;
            __m256i pick = _mm256_add_epi32(_mm256_set1_epi32(at),
                _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0,
                    0x04000400, 0x08000800, 0x0c000c00));
            to->scale[4 * i + j] = _mm256_srai_epi16(
                _mm256_shuffle_epi8(s[i], pick), 8);
        }
        to->side[2 * i] = b->has_min
            ? _mm256_and_si256(m[i], _mm256_set1_epi16(255))
            : _mm256_srai_epi16(_mm256_slli_epi16(s[i], 8), 8);
        to->side[2 * i + 1] = b->has_min ? _mm256_srli_epi16(m[i], 8)
                                         : _mm256_srai_epi16(s[i], 8);
    }
    const size_t last = (size_t)b->bytes / 16 * 4 + 3;
    const bool first = b->d < 16; /* else in the last dword */
    __m256 low, high;
    KS_NAME(x_two_halves)(raw->v[first ? 0 : last], &low, &high);
    to->d = first || b->has_min ? low : high;
    to->dmin = vr_minus(high);
}

/* The block at `at` of eight rows. Not inlined, so that its constants do not
 * take the registers of loops around it.
 * A stretch begins at each multiple of 16, and the last 16 bytes are one if the
 * block does not end with one. With IQ4_XS all but the first begin 8 bytes
 * before, so that each has the nibbles of a group. */
KS_NOINLINE KS_UNUSED void KS_NAME(x_block256)(
    const u8 *const *row, size_t at, ksllm_type type, KS_NAME(xraw) *raw,
    KS_NAME(xlanes) *lanes) {
    const size_t bytes = BLK_TYPES[type].bytes;
    const size_t skew = type == KSLLM_TYPE_IQ4_XS ? 8 : 0;
    const u8 *p[8]; /* registers: row may be what is stored to */
    KS_UNROLL
    for (int r = 0; r < 8; r++) p[r] = row[r] + at;
    __m256i *to = raw->v;
    KS_NAME(x_four)(p, 0, to);
    size_t i = 16 - skew;
    for (; i + 16 <= bytes; i += 16) KS_NAME(x_four)(p, i, to += 4);
    if (i < bytes) KS_NAME(x_four)(p, bytes - 16, to + 4);
    KS_NAME(x_lanes)(raw, type, lanes);
}

/* A token's sums of the spans of a block of 256, in the order of the pairs in
 * xlanes. */
V_INLINE void KS_NAME(x_span_sums)(
    const i16 *sums, int span, i16 *to) {
    const __m256i swap = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m256i s = KS_NAME(x_load)(sums);
    if (span == 32) {
        s = _mm256_madd_epi16(s, _mm256_set1_epi16(1));
        s = _mm256_permute4x64_epi64(_mm256_packs_epi32(s, s), 0x08);
    }
    _mm256_storeu_si256((void *)to, _mm256_shuffle_epi8(s, swap));
}

/* ---- x86: multiplying ----
 * Sums of four products, or without VNNI of two as 16 bits. x_steps says how
 * many vectors of four weights may be added up before their sums are scaled.
 * Weights whose bias is 128 are signed here, and without VNNI one of the two
 * factors must not be: it takes its sign from the other. Two such products
 * fill 16 bits, so each step adds up to 32. */

V_INLINE bool KS_NAME(x_signed)(ksllm_type type) {
#if defined KS_VNNI
    (void)type;
    return false;
#else
    return BLK_TYPES[type].bias == 128;
#endif
}

/* What x_block and x_group gave, by the bias where that is 128. */
V_INLINE __m256i KS_NAME(x_raised)(__m256i w, ksllm_type type) {
    const __m256i up = _mm256_set1_epi8((char)(BLK_TYPES[type].bias & 128));
    return _mm256_xor_si256(w, up);
}

V_INLINE int KS_NAME(x_steps)(ksllm_type type, bool is_signed) {
    const int all = BLK_TYPES[type].span / 4;
#if defined KS_VNNI
    (void)is_signed;
    return all;
#else
    if (is_signed) return all;
    switch ((int)type) {
    case KSLLM_TYPE_Q6_K: return 2; /* 2 * 2 of 63 * 127 */
    case KSLLM_TYPE_Q5_0: case KSLLM_TYPE_Q5_1: case KSLLM_TYPE_Q5_K: return 4;
    default: return all; /* 8 * 2 of 15 * 127 */
    }
#endif
}

V_INLINE __m256i KS_NAME(x_step)(
    __m256i s, __m256i w, __m256i y, bool first, bool is_signed) {
#if defined KS_VNNI
    (void)is_signed;
    return KS_VEX(dpbusd)(first ? _mm256_setzero_si256() : s, w, y);
#else
    __m256i p;
    if (is_signed)
        p = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w),
            _mm256_sign_epi8(y, w)), _mm256_set1_epi16(1));
    else
        p = _mm256_maddubs_epi16(w, y);
    if (first) return p;
    if (is_signed) KS_ADD("vpaddd", s, p);
    else KS_ADD("vpaddw", s, p);
    return s;
#endif
}

/* Sums to 32 bits. */
V_INLINE __m256i KS_NAME(x_whole)(__m256i s, bool is_signed) {
#if defined KS_VNNI
    (void)is_signed;
    return s;
#else
    return is_signed ? s : _mm256_madd_epi16(s, _mm256_set1_epi16(1));
#endif
}

/* The same times a scale, which comes as a pair. */
V_INLINE __m256i KS_NAME(x_scaled)(
    __m256i s, __m256i scale, bool is_signed) {
#if !defined KS_VNNI
    if (!is_signed) return _mm256_madd_epi16(s, scale);
#endif
    (void)is_signed;
    return _mm256_mullo_epi32(s, _mm256_srai_epi32(scale, 16));
}

/* ---- x86: one token, blocks of 256 ----
 * They are taken as they lie, 32 weights in a vector: sums of two are scaled at
 * once, and what is left in the lanes is added up for eight blocks together.
 * So memory is read as one stream, and ahead of it to L1 (EPYC 7003, one
 * thread, decode of a Q4_K_M: 0.80 of the read bandwidth became 0.94). */

/* Weights 32 * g and after of the block at p, in their order. */
V_INLINE __m256i KS_NAME(x_part)(
    const u8 *p, ksllm_type type, const size_t g) {
    const size_t half = g / 4, four = g % 4, two = g / 2;
    __m256i w, h;
    int up; /* so far bits of h go to stand above those of w */
    switch ((int)type) {
    case KSLLM_TYPE_Q4_K:
        w = KS_NAME(x_load)(FIELD_OF(p, blk_q4_k, qs) + 32 * two);
        return KS_NAME(x_bits)(w, g % 2 * 4, 4);
    case KSLLM_TYPE_Q5_K:
        w = KS_NAME(x_load)(FIELD_OF(p, blk_q5_k, qs) + 32 * two);
        w = KS_NAME(x_bits)(w, g % 2 * 4, 4);
        h = KS_NAME(x_load)(FIELD_OF(p, blk_q5_k, qh)), up = 4 - (int)g;
        break;
    case KSLLM_TYPE_Q6_K:
        w = KS_NAME(x_load)(
            FIELD_OF(p, blk_q6_k, ql) + 64 * half + g % 2 * 32);
        w = KS_NAME(x_bits)(w, (int)four / 2 * 4, 4);
        h = KS_NAME(x_load)(FIELD_OF(p, blk_q6_k, qh) + 32 * half);
        up = 4 - 2 * (int)four;
        break;
    case KSLLM_TYPE_Q2_K:
        w = KS_NAME(x_load)(FIELD_OF(p, blk_q2_k, qs) + 32 * half);
        return KS_NAME(x_bits)(w, 2 * (int)four, 2);
    case KSLLM_TYPE_Q3_K:
        w = KS_NAME(x_load)(FIELD_OF(p, blk_q3_k, qs) + 32 * half);
        w = KS_NAME(x_bits)(w, 2 * (int)four, 2);
        h = KS_NAME(x_load)(FIELD_OF(p, blk_q3_k, hmask)), up = 2 - (int)g;
        break;
    default: { /* IQ4_XS */
        __m128i q = _mm_loadu_si128(
            (const void *)(FIELD_OF(p, blk_iq4_xs, qs) + 16 * g));
        w = _mm256_inserti128_si256(
            _mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
        return KS_NAME(x_codebook)(KS_NAME(x_and)(w, 15));
    }
    }
    h = up > 0 ? _mm256_slli_epi16(h, up) : up ? _mm256_srli_epi16(h, -up) : h;
    return _mm256_or_si256(w, KS_NAME(x_and)(h,
        type == KSLLM_TYPE_Q6_K ? 48 : type == KSLLM_TYPE_Q5_K ? 16 : 4));
}

/* Half h of v to to[k + 4 * h]. */
V_INLINE void KS_NAME(x_put_two)(i8 (*to)[16], __m256i v, size_t k) {
    _mm_storeu_si128((void *)to[k], _mm256_castsi256_si128(v));
    _mm_storeu_si128((void *)to[k + 4], _mm256_extracti128_si256(v, 1));
}

V_INLINE void KS_NAME(x_heads_of)(
    const u8 *p, ksllm_type type, x_heads *to) {
    const blk_type *b = &BLK_TYPES[type];
    const bool twice = b->span == 32; /* each stands for two spans of 16 */
    const u8 *block[8];
    __m256i q[28], s[4], m[4], scale[4], other[4];
    KS_UNROLL
    for (int k = 0; k < 8; k++) block[k] = p + k * b->bytes;
    if (type == KSLLM_TYPE_Q6_K) { /* as they are wanted */
        KS_UNROLL
        for (int k = 0; k < 4; k++)
            scale[k] = KS_NAME(x_two)(
                FIELD_OF(block[k], blk_q6_k, scales),
                FIELD_OF(block[k + 4], blk_q6_k, scales));
    } else {
        if (type == KSLLM_TYPE_Q3_K) /* at the end of the block */
            KS_NAME(x_four)(block, b->bytes - 16, q + 24);
        else KS_NAME(x_four)(block, 0, q);
        KS_NAME(x_scale_bytes)(q, type, s, m);
        if (twice) s[2] = s[0], s[3] = s[1];
        KS_NAME(x_turn)(s, scale);
        if (twice && b->has_min) m[2] = m[0], m[3] = m[1];
        if (b->has_min) KS_NAME(x_turn)(m, other);
    }
    const __m256i apart = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    const __m256i pairs = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7));
    KS_UNROLL
    for (size_t k = 0; k < 4; k++) {
        __m256i v = b->has_min ? other[k] : scale[k];
        if (twice) v = _mm256_shuffle_epi8(v, pairs);
        else scale[k] = _mm256_shuffle_epi8(scale[k], apart);
        KS_NAME(x_put_two)(to->scale, scale[k], k);
        if (b->has_min || blk_biased(type))
            KS_NAME(x_put_two)(to->other, v, k);
    }
    vr d, dmin;
    if (b->m == 2) { /* both in the first dword */
        KS_NAME(x_two_halves)(q[0], &d, &dmin);
    } else {
        d = KS_NAME(x_halves)(block, b->d);
        dmin = KS_NAME(x_halves)(block, b->m);
    }
    vr_store(to->d, d);
    vr_store(to->dmin, vr_minus(dmin));
}

/* Not inlined for the same reason as x_block256. */
#if defined KS_BASE
#define X_READ_HEADS KS_PASTE(x_read_heads, KS_BASE)
#else
#define X_READ_HEADS KS_NAME(x_read_heads)
KS_NOINLINE void X_READ_HEADS(const u8 *p, ksllm_type type, x_heads *to) {
    switch ((int)type) { /* with the type known to the compiler: 6 to 10 % */
#define HEADS(t) case KSLLM_TYPE_##t: KS_NAME(x_heads_of)(p, KSLLM_TYPE_##t, to)
    HEADS(Q2_K); break;
    HEADS(Q3_K); break;
    HEADS(Q4_K); break;
    HEADS(Q5_K); break;
    HEADS(Q6_K); break;
    HEADS(IQ4_XS);
#undef HEADS
    }
}
#endif

/* s + 32 weights times 32 inputs, each half by its scale. Sums of two fit 16
 * bits: all types but IQ4_XS have 6 bits at most, and of that the inputs take
 * the weights' signs. */
V_INLINE __m256i KS_NAME(x_part_dot)(
    __m256i s, __m256i w, __m256i x, __m256i scale, ksllm_type type) {
    if (BLK_TYPES[type].bias == 128) {
        x = _mm256_sign_epi8(x, w);
        w = _mm256_abs_epi8(w);
    }
    w = _mm256_maddubs_epi16(w, x);
#if defined KS_VNNI
    return KS_VEX(dpwssd)(s, w, scale);
#else
    w = _mm256_madd_epi16(w, scale);
    KS_ADD("vpaddd", s, w);
    return s;
#endif
}

/* The sums of the lanes of eight vectors. */
V_INLINE __m256i KS_NAME(x_lane_sums)(const __m256i *v) {
    __m256i a[4], b[2];
    KS_UNROLL
    for (int i = 0; i < 4; i++)
        a[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
            _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    KS_UNROLL
    for (int i = 0; i < 2; i++)
        b[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
            _mm256_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(b[0], b[1], 0x20),
        _mm256_permute2x128_si256(b[0], b[1], 0x31));
}

/* Block k of eight, which is at q, times its inputs: p[k] has parts of its sum
 * in its lanes, u[k] those of the minima. */
V_INLINE void KS_NAME(x_one)(const u8 *q, const i8 *x, const i16 *sums,
    const x_heads *l, size_t k, ksllm_type type, __m256i *p,
    __m256i *u) {
    enum { AHEAD = 4096 };
    const blk_type *b = &BLK_TYPES[type];
    const bool lower = blk_biased(type);
    const __m256i scale = _mm256_cvtepi8_epi16(
        _mm_loadu_si128((const void *)l->scale[k]));
    __m256i s = _mm256_setzero_si256(), o = s;
    for (size_t at = 0; at < b->bytes; at += 64)
        __builtin_prefetch(q + AHEAD + at);
    KS_OPAQUE(q);
    KS_OPAQUE(x);
    if (lower || b->has_min)
        o = _mm256_madd_epi16(KS_NAME(x_load)(sums), _mm256_cvtepi8_epi16(
            _mm_loadu_si128((const void *)l->other[k])));
    if (lower)
        s = _mm256_sub_epi32(s, _mm256_slli_epi32(o, __builtin_ctz(b->bias)));
    KS_UNROLL
    for (size_t g = 0; g < 8; g++)
        s = KS_NAME(x_part_dot)(s, KS_NAME(x_part)(q, type, g),
            KS_NAME(x_load)(x + 32 * g), _mm256_shuffle_epi8(scale,
                _mm256_set1_epi16((i16)(0x0100 + 0x0202 * g))), type);
    p[k] = s;
    u[k] = o;
}

/* While eight blocks are multiplied, the floats of the eight before them are
 * added up: each waits for the one before it. */
V_INLINE void KS_NAME(k_stream)(const k_product *p, ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    const k_acts *a = p->acts;
    const size_t n_row = a->n_in / 256, n_blocks = p->n_rows * n_row;
    const f32 *dx = a->d[1];
    u8 end[8 * sizeof(blk_q6_k)]; /* the largest of them */
    x_heads l;
    __m256i pi[8], ui[8];
    f32 pf[8], uf[8], *y = p->y;
    __m128 sum = _mm_setzero_ps();
    size_t before = 0, n, i = 0, i_sum = 0;
    for (size_t j = 0; j < n_blocks || before; j += 8, before = n) {
        const u8 *q = p->w + min_size(j, n_blocks) * b->bytes;
        n = j < n_blocks ? min_size(8, n_blocks - j) : 0;
        if (n && n < 8) {
            memset(end, 0, sizeof end);
            memcpy(end, q, n * b->bytes);
            q = end;
        }
        if (n) X_READ_HEADS(q, type, &l);
        for (size_t k = 0; k < 8; k++) {
            if (n) {
                KS_NAME(x_one)(q + k * b->bytes, a->q[1] + 256 * i,
                    a->sum[1] + 16 * i, &l, k, type, pi, ui);
                i = i + 1 < n_row ? i + 1 : 0;
            }
            if (k >= before) continue;
            const __m128 d = _mm_load_ss(dx + i_sum);
            sum = _mm_fmadd_ss(_mm_load_ss(pf + k), d, sum);
            if (b->has_min) sum = _mm_fmadd_ss(_mm_load_ss(uf + k), d, sum);
            if (++i_sum < n_row) continue;
            _mm_store_ss(y++, sum);
            sum = _mm_setzero_ps();
            i_sum = 0;
        }
        _mm256_storeu_ps(pf, _mm256_mul_ps(
            _mm256_cvtepi32_ps(KS_NAME(x_lane_sums)(pi)), vr_load(l.d)));
        if (b->has_min)
            _mm256_storeu_ps(uf, _mm256_mul_ps(
                _mm256_cvtepi32_ps(KS_NAME(x_lane_sums)(ui)),
                vr_load(l.dmin)));
    }
}

/* ---- x86: few tokens ---- */

enum { /* tokens up to which 8 rows at a time are faster */
#if defined KS_VNNI
    KS_NAME(FEW) = 1,
#else
    KS_NAME(FEW) = 8,
#endif
};

/* Eight rows times m tokens; acc[token][row]. */
V_INLINE void KS_NAME(x_eight32)(const u8 *const *row, const u8 *next,
    const k_acts *a, const size_t m, ksllm_type type, f32 *acc) {
    const blk_type *b = &BLK_TYPES[type];
    const bool is_signed = KS_NAME(x_signed)(type);
    const int n = KS_NAME(x_steps)(type, is_signed);
    const size_t n_in = a->n_in;
    size_t at = 0;
    for (size_t i = 0; i < n_in / 32; i++, at += b->bytes) {
        __m256i w[8];
        KS_NAME(x_block)(row, at, type, w);
        KS_UNROLL
        for (int k = 0; k < 8; k++)
            if (!is_signed) w[k] = KS_NAME(x_raised)(w[k], type);
        const __m256 d = KS_NAME(x_halves)(row, at + b->d);
        const __m256 dmin = KS_NAME(x_halves)(row, at + b->m);
        k_fetch(next + 8 * at, 8 * b->bytes);
        const i8 *x = a->q[0] + 32 * i;
        const i16 *sums = a->sum[0] + 2 * i;
        const f32 *dx = a->d[0] + i;
        for (size_t t = 0; t < m; t++) {
            __m256i s = _mm256_setzero_si256(), p = s;
            KS_UNROLL
            for (int k = 0; k < 8; k++) {
                s = KS_NAME(x_step)(s, w[k], KS_NAME(x_dword)(x + 4 * k),
                    k % n == 0, is_signed);
                if (k % n < n - 1) continue;
                __m256i part = KS_NAME(x_whole)(s, is_signed);
                p = k < n ? part : _mm256_add_epi32(p, part);
            }
            const __m256i sum = KS_NAME(x_dword)(sums);
            if (b->bias && !is_signed)
                p = _mm256_add_epi32(p, _mm256_madd_epi16(
                    sum, _mm256_set1_epi16((i16)-b->bias)));
            vr y = vr_add(vr_load(acc + 8 * t), p, d, *dx);
            if (b->has_min)
                y = vr_add(y, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)),
                    dmin, *dx);
            vr_store(acc + 8 * t, y);
            x += n_in, sums += n_in / 16, dx += n_in / 32;
        }
    }
}

/* The same for tokens t0 to t0 + m - 1. */
V_INLINE void KS_NAME(x_eight256)(const u8 *const *row, const u8 *next,
    const k_acts *a, size_t t0, const size_t m, ksllm_type type, f32 *acc) {
    const blk_type *b = &BLK_TYPES[type];
    const bool is_signed = KS_NAME(x_signed)(type);
    const int n = KS_NAME(x_steps)(type, is_signed);
    const int unit = KS_NAME(x_unit)(type);
    const size_t n_in = a->n_in;
    size_t at = 0;
    for (size_t i = 0; i < n_in / 256; i++, at += b->bytes) {
        KS_NAME(xraw) raw;
        KS_NAME(xlanes) l;
        __m256i p[KS_NAME(FEW)];
        KS_NAME(x_block256)(row, at, type, &raw, &l);
        for (size_t t = 0; t < m; t++) p[t] = _mm256_setzero_si256();
        const i8 *x0 = a->q[1] + t0 * n_in + 256 * i;
        const __m256i *scale = l.scale;
        const u8 *fetch = next + 8 * at; /* an eighth with each group */
        for (size_t u = 0; u < 8 / (size_t)unit; u++) {
            KS_UNROLL
            for (int g = 0; g < unit; g++, x0 += 32, scale += 32 / b->span) {
                __m256i w[8];
                k_fetch(fetch, b->bytes);
                fetch += b->bytes;
                KS_NAME(x_group)(&raw, type, u, g, w);
                KS_UNROLL
                for (int k = 0; k < 8; k++)
                    if (!is_signed) w[k] = KS_NAME(x_raised)(w[k], type);
                const i8 *x = x0;
                for (size_t t = 0; t < m; t++, x += n_in) {
                    __m256i s = _mm256_setzero_si256();
                    KS_UNROLL
                    for (int k = 0; k < 8; k++) {
                        s = KS_NAME(x_step)(s, w[k],
                            KS_NAME(x_dword)(x + 4 * k), k % n == 0, is_signed);
                        if (k % n == n - 1)
                            p[t] = _mm256_add_epi32(p[t], KS_NAME(x_scaled)(
                                s, scale[4 * k / b->span], is_signed));
                    }
                }
            }
        }
        for (size_t t = 0; t < m; t++) {
            const size_t from = (t0 + t) * n_in + 256 * i;
            const f32 dx = a->d[1][from / 256];
            i16 sums[16];
            const bool lower = b->bias && !is_signed;
            __m256i o = _mm256_setzero_si256(), v = p[t];
            if (lower || b->has_min) {
                KS_NAME(x_span_sums)(a->sum[1] + from / 16, b->span, sums);
                KS_UNROLL
                for (int k = 0; k < 128 / b->span; k++)
                    o = _mm256_add_epi32(o, _mm256_madd_epi16(
                        KS_NAME(x_dword)(sums + 2 * k), l.side[k]));
            }
            if (lower)
                v = _mm256_sub_epi32(
                    v, _mm256_mullo_epi32(o, _mm256_set1_epi32(b->bias)));
            vr y = vr_add(vr_load(acc + 8 * t), v, l.d, dx);
            if (b->has_min) y = vr_add(y, o, l.dmin, dx);
            vr_store(acc + 8 * t, y);
        }
    }
}

/* m is p->m or, where only that is wanted, 1. */
V_INLINE void KS_NAME(k_direct)(
    const k_product *p, const size_t m, ksllm_type type) {
    const u8 *row[8];
    f32 acc[KS_NAME(FEW) * 8];
    if (BLK_TYPES[type].n == 256 && m == 1) {
        KS_NAME(k_stream)(p, type);
        return;
    }
    for (size_t r0 = 0; r0 < p->n_rows; r0 += 8) {
        size_t n = min_size(8, p->n_rows - r0);
        const u8 *next = p->w + (p->n_rows - r0 >= 16 ? r0 + 8 : r0)
            * p->row_bytes;
        for (size_t r = 0; r < 8; r++)
            row[r] = p->w + (r0 + min_size(r, n - 1)) * p->row_bytes;
        memset(acc, 0, sizeof acc);
        if (BLK_TYPES[type].n == 256)
            /* One step; but without a loop gcc 12 keeps other values in
             * registers, and 4 tokens take a tenth longer. */
            for (size_t t0 = 0; t0 < m; t0 += KS_NAME(FEW))
                KS_NAME(x_eight256)(row, next, p->acts, t0,
                    min_size(KS_NAME(FEW), m - t0), type, acc + 8 * t0);
        else if (m == 1)
            KS_NAME(x_eight32)(row, next, p->acts, 1, type, acc);
        else
            KS_NAME(x_eight32)(row, next, p->acts, m, type, acc);
        for (size_t t = 0; t < m; t++)
            memcpy(p->y + t * p->y_stride + r0, acc + 8 * t, n * sizeof *acc);
    }
}

/* ---- x86: many tokens ----
 * xv is sixteen rows or half of them, and a tile eight vectors of sums. */

#undef KS_XV
#if defined KS_VNNI && !defined KS_AVXVNNI

typedef __m512i KS_NAME(xv);
typedef __m512 KS_NAME(xf);
enum { KS_NAME(HALVES) = 1, KS_NAME(SHORT) = 0 };
#define KS_XV(op) _mm512_##op

V_INLINE __m512i KS_NAME(xv_load)(const void *p) {
    return _mm512_loadu_si512(p);
}
V_INLINE __m512i KS_NAME(xv_zero)(void) { return _mm512_setzero_si512(); }
V_INLINE __m512i KS_NAME(xv_step)(
    __m512i s, __m512i w, __m512i y, bool first, bool is_signed) {
    (void)is_signed;
    return _mm512_dpbusd_epi32(first ? KS_NAME(xv_zero)() : s, w, y);
}
V_INLINE __m512i KS_NAME(xv_whole)(__m512i s, bool is_signed) {
    (void)is_signed;
    return s;
}
V_INLINE __m512i KS_NAME(xv_scaled)(
    __m512i p, __m512i s, __m512i scale, bool is_signed) {
    (void)is_signed;
    return _mm512_add_epi32(
        p, _mm512_mullo_epi32(s, _mm512_srai_epi32(scale, 16)));
}
/* p + products of pairs; with a pair, the same for all rows */
V_INLINE __m512i KS_NAME(xv_pairs)(__m512i p, __m512i a, __m512i b) {
    return _mm512_dpwssd_epi32(p, a, b);
}
/* fma((float)p * d, dx, acc) */
V_INLINE __m512 KS_NAME(xv_fma)(
    __m512 acc, __m512i p, const f32 *d, f32 dx) {
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(p), _mm512_loadu_ps(d));
    return _mm512_fmadd_ps(v, _mm512_set1_ps(dx), acc);
}

#else

typedef __m256i KS_NAME(xv);
typedef __m256 KS_NAME(xf);
#if defined KS_VNNI
enum { KS_NAME(HALVES) = 2, KS_NAME(SHORT) = 0 };
#else
enum { KS_NAME(HALVES) = 2, KS_NAME(SHORT) = 1 }; /* sums of 16 bits */
#endif
#define KS_XV(op) _mm256_##op

V_INLINE __m256i KS_NAME(xv_load)(const void *p) {
    return KS_NAME(x_load)(p);
}
V_INLINE __m256i KS_NAME(xv_zero)(void) { return _mm256_setzero_si256(); }
V_INLINE __m256i KS_NAME(xv_step)(
    __m256i s, __m256i w, __m256i y, bool first, bool is_signed) {
    return KS_NAME(x_step)(s, w, y, first, is_signed);
}
V_INLINE __m256i KS_NAME(xv_whole)(__m256i s, bool is_signed) {
    return KS_NAME(x_whole)(s, is_signed);
}
V_INLINE __m256i KS_NAME(xv_scaled)(
    __m256i p, __m256i s, __m256i scale, bool is_signed) {
    return _mm256_add_epi32(p, KS_NAME(x_scaled)(s, scale, is_signed));
}
V_INLINE __m256i KS_NAME(xv_pairs)(__m256i p, __m256i a, __m256i b) {
    return _mm256_add_epi32(p, _mm256_madd_epi16(a, b));
}
V_INLINE __m256 KS_NAME(xv_fma)(
    __m256 acc, __m256i p, const f32 *d, f32 dx) {
    return vr_add(acc, p, vr_load(d), dx);
}

#endif

V_INLINE KS_NAME(xv) KS_NAME(xv_dword)(const void *p) {
    return KS_XV(set1_epi32)(ld_i32(p));
}
V_INLINE KS_NAME(xv) KS_NAME(xv_both)(i16 x) { return KS_XV(set1_epi16)(x); }
V_INLINE KS_NAME(xv) KS_NAME(xv_add)(KS_NAME(xv) a, KS_NAME(xv) b) {
    return KS_XV(add_epi32)(a, b);
}
V_INLINE KS_NAME(xv) KS_NAME(xv_less)(
    KS_NAME(xv) p, KS_NAME(xv) o, int bias) {
    return KS_XV(sub_epi32)(
        p, KS_XV(mullo_epi32)(o, KS_XV(set1_epi32)(bias)));
}

enum { /* tokens of a tile, and of two smaller ones for what is left over */
    KS_NAME(TILE) = 8 / KS_NAME(HALVES),
    KS_NAME(MIDDLE) = KS_NAME(SHORT) ? 0 : 5 - KS_NAME(HALVES),
    KS_NAME(LEAST) = KS_NAME(SHORT) ? 0 : 2,
};

/* Half h of a panel: eight rows. Weights whose bias is 128 are raised by it
 * where that is wanted. */
V_INLINE void KS_NAME(x_lay)(x_panel *to, size_t k, int h, ksllm_type type,
    bool raise, const __m256i *w) {
    const __m256i up = _mm256_set1_epi8(raise ? -128 : 0);
    KS_UNROLL
    for (size_t i = 0; i < 8; i++)
        _mm256_storeu_si256((void *)to->p[k + i][8 * h],
            BLK_TYPES[type].bias == 128 ? _mm256_xor_si256(w[i], up) : w[i]);
}

V_INLINE void KS_NAME(x_lay32)(x_panel *to, int h, const u8 *const *row,
    size_t at, size_t n, const u8 *next, bool raise, ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    k_fetch(next, 8 * n * b->bytes);
    for (size_t i = 0; i < n; i++, at += b->bytes) {
        __m256i w[8];
        KS_NAME(x_block)(row, at, type, w);
        KS_NAME(x_lay)(to, 8 * i, h, type, raise, w);
        vr_store(to->d[i] + 8 * h, KS_NAME(x_halves)(row, at + b->d));
        if (b->has_min)
            vr_store(to->dmin[i] + 8 * h, KS_NAME(x_halves)(row, at + b->m));
    }
}

V_INLINE void KS_NAME(x_lay256)(x_panel *to, int h, const u8 *const *row,
    size_t at, const u8 *next, bool raise, ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    KS_NAME(xraw) raw;
    KS_NAME(xlanes) l;
    KS_NAME(x_block256)(row, at, type, &raw, &l);
    const int unit = KS_NAME(x_unit)(type);
    for (size_t u = 0; u < 8 / (size_t)unit; u++) {
        KS_UNROLL
        for (int g = 0; g < unit; g++) {
            __m256i w[8];
            k_fetch(next, b->bytes);
            next += b->bytes;
            KS_NAME(x_group)(&raw, type, u, g, w);
            KS_NAME(x_lay)(to, 8 * (u * (size_t)unit + (size_t)g), h, type,
                raise, w);
        }
    }
    for (int i = 0; i < 256 / b->span; i++)
        _mm256_storeu_si256((void *)(to->scale[i] + 8 * h), l.scale[i]);
    for (int i = 0; i < 128 / b->span; i++)
        _mm256_storeu_si256((void *)(to->side[i] + 8 * h), l.side[i]);
    vr_store(to->d[0] + 8 * h, l.d);
    vr_store(to->dmin[0] + 8 * h, l.dmin);
}

V_INLINE void KS_NAME(x_lay_any)(x_panel *to, const u8 *const *row, size_t at,
    size_t n, const u8 *next, bool raise, ksllm_type type) {
    for (int h = 0; h < 2; h++, row += 8, next += 8 * n * BLK_TYPES[type].bytes)
        if (BLK_TYPES[type].n == 32)
            KS_NAME(x_lay32)(to, h, row, at, n, next, raise, type);
        else
            KS_NAME(x_lay256)(to, h, row, at, next, raise, type);
}

/* Four weights of a tile: s[HALVES * token + half]. */
V_INLINE void KS_NAME(x_tile_step)(const u8 (*w)[4], const x_tokens *in,
    size_t at, bool first, bool is_signed, const int T, KS_NAME(xv) *s) {
    KS_NAME(xv) v[KS_NAME(HALVES)];
    KS_UNROLL
    for (int h = 0; h < KS_NAME(HALVES); h++)
        v[h] = KS_NAME(xv_load)(w[8 * h]);
    KS_UNROLL
    for (int j = 0; j < KS_NAME(HALVES) * T; j++)
        s[j] = KS_NAME(xv_step)(s[j], v[j % KS_NAME(HALVES)],
            KS_NAME(xv_dword)(in->x[j / KS_NAME(HALVES)] + at), first,
            is_signed);
}

/* n of these. Where sums have 16 bits a loop of eight is faster, 177 against
 * 158 Gop/s, though it takes 0.1 instructions more in 5. */
V_INLINE void KS_NAME(x_tile_steps)(const u8 (*w)[16][4], const x_tokens *in,
    size_t at, const int n, bool is_signed, bool looped, const int T,
    KS_NAME(xv) *s) {
    if (looped) {
        KS_UNROLL
        for (int j = 0; j < KS_NAME(HALVES) * T; j++)
            s[j] = KS_NAME(xv_zero)();
        KS_ROLLED
        for (int k = 0; k < n; k++)
            KS_NAME(x_tile_step)(
                w[k], in, at + 4 * (size_t)k, false, is_signed, T, s);
        return;
    }
    KS_UNROLL
    for (int k = 0; k < n; k++)
        KS_NAME(x_tile_step)(
            w[k], in, at + 4 * (size_t)k, k == 0, is_signed, T, s);
}

/* acc[token][row] += sums of block i, less the bias, and its minima. */
V_INLINE void KS_NAME(x_tile32_end)(const x_panel *w, size_t i,
    const x_tokens *in, const KS_NAME(xv) *p, const int T, bool lower,
    int bias, bool has_min, f32 *acc) {
    const KS_NAME(xv) times = KS_NAME(xv_both)(has_min ? 1 : (i16)-bias);
    KS_UNROLL
    for (int j = 0; j < KS_NAME(HALVES) * T; j++) {
        const int t = j / KS_NAME(HALVES), h = j % KS_NAME(HALVES);
        const KS_NAME(xv) pair = KS_NAME(xv_dword)(in->sums[t] + 2 * i);
        const f32 scale = in->dx[t][i];
        f32 *to = acc + 16 * t + 8 * h;
        KS_NAME(xf) sum = KS_NAME(xv_fma)(KS_XV(loadu_ps)(to),
            lower ? KS_NAME(xv_pairs)(p[j], pair, times) : p[j],
            w->d[i] + 8 * h, scale);
        if (has_min)
            sum = KS_NAME(xv_fma)(sum,
                KS_NAME(xv_pairs)(KS_NAME(xv_zero)(), pair, times),
                w->dmin[i] + 8 * h, scale);
        KS_XV(storeu_ps)(to, sum);
    }
}

/* Block i of 32 weights times a tile; n steps may be added up. */
V_INLINE void KS_NAME(x_tile32)(const x_panel *w, size_t i,
    const x_tokens *in, const int n, bool is_signed, const int T, int bias,
    bool has_min, f32 *acc) {
    KS_NAME(xv) p[8], s[8];
    KS_UNROLL
    for (int k = 0; k < 8; k += n) {
        KS_FENCE;
        KS_NAME(x_tile_steps)(w->p + 8 * i + k, in, 32 * i + 4 * (size_t)k, n,
            is_signed, KS_NAME(SHORT) && !is_signed && n == 8, T, s);
        KS_UNROLL
        for (int j = 0; j < KS_NAME(HALVES) * T; j++) {
            s[j] = KS_NAME(xv_whole)(s[j], is_signed);
            p[j] = k ? KS_NAME(xv_add)(p[j], s[j]) : s[j];
        }
    }
    if (!is_signed && has_min)
        KS_NAME(x_tile32_end)(w, i, in, p, T, false, 0, true, acc);
    else
        KS_NAME(x_tile32_end)(w, i, in, p, T, !is_signed, bias, false, acc);
}

/* The same with the panel's one block of 256. */
V_INLINE void KS_NAME(x_tile256)(const x_panel *w, const x_tokens *in,
    const int n, bool is_signed, const int T, int span, int bias,
    bool has_min, f32 *acc) {
    const int shift = span == 32 ? 3 : 2, V = KS_NAME(HALVES) * T;
    KS_NAME(xv) p[8], s[8];
    KS_UNROLL
    for (int j = 0; j < V; j++) p[j] = KS_NAME(xv_zero)();
    for (int k = 0; k < 64; k += n) {
        const i32 *scale = w->scale[k >> shift];
        KS_NAME(x_tile_steps)(
            w->p + k, in, (size_t)(4 * k), n, is_signed, false, T, s);
        KS_UNROLL
        for (int j = 0; j < V; j++)
            p[j] = KS_NAME(xv_scaled)(p[j], s[j],
                KS_NAME(xv_load)(scale + j % KS_NAME(HALVES) * 8), is_signed);
    }
    for (int t = 0; t < T; t++) {
        i16 sums[16];
        if (!is_signed) KS_NAME(x_span_sums)(in->sums[t], span, sums);
        for (int h = 0; h < KS_NAME(HALVES); h++) {
            KS_NAME(xv) o = KS_NAME(xv_zero)(), v = p[KS_NAME(HALVES) * t + h];
            f32 *to = acc + 16 * t + 8 * h;
            for (int k = 0; k < 128 / span && !is_signed; k += 4)
                KS_UNROLL
                for (int i = k; i < k + 4; i++)
                    o = KS_NAME(xv_pairs)(o, KS_NAME(xv_dword)(sums + 2 * i),
                        KS_NAME(xv_load)(w->side[i] + 8 * h));
            if (bias && !is_signed) v = KS_NAME(xv_less)(v, o, bias);
            KS_NAME(xf) sum = KS_NAME(xv_fma)(
                KS_XV(loadu_ps)(to), v, w->d[0] + 8 * h, *in->dx[t]);
            if (has_min)
                sum = KS_NAME(xv_fma)(
                    sum, o, w->dmin[0] + 8 * h, *in->dx[t]);
            KS_XV(storeu_ps)(to, sum);
        }
    }
}

V_INLINE void KS_NAME(x_tile)(const x_panel *w, const x_tokens *in,
    size_t n_blocks, const blk_type *b, const int nb, const int n,
    bool is_signed, const int T, f32 *acc) {
    const int bias = b->bias;
    const bool has_min = b->has_min;
    if (nb == 256)
        KS_NAME(x_tile256)(
            w, in, n, is_signed, T, b->span, bias, has_min, acc);
    for (size_t i = 0; nb == 32 && i < n_blocks; i++)
        KS_NAME(x_tile32)(w, i, in, n, is_signed, T, bias, has_min, acc);
}

/* One function for all formats of a shape: blocks of nb weights of which n
 * steps may be added up, signed ones or not. */
#define SHAPE(name, nb, n, is_signed)                                          \
    static void KS_NAME(name)(const x_panel *w, const x_tokens *in, size_t T,  \
        size_t n_blocks, const blk_type *b, f32 *acc) {                        \
        if (KS_NAME(LEAST) > 0 && T == KS_NAME(LEAST))                         \
            KS_NAME(x_tile)(                                                   \
                w, in, n_blocks, b, nb, n, is_signed, KS_NAME(LEAST), acc);    \
        else if (KS_NAME(MIDDLE) > 0 && T == KS_NAME(MIDDLE))                  \
            KS_NAME(x_tile)(                                                   \
                w, in, n_blocks, b, nb, n, is_signed, KS_NAME(MIDDLE), acc);   \
        else                                                                   \
            KS_NAME(x_tile)(                                                   \
                w, in, n_blocks, b, nb, n, is_signed, KS_NAME(TILE), acc);     \
    }
SHAPE(x_tile32_8, 32, 8, false)
SHAPE(x_tile256_8, 256, 8, false)
SHAPE(x_tile256_4, 256, 4, false)
#if !defined KS_VNNI
SHAPE(x_tile32_4, 32, 4, false)
SHAPE(x_tile32_signed, 32, 8, true)
SHAPE(x_tile256_2, 256, 2, false)
SHAPE(x_tile256_signed, 256, 8, true)
#endif
#undef SHAPE

V_INLINE x_tiler KS_NAME(x_tiler_of)(ksllm_type type) {
    const bool is_signed = KS_NAME(x_signed)(type);
    const int n = KS_NAME(x_steps)(type, is_signed);
#if !defined KS_VNNI
    if (BLK_TYPES[type].n == 32)
        return is_signed ? KS_NAME(x_tile32_signed)
            : n == 8     ? KS_NAME(x_tile32_8)
                         : KS_NAME(x_tile32_4);
    if (is_signed) return KS_NAME(x_tile256_signed);
    if (n == 2) return KS_NAME(x_tile256_2);
#endif
    return BLK_TYPES[type].n == 32 ? KS_NAME(x_tile32_8)
        : n == 8                   ? KS_NAME(x_tile256_8)
                                   : KS_NAME(x_tile256_4);
}

static void KS_NAME(k_panel)(const k_product *p, x_layer lay, x_tiler tile) {
    enum { TOKENS = 64 }; /* whose sums stay in the first-level cache */
    const blk_type *b = &BLK_TYPES[p->type];
    const size_t n = p->acts->n_in;
    const bool raise = !KS_NAME(x_signed)(p->type);
    x_panel w;
    x_tokens in;
    f32 acc[TOKENS * 16];
    const u8 *row[16];
    for (size_t t0 = 0; t0 < p->m; t0 += TOKENS)
        for (size_t r0 = 0; r0 < p->n_rows; r0 += 16) {
            size_t m = min_size(TOKENS, p->m - t0);
            size_t n_rows = min_size(16, p->n_rows - r0);
            for (size_t r = 0; r < 16; r++)
                row[r] = p->w + (r0 + min_size(r, n_rows - 1)) * p->row_bytes;
            const u8 *next = p->n_rows - r0 >= 32 ? row[0] + 16 * p->row_bytes
                                                  : row[0];
            memset(acc, 0, (m + 7) / 8 * 8 * 16 * sizeof *acc);
            for (size_t k = 0; k < n; k += 256) {
                size_t n_blocks = min_size(256, n - k) / b->n;
                size_t at = k / b->n * b->bytes;
                lay(&w, row, at, n_blocks, next + 16 * at, raise);
                for (size_t t = 0, T; t < m; t += T) {
                    T = m - t <= KS_NAME(LEAST)  ? KS_NAME(LEAST)
                        : m - t <= KS_NAME(MIDDLE) ? KS_NAME(MIDDLE)
                                                   : KS_NAME(TILE);
                    x_tokens_at(p->acts, b->n, k, t0 + t, m - t, T, &in);
                    tile(&w, &in, T, n_blocks, b, acc + 16 * t);
                }
            }
            for (size_t t = 0; t < m; t++)
                memcpy(p->y + (t0 + t) * p->y_stride + r0, acc + 16 * t,
                    n_rows * sizeof *acc);
        }
}

#endif

/* ---- 7d products on Arm ----
 * The same sums as k_quantized, by two other routes, eight rows at a time.
 *
 * One token (k_direct): 32 weights of each row are unpacked in registers and
 * multiplied; eight vectors of partial sums fold to one with a lane per row.
 * Two tokens are computed one after the other.
 *
 * Many tokens (k_panel): 256 weights of some rows are laid out in a panel, in
 * which a lane is a row from the start, and meet all tokens, tile by tile.
 *
 *   blocks of eight rows
 *     | n_block, n_group32       per format; the same on all three rows
 *     v
 *   32 weights of a row, in order -- n_lay_rows --> panel -- n_tile --> y
 *     | n_dots, n_row256                                       ^
 *     v                                 inputs -- k_fill --> tile
 *   y of one token
 *
 * A new format is a case in n_block or n_group (and n_half256), and a line at
 * the end. A new instruction set is n_dot, and the operations of a tile.
 *
 * NOT TAKEN: two tokens at once, which takes 0.8 times the cycles per token
 * (llvm-mca, Q4_0 and Q4_K with sdot) and about 30 KB. One builder per format
 * for all instruction sets, with a step from its layout to that of each: about
 * 15 KB less, 1.5 % more cycles for 64 tokens (estimates). */

#if defined KS_NEON

/* 32 weights of a row, or inputs. Weights are still raised by the type's bias
 * unless that is 128. */
typedef struct { int8x16_t lo, hi; } KS_NAME(n32);

/* For intrinsics that require a constant lane: after unrolling it is one. */
#undef LANES
#define LANES(F)                                                               \
    switch (lane) {                                                            \
    case 0: return F(0);                                                       \
    case 1: return F(1);                                                       \
    case 2: return F(2);                                                       \
    case 3: return F(3);                                                       \
    case 4: return F(4);                                                       \
    case 5: return F(5);                                                       \
    case 6: return F(6);                                                       \
    default: return F(7);                                                      \
    }

V_INLINE float32x4_t KS_NAME(n_fma_lane)(
    float32x4_t c, float32x4_t p, float32x4_t x, int lane) {
#define F(i) vfmaq_laneq_f32(c, p, x, (i) % 4)
    LANES(F)
#undef F
}

V_INLINE int32x4_t KS_NAME(n_scale)(
    int32x4_t c, int32x4_t p, int32x4_t x, int lane) {
#define F(i) vmlaq_laneq_s32(c, p, x, (i) % 4)
    LANES(F)
#undef F
}

V_INLINE uint8x16_t KS_NAME(n_shift_right)(uint8x16_t v, int lane) {
#define F(i) ((i) ? vshrq_n_u8(v, (i) + !(i)) : v)
    LANES(F)
#undef F
}

/* ---- Arm: eight rows ---- */

/* The first eight of n rows from src on; the last one stands in for rows beyond
 * the matrix. Returns the address of the next eight. */
V_INLINE const u8 *KS_NAME(n_eight_rows)(
    const u8 *src, size_t bytes, size_t n, const u8 **row) {
    KS_UNROLL
    for (size_t r = 0; r < 8; r++) {
        row[r] = src;
        src += r + 1 < n ? bytes : 0;
    }
    return src;
}

V_INLINE vr KS_NAME(n_floats)(uint16x4_t a, uint16x4_t b) {
    return (vr){{vcvt_f32_f16(vreinterpret_f16_u16(a)),
        vcvt_f32_f16(vreinterpret_f16_u16(b))}};
}

/* d and dmin of eight rows lie in pairs. */
V_INLINE vr KS_NAME(n_pairs_apart)(uint32x4_t a, uint32x4_t b, vr *min) {
    uint16x8_t p = vreinterpretq_u16_u32(a), q = vreinterpretq_u16_u32(b);
    uint16x8_t d = vuzp1q_u16(p, q), m = vuzp2q_u16(p, q);
    *min = KS_NAME(n_floats)(vget_low_u16(m), vget_high_u16(m));
    return KS_NAME(n_floats)(vget_low_u16(d), vget_high_u16(d));
}

/* d and dmin of eight blocks, `at` bytes into the rows. */
V_INLINE vr KS_NAME(n_block_scales)(
    const u8 *const *rows, size_t at, const blk_type *t, vr *min) {
#define EIGHT(load)                                                            \
    a = load(AT(0), a, 0), a = load(AT(1), a, 1), a = load(AT(2), a, 2);       \
    a = load(AT(3), a, 3), b = load(AT(4), b, 0), b = load(AT(5), b, 1);       \
    b = load(AT(6), b, 2), b = load(AT(7), b, 3)
#define AT(r) ((const void *)(rows[r] + at + t->d))
    if (t->has_min) {
        uint32x4_t a = vdupq_n_u32(0), b = a;
        EIGHT(vld1q_lane_u32);
        return KS_NAME(n_pairs_apart)(a, b, min);
    }
    uint16x4_t a = vdup_n_u16(0), b = a;
    EIGHT(vld1_lane_u16);
    return KS_NAME(n_floats)(a, b);
#undef AT
#undef EIGHT
}

typedef struct { const u8 *p[8]; } KS_NAME(n_rows);

/* The same for blocks of 32, stepping over them. One instruction loads the head
 * of a block and steps; compilers make two or three of it. The first of four
 * loads fills all lanes, so that none must be cleared. The asm names no memory
 * that it reads: nothing writes to weights. */
V_INLINE vr KS_NAME(n_next_scales)(
    KS_NAME(n_rows) *row, const blk_type *t, vr *min) {
    const size_t bytes = t->bytes;
#define NEXT(to, out, v, r)                                                    \
    __asm__ volatile(to ", [%1], %2"                                           \
                     : out(v), "+r"(row->p[r]) : "r"(bytes))
#define HEADS(v, r, s)                                                         \
    NEXT("ld1r {%0.4" s "}", "=w", v, r);                                      \
    NEXT("ld1 {%0." s "}[1]", "+w", v, r + 1);                                 \
    NEXT("ld1 {%0." s "}[2]", "+w", v, r + 2);                                 \
    NEXT("ld1 {%0." s "}[3]", "+w", v, r + 3)
    if (t->has_min) {
        uint32x4_t a, b;
        HEADS(a, 0, "s");
        HEADS(b, 4, "s");
        return KS_NAME(n_pairs_apart)(a, b, min);
    }
    uint16x4_t a, b;
    HEADS(a, 0, "h");
    HEADS(b, 4, "h");
#undef HEADS
#undef NEXT
    return KS_NAME(n_floats)(a, b);
}

/* blk_scale_bytes in registers: half the instructions for Q4_K and Q5_K. */
V_INLINE void KS_NAME(n_scale_bytes)(
    const u8 *src, ksllm_type type, int8x8_t *scales, uint8x8_t *mins) {
    if (type == KSLLM_TYPE_Q4_K || type == KSLLM_TYPE_Q5_K) {
        static const i8 right[8] = {0, 0, 0, 0, -4, -4, -4, -4};
        uint8x8_t ab = vld1_u8(src + 4);
        uint8x8_t c = vreinterpret_u8_u32(vdup_n_u32(ld_u32(src + 12)));
        c = vand_u8(vshl_u8(c, vld1_s8(right)), vdup_n_u8(15));
        c = vorr_u8(c, vand_u8(vshr_n_u8(ab, 2), vdup_n_u8(48)));
        uint32x2_t low = vreinterpret_u32_u8(vand_u8(ab, vdup_n_u8(63)));
        uint32x2_t high = vreinterpret_u32_u8(c);
        scales[0] = vreinterpret_s8_u32(vzip1_u32(low, high));
        mins[0] = vreinterpret_u8_u32(vzip2_u32(low, high));
        scales[1] = vdup_n_s8(0);
        mins[1] = vdup_n_u8(0);
        return;
    }
    u64 sc[2] = {0, 0}, mn[2] = {0, 0};
    blk_scale_bytes(src, type, sc, mn);
    KS_UNROLL
    for (int i = 0; i < 2; i++) {
        scales[i] = vcreate_s8(sc[i]);
        mins[i] = vcreate_u8(mn[i]);
    }
}

/* ---- Arm: unpacking, 32 weights of a row in order ---- */

V_INLINE int8x16_t KS_NAME(n_s8)(uint8x16_t v) {
    return vreinterpretq_s8_u8(v);
}

V_INLINE KS_NAME(n32) KS_NAME(n_load32)(const void *p) {
    return (KS_NAME(n32)){vld1q_s8(p), vld1q_s8((const i8 *)p + 16)};
}

V_INLINE KS_NAME(n32) KS_NAME(n_nibbles)(const u8 *qs) {
    uint8x16_t v = vld1q_u8(qs);
    return (KS_NAME(n32)){KS_NAME(n_s8)(vandq_u8(v, vdupq_n_u8(15))),
        KS_NAME(n_s8)(vshrq_n_u8(v, 4))};
}

V_INLINE int8x16_t KS_NAME(n_codebook)(int8x16_t w) {
    return vqtbl1q_s8(vld1q_s8(BLK_IQ4), vreinterpretq_u8_s8(w));
}

/* w with 16 where a bit of two bytes of v, from the first on, is set. */
V_INLINE int8x16_t KS_NAME(n_fifth)(int8x16_t w, uint8x16_t v, int first) {
    static const u8 bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t mask = vcombine_u8(vld1_u8(bit), vld1_u8(bit));
    uint8x16_t from = vcombine_u8(
        vdup_n_u8((u8)first), vdup_n_u8((u8)(first + 1)));
    v = vtstq_u8(vqtbl1q_u8(v, from), mask);
    return vorrq_s8(w, KS_NAME(n_s8)(vandq_u8(v, vdupq_n_u8(16))));
}

/* A block of 32. */
V_INLINE KS_NAME(n32) KS_NAME(n_block)(const u8 *src, ksllm_type type) {
    KS_NAME(n32) w;
    switch ((int)type) {
    case KSLLM_TYPE_Q4_0: return KS_NAME(n_nibbles)(src + 2);
    case KSLLM_TYPE_Q4_1: return KS_NAME(n_nibbles)(src + 4);
    case KSLLM_TYPE_Q5_0: case KSLLM_TYPE_Q5_1: {
        const u8 *qh = src + (type == KSLLM_TYPE_Q5_0 ? 2 : 4);
        w = KS_NAME(n_nibbles)(qh + 4);
        uint8x16_t h = vreinterpretq_u8_u32(vdupq_n_u32(ld_u32(qh)));
        w.lo = KS_NAME(n_fifth)(w.lo, h, 0);
        w.hi = KS_NAME(n_fifth)(w.hi, h, 2);
        return w;
    }
    case KSLLM_TYPE_IQ4_NL:
        w = KS_NAME(n_nibbles)(src + 2);
        w.lo = KS_NAME(n_codebook)(w.lo);
        w.hi = KS_NAME(n_codebook)(w.hi);
        return w;
    default: /* Q8_0 */
        w = KS_NAME(n_load32)(src + 2);
        KS_TOGETHER(w.lo, w.hi);
        return w;
    }
}

/* Of half a block of 256, 128 weights: where their low bits lie, and the bits
 * above them, for group k of four those from bit k (Q6_K: 2 * k) on. */
typedef struct {
    const u8 *qs;
    uint8x16_t h[2];
} KS_NAME(n_half256);

V_INLINE KS_NAME(n_half256) KS_NAME(n_half_at)(
    const u8 *src, ksllm_type type, int half) {
    const u8 *qh = NULL;
    int step = 64, down = 0;
    switch ((int)type) {
    case KSLLM_TYPE_Q2_K: src += 16, step = 32; break;
    case KSLLM_TYPE_Q3_K: qh = src, src += 32, step = 32, down = -4; break;
    case KSLLM_TYPE_Q4_K: src += 16; break;
    case KSLLM_TYPE_Q5_K: qh = src + 16, src += 48, down = -4; break;
    case KSLLM_TYPE_Q6_K: qh = src + 128 + 32 * half; break;
    default: src += 8; /* IQ4_XS */
    }
    KS_NAME(n_half256) to = {src + step * half, {vdupq_n_u8(0), vdupq_n_u8(0)}};
    KS_UNROLL
    for (int j = 0; j < 2 && qh; j++) to.h[j] = vshlq_u8(
        vld1q_u8(qh + 16 * j), vdupq_n_s8((i8)(down * half)));
    KS_OPAQUE(to.qs);
    return to;
}

/* Half j of group k: 16 weights. */
V_INLINE uint8x16_t KS_NAME(n_group)(
    const KS_NAME(n_half256) *from, ksllm_type type, int k, int j) {
    const uint8x16_t low = vdupq_n_u8(15);
    const u8 *qs = from->qs + 16 * j;
    uint8x16_t w, h = from->h[j];
    if (type == KSLLM_TYPE_Q6_K)
        h = vandq_u8(KS_NAME(n_shift_right)(h, k % 2 * 2), vdupq_n_u8(0x33));
    else
        h = vandq_u8(KS_NAME(n_shift_right)(h, k), vdupq_n_u8(1));
    switch ((int)type) {
    case KSLLM_TYPE_Q4_K: case KSLLM_TYPE_Q5_K:
        w = vld1q_u8(qs + 32 * (k / 2));
        w = k & 1 ? vshrq_n_u8(w, 4) : vandq_u8(w, low);
        return type == KSLLM_TYPE_Q4_K ? w : vsliq_n_u8(w, h, 4);
    case KSLLM_TYPE_Q6_K:
        w = vld1q_u8(qs + 32 * (k & 1));
        return k < 2 ? vsliq_n_u8(w, h, 4) : vsriq_n_u8(h, w, 4);
    case KSLLM_TYPE_Q2_K: case KSLLM_TYPE_Q3_K:
        w = KS_NAME(n_shift_right)(vld1q_u8(qs), 2 * k);
        if (k < 3) w = vandq_u8(w, vdupq_n_u8(3));
        return type == KSLLM_TYPE_Q2_K ? w : vsliq_n_u8(w, h, 2);
    default: /* IQ4_XS */
        w = vld1q_u8(from->qs + 16 * k);
        w = j ? vshrq_n_u8(w, 4) : vandq_u8(w, low);
        return vreinterpretq_u8_s8(KS_NAME(n_codebook)(KS_NAME(n_s8)(w)));
    }
}

V_INLINE KS_NAME(n32) KS_NAME(n_group32)(
    const KS_NAME(n_half256) *from, ksllm_type type, int k) {
    return (KS_NAME(n32)){KS_NAME(n_s8)(KS_NAME(n_group)(from, type, k, 0)),
        KS_NAME(n_s8)(KS_NAME(n_group)(from, type, k, 1))};
}

/* ---- Arm: multiplying ---- */

#if !defined KS_DOTPROD

/* Sums of two products: two products of bytes fit 16 bits. */
V_INLINE int16x8_t KS_NAME(n_pairs)(int8x16_t a, int8x16_t b) {
    return vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b);
}

/* Sums of four products that are small enough for 16 bits. */
V_INLINE int16x8_t KS_NAME(n_fours)(KS_NAME(n32) w, KS_NAME(n32) x) {
    int16x8_t p = KS_NAME(n_pairs)(w.lo, x.lo);
    p = vmlal_s8(p, vget_low_s8(w.hi), vget_low_s8(x.hi));
    return vmlal_high_s8(p, w.hi, x.hi);
}

#endif

/* acc + partial sums of 16 products */
V_INLINE int32x4_t KS_NAME(n_dot)(int32x4_t acc, int8x16_t a, int8x16_t b) {
#if defined KS_DOTPROD
    return vdotq_s32(acc, a, b);
#else
    return vpadalq_s16(acc, KS_NAME(n_pairs)(a, b));
#endif
}

/* ... of 32; `small`: four fit 16 bits. */
V_INLINE int32x4_t KS_NAME(n_dot32)(
    int32x4_t acc, KS_NAME(n32) w, KS_NAME(n32) x, bool small) {
#if !defined KS_DOTPROD
    if (small) return vpadalq_s16(acc, KS_NAME(n_fours)(w, x));
#endif
    (void)small;
    return KS_NAME(n_dot)(KS_NAME(n_dot)(acc, w.lo, x.lo), w.hi, x.hi);
}

#if !defined KS_DOTPROD

/* The same without acc: no register must be cleared for it. */
V_INLINE int32x4_t KS_NAME(n_first32)(
    KS_NAME(n32) w, KS_NAME(n32) x, bool small) {
    if (small) return vpaddlq_s16(KS_NAME(n_fours)(w, x));
    int32x4_t s = vpaddlq_s16(KS_NAME(n_pairs)(w.lo, x.lo));
    return KS_NAME(n_dot)(s, w.hi, x.hi);
}

#endif

/* Partial sums of eight rows to one sum per row. */
V_INLINE KS_NAME(vri) KS_NAME(n_fold)(const int32x4_t *s) {
    KS_NAME(vri) v;
    KS_UNROLL
    for (int i = 0; i < 2; i++, s += 4)
        v.v[i] = vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
    return v;
}

V_INLINE void KS_NAME(n_fetch)(
    const u8 *const *row, int first, int end, size_t bytes, size_t ahead) {
    KS_UNROLL
    for (int r = first; r < end; r++)
        for (size_t k = 0; k < bytes; k += 64)
            __builtin_prefetch(row[r] + ahead + k);
}

/* ---- Arm: one token ---- */

#if !defined KS_BASE_I8 /* has dotprod's */

/* The sum of 32 inputs. */
V_INLINE int32x4_t KS_NAME(n_input_sum)(const i16 *sums) {
    u32 two;
    memcpy(&two, sums, 4);
    return vpaddlq_s16(vreinterpretq_s16_u32(vdupq_n_u32(two)));
}

/* Sums of eight rows over all blocks so far. sdot adds to a register. Clearing
 * it for each block would take an instruction for each row; instead the folded
 * sums of the blocks before are subtracted. */
typedef struct {
    int32x4_t s[8];
    KS_NAME(vri) before;
} KS_NAME(n_run);

/* Sums of a block of eight rows times 32 inputs, with those of the inputs. */
V_INLINE KS_NAME(vri) KS_NAME(n_dots)(KS_NAME(n_run) *run,
    const KS_NAME(n_rows) *row, const i8 *x, int32x4_t sum, ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    KS_NAME(n32) v = KS_NAME(n_load32)(x);
    KS_TOGETHER(v.lo, v.hi);
    KS_UNROLL
    for (int r = 0; r < 8; r++) {
        KS_NAME(n32) w = KS_NAME(n_block)(row->p[r] - b->bytes, type);
#if defined KS_DOTPROD
        run->s[r] = KS_NAME(n_dot32)(run->s[r], w, v, true);
#else
        run->s[r] = KS_NAME(n_first32)(w, v, b->bias < 128);
#endif
    }
    KS_NAME(vri) now = KS_NAME(n_fold)(run->s), p = now;
    sum = b->bias == 8 ? vshlq_n_s32(sum, 3) : vshlq_n_s32(sum, 4);
    KS_UNROLL
    for (int i = 0; i < 2; i++) {
#if defined KS_DOTPROD
        p.v[i] = vsubq_s32(p.v[i], run->before.v[i]);
#endif
        if (blk_biased(type)) p.v[i] = vsubq_s32(p.v[i], sum);
    }
    run->before = now;
    return p;
}

/* y + the next block of eight rows * 32 inputs. */
V_INLINE vr KS_NAME(n_times_block)(KS_NAME(n_rows) *row, KS_NAME(n_run) *run,
    const i8 *x, f32 dx, const i16 *sums, ksllm_type type, vr y) {
    const blk_type *b = &BLK_TYPES[type];
    vr dmin;
    const vr d = KS_NAME(n_next_scales)(row, b, &dmin);
    const int32x4_t sum = KS_NAME(n_input_sum)(sums);
    y = vr_add(y, KS_NAME(n_dots)(run, row, x, sum, type), d, dx);
    if (!b->has_min) return y;
    return vr_add(y, (KS_NAME(vri)){{sum, sum}}, dmin, dx);
}

V_INLINE vr KS_NAME(k_direct32)(const u8 *const *rows, size_t n_blocks,
    size_t ahead, const i8 *x, const f32 *dx, const i16 *sums,
    ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    static const f32 zero[8] = {0};
    vr y = vr_load(zero);
    KS_NAME(n_rows) row;
    KS_NAME(n_run) run;
    KS_UNROLL
    for (int r = 0; r < 8; r++) row.p[r] = rows[r], run.s[r] = vdupq_n_s32(0);
    run.before.v[0] = run.before.v[1] = vdupq_n_s32(0);
    for (size_t i = 0; i < n_blocks; i++) { /* two: a line of the cache */
        y = KS_NAME(n_times_block)(
            &row, &run, x + 32 * i, dx[i], sums + 2 * i, type, y);
        KS_NAME(n_fetch)(row.p, 0, 4, b->bytes, ahead);
        if (++i == n_blocks) break;
        y = KS_NAME(n_times_block)(
            &row, &run, x + 32 * i, dx[i], sums + 2 * i, type, y);
        KS_NAME(n_fetch)(row.p, 4, 8, b->bytes, ahead);
    }
    return y;
}

/* Sum of 16 scales, or minima, times the sums of the groups. */
V_INLINE int32x4_t KS_NAME(n_by_sums)(
    int16x8_t k, int16x8_t l, int16x8_t a, int16x8_t b) {
    int32x4_t s = vmull_s16(vget_low_s16(k), vget_low_s16(a));
    s = vmlal_high_s16(s, k, a);
    s = vmlal_s16(s, vget_low_s16(l), vget_low_s16(b));
    return vmlal_high_s16(s, l, b);
}

/* Partial sums of one block of 256, less the bias; those of the minima go to u.
 * The sum of a group is not cleared for the next one: S[g] contains all groups
 * up to g, and
 *     sum over g of scale[g] * (S[g] - S[g - 1])
 *         = sum over g of (scale[g] - scale[g + 1]) * S[g]
 * holds modulo 2^32 even if a term overflows. That saves an instruction for
 * each group, one in ten for Q4_K. */
V_INLINE int32x4_t KS_NAME(n_row256)(const u8 *src, ksllm_type type,
    const i8 *x, const i16 *sums, int32x4_t *u) {
    const blk_type *b = &BLK_TYPES[type];
    const bool wide = b->span == 32;
    int8x8_t sc[2];
    uint8x8_t mn[2];
    int32x4_t steps[4], run = vdupq_n_s32(0), v = run;
    KS_NAME(n_scale_bytes)(src, type, sc, mn);
    const int16x8_t none = vdupq_n_s16(0), c0 = vmovl_s8(sc[0]);
    const int16x8_t c1 = wide ? none : vmovl_s8(sc[1]);
    const int16x8_t e0 = vsubq_s16(c0, vextq_s16(c0, c1, 1));
    const int16x8_t e1 = vsubq_s16(c1, vextq_s16(c1, none, 1));
    steps[0] = vmovl_s16(vget_low_s16(e0));
    steps[1] = vmovl_high_s16(e0);
    steps[2] = vmovl_s16(vget_low_s16(e1));
    steps[3] = vmovl_high_s16(e1);
    const int16x8_t s0 = vld1q_s16(sums), s1 = vld1q_s16(sums + 8);
    if (b->bias == 32)
        v = vnegq_s32(KS_NAME(n_by_sums)(
            vshll_n_s8(sc[0], 5), vshll_n_s8(sc[1], 5), s0, s1));
    if (b->bias == 4)
        v = vnegq_s32(KS_NAME(n_by_sums)(
            vshll_n_s8(sc[0], 2), vshll_n_s8(sc[1], 2), s0, s1));
    if (b->has_min) {
        const int16x8_t m0 = vreinterpretq_s16_u16(vmovl_u8(mn[0]));
        const int16x8_t m1 = vreinterpretq_s16_u16(vmovl_u8(mn[1]));
        const int16x8_t pairs = vpaddq_s16(s0, s1);
        *u = wide ? vmlal_high_s16(vmull_s16(vget_low_s16(m0),
                        vget_low_s16(pairs)), m0, pairs)
                  : KS_NAME(n_by_sums)(m0, m1, s0, s1);
    }
    KS_ROLLED
    for (int half = 0; half < 2; half++, x += 128) {
        const KS_NAME(n_half256) from = KS_NAME(n_half_at)(src, type, half);
        KS_UNROLL
        for (int k = 0; k < 4; k++) {
            KS_NAME(n32) w = KS_NAME(n_group32)(&from, type, k);
            KS_NAME(n32) y = KS_NAME(n_load32)(x + 32 * k);
            if (wide) {
                run = KS_NAME(n_dot32)(run, w, y, b->bias < 128);
                v = KS_NAME(n_scale)(v, run, steps[half], k);
                KS_TOGETHER(run, v);
                continue;
            }
            int32x4_t step = steps[2 * half + k / 2];
            run = KS_NAME(n_dot)(run, w.lo, y.lo);
            v = KS_NAME(n_scale)(v, run, step, k % 2 * 2);
            KS_TOGETHER(run, v);
            run = KS_NAME(n_dot)(run, w.hi, y.hi);
            v = KS_NAME(n_scale)(v, run, step, k % 2 * 2 + 1);
            KS_TOGETHER(run, v);
        }
    }
    return v;
}

V_INLINE vr KS_NAME(k_direct256)(const u8 *const *rows, size_t n_blocks,
    size_t ahead, const i8 *x, const f32 *dx, const i16 *sums,
    ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    static const f32 zero[8] = {0};
    vr y = vr_load(zero), dmin = y;
    for (size_t i = 0, at = 0; i < n_blocks; i++, at += b->bytes) {
        int32x4_t s[8], u[8];
        KS_ROLLED
        for (int r = 0; r < 8; r++)
            s[r] = KS_NAME(n_row256)(rows[r] + at, type, x, sums, u + r);
        vr d = KS_NAME(n_block_scales)(rows, at, b, &dmin);
        y = vr_add(y, KS_NAME(n_fold)(s), d, dx[i]);
        if (b->has_min)
            y = vr_add(y, KS_NAME(n_fold)(u), vr_minus(dmin), dx[i]);
        KS_NAME(n_fetch)(rows, 0, 8, b->bytes, at + b->bytes + ahead);
        x += 256, sums += 16;
    }
    return y;
}

V_INLINE vr KS_NAME(k_rows)(const u8 *const *rows, size_t n_blocks,
    size_t ahead, const i8 *x, const f32 *dx, const i16 *sums,
    ksllm_type type) {
    return BLK_TYPES[type].n == 256
        ? KS_NAME(k_direct256)(rows, n_blocks, ahead, x, dx, sums, type)
        : KS_NAME(k_direct32)(rows, n_blocks, ahead, x, dx, sums, type);
}

/* Eight rows and one token. The next eight rows lie `ahead` bytes on and are
 * fetched while these are computed. */
typedef vr KS_NAME(n_direct)(const u8 *const *rows, size_t n_blocks,
    size_t ahead, const i8 *x, const f32 *dx, const i16 *sums);

static void KS_NAME(k_tokens)(
    const k_product *p, KS_NAME(n_direct) *direct) {
    const k_acts *a = p->acts;
    const size_t nb = BLK_TYPES[p->type].n;
    const u8 *row[8], *src = p->w;
    for (size_t r0 = 0; r0 < p->n_rows; r0 += 8) {
        const size_t n = p->n_rows - r0;
        const size_t ahead = n >= 16 ? 8 * p->row_bytes : 0;
        src = KS_NAME(n_eight_rows)(src, p->row_bytes, n, row);
        for (size_t t = 0; t < p->m; t++) {
            const size_t from = t * a->n_in, wide = nb == 256;
            f32 *to = p->y + t * p->y_stride + r0, part[8];
            vr_store(n < 8 ? part : to, direct(row, a->n_in / nb, ahead,
                a->q[wide] + from, a->d[wide] + from / nb,
                a->sum[wide] + from / 16));
            if (n < 8) memcpy(to, part, n * sizeof *to);
        }
    }
}

#endif

/* ---- Arm: many tokens, a tile ----
 * n_lay_rows    lays out 16 weights of four rows, as drawn below
 * n_lay_inputs  lays out 32 inputs of a token (and, with i8mm, of the one that
 *               is `next` bytes on); their second half goes `half` bytes on
 * n_multiply    adds n (8, 16 or 32) products to the integer sums, if they are
 *               RUNNING; otherwise sets them
 * n_broadcast   values of eight rows, for n_row: the four that go with sums a
 * n_fma         c + p * (floats of tokens, those that go with sums a)
 * n_square      sums from [2 * t] for rows 0-3 and [2 * t + 1] for rows 4-7 of
 *               token t to squares; or back, if not `to`
 * Sums of NEON and dotprod always lie so. With i8mm [2 * t + r], for even t, is
 * a square: tokens t and t + 1 by rows 2 * r and 2 * r + 1. */

enum {
#if defined KS_DOTPROD
    KS_NAME(RUNNING) = 1,
    KS_NAME(TILE) = 6, /* tokens: registers hold the sums of six */
    KS_NAME(LAST) = 4, /* ... of the last tile, if that is enough */
#else
    KS_NAME(RUNNING) = 0,
    KS_NAME(TILE) = 2,
    KS_NAME(LAST) = 2,
#endif
#if defined KS_I8MM
    KS_NAME(SQUARE) = 2,
#else
    KS_NAME(SQUARE) = 1,
#endif
};

/* Eight rows of 32 weights as signed bytes, and what is used with them; there a
 * lane is a row. Bytes of p lie in this order (k: weight of a half of 16):
 *   NEON     [half][row][k]
 *   dotprod  [half][rows 0-3, 4-7][k / 4][row][k % 4]      a vector: 4 x 4
 *   i8mm     [half][rows 0-1, 2-3, 4-5, 6-7][k / 8][row][k % 8]      2 x 8 */
typedef struct {
    i8 p[8 * 32];
    union {
        /* as n_add_block loads them */
        struct { f32 less[16], d[KS_NAME(SQUARE) * 8]; };
        /* of each half; if RUNNING, less that of the next */
        i32 scale[2][KS_NAME(SQUARE) * 8];
    };
} KS_NAME(octet);

/* 32 octets: 128 weights of 64 rows, b[4 * (row / 8) + block], or one block of
 * 256 weights of 32 rows, b[8 * (row / 8) + group]. */
typedef struct {
    KS_NAME(octet) b[32];
    union {
        f32 dmin32[32][8]; /* of octets */
        struct { /* of blocks of 256; min lies as half an octet does */
            f32 d[4][8], dmin[4][8];
            i8 min[4][8 * 16];
        };
    };
} KS_NAME(panel);

/* Up to six tokens: 32 inputs each, with their scales and sums (for minima),
 * and where results go. The sums of the groups of a block of 256 are 64 * high
 * + low, laid out as inputs are. Bytes of q (k: input of a half of 16):
 *   NEON, dotprod  [half][token][k]
 *   i8mm           [half][tokens 0-1, 2-3, 4-5][k / 8][token][k % 8]
 * Floats of tokens lie token by token; with i8mm 0 0 1 1, 2 2 3 3, 4 4 5 5. */
typedef struct {
    f32 start[16]; /* K_SHIFTED */
    struct {
        i8 q[6 * 32];
        f32 d[12];
    } b[8];
    union {
        f32 sum[4][12];
        struct { i8 high[6 * 16], low[6 * 16]; };
    };
    f32 *y[6];
    bool raw_in, raw_out; /* y holds squares: see n_square */
} KS_NAME(tile);

typedef struct { int32x4_t v[12]; } KS_NAME(sums);
typedef struct { float32x4_t v[12]; } KS_NAME(floats);
typedef struct { float32x4_t v[4]; } KS_NAME(quad);

/* An instruction of its own: compilers would keep a register of zeros, and none
 * is free. */
V_INLINE int32x4_t KS_NAME(n_zero)(void) {
    int32x4_t z;
    __asm__ volatile("movi %0.4s, #0" : "=w"(z));
    return z;
}

#if defined KS_I8MM

/* [two rows][k / 8][row][k % 8] */
V_INLINE void KS_NAME(n_lay_rows)(const int8x16_t *w, i8 *to) {
    KS_UNROLL
    for (int r = 0; r < 4; r += 2) {
        const int64x2x2_t both = {{vreinterpretq_s64_s8(w[r]),
            vreinterpretq_s64_s8(w[r + 1])}};
        vst2q_s64((int64_t *)(void *)(to + 16 * r), both);
    }
}

V_INLINE void KS_NAME(n_lay_inputs)(
    i8 *to, const i8 *x, size_t next, size_t half) {
    KS_NAME(n32) a = KS_NAME(n_load32)(x), b = KS_NAME(n_load32)(x + next);
    int64x2_t p = vreinterpretq_s64_s8(a.lo), q = vreinterpretq_s64_s8(b.lo);
    vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(p, q)));
    vst1q_s8(to + 16, vreinterpretq_s8_s64(vzip2q_s64(p, q)));
    p = vreinterpretq_s64_s8(a.hi), q = vreinterpretq_s64_s8(b.hi);
    vst1q_s8(to + half, vreinterpretq_s8_s64(vzip1q_s64(p, q)));
    vst1q_s8(to + half + 16, vreinterpretq_s8_s64(vzip2q_s64(p, q)));
}

V_INLINE void KS_NAME(n_multiply)(KS_NAME(sums) *s, const i8 *w, const i8 *x,
    const int T, const int n, bool small) {
    (void)small;
    KS_UNROLL
    for (int h = 0; h < n; h += 16, w += 128, x += 16 * T) {
        int8x16_t v[6];
        KS_FENCE;
        KS_UNROLL
        for (int t = 0; t < T; t++) v[t] = vld1q_s8(x + 16 * t);
        KS_UNROLL
        for (int r = 0; r < 4; r++) {
            KS_FENCE;
            int8x16_t a = vld1q_s8(w + 32 * r), b = vld1q_s8(w + 32 * r + 16);
            if (n > 8) KS_TOGETHER(a, b);
            KS_UNROLL
            for (int t = 0; t < T; t += 2)
                s->v[2 * t + r] = vmmlaq_s32(s->v[2 * t + r], v[t], a);
            KS_UNROLL
            for (int t = 0; t < T && n > 8; t += 2)
                s->v[2 * t + r] = vmmlaq_s32(s->v[2 * t + r], v[t + 1], b);
        }
    }
}

V_INLINE float32x4_t KS_NAME(n_zip1)(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip1q_f64(
        vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

V_INLINE float32x4_t KS_NAME(n_zip2)(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip2q_f64(
        vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

V_INLINE KS_NAME(quad) KS_NAME(n_broadcast)(vr v) {
    float32x4_t a = v.v[0], b = v.v[1];
    return (KS_NAME(quad)){{KS_NAME(n_zip1)(a, a), KS_NAME(n_zip2)(a, a),
        KS_NAME(n_zip1)(b, b), KS_NAME(n_zip2)(b, b)}};
}

V_INLINE float32x4_t KS_NAME(n_row)(KS_NAME(quad) q, int a) {
    return q.v[a % 4];
}

V_INLINE float32x4_t KS_NAME(n_fma)(
    float32x4_t c, float32x4_t p, KS_NAME(quad) x, int a) {
    return vfmaq_f32(c, p, x.v[a / 4]);
}

V_INLINE float32x4_t KS_NAME(n_mul)(float32x4_t p, const f32 *x, int a) {
    return vmulq_f32(p, vld1q_f32(x + a / 4 * 4));
}

V_INLINE void KS_NAME(n_square)(
    KS_NAME(floats) *s, const int T, const bool to) {
    const int i = to ? 2 : 1, k = 3 - i;
    KS_UNROLL
    for (int t = 0; t < 2 * T; t += 4) {
        float32x4_t *v = s->v + t, a = v[0], b = v[i], c = v[k], d = v[3];
        v[0] = KS_NAME(n_zip1)(a, b);
        v[i] = KS_NAME(n_zip1)(c, d);
        v[k] = KS_NAME(n_zip2)(a, b);
        v[3] = KS_NAME(n_zip2)(c, d);
    }
}

#else

#if defined KS_DOTPROD

/* [k / 4][row][k % 4] */
V_INLINE void KS_NAME(n_lay_rows)(const int8x16_t *w, i8 *to) {
    const int32x4x4_t rows = {{vreinterpretq_s32_s8(w[0]),
        vreinterpretq_s32_s8(w[1]), vreinterpretq_s32_s8(w[2]),
        vreinterpretq_s32_s8(w[3])}};
    vst4q_s32((i32 *)(void *)to, rows);
}

V_INLINE int32x4_t KS_NAME(n_dot_lane)(
    int32x4_t c, int8x16_t w, int8x16_t x, int lane) {
#define F(i) vdotq_laneq_s32(c, w, x, (i) % 4)
    LANES(F)
#undef F
}

V_INLINE void KS_NAME(n_multiply)(KS_NAME(sums) *s, const i8 *w, const i8 *x,
    const int T, const int n, bool small) {
    (void)small;
    KS_UNROLL
    for (int h = 0; h < n; h += 16, w += 128, x += 16 * T) {
        int8x16_t v[6];
        KS_FENCE;
        KS_UNROLL
        for (int t = 0; t < T; t++) v[t] = vld1q_s8(x + 16 * t);
        KS_UNROLL
        for (int r = 0; r < 4; r += n > 8 ? 1 : 2) { /* rows, half of k */
            KS_FENCE;
            int8x16_t a = vld1q_s8(w + 32 * r), b = vld1q_s8(w + 32 * r + 16);
            const int k = r % 2 * 2;
            KS_TOGETHER(a, b);
            KS_UNROLL
            for (int i = r / 2; i < 2 * T; i += 2)
                s->v[i] = KS_NAME(n_dot_lane)(s->v[i], a, v[i / 2], k);
            KS_UNROLL
            for (int i = r / 2; i < 2 * T; i += 2)
                s->v[i] = KS_NAME(n_dot_lane)(s->v[i], b, v[i / 2], k + 1);
        }
    }
}

#else

/* Row by row, unchanged. */
V_INLINE void KS_NAME(n_lay_rows)(const int8x16_t *w, i8 *to) {
    KS_UNROLL
    for (int r = 0; r < 4; r++) vst1q_s8(to + 16 * r, w[r]);
}

V_INLINE void KS_NAME(n_multiply)(KS_NAME(sums) *s, const i8 *w, const i8 *x,
    const int T, const int n, bool small) {
    KS_UNROLL
    for (int h = 0; h < 2; h++, w += 64) { /* four rows */
        int32x4_t part[2][4];
        KS_UNROLL
        for (int r = 0; r < 4; r++) {
            const i8 *at = w + 16 * r;
            KS_UNROLL
            for (int t = 0; t < T; t++) {
                const i8 *in = x + 16 * t;
                part[t][r] = n <= 16
                    ? vpaddlq_s16(KS_NAME(n_pairs)(vld1q_s8(at), vld1q_s8(in)))
                    : KS_NAME(n_first32)(
                        (KS_NAME(n32)){vld1q_s8(at), vld1q_s8(at + 128)},
                        (KS_NAME(n32)){vld1q_s8(in), vld1q_s8(in + 16 * T)},
                        small);
            }
        }
        KS_UNROLL
        for (int t = 0; t < T; t++)
            s->v[2 * t + h] = vpaddq_s32(vpaddq_s32(part[t][0], part[t][1]),
                vpaddq_s32(part[t][2], part[t][3]));
    }
}

#endif

V_INLINE void KS_NAME(n_lay_inputs)(
    i8 *to, const i8 *x, size_t next, size_t half) {
    KS_NAME(n32) v = KS_NAME(n_load32)(x);
    (void)next;
    vst1q_s8(to, v.lo);
    vst1q_s8(to + half, v.hi);
}

V_INLINE KS_NAME(quad) KS_NAME(n_broadcast)(vr v) {
    return (KS_NAME(quad)){{v.v[0], v.v[1]}};
}

V_INLINE float32x4_t KS_NAME(n_row)(KS_NAME(quad) q, int a) {
    return q.v[a % 2];
}

V_INLINE float32x4_t KS_NAME(n_fma)(
    float32x4_t c, float32x4_t p, KS_NAME(quad) x, int a) {
    return KS_NAME(n_fma_lane)(c, p, x.v[a / 8], a / 2 % 4);
}

V_INLINE float32x4_t KS_NAME(n_mul)(float32x4_t p, const f32 *x, int a) {
    return vmulq_n_f32(p, x[a / 2]);
}

V_INLINE void KS_NAME(n_square)(
    KS_NAME(floats) *s, const int T, const bool to) {
    (void)s, (void)T, (void)to;
}

#endif

/* Inputs' scales. */
V_INLINE KS_NAME(quad) KS_NAME(n_input_scales)(const f32 *x) {
    return (KS_NAME(quad)){
        {vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 8)}};
}

V_INLINE void KS_NAME(n_load)(
    KS_NAME(floats) *f, f32 *const *y, const int T) {
    KS_UNROLL
    for (int t = 0; t < T; t++) {
        f->v[2 * t] = vld1q_f32(y[t]);
        f->v[2 * t + 1] = vld1q_f32(y[t] + 4);
        KS_TOGETHER(f->v[2 * t], f->v[2 * t + 1]);
    }
}

/* ... and steps to the next rows. */
V_INLINE void KS_NAME(n_store)(
    const KS_NAME(floats) *f, f32 **y, const int T) {
    KS_UNROLL
    for (int t = 0; t < T; t++) {
        vst1q_f32(y[t], f->v[2 * t]);
        vst1q_f32(y[t] + 4, f->v[2 * t + 1]);
        y[t] += 8;
        KS_OPAQUE(y[t]);
    }
}

V_INLINE void KS_NAME(n_clear)(KS_NAME(sums) *s, const int T) {
    KS_UNROLL
    for (int a = 0; a < 2 * T; a++) s->v[a] = KS_NAME(n_zero)();
}

/* f += sums * d * inputs' scale */
V_INLINE void KS_NAME(n_add_scaled)(KS_NAME(floats) *f, const KS_NAME(sums) *s,
    const f32 *d, const f32 *dx, const int T) {
    KS_NAME(quad) k = KS_NAME(n_broadcast)(vr_load(d));
    KS_NAME(quad) x = KS_NAME(n_input_scales)(dx);
    KS_UNROLL
    for (int a = 0; a < 2 * T; a++)
        f->v[a] = KS_NAME(n_fma)(f->v[a], vmulq_f32(
            vcvtq_f32_s32(s->v[a]), KS_NAME(n_row)(k, a)), x, a);
}

/* Integer sums that start with the bits of the float 1.5 * 2^23 are floats
 * without a conversion, larger by that. `less` is minus that times d, exactly
 * (13 bits), and fma(sum, d, less) rounds once, as (f32)P * d does. Products
 * of a block of 32 stay far below 2^22. */
#define K_SHIFTED 12582912.0f

#if defined KS_DOTPROD

/* Loads registers a to d at once; compilers would rather copy them. */
#define FOUR(to, a, b, c, d, from)                                             \
    do {                                                                       \
        register int32x4_t p_ __asm__("v" #a), q_ __asm__("v" #b);             \
        register int32x4_t r_ __asm__("v" #c), t_ __asm__("v" #d);             \
        __asm__ volatile("ld1 {v" #a ".4s-v" #d ".4s}, [%4]"                   \
            : "=w"(p_), "=w"(q_), "=w"(r_), "=w"(t_)                           \
            : "r"(from), "m"(*(const struct { f32 v[16]; } *)(from)));         \
        (to)[0] = p_, (to)[1] = q_, (to)[2] = r_, (to)[3] = t_;                \
    } while (0)

/* f += P * d * inputs' scale. No register is free: nothing is loaded before the
 * sums are complete, or before it is used. */
V_INLINE void KS_NAME(n_add_block)(KS_NAME(floats) *f, KS_NAME(sums) *s,
    const KS_NAME(octet) *w, const f32 *dx, const int T) {
    KS_FENCE;
    KS_UNROLL
    for (int a = 0; a < 2 * T; a += 2) KS_TOGETHER(s->v[a], s->v[a + 1]);
    KS_NAME(quad) d, k = KS_NAME(n_input_scales)(dx);
    KS_UNROLL
    for (int i = 0; i < 2 * KS_NAME(SQUARE); i++)
        d.v[i] = vld1q_f32(w->d + 4 * i);
    KS_UNROLL
    for (int a = 0; a < 2 * T; a += 4) {
        int32x4_t less[4];
        float32x4_t x[4];
        KS_FENCE;
        FOUR(less, 28, 29, 30, 31, w->less);
        KS_UNROLL
        for (int i = 0; i < 4; i++)
            x[i] = vfmaq_f32(vreinterpretq_f32_s32(less[i]),
                vreinterpretq_f32_s32(s->v[a + i]), KS_NAME(n_row)(d, i));
        if (KS_NAME(SQUARE) == 2) {
            KS_FENCE;
            k.v[a / 4] = vld1q_f32(dx + a);
        }
        KS_UNROLL
        for (int i = 0; i < 4; i++)
            f->v[a + i] = KS_NAME(n_fma)(f->v[a + i], x[i], k, a + i);
    }
}

V_INLINE void KS_NAME(n_start)(
    KS_NAME(sums) *s, const KS_NAME(tile) *x, const int T) {
#if defined KS_I8MM
    KS_UNROLL
    for (int a = 0; a < 2 * T; a += 2) {
        KS_FENCE;
        s->v[a] = vreinterpretq_s32_f32(vld1q_f32(x->start));
        s->v[a + 1] = vreinterpretq_s32_f32(vld1q_f32(x->start + 4));
        KS_TOGETHER(s->v[a], s->v[a + 1]);
    }
#else
    FOUR(s->v, 0, 1, 2, 3, x->start);
    FOUR(s->v + 4, 4, 5, 6, 7, x->start);
    if (T == 6) FOUR(s->v + 8, 8, 9, 10, 11, x->start);
#endif
}
#undef FOUR

#endif

/* n times eight rows and T tokens: sums in registers over up to 4 blocks. */
V_INLINE void KS_NAME(n_tile32)(const KS_NAME(panel) *panel, size_t o,
    size_t n, size_t n_blocks, const KS_NAME(tile) *x, const int T, bool small,
    bool has_min) {
    const KS_NAME(octet) *w = panel->b + 4 * o;
    const f32 (*dmin)[8] = panel->dmin32 + 4 * o;
    KS_NAME(floats) f;
    KS_NAME(sums) s;
    f32 *y[6];
    KS_UNROLL
    for (int t = 0; t < T; t++) y[t] = x->y[t];
    for (; n--; w += 4, dmin += 4) {
        KS_NAME(n_load)(&f, y, T);
        if (!x->raw_in) KS_NAME(n_square)(&f, T, true);
        const KS_NAME(octet) *end = w + n_blocks;
        size_t b = 0;
        do {
#if defined KS_DOTPROD
            KS_NAME(n_start)(&s, x, T);
            KS_NAME(n_multiply)(&s, w[b].p, x->b[b].q, T, 32, small);
            KS_NAME(n_add_block)(&f, &s, w + b, x->b[b].d, T);
#else
            KS_NAME(n_multiply)(&s, w[b].p, x->b[b].q, T, 32, small);
            KS_NAME(n_add_scaled)(&f, &s, w[b].d, x->b[b].d, T);
#endif
            if (!has_min) continue;
            KS_NAME(quad) m = KS_NAME(n_broadcast)(vr_load(dmin[b]));
            KS_NAME(quad) dx = KS_NAME(n_input_scales)(x->b[b].d);
            KS_UNROLL
            for (int a = 0; a < 2 * T; a++)
                f.v[a] = KS_NAME(n_fma)(f.v[a], KS_NAME(n_mul)(
                    KS_NAME(n_row)(m, a), x->sum[b], a), dx, a);
        } while (w + ++b < end);
        if (!x->raw_out) KS_NAME(n_square)(&f, T, false);
        KS_NAME(n_store)(&f, y, T);
    }
}

/* The same for a block of 256: integers until its end. If sums are RUNNING,
 * scales are differences, as in n_row256. */
V_INLINE void KS_NAME(n_tile256)(const KS_NAME(panel) *w, size_t o, size_t n,
    const KS_NAME(tile) *x, const int T, bool small, const int span,
    bool has_min) {
    enum { N = 2 * KS_NAME(SQUARE) };
    const bool tight = KS_NAME(RUNNING) && (span == 16 || N == 4);
    KS_NAME(floats) f;
    KS_NAME(sums) s, all;
    f32 *y[6];
    KS_UNROLL
    for (int t = 0; t < T; t++) y[t] = x->y[t];
    for (; n--; o++) {
        const KS_NAME(octet) *p = w->b + 8 * o;
        if (KS_NAME(RUNNING)) KS_NAME(n_clear)(&s, T);
        KS_NAME(n_clear)(&all, T);
        for (int b = 0; b < 8; b++, p++) {
            KS_UNROLL
            for (int h = 0; h < 32; h += span) {
                KS_NAME(n_multiply)(
                    &s, p->p + 8 * h, x->b[b].q + T * h, T, span, small);
                const i32 *sc = p->scale[h / 16];
                int32x4_t k[N];
                /* Loads only after the registers of inputs are free. */
                if (span == 16 && N == 4) {
                    KS_UNROLL
                    for (int a = 0; a < 2 * T; a += 2)
                        KS_TOGETHER(s.v[a], s.v[a + 1]);
                }
                if (tight) KS_FENCE;
                KS_UNROLL
                for (int a = 0; a < N; a += 2) {
                    k[a] = vld1q_s32(sc + 4 * a);
                    k[a + 1] = vld1q_s32(sc + 4 * a + 4);
                    if (tight) KS_TOGETHER(k[a], k[a + 1]);
                }
                KS_UNROLL
                for (int a = 0; a < 2 * T; a++)
                    all.v[a] = vmlaq_s32(all.v[a], s.v[a], k[a % N]);
            }
        }
        KS_NAME(n_load)(&f, y, T);
        if (!x->raw_in) KS_NAME(n_square)(&f, T, true);
        KS_NAME(n_add_scaled)(&f, &all, w->d[o], x->b[0].d, T);
        if (has_min) {
            const int groups = 256 / span;
            if (KS_NAME(RUNNING)) KS_NAME(n_clear)(&s, T);
            KS_NAME(n_multiply)(&s, w->min[o], x->high, T, groups, true);
            KS_UNROLL
            for (int a = 0; a < 2 * T; a++)
                all.v[a] = vshlq_n_s32(s.v[a], 6);
            KS_NAME(n_multiply)(KS_NAME(RUNNING) ? &all : &s, w->min[o], x->low,
                T, groups, true);
            KS_UNROLL
            for (int a = 0; a < 2 * T && !KS_NAME(RUNNING); a++)
                all.v[a] = vaddq_s32(all.v[a], s.v[a]);
            KS_NAME(n_add_scaled)(&f, &all, w->dmin[o], x->b[0].d, T);
        }
        if (!x->raw_out) KS_NAME(n_square)(&f, T, false);
        KS_NAME(n_store)(&f, y, T);
    }
}

/* A few functions for all formats: a tile is long enough for a call. `small`
 * products save instructions without sdot. */
typedef void KS_NAME(n_tile)(const KS_NAME(panel) *w, size_t o, size_t n,
    size_t n_blocks, const KS_NAME(tile) *x, bool has_min);

#define TILE(name, T, call)                                                    \
    static void KS_NAME(name##T)(const KS_NAME(panel) *w, size_t o, size_t n,  \
        size_t n_blocks, const KS_NAME(tile) *x, bool has_min) {               \
        (void)n_blocks;                                                        \
        call;                                                                  \
    }
#define TILES(T, small)                                                        \
    TILE(k_tile32_##small##_, T, has_min                                       \
        ? KS_NAME(n_tile32)(w, o, n, n_blocks, x, T, small, true)              \
        : KS_NAME(n_tile32)(w, o, n, n_blocks, x, T, small, false))            \
    TILE(k_tile256_##small##_, T, KS_NAME(n_tile256)(                          \
        w, o, n, x, T, small, 32, has_min))
#define TILE16(T)                                                              \
    TILE(k_tile16_, T, KS_NAME(n_tile256)(w, o, n, x, T, 0, 16, has_min))
#if defined KS_DOTPROD
TILES(6, 0)
TILES(4, 0)
TILE16(6)
TILE16(4)
#else
TILES(2, 0)
TILES(2, 1)
TILE16(2)
#endif
#undef TILE
#undef TILES
#undef TILE16

static KS_NAME(n_tile) *KS_NAME(n_tile_of)(const blk_type *b, size_t T) {
#define TILE(T, small)                                                         \
    return b->n == 32       ? KS_NAME(k_tile32_##small##_##T)                  \
        : b->span == 32     ? KS_NAME(k_tile256_##small##_##T)                 \
                            : KS_NAME(k_tile16_##T)
#if defined KS_DOTPROD
    if (T == 4) TILE(4, 0);
    TILE(6, 0);
#else
    (void)T;
    if (b->bias < 128) TILE(2, 1);
    TILE(2, 0);
#endif
#undef TILE
}

/* ---- Arm: many tokens, panels ---- */

/* Scales and minima of eight blocks of 256, from n_scale_bytes. */
typedef struct { i8 scale[8][16], min[8][16]; } KS_NAME(n_scales8);

/* [row][group] to [group][row]: each round moves the top bit of the row's
 * number to the end of a byte's address. */
V_INLINE void KS_NAME(n_transpose)(const i8 (*from)[16], i8 (*to)[8]) {
    int8x16_t v[3 + 1][8];
    KS_UNROLL
    for (int r = 0; r < 8; r++) v[0][r] = vld1q_s8(from[r]);
    KS_UNROLL
    for (int k = 0; k < 3; k++) {
        KS_UNROLL
        for (int r = 0; r < 4; r++) {
            v[k + 1][2 * r] = vzip1q_s8(v[k][r], v[k][r + 4]);
            v[k + 1][2 * r + 1] = vzip2q_s8(v[k][r], v[k][r + 4]);
        }
    }
    KS_UNROLL
    for (int r = 0; r < 8; r++) vst1q_s8(to[2 * r], v[3][r]);
}

static void KS_NAME(k_panel_scales)(KS_NAME(panel) *to, size_t o,
    const KS_NAME(n_scales8) *e, int span) {
    i8 t[17][8];
    KS_NAME(n_transpose)(e->scale, t);
    memset(t[16], 0, sizeof t[16]);
    for (int g = 0; g < 256 / span; g++) {
        KS_NAME(octet) *at = to->b + 8 * o + g * span / 32;
        i32 *scale = at->scale[g * span % 32 / 16];
        int16x8_t c = vmovl_s8(vld1_s8(t[g]));
        if (KS_NAME(RUNNING)) c = vsubw_s8(c, vld1_s8(t[g + 1]));
        int16x8_t v[2] = {c, c};
        if (KS_NAME(SQUARE) == 2) { /* each pair of rows twice */
            int32x4_t p = vreinterpretq_s32_s16(c);
            v[0] = vreinterpretq_s16_s32(vzip1q_s32(p, p));
            v[1] = vreinterpretq_s16_s32(vzip2q_s32(p, p));
        }
        KS_UNROLL
        for (int i = 0; i < KS_NAME(SQUARE); i++) {
            vst1q_s32(scale + 8 * i, vmovl_s16(vget_low_s16(v[i])));
            vst1q_s32(scale + 8 * i + 4, vmovl_high_s16(v[i]));
        }
    }
    KS_UNROLL
    for (int r = 0; r < 8; r += 4) {
        int8x16_t m[4];
        KS_UNROLL
        for (int k = 0; k < 4; k++) m[k] = vld1q_s8(e->min[r + k]);
        KS_NAME(n_lay_rows)(m, to->min[o] + 16 * r);
    }
}

/* 32 weights of four rows, less the bias, to rows r to r + 3 of an octet. */
V_INLINE void KS_NAME(n_lay32)(
    const KS_NAME(n32) *w, KS_NAME(octet) *to, int r, ksllm_type type) {
    const int8x16_t bias = vdupq_n_s8((i8)(BLK_TYPES[type].bias & 127));
    int8x16_t lo[4], hi[4];
    KS_UNROLL
    for (int i = 0; i < 4; i++) {
        lo[i] = vsubq_s8(w[i].lo, bias);
        hi[i] = vsubq_s8(w[i].hi, bias);
    }
    KS_NAME(n_lay_rows)(lo, to->p + 16 * r);
    KS_NAME(n_lay_rows)(hi, to->p + 128 + 16 * r);
}

V_INLINE void KS_NAME(n_store_rows)(f32 *to, vr v) {
    KS_NAME(quad) q = KS_NAME(n_broadcast)(v);
    KS_UNROLL
    for (int i = 0; i < 2 * KS_NAME(SQUARE); i++) vst1q_f32(to + 4 * i, q.v[i]);
}

/* Eight rows (o) of a panel. */
V_INLINE void KS_NAME(k_build32)(KS_NAME(panel) *to, size_t o,
    const u8 *const *rows, size_t n_blocks, ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    KS_NAME(octet) *at = to->b + 4 * o;
    KS_NAME(n_rows) row;
    KS_UNROLL
    for (int r = 0; r < 8; r++) row.p[r] = rows[r];
    for (size_t i = 0; i < n_blocks; i++, at++) {
        vr min;
        const vr d = KS_NAME(n_next_scales)(&row, b, &min);
        KS_UNROLL
        for (int r = 0; r < 8; r += 4) {
            KS_NAME(n32) w[4];
            KS_UNROLL
            for (int k = 0; k < 4; k++)
                w[k] = KS_NAME(n_block)(row.p[r + k] - b->bytes, type);
            KS_NAME(n_lay32)(w, at, r, type);
        }
        KS_NAME(n_store_rows)(at->d, d);
        if (b->has_min) vr_store(to->dmin32[4 * o + i], min);
        if (!KS_NAME(RUNNING)) continue;
        const vr less = {{vmulq_n_f32(d.v[0], -K_SHIFTED),
            vmulq_n_f32(d.v[1], -K_SHIFTED)}};
        KS_NAME(n_store_rows)(at->less, less);
        if (KS_NAME(SQUARE) == 1) KS_NAME(n_store_rows)(at->less + 8, less);
    }
    /* The next blocks; their first bytes came with the last line of these. */
    KS_NAME(n_fetch)(row.p, 0, 8, 4u * b->bytes - 8, 64);
}

V_INLINE void KS_NAME(k_build256)(KS_NAME(panel) *to, size_t o,
    const u8 *const *rows, ksllm_type type) {
    const blk_type *b = &BLK_TYPES[type];
    KS_NAME(n_scales8) e;
    vr min = {{vdupq_n_f32(0), vdupq_n_f32(0)}};
    vr_store(to->d[o], KS_NAME(n_block_scales)(rows, 0, b, &min));
    vr_store(to->dmin[o], vr_minus(min));
    KS_ROLLED
    for (int r = 0; r < 8; r++) {
        int8x8_t sc[2];
        uint8x8_t mn[2];
        KS_NAME(n_scale_bytes)(rows[r], type, sc, mn);
        vst1q_s8(e.scale[r], vcombine_s8(sc[0], sc[1]));
        vst1q_s8(e.min[r], KS_NAME(n_s8)(vcombine_u8(mn[0], mn[1])));
    }
    KS_NAME(k_panel_scales)(to, o, &e, b->span);
    KS_NAME(octet) *at = to->b + 8 * o;
    int halves = 2;
    KS_OPAQUE(halves); /* or compilers unroll it, to no one's gain */
    KS_ROLLED
    for (int half = 0; half < halves; half++)
        for (int r = 0; r < 8; r += 4) {
            KS_NAME(n_half256) from[4];
            KS_UNROLL
            for (int i = 0; i < 4; i++)
                from[i] = KS_NAME(n_half_at)(rows[r + i], type, half);
            KS_UNROLL
            for (int k = 0; k < 4; k++) {
                KS_NAME(n32) w[4];
                KS_UNROLL
                for (int i = 0; i < 4; i++)
                    w[i] = KS_NAME(n_group32)(from + i, type, k);
                KS_NAME(n_lay32)(w, at + 4 * half + k, r, type);
            }
        }
    KS_NAME(n_fetch)(rows, 0, 8, b->bytes - 8u, b->bytes + 64u);
}

V_INLINE void KS_NAME(k_build)(KS_NAME(panel) *to, size_t o,
    const u8 *const *rows, size_t n_blocks, ksllm_type type) {
    if (BLK_TYPES[type].n == 256) KS_NAME(k_build256)(to, o, rows, type);
    else KS_NAME(k_build32)(to, o, rows, n_blocks, type);
}

/* Sums of 16 groups, or of eight of twice the length, of token i. */
V_INLINE void KS_NAME(n_group_sums)(
    KS_NAME(tile) *to, const i16 *sum, size_t i, bool wide) {
    int16x8_t v = vld1q_s16(sum), w = vld1q_s16(sum + 8);
    if (wide) v = vpaddq_s16(v, w), w = vdupq_n_s16(0);
    const int16x8_t low = vdupq_n_s16(63);
    const size_t half = 8 * KS_NAME(SQUARE);
    const size_t at = KS_NAME(SQUARE) == 1 ? 16 * i : i / 2 * 32 + i % 2 * 8;
    vst1_s8(to->high + at, vshrn_n_s16(v, 6));
    vst1_s8(to->high + at + half, vshrn_n_s16(w, 6));
    vst1_s8(to->low + at, vmovn_s16(vandq_s16(v, low)));
    vst1_s8(to->low + at + half, vmovn_s16(vandq_s16(w, low)));
}

/* 32 inputs, block b of token i (with i8mm of two, the second `next` on). They
 * have a scale of their own unless blocks are of 256. */
V_INLINE void KS_NAME(n_fill)(KS_NAME(tile) *to, size_t b, size_t i, size_t T,
    const i8 *x, const f32 *d, size_t next, const bool wide) {
    KS_NAME(n_lay_inputs)(to->b[b].q + 16 * i, x + 32 * b, next, 16 * T);
    enum { N = KS_NAME(SQUARE) };
    KS_UNROLL
    for (size_t j = 0; j < N * N && !wide; j++)
        to->b[b].d[i * N + j] = d[b + j / N * (next / 32)];
}

/* Up to T tokens from t on with n_blocks blocks of 32 inputs from k0 on. */
V_INLINE void KS_NAME(n_tile_fill)(KS_NAME(tile) *to, const k_product *p,
    size_t k0, size_t n_blocks, size_t t, size_t T, const bool wide) {
    const k_acts *a = p->acts;
    const blk_type *type = &BLK_TYPES[p->type];
    enum { N = KS_NAME(SQUARE) };
    const size_t n_in = a->n_in, step = n_in / (wide ? 256 : 32);
    const size_t n = min_size(T, p->m - t), from = t * n_in + k0;
    const i8 *x = a->q[wide] + from;
    const f32 *d = a->d[wide] + from / (wide ? 256 : 32);
    const i16 *sum = a->sum[wide] + from / 16;
    for (size_t i = 0; i < n; i += N, x += N * n_in, d += N * step) {
        const size_t next = i + 1 < n ? n_in : 0;
        for (size_t j = 0; j < N * N && wide; j++)
            to->b[0].d[i * N + j] = d[next ? j / N * step : 0];
        if (!wide && n_blocks < 4) {
            for (size_t b = 0; b < n_blocks; b++)
                KS_NAME(n_fill)(to, b, i, T, x, d, next, false);
            continue;
        }
        for (size_t b = 0; b < (wide ? 8 : 4); b += 4) {
            KS_UNROLL
            for (size_t j = 0; j < 4; j++)
                KS_NAME(n_fill)(to, b + j, i, T, x, d, next, wide);
        }
    }
    if (!type->has_min) return;
    for (size_t i = 0; i < n; i++, sum += n_in / 16) {
        if (wide) KS_NAME(n_group_sums)(to, sum, i, type->span == 32);
        for (size_t b = 0; b < n_blocks && !wide; b++)
            for (size_t j = 0; j < N; j++)
                to->sum[b][i * N + j] =
                    (f32)(sum[2 * b] + sum[2 * b + 1]);
    }
}

static __attribute__((noinline)) void KS_NAME(k_fill)(KS_NAME(tile) *to,
    const k_product *p, size_t k0, size_t n_blocks, size_t t, size_t T) {
    if (BLK_TYPES[p->type].n == 32)
        KS_NAME(n_tile_fill)(to, p, k0, n_blocks, t, T, false);
    else
        KS_NAME(n_tile_fill)(to, p, k0, 8, t, T, true);
}

typedef void KS_NAME(n_build)(KS_NAME(panel) *to, size_t o,
    const u8 *const *rows, size_t n_blocks);

/* The sums lie in y while one panel after the other is built. A tile computes
 * tokens beyond the last from whatever it held before. */
static void KS_NAME(k_panels)(
    const k_product *p, KS_NAME(n_build) *build) {
    const blk_type *b = &BLK_TYPES[p->type];
    const size_t n = p->acts->n_in;
    const size_t ROWS = b->n == 32 ? 64 : 32, K = b->n == 32 ? 128 : 256;
    KS_NAME(panel) w;
    KS_NAME(tile) x;
    f32 spare[64]; /* for tokens and rows beyond the last */
    memset(&x, 0, sizeof x);
    memset(spare, 0, sizeof spare);
    for (int i = 0; i < 16; i++) x.start[i] = K_SHIFTED;
    for (size_t r0 = 0; r0 < p->n_rows; r0 += ROWS) {
        size_t n_rows = min_size(ROWS, p->n_rows - r0);
        for (size_t t = 0; t < p->m; t++)
            memset(p->y + t * p->y_stride + r0, 0, n_rows * sizeof *p->y);
        for (size_t k = 0; k < n; k += K) {
            const size_t n_blocks = min_size(K, n - k) / b->n;
            const u8 *src = p->w + r0 * p->row_bytes + k / b->n * b->bytes;
            for (size_t r = 0; r < n_rows; r += 8) {
                const u8 *row[8];
                src = KS_NAME(n_eight_rows)(src, p->row_bytes, n_rows - r, row);
                build(&w, r / 8, row, n_blocks);
            }
            for (size_t t = 0, T; t < p->m; t += T) {
                f32 *y = p->y + t * p->y_stride + r0;
                T = p->m - t > KS_NAME(LAST) ? KS_NAME(TILE) : KS_NAME(LAST);
                KS_NAME(n_tile) *tile = KS_NAME(n_tile_of)(b, T);
                KS_UNROLL /* more than T needs, so that it can be unrolled */
                for (size_t i = 0; i < 6; i++, y += p->y_stride)
                    x.y[i] = t + i < p->m ? y : spare;
                x.raw_in = p->m - t >= T, x.raw_out = x.raw_in && n - k > K;
                KS_NAME(k_fill)(&x, p, k, n_blocks, t, T);
                tile(&w, 0, n_rows / 8, n_blocks, &x, b->has_min);
                if (n_rows % 8 == 0) continue;
                const size_t r = n_rows / 8 * 8, bytes = n_rows % 8 * 4;
                y = p->y + t * p->y_stride + r0 + r;
                const size_t real = min_size(T, p->m - t);
                for (size_t i = 0; i < T; i++) {
                    x.y[i] = spare + 8 * i;
                    if (i < real)
                        memcpy(x.y[i], y + i * p->y_stride, bytes);
                }
                x.raw_in = x.raw_out = false;
                tile(&w, r / 8, 1, n_blocks, &x, b->has_min);
                for (size_t i = 0; i < real; i++)
                    memcpy(y + i * p->y_stride, x.y[i], bytes);
            }
        }
    }
}

/* ---- Arm: one function per format and form ---- */

enum { KS_NAME(FEW) = 2 }; /* tokens up to which k_direct is faster */

#define FORM(t)                                                                \
    static void KS_NAME(k_build_##t)(KS_NAME(panel) *to, size_t o,             \
        const u8 *const *rows, size_t n_blocks) {                              \
        KS_NAME(k_build)(to, o, rows, n_blocks, KSLLM_TYPE_##t);               \
    }
#define EACH(F)                                                                \
    F(Q4_0) F(Q4_1) F(Q5_0) F(Q5_1) F(Q8_0) F(IQ4_NL)                          \
    F(Q2_K) F(Q3_K) F(Q4_K) F(Q5_K) F(Q6_K) F(IQ4_XS)
EACH(FORM)
#undef FORM
#define FORM(t) [KSLLM_TYPE_##t] = KS_NAME(k_build_##t),
static KS_NAME(n_build) *const KS_NAME(BUILD)[] = {EACH(FORM)};
#undef FORM

V_INLINE void KS_NAME(k_panel)(const k_product *p, ksllm_type type) {
    KS_NAME(k_panels)(p, KS_NAME(BUILD)[type]);
}

#if defined KS_BASE_I8
#define KS_FEW(x) KS_PASTE(x, KS_BASE_I8)
#else
#define KS_FEW(x) KS_NAME(x)
#define FORM(t)                                                                \
    static vr KS_NAME(k_direct_##t)(const u8 *const *rows, size_t n_blocks,    \
        size_t ahead, const i8 *x, const f32 *dx, const i16 *sums) {           \
        return KS_NAME(k_rows)(                                                \
            rows, n_blocks, ahead, x, dx, sums, KSLLM_TYPE_##t);               \
    }
EACH(FORM)
#undef FORM
#define FORM(t) [KSLLM_TYPE_##t] = KS_NAME(k_direct_##t),
static KS_NAME(n_direct) *const KS_NAME(DIRECT)[] = {EACH(FORM)};
#undef FORM
#endif
#undef EACH

V_INLINE void KS_NAME(k_direct)(const k_product *p, ksllm_type type) {
    KS_FEW(k_tokens)(p, KS_FEW(DIRECT)[type]);
}
#undef KS_FEW

#endif

/* ---- 7e products with float weights ---- */

V_INLINE vf KS_NAME(v_load_any)(const u8 *p, ksllm_type type) {
    return type == KSLLM_TYPE_F32 ? v_load(p)
        : type == KSLLM_TYPE_F16  ? v_load_f16(p)
                                  : v_load_bf16(p);
}

V_INLINE vf KS_NAME(v_tail_any)(const u8 *p, size_t n, ksllm_type type) {
    f32 f[16];
    k_tail(p, n, type, 0.0f, f);
    return v_load(f);
}

/* One row times four tokens, four chains at once. */
V_INLINE void KS_NAME(k_float_row)(const u8 *w, size_t n, const f32 *x,
    size_t m, ksllm_type type, f32 *y, size_t y_stride) {
    const size_t size = BLK_TYPES[type].bytes, full = n / 16 * 16;
    for (size_t t = 0; t < m; t += 4) {
        const f32 *in[4];
        vf sum[4], rest[4];
        V_UNROLL
        for (size_t c = 0; c < 4; c++) {
            in[c] = x + min_size(t + c, m - 1) * n;
            sum[c] = v_set1(0.0f);
        }
        for (size_t i = 0; i < full; i += 16) {
            vf k = KS_NAME(v_load_any)(w + i * size, type);
            V_UNROLL
            for (int c = 0; c < 4; c++)
                sum[c] = v_fma(k, v_load(in[c] + i), sum[c]);
        }
        V_UNROLL
        for (int c = 0; c < 4; c++) rest[c] = sum[c];
        if (full < n) {
            vf k = KS_NAME(v_tail_any)(w + full * size, n - full, type);
            for (int c = 0; c < 4; c++)
                rest[c] = v_fma(k,
                    KS_NAME(v_tail)(in[c] + full, n - full, 0.0f), rest[c]);
        }
        for (size_t c = 0; c < 4 && t + c < m; c++)
            y[(t + c) * y_stride] = v_sum(rest[c]);
    }
}

V_INLINE void KS_NAME(k_floats)(const k_product *p, ksllm_type type) {
    for (size_t r = 0; r < p->n_rows; r++)
        KS_NAME(k_float_row)(p->w + r * p->row_bytes, p->acts->n_in,
            p->acts->x, p->m, type, p->y + r, p->y_stride);
}

#if defined KS_NEON
V_INLINE void KS_NAME(k_choose_form)(const k_product *p, ksllm_type type) {
    if (p->m > KS_NAME(FEW)) KS_NAME(k_panel)(p, type);
    else KS_NAME(k_direct)(p, type);
}
#endif

/* ---- 7e the product of each format ----
 * One function per format, so that each gets a loop of its own. A format with
 * a faster kernel on some instruction set goes in here. */

#if defined KS_SCALAR /* one loop for all: it is the reference, not the fast */
static void KS_NAME(k_product_any)(const k_product *p) {
    KS_NAME(k_quantized)(p, p->type);
}
#define QUANTIZED(t)                                                           \
    static void KS_NAME(k_product_##t)(const k_product *p) {                   \
        KS_NAME(k_product_any)(p);                                             \
    }
#elif defined KS_NEON
#define QUANTIZED(t)                                                           \
    static void KS_NAME(k_product_##t)(const k_product *p) {                   \
        KS_NAME(k_choose_form)(p, KSLLM_TYPE_##t);                             \
    }
#else
/* Panels are laid out by the base's functions. With VNNI the tiles are faster
 * from two tokens on. For one the base's kernel is as fast where it has not to
 * take signs apart; AVX-512 keeps its own for blocks of 256 (7 to 16 %). */
#if !defined KS_BASE
#define X_LAY(t)                                                               \
    static void KS_NAME(k_lay_##t)(x_panel *to, const u8 *const *row,          \
        size_t at, size_t n, const u8 *next, bool raise) {                     \
        KS_NAME(x_lay_any)(to, row, at, n, next, raise, KSLLM_TYPE_##t);       \
    }
#define X_LAYER(t) KS_NAME(k_lay_##t)
#else
#define X_LAY(t)
#define X_LAYER(t) KS_PASTE(k_lay_##t, KS_BASE)
#endif
#if !defined KS_VNNI
#define X_FEW(t) KS_NAME(k_direct)(p, p->m, KSLLM_TYPE_##t)
#elif !defined KS_BASE
#define X_FEW(t) KS_NAME(k_direct)(p, 1, KSLLM_TYPE_##t)
#else
#define X_FEW(t)                                                               \
    const blk_type *b = &BLK_TYPES[KSLLM_TYPE_##t];                            \
    if (b->bias == 128 || (KS_NAME(HALVES) == 1 && b->n == 256))               \
        KS_NAME(k_direct)(p, 1, KSLLM_TYPE_##t);                               \
    else                                                                       \
        KS_PASTE(k_product_##t, KS_BASE)(p)
#endif
#define QUANTIZED(t)                                                           \
    X_LAY(t)                                                                   \
    static void KS_NAME(k_product_##t)(const k_product *p) {                   \
        if (p->m > KS_NAME(FEW))                                               \
            KS_NAME(k_panel)(                                                  \
                p, X_LAYER(t), KS_NAME(x_tiler_of)(KSLLM_TYPE_##t));           \
        else {                                                                 \
            X_FEW(t);                                                          \
        }                                                                      \
    }
#endif
#define FLOATS(t)                                                              \
    static void KS_NAME(k_product_##t)(const k_product *p) {                   \
        KS_NAME(k_floats)(p, KSLLM_TYPE_##t);                                  \
    }
#if !defined KS_BASE
FLOATS(F32)
FLOATS(F16)
FLOATS(BF16)
#endif
QUANTIZED(Q4_0)
QUANTIZED(Q4_1)
QUANTIZED(Q5_0)
QUANTIZED(Q5_1)
QUANTIZED(Q8_0)
QUANTIZED(Q2_K)
QUANTIZED(Q3_K)
QUANTIZED(Q4_K)
QUANTIZED(Q5_K)
QUANTIZED(Q6_K)
QUANTIZED(IQ4_NL)
QUANTIZED(IQ4_XS)
#undef QUANTIZED
#undef FLOATS
#undef X_LAY
#undef X_LAYER
#undef X_FEW

/* ---- 7f the steps of attention ----
 * The steps of k_attend (7j) for a block of keys and the heads that share it.
 * Up to four query heads of one KV head go together (G, from head g0 on), so
 * that a key or value is read and converted once for all of them; a few keys or
 * stretches of a value at a time keep the fma units busy. */

V_INLINE vf KS_NAME(v_load_kv)(const u8 *p, size_t i, k_cache kind) {
    return kind == K_F16 ? v_load_f16(p + 2 * i) : v_load(p + 4 * i);
}

V_INLINE vf KS_NAME(v_tail_kv)(const u8 *p, size_t i, size_t n, k_cache kind) {
    return kind == K_F16
        ? KS_NAME(v_tail_any)(p + 2 * i, n - i, KSLLM_TYPE_F16)
        : KS_NAME(v_tail_any)(p + 4 * i, n - i, KSLLM_TYPE_F32);
}

/* The dimensions that do not fill 16. */
V_INLINE void KS_NAME(k_scores_tail)(const k_query *a, const f32 *q,
    const u8 *const *key, const int G, k_cache kind, vf *x) {
    const size_t hd = a->key_dim, full = hd / 16 * 16;
    vf y[4]; /* x are registers */
    V_UNROLL
    for (int c = 0; c < V_WIDTH(G); c++) y[c] = x[c];
    for (int c = 0; c < V_WIDTH(G); c++)
        y[c] = v_fma(KS_NAME(v_tail)(q + (size_t)(c % G) * hd + full,
                         hd - full, 0.0f),
            KS_NAME(v_tail_kv)(key[c / G], full, hd, kind), y[c]);
    V_UNROLL
    for (int c = 0; c < V_WIDTH(G); c++) x[c] = y[c];
}

KS_INLINE void KS_NAME(k_scores_float)(const k_query *a, k_keys *b,
    const int G, size_t g0, k_cache kind) {
    const size_t hd = a->key_dim, full = hd / 16 * 16, n = b->n;
    const size_t stride = a->k_stride, keys = (size_t)(V_WIDTH(G) / G);
    const f32 *q = a->q + (b->t * a->q_heads + g0) * hd;
    const u8 *k = a->k + (b->slot + b->first) * stride;
    for (size_t j = 0; j < n; j += keys) {
        const u8 *key[4];
        vf x[4];
        V_UNROLL
        for (size_t c = 0; c < keys; c++)
            key[c] = k + min_size(j + c, n - 1) * stride;
        V_UNROLL
        for (int c = 0; c < V_WIDTH(G); c++) x[c] = v_set1(0.0f);
        for (size_t i = 0; i < full; i += 16) {
            V_UNROLL
            for (int c = 0; c < V_WIDTH(G) / G; c++) {
                vf v = KS_NAME(v_load_kv)(key[c], i, kind);
                V_UNROLL
                for (int g = 0; g < G; g++)
                    x[c * G + g] = v_fma(
                        v_load(q + (size_t)g * hd + i), v, x[c * G + g]);
            }
        }
        if (full < hd) KS_NAME(k_scores_tail)(a, q, key, G, kind, x);
        V_UNROLL
        for (int c = 0; c < V_WIDTH(G); c++) {
            size_t g = (size_t)(c % G), at = j + (size_t)(c / G);
            if (at >= n) break;
            b->s[g0 + g][b->first + at] = v_sum(x[c]) * a->scale;
        }
    }
}

/* Dimensions [i, i + 16 * W) of out = out * keep + sum over keys of
 * probability * value, keys in ascending order. */
KS_INLINE void KS_NAME(k_values_at)(const k_query *a, const k_keys *b,
    const int G, size_t g0, const int W, size_t i, k_cache kind) {
    const size_t stride = a->v_stride;
    const u8 *v = a->v + (b->slot + b->first) * stride;
    const f32 *p = b->s[g0] + b->first;
    f32 *out = k_out(a, b->t, g0) + i;
    vf x[4];
    V_UNROLL
    for (int c = 0; c < W * G; c++)
        x[c] = v_mul(
            v_load(out + (size_t)(c % G) * a->out_head + 16 * (c / G)),
            v_set1(b->keep[g0 + (size_t)(c % G)]));
    for (size_t j = 0; j < b->n; j++, v += stride) {
        V_UNROLL
        for (int c = 0; c < W; c++) {
            vf y = KS_NAME(v_load_kv)(v, i + 16 * (size_t)c, kind);
            V_UNROLL
            for (int g = 0; g < G; g++)
                x[c * G + g] = v_fma(
                    v_set1(p[g * K_KEYS + (int)j]), y, x[c * G + g]);
        }
    }
    V_UNROLL
    for (int c = 0; c < W * G; c++)
        v_store(out + (size_t)(c % G) * a->out_head + 16 * (c / G), x[c]);
}

/* The dimensions from i on, fewer than 16. */
KS_NOINLINE void KS_NAME(k_values_tail)(const k_query *a, const k_keys *b,
    size_t g, size_t i, k_cache kind) {
    const size_t n = a->value_dim - i;
    f32 *out = k_out(a, b->t, g) + i, f[16];
    const u8 *v = a->v + (b->slot + b->first) * a->v_stride;
    vf x = v_mul(KS_NAME(v_tail)(out, n, 0.0f), v_set1(b->keep[g]));
    for (size_t j = 0; j < b->n; j++, v += a->v_stride)
        x = v_fma(v_set1(b->s[g][b->first + j]),
            KS_NAME(v_tail_kv)(v, i, i + n, kind), x);
    v_store(f, x);
    memcpy(out, f, n * sizeof *f);
}

KS_INLINE void KS_NAME(k_values_float)(const k_query *a, k_keys *b,
    const int G, size_t g0, k_cache kind) {
    const size_t hd = a->value_dim, W = (size_t)(V_WIDTH(G) / G);
    size_t i = 0;
    for (; W > 1 && i + 16 * W <= hd; i += 16 * W)
        KS_NAME(k_values_at)(a, b, G, g0, (int)W, i, kind);
    for (; i + 16 <= hd; i += 16)
        KS_NAME(k_values_at)(a, b, G, g0, 1, i, kind);
    for (size_t g = 0; g < (size_t)G && i < hd; g++)
        KS_NAME(k_values_tail)(a, b, g0 + g, i, kind);
}

#if !defined KS_BASE

/* Scores of a block to probabilities relative to its running maximum; returns
 * what everything before must be multiplied with. */
static f32 KS_NAME(k_softmax)(
    f32 *s, size_t first, size_t n, f32 *max, f32 *sum) {
    for (size_t j = 0; j < first; j++) s[j] = s[first];
    for (size_t j = first + n; j < K_KEYS; j++) s[j] = s[first];
    vf most = v_max(v_max(v_load(s), v_load(s + 16)),
        v_max(v_load(s + 32), v_load(s + 48)));
    f32 top = v_top(most), keep = 1;
    if (top > *max) { /* e^0 is 1 to the bit */
        f32 e[16];
        v_store(e, KS_NAME(v_exp)(v_set1(*max - top)));
        keep = e[0];
    } else {
        top = *max;
    }
    vf part = v_set1(0.0f), shift = v_set1(-top);
    for (size_t j = 0; j < K_KEYS; j += 16) {
        vf e = KS_NAME(v_exp)(v_add(v_load(s + j), shift));
        v_store(s + j, e);
        if (j < first || j + 16 > first + n) {
            for (size_t k = j; k < j + 16; k++)
                if (k < first || k >= first + n) s[k] = 0;
            e = v_load(s + j);
        }
        part = v_add(part, e);
    }
    *sum = *sum * keep + v_sum(part);
    *max = top;
    return keep;
}

#endif

/* The same as int8: all 64 scores of a block, also those that do not count. */
KS_INLINE void KS_NAME(k_scores_i8)(
    const k_query *a, k_keys *b, const int G, size_t g0) {
    /* groups of 16 keys at a time, of the 4 in a block */
    const int W = VI_WIDTH(G) / G < 4 ? VI_WIDTH(G) / G : 4;
    const size_t n = a->k_stride, q_next = k_padded(a->key_dim);
    const size_t parts = k_scales(n), row = b->t * a->q_heads + g0;
    const i8 *q = a->q8 + row * q_next;
    const u8 *k = a->k + b->slot * n;
    memset(b->s[g0], 0, (size_t)G * sizeof *b->s);
    for (size_t part = 0; part < parts; part++) {
        size_t from = part * K_HADAMARD, to = min_size(n, from + K_HADAMARD);
        const f32 *k_scale = a->k_scale + part * a->n_slots + b->slot;
        const f32 *scale = a->q_scale + 2 * (row * parts + part);
        for (int w = 0; w < 4; w += W) {
            vi x[16];
            V_UNROLL
            for (int c = 0; c < W * G; c++)
                x[c] = vi_start((i32)scale[(size_t)(c % G) * parts * 2 + 1]);
            for (size_t i = from; i < to; i += 4)
                V_UNROLL
                for (int c = 0; c < W * G; c++)
                    x[c] = vi_dot_k(x[c],
                        k + 16 * n * (size_t)(w + c / G) + 16 * i,
                        q + (size_t)(c % G) * q_next + i);
            V_UNROLL
            for (int c = 0; c < W * G; c++) {
                f32 *y = b->s[g0 + (size_t)(c % G)] + 16 * (w + c / G);
                f32 d = scale[(size_t)(c % G) * parts * 2] * a->scale;
                v_store(y, v_fma(v_mul(vi_float(x[c]),
                                     v_load(k_scale + 16 * (w + c / G))),
                               v_set1(d), v_load(y)));
            }
        }
    }
}

#if !defined KS_BASE_I8

/* Probabilities times the scales of their values, as numbers from 0 to 254
 * times the scale that is returned. [first, first + n) count. */
static f32 KS_NAME(k_shares)(
    f32 *p, const f32 *v_scale, size_t first, size_t n, u8 *out) {
    vf m = v_set1(0.0f);
    for (size_t j = 0; j < K_KEYS; j += 16) {
        v_store(p + j, v_mul(v_load(p + j), v_load(v_scale + j)));
        if (j < first || j + 16 > first + n) /* what lies there may be NaN */
            for (size_t k = j; k < j + 16; k++)
                if (k < first || k >= first + n) p[k] = 0;
        m = v_max(m, v_load(p + j));
    }
    f32 top = v_top(m);
    /* below, 254 / top is infinite, and the offset is lost in it */
    vf inverse = v_set1(top > 1e-30f ? 254.0f / top : 0.0f);
    vf magic = v_set1(12582912.0f); /* rounds; the rest is exact */
    vf back = v_set1(-12582912.0f - VI_OFFSET);
    for (size_t j = 0; j < K_KEYS; j += 16) {
        vf x = v_add(v_mul(v_load(p + j), inverse), magic);
        v_store_i8((i8 *)out + j, v_add(x, back));
    }
    return top / 254.0f;
}

#endif

/* Dimensions [i, i + 16 * W) of the heads' results, at out, = out * keep + the
 * block's values by their shares. */
KS_INLINE void KS_NAME(k_values_i8_at)(const k_query *a, const k_keys *b,
    const int G, size_t g0, const int W, size_t i, f32 *out, size_t out_head) {
    static const u8 offset[4] = {VI_OFFSET, VI_OFFSET, VI_OFFSET, VI_OFFSET};
    const u8 *v = a->v + b->slot * a->v_stride + 4 * i;
    vi x[16], less[4]; /* what VI_OFFSET takes away */
    V_UNROLL
    for (int c = 0; c < W * G; c++) x[c] = less[c / G] = vi_zero();
    for (size_t j = 0; j < K_KEYS; j += 4) {
        const u8 *tile = v + j * a->v_stride;
        V_UNROLL
        for (int c = 0; c < W * G; c++)
            x[c] = vi_dot_v(x[c], tile + 64 * (c / G),
                b->s8[g0 + (size_t)(c % G)] + j);
        V_UNROLL
        for (int c = 0; c < (VI_OFFSET ? W : 0); c++)
            less[c] = vi_dot_v(less[c], tile + 64 * c, offset);
    }
    V_UNROLL
    for (int c = 0; c < W * G; c++) {
        const size_t g = (size_t)(c % G);
        f32 *to = out + g * out_head + 16 * (c / G);
        vi whole = VI_OFFSET ? vi_add(x[c], less[c / G]) : x[c];
        v_store(to, v_fma(vi_float(whole), v_set1(b->share[g0 + g]),
            v_mul(v_load(to), v_set1(b->keep[g0 + g]))));
    }
}

KS_INLINE void KS_NAME(k_values_i8)(
    const k_query *a, k_keys *b, const int G, size_t g0) {
    const size_t W = min_size(4, (size_t)(VI_WIDTH(G) / G)), n = a->value_dim;
    f32 *out = k_out(a, b->t, g0);
    size_t i = 0;
    for (; W > 1 && i + 16 * W <= n; i += 16 * W)
        KS_NAME(k_values_i8_at)(a, b, G, g0, (int)W, i, out + i, a->out_head);
    for (; i < n; i += 16) {
        const bool whole = n - i >= 16;
        f32 f[4 * 16], *to = out + i;
        if (!whole) memset(f, 0, sizeof f);
        for (size_t g = 0; g < (size_t)G && !whole; g++)
            memcpy(f + 16 * g, to + g * a->out_head, (n - i) * sizeof *f);
        KS_NAME(k_values_i8_at)(a, b, G, g0, 1, i, whole ? to : f,
            whole ? a->out_head : 16);
        for (size_t g = 0; g < (size_t)G && !whole; g++)
            memcpy(to + g * a->out_head, f + 16 * g, (n - i) * sizeof *f);
    }
}

KS_INLINE void KS_NAME(k_scores)(
    const k_query *a, k_keys *b, const int G, size_t g0, k_cache kind) {
    if (kind == K_I8) KS_NAME(k_scores_i8)(a, b, G, g0);
    else KS_NAME(k_scores_float)(a, b, G, g0, kind);
}

KS_INLINE void KS_NAME(k_values)(
    const k_query *a, k_keys *b, const int G, size_t g0, k_cache kind) {
    if (kind == K_I8) KS_NAME(k_values_i8)(a, b, G, g0);
    else KS_NAME(k_values_float)(a, b, G, g0, kind);
}

/* For all sizes of a group, head by head, where nothing is lost by it. Plain
 * C, the reference, has one function for all sizes and caches. */
#define ALONE(step, kind)                                                      \
    static void KS_NAME(k_##step##_##kind)(const k_query *a, k_keys *b) {      \
        for (size_t g = 0; g < a->group; g++)                                  \
            KS_NAME(k_##step)(a, b, 1, g, K_##kind);                           \
    }
#define GROUP(step, G, kind)                                                   \
    static void KS_NAME(k_##step##G##_##kind)(const k_query *a, k_keys *b) {   \
        KS_NAME(k_##step)(a, b, G, 0, K_##kind);                               \
    }
#if defined KS_SCALAR
static void KS_NAME(k_scores_any)(const k_query *a, k_keys *b) {
    KS_NAME(k_scores)(a, b, (int)a->group, 0, a->kind);
}
static void KS_NAME(k_values_any)(const k_query *a, k_keys *b) {
    KS_NAME(k_values)(a, b, (int)a->group, 0, a->kind);
}
#else
#if !defined KS_BASE
ALONE(scores, F32)
ALONE(values, F32)
GROUP(scores, 4, F32)
GROUP(values, 4, F32)
GROUP(scores, 1, F16)
GROUP(scores, 2, F16)
GROUP(scores, 4, F16)
GROUP(values, 1, F16)
GROUP(values, 2, F16)
GROUP(values, 4, F16)
#endif
#if !defined KS_BASE_I8
GROUP(scores, 1, I8)
GROUP(scores, 2, I8)
GROUP(scores, 4, I8)
GROUP(values, 1, I8)
GROUP(values, 2, I8)
GROUP(values, 4, I8)
#endif
#endif
#undef GROUP
#undef ALONE

/* ---- 7g the row ---- */

#if defined KS_BASE
#define KS_FLOATS(x) KS_PASTE(x, KS_BASE)
#else
#define KS_FLOATS(x) KS_NAME(x)
#endif
#if defined KS_BASE_I8
#define KS_CACHE_I8(x) KS_PASTE(x, KS_BASE_I8)
#else
#define KS_CACHE_I8(x) KS_NAME(x)
#endif

static const k_row KS_NAME(K_TABLE_ROW) = {
    .name = KS_STRING(KS_ISA),
#if defined KS_SCALAR
    .needs = 0,
#elif defined KS_AVXVNNI
    .needs = CPU_AVX2 | CPU_AVX_VNNI,
#elif defined KS_VNNI
    .needs = CPU_AVX2 | CPU_AVX512_VNNI,
#elif defined KS_AVX2
    .needs = CPU_AVX2,
#elif defined KS_I8MM
    .needs = CPU_NEON | CPU_DOTPROD | CPU_I8MM,
#elif defined KS_DOTPROD
    .needs = CPU_NEON | CPU_DOTPROD,
#elif defined KS_NEON
    .needs = CPU_NEON,
#endif
    .quantize = KS_FLOATS(k_quantize),
    .norm = KS_FLOATS(k_norm),
#define FLOATS(t) [KSLLM_TYPE_##t] = KS_FLOATS(k_product_##t)
#define QUANTIZED(t) [KSLLM_TYPE_##t] = KS_NAME(k_product_##t)
    .product = {FLOATS(F32), FLOATS(F16), FLOATS(BF16), QUANTIZED(Q4_0),
        QUANTIZED(Q4_1), QUANTIZED(Q5_0), QUANTIZED(Q5_1), QUANTIZED(Q8_0),
        QUANTIZED(Q2_K), QUANTIZED(Q3_K), QUANTIZED(Q4_K), QUANTIZED(Q5_K),
        QUANTIZED(Q6_K), QUANTIZED(IQ4_NL), QUANTIZED(IQ4_XS)},
#undef FLOATS
#undef QUANTIZED
#if defined KS_SCALAR
#define ANY(step) {k_##step##_scalar, k_##step##_scalar, k_##step##_scalar}
#define CACHES(step) {ANY(step##_any), ANY(step##_any), ANY(step##_any)}
#else
#define GROUPS(of, step, one, two, four)                                       \
    {of(k_##step##one), of(k_##step##two), of(k_##step##four)}
#define CACHES(step)                                                           \
    {GROUPS(KS_FLOATS, step, _F32, _F32, 4_F32),                               \
        GROUPS(KS_FLOATS, step, 1_F16, 2_F16, 4_F16),                          \
        GROUPS(KS_CACHE_I8, step, 1_I8, 2_I8, 4_I8)}
#endif
    .scores = CACHES(scores),
    .values = CACHES(values),
#undef CACHES
#undef GROUPS
#undef ANY
    .softmax = KS_FLOATS(k_softmax),
    .shares = KS_CACHE_I8(k_shares),
    .to_i8 = KS_FLOATS(k_to_i8),
    .hadamard = KS_FLOATS(k_hadamard),
    .gate = KS_FLOATS(k_gate),
    .to_f16 = KS_FLOATS(k_to_f16),
    .max = KS_FLOATS(k_max),
    .sum_exp = KS_FLOATS(k_sum_exp),
};

#undef KS_FLOATS
#undef KS_CACHE_I8
#undef V_INLINE
#undef V_UNROLL
#undef V_WIDTH
#undef VI_WIDTH
#undef VI_OFFSET
#undef LANES
#undef X_READ_HEADS
#undef KS_ISA
#undef KS_SCALAR
#undef KS_AVX2
#undef KS_VNNI
#undef KS_AVXVNNI
#undef KS_NEON
#undef KS_DOTPROD
#undef KS_I8MM
#undef KS_BASE
#undef KS_BASE_I8
#if defined KS_FOR
KS_TARGET_END
#undef KS_FOR
#endif

/* ---- 7h the passes ----
 * KS_FOR is what the compiler is told to use; the end of a pass forgets all
 * that its row defined. */

#if defined KS_FIRST_PASS
#undef KS_FIRST_PASS

#if !defined KSLLM_SELF
#define KSLLM_SELF "ksllm.c" /* define it if you rename this file */
#endif

#define KS_IS_avx2 1
#define KS_IS_avx512vnni 2
#define KS_IS_avxvnni 3
#define KS_IS_neon 4
#define KS_IS_dotprod 5
#define KS_IS_i8mm 6
#if defined KSLLM_ISA_ONLY
#define KS_ROW(isa) (KS_PASTE(KS_IS, KSLLM_ISA_ONLY) == KS_IS_##isa)
#else
#define KS_ROW(isa) 1
#endif

#if defined KS_X86 && KS_ROW(avx2)
#define KS_ISA avx2
#define KS_FOR "avx2,fma,f16c"
#define KS_AVX2 1
#include KSLLM_SELF
#endif
#if defined KS_X86 && KS_ROW(avx512vnni)
#define KS_ISA avx512vnni
#define KS_FOR KS_HAS_AVX512
#define KS_BASE avx2
#define KS_AVX2 1
#define KS_VNNI 1
#include KSLLM_SELF
#endif
#if defined KS_HAS_AVXVNNI && KS_ROW(avxvnni)
#define KS_ISA avxvnni
#define KS_FOR KS_HAS_AVXVNNI
#define KS_BASE avx2
#define KS_BASE_I8 avx2
#define KS_AVX2 1
#define KS_VNNI 1
#define KS_AVXVNNI 1
#include KSLLM_SELF
#endif
#if defined KS_ARM64 && KS_ROW(neon)
#define KS_ISA neon
#define KS_NEON 1
#include KSLLM_SELF
#endif
#if defined KS_HAS_DOTPROD && KS_ROW(dotprod)
#define KS_ISA dotprod
#define KS_FOR KS_HAS_DOTPROD
#define KS_BASE neon
#define KS_NEON 1
#define KS_DOTPROD 1
#include KSLLM_SELF
#endif
#if defined KS_HAS_I8MM && KS_ROW(i8mm)
#define KS_ISA i8mm
#define KS_FOR KS_HAS_I8MM
#define KS_BASE neon
#define KS_BASE_I8 dotprod
#define KS_NEON 1
#define KS_DOTPROD 1
#define KS_I8MM 1
#include KSLLM_SELF
#endif

/* ---- 7i the table, best first ---- */

static const k_row *const K_TABLE[] = {
#if defined KS_X86 && KS_ROW(avx512vnni)
    &K_TABLE_ROW_avx512vnni,
#endif
#if defined KS_HAS_AVXVNNI && KS_ROW(avxvnni)
    &K_TABLE_ROW_avxvnni,
#endif
#if defined KS_X86 && KS_ROW(avx2)
    &K_TABLE_ROW_avx2,
#endif
#if defined KS_HAS_I8MM && KS_ROW(i8mm)
    &K_TABLE_ROW_i8mm,
#endif
#if defined KS_HAS_DOTPROD && KS_ROW(dotprod)
    &K_TABLE_ROW_dotprod,
#endif
#if defined KS_ARM64 && KS_ROW(neon)
    &K_TABLE_ROW_neon,
#endif
    &K_TABLE_ROW_scalar,
};
#if defined KSLLM_ISA_ONLY && !defined KSLLM_NO_SIMD
_Static_assert(KS_LEN(K_TABLE) == 2,
    "KSLLM_ISA_ONLY names no instruction set of this machine and compiler");
#endif

/* The index-th row that this CPU can run; NULL after the last. */
static const k_row *k_at(size_t index) {
    u32 have = cpu_features();
    for (size_t i = 0; i < KS_LEN(K_TABLE); i++)
        if ((K_TABLE[i]->needs & have) == K_TABLE[i]->needs && index-- == 0)
            return K_TABLE[i];
    return NULL;
}

/* The best row that this CPU can run, or the named one; NULL if neither. */
static const k_row *k_choose(const char *name) {
    const k_row *k = k_at(0);
    for (size_t i = 1; k && name && strcmp(name, k->name) != 0; i++)
        k = k_at(i);
    return k;
}

/* ---- 7j attention over all keys ---- */

/* Fetches what token t of a->m has to fetch of the block from position b on. */
static void k_fetch_block(const k_query *a, size_t t, size_t b) {
    const size_t slot = b % a->n_slots, m = a->m;
    const size_t k = K_KEYS * a->k_stride, v = K_KEYS * a->v_stride;
    const size_t k0 = k * t / m, v0 = v * t / m;
    k_fetch(a->k + slot * a->k_stride + k0, k * (t + 1) / m - k0);
    if (a->v != a->k)
        k_fetch(a->v + slot * a->v_stride + v0, v * (t + 1) / m - v0);
}

/* The block of keys from position at on, for the heads of token t. */
static void k_attend_block(const k_row *k, const k_query *a, size_t t,
    size_t at, f32 *max, f32 *sum) {
    const size_t hi = a->hi + t, log_group = a->group / 2;
    size_t lo = a->window && hi > a->window ? hi - a->window : 0;
    if (at >= hi || at + K_KEYS <= lo) return;
    k_keys b;
    b.t = t;
    b.slot = at % a->n_slots;
    b.first = at < lo ? lo - at : 0;
    b.n = min_size(K_KEYS, hi - at) - b.first;
    k->scores[a->kind][log_group](a, &b);
    for (size_t g = 0; g < a->group; g++) {
        b.keep[g] = k->softmax(b.s[g], b.first, b.n, &max[g], &sum[g]);
        if (a->kind == K_I8)
            b.share[g] = k->shares(
                b.s[g], a->v_scale + b.slot, b.first, b.n, b.s8[g]);
    }
    k->values[a->kind][log_group](a, &b);
}

/* Softmax over blocks of K_KEYS keys at fixed positions, with a running
 * maximum (Milakov and Gimelshein 2018). Every block is computed as a whole:
 * keys that a token does not see count as probability 0. */
static void k_attend(const k_row *k, const k_query *a) {
    f32 max[K_QUERIES][4], sum[K_QUERIES][4];
    size_t lo = a->window && a->hi > a->window ? a->hi - a->window : 0;
    for (size_t t = 0; t < a->m; t++)
        for (size_t g = 0; g < a->group; g++) {
            memset(k_out(a, t, g), 0, a->value_dim * sizeof(f32));
            max[t][g] = -FLT_MAX, sum[t][g] = 0;
        }
    for (size_t b = lo / K_KEYS * K_KEYS; b < a->hi + a->m; b += K_KEYS)
        for (size_t t = 0; t < a->m; t++) {
            if (b + K_KEYS < a->hi + a->m) k_fetch_block(a, t, b + K_KEYS);
            k_attend_block(k, a, t, b, max[t], sum[t]);
        }
    for (size_t t = 0; t < a->m; t++)
        for (size_t g = 0; g < a->group; g++) {
            f32 *out = k_out(a, t, g), scale = 1.0f / sum[t][g];
            for (size_t i = 0; i < a->value_dim; i++) out[i] *= scale;
        }
}

/* ==========================================================================
 * § 8 GGUF (private)
 * The file format: metadata and tensor directory. Everything that a file says
 * about itself is checked here, in 64-bit arithmetic that cannot wrap, against
 * the bytes that exist, before memory is taken for it; later sections trust
 * it. Nothing is copied: keys, strings and arrays point into the file.
 * May use § 1-3 and § 6.
 *
 *   "GGUF"  u32 version  u64 n_tensors  u64 n_kv
 *   n_kv times:      string key   u32 type   value
 *   n_tensors times: string name  u32 n_dims  u64 dims[n_dims]  u32 type
 *                    u64 offset from the data section
 *   padding to general.alignment, then the data section
 *   string = u64 length, bytes; array = u32 item type, u64 count, items
 * ======================================================================== */

enum { /* limits on what a header may ask for; real files stay far below */
    GGUF_MAX_KV = 1 << 16,
    GGUF_MAX_TENSORS = 1 << 17,
    GGUF_MAX_NAME = 1 << 10,
    GGUF_MAX_PARTS = 1 << 10,
    GGUF_MAX_ALIGNMENT = 1 << 20,
};

typedef struct {
    str key;
    u32 type;  /* ksllm_meta_type */
    u32 item;  /* of an array; otherwise = type */
    u64 count; /* of an array; otherwise 1 */
    const u8 *data;
    u64 offset; /* of data in the file, for messages */
} gguf_kv;

typedef struct {
    str name;
    u32 type; /* ksllm_type; an unknown one is refused */
    u32 n_dims;
    u64 dims[4];
    u64 n_rows; /* product of dims[1..] */
    u64 row_bytes, bytes;
    u64 offset; /* in its file */
    u64 entry;  /* where the directory names it, for messages */
    u32 part;
    const u8 *data; /* NULL when only the vocabulary is wanted */
} gguf_tensor;

typedef struct {
    os_file file;
    u64 data; /* where the data section begins */
} gguf_part;

typedef struct {
    str name; /* for messages */
    u32 n_parts, n_kv, n_tensors;
    gguf_part *parts;
    gguf_kv *kv;
    gguf_tensor *tensors;
    u32 *kv_order, *tensor_order; /* by key, by name */
    u32 version;
    u64 alignment;
    u64 file_bytes, weight_bytes, n_parameters; /* of all parts */
    bool vocab_only, in_memory;
    size_t kv_bytes, tensor_bytes, part_bytes; /* of the allocations */
} gguf;

/* As fail, with the file's name before the text. */
static KS_PRINTF(5, 6) ksllm_status gguf_fail(const gguf *g, ksllm_error *err,
    ksllm_status status, u64 offset, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail_va(err, status, offset, g->name, fmt, ap);
    va_end(ap);
    return status;
}

/* ---- a cursor with a sticky error ---- */

typedef struct {
    const u8 *p;
    u64 n, at;
    bool bad;
} gguf_cursor;

/* The next n bytes; NULL, and `bad` from now on, if there are fewer. */
static const u8 *gguf_take(gguf_cursor *c, u64 n) {
    if (c->bad || n > c->n - c->at) {
        c->bad = true;
        return NULL;
    }
    const u8 *p = c->p + c->at;
    c->at += n;
    return p;
}

static u32 gguf_take_u32(gguf_cursor *c) {
    const u8 *p = gguf_take(c, 4);
    return p ? ld_u32(p) : 0;
}

static u64 gguf_take_u64(gguf_cursor *c) {
    const u8 *p = gguf_take(c, 8);
    return p ? ld_u64(p) : 0;
}

static str gguf_take_str(gguf_cursor *c) {
    u64 n = gguf_take_u64(c);
    const u8 *p = gguf_take(c, n);
    return p ? (str){(const char *)p, (size_t)n} : (str){NULL, 0};
}

/* Bytes of a scalar of that type; 0 for text, arrays and unknown types. */
static u32 gguf_scalar_bytes(u32 type) {
    static const u8 bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < KS_LEN(bytes) ? bytes[type] : 0;
}

/* ---- metadata ---- */

static ksllm_status gguf_cut(
    const gguf *g, const gguf_cursor *c, ksllm_error *err, const char *what) {
    return gguf_fail(g, err, KSLLM_ERR_FORMAT, c->at,
        "the file ends inside %s at byte %llu; it is truncated or damaged, "
        "fetch it again", what, LLU(c->at));
}

/* As gguf_take_str n times, but faster: a vocabulary and its merges have
 * 400,000 strings, and opening a model should cost milliseconds. */
static void gguf_skip_strings(gguf_cursor *c, u64 n) {
    const u8 *p = c->p + c->at;
    u64 left = c->n - c->at;
    for (; n > 0 && left >= 8 && ld_u64(p) <= left - 8; n--) {
        left -= 8 + ld_u64(p);
        p += 8 + ld_u64(p);
    }
    c->at = c->n - left;
    c->bad = c->bad || n > 0;
}

/* The one place that decides how many bytes a value has: whoever reads
 * kv->data later trusts count and item. */
static ksllm_status gguf_read_value(
    const gguf *g, gguf_cursor *c, gguf_kv *kv, ksllm_error *err) {
    if (kv->type == KSLLM_META_ARRAY) {
        kv->item = gguf_take_u32(c);
        kv->count = gguf_take_u64(c);
    }
    kv->offset = c->at;
    kv->data = c->p + c->at;
    u32 bytes = gguf_scalar_bytes(kv->item);
    u64 total;
    if (c->bad) return gguf_cut(g, c, err, "the metadata");
    if (kv->item == KSLLM_META_TEXT)
        gguf_skip_strings(c, kv->count);
    else if (!bytes)
        return gguf_fail(g, err, KSLLM_ERR_UNSUPPORTED, kv->offset,
            "metadata key '%.*s' has value type %u, which is unknown%s",
            STR(kv->key), (unsigned)kv->item,
            kv->item == KSLLM_META_ARRAY ? " (an array of arrays)" : "");
    else if (mul_ok(kv->count, bytes, &total))
        gguf_take(c, total);
    else
        c->bad = true;
    if (c->bad)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, kv->offset,
            "the value of metadata key '%.*s' (%llu items) reaches past the "
            "end of the file; it is truncated or damaged, fetch it again",
            STR(kv->key), LLU(kv->count));
    return KSLLM_OK;
}

static ksllm_status gguf_read_kv(
    const gguf *g, gguf_cursor *c, gguf_kv *kv, ksllm_error *err) {
    u64 at = c->at;
    *kv = (gguf_kv){.key = gguf_take_str(c), .count = 1};
    if (c->bad) return gguf_cut(g, c, err, "a metadata key");
    if (!kv->key.n || kv->key.n > GGUF_MAX_NAME)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, at,
            "a metadata key of %llu bytes (1 to %d are allowed)",
            LLU(kv->key.n), GGUF_MAX_NAME);
    kv->type = kv->item = gguf_take_u32(c);
    return gguf_read_value(g, c, kv, err);
}

/* The string at *p; moves *p past it. Only on arrays that were checked. */
static str gguf_next_str(const u8 **p) {
    size_t n = (size_t)ld_u64(*p);
    str s = {(const char *)*p + 8, n};
    *p += 8 + n;
    return s;
}

/* ---- names: found by binary search, refused twice ---- */

/* Metadata keys or tensors; both structs begin with their name. */
typedef struct {
    const void *items;
    size_t size; /* of an item */
    u32 n;
    u32 *order; /* by name; has room for n more, which sorting needs */
} gguf_names;

static gguf_names gguf_keys(const gguf *g) {
    return (gguf_names){g->kv, sizeof *g->kv, g->n_kv, g->kv_order};
}

static gguf_names gguf_tensors(const gguf *g) {
    return (gguf_names){
        g->tensors, sizeof *g->tensors, g->n_tensors, g->tensor_order};
}

static str gguf_name_at(const gguf_names *x, u32 i) {
    return *(const str *)(const void *)((const u8 *)x->items + i * x->size);
}

static bool gguf_less_name(const void *ctx, u32 a, u32 b) {
    return str_cmp(gguf_name_at(ctx, a), gguf_name_at(ctx, b)) < 0;
}

/* Makes the order. Returns an item whose name another one has; -1: none. */
static i64 gguf_sort_names(gguf_names x) {
    for (u32 i = 0; i < x.n; i++) x.order[i] = i;
    if (x.n) sort_u32(x.order, x.order + x.n, x.n, gguf_less_name, &x);
    for (u32 i = 1; i < x.n; i++)
        if (str_eq(gguf_name_at(&x, x.order[i]),
                gguf_name_at(&x, x.order[i - 1])))
            return x.order[i];
    return -1;
}

static i64 gguf_search(gguf_names x, str name) {
    u32 lo = 0, hi = x.n;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        int c = str_cmp(gguf_name_at(&x, x.order[mid]), name);
        if (!c) return x.order[mid];
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return -1;
}

/* NULL if there is none. */
static const gguf_kv *gguf_find(const gguf *g, const char *key) {
    i64 i = gguf_search(gguf_keys(g), str_of(key));
    return i < 0 ? NULL : &g->kv[i];
}

static const gguf_tensor *gguf_find_tensor(const gguf *g, str name) {
    i64 i = gguf_search(gguf_tensors(g), name);
    return i < 0 ? NULL : &g->tensors[i];
}

/* ---- values ---- */

/* Item i of a value as an integer; false if its type is neither an integer
 * nor bool. A u64 from 2^63 comes out negative. */
static bool gguf_int_at(const gguf_kv *kv, u64 i, i64 *out) {
    const u8 *p = kv->data;
    switch (kv->item) {
    case KSLLM_META_U8: *out = p[i]; return true;
    case KSLLM_META_BOOL: *out = p[i] != 0; return true;
    case KSLLM_META_I8: *out = (i8)p[i]; return true;
    case KSLLM_META_U16: *out = ld_u16(p + 2 * i); return true;
    case KSLLM_META_I16: *out = ld_i16(p + 2 * i); return true;
    case KSLLM_META_U32: *out = ld_u32(p + 4 * i); return true;
    case KSLLM_META_I32: *out = ld_i32(p + 4 * i); return true;
    case KSLLM_META_U64: case KSLLM_META_I64:
        *out = ld_i64(p + 8 * i);
        return true;
    default: return false;
    }
}

static bool gguf_num_at(const gguf_kv *kv, u64 i, f64 *out) {
    i64 v;
    if (gguf_int_at(kv, i, &v)) {
        *out = kv->item == KSLLM_META_U64 ? (f64)(u64)v : (f64)v;
        return true;
    }
    if (kv->item == KSLLM_META_F32) *out = (f64)ld_f32(kv->data + 4 * i);
    else if (kv->item == KSLLM_META_F64) *out = ld_f64(kv->data + 8 * i);
    else return false;
    return true;
}

static bool gguf_get_int(const gguf *g, const char *key, i64 *out) {
    const gguf_kv *kv = gguf_find(g, key);
    return kv && kv->type != KSLLM_META_ARRAY && gguf_int_at(kv, 0, out);
}

/* NULL without the key, or with one of another type. */
static str gguf_text(const gguf_kv *kv) {
    if (!kv || kv->type != KSLLM_META_TEXT) return (str){NULL, 0};
    const u8 *p = kv->data;
    return gguf_next_str(&p);
}

static str gguf_get_str(const gguf *g, const char *key) {
    return gguf_text(gguf_find(g, key));
}

/* ---- tensors ---- */

/* Rows, and bytes, of a tensor whose dimensions may be anything. A row must be
 * whole blocks: readers and kernels have no code for a remainder. */
static ksllm_status gguf_tensor_size(
    const gguf *g, gguf_tensor *t, u64 at, ksllm_error *err) {
    const blk_type *type = blk_type_of(t->type);
    if (!type)
        return gguf_fail(g, err, KSLLM_ERR_UNSUPPORTED, at,
            "tensor '%.*s' has type number %u, which this version does not "
            "read; quantize the model to Q4_K or Q8_0 instead", STR(t->name),
            (unsigned)t->type);
    bool ok = t->dims[0] > 0 && t->dims[0] % type->n == 0;
    t->n_rows = 1;
    for (u32 i = 1; i < 4; i++)
        ok = ok && t->dims[i] > 0 && mul_ok(t->n_rows, t->dims[i], &t->n_rows);
    ok = ok && mul_ok(t->dims[0] / type->n, type->bytes, &t->row_bytes)
        && mul_ok(t->row_bytes, t->n_rows, &t->bytes);
    if (ok) return KSLLM_OK;
    return gguf_fail(g, err, KSLLM_ERR_FORMAT, at,
        "tensor '%.*s' has impossible dimensions %llu x %llu x %llu x %llu for "
        "type %s (blocks of %u)", STR(t->name), LLU(t->dims[0]),
        LLU(t->dims[1]), LLU(t->dims[2]), LLU(t->dims[3]), type->name,
        (unsigned)type->n);
}

static ksllm_status gguf_read_tensor(
    const gguf *g, gguf_cursor *c, gguf_tensor *t, ksllm_error *err) {
    u64 at = c->at;
    *t = (gguf_tensor){
        .name = gguf_take_str(c), .entry = at, .dims = {1, 1, 1, 1}};
    t->n_dims = gguf_take_u32(c);
    if (c->bad) return gguf_cut(g, c, err, "the list of tensors");
    if (!t->name.n || t->name.n > GGUF_MAX_NAME || !t->n_dims || t->n_dims > 4)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, at,
            "tensor '%.*s' has a name of %llu bytes and %u dimensions (1 to 4 "
            "are allowed)", STR(t->name), LLU(t->name.n), (unsigned)t->n_dims);
    for (u32 i = 0; i < t->n_dims; i++) t->dims[i] = gguf_take_u64(c);
    t->type = gguf_take_u32(c);
    t->offset = gguf_take_u64(c);
    if (c->bad) return gguf_cut(g, c, err, "the list of tensors");
    return gguf_tensor_size(g, t, at, err);
}

/* Gives a tensor its place in the file, once the data section is known. With
 * only the vocabulary wanted it gets none, and the file may end before it. */
static ksllm_status gguf_place_tensor(
    const gguf *g, gguf_tensor *t, u32 part, ksllm_error *err) {
    const gguf_part *p = &g->parts[part];
    u64 end;
    t->part = part;
    if (t->offset % g->alignment)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, t->entry,
            "tensor '%.*s' lies at offset %llu, which is no multiple of the "
            "alignment %llu", STR(t->name), LLU(t->offset), LLU(g->alignment));
    bool ok = add_ok(t->offset, p->data, &t->offset)
        && add_ok(t->offset, t->bytes, &end);
    if (g->vocab_only) return KSLLM_OK;
    if (!ok || end > p->file.n)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, t->entry,
            "tensor '%.*s' (%llu bytes at %llu) reaches past the end of the "
            "file (%llu bytes); it is truncated, fetch it again", STR(t->name),
            LLU(t->bytes), LLU(t->offset), LLU(p->file.n));
    t->data = p->file.p + t->offset;
    return KSLLM_OK;
}

static bool gguf_less_place(const void *ctx, u32 a, u32 b) {
    const gguf *g = ctx;
    return g->tensors[a].offset < g->tensors[b].offset;
}

/* Of the n tensors of one part, from number `first` on: no two may share
 * bytes. Such a file is damaged, or made to confuse. */
static ksllm_status gguf_check_overlap(
    const gguf *g, u32 first, u32 n, ksllm_error *err) {
    u32 *order = g->tensor_order; /* not made yet */
    if (!n) return KSLLM_OK;
    for (u32 i = 0; i < n; i++) order[i] = first + i;
    sort_u32(order, order + n, n, gguf_less_place, g);
    for (u32 i = 1; i < n; i++) {
        const gguf_tensor *a = &g->tensors[order[i - 1]];
        const gguf_tensor *b = &g->tensors[order[i]];
        if (b->offset - a->offset < a->bytes)
            return gguf_fail(g, err, KSLLM_ERR_FORMAT, b->offset,
                "tensors '%.*s' and '%.*s' overlap at byte %llu", STR(a->name),
                STR(b->name), LLU(b->offset));
    }
    return KSLLM_OK;
}

/* ---- parts ---- */

typedef struct {
    gguf_cursor c;
    u64 n_tensors, n_kv;
    u32 version;
} gguf_header;

static ksllm_status gguf_read_header(
    const gguf *g, const os_file *f, gguf_header *h, ksllm_error *err) {
    h->c = (gguf_cursor){f->p, f->n, 0, false};
    const u8 *magic = gguf_take(&h->c, 4);
    static const char lfs[] = "version https://git-lfs";
    if (f->n >= sizeof lfs && !memcmp(f->p, lfs, sizeof lfs - 1))
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, 0,
            "a git-LFS pointer in place of the file: fetch that with 'git lfs "
            "pull'");
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, 0,
            "not a GGUF file (it does not begin with 'GGUF')");
    h->version = gguf_take_u32(&h->c);
    h->n_tensors = gguf_take_u64(&h->c);
    h->n_kv = gguf_take_u64(&h->c);
    if (h->c.bad) return gguf_cut(g, &h->c, err, "the header");
    if (h->version < 2 || h->version > 3)
        return gguf_fail(g, err, KSLLM_ERR_UNSUPPORTED, 4,
            "GGUF version %u%s; versions 2 and 3 in little endian can be read, "
            "convert the file again", (unsigned)h->version,
            h->version >> 24 ? " (a big-endian file)" : "");
    /* Each entry takes some bytes: counts beyond that are lies. */
    if (h->n_kv > GGUF_MAX_KV || h->n_kv > f->n / 13)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, 16,
            "the header counts %llu metadata keys, more than the file can hold",
            LLU(h->n_kv));
    if (h->n_tensors > GGUF_MAX_TENSORS || h->n_tensors > f->n / 32)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, 8,
            "the header counts %llu tensors, more than the file can hold",
            LLU(h->n_tensors));
    return KSLLM_OK;
}

static ksllm_status gguf_read_alignment(gguf *g, ksllm_error *err) {
    const gguf_kv *kv = gguf_find(g, "general.alignment");
    i64 v = 32;
    if (kv && (kv->type != KSLLM_META_U32 || !gguf_int_at(kv, 0, &v) || v <= 0
            || (v & (v - 1)) || v > GGUF_MAX_ALIGNMENT))
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, kv->offset,
            "general.alignment must be a power of two of type u32, %d at most",
            GGUF_MAX_ALIGNMENT);
    g->alignment = (u64)v;
    return KSLLM_OK;
}

/* Reads the n tensors of part `part`, whose metadata ends at the cursor, after
 * those of earlier parts, and finds its data section. */
static ksllm_status gguf_read_tensors(
    gguf *g, u32 part, gguf_cursor *c, u32 n, ksllm_error *err) {
    gguf_tensor *t = n ? g->tensors + g->n_tensors : NULL;
    for (u32 i = 0; i < n; i++) TRY(gguf_read_tensor(g, c, &t[i], err));
    u64 pad = (g->alignment - c->at % g->alignment) % g->alignment;
    g->parts[part].data = c->at + pad;
    for (u32 i = 0; i < n; i++) TRY(gguf_place_tensor(g, &t[i], part, err));
    TRY(gguf_check_overlap(g, g->n_tensors, n, err));
    g->n_tensors += n;
    g->file_bytes += g->parts[part].file.n;
    for (u32 i = 0; i < n; i++) {
        g->weight_bytes += t[i].bytes;
        g->n_parameters += t[i].dims[0] * t[i].n_rows;
    }
    return KSLLM_OK;
}

/* Entries, then their order with as much room again (gguf_names). */
static ksllm_status gguf_alloc_kv(
    gguf *g, u64 n, const ksllm_allocator *a, ksllm_error *err) {
    g->kv_bytes = (size_t)n * (sizeof *g->kv + 2 * sizeof(u32));
    g->kv = mem_alloc(a, g->kv_bytes);
    if (n && !g->kv) return fail_memory(err, g->kv_bytes);
    g->kv_order = n ? (u32 *)(void *)(g->kv + n) : NULL;
    g->n_kv = (u32)n;
    return KSLLM_OK;
}

static ksllm_status gguf_alloc_tensors(
    gguf *g, u64 n, const ksllm_allocator *a, ksllm_error *err) {
    g->tensor_bytes = (size_t)n * (sizeof *g->tensors + 2 * sizeof(u32));
    g->tensors = mem_alloc(a, g->tensor_bytes);
    if (n && !g->tensors) return fail_memory(err, g->tensor_bytes);
    g->tensor_order = n ? (u32 *)(void *)(g->tensors + n) : NULL;
    return KSLLM_OK;
}

static void gguf_close(gguf *g, const ksllm_allocator *a) {
    for (u32 i = 0; i < g->n_parts; i++) os_close(&g->parts[i].file, a);
    mem_free(a, g->parts, g->part_bytes);
    mem_free(a, g->kv, g->kv_bytes);
    mem_free(a, g->tensors, g->tensor_bytes);
    *g = (gguf){0};
}

/* "dir/model-00001-of-00003.gguf" to the name of part i, in place. */
static void gguf_part_name(char *path, size_t n, u32 i) {
    char digits[8];
    snprintf(digits, sizeof digits, "%05u", (unsigned)(i % 100000));
    memcpy(path + n - strlen("00001-of-00003.gguf"), digits, 5);
}

static bool gguf_is_part_name(const char *path, size_t n, u32 count) {
    char tail[32];
    snprintf(tail, sizeof tail, "-00001-of-%05u.gguf",
        (unsigned)(count % 100000));
    size_t k = strlen(tail);
    return n > k && memcmp(path + n - k, tail, k) == 0;
}

/* Checks the metadata of a further part and forgets it, except split.no. */
static ksllm_status gguf_skim_kv(
    gguf *g, gguf_header *h, u32 part, ksllm_error *err) {
    i64 no = -1;
    for (u64 i = 0; i < h->n_kv; i++) {
        gguf_kv kv;
        TRY(gguf_read_kv(g, &h->c, &kv, err));
        if (str_eq(kv.key, str_of("split.no"))) gguf_int_at(&kv, 0, &no);
    }
    if (no == (i64)part) return KSLLM_OK;
    return gguf_fail(g, err, KSLLM_ERR_FORMAT, 0,
        "split.no says this is part %lld, its name says %u", (long long)no + 1,
        (unsigned)part + 1);
}

static ksllm_status gguf_open_part(gguf *g, u32 i, const char *path,
    u32 n_room, const ksllm_allocator *a, ksllm_error *err) {
    gguf_header h;
    TRY(os_open(path, g->in_memory ? a : NULL, &g->parts[i].file, err));
    TRY(gguf_read_header(g, &g->parts[i].file, &h, err));
    if (h.n_tensors > n_room)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, 8,
            "the parts hold more tensors than split.tensors.count says");
    TRY(gguf_skim_kv(g, &h, i, err));
    return gguf_read_tensors(g, i, &h.c, (u32)h.n_tensors, err);
}

static ksllm_status gguf_open_parts(gguf *g, const char *path, u32 n_tensors,
    const ksllm_allocator *a, ksllm_error *err) {
    size_t n = strlen(path);
    if (!gguf_is_part_name(path, n, g->n_parts))
        return gguf_fail(g, err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
            "one of %u parts; open the first one, named "
            "...-00001-of-%05u.gguf, with the others beside it",
            (unsigned)g->n_parts, (unsigned)g->n_parts);
    char *name = mem_alloc(a, n + 1);
    if (!name) return fail_memory(err, n + 1);
    memcpy(name, path, n + 1);
    str first = g->name;
    g->name = (str){name, n};
    ksllm_status status = KSLLM_OK;
    for (u32 i = 1; i < g->n_parts && !status; i++) {
        gguf_part_name(name, n, i + 1);
        status = gguf_open_part(
            g, i, name, n_tensors - g->n_tensors, a, err);
    }
    g->name = first;
    mem_free(a, name, n + 1);
    if (!status && g->n_tensors != n_tensors)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, 8,
            "the parts hold %u tensors, split.tensors.count says %u",
            (unsigned)g->n_tensors, (unsigned)n_tensors);
    return status;
}

/* How many parts and tensors the first part's metadata announces. */
static ksllm_status gguf_read_split(
    const gguf *g, u64 *n_parts, u64 *n_tensors, ksllm_error *err) {
    i64 parts = 1, no = 0, total = 0;
    gguf_get_int(g, "split.count", &parts);
    gguf_get_int(g, "split.no", &no);
    *n_parts = 1;
    if (parts <= 1) return KSLLM_OK;
    gguf_get_int(g, "split.tensors.count", &total);
    if (parts > GGUF_MAX_PARTS || no != 0 || total < (i64)*n_tensors
        || total > GGUF_MAX_TENSORS)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
            "split.no %lld of split.count %lld with split.tensors.count %lld: "
            "open the first part, or merge them", (long long)no,
            (long long)parts, (long long)total);
    *n_parts = (u64)parts;
    *n_tensors = (u64)total;
    return KSLLM_OK;
}

/* Makes room for all parts; the first keeps its mapping. */
static ksllm_status gguf_grow_parts(
    gguf *g, u32 n_parts, const ksllm_allocator *a, ksllm_error *err) {
    size_t bytes = n_parts * sizeof *g->parts;
    gguf_part *parts = mem_alloc(a, bytes);
    if (!parts) return fail_memory(err, bytes);
    memset(parts, 0, bytes);
    parts[0] = g->parts[0];
    mem_free(a, g->parts, g->part_bytes);
    g->parts = parts;
    g->part_bytes = bytes;
    g->n_parts = n_parts;
    return KSLLM_OK;
}

/* Opens what `file` maps; path is NULL for memory and descriptors, which
 * cannot lead to further parts. Takes the file over. On failure the caller
 * closes g. */
static ksllm_status gguf_open(gguf *g, os_file file, const char *path,
    const ksllm_allocator *a, ksllm_error *err) {
    g->part_bytes = sizeof *g->parts;
    g->parts = mem_alloc(a, g->part_bytes);
    if (!g->parts) {
        os_close(&file, a);
        return fail_memory(err, g->part_bytes);
    }
    g->parts[0] = (gguf_part){file, 0};
    g->n_parts = 1;
    gguf_header h;
    TRY(gguf_read_header(g, &file, &h, err));
    g->version = h.version;
    TRY(gguf_alloc_kv(g, h.n_kv, a, err));
    for (u32 i = 0; i < g->n_kv; i++)
        TRY(gguf_read_kv(g, &h.c, &g->kv[i], err));
    i64 twice = gguf_sort_names(gguf_keys(g));
    if (twice >= 0)
        return gguf_fail(g, err, KSLLM_ERR_FORMAT, g->kv[twice].offset,
            "metadata key '%.*s' occurs twice", STR(g->kv[twice].key));
    TRY(gguf_read_alignment(g, err));
    u64 n_parts, n_tensors = h.n_tensors;
    TRY(gguf_read_split(g, &n_parts, &n_tensors, err));
    bool split = n_parts > 1 && !g->vocab_only;
    if (split && !path)
        return gguf_fail(g, err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "a split model can only be opened by path");
    if (split) TRY(gguf_grow_parts(g, (u32)n_parts, a, err));
    if (!split) n_tensors = h.n_tensors;
    TRY(gguf_alloc_tensors(g, n_tensors, a, err));
    TRY(gguf_read_tensors(g, 0, &h.c, (u32)h.n_tensors, err));
    if (split) TRY(gguf_open_parts(g, path, (u32)n_tensors, a, err));
    twice = gguf_sort_names(gguf_tensors(g));
    if (twice < 0) return KSLLM_OK;
    const gguf_tensor *t = &g->tensors[twice];
    return gguf_fail(g, err, KSLLM_ERR_FORMAT, t->entry,
        "tensor '%.*s' occurs twice", STR(t->name));
}

/* ==========================================================================
 * § 9 TEXT (private)
 * UTF-8, classes of characters, composition of Hangul, NFC, units of a stream.
 * Pure functions on bytes: they call nothing but memcpy, hold nothing and
 * cannot fail. Uses § 2 alone.
 * The one decision: bytes that are not UTF-8 are never an error here. Each
 * maximal subpart (Unicode 3.9, as in Rust and Python) counts as one character
 * TXT_BAD.
 *
 * tests/tools/make_unicode.py prints the tables. Classes and grapheme clusters
 * are of Unicode 16.0, NFC is of 9.0, as in Hugging Face tokenizers 0.20 to
 * 0.23. A table is a string, for a number in hexadecimal takes twice the
 * columns: numbers of 1 to 6 digits, 6 bits a digit, the highest first. The
 * digits are '>' to '~' without the backslash; in TXT_CLASS they begin at '('.
 * ======================================================================== */

/* What txt_next gives for bytes that are no character. Its class is OTHER. */
enum { TXT_BAD = 0x7fffffff };

/* What the pre-tokenizers tell apart. UPPER is Lu and Lt, LETTER is Lm and Lo
 * (Hangul), SPACE is White_Space, OTHER is the rest: controls, unassigned. */
typedef enum txt_class {
    TXT_OTHER, TXT_UPPER, TXT_LOWER, TXT_LETTER, TXT_MARK, TXT_NUMBER,
    TXT_PUNCT, TXT_SYMBOL, TXT_SPACE
} txt_class;

/* Classes below U+80, a digit from '0' on each. */
static const char TXT_ASCII[2][65] = {
    "0000000008888800000000000000000086667666666766665555555555667776",
    "6111111111111111111111111116667672222222222222222222222222267670",
};

/* Classes below U+20000 are found in three steps, as many code points have
 * those of others. Two digits for each 256 say which part of TXT_BLOCK they
 * have. */
static const char TXT_PAGE[16][65] = {
    ">>>?>@>A>B>C>D>E>F>G>H>I>J>K>L>M>N>O>P>Q>R>O>S>T>U>V>W>X>Y>Z>[>]",
    ">^>_>`>a>b>`>`>c>`>d>`>e>f>g>h>i>j>k>l>`>O>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O>O>O>O>O>O>O>O>O>O>O>m>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O>O>n>O>o>p>q>r>s>t>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>u>v>v>v>v>v>v>v>v",
    ">v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>O>w>x>O>y>z>{",
    ">|>}>~?>???@>O?A?B?C?D?E?F?G?H?I?J?K?L?M?N?O?P?Q?R?S?T?U?V?W?X?Y",
    ">O>O>O?Z?[?]>v>v>v>v>v>v>v>v>v?^>O>O>O>O?_>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O?`>O>O?a>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v",
    ">v?b>v>v>v>v>v>v>O>O?c?d>v?e?f?g>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O>O",
    ">O>O>O>O>O>O>O?h>O>O>O>O?i?j>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v>v",
    ">v>v>v>v>v>v>v>v>v>v>v>v>v>v>v?k>O?l?m>v>v>v>v>v>v>v>v>v?n>v>v>v",
    ">v>v>v>v>v>v>v>v>v>v>v>v?o>`?p?q?r?s?t?u?v?w?x?y>`>`?z>v>v>v>v?{",
    "?|?}?~>v@>@?>v@@@A@B>v>v@C@D@E>v@F@G@H>`>`>`@I@J@K>`@L@M>v>v>v>v",
};

/* Two digits for each 16 code points of these say which part of TXT_CLASS
 * they have. */
static const char TXT_BLOCK[72][65] = {
    ">>>?>@>A>B>C>D>E>F>?>G>H>I>J>K>L>M>M>M>N>O>M>M>P>Q>R>S>T>U>V>M>W",
    ">M>M>M>X>Y>K>K>K>K>Z>K>[>]>^>_>`>a>a>a>a>a>a>a>b>c>d>e>K>f>g>M>h",
    ">I>I>I>K>K>K>M>M>i>M>M>M>j>M>M>M>M>M>M>k>I>l>K>K>m>n>a>o>p>[>q>r",
    ">s>t>[>[>u>a>v>w>[>[>[>[>[>x>y>z>{>|>[>a>}>[>[>[>[>[>~?>?\?>[>u?@",
    ">[?A?B?C>[?D?E>[?F?G>[>[?H>a?I>a?J>[>[?K>a?L?M?N?O?P?Q?R?S?T?U?V",
    "?W?P?Q?X?Y?Z?[?]?^?_?Q?`?a?b?U?c?d?P?Q?`?e?f?U?g?h?i?j?k?l?m?[?n",
    "?o?p?Q?q?r?s?U?t?u?p?Q?v?r?w?U?x?y?p>[?z?{?|?U?}?~@>>[@?@@@A?[@B",
    "@C>[>[@D@E@F>?>?@G>[@H@I@J@K>?>?@L@M@N@O@P>[@Q>n@R@S>a@T@U@V>?>?",
    ">[>[>u@W@X@Y@Z@[@]@^>I>I@_>K>K@`>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[",
    ">[>[>[>[@a@b>[>[@a>[>[@c@d@e>[>[>[@d>[>[>[@f@g@h>[@i>I>I>I>I>I@j",
    "?N>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[@k>[@l@m>[>[>[>[@n@o",
    ">[@p>[@q>[@r@s@t>[>[>[@u>a@v@w@w@x@w>[>[>[>[>[@y@z>[@{>[>[>[>[@|",
    ">[@}@~@~A>>[A?A@>[>[AA>[ABAC>`>`>[AD>[>[>[AE>aAF@w@wAG>aAH>?>?>?",
    "AI>[>[@uAJ@XAKALAM>[AN?\?>[>[>~AO>[>[@uAPAQ?\?>[ARAS>I>IATAUAVAWAX",
    ">K>KAY>[>[>[AZA[>KA]>[>[>a>a>a>a>M>M>M>M>M>M>M>M>MA^>M>M>M>M>M>M",
    "A_A`A_A_A`AaA_AbA_A_A_AcAdAeAfAgAhAiAjAiAkAl>?AmAn@Q>`>`Ao>a>aAp",
    "AqArAsAtAu@N@N@NAv>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`",
    "Aw>`Ax>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`@i>?Ay>?@N@N@NAz>`>`>`>`A{@N",
    ">`>`>`>`>`>`A|A}@NA~>`>`B>>`B?>`>`>`>`>`>`>`>`>`B@BA>`>`>`Aw>`BB",
    ">`>`>`>`>`>`>`BC>`BD>`>`>`>`>`>`>I>I>I>K>K>KBEBF>M>M>M>M>M>MBGBH",
    ">K>KBI>[>[>[BJBK>[BLBMBMBMBM>a>aAiAiBNAiAiBO>?>?>`BP>`>`>`>`>`BQ",
    ">`>`>`>`>`>`>`>`>`>`>`>`>`BR>?>`BSBTBUBV@C>[>[>[>[BW?N>[>[>[>[BX",
    "BY>[>[@C>[>[>[>[@}BZ>[>[>`>`B[>[>`B]B^>`B_B`>`>`B^>`>`B`>`>`>`>`",
    ">[>[>[>[>[>[>[>[>[>[>[>[>`>`>`>`>[>[>[>[>[>[>[>[@Q>`>`>`Ba>[>[AR",
    "Bb>[Bc>?>M>MBdBe>MBf>[>[>[>[BgBh>`BiBjBk>M>M>MBlBmBnBoBpBqBr>?Bs",
    "Bt>[BuBv>[>[>[BwBx>[>[@uBy@w>aBz?\?>[B{>[B|B}>[@Q?J>[>[B~C>C?C@CA",
    ">[>[CBCCCDCE>[CF>[>[>[CGCHCI>uCJCKCLBM>K>KCMCN>K>K>K>K>K>[>[CO@w",
    ">[>[>[>[>[>[>[>[>[>[CP>[CQ>[>[AA>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?",
    ">[>[>[>[>[>[A?>[>[>[>[>[>[AB>?>?CRCSCTCUCV>[>[>[>[>[>[>^CWCX>[>[",
    ">[>[>[AR>`>[>[>[>[CY>[>[CZ>?>?C[>aC]>aAiAiC^C_C`>[>[>[>[>[>[>[@Q",
    "Ca>A>B>C>DCbCc>[>[>[>[@}CdCeCfCgCh>[@eCiA?A?>?>?>[>[>[>[>[>[>[?E",
    "Cj@N@NCk@N@N@NClCmCnAo>?>?>`>`Co>?>?>?>?>?>?>?>?>[@Q>[>[>[?bCpCq",
    ">[>[Cr>[Cs>[>[Ct>[Cu>[>[CvCw>?>?>I>ICx>K>K>[>[>[>[A?@w>I>ICy>KCz",
    ">[>[C{>[>[>[C|C}C}C~D>D?>[>[>[CP>[>[>[BL>[@|C{>?D@>[>[DA>?>?>?>?",
    "DB>[>[DC>[DD>[DE>[@}DF>?>?>?>[DG>[DH>[DI>?>?>?>?>[>[>[DJ@NDK@N@N",
    "DLDM>[DNDODP>[DQ>[DR>?>?DS>[DTDU>[>[>[DV>[DW>[DX>[DYDZ>?>?>?>?>?",
    ">[>[>[>[@y>?>?>?>I>I>ID[>K>K>KD]>[>[D^@w?\?>ID_>KD`>?>?>?>?>?>?>?",
    ">?>?>?>?>?>?@NDa>[>[DbDcDd>?>?De>[DRDf>[>~Dg>?>[Dh>?>?>[Di>?>[BL",
    "AM>[>[DjDkDK@NDlAM>[>[DmDn>[@y@wAM>[B|DoDp>[>[DqAM>[>[B~DrDsDtDu",
    ">[?_DvDwDx>?>?>?DyDzD{>[>[D|D}@wD~?P?QE>?eE?E@EAEB>[>[ECEDEEEF>?",
    ">[>[>[EGEHEIDc>?>[>[>[>aEJ@w>?>?>?>?>?>?>?>?>?>?>[>[D|EKELEM>?>?",
    ">[>[>[>aEN@wEO>?>[>[>uEP@w@NEQ>?>[@f@~ERBL>?>?>?>?>?>?>?>?>?>?>?",
    ">[>[DvES>?>?>?>?>?>?>I>I>K>K@NETEUEV>[EWEX@w>?>?>?>?EY>[>[EZE[>?",
    "E]>[>[E^E_E`>[>[?HEaEb>[>[>[>[@yC]>?>?>?>?>?>?>?>?>?>?>?>[>[Ec@w",
    "?Q>[D|EdEe@N@hEf>[Eg@SCC>?>?>?>?Eh>[>[EiEj@wEk>[ElEm@w>?>?>?>?>?",
    ">?>?>?>?>?>?>?>?>?>?>?>?>?>?>[EnEo?p>[EpEqEr>?>?>?>?>??b@NEs>`Et",
    ">[>[>[>[>[>[>[>[>[AB>?>?>?>?>?>?@N@N@N@N@N@NDaEu>[>[>[>[>[>[>[>[",
    ">[>[>[>[CP>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>[>[>[>[>[>[Ev",
    ">[>[>[>?EwEx>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[?E",
    ">[>[>[>[BL>?>?>?>?>?>?>?>?>?>?>?>[Ey>a@w>?>?>?>?>?>?>?>?>?>?>?>?",
    ">[>[>[@y>[@}C?>[>[>[>[@}@w>[A?Ez>[>[>[E{E|E}E~F>>[>?>?>?>?>?>?>?",
    ">?>?>?>?>[>[Bb@w>?>?>?>?>?>?>?>?>?>?>?>?>I>I>K>K@NF?>?>?>?>?>?>?",
    ">[>[>[>[F@FA>a>aFBAM>?>?>?>?FCFD>[>[>[>[>[>[>[>[>[>[>[>[>[>[>[C{",
    ">[>[>[>[>[>[>[>[>[>[>[>[>[@|>?FE@y>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?",
    ">?>?>?>?>?>?>?>?>?>?>?>?>?>?>?FF>[>[FGFH>?FIFJ>[>[>[>[>[>[>[>[>[",
    ">[>[>[>[>[>[>[>[>[>[>[>[>[>[>[AA>[>[>[>[>[>[?E@Q@yFK>?>?>?>?>?>?",
    ">`>`>`>`>`>`>`>`>`>`>`>`>`>`>`@w>`>`>`>`>`>`>`>`>`>`>`BQ>?>?>?>?",
    ">a>aFL>aCC>`>`>`>`>`>`>`BQ>?>?>?>`>`>`>`>`>`>`>`>`>`>`>`>`>`>`BR",
    ">`>`FM>`>`>`FNFOFP>`FQ>`>`>`Ay>?>`>`>`>`FR>?>?>?>?>?>?>?@NEQ@NEQ",
    ">`>`>`>`>`Ba@NDO>?>?>?>?>?>?>?>?>IFS>KFTFUFVA_>IFWFXFYFZF[>IFS>K",
    "F]F^>KF_F`FaFb>IFc>K>IFS>KFTFU>KA_>IFWFb>IFc>K>IFS>KFd>IFeFfFgFh",
    ">KFi>IFjFkFlFm>KFn>IFo>KFp@N@N@N>a>a>aFq>a>aFrFsFtFu>n>?>?>?>?>?",
    "FvFwFx>?>?>?>?>?>?>?>?>?>?>?>?>?EdFyFz>[>[>[A?>?F{>?>?>?>?>?>?>?",
    ">[>[@QF|F}>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>[F~>?>[>[DvG>",
    ">?>?>?>?>?>?>?>?>?>?>?>?>?>[Dv@w>?>?>?>?>?>?>?>?>?>?>?>?>?>[EyG?",
    ">?>?>?>?>?>?>?>?>?>?>?>?>?>?G@@}>[>[>[>[>[>[>[>[>[>[>[>[GACC>?>?",
    ">I>IFW>KGBC?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?>?Dt@N@NGCGD>?>?>?>?",
    "Dt@NGEGF>?>?>?>?>?>?>?>?>?>?>?>?GG>[GHGIGJGKGLGMGNAAGOAA>?>?>?GP",
    ">`>`GQ>`>`>`>`>`>`BQB]GRGRGR>`BRGS>`>`>`>`>`>`>`>`>`GT>?>?>?GU>`",
    "CW>`>`GQGVGPBR>?>?>?>?>?>?>?>?>?>`>`>`>`>`>`>`>`>`>`>`>`>`GWCnCn",
    ">`>`>`>`>`>`>`GX>`>`>`>`>`@iGQAoGQ>`>`>`GY@i>`>`GY>`GTGQGP>?>?>?",
    ">`>`>`>`>`BQGTCnGZ>`>`>`G[G]@iGV>`>`>`>`>`>`>`>`>`G^>`>`>`>`>`@w",
};

/* A digit for two code points: the class of the first one + 9 times that of
 * the second. */
static const char TXT_CLASS[76][65] = {
    "((((qyy(((((((((gefeeneeZZZZZeof7222222222222`efA<<<<<<<<<<<<af/",
    "((q(((((goofob/ooZAe]bZd22222222222i222;<<<<<<<<<<<j<<<<;;;;;;;;",
    ";;;;33333333<;;;;;;;233<3;;232<223;2;<23;;;23<;23233;E;<FF23;233",
    "333333<;3;;2;;;;;;<<<23;332;;;;;<<=<<<<<FFFFFFFFFooFFFFFFooooooo",
    "FFkoookkooooooooPPPPPPPP;;k;(=<7((o`2))232222222212222<<<<<<<<<3",
    "<2;<;;;;<<;83;32;SPPP;;;2333333<12222222222)Ceee<<<<a.hoLPPPPPPP",
    "PPPPPPPRRcPR((((FFFFF+(CFb.((((((((ofneoPPPPPc_eFFFFFOPPZZZZZeeF",
    "GFFFFFFFFFIPPP,SPPGOlPPFZZZZZFkJeeeeeee(OFFFFFFFPPPPP,CFFFFPPPPP",
    "G(((((((ZZZZZFFFPPFfe+LoFFFPPOPPPPOPOPP(eeeeeee.FFFFOP(.FFFFF+((",
    "FFFFJFF+(((LPPPPFFFFFPPPPLPPPPPPPPFFFFFFFFFFFPGPOPPPFFFFFPeZZZZZ",
    "IFFFFFFFOPCFFF+C+CFFFFFFFFFF+FFF++(FF(GPPP,L,LP+(((L((FCFP(ZZZZZ",
    "FoZZZob,LPCFF+(C+FC+F(,PP,(L,LP(L(((CF++(((ZZZZZPFO.((((LPCFFFFC",
    "FCFFFFFF+FCFF(GPPPPLPLP(+(((((((n(((CPPPLPCFFF+CPP,L,LP(((LP((FC",
    "JZZZ(((((GCFF+(F+FF(C++F(C+(F+(FFFFFF((PP,(P,PP(+((L((((Zmooo/((",
    "PPGFFF+F+FFFFFFFFFFFF(GPPP,P,PP(((L,F+C((((_ZZZmOPIFFF+FFFCFF(GP",
    "((L,((C+CO((((((PPFFFF+FFFFFFOGPPP,P,PPk((FOZZZHZZZZmFFFLPCFFFFF",
    "FFF+(FFFFCFFFFC(FFF+(,(LPP,,PPPP(P.(((((CFFFFFFFOFPPP,(hFFFOPPPc",
    "ZZZZZe((C++FF+FFFFCCFFFFOFPPPPG(FF++PPP,ZZZZZ(FFkoeeeeeeennoPooo",
    "ZZZZZZZZZZSSSeePFFFFCFFFFFFFFF+(PPcPFFOPPPPPLPPPPPPPPP,ooooloo/o",
    "eenof.((PPPPPPPGZZZZZeeeFFFPPFFPGPGOPPPFOPGFFFFFFPPPPPPOZZZZZPPo",
    "2221((1(<<<<<a=<FFFF+FF(FFF++FF(+FF(FFF++FF(FFFFFFF+FFFFFFFFF+LP",
    "eeee[ZZZZZZZZZ-(ooooo(((222(<<<(FFFFFFkIKFFFFFFFFFFFFb.(FFFFFbeZ",
    "HFFF+(((FPP((((CFPc.((((FP((((((FFFFFF+F+P((((((FFPPPPPPPPeIenO(",
    "ZZZZZ(((eeeeeRPLFFFF+(((FFOGFFFFFFFFO+((FFF(((((FFFFFFF+PPPPPP((",
    "/(eZZZZZFFFFFFF(FF+(((((FFFFFF((FFFFF(((ZZZZZ-(oFFFOPP(eFFOPPPP,",
    "PPPPPP,LeeeIeee(PPPPPPP,PPGFFFFFPPGFFF+enooooSPPPPoooofePGFFFFFF",
    "OPPPPPPFPP((((eePPPP(_eeZZZZZ(CFFFFFFFFe<<<<3*((22222)12eeee((((",
    "PcPPPPPPPPPPGFOFFFGOP+((<<<<<<FFFFFFF=<<<<<<=<<<<<<<<EFF;;;<<<<;",
    "<<<<2222<<<(222(<<<<1111<<<<<<<(<<*<22ijo<*<22io<<(<22ho<<<<22io",
    "(<*<22i/yyyyy0((eeeeeeeeeeeey((qeefeeeeeefeeeeewH(ZZZofIZZZZZof.",
    "/(((((((,(((((((oio8o32<2;8o822oooiii22A22EF=o<2oo8<<oojZ6WZZo((",
    "ooooeeoooooofnooooooo/((ZZZZZZoooooooZZZooooeeeeeeeZZZZZZZoooooo",
    "oofnoooooooeeeeeofeeeeeeeeeenoooooooooeooo(oooooooohoooo;2;33332",
    ";;3<<<F2;;joo83NP;((_e[e<<<:((:(FFFF(((C.((((((LFFF+((((FFF+FFF+",
    "eeeeeeeIoeeeeee(ooooohoooo((((((ooo(((((geJXeeeeeoeeeeee]ZZZZPPP",
    "IFFoZHboFFF+LlJFFFFFFbFF((CFFFFFoZZoooooooo((((hooooooo/ZZZZZooo",
    "ooooZZZZ]ZZZZZZZooo/((((FFFFFFbeZZZZZF((;;;;;;;OPcPPPPPI;;;;;;FP",
    "FFFZZZZZPeee((((oooJFFFFo;;;;;;;<;;;;;;;=<<<333;;;;;k83E;;<;;;;;",
    ";;;;;22;22;;;;;;;;2233;(;::;;;)((F4EFEFFFGFGFOFFFOPPoo,(ZZZoo(((",
    "FFee((((PFFFFFFFPPP((((ePFFFeIIOFFFPPPPeFFFOPPPPPP(((((_FOPPPPPP",
    "ceeeeeeCZZZZZ((eFFOFFFFFZZZZZFF+FFFFOPPPPPP,((((FOFFFFP(ZZZZZ(ee",
    "FFFkoOPFGPGOGFFPO+(((((((((((CFeeFO,((((CFF+CFF+CFF+((((<<<<<jFF",
    "<<<<Eo((FOPPPcP(FF((((((FFF+(CFF<<<*(((((:<<((CGFFFFkFFFFFF+FF++",
    "FC+FFFFFo/(((((((CFFFFFF(FFFFFFFFFFF(((hFFFFFFooeeeee(((e.eeeeee",
    "efo/ne((FF+FFFFF_efeenee<<<<<affeeeFFFFF(FFF(FFF(FFF(F+(ooo/ooo/",
    "((((((o(FFFFFFCFFFFFF+FCe.(UZZZZZZ(hooooZZZZmooooooooZo/oooooo/(",
    "ooooooS(YZZZZZZZZZZZZZ((ZZ((((CFXFFFF-((FFFPP,((FFFFFFF_FF((FFFF",
    "[ZZ(((((2222<<<<22((<<<<<<<<<<((FFFF((((FF(((((_22222)222)2:<<<<",
    "<:<<<<<<<:<<<:*(FFFCFFFF+FFFF+((FFF(+FFFFFFC+(+CFFF_ZZZZFFFk]ZZZ",
    "(((UZZZZF+F((UZZFFFZZZ(_FFFFF((_FFFF((ZF(ZZZZZZZOPL,((PPFFCFCFFF",
    "FFF(P,(LZZZZ-(((eeee.(((FFFFFFXdFFFFFFXZFFFFJFFFFFO,(UZZeee.((((",
    "FFF(_eeeFFF(ZZZZF+((ZZZZF(((_e.(((((UZZZ2)((((((<*(((ZZZFFPP((((",
    "222(LPPI<<<((((oZZZZZZZ-FFFFFLc(F((((((((F+(((((((((((PPZZZH((((",
    "YZdee(((FPPee(((FFXZZZ((FFFFPPPPPPPceee(GOG((((LPPPPPc.ee,((((((",
    "PP,ZZZZZeeOG((((FOe+((((GFbeRPcPZZZZZbbeUZZZZZZZZZ-(((((FFFFFFPP",
    "PPPPeeeGO(((((((FFF++FFCFFFFFFFCFFFFb(((FFFFFFFOPPPPP,((PPCFFF+C",
    "+FCFFLGP+((L((CFFP(PPP,(PP,(((((FFFFFC(+FFFCPPPP,,LLP,PPGGe_.(((",
    "L,((((((FFOPPPPPPPPGFbeeZZZZZe_GPPFI((((PPP(PPPPceeeeeeeeeeeFFP(",
    "ce+(((((eeeeee.(PPPPb(((ZZ((((((ZZZZZZenPPPPPc((Z-(((((CFFF+C(FF",
    "FFC+FFFFPPPL,LPGGPe.((((FFFF(FFFOPPP(PPPGI,(((((OPPPPGFFFOPPPOPc",
    "eeeR((((OPPPPPFFPPPPPeIee.((((((b(((((((PPP,PPPPbee(((((eFFFFFFF",
    "(PPPPPPPFFF+FCFFOPP,(,PLPPPO((((FFFC+FFFFFFFFPP,PLPP+(((FOPc.(((",
    "POFFFFFFFFPPP,(PPceeeeeeZZZZZ,((ZZmoooooo((((((_ee.(((((b.((((((",
    "GFFOPPPPPPP(((((FFFFFFFPPPc(((((PPPceeooFFn(((((ZZZZZUZZZCFFFFFF",
    "FFFF((CFZZZde.((FFFFF+(LOPPPPPPPPPPP(((LFI,(((((P((((((((((((((C",
    "FFCFFFC+F+(((((((+((((((F+C(((((((FF((((FFFFF(ScPPPPPPP(ooo/hooo",
    "ooSPPoSPP,(((LPPPlSPPPoooooooPPooPl(((((22222<<<<<2222222222222<",
    "<<*<<<<<2<<<<<<<<<<<<<)2()1)12)2222<<::<<<:<<<<<<<212)1222)222)<",
    "<<<<212)22))(222)<<<<<<<<<<<<<22222<<<<<<<<(2222i<<<<<<<<<<<<j<<",
    "<222222222222i<<<<j<<<2222i<<<<<<<<<<<<j<<<222222222222i<<<<j<<<",
    "2222i<<<<j<<<;(ZPPPloSPPPPPPPPloooSooooooolfee(((((((LPP<<<<<=<<",
    "<<<<<<<*((:<<*((PPPP,LPPPL,PP,(((((((((LPPPGFFF(ZZZZZ((kFFFFFFF,",
    "ZZZZZ((hXZZZZ-(_FFF+FFC+FF+UZZZZ<<PPPG((ZZZZZZ]Z]Z-(((((ZZZZZZZ]",
    "ZZZZZZZ(FFCFFFFFC++CCFFFF+FFCC(((+(CCCCFC++CCCCCC++CF+FFF+FFCF++",
    "FFFFFCFFCFCFFCFFo(((((((oooooo((hoooooooZZZZZZmoooooooo((((ooooo",
    "oooo/(((oooo((ooooo/(hoooooo((((ooooo((hooo/(((ooooooo/ho/oooooo",
};

/* Classes from U+20000 on. */
static const struct { u32 first, last, class_; } TXT_FAR[10] = {
    {0x20000, 0x2A6DF, 3}, {0x2A700, 0x2B739, 3}, {0x2B740, 0x2B81D, 3},
    {0x2B820, 0x2CEA1, 3}, {0x2CEB0, 0x2EBE0, 3}, {0x2EBF0, 0x2EE5D, 3},
    {0x2F800, 0x2FA1D, 3}, {0x30000, 0x3134A, 3}, {0x31350, 0x323AF, 3},
    {0xE0100, 0xE01EF, 4},
};

/* Canonical combining classes other than 0 in 333 ranges. A range is 6
 * digits, so 36 bits: the first code point (21), the others (7), the class
 * (8). */
static const char TXT_MARKS[31][67] = {
    ">?_?Qe>?agAg>?aoMZ>?bNAg>?bVAV>?b_QZ>?cFEH>?cVMZ>?cwEH>?dFjZ>?e_N?",
    ">?fFMZ>?fg^e>?ggAo>?goAe>?gwIZ>?hNIe>?hgEZ>?i>Ie>?iVMZ>?iwAe>?j>Ag",
    ">?jFEZ>?jVAe>?j_Ah>?jgEi>?jwAh>?k>Ei>?kNAh>?kVre>@NVQe>@qFAZ>@qNMe",
    ">@qoAZ>@qwIe>@rNA]>@rVAZ>@r_Ue>@sNUZ>@t>Ee>@tNAZ>@tVEe>@tgA]>@toAc",
    ">@twAe>@u>>H>@uF>I>@uN>J>@uV>K>@u_>L>@ug>M>@uo>N>@uw>O>@v>>P>@vFBQ",
    ">@vV>R>@v_>S>@vg>T>@vw>U>@wF>V>@wN>W>@w_Ae>@wgAZ>@ww>P>A@>^e>AA>>]",
    ">AAF>^>AAN>_>AGV>Y>AG_>Z>AGg>[>AGo>]>AGw>^>AH>>_>AHF>`>AHN>a>AHVEe",
    ">AHgEZ>AHwQe>AI_AZ>AIgEe>AIwAZ>AL>>b>AXoYe>AYwMe>AZVAZ>AZ_Ae>AZwEe",
    ">A[NAZ>A[VEe>A[gAZ>AaF>c>Ae>Ae>AeFAZ>AeNEe>Ae_AZ>AegEe>AewIZ>AfNAe",
    ">AfVEZ>AfgAe>AfoAZ>AfwIe>AgNAZ>AgVAe>Ag_AZ>AggAe>AgoAZ>AgwAe>Ah>AZ",
    ">AhFEe>A|VYe>A}NAZ>A}VAe>B@oMe>BAVbe>BBgIe>BCFQe>BIFIZ>BX_ve>BZVAZ",
    ">BZ_Ee>BZoAZ>BZwEe>B[FAZ>B[NIe>B[gIZ>B]>>Y>B]F>Z>B]N>[>B]VIe>B]oAZ",
    ">B]wEe>B^FEZ>B^VQe>Bf_>E>Bhg>G>BiFAe>BiNAZ>BiVEe>Bv_>E>Bxg>G>CE_>E",
    ">CGg>G>CU_>E>CWg>G>Cf_>E>Chg>G>Cxg>G>DGg>G>DHg?R>DHo?Y>DU_>E>DWg>G",
    ">Dhg>G>DxN>G>EE>Cf>EEN>G>EG>Kj>EU>Cu>EW>Ky>Eb>EZ>EegAZ>EewAZ>EfFAV",
    ">EmF@?>EmN@@>Em_@B>EnNL@>Eo>@@>EoNEe>Eo_>G>EooEe>EwoAZ>FDw>E>FEFBG",
    ">FOgAZ>GjgIe>Ia_>G>Ie_>G>IyN>G>IzgAe>JSFAc>JfFA]>JfNAe>JfVAZ>K@wAe",
    ">KA>AZ>KJ>>G>KLg^e>KMwAZ>KT>Qe>KTgUZ>KUVEe>KUgAZ>Ke_>E>Kg_>G>KlVAe",
    ">Kl_AZ>KlgYe>KtNBG>K{o>E>K}NBG>LDw>E>LX>Ie>LX_>?>LXgQZ>LYNEe>LY_MZ",
    ">LZ>Ae>LZNV?>L[gAZ>L]_Ae>L^>Ee>Lw>Ee>LwNAZ>LwVYe>LxNAZ>LxVEe>LxgAi",
    ">LxoAT>LxwAZ>Ly>AH>LyHQe>L~VAe>L~_Ah>L~gAZ>L~oAe>L~wAZ>NX>Ee>NXNB?",
    ">NX_Me>NY>F?>NYVEe>NZFAe>NZgB?>NZwAe>N[>AZ>N[FAe>N[NB?>N[_MZ>N]>Ae",
    ">T[wIe>Tnw>G>T{?~e>VCNAX>VCVAc>VC_Ag>VCgA]>VCoE_>VQFBF?QKwAe?QL_fe",
    "?QQoEe?Q]>Ee?R>o>G?RV_>G?RZ?Ee?RdVIZ?RiV>G?RuV>E?Rw>>G?ST>Ae?STNEe",
    "?ST_AZ?STwEe?SUoEe?SVFAe?S]o>G?S|g>G?|bo>X?~B>Ye?~BwYZ?~CoEe@>~gAZ",
    "@?Z>AZ@?moQe@C?gAZ@C?wAe@CE>Ae@CEF>?@CENAZ@CEw>G@CZgAe@CZoAZ@FFo>G",
    "@FMw>G@FUF>G@FUN>E@F_>Ie@FeVBG@FmV>E@Fw>>G@FxN>E@GDg>G@GDo>E@G[F>E",
    "@G[N>G@Gf_>E@Ghg>G@GkoYe@Gm>Qe@HFN>G@HFo>E@HVN>G@HVV>E@Hvw>G@Hw>>E",
    "@IEw>G@ITo>G@ITw>E@IdV>G@LEw>G@t]>N?@te>YeA]Qo>?AgkgEVAgkwF?AglgAa",
    "AgloQVAgnV^ZAgogQeAgpNEZAgtNMeAhFNIeAo>>YeAo??AeAoAVYeAoBVEeAoBoQe",
    "AsX>YZAsg_UeAshN>E",
};

/* 1058 canonical decompositions, 9 digits each: the character, its first
 * part, its second part or 0. */
static const char TXT_PARTS[145][67] = {
    ">A>>?\?>J>>A?>?\?>J?>A@>?\?>J@>AA>?\?>JA>AB>?\?>JF>AC>?\?>JH>AE>?A>Jf>AF",
    ">?C>J>>AG>?C>J?>AH>?C>J@>AI>?C>JF>AJ>?G>J>>AK>?G>J?>AL>?G>J@>AM>?G",
    ">JF>AO>?L>JA>AP>?M>J>>AQ>?M>J?>AR>?M>J@>AS>?M>JA>AT>?M>JF>AW>?S>J>",
    ">AX>?S>J?>AY>?S>J@>AZ>?S>JF>A[>?W>J?>A_>?`>J>>A`>?`>J?>Aa>?`>J@>Ab",
    ">?`>JA>Ac>?`>JF>Ad>?`>JH>Af>?b>Jf>Ag>?d>J>>Ah>?d>J?>Ai>?d>J@>Aj>?d",
    ">JF>Ak>?h>J>>Al>?h>J?>Am>?h>J@>An>?h>JF>Ap>?m>JA>Aq>?n>J>>Ar>?n>J?",
    ">As>?n>J@>At>?n>JA>Au>?n>JF>Ax>?t>J>>Ay>?t>J?>Az>?t>J@>A{>?t>JF>A|",
    ">?x>J?>A~>?x>JF>B>>?\?>JB>B?>?`>JB>B@>?\?>JD>BA>?`>JD>BB>?\?>Jg>BC>?`",
    ">Jg>BD>?A>J?>BE>?b>J?>BF>?A>J@>BG>?b>J@>BH>?A>JE>BI>?b>JE>BJ>?A>JJ",
    ">BK>?b>JJ>BL>?B>JJ>BM>?c>JJ>BP>?C>JB>BQ>?d>JB>BR>?C>JD>BS>?d>JD>BT",
    ">?C>JE>BU>?d>JE>BV>?C>Jg>BW>?d>Jg>BX>?C>JJ>BY>?d>JJ>BZ>?E>J@>B[>?f",
    ">J@>B]>?E>JD>B^>?f>JD>B_>?E>JE>B`>?f>JE>Ba>?E>Jf>Bb>?f>Jf>Bc>?F>J@",
    ">Bd>?g>J@>Bg>?G>JA>Bh>?h>JA>Bi>?G>JB>Bj>?h>JB>Bk>?G>JD>Bl>?h>JD>Bm",
    ">?G>Jg>Bn>?h>Jg>Bo>?G>JE>Bs>?H>J@>Bt>?i>J@>Bu>?I>Jf>Bv>?j>Jf>Bx>?J",
    ">J?>By>?k>J?>Bz>?J>Jf>B{>?k>Jf>B|>?J>JJ>B}>?k>JJ>CA>?L>J?>CB>?m>J?",
    ">CC>?L>Jf>CD>?m>Jf>CE>?L>JJ>CF>?m>JJ>CJ>?M>JB>CK>?n>JB>CL>?M>JD>CM",
    ">?n>JD>CN>?M>JI>CO>?n>JI>CR>?P>J?>CS>?q>J?>CT>?P>Jf>CU>?q>Jf>CV>?P",
    ">JJ>CW>?q>JJ>CX>?Q>J?>CY>?r>J?>CZ>?Q>J@>C[>?r>J@>C]>?Q>Jf>C^>?r>Jf",
    ">C_>?Q>JJ>C`>?r>JJ>Ca>?R>Jf>Cb>?s>Jf>Cc>?R>JJ>Cd>?s>JJ>Cg>?S>JA>Ch",
    ">?t>JA>Ci>?S>JB>Cj>?t>JB>Ck>?S>JD>Cl>?t>JD>Cm>?S>JH>Cn>?t>JH>Co>?S",
    ">JI>Cp>?t>JI>Cq>?S>Jg>Cr>?t>Jg>Cs>?U>J@>Ct>?v>J@>Cu>?W>J@>Cv>?x>J@",
    ">Cw>?W>JF>Cx>?X>J?>Cy>?y>J?>Cz>?X>JE>C{>?y>JE>C|>?X>JJ>C}>?y>JJ>D_",
    ">?M>JY>D`>?n>JY>Dn>?S>JY>Do>?t>JY>EK>?\?>JJ>EL>?`>JJ>EM>?G>JJ>EN>?h",
    ">JJ>EO>?M>JJ>EP>?n>JJ>EQ>?S>JJ>ER>?t>JJ>ES>AZ>JB>ET>A{>JB>EU>AZ>J?",
    ">EV>A{>J?>EW>AZ>JJ>EX>A{>JJ>EY>AZ>J>>EZ>A{>J>>E]>AB>JB>E^>Ac>JB>E_",
    ">Fe>JB>E`>Ff>JB>Ea>AD>JB>Eb>Ae>JB>Ee>?E>JJ>Ef>?f>JJ>Eg>?I>JJ>Eh>?j",
    ">JJ>Ei>?M>Jg>Ej>?n>Jg>Ek>Ei>JB>El>Ej>JB>Em>Dv>JJ>En>HP>JJ>Eo>?i>JJ",
    ">Es>?E>J?>Et>?f>J?>Ew>?L>J>>Ex>?m>J>>Ey>AC>J?>Ez>Ad>J?>E{>AD>J?>E|",
    ">Ae>J?>E}>AV>J?>E~>Aw>J?>F>>?\?>JM>F?>?`>JM>F@>?\?>JO>FA>?`>JO>FB>?C",
    ">JM>FC>?d>JM>FD>?C>JO>FE>?d>JO>FF>?G>JM>FG>?h>JM>FH>?G>JO>FI>?h>JO",
    ">FJ>?M>JM>FK>?n>JM>FL>?M>JO>FM>?n>JO>FN>?P>JM>FO>?q>JM>FP>?P>JO>FQ",
    ">?q>JO>FR>?S>JM>FS>?t>JM>FT>?S>JO>FU>?t>JO>FV>?Q>Je>FW>?r>Je>FX>?R",
    ">Je>FY>?s>Je>F]>?F>JJ>F^>?g>JJ>Fe>?\?>JE>Ff>?`>JE>Fg>?C>Jf>Fh>?d>Jf",
    ">Fi>AT>JB>Fj>Au>JB>Fk>AS>JB>Fl>At>JB>Fm>?M>JE>Fn>?n>JE>Fo>Fm>JB>Fp",
    ">Fn>JB>Fq>?W>JB>Fr>?x>JB>K>>J>>>>>K?>J?>>>>KA>JQ>>>>KB>JF>J?>Ks>Hx",
    ">>>>K}>>z>>>>LC>@g>J?>LD>LO>J?>LE>@v>>>>LF>LS>J?>LG>LU>J?>LH>LW>J?",
    ">LJ>L^>J?>LL>Ld>J?>LM>Lh>J?>LN>MH>J?>Li>LW>JF>Lj>Ld>JF>Lk>Lp>J?>Ll",
    ">Lt>J?>Lm>Lv>J?>Ln>Lx>J?>Lo>MI>J?>MH>Lx>JF>MI>MC>JF>MJ>L~>J?>MK>MC",
    ">J?>ML>MG>J?>MQ>MP>J?>MR>MP>JF>N>>NS>J>>N?>NS>JF>NA>NQ>J?>NE>ND>JF",
    ">NJ>NX>J?>NK>NV>J>>NL>Nb>JD>NW>NV>JD>Nx>Nw>JD>ON>Nt>J>>OO>Nt>JF>OQ",
    ">Nr>J?>OU>OT>JF>OZ>Ny>J?>O[>Nw>J>>O]>OA>JD>Ou>Os>JM>Ov>Ot>JM>Q?>NT",
    ">JD>Q@>Nu>JD>QN>NN>JD>QO>No>JD>QP>NN>JF>QQ>No>JF>QT>NS>JD>QU>Nt>JD",
    ">QX>QV>JF>QY>QW>JF>QZ>NT>JF>Q[>Nu>JF>Q]>NU>JF>Q^>Nv>JF>Qa>NV>JB>Qb",
    ">Nw>JB>Qc>NV>JF>Qd>Nw>JF>Qe>N]>JF>Qf>N}>JF>Qi>Qg>JF>Qj>Qh>JF>Qk>Nl",
    ">JF>Ql>OK>JF>Qm>Nb>JB>Qn>OA>JB>Qo>Nb>JF>Qp>OA>JF>Qq>Nb>JI>Qr>OA>JI",
    ">Qs>Nf>JF>Qt>OE>JF>Qw>Nj>JF>Qx>OI>JF>Va>Vf>WQ>Vb>Vf>WR>Vc>WF>WR>Vd",
    ">Vf>WS>Ve>WH>WR>Y>>YS>WR>Y@>Y?>WR>YQ>YP>WR>ch>cg>c{>cp>co>c{>cs>cr",
    ">c{>dV>cS>c{>dW>cT>c{>dX>cU>c{>dY>cZ>c{>dZ>c`>c{>d[>ca>c{>d]>cj>c{",
    ">d^>cn>c{>fI>fE>e}>fJ>fE>fU>fZ>e`>e{>f[>ea>e{>f^>en>e{>gr>gq>g{>gu",
    ">gw>g{>hW>gT>g{>hX>gU>g{>hY>gZ>g{>h]>gj>g{>lF>lE>lT>lI>lE>k}>lJ>lE",
    ">lU>lZ>k`>k{>l[>ka>k{>mR>mP>nU>nH>nD>m}>nI>nE>m}>nJ>nD>nU>pF>pD>pT",
    ">r>>q~>rS>rE>rD>rS>rF>rD>rT>rH>rD>r@>rI>rH>rS>tH>tD>s}>tI>tE>s}>tJ",
    ">tD>tU>vX>vW>vH>vZ>vW>vM>v[>vZ>vH>v]>vW>v^>|A>|@>}v>|K>|J>}v>|P>|O",
    ">}v>|U>|T>}v>|Z>|Y>}v>|h>|>>}t>|r>|p>|q>|t>|p>|s>|u>}q>}>>|w>}r>}>",
    ">}?>|p>}>>}Q>}P>}v>}[>}Z>}v>}a>}`>}v>}f>}e>}v>}k>}j>}v>}x>}N>}t?>e",
    "?>d?>m?kD?kC?kt?kF?kE?kt?kH?kG?kt?kJ?kI?kt?kL?kK?kt?kP?kO?kt?kz?ky",
    "?kt?k|?k{?kt?l>?k}?kt?l??k~?kt?lA?l@?kt?w>>?\?>Jd?w?>?`>Jd?w@>?@>JE",
    "?wA>?a>JE?wB>?@>Jb?wC>?a>Jb?wD>?@>Jp?wE>?a>Jp?wF>AE>J??wG>Af>J??wH",
    ">?B>JE?wI>?c>JE?wJ>?B>Jb?wK>?c>Jb?wL>?B>Jp?wM>?c>Jp?wN>?B>Jf?wO>?c",
    ">Jf?wP>?B>Jl?wQ>?c>Jl?wR>BP>J>?wS>BQ>J>?wT>BP>J??wU>BQ>J??wV>?C>Jl",
    "?wW>?d>Jl?wX>?C>Jo?wY>?d>Jo?wZ>Fg>JD?w[>Fh>JD?w]>?D>JE?w^>?e>JE?w_",
    ">?E>JB?w`>?f>JB?wa>?F>JE?wb>?g>JE?wc>?F>Jb?wd>?g>Jb?we>?F>JF?wf>?g",
    ">JF?wg>?F>Jf?wh>?g>Jf?wi>?F>Jm?wj>?g>Jm?wk>?G>Jo?wl>?h>Jo?wm>AM>J?",
    "?wn>An>J??wo>?I>J??wp>?j>J??wq>?I>Jb?wr>?j>Jb?ws>?I>Jp?wt>?j>Jp?wu",
    ">?J>Jb?wv>?k>Jb?ww?wu>JB?wx?wv>JB?wy>?J>Jp?wz>?k>Jp?w{>?J>Jl?w|>?k",
    ">Jl?w}>?K>J??w~>?l>J??x>>?K>JE?x?>?l>JE?x@>?K>Jb?xA>?l>Jb?xB>?L>JE",
    "?xC>?m>JE?xD>?L>Jb?xE>?m>Jb?xF>?L>Jp?xG>?m>Jp?xH>?L>Jl?xI>?m>Jl?xJ",
    ">AS>J??xK>At>J??xL>AS>JF?xM>At>JF?xN>CJ>J>?xO>CK>J>?xP>CJ>J??xQ>CK",
    ">J??xR>?N>J??xS>?o>J??xT>?N>JE?xU>?o>JE?xV>?P>JE?xW>?q>JE?xX>?P>Jb",
    "?xY>?q>Jb?xZ?xX>JB?x[?xY>JB?x]>?P>Jp?x^>?q>Jp?x_>?Q>JE?x`>?r>JE?xa",
    ">?Q>Jb?xb>?r>Jb?xc>CX>JE?xd>CY>JE?xe>C_>JE?xf>C`>JE?xg?xa>JE?xh?xb",
    ">JE?xi>?R>JE?xj>?s>JE?xk>?R>Jb?xl>?s>Jb?xm>?R>Jp?xn>?s>Jp?xo>?R>Jl",
    "?xp>?s>Jl?xq>?S>Jc?xr>?t>Jc?xs>?S>Jo?xt>?t>Jo?xu>?S>Jl?xv>?t>Jl?xw",
    ">Cg>J??xx>Ch>J??xy>Ci>JF?xz>Cj>JF?x{>?T>JA?x|>?u>JA?x}>?T>Jb?x~>?u",
    ">Jb?y>>?U>J>?y?>?v>J>?y@>?U>J??yA>?v>J??yB>?U>JF?yC>?v>JF?yD>?U>JE",
    "?yE>?v>JE?yF>?U>Jb?yG>?v>Jb?yH>?V>JE?yI>?w>JE?yJ>?V>JF?yK>?w>JF?yL",
    ">?W>JE?yM>?x>JE?yN>?X>J@?yO>?y>J@?yP>?X>Jb?yQ>?y>Jb?yR>?X>Jp?yS>?y",
    ">Jp?yT>?g>Jp?yU>?s>JF?yV>?v>JH?yW>?x>JH?yY>C~>JE?y_>?\?>Jb?y`>?`>Jb",
    "?ya>?\?>JG?yb>?`>JG?yc>A@>J??yd>Aa>J??ye>A@>J>?yf>Aa>J>?yg>A@>JG?yh",
    ">Aa>JG?yi>A@>JA?yj>Aa>JA?yk?y_>J@?yl?y`>J@?ym>B@>J??yn>BA>J??yo>B@",
    ">J>?yp>BA>J>?yq>B@>JG?yr>BA>JG?ys>B@>JA?yt>BA>JA?yu?y_>JD?yv?y`>JD",
    "?yw>?C>Jb?yx>?d>Jb?yy>?C>JG?yz>?d>JG?y{>?C>JA?y|>?d>JA?y}>AH>J??y~",
    ">Ai>J??z>>AH>J>?z?>Ai>J>?z@>AH>JG?zA>Ai>JG?zB>AH>JA?zC>Ai>JA?zD?yw",
    ">J@?zE?yx>J@?zF>?G>JG?zG>?h>JG?zH>?G>Jb?zI>?h>Jb?zJ>?M>Jb?zK>?n>Jb",
    "?zL>?M>JG?zM>?n>JG?zN>AR>J??zO>As>J??zP>AR>J>?zQ>As>J>?zR>AR>JG?zS",
    ">As>JG?zT>AR>JA?zU>As>JA?zV?zJ>J@?zW?zK>J@?zX>D_>J??zY>D`>J??zZ>D_",
    ">J>?z[>D`>J>?z]>D_>JG?z^>D`>JG?z_>D_>JA?z`>D`>JA?za>D_>Jb?zb>D`>Jb",
    "?zc>?S>Jb?zd>?t>Jb?ze>?S>JG?zf>?t>JG?zg>Dn>J??zh>Do>J??zi>Dn>J>?zj",
    ">Do>J>?zk>Dn>JG?zl>Do>JG?zm>Dn>JA?zn>Do>JA?zo>Dn>Jb?zp>Do>Jb?zq>?W",
    ">J>?zr>?x>J>?zs>?W>Jb?zt>?x>Jb?zu>?W>JG?zv>?x>JG?zw>?W>JA?zx>?x>JA",
    "?{>>Lp>JQ?{?>Lp>JR?{@?{>>J>?{A?{?>J>?{B?{>>J??{C?{?>J??{D?{>>K@?{E",
    "?{?>K@?{F>LO>JQ?{G>LO>JR?{H?{F>J>?{I?{G>J>?{J?{F>J??{K?{G>J??{L?{F",
    ">K@?{M?{G>K@?{N>Lt>JQ?{O>Lt>JR?{P?{N>J>?{Q?{O>J>?{R?{N>J??{S?{O>J?",
    "?{V>LS>JQ?{W>LS>JR?{X?{V>J>?{Y?{W>J>?{Z?{V>J??{[?{W>J??{_>Lv>JQ?{`",
    ">Lv>JR?{a?{_>J>?{b?{`>J>?{c?{_>J??{d?{`>J??{e?{_>K@?{f?{`>K@?{g>LU",
    ">JQ?{h>LU>JR?{i?{g>J>?{j?{h>J>?{k?{g>J??{l?{h>J??{m?{g>K@?{n?{h>K@",
    "?{o>Lx>JQ?{p>Lx>JR?{q?{o>J>?{r?{p>J>?{s?{o>J??{t?{p>J??{u?{o>K@?{v",
    "?{p>K@?{w>LW>JQ?{x>LW>JR?{y?{w>J>?{z?{x>J>?{{?{w>J??{|?{x>J??{}?{w",
    ">K@?{~?{x>K@?|>>L~>JQ?|?>L~>JR?|@?|>>J>?|A?|?>J>?|B?|>>J??|C?|?>J?",
    "?|F>L^>JQ?|G>L^>JR?|H?|F>J>?|I?|G>J>?|J?|F>J??|K?|G>J??|N>MC>JQ?|O",
    ">MC>JR?|P?|N>J>?|Q?|O>J>?|R?|N>J??|S?|O>J??|T?|N>K@?|U?|O>K@?|W>Ld",
    ">JR?|Y?|W>J>?|[?|W>J??|^?|W>K@?|_>MG>JQ?|`>MG>JR?|a?|_>J>?|b?|`>J>",
    "?|c?|_>J??|d?|`>J??|e?|_>K@?|f?|`>K@?|g>Lh>JQ?|h>Lh>JR?|i?|g>J>?|j",
    "?|h>J>?|k?|g>J??|l?|h>J??|m?|g>K@?|n?|h>K@?|o>Lp>J>?|p>Lk>>>?|q>Lt",
    ">J>?|r>Ll>>>?|s>Lv>J>?|t>Lm>>>?|u>Lx>J>?|v>Ln>>>?|w>L~>J>?|x>MJ>>>",
    "?|y>MC>J>?|z>MK>>>?|{>MG>J>?||>ML>>>?}>?{>>KC?}??{?>KC?}@?{@>KC?}A",
    "?{A>KC?}B?{B>KC?}C?{C>KC?}D?{D>KC?}E?{E>KC?}F?{F>KC?}G?{G>KC?}H?{H",
    ">KC?}I?{I>KC?}J?{J>KC?}K?{K>KC?}L?{L>KC?}M?{M>KC?}N?{_>KC?}O?{`>KC",
    "?}P?{a>KC?}Q?{b>KC?}R?{c>KC?}S?{d>KC?}T?{e>KC?}U?{f>KC?}V?{g>KC?}W",
    "?{h>KC?}X?{i>KC?}Y?{j>KC?}Z?{k>KC?}[?{l>KC?}]?{m>KC?}^?{n>KC?}_?|_",
    ">KC?}`?|`>KC?}a?|a>KC?}b?|b>KC?}c?|c>KC?}d?|d>KC?}e?|e>KC?}f?|f>KC",
    "?}g?|g>KC?}h?|h>KC?}i?|i>KC?}j?|j>KC?}k?|k>KC?}l?|l>KC?}m?|m>KC?}n",
    "?|n>KC?}o>Lp>JD?}p>Lp>JB?}q?|o>KC?}r>Lp>KC?}s>Lk>KC?}u>Lp>K@?}v?}u",
    ">KC?}w>LO>JD?}x>LO>JB?}y>LO>J>?}z>LD>>>?}{>LO>KC?}}>Lx>>>?~?>@g>K@",
    "?~@?|s>KC?~A>Lv>KC?~B>Lm>KC?~D>Lv>K@?~E?~D>KC?~F>LS>J>?~G>LF>>>?~H",
    ">LU>J>?~I>LG>>>?~J>LU>KC?~K?}~>J>?~L?}~>J??~M?}~>K@?~N>Lx>JD?~O>Lx",
    ">JB?~P>MH>J>?~Q>LN>>>?~T>Lx>K@?~U>MH>K@?~V>LW>JD?~W>LW>JB?~X>LW>J>",
    "?~Y>LH>>>?~[?~}>J>?~]?~}>J??~^?~}>K@?~_>MC>JD?~`>MC>JB?~a>MI>J>?~b",
    ">Lo>>>?~c>M?>JQ?~d>M?>JR?~e>MC>K@?~f>MI>K@?~g>Ld>JD?~h>Ld>JB?~i>Ld",
    ">J>?~j>LL>>>?~k>L`>JR?~l>@g>J>?~m>LC>>>?~n>?_>>>?~q?|{>KC?~r>MG>KC",
    "?~s>ML>KC?~u>MG>K@?~v?~u>KC?~w>L^>J>?~x>LJ>>>?~y>Lh>J>?~z>LM>>>?~{",
    ">Lh>KC?~|>@s>>>@>>@>@>>>@>?@>A>>>@Be>Lh>>>@Bi>?I>>>@Bj>AC>>>@DX@DN",
    ">Jw@DY@DP>Jw@Dm@DR>Jw@EK@EN>Jw@EL@ER>Jw@EM@EP>Jw@FB@FA>Jw@FG@FF>Jw",
    "@FJ@FI>Jw@Fc@Fb>Jw@Fe@Fd>Jw@G?@F{>Jw@GB@GA>Jw@GE@GC>Jw@GG@GF>Jw@G_",
    ">>|>Jw@Ga@G`>Jw@Gl@GK>Jw@Gm>>{>Jw@Gn>>}>Jw@Go@Gc>Jw@Gp@Gd>Jw@Gs@Gq",
    ">Jw@Gt@Gr>Jw@Gw@Gu>Jw@Gx@Gv>Jw@H>@Gy>Jw@H?@Gz>Jw@HB@H@>Jw@HC@HA>Jw",
    "@HF@HD>Jw@HG@HE>Jw@Hk@Ha>Jw@Hl@Hg>Jw@Hm@Hh>Jw@Hn@Hj>Jw@I_@G{>Jw@I`",
    "@G|>Jw@Ia@HO>Jw@Ib@HP>Jw@Ii@Hq>Jw@Ij@Hr>Jw@Ik@Hs>Jw@Il@Ht>Jw@JhA>F",
    ">>>@JiA>G>>>@jZ@j[>JwA?JA?IA@WA?LA?KA@WA?NA?MA@WA?PA?OA@WA?RA?QA@W",
    "A?TA?SA@WA?VA?UA@WA?XA?WA@WA?ZA?YA@WA?]A?[A@WA?_A?^A@WA?aA?`A@WA?d",
    "A?cA@WA?fA?eA@WA?hA?gA@WA?oA?nA@WA?pA?nA@XA?rA?qA@WA?sA?qA@XA?uA?t",
    "A@WA?vA?tA@XA?xA?wA@WA?yA?wA@XA?{A?zA@WA?|A?zA@XA@RA?DA@WA@]A@[A@W",
    "A@kA@jA@WA@mA@lA@WA@oA@nA@WA@qA@pA@WA@sA@rA@WA@uA@tA@WA@wA@vA@WA@y",
    "A@xA@WA@{A@zA@WA@}A@|A@WAA>A@~A@WAA@AA?A@WAACAABA@WAAEAADA@WAAGAAF",
    "A@WAANAAMA@WAAOAAMA@XAAQAAPA@WAARAAPA@XAATAASA@WAAUAASA@XAAWAAVA@W",
    "AAXAAVA@XAAZAAYA@WAA[AAYA@XAAsA@eA@WAAvAAnA@WAAwAAoA@WAAxAApA@WAAy",
    "AAqA@WAA}AA|A@WMk[>UW>TsMk^>Uq>TvMki>Uh>U?Mkj>Uh>U@MkkMlG>U?MklMlG",
    ">U@Mkm>UN>TvMkn>UN>TwMko>UN>T{Mkp>UO>T{Mkq>UP>T{Mkr>UQ>T{Mks>UR>T{",
    "Mkt>US>T{Mku>UT>T{Mkw>UV>T{Mkx>UW>T{Mky>UX>T{Mkz>UY>T{Mk{>UZ>T{Mk}",
    ">U]>T{Ml>>U_>T{Ml?>U`>T{MlA>Ub>T{MlB>Uc>T{MlD>Ue>T{MlE>Uf>T{MlF>Ug",
    ">T{MlG>Uh>T{MlH>Ui>T{MlI>US>TxMlJ>UO>T~MlK>UY>T~MlL>Uc>T~O@XO@WO@y",
    "O@ZO@YO@yO@jO@dO@yOBmOBpOBfOBnOBqOBfOKIOKEOJ}OKJOKEOKUOPzOPxOPyOP{",
    "OPxOPoOP}OPxOP|OTyOTwOTnOTzOTxOTn[C][CU[Cd[C^[CV[Cd[C_[C^[Cm[C`[C^",
    "[Cn[Ca[C^[Co[Cb[C^[Cp[Cc[C^[Cq[Dz[Dx[Cd[D{[Dy[Cd[D|[Dz[Cm[D}[D{[Cm",
    "[D~[Dz[Cn[E>[D{[Cn",
};

/* What compatibility ideographs stand for, 3 digits each, from U+F900 and
 * from U+2F800 on; 0: themselves. */
static const char TXT_IDEOGRAPH[47][67] = {
    "FpFDYsFzHFrFDzOBwqCMdG}ZG}ZCdOGEOCTECdFDEuEWhE}CFV~F]yFbwG@MDg@DsY",
    "EAWEM]FN|GCiGfpBy@CKtDkBEFYFVlGw]CtND~jFUKFdcDIGFEVF_^CzHDZUDtiEI{",
    "GALB}DCDvCI]DQBDjQEFNEYfF>?FVDFWZFvnGZqGlnGvyEaJEd~Eu_FMGGJBGx~FjT",
    "Cb^C{BEp_F?}EGaEbHFr@GYvCbVCpaDgQDvXD{MEsnEwvGWICIPF@ICEZCEJEgZEu}",
    "FMpGWtFm>DIMDg@Fj}BwxCnfD>PELEESoCJUEbzB}~C}hBwKDrJDSwEsaCMAC`]EZ?",
    "FOGFiiDmyF}oDqFDI}FIdDL_ESdBymCChCEGDa?ErfFGnFjPGEMCItCO@CdrCzkDUC",
    "D~}EciGTlGhiGyUGzLCHYDYDDlvF|aCxsDDNDF>DPXD{bECGEPGEfHEvsF?nF{eFQm",
    "G>bGKHCFUCHbCP|EAFFb@FiiCzGC~tDKzDmmEo}EKtBzcCYxCnfCuyD>ZELqEOhE}X",
    "F?DGFsGYuG[FG_VB}IEemGDsGXwDA`ByDCAXCnmCo~DTWDg@EELEW@FQ{G?{G}KDXF",
    "GVmCHGD[zD^rDt?DyZENGESWE`jEsNG`]CClDFmGWwC>jCsWDviF{iC}IDCBD_UELE",
    "GXDCFhCNMCpdDVQD[LDagDrdENDEUaE|xFbMFb`GEJGYaCJ~DyyCN[EENEPVFUyGXb",
    "GpUGy^D]UDvIFEgEjIEk_EqPEI>E@WFlVBz>FJuCFyCFECyeDIQErTCmCDs]DXsF{z",
    "F`JGWKFeICzQCC>CU>>>>>>>C`X>>>DWs>>>>>>CE]EJiEYHEc{Ed]EddEeMG[TEq}",
    "E}|>>>FVP>>>Fjw>>>>>>G>wGA|>>>>>>>>>GbnGb{GcgGusGA]GXvB}mCAfCCKCIG",
    "CIcCKOCT[CVDCWgC`>CagCpcCpmD@RDCgDDLDEqDSMDUaDXODaCDtvDwXD{aECmEFj",
    "ENaEaOEc}EdGEdFEdNEdTEd[EeKEeLEh>Ei?En>EvsEwGEx?E|qF>CFElFGxFGxFOU",
    "FcNFeTFk?FkxFrQFsFF}uG>wGYbG^~G_zD?tcImFFV>>>>>>BweCDtCCgB}>CCCCD>",
    "CIECIyCT[CSSCTWCUaC`XCarCdBCdRChaCkgCzPCzWC|hC}lDAVDCLDBFDDLDC_DEq",
    "DFsDMBDNZDOPDSTDWsDZUDZYD[TDlxDmyDt?DzYDzID{aE>]ECmE]fEFtEHnEJiEOp",
    "ERDERzEV[EV^EYHEYYEYsE[HE[>EbJEipEn>EpzEtYEvsE{}F>CFKPFMnF[xFd?FeD",
    "FeTFi~FjwFjIFk?Fj}FjlFkxFmHFsFF{wG?qGDWGGuGW{GYbG[TG^YG^~G_IG_zGkP",
    "G}Za`Ha`BbMSAm[B>VB>xdGGdrNfzQG|AG}LBw|BwwBx?_BaB|_B}mB}zC>@C?yC@W",
    "CAfCAMAP]_VyCCKCCRCCcCCv_RZAPxCCfCDK_SICDUCDcBzJCDkCDthE^CEtCFAAQ^",
    "CFzCGDCGqCGvARSCIECIGCIcCIyCJCCJDCJUCKGCKOCKXCKrCK|CK~CK~CK~_gkE?o",
    "CMHCM^_lbCMjCMpCNDCP]CNwCOFCOgCPaCQuCRNCSQCSbCTBCTBCTWCTjCTrCU@CZT",
    "CVDCZUCWOCWsCFECbmC^LC^sC_KC]IC_qC_pCak`QcCbqCbvCcDCcXCcaCda`Xg`Yi",
    "CfkCgYCgfCfVCheAYmAY{CkFCk}Ck}`fFCnACnVCnfCnr`kVCn~CoDC|QCoaA]?Cp_",
    "CpmCr>CqK`vcCtA`veCtmCtjCt{Cv`CvaA_nCv|CwgCw|CxhA`aaDAA`{CyoCyrCyu",
    "CzHiLPCz}aJpaJpFF?C{aC{aAbEbHweEXC|aC|jAbbC}XC~KC~UC~xD@?AcyAcZD@R",
    "aYRDAEDCFDCJDCLDCJDCyDDLDDqDDcDDnDE]DEqDEuDFNDFYDG[DHpDIRDKNakJDJ|",
    "DI{DKgDLADMcanpDNaDMCDLhAgmDOhDO}DP[DOvAhkDSMDSkb>HDUbDYwDWGAkWDXO",
    "AkFAjcCDPCDSDZ>DXZF@lBMWDZUDZYDZ`D[]D[QbMAAlGD^yD]CD`PDaCbOlDaLD_^",
    "DcRAm[Dd@DebDfiDigbXbDjYAoVDk`bafDlRApLDlqDm^DmyDmzbiK`sIbjyDpLbq{",
    "Dq~DrKDpfDsTDs}DtvDt?DthDtwDuCbs]DssDwnDxmAsrDzIDzEbzODvxD|mb|]b}L",
    "D~DE>xE>]E>YAuTE?HE?|E?vE@l_RdECCcGbEDZcLjEFgEFtEGNcVFEH>EHScZtc_R",
    "EKyELIAykELdAywAywEOEEOZEOpEPCEQHA{YERccouER}cqPESoaD^EVNc}`c}wd?B",
    "A~{B>FEYsdArdAqdBWdBrEZ]EZ^EZ^E[HB>xE]IB?DB@TdN[E`LEaJEbJBAbdVeEdT",
    "dXXdYCEeMEfjBBnEh>EhHEhMdd{difdifEjmBF@dmjEnDEnGBFfdq>ErPBH_ErgErb",
    "Es>d}DEtbBJ?EvEEw@ExCBJseFgeGEBKWeIWE|yeJ}E}SE~yF>CeQXeRbF?_eTgF?o",
    "bK^BMSF@qFBABNIFB}Cite]fe]tbLQbLZFF?FFBF}]BOjFHOFHIFH[CHrFHpFHrFH|",
    "FIeek{FIdFJ[FKbFLlFJbFL|FMfFOUFKQFMHFMJFMZeouetjerSBRjFQpFQrFRTfMH",
    "FSce{kBS[BS`e}pfAPBSjFWNFWZFWfFWhFXhFXFFZLFYaF[xFZgF[jF]DBUUF^`F_?",
    "BUxF`_F`bfWfFbUFb]BVtFbyAPzfamfdeBX}BYEFi_FjlFmHFpSfqgFqjFr?FsYFtv",
    "f{n__BFvIFu{Fvo_b]FzRF{wgUPgUlG@RGApGBOgZmGBYGFwGIUGIVGG{GMxGNSgny",
    "GTIBeSGTvgtvBfeGYACuqGZbhCChFXBhmBhuG^_hNHBiqhPTG_IG_IG_hhTuGbaBkr",
    "GchGefGf@Gf}BnLhkoGkPGp>Gr|BrLBrlGtfiALBrwiBCiFLiHOGyzBtTGzxGz}G{C",
    "G{MG{TG{ziV>",
};

/* The rows of TXT_PARTS that compose (940), 2 digits each, in the order of
 * their parts. */
static const char TXT_PAIR[29][67] = {
    "LNLKLO>>>?>@>A>t>vAm>BF{>C@dANAPFyD^>xD`DbDd>z>|>~?\?>DDh?ADjDnDpDl",
    ">E>F>GGT?C?E?G>HGR?KARATGPAo?IDvDxD|AD?MD~?O?Q@z?S?UE?ECAkEAEEEG>I",
    ">J>K?W?Y?[?`>LGa@fAVAXGc?^EI?aEM@|EO?cEQ?e?iES?gEYEWE[E^E`AF?k>MEb",
    "?oEd?mEhEf>N>O>P>Q?q?sAu>RGg?u@hAZA]@`Ge@~ErEt?wEv?{A_AaEx?yE|?}@>",
    "E~@BF?Ag@@FG@FFIAi@DFMFK>S>T>U@H@J@L>VH>@N@P@jAcAe@bG}FO@RFSFQFYF[",
    "F^F`@TFdFbFfFhFjHJ>W@VHPAyFl@XHNHL@YFn@[@^FpFr>X>Y>Z>[>u>wAn>]F|>^",
    "@eAOAQFzD_>yDaDcDe>{>}?>?@>_Di?BDkDoDqDm>`>a>bGU?D?F?H>cGS?LASAUGQ",
    "Ap?JDwDyD}AE?NE>?P?R@{?T?VE@EDAlEBEFEHFt>d>e>f?X?Z?]>gGb@gAWAYGd?_",
    "EJ?bACEN@}EP?dER?f?jET?hEZEXE]E_EaAG?l>hEc?pEe?nEiEg>i>j>k>l?r?tAv",
    ">mGh?v@iA[A^@aGfA>EsEu?xEw?|A`AbEy?zE}?~@?F>@CF@Ah@AFHFu@GFJAj@EFN",
    "FL>n>o>p@I@K@M>qH?@O@Q@kAdAf@cG~FP@SFTFRFZF]F_Fa@UFeFcFvFgFiFkHK>r",
    "@WHQAzFm>sHOFwHM@ZFo@]@_FqFsKjB@KAG>F}GBG@@tAHAJ@xDfGXGVG]GZEKGkGi",
    "GoGmEjAsElAqAL@r@n@l@pG?F~GCGA@uAIAK@yDgGYGWG^G[ELGlGjGpGnEkAtEmAr",
    "AM@s@o@m@qGHGFGLGJGIGGGMGKDrDtDsDuEnEpEoEqFAFBFCFDFUFVFWFXFxGuGsGy",
    "GwG{GvGtGzGxG|HBH@HFHDHHHCHAHGHEHIAAA?A@@v@wDzD{AwAxABJ~BAJ}J|HZH[",
    "K?KGBCHiHjKIBDHwHxKKKWBEKVKUBJIFIGKrBFITIUKiKgBGKfKeBKIcKtBHIoIpKv",
    "JyKDIwBLJvJuHRHSJzJxIyBMHcHdI{BNHoHpKEKCI}BOKPKOBQI>I?KSJ>BSINIOKa",
    "KbJ@BTK^K]BRIZI[KcJBBUIgIhKpKnKQBIKTK_BPKdKoBVBWB[BmBoBZBXBqBYBkBu",
    "BwB^ByB`B{B]B}CBB_CDCFCHCJC@BnBpBdBbBrBcBlBvBxBgBzBaB|BfB~CCBhCECG",
    "CICKCABeBiBjBsBtC>C?CLCMCOCNCPCRCSCQCTCUCVC`CaClCkCmCpCqCsCrCtCuCx",
    "CvCwCyCzC|C{C}C~D?D>DQDRDSDTDUDVDWDXDYDZD[D]EUEVEzE{FEFFGDGNGEGOG_",
    "G`GqGrHTHVHXJDHUHWHYJEJFJGJHJIJJJKH]H_HaJLH^H`HbJMJNJOJPJQJRJSHeHg",
    "HfHhHkHmHlHnHqHsHuJTHrHtHvJUJVJWJXJYJZJ[HyH{H}J]HzH|H~J^J_J`JaJbJc",
    "JdI@IBIDIAICIEIHIJILIIIKIMIPIRIQISIVIXIWIYI]I_IaI^I`IbIdIeIfIiIkIm",
    "JeIjIlInJfJgJhJiJjJkJlIqIsIuJmIrItIvJnJoJpJqJrJsJtJwKBKmJ{KLKMKNKF",
    "KqKYKZK[K}K~L>L?LAL@LBLCLDLELFLGLHLILJLMLLLPLQLRLSLTLULVLWLaLbLXLY",
    "LZL[LcLdL]L^L_L`LeLfLgLhMDLlLmLnLoLpLqLrLsLtLuLvLwLxLyLzL{L|L}L~M>",
    "M?M@MAMBMCMEM`MFMGMHMIMJMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZM[M]M^M_Ma",
    "MbMcMdMeNGNHNINJNKNLNMNONNNPNQNR",
};

/* The 23 second parts of class 0, 3 digits each, without jamo. */
static const char TXT_SECOND[2][67] = {
    ">e}>fU>k}>lT>lU>m}>nU>r@>rS>rT>s}>tU>vM>v^?>m?ktOBfOJ}OKUOPoOPyOP|",
    "OTn",
};

enum {
    TXT_N_MARKS = 333, TXT_N_PARTS = 1058, TXT_N_PAIRS = 940, TXT_N_SECOND = 23
};

/* Grapheme_Cluster_Break below U+E01F0, 696 ranges in the form of TXT_MARKS. */
static const char TXT_CLUSTER[64][67] = {
    ">>>>cA>>?N>@>>?VBA>>?g>?>>?pBA>>My>A>>SF>G>>Sg>A>>So>G>?_D{B>@NVVB",
    ">@qHoB>@vw>B>@wFBB>@w_BB>@ww>B>A>>RE>A@>gB>AA_>A>AGWNB>AL>>B>AXoVB",
    ">AYg>E>AYwRB>AZwBB>A[NJB>A`w>E>AaF>B>Ae?gB>AsogB>A|V_B>A~g>B>B@oJB",
    ">BAV_B>BBgFB>BCFNB>BIFFB>BP>BE>BPw_B>BWOZB>BZN>E>BZW{B>B_V>F>BaiNH",
    ">BfN>B>BfV>F>Bf_>B>BfoFF>BgFZB>BhFJF>Bhg>I>BhoBF>BiFVB>Bj>ZH>BkNBB",
    ">Bn>ZH>BoF>B>BoNBF>BqhJH>BtNVH>BuN>H>BuoJH>Bv_>B>Bvo>B>BvwBF>BwFJB",
    ">BwwBF>BxVBF>Bxg>I>Byw>B>Bz_BH>Bzw>H>B{NBB>B}>BH>B~o>B>C>FBB>C>V>F",
    ">CE_>B>CEoFF>CFFBB>CFwBB>CGVFB>CHF>B>CL>BB>CLg>B>CNFBB>CNV>F>CPhJH",
    ">CSNVH>CTNBH>CTgNH>CU_>B>CUoFF>CVFNB>CVwBB>CWF>F>CWVBF>CWg>I>CZNBB",
    ">C^F>H>C^NRB>C_F>B>C_NBF>CahJH>CdNVH>CeNBH>CegNH>Cf_>B>CfoBB>Cg>>F",
    ">CgFJB>CgwBF>ChVBF>Chg>I>CigFB>Cj_BH>Cjw>H>CkNBB>CmF>H>CoN>B>Cvo>B",
    ">Cvw>F>Cw>>B>CwFBF>CwoFF>CxNFF>Cxg>B>Cyw>B>D>>>B>D>FFF>D>_>B>D@hJH",
    ">DCN{H>DE_>B>DEoFB>DFFJF>DFoFB>DGNFB>DGg>I>DHgBB>DI>FH>DJNBB>DNF>B",
    ">DNNBF>DU_>B>DUo>F>DUwBB>DVF>F>DVN>B>DVVBF>DVoFB>DWNJB>DXgBB>DZNBB",
    ">D]V>F>D_>BB>D_NBF>DaiRH>DfVBB>Dfo>B>DfwBF>DgFJB>DgoFF>DhNFF>Dhg>I",
    ">Dho>E>Diw>B>DkNBB>DoF>B>DoNBF>DxN>B>Dxw>B>Dy>BF>DyNFB>Dyo>B>Dz>VF",
    ">Dzw>B>D}NBF>EDF>B>EDV>F>ED_VB>EFwZB>ETF>B>ETV>F>ET__B>EW>VB>Eb>BB",
    ">Eeg>B>Eew>B>EfF>B>EfoBF>EmFsB>Enw>F>Eo>NB>EooBB>EpggB>ErHJB>Ewo>B",
    ">FCgJB>FDF>F>FDNRB>FEFBB>FEVBF>FEgBB>FHoBF>FI>BB>FIoFB>FLFJB>FNN>B",
    ">FN_>F>FNgBB>FOg>B>FQg>B>GjgFB>IaNJB>IeNFB>IiNBB>ImNBB>Iu_BB>Iuo>F",
    ">IuwVB>IvoZF>Iwo>B>IwwBF>IxFgB>Izg>B>J?VFB>J?o>A>J?w>B>JNgBB>JSF>B",
    ">Jc>FB>JcVJF>JcwBB>JdFFF>Je>BF>JeN>B>JeVRF>JfFFB>K@wBB>KAFBF>KAV>B",
    ">KHg>F>KHo>B>KHw>F>KI>VB>KJ>>B>KJN>B>KJgZB>KKgRF>KLVcB>KMw>B>KT?wB",
    ">K_>JB>K__>F>Ke_cB>KfoJF>KgNFB>KlV_B>Ko>BB>KoN>F>KsF>F>KsNJB>KsoBF",
    ">Kt>RB>K{o>B>K{w>F>K|>BB>K|NFF>K|g>B>K|o>F>K|wNB>LB_ZF>LC_ZB>LD_BF",
    ">LDoBB>LX>FB>LX_oB>LZF>F>LZNVB>L[g>B>L]_>B>L]w>F>L^>BB>LwA{B>N?V>A",
    ">N?_>J>N?g>C>N?oBA>NC>VA>NE_>G>NGF>G>NJ>{A>NX@>B>NcN>G>NfF>G>Nq_RG",
    ">NtFBG>ObNBG>Od>>G>Op>>G>Oxw>G>O|FgG>O~>FG>PVN>G>PtNBG>Puo>G>Pw>>G",
    ">P~VJG>Q>>RG>Q>wkG>Q@fBG>QPERG>Q`>gG>Qa_>G>Qao>G>Qbg>G>QcF>G>Qd>>G",
    ">QeVBG>Qg_>G>Qgw>G>Qh_>G>Qho>G>QiVFG>Qiw>G>QkVNG>QqgFG>QsF>G>Qu>>G",
    ">Qvw>G>Re_BG>S_gFG>SbVBG>Si>>G>Sig>G>T[wFB>Tnw>B>T{?{B>VCNRB>VD>>G",
    ">VEg>G>VQFBB>WPw>G>WQF>G?QKwJB?QL_cB?QQoBB?Q]>BB?R>N>B?R>o>B?R?V>B",
    "?RBVBF?RBgBB?RBw>F?RC_>B?RN>BF?RT_{F?RV_BB?RZ?BB?R^w>B?RcoZB?RgwgB",
    "?RiN>F?RiV>B?Ro>FB?RoV>F?RuV>B?Ru_BF?RuoJB?RvNBF?Rv_BB?RvoBF?Rw>>B",
    "?R{g>B?SCFRB?SCwBF?SDFBB?SDVBF?SDgBB?SFV>B?SG_>B?SGg>F?SM_>B?ST>>B",
    "?STNFB?STwBB?SUoBB?SVF>B?S[V>F?S[_BB?S[oBF?S]g>F?S]o>B?S{VBF?S{g>B",
    "?S{oBF?S|>>B?S|FBF?S|_>F?S|g>B?|bo>B?~>>{B?~B>{B?~^w>A?~roBB?~}>kA",
    "@>~g>B@?Z>>B@?moNB@C>FFB@C>gBB@C?_JB@CE>FB@CEw>B@CZgBB@Dc_JB@DlFNB",
    "@ESVBB@E^_JB@EgogB@EoNJB@F>>>F@F>F>B@F>N>F@FE>wB@FL>>B@FLVBB@FMwFB",
    "@FNN>F@FT>FF@FTVJB@FTwBF@FUFBB@FUg>E@FVN>B@FWg>E@F_>FB@FcwNB@Fd_>F",
    "@FdgZB@FggBF@FmV>B@Fo>BB@FoN>F@FuVFF@Fuo_B@Fvw>F@Fw>>B@FwNBE@FxFJB",
    "@Fxo>F@Fxw>B@GC_FF@GCwFB@GDNBF@GD_JB@GEo>B@GFF>B@GYw>B@GZ>FF@GZVZB",
    "@G_>BB@G_NBF@GfVBB@Gfo>B@Gfw>F@Gg>>B@GgFJF@GgwBF@GhVBF@Ghg>B@Giw>B",
    "@GkNBF@GkoVB@Gm>NB@Gv>>B@GvFBF@GvVRB@GwN>B@Gwg>B@GwwFB@GxN>F@Gx_BF",
    "@GxoFB@GyF>E@GyN>B@G{FBB@HDgFF@HE>ZB@HF>BF@HFNFB@HFg>F@HFo>B@HIo>B",
    "@HT>>B@HTFBF@HTVRB@HUF>F@HUN>B@HUVBF@HUg>B@HUo>F@HUwBB@HVF>F@HVNBB",
    "@Htw>B@Hu>BF@HuNJB@Hv>JF@Hv_BB@Hvo>F@HvwBB@Hz_BB@ID>FF@IDVZB@IEVBF",
    "@IEg>B@IEo>F@IEwBB@ISV>B@IS_>F@ISg>B@ISoBF@IT>ZB@Ibg>B@Ibo>F@Ibw>B",
    "@IcNJB@Ico>F@IcwNB@JC_FF@JCw_B@JE>>F@JEFBB@Je>>B@JeFNF@JewBF@JfVJB",
    "@Jfw>E@Jg>>F@JgF>E@JgN>F@JgV>B@JyFFF@Jy_JB@JzNBB@Jz_JF@J{>>B@J{_>F",
    "@K>FcB@KDVRB@KEF>F@KEN>E@KEVJB@KFw>B@KHFRB@KHwBF@KIFFB@KN_RE@KONoB",
    "@KPw>F@KQ>BB@LCw>F@LD>VB@LE>RB@LEo>F@LEw>B@LPORB@LSF>F@LSNVB@LTF>F",
    "@LTNBB@LT_>F@LTgBB@LeFRB@LfN>B@Lf_BB@LfwVB@Lgo>E@Lgw>B@LpNNF@Lq>BB",
    "@LqVBF@Lqg>B@Lqo>F@Lqw>B@M]VBB@M]gBF@M_>BB@M_N>E@M_V>F@Me_BF@MeoNB",
    "@MfoBF@Mg>FB@MjN>B@XD>{A@XF>>B@XFwwB@obokB@odNFF@odgFB@t]>NB@te>VB",
    "@vhw>B@viIVF@vpwJB@v{_>B@v}>BBA]QgBBA]R>JAAf_@sBAfe?VBAgkgNBAglgRB",
    "AgmVZAAgnVZBAgogVBAgtNJBAhFNFBAl>AVBAlEYBBAlLg>BAlN_>BAlQVNBAlRFwB",
    "Ao>>VBAo?\?>BAoAVVBAoBVBBAoBoNBAoOw>BAoe>VBApSo>BAp[_JBAq[_JBAq|oBB",
    "AsX>VBAsg_VBAw>@kGAwDDJGAwR>wGAwTFwGAwVFwGAwXHNGAw`gFGAwdw>GAwl_RG",
    "AwnoBGAwpo>GAwqFcGAwtg>GAw{pcDAx>FBGAxAN>GAxCw>GAxDN_GAxH>BGAxJ>RG",
    "Ax_E{GAxoEgGAx~VNBAy>E{GAyNE{GAy_AsGAygv{GAywv{GAzFocGAzNCZGAzY`>G",
    "Az]>oGAzm_FGAznVNGAzygNGAz{>kGAz}>>GA{T>kGA{V>BGA{`awGA{f_cGA{g~{G",
    "A{w~{GA|FwoGA|J>sGA|L>oGA|N>cGA|OzZGA|WowGA|YwgGA|]>_GZ>>?{AZ>BC{B",
    "Z>NE{AZ>_E{BZ>oD{B",
};

enum { TXT_N_CLUSTER = 696 };

/* ---- UTF-8 ---- */

/* Looks at the n > 0 bytes at p (table 3-7 of the Unicode standard).
 *   > 0  the length of the character that they begin with
 *   0    all n of them (1 to 3) begin a character that needs more
 *   < 0  minus the length of a maximal subpart that cannot become one */
static int txt_measure(const u8 *p, size_t n) {
    u32 lead = p[0], low = 0x80, high = 0xbf;
    int need = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2
        : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (!need) return -1;
    if (lead == 0xe0) low = 0xa0; /* overlong */
    else if (lead == 0xed) high = 0x9f; /* surrogates */
    else if (lead == 0xf0) low = 0x90; /* overlong */
    else if (lead == 0xf4) high = 0x8f; /* beyond U+10FFFF */
    for (int i = 1; i < need; i++) {
        if ((size_t)i == n) return 0;
        if (p[i] < low || p[i] > high) return -i;
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

/* Whether p begins a character of U+1000 to U+CFFF, which most of Hangul is:
 * txt_measure says the same, later. */
KS_INLINE bool txt_is_common(const u8 *p, const u8 *end) {
    return p[0] >= 0xe1 && p[0] <= 0xec && end - p >= 3
        && ((p[1] ^ 0x80) | (p[2] ^ 0x80)) < 0x40;
}

/* Reads the character at p < end; returns its length in bytes. */
static u32 txt_next(const u8 *p, const u8 *end, u32 *cp) {
    *cp = p[0];
    if (p[0] < 0x80) return 1;
    if (txt_is_common(p, end)) {
        *cp = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
        return 3;
    }
    int n = txt_measure(p, (size_t)(end - p));
    if (n <= 0) {
        *cp = TXT_BAD;
        return n < 0 ? (u32)-n : (u32)(end - p);
    }
    *cp &= 0xffu >> (n + 1);
    for (int i = 1; i < n; i++) *cp = *cp << 6 | (p[i] & 0x3fu);
    return (u32)n;
}

/* The first place from p on that is no whole character, or end. */
static const u8 *txt_valid(const u8 *p, const u8 *end) {
    while (p < end) {
        int n = *p < 0x80 ? 1 : txt_is_common(p, end) ? 3
            : txt_measure(p, (size_t)(end - p));
        if (n <= 0) break;
        p += n;
    }
    return p;
}

/* Writes cp (at most U+10FFFF) as UTF-8; returns the number of bytes, 1 to
 * 4. */
static u32 txt_put(u8 *out, u32 cp) {
    static const u8 lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    u32 n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (u32 i = n - 1; i > 0; i--, cp >>= 6) out[i] = (u8)(0x80 | (cp & 0x3f));
    out[0] = (u8)(lead[n] | cp);
    return n;
}

/* ---- tables ---- */

/* Hangul by arithmetic (Unicode 3.12): 19 leading consonants L, 21 vowels V,
 * and 28 trailing consonants T, of which 0 is none.
 *     syllable = S + (L * 21 + V) * 28 + T */
enum {
    TXT_L = 0x1100, TXT_V = 0x1161, TXT_T = 0x11a7, TXT_S = 0xac00,
    TXT_L_N = 19, TXT_V_N = 21, TXT_T_N = 28,
    TXT_S_N = TXT_L_N * TXT_V_N * TXT_T_N
};

/* The value of a digit; `zero` is the digit 0. */
KS_INLINE u32 txt_digit(char c, char zero) {
    return (u32)(c - zero - (c > '\\'));
}

KS_INLINE u32 txt_two(const char *p) {
    return txt_digit(p[0], '>') << 6 | txt_digit(p[1], '>');
}

/* Number `at` of a table whose numbers have n digits. n divides 66, so no
 * number lies on two rows. */
static u64 txt_number(const char (*table)[67], size_t at, u32 n) {
    const char *p = &table[at * n / 66][at * n % 66];
    u64 v = 0;
    for (u32 i = 0; i < n; i++) v = v << 6 | txt_digit(p[i], '>');
    return v;
}

/* The value of the range of a sorted table that cp lies in, 0 for none. */
static u32 txt_range_value(const char (*table)[67], size_t n, u32 cp) {
    size_t low = 0;
    while (low < n) {
        size_t mid = (low + n) / 2;
        u64 v = txt_number(table, mid, 6);
        u32 first = (u32)(v >> 15);
        if (cp < first) n = mid;
        else if (cp - first > (v >> 8 & 127)) low = mid + 1;
        else return (u32)v & 255;
    }
    return 0;
}

static txt_class txt_class_of(u32 cp) {
    if (cp - TXT_S < TXT_S_N) return TXT_LETTER; /* nearly all of Korean */
    if (cp < 0x80) return (txt_class)(TXT_ASCII[cp >> 6][cp & 63] - '0');
    if (cp < 0x20000) {
        u32 page = txt_two(&TXT_PAGE[cp >> 13][cp >> 7 & 62]);
        u32 block = txt_two(
            &TXT_BLOCK[page >> 1][(page & 1) << 5 | (cp >> 3 & 30)]);
        u32 both = txt_digit(
            TXT_CLASS[block >> 3][(block & 7) << 3 | (cp >> 1 & 7)], '(');
        return (txt_class)(cp & 1 ? both / 9 : both % 9);
    }
    for (size_t i = 0; i < KS_LEN(TXT_FAR); i++)
        if (cp >= TXT_FAR[i].first && cp <= TXT_FAR[i].last)
            return (txt_class)TXT_FAR[i].class_;
    return TXT_OTHER;
}

/* Canonical combining class: 0 for letters; marks are sorted by it. */
static u32 txt_mark_class(u32 cp) {
    return txt_range_value(TXT_MARKS, TXT_N_MARKS, cp);
}

/* ---- composition ---- */

/* Composes a leading consonant with a vowel, or a syllable that has no
 * trailing consonant with one; 0 for any other two. */
static u32 txt_hangul(u32 a, u32 b) {
    if (a - TXT_L < TXT_L_N && b - TXT_V < TXT_V_N)
        return TXT_S + ((a - TXT_L) * TXT_V_N + (b - TXT_V)) * TXT_T_N;
    if (a - TXT_S < TXT_S_N && (a - TXT_S) % TXT_T_N == 0
        && b - TXT_T - 1 < TXT_T_N - 1)
        return a + (b - TXT_T);
    return 0;
}

/* Row i of TXT_PARTS: the character for which = 0, its parts for 1 and 2. */
static u32 txt_part(size_t i, u32 which) {
    return (u32)txt_number(TXT_PARTS, 3 * i + which, 3);
}

/* One step of canonical decomposition: false when cp has none; *b is 0 when
 * cp becomes one other character. Hangul syllables count as having none: they
 * would only be composed again. */
static bool txt_decompose(u32 cp, u32 *a, u32 *b) {
    size_t low = 0, high = TXT_N_PARTS;
    *b = 0;
    if (cp - 0xf900u < 474 || cp - 0x2f800u < 542) {
        low = cp < 0x2f800 ? cp - 0xf900u : cp - 0x2f800u + 474;
        *a = (u32)txt_number(TXT_IDEOGRAPH, low, 3);
        return *a != 0;
    }
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (txt_part(mid, 0) < cp) low = mid + 1;
        else high = mid;
    }
    if (low == TXT_N_PARTS || txt_part(low, 0) != cp) return false;
    *a = txt_part(low, 1);
    *b = txt_part(low, 2);
    return true;
}

/* The character that a and b compose to, or 0. */
static u32 txt_compose(u32 a, u32 b) {
    size_t low = 0, high = TXT_N_PAIRS;
    u32 both = txt_hangul(a, b);
    while (low < high && !both) {
        size_t mid = (low + high) / 2;
        size_t row = (size_t)txt_number(TXT_PAIR, mid, 2);
        u32 x = txt_part(row, 1), y = txt_part(row, 2);
        if (x == a && y == b) both = txt_part(row, 0);
        else if (x < a || (x == a && y < b)) low = mid + 1;
        else high = mid;
    }
    return both;
}

/* Whether NFC might change cp or join it to its neighbour. May say yes too
 * often. */
static bool txt_may_change(u32 cp) {
    u32 a, b;
    if (cp < 0x300 || (cp >= 0x3400 && cp < 0xa000)
        || cp - TXT_S < TXT_S_N || cp == TXT_BAD)
        return false;
    if (cp - TXT_V < TXT_V_N || cp - TXT_T - 1 < TXT_T_N - 1) return true;
    for (size_t i = 0; i < TXT_N_SECOND; i++)
        if (txt_number(TXT_SECOND, i, 3) == cp) return true;
    return txt_mark_class(cp) || txt_decompose(cp, &a, &b);
}

/* The end of the text from p on that NFC surely leaves unchanged: all of it,
 * or up to the last character before one that may change, for it may change
 * with that one. */
static const u8 *txt_nfc_span(const u8 *p, const u8 *end) {
    const u8 *start = p; /* of the last character */
    while (p < end) {
        if (p[0] < 0x80) {
            start = p++;
            continue;
        }
        u32 cp, n = txt_next(p, end, &cp);
        if (txt_may_change(cp)) return start;
        start = p;
        p += n;
    }
    return end;
}

/* Characters that are ordered and composed together. A letter with more marks
 * is done in parts: Unicode calls 30 a lot (UAX 15, stream-safe text). */
enum { TXT_RUN = 64 };

typedef struct {
    u32 cp[TXT_RUN];
    u8 mark[TXT_RUN]; /* txt_mark_class of each */
    u32 n;
} txt_run;

/* Inserts cp after marks of its class or a lower one. A character of class 0
 * is never passed. */
static void txt_run_add(txt_run *r, u32 cp) {
    u32 mark = txt_mark_class(cp), i = r->n++;
    while (mark && i > 0 && r->mark[i - 1] > mark) {
        r->cp[i] = r->cp[i - 1];
        r->mark[i] = r->mark[i - 1];
        i--;
    }
    r->cp[i] = cp;
    r->mark[i] = (u8)mark;
}

/* Adds the full canonical decomposition. Second parts never decompose, so the
 * first parts are a chain of at most 4. */
static void txt_run_split(txt_run *r, u32 cp) {
    u32 tail[4], n = 0, a, b;
    while (n < 4 && txt_decompose(cp, &a, &b)) {
        if (b) tail[n++] = b;
        cp = a;
    }
    txt_run_add(r, cp);
    while (n > 0) txt_run_add(r, tail[--n]);
}

/* Composes the run in place (Unicode 3.11, D117). A mark composes with the
 * starter unless a mark of its class or a higher one stands between them. */
static void txt_run_compose(txt_run *r) {
    u32 starter = 0, n = 1;
    for (u32 i = 1; i < r->n; i++) {
        u32 cp = r->cp[i], mark = r->mark[i];
        bool clear = n == starter + 1 || mark > r->mark[n - 1];
        u32 both = clear && !r->mark[starter]
            ? txt_compose(r->cp[starter], cp) : 0;
        if (both) {
            r->cp[starter] = both;
            continue;
        }
        if (!mark) starter = n;
        r->cp[n] = cp;
        r->mark[n++] = (u8)mark;
    }
    r->n = n;
}

/* Where normalised text goes. n also counts what does not fit. */
typedef struct {
    u8 *out;
    size_t n, cap;
} txt_sink;

static void txt_write(txt_sink *s, const u8 *p, size_t n) {
    if (s->n + n <= s->cap) memcpy(s->out + s->n, p, n);
    s->n += n;
}

static void txt_run_flush(txt_run *r, txt_sink *s) {
    u8 bytes[4];
    if (r->n) txt_run_compose(r);
    for (u32 i = 0; i < r->n; i++)
        txt_write(s, bytes, txt_put(bytes, r->cp[i]));
    r->n = 0;
}

/* NFC of [p, end). Writes at most cap bytes; returns the full length: up to 3
 * for 1 (U+1D160, which stays decomposed), less than the input in any
 * language. Bytes that are no character are copied. */
static size_t txt_nfc(const u8 *p, const u8 *end, u8 *out, size_t cap) {
    txt_sink sink = {out, 0, cap};
    txt_run run;
    run.n = 0;
    while (p < end) {
        const u8 *safe = txt_nfc_span(p, end);
        if (safe > p) {
            txt_run_flush(&run, &sink);
            txt_write(&sink, p, (size_t)(safe - p));
            p = safe;
            continue;
        }
        u32 cp, n = txt_next(p, end, &cp);
        /* Nothing before such a character can change with it. */
        if (!txt_may_change(cp) || run.n > TXT_RUN - 5)
            txt_run_flush(&run, &sink);
        if (cp == TXT_BAD) txt_write(&sink, p, n);
        else txt_run_split(&run, cp);
        p += n;
    }
    txt_run_flush(&run, &sink);
    return sink.n;
}

/* The character at p if it has three bytes, as jamo and syllables have, or
 * 0. */
static u32 txt_three(const u8 *p, const u8 *end) {
    u32 cp;
    return end - p >= 3 && txt_next(p, end, &cp) == 3 ? cp : 0;
}

/* The first place from p on where two characters compose to Hangul, or end. */
static const u8 *txt_hangul_find(const u8 *p, const u8 *end) {
    for (; end - p >= 6; p++) {
        /* Vowels and trailing consonants are E1 85 A1 to E1 87 82. */
        if (p[3] == 0xe1 && p[4] >= 0x85 && p[4] <= 0x87
            && txt_hangul(txt_three(p, end), txt_three(p + 3, end)))
            return p;
    }
    return end;
}

/* Composes decomposed Hangul and nothing else. Every composition turns six
 * bytes into three, so end - p bytes at `out` are enough. Returns the
 * length. */
static size_t txt_hangul_join(const u8 *p, const u8 *end, u8 *out) {
    const u8 *begin = out;
    for (;;) {
        const u8 *q = txt_hangul_find(p, end);
        memcpy(out, p, (size_t)(q - p));
        out += q - p;
        if (q == end) return (size_t)(out - begin);
        u32 cp, both = txt_three(q, end);
        p = q;
        do {
            cp = both;
            p += 3;
            both = txt_hangul(cp, txt_three(p, end));
        } while (both);
        out += txt_put(out, cp);
    }
}

/* ---- units of a stream ---- */

/* Grapheme_Cluster_Break of UAX 29. PICTURE is Extended_Pictographic;
 * CONSONANT and LINKER are of Indic_Conjunct_Break; NONJOINER is U+200C
 * alone. */
enum {
    TXT_GCB_OTHER, TXT_GCB_CR, TXT_GCB_LF, TXT_GCB_CONTROL, TXT_GCB_EXTEND,
    TXT_GCB_ZWJ, TXT_GCB_FLAG, TXT_GCB_PREPEND, TXT_GCB_SPACING,
    TXT_GCB_PICTURE, TXT_GCB_CONSONANT, TXT_GCB_LINKER, TXT_GCB_NONJOINER,
    TXT_GCB_L, TXT_GCB_V, TXT_GCB_T, TXT_GCB_LV, TXT_GCB_LVT
};

static u32 txt_cluster_class(u32 cp) {
    if (cp - TXT_S < TXT_S_N)
        return (cp - TXT_S) % TXT_T_N ? TXT_GCB_LVT : TXT_GCB_LV;
    if (cp - 0x1100 < 0x100)
        return cp < 0x1160 ? TXT_GCB_L : cp < 0x11a8 ? TXT_GCB_V : TXT_GCB_T;
    if (cp - 0xa960 < 29) return TXT_GCB_L;
    if (cp - 0xd7b0 < 76) /* U+D7C7 to D7CA are not assigned */
        return cp < 0xd7c7 ? TXT_GCB_V : cp < 0xd7cb ? TXT_GCB_OTHER
            : TXT_GCB_T;
    if (cp >= 0xe01f0 && cp < 0xe1000) return TXT_GCB_CONTROL;
    return cp < 0x20 || cp >= 0x7f
        ? txt_range_value(TXT_CLUSTER, TXT_N_CLUSTER, cp) : TXT_GCB_OTHER;
}

/* The state of an unfinished cluster. */
typedef struct {
    u32 last;     /* class of its last character; OTHER at its beginning */
    u32 picture;  /* 1 after Picture Extend*, 2 after a ZWJ after that */
    u32 conjunct; /* 1 after Consonant, 2 after a Linker after that */
    bool flag;    /* its last letter of a flag has no second one yet */
} txt_cluster;

/* Whether a cluster ends before a character of class c (GB 3 to 999). */
static bool txt_cluster_ends(const txt_cluster *x, u32 c) {
    u32 a = x->last;
    if ((a >= TXT_GCB_CR && a <= TXT_GCB_CONTROL)
        || (c >= TXT_GCB_CR && c <= TXT_GCB_CONTROL))
        return !(a == TXT_GCB_CR && c == TXT_GCB_LF);
    if (a == TXT_GCB_L && c >= TXT_GCB_L && c != TXT_GCB_T) return false;
    if ((a == TXT_GCB_LV || a == TXT_GCB_V)
        && (c == TXT_GCB_V || c == TXT_GCB_T))
        return false;
    if ((a == TXT_GCB_LVT || a == TXT_GCB_T) && c == TXT_GCB_T) return false;
    return !(c == TXT_GCB_EXTEND || c == TXT_GCB_ZWJ || c == TXT_GCB_LINKER
        || c == TXT_GCB_NONJOINER || c == TXT_GCB_SPACING
        || a == TXT_GCB_PREPEND || (x->conjunct == 2 && c == TXT_GCB_CONSONANT)
        || (x->picture == 2 && c == TXT_GCB_PICTURE)
        || (x->flag && c == TXT_GCB_FLAG));
}

static void txt_cluster_add(txt_cluster *x, u32 c) {
    bool extends = c == TXT_GCB_EXTEND || c == TXT_GCB_LINKER
        || c == TXT_GCB_NONJOINER;
    x->picture = c == TXT_GCB_PICTURE ? 1
        : x->picture == 1 && c == TXT_GCB_ZWJ ? 2
        : x->picture == 1 && extends;
    if (c == TXT_GCB_LINKER && x->conjunct) x->conjunct = 2;
    else if (c != TXT_GCB_EXTEND && c != TXT_GCB_ZWJ)
        x->conjunct = c == TXT_GCB_CONSONANT;
    x->flag = c == TXT_GCB_FLAG && !x->flag;
    x->last = c;
}

/* The length of the longest prefix of [p, end) made of complete units,
 * whatever follows. */
static size_t txt_units(const u8 *p, const u8 *end, ksllm_unit unit) {
    const u8 *begin = p, *whole = p;
    txt_cluster x = {0};
    if (unit == KSLLM_UNIT_CHARACTER) return (size_t)(end - p);
    while (p < end) {
        u32 cp, n = txt_next(p, end, &cp);
        if (unit == KSLLM_UNIT_EOJEOL) {
            p += n;
            if (cp != TXT_BAD && txt_class_of(cp) == TXT_SPACE) whole = p;
            continue;
        }
        u32 c = cp == TXT_BAD ? (u32)TXT_GCB_OTHER : txt_cluster_class(cp);
        if (p > begin && txt_cluster_ends(&x, c)) {
            whole = p;
            x = (txt_cluster){0};
        }
        txt_cluster_add(&x, c);
        p += n;
    }
    /* A cluster ends right after a control, except that LF may follow a CR. */
    if (x.last == TXT_GCB_LF || x.last == TXT_GCB_CONTROL) whole = end;
    return (size_t)(whole - begin);
}

/* Takes one byte of a stream and writes the text that is now certain, 0 to 6
 * bytes; bytes that cannot become a character come out as U+FFFD. The state is
 * pending[4] with *n_pending, 0 at the beginning. */
static u32 txt_feed(u8 *pending, u8 *n_pending, u8 byte, u8 *out) {
    u32 n = 0;
    pending[(*n_pending)++] = byte;
    int whole = txt_measure(pending, *n_pending);
    if (whole < 0 && *n_pending > 1) { /* the byte begins something new */
        n = txt_put(out, 0xfffd);
        pending[0] = byte;
        *n_pending = 1;
        whole = txt_measure(pending, 1);
    }
    if (!whole) return n;
    *n_pending = 0;
    if (whole < 0) return n + txt_put(out + n, 0xfffd);
    memcpy(out + n, pending, (size_t)whole);
    return n + (u32)whole;
}

/* ==========================================================================
 * § 10 TOKENIZER (private)
 * The vocabulary of an open model: byte-level BPE by a list of merges, and
 * SentencePiece BPE by scores. May use § 1-2, 8 and 9. Texts stay in the mapped
 * file; tok_open makes one block of tables beside it (8k ids: 0.2 MB, 128k ids
 * with 280k merges: 8 MB) and a small one for special tokens. After that
 * everything is read-only, and encoding takes no memory, except for a word of
 * more than TOK_SHORT bytes.
 * The one decision: nothing here is quadratic or unbounded, whatever the file
 * or the text. Hash chains, token lengths and tables have limits that real
 * files do not come near; a file beyond them is refused when it is opened.
 * A byte of text costs at most
 *   - for special tokens: log2 of their number comparisons of TOK_TEXT_MAX
 *     bytes, and TOK_TEXT_MAX steps from a token to its prefixes
 *   - for merges: 6 look-ups, each of them over TOK_CHAIN_MAX slots and the
 *     TOK_TEXT_MAX bytes of TOK_ALIKE entries, and three times log2 of the
 *     word's length steps to the next best pair.
 * ======================================================================== */

enum {
    TOK_SHORT = 96,      /* bytes of a word that is merged on the stack */
    TOK_TEXT_MAX = 512,  /* bytes of a token in the file (some have 256) */
    TOK_CHAIN_MAX = 256, /* steps along a hash table */
    TOK_ALIKE = 8, /* entries on the way whose hash equals and whose text does
                      not; no real file has two */
    TOK_ID_BITS = 21, TOK_RANK_BITS = 22, /* in the slots of tables */
    TOK_STOPS = 64, /* stop tokens kept; of them from the file's list: */
    TOK_STOPS_LISTED = 32, /* the ids and names beside it need room */
    /* The scratch that tok_encode needs at most, per byte of text and in
     * addition. Only a text that is one single word needs it. A text that NFC
     * makes longer by a quarter can need more, and gets BUFFER. */
    TOK_SCRATCH_PER_BYTE = 16,
    TOK_SCRATCH_FIXED = 64
};
#define TOK_NONE 0xffffffffu
/* Others are refused, so that a later version may give them a meaning. */
#define TOK_ENCODE_FLAGS                                                       \
    (u32)(KSLLM_ENCODE_BOS | KSLLM_ENCODE_SPECIAL | KSLLM_ENCODE_COMPOSE       \
        | KSLLM_ENCODE_EOS)
#define TOK_DECODE_FLAGS (u32)KSLLM_DECODE_SPECIAL

/* Types of a token in tokenizer.ggml.token_type. */
enum {
    TOK_NORMAL = 1, TOK_UNKNOWN = 2, TOK_CONTROL = 3, TOK_USER = 4,
    TOK_UNUSED = 5, TOK_BYTE = 6
};

typedef enum tok_kind { TOK_BYTES, TOK_PIECES } tok_kind;

/* ---- how text is cut into words ---- */

/* A row per rule. The models' own tokenizer.json has the rules as regular
 * expressions; regex engines backtrack, these functions take linear time.
 *   shape   what a word is
 *   tail    what may follow a word of symbols: line ends, also slashes, or at
 *           most one of these
 *   first   how many digits are cut off before all else (0: no such step), and
 *           whether runs of CJK are, too; words do not cross these cuts
 *   digits  how many digits are a word; 0: any number, with a space before
 */
typedef enum tok_shape {
    TOK_GPT2,    /* 's|'t|..| ?L+| ?N+| ?other+|spaces */
    TOK_LLAMA3,  /* any case 's..|.?L+|N{1,k}| ?other+tail|spaces */
    TOK_QWEN35,  /* the same with marks counting as letters */
    TOK_EXAONE,  /* the same, words include single spaces */
    TOK_GPT4O,   /* words by case: Upper* lower+ | Upper+ lower*, then 's */
    TOK_TEKKEN,  /* the same without 's */
    TOK_DEEPSEEK /* punct ascii+|.?[LM]+| ?[PS]+tail|spaces|rest */
} tok_shape;

typedef enum tok_tail { TOK_LINES, TOK_SLASHES, TOK_ONE } tok_tail;

typedef struct tok_rule {
    const char *name; /* tokenizer.ggml.pre */
    tok_shape shape;
    tok_tail tail;
    u8 first;
    bool cjk_first;
    u8 digits;
    bool nfc; /* text is normalised to NFC */
    /* A word that is a token is not merged (ignore_merges). Such a model also
     * gets a BOS if the file does not say. */
    bool whole;
} tok_rule;

static const tok_rule TOK_RULES[] = {
    /* name             shape         tail      first cjk digits nfc whole */
    {"gpt-2",           TOK_GPT2,     TOK_LINES,   0, 0, 0, 0, 0},
    {"gpt2",            TOK_GPT2,     TOK_LINES,   0, 0, 0, 0, 0},
    {"exaone4",         TOK_GPT2,     TOK_LINES,   0, 0, 0, 0, 0},
    {"a.x-4.0",         TOK_GPT2,     TOK_LINES,   0, 0, 0, 0, 0},
    {"trillion",        TOK_GPT2,     TOK_LINES,   0, 0, 0, 0, 0},
    {"phi-2",           TOK_GPT2,     TOK_LINES,   0, 0, 0, 0, 0},
    {"exaone",          TOK_GPT2,     TOK_LINES,   1, 0, 0, 0, 0},
    {"smollm",          TOK_GPT2,     TOK_LINES,   1, 0, 0, 0, 0},
    {"starcoder",       TOK_GPT2,     TOK_LINES,   1, 0, 0, 0, 0},
    {"llama-bpe",       TOK_LLAMA3,   TOK_LINES,   0, 0, 3, 0, 1},
    {"llama3",          TOK_LLAMA3,   TOK_LINES,   0, 0, 3, 0, 1},
    {"llama-v3",        TOK_LLAMA3,   TOK_LINES,   0, 0, 3, 0, 1},
    {"midm-2.0",        TOK_LLAMA3,   TOK_LINES,   0, 0, 3, 0, 1},
    {"lfm2",            TOK_LLAMA3,   TOK_LINES,   0, 0, 3, 0, 1},
    {"qwen2",           TOK_LLAMA3,   TOK_LINES,   0, 0, 1, 1, 0},
    {"deepseek-r1-qwen", TOK_LLAMA3,  TOK_LINES,   0, 0, 1, 0, 0},
    {"kormo",           TOK_LLAMA3,   TOK_LINES,   0, 0, 1, 0, 0},
    {"solar-open",      TOK_LLAMA3,   TOK_LINES,   0, 0, 1, 0, 0},
    {"qwen35",          TOK_QWEN35,   TOK_LINES,   0, 0, 1, 1, 0},
    {"exaone-moe",      TOK_EXAONE,   TOK_ONE,     0, 0, 1, 1, 0},
    {"gpt-4o",          TOK_GPT4O,    TOK_SLASHES, 0, 0, 3, 0, 0},
    {"kanana2",         TOK_GPT4O,    TOK_SLASHES, 0, 0, 3, 0, 0},
    {"llama4",          TOK_GPT4O,    TOK_SLASHES, 0, 0, 3, 0, 0},
    {"tekken",          TOK_TEKKEN,   TOK_SLASHES, 0, 0, 1, 0, 1},
    {"deepseek-v3",     TOK_DEEPSEEK, TOK_LINES,   3, 1, 0, 0, 0},
    {"hunyuan-dense",   TOK_DEEPSEEK, TOK_LINES,   3, 1, 0, 0, 0},
    {"hyperclovax",     TOK_DEEPSEEK, TOK_LINES,   1, 1, 0, 0, 0},
};

/* The character at `at`; the next one begins at `next`. At the end of the text
 * cls is TOK_END and next == at. */
enum { TOK_END = 15 };

typedef struct {
    const u8 *at, *next;
    u32 cp, cls;
} tok_char;

static tok_char tok_look(const u8 *p, const u8 *end) {
    tok_char c = {p, p, 0, TOK_END};
    if (p < end) {
        c.next = p + txt_next(p, end, &c.cp);
        c.cls = c.cp == TXT_BAD ? TXT_OTHER : (u32)txt_class_of(c.cp);
    }
    return c;
}

/* Sets of classes, as bits. */
enum {
    TOK_L = 1 << TXT_UPPER | 1 << TXT_LOWER | 1 << TXT_LETTER,
    TOK_N = 1 << TXT_NUMBER,
    TOK_M = 1 << TXT_MARK,
    TOK_PS = 1 << TXT_PUNCT | 1 << TXT_SYMBOL,
    TOK_UP = 1 << TXT_UPPER | 1 << TXT_LETTER | TOK_M,
    TOK_LOW = 1 << TXT_LOWER | 1 << TXT_LETTER | TOK_M,
    TOK_NOT_LNS = 1 << TXT_OTHER | TOK_M | TOK_PS /* [^\s\p{L}\p{N}] */
};

static bool tok_is(tok_char c, u32 set) { return (set >> c.cls & 1) != 0; }

/* The end of the run of characters of these classes at p. */
static const u8 *tok_run(const u8 *p, const u8 *end, u32 set) {
    for (;;) {
        tok_char c = tok_look(p, end);
        if (!tok_is(c, set)) return p;
        p = c.next;
    }
}

static bool tok_is_line(const u8 *p, const u8 *end) {
    return p < end && (*p == '\n' || *p == '\r');
}

/* The length of 's 't 're 've 'm 'll 'd at p, or 0. With any_case as Oniguruma
 * folds it: U+017F, the long s, is an s, too. */
static size_t tok_contraction(const u8 *p, const u8 *end, bool any_case) {
    u32 bit = any_case ? 0x20 : 0;
    if (end - p < 2 || p[0] != '\'') return 0;
    u32 a = p[1] | bit;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (end - p < 3) return 0;
    if (any_case && p[1] == 0xc5 && p[2] == 0xbf) return 3;
    u32 b = p[2] | bit;
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3
                                                                          : 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at p, which is a space. The first part only with
 * `lines`. */
static const u8 *tok_spaces(const u8 *p, const u8 *end, bool lines) {
    const u8 *last = p, *line = NULL, *q = p;
    for (;;) {
        tok_char c = tok_look(q, end);
        if (c.cls != TXT_SPACE) break;
        last = q;
        q = c.next;
        if (c.cp == '\n' || c.cp == '\r') line = q;
    }
    if (lines && line) return line;
    return q == end || last == p ? q : last;
}

/* Up to k numbers from p on. */
static const u8 *tok_digits(const u8 *p, const u8 *end, u32 k) {
    for (; k > 0; k--) {
        tok_char c = tok_look(p, end);
        if (c.cls != TXT_NUMBER) break;
        p = c.next;
    }
    return p;
}

/* The word of GPT-2's rule that begins at p < end. */
static const u8 *tok_word_gpt2(const u8 *p, const u8 *end) {
    size_t n = tok_contraction(p, end, false);
    tok_char c = tok_look(p, end);
    if (n > 0) return p + n;
    if (*p == ' ') {
        tok_char after = tok_look(p + 1, end);
        if (after.cls != TXT_SPACE && after.cls != TOK_END) c = after;
    }
    if (c.cls == TXT_SPACE) return tok_spaces(p, end, false);
    if (tok_is(c, TOK_L)) return tok_run(c.next, end, TOK_L);
    if (tok_is(c, TOK_N)) return tok_run(c.next, end, TOK_N);
    return tok_run(c.next, end, TOK_NOT_LNS);
}

/*  ?[^\s\p{L}\p{N}]+ and its tail; NULL if there is none at p. `set` has the
 * classes that count as symbols. */
static const u8 *tok_symbols(
    const u8 *p, const u8 *end, u32 set, tok_tail tail) {
    const u8 *q = tok_run(*p == ' ' ? p + 1 : p, end, set);
    if (q == p || (*p == ' ' && q == p + 1)) return NULL;
    while (tok_is_line(q, end) || (tail != TOK_LINES && q < end && *q == '/')) {
        q++;
        if (tail == TOK_ONE) break;
    }
    return q;
}

/* The end of a K-EXAONE word: letters with their marks, also across single
 * spaces. c is the first letter. */
static const u8 *tok_phrase(tok_char c, const u8 *end) {
    for (;;) {
        const u8 *p = tok_run(c.next, end, TOK_M);
        c = tok_look(p, end);
        if (c.at < end && *c.at == ' ') c = tok_look(p + 1, end);
        if (!tok_is(c, TOK_L)) return p;
    }
}

/* Upper* lower+ at p, where letters without case are both; NULL if there is
 * none. As in a regex, the run of upper case gives back what lower needs. */
static const u8 *tok_cased(const u8 *p, const u8 *end) {
    const u8 *both = NULL; /* after the last one that can be lower */
    tok_char c;
    for (c = tok_look(p, end); tok_is(c, TOK_UP); c = tok_look(c.next, end))
        if (tok_is(c, TOK_LOW)) both = c.next;
    return tok_is(c, TOK_LOW) ? tok_run(c.next, end, TOK_LOW) : both;
}

/* A word by case with what may stand before it, or NULL. */
static const u8 *tok_word_cased(const u8 *p, const u8 *end, bool contraction) {
    tok_char c = tok_look(p, end);
    bool prefix = !tok_is(c, TOK_L | TOK_N) && !tok_is_line(p, end);
    const u8 *q = NULL;
    if (prefix) q = tok_cased(c.next, end);
    if (!q) q = tok_cased(p, end);
    if (!q) { /* Upper+ lower*: here no lower follows */
        const u8 *from = prefix ? c.next : p;
        q = tok_run(from, end, TOK_UP);
        if (q == from) return NULL;
    }
    return contraction ? q + tok_contraction(q, end, true) : q;
}

/* The word at p < end by the rules that follow tiktoken's cl100k. */
static const u8 *tok_word_modern(
    const tok_rule *r, const u8 *p, const u8 *end) {
    bool cased = r->shape == TOK_GPT4O || r->shape == TOK_TEKKEN;
    u32 letters = r->shape == TOK_QWEN35 ? TOK_L | TOK_M : TOK_L;
    size_t n = cased ? 0 : tok_contraction(p, end, true);
    tok_char c = tok_look(p, end), word = c;
    const u8 *q;
    if (n > 0) return p + n;
    if (!tok_is(c, TOK_L | TOK_N) && !tok_is_line(p, end))
        word = tok_look(c.next, end);
    if (cased) {
        q = tok_word_cased(p, end, r->shape == TOK_GPT4O);
        if (q) return q;
    } else if (tok_is(word, letters)) {
        return r->shape == TOK_EXAONE ? tok_phrase(word, end)
                                      : tok_run(word.next, end, letters);
    } else if (tok_is(c, letters)) {
        return tok_run(c.next, end, letters);
    }
    if (tok_is(c, TOK_N)) return tok_digits(p, end, r->digits);
    q = tok_symbols(p, end, (u32)TOK_NOT_LNS & ~(letters & TOK_M), r->tail);
    return q ? q : tok_spaces(p, end, true);
}

static bool tok_is_ascii_letter(const u8 *p, const u8 *end) {
    return p < end && (*p | 0x20) >= 'a' && (*p | 0x20) <= 'z';
}

static bool tok_is_ascii_punct(u8 b) {
    return b > 0x20 && b < 0x7f && (b < '0' || b > '9')
        && ((b | 0x20) < 'a' || (b | 0x20) > 'z');
}

/* The word at p < end by DeepSeek's rule. What fits no part of the rule
 * (controls) is a word up to the next place where one begins. */
static const u8 *tok_word_deepseek(const u8 *p, const u8 *end) {
    tok_char c = tok_look(p, end);
    if (tok_is_ascii_punct(*p) && tok_is_ascii_letter(p + 1, end)) {
        for (p++; tok_is_ascii_letter(p, end); p++) continue;
        return p;
    }
    tok_char after = tok_look(c.next, end);
    if (!tok_is(c, TOK_L | TOK_PS) && !tok_is_line(p, end)
        && tok_is(after, TOK_L | TOK_M))
        return tok_run(after.next, end, TOK_L | TOK_M);
    if (tok_is(c, TOK_L | TOK_M)) return tok_run(c.next, end, TOK_L | TOK_M);
    const u8 *q = tok_symbols(p, end, TOK_PS, TOK_LINES);
    if (q) return q;
    if (c.cls == TXT_SPACE) return tok_spaces(p, end, true);
    while (after.cls == TXT_OTHER) {
        c = after;
        after = tok_look(c.next, end);
    }
    return tok_is(after, TOK_L | TOK_M) && c.at > p ? c.at : c.next;
}

static bool tok_is_cjk(u32 cp) {
    return (cp >= 0x4e00 && cp <= 0x9fa5) || (cp >= 0x3040 && cp <= 0x30ff);
}

/* The end of the chunk at p < end that a rule cuts off before all else. */
static const u8 *tok_chunk(const tok_rule *r, const u8 *p, const u8 *end) {
    tok_char c = tok_look(p, end);
    bool cjk = r->cjk_first && tok_is_cjk(c.cp);
    if (c.cls == TXT_NUMBER) return tok_digits(p, end, r->first);
    do c = tok_look(c.next, end);
    while (c.cls != TOK_END && c.cls != TXT_NUMBER
        && (r->cjk_first && tok_is_cjk(c.cp)) == cjk);
    return c.at;
}

/* Cuts text into words: `at` begins the next one, `chunk` ends the text that
 * it may take. */
typedef struct {
    const tok_rule *rule;
    const u8 *at, *chunk, *end;
} tok_cutter;

/* Moves to the end of the word at c->at < c->end, and returns it. */
static const u8 *tok_cut(tok_cutter *c) {
    const u8 *p = c->at;
    if (p == c->chunk)
        c->chunk = c->rule->first ? tok_chunk(c->rule, p, c->end) : c->end;
    if (c->rule->shape == TOK_GPT2) c->at = tok_word_gpt2(p, c->chunk);
    else if (c->rule->shape != TOK_DEEPSEEK)
        c->at = tok_word_modern(c->rule, p, c->chunk);
    else if (tok_look(p, c->chunk).cls == TXT_NUMBER) c->at = c->chunk;
    else c->at = tok_word_deepseek(p, c->chunk);
    return c->at;
}

/* ---- the vocabulary ---- */

/* A text is in the mapped file, a length before it:
 *
 *     file    u64 n  text 0   u64 n  text 1   u64 n  text 2 ..
 *     at[]           ^at[0]          ^at[1]          ^at[2]
 *
 * so that text i ends at at[i + 1] - 8. Two hash tables, with linear steps from
 * a slot that the hash says; a slot of zeros is empty:
 *
 *     find    u64   43 upper bits of the text's hash | 21 id + 1
 *     merge   u32   10 upper bits of the pair's hash | 22 rank + 1 */
typedef struct tokenizer {
    tok_kind kind;
    const tok_rule *rule; /* TOK_BYTES only */
    u32 n_vocab;
    i32 bos, eos, eot, eom, unk, pad; /* -1: none */
    bool adds_bos, adds_eos;
    bool prefix; /* a space is put before text, and taken off again */
    u32 max_piece_bytes;
    const u8 *texts; /* in the file; `at` counts from here */
    u32 *at;
    const u8 *types, *scores; /* in the file; NULL: none */
    u64 *find;
    u32 *merge;
    struct tok_merge *merges; /* by rank */
    u64 *normal; /* a bit for each token: of that type, and not a double */
    u32 find_mask, merge_mask, n_merges;
    struct tok_special *special; /* in the order of their texts */
    struct tok_row *rows; /* of `special`, by first byte: 256 */
    bool starts[256]; /* whether a special token begins with this byte */
    u64 before_space[4]; /* TOK_PIECES: a bit for each byte that stands before
                            a space within a token */
    i32 byte_id[256];
    i16 letter[384]; /* the byte that a letter stands for, -1: none */
    i32 stop[TOK_STOPS];
    u32 n_stops;
    void *block, *special_block;
    size_t block_bytes, special_bytes;
} tokenizer;

/* left and right written together are the text of both. */
typedef struct tok_merge { u32 left, right, both; } tok_merge;

/* A token that is looked for in text before all else: user-defined, control,
 * unknown. Equal texts have one entry. */
typedef struct tok_special {
    const u8 *p; /* folded, for pieces */
    u32 n;
    u32 id;   /* the lowest one */
    u32 user; /* the lowest user-defined one, or TOK_NONE */
    u32 up;   /* the longest other entry that this text begins with, or
                 TOK_NONE */
} tok_special;

typedef struct tok_row {
    u64 second[4]; /* a bit for each second byte that occurs */
    u32 from, to;
} tok_row;

static void tok_set_bit(u64 *set, u32 i) { set[i >> 6] |= (u64)1 << (i & 63); }

static bool tok_has_bit(const u64 *set, u32 i) {
    return set[i >> 6] >> (i & 63) & 1;
}

/* A text to look up. `last` is its last 8 bytes, or all of them above zeros;
 * `before` the 8 bytes before those in the same way. */
typedef struct {
    const u8 *p;
    size_t n;
    u64 last, before, hash;
} tok_key;

/* No two texts of up to 8 bytes have the same hash. */
KS_INLINE void tok_hash(tok_key *key) {
    u64 h = (key->last ^ 0xa0761d6478bd642fu) * 0x9e3779b97f4a7c15u;
    u64 g = (key->before ^ (u64)key->n << 56) * 0xd6e8feb86659fd93u;
    for (size_t i = 0; i + 16 < key->n; i += 8)
        g = ((g ^ g >> 31) + ld_u64(key->p + i)) * 0x9fb21c651e98df25u;
    h ^= g << 32 | g >> 32;
    h = (h ^ h >> 32) * 0xe7037ed1a0b428dbu;
    key->hash = h ^ h >> 29;
}

static u64 tok_last(const u8 *p, size_t n) {
    if (n >= 8) return ld_u64(p + n - 8);
    if (n >= 4)
        return (u64)ld_u32(p) << 8 * (8 - n) | (u64)ld_u32(p + n - 4) << 32;
    if (!n) return 0;
    return (u64)p[0] << 8 * (8 - n) | (u64)p[n / 2] << 8 * (8 - n + n / 2)
        | (u64)p[n - 1] << 56;
}

static tok_key tok_key_of(const u8 *p, size_t n) {
    tok_key key = {p, n, tok_last(p, n), n > 8 ? tok_last(p, n - 8) : 0, 0};
    tok_hash(&key);
    return key;
}

/* Texts of the file are read without branches on their length, which no CPU
 * can predict: a vocabulary then opens in two thirds of the time. A length
 * stands before each, and 24 bytes of header before the first, so the 16 bytes
 * up to the end of a text of n > 0 bytes are always there. What is not of the
 * text is masked: from byte min(n, 16) on, TOK_KEEP has the masks of these 16
 * bytes. */
static const u64 TOK_KEEP[4] = {0, 0, ~(u64)0, ~(u64)0};

/* Without the hash. */
KS_INLINE tok_key tok_file_ends(const u8 *p, size_t n) {
    const u8 *keep = (const u8 *)TOK_KEEP + min_size(n, 16);
    return (tok_key){p, n, ld_u64(p + n - 8) & ld_u64(keep + 8),
        ld_u64(p + n - 16) & ld_u64(keep), 0};
}

KS_INLINE tok_key tok_file_key(const u8 *p, size_t n) {
    tok_key key = tok_file_ends(p, n);
    tok_hash(&key);
    return key;
}

static str tok_text(const tokenizer *t, u32 id) {
    return (str){(const char *)t->texts + t->at[id],
        t->at[id + 1] - t->at[id] - 8};
}

static u32 tok_type(const tokenizer *t, u32 id) {
    return t->types ? ld_u32(t->types + 4 * id) : (u32)TOK_NORMAL;
}

/* Whether U+2581 begins at p < end. SentencePiece writes a space so. Here a
 * space is a space, one byte: text is "folded" before it is compared with
 * tokens, and so are their texts. */
KS_INLINE bool tok_is_mark(const u8 *p, const u8 *end) {
    return *p == 0xe2 && end - p >= 3 && p[1] == 0x96 && p[2] == 0x81;
}

/* buf takes s.n bytes. */
static inline str tok_fold(str s, u8 *buf) {
    const u8 *p = (const u8 *)s.p, *end = p + s.n;
    u8 *out = buf;
    while (p < end)
        if (tok_is_mark(p, end)) {
            *out++ = ' ';
            p += 3;
        } else {
            *out++ = *p++;
        }
    return (str){(const char *)buf, (size_t)(out - buf)};
}

/* Whether the text of the file at p equals the key's, which is as long. */
KS_INLINE bool tok_is_key(const tok_key *key, const u8 *p) {
    tok_key other = tok_file_ends(p, key->n);
    if (((other.last ^ key->last) | (other.before ^ key->before)) != 0)
        return false;
    for (size_t i = 0; i + 16 < key->n; i += 8)
        if (ld_u64(p + i) != ld_u64(key->p + i)) return false;
    return true;
}

/* Whether a text, folded, equals these n bytes. */
static bool tok_folds_to(str s, const u8 *to, size_t n) {
    const u8 *p = (const u8 *)s.p, *end = p + s.n, *to_end = to + n;
    while (p < end && to < to_end) {
        bool mark = tok_is_mark(p, end);
        if (*to++ != (mark ? ' ' : *p)) return false;
        p += mark ? 3 : 1;
    }
    return p == end && to == to_end;
}

static bool tok_has_text(const tokenizer *t, u32 id, const tok_key *key) {
    str s = tok_text(t, id);
    return (s.n == key->n && tok_is_key(key, (const u8 *)s.p))
        || (t->kind == TOK_PIECES && tok_folds_to(s, key->p, key->n));
}

/* Whether a slot of `find` has the upper bits of this hash; the lower ones say
 * where it lies. */
static bool tok_is_slot(u64 slot, u64 hash) {
    return (slot ^ hash) >> TOK_ID_BITS == 0;
}

static u32 tok_slot_id(u64 slot) {
    return (u32)(slot & ((1u << TOK_ID_BITS) - 1)) - 1;
}

/* The id of the token with this hash, or -1. If there is a key, the token has
 * its text (folded, for pieces). */
KS_INLINE i32 tok_lookup_hash(
    const tokenizer *t, u64 hash, const tok_key *key) {
    u32 alike = 0;
    for (u32 step = 0; step < TOK_CHAIN_MAX && alike < TOK_ALIKE; step++) {
        u64 slot = t->find[((u32)hash + step) & t->find_mask];
        if (!slot) break;
        if (!tok_is_slot(slot, hash)) continue;
        if (!key || tok_has_text(t, tok_slot_id(slot), key))
            return (i32)tok_slot_id(slot);
        alike++;
    }
    return -1;
}

static i32 tok_lookup(const tokenizer *t, const u8 *p, size_t n) {
    tok_key key = tok_key_of(p, n);
    return tok_lookup_hash(t, key.hash, &key);
}

/* ---- opening ---- */

typedef struct {
    tokenizer *t;
    const gguf *g;
    ksllm_error *err;
    const gguf_kv *tokens, *merges;
} tok_opening;

/* A key of the file is not what it should be. */
static ksllm_status tok_bad(
    const tok_opening *o, const char *key, const char *what) {
    const gguf_kv *kv = gguf_find(o->g, key);
    return fail(o->err, KSLLM_ERR_FORMAT, kv ? kv->offset : NO_OFFSET,
        "%.*s: key %s %s", STR(o->g->name), key, what);
}

static u32 tok_power(u64 n) {
    u32 p = 16;
    while (p < n) p *= 2;
    return p;
}

static const char TOK_TOKENS[] = "tokenizer.ggml.tokens";
static const char TOK_MERGES[] = "tokenizer.ggml.merges";
static const char TOK_SCORES[] = "tokenizer.ggml.scores";


/* Finds an array with one item of `type` or `other` per token, or none. */
static ksllm_status tok_column(const tok_opening *o, const char *key, u32 type,
    u32 other, const u8 **out) {
    const gguf_kv *kv = gguf_find(o->g, key);
    *out = NULL;
    if (!kv) return KSLLM_OK;
    if (kv->type != KSLLM_META_ARRAY || (kv->item != type && kv->item != other))
        return tok_bad(o, key, "is not an array of the type it should have");
    if (kv->count != o->tokens->count)
        return tok_bad(
            o, key, "must have as many items as tokenizer.ggml.tokens");
    *out = kv->data;
    return KSLLM_OK;
}

/* Finds the rule that cuts text into words. */
static ksllm_status tok_open_rule(tok_opening *o, const char *pre_override) {
    str pre = pre_override ? str_of(pre_override)
        : gguf_get_str(o->g, "tokenizer.ggml.pre");
    for (size_t i = 0; i < KS_LEN(TOK_RULES); i++)
        if (str_eq(str_of(TOK_RULES[i].name), pre)) {
            o->t->rule = &TOK_RULES[i];
            return KSLLM_OK;
        }
    if (!pre.n)
        return fail(o->err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "%.*s: key tokenizer.ggml.pre is missing: the file does not say "
            "how text is cut into words. Name it with options.pretokenizer, "
            "for example \"gpt-2\"", STR(o->g->name));
    return fail(o->err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
        "%.*s: tokenizer.ggml.pre \"%.*s\" is not known. If it is the same as "
        "a known one, name that one with options.pretokenizer",
        STR(o->g->name), STR(pre));
}

static bool tok_is_texts(const gguf_kv *kv) {
    return kv && kv->type == KSLLM_META_ARRAY && kv->item == KSLLM_META_TEXT;
}

/* Finds the arrays of the file and checks their types and sizes. */
static ksllm_status tok_open_keys(tok_opening *o, const char *pre_override) {
    tokenizer *t = o->t;
    str model = gguf_get_str(o->g, "tokenizer.ggml.model");
    o->tokens = gguf_find(o->g, TOK_TOKENS);
    o->merges = gguf_find(o->g, TOK_MERGES);
    if (!tok_is_texts(o->tokens))
        return tok_bad(o, TOK_TOKENS, "must exist and be an array of text");
    if (!o->tokens->count || o->tokens->count >> TOK_ID_BITS)
        return tok_bad(o, TOK_TOKENS, "must have 1 to 2097151 items");
    t->n_vocab = (u32)o->tokens->count;
    ksllm_status status = tok_column(o, "tokenizer.ggml.token_type",
        KSLLM_META_I32, KSLLM_META_U32, &t->types);
    if (!status) status = tok_column(
        o, TOK_SCORES, KSLLM_META_F32, KSLLM_META_F32, &t->scores);
    if (status) return status;
    if (str_eq(model, str_of("llama"))) {
        t->kind = TOK_PIECES;
        return t->scores ? KSLLM_OK : tok_bad(o, TOK_SCORES, "is missing");
    }
    if (!str_eq(model, str_of("gpt2")))
        return fail(o->err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "%.*s: tokenizer.ggml.model \"%.*s\" is not supported, only gpt2 "
            "and llama", STR(o->g->name), STR(model));
    t->kind = TOK_BYTES;
    if (!tok_is_texts(o->merges))
        return tok_bad(o, TOK_MERGES, "must exist and be an array of text");
    if (o->merges->count >> TOK_RANK_BITS)
        return tok_bad(o, TOK_MERGES, "has more than 4194303 items");
    t->n_merges = (u32)o->merges->count;
    return tok_open_rule(o, pre_override);
}

static bool tok_is_special(u32 type) {
    return type == TOK_CONTROL || type == TOK_USER || type == TOK_UNKNOWN;
}

/* One block for all tables, those of 8-byte items first. */
static ksllm_status tok_open_block(tok_opening *o, const ksllm_allocator *a) {
    tokenizer *t = o->t;
    size_t n_find = tok_power((u64)t->n_vocab + t->n_vocab / 2);
    size_t n_merge = tok_power((u64)t->n_merges + t->n_merges / 2);
    size_t n_normal = t->n_vocab / 64 + 1;
    u64 bytes = 8 * ((u64)n_find + n_normal)
        + 4 * ((u64)t->n_vocab + 1 + n_merge)
        + (u64)t->n_merges * sizeof(tok_merge);
    if (bytes <= SIZE_MAX) t->block = mem_alloc(a, (size_t)bytes);
    if (!t->block) return fail_memory(o->err, (size_t)bytes);
    t->block_bytes = (size_t)bytes;
    t->find = t->block;
    t->normal = t->find + n_find;
    t->at = (u32 *)(t->normal + n_normal);
    t->merge = t->at + t->n_vocab + 1;
    t->merges = (tok_merge *)(t->merge + n_merge);
    t->find_mask = (u32)n_find - 1;
    t->merge_mask = (u32)n_merge - 1;
    memset(t->find, 0, 8 * n_find);
    memset(t->merge, 0, 4 * n_merge);
    memset(t->normal, 0, 8 * n_normal);
    return KSLLM_OK;
}

/* Opening waits for little else than cache lines of tables of megabytes, so
 * these are prefetched for a batch of tokens or merges before they are used. */
enum { TOK_BATCH = 32 };

/* A token on its way into the table `find`. */
typedef struct { u64 hash; u32 id; } tok_entry;

/* Enters a token. Of equal texts the last one stays, as in a dictionary; the
 * one before no longer counts as normal, for nothing finds it. */
static ksllm_status tok_open_find(tok_opening *o, tok_entry e) {
    tokenizer *t = o->t;
    u32 i = (u32)e.hash & t->find_mask, alike = 0;
    for (u32 step = 0; step < TOK_CHAIN_MAX && alike < TOK_ALIKE; step++) {
        u64 slot = t->find[i];
        u8 buf[TOK_TEXT_MAX];
        if (slot && tok_is_slot(slot, e.hash)) {
            str s = tok_text(t, e.id);
            u32 before = tok_slot_id(slot);
            if (t->kind == TOK_PIECES) s = tok_fold(s, buf);
            tok_key key = tok_key_of((const u8 *)s.p, s.n);
            if (tok_has_text(t, before, &key)) {
                t->normal[before >> 6] &= ~((u64)1 << (before & 63));
                slot = 0;
            }
            alike++;
        }
        if (!slot) {
            t->find[i] = e.hash >> TOK_ID_BITS << TOK_ID_BITS | (e.id + 1);
            return KSLLM_OK;
        }
        i = (i + 1) & t->find_mask;
    }
    return tok_bad(o, TOK_TOKENS, "has texts made to collide");
}

/* "<0xE3>" to 0xE3; -1 for any other text. */
static i32 tok_byte_of(str s) {
    i32 value = 0;
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    for (size_t i = 3; i < 5; i++) {
        char c = s.p[i];
        i32 digit = c >= '0' && c <= '9' ? c - '0'
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
            : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The letter that GPT-2 writes for a byte: the byte itself if it is printable;
 * the other 68, in order, have U+0100 and on. */
static u32 tok_letter_of(u8 b) {
    return b < 33 ? 256u + b : b < 127 ? b : b < 161 ? 256u + 33 + (b - 127u)
        : b == 173 ? 256u + 67 : b;
}

/* Converts GPT-2's letters, one or two bytes each, to bytes: at most s.n of
 * them into out; -1 if it meets another letter. Decoding is little else. */
static inline i64 tok_letters(const tokenizer *t, str s, u8 *out) {
    const u8 *p = (const u8 *)s.p, *end = p + s.n;
    u8 *begin = out;
    i32 all = 0;
    while (p < end) {
        u32 c = *p++;
        if (c >= 0x80) {
            if (c - 0xc2 > 3 || p == end) return -1;
            c = (c & 7) << 6 | (*p++ & 0x3f);
        }
        all |= t->letter[c];
        *out++ = (u8)t->letter[c];
    }
    return all < 0 ? -1 : out - begin;
}

/* The bytes that a token stands for: in buf if they are not the file's own. */
static str tok_bytes(const tokenizer *t, u32 id, u8 *buf) {
    str s = tok_text(t, id);
    u32 type = tok_type(t, id);
    if (type == TOK_UNUSED) return (str){NULL, 0};
    if (type == TOK_BYTE) {
        i32 byte = tok_byte_of(s);
        buf[0] = (u8)byte;
        return (str){(const char *)buf, byte >= 0};
    }
    if (type == TOK_CONTROL || type == TOK_UNKNOWN) return s;
    if (t->kind == TOK_PIECES) return tok_fold(s, buf);
    i64 n = type == TOK_USER ? -1 : tok_letters(t, s, buf);
    return n < 0 ? s : (str){(const char *)buf, (size_t)n};
}

/* Learns all about a token but its place in `find`. Returns the hash that says
 * this place. */
static u64 tok_open_token(tokenizer *t, u32 id, u32 type, str s) {
    u8 room[16 + TOK_TEXT_MAX], *buf = room + 16;
    memset(room, 0, 16); /* tok_file_key reads it */
    if (s.n > t->max_piece_bytes) {
        u32 n = (u32)tok_bytes(t, id, buf).n;
        if (n > t->max_piece_bytes) t->max_piece_bytes = n;
    }
    if (t->kind == TOK_PIECES) {
        size_t n = s.n;
        s = tok_fold(s, buf);
        bool spaces = s.n < n || memchr(s.p, ' ', s.n);
        for (size_t i = 1; i < s.n && spaces; i++)
            if (s.p[i] == ' ') tok_set_bit(t->before_space, (u8)s.p[i - 1]);
    }
    if (type == TOK_BYTE && tok_byte_of(s) >= 0)
        t->byte_id[tok_byte_of(s)] = (i32)id;
    return tok_file_key((const u8 *)s.p, s.n).hash;
}

/* Fills every table of the tokens. */
static ksllm_status tok_open_tokens(tok_opening *o) {
    tokenizer *t = o->t;
    const u8 *p = o->tokens->data, *begin = p;
    tok_entry batch[TOK_BATCH];
    u32 n = 0;
    ksllm_status status = KSLLM_OK;
    t->texts = begin;
    for (u32 id = 0; id < t->n_vocab && !status; id++) {
        str s = gguf_next_str(&p);
        u32 type = tok_type(t, id);
        if (s.n > TOK_TEXT_MAX && type != TOK_UNUSED)
            return fail(o->err, KSLLM_ERR_UNSUPPORTED,
                o->tokens->offset + (u64)(p - begin) - s.n,
                "%.*s: token %u has %llu bytes, more than %d", STR(o->g->name),
                (unsigned)id, LLU(s.n), (int)TOK_TEXT_MAX);
        if ((u64)(p - begin) >= 0xfffffff0u)
            return tok_bad(o, TOK_TOKENS, "has more than 4 GiB");
        t->at[id] = (u32)((const u8 *)s.p - begin);
        t->at[id + 1] = (u32)(p - begin) + 8;
        if (type == TOK_NORMAL) tok_set_bit(t->normal, id);
        if (type != TOK_UNUSED && s.n > 0) {
            batch[n].hash = tok_open_token(t, id, type, s);
            __builtin_prefetch(&t->find[(u32)batch[n].hash & t->find_mask], 1);
            batch[n++].id = id;
        }
        if (n < TOK_BATCH && id + 1 < t->n_vocab) continue;
        for (u32 i = 0; i < n && !status; i++)
            status = tok_open_find(o, batch[i]);
        n = 0;
    }
    return status;
}

/* ---- special tokens ---- */

static str tok_special_text(const tok_special *s) {
    return (str){(const char *)s->p, s->n};
}

static bool tok_special_less(const void *ctx, u32 a, u32 b) {
    const tok_special *s = ctx;
    return str_cmp(tok_special_text(&s[a]), tok_special_text(&s[b])) < 0;
}

/* Lists the special tokens by id, the texts of pieces folded into `room`. */
static void tok_special_list(const tokenizer *t, tok_special *s, u8 *room) {
    for (u32 id = 0; id < t->n_vocab; id++) {
        str text = tok_text(t, id);
        u32 type = tok_type(t, id);
        if (!tok_is_special(type) || !text.n) continue;
        if (t->kind == TOK_PIECES) {
            text = tok_fold(text, room);
            room += text.n;
        }
        *s++ = (tok_special){(const u8 *)text.p, (u32)text.n, id,
            type == TOK_USER ? id : TOK_NONE, TOK_NONE};
    }
}

/* Takes over the list in this order, one entry for equal texts, and finds the
 * longest prefix of each and the rows. The entries that a text begins with are
 * all on the way up from the one before it, so the steps up that fail are no
 * more than the entries. */
static void tok_special_link(
    tokenizer *t, const tok_special *list, const u32 *order, u32 n) {
    u32 k = 0;
    for (u32 i = 0; i < n; i++) {
        tok_special s = list[order[i]];
        tok_row *row = &t->rows[s.p[0]];
        u32 up = k > 0 ? k - 1 : TOK_NONE;
        while (up != TOK_NONE && (t->special[up].n > s.n
            || memcmp(t->special[up].p, s.p, t->special[up].n) != 0))
            up = t->special[up].up;
        if (up != TOK_NONE && t->special[up].n == s.n) {
            if (t->special[up].user == TOK_NONE) t->special[up].user = s.user;
            continue;
        }
        if (!t->starts[s.p[0]]) row->from = k;
        t->starts[s.p[0]] = true;
        if (s.n > 1) tok_set_bit(row->second, s.p[1]);
        else memset(row->second, 0xff, sizeof row->second);
        s.up = up;
        t->special[k++] = s;
        row->to = k;
    }
}

/* Special tokens lie sorted by text, with their prefixes linked: a binary
 * search finds the last one that is not greater than a place in a text, and
 * whatever the place begins with is on the way up from there. 0.1 had a hash
 * table, where a file could make a byte of text cost milliseconds. */
static ksllm_status tok_open_specials(
    tok_opening *o, const ksllm_allocator *a) {
    tokenizer *t = o->t;
    u32 n = 0;
    u64 bytes = 256 * sizeof *t->rows;
    for (u32 id = 0; id < t->n_vocab; id++) {
        size_t size = tok_text(t, id).n;
        if (!tok_is_special(tok_type(t, id)) || !size) continue;
        bytes += sizeof *t->special + (t->kind == TOK_PIECES ? size : 0);
        n++;
    }
    if (!n) return KSLLM_OK;
    if (bytes <= SIZE_MAX) t->special_block = mem_alloc(a, (size_t)bytes);
    if (!t->special_block) return fail_memory(o->err, (size_t)bytes);
    t->special_bytes = (size_t)bytes;
    t->rows = t->special_block;
    t->special = (tok_special *)(t->rows + 256);
    memset(t->rows, 0, 256 * sizeof *t->rows);
    size_t list_bytes = n * (sizeof(tok_special) + 2 * sizeof(u32));
    tok_special *list = mem_alloc(a, list_bytes);
    if (!list) return fail_memory(o->err, list_bytes);
    u32 *order = (u32 *)(list + n);
    tok_special_list(t, list, (u8 *)(t->special + n));
    for (u32 i = 0; i < n; i++) order[i] = i;
    sort_u32(order, order + n, n, tok_special_less, list);
    tok_special_link(t, list, order, n);
    mem_free(a, list, list_bytes);
    return KSLLM_OK;
}

/* ---- merges ---- */

/* A slot that is not empty. */
static u32 tok_merge_rank(u32 slot) {
    return (slot & ((1u << TOK_RANK_BITS) - 1)) - 1;
}

static u64 tok_merge_hash(u32 left, u32 right) {
    return ((u64)left << TOK_ID_BITS | right) * 0x9e3779b97f4a7c15u;
}

static u32 tok_merge_slot(const tokenizer *t, u64 hash) {
    return (u32)(hash >> 32 ^ hash >> 20) & t->merge_mask;
}

/* A slot without its rank. */
static u32 tok_merge_tag(u64 hash) {
    return (u32)(hash >> 32) >> TOK_RANK_BITS << TOK_RANK_BITS;
}

/* The slot of the table `merge` where this pair is or would be put, NULL if
 * there is none within the limits. */
KS_INLINE u32 *tok_merge_find(
    const tokenizer *t, u64 hash, u32 left, u32 right) {
    u32 home = tok_merge_slot(t, hash), mask = t->merge_mask;
    u32 tag = tok_merge_tag(hash), alike = 0;
    for (u32 step = 0; step < TOK_CHAIN_MAX && alike < TOK_ALIKE; step++) {
        u32 *slot = &t->merge[(home + step) & mask];
        if (!*slot) return slot;
        if ((*slot ^ tag) >> TOK_RANK_BITS == 0) {
            const tok_merge *m = &t->merges[tok_merge_rank(*slot)];
            if (m->left == left && m->right == right) return slot;
            alike++;
        }
    }
    return NULL;
}

/* The rank of the merge of two tokens, TOK_NONE if there is none. */
static u32 tok_rank(const tokenizer *t, u32 left, u32 right) {
    const u32 *slot =
        tok_merge_find(t, tok_merge_hash(left, right), left, right);
    return slot && *slot ? tok_merge_rank(*slot) : TOK_NONE;
}

/* "left right": the place of the space that divides them, the first one that
 * is not at the beginning; 0 if there is none, or nothing after it. Byte-level
 * texts have no other spaces. s is a text of the file. If `more`, another one
 * follows, whose length lets 8 bytes be read at once: byte by byte, opening
 * takes a tenth longer. */
static size_t tok_divide(str s, bool more) {
    size_t i = 1;
    while (more && i < s.n) {
        u64 x = ld_u64(s.p + i) ^ 0x2020202020202020u;
        x = (x - 0x0101010101010101u) & ~x & 0x8080808080808080u;
        if (x) {
            i += (size_t)__builtin_ctzll(x) / 8;
            break;
        }
        i += 8;
    }
    while (!more && i < s.n && s.p[i] != ' ') i++;
    return i + 1 < s.n ? i : 0;
}

/* A merge on its way into the table: two texts and their hashes. left is 0 if
 * it is none. */
typedef struct {
    const u8 *text;
    u32 left, right; /* bytes; the space is between them */
    u64 hash[2];
} tok_merging;

static void tok_merging_read(
    const tokenizer *t, tok_merging *m, str s, bool more) {
    const u8 *p = (const u8 *)s.p;
    size_t i = tok_divide(s, more);
    m->left = i < TOK_TEXT_MAX && s.n - i < TOK_TEXT_MAX ? (u32)i : 0;
    if (!m->left) return;
    m->text = p;
    m->right = (u32)(s.n - i - 1);
    m->hash[0] = tok_file_key(p, i).hash;
    m->hash[1] = tok_file_key(p + i + 1, m->right).hash;
    __builtin_prefetch(&t->find[(u32)m->hash[0] & t->find_mask]);
    __builtin_prefetch(&t->find[(u32)m->hash[1] & t->find_mask]);
}

/* Whether two texts of the file, or ends of such, are equal in their last 8
 * bytes. */
KS_INLINE bool tok_ends_alike(const u8 *p, const u8 *q, size_t n) {
    const u8 *keep = (const u8 *)TOK_KEEP + 8 + min_size(n, 8);
    return ((ld_u64(p + n - 8) ^ ld_u64(q + n - 8)) & ld_u64(keep)) == 0;
}

KS_INLINE bool tok_alike(const u8 *p, const u8 *q, size_t n) {
    return tok_ends_alike(p, q, n) && (n <= 8 || memcmp(p, q, n - 8) == 0);
}

/* The id of left and right written together. Merges come in the order of
 * their tokens, several for one: nearly always it is `guess`, the token of the
 * merge before, or the next one, which saves the look-up that misses the
 * cache. Length and end tell which of the two, without a branch. */
static i32 tok_joined(const tokenizer *t, const tok_merging *m, u32 guess) {
    u8 buf[2 * TOK_TEXT_MAX];
    const u8 *left = m->text, *right = left + m->left + 1;
    u32 n = m->left + m->right;
    str s = tok_text(t, guess);
    size_t end = min_size(m->right, s.n);
    guess += (s.n != n)
        | !tok_ends_alike(
            (const u8 *)s.p + s.n - end, right + m->right - end, end);
    if (guess < t->n_vocab && tok_has_bit(t->normal, guess)) {
        s = tok_text(t, guess);
        if (s.n == n && tok_alike(left, (const u8 *)s.p, m->left)
            && tok_alike(right, (const u8 *)s.p + m->left, m->right))
            return (i32)guess;
    }
    memcpy(buf, left, m->left);
    memcpy(buf + m->left, right, m->right);
    return tok_lookup(t, buf, n);
}

/* The ids of a merge; `both` is TOK_NONE if one of the three is no token. From
 * then on hash[0] is that of the pair. For the halves, 61 equal bits of the
 * hash count as the same text: going to the texts would double the time of
 * opening, and a file made to fool this fools only itself. */
static tok_merge tok_merging_find(
    const tokenizer *t, tok_merging *m, u32 guess) {
    tok_merge ids = {TOK_NONE, TOK_NONE, TOK_NONE};
    if (!m->left) return ids;
    ids.left = (u32)tok_lookup_hash(t, m->hash[0], NULL);
    ids.right = (u32)tok_lookup_hash(t, m->hash[1], NULL);
    if (ids.left != TOK_NONE && ids.right != TOK_NONE)
        ids.both = (u32)tok_joined(t, m, guess);
    m->hash[0] = tok_merge_hash(ids.left, ids.right);
    __builtin_prefetch(&t->merge[tok_merge_slot(t, m->hash[0])], 1);
    return ids;
}

/* Merges that name a missing token are left out: nothing can reach them. Of
 * equal merges the last one counts, as in Hugging Face tokenizers. */
static ksllm_status tok_open_merges(tok_opening *o) {
    tokenizer *t = o->t;
    const u8 *p = t->n_merges > 0 ? o->merges->data : NULL;
    tok_merging batch[TOK_BATCH];
    for (u32 rank = 0, n, guess = 0; rank < t->n_merges; rank += n) {
        tok_merge *ids = t->merges + rank;
        n = min_u32(t->n_merges - rank, TOK_BATCH);
        for (u32 i = 0; i < n; i++)
            tok_merging_read(
                t, &batch[i], gguf_next_str(&p), rank + i + 1 < t->n_merges);
        for (u32 i = 0; i < n; i++) {
            ids[i] = tok_merging_find(t, &batch[i], guess);
            guess = ids[i].both == TOK_NONE ? guess : ids[i].both;
        }
        for (u32 i = 0; i < n; i++) {
            u64 hash = batch[i].hash[0];
            if (ids[i].both == TOK_NONE) continue;
            u32 *slot = tok_merge_find(t, hash, ids[i].left, ids[i].right);
            if (!slot)
                return tok_bad(o, TOK_MERGES, "has merges made to collide");
            *slot = tok_merge_tag(hash) | (rank + i + 1);
        }
    }
    return KSLLM_OK;
}

static i32 tok_find(const tokenizer *t, str text) {
    u8 buf[TOK_TEXT_MAX];
    if (!text.n || text.n > TOK_TEXT_MAX) return -1;
    if (t->kind == TOK_PIECES) text = tok_fold(text, buf);
    return tok_lookup(t, (const u8 *)text.p, text.n);
}

/* ---- stop tokens ---- */

/* Texts that end an answer if they are a token of type control or user,
 * besides what the file names. Ends of a turn come before ends of a text: the
 * first one found is the EOT.
 *   alone    not beside <|return|> or <|flush|>: in Harmony and Solar Open
 *            <|end|> ends a part of an answer
 *   control  only of type control: </s> is HTML in Gemma */
static const struct { const char *text; bool alone, control; } TOK_ENDS[] = {
    {"<|im_end|>", 0, 0}, {"<|eot_id|>", 0, 0}, {"<end_of_turn>", 0, 0},
    {"[|endofturn|]", 0, 0}, {"<|endofturn|>", 0, 0}, {"<|END|>", 0, 0},
    {"<|flush|>", 0, 0}, {"<|calls|>", 0, 0}, {"<|return|>", 0, 0},
    {"<|call|>", 0, 0}, {"<|end|>", 1, 0}, {"<|stop|>", 0, 0},
    {"<|eom_id|>", 0, 0}, {"<|endoftext|>", 0, 0}, {"<|end_of_text|>", 0, 0},
    {"<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
        0, 0},
    {"</s>", 0, 1}, {"<eos>", 0, 1}, {"[EOS]", 0, 1},
};

static bool tok_is_stop(const tokenizer *t, i32 id) {
    for (u32 i = 0; i < t->n_stops; i++)
        if (t->stop[i] == id) return true;
    return false;
}

static void tok_add_stop(tokenizer *t, i32 id) {
    if (id >= 0 && t->n_stops < TOK_STOPS && !tok_is_stop(t, id))
        t->stop[t->n_stops++] = id;
}

/* Reads what ksllm-quant writes: every id that ends an answer in the model's
 * config, for which GGUF has no key. */
static ksllm_status tok_open_stops(tok_opening *o) {
    static const char key[] = "tokenizer.ksllm.stop_token_ids";
    const gguf_kv *kv = gguf_find(o->g, key);
    i64 id;
    if (!kv) return KSLLM_OK;
    if (kv->type != KSLLM_META_ARRAY || kv->count > TOK_STOPS_LISTED)
        return tok_bad(o, key, "is not an array of at most 32 ids");
    for (u64 i = 0; i < kv->count; i++) {
        if (!gguf_int_at(kv, i, &id) || id < 0 || id >= o->t->n_vocab)
            return tok_bad(o, key, "has an id that is not in the vocabulary");
        tok_add_stop(o->t, (i32)id);
    }
    return KSLLM_OK;
}

static void tok_open_ends(tokenizer *t) {
    bool parts = tok_find(t, str_of("<|return|>")) >= 0
        || tok_find(t, str_of("<|flush|>")) >= 0;
    tok_add_stop(t, t->eos);
    tok_add_stop(t, t->eot);
    tok_add_stop(t, t->eom);
    for (size_t i = 0; i < KS_LEN(TOK_ENDS); i++) {
        i32 id = tok_find(t, str_of(TOK_ENDS[i].text));
        u32 type = id < 0 ? 0 : tok_type(t, (u32)id);
        if (TOK_ENDS[i].alone && parts) continue;
        if (type != TOK_CONTROL && (TOK_ENDS[i].control || type != TOK_USER))
            continue;
        if (t->eot < 0) t->eot = id;
        tok_add_stop(t, id);
    }
}

/* ---- open and close ---- */

/* Reads an id that the file names; all ones means none. */
static ksllm_status tok_open_id(tok_opening *o, const char *key, i32 *out) {
    i64 id;
    *out = -1;
    if (!gguf_get_int(o->g, key, &id) || id == -1 || id == 0xffffffff)
        return KSLLM_OK;
    if (id < 0 || id >= o->t->n_vocab)
        return tok_bad(o, key, "is not an id of the vocabulary");
    *out = (i32)id;
    return KSLLM_OK;
}

static ksllm_status tok_open_ids(tok_opening *o) {
    tokenizer *t = o->t;
    const struct { const char *key; i32 *id; } ids[] = {
        {"tokenizer.ggml.bos_token_id", &t->bos},
        {"tokenizer.ggml.eos_token_id", &t->eos},
        {"tokenizer.ggml.eot_token_id", &t->eot},
        {"tokenizer.ggml.eom_token_id", &t->eom},
        {"tokenizer.ggml.unknown_token_id", &t->unk},
        {"tokenizer.ggml.padding_token_id", &t->pad},
    };
    i64 flag;
    for (size_t i = 0; i < KS_LEN(ids); i++) {
        ksllm_status s = tok_open_id(o, ids[i].key, ids[i].id);
        if (s) return s;
    }
    t->adds_bos = t->kind == TOK_PIECES || t->rule->whole;
    if (gguf_get_int(o->g, "tokenizer.ggml.add_bos_token", &flag))
        t->adds_bos = flag != 0;
    if (gguf_get_int(o->g, "tokenizer.ggml.add_eos_token", &flag))
        t->adds_eos = flag != 0;
    t->adds_bos = t->adds_bos && t->bos >= 0;
    t->adds_eos = t->adds_eos && t->eos >= 0;
    t->prefix = t->kind == TOK_PIECES;
    if (gguf_get_int(o->g, "tokenizer.ggml.add_space_prefix", &flag))
        t->prefix = t->prefix && flag != 0;
    return KSLLM_OK;
}

static void tok_close(tokenizer *t, const ksllm_allocator *a) {
    mem_free(a, t->block, t->block_bytes);
    mem_free(a, t->special_block, t->special_bytes);
    memset(t, 0, sizeof *t);
}

/* pre_override replaces tokenizer.ggml.pre unless NULL. g must live as long
 * as t. */
static ksllm_status tok_open(tokenizer *t, const gguf *g,
    const char *pre_override, const ksllm_allocator *a, ksllm_error *err) {
    tok_opening o = {t, g, err, NULL, NULL};
    memset(t, 0, sizeof *t);
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    memset(t->letter, 0xff, sizeof t->letter);
    for (u32 b = 0; b < 256; b++) t->letter[tok_letter_of((u8)b)] = (i16)b;
    ksllm_status status = tok_open_keys(&o, pre_override);
    if (!status) status = tok_open_block(&o, a);
    if (!status) status = tok_open_tokens(&o);
    if (!status) status = tok_open_specials(&o, a);
    if (!status) status = tok_open_merges(&o);
    if (!status) status = tok_open_ids(&o);
    if (!status) status = tok_open_stops(&o);
    if (status) {
        tok_close(t, a);
        return status;
    }
    u8 buf[4];
    for (u32 b = 0; b < 256 && t->kind == TOK_BYTES; b++)
        t->byte_id[b] =
            tok_lookup(t, buf, txt_put(buf, tok_letter_of((u8)b)));
    tok_open_ends(t);
    return KSLLM_OK;
}

/* ---- encoding ---- */

/* A call that encodes. The caller sets what it has and leaves the rest 0. */
typedef struct {
    const tokenizer *t;
    u32 flags;      /* KSLLM_ENCODE_* */
    const u8 *data; /* NULL, or a flag per byte of text: 1 where no control
                       token may be */
    u8 *scratch;    /* memory is taken from here, then from the allocator */
    size_t scratch_bytes;
    const ksllm_allocator *a;
    i32 *out;
    size_t cap;
    ksllm_error *err;
    /* From here on tok_encode's own. */
    const u8 *text; /* begins where data begins */
    i64 n;          /* ids, also those that did not fit */
    bool after_unk; /* the last token was the unknown one */
    ksllm_status status; /* sticky: after an error nothing more is encoded */
} tok_coder;

/* Memory that goes back in reverse order. */
typedef struct {
    u8 *p; /* NULL: none */
    size_t bytes;
    bool heap;
} tok_loan;

static tok_loan tok_borrow(tok_coder *c, size_t bytes) {
    size_t skip = (0 - (uintptr_t)c->scratch) & 3;
    tok_loan loan = {NULL, bytes, true};
    if (c->scratch_bytes >= skip && c->scratch_bytes - skip >= bytes) {
        loan = (tok_loan){c->scratch + skip, bytes + skip, false};
        c->scratch += loan.bytes;
        c->scratch_bytes -= loan.bytes;
    } else if (!c->a) {
        c->status = fail(c->err, KSLLM_ERR_BUFFER, NO_OFFSET,
            "a word of the text is too long for the scratch memory: it needs "
            "%llu more bytes", LLU(bytes));
    } else {
        loan.p = mem_alloc(c->a, bytes);
        if (!loan.p) c->status = fail_memory(c->err, bytes);
    }
    return loan;
}

static void tok_return(tok_coder *c, tok_loan loan) {
    if (!loan.p) return;
    if (loan.heap) {
        mem_free(c->a, loan.p, loan.bytes);
    } else {
        c->scratch -= loan.bytes;
        c->scratch_bytes += loan.bytes;
    }
}

static void tok_emit(tok_coder *c, i32 id) {
    if ((u64)c->n < c->cap) c->out[c->n] = id;
    c->n++;
    c->after_unk = false;
}

/* A score as a rank: the higher the score, the lower the rank. NaN is last. */
static u32 tok_score_rank(const tokenizer *t, u32 id) {
    f32 score = ld_f32(t->scores + 4 * id);
    u32 bits = ld_u32(t->scores + 4 * id);
    if (score != score) return TOK_NONE - 1;
    if (score == 0) bits = 0; /* -0 is 0 */
    bits = bits >> 31 ? bits : ~bits ^ 0x80000000u;
    return bits < TOK_NONE - 1 ? bits : TOK_NONE - 1;
}

/* The normal token that a piece of text is, or -1. */
static i32 tok_piece_id(const tokenizer *t, const u8 *p, size_t n) {
    i32 id = n <= TOK_TEXT_MAX ? tok_lookup(t, p, n) : -1;
    u32 type = id < 0 ? 0 : tok_type(t, (u32)id);
    return type == TOK_NORMAL || type == TOK_USER ? id : -1;
}

/* The rank of the merge of two neighbours in a word, TOK_NONE if there is none.
 * left and right are their ids, which BYTES go by; p and n are the text of
 * both, which PIECES go by. */
static u32 tok_pair(
    const tokenizer *t, u32 left, u32 right, const u8 *p, size_t n) {
    if (t->kind == TOK_BYTES)
        return left == TOK_NONE || right == TOK_NONE ? TOK_NONE
            : tok_rank(t, left, right);
    i32 id = tok_piece_id(t, p, n);
    return id < 0 ? TOK_NONE : tok_score_rank(t, (u32)id);
}

/* What the two become. */
static u32 tok_join(const tokenizer *t, u32 rank, const u8 *p, size_t n) {
    return t->kind == TOK_BYTES ? t->merges[rank].both
                                : (u32)tok_piece_id(t, p, n);
}

/* Symbols are what merging begins with: bytes, or the characters of pieces. */
static size_t tok_symbol(const tokenizer *t, const u8 *p, const u8 *end) {
    u32 cp;
    return t->kind == TOK_BYTES ? 1 : txt_next(p, end, &cp);
}

static u32 tok_symbol_id(const tokenizer *t, const u8 *p, size_t n) {
    return t->kind == TOK_BYTES ? (u32)t->byte_id[*p]
                                : (u32)tok_piece_id(t, p, n);
}

/* Writes a symbol of a word in which nothing more merges. If it is no token:
 * its bytes, or the unknown token (of pieces, once in a row), or nothing. */
static void tok_emit_symbol(tok_coder *c, u32 id, const u8 *p, size_t n) {
    const tokenizer *t = c->t;
    bool bytes = t->kind == TOK_PIECES;
    if (id != TOK_NONE) {
        tok_emit(c, (i32)id);
        return;
    }
    for (size_t i = 0; i < n; i++) bytes = bytes && t->byte_id[p[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++) tok_emit(c, t->byte_id[p[i]]);
    if (bytes || t->unk < 0) return;
    if (!c->after_unk || t->kind == TOK_BYTES) tok_emit(c, t->unk);
    c->after_unk = true;
}

/* Merges a word of up to TOK_SHORT bytes. It looks through all pairs for the
 * best one each time, which beats a heap for up to some hundred. */
static void tok_merge_short(tok_coder *c, const u8 *p, size_t n) {
    const tokenizer *t = c->t;
    u32 id[TOK_SHORT], rank[TOK_SHORT], at[TOK_SHORT + 1], count = 0;
    for (u32 i = 0; i < n; count++) {
        u32 len = (u32)tok_symbol(t, p + i, p + n);
        at[count] = i;
        id[count] = tok_symbol_id(t, p + i, len);
        i += len;
    }
    at[count] = (u32)n;
    for (u32 i = 0; i + 1 < count; i++)
        rank[i] = tok_pair(t, id[i], id[i + 1], p + at[i], at[i + 2] - at[i]);
    while (count > 1) {
        u32 best = 0;
        for (u32 i = 1; i + 1 < count; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == TOK_NONE) break;
        const u8 *q = p + at[best];
        id[best] = tok_join(t, rank[best], q, at[best + 2] - at[best]);
        count--;
        memmove(id + best + 1, id + best + 2, 4 * (count - best - 1));
        memmove(at + best + 1, at + best + 2, 4 * (count - best));
        memmove(rank + best, rank + best + 1, 4 * (count - best - 1));
        if (best + 1 < count)
            rank[best] = tok_pair(
                t, id[best], id[best + 1], q, at[best + 2] - at[best]);
        if (best > 0)
            rank[best - 1] = tok_pair(t, id[best - 1], id[best],
                p + at[best - 1], at[best + 1] - at[best - 1]);
    }
    for (u32 i = 0; i < count; i++)
        tok_emit_symbol(c, id[i], p + at[i], at[i + 1] - at[i]);
}

/* A long word has a slot per byte. A symbol lies in the slot of its first byte.
 * If it is longer than one byte, its second and its last slot (which may be the
 * same) hold TOK_SPAN | length, so both neighbours are found without links:
 *
 *     byte     0     1     2     3     4
 *     id       가    span3 span3 b     ..       "가" is 3 bytes, one symbol
 *
 * rank[i] is that of the symbol at i with the next one. `win` is a tournament
 * over the slots: win[1] is the slot of the best rank, the leftmost of equal
 * ones. Node k has the players 2k and 2k + 1; from n on they are slots. */
#define TOK_SPAN 0x80000000u

typedef struct {
    const tokenizer *t;
    const u8 *p;
    u32 n;
    u32 *id, *rank, *win;
} tok_long;

/* The length of the symbol that a slot next to its first one tells of. */
static u32 tok_long_span(u32 id) {
    return id != TOK_NONE && (id & TOK_SPAN) ? id & ~TOK_SPAN : 1;
}

static u32 tok_long_next(const tok_long *w, u32 i) {
    return i + (i + 1 < w->n ? tok_long_span(w->id[i + 1]) : 1);
}

static u32 tok_long_prev(const tok_long *w, u32 i) {
    return i - tok_long_span(w->id[i - 1]);
}

static void tok_long_put(tok_long *w, u32 i, u32 len, u32 id) {
    w->id[i] = id;
    if (len > 1) w->id[i + 1] = w->id[i + len - 1] = TOK_SPAN | len;
}

static u32 tok_long_better(const tok_long *w, u32 a, u32 b) {
    if (w->rank[a] != w->rank[b]) return w->rank[a] < w->rank[b] ? a : b;
    return a < b ? a : b;
}

static u32 tok_long_player(const tok_long *w, u32 k) {
    return k < w->n ? w->win[k] : k - w->n;
}

/* Plays the games of slot i again. */
static void tok_long_play(tok_long *w, u32 i) {
    for (u32 k = (i + w->n) / 2; k > 0; k /= 2) {
        u32 win = tok_long_better(
            w, tok_long_player(w, 2 * k), tok_long_player(w, 2 * k + 1));
        if (w->win[k] == win && win != i) return;
        w->win[k] = win;
    }
}

/* The rank of the symbol at i with the next one. */
static u32 tok_long_rank(const tok_long *w, u32 i) {
    u32 j = tok_long_next(w, i);
    if (j == w->n) return TOK_NONE;
    return tok_pair(
        w->t, w->id[i], w->id[j], w->p + i, tok_long_next(w, j) - i);
}

static void tok_long_fill(tok_long *w) {
    for (u32 i = 0; i < w->n;) {
        size_t len = tok_symbol(w->t, w->p + i, w->p + w->n);
        tok_long_put(w, i, (u32)len, tok_symbol_id(w->t, w->p + i, len));
        i += (u32)len;
    }
    memset(w->rank, 0xff, 4 * (size_t)w->n);
    for (u32 i = 0; i < w->n; i = tok_long_next(w, i))
        w->rank[i] = tok_long_rank(w, i);
    for (u32 k = w->n - 1; k > 0; k--)
        w->win[k] = tok_long_better(
            w, tok_long_player(w, 2 * k), tok_long_player(w, 2 * k + 1));
}

static void tok_merge_long(tok_coder *c, const u8 *p, size_t n) {
    tok_long w = {c->t, p, (u32)n, NULL, NULL, NULL};
    if (n >= TOK_SPAN / 4 || n > SIZE_MAX / 12) {
        c->status = fail(c->err, KSLLM_ERR_MEMORY, NO_OFFSET,
            "a word of more than %llu bytes",
            LLU(KSLLM_MAX_TEXT_BYTES));
        return;
    }
    tok_loan loan = tok_borrow(c, 12 * n);
    if (c->status) return;
    w.id = (u32 *)(void *)loan.p;
    w.rank = w.id + n;
    w.win = w.rank + n;
    tok_long_fill(&w);
    while (w.rank[w.win[1]] != TOK_NONE) {
        u32 i = w.win[1], j = tok_long_next(&w, i);
        u32 len = tok_long_next(&w, j) - i;
        tok_long_put(&w, i, len, tok_join(w.t, w.rank[i], p + i, len));
        w.rank[j] = TOK_NONE;
        w.rank[i] = tok_long_rank(&w, i);
        tok_long_play(&w, j);
        tok_long_play(&w, i);
        if (i > 0) {
            j = tok_long_prev(&w, i);
            w.rank[j] = tok_long_rank(&w, j);
            tok_long_play(&w, j);
        }
    }
    for (u32 i = 0, j; i < w.n; i = j) {
        j = tok_long_next(&w, i);
        tok_emit_symbol(c, w.id[i], p + i, j - i);
    }
    tok_return(c, loan);
}

/* The token that a word is as a whole, where the model says so
 * (ignore_merges); -1: none. */
static i32 tok_whole(const tokenizer *t, const u8 *p, size_t n) {
    u8 letters[TOK_TEXT_MAX + 4];
    size_t len = 0;
    if (n > t->max_piece_bytes) return -1;
    for (size_t i = 0; i < n; i++) {
        u32 c = tok_letter_of(p[i]);
        if (c >= 0x80) {
            letters[len++] = (u8)(0xc0 | c >> 6);
            c = 0x80 | (c & 0x3f);
        }
        letters[len++] = (u8)c;
        if (len > TOK_TEXT_MAX) return -1;
    }
    i32 id = tok_lookup(t, letters, len);
    return id >= 0 && tok_type(t, (u32)id) == TOK_NORMAL ? id : -1;
}

static void tok_word(tok_coder *c, const u8 *p, size_t n) {
    bool whole = n > 1 && c->t->kind == TOK_BYTES && c->t->rule->whole;
    i32 id = whole ? tok_whole(c->t, p, n) : -1;
    if (id >= 0) tok_emit(c, id);
    else if (n == 1) tok_emit_symbol(c, tok_symbol_id(c->t, p, 1), p, 1);
    else if (n <= TOK_SHORT) tok_merge_short(c, p, n);
    else tok_merge_long(c, p, n);
}

/* Text between special tokens, byte-level. */
static void tok_words(tok_coder *c, const u8 *p, const u8 *end) {
    tok_cutter cutter = {c->t->rule, p, p, end};
    while (p < end && !c->status) {
        const u8 *next = tok_cut(&cutter);
        tok_word(c, p, (size_t)(next - p));
        p = next;
    }
}

/* To SentencePiece the whole text is one word. It merges in parts with the same
 * result: a part ends before a space that follows a byte which no token has
 * before a space. Returns the end of the part at p < end. */
static const u8 *tok_part(const tokenizer *t, const u8 *p, const u8 *end) {
    for (p++; p < end; p++)
        if (*p == ' ' && p[-1] != ' ' && !tok_has_bit(t->before_space, p[-1]))
            break;
    return p;
}

/* Text between special tokens, pieces, folded. */
static void tok_parts(tok_coder *c, const u8 *p, const u8 *end) {
    if (c->t->prefix && p < end) { /* the first part gets a space */
        const u8 *next = *p == ' ' ? tok_run(p, end, 1 << TXT_SPACE) : p;
        next = next < end ? tok_part(c->t, next, end) : end;
        size_t n = (size_t)(next - p) + 1;
        u8 small[TOK_SHORT];
        tok_loan loan = {0};
        if (n > TOK_SHORT) loan = tok_borrow(c, n);
        if (c->status) return;
        u8 *word = loan.p ? loan.p : small;
        word[0] = ' ';
        memcpy(word + 1, p, n - 1);
        tok_word(c, word, n);
        tok_return(c, loan);
        p = next;
    }
    while (p < end && !c->status) {
        const u8 *next = tok_part(c->t, p, end);
        tok_word(c, p, (size_t)(next - p));
        p = next;
    }
}

/* Text between special tokens. It is normalised first if the model or the
 * caller wants that and it is not so already, which nearly all text is. */
static void tok_between(tok_coder *c, const u8 *p, const u8 *end) {
    bool nfc = c->t->kind == TOK_BYTES && c->t->rule->nfc;
    bool join = !nfc && (c->flags & KSLLM_ENCODE_COMPOSE);
    tok_loan loan = {0};
    c->after_unk = false;
    if ((nfc && txt_nfc_span(p, end) < end)
        || (join && txt_hangul_find(p, end) < end)) {
        size_t n = nfc ? txt_nfc(p, end, NULL, 0) : (size_t)(end - p);
        loan = tok_borrow(c, n);
        if (c->status) return;
        n = nfc ? txt_nfc(p, end, loan.p, n) : txt_hangul_join(p, end, loan.p);
        p = loan.p;
        end = p + n;
    }
    if (c->t->kind == TOK_BYTES) tok_words(c, p, end);
    else tok_parts(c, p, end);
    tok_return(c, loan);
}

/* The longest special token at p < end, its length in *n; -1: none. Control
 * tokens must be wanted and have no byte that `data` flags; user-defined ones
 * may lie anywhere. The last entry that is not greater than the text begins
 * with all that the text begins with. */
static i32 tok_special_at(
    const tok_coder *c, const u8 *p, const u8 *end, size_t *n) {
    const tokenizer *t = c->t;
    const tok_row *row = &t->rows[*p];
    str text = {(const char *)p, (size_t)(end - p)};
    u32 low = row->from, high = row->to;
    if (text.n > 1 && !tok_has_bit(row->second, p[1])) return -1;
    while (low < high) {
        u32 middle = low + (high - low) / 2;
        if (str_cmp(tok_special_text(&t->special[middle]), text) <= 0)
            low = middle + 1;
        else high = middle;
    }
    if (low == row->from) return -1;
    size_t left = min_size(text.n, t->special[low - 1].n), common = 0;
    while (common < left && t->special[low - 1].p[common] == p[common])
        common++;
    size_t clean = c->flags & KSLLM_ENCODE_SPECIAL ? common : 0;
    const u8 *data = c->data && clean ? c->data + (p - c->text) : NULL;
    const u8 *flag = data ? memchr(data, 1, common) : NULL;
    if (flag) clean = (size_t)(flag - data);
    for (u32 i = low - 1; i != TOK_NONE; i = t->special[i].up) {
        const tok_special *s = &t->special[i];
        u32 id = s->n <= clean ? s->id : s->user;
        if (s->n > common || id == TOK_NONE) continue;
        *n = s->n;
        return (i32)id;
    }
    return -1;
}

static void tok_text_ids(tok_coder *c, const u8 *p, const u8 *end) {
    const u8 *begin = p;
    while (p < end && !c->status) {
        size_t n = 0;
        i32 id = c->t->starts[*p] ? tok_special_at(c, p, end, &n) : -1;
        if (id < 0) {
            p++;
            continue;
        }
        tok_between(c, begin, p);
        tok_emit(c, id);
        begin = p += n;
    }
    if (!c->status) tok_between(c, begin, end);
}

/* The flags of text that tok_fold folds: that of the first byte of U+2581
 * stays. */
static void tok_fold_flags(str s, const u8 *data, u8 *out) {
    const u8 *p = (const u8 *)s.p, *end = p + s.n;
    for (size_t n; p < end; p += n, data += n) {
        *out++ = *data;
        n = tok_is_mark(p, end) ? 3 : 1;
    }
}

/* Writes up to c->cap ids. Returns how many there are, or a status. */
static i64 tok_encode(tok_coder *c, str text) {
    const tokenizer *t = c->t;
    tok_loan folded = {0}, flags = {0};
    if (text.n > KSLLM_MAX_TEXT_BYTES)
        return fail(c->err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
            "a text of %llu bytes: at most %llu are encoded at once",
            LLU(text.n), LLU(KSLLM_MAX_TEXT_BYTES));
    if ((c->flags & KSLLM_ENCODE_BOS) && t->adds_bos) tok_emit(c, t->bos);
    if (!text.n) text.p = ""; /* NULL + 0 is undefined */
    const u8 *end = (const u8 *)text.p + text.n;
    const u8 *mark = t->kind == TOK_PIECES ? (const u8 *)text.p : end;
    while (mark < end && !tok_is_mark(mark, end)) mark++;
    if (mark < end) {
        folded = tok_borrow(c, text.n);
        if (c->data && !c->status) {
            flags = tok_borrow(c, text.n);
            if (flags.p) tok_fold_flags(text, c->data, flags.p);
            c->data = flags.p;
        }
        if (!c->status) text = tok_fold(text, folded.p);
    }
    c->text = (const u8 *)text.p;
    if (text.n && !c->status) tok_text_ids(c, c->text, c->text + text.n);
    tok_return(c, flags);
    tok_return(c, folded);
    if (c->status) return c->status;
    if ((c->flags & KSLLM_ENCODE_EOS) && t->adds_eos) tok_emit(c, t->eos);
    return c->n;
}

/* ---- decoding ---- */

/* The bytes of a token as text: nothing for control tokens unless asked for.
 * They lie in buf, which takes t->max_piece_bytes, or in the file. */
static str tok_piece(const tokenizer *t, i32 id, u32 flags, u8 *buf) {
    u32 type = tok_type(t, (u32)id);
    if ((type == TOK_CONTROL || type == TOK_UNKNOWN)
        && !(flags & KSLLM_DECODE_SPECIAL))
        return (str){NULL, 0};
    return tok_bytes(t, (u32)id, buf);
}

/* What a ksllm_decoder holds. It lies in the caller's words, whose type the
 * compiler takes to be another one: hence may_alias. */
typedef struct __attribute__((may_alias)) {
    const tokenizer *t;
    u32 flags;
    u8 n_pending, pending[4]; /* bytes of an unfinished character */
    bool started;
} tok_decoder;

_Static_assert(sizeof(tok_decoder) <= sizeof(ksllm_decoder), "opaque words");

static void tok_decoder_init(tok_decoder *d, const tokenizer *t, u32 flags) {
    *d = (tok_decoder){.t = t, .flags = flags};
}

/* Writes the bytes of *n_tokens tokens from `out` on, while another one fits
 * before `limit`. *n_tokens becomes how many those were; returns their end. */
KS_INLINE u8 *tok_decoder_fill(tok_decoder *d, const i32 *tokens,
    size_t *n_tokens, u8 *out, const u8 *limit) {
    const tokenizer *t = d->t;
    size_t i = 0;
    for (; i < *n_tokens && limit - out > TOK_TEXT_MAX; i++) {
        u32 id = (u32)tokens[i], byte = id - (u32)t->byte_id[0];
        str s = tok_text(t, id);
        i64 k = !tok_has_bit(t->normal, id) || (t->prefix && !d->started) ? -1
            : t->kind == TOK_BYTES ? tok_letters(t, s, out)
            : (i64)tok_fold(s, out).n;
        if (i + 12 < *n_tokens) { /* saves a fifth of the time */
            __builtin_prefetch(&t->at[tokens[i + 12]]);
            __builtin_prefetch(t->texts + t->at[tokens[i + 6]]);
        }
        if (k > 0) { /* nearly always */
            out += k;
            continue;
        }
        /* <0x00> to <0xFF> have consecutive ids; most of Korean in Llama 2. */
        if (byte < 256 && t->byte_id[byte] == tokens[i] && d->started) {
            *out++ = (u8)byte;
            continue;
        }
        s = tok_piece(t, tokens[i], d->flags, out);
        if (!s.n) continue;
        if (!d->started && t->prefix && s.p[0] == ' ') {
            s.p++;
            s.n--;
        }
        d->started = true;
        if (s.p != (const char *)out) memmove(out, s.p, s.n);
        out += s.n;
    }
    *n_tokens = i;
    return out;
}

/* Decodes as many tokens as a small buffer takes. *n_tokens says how many
 * there are and then how many those were. Writes whole characters up to cap and
 * returns how many bytes there are. *full says that one did not fit; then no
 * more is written. Tokens together are twice as fast as one by one: the CPU
 * predicts the branches within running text, but not those at the end of every
 * token. */
static size_t tok_decoder_put(tok_decoder *d, const i32 *tokens,
    size_t *n_tokens, u8 *out, size_t cap, bool *full) {
    u8 buf[4 * TOK_TEXT_MAX], text[8], *begin = buf + d->n_pending;
    size_t n = 0;
    memcpy(buf, d->pending, 4);
    u8 *end = tok_decoder_fill(d, tokens, n_tokens, begin, buf + sizeof buf);
    const u8 *rest = txt_valid(buf, end);
    if ((*full || (size_t)(rest - buf) <= cap)
        && (rest == end || !txt_measure(rest, (size_t)(end - rest)))) {
        n = (size_t)(rest - buf);
        if (!*full) memcpy(out, buf, n);
        d->n_pending = (u8)(end - rest);
        memcpy(d->pending, rest, d->n_pending);
        return n;
    }
    for (const u8 *p = begin; p < end; p++) { /* there will be U+FFFD */
        u32 len = txt_feed(d->pending, &d->n_pending, *p, text);
        *full = *full || n + len > cap;
        if (!*full) memcpy(out + n, text, len);
        n += len;
    }
    return n;
}

static i64 tok_decoder_next(tok_decoder *d, i32 token, char *text, size_t cap) {
    bool full = false;
    size_t one = 1;
    if (token < 0 || (u32)token >= d->t->n_vocab) return KSLLM_ERR_TOKEN;
    if (cap < 3 * (size_t)d->t->max_piece_bytes + 12) return KSLLM_ERR_BUFFER;
    return (i64)tok_decoder_put(d, &token, &one, (u8 *)text, cap, &full);
}

static i64 tok_decoder_end(tok_decoder *d, char *text, size_t cap) {
    size_t n = d->n_pending > 0 ? 3 : 0;
    if (cap < n) return KSLLM_ERR_BUFFER;
    if (n > 0) txt_put((u8 *)text, 0xfffd);
    tok_decoder_init(d, d->t, d->flags);
    return (i64)n;
}

/* Decodes all tokens, which must be of the vocabulary. Writes whole characters
 * up to cap; returns the length of the whole text. */
static i64 tok_decode(const tokenizer *t, const i32 *tokens, size_t n_tokens,
    u32 flags, char *text, size_t cap) {
    tok_decoder d;
    bool full = false;
    size_t n = 0;
    tok_decoder_init(&d, t, flags);
    for (size_t i = 0, k; i < n_tokens; i += k) {
        full = full || n >= cap;
        k = n_tokens - i;
        n += tok_decoder_put(&d, tokens + i, &k, full ? NULL : (u8 *)text + n,
            full ? 0 : cap - n, &full);
    }
    if (d.n_pending > 0) {
        if (!full && n + 3 <= cap) txt_put((u8 *)text + n, 0xfffd);
        n += 3;
    }
    return (i64)n;
}

#if !defined KSLLM_NO_CHAT

/* ==========================================================================
 * § 11 JSON (private)
 * The one reader of JSON, for conversations, for the calls in an answer, and
 * for quant/, and what writes strings. May use § 1-9.
 *
 * The grammar is one machine that takes a byte at a time and keeps no text
 * (json_step): calls in an answer come in pieces. The reader (json_next) drives
 * it over a text that is whole, and gives tokens that lie in the text. Numbers
 * keep their digits. Nothing here allocates or recurses.
 * ======================================================================== */

enum {
    JSON_DEPTH = 48,        /* brackets in brackets of a call, which lies 6
                               deep in a message, */
    JSON_DEPTH_MOST = 64    /* and of any text: bits of json_scan.open */
};

typedef enum json_mode {
    JSON_VALUE,     /* begins: a zeroed scanner */
    JSON_FIRST,     /* the first item of a list, or its end */
    JSON_FIRST_KEY, JSON_KEY, JSON_COLON,
    JSON_NEXT,      /* ',' or a closing bracket */
    JSON_WORD, JSON_NUMBER,
    JSON_STRING, JSON_ESCAPE, JSON_HEX,
    JSON_END, JSON_BAD
} json_mode;

typedef struct json_scan {
    u64 open;           /* bit 0 is the innermost bracket: 1 is an object */
    u8 depth, mode;
    u8 sub;             /* place in a word, in a number, in \u1234 */
    u8 more;            /* levels that it may go beyond JSON_DEPTH */
    bool key;           /* the string is one */
} json_scan;

static bool json_is_space(u8 b) {
    return b == ' ' || b == '\n' || b == '\t' || b == '\r';
}

static bool json_in_string(const json_scan *j) {
    return j->mode >= JSON_STRING && j->mode <= JSON_HEX;
}

/* Where a number goes from state `at` by byte b; 0: it does not. It may end
 * where NUMBER_ENDS has a bit. */
enum { NUMBER_ENDS = 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 };
static u8 json_number(u8 at, u8 b) {
    static const u8 to[9][6] = {
        /* 0 1-9 . e - + */
        {2, 3, 0, 0, 1, 0},     /* before it */
        {2, 3, 0, 0, 0, 0},     /* 1: - */
        {0, 0, 4, 6, 0, 0},     /* 2: 0 */
        {3, 3, 4, 6, 0, 0},     /* 3: 12 */
        {5, 5, 0, 0, 0, 0},     /* 4: 12. */
        {5, 5, 0, 6, 0, 0},     /* 5: 12.3 */
        {8, 8, 0, 0, 7, 7},     /* 6: 12e */
        {8, 8, 0, 0, 0, 0},     /* 7: 12e- */
        {8, 8, 0, 0, 0, 0},     /* 8: 12e3 */
    };
    if (b >= '0' && b <= '9') return to[at][b != '0'];
    return b == '.' ? to[at][2] : (b | 32) == 'e' ? to[at][3]
        : b == '-' ? to[at][4] : b == '+' ? to[at][5] : 0;
}

static void json_value_ends(json_scan *j) {
    j->mode = j->depth ? JSON_NEXT : JSON_END;
}

static void json_close(json_scan *j) {
    j->open >>= 1;
    j->depth--;
    json_value_ends(j);
}

static const char JSON_WORDS[] = "truefalsenull";

static void json_begin(json_scan *j, u8 b) {
    const char *word = b == 't' ? JSON_WORDS : b == 'f' ? JSON_WORDS + 4
        : b == 'n' ? JSON_WORDS + 9 : NULL;
    j->sub = json_number(0, b);
    j->key = false;
    if (j->sub) j->mode = JSON_NUMBER;
    else if (b == '"') j->mode = JSON_STRING;
    else if (word) j->mode = JSON_WORD, j->sub = (u8)(word + 1 - JSON_WORDS);
    else if ((b == '{' || b == '[') && j->depth < JSON_DEPTH + j->more) {
        j->open = j->open << 1 | (b == '{');
        j->depth++;
        j->mode = b == '{' ? JSON_FIRST_KEY : JSON_FIRST;
    } else j->mode = JSON_BAD;
}

static void json_step_string(json_scan *j, u8 b) {
    bool hex = (b >= '0' && b <= '9') || ((b | 32) >= 'a' && (b | 32) <= 'f');
    if (j->mode == JSON_HEX) {
        if (!hex) j->mode = JSON_BAD;
        else if (!--j->sub) j->mode = JSON_STRING;
    } else if (j->mode == JSON_ESCAPE) {
        j->sub = 4;
        j->mode = b == 'u' ? JSON_HEX
            : b && strchr("\"\\/bfnrt", b) ? JSON_STRING : JSON_BAD;
    } else if (b == '"') {
        if (j->key) j->mode = JSON_COLON;
        else json_value_ends(j);
    } else if (b == '\\') j->mode = JSON_ESCAPE;
    else if (b < 32) j->mode = JSON_BAD;
}

static void json_step_between(json_scan *j, u8 b) {
    bool object = j->open & 1;
    u8 mode = j->mode;
    if (json_is_space(b)) return;
    if (mode == JSON_VALUE || (mode == JSON_FIRST && b != ']'))
        json_begin(j, b);
    else if ((mode == JSON_FIRST_KEY && b == '}') || mode == JSON_FIRST
        || (mode == JSON_NEXT && b == (object ? '}' : ']'))) json_close(j);
    else if (b == '"' && (mode == JSON_KEY || mode == JSON_FIRST_KEY))
        j->mode = JSON_STRING, j->key = true;
    else if (mode == JSON_COLON && b == ':') j->mode = JSON_VALUE;
    else if (mode == JSON_NEXT && b == ',')
        j->mode = object ? JSON_KEY : JSON_VALUE;
    else j->mode = JSON_BAD;
}

/* The next byte: j->mode is END after the last one of a list, an object or a
 * string, BAD once the text cannot be JSON. */
static void json_step(json_scan *j, u8 b) {
    if (j->mode == JSON_NUMBER) {
        u8 to = json_number(j->sub, b);
        if (!to && NUMBER_ENDS >> j->sub & 1) json_value_ends(j);
        else if (!to) j->mode = JSON_BAD;
        j->sub = to;
        if (to) return;
    }
    if (json_in_string(j)) json_step_string(j, b);
    else if (j->mode != JSON_WORD) json_step_between(j, b);
    else if (b != (u8)JSON_WORDS[j->sub]) j->mode = JSON_BAD;
    else if (++j->sub == 4 || j->sub == 9 || j->sub == 13) json_value_ends(j);
}

/* Whether what came is a whole value. */
static bool json_whole(const json_scan *j) {
    return j->mode == JSON_END || (j->mode == JSON_NUMBER && !j->depth
        && NUMBER_ENDS >> j->sub & 1);
}

static bool json_is_value(const u8 *p, size_t n) {
    json_scan j = {0};
    for (size_t i = 0; i < n && j.mode != JSON_BAD; i++) json_step(&j, p[i]);
    return json_whole(&j);
}

/* ---- a token at a time ---- */

typedef enum json_token {
    JSON_T_END,         /* of the text; or r->why says what is wrong at r->p */
    JSON_T_NULL, JSON_T_FALSE, JSON_T_TRUE, JSON_T_NUMBER, JSON_T_STRING,
    JSON_T_KEY, JSON_T_LIST, JSON_T_OBJECT,
    JSON_T_CLOSE        /* of a list or an object */
} json_token;

typedef struct json_reader {
    const u8 *begin, *p, *end;
    const u8 *at;       /* where the last token began */
    json_scan scan;
    bool loose;         /* NaN, Infinity and -Infinity are numbers, as Python
                           writes them */
    const char *why;
} json_reader;

static json_reader json_begin_reader(str text) {
    const u8 *p = (const u8 *)(text.p ? text.p : "");
    return (json_reader){.begin = p, .p = p, .end = p + text.n,
        .scan.more = JSON_DEPTH_MOST - JSON_DEPTH};
}

/* The byte at r->p, or the end there, cannot stand where the scanner was. */
static json_token json_fail(json_reader *r, u8 mode) {
    static const char *const why[] = {
        [JSON_VALUE] = "a value was expected",
        [JSON_FIRST] = "a value was expected",
        [JSON_FIRST_KEY] = "a key was expected",
        [JSON_KEY] = "a key was expected",
        [JSON_COLON] = "':' was expected",
        [JSON_NEXT] = "',' or a closing bracket was expected",
        [JSON_WORD] = "a value was expected",
        [JSON_NUMBER] = "a number does not end this way",
        [JSON_STRING] = "a control character in a string",
        [JSON_ESCAPE] = "a bad escape in a string",
        [JSON_HEX] = "a bad escape in a string",
        [JSON_END] = "something after the end"};
    bool end = r->p == r->end;
    bool deep = !end && mode <= JSON_FIRST && (*r->p == '[' || *r->p == '{');
    r->why = deep ? "nested too deeply" : end && mode != JSON_COLON
        ? "the text ends too early" : why[mode];
    return JSON_T_END;
}

static json_token json_read_string(json_reader *r, str *text) {
    const u8 *from = r->p;
    bool key = r->scan.key;
    for (; r->p < r->end; r->p++) {
        u8 b = *r->p, mode = r->scan.mode;
        if (mode == JSON_STRING && b >= 32 && b != '"' && b != '\\') continue;
        json_step(&r->scan, b);
        if (r->scan.mode == JSON_BAD) return json_fail(r, mode);
        if (json_in_string(&r->scan)) continue;
        *text = (str){(const char *)from, (size_t)(r->p++ - from)};
        return key ? JSON_T_KEY : JSON_T_STRING;
    }
    r->why = "a string does not end";
    return JSON_T_END;
}

static json_token json_read_number(json_reader *r, str *text) {
    u8 at = r->scan.sub, to;
    while (r->p < r->end && (to = json_number(at, *r->p)) != 0) at = to, r->p++;
    if (!(NUMBER_ENDS >> at & 1)) return json_fail(r, JSON_NUMBER);
    json_value_ends(&r->scan);
    *text = (str){(const char *)r->at, (size_t)(r->p - r->at)};
    return JSON_T_NUMBER;
}

/* A value that is a word; JSON_T_END: there is none. */
static json_token json_read_word(json_reader *r, str *text) {
    static const char *const words[] =
        {"null", "false", "true", "NaN", "Infinity", "-Infinity"};
    for (u32 i = 0; i < (r->loose ? KS_LEN(words) : 3); i++) {
        *text = str_of(words[i]);
        if ((size_t)(r->end - r->p) < text->n
            || memcmp(r->p, text->p, text->n)) continue;
        r->p += text->n;
        json_value_ends(&r->scan);
        return i < 3 ? JSON_T_NULL + i : JSON_T_NUMBER;
    }
    return JSON_T_END;
}

/* The next token. The text of a number or a word is what stands there, that of
 * a string or a key what stands between the quotes. */
static json_token json_next(json_reader *r, str *text) {
    while (!r->why) {
        while (r->p < r->end && json_is_space(*r->p)) r->p++;
        r->at = r->p;
        u8 mode = r->scan.mode;
        if (r->p == r->end)
            return mode == JSON_END ? JSON_T_END : json_fail(r, mode);
        u8 b = *r->p;
        json_token word = mode <= JSON_FIRST && (b > '9' || b == '-')
            ? json_read_word(r, text) : JSON_T_END;
        if (word) return word;
        json_step(&r->scan, b);
        if (r->scan.mode == JSON_BAD || r->scan.mode == JSON_WORD)
            return json_fail(r, mode);
        r->p++;
        switch (b) {
        case ',': case ':': break;
        case '{': return JSON_T_OBJECT;
        case '[': return JSON_T_LIST;
        case '}': case ']': return JSON_T_CLOSE;
        case '"': return json_read_string(r, text);
        default: return json_read_number(r, text);
        }
    }
    return JSON_T_END;
}

/* The value of a key in the object p, which is JSON; n is 0: none. */
static str json_field(const u8 *p, size_t n, const char *name) {
    json_reader r = json_begin_reader((str){(const char *)p, n});
    str text;
    for (json_token k; (k = json_next(&r, &text)) != JSON_T_END;) {
        if (k != JSON_T_KEY || r.scan.depth != 1
            || !str_eq(text, str_of(name))) continue;
        json_next(&r, &text);
        const u8 *from = r.at;
        while (r.scan.depth > 1 && json_next(&r, &text)) {}
        return (str){(const char *)from, (size_t)(r.p - from)};
    }
    return (str){NULL, 0};
}

/* Up to `n` hexadecimal digits at p; -1 when they are not all there. */
static i64 json_hex(const u8 *p, const u8 *end, u32 n) {
    i64 v = 0;
    if ((size_t)(end - p) < n) return -1;
    for (u32 i = 0; i < n; i++) {
        u32 b = p[i], low = b | 32;
        if (b >= '0' && b <= '9') v = v * 16 + (b - '0');
        else if (low >= 'a' && low <= 'f') v = v * 16 + (low - 'a' + 10);
        else return -1;
    }
    return v;
}

/* The text of a string that the reader gave, which may lie at `to` itself: it
 * is not longer. Half a surrogate pair becomes U+FFFD. */
static size_t json_unescape(u8 *to, str s) {
    static const char from[] = "\"\\/bfnrt", by[] = "\"\\/\b\f\n\r\t";
    const u8 *p = (const u8 *)s.p, *end = p + s.n;
    u8 *out = to;
    while (p < end) {
        if (*p != '\\') { *out++ = *p++; continue; }
        const char *at = strchr(from, p[1]);
        p += 2;
        if (at) { *out++ = (u8)by[at - from]; continue; }
        u32 cp = (u32)json_hex(p, end, 4);
        p += 4;
        if (cp >> 11 == 0x1b) {
            i64 low = cp < 0xdc00 && end - p >= 6 && p[0] == '\\'
                && p[1] == 'u' ? json_hex(p + 2, end, 4) : -1;
            bool pair = low >= 0xdc00 && low <= 0xdfff;
            cp = pair ? 0x10000 + ((cp & 0x3ff) << 10) + ((u32)low & 0x3ff)
                : 0xfffd;
            p += pair ? 6 : 0;
        }
        out += txt_put(out, cp);
    }
    return (size_t)(out - to);
}

/* ---- writing ---- */

/* Text that is written up to a limit and measured to its end. */
typedef struct json_out { char *to; size_t cap, n; } json_out;

static void json_put(json_out *o, const void *p, size_t n) {
    if (n && o->n < o->cap) memcpy(o->to + o->n, p, min_size(n, o->cap - o->n));
    o->n += n;
}

/* The character at *p as a JSON string has it, at most 6 bytes; *p goes on. */
static u32 json_escape(const u8 **p, const u8 *end, u8 *to) {
    static const char from[] = "\"\\\b\f\n\r\t", by[] = "\"\\bfnrt";
    u32 cp;
    *p += txt_next(*p, end, &cp);
    if (cp == TXT_BAD) return txt_put(to, 0xfffd);
    if (cp >= 32 && cp != '"' && cp != '\\') return txt_put(to, cp);
    const char *at = cp ? strchr(from, (int)cp) : NULL;
    to[0] = '\\';
    to[1] = at ? (u8)by[at - from] : 'u';
    if (at) return 2;
    to[2] = to[3] = '0';
    to[4] = (u8)('0' + (cp >> 4));
    to[5] = (u8)"0123456789abcdef"[cp & 15];
    return 6;
}

/* The inside of a string. */
static void json_put_text(json_out *o, const void *text, size_t n) {
    const u8 *p = text, *end = n ? p + n : p;
    u8 esc[8];
    while (p < end) json_put(o, esc, json_escape(&p, end, esc));
}

/* A text as a JSON string with its quotes: its length, of which at most `cap`
 * bytes are written. */
static size_t json_quote(str text, char *to, size_t cap) {
    json_out o = {to, cap, 0};
    json_put(&o, "\"", 1);
    json_put_text(&o, text.p, text.n);
    json_put(&o, "\"", 1);
    return o.n;
}

/* ==========================================================================
 * § 12 TEMPLATE (private)
 * An interpreter for the Jinja that chat templates are written in. May use
 * § 1-11.
 *
 * A template is cut into tokens, and these are evaluated where they stand: the
 * functions that know the grammar also compute. They go over the whole template
 * once with c->check set, which finds what is wrong with it and where blocks,
 * operands and branches end, and then run it, jumping over what does not
 * apply. Loops and blocks take no C stack. What does (parentheses, macros,
 * JSON, printing a value inside a value) stops at CHAT_NEST or CHAT_DEPTH. The
 * language is Jinja2 3.1 with the settings of transformers'
 * apply_chat_template: trim_blocks, lstrip_blocks, no autoescape, loop
 * controls, immutable lists and dicts.
 *
 * The one decision: every text knows which of its bytes came from the
 * caller's messages (chat_val.mark). The marks go with the bytes through
 * slices, joins and filters to the end, where the tokenizer reads control
 * tokens only out of bytes that the template wrote.
 *
 * Memory comes from one arena that is dropped after the call: the caller's
 * buffer, or chunks of the allocator up to CHAT_MEMORY. A failure sets
 * c->status once; code that runs on until it is checked sees undefined values.
 * ======================================================================== */

enum {
    CHAT_STEPS = 20000000,  /* steps that any template may take, */
    CHAT_STEPS_BYTE = 2,    /* and for each byte of what it is given, */
    CHAT_STEPS_PAIR = 8,    /* and for each pair of messages: some templates
                               look back from each message at all others */
    CHAT_DEPTH = 64,        /* values in values */
    CHAT_NEST = 42,         /* expressions and macros in each other: about
                               400 bytes of C stack each */
    CHAT_BLOCKS = 256,      /* open blocks, those of all macros together */
    CHAT_STACK = 4096,      /* arguments of all calls that are being made */
    CHAT_KEYS = 4096,       /* of one JSON object */
    CHAT_ITEMS = 1 << 20,   /* of one list */
    CHAT_TEXT = 16 << 20,   /* bytes of one text */
    CHAT_MEMORY = 128 << 20,
    CHAT_CHUNK = 64 << 10,
    CHAT_LONG = 512,        /* bytes of a text that may grow */
    CHAT_ARGS = 8           /* parameters of a built-in */
};

typedef enum chat_type {
    CHAT_UNDEF, CHAT_NONE, CHAT_BOOL, CHAT_INT,
    CHAT_BIG,               /* an integer beyond 63 bits: its text */
    CHAT_FLOAT, CHAT_STR, CHAT_LIST, CHAT_TUPLE, CHAT_DICT, CHAT_RANGE,
    CHAT_NAMESPACE, CHAT_LOOP, CHAT_FUNC, CHAT_MACRO, CHAT_METHOD,
    CHAT_UNSET              /* an argument that was not given */
} chat_type;

enum {
    CHAT_MARKUP = 1,        /* a text that went through `safe` or `escape` */
    CHAT_LAZY = 2,          /* a generator: has no length, no items */
    CHAT_KEY_VIEW = 4,      /* dict.keys() and so on: no list to tests */
    CHAT_VALUE_VIEW = 8,
    CHAT_ITEM_VIEW = 16
};

/* Values are immutable and copied freely; what they point to is in the arena
 * or in the caller's JSON. Namespaces are the exception that templates need.
 * 16 bytes: compilers pass and return them in two registers. */
typedef struct chat_val {
    u8 type, flag;
    u8 mark;                /* of a text: whose bytes it has, see chat_marks */
    u32 n;                  /* bytes of text, items of a list, pairs */
    union {
        i64 i;
        f64 f;
        const u8 *s;
        const struct chat_val *v;   /* items; a dict's are key, value, ... */
        struct chat_lazy *lazy;
        const struct chat_range *range;
        struct chat_namespace *names;
        struct chat_loop *loop;
        const struct chat_builtin *func;
        struct chat_macro *macro;
        struct chat_bound *bound;
    } u;
} chat_val;
_Static_assert(sizeof(chat_val) == 16, "two registers");

/* What a generator goes over: 0 not read, 1 read, 2 perhaps in part. */
typedef struct chat_lazy {
    const chat_val *v;
    u8 state;
} chat_lazy;

/* Every byte of the text is the caller's. */
static const u8 CHAT_DATA[1] = {1};
enum { CHAT_ALL = 255 };    /* the same as chat_val.mark */

/* The flags of a text's bytes, 1 for the caller's: NULL, all are 0; CHAT_DATA,
 * all are 1; else one for each byte, which lies 1 << mark after it. So a part
 * of a text needs no other mark. */
static const u8 *chat_marks(chat_val v) {
    return v.mark == 0 ? NULL : v.mark == CHAT_ALL ? CHAT_DATA
        : v.u.s + ((size_t)1 << v.mark);
}

typedef struct chat_var { u32 name; chat_val v; } chat_var;

/* Variables of one block. `pinned`: a macro was defined under it and may look
 * it up later, so it is not used again. */
typedef struct chat_scope {
    struct chat_scope *parent;
    chat_var *v;
    u32 n, cap;
    bool pinned;
} chat_scope;

typedef struct chat_list { chat_val *v; u32 n, cap; } chat_list;
typedef struct chat_namespace { chat_list pairs; } chat_namespace;
typedef struct chat_range { i64 from, to, by; } chat_range;

/* A name of the template or of a variable; names are numbers from then on. */
typedef struct chat_name {
    chat_val text;
    u32 next;               /* with the same hash */
    u16 rows[9];            /* the built-in of each kind + 1 */
} chat_name;

/* `link` and `cond` are numbers of tokens that the check found out:
 *     and, or, comparison     link: after the right side (all right sides)
 *     first of an expression  cond: the last `if` of a choice that begins so
 *     `if` of a choice        cond: the `if` before it; link: after all
 *     tag of a block          link: its next tag (else, endif ...)
 *     for                     cond: after what it loops over
 *     a parameter             link: after its default
 *     filter, test            link: the built-in's row + 1 */
typedef struct chat_token {
    u8 type, level, post;
    u32 line, name, link, cond;
    chat_val v;
} chat_token;

typedef struct chat_loop {
    chat_scope scope;
    struct chat_loop *next_free;
    chat_token *tag, *body;
    chat_val in;            /* list, tuple or range */
    u32 n, i;               /* i counts from 1 once it runs */
    bool whole;             /* some turn got to its end: no `else` */
    chat_val changed;
} chat_loop;

typedef struct chat_bound {
    chat_val self;
    const struct chat_builtin *func;
} chat_bound;

typedef struct chat_macro {
    chat_token *tag, *params;     /* params: after the ( */
    chat_scope *scope;
} chat_macro;

/* Text under construction; cap is a power of two:
 *
 *     p         p + n      p + cap   p + cap + n
 *     | bytes   | room     | flags   | room      |      see chat_marks */
typedef struct chat_text {
    u8 *p;
    size_t n, cap;
    bool data, plain;       /* whose bytes it has */
} chat_text;

/* An open block. In the check all of them, when it runs those that have a scope
 * or collect text. */
typedef struct chat_frame {
    u8 kind;
    chat_token *tag, *last;   /* last: the tag before the next */
    chat_scope *scope;      /* outside of it */
    chat_loop *loop;
} chat_frame;

typedef struct chat_chunk {
    struct chat_chunk *next;
    size_t bytes;
} chat_chunk;

typedef struct chat_args {
    chat_val *v;            /* v[0] is what a filter or method is used on */
    u32 n;
    chat_val *kw;           /* name, value, name, value */
    u32 n_kw, how;          /* how: the row's */
} chat_args;

typedef struct chat_ctx {
    const ksllm_allocator *a;   /* NULL: only the caller's memory */
    chat_chunk *chunks;
    u8 *free;
    size_t left, taken;
    bool full;              /* the tokenizer was lent no more */
    ksllm_error *err;
    ksllm_status status;
    u32 line, depth;
    u64 steps, most_steps, n_given;
    i64 now;                /* seconds since 1970, local time */
    chat_name *names;
    u32 n_names, names_cap, head[256];
    chat_token *tokens, *t;     /* all, and the next */
    bool check;
    chat_val unknown;       /* in the check: a filter or test, and its line */
    u32 unknown_line;
    chat_list args, named;  /* of the calls that are being made; named: name,
                               value, name, value */
    chat_frame *frames;
    chat_text *sinks;
    u32 n_frames, n_sinks;
    chat_text tail;         /* see chat_concat, */
    chat_list tail_items;   /* and chat_join_lists */
    chat_scope *scope, *free_scopes;
    chat_loop *free_loops;
    chat_scope root, globals;
    const struct chat_below *below;
} chat_ctx;

/* What code above calls although it is defined below: the table of built-ins,
 * and the entries to what recurses. */
typedef struct chat_below {
    const struct chat_builtin *rows;
    const struct chat_builtin *(*find)(u32 kind, chat_val name);
    void (*expr)(chat_ctx *c, chat_val *v);
    void (*body)(chat_ctx *c);
} chat_below;

/* ---- failure and memory ---- */

/* What runs rarely is compiled for size, and what grows or fails also stays out
 * of line. At -O2 that is a quarter of the section. */
#define CHAT_RARE __attribute__((cold)) static
#define CHAT_COLD __attribute__((cold, noinline)) static

CHAT_COLD KS_PRINTF(3, 4) chat_val chat_fail(
    chat_ctx *c, ksllm_status status, const char *fmt, ...) {
    chat_val none = {0};
    char text[440];
    if (c->status) return none;
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = 0;
    va_end(ap);
    c->status = status;
    if (c->line)
        fail(c->err, status, NO_OFFSET, "chat template, line %u: %s", c->line,
            text);
    else
        fail(c->err, status, NO_OFFSET, "%s", text);
    return none;
}

/* The template cannot go on with these messages. */
#define CHAT_RAISE(c, ...) chat_fail(c, KSLLM_ERR_ARGUMENT, __VA_ARGS__)

/* What Python has and this has not. */
CHAT_COLD chat_val chat_refuse(chat_ctx *c, const char *what) {
    return CHAT_RAISE(c, "'%s' is not supported", what);
}

/* Counts work where it is done, which is all that ends a hostile template:
 * one step for each item or pair looked at (it may take 20 ns), for 4 bytes
 * that are read as characters, for 16 that are compared, searched or copied
 * at once. False when there was too much of it. */
static bool chat_work(chat_ctx *c, u64 steps) {
    c->steps += steps;
    if (c->steps > c->most_steps)
        chat_fail(c, KSLLM_ERR_FORMAT, "more than %llu steps",
            LLU(c->most_steps));
    return !c->status;
}

/* What the rest may take, given so many bytes and messages. */
static void chat_allow(chat_ctx *c, u64 bytes, u64 messages) {
    c->steps = 0;
    c->most_steps = CHAT_STEPS + CHAT_STEPS_BYTE * bytes
        + CHAT_STEPS_PAIR * messages * messages;
}

CHAT_COLD ksllm_status chat_too_large(chat_ctx *c) {
    chat_fail(c, KSLLM_ERR_FORMAT, "needs more than %u MiB of memory",
        CHAT_MEMORY >> 20);
    return c->status;
}

CHAT_COLD bool chat_grow_arena(chat_ctx *c, size_t n) {
    size_t bytes = max_size(CHAT_CHUNK, n + sizeof(chat_chunk));
    if (!c->a) {
        chat_fail(c, KSLLM_ERR_BUFFER, "the chat's memory is too small");
        return false;
    }
    if (bytes > CHAT_MEMORY - c->taken) return !chat_too_large(c);
    chat_chunk *chunk = mem_alloc(c->a, bytes);
    if (!chunk) {
        c->status = fail_memory(c->err, bytes);
        return false;
    }
    *chunk = (chat_chunk){c->chunks, bytes};
    c->chunks = chunk;
    c->taken += bytes;
    c->free = (u8 *)(chunk + 1);
    c->left = bytes - sizeof *chunk;
    return true;
}

/* Memory until the end of the call, or NULL and c->status. */
static void *chat_alloc_raw(chat_ctx *c, size_t n) {
    n = (n + 7) & ~(size_t)7;
    if (!chat_work(c, n >> 8)) return NULL;
    if (n > c->left && !chat_grow_arena(c, n)) return NULL;
    void *p = c->free;
    c->free += n;
    c->left -= n;
    return p;
}

static void *chat_alloc(chat_ctx *c, size_t n) {
    void *p = chat_alloc_raw(c, n);
    return p ? memset(p, 0, n) : NULL;
}

static void chat_drop(chat_ctx *c) {
    while (c->chunks) {
        chat_chunk *chunk = c->chunks;
        c->chunks = chunk->next;
        mem_free(c->a, chunk, chunk->bytes);
    }
}

CHAT_COLD bool chat_grow_array(
    chat_ctx *c, void *array, u32 n, u32 *cap, size_t size) {
    void *old;
    memcpy(&old, array, sizeof old);
    if (n >= CHAT_ITEMS) {
        chat_fail(c, KSLLM_ERR_FORMAT, "a list of more than %u items",
            CHAT_ITEMS);
        return false;
    }
    u32 more = *cap ? *cap * 2 : 8;
    void *p = chat_alloc_raw(c, more * size);
    if (!p) return false;
    if (n) memcpy(p, old, n * size);
    memcpy(array, &p, sizeof p);
    *cap = more;
    return true;
}

/* Room for one more of `size` bytes in an array; false on failure. */
static bool chat_reserve(
    chat_ctx *c, void *array, u32 n, u32 *cap, size_t size) {
    return n < *cap || chat_grow_array(c, array, n, cap, size);
}

static void chat_append(chat_ctx *c, chat_list *l, chat_val v) {
    if (chat_reserve(c, &l->v, l->n, &l->cap, sizeof v)) l->v[l->n++] = v;
}

/* ---- values ---- */

static chat_val chat_none(void) { return (chat_val){.type = CHAT_NONE}; }

static chat_val chat_bool(bool b) {
    return (chat_val){.type = CHAT_BOOL, .u.i = b};
}

static chat_val chat_int(i64 i) {
    return (chat_val){.type = CHAT_INT, .u.i = i};
}

static chat_val chat_float(f64 f) {
    return (chat_val){.type = CHAT_FLOAT, .u.f = f};
}

static chat_val chat_str(const void *p, size_t n) {
    return (chat_val){.type = CHAT_STR, .n = (u32)n,
        .u.s = p ? p : (const void *)""};
}

static chat_val chat_strz(const char *z) { return chat_str(z, strlen(z)); }

static chat_val chat_listed(chat_list l) {
    return (chat_val){.type = CHAT_LIST, .n = l.n, .u.v = l.v};
}

static bool chat_is(chat_val v, const char *z) {
    size_t n = strlen(z);
    return v.type == CHAT_STR && v.n == n && !memcmp(v.u.s, z, n);
}

static bool chat_is_seq(chat_val v) {
    return v.type == CHAT_LIST || v.type == CHAT_TUPLE;
}

static bool chat_is_int(chat_val v) {
    return v.type == CHAT_INT || v.type == CHAT_BOOL;
}

static bool chat_is_number(chat_val v) {
    return chat_is_int(v) || v.type == CHAT_FLOAT;
}

static bool chat_is_numeric(chat_val v) {
    return chat_is_number(v) || v.type == CHAT_BIG;
}

/* What has items by number. */
static bool chat_is_array(chat_val v) {
    return v.type == CHAT_TUPLE || (v.type == CHAT_LIST && !v.flag);
}

static f64 chat_f64(chat_val v) {
    return v.type == CHAT_FLOAT ? v.u.f : (f64)v.u.i;
}

static bool chat_true(chat_val v) {
    switch (v.type) {
    case CHAT_UNDEF: case CHAT_NONE: return false;
    case CHAT_BOOL: case CHAT_INT: return v.u.i != 0;
    case CHAT_FLOAT: return v.u.f < 0 || v.u.f > 0 || v.u.f != v.u.f;
    case CHAT_STR: case CHAT_LIST: case CHAT_TUPLE: case CHAT_DICT:
    case CHAT_RANGE:
        return v.n != 0 || (v.flag & CHAT_LAZY);
    default: return true;
    }
}

static const char *chat_type_name(chat_val v) {
    static const char *const names[] = {"an undefined value", "none",
        "a boolean", "an integer", "an integer beyond 63 bits", "a float",
        "a text", "a list", "a tuple", "a mapping", "a range", "a namespace",
        "a loop", "a function", "a macro", "a method", "nothing"};
    return names[v.type];
}

/* Bytes [from, to) of a text. */
static chat_val chat_cut(chat_val s, size_t from, size_t to) {
    if (s.n) s.u.s += from;
    s.n = (u32)(to - from);
    return s;
}

/* How many bytes of an excerpt, for "%.*s". */
static int chat_clip(chat_val s, u32 most) { return (int)min_u32(s.n, most); }

/* Room for n bytes more. */
CHAT_COLD bool chat_grow_text(chat_ctx *c, chat_text *t, size_t n) {
    size_t cap = t->cap ? t->cap * 2 : 32;
    while (cap < t->n + n && cap < CHAT_TEXT) cap *= 2;
    if (t->n + n > CHAT_TEXT) {
        chat_fail(c, KSLLM_ERR_FORMAT, "a text of more than %u MiB",
            CHAT_TEXT >> 20);
        return false;
    }
    u8 *more = chat_alloc_raw(c, cap * 2);
    if (!more) return false;
    if (t->n) {
        memcpy(more, t->p, t->n);
        memcpy(more + cap, t->p + t->cap, t->n);
    }
    t->p = more;
    t->cap = cap;
    return true;
}

static void chat_put(
    chat_ctx *c, chat_text *t, const void *p, size_t n, const u8 *mark) {
    if (!n || c->status) return;
    if (n > t->cap - t->n && !chat_grow_text(c, t, n)) return;
    u8 *to = t->p + t->n, *flags = to + t->cap;
    memcpy(to, p, n);
    if (mark && mark != CHAT_DATA) memcpy(flags, mark, n);
    else memset(flags, mark != NULL, n);
    t->n += n;
    if (mark) t->data = true;
    if (mark != CHAT_DATA) t->plain = true;
}

static void chat_putz(chat_ctx *c, chat_text *t, const char *z) {
    chat_put(c, t, z, strlen(z), NULL);
}

static void chat_puts(chat_ctx *c, chat_text *t, chat_val s) {
    chat_put(c, t, s.u.s, s.n, chat_marks(s));
}

static KS_PRINTF(3, 4) void chat_putf(
    chat_ctx *c, chat_text *t, const char *fmt, ...) {
    char buf[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    if (n > 0) chat_put(c, t, buf, min_size((size_t)n, sizeof buf - 1), NULL);
}

static void chat_put_cp(chat_ctx *c, chat_text *t, u32 cp, const u8 *mark) {
    u8 buf[4];
    u32 n = txt_put(buf, cp);
    u8 marks[4];
    if (mark && mark != CHAT_DATA) {
        memset(marks, *mark, sizeof marks);
        mark = marks;
    }
    chat_put(c, t, buf, n, mark);
}

/* What was built, as a value that shares its memory. */
static chat_val chat_built(const chat_text *t) {
    chat_val v = chat_str(t->p, t->n);
    if (t->data)
        v.mark = t->plain ? (u8)__builtin_ctzll(t->cap) : CHAT_ALL;
    return v;
}

/* Templates collect with `x = x ~ more`. The last long text that was made so
 * grows where it is: who holds a shorter part of it sees no change. */
static chat_val chat_concat(chat_ctx *c, chat_val a, chat_val b) {
    chat_text small = {0}, *t = &c->tail;
    if (!a.n) return b;
    if (!b.n) return a;
    if (!t->n || a.u.s != t->p || a.n != t->n) {
        if ((size_t)a.n + b.n < CHAT_LONG) t = &small;
        else *t = small;
        chat_puts(c, t, a);
    }
    chat_puts(c, t, b);
    return chat_built(t);
}

/* ---- characters ---- */

static u32 chat_next(const u8 *p, const u8 *end, u32 *cp) {
    u32 n = txt_next(p, end, cp);
    if (*cp == TXT_BAD) *cp = 0xfffd;
    return n;
}

static size_t chat_count(chat_val s) {
    size_t n = 0;
    for (u32 i = 0; i < s.n; i++) n += (s.u.s[i] & 0xc0) != 0x80;
    return n;
}

/* The same, counted as work. */
static i64 chat_chars(chat_ctx *c, chat_val s) {
    return chat_work(c, s.n >> 4) ? (i64)chat_count(s) : 0;
}

/* Byte offset of character k; s.n beyond the end. */
static size_t chat_offset(chat_val s, size_t k) {
    size_t i = 0;
    for (; i < s.n; i++)
        if ((s.u.s[i] & 0xc0) != 0x80 && k-- == 0) break;
    return i;
}

static bool chat_is_space(u32 cp) {
    if (cp < 0x80) return cp == 32 || (cp >= 9 && cp <= 13)
        || (cp >= 0x1c && cp <= 0x1f);
    return txt_class_of(cp) == TXT_SPACE;
}


/* Hangul, kana and ideographs. */
static bool chat_no_case(u32 cp) {
    return (cp >= 0x2e80 && cp < 0xa640) || (cp >= 0xac00 && cp < 0xfb00);
}

/* Capital letters whose small one is `add` further; 1: every second letter of
 * the run is a capital. The letters of Latin, Greek, Cyrillic and Armenian that
 * become one other letter, and nothing else. */
static const struct { u16 first, last; i16 add; } CHAT_CASE[] = {
    {0x41, 0x5a, 32}, {0xc0, 0xd6, 32}, {0xd8, 0xde, 32}, {0x100, 0x12e, 1},
    {0x132, 0x136, 1}, {0x139, 0x147, 1}, {0x14a, 0x176, 1},
    {0x178, 0x178, -121}, {0x179, 0x17d, 1}, {0x1a0, 0x1a4, 1},
    {0x1af, 0x1af, 1}, {0x1cd, 0x1db, 1}, {0x1de, 0x1ee, 1},
    {0x1f8, 0x21e, 1}, {0x222, 0x232, 1}, {0x386, 0x386, 38},
    {0x388, 0x38a, 37}, {0x38c, 0x38c, 64}, {0x38e, 0x38f, 63},
    {0x391, 0x3a1, 32}, {0x3a3, 0x3ab, 32}, {0x400, 0x40f, 80},
    {0x410, 0x42f, 32}, {0x460, 0x480, 1}, {0x48a, 0x4be, 1},
    {0x4c1, 0x4cd, 1}, {0x4d0, 0x52e, 1}, {0x531, 0x556, 48},
    {0x1e00, 0x1e94, 1}, {0x1ea0, 0x1efe, 1}, {0x2160, 0x216f, 16},
    {0x24b6, 0x24cf, 26}, {0xff21, 0xff3a, 32},
};

/* Letters with a title case, or with marks that are letters in upper case. */
static bool chat_odd_case(u32 cp) {
    return cp - 0x1c4 < 9 || cp - 0x1f1 < 3 || cp == 0x345
        || (cp >= 0x1f80 && cp < 0x2000);
}

/* A letter in upper or lower case. Sigma has two small forms, others become
 * several letters: what is not in the table is refused. */
CHAT_RARE u32 chat_recase(chat_ctx *c, u32 cp, bool up) {
    if (cp < 0x80 && cp - (up ? 'a' : 'A') >= 26) return cp;
    if (chat_no_case(cp)) return cp;
    for (u32 i = 0; i < KS_LEN(CHAT_CASE); i++) {
        u32 add = (u32)(i32)CHAT_CASE[i].add, first = CHAT_CASE[i].first;
        u32 at = cp - first - (up ? add : 0);
        if (at <= CHAT_CASE[i].last - first && (add != 1 || !(at & 1))
            && (up || cp != 0x3a3)) return up ? cp - add : cp + add;
    }
    txt_class k = txt_class_of(cp);
    if (k == (up ? TXT_LOWER : TXT_UPPER) || chat_odd_case(cp))
        chat_refuse(c, "the other case of this letter");
    return cp;
}

/* The class of a letter with case, 0 for one without. */
CHAT_RARE txt_class chat_case_of(chat_ctx *c, u32 cp) {
    txt_class k = txt_class_of(cp);
    if (k != TXT_UPPER && k != TXT_LOWER) {
        if (cp >= 0x80 && !chat_no_case(cp) && k != TXT_SPACE)
            chat_refuse(c, "the case of this character");
        k = 0;
    } else if (chat_odd_case(cp)) {
        chat_refuse(c, "the case of this character");
    }
    return k;
}

static bool chat_has_cp(chat_val set, u32 cp) {
    for (u32 i = 0, x; i < set.n;) {
        i += chat_next(set.u.s + i, set.u.s + set.n, &x);
        if (x == cp) return true;
    }
    return false;
}

/* Off both ends: what is in `set`, white space when it is no text. */
static chat_val chat_strip(chat_val s, chat_val set, bool left, bool right) {
    size_t a = 0, b = s.n;
    u32 cp;
    bool space = set.type != CHAT_STR;
    while (left && a < b) {
        u32 k = chat_next(s.u.s + a, s.u.s + b, &cp);
        if (!(space ? chat_is_space(cp) : chat_has_cp(set, cp))) break;
        a += k;
    }
    while (right && a < b) {
        size_t k = b - 1;
        while (k > a && (s.u.s[k] & 0xc0) == 0x80) k--;
        chat_next(s.u.s + k, s.u.s + b, &cp);
        if (!(space ? chat_is_space(cp) : chat_has_cp(set, cp))) break;
        b = k;
    }
    return chat_cut(s, a, b);
}

/* Where `what` is in s from byte `from` on, or SIZE_MAX. */
static size_t chat_find(chat_ctx *c, chat_val s, chat_val what, size_t from) {
    if (!what.n) return from <= s.n ? from : SIZE_MAX;
    while (from < s.n && s.n - from >= what.n) {
        const u8 *at =
            memchr(s.u.s + from, what.u.s[0], s.n - from - what.n + 1);
        size_t next = at ? (size_t)(at - s.u.s) : s.n;
        if (!chat_work(c, 1 + ((next - from) >> 5) + (what.n >> 4)) || !at)
            break;
        from = next;
        if (!memcmp(at, what.u.s, what.n)) return from;
        from++;
    }
    return SIZE_MAX;
}

/* ---- decimal numbers, exactly, whatever the locale ---- */

static KS_PRINTF(3, 4) int chat_format(
    char *buf, size_t cap, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, cap, fmt, ap);
    va_end(ap);
    return n < 0 ? 0 : (int)min_size((size_t)n, cap - 1);
}

enum { CHAT_SIGNIFICANT = 780,  /* more than 767 digits never decide how a
                                   double is rounded */
    CHAT_BIG_DIGITS = 4300 };   /* where Python ends */

static bool chat_is_digit(const u8 *p, const u8 *end) {
    return p < end && *p >= '0' && *p <= '9';
}

/* The end of the digits at p, which may have single _ between if `loose`. */
static const u8 *chat_skip_digits(const u8 *p, const u8 *end, bool loose) {
    while (chat_is_digit(p, end)) {
        p++;
        p += loose && p < end && *p == '_' && chat_is_digit(p + 1, end);
    }
    return p;
}

/* The end of the exponent (e5, E-3) at p; p if there is none. */
static const u8 *chat_skip_exponent(const u8 *p, const u8 *end) {
    const u8 *z = p + 1;
    if (p == end || (*p | 32) != 'e') return p;
    z += z < end && (*z == '-' || *z == '+');
    return chat_is_digit(z, end) ? chat_skip_digits(z, end, false) : p;
}

/* The double nearest to the decimal [p, end), which has no sign. strtod rounds
 * correctly, and is given no point, which is the locale's. */
CHAT_RARE f64 chat_read_f64(const void *from, const void *to) {
    char buf[CHAT_SIGNIFICANT + 32];
    const u8 *p = from, *end = to;
    u32 n = 0;
    i64 e = 0, given = 0;   /* times 10^e */
    bool point = false, rest = false;
    for (; p < end && (*p | 32) != 'e'; p++) {
        if (*p == '.') point = true;
        if (!chat_is_digit(p, end)) continue;
        if (n == CHAT_SIGNIFICANT) rest |= *p != '0', e++;
        else if (n || *p != '0') buf[n++] = (char)*p;
        e -= point;
    }
    bool minus = p + 1 < end && p[1] == '-';
    for (; p < end; p++)
        if (chat_is_digit(p, end) && given < INT32_MAX)
            given = given * 10 + *p - '0';
    e += minus ? -given : given;
    if (!n || e + n < -400) return 0;
    if (e + n > 400) return (f64)INFINITY;
    if (rest) buf[n++] = '1', e--;
    chat_format(buf + n, sizeof buf - n, "e%d", (int)e);
    return strtod(buf, NULL);
}

/* An integer or decimal at p; its length, 0 when there is none. An integer
 * beyond 63 bits stays where it is. */
static size_t chat_number(const u8 *p, const u8 *end, chat_val *out) {
    bool minus = p < end && *p == '-', big = false;
    const u8 *first = p + minus, *s = chat_skip_digits(first, end, true);
    u64 d = 0;
    if (s == first) return 0;
    for (const u8 *z = first; z < s; z++)
        if (*z != '_')
            big |= !mul_ok(d, 10, &d) || !add_ok(d, (u64)(*z - '0'), &d);
    const u8 *whole = s;
    if (s + 1 < end && *s == '.' && chat_is_digit(s + 1, end))
        s = chat_skip_digits(s + 1, end, true);
    s = chat_skip_exponent(s, end);
    size_t n = (size_t)(s - p);
    if (s > whole)
        *out = chat_float(chat_read_f64(first, s) * (minus ? -1 : 1));
    else if (!big && d <= (u64)INT64_MAX + minus)
        *out = chat_int(minus ? (i64)(0 - d) : (i64)d);
    else if (n > CHAT_BIG_DIGITS || *first == '0' || memchr(p, '_', n))
        return 0;
    else *out = (chat_val){.type = CHAT_BIG, .n = (u32)n, .u.s = p};
    return n;
}

/* snprintf of %.*e or %.*f, with a point whatever the locale. */
CHAT_RARE int chat_print_float(
    char *buf, size_t cap, char kind, int digits, f64 f) {
    const char fmt[] = {'%', '.', '*', kind, 0};
    char *to = buf;
    if (f != f) return chat_format(buf, cap, "nan");
    int n = chat_format(buf, cap, fmt, digits, f);
    for (int i = 0; i < n; i++) {
        u8 b = (u8)buf[i];
        bool text = (b >= '0' && b <= '9') || b == '-' || b == '+'
            || (b >= 'a' && b <= 'z');
        if (text) *to++ = (char)b;
        else if (to == buf || to[-1] != '.') *to++ = '.';
    }
    *to = 0;
    return (int)(to - buf);
}

/* repr(float) of Python: the fewest digits that read back the same. What has
 * 15 or fewer is found with 15, unless the number has lost bits. */
CHAT_RARE void chat_put_float(chat_ctx *c, chat_text *t, f64 f) {
    char buf[48], d[24];
    f64 a = fabs(f);
    int n = chat_print_float(buf, sizeof buf, 'e', 0, f);
    chat_put(c, t, "-", f == f && buf[0] == '-', NULL);
    if (f != f || a > DBL_MAX) {
        chat_putz(c, t, f != f ? "nan" : "inf");
        return;
    }
    n = chat_print_float(buf, sizeof buf, 'e', 0, a);
    for (int k = a < DBL_MIN ? 1 : 15; k <= 17 && a > 0; k++) {
        n = chat_print_float(buf, sizeof buf, 'e', k - 1, a);
        f64 back = chat_read_f64(buf, buf + n);
        if (!(back < a) && !(back > a)) break;
    }
    i32 digits = 0, x = 0;
    char *p = buf;
    for (; *p != 'e'; p++)
        if (*p != '.') d[digits++] = *p;
    bool minus = *++p == '-';
    while (*++p) x = x * 10 + *p - '0';
    i32 point = (minus ? -x : x) + 1;
    while (digits > 1 && d[digits - 1] == '0') digits--;
    if (point > 16 || point < -3) {
        chat_put(c, t, d, 1, NULL);
        if (digits > 1) chat_putz(c, t, ".");
        chat_put(c, t, d + 1, (size_t)digits - 1, NULL);
        chat_putf(c, t, "e%c%02d", minus ? '-' : '+', x);
        return;
    }
    if (point <= 0) chat_putz(c, t, "0.");
    for (i32 k = point; k < 0; k++) chat_putz(c, t, "0");
    for (i32 k = 0; k < digits || k < point; k++) {
        if (k == point && k) chat_putz(c, t, ".");
        chat_put(c, t, k < digits ? &d[k] : "0", 1, NULL);
    }
    if (point >= digits) chat_putz(c, t, ".0");
}

/* a - b as a sign, of any two numbers; 2: one is no number. */
CHAT_RARE int chat_number_cmp(chat_ctx *c, chat_val a, chat_val b) {
    if (a.type == CHAT_FLOAT && b.type != CHAT_FLOAT) {
        int r = chat_number_cmp(c, b, a);
        return r == 2 ? r : -r;
    }
    if (b.type == CHAT_FLOAT && b.u.f != b.u.f) return 2;
    if (a.type == CHAT_FLOAT)
        return a.u.f != a.u.f ? 2 : (a.u.f > b.u.f) - (a.u.f < b.u.f);
    if (b.type == CHAT_FLOAT) {
        if (b.u.f > DBL_MAX || b.u.f < -DBL_MAX) return b.u.f < 0 ? 1 : -1;
        if (a.type != CHAT_BIG && b.u.f < 0x1p63 && b.u.f >= -0x1p63) {
            i64 i = (i64)b.u.f;
            f64 left = (f64)i - b.u.f;
            return a.u.i != i ? a.u.i < i ? -1 : 1 : (left > 0) - (left < 0);
        }
        chat_refuse(c, "a float beside an integer beyond 63 bits");
        return 2;
    }
    bool less = a.type == CHAT_BIG && a.u.s[0] == '-';
    if (a.type != CHAT_BIG || b.type != CHAT_BIG) {
        if (a.type == CHAT_BIG) return less ? -1 : 1;
        if (b.type == CHAT_BIG) return b.u.s[0] == '-' ? 1 : -1;
        return (a.u.i > b.u.i) - (a.u.i < b.u.i);
    }
    if (less != (b.u.s[0] == '-')) return less ? -1 : 1;
    int r = a.n != b.n ? a.n < b.n ? -1 : 1 : memcmp(a.u.s, b.u.s, a.n);
    r = (r > 0) - (r < 0);
    return less ? -r : r;
}

/* ---- dicts ---- */

static bool chat_same_text(chat_val a, chat_val b) {
    return a.n == b.n && !memcmp(a.u.s, b.u.s, a.n);
}

/* Equality as in Python; 1 == 1.0 == true. */
static bool chat_eq(chat_ctx *c, chat_val a, chat_val b, u32 depth) {
    if (a.type == CHAT_STR && b.type == CHAT_STR)
        return a.n == b.n && chat_work(c, a.n >> 4) && chat_same_text(a, b);
    if (chat_is_numeric(a) && chat_is_numeric(b))
        return chat_number_cmp(c, a, b) == 0;
    if (a.type != b.type) return false;
    if (a.type == CHAT_UNDEF || a.type == CHAT_NONE) return true;
    if (a.type == CHAT_RANGE)
        return a.n == b.n && (!a.n || (a.u.range->from == b.u.range->from
            && (a.n == 1 || a.u.range->by == b.u.range->by)));
    if (!chat_is_seq(a) && a.type != CHAT_DICT) return a.u.v == b.u.v;
    if (a.type == CHAT_LIST && (a.flag || b.flag)) {
        if (a.flag != b.flag) return false;
        if (a.flag & CHAT_LAZY) return a.u.lazy == b.u.lazy;
        chat_refuse(c, "== of two views of mappings");
    }
    if (a.n != b.n || depth > CHAT_DEPTH || !chat_work(c, a.n)) return false;
    if (a.type != CHAT_DICT) {
        for (u32 i = 0; i < a.n; i++)
            if (!chat_eq(c, a.u.v[i], b.u.v[i], depth + 1)) return false;
        return true;
    }
    for (u32 i = 0; i < a.n; i++) {
        u32 k = 0;
        if (!chat_work(c, b.n >> 3)) return false;
        while (k < b.n && !chat_eq(c, a.u.v[2 * i], b.u.v[2 * k], depth + 1))
            k++;
        if (k == b.n || !chat_eq(c, a.u.v[2 * i + 1], b.u.v[2 * k + 1],
                depth + 1)) return false;
    }
    return true;
}

/* Whether v may be a key; else that is the error. */
static bool chat_is_key(chat_ctx *c, chat_val v) {
    bool bad = v.type == CHAT_DICT || (v.type == CHAT_LIST
        && !(v.flag & (CHAT_LAZY | CHAT_VALUE_VIEW)));
    if (bad) CHAT_RAISE(c, "%s is no key", chat_type_name(v));
    for (u32 i = 0; v.type == CHAT_TUPLE && i < v.n && !c->status; i++)
        bad |= !chat_is_key(c, v.u.v[i]);
    return !bad && !c->status;
}

/* The value of a key among n pairs, or NULL. */
static chat_val *chat_get(chat_ctx *c, const chat_val *v, u32 n, chat_val key) {
    bool text = key.type == CHAT_STR;
    if (!chat_work(c, n >> 3)) return NULL;
    for (u32 i = 0; i < n; i++)
        if (text ? v[2 * i].type == CHAT_STR && v[2 * i].n == key.n
                && chat_eq(c, v[2 * i], key, 0)
                : chat_eq(c, v[2 * i], key, CHAT_DEPTH))
            return (chat_val *)(uintptr_t)&v[2 * i + 1];
    return NULL;
}

static void chat_set(chat_ctx *c, chat_list *pairs, chat_val key, chat_val v) {
    if (!chat_is_key(c, key)) return;
    chat_val *old = chat_get(c, pairs->v, pairs->n / 2, key);
    if (old) { *old = v; return; }
    chat_append(c, pairs, key);
    chat_append(c, pairs, v);
}

static chat_val chat_dict(chat_list pairs) {
    return (chat_val){.type = CHAT_DICT, .n = pairs.n / 2, .u.v = pairs.v};
}

static chat_val chat_getz(chat_ctx *c, chat_val dict, const char *key) {
    chat_val *v = dict.type == CHAT_DICT
        ? chat_get(c, dict.u.v, dict.n, chat_strz(key)) : NULL;
    return v ? *v : (chat_val){0};
}

/* ---- order ---- */

/* A view of keys or pairs, which compares as a set. */
static bool chat_is_set(chat_val v) {
    return v.type == CHAT_LIST && v.flag & (CHAT_KEY_VIEW | CHAT_ITEM_VIEW);
}

CHAT_RARE bool chat_less(chat_ctx *c, chat_val a, chat_val b, u32 depth) {
    if (chat_is_numeric(a) && chat_is_numeric(b))
        return chat_number_cmp(c, a, b) == -1;
    if (a.type == CHAT_STR && b.type == CHAT_STR)
        return chat_work(c, min_u32(a.n, b.n) >> 4)
            && str_cmp((str){(const char *)a.u.s, a.n},
                (str){(const char *)b.u.s, b.n}) < 0;
    if (chat_is_set(a) && chat_is_set(b)) {
        chat_refuse(c, "order of views of mappings");
        return false;
    }
    if (!chat_is_array(a) || !chat_is_array(b) || a.type != b.type
        || depth > CHAT_DEPTH) {
        CHAT_RAISE(c, "%s and %s have no order", chat_type_name(a),
            chat_type_name(b));
        return false;
    }
    for (u32 i = 0; i < a.n && i < b.n && chat_work(c, 1); i++)
        if (!chat_eq(c, a.u.v[i], b.u.v[i], 0))
            return chat_less(c, a.u.v[i], b.u.v[i], depth + 1);
    return a.n < b.n;
}

/* The order of sort, min, max, unique, dictsort: keys compare, texts without
 * their case unless asked. */
typedef struct chat_order {
    chat_ctx *c;
    const chat_val *keys;
    bool down, lists;       /* lists: keys compare as if in lists, where what
                               is equal needs no order */
} chat_order;

static bool chat_order_less(const void *ctx, u32 a, u32 b) {
    const chat_order *o = ctx;
    if (!chat_work(o->c, 1)) return false;
    if (o->lists && chat_eq(o->c, o->keys[a], o->keys[b], 0)) return false;
    return o->down ? chat_less(o->c, o->keys[b], o->keys[a], 0)
                   : chat_less(o->c, o->keys[a], o->keys[b], 0);
}

CHAT_RARE chat_val chat_sorted(
    chat_ctx *c, chat_val in, const chat_val *keys, bool down, bool lists) {
    chat_order o = {c, keys, down, lists};
    chat_list l = {0};
    u32 *idx = chat_alloc(c, (2 * (size_t)in.n + 2) * sizeof *idx);
    if (!keys || !idx || c->status) return chat_listed(l);
    for (u32 i = 0; i < in.n; i++) idx[i] = i;
    sort_u32(idx, idx + in.n, in.n, chat_order_less, &o);
    for (u32 i = 0; i < in.n; i++) chat_append(c, &l, in.u.v[idx[i]]);
    return chat_listed(l);
}

/* The keys (0), values (1) or pairs (2) of a dict. */
static chat_val chat_side(chat_ctx *c, chat_val d, u32 side) {
    static const u8 flags[] = {CHAT_KEY_VIEW, CHAT_VALUE_VIEW, CHAT_ITEM_VIEW};
    chat_list l = {0};
    for (u32 i = 0; i < d.n && chat_work(c, 1); i++)
        chat_append(c, &l, side < 2 ? d.u.v[2 * i + side] : (chat_val){
            .type = CHAT_TUPLE, .n = 2, .u.v = d.u.v + 2 * i});
    chat_val v = chat_listed(l);
    v.flag = flags[side];
    return v;
}

/* ---- values from JSON ---- */

typedef struct chat_json {
    chat_ctx *c;
    const char *what;       /* for messages: "messages", "tools" ... */
    json_reader r;
} chat_json;

CHAT_COLD chat_val chat_json_fail(chat_json *j, const char *why) {
    u64 at = (u64)(j->r.p - j->r.begin);
    if (!j->c->status)
        j->c->status = fail(j->c->err, KSLLM_ERR_ARGUMENT, at,
            "%s: JSON, byte %llu: %s", j->what, LLU(at), why);
    return (chat_val){0};
}

/* The text of a string. Stays where it is when it has no escapes. */
static chat_val chat_json_text(chat_json *j, str s) {
    const u8 *p = (const u8 *)s.p, *end = p + s.n;
    if (s.n > CHAT_TEXT) return chat_json_fail(j, "a string is too long");
    while (p < end) {
        int n = *p < 0x80 ? 1 : txt_measure(p, (size_t)(end - p));
        if (n <= 0) return chat_json_fail(j, "text is not UTF-8");
        p += n;
    }
    if (s.n && memchr(s.p, '\\', s.n)) {
        u8 *to = chat_alloc_raw(j->c, s.n);
        if (!to) return (chat_val){0};
        s = (str){(char *)to, json_unescape(to, s)};
    }
    chat_val v = chat_str(s.p, s.n);
    v.mark = CHAT_ALL;
    return v;
}

/* The value whose first token was read. */
static chat_val chat_json_value(chat_json *j, json_token token, str text) {
    chat_list l = {0};
    chat_val v = {0}, key = v;
    switch (token) {
    case JSON_T_NULL: return chat_none();
    case JSON_T_FALSE: case JSON_T_TRUE:
        return chat_bool(token == JSON_T_TRUE);
    case JSON_T_STRING: return chat_json_text(j, text);
    case JSON_T_NUMBER:
        if (chat_number((const u8 *)text.p, j->r.p, &v)) return v;
        return chat_json_fail(j, "a number is too large");
    case JSON_T_END:
        return chat_json_fail(j, j->r.why);
    default: break;
    }
    bool object = token == JSON_T_OBJECT;
    for (;;) {
        token = json_next(&j->r, &text);
        if (token == JSON_T_CLOSE || j->c->status) break;
        if (token == JSON_T_KEY) {
            key = chat_json_text(j, text);
            continue;
        }
        v = chat_json_value(j, token, text);
        if (object) chat_set(j->c, &l, key, v);
        else chat_append(j->c, &l, v);
        if (l.n > 2 * CHAT_KEYS && object)
            chat_json_fail(j, "too many keys in one object");
    }
    return object ? chat_dict(l) : chat_listed(l);
}

static chat_val chat_json_read(chat_ctx *c, str text, const char *what) {
    chat_json j = {c, what, json_begin_reader(text)};
    str first;
    json_token token = json_next(&j.r, &first);
    chat_val v = chat_json_value(&j, token, first);
    if (!c->status && (json_next(&j.r, &first) || j.r.why))
        chat_json_fail(&j, j.r.why);
    return v;
}

/* ---- printing values ---- */

static bool chat_prints(u32 cp) {
    if (cp < 0x80) return cp >= 32 && cp < 127;
    txt_class k = txt_class_of(cp);
    return k != TXT_OTHER && k != TXT_SPACE;
}

/* How values are written: repr of Python, or json.dumps. */
typedef struct chat_style {
    bool json, ascii, sort;
    chat_val indent, comma, colon;  /* indent: text, or no line breaks */
} chat_style;

/* Whether a character stands for itself between quotes. */
static bool chat_is_plain(u32 cp, u8 quote, const chat_style *st) {
    if (cp < 127) return cp >= 32 && cp != quote && cp != '\\';
    return !st->ascii && (st->json || chat_prints(cp));
}

static void chat_put_quoted(
    chat_ctx *c, chat_text *t, chat_val s, const chat_style *st) {
    static const char from[] = "\n\r\t\\\b\f", to[] = "nrt\\bf";
    bool twice = st->json || (s.n && memchr(s.u.s, '\'', s.n)
        && !memchr(s.u.s, '"', s.n));
    u8 quote = twice ? '"' : '\'';
    chat_put(c, t, &quote, 1, NULL);
    for (u32 i = 0, run, k = 0, cp = 0; i < s.n && !c->status; i = run + k) {
        for (run = i, k = 0; run < s.n; run += k) {
            k = chat_next(s.u.s + run, s.u.s + s.n, &cp);
            if (!chat_is_plain(cp, quote, st)) break;
        }
        chat_puts(c, t, chat_cut(s, i, run));
        if (run == s.n) break;
        const char *at = cp && cp < 128 ? strchr(from, (int)cp) : NULL;
        if (at && (st->json || at < from + 4))
            chat_putf(c, t, "\\%c", to[at - from]);
        else if (cp == quote) chat_putf(c, t, "\\%c", quote);
        else if (st->json && cp > 0xffff) chat_putf(c, t, "\\u%04x\\u%04x",
            0xd800 + ((cp - 0x10000) >> 10), 0xdc00 + (cp & 0x3ff));
        else chat_putf(c, t, cp < 256 && !st->json ? "\\x%02x"
            : cp < 65536 ? "\\u%04x" : "\\U%08x", cp);
    }
    chat_put(c, t, &quote, 1, NULL);
}

CHAT_RARE void chat_put_range(chat_ctx *c, chat_text *t, chat_val v) {
    const chat_range *r = v.u.range;
    chat_putf(c, t, "range(%lld, %lld", (long long)r->from, (long long)r->to);
    if (r->by != 1) chat_putf(c, t, ", %lld", (long long)r->by);
    chat_putz(c, t, ")");
}

static void chat_put_scalar(
    chat_ctx *c, chat_text *t, chat_val v, const chat_style *st) {
    switch (v.type) {
    case CHAT_NONE: chat_putz(c, t, st->json ? "null" : "None"); return;
    case CHAT_BOOL:
        chat_putz(c, t, st->json ? v.u.i ? "true" : "false"
            : v.u.i ? "True" : "False");
        return;
    case CHAT_INT: chat_putf(c, t, "%lld", (long long)v.u.i); return;
    case CHAT_BIG: chat_puts(c, t, v); return;
    case CHAT_FLOAT:
        if (!st->json || (v.u.f <= DBL_MAX && v.u.f >= -DBL_MAX))
            chat_put_float(c, t, v.u.f);
        else chat_putz(c, t, v.u.f != v.u.f ? "NaN"
            : v.u.f < 0 ? "-Infinity" : "Infinity");
        return;
    case CHAT_STR:
        if (!st->json && v.flag & CHAT_MARKUP) chat_putz(c, t, "Markup(");
        chat_put_quoted(c, t, v, st);
        if (!st->json && v.flag & CHAT_MARKUP) chat_putz(c, t, ")");
        return;
    case CHAT_RANGE:
        if (st->json) break;
        chat_put_range(c, t, v);
        return;
    case CHAT_UNDEF:
        if (st->json) break;
        chat_putz(c, t, "Undefined");
        return;
    default: break;
    }
    CHAT_RAISE(c, st->json ? "%s is not JSON" : "%s has no text",
        chat_type_name(v));
}

CHAT_RARE void chat_put_key(
    chat_ctx *c, chat_text *t, chat_val v, const chat_style *st) {
    bool bare = !st->json || v.type == CHAT_STR;
    if (!bare && !chat_is_numeric(v) && v.type != CHAT_NONE)
        CHAT_RAISE(c, "%s as a key is not JSON", chat_type_name(v));
    if (!bare) chat_putz(c, t, "\"");
    chat_put_scalar(c, t, v, st);
    if (!bare) chat_putz(c, t, "\"");
}

CHAT_RARE void chat_put_line(
    chat_ctx *c, chat_text *t, const chat_style *st, u32 depth) {
    if (st->indent.type != CHAT_STR) return;
    chat_putz(c, t, "\n");
    for (u32 i = 0; i < depth && !c->status; i++) chat_puts(c, t, st->indent);
}

/* The pairs of a dict by their keys. */
CHAT_RARE chat_val chat_sort_pairs(chat_ctx *c, chat_val v) {
    chat_list l = {0};
    chat_val keys = chat_side(c, v, 0);
    v = chat_sorted(c, chat_side(c, v, 2), keys.u.v, false, false);
    for (u32 i = 0; i < v.n && !c->status; i++) {
        chat_append(c, &l, v.u.v[i].u.v[0]);
        chat_append(c, &l, v.u.v[i].u.v[1]);
    }
    return chat_dict(l);
}

static void chat_put_value(chat_ctx *c, chat_text *t, chat_val v,
    const chat_style *st, u32 depth) {
    bool list = chat_is_seq(v), dict = v.type == CHAT_DICT;
    bool tuple = v.type == CHAT_TUPLE && !st->json;
    bool view = v.type == CHAT_LIST && v.flag;
    if (c->status) return;
    if (v.type == CHAT_NAMESPACE && !st->json) {
        chat_putz(c, t, "<Namespace ");
        v = chat_dict(v.u.names->pairs);
        dict = true;
        chat_put_value(c, t, v, st, depth + 1);
        chat_putz(c, t, ">");
        return;
    }
    if (!list && !dict) { chat_put_scalar(c, t, v, st); return; }
    if (depth > CHAT_DEPTH) { CHAT_RAISE(c, "a value is too deep"); return; }
    if (view && (st->json || v.flag & CHAT_LAZY)) {
        CHAT_RAISE(c, st->json ? "%s is not JSON" : "%s has no text",
            v.flag & CHAT_LAZY ? "a generator" : "a view of a mapping");
        return;
    }
    if (dict && st->sort) v = chat_sort_pairs(c, v);
    if (view) chat_putz(c, t, v.flag & CHAT_ITEM_VIEW ? "dict_items("
        : v.flag & CHAT_VALUE_VIEW ? "dict_values(" : "dict_keys(");
    chat_putz(c, t, tuple ? "(" : list ? "[" : "{");
    for (u32 i = 0; i < v.n && !c->status; i++) {
        if (i) chat_puts(c, t, st->comma);
        chat_put_line(c, t, st, depth + 1);
        if (dict && (st->json || !chat_is_seq(v.u.v[2 * i])))
            chat_put_key(c, t, v.u.v[2 * i], st);
        else if (dict) chat_put_value(c, t, v.u.v[2 * i], st, depth + 1);
        if (dict) chat_puts(c, t, st->colon);
        chat_put_value(c, t, v.u.v[dict ? 2 * i + 1 : i], st, depth + 1);
    }
    if (v.n) chat_put_line(c, t, st, depth);
    if (tuple && v.n == 1) chat_putz(c, t, ",");
    chat_putz(c, t, tuple ? ")" : list ? "]" : "}");
    if (view) chat_putz(c, t, ")");
}

static chat_style chat_repr(bool ascii) {
    return (chat_style){.ascii = ascii, .comma = chat_strz(", "),
        .colon = chat_strz(": ")};
}

/* str(v) of Python, and repr(v) inside of other values. */
static void chat_print(chat_ctx *c, chat_text *t, chat_val v, u32 depth) {
    chat_style st = chat_repr(false);
    if (depth || (v.type != CHAT_STR && v.type != CHAT_UNDEF))
        chat_put_value(c, t, v, &st, depth);
    else if (v.type == CHAT_STR) chat_puts(c, t, v);
}

/* str(v): plain, whatever v was. */
static chat_val chat_to_str(chat_ctx *c, chat_val v) {
    chat_text t = {0};
    if (v.type == CHAT_STR) { v.flag = 0; return v; }
    chat_print(c, &t, v, 0);
    return chat_built(&t);
}

/* ---- template to tokens ---- */

typedef enum chat_tok {
    CHAT_T_END, CHAT_T_DATA, CHAT_T_VAR, CHAT_T_VAR_END, CHAT_T_TAG,
    CHAT_T_TAG_END, CHAT_T_NAME, CHAT_T_TEXT, CHAT_T_NUMBER, CHAT_T_OP
} chat_tok;

/* An operator's v.u.i is its characters: first | second << 8. */
#define CHAT_OP2(a, b) ((a) | (b) << 8)

/* What goes on after an operand. */
enum { CHAT_POST_DOT = 1, CHAT_POST_ITEM, CHAT_POST_CALL, CHAT_POST_FILTER,
    CHAT_POST_TEST };

/* How tight an operator between two values binds. */
enum { CHAT_OR = 1, CHAT_AND, CHAT_NOT, CHAT_COMPARE, CHAT_ADD, CHAT_CONCAT,
    CHAT_MUL, CHAT_POW };

/* Words with a meaning are the first names, so that they have fixed numbers;
 * the tags come first, in the order of CHAT_TAGS. */
typedef enum chat_word {
    CHAT_W_NONE, CHAT_W_IF, CHAT_W_ELIF, CHAT_W_ELSE, CHAT_W_ENDIF, CHAT_W_FOR,
    CHAT_W_ENDFOR, CHAT_W_BREAK, CHAT_W_CONTINUE, CHAT_W_SET, CHAT_W_ENDSET,
    CHAT_W_MACRO, CHAT_W_ENDMACRO, CHAT_W_FILTER,
    CHAT_W_ENDFILTER, CHAT_W_WITH, CHAT_W_ENDWITH, CHAT_W_GENERATION,
    CHAT_W_ENDGENERATION,
    CHAT_W_IN, CHAT_W_RECURSIVE, CHAT_W_OR, CHAT_W_AND, CHAT_W_NOT, CHAT_W_IS,
    CHAT_W_LOOP,
    CHAT_W_TRUE, CHAT_W_TRUE2, CHAT_W_FALSE, CHAT_W_FALSE2, CHAT_W_NULL,
    CHAT_W_NULL2
} chat_word;

static const char *const CHAT_WORDS[] = {"", "if", "elif", "else", "endif",
    "for", "endfor", "break", "continue", "set", "endset", "macro", "endmacro",
    "filter", "endfilter", "with", "endwith", "generation",
    "endgeneration", "in", "recursive", "or", "and", "not", "is",
    "loop", "true", "True", "false", "False",
    "none", "None"};

/* The number of a name; equal texts have one. */
static u32 chat_name_of(chat_ctx *c, chat_val v) {
    u32 h = 0;
    for (u32 i = 0; i < v.n; i++) h = h * 31 + v.u.s[i];
    h = (h ^ h >> 8) & 255;
    for (u32 i = c->head[h]; i && chat_work(c, 1); i = c->names[i - 1].next)
        if (chat_same_text(c->names[i - 1].text, v)) return i - 1;
    if (!chat_reserve(c, &c->names, c->n_names, &c->names_cap,
            sizeof *c->names))
        return 0;
    c->names[c->n_names] = (chat_name){.text = v, .next = c->head[h]};
    c->head[h] = ++c->n_names;
    return c->n_names - 1;
}

typedef struct chat_lexer {
    chat_ctx *c;
    const u8 *p, *end;
    u32 line;
    bool fresh;             /* at the start of a line, as jinja2 sees it */
    chat_token *t;
    u32 n, cap;
} chat_lexer;

static u8 chat_post_of(chat_tok type, chat_val v, u32 name) {
    if (type == CHAT_T_NAME) return name == CHAT_W_IS ? CHAT_POST_TEST : 0;
    if (type != CHAT_T_OP) return 0;
    return v.u.i == '.' ? CHAT_POST_DOT : v.u.i == '[' ? CHAT_POST_ITEM
        : v.u.i == '(' ? CHAT_POST_CALL : v.u.i == '|' ? CHAT_POST_FILTER : 0;
}

static u8 chat_level_of(chat_tok type, chat_val v, u32 name) {
    if (type == CHAT_T_NAME)
        return name == CHAT_W_OR ? CHAT_OR : name == CHAT_W_AND ? CHAT_AND
            : name == CHAT_W_IN ? CHAT_COMPARE : 0;
    if (type != CHAT_T_OP) return 0;
    switch (v.u.i) {
    case '+': case '-': return CHAT_ADD;
    case '~': return CHAT_CONCAT;
    case '*': case '/': case '%': case CHAT_OP2('/', '/'): return CHAT_MUL;
    case CHAT_OP2('*', '*'): return CHAT_POW;
    default: return name ? CHAT_COMPARE : 0;
    }
}

static void chat_lex_add(chat_lexer *l, chat_tok type, chat_val v) {
    static const u16 compare[] = {0, '<', '>', CHAT_OP2('=', '='),
        CHAT_OP2('!', '='), CHAT_OP2('<', '='), CHAT_OP2('>', '=')};
    u32 name = 0;
    if (type == CHAT_T_NAME || (type == CHAT_T_TEXT && v.n < 32))
        name = chat_name_of(l->c, v);
    for (u32 i = 1; type == CHAT_T_OP && i < KS_LEN(compare); i++)
        if (v.u.i == compare[i]) name = i;
    if (!chat_reserve(l->c, &l->t, l->n, &l->cap, sizeof *l->t)) return;
    chat_token *t = &l->t[l->n++];
    *t = (chat_token){.type = (u8)type, .line = l->line, .name = name, .v = v};
    t->level = chat_level_of(type, v, name);
    t->post = chat_post_of(type, v, name);
    /* `not in` compares; the word `not` alone does not. */
    if (type == CHAT_T_NAME && name == CHAT_W_IN && l->n > 1
        && t[-1].type == CHAT_T_NAME && t[-1].name == CHAT_W_NOT)
        t[-1].level = CHAT_COMPARE;
}

CHAT_COLD chat_val chat_lex_fail(chat_lexer *l, const char *why) {
    l->c->line = l->line;
    return chat_fail(l->c, KSLLM_ERR_FORMAT, "%s", why);
}

static void chat_lex_go(chat_lexer *l, const u8 *to) {
    for (; l->p < to; l->p++) l->line += *l->p == '\n';
}

static bool chat_lex_at(const chat_lexer *l, const u8 *p, const char *z) {
    size_t n = strlen(z);
    return (size_t)(l->end - p) >= n && !memcmp(p, z, n);
}

static const u8 *chat_lex_spaces(const chat_lexer *l, const u8 *p) {
    u32 cp;
    while (p < l->end) {
        u32 k = chat_next(p, l->end, &cp);
        if (!chat_is_space(cp)) break;
        p += k;
    }
    return p;
}

/* The end of a tag whose last bytes begin at p: `-` takes the white
 * space that follows, `+` nothing, else `trim` takes one line end. */
static const u8 *chat_lex_after(
    const chat_lexer *l, const u8 *p, u8 sign, bool trim) {
    if (sign == '-') return chat_lex_spaces(l, p);
    return p + (sign != '+' && trim && p < l->end && *p == '\n');
}

static void chat_lex_close(chat_lexer *l, const u8 *p, u8 sign, bool trim) {
    p = chat_lex_after(l, p, sign, trim);
    l->fresh = p[-1] == '\n';
    chat_lex_go(l, p);
}

/* Text from l->p to `to`, where a tag with this sign begins. */
static void chat_lex_data(chat_lexer *l, const u8 *to, u8 sign, bool lstrip) {
    size_t n = (size_t)(to - l->p), from = n;
    chat_val s = chat_str(l->p, n), none = {0};
    if (sign == '-') {
        s = chat_strip(s, none, false, true);
    } else if (sign != '+' && lstrip) {
        while (from && l->p[from - 1] != '\n') from--;
        if ((from || l->fresh) && !chat_strip(chat_cut(s, from, n), none,
                true, false).n)
            s = chat_cut(s, 0, from);
    }
    if (s.n) chat_lex_add(l, CHAT_T_DATA, s);
    chat_lex_go(l, to);
}

/* One escape of a string literal, *p is after the backslash; Python's rules. */
static void chat_lex_escape(chat_lexer *l, chat_text *t, const u8 **p) {
    static const char from[] = "\n\\'\"abfnrtv", to[] = "\0\\'\"\a\b\f\n\r\t\v";
    u8 b = **p;
    const char *at = b ? strchr(from, b) : NULL;
    u32 n = b == 'x' ? 2 : b == 'u' ? 4 : b == 'U' ? 8 : 0;
    if (at) {
        ++*p;
        if (b != '\n') chat_put(l->c, t, &to[at - from], 1, NULL);
    } else if (b == 'N' || (b >= '0' && b <= '7')) {
        chat_lex_fail(l, "a character by name or octal is not supported");
    } else if (n) {
        i64 cp = json_hex(*p + 1, l->end, n);
        if (cp < 0 || cp > 0x10ffff || cp >> 11 == 0x1b)
            chat_lex_fail(l, "bad escape");
        else chat_put_cp(l->c, t, (u32)cp, NULL);
        *p += n + 1;
    } else {
        chat_put(l->c, t, "\\", 1, NULL);
    }
}

static void chat_lex_string(chat_lexer *l) {
    const u8 *p = l->p + 1, *run = p;
    u8 quote = *l->p;
    chat_text t = {0};
    while (p < l->end && *p != quote) {
        if (*p++ != '\\') continue;
        chat_put(l->c, &t, run, (size_t)(p - 1 - run), NULL);
        if (p < l->end) chat_lex_escape(l, &t, &p);
        run = p;
        if (l->c->status) return;
    }
    if (p >= l->end) { chat_lex_fail(l, "a string does not end"); return; }
    chat_val v = chat_str(run, (size_t)(p - run));
    if (t.n) {
        chat_put(l->c, &t, run, (size_t)(p - run), NULL);
        v = chat_built(&t);
    }
    chat_token *last = l->n ? &l->t[l->n - 1] : NULL;
    if (last && last->type == CHAT_T_TEXT) { /* "a" "b" */
        last->v = chat_concat(l->c, last->v, v);
        last->name = 0;
    } else chat_lex_add(l, CHAT_T_TEXT, v);
    chat_lex_go(l, p + 1);
}

/* Digits with single _ between them; the byte after them. */
static const u8 *chat_lex_digits(const chat_lexer *l, const u8 *p) {
    const u8 *from = p;
    for (; p < l->end; p++) {
        if (*p == '_' && p > from && p[-1] != '_') continue;
        if (*p < '0' || *p > '9') break;
    }
    return p > from && p[-1] == '_' ? p - 1 : p;
}

/* 12, 1_000, 1.5, 1e5. After a point there are only
 * integers, so that x.0.1 is two items. */
static void chat_lex_number(chat_lexer *l, bool point) {
    const u8 *p = l->p, *end = chat_lex_digits(l, p), *q = end;
    chat_val v = {0};
    if (!point && l->end - q > 1 && *q == '.' && q[1] >= '0' && q[1] <= '9')
        end = q = chat_lex_digits(l, q + 1);
    if (!point && l->end - q > 1 && (*q | 32) == 'e') {
        q += 1 + (q[1] == '-' || q[1] == '+');
        if (q < l->end && *q >= '0' && *q <= '9') end = chat_lex_digits(l, q);
    }
    if (*p == '0' && end == p + 1 && end < l->end && strchr("xXoObB", *end))
        chat_lex_fail(l, "a number in base 2, 8 or 16 is not supported");
    if (chat_number(p, end, &v) != (size_t)(end - p)
        || (*p == '0' && end - p > 1 && v.type != CHAT_FLOAT))
        chat_lex_fail(l, "bad number");
    chat_lex_add(l, CHAT_T_NUMBER, v);
    l->p = end;
}

static bool chat_is_word(u8 b) {
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || b == '_'
        || (b >= '0' && b <= '9') || b >= 0x80;
}

/* The end of the word at p; p if there is none. */
static const u8 *chat_lex_name(const chat_lexer *l, const u8 *p) {
    for (u32 cp, k; p < l->end; p += k) {
        k = chat_next(p, l->end, &cp);
        txt_class is = txt_class_of(cp);
        if (cp < 0x80 ? !chat_is_word(*p) : is != TXT_LETTER && is != TXT_UPPER
            && is != TXT_LOWER && is != TXT_NUMBER && is != TXT_MARK) break;
    }
    return p;
}

/* One token inside of a tag; *depth counts open brackets. */
static void chat_lex_one(chat_lexer *l, u32 *depth) {
    static const char pairs[] = "**//==!=<=>=";
    const u8 *p = l->p;
    chat_val v = {0};
    if (*p == '"' || *p == '\'') { chat_lex_string(l); return; }
    if (*p >= '0' && *p <= '9') { chat_lex_number(l, p[-1] == '.'); return; }
    p = chat_lex_name(l, p);
    if (p > l->p) {
        chat_lex_add(l, CHAT_T_NAME, chat_str(l->p, (size_t)(p - l->p)));
        l->p = p;
        return;
    }
    if (!*p || !strchr("+-/*%~[](){}=<>!.:|,;", *p)) {
        chat_lex_fail(l, "unexpected character");
        return;
    }
    v = chat_int(*p);
    for (const char *q = pairs; *q; q += 2)
        if (l->end - p > 1 && p[0] == (u8)q[0] && p[1] == (u8)q[1])
            v.u.i |= p[1] << 8;
    *depth += *p == '(' || *p == '[' || *p == '{';
    *depth -= *depth && (*p == ')' || *p == ']' || *p == '}');
    chat_lex_add(l, CHAT_T_OP, v);
    l->p += v.u.i > 255 ? 2 : 1;
}

/* The inside of {{ }} or {% %} and its end. */
static void chat_lex_inside(chat_lexer *l, bool tag) {
    const char *close = tag ? "%}" : "}}";
    u32 depth = 0;
    chat_lex_add(l, tag ? CHAT_T_TAG : CHAT_T_VAR, (chat_val){0});
    while (!l->c->status) {
        chat_lex_go(l, chat_lex_spaces(l, l->p));
        if (l->p >= l->end) { chat_lex_fail(l, "a tag does not end"); return; }
        bool sign = *l->p == '-' || (tag && *l->p == '+');
        if (!depth && chat_lex_at(l, l->p + sign, close)) {
            chat_lex_add(l, tag ? CHAT_T_TAG_END : CHAT_T_VAR_END,
                (chat_val){0});
            chat_lex_close(l, l->p + sign + 2, sign ? *l->p : 0, tag);
            return;
        }
        chat_lex_one(l, &depth);
    }
}

static void chat_lex_comment(chat_lexer *l, const u8 *p) {
    const u8 *from = p;
    while (p < l->end && !chat_lex_at(l, p, "#}")) p++;
    if (p >= l->end) { chat_lex_fail(l, "a comment does not end"); return; }
    u8 sign = p > from && (p[-1] == '-' || p[-1] == '+') ? p[-1] : 0;
    chat_lex_close(l, p + 2, sign, true);
}

/* Whether `word` and the end of its tag stand at p, after {% and a sign; the
 * bytes after it, and its closing sign. */
static const u8 *chat_lex_word(
    const chat_lexer *l, const u8 *p, const char *word, u8 *sign) {
    p = chat_lex_spaces(l, p);
    if (!chat_lex_at(l, p, word)) return NULL;
    p = chat_lex_spaces(l, p + strlen(word));
    *sign = p < l->end && (*p == '-' || *p == '+') ? *p : 0;
    p += *sign != 0;
    return chat_lex_at(l, p, "%}") ? p + 2 : NULL;
}

CHAT_RARE void chat_lex_raw(chat_lexer *l, const u8 *p, u8 sign) {
    chat_lex_close(l, p, sign, false);
    for (p = l->p; p < l->end; p++) {
        if (!chat_lex_at(l, p, "{%")) continue;
        u8 left = p + 2 < l->end && (p[2] == '-' || p[2] == '+') ? p[2] : 0;
        const u8 *q = chat_lex_word(l, p + 2 + (left != 0), "endraw", &sign);
        if (!q) continue;
        chat_lex_data(l, p, left, true);
        chat_lex_close(l, q, sign, true);
        return;
    }
    chat_lex_fail(l, "raw does not end");
}

static void chat_lex(chat_lexer *l) {
    while (l->p < l->end && !l->c->status) {
        const u8 *at = l->p;
        while (at < l->end && !(at[0] == '{' && l->end - at > 1
            && (at[1] == '{' || at[1] == '%' || at[1] == '#'))) at++;
        if (at == l->end) {
            chat_lex_data(l, at, '+', false);
            break;
        }
        u8 kind = at[1], sign = 0;
        if (l->end - at > 2 && (at[2] == '-' || at[2] == '+')) sign = at[2];
        chat_lex_data(l, at, sign, kind != '{');
        const u8 *in = at + 2 + (sign != 0), *raw = NULL;
        u8 raw_sign = 0;
        if (kind == '%') raw = chat_lex_word(l, in, "raw", &raw_sign);
        if (raw_sign == '+') raw = NULL;
        if (raw) { chat_lex_raw(l, raw, raw_sign); continue; }
        if (kind == '#') { chat_lex_comment(l, in); continue; }
        chat_lex_go(l, in);
        chat_lex_inside(l, kind == '%');
    }
    chat_lex_add(l, CHAT_T_END, (chat_val){0});
}

/* Line ends as \n, and one of them less at the end. */
static str chat_lines(chat_ctx *c, str s) {
    if (s.n && memchr(s.p, '\r', s.n)) {
        u8 *p = chat_alloc(c, s.n);
        size_t n = 0;
        for (size_t i = 0; p && i < s.n; i++) {
            bool cr = s.p[i] == '\r';
            if (cr && i + 1 < s.n && s.p[i + 1] == '\n') continue;
            p[n++] = cr ? '\n' : (u8)s.p[i];
        }
        s = (str){(const char *)p, n};
    }
    if (s.n && s.p[s.n - 1] == '\n') s.n--;
    return s;
}

/* ---- operators ---- */

CHAT_RARE chat_val chat_escape(chat_ctx *c, chat_val s) {
    static const char from[] = "&<>'\"";
    static const char *const to[] =
        {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    chat_text t = {0};
    for (u32 i = 0; i < s.n; i++) {
        const char *at = s.u.s[i] ? strchr(from, s.u.s[i]) : NULL;
        if (at) chat_putz(c, &t, to[at - from]);
        else chat_puts(c, &t, chat_cut(s, i, i + 1));
    }
    chat_val v = chat_built(&t);
    v.flag = CHAT_MARKUP;
    return v;
}

static chat_val chat_add_text(chat_ctx *c, chat_val a, chat_val b) {
    u8 flag = (a.flag | b.flag) & CHAT_MARKUP;
    if (flag && !(a.flag & CHAT_MARKUP)) a = chat_escape(c, a);
    if (flag && !(b.flag & CHAT_MARKUP)) b = chat_escape(c, b);
    chat_val v = chat_concat(c, a, b);
    v.flag = flag;
    return v;
}

CHAT_RARE chat_val chat_repeat(chat_ctx *c, chat_val v, i64 n) {
    chat_text t = {0};
    chat_list l = {0};
    if (n <= 0 || !v.n) n = 0;
    if (v.type == CHAT_LIST && v.flag)
        return CHAT_RAISE(c, "* of what is no list");
    for (; n > 0 && chat_work(c, v.type == CHAT_STR ? 1 : v.n); n--) {
        if (v.type == CHAT_STR) chat_puts(c, &t, v);
        else for (u32 i = 0; i < v.n; i++) chat_append(c, &l, v.u.v[i]);
    }
    chat_val r = v.type == CHAT_STR ? chat_built(&t) : chat_listed(l);
    r.type = v.type;
    r.flag = v.flag;
    return r;
}

/* As chat_concat does it. */
static chat_val chat_join_lists(chat_ctx *c, chat_val a, chat_val b) {
    chat_list *l = &c->tail_items;
    if (!chat_work(c, b.n)) return (chat_val){0};
    if (!l->n || a.u.v != l->v || a.n != l->n) {
        if (!chat_work(c, a.n)) return (chat_val){0};
        *l = (chat_list){0};
        for (u32 i = 0; i < a.n && !c->status; i++) chat_append(c, l, a.u.v[i]);
    }
    for (u32 i = 0; i < b.n && !c->status; i++) chat_append(c, l, b.u.v[i]);
    chat_val r = chat_listed(*l);
    r.type = a.type;
    return r;
}

CHAT_RARE chat_val chat_int_math(chat_ctx *c, u32 op, i64 a, i64 b) {
    i64 r = 0;
    bool bad = false;
    if (op == '+') bad = __builtin_add_overflow(a, b, &r);
    else if (op == '-') bad = __builtin_sub_overflow(a, b, &r);
    else if (op == '*') bad = __builtin_mul_overflow(a, b, &r);
    else {
        if (!b) return CHAT_RAISE(c, "division by zero");
        if (b == -1) return chat_int_math(c, '-', 0, op == '%' ? 0 : a);
        r = a / b;
        i64 rest = a % b;
        if (rest && (rest < 0) != (b < 0)) r--, rest += b;
        if (op == '%') r = rest;
    }
    return bad ? CHAT_RAISE(c, "an integer is too large") : chat_int(r);
}

CHAT_RARE chat_val chat_float_math(chat_ctx *c, u32 op, f64 a, f64 b) {
    switch (op) {
    case '+': return chat_float(a + b);
    case '-': return chat_float(a - b);
    case '*': return chat_float(a * b);
    case '/': break;
    default: return chat_refuse(c, "% or // of a float");
    }
    if (!(b < 0 || b > 0 || b != b)) return CHAT_RAISE(c, "division by zero");
    return chat_float(a / b);
}

/* The integer part of a float. */
CHAT_RARE chat_val chat_whole(chat_ctx *c, f64 f) {
    if (f < 0x1p63 && f >= -0x1p63) return chat_int((i64)f);
    if (f != f || f > DBL_MAX || f < -DBL_MAX)
        return CHAT_RAISE(c, "no integer: infinite, or no number");
    return chat_refuse(c, "an integer beyond 63 bits");
}


static void chat_fill(chat_ctx *c, chat_text *t, u8 fill, i64 n) {
    for (; n > 0 && chat_work(c, 1); n--) chat_put(c, t, &fill, 1, NULL);
}

/* How % writes a value: %-5s, %02d, %.1f. */
typedef struct chat_spec {
    u8 kind;
    bool left, zero;
    i32 width, precision;   /* precision -1: none given */
} chat_spec;

CHAT_RARE void chat_put_percent(
    chat_ctx *c, chat_text *t, chat_val v, chat_spec f, bool markup) {
    chat_text s = {0};
    char buf[400];
    bool number = f.kind != 's';
    if (number && !chat_is_numeric(v))
        CHAT_RAISE(c, "%s where a format wants a number", chat_type_name(v));
    else if (v.type == CHAT_BIG && f.kind == 'f')
        chat_refuse(c, "an integer beyond 63 bits");
    else if (f.kind == 'f') {
        chat_print_float(buf, sizeof buf, 'f', f.precision < 0 ? 6
            : f.precision, chat_f64(v));
        chat_putz(c, &s, buf);
    } else {
        if (number && v.type == CHAT_FLOAT) v = chat_whole(c, v.u.f);
        if (number && v.type == CHAT_BOOL) v.type = CHAT_INT;
        chat_print(c, &s, v, 0);
    }
    chat_val text = chat_built(&s);
    if (markup && !number && !(v.type == CHAT_STR && v.flag & CHAT_MARKUP))
        text = chat_escape(c, text);
    bool zero = f.zero && !f.left && number;
    u32 sign = zero && text.n && text.u.s[0] == '-';
    i64 pad = f.width - chat_chars(c, text);
    chat_puts(c, t, chat_cut(text, 0, sign));
    if (!f.left) chat_fill(c, t, zero ? '0' : ' ', pad);
    chat_puts(c, t, chat_cut(text, sign, text.n));
    if (f.left) chat_fill(c, t, ' ', pad);
}

static const u8 *chat_read_width(
    chat_ctx *c, const u8 *p, const u8 *end, i32 most, i32 *out) {
    for (*out = 0; chat_is_digit(p, end); p++)
        if ((*out = *out * 10 + *p - '0') > most) {
            CHAT_RAISE(c, "a format's width is too large");
            return end;
        }
    return p;
}

/* text % values: %s, %d, %i and %f with what chat_spec has. */
CHAT_RARE chat_val chat_percent(chat_ctx *c, chat_val s, chat_val v) {
    const u8 *p = s.u.s, *end = p + s.n;
    u32 n = v.type == CHAT_TUPLE ? v.n : 1, k = 0;
    chat_text t = {0};
    while (p < end && chat_work(c, 1)) {
        const u8 *run = p;
        chat_spec f = {.precision = -1};
        while (p < end && *p != '%') p++;
        chat_puts(c, &t, chat_cut(s, (size_t)(run - s.u.s),
            (size_t)(p - s.u.s)));
        if (p == end) break;
        if (++p < end && *p == '%') { chat_put(c, &t, p++, 1, NULL); continue; }
        for (; p < end && (*p == '0' || *p == '-'); p++)
            if (*p == '0') f.zero = true;
            else f.left = true;
        p = chat_read_width(c, p, end, 10000, &f.width);
        if (p < end && *p == '.')
            p = chat_read_width(c, p + 1, end, 60, &f.precision);
        f.kind = p < end ? *p++ : 0;
        if (!f.kind || !strchr("sdif", f.kind)
            || (f.kind != 'f' && f.precision >= 0))
            return chat_refuse(c, "% with this format");
        if (k == n) return CHAT_RAISE(c, "a format has too few values");
        chat_put_percent(c, &t, v.type == CHAT_TUPLE ? v.u.v[k] : v, f,
            s.flag & CHAT_MARKUP);
        k++;
    }
    if (k < n && v.type != CHAT_DICT && v.type != CHAT_UNDEF
        && v.type != CHAT_RANGE && (v.type != CHAT_LIST || v.flag))
        return CHAT_RAISE(c, "a format has too many values");
    chat_val r = chat_built(&t);
    r.flag = s.flag;
    return r;
}

static chat_val chat_binary(chat_ctx *c, u32 op, chat_val a, chat_val b) {
    if (op == '~') {
        a = chat_concat(c, chat_to_str(c, a), chat_to_str(c, b));
        a.flag = 0;
        return a;
    }
    if (op == '%' && a.type == CHAT_STR) return chat_percent(c, a, b);
    if (a.type == CHAT_UNDEF || b.type == CHAT_UNDEF)
        return CHAT_RAISE(c, "an undefined value in arithmetic");
    if (chat_is_number(a) && chat_is_number(b)) {
        if (op == CHAT_OP2('*', '*')) return chat_refuse(c, "**");
        if (chat_is_int(a) && chat_is_int(b) && op != '/')
            return chat_int_math(c, op, a.u.i, b.u.i);
        return chat_float_math(c, op, chat_f64(a), chat_f64(b));
    }
    if (op == '+' && a.type == CHAT_STR && b.type == CHAT_STR)
        return chat_add_text(c, a, b);
    if (op == '+' && chat_is_seq(a) && a.type == b.type
        && (a.type == CHAT_TUPLE || !(a.flag | b.flag)))
        return chat_join_lists(c, a, b);
    if (op == '*' && chat_is_int(b) && (a.type == CHAT_STR || chat_is_seq(a)))
        return chat_repeat(c, a, b.u.i);
    if (op == '*' && chat_is_int(a) && (b.type == CHAT_STR || chat_is_seq(b)))
        return chat_repeat(c, b, a.u.i);
    if (chat_is_numeric(a) && chat_is_numeric(b))
        return chat_refuse(c, "arithmetic with an integer beyond 63 bits");
    return CHAT_RAISE(c, "%c between %s and %s", (char)op, chat_type_name(a),
        chat_type_name(b));
}

/* Item i of a list, tuple or range. */
static chat_val chat_nth(chat_val v, i64 i) {
    if (v.type != CHAT_RANGE) return v.u.v[i];
    return chat_int(v.u.range->from + i * v.u.range->by);
}

/* The items that a generator still has. `part`: perhaps not all of them will
 * be taken, and then the rest is unknown. */
static chat_val chat_read_lazy(chat_ctx *c, chat_val v, bool part) {
    chat_lazy *l = v.u.lazy;
    if (c->status) return (chat_val){0};
    if (l->state > 1) return chat_refuse(c, "a generator read in part before");
    if (l->state) v.n = 0;
    l->state = part && v.n ? 2 : 1;
    v.flag = 0;
    v.u.v = l->v;
    return v;
}

static bool chat_is_lazy(chat_val v) {
    return v.type == CHAT_LIST && (v.flag & CHAT_LAZY);
}

static bool chat_in(chat_ctx *c, chat_val v, chat_val in) {
    if (in.type == CHAT_STR) {
        if (v.type == CHAT_STR) return chat_find(c, in, v, 0) != SIZE_MAX;
        CHAT_RAISE(c, "%s in a text", chat_type_name(v));
        return false;
    }
    if (in.type == CHAT_UNDEF) return false;
    if (in.type == CHAT_DICT && !chat_is_key(c, v)) return false;
    if (in.type == CHAT_LIST && in.flag & CHAT_KEY_VIEW && !chat_is_key(c, v))
        return false;
    if (chat_is_lazy(in)) in = chat_read_lazy(c, in, true);
    if (in.type == CHAT_DICT) return chat_get(c, in.u.v, in.n, v) != NULL;
    bool items = chat_is_seq(in) || in.type == CHAT_RANGE;
    if (!items) CHAT_RAISE(c, "in %s", chat_type_name(in));
    for (u32 i = 0; items && i < in.n && chat_work(c, 1); i++)
        if (chat_eq(c, chat_nth(in, i), v, 0)) return true;
    return false;
}

static bool chat_compare(chat_ctx *c, u32 op, chat_val a, chat_val b) {
    switch (op) {
    case 1: return chat_less(c, a, b, 0);
    case 2: return chat_less(c, b, a, 0);
    case 3: return chat_eq(c, a, b, 0);
    case 4: return !chat_eq(c, a, b, 0);
    case 5: return chat_less(c, a, b, 0) || chat_eq(c, a, b, 0);
    case 6: return chat_less(c, b, a, 0) || chat_eq(c, a, b, 0);
    case 7: return chat_in(c, a, b);
    default: return !chat_in(c, a, b);
    }
}

/* What a `for` goes over, as a list or tuple. */
static chat_val chat_iter(chat_ctx *c, chat_val v) {
    chat_list l = {0};
    if (chat_is_lazy(v)) return chat_read_lazy(c, v, false);
    if (chat_is_seq(v)) return v;
    v.flag = 0;
    if (!chat_work(c, v.type == CHAT_STR ? v.n >> 1
        : v.type == CHAT_DICT || v.type == CHAT_RANGE ? v.n : 0))
        return (chat_val){0};
    if (v.type == CHAT_DICT)
        for (u32 i = 0; i < v.n; i++) chat_append(c, &l, v.u.v[2 * i]);
    else if (v.type == CHAT_RANGE)
        for (u32 i = 0; i < v.n; i++) chat_append(c, &l, chat_nth(v, i));
    else if (v.type == CHAT_STR)
        for (size_t i = 0, k; i < v.n; i += k) {
            for (k = 1; i + k < v.n && (v.u.s[i + k] & 0xc0) == 0x80;) k++;
            chat_append(c, &l, chat_cut(v, i, i + k));
        }
    else if (v.type != CHAT_UNDEF)
        return CHAT_RAISE(c, "%s is not iterable", chat_type_name(v));
    return chat_listed(l);
}

/* ---- attributes and items ---- */

typedef chat_val (*chat_fn)(chat_ctx *c, const chat_args *a);

/* One row per function that templates may use, with its names. params: the
 * names of what comes after v[0], the optional ones after a `;`; or * if the
 * function reads its arguments itself. What begins with / takes no names. */
typedef struct chat_builtin {
    const char *name, *params;
    chat_fn fn;
    u32 how;                /* which of several, for fn */
    u8 kind;
} chat_builtin;

enum { CHAT_IS_FILTER, CHAT_IS_TEST, CHAT_IS_GLOBAL, CHAT_IS_STR,
    CHAT_IS_LIST,           /* of tuples too */
    CHAT_IS_DICT, CHAT_IS_LOOP,
    CHAT_IS_OTHER,          /* attributes of numbers, ranges, views */
    CHAT_IS_MUTATOR         /* none of ours, but Python has it: the last */
};
_Static_assert(CHAT_IS_MUTATOR < KS_LEN(((chat_name *)0)->rows), "a kind");

static chat_val chat_loop_item(const chat_loop *l, i64 i) {
    return i >= 0 && i < l->n ? chat_nth(l->in, i) : (chat_val){0};
}

static chat_val chat_loop_attr(const chat_loop *l, chat_val name) {
    i64 i = (i64)l->i - 1, n = l->n;
    if (chat_is(name, "index")) return chat_int(i + 1);
    if (chat_is(name, "index0")) return chat_int(i);
    if (chat_is(name, "first")) return chat_bool(i == 0);
    if (chat_is(name, "last")) return chat_bool(i + 1 == n);
    if (chat_is(name, "length")) return chat_int(n);
    if (chat_is(name, "revindex")) return chat_int(n - i);
    if (chat_is(name, "revindex0")) return chat_int(n - i - 1);
    if (chat_is(name, "depth")) return chat_int(1);
    if (chat_is(name, "depth0")) return chat_int(0);
    if (chat_is(name, "previtem")) return chat_loop_item(l, i - 1);
    if (chat_is(name, "nextitem")) return chat_loop_item(l, i + 1);
    return (chat_val){0};
}

/* The parameter after the one at p; NULL at the end. */
static chat_token *chat_next_param(chat_ctx *c, chat_token *p) {
    if (p->link) p = &c->tokens[p->link];
    else p++;
    if (p->v.u.i == ',') p++;
    return p->type == CHAT_T_NAME ? p : NULL;
}

static chat_token *chat_first_param(const chat_macro *m) {
    return m->params->type == CHAT_T_NAME ? m->params : NULL;
}

/* Methods that would change a list or dict: the sandbox hides them. */
static const char CHAT_LIST_MUTATORS[] =
    "append clear extend insert pop remove reverse sort";
static const char CHAT_DICT_MUTATORS[] = "clear pop popitem setdefault update";

static i64 chat_index(i64 i, i64 n) { return i < 0 ? i + n : i; }

static chat_val chat_at(chat_ctx *c, chat_val v, i64 i) {
    if (v.type != CHAT_STR) {
        i = chat_index(i, v.n);
        return i >= 0 && i < v.n ? chat_nth(v, i) : (chat_val){0};
    }
    if (!chat_work(c, v.n >> 4)) return (chat_val){0};
    i = chat_index(i, (i64)chat_count(v));
    if (i < 0) return (chat_val){0};
    size_t at = chat_offset(v, (size_t)i), end = at + 1;
    if (at >= v.n) return (chat_val){0};
    while (end < v.n && (v.u.s[end] & 0xc0) == 0x80) end++;
    return chat_cut(v, at, end);
}

CHAT_RARE chat_val chat_range_of(
    chat_ctx *c, i64 from, i64 to, i64 by, u32 n) {
    chat_range *r = chat_alloc(c, sizeof *r);
    if (!r) return (chat_val){0};
    *r = (chat_range){from, to, by};
    return (chat_val){.type = CHAT_RANGE, .n = n, .u.range = r};
}

static i64 chat_clamp(i64 i, i64 lo, i64 hi) {
    return i < lo ? lo : i > hi ? hi : i;
}

/* v[from:to:by]; what is no integer is not given. */
static chat_val chat_slice(
    chat_ctx *c, chat_val v, chat_val from, chat_val to, chat_val by) {
    bool text = v.type == CHAT_STR;
    if (v.type == CHAT_RANGE) return chat_refuse(c, "a slice of a range");
    if (!text && !chat_is_array(v))
        return CHAT_RAISE(c, "a slice of %s", chat_type_name(v));
    if (!chat_work(c, text ? v.n >> 3 : 0)) return (chat_val){0};
    i64 n = text ? (i64)chat_count(v) : v.n;
    i64 step = chat_is_int(by) ? chat_clamp(by.u.i, -CHAT_TEXT, CHAT_TEXT) : 1;
    if (!step) return CHAT_RAISE(c, "a slice with step 0");
    i64 lo = step > 0 ? 0 : -1, hi = step > 0 ? n : n - 1;
    i64 a = chat_is_int(from) ? chat_clamp(chat_index(from.u.i, n), lo, hi)
        : step > 0 ? lo : hi;
    i64 b = chat_is_int(to) ? chat_clamp(chat_index(to.u.i, n), lo, hi)
        : step > 0 ? hi : lo;
    i64 count = step > 0 ? (b - a + step - 1) / step
        : (a - b - step - 1) / -step;
    if (count < 0) count = 0;
    if (text && step == 1)
        return chat_cut(v, chat_offset(v, (size_t)a),
            chat_offset(v, (size_t)(a + count)));
    if (!text && step == 1) {
        v.u.v = count ? v.u.v + a : NULL;
        v.n = (u32)count;
        v.flag = 0;
        return v;
    }
    chat_val in = chat_iter(c, v);
    chat_list l = {0};
    chat_text t = {0};
    for (; count-- > 0 && chat_work(c, 1); a += step) {
        if (text) chat_puts(c, &t, in.u.v[a]);
        else chat_append(c, &l, in.u.v[a]);
    }
    in = text ? chat_built(&t) : chat_listed(l);
    in.type = v.type;
    in.flag = text ? v.flag : 0;
    return in;
}

/* Takes the next of some names off *p; its end is a space or the end. */
static str chat_next_name(const char **p) {
    str s = {*p, strcspn(*p, " ")};
    *p += s.n + (s.p[s.n] == ' ');
    return s;
}

static bool chat_is_among(chat_val name, const char *p) {
    while (*p) {
        str s = chat_next_name(&p);
        if (s.n == name.n && !memcmp(s.p, name.u.s, s.n)) return true;
    }
    return false;
}

/* What jinja2 and Python have and this has not. */
static const char *const CHAT_REFUSED[] = {
    [CHAT_IS_FILTER] = "batch center filesizeformat format groupby pprint "
        "random slice striptags truncate urlencode urlize wordcount wordwrap "
        "xmlattr",
    [CHAT_IS_GLOBAL] = "caller cycler joiner kwargs lipsum varargs",
    [CHAT_IS_STR] = "casefold center encode expandtabs format_map isascii "
        "isdecimal isidentifier isnumeric isprintable istitle ljust maketrans "
        "rjust swapcase translate zfill",
    [CHAT_IS_LIST] = "copy",
    [CHAT_IS_DICT] = "fromkeys",
    [CHAT_IS_OTHER] = "as_integer_ratio bit_count bit_length close conjugate "
        "count denominator from_bytes fromhex hex imag index is_integer "
        "isdisjoint mapping numerator real send start step stop throw to_bytes",
};

static bool chat_is_refused(u32 kind, chat_val name) {
    return kind < KS_LEN(CHAT_REFUSED) && CHAT_REFUSED[kind]
        && chat_is_among(name, CHAT_REFUSED[kind]);
}

CHAT_COLD chat_val chat_refuse_name(chat_ctx *c, chat_val name) {
    char text[32];
    chat_format(text, sizeof text, "%.*s", chat_clip(name, 31),
        (const char *)name.u.s);
    return chat_refuse(c, text);
}

/* A method of v, bound to it. */
static chat_val chat_method(chat_ctx *c, chat_val v, const chat_builtin *f) {
    chat_bound *b = chat_alloc(c, sizeof *b);
    if (!b) return (chat_val){0};
    *b = (chat_bound){v, f};
    return (chat_val){.type = CHAT_METHOD, .u.bound = b};
}

/* v.name: what Python finds on the object first, then the key. `rows`: of
 * chat_name, or NULL. */
static chat_val chat_attr_of(
    chat_ctx *c, chat_val v, chat_val name, const u16 *rows) {
    static const u8 methods[CHAT_UNSET] = {[CHAT_STR] = CHAT_IS_STR,
        [CHAT_LIST] = CHAT_IS_LIST, [CHAT_TUPLE] = CHAT_IS_LIST,
        [CHAT_DICT] = CHAT_IS_DICT, [CHAT_LOOP] = CHAT_IS_LOOP,
        [CHAT_BOOL] = CHAT_IS_OTHER, [CHAT_INT] = CHAT_IS_OTHER,
        [CHAT_BIG] = CHAT_IS_OTHER, [CHAT_FLOAT] = CHAT_IS_OTHER,
        [CHAT_RANGE] = CHAT_IS_OTHER};
    u32 kind = v.type == CHAT_LIST && v.flag ? CHAT_IS_OTHER
        : methods[v.type];
    chat_val *at = NULL, none = {0};
    const chat_builtin *f = NULL;
    if (v.type == CHAT_UNDEF)
        return CHAT_RAISE(c, "'%.*s' of an undefined value",
            chat_clip(name, 100), (const char *)name.u.s);
    if ((!rows || rows[CHAT_IS_MUTATOR]) && (v.type == CHAT_DICT
            || (v.type == CHAT_LIST && !v.flag))
        && chat_is_among(name, v.type == CHAT_DICT ? CHAT_DICT_MUTATORS
            : CHAT_LIST_MUTATORS)) return none;
    if (kind && rows && rows[kind]) f = c->below->rows + rows[kind] - 1;
    else if (kind && !rows) f = c->below->find(kind, name);
    if (f) return chat_method(c, v, f);
    if (v.type == CHAT_LOOP) return chat_loop_attr(v.u.loop, name);
    if (v.type == CHAT_MACRO || v.type == CHAT_FUNC)
        return chat_refuse(c, "an attribute of a macro or function");
    if (v.type == CHAT_DICT) at = chat_get(c, v.u.v, v.n, name);
    if (v.type == CHAT_NAMESPACE)
        at = chat_get(c, v.u.names->pairs.v, v.u.names->pairs.n / 2, name);
    if (!at && kind && chat_is_refused(kind, name))
        return chat_refuse_name(c, name);
    return at ? *at : none;
}

/* v[key]: the key first. `rows`: of the key's name, or NULL. */
static chat_val chat_item_of(
    chat_ctx *c, chat_val v, chat_val key, const u16 *rows) {
    if (v.type == CHAT_UNDEF) return CHAT_RAISE(c, "an item of nothing");
    if (v.type == CHAT_DICT) {
        chat_val *at = chat_get(c, v.u.v, v.n, key);
        if (at) return *at;
    }
    if (chat_is_int(key) && (chat_is_array(v) || v.type == CHAT_STR
        || v.type == CHAT_RANGE))
        return chat_at(c, v, key.u.i);
    return key.type == CHAT_STR ? chat_attr_of(c, v, key, rows)
        : (chat_val){0};
}

static chat_val chat_item(chat_ctx *c, chat_val v, chat_val key) {
    return chat_item_of(c, v, key, NULL);
}

/* ---- calls of built-ins ---- */

/* The end of the name at p, in a list like "/a,b;c". */
static const char *chat_name_end(const char *p) {
    while (*p && *p != ',' && *p != ';') p++;
    return p;
}

/* The place of parameter `name`, from 1; 0: none. */
static u32 chat_param(const char *p, chat_val name) {
    for (u32 at = 1; *p; at++) {
        const char *end = chat_name_end(p);
        size_t n = (size_t)(end - p);
        if (n && n == name.n && !memcmp(p, name.u.s, n)) return at;
        at -= n == 0;
        p = end + (*end != 0);
    }
    return 0;
}

/* Whatever a filter or a method does with a text, it may look at all of it:
 * that is counted here, once for all of them. Tests count for themselves. */
static bool chat_count_texts(
    chat_ctx *c, const chat_builtin *f, const chat_args *a) {
    size_t n = 0;
    for (u32 i = 0; i < a->n && f->kind != CHAT_IS_TEST; i++)
        if (a->v[i].type == CHAT_STR) n += a->v[i].n;
    return chat_work(c, n >> 2);
}

static chat_val chat_invoke(
    chat_ctx *c, const chat_builtin *f, const chat_args *a) {
    chat_val slot[CHAT_ARGS];
    const char *params = f->params, *names = f->name, *why = NULL;
    u32 n = 1, need = 0;
    if (!chat_count_texts(c, f, a)) return (chat_val){0};
    if (*params == '*') {
        chat_args all = *a;
        all.how = f->how;
        return f->fn(c, &all);
    }
    bool named = *params != '/';
    params += !named;
    for (const char *p = params, *end; *p; p = end + (*end != 0)) {
        end = chat_name_end(p);
        n += end > p;
        if (*end == ';') need = n;
        else if (!*end && !need) need = n;
    }
    for (u32 i = 0; i < CHAT_ARGS; i++)
        slot[i] = (chat_val){.type = CHAT_UNSET};
    if (a->n > n) why = "too many arguments";
    else memcpy(slot, a->v, a->n * sizeof *slot);
    for (u32 i = 0; i < a->n_kw && !why; i++) {
        u32 at = named ? chat_param(params, a->kw[2 * i]) : 0;
        if (!at || slot[at].type != CHAT_UNSET)
            why = "no parameter of that name";
        else slot[at] = a->kw[2 * i + 1];
    }
    for (u32 i = 1; i < need && !why; i++)
        if (slot[i].type == CHAT_UNSET) why = "an argument is missing";
    if (!why) return f->fn(c, &(chat_args){slot, n, NULL, 0, f->how});
    str name = chat_next_name(&names);
    return CHAT_RAISE(c, "%.*s: %s", (int)name.n, name.p, why);
}

static chat_val chat_apply(
    chat_ctx *c, u32 kind, chat_val name, chat_args *a) {
    const chat_builtin *f = c->below->find(kind, name);
    if (f) return chat_invoke(c, f, a);
    if (chat_is_refused(kind, name)) return chat_refuse_name(c, name);
    return CHAT_RAISE(c, "unknown filter or test '%.*s'", chat_clip(name, 60),
        (const char *)name.u.s);
}

/* ---- filters ---- */

static bool chat_has(const chat_args *a, u32 i) {
    return a->v[i].type != CHAT_UNSET;
}

/* Given, and not none. */
static bool chat_given_arg(const chat_args *a, u32 i) {
    return a->v[i].type != CHAT_UNSET && a->v[i].type != CHAT_NONE;
}

static bool chat_flag(const chat_args *a, u32 i, bool otherwise) {
    return chat_has(a, i) ? chat_true(a->v[i]) : otherwise;
}

/* An argument that must be an integer if it is given. */
static i64 chat_num(chat_ctx *c, const chat_args *a, u32 i, i64 otherwise) {
    if (!chat_has(a, i)) return otherwise;
    if (!chat_is_int(a->v[i]))
        CHAT_RAISE(c, "%s where an integer belongs", chat_type_name(a->v[i]));
    return a->v[i].u.i;
}

/* A text as it is, str() of anything else. */
static chat_val chat_soft(chat_ctx *c, chat_val v) {
    return v.type == CHAT_STR ? v : chat_to_str(c, v);
}

static bool chat_wants_text(chat_ctx *c, chat_val v) {
    if (v.type == CHAT_STR) return true;
    CHAT_RAISE(c, "%s where a text belongs", chat_type_name(v));
    return false;
}

static chat_val chat_generator(chat_ctx *c, const chat_val *items, u32 n) {
    chat_lazy *l = chat_alloc(c, sizeof *l);
    if (!l) return (chat_val){0};
    l->v = items;
    return (chat_val){.type = CHAT_LIST, .flag = CHAT_LAZY, .n = n,
        .u.lazy = l};
}

static chat_val chat_tuple_of(chat_list l) {
    chat_val v = chat_listed(l);
    v.type = CHAT_TUPLE;
    return v;
}

/* A built-in that is one expression of its value v and its arguments a. */
#define CHAT_FN(name, value)                                                   \
    CHAT_RARE chat_val chat_##name(chat_ctx *c, const chat_args *a) {       \
        chat_val v = a->v[0];                                                  \
        (void)c;                                                               \
        (void)v;                                                               \
        return value;                                                          \
    }

static chat_val chat_length(chat_ctx *c, chat_val v) {
    if (v.type == CHAT_STR) return chat_int(chat_chars(c, v));
    if (v.type == CHAT_UNDEF) return chat_int(0);
    if (v.type == CHAT_LOOP) return chat_int(v.u.loop->n);
    if ((chat_is_seq(v) || v.type == CHAT_DICT || v.type == CHAT_RANGE)
        && !chat_is_lazy(v)) return chat_int(v.n);
    return CHAT_RAISE(c, "%s has no length", chat_type_name(v));
}

static chat_val chat_mark_safe(chat_val v) {
    v.flag = CHAT_MARKUP;
    return v;
}

/* how: 1 the left, 2 the right end. */
CHAT_RARE chat_val chat_f_trim(chat_ctx *c, const chat_args *a) {
    chat_val s = chat_soft(c, a->v[0]);
    if (chat_given_arg(a, 1) && !chat_wants_text(c, a->v[1])) return s;
    u32 set = a->v[1].type == CHAT_STR ? a->v[1].n : 1;
    if (!chat_work(c, (u64)(s.n >> 2) * ((set + 3) >> 2))) return s;
    return chat_strip(s, a->v[1], a->how & 1, a->how & 2);
}

/* Where a word ends for the filter title. */
static bool chat_ends_word(u32 cp) {
    return chat_is_space(cp)
        || (cp && cp < 128 && strchr("-({[<", (int)cp));
}

/* how: u upper, l lower, c capitalize, t title, w the filter title. */
CHAT_RARE chat_val chat_case(chat_ctx *c, chat_val s, char how) {
    chat_text t = {0};
    bool start = true;
    if (!chat_work(c, s.n >> 1)) return s;
    for (u32 i = 0, k, cp; i < s.n && !c->status; i += k) {
        bool up = how == 'u' || (start && how != 'l');
        k = chat_next(s.u.s + i, s.u.s + s.n, &cp);
        if (cp >= 0x80 && !chat_no_case(cp) && !chat_work(c, 16)) break;
        const u8 *mark = chat_marks(chat_cut(s, i, s.n));
        chat_put_cp(c, &t, chat_recase(c, cp, up), mark);
        start = how == 't' ? !chat_case_of(c, cp)
            : how == 'w' && chat_ends_word(cp);
    }
    chat_val v = chat_built(&t);
    v.flag = how == 'w' ? 0 : s.flag;
    return v;
}

CHAT_RARE chat_val chat_f_abs(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0];
    if (v.type == CHAT_FLOAT) return chat_float(v.u.f < 0 || 1 / v.u.f < 0
        ? -v.u.f : v.u.f);
    if (v.type == CHAT_BIG && v.u.s[0] != '-') return v;
    if (v.type == CHAT_BIG)
        return chat_refuse(c, "abs of an integer beyond 63 bits");
    if (!chat_is_int(v)) return CHAT_RAISE(c, "abs of %s", chat_type_name(v));
    return v.u.i < 0 ? chat_int_math(c, '-', 0, v.u.i) : chat_int(v.u.i);
}

/* A text as int() and float() read it: without white space around, and with _
 * only between digits. */
CHAT_RARE chat_val chat_ascii_number(chat_ctx *c, chat_val s) {
    chat_val none = {.type = CHAT_UNSET};
    chat_text t = {0};
    u32 cp, k;
    if (!chat_work(c, s.n >> 2)) return none;
    s = chat_strip(s, (chat_val){0}, true, true);
    const u8 *p = s.u.s, *end = p + s.n;
    for (u32 i = 0; i < s.n; i += k) {
        k = chat_next(p + i, end, &cp);
        if (txt_class_of(cp) == TXT_NUMBER && cp >= 0x80)
            chat_refuse(c, "a digit beyond ASCII");
        if (cp >= 0x80) return none;
        if (cp != '_') chat_put(c, &t, p + i, 1, NULL);
        else if (!i || !chat_is_digit(p + i - 1, end)
            || !chat_is_digit(p + i + 1, end)) return none;
    }
    return chat_built(&t);
}

/* int(text), or UNSET when the text is none. */
CHAT_RARE chat_val chat_text_int(chat_ctx *c, chat_val v) {
    chat_val none = {.type = CHAT_UNSET}, s = chat_ascii_number(c, v), r;
    if (s.type != CHAT_STR || !s.n) return none;
    bool minus = s.u.s[0] == '-';
    if (minus || s.u.s[0] == '+') s = chat_cut(s, 1, s.n);
    while (s.n > 1 && s.u.s[0] == '0') s = chat_cut(s, 1, s.n);
    for (u32 i = 0; i < s.n; i++)
        if (!chat_is_digit(s.u.s + i, s.u.s + s.n)) return none;
    if (!s.n || !chat_number(s.u.s, s.u.s + s.n, &r)) return none;
    if (r.type == CHAT_BIG && minus) s = chat_concat(c, chat_strz("-"), s);
    if (r.type == CHAT_BIG)
        return chat_number(s.u.s, s.u.s + s.n, &r) ? r : none;
    return chat_int(minus ? -r.u.i : r.u.i);
}

/* float(text), or UNSET. */
CHAT_RARE chat_val chat_text_float(chat_ctx *c, chat_val v) {
    static const char *const words[] = {"inf", "infinity", "nan"};
    chat_val s = chat_ascii_number(c, v), none = {.type = CHAT_UNSET};
    if (s.type != CHAT_STR || !s.n) return none;
    bool minus = s.u.s[0] == '-';
    if (minus || s.u.s[0] == '+') s = chat_cut(s, 1, s.n);
    for (u32 w = 0; w < KS_LEN(words); w++) {
        u32 i = 0;
        while (i < s.n && words[w][i] && (s.u.s[i] | 32) == words[w][i]) i++;
        if (i < s.n || words[w][i] || !i) continue;
        f64 odd = w < 2 ? (f64)INFINITY : (f64)NAN;
        return chat_float(minus ? -odd : odd);
    }
    const u8 *p = s.u.s, *end = p + s.n;
    const u8 *q = chat_skip_digits(p, end, false);
    bool point = q < end && *q == '.';
    if (point) q = chat_skip_digits(q + 1, end, false);
    if (q == p + point || chat_skip_exponent(q, end) < end) return none;
    return chat_float(chat_read_f64(p, end) * (minus ? -1 : 1));
}

CHAT_RARE chat_val chat_f_int(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0], otherwise = chat_has(a, 1) ? a->v[1] : chat_int(0);
    if (chat_has(a, 2) && !chat_eq(c, a->v[2], chat_int(10), 0))
        return chat_refuse(c, "int with a base");
    if (v.type == CHAT_STR) {
        chat_val i = chat_text_int(c, v);
        if (i.type != CHAT_UNSET) return i;
        v = chat_text_float(c, v);
        if (v.type == CHAT_FLOAT && (v.u.f > DBL_MAX || v.u.f < -DBL_MAX))
            return otherwise;
    }
    if (v.type == CHAT_UNDEF) return CHAT_RAISE(c, "int of nothing");
    if (v.type == CHAT_BIG) return v;
    if (chat_is_int(v)) return chat_int(v.u.i);
    if (v.type == CHAT_FLOAT && v.u.f == v.u.f) return chat_whole(c, v.u.f);
    return otherwise;
}

CHAT_RARE chat_val chat_f_float(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0];
    if (v.type == CHAT_STR) v = chat_text_float(c, v);
    if (v.type == CHAT_BIG)
        return chat_refuse(c, "an integer beyond 63 bits");
    if (chat_is_number(v)) return chat_float(chat_f64(v));
    if (v.type == CHAT_UNDEF) return CHAT_RAISE(c, "float of nothing");
    return chat_has(a, 1) ? a->v[1] : chat_float(0);
}

CHAT_RARE chat_val chat_f_round(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0], how = a->v[2];
    char buf[400];
    bool up = chat_is(how, "ceil"), down = chat_is(how, "floor");
    bool none = a->v[1].type == CHAT_NONE;
    i64 digits = none ? -1 : chat_num(c, a, 1, 0);
    if (chat_has(a, 2) && !up && !down && !chat_is(how, "common"))
        return CHAT_RAISE(c, "round knows common, ceil and floor");
    if (!chat_is_numeric(v)) return CHAT_RAISE(c, "round of no number");
    if (v.type == CHAT_BIG) return chat_refuse(c, "an integer beyond 63 bits");
    if (digits < 0 || digits > 22)
        return chat_refuse(c, "round to this many digits");
    f64 scale = 1, x = chat_f64(v);
    if (!up && !down) {
        if (v.type != CHAT_FLOAT) return chat_int(v.u.i);
        if (x != x || x > DBL_MAX || x < -DBL_MAX) return v;
        int n = chat_print_float(buf, sizeof buf, 'f', (int)digits, x);
        bool minus = buf[0] == '-';
        return chat_float(chat_read_f64(buf + minus, buf + n)
            * (minus ? -1 : 1));
    }
    for (; digits > 0; digits--) scale *= 10;
    f64 much = x * scale;
    if (v.type != CHAT_FLOAT && fabs(much) > 0x1p53)
        return chat_refuse(c, "ceil or floor of this large an integer");
    if (fabs(much) > DBL_MAX || much != much)
        return CHAT_RAISE(c, "ceil or floor of what is not finite");
    much = up ? ceil(much) : floor(much);
    return chat_float((much < 0 || much > 0 ? much : 0) / scale);
}

static chat_val chat_list_of(chat_ctx *c, chat_val v) {
    v = chat_iter(c, v);
    v.type = CHAT_LIST;
    v.flag = 0;
    return v;
}

CHAT_RARE chat_val chat_f_first(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0];
    if (chat_is_lazy(v)) {
        u32 n = v.n;
        v = chat_read_lazy(c, v, n > 1);
    } else {
        v = chat_iter(c, v);
    }
    return v.n ? v.u.v[0] : (chat_val){0};
}

CHAT_RARE chat_val chat_f_last(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0];
    if (chat_is_lazy(v)) return CHAT_RAISE(c, "last of a generator");
    v = chat_iter(c, v);
    return v.n ? v.u.v[v.n - 1] : (chat_val){0};
}

CHAT_RARE chat_val chat_f_items(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0];
    if (v.type != CHAT_UNDEF && v.type != CHAT_DICT)
        return CHAT_RAISE(c, "items of %s", chat_type_name(v));
    if (v.type == CHAT_DICT) v = chat_side(c, v, 2);
    return chat_generator(c, v.u.v, v.n);
}

CHAT_RARE chat_val chat_dict_get(chat_ctx *c, const chat_args *a) {
    if (!chat_is_key(c, a->v[1])) return (chat_val){0};
    chat_val *v = chat_get(c, a->v[0].u.v, a->v[0].n, a->v[1]);
    return v ? *v : chat_has(a, 2) ? a->v[2] : chat_none();
}

CHAT_RARE chat_val chat_f_reverse(chat_ctx *c, const chat_args *a) {
    chat_val none = {0}, v = a->v[0];
    bool lazy = !chat_is_lazy(v);
    if (v.type == CHAT_STR) return chat_slice(c, v, none, none, chat_int(-1));
    v = chat_slice(c, chat_list_of(c, v), none, none, chat_int(-1));
    return lazy ? chat_generator(c, v.u.v, v.n) : v;
}

CHAT_RARE chat_val chat_replace(
    chat_ctx *c, chat_val s, chat_val from, chat_val to, i64 count) {
    chat_text t = {0};
    size_t at = 0;
    if (!chat_wants_text(c, from) || !chat_wants_text(c, to))
        return (chat_val){0};
    if (s.flag & CHAT_MARKUP && !(to.flag & CHAT_MARKUP))
        to = chat_escape(c, to);
    if (from.n && chat_find(c, s, from, 0) == SIZE_MAX) return s;
    while (count && chat_work(c, 1)) {
        size_t next = chat_find(c, s, from, at);
        if (next == SIZE_MAX) break;
        if (!from.n) { /* before every character and at the end */
            chat_puts(c, &t, to);
            size_t k = at + 1;
            while (k < s.n && (s.u.s[k] & 0xc0) == 0x80) k++;
            if (at >= s.n) break;
            chat_puts(c, &t, chat_cut(s, at, k));
            at = k;
        } else {
            chat_puts(c, &t, chat_cut(s, at, next));
            chat_puts(c, &t, to);
            at = next + from.n;
        }
        count -= count > 0;
    }
    chat_puts(c, &t, chat_cut(s, at, s.n));
    chat_val r = chat_built(&t);
    r.flag = s.flag;
    return r;
}

CHAT_RARE chat_val chat_f_replace(chat_ctx *c, const chat_args *a) {
    chat_val s = chat_to_str(c, a->v[0]), from = chat_to_str(c, a->v[1]);
    i64 count = chat_given_arg(a, 3) ? chat_num(c, a, 3, -1) : -1;
    return chat_replace(c, s, from, chat_to_str(c, a->v[2]), count);
}

/* End of the line at i; *next is where the one after it begins. */
static size_t chat_line(chat_val s, size_t i, size_t *next) {
    while (i < s.n) {
        u32 cp, k = chat_next(s.u.s + i, s.u.s + s.n, &cp);
        *next = i + k;
        if (cp == '\r' && *next < s.n && s.u.s[*next] == '\n') ++*next;
        if ((cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e)
            || cp == 0x85 || cp == 0x2028 || cp == 0x2029) return i;
        i += k;
    }
    *next = s.n;
    return s.n;
}

CHAT_RARE chat_val chat_lines_of(chat_ctx *c, chat_val s, bool ends) {
    chat_list l = {0};
    if (!chat_work(c, s.n >> 2)) return chat_listed(l);
    for (size_t i = 0, next; i < s.n && chat_work(c, 1); i = next) {
        size_t end = chat_line(s, i, &next);
        chat_append(c, &l, chat_cut(s, i, ends ? next : end));
    }
    return chat_listed(l);
}

CHAT_RARE chat_val chat_f_indent(chat_ctx *c, const chat_args *a) {
    chat_val s = a->v[0], pad = a->v[1];
    chat_text t = {0};
    bool first = chat_flag(a, 2, false), blank = chat_flag(a, 3, false);
    if (!chat_wants_text(c, s)) return s;
    if (pad.type != CHAT_STR)
        pad = chat_repeat(c, chat_strz(" "), chat_num(c, a, 1, 4));
    chat_val lines = chat_lines_of(c, chat_concat(c, s, chat_strz("\n")),
        false);
    for (u32 i = 0; i < lines.n && !c->status; i++) {
        chat_val line = lines.u.v[i];
        if (i) chat_putz(c, &t, "\n");
        if (i ? blank || line.n : first) chat_puts(c, &t, pad);
        chat_puts(c, &t, line);
    }
    chat_val v = chat_built(&t);
    v.flag = s.flag;
    return v;
}

/* A part of a path, which is a number when it has only digits. */
static chat_val chat_path_key(chat_ctx *c, chat_val part) {
    for (u32 i = 0; i < part.n; i++)
        if (part.u.s[i] < '0' || part.u.s[i] > '9') return part;
    return part.n ? chat_text_int(c, part) : part;
}

/* Parts of a path like "function.name" one after the other; `otherwise` for
 * what is not there. */
CHAT_RARE chat_val chat_path(
    chat_ctx *c, chat_val v, chat_val path, chat_val otherwise) {
    bool whole = path.type != CHAT_STR;
    if (path.type == CHAT_UNSET || path.type == CHAT_NONE) return v;
    for (size_t i = 0, end; i <= (whole ? 0 : path.n) && !c->status;
            i = end + 1) {
        end = whole ? 0 : chat_find(c, path, chat_strz("."), i);
        if (end == SIZE_MAX) end = path.n;
        v = chat_item(c, v, whole ? path
            : chat_path_key(c, chat_cut(path, i, end)));
        if (v.type == CHAT_UNDEF && otherwise.type > CHAT_NONE
            && otherwise.type != CHAT_UNSET) v = otherwise;
    }
    return v;
}

CHAT_RARE chat_val chat_f_join(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter(c, a->v[0]), none = {0};
    chat_val by = chat_has(a, 1) ? chat_to_str(c, a->v[1]) : chat_str("", 0);
    chat_text t = {0};
    for (u32 i = 0; i < in.n && chat_work(c, 1); i++) {
        if (i) chat_puts(c, &t, by);
        chat_print(c, &t, chat_path(c, in.u.v[i], a->v[2], none), 0);
    }
    return chat_built(&t);
}

/* The key of each item. */
CHAT_RARE chat_val *chat_order_keys(
    chat_ctx *c, chat_val in, chat_val path, bool cased) {
    chat_val *keys = chat_alloc(c, (in.n + 1) * sizeof *keys), none = {0};
    for (u32 i = 0; keys && i < in.n && chat_work(c, 1); i++) {
        chat_val v = chat_path(c, in.u.v[i], path, none);
        keys[i] = !cased && v.type == CHAT_STR ? chat_case(c, v, 'l') : v;
    }
    return keys;
}

CHAT_RARE chat_val chat_f_sort(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter(c, a->v[0]), path = a->v[3];
    if (path.type == CHAT_STR && memchr(path.u.s, ',', path.n))
        return chat_refuse(c, "sort by several attributes");
    chat_val *keys = chat_order_keys(c, in, path, chat_flag(a, 2, false));
    return chat_sorted(c, in, keys, chat_flag(a, 1, false), true);
}

CHAT_RARE chat_val chat_f_dictsort(chat_ctx *c, const chat_args *a) {
    bool value = chat_has(a, 2) && chat_is(a->v[2], "value");
    if (chat_has(a, 2) && !value && !chat_is(a->v[2], "key"))
        return CHAT_RAISE(c, "dictsort by key or by value");
    if (a->v[0].type != CHAT_DICT)
        return CHAT_RAISE(c, "dictsort of %s", chat_type_name(a->v[0]));
    chat_val in = chat_side(c, a->v[0], 2);
    chat_val *keys = chat_order_keys(c, in, chat_int(value),
        chat_flag(a, 1, false));
    return chat_sorted(c, in, keys, chat_flag(a, 3, false), false);
}

CHAT_RARE chat_val chat_f_max(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter(c, a->v[0]);
    if (!in.n) return (chat_val){0};
    chat_val *keys = chat_order_keys(c, in, a->v[2], chat_flag(a, 1, false));
    u32 best = 0;
    for (u32 i = 1; keys && i < in.n && chat_work(c, 1); i++)
        if (a->how ? chat_less(c, keys[best], keys[i], 0)
                 : chat_less(c, keys[i], keys[best], 0)) best = i;
    return in.u.v[best];
}

CHAT_RARE chat_val chat_f_unique(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter(c, a->v[0]);
    chat_val *keys = chat_order_keys(c, in, a->v[2], chat_flag(a, 1, false));
    chat_list l = {0}, seen = {0};
    for (u32 i = 0; keys && i < in.n && chat_work(c, 1); i++) {
        if (!chat_is_key(c, keys[i])
            || chat_in(c, keys[i], chat_listed(seen))) continue;
        chat_append(c, &seen, keys[i]);
        chat_append(c, &l, in.u.v[i]);
    }
    return chat_generator(c, l.v, l.n);
}

CHAT_RARE chat_val chat_f_sum(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter(c, a->v[0]), none = {0};
    chat_val sum = chat_has(a, 2) ? a->v[2] : chat_int(0);
    if (sum.type == CHAT_STR) return CHAT_RAISE(c, "sum of texts");
    for (u32 i = 0; i < in.n && chat_work(c, 1); i++)
        sum = chat_binary(c, '+', sum, chat_path(c, in.u.v[i], a->v[1], none));
    return sum;
}

static chat_val chat_keyword(const chat_args *a, chat_val name) {
    for (u32 i = 0; i < a->n_kw; i++)
        if (a->kw[2 * i].type == CHAT_STR
            && chat_same_text(a->kw[2 * i], name)) return a->kw[2 * i + 1];
    return (chat_val){.type = CHAT_UNSET};
}

/* One filter or test on a value, with the arguments from number `from` on. */
static chat_val chat_apply_to(chat_ctx *c, u32 kind, chat_val name, chat_val v,
    const chat_args *a, u32 from) {
    chat_val slot[CHAT_ARGS];
    u32 n = a->n > from ? a->n - from : 0;
    if (n >= CHAT_ARGS) return CHAT_RAISE(c, "too many arguments");
    slot[0] = v;
    if (n) memcpy(slot + 1, a->v + from, n * sizeof *slot);
    chat_args args = {slot, n + 1, a->kw, a->n_kw, 0};
    if (!chat_wants_text(c, name)) return v;
    if (++c->depth > CHAT_DEPTH) CHAT_RAISE(c, "filters too deep");
    chat_val r = c->status ? (chat_val){0} : chat_apply(c, kind, name, &args);
    c->depth--;
    return r;
}

/* What map and select go over: nothing for none, 0 and other empty values. */
static chat_val chat_iter_any(chat_ctx *c, chat_val v) {
    return chat_iter(c, chat_true(v) ? v : (chat_val){0});
}

CHAT_RARE chat_val chat_f_map(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter_any(c, a->v[0]);
    chat_val path = chat_keyword(a, chat_strz("attribute"));
    chat_val otherwise = chat_keyword(a, chat_strz("default"));
    bool attr = a->n < 2 && path.type != CHAT_UNSET;
    chat_list l = {0};
    if (chat_true(a->v[0]) && a->n < 2 && (!attr
            || a->n_kw != 1u + (otherwise.type != CHAT_UNSET)))
        return CHAT_RAISE(c, "map wants a filter or an attribute");
    for (u32 i = 0; i < in.n && chat_work(c, 1); i++)
        chat_append(c, &l, attr ? chat_path(c, in.u.v[i], path, otherwise)
            : chat_apply_to(c, CHAT_IS_FILTER, a->v[1], in.u.v[i], a, 2));
    return chat_generator(c, l.v, l.n);
}

/* select (how & 1), reject and their attr forms (how & 2). */
CHAT_RARE chat_val chat_f_select(chat_ctx *c, const chat_args *a) {
    bool attr = a->how & 2, want = a->how & 1;
    chat_val in = chat_iter_any(c, a->v[0]), none = {0};
    u32 test = attr ? 2 : 1;
    chat_list l = {0};
    if (a->n < test && chat_true(a->v[0]))
        return CHAT_RAISE(c, "an attribute is missing");
    for (u32 i = 0; i < in.n && chat_work(c, 1); i++) {
        chat_val v = in.u.v[i];
        if (attr) v = chat_path(c, v, a->v[1], none);
        if (a->n > test) v = chat_apply_to(c, CHAT_IS_TEST, a->v[test], v, a,
            test + 1);
        if (chat_true(v) == want) chat_append(c, &l, in.u.v[i]);
    }
    return chat_generator(c, l.v, l.n);
}

CHAT_RARE chat_val chat_f_tojson(chat_ctx *c, const chat_args *a) {
    chat_style st = {.json = true, .ascii = chat_flag(a, 1, false),
        .sort = chat_flag(a, 4, false), .indent = a->v[2],
        .comma = chat_strz(", "), .colon = chat_strz(": ")};
    chat_text t = {0};
    if (chat_given_arg(a, 2)) {
        st.comma = chat_strz(",");
        if (st.indent.type != CHAT_STR)
            st.indent = chat_repeat(c, chat_strz(" "), chat_num(c, a, 2, 0));
    }
    if (chat_given_arg(a, 3)) {
        chat_val by = chat_iter(c, a->v[3]);
        if (by.n != 2 || !chat_wants_text(c, by.u.v[0])
            || !chat_wants_text(c, by.u.v[1]))
            return CHAT_RAISE(c, "separators are two texts");
        st.comma = by.u.v[0], st.colon = by.u.v[1];
    }
    chat_put_value(c, &t, a->v[0], &st, 0);
    return chat_built(&t);
}

CHAT_RARE chat_val chat_f_attr(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0], none = {0};
    if (!chat_wants_text(c, a->v[1])) return none;
    if (v.type == CHAT_DICT) v.n = 0;   /* attributes alone, no keys */
    chat_val r = chat_attr_of(c, v, a->v[1], NULL);
    if (r.type == CHAT_METHOD && v.type == CHAT_DICT)
        return chat_attr_of(c, a->v[0], a->v[1], NULL);
    return r;
}

static chat_val chat_escaped(chat_ctx *c, chat_val v) {
    return v.type == CHAT_STR && v.flag & CHAT_MARKUP ? v
        : chat_escape(c, chat_to_str(c, v));
}

CHAT_FN(f_case, chat_case(c, chat_soft(c, v), (char)a->how))
CHAT_FN(f_default, v.type == CHAT_UNDEF || (chat_flag(a, 2, false)
    && !chat_true(v)) ? chat_has(a, 1) ? a->v[1] : chat_str("", 0) : v)
CHAT_FN(f_escape, chat_escaped(c, v))
CHAT_FN(f_forceescape, chat_escape(c, chat_to_str(c, v)))
CHAT_FN(f_length, chat_length(c, v))
CHAT_FN(f_list, chat_list_of(c, v))
CHAT_FN(f_safe, chat_mark_safe(chat_soft(c, v)))
CHAT_FN(f_string, chat_soft(c, v))

/* ---- methods of texts and lists ---- */

/* The value of {}, {0} or {name}. *next counts the {}; -1: one had a number. */
static chat_val chat_format_field(
    chat_ctx *c, const chat_args *a, chat_val name, i64 *next) {
    for (u32 i = 0; i < name.n; i++)
        if (name.u.s[i] && strchr(".[:!{", name.u.s[i]))
            return chat_refuse(c, "format with this field");
    chat_val key = name.n ? chat_path_key(c, name) : chat_int(*next);
    if (key.type == CHAT_STR) {
        chat_val v = chat_keyword(a, key);
        if (v.type != CHAT_UNSET) return v;
    } else if (name.n ? *next > 0 : *next < 0) {
        return CHAT_RAISE(c, "a format with {} and with {0}");
    } else {
        *next = name.n ? -1 : *next + 1;
        if (key.type == CHAT_INT && key.u.i < a->n - 1)
            return a->v[1 + key.u.i];
    }
    return CHAT_RAISE(c, "format has no value for a field");
}

CHAT_RARE chat_val chat_m_format(chat_ctx *c, const chat_args *a) {
    chat_val s = a->v[0];
    chat_text t = {0};
    i64 next = 0;
    for (size_t i = 0, end; i < s.n && chat_work(c, 1); i = end) {
        u8 b = s.u.s[i];
        end = i + 1;
        if (b != '{' && b != '}') {
            while (end < s.n && s.u.s[end] != '{' && s.u.s[end] != '}') end++;
            chat_puts(c, &t, chat_cut(s, i, end));
        } else if (end < s.n && s.u.s[end] == b) {
            chat_puts(c, &t, chat_cut(s, i, end++));
        } else {
            end = b == '{' ? chat_find(c, s, chat_strz("}"), i) : SIZE_MAX;
            if (end++ == SIZE_MAX)
                return CHAT_RAISE(c, "a format with a single brace");
            chat_val v = chat_format_field(c, a, chat_cut(s, i + 1, end - 1),
                &next);
            if (s.flag & CHAT_MARKUP) v = chat_escaped(c, v);
            chat_print(c, &t, v, 0);
        }
    }
    chat_val v = chat_built(&t);
    v.flag = s.flag;
    return v;
}

/* Python's start and end of a search. */
static bool chat_no_bounds(chat_ctx *c, const chat_args *a, u32 i) {
    if (!chat_given_arg(a, i) && !chat_given_arg(a, i + 1)) return true;
    chat_refuse(c, "start or end of a search");
    return false;
}

/* The last place of `what`, or SIZE_MAX. */
static size_t chat_find_last(chat_ctx *c, chat_val s, chat_val what) {
    if (what.n > s.n) return SIZE_MAX;
    if (!what.n) return s.n;
    for (size_t at = s.n - what.n + 1; at-- > 0;) {
        if (!(at & 63) && !chat_work(c, 4)) break;
        if (s.u.s[at] == what.u.s[0] && chat_work(c, what.n >> 4)
            && !memcmp(s.u.s + at, what.u.s, what.n)) return at;
    }
    return SIZE_MAX;
}

/* The number of the character where v[1] is found first or, how & 1, last; -1
 * or, how & 2, an error when it is not. */
CHAT_RARE chat_val chat_m_find(chat_ctx *c, const chat_args *a) {
    chat_val s = a->v[0], what = a->v[1];
    if (!chat_wants_text(c, what) || !chat_no_bounds(c, a, 2)) return s;
    size_t at = a->how & 1 ? chat_find_last(c, s, what)
        : chat_find(c, s, what, 0);
    if (at == SIZE_MAX && a->how & 2)
        return CHAT_RAISE(c, "index: not found");
    return chat_int(at == SIZE_MAX || !chat_work(c, at >> 3) ? -1
        : (i64)chat_count(chat_cut(s, 0, at)));
}

CHAT_RARE chat_val chat_m_count(chat_ctx *c, const chat_args *a) {
    i64 n = 0;
    chat_val s = a->v[0], what = a->v[1];
    if (!chat_wants_text(c, what) || !chat_no_bounds(c, a, 2)) return s;
    if (!what.n) return chat_int(chat_chars(c, s) + 1);
    for (size_t at = 0; chat_work(c, 1); at += what.n, n++) {
        at = chat_find(c, s, what, at);
        if (at == SIZE_MAX) break;
    }
    return chat_int(n);
}

static bool chat_begins(
    chat_ctx *c, chat_val s, chat_val with, bool end) {
    return with.n <= s.n && chat_work(c, with.n >> 4)
        && !memcmp(s.u.s + (end ? s.n - with.n : 0), with.u.s, with.n);
}

/* how: 1 for the end */
CHAT_RARE chat_val chat_m_startswith(chat_ctx *c, const chat_args *a) {
    chat_val with = a->v[1], s = a->v[0];
    bool tuple = with.type == CHAT_TUPLE, yes = false;
    if (!tuple && !chat_wants_text(c, with)) return s;
    if (!chat_no_bounds(c, a, 2)) return s;
    for (u32 i = 0; i < (tuple ? with.n : 1) && !yes && chat_work(c, 1); i++) {
        chat_val x = tuple ? with.u.v[i] : with;
        yes = chat_wants_text(c, x) && chat_begins(c, s, x, a->how);
    }
    return chat_bool(yes);
}

CHAT_RARE chat_val chat_m_removeprefix(chat_ctx *c, const chat_args *a) {
    bool end = a->how;
    chat_val s = a->v[0], with = a->v[1];
    if (!chat_wants_text(c, with) || !chat_begins(c, s, with, end)) return s;
    return chat_cut(s, end ? 0 : with.n, end ? s.n - with.n : s.n);
}

CHAT_RARE chat_val chat_m_join(chat_ctx *c, const chat_args *a) {
    chat_val in = chat_iter(c, a->v[1]), by = a->v[0];
    bool markup = by.flag & CHAT_MARKUP;
    chat_text t = {0};
    for (u32 i = 0; i < in.n && chat_work(c, 1); i++) {
        chat_val v = in.u.v[i];
        if (!markup && !chat_wants_text(c, v)) break;
        if (i) chat_puts(c, &t, by);
        chat_puts(c, &t, markup ? chat_escaped(c, v) : v);
    }
    chat_val v = chat_built(&t);
    v.flag = by.flag;
    return v;
}

/* Off one end of s: the part up to `by` (white space when it is no text);
 * s becomes the rest, without type when there is none. */
CHAT_RARE chat_val chat_split_one(
    chat_ctx *c, chat_val *s, chat_val by, bool right) {
    chat_val whole = *s, none = {0};
    bool space = by.type != CHAT_STR;
    size_t at = SIZE_MAX, n = by.n;
    if (!space) {
        at = right ? chat_find_last(c, whole, by) : chat_find(c, whole, by, 0);
    } else {
        u32 cp, k;
        for (size_t i = 0; i < whole.n; i += k) {
            size_t from = right ? whole.n - i : i;
            if (right) do from--; while (from
                && (whole.u.s[from] & 0xc0) == 0x80);
            k = chat_next(whole.u.s + from, whole.u.s + whole.n, &cp);
            if (!chat_is_space(cp)) continue;
            at = from, n = k;
            break;
        }
        chat_work(c, (at == SIZE_MAX ? whole.n : right ? whole.n - at : at)
            >> 2);
    }
    *s = none;
    if (at == SIZE_MAX) return whole;
    *s = right ? chat_cut(whole, 0, at) : chat_cut(whole, at + n, whole.n);
    if (space) *s = chat_strip(*s, none, !right, right);
    if (space && !s->n) *s = none;
    return right ? chat_cut(whole, at + n, whole.n) : chat_cut(whole, 0, at);
}

CHAT_RARE chat_val chat_m_split(chat_ctx *c, const chat_args *a) {
    bool right = a->how;
    chat_val s = a->v[0], by = a->v[1], none = {0};
    i64 max = chat_num(c, a, 2, -1);
    chat_list l = {0};
    bool space = by.type == CHAT_UNSET || by.type == CHAT_NONE;
    if (!space && (!chat_wants_text(c, by) || !by.n))
        return CHAT_RAISE(c, "split wants a text of one character or more");
    if (space) s = chat_strip(s, none, !right, right);
    if (space && !s.n) s = none;
    while (s.type == CHAT_STR && chat_work(c, 1)) {
        if (max >= 0 && l.n >= max) {
            chat_append(c, &l, s);
            break;
        }
        chat_val part = chat_split_one(c, &s, by, right);
        chat_append(c, &l, part);
    }
    chat_val v = chat_listed(l);
    if (space && max >= 0 && v.n > max && !c->status) {
        /* what was not split keeps the white space on its far side only */
        chat_val *rest = &l.v[v.n - 1];
        *rest = chat_strip(*rest, none, !right, right);
    }
    return right ? chat_slice(c, v, none, none, chat_int(-1)) : v;
}

CHAT_RARE chat_val chat_m_partition(chat_ctx *c, const chat_args *a) {
    bool last = a->how;
    chat_val s = a->v[0], by = a->v[1];
    chat_list l = {0};
    if (!chat_wants_text(c, by) || !by.n)
        return CHAT_RAISE(c, "partition wants a text of one character or more");
    size_t at = last ? chat_find_last(c, s, by) : chat_find(c, s, by, 0);
    size_t end = at == SIZE_MAX ? 0 : at + by.n;
    if (at == SIZE_MAX) at = last ? 0 : (end = s.n);
    chat_append(c, &l, chat_cut(s, 0, at));
    chat_append(c, &l, chat_cut(s, at, end));
    chat_append(c, &l, chat_cut(s, end, s.n));
    return chat_tuple_of(l);
}

/* Whether a character is of a kind: d digit, a letter, n letter or number, s
 * space. */
static bool chat_is_kind(chat_ctx *c, u32 cp, char kind) {
    txt_class k = txt_class_of(cp);
    bool letter = k == TXT_LETTER || k == TXT_UPPER || k == TXT_LOWER;
    if (kind == 's') return chat_is_space(cp);
    if (kind != 'd') return letter || (kind == 'n' && k == TXT_NUMBER);
    if (k == TXT_NUMBER && cp >= 0x80) chat_refuse(c, "a digit beyond ASCII");
    return cp - '0' < 10;
}

CHAT_RARE chat_val chat_m_is(chat_ctx *c, const chat_args *a) {
    chat_val s = a->v[0];
    char kind = (char)a->how;
    bool all = s.n;
    if (!chat_work(c, s.n >> 2)) return s;
    for (u32 i = 0, cp; i < s.n && all && !c->status;) {
        i += chat_next(s.u.s + i, s.u.s + s.n, &cp);
        all = chat_is_kind(c, cp, kind);
    }
    return chat_bool(all);
}

/* isupper, islower */
CHAT_RARE chat_val chat_m_is_cased(chat_ctx *c, const chat_args *a) {
    chat_val s = chat_to_str(c, a->v[0]);
    bool some = false;
    if (!chat_work(c, s.n >> 1)) return s;
    for (u32 i = 0, cp; i < s.n && !c->status;) {
        i += chat_next(s.u.s + i, s.u.s + s.n, &cp);
        txt_class k = chat_case_of(c, cp);
        if (k && k != (txt_class)a->how) return chat_bool(false);
        some |= k != 0;
    }
    return chat_bool(some);
}

CHAT_RARE chat_val chat_m_splitlines(chat_ctx *c, const chat_args *a) {
    return chat_lines_of(c, a->v[0], chat_num(c, a, 1, 0) != 0);
}

CHAT_RARE chat_val chat_list_index(chat_ctx *c, const chat_args *a) {
    chat_val v = a->v[0];
    if (!chat_no_bounds(c, a, 2)) return v;
    for (u32 i = 0; i < v.n && chat_work(c, 1); i++)
        if (chat_eq(c, v.u.v[i], a->v[1], 0)) return chat_int(i);
    return CHAT_RAISE(c, "index: not found");
}

CHAT_RARE chat_val chat_list_count(chat_ctx *c, const chat_args *a) {
    i64 n = 0;
    for (u32 i = 0; i < a->v[0].n && chat_work(c, 1); i++)
        n += chat_eq(c, a->v[0].u.v[i], a->v[1], 0);
    return chat_int(n);
}

CHAT_RARE chat_val chat_m_cycle(chat_ctx *c, const chat_args *a) {
    u32 n = a->n - 1;
    if (!n) return CHAT_RAISE(c, "cycle of nothing");
    return a->v[1 + (a->v[0].u.loop->i - 1) % n];
}

/* The arguments of a function as a tuple. */
CHAT_RARE chat_val chat_given_all(chat_ctx *c, const chat_args *a) {
    chat_list l = {0};
    for (u32 i = 1; i < a->n; i++) chat_append(c, &l, a->v[i]);
    if (a->n_kw) CHAT_RAISE(c, "no parameter of that name");
    return chat_tuple_of(l);
}

CHAT_RARE chat_val chat_m_changed(chat_ctx *c, const chat_args *a) {
    chat_val now = chat_given_all(c, a), *was = &a->v[0].u.loop->changed;
    bool same = was->type == CHAT_TUPLE && chat_eq(c, *was, now, 0);
    *was = now;
    return chat_bool(!same);
}

CHAT_FN(m_copy, v)
CHAT_FN(m_replace, chat_replace(c, v, a->v[1], a->v[2], chat_num(c, a, 3, -1)))
CHAT_FN(m_side, chat_side(c, v, a->how))

/* ---- tests ---- */

/* `is` of Python: sure for what there is one of, and for what is not equal. */
static bool chat_same(chat_ctx *c, chat_val a, chat_val b) {
    if (a.type != b.type || a.type == CHAT_UNDEF || !chat_eq(c, a, b, 0))
        return false;
    if (a.type != CHAT_NONE && a.type != CHAT_BOOL) chat_refuse(c, "sameas");
    return true;
}

static bool chat_names(chat_ctx *c, u32 kind, chat_val v) {
    return chat_is_key(c, v) && v.type == CHAT_STR && c->below->find(kind, v);
}

/* how: 1 << type for the types that pass, CHAT_ARRAYS: of lists only those that
 * are no views. */
#define CHAT_ARRAYS (1u << 31)
#define CHAT_BITS_INT (1u << CHAT_INT | 1u << CHAT_BIG)
#define CHAT_BITS_NUMBER (CHAT_BITS_INT | 1u << CHAT_BOOL | 1u << CHAT_FLOAT)
#define CHAT_BITS_CALL (1u << CHAT_LOOP | 1u << CHAT_FUNC | 1u << CHAT_MACRO   \
    | 1u << CHAT_METHOD | 1u << CHAT_UNDEF)
#define CHAT_BITS_ITEMS (1u << CHAT_STR | 1u << CHAT_LIST | 1u << CHAT_TUPLE   \
    | 1u << CHAT_DICT | 1u << CHAT_RANGE | 1u << CHAT_UNDEF)

CHAT_FN(t_type, chat_bool(a->how >> v.type & 1
    && (!(a->how & CHAT_ARRAYS) || v.type != CHAT_LIST || !v.flag)))
CHAT_FN(t_bool, chat_bool(v.type == CHAT_BOOL && v.u.i == (i64)a->how))
CHAT_FN(t_compare, chat_bool(chat_compare(c, a->how, v, a->v[1])))
CHAT_FN(t_divisibleby, chat_bool(chat_eq(c, chat_binary(c, '%', v,
    chat_has(a, 1) ? a->v[1] : chat_int(2)), chat_int(a->how), 0)))
CHAT_FN(t_escaped, chat_bool(v.type == CHAT_STR && v.flag & CHAT_MARKUP))
CHAT_FN(t_filter, chat_bool(chat_names(c, a->how, v)))
CHAT_FN(t_sameas, chat_bool(chat_same(c, v, a->v[1])))

/* ---- global functions ---- */

CHAT_RARE chat_val chat_g_raise(chat_ctx *c, const chat_args *a) {
    chat_val s = chat_to_str(c, a->v[1]);
    return CHAT_RAISE(c, "the template refuses: %.*s", chat_clip(s, 400),
        (const char *)s.u.s);
}

CHAT_RARE chat_val chat_g_range(chat_ctx *c, const chat_args *a) {
    bool two = chat_has(a, 2);
    i64 from = two ? chat_num(c, a, 1, 0) : 0;
    i64 to = chat_num(c, a, two ? 2 : 1, 0);
    i64 by = chat_num(c, a, 3, 1);
    if (!chat_is_int(a->v[1]) || (two && !chat_is_int(a->v[2]))
        || (chat_has(a, 3) && !chat_is_int(a->v[3])) || !by)
        return CHAT_RAISE(c, "range wants integers");
    u64 gap = by > 0 ? (u64)to - (u64)from : (u64)from - (u64)to;
    u64 step = by > 0 ? (u64)by : 0 - (u64)by;
    u64 n = (by > 0 ? from < to : from > to) ? (gap - 1) / step + 1 : 0;
    if (n > 100000) return CHAT_RAISE(c, "a range is too large");
    return chat_range_of(c, from, to, by, (u32)n);
}

/* Pairs of an optional mapping and of the named arguments. */
CHAT_RARE chat_list chat_gather(chat_ctx *c, const chat_args *a, bool space) {
    chat_list l = {0};
    chat_val v = a->n > 1 ? a->v[1] : (chat_val){0};
    if (a->n > 2) CHAT_RAISE(c, "dict of more than one mapping");
    if (a->n > 1 && v.type == CHAT_UNDEF) CHAT_RAISE(c, "dict of nothing");
    if (v.type == CHAT_DICT) v = chat_side(c, v, 2);
    else v = chat_iter(c, v);
    for (u32 i = 0; i < v.n && chat_work(c, 1); i++) {
        chat_val pair = chat_iter(c, v.u.v[i]);
        if (pair.n == 2) chat_set(c, &l, pair.u.v[0], pair.u.v[1]);
        else CHAT_RAISE(c, "dict of what are no pairs");
    }
    for (u32 i = 0; i < a->n_kw; i++)
        chat_set(c, &l, a->kw[2 * i], a->kw[2 * i + 1]);
    for (u32 i = 0; space && i < l.n; i += 2)
        if (l.v[i].type == CHAT_STR && l.v[i].n && l.v[i].u.s[0] == '_')
            CHAT_RAISE(c, "an attribute that begins with _");
    return l;
}

static chat_val chat_namespace_of(chat_ctx *c, chat_list pairs) {
    chat_namespace *s = chat_alloc(c, sizeof *s);
    if (!s) return (chat_val){0};
    s->pairs = pairs;
    return (chat_val){.type = CHAT_NAMESPACE, .u.names = s};
}

CHAT_FN(g_dict, chat_dict(chat_gather(c, a, false)))
CHAT_FN(g_namespace, chat_namespace_of(c, chat_gather(c, a, true)))

/* Days from 1970 to the first day of a year, 1970 or later. */
static i64 chat_year_days(i64 y) {
    i64 k = y - 1;
    return (y - 1970) * 365 + (k - 1968) / 4 - (k - 1900) / 100
        + (k - 1600) / 400;
}

/* Days since 1970-01-01 to year, month (0..11), day (1..31), day of year. */
CHAT_RARE void chat_date(i64 days, i64 *y, i32 *m, i32 *d, i32 *yday) {
    static const i32 before[] =
        {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    for (*y = 1970 + days / 366; days >= chat_year_days(*y + 1);) ++*y;
    *yday = (i32)(days - chat_year_days(*y));
    bool leap = (*y % 4 == 0 && *y % 100 != 0) || *y % 400 == 0;
    for (*m = 11; *m > 0; --*m)
        if (*yday >= before[*m] + (leap && *m > 1)) break;
    *d = *yday - before[*m] - (leap && *m > 1) + 1;
}

static const char *const CHAT_DAYS[] = {"Sunday", "Monday", "Tuesday",
    "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const CHAT_MONTHS[] = {"January", "February", "March",
    "April", "May", "June", "July", "August", "September", "October",
    "November", "December"};

typedef struct chat_time {
    i64 y;
    i32 mon, d, yday, wday, hour, min, s;
} chat_time;

CHAT_RARE chat_time chat_time_of(i64 now) {
    i64 days = now / 86400;
    i32 s = (i32)(now % 86400);
    chat_time t = {.wday = (i32)((days + 4) % 7), .hour = s / 3600,
        .min = s / 60 % 60, .s = s % 60};
    chat_date(days, &t.y, &t.mon, &t.d, &t.yday);
    return t;
}


/* One letter of strftime in the C locale; `bare`: after a -, without a fill. */
CHAT_RARE void chat_put_time(
    chat_ctx *c, chat_text *t, const chat_time *at, u8 kind, bool bare) {
    const char *day = CHAT_DAYS[at->wday], *month = CHAT_MONTHS[at->mon];
    const struct { char kind, fill; i32 width, n; } rows[] = {
        {'Y', '0', 1, (i32)at->y}, {'y', '0', 2, (i32)(at->y % 100)},
        {'m', '0', 2, at->mon + 1}, {'d', '0', 2, at->d},
        {'e', ' ', 2, at->d}, {'H', '0', 2, at->hour},
        {'I', '0', 2, at->hour % 12 ? at->hour % 12 : 12},
        {'M', '0', 2, at->min}, {'S', '0', 2, at->s},
        {'j', '0', 3, at->yday + 1}};
    for (u32 i = 0; i < KS_LEN(rows); i++)
        if (rows[i].kind == (char)kind) {
            chat_putf(c, t, rows[i].fill == '0' ? "%0*d" : "%*d",
                bare ? 0 : rows[i].width, rows[i].n);
            return;
        }
    switch (bare ? 0 : kind) {
    case 'A': chat_putz(c, t, day); break;
    case 'B': chat_putz(c, t, month); break;
    case 'a': chat_put(c, t, day, 3, NULL); break;
    case 'b': chat_put(c, t, month, 3, NULL); break;
    case 'p': chat_putz(c, t, at->hour < 12 ? "AM" : "PM"); break;
    case '%': chat_putz(c, t, "%"); break;
    default: chat_refuse(c, "strftime_now with this letter");
    }
}

/* A format of strftime; %F and %T stand for other ones. */
CHAT_RARE void chat_put_times(
    chat_ctx *c, chat_text *t, const chat_time *at, chat_val s) {
    for (u32 i = 0; i < s.n && chat_work(c, 1); i++) {
        u8 kind = i + 1 < s.n ? s.u.s[i + 1] : 0;
        if (s.u.s[i] != '%') {
            chat_puts(c, t, chat_cut(s, i, i + 1));
            continue;
        }
        bool bare = kind == '-';
        i += bare ? 2 : 1;
        if (bare) kind = i < s.n ? s.u.s[i] : 0;
        if (!bare && (kind == 'F' || kind == 'T'))
            chat_put_times(c, t, at,
                chat_strz(kind == 'F' ? "%Y-%m-%d" : "%H:%M:%S"));
        else chat_put_time(c, t, at, kind, bare);
    }
}

CHAT_RARE chat_val chat_g_strftime(chat_ctx *c, const chat_args *a) {
    chat_text t = {0};
    chat_val s = a->v[1];
    chat_time at = chat_time_of(c->now);
    if (chat_wants_text(c, s)) chat_put_times(c, &t, &at, s);
    return chat_built(&t);
}

static const chat_builtin CHAT_BUILTINS[] = {
#define F CHAT_IS_FILTER
    {"abs", "/", chat_f_abs, 0, F},
    {"attr", "name", chat_f_attr, 0, F},
    {"capitalize", "", chat_f_case, 'c', F},
    {"default d", ";default_value,boolean", chat_f_default, 0, F},
    {"dictsort", ";case_sensitive,by,reverse", chat_f_dictsort, 0, F},
    {"escape e", "/", chat_f_escape, 0, F},
    {"first", "", chat_f_first, 0, F},
    {"float", ";default", chat_f_float, 0, F},
    {"forceescape", "", chat_f_forceescape, 0, F},
    {"indent", ";width,first,blank", chat_f_indent, 0, F},
    {"int", ";default,base", chat_f_int, 0, F},
    {"items", "", chat_f_items, 0, F},
    {"join", ";d,attribute", chat_f_join, 0, F},
    {"last", "", chat_f_last, 0, F},
    {"length count", "/", chat_f_length, 0, F},
    {"list", "", chat_f_list, 0, F},
    {"lower", "", chat_f_case, 'l', F},
    {"map", "*", chat_f_map, 0, F},
    {"max", ";case_sensitive,attribute", chat_f_max, 1, F},
    {"min", ";case_sensitive,attribute", chat_f_max, 0, F},
    {"reject", "*", chat_f_select, 0, F},
    {"rejectattr", "*", chat_f_select, 2, F},
    {"replace", "old,new;count", chat_f_replace, 0, F},
    {"reverse", "", chat_f_reverse, 0, F},
    {"round", ";precision,method", chat_f_round, 0, F},
    {"safe", "", chat_f_safe, 0, F},
    {"select", "*", chat_f_select, 1, F},
    {"selectattr", "*", chat_f_select, 3, F},
    {"sort", ";reverse,case_sensitive,attribute", chat_f_sort, 0, F},
    {"string", "/", chat_f_string, 0, F},
    {"sum", ";attribute,start", chat_f_sum, 0, F},
    {"title", "", chat_f_case, 'w', F},
    {"tojson", ";ensure_ascii,indent,separators,sort_keys", chat_f_tojson, 0,
        F},
    {"trim", ";chars", chat_f_trim, 3, F},
    {"unique", ";case_sensitive,attribute", chat_f_unique, 0, F},
    {"upper", "", chat_f_case, 'u', F},
#undef F
#define T CHAT_IS_TEST
    {"boolean", "", chat_t_type, 1u << CHAT_BOOL, T},
    {"callable", "/", chat_t_type, CHAT_BITS_CALL, T},
    {"defined", "", chat_t_type, ~(1u << CHAT_UNDEF) & ~CHAT_ARRAYS, T},
    {"divisibleby", "num", chat_t_divisibleby, 0, T},
    {"eq equalto ==", "/other", chat_t_compare, 3, T},
    {"ne !=", "/other", chat_t_compare, 4, T},
    {"lt lessthan <", "/other", chat_t_compare, 1, T},
    {"gt greaterthan >", "/other", chat_t_compare, 2, T},
    {"le <=", "/other", chat_t_compare, 5, T},
    {"ge >=", "/other", chat_t_compare, 6, T},
    {"in", "seq", chat_t_compare, 7, T},
    {"escaped", "", chat_t_escaped, 0, T},
    {"even", "", chat_t_divisibleby, 0, T},
    {"false", "", chat_t_bool, 0, T},
    {"filter", "", chat_t_filter, CHAT_IS_FILTER, T},
    {"float", "", chat_t_type, 1u << CHAT_FLOAT, T},
    {"integer", "", chat_t_type, CHAT_BITS_INT, T},
    {"iterable", "", chat_t_type, CHAT_BITS_ITEMS | 1u << CHAT_LOOP, T},
    {"lower", "", chat_m_is_cased, TXT_LOWER, T},
    {"mapping", "", chat_t_type, 1u << CHAT_DICT, T},
    {"none", "", chat_t_type, 1u << CHAT_NONE, T},
    {"number", "", chat_t_type, CHAT_BITS_NUMBER, T},
    {"odd", "", chat_t_divisibleby, 1, T},
    {"sameas", "other", chat_t_sameas, 0, T},
    {"sequence", "", chat_t_type, CHAT_BITS_ITEMS | CHAT_ARRAYS, T},
    {"string", "", chat_t_type, 1u << CHAT_STR, T},
    {"test", "", chat_t_filter, CHAT_IS_TEST, T},
    {"true", "", chat_t_bool, 1, T},
    {"undefined", "", chat_t_type, 1u << CHAT_UNDEF, T},
    {"upper", "", chat_m_is_cased, TXT_UPPER, T},
#undef T
#define G CHAT_IS_GLOBAL
    {"dict", "*", chat_g_dict, 0, G},
    {"namespace", "*", chat_g_namespace, 0, G},
    {"raise_exception", "message", chat_g_raise, 0, G},
    {"range", "/start;stop,step", chat_g_range, 0, G},
    {"strftime_now", "format", chat_g_strftime, 0, G},
#undef G
#define S CHAT_IS_STR
    {"capitalize", "/", chat_f_case, 'c', S},
    {"count", "/sub;start,end", chat_m_count, 0, S},
    {"endswith", "/suffix;start,end", chat_m_startswith, 1, S},
    {"find", "/sub;start,end", chat_m_find, 0, S},
    {"format", "*", chat_m_format, 0, S},
    {"index", "/sub;start,end", chat_m_find, 2, S},
    {"isalnum", "/", chat_m_is, 'n', S},
    {"isalpha", "/", chat_m_is, 'a', S},
    {"isdigit", "/", chat_m_is, 'd', S},
    {"islower", "/", chat_m_is_cased, TXT_LOWER, S},
    {"isspace", "/", chat_m_is, 's', S},
    {"isupper", "/", chat_m_is_cased, TXT_UPPER, S},
    {"join", "/iterable", chat_m_join, 0, S},
    {"lower", "/", chat_f_case, 'l', S},
    {"lstrip", "/;chars", chat_f_trim, 1, S},
    {"partition", "/sep", chat_m_partition, 0, S},
    {"removeprefix", "/prefix", chat_m_removeprefix, 0, S},
    {"removesuffix", "/suffix", chat_m_removeprefix, 1, S},
    {"replace", "/old,new;count", chat_m_replace, 0, S},
    {"rfind", "/sub;start,end", chat_m_find, 1, S},
    {"rindex", "/sub;start,end", chat_m_find, 3, S},
    {"rpartition", "/sep", chat_m_partition, 1, S},
    {"rsplit", ";sep,maxsplit", chat_m_split, 1, S},
    {"rstrip", "/;chars", chat_f_trim, 2, S},
    {"split", ";sep,maxsplit", chat_m_split, 0, S},
    {"splitlines", ";keepends", chat_m_splitlines, 0, S},
    {"startswith", "/prefix;start,end", chat_m_startswith, 0, S},
    {"strip", "/;chars", chat_f_trim, 3, S},
    {"title", "/", chat_f_case, 't', S},
    {"upper", "/", chat_f_case, 'u', S},
#undef S
#define L CHAT_IS_LIST
    {"count", "/value", chat_list_count, 0, L},
    {"index", "/value;start,stop", chat_list_index, 0, L},
#undef L
#define D CHAT_IS_DICT
    {"copy", "/", chat_m_copy, 0, D},
    {"get", "/key;default", chat_dict_get, 0, D},
    {"items", "/", chat_m_side, 2, D},
    {"keys", "/", chat_m_side, 0, D},
    {"values", "/", chat_m_side, 1, D},
#undef D
#define L CHAT_IS_LOOP
    {"changed", "*", chat_m_changed, 0, L},
    {"cycle", "*", chat_m_cycle, 0, L},
#undef L
};

static const chat_builtin *chat_find_builtin(u32 kind, chat_val name) {
    for (u32 i = 0; i < KS_LEN(CHAT_BUILTINS); i++)
        if (CHAT_BUILTINS[i].kind == kind
            && chat_is_among(name, CHAT_BUILTINS[i].name))
            return &CHAT_BUILTINS[i];
    return NULL;
}

/* ---- expressions ---- */

/* Not to be inlined into what recurses: its frame would be on the stack once
 * for each level. */
#define CHAT_APART __attribute__((noinline)) static

/* What runs often gives its value through a pointer: copies of copies of a
 * chat_val cost more than the work. */
static chat_val chat_expr(chat_ctx *c) {
    chat_val v;
    c->below->expr(c, &v);
    return v;
}

CHAT_COLD void chat_syntax(chat_ctx *c, const char *why) {
    chat_token *t = c->t;
    c->line = t->line;
    if (t->type == CHAT_T_NAME)
        chat_fail(c, KSLLM_ERR_FORMAT, "%s at '%.*s'", why,
            chat_clip(t->v, 60), (const char *)t->v.u.s);
    else if (t->type == CHAT_T_OP)
        chat_fail(c, KSLLM_ERR_FORMAT, "%s at '%c'", why, (char)t->v.u.i);
    else chat_fail(c, KSLLM_ERR_FORMAT, "%s", why);
}

/* One level of C stack more; true when there is one. */
static bool chat_deeper(chat_ctx *c) {
    if (++c->depth > CHAT_NEST)
        chat_fail(c, KSLLM_ERR_FORMAT,
            "expressions or macros are too deep in each other");
    return !c->status;
}

static bool chat_op_at(chat_token *t, i64 op) {
    return t->type == CHAT_T_OP && t->v.u.i == op;
}

static bool chat_sees(const chat_ctx *c, i64 op) {
    return chat_op_at(c->t, op);
}

static bool chat_sees_name(const chat_ctx *c, u32 name) {
    return c->t->type == CHAT_T_NAME && c->t->name == name;
}

static void chat_step(chat_ctx *c) {
    c->line = c->t->line;
    if (c->t->type != CHAT_T_END) c->t++;
}

static bool chat_accept(chat_ctx *c, i64 op) {
    bool sees = chat_sees(c, op);
    if (sees) chat_step(c);
    return sees;
}

static bool chat_accept_name(chat_ctx *c, u32 name) {
    bool sees = chat_sees_name(c, name);
    if (sees) chat_step(c);
    return sees;
}

static void chat_expect(chat_ctx *c, char op) {
    char why[] = "expected 'x'";
    why[10] = op;
    if (!chat_accept(c, op)) chat_syntax(c, why);
}

static chat_token *chat_take_name(chat_ctx *c) {
    chat_token *t = c->t;
    if (t->type != CHAT_T_NAME) chat_syntax(c, "expected a name");
    chat_step(c);
    return t;
}

static u32 chat_here(const chat_ctx *c) { return (u32)(c->t - c->tokens); }

static void chat_jump(chat_ctx *c, u32 to) { c->t = &c->tokens[to]; }

static void chat_assign(chat_ctx *c, chat_scope *s, u32 name, chat_val v) {
    if (!chat_work(c, s->n >> 3)) return;
    for (u32 i = 0; i < s->n; i++)
        if (s->v[i].name == name) {
            s->v[i].v = v;
            return;
        }
    if (chat_reserve(c, &s->v, s->n, &s->cap, sizeof *s->v))
        s->v[s->n++] = (chat_var){name, v};
}

static chat_val *chat_seek(chat_ctx *c, u32 name) {
    for (chat_scope *s = c->scope; s && chat_work(c, s->n >> 3); s = s->parent)
        for (u32 i = 0; i < s->n; i++)
            if (s->v[i].name == name) return &s->v[i].v;
    return NULL;
}

static chat_val chat_lookup(chat_ctx *c, u32 name) {
    chat_val *v = chat_seek(c, name), none = {0};
    if (v) return v->type == CHAT_UNSET ? none : *v;
    u32 row = c->names[name].rows[CHAT_IS_GLOBAL];
    if (!row && chat_is_refused(CHAT_IS_GLOBAL, c->names[name].text))
        return chat_refuse_name(c, c->names[name].text);
    if (!row) return none;
    return (chat_val){.type = CHAT_FUNC, .u.func = c->below->rows + row - 1};
}

CHAT_APART void chat_named_value(chat_ctx *c, chat_val *v) {
    chat_token *t = c->t;
    chat_step(c);
    switch (t->name) {
    case CHAT_W_TRUE: case CHAT_W_TRUE2: *v = chat_bool(true); return;
    case CHAT_W_FALSE: case CHAT_W_FALSE2: *v = chat_bool(false); return;
    case CHAT_W_NULL: case CHAT_W_NULL2: *v = chat_none(); return;
    default: break;
    }
    if (!c->check) *v = chat_lookup(c, t->name);
    /* A loop that is handed on may outlive its block. */
    if (v->type == CHAT_LOOP && !chat_sees(c, '.'))
        v->u.loop->scope.pinned = true;
}

/* Whether a tuple without parentheses, or in them, ends here. */
static bool chat_tuple_ends(const chat_ctx *c) {
    return c->t->type == CHAT_T_VAR_END || c->t->type == CHAT_T_TAG_END
        || chat_sees(c, ')');
}

/* *v, and what follows it after commas, as a tuple. */
CHAT_APART void chat_rest_of_tuple(chat_ctx *c, chat_val *v) {
    chat_list l = {0};
    chat_append(c, &l, *v);
    while (!c->status && chat_accept(c, ','))
        if (!chat_tuple_ends(c)) chat_append(c, &l, chat_expr(c));
        else break;
    *v = chat_listed(l);
    v->type = CHAT_TUPLE;
}

/* `a` or `a, b`: one value or a tuple. */
static void chat_tuple(chat_ctx *c, chat_val *v) {
    c->below->expr(c, v);
    if (chat_sees(c, ',')) chat_rest_of_tuple(c, v);
}

static void chat_parens(chat_ctx *c, chat_val *v) {
    *v = (chat_val){.type = CHAT_TUPLE};
    if (!chat_sees(c, ')')) chat_tuple(c, v);
    chat_expect(c, ')');
}

CHAT_APART chat_val chat_brackets(chat_ctx *c) {
    chat_list l = {0};
    while (!c->status && !chat_accept(c, ']')) {
        if (l.n) {
            chat_expect(c, ',');
            if (chat_accept(c, ']')) break;
        }
        chat_append(c, &l, chat_expr(c));
    }
    return chat_listed(l);
}

CHAT_APART chat_val chat_braces(chat_ctx *c) {
    chat_list l = {0};
    for (bool more = false; !c->status && !chat_accept(c, '}'); more = true) {
        if (more) {
            chat_expect(c, ',');
            if (chat_accept(c, '}')) break;
        }
        chat_val key = chat_expr(c);
        chat_expect(c, ':');
        chat_val v = chat_expr(c);
        if (key.type == CHAT_LIST || key.type == CHAT_DICT)
            CHAT_RAISE(c, "%s is no key", chat_type_name(key));
        if (!c->check) chat_set(c, &l, key, v);
    }
    return chat_dict(l);
}

static void chat_primary(chat_ctx *c, chat_val *v) {
    *v = (chat_val){0};
    if (!chat_work(c, 1)) return;
    switch (c->t->type) {
    case CHAT_T_NAME: chat_named_value(c, v); return;
    case CHAT_T_TEXT: case CHAT_T_NUMBER:
        *v = c->t->v;
        chat_step(c);
        return;
    default: break;
    }
    if (chat_accept(c, '(')) { chat_parens(c, v); return; }
    if (chat_accept(c, '[')) *v = chat_brackets(c);
    else if (chat_accept(c, '{')) *v = chat_braces(c);
    else chat_syntax(c, "expected an expression");
}

/* ---- calls ---- */

/* An argument for the call that is being made. */
static void chat_give(chat_ctx *c, chat_list *to, chat_val v) {
    if (to->n < to->cap) to->v[to->n++] = v;
    else chat_fail(c, KSLLM_ERR_FORMAT, "too many arguments");
}

/* name=value; `from`: where the names of this call begin. */
CHAT_APART void chat_give_named(
    chat_ctx *c, u32 from, chat_val name, chat_val v, bool check) {
    if (name.type != CHAT_STR) CHAT_RAISE(c, "an argument's name is no text");
    for (u32 i = from; i < c->named.n && chat_work(c, 1); i += 2)
        if (chat_eq(c, c->named.v[i], name, 0)) {
            if (check) chat_syntax(c, "an argument is given twice");
            else CHAT_RAISE(c, "an argument is given twice");
        }
    chat_give(c, &c->named, name);
    chat_give(c, &c->named, v);
}

/* *list and **mapping */
CHAT_APART void chat_give_all(chat_ctx *c, chat_val v) {
    v = chat_iter(c, v);
    for (u32 i = 0; i < v.n && !c->status; i++)
        chat_give(c, &c->args, chat_nth(v, i));
}

CHAT_APART void chat_give_pairs(chat_ctx *c, u32 from, chat_val v) {
    if (!c->check && v.type != CHAT_DICT)
        CHAT_RAISE(c, "** of %s", chat_type_name(v));
    for (u32 i = 0; v.type == CHAT_DICT && i < v.n && !c->status; i++)
        chat_give_named(c, from, v.u.v[2 * i], v.u.v[2 * i + 1], false);
}

/* Arguments up to the closing parenthesis, the opening one is taken. */
static void chat_arguments(chat_ctx *c) {
    u32 from = c->named.n;
    bool list = false, pairs = false, named = false;
    c->depth++;             /* they take twice the stack */
    for (bool more = false; !c->status && !chat_accept(c, ')'); more = true) {
        if (more) {
            chat_expect(c, ',');
            if (chat_accept(c, ')')) break;
        }
        if (pairs || (list && chat_sees(c, '*')))
            chat_syntax(c, "an argument after * or ** of that kind");
        if (chat_accept(c, '*')) {
            list = true;
            chat_give_all(c, chat_expr(c));
        } else if (chat_accept(c, CHAT_OP2('*', '*'))) {
            pairs = true;
            chat_give_pairs(c, from, chat_expr(c));
        } else if (c->t->type == CHAT_T_NAME && chat_op_at(c->t + 1, '=')) {
            chat_val name = c->t->v;
            named = true;
            c->t += 2;
            chat_give_named(c, from, name, chat_expr(c), c->check);
        } else {
            if (named || list)
                chat_syntax(c, "a positional argument after a named one");
            chat_give(c, &c->args, chat_expr(c));
        }
    }
    c->depth--;
}

static chat_scope *chat_scope_in(chat_ctx *c, chat_scope *parent) {
    chat_scope *s = c->free_scopes;
    if (s) c->free_scopes = s->parent;
    else s = chat_alloc(c, sizeof *s);
    if (s) s->parent = parent, s->n = 0, s->pinned = false;
    return s;
}

static void chat_scope_out(chat_ctx *c, chat_scope *s) {
    if (s->pinned) return;
    s->parent = c->free_scopes;
    c->free_scopes = s;
}

static chat_text *chat_sink(chat_ctx *c) { return &c->sinks[c->n_sinks - 1]; }

static void chat_sink_in(chat_ctx *c) {
    if (c->n_sinks == CHAT_BLOCKS) {
        chat_fail(c, KSLLM_ERR_FORMAT, "blocks are too deep in each other");
        return;
    }
    chat_text *t = &c->sinks[c->n_sinks++];
    t->n = 0;
    t->data = t->plain = false;
}

/* What was written since chat_sink_in, as a value. */
static chat_val chat_sink_out(chat_ctx *c) {
    chat_text copy = {0}, *t = chat_sink(c);
    chat_puts(c, &copy, chat_built(t));
    c->n_sinks--;
    return chat_built(&copy);
}

/* Takes the argument of this name out of those given; UNSET when none. */
static chat_val chat_take_named(chat_ctx *c, chat_args *a, chat_val name) {
    for (u32 i = 0; i < a->n_kw && chat_work(c, 1); i++) {
        chat_val *key = &a->kw[2 * i];
        if (key->type != CHAT_STR || !chat_eq(c, *key, name, 0)) continue;
        key->type = CHAT_UNSET;
        return key[1];
    }
    return (chat_val){.type = CHAT_UNSET};
}

/* Parameters from what is given; UNSET for what is not. */
static void chat_bind(
    chat_ctx *c, const chat_macro *m, chat_scope *s, chat_args *a) {
    chat_token *p = chat_first_param(m);
    u32 n = 1;
    for (; p && !c->status; p = chat_next_param(c, p), n++)
        chat_assign(c, s, p->name, n < a->n ? a->v[n]
            : chat_take_named(c, a, p->v));
    if (a->n > n) CHAT_RAISE(c, "too many macro arguments");
    for (u32 i = 0; i < a->n_kw; i++)
        if (a->kw[2 * i].type != CHAT_UNSET)
            CHAT_RAISE(c, "the macro has no such parameter");
}

/* Defaults, which see the parameters before them. */
static void chat_bind_defaults(chat_ctx *c, const chat_macro *m) {
    chat_token *p = chat_first_param(m);
    for (; p && !c->status; p = chat_next_param(c, p)) {
        chat_val *v = chat_seek(c, p->name);
        if (!v || v->type != CHAT_UNSET || !p->link) continue;
        c->t = p + 2;
        chat_assign(c, c->scope, p->name, chat_expr(c));
    }
}

/* Where the contents of the block at a tag begin: at the end of the tag. */
static void chat_to_end_of_tag(chat_ctx *c, chat_token *t) {
    while (t->type != CHAT_T_TAG_END) t++;
    c->t = t;
}

CHAT_APART chat_val chat_call_macro(
    chat_ctx *c, const chat_macro *m, chat_args *a) {
    chat_token *back = c->t;
    chat_scope *outside = c->scope, *s = chat_scope_in(c, m->scope);
    chat_val v = {0};
    if (chat_deeper(c)) {
        chat_bind(c, m, s, a);
        c->scope = s;
        chat_bind_defaults(c, m);
        chat_sink_in(c);
        chat_to_end_of_tag(c, m->tag);
        c->t++;
        if (!c->status) c->below->body(c);
        if (!c->status) v = chat_sink_out(c);
        chat_scope_out(c, s);
    }
    c->depth--;
    c->scope = outside;
    c->t = back;
    return v;
}

/* ---- targets and loops ---- */

static void chat_set_attr(
    chat_ctx *c, chat_token *t, chat_val key, chat_val v) {
    chat_val space = chat_lookup(c, t->name);
    if (space.type != CHAT_NAMESPACE)
        CHAT_RAISE(c, "cannot set an attribute of %s", chat_type_name(space));
    else if (key.n && key.u.s[0] == '_')
        CHAT_RAISE(c, "an attribute that begins with _");
    else chat_set(c, &space.u.names->pairs, key, v);
}

/* Stores to the name here, and goes past it; v == NULL only goes past. */
static void chat_target(
    chat_ctx *c, chat_scope *s, const chat_val *v, bool attr) {
    chat_token *t = chat_take_name(c);
    if (c->check && t->name >= CHAT_W_TRUE && t->name <= CHAT_W_NULL2)
        chat_syntax(c, "a constant cannot be set");
    for (u32 i = 0; c->check && t->name == CHAT_W_LOOP && i < c->n_frames; i++)
        if (c->frames[i].tag->name == CHAT_W_FOR && !chat_sees(c, '.'))
            chat_syntax(c, "the name 'loop' cannot be set in a loop");
    if (attr && chat_accept(c, '.')) {
        chat_val key = chat_take_name(c)->v;
        if (v) chat_set_attr(c, t, key, *v);
        return;
    }
    if (v) chat_assign(c, s, t->name, *v);
}

/* The same for `a`, `a, b` or `(a, (b, c))`; how many there are. */
static u32 chat_targets(chat_ctx *c, chat_scope *s, const chat_val *v,
    bool attr, bool *tuple) {
    u32 n = 0;
    chat_token *from = c->t;
    chat_val in = {0}, one;
    *tuple = chat_sees(c, ')');
    if (v) {
        u32 want = chat_targets(c, s, NULL, attr, tuple);
        c->t = from;
        if (*tuple) in = chat_iter(c, *v);
        if (*tuple && in.n != want)
            CHAT_RAISE(c, "%u values for %u names", in.n, want);
    }
    do {
        if (c->status || chat_sees(c, ')')
            || (n && c->t->type == CHAT_T_TAG_END)) break;
        if (v) one = *tuple ? in.u.v[n] : *v;
        if (chat_accept(c, '(')) {
            bool inner;
            if (chat_deeper(c))
                chat_targets(c, s, v ? &one : NULL, false, &inner);
            c->depth--;
            chat_expect(c, ')');
        } else {
            chat_target(c, s, v ? &one : NULL, attr);
        }
        n++;
        *tuple = *tuple || chat_sees(c, ',');
    } while (!c->status && chat_accept(c, ','));
    return n;
}

static void chat_store(chat_ctx *c, chat_scope *s, const chat_val *v,
    bool attr) {
    bool tuple;
    if (v && c->t->type == CHAT_T_NAME && c->t[1].type != CHAT_T_OP) {
        chat_assign(c, s, c->t->name, *v);
        chat_step(c);
    } else {
        chat_targets(c, s, v, attr, &tuple);
    }
}

static chat_frame *chat_frame_in(
    chat_ctx *c, u32 kind, chat_token *tag) {
    if (c->n_frames == CHAT_BLOCKS) {
        chat_fail(c, KSLLM_ERR_FORMAT, "blocks are too deep in each other");
        return NULL;
    }
    chat_frame *f = &c->frames[c->n_frames++];
    *f = (chat_frame){.kind = (u8)kind, .tag = tag, .last = tag,
        .scope = c->scope};
    return f;
}

static chat_token *chat_link(const chat_ctx *c, chat_token *t) {
    return &c->tokens[t->link];
}

static void chat_loop_out(chat_ctx *c, chat_loop *l) {
    if (l->scope.pinned) return;
    l->next_free = c->free_loops;
    c->free_loops = l;
}

/* The innermost block ends, at this tag. */
static void chat_leave(chat_ctx *c, chat_token *at) {
    chat_frame *f = &c->frames[--c->n_frames];
    if (f->loop) chat_loop_out(c, f->loop);
    else if (c->scope != f->scope) chat_scope_out(c, c->scope);
    c->scope = f->scope;
    chat_to_end_of_tag(c, at);
}

/* After the last turn of a loop: its `else` if no turn reached the end. */
static void chat_loop_ends(chat_ctx *c) {
    chat_frame *f = &c->frames[c->n_frames - 1];
    chat_token *end = chat_link(c, f->tag);
    chat_loop *l = f->loop;
    bool other = end->name == CHAT_W_ELSE;
    if (!other || l->whole) {
        chat_leave(c, other ? chat_link(c, end) : end);
        return;
    }
    chat_loop_out(c, l);
    f->loop = NULL;
    f->kind = CHAT_W_ELSE;
    c->scope = chat_scope_in(c, f->scope);
    chat_to_end_of_tag(c, end);
}

/* The next turn of the innermost block, a loop. */
static void chat_turn(chat_ctx *c) {
    chat_loop *l = c->frames[c->n_frames - 1].loop;
    if (l->i == l->n) {
        chat_loop_ends(c);
        return;
    }
    chat_val v = chat_nth(l->in, l->i++);
    c->scope = &l->scope;
    l->scope.n = 0;
    chat_assign(c, &l->scope, CHAT_W_LOOP,
        (chat_val){.type = CHAT_LOOP, .u.loop = l});
    c->t = l->tag + 1;
    chat_store(c, &l->scope, &v, false);
    c->t = l->body;
}

/* The items for which the condition here holds. */
static chat_val chat_filter_loop(
    chat_ctx *c, chat_token *tag, chat_val in) {
    chat_token *test = c->t;
    chat_list l = {0};
    chat_scope *outside = c->scope, *s = chat_scope_in(c, outside);
    c->scope = s;
    for (u32 i = 0; s && i < in.n && chat_work(c, 1); i++) {
        chat_val v = chat_nth(in, i);
        s->n = 0;
        c->t = tag + 1;
        chat_store(c, s, &v, false);
        c->t = test;
        if (chat_true(chat_expr(c))) chat_append(c, &l, v);
    }
    if (s) chat_scope_out(c, s);
    c->scope = outside;
    return chat_listed(l);
}

/* Begins the loop of a tag over `in`. */
static void chat_loop_in(chat_ctx *c, chat_token *tag, chat_val in) {
    chat_loop *l = c->free_loops;
    if (chat_is_lazy(in)) in = chat_read_lazy(c, in, true);
    else if (in.type != CHAT_RANGE) in = chat_iter(c, in);
    chat_jump(c, tag->cond);
    if (chat_accept_name(c, CHAT_W_IF)) in = chat_filter_loop(c, tag, in);
    if (l) c->free_loops = l->next_free;
    else l = chat_alloc(c, sizeof *l);
    chat_frame *f = chat_frame_in(c, CHAT_W_FOR, tag);
    if (!l || !f) return;
    f->loop = l;
    chat_to_end_of_tag(c, tag);
    *l = (chat_loop){.scope = {c->scope, l->scope.v, 0, l->scope.cap, false},
        .tag = tag, .body = c->t, .in = in, .n = in.n};
    chat_turn(c);
}

CHAT_APART chat_val chat_call_value(chat_ctx *c, chat_val f, chat_args *a) {
    switch (f.type) {
    case CHAT_FUNC:
        a->v[0] = (chat_val){0};
        return chat_invoke(c, f.u.func, a);
    case CHAT_METHOD:
        a->v[0] = f.u.bound->self;
        return chat_invoke(c, f.u.bound->func, a);
    case CHAT_MACRO: return chat_call_macro(c, f.u.macro, a);
    default: return CHAT_RAISE(c, "%s cannot be called", chat_type_name(f));
    }
}

/* f(...), after the parenthesis; *v is f. */
static void chat_call(chat_ctx *c, chat_val *v) {
    u32 n = c->args.n, n_kw = c->named.n;
    chat_val f = *v;
    chat_give(c, &c->args, f);
    chat_arguments(c);
    u32 line = c->line;
    chat_args a = {c->args.v + n, c->args.n - n, c->named.v + n_kw,
        (c->named.n - n_kw) / 2, 0};
    if (!c->check && !c->status) *v = chat_call_value(c, f, &a);
    if (!c->status) c->line = line;
    c->args.n = n;
    c->named.n = n_kw;
}

/* ---- operands and operators ---- */

/* The parts of x[a:b:c], up to the bracket; how many colons there are. */
static u32 chat_slice_parts(chat_ctx *c, chat_val *part) {
    u32 colons = 0;
    for (bool given = false; !c->status && !chat_sees(c, ']');) {
        if (chat_accept(c, ':')) {
            if (++colons > 2) chat_syntax(c, "too many ':'");
            given = false;
        } else if (given) {
            chat_syntax(c, chat_sees(c, ',')
                ? "several indices are not supported" : "expected ']'");
        } else {
            c->below->expr(c, &part[colons]);
            given = true;
        }
    }
    if (chat_op_at(c->t - 1, '[')) chat_syntax(c, "expected an index");
    chat_expect(c, ']');
    return colons;
}

/* x[i] or x[a:b:c], after the bracket. */
CHAT_APART void chat_subscript(chat_ctx *c, chat_val *v) {
    chat_val part[3] = {{.type = CHAT_UNSET}, {.type = CHAT_UNSET},
        {.type = CHAT_UNSET}};
    chat_token *t = c->t;
    if (t->name && t->type == CHAT_T_TEXT && chat_op_at(t + 1, ']')) {
        c->t += 2;
        c->line = t->line;
        if (!c->check)
            *v = chat_item_of(c, *v, t->v, c->names[t->name].rows);
        return;
    }
    c->depth++;
    u32 colons = chat_slice_parts(c, part);
    c->depth--;
    if (c->check || c->status) return;
    for (u32 i = 0; colons && i < 3; i++)
        if (!chat_is_int(part[i]) && part[i].type != CHAT_NONE
            && part[i].type != CHAT_UNSET)
            CHAT_RAISE(c, "a slice by %s", chat_type_name(part[i]));
    *v = colons ? chat_slice(c, *v, part[0], part[1], part[2])
        : chat_item(c, *v, part[0]);
}

/* v.name or v.0, after the point. */
CHAT_APART void chat_member(chat_ctx *c, chat_val *v) {
    chat_token *t = c->t;
    if (t->type != CHAT_T_NUMBER || t->v.type != CHAT_INT) chat_take_name(c);
    else chat_step(c);
    if (c->check || c->status) return;
    *v = t->type == CHAT_T_NUMBER ? chat_item(c, *v, t->v)
        : chat_attr_of(c, *v, t->v, c->names[t->name].rows);
}

static void chat_postfix(chat_ctx *c, chat_val *v) {
    while (c->t->post && c->t->post <= CHAT_POST_CALL && !c->status) {
        u32 post = c->t->post;
        chat_step(c);
        if (post == CHAT_POST_CALL) { chat_call(c, v); continue; }
        if (post == CHAT_POST_DOT) chat_member(c, v);
        else chat_subscript(c, v);
    }
}

/* In the check: the row of a filter or test. jinja2 refuses an unknown one when
 * it compiles, unless it stands right inside of an `if`: then only its use
 * fails. */
static void chat_find_filter(chat_ctx *c, u32 kind, chat_token *t) {
    const chat_frame *f = c->n_frames ? &c->frames[c->n_frames - 1] : NULL;
    t->link = chat_sees(c, '.') ? 0 : c->names[t->name].rows[kind];
    if (t->link || chat_is_refused(kind, t->v)) return;
    if (!c->unknown_line && (!f
        || (f->kind != CHAT_W_IF && f->kind != CHAT_W_ENDIF))) {
        c->unknown_line = t->line;
        c->unknown = t->v;
    }
}

static bool chat_starts_operand(const chat_ctx *c) {
    switch (c->t->type) {
    case CHAT_T_TEXT: case CHAT_T_NUMBER: return true;
    case CHAT_T_OP: return chat_sees(c, '(') || chat_sees(c, '[')
        || chat_sees(c, '{');
    case CHAT_T_NAME: return !chat_sees_name(c, CHAT_W_ELSE)
        && !chat_sees_name(c, CHAT_W_OR) && !chat_sees_name(c, CHAT_W_AND);
    default: return false;
    }
}

/* The filter or test whose name is next, on *v. */
static void chat_apply_here(chat_ctx *c, chat_val *v, u32 kind) {
    chat_token *t = c->t;
    u32 n = c->args.n, n_kw = c->named.n;
    for (chat_take_name(c); chat_accept(c, '.');) chat_take_name(c);
    if (c->check) {
        c->t = t + 1;
        chat_find_filter(c, kind, t);
        while (chat_accept(c, '.')) chat_step(c);
    }
    chat_give(c, &c->args, *v);
    if (chat_accept(c, '(')) {
        chat_arguments(c);
    } else if (kind == CHAT_IS_TEST && chat_starts_operand(c)) {
        if (chat_sees_name(c, CHAT_W_IS)) chat_syntax(c, "a test of a test");
        chat_primary(c, v);
        chat_postfix(c, v);
        chat_give(c, &c->args, *v);
    }
    chat_args a = {c->args.v + n, c->args.n - n, c->named.v + n_kw,
        (c->named.n - n_kw) / 2, 0};
    *v = (chat_val){0};
    if (!c->check && !c->status) *v = t->link
        ? chat_invoke(c, c->below->rows + t->link - 1, &a)
        : chat_apply(c, kind, t->v, &a);
    c->args.n = n;
    c->named.n = n_kw;
}

static void chat_sign(chat_ctx *c, chat_val *v, bool minus) {
    if (c->check || c->status) return;
    if (v->type == CHAT_BIG && minus)
        chat_refuse(c, "- of an integer beyond 63 bits");
    else if (v->type != CHAT_BIG && !chat_is_number(*v))
        CHAT_RAISE(c, "a sign on %s", chat_type_name(*v));
    else if (v->type == CHAT_FLOAT) v->u.f = minus ? -v->u.f : v->u.f;
    else if (v->type != CHAT_BIG)
        *v = minus ? chat_int_math(c, '-', 0, v->u.i) : chat_int(v->u.i);
}

static void chat_operand(chat_ctx *c, chat_val *v) {
    u32 n = 0;
    u64 minus = 0;
    for (; chat_sees(c, '-') || chat_sees(c, '+'); chat_step(c), n++)
        minus = minus << 1 | chat_sees(c, '-');
    if (n > 60) chat_syntax(c, "too many signs");
    if (c->status) return;
    chat_primary(c, v);
    chat_postfix(c, v);
    for (; n--; minus >>= 1) chat_sign(c, v, minus & 1);
    while (c->t->post >= CHAT_POST_CALL && !c->status) {
        u32 post = c->t->post;
        chat_step(c);
        if (post == CHAT_POST_FILTER) {
            chat_apply_here(c, v, CHAT_IS_FILTER);
        } else if (post == CHAT_POST_CALL) {
            chat_call(c, v);
        } else {
            bool negated = chat_accept_name(c, CHAT_W_NOT);
            chat_apply_here(c, v, CHAT_IS_TEST);
            if (negated) *v = chat_bool(!chat_true(*v));
        }
    }
}

/* The number of a comparison for chat_compare, taking its words. */
static u32 chat_take_compare(chat_ctx *c) {
    chat_token *t = c->t;
    chat_step(c);
    if (t->type == CHAT_T_OP) return t->name;
    if (t->name == CHAT_W_IN) return 7;
    chat_step(c);
    return 8;
}

/* a < b < c, after an operator: each side once, and none after the
 * first that is false. *first is the first operator. */
CHAT_APART void chat_comparison(
    chat_ctx *c, u32 op, chat_val *a, chat_val *b, chat_token *first) {
    if (c->check) {
        first->link = chat_here(c);
        return;
    }
    bool yes = chat_compare(c, op, *a, *b);
    if (!yes) chat_jump(c, first->link);
    if (yes && c->t->level == CHAT_COMPARE) *a = *b;
    else *a = chat_bool(yes);
}

CHAT_APART void chat_operate(
    chat_ctx *c, u32 op, chat_val *a, const chat_val *b) {
    *a = chat_binary(c, op, *a, *b);
}

/* Operands with all operators between them that bind as `min` or tighter. */
static void chat_infix(chat_ctx *c, u32 min, chat_val *a) {
    chat_token *first = NULL, *t;
    chat_val b;
    u32 nots = 0;
    *a = (chat_val){0};
    if (!chat_deeper(c)) return;
    while (min <= CHAT_NOT && chat_accept_name(c, CHAT_W_NOT)) nots++;
    if (nots) {
        chat_infix(c, CHAT_COMPARE, a);
        *a = chat_bool(chat_true(*a) != (nots & 1));
    } else {
        chat_operand(c, a);
    }
    for (t = c->t; t->level && t->level >= min && !c->status; t = c->t) {
        u32 level = t->level, op = (u32)t->v.u.i;
        if (level <= CHAT_AND) {
            if (!c->check && chat_true(*a) == (level == CHAT_OR)) {
                chat_jump(c, t->link);
                continue;
            }
            chat_step(c);
            chat_infix(c, level + 1, a);
            t->link = chat_here(c);
        } else if (level == CHAT_COMPARE) {
            if (!first) first = t;
            op = chat_take_compare(c);
            chat_infix(c, CHAT_ADD, &b);
            chat_comparison(c, op, a, &b, first);
        } else {
            chat_step(c);
            chat_infix(c, level + 1, &b);
            if (!c->check && !c->status) chat_operate(c, op, a, &b);
        }
    }
    c->depth--;
}

/* `a if b else c`, evaluated as b, then a or c; `last`: the last `if`. */
CHAT_APART void chat_choice(chat_ctx *c, u32 last, chat_val *v) {
    chat_token *from = c->t;
    u32 at = last;
    for (; at && !c->status; at = c->tokens[at].cond) {
        chat_jump(c, at + 1);
        chat_infix(c, CHAT_OR, v);
        if (chat_true(*v)) continue;
        *v = (chat_val){0};
        if (chat_accept_name(c, CHAT_W_ELSE)) c->below->expr(c, v);
        break;
    }
    if (!at) {
        c->t = from;
        chat_infix(c, CHAT_OR, v);
    }
    if (!c->status) chat_jump(c, c->tokens[last].link);
}

/* In the check: the choices that begin with what ends here. Unknown filters
 * count in a choice only when they are used. */
CHAT_APART void chat_find_choices(chat_ctx *c, chat_token *from, u32 unknown) {
    u32 last = 0, at = 0;
    chat_val v;
    while (chat_sees_name(c, CHAT_W_IF) && !c->status) {
        at = chat_here(c);
        chat_step(c);
        chat_infix(c, CHAT_OR, &v);
        if (chat_accept_name(c, CHAT_W_ELSE)) chat_expr(c);
        c->tokens[at].cond = last;
        last = at;
        c->unknown_line = unknown;
    }
    from->cond = last;
    if (last) c->tokens[last].link = chat_here(c);
}

static void chat_expression(chat_ctx *c, chat_val *v) {
    chat_token *from = c->t;
    u32 unknown = c->unknown_line;
    if (!c->check && from->cond) {
        chat_choice(c, from->cond, v);
        return;
    }
    chat_infix(c, CHAT_OR, v);
    if (c->check) chat_find_choices(c, from, unknown);
}

/* ---- statements ---- */

/* In the check: opens a block at its tag t. */
static void chat_open(chat_ctx *c, chat_token *t) {
    chat_frame_in(c, t->name, t);
}

/* In the check: the tag t goes on with or ends a block that was opened by the
 * tag `kind`. */
static chat_frame *chat_inside(chat_ctx *c, chat_token *t, u32 kind) {
    chat_frame *f = c->n_frames ? &c->frames[c->n_frames - 1] : NULL;
    if (!f || f->kind != kind) {
        c->t = t;
        chat_syntax(c, "unexpected tag");
        return NULL;
    }
    f->last->link = (u32)(t - c->tokens);
    f->last = t;
    return f;
}

static void chat_close(chat_ctx *c, chat_token *t, u32 kind) {
    if (chat_inside(c, t, kind)) c->n_frames--;
}

/* Every tag has one function, which is called after its name t. In the check
 * it goes to the end of the tag; else it may also jump to another end. */

/* A value without `a if b`, or a tuple of such. */
static void chat_condition(chat_ctx *c, chat_val *v) {
    chat_infix(c, CHAT_OR, v);
    if (chat_sees(c, ',')) chat_rest_of_tuple(c, v);
}

static void chat_tag_if(chat_ctx *c, chat_token *t) {
    chat_val v;
    if (c->check) chat_open(c, t);
    for (;;) {
        chat_condition(c, &v);
        if (c->check || chat_true(v) || c->status) return;
        t = chat_link(c, t);
        c->t = t + 1;
        if (t->name != CHAT_W_ELIF) return;
    }
}

/* After a branch that was taken. */
static void chat_branch_ends(chat_ctx *c, chat_token *t) {
    while (t->name != CHAT_W_ENDIF) t = chat_link(c, t);
    chat_to_end_of_tag(c, t);
}

static void chat_tag_elif(chat_ctx *c, chat_token *t) {
    chat_val v;
    if (!c->check) {
        chat_branch_ends(c, t);
        return;
    }
    chat_inside(c, t, CHAT_W_IF);
    chat_condition(c, &v);
}

static void chat_turn_ends(chat_ctx *c) {
    c->frames[c->n_frames - 1].loop->whole = true;
    chat_turn(c);
}

/* The kind of the innermost block, 0 outside of all. */
static u32 chat_kind(const chat_ctx *c) {
    return c->n_frames ? c->frames[c->n_frames - 1].kind : 0;
}

static void chat_tag_else(chat_ctx *c, chat_token *t) {
    if (c->check) {
        bool loop = chat_kind(c) == CHAT_W_FOR;
        chat_frame *f = chat_inside(c, t, loop ? CHAT_W_FOR : CHAT_W_IF);
        if (f) f->kind = loop ? CHAT_W_ELSE : CHAT_W_ENDIF;
    } else if (chat_link(c, t)->name == CHAT_W_ENDIF) {
        chat_branch_ends(c, t);
    } else {
        chat_turn_ends(c);
    }
}

static void chat_tag_endif(chat_ctx *c, chat_token *t) {
    bool other = chat_kind(c) == CHAT_W_ENDIF;
    if (c->check) chat_close(c, t, other ? CHAT_W_ENDIF : CHAT_W_IF);
}

static void chat_tag_for(chat_ctx *c, chat_token *t) {
    chat_store(c, c->scope, NULL, false);
    for (chat_token *p = t; c->check && p < c->t; p++)
        if (p->type == CHAT_T_NAME && p->name == CHAT_W_LOOP)
            chat_syntax(c, "the name 'loop' cannot be set in a loop");
    if (!chat_accept_name(c, CHAT_W_IN)) chat_syntax(c, "expected 'in'");
    chat_val in;
    chat_condition(c, &in);
    if (!c->check) {
        if (!c->status) chat_loop_in(c, t, in);
        return;
    }
    t->cond = chat_here(c);
    chat_open(c, t);
    if (chat_accept_name(c, CHAT_W_IF)) chat_expr(c);
    if (chat_sees_name(c, CHAT_W_RECURSIVE))
        chat_syntax(c, "a loop that calls itself is not supported");
}

static void chat_tag_endfor(chat_ctx *c, chat_token *t) {
    bool other = chat_kind(c) == CHAT_W_ELSE;
    if (c->check) chat_close(c, t, other ? CHAT_W_ELSE : CHAT_W_FOR);
    else if (other) chat_leave(c, t);
    else chat_turn_ends(c);
}

/* break and continue: out of the blocks up to the loop. */
static void chat_tag_break(chat_ctx *c, chat_token *t) {
    for (u32 i = c->n_frames; c->check; i--) {
        u32 kind = i ? c->frames[i - 1].kind : 0;
        if (kind == CHAT_W_FOR) return;
        if (kind == CHAT_W_SET || kind == CHAT_W_FILTER)
            chat_syntax(c, "leaving a block that is being captured");
        if (kind != CHAT_W_IF && kind != CHAT_W_ENDIF && kind != CHAT_W_WITH
            && kind != CHAT_W_ELSE) chat_syntax(c, "not inside of a loop");
        if (c->status) return;
    }
    while (!c->frames[c->n_frames - 1].loop) chat_leave(c, t);
    if (t->name == CHAT_W_BREAK) chat_loop_ends(c);
    else chat_turn(c);
}

/* Opens a block with a scope, whose output becomes a value if it collects. */
static void chat_enter(chat_ctx *c, chat_token *t, bool collects) {
    chat_frame *f = chat_frame_in(c, t->name, t);
    if (c->check || !f) return;
    c->scope = chat_scope_in(c, c->scope);
    if (collects) chat_sink_in(c);
    chat_to_end_of_tag(c, t);
}

static void chat_filters(chat_ctx *c, chat_val *v) {
    while (!c->status && chat_accept(c, '|'))
        chat_apply_here(c, v, CHAT_IS_FILTER);
}

static void chat_tag_set(chat_ctx *c, chat_token *t) {
    chat_token *from = c->t, *end;
    chat_val v = {0};
    chat_store(c, c->scope, NULL, true);
    if (!chat_accept(c, '=')) {
        if (c->check) chat_filters(c, &v);
        chat_enter(c, t, true);
        return;
    }
    chat_tuple(c, &v);
    if (c->check || c->status) return;
    end = c->t;
    c->t = from;
    chat_store(c, c->scope, &v, true);
    c->t = end;
}

static void chat_tag_filter(chat_ctx *c, chat_token *t) {
    chat_val v = {0};
    if (c->check) {
        chat_apply_here(c, &v, CHAT_IS_FILTER);
        chat_filters(c, &v);
    }
    chat_enter(c, t, true);
}

/* What was captured goes through the filters that the opening tag named; they
 * see the variables of the block. */
CHAT_RARE void chat_tag_endset(chat_ctx *c, chat_token *t) {
    u32 kind = t->name - 1;
    if (c->check) {
        chat_close(c, t, kind);
        return;
    }
    chat_val v = chat_sink_out(c);
    chat_token *open = c->frames[c->n_frames - 1].tag;
    c->t = open + 1;
    if (kind == CHAT_W_SET) chat_store(c, c->scope, NULL, true);
    else chat_apply_here(c, &v, CHAT_IS_FILTER);
    chat_filters(c, &v);
    chat_leave(c, open);
    c->t = open + 1;
    if (kind == CHAT_W_SET) chat_store(c, c->scope, &v, true);
    else chat_print(c, chat_sink(c), v, 0);
    chat_to_end_of_tag(c, t);
}

/* Values see the variables outside, each target those before it. */
CHAT_RARE void chat_tag_with(chat_ctx *c, chat_token *t) {
    chat_scope *s = c->check ? NULL : chat_scope_in(c, c->scope);
    for (bool more = false; !c->status && c->t->type != CHAT_T_TAG_END;
         more = true) {
        if (more) chat_expect(c, ',');
        chat_token *from = c->t;
        chat_store(c, s, NULL, false);
        chat_expect(c, '=');
        chat_val v = chat_expr(c);
        chat_token *end = c->t;
        if (c->check || c->status) continue;
        c->t = from;
        chat_store(c, s, &v, false);
        c->t = end;
    }
    chat_frame_in(c, t->name, t);
    if (s) c->scope = s;
}

static void chat_tag_generation(chat_ctx *c, chat_token *t) {
    chat_enter(c, t, false);
}

static void chat_tag_endscope(chat_ctx *c, chat_token *t) {
    if (c->check) chat_close(c, t, t->name - 1);
    else chat_leave(c, t);
}

/* In the check: parameters in parentheses. */
CHAT_RARE void chat_parameters(chat_ctx *c) {
    bool defaults = false;
    chat_expect(c, '(');
    for (bool more = false; !c->status && !chat_accept(c, ')'); more = true) {
        if (more) chat_expect(c, ',');
        chat_token *p = c->t;
        chat_target(c, NULL, NULL, false);
        if (chat_accept(c, '=')) {
            chat_expr(c);
            p->link = chat_here(c);
            defaults = true;
        } else if (defaults) {
            chat_syntax(c, "a parameter without default after one with it");
        }
    }
}

/* A macro sees the variables around it. */
static void chat_tag_macro(chat_ctx *c, chat_token *t) {
    if (c->check) {
        chat_target(c, NULL, NULL, false);
        chat_parameters(c);
        chat_open(c, t);
        return;
    }
    chat_macro *m = chat_alloc(c, sizeof *m);
    if (!m) return;
    *m = (chat_macro){t, t + 3, c->scope};
    for (chat_scope *s = c->scope; s; s = s->parent) s->pinned = true;
    chat_assign(c, c->scope, t[1].name,
        (chat_val){.type = CHAT_MACRO, .u.macro = m});
    chat_to_end_of_tag(c, chat_link(c, t));
}

/* Here a body ends: see chat_tag. */
static void chat_tag_endmacro(chat_ctx *c, chat_token *t) {
    if (c->check) chat_close(c, t, CHAT_W_MACRO);
}

/* By the number of the tag's name. `body`: a colon may end it, as in Python. */
static const struct {
    void (*run)(chat_ctx *c, chat_token *t);
    bool body;
} CHAT_TAGS[] = {
    [CHAT_W_IF] = {chat_tag_if, true}, [CHAT_W_ELIF] = {chat_tag_elif, true},
    [CHAT_W_ELSE] = {chat_tag_else, true}, [CHAT_W_ENDIF] = {chat_tag_endif, 0},
    [CHAT_W_FOR] = {chat_tag_for, true}, [CHAT_W_ENDFOR] = {chat_tag_endfor, 0},
    [CHAT_W_BREAK] = {chat_tag_break, 0},
    [CHAT_W_CONTINUE] = {chat_tag_break, 0},
    [CHAT_W_SET] = {chat_tag_set, 0}, [CHAT_W_ENDSET] = {chat_tag_endset, 0},
    [CHAT_W_MACRO] = {chat_tag_macro, true},
    [CHAT_W_ENDMACRO] = {chat_tag_endmacro, 0},
    [CHAT_W_FILTER] = {chat_tag_filter, true},
    [CHAT_W_ENDFILTER] = {chat_tag_endset, 0},
    [CHAT_W_WITH] = {chat_tag_with, true},
    [CHAT_W_ENDWITH] = {chat_tag_endscope, 0},
    [CHAT_W_GENERATION] = {chat_tag_generation, true},
    [CHAT_W_ENDGENERATION] = {chat_tag_endscope, 0},
};

CHAT_RARE void chat_unknown_tag(chat_ctx *c) {
    static const char names[] = "include import from extends block autoescape "
        "do trans debug call print";
    bool known = c->t->type == CHAT_T_NAME && chat_is_among(c->t->v, names);
    chat_syntax(c, known ? "this tag is not supported" : "unknown tag");
}

static bool chat_tag(chat_ctx *c) {
    chat_step(c);
    chat_token *t = c->t;
    if (t->type != CHAT_T_NAME || !t->name || t->name > CHAT_W_ENDGENERATION) {
        chat_unknown_tag(c);
        return false;
    }
    chat_step(c);
    CHAT_TAGS[t->name].run(c, t);
    if (c->status) return false;
    if (CHAT_TAGS[t->name].body) chat_accept(c, ':');
    else if (!c->check) while (chat_accept(c, ':')) {}
    if (c->t->type != CHAT_T_TAG_END)
        chat_syntax(c, "expected the end of the tag");
    else c->t++;
    return c->check || t->name != CHAT_W_ENDMACRO;
}

/* What follows, up to the end of the template or the body of a macro. */
static void chat_body(chat_ctx *c) {
    bool more = true;
    while (more && chat_work(c, 1)) {
        chat_token *t = c->t;
        if (t->type == CHAT_T_DATA) {
            chat_step(c);
            if (!c->check) chat_puts(c, chat_sink(c), t->v);
        } else if (t->type == CHAT_T_VAR) {
            chat_step(c);
            chat_val v;
            chat_tuple(c, &v);
            if (!c->check && !c->status) chat_print(c, chat_sink(c), v, 0);
            if (c->t->type != CHAT_T_VAR_END) chat_syntax(c, "expected '}}'");
            c->t++;
        } else {
            more = t->type == CHAT_T_TAG && chat_tag(c);
        }
    }
}

static const chat_below CHAT_BELOW = {
    CHAT_BUILTINS, chat_find_builtin, chat_expression, chat_body};

static void chat_register(chat_ctx *c, const char *names, u32 kind, u32 row) {
    while (*names && !c->status) {
        str s = chat_next_name(&names);
        u32 name = chat_name_of(c, chat_str(s.p, s.n));
        if (c->n_names) c->names[name].rows[kind] = (u16)row;
    }
}

/* The words of the language first, then all names of built-ins. */
static void chat_first_names(chat_ctx *c) {
    for (u32 i = 0; i < KS_LEN(CHAT_WORDS); i++)
        chat_name_of(c, chat_strz(CHAT_WORDS[i]));
    for (u32 i = 0; i < KS_LEN(CHAT_BUILTINS); i++)
        chat_register(c, CHAT_BUILTINS[i].name, CHAT_BUILTINS[i].kind, i + 1);
    chat_register(c, CHAT_LIST_MUTATORS, CHAT_IS_MUTATOR, 1);
    chat_register(c, CHAT_DICT_MUTATORS, CHAT_IS_MUTATOR, 1);
}

/* Goes over the whole template, and finds what the links of tokens say. */
static void chat_check(chat_ctx *c) {
    c->check = true;
    chat_body(c);
    c->check = false;
    if (c->status) return;
    if (c->n_frames) {
        c->line = c->frames[c->n_frames - 1].tag->line;
        chat_fail(c, KSLLM_ERR_FORMAT, "a block does not end");
    }
    if (c->unknown_line) {
        c->line = c->unknown_line;
        chat_fail(c, KSLLM_ERR_FORMAT, "unknown filter or test '%.*s'",
            chat_clip(c->unknown, 60), (const char *)c->unknown.u.s);
    }
}

static void chat_run(chat_ctx *c, str source) {
    str s = chat_lines(c, source);
    chat_lexer l = {.c = c, .p = (const u8 *)s.p, .line = 1, .fresh = true};
    l.end = l.p + s.n;
    chat_lex(&l);
    c->tokens = c->t = l.t;
    if (!c->status) chat_check(c);
    c->t = l.t;
    chat_sink_in(c);
    if (!c->status) chat_body(c);
    c->line = 0;
}

/* ==========================================================================
 * § 13 CHAT (private)
 * Messages to tokens by the model's own template; an answer, as it comes, to
 * its parts (thinking, text, calls). May use § 1-12. A notation of answers is
 * a row of SPLIT_FORMATS.
 * ======================================================================== */

/* ---- a conversation ---- */

static str chat_given(ksllm_text t) {
    if (t.data && t.size == KSLLM_NUL) return str_of(t.data);
    return (str){t.data, t.data ? t.size : 0};
}

static void chat_global(chat_ctx *c, const char *name, chat_val v) {
    chat_assign(c, &c->globals, chat_name_of(c, chat_strz(name)), v);
}

/* A role may stand inside of a control token (<|user|>): one that is a plain
 * word counts as the template's. */
static void chat_trust_role(chat_ctx *c, chat_val message) {
    chat_val *role = chat_get(c, message.u.v, message.n, chat_strz("role"));
    if (!role || role->type != CHAT_STR) return;
    for (u32 i = 0; i < role->n; i++)
        if (!chat_is_word(role->u.s[i]) && role->u.s[i] != '-') return;
    if (role->n <= 32) role->mark = 0;
}

/* Reasoning has three names; templates read the first or the second. */
static chat_val chat_alias_reasoning(chat_ctx *c, chat_val m) {
    static const char *const names[] =
        {"reasoning_content", "thinking", "reasoning"};
    chat_val found = {0};
    chat_list l = {0};
    for (u32 i = 0; i < KS_LEN(names); i++) {
        chat_val v = chat_getz(c, m, names[i]);
        if (found.type <= CHAT_NONE && v.type > CHAT_NONE) found = v;
    }
    if (found.type <= CHAT_NONE) return m;
    chat_set(c, &l, chat_strz("thinking"), found);
    for (u32 i = 0; i < m.n; i++)
        chat_set(c, &l, m.u.v[2 * i], m.u.v[2 * i + 1]);
    chat_set(c, &l, chat_strz("reasoning_content"), found);
    return chat_dict(l);
}

static const char CHAT_TAG[] = "CONTINUE_FINAL_MESSAGE_TAG ";

/* Marks where the text of the last message ends, and gives that text. */
static chat_val chat_tag_final(chat_ctx *c, chat_val m) {
    chat_val *text = m.type == CHAT_DICT
        ? chat_get(c, m.u.v, m.n, chat_strz("content")) : NULL;
    if (text && chat_is_seq(*text)) {
        chat_val parts = *text;
        text = NULL;
        for (u32 i = parts.n; i-- > 0 && !text;)
            if (parts.u.v[i].type == CHAT_DICT)
                text = chat_get(c, parts.u.v[i].u.v, parts.u.v[i].n,
                    chat_strz("text"));
    }
    if (!text || text->type != CHAT_STR)
        return CHAT_RAISE(c, "the last message has no text to continue");
    chat_val was = *text;
    *text = chat_concat(c, was, chat_strz(CHAT_TAG));
    return was;
}

/* The text up to where the last message ends. */
static chat_val chat_cut_final(chat_ctx *c, chat_val out, chat_val was) {
    chat_val none = {0}, tag = chat_str(CHAT_TAG, sizeof CHAT_TAG - 2);
    size_t at = chat_find_last(c, out, tag);
    was = chat_strip(was, none, true, true);
    if (at == SIZE_MAX || chat_find(c, out, was, 0) == SIZE_MAX)
        return CHAT_RAISE(c, "the last message is not in the text that the "
            "template made: it cannot be continued");
    bool whole = at + tag.n < out.n && out.u.s[at + tag.n] == ' ';
    out = chat_cut(out, 0, at);
    return whole ? out : chat_strip(out, none, false, true);
}

static chat_val chat_read_messages(chat_ctx *c, str json) {
    chat_val in = chat_json_read(c, json, "messages");
    chat_list l = {0};
    if (in.type != CHAT_LIST) return CHAT_RAISE(c, "messages: no JSON array");
    for (u32 i = 0; i < in.n && !c->status; i++) {
        if (in.u.v[i].type != CHAT_DICT)
            return CHAT_RAISE(c, "messages[%u] is no object", i);
        chat_trust_role(c, in.u.v[i]);
        chat_append(c, &l, chat_alias_reasoning(c, in.u.v[i]));
    }
    return chat_listed(l);
}

/* Variables are the program's own words: a text among them may name control
 * tokens. What is inside of lists and objects is data as everywhere. */
static void chat_read_variables(chat_ctx *c, str json) {
    chat_val in = chat_json_read(c, json, "variables");
    if (in.type != CHAT_DICT) CHAT_RAISE(c, "variables: no JSON object");
    for (u32 i = 0; !c->status && i < in.n; i++) {
        chat_val v = in.u.v[2 * i + 1];
        if (v.type == CHAT_STR) v.mark = 0;
        if (chat_is(in.u.v[2 * i], "messages"))
            CHAT_RAISE(c, "variables: messages has a place of its own");
        chat_assign(c, &c->globals, chat_name_of(c, in.u.v[2 * i]), v);
    }
}

static void chat_token_global(
    chat_ctx *c, const char *name, const tokenizer *t, i32 id) {
    if (id < 0 || (u32)id >= t->n_vocab) return;
    str s = tok_text(t, (u32)id);
    chat_global(c, name, chat_str(s.p, s.n));
}

/* What transformers gives to every template. */
static chat_val chat_globals(
    chat_ctx *c, const ksllm_chat *o, const tokenizer *t) {
    str tools = chat_given(o->tools), variables = chat_given(o->variables);
    chat_val messages = chat_read_messages(c, chat_given(o->messages));
    if (t) {
        chat_token_global(c, "bos_token", t, t->bos);
        chat_token_global(c, "eos_token", t, t->eos);
        chat_token_global(c, "unk_token", t, t->unk);
        chat_token_global(c, "pad_token", t, t->pad);
    }
    chat_global(c, "documents", chat_none());
    chat_global(c, "messages", messages);
    chat_val list = tools.n && !c->status ? chat_json_read(c, tools, "tools")
        : chat_none();
    if (!c->status && list.type != CHAT_LIST && list.type != CHAT_NONE)
        CHAT_RAISE(c, "tools: no JSON array");
    chat_global(c, "tools", list);
    chat_global(c, "add_generation_prompt",
        chat_bool(o->add_generation_prompt));
    if (variables.n && !c->status) chat_read_variables(c, variables);
    return messages;
}

static str chat_source(chat_ctx *c, const ksllm_chat *o, const gguf *g) {
    char key[128] = "tokenizer.chat_template";
    str s = chat_given(o->template_text);
    if (s.n) return s;
    if (o->template_name)
        chat_format(key, sizeof key, "tokenizer.chat_template.%.80s",
            o->template_name);
    if (g) s = gguf_get_str(g, key);
    if (!s.n) chat_fail(c, KSLLM_ERR_UNSUPPORTED,
        "the file has no %s: give template_text", key);
    return s;
}

static void chat_begin(chat_ctx *c, const ksllm_chat *o,
    const ksllm_allocator *a, ksllm_error *err) {
    *c = (chat_ctx){.a = o->memory ? NULL : a, .err = err,
        .now = o->local_time, .below = &CHAT_BELOW};
    size_t skip = o->memory ? (0 - (uintptr_t)o->memory) & 7 : 0;
    if (o->memory && o->memory_size > skip) {
        c->free = (u8 *)o->memory + skip;
        c->left = (o->memory_size - skip) & ~(size_t)7;
    }
    c->n_given = (u64)chat_given(o->messages).n + chat_given(o->tools).n
        + chat_given(o->variables).n;
    chat_allow(c, c->n_given, 0);
    c->args.v = chat_alloc_raw(c, CHAT_STACK * sizeof *c->args.v);
    c->named.v = chat_alloc_raw(c, CHAT_STACK / 4 * sizeof *c->named.v);
    c->args.cap = CHAT_STACK;
    c->named.cap = CHAT_STACK / 4;
    c->frames = chat_alloc(c, CHAT_BLOCKS * sizeof *c->frames);
    c->sinks = chat_alloc(c, CHAT_BLOCKS * sizeof *c->sinks);
    c->root.parent = &c->globals;
    c->scope = &c->root;
}

/* The conversation as the model wants to see it. The text lives until
 * chat_drop. */
static chat_val chat_render(chat_ctx *c, const ksllm_chat *o, const gguf *g,
    const tokenizer *t) {
    chat_val final = {0};
    if (!c->status) chat_first_names(c);
    if (c->status) return final;
    chat_val messages = chat_globals(c, o, t);
    if (!c->status && o->continue_final)
        final = messages.n ? chat_tag_final(c, messages.u.v[messages.n - 1])
            : CHAT_RAISE(c, "there is no message to continue");
    str source = c->status ? (str){NULL, 0} : chat_source(c, o, g);
    chat_allow(c, c->n_given + source.n, messages.n);
    if (!c->status) chat_run(c, source);
    if (c->status) return (chat_val){0};
    chat_val out = chat_built(chat_sink(c));
    return o->continue_final ? chat_cut_final(c, out, final) : out;
}

/* Memory of the tokenizer, which counts as the conversation's. */
static void *chat_lend(void *ctx, void *p, size_t old, size_t size) {
    chat_ctx *c = ctx;
    if (size > old && size - old > CHAT_MEMORY - c->taken) {
        c->full = true;
        return NULL;
    }
    void *got = c->a->resize(c->a->ctx, p, old, size);
    if (got || !size) c->taken += size - old;
    return got;
}

/* Tokens of the rendered text. Control tokens are read where no byte came
 * from the messages; the text is cut into words as a whole, so that honest
 * text gives the ids that it has in one piece. */
static i64 chat_encode(chat_ctx *c, chat_val text, const tokenizer *t,
    u32 flags, i32 *tokens, size_t cap) {
    bool all_data = text.mark == CHAT_ALL;
    flags &= KSLLM_ENCODE_COMPOSE; /* BOS is the template's business */
    if (!all_data) flags |= KSLLM_ENCODE_SPECIAL;
    size_t need = (size_t)text.n * TOK_SCRATCH_PER_BYTE + TOK_SCRATCH_FIXED;
    void *scratch = c->a ? NULL : chat_alloc(c, need);
    const ksllm_allocator lent = {chat_lend, c};
    if (c->status) return c->status;
    tok_coder coder = {.t = t, .flags = flags, .out = tokens, .cap = cap,
        .data = all_data ? NULL : chat_marks(text), .scratch = scratch,
        .scratch_bytes = scratch ? need : 0, .a = c->a ? &lent : NULL,
        .err = c->err};
    i64 n = tok_encode(&coder, (str){(const char *)text.u.s, text.n});
    return n == KSLLM_ERR_MEMORY && c->full ? chat_too_large(c) : n;
}

/* ---- the parts of an answer ---- */

/* What the bytes between two marks are. */
typedef enum split_state {
    SPLIT_TEXT, SPLIT_THINK,
    SPLIT_SKIP,     /* belongs to no part, outside of a call */
    SPLIT_HEAD,     /* the same, where a part's header is */
    SPLIT_BODY,     /* the same, between the arguments of a call */
    SPLIT_JSON,     /* one or more {"name": ..., "arguments": ...}, or a list */
    SPLIT_NAME, SPLIT_KEY, SPLIT_VALUE, /* of a call in other notations */
    SPLIT_ARGS      /* the arguments of a call as JSON */
} split_state;

/* A mark counts in the states of `from` (bits). With `then` it counts only if
 * that follows, white space between them or none: a closing tag inside of a
 * value is text. */
typedef struct split_mark {
    u16 from;
    u8 to;
    const char *text, *then;
} split_mark;

/* A wire format: the marks, and a text that a template has if it is this one.
 * No mark is the beginning of another one of its state. */
typedef struct split_format {
    const char *name, *detect;
    u8 start;
    bool lines;             /* a value stands on lines of its own */
    const char *end_think;  /* what the model writes where thinking ends */
    const char *opening;    /* formats with headers: the last of these in a
                               prompt opens the answer, and what follows it
                               counts as the answer's */
    const split_mark *marks;    /* up to one without text */
} split_format;

#define IN(state) (1u << SPLIT_##state)
#define SPLIT_THINKS                                                           \
    {IN(TEXT) | IN(THINK), SPLIT_THINK, "<think>", NULL},                      \
    {IN(TEXT) | IN(THINK), SPLIT_TEXT, "</think>", NULL}
#define SPLIT_CLOSE "\n</think>\n\n"
#define SPLIT_STRAY(text) {IN(TEXT), SPLIT_TEXT, text, NULL}

#define SPLIT_MARKS(...)                                                       \
    (const split_mark[]){__VA_ARGS__, {0, 0, NULL, NULL}}

static const split_mark SPLIT_NO_MARK = {0, 0, NULL, NULL};

static const split_format SPLIT_FORMATS[] = {
    {"solar", "<|tool_call:args|>", SPLIT_HEAD, false,
        "<|end|><|begin|>assistant", "<|begin|>assistant",
        SPLIT_MARKS(
        {IN(HEAD), SPLIT_THINK, "<|think|>", NULL},
        {IN(HEAD), SPLIT_TEXT, "<|content|>", NULL},
        {IN(HEAD), SPLIT_SKIP, "<|tool_calls|>", NULL},
        {IN(THINK) | IN(TEXT), SPLIT_HEAD, "<|end|>", NULL},
        {IN(THINK) | IN(TEXT), SPLIT_HEAD, "<|flush|>", NULL},
        {IN(THINK) | IN(TEXT), SPLIT_HEAD, "<|begin|>", NULL},
        {IN(SKIP), SPLIT_NAME, "<|tool_call:name|>", NULL},
        {IN(NAME), SPLIT_ARGS, "<|tool_call:args|>", NULL},
        {IN(NAME) | IN(ARGS), SPLIT_SKIP, "<|tool_call:end|>", NULL},
        {IN(SKIP) | IN(ARGS) | IN(TEXT), SPLIT_HEAD, "<|calls|>", NULL},
        SPLIT_STRAY("<|think|>"), SPLIT_STRAY("<|content|>"),
        SPLIT_STRAY("<|tool_calls|>"), SPLIT_STRAY("<|tool_call:begin|>"),
        SPLIT_STRAY("<|tool_call:name|>"), SPLIT_STRAY("<|tool_call:args|>"),
        SPLIT_STRAY("<|tool_call:end|>"))},
    {"glm", "<arg_key>", SPLIT_TEXT, false, SPLIT_CLOSE, NULL,
        SPLIT_MARKS(
        SPLIT_THINKS,
        {IN(TEXT), SPLIT_NAME, "<tool_call>", NULL},
        {IN(NAME), SPLIT_KEY, "<arg_key>", NULL},
        {IN(NAME), SPLIT_ARGS, "<arguments>", NULL},
        {IN(KEY), SPLIT_VALUE, "</arg_key>", "<arg_value>"},
        {IN(VALUE), SPLIT_KEY, "</arg_value>", "<arg_key>"},
        {IN(VALUE), SPLIT_TEXT, "</arg_value>", "</tool_call>"},
        {IN(ARGS), SPLIT_SKIP, "</arguments>", NULL},
        {IN(NAME) | IN(ARGS) | IN(SKIP) | IN(TEXT), SPLIT_TEXT,
            "</tool_call>", NULL},
        SPLIT_STRAY("<arg_key>"), SPLIT_STRAY("</arg_key>"),
        SPLIT_STRAY("<arg_value>"), SPLIT_STRAY("</arg_value>"))},
    {"qwen-coder", "<function=", SPLIT_TEXT, true, SPLIT_CLOSE, NULL,
        SPLIT_MARKS(
        SPLIT_THINKS,
        {IN(TEXT), SPLIT_NAME, "<tool_call>", "<function="},
        {IN(NAME), SPLIT_BODY, ">", NULL},
        {IN(BODY), SPLIT_KEY, "<parameter=", NULL},
        {IN(KEY), SPLIT_VALUE, ">", NULL},
        {IN(VALUE), SPLIT_KEY, "</parameter>", "<parameter="},
        {IN(VALUE), SPLIT_SKIP, "</parameter>", "</function>"},
        {IN(BODY), SPLIT_SKIP, "</function>", NULL},
        {IN(SKIP), SPLIT_NAME, "<function=", NULL},
        {IN(BODY) | IN(SKIP) | IN(TEXT), SPLIT_TEXT, "</tool_call>", NULL})},
    {"hcx-think", "tool/function_call", SPLIT_HEAD, false,
        "<|im_end|>\n<|im_start|>assistant", "<|im_start|>assistant",
        SPLIT_MARKS(
        {IN(HEAD), SPLIT_THINK, "/think\n", NULL},
        {IN(HEAD), SPLIT_JSON, " -> tool/function_call\n", NULL},
        {IN(HEAD), SPLIT_TEXT, "\n", NULL},
        {IN(THINK) | IN(TEXT) | IN(JSON), SPLIT_SKIP, "<|im_end|>", NULL},
        {IN(SKIP) | IN(TEXT), SPLIT_HEAD, "<|im_start|>assistant", NULL})},
    {"vaetki", "<tool_start>", SPLIT_TEXT, false, SPLIT_CLOSE, NULL,
        SPLIT_MARKS(
        SPLIT_THINKS,
        {IN(TEXT), SPLIT_JSON, "<tool_start>", NULL},
        {IN(JSON) | IN(TEXT), SPLIT_TEXT, "<tool_end>", NULL})},
    {"thought", "<thought>", SPLIT_TEXT, false, "\n</thought>\n\n", NULL,
        SPLIT_MARKS(
        {IN(TEXT) | IN(THINK), SPLIT_THINK, "<thought>", NULL},
        {IN(TEXT) | IN(THINK), SPLIT_TEXT, "</thought>", NULL})},
    {"json", NULL, SPLIT_TEXT, false, SPLIT_CLOSE, NULL,
        SPLIT_MARKS(
        SPLIT_THINKS,
        {IN(TEXT), SPLIT_JSON, "<tool_call>", NULL},
        {IN(JSON) | IN(TEXT), SPLIT_TEXT, "</tool_call>", NULL})},
    {"text", NULL, SPLIT_TEXT, false, NULL, NULL, &SPLIT_NO_MARK},
};

#undef SPLIT_MARKS
#undef SPLIT_STRAY
#undef SPLIT_CLOSE
#undef SPLIT_THINKS
#undef IN

static const split_format *split_by_name(const char *name) {
    for (u32 i = 0; i < KS_LEN(SPLIT_FORMATS); i++)
        if (!strcmp(SPLIT_FORMATS[i].name, name)) return &SPLIT_FORMATS[i];
    return NULL;
}

static bool split_has(str s, const char *z) {
    size_t n = strlen(z);
    for (; s.n >= n; s.p++, s.n--)
        if (!memcmp(s.p, z, n)) return true;
    return false;
}

static const split_format *split_by_template(str source) {
    for (u32 i = 0; i < KS_LEN(SPLIT_FORMATS); i++)
        if (SPLIT_FORMATS[i].detect
            && split_has(source, SPLIT_FORMATS[i].detect))
            return &SPLIT_FORMATS[i];
    return split_by_name("json");
}

/* An answer on its way. A value lies in the buffer after its key, which is
 * n_key long; it ends at n_text when a closing tag may have come. */
typedef struct __attribute__((may_alias)) split {
    const split_format *format;
    ksllm_on_part on_part;
    void *ctx;
    u8 *buffer;
    size_t cap;
    size_t used;            /* more than cap: the rest did not fit */
    size_t n_key, n_text;
    const char *wait;       /* the closing tag that came, NULL: none */
    json_scan scan;
    u32 newlines;           /* held until text follows */
    u32 n_items;            /* arguments of a call, calls of a list */
    u8 state, part, n_held, n_run;
    bool fresh;             /* nothing came after the last mark */
    bool in_call;           /* CALL was given, CALL_END was not */
    bool broken;            /* a call has no CALL_END and gets none */
    bool lost;              /* something did not fit, not yet reported */
    bool stopped;           /* by the callback */
    bool prompt;            /* it is the prompt's bytes that are read */
    bool owed;              /* a call that the prompt began, in the buffer */
    char held[48];          /* may become a mark */
    u8 run[128];            /* text on its way out */
} split;

_Static_assert(sizeof(split) + 128 <= sizeof(ksllm_splitter)
    && sizeof(size_t) <= 8, "an answer's state must leave room to grow");

static void split_give(split *s, ksllm_part part, const void *p, size_t n) {
    if (s->on_part && !s->prompt && !s->stopped)
        s->stopped = s->on_part(s->ctx, part, (ksllm_text){p, n}) != 0;
}

CHAT_RARE void split_flush(split *s) {
    if (s->n_run) split_give(s, (ksllm_part)s->part, s->run, s->n_run);
    s->n_run = 0;
}

/* A byte that goes out. The run is given before a character that might not fit
 * whole. */
static void split_out(split *s, ksllm_part part, u8 b) {
    bool full = s->n_run + 4u > sizeof s->run && (b & 0xc0) != 0x80;
    if (part != s->part || full || s->n_run == sizeof s->run) split_flush(s);
    s->part = (u8)part;
    s->run[s->n_run++] = b;
}

/* A byte for the buffer. While a closing tag waits for what follows, it may
 * turn out that it need not fit. */
static void split_put(split *s, u8 b) {
    if (s->used < s->cap) s->buffer[s->used] = b;
    else if (!s->wait) s->lost = true;
    if (s->used < SIZE_MAX / 2) s->used++;
}

/* A byte of text. Line ends next to a mark are dropped: those after one at
 * once, those before one are held until something follows. */
static void split_text(split *s, u8 b) {
    ksllm_part part =
        s->state == SPLIT_THINK ? KSLLM_PART_THINKING : KSLLM_PART_TEXT;
    if (b == '\n') {
        s->newlines += !s->fresh && s->newlines < UINT32_MAX;
        return;
    }
    for (; s->newlines; s->newlines--) split_out(s, part, '\n');
    s->fresh = false;
    split_out(s, part, b);
}

static void split_enter(split *s, u8 state) {
    s->state = state;
    s->wait = NULL;
    s->n_text = 0;
    s->newlines = 0;
    if (state == SPLIT_JSON) s->n_items = 0;
    s->fresh = true;
    s->scan = (json_scan){0};
}

/* What stood in a call's place was none: what is in the buffer is text, whole
 * characters of it when it did not fit. */
CHAT_RARE void split_no_call(split *s) {
    size_t n = min_size(s->used, s->cap), k = n;
    while (k && n - k < 3 && (s->buffer[k - 1] & 0xc0) == 0x80) k--;
    if (s->used > s->cap && k && s->buffer[k - 1] >= 0xc0
        && !txt_measure(s->buffer + k - 1, n - (k - 1))) n = k - 1;
    split_enter(s, SPLIT_TEXT);
    for (size_t i = 0; i < n; i++) split_text(s, s->buffer[i]);
    s->used = 0;
}

/* A call from the object p; false: it is none. */
CHAT_RARE bool split_object(split *s, u8 *p, size_t n) {
    str name = json_field(p, n, "name"), args = json_field(p, n, "arguments");
    if (!args.n) args = json_field(p, n, "parameters");
    if (!args.n) args = (str){"{}", 2};
    if (name.n <= 2 || *name.p != '"') return false;
    u8 *text = p + (name.p + 1 - (const char *)p);
    split_give(s, KSLLM_PART_CALL, text,
        json_unescape(text, (str){(char *)text, name.n - 2}));
    split_give(s, KSLLM_PART_ARGUMENTS, args.p, args.n);
    split_give(s, KSLLM_PART_CALL_END, "", 0);
    return true;
}

/* Objects one after the other, with or without brackets and commas; each is
 * given when it is whole. False: look at the byte again, as text. */
static bool split_json(split *s, u8 b) {
    if (!s->scan.depth && b != '{') {
        bool sep = json_is_space(b) || b == '[' || b == ']' || b == ',';
        if (!sep) split_no_call(s);
        else if (!s->n_items) split_put(s, b);
        return sep;
    }
    if (!s->scan.depth) s->n_key = s->used;
    json_step(&s->scan, b);
    if (s->scan.mode == JSON_BAD) {
        split_no_call(s);
        return false;
    }
    split_put(s, b);
    if (s->scan.mode != JSON_END) return true;
    s->scan = (json_scan){0};
    if (s->used > s->cap
        || !split_object(s, s->buffer + s->n_key, s->used - s->n_key)) {
        split_no_call(s);
        return true;
    }
    s->used = 0;
    s->n_items++;
    return true;
}

/* A name has neither white space nor '<' inside, and it must fit. False: as
 * above. */
static bool split_name(split *s, u8 b) {
    bool full = s->used == s->cap, ended = s->n_text != 0;
    if (json_is_space(b)) {
        if (!ended) s->n_text = s->used;
        if (s->used && !full) split_put(s, b);
        return true;
    }
    if (b != '<' && !ended && !full) {
        split_put(s, b);
        return true;
    }
    s->lost = s->lost || (b != '<' && !ended);
    split_no_call(s);
    return false;
}

CHAT_RARE void split_begin_call(split *s) {
    while (s->used && json_is_space(s->buffer[s->used - 1])) s->used--;
    split_give(s, KSLLM_PART_CALL, s->buffer, s->used);
    s->in_call = true;
    s->n_items = 0;
    s->n_key = s->used;
}

static void split_break(split *s) {
    s->broken = s->broken || s->in_call;
    s->in_call = false;
}

static void split_argument(split *s, const char *z) {
    while (*z) split_out(s, KSLLM_PART_ARGUMENTS, (u8)*z++);
}

CHAT_RARE void split_quoted(split *s, const u8 *p, size_t n) {
    const u8 *end = n ? p + n : p;
    split_argument(s, "\"");
    while (p < end) {
        u8 esc[8] = {0};
        json_escape(&p, end, esc);
        split_argument(s, (const char *)esc);
    }
    split_argument(s, "\"");
}

/* An argument: its value stays if it is JSON, otherwise it becomes a string. */
CHAT_RARE void split_pair(split *s) {
    if (!s->in_call) return;
    if (s->n_text > s->cap) {
        s->lost = true;
        split_break(s);
        return;
    }
    u8 *key = s->buffer, *v = key;
    size_t n_key = s->n_key, n = s->n_text - n_key;
    if (n) v += n_key;
    if (s->format->lines && n && *v == '\n') v++, n--;
    if (s->format->lines && n && v[n - 1] == '\n') n--;
    for (; n_key && json_is_space(key[n_key - 1]); n_key--) {}
    for (; n_key && json_is_space(*key); key++) n_key--;
    split_argument(s, s->n_items++ ? ", " : "{");
    split_quoted(s, key, n_key);
    split_argument(s, ": ");
    if (json_is_value(v, n)) {
        split_flush(s);
        split_give(s, KSLLM_PART_ARGUMENTS, v, n);
    } else split_quoted(s, v, n);
}

CHAT_RARE void split_end_call(split *s) {
    bool raw = s->state == SPLIT_ARGS;
    bool none = raw && !s->scan.depth && s->scan.mode == JSON_VALUE;
    if (raw && !none && !json_whole(&s->scan)) split_break(s);
    if (!s->in_call) return;
    if (none) split_argument(s, "{}");
    else if (!raw) split_argument(s, s->n_items ? "}" : "{}");
    split_flush(s);
    split_give(s, KSLLM_PART_CALL_END, "", 0);
    s->in_call = false;
}

/* What the state that ends has in the buffer, then the state that begins. */
CHAT_RARE void split_move(split *s, const split_mark *m) {
    u8 to = m->to;
    bool bad_name = s->state == SPLIT_NAME && !s->used;
    split_flush(s);
    if (!s->wait) s->n_text = s->used;
    if (bad_name || (s->state == SPLIT_JSON && s->used)) {
        split_no_call(s);
        if (bad_name) return;
    }
    if (s->state == SPLIT_NAME) split_begin_call(s);
    if (s->state == SPLIT_VALUE) split_pair(s);
    bool after_key = s->state == SPLIT_KEY;
    if (to == SPLIT_TEXT || to == SPLIT_HEAD || to == SPLIT_SKIP)
        split_end_call(s);
    if (after_key) s->used = s->n_key = s->n_text;
    else if (to != SPLIT_ARGS) s->used = 0;
    split_flush(s);
    split_enter(s, to);
}

/* A byte that belongs to no mark. False: look at it again, the state is
 * another one. */
static bool split_byte(split *s, u8 b) {
    if (s->wait && !json_is_space(b)) {     /* the tag before it was text */
        s->wait = NULL;
        return false;
    }
    switch (s->state) {
    case SPLIT_TEXT: case SPLIT_THINK:
        if (!s->wait) split_text(s, b);
        return true;
    case SPLIT_JSON: return split_json(s, b);
    case SPLIT_NAME: return split_name(s, b);
    case SPLIT_KEY: case SPLIT_VALUE: split_put(s, b); return true;
    case SPLIT_ARGS:
        json_step(&s->scan, b);
        if (s->prompt) split_put(s, b);
        else if (s->in_call && s->scan.mode != JSON_BAD)
            split_out(s, KSLLM_PART_ARGUMENTS, b);
        return true;
    default: return true;
    }
}

/* The mark that is held, or what it may become (*part). None counts inside of
 * a JSON string. */
static const split_mark *split_match(const split *s, size_t *n, bool *part) {
    const split_mark *m = s->format->marks;
    *part = false;
    if (json_in_string(&s->scan)) return NULL;
    for (; m->text; m++) {
        const char *text = s->wait ? m->then : m->text;
        if (!(m->from >> s->state & 1) || !text || *text != s->held[0]
            || (s->wait && strcmp(m->text, s->wait))) continue;
        *n = strlen(text);
        if (memcmp(text, s->held, min_size(*n, s->n_held))) continue;
        if (s->n_held >= *n) return m;
        *part = true;
    }
    return NULL;
}

/* Takes what is held apart; the beginning of a mark stays, unless the answer
 * is at its end. */
static void split_held(split *s, bool end) {
    while (s->n_held && !s->stopped) {
        size_t n = 1;
        bool part;
        const split_mark *m = split_match(s, &n, &part);
        if (part && !m && !end) return;
        if (m && m->then && !s->wait) {
            s->n_text = s->used;
            s->wait = m->text;
            for (size_t i = 0; i < n && s->state != SPLIT_TEXT; i++)
                split_put(s, (u8)s->held[i]);
            if (s->state == SPLIT_TEXT) s->newlines = 0, s->fresh = true;
        } else if (m) split_move(s, m);
        else if (split_byte(s, (u8)s->held[0])) n = 1;
        else continue;
        s->n_held = (u8)(s->n_held - n);
        memmove(s->held, s->held + n, s->n_held);
    }
}

/* The call that the prompt began. */
static void split_pay(split *s) {
    s->owed = false;
    if (s->used > s->cap) {
        s->lost = true;
        split_break(s);
        return;
    }
    split_give(s, KSLLM_PART_CALL, s->buffer, s->n_key);
    if (s->used > s->n_key)
        split_give(s, KSLLM_PART_ARGUMENTS, s->buffer + s->n_key,
            s->used - s->n_key);
}

static ksllm_status split_report(split *s, bool whole, ksllm_error *err) {
    bool lost = s->lost;
    s->lost = false;
    if (s->stopped)
        return fail(err, KSLLM_ERR_CANCELLED, NO_OFFSET,
            "the callback stopped the answer");
    if (lost)
        return fail(err, KSLLM_ERR_BUFFER, NO_OFFSET,
            "a tool call is longer than the splitter's %llu bytes",
            LLU(s->cap));
    return whole ? KSLLM_OK : fail(err, KSLLM_ERR_FORMAT, NO_OFFSET,
        s->broken ? "the arguments of a tool call are not JSON or too long"
            : "the answer ended inside of a tool call");
}

/* The next piece of an answer: OK, BUFFER, CANCELLED. */
static ksllm_status split_feed(split *s, str text, ksllm_error *err) {
    if (s->owed) split_pay(s);
    for (size_t i = 0; i < text.n && !s->stopped; i++) {
        s->held[s->n_held++] = text.p[i];
        split_held(s, false);
    }
    split_flush(s);
    return split_report(s, true, err);
}

/* Ends an answer: as above, or FORMAT. */
static ksllm_status split_finish(split *s, ksllm_error *err) {
    if (s->owed) split_pay(s);
    if (s->state <= SPLIT_THINK && !s->wait) split_held(s, true);
    if (s->state == SPLIT_TEXT)
        for (; s->newlines; s->newlines--)
            split_out(s, KSLLM_PART_TEXT, '\n');
    split_flush(s);
    bool whole = s->state == SPLIT_JSON ? s->n_items && !s->scan.depth
        : s->state <= SPLIT_HEAD && !s->wait;
    return split_report(s, whole && !s->in_call && !s->broken, err);
}

/* Cuts z and the white space after it off the end of *s. */
static bool split_cut_end(str *s, const char *z) {
    size_t n = strlen(z);
    str t = *s;
    while (t.n && json_is_space((u8)t.p[t.n - 1])) t.n--;
    if (t.n < n || memcmp(t.p + t.n - n, z, n)) return false;
    s->n = t.n - n;
    return true;
}

/* Reads what the prompt has of the answer: all that follows the last opening
 * in formats with headers, in others only a mark at the end. Elsewhere it may
 * be a user who wrote it. */
CHAT_RARE void split_prompt(split *s, str prompt) {
    const char *open = s->format->opening;
    size_t n = open ? strlen(open) : 0, at = prompt.n + 1;
    while (open && at-- > 0)
        if (prompt.n - at >= n && !memcmp(prompt.p + at, open, n)) break;
    if (open && at != SIZE_MAX) {
        split_feed(s, (str){prompt.p + at + n, prompt.n - at - n}, NULL);
        s->newlines = 0;
        if (s->state == SPLIT_TEXT || s->state == SPLIT_THINK) s->n_held = 0;
    }
    for (const split_mark *m = s->format->marks; !open && m->text; m++) {
        str p = prompt;
        if (!(m->from >> SPLIT_TEXT & 1)) continue;
        if (!m->then || split_cut_end(&p, m->then)) {
            if (!split_cut_end(&p, m->text)) continue;
            split_move(s, m);
        } else if (split_cut_end(&p, m->text)) s->wait = m->text;
        else continue;
        return;
    }
}

static void split_begin(split *s, const split_format *f, str prompt,
    void *buffer, size_t cap, ksllm_on_part on_part, void *ctx) {
    *s = (split){.format = f, .buffer = buffer, .cap = cap, .state = f->start,
        .on_part = on_part, .ctx = ctx, .prompt = true};
    if (prompt.n) split_prompt(s, prompt);
    s->owed = s->in_call;
    s->prompt = s->broken = false;
}

/* Whether a token's text ends the thinking that the answer is in: it may be
 * one that ends whole answers elsewhere. */
static bool split_ends_thinking(const split *s, str text) {
    if (s->state != SPLIT_THINK) return false;
    for (const split_mark *m = s->format->marks; m->text; m++)
        if ((m->from >> SPLIT_THINK & 1) && str_eq(text, str_of(m->text)))
            return true;
    return false;
}

#endif /* KSLLM_NO_CHAT */

/* ==========================================================================
 * § 14 MODEL (private)
 * From a file to a graph: the architectures as data, the hyperparameters, the
 * tensors bound to their places with their shapes checked. May use § 1-10.
 * A model that differs from these in switches only is a new row of MDL_ARCHS.
 * Everything here is read-only once mdl_open has returned.
 * ======================================================================== */

enum mdl_vector { /* float vectors of a layer; bit numbers in masks */
    V_ATTN_NORM, V_ATTN_POST_NORM, V_FFN_NORM, V_FFN_POST_NORM,
    V_Q_NORM, V_K_NORM, V_Q_BIAS, V_K_BIAS, V_V_BIAS, V_O_BIAS,
    V_Q_RANK_NORM, V_LATENT_NORM, V_ROUTER_BIAS,
    N_VECTORS
};

enum mdl_matrix_id {
    M_Q, M_K, M_V, M_O, M_GATE, M_UP, M_DOWN,
    /* attention through a latent vector: the query in two steps, the latent
     * and the key's rope part, then per head what makes keys and values */
    M_Q_A, M_Q_B, M_LATENT, M_K_B, M_V_B,
    /* attention's output gate, and the gates of gated norms */
    M_O_GATE, M_ATTN_NORM_A, M_ATTN_NORM_B, M_FFN_NORM_A, M_FFN_NORM_B,
    /* experts: all of a layer in one tensor; those that every token takes are
     * one wide expert */
    M_ROUTER, M_GATE_EXPERTS, M_UP_EXPERTS, M_DOWN_EXPERTS,
    M_GATE_SHARED, M_UP_SHARED, M_DOWN_SHARED,
    N_MATRICES
};

/* Lengths that shapes are made of. */
typedef enum {
    D_ONE, D_EMBD, D_VOCAB, D_ROPE, D_ROPE_PAIRS, D_HEADS,
    D_HEAD, D_VALUE,       /* a key and a value as the cache holds them */
    D_Q, D_KV, D_V, D_ATT, /* all queries, keys, values; the input of M_O */
    D_FFN,
    /* with a latent vector: its length, a key's part without rope, a value,
     * all queries against it, the input of M_Q_B */
    D_LATENT, D_NOPE, D_OUT, D_Q_LATENT, D_Q_RANK, D_Q_IN,
    D_NORM_RANK, D_EXPERTS, D_FFN_EXPERT, D_FFN_SHARED,
    N_DIMS
} mdl_dim;

/* The keys that they come from, for messages. */
static const char *const MDL_KEYS[N_DIMS] = {
    [D_EMBD] = "embedding_length", [D_VOCAB] = "vocabulary's length",
    [D_ROPE] = "rope.dimension_count", [D_ROPE_PAIRS] = "rope.dimension_count",
    [D_HEADS] = "attention.head_count",
    [D_HEAD] = "attention.key_length", [D_VALUE] = "attention.value_length",
    [D_Q] = "attention.head_count", [D_KV] = "attention.head_count_kv",
    [D_V] = "attention.head_count_kv", [D_ATT] = "attention.head_count",
    [D_FFN] = "feed_forward_length", [D_LATENT] = "attention.kv_lora_rank",
    [D_NOPE] = "attention.key_length_mla",
    [D_OUT] = "attention.value_length_mla",
    [D_Q_RANK] = "attention.q_lora_rank", [D_Q_IN] = "attention.q_lora_rank",
    [D_EXPERTS] = "expert_count",
    [D_FFN_EXPERT] = "expert_feed_forward_length",
    [D_FFN_SHARED] = "expert_shared_count",
};

typedef struct {
    const char *name; /* after "blk.N." */
    mdl_dim n_in;     /* contiguous */
    mdl_dim n_out;    /* rows of a matrix */
    mdl_dim n;        /* matrices, one after the other */
} mdl_slot;

static const mdl_slot MDL_VECTORS[N_VECTORS] = {
    [V_ATTN_NORM] = {"attn_norm.weight", D_EMBD, D_ONE, D_ONE},
    [V_ATTN_POST_NORM] =
        {"post_attention_norm.weight", D_EMBD, D_ONE, D_ONE},
    [V_FFN_NORM] = {"ffn_norm.weight", D_EMBD, D_ONE, D_ONE},
    [V_FFN_POST_NORM] = {"post_ffw_norm.weight", D_EMBD, D_ONE, D_ONE},
    [V_Q_NORM] = {"attn_q_norm.weight", D_HEAD, D_ONE, D_ONE},
    [V_K_NORM] = {"attn_k_norm.weight", D_HEAD, D_ONE, D_ONE},
    [V_Q_BIAS] = {"attn_q.bias", D_Q, D_ONE, D_ONE},
    [V_K_BIAS] = {"attn_k.bias", D_KV, D_ONE, D_ONE},
    [V_V_BIAS] = {"attn_v.bias", D_V, D_ONE, D_ONE},
    [V_O_BIAS] = {"attn_output.bias", D_EMBD, D_ONE, D_ONE},
    [V_Q_RANK_NORM] = {"attn_q_a_norm.weight", D_Q_RANK, D_ONE, D_ONE},
    [V_LATENT_NORM] = {"attn_kv_a_norm.weight", D_LATENT, D_ONE, D_ONE},
    [V_ROUTER_BIAS] = {"exp_probs_b.bias", D_EXPERTS, D_ONE, D_ONE},
};

static const mdl_slot MDL_MATRICES[N_MATRICES] = {
    [M_Q] = {"attn_q.weight", D_EMBD, D_Q, D_ONE},
    [M_K] = {"attn_k.weight", D_EMBD, D_KV, D_ONE},
    [M_V] = {"attn_v.weight", D_EMBD, D_V, D_ONE},
    [M_O] = {"attn_output.weight", D_ATT, D_EMBD, D_ONE},
    [M_GATE] = {"ffn_gate.weight", D_EMBD, D_FFN, D_ONE},
    [M_UP] = {"ffn_up.weight", D_EMBD, D_FFN, D_ONE},
    [M_DOWN] = {"ffn_down.weight", D_FFN, D_EMBD, D_ONE},
    [M_Q_A] = {"attn_q_a.weight", D_EMBD, D_Q_RANK, D_ONE},
    [M_Q_B] = {"attn_q_b.weight", D_Q_IN, D_Q, D_ONE},
    [M_LATENT] = {"attn_kv_a_mqa.weight", D_EMBD, D_HEAD, D_ONE},
    [M_K_B] = {"attn_k_b.weight", D_NOPE, D_LATENT, D_HEADS},
    [M_V_B] = {"attn_v_b.weight", D_LATENT, D_OUT, D_HEADS},
    [M_O_GATE] = {"attn_gate.weight", D_Q_IN, D_ATT, D_ONE},
    [M_ATTN_NORM_A] = {"attn_norm_gate_a.weight", D_EMBD, D_NORM_RANK, D_ONE},
    [M_ATTN_NORM_B] = {"attn_norm_gate_b.weight", D_NORM_RANK, D_EMBD, D_ONE},
    [M_FFN_NORM_A] = {"ffn_norm_gate_a.weight", D_EMBD, D_NORM_RANK, D_ONE},
    [M_FFN_NORM_B] = {"ffn_norm_gate_b.weight", D_NORM_RANK, D_EMBD, D_ONE},
    [M_ROUTER] = {"ffn_gate_inp.weight", D_EMBD, D_EXPERTS, D_ONE},
    [M_GATE_EXPERTS] =
        {"ffn_gate_exps.weight", D_EMBD, D_FFN_EXPERT, D_EXPERTS},
    [M_UP_EXPERTS] = {"ffn_up_exps.weight", D_EMBD, D_FFN_EXPERT, D_EXPERTS},
    [M_DOWN_EXPERTS] =
        {"ffn_down_exps.weight", D_FFN_EXPERT, D_EMBD, D_EXPERTS},
    [M_GATE_SHARED] = {"ffn_gate_shexp.weight", D_EMBD, D_FFN_SHARED, D_ONE},
    [M_UP_SHARED] = {"ffn_up_shexp.weight", D_EMBD, D_FFN_SHARED, D_ONE},
    [M_DOWN_SHARED] = {"ffn_down_shexp.weight", D_FFN_SHARED, D_EMBD, D_ONE},
};

#define BIT(x) (1u << (x))
#define NORMS_PRE (BIT(V_ATTN_NORM) | BIT(V_FFN_NORM))
#define NORMS_POST (BIT(V_ATTN_POST_NORM) | BIT(V_FFN_POST_NORM))
#define NORMS_QK (BIT(V_Q_NORM) | BIT(V_K_NORM))
#define BIAS_QKV (BIT(V_Q_BIAS) | BIT(V_K_BIAS) | BIT(V_V_BIAS))

/* expert_gating_func of the format; how router logits become weights. */
typedef enum { ROUTE_NONE, ROUTE_SOFTMAX, ROUTE_SIGMOID } mdl_routing;

/* Whether a model has layers that see only a window. Layers number period, 2 *
 * period, ... are global, unless the file says which are. */
typedef enum { WINDOW_NEVER, WINDOW_MAY, WINDOW_MUST } mdl_windows;

typedef struct {
    const char *name;        /* general.architecture */
    u32 need, may;           /* masks of mdl_vector */
    u32 need_experts;        /* more that layers with experts need */
    bool rope_halves;        /* pairs (i, i + n/2), not (2i, 2i + 1) */
    bool scale_embd;         /* embeddings times sqrt(n_embd) */
    bool latent;             /* keys and values from a latent vector */
    bool gated;              /* gated norms and attention output (A.X K2) */
    bool skips;              /* streams saved and mixed in again (Solar) */
    bool rope_local_only;    /* global layers have no rope */
    mdl_routing routing;     /* of a file with experts that does not say */
    k_activation act;
    mdl_windows windows;
    u32 window_period;
    f32 window_theta;        /* rope base of local layers; 0: as global */
    const char *ffn_norm;    /* its name, if not ffn_norm.weight */
} mdl_arch;

static const mdl_arch MDL_ARCHS[] = {
    {.name = "llama", .need = NORMS_PRE, .may = BIAS_QKV | BIT(V_O_BIAS)},
    {.name = "qwen2", .need = NORMS_PRE | BIAS_QKV, .may = BIT(V_O_BIAS),
        .rope_halves = true},
    {.name = "qwen3", .need = NORMS_PRE | NORMS_QK, .may = BIAS_QKV,
        .rope_halves = true},
    {.name = "gemma3", .need = NORMS_PRE | NORMS_POST | NORMS_QK,
        .rope_halves = true, .scale_embd = true, .act = K_GELU,
        .windows = WINDOW_MUST, .window_period = 6, .window_theta = 10000.0f},
    {.name = "exaone", .need = NORMS_PRE, .rope_halves = true},
    {.name = "exaone4", .need = NORMS_POST | NORMS_QK, .rope_halves = true,
        .windows = WINDOW_MAY, .window_period = 4, .rope_local_only = true},
    {.name = "exaone-moe", .need = NORMS_PRE | NORMS_QK, .rope_halves = true,
        .windows = WINDOW_MAY, .window_period = 4, .rope_local_only = true,
        .routing = ROUTE_SIGMOID},
    {.name = "hyperclovax", .need = NORMS_PRE,
        .may = NORMS_POST | BIAS_QKV | BIT(V_O_BIAS)},
    {.name = "kanana2-tiny", .need = NORMS_PRE | NORMS_QK,
        .rope_halves = true, .windows = WINDOW_MUST, .window_period = 4},
    {.name = "glm4moe", .need = NORMS_PRE, .may = NORMS_QK | BIAS_QKV,
        .rope_halves = true, .routing = ROUTE_SIGMOID,
        .ffn_norm = "post_attention_norm.weight"},
    {.name = "deepseek2", .need = NORMS_PRE, .latent = true,
        .routing = ROUTE_SOFTMAX},
    {.name = "axk1", .need = NORMS_PRE, .latent = true,
        .need_experts = BIT(V_FFN_POST_NORM), .routing = ROUTE_SIGMOID},
    {.name = "axk2", .need = NORMS_PRE, .latent = true, .gated = true,
        .routing = ROUTE_SIGMOID},
    {.name = "vaetki", .need = NORMS_PRE | NORMS_POST, .latent = true,
        .routing = ROUTE_SIGMOID, .windows = WINDOW_MUST, .window_period = 6},
    {.name = "solar", .need = NORMS_PRE, .skips = true},
};

typedef struct {
    const u8 *w; /* [n_out][n_in] */
    ksllm_type type;
    size_t n_in, n_out, row_bytes;
    size_t n; /* of them, n_out * row_bytes apart */
} mdl_matrix;

typedef struct {
    const u8 *vec[N_VECTORS]; /* f32; NULL where the model has none */
    mdl_matrix mat[N_MATRICES];
    u32 window; /* keys a query sees, itself included; 0: all */
    u32 rope;   /* index into mdl.rope, or MDL_NO_ROPE */
    bool experts;
    u32 skip_save, skip_mix; /* BIT(i): before it, stream i is kept, mixed in */
} mdl_layer;

enum { MDL_NO_ROPE = 2, MDL_STREAMS = 2, MDL_MAX_HEADS = 1 << 11 };

typedef struct {
    f32 *freq; /* [n_rope / 2] radians per position */
    f32 gain;  /* on cos and sin */
} mdl_rope;

struct ksllm_model {
    ksllm_allocator alloc;
    gguf g;
    tokenizer tok;
    const k_row *k;
    bool runs; /* false: vocabulary only */
    const mdl_arch *arch;
    size_t dim[N_DIMS];
    u32 n_layers, n_heads, n_kv_heads, n_ctx_train, window, n_ropes;
    u32 n_ctx_max; /* 0: no limit but memory */
    u32 n_blocks; /* in the file: those after the first n_layers predict
                     further tokens at once, and are not run */
    u32 n_experts_used, n_groups, n_groups_used, n_dense;
    mdl_routing routing;
    bool route_norm; /* an expert's share is of the chosen, not of all */
    f32 route_scale, skip_share;
    f32 eps, attn_scale, embd_scale, residual_scale, logit_scale;
    mdl_matrix embd, output;
    const u8 *output_norm, *rope_divisors;
    mdl_layer *layers;
    mdl_rope rope[2]; /* global, local */
    size_t layer_bytes, rope_bytes;
};

/* ---- hyperparameters ---- */

static const gguf_kv *mdl_find(const ksllm_model *m, const char *name) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", m->arch->name, name);
    return gguf_find(&m->g, key);
}

/* Reads the architecture's keys. The first error sticks; after it every value
 * is the least that is allowed, which is safe to compute with. */
typedef struct {
    const ksllm_model *m;
    ksllm_error *err;
    ksllm_status status;
} mdl_reader;

static void mdl_key_missing(mdl_reader *r, const char *name) {
    r->status = gguf_fail(&r->m->g, r->err, KSLLM_ERR_FORMAT, NO_OFFSET,
        "metadata key '%s.%s' is missing: convert the model again",
        r->m->arch->name, name);
}

/* Whether all items of an array are equal. */
static bool mdl_is_one(const gguf_kv *kv) {
    i64 first, v;
    for (u64 i = 1; i < kv->count; i++)
        if (gguf_int_at(kv, 0, &first) && gguf_int_at(kv, i, &v) && v != first)
            return false;
    return true;
}

/* An integer in [lo, hi], or one for each block if all are the same;
 * `fallback` if the key is absent, unless that is negative: then the key is
 * required. */
static u32 mdl_int(
    mdl_reader *r, const char *name, i64 lo, i64 hi, i64 fallback) {
    const ksllm_model *m = r->m;
    i64 v = fallback;
    if (r->status) return (u32)lo;
    const gguf_kv *kv = mdl_find(m, name);
    if (!kv && fallback < 0) mdl_key_missing(r, name);
    if (kv && kv->type == KSLLM_META_ARRAY
        && (kv->count != m->n_blocks || !kv->count))
        r->status = gguf_fail(&m->g, r->err, KSLLM_ERR_FORMAT, kv->offset,
            "'%.*s' has %llu values for %u blocks", STR(kv->key),
            LLU(kv->count), (unsigned)m->n_blocks);
    else if (kv && !mdl_is_one(kv))
        r->status = gguf_fail(&m->g, r->err, KSLLM_ERR_UNSUPPORTED, kv->offset,
            "'%.*s' differs between layers: this version cannot run it",
            STR(kv->key));
    else if (kv && (!gguf_int_at(kv, 0, &v) || v < lo || v > hi))
        r->status = gguf_fail(&m->g, r->err, KSLLM_ERR_FORMAT, kv->offset,
            "metadata key '%.*s' must be an integer from %lld to %lld",
            STR(kv->key), (long long)lo, (long long)hi);
    return (u32)(r->status ? lo : v);
}

static f64 mdl_float(
    mdl_reader *r, const char *name, f64 lo, f64 hi, f64 fallback) {
    f64 v = fallback;
    if (r->status) return lo;
    const gguf_kv *kv = mdl_find(r->m, name);
    if (!kv && fallback < 0) mdl_key_missing(r, name);
    if (kv && (kv->type == KSLLM_META_ARRAY || !gguf_num_at(kv, 0, &v)
            || !(v >= lo && v <= hi)))
        r->status = gguf_fail(&r->m->g, r->err, KSLLM_ERR_FORMAT, kv->offset,
            "metadata key '%.*s' must be a number from %g to %g", STR(kv->key),
            lo, hi);
    return r->status ? lo : v;
}

static ksllm_status mdl_find_arch(ksllm_model *m, ksllm_error *err) {
    str name = gguf_get_str(&m->g, "general.architecture");
    if (!name.p)
        return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
            "metadata key 'general.architecture' is missing");
    for (size_t i = 0; i < KS_LEN(MDL_ARCHS); i++)
        if (str_eq(name, str_of(MDL_ARCHS[i].name))) m->arch = &MDL_ARCHS[i];
    if (m->arch) return KSLLM_OK;
    return gguf_fail(&m->g, err, KSLLM_ERR_UNSUPPORTED,
        gguf_find(&m->g, "general.architecture")->offset,
        "architecture '%.*s' is not supported: the README lists those that "
        "are", STR(name));
}

/* Upper limits keep every product of two of these within 64 bits, and every
 * one of them within what a file with such tensors could back. */
static ksllm_status mdl_read_sizes(ksllm_model *m, ksllm_error *err) {
    mdl_reader r = {m, err, KSLLM_OK};
    const i64 top = 1 << 24, optional = m->arch->routing ? 0 : -1;
    m->n_blocks = mdl_int(&r, "block_count", 1, 1 << 12, -1);
    m->n_ctx_train = mdl_int(&r, "context_length", 1, 1 << 30, -1);
    u32 n_embd = mdl_int(&r, "embedding_length", 1, top, -1);
    u32 n_ffn = mdl_int(&r, "feed_forward_length", 1, top, optional);
    u32 heads = mdl_int(&r, "attention.head_count", 1, MDL_MAX_HEADS, -1);
    m->n_layers = m->n_blocks
        - mdl_int(&r, "nextn_predict_layers", 0, m->n_blocks - 1, 0);
    u32 kv = mdl_int(&r, "attention.head_count_kv", 1, MDL_MAX_HEADS, heads);
    u32 key = mdl_int(
        &r, "attention.key_length", 1, 1 << 16, n_embd / heads);
    u32 value = mdl_int(&r, "attention.value_length", 1, 1 << 16, key);
    u32 rope = mdl_int(
        &r, "rope.dimension_count", 2, key, m->arch->latent ? -1 : (i64)key);
    if (r.status) return r.status;
    if (!key || rope % 2 || heads % kv)
        return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT,
            mdl_find(m, "attention.head_count")->offset,
            "%u attention heads on '%s.attention.head_count_kv' %u, key length "
            "%u, rope.dimension_count %u do not go together", (unsigned)heads,
            m->arch->name, (unsigned)kv, (unsigned)key, (unsigned)rope);
    m->n_heads = heads;
    m->n_kv_heads = kv;
    const size_t dim[N_DIMS] = {[D_ONE] = 1, [D_EMBD] = n_embd,
        [D_FFN] = n_ffn, [D_HEADS] = heads, [D_HEAD] = key, [D_VALUE] = value,
        [D_ROPE] = rope, [D_ROPE_PAIRS] = rope / 2, [D_Q] = (size_t)heads * key,
        [D_KV] = (size_t)kv * key, [D_V] = (size_t)kv * value,
        [D_ATT] = (size_t)heads * value, [D_VOCAB] = (size_t)m->tok.n_vocab};
    memcpy(m->dim, dim, sizeof dim);
    return KSLLM_OK;
}

/* Sizes of attention through a latent vector: the cache holds the latent and
 * the rope part of the key, one KV head for all, and a value is the key's
 * first part. */
static ksllm_status mdl_read_latent(ksllm_model *m, ksllm_error *err) {
    mdl_reader r = {m, err, KSLLM_OK};
    size_t *d = m->dim;
    u32 latent = mdl_int(&r, "attention.kv_lora_rank", 1, 1 << 16, -1);
    u32 key = mdl_int(&r, "attention.key_length_mla", 1, 1 << 16, -1);
    u32 value = mdl_int(&r, "attention.value_length_mla", 1, 1 << 16, -1);
    u32 rank = mdl_int(&r, "attention.q_lora_rank", 0, 1 << 24, 0);
    if (r.status) return r.status;
    if (m->n_kv_heads != 1 || key <= d[D_ROPE]
        || d[D_HEAD] != latent + d[D_ROPE] || d[D_VALUE] != latent)
        return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
            "'%s.attention.key_length_mla' %u, kv_lora_rank %u, %u KV heads, "
            "key length %u, value length %u, rope.dimension_count %u do not go "
            "together", m->arch->name, (unsigned)key, (unsigned)latent,
            (unsigned)m->n_kv_heads, (unsigned)d[D_HEAD], (unsigned)d[D_VALUE],
            (unsigned)d[D_ROPE]);
    d[D_LATENT] = latent;
    d[D_NOPE] = key - d[D_ROPE];
    d[D_OUT] = value;
    d[D_Q_LATENT] = d[D_Q];
    d[D_Q] = (size_t)m->n_heads * key;
    d[D_ATT] = (size_t)m->n_heads * value;
    d[D_V] = 0;
    d[D_Q_RANK] = rank;
    d[D_Q_IN] = rank * (m->arch->gated ? 2u : 1u);
    return KSLLM_OK;
}

/* Groups of experts that can be chosen from, and enough experts in them. */
static ksllm_status mdl_check_groups(
    const ksllm_model *m, u32 n, ksllm_error *err) {
    bool masks = m->n_groups > m->n_groups_used;
    if (masks && (m->routing != ROUTE_SIGMOID || m->arch->gated))
        return gguf_fail(&m->g, err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "'%s.expert_group_used_count' is %u of %u; here groups can be "
            "chosen by the DeepSeek-V3 rule only", m->arch->name,
            (unsigned)m->n_groups_used, (unsigned)m->n_groups);
    u64 open = (u64)n / m->n_groups * m->n_groups_used;
    if (n % m->n_groups || m->n_experts_used > open)
        return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
            "metadata key '%s.expert_group_count' is %u (%u used): %u experts, "
            "%u of them used, cannot be split so", m->arch->name,
            (unsigned)m->n_groups, (unsigned)m->n_groups_used, (unsigned)n,
            (unsigned)m->n_experts_used);
    return KSLLM_OK;
}

/* A model without experts is one whose layers are all dense. The limit on
 * experts is one on time: choosing them and masking groups takes up to its
 * square in steps, for every token, and nothing can stop it in between. */
static ksllm_status mdl_read_experts(ksllm_model *m, ksllm_error *err) {
    mdl_reader r = {m, err, KSLLM_OK};
    mdl_routing usual = m->arch->routing;
    u32 n = usual ? mdl_int(&r, "expert_count", 0, 1 << 12, 0) : 0;
    m->n_dense = m->n_layers;
    if (!n) return r.status;
    m->n_experts_used = mdl_int(&r, "expert_used_count", 1, n, -1);
    u32 ffn = mdl_int(&r, "expert_feed_forward_length", 1, 1 << 24, -1);
    u32 n_shared = mdl_int(&r, "expert_shared_count", 0, 256, 0);
    m->n_groups = mdl_int(&r, "expert_group_count", 1, n, 1);
    m->routing = (mdl_routing)mdl_int(&r, "expert_gating_func", 1, 2, usual);
    m->route_norm = mdl_int(&r, "expert_weights_norm", 0, 1, 0);
    m->n_dense =
        mdl_int(&r, "leading_dense_block_count", 0, m->n_layers, 0);
    m->n_groups_used = mdl_int(
        &r, "expert_group_used_count", 1, m->n_groups, m->n_groups);
    u32 shared = mdl_int(&r, "expert_shared_feed_forward_length", 1, 1 << 24,
        (i64)n_shared * ffn);
    f64 scale = mdl_float(&r, "expert_weights_scale", 0, 1e6, 1);
    m->route_scale = scale > 0 ? (f32)scale : 1.0f;
    m->dim[D_EXPERTS] = n;
    m->dim[D_FFN_EXPERT] = ffn;
    m->dim[D_FFN_SHARED] = n_shared ? shared : 0;
    return r.status ? r.status : mdl_check_groups(m, n, err);
}

static ksllm_status mdl_read_others(ksllm_model *m, ksllm_error *err) {
    mdl_reader r = {m, err, KSLLM_OK};
    const mdl_arch *a = m->arch;
    f64 head = (f64)m->dim[D_HEAD], embd = (f64)m->dim[D_EMBD];
    f64 embd_scale = a->scale_embd ? __builtin_sqrt(embd) : 1;
    if (a->latent) head = (f64)(m->dim[D_NOPE] + m->dim[D_ROPE]);
    /* Gemma 3 27B alone scales by n_embd / n_heads; its file does not say. */
    if (a->scale_embd && m->n_layers == 62) head = embd / m->n_heads;
    m->eps = (f32)mdl_float(&r, "attention.layer_norm_rms_epsilon", 0, 1, -1);
    f64 scale = mdl_float(&r, "attention.scale", 0, 1e6, 0);
    m->attn_scale = (f32)(scale > 0 ? scale : 1 / __builtin_sqrt(head));
    m->embd_scale =
        (f32)mdl_float(&r, "embedding_scale", 1e-6, 1e6, embd_scale);
    m->residual_scale = (f32)mdl_float(&r, "residual_scale", 1e-6, 1e6, 1);
    m->logit_scale = (f32)mdl_float(&r, "logit_scale", 1e-6, 1e6, 1);
    m->skip_share = (f32)mdl_float(&r, "skip.weight", 0, 1, a->skips ? -1 : 0);
    if (a->windows)
        m->window = mdl_int(&r, "attention.sliding_window", 1, 1 << 30,
            a->windows == WINDOW_MUST ? -1 : 0);
    if (!a->gated) return r.status;
    /* A.X K2: the rank of the gated norms is that of the tensors; contexts end
     * where its sparse attention would begin to leave keys out. */
    const gguf_tensor *t = gguf_find_tensor(
        &m->g, str_of("blk.0.attn_norm_gate_a.weight"));
    m->dim[D_NORM_RANK] = t ? (size_t)t->n_rows : 0;
    m->n_ctx_max = mdl_int(&r, "attention.indexer.top_k", 1, 1 << 30, -1);
    return r.status;
}

/* ---- rope frequencies ---- */

typedef struct {
    enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN } kind;
    f64 theta, factor, original;
    f64 low, high;           /* llama3: wavelengths original / low, / high */
    f64 fast, slow, ext, attn; /* yarn: beta_fast, beta_slow, mix, gain */
    f64 log_mul; /* yarn of latent models: 0.1 mscale_all_dim */
} mdl_scaling;

static ksllm_status mdl_read_scaling(
    const ksllm_model *m, mdl_scaling *s, ksllm_error *err) {
    static const char *const names[] = {"none", "linear", "llama3", "yarn"};
    const f64 top = 1e12, tiny = 1e-3;
    const gguf_kv *kv = mdl_find(m, "rope.scaling.type");
    str type = gguf_text(kv);
    u32 kind = 0;
    while (type.p && kind < KS_LEN(names)
            && !str_eq(type, str_of(names[kind])))
        kind++;
    if (kind == KS_LEN(names))
        return gguf_fail(&m->g, err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "'%.*s' is '%.*s'; none, linear, llama3 and yarn can be run",
            STR(kv->key), STR(type));
    mdl_reader r = {m, err, KSLLM_OK};
    s->kind = kind;
    s->theta = mdl_float(&r, "rope.freq_base", 1, top, 10000);
    s->factor = mdl_float(
        &r, "rope.scaling.factor", tiny, top, kind ? -1 : 1);
    s->original = mdl_float(&r, "rope.scaling.original_context_length", 1, top,
        m->n_ctx_train);
    s->low = mdl_float(&r, "rope.scaling.low_freq_factor", tiny, top, 1);
    s->high = mdl_float(&r, "rope.scaling.high_freq_factor", tiny, top, 4);
    s->fast = mdl_float(&r, "rope.scaling.yarn_beta_fast", tiny, top, 32);
    s->slow = mdl_float(&r, "rope.scaling.yarn_beta_slow", tiny, top, 1);
    s->ext = mdl_float(&r, "rope.scaling.yarn_ext_factor", 0, top, 1);
    s->attn = mdl_float(&r, "rope.scaling.attn_factor", 0, top, 1);
    s->log_mul =
        mdl_float(&r, "rope.scaling.yarn_log_multiplier", 0, top, 0);
    return r.status;
}

static f64 mdl_clamp(f64 x, f64 lo, f64 hi) { /* NaN is lo */
    return !(x >= lo) ? lo : x > hi ? hi : x;
}

/* Llama 3.1: long wavelengths are divided, short ones kept, those between
 * mixed (transformers, modeling_rope_utils). */
static f64 mdl_freq_llama3(const mdl_scaling *s, f64 f) {
    f64 wave = 6.283185307179586 / f;
    if (wave < s->original / s->high) return f;
    if (wave > s->original / s->low) return f / s->factor;
    f64 t = (s->original / wave - s->low) / (s->high - s->low);
    return (1 - t) * f / s->factor + t * f;
}

/* The dimension that turns `beta` times over the original context. */
static f64 mdl_yarn_dim(const mdl_scaling *s, f64 n_rope, f64 beta) {
    return n_rope * m_ln(s->original / (beta * 6.283185307179586))
        / (2 * m_ln(s->theta));
}

/* YaRN (Peng et al. 2023): dimensions that turn fast stay, slow ones are
 * divided, with a ramp between. */
static f64 mdl_freq_yarn(const mdl_scaling *s, f64 f, size_t i, size_t n_rope) {
    f64 n = (f64)n_rope, top = n - 1;
    f64 a = mdl_clamp(mdl_yarn_dim(s, n, s->fast), 0, top);
    f64 b = mdl_clamp(mdl_yarn_dim(s, n, s->slow), 0, top);
    f64 lo = (f64)(i64)a, hi = (f64)(i64)b + ((f64)(i64)b < b);
    f64 width = hi - lo > 1e-3 ? hi - lo : 1e-3;
    f64 ramp = mdl_clamp(((f64)i - lo) / width, 0, 1);
    f64 kept = (1 - ramp) * s->ext;
    return f / s->factor * (1 - kept) + f * kept;
}

static void mdl_fill_rope(
    const ksllm_model *m, const mdl_scaling *s, f64 theta, mdl_rope *r) {
    size_t n = m->dim[D_ROPE];
    for (size_t i = 0; i < n / 2; i++) {
        f64 f = m_pow(theta, -2.0 * (f64)i / (f64)n);
        if (s->kind == ROPE_LINEAR) f /= s->factor;
        if (s->kind == ROPE_LLAMA3) f = mdl_freq_llama3(s, f);
        if (s->kind == ROPE_YARN) f = mdl_freq_yarn(s, f, i, n);
        r->freq[i] = (f32)f;
    }
    bool grows = s->kind == ROPE_YARN && s->ext > 0 && s->factor > 1
        && !(s->log_mul > 0);
    r->gain = s->kind == ROPE_YARN ? (f32)s->attn : 1.0f;
    if (grows) r->gain = (f32)(s->attn * (1 + 0.1 * m_ln(s->factor)));
}

/* Scaling and divisors are for the layers that see everything, unless only
 * the others have rope at all. Models with a latent vector scale their scores
 * where others scale cosine and sine. */
static ksllm_status mdl_make_ropes(ksllm_model *m, ksllm_error *err) {
    mdl_scaling s, plain = {.kind = ROPE_PLAIN};
    TRY(mdl_read_scaling(m, &s, err));
    mdl_reader r = {m, err, KSLLM_OK};
    f64 theta = m->arch->window_theta > 0 ? (f64)m->arch->window_theta
                                          : s.theta;
    f64 local = mdl_float(&r, "rope.freq_base_swa", 1, 1e12, theta);
    if (r.status) return r.status;
    size_t half = m->dim[D_ROPE] / 2;
    m->n_ropes = m->window && !m->arch->rope_local_only ? 2 : 1;
    m->rope_bytes = m->n_ropes * half * sizeof(f32);
    m->rope[0].freq = mem_alloc(&m->alloc, m->rope_bytes);
    if (!m->rope[0].freq) return fail_memory(err, m->rope_bytes);
    mdl_fill_rope(m, &s, s.theta, &m->rope[0]);
    if (m->rope_divisors)
        for (size_t i = 0; i < half; i++)
            m->rope[0].freq[i] /= ld_f32(m->rope_divisors + 4 * i);
    if (m->arch->latent && s.kind == ROPE_YARN && s.factor > 1) {
        f64 grown = 1 + s.log_mul * m_ln(s.factor);
        m->attn_scale = (f32)((f64)m->attn_scale * grown * grown);
    }
    if (m->n_ropes == 1) return KSLLM_OK;
    m->rope[1].freq = m->rope[0].freq + half;
    mdl_fill_rope(m, &plain, local, &m->rope[1]);
    return KSLLM_OK;
}

/* ---- tensors ---- */

/* Whether a tensor's lengths are what the metadata says. */
static ksllm_status mdl_check_shape(const ksllm_model *m,
    const gguf_tensor *t, const mdl_slot *s, ksllm_error *err) {
    const mdl_dim dims[4] = {s->n_in, s->n_out, s->n, D_ONE};
    for (u32 i = 0; i < 4; i++) {
        const char *key = MDL_KEYS[dims[i]];
        if (t->dims[i] != m->dim[dims[i]])
            return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, t->offset,
                "tensor '%.*s' has a length of %llu where '%s%s%s' makes it "
                "%llu", STR(t->name), LLU(t->dims[i]), key ? m->arch->name : "",
                key ? "." : "", key ? key : "the format", LLU(m->dim[dims[i]]));
    }
    return KSLLM_OK;
}

static ksllm_status mdl_bind_vector(const ksllm_model *m, const gguf_tensor *t,
    const mdl_slot *s, const u8 **out, ksllm_error *err) {
    *out = t->data;
    if (t->type == KSLLM_TYPE_F32) return mdl_check_shape(m, t, s, err);
    return gguf_fail(&m->g, err, KSLLM_ERR_UNSUPPORTED, t->offset,
        "tensor '%.*s' has type %s, F32 is needed there: convert the model "
        "again", STR(t->name), BLK_TYPES[t->type].name);
}

static ksllm_status mdl_bind_matrix(const ksllm_model *m, const gguf_tensor *t,
    const mdl_slot *s, mdl_matrix *out, ksllm_error *err) {
    *out = (mdl_matrix){t->data, (ksllm_type)t->type, m->dim[s->n_in],
        m->dim[s->n_out], (size_t)t->row_bytes, m->dim[s->n]};
    return mdl_check_shape(m, t, s, err);
}

/* "blk.12.attn_q.weight" to 12 and "attn_q.weight". */
static bool mdl_split_name(str name, u32 *layer, str *rest) {
    if (name.n < 6 || memcmp(name.p, "blk.", 4) != 0) return false;
    size_t i = 4;
    u32 v = 0;
    for (; i < name.n && v < 100000; i++) {
        u32 digit = (u32)(u8)name.p[i] - '0';
        if (digit > 9) break;
        v = v * 10 + digit;
    }
    if (i == 4 || i >= name.n || name.p[i] != '.') return false;
    *layer = v;
    *rest = (str){name.p + i + 1, name.n - i - 1};
    return true;
}

static ksllm_status mdl_unknown(
    const ksllm_model *m, const gguf_tensor *t, ksllm_error *err) {
    return gguf_fail(&m->g, err, KSLLM_ERR_UNSUPPORTED, t->offset,
        "tensor '%.*s' has no place in architecture %s with %u layers; running "
        "without it would give wrong results", STR(t->name), m->arch->name,
        (unsigned)m->n_layers);
}

/* What a layer consists of, as masks. */
typedef struct {
    u32 matrices, vectors, may;
} mdl_parts;

/* Decides both what a layer must have and what it may have: a tensor that is
 * in neither mask is refused, since leaving it out would change results. */
static mdl_parts mdl_parts_of(const ksllm_model *m, const mdl_layer *l) {
    const mdl_arch *a = m->arch;
    mdl_parts p = {BIT(M_O), a->need, a->may};
    if (!a->latent) {
        p.matrices |= BIT(M_Q) | BIT(M_K) | BIT(M_V);
    } else {
        p.matrices |= BIT(M_LATENT) | BIT(M_K_B) | BIT(M_V_B);
        p.matrices |= m->dim[D_Q_RANK] ? BIT(M_Q_A) | BIT(M_Q_B) : BIT(M_Q);
        p.vectors |= BIT(V_LATENT_NORM);
        if (m->dim[D_Q_RANK]) p.vectors |= BIT(V_Q_RANK_NORM);
    }
    if (a->gated)
        p.matrices |= BIT(M_O_GATE) | BIT(M_ATTN_NORM_A) | BIT(M_ATTN_NORM_B);
    if (!l->experts) {
        p.matrices |= BIT(M_GATE) | BIT(M_UP) | BIT(M_DOWN);
        return p;
    }
    p.matrices |= BIT(M_ROUTER) | BIT(M_GATE_EXPERTS) | BIT(M_UP_EXPERTS)
        | BIT(M_DOWN_EXPERTS);
    if (m->dim[D_FFN_SHARED])
        p.matrices |=
            BIT(M_GATE_SHARED) | BIT(M_UP_SHARED) | BIT(M_DOWN_SHARED);
    if (a->gated) p.matrices |= BIT(M_FFN_NORM_A) | BIT(M_FFN_NORM_B);
    p.vectors |= a->need_experts;
    p.may |= BIT(V_ROUTER_BIAS);
    return p;
}

static const char *mdl_vector_name(const ksllm_model *m, u32 i) {
    const char *other = i == V_FFN_NORM ? m->arch->ffn_norm : NULL;
    return other ? other : MDL_VECTORS[i].name;
}

static ksllm_status mdl_bind_in_layer(ksllm_model *m, const gguf_tensor *t,
    mdl_layer *l, str rest, ksllm_error *err) {
    mdl_parts p = mdl_parts_of(m, l);
    for (u32 i = 0; i < N_MATRICES; i++)
        if (p.matrices & BIT(i) && str_eq(rest, str_of(MDL_MATRICES[i].name)))
            return mdl_bind_matrix(m, t, &MDL_MATRICES[i], &l->mat[i], err);
    for (u32 i = 0; i < N_VECTORS; i++)
        if ((p.vectors | p.may) & BIT(i)
            && str_eq(rest, str_of(mdl_vector_name(m, i))))
            return mdl_bind_vector(m, t, &MDL_VECTORS[i], &l->vec[i], err);
    return mdl_unknown(m, t, err);
}

static ksllm_status mdl_bind(
    ksllm_model *m, const gguf_tensor *t, ksllm_error *err) {
    static const mdl_slot embd = {"token_embd.weight", D_EMBD, D_VOCAB, D_ONE};
    static const mdl_slot output = {"output.weight", D_EMBD, D_VOCAB, D_ONE};
    static const mdl_slot norm = {"output_norm.weight", D_EMBD, D_ONE, D_ONE};
    static const mdl_slot rope =
        {"rope_freqs.weight", D_ROPE_PAIRS, D_ONE, D_ONE};
    u32 layer;
    str rest;
    if (mdl_split_name(t->name, &layer, &rest) && layer < m->n_blocks)
        return layer < m->n_layers
            ? mdl_bind_in_layer(m, t, &m->layers[layer], rest, err)
            : KSLLM_OK;
    if (str_eq(t->name, str_of(embd.name)))
        return mdl_bind_matrix(m, t, &embd, &m->embd, err);
    if (str_eq(t->name, str_of(output.name)))
        return mdl_bind_matrix(m, t, &output, &m->output, err);
    if (str_eq(t->name, str_of(norm.name)))
        return mdl_bind_vector(m, t, &norm, &m->output_norm, err);
    if (str_eq(t->name, str_of(rope.name)))
        return mdl_bind_vector(m, t, &rope, &m->rope_divisors, err);
    return mdl_unknown(m, t, err);
}

static ksllm_status mdl_missing(
    const ksllm_model *m, i32 layer, const char *name, ksllm_error *err) {
    char prefix[24] = "";
    if (layer >= 0) snprintf(prefix, sizeof prefix, "blk.%d.", (int)layer);
    return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
        "tensor '%s%s' is missing; architecture %s needs it", prefix, name,
        m->arch->name);
}

static ksllm_status mdl_check_complete(ksllm_model *m, ksllm_error *err) {
    if (!m->embd.w) return mdl_missing(m, -1, "token_embd.weight", err);
    if (!m->output_norm) return mdl_missing(m, -1, "output_norm.weight", err);
    if (!m->output.w) m->output = m->embd; /* tied */
    for (u32 n = 0; n < m->n_layers; n++) {
        const mdl_layer *l = &m->layers[n];
        mdl_parts p = mdl_parts_of(m, l);
        for (u32 i = 0; i < N_MATRICES; i++)
            if (p.matrices & BIT(i) && !l->mat[i].w)
                return mdl_missing(m, (i32)n, MDL_MATRICES[i].name, err);
        for (u32 i = 0; i < N_VECTORS; i++)
            if (p.vectors & BIT(i) && !l->vec[i])
                return mdl_missing(m, (i32)n, mdl_vector_name(m, i), err);
    }
    return KSLLM_OK;
}

/* Before the tensors are bound: this message says more than a wrong length. */
static ksllm_status mdl_check_vocab(const ksllm_model *m, ksllm_error *err) {
    const gguf_tensor *t = gguf_find_tensor(&m->g, str_of("token_embd.weight"));
    if (!t || t->n_rows == m->dim[D_VOCAB]) return KSLLM_OK;
    return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, t->offset,
        "tensor 'token_embd.weight' has %llu rows, tokenizer.ggml.tokens has "
        "%llu tokens", LLU(t->n_rows), LLU(m->dim[D_VOCAB]));
}

/* Item i of an array with one number per block. */
static i64 mdl_per_block(mdl_reader *r, const char *name, u32 i) {
    const ksllm_model *m = r->m;
    const gguf_kv *kv = mdl_find(m, name);
    i64 v;
    if (kv && kv->type == KSLLM_META_ARRAY && i < kv->count
        && gguf_int_at(kv, i, &v))
        return v;
    if (!r->status)
        r->status = gguf_fail(&m->g, r->err, KSLLM_ERR_FORMAT,
            kv ? kv->offset : NO_OFFSET,
            "metadata key '%s.%s' must be an array of %u whole numbers",
            m->arch->name, name, (unsigned)m->n_layers);
    return 0;
}

/* Which layers have the window: the file may say, as a period or for each. */
static ksllm_status mdl_place_windows(ksllm_model *m, ksllm_error *err) {
    static const char name[] = "attention.sliding_window_pattern";
    mdl_reader r = {m, err, KSLLM_OK};
    const gguf_kv *kv = mdl_find(m, name);
    if (!m->window) return KSLLM_OK;
    bool each = kv && kv->type == KSLLM_META_ARRAY;
    u32 period = each ? 1
        : mdl_int(&r, name, 1, 1 << 12, m->arch->window_period);
    for (u32 i = 0; i < m->n_layers && !r.status; i++) {
        bool only = m->arch->rope_local_only;
        bool local = each ? mdl_per_block(&r, name, i) != 0
                          : (i + 1) % period != 0;
        mdl_layer *l = &m->layers[i];
        l->window = local ? m->window : 0;
        l->rope = local ? !only : only ? MDL_NO_ROPE : 0;
    }
    return r.status;
}

/* Only a stream that was kept before may be mixed in: there is nothing else
 * in its memory but what an earlier batch left. */
static ksllm_status mdl_place_skips(ksllm_model *m, ksllm_error *err) {
    mdl_reader r = {m, err, KSLLM_OK};
    i64 kept = 0;
    for (u32 i = 0; i < m->n_layers && m->arch->skips && !r.status; i++) {
        i64 save = mdl_per_block(&r, "skip.save", i);
        i64 mix = mdl_per_block(&r, "skip.mix", i);
        kept |= save;
        if ((save | mix) >> MDL_STREAMS || mix & ~kept)
            return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
                "metadata keys '%s.skip.save' %lld and skip.mix %lld of block "
                "%u: there are %d streams, mixed in only once kept",
                m->arch->name, (long long)save, (long long)mix, (unsigned)i,
                (int)MDL_STREAMS);
        m->layers[i].skip_save = (u32)save;
        m->layers[i].skip_mix = (u32)mix;
    }
    return r.status;
}

/* Each layer has at least seven tensors, so a file bounds its layer count. */
static ksllm_status mdl_make_layers(ksllm_model *m, ksllm_error *err) {
    if (m->n_layers > m->g.n_tensors / 7)
        return gguf_fail(&m->g, err, KSLLM_ERR_FORMAT, NO_OFFSET,
            "'%s.block_count' is %u, but there are only %u tensors: tensors "
            "are missing", m->arch->name, (unsigned)m->n_layers,
            (unsigned)m->g.n_tensors);
    m->layer_bytes = m->n_layers * sizeof *m->layers;
    m->layers = mem_alloc(&m->alloc, m->layer_bytes);
    if (!m->layers) return fail_memory(err, m->layer_bytes);
    memset(m->layers, 0, m->layer_bytes);
    for (u32 i = m->n_dense; i < m->n_layers; i++) m->layers[i].experts = true;
    TRY(mdl_place_windows(m, err));
    return mdl_place_skips(m, err);
}

static ksllm_status mdl_read_graph(ksllm_model *m, ksllm_error *err) {
    TRY(mdl_find_arch(m, err));
    TRY(mdl_read_sizes(m, err));
    if (m->arch->latent) TRY(mdl_read_latent(m, err));
    TRY(mdl_read_experts(m, err));
    TRY(mdl_read_others(m, err));
    TRY(mdl_check_vocab(m, err));
    TRY(mdl_make_layers(m, err));
    for (u32 i = 0; i < m->g.n_tensors; i++)
        TRY(mdl_bind(m, &m->g.tensors[i], err));
    TRY(mdl_check_complete(m, err));
    TRY(mdl_make_ropes(m, err));
    m->runs = true;
    return KSLLM_OK;
}

static bool mdl_is_token(const ksllm_model *m, i32 token) {
    return token >= 0 && (u32)token < m->tok.n_vocab;
}

static ksllm_status mdl_check_tokens(
    const ksllm_model *m, const i32 *tokens, size_t n, ksllm_error *err) {
    for (size_t i = 0; i < n; i++)
        if (!mdl_is_token(m, tokens[i]))
            return fail(err, KSLLM_ERR_TOKEN, NO_OFFSET,
                "token %llu of %llu is %ld; the vocabulary has 0 to %lld",
                LLU(i), LLU(n), (long)tokens[i], (long long)m->tok.n_vocab - 1);
    return KSLLM_OK;
}

static void mdl_close(ksllm_model *m) {
    ksllm_allocator a = m->alloc;
    tok_close(&m->tok, &a);
    mem_free(&a, m->rope[0].freq, m->rope_bytes);
    mem_free(&a, m->layers, m->layer_bytes);
    gguf_close(&m->g, &a);
    mem_free(&a, m, sizeof *m);
}

static ksllm_allocator mdl_allocator(const ksllm_model_options *o) {
    return o->allocator ? *o->allocator : MEM_LIBC;
}

/* Opens the model in `file`, which it takes over even when it fails. */
static ksllm_status mdl_open(os_file file, str name, const char *path,
    const ksllm_model_options *o, ksllm_model **out, ksllm_error *err) {
    ksllm_allocator a = mdl_allocator(o);
    ksllm_model *m = mem_alloc(&a, sizeof *m);
    if (!m) {
        os_close(&file, &a);
        return fail_memory(err, sizeof *m);
    }
    memset(m, 0, sizeof *m);
    m->alloc = a;
    m->g.name = name;
    m->g.vocab_only = o->vocab_only;
    m->g.in_memory = o->in_memory;
    m->k = k_choose(o->isa);
    ksllm_status status = gguf_open(&m->g, file, path, &a, err);
    if (!status && !m->k)
        status = fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
            "options.isa '%s' is no name that ksllm_isa_at() gives", o->isa);
    if (!status)
        status = tok_open(&m->tok, &m->g, o->pretokenizer, &a, err);
    if (!status && !o->vocab_only) status = mdl_read_graph(m, err);
    if (status) {
        mdl_close(m);
        return status;
    }
    m->g.name = str_of("model"); /* the caller's text ends here */
    *out = m;
    return KSLLM_OK;
}

/* ==========================================================================
 * § 15 SESSION (private)
 * The memory plan and the timeline. May use § 1-10, 14. One function, ses_lay,
 * lays out everything that a session will ever use; run without memory it is
 * the estimate, run with it the creation, so the two cannot differ.
 *
 *   block:     | session | tokens | cache | scratch of a batch | output |
 *   timeline:  | in the KV cache | to be evaluated | free |
 *              0                 n_eval            n_tokens n_ctx
 *
 * The next call that needs logits evaluates [n_eval, n_tokens).
 * ======================================================================== */

enum {
    SES_MAX_BATCH = 4096,
    SES_DEFAULT_BATCH = 64,
    SES_DEFAULT_CTX = 4096,
    SES_LENT_PIECES = 4,
    SES_PROMPT_BYTES = 16, /* text prompt: bytes per token of context */
    /* text held back for stop strings and unfinished units */
    SES_HOLD = KSLLM_MAX_STOP_BYTES + KSLLM_MAX_UNIT_BYTES,
    SES_ROWS = 4, /* of n_vocab floats: logits, scores, and two of heap */
    SES_ALIGN = 64,
};

/* A layer's part of the cache: by KV head, then as k_query says. Position p
 * lies in slot p % n_slots. As floats, with a latent vector, a value is the
 * first part of its key, and v is k. */
typedef struct {
    u8 *k, *v;
    f32 *k_scale; /* int8 only: [n_kv_heads][k_parts][n_slots] */
    f32 *v_scale; /* [n_kv_heads][n_slots] */
    u32 n_slots;
} ses_cache;

typedef struct {
    f32 logit;
    i32 token;
} ses_candidate;

/* A product of a step: matrix `index` of w with m vectors. They lie at x as
 * floats and from `at` on in acts as integers, n_in apart. */
typedef struct {
    const mdl_matrix *w;
    u32 index, m;
    const f32 *x;
    size_t at;
    f32 *y;
    size_t y_stride;
} ses_job;

/* What may stop the running call. */
typedef struct {
    const ksllm_cancel *cancel;
    u64 deadline; /* os_now; 0: none */
    i32 why;      /* ksllm_status once it was stopped */
} ses_watch;

struct ksllm_session {
    const ksllm_model *m;
    ksllm_allocator alloc;
    void *block; /* the one allocation; NULL if the caller's memory */
    size_t bytes;
    u32 n_ctx, n_batch, n_threads, n_keep;
    ksllm_overflow overflow;
    ksllm_pooling pooling;
    k_cache kv;
    size_t k_bytes, v_bytes; /* of a KV head of a token, without scales */
    size_t k_parts;          /* scales of a key */
    bool v_in_k;
    pool workers;

    i32 *tokens; /* [n_ctx] */
    u32 n_tokens, n_eval;
    u32 n_high; /* cache slots were written up to this position */
    u64 n_slid; /* tokens that sliding has dropped from this timeline */
    bool has_logits, has_pooled;
    ses_cache *cache; /* [n_layers] */

    /* activations of one batch, [n_batch][...] */
    f32 *x;               /* [n_embd] the residual stream */
    f32 *xn;              /* [n_embd] */
    f32 *q, *k, *v, *att; /* [D_Q], [D_KV], [D_V], [D_ATT] */
    f32 *gate, *up;       /* [n_ffn], or for all experts of the batch */
    f32 *delta;           /* [n_embd] what a block adds to x */
    f32 *saved;           /* [n_embd] MDL_STREAMS times */
    /* attention through a latent vector; those [n_heads][n_batch][...] have
     * the tokens of a head together */
    f32 *q_in;            /* [D_Q_IN] */
    f32 *nope;            /* [n_heads][n_batch][D_NOPE] */
    f32 *query;           /* [D_Q_LATENT] */
    f32 *mix;             /* [n_heads][n_batch][D_LATENT] */
    f32 *o_gate, *norm_a, *norm_b; /* [D_ATT], [D_NORM_RANK], [n_embd] */
    /* experts: route and choice hold scores, pick the chosen in ascending
     * order, share their weights, slot their rows of scattered, which they
     * read, and of expert_out; first[e] is the first row of expert e */
    f32 *route, *choice, *share;
    u32 *pick, *slot, *first;
    f32 *scattered, *expert_out;
    f32 *rope;            /* [n_ropes][n_batch][n_rope / 2][2] cos, sin */
    i8 *row8;             /* [row8_bytes] one key or value on its way */
    size_t row8_bytes;
    i8 *q8;               /* [heads][D_HEAD, up to 16] for an int8 cache */
    f32 *q_scale;         /* [heads][k_parts][2] */
    k_acts acts;          /* the input of the products under way */
    ses_job *jobs;        /* the products under way, or planned */
    u32 n_jobs;
    u32 *first_piece;     /* of each, and where the last one ends */
    f32 *logits;          /* [n_vocab]; in a call that scores, [SES_ROWS] of
                             them: sampling's memory lies right after */
    f32 *pooled;          /* [n_embd] */

    f32 *scores;          /* [n_vocab] logits as sampling changes them */
    ses_candidate *heap;  /* [n_vocab] */
    i32 *prompt;          /* [n_ctx] */
    char *text;           /* held back, then one piece more */
    size_t text_bytes;
    void *encode;         /* scratch of the tokenizer */
    size_t encode_bytes;

    i32 busy;             /* -1: a call runs; else how many copy from it */
    ses_watch watch;
};

/* ---- one call at a time ---- */

static ksllm_status ses_busy(ksllm_error *err) {
    return fail(err, KSLLM_ERR_STATE, NO_OFFSET,
        "another call is running on this session: wait for it, or give each "
        "thread its own session (ksllm_session_fork copies one)");
}

static ksllm_status ses_enter(ksllm_session *s, ksllm_error *err) {
    i32 idle = 0;
    return __atomic_compare_exchange_n(&s->busy, &idle, -1, false,
        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED) ? KSLLM_OK : ses_busy(err);
}

static ksllm_status ses_leave(ksllm_session *s, ksllm_status status) {
    AT_STORE(&s->busy, 0);
    return status;
}

/* For a call that only reads: several may at once. */
static ksllm_status ses_enter_shared(ksllm_session *s, ksllm_error *err) {
    i32 n = AT_RELAXED(&s->busy);
    while (n >= 0)
        if (__atomic_compare_exchange_n(&s->busy, &n, n + 1, false,
                __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return KSLLM_OK;
    return ses_busy(err);
}

static void ses_leave_shared(ksllm_session *s) { AT_ADD(&s->busy, -1); }

/* ---- stopping ---- */

static void ses_watch_begin(ses_watch *w, const ksllm_control *c) {
    u64 budget = c->budget_us;
    *w = (ses_watch){c->cancel, 0, 0};
    if (budget && (!mul_ok(budget, 1000, &budget)
            || !add_ok(os_now(), budget, &w->deadline)))
        w->deadline = UINT64_MAX;
}

/* Cheap enough for every piece of work; any worker may call it. */
static bool ses_watch_stops(ses_watch *w) {
    if (AT_RELAXED(&w->why)) return true;
    ksllm_status why = KSLLM_OK;
    if (w->cancel && AT_RELAXED(&w->cancel->flag)) why = KSLLM_ERR_CANCELLED;
    else if (w->deadline && os_now() >= w->deadline) why = KSLLM_ERR_DEADLINE;
    if (why) __atomic_store_n(&w->why, why, __ATOMIC_RELAXED);
    return why != KSLLM_OK;
}

/* Begins a call that may run the model; ses_leave ends it. */
static ksllm_status ses_begin(
    ksllm_session *s, const ksllm_control *c, ksllm_error *err) {
    TRY(ses_enter(s, err));
    ses_watch_begin(&s->watch, c);
    return KSLLM_OK;
}

static ksllm_status ses_watch_fail(const ses_watch *w, u64 n, u64 total,
    const char *what, ksllm_error *err) {
    return fail(err, (ksllm_status)w->why, NO_OFFSET, "%s with %llu of %llu %s",
        w->why == KSLLM_ERR_CANCELLED ? "cancelled" : "out of time", LLU(n),
        LLU(total), what);
}

/* Reads all weights once, so that they are in memory. */
static ksllm_status ses_preload(
    const gguf *g, const ksllm_control *control, ksllm_error *err) {
    enum { STEP = 1 << 20 }; /* bytes between two looks at the control */
    ses_watch watch;
    u64 done = 0;
    ses_watch_begin(&watch, control);
    for (u32 i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        for (u64 at = 0, n; t->data && at < t->bytes; at += n) {
            n = min_u64(t->bytes - at, STEP);
            if (ses_watch_stops(&watch))
                return ses_watch_fail(
                    &watch, done, g->weight_bytes, "bytes read", err);
            os_touch(t->data + at, (size_t)n);
            done += n;
            if (control->on_progress)
                control->on_progress(control->progress_ctx, (size_t)done,
                    (size_t)g->weight_bytes);
        }
    }
    return KSLLM_OK;
}

/* ---- layout ---- */

typedef struct {
    u8 *base; /* NULL: only count */
    u64 at;
    bool overflow;
} arena;

/* n * size bytes; NULL while only counting. A size that does not fit sticks as
 * `overflow`, so that one check at the end is enough. */
static void *arena_take(arena *a, u64 n, u64 size) {
    u64 bytes, at = a->at;
    if (!mul_ok(n, size, &bytes) || bytes > SIZE_MAX / 4
        || !add_ok(at, (bytes + SES_ALIGN - 1) / SES_ALIGN * SES_ALIGN, &a->at)
        || a->at > SIZE_MAX / 2)
        a->overflow = true;
    return a->base && !a->overflow ? a->base + at : NULL;
}

static u32 ses_slots(const ksllm_session *s, const mdl_layer *l) {
    u64 all = ((u64)s->n_ctx + K_KEYS - 1) / K_KEYS * K_KEYS;
    /* A batch may overwrite what its first token still sees only if it fits
     * after the window; then a stopped batch can be done again. */
    u64 need = (u64)l->window + s->n_batch;
    need = (need + K_KEYS - 1) / K_KEYS * K_KEYS;
    return (u32)(l->window && need < all ? need : all);
}

static void ses_lay_cache(ksllm_session *s, arena *a) {
    const ksllm_model *m = s->m;
    s->cache = arena_take(a, m->n_layers, sizeof *s->cache);
    for (u32 i = 0; i < m->n_layers; i++) {
        u32 n_slots = ses_slots(s, &m->layers[i]);
        u64 rows = (u64)n_slots * m->n_kv_heads;
        u64 scales = s->kv == K_I8 ? rows : 0;
        ses_cache c = {.n_slots = n_slots};
        c.k = arena_take(a, rows, s->k_bytes);
        c.v = s->v_in_k ? c.k : arena_take(a, rows, s->v_bytes);
        c.k_scale = arena_take(a, scales * s->k_parts, sizeof(f32));
        c.v_scale = arena_take(a, scales, sizeof(f32));
        if (s->cache && c.v_scale) s->cache[i] = c;
    }
}

/* Rows of experts in a batch: every token's chosen ones, and itself once more
 * for the shared expert. */
static u64 ses_expert_rows(const ksllm_session *s) {
    return s->m->dim[D_EXPERTS] ? (u64)s->n_batch * (s->m->n_experts_used + 1)
                                : 0;
}

/* Floats between the experts' gate and up activations; the shared expert's
 * start at a multiple of 256, where any block may begin. */
static u64 ses_expert_floats(const ksllm_session *s) {
    const size_t *d = s->m->dim;
    if (!d[D_EXPERTS]) return 0;
    return s->n_batch * ((u64)s->m->n_experts_used * d[D_FFN_EXPERT]
        + d[D_FFN_SHARED]) + 256;
}

static void ses_lay_acts(ksllm_session *s, arena *a) {
    static const size_t block[2] = {32, 256};
    const size_t *d = s->m->dim, inputs[] = {
        D_EMBD, D_ATT, D_FFN, D_Q_IN, D_NORM_RANK};
    u64 latent = (u64)max_size(d[D_NOPE], d[D_LATENT]) * d[D_HEADS];
    u64 n = s->n_batch * latent;
    n = max_u64(n, ses_expert_floats(s));
    n = max_u64(n, ses_expert_rows(s) * d[D_EMBD]);
    for (size_t i = 0; i < KS_LEN(inputs); i++)
        n = max_u64(n, (u64)s->n_batch * d[inputs[i]]);
    for (int i = 0; i < 2; i++) {
        s->acts.q[i] = arena_take(a, n, 1);
        s->acts.d[i] = arena_take(a, n / block[i] + 1, 4);
        s->acts.sum[i] = arena_take(a, n / 16 + 1, 2);
    }
}

static void ses_lay_jobs(ksllm_session *s, arena *a) {
    const ksllm_model *m = s->m;
    size_t used = (size_t)s->n_batch * m->n_experts_used, n = 3;
    if (m->arch->latent) n = max_size(n, m->n_heads);
    if (used) n = max_size(n, 2 * min_size(used, m->dim[D_EXPERTS]) + 2);
    s->jobs = arena_take(a, n, sizeof *s->jobs);
    s->first_piece = arena_take(a, n + 1, sizeof *s->first_piece);
}

static void ses_lay_scratch(ksllm_session *s, arena *a) {
    const ksllm_model *m = s->m;
    const size_t *d = m->dim;
    const u64 n = s->n_batch, used = m->n_experts_used;
    u64 wide = max_u64(n * d[D_FFN], ses_expert_floats(s));
    u64 rows = ses_expert_rows(s) * d[D_EMBD];
    const struct {
        f32 **p;
        u64 n;
    } floats[] = {
        {&s->x, n * d[D_EMBD]}, {&s->xn, n * d[D_EMBD]},
        {&s->delta, n * d[D_EMBD]}, {&s->q, n * d[D_Q]},
        {&s->att, n * d[D_ATT]}, {&s->k, n * d[D_KV]}, {&s->v, n * d[D_V]},
        {&s->gate, wide}, {&s->up, wide},
        {&s->rope, m->n_ropes * n * d[D_ROPE]},
        {&s->saved, m->arch->skips ? MDL_STREAMS * n * d[D_EMBD] : 0},
        {&s->q_in, n * d[D_Q_IN]}, {&s->nope, n * d[D_NOPE] * d[D_HEADS]},
        {&s->query, n * d[D_Q_LATENT]}, {&s->mix, n * d[D_LATENT] * d[D_HEADS]},
        {&s->o_gate, m->arch->gated ? n * d[D_ATT] : 0},
        {&s->norm_a, n * d[D_NORM_RANK]},
        {&s->norm_b, m->arch->gated ? n * d[D_EMBD] : 0},
        {&s->route, n * d[D_EXPERTS]}, {&s->choice, n * d[D_EXPERTS]},
        {&s->share, n * used}, {&s->scattered, rows}, {&s->expert_out, rows},
    };
    for (size_t i = 0; i < KS_LEN(floats); i++)
        *floats[i].p = arena_take(a, floats[i].n, sizeof(f32));
    s->pick = arena_take(a, n * used, sizeof(u32));
    s->slot = arena_take(a, n * used, sizeof(u32));
    s->first = arena_take(a, d[D_EXPERTS] + 1, sizeof(u32));
    u64 heads = s->kv == K_I8 ? n * d[D_HEADS] : 0;
    s->q8 = arena_take(a, heads, k_padded(d[D_HEAD]));
    s->q_scale = arena_take(a, 2 * heads * s->k_parts, sizeof(f32));
    s->row8_bytes = k_padded(max_size(d[D_HEAD], d[D_VALUE]));
    s->row8 = arena_take(a, s->kv == K_I8 ? n : 0, s->row8_bytes);
    ses_lay_acts(s, a);
    ses_lay_jobs(s, a);
}

static void ses_lay_output(ksllm_session *s, arena *a) {
    const size_t *d = s->m->dim;
    s->logits = arena_take(a, SES_ROWS * (u64)d[D_VOCAB], sizeof(f32));
    s->scores = s->logits ? s->logits + d[D_VOCAB] : NULL;
    s->heap = s->logits ? (void *)(s->logits + 2 * d[D_VOCAB]) : NULL;
    s->pooled = arena_take(a, s->pooling ? d[D_EMBD] : 0, sizeof(f32));
    s->prompt = arena_take(a, s->n_ctx, sizeof(i32));
    s->text_bytes = SES_HOLD + 3 * (size_t)s->m->tok.max_piece_bytes + 16;
    s->text = arena_take(a, s->text_bytes, 1);
    s->encode_bytes = min_size((size_t)s->n_ctx * SES_PROMPT_BYTES, 1 << 16)
        * TOK_SCRATCH_PER_BYTE + TOK_SCRATCH_FIXED;
    s->encode = arena_take(a, s->encode_bytes, 1);
}

/* Lays a session out: itself first, then everything it points to. */
static void ses_lay(ksllm_session *s, arena *a, ksllm_memory *out) {
    arena_take(a, 1, sizeof *s);
    s->tokens = arena_take(a, s->n_ctx, sizeof(i32));
    u64 start = a->at;
    ses_lay_cache(s, a);
    u64 kv = a->at;
    ses_lay_scratch(s, a);
    u64 scratch = a->at;
    ses_lay_output(s, a);
    if (!out) return;
    out->kv = (size_t)(kv - start);
    out->scratch = (size_t)(scratch - kv);
    out->output = (size_t)(a->at - scratch);
    out->total = (size_t)a->at + SES_ALIGN;
}

/* ---- options ---- */

static ksllm_status ses_check(
    const ksllm_model *m, const ksllm_session_options *o, ksllm_error *err) {
    const char *wrong = NULL;
    if (o->n_batch > SES_MAX_BATCH) wrong = "n_batch is above 4096";
    if (o->n_threads > POOL_MAX_THREADS) wrong = "n_threads is above 64";
    if (o->kv_type != KSLLM_TYPE_Q8_0 && o->kv_type != KSLLM_TYPE_F16
        && o->kv_type != KSLLM_TYPE_F32)
        wrong = "kv_type is none of Q8_0, F16 and F32";
    if ((u32)o->overflow > KSLLM_OVERFLOW_SLIDE)
        wrong = "overflow is not one of ksllm_overflow";
    if ((u32)o->pooling > KSLLM_POOLING_MEAN)
        wrong = "pooling is not one of ksllm_pooling";
    if (o->n_ctx > 1u << 30) wrong = "n_ctx is above 2^30";
    if (wrong)
        return fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET, "options: %s", wrong);
    if (!m->runs)
        return fail(err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "the model was opened with vocab_only: open it again without");
    return KSLLM_OK;
}

/* A session without memory: sizes only. */
static ksllm_status ses_size(ksllm_session *s, const ksllm_model *m,
    const ksllm_session_options *o, ksllm_memory *out, ksllm_error *err) {
    TRY(ses_check(m, o, err));
    memset(s, 0, sizeof *s);
    s->m = m;
    s->n_ctx = o->n_ctx ? o->n_ctx : min_u32(m->n_ctx_train, SES_DEFAULT_CTX);
    if (!o->n_ctx && m->n_ctx_max) s->n_ctx = min_u32(s->n_ctx, m->n_ctx_max);
    s->n_batch = o->n_batch ? o->n_batch : SES_DEFAULT_BATCH;
    s->n_batch = min_u32(s->n_batch, s->n_ctx);
    s->n_threads = o->n_threads ? o->n_threads
        : o->parallel_for       ? SES_LENT_PIECES
                                : os_fast_cores();
    s->n_keep = o->n_keep;
    s->overflow = o->overflow;
    s->pooling = o->pooling;
    s->kv = o->kv_type == KSLLM_TYPE_Q8_0 ? K_I8
        : o->kv_type == KSLLM_TYPE_F16    ? K_F16
                                          : K_F32;
    size_t key = m->dim[D_HEAD], value = m->dim[D_VALUE];
    s->v_in_k = m->arch->latent && s->kv != K_I8;
    s->k_parts = k_scales(key);
    s->k_bytes = s->kv == K_I8 ? (key + 3) / 4 * 4
                               : key * (s->kv == K_F16 ? 2 : 4);
    s->v_bytes = s->kv == K_I8 ? k_padded(value)
                               : value * (s->kv == K_F16 ? 2 : 4);
    if (m->n_ctx_max && s->n_ctx > m->n_ctx_max)
        return fail(err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
            "options: n_ctx %u: architecture %s is exact here up to %u tokens, "
            "where its sparse attention begins", (unsigned)s->n_ctx,
            m->arch->name, (unsigned)m->n_ctx_max);
    if (s->n_keep >= s->n_ctx)
        return fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
            "options: n_keep %u is not below n_ctx %u", (unsigned)s->n_keep,
            (unsigned)s->n_ctx);
    arena a = {NULL, 0, false};
    *out = (ksllm_memory){.size = sizeof *out};
    ses_lay(s, &a, out);
    if (a.overflow)
        return fail(err, KSLLM_ERR_MEMORY, NO_OFFSET,
            "a context of %u tokens with batches of %u needs more memory than "
            "this system can address; ask for a smaller n_ctx",
            (unsigned)s->n_ctx, (unsigned)s->n_batch);
    out->n_ctx = s->n_ctx;
    out->n_batch = s->n_batch;
    out->n_threads = s->n_threads;
    return KSLLM_OK;
}

static ksllm_status ses_create(const ksllm_model *m,
    const ksllm_session_options *o, ksllm_session **out, ksllm_error *err) {
    ksllm_session sized;
    ksllm_memory mem;
    TRY(ses_size(&sized, m, o, &mem, err));
    ksllm_allocator alloc = o->allocator ? *o->allocator : m->alloc;
    if (o->memory && o->memory_size < mem.total)
        return fail(err, KSLLM_ERR_BUFFER, NO_OFFSET,
            "options.memory has %llu bytes, this session needs %llu "
            "(ksllm_session_memory)", LLU(o->memory_size), LLU(mem.total));
    u8 *block = o->memory ? o->memory : mem_alloc(&alloc, mem.total);
    if (!block) return fail_memory(err, mem.total);
    size_t skip = (SES_ALIGN - (uintptr_t)block % SES_ALIGN) % SES_ALIGN;
    arena a = {block + skip, 0, false};
    ksllm_session *s = (void *)a.base;
    *s = sized;
    ses_lay(s, &a, NULL);
    s->alloc = alloc;
    s->block = o->memory ? NULL : block;
    s->bytes = mem.total;
    ksllm_status status = KSLLM_OK;
    if (o->parallel_for) {
        s->workers.lent = o->parallel_for;
        s->workers.lent_ctx = o->parallel_ctx;
        s->workers.n_threads = s->n_threads;
    } else {
#if !defined KSLLM_NO_THREADS
        s->workers.on_thread = o->on_thread;
        s->workers.thread_ctx = o->thread_ctx;
#endif
        status = pool_start(&s->workers, s->n_threads, err);
    }
    if (status) mem_free(&alloc, s->block, mem.total);
    else *out = s;
    return status;
}

static void ses_free(ksllm_session *s) {
    ksllm_allocator alloc = s->alloc;
    pool_stop(&s->workers);
    mem_free(&alloc, s->block, s->bytes);
}

/* ---- the timeline ---- */

/* Keeps the first n tokens. A layer with a window is a ring of slots: once
 * position n_high has been written, its oldest key is n_high - n_slots. If
 * position n sees an older one, evaluation has to start from 0. */
static void ses_rewind(ksllm_session *s, u32 n) {
    const ksllm_model *m = s->m;
    if (n < s->n_tokens || n < s->n_eval) s->has_logits = false;
    s->n_tokens = min_u32(s->n_tokens, n);
    if (n >= s->n_eval) return;
    s->n_eval = n;
    s->has_pooled = false;
    for (u32 i = 0; i < m->n_layers; i++) {
        u32 window = m->layers[i].window, n_slots = s->cache[i].n_slots;
        if (window && s->n_high > n_slots && n + n_slots < s->n_high + window)
            s->n_eval = 0;
    }
    if (!s->n_eval) s->n_high = 0;
}

/* How many tokens to drop after the first n_keep so that n fit: steps of half
 * of the rest, because every slide evaluates what it keeps again. */
static size_t ses_drop(const ksllm_session *s, size_t n) {
    if (n <= s->n_ctx) return 0;
    size_t step = (s->n_ctx - s->n_keep + 1) / 2;
    return (n - s->n_ctx + step - 1) / step * step;
}

static ksllm_status ses_full(
    const ksllm_session *s, size_t n, ksllm_error *err) {
    return fail(err, KSLLM_ERR_CONTEXT, NO_OFFSET,
        "%llu more tokens do not fit a context of %u that holds %u; create the "
        "session with a larger n_ctx, shorten the prompt, or choose "
        "KSLLM_OVERFLOW_SLIDE", LLU(n), (unsigned)s->n_ctx,
        (unsigned)s->n_tokens);
}

/* Makes the timeline its first `keep` tokens followed by `tokens`, sliding if
 * that is too long and allowed. Nothing changes on failure. */
static ksllm_status ses_extend(ksllm_session *s, size_t keep,
    const i32 *tokens, size_t n, bool may_slide, ksllm_error *err) {
    bool slides = may_slide && s->overflow == KSLLM_OVERFLOW_SLIDE;
    if (n > (slides ? SIZE_MAX / 2 : s->n_ctx - keep))
        return ses_full(s, n, err);
    TRY(mdl_check_tokens(s->m, tokens, n, err));
    size_t total = keep + n, drop = ses_drop(s, total);
    ses_rewind(s, (u32)min_size(keep, drop ? s->n_keep : s->n_ctx));
    s->n_tokens = (u32)(total - drop);
    s->n_slid = (keep ? s->n_slid : 0) + drop;
    for (size_t i = 0; i < total - drop; i++) {
        size_t from = i < s->n_keep ? i : i + drop;
        s->tokens[i] = from < keep ? s->tokens[from] : tokens[from - keep];
    }
    if (n) s->has_logits = false;
    return KSLLM_OK;
}

/* How many of the first tokens the timeline shares with `tokens`. */
static size_t ses_common(
    const ksllm_session *s, const i32 *tokens, size_t n) {
    size_t i = 0;
    while (i < n && i < s->n_tokens && s->tokens[i] == tokens[i]) i++;
    return i;
}

/* Copies the first `used` slots of a layer for each of n rows of slots (a KV
 * head's, or one part of its scales), `bytes` for a slot. */
static void ses_copy_slots(const ses_cache *c, void *to, const void *from,
    size_t n, size_t used, size_t bytes) {
    size_t row = c->n_slots * bytes;
    for (size_t i = 0; i < n; i++)
        memcpy((u8 *)to + i * row, (const u8 *)from + i * row, used * bytes);
}

/* Makes `to` a copy; both have the same layout. Copies the slots in use, not
 * the whole cache: a fork after 100 of 4,096 tokens moves a fortieth. */
static void ses_copy(const ksllm_session *from, ksllm_session *to) {
    const ksllm_model *m = from->m;
    const size_t heads = m->n_kv_heads;
    const size_t scale = from->kv == K_I8 ? sizeof(f32) : 0;
    memcpy(to->tokens, from->tokens, from->n_tokens * sizeof(i32));
    for (u32 i = 0; i < m->n_layers; i++) {
        const ses_cache *a = &from->cache[i], *b = &to->cache[i];
        /* Slots are laid out, and read, in blocks of K_KEYS. */
        size_t used = from->n_high > a->n_slots ? a->n_slots
            : (from->n_high + K_KEYS - 1) / K_KEYS * K_KEYS;
        ses_copy_slots(a, b->k, a->k, heads, used, from->k_bytes);
        if (!from->v_in_k)
            ses_copy_slots(a, b->v, a->v, heads, used, from->v_bytes);
        ses_copy_slots(a, b->k_scale, a->k_scale, heads * from->k_parts, used,
            scale);
        ses_copy_slots(a, b->v_scale, a->v_scale, heads, used, scale);
    }
    memcpy(to->logits, from->logits, m->dim[D_VOCAB] * sizeof(f32));
    if (from->pooling)
        memcpy(to->pooled, from->pooled, m->dim[D_EMBD] * sizeof(f32));
    to->n_tokens = from->n_tokens;
    to->n_eval = from->n_eval;
    to->n_high = from->n_high;
    to->n_slid = from->n_slid;
    to->has_logits = from->has_logits;
    to->has_pooled = from->has_pooled;
}

/* ==========================================================================
 * § 16 FORWARD (private)
 * The one graph. A batch of tokens goes through it as a sequence of steps; a
 * step is cut into pieces for the pool, by rows of a matrix, by tokens or by
 * heads, so that no cut can change a result. Every piece first checks whether
 * the call was cancelled or ran out of time; what a stopped batch computed is
 * not used. May use § 1-15.
 *
 *   x = embd[token]
 *   per layer:
 *     x += post(Wo attention(rope(norm(Wq h)), rope(norm(Wk h)), Wv h))
 *          with h = norm(x)
 *     x += post(ffn(norm(x)))
 *          with ffn(h) = Wdown(act(Wgate h) * Wup h), or a weighted sum of
 *          such over the experts that the router chose for the token
 *   logits = Wout norm(x)
 * with norms, biases and multipliers where the architecture has them.
 * ======================================================================== */

/* The batch under way. Nothing in it changes while a layer is evaluated. */
typedef struct {
    ksllm_session *s;
    u32 n0, m; /* positions [n0, n0 + m) */
    u32 i_layer;
    const mdl_layer *l;
} fwd;

/* A step by token, with what its function needs beside the batch. Pieces read
 * it from all threads; fwd_each fills the first three fields. */
typedef struct fwd_step {
    const fwd *f;
    u32 n_items, n_per_piece;
    void (*run)(const struct fwd_step *step, u32 token);
    u32 blocks;           /* fwd_quantize: BIT(0): of 32, BIT(1): of 256 */
    const u8 *norm;       /* fwd_norm, fwd_add; NULL: none */
    const u8 *bias;       /* fwd_add; NULL: none */
    f32 *x;               /* fwd_norm, fwd_gate: [m][n] */
    const f32 *gate;      /* fwd_gate: [m][n]; NULL: none */
    size_t n;
} fwd_step;

static bool fwd_stopped(ksllm_session *s) {
    return ses_watch_stops(&s->watch);
}

/* ---- steps by token ---- */

static void fwd_step_piece(void *arg, u32 piece) {
    const fwd_step *step = arg;
    if (fwd_stopped(step->f->s)) return;
    u32 t = piece * step->n_per_piece;
    u32 end = min_u32(step->n_items, t + step->n_per_piece);
    for (; t < end; t++) step->run(step, t);
}

/* A step for each of n tokens, or of n rows of experts. */
static void fwd_each(const fwd *f, u32 n, fwd_step *step) {
    u32 pieces = min_u32(n, 4 * f->s->n_threads);
    u32 per = (n + pieces - 1) / pieces;
    step->f = f;
    step->n_items = n;
    step->n_per_piece = per;
    pool_run(&f->s->workers, (n + per - 1) / per, fwd_step_piece, step);
}

static void fwd_by_token(const fwd *f, fwd_step *step) {
    fwd_each(f, f->m, step);
}

/* Cosines and sines of a position. The angle is a float32 product of position
 * and frequency: the models were trained with its rounding. */
static void fwd_rope_table(const fwd *f, u32 t) {
    const ksllm_session *s = f->s;
    size_t half = s->m->dim[D_ROPE] / 2;
    for (u32 r = 0; r < s->m->n_ropes; r++) {
        f32 *out = s->rope + ((size_t)r * s->n_batch + t) * half * 2;
        for (size_t i = 0; i < half; i++) {
            f64 sine, cosine;
            f32 angle = (f32)(f->n0 + t) * s->m->rope[r].freq[i];
            m_sincos((f64)angle, &sine, &cosine);
            out[2 * i] = (f32)cosine * s->m->rope[r].gain;
            out[2 * i + 1] = (f32)sine * s->m->rope[r].gain;
        }
    }
}

static void fwd_embed(const fwd_step *step, u32 t) {
    const fwd *f = step->f;
    const ksllm_session *s = f->s;
    const mdl_matrix *e = &s->m->embd;
    size_t n = e->n_in;
    f32 *x = s->x + t * n;
    blk_row(e->type, e->w + (size_t)s->tokens[f->n0 + t] * e->row_bytes, n, x);
    if (s->m->embd_scale != 1)
        for (size_t i = 0; i < n; i++) x[i] *= s->m->embd_scale;
    fwd_rope_table(f, t);
}

/* Quantizes n values of the input of the next products, number `at` and up. */
static void fwd_quantize(const ksllm_session *s, u32 blocks, const f32 *x,
    size_t n, size_t at) {
    static const size_t block[2] = {32, 256};
    const k_acts *a = &s->acts;
    for (int i = 0; i < 2; i++)
        if (blocks & BIT(i))
            s->m->k->quantize(x, n, block[i], a->q[i] + at,
                a->d[i] + at / block[i], a->sum[i] + at / 16);
}

static void fwd_norm(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_EMBD];
    const f32 *x = step->x + t * n;
    f32 *xn = s->xn + t * n;
    if (step->norm) s->m->k->norm(x, step->norm, n, s->m->eps, xn);
    else memcpy(xn, x, n * sizeof *xn);
    fwd_quantize(s, step->blocks, xn, n, t * n);
}

static f32 fwd_sigmoid(f32 x) { return (f32)(1 / (1 + m_exp(-(f64)x))); }

/* Prepares x, times sigmoid(gate) where there is one. */
static void fwd_gate(const fwd_step *step, u32 t) {
    size_t n = step->n, at = t * n;
    f32 *x = step->x + at;
    for (size_t i = 0; step->gate && i < n; i++)
        x[i] *= fwd_sigmoid(step->gate[at + i]);
    fwd_quantize(step->f->s, step->blocks, x, n, at);
}

/* The same with attention's output, which an int8 cache left rotated. */
static void fwd_gate_heads(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = step->n, hd = s->m->dim[D_VALUE];
    if (s->kv == K_I8 && !s->m->arch->latent)
        for (size_t i = 0; i < n; i += hd)
            s->m->k->hadamard(step->x + t * n + i, hd);
    fwd_gate(step, t);
}

static void fwd_activate(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_FFN], at = t * n;
    s->m->k->gate(s->gate + at, s->up + at, n, s->m->arch->act);
    fwd_quantize(s, step->blocks, s->gate + at, n, at);
}

static void fwd_add_bias(f32 *x, const u8 *bias, size_t n) {
    if (!bias) return;
    for (size_t i = 0; i < n; i++) x[i] += ld_f32(bias + 4 * i);
}

/* x += post-norm(delta + bias) */
static void fwd_add(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_EMBD];
    f32 *x = s->x + t * n, *d = s->delta + t * n;
    fwd_add_bias(d, step->bias, n);
    if (step->norm) s->m->k->norm(d, step->norm, n, s->m->eps, d);
    for (size_t i = 0; i < n; i++) x[i] += d[i] * s->m->residual_scale;
}

static void fwd_rotate(const fwd *f, u32 t, f32 *x) {
    const ksllm_session *s = f->s;
    size_t half = s->m->dim[D_ROPE] / 2;
    if (f->l->rope == MDL_NO_ROPE) return;
    const f32 *cs = s->rope + ((size_t)f->l->rope * s->n_batch + t) * half * 2;
    bool halves = s->m->arch->rope_halves;
    for (size_t i = 0; i < half; i++) {
        f32 *a = x + (halves ? i : 2 * i), *b = a + (halves ? half : 1);
        f32 c = cs[2 * i], z = cs[2 * i + 1], p = *a, q = *b;
        *a = p * c - q * z;
        *b = q * c + p * z;
    }
}

/* QK norm and rope on every head of q or k. */
static void fwd_finish_heads(
    const fwd *f, u32 t, f32 *x, u32 n_heads, const u8 *norm) {
    const ksllm_model *m = f->s->m;
    size_t hd = m->dim[D_HEAD];
    for (u32 h = 0; h < n_heads; h++, x += hd) {
        if (norm) m->k->norm(x, norm, hd, m->eps, x);
        fwd_rotate(f, t, x);
    }
}

/* A KV head's key or value of a token to the cache (its form: k_query). */
static void fwd_store_head(
    const fwd *f, u32 t, size_t head, f32 *x, bool value) {
    const ksllm_session *s = f->s;
    const ses_cache *c = &s->cache[f->i_layer];
    size_t n = s->m->dim[value ? D_VALUE : D_HEAD];
    size_t bytes = value ? s->v_bytes : s->k_bytes;
    size_t slot = (f->n0 + t) % c->n_slots, row = head * c->n_slots + slot;
    /* the place in its tile, as int8 */
    size_t in = s->kv != K_I8 ? 0 : value ? slot % 4 : slot % 16;
    u8 *to = (value ? c->v : c->k) + (row - in) * bytes;
    if (s->kv == K_F32) memcpy(to, x, bytes);
    if (s->kv == K_F16) s->m->k->to_f16(x, n, to);
    if (s->kv != K_I8) return;
    i8 *q = s->row8 + t * s->row8_bytes;
    s->m->k->hadamard(x, n);
    if (value) {
        c->v_scale[row] = s->m->k->to_i8(x, n, q);
        for (size_t i = 0; i < bytes; i++) to[4 * i + in] = (u8)q[i];
    } else {
        f32 *scale = c->k_scale + head * s->k_parts * c->n_slots + slot;
        for (size_t i = 0; i < n; i += K_HADAMARD, scale += c->n_slots)
            *scale = s->m->k->to_i8(x + i, min_size(n - i, K_HADAMARD), q + i);
        for (size_t i = 0; i < bytes; i++)
            to[i / 4 * 64 + in * 4 + i % 4] = (u8)(q[i] ^ 0x80);
    }
}

static void fwd_store(const fwd *f, u32 t, f32 *x, bool value) {
    const ksllm_model *m = f->s->m;
    size_t n = m->dim[value ? D_VALUE : D_HEAD];
    for (size_t h = 0; h < m->n_kv_heads; h++)
        fwd_store_head(f, t, h, x + h * n, value);
}

/* A token's queries as int8, if the cache is. With each scale goes the sum of
 * its integers: keys are stored with 128 added, which scores take off again. */
static void fwd_quantize_queries(const fwd *f, u32 t, f32 *q) {
    const ksllm_session *s = f->s;
    size_t hd = s->m->dim[D_HEAD], heads = s->m->n_heads;
    if (s->kv != K_I8) return;
    for (size_t h = 0, row = t * heads; h < heads; h++, row++, q += hd) {
        i8 *to = s->q8 + row * k_padded(hd);
        f32 *scale = s->q_scale + 2 * row * s->k_parts;
        s->m->k->hadamard(q, hd);
        for (size_t i = 0; i < hd; i += K_HADAMARD, scale += 2) {
            size_t n = min_size(hd - i, K_HADAMARD);
            i32 sum = 0;
            scale[0] = s->m->k->to_i8(q + i, n, to + i);
            for (size_t j = i; j < i + n; j++) sum += to[j];
            scale[1] = (f32)sum;
        }
    }
}

static void fwd_heads(const fwd_step *step, u32 t) {
    const fwd *f = step->f;
    const ksllm_session *s = f->s;
    const ksllm_model *m = s->m;
    const u8 *const *vec = f->l->vec;
    f32 *q = s->q + t * m->dim[D_Q];
    f32 *k = s->k + t * m->dim[D_KV], *v = s->v + t * m->dim[D_V];
    fwd_add_bias(q, vec[V_Q_BIAS], m->dim[D_Q]);
    fwd_add_bias(k, vec[V_K_BIAS], m->dim[D_KV]);
    fwd_add_bias(v, vec[V_V_BIAS], m->dim[D_V]);
    fwd_finish_heads(f, t, q, m->n_heads, vec[V_Q_NORM]);
    fwd_finish_heads(f, t, k, m->n_kv_heads, vec[V_K_NORM]);
    fwd_store(f, t, k, false);
    fwd_store(f, t, v, true);
    fwd_quantize_queries(f, t, q);
}

/* ---- the same with a latent vector (DeepSeek-V2, 2024) ----
 * A head's key is [Wk_b latent, rope part], its value Wv_b latent. Neither is
 * ever made: the query is taken to the latent's space by Wk_b, and what
 * attention mixes there is taken to the value's by Wv_b.
 *
 * Normed as published, whatever the model's epsilon is. */
#define FWD_LATENT_EPS 1e-6f

static void fwd_query_rank(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_Q_RANK], n_in = s->m->dim[D_Q_IN];
    f32 *x = s->q_in + t * n_in;
    if (n_in > n) memcpy(x + n, x, n * sizeof *x);
    s->m->k->norm(x, step->norm, n, FWD_LATENT_EPS, x);
    fwd_quantize(s, step->blocks, x, n_in, t * n_in);
}

static void fwd_latent_heads(const fwd_step *step, u32 t) {
    const fwd *f = step->f;
    const ksllm_session *s = f->s;
    const size_t *d = s->m->dim, latent = d[D_LATENT], nope = d[D_NOPE];
    f32 *k = s->k + t * d[D_HEAD], *q = s->q + t * d[D_Q];
    s->m->k->norm(k, f->l->vec[V_LATENT_NORM], latent, FWD_LATENT_EPS, k);
    fwd_rotate(f, t, k + latent);
    if (!s->v_in_k) { /* fwd_store rotates each in place, over its own length */
        memcpy(s->mix + t * latent, k, latent * sizeof *k);
        fwd_store(f, t, s->mix + t * latent, true);
    }
    fwd_store(f, t, k, false);
    for (size_t h = 0; h < d[D_HEADS]; h++, q += nope + d[D_ROPE]) {
        size_t at = (h * f->m + t) * nope;
        f32 *to = s->query + t * d[D_Q_LATENT] + h * d[D_HEAD];
        fwd_rotate(f, t, q + nope);
        memcpy(to + latent, q + nope, d[D_ROPE] * sizeof *q);
        memcpy(s->nope + at, q, nope * sizeof *q);
        fwd_quantize(s, step->blocks, q, nope, at);
    }
}

static void fwd_latent_queries_i8(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    fwd_quantize_queries(step->f, t, s->query + t * s->m->dim[D_Q_LATENT]);
}

static void fwd_latent_mix(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_LATENT];
    for (size_t h = 0; h < s->m->n_heads; h++) {
        size_t at = (h * step->f->m + t) * n;
        if (s->kv == K_I8) s->m->k->hadamard(s->mix + at, n);
        fwd_quantize(s, step->blocks, s->mix + at, n, at);
    }
}

/* ---- attention: pieces are (some heads of a KV head, up to K_QUERIES
 * tokens) ---- */

typedef struct {
    const fwd *f;
    u32 log_heads; /* 2^log_heads heads make a piece */
} fwd_attention;

static void fwd_attend_piece(void *arg, u32 piece) {
    const fwd_attention *attention = arg;
    const fwd *f = attention->f;
    const ksllm_session *s = f->s;
    const ksllm_model *m = s->m;
    if (fwd_stopped(f->s)) return;
    const ses_cache *c = &s->cache[f->i_layer];
    u32 together = 1u << attention->log_heads, n_groups = m->n_heads / together;
    size_t h = piece % n_groups * together, t = piece / n_groups * K_QUERIES;
    const size_t *d = m->dim, heads = m->n_heads;
    size_t kv_row = h / (heads / m->n_kv_heads) * c->n_slots;
    size_t row = t * heads + h; /* of the first token */
    bool latent = m->arch->latent;
    k_query a = {
        .q = (latent ? s->query : s->q) + row * d[D_HEAD],
        .q8 = s->kv == K_I8 ? s->q8 + row * k_padded(d[D_HEAD]) : NULL,
        .q_scale = s->kv == K_I8 ? s->q_scale + 2 * row * s->k_parts : NULL,
        .k = c->k + kv_row * s->k_bytes,
        .v = c->v + kv_row * (s->v_in_k ? s->k_bytes : s->v_bytes),
        .k_scale = s->kv == K_I8 ? c->k_scale + kv_row * s->k_parts : NULL,
        .v_scale = s->kv == K_I8 ? c->v_scale + kv_row : NULL,
        .key_dim = d[D_HEAD], .value_dim = d[D_VALUE],
        .k_stride = s->k_bytes,
        .v_stride = s->v_in_k ? s->k_bytes : s->v_bytes,
        .n_slots = c->n_slots, .m = min_size(f->m - t, K_QUERIES),
        .hi = f->n0 + t + 1, .window = f->l->window, .scale = m->attn_scale,
        .q_heads = heads,
        .out = latent ? s->mix + (h * f->m + t) * d[D_VALUE]
                      : s->att + row * d[D_VALUE],
        .out_head = d[D_VALUE] * (latent ? f->m : 1),
        .out_token = d[D_VALUE] * (latent ? 1 : heads),
        .kind = s->kv, .group = together,
    };
    k_attend(m->k, &a);
}

_Static_assert(SES_MAX_BATCH / K_QUERIES * MDL_MAX_HEADS <= POOL_MAX_PIECES,
    "more pieces of attention than a run may have");

/* Heads of a KV head share the reads of its keys: as many of them together as
 * their number allows and as leaves every thread some pieces. */
static void fwd_attend(const fwd *f) {
    const ksllm_model *m = f->s->m;
    u32 group = m->n_heads / m->n_kv_heads;
    u32 rows = (f->m + K_QUERIES - 1) / K_QUERIES;
    u32 log = group % 4 == 0 ? 2 : group % 2 == 0 ? 1 : 0;
    while (log && rows * (m->n_heads >> log) < f->s->n_threads) log--;
    pool_run(&f->s->workers, rows * (m->n_heads >> log), fwd_attend_piece,
        &(fwd_attention){f, log});
}

/* ---- products: pieces are rows ---- */

/* The blocks in which a matrix wants its input quantized. */
static u32 fwd_blocks_of(const mdl_matrix *w) {
    u32 n = BLK_TYPES[w->type].n;
    return n == 1 ? 0 : n == 256 ? BIT(1) : BIT(0);
}

typedef struct {
    ksllm_session *s;
    size_t rows_per_piece;
} fwd_products;

static void fwd_product_piece(void *arg, u32 piece) {
    const fwd_products *all = arg;
    ksllm_session *s = all->s;
    if (fwd_stopped(s)) return;
    u32 i = 0, end = s->n_jobs;
    while (end - i > 1) {
        u32 mid = i + (end - i) / 2;
        if (s->first_piece[mid] <= piece) i = mid;
        else end = mid;
    }
    const ses_job *j = &s->jobs[i];
    const mdl_matrix *w = j->w;
    const k_acts *b = &s->acts;
    size_t n = all->rows_per_piece, at = j->at;
    size_t r = (piece - s->first_piece[i]) * n;
    k_acts a = {j->x, {b->q[0] + at, b->q[1] + at},
        {b->d[0] + at / 32, b->d[1] + at / 256},
        {b->sum[0] + at / 16, b->sum[1] + at / 16}, w->n_in};
    k_product p = {.type = w->type,
        .w = w->w + (j->index * w->n_out + r) * w->row_bytes,
        .row_bytes = w->row_bytes,
        .n_rows = min_size(n, w->n_out - r),
        .acts = &a, .m = j->m, .y = j->y + r, .y_stride = j->y_stride};
    s->m->k->product[p.type](&p);
}

/* Adds a product to those that fwd_multiply runs. */
static void fwd_plan_job(const fwd *f, const ses_job *job) {
    f->s->jobs[f->s->n_jobs++] = *job;
}

/* Of the batch with a whole matrix. */
static void fwd_plan(const fwd *f, const mdl_matrix *w, const f32 *x, f32 *y) {
    fwd_plan_job(f,
        &(ses_job){.w = w, .m = f->m, .x = x, .y = y, .y_stride = w->n_out});
}

/* Runs the planned products as one step: one barrier for Q, K and V instead of
 * three. Eight pieces per thread even out cores of different speed. */
static void fwd_multiply(const fwd *f) {
    ksllm_session *s = f->s;
    size_t rows = 0, pieces = (size_t)s->n_threads * 8;
    for (u32 i = 0; i < s->n_jobs; i++) rows += s->jobs[i].w->n_out;
    size_t per = (rows + pieces - 1) / pieces;
    per = (per + K_ROWS - 1) / K_ROWS * K_ROWS;
    per = s->n_threads > 1 ? min_size(per, 256) : 256;
    /* at most POOL_MAX_PIECES, whatever the vocabulary */
    per = max_size(per, rows >> 18 << 3);
    s->first_piece[0] = 0;
    for (u32 i = 0; i < s->n_jobs; i++) {
        const ses_job *j = &s->jobs[i];
        s->first_piece[i + 1] =
            s->first_piece[i] + (u32)((j->w->n_out + per - 1) / per);
#if defined KSLLM_OBSERVE /* quant/calibrate.c looks at what comes in */
        KSLLM_OBSERVE(j->w->w, j->x, j->w->n_in, j->m);
#endif
    }
    pool_run(&s->workers, s->first_piece[s->n_jobs], fwd_product_piece,
        &(fwd_products){s, per});
    s->n_jobs = 0;
}

/* ---- blocks of a layer ---- */

/* The blocks that some matrices of the layer want. */
static u32 fwd_blocks(const fwd *f, u32 matrices) {
    u32 blocks = 0;
    for (u32 i = 0; i < N_MATRICES; i++)
        if (matrices & BIT(i)) blocks |= fwd_blocks_of(&f->l->mat[i]);
    return blocks;
}

/* A block's input: normed, times sigmoid(B silu(A of it)) where the norm has
 * such a gate, prepared for `matrices`. */
static void fwd_norm_input(const fwd *f, u32 vector, u32 gate_a, u32 matrices) {
    ksllm_session *s = f->s;
    const mdl_matrix *w = f->l->mat + gate_a;
    bool gated = w[0].w != NULL;
    fwd_by_token(f, &(fwd_step){.run = fwd_norm, .norm = f->l->vec[vector],
        .x = s->x, .blocks = fwd_blocks(f, gated ? BIT(gate_a) : matrices)});
    if (!gated) return;
    fwd_plan(f, &w[0], s->xn, s->norm_a);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_gate, .x = s->norm_a,
        .gate = s->norm_a, .n = w[0].n_out, .blocks = fwd_blocks_of(&w[1])});
    fwd_plan(f, &w[1], s->norm_a, s->norm_b);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_gate, .x = s->xn,
        .gate = s->norm_b, .n = w[1].n_out,
        .blocks = fwd_blocks(f, matrices)});
}

/* Queries ready, keys and values in the cache. */
static void fwd_queries(const fwd *f) {
    const ksllm_session *s = f->s;
    const mdl_matrix *w = f->l->mat;
    fwd_norm_input(f, V_ATTN_NORM, M_ATTN_NORM_A,
        BIT(M_Q) | BIT(M_K) | BIT(M_V));
    fwd_plan(f, &w[M_Q], s->xn, s->q);
    fwd_plan(f, &w[M_K], s->xn, s->k);
    fwd_plan(f, &w[M_V], s->xn, s->v);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_heads});
}

static void fwd_latent_queries(const fwd *f) {
    const ksllm_session *s = f->s;
    const mdl_matrix *w = f->l->mat;
    const size_t *d = s->m->dim;
    bool ranked = d[D_Q_RANK] > 0;
    fwd_norm_input(f, V_ATTN_NORM, M_ATTN_NORM_A,
        BIT(M_Q) | BIT(M_Q_A) | BIT(M_LATENT));
    fwd_plan(f, &w[M_LATENT], s->xn, s->k);
    if (!ranked) fwd_plan(f, &w[M_Q], s->xn, s->q);
    else fwd_plan_job(f, &(ses_job){.w = &w[M_Q_A], .m = f->m, .x = s->xn,
        .y = s->q_in, .y_stride = d[D_Q_IN]});
    fwd_multiply(f);
    if (ranked) {
        fwd_by_token(f, &(fwd_step){.run = fwd_query_rank,
            .norm = f->l->vec[V_Q_RANK_NORM],
            .blocks = fwd_blocks(f, BIT(M_Q_B) | BIT(M_O_GATE))});
        fwd_plan(f, &w[M_Q_B], s->q_in, s->q);
        if (w[M_O_GATE].w) fwd_plan(f, &w[M_O_GATE], s->q_in, s->o_gate);
        fwd_multiply(f);
    }
    fwd_by_token(f, &(fwd_step){.run = fwd_latent_heads,
        .blocks = fwd_blocks(f, BIT(M_K_B))});
    for (u32 h = 0; h < d[D_HEADS]; h++) {
        size_t at = h * f->m * d[D_NOPE];
        fwd_plan_job(f, &(ses_job){.w = &w[M_K_B], .index = h, .m = f->m,
            .x = s->nope + at, .at = at, .y = s->query + h * d[D_HEAD],
            .y_stride = d[D_Q_LATENT]});
    }
    fwd_multiply(f);
    if (s->kv == K_I8)
        fwd_by_token(f, &(fwd_step){.run = fwd_latent_queries_i8});
}

static void fwd_latent_values(const fwd *f) {
    const ksllm_session *s = f->s;
    const size_t *d = s->m->dim;
    const mdl_matrix *w = &f->l->mat[M_V_B];
    fwd_by_token(f, &(fwd_step){.run = fwd_latent_mix,
        .blocks = fwd_blocks_of(w)});
    for (u32 h = 0; h < d[D_HEADS]; h++) {
        size_t at = h * f->m * d[D_LATENT];
        fwd_plan_job(f, &(ses_job){.w = w, .index = h, .m = f->m,
            .x = s->mix + at, .at = at, .y = s->att + h * d[D_OUT],
            .y_stride = d[D_ATT]});
    }
    fwd_multiply(f);
}

static void fwd_attention_block(const fwd *f) {
    const ksllm_session *s = f->s;
    const mdl_matrix *w = f->l->mat;
    bool latent = s->m->arch->latent;
    if (latent) fwd_latent_queries(f);
    else fwd_queries(f);
    fwd_attend(f);
    if (latent) fwd_latent_values(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_gate_heads, .x = s->att,
        .gate = w[M_O_GATE].w ? s->o_gate : NULL, .n = s->m->dim[D_ATT],
        .blocks = fwd_blocks_of(&w[M_O])});
    fwd_plan(f, &w[M_O], s->att, s->delta);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_add,
        .norm = f->l->vec[V_ATTN_POST_NORM], .bias = f->l->vec[V_O_BIAS]});
}

static void fwd_ffn_block(const fwd *f) {
    const ksllm_session *s = f->s;
    const mdl_matrix *w = f->l->mat;
    fwd_norm_input(f, V_FFN_NORM, M_FFN_NORM_A, BIT(M_GATE) | BIT(M_UP));
    fwd_plan(f, &w[M_GATE], s->xn, s->gate);
    fwd_plan(f, &w[M_UP], s->xn, s->up);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_activate,
        .blocks = fwd_blocks_of(&w[M_DOWN])});
    fwd_plan(f, &w[M_DOWN], s->gate, s->delta);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_add,
        .norm = f->l->vec[V_FFN_POST_NORM]});
}

/* ---- experts ----
 * The router's scores send each token to some experts. Rows of the same expert
 * then lie together, so a batch reads an expert's weights once, and never those
 * of an expert that no token chose:
 *
 *   scattered: | rows of expert 0 | of expert 1 | ... | all, for the shared |
 *              first[0]           first[1]            first[n]
 */

/* Only experts of the best groups may be chosen. A group's score is the sum of
 * its two best experts' (DeepSeek-V3, 2024). Scores outside become -inf. */
static void fwd_mask_groups(const ksllm_model *m, f32 *c) {
    size_t per = m->dim[D_EXPERTS] / m->n_groups;
    for (u32 n = m->n_groups; n > m->n_groups_used; n--) {
        f32 least = INFINITY;
        size_t worst = 0;
        for (size_t g = 0; g < m->n_groups; g++) {
            const f32 *x = c + g * per;
            f32 best = x[0], second = -INFINITY;
            for (size_t i = 1; i < per; i++) {
                f32 low = x[i] > best ? best : x[i];
                best = x[i] > best ? x[i] : best;
                second = low > second ? low : second;
            }
            f32 score = per > 1 ? best + second : best;
            /* of equal groups the first one stays */
            if (best > -INFINITY && score <= least) least = score, worst = g;
        }
        for (size_t i = 0; i < per; i++) c[worst * per + i] = -INFINITY;
    }
}

/* Chooses a token's experts, in ascending order, and their shares. */
static void fwd_route(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    const ksllm_model *m = s->m;
    const u8 *bias = step->f->l->vec[V_ROUTER_BIAS];
    size_t n = m->dim[D_EXPERTS], used = m->n_experts_used;
    f32 *p = s->route + t * n, *c = s->choice + t * n;
    u32 *pick = s->pick + t * used;
    f32 *share = s->share + t * used, sum = 0, top = p[0];
    f64 all = 0;
    for (size_t i = 1; i < n; i++) top = p[i] > top ? p[i] : top;
    for (size_t i = 0; i < n; i++)
        if (m->routing == ROUTE_SOFTMAX) all += m_exp((f64)p[i] - (f64)top);
    for (size_t i = 0; i < n; i++) {
        p[i] = m->routing == ROUTE_SIGMOID ? fwd_sigmoid(p[i])
            : (f32)(m_exp((f64)p[i] - (f64)top) / all);
        c[i] = p[i] + (bias ? ld_f32(bias + 4 * i) : 0);
    }
    fwd_mask_groups(m, c);
    for (size_t k = 0; k < used; k++) {
        size_t best = n, at = k, next = 0;
        for (size_t i = 0; i < n; i++) {
            if (next < k && pick[next] == i) next++; /* taken already */
            else if (best == n || c[i] > c[best]) best = i;
        }
        for (; at > 0 && pick[at - 1] > best; at--) pick[at] = pick[at - 1];
        pick[at] = (u32)best;
    }
    for (size_t k = 0; k < used; k++) sum += share[k] = p[pick[k]];
    for (size_t k = 0; k < used; k++) {
        if (m->route_norm) share[k] /= sum + 1e-20f;
        share[k] *= m->route_scale;
    }
}

/* Gives every chosen expert of every token its row, by expert. */
static void fwd_group(const fwd *f) {
    ksllm_session *s = f->s;
    size_t used = (size_t)f->m * s->m->n_experts_used;
    u32 n = (u32)s->m->dim[D_EXPERTS];
    memset(s->first, 0, (n + 1) * sizeof *s->first);
    for (size_t i = 0; i < used; i++) s->first[s->pick[i] + 1]++;
    for (u32 e = 0; e < n; e++) s->first[e + 1] += s->first[e];
    for (size_t i = 0; i < used; i++) s->slot[i] = s->first[s->pick[i]]++;
    for (u32 e = n; e > 0; e--) s->first[e] = s->first[e - 1];
    s->first[0] = 0;
}

/* A token's input to the rows of its experts, and of the shared one. */
static void fwd_scatter(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_EMBD], used = s->m->n_experts_used;
    const f32 *x = s->xn + t * n;
    for (size_t k = 0; k <= used; k++) {
        size_t row = k < used ? s->slot[t * used + k] : step->f->m * used + t;
        memcpy(s->scattered + row * n, x, n * sizeof *x);
        fwd_quantize(s, step->blocks, x, n, row * n);
    }
}

/* Where the gate and up activations of a row of experts begin. */
static size_t fwd_expert_at(const fwd *f, size_t row) {
    const size_t *d = f->s->m->dim;
    size_t chosen = (size_t)f->m * f->s->m->n_experts_used;
    if (row < chosen) return row * d[D_FFN_EXPERT];
    return (chosen * d[D_FFN_EXPERT] + 255) / 256 * 256
        + (row - chosen) * d[D_FFN_SHARED];
}

static void fwd_activate_expert(const fwd_step *step, u32 row) {
    const fwd *f = step->f;
    const ksllm_session *s = f->s;
    bool shared = row >= f->m * s->m->n_experts_used;
    size_t at = fwd_expert_at(f, row);
    size_t n = s->m->dim[shared ? D_FFN_SHARED : D_FFN_EXPERT];
    const mdl_matrix *w = f->l->mat;
    s->m->k->gate(s->gate + at, s->up + at, n, s->m->arch->act);
    /* The two matrices differ in length: blocks that only the other's is a
     * multiple of would reach into the next row. */
    u32 blocks = fwd_blocks_of(&w[shared ? M_DOWN_SHARED : M_DOWN_EXPERTS]);
    fwd_quantize(s, blocks, s->gate + at, n, at);
}

/* delta = the experts' outputs by their shares, then the shared one's. */
static void fwd_combine(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    size_t n = s->m->dim[D_EMBD], used = s->m->n_experts_used;
    f32 *y = s->delta + t * n;
    memset(y, 0, n * sizeof *y);
    for (size_t k = 0; k < used; k++) {
        const f32 *x = s->expert_out + s->slot[t * used + k] * n;
        f32 share = s->share[t * used + k];
        for (size_t i = 0; i < n; i++) y[i] += share * x[i];
    }
    const f32 *x = s->expert_out + (step->f->m * used + t) * n;
    if (s->m->dim[D_FFN_SHARED])
        for (size_t i = 0; i < n; i++) y[i] += x[i];
}

/* Plans the products of one kind for all rows: `experts` of the layer and its
 * `shared` counterpart. Inputs and outputs lie as their kind does. */
static void fwd_plan_experts(const fwd *f, u32 experts, u32 shared, bool down,
    const f32 *x, f32 *y) {
    const ksllm_session *s = f->s;
    const mdl_matrix *w = f->l->mat;
    size_t n = s->m->dim[D_EXPERTS], n_embd = s->m->dim[D_EMBD];
    for (u32 e = 0; e <= n; e++) {
        const mdl_matrix *a = &w[e < n ? experts : shared];
        u32 row = s->first[e], m = e < n ? s->first[e + 1] - row : f->m;
        if (!m || !a->w) continue;
        size_t wide = fwd_expert_at(f, row), flat = row * n_embd;
        size_t in = down ? wide : flat, out = down ? flat : wide;
        fwd_plan_job(f, &(ses_job){.w = a, .index = e < n ? e : 0, .m = m,
            .x = x + in, .at = in, .y = y + out, .y_stride = a->n_out});
    }
}

static void fwd_expert_block(const fwd *f) {
    ksllm_session *s = f->s;
    u32 rows = f->m * s->m->n_experts_used;
    bool shared = s->m->dim[D_FFN_SHARED] > 0;
    fwd_norm_input(f, V_FFN_NORM, M_FFN_NORM_A, BIT(M_ROUTER));
    fwd_plan(f, &f->l->mat[M_ROUTER], s->xn, s->route);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_route});
    if (fwd_stopped(s)) return; /* with tokens that chose nothing */
    fwd_group(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_scatter,
        .blocks = fwd_blocks(f, BIT(M_GATE_EXPERTS) | BIT(M_UP_EXPERTS)
            | BIT(M_GATE_SHARED) | BIT(M_UP_SHARED))});
    fwd_plan_experts(
        f, M_GATE_EXPERTS, M_GATE_SHARED, false, s->scattered, s->gate);
    fwd_plan_experts(f, M_UP_EXPERTS, M_UP_SHARED, false, s->scattered, s->up);
    fwd_multiply(f);
    fwd_each(f, rows + (shared ? f->m : 0),
        &(fwd_step){.run = fwd_activate_expert});
    fwd_plan_experts(
        f, M_DOWN_EXPERTS, M_DOWN_SHARED, true, s->gate, s->expert_out);
    fwd_multiply(f);
    fwd_by_token(f, &(fwd_step){.run = fwd_combine});
    fwd_by_token(f, &(fwd_step){.run = fwd_add,
        .norm = f->l->vec[V_FFN_POST_NORM]});
}

/* ---- layers ---- */

/* Streams that skip layers (Solar Pro): the residual stream is kept before
 * some layers and mixed into itself before later ones. */
static void fwd_skip(const fwd_step *step, u32 t) {
    const ksllm_session *s = step->f->s;
    const mdl_layer *l = step->f->l;
    size_t n = s->m->dim[D_EMBD];
    f32 *x = s->x + t * n, share = s->m->skip_share;
    for (u32 i = 0; i < MDL_STREAMS; i++)
        if (l->skip_save & BIT(i))
            memcpy(s->saved + ((size_t)i * s->n_batch + t) * n, x,
                n * sizeof *x);
    for (u32 i = 0; i < MDL_STREAMS; i++) {
        const f32 *saved = s->saved + ((size_t)i * s->n_batch + t) * n;
        if (l->skip_mix & BIT(i))
            for (size_t j = 0; j < n; j++)
                x[j] = saved[j] * share + x[j] * (1 - share);
    }
}

static void fwd_layer(const fwd *f) {
    if (f->l->skip_save | f->l->skip_mix)
        fwd_by_token(f, &(fwd_step){.run = fwd_skip});
    fwd_attention_block(f);
    if (f->l->experts) fwd_expert_block(f);
    else fwd_ffn_block(f);
}

/* The final norm of n_rows tokens of the batch, from number `first` on, and,
 * unless y is NULL, their logits to y, [n_rows][n_vocab]. */
static void fwd_head(const fwd *f, u32 first, u32 n_rows, f32 *y) {
    ksllm_session *s = f->s;
    const mdl_matrix *w = &s->m->output;
    const size_t n = n_rows * w->n_out;
    fwd_each(f, n_rows, &(fwd_step){.run = fwd_norm, .norm = s->m->output_norm,
        .x = s->x + first * w->n_in, .blocks = fwd_blocks_of(w)});
    if (!y) return;
    fwd_plan_job(f, &(ses_job){.w = w, .m = n_rows, .x = s->xn, .y = y,
        .y_stride = w->n_out});
    fwd_multiply(f);
    if (s->m->logit_scale != 1)
        for (size_t i = 0; i < n; i++) y[i] *= s->m->logit_scale;
}

/* Adds all final hidden states of the batch to the pooled vector. */
static void fwd_pool(const fwd *f) {
    ksllm_session *s = f->s;
    size_t n = s->m->dim[D_EMBD];
    fwd_head(f, 0, f->m, NULL);
    if (fwd_stopped(s)) return;
    for (u32 t = 0; t < f->m; t++)
        for (size_t i = 0; i < n; i++) s->pooled[i] += s->xn[t * n + i];
}

/* ln of the sum over the vocabulary of e^logit. A logit minus this is ln of
 * its probability. */
static f32 fwd_log_sum(const ksllm_session *s, const f32 *logits) {
    size_t n = s->m->dim[D_VOCAB];
    f32 max = s->m->k->max(logits, n);
    return max + (f32)m_ln((f64)s->m->k->sum_exp(logits, n, max, NULL));
}

static f32 fwd_logprob(const ksllm_session *s, const f32 *logits, i32 token) {
    return logits[token] - fwd_log_sum(s, logits);
}

/* What a call wants of the tokens that it adds, at positions from `first` on:
 * the logits after each, or ln p of each. */
typedef struct {
    f32 *rows;
    f32 *logprobs;
    u32 first;
} fwd_want;

static const fwd_want FWD_LAST = {0}; /* the last logits alone */

/* ln p of the tokens after those of the batch, a few rows at a time. */
static void fwd_score(const fwd *f, const fwd_want *want) {
    ksllm_session *s = f->s;
    u32 skip = want->first > f->n0 + 1 ? want->first - f->n0 - 1 : 0;
    u32 end = min_u32(f->m, s->n_tokens - 1 - f->n0);
    for (u32 t = skip, n; t < end; t += n) {
        n = min_u32(end - t, SES_ROWS);
        fwd_head(f, t, n, s->logits);
        if (fwd_stopped(s)) return;
        for (u32 i = 0; i < n; i++) {
            u32 next = f->n0 + t + i + 1;
            want->logprobs[next - want->first] = fwd_logprob(s,
                s->logits + i * s->m->dim[D_VOCAB], s->tokens[next]);
        }
    }
}

/* The end of a batch: what the call wants of its hidden states. Leaves the
 * last token's final hidden state as the last row in s->xn. */
static void fwd_output(const fwd *f, bool last, const fwd_want *want) {
    ksllm_session *s = f->s;
    size_t n_vocab = s->m->dim[D_VOCAB], n_embd = s->m->dim[D_EMBD];
    u32 skip = want->first > f->n0 ? want->first - f->n0 : 0, rows = 0;
    if (s->pooling == KSLLM_POOLING_MEAN) fwd_pool(f);
    if (want->logprobs) fwd_score(f, want);
    if (want->rows && skip < f->m) {
        rows = f->m - skip;
        f32 *y = want->rows + (f->n0 + skip - want->first) * n_vocab;
        fwd_head(f, skip, rows, y);
        if (last)
            memcpy(s->logits, y + (rows - 1) * n_vocab, n_vocab * sizeof *y);
    } else if (last) {
        fwd_head(f, f->m - 1, rows = 1, s->logits);
    }
    if (last && s->pooling == KSLLM_POOLING_LAST)
        memcpy(s->pooled, s->xn + (rows - 1) * n_embd, n_embd * sizeof(f32));
}

/* Evaluates positions [n0, n0 + m); `last` ends the call. */
static void fwd_batch(
    ksllm_session *s, u32 n0, u32 m, bool last, const fwd_want *want) {
    fwd f = {.s = s, .n0 = n0, .m = m};
    fwd_by_token(&f, &(fwd_step){.run = fwd_embed});
    for (u32 i = 0; i < s->m->n_layers && !fwd_stopped(s); i++) {
        f.i_layer = i;
        f.l = &s->m->layers[i];
        fwd_layer(&f);
    }
    if (!fwd_stopped(s)) fwd_output(&f, last, want);
}

/* After a rewind all tokens are evaluated, but their logits are gone: has the
 * last one evaluated again. */
static void fwd_reopen(ksllm_session *s) {
    u32 n = s->n_tokens;
    if (s->has_logits || s->n_eval != n || !n) return;
    ses_rewind(s, n - 1);
    s->n_tokens = n;
}

/* Evaluates what the timeline has and the cache has not. On a stop n_eval
 * tells how far it came. */
static ksllm_status fwd_run(ksllm_session *s, const ksllm_control *control,
    const fwd_want *want, ksllm_error *err) {
    if (s->has_logits || !s->n_tokens) return KSLLM_OK;
    fwd_reopen(s);
    u32 start = s->n_eval, total = s->n_tokens - start;
    if (s->pooling == KSLLM_POOLING_MEAN)
        memset(s->pooled, 0, s->m->dim[D_EMBD] * sizeof(f32));
    while (s->n_eval < s->n_tokens && !fwd_stopped(s)) {
        u32 m = min_u32(s->n_tokens - s->n_eval, s->n_batch);
        bool last = s->n_eval + m == s->n_tokens;
        if (s->n_eval + m > s->n_high) s->n_high = s->n_eval + m;
        s->has_pooled = false;
        fwd_batch(s, s->n_eval, m, last, want);
        if (fwd_stopped(s)) break;
        s->n_eval += m;
        if (control->on_progress)
            control->on_progress(
                control->progress_ctx, s->n_eval - start, total);
    }
    if (s->watch.why)
        return ses_watch_fail(
            &s->watch, s->n_eval - start, total, "tokens evaluated", err);
    s->has_logits = true;
    s->has_pooled = s->pooling != KSLLM_POOLING_NONE;
    if (s->pooling == KSLLM_POOLING_MEAN)
        for (size_t i = 0; i < s->m->dim[D_EMBD]; i++)
            s->pooled[i] /= (f32)total;
    return KSLLM_OK;
}

/* As fwd_run; a stopped call leaves the first `held` tokens, which the session
 * had before it, and what was evaluated. */
static ksllm_status fwd_settle(ksllm_session *s, size_t held,
    const ksllm_control *control, const fwd_want *want, ksllm_error *err) {
    ksllm_status status = fwd_run(s, control, want, err);
    if (status) s->n_tokens = (u32)max_size(s->n_eval, held);
    return status;
}

/* Adds tokens and evaluates them. Where something is wanted of each of them,
 * none may slide out. */
static ksllm_status fwd_append(ksllm_session *s, const i32 *tokens, size_t n,
    fwd_want want, const ksllm_control *control, ksllm_error *err) {
    size_t held = s->n_tokens;
    u64 slid = s->n_slid;
    f32 first = NAN;
    if (want.logprobs) fwd_reopen(s);
    if (want.logprobs && s->has_logits && mdl_is_token(s->m, tokens[0]))
        first = fwd_logprob(s, s->logits, tokens[0]);
    want.first = s->n_tokens;
    bool may_slide = !want.rows && !want.logprobs;
    TRY(ses_extend(s, held, tokens, n, may_slide, err));
    if (want.logprobs) want.logprobs[0] = first;
    if (s->n_slid != slid) held = s->n_eval;
    return fwd_settle(s, held, control, &want, err);
}

/* Makes the timeline these tokens; *n_reused of them need no evaluation. */
static ksllm_status fwd_sync(ksllm_session *s, const i32 *tokens, size_t n,
    const ksllm_control *control, size_t *n_reused, ksllm_error *err) {
    size_t keep = ses_common(s, tokens, n);
    if (s->pooling == KSLLM_POOLING_MEAN) keep = 0;
    TRY(ses_extend(s, keep, tokens + keep, n - keep, true, err));
    *n_reused = min_size(s->n_eval, n);
    return fwd_settle(
        s, n > s->n_ctx ? s->n_eval : keep, control, &FWD_LAST, err);
}

/* ==========================================================================
 * § 17 SAMPLING (private)
 * From logits to a token, in the order that ksllm.h states. The candidates not
 * far below the best one become a heap, and only as many are popped as are
 * needed; if they do not suffice, it is built again from more. So a vocabulary
 * of 100,000 is never sorted. Ties go to the lower id. May use § 1-16.
 * ======================================================================== */

enum { SMP_WINDOW = 64, SMP_MAX_WINDOW = 1024 };

/* A logit divided by less than 1e-6 may be no number. */
static bool smp_is_temperature(f64 t) {
    return t == 0 || (t >= (f64)1e-6f && t <= 100);
}

/* A number of the file's recommendation, if it is one and in its range. */
static bool smp_key(
    const gguf *g, const char *key, f64 min, f64 max, f64 *out) {
    const gguf_kv *kv = gguf_find(g, key);
    f64 v;
    if (!kv || kv->type == KSLLM_META_ARRAY || !gguf_num_at(kv, 0, &v)
        || !(v >= min && v <= max)) return false;
    *out = v;
    return true;
}

static void smp_from_file(const gguf *g, ksllm_sampling *p) {
    f64 v;
    bool any = false;
    if (smp_key(g, "general.sampling.top_k", 0, 1 << 30, &v))
        p->top_k = (u32)v, any = true;
    if (smp_key(g, "general.sampling.top_p", 0, 1, &v))
        p->top_p = (f32)v, any = true;
    if (smp_key(g, "general.sampling.min_p", 0, 1, &v))
        p->min_p = (f32)v, any = true;
    if (any) p->temperature = 1;
    if (smp_key(g, "general.sampling.temp", 0, 100, &v)
        && smp_is_temperature(v))
        p->temperature = (f32)v;
    if (smp_key(g, "general.sampling.penalty_repeat", 0, 100, &v))
        p->repeat_penalty = (f32)v;
    if (smp_key(g, "general.sampling.penalty_last_n", 0, SMP_MAX_WINDOW, &v))
        p->penalty_window = (u32)v;
}

static ksllm_status smp_check(const ksllm_session *s, ksllm_sampling *p,
    size_t n_top, ksllm_error *err) {
    const char *wrong = NULL;
    if (p->top_p == 0) p->top_p = 1;
    if (p->repeat_penalty == 0) p->repeat_penalty = 1;
    if (!smp_is_temperature((f64)p->temperature))
        wrong = "temperature must be 0 or from 1e-6 to 100";
    if (!(p->top_p >= 0 && p->top_p <= 1)) wrong = "top_p must be in [0, 1]";
    if (!(p->min_p >= 0 && p->min_p <= 1)) wrong = "min_p must be in [0, 1]";
    if (!(p->repeat_penalty >= 0 && p->repeat_penalty <= 100))
        wrong = "repeat_penalty must be from 0 to 100, 1 for none";
    if (!(p->frequency_penalty >= -100 && p->frequency_penalty <= 100))
        wrong = "frequency_penalty must be from -100 to 100";
    if (!(p->presence_penalty >= -100 && p->presence_penalty <= 100))
        wrong = "presence_penalty must be from -100 to 100";
    if (p->penalty_window > SMP_MAX_WINDOW)
        wrong = "penalty_window must be 1024 at most";
    if (n_top > KSLLM_MAX_TOP) wrong = "n_top must be KSLLM_MAX_TOP at most";
    if (p->n_biases && !p->biases) wrong = "biases is NULL, n_biases is not 0";
    if (wrong)
        return fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET, "sampling: %s", wrong);
    for (size_t i = 0; i < p->n_biases; i++) {
        TRY(mdl_check_tokens(s->m, &p->biases[i].token, 1, err));
        if (p->biases[i].bias != p->biases[i].bias)
            return fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
                "sampling: biases[%llu] is not a number", LLU(i));
    }
    return KSLLM_OK;
}

/* ---- changing the logits ---- */

static void smp_penalize_one(f32 *logit, const ksllm_sampling *p, u32 count) {
    if (*logit > 0) *logit /= p->repeat_penalty;
    else *logit *= p->repeat_penalty;
    *logit -= (f32)count * p->frequency_penalty + p->presence_penalty;
}

/* Each distinct token of the window once, at its first place. Quadratic in the
 * window, which is 64 by default and 1024 at most: no memory, no hash. */
static void smp_penalize(const ksllm_session *s, const ksllm_sampling *p) {
    u32 window = p->penalty_window ? p->penalty_window : SMP_WINDOW;
    u32 n = min_u32(window, s->n_tokens);
    const i32 *t = s->tokens + s->n_tokens - n;
    bool none = p->repeat_penalty == 1 && p->frequency_penalty == 0
        && p->presence_penalty == 0;
    for (u32 i = 0; i < n && !none; i++) {
        u32 before = 0, count = 0;
        for (u32 k = 0; k < i && !before; k++) before += t[k] == t[i];
        if (before) continue;
        for (u32 k = i; k < n; k++) count += t[k] == t[i];
        smp_penalize_one(&s->scores[t[i]], p, count);
    }
}

static void smp_prepare(const ksllm_session *s, const ksllm_sampling *p) {
    size_t n = s->m->dim[D_VOCAB];
    memcpy(s->scores, s->logits, n * sizeof *s->scores);
    for (size_t i = 0; i < p->n_biases; i++)
        s->scores[p->biases[i].token] += p->biases[i].bias;
    if (p->filter) p->filter(p->filter_ctx, s->scores, n);
    smp_penalize(s, p);
}

/* The highest score; -1 when all are forbidden or no numbers. */
static i32 smp_best(const f32 *x, size_t n) {
    i32 best = -1;
    f32 top = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (x[i] > top) {
            top = x[i];
            best = (i32)i;
        }
    return best;
}

/* ---- a heap of candidates, best at [0] ---- */

KS_INLINE bool smp_better(ses_candidate a, ses_candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

static void smp_sift(ses_candidate *h, size_t n, size_t i) {
    ses_candidate c = h[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && smp_better(h[k + 1], h[k])) k++;
        if (!smp_better(h[k], c)) break;
        h[i] = h[k];
    }
    h[i] = c;
}

/* Those above `floor`, divided by the temperature. */
static size_t smp_heap(ses_candidate *h, const f32 *x, size_t n_vocab,
    f32 floor, f32 temperature) {
    size_t n = 0;
    for (size_t i = 0; i < n_vocab; i++)
        if (x[i] > floor) h[n++] = (ses_candidate){x[i] / temperature, (i32)i};
    for (size_t i = n / 2; i-- > 0;) smp_sift(h, n, i);
    return n;
}

/* The floor of an attempt: above it are first some dozens of candidates, then
 * more, in the end all. */
static f32 smp_floor(f32 best, int attempt) {
    static const f32 depth[] = {8, 32};
    return attempt < (int)KS_LEN(depth) ? best - depth[attempt] : -INFINITY;
}

/* Moves the best to the place after the shrunken heap and returns it. */
static ses_candidate smp_pop(ses_candidate *h, size_t *n) {
    ses_candidate best = h[0];
    h[0] = h[--*n];
    h[*n] = best;
    if (*n) smp_sift(h, *n, 0);
    return best;
}

/* ---- drawing ---- */

/* In [0, 1): PCG32 (O'Neill 2014, XSH-RR) with stream `step`, second output;
 * 24 bits. */
static f64 smp_uniform(u64 seed, u64 step) {
    u64 inc = step << 1 | 1, state = inc;
    u32 out = 0;
    state += seed;
    for (int i = 0; i < 3; i++) {
        u64 old = state;
        state = old * 6364136223846793005u + inc;
        u32 x = (u32)((old >> 18 ^ old) >> 27), r = (u32)(old >> 59);
        out = x >> r | x << (-r & 31);
    }
    return (out >> 8) * (1.0 / 16777216);
}

/* Without top-k and top-p all candidates may be drawn: no order is needed. */
static i32 smp_draw_all(const ksllm_session *s, const ksllm_sampling *p,
    f32 max, f64 u) {
    size_t n = s->m->dim[D_VOCAB];
    f32 *w = s->scores;
    s->m->k->sum_exp(w, n, max, w);
    f64 total = 0;
    i32 last = -1;
    for (size_t i = 0; i < n; i++) {
        if (!(w[i] >= p->min_p) || w[i] < 1e-30f) w[i] = 0; /* e^-86 is -inf */
        total += (f64)w[i];
    }
    u *= total;
    for (size_t i = 0; i < n; i++) {
        if (w[i] == 0) continue;
        last = (i32)i;
        u -= (f64)w[i];
        if (u < 0) break;
    }
    return last;
}

/* Pops candidates, best first, until top-k, top-p and min-p are satisfied, and
 * draws one of them. `mass` is that of all candidates, if there is no top-k.
 * -1 if it needs one that is not above `floor`: below there may be others.
 *
 *   h: | heap, left of them | popped: worst ... best |
 *                             h[left]         h[n-1]
 */
static i32 smp_cut(const ksllm_sampling *p, ses_candidate *h, size_t n,
    f32 floor, f64 mass, f64 u) {
    if (!n) return -1; /* beyond 2^26, best - 8 is best */
    const f64 max = (f64)h[0].logit;
    const bool all = floor == -INFINITY;
    size_t left = n, kept = 0, k = p->top_k ? p->top_k : SIZE_MAX;
    f64 sum = 0;
    if (p->top_k)
        for (mass = 0; left && n - left < k;)
            mass += m_exp((f64)smp_pop(h, &left).logit - max);
    for (; kept < k; kept++) {
        if (kept && p->top_p < 1 && sum >= (f64)p->top_p * mass) break;
        if (kept == n - left && left) smp_pop(h, &left);
        if (!all && (kept == n - left || h[n - 1 - kept].logit <= floor))
            return -1;
        if (kept == n - left) break;
        f64 w = m_exp((f64)h[n - 1 - kept].logit - max);
        if (kept && w < (f64)p->min_p) break;
        sum += w;
    }
    u *= sum;
    for (size_t i = 0; i < kept; i++) {
        u -= m_exp((f64)h[n - 1 - i].logit - max);
        if (u < 0) return h[n - 1 - i].token;
    }
    return h[n - kept].token;
}

static i32 smp_draw(
    const ksllm_session *s, const ksllm_sampling *p, u64 step) {
    size_t n = s->m->dim[D_VOCAB];
    f32 *x = s->scores, temperature = p->temperature;
    i32 token = smp_best(x, n);
    if (token < 0 || temperature == 0 || p->top_k == 1
        || x[token] == INFINITY)
        return token;
    f64 u = smp_uniform(p->seed, step), mass = 0;
    if (!p->top_k) { /* all of them count */
        for (size_t i = 0; i < n; i++) x[i] /= temperature;
        temperature = 1;
        if (p->top_p >= 1) return smp_draw_all(s, p, x[token], u);
        mass = (f64)s->m->k->sum_exp(x, n, x[token], NULL);
    }
    f32 best = x[token];
    token = -1;
    for (int i = 0; token < 0; i++) {
        f32 floor = smp_floor(best, i);
        size_t kept = smp_heap(s->heap, x, n, floor, temperature);
        token = smp_cut(p, s->heap, kept, floor / temperature, mass, u);
    }
    return token;
}

/* ---- log-probabilities ---- */

static void smp_top(const ksllm_session *s, ksllm_token_prob *top,
    size_t n_top, f32 max, f32 log_sum) {
    size_t n = s->m->dim[D_VOCAB], left = 0;
    f32 floor = 0;
    for (int i = 0; left < n_top && floor > -INFINITY; i++) {
        floor = smp_floor(max, i);
        left = smp_heap(s->heap, s->logits, n, floor, 1);
    }
    for (size_t i = 0; i < n_top; i++) {
        top[i] = (ksllm_token_prob){-1, -INFINITY};
        if (!left) continue;
        ses_candidate c = smp_pop(s->heap, &left);
        top[i] = (ksllm_token_prob){c.token, c.logit - log_sum};
    }
}

/* The chosen token and the n_top best with the model's own probabilities: of
 * the logits before penalties, filters and temperature. */
static void smp_report(const ksllm_session *s, i32 token,
    ksllm_token_prob *out, ksllm_token_prob *top, size_t n_top) {
    f32 log_sum = fwd_log_sum(s, s->logits);
    *out = (ksllm_token_prob){token, s->logits[token] - log_sum};
    if (top && n_top)
        smp_top(s, top, n_top, s->m->k->max(s->logits, s->m->dim[D_VOCAB]),
            log_sum);
}

static ksllm_status smp_sample(const ksllm_session *s, const ksllm_sampling *p,
    u64 step, ksllm_token_prob *out, ksllm_token_prob *top, size_t n_top,
    ksllm_error *err) {
    if (!s->has_logits)
        return fail(err, KSLLM_ERR_STATE, NO_OFFSET,
            "there are no logits: evaluate tokens first, for example with "
            "ksllm_session_append");
    smp_prepare(s, p);
    i32 token = smp_draw(s, p, step);
    if (token < 0)
        return fail(err, KSLLM_ERR_STATE, NO_OFFSET,
            "no token can be chosen: bias or filter forbid all of them, or "
            "the logits are not numbers (a damaged model)");
    smp_report(s, token, out, top, n_top);
    return KSLLM_OK;
}

/* ==========================================================================
 * § 18 GENERATE (private)
 * Prompt in, pieces of text out: the loop of draw, deliver, evaluate. Owns the
 * held-back text for stop strings; a turn of a chat stands on it. May use
 * § 1-17.
 * ======================================================================== */

enum { GEN_NAP = 5000000 }; /* ns */

typedef struct {
    ksllm_session *s;
    const ksllm_generation *g;
    const ksllm_sampling *sampling;
    const ksllm_control *control;
    ksllm_result *r;
    tok_decoder decoder;
    u64 start;
    u64 due; /* when the next token may be drawn */
    char *hold; /* text not given out yet */
    size_t n_hold;
    ksllm_token_prob token, top[KSLLM_MAX_TOP];
    const i32 *forced; /* tokens to be put on the timeline undrawn */
    u32 n_forced;
    const struct split *split; /* of a turn of a chat, or NULL */
} gen;

static ksllm_text gen_stop_text(const ksllm_generation *g, size_t i) {
    ksllm_text t = g->stop_texts[i];
    if (t.data && t.size == KSLLM_NUL) t.size = strlen(t.data);
    return t;
}

static ksllm_status gen_check(
    const ksllm_session *s, const ksllm_generation *g, ksllm_error *err) {
    const char *wrong = NULL;
    if (g->text && g->tokens) wrong = "both text and tokens are given";
    if (!g->tokens && g->n_tokens) wrong = "tokens is NULL, n_tokens is not 0";
    if (g->tokens && !g->n_tokens) wrong = "n_tokens is 0";
    if (g->n_stop_texts > KSLLM_MAX_STOPS) wrong = "too many stop strings";
    if (g->n_stop_texts && !g->stop_texts) wrong = "stop_texts is NULL";
    if (g->n_stop_tokens && !g->stop_tokens) wrong = "stop_tokens is NULL";
    if (g->n_top > KSLLM_MAX_TOP) wrong = "n_top is above KSLLM_MAX_TOP";
    if ((u32)g->unit > KSLLM_UNIT_EOJEOL) wrong = "no such unit";
    if (g->encode_flags & ~TOK_ENCODE_FLAGS) wrong = "unknown encode_flags";
    if (g->decode_flags & ~TOK_DECODE_FLAGS) wrong = "unknown decode_flags";
    for (size_t i = 0; i < g->n_stop_texts && !wrong; i++) {
        ksllm_text t = gen_stop_text(g, i);
        if (!t.data || !t.size || t.size > KSLLM_MAX_STOP_BYTES)
            wrong = "a stop string is empty or longer than 128 bytes";
        else if (((u8)t.data[0] & 0xc0) == 0x80)
            wrong = "a stop string begins inside a character";
    }
    if (wrong)
        return fail(
            err, KSLLM_ERR_ARGUMENT, NO_OFFSET, "generation: %s", wrong);
    return mdl_check_tokens(s->m, g->stop_tokens, g->n_stop_tokens, err);
}

/* ---- the prompt ---- */

static ksllm_status gen_encode(
    const gen *x, const i32 **tokens, size_t *n, ksllm_error *err) {
    ksllm_session *s = x->s;
    size_t size = x->g->text_size;
    if (!size || size == KSLLM_NUL) size = strlen(x->g->text);
    if (size / SES_PROMPT_BYTES >= s->n_ctx)
        return fail(err, KSLLM_ERR_CONTEXT, NO_OFFSET,
            "a prompt of %llu bytes does not fit a context of %u tokens",
            LLU(size), (unsigned)s->n_ctx);
    u32 flags = x->g->encode_flags;
    if (x->g->append && s->n_tokens) flags &= ~(u32)KSLLM_ENCODE_BOS;
    tok_coder c = {.t = &s->m->tok, .flags = flags, .scratch = s->encode,
        .scratch_bytes = s->encode_bytes, .out = s->prompt, .cap = s->n_ctx,
        .err = err};
    i64 count = tok_encode(&c, (str){x->g->text, size});
    if (count < 0) return (ksllm_status)count;
    if ((u64)count > s->n_ctx) return ses_full(s, (size_t)count, err);
    *tokens = s->prompt;
    *n = (size_t)count;
    return KSLLM_OK;
}

/* Puts the prompt on the timeline and evaluates it. */
static ksllm_status gen_prompt(gen *x, ksllm_error *err) {
    ksllm_session *s = x->s;
    const i32 *tokens = x->g->tokens;
    size_t n = x->g->n_tokens;
    bool replace = (x->g->text || tokens) && !x->g->append;
    if (x->g->text) TRY(gen_encode(x, &tokens, &n, err));
    x->r->n_prompt = n;
    if ((replace ? 0 : s->n_tokens) + n == 0)
        return fail(err, KSLLM_ERR_STATE, NO_OFFSET,
            "generation: there is no prompt and the session is empty");
    ksllm_status status = replace
        ? fwd_sync(s, tokens, n, x->control, &x->r->n_reused, err)
        : fwd_append(s, tokens, n, FWD_LAST, x->control, err);
    x->r->prompt_ns = os_now() - x->start;
    return status;
}

/* ---- text ---- */

/* How many of the held bytes come before the first stop string, *which, or, if
 * there is none, before the longest end that could begin one. */
static size_t gen_certain(const gen *x, i32 *which) {
    size_t certain = x->n_hold;
    for (size_t at = 0; at < x->n_hold; at++)
        for (size_t i = 0; i < x->g->n_stop_texts; i++) {
            ksllm_text t = gen_stop_text(x->g, i);
            size_t n = min_size(t.size, x->n_hold - at);
            if (memcmp(x->hold + at, t.data, n) != 0) continue;
            certain = min_size(certain, at);
            if (n < t.size) continue;
            *which = (i32)i;
            return at;
        }
    return certain;
}

/* How many of the first n held bytes are whole units; all of them if one unit
 * alone is longer than what is held for it. */
static size_t gen_units(const gen *x, size_t n) {
    const u8 *p = (const u8 *)x->hold;
    size_t whole = txt_units(p, p + n, x->g->unit);
    return n - whole > KSLLM_MAX_UNIT_BYTES ? n : whole;
}

/* Hands out the first n held bytes. */
static bool gen_deliver(gen *x, size_t n, i32 token) {
    int stop = 0;
    if (!x->r->first_ns) x->r->first_ns = os_now() - x->start;
    if (x->g->on_piece) {
        ksllm_piece p = {{x->hold, n}, token, x->token.logprob, x->top,
            x->g->n_top, x->r->n_generated - 1};
        if (token < 0) p.top = NULL, p.n_top = 0, p.logprob = 0;
        stop = x->g->on_piece(x->g->piece_ctx, &p);
    }
    memmove(x->hold, x->hold + n, x->n_hold - n);
    x->n_hold -= n;
    if (stop) x->r->stop = KSLLM_STOP_CALLBACK;
    return !stop;
}

/* Delivers the text of a new token, as far as it cannot become a stop string
 * or an unfinished unit; sets r->stop if the answer ends. A stop string counts
 * even if the callback stops at the text before it. */
static void gen_piece(gen *x) {
    i64 n = tok_decoder_next(&x->decoder, x->token.token,
        x->hold + x->n_hold, x->s->text_bytes - x->n_hold);
    if (n > 0) x->n_hold += (size_t)n;
    size_t certain = gen_certain(x, &x->r->stop_text);
    bool stops = x->r->stop_text >= 0;
    gen_deliver(x, stops ? certain : gen_units(x, certain), x->token.token);
    if (stops) x->r->stop = KSLLM_STOP_TEXT;
}

/* At the end the held text is certain, unless a stop string ended it. */
static void gen_flush(gen *x) {
    if (x->r->stop == KSLLM_STOP_TEXT || x->r->stop == KSLLM_STOP_CALLBACK)
        return;
    ksllm_stop why = x->r->stop;
    i64 n = tok_decoder_end(
        &x->decoder, x->hold + x->n_hold, x->s->text_bytes - x->n_hold);
    if (n > 0) x->n_hold += (size_t)n;
    if (x->n_hold) gen_deliver(x, x->n_hold, -1);
    x->r->stop = why;
}

/* ---- the loop ---- */

static bool gen_is_stop(const gen *x, i32 token) {
    if (x->g->ignore_stop) return false;
#if !defined KSLLM_NO_CHAT
    if (x->split && split_ends_thinking(x->split,
            tok_text(&x->s->m->tok, (u32)token))) return false;
#endif
    if (tok_is_stop(&x->s->m->tok, token)) return true;
    for (size_t i = 0; i < x->g->n_stop_tokens; i++)
        if (x->g->stop_tokens[i] == token) return true;
    return false;
}

/* Sleeps until the next token is due, in naps short enough for a cancel. */
static ksllm_status gen_pace(gen *x, ksllm_error *err) {
    f32 rate = x->control->max_tokens_per_second;
    if (rate == 0) return KSLLM_OK;
    u64 now;
    while ((now = os_now()) < x->due && !fwd_stopped(x->s))
        os_sleep(min_u64(x->due - now, GEN_NAP));
    x->due = now + (u64)(1e9 / (f64)rate);
    return x->s->watch.why ? ses_watch_fail(&x->s->watch, x->r->n_generated,
        x->r->n_generated + 1, "tokens, waiting for the next one's time", err)
        : KSLLM_OK;
}

/* One token: draw it, put it on the timeline, hand out its text. */
static ksllm_status gen_step(gen *x, ksllm_error *err) {
    ksllm_session *s = x->s;
    bool slides = s->overflow == KSLLM_OVERFLOW_SLIDE && !x->split;
    bool forced = x->n_forced > 0;
    if (s->n_tokens == s->n_ctx && !slides) {
        x->r->stop = KSLLM_STOP_CONTEXT;
        return KSLLM_OK;
    }
    if (forced) {
        smp_report(s, *x->forced++, &x->token, x->top, x->g->n_top);
        x->n_forced--;
    } else {
        TRY(smp_sample(s, x->sampling, s->n_slid + s->n_tokens, &x->token,
            x->top, x->g->n_top, err));
    }
    if (!forced && gen_is_stop(x, x->token.token)) {
        x->r->stop = KSLLM_STOP_TOKEN;
        x->r->stop_token = x->token.token;
        return KSLLM_OK;
    }
    TRY(ses_extend(s, s->n_tokens, &x->token.token, 1, true, err));
    x->r->n_generated++;
    gen_piece(x);
    if (!x->r->stop && x->g->max_tokens
        && x->r->n_generated >= x->g->max_tokens)
        x->r->stop = KSLLM_STOP_LENGTH;
    return KSLLM_OK;
}

static ksllm_status gen_run(gen *x, ksllm_error *err) {
    ksllm_session *s = x->s;
    tok_decoder_init(&x->decoder, &s->m->tok, x->g->decode_flags);
    ksllm_status status = gen_prompt(x, err);
    while (!status && !x->r->stop) {
        status = gen_pace(x, err);
        if (!status) status = gen_step(x, err);
        if (!status && !x->r->stop)
            status = fwd_run(s, x->control, &FWD_LAST, err);
    }
    if (status == KSLLM_ERR_CANCELLED) x->r->stop = KSLLM_STOP_CANCELLED;
    if (status == KSLLM_ERR_DEADLINE) x->r->stop = KSLLM_STOP_DEADLINE;
    gen_flush(x);
    x->r->total_ns = os_now() - x->start;
    return status;
}

/* ---- a turn of a chat ---- */

#if !defined KSLLM_NO_CHAT

enum {
    TURN_MARK = 64, /* tokens that end the thinking */
    TURN_CALLS = 64 /* tool calls of an answer: a bit of `whole` each */
};

/* An answer that is split while it is generated. No memory for all of it is
 * planned (D5), so the message at its end comes from a second pass over its
 * tokens, one for each field. */
typedef struct {
    gen x;
    const ksllm_generation *given; /* its on_piece sees the answer too */
    ksllm_on_part on_part;
    void *ctx;
    split split, begin; /* now, and as the prompt left it */
    u8 *buffer, *owed;  /* halves of s->encode: of the splitter, and a copy of
                           what the prompt had put in it */
    size_t half;
    size_t n_raw;       /* bytes of the answer, its marks included */
    u32 n_thinking;     /* tokens */
    u32 n_calls;
    u64 whole;          /* which calls have their end */
    i32 mark[TURN_MARK];
    u32 n_mark;
    ksllm_part field;   /* of the message, in the second pass */
    bool empty;         /* nothing of the field has come yet */
    bool stopped;       /* by on_part */
    ksllm_status status;
    ksllm_error *err;
} turn;

static int turn_give(turn *t, ksllm_part part, const void *p, size_t n) {
    if (t->on_part && !t->stopped)
        t->stopped = t->on_part(t->ctx, part, (ksllm_text){p, n}) != 0;
    return t->stopped;
}

/* A part in the first pass: to the program. */
static int turn_part(void *ctx, ksllm_part part, ksllm_text text) {
    turn *t = ctx;
    if (part == KSLLM_PART_CALL && t->n_calls++ >= TURN_CALLS) {
        t->status = fail(t->err, KSLLM_ERR_BUFFER, NO_OFFSET,
            "more than %d tool calls in one answer", TURN_CALLS);
        return 1;
    }
    if (part == KSLLM_PART_CALL_END) t->whole |= (u64)1 << (t->n_calls - 1);
    return turn_give(t, part, text.data, text.size);
}

/* Ends thinking at its limit, with the tokens that the model would use, but
 * never inside a character. */
static void turn_limit(turn *t) {
    gen *x = &t->x;
    if (t->split.state != SPLIT_THINK || x->n_forced) return;
    if (++t->n_thinking < x->g->max_thinking || !x->g->max_thinking) return;
    if (x->decoder.n_pending) return;
    t->n_thinking = 0;
    x->forced = t->mark;
    x->n_forced = t->n_mark;
}

static int turn_piece(void *ctx, const ksllm_piece *piece) {
    turn *t = ctx;
    str text = {piece->text.data, piece->text.size};
    t->n_raw += text.n;
    if (t->given->on_piece && t->given->on_piece(t->given->piece_ctx, piece))
        return 1;
    bool thinks = t->split.state == SPLIT_THINK;
    ksllm_status status = split_feed(&t->split, text, NULL);
    if (status == KSLLM_ERR_BUFFER && !t->status)
        t->status = fail(t->err, KSLLM_ERR_BUFFER, NO_OFFSET,
            "a tool call is longer than the %llu bytes that a session has for "
            "one; a larger n_ctx has more", LLU(t->half));
    if (piece->token >= 0 && thinks) turn_limit(t);
    return status != KSLLM_OK;
}

/* Gives a text as the inside of a JSON string, a few escaped bytes at once. */
static void turn_escape(turn *t, ksllm_text text) {
    const u8 *p = (const u8 *)text.data, *end = text.size ? p + text.size : p;
    u8 run[128];
    u32 n = 0;
    while (p < end) {
        n += json_escape(&p, end, run + n);
        if (n + 8 <= sizeof run && p < end) continue;
        turn_give(t, KSLLM_PART_MESSAGE, run, n);
        n = 0;
    }
}

/* A part in the second pass: into the message, if it belongs to the field.
 * Calls that never ended are left out: their arguments are no JSON. */
static int turn_write(void *ctx, ksllm_part part, ksllm_text text) {
    static const char call[] = "{\"type\": \"function\", \"function\": "
                               "{\"name\": \"";
    turn *t = ctx;
    bool whole = t->n_calls && t->whole >> (t->n_calls - 1) & 1;
    if (part == KSLLM_PART_CALL) whole = t->whole >> t->n_calls++ & 1;
    if (t->field == KSLLM_PART_CALL ? !whole || part < KSLLM_PART_CALL
                                    : part != t->field) return 0;
    static const char *const names[] = {
        "", ", \"reasoning_content\": \"", ", \"tool_calls\": ["};
    const char *head = t->empty ? names[t->field] : NULL;
    if (part == KSLLM_PART_CALL && !t->empty) head = ", ";
    if (head && *head) turn_give(t, KSLLM_PART_MESSAGE, head, strlen(head));
    t->empty = false;
    if (part == KSLLM_PART_CALL_END)
        return turn_give(t, KSLLM_PART_MESSAGE, "}}", 2);
    if (part == KSLLM_PART_ARGUMENTS)
        return turn_give(t, KSLLM_PART_MESSAGE, text.data, text.size);
    if (part == KSLLM_PART_CALL)
        turn_give(t, KSLLM_PART_MESSAGE, call, sizeof call - 1);
    turn_escape(t, text);
    if (part == KSLLM_PART_CALL)
        turn_give(t, KSLLM_PART_MESSAGE, "\", \"arguments\": ", 15);
    return t->stopped;
}

/* Splits the answer again, from its tokens. */
static void turn_again(turn *t) {
    ksllm_session *s = t->x.s;
    tok_decoder d;
    size_t left = t->n_raw;
    memcpy(t->buffer, t->owed, min_size(t->begin.used, t->half));
    t->split = t->begin;
    t->split.on_part = turn_write;
    t->n_calls = 0;
    t->empty = true;
    tok_decoder_init(&d, &s->m->tok, KSLLM_DECODE_SPECIAL);
    for (size_t i = t->x.r->n_prompt; left && i <= s->n_tokens; i++) {
        i64 n = i == s->n_tokens
            ? tok_decoder_end(&d, s->text, s->text_bytes)
            : tok_decoder_next(&d, s->tokens[i], s->text, s->text_bytes);
        size_t k = min_size(n > 0 ? (size_t)n : 0, left);
        split_feed(&t->split, (str){s->text, k}, NULL);
        left -= k;
    }
    split_finish(&t->split, NULL);
}

/* The answer as a message: its text, its thinking, its whole calls. They may
 * alternate in the answer, so each field is a pass of its own. */
static void turn_message(turn *t) {
    static const char begin[] = "{\"role\": \"assistant\", \"content\": \"";
    static const ksllm_part fields[] = {
        KSLLM_PART_TEXT, KSLLM_PART_THINKING, KSLLM_PART_CALL};
    turn_give(t, KSLLM_PART_MESSAGE, begin, sizeof begin - 1);
    for (u32 i = 0; i < KS_LEN(fields); i++) {
        t->field = fields[i];
        turn_again(t);
        const char *end = t->field == KSLLM_PART_CALL ? "]" : "\"";
        if (!t->empty || !i) turn_give(t, KSLLM_PART_MESSAGE, end, 1);
    }
    turn_give(t, KSLLM_PART_MESSAGE, "}", 1);
}

/* The notation of an answer, by its name or else by the template. */
static ksllm_status turn_format(const char *name, str source,
    const split_format **out, ksllm_error *err) {
    *out = name ? split_by_name(name) : split_by_template(source);
    return *out ? KSLLM_OK : fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
        "format: '%s' is not one of ksllm_splitter_format_at", name);
}

/* Readies the splitter for an answer to the prompt. */
static ksllm_status turn_split(
    turn *t, const split_format *f, str prompt, ksllm_error *err) {
    ksllm_session *s = t->x.s;
    if (f->end_think && t->x.g->max_thinking) {
        tok_coder c = {.t = &s->m->tok, .flags = KSLLM_ENCODE_SPECIAL,
            .scratch = s->encode, .scratch_bytes = s->encode_bytes,
            .out = t->mark, .cap = TURN_MARK, .err = err};
        i64 n = tok_encode(&c, str_of(f->end_think));
        if (n < 0) return (ksllm_status)n;
        t->n_mark = n > TURN_MARK ? 0 : (u32)n;
    }
    t->half = s->encode_bytes / 2;
    t->buffer = s->encode;
    t->owed = t->buffer + t->half;
    split_begin(&t->split, f, prompt, t->buffer, t->half, turn_part, t);
    memcpy(t->owed, t->buffer, min_size(t->split.used, t->half));
    t->begin = t->split;
    t->x.split = &t->split;
    return KSLLM_OK;
}

/* Encodes the rendered messages into the session, as the prompt of `g`. */
static ksllm_status turn_begin(turn *t, chat_ctx *c, chat_val text,
    const ksllm_chat *chat, ksllm_generation *g) {
    ksllm_session *s = t->x.s;
    const split_format *f;
    TRY(turn_format(chat->format, chat_source(c, chat, &s->m->g), &f, t->err));
    i64 n = chat_encode(
        c, text, &s->m->tok, KSLLM_ENCODE_COMPOSE, s->prompt, s->n_ctx);
    if (n < 0) return (ksllm_status)n;
    if (n > (i64)s->n_ctx) return ses_full(s, (size_t)n, t->err);
    if (!n)
        return fail(t->err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
            "chat: the template makes no text of these messages");
    g->tokens = s->prompt;
    g->n_tokens = (size_t)n;
    return turn_split(t, f, (str){(const char *)text.u.s, text.n}, t->err);
}

static ksllm_status turn_run(turn *t) {
    ksllm_status status = gen_run(&t->x, t->err);
    ksllm_result *r = t->x.r;
    if (t->status) r->stop = KSLLM_STOP_NONE;
    if (t->status) return t->status;
    split_finish(&t->split, NULL);
    bool ends = !status || ((r->stop == KSLLM_STOP_CANCELLED
        || r->stop == KSLLM_STOP_DEADLINE) && r->n_generated);
    if (ends && t->on_part && !t->stopped && r->stop != KSLLM_STOP_CALLBACK)
        turn_message(t);
    if (t->stopped && !status) r->stop = KSLLM_STOP_CALLBACK;
    return status;
}

#endif /* KSLLM_NO_CHAT */

/* ==========================================================================
 * § 19 API (public)
 * Every function of ksllm.h: check the arguments, call inside, report. Nothing
 * else happens here.
 * ======================================================================== */

#define NEED(cond, what)                                                       \
    do {                                                                       \
        if (!(cond))                                                           \
            return fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET, what);             \
    } while (0)

/* A struct that may grow: its size now, and in version 0.2, the least that a
 * program can have. No padding may follow the last field: a later field would
 * meet bytes there that the program never set. */
typedef struct {
    const char *name;
    size_t size, least;
} api_struct;

#define KS_VERSION                                                             \
    KS_STRING(KSLLM_VERSION_MAJOR) "." KS_STRING(KSLLM_VERSION_MINOR) "."      \
    KS_STRING(KSLLM_VERSION_PATCH)
#define API_END(type, last) (offsetof(type, last) + sizeof((type *)0)->last)
#define API_STRUCT(variable, type, last_of_0_2, last)                          \
    static const api_struct variable = {                                       \
        #type, sizeof(type), API_END(type, last_of_0_2)};                      \
    _Static_assert(sizeof(type) == API_END(type, last), "padding")

API_STRUCT(API_MODEL_OPTIONS, ksllm_model_options, isa, isa);
API_STRUCT(API_MODEL_INFO, ksllm_model_info, max_piece_bytes, max_piece_bytes);
API_STRUCT(API_META, ksllm_meta, text, text);
API_STRUCT(API_TENSOR, ksllm_tensor, offset, offset);
API_STRUCT(API_CONTROL, ksllm_control, progress_ctx, progress_ctx);
API_STRUCT(API_SESSION_OPTIONS, ksllm_session_options, thread_ctx, thread_ctx);
API_STRUCT(API_MEMORY, ksllm_memory, output, output);
API_STRUCT(API_SAMPLING, ksllm_sampling, filter_ctx, filter_ctx);
API_STRUCT(API_GENERATION, ksllm_generation, max_thinking, max_thinking);
API_STRUCT(API_RESULT, ksllm_result, total_ns, total_ns);

/* Fills a struct that the program says has `size` bytes. */
static void api_init(
    const api_struct *t, void *theirs, size_t size, const void *mine) {
    if (!theirs || size < sizeof size) return;
    memset(theirs, 0, size);
    memcpy(theirs, mine, min_size(size, t->size));
    memcpy(theirs, &size, sizeof size);
}

static ksllm_status api_size(
    const api_struct *t, const void *theirs, size_t *size, ksllm_error *err) {
    memcpy(size, theirs, sizeof *size);
    if (*size >= t->least && *size <= 1 << 16) return KSLLM_OK;
    return fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
        "%s: size is %llu, not %llu or more: set it to sizeof before the call, "
        "or with the _init function", t->name, LLU(*size), LLU(t->least));
}

/* Copies an options struct of the program's version over our defaults. What
 * lies beyond the fields that we know must be zero: a wish that this library
 * cannot fulfil is refused, not ignored. */
static ksllm_status api_options(const api_struct *t, void *mine,
    const void *theirs, ksllm_error *err) {
    size_t size;
    if (!theirs) return KSLLM_OK;
    TRY(api_size(t, theirs, &size, err));
    memcpy(mine, theirs, min_size(t->size, size));
    for (size_t i = t->size; i < size; i++)
        if (((const u8 *)theirs)[i])
            return fail(err, KSLLM_ERR_UNSUPPORTED, NO_OFFSET,
                "%s: a field is set that version %s does not have: the header "
                "is newer than the library", t->name, KS_VERSION);
    return KSLLM_OK;
}

/* Hands a struct out to a program of any version, as far as its size goes. */
static ksllm_status api_give(const api_struct *t, void *theirs,
    const void *mine, ksllm_error *err) {
    size_t size;
    TRY(api_size(t, theirs, &size, err));
    api_init(t, theirs, size, mine);
    return KSLLM_OK;
}

static ksllm_status api_control(
    const ksllm_control *given, ksllm_control *mine, ksllm_error *err) {
    *mine = (ksllm_control){0};
    TRY(api_options(&API_CONTROL, mine, given, err));
    f32 rate = mine->max_tokens_per_second;
    NEED(rate == 0 || (rate >= 1e-6f && rate <= 1e9f),
        "control: max_tokens_per_second must be 0 or from 1e-6 to 1e9");
    return KSLLM_OK;
}

/* ---- version and status ---- */

const char *ksllm_version(void) { return KS_VERSION; }

const char *ksllm_isa_at(size_t index) {
    const k_row *k = k_at(index);
    return k ? k->name : NULL;
}

const char *ksllm_status_name(ksllm_status status) {
    static const char *const names[] = {"KSLLM_OK", "KSLLM_ERR_ARGUMENT",
        "KSLLM_ERR_MEMORY", "KSLLM_ERR_IO", "KSLLM_ERR_FORMAT",
        "KSLLM_ERR_UNSUPPORTED", "KSLLM_ERR_CONTEXT", "KSLLM_ERR_TOKEN",
        "KSLLM_ERR_CANCELLED", "KSLLM_ERR_DEADLINE", "KSLLM_ERR_BUFFER",
        "KSLLM_ERR_STATE", "KSLLM_ERR_THREAD"};
    i64 i = -(i64)status;
    return i >= 0 && i < (i64)KS_LEN(names) ? names[i] : "unknown status";
}

/* ---- model ---- */

void ksllm_model_options_init_sized(
    ksllm_model_options *options, size_t size) {
    api_init(&API_MODEL_OPTIONS, options, size, &(ksllm_model_options){0});
}

static ksllm_status api_open(const ksllm_model_options *given,
    ksllm_model_options *o, ksllm_model **out, ksllm_error *err) {
    NEED(out, "out is NULL");
    *out = NULL;
    *o = (ksllm_model_options){0};
    return api_options(&API_MODEL_OPTIONS, o, given, err);
}

ksllm_status ksllm_model_open(const char *path,
    const ksllm_model_options *options, ksllm_model **out, ksllm_error *err) {
    ksllm_model_options o;
    TRY(api_open(options, &o, out, err));
    NEED(path, "path is NULL");
    os_file file;
    ksllm_allocator a = mdl_allocator(&o);
    TRY(os_open(path, o.in_memory ? &a : NULL, &file, err));
    return mdl_open(file, str_of(path), path, &o, out, err);
}

ksllm_status ksllm_model_open_fd(int fd, uint64_t offset, uint64_t length,
    const ksllm_model_options *options, ksllm_model **out, ksllm_error *err) {
    ksllm_model_options o;
    TRY(api_open(options, &o, out, err));
    NEED(fd >= 0, "fd is negative");
    NEED(length > 0, "length is 0");
    os_file file;
    str name = str_of("file descriptor");
    ksllm_allocator a = mdl_allocator(&o);
    TRY(os_open_fd(
        fd, offset, length, name, o.in_memory ? &a : NULL, &file, err));
    return mdl_open(file, name, NULL, &o, out, err);
}

ksllm_status ksllm_model_open_memory(const void *data, size_t size,
    const ksllm_model_options *options, ksllm_model **out, ksllm_error *err) {
    ksllm_model_options o;
    TRY(api_open(options, &o, out, err));
    NEED(data, "data is NULL");
    NEED(size > 0, "size is 0");
    os_file file = {data, size, NULL, 0, false};
    return mdl_open(file, str_of("the file in memory"), NULL, &o, out, err);
}

void ksllm_model_close(ksllm_model *model) {
    if (model) mdl_close(model);
}

static ksllm_text api_text(str s) { return (ksllm_text){s.p, s.n}; }

ksllm_status ksllm_model_get_info(
    const ksllm_model *model, ksllm_model_info *info, ksllm_error *err) {
    NEED(model, "model is NULL");
    NEED(info, "info is NULL");
    const gguf *g = &model->g;
    const tokenizer *t = &model->tok;
    ksllm_model_info i = {
        .architecture = api_text(gguf_get_str(g, "general.architecture")),
        .name = api_text(gguf_get_str(g, "general.name")),
        .isa = model->k->name,
        .n_layers = model->n_layers,
        .n_embd = (u32)model->dim[D_EMBD],
        .n_ffn = (u32)model->dim[D_FFN],
        .n_vocab = (u32)t->n_vocab,
        .n_heads = model->n_heads,
        .n_kv_heads = model->n_kv_heads,
        .head_dim = (u32)model->dim[D_HEAD],
        .n_ctx_train = model->n_ctx_train,
        .window = model->window,
        .bos = t->bos, .eos = t->eos, .eot = t->eot,
        .unk = t->unk, .pad = t->pad,
        .adds_bos = t->adds_bos, .adds_eos = t->adds_eos,
        .max_piece_bytes = (u32)t->max_piece_bytes,
        .file_bytes = g->file_bytes, .weight_bytes = g->weight_bytes,
        .n_parameters = g->n_parameters,
    };
    return api_give(&API_MODEL_INFO, info, &i, err);
}

ksllm_status ksllm_model_preload(const ksllm_model *model,
    const ksllm_control *control, ksllm_error *err) {
    NEED(model, "model is NULL");
    ksllm_control c;
    TRY(api_control(control, &c, err));
    return ses_preload(&model->g, &c, err);
}

/* ---- metadata and tensors ---- */

/* Item `item` of an entry as a value of its own. */
static void api_meta_value(const gguf_kv *kv, u64 item, ksllm_meta *out) {
    out->type = (ksllm_meta_type)kv->item;
    gguf_int_at(kv, item, &out->integer);
    gguf_num_at(kv, item, &out->number);
    if (out->type == KSLLM_META_TEXT) {
        const u8 *p = kv->data;
        str s = gguf_next_str(&p);
        for (u64 i = 0; i < item; i++) s = gguf_next_str(&p);
        out->text = api_text(s);
    }
}

static ksllm_status api_meta(const gguf_kv *kv, ksllm_meta *out) {
    ksllm_meta m = {.key = api_text(kv->key),
        .type = (ksllm_meta_type)kv->type,
        .item_type = (ksllm_meta_type)kv->item, .n_items = kv->count};
    if (kv->type != KSLLM_META_ARRAY) api_meta_value(kv, 0, &m);
    return api_give(&API_META, out, &m, NULL);
}

size_t ksllm_meta_count(const ksllm_model *model) {
    return model ? model->g.n_kv : 0;
}

ksllm_status ksllm_meta_at(
    const ksllm_model *model, size_t index, ksllm_meta *out) {
    if (!model || !out || index >= model->g.n_kv) return KSLLM_ERR_ARGUMENT;
    return api_meta(&model->g.kv[index], out);
}

ksllm_status ksllm_meta_find(
    const ksllm_model *model, const char *key, ksllm_meta *out) {
    const gguf_kv *kv = model && key ? gguf_find(&model->g, key) : NULL;
    if (!kv || !out) return KSLLM_ERR_ARGUMENT;
    return api_meta(kv, out);
}

ksllm_status ksllm_meta_item(
    const ksllm_model *model, size_t index, uint64_t item, ksllm_meta *out) {
    if (!model || !out || index >= model->g.n_kv) return KSLLM_ERR_ARGUMENT;
    const gguf_kv *kv = &model->g.kv[index];
    if (kv->type != KSLLM_META_ARRAY || item >= kv->count)
        return KSLLM_ERR_ARGUMENT;
    ksllm_meta m = {.key = api_text(kv->key), .n_items = 1,
        .item_type = (ksllm_meta_type)kv->item};
    api_meta_value(kv, item, &m);
    return api_give(&API_META, out, &m, NULL);
}

static ksllm_status api_tensor(const gguf_tensor *t, ksllm_tensor *out) {
    ksllm_tensor v = {.name = api_text(t->name),
        .type = (ksllm_type)t->type, .type_name = BLK_TYPES[t->type].name,
        .n_dims = t->n_dims, .data = t->data, .bytes = t->bytes,
        .offset = t->offset, .part = t->part};
    memcpy(v.dims, t->dims, sizeof t->dims);
    return api_give(&API_TENSOR, out, &v, NULL);
}

size_t ksllm_tensor_count(const ksllm_model *model) {
    return model ? model->g.n_tensors : 0;
}

ksllm_status ksllm_tensor_at(
    const ksllm_model *model, size_t index, ksllm_tensor *out) {
    if (!model || !out || index >= model->g.n_tensors)
        return KSLLM_ERR_ARGUMENT;
    return api_tensor(&model->g.tensors[index], out);
}

ksllm_status ksllm_tensor_find(
    const ksllm_model *model, const char *name, ksllm_tensor *out) {
    const gguf_tensor *t =
        model && name ? gguf_find_tensor(&model->g, str_of(name)) : NULL;
    if (!t || !out) return KSLLM_ERR_ARGUMENT;
    return api_tensor(t, out);
}

ksllm_status ksllm_tensor_row(const ksllm_model *model,
    const ksllm_tensor *tensor, uint64_t row, float *out) {
    if (!model || !tensor || !out || !tensor->name.data)
        return KSLLM_ERR_ARGUMENT;
    str name = {tensor->name.data, tensor->name.size};
    const gguf_tensor *t = gguf_find_tensor(&model->g, name);
    if (!t || row >= t->n_rows) return KSLLM_ERR_ARGUMENT;
    if (!t->data) return KSLLM_ERR_UNSUPPORTED;
    blk_row((ksllm_type)t->type, t->data + row * t->row_bytes, t->dims[0], out);
    return KSLLM_OK;
}

/* ---- tokens ---- */

int64_t ksllm_encode(const ksllm_model *model, const char *text, size_t size,
    uint32_t flags, int32_t *tokens, size_t cap, ksllm_error *err) {
    NEED(model, "model is NULL");
    NEED(text || !size, "text is NULL");
    NEED(tokens || !cap, "tokens is NULL, cap is not 0");
    NEED(!(flags & ~TOK_ENCODE_FLAGS), "flags: unknown bits");
    if (size == KSLLM_NUL) size = strlen(text);
    tok_coder c = {.t = &model->tok, .flags = flags, .a = &model->alloc,
        .out = tokens, .cap = cap, .err = err};
    return tok_encode(&c, (str){text, size});
}

int64_t ksllm_decode(const ksllm_model *model, const int32_t *tokens,
    size_t n_tokens, uint32_t flags, char *text, size_t cap,
    ksllm_error *err) {
    NEED(model, "model is NULL");
    NEED(tokens || !n_tokens, "tokens is NULL");
    NEED(text || !cap, "text is NULL, cap is not 0");
    NEED(!(flags & ~TOK_DECODE_FLAGS), "flags: unknown bits");
    TRY(mdl_check_tokens(model, tokens, n_tokens, err));
    return tok_decode(&model->tok, tokens, n_tokens, flags, text, cap);
}

int64_t ksllm_token_bytes(const ksllm_model *model, int32_t token,
    uint32_t flags, char *bytes, size_t cap) {
    if (!model || (!bytes && cap)) return KSLLM_ERR_ARGUMENT;
    if (!mdl_is_token(model, token)) return KSLLM_ERR_TOKEN;
    u8 buf[TOK_TEXT_MAX];
    str piece = tok_piece(&model->tok, token, flags, buf);
    if (cap && piece.n) memcpy(bytes, piece.p, min_size(cap, piece.n));
    return (i64)piece.n;
}

int32_t ksllm_token_find(
    const ksllm_model *model, const char *text, size_t size) {
    if (!model || !text) return -1;
    if (size == KSLLM_NUL) size = strlen(text);
    return tok_find(&model->tok, (str){text, size});
}

bool ksllm_token_is_stop(const ksllm_model *model, int32_t token) {
    return model && mdl_is_token(model, token)
        && tok_is_stop(&model->tok, token);
}

size_t ksllm_text_units(const char *text, size_t size, ksllm_unit unit) {
    if (!text || (u32)unit > KSLLM_UNIT_EOJEOL) return 0;
    if (size == KSLLM_NUL) size = strlen(text);
    return txt_units((const u8 *)text, (const u8 *)text + size, unit);
}

void ksllm_decoder_init(
    ksllm_decoder *decoder, const ksllm_model *model, uint32_t flags) {
    if (!decoder) return;
    tok_decoder_init((tok_decoder *)decoder, model ? &model->tok : NULL, flags);
}

int64_t ksllm_decoder_next(
    ksllm_decoder *decoder, int32_t token, char *text, size_t cap) {
    tok_decoder *d = (tok_decoder *)decoder;
    if (!d || !d->t || !text) return KSLLM_ERR_ARGUMENT;
    return tok_decoder_next(d, token, text, cap);
}

int64_t ksllm_decoder_end(ksllm_decoder *decoder, char *text, size_t cap) {
    tok_decoder *d = (tok_decoder *)decoder;
    if (!d || !d->t || !text) return KSLLM_ERR_ARGUMENT;
    return tok_decoder_end(d, text, cap);
}

/* ---- control ---- */

void ksllm_cancel_set(ksllm_cancel *cancel) {
    if (cancel) AT_STORE(&cancel->flag, 1);
}

void ksllm_cancel_clear(ksllm_cancel *cancel) {
    if (cancel) AT_STORE(&cancel->flag, 0);
}

void ksllm_control_init_sized(ksllm_control *control, size_t size) {
    api_init(&API_CONTROL, control, size, &(ksllm_control){0});
}

static ksllm_status api_begin(ksllm_session *s, const ksllm_control *given,
    ksllm_control *mine, ksllm_error *err) {
    TRY(api_control(given, mine, err));
    return ses_begin(s, mine, err);
}

/* ---- session ---- */

static const ksllm_session_options API_SESSION_DEFAULTS = {
    .kv_type = KSLLM_TYPE_Q8_0};

void ksllm_session_options_init_sized(
    ksllm_session_options *options, size_t size) {
    api_init(&API_SESSION_OPTIONS, options, size, &API_SESSION_DEFAULTS);
}

ksllm_status ksllm_session_memory(const ksllm_model *model,
    const ksllm_session_options *options, ksllm_memory *out,
    ksllm_error *err) {
    NEED(model, "model is NULL");
    NEED(out, "out is NULL");
    ksllm_session sized;
    ksllm_session_options o = API_SESSION_DEFAULTS;
    ksllm_memory m;
    TRY(api_options(&API_SESSION_OPTIONS, &o, options, err));
    TRY(ses_size(&sized, model, &o, &m, err));
    return api_give(&API_MEMORY, out, &m, err);
}

ksllm_status ksllm_session_create(const ksllm_model *model,
    const ksllm_session_options *options, ksllm_session **out,
    ksllm_error *err) {
    NEED(out, "out is NULL");
    *out = NULL;
    NEED(model, "model is NULL");
    ksllm_session_options o = API_SESSION_DEFAULTS;
    TRY(api_options(&API_SESSION_OPTIONS, &o, options, err));
    return ses_create(model, &o, out, err);
}

void ksllm_session_free(ksllm_session *session) {
    if (session) ses_free(session);
}

ksllm_status ksllm_session_sync(ksllm_session *session, const int32_t *tokens,
    size_t n_tokens, const ksllm_control *control, ksllm_error *err) {
    NEED(session, "session is NULL");
    NEED(tokens && n_tokens, "tokens is NULL or n_tokens is 0");
    ksllm_control c;
    size_t n_reused;
    TRY(api_begin(session, control, &c, err));
    return ses_leave(session,
        fwd_sync(session, tokens, n_tokens, &c, &n_reused, err));
}

/* Shared by the three functions that add tokens. */
static ksllm_status api_append(ksllm_session *s, const i32 *tokens, size_t n,
    fwd_want want, const ksllm_control *control, ksllm_error *err) {
    NEED(s, "session is NULL");
    NEED(tokens && n, "tokens is NULL or n_tokens is 0");
    ksllm_control c;
    TRY(api_begin(s, control, &c, err));
    return ses_leave(s, fwd_append(s, tokens, n, want, &c, err));
}

ksllm_status ksllm_session_append(ksllm_session *session,
    const int32_t *tokens, size_t n_tokens, const ksllm_control *control,
    ksllm_error *err) {
    return api_append(session, tokens, n_tokens, FWD_LAST, control, err);
}

ksllm_status ksllm_session_score(ksllm_session *session,
    const int32_t *tokens, size_t n_tokens, float *logprobs,
    const ksllm_control *control, ksllm_error *err) {
    NEED(logprobs, "logprobs is NULL");
    return api_append(session, tokens, n_tokens,
        (fwd_want){.logprobs = logprobs}, control, err);
}

ksllm_status ksllm_session_append_logits(ksllm_session *session,
    const int32_t *tokens, size_t n_tokens, float *logits,
    const ksllm_control *control, ksllm_error *err) {
    NEED(logits, "logits is NULL");
    return api_append(session, tokens, n_tokens, (fwd_want){.rows = logits},
        control, err);
}

ksllm_status ksllm_session_rewind(
    ksllm_session *session, size_t n_tokens, ksllm_error *err) {
    NEED(session, "session is NULL");
    ksllm_status status = KSLLM_OK;
    TRY(ses_enter(session, err));
    if (n_tokens <= session->n_tokens) ses_rewind(session, (u32)n_tokens);
    else status = fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET,
        "rewind to %llu tokens: the session holds %u", LLU(n_tokens),
        (unsigned)session->n_tokens);
    return ses_leave(session, status);
}

ksllm_status ksllm_session_fork(
    const ksllm_session *from, ksllm_session *to, ksllm_error *err) {
    NEED(from, "from is NULL");
    NEED(to, "to is NULL");
    NEED(from != to, "from and to are one session");
    NEED(from->m == to->m, "the sessions are of two models");
    NEED(from->n_ctx == to->n_ctx, "the sessions differ in n_ctx");
    NEED(from->n_batch == to->n_batch, "the sessions differ in n_batch");
    NEED(from->kv == to->kv, "the sessions differ in kv_type");
    NEED(from->pooling == to->pooling, "the sessions differ in pooling");
    /* `from` is const, but counts who reads it. */
    ksllm_session *read = (ksllm_session *)(uintptr_t)from;
    TRY(ses_enter_shared(read, err));
    ksllm_status status = ses_enter(to, err);
    if (!status) {
        ses_copy(from, to);
        ses_leave(to, status);
    }
    ses_leave_shared(read);
    return status;
}

const int32_t *ksllm_session_tokens(
    const ksllm_session *session, size_t *n_tokens) {
    if (n_tokens) *n_tokens = session ? session->n_tokens : 0;
    return session ? session->tokens : NULL;
}

size_t ksllm_session_capacity(const ksllm_session *session) {
    return session ? session->n_ctx : 0;
}

const float *ksllm_session_logits(const ksllm_session *session) {
    return session && session->has_logits ? session->logits : NULL;
}

const float *ksllm_session_embedding(const ksllm_session *session) {
    return session && session->has_pooled ? session->pooled : NULL;
}

/* ---- sampling and generation ---- */

static const ksllm_sampling API_GREEDY = {.top_p = 1, .repeat_penalty = 1};

void ksllm_sampling_init_sized(ksllm_sampling *sampling, size_t size) {
    api_init(&API_SAMPLING, sampling, size, &API_GREEDY);
}

void ksllm_sampling_from_model_sized(
    ksllm_sampling *sampling, size_t size, const ksllm_model *model) {
    ksllm_sampling p = API_GREEDY;
    if (model) smp_from_file(&model->g, &p);
    api_init(&API_SAMPLING, sampling, size, &p);
}

/* What the program gives, or else what the file recommends. */
static ksllm_status api_sampling(const ksllm_session *s,
    const ksllm_sampling *given, ksllm_sampling *mine, size_t n_top,
    ksllm_error *err) {
    ksllm_sampling_from_model(mine, given ? NULL : s->m);
    TRY(api_options(&API_SAMPLING, mine, given, err));
    return smp_check(s, mine, n_top, err);
}

ksllm_status ksllm_sample(ksllm_session *session,
    const ksllm_sampling *sampling, uint64_t step, ksllm_token_prob *out,
    ksllm_token_prob *top, size_t n_top, ksllm_error *err) {
    NEED(session, "session is NULL");
    NEED(out, "out is NULL");
    NEED(top || !n_top, "top is NULL, n_top is not 0");
    ksllm_sampling p;
    TRY(api_sampling(session, sampling, &p, n_top, err));
    TRY(ses_enter(session, err));
    return ses_leave(session,
        smp_sample(session, &p, step, out, top, n_top, err));
}

static const ksllm_generation API_GENERATION_DEFAULTS = {
    .text_size = KSLLM_NUL,
    .encode_flags = KSLLM_ENCODE_BOS | KSLLM_ENCODE_COMPOSE};

void ksllm_generation_init_sized(ksllm_generation *generation, size_t size) {
    api_init(&API_GENERATION, generation, size, &API_GENERATION_DEFAULTS);
}

/* What an answer is asked for, copied over our defaults. */
typedef struct {
    ksllm_generation g;
    ksllm_sampling p;
    ksllm_control c;
    ksllm_result r;
} api_request;

static ksllm_status api_request_take(api_request *q, gen *x, ksllm_session *s,
    const ksllm_generation *given, ksllm_result *result, ksllm_error *err) {
    *x = (gen){.s = s, .g = &q->g, .sampling = &q->p, .control = &q->c,
        .r = &q->r, .start = os_now()};
    q->g = API_GENERATION_DEFAULTS;
    q->r = (ksllm_result){.stop_token = -1, .stop_text = -1};
    if (result) TRY(api_give(&API_RESULT, result, &q->r, err));
    NEED(s, "session is NULL");
    x->hold = s->text;
    TRY(api_options(&API_GENERATION, &q->g, given, err));
    TRY(gen_check(s, &q->g, err));
    TRY(api_sampling(s, q->g.sampling, &q->p, q->g.n_top, err));
    return api_control(q->g.control, &q->c, err);
}

/* Ends the call of an answer that began. */
static ksllm_status api_answer(
    const gen *x, ksllm_result *result, ksllm_status status) {
    if (result) api_give(&API_RESULT, result, x->r, NULL);
    return ses_leave(x->s, status);
}

ksllm_status ksllm_generate(ksllm_session *session,
    const ksllm_generation *generation, ksllm_result *result,
    ksllm_error *err) {
    api_request q;
    gen x;
    TRY(api_request_take(&q, &x, session, generation, result, err));
    NEED(!q.g.max_thinking, "generation: max_thinking needs "
        "ksllm_chat_generate, which knows what is thinking");
    TRY(ses_begin(session, &q.c, err));
    return api_answer(&x, result, gen_run(&x, err));
}

/* ---- chat ---- */

#if !defined KSLLM_NO_CHAT

API_STRUCT(API_CHAT, ksllm_chat, format, format);
API_STRUCT(API_SPLITTER_OPTIONS, ksllm_splitter_options, ctx, ctx);

static const ksllm_chat API_CHAT_DEFAULTS = {.messages.size = KSLLM_NUL,
    .tools.size = KSLLM_NUL, .variables.size = KSLLM_NUL,
    .template_text.size = KSLLM_NUL, .add_generation_prompt = true};

void ksllm_chat_init_sized(ksllm_chat *chat, size_t size) {
    api_init(&API_CHAT, chat, size, &API_CHAT_DEFAULTS);
}

/* Renders; chat_drop has to follow in any case. */
static chat_val api_chat_begin(chat_ctx *c, const ksllm_model *model,
    const ksllm_chat *theirs, ksllm_chat *o, ksllm_error *err) {
    const char *wrong = NULL;
    *c = (chat_ctx){.err = err};
    *o = API_CHAT_DEFAULTS;
    c->status = api_options(&API_CHAT, o, theirs, err);
    if (c->status) return (chat_val){0};
    if (!o->local_time) o->local_time = os_wall();
    if (!o->messages.data) wrong = "messages is NULL";
    else if (!model && !o->template_text.data) wrong = "model is NULL";
    else if (o->local_time < 0 || o->local_time >= 253402300800)
        wrong = "local_time is not in the years 1970 to 9999";
    if (wrong) {
        c->status = fail(err, KSLLM_ERR_ARGUMENT, NO_OFFSET, "chat: %s", wrong);
        return (chat_val){0};
    }
    chat_begin(c, o, o->allocator ? o->allocator
        : model ? &model->alloc : &MEM_LIBC, err);
    return chat_render(c, o, model ? &model->g : NULL,
        model ? &model->tok : NULL);
}

int64_t ksllm_chat_render(const ksllm_model *model, const ksllm_chat *chat,
    char *text, size_t cap, ksllm_error *err) {
    NEED(chat, "chat is NULL");
    NEED(text || !cap, "text is NULL, cap is not 0");
    ksllm_chat o;
    chat_ctx c;
    chat_val v = api_chat_begin(&c, model, chat, &o, err);
    i64 n = c.status ? (i64)c.status : (i64)v.n;
    if (n > 0 && cap) memcpy(text, v.u.s, min_size(v.n, cap));
    chat_drop(&c);
    return n;
}

int64_t ksllm_chat_encode(const ksllm_model *model, const ksllm_chat *chat,
    uint32_t flags, int32_t *tokens, size_t cap, ksllm_error *err) {
    NEED(model, "model is NULL");
    NEED(chat, "chat is NULL");
    NEED(tokens || !cap, "tokens is NULL, cap is not 0");
    ksllm_chat o;
    chat_ctx c;
    chat_val v = api_chat_begin(&c, model, chat, &o, err);
    i64 n = c.status ? (i64)c.status
        : chat_encode(&c, v, &model->tok, flags, tokens, cap);
    chat_drop(&c);
    return n;
}

ksllm_status ksllm_chat_generate(ksllm_session *session,
    const ksllm_chat *chat, const ksllm_generation *generation,
    ksllm_on_part on_part, void *ctx, ksllm_result *result, ksllm_error *err) {
    api_request q;
    turn t = {.on_part = on_part, .ctx = ctx, .err = err};
    TRY(api_request_take(&q, &t.x, session, generation, result, err));
    NEED(chat, "chat is NULL");
    NEED(!q.g.text && !q.g.tokens && !q.g.append,
        "generation: text, tokens and append are the chat's business");
    TRY(ses_begin(session, &q.c, err));
    const ksllm_generation given = q.g;
    t.given = &given;
    q.g.on_piece = turn_piece;
    q.g.piece_ctx = &t;
    q.g.decode_flags |= KSLLM_DECODE_SPECIAL;
    ksllm_chat o;
    chat_ctx c;
    chat_val text = api_chat_begin(&c, session->m, chat, &o, err);
    ksllm_status status = c.status;
    if (!status) status = turn_begin(&t, &c, text, &o, &q.g);
    chat_drop(&c);
    if (!status) status = turn_run(&t);
    return api_answer(&t.x, result, status);
}

const char *ksllm_splitter_format_at(size_t index) {
    return index < KS_LEN(SPLIT_FORMATS) ? SPLIT_FORMATS[index].name : NULL;
}

static const ksllm_splitter_options API_SPLITTER_DEFAULTS = {
    .prompt.size = KSLLM_NUL};

void ksllm_splitter_options_init_sized(
    ksllm_splitter_options *options, size_t size) {
    api_init(&API_SPLITTER_OPTIONS, options, size, &API_SPLITTER_DEFAULTS);
}

ksllm_status ksllm_splitter_init(ksllm_splitter *splitter,
    const ksllm_model *model, const ksllm_splitter_options *options,
    ksllm_error *err) {
    NEED(splitter, "splitter is NULL");
    *splitter = (ksllm_splitter){{0}};
    ksllm_splitter_options o = API_SPLITTER_DEFAULTS;
    TRY(api_options(&API_SPLITTER_OPTIONS, &o, options, err));
    NEED(model || o.format, "model and format are NULL");
    NEED(o.buffer || !o.buffer_size, "buffer is NULL");
    const split_format *f;
    str source = {NULL, 0};
    if (!o.format)
        source = gguf_get_str(&model->g, "tokenizer.chat_template");
    TRY(turn_format(o.format, source, &f, err));
    split_begin((split *)splitter, f, chat_given(o.prompt), o.buffer,
        o.buffer_size, o.on_part, o.ctx);
    return KSLLM_OK;
}

ksllm_status ksllm_splitter_next(ksllm_splitter *splitter, const char *text,
    size_t size, ksllm_error *err) {
    split *s = (split *)splitter;
    NEED(s && s->format, "splitter: call its _init first");
    NEED(text || !size, "text is NULL");
    return split_feed(s, chat_given((ksllm_text){text, size}), err);
}

ksllm_status ksllm_splitter_end(ksllm_splitter *splitter, ksllm_error *err) {
    split *s = (split *)splitter;
    NEED(s && s->format, "splitter: call its _init first");
    return split_finish(s, err);
}

int64_t ksllm_json_string(
    const char *text, size_t size, char *out, size_t cap) {
    if ((!text && size) || (!out && cap)) return KSLLM_ERR_ARGUMENT;
    return (i64)json_quote(chat_given((ksllm_text){text, size}), out, cap);
}

#endif /* KSLLM_NO_CHAT */

#endif /* KS_FIRST_PASS */
