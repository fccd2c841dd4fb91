/* tower.h - tiny models that see: the fixture "qwen3" with a tower.
 *
 *     tiles   SigLIP's: tiles of 4 x 4 patches of 8 pixels, heads of 24, grids
 *             of up to 3 x 3 tiles of which 2 keep their map as it is
 *     cells   the same with a C-Abstractor: 3 x 3 cells of a tile, which have
 *             some patches in common
 *     whole   Qwen2.5-VL's with grouped heads: cells of 2 x 2 patches, windows
 *             of 2 x 2 cells, every second layer sees all, a third linear
 */
#ifndef KSLLM_TEST_TOWER_H
#define KSLLM_TEST_TOWER_H

#include "fixture.h"

#if defined TW_MINI     /* as small as can be: for fuzzing, with fx_mini */
enum { TW_WIDTH = 32, TW_FFN = 32, TW_MID = 32, TW_SIDE = 8, TW_PATCH = 4,
       TW_HEADS = 4, TW_LAYERS = 2, TW_PLACE = 5, TW_CELLS_SIDE = 1 };
#else
enum { TW_WIDTH = 96, TW_FFN = 160, TW_MID = 64, TW_SIDE = 32, TW_PATCH = 8,
       TW_HEADS = 4, TW_LAYERS = 2, TW_PLACE = FX_END, TW_CELLS_SIDE = 3 };
#endif

static inline void tw_floats(fx_gguf *g, const char *key, float x)
{
    fx_kv_array(g, key, KSLLM_META_F32, 3);
    for (int i = 0; i < 3; i++)
        fx_f32(&g->kv, x);
}

typedef enum { TW_WHOLE, TW_TILES, TW_CELLS, TW_KINDS } tw_kind;

static inline void tw_keys(fx_gguf *g, tw_kind kind)
{
    static const char *const projectors[TW_KINDS] = {
        "hcx_qwen2.5vl", "mlp", "cabstractor"};
    const bool tiles = kind != TW_WHOLE;
    static const struct { const char *key; uint32_t v; } u32[] = {
        {"block_count", TW_LAYERS}, {"embedding_length", TW_WIDTH},
        {"feed_forward_length", TW_FFN}, {"attention.head_count", TW_HEADS},
        {"patch_size", TW_PATCH}, {"image_token_id", TW_PLACE},
        /* tiles and cells */
        {"image_size", TW_SIDE},
        /* tiles */
        {"anyres_max", 2},
        /* cells */
        {"mm.num_queries", TW_CELLS_SIDE * TW_CELLS_SIDE},
        {"pad_to_square", 1},
        /* whole */
        {"attention.head_count_kv", 2}, {"spatial_merge_size", 2},
        {"window_size", 32}, {"n_wa_pattern", 2}, {"image_min_pixels", 1024},
        {"image_max_pixels", 65536}};
    char key[96];
    fx_kv_bool(g, "clip.has_vision_encoder", true);
    fx_kv_text(g, "clip.projector_type", projectors[kind]);
    for (size_t i = 0; i < sizeof u32 / sizeof *u32; i++)
        if (i < 6 || (i == 6 && tiles) || (i == 7 && kind == TW_TILES)
            || ((i == 8 || i == 9) && kind == TW_CELLS) || (i > 9 && !tiles))
            fx_kv_u32(g, (snprintf(key, sizeof key, "clip.vision.%s",
                                   u32[i].key), key), u32[i].v);
    fx_kv_f32(g, "clip.vision.attention.layer_norm_epsilon", 1e-6f);
    tw_floats(g, "clip.vision.image_mean", 0.5f);
    tw_floats(g, "clip.vision.image_std", 0.5f);
    if (!tiles)
        return;
    fx_kv_text(g, "clip.vision.mm_patch_merge_type", "spatial_unpad");
    fx_kv_array(g, "clip.vision.image_grid_pinpoints", KSLLM_META_I32, 18);
    for (uint32_t i = 0; i < 9; i++) {
        fx_int(&g->kv, TW_SIDE * (1 + i / 3), 4);
        fx_int(&g->kv, TW_SIDE * (1 + i % 3), 4);
    }
}

