/* test_media.c - pictures and sounds before a tower gets them, against Pillow
 * and transformers' processors: reference/make_media.py wrote data/media.txt
 * and data/sound.bin.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "picture.h"
#include "sound.h"
#include "test.h"

#define FIXTURE "tests/data/media.txt"

enum { NEVER = 255 };

static u64 fnv(u64 h, const void *from, size_t n)
{
    const u8 *p = from;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

#define FNV 0xcbf29ce484222325u

/* Into a part of a canvas. The scratch ends where nothing may be written, and
 * rows are asked for from `first` on. */
static void resize_part(const u8 *rgb, u32 w, u32 h, u32 to_w, u32 to_h,
                        med_filter filter, u32 first, u8 *out, size_t stride)
{
    u64 size = med_resize_memory(w, h, to_w, to_h, filter);
    u8 *scratch = malloc(size + 8);
    med_resizer r;
    memset(scratch + size, NEVER, 8);
    med_resize_begin(&r, rgb, 3 * (size_t)w, w, h, to_w, to_h, filter,
                     scratch);
    for (u32 y = first; y < to_h; y++)
        med_resize_row(&r, y, out + y * stride);
    for (int i = 0; i < 8; i++)
        CHECK_EQ(scratch[size + (size_t)i], NEVER);
    free(scratch);
}

static u8 *resized(const u8 *rgb, u32 w, u32 h, u32 to_w, u32 to_h,
                   med_filter filter)
{
    u8 *out = calloc((size_t)to_w * to_h, 3);
    resize_part(rgb, w, h, to_w, to_h, filter, 0, out, 3 * (size_t)to_w);
    return out;
}

/* The next line of the fixture that begins with this word. */
static bool line_of(FILE *f, const char *word, char line[160])
{
    size_t n = strlen(word);
    while (fgets(line, 160, f))
        if (!strncmp(line, word, n) && line[n] == ' ')
            return memmove(line, line + n, strlen(line + n) + 1);
    return false;
}

static FILE *fixture(void)
{
    FILE *f = fopen(FIXTURE, "r");
    CHECK(f);
    return f;
}

TEST(media_resize_is_pillows)
{
    FILE *f = fixture();
    char line[160];
    u32 n = 0, k, w, h, tw, th, seed;
    u64 hash;
    for (; f && line_of(f, "resize", line); n++) {
        if (!CHECK_EQ(sscanf(line, "%u %u %u %u %u %u %" SCNx64, &k, &w, &h,
                             &tw, &th, &seed, &hash), 7))
            break;
        u8 *p = picture(w, h, seed);
        size_t row = 3 * (size_t)tw;
        u8 *out = resized(p, w, h, tw, th, (med_filter)k);
        if (!CHECK_HEX(fnv(FNV, out, row * th), hash))
            printf("%u x %u to %u x %u\n", w, h, tw, th);
        /* a band alone is the same */
        u8 *band = calloc(row, th);
        u32 first = th / 2;
        resize_part(p, w, h, tw, th, (med_filter)k, first, band, row);
        CHECK(!memcmp(out + first * row, band + first * row,
                      (th - first) * row));
        free(band);
        free(out);
        free(p);
    }
    CHECK_EQ(n, 60);
    if (f)
        fclose(f);
}

/* What stands outside the picture is not read. */
TEST(media_resize_reads_by_its_stride)
{
    enum { W = 20, H = 10, STRIDE = 77 };
    u8 *p = picture(W, H, 1), wide[H * STRIDE];
    memset(wide, 99, sizeof wide);
    for (u32 y = 0; y < H; y++)
        memcpy(wide + y * STRIDE, p + y * W * 3, W * 3);
    u8 *want = resized(p, W, H, 9, 7, MED_BICUBIC), row[27];
    u8 *scratch = malloc(med_resize_memory(W, H, 9, 7, MED_BICUBIC));
    med_resizer r;
    med_resize_begin(&r, wide, STRIDE, W, H, 9, 7, MED_BICUBIC, scratch);
    for (u32 y = 0; y < 7; y++) {
        med_resize_row(&r, y, row);
        CHECK(!memcmp(row, want + 27 * y, 27));
    }
    free(scratch);
    free(want);
    free(p);
}

enum { PINS = 36 };

static void pinpoints(u32 (*list)[2], u32 n, u32 tile)
{
    for (u32 i = 0; i < n * n; i++) {
        list[i][0] = tile * (i / n + 1);
        list[i][1] = tile * (i % n + 1);
    }
}

