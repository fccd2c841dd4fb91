/* calibrate.c, part of ksllm-quant.c - a text through a model, statistics of
 * what meets each matrix.
 *
 * The library calls cal_observe before each product (KSLLM_OBSERVE). Sums of
 * squares are small; sums of products x_i x_j (--gram) take n_in^2 floats per
 * input, so the layers are done in as many passes over the text as the memory
 * allowed wants. */

enum { CAL_BATCH = 128 };

typedef struct {
    const u8 *w;    /* the product's matrix, what a call is known by */
    str name;
    u64 n;
    f64 *sum2;      /* [n] */
    f64 count;
    f32 *gram;      /* [n][n], upper triangle; NULL: not in this pass */
    bool first;     /* of the tensors that share an input */
    u32 pass;
} cal_input;

typedef struct {
    cal_input *in;
    u32 n, pass;
    const f32 *x;   /* of the call under way */
    u64 m;
    cal_input *now;
} cal;

static cal *cal_now; /* the hook has no context; one calibration at a time */

enum { CAL_STRIP = 64 };

/* Rows [64 i, 64 i + 64) of the gram, from their diagonal on. */
static void cal_strip(void *arg, u64 i, void *scratch) {
    const cal *c = arg;
    (void)scratch;
    size_t n = (size_t)c->now->n, r = (size_t)i * CAL_STRIP;
    size_t m = min_size(CAL_STRIP, n - r);
    enc_gemm(c->now->gram + r * n + r, n, c->x + r, 1, n, c->x + r, n,
        (size_t)c->m, m, n - r);
}

static void cal_observe(
    const void *w, const float *x, size_t n_in, size_t m) {
    cal *c = cal_now;
    if (!c) return;
    for (u32 i = 0; i < c->n; i++) {
        cal_input *in = &c->in[i];
        if (in->w != w || in->n != n_in || !in->first) continue;
        if (!c->pass) {
            for (u64 t = 0; t < m; t++)
                for (u64 k = 0; k < n_in; k++)
                    in->sum2[k] += (f64)x[t * n_in + k] * (f64)x[t * n_in + k];
            in->count += (f64)m;
        }
        if (!in->gram) return;
        c->x = x;
        c->m = m;
        c->now = in;
        par_run((n_in + CAL_STRIP - 1) / CAL_STRIP, cal_strip, c, 1, NULL);
        return;
    }
}

static void cal_add(cal *c, const mdl_matrix *w, const char *name, i32 layer,
    bool first) {
    char z[96];
    if (layer < 0) snprintf(z, sizeof z, "%s", name);
    else snprintf(z, sizeof z, "blk.%d.%s", (int)layer, name);
    c->in = xgrow(c->in, c->n + 1, sizeof *c->in);
    c->in[c->n++] = (cal_input){.w = w->w, .name = str_of(str_dup(str_of(z))),
        .n = w->n_in, .first = first, .pass = 0};
    c->in[c->n - 1].sum2 = first ? xalloc(w->n_in, sizeof(f64))
                                 : c->in[c->n - 2].sum2;
}

/* The tensor that begins with this matrix; NULL: it lies within another. */
static const char *cal_name(
    const ksllm_model *m, const mdl_layer *l, u32 i) {
    char z[96];
    for (u32 k = 0; k < KS_LEN(MDL_FUSED); k++) {
        const mdl_fused *f = &MDL_FUSED[k];
        snprintf(z, sizeof z, "blk.%u.%s", (u32)(l - m->layers), f->name);
        if (mdl_fused_as(m, l, str_of(f->name)) != f || f->vectors
            || !gguf_find_tensor(&m->g, str_of(z)))
            continue;
        for (u32 j = 0; j < f->n; j++)
            if (f->parts[j] == i) return j ? NULL : f->name;
    }
    return MDL_MATRICES[i].name;
}

static void cal_list(cal *c, const ksllm_model *m) {
    static const bool first[N_MATRICES] = {
        [M_Q] = true, [M_O] = true, [M_GATE] = true, [M_DOWN] = true};
    /* Each matrix after the dense ones has an input of its own. */
    for (u32 n = 0; n < m->n_layers; n++)
        for (u32 i = 0; i < N_MATRICES; i++) {
            const mdl_layer *l = &m->layers[n];
            const char *name = l->mat[i].w ? cal_name(m, l, i) : NULL;
            bool own = first[i] || i > M_DOWN || (i == M_K && !l->mat[M_Q].w);
            if (name) cal_add(c, &l->mat[i], name, (i32)n, own);
        }
    if (m->embds_proj.w)
        cal_add(c, &m->embds_proj, "per_layer_model_proj.weight", -1, true);
    cal_add(c, &m->output,
        m->output.w == m->embd.w ? "token_embd.weight" : "output.weight", -1,
        true);
}

