/* media.h - what the tests of pictures and of sounds share. */
#ifndef KSLLM_TEST_MEDIA_H
#define KSLLM_TEST_MEDIA_H

#include "fixture.h"

static inline ksllm_model *media_open(const fx_file *f, const char *isa)
{
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    ksllm_model_options_init(&o);
    o.isa = isa;
    fx_must(ksllm_model_open_memory(f->data, f->size, &o, &m, &e), &e);
    return m;
}

static inline ksllm_encoder *media_encoder(const ksllm_model *m, uint32_t n_threads)
{
    ksllm_encoder_options o;
    ksllm_encoder *x = NULL;
    ksllm_error e;
    ksllm_encoder_options_init(&o);
    o.n_threads = n_threads;
    fx_must(ksllm_encoder_create(m, &o, &x, &e), &e);
    return x;
}

/* Of a media's rows and names. */
static inline uint64_t media_hash(const ksllm_media *x)
{
    uint64_t h = fx_hash_floats(FX_HASH, x->rows,
                                (size_t)x->n_tokens * x->n_embd);
    return fx_hash(h, x->tokens, sizeof *x->tokens * x->n_tokens);
}

#if defined TEST        /* after test.h */

typedef struct {
    ksllm_cancel cancel;
    uint32_t left;      /* pieces until it is set; 0: never */
} media_stopper;

static inline void media_pieces(void *ctx, uint32_t n, ksllm_task task,
                                void *arg)
{
    media_stopper *s = ctx;
    for (uint32_t i = 0; i < n; i++) {
        if (s->left && !--s->left)
            ksllm_cancel_set(&s->cancel);
        task(arg, i);
    }
}

/* Encodes a picture or a sound. */
typedef ksllm_status media_run(ksllm_encoder *x, const void *what,
                               const ksllm_control *control, ksllm_media *out,
                               ksllm_error *e);

/* Cancelled after some of so many pieces, or out of time after some of so many
 * microseconds, an encoding leaves names alone, and the next one is whole.
 * `got` has room for what is wanted. */
static inline void media_stops(const ksllm_model *m, media_run *run,
                               const void *what, const ksllm_media *want,
                               ksllm_media *got, uint32_t pieces, uint32_t us)
{
    media_stopper stop = {{0}, 0};
    ksllm_encoder_options o;
    ksllm_encoder *lent = NULL, *own = NULL;
    ksllm_control c;
    ksllm_error e;
    uint64_t h = media_hash(want), rng = test_seed;
    int stopped = 0;
    ksllm_control_init(&c);
    ksllm_encoder_options_init(&o);
    o.n_threads = 2;
    fx_must(ksllm_encoder_create(m, &o, &own, &e), &e);
    o.n_threads = 0;
    o.parallel_for = media_pieces;
    o.parallel_ctx = &stop;
    fx_must(ksllm_encoder_create(m, &o, &lent, &e), &e);
    c.cancel = &stop.cancel;
    const int many = test_times(80, 300) / TEST_ONE_OF + 20;
    for (int i = 0; i < many; i++) {
        stop.left = 1 + fx_below(&rng, pieces);
        ksllm_status status = run(lent, what, &c, got, &e);
        if (status) {
            CHECK_EQ(status, KSLLM_ERR_CANCELLED);
            CHECK(!got->rows);
            CHECK(!memcmp(got->tokens, want->tokens, 4 * want->n_tokens));
            stopped++;
        } else {
            CHECK_HEX(media_hash(got), h);
        }
        ksllm_cancel_clear(&stop.cancel);
    }
    CHECK(stopped > many / 20);
    for (int i = 0; i < many * 2 / 3; i++) {
        c.budget_us = 1 + fx_below(&rng, us);
        ksllm_status status = run(own, what, &c, got, &e);
        CHECK(status == KSLLM_OK || status == KSLLM_ERR_DEADLINE);
        CHECK(status ? !got->rows : media_hash(got) == h);
    }
    c.budget_us = 0;
    CHECK_OK(run(own, what, &c, got, &e), e);
    CHECK_HEX(media_hash(got), h);
    ksllm_encoder_free(lent);
    ksllm_encoder_free(own);
}

#endif
#endif
