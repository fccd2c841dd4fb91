/* test_see.c - pictures: what a tower makes of them, the same bits whatever
 * the machine does, and their rows on the timeline and in a chat. */
#include "tower.h"
#include "test.h"
#include "media.h"

#if !defined KSLLM_NO_MEDIA

static ksllm_model *open_tower(ksllm_type type, tw_kind kind, fx_file *f)
{
    fx_spec s = tw_spec(type, kind);
    *f = fx_model(&s);
    return media_open(f, NULL);
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

TEST(rows_are_the_same_bits)
{
    const ksllm_type types[] = {KSLLM_TYPE_F32, KSLLM_TYPE_F16,
                                KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q4_0};
    const ksllm_image p = tw_picture(75, 50, 3);
    for (int t = 0; t < 4 * TW_KINDS; t++) {
        fx_spec s = tw_spec(types[t / TW_KINDS], t % TW_KINDS);
        fx_file f = fx_model(&s);
        uint64_t first = 0;
        const char *isa;
        for (size_t i = 0; (isa = ksllm_isa_at(i)); i++)
            for (uint32_t n = 1; n < 4; n += TEST_ONE_OF) {
                ksllm_model *m = media_open(&f, isa);
                ksllm_encoder *x = media_encoder(m, n);
                ksllm_media media = encode(x, m, &p, NULL);
                uint64_t h = media_hash(&media);
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

/* ---- sizes ---- */

TEST(measure_counts)
{
    fx_file f;
    ksllm_model *m = open_tower(KSLLM_TYPE_F32, TW_TILES, &f);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_media_options o;
    ksllm_media_size z = {.size = sizeof z};
    ksllm_image p = {.width = 32, .height = 32};
    ksllm_error e;
    CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
    CHECK_EQ(info.picture_place, TW_PLACE);
    ksllm_media_options_init(&o);
    CHECK_OK(ksllm_media_measure(m, &p, NULL, &z, &e), e);
    CHECK_EQ(z.n_tokens, 16 + 16 + 4);
    CHECK_EQ(z.n_tiles, 2);
    CHECK_EQ(z.width, 32);
    CHECK(z.memory >= (size_t)36 * 64 * 4);
    uint64_t macs = z.n_macs;
    o.max_tiles = 1;
    CHECK_OK(ksllm_media_measure(m, &p, &o, &z, &e), e);
    CHECK_EQ(z.n_tokens, 17);
    CHECK_EQ(z.n_tiles, 1);
    CHECK_EQ(z.n_macs * 2, macs);
    o.max_tokens = 16;
    CHECK_EQ(ksllm_media_measure(m, &p, &o, &z, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "17 tokens") != NULL);
    o.max_tiles = 0;
    o.max_tokens = 35;
    CHECK_EQ(ksllm_media_measure(m, &p, &o, &z, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "36 tokens at least, or 17") != NULL);

    /* Every limit is kept, and more of it never gives less. */
    uint64_t rng = 7;
    for (int i = 0; i < 300; i++) {
        uint32_t before = 0;
        p.width = 1 + fx_below(&rng, 300);
        p.height = 1 + fx_below(&rng, 300);
        for (o.max_tokens = 20; o.max_tokens < 120; o.max_tokens += 7) {
            if (ksllm_media_measure(m, &p, &o, &z, &e)) {
                CHECK_EQ(before, 0);
                continue;
            }
            CHECK(z.n_tokens <= o.max_tokens);
            CHECK(z.n_tokens <= info.picture_tokens);
            before = z.n_tokens;
        }
        CHECK_OK(ksllm_media_measure(m, &p, NULL, &z, &e), e);
        CHECK(z.n_tokens <= info.picture_tokens);
    }
    static const uint32_t wrong[][2] = {
        {0, 1}, {1, 0}, {65536, 1}, {65535, 65535}, {UINT32_MAX, UINT32_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        p = (ksllm_image){.width = wrong[i][0], .height = wrong[i][1]};
        CHECK_EQ(ksllm_media_measure(m, &p, NULL, &z, &e),
                 KSLLM_ERR_ARGUMENT);
    }
    p = (ksllm_image){.width = 65535, .height = 1};
    CHECK_OK(ksllm_media_measure(m, &p, NULL, &z, &e), e);
    fx_close(m, &f);
    m = fx_open("qwen3", &f);
    CHECK_EQ(ksllm_media_measure(m, &p, NULL, &z, &e), KSLLM_ERR_UNSUPPORTED);
    fx_close(m, &f);
}

/* 3 x 3 cells of a tile; a cell that is the picture's in part is left out. */
TEST(cells_are_measured)
{
    static const struct { uint32_t w, h, tiles, tokens, n_tiles; } cases[] = {
        {32, 32, 0, 9 + 3 * 4, 2}, {32, 32, 1, 10, 1},
        {96, 96, 0, 9 + 9 * 10, 10}, {64, 32, 0, 9 + 3 * 7, 3},
        {75, 50, 0, 9 + 6 * 10, 7}, {75, 50, 1, 10, 1},
        {90, 40, 0, 9 + 4 * 10, 7}, {200, 1, 0, 9 + 4, 2}};
    fx_file f;
    ksllm_model *m = open_tower(KSLLM_TYPE_F32, TW_CELLS, &f);
    ksllm_encoder *x = media_encoder(m, 2);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error e;
    CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
    CHECK_EQ(info.picture_tokens, 9 + 9 * 10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ksllm_image p = tw_picture(cases[i].w, cases[i].h, 5);
        ksllm_media_options o;
        ksllm_media_size z = {.size = sizeof z};
        ksllm_media_options_init(&o);
        o.max_tiles = cases[i].tiles;
        CHECK_OK(ksllm_media_measure(m, &p, &o, &z, &e), e);
        CHECK_EQ(z.n_tokens, cases[i].tokens);
        CHECK_EQ(z.n_tiles, cases[i].n_tiles);
        ksllm_media a = encode(x, m, &p, &o);
        CHECK_EQ(a.n_tokens, cases[i].tokens);
        free(a.memory);
        free((void *)(uintptr_t)p.rgb);
    }
    ksllm_encoder_free(x);
    fx_close(m, &f);
}

TEST(whole_pictures_are_measured)
{
    fx_file f;
    ksllm_model *m = open_tower(KSLLM_TYPE_F32, TW_WHOLE, &f);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_media_options o;
    ksllm_encoder_options eo;
    ksllm_encoder *x;
    ksllm_media_size z = {.size = sizeof z};
    ksllm_image p = tw_picture(75, 50, 3);
    ksllm_error e;
    size_t small, all;
    CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
    CHECK_EQ(info.picture_tokens, 256);
    ksllm_media_options_init(&o);
    CHECK_OK(ksllm_media_measure(m, &p, NULL, &z, &e), e);
    CHECK_EQ(z.width, 80);
    CHECK_EQ(z.height, 48);
    CHECK_EQ(z.n_tokens, 15);
    CHECK_EQ(z.n_tiles, 1);
    o.max_tiles = 1;            /* of no meaning here */
    CHECK_OK(ksllm_media_measure(m, &p, &o, &z, &e), e);
    CHECK_EQ(z.n_tokens, 15);
    for (o.max_tokens = 1; o.max_tokens < 20; o.max_tokens++) {
        ksllm_status status = ksllm_media_measure(m, &p, &o, &z, &e);
        CHECK(status ? status == KSLLM_ERR_ARGUMENT && o.max_tokens < 4
                     : z.n_tokens <= o.max_tokens);
    }
    /* One that is flat: what the error says it takes does. */
    ksllm_image flat = {.width = 3200, .height = 20};
    for (o.max_tokens = 1; o.max_tokens < 200; o.max_tokens++) {
        unsigned least = 0;
        ksllm_media_options other = o;
        if (!ksllm_media_measure(m, &flat, &o, &z, &e)) break;
        CHECK(sscanf(e.text, "options: this picture takes %u", &least) == 1);
        other.max_tokens = least;
        CHECK_OK(ksllm_media_measure(m, &flat, &other, &z, &e), e);
        other.max_tokens = least - 1;
        CHECK_EQ(ksllm_media_measure(m, &flat, &other, &z, &e),
                 KSLLM_ERR_ARGUMENT);
    }
    CHECK(o.max_tokens > 100 && o.max_tokens < 200);
    p.height = 1;
    p.width = 201;
    CHECK_EQ(ksllm_media_measure(m, &p, NULL, &z, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "200 times") != NULL);
    /* An encoder for less takes less, and refuses more. */
    p.width = 75;
    p.height = 50;
    ksllm_encoder_options_init(&eo);
    eo.n_threads = 1;
    CHECK_OK(ksllm_encoder_memory(m, &eo, &all, &e), e);
    eo.max_tokens = 14;
    CHECK_OK(ksllm_encoder_memory(m, &eo, &small, &e), e);
    CHECK(small < all / 4);
    fx_must(ksllm_encoder_create(m, &eo, &x, &e), &e);
    ksllm_media media = room(m, &p, NULL);
    CHECK_EQ(ksllm_media_encode(x, &p, NULL, NULL, &media, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "15 tokens, the encoder was created for 14") != NULL);
    o.max_tokens = 14;
    CHECK_OK(ksllm_media_encode(x, &p, &o, NULL, &media, &e), e);
    CHECK(media.n_tokens < 15);
    free(media.memory);
    free((void *)(uintptr_t)p.rgb);
    ksllm_encoder_free(x);
    fx_close(m, &f);
}

/* Sizes that the processor's rule takes beyond the file's limit are within the
 * model's: an encoder by default takes every picture that can be measured. */
TEST(limits_are_kept_by_no_rule)
{
    static const struct { const char *key; uint32_t v, w, h, n; } cases[] = {
        {"max", 1024, 200, 1, 29}, {"max", 25600, 3200, 16, 141},
        {"max", 25600, 16, 3200, 141}, {"min", 65536, 75, 50, 280}};
    fx_spec spec = tw_spec(KSLLM_TYPE_F32, TW_WHOLE);
    fx_file f = fx_model(&spec);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[96];
        const ksllm_override limit = {.key = key, .type = KSLLM_META_U32,
            .integer = cases[i].v};
        ksllm_model_options o;
        ksllm_model_info info = {.size = sizeof info};
        ksllm_model *m;
        ksllm_error e;
        snprintf(key, sizeof key, "clip.vision.image_%s_pixels", cases[i].key);
        ksllm_model_options_init(&o);
        o.overrides = &limit;
        o.n_overrides = 1;
        fx_must(ksllm_model_open_memory(f.data, f.size, &o, &m, &e), &e);
        ksllm_encoder *x = media_encoder(m, 2);
        ksllm_image p = tw_picture(cases[i].w, cases[i].h, 5);
        ksllm_media a = encode(x, m, &p, NULL);
        CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
        CHECK_EQ(a.n_tokens, cases[i].n);
        CHECK(a.n_tokens <= info.picture_tokens);
        free(a.memory);
        free((void *)(uintptr_t)p.rgb);
        ksllm_encoder_free(x);
        ksllm_model_close(m);
    }
    free(f.data);
}

/* A map that is too large is made smaller, between its cells. */
TEST(large_maps_are_made_smaller)
{
    fx_spec spec = tw_spec(KSLLM_TYPE_F32, TW_TILES);
    fx_file f = fx_model(&spec);
    const ksllm_override more = {.key = "clip.vision.anyres_max",
        .type = KSLLM_META_U32, .integer = 9};
    ksllm_model_options o;
    ksllm_model *m = media_open(&f, NULL), *all;
    ksllm_error e;
    ksllm_image p = tw_picture(96, 96, 5);
    ksllm_model_options_init(&o);
    o.overrides = &more;
    o.n_overrides = 1;
    fx_must(ksllm_model_open_memory(f.data, f.size, &o, &all, &e), &e);
    ksllm_encoder *x = media_encoder(m, 2), *y = media_encoder(all, 1);
    ksllm_media a = encode(x, m, &p, NULL), b = encode(y, all, &p, NULL);
    const size_t n = a.n_embd, to = 5, from = 12, tile = 16;
    CHECK_EQ(a.n_tokens, tile + to * (to + 1));
    CHECK_EQ(b.n_tokens, tile + from * (from + 1));
    CHECK(!memcmp(a.rows, b.rows, tile * n * sizeof(float)));
    for (size_t i = 0; i < to * to * n; i++) {
        double at[2], w[2], want = 0;
        size_t cell = i / n, k[2];
        for (int d = 0; d < 2; d++) {
            at[d] = ((double)(d ? cell % to : cell / to) + 0.5) * from / to
                - 0.5;
            k[d] = (size_t)at[d];
            w[d] = at[d] - (double)k[d];
        }
        for (size_t c = 0; c < 4; c++) {
            size_t row = k[0] + c / 2, col = k[1] + c % 2;
            want += (c / 2 ? w[0] : 1 - w[0]) * (c % 2 ? w[1] : 1 - w[1])
                * (double)b.rows[(tile + row * (from + 1) + col) * n + i % n];
        }
        double got = (double)
            a.rows[(tile + cell / to * (to + 1) + cell % to) * n + i % n];
        if (!CHECK(got - want < 1e-4 && want - got < 1e-4))
            break;
    }
    CHECK(!memcmp(a.rows + (tile + to) * n, b.rows + (tile + from) * n,
                  n * sizeof(float)));  /* newlines */
    free(a.memory);
    free(b.memory);
    free((void *)(uintptr_t)p.rgb);
    ksllm_encoder_free(x);
    ksllm_encoder_free(y);
    ksllm_model_close(all);
    fx_close(m, &f);
}

/* Pictures so flat that their map has no row, or no column but newlines. */
TEST(flat_pictures)
{
    static const uint32_t sides[][2] = {{200, 1}, {1, 200}, {1, 1}};
    fx_spec spec = tw_spec(KSLLM_TYPE_F32, TW_TILES);
    fx_file f = fx_model(&spec);
    ksllm_model *m = media_open(&f, NULL);
    ksllm_media_options o;
    ksllm_encoder *x = media_encoder(m, 2);
    ksllm_media_options_init(&o);
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        for (o.max_tiles = 0; o.max_tiles < 2; o.max_tiles++) {
            ksllm_image p = tw_picture(sides[i][0], sides[i][1], 5);
            ksllm_media a = encode(x, m, &p, &o);
            uint32_t n = i == 0 ? 16 : i == 1 ? 16 + 4 : 16 + 4 * 5;
            CHECK_EQ(a.n_tokens, o.max_tiles ? 17 : n);
            CHECK(a.rows != NULL);
            free(a.memory);
            free((void *)(uintptr_t)p.rgb);
        }
    ksllm_encoder_free(x);
    fx_close(m, &f);
}

/* ---- names ---- */

TEST(names_are_of_the_pixels)
{
    fx_file f;
    ksllm_model *m = open_tower(KSLLM_TYPE_F32, TW_TILES, &f);
    ksllm_encoder *x = media_encoder(m, 1);
    ksllm_image p = tw_picture(75, 50, 3);
    ksllm_error e;
    ksllm_media a = encode(x, m, &p, NULL), b = room(m, &p, NULL);
    CHECK_OK(ksllm_media_name(m, &p, NULL, &b, &e), e);
    CHECK(!b.rows);
    CHECK_EQ(a.n_tokens, b.n_tokens);
    CHECK(!memcmp(a.tokens, b.tokens, 4 * a.n_tokens));
    for (uint32_t i = 0; i < a.n_tokens; i++) {
        CHECK(a.tokens[i] < 0);
        for (uint32_t k = 0; k < i; k++)
            CHECK(a.tokens[i] != a.tokens[k]);
    }
    /* What lies between rows of pixels does not count, and is not read. */
    size_t stride = 3 * 75 + 5;
    uint8_t *wide = fx_memory(NULL, stride * 49 + 3 * 75);
    memset(wide, 9, stride * 49 + 3 * 75);
    for (size_t y = 0; y < 50; y++)
        memcpy(wide + y * stride, p.rgb + y * 225, 225);
    ksllm_image q = p;
    q.rgb = wide;
    q.stride = stride;
    ksllm_media c = encode(x, m, &q, NULL);
    CHECK(!memcmp(a.tokens, c.tokens, 4 * a.n_tokens));
    CHECK_HEX(media_hash(&c), media_hash(&a));
    /* One bit of a pixel does. */
    ((uint8_t *)(uintptr_t)p.rgb)[75 * 50 * 3 - 1] ^= 1;
    CHECK_OK(ksllm_media_name(m, &p, NULL, &b, &e), e);
    CHECK(a.tokens[0] != b.tokens[0]);
    CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1]);
    q.stride = 224;
    CHECK_EQ(ksllm_media_name(m, &q, NULL, &b, &e), KSLLM_ERR_ARGUMENT);
    q.rgb = NULL;
    q.stride = 0;
    CHECK_EQ(ksllm_media_name(m, &q, NULL, &b, &e), KSLLM_ERR_ARGUMENT);
    b.memory_size--;
    CHECK_EQ(ksllm_media_name(m, &p, NULL, &b, &e), KSLLM_ERR_BUFFER);
    free(a.memory);
    free(b.memory);
    free(c.memory);
    free(wide);
    free((void *)(uintptr_t)p.rgb);
    ksllm_encoder_free(x);
    fx_close(m, &f);
}

/* ---- on the timeline ---- */

/* A model, a picture or two, and a list of tokens with them. */
typedef struct {
    fx_file f;
    ksllm_model *m;
    ksllm_encoder *x;
    ksllm_image image[2];
    ksllm_media media[2];
    const ksllm_media *list[2];
    int32_t tokens[128];
    size_t n, at[2];    /* where the pictures begin */
} scene;

static size_t scene_put(scene *s, size_t n, uint64_t seed)
{
    fx_prompt(s->tokens + s->n, n, seed);
    return s->n += n;
}

static size_t scene_picture(scene *s, int i)
{
    size_t at = s->n;
    memcpy(s->tokens + at, s->media[i].tokens, 4 * s->media[i].n_tokens);
    s->n += s->media[i].n_tokens;
    return at;
}

static void scene_begin(scene *s)
{
    ksllm_media_options o;
    memset(s, 0, sizeof *s);
    s->m = open_tower(KSLLM_TYPE_Q8_0, true, &s->f);
    s->x = media_encoder(s->m, 2);
    ksllm_media_options_init(&o);
    o.max_tiles = 1;
    for (int i = 0; i < 2; i++) {
        s->image[i] = tw_picture(40 + 9 * (uint32_t)i, 33, (uint64_t)i);
        s->media[i] = encode(s->x, s->m, &s->image[i], &o);
        s->list[i] = &s->media[i];
    }
    scene_put(s, 5, 1);
    s->at[0] = scene_picture(s, 0);
    s->at[1] = scene_picture(s, 1);     /* adjacent */
    scene_put(s, 7, 2);
}

static void scene_end(scene *s)
{
    for (int i = 0; i < 2; i++) {
        free((void *)(uintptr_t)s->image[i].rgb);
        free(s->media[i].memory);
    }
    ksllm_encoder_free(s->x);
    fx_close(s->m, &s->f);
}

static ksllm_session *scene_session(const scene *s, uint32_t n_batch,
                                    uint32_t n_threads)
{
    ksllm_session_options o = fx_small_options();
    ksllm_error e;
    o.n_ctx = 96;
    o.n_batch = n_batch;
    o.n_threads = n_threads;
    ksllm_session *x = fx_create(s->m, &o);
    fx_must(ksllm_session_lend(x, s->list, 2, &e), &e);
    return x;
}

TEST(rows_are_read_as_tokens)
{
    scene s;
    ksllm_error e;
    scene_begin(&s);
    uint64_t want = 0;
    const uint32_t batches[] = {1, 7, 16, 64};
    for (int i = 0; i < 4; i++)
        for (uint32_t n = 1; n < 3; n++) {
            ksllm_session *x = scene_session(&s, batches[i], n);
            CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
            uint64_t h = fx_logits_hash(s.m, x);
            want = want ? want : h;
            CHECK_HEX(h, want);
            ksllm_session_free(x);
        }
    ksllm_session *x = scene_session(&s, 16, 1);
    for (size_t cut = 1; cut < s.n; cut += 3) {     /* in parts, and again */
        CHECK_OK(ksllm_session_rewind(x, 0, &e), e);
        CHECK_OK(ksllm_session_append(x, s.tokens, cut, NULL, &e), e);
        CHECK_OK(ksllm_session_append(x, s.tokens + cut, s.n - cut, NULL, &e),
                 e);
        CHECK_HEX(fx_logits_hash(s.m, x), want);
        CHECK_OK(ksllm_session_rewind(x, cut, &e), e);
        CHECK_EQ(ksllm_session_common(x, s.tokens, s.n), cut);
        CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(s.m, x), want);
        CHECK_EQ(ksllm_session_common(x, s.tokens, s.n), s.n);
    }
    /* The other way round it is another prompt. */
    scene t = s;
    t.n = 0;
    scene_put(&t, 5, 1);
    scene_picture(&t, 1);
    scene_picture(&t, 0);
    scene_put(&t, 7, 2);
    CHECK_OK(ksllm_session_sync(x, t.tokens, t.n, NULL, &e), e);
    CHECK(fx_logits_hash(s.m, x) != want);
    ksllm_session_free(x);
    scene_end(&s);
}

TEST(rows_that_are_not_lent)
{
    scene s;
    ksllm_error e;
    scene_begin(&s);
    ksllm_session *x = scene_session(&s, 16, 1), *y = scene_session(&s, 16, 1);
    CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
    uint64_t want = fx_logits_hash(s.m, x), after;
    int32_t more = 9;
    CHECK_OK(ksllm_session_append(x, &more, 1, NULL, &e), e);
    after = fx_logits_hash(s.m, x);
    /* What it holds needs none. */
    CHECK_OK(ksllm_session_lend(x, NULL, 0, &e), e);
    CHECK_OK(ksllm_session_rewind(x, s.n - 2, &e), e);
    CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(s.m, x), want);
    CHECK_OK(ksllm_session_append(x, &more, 1, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(s.m, x), after);
    /* What it does not, does; and nothing has changed. */
    CHECK_OK(ksllm_session_rewind(x, s.at[1] + 3, &e), e);
    size_t n;
    CHECK_EQ(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), KSLLM_ERR_STATE);
    CHECK(strstr(e.text, "token 25 ") != NULL);
    ksllm_session_tokens(x, &n);
    CHECK_EQ(n, s.at[1] + 3);
    CHECK_EQ(ksllm_session_append(x, s.tokens + n, 1, NULL, &e),
             KSLLM_ERR_STATE);
    CHECK_OK(ksllm_session_append(x, &more, 1, NULL, &e), e);
    /* The last row's logits are gone with a rewind. */
    CHECK_OK(ksllm_session_rewind(x, s.at[1] + 3, &e), e);
    CHECK_EQ(ksllm_session_append_logits(x, &more, 1, NULL, NULL, &e),
             KSLLM_ERR_ARGUMENT);
    ksllm_generation g;
    ksllm_generation_init(&g);
    g.max_tokens = 2;
    CHECK_EQ(ksllm_generate(x, &g, NULL, &e), KSLLM_ERR_STATE);
    CHECK_OK(ksllm_session_lend(x, s.list, 2, &e), e);
    CHECK_OK(ksllm_generate(x, &g, NULL, &e), e);
    CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(s.m, x), want);
    /* A fork has what its original has. */
    CHECK_OK(ksllm_session_lend(y, NULL, 0, &e), e);
    CHECK_OK(ksllm_session_fork(x, y, &e), e);
    CHECK_OK(ksllm_session_rewind(y, s.at[0] + 2, &e), e);
    CHECK_OK(ksllm_session_sync(y, s.tokens, s.n, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(s.m, y), want);
    /* Rows without those before them are nobody's. */
    CHECK_OK(ksllm_session_rewind(y, 0, &e), e);
    CHECK_EQ(ksllm_session_sync(y, s.tokens + 6, 20, NULL, &e),
             KSLLM_ERR_STATE);
    float logprobs[128];
    CHECK_EQ(ksllm_session_score(y, s.tokens, s.n, logprobs, NULL, &e),
             KSLLM_ERR_TOKEN);
    /* Penalties look at tokens alone. */
    ksllm_sampling p;
    ksllm_token_prob drawn;
    ksllm_sampling_init(&p);
    p.repeat_penalty = 1.5f;
    CHECK_OK(ksllm_sample(x, &p, 0, &drawn, NULL, 0, &e), e);
    CHECK(drawn.token >= 0);
    CHECK_EQ(ksllm_decode(s.m, s.tokens, s.n, 0, NULL, 0, &e),
             KSLLM_ERR_TOKEN);
    ksllm_session_free(x);
    ksllm_session_free(y);
    /* A model that does not see has no such tokens. */
    fx_file f;
    ksllm_model *blind = fx_open("qwen3", &f);
    ksllm_session_options o = fx_small_options();
    x = fx_create(blind, &o);
    CHECK_EQ(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), KSLLM_ERR_TOKEN);
    CHECK_EQ(ksllm_session_lend(x, s.list, 2, &e), KSLLM_ERR_ARGUMENT);
    ksllm_session_free(x);
    fx_close(blind, &f);
    scene_end(&s);
}

