/* quantize.c, part of ksllm-quant.c - which tensor becomes what, and GGUF to
 * GGUF. */


/* ---- mixes: a base type and its exceptions, as data ---- */

typedef enum {
    ALWAYS,
    EARLY_LATE, /* first and last eighth of the layers, every third between */
    FIRST_8TH, FIRST_16TH, FIRST_2, FIRST_4,
    GQA_4,      /* at least four heads share a KV head */
    STATS_8TH,  /* first eighth, when there are statistics */
    BLIND_8TH   /* first eighth, when there are none */
} qz_when;

typedef struct {
    const char *name;
    u32 number; /* general.file_type */
    ksllm_type base;
} qz_mix;

static const qz_mix QZ_MIXES[] = {
    {"f32", 0, KSLLM_TYPE_F32}, {"f16", 1, KSLLM_TYPE_F16},
    {"bf16", 32, KSLLM_TYPE_BF16},
    {"q4_0", 2, KSLLM_TYPE_Q4_0}, {"q4_1", 3, KSLLM_TYPE_Q4_1},
    {"q5_0", 8, KSLLM_TYPE_Q5_0}, {"q5_1", 9, KSLLM_TYPE_Q5_1},
    {"q8_0", 7, KSLLM_TYPE_Q8_0},
    {"q2_k", 10, KSLLM_TYPE_Q2_K}, {"q3_k_s", 11, KSLLM_TYPE_Q3_K},
    {"q3_k_m", 12, KSLLM_TYPE_Q3_K}, {"q3_k_l", 13, KSLLM_TYPE_Q3_K},
    {"q4_k_s", 14, KSLLM_TYPE_Q4_K}, {"q4_k_m", 15, KSLLM_TYPE_Q4_K},
    {"q5_k_s", 16, KSLLM_TYPE_Q5_K}, {"q5_k_m", 17, KSLLM_TYPE_Q5_K},
    {"q6_k", 18, KSLLM_TYPE_Q6_K},
    {"iq4_nl", 25, KSLLM_TYPE_IQ4_NL}, {"iq4_xs", 30, KSLLM_TYPE_IQ4_XS},
};

typedef struct {
    const char *mix, *tensor; /* what the tensor's name contains */
    qz_when when;
    ksllm_type type;
} qz_rule;

/* The first that fits counts. These are llama.cpp's choices: what its users
 * expect under these names, with sizes they know. ffn_down is experts' too, and
 * attn_qkv holds an attn_v. */
static const qz_rule QZ_RULES[] = {
    {"q4_k_m", "attn_v.", EARLY_LATE, KSLLM_TYPE_Q6_K},
    {"q4_k_m", "ffn_down", EARLY_LATE, KSLLM_TYPE_Q6_K},
    {"q5_k_m", "attn_v.", EARLY_LATE, KSLLM_TYPE_Q6_K},
    {"q5_k_m", "ffn_down", EARLY_LATE, KSLLM_TYPE_Q6_K},
    {"q4_k_s", "attn_v.", FIRST_4, KSLLM_TYPE_Q5_K},
    {"q4_k_s", "ffn_down", FIRST_8TH, KSLLM_TYPE_Q5_K},
    {"q3_k_m", "attn_v.", FIRST_2, KSLLM_TYPE_Q5_K},
    {"q3_k_m", "attn_v.", ALWAYS, KSLLM_TYPE_Q4_K},
    {"q3_k_m", "ffn_down", FIRST_16TH, KSLLM_TYPE_Q5_K},
    {"q3_k_m", "ffn_down", ALWAYS, KSLLM_TYPE_Q4_K},
    {"q3_k_m", "attn_output.", ALWAYS, KSLLM_TYPE_Q4_K},
    {"q3_k_l", "attn_v.", ALWAYS, KSLLM_TYPE_Q5_K},
    {"q3_k_l", "ffn_down", ALWAYS, KSLLM_TYPE_Q5_K},
    {"q3_k_l", "attn_output.", ALWAYS, KSLLM_TYPE_Q5_K},
    {"q2_k", "attn_v.", GQA_4, KSLLM_TYPE_Q4_K},
    {"q2_k", "attn_v.", ALWAYS, KSLLM_TYPE_Q3_K},
    {"q2_k", "ffn_down", ALWAYS, KSLLM_TYPE_Q3_K},
    {"q2_k", "attn_output.", ALWAYS, KSLLM_TYPE_Q3_K},
    {"q4_0", "ffn_down", STATS_8TH, KSLLM_TYPE_Q4_1},
    {"q5_0", "ffn_down", STATS_8TH, KSLLM_TYPE_Q5_1},
    {"iq4_nl", "attn_v.", GQA_4, KSLLM_TYPE_Q5_K},
    {"iq4_nl", "ffn_down", BLIND_8TH, KSLLM_TYPE_Q5_K},
    {"iq4_xs", "ffn_down", BLIND_8TH, KSLLM_TYPE_Q5_K},
    {"iq4_xs", "attn_v.", GQA_4, KSLLM_TYPE_Q5_K},
};

