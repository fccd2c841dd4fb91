/* tower.h - a tiny model that sees: the fixture "qwen3" with a SigLIP tower
 * whose tiles are 4 x 4 patches of 8 pixels, heads of 24, grids of up to 3 x 3
 * tiles of which 2 keep their map as it is. */
#ifndef KSLLM_TEST_TOWER_H
#define KSLLM_TEST_TOWER_H

#include "fixture.h"

enum { TW_WIDTH = 96, TW_FFN = 160, TW_MID = 64, TW_SIDE = 32, TW_PATCH = 8,
       TW_HEADS = 4, TW_LAYERS = 2, TW_PLACE = FX_END };

static inline void tw_floats(fx_gguf *g, const char *key, float x)
{
    fx_kv_array(g, key, KSLLM_META_F32, 3);
    for (int i = 0; i < 3; i++)
        fx_f32(&g->kv, x);
}

static inline void tw_keys(fx_gguf *g)
{
    static const struct { const char *key; uint32_t v; } u32[] = {
        {"clip.vision.block_count", TW_LAYERS},
        {"clip.vision.embedding_length", TW_WIDTH},
        {"clip.vision.feed_forward_length", TW_FFN},
        {"clip.vision.attention.head_count", TW_HEADS},
        {"clip.vision.patch_size", TW_PATCH},
        {"clip.vision.image_size", TW_SIDE},
        {"clip.vision.image_token_id", TW_PLACE},
        {"clip.vision.anyres_max", 2}};
    fx_kv_bool(g, "clip.has_vision_encoder", true);
    fx_kv_text(g, "clip.projector_type", "mlp");
    fx_kv_text(g, "clip.vision.mm_patch_merge_type", "spatial_unpad");
    for (size_t i = 0; i < sizeof u32 / sizeof *u32; i++)
        fx_kv_u32(g, u32[i].key, u32[i].v);
    fx_kv_f32(g, "clip.vision.attention.layer_norm_epsilon", 1e-6f);
    tw_floats(g, "clip.vision.image_mean", 0.5f);
    tw_floats(g, "clip.vision.image_std", 0.5f);
    fx_kv_array(g, "clip.vision.image_grid_pinpoints", KSLLM_META_I32, 18);
    for (uint32_t i = 0; i < 9; i++) {
        fx_int(&g->kv, TW_SIDE * (1 + i / 3), 4);
        fx_int(&g->kv, TW_SIDE * (1 + i % 3), 4);
    }
}

static inline void tw_layer(fx_build *b, uint32_t layer)
{
    static const struct { const char *name; uint32_t in, out; } mats[] = {
        {"attn_q", TW_WIDTH, TW_WIDTH}, {"attn_k", TW_WIDTH, TW_WIDTH},
        {"attn_v", TW_WIDTH, TW_WIDTH}, {"attn_out", TW_WIDTH, TW_WIDTH},
        {"ffn_up", TW_WIDTH, TW_FFN}, {"ffn_down", TW_FFN, TW_WIDTH}};
    char name[64];
#define TW_NAME(x, y) \
    (snprintf(name, sizeof name, "v.blk.%u.%s." y, (unsigned)layer, x), name)
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++) {
        fx_matrix(b, TW_NAME(mats[i].name, "weight"), mats[i].in, mats[i].out);
        fx_vector(b, TW_NAME(mats[i].name, "bias"), mats[i].out, 0);
    }
    fx_vector(b, TW_NAME("ln1", "weight"), TW_WIDTH, 1);
    fx_vector(b, TW_NAME("ln1", "bias"), TW_WIDTH, 0);
    fx_vector(b, TW_NAME("ln2", "weight"), TW_WIDTH, 1);
    fx_vector(b, TW_NAME("ln2", "bias"), TW_WIDTH, 0);
#undef TW_NAME
}

static inline void tw_more(fx_build *b)
{
    fx_gguf *g = &b->part[0];
    const uint64_t dims[4] = {TW_PATCH, TW_PATCH, 3, TW_WIDTH};
    const size_t n = TW_PATCH * TW_PATCH * 3 * TW_WIDTH;
    uint64_t rng = 5;
    tw_keys(g);
    fx_tensor_raw(g, "v.patch_embd.weight", 4, dims, KSLLM_TYPE_F32,
                  g->data.size);
    fx_fill(fx_grow(&g->data, 4 * n), fx_type_of(KSLLM_TYPE_F32), n, &rng);
    fx_vector(b, "v.patch_embd.bias", TW_WIDTH, 0);
    fx_matrix(b, "v.position_embd.weight", TW_WIDTH,
              TW_SIDE / TW_PATCH * (TW_SIDE / TW_PATCH));
    for (uint32_t i = 0; i < TW_LAYERS; i++)
        tw_layer(b, i);
    fx_matrix(b, "mm.0.weight", TW_WIDTH, TW_MID);
    fx_vector(b, "mm.0.bias", TW_MID, 0);
    fx_matrix(b, "mm.2.weight", TW_MID, b->spec->n_embd);
    fx_vector(b, "mm.2.bias", b->spec->n_embd, 0);
    fx_vector(b, "v.image_newline", b->spec->n_embd, 0);
}

static inline fx_spec tw_spec(ksllm_type type)
{
    fx_spec s = *fx_spec_of("qwen3");
    s.type = type;
    s.more = tw_more;
    return s;
}

/* A picture with soft and hard edges, the same bytes everywhere. */
static inline ksllm_image tw_picture(uint32_t w, uint32_t h, uint64_t seed)
{
    uint8_t *rgb = fx_memory(NULL, (size_t)w * h * 3);
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++)
            for (uint32_t c = 0; c < 3; c++)
                rgb[((size_t)y * w + x) * 3 + c] = (uint8_t)(
                    (x / 9 + y / 7) % 2 ? 3 * x + (1 + c) * y
                                        : fx_next(&seed) >> 56);
    return (ksllm_image){.rgb = rgb, .width = w, .height = h};
}

#endif
