/* test_hear.c - sounds: what an ear makes of them, the same bits whatever the
 * machine does, and what is refused. That the rows are transformers' is
 * test_families' matter; the front end is test_media's. */
#include "ear.h"
#include "test.h"
#include "media.h"

static ksllm_model *open_ear(ksllm_type type, bool chunks, fx_file *f)
{
    fx_spec s = ea_spec(type, chunks);
    *f = fx_model(&s);
    return media_open(f, NULL);
}

static ksllm_media room(const ksllm_model *m, const ksllm_sound *s)
{
    ksllm_media_size size = {.size = sizeof size};
    ksllm_error e;
    fx_must(ksllm_media_measure_sound(m, s, &size, &e), &e);
    return (ksllm_media){.size = sizeof(ksllm_media),
        .memory = fx_memory(NULL, size.memory), .memory_size = size.memory};
}

static ksllm_media encode(ksllm_encoder *x, const ksllm_model *m,
                          const ksllm_sound *s)
{
    ksllm_error e;
    ksllm_media media = room(m, s);
    fx_must(ksllm_media_encode_sound(x, s, NULL, &media, &e), &e);
    return media;
}

enum { SAMPLES = 23456 };       /* 146 frames: 8 stretches, 4 windows; or a
                                   chunk and half of one */

TEST(sounds_are_the_same_bits)
{
    const ksllm_type types[] = {KSLLM_TYPE_F32, KSLLM_TYPE_F16,
                                KSLLM_TYPE_Q8_0, KSLLM_TYPE_Q4_0};
    float *samples = sound(1, SAMPLES);
    const ksllm_sound s = {samples, SAMPLES};
    for (int t = 0; t < 8; t++) {
        fx_spec spec = ea_spec(types[t % 4], t > 3);
        fx_file f = fx_model(&spec);
        uint64_t first = 0;
        const char *isa;
        for (size_t i = 0; (isa = ksllm_isa_at(i)); i++)
            for (uint32_t n = 1; n < 4; n++) {
                ksllm_model *m = media_open(&f, isa);
                ksllm_encoder *x = media_encoder(m, n);
                ksllm_media media = encode(x, m, &s);
                uint64_t h = media_hash(&media);
                if (!first)
                    first = h;
                CHECK_HEX(h, first);
                for (size_t k = 0; k < media.n_tokens * media.n_embd; k++)
                    if (!CHECK(media.rows[k] > -1e6f && media.rows[k] < 1e6f))
                        break;
                free(media.memory);
                ksllm_encoder_free(x);
                ksllm_model_close(m);
            }
        free(f.data);
    }
    free(samples);
}

/* A row sees its window alone, and the loudest band of all. */
TEST(sounds_are_heard_in_windows)
{
    fx_file f;
    ksllm_model *m = open_ear(KSLLM_TYPE_F32, false, &f);
    ksllm_encoder *x = media_encoder(m, 2);
    float *samples = sound(1, SAMPLES);
    ksllm_sound s = {samples, SAMPLES};
    ksllm_media a = encode(x, m, &s);
    for (size_t i = 20000; i < 21000; i++)
        samples[i] = 0;         /* in frames 123 to 132, stretch 6 */
    ksllm_media b = encode(x, m, &s);
    CHECK_EQ(a.n_tokens, 7 * EA_ROWS + 1);
    size_t same = 18 * (size_t)a.n_embd;
    CHECK(!memcmp(a.rows, b.rows, same * sizeof *a.rows));
    CHECK(memcmp(a.rows + same, b.rows + same, a.n_embd * sizeof *a.rows));
    CHECK(memcmp(a.tokens, b.tokens, a.n_tokens * sizeof *a.tokens));
    free(a.memory);
    free(b.memory);
    free(samples);
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    free(f.data);
}