/* What follows the prompt's last tokens earlier in it is a picture. */
/* Where windows have moved on, a session holds nothing of what it would have to
 * evaluate again. */
TEST(windows_do_not_hold_pictures)
{
    fx_spec spec = *fx_spec_of("window");
    spec.more = tw_tiles;
    fx_file f = fx_model(&spec);
    ksllm_model *m = media_open(&f, NULL);
    ksllm_encoder *enc = media_encoder(m, 1);
    ksllm_image p = tw_picture(40, 33, 1);
    ksllm_media_options mo;
    ksllm_error e;
    ksllm_media_options_init(&mo);
    mo.max_tiles = 1;
    ksllm_media media = encode(enc, m, &p, &mo);
    const ksllm_media *list[1] = {&media};
    enum { END = 5 + 17, N = 180 };
    int32_t tokens[N];
    fx_prompt(tokens, N, 1);
    memcpy(tokens + 5, media.tokens, 4 * media.n_tokens);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = 256;
    ksllm_session *x = fx_create(m, &o);
    CHECK_OK(ksllm_session_lend(x, list, 1, &e), e);
    CHECK_OK(ksllm_session_sync(x, tokens, N, NULL, &e), e);
    CHECK_OK(ksllm_session_lend(x, NULL, 0, &e), e);
    CHECK_EQ(ksllm_session_common(x, tokens, N), N);
    CHECK_EQ(ksllm_session_common(x, tokens, END), 0);
    /* Refused before anything changes, also at the first place that is out of
     * reach only because the last token is evaluated again. */
    size_t n, cut = N - 1;
    while (cut > END && ksllm_session_common(x, tokens, cut)) cut--;
    CHECK(cut > END);
    for (size_t k = cut - 1; k < cut + 2; k++) {
        CHECK_EQ(ksllm_session_sync(x, tokens, k, NULL, &e),
                 KSLLM_ERR_STATE);
        ksllm_session_tokens(x, &n);
        CHECK_EQ(n, N);
    }
    CHECK_OK(ksllm_session_sync(x, tokens, cut + 2, NULL, &e), e);
    ksllm_session_free(x);
    ksllm_encoder_free(enc);
    free(media.memory);
    free((void *)(uintptr_t)p.rgb);
    fx_close(m, &f);
}

