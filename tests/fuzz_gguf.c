/* fuzz_gguf.c - a file from anywhere: opened, asked everything, run, closed.
 *
 * An input: the file, and a last byte of options. A file of n bytes may take
 * 64 KiB and 32 n bytes to open; nothing leaks; what opens can be used.
 */
#include "fuzz.h"

enum { VOCAB_ONLY = 1, OTHER_RULE = 2, BY_FD = 4, WIDE = 8, F16 = 16, F32 = 32,
       MEAN = 64, DRAW = 128 };

static volatile uint8_t sink;

static void touch(const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        sink ^= bytes[i];
}

static void ask_metadata(const ksllm_model *m)
{
    ksllm_meta k = {.size = sizeof k}, item = {.size = sizeof item};
    size_t n = ksllm_meta_count(m);
    MUST(ksllm_meta_at(m, n, &k) == KSLLM_ERR_ARGUMENT, "entry %zu", n);
    for (size_t i = 0; i < n; i++) {
        MUST(ksllm_meta_at(m, i, &k) == KSLLM_OK, "entry %zu", i);
        touch(k.key.data, k.key.size);
        if (k.type == KSLLM_META_TEXT)
            touch(k.text.data, k.text.size);
        if (k.type != KSLLM_META_ARRAY)
            continue;
        MUST(ksllm_meta_item(m, i, k.n_items, &item) != KSLLM_OK,
             "an item beyond the last of %zu", i);
        for (uint64_t at = 0; at < k.n_items; at += 1 + k.n_items / 3) {
            MUST(ksllm_meta_item(m, i, at, &item) == KSLLM_OK, "item");
            if (item.type == KSLLM_META_TEXT)
                touch(item.text.data, item.text.size);
        }
    }
}

static void ask_tensors(const ksllm_model *m)
{
    ksllm_tensor t = {.size = sizeof t};
    size_t n = ksllm_tensor_count(m);
    MUST(ksllm_tensor_at(m, n, &t) == KSLLM_ERR_ARGUMENT, "tensor %zu", n);
    for (size_t i = 0; i < n; i++) {
        MUST(ksllm_tensor_at(m, i, &t) == KSLLM_OK, "tensor %zu", i);
        touch(t.name.data, t.name.size);
        if (!t.data || !t.bytes)
            continue;
        touch(t.data, 1);
        touch((const uint8_t *)t.data + t.bytes - 1, 1);
        if (t.dims[0] > 65536)
            continue;
        uint64_t rows = t.dims[1] * t.dims[2] * t.dims[3];
        size_t bytes = (size_t)t.dims[0] * sizeof(float);
        float *row = (float *)(void *)fuzz_room(bytes);
        MUST(ksllm_tensor_row(m, &t, rows - 1, row) == KSLLM_OK, "last row");
        MUST(ksllm_tensor_row(m, &t, rows, row) != KSLLM_OK, "beyond it");
        fuzz_free((uint8_t *)row, bytes);
    }
}

static void ask_tokens(const ksllm_model *m)
{
    static const char text[] = "abcab<s>안녕 th \xff<|im_end|>"
        "\xe1\x84\x80\xe1\x85\xa1 1234 Hello's";
    ksllm_model_info info = {.size = sizeof info};
    ksllm_error e;
    int32_t ids[128];
    char out[4096];
    MUST(ksllm_model_get_info(m, &info, NULL) == KSLLM_OK, "info");
    touch(info.name.data, info.name.size);
    touch(info.architecture.data, info.architecture.size);
    for (uint32_t flags = 0; flags < 16; flags++) {
        int64_t n = ksllm_encode(m, text, sizeof text - 1, flags, ids, 128, &e);
        MUST(n <= 128, "%lld tokens", (long long)n);
        for (int64_t i = 0; i < n; i++)
            MUST(ids[i] >= 0 && (uint32_t)ids[i] < info.n_vocab, "id %d",
                 ids[i]);
        if (n > 0)
            MUST(ksllm_decode(m, ids, (size_t)n, 1, out, sizeof out, &e) >= 0,
                 "%s", e.text);
    }
    for (int32_t id = -1; id < 80; id++) {
        int64_t n = ksllm_token_bytes(m, id, 1, out, sizeof out);
        MUST(n <= (int64_t)info.max_piece_bytes, "token %d: %lld", id,
             (long long)n);
        ksllm_token_is_stop(m, id);
    }
    ksllm_token_find(m, "<|im_end|>", KSLLM_NUL);
}

