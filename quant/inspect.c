/* inspect.c, part of ksllm-quant.c - what a file holds. */

static void ins_value(const gguf_kv *kv, bool json) {
    bool array = kv->type == KSLLM_META_ARRAY;
    u64 shown = array && !json && kv->count > 6 ? 6 : kv->count;
    const u8 *p = kv->data;
    if (array && json && kv->count > 64) shown = 64; /* vocabularies */
    if (array) putchar('[');
    for (u64 i = 0; i < shown; i++) {
        f64 d;
        i64 v;
        if (i) fputs(", ", stdout);
        if (kv->item == KSLLM_META_TEXT) {
            str s = gguf_next_str(&p);
            if (!json && s.n > 60) {
                js_print(stdout, (str){s.p, 57});
                printf("... (%llu bytes)", LLU(s.n));
            } else js_print(stdout, s);
        } else if (kv->item == KSLLM_META_BOOL)
            fputs(kv->data[i] ? "true" : "false", stdout);
        else if (gguf_int_at(kv, i, &v)) printf("%lld", (long long)v);
        else if (gguf_num_at(kv, i, &d)) {
            if (d - d == 0) printf("%.7g", d);
            else fputs("null", stdout);
        }
    }
    if (array && !json && shown < kv->count)
        printf(", ... %llu items", (unsigned long long)kv->count);
    if (array) putchar(']');
}

static void ins_metadata(const gguf *g, bool json) {
    for (u32 i = 0; i < g->n_kv; i++) {
        const gguf_kv *kv = &g->kv[i];
        if (json) {
            printf("%s\n    ", i ? "," : "");
            js_print(stdout, kv->key);
            printf(": ");
            if (kv->type == KSLLM_META_ARRAY)
                printf("{\"items\": %llu, \"first\": ",
                    (unsigned long long)kv->count);
        } else {
            printf("  %-44.*s ", STR(kv->key));
        }
        ins_value(kv, json);
        if (json && kv->type == KSLLM_META_ARRAY) putchar('}');
        if (!json) putchar('\n');
    }
}

static void ins_tensors(const gguf *g, bool json) {
    for (u32 i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        if (json) {
            printf("%s\n    {\"name\": ", i ? "," : "");
            js_print(stdout, t->name);
            printf(", \"type\": \"%s\", \"dims\": [", BLK_TYPES[t->type].name);
            for (u32 k = 0; k < t->n_dims; k++)
                printf("%s%llu", k ? ", " : "",
                    (unsigned long long)t->dims[k]);
            printf("], \"offset\": %llu, \"bytes\": %llu}",
                (unsigned long long)t->offset, (unsigned long long)t->bytes);
            continue;
        }
        char dims[96];
        int n = 0;
        for (u32 k = 0; k < t->n_dims; k++)
            n += snprintf(dims + n, sizeof dims - (size_t)n, "%s%llu",
                k ? " x " : "", (unsigned long long)t->dims[k]);
        printf("  %-40.*s %-7s %-20s %10.3f MB\n", STR(t->name),
            BLK_TYPES[t->type].name, dims, (f64)t->bytes / 1e6);
    }
}

static void ins_types(const gguf *g, bool json) {
    u64 n[KS_LEN(BLK_TYPES)] = {0}, size[KS_LEN(BLK_TYPES)] = {0};
    u64 weights = 0, total = 0;
    bool first = true;
    for (u32 i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        n[t->type]++;
        size[t->type] += t->bytes;
        total += t->bytes;
        weights += t->dims[0] * t->n_rows;
    }
    for (u32 i = 0; i < KS_LEN(BLK_TYPES); i++) {
        if (!n[i]) continue;
        if (json) {
            printf("%s\"%s\": {\"tensors\": %llu, \"bytes\": %llu}",
                first ? "" : ", ", BLK_TYPES[i].name,
                (unsigned long long)n[i], (unsigned long long)size[i]);
        } else {
            printf("  %-8s %5llu tensors %10.1f MB\n", BLK_TYPES[i].name,
                (unsigned long long)n[i], (f64)size[i] / 1e6);
        }
        first = false;
    }
    f64 bits = weights ? 8 * (f64)total / (f64)weights : 0;
    if (json)
        printf("},\n  \"parameters\": %llu, \"bits_per_weight\": %.4f",
            (unsigned long long)weights, bits);
    else
        printf("  %llu weights, %.1f MB, %.3f bits per weight\n",
            (unsigned long long)weights, (f64)total / 1e6, bits);
}

/* What a session would take: asked of the library, where it can run it. */
static void ins_memory(const char *path, bool json) {
    static const u32 contexts[] = {512, 2048, 4096, 8192, 32768};
    ksllm_model *m;
    ksllm_error err = {0};
    ksllm_model_info info = {.size = sizeof info};
    if (ksllm_model_open(path, NULL, &m, &err)) {
        if (json) {
            printf("null, \"memory_error\": ");
            js_print(stdout, str_of(err.text));
        } else printf("  none: %s\n", err.text);
        return;
    }
    ksllm_model_get_info(m, &info, NULL);
    if (json) putchar('[');
    for (size_t i = 0; i < KS_LEN(contexts); i++) {
        ksllm_session_options o;
        ksllm_memory mem = {.size = sizeof mem};
        ksllm_session_options_init(&o);
        o.n_ctx = contexts[i];
        o.n_threads = 4;
        if (info.n_ctx_train && contexts[i] > info.n_ctx_train && i) break;
        if (ksllm_session_memory(m, &o, &mem, &err)) break;
        if (json)
            printf("%s{\"context\": %u, \"session\": %zu, \"kv\": %zu}",
                i ? ", " : "", contexts[i], mem.total, mem.kv);
        else
            printf("  %6u tokens: %8.1f MB, of it %8.1f MB KV cache\n",
                contexts[i], (f64)mem.total / 1e6, (f64)mem.kv / 1e6);
    }
    if (json) putchar(']');
    ksllm_model_close(m);
}

static int ins_main(int argc, char **argv) {
    args a = {argc, 1, argv};
    const char *path = NULL;
    bool json = false;
    while (a.at < argc) {
        if (arg_is(&a, "--json", NULL)) json = true;
        else if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            puts("ksllm-quant inspect FILE.gguf [--json]");
            return 0;
        } else if (argv[a.at][0] == '-' || path) arg_unknown(&a);
        else path = argv[a.at++];
    }
    if (!path) die("inspect FILE.gguf [--json]");
    gguf g;
    gguf_file(&g, path);
    printf(json ? "{\n  \"version\": %u,\n  \"metadata\": {"
                : "GGUF version %u\n\nmetadata\n", (unsigned)g.version);
    ins_metadata(&g, json);
    printf(json ? "\n  },\n  \"tensors\": [" : "\ntensors\n");
    ins_tensors(&g, json);
    printf(json ? "\n  ],\n  \"types\": {" : "\ntypes\n");
    ins_types(&g, json);
    printf(json ? ",\n  \"memory\": "
                : "\nmemory of a session, besides the weights\n");
    ins_memory(path, json);
    if (json) puts("\n}");
    gguf_close(&g, &MEM_LIBC);
    return 0;
}
