/* convert.c - a Hugging Face folder to GGUF. Architectures are data: how their
 * tensors and config keys are called here and there. What a row does not know
 * is an error that names it, before anything is written. */

typedef struct {
    const char *from, *to; /* "{}" is the layer */
} cv_name;

static const cv_name CV_COMMON[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"},
    {"model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"},
    {"model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"},
    {"model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight"},
    {"model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias"},
    {"model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias"},
    {"model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias"},
    {"model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias"},
    {"model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight"},
    {"model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight"},
    {"model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"},
    {"model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"},
    {"model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"},
    {NULL, NULL},
};

static const cv_name CV_PRE_NORMS[] = {
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_POST_NORMS[] = { /* EXAONE 4: no norm in front */
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight"},
    {"model.layers.{}.post_feedforward_layernorm.weight",
        "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_GEMMA_NORMS[] = {
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight"},
    {"model.layers.{}.pre_feedforward_layernorm.weight",
        "blk.{}.ffn_norm.weight"},
    {"model.layers.{}.post_feedforward_layernorm.weight",
        "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_EXAONE[] = {
    {"transformer.wte.weight", "token_embd.weight"},
    {"transformer.ln_f.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"transformer.h.{}.ln_1.weight", "blk.{}.attn_norm.weight"},
    {"transformer.h.{}.ln_2.weight", "blk.{}.ffn_norm.weight"},
    {"transformer.h.{}.attn.attention.q_proj.weight", "blk.{}.attn_q.weight"},
    {"transformer.h.{}.attn.attention.k_proj.weight", "blk.{}.attn_k.weight"},
    {"transformer.h.{}.attn.attention.v_proj.weight", "blk.{}.attn_v.weight"},
    {"transformer.h.{}.attn.attention.out_proj.weight",
        "blk.{}.attn_output.weight"},
    {"transformer.h.{}.mlp.c_fc_0.weight", "blk.{}.ffn_gate.weight"},
    {"transformer.h.{}.mlp.c_fc_1.weight", "blk.{}.ffn_up.weight"},
    {"transformer.h.{}.mlp.c_proj.weight", "blk.{}.ffn_down.weight"},
    {NULL, NULL},
};

/* Tensors of a checkpoint that a text model does without. */
static const char *const CV_SKIP[] = {
    "*.rotary_emb.inv_freq", "*.attention.bias", "*.masked_bias",
    "vision_tower.*", "model.vision_tower.*", "visual.*", "model.visual.*",
    "multi_modal_projector.*", "model.multi_modal_projector.*",
};

static const char *const CV_PREFIX[] = { /* of a text model inside another */
    "language_model.model.", "model.language_model.", "language_model.",
};

enum {
    CV_PERMUTE = 1,     /* q and k: pairs (i, i + n/2) to (2i, 2i + 1) */
    CV_NORM_PLUS_1 = 2, /* norms are stored less 1 */
    CV_GEMMA = 4,       /* window, scale and rope of Gemma 3 */
    CV_WINDOW_OFF = 8,  /* sliding_window counts only when switched on */
};

typedef struct {
    const char *model_type, *arch;
    const cv_name *names, *more;
    u32 flags;
    const char *act; /* the activation its graph has */
} cv_family;

static const cv_family CV_FAMILIES[] = {
    {"llama", "llama", CV_COMMON, CV_PRE_NORMS, CV_PERMUTE, "silu"},
    {"mistral", "llama", CV_COMMON, CV_PRE_NORMS, CV_PERMUTE | CV_WINDOW_OFF,
        "silu"},
    {"qwen2", "qwen2", CV_COMMON, CV_PRE_NORMS, CV_WINDOW_OFF, "silu"},
    {"qwen3", "qwen3", CV_COMMON, CV_PRE_NORMS, CV_WINDOW_OFF, "silu"},
    {"gemma3_text", "gemma3", CV_COMMON, CV_GEMMA_NORMS,
        CV_NORM_PLUS_1 | CV_GEMMA, "gelu_pytorch_tanh"},
    {"gemma3", "gemma3", CV_COMMON, CV_GEMMA_NORMS,
        CV_NORM_PLUS_1 | CV_GEMMA, "gelu_pytorch_tanh"},
    /* llama.cpp runs these; ksllm's table of architectures decides whether
     * this version does */
    {"exaone", "exaone", CV_EXAONE, NULL, 0, "silu"},
    {"exaone4", "exaone4", CV_COMMON, CV_POST_NORMS, 0, "silu"},
};

/* Config keys; alternatives are separated by '|'. */
typedef struct {
    const char *from, *to;
    bool is_float, needed;
} cv_key;

static const cv_key CV_KEYS[] = {
    {"num_hidden_layers|num_layers", "block_count", false, true},
    {"max_position_embeddings", "context_length", false, true},
    {"hidden_size", "embedding_length", false, true},
    {"intermediate_size", "feed_forward_length", false, true},
    {"num_attention_heads", "attention.head_count", false, true},
    {"rms_norm_eps|layer_norm_epsilon|layer_norm_eps",
        "attention.layer_norm_rms_epsilon", true, true},
    {"vocab_size", "vocab_size", false, false},
};

static const cv_key CV_SAMPLING[] = {
    {"temperature", "general.sampling.temp", true, false},
    {"top_k", "general.sampling.top_k", false, false},
    {"top_p", "general.sampling.top_p", true, false},
    {"min_p", "general.sampling.min_p", true, false},
    {"repetition_penalty", "general.sampling.penalty_repeat", true, false},
};

/* Where a tensor's rows come from. */
typedef struct {
    const st_tensor *t, *scale; /* scale: of F8, or NULL */
    u64 n_in, block_out, block_in, scale_in;
    u32 head; /* rows of a head to permute; 0: none */
    f32 add;
    const f32 *made; /* values made here, when there is no tensor */
} cv_source;

typedef struct {
    const char *dir;
    const js *config, *top, *generation;
    const cv_family *family;
    st_folder st;
    i64 n_layers, n_heads, n_kv, head_dim, n_embd;
    f64 theta;
    gw *g;
    qz_options *o;
} cv;

/* ---- config ---- */

static const js *cv_get(const js *o, const char *names) {
    char name[64];
    while (*names) {
        size_t n = strcspn(names, "|");
        snprintf(name, sizeof name, "%.*s", (int)n, names);
        const js *v = js_get(o, name);
        if (v && v->kind != JS_NULL) return v;
        names += n + (names[n] == '|');
    }
    return NULL;
}

static i64 cv_int(const cv *c, const char *names, i64 fallback) {
    const js *v = cv_get(c->config, names);
    i64 i;
    if (!v && fallback >= 0) return fallback;
    if (!v) die("%s/config.json: '%s' is missing", c->dir, names);
    if (!js_int(v, &i) || i < 0 || i > 1 << 30)
        die("%s/config.json: '%s' is no sensible number", c->dir, names);
    return i;
}

static f64 cv_float(const js *o, const char *names, f64 fallback) {
    f64 v;
    return js_num(cv_get(o, names), &v) ? v : fallback;
}

static const char *cv_arch_key(const cv *c, const char *name) {
    static char key[128];
    snprintf(key, sizeof key, "%s.%s", c->family->arch, name);
    return key;
}

static void cv_find_family(cv *c) {
    const js *text = js_get(c->top, "text_config");
    c->config = text && text->kind == JS_OBJ ? text : c->top;
    str type = js_text(js_get(c->config, "model_type"));
    if (!type.n) type = js_text(js_get(c->top, "model_type"));
    for (size_t i = 0; i < KS_LEN(CV_FAMILIES); i++)
        if (str_eq(type, str_of(CV_FAMILIES[i].model_type)))
            c->family = &CV_FAMILIES[i];
    if (c->family) return;
    fprintf(stderr, "known:");
    for (size_t i = 0; i < KS_LEN(CV_FAMILIES); i++)
        fprintf(stderr, " %s", CV_FAMILIES[i].model_type);
    fputc('\n', stderr);
    die("%s/config.json: model_type '%.*s' is not known", c->dir, STR(type));
}

/* What would be computed wrongly, for want of a switch in the graph. */
static void cv_check_config(const cv *c) {
    const js *act = cv_get(c->config,
        "hidden_activation|hidden_act|activation_function");
    if (act && !js_is(act, c->family->act))
        die("%s/config.json: activation '%.*s', but %s is run with %s", c->dir,
            STR(js_text(act)), c->family->arch, c->family->act);
    static const char *const off[] = {"attn_logit_softcapping",
        "final_logit_softcapping", "embedding_multiplier", "logits_scaling",
        "residual_multiplier", "attention_multiplier"};
    for (size_t i = 0; i < KS_LEN(off); i++) {
        f64 v;
        if (js_num(js_get(c->config, off[i]), &v) && (v < 1 || v > 1))
            die("%s/config.json: '%s' is %g, which %s is not run with", c->dir,
                off[i], v, c->family->arch);
    }
    f64 part = cv_float(c->config, "partial_rotary_factor", 1);
    if (part < 1) die("%s/config.json: partial_rotary_factor %g is not "
        "supported", c->dir, part);
    if (c->family->flags & CV_WINDOW_OFF
        && js_true(js_get(c->config, "use_sliding_window"))
        && cv_int(c, "max_window_layers", 0) < c->n_layers)
        die("%s/config.json: use_sliding_window is not supported for %s",
            c->dir, c->family->arch);
    const js *method = js_get(js_get(c->top, "quantization_config"),
        "quant_method");
    if (method && !js_is(method, "fp8") && !js_is(method, "compressed-tensors"))
        die("%s/config.json: already quantized by '%.*s'; take the original",
            c->dir, STR(js_text(method)));
}

/* Gemma 3: five local layers, then one global. */
static void cv_write_gemma(const cv *c) {
    const js *types = js_get(c->config, "layer_types");
    i64 i = 0, period = cv_int(c, "sliding_window_pattern", 6);
    bool fits = period == 6;
    for (const js *v = types && types->kind == JS_ARR ? types->first : NULL; v;
        v = v->next, i++)
        fits &= js_is(v, (i + 1) % 6 ? "sliding_attention" : "full_attention");
    if (!fits) die("%s/config.json: layers are not five local, one global",
        c->dir);
    gw_kv_u32(c->g, cv_arch_key(c, "attention.sliding_window"),
        (u32)cv_int(c, "sliding_window", -1));
    f64 scale = cv_float(c->config, "query_pre_attn_scalar",
        (f64)c->head_dim);
    f64 usual = c->n_layers == 62 ? (f64)(c->n_embd / c->n_heads)
        : (f64)c->head_dim;
    if (scale < usual || scale > usual)
        die("%s/config.json: query_pre_attn_scalar %g, but %g is run", c->dir,
            scale, usual);
}

static const js *cv_rope(const cv *c) {
    const js *r = cv_get(c->config, "rope_parameters|rope_scaling");
    const js *full = js_get(r, "full_attention");
    return full && full->kind == JS_OBJ ? full : r;
}

static void cv_made_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    const cv_source *s = t->src;
    memcpy(out, s->made + row * t->dims[0], n * t->dims[0] * sizeof *out);
}

/* Llama 3's scaling as the divisors of each frequency, a tensor. */
static void cv_write_llama3(cv *c, const js *r) {
    u64 half = (u64)c->head_dim / 2;
    f32 *d = xalloc(half, sizeof *d);
    f64 factor = cv_float(r, "factor", 8), low = cv_float(r,
        "low_freq_factor", 1), high = cv_float(r, "high_freq_factor", 4);
    f64 original = cv_float(r, "original_max_position_embeddings", 8192);
    if (!(factor > 0 && high > low && low > 0))
        die("%s/config.json: rope factors that make no sense", c->dir);
    for (u64 i = 0; i < half; i++) {
        f64 f = pow(c->theta, -2.0 * (f64)i / (f64)c->head_dim);
        f64 wave = 2 * 3.14159265358979323846 / f;
        f64 t = (original / wave - low) / (high - low);
        d[i] = (f32)(wave < original / high ? 1
            : wave > original / low ? factor : 1 / ((1 - t) / factor + t));
    }
    gw_tensor *t = gw_add(c->g, str_of("rope_freqs.weight"), 1, &half);
    cv_source *s = xalloc(1, sizeof *s);
    s->made = d;
    t->src = s;
    t->rows = cv_made_rows;
    t->type = t->from = KSLLM_TYPE_F32;
    t->note = "";
}

static void cv_write_rope(cv *c) {
    const js *r = cv_rope(c), *type = cv_get(r, "rope_type|type");
    const js *local = js_get(js_get(c->config, "rope_parameters"),
        "sliding_attention");
    f64 base = cv_float(c->config, "rope_local_base_freq",
        cv_float(local, "rope_theta", 10000));
    c->theta = cv_float(c->config, "rope_theta", cv_float(r, "rope_theta",
        c->family->flags & CV_GEMMA ? 1e6 : 10000));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.freq_base"), (f32)c->theta);
    if (c->family->flags & CV_GEMMA && (base < 10000 || base > 10000))
        gw_kv_f32(c->g, cv_arch_key(c, "rope.freq_base_swa"), (f32)base);
    if (!type || js_is(type, "default")) return;
    if (js_is(type, "llama3")) {
        cv_write_llama3(c, r);
        return;
    }
    if (!js_is(type, "linear") && !js_is(type, "yarn"))
        die("%s/config.json: rope_type '%.*s' is not supported", c->dir,
            STR(js_text(type)));
    gw_kv_str(c->g, cv_arch_key(c, "rope.scaling.type"), js_text(type));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.factor"),
        (f32)cv_float(r, "factor", 1));
    if (!js_is(type, "yarn")) return;
    gw_kv_u32(c->g, cv_arch_key(c, "rope.scaling.original_context_length"),
        (u32)cv_float(r, "original_max_position_embeddings",
            (f64)cv_int(c, "max_position_embeddings", -1)));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.yarn_beta_fast"),
        (f32)cv_float(r, "beta_fast", 32));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.yarn_beta_slow"),
        (f32)cv_float(r, "beta_slow", 1));
}

