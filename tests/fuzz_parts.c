/* fuzz_parts.c - a model in several files beside each other, opened by path.
 *
 * An input: a byte of options, then for each part its size in four bytes and
 * its bytes. The parts lie in a folder as m-0000I-of-0000N.gguf.
 */
#include "fuzz.h"

enum { IN_MEMORY = 1, TOO_FEW = 2, MAX = 4 };

static const char *folder(void)
{
    static char name[64];
    if (!name[0]) {
        snprintf(name, sizeof name, "%s/ksllm_parts_XXXXXX",
                 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        if (!mkdtemp(name)) {
            fprintf(stderr, "no folder %s\n", name);
            exit(2);
        }
    }
    return name;
}

static const char *path_of(uint32_t part, uint32_t n)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/m-%05u-of-%05u.gguf", folder(), part + 1,
             n);
    return path;
}

__attribute__((destructor)) static void remove_folder(void)
{
    rmdir(folder());
}

/* The parts of an input, as files; how many there are. */
static uint32_t write_parts(const uint8_t *data, size_t size)
{
    fx_bytes part[MAX];
    uint32_t n = 0;
    while (n < MAX && size >= 4) {
        size_t bytes = (size_t)data[0] | (size_t)data[1] << 8 |
                       (size_t)data[2] << 16 | (size_t)data[3] << 24;
        bytes = bytes < size - 4 ? bytes : size - 4;
        part[n].data = (uint8_t *)(uintptr_t)(data + 4);
        part[n++].size = bytes;
        data += 4 + bytes;
        size -= 4 + bytes;
    }
    for (uint32_t i = 0; i < n; i++) {
        FILE *f = fopen(path_of(i, n), "wb");
        if (!f || fwrite(part[i].data, 1, part[i].size, f) != part[i].size ||
            fclose(f))
            exit(2);
    }
    return n;
}

static void ask(const ksllm_model *m)
{
    ksllm_model_info info = {.size = sizeof info};
    ksllm_tensor t = {.size = sizeof t};
    ksllm_error e;
    MUST(ksllm_model_get_info(m, &info, &e) == KSLLM_OK, "%s", e.text);
    size_t n = ksllm_tensor_count(m);
    for (size_t i = 0; i < n; i++) {
        MUST(ksllm_tensor_at(m, i, &t) == KSLLM_OK, "tensor %zu", i);
        MUST(t.part < MAX && t.bytes <= info.file_bytes, "part %u", t.part);
    }
    MUST(ksllm_model_preload(m, NULL, &e) == KSLLM_OK, "%s", e.text);
    ksllm_session_options o = fx_small_options();
    ksllm_memory memory = {.size = sizeof memory};
    ksllm_session *s = NULL;
    o.n_ctx = 16;
    o.n_batch = 4;
    if (ksllm_session_memory(m, &o, &memory, &e) ||
        memory.total > (size_t)16 << 20 || ksllm_session_create(m, &o, &s, &e))
        return;
    const int32_t ids[] = {0, 1, 2};
    float logprobs[3];
    ksllm_session_score(s, ids, 3, logprobs, NULL, &e);
    ksllm_session_free(s);
}

static void one(const uint8_t *data, size_t size)
{
    if (size < 5)
        return;
    uint8_t options = *data;
    uint32_t n = write_parts(data + 1, size - 1);
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e;
    fx_alloc a;
    fx_alloc_init(&a);
    ksllm_model_options_init(&o);
    o.allocator = &a.allocator;
    o.in_memory = options & IN_MEMORY;
    if (options & TOO_FEW)
        unlink(path_of(n - 1, n));
    ksllm_status status = ksllm_model_open(path_of(0, n), &o, &m, &e);
    MUST(a.peak <= 65536 + 33 * size, "opening %zu bytes took %zu", size,
         a.peak);
    if (status == KSLLM_OK)
        ask(m);
    else
        MUST(!m && e.status == status && e.text[0] &&
             memchr(e.text, 0, sizeof e.text), "no error: %d", (int)status);
    ksllm_model_close(m);
    MUST(!a.live && !a.wrong_size, "a leak of %zu bytes", a.live);
    for (uint32_t i = 0; i < n; i++)
        unlink(path_of(i, n));
}

static bool seed(size_t i, fx_bytes *out)
{
    fx_file part[MAX];
    uint32_t n = 1 + (uint32_t)i % MAX;
    if (i >= 12)
        return false;
    fx_model_split(i < 8 ? &fx_mini : fx_spec_of("llama"), n, part);
    fx_int(out, i % 2 ? IN_MEMORY : i == 4 ? TOO_FEW : 0, 1);
    for (uint32_t k = 0; k < n; k++) {
        fx_int(out, part[k].size, 4);
        fx_put(out, part[k].data, part[k].size);
        free(part[k].data);
    }
    return true;
}

static const char *const words[] = {
    "GGUF", "split.no", "split.count", "split.tensors.count",
    "general.alignment", "token_embd.weight", "output_norm.weight",
    "blk.0.attn_q.weight", "\1\0", "\2\0", "\3\0\0\0", NULL};

static const fuzz_target fuzz = {"fuzz_parts", one, seed, NULL, words, 1 << 19};
FUZZ_MAIN
