/* gguf_write.c, part of ksllm-quant.c - GGUF out: metadata in memory, tensors
 * streamed.
 *
 * All sizes are known before the first weight is read, so every worker writes
 * what it made at its final place, in any order, and memory holds a few rows
 * per worker however large the model is. */

enum { GW_ALIGN = 32, GW_CHUNK = 1 << 18 /* weights of a piece of work */ };

typedef struct gw_tensor gw_tensor;
struct gw_tensor {
    str name;
    ksllm_type type, from;
    u32 n_dims;
    u64 dims[4], n_rows, row_bytes, bytes, offset;
    /* Gives rows [row, row + n) as floats. */
    void (*rows)(const gw_tensor *t, u64 row, u64 n, f32 *out);
    const void *src;
    const u8 *data;     /* of the source, for sys_forget and copying */
    u64 src_row_bytes;
    bool copy;          /* the source's bytes are the result */
    const f32 *imp;     /* [dims[0]] or NULL */
    const gguf_tensor *gram; /* for refine.c, or NULL */
    f32 gram_count;
    const char *note;   /* why it is not the type that was asked for */
    u64 n_nan, n_large; /* atomic: found while writing */
};

typedef enum { NONFINITE_ERROR, NONFINITE_ZERO } gw_nonfinite;

typedef struct {
    bytes kv, head;
    u64 n_kv, data, end; /* data section, end of the file */
    gw_tensor *t;
    u32 n, cap;
    gw_nonfinite nonfinite;
    f32 damp; /* of refine.c */
    out_file out;
    progress bar;
    struct gw_piece *pieces;
} gw;

/* ---- metadata ---- */

static void gw_u32(bytes *b, u32 v) { bytes_put(b, &v, 4); }
static void gw_u64(bytes *b, u64 v) { bytes_put(b, &v, 8); }
static void gw_str(bytes *b, str s) {
    gw_u64(b, s.n);
    bytes_put(b, s.p, s.n);
}

static void gw_key(gw *g, const char *key, u32 type) {
    gw_str(&g->kv, str_of(key));
    gw_u32(&g->kv, type);
    g->n_kv++;
}

static void gw_kv_u32(gw *g, const char *key, u32 v) {
    gw_key(g, key, KSLLM_META_U32);
    gw_u32(&g->kv, v);
}

static void gw_kv_f32(gw *g, const char *key, f32 v) {
    gw_key(g, key, KSLLM_META_F32);
    bytes_put(&g->kv, &v, 4);
}

static void gw_kv_bool(gw *g, const char *key, bool v) {
    gw_key(g, key, KSLLM_META_BOOL);
    u8 b = v;
    bytes_put(&g->kv, &b, 1);
}

static void gw_kv_str(gw *g, const char *key, str s) {
    gw_key(g, key, KSLLM_META_TEXT);
    gw_str(&g->kv, s);
}

/* The items follow, written by the caller. */
static void gw_kv_array(gw *g, const char *key, u32 item, u64 n) {
    gw_key(g, key, KSLLM_META_ARRAY);
    gw_u32(&g->kv, item);
    gw_u64(&g->kv, n);
}

static u64 gw_value_bytes(const gguf_kv *kv) {
    if (kv->item != KSLLM_META_TEXT)
        return kv->count * gguf_scalar_bytes(kv->item);
    const u8 *p = kv->data;
    for (u64 i = 0; i < kv->count; i++) gguf_next_str(&p);
    return (u64)(p - kv->data);
}

static void gw_copy_kv(gw *g, const gguf_kv *kv) {
    gw_str(&g->kv, kv->key);
    gw_u32(&g->kv, kv->type);
    if (kv->type == KSLLM_META_ARRAY) {
        gw_u32(&g->kv, kv->item);
        gw_u64(&g->kv, kv->count);
    }
    bytes_put(&g->kv, kv->data, (size_t)gw_value_bytes(kv));
    g->n_kv++;
}

/* ---- values that the user sets ---- */

