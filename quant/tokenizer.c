/* tokenizer.c, part of ksllm-quant.c - a folder's tokenizer as GGUF metadata.
 *
 * tokenizer.json says exactly how its model cuts text; GGUF has only a name
 * for that (tokenizer.ggml.pre). TK_PRES maps one to the other. What is not in
 * the table is refused: a wrong name would load and give wrong tokens. */

#include <ctype.h>

enum { TK_MAX_TOKENS = 1 << 21 };

typedef struct {
    str text;
    i32 type; /* TOK_NORMAL .. */
    f32 score;
} tk_token;

typedef struct {
    str name, text;
} tk_template;

typedef struct {
    const char *dir;
    const js *json, *config, *special, *model_config, *generation;
    const js *top; /* of config.json; model_config may be a part of it */
    tk_token *tokens;
    u32 n, cap;
    u32 *hash; /* open addressing over ids + 1 */
    u32 hash_size;
    bool pieces; /* SentencePiece, else byte-level BPE */
    bool unigram; /* pieces by the best sum of scores, as XLM-R */
    str map;      /* its map of characters, as the file has it: base64 */
    const char *pre;
    bool add_space;
    i32 bos, eos, eot, unk, pad;
    tk_template *templates;
    u32 n_templates;
} tk;

static void tk_set(tk *t, u64 id, str text, i32 type, f32 score) {
    if (id >= TK_MAX_TOKENS)
        die("%s: token id %llu is too large", t->dir, (unsigned long long)id);
    if (id >= t->cap) {
        u32 cap = t->cap ? t->cap : 1024;
        while (cap <= id) cap *= 2;
        t->tokens = xgrow(t->tokens, cap, sizeof *t->tokens);
        memset(t->tokens + t->cap, 0, (cap - t->cap) * sizeof *t->tokens);
        t->cap = cap;
    }
    if (id >= t->n) t->n = (u32)id + 1;
    t->tokens[id] = (tk_token){text, type, score};
}

static u32 tk_hash(str s) {
    u32 h = 2166136261u;
    for (size_t i = 0; i < s.n; i++) h = (h ^ (u8)s.p[i]) * 16777619u;
    return h ^ h >> 15;
}

static void tk_index(tk *t) {
    free(t->hash);
    t->hash_size = 1024;
    while (t->hash_size < 2 * t->n) t->hash_size *= 2;
    t->hash = xalloc(t->hash_size, sizeof *t->hash);
    for (u32 i = 0; i < t->n; i++) {
        if (!t->tokens[i].type) continue;
        u32 at = tk_hash(t->tokens[i].text) & (t->hash_size - 1);
        while (t->hash[at]) at = (at + 1) & (t->hash_size - 1);
        t->hash[at] = i + 1;
    }
}

static i32 tk_find(const tk *t, str s) {
    u32 at = tk_hash(s) & (t->hash_size - 1);
    for (; t->hash[at]; at = (at + 1) & (t->hash_size - 1))
        if (str_eq(t->tokens[t->hash[at] - 1].text, s))
            return (i32)t->hash[at] - 1;
    return -1;
}

/* ---- how text is cut ---- */

#define TK_S "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TK_SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TK_UP "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define TK_LOW "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define TK_X "[^\\r\\n\\p{L}\\p{N}]?"
#define TK_DIGIT "\\p{N}"
#define TK_OTHER " ?[^\\s\\p{L}\\p{N}]+"
#define TK_GPT2                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" TK_OTHER                   \
    "|\\s+(?!\\S)|\\s+"
#define TK_QWEN2                                                              \
    TK_S "|" TK_X "\\p{L}+|" TK_DIGIT "|" TK_OTHER "[\\r\\n]*|" TK_SPACES
#define TK_CJK /* two ranges of kana after the Han characters */              \
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-"        \
    "\xe3\x83\xbf]+"
#define TK_DEEPSEEK                                                           \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"                  \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" \
    TK_SPACES

enum { TK_MAX_SPLITS = 4 };

/* Splits one after the other, in the writing of tk_canonical. Whether text is
 * normalised to NFC and whether whole words are looked up first must be what
 * TOK_RULES says of the name, which llama.cpp knows as well (but for NAVER's
 * hyperclovax). */
static const struct {
    const char *name, *split[TK_MAX_SPLITS];
} TK_PRES[] = {
    {"gpt-2", {TK_GPT2}},
    {"smollm", {TK_DIGIT, TK_GPT2}}, /* EXAONE 3 too */
    {"llama-bpe", {TK_S "|" TK_X "\\p{L}+|\\p{N}{1,3}|" TK_OTHER "[\\r\\n]*|"
        TK_SPACES}},
    {"qwen2", {TK_QWEN2}},
    {"deepseek-r1-qwen", {TK_QWEN2}}, /* Solar Open, KORMo: no NFC */
    {"qwen35", {TK_S "|" TK_X "[\\p{L}\\p{M}]+|" TK_DIGIT
        "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" TK_SPACES}},
    {"exaone-moe", {TK_S "|" TK_X "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|"
        TK_DIGIT "|" TK_OTHER "[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"gpt-4o", {TK_X TK_UP "*" TK_LOW "+" TK_S "?|" TK_X TK_UP "+" TK_LOW "*"
        TK_S "?|\\p{N}{1,3}|" TK_OTHER "[\\r\\n/]*|" TK_SPACES}},
    {"tekken", {TK_X TK_UP "*" TK_LOW "+|" TK_X TK_UP "+" TK_LOW "*|"
        TK_DIGIT "|" TK_OTHER "[\\r\\n/]*|" TK_SPACES}},
    {"deepseek-v3", {"\\p{N}{1,3}", TK_CJK, TK_DEEPSEEK}},
    {"hyperclovax", {TK_DIGIT, TK_CJK, TK_DEEPSEEK}},
};

