/* test_blocks.c - what the bytes of every weight type mean.
 *
 * The values in blocks.h come from another implementation. ksllm_tensor_row
 * must give exactly them. The source is included, so that its tables of types
 * can be compared, too.
 * Plain C kernels: no product is computed here.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"

typedef struct block_case {
    int type;
    const char *name;
    int items, bytes;           /* of a block of the type */
    int size, n;                /* of the case below */
    const uint8_t *data;
    const uint32_t *values;     /* bits of float32, -0 as 0 */
    uint64_t hash;              /* of the values of 64 random cases */
} block_case;

#include "blocks.h"
#define N_CASES ((int)(sizeof block_cases / sizeof block_cases[0]))

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u == 0x80000000u ? 0 : u;
}

/* A model whose blk.0.ffn_gate.weight is 32 rows of n of these values. */
#define ROWS 32
#define GATE "blk.0.ffn_gate.weight"

static ksllm_model *model_with(int type, const uint8_t *data, int n,
                               fx_file *f)
{
    fx_spec s = *fx_spec_of("type_F16");
    ksllm_model *m = NULL;
    ksllm_error e;
    s.n_embd = (uint32_t)n;
    s.n_ff = ROWS;
    s.put = GATE;
    s.put_type = (ksllm_type)type;
    s.put_data = data;
    *f = fx_model(&s);
    CHECK_OK(ksllm_model_open_memory(f->data, f->size, NULL, &m, &e), e);
    return m;
}

TEST(one_block_of_each_type)
{
    CHECK_EQ(N_CASES, FX_TYPES);
    for (int i = 0; i < N_CASES; i++) {
        const block_case *c = &block_cases[i];
        fx_file f;
        ksllm_tensor t = {.size = sizeof t};
        float out[257];
        /* The case in row 5, between rows of noise. */
        uint8_t *p = fx_memory(NULL, ROWS * (size_t)c->size);
        for (int k = 0; k < ROWS * c->size; k++)
            p[k] = (uint8_t)(7 * k);
        memcpy(p + 5 * c->size, c->data, (size_t)c->size);
        ksllm_model *m = model_with(c->type, p, c->n, &f);
        if (m && CHECK_EQ(ksllm_tensor_find(m, GATE, &t), 0)) {
            CHECK_STR(t.type_name, c->name);
            CHECK_EQ(t.type, c->type);
            CHECK_EQ(t.bytes, ROWS * c->size);
            out[c->n] = 42;
            CHECK_EQ(ksllm_tensor_row(m, &t, 5, out), KSLLM_OK);
            CHECK(out[c->n] == 42);
            int wrong = -1;
            for (int k = c->n - 1; k >= 0; k--)
                if (bits_of(out[k]) != c->values[k])
                    wrong = k;
            if (!CHECK_EQ(wrong, -1))
                printf("%s[%d]: 0x%08x, should be 0x%08x\n", c->name, wrong,
                       (unsigned)bits_of(out[wrong]),
                       (unsigned)c->values[wrong]);
        }
        ksllm_model_close(m);
        free(f.data);
        free(p);
    }
}

/* The generator of make_blocks.py: any bits, scales below 2. */
static void random_case(const block_case *c, uint8_t *p, uint64_t *rng)
{
    const fx_type *t = fx_type_of((ksllm_type)c->type);
    for (int i = 0; i < c->size; i++)
        p[i] = (uint8_t)(fx_next(rng) >> 56);
    if (t->items == 1)
        for (int i = c->bytes - 1; i < c->size; i += c->bytes)
            p[i] &= 0xbf;
    if (t->type == KSLLM_TYPE_MXFP4)
        p[0] &= 0x7f;
    if (t->d >= 0)
        p[t->d + 1] &= 0xbf;
    if (t->m >= 0)
        p[t->m + 1] &= 0xbf;
}

TEST(rows_of_random_blocks)
{
    for (int i = 0; i < N_CASES; i++) {
        const block_case *c = &block_cases[i];
        uint64_t rng = (uint64_t)c->type + 1, hash = FX_HASH;
        uint8_t *p = fx_memory(NULL, 65 * (size_t)c->size);
        for (int k = 0; k < 65; k++)
            random_case(c, p + k * c->size, &rng);
        /* The first is the block above: the generators agree. */
        CHECK(memcmp(p, c->data, (size_t)c->size) == 0);
        fx_file f;
        ksllm_tensor t = {.size = sizeof t};
        float out[512];
        ksllm_model *m = model_with(c->type, p + c->size, 2 * c->n, &f);
        if (m && CHECK_EQ(ksllm_tensor_find(m, GATE, &t), 0)) {
            for (uint64_t row = 0; row < ROWS; row++) {
                CHECK_EQ(ksllm_tensor_row(m, &t, row, out), KSLLM_OK);
                hash = fx_hash_floats(hash, out, 2 * (size_t)c->n);
            }
            if (!CHECK_HEX(hash, c->hash))
                printf("%s\n", c->name);
            CHECK_EQ(ksllm_tensor_row(m, &t, ROWS, out), KSLLM_ERR_ARGUMENT);
        }
        ksllm_model_close(m);
        free(f.data);
        free(p);
    }
}

/* Four dimensions are read; no architecture here has such a tensor. */
TEST(four_dimensions)
{
    const uint64_t dims[4] = {4, 5, 3, 2};
    uint8_t raw[480] = {0};
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    ksllm_tensor t = {.size = sizeof t};
    fx_gguf g;
    fx_begin(&g);
    fx_model_keys(&g, &fx_mini);
    fx_put_vocab(&g, FX_MINI);
    fx_tensor_raw(&g, "cube", 4, dims, KSLLM_TYPE_F32, 0);
    fx_put(&g.data, raw, sizeof raw);
    fx_file f = fx_end(&g);
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    if (CHECK_OK(ksllm_model_open_memory(f.data, f.size, &o, &m, &e), e)) {
        CHECK_EQ(ksllm_tensor_find(m, "cube", &t), KSLLM_OK);
        CHECK_EQ(t.n_dims, 4);
        CHECK_EQ(t.bytes, sizeof raw);
        CHECK(memcmp(t.dims, dims, sizeof dims) == 0);
        CHECK(t.data == NULL);
        float row[4];
        CHECK(ksllm_tensor_row(m, &t, 0, row) < 0);
    }
    ksllm_model_close(m);
    free(f.data);
}

/* The library's own table of types says the same as this one. */
TEST(table_of_types)
{
    for (int i = 0; i < N_CASES; i++) {
        const blk_type *t = blk_type_of((u32)block_cases[i].type);
        if (!CHECK(t != NULL))
            continue;
        CHECK_STR(t->name, block_cases[i].name);
        CHECK_EQ(t->n, block_cases[i].items);
        CHECK_EQ(t->bytes, block_cases[i].bytes);
    }
    for (u32 type = 0; type < 300; type++)
        if (!fx_type_of((ksllm_type)type))
            CHECK(blk_type_of(type) == NULL);
    CHECK(blk_type_of(UINT32_MAX) == NULL);
}

TEST_MAIN
