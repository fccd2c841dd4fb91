/* ear.h - tiny models that hear: the fixture "qwen3" with a tower.
 *
 *     ea_more     Qwen3-ASR's: stretches of 20 frames give 3 rows each, and a
 *                 row sees 6
 *     ea_chunks   HyperCLOVA X Omni's: a second at once gives 25 rows
 *     ea_both     that beside a tower that sees, "whole" of tower.h
 */
#ifndef KSLLM_TEST_EAR_H
#define KSLLM_TEST_EAR_H

#include "sound.h"
#include "tower.h"

#if defined EA_MINI     /* for a fuzzer */
enum { EA_WIDTH = 32, EA_FFN = 32, EA_MID = 32, EA_HEADS = 2, EA_LAYERS = 1,
       EA_CHANNELS = 8, EA_BANDS = 29, EA_PLACE = 5 };
#else
enum { EA_WIDTH = 96, EA_FFN = 160, EA_MID = 64, EA_HEADS = 4, EA_LAYERS = 2,
       EA_CHANNELS = 32, EA_BANDS = 20, EA_PLACE = FX_END };
#endif
enum { EA_HALF = 10, EA_ROWS = 3, EA_SEES = 40, EA_SECONDS = 3,
       EA_LEAST = 4000, EA_CHUNK = 1, EA_CHUNK_ROWS = 25,
       EA_CHUNK_PLACE = 6 };

static inline void ea_values(fx_build *b, const char *name, uint32_t n_dims,
                             const uint64_t *dims)
{
    size_t n = 1;
    fx_gguf *g = &b->part[0];
    uint64_t rng = name[9];
    for (uint32_t i = 0; i < n_dims; i++)
        n *= (size_t)dims[i];
    fx_tensor_raw(g, name, n_dims, dims, KSLLM_TYPE_F32, g->data.size);
    fx_fill(fx_grow(&g->data, 4 * n), fx_type_of(KSLLM_TYPE_F32), n, &rng);
}

static inline void ea_convolution(fx_build *b, const char *name, uint32_t in)
{
    const uint64_t dims[4] = {3, 3, in, EA_CHANNELS};
    char bias[32];
    snprintf(bias, sizeof bias, "%.10s.bias", name);
    ea_values(b, name, 4, dims);
    fx_vector(b, bias, EA_CHANNELS, 0);
}

static inline void ea_layer(fx_build *b, uint32_t layer, bool chunks)
{
    static const struct { const char *name; uint32_t in, out; } mats[] = {
        {"attn_q", EA_WIDTH, EA_WIDTH}, {"attn_k", EA_WIDTH, EA_WIDTH},
        {"attn_v", EA_WIDTH, EA_WIDTH}, {"attn_out", EA_WIDTH, EA_WIDTH},
        {"ffn_up", EA_WIDTH, EA_FFN}, {"ffn_down", EA_FFN, EA_WIDTH}};
    char name[64];
#define EA_NAME(x, y) \
    (snprintf(name, sizeof name, "a.blk.%u.%s." y, (unsigned)layer, x), name)
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++) {
        fx_matrix(b, EA_NAME(mats[i].name, "weight"), mats[i].in, mats[i].out);
        if (!chunks || i != 1)
            fx_vector(b, EA_NAME(mats[i].name, "bias"), mats[i].out, 0);
    }
    for (int i = 1; i < 3; i++) {
        fx_vector(b, EA_NAME(i == 1 ? "ln1" : "ln2", "weight"), EA_WIDTH, 1);
        fx_vector(b, EA_NAME(i == 1 ? "ln1" : "ln2", "bias"), EA_WIDTH, 0);
    }
#undef EA_NAME
}

typedef struct { const char *key; uint32_t v; } ea_key;