/* Other ways to write the same: line ends as they are, cases spelled out, and
 * possessive repeats, which match alike where nothing could be given back. */
static const char *const TK_SAME[][2] = {
    {"\r", "\\r"}, {"\n", "\\n"}, {"\\\"", "\""}, {"?+", "?"}, {"++", "+"},
    {"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", TK_S},
    {"'(?i:[sdmt]|ll|ve|re)", TK_S},
};

static str tk_canonical(str regex) {
    bytes b = {0};
    while (regex.n) {
        const char *to = regex.p;
        size_t from = 1, n = 1;
        for (size_t i = 0; i < KS_LEN(TK_SAME); i++) {
            size_t k = strlen(TK_SAME[i][0]);
            if (regex.n < k || memcmp(regex.p, TK_SAME[i][0], k)) continue;
            from = k;
            to = TK_SAME[i][1];
            n = strlen(to);
        }
        bytes_put(&b, to, n);
        regex = (str){regex.p + from, regex.n - from};
    }
    return (str){(const char *)b.p, b.n};
}

typedef struct {
    str split[TK_MAX_SPLITS];
    u32 n_splits, n_byte_level;
    bool nfc, metaspace, prepend, replace, at_space;
    str scheme; /* of Metaspace */
    str map;    /* of Precompiled */
    bool squeeze, by_space; /* spaces: of the normalizer, WhitespaceSplit */
    str odd; /* a part that is not known */
} tk_cut;

static void tk_add_split(tk_cut *c, str regex) {
    if (c->n_splits == TK_MAX_SPLITS) c->odd = str_of("Split");
    else c->split[c->n_splits++] = tk_canonical(regex);
}

static void tk_read_split(tk_cut *c, const js *v) {
    const js *pattern = js_get(v, "pattern");
    str regex = js_text(js_get(pattern, "Regex"));
    bool invert = js_true(js_get(v, "invert"));
    /* Of a rule that leaves nothing out, words kept and gaps removed are the
     * same as words isolated. */
    bool whole = js_is(js_get(v, "behavior"), invert ? "Removed" : "Isolated")
        && !(invert && c->n_splits);
    if (regex.n && whole) tk_add_split(c, regex);
    /* Gemma's: at a space that its normalizer has replaced already. */
    else if (js_is(js_get(pattern, "String"), " ")) c->at_space = true;
    else c->odd = str_of("Split");
}

static void tk_read_pre(tk_cut *c, const js *v) {
    if (!v || v->kind != JS_OBJ) return;
    const js *list = js_get(v, "pretokenizers");
    str type = js_text(js_get(v, "type"));
    if (list) {
        for (const js *p = list->first; p; p = p->next) tk_read_pre(c, p);
    } else if (str_eq(type, str_of("Split"))) {
        tk_read_split(c, v);
    } else if (str_eq(type, str_of("Digits"))
        && js_true(js_get(v, "individual_digits"))) {
        tk_add_split(c, str_of(TK_DIGIT));
    } else if (str_eq(type, str_of("ByteLevel"))) {
        const js *own = js_get(v, "use_regex");
        c->n_byte_level++;
        if (!own || js_true(own)) tk_add_split(c, str_of(TK_GPT2));
        if (js_true(js_get(v, "add_prefix_space"))) c->odd = type;
    } else if (str_eq(type, str_of("WhitespaceSplit"))) {
        c->by_space = true;
    } else if (str_eq(type, str_of("Metaspace"))) {
        const js *old = js_get(v, "add_prefix_space");
        c->metaspace = true;
        c->scheme = js_text(js_get(v, "prepend_scheme"));
        if (!c->scheme.n)
            c->scheme = str_of(old && !js_true(old) ? "never" : "always");
    } else c->odd = type;
}

#define TK_SPACE "\xe2\x96\x81" /* U+2581, SentencePiece's space */

static void tk_read_normalizer(tk_cut *c, const js *v) {
    if (!v || v->kind != JS_OBJ) return;
    const js *list = js_get(v, "normalizers");
    str type = js_text(js_get(v, "type"));
    if (list)
        for (const js *p = list->first; p; p = p->next)
            tk_read_normalizer(c, p);
    else if (str_eq(type, str_of("NFC"))) c->nfc = true;
    else if (str_eq(type, str_of("Precompiled")))
        c->map = js_text(js_get(v, "precompiled_charsmap"));
    else if (str_eq(type, str_of("Strip"))
        || (str_eq(type, str_of("Replace"))
            && js_is(js_get(js_get(v, "pattern"), "Regex"), " {2,}")))
        c->squeeze = true; /* SentencePiece's rule for spaces, spelled out */
    else if (str_eq(type, str_of("Prepend"))
        && js_is(js_get(v, "prepend"), TK_SPACE)) c->prepend = true;
    else if (str_eq(type, str_of("Replace"))
        && js_is(js_get(js_get(v, "pattern"), "String"), " ")
        && js_is(js_get(v, "content"), TK_SPACE)) c->replace = true;
    else c->odd = type;
}

static const tok_rule *tk_rule(const char *name) {
    for (size_t i = 0; i < KS_LEN(TOK_RULES); i++)
        if (!strcmp(TOK_RULES[i].name, name)) return &TOK_RULES[i];
    return NULL;
}

static bool tk_same_splits(const tk_cut *c, const char *const *want) {
    u32 n = 0;
    while (n < TK_MAX_SPLITS && want[n]) n++;
    if (n != c->n_splits) return false;
    for (u32 i = 0; i < n; i++)
        if (!str_eq(c->split[i], str_of(want[i]))) return false;
    return true;
}

/* As much of it as a message has room for, in whole characters. */
static str tk_begin(str s) {
    size_t n = min_size(s.n, 400);
    while (n && n < s.n && ((u8)s.p[n] & 0xc0) == 0x80) n--;
    return (str){s.p, n};
}

