/* test_adapter.c - adapters: what they may change, what is refused, memory.
 * That their numbers are those of transformers and peft: test_families.
 */
#include "test.h"
#include "state.h"
#include "adapter.h"

#include <fcntl.h>

enum { N = 40, RANK = 4 };

typedef struct world {
    const fx_spec *spec;
    fx_file file, adapter_file[2];
    ksllm_model *m;
    ksllm_adapter *a, *b;       /* of rank 4 and 19 */
    int32_t tokens[N];
} world;

static void open_world(world *w, const char *name)
{
    ksllm_error e;
    w->spec = fx_spec_of(name);
    w->m = fx_open(name, &w->file);
    w->adapter_file[0] = ad_file(w->spec, RANK, 1);
    w->adapter_file[1] = ad_file(w->spec, 19, 2);
    fx_must(ksllm_adapter_open_memory(w->m, w->adapter_file[0].data,
                                      w->adapter_file[0].size, &w->a, &e), &e);
    fx_must(ksllm_adapter_open_memory(w->m, w->adapter_file[1].data,
                                      w->adapter_file[1].size, &w->b, &e), &e);
    fx_prompt(w->tokens, N, 5);
}

static void close_world(world *w)
{
    ksllm_adapter_close(w->a);
    ksllm_adapter_close(w->b);
    fx_close(w->m, &w->file);
    free(w->adapter_file[0].data);
    free(w->adapter_file[1].data);
}

static ksllm_session *session_with(const world *w, size_t max_rank)
{
    ksllm_session_options o = fx_small_options();
    o.max_rank = max_rank;
    return fx_create(w->m, &o);
}

/* A fresh session's logits after n tokens. */
static uint64_t fresh(const world *w, const ksllm_adapter *a, float scale,
                      size_t from, const int32_t *tokens, size_t n)
{
    ksllm_error e;
    ksllm_session *s = session_with(w, 19);
    CHECK_OK(ksllm_session_set_adapter(s, a, scale, from, &e), e);
    CHECK_OK(ksllm_session_sync(s, tokens, n, NULL, &e), e);
    uint64_t h = fx_logits_hash(w->m, s);
    ksllm_session_free(s);
    return h;
}

static uint64_t now(const world *w, ksllm_session *s,
                    const ksllm_adapter *a, float scale, size_t from)
{
    ksllm_error e;
    CHECK_OK(ksllm_session_set_adapter(s, a, scale, from, &e), e);
    CHECK_OK(ksllm_session_sync(s, w->tokens, N, NULL, &e), e);
    return fx_logits_hash(w->m, s);
}

TEST(switched_at_any_time)
{
    static const char *const names[] = {"llama", "qwen3", "window", "type_Q4_0"};
    for (size_t i = 0; i < 4; i++) {
        world w;
        open_world(&w, names[i]);
        ksllm_session_options none = fx_small_options();
        ksllm_session *s = session_with(&w, 19), *p = fx_create(w.m, &none);
        ksllm_error e;
        CHECK_OK(ksllm_session_sync(p, w.tokens, N, NULL, &e), e);
        uint64_t plain = fx_logits_hash(w.m, p);
        uint64_t a = fresh(&w, w.a, 1, 0, w.tokens, N);
        uint64_t b = fresh(&w, w.b, 0.5f, 0, w.tokens, N);
        uint64_t late = fresh(&w, w.a, 1, 17, w.tokens, N);
        CHECK(plain != a && plain != b && a != b && late != a);
        CHECK(late != plain);
        CHECK_HEX(now(&w, s, NULL, 1, 0), plain);
        CHECK_HEX(now(&w, s, w.a, 1, 0), a);
        CHECK_HEX(now(&w, s, w.a, 1, 0), a);
        CHECK_HEX(now(&w, s, w.a, 0, 0), plain);
        CHECK_HEX(now(&w, s, w.b, 0.5f, 0), b);
        CHECK_HEX(now(&w, s, w.a, 1, 17), late);
        CHECK_HEX(now(&w, s, w.a, 1, 0), a);
        CHECK_HEX(now(&w, s, w.b, 1, N), plain);
        CHECK_HEX(now(&w, s, w.b, 1, SIZE_MAX), plain);
        CHECK_HEX(now(&w, s, w.a, 1, 17), late);
        CHECK_HEX(now(&w, s, NULL, 0, 17), plain);
        ksllm_session_free(s);
        ksllm_session_free(p);
        close_world(&w);
    }
}