static void cv_write_keys(cv *c) {
    gw *g = c->g;
    for (size_t i = 0; i < KS_LEN(CV_KEYS); i++) {
        const cv_key *k = &CV_KEYS[i];
        if (!cv_get(c->config, k->from) && !k->needed) continue;
        if (k->is_float) {
            f64 v = cv_float(c->config, k->from, -1);
            if (!(v > 0)) die("%s/config.json: '%s' is missing", c->dir,
                k->from);
            gw_kv_f32(g, cv_arch_key(c, k->to), (f32)v);
        } else {
            gw_kv_u32(g, cv_arch_key(c, k->to), (u32)cv_int(c, k->from, -1));
        }
    }
    gw_kv_u32(g, cv_arch_key(c, "attention.head_count_kv"), (u32)c->n_kv);
    gw_kv_u32(g, cv_arch_key(c, "attention.key_length"), (u32)c->head_dim);
    gw_kv_u32(g, cv_arch_key(c, "attention.value_length"), (u32)c->head_dim);
    gw_kv_u32(g, cv_arch_key(c, "rope.dimension_count"), (u32)c->head_dim);
    if (c->family->flags & CV_GEMMA) cv_write_gemma(c);
}

static void cv_write_sampling(const cv *c) {
    for (size_t i = 0; i < KS_LEN(CV_SAMPLING); i++) {
        const cv_key *k = &CV_SAMPLING[i];
        f64 v;
        if (!js_num(js_get(c->generation, k->from), &v) || v - v != 0) continue;
        if (k->is_float) {
            gw_kv_f32(c->g, k->to, (f32)v);
        } else {
            gw_key(c->g, k->to, KSLLM_META_I32);
            gw_u32(&c->g->kv, (u32)(i32)v);
        }
    }
}