static void tk_choose_pre(tk *t, const tk_cut *c, bool ignore_merges) {
    if (t->pre && tk_rule(t->pre)) return; /* the caller's */
    if (t->pre) die("--pre %s: ksllm knows no pre-tokenizer of this name",
        t->pre);
    bool plain = !c->odd.n && c->n_byte_level == 1 && !c->metaspace
        && !c->prepend && !c->replace && !c->at_space && !c->by_space
        && !c->squeeze && !c->map.n;
    for (size_t i = 0; plain && i < KS_LEN(TK_PRES); i++) {
        const tok_rule *r = tk_rule(TK_PRES[i].name);
        if (r->nfc == c->nfc && r->whole == ignore_merges
            && tk_same_splits(c, TK_PRES[i].split)) {
            t->pre = r->name;
            return;
        }
    }
    for (u32 i = 0; i < c->n_splits; i++)
        fprintf(stderr, "split: %.*s\n", STR(tk_begin(c->split[i])));
    die("%s/tokenizer.json: its pre-tokenizer is not in the table (%s%.*s%s; "
        "NFC %s, ignore_merges %s); --pre NAME names the one that is the same",
        t->dir, c->odd.n ? "part '" : "no odd part", STR(c->odd),
        c->odd.n ? "'" : "", c->nfc ? "yes" : "no",
        ignore_merges ? "yes" : "no");
}

/* GGUF's add_space_prefix says that a space goes before text: at its beginning
 * and after every added token, whatever is there. That is the normalizer
 * Prepend. Metaspace leaves text alone that begins with a space, and "first"
 * the text after added tokens, too. */
static void tk_choose_space(tk *t, const tk_cut *c) {
    bool known = t->pre && !strcmp(t->pre, "default");
    t->add_space = c->prepend;
    if (t->pre && !known)
        die("--pre %s: a tokenizer of pieces has no rule but 'default'",
            t->pre);
    if (!c->metaspace || str_eq(c->scheme, str_of("never"))) return;
    if (!known)
        die("%s/tokenizer.json: Metaspace with prepend_scheme '%.*s', which "
            "GGUF cannot say; with --pre default a space goes before every "
            "text between added tokens", t->dir, STR(c->scheme));
    t->add_space = true;
}

/* ---- tokenizer.json ---- */

static bool tk_is_byte_piece(str s) { /* <0x0A> */
    return s.n == 6 && !memcmp(s.p, "<0x", 3) && s.p[5] == '>';
}

static void tk_read_vocab(tk *t, const js *model) {
    const js *vocab = js_get(model, "vocab");
    if (!vocab || vocab->kind != JS_OBJ || !vocab->n)
        die("%s/tokenizer.json: no vocabulary", t->dir);
    for (const js *v = vocab->first; v; v = v->next) {
        i64 id;
        if (!js_int(v, &id) || id < 0)
            die("%s/tokenizer.json: token '%.*s' has no id", t->dir,
                STR(v->key));
        if ((u64)id < t->n && t->tokens[id].type)
            die("%s/tokenizer.json: tokens '%.*s' and '%.*s' have one id",
                t->dir, STR(t->tokens[id].text), STR(v->key));
        bool byte = t->pieces && tk_is_byte_piece(v->key);
        tk_set(t, (u64)id, v->key, byte ? TOK_BYTE : TOK_NORMAL, 0);
    }
}

static void tk_add(tk *t, const char *file, const js *number, str text,
    bool special) {
    i64 id;
    if (!js_int(number, &id) || id < 0 || !text.n)
        die("%s/%s: an added token without id or content", t->dir, file);
    if ((u64)id < t->n && t->tokens[id].type == TOK_UNKNOWN) return;
    tk_set(t, (u64)id, text, special ? TOK_CONTROL : TOK_USER, 0);
}

/* A token that is found in text only so, or takes spaces along: GGUF has no
 * word for it, and without it text around it would become other tokens. */
static void tk_check_added(const tk *t, const char *file, const js *v) {
    static const char *const how[] = {"lstrip", "rstrip", "single_word"};
    /* XLM-R's takes a space along where it is asked for, which no text does */
    if (t->unigram && js_is(js_get(v, "content"), "<mask>")) return;
    for (size_t i = 0; i < KS_LEN(how); i++)
        if (js_true(js_get(v, how[i])))
            die("%s/%s: the added token '%.*s' has '%s', which GGUF cannot "
                "say; set it to false to convert without", t->dir, file,
                STR(js_text(js_get(v, "content"))), how[i]);
}

static void tk_add_described(tk *t, const char *file, const js *number,
    const js *v) {
    tk_check_added(t, file, v);
    tk_add(t, file, number, js_text(js_get(v, "content")),
        js_true(js_get(v, "special")));
}

static void tk_read_added(tk *t) {
    const js *added = js_get(t->json, "added_tokens");
    const js *v = added && added->kind == JS_ARR ? added->first : NULL;
    for (; v; v = v->next)
        tk_add_described(t, "tokenizer.json", js_get(v, "id"), v);
    if (t->json) return;
    /* Beside a lone tokenizer.model: {"TEXT": ID}, {"ID": {"content": ..}}. */
    const js *plain = json_read(t->dir, "added_tokens.json");
    for (v = plain && plain->kind == JS_OBJ ? plain->first : NULL; v;
        v = v->next)
        tk_add(t, "added_tokens.json", v, v->key, false);
    added = js_get(t->config, "added_tokens_decoder");
    for (v = added && added->kind == JS_OBJ ? added->first : NULL; v;
        v = v->next) {
        js number = {.kind = JS_NUM, .text = v->key};
        tk_add_described(t, "tokenizer_config.json", &number, v);
    }
}

