/* test_see.c - pictures: what a tower makes of them, the same bits whatever
 * the machine does, and their rows on the timeline and in a chat. */
#include "tower.h"
#include "test.h"

static ksllm_model *open_file(const fx_file *f, const char *isa)
{
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    ksllm_model_options_init(&o);
    o.isa = isa;
    fx_must(ksllm_model_open_memory(f->data, f->size, &o, &m, &e), &e);
    return m;
}

static ksllm_model *open_tower(ksllm_type type, fx_file *f)
{
    fx_spec s = tw_spec(type);
    *f = fx_model(&s);
    return open_file(f, NULL);
}

static ksllm_encoder *encoder(const ksllm_model *m, uint32_t n_threads)
{
    ksllm_encoder_options o;
    ksllm_encoder *x = NULL;
    ksllm_error e;
    ksllm_encoder_options_init(&o);
    o.n_threads = n_threads;
    fx_must(ksllm_encoder_create(m, &o, &x, &e), &e);
    return x;
}

static ksllm_media room(const ksllm_model *m, const ksllm_image *p,
                        const ksllm_media_options *o)
{
    ksllm_media_size size = {.size = sizeof size};
    ksllm_error e;
    fx_must(ksllm_media_measure(m, p, o, &size, &e), &e);
    return (ksllm_media){.size = sizeof(ksllm_media),
        .memory = fx_memory(NULL, size.memory), .memory_size = size.memory};
}

static ksllm_media encode(ksllm_encoder *x, const ksllm_model *m,
                          const ksllm_image *p, const ksllm_media_options *o)
{
    ksllm_error e;
    ksllm_media media = room(m, p, o);
    fx_must(ksllm_media_encode(x, p, o, NULL, &media, &e), &e);
    return media;
}

static uint64_t rows_hash(const ksllm_media *x)
{
    return fx_hash_floats(FX_HASH, x->rows, (size_t)x->n_tokens * x->n_embd);
}

TEST(rows_are_the_same_bits)
{
    const ksllm_type types[] = {KSLLM_TYPE_F32, KSLLM_TYPE_F16,
                                KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q4_0};
    const ksllm_image p = tw_picture(75, 50, 3);
    for (int t = 0; t < 4; t++) {
        fx_spec s = tw_spec(types[t]);
        fx_file f = fx_model(&s);
        uint64_t first = 0;
        const char *isa;
        for (size_t i = 0; (isa = ksllm_isa_at(i)); i++)
            for (uint32_t n = 1; n < 4; n++) {
                ksllm_model *m = open_file(&f, isa);
                ksllm_encoder *x = encoder(m, n);
                ksllm_media media = encode(x, m, &p, NULL);
                uint64_t h = rows_hash(&media);
                if (!first)
                    first = h;
                CHECK_HEX(h, first);
                for (size_t k = 0; k < media.n_tokens * media.n_embd; k++)
                    if (!CHECK(media.rows[k] > -1e6f && media.rows[k] < 1e6f))
                        break;
                ksllm_encoder_free(x);
                ksllm_model_close(m);
                free(media.memory);
            }
        free(f.data);
    }
    free((void *)p.rgb);
}

TEST_MAIN