TEST(a_picture_is_no_draft)
{
    scene s;
    ksllm_error e;
    ksllm_generation g;
    uint64_t want = 0;
    scene_begin(&s);
    scene_put(&s, 5, 1);
    ksllm_generation_init(&g);
    g.tokens = s.tokens;
    g.n_tokens = s.n;
    g.max_tokens = 6;
    g.ignore_stop = true;
    for (int i = 0; i < 2; i++) {
        ksllm_session *x = scene_session(&s, 16, 1);
        g.drafts = i == 1;
        CHECK_OK(ksllm_generate(x, &g, NULL, &e), e);
        size_t n;
        const int32_t *t = ksllm_session_tokens(x, &n);
        uint64_t h = fx_hash(FX_HASH, t, n * sizeof *t);
        CHECK_EQ(n, s.n + 6);
        CHECK_HEX(want = i ? want : h, h);
        ksllm_session_free(x);
    }
    scene_end(&s);
}

/* A session that slid computes what a new one does from what is left. */
static void check_slid(const scene *s, ksllm_session *x, size_t n)
{
    ksllm_session_options o = fx_small_options();
    ksllm_error e;
    size_t have;
    const int32_t *tokens = ksllm_session_tokens(x, &have);
    CHECK_EQ(have, n);
    ksllm_session *y = fx_create(s->m, &o);
    CHECK_OK(ksllm_session_lend(y, s->list, 2, &e), e);
    CHECK_OK(ksllm_session_sync(y, tokens, have, NULL, &e), e);
    CHECK(!memcmp(ksllm_session_logits(x), ksllm_session_logits(y),
                  4 * fx_vocab_size(FX_BPE)));
    ksllm_session_free(y);
}