/* For rows that are no multiple of 256: a type of blocks of 32 with no fewer
 * bits. */
static ksllm_type qz_fallback(ksllm_type t) {
    switch (t) {
    case KSLLM_TYPE_Q2_K: case KSLLM_TYPE_Q3_K: case KSLLM_TYPE_IQ4_XS:
        return KSLLM_TYPE_IQ4_NL;
    case KSLLM_TYPE_Q4_K: return KSLLM_TYPE_Q5_0;
    case KSLLM_TYPE_Q5_K: return KSLLM_TYPE_Q5_1;
    case KSLLM_TYPE_Q6_K: return KSLLM_TYPE_Q8_0;
    default: return KSLLM_TYPE_F16;
    }
}

enum { QZ_MAX_OVERRIDES = 64 };

static const f32 QZ_DAMP = 0.05f; /* of the mean of x^2 */

typedef struct {
    const qz_mix *mix;
    bool pure, dry_run, refine, tied, keep_first;
    u32 n_layers, gqa;
    struct {
        const char *pattern;
        ksllm_type type;
    } override[QZ_MAX_OVERRIDES];
    u32 n_overrides;
    gw_sets sets;
    stats stats;
    const char *out;
    gw_nonfinite nonfinite;
    bool quiet;
    f32 damp;
} qz_options;

static const qz_mix *qz_mix_by_name(const char *name) {
    static const char *const alias[][2] = {
        {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}, {"q3_k", "q3_k_m"}};
    for (size_t i = 0; i < KS_LEN(alias); i++)
        if (!strcasecmp(name, alias[i][0])) name = alias[i][1];
    for (size_t i = 0; i < KS_LEN(QZ_MIXES); i++)
        if (!strcasecmp(name, QZ_MIXES[i].name)) return &QZ_MIXES[i];
    fprintf(stderr, "types:");
    for (size_t i = 0; i < KS_LEN(QZ_MIXES); i++)
        fprintf(stderr, " %s", QZ_MIXES[i].name);
    fputc('\n', stderr);
    die("'%s' is not a type that can be written", name);
}

static bool qz_when_holds(const qz_options *o, qz_when w, u32 i) {
    u32 n = o->n_layers;
    switch (w) {
    case ALWAYS: return true;
    case EARLY_LATE:
        return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case FIRST_8TH: return i < n / 8;
    case FIRST_16TH: return i < n / 16;
    case FIRST_2: return i < 2;
    case FIRST_4: return i < 4;
    case GQA_4: return o->gqa >= 4;
    case STATS_8TH: return o->stats.open && i < n / 8;
    case BLIND_8TH: return !o->stats.open && i < n / 8;
    }
    return false;
}

static bool str_begins(str s, const char *with) {
    size_t n = strlen(with);
    return s.n >= n && !memcmp(s.p, with, n);
}

static bool str_has(str s, const char *part) {
    size_t n = strlen(part);
    for (size_t i = 0; i + n <= s.n; i++)
        if (!memcmp(s.p + i, part, n)) return true;
    return false;
}

/* Only matrices of weights; norms, biases, routers, convolutions and tables of
 * rope or of experts' biases are small, and small errors in them are large
 * ones. */
