/* tower.c, part of ksllm-quant.c - what a model sees or hears with: the tower
 * and its projector become tensors v.* and mm.*, or a.* and mm.a.*, beside the
 * language model, and their configuration clip.* keys (the list is in § 20 of
 * ksllm.c, at "towers").
 *
 * Kinds are data, as architectures are in convert.c. All of it is read from the
 * folder: config.json for the tower, preprocessor_config.json for how a picture
 * or a sound gets there; where there is a tower for each, that of sounds is in
 * audio_preprocessor_config.json. A number that config.json leaves out is the
 * one that its class in transformers has. What would be computed wrongly is
 * refused. */

/* Names as below: "model." or "thinker." is gone, and these stand for the
 * parts, of an eye, of an ear or of either. */
static const struct {
    const char *from, *to;
    char whose;
} TW_PARTS[] = {
    {"vision_tower.vision_model.", "tower.", 'v'},
    {"vision_tower.", "tower.", 'v'},
    {"vision_model.vision_model.", "tower.", 'v'},
    {"vision_model.", "tower.", 'v'},
    {"visual.", "tower.", 'v'}, {"audio_tower.", "tower.", 'a'},
    {"audio_model.", "tower.", 'a'}, {"audio_projector.", "projector.", 'a'},
    {"multi_modal_projector.", "projector.", 0},
    {"vision_projector.", "projector.", 'v'},
    {"mm_projector.", "projector.", 'v'}, {"projector.", "projector.", 'v'},
    {"image_newline", "image_newline", 'v'},
};

static const cv_name TW_SIGLIP[] = {
    {"tower.embeddings.patch_embedding.weight", "v.patch_embd.weight"},
    {"tower.embeddings.patch_embedding.bias", "v.patch_embd.bias"},
    {"tower.embeddings.position_embedding.weight", "v.position_embd.weight"},
    {"tower.encoder.layers.{}.layer_norm1.weight", "v.blk.{}.ln1.weight"},
    {"tower.encoder.layers.{}.layer_norm1.bias", "v.blk.{}.ln1.bias"},
    {"tower.encoder.layers.{}.layer_norm2.weight", "v.blk.{}.ln2.weight"},
    {"tower.encoder.layers.{}.layer_norm2.bias", "v.blk.{}.ln2.bias"},
    {"tower.encoder.layers.{}.self_attn.q_proj.weight",
        "v.blk.{}.attn_q.weight"},
    {"tower.encoder.layers.{}.self_attn.q_proj.bias", "v.blk.{}.attn_q.bias"},
    {"tower.encoder.layers.{}.self_attn.k_proj.weight",
        "v.blk.{}.attn_k.weight"},
    {"tower.encoder.layers.{}.self_attn.k_proj.bias", "v.blk.{}.attn_k.bias"},
    {"tower.encoder.layers.{}.self_attn.v_proj.weight",
        "v.blk.{}.attn_v.weight"},
    {"tower.encoder.layers.{}.self_attn.v_proj.bias", "v.blk.{}.attn_v.bias"},
    {"tower.encoder.layers.{}.self_attn.out_proj.weight",
        "v.blk.{}.attn_out.weight"},
    {"tower.encoder.layers.{}.self_attn.out_proj.bias",
        "v.blk.{}.attn_out.bias"},
    {"tower.encoder.layers.{}.mlp.fc1.weight", "v.blk.{}.ffn_up.weight"},
    {"tower.encoder.layers.{}.mlp.fc1.bias", "v.blk.{}.ffn_up.bias"},
    {"tower.encoder.layers.{}.mlp.fc2.weight", "v.blk.{}.ffn_down.weight"},
    {"tower.encoder.layers.{}.mlp.fc2.bias", "v.blk.{}.ffn_down.bias"},
    {"image_newline", "v.image_newline"},
    {NULL, NULL},
};

static const cv_name TW_MLP[] = {
    {"projector.linear_1.weight", "mm.0.weight"},
    {"projector.linear_1.bias", "mm.0.bias"},
    {"projector.linear_2.weight", "mm.2.weight"},
    {"projector.linear_2.bias", "mm.2.bias"},
    {NULL, NULL},
};

#define TW_BLOCK(from, to)                                                    \
    {"projector.net.0.b{}." from, "mm.net.0.b{}." to},                        \
    {"projector.net.2.b{}." from, "mm.net.2.b{}." to}
#define TW_PAIR(name)                                                         \
    TW_BLOCK(name ".weight", name ".weight"),                                 \
    TW_BLOCK(name ".bias", name ".bias")

static const cv_name TW_ABSTRACTOR[] = {
    {"projector.pos_emb", "mm.pos_emb"},
    TW_BLOCK("conv1.conv.weight", "conv1.conv.weight"), TW_PAIR("conv1.bn"),
    TW_BLOCK("conv2.conv.weight", "conv2.conv.weight"), TW_PAIR("conv2.bn"),
    TW_BLOCK("conv3.conv.weight", "conv3.conv.weight"), TW_PAIR("conv3.bn"),
    TW_PAIR("se.fc1"), TW_PAIR("se.fc2"),
    {"projector.readout.0.weight", "mm.readout.0.weight"},
    {"projector.readout.0.bias", "mm.readout.0.bias"},
    {"projector.readout.2.weight", "mm.readout.2.weight"},
    {"projector.readout.2.bias", "mm.readout.2.bias"},
    {NULL, NULL},
};