/* Of 5 tokens, pictures of 17 each at 5 and 22, 7 tokens; then 8 more. */
TEST(a_context_with_pictures_slides)
{
    static const struct { uint32_t keep; size_t from, to; } cases[] = {
        {0, 0, 39}, /* to 24, in the second picture */
        {4, 4, 39}, {10, 5, 39}, /* kept to the middle of the first one */
        {22, 22, 39}, {30, 22, 39}, {39, 39, 49}};
    scene s;
    ksllm_error e;
    int32_t more[8];
    scene_begin(&s);
    fx_prompt(more, 8, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int whole = 0; whole < 2; whole++) {
            ksllm_session_options o = fx_small_options();
            o.n_ctx = 48;
            o.n_keep = cases[i].keep;
            o.overflow = KSLLM_OVERFLOW_SLIDE;
            ksllm_session *x = fx_create(s.m, &o);
            int32_t all[64];
            memcpy(all, s.tokens, 4 * s.n);
            memcpy(all + s.n, more, sizeof more);
            CHECK_OK(ksllm_session_lend(x, s.list, 2, &e), e);
            if (whole) {
                CHECK_OK(ksllm_session_sync(x, all, s.n + 8, NULL, &e), e);
            } else {
                CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
                CHECK_OK(ksllm_session_append(x, more, 8, NULL, &e), e);
            }
            size_t n = cases[i].from, left = s.n + 8 - cases[i].to, have;
            memmove(all + n, all + cases[i].to, 4 * left);
            const int32_t *tokens = ksllm_session_tokens(x, &have);
            if (CHECK_EQ(have, n + left))
                CHECK(!memcmp(tokens, all, 4 * have));
            check_slid(&s, x, n + left);
            ksllm_session_free(x);
        }
    scene_end(&s);
}

