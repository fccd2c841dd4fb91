/* fuzz_state.c - files of saved state, damaged, cut and forged.
 *
 * An input: which model and cache; how the session that reads is made; a seed;
 * then the file. With a bit of the first byte its sums are made right again, so
 * that what a chunk says is looked at. Whatever the file says, the session
 * afterwards gives the bits of a fresh one for the tokens that it says it
 * holds, unless the file was forged; and saving it gives a file that loads.
 */
#include "fuzz.h"
#include "state.h"

enum { MODELS = 5, MAX_TOKENS = 150, MAX_FILE = 1 << 17 };

static const fx_spec windows = {
    "windows", "gemma3", 6, 32, 32, 2, 1, 16, 24, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_MINI, FX_SOUND};
static const fx_spec wide = {
    "wide", "llama", 1, 32, 32, 4, 2, 72, 0, KSLLM_TYPE_Q8_0, true,
    FX_ROPE_PLAIN, FX_MINI, FX_SOUND};
static const ksllm_type kv_types[] = {
    KSLLM_TYPE_Q8_0, KSLLM_TYPE_F16, KSLLM_TYPE_F32};

static ksllm_model *models[MODELS];

static void open_models(void)
{
    static fx_file files[MODELS];
    const fx_spec *specs[MODELS] = {&fx_mini, &windows, &wide,
        fx_spec_of("lfm2"), fx_spec_of("gemma4")};
    ksllm_error e;
    for (int i = 0; i < MODELS && !models[i]; i++) {
        files[i] = fx_model(specs[i]);
        fx_must(ksllm_model_open_memory(files[i].data, files[i].size, NULL,
                                        &models[i], &e), &e);
    }
}

static void prompt_of(int32_t *tokens, uint64_t seed)
{
    for (int i = 0; i < MAX_TOKENS; i++)
        tokens[i] = (int32_t)fx_below(&seed, 8);
}

/* Makes the sums of header and chunks right, as far as the file looks like
 * some; `layer` is the bytes of a token. */
static void seal(uint8_t *file, size_t size, size_t all, size_t global)
{
    if (size < ST_HEADER_BYTES)
        return;
    st_seal_header(file);
    uint64_t chain = st_chain_of(file);
    for (size_t at = ST_HEADER_BYTES; at + ST_CHUNK_BYTES + 12 <= size; ) {
        uint64_t n = st_word(file + at + 4, 4);
        uint64_t kind = st_word(file + at + 16, 4);
        if (n > 64)
            return;
        size_t bytes = ST_CHUNK_BYTES + 8 + n * (4 + (
            kind == 2 ? all : kind == 1 ? global : 0));
        if (bytes > size - at)
            return;
        st_seal_chunk(file + at, bytes, &chain);
        at += bytes;
    }
}

/* Bytes that a token takes in a chunk: of all layers, of those without a
 * window. */
static void token_bytes(int model, int kv, size_t *all, size_t *global)
{
    static const struct { size_t layers, global, heads, dim, conv; } shapes[] =
        {{1, 1, 1, 16, 0}, {6, 1, 1, 16, 0}, {1, 1, 2, 72, 0},
         {1, 1, 1, 16, 2 * 32 * 4}};
    size_t d = shapes[model].dim;
    size_t token = kv == 2 ? 8 * d : kv == 1 ? 4 * d
                 : d + (d + 15) / 16 * 16 + 4 * ((d + 63) / 64 + 1);
    *all = token * shapes[model].layers * shapes[model].heads +
           shapes[model].conv;
    *global = token * shapes[model].global * shapes[model].heads;
}

#ifndef KSLLM_LIBFUZZER     /* which sees what a sum is compared with */
static void check_fresh(const ksllm_model *m, ksllm_session *s, ksllm_type kv)
{
    size_t n;
    int32_t tokens[MAX_TOKENS + 1];
    ksllm_error e;
    const int32_t *held = ksllm_session_tokens(s, &n);
    memcpy(tokens, held, n * sizeof *held);
    tokens[n] = 3;
    MUST(ksllm_session_sync(s, tokens, n + 1, NULL, &e) == KSLLM_OK, "%s",
         e.text);
    ksllm_session *fresh = session_of(m, MAX_TOKENS + 1, 32, kv);
    MUST(ksllm_session_sync(fresh, tokens, n + 1, NULL, &e) == KSLLM_OK, "%s",
         e.text);
    MUST(fx_logits_hash(m, s) == fx_logits_hash(m, fresh),
         "other logits after %zu tokens", n);
    ksllm_session_free(fresh);
}
#endif

