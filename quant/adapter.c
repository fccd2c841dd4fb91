/* adapter.c, part of ksllm-quant.c - a LoRA adapter of PEFT to GGUF, in the
 * form of llama.cpp's convert_lora_to_gguf.py; and the command `convert`, which
 * tells a model's folder from an adapter's.
 *
 * An adapter is two matrices beside each that it changes: A, whose rows are of
 * the matrix's inputs, and B, one row for each of its outputs. So B's rows
 * change places as the matrix's do, and A is as it was. */

/* What is no plain LoRA, when it is anything but false, null or empty. */
static const char *const AD_OFF[] = {
    "use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias",
    "alpha_pattern", "layer_replication", "modules_to_save",
    "target_parameters", "trainable_token_indices", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config",
};

static bool ad_is_adapter(const char *dir) {
    return folder_has(dir, "adapter_config.json")
        && !folder_has(dir, "model.safetensors")
        && !folder_has(dir, "model.safetensors.index.json");
}

static bool ad_is_on(const js *v) {
    bool empty = v && (v->kind == JS_ARR || v->kind == JS_OBJ) && !v->n;
    return v && v->kind != JS_NULL && !empty
        && (v->kind != JS_BOOL || js_true(v));
}

/* alpha as GGUF has it: the product is scaled by alpha / rank. */
static f64 ad_read_config(const char *dir, const js *a) {
    static const char *const starts[] = {"gaussian", "eva", "orthogonal"};
    f64 r, alpha;
    if (!a || a->kind != JS_OBJ) die("%s/adapter_config.json: no object", dir);
    if (!js_is(js_get(a, "peft_type"), "LORA"))
        die("%s/adapter_config.json: peft_type '%.*s'; LORA can be converted",
            dir, STR(js_text(js_get(a, "peft_type"))));
    for (size_t i = 0; i < KS_LEN(AD_OFF); i++)
        if (ad_is_on(js_get(a, AD_OFF[i])))
            die("%s/adapter_config.json: '%s' cannot be converted", dir,
                AD_OFF[i]);
    const js *bias = js_get(a, "bias");
    if (bias && !js_is(bias, "none"))
        die("%s/adapter_config.json: 'bias' is not none: GGUF adapters have no "
            "biases", dir);
    const js *start = js_get(a, "init_lora_weights");
    bool plain = !start || start->kind != JS_STR;
    for (size_t i = 0; i < KS_LEN(starts); i++)
        plain |= js_is(start, starts[i]);
    if (!plain)
        die("%s/adapter_config.json: init_lora_weights '%.*s' changes the "
            "model's own weights: save it with "
            "path_initial_model_for_weight_conversion, as peft describes", dir,
            STR(js_text(start)));
    if (!js_num(js_get(a, "r"), &r) || !(r >= 1 && r <= (f64)ADA_MAX_RANK)
        || !js_num(js_get(a, "lora_alpha"), &alpha)
        || !(alpha > -1e6 && alpha < 1e6) || (!(alpha > 0) && !(alpha < 0)))
        die("%s/adapter_config.json: no sensible 'r' and 'lora_alpha'", dir);
    if (!js_true(js_get(a, "use_rslora"))) return alpha;
    if (ad_is_on(js_get(a, "rank_pattern")))
        die("%s/adapter_config.json: 'use_rslora' with 'rank_pattern' cannot "
            "be converted", dir);
    return alpha * sqrt(r);
}

/* "base_model.model.NAME.lora_A.weight" to NAME and 'a'. */
static bool ad_split(str name, str *module, char *half) {
    static const char front[] = "base_model.model.";
    static const char *const ends[] = {".lora_A.weight", ".lora_B.weight"};
    const size_t n = sizeof front - 1, end = strlen(ends[0]);
    if (name.n <= n + end || memcmp(name.p, front, n)) return false;
    *module = (str){name.p + n, name.n - n - end};
    for (int i = 0; i < 2; i++)
        if (!memcmp(name.p + name.n - end, ends[i], end)) {
            *half = (char)('a' + i);
            return true;
        }
    return false;
}

/* One half of a pair, to every matrix that its module becomes. */
static void ad_add(cv *c, st_tensor *from, str module, char half) {
    char z[GGUF_MAX_NAME + 16];
    snprintf(z, sizeof z, "%.*s.weight", (int)min_size(module.n, GGUF_MAX_NAME),
        module.p);
    str name = cv_bare(c, str_of(z));
    u32 k = 0;
    if (from->n_dims != 2)
        die("%s: tensor '%.*s' is no matrix", c->dir, STR(from->name));
    for (;; k++) {
        cv_place place = cv_place_of(c, name, k);
        if (!place.name.n) break;
        if (place.expert >= 0 || str_has(place.name, ".attn_k_b.")
            || str_has(place.name, ".attn_v_b.")
            || str_has(place.name, "token_embd."))
            die("%s: tensor '%.*s': what becomes '%.*s' cannot have an "
                "adapter: train it without", c->dir, STR(from->name),
                STR(place.name));
        snprintf(z, sizeof z, "%.*s.lora_%c", STR(place.name), half);
        cv_add_tensor(c, from, str_of(str_dup(str_of(z))), half == 'b');
        c->g->t[c->g->n - 1].type = c->o->mix->base;
    }
    if (!k)
        die("%s: tensor '%.*s' has no place in %s", c->dir, STR(from->name),
            c->family->arch);
}

