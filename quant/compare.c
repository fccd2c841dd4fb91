/* compare.c, part of ksllm-quant.c - models on one text: perplexity, and how
 * far the next-token distributions of the tested are from those of the
 * reference. */

enum { CMP_BATCH = 64, CMP_MAX_TESTS = 64 };

typedef struct {
    const char *path;
    ksllm_model *m;
    ksllm_session *s;
    f32 *logits;        /* [CMP_BATCH][n_vocab] */
    f64 bits;           /* per weight */
    f64 nll;            /* sum over positions that have a next token */
    f64 *kl;            /* [n_all] per position */
    u64 same;           /* first choices that agree */
} cmp_side;

typedef struct {
    cmp_side ref, test[CMP_MAX_TESTS];
    u32 n_tests, n_vocab, n_ctx;
    i32 *tokens;        /* [n_tokens] without BOS */
    u64 n_tokens, n_done, n_scored;
    f64 (*rows)[4];     /* per row of a batch: scratch of the workers */
    cmp_side *now;
    const i32 *next;    /* the batch's following tokens */
    u32 m;
} cmp;

static void cmp_die(const char *path, const ksllm_error *err) {
    die("%s: %s", path, err->text);
}

/* Products in float: every matrix as the floats it stands for. What is left
 * to differ is the rounding of the weights alone. */
static void cmp_dequantize(mdl_matrix *w) {
    if (w->type == KSLLM_TYPE_F32) return;
    f32 *x = malloc(w->n_in * w->n_out * w->n * sizeof *x);
    if (!x) die("out of memory: --weights-only takes 4 bytes per weight");
    for (size_t r = 0; r < w->n_out * w->n; r++)
        blk_row(w->type, w->w + r / w->n_out * w->apart
            + r % w->n_out * w->row_bytes, w->n_in, x + r * w->n_in);
    w->w = (const u8 *)x;
    w->type = KSLLM_TYPE_F32;
    w->row_bytes = w->n_in * sizeof *x;
    w->apart = w->n_out * w->row_bytes;
}

static void cmp_weights_only(ksllm_model *m) {
    bool tied = m->output.w == m->embd.w;
    cmp_dequantize(&m->embd);
    if (tied) m->output = m->embd;
    else cmp_dequantize(&m->output);
    for (u32 l = 0; l < m->n_layers; l++)
        for (u32 i = 0; i < N_MATRICES; i++)
            cmp_dequantize(&m->layers[l].mat[i]);
}

static void cmp_open(cmp *c, cmp_side *s, const char *path, bool exact) {
    ksllm_error err = {0};
    ksllm_session_options so;
    ksllm_model_info info = {.size = sizeof info};
    s->path = path;
    in_check(path);
    if (ksllm_model_open(path, NULL, &s->m, &err)) cmp_die(path, &err);
    ksllm_model_get_info(s->m, &info, NULL);
    s->bits = 8 * (f64)info.weight_bytes / (f64)info.n_parameters;
    if (c->n_vocab && info.n_vocab != c->n_vocab)
        die("%s: %u tokens in its vocabulary, the reference has %u", path,
            (unsigned)info.n_vocab, (unsigned)c->n_vocab);
    c->n_vocab = info.n_vocab;
    if (exact) cmp_weights_only(s->m);
    ksllm_session_options_init(&so);
    so.n_ctx = c->n_ctx;
    so.n_batch = CMP_BATCH;
    so.n_threads = n_workers;
    so.kv_type = KSLLM_TYPE_F32;
    if (ksllm_session_create(s->m, &so, &s->s, &err)) cmp_die(path, &err);
    s->logits = xalloc((size_t)CMP_BATCH * c->n_vocab, sizeof(f32));
}