TEST(sounds_are_measured)
{
    static const struct { size_t samples; uint32_t tokens; } cases[] = {
        {1, 4}, {3999, 4}, {4000, 4}, {4800, 5}, {6400, 6}, {6559, 6},
        {6560, 7}, {48000, 45}, {SAMPLES, 22}};
    fx_file f;
    ksllm_model *m = open_ear(KSLLM_TYPE_F32, false, &f);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error e;
    CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ksllm_sound s = {NULL, cases[i].samples};
        ksllm_media_size size = {.size = sizeof size};
        CHECK_OK(ksllm_media_measure_sound(m, &s, &size, &e), e);
        CHECK_EQ(size.n_tokens, cases[i].tokens);
        CHECK(size.n_macs > 0 && size.memory > size.n_tokens * info.n_embd * 4);
    }
    CHECK_EQ(info.sound_tokens, EA_SECONDS * 100 / 20 * EA_ROWS);
    CHECK_EQ(info.sound_place, EA_PLACE);
    CHECK_EQ(info.picture_tokens, 0);
    CHECK_EQ(info.picture_place, -1);
    ksllm_model_close(m);
    free(f.data);
}

TEST(sounds_that_are_refused)
{
    fx_file f, g = fx_model(fx_spec_of("qwen3"));
    ksllm_model *m = open_ear(KSLLM_TYPE_F32, false, &f), *deaf = media_open(&g, NULL);
    ksllm_encoder *x = media_encoder(m, 1), *small = NULL;
    ksllm_encoder_options o;
    ksllm_error e;
    float *samples = sound(1, 60000);
    const uint8_t rgb[3] = {0};
    const ksllm_image image = {rgb, 1, 1, 0};
    ksllm_sound s = {samples, 9000};
    ksllm_media_size size = {.size = sizeof size};
    ksllm_media media = room(m, &s);
    CHECK_EQ(ksllm_media_measure_sound(deaf, &s, &size, &e),
             KSLLM_ERR_UNSUPPORTED);
    CHECK(strstr(e.text, "does not hear") != NULL);
    CHECK_EQ(ksllm_media_measure(m, &image, NULL, &size, &e),
             KSLLM_ERR_UNSUPPORTED);
    CHECK_EQ(ksllm_media_encode(x, &image, NULL, NULL, &media, &e),
             KSLLM_ERR_UNSUPPORTED);
    s.n_samples = 0;
    CHECK_EQ(ksllm_media_measure_sound(m, &s, &size, &e), KSLLM_ERR_ARGUMENT);
    s.n_samples = (size_t)1 << 29;
    CHECK_EQ(ksllm_media_measure_sound(m, &s, &size, &e), KSLLM_ERR_ARGUMENT);
    s.n_samples = 9000;
    s.samples = NULL;
    CHECK_EQ(ksllm_media_name_sound(m, &s, &media, &e), KSLLM_ERR_ARGUMENT);
    s.samples = samples;
    samples[77] = 0.0f / (float)(samples[0] - samples[0]);
    CHECK_EQ(ksllm_media_encode_sound(x, &s, NULL, &media, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK_EQ(e.offset, 77);
    samples[77] = 0;
    media.memory_size--;
    CHECK_EQ(ksllm_media_encode_sound(x, &s, NULL, &media, &e),
             KSLLM_ERR_BUFFER);
    media.memory_size++;
    ksllm_encoder_options_init(&o);
    o.max_tokens = 3;
    CHECK_OK(ksllm_encoder_create(m, &o, &small, &e), e);
    CHECK_EQ(ksllm_media_encode_sound(small, &s, NULL, &media, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "max_tokens") != NULL);
    ksllm_encoder_free(small);
    /* More than the model's seconds, for who asks. */
    s.n_samples = 60000;
    ksllm_media more = room(m, &s);
    CHECK_EQ(ksllm_media_encode_sound(x, &s, NULL, &more, &e),
             KSLLM_ERR_ARGUMENT);
    o.max_tokens = 100;
    CHECK_OK(ksllm_encoder_create(m, &o, &small, &e), e);
    CHECK_OK(ksllm_media_encode_sound(small, &s, NULL, &more, &e), e);
    ksllm_encoder_free(small);
    free(more.memory);
    free(media.memory);
    free(samples);
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    ksllm_model_close(deaf);
    free(f.data);
    free(g.data);
}

static ksllm_status listen(ksllm_encoder *x, const void *what,
                           const ksllm_control *c, ksllm_media *out,
                           ksllm_error *e)
{
    return ksllm_media_encode_sound(x, what, c, out, e);
}

static void check_stops(bool chunks)
{
    fx_file f;
    ksllm_model *m = open_ear(KSLLM_TYPE_Q8_0, chunks, &f);
    float *samples = sound(1, SAMPLES);
    const ksllm_sound s = {samples, SAMPLES};
    ksllm_encoder *x = media_encoder(m, 2);
    ksllm_media want = encode(x, m, &s), got = room(m, &s);
    media_stops(m, listen, &s, &want, &got, 3000, 8000);
    free(want.memory);
    free(got.memory);
    free(samples);
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    free(f.data);
}

TEST(sounds_stop_anywhere)
{
    check_stops(false);
    check_stops(true);
}

static void check_plan(bool chunks)
{
    fx_spec spec = ea_spec(KSLLM_TYPE_Q8_0, chunks);
    fx_file f = fx_model(&spec);
    fx_alloc a;
    ksllm_model_options mo;
    ksllm_encoder_options o;
    ksllm_error e;
    ksllm_model *m = NULL;
    ksllm_encoder *x = NULL;
    size_t bytes;
    float *samples = sound(1, SAMPLES);
    const ksllm_sound s = {samples, SAMPLES};
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
    o.n_threads = 1;
    CHECK_OK(ksllm_encoder_memory(m, &o, &bytes, &e), e);
    uint8_t *own = fx_memory(NULL, bytes + 64);
    memset(own, 0xcb, bytes + 64);
    o.memory = own;
    o.memory_size = bytes;
    long calls = a.calls;
    CHECK_OK(ksllm_encoder_create(m, &o, &x, &e), e);
    ksllm_media one = encode(x, m, &s);
    CHECK_EQ(a.calls, calls);
    ksllm_encoder *y = media_encoder(m, 2);
    ksllm_media two = encode(y, m, &s);
    CHECK_HEX(media_hash(&one), media_hash(&two));
    for (int i = 0; i < 64; i++)
        CHECK_EQ(own[bytes + (size_t)i], 0xcb);
    free(one.memory);
    free(two.memory);
    ksllm_encoder_free(x);
    ksllm_encoder_free(y);
    free(own);
    free(samples);
    ksllm_model_close(m);
    free(f.data);
}

TEST(memory_of_an_ear_is_planned)
{
    check_plan(false);
    check_plan(true);
}

/* Any number in any key: an error, or an ear that can be asked. */
static void check_keys(bool chunks)
{
    static const int64_t values[] = {0, 1, 2, 3, 7, 8, 21, 63, 64, 255, 257,
                                     512, 1024, 65536, 1 << 30};
    fx_spec spec = ea_spec(KSLLM_TYPE_F32, chunks);
    fx_file f = fx_model(&spec);
    float *samples = sound(1, 7000);
    const ksllm_sound s = {samples, 7000};
    ksllm_error e;
    for (size_t k = 0; k < (chunks ? EA_BOTH : EA_KEYS); k++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            ksllm_override put = {.key = ea_keys[k].key,
                .type = KSLLM_META_U32, .integer = values[i]};
            ksllm_model_options mo;
            ksllm_encoder_options o;
            ksllm_model *m = NULL;
            ksllm_encoder *x = NULL;
            size_t bytes = 0;
            ksllm_model_options_init(&mo);
            mo.overrides = &put;
            mo.n_overrides = 1;
            ksllm_status status =
                ksllm_model_open_memory(f.data, f.size, &mo, &m, &e);
            CHECK(!status || e.text[0]);
            ksllm_encoder_options_init(&o);
            o.max_tokens = 64;
            if (!status && !ksllm_encoder_memory(m, &o, &bytes, &e)
                && bytes < 1 << 26
                && !ksllm_encoder_create(m, &o, &x, &e)) {
                ksllm_media_size size = {.size = sizeof size};
                ksllm_media media = {.size = sizeof media};
                CHECK_OK(ksllm_media_measure_sound(m, &s, &size, &e), e);
                media.memory = fx_memory(NULL, size.memory);
                media.memory_size = size.memory;
                status = ksllm_media_encode_sound(x, &s, NULL, &media, &e);
                CHECK(status == KSLLM_OK || size.n_tokens > 64);
                free(media.memory);
            }
            ksllm_encoder_free(x);
            ksllm_model_close(m);
        }
    free(samples);
    free(f.data);
}

TEST(keys_of_ears_are_checked)
{
    check_keys(false);
    check_keys(true);
}

/* Silence after a sound is heard, but is no row; the next chunk begins anew. */
TEST(chunks_are_measured_and_apart)
{
    static const struct { size_t samples; uint32_t tokens, chunks; } cases[] = {
        {321, 1, 1}, {640, 1, 1}, {960, 1, 1}, {961, 2, 1}, {15680, 24, 1},
        {15999, 25, 1}, {16000, 25, 1}, {16320, 25, 1}, {16321, 26, 2},
        {SAMPLES, 37, 2}, {64000, 100, 4}};
    fx_file f;
    ksllm_model *m = open_ear(KSLLM_TYPE_F32, true, &f);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_media_size size = {.size = sizeof size};
    ksllm_error e;
    ksllm_sound s = {NULL, 320};
    CHECK_EQ(ksllm_media_measure_sound(m, &s, &size, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "321") != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s.n_samples = cases[i].samples;
        CHECK_OK(ksllm_media_measure_sound(m, &s, &size, &e), e);
        CHECK_EQ(size.n_tokens, cases[i].tokens);
        CHECK_EQ(size.n_tiles, cases[i].chunks);
    }
    CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
    CHECK_EQ(info.sound_tokens, EA_CHUNK_ROWS);
    CHECK_EQ(info.sound_place, EA_CHUNK_PLACE);
    float *samples = sound(1, 48000);
    ksllm_encoder *x = media_encoder(m, 2);
    ksllm_media whole = encode(x, m, &(ksllm_sound){samples, 48000});
    for (int i = 0; i < 3; i++) {
        ksllm_media one =
            encode(x, m, &(ksllm_sound){samples + 16000 * i, 16000});
        size_t n = (size_t)one.n_tokens * one.n_embd;
        CHECK(!memcmp(whole.rows + (size_t)i * n, one.rows, 4 * n));
        free(one.memory);
    }
    free(whole.memory);
    free(samples);
    ksllm_encoder_free(x);
    ksllm_model_close(m);
    free(f.data);
}

/* The length of a sound as Python writes f"{n / 16000:.2f}s", where the template
 * left a place for it, and nowhere else. */
TEST(templates_say_how_long_a_sound_is)
{
    static const struct { size_t samples; const char *want; } cases[] = {
        {20000, "1.25"}, {8080, "0.51"}, {16080, "1.00"}, {8240, "0.52"},
        {400, "0.03"}};
    static const char mark[] = "<|audio_meta_duration|>";
    fx_file f;
    ksllm_model *m = open_ear(KSLLM_TYPE_F32, true, &f);
    float *samples = sound(1, 20000);
    ksllm_error e;
    ksllm_chat chat;
    ksllm_chat_init(&chat);
    chat.messages.data = "[{\"role\": \"user\", \"content\": "
                         "\"<|audio_meta_duration|>\"}]";
    chat.template_text = (ksllm_text){
        "<|audio_meta_duration|> {{ messages[0].content }} "
        "<|audio_duration|>{{ '<|audio_meta_duration|>' }}", KSLLM_NUL};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ksllm_sound one = {samples, cases[i].samples}, two = {samples, 16000};
        ksllm_media x = room(m, &one), y = room(m, &two);
        const ksllm_media *media[] = {&x, &y};
        char text[200] = "", want[200];
        CHECK_OK(ksllm_media_name_sound(m, &one, &x, &e), e);
        CHECK_OK(ksllm_media_name_sound(m, &two, &y, &e), e);
        CHECK_EQ(x.n_samples, cases[i].samples);
        chat.media = media;
        for (chat.n_media = 0; chat.n_media <= 2; chat.n_media++) {
            const size_t n = chat.n_media;
            snprintf(want, sizeof want, "%s%s %s %s%s",
                     n > 0 ? cases[i].want : mark, n > 0 ? "s" : "", mark,
                     n > 1 ? "\"1.00s\"" : "<|audio_duration|>", mark);
            memset(text, 0, sizeof text);
            int64_t k = ksllm_chat_render(m, &chat, text, sizeof text, &e);
            CHECK_OK(k, e);
            CHECK_STR(text, want);
        }
        /* of a program that knows no n_samples */
        x.size = offsetof(ksllm_media, n_samples);
        chat.n_media = 1;
        CHECK_EQ(ksllm_chat_render(m, &chat, text, sizeof text, &e),
                 3 * strlen(mark) + strlen("<|audio_duration|>") + 2);
        x.size = sizeof x;
        fx_alloc a;
        fx_alloc_init(&a);
        chat.allocator = &a.allocator;
        int64_t length = ksllm_chat_render(m, &chat, NULL, 0, &e);
        for (long at = 1, calls = a.calls; at <= calls; at++) {
            fx_alloc_init(&a);
            a.fail_at = at;
            int64_t k = ksllm_chat_render(m, &chat, NULL, 0, &e);
            CHECK_EQ(k, a.failed ? KSLLM_ERR_MEMORY : length);
            CHECK_EQ(a.live, 0);
        }
        chat.allocator = NULL;
        free(x.memory);
        free(y.memory);
    }
    free(samples);
    ksllm_model_close(m);
    free(f.data);
}

/* A call that ends before all of it was looked at leaves no names. */
TEST(names_stop_too)
{
    enum { SIDE = 4000, N = 1 << 24 };
    fx_spec spec = tw_spec(KSLLM_TYPE_F32, true);
    fx_file f = fx_model(&spec), g;
    ksllm_model *m = media_open(&f, NULL),
                *ear = open_ear(KSLLM_TYPE_F32, true, &g);
    uint8_t *zeros = calloc(N, sizeof(float));
    const ksllm_image p = {zeros, SIDE, SIDE, 0};
    const ksllm_sound s = {(const float *)(void *)zeros, N};
    ksllm_media_size size = {.size = sizeof size};
    ksllm_encoder *x = media_encoder(m, 1), *y = media_encoder(ear, 1);
    ksllm_control c;
    ksllm_error e;
    CHECK_OK(ksllm_media_measure(m, &p, NULL, &size, &e), e);
    ksllm_media a = {.size = sizeof a, .memory = fx_memory(NULL, size.memory),
                     .memory_size = size.memory};
    ksllm_media b = room(ear, &s);
    ksllm_control_init(&c);
    c.budget_us = 1;
    CHECK_OK(ksllm_media_name(m, &p, NULL, &a, &e), e);
    CHECK_OK(ksllm_media_name_sound(ear, &s, &b, &e), e);
    CHECK(a.n_tokens && b.n_tokens);
    CHECK_EQ(ksllm_media_encode(x, &p, NULL, &c, &a, &e), KSLLM_ERR_DEADLINE);
    CHECK(strstr(e.text, "bytes looked at") != NULL);
    CHECK_EQ(ksllm_media_encode_sound(y, &s, &c, &b, &e), KSLLM_ERR_DEADLINE);
    CHECK(strstr(e.text, "bytes looked at") != NULL);
    CHECK(!a.n_tokens && !a.tokens && !a.rows);
    CHECK(!b.n_tokens && !b.tokens && !b.rows);
    free(a.memory);
    free(b.memory);
    free(zeros);
    ksllm_encoder_free(x);
    ksllm_encoder_free(y);
    ksllm_model_close(m);
    ksllm_model_close(ear);
    free(f.data);
    free(g.data);
}

/* One encoder for both, in any order; a place takes media of its kind. */
TEST(a_model_that_sees_and_hears)
{
    fx_spec spec = ea_spec(KSLLM_TYPE_Q8_0, true), sees = tw_spec(
        KSLLM_TYPE_Q8_0, false), hears = ea_spec(KSLLM_TYPE_Q8_0, true);
    spec.more = ea_both;
    fx_file f = fx_model(&spec), fs = fx_model(&sees), fh = fx_model(&hears);
    ksllm_model *m = media_open(&f, NULL), *eye = media_open(&fs, NULL),
                *ear = media_open(&fh, NULL);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error e;
    CHECK_OK(ksllm_model_get_info(m, &info, &e), e);
    CHECK_EQ(info.picture_place, TW_PLACE);
    CHECK_EQ(info.sound_place, EA_CHUNK_PLACE);
    CHECK(info.picture_tokens > 0 && info.sound_tokens == EA_CHUNK_ROWS);
    float *samples = sound(1, SAMPLES);
    const ksllm_sound s = {samples, SAMPLES};
    const ksllm_image p = tw_picture(70, 50, 3);
    ksllm_media_size size = {.size = sizeof size};
    CHECK_OK(ksllm_media_measure(m, &p, NULL, &size, &e), e);
    ksllm_media a = {.size = sizeof a, .memory = fx_memory(NULL, size.memory),
                     .memory_size = size.memory}, a2 = a;
    a2.memory = fx_memory(NULL, size.memory);
    ksllm_encoder *x = media_encoder(m, 2), *xe = media_encoder(eye, 1),
                  *xh = media_encoder(ear, 1);
    CHECK_OK(ksllm_media_encode(xe, &p, NULL, NULL, &a2, &e), e);
    ksllm_media b = encode(xh, ear, &s);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(ksllm_media_encode(x, &p, NULL, NULL, &a, &e), e);
        CHECK_HEX(media_hash(&a), media_hash(&a2));
        ksllm_media c = encode(x, m, &s);
        CHECK_HEX(media_hash(&c), media_hash(&b));
        CHECK(!memcmp(c.hash, b.hash, sizeof c.hash));
        const ksllm_media *list[2] = {&a, &c}, *wrong[2] = {&c, &a};
        const int32_t ids[4] = {1, TW_PLACE, EA_CHUNK_PLACE, 2};
        int64_t n = 2 + a.n_tokens + c.n_tokens;
        CHECK_EQ(ksllm_media_expand(m, ids, 4, list, 2, NULL, 0, &e), n);
        CHECK_EQ(ksllm_media_expand(m, ids, 4, wrong, 2, NULL, 0, &e),
                 KSLLM_ERR_ARGUMENT);
        CHECK(strstr(e.text, "media 0 is a sound") != NULL);
        CHECK_EQ(ksllm_media_expand(m, ids, 3, list, 1, NULL, 0, &e),
                 KSLLM_ERR_ARGUMENT);
        CHECK(strstr(e.text, "pictures and sounds") != NULL);
        free(c.memory);
    }
    free(a.memory);
    free(a2.memory);
    free(b.memory);
    free(samples);
    free((void *)(uintptr_t)p.rgb);
    ksllm_encoder_free(x);
    ksllm_encoder_free(xe);
    ksllm_encoder_free(xh);
    ksllm_model_close(m);
    ksllm_model_close(eye);
    ksllm_model_close(ear);
    free(f.data);
    free(fs.data);
    free(fh.data);
}

/* The ear is of a wider model than the eye. */
static void both_wide(fx_build *b)
{
    const fx_spec *own = b->spec;
    fx_spec wide = *own;
    wide.n_embd = 96;
    tw_whole(b);
    b->spec = &wide;
    ea_chunks(b);
    b->spec = own;
}

TEST(each_tower_of_a_second_file_is_the_models)
{
    fx_spec spec = ea_spec(KSLLM_TYPE_F32, true), text = spec;
    text.more = NULL;
    spec.more = both_wide;
    fx_file f = fx_model(&text), second = fx_second(&spec, NULL);
    ksllm_model *m = NULL;
    ksllm_model_options o;
    ksllm_error e;
    ksllm_model_options_init(&o);
    o.media_data = second.data;
    o.media_size = second.size;
    CHECK_EQ(ksllm_model_open_memory(f.data, f.size, &o, &m, &e),
             KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "rows have 96 values") != NULL);
    CHECK(!m);
    free(f.data);
    free(second.data);
}

TEST_MAIN