static void cv_write_general(cv *c) {
    gw *g = c->g;
    const char *slash = strrchr(c->dir, '/');
    str name = str_of(slash && slash[1] ? slash + 1 : c->dir);
    str path = js_text(js_get(c->top, "_name_or_path"));
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] == '/') name = (str){path.p + i + 1, path.n - i - 1};
    gw_kv_str(g, "general.architecture", str_of(c->family->arch));
    gw_kv_str(g, "general.type", str_of("model"));
    gw_kv_str(g, "general.name", name);
    gw_kv_u32(g, "general.file_type", c->o->mix->number);
    if (!is_float_type(c->o->mix->base))
        gw_kv_u32(g, "general.quantization_version", 2);
}

/* ---- tensors ---- */

/* Matches a name with a pattern that has at most one "{}"; gives the layer. */
static bool cv_match(const char *pattern, str name, i64 *layer) {
    const char *gap = strstr(pattern, "{}");
    *layer = -1;
    if (!gap) return str_eq(name, str_of(pattern));
    size_t head = (size_t)(gap - pattern), tail = strlen(gap + 2), i = head;
    if (name.n <= head + tail || memcmp(name.p, pattern, head)) return false;
    i64 v = 0;
    for (; i < name.n - tail; i++) {
        if (name.p[i] < '0' || name.p[i] > '9' || v > 100000) return false;
        v = v * 10 + name.p[i] - '0';
    }
    *layer = v;
    return !memcmp(name.p + i, gap + 2, tail);
}

