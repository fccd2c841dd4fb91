/* refine.c, part of ksllm-quant.c - error compensation across columns.
 *
 * With H the mean of x x^T over the inputs x of a matrix, the error of row w
 * rounded to v is (w - v) H (w - v)^T. Factor H = (U + 1) D (U + 1)^T with U
 * strictly upper triangular; then that error is the sum over k of
 *
 *     D_k (t_k - v_k)^2,  t_k = w_k + sum over j < k of (w_j - v_j) U_jk
 *
 * so columns are rounded from left to right, each to what is nearest to t_k:
 * what later columns make of earlier errors. (GPTQ of Frantar et al. 2022 in
 * the form of Chee et al. 2023.) The scales of a block are searched when its
 * turn comes, for the t it has then, with weights D. */

enum { REF_ROWS = 32, REF_PANEL = 32 };

/* h: [n][n], upper triangle read, U left there. False when h is not positive
 * definite. Panels from the right; y: [n][REF_PANEL] scratch. */
static bool ref_factor(f32 *h, size_t n, f32 *d, f32 *y) {
    size_t k1 = n;
    while (k1) {
        size_t k0 = k1 > REF_PANEL ? (k1 - 1) / REF_PANEL * REF_PANEL : 0;
        size_t width = k1 - k0, pad = (width + 7) / 8 * 8;
        for (size_t j = k1; j < n; j++)
            for (size_t c = 0; c < pad; c++)
                y[(j - k1) * REF_PANEL + c] =
                    c < width ? -d[j] * h[(k0 + c) * n + j] : 0;
        if (k1 < n)
            enc_gemm(h + k0, n, h + k1, n, 1, y, REF_PANEL, n - k1, k1, pad);
        for (size_t k = k1; k-- > k0;) {
            f32 dk = d[k] = h[k * n + k];
            if (!(dk > 1e-20f)) return false;
            for (size_t i = 0; i < k; i++) {
                f32 u = h[i * n + k] / dk;
                /* rows of this panel are needed as columns below */
                h[i * n + k] = u;
            }
            for (size_t i = 0; i < k; i++) {
                f32 u = h[i * n + k] * dk;
                for (size_t c = k0 > i ? k0 : i; c < k; c++)
                    h[i * n + c] -= u * h[c * n + k];
            }
        }
        k1 = k0;
    }
    return true;
}

typedef struct {
    size_t n;
    f32 *u, *d; /* [n][n], [n] */
} ref_basis;

/* From sums to the factors. Damping stands for what the text did not show: it
 * keeps columns from paying for one another by a chance of this text. */
static void ref_prepare(
    ref_basis *b, const gguf_tensor *gram, f32 count, f32 damp) {
    size_t n = b->n;
    f32 *y = xalloc(n * REF_PANEL, sizeof *y);
    f64 mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += (f64)ld_f32(gram->data + 4 * (i * n + i)) / (f64)count;
    mean /= (f64)n;
    for (;; damp *= 4) {
        blk_row(KSLLM_TYPE_F32, gram->data, (u64)n * n, b->u);
        f32 k = mean > 0 ? (f32)(1 / (mean * (f64)count)) : 0;
        for (size_t i = 0; i < n; i++) {
            for (size_t j = i; j < n; j++) b->u[i * n + j] *= k;
            b->u[i * n + i] += damp;
        }
        if (ref_factor(b->u, n, b->d, y)) break;
        if (damp > 1e6f)
            die("%.*s: holds no sums of products", STR(gram->name));
    }
    free(y);
}

static f32 ref_level(enc_levels l, f32 t, f32 s, f32 m) {
    f32 y = s > 0 || s < 0 ? (t + m) / s : 0;
    if (!l.book) {
        y = y < l.lo ? l.lo : y > l.hi ? l.hi : y;
        return (f32)(i32)(y < 0 ? y - 0.5f : y + 0.5f);
    }
    int k = 0;
    while (k < 15 && y > 0.5f * (f32)(BLK_IQ4[k] + BLK_IQ4[k + 1])) k++;
    return (f32)BLK_IQ4[k];
}

/* One block of one row: t is where its weights are now, w the original ones,
 * e gets w - v. */
static void ref_block(ksllm_type type, const ref_basis *b, size_t k0, f32 *t,
    const f32 *w, const f32 *weight, f32 *e, u8 *to) {
    const blk_type *bt = &BLK_TYPES[type];
    enc_levels l = enc_levels_of(type);
    blk q;
    enc_fit(type, t, weight, &q);
    for (size_t k = 0; k < bt->n; k++) {
        f32 s = q.d * (f32)q.scale[k / 16 % (bt->n == 32 ? 2 : 16)];
        f32 m = l.has_min ? q.dmin * (f32)q.min[bt->n == 32 ? 0 : k / 16] : 0;
        f32 level = ref_level(l, t[k], s, m);
        const f32 *u = b->u + (k0 + k) * b->n + k0;
        q.q[k] = (i8)level;
        e[k] = w[k] - (s * level - m);
        for (size_t j = k + 1; j < bt->n; j++) t[j] += e[k] * u[j];
    }
    enc_pack(type, &q, to);
}