static bool qz_is_matrix(str name, u32 n_dims) {
    return n_dims >= 2 && name.n > 7
        && !memcmp(name.p + name.n - 7, ".weight", 7)
        && !str_has(name, "_norm") && !str_has(name, "ffn_gate_inp")
        && !str_has(name, "rope_freqs") && !str_has(name, "position_embd")
        && !str_has(name, "token_types") && !str_begins(name, "cls.")
        && !str_has(name, "patch_embd") && !str_has(name, ".conv2d.")
        && !str_has(name, ".conv1d.")
        && !str_has(name, "shortconv.conv.") && !str_has(name, "ssm_conv1d.")
        && !str_has(name, "ssm_alpha.") && !str_has(name, "ssm_beta.");
}

static bool qz_fits(const qz_rule *r, str name) {
    return str_has(name, r->tensor)
        || (!strcmp(r->tensor, "attn_v.") && str_has(name, "attn_qkv."));
}

static ksllm_type qz_wanted(const qz_options *o, str name) {
    u32 layer = 0;
    str rest;
    ksllm_type base = o->mix->base;
    bool head = str_eq(name, str_of("output.weight"))
        || (o->tied && str_eq(name, str_of("token_embd.weight")));
    bool is_float = is_float_type(base);
    if (o->pure || is_float) return base;
    /* Of a tower: fewer than eight bits cost small letters. A C-Abstractor's
     * blocks are a fiftieth of the work. */
    if (str_begins(name, "mm.net.")) return KSLLM_TYPE_F16;
    if (str_begins(name, "v.") || str_begins(name, "a.")
        || str_begins(name, "mm."))
        return KSLLM_TYPE_Q8_0;
    /* The head decides every token's probability; with tied embeddings it is
     * the embedding too. */
    if (head) return base == KSLLM_TYPE_Q8_0 ? base : KSLLM_TYPE_Q6_K;
    if (!mdl_split_name(name, &layer, &rest)) return base;
    for (size_t i = 0; i < KS_LEN(QZ_RULES); i++) {
        const qz_rule *r = &QZ_RULES[i];
        if (!strcmp(r->mix, o->mix->name) && qz_fits(r, name)
            && qz_when_holds(o, r->when, layer))
            return r->type;
    }
    return base;
}

static bool qz_overridden(const qz_options *o, str name, ksllm_type *type) {
    char z[GGUF_MAX_NAME + 1];
    if (name.n > GGUF_MAX_NAME) return false;
    memcpy(z, name.p, name.n);
    z[name.n] = 0;
    for (u32 i = o->n_overrides; i-- > 0;)
        if (glob_fits(o->override[i].pattern, z)) {
            *type = o->override[i].type;
            return true;
        }
    return false;
}

/* Sets a tensor's type; the note says why it is not the one of the mix. */
static void qz_choose(const qz_options *o, gw_tensor *t) {
    t->note = "";
    t->type = KSLLM_TYPE_F32;
    bool forced = qz_overridden(o, t->name, &t->type);
    if (!forced && !qz_is_matrix(t->name, t->n_dims)) return;
    if (!forced) t->type = qz_wanted(o, t->name);
    else t->note = "override";
    if (t->dims[0] % BLK_TYPES[t->type].n == 0) return;
    t->note = "row is no multiple of 256";
    t->type = qz_fallback(t->type);
    if (t->dims[0] % BLK_TYPES[t->type].n == 0) return;
    t->note = "row is no multiple of 32";
    t->type = KSLLM_TYPE_F16;
}

/* ---- what is printed ---- */

/* Without --dry-run one layer speaks for all. */
static bool qz_speaks_for_others(str name) {
    u32 layer;
    str rest;
    return !mdl_split_name(name, &layer, &rest) || layer == 0;
}