/* A picture that stays is evaluated at its new place: its rows are needed. */
TEST(a_picture_that_stays_when_a_context_slides)
{
    scene s;
    ksllm_error e;
    ksllm_session_options o = fx_small_options();
    scene_begin(&s);
    o.n_ctx = 48;
    o.n_keep = 4;
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    ksllm_session *x = fx_create(s.m, &o);
    int32_t tokens[47], more[5];
    fx_prompt(tokens, 30, 7);
    fx_prompt(more, 5, 8);
    memcpy(tokens + 30, s.media[0].tokens, 4 * 17);
    CHECK_OK(ksllm_session_lend(x, s.list, 2, &e), e);
    CHECK_OK(ksllm_session_sync(x, tokens, 47, NULL, &e), e);
    CHECK_OK(ksllm_session_lend(x, NULL, 0, &e), e);
    CHECK_EQ(ksllm_session_append(x, more, 5, NULL, &e), KSLLM_ERR_CONTEXT);
    CHECK(strstr(e.text, "lend those that stay") != NULL);
    size_t have;
    ksllm_session_tokens(x, &have);
    CHECK_EQ(have, 47);
    CHECK_OK(ksllm_session_lend(x, s.list, 2, &e), e);
    CHECK_OK(ksllm_session_append(x, more, 5, NULL, &e), e);
    check_slid(&s, x, 30);
    /* Answers slide as well, and without the rows they end. */
    ksllm_generation g;
    ksllm_result r = {.size = sizeof r};
    ksllm_generation_init(&g);
    g.ignore_stop = true;
    g.max_tokens = 30;
    CHECK_OK(ksllm_generate(x, &g, &r, &e), e);
    CHECK_EQ(r.n_generated, 30);
    ksllm_session_free(x);
    scene_end(&s);
}