static void ask_chat(const ksllm_model *m)
{
    ksllm_chat chat;
    ksllm_error e;
    ksllm_splitter s;
    ksllm_splitter_options o;
    char out[512];
    ksllm_chat_init(&chat);
    chat.messages.data = "[{\"role\":\"user\",\"content\":\"hi <|im_end|>\"}]";
    chat.local_time = 1;
    ksllm_chat_render(m, &chat, out, sizeof out, &e);
    ksllm_chat_encode(m, &chat, 0, NULL, 0, &e);
    ksllm_splitter_options_init(&o);
    ksllm_splitter_init(&s, m, &o, &e);
}

/* Whether the file lists a token among those that no draw gives. */
static bool is_suppressed(const ksllm_model *m, int32_t token)
{
    ksllm_meta k = {.size = sizeof k}, item = {.size = sizeof item};
    for (size_t i = 0; i < ksllm_meta_count(m); i++) {
        ksllm_meta_at(m, i, &k);
        if (k.key.size != 30 ||
            memcmp(k.key.data, "tokenizer.ggml.suppress_tokens", 30) != 0)
            continue;
        for (uint64_t at = 0; at < k.n_items; at++)
            if (ksllm_meta_item(m, i, at, &item) == KSLLM_OK &&
                item.integer == token)
                return true;
    }
    return false;
}

static void run_session(const ksllm_model *m, ksllm_session *s,
                        uint8_t options, uint32_t n_vocab)
{
    int32_t ids[3] = {1, 2, (int32_t)n_vocab - 1};
    float logprobs[3];
    ksllm_error e;
    ksllm_token_prob p, top[4];
    ksllm_sampling sampling;
    ksllm_status st = ksllm_session_score(s, ids, 3, logprobs, NULL, &e);
    if (st == KSLLM_ERR_UNSUPPORTED)    /* an encoder */
        st = ksllm_session_sync(s, ids, 3, NULL, &e);
    MUST(st == KSLLM_OK || st == KSLLM_ERR_TOKEN, "score: %s", e.text);
    if (st || !ksllm_session_logits(s))
        return;
    ksllm_sampling_init(&sampling);
    if (options & DRAW) {
        sampling.temperature = 0.8f;
        sampling.top_p = 0.9f;
        sampling.top_k = 5;
        sampling.min_p = 0.01f;
    }
    st = ksllm_sample(s, &sampling, 3, &p, top, 4, &e);
    /* Damaged weights may give logits that are no numbers. */
    MUST(st == KSLLM_ERR_STATE || (st == KSLLM_OK && p.token >= 0 &&
         (uint32_t)p.token < n_vocab), "sample: %d", (int)st);
    MUST(st != KSLLM_OK || !is_suppressed(m, p.token), "%d came", p.token);
    ksllm_generation g;
    ksllm_generation_init(&g);
    g.text = "ab";
    g.append = true;
    g.max_tokens = 2;
    g.sampling = &sampling;
    ksllm_generate(s, &g, NULL, &e);
    ksllm_session_rewind(s, 1, &e);
}

