/* safetensors.c, part of ksllm-quant.c - the tensors of a Hugging Face folder.
 *
 *   u64 n   JSON of n bytes: {"NAME": {"dtype": "BF16", "shape": [..],
 *           "data_offsets": [a, b]}, "__metadata__": ..}   data
 *
 * Files are mapped. Headers come from outside: every number is checked against
 * the bytes that are there before anything is believed. */

enum { ST_MAX_HEADER = 100 << 20, ST_MAX_FILES = 4096, ST_MAX_DIMS = 8 };

typedef enum { ST_F32, ST_F16, ST_BF16, ST_F8_E4M3, ST_F64 } st_dtype;

static const struct {
    const char *name;
    u32 bytes;
    ksllm_type same; /* of GGUF, for rows that can be read as they are */
} ST_DTYPES[] = {
    [ST_F32] = {"F32", 4, KSLLM_TYPE_F32},
    [ST_F16] = {"F16", 2, KSLLM_TYPE_F16},
    [ST_BF16] = {"BF16", 2, KSLLM_TYPE_BF16},
    [ST_F8_E4M3] = {"F8_E4M3", 1, KSLLM_TYPE_F16},
    [ST_F64] = {"F64", 8, KSLLM_TYPE_F32},
};

typedef struct {
    str name;
    st_dtype dtype;
    u32 n_dims;
    u64 dims[ST_MAX_DIMS]; /* slowest first, as in the file */
    u64 begin, end;
    u32 file;
    const u8 *data;
    bool used;
} st_tensor;

typedef struct {
    os_file map;
    char *path;
} st_file;

typedef struct {
    st_file *files;
    u32 n_files;
    st_tensor *t;
    u32 n, cap;
} st_folder;

static void st_bad(const char *path, str name, const char *why) {
    die("%s: tensor '%.*s': %s", path, STR(name), why);
}

static u64 st_number(const char *path, str name, const js *v) {
    i64 k;
    if (!js_int(v, &k) || k < 0)
        st_bad(path, name, "a size or offset is no whole number");
    return (u64)k;
}

static void st_read_shape(const char *path, st_tensor *t, const js *shape) {
    if (!shape || shape->kind != JS_ARR || shape->n > ST_MAX_DIMS)
        st_bad(path, t->name, "has no shape of 0 to 8 dimensions");
    t->n_dims = shape->n;
    for (u32 i = 0; i < ST_MAX_DIMS; i++) t->dims[i] = 1;
    u32 i = 0;
    for (const js *d = shape->first; d; d = d->next)
        t->dims[i++] = st_number(path, t->name, d);
}

static void st_read_tensor(
    st_folder *f, u32 file, const js *v, u64 data_bytes) {
    const char *path = f->files[file].path;
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 256;
        f->t = xgrow(f->t, f->cap, sizeof *f->t);
    }
    st_tensor *t = &f->t[f->n++];
    *t = (st_tensor){.name = v->key, .file = file};
    str dtype = js_text(js_get(v, "dtype"));
    u32 k = 0;
    while (k < KS_LEN(ST_DTYPES) && !str_eq(dtype, str_of(ST_DTYPES[k].name)))
        k++;
    if (k == KS_LEN(ST_DTYPES))
        die("%s: tensor '%.*s' has dtype '%.*s'; F32 F16 BF16 F8_E4M3 F64 can "
            "be read", path, STR(t->name), STR(dtype));
    t->dtype = (st_dtype)k;
    st_read_shape(path, t, js_get(v, "shape"));
    const js *o = js_get(v, "data_offsets");
    if (!o || o->kind != JS_ARR || o->n != 2)
        st_bad(path, t->name, "has no two data_offsets");
    t->begin = st_number(path, t->name, o->first);
    t->end = st_number(path, t->name, o->first->next);
    u64 size = ST_DTYPES[k].bytes;
    for (u32 i = 0; i < ST_MAX_DIMS; i++)
        if (!mul_ok(size, t->dims[i], &size))
            st_bad(path, t->name, "its shape overflows");
    if (t->begin > t->end || t->end - t->begin != size)
        st_bad(path, t->name, "its data_offsets contradict its shape");
    if (t->end > data_bytes)
        die("%s: tensor '%.*s' ends %llu bytes past the end of the file, which "
            "is truncated or damaged", path, STR(t->name),
            (unsigned long long)(t->end - data_bytes));
}