/* Both frames of the convolution, and three parts of qkv: tw_cut. */
static const cv_name TW_QWEN[] = {
    {"tower.patch_embed.proj.weight", "v.patch_embd.weight"},
    {"tower.patch_embed.proj.weight", "v.patch_embd.weight.1"},
    {"tower.blocks.{}.norm1.weight", "v.blk.{}.ln1.weight"},
    {"tower.blocks.{}.norm2.weight", "v.blk.{}.ln2.weight"},
    {"tower.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_q.weight"},
    {"tower.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_k.weight"},
    {"tower.blocks.{}.attn.qkv.weight", "v.blk.{}.attn_v.weight"},
    {"tower.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_q.bias"},
    {"tower.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_k.bias"},
    {"tower.blocks.{}.attn.qkv.bias", "v.blk.{}.attn_v.bias"},
    {"tower.blocks.{}.attn.proj.weight", "v.blk.{}.attn_out.weight"},
    {"tower.blocks.{}.attn.proj.bias", "v.blk.{}.attn_out.bias"},
    {"tower.blocks.{}.mlp.gate_proj.weight", "v.blk.{}.ffn_gate.weight"},
    {"tower.blocks.{}.mlp.gate_proj.bias", "v.blk.{}.ffn_gate.bias"},
    {"tower.blocks.{}.mlp.up_proj.weight", "v.blk.{}.ffn_up.weight"},
    {"tower.blocks.{}.mlp.up_proj.bias", "v.blk.{}.ffn_up.bias"},
    {"tower.blocks.{}.mlp.down_proj.weight", "v.blk.{}.ffn_down.weight"},
    {"tower.blocks.{}.mlp.down_proj.bias", "v.blk.{}.ffn_down.bias"},
    {"tower.merger.ln_q.weight", "v.post_ln.weight"},
    {"tower.merger.mlp.0.weight", "mm.0.weight"},
    {"tower.merger.mlp.0.bias", "mm.0.bias"},
    {"tower.merger.mlp.2.weight", "mm.2.weight"},
    {"tower.merger.mlp.2.bias", "mm.2.bias"},
    {"projector.weight", "mm.model.fc.weight"},
    {"projector.bias", "mm.model.fc.bias"},
    {NULL, NULL},
};

/* The layers of both kinds of ears. */
static const cv_name TW_EAR_LAYERS[] = {
    {"tower.layers.{}.self_attn_layer_norm.weight", "a.blk.{}.ln1.weight"},
    {"tower.layers.{}.self_attn_layer_norm.bias", "a.blk.{}.ln1.bias"},
    {"tower.layers.{}.final_layer_norm.weight", "a.blk.{}.ln2.weight"},
    {"tower.layers.{}.final_layer_norm.bias", "a.blk.{}.ln2.bias"},
    {"tower.layers.{}.self_attn.q_proj.weight", "a.blk.{}.attn_q.weight"},
    {"tower.layers.{}.self_attn.q_proj.bias", "a.blk.{}.attn_q.bias"},
    {"tower.layers.{}.self_attn.k_proj.weight", "a.blk.{}.attn_k.weight"},
    {"tower.layers.{}.self_attn.v_proj.weight", "a.blk.{}.attn_v.weight"},
    {"tower.layers.{}.self_attn.v_proj.bias", "a.blk.{}.attn_v.bias"},
    {"tower.layers.{}.self_attn.out_proj.weight", "a.blk.{}.attn_out.weight"},
    {"tower.layers.{}.self_attn.out_proj.bias", "a.blk.{}.attn_out.bias"},
    {"tower.layers.{}.fc1.weight", "a.blk.{}.ffn_up.weight"},
    {"tower.layers.{}.fc1.bias", "a.blk.{}.ffn_up.bias"},
    {"tower.layers.{}.fc2.weight", "a.blk.{}.ffn_down.weight"},
    {"tower.layers.{}.fc2.bias", "a.blk.{}.ffn_down.bias"},
    {NULL, NULL},
};

static const cv_name TW_QWEN_EAR[] = {
    {"tower.conv2d1.weight", "a.conv2d.1.weight"},
    {"tower.conv2d1.bias", "a.conv2d.1.bias"},
    {"tower.conv2d2.weight", "a.conv2d.2.weight"},
    {"tower.conv2d2.bias", "a.conv2d.2.bias"},
    {"tower.conv2d3.weight", "a.conv2d.3.weight"},
    {"tower.conv2d3.bias", "a.conv2d.3.bias"},
    {"tower.conv_out.weight", "a.conv_out.weight"},
    {"tower.layers.{}.self_attn.k_proj.bias", "a.blk.{}.attn_k.bias"},
    {"tower.ln_post.weight", "a.post_ln.weight"},
    {"tower.ln_post.bias", "a.post_ln.bias"},
    {"tower.proj1.weight", "mm.a.mlp.1.weight"},
    {"tower.proj1.bias", "mm.a.mlp.1.bias"},
    {"tower.proj2.weight", "mm.a.mlp.2.weight"},
    {"tower.proj2.bias", "mm.a.mlp.2.bias"},
    {"projector.linear_1.weight", "mm.a.mlp.1.weight"},
    {"projector.linear_1.bias", "mm.a.mlp.1.bias"},
    {"projector.linear_2.weight", "mm.a.mlp.2.weight"},
    {"projector.linear_2.bias", "mm.a.mlp.2.bias"},
    {NULL, NULL},
};