static void note_total(void *ctx, size_t n_done, size_t n_total)
{
    (void)n_done;
    *(size_t *)ctx = n_total;
}

/* What stands before the place where it begins is kept. */
TEST(only_what_changes_is_evaluated_again)
{
    world w;
    ksllm_error e;
    ksllm_control c;
    size_t total = 0;
    open_world(&w, "llama");
    ksllm_session *s = session_with(&w, RANK);
    now(&w, s, NULL, 1, 0);
    ksllm_control_init(&c);
    c.on_progress = note_total;
    c.progress_ctx = &total;
    CHECK_OK(ksllm_session_set_adapter(s, w.a, 1, 30, &e), e);
    CHECK(!ksllm_session_logits(s));
    CHECK_OK(ksllm_session_sync(s, w.tokens, N, &c, &e), e);
    CHECK_EQ(total, N - 30);
    CHECK_OK(ksllm_session_set_adapter(s, w.a, 1, 35, &e), e);
    CHECK_OK(ksllm_session_sync(s, w.tokens, N, &c, &e), e);
    CHECK_EQ(total, N - 30);
    CHECK_OK(ksllm_session_set_adapter(s, w.a, 2, N, &e), e);
    CHECK_OK(ksllm_session_sync(s, w.tokens, N, &c, &e), e);
    CHECK_EQ(total, N - 35);
    CHECK_OK(ksllm_session_set_adapter(s, w.a, 3, N + 5, &e), e);
    CHECK(ksllm_session_logits(s) != NULL);
    ksllm_session_free(s);
    close_world(&w);
}

TEST(slides_and_forks_with_its_session)
{
    world w;
    ksllm_error e;
    ksllm_session_options o = fx_small_options();
    open_world(&w, "llama");
    o.n_ctx = 24;
    o.n_keep = 4;
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    o.max_rank = 19;
    ksllm_session *s = fx_create(w.m, &o), *t = fx_create(w.m, &o);
    CHECK_OK(ksllm_session_set_adapter(s, w.b, 1, 20, &e), e);
    CHECK_OK(ksllm_session_sync(s, w.tokens, 24, NULL, &e), e);
    CHECK_OK(ksllm_session_append(s, w.tokens + 24, 1, NULL, &e), e);
    size_t n;
    const int32_t *held = ksllm_session_tokens(s, &n);
    CHECK_EQ(n, 15);            /* ten of twenty were dropped */
    CHECK_HEX(fx_logits_hash(w.m, s), fresh(&w, w.b, 1, 10, held, n));
    CHECK_OK(ksllm_session_fork(s, t, &e), e);
    CHECK_OK(ksllm_session_append(t, w.tokens, 3, NULL, &e), e);
    held = ksllm_session_tokens(t, &n);
    CHECK_HEX(fx_logits_hash(w.m, t), fresh(&w, w.b, 1, 10, held, n));
    ksllm_session_free(t);
    o.max_rank = 18;
    t = fx_create(w.m, &o);
    CHECK_EQ(ksllm_session_fork(s, t, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "max_rank") != NULL);
    ksllm_session_free(s);
    ksllm_session_free(t);
    close_world(&w);
}

/* A saved state belongs to the adapter, its scale and where it begins. */
/* Of two sessions in one call, in either order, each has its own. */
TEST(in_a_call_with_another_session)
{
    world w;
    ksllm_error e;
    open_world(&w, "llama");
    for (int first = 0; first < 2; first++) {
        ksllm_member m[2];
        for (int i = 0; i < 2; i++)
            m[i] = (ksllm_member){.session = session_with(&w, RANK),
                .tokens = w.tokens, .n_tokens = N};
        CHECK_OK(ksllm_session_set_adapter(m[first].session, w.a, 1, 0, &e), e);
        CHECK_OK(ksllm_sessions_append(m, 2, &e), e);
        for (int i = 0; i < 2; i++) {
            CHECK_HEX(fx_logits_hash(w.m, m[i].session),
                      fresh(&w, i == first ? w.a : NULL, 1, 0, w.tokens, N));
            ksllm_session_free(m[i].session);
        }
    }
    close_world(&w);
}