/* The first EA_BOTH are of both kinds. */
static const ea_key ea_keys[] = {
    {"clip.audio.block_count", EA_LAYERS},
    {"clip.audio.embedding_length", EA_WIDTH},
    {"clip.audio.feed_forward_length", EA_FFN},
    {"clip.audio.attention.head_count", EA_HEADS},
    {"clip.audio.num_mel_bins", EA_BANDS},
    {"clip.audio.chunk_length", EA_SECONDS},
    {"clip.audio.audio_token_id", EA_PLACE},
    {"clip.audio.n_window", EA_HALF}, {"clip.audio.n_window_infer", EA_SEES},
    {"clip.audio.min_samples", EA_LEAST}};
enum { EA_KEYS = sizeof ea_keys / sizeof *ea_keys, EA_BOTH = EA_KEYS - 3 };

static inline void ea_common(fx_build *b, bool chunks)
{
    const uint32_t embd = b->spec->n_embd;
    fx_gguf *g = &b->part[0];
    fx_kv_bool(g, "clip.has_audio_encoder", true);
    fx_kv_f32(g, "clip.audio.attention.layer_norm_epsilon", 1e-5f);
    for (uint32_t i = 0; i < EA_LAYERS; i++)
        ea_layer(b, i, chunks);
    fx_vector(b, "a.post_ln.weight", EA_WIDTH, 1);
    fx_vector(b, "a.post_ln.bias", EA_WIDTH, 0);
    fx_matrix(b, "mm.a.mlp.1.weight", EA_WIDTH, EA_MID);
    fx_vector(b, "mm.a.mlp.1.bias", EA_MID, 0);
    fx_matrix(b, "mm.a.mlp.2.weight", EA_MID, embd);
    fx_vector(b, "mm.a.mlp.2.bias", embd, 0);
}

static inline void ea_more(fx_build *b)
{
    fx_gguf *g = &b->part[0];
    fx_kv_text(g, "clip.projector_type", "qwen3a");
    for (size_t i = 0; i < EA_KEYS; i++)
        fx_kv_u32(g, ea_keys[i].key, ea_keys[i].v);
    ea_convolution(b, "a.conv2d.1.weight", 1);
    ea_convolution(b, "a.conv2d.2.weight", EA_CHANNELS);
    ea_convolution(b, "a.conv2d.3.weight", EA_CHANNELS);
    fx_matrix(b, "a.conv_out.weight", EA_CHANNELS * ((EA_BANDS + 7) / 8),
              EA_WIDTH);
    fx_matrix(b, "a.position_embd.weight", EA_WIDTH, EA_ROWS);
    ea_common(b, false);
}

static inline void ea_chunks(fx_build *b)
{
    const uint64_t one[3] = {3, EA_BANDS, EA_WIDTH};
    const uint64_t two[3] = {3, EA_WIDTH, EA_WIDTH};
    fx_gguf *g = &b->part[0];
    fx_kv_text(g, "clip.audio.projector_type", "hcx_qwen2a");
    for (size_t i = 0; i < EA_BOTH - 2; i++)
        fx_kv_u32(g, ea_keys[i].key, ea_keys[i].v);
    fx_kv_u32(g, "clip.audio.chunk_length", EA_CHUNK);
    fx_kv_u32(g, "clip.audio.audio_token_id", EA_CHUNK_PLACE);
    ea_values(b, "a.conv1d.1.weight", 3, one);
    fx_vector(b, "a.conv1d.1.bias", EA_WIDTH, 0);
    ea_values(b, "a.conv1d.2.weight", 3, two);
    fx_vector(b, "a.conv1d.2.bias", EA_WIDTH, 0);
    fx_matrix(b, "a.position_embd.weight", EA_WIDTH, 2 * EA_CHUNK_ROWS);
    ea_common(b, true);
}

static inline void ea_both(fx_build *b)
{
    tw_whole(b);
    ea_chunks(b);
}

static inline fx_spec ea_spec(ksllm_type type, bool chunks)
{
    fx_spec s = *fx_spec_of("qwen3");
    s.type = type;
    s.more = chunks ? ea_chunks : ea_more;
    return s;
}

#endif