enum { GW_MAX_SET = 64 };

typedef struct {
    ksllm_override v[GW_MAX_SET];
    bool done[GW_MAX_SET];
    u32 n;
} gw_sets;

/* "key=value": a number, true, false, or else a text. */
static void gw_add_set(gw_sets *s, const char *arg) {
    const char *eq = strchr(arg, '=');
    char *end;
    if (!eq || eq == arg) die("--set needs KEY=VALUE, not '%s'", arg);
    if (s->n == GW_MAX_SET) die("too many --set options");
    ksllm_override *o = &s->v[s->n++];
    o->key = str_dup((str){arg, (size_t)(eq - arg)});
    for (u32 i = 0; i + 1 < s->n; i++)
        if (!strcmp(s->v[i].key, o->key)) die("--set %s: twice", o->key);
    o->text = eq + 1;
    o->type = KSLLM_META_TEXT;
    errno = 0;
    long long i = strtoll(o->text, &end, 10);
    if (!strcmp(o->text, "true") || !strcmp(o->text, "false")) {
        o->type = KSLLM_META_BOOL;
        o->integer = o->text[0] == 't';
    } else if (end != o->text && !*end && !errno) {
        o->integer = i;
        o->type = i < 0 ? i < INT32_MIN ? KSLLM_META_I64 : KSLLM_META_I32
            : i > UINT32_MAX ? KSLLM_META_U64 : KSLLM_META_U32;
    } else {
        o->number = strtod(o->text, &end);
        if (end != o->text && !*end) o->type = KSLLM_META_F32;
    }
}

/* An entry with the set value; kv->type is what it must be. */
static void gw_put_set(gw *g, gguf_kv *kv, ksllm_override *o) {
    u8 *value = xalloc(strlen(o->text) + 8, 1);
    if (kv->type == KSLLM_META_TEXT) o->type = KSLLM_META_TEXT;
    if (!gguf_put_value(o, kv->type, value))
        die("--set %s=%s: the file has a value of another type there, or one "
            "that this does not fit", o->key, o->text);
    kv->data = value;
    gw_copy_kv(g, kv);
    free(value);
}

/* "old.x" as "new.x". */
static str gw_renamed(str key, str from, const char *to) {
    char z[2 * GGUF_MAX_NAME + 2];
    if (!from.n || !to || key.n <= from.n || key.p[from.n] != '.'
        || memcmp(key.p, from.p, from.n))
        return key;
    snprintf(z, sizeof z, "%.*s%.*s", GGUF_MAX_NAME, to,
        (int)(key.n - from.n), key.p + from.n);
    return str_of(str_dup(str_of(z)));
}

/* Of the values that no key has yet: those that may mean something. */
static void gw_add_sets(gw *g, gw_sets *s, str arch) {
    for (u32 i = 0; i < s->n; i++) {
        ksllm_override *o = &s->v[i];
        str key = str_of(o->key);
        gguf_kv kv = {.key = key, .type = (u32)o->type, .item = (u32)o->type,
            .count = 1};
        bool ours = !strncmp(o->key, "general.", 8)
            || !strncmp(o->key, "tokenizer.", 10)
            || (key.n > arch.n && key.p[arch.n] == '.'
                && !memcmp(key.p, arch.p, arch.n));
        if (s->done[i]) continue;
        if (!ours || !strcmp(o->key, "general.alignment"))
            die("--set %s: nothing reads that key of %.*s", o->key, STR(arch));
        gw_put_set(g, &kv, o);
    }
}

/* Puts the values in their places. With another architecture the keys of the
 * old one are renamed. */
