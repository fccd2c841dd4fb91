/* state.h - saved state for tests: a file in memory that tears, and its format
 * a second time, from what ksllm.c draws. */
#ifndef KSLLM_STATE_H
#define KSLLM_STATE_H

#include "fixture.h"

enum { ST_HEADER_BYTES = 128, ST_CHUNK_BYTES = 32 };

/* A session whose state is saved or loaded. */
static inline ksllm_session *session_of(const ksllm_model *m, uint32_t n_ctx,
                                        uint32_t n_batch, ksllm_type kv)
{
    ksllm_session_options o = fx_small_options();
    o.n_ctx = n_ctx;
    o.n_batch = n_batch;
    o.kv_type = kv;
    return fx_create(m, &o);
}

/* A file: what is written is appended; what is read comes from `at` on. With
 * `fails` the call that reaches that byte fails. */
typedef struct st_memory {
    fx_bytes b;
    size_t at, fails, calls;
} st_memory;

static inline int st_memory_write(void *ctx, const void *data, size_t n)
{
    st_memory *m = ctx;
    m->calls++;
    if (m->fails && m->b.size + n > m->fails) {
        fx_put(&m->b, data, m->fails - m->b.size);
        return 1;
    }
    fx_put(&m->b, data, n);
    return 0;
}

static inline int st_memory_read(void *ctx, void *data, size_t n)
{
    st_memory *m = ctx;
    m->calls++;
    if (n > m->b.size - m->at || (m->fails && m->at + n > m->fails)) {
        /* A short read: some of it came. */
        size_t some = m->b.size - m->at < n / 2 ? m->b.size - m->at : n / 2;
        if (some)
            memcpy(data, m->b.data + m->at, some);
        m->at += some;
        return -1;
    }
    memcpy(data, m->b.data + m->at, n);
    m->at += n;
    return 0;
}

static inline uint64_t st_word(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0; )
        v = v << 8 | p[i];
    return v;
}

static inline uint64_t st_step(uint64_t h, uint64_t word)
{
    h ^= word;
    return (h << 29 | h >> 35) * UINT64_C(0x9e3779b97f4a7c15);
}

/* The sum of n bytes: four lanes of words, zeros up to the next 32 bytes. */
static inline uint64_t st_sum_of(const uint8_t *p, size_t n, uint64_t seed)
{
    uint64_t lane[4] = {1, 2, 3, 4}, h = st_step(seed, n % 32);
    for (size_t i = 0; i < n / 32 * 32 + 32; i += 8) {
        uint8_t w[8] = {0};
        if (i < n)
            memcpy(w, p + i, n - i < 8 ? n - i : 8);
        lane[i / 8 % 4] = st_step(lane[i / 8 % 4], st_word(w, 8));
    }
    for (int i = 0; i < 4; i++)
        h = st_step(h, lane[i]);
    return st_step(h, h >> 32);
}

/* Makes the sum of a header right again. */
static inline void st_seal_header(uint8_t *file)
{
    fx_set(file + ST_HEADER_BYTES - 8,
           st_sum_of(file, ST_HEADER_BYTES - 8, 0), 8);
}

/* Where the chain of a file begins. */
static inline uint64_t st_chain_of(const uint8_t *file)
{
    return st_sum_of(file, 80, 0);
}

/* Makes the sum of a chunk of `size` bytes right again and moves the chain on.
 */
static inline void st_seal_chunk(uint8_t *chunk, size_t size, uint64_t *chain)
{
    uint64_t n = st_word(chunk + 4, 4);
    for (uint64_t i = 0; i < n && ST_CHUNK_BYTES + 4 * i + 12 <= size; i++)
        *chain = st_step(*chain, st_word(chunk + ST_CHUNK_BYTES + 4 * i, 4));
    fx_set(chunk + size - 8, st_sum_of(chunk, size - 8, *chain), 8);
}

#endif