TEST(saved_with_its_adapter)
{
    world w;
    ksllm_error e;
    open_world(&w, "llama");
    const struct {
        const ksllm_adapter *a;
        float scale;
        size_t from;
    } other[] = {{NULL, 0, 0}, {w.b, 1, 8}, {w.a, 0.5f, 8}, {w.a, 1, 9}};
    ksllm_session *s = session_with(&w, 19), *t = session_with(&w, 19);
    st_memory file = {.at = 0}, plain = {.at = 0};
    uint64_t want = now(&w, s, w.a, 1, 8);
    CHECK_OK(ksllm_session_save(s, 0, st_memory_write, &file, NULL, NULL, &e),
             e);
    for (size_t i = 0; i < 4; i++) {
        file.at = 0;
        CHECK_OK(ksllm_session_set_adapter(t, other[i].a, other[i].scale,
                                           other[i].from, &e), e);
        CHECK_EQ(ksllm_session_load(t, NULL, 0, st_memory_read, &file, NULL,
                                    NULL, &e), KSLLM_ERR_UNSUPPORTED);
        CHECK(strstr(e.text, "adapter") != NULL);
    }
    file.at = 0;
    CHECK_OK(ksllm_session_set_adapter(t, w.a, 1, 8, &e), e);
    CHECK_OK(ksllm_session_load(t, NULL, 0, st_memory_read, &file, NULL, NULL,
                                &e), e);
    CHECK_OK(ksllm_session_sync(t, w.tokens, N, NULL, &e), e);
    CHECK_HEX(fx_logits_hash(w.m, t), want);
    /* the model's own prompt, and an adapter that begins after it */
    now(&w, s, NULL, 0, 0);
    CHECK_OK(ksllm_session_save(s, 0, st_memory_write, &plain, NULL, NULL, &e),
             e);
    plain.at = 0;
    CHECK_OK(ksllm_session_set_adapter(t, NULL, 0, 0, &e), e);
    CHECK_OK(ksllm_session_load(t, NULL, 0, st_memory_read, &plain, NULL, NULL,
                                &e), e);
    CHECK_HEX(now(&w, t, w.a, 1, 8), want);
    free(file.b.data);
    free(plain.b.data);
    ksllm_session_free(s);
    ksllm_session_free(t);
    close_world(&w);
}

/* ---- memory -------------------------------------------------------------- */

TEST(memory_is_planned_and_no_call_allocates)
{
    world w;
    ksllm_error e;
    ksllm_memory need[2] = {{.size = sizeof *need}, {.size = sizeof *need}};
    fx_alloc a;
    open_world(&w, "llama");
    fx_alloc_init(&a);
    ksllm_session_options o = fx_small_options();
    o.allocator = &a.allocator;
    for (int i = 0; i < 2; i++) {
        o.max_rank = i ? RANK : 0;
        CHECK_OK(ksllm_session_memory(w.m, &o, &need[i], &e), e);
    }
    CHECK_EQ(need[1].total - need[0].total, 12 * RANK * o.n_batch);
    ksllm_session *s = fx_create(w.m, &o);
    CHECK_EQ(ksllm_session_set_adapter(s, w.b, 1, 0, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "rank 19") && strstr(e.text, "memory for 4"));
    long calls = a.calls;
    now(&w, s, w.a, 1, 0);
    now(&w, s, NULL, 1, 0);
    now(&w, s, w.a, 1, 20);
    CHECK_EQ(a.calls, calls);
    ksllm_session_free(s);
    CHECK_EQ(a.live, 0);
    o.max_rank = 4097;
    CHECK_EQ(ksllm_session_memory(w.m, &o, need, &e), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(e.text, "max_rank") != NULL);
    close_world(&w);
}