static void gw_set(gw *g, gw_sets *s, str arch) {
    bytes old = g->kv;
    u64 n = g->n_kv;
    const char *other = NULL;
    ksllm_error err;
    const gguf none = {.name = {"the metadata", 12}};
    gguf_cursor c = {old.p, old.n, 0, false};
    if (!s->n) return;
    for (u32 i = 0; i < s->n; i++)
        if (!strcmp(s->v[i].key, "general.architecture")) other = s->v[i].text;
    g->kv = (bytes){0};
    g->n_kv = 0;
    for (u64 i = 0; i < n; i++) {
        gguf_kv kv;
        u32 k = 0;
        if (gguf_read_kv(&none, &c, &kv, &err)) die("%s", err.text);
        kv.key = gw_renamed(kv.key, arch, other);
        while (k < s->n && !str_eq(kv.key, str_of(s->v[k].key))) k++;
        if (k == s->n) {
            gw_copy_kv(g, &kv);
            continue;
        }
        s->done[k] = true;
        gw_put_set(g, &kv, &s->v[k]);
    }
    gw_add_sets(g, s, other ? str_of(other) : arch);
    free(old.p);
}

/* ---- tensors ---- */

/* A new tensor, valid until the next one is added. */
static gw_tensor *gw_add(gw *g, str name, u32 n_dims, const u64 *dims) {
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 256;
        g->t = xgrow(g->t, g->cap, sizeof *g->t);
    }
    gw_tensor *t = &g->t[g->n++];
    *t = (gw_tensor){.name = name, .n_dims = n_dims, .dims = {1, 1, 1, 1}};
    memcpy(t->dims, dims, n_dims * sizeof *dims);
    t->n_rows = t->dims[1] * t->dims[2] * t->dims[3];
    return t;
}

/* Gives every tensor its place and makes the head of the file. */
static void gw_lay(gw *g) {
    u64 at = 0;
    bytes *h = &g->head;
    h->n = 0;
    bytes_put(h, "GGUF", 4);
    gw_u32(h, 3);
    gw_u64(h, g->n);
    gw_u64(h, g->n_kv);
    bytes_put(h, g->kv.p, g->kv.n);
    for (u32 i = 0; i < g->n; i++) {
        gw_tensor *t = &g->t[i];
        const blk_type *b = &BLK_TYPES[t->type];
        t->row_bytes = t->dims[0] / b->n * b->bytes;
        t->bytes = t->row_bytes * t->n_rows;
        t->offset = at;
        gw_str(h, t->name);
        gw_u32(h, t->n_dims);
        for (u32 k = 0; k < t->n_dims; k++) gw_u64(h, t->dims[k]);
        gw_u32(h, t->type);
        gw_u64(h, at);
        at += (t->bytes + GW_ALIGN - 1) / GW_ALIGN * GW_ALIGN;
    }
    while (h->n % GW_ALIGN) bytes_put(h, "", 1);
    g->data = h->n;
    g->end = g->data + at;
}

/* ---- writing ---- */

typedef struct gw_piece {
    u32 tensor;
    u64 row, n;
} gw_piece;

/* What is no number, or too large for the type it goes to, is counted; under
 * NONFINITE_ZERO it becomes 0, else the caller gives up afterwards. */
static void gw_check(gw_tensor *t, f32 *x, u64 n) {
    u64 bad = 0, large = 0;
    f32 top = t->type == KSLLM_TYPE_F32 || t->type == KSLLM_TYPE_BF16
        ? FLT_MAX : 65504.0f;
    /* First without a branch: nearly every weight is well. */
    u32 limit = bits_of_f32(top), any = 0;
    for (u64 i = 0; i < n; i++) any |= (bits_of_f32(x[i]) & 0x7fffffff) > limit;
    for (u64 i = 0; i < n && any; i++) {
        if (x[i] <= top && x[i] >= -top) continue;
        bool finite = x[i] <= FLT_MAX && x[i] >= -FLT_MAX;
        if (finite && !is_float_type(t->type)) continue;
        if (finite) large++;
        else bad++;
        x[i] = 0;
    }
    if (bad) AT_ADD(&t->n_nan, bad);
    if (large) AT_ADD(&t->n_large, large);
}