/* "a b" or ["a", "b"] */
static bool tk_merge(const js *v, str *a, str *b) {
    if (v->kind == JS_ARR && v->n == 2) {
        *a = js_text(v->first);
        *b = js_text(v->first->next);
    } else {
        str s = js_text(v);
        const char *gap = s.n ? memchr(s.p, ' ', s.n) : NULL;
        if (!gap) return false;
        *a = (str){s.p, (size_t)(gap - s.p)};
        *b = (str){gap + 1, s.n - a->n - 1};
    }
    return a->n && b->n;
}

/* SentencePiece joins by score, the merge list by rank: a piece's score is
 * minus the rank of the first merge that makes it. */
static void tk_scores(tk *t, const js *merges) {
    u8 text[1024];
    u32 rank = 0;
    for (u32 i = 0; i < t->n; i++) t->tokens[i].score = -1e6f;
    for (const js *v = merges->first; v; v = v->next, rank++) {
        str a, b;
        if (!tk_merge(v, &a, &b) || a.n + b.n > sizeof text)
            die("%s/tokenizer.json: merge %u is damaged", t->dir, rank);
        memcpy(text, a.p, a.n);
        memcpy(text + a.n, b.p, b.n);
        i32 id = tk_find(t, (str){(const char *)text, a.n + b.n});
        if (id < 0)
            die("%s/tokenizer.json: merge %u makes no token", t->dir, rank);
        if (t->tokens[id].score <= -1e6f)
            t->tokens[id].score = -(f32)rank;
    }
}

static void tk_check_special_ids(tk *t) {
    str unk = js_text(js_get(js_get(t->json, "model"), "unk_token"));
    i32 id = unk.n ? tk_find(t, unk) : -1;
    if (id >= 0 && t->pieces) t->tokens[id].type = TOK_UNKNOWN;
    if (id >= 0) t->unk = id;
}

/* Pieces with their scores; spaces as SentencePiece has them: one before each
 * word and none else. */
static void tk_read_unigram(tk *t, const js *model) {
    const js *vocab = js_get(model, "vocab");
    tk_cut c = {0};
    i64 unk = -1;
    u64 id = 0;
    f64 score;
    tk_read_pre(&c, js_get(t->json, "pre_tokenizer"));
    tk_read_normalizer(&c, js_get(t->json, "normalizer"));
    if (c.odd.n || c.nfc || c.n_splits || c.n_byte_level || c.replace
        || c.prepend || c.at_space || !c.metaspace
        || !str_eq(c.scheme, str_of("always")) || !(c.by_space || c.squeeze)
        || js_true(js_get(model, "byte_fallback")))
        die("%s/tokenizer.json: a unigram vocabulary that is not cut as "
            "XLM-R's (%.*s)", t->dir, STR(c.odd.n ? c.odd
                : c.metaspace ? str_of("its spaces") : str_of("no Metaspace")));
    if (!vocab || vocab->kind != JS_ARR || !vocab->n)
        die("%s/tokenizer.json: no vocabulary", t->dir);
    t->pieces = t->unigram = t->add_space = true;
    t->map = c.map;
    for (const js *v = vocab->first; v; v = v->next, id++) {
        if (v->kind != JS_ARR || v->n != 2 || v->first->kind != JS_STR
            || !js_num(v->first->next, &score))
            die("%s/tokenizer.json: piece %llu is damaged", t->dir,
                (unsigned long long)id);
        tk_set(t, id, v->first->text, TOK_NORMAL, (f32)score);
    }
    if (js_int(js_get(model, "unk_id"), &unk) && unk >= 0 && unk < (i64)id) {
        t->tokens[unk].type = TOK_UNKNOWN;
        t->unk = (i32)unk;
    }
    tk_read_added(t);
    tk_index(t);
}

static const js *tk_read_json(tk *t) {
    const js *model = js_get(t->json, "model");
    if (!model) die("%s/tokenizer.json: no model", t->dir);
    if (js_is(js_get(model, "type"), "Unigram")) {
        tk_read_unigram(t, model);
        return NULL;
    }
    if (!js_is(js_get(model, "type"), "BPE"))
        die("%s/tokenizer.json: a model of type '%.*s'; only BPE and Unigram "
            "can be run", t->dir, STR(js_text(js_get(model, "type"))));
    const js *merges = js_get(model, "merges");
    if (!merges || merges->kind != JS_ARR)
        die("%s/tokenizer.json: no merges", t->dir);
    tk_cut c = {0};
    tk_read_pre(&c, js_get(t->json, "pre_tokenizer"));
    tk_read_normalizer(&c, js_get(t->json, "normalizer"));
    t->pieces = js_true(js_get(model, "byte_fallback"));
    tk_read_vocab(t, model);
    tk_read_added(t);
    tk_index(t);
    if (t->pieces) {
        if (c.odd.n || !(c.replace || c.metaspace) || c.nfc || c.n_splits
            || c.by_space || c.squeeze || c.map.n)
            die("%s/tokenizer.json: pieces with a normalizer or pre-tokenizer "
                "(%.*s) that is not known", t->dir,
                STR(c.odd.n ? c.odd : str_of(c.nfc ? "NFC" : "Split")));
        tk_choose_space(t, &c);
        tk_scores(t, merges);
    } else {
        bool whole = js_true(js_get(model, "ignore_merges"));
        tk_choose_pre(t, &c, whole);
    }
    return merges;
}

/* ---- tokenizer.model: a protobuf of SentencePiece ---- */

typedef struct {
    const u8 *p;
    size_t n;
    bool bad;
} pb;

static u64 pb_varint(pb *b) {
    u64 v = 0;
    for (int k = 0; k < 70 && b->n; k += 7) {
        u8 c = *b->p++;
        b->n--;
        if (k < 64) v |= (u64)(c & 127) << k;
        if (c < 128) return v;
    }
    b->bad = true;
    return 0;
}