static const cv_name TW_WHISPER[] = {
    {"tower.conv1.weight", "a.conv1d.1.weight"},
    {"tower.conv1.bias", "a.conv1d.1.bias"},
    {"tower.conv2.weight", "a.conv1d.2.weight"},
    {"tower.conv2.bias", "a.conv1d.2.bias"},
    {"tower.embed_positions.weight", "a.position_embd.weight"},
    {"tower.layer_norm.weight", "a.post_ln.weight"},
    {"tower.layer_norm.bias", "a.post_ln.bias"},
    {"projector.fc1.weight", "mm.a.mlp.1.weight"},
    {"projector.fc1.bias", "mm.a.mlp.1.bias"},
    {"projector.fc2.weight", "mm.a.mlp.2.weight"},
    {"projector.fc2.bias", "mm.a.mlp.2.bias"},
    {NULL, NULL},
};

/* There, but nothing uses them. */
static const char *const TW_UNUSED[] = {
    "tower.head.*", "tower.post_layernorm.*", "*.position_ids",
};

/* What its config calls its numbers, and what they are by default. Of an ear
 * TW_PATCH is the number of bands, and TW_SIZE half a stretch in frames, or the
 * rows of a chunk. */
enum { TW_LAYERS, TW_WIDTH, TW_FFN, TW_HEADS, TW_PATCH, TW_SIZE, TW_NUMBERS };

typedef struct {
    const char *name, *key; /* key: under clip.vision. or clip.audio., or
                               NULL: there is none */
    i64 usual;
} tw_number;

static const tw_number TW_SIGLIP_NUMBERS[TW_NUMBERS] = {
    {"num_hidden_layers", "block_count", 12},
    {"hidden_size", "embedding_length", 768},
    {"intermediate_size", "feed_forward_length", 3072},
    {"num_attention_heads", "attention.head_count", 12},
    {"patch_size", "patch_size", 16}, {"image_size", "image_size", 224},
};

static const tw_number TW_QWEN_NUMBERS[TW_NUMBERS] = {
    {"depth", "block_count", 32}, {"hidden_size", "embedding_length", 3584},
    {"intermediate_size", "feed_forward_length", 3420},
    {"num_heads", "attention.head_count", 16},
    {"patch_size", "patch_size", 14},
    {"spatial_merge_size", "spatial_merge_size", 2},
};

static const tw_number TW_EAR_NUMBERS[TW_NUMBERS] = {
    {"encoder_layers", "block_count", 24},
    {"d_model", "embedding_length", 1024},
    {"encoder_ffn_dim", "feed_forward_length", 4096},
    {"encoder_attention_heads", "attention.head_count", 16},
    {"num_mel_bins", "num_mel_bins", 128}, {"n_window", "n_window", 50},
};

static const tw_number TW_WHISPER_NUMBERS[TW_NUMBERS] = {
    {"encoder_layers", "block_count", 32},
    {"d_model", "embedding_length", 1280},
    {"encoder_ffn_dim", "feed_forward_length", 5120},
    {"encoder_attention_heads", "attention.head_count", 20},
    {"num_mel_bins", "num_mel_bins", 128}, {"max_source_positions", NULL, 1500},
};

typedef struct {
    const char *model, *tower;  /* model_type of config.json, its part */
    const char *processor;      /* what the processor's type begins with; "":
                                   other keys tell that it is the right one */
    const char *projector;      /* clip.projector_type */
    const char *act;
    const cv_name *names[2];    /* all count */
    const tw_number *numbers;
    bool tiles, abstracts, hears;
    bool chunks; /* an ear that a model may lack */
} tw_kind;

static const tw_kind TW_KINDS[] = {
    {"llava_onevision", "siglip_vision_model", "LlavaOnevisionImageProcessor",
        "mlp", "gelu_pytorch_tanh", {TW_SIGLIP, TW_MLP}, TW_SIGLIP_NUMBERS,
        .tiles = true},
    {"hyperclovax_vlm", "siglip_vision_model", "", "cabstractor",
        "gelu_pytorch_tanh", {TW_SIGLIP, TW_ABSTRACTOR}, TW_SIGLIP_NUMBERS,
        .tiles = true, .abstracts = true},
    {"hyperclovax_vision_v2", "qwen2_5_vl_vision", "Qwen2VLImageProcessor",
        "hcx_qwen2.5vl", "silu", {TW_QWEN}, TW_QWEN_NUMBERS,
        .tiles = false},
    {"vlm", "qwen2_5_vl", "Qwen2VLImageProcessor",
        "hcx_qwen2.5vl", "silu", {TW_QWEN}, TW_QWEN_NUMBERS,
        .tiles = false},
    {"exaone4_5", "exaone4_5_vision", "Qwen2VLImageProcessor", "exaone4_5",
        "silu", {TW_QWEN}, TW_QWEN_NUMBERS,
        .tiles = false},
    {"qwen3_asr", "qwen3_asr_encoder", "Qwen3ASRFeatureExtractor", "qwen3a",
        "gelu", {TW_QWEN_EAR, TW_EAR_LAYERS}, TW_EAR_NUMBERS, .hears = true},
    {"qwen3_asr_thinker", "qwen3_asr_audio_encoder", "WhisperFeatureExtractor",
        "qwen3a", "gelu", {TW_QWEN_EAR, TW_EAR_LAYERS}, TW_EAR_NUMBERS,
        .hears = true},
    {"vlm", "qwen2_audio_encoder", "WhisperFeatureExtractor", "hcx_qwen2a",
        "gelu", {TW_WHISPER, TW_EAR_LAYERS}, TW_WHISPER_NUMBERS, .hears = true,
        .chunks = true},
};