static size_t gw_scratch(const gw *g) {
    u64 most = 0;
    for (u32 i = 0; i < g->n; i++) {
        u64 rows = max_size(1, (size_t)(GW_CHUNK / g->t[i].dims[0]));
        u64 n = rows * (4 * g->t[i].dims[0] + g->t[i].row_bytes);
        if (n > most) most = n;
    }
    return (size_t)most + 64;
}

static void gw_piece_run(void *arg, u64 i, void *scratch) {
    gw *g = arg;
    const gw_piece *p = &g->pieces[i];
    gw_tensor *t = &g->t[p->tensor];
    u64 at = g->data + t->offset + p->row * t->row_bytes, n = t->dims[0];
    const u8 *src = t->data ? t->data + p->row * t->src_row_bytes : NULL;
    if (t->copy) {
        out_write_at(&g->out, src, (size_t)(p->n * t->row_bytes), at);
    } else {
        f32 *x = scratch;
        u8 *to = (u8 *)(x + p->n * n);
        t->rows(t, p->row, p->n, x);
        gw_check(t, x, p->n * n);
        for (u64 r = 0; r < p->n; r++)
            enc_row(t->type, x + r * n, (size_t)n, t->imp,
                to + r * t->row_bytes);
        out_write_at(&g->out, to, (size_t)(p->n * t->row_bytes), at);
    }
    if (src) sys_forget(src, p->n * t->src_row_bytes);
    AT_ADD(&g->bar.done, p->n * t->src_row_bytes);
}

static void gw_tick(void *arg) { progress_tick(&((gw *)arg)->bar); }

static void gw_cut(gw *g, u64 *n_pieces) {
    u64 n = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass) g->pieces = xalloc((size_t)n, sizeof *g->pieces);
        n = 0;
        for (u32 i = 0; i < g->n; i++) {
            const gw_tensor *t = &g->t[i];
            if (t->gram) continue;
            u64 step = max_size(1, (size_t)(GW_CHUNK / t->dims[0]));
            for (u64 r = 0; r < t->n_rows; r += step, n++)
                if (pass)
                    g->pieces[n] = (gw_piece){
                        i, r, t->n_rows - r < step ? t->n_rows - r : step};
        }
    }
    *n_pieces = n;
}

static void gw_report_nonfinite(const gw *g) {
    u64 bad = 0;
    for (u32 i = 0; i < g->n; i++) {
        const gw_tensor *t = &g->t[i];
        if (t->n_nan)
            fprintf(stderr, "%.*s: %llu weights are NaN or infinite\n",
                STR(t->name), (unsigned long long)t->n_nan);
        if (t->n_large)
            fprintf(stderr, "%.*s: %llu weights are beyond 65504, too large "
                "for F16; BF16 would hold them\n", STR(t->name),
                (unsigned long long)t->n_large);
        bad += t->n_nan + t->n_large;
    }
    if (bad && g->nonfinite == NONFINITE_ERROR)
        die("%s: not written; --nonfinite zero writes 0 for such weights",
            g->out.path);
}

/* The tensors that have a gram; their columns make up for one another. */
static void gw_refine_all(gw *g);

static void gw_write(gw *g, const char *path) {
    u64 n_pieces, total = 0;
    gw_lay(g);
    out_open(&g->out, path);
    out_append(&g->out, g->head.p, g->head.n);
    out_resize(&g->out, g->end);
    for (u32 i = 0; i < g->n; i++)
        total += g->t[i].src_row_bytes * g->t[i].n_rows;
    progress_begin(&g->bar, "writing", total);
    gw_cut(g, &n_pieces);
    par_run(n_pieces, gw_piece_run, g, gw_scratch(g), gw_tick);
    gw_refine_all(g);
    progress_end(&g->bar);
    gw_report_nonfinite(g);
    out_finish(&g->out);
    f64 s = now_seconds() - g->bar.start;
    if (!g->bar.quiet)
        fprintf(stderr, "%s: %.1f MB from %.1f MB in %.2f s (%.0f MB/s)\n",
            path, (f64)g->end / 1e6, (f64)total / 1e6, s,
            (f64)total / 1e6 / s);
}