/* Which pass takes whose gram; returns how many passes. */
static u32 cal_passes(cal *c, u64 budget) {
    u64 used = 0;
    u32 pass = 0;
    for (u32 i = 0; i < c->n; i++) {
        if (!c->in[i].first) continue;
        u64 size = c->in[i].n * c->in[i].n * sizeof(f32);
        if (used && used + size > budget) pass++, used = 0;
        used += size;
        c->in[i].pass = pass;
    }
    return pass + 1;
}

static void cal_run_text(cal *c, ksllm_session *s, const i32 *tokens, u64 n,
    i32 bos, u32 window, f32 *logits, progress *bar) {
    ksllm_error err = {0};
    u32 room = window - (bos >= 0);
    i32 *w = xalloc(window, sizeof *w);
    (void)c;
    for (u64 at = 0; at < n; at += room) {
        u32 k = (u32)(n - at < room ? n - at : room), m = 0;
        if (bos >= 0) w[m++] = bos;
        memcpy(w + m, tokens + at, k * sizeof *w);
        m += k;
        ksllm_session_rewind(s, 0, NULL);
        for (u32 i = 0; i < m; i += CAL_BATCH) {
            u32 step = min_u32(CAL_BATCH, m - i);
            if (ksllm_session_append_logits(s, w + i, step, logits, NULL, &err))
                die("%s", err.text);
            AT_ADD(&bar->done, step);
            progress_tick(bar);
        }
    }
    free(w);
}

static const char CAL_USAGE[] =
    "ksllm-quant calibrate MODEL.gguf TEXT... -o STATS\n"
    "  --gram            also how inputs go together: for quantize --refine.\n"
    "                    4 n^2 bytes per input of n values\n"
    "  --memory MB       for these; more passes if they do not fit (4096)\n"
    "  --window N        tokens of context each (512)\n"
    "  --tokens N        no more than the first N\n"
    "  --threads N\n"
    "  --quiet\n";

typedef struct {
    const char *model, *out;
    const char **texts;
    u32 n_texts, window;
    u64 limit, memory;
    bool gram, quiet;
} cal_options;

static void cal_vector_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    const cal_input *in = t->src;
    (void)row;
    (void)n;
    if (t->dims[0] == 1 && str_has(t->name, ".counts")) {
        out[0] = (f32)in->count;
        return;
    }
    for (u64 i = 0; i < in->n; i++) out[i] = (f32)in->sum2[i];
}

static void cal_lay(const cal *c, gw *g, bool gram) {
    char z[128];
    for (u32 i = 0; i < c->n; i++) {
        const cal_input *in = &c->in[i];
        const char *ends[] = {".in_sum2", ".counts", ".in_gram"};
        for (int k = 0; k < 3; k++) {
            if (k == 2 && (!gram || !in->first)) continue;
            snprintf(z, sizeof z, "%.*s%s", STR(in->name), ends[k]);
            u64 dims[2] = {k == 1 ? 1 : in->n, k == 2 ? in->n : 1};
            gw_tensor *t = gw_add(g, str_of(str_dup(str_of(z))), 2, dims);
            t->src = in;
            t->type = t->from = KSLLM_TYPE_F32;
            t->rows = cal_vector_rows;
            t->note = "";
        }
    }
    gw_lay(g);
}

static void cal_write_grams(const cal *c, gw *g) {
    for (u32 k = 0; k < g->n; k++) {
        gw_tensor *t = &g->t[k];
        cal_input *in = (cal_input *)(uintptr_t)t->src;
        if (!in->gram || in->pass != c->pass
            || !str_has(t->name, ".in_gram")) continue;
        size_t n = (size_t)in->n;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < i; j++)
                in->gram[i * n + j] = in->gram[j * n + i];
        out_write_at(&g->out, in->gram, n * n * sizeof(f32),
            g->data + t->offset);
        free(in->gram);
        in->gram = NULL;
    }
}

static void cal_write_sums(const cal *c, gw *g) {
    for (u32 k = 0; k < g->n; k++) {
        gw_tensor *t = &g->t[k];
        if (str_has(t->name, ".in_gram")) continue;
        f32 *v = xalloc(t->dims[0], sizeof *v);
        cal_vector_rows(t, 0, 1, v);
        if (str_has(t->name, ".counts")) { /* those that share an input */
            const cal_input *in = t->src;
            while (!in->first) in--;
            v[0] = (f32)in->count;
        }
        out_write_at(&g->out, v, (size_t)t->dims[0] * sizeof *v,
            g->data + t->offset);
        free(v);
    }
    (void)c;
}

static void cal_write_head(const cal_options *o, gw *g, u64 n_tokens) {
    gw_kv_str(g, "general.type", str_of("imatrix"));
    gw_kv_array(g, "imatrix.datasets", KSLLM_META_TEXT, o->n_texts);
    for (u32 i = 0; i < o->n_texts; i++)
        gw_str(&g->kv, str_of(path_last(o->texts[i])));
    gw_kv_u32(g, "imatrix.chunk_count",
        (u32)((n_tokens + o->window - 1) / o->window));
    gw_kv_u32(g, "imatrix.chunk_size", o->window);
}