TEST(media_sizes_are_those_of_transformers)
{
    FILE *f = fixture();
    char line[160];
    u32 n = 0, list[PINS][2], v[9];
    pinpoints(list, 6, 384);
    for (; f && line_of(f, "size", line); n++) {
        if (!CHECK_EQ(sscanf(line, "%u %u %u %u %u %u %u %u %u", v, v + 1,
                             v + 2, v + 3, v + 4, v + 5, v + 6, v + 7, v + 8),
                      9))
            break;
        u32 w = 0, h = 0;
        med_tiles t;
        bool ok = med_size_native(v[0], v[1], 28, 3136, 2073600, &w, &h);
        CHECK_EQ(ok, v[2] != 0);
        ok = !ok || (CHECK_EQ(h, v[2]) && CHECK_EQ(w, v[3]));
        med_size_tiles(v[0], v[1], (const u32 (*)[2])list, PINS, 384, 24, 9,
                       &t);
        ok &= CHECK_EQ(t.height, v[4]) && CHECK_EQ(t.width, v[5])
            && CHECK_EQ(t.h, v[6]) && CHECK_EQ(t.w, v[7])
            && CHECK_EQ(576 + t.out_rows * (t.out_cols + 1), v[8]);
        if (!ok)
            printf("%u x %u\n", v[0], v[1]);
    }
    CHECK_EQ(n, 2000);
    if (f)
        fclose(f);
}

/* Sides at the limit, and the least: nothing overflows. */
TEST(media_sizes_at_the_limits)
{
    u32 list[PINS][2], w, h;
    med_tiles t;
    pinpoints(list, 6, 384);
    for (u32 i = 0; i < 9; i++) {
        static const u32 side[] = {1, 400, MED_MAX_SIDE};
        u32 a = side[i % 3], b = side[i / 3];
        med_size_tiles(a, b, (const u32 (*)[2])list, PINS, 384, 24, 9, &t);
        CHECK(t.y + t.h <= t.height && t.x + t.w <= t.width);
        CHECK(t.h && t.w);
        CHECK(t.kept_rows <= t.rows && t.kept_cols <= t.cols);
        CHECK(t.out_rows <= t.kept_rows && t.out_cols <= t.kept_cols);
        if (med_size_native(a, b, 28, 3136, 2073600, &w, &h))
            CHECK(w % 28 == 0 && h % 28 == 0 && (u64)w * h <= 2073600);
        else
            CHECK((u64)max_u32(a, b) > 200 * (u64)min_u32(a, b));
    }
    CHECK(!med_size_native(5, 5, 28, 0, 100, &w, &h));
    CHECK(!med_size_native(1, 1, 28, UINT64_MAX, UINT64_MAX, &w, &h));
}

/* ---- pixel_values ---- */

static const f32 CLIP_MEAN[] = {0.48145466f, 0.4578275f, 0.40821073f};
static const f32 CLIP_STD[] = {0.26862954f, 0.26130258f, 0.27577711f};
static const f32 HALVES[] = {0.5f, 0.5f, 0.5f};

typedef struct {
    u64 hash, n;
} values;

static void add_patch(values *v, const u8 *p, size_t stride, u32 side,
                      u32 times, const f32 t[3][256])
{
    size_t n = 3 * (size_t)side * side * times;
    f32 *x = malloc(n * sizeof *x);
    med_patch(x, p, stride, side, times, t);
    v->hash = fnv(v->hash, x, n * sizeof *x);
    v->n += n;
    free(x);
}

static values native_values(const u8 *rgb, u32 w, u32 h)
{
    values v = {FNV, 0};
    f32 t[3][256];
    u32 tw, th, row, col;
    med_table(t, CLIP_MEAN, CLIP_STD);
    if (!CHECK(med_size_native(w, h, 8, 256, 6400, &tw, &th)))
        return v;
    u8 *p = resized(rgb, w, h, tw, th, MED_BICUBIC);
    for (u32 i = 0; i < tw / 4 * (th / 4); i++) {
        med_patch_at(i, tw / 4, 2, &row, &col);
        add_patch(&v, p + (row * 4 * tw + col * 4) * 3, 3 * (size_t)tw, 4, 2,
                  (const f32 (*)[256])t);
    }
    free(p);
    return v;
}

static values tile_values(const u8 *rgb, u32 w, u32 h)
{
    values v = {FNV, 0};
    f32 t[3][256];
    u32 list[9][2];
    med_tiles m;
    med_table(t, HALVES, HALVES);
    pinpoints(list, 3, 32);
    med_size_tiles(w, h, (const u32 (*)[2])list, 9, 32, 4, 9, &m);
    u8 *whole = resized(rgb, w, h, 32, 32, MED_BICUBIC);
    add_patch(&v, whole, 96, 32, 1, (const f32 (*)[256])t);
    size_t stride = 3 * (size_t)m.width;
    u8 *canvas = calloc(m.height, stride);
    resize_part(rgb, w, h, m.w, m.h, MED_BICUBIC, 0,
                canvas + m.y * stride + m.x * 3, stride);
    for (u32 y = 0; y < m.height; y += 32)
        for (u32 x = 0; x < m.width; x += 32)
            add_patch(&v, canvas + y * stride + x * 3, stride, 32, 1,
                      (const f32 (*)[256])t);
    free(canvas);
    free(whole);
    return v;
}