/* The next field: its number, and its bytes (wire type 2) or value. */
static u32 pb_field(pb *b, pb *sub, u64 *value) {
    u64 key = pb_varint(b);
    *sub = (pb){0};
    *value = 0;
    size_t n = 0;
    switch (key & 7) {
    case 0: *value = pb_varint(b); return (u32)(key >> 3);
    case 1: n = 8; break;
    case 5: n = 4; break;
    case 2: {
        u64 k = pb_varint(b);
        if (k > b->n) b->bad = true;
        n = b->bad ? 0 : (size_t)k;
        break;
    }
    default: b->bad = true;
    }
    if (n > b->n) b->bad = true;
    if (b->bad) return 0;
    *sub = (pb){b->p, n, false};
    if ((key & 7) == 5) *value = ld_u32(b->p);
    b->p += n;
    b->n -= n;
    return (u32)(key >> 3);
}

static void tk_read_piece(tk *t, pb piece) {
    str text = {0};
    f32 score = 0;
    u64 type = 1, v;
    while (piece.n && !piece.bad) {
        pb sub;
        u32 k = pb_field(&piece, &sub, &v);
        if (k == 1) text = (str){(const char *)sub.p, sub.n};
        if (k == 2) score = f32_of_bits((u32)v);
        if (k == 3) type = v;
    }
    if (piece.bad || type < 1 || type > 6)
        die("%s/tokenizer.model: damaged", t->dir);
    /* the numbers are those of tokenizer.ggml.token_type */
    tk_set(t, t->n, text, (i32)type, score);
}

/* What the trainer and the normalizer were told; numbers are those of
 * sentencepiece_model.proto. */
typedef struct {
    u64 kind, suffix, rules, squeeze; /* rules: of a normalizer, bytes */
    i32 ids[4]; /* unk, bos, eos, pad */
} tk_spec;

static bool tk_read_spec(tk *t, pb in, u32 k, tk_spec *o) {
    pb sub;
    u64 v;
    while (in.n && !in.bad) {
        u32 f = pb_field(&in, &sub, &v);
        if (k == 2 && f == 3) o->kind = v;
        if (k == 2 && f == 24) o->suffix = v;
        if (k == 2 && f >= 40 && f < 44) o->ids[f - 40] = (i32)v;
        if (k == 3 && f == 2) o->rules = sub.n;
        if (k == 3 && f == 3) t->add_space = v != 0;
        if (k == 3 && f == 4) o->squeeze = v;
    }
    return !in.bad;
}

static void tk_read_sentencepiece(tk *t, const os_file *m) {
    pb b = {m->p, (size_t)m->n, false}, sub;
    tk_spec o = {1, 0, 0, 1, {0, 1, 2, -1}};
    u64 v;
    t->pieces = true;
    t->add_space = true;
    while (b.n && !b.bad) {
        u32 k = pb_field(&b, &sub, &v);
        if (k == 1) tk_read_piece(t, sub);
        if ((k == 2 || k == 3) && !tk_read_spec(t, sub, k, &o)) b.bad = true;
    }
    if (b.bad || !t->n) die("%s/tokenizer.model: damaged", t->dir);
    if (o.kind != 2 || o.suffix)
        die("%s/tokenizer.model: a SentencePiece model that is no BPE with "
            "spaces in front (type %llu), which cannot be run", t->dir,
            (unsigned long long)o.kind);
    if (o.rules || o.squeeze)
        fprintf(stderr, "%s/tokenizer.model: rewrites text before it is cut "
            "(NFKC, double spaces), which GGUF cannot say: only text that is "
            "so already gives the same tokens\n", t->dir);
    i32 *to[] = {&t->unk, &t->bos, &t->eos, &t->pad};
    for (int i = 0; i < 4; i++)
        if (o.ids[i] >= 0 && (u32)o.ids[i] < t->n
            && (t->tokens[o.ids[i]].type == TOK_CONTROL
                || t->tokens[o.ids[i]].type == TOK_UNKNOWN))
            *to[i] = o.ids[i];
}

/* Beside a tokenizer.json, which transformers would read: it says where spaces
 * go. */
static void tk_read_space(tk *t) {
    tk_cut c = {0};
    tk_read_pre(&c, js_get(t->json, "pre_tokenizer"));
    tk_read_normalizer(&c, js_get(t->json, "normalizer"));
    if (c.replace || c.metaspace) tk_choose_space(t, &c);
}

/* ---- special ids ---- */

/* "<s>" or {"content": "<s>"} */
static i32 tk_token_of(const tk *t, const js *v) {
    str s = js_text(v && v->kind == JS_OBJ ? js_get(v, "content") : v);
    return s.n ? tk_find(t, s) : -1;
}

static i32 tk_special(const tk *t, const char *name) {
    char key[40];
    i64 id;
    snprintf(key, sizeof key, "%s_token", name);
    i32 found = tk_token_of(t, js_get(t->config, key));
    if (found < 0) found = tk_token_of(t, js_get(t->special, key));
    snprintf(key, sizeof key, "%s_token_id", name);
    const js *sources[] = {t->generation, t->model_config};
    for (int i = 0; i < 2 && found < 0; i++) {
        const js *v = js_get(sources[i], key);
        if (v && v->kind == JS_ARR) v = v->first;
        if (js_int(v, &id) && id >= 0 && id < (i64)t->n) found = (i32)id;
    }
    return found;
}

/* ---- chat templates ---- */

static void tk_add_template(tk *t, str name, str text) {
    t->templates = xgrow(t->templates, t->n_templates + 1,
        sizeof *t->templates);
    t->templates[t->n_templates++] = (tk_template){name, text};
}

/* The template that counts when none is named; p is NULL if there is none. */
static str tk_default(const tk_template *list, u32 n) {
    for (u32 i = 0; i < n; i++)
        if (str_eq(list[i].name, str_of("default"))) return list[i].text;
    return (str){0};
}

static int tk_template_order(const void *a, const void *b) {
    return str_cmp(((const tk_template *)a)->name,
        ((const tk_template *)b)->name);
}