static str cv_gguf_name(const cv *c, str name) {
    const cv_name *lists[] = {c->family->names, c->family->more};
    for (int k = 0; k < 2; k++)
        for (const cv_name *n = lists[k]; n && n->from; n++) {
            i64 layer;
            if (!cv_match(n->from, name, &layer)) continue;
            if (layer >= c->n_layers)
                die("%s: tensor '%.*s' is beyond the %lld layers of "
                    "config.json", c->dir, STR(name), (long long)c->n_layers);
            char z[128];
            const char *gap = strstr(n->to, "{}");
            if (gap)
                snprintf(z, sizeof z, "%.*s%lld%s", (int)(gap - n->to), n->to,
                    (long long)layer, gap + 2);
            else
                snprintf(z, sizeof z, "%s", n->to);
            return str_of(str_dup(str_of(z)));
        }
    return (str){0};
}

static bool cv_skipped(str name) {
    char z[GGUF_MAX_NAME + 1];
    snprintf(z, sizeof z, "%.*s", (int)min_size(name.n, GGUF_MAX_NAME),
        name.p);
    for (size_t i = 0; i < KS_LEN(CV_SKIP); i++)
        if (!fnmatch(CV_SKIP[i], z, 0)) return true;
    return false;
}

/* Without what wraps a text model: "language_model.model.x" is "model.x". */
static str cv_bare(str name) {
    for (size_t i = 0; i < KS_LEN(CV_PREFIX); i++) {
        size_t n = strlen(CV_PREFIX[i]);
        if (name.n <= n || memcmp(name.p, CV_PREFIX[i], n)) continue;
        str rest = {name.p + n, name.n - n};
        if (i == 2) return rest;
        char z[GGUF_MAX_NAME];
        snprintf(z, sizeof z, "model.%.*s",
            (int)min_size(rest.n, GGUF_MAX_NAME - 16), rest.p);
        return str_of(str_dup(str_of(z)));
    }
    return name;
}