/* ln of the sum of exp, and the place of the largest. */
static f64 cmp_log_sum(const f32 *x, u32 n, u32 *top) {
    u32 best = 0;
    for (u32 i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    f64 sum = 0;
    for (u32 i = 0; i < n; i++) sum += (f64)expf(x[i] - x[best]);
    *top = best;
    return (f64)x[best] + log(sum);
}

/* Row r: KL(ref || test), both scores of the next token, agreement. */
static void cmp_row(void *arg, u64 r, void *scratch) {
    cmp *c = arg;
    (void)scratch;
    const f32 *a = c->ref.logits + r * c->n_vocab;
    const f32 *b = c->now->logits + r * c->n_vocab;
    u32 ta, tb;
    f64 la = cmp_log_sum(a, c->n_vocab, &ta), kl = 0;
    f64 lb = cmp_log_sum(b, c->n_vocab, &tb);
    for (u32 i = 0; i < c->n_vocab; i++) {
        f64 d = (f64)a[i] - (f64)b[i];
        kl += (f64)expf(a[i] - (f32)la) * (d - (la - lb));
    }
    i32 next = c->next[r];
    c->rows[r][0] = kl;
    c->rows[r][1] = next < 0 ? 0 : la - (f64)a[next];
    c->rows[r][2] = next < 0 ? 0 : lb - (f64)b[next];
    c->rows[r][3] = ta == tb;
}

static void cmp_eval(cmp_side *s, const i32 *tokens, u32 m) {
    ksllm_error err = {0};
    if (ksllm_session_append_logits(s->s, tokens, m, s->logits, NULL, &err))
        cmp_die(s->path, &err);
}

static void cmp_batch(cmp *c, const i32 *tokens, u32 m, bool last) {
    i32 next[CMP_BATCH];
    for (u32 i = 0; i < m; i++)
        next[i] = last && i + 1 == m ? -1 : tokens[i + 1];
    c->next = next;
    c->m = m;
    cmp_eval(&c->ref, tokens, m);
    for (u32 k = 0; k < c->n_tests; k++) {
        cmp_side *s = c->now = &c->test[k];
        cmp_eval(s, tokens, m);
        par_run(m, cmp_row, c, 1, NULL);
        for (u32 i = 0; i < m; i++) {
            s->kl[c->n_done + i] = c->rows[i][0];
            s->nll += c->rows[i][2];
            s->same += c->rows[i][3] > 0;
            if (!k) c->ref.nll += c->rows[i][1];
        }
    }
    c->n_done += m;
    c->n_scored += m - last;
}

/* The text in windows, each a context of its own. */
static void cmp_windows(cmp *c, i32 bos) {
    u32 room = c->n_ctx - (bos >= 0);
    i32 *w = xalloc(c->n_ctx, sizeof *w);
    for (u64 at = 0; at < c->n_tokens; at += room) {
        u32 n = 0, k = (u32)(c->n_tokens - at < room ? c->n_tokens - at : room);
        if (bos >= 0) w[n++] = bos;
        memcpy(w + n, c->tokens + at, k * sizeof *w);
        n += k;
        ksllm_session_rewind(c->ref.s, 0, NULL);
        for (u32 i = 0; i < c->n_tests; i++)
            ksllm_session_rewind(c->test[i].s, 0, NULL);
        for (u32 i = 0; i < n; i += CMP_BATCH) {
            u32 m = min_u32(CMP_BATCH, n - i);
            cmp_batch(c, w + i, m, i + m == n);
        }
    }
    free(w);
}

static int cmp_less(const void *a, const void *b) {
    f64 x = *(const f64 *)a, y = *(const f64 *)b;
    return (x > y) - (x < y);
}

typedef struct {
    f64 mean, error, p90, p99, max, same, ppl;
} cmp_result;

static cmp_result cmp_summary(const cmp *c, cmp_side *s) {
    cmp_result r = {0};
    u64 n = c->n_done;
    f64 ss = 0;
    for (u64 i = 0; i < n; i++) r.mean += s->kl[i] / (f64)n;
    for (u64 i = 0; i < n; i++)
        ss += (s->kl[i] - r.mean) * (s->kl[i] - r.mean);
    r.error = n > 1 ? sqrt(ss / (f64)(n - 1) / (f64)n) : 0;
    qsort(s->kl, (size_t)n, sizeof *s->kl, cmp_less);
    r.p90 = s->kl[(n - 1) * 90 / 100];
    r.p99 = s->kl[(n - 1) * 99 / 100];
    r.max = s->kl[n - 1];
    r.same = (f64)s->same / (f64)n;
    r.ppl = exp(s->nll / (f64)c->n_scored);
    return r;
}

static void cmp_print(cmp *c) {
    printf("%llu positions in windows of %u, perplexity of the reference "
        "%.4f, %.3f bits per weight\n", (unsigned long long)c->n_done,
        (unsigned)c->n_ctx, exp(c->ref.nll / (f64)c->n_scored), c->ref.bits);
    printf("%10s %10s %10s %10s %10s %7s %10s %7s  file\n", "KL mean", "+-",
        "90 %", "99 %", "max", "top-1", "perplexity", "bits/w");
    for (u32 i = 0; i < c->n_tests; i++) {
        cmp_result r = cmp_summary(c, &c->test[i]);
        printf("%10.3e %10.1e %10.3e %10.3e %10.3e %6.2f%% %10.4f %7.3f  %s\n",
            r.mean, r.error, r.p90, r.p99, r.max, 100 * r.same, r.ppl,
            c->test[i].bits, c->test[i].path);
    }
}

/* By position, before cmp_summary sorts them: who compares two files needs
 * the differences on the same tokens, which are much smaller than the spread
 * from token to token. */
static void cmp_print_positions(const cmp *c, const cmp_side *s) {
    printf("\"kl\": [");
    for (u64 i = 0; i < c->n_done; i++)
        printf("%s%.6g", i ? ", " : "", s->kl[i]);
    printf("], ");
}

static void cmp_print_json(cmp *c, bool positions) {
    printf("{\"positions\": %llu, \"window\": %u, \"reference\": "
        "{\"perplexity\": %.8g, \"bits_per_weight\": %.6g, \"file\": ",
        (unsigned long long)c->n_done, (unsigned)c->n_ctx,
        exp(c->ref.nll / (f64)c->n_scored), c->ref.bits);
    js_print(stdout, str_of(c->ref.path));
    printf("}, \"tests\": [");
    for (u32 i = 0; i < c->n_tests; i++) {
        printf("%s{", i ? ", " : "");
        if (positions) cmp_print_positions(c, &c->test[i]);
        cmp_result r = cmp_summary(c, &c->test[i]);
        printf("\"kl_mean\": %.8g, \"kl_error\": %.3g, \"kl_90\": %.8g, "
            "\"kl_99\": %.8g, \"kl_max\": %.8g, \"top1\": %.6g, "
            "\"perplexity\": %.8g, \"bits_per_weight\": %.6g, \"file\": ",
            r.mean, r.error, r.p90, r.p99, r.max, r.same,
            r.ppl, c->test[i].bits);
        js_print(stdout, str_of(c->test[i].path));
        printf("}");
    }
    printf("]}\n");
}

/* Tokens of a text file by a model's own tokenizer, without BOS. */
static i32 *cmp_read_text(const ksllm_model *m, const char *path, u64 *n) {
    ksllm_error err = {0};
    os_file f;
    if (!file_map(path, &f)) die("%s: there is no such file", path);
    const char *text = f.p ? (const char *)f.p : "";
    i64 k = ksllm_encode(m, text, (size_t)f.n, KSLLM_ENCODE_COMPOSE, NULL, 0,
        &err);
    if (k < 0) cmp_die(path, &err);
    i32 *tokens = xalloc((size_t)k, sizeof *tokens);
    k = ksllm_encode(m, text, (size_t)f.n, KSLLM_ENCODE_COMPOSE, tokens,
        (size_t)k, &err);
    if (k < 0) cmp_die(path, &err);
    file_unmap(&f);
    *n = (u64)k;
    return tokens;
}

static const char CMP_USAGE[] =
    "ksllm-quant compare REF.gguf TEST.gguf... TEXT\n"
    "  --window N        tokens of context each (default 512)\n"
    "  --tokens N        no more than the first N of the text\n"
    "  --weights-only    products in float, so that only the rounding of the\n"
    "                    weights differs; takes 4 bytes per weight and file\n"
    "  --threads N\n"
    "  --json\n"
    "  --positions       with --json: also the KL divergence of each token\n";

static int cmp_main(int argc, char **argv) {
    cmp c = {.n_ctx = 512};
    args a = {argc, 1, argv};
    const char *files[CMP_MAX_TESTS + 2], *v;
    u32 n = 0;
    u64 limit = 1 << 24;
    bool json = false, exact = false, positions = false;
    while (a.at < argc) {
        if (arg_threads(&a)) continue;
        if (arg_is(&a, "--json", NULL)) json = true;
        else if (arg_is(&a, "--positions", NULL)) positions = true;
        else if (arg_is(&a, "--weights-only", NULL)) exact = true;
        else if (arg_is(&a, "--window", &v))
            c.n_ctx = (u32)arg_number("--window", v, 8, 1 << 20);
        else if (arg_is(&a, "--tokens", &v))
            limit = arg_number("--tokens", v, 2, 1 << 24);
        else if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            fputs(CMP_USAGE, stdout);
            return 0;
        } else if (argv[a.at][0] == '-') arg_unknown(&a);
        else if (n == KS_LEN(files)) die("too many files");
        else files[n++] = argv[a.at++];
    }
    if (n < 3) die("compare REF.gguf TEST.gguf... TEXT");
    n_workers = workers_wanted();
    cmp_open(&c, &c.ref, files[0], exact);
    c.n_tests = n - 2;
    for (u32 i = 0; i < c.n_tests; i++)
        cmp_open(&c, &c.test[i], files[1 + i], exact);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(c.ref.m, &info, NULL);
    c.tokens = cmp_read_text(c.ref.m, files[n - 1], &c.n_tokens);
    if (c.n_tokens > limit) c.n_tokens = limit;
    if (c.n_tokens < 2) die("%s: no text", files[n - 1]);
    i32 bos = info.adds_bos ? info.bos : -1;
    u64 all = c.n_tokens + c.n_tokens / (c.n_ctx - 1) + 2;
    for (u32 i = 0; i < c.n_tests; i++)
        c.test[i].kl = xalloc((size_t)all, sizeof(f64));
    c.rows = xalloc(CMP_BATCH, sizeof *c.rows);
    cmp_windows(&c, bos);
    if (json) cmp_print_json(&c, positions);
    else cmp_print(&c);
    return 0;
}
