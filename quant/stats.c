/* stats.c, part of ksllm-quant.c - activation statistics as a file: what
 * `calibrate` writes and `quantize --stats` reads.
 *
 * The file is a GGUF in the form of llama.cpp's imatrix files, so that either
 * program can use the other's: NAME.in_sum2 is the sum of x_i^2 over tokens,
 * [n_in], NAME.counts how many tokens. With --gram there is also NAME.in_gram,
 * the sum of x_i x_j, [n_in][n_in]; only once for tensors that share their
 * input. */

typedef struct {
    gguf g;
    bool open;
} stats;

static void stats_open(stats *s, const char *path) {
    gguf_file(&s->g, path);
    if (!str_eq(gguf_get_str(&s->g, "general.type"), str_of("imatrix")))
        die("%s: not a file of activation statistics", path);
    s->open = true;
}

/* Tensors that have the same input as one before them in the layer. */
static const char *const STATS_ALIAS[][2] = {
    {"attn_k.weight", "attn_q.weight"}, {"attn_v.weight", "attn_q.weight"},
    {"ffn_up.weight", "ffn_gate.weight"},
};

static const gguf_tensor *stats_find(
    const stats *s, str name, const char *suffix) {
    char key[GGUF_MAX_NAME + 32];
    if (!s->open || name.n > GGUF_MAX_NAME) return NULL;
    int n = snprintf(key, sizeof key, "%.*s%s", (int)name.n, name.p, suffix);
    const gguf_tensor *t = gguf_find_tensor(&s->g, (str){key, (size_t)n});
    for (size_t i = 0; !t && i < KS_LEN(STATS_ALIAS); i++) {
        size_t k = strlen(STATS_ALIAS[i][0]);
        if (name.n < k || memcmp(name.p + name.n - k, STATS_ALIAS[i][0], k))
            continue;
        n = snprintf(key, sizeof key, "%.*s%s%s", (int)(name.n - k), name.p,
            STATS_ALIAS[i][1], suffix);
        t = gguf_find_tensor(&s->g, (str){key, (size_t)n});
    }
    return t && t->type == KSLLM_TYPE_F32 ? t : NULL;
}

static f32 stats_count(const stats *s, str name) {
    const gguf_tensor *t = stats_find(s, name, ".counts");
    f32 n = t ? ld_f32(t->data) : 0;
    return n > 0 ? n : 0;
}

/* Mean of x_i^2 for the input of a tensor, allocated; NULL when the file does
 * not know it. */
static f32 *stats_importance(const stats *s, str name, u64 n) {
    const gguf_tensor *t = stats_find(s, name, ".in_sum2");
    f32 count = stats_count(s, name);
    if (!t || !(count > 0)) return NULL;
    if (t->dims[0] != n || t->n_rows != 1)
        die("%.*s: '%.*s' has %llu columns, the model's tensor %llu: these "
            "are another model's statistics", STR(s->g.name), STR(name),
            (unsigned long long)t->dims[0], (unsigned long long)n);
    f32 *imp = xalloc((size_t)n, sizeof *imp);
    f64 sum = 0;
    for (u64 i = 0; i < n; i++) {
        imp[i] = ld_f32(t->data + 4 * i) / count;
        if (!(imp[i] >= 0 && imp[i] <= 1e30f))
            die("%.*s: '%.*s' holds no sums of squares", STR(s->g.name),
                STR(name));
        sum += (f64)imp[i];
    }
    /* A column that the text never used may still be used one day. */
    f32 least = (f32)(sum / (f64)n) * 1e-3f;
    for (u64 i = 0; i < n; i++)
        imp[i] = sum > 0 ? (imp[i] > least ? imp[i] : least) : 1;
    return imp;
}