static bool tw_fuses;  /* queries, keys and values in one tensor */

static inline void tw_qkv(fx_build *b, uint32_t layer, uint32_t kv)
{
    static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
    const uint32_t rows[] = {TW_WIDTH, kv, kv}, all = TW_WIDTH + 2 * kv;
    const fx_type *t = fx_type_of(b->spec->type);
    char name[64];
    for (int bias = 0; bias < 2; bias++) {
        snprintf(name, sizeof name, "v.blk.%u.attn_qkv.%s", (unsigned)layer,
                 bias ? "bias" : "weight");
        uint8_t *p = bias
            ? fx_tensor_3(&b->part[0], name, KSLLM_TYPE_F32, all, 0, 0)
            : fx_tensor_3(&b->part[0], name, t->type, TW_WIDTH, all, 0);
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "v.blk.%u.%s.%s", (unsigned)layer,
                     names[i], bias ? "bias" : "weight");
            uint64_t rng = fx_hash(FX_HASH, name, strlen(name));
            if (bias)
                fx_values(p, rows[i], 0, &rng);
            else
                fx_fill(p, t, TW_WIDTH * rows[i], &rng);
            p += bias ? 4 * rows[i] : fx_type_bytes(t, TW_WIDTH) * rows[i];
        }
    }
}

static inline void tw_layer(fx_build *b, uint32_t layer, bool tiles)
{
    const uint32_t kv = tiles ? TW_WIDTH : TW_WIDTH / 2;
    const struct { const char *name; uint32_t in, out; } mats[] = {
        {"attn_q", TW_WIDTH, TW_WIDTH}, {"attn_k", TW_WIDTH, kv},
        {"attn_v", TW_WIDTH, kv}, {"attn_out", TW_WIDTH, TW_WIDTH},
        {"ffn_up", TW_WIDTH, TW_FFN}, {"ffn_down", TW_FFN, TW_WIDTH},
        {"ffn_gate", TW_WIDTH, TW_FFN}};
    char name[64];
#define TW_NAME(x, y) \
    (snprintf(name, sizeof name, "v.blk.%u.%s." y, (unsigned)layer, x), name)
    if (tw_fuses)
        tw_qkv(b, layer, kv);
    for (size_t i = tw_fuses ? 3 : 0; i < (tiles ? 6 : 7); i++) {
        fx_matrix(b, TW_NAME(mats[i].name, "weight"), mats[i].in, mats[i].out);
        fx_vector(b, TW_NAME(mats[i].name, "bias"), mats[i].out, 0);
    }
    fx_vector(b, TW_NAME("ln1", "weight"), TW_WIDTH, 1);
    fx_vector(b, TW_NAME("ln2", "weight"), TW_WIDTH, 1);
    if (tiles) {
        fx_vector(b, TW_NAME("ln1", "bias"), TW_WIDTH, 0);
        fx_vector(b, TW_NAME("ln2", "bias"), TW_WIDTH, 0);
    }
#undef TW_NAME
}

static inline void tw_convolution(fx_build *b, const char *name,
                                  uint32_t side, uint32_t in)
{
    const uint64_t dims[4] = {side, side, in, TW_WIDTH};
    const size_t n = (size_t)side * side * in * TW_WIDTH;
    fx_gguf *g = &b->part[0];
    uint64_t rng = strlen(name);
    fx_tensor_raw(g, name, 4, dims, KSLLM_TYPE_F32, g->data.size);
    fx_fill(fx_grow(&g->data, 4 * n), fx_type_of(KSLLM_TYPE_F32), n, &rng);
}