static void ask_session(const ksllm_model *m, uint8_t options)
{
    ksllm_model_info info = {.size = sizeof info};
    ksllm_memory memory = {.size = sizeof memory};
    ksllm_session_options o;
    ksllm_session *s;
    ksllm_error e;
    fx_alloc a;
    ksllm_model_get_info(m, &info, NULL);
    ksllm_session_memory(m, NULL, &memory, &e);
    ksllm_session_options_init(&o);
    o.n_ctx = options & WIDE ? 70 : 16;
    o.n_batch = 4;
    o.n_threads = 1;
    o.kv_type = options & F32 ? KSLLM_TYPE_F32 : options & F16
              ? KSLLM_TYPE_F16 : KSLLM_TYPE_Q8_0;
    o.pooling = options & MEAN ? KSLLM_POOLING_MEAN : KSLLM_POOLING_NONE;
    if (options & DRAW && options & MEAN)
        o.pooling = KSLLM_POOLING_MODEL;
    if (ksllm_session_memory(m, &o, &memory, &e) < 0)
        return;
    MUST(memory.total <= (size_t)1 << 31, "a session takes %zu bytes",
         memory.total);
    if (memory.total > (size_t)16 << 20)
        return;
    fx_alloc_init(&a);
    o.allocator = &a.allocator;
    if (ksllm_session_create(m, &o, &s, &e) == KSLLM_OK) {
        MUST(a.calls == 1 && a.live == memory.total, "%zu bytes, not %zu",
             a.live, memory.total);
        run_session(m, s, options, info.n_vocab);
    }
    ksllm_session_free(s);
    MUST(!a.live && !a.wrong_size, "the session leaks %zu bytes", a.live);
}

/* From within a file, at an odd place. */
static ksllm_status open_fd(const uint8_t *file, size_t size,
                            const ksllm_model_options *o, ksllm_model **m,
                            ksllm_error *e)
{
    FILE *f = tmpfile();
    if (!f || fwrite("abc", 1, 3, f) != 3 ||
        fwrite(file, 1, size, f) != size || fflush(f) != 0)
        exit(2);
    ksllm_status st = ksllm_model_open_fd(fileno(f), 3, size, o, m, e);
    fclose(f);
    return st;
}

/* Values in place of the file's, by the file's own bytes. */
static size_t any_overrides(const uint8_t *p, size_t n, ksllm_override set[4])
{
    static const char *const keys[] = {"general.architecture",
        "llama.block_count", "qwen3.attention.head_count_kv",
        "gemma3.attention.sliding_window", "tokenizer.ggml.model",
        "tokenizer.ggml.tokens", "tokenizer.ggml.eos_token_id",
        "llama.rope.scaling.type", "qwen3.rope.scaling.factor",
        "general.name", "general.sampling.temp", "tokenizer.chat_template",
        "llama.rope.freq_base", "lfm2.shortconv.l_cache", "general.alignment",
        ""};
    static const char *const texts[] = {"qwen3", "exaone4", "yarn", "", "gpt2",
        "kanana2-tiny", "{{ messages }}", "llama"};
    uint64_t rng = fx_hash(FX_HASH, p, n);
    size_t n_set = fx_below(&rng, 5);
    for (size_t i = 0; i < n_set; i++) {
        int64_t v = (int64_t)fx_next(&rng) >> fx_below(&rng, 64);
        set[i] = (ksllm_override){keys[fx_below(&rng, 16)],
            (ksllm_meta_type)fx_below(&rng, 14), v, (double)v / 16,
            texts[fx_below(&rng, 8)]};
    }
    return n_set;
}

static void one(const uint8_t *data, size_t size)
{
    if (size < 2)
        return;
    uint8_t options = data[--size], *file = fuzz_copy(data, size);
    double begin = fuzz_now();
    ksllm_error e;
    ksllm_model_options o;
    ksllm_model *m = (ksllm_model *)(void *)&e;
    fx_alloc a;
    memset(&e, 0xcb, sizeof e);
    fx_alloc_init(&a);
    ksllm_model_options_init(&o);
    o.allocator = &a.allocator;
    o.vocab_only = options & VOCAB_ONLY;
    if (options & OTHER_RULE)
        o.pretokenizer = options & WIDE ? "exaone" : "llama-bpe";
    ksllm_override set[4];
    o.overrides = set;
    if ((options & (BY_FD | DRAW)) == (BY_FD | DRAW))
        o.n_overrides = any_overrides(file, size, set);
    ksllm_status st = options & BY_FD
        ? open_fd(file, size, &o, &m, &e)
        : ksllm_model_open_memory(file, size, &o, &m, &e);
    MUST(a.peak <= 65536 + 32 * size, "opening %zu bytes took %zu", size,
         a.peak);
    if (st == KSLLM_OK) {
        ask_metadata(m);
        ask_tensors(m);
        ask_tokens(m);
        ask_chat(m);
        ksllm_sampling sampling;
        ksllm_sampling_from_model(&sampling, m);
        MUST(ksllm_model_preload(m, NULL, &e) == KSLLM_OK, "preload");
        if (!o.vocab_only)
            ask_session(m, options);
    } else {
        MUST(!m && e.status == st && memchr(e.text, 0, sizeof e.text) &&
             e.text[0], "no error: %d", (int)st);
        MUST(fuzz_is_utf8(e.text, strlen(e.text)) ||
             !fuzz_is_utf8(data, size), "cut: %s", e.text);
    }
    ksllm_model_close(m);
    MUST(!a.live && !a.wrong_size, "a leak of %zu bytes", a.live);
    MUST(fuzz_now() - begin < 5, "it took %g s", fuzz_now() - begin);
    fuzz_free(file, size);
}