static u32 st_sort_by; /* 0: name, 1: place; qsort has no context */

static int st_order(const void *pa, const void *pb) {
    const st_tensor *a = pa, *b = pb;
    if (!st_sort_by) return str_cmp(a->name, b->name);
    if (a->file != b->file) return a->file < b->file ? -1 : 1;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

static void st_read_header(st_folder *f, u32 file) {
    const char *path = f->files[file].path;
    const os_file *m = &f->files[file].map;
    if (m->n < 8) die("%s: truncated: no header", path);
    u64 n = ld_u64(m->p);
    if (n > ST_MAX_HEADER || n > m->n - 8)
        die("%s: a header of %llu bytes in a file of %llu: truncated, or no "
            "safetensors file", path, (unsigned long long)n,
            (unsigned long long)m->n);
    js_reader r; /* its arena stays: names point into it */
    js *top = js_parse(&r, path, m->p + 8, (size_t)n);
    if (!top) die("%s: header: %s", path, r.why);
    if (top->kind != JS_OBJ) die("%s: header: not an object", path);
    for (const js *v = top->first; v; v = v->next)
        if (!str_eq(v->key, str_of("__metadata__")))
            st_read_tensor(f, file, v, m->n - 8 - n);
    for (u32 i = 0; i < f->n; i++)
        if (f->t[i].file == file) f->t[i].data = m->p + 8 + n + f->t[i].begin;
}

static void st_check(st_folder *f) {
    st_sort_by = 1;
    if (f->n) qsort(f->t, f->n, sizeof *f->t, st_order);
    for (u32 i = 1; i < f->n; i++)
        if (f->t[i].file == f->t[i - 1].file
            && f->t[i].begin < f->t[i - 1].end)
            die("%s: tensors '%.*s' and '%.*s' overlap",
                f->files[f->t[i].file].path, STR(f->t[i - 1].name),
                STR(f->t[i].name));
    st_sort_by = 0;
    if (f->n) qsort(f->t, f->n, sizeof *f->t, st_order);
    for (u32 i = 1; i < f->n; i++)
        if (str_eq(f->t[i].name, f->t[i - 1].name))
            die("%s: tensor '%.*s' occurs twice",
                f->files[f->t[i].file].path, STR(f->t[i].name));
}

static st_tensor *st_find(const st_folder *f, str name) {
    u32 lo = 0, hi = f->n;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        int c = str_cmp(f->t[mid].name, name);
        if (!c) return &f->t[mid];
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

static char *path_join(const char *dir, str name) {
    bytes b = {0};
    bytes_put(&b, dir, strlen(dir));
    bytes_put(&b, "/", 1);
    bytes_put(&b, name.p, name.n);
    bytes_put(&b, "", 1);
    return (char *)b.p;
}

static void st_add_file(st_folder *f, const char *dir, str name) {
    if (!name_is_plain(name))
        die("%s: the index names a file outside the folder", dir);
    char *path = path_join(dir, name);
    for (u32 i = 0; i < f->n_files; i++)
        if (!strcmp(f->files[i].path, path)) {
            free(path);
            return;
        }
    if (f->n_files == ST_MAX_FILES) die("%s: too many shards", dir);
    f->files = xgrow(f->files, f->n_files + 1, sizeof *f->files);
    st_file *file = &f->files[f->n_files++];
    file->path = path;
    if (!file_map(path, &file->map)) die("%s: missing", path);
    st_read_header(f, f->n_files - 1);
}

/* A JSON file of the folder, NULL when it is not there. Its memory stays. */
static const js *json_read(const char *dir, const char *name) {
    char *path = path_join(dir, str_of(name));
    os_file m;
    js_reader r;
    if (!file_map(path, &m)) return NULL;
    if (m.n > 1u << 30) die("%s: too large", path);
    const js *v = js_parse(&r, path, m.p, (size_t)m.n);
    if (!v) die("%s: %s", path, r.why);
    return v;
}

static bool folder_has(const char *dir, const char *name) {
    char *path = path_join(dir, str_of(name));
    sys_entry e;
    int there = sys_look(path, &e);
    free(path);
    return there > 0;
}

/* The first name in the folder that fits, in the order of the alphabet. */
static const char *folder_first(const char *dir, const char *pattern) {
    void *d = sys_folder(dir);
    const char *first = NULL;
    for (char name[SYS_NAME]; sys_next(d, name);)
        if (glob_fits(pattern, name) && (!first || strcmp(name, first) < 0))
            first = str_dup(str_of(name));
    return first;
}

/* Says what there is in place of safetensors. */
static __attribute__((noreturn)) void st_none(const char *dir) {
    static const char *const other[][2] = {
        {"*.bin", "save them as safetensors (save_pretrained of transformers)"},
        {"*.pt", "save them as safetensors (save_pretrained of transformers)"},
        {"*.pth", "take the folder that the model has for transformers"},
        {"*.gguf", "that is what 'quantize' takes"},
        {"*.safetensors", "convert reads model.safetensors or what "
            "model.safetensors.index.json names"},
    };
    for (size_t i = 0; i < KS_LEN(other); i++) {
        const char *name = folder_first(dir, other[i][0]);
        if (name)
            die("%s: no model.safetensors; the weights are in %s: %s", dir,
                name, other[i][1]);
    }
    die("%s: no model.safetensors: the weights are missing", dir);
}

/* As transformers does: model.safetensors if it exists, whatever the index
 * says. */
static void st_open(st_folder *f, const char *dir) {
    const js *index = json_read(dir, "model.safetensors.index.json");
    const js *map = js_get(index, "weight_map");
    if (folder_has(dir, "model.safetensors")) {
        st_add_file(f, dir, str_of("model.safetensors"));
        st_check(f);
        for (const js *v = map ? map->first : NULL; v; v = v->next)
            if (!js_is(v, "model.safetensors")) {
                fprintf(stderr, "%s: model.safetensors is read; its index "
                    "names other files, which are not, as in transformers\n",
                    dir);
                break;
            }
        return;
    }
    if (!index) st_none(dir);
    if (!map || map->kind != JS_OBJ)
        die("%s/model.safetensors.index.json: no weight_map", dir);
    for (const js *v = map->first; v; v = v->next) {
        if (v->kind != JS_STR)
            die("%s/model.safetensors.index.json: '%.*s' names no file", dir,
                STR(v->key));
        st_add_file(f, dir, v->text);
    }
    st_check(f);
    for (const js *v = map->first; v; v = v->next) {
        const st_tensor *t = st_find(f, v->key);
        char *path = path_join(dir, v->text);
        if (!t || strcmp(f->files[t->file].path, path))
            die("%s: tensor '%.*s' should be in it and is not", path,
                STR(v->key));
        free(path);
    }
}

/* 1 sign, 4 exponent (bias 7), 3 mantissa; no infinity, 0x7f is NaN. */
static f32 f32_of_e4m3(u8 v) {
    u32 e = v >> 3 & 15, m = v & 7;
    f32 x = e ? (f32)(8 + m) * 0x1p-10f * (f32)(1u << e) : (f32)m * 0x1p-9f;
    if ((v & 127) == 127) x = NAN;
    return v & 128 ? -x : x;
}

/* n values from the i-th on, as floats. */
static void st_values(const st_tensor *t, u64 i, u64 n, f32 *out) {
    const u8 *p = t->data + i * ST_DTYPES[t->dtype].bytes;
    if (t->dtype == ST_F8_E4M3)
        for (u64 k = 0; k < n; k++) out[k] = f32_of_e4m3(p[k]);
    else if (t->dtype == ST_F64)
        for (u64 k = 0; k < n; k++) out[k] = (f32)ld_f64(p + 8 * k);
    else
        enc_floats(ST_DTYPES[t->dtype].same, p, n, out);
}