static inline void tw_block(fx_build *b, uint32_t stage, uint32_t block)
{
    char name[64];
#define TW_NAME(x)                                                            \
    (snprintf(name, sizeof name, "mm.net.%u.b%u.%s", (unsigned)stage,         \
              (unsigned)block, x), name)
    fx_matrix(b, TW_NAME("conv1.conv.weight"), TW_WIDTH, TW_WIDTH);
    tw_convolution(b, TW_NAME("conv2.conv.weight"), 3, 1);
    fx_matrix(b, TW_NAME("conv3.conv.weight"), TW_WIDTH, TW_WIDTH);
    fx_matrix(b, TW_NAME("se.fc1.weight"), TW_WIDTH, 32);
    fx_vector(b, TW_NAME("se.fc1.bias"), 32, 0);
    fx_matrix(b, TW_NAME("se.fc2.weight"), 32, TW_WIDTH);
    fx_vector(b, TW_NAME("se.fc2.bias"), TW_WIDTH, 0);
    fx_vector(b, TW_NAME("conv1.bn.weight"), TW_WIDTH, 1);
    fx_vector(b, TW_NAME("conv1.bn.bias"), TW_WIDTH, 0);
    fx_vector(b, TW_NAME("conv2.bn.weight"), TW_WIDTH, 1);
    fx_vector(b, TW_NAME("conv2.bn.bias"), TW_WIDTH, 0);
    fx_vector(b, TW_NAME("conv3.bn.weight"), TW_WIDTH, 1);
    fx_vector(b, TW_NAME("conv3.bn.bias"), TW_WIDTH, 0);
#undef TW_NAME
}

static inline void tw_projector(fx_build *b, tw_kind kind, uint32_t out)
{
    static const char *const names[2][4] = {
        {"mm.0.weight", "mm.0.bias", "mm.2.weight", "mm.2.bias"},
        {"mm.readout.0.weight", "mm.readout.0.bias", "mm.readout.2.weight",
         "mm.readout.2.bias"}};
    const char *const *name = names[kind == TW_CELLS];
    fx_matrix(b, name[0], kind ? TW_WIDTH : 4 * TW_WIDTH, TW_MID);
    fx_vector(b, name[1], TW_MID, 0);
    fx_matrix(b, name[2], TW_MID, out);
    fx_vector(b, name[3], out, 0);
}

static inline void tw_more(fx_build *b, tw_kind kind)
{
    const bool tiles = kind != TW_WHOLE;
    const uint32_t embd = b->spec->n_embd, out = tiles ? embd : 160;
    const uint32_t places = TW_SIDE / TW_PATCH * (TW_SIDE / TW_PATCH);
    tw_keys(&b->part[0], kind);
    tw_convolution(b, "v.patch_embd.weight", TW_PATCH, 3);
    for (uint32_t i = 0; i < TW_LAYERS; i++)
        tw_layer(b, i, tiles);
    tw_projector(b, kind, out);
    if (kind == TW_CELLS) {
        fx_matrix(b, "mm.pos_emb", TW_WIDTH, places);
        for (uint32_t i = 0; i < 6; i++)
            tw_block(b, i / 3 * 2, i % 3 + 1);
    }
    if (tiles) {
        fx_vector(b, "v.patch_embd.bias", TW_WIDTH, 0);
        fx_matrix(b, "v.position_embd.weight", TW_WIDTH, places);
        fx_vector(b, "v.image_newline", embd, 0);
    } else {
        tw_convolution(b, "v.patch_embd.weight.1", TW_PATCH, 3);
        fx_vector(b, "v.post_ln.weight", TW_WIDTH, 1);
        fx_matrix(b, "mm.model.fc.weight", out, embd);
        fx_vector(b, "mm.model.fc.bias", embd, 0);
    }
}

static inline void tw_tiles(fx_build *b) { tw_more(b, TW_TILES); }
static inline void tw_cells(fx_build *b) { tw_more(b, TW_CELLS); }
static inline void tw_whole(fx_build *b) { tw_more(b, TW_WHOLE); }

static inline fx_spec tw_spec(ksllm_type type, tw_kind kind)
{
    static void (*const more[TW_KINDS])(fx_build *) = {
        tw_whole, tw_tiles, tw_cells};
    fx_spec s = *fx_spec_of("qwen3");
    s.type = type;
    s.more = more[kind];
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