static void qz_print_plan(const gw *g, bool all) {
    u64 n[KS_LEN(BLK_TYPES)] = {0}, size[KS_LEN(BLK_TYPES)] = {0};
    u64 weights = 0, total = 0;
    for (u32 i = 0; i < g->n; i++) {
        const gw_tensor *t = &g->t[i];
        n[t->type]++;
        size[t->type] += t->bytes;
        weights += t->dims[0] * t->n_rows;
        total += t->bytes;
        if (!all && !(t->note[0] && qz_speaks_for_others(t->name))) continue;
        printf("%-40.*s %6llu x %-7llu %5s -> %-7s %s\n", STR(t->name),
            (unsigned long long)t->dims[0], (unsigned long long)t->n_rows,
            BLK_TYPES[t->from].name, BLK_TYPES[t->type].name, t->note);
    }
    for (u32 i = 0; i < KS_LEN(BLK_TYPES); i++)
        if (n[i])
            printf("%7s: %4llu tensors, %9.1f MB\n", BLK_TYPES[i].name,
                (unsigned long long)n[i], (f64)size[i] / 1e6);
    printf("  total: %4u tensors, %9.1f MB, %.2f bits per weight\n", g->n,
        (f64)total / 1e6, weights ? 8 * (f64)total / (f64)weights : 0);
    fflush(stdout);
}

/* ---- options shared with convert ---- */

static const char QZ_OPTIONS[] =
    "  -o FILE            where to write; whole or not at all\n"
    "  -t TYPE            f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k_s\n"
    "                     q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k\n"
    "                     iq4_nl iq4_xs\n"
    "  --tensor GLOB=TYPE exceptions, the last that fits counts\n"
    "  --set KEY=VALUE    metadata in place of what is there, or beside it\n"
    "  --pure             no mix: every matrix the type's base\n"
    "  --stats FILE       statistics of calibrate: errors weighted by use\n"
    "  --refine           with --stats of calibrate --gram: later columns\n"
    "                     make up for the errors of earlier ones\n"
    "  --damp X           of --refine: larger trusts the statistics less\n"
    "  --nonfinite WHAT   error (default) or zero, for NaN and infinity\n"
    "  --threads N        (default: the fast cores, 16 at most)\n"
    "  --dry-run          prints what would be written\n"
    "  --quiet            no progress\n";

static void qz_add_override(qz_options *o, const char *v) {
    const char *eq = strrchr(v, '=');
    if (!eq || eq == v) die("--tensor needs GLOB=TYPE, not '%s'", v);
    if (o->n_overrides == QZ_MAX_OVERRIDES) die("too many --tensor options");
    o->override[o->n_overrides].pattern =
        str_dup((str){v, (size_t)(eq - v)});
    o->override[o->n_overrides++].type = type_by_name(eq + 1);
}

static f32 qz_damp(const char *s) {
    char *end;
    f32 v = strtof(s, &end);
    if (end == s || *end || !(v >= 0 && v <= 1e6f))
        die("--damp needs a number of at least 0, not '%s'", s);
    return v;
}

static bool qz_option(qz_options *o, args *a) {
    const char *v;
    if (arg_is(a, "-o", &v) || arg_is(a, "--output", &v)) o->out = v;
    else if (arg_is(a, "-t", &v) || arg_is(a, "--type", &v))
        o->mix = qz_mix_by_name(v);
    else if (arg_is(a, "--tensor", &v)) qz_add_override(o, v);
    else if (arg_is(a, "--set", &v)) gw_add_set(&o->sets, v);
    else if (arg_is(a, "--pure", NULL)) o->pure = true;
    else if (arg_is(a, "--stats", &v)) stats_open(&o->stats, v);
    else if (arg_is(a, "--refine", NULL)) o->refine = true;
    else if (arg_is(a, "--damp", &v)) o->damp = qz_damp(v);
    else if (arg_is(a, "--dry-run", NULL)) o->dry_run = true;
    else if (arg_is(a, "--quiet", NULL)) o->quiet = true;
    else if (arg_is(a, "--nonfinite", &v)) {
        if (strcmp(v, "zero") && strcmp(v, "error"))
            die("--nonfinite needs error or zero, not '%s'", v);
        o->nonfinite = v[0] == 'z' ? NONFINITE_ZERO : NONFINITE_ERROR;
    } else return arg_threads(a);
    return true;
}

static void qz_check_options(const qz_options *o) {
    if (!o->out && !o->dry_run) die("-o FILE is missing");
    if (o->refine && !o->stats.open) die("--refine needs --stats");
}