typedef struct {
    cv *c;
    const tw_kind *kind;
    const js *config;       /* vision_config or audio_config */
    const js *processor;
    i64 number[TW_NUMBERS], n_kv, ffn; /* ffn: with zeros up to a block */
} tw;

/* ---- the tower's configuration ---- */

static void tw_key(const tw *t, const char *name, i64 v) {
    char key[128];
    snprintf(key, sizeof key, "clip.%s.%s",
        t->kind->hears ? "audio" : "vision", name);
    gw_kv_u32(t->c->g, key, (u32)v);
}

static i64 tw_int(const tw *t, const char *name, i64 usual) {
    const js *v = cv_get(t->config, name);
    i64 i = usual;
    if ((v && !js_int(v, &i)) || i < 1 || i > 1 << 20)
        die("%s/config.json: '%s' of the tower is no sensible number",
            t->c->dir, name);
    return i;
}

/* A text that has to be this one, where it is said. */
static void tw_need(const tw *t, const js *o, const char *name,
    const char *want) {
    const js *v = cv_get(o, name);
    if (v && !js_is(v, want))
        die("%s/config.json: '%s' is not \"%s\": such a tower is not "
            "supported; --no-media converts the language model alone",
            t->c->dir, name, want);
}

/* Layers that are run: hidden_states[-1] is after the last one. */
static i64 tw_layers(const tw *t) {
    const char *name = t->kind->abstracts ? "use_nth_layer"
                                          : "vision_feature_layer";
    const js *v = cv_get(t->c->top, name);
    i64 at = t->kind->abstracts ? 0 : -1, n = t->number[TW_LAYERS];
    if (v && v->kind == JS_ARR && v->n == 1) v = v->first;
    if ((v && !js_int(v, &at)) || at >= 0 || at < -n)
        die("%s/config.json: '%s' is not one of -1 to -%lld", t->c->dir, name,
            (long long)n);
    return n + 1 + at;
}

/* Every which layer sees the whole picture. */
static i64 tw_pattern(const tw *t) {
    static const i64 usual[] = {7, 15, 23, 31};
    const js *list = cv_get(t->config, "fullatt_block_indexes"), *v;
    i64 n = t->number[TW_LAYERS], every = 0, i = 0, at;
    bool fits = list ? list->kind == JS_ARR && list->n : n == 32;
    v = fits && list ? list->first : NULL;
    for (; fits && (list ? v != NULL : i < 4); i++) {
        at = list ? -1 : usual[i];
        fits = (!list || js_int(v, &at)) && at >= 0 && at < n;
        if (!i) every = at + 1;
        fits &= at == (i + 1) * every - 1;
        if (list) v = v->next;
    }
    if (!fits || (i + 1) * every <= n)
        die("%s/config.json: 'fullatt_block_indexes' is not every n-th layer",
            t->c->dir);
    return every;
}

static void tw_read_config(tw *t) {
    const cv *c = t->c;
    for (u32 i = 0; i < TW_NUMBERS; i++) {
        const tw_number *k = &t->kind->numbers[i];
        t->number[i] = tw_int(t, k->name, k->usual);
    }
    t->n_kv = tw_int(t, "num_key_value_heads", t->number[TW_HEADS]);
    t->ffn = (t->number[TW_FFN] + 31) / 32 * 32;
    if (t->number[TW_WIDTH] % t->number[TW_HEADS])
        die("%s/config.json: the tower's heads do not divide its width",
            c->dir);
    tw_need(t, t->config, "hidden_act|activation_function", t->kind->act);
    if (t->kind->hears) return;
    tw_need(t, c->top, "vision_feature_select_strategy", "full");
    tw_need(t, c->top, "projector_hidden_act", "gelu");
    tw_need(t, c->top, "mm_projector_type",
        t->kind->abstracts ? t->kind->projector : "linear");
    if (tw_int(t, "num_channels|in_channels", 3) != 3
        || tw_int(t, "temporal_patch_size", 2) != 2
        || (js_true(js_get(t->config, "anyres")) && !t->kind->abstracts))
        die("%s/config.json: a tower of other channels, frames or cuts is not "
            "supported; --no-media converts the language model alone", c->dir);
}

/* ---- how a picture gets there ---- */

static const char *tw_processor_file(const tw *t) {
    static const char sound[] = "audio_preprocessor_config.json";
    if (t->kind->hears && folder_has(t->c->dir, sound)) return sound;
    return folder_has(t->c->dir, "preprocessor_config.json")
        ? "preprocessor_config.json" : "processor_config.json";
}

static __attribute__((noreturn)) void tw_bad(const tw *t, const char *name) {
    die("%s/%s: '%s' is missing, or not what the tower is run with; "
        "--no-media converts the language model alone", t->c->dir,
        tw_processor_file(t), name);
}