static void cal_go(const cal_options *o) {
    ksllm_model *m;
    ksllm_session *s;
    ksllm_session_options so;
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error err = {0};
    cal c = {.pass = 0};
    gw g = {.n_kv = 0};
    in_check(o->model);
    if (ksllm_model_open(o->model, NULL, &m, &err)) die("%s", err.text);
    ksllm_model_get_info(m, &info, NULL);
    u64 n = 0, total = 0;
    i32 **tokens = xalloc(o->n_texts, sizeof *tokens);
    u64 *counts = xalloc(o->n_texts, sizeof *counts);
    for (u32 i = 0; i < o->n_texts; i++) {
        tokens[i] = cmp_read_text(m, o->texts[i], &n);
        counts[i] = total + n > o->limit ? o->limit - total : n;
        total += counts[i];
    }
    if (!total) die("no text");
    cal_list(&c, m);
    /* Only what comes into the head is wanted, not its logits: a model of our
     * own whose head is 8 rows high. The open one is immutable. */
    ksllm_model headless = *m;
    headless.output.n_out = min_size(m->output.n_out, 8);
    ksllm_session_options_init(&so);
    so.n_ctx = o->window;
    so.n_batch = CAL_BATCH;
    so.n_threads = n_workers;
    so.kv_type = KSLLM_TYPE_F32;
    if (ksllm_session_create(&headless, &so, &s, &err)) die("%s", err.text);
    f32 *logits = xalloc((size_t)CAL_BATCH * info.n_vocab, sizeof *logits);
    u32 passes = o->gram ? cal_passes(&c, o->memory << 20) : 1;
    cal_write_head(o, &g, total);
    cal_lay(&c, &g, o->gram);
    out_open(&g.out, o->out);
    out_append(&g.out, g.head.p, g.head.n);
    out_resize(&g.out, g.end);
    progress bar = {.quiet = o->quiet};
    progress_begin(&bar, "calibrating", total * passes);
    cal_now = &c;
    for (c.pass = 0; c.pass < passes; c.pass++) {
        for (u32 i = 0; i < c.n; i++)
            if (o->gram && c.in[i].first && c.in[i].pass == c.pass)
                c.in[i].gram = xalloc(c.in[i].n * c.in[i].n, sizeof(f32));
        for (u32 i = 0; i < o->n_texts; i++)
            cal_run_text(&c, s, tokens[i], counts[i],
                info.adds_bos ? info.bos : -1, o->window, logits, &bar);
        cal_write_grams(&c, &g);
    }
    cal_now = NULL;
    if (!(c.in[0].count > 0))
        die("nothing was observed: ksllm.c does not call KSLLM_OBSERVE");
    cal_write_sums(&c, &g);
    progress_end(&bar);
    out_finish(&g.out);
    if (!o->quiet)
        fprintf(stderr, "%s: %llu tokens, %u pass%s, %.1f MB, %.1f s\n",
            o->out, (unsigned long long)total, passes, passes > 1 ? "es" : "",
            (f64)g.end / 1e6, now_seconds() - bar.start);
    ksllm_session_free(s);
    ksllm_model_close(m);
}

static int cal_main(int argc, char **argv) {
    cal_options o = {.window = 512, .limit = 1 << 24, .memory = 4096};
    args a = {argc, 1, argv};
    const char *v;
    o.texts = xalloc((size_t)argc, sizeof *o.texts);
    while (a.at < argc) {
        if (arg_threads(&a)) continue;
        if (arg_is(&a, "-o", &v) || arg_is(&a, "--output", &v)) o.out = v;
        else if (arg_is(&a, "--gram", NULL)) o.gram = true;
        else if (arg_is(&a, "--quiet", NULL)) o.quiet = true;
        else if (arg_is(&a, "--memory", &v))
            o.memory = arg_number("--memory", v, 1, 1 << 24);
        else if (arg_is(&a, "--window", &v))
            o.window = (u32)arg_number("--window", v, 8, 1 << 20);
        else if (arg_is(&a, "--tokens", &v))
            o.limit = arg_number("--tokens", v, 2, 1 << 24);
        else if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            fputs(CAL_USAGE, stdout);
            return 0;
        } else if (argv[a.at][0] == '-') arg_unknown(&a);
        else if (!o.model) o.model = argv[a.at++];
        else o.texts[o.n_texts++] = argv[a.at++];
    }
    if (!o.model || !o.n_texts || !o.out)
        die("calibrate MODEL.gguf TEXT... -o STATS");
    n_workers = workers_wanted();
    cal_go(&o);
    return 0;
}