TEST(expand_fills_places)
{
    scene s;
    ksllm_error e;
    scene_begin(&s);
    int32_t in[14], out[128];
    for (int i = 0; i < 5; i++) in[i] = s.tokens[i];
    in[5] = in[6] = TW_PLACE;
    for (int i = 0; i < 7; i++) in[7 + i] = s.tokens[s.n - 7 + (size_t)i];
    CHECK_EQ(ksllm_media_expand(s.m, in, 14, s.list, 2, NULL, 0, &e), s.n);
    CHECK_EQ(ksllm_media_expand(s.m, in, 14, s.list, 2, out, 128, &e), s.n);
    CHECK(!memcmp(out, s.tokens, 4 * s.n));
    CHECK_EQ(ksllm_media_expand(s.m, in, 14, s.list, 1, out, 128, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "1 pictures") && strstr(e.text, "2 places"));
    CHECK_EQ(ksllm_media_expand(s.m, in, 6, s.list, 2, out, 128, &e),
             KSLLM_ERR_ARGUMENT);
    ksllm_media other = s.media[0];
    const ksllm_media *wrong[2] = {&other, s.list[1]};
    other.model = NULL;
    CHECK_EQ(ksllm_media_expand(s.m, in, 14, wrong, 2, out, 128, &e),
             KSLLM_ERR_ARGUMENT);
    other = s.media[0];
    other.n_tokens = 0;     /* it would stand before the list */
    CHECK_EQ(ksllm_media_expand(s.m, in, 14, wrong, 2, out, 128, &e),
             KSLLM_ERR_ARGUMENT);
    other = s.media[0];
    other.size = sizeof(size_t);
    CHECK_EQ(ksllm_media_expand(s.m, in, 14, wrong, 2, out, 128, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_media_expand(s.m, NULL, 0, NULL, 0, NULL, 0, &e), 0);
    scene_end(&s);
}

/* ---- stopping ---- */

static void count_steps(void *ctx, size_t done, size_t total)
{
    size_t *seen = ctx;
    CHECK_EQ(done, seen[0] + 1);
    seen[0] = done;
    seen[1] = total;
}

static ksllm_status look(ksllm_encoder *x, const void *what,
                         const ksllm_control *c, ksllm_media *out,
                         ksllm_error *e)
{
    return ksllm_media_encode(x, what, NULL, c, out, e);
}

static void stop_anywhere(tw_kind kind)
{
    static const uint32_t pieces[TW_KINDS] = {800, 3000, 5000};
    fx_file f;
    ksllm_model *m = open_tower(KSLLM_TYPE_Q8_0, kind, &f);
    ksllm_image p = tw_picture(75, 50, 3);
    ksllm_encoder *x = media_encoder(m, 2);
    ksllm_control c;
    size_t seen[2] = {0, 0};
    ksllm_error e;
    ksllm_media want = encode(x, m, &p, NULL), got = room(m, &p, NULL);
    ksllm_control_init(&c);
    c.on_progress = count_steps;
    c.progress_ctx = seen;
    CHECK_OK(look(x, &p, &c, &got, &e), e);
    CHECK_HEX(media_hash(&got), media_hash(&want));
    CHECK_EQ(seen[0], seen[1]);
    CHECK_EQ(seen[0] % TW_LAYERS, 0);
    media_stops(m, look, &p, &want, &got, pieces[kind], 4000);
    free(want.memory);
    free(got.memory);
    free((void *)(uintptr_t)p.rgb);
    ksllm_encoder_free(x);
    fx_close(m, &f);
}

TEST(stops_anywhere)
{
    for (tw_kind kind = 0; kind < TW_KINDS; kind++)
        stop_anywhere(kind);
}

TEST(a_stopped_prompt_goes_on)
{
    scene s;
    ksllm_error e;
    ksllm_control c;
    scene_begin(&s);
    ksllm_session *x = scene_session(&s, 7, 2);
    CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
    uint64_t want = fx_logits_hash(s.m, x), rng = test_seed;
    ksllm_control_init(&c);
    for (int i = 0; i < 300 / TEST_ONE_OF; i++) {
        CHECK_OK(ksllm_session_rewind(x, fx_below(&rng, 20), &e), e);
        c.budget_us = 1 + fx_below(&rng, 2000);
        ksllm_status status = ksllm_session_sync(x, s.tokens, s.n, &c, &e);
        CHECK(status == KSLLM_OK || status == KSLLM_ERR_DEADLINE);
        CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
        CHECK_HEX(fx_logits_hash(s.m, x), want);
    }
    ksllm_session_free(x);
    scene_end(&s);
}

/* ---- memory ---- */

TEST(memory_is_planned)
{
    fx_spec spec = tw_spec(KSLLM_TYPE_Q8_0, TW_WHOLE);
    fx_file f = fx_model(&spec);
    fx_alloc a;
    ksllm_model_options mo;
    ksllm_encoder_options o;
    ksllm_error e;
    ksllm_model *m = NULL;
    ksllm_encoder *x = NULL;
    size_t bytes;
    ksllm_image p = tw_picture(75, 50, 3);
    ksllm_model_options_init(&mo);
    ksllm_encoder_options_init(&o);
    for (long at = 1; !m; at++) {       /* every allocation of open fails */
        fx_alloc_init(&a);
        a.fail_at = at;
        mo.allocator = &a.allocator;
        ksllm_status status =
            ksllm_model_open_memory(f.data, f.size, &mo, &m, &e);
        CHECK(status == (a.failed ? KSLLM_ERR_MEMORY : KSLLM_OK));
        if (status)
            CHECK_EQ(a.n_live, 0);
    }
    size_t live = a.n_live;
    o.n_threads = 1;
    CHECK_OK(ksllm_encoder_memory(m, &o, &bytes, &e), e);
    a.fail_at = a.calls + 1;
    CHECK_EQ(ksllm_encoder_create(m, &o, &x, &e), KSLLM_ERR_MEMORY);
    CHECK(!x);
    long calls = a.calls;
    CHECK_OK(ksllm_encoder_create(m, &o, &x, &e), e);
    CHECK_EQ(a.calls, calls + 1);
    CHECK_EQ(a.n_live, live + 1);
    ksllm_media one = encode(x, m, &p, NULL);
    CHECK_EQ(a.calls, calls + 1);
    ksllm_encoder_free(x);
    CHECK_EQ(a.n_live, live);
    /* In the caller's memory, to the byte. */
    uint8_t *own = fx_memory(NULL, bytes);
    memset(own, 0xcb, bytes);
    o.memory = own;
    o.memory_size = bytes - 1;
    CHECK_EQ(ksllm_encoder_create(m, &o, &x, &e), KSLLM_ERR_BUFFER);
    CHECK(strstr(e.text, "ksllm_encoder_memory") != NULL);
    o.memory_size = bytes;
    CHECK_OK(ksllm_encoder_create(m, &o, &x, &e), e);
    ksllm_media two = encode(x, m, &p, NULL);
    CHECK_HEX(media_hash(&one), media_hash(&two));
    ksllm_encoder_free(x);
    CHECK_EQ(a.n_live, live);
    o.n_threads = 65;
    CHECK_EQ(ksllm_encoder_memory(m, &o, &bytes, &e), KSLLM_ERR_ARGUMENT);
    free(own);
    free(one.memory);
    free(two.memory);
    free((void *)(uintptr_t)p.rgb);
    ksllm_model_close(m);
    CHECK_EQ(a.n_live, 0);
    free(f.data);
}

/* ---- files that say something wrong ---- */

/* A tower with another value of a key, or without a tensor. */
static ksllm_status open_with(tw_kind kind, const ksllm_override *o,
                              const char *skip, char *why)
{
    fx_spec spec = tw_spec(KSLLM_TYPE_F32, kind);
    spec.skip = skip;
    fx_file f = fx_model(&spec);
    ksllm_model_options mo;
    ksllm_model *m;
    ksllm_error e = {.text = ""};
    ksllm_model_options_init(&mo);
    mo.overrides = o;
    mo.n_overrides = o != NULL;
    ksllm_status status =
        ksllm_model_open_memory(f.data, f.size, &mo, &m, &e);
    strcpy(why, e.text);
    ksllm_model_close(m);
    free(f.data);
    return status;
}

TEST(wrong_towers_are_refused)
{
    static const struct {
        tw_kind kind;
        const char *key;
        int64_t v;
        const char *why;
    } cases[] = {
        {TW_TILES, "patch_size", 0, "from 1"},
        {TW_TILES, "patch_size", 129, "to 128"},
        {TW_TILES, "patch_size", 5, "not 1 to 128 patches"},
        {TW_TILES, "image_size", 1 << 13, "to 4096"},
        {TW_TILES, "image_size", 64, "image_grid_pinpoints"},
        {TW_TILES, "image_size", 16, "'clip.vision.image_size' makes it 4"},
        {TW_TILES, "block_count", 0, "from 1"},
        {TW_TILES, "block_count", 1 << 10, "tensors are missing"},
        {TW_TILES, "block_count", 3, "v.blk.2."},
        {TW_TILES, "block_count", 1, "no place"},
        {TW_TILES, "attention.head_count", 5, "does not divide"},
        {TW_TILES, "attention.head_count", 0, "from 1"},
        {TW_TILES, "embedding_length", 95, "does not divide"},
        {TW_TILES, "embedding_length", 92, "x 3 x 92"},
        {TW_TILES, "feed_forward_length", 161, "feed_forward_length"},
        {TW_TILES, "image_token_id", 281, "to 280"},
        {TW_TILES, "anyres_max", 0, "from 1"},
        {TW_CELLS, "mm.num_queries", 8, "no square"},
        {TW_CELLS, "mm.num_queries", 25, "4 x 4 patches"},
        {TW_CELLS, "mm.num_queries", 0, "from 1"},
        {TW_CELLS, "pad_to_square", 2, "to 1"},
        {TW_WHOLE, "attention.head_count_kv", 3, "does not divide"},
        {TW_WHOLE, "attention.head_count_kv", 1, "head_count_kv"},
        {TW_WHOLE, "attention.head_count", 48, "multiple of 4"},
        {TW_WHOLE, "spatial_merge_size", 3, "power of 2"},
        {TW_WHOLE, "spatial_merge_size", 4, "'clip.vision.embedding_length'"},
        {TW_WHOLE, "window_size", 15, "less than a cell"},
        {TW_WHOLE, "n_wa_pattern", 0, "from 1"},
        {TW_WHOLE, "image_min_pixels", 65537, "from 65537"},
        {TW_WHOLE, "image_max_pixels", 1023, "from 1024"},
    };
    static const char *const needed[] = {"mm.2.bias", "v.image_newline",
        "v.position_embd.weight",
        "v.blk.1.ln2.bias", "v.blk.0.attn_q.weight"};
    static const char *const abstract[] = {"mm.pos_emb",
        "mm.readout.2.weight", "mm.net.0.b1.conv1.conv.weight",
        "mm.net.0.b2.se.fc1.weight", "mm.net.2.b3.se.fc2.bias",
        "mm.net.2.b1.conv3.bn.bias"};
    char why[500];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[96];
        snprintf(key, sizeof key, "clip.vision.%s", cases[i].key);
        ksllm_override o = {.key = key, .type = KSLLM_META_I64,
                            .integer = cases[i].v};
        CHECK(open_with(cases[i].kind, &o, NULL, why) != KSLLM_OK);
        if (!CHECK(strstr(why, cases[i].why) != NULL))
            printf("%s %d: %s\n", key, (int)cases[i].v, why);
    }
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        CHECK_EQ(open_with(TW_TILES, NULL, needed[i], why), KSLLM_ERR_FORMAT);
        CHECK(strstr(why, needed[i]) != NULL);
    }
    for (size_t i = 0; i < sizeof abstract / sizeof *abstract; i++) {
        CHECK_EQ(open_with(TW_CELLS, NULL, abstract[i], why),
                 KSLLM_ERR_FORMAT);
        CHECK(strstr(why, abstract[i]) != NULL);
    }
    /* With a tower that is not known, or none, it is a model of text. */
    fx_spec spec = tw_spec(KSLLM_TYPE_F32, TW_TILES);
    fx_file f = fx_model(&spec);
    const ksllm_override other = {.key = "clip.projector_type",
        .type = KSLLM_META_TEXT, .text = "kanana"};
    ksllm_model_options mo;
    ksllm_model *m;
    ksllm_error e;
    ksllm_image p = {.width = 9, .height = 9};
    ksllm_media_size z = {.size = sizeof z};
    ksllm_model_options_init(&mo);
    mo.overrides = &other;
    mo.n_overrides = 1;
    CHECK_OK(ksllm_model_open_memory(f.data, f.size, &mo, &m, &e), e);
    CHECK_EQ(ksllm_media_measure(m, &p, NULL, &z, &e), KSLLM_ERR_UNSUPPORTED);
    CHECK(strstr(e.text, "'kanana'") != NULL);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- in a second file ---- */