static void tw_find_processor(tw *t) {
    const js *p = json_read(t->c->dir, tw_processor_file(t));
    const js *inner = js_get(p, t->kind->hears ? "feature_extractor"
                                               : "image_processor");
    t->processor = inner && inner->kind == JS_OBJ ? inner : p;
    if (!t->processor || t->processor->kind != JS_OBJ)
        die("%s: no preprocessor_config.json, so how pictures or sounds become "
            "numbers is not known: get that file too, or --no-media",
            t->c->dir);
    const char *name = t->kind->hears ? "feature_extractor_type"
                                      : "image_processor_type";
    str type = js_text(js_get(t->processor, name));
    size_t n = strlen(t->kind->processor);
    if (type.n && (type.n < n || memcmp(type.p, t->kind->processor, n)))
        tw_bad(t, name);
}

static void tw_write_floats(const tw *t, const char *name) {
    const js *list = js_get(t->processor, name);
    char key[64];
    f64 v;
    if (!list || list->kind != JS_ARR || list->n != 3) tw_bad(t, name);
    snprintf(key, sizeof key, "clip.vision.%s", name);
    gw_kv_array(t->c->g, key, KSLLM_META_F32, 3);
    for (const js *x = list->first; x; x = x->next) {
        if (!js_num(x, &v) || !(v >= 0 && v <= 1)) tw_bad(t, name);
        f32 as = (f32)v;
        bytes_put(&t->c->g->kv, &as, 4);
    }
}

static void tw_write_pixels(const tw *t) {
    static const char *const on[] = {"do_resize", "do_rescale", "do_normalize"};
    const js *p = t->processor;
    i64 filter = MED_BICUBIC;
    for (size_t i = 0; i < KS_LEN(on); i++) {
        const js *v = cv_get(p, on[i]);
        if (v && !js_true(v)) tw_bad(t, on[i]);
    }
    /* a C-Abstractor's crop is the tile: tw_write_abstractor */
    if (js_true(js_get(p, "do_center_crop")) && !t->kind->abstracts)
        tw_bad(t, "do_center_crop");
    f64 scale = cv_float(p, "rescale_factor", 1.0 / 255);
    if (scale < 1.0 / 255 || scale > 1.0 / 255) tw_bad(t, "rescale_factor");
    const js *v = cv_get(p, "resample");
    if (v && (!js_int(v, &filter)
            || (filter != MED_BICUBIC && filter != MED_BILINEAR)))
        tw_bad(t, "resample");
    gw_kv_str(t->c->g, "clip.vision.resample",
        str_of(filter == MED_BICUBIC ? "bicubic" : "bilinear"));
    tw_write_floats(t, "image_mean");
    tw_write_floats(t, "image_std");
}

static i64 tw_processor_int(const tw *t, const js *o, const char *name) {
    i64 i;
    if (!js_int(cv_get(o, name), &i) || i < 1 || i > 1 << 30) tw_bad(t, name);
    return i;
}

/* min_pixels and max_pixels count before what size says. */
static i64 tw_pixels(const tw *t, const char *name, const char *edge) {
    const js *p = t->processor;
    return cv_get(p, name) ? tw_processor_int(t, p, name)
                           : tw_processor_int(t, js_get(p, "size"), edge);
}

static bool tw_same_list(const js *a, const js *b) {
    i64 x, y;
    if (!a || !b || a->kind != b->kind) return false;
    if (a->kind != JS_ARR) return js_int(a, &x) && js_int(b, &y) && x == y;
    a = a->first, b = b->first;
    for (; a && b; a = a->next, b = b->next) /* pairs: one level deeper */
        for (const js *i = a->first, *j = b->first; i || j;
            i = i->next, j = j->next)
            if (!i || !j || !js_int(i, &x) || !js_int(j, &y) || x != y)
                return false;
    return !a && !b;
}

/* Sides of what the processor makes, each a tile's. */
static void tw_need_side(const tw *t, const char *name, const char *edge) {
    if (tw_processor_int(t, js_get(t->processor, name), edge)
        != t->number[TW_SIZE])
        tw_bad(t, name);
}

static void tw_write_grids(const tw *t, const char *name, const js *list) {
    const cv *c = t->c;
    i64 at;
    gw_kv_str(c->g, "clip.vision.mm_patch_merge_type", str_of("spatial_unpad"));
    gw_kv_array(c->g, "clip.vision.image_grid_pinpoints", KSLLM_META_I32,
        2 * (u64)list->n);
    for (const js *v = list->first; v; v = v->next) {
        if (v->kind != JS_ARR || v->n != 2) tw_bad(t, name);
        for (const js *x = v->first; x; x = x->next) {
            if (!js_int(x, &at) || at < 1 || at > MED_MAX_SIDE)
                tw_bad(t, name);
            gw_u32(&c->g->kv, (u32)at);
        }
    }
}

static void tw_write_tiles(const tw *t) {
    static const char pins[] = "image_grid_pinpoints", cut[] = "anyres_max_";
    const cv *c = t->c;
    const js *list = cv_get(c->top, pins);
    str rule = js_text(cv_get(c->top, "vision_aspect_ratio"));
    if (!rule.n) rule = str_of("anyres_max_9");
    char digits[8] = {0};
    size_t n = strlen(cut);
    if (rule.n > n && !memcmp(rule.p, cut, n) && rule.n - n < sizeof digits)
        memcpy(digits, rule.p + n, rule.n - n);
    i64 most = strtol(digits, NULL, 10);
    if (most < 1)
        die("%s/config.json: 'vision_aspect_ratio' is '%.*s', not "
            "anyres_max_9 or the like", c->dir, STR(rule));
    tw_need_side(t, "size", "height");
    tw_need_side(t, "size", "width");
    if (!list || list->kind != JS_ARR
        || !tw_same_list(list, cv_get(t->processor, pins)))
        die("%s: '%s' is not a list that is the same in config.json and %s",
            c->dir, pins, tw_processor_file(t));
    tw_key(t, "anyres_max", most);
    tw_write_grids(t, pins, list);
}