TEST(allocations_that_fail)
{
    fx_file f = fx_model(&fx_mini), l = ad_file(&fx_mini, RANK, 1);
    fx_alloc a;
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_adapter *x;
    ksllm_error e;
    fx_alloc_init(&a);
    ksllm_model_options_init(&o);
    o.allocator = &a.allocator;
    fx_must(ksllm_model_open_memory(f.data, f.size, &o, &m, &e), &e);
    size_t live = a.live;
    bool failed = true;
    long base = a.calls, k = 0;
    for (; failed; base = a.calls) {
        a.failed = false;
        a.fail_at = base + ++k;
        x = (void *)&a;
        ksllm_status st =
            ksllm_adapter_open_memory(m, l.data, l.size, &x, &e);
        failed = a.failed;
        CHECK_EQ(st, failed ? KSLLM_ERR_MEMORY : KSLLM_OK);
        CHECK(failed == (x == NULL));
        ksllm_adapter_close(x);
        CHECK_EQ(a.live, live);
        CHECK(!a.wrong_size);
    }
    CHECK(k > 4);
    ksllm_model_close(m);
    free(f.data);
    free(l.data);
}

/* ---- what is refused ----------------------------------------------------- */

static void refuse(const ksllm_model *m, fx_gguf *g, ksllm_status want,
                   const char *names)
{
    ksllm_adapter *a = (void *)g;
    ksllm_error e = {.text = ""};
    fx_file f = fx_end(g);
    CHECK_EQ(ksllm_adapter_open_memory(m, f.data, f.size, &a, &e), want);
    CHECK(a == NULL);
    if (!CHECK(strstr(e.text, names) != NULL))
        printf("'%s' is not in '%s'\n", names, e.text);
    free(f.data);
}

/* What a session computes of the first N tokens, in batches of n_batch. */
static uint64_t result_of(const ksllm_model *m, const ksllm_adapter *a,
                          uint32_t n_batch)
{
    int32_t tokens[N];
    ksllm_error e;
    ksllm_session_options o = fx_small_options();
    o.n_batch = n_batch;
    o.n_threads = 2;
    o.max_rank = RANK;
    /* of an encoder, what its reranker's head says */
    if (ksllm_session_memory(m, &(ksllm_session_options){.size = sizeof o,
            .pooling = KSLLM_POOLING_MODEL}, &(ksllm_memory){
            .size = sizeof(ksllm_memory)}, &e) == KSLLM_OK)
        o.pooling = KSLLM_POOLING_MODEL;
    fx_prompt(tokens, N, 5);
    for (int i = 0; i < N; i++)
        tokens[i] %= (int32_t)fx_n_vocab(m);
    ksllm_session *s = fx_create(m, &o);
    CHECK_OK(ksllm_session_set_adapter(s, a, 1, 0, &e), e);
    CHECK_OK(ksllm_session_sync(s, tokens, N, NULL, &e), e);
    uint64_t h = o.pooling
        ? fx_hash_floats(FX_HASH, ksllm_session_embedding(s), 1)
        : fx_logits_hash(m, s);
    ksllm_session_free(s);
    return h;
}

/* Convolutions, routers and encoders have adapters too; what a reranker has
 * after its layers has none. */