/* Which row of the source is row r of the result. */
static u64 cv_row(const cv_source *s, u64 r) {
    if (!s->head) return r;
    u64 in = r % s->head;
    return r - in + (in & 1) * (s->head / 2) + in / 2;
}

static void cv_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    const cv_source *s = t->src;
    u64 w = s->n_in;
    for (u64 r = row; r < row + n; r++, out += w) {
        u64 from = cv_row(s, r);
        st_values(s->t, from * w, w, out);
        for (u64 i = 0; s->scale && i < w; i++) {
            f32 k;
            st_values(s->scale, from / s->block_out * s->scale_in
                + i / s->block_in, 1, &k);
            out[i] *= k;
        }
        for (u64 i = 0; s->add != 0 && i < w; i++) out[i] += s->add;
    }
}

/* The scales of an F8 tensor: one, one per row, or one per block. */
static void cv_find_scale(const cv *c, cv_source *s, u64 n_out) {
    char name[GGUF_MAX_NAME + 32];
    static const char *const ends[] = {"_scale_inv", "_scale"};
    st_tensor *k = NULL;
    for (int i = 0; i < 2 && !k; i++) {
        int n = snprintf(name, sizeof name, "%.*s%s",
            (int)min_size(s->t->name.n, GGUF_MAX_NAME), s->t->name.p, ends[i]);
        k = st_find(&c->st, (str){name, (size_t)n});
    }
    if (!k) return;
    k->used = true;
    s->scale = k;
    u64 a = k->dims[0], b = k->n_dims > 1 ? k->dims[1] : 1;
    const js *block = js_get(js_get(c->top, "quantization_config"),
        "weight_block_size");
    i64 bo = 128, bi = 128;
    if (block && block->kind == JS_ARR && block->n == 2) {
        js_int(block->first, &bo);
        js_int(block->first->next, &bi);
    }
    if (a == 1 && b == 1) bo = (i64)n_out, bi = (i64)s->n_in;
    else if (a == n_out && b == 1) bo = 1, bi = (i64)s->n_in;
    if (bo < 1 || bi < 1 || k->n_dims > 2
        || a != (n_out + (u64)bo - 1) / (u64)bo
        || b != (s->n_in + (u64)bi - 1) / (u64)bi)
        die("%s: '%.*s' is %llu x %llu: not the scales of blocks of %lld x "
            "%lld", c->dir, STR(k->name), (unsigned long long)a,
            (unsigned long long)b, (long long)bo, (long long)bi);
    s->block_out = (u64)bo;
    s->block_in = (u64)bi;
    s->scale_in = b;
}