/* What config.json says of a number or a switch, which has to be there. */
static i64 tw_said(const tw *t, const char *name) {
    const js *v = cv_get(t->c->top, name);
    i64 i = js_true(v);
    if (!v || (v->kind != JS_BOOL
            && (!js_int(v, &i) || i < 0 || i > 1 << 20)))
        die("%s/config.json: '%s' of the tower is missing or no sensible "
            "value", t->c->dir, name);
    return i;
}

/* The list that the model's class makes of its configuration: all of so many
 * tiles at most, rows first. */
static bool tw_is_all_grids(const tw *t, const js *list) {
    i64 most = tw_said(t, "max_num_grids"), side = t->number[TW_SIZE], h, w;
    bool one = tw_said(t, "use_1x1_grid");
    const js *v = list->first;
    for (i64 y = 1; y <= most; y++)
        for (i64 x = 1; x * y <= most; x++) {
            if (x * y == 1 && !one) continue;
            if (!v || v->kind != JS_ARR || v->n != 2
                || !js_int(v->first, &h) || !js_int(v->first->next, &w)
                || h != y * side || w != x * side)
                return false;
            v = v->next;
        }
    return !v;
}

/* HyperCLOVA X SEED Vision: what both files say has to agree. */
static void tw_write_abstractor(const tw *t) {
    static const char sizes[] = "possible_resolutions";
    static const char *const on[] = {"anyres", "unpad", "proj_pos_emb"};
    const cv *c = t->c;
    const js *p = t->processor, *list = cv_get(p, sizes);
    const js *own = cv_get(c->top, sizes), *square = cv_get(p, "pad_to_square");
    i64 rows = tw_said(t, "num_queries_vis_abstractor_image");
    for (size_t i = 0; i < KS_LEN(on); i++)
        if (!tw_said(t, on[i]) || (i < 2 && !js_true(cv_get(p, on[i]))))
            die("%s: '%s' is not true in config.json and %s: such a projector "
                "is not supported; --no-media converts the language model "
                "alone", c->dir, on[i], tw_processor_file(t));
    if (tw_said(t, "proj_prenorm"))
        die("%s/config.json: 'proj_prenorm' is true: such a projector is not "
            "supported; --no-media converts the language model alone", c->dir);
    if (tw_processor_int(t, p, "num_queries_vis_abstractor|"
            "num_queries_vis_abstractor_image") != rows)
        tw_bad(t, "num_queries_vis_abstractor");
    tw_need_side(t, "size", "shortest_edge");
    tw_need_side(t, "crop_size", "height");
    tw_need_side(t, "crop_size", "width");
    if (!square || square->kind != JS_BOOL) tw_bad(t, "pad_to_square");
    if (!list || list->kind != JS_ARR || !list->n
        || !(own && own->n ? tw_same_list(own, list)
                           : tw_is_all_grids(t, list)))
        die("%s: '%s' of %s is not the list that config.json has or makes "
            "of max_num_grids and use_1x1_grid", c->dir, sizes,
            tw_processor_file(t));
    tw_key(t, "mm.num_queries", rows);
    tw_key(t, "pad_to_square", js_true(square));
    tw_write_grids(t, sizes, list);
}

static void tw_write_native(const tw *t) {
    const js *p = t->processor;
    if (tw_processor_int(t, p, "patch_size") != t->number[TW_PATCH])
        tw_bad(t, "patch_size");
    if (tw_processor_int(t, p, "merge_size") != t->number[TW_SIZE])
        tw_bad(t, "merge_size");
    if (tw_processor_int(t, p, "temporal_patch_size") != 2)
        tw_bad(t, "temporal_patch_size");
    tw_key(t, "window_size", tw_int(t, "window_size", 112));
    tw_key(t, "n_wa_pattern", tw_pattern(t));
    tw_key(t, "image_min_pixels",
        tw_pixels(t, "min_pixels", "shortest_edge|min_pixels"));
    tw_key(t, "image_max_pixels",
        tw_pixels(t, "max_pixels", "longest_edge|max_pixels"));
}

/* Its places repeat with each stretch: sines, then cosines. */
static void tw_write_places(tw *t) {
    u64 n = (u64)t->number[TW_WIDTH], half = n / 2;
    u64 dims[2] = {n, (u64)tw_int(t, "max_position_embeddings", 13)};
    f32 *v = xalloc(n * dims[1], sizeof *v);
    if (half < 2) die("%s/config.json: 'd_model' is too small", t->c->dir);
    for (u64 at = 0; at < dims[1]; at++)
        for (u64 i = 0; i < half; i++) {
            f32 f = (f32)exp(-log(10000) / (f64)(half - 1) * (f64)i);
            v[at * n + i] = (f32)sin((f64)((f32)at * f));
            v[at * n + half + i] = (f32)cos((f64)((f32)at * f));
        }
    cv_add_made(t->c, "a.position_embd.weight", v, 2, dims);
}