TEST(on_other_graphs)
{
    static const struct {
        const char *model, *name;
        uint64_t n_in, n_out;
    } cases[] = {
        {"lfm2", "blk.0.shortconv.in_proj.weight", 32, 96},
        {"lfm2", "blk.2.shortconv.out_proj.weight", 32, 32},
        {"lfm2", "blk.1.attn_q.weight", 32, 32},
        {"lfm2moe", "blk.1.ffn_gate_inp.weight", 32, FX_EXPERTS},
        {"bert", "blk.0.attn_v.weight", 32, 32},
        {"bert", "blk.1.ffn_down.weight", 64, 32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fx_gguf g;
        fx_file f;
        ksllm_adapter *a = NULL;
        ksllm_error e;
        ksllm_model *m = fx_open(cases[i].model, &f);
        ad_begin(&g, cases[i].model);
        ad_pair(&g, cases[i].name, cases[i].n_in, cases[i].n_out, RANK, i);
        fx_file l = fx_end(&g);
        if (CHECK_OK(ksllm_adapter_open_memory(m, l.data, l.size, &a, &e),
                     e)) {
            uint64_t with = result_of(m, a, 16);
            CHECK(with != result_of(m, NULL, 16));
            CHECK_HEX(with, result_of(m, a, 3));
        }
        ksllm_adapter_close(a);
        fx_close(m, &f);
        free(l.data);
    }
}

TEST(tensors_that_do_not_fit)
{
    static const struct {
        const char *name, *a, *b;
        ksllm_type type;
        uint64_t n_in, rank, rank_b, n_out;
        ksllm_status status;
        const char *names;
    } bad[] = {
        {"blk.0.attn_q.weight", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 96,
         KSLLM_ERR_FORMAT, "attn_q.weight.lora_b' is 4 x 96"},
        {"blk.0.attn_q.weight", "a", "b", KSLLM_TYPE_F16, 48, 4, 4, 128,
         KSLLM_ERR_FORMAT, "attn_q.weight.lora_a' is 48 x 4"},
        {"blk.0.attn_q.weight", "a", "b", KSLLM_TYPE_F16, 64, 4, 5, 128,
         KSLLM_ERR_FORMAT, "attn_q.weight.lora_b' is 5 x 128"},
        {"blk.0.attn_q.weight", "a", "b", KSLLM_TYPE_F16, 64, 4097, 4097, 128,
         KSLLM_ERR_UNSUPPORTED, "rank 4097"},
        {"blk.0.attn_q.weight", "a", "b", KSLLM_TYPE_Q8_0, 64, 32, 32, 128,
         KSLLM_ERR_UNSUPPORTED, "type Q8_0"},
        {"blk.2.attn_q.weight", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 128,
         KSLLM_ERR_UNSUPPORTED, "blk.2.attn_q.weight.lora_a"},
        {"blk.0.attn_qkv.weight", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 128,
         KSLLM_ERR_FORMAT, "this model makes it 4 x 256"},
        {"blk.0.attn_qkv.bias", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 128,
         KSLLM_ERR_UNSUPPORTED, "blk.0.attn_qkv.bias.lora_a"},
        {"blk.0.ffn_gate_exps.weight", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 96,
         KSLLM_ERR_UNSUPPORTED, "experts and embeddings cannot"},
        {"token_embd.weight", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 272,
         KSLLM_ERR_UNSUPPORTED, "token_embd.weight.lora_a"},
        {"blk.0.attn_q.weight", "a", "c", KSLLM_TYPE_F16, 64, 4, 4, 128,
         KSLLM_ERR_FORMAT, "has no '.lora_b'"},
        {"blk.0.attn_q.weight", "c", "b", KSLLM_TYPE_F16, 64, 4, 4, 128,
         KSLLM_ERR_UNSUPPORTED, "attn_q.weight.lora_c"},
        {"", "a", "b", KSLLM_TYPE_F16, 64, 4, 4, 128,
         KSLLM_ERR_UNSUPPORTED, "'.lora_a' is no '.lora_a'"},
    };
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fx_gguf g;
        ad_begin(&g, "llama");
        ad_half(&g, bad[i].name, bad[i].a, bad[i].type, bad[i].n_in,
                bad[i].rank, 1);
        ad_half(&g, bad[i].name, bad[i].b, bad[i].type, bad[i].rank_b,
                bad[i].n_out, 1);
        refuse(m, &g, bad[i].status, bad[i].names);
    }
    fx_gguf g;
    ad_begin(&g, "llama");
    ad_pair(&g, "blk.0.attn_q.weight", 64, 128, RANK, 1);
    ad_pair(&g, "blk.0.attn_qkv.weight", 64, 256, RANK, 1);
    refuse(m, &g, KSLLM_ERR_FORMAT, "another one is for");
    fx_close(m, &f);
    m = fx_open("gemma4", &f); /* the second layer has keys for values */
    ad_begin(&g, "gemma4");
    ad_pair(&g, "blk.1.attn_qkv.weight", 64, 256, RANK, 1);
    refuse(m, &g, KSLLM_ERR_UNSUPPORTED, "blk.1.attn_qkv.weight.lora_a");
    fx_close(m, &f);
    m = fx_open("bert", &f);
    ad_begin(&g, "bert");
    ad_pair(&g, "output.weight", 32, fx_n_vocab(m), RANK, 1);
    refuse(m, &g, KSLLM_ERR_UNSUPPORTED, "output.weight.lora_a");
    fx_close(m, &f);
}