static void ad_plan(cv *c) {
    u32 n_own = 0;
    for (u32 i = 0; i < c->st.n; i++) {
        st_tensor *t = &c->st.t[i];
        str module;
        char half;
        if (ad_split(t->name, &module, &half)) ad_add(c, t, module, half);
        else if (!str_has(t->name, ".base_layer.weight"))
            die("%s: tensor '%.*s' is no part of a plain LoRA", c->dir,
                STR(t->name));
        else n_own++;
    }
    if (n_own)
        fprintf(stderr, "%s: %u tensors left out: the model's own\n", c->dir,
            n_own);
    if (!c->g->n) die("%s: no tensors", c->dir);
    for (u32 i = 0; i < c->g->n; i++) {
        const gw_tensor *t = &c->g->t[i];
        char other[GGUF_MAX_NAME + 32];
        snprintf(other, sizeof other, "%.*s", STR(t->name));
        other[t->name.n - 1] ^= 'a' ^ 'b';
        const gw_tensor *u = cv_planned(c, str_of(other));
        if (!u) die("%s: no '%s' to '%.*s'", c->dir, other, STR(t->name));
        const gw_tensor *a = other[t->name.n - 1] == 'a' ? u : t;
        const gw_tensor *b = a == u ? t : u;
        if (a->dims[1] != b->dims[0])
            die("%s: '%.*s' and '%s' differ in rank", c->dir, STR(t->name),
                other);
    }
}

static void ad_write_invocation(const cv *c, const js *list) {
    if (!list || list->kind != JS_ARR || !list->n) return;
    gw_kv_array(c->g, "adapter.alora.invocation_tokens", KSLLM_META_U32,
        list->n);
    for (const js *v = list->first; v; v = v->next) {
        i64 id;
        if (!js_int(v, &id) || id < 0 || id > INT32_MAX)
            die("%s/adapter_config.json: 'alora_invocation_tokens' is no list "
                "of tokens", c->dir);
        gw_u32(&c->g->kv, (u32)id);
    }
}

/* c->dir is the adapter's folder, `base` that of its model. */
static void ad_run(cv *c, const char *base) {
    const char *dir = c->dir;
    const js *config = json_read(dir, "adapter_config.json");
    f64 alpha = ad_read_config(dir, config);
    str of = js_text(js_get(config, "base_model_name_or_path"));
    if (!base)
        die("%s: an adapter: give the folder of its model ('%.*s') with "
            "--base", dir, STR(of));
    if (!is_float_type(c->o->mix->base))
        die("%s: an adapter: -t f16, f32 or bf16", dir);
    c->dir = base;
    cv_read_config(c);
    c->dir = dir;
    st_add_file(&c->st, dir, str_of("adapter_model.safetensors"));
    st_check(&c->st);
    static const char bare[] = "base_model.model.layers.";
    for (u32 i = 0; i < c->st.n; i++)
        c->headless |= c->st.t[i].name.n > sizeof bare
            && !memcmp(c->st.t[i].name.p, bare, sizeof bare - 1);
    gw_kv_str(c->g, "general.architecture", str_of(c->family->arch));
    gw_kv_str(c->g, "general.type", str_of("adapter"));
    gw_kv_str(c->g, "general.name", str_of(path_last(dir)));
    gw_kv_str(c->g, "adapter.type", str_of("lora"));
    gw_kv_f32(c->g, "adapter.lora.alpha", (f32)alpha);
    ad_write_invocation(c, js_get(config, "alora_invocation_tokens"));
    ad_plan(c);
}

static const char CV_USAGE[] =
    "ksllm-quant convert DIR -o OUT.gguf [-t TYPE]   (default f16)\n"
    "ksllm-quant convert ADAPTER --base DIR -o OUT.gguf [-t f16|f32|bf16]\n"
    "  --no-media         the language model alone, of one that sees or hears\n"
    "  --media-only       its towers alone, as a second file (mmproj)\n"
    "  --base DIR         the folder of the model that a LoRA adapter of PEFT\n"
    "                     is for; its config.json will do\n"
    "  --pre NAME         the pre-tokenizer, where tokenizer.json's is not\n"
    "                     known: gpt-2 llama-bpe qwen2 exaone ...\n";

static int cv_main(int argc, char **argv) {
    qz_options o = {.mix = qz_mix_by_name("f16"), .damp = QZ_DAMP};
    args a = {argc, 1, argv};
    const char *pre = NULL, *base = NULL, *v;
    gw g = {.n_kv = 0};
    cv c = {.g = &g, .o = &o};
    while (a.at < argc) {
        if (qz_option(&o, &a)) continue;
        if (arg_is(&a, "--pre", &v)) pre = v;
        else if (arg_is(&a, "--no-media", NULL)) c.no_media = true;
        else if (arg_is(&a, "--media-only", NULL)) c.media_only = true;
        else if (arg_is(&a, "--base", &v)) base = v;
        else if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            printf("%s%s", CV_USAGE, QZ_OPTIONS);
            return 0;
        } else if (argv[a.at][0] == '-' || c.dir) arg_unknown(&a);
        else c.dir = argv[a.at++];
    }
    if (!c.dir) die("convert DIR -o OUT.gguf [-t TYPE]");
    char *dir = strdup(c.dir); /* "x/" is "x" */
    for (size_t n = strlen(dir); n > 1 && sys_is_slash(dir[n - 1]); n--)
        dir[n - 1] = 0;
    c.dir = dir;
    if (c.no_media && c.media_only) die("--no-media and --media-only: nothing");
    qz_check_options(&o);
    g.nonfinite = o.nonfinite;
    g.damp = o.damp;
    g.bar.quiet = o.quiet;
    bool adapter = ad_is_adapter(dir);
    if (adapter) ad_run(&c, base);
    else if (base) die("%s: --base, but it is no adapter", dir);
    else cv_run(&c, pre);
    gw_lay(&g);
    if (!adapter && !c.media_only) cv_try(&c);
    if (!o.quiet || o.dry_run) qz_print_plan(&g, o.dry_run);
    if (!o.dry_run) gw_write(&g, o.out);
    return 0;
}