typedef struct {
    _Alignas(32) f32 t[REF_ROWS][256];
    _Alignas(32) f32 weight[256];
} ref_scratch;

/* Rows [row, row + m) of a tensor, x: [m][n], e: [m][n]. */
static void ref_rows(const gw_tensor *t, const ref_basis *b, u64 m,
    const f32 *x, f32 *e, u8 *to, ref_scratch *s) {
    const blk_type *bt = &BLK_TYPES[t->type];
    size_t n = b->n;
    for (size_t k0 = 0; k0 < n; k0 += bt->n) {
        f32 top = 0;
        for (size_t k = 0; k < bt->n; k++)
            top = b->d[k0 + k] > top ? b->d[k0 + k] : top;
        for (size_t k = 0; k < bt->n; k++)
            s->weight[k] = b->d[k0 + k] / top + 1e-9f;
        for (u64 r = 0; r < m; r++)
            memcpy(s->t[r], x + r * n + k0, bt->n * sizeof(f32));
        if (k0)
            enc_gemm(s->t[0], 256, e, n, 1, b->u + k0, n, k0, (size_t)m,
                bt->n);
        for (u64 r = 0; r < m; r++)
            ref_block(t->type, b, k0, s->t[r], x + r * n + k0, s->weight,
                e + r * n + k0,
                to + r * t->row_bytes + k0 / bt->n * bt->bytes);
    }
}

static void ref_tensor(gw *g, gw_tensor *t, const ref_basis *b) {
    size_t n = b->n;
    f32 *x = xalloc(REF_ROWS * n, sizeof *x), *e = xalloc(REF_ROWS * n, 4);
    u8 *to = xalloc(REF_ROWS, (size_t)t->row_bytes);
    u8 *block = xalloc(sizeof(ref_scratch) + 63, 1);
    ref_scratch *s =
        (ref_scratch *)(((uintptr_t)block + 63) & ~(uintptr_t)63);
    for (u64 r = 0; r < t->n_rows; r += REF_ROWS) {
        u64 m = t->n_rows - r < REF_ROWS ? t->n_rows - r : REF_ROWS;
        t->rows(t, r, m, x);
        gw_check(t, x, m * n);
        ref_rows(t, b, m, x, e, to, s);
        out_write_at(&g->out, to, (size_t)(m * t->row_bytes),
            g->data + t->offset + r * t->row_bytes);
        AT_ADD(&g->bar.done, m * t->src_row_bytes);
    }
    if (t->data) sys_forget(t->data, t->n_rows * t->src_row_bytes);
    free(x);
    free(e);
    free(to);
    free(block);
}

/* ---- groups: the tensors that share an input, one factoring each ---- */

typedef struct {
    gw *g;
    u32 *first; /* indexes of tensors, one per group */
    u32 n;
    os_lock lock;
    os_cond room;
    u64 used; /* bytes of factors in memory */
} ref_all;

enum { REF_MEMORY = 384 << 20 }; /* of factors at a time, or one */

static void ref_enter(ref_all *a, u64 size) {
    os_lock_take(&a->lock);
    while (a->used && a->used + size > REF_MEMORY)
        os_cond_wait(&a->room, &a->lock);
    a->used += size;
    os_lock_give(&a->lock);
}

static void ref_leave(ref_all *a, u64 size) {
    os_lock_take(&a->lock);
    a->used -= size;
    os_cond_all(&a->room);
    os_lock_give(&a->lock);
}

static void ref_group(void *arg, u64 i, void *scratch) {
    ref_all *a = arg;
    gw *g = a->g;
    const gw_tensor *head = &g->t[a->first[i]];
    ref_basis b = {.n = (size_t)head->dims[0]};
    u64 size = (u64)b.n * b.n * sizeof(f32);
    (void)scratch;
    ref_enter(a, size);
    b.u = xalloc(b.n * b.n, sizeof *b.u);
    b.d = xalloc(b.n, sizeof *b.d);
    ref_prepare(&b, head->gram, head->gram_count, g->damp);
    for (u32 k = 0; k < g->n; k++)
        if (g->t[k].gram == head->gram) ref_tensor(g, &g->t[k], &b);
    free(b.u);
    free(b.d);
    ref_leave(a, size);
}

static void ref_tick(void *arg) { progress_tick(&((ref_all *)arg)->g->bar); }

static void gw_refine_all(gw *g) {
    ref_all a = {.g = g};
    if (!os_lock_init(&a.lock) || !os_cond_init(&a.room)) die("out of memory");
    a.first = xalloc(g->n + 1, sizeof *a.first);
    for (u32 i = 0; i < g->n; i++) {
        bool seen = !g->t[i].gram;
        for (u32 k = 0; k < a.n && !seen; k++)
            seen = g->t[a.first[k]].gram == g->t[i].gram;
        if (!seen) a.first[a.n++] = i;
    }
    if (a.n) par_run(a.n, ref_group, &a, 1, ref_tick);
    os_cond_end(&a.room);
    os_lock_end(&a.lock);
    free(a.first);
}
