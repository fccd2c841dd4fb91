/* json.c - JSON: a reader for files from outside, and a writer's one need.
 *
 * The reader checks everything once (depth, UTF-8 escapes, duplicate keys in
 * small objects) and gives a tree in one arena. Numbers keep their text. */

typedef enum { JS_NULL, JS_BOOL, JS_NUM, JS_STR, JS_ARR, JS_OBJ } js_kind;

typedef struct js js;
struct js {
    js_kind kind;
    u32 n;     /* of an array or object */
    str key;   /* in an object */
    str text;  /* of a string (unescaped) or number; "true" of a bool */
    js *first, *next;
};

/* A tree takes 80 bytes a value; a tokenizer.json of 33 MB makes 150 MB. */
enum { JS_MAX_DEPTH = 64, JS_MAX_TREE = 512 << 20 };

typedef struct js_block {
    struct js_block *next;
    size_t n, cap;
    _Alignas(16) u8 data[];
} js_block;

typedef struct {
    const char *name; /* for messages */
    const u8 *p;
    size_t n, at;
    u32 depth;
    js_block *blocks;
    size_t taken; /* bytes of tree */
    char why[160];
} js_reader;

static void *js_take(js_reader *r, size_t n) {
    n = (n + 15) & ~(size_t)15;
    if (!r->blocks || n > r->blocks->cap - r->blocks->n) {
        size_t cap = max_size(n, 1 << 20);
        js_block *b = malloc(sizeof *b + cap);
        r->taken += cap;
        if (!b || r->taken > JS_MAX_TREE)
            die("%s: too much JSON to hold", r->name);
        b->next = r->blocks;
        b->n = 0;
        b->cap = cap;
        r->blocks = b;
    }
    void *p = r->blocks->data + r->blocks->n;
    r->blocks->n += n;
    return p;
}

static js *js_bad(js_reader *r, const char *why) {
    if (!r->why[0])
        snprintf(r->why, sizeof r->why, "%s at byte %zu", why, r->at);
    return NULL;
}

static void js_space(js_reader *r) {
    while (r->at < r->n && memchr(" \t\r\n", r->p[r->at], 4)) r->at++;
}