static void tk_read_template_file(tk *t, const char *path, str name) {
    os_file m; /* stays: the text points into it */
    if (file_map(path, &m))
        tk_add_template(t, name, (str){(const char *)m.p, (size_t)m.n});
}

/* chat_template.jinja and additional_chat_templates/NAME.jinja */
static void tk_read_template_files(tk *t) {
    char *path = path_join(t->dir, str_of("additional_chat_templates"));
    void *d = sys_folder(path);
    for (char entry[SYS_NAME]; sys_next(d, entry);) {
        str name = str_of(entry);
        if (name.n <= 6 || strcmp(name.p + name.n - 6, ".jinja")) continue;
        char *file = path_join(path, name);
        tk_read_template_file(t, file,
            str_of(str_dup((str){name.p, name.n - 6})));
        free(file);
    }
    if (t->n_templates)
        qsort(t->templates, t->n_templates, sizeof *t->templates,
            tk_template_order);
    free(path);
    path = path_join(t->dir, str_of("chat_template.jinja"));
    tk_read_template_file(t, path, str_of("default"));
    free(path);
}

/* "TEXT" or [{"name": "NAME", "template": "TEXT"}, ...] */
static void tk_read_template_value(tk *t, const js *v) {
    if (v && v->kind == JS_STR)
        tk_add_template(t, str_of("default"), v->text);
    for (const js *k = v && v->kind == JS_ARR ? v->first : NULL; k;
        k = k->next)
        tk_add_template(t, js_text(js_get(k, "name")),
            js_text(js_get(k, "template")));
}

/* Three places, in the order in which AutoTokenizer prefers them (the last one
 * is of AutoProcessor alone). The first that has any counts, whole. */
static void tk_read_templates(tk *t) {
    static const char *const places[] = {"the .jinja files",
        "tokenizer_config.json", "chat_template.json"};
    const js *values[] = {NULL, js_get(t->config, "chat_template"),
        js_get(json_read(t->dir, "chat_template.json"), "chat_template")};
    int used = -1;
    for (int i = 0; i < 3; i++) {
        tk one = {.dir = t->dir};
        if (i) tk_read_template_value(&one, values[i]);
        else tk_read_template_files(&one);
        str mine = tk_default(one.templates, one.n_templates);
        str theirs = tk_default(t->templates, t->n_templates);
        if (used < 0 && one.n_templates) {
            t->templates = one.templates;
            t->n_templates = one.n_templates;
            used = i;
        } else if (mine.p && !(theirs.p && str_eq(mine, theirs))) {
            fprintf(stderr, "%s: the chat template of %s differs from that of "
                "%s; the latter is taken, as in transformers\n", t->dir,
                places[i], places[used]);
        }
    }
}

static bool tk_templates_use(const tk *t, const char *word) {
    for (u32 i = 0; i < t->n_templates; i++)
        if (str_has(t->templates[i].text, word)) return true;
    return false;
}

static void tk_write_templates(const tk *t, gw *g) {
    bytes names = {0};
    u32 n = 0;
    for (u32 i = 0; i < t->n_templates; i++) {
        char key[160] = "tokenizer.chat_template", name[96];
        if (!str_eq(t->templates[i].name, str_of("default"))) {
            int k = snprintf(name, sizeof name, "%.*s",
                STR(t->templates[i].name));
            /* llama.cpp's names are of letters and digits */
            for (char *p = name; *p; p++)
                if (!isalnum((unsigned char)*p)) *p = '_';
            if (k < 1 || (size_t)k >= sizeof name)
                die("%s: a chat template's name has %d bytes", t->dir, k);
            snprintf(key, sizeof key, "tokenizer.chat_template.%s", name);
            gw_str(&names, str_of(name));
            n++;
        }
        gw_kv_str(g, key, t->templates[i].text);
    }
    if (n) {
        gw_kv_array(g, "tokenizer.chat_templates", KSLLM_META_TEXT, n);
        bytes_put(&g->kv, names.p, names.n);
    }
    free(names.p);
}

/* ---- what goes before and after a text ---- */

/* Tokens that a post-processor puts there: BEFORE and AFTER. */
enum { BEFORE, AFTER };

typedef struct {
    i32 id; /* of the last one */
    u32 n;
} tk_frame;

static void tk_frame_add(tk_frame *f, const js *id) {
    i64 v;
    f->id = js_int(id, &v) && v >= 0 && v < TK_MAX_TOKENS ? (i32)v : -1;
    f->n++;
}

static void tk_frame_template(const tk *t, const js *p, tk_frame f[2]) {
    const js *single = js_get(p, "single");
    const js *special = js_get(p, "special_tokens");
    int side = BEFORE;
    bool text = false;
    for (const js *v = single ? single->first : NULL; v; v = v->next) {
        const js *name = js_get(js_get(v, "SpecialToken"), "id");
        if (!name) {
            text = true;
            side = AFTER;
            continue;
        }
        const js *entry = js_get(special, str_dup(js_text(name)));
        const js *ids = js_get(entry, "ids");
        if (!ids || !ids->first)
            die("%s/tokenizer.json: the post-processor's '%.*s' has no id",
                t->dir, STR(js_text(name)));
        for (const js *id = ids->first; id; id = id->next)
            tk_frame_add(&f[side], id);
    }
    if (!text)
        die("%s/tokenizer.json: a post-processor without the text", t->dir);
}

static void tk_frame_of(const tk *t, const js *p, tk_frame f[2]) {
    const js *list = js_get(p, "processors");
    str type = js_text(js_get(p, "type"));
    if (list) {
        for (const js *v = list->first; v; v = v->next) tk_frame_of(t, v, f);
    } else if (str_eq(type, str_of("TemplateProcessing"))) {
        tk_frame_template(t, p, f);
    } else if (str_eq(type, str_of("RobertaProcessing"))
        || str_eq(type, str_of("BertProcessing"))) {
        const js *cls = js_get(p, "cls"), *sep = js_get(p, "sep");
        tk_frame_add(&f[BEFORE], cls && cls->first ? cls->first->next : NULL);
        tk_frame_add(&f[AFTER], sep && sep->first ? sep->first->next : NULL);
    } else if (type.n && !str_eq(type, str_of("ByteLevel"))) {
        die("%s/tokenizer.json: the post-processor '%.*s' is not known",
            t->dir, STR(type));
    }
}