static void cv_add_tensor(cv *c, st_tensor *from, str name) {
    if (!from->n_dims || from->n_dims > 2 || !from->dims[0] || !from->dims[1])
        die("%s: tensor '%.*s' has %u dimensions, 1 or 2 were expected",
            c->dir, STR(from->name), from->n_dims);
    u64 dims[2] = {from->dims[from->n_dims - 1], from->dims[0]};
    gw_tensor *t = gw_add(c->g, name, from->n_dims, dims);
    cv_source *s = xalloc(1, sizeof *s);
    *s = (cv_source){.t = from, .n_in = dims[0]};
    u64 n_out = from->n_dims == 2 ? dims[1] : 1;
    bool bias = str_has(name, ".bias");
    if (c->family->flags & CV_PERMUTE
        && (str_has(name, "attn_q.") || str_has(name, "attn_k."))) {
        if ((bias ? dims[0] : n_out) % (u64)c->head_dim || c->head_dim % 2)
            die("%s: tensor '%.*s' does not divide into heads of %lld", c->dir,
                STR(from->name), (long long)c->head_dim);
        s->head = (u32)c->head_dim;
    }
    if (c->family->flags & CV_NORM_PLUS_1 && str_has(name, "norm.weight"))
        s->add = 1;
    if (bias && s->head) {
        /* a vector is one row: permuted here, values are few */
        f32 *v = xalloc(dims[0], sizeof *v), *w = xalloc(dims[0], sizeof *w);
        st_values(from, 0, dims[0], v);
        for (u64 i = 0; i < dims[0]; i++) w[i] = v[cv_row(s, i)];
        free(v);
        s->made = w;
        s->head = 0;
    }
    if (from->dtype == ST_F8_E4M3) cv_find_scale(c, s, n_out);
    from->used = true;
    t->src = s;
    t->rows = s->made ? cv_made_rows : cv_rows;
    t->from = ST_DTYPES[from->dtype].same;
    t->src_row_bytes = dims[0] * ST_DTYPES[from->dtype].bytes;
    t->data = from->data;
    qz_choose(c->o, t);
    qz_statistics(c->o, t);
}

static bool cv_tied(const cv *c) {
    const js *v = js_get(c->config, "tie_word_embeddings");
    if (!v) v = js_get(c->top, "tie_word_embeddings");
    if (!v) return (c->family->flags & CV_GEMMA) != 0;
    return js_true(v);
}

static void cv_plan(cv *c) {
    str unknown = {0};
    u32 n_unknown = 0, n_skipped = 0;
    bool tied = cv_tied(c);
    c->o->tied = tied;
    for (u32 i = 0; i < c->st.n; i++) {
        st_tensor *t = &c->st.t[i];
        if (cv_skipped(t->name)) {
            n_skipped++;
            continue;
        }
        str name = cv_gguf_name(c, cv_bare(t->name));
        if (tied && str_eq(name, str_of("output.weight"))) continue;
        if (name.n) cv_add_tensor(c, t, name);
    }
    for (u32 i = 0; i < c->st.n; i++) {
        const st_tensor *t = &c->st.t[i];
        str end = {t->name.p + t->name.n - min_size(t->name.n, 12),
            min_size(t->name.n, 12)};
        if (t->used || cv_skipped(t->name) || str_has(end, "input_scale")
            || (tied && str_eq(cv_gguf_name(c, cv_bare(t->name)),
                str_of("output.weight"))))
            continue;
        if (!n_unknown++) unknown = t->name;
    }
    if (n_unknown)
        die("%s: tensor '%.*s'%s no place in %s; without it the model would "
            "be another one", c->dir, STR(unknown),
            n_unknown > 1 ? " and others have" : " has", c->family->arch);
    if (n_skipped)
        fprintf(stderr, "%s: %u tensors of other parts are left out\n",
            c->dir, n_skipped);
}

static gw_tensor *cv_planned(const cv *c, const char *name) {
    for (u32 i = 0; i < c->g->n; i++)
        if (str_eq(c->g->t[i].name, str_of(name))) return &c->g->t[i];
    return NULL;
}