typedef struct {
    fx_file text, towers;
    ksllm_model_options o;
} pair;

static pair pair_of(ksllm_type type, bool tiles, bool fuses, const char *of)
{
    pair p;
    fx_spec s = tw_spec(type, tiles), text = s;
    text.more = NULL;
    tw_fuses = fuses;
    p.text = fx_model(&text);
    p.towers = fx_second(&s, of);
    tw_fuses = false;
    ksllm_model_options_init(&p.o);
    p.o.media_data = p.towers.data;
    p.o.media_size = p.towers.size;
    return p;
}

static void pair_free(pair *p)
{
    free(p->text.data);
    free(p->towers.data);
}

static ksllm_status pair_open(const pair *p, ksllm_model **m, ksllm_error *e)
{
    *m = NULL;
    return ksllm_model_open_memory(p->text.data, p->text.size, &p->o, m, e);
}

TEST(a_second_file_is_the_same_bits)
{
    const ksllm_type types[] = {KSLLM_TYPE_F32, KSLLM_TYPE_F16,
                                KSLLM_TYPE_Q8_0};
    const ksllm_image p = tw_picture(75, 50, 3);
    for (int t = 0; t < 12; t++) {
        fx_spec s = tw_spec(types[t / 4], t % 2);
        fx_file f = fx_model(&s);
        pair two = pair_of(types[t / 4], t % 2, t / 2 % 2, t % 3 ? "qwen3"
                                                                 : NULL);
        ksllm_model *m = media_open(&f, NULL), *n;
        ksllm_model_info a = {.size = sizeof a}, b = {.size = sizeof b};
        ksllm_error e;
        if (!CHECK_OK(pair_open(&two, &n, &e), e))
            continue;
        CHECK_OK(ksllm_model_get_info(m, &a, &e), e);
        CHECK_OK(ksllm_model_get_info(n, &b, &e), e);
        CHECK_EQ(a.weight_bytes, b.weight_bytes);
        CHECK_EQ(a.n_parameters, b.n_parameters);
        CHECK_EQ(a.picture_tokens, b.picture_tokens);
        CHECK_EQ(a.picture_place, b.picture_place);
        CHECK_OK(ksllm_model_preload(n, NULL, &e), e);
        ksllm_encoder *x = media_encoder(m, 1), *y = media_encoder(n, 2);
        ksllm_media one = encode(x, m, &p, NULL), other = encode(y, n, &p,
                                                                 NULL);
        CHECK_HEX(media_hash(&one), media_hash(&other));
        CHECK(!memcmp(one.tokens, other.tokens, 4 * one.n_tokens));
        free(one.memory);
        free(other.memory);
        ksllm_encoder_free(x);
        ksllm_encoder_free(y);
        ksllm_model_close(m);
        ksllm_model_close(n);
        free(f.data);
        pair_free(&two);
    }
    free((void *)(uintptr_t)p.rgb);
}

/* Every allocation fails once, and the file ends anywhere: nothing is left. */
TEST(a_second_file_that_fails_leaves_nothing)
{
    pair p = pair_of(KSLLM_TYPE_Q8_0, false, true, "qwen3");
    ksllm_model *m = NULL;
    ksllm_error e;
    fx_alloc a;
    p.o.allocator = &a.allocator;
    for (long at = 1; !m; at++) {
        fx_alloc_init(&a);
        a.fail_at = at;
        ksllm_status status = pair_open(&p, &m, &e);
        CHECK(status == (a.failed ? KSLLM_ERR_MEMORY : KSLLM_OK));
        CHECK(!status == !!m);
        if (status)
            CHECK_EQ(a.n_live, 0);
    }
    ksllm_model_close(m);
    CHECK_EQ(a.n_live, 0);
    for (int i = 0; i < 100; i++) {
        uint8_t *cut = fx_memory(NULL, p.towers.size);
        memcpy(cut, p.towers.data, p.towers.size);
        fx_alloc_init(&a);
        p.o.media_data = cut;
        p.o.media_size = 1 + p.towers.size * (size_t)i / 100;
        CHECK_EQ(pair_open(&p, &m, &e), KSLLM_ERR_FORMAT);
        CHECK(!m && a.n_live == 0);
        free(cut);
    }
    p.o.media_data = NULL;
    p.o.media_size = 0;
    p.o.media_path = "/nowhere/mmproj.gguf";
    CHECK_EQ(pair_open(&p, &m, &e), KSLLM_ERR_IO);
    CHECK(strstr(e.text, "mmproj.gguf") != NULL);
    CHECK(!m && a.n_live == 0);
    pair_free(&p);
}

TEST(a_second_file_by_path)
{
    char path[] = "/tmp/ksllm-see-XXXXXX";
    pair p = pair_of(KSLLM_TYPE_Q8_0, true, false, NULL);
    ksllm_model *m;
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error e;
    fx_alloc a;
    FILE *f = fdopen(mkstemp(path), "wb");
    CHECK_EQ(fwrite(p.towers.data, 1, p.towers.size, f), p.towers.size);
    fclose(f);
    p.o.media_data = NULL;
    p.o.media_size = 0;
    p.o.media_path = path;
    p.o.allocator = &a.allocator;
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        p.o.in_memory = in_memory;
        fx_alloc_init(&a);
        CHECK_OK(pair_open(&p, &m, &e), e);
        CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
        CHECK(info.picture_tokens > 0);
        CHECK((a.live > p.towers.size) == in_memory);
        ksllm_model_close(m);
        CHECK_EQ(a.n_live, 0);
    }
    unlink(path);
    pair_free(&p);
}

TEST(a_second_file_that_does_not_fit)
{
    static const struct {
        const char *key, *text;
        int64_t v;
        ksllm_status status;
        const char *why;
    } cases[] = {
        {"clip.vision.image_token_id", NULL, 7, KSLLM_OK, ""},
        {"clip.text_architecture", "llama", 0, KSLLM_ERR_ARGUMENT,
         "of architecture 'llama'; that of 'the file in memory' is 'qwen3'"},
        {"clip.projector_type", "kanana", 0, KSLLM_ERR_UNSUPPORTED,
         "clip.projector_type 'kanana'"},
        {"clip.has_vision_encoder", NULL, 0, KSLLM_ERR_UNSUPPORTED,
         "no tower"},
        {"clip.vision.block_count", NULL, 1, KSLLM_ERR_UNSUPPORTED,
         "has no place in a tower of mlp with 1 layers"},
        {"clip.vision.attention.head_count", NULL, 5, KSLLM_ERR_FORMAT,
         "does not divide"},
        {"clip.vision.nothing", NULL, 5, KSLLM_ERR_ARGUMENT,
         "'clip.vision.nothing'"},
    };
    pair p = pair_of(KSLLM_TYPE_F32, true, false, NULL);
    fx_spec wide = *fx_spec_of("llama"), own = tw_spec(KSLLM_TYPE_F32, TW_TILES);
    ksllm_model *m;
    ksllm_error e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bool flag = strstr(cases[i].key, ".has_") != NULL;
        const ksllm_override o = {.key = cases[i].key,
            .type = cases[i].text ? KSLLM_META_TEXT : flag ? KSLLM_META_BOOL
                                                    : KSLLM_META_U32,
            .text = cases[i].text, .integer = cases[i].v};
        p.o.overrides = &o;
        p.o.n_overrides = 1;
        CHECK_EQ(pair_open(&p, &m, &e), cases[i].status);
        if (cases[i].status && !CHECK(strstr(e.text, cases[i].why) != NULL))
            printf("%s\n", e.text);
        ksllm_model_close(m);
    }
    p.o.n_overrides = 0;
    /* another width, the file of a model, a tower in each, no model at all */
    wide.n_embd = 96;
    pair other = p;
    other.text = fx_model(&wide);
    CHECK_EQ(pair_open(&other, &m, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "rows have 64 values") != NULL);
    CHECK(strstr(e.text, "have 96") != NULL);
    other.o.media_data = other.text.data;
    other.o.media_size = other.text.size;
    CHECK_EQ(pair_open(&other, &m, &e), KSLLM_ERR_FORMAT);
    CHECK(strstr(e.text, "'clip'") != NULL);
    free(other.text.data);
    other = p;
    other.text = fx_model(&own);
    CHECK_EQ(pair_open(&other, &m, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "tower of its own") != NULL);
    free(other.text.data);
    other.text = p.towers;
    CHECK_EQ(pair_open(&other, &m, &e), KSLLM_ERR_UNSUPPORTED);
    CHECK(strstr(e.text, "options.media_path") != NULL);
    p.o.media_path = "x";
    CHECK_EQ(pair_open(&p, &m, &e), KSLLM_ERR_ARGUMENT);
    p.o.media_path = NULL;
    p.o.media_size = 0;
    CHECK_EQ(pair_open(&p, &m, &e), KSLLM_ERR_ARGUMENT);
    pair_free(&p);
}