/* The front end is Whisper's, and its numbers are no choice. */
static void tw_write_sound(tw *t) {
    static const struct {
        const char *name;
        i64 value;
    } fixed[] = {{"sampling_rate", SND_RATE}, {"hop_length", SND_HOP},
        {"n_fft", SND_WINDOW}};
    const js *p = t->processor;
    for (size_t i = 0; i < KS_LEN(fixed); i++)
        if (tw_processor_int(t, p, fixed[i].name) != fixed[i].value)
            tw_bad(t, fixed[i].name);
    if (tw_processor_int(t, p, "feature_size") != t->number[TW_PATCH])
        tw_bad(t, "feature_size");
    if (cv_float(p, "dither", 0) > 0) tw_bad(t, "dither");
    i64 seconds = tw_processor_int(t, p, "chunk_length");
    tw_key(t, "chunk_length", seconds);
    if (t->kind->chunks) {
        if (t->number[TW_SIZE] != 50 * seconds) tw_bad(t, "chunk_length");
        return;
    }
    tw_key(t, "n_window_infer", tw_int(t, "n_window_infer", 800));
    const js *least = cv_get(p, "min_length");
    tw_key(t, "min_samples",
        least ? tw_processor_int(t, p, "min_length") : 8000);
    tw_write_places(t);
}

/* `alone`: it is the model's only tower. */
static void tw_write_keys(tw *t, bool alone) {
    const cv *c = t->c;
    const bool hears = t->kind->hears;
    const js *place = cv_get(c->top,
        hears ? "audio_token_id"
              : "image_token_id|image_token_index|img_start_id");
    i64 id, layers = hears ? t->number[TW_LAYERS] : tw_layers(t);
    if (!js_int(place, &id) || id < 0 || id > INT32_MAX)
        die("%s/config.json: '%s' is missing", c->dir,
            hears ? "audio_token_id" : "image_token_id");
    gw_kv_bool(c->g, hears ? "clip.has_audio_encoder"
                           : "clip.has_vision_encoder", true);
    gw_kv_str(c->g, alone ? "clip.projector_type"
        : hears           ? "clip.audio.projector_type"
                          : "clip.vision.projector_type",
        str_of(t->kind->projector));
    for (u32 i = 0; i < TW_NUMBERS; i++)
        if (t->kind->numbers[i].key)
            tw_key(t, t->kind->numbers[i].key, i == TW_LAYERS ? layers
                : i == TW_FFN ? t->ffn : t->number[i]);
    if (t->n_kv != t->number[TW_HEADS])
        tw_key(t, "attention.head_count_kv", t->n_kv);
    t->number[TW_LAYERS] = layers;
    if (hears) {
        gw_kv_f32(c->g, "clip.audio.attention.layer_norm_epsilon", 1e-5f);
        tw_key(t, "audio_token_id", id);
        tw_write_sound(t);
        return;
    }
    gw_kv_f32(c->g, "clip.vision.attention.layer_norm_epsilon",
        (f32)cv_float(t->config, "layer_norm_eps", 1e-6));
    tw_key(t, "image_token_id", id);
    tw_write_pixels(t);
    if (t->kind->abstracts) tw_write_abstractor(t);
    else if (t->kind->tiles) tw_write_tiles(t);
    else tw_write_native(t);
}

/* ---- tensors ---- */

/* Where rows come from: `rows` of n_in values each, from value `at` on; the
 * rest of a row and further rows are zeros. */
typedef struct {
    const st_tensor *t;
    u64 n_in, at, rows;
    u64 side; /* of a convolution over two frames: rows of one, the other
                 skipped; 0: no such */
} tw_source;

static void tw_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    const tw_source *s = t->src;
    for (u64 r = row; r < row + n; r++, out += t->dims[0]) {
        u64 from = s->side ? r + r / s->side * s->side : r;
        u64 have = r < s->rows ? s->n_in : 0;
        if (have) st_values(s->t, s->at + from * s->n_in, have, out);
        for (u64 i = have; i < t->dims[0]; i++) out[i] = 0;
    }
}

static bool tw_ends(str s, const char *end) {
    size_t n = strlen(end);
    return s.n >= n && !memcmp(s.p + s.n - n, end, n);
}

/* What of a fused tensor, `n` values or rows, this one is. */
static void tw_cut(const tw *t, str name, u64 n, u64 *first, u64 *take) {
    u64 width = (u64)t->number[TW_WIDTH];
    u64 kv = width / (u64)t->number[TW_HEADS] * (u64)t->n_kv;
    *first = str_has(name, "attn_k.") ? width
        : str_has(name, "attn_v.") ? width + kv : 0;
    *take = str_has(name, "attn_q.") ? width : kv;
    if (n != width + 2 * kv)
        die("%s: '%.*s' does not divide into queries, keys and values",
            t->c->dir, STR(name));
}