/* GGUF can say that BOS goes before and EOS after. Another token becomes that
 * one, unless a chat template means the old one: then nothing fits both. */
static bool tk_frame_is(tk *t, tk_frame f, int side, i32 *special) {
    const char *word = side == BEFORE ? "bos_token" : "eos_token";
    if (!f.n) return false;
    bool other = f.id != *special;
    if (f.n > 1 || f.id < 0 || (u32)f.id >= t->n
        || (other && *special >= 0 && tk_templates_use(t, word)))
        die("%s/tokenizer.json: the post-processor puts %s every text what is "
            "not the %s, which GGUF cannot say", t->dir,
            side == BEFORE ? "before" : "after", word);
    if (other && side == AFTER) t->eot = t->eos; /* still ends an answer */
    *special = f.id;
    return true;
}

/* As AutoTokenizer: with a tokenizer.json its post-processor alone counts,
 * with a lone tokenizer.model the flags. */
static void tk_write_frame(tk *t, gw *g) {
    static const char *const keys[] = {"tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token"};
    static const char *const flags[] = {"add_bos_token", "add_eos_token"};
    i32 *special[] = {&t->bos, &t->eos};
    tk_frame f[2] = {{-1, 0}, {-1, 0}};
    tk_frame_of(t, js_get(t->json, "post_processor"), f);
    for (int i = 0; i < 2; i++) {
        const js *flag = js_get(t->config, flags[i]);
        bool adds = t->json ? tk_frame_is(t, f[i], i, special[i])
            : js_true(flag);
        if ((t->json || (flag && flag->kind == JS_BOOL)) && *special[i] >= 0)
            gw_kv_bool(g, keys[i], adds);
    }
}

/* ---- ids ---- */

/* One id or a list of them; those that are not there yet are added. */
static void tk_collect(const tk *t, const js *v, u32 n_rows, bytes *out) {
    for (const js *k = v && v->kind == JS_ARR ? v->first : v; k;
        k = k == v ? NULL : k->next) {
        i64 id;
        bool seen = false;
        if (!js_int(k, &id)) continue;
        if (id < 0 || id >= n_rows) {
            fprintf(stderr, "%s: eos_token_id %lld is no token\n", t->dir,
                (long long)id);
            continue;
        }
        for (size_t i = 0; i < out->n; i += 4)
            seen |= ld_u32(out->p + i) == (u32)id;
        if (!seen) gw_u32(out, (u32)id);
    }
}

/* Every token that ends an answer. transformers takes the ids of
 * generation_config.json, and without that file those of config.json. */
static void tk_write_stops(tk *t, gw *g, u32 n_rows) {
    const js *files[] = {t->generation, t->model_config, t->top};
    bytes ids = {0};
    for (size_t i = 0; i < KS_LEN(files); i++)
        if (!i || files[i] != files[i - 1])
            tk_collect(t, js_get(files[i], "eos_token_id"), n_rows, &ids);
    /* GGUF's own keys have room for two: the end of text, and of a turn. */
    for (size_t i = 0; i < ids.n && t->eot < 0; i += 4)
        if (ld_u32(ids.p + i) != (u32)t->eos) t->eot = (i32)ld_u32(ids.p + i);
    if (t->eot >= 0)
        gw_kv_u32(g, "tokenizer.ggml.eot_token_id", (u32)t->eot);
    if (ids.n) {
        gw_kv_array(g, "tokenizer.ksllm.stop_token_ids", KSLLM_META_U32,
            ids.n / 4);
        bytes_put(&g->kv, ids.p, ids.n);
    }
    free(ids.p);
}

/* Tokens that transformers never draws. An id that is no token forbids nothing,
 * there as in llama.cpp. */
static void tk_write_suppressed(const tk *t, gw *g, u32 n_rows) {
    const js *v = js_get(t->generation, "suppress_tokens");
    bytes ids = {0};
    bool is_list = v && v->kind == JS_ARR;
    if (v && v->kind != JS_NULL && !is_list)
        die("%s/generation_config.json: suppress_tokens is not a list of ids",
            t->dir);
    for (const js *k = is_list ? v->first : NULL; k; k = k->next) {
        i64 id;
        if (!js_int(k, &id))
            die("%s/generation_config.json: suppress_tokens has an item that "
                "is not an id", t->dir);
        if (id >= 0 && id < n_rows) gw_u32(&ids, (u32)id);
        else
            fprintf(stderr, "%s: suppress_tokens: %lld is no token\n", t->dir,
                (long long)id);
    }
    if (ids.n) {
        gw_kv_array(g, "tokenizer.ggml.suppress_tokens", KSLLM_META_I32,
            ids.n / 4);
        bytes_put(&g->kv, ids.p, ids.n);
    }
    free(ids.p);
}

static void tk_write_ids(tk *t, gw *g, u32 n_rows) {
    static const struct {
        const char *name, *key;
    } ids[] = {{"bos", "tokenizer.ggml.bos_token_id"},
        {"eos", "tokenizer.ggml.eos_token_id"},
        {"unk", "tokenizer.ggml.unknown_token_id"},
        {"pad", "tokenizer.ggml.padding_token_id"}};
    i32 *to[] = {&t->bos, &t->eos, &t->unk, &t->pad};
    for (size_t i = 0; i < KS_LEN(ids); i++) {
        i32 id = tk_special(t, ids[i].name);
        if (id >= 0) *to[i] = id;
    }
    tk_write_frame(t, g);
    for (size_t i = 0; i < KS_LEN(ids); i++)
        if (*to[i] >= 0) gw_kv_u32(g, ids[i].key, (u32)*to[i]);
    tk_write_stops(t, g, n_rows);
    tk_write_suppressed(t, g, n_rows);
    if (t->pieces)
        gw_kv_bool(g, "tokenizer.ggml.add_space_prefix", t->add_space);
}