/* ---- in a chat ---- */

#if !defined KSLLM_NO_CHAT

static const char chat_template[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'image' %}<|endoftext|>"
    "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>a\n{% endif %}";

TEST(chat_has_pictures)
{
    scene s;
    ksllm_error e;
    ksllm_chat chat;
    ksllm_generation g;
    ksllm_result r = {.size = sizeof r};
    scene_begin(&s);
    ksllm_session *x = scene_session(&s, 16, 1);
    CHECK_OK(ksllm_session_lend(x, NULL, 0, &e), e);
    ksllm_generation_init(&g);
    ksllm_chat_init(&chat);
    g.max_tokens = 4;
    chat.template_text.data = chat_template;
    chat.messages.data =
        "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"},"
        "{\"type\": \"text\", \"text\": \"a <|endoftext|> b\"},"
        "{\"type\": \"image\"}]}]";
    int32_t plain[128], all[128], out[128];
    int64_t n = ksllm_chat_encode(s.m, &chat, 0, plain, 128, &e), places = 0;
    CHECK_OK(n, e);
    for (int64_t i = 0; i < n; i++)
        places += plain[i] == TW_PLACE;
    CHECK_EQ(places, 2);        /* a text forges none */
    chat.media = s.list;
    chat.n_media = 2;
    int64_t total = ksllm_chat_encode(s.m, &chat, 0, NULL, 0, &e);
    CHECK_EQ(total, n + 2 * (17 - 1));
    CHECK_EQ(ksllm_chat_encode(s.m, &chat, 0, all, 128, &e), total);
    CHECK_EQ(ksllm_media_expand(s.m, plain, (size_t)n, s.list, 2, out, 128,
                                &e), total);
    CHECK(!memcmp(all, out, 4 * (size_t)total));
    CHECK_OK(ksllm_chat_generate(x, &chat, &g, fx_drop_part, NULL, &r, &e), e);
    CHECK_EQ(r.n_prompt, total);
    uint64_t want = fx_logits_hash(s.m, x);
    CHECK_OK(ksllm_chat_generate(x, &chat, &g, fx_drop_part, NULL, &r, &e), e);
    CHECK_EQ(r.n_reused, total);
    CHECK_HEX(fx_logits_hash(s.m, x), want);
    /* The pictures were lent for the call. */
    CHECK_OK(ksllm_session_rewind(x, 5, &e), e);
    CHECK_EQ(ksllm_session_sync(x, all, (size_t)total, NULL, &e),
             KSLLM_ERR_STATE);
    chat.n_media = 1;
    CHECK_EQ(ksllm_chat_generate(x, &chat, &g, NULL, NULL, &r, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "1 pictures for a prompt with 2 places") != NULL);
    chat.n_media = 0;
    CHECK_EQ(ksllm_chat_generate(x, &chat, &g, NULL, NULL, &r, &e),
             KSLLM_ERR_ARGUMENT);
    chat.n_media = 65;
    CHECK_EQ(ksllm_chat_encode(s.m, &chat, 0, all, 128, &e),
             KSLLM_ERR_ARGUMENT);
    chat.media = NULL;
    chat.n_media = 1;
    CHECK_EQ(ksllm_chat_encode(s.m, &chat, 0, all, 128, &e),
             KSLLM_ERR_ARGUMENT);
    /* More than the context holds. */
    const ksllm_media *many[8];
    for (int i = 0; i < 8; i++)
        many[i] = s.list[i % 2];
    chat.media = many;
    chat.n_media = 8;
    chat.messages.data =
        "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"},"
        "{\"type\": \"image\"}, {\"type\": \"image\"},"
        "{\"type\": \"image\"}, {\"type\": \"image\"},"
        "{\"type\": \"image\"}, {\"type\": \"image\"},"
        "{\"type\": \"image\"}]}]";
    CHECK_EQ(ksllm_chat_generate(x, &chat, &g, NULL, NULL, &r, &e),
             KSLLM_ERR_CONTEXT);
    ksllm_session_free(x);
    scene_end(&s);
}

#endif

#if !defined KSLLM_NO_STATE

typedef struct {
    uint8_t data[1 << 20];
    size_t n, at;
} tape;

static int tape_write(void *ctx, const void *data, size_t size)
{
    tape *t = ctx;
    if (size > sizeof t->data - t->n)
        return 1;
    memcpy(t->data + t->n, data, size);
    t->n += size;
    return 0;
}

static int tape_read(void *ctx, void *data, size_t size)
{
    tape *t = ctx;
    if (size > t->n - t->at)
        return 1;
    memcpy(data, t->data + t->at, size);
    t->at += size;
    return 0;
}

TEST(a_state_has_pictures)
{
    static tape t;
    scene s;
    ksllm_error e;
    scene_begin(&s);
    ksllm_session *x = scene_session(&s, 16, 1), *y = scene_session(&s, 9, 2);
    CHECK_OK(ksllm_session_sync(x, s.tokens, s.n, NULL, &e), e);
    CHECK_OK(ksllm_session_save(x, 0, tape_write, &t, NULL, NULL, &e), e);
    CHECK_OK(ksllm_session_lend(y, NULL, 0, &e), e);
    CHECK_OK(ksllm_session_load(y, s.tokens, s.n, tape_read, &t, NULL, NULL,
                                &e), e);
    CHECK_EQ(ksllm_session_common(y, s.tokens, s.n), s.n);
    CHECK_OK(ksllm_session_sync(y, s.tokens, s.n, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(s.m, y), fx_logits_hash(s.m, x));
    ksllm_session_free(y);
    /* A tower that sees otherwise gives other rows the same names. */
    const ksllm_override o = {.key = "clip.vision.attention."
        "layer_norm_epsilon", .type = KSLLM_META_F32, .number = 1e-3};
    ksllm_model_options mo;
    ksllm_session_options so = fx_small_options();
    ksllm_model_options_init(&mo);
    mo.overrides = &o;
    mo.n_overrides = 1;
    ksllm_model *other = NULL;
    fx_must(ksllm_model_open_memory(s.f.data, s.f.size, &mo, &other, &e), &e);
    y = fx_create(other, &so);
    t.at = 0;
    CHECK_EQ(ksllm_session_load(y, s.tokens, s.n, tape_read, &t, NULL, NULL,
                                &e), KSLLM_ERR_UNSUPPORTED);
    ksllm_session_free(x);
    ksllm_session_free(y);
    ksllm_model_close(other);
    scene_end(&s);
}

#endif

#endif /* KSLLM_NO_MEDIA */

TEST_MAIN