/* Saves what was loaded; that loads, whole. */
static void check_saves(ksllm_session *s, ksllm_session *t, size_t fails)
{
    st_memory file = {.fails = fails};
    ksllm_saved saved = {0, 0, 0};
    ksllm_error e;
    size_t n, got;
    ksllm_session_tokens(s, &n);
    ksllm_status st = ksllm_session_save(s, 0, st_memory_write, &file, NULL,
                                         &saved, &e);
    MUST(st == KSLLM_OK || (fails && st == KSLLM_ERR_IO), "%s", e.text);
    MUST(saved.n_tokens <= n && saved.n_bytes <= file.b.size, "saved");
    file.fails = 0;
    if (file.b.size >= ST_HEADER_BYTES) {
        MUST(ksllm_session_load(t, NULL, 0, st_memory_read, &file, NULL, NULL,
                                &e) == KSLLM_OK, "%s", e.text);
        ksllm_session_tokens(t, &got);
        MUST(st ? got >= saved.n_tokens : got == n, "%zu of %zu", got, n);
    }
    free(file.b.data);
}

static void one(const uint8_t *data, size_t size)
{
    if (size < 4)
        return;
    open_models();
    int model = data[0] & 3, kv = (data[0] >> 2 & 3) % 3;
    bool sealed = data[0] & 0x40, wanted = data[1] & 1;
    const ksllm_model *m = models[model];
    size_t all, global, n;
    int32_t tokens[MAX_TOKENS];
    ksllm_error e;
    st_memory file = {{0}, 0, 0, 0};
    ksllm_saved saved;
    prompt_of(tokens, data[2] % 2);
    token_bytes(model, kv, &all, &global);
    fx_put(&file.b, data + 4, size - 4);
    if (sealed)
        seal(file.b.data, file.b.size, all, global);
    uint32_t n_ctx = MAX_TOKENS + 1 - (data[1] & 2 ? 60 : 0);
    ksllm_session *s = session_of(m, n_ctx, 1 + data[1] / 4, kv_types[kv]);
    ksllm_session *t = session_of(m, n_ctx, 17, kv_types[kv]);
    MUST(ksllm_session_append(s, tokens, 5, NULL, &e) == KSLLM_OK, "%s",
         e.text);
    file.fails = data[2] & 2 ? 100u * data[3] : 0;
    ksllm_status st = ksllm_session_load(
        s, wanted ? tokens : NULL, wanted ? n_ctx - 1 : 0, st_memory_read,
        &file, NULL, &saved, &e);
    ksllm_session_tokens(s, &n);
    if (st == KSLLM_OK || st == KSLLM_ERR_CONTEXT) {
        MUST(saved.n_tokens <= n && saved.n_bytes <= file.b.size, "saved");
        if (wanted)
            MUST(memcmp(ksllm_session_tokens(s, NULL), tokens,
                        n * sizeof *tokens) == 0, "other tokens");
        check_saves(s, t, data[2] & 4 ? 1u + 40u * data[3] : 0);
#ifndef KSLLM_LIBFUZZER
        if (!sealed && n < n_ctx)
            check_fresh(m, s, kv_types[kv]);
#endif
    } else {
        MUST(st == KSLLM_ERR_IO || st == KSLLM_ERR_FORMAT ||
             st == KSLLM_ERR_UNSUPPORTED, "%d", (int)st);
        MUST(n == 5 && !saved.n_bytes, "a refusal changed the session");
    }
    ksllm_session_free(s);
    ksllm_session_free(t);
    free(file.b.data);
}

/* Files of each model and cache: saved once, as they grew, late. */
static bool seed(size_t i, fx_bytes *out)
{
    if (i >= 48)
        return false;
    open_models();
    int model = (int)i % MODELS, kv = (int)i / MODELS % 3;
    uint8_t head[4] = {(uint8_t)(model | kv << 2), (uint8_t)(i * 37),
                       (uint8_t)(i / 24), (uint8_t)i};
    int32_t tokens[MAX_TOKENS];
    ksllm_error e;
    st_memory file = {{0}, 0, 0, 0};
    ksllm_saved saved = {0, 0, 0};
    if (i % 2)
        head[0] |= 0x40;
    prompt_of(tokens, head[2] % 2);
    ksllm_session *s = session_of(models[model], MAX_TOKENS, 16, kv_types[kv]);
    for (size_t n = i % 4 == 3 ? 140 : 20; n <= 140; n += 40) {
        ksllm_session_sync(s, tokens, n, NULL, &e);
        ksllm_session_save(s, 0, st_memory_write, &file, NULL, &saved, &e);
    }
    fx_put(out, head, sizeof head);
    fx_put(out, file.b.data, file.b.size);
    ksllm_session_free(s);
    free(file.b.data);
    return true;
}

static const fuzz_target fuzz = {"fuzz_state", one, seed, NULL, NULL,
                                 MAX_FILE};
FUZZ_MAIN