/* Tokens up to n_rows: the embedding may have more rows than there are tokens,
 * or fewer. */
static void tk_write_tokens(tk *t, gw *g, u32 n_rows) {
    if (t->n > n_rows)
        fprintf(stderr, "%s: %u tokens for %u rows of the embedding: the last "
            "are left out\n", t->dir, t->n, n_rows);
    char pad[32];
    gw_kv_array(g, "tokenizer.ggml.tokens", KSLLM_META_TEXT, n_rows);
    for (u32 i = 0; i < n_rows; i++) {
        if (i < t->n && t->tokens[i].type) {
            gw_str(&g->kv, t->tokens[i].text);
            continue;
        }
        snprintf(pad, sizeof pad, "[PAD%u]", i);
        gw_str(&g->kv, str_of(pad));
    }
    gw_kv_array(g, "tokenizer.ggml.token_type", KSLLM_META_I32, n_rows);
    for (u32 i = 0; i < n_rows; i++)
        gw_u32(&g->kv, i < t->n && t->tokens[i].type
            ? (u32)t->tokens[i].type : TOK_UNUSED);
}

static void tk_write_scores(const tk *t, gw *g, u32 n_rows) {
    gw_kv_array(g, "tokenizer.ggml.scores", KSLLM_META_F32, n_rows);
    for (u32 i = 0; i < n_rows; i++) {
        f32 s = i < t->n && t->tokens[i].type ? t->tokens[i].score : -1e6f;
        bytes_put(&g->kv, &s, 4);
    }
}

static void tk_write_merges(const tk *t, gw *g, const js *merges) {
    gw_kv_array(g, "tokenizer.ggml.merges", KSLLM_META_TEXT, merges->n);
    u32 rank = 0;
    for (const js *v = merges->first; v; v = v->next, rank++) {
        str a, b;
        if (!tk_merge(v, &a, &b) || memchr(a.p, ' ', a.n)
            || memchr(b.p, ' ', b.n))
            die("%s/tokenizer.json: merge %u is damaged", t->dir, rank);
        gw_u64(&g->kv, a.n + 1 + b.n);
        bytes_put(&g->kv, a.p, a.n);
        bytes_put(&g->kv, " ", 1);
        bytes_put(&g->kv, b.p, b.n);
    }
}

/* The map of characters, out of base64. */
static void tk_write_map(const tk *t, gw *g) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        "abcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes b = {0};
    u32 bits = 0, n = 0;
    str s = t->map;
    while (s.n && s.p[s.n - 1] == '=') s.n--;
    for (size_t i = 0; i < s.n; i++) {
        const char *at = s.p[i] ? strchr(digits, s.p[i]) : NULL;
        if (!at) die("%s/tokenizer.json: 'precompiled_charsmap' is no base64",
            t->dir);
        bits = bits << 6 | (u32)(at - digits);
        n += 6;
        if (n < 8) continue;
        u8 byte = (u8)(bits >> (n -= 8));
        bytes_put(&b, &byte, 1);
    }
    gw_kv_array(g, "tokenizer.ggml.precompiled_charsmap", KSLLM_META_U8, b.n);
    bytes_put(&g->kv, b.p, b.n);
    free(b.p);
}

/* Reads the tokenizer of the folder and writes its metadata. */
static void tk_write(const char *dir, const js *top, const js *model_config,
    const js *generation, const char *pre, u32 n_rows, gw *g) {
    tk t = {.dir = dir, .pre = pre, .top = top, .model_config = model_config,
        .generation = generation, .bos = -1, .eos = -1, .eot = -1, .unk = -1,
        .pad = -1};
    t.json = json_read(dir, "tokenizer.json");
    t.config = json_read(dir, "tokenizer_config.json");
    t.special = json_read(dir, "special_tokens_map.json");
    char *path = path_join(dir, str_of("tokenizer.model"));
    os_file m = {0};
    const js *merges = NULL;
    bool sp = file_map(path, &m);
    bool byte_level = t.json
        && !js_true(js_get(js_get(t.json, "model"), "byte_fallback"));
    /* Gemma 4's merges have an order that scores of pieces cannot say. */
    bool listed = t.json && !byte_level
        && js_is(js_get(model_config, "model_type"), "gemma4_text");
    if (sp && !byte_level && !listed) {
        tk_read_sentencepiece(&t, &m); /* its own scores, if it exists */
        if (t.json) tk_read_space(&t);
        tk_read_added(&t);
        tk_index(&t);
    } else if (t.json) {
        merges = tk_read_json(&t);
    } else {
        die("%s: neither tokenizer.json nor tokenizer.model", dir);
    }
    tk_check_special_ids(&t);
    gw_kv_str(g, "tokenizer.ggml.model",
        str_of(listed ? "gemma4" : t.unigram ? "t5" : t.pieces ? "llama"
            : "gpt2"));
    gw_kv_str(g, "tokenizer.ggml.pre", str_of(t.pieces ? "default" : t.pre));
    tk_write_tokens(&t, g, n_rows);
    if (t.pieces && !listed) tk_write_scores(&t, g, n_rows);
    if (!t.pieces || listed) tk_write_merges(&t, g, merges);
    if (t.map.n) tk_write_map(&t, g);
    if (t.unigram)
        gw_kv_bool(g, "tokenizer.ggml.remove_extra_whitespaces", true);
    tk_read_templates(&t);
    tk_write_ids(&t, g, n_rows);
    tk_write_templates(&t, g);
}