TEST(keys_that_do_not_fit)
{
    static const char *const texts[][4] = {
        {"llama", "model", "lora", "'general.type' is 'model'"},
        {"llama", "adapter", "dora", "'adapter.type' is 'dora'"},
        {"qwen2", "adapter", "lora", "'qwen2', the model is 'llama'"},
    };
    fx_file f;
    fx_gguf g;
    ksllm_model *m = fx_open("llama", &f);
    for (size_t i = 0; i < 3; i++) {
        fx_begin(&g);
        fx_kv_text(&g, "general.architecture", texts[i][0]);
        fx_kv_text(&g, "general.type", texts[i][1]);
        fx_kv_text(&g, "adapter.type", texts[i][2]);
        ad_pair(&g, "blk.0.attn_q.weight", 64, 128, 4, 1);
        refuse(m, &g, i ? KSLLM_ERR_UNSUPPORTED : KSLLM_ERR_FORMAT,
               texts[i][3]);
    }
    ad_begin(&g, "llama");
    refuse(m, &g, KSLLM_ERR_FORMAT, "no tensor");
    for (int i = 0; i < 4; i++) {
        ad_begin(&g, "llama");
        fx_kv_array(&g, "adapter.alora.invocation_tokens", KSLLM_META_U32,
                    i == 0 ? 0 : i == 1 ? 257 : 1);
        for (int k = 0; k < (i == 0 ? 0 : i == 1 ? 257 : 1); k++)
            fx_int(&g.kv, i == 2 ? 1000000 : i == 3 ? UINT32_MAX : 1, 4);
        ad_pair(&g, "blk.0.attn_q.weight", 64, 128, 4, 1);
        refuse(m, &g, KSLLM_ERR_FORMAT, "invocation_tokens");
    }
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_kv_text(&g, "general.type", "adapter");
    fx_kv_text(&g, "adapter.type", "lora");
    fx_kv_text(&g, "adapter.lora.alpha", "8");
    ad_pair(&g, "blk.0.attn_q.weight", 64, 128, 4, 1);
    refuse(m, &g, KSLLM_ERR_FORMAT, "adapter.lora.alpha");
    fx_close(m, &f);
}

TEST(where_an_invocation_begins)
{
    fx_file f;
    fx_gguf g;
    ksllm_model *m = fx_open("llama", &f);
    ksllm_adapter *a;
    ksllm_error e;
    const int32_t t[] = {7, 7, 7, 9, 1, 7, 7, 9, 7, 7};
    ad_begin(&g, "llama");
    fx_kv_array(&g, "adapter.alora.invocation_tokens", KSLLM_META_U32, 3);
    for (int i = 0; i < 3; i++)
        fx_int(&g.kv, i == 2 ? 9 : 7, 4);
    ad_pair(&g, "blk.0.attn_q.weight", 64, 128, 4, 1);
    fx_file l = fx_end(&g);
    if (CHECK_OK(ksllm_adapter_open_memory(m, l.data, l.size, &a, &e), e)) {
        CHECK_EQ(ksllm_adapter_begins(a, t, 10), 5);
        CHECK_EQ(ksllm_adapter_begins(a, t, 8), 5);
        CHECK_EQ(ksllm_adapter_begins(a, t, 7), 1);
        CHECK(ksllm_adapter_begins(a, t, 3) == SIZE_MAX);
        CHECK(ksllm_adapter_begins(a, t, 2) == SIZE_MAX);
        CHECK(ksllm_adapter_begins(a, NULL, 9) == SIZE_MAX);
    }
    CHECK_EQ(ksllm_adapter_begins(NULL, t, 10), 0);
    ksllm_adapter_close(a);
    free(l.data);
    fx_close(m, &f);
}

TEST(every_byte_of_the_header_flipped)
{
    fx_file f = fx_model(&fx_mini), l = ad_file(&fx_mini, 1, 1);
    ksllm_model *m = NULL;
    ksllm_error e;
    fx_must(ksllm_model_open_memory(f.data, f.size, NULL, &m, &e), &e);
    for (size_t i = 0; i < l.header; i++)
        for (int bit = 0; bit < 8; bit += 1 + (int)(i % 3)) {
            ksllm_adapter *a = NULL;
            l.data[i] ^= (uint8_t)(1 << bit);
            ksllm_status st =
                ksllm_adapter_open_memory(m, l.data, l.size, &a, &e);
            CHECK((st == KSLLM_OK) == (a != NULL));
            ksllm_adapter_close(a);
            l.data[i] ^= (uint8_t)(1 << bit);
        }
    for (size_t n = 1; n < l.size; n += 3) {
        ksllm_adapter *a = NULL;
        CHECK(ksllm_adapter_open_memory(m, l.data, n, &a, &e) < 0);
    }
    ksllm_model_close(m);
    free(f.data);
    free(l.data);
}