/* ---- A mutator that knows the format ------------------------------------- */

typedef enum field_kind { COUNT, TYPE, VALUE, TEXT, ENTRY } field_kind;
typedef struct field { size_t at, size; field_kind kind; } field;

/* The fields of a file as far as it is one; `end`: of the metadata and of the
 * directory, 0 where it does not come to that. */
typedef struct layout {
    field fields[4096];
    size_t n, end, directory_end;
} layout;

static uint64_t get(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static void add_field(layout *l, size_t at, size_t size, field_kind kind)
{
    if (l->n < sizeof l->fields / sizeof l->fields[0])
        l->fields[l->n++] = (field){at, size, kind};
}

/* Past a number or a text with its length at *at; false when it does not fit.
 */
static bool read_field(layout *l, const uint8_t *file, size_t size,
                       size_t *at, size_t bytes, field_kind kind)
{
    if (size - *at < bytes)
        return false;
    if (kind == TEXT) {
        uint64_t n = get(file + *at, 8);
        add_field(l, *at, 8, COUNT);
        if (n > size - *at - 8)
            return false;
        add_field(l, *at + 8, (size_t)n, TEXT);
        bytes += (size_t)n;
    } else {
        add_field(l, *at, bytes, kind);
    }
    *at += bytes;
    return true;
}

static bool read_entry(layout *l, const uint8_t *file, size_t size, size_t *at)
{
    size_t begin = *at;
    uint64_t n = 1;
    if (!read_field(l, file, size, at, 8, TEXT) ||
        !read_field(l, file, size, at, 4, TYPE))
        return false;
    uint64_t type = get(file + *at - 4, 4);
    if (type == KSLLM_META_ARRAY) {
        if (!read_field(l, file, size, at, 4, TYPE) ||
            !read_field(l, file, size, at, 8, COUNT))
            return false;
        type = get(file + *at - 12, 4);
        n = get(file + *at - 8, 8);
    }
    for (uint64_t i = 0; i < n; i++)
        if (type > 12 || type == KSLLM_META_ARRAY ||
            !read_field(l, file, size, at, type == KSLLM_META_TEXT ? 8
                        : (size_t)fx_meta_size((ksllm_meta_type)type),
                        type == KSLLM_META_TEXT ? TEXT : VALUE))
            return false;
    add_field(l, begin, *at - begin, ENTRY);
    return true;
}

static void read_layout(layout *l, const uint8_t *file, size_t size)
{
    size_t at = 24;
    memset(l, 0, sizeof *l);
    if (size < 24 || memcmp(file, "GGUF", 4) != 0)
        return;
    add_field(l, 8, 8, COUNT);
    add_field(l, 16, 8, COUNT);
    for (uint64_t n = get(file + 16, 8); n > 0; n--)
        if (!read_entry(l, file, size, &at))
            return;
    l->end = at;
    for (uint64_t n = get(file + 8, 8); n > 0; n--) {
        if (!read_field(l, file, size, &at, 8, TEXT) ||
            !read_field(l, file, size, &at, 4, TYPE))
            return;
        for (uint64_t d = get(file + at - 4, 4); d > 0 && d <= 4; d--)
            if (!read_field(l, file, size, &at, 8, COUNT))
                return;
        if (!read_field(l, file, size, &at, 4, TYPE) ||
            !read_field(l, file, size, &at, 8, COUNT))
            return;
    }
    l->directory_end = at;
}

static const char *const words[] = {
    "general.alignment", "split.count", "split.no", "split.tensors.count",
    "tokenizer.ggml.model", "tokenizer.ggml.pre",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template", "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type", "general.architecture",
    "tokenizer.ggml.suppress_tokens",
    "general.sampling.temp", "general.sampling.top_k", "llama.block_count",
    "llama.context_length", "llama.embedding_length",
    "llama.feed_forward_length", "llama.attention.head_count",
    "llama.attention.head_count_kv", "llama.attention.key_length",
    "llama.attention.value_length", "llama.rope.dimension_count",
    "llama.attention.sliding_window", "llama.attention.sliding_window_pattern",
    "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base",
    "llama.rope.scaling.type", "llama.rope.scaling.factor",
    "llama.rope.scaling.original_context_length", "llama.expert_count",
    "llama.rope.scale_linear", "llama.attention.causal",
    "blk.0.attn_qkv.weight", "blk.0.attn_qkv.bias",
    "llama.expert_used_count", "llama.expert_feed_forward_length",
    "llama.attention.kv_lora_rank", "llama.leading_dense_block_count",
    "llama.logit_scale", "llama.residual_scale", "llama.embedding_scale",
    "llama", "gpt2", "qwen2", "qwen3", "gemma3", "gemma-embedding", "gemma4",
    "qwen35", "qwen35moe", "exaone", "exaone4",
    "exaone-moe", "deepseek2", "yarn", "linear", "none", "longrope", "<|im_end|>",
    "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}", NULL};

static const char *any_word(uint64_t *rng)
{
    return words[fx_below(rng, sizeof words / sizeof words[0] - 1)];
}

static void put_item(fx_bytes *b, ksllm_meta_type type, uint64_t *rng)
{
    if (type == KSLLM_META_TEXT)
        fx_text(b, any_word(rng));
    else if (type != KSLLM_META_ARRAY)
        fx_int(b, fx_below(rng, 2) ? fuzz_number(rng) : fx_below(rng, 9),
               fx_meta_size(type));
}

/* Puts bytes in or takes them out within the metadata, and keeps the weights
 * where they belong: padding stands before them. */
static size_t splice_entry(uint8_t *file, size_t size, size_t max,
                           const layout *l, size_t at, size_t old,
                           const fx_bytes *b)
{
    size_t end = l->directory_end, pad = (32 - end % 32) % 32;
    size_t moved = end + b->size - old, wanted = (32 - moved % 32) % 32;
    static const uint8_t zeros[32];
    if (!end || end + pad > size || size + b->size + 32 > max)
        return fuzz_splice(file, size, max, at, old, b->data, b->size);
    size = fuzz_splice(file, size, max, end, pad, zeros, wanted);
    return fuzz_splice(file, size, max, at, old, b->data, b->size);
}

static size_t mutate_entry(uint8_t *file, size_t size, size_t max,
                           const layout *l, uint64_t *rng)
{
    fx_bytes b = {0};
    const field *f = &l->fields[fx_below(rng, (uint32_t)l->n)];
    while (f > l->fields && f->kind != ENTRY)
        f--;
    if (f->kind != ENTRY)
        return size;
    bool insert = fx_below(rng, 2);
    if (insert) {
        ksllm_meta_type type = (ksllm_meta_type)fx_below(rng, 13);
        fx_text(&b, any_word(rng));
        fx_int(&b, type, 4);
        if (type == KSLLM_META_ARRAY) {
            ksllm_meta_type item = (ksllm_meta_type)fx_below(rng, 13);
            uint32_t n = fx_below(rng, 9);
            fx_int(&b, item, 4);
            fx_int(&b, n, 8);
            while (n-- > 0)
                put_item(&b, item, rng);
        } else {
            put_item(&b, type, rng);
        }
    }
    size_t old = insert ? 0 : f->size;
    if (size + b.size + 32 <= max) {
        fx_set(file + 16, get(file + 16, 8) + (insert ? 1 : UINT64_MAX), 8);
        size = splice_entry(file, size, max, l, f->at, old, &b);
    }
    free(b.data);
    return size;
}

static void mutate_field(uint8_t *p, const field *f, uint64_t *rng)
{
    int n = (int)(f->size < 8 ? f->size : 8);
    uint64_t v = get(p, (size_t)n);
    if (f->kind == TYPE) {
        v = fx_below(rng, 33);
    } else if (f->kind == TEXT) {
        if (f->size)
            p[fx_below(rng, (uint32_t)f->size)] ^=
                (uint8_t)(1 << fx_below(rng, 8));
        return;
    } else {
        switch (fx_below(rng, 6)) {
        case 0: v = fuzz_number(rng); break;
        case 1: v++; break;
        case 2: v--; break;
        case 3: v *= 2; break;
        case 4: v /= 2; break;
        default: v = fx_below(rng, 70); break;
        }
    }
    fx_set(p, v, n);
}

/* Infinities, numbers that are none, the greatest and the least ones. */
static void mutate_weights(uint8_t *p, size_t n, uint64_t *rng)
{
    static const uint32_t bad[] = {0x7f800000, 0x7fc00000, 0xffff7fff,
                                   0x7c007c00, 0xfc00fc00, 0x7f7fffff, 1, 0};
    size_t at = fx_below(rng, (uint32_t)n);
    uint32_t v = bad[fx_below(rng, 8)];
    for (uint32_t k = 1u << fx_below(rng, 8); k > 0 && at + 4 <= n; k--) {
        fx_set(p + at, v, 4);
        at += 4;
    }
}

/* Shorter: ends within a field, or just after it. */
static size_t cut_file(const layout *l, size_t size, uint64_t *rng)
{
    const field *f = &l->fields[fx_below(rng, (uint32_t)l->n)];
    size_t end = f->at + fx_below(rng, (uint32_t)f->size + 9) + 1;
    return end < size ? end : size;
}

static size_t mutate(uint8_t *data, size_t size, size_t max, uint64_t *rng)
{
    static layout l;
    if (fx_below(rng, 8) == 0)
        return fuzz_mutate(data, size, max, rng);
    for (uint32_t times = 1 + fx_below(rng, 3); times > 0; times--) {
        read_layout(&l, data, size ? size - 1 : 0);
        uint32_t how = fx_below(rng, 20);
        if (!l.n || !l.end)
            return fuzz_mutate(data, size, max, rng);
        if (how == 0)
            data[size - 1] = (uint8_t)fx_next(rng);
        else if (how == 1 && l.directory_end + 40 < size)
            mutate_weights(data + l.directory_end, size - 1 - l.directory_end,
                           rng);
        else if (how == 2)
            size = cut_file(&l, size, rng);
        else if (how < 8 && l.n > 2)
            size = mutate_entry(data, size, max, &l, rng);
        else {
            const field *f = &l.fields[fx_below(rng, (uint32_t)l.n)];
            if (f->kind != ENTRY)
                mutate_field(data + f->at, f, rng);
        }
    }
    return size;
}

static bool seed(size_t i, fx_bytes *out)
{
    static const char *const models[] = {"qwen3", "gemma3", "yarn", "spm",
                                         "window", "lfm2", "lfm2moe", "bert",
                                         "gemma4", "qwen2"};
    fx_file f;
    if (i < 8) {
        fx_spec s = fx_mini;            /* small: most of the tries */
        s.more = i % 4 == 3 ? fx_suppress_some : NULL;
        f = fx_model(&s);
    } else if (i < 10) {
        fx_gguf g;
        fx_begin(&g);
        fx_kv_text(&g, "general.architecture", "llama");
        fx_put_vocab(&g, i == 8 ? FX_BPE : FX_SPM);
        fx_kv_text(&g, "tokenizer.chat_template", "{% for m in messages %}"
                   "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
                   "{% endfor %}{% if tools %}<tool_call>{% endif %}");
        f = fx_end(&g);
    } else if (i < 20) {
        fx_spec s = *fx_spec_of(models[i - 10]);
        s.fused = i == 19;
        f = fx_model(&s);
    } else {
        return false;
    }
    fx_put(out, f.data, f.size);
    fx_int(out, i == 8 || i == 9 ? VOCAB_ONLY : i * 36, 1);
    free(f.data);
    return true;
}

static const fuzz_target fuzz = {"fuzz_gguf", one, seed, mutate, words,
                                 1 << 20};
FUZZ_MAIN