static int js_hex4(js_reader *r) {
    int v = 0;
    if (r->n - r->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        u8 c = r->p[r->at++];
        int d = c >= '0' && c <= '9' ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

static u8 *js_put_utf8(u8 *o, u32 c) {
    if (c < 0x80) {
        *o++ = (u8)c;
    } else if (c < 0x800) {
        *o++ = (u8)(0xc0 | c >> 6);
        *o++ = (u8)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *o++ = (u8)(0xe0 | c >> 12);
        *o++ = (u8)(0x80 | (c >> 6 & 63));
        *o++ = (u8)(0x80 | (c & 63));
    } else {
        *o++ = (u8)(0xf0 | c >> 18);
        *o++ = (u8)(0x80 | (c >> 12 & 63));
        *o++ = (u8)(0x80 | (c >> 6 & 63));
        *o++ = (u8)(0x80 | (c & 63));
    }
    return o;
}

/* After "\u"; a lone surrogate becomes U+FFFD, as in Python's surrogatepass
 * world it could not be written to a file either. */
static u8 *js_unicode(js_reader *r, u8 *o) {
    int a = js_hex4(r);
    if (a < 0) return NULL;
    if (a >= 0xd800 && a < 0xdc00 && r->n - r->at >= 6
        && r->p[r->at] == '\\' && r->p[r->at + 1] == 'u') {
        size_t back = r->at;
        r->at += 2;
        int b = js_hex4(r);
        if (b >= 0xdc00 && b < 0xe000)
            return js_put_utf8(o,
                (u32)(0x10000 + ((a - 0xd800) << 10) + (b - 0xdc00)));
        r->at = back;
    }
    return js_put_utf8(o, a >= 0xd800 && a < 0xe000 ? 0xfffd : (u32)a);
}

static bool js_string(js_reader *r, str *out) {
    size_t start = ++r->at, end = start;
    bool plain = true;
    while (end < r->n && r->p[end] != '"') {
        if (r->p[end] < 32) {
            r->at = end;
            return js_bad(r, "a control character in a string"), false;
        }
        if (r->p[end] == '\\') {
            plain = false;
            end++;
        }
        end++;
    }
    if (end >= r->n) return js_bad(r, "a string without end"), false;
    if (plain) {
        *out = (str){(const char *)r->p + start, end - start};
        r->at = end + 1;
        return true;
    }
    u8 *o = js_take(r, end - start + 8), *begin = o;
    while (r->at < end) {
        u8 c = r->p[r->at++];
        if (c != '\\') {
            *o++ = c;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        c = r->p[r->at++];
        const char *k = c ? memchr(from, c, 8) : NULL;
        if (k) *o++ = (u8)to[k - from];
        else if (c != 'u' || !(o = js_unicode(r, o)))
            return js_bad(r, "a bad escape in a string"), false;
    }
    *out = (str){(const char *)begin, (size_t)(o - begin)};
    r->at = end + 1;
    return true;
}

static js *js_value(js_reader *r);

/* Quadratic only where it is short: longer objects (vocabularies) are checked
 * by those who use them. */
static bool js_is_double(const js *o, str key) {
    u32 k = 0;
    for (const js *c = o->first; c && k < 256; c = c->next, k++)
        if (str_eq(c->key, key)) return true;
    return false;
}

static js *js_container(js_reader *r, bool object) {
    js *v = js_take(r, sizeof *v), *last = NULL;
    *v = (js){.kind = object ? JS_OBJ : JS_ARR};
    if (++r->depth > JS_MAX_DEPTH) return js_bad(r, "nested too deeply");
    r->at++;
    js_space(r);
    u8 close = object ? '}' : ']';
    if (r->at < r->n && r->p[r->at] == close) goto done;
    for (;;) {
        str key = {0};
        js_space(r);
        if (object) {
            if (r->at >= r->n || r->p[r->at] != '"')
                return js_bad(r, "a key was expected");
            if (!js_string(r, &key)) return NULL;
            if (js_is_double(v, key)) return js_bad(r, "a key occurs twice");
            js_space(r);
            if (r->at >= r->n || r->p[r->at++] != ':')
                return js_bad(r, "':' was expected");
        }
        js *c = js_value(r);
        if (!c) return NULL;
        c->key = key;
        if (last) last->next = c;
        else v->first = c;
        last = c;
        v->n++;
        js_space(r);
        if (r->at >= r->n) return js_bad(r, "the text ends too early");
        if (r->p[r->at] == close) break;
        if (r->p[r->at++] != ',') return js_bad(r, "',' was expected");
    }
done:
    r->at++;
    r->depth--;
    return v;
}

static bool js_is_number(str s) {
    size_t i = 0;
#define DIGITS() for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++)
    if (i < s.n && s.p[i] == '-') i++;
    size_t a = i;
    DIGITS();
    if (i == a) return false;
    if (i < s.n && s.p[i] == '.') {
        a = ++i;
        DIGITS();
        if (i == a) return false;
    }
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i++;
        if (i < s.n && (s.p[i] == '+' || s.p[i] == '-')) i++;
        a = i;
        DIGITS();
        if (i == a) return false;
    }
#undef DIGITS
    return i == s.n;
}

static js *js_word(js_reader *r) {
    size_t a = r->at;
    while (r->at < r->n && !memchr(" \t\r\n,]}:\"[{", r->p[r->at], 11)) r->at++;
    str s = {(const char *)r->p + a, r->at - a};
    js_kind kind = str_eq(s, str_of("null")) ? JS_NULL
        : str_eq(s, str_of("true")) || str_eq(s, str_of("false")) ? JS_BOOL
        : JS_NUM;
    /* Python writes these three for numbers that JSON lacks. */
    bool odd = str_eq(s, str_of("NaN")) || str_eq(s, str_of("Infinity"))
        || str_eq(s, str_of("-Infinity"));
    if (kind == JS_NUM && !odd && !js_is_number(s)) {
        r->at = a;
        return js_bad(r, "no value");
    }
    js *v = js_take(r, sizeof *v);
    *v = (js){.kind = kind, .text = s};
    return v;
}

static js *js_value(js_reader *r) {
    js_space(r);
    if (r->at >= r->n) return js_bad(r, "the text ends too early");
    u8 c = r->p[r->at];
    if (c == '{' || c == '[') return js_container(r, c == '{');
    if (c != '"') return js_word(r);
    js *v = js_take(r, sizeof *v);
    *v = (js){.kind = JS_STR};
    return js_string(r, &v->text) ? v : NULL;
}

static KS_UNUSED void js_free(js_reader *r) {
    while (r->blocks) {
        js_block *b = r->blocks;
        r->blocks = b->next;
        free(b);
    }
}

/* The one value of the text, or NULL with r->why filled. `text` must outlive
 * the tree. */
static js *js_parse(js_reader *r, const char *name, const u8 *p, size_t n) {
    *r = (js_reader){.name = name, .p = p, .n = n};
    if (n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) r->at = 3;
    js *v = js_value(r);
    js_space(r);
    if (v && r->at != n) v = js_bad(r, "something after the end");
    return v;
}

static const js *js_get(const js *o, const char *key) {
    if (!o || o->kind != JS_OBJ) return NULL;
    for (const js *c = o->first; c; c = c->next)
        if (str_eq(c->key, str_of(key))) return c;
    return NULL;
}

static str js_text(const js *v) {
    return v && v->kind == JS_STR ? v->text : (str){0};
}

static bool js_is(const js *v, const char *text) {
    return v && v->kind == JS_STR && str_eq(v->text, str_of(text));
}

static bool js_true(const js *v) {
    return v && v->kind == JS_BOOL && v->text.n == 4;
}

static bool js_num(const js *v, f64 *out) {
    char z[64];
    if (!v || v->kind != JS_NUM || v->text.n >= sizeof z) return false;
    memcpy(z, v->text.p, v->text.n);
    z[v->text.n] = 0;
    *out = strtod(z, NULL);
    return true;
}

/* Exact integers only. */
static bool js_int(const js *v, i64 *out) {
    f64 d;
    if (!js_num(v, &d) || d != d || d < -9e15 || d > 9e15) return false;
    *out = (i64)d;
    return (f64)*out == d;
}

/* Text as a JSON string, to a stream. */
static void js_print(FILE *f, str s) {
    fputc('"', f);
    for (size_t i = 0; i < s.n; i++) {
        u8 c = (u8)s.p[i];
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c < 32) fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}