/* One of several pictures: on a grey square. */
static values square_values(const u8 *rgb, u32 w, u32 h)
{
    values v = {FNV, 0};
    f32 t[3][256];
    u32 side = max_u32(w, h);
    u8 *p = malloc(3 * (size_t)side * side);
    memset(p, 127, 3 * (size_t)side * side);
    for (u32 y = 0; y < h; y++)
        memcpy(p + 3 * ((size_t)((side - h) / 2 + y) * side + (side - w) / 2),
               rgb + 3 * (size_t)y * w, 3 * (size_t)w);
    u8 *tile = resized(p, side, side, 32, 32, MED_BICUBIC);
    med_table(t, HALVES, HALVES);
    add_patch(&v, tile, 96, 32, 1, (const f32 (*)[256])t);
    free(tile);
    free(p);
    return v;
}

TEST(media_pixel_values_are_those_of_transformers)
{
    static const struct {
        const char *name;
        values (*of)(const u8 *, u32, u32);
        u32 many;
    } kinds[] = {{"native", native_values, 5}, {"tiles", tile_values, 6},
                 {"square", square_values, 6}};
    for (size_t k = 0; k < KS_LEN(kinds); k++) {
        FILE *f = fixture();
        char line[160];
        u32 n = 0, w, h, seed;
        u64 size, hash;
        for (; f && line_of(f, kinds[k].name, line); n++) {
            if (!CHECK_EQ(sscanf(line, "%u %u %u %" SCNu64 " %" SCNx64, &w,
                                 &h, &seed, &size, &hash), 5))
                break;
            u8 *p = picture(w, h, seed);
            values v = kinds[k].of(p, w, h);
            if (!CHECK_EQ(v.n, size) || !CHECK_HEX(v.hash, hash))
                printf("%s %u x %u\n", kinds[k].name, w, h);
            free(p);
        }
        CHECK_EQ(n, kinds[k].many);
        if (f)
            fclose(f);
    }
}

/* ---- sounds ---- */

enum { SECONDS_30 = 480000, FRAMES = 3000 };

static void level(f32 *x, size_t n)
{
    snd_level(x, n, snd_loudest(x, n, SND_QUIET));
}

/* All columns of 30 seconds. */
static f32 *bands_of(const snd_front *s, const f32 *x, size_t n)
{
    f32 *out = malloc(FRAMES * s->n_bands * sizeof *out);
    for (size_t i = 0; i < FRAMES; i++)
        snd_frame(s, x, min_size(n, SECONDS_30), SECONDS_30, i,
                  out + i * s->n_bands);
    level(out, FRAMES * (size_t)s->n_bands);
    return out;
}

static void check_sound(FILE *f, const u32 head[4], snd_front *s)
{
    u32 at[16];
    f32 mean, want[SND_MOST_BANDS];
    f64 sum = 0, most = 0;
    if (!CHECK(fread(&mean, 4, 1, f) == 1 && head[3] <= 16
               && fread(at, 4, head[3], f) == head[3]))
        return;
    snd_begin(s, head[2]);
    f32 *x = sound(head[0], head[1]);
    f32 *got = bands_of(s, x, head[1]);
    for (size_t i = 0; i < FRAMES * (size_t)head[2]; i++)
        sum += got[i];
    for (u32 k = 0; k < head[3]; k++) {
        CHECK(fread(want, 4, head[2], f) == head[2]);
        for (u32 m = 0; m < head[2]; m++) {
            f64 d = got[at[k] * head[2] + m] - want[m];
            most = d < 0 ? -d > most ? -d : most : d > most ? d : most;
        }
    }
    f64 off = sum / (FRAMES * head[2]) - mean;
    /* Values go from -1.5 to about 1.5. Measured: no bit differs. */
    if (!CHECK(most < 1e-6) || !CHECK(off < 1e-6 && off > -1e-6))
        printf("kind %u, %u samples: %g, mean %g\n", head[0], head[1], most,
               off);
    free(got);
    free(x);
}

TEST(media_sound_is_the_numpy_extractors)
{
    FILE *f = fopen("tests/data/sound.bin", "rb");
    static snd_front s;
    u32 head[4], n = 0;
    if (!CHECK(f != NULL))
        return;
    for (; fread(head, 4, 4, f) == 4; n++)
        check_sound(f, head, &s);
    CHECK_EQ(n, 9);
    fclose(f);
}

/* A frame's bits do not depend on what comes long after it; any number of bands
 * and any sample is taken. */
TEST(media_sound_of_any_kind)
{
    static snd_front s;
    f32 a[SND_MOST_BANDS], b[SND_MOST_BANDS], *x = sound(1, 5000);
    for (u32 n = 1; n <= SND_MOST_BANDS; n += n < 20 ? 1 : 59) {
        snd_begin(&s, n);
        snd_frame(&s, x, 5000, SECONDS_30, 9, a);
        snd_frame(&s, x, 1700, 1700, 9, b);
        CHECK(!memcmp(a, b, n * sizeof *a));
    }
    x[300] = INFINITY;
    x[301] = NAN;
    x[302] = -FLT_MAX;
    snd_begin(&s, 80);
    for (u32 i = 0; i < 4; i++)
        snd_frame(&s, x, 5000, SECONDS_30, i, a);
    level(a, 80);
    for (u32 i = 0; i < 80; i++)
        CHECK(a[i] > -10 && a[i] < 1000);
    free(x);
}

TEST_MAIN
