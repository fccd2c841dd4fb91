/* fuzz_hear.c - a model that hears from anywhere, and any sound.
 *
 * An input: the file, then 8 bytes: samples (of 2 bytes) and their kind,
 * max_tokens (2), how the samples are changed (2), options of the call. What
 * opens gives each sound the tokens and the memory that were measured, and the
 * same bits whatever the threads; no call on an encoder allocates.
 */
#define TW_MINI
#define EA_MINI
#include "ear.h"
#include "fuzz.h"
#include "media.h"

enum { TAIL = 8 };

static fx_alloc memory;

/* The rows' sum; 0: the encoder or the sound is refused. */
static uint64_t listen(const ksllm_model *m, const ksllm_sound *s,
                       const ksllm_media_size *size, uint32_t max_tokens,
                       uint32_t n_threads)
{
    ksllm_encoder_options eo;
    ksllm_encoder *x = NULL;
    ksllm_error e;
    size_t bytes;
    ksllm_encoder_options_init(&eo);
    eo.n_threads = n_threads;
    eo.max_tokens = max_tokens;
    if (ksllm_encoder_memory(m, &eo, &bytes, &e) || bytes > 1 << 26
        || ksllm_encoder_create(m, &eo, &x, &e))
        return 0;
    uint8_t *room = fuzz_room(size->memory);
    ksllm_media media = {.size = sizeof media, .memory = room,
                         .memory_size = size->memory};
    long calls = memory.calls;
    ksllm_status status =
        ksllm_media_encode_sound(x, s, NULL, &media, &e);
    MUST(memory.calls == calls, "a call on an encoder allocates");
    MUST(status == KSLLM_OK || status == KSLLM_ERR_ARGUMENT, "%s", e.text);
    uint64_t h = 0;
    if (status == KSLLM_OK) {
        MUST(media.n_tokens == size->n_tokens, "%u and %u",
             (unsigned)media.n_tokens, (unsigned)size->n_tokens);
        h = media_hash(&media);
    }
    fuzz_free(room, size->memory);
    ksllm_encoder_free(x);
    return h;
}

static void one(const uint8_t *data, size_t size)
{
    ksllm_model_options mo;
    ksllm_model *m = NULL;
    ksllm_media_size z = {.size = sizeof z};
    ksllm_error e;
    if (size < TAIL)
        return;
    size_t n = size - TAIL;
    const uint8_t *tail = data + n;
    uint8_t *copy = fuzz_copy(data, n);
    ksllm_model_options_init(&mo);
    fx_alloc_init(&memory);
    mo.allocator = &memory.allocator;
    memory.fail_at = tail[7] & 1 ? 1 + (tail[7] >> 1) : 0;
    ksllm_status status = ksllm_model_open_memory(copy, n, &mo, &m, &e);
    memory.fail_at = 0;
    MUST((status == KSLLM_OK) == (m != NULL), "%d", (int)status);
    uint32_t samples = 1 + tail[0] + 256u * (tail[1] & 63);
    uint32_t most = tail[3] | (uint32_t)tail[4] << 8;
    ksllm_sound s = {NULL, samples};
    if (m && !ksllm_media_measure_sound(m, &s, &z, &e)
        && z.memory < 1 << 26 && z.n_macs < 100000000) {
        float *x = sound(tail[2] & 3, samples);
        uint32_t bits = (uint32_t)tail[6] << 24 | (uint32_t)tail[5] << 16;
        if (tail[5])            /* any number, infinite ones too */
            memcpy(x + samples / 2, &bits, 4);
        float *edge = (float *)(void *)fuzz_copy((uint8_t *)x, 4 * samples);
        s.samples = edge;
        MUST(listen(m, &s, &z, most, 1) == listen(m, &s, &z, most, 2),
             "other bits");
        fuzz_free((uint8_t *)edge, 4 * samples);
        free(x);
    }
    ksllm_model_close(m);
    MUST(memory.live == 0 && !memory.wrong_size, "a leak");
    fuzz_free(copy, n);
}

static bool seed(size_t i, fx_bytes *out)
{
    static const uint8_t tails[6][TAIL] = {
        {30, 20, 1}, {60, 9, 2, 100}, {8, 60, 1, 200, 0}, {99, 1, 3, 2},
        {1, 30, 1, 0, 0, 0x80, 0x7f}, {7, 40, 0, 0, 0, 3, 0, 33}};
    if (i >= 16)                /* the last four see, too */
        return false;
    fx_spec s = fx_mini;
    s.more = i >= 12 ? ea_both : i % 2 ? ea_chunks : ea_more;
    if (i % 3 == 2)
        s.type = KSLLM_TYPE_F32;
    fx_file f = fx_model(&s);
    fx_put(out, f.data, f.size);
    fx_put(out, tails[i / 2 % 6], TAIL);
    free(f.data);
    return true;
}

static const char *const words[] = {
    "clip.has_audio_encoder", "clip.has_vision_encoder", "clip.projector_type",
    "clip.audio.projector_type", "qwen3a", "hcx_qwen2a",
    "clip.audio.block_count", "a.conv1d.1.weight", "a.conv1d.2.bias",
    "clip.audio.embedding_length", "clip.audio.feed_forward_length",
    "clip.audio.attention.head_count", "clip.audio.attention.head_count_kv",
    "clip.audio.num_mel_bins", "clip.audio.n_window",
    "clip.audio.n_window_infer", "clip.audio.chunk_length",
    "clip.audio.min_samples", "clip.audio.audio_token_id",
    "clip.audio.attention.layer_norm_epsilon", "a.blk.0.ln1.weight",
    "a.conv2d.1.weight", "a.conv2d.2.bias", "a.conv_out.weight",
    "a.position_embd.weight", "mm.2.weight", "a.post_ln.weight",
    "mm.a.mlp.1.weight",
    "\1\0\0\0\0\0\0\0", NULL};

static const fuzz_target fuzz = {"fuzz_hear", one, seed, NULL, words, 1 << 20};
FUZZ_MAIN