/* What the calibration knows about a tensor's input. */
static void qz_statistics(const qz_options *o, gw_tensor *t) {
    if (is_float_type(t->type) || t->copy || !o->stats.open) return;
    t->imp = stats_importance(&o->stats, t->name, t->dims[0]);
    /* At eight bits there is nothing to make up for. */
    if (!o->refine || t->type == KSLLM_TYPE_Q8_0) return;
    const gguf_tensor *gram = stats_find(&o->stats, t->name, ".in_gram");
    t->gram_count = stats_count(&o->stats, t->name);
    if (!gram || !(t->gram_count > 0)) return;
    if (gram->dims[0] != t->dims[0] || gram->n_rows != t->dims[0])
        die("%.*s: '%.*s' is another model's", STR(o->stats.g.name),
            STR(gram->name));
    t->gram = gram;
}

static bool qz_has_tensor(const gw *g, const char *pattern) {
    for (u32 i = 0; i < g->n; i++)
        if (glob_fits(pattern, str_dup(g->t[i].name))) return true;
    return false;
}

/* Options that would change nothing are mistakes, or worth a word. */
static void qz_check_plan(const qz_options *o, const gw *g) {
    u32 n_low = 0, n_stored = 0, n_known = 0, n_refined = 0, n_finer = 0;
    for (u32 i = 0; i < o->n_overrides; i++)
        if (!qz_has_tensor(g, o->override[i].pattern))
            die("--tensor %s: no tensor has such a name; --dry-run without it "
                "lists them", o->override[i].pattern);
    for (u32 i = 0; i < g->n; i++) {
        const gw_tensor *t = &g->t[i];
        const blk_type *from = &BLK_TYPES[t->from], *to = &BLK_TYPES[t->type];
        bool stored = !is_float_type(t->type) && !t->copy;
        n_stored += stored;
        n_low += stored && t->type != KSLLM_TYPE_Q8_0;
        n_known += t->imp != NULL;
        n_refined += t->gram != NULL;
        n_finer += !is_float_type(t->from)
            && (u32)to->bytes * from->n > (u32)from->bytes * to->n;
    }
    if (o->stats.open && n_stored && !n_known)
        die("%.*s: knows none of these tensors: another model's statistics",
            STR(o->stats.g.name));
    if (o->refine && !n_low)
        fprintf(stderr, "--refine changes nothing: no type here is below "
            "eight bits\n");
    if (o->refine && n_low && !n_refined)
        die("%.*s: --refine needs what 'calibrate --gram' writes, and these "
            "statistics are without", STR(o->stats.g.name));
    if (n_finer)
        fprintf(stderr, "%u tensor%s had fewer bits before: nothing is gained "
            "by that; what an earlier quantization took is not in the file\n",
            n_finer, n_finer > 1 ? "s" : "");
}

/* ---- trying ---- */

/* What would be written, with zeros for weights, in pages that are never
 * touched; NULL: the file itself will tell. */
static u8 *qz_zeros(const gw *g) {
    size_t size = (size_t)g->end;
    u8 *p = size < g->end ? NULL : sys_zeros(size);
    if (p) memcpy(p, g->head.p, g->head.n);
    return p;
}

/* Whether the library will run it, before hours of writing. Gives the pages
 * back. */
static void qz_try(const qz_options *o, const gw *g, const char *name, u8 *p) {
    ksllm_model *m = NULL;
    ksllm_error err;
    ksllm_model_options mo;
    ksllm_model_options_init(&mo);
    mo.overrides = o->sets.v; /* that nothing reads is said */
    mo.n_overrides = o->sets.n;
    os_file file = {p, (size_t)g->end, NULL, 0, false};
    if (mdl_open(file, str_of(name), NULL, &mo, &m, &err))
        die("what would be written cannot be run: %s", err.text);
    ksllm_model_close(m);
    sys_zeros_end(p, (size_t)g->end);
}

/* ---- GGUF to GGUF ---- */

/* Adapters, and towers in a file of their own, do not run alone. */
static bool qz_is_model(const gguf *src) {
    return !str_eq(gguf_get_str(src, "general.type"), str_of("adapter"))
        && !str_eq(gguf_get_str(src, "general.architecture"), str_of("clip"));
}