static void cv_check_plan(cv *c) {
    if (!cv_planned(c, "token_embd.weight"))
        die("%s: no token embedding among the tensors", c->dir);
    if (!cv_planned(c, "output.weight") && !cv_tied(c))
        die("%s: 'lm_head.weight' is missing and tie_word_embeddings is not "
            "set", c->dir);
    const mdl_arch *arch = NULL;
    for (size_t i = 0; i < KS_LEN(MDL_ARCHS); i++)
        if (!strcmp(MDL_ARCHS[i].name, c->family->arch)) arch = &MDL_ARCHS[i];
    if (!arch) {
        fprintf(stderr, "%s: this version of ksllm does not run architecture "
            "%s itself\n", c->dir, c->family->arch);
        return;
    }
    for (i64 n = 0; n < c->n_layers; n++) {
        char name[128];
        for (u32 i = 0; i < N_MATRICES + N_VECTORS; i++) {
            bool vector = i >= N_MATRICES;
            if (vector && !(arch->need & BIT(i - N_MATRICES))) continue;
            snprintf(name, sizeof name, "blk.%lld.%s", (long long)n,
                vector ? MDL_VECTORS[i - N_MATRICES].name
                       : MDL_MATRICES[i].name);
            if (!cv_planned(c, name))
                die("%s: nothing among the tensors becomes '%s'", c->dir,
                    name);
        }
    }
}

static const char CV_USAGE[] =
    "ksllm-quant convert DIR -o OUT.gguf [-t TYPE]   (default f16)\n"
    "  --pre NAME         the pre-tokenizer, where tokenizer.json's is not\n"
    "                     known: gpt-2 llama-bpe qwen2 exaone ...\n";

static void cv_run(cv *c, const char *pre) {
    c->top = json_read(c->dir, "config.json");
    if (!c->top || c->top->kind != JS_OBJ)
        die("%s: no config.json: not a model's folder", c->dir);
    c->generation = json_read(c->dir, "generation_config.json");
    cv_find_family(c);
    c->n_layers = cv_int(c, "num_hidden_layers|num_layers", -1);
    c->n_heads = cv_int(c, "num_attention_heads", -1);
    c->n_kv = cv_int(c, "num_key_value_heads", c->n_heads);
    c->n_embd = cv_int(c, "hidden_size", -1);
    if (!c->n_heads || !c->n_kv || c->n_layers > 100000)
        die("%s/config.json: no heads or layers", c->dir);
    c->head_dim = cv_int(c, "head_dim", c->n_embd / c->n_heads);
    c->o->n_layers = (u32)c->n_layers;
    c->o->gqa = (u32)(c->n_heads / c->n_kv);
    cv_check_config(c);
    st_open(&c->st, c->dir);
    cv_write_general(c);
    cv_write_keys(c);
    cv_write_rope(c);
    cv_write_sampling(c);
    cv_plan(c);
    cv_check_plan(c);
    const gw_tensor *embd = cv_planned(c, "token_embd.weight");
    tk_write(c->dir, c->config, c->generation, pre, (u32)embd->dims[1], c->g);
}

static int cv_main(int argc, char **argv) {
    qz_options o = {.mix = qz_mix_by_name("f16"), .damp = QZ_DAMP};
    args a = {argc, 1, argv};
    const char *pre = NULL, *v;
    gw g = {.n_kv = 0};
    cv c = {.g = &g, .o = &o};
    while (a.at < argc) {
        if (qz_option(&o, &a)) continue;
        if (arg_is(&a, "--pre", &v)) pre = v;
        else if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            printf("%s%s", CV_USAGE, QZ_OPTIONS);
            return 0;
        } else if (argv[a.at][0] == '-' || c.dir)
            die("what is '%s'?", argv[a.at]);
        else c.dir = argv[a.at++];
    }
    if (!c.dir) die("convert DIR -o OUT.gguf [-t TYPE]");
    char *dir = strdup(c.dir); /* "x/" is "x" */
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
        dir[n - 1] = 0;
    c.dir = dir;
    qz_check_options(&o);
    g.nonfinite = o.nonfinite;
    g.damp = o.damp;
    g.bar.quiet = o.quiet;
    cv_run(&c, pre);
    gw_lay(&g);
    if (!o.quiet || o.dry_run) qz_print_plan(&g, o.dry_run);
    if (!o.dry_run) gw_write(&g, o.out);
    return 0;
}
