/* fuzz_see.c - a model that sees from anywhere, and any picture.
 *
 * An input: the file, or a file of towers beside a sound model, then 8 bytes:
 * width and height, max_tokens, max_tiles, options of the call. What opens gives
 * each picture the tokens and the memory that were measured, and the same bits
 * whatever the threads; no call on an encoder allocates.
 */
#define TW_MINI
#define EA_MINI
#include "ear.h"
#include "fuzz.h"
#include "media.h"

/* Few operations: with every access checked, 100 million took 20 s. */
enum { TAIL = 8, MACS = 4000000 };

static fx_alloc memory;

static uint64_t look(const ksllm_model *m, const ksllm_image *p,
                     const ksllm_media_options *o,
                     const ksllm_media_size *size, uint32_t n_threads)
{
    ksllm_encoder_options eo;
    ksllm_encoder *x = NULL;
    ksllm_error e;
    size_t bytes;
    uint64_t h = 0;
    ksllm_encoder_options_init(&eo);
    eo.n_threads = n_threads;
    eo.max_tokens = size->n_tokens;
    if (ksllm_encoder_memory(m, &eo, &bytes, &e) || bytes > 1 << 26)
        return 0;
    if (ksllm_encoder_create(m, &eo, &x, &e))
        return 0;
    uint8_t *room = fuzz_room(size->memory);
    ksllm_media media = {.size = sizeof media, .memory = room,
                         .memory_size = size->memory};
    long calls = memory.calls;
    ksllm_status status = ksllm_media_encode(x, p, o, NULL, &media, &e);
    MUST(status == KSLLM_OK, "%s", e.text);
    MUST(memory.calls == calls, "a call on an encoder allocates");
    MUST(media.n_tokens == size->n_tokens, "%u and %u",
         (unsigned)media.n_tokens, (unsigned)size->n_tokens);
    h = media_hash(&media);
    fuzz_free(room, size->memory);
    ksllm_encoder_free(x);
    return h;
}

static void one(const uint8_t *data, size_t size)
{
    ksllm_model_options mo;
    ksllm_model *m = NULL;
    ksllm_media_options o;
    ksllm_media_size z = {.size = sizeof z};
    ksllm_error e;
    if (size < TAIL)
        return;
    size_t n = size - TAIL;
    const uint8_t *tail = data + n;
    uint8_t *copy = fuzz_copy(data, n);
    ksllm_model_options_init(&mo);
    ksllm_media_options_init(&o);
    fx_alloc_init(&memory);
    mo.allocator = &memory.allocator;
    memory.fail_at = tail[7] & 1 ? 1 + (tail[7] >> 1) : 0;
    const bool second = tail[6] & 2;
    static fx_file text;
    if (!text.data)
        text = fx_model(&fx_mini);
    if (second && n)
        mo.media_data = copy, mo.media_size = n;
    ksllm_status status = ksllm_model_open_memory(second ? text.data : copy,
        second ? text.size : n, &mo, &m, &e);
    memory.fail_at = 0;
    MUST((status == KSLLM_OK) == (m != NULL), "%d", (int)status);
    uint32_t w = 1u + tail[0] % 100, h = 1u + tail[1] % 100;
    if (tail[6] & 1)            /* as large as it may be; nothing is computed */
        w = 1 + (uint32_t)tail[0] * 257, h = 1 + (uint32_t)tail[1] * 257;
    o.max_tokens = tail[2] | (uint32_t)tail[3] << 8;
    o.max_tiles = tail[4];
    ksllm_image p = {.width = w, .height = h};
    if (m && !ksllm_media_measure(m, &p, &o, &z, &e)) {
        MUST(!o.max_tokens || z.n_tokens <= o.max_tokens, "%u of %u",
             (unsigned)z.n_tokens, (unsigned)o.max_tokens);
        if (!(tail[6] & 1) && z.memory < 1 << 26 && z.n_macs < MACS) {
            ksllm_image made = tw_picture(w, h, tail[5]);
            MUST(look(m, &made, &o, &z, 1) == look(m, &made, &o, &z, 2),
                 "other bits");
            free((void *)(uintptr_t)made.rgb);
        }
    }
    ksllm_model_close(m);
    MUST(memory.live == 0 && !memory.wrong_size, "a leak");
    fuzz_free(copy, n);
}

static bool seed(size_t i, fx_bytes *out)
{
    static const uint8_t tails[6][TAIL] = {
        {30, 20}, {60, 9, 0, 0, 1}, {8, 8, 12, 0}, {99, 99, 0, 0, 4, 1},
        {200, 100, 0, 0, 0, 0, 1}, {7, 40, 0, 0, 0, 3, 0, 33}};
    static void (*const more[TW_KINDS + 1])(fx_build *) = {
        tw_whole, tw_tiles, tw_cells, ea_both};
    if (i >= 42)                /* the last six see and hear */
        return false;
    fx_spec s = fx_mini;
    const bool second = i >= 18 && i < 39;
    s.more = more[i < 36 ? i % TW_KINDS : TW_KINDS];
    if (i % 4 == 3)
        s.type = KSLLM_TYPE_F32;
    tw_fuses = i % 4 > 1;
    fx_file f = second ? fx_second(&s, i > 24 ? "llama" : NULL) : fx_model(&s);
    fx_put(out, f.data, f.size);
    fx_put(out, tails[i % 18 / 3], TAIL);
    if (second)
        out->data[out->size - 2] |= 2;
    free(f.data);
    return true;
}

static const char *const words[] = {
    "clip.has_vision_encoder", "clip.projector_type", "mlp", "hcx_qwen2.5vl",
    "general.architecture", "clip", "clip.text_architecture",
    "v.blk.0.attn_qkv.weight", "v.blk.0.attn_qkv.bias",
    "exaone4_5", "cabstractor", "clip.vision.mm.num_queries",
    "clip.vision.pad_to_square", "mm.pos_emb", "mm.readout.0.weight",
    "mm.net.0.b1.conv2.conv.weight", "mm.net.2.b3.se.fc1.weight",
    "clip.vision.block_count", "clip.vision.embedding_length",
    "clip.vision.feed_forward_length", "clip.vision.attention.head_count",
    "clip.vision.attention.head_count_kv", "clip.vision.patch_size",
    "clip.vision.image_size", "clip.vision.anyres_max",
    "clip.vision.image_token_id", "clip.vision.spatial_merge_size",
    "clip.vision.window_size", "clip.vision.n_wa_pattern",
    "clip.vision.image_min_pixels", "clip.vision.image_max_pixels",
    "clip.vision.image_grid_pinpoints", "clip.vision.resample", "bilinear",
    "clip.vision.image_mean", "clip.vision.image_std", "v.blk.0.ln1.weight",
    "v.patch_embd.weight", "mm.0.weight", "mm.model.fc.weight",
    "model.image_newline", "v.post_ln.weight",
    "clip.has_audio_encoder", "clip.audio.projector_type", "mm.a.mlp.2.weight",
    "clip.audio.num_mel_bins", "\1\0\0\0\0\0\0\0",
    "\0\0\x80\x7f", "\0\0\xc0\x7f", NULL
};

static const fuzz_target fuzz = {"fuzz_see", one, seed, NULL, words, 1 << 17};
FUZZ_MAIN