static void qz_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    const gguf_tensor *s = t->src;
    for (u64 r = 0; r < n; r++)
        enc_floats((ksllm_type)s->type, s->data + (row + r) * s->row_bytes,
            s->dims[0], out + r * s->dims[0]);
}

/* A number, or the first of one for each layer. */
static void qz_get_int(const gguf *g, const char *key, i64 *out) {
    const gguf_kv *kv = gguf_find(g, key);
    if (kv && kv->count) gguf_int_at(kv, 0, out);
}

static void qz_read_shape(const gguf *g, qz_options *o) {
    char key[160];
    str arch = gguf_get_str(g, "general.architecture");
    i64 layers = 0, heads = 0, kv = 0;
#define GET(what, to)                                                         \
    snprintf(key, sizeof key, "%.*s." what, STR(arch));                       \
    qz_get_int(g, key, to);
    GET("block_count", &layers)
    GET("attention.head_count", &heads)
    kv = heads;
    GET("attention.head_count_kv", &kv)
#undef GET
    o->n_layers = layers > 0 && layers < 100000 ? (u32)layers : 0;
    o->gqa = kv > 0 && heads > 0 ? (u32)(heads / kv) : 1;
    o->tied = !gguf_find_tensor(g, str_of("output.weight"));
}

static void qz_plan(const gguf *src, const qz_options *o, gw *g) {
    for (u32 i = 0; i < src->n_tensors; i++) {
        const gguf_tensor *s = &src->tensors[i];
        gw_tensor *t = gw_add(g, s->name, s->n_dims, s->dims);
        t->src = s;
        t->data = s->data;
        t->from = (ksllm_type)s->type;
        t->src_row_bytes = s->row_bytes;
        t->rows = qz_rows;
        qz_choose(o, t);
        t->copy = t->type == t->from && !is_float_type(t->type);
        qz_statistics(o, t);
    }
}

static void qz_copy_metadata(const gguf *src, const qz_options *o, gw *g) {
    static const char *const ours[] = {"general.file_type",
        "general.quantization_version", "general.alignment", "split.no",
        "split.count", "split.tensors.count"};
    for (u32 i = 0; i < src->n_kv; i++) {
        bool skip = false;
        for (size_t k = 0; k < KS_LEN(ours); k++)
            skip |= str_eq(src->kv[i].key, str_of(ours[k]));
        if (!skip) gw_copy_kv(g, &src->kv[i]);
    }
    gw_kv_u32(g, "general.file_type", o->mix->number);
    if (!is_float_type(o->mix->base))
        gw_kv_u32(g, "general.quantization_version", 2);
}


static int qz_main(int argc, char **argv) {
    qz_options o = {.damp = QZ_DAMP};
    args a = {argc, 1, argv};
    const char *in = NULL;
    while (a.at < argc) {
        if (qz_option(&o, &a)) continue;
        if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            printf("ksllm-quant quantize IN.gguf -o OUT.gguf -t TYPE\n%s",
                QZ_OPTIONS);
            return 0;
        }
        if (argv[a.at][0] == '-' || in) arg_unknown(&a);
        in = argv[a.at++];
    }
    if (!in || !o.mix) die("quantize IN.gguf -o OUT.gguf -t TYPE");
    qz_check_options(&o);
    gguf src;
    gw g = {.nonfinite = o.nonfinite, .damp = o.damp,
        .bar = {.quiet = o.quiet}};
    gguf_file(&src, in);
    if (!src.n_tensors) die("%s: holds no tensors", in);
    qz_read_shape(&src, &o);
    qz_copy_metadata(&src, &o, &g);
    gw_set(&g, &o.sets, gguf_get_str(&src, "general.architecture"));
    qz_plan(&src, &o, &g);
    qz_check_plan(&o, &g);
    gw_lay(&g);
    if (!o.quiet || o.dry_run) qz_print_plan(&g, o.dry_run);
    u8 *tried = qz_is_model(&src) ? qz_zeros(&g) : NULL;
    if (tried) qz_try(&o, &g, in, tried);
    if (!o.dry_run) gw_write(&g, o.out);
    return 0;
}