TEST(wrong_calls)
{
    world w, v;
    ksllm_error e = {.text = ""};
    ksllm_adapter *a = NULL;
    ksllm_model *m = NULL;
    open_world(&w, "llama");
    open_world(&v, "qwen3");
    ksllm_session *s = session_with(&w, 19);
    const void *data = w.adapter_file[0].data;
    size_t size = w.adapter_file[0].size;
    CHECK_EQ(ksllm_adapter_open_memory(NULL, data, size, &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open_memory(w.m, NULL, size, &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open_memory(w.m, data, 0, &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open_memory(w.m, data, size, NULL, &e), -1);
    CHECK_EQ(ksllm_adapter_open(w.m, NULL, &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open(NULL, "x", &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open(w.m, "x", NULL, &e), -1);
    CHECK_EQ(ksllm_adapter_open(w.m, "/nowhere/x", &a, &e), KSLLM_ERR_IO);
    CHECK_EQ(ksllm_adapter_open_fd(w.m, -1, 0, 9, &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open_fd(w.m, 0, 0, 0, &a, &e), -1);
    CHECK_EQ(ksllm_adapter_open_fd(w.m, 0, 0, 9, NULL, &e), -1);
    CHECK_EQ(ksllm_adapter_open_fd(NULL, 0, 0, 9, &a, &e), -1);
    ksllm_adapter_close(NULL);
    CHECK_EQ(ksllm_adapter_rank(NULL), 0);
    CHECK_EQ(ksllm_adapter_rank(w.b), 19);
    CHECK_EQ(ksllm_session_set_adapter(NULL, w.a, 1, 0, &e), -1);
    CHECK_EQ(ksllm_session_set_adapter(s, v.a, 1, 0, &e), -1);
    CHECK(strstr(e.text, "another model") != NULL);
    float nan = 0;
    memset(&nan, 0xff, sizeof nan);
    CHECK_EQ(ksllm_session_set_adapter(s, w.a, nan, 0, &e), -1);
    CHECK_EQ(ksllm_session_set_adapter(s, w.a, 1e7f, 0, NULL), -1);
    CHECK_EQ(ksllm_model_open_memory(data, size, NULL, &m, &e),
             KSLLM_ERR_UNSUPPORTED);
    CHECK(m == NULL);
    /* a vocabulary alone has no matrices */
    ksllm_model_options o;
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    fx_must(ksllm_model_open_memory(w.file.data, w.file.size, &o, &m, &e), &e);
    CHECK_EQ(ksllm_adapter_open_memory(m, data, size, &a, &e),
             KSLLM_ERR_UNSUPPORTED);
    ksllm_model_close(m);
    ksllm_session_free(s);
    close_world(&w);
    close_world(&v);
}

TEST(by_path_and_descriptor)
{
    world w;
    ksllm_error e = {.text = ""};
    ksllm_adapter *a = NULL;
    char path[] = "/tmp/ksllm-adapter-XXXXXX";
    open_world(&w, "llama");
    int fd = mkstemp(path);
    size_t n = w.adapter_file[0].size;
    if (!CHECK(fd >= 0) ||
        !CHECK_EQ(write(fd, w.adapter_file[0].data, n), n))
        return;
    ksllm_session *s = session_with(&w, RANK);
    uint64_t want = fresh(&w, w.a, 1, 0, w.tokens, N);
    for (int i = 0; i < 2; i++) {
        if (CHECK_OK(i ? ksllm_adapter_open_fd(w.m, fd, 0, n, &a, &e)
                       : ksllm_adapter_open(w.m, path, &a, &e), e))
            CHECK_HEX(now(&w, s, a, 1, 0), want);
        now(&w, s, NULL, 0, 0);
        ksllm_adapter_close(a);
    }
    ksllm_session_free(s);
    close(fd);
    unlink(path);
    close_world(&w);
}

TEST_MAIN