static void tw_add_tensor(tw *t, st_tensor *from, str name) {
    const u64 *d = from->dims;
    u32 n_dims = from->n_dims;
    bool abstracts = t->kind->abstracts && str_begins(name, "mm.");
    if (abstracts && n_dims == 3 && d[0] == 1) d++, n_dims--; /* places */
    if (abstracts && n_dims == 4 && d[2] == 1 && d[3] == 1) n_dims = 2;
    u64 dims[4] = {d[0], 1, 1, 1}, wide = (u64)t->ffn, first = 0, take;
    tw_source *s = xalloc(1, sizeof *s);
    bool fused = str_has(from->name, ".qkv."), frames = n_dims == 5;
    u64 side = t->kind->hears || abstracts ? 3 : (u64)t->number[TW_PATCH];
    bool matrix = n_dims == 2, square = n_dims >= 4 && d[n_dims - 1] == side
        && d[n_dims - 2] == side;
    bool line = t->kind->chunks && n_dims == 3 && d[2] == side;
    if (from->dtype == ST_F8_E4M3
        || !(n_dims == 1 || matrix || square || line)
        || n_dims > 5
        || (square && !t->kind->hears && d[1] != (abstracts ? 1 : 3))
        || (frames && d[2] != 2))
        die("%s: tensor '%.*s' has not the shape of a tower's, or its type",
            t->c->dir, STR(from->name));
    *s = (tw_source){from, d[n_dims - 1], 0, matrix ? d[0] : 1, 0};
    if (matrix) dims[0] = d[1], dims[1] = d[0];
    if (line) {
        dims[0] = side, dims[1] = d[1], dims[2] = d[0];
        s->rows = d[0] * d[1];
    }
    if (square) {
        u64 p = d[n_dims - 1];
        dims[0] = dims[1] = p, dims[2] = d[1], dims[3] = d[0];
        s->rows = d[0] * d[1] * p;
        if (frames) s->side = p, n_dims = 4;
        if (tw_ends(name, ".weight.1")) s->at = p * p;
    }
    if (fused) {
        tw_cut(t, name, d[0], &first, &take);
        if (matrix) dims[1] = s->rows = take, s->at = first * s->n_in;
        else dims[0] = s->n_in = take, s->at = first;
    }
    if (str_has(name, "ffn_up.") || str_has(name, "ffn_gate."))
        dims[matrix] = max_u64(dims[matrix], wide);
    if (str_has(name, "ffn_down.weight")) dims[0] = max_u64(dims[0], wide);
    gw_tensor *to = gw_add(t->c->g, name, n_dims, dims);
    to->src = s;
    to->rows = tw_rows;
    to->from = ST_DTYPES[from->dtype].same;
    to->src_row_bytes = s->n_in * ST_DTYPES[from->dtype].bytes;
    from->used = true;
    qz_choose(t->c->o, to);
}

/* The name with the words of TW_PARTS; n is 0: of no such tower. */
static str tw_bare(str name, bool hears) {
    char z[GGUF_MAX_NAME + 32];
    if (name.n > 6 && !memcmp(name.p, "model.", 6)) name.p += 6, name.n -= 6;
    else if (name.n > 8 && !memcmp(name.p, "thinker.", 8))
        name.p += 8, name.n -= 8;
    for (size_t i = 0; i < KS_LEN(TW_PARTS); i++) {
        size_t n = strlen(TW_PARTS[i].from);
        if (TW_PARTS[i].whose == (hears ? 'v' : 'a') || name.n < n
            || memcmp(name.p, TW_PARTS[i].from, n))
            continue;
        snprintf(z, sizeof z, "%s%.*s", TW_PARTS[i].to,
            (int)min_size(name.n - n, GGUF_MAX_NAME), name.p + n);
        return str_of(str_dup(str_of(z)));
    }
    return (str){NULL, 0};
}

static void tw_add_named(
    tw *t, const cv_name *n, st_tensor *from, str name) {
    i64 number[2];
    for (; n && n->from; n++) {
        if (!cv_match(n->from, name, number)) continue;
        from->used = true;
        if (!str_begins(str_of(n->to), "mm.")
            && number[0] >= t->number[TW_LAYERS]) continue; /* is not run */
        tw_add_tensor(t, from, cv_filled(n->to, number[0]));
    }
}

static void tw_add_tensors(tw *t) {
    for (u32 i = 0; i < t->c->st.n; i++) {
        st_tensor *from = &t->c->st.t[i];
        str name = tw_bare(from->name, t->kind->hears);
        if (!name.n) continue;
        for (size_t k = 0; k < KS_LEN(TW_UNUSED); k++)
            from->used |= glob_fits(TW_UNUSED[k], name.p);
        for (size_t k = 0; k < KS_LEN(t->kind->names); k++)
            tw_add_named(t, t->kind->names[k], from, name);
        if (!from->used)
            die("%s: tensor '%.*s' has no place in a tower of %s; --no-media "
                "converts the language model alone", t->c->dir,
                STR(from->name), t->kind->projector);
    }
}

static void tw_run_kind(cv *c, const tw_kind *kind, bool alone) {
    tw t = {.c = c, .kind = kind};
    const char *part = kind->hears ? "audio_config" : "vision_config";
    t.config = js_get(c->top, part);
    if (!js_is(js_get(t.config, "model_type"), kind->tower))
        die("%s/config.json: %s is not of model_type '%s': such a tower is not "
            "supported; --no-media converts the language model alone", c->dir,
            part, kind->tower);
    tw_read_config(&t);
    tw_find_processor(&t);
    tw_write_keys(&t, alone);
    tw_add_tensors(&t);
}

static void tw_run(cv *c) {
    const tw_kind *kinds[2];
    u32 n = 0;
    for (size_t i = 0; i < KS_LEN(TW_KINDS) && !c->no_media; i++)
        if (str_eq(c->model_type, str_of(TW_KINDS[i].model))
            && (!TW_KINDS[i].chunks || cv_get(c->top, "audio_config")))
            kinds[n++] = &TW_KINDS[i];
    for (u32 i = 0; i < n; i++) tw_run_kind(c, kinds[i], n == 1);
}
