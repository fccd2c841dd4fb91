/* fuzz_quant.c - the offline tool given a folder or a file from anywhere:
 * convert, quantize, inspect. What convert and quantize write must open.
 *
 * An input: a byte that chooses the command and the type, then files: a byte
 * that names each, its size in four bytes, its bytes. A program may end itself
 * and leave the rest to the system; here it returns, so everything that it
 * took is kept in lists and given back.
 */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

/* ---- what the tool takes ---- */

static sigjmp_buf ended;
enum { MAX_TAKEN = 1 << 16 };
static struct { void *p; size_t n; } blocks[MAX_TAKEN], maps[64];
static size_t n_blocks, n_maps;
static DIR *folders[8];
static size_t n_folders;
static int files[64];
static size_t n_files;
static size_t live, limit = (size_t)1 << 29;

static void *take(void *old, size_t n)
{
    size_t i = 0;
    if (n > limit - live)
        return NULL;
    for (i = n_blocks; old && i > 0 && blocks[i - 1].p != old; i--)
        continue;
    if (old) {
        MUST(i, "realloc of what is not a block");
        i--;
        live -= blocks[i].n;
    } else if (n_blocks == MAX_TAKEN) {
        return NULL;
    } else {
        i = n_blocks++;
    }
    blocks[i].p = realloc(old, n ? n : 1);
    blocks[i].n = n;
    live += n;
    return blocks[i].p;
}

static void *take_zeros(size_t n, size_t size)
{
    void *p = size && n > SIZE_MAX / size ? NULL : take(NULL, n * size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

static void give(void *p)
{
    for (size_t i = n_blocks; p && i > 0; i--)
        if (blocks[i - 1].p == p) {
            live -= blocks[i - 1].n;
            free(p);
            blocks[i - 1] = blocks[--n_blocks];
            return;
        }
    MUST(!p, "free of what is not a block");
}

static char *take_text(const char *s)
{
    char *p = take(NULL, strlen(s) + 1);
    return p ? strcpy(p, s) : NULL;
}

static int take_file(const char *path, int flags, ...)
{
    int fd = n_files < 64 ? open(path, flags, 0600) : -1;
    if (fd >= 0)
        files[n_files++] = fd;
    return fd;
}

static int give_file(int fd)
{
    for (size_t i = 0; i < n_files; i++)
        if (files[i] == fd)
            files[i] = files[--n_files];
    return close(fd);
}

static void *take_map(void *at, size_t n, int prot, int flags, int fd, off_t o)
{
    void *p = n_maps < 64 ? mmap(at, n, prot, flags, fd, o) : MAP_FAILED;
    if (p != MAP_FAILED) {
        maps[n_maps].p = p;
        maps[n_maps++].n = n;
    }
    return p;
}

static int give_map(void *p, size_t n)
{
    for (size_t i = 0; i < n_maps; i++)
        if (maps[i].p == p)
            maps[i] = maps[--n_maps];
    return munmap(p, n);
}

static DIR *take_folder(const char *path)
{
    DIR *d = n_folders < 8 ? opendir(path) : NULL;
    if (d)
        folders[n_folders++] = d;
    return d;
}

static int give_folder(DIR *d)
{
    for (size_t i = 0; i < n_folders; i++)
        if (folders[i] == d)
            folders[i] = folders[--n_folders];
    return closedir(d);
}

static void give_all(void)
{
    while (n_blocks)
        give(blocks[n_blocks - 1].p);
    while (n_files)
        give_file(files[n_files - 1]);
    while (n_maps)
        give_map(maps[n_maps - 1].p, maps[n_maps - 1].n);
    while (n_folders)
        give_folder(folders[n_folders - 1]);
}

__attribute__((noreturn)) static void end(int code)
{
    siglongjmp(ended, code + 1);
}

/* Workers run at once, so that one may end the program. */
static int run_at_once(pthread_t *t, const pthread_attr_t *attr,
                       void *(*run)(void *), void *arg)
{
    (void)attr;
    memset(t, 0, sizeof *t);
    run(arg);
    return 0;
}

static int say_nothing(FILE *f, const char *format, ...)
{
    (void)f, (void)format;
    return 0;
}

#define malloc(n) take(NULL, n)
#define calloc take_zeros
#define realloc take
#define free give
#define strdup take_text
#define open take_file
#define close give_file
#define mmap take_map
#define munmap give_map
#define opendir take_folder
#define closedir give_folder
#define fsync(fd) 0
#define _exit end
#define exit end
#define pthread_create run_at_once
#define pthread_join(t, out) ((void)(t), 0)
#define fprintf say_nothing
#define vfprintf(f, format, ap) ((void)(ap), say_nothing(f, format))
#define printf(...) say_nothing(NULL, __VA_ARGS__)
#define fputs(s, f) say_nothing(f, s)
#define puts(s) say_nothing(NULL, s)
#define fputc(c, f) ((void)(c), (void)(f))
#define putchar(c) ((void)(c))
#define fwrite(p, n, m, f) ((void)(p), (void)(f), (size_t)(m))
#define sigaction(n, a, b) ((void)(a), 0)
#define main quant_main
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-value"
#include "../quant/ksllm-quant.c"
#pragma GCC diagnostic pop
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef open
#undef close
#undef exit
#undef fprintf
#undef printf
#undef fwrite
#undef main

/* ---- one input ---- */

static const char *const names[] = {
    "config.json", "tokenizer.json", "tokenizer_config.json",
    "model.safetensors", "generation_config.json", "tokenizer.model",
    "model.safetensors.index.json", "model-00001-of-00002.safetensors",
    "chat_template.jinja", "in.gguf", "adapter_config.json",
    "adapter_model.safetensors", "modules.json",
    "preprocessor_config.json"};
enum { N_NAMES = sizeof names / sizeof names[0], GGUF = 9, ADAPTER = 10 };

static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0",
                                    "q4_k", "q4_k_m", "iq4_nl"};

static const char *folder(void)
{
    static char name[64];
    if (!name[0]) {
        snprintf(name, sizeof name, "%s/ksllm_quant_XXXXXX",
                 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        if (!mkdtemp(name))
            exit(2);
    }
    return name;
}

static const char *path_of(const char *name)
{
    static char path[2][160];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder(), name);
    return path[turn];
}

__attribute__((destructor)) static void remove_folder(void)
{
    rmdir(folder());
}

static void write_files(const uint8_t *data, size_t size)
{
    while (size >= 5) {
        size_t n = (size_t)data[1] | (size_t)data[2] << 8 |
                   (size_t)data[3] << 16 | (size_t)data[4] << 24;
        const char *path = path_of(names[data[0] % N_NAMES]);
        n = n < size - 5 ? n : size - 5;
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(data + 5, 1, n, f) != n || fclose(f))
            exit(2);
        data += 5 + n;
        size -= 5 + n;
    }
}

static int run(uint8_t how)
{
    static char out[160], in[160], dir[64];
    static const char *type;
    char *convert[] = {"q", "convert", dir, "-o", out, "-t", NULL, "--base",
                       dir, NULL};
    bool adapter = !access(path_of(names[ADAPTER]), F_OK);
    char *quantize[] = {"q", "quantize", in, "-o", out, "-t", NULL, NULL};
    char *inspect[] = {"q", "inspect", in, NULL};
    snprintf(out, sizeof out, "%s", path_of("out.gguf"));
    snprintf(in, sizeof in, "%s", path_of(names[GGUF]));
    snprintf(dir, sizeof dir, "%s", folder());
    type = types[how >> 2 & 7];
    convert[6] = quantize[6] = (char *)(uintptr_t)type;
    int code = sigsetjmp(ended, 1); /* § 3 blocks signals around threads */
    if (code)
        return code - 1;
    if ((how & 3) == 3)
        return quant_main(3, inspect);
    return (how & 3) == 2 ? quant_main(7, quantize)
                          : quant_main(adapter ? 9 : 7, convert);
}

static void one(const uint8_t *data, size_t size)
{
    if (size < 6)
        return;
    double begin = fuzz_now();
    uint8_t how = data[0];
    write_files(data + 1, size - 1);
    int code = run(how);
    give_all();
    out_temp[0] = 0;
    in_files = NULL;
    n_in_files = 0;
    const char *out = path_of("out.gguf");
    if (code == 0 && (how & 3) != 3) {
        ksllm_model *m = NULL;
        ksllm_error e;
        ksllm_status status = ksllm_model_open(out, NULL, &m, &e);
        MUST(status == KSLLM_OK || strstr(e.text, "an adapter"),
             "what it wrote does not open: %s", e.text);
        ksllm_model_close(m);
        give_all();
    } else {
        MUST(access(out, F_OK), "an output of a run that failed");
    }
    unlink(out);
    for (size_t i = 0; i < N_NAMES; i++)
        unlink(path_of(names[i]));
    MUST(rmdir(folder()) == 0 && mkdir(folder(), 0700) == 0,
         "a file that was left");
    MUST(fuzz_now() - begin < 10, "it took %g s", fuzz_now() - begin);
}

/* ---- inputs ---- */

static void put_file(fx_bytes *out, size_t name, const fx_bytes *b)
{
    fx_int(out, name, 1);
    fx_int(out, b->size, 4);
    fx_put(out, b->data, b->size);
}

/* Checkpoints of families that differ in tokenizer and layout. */
static bool seed(size_t i, fx_bytes *out)
{
    static const char *const rows[] = {"exaone4", "hyperclovax", "axk1",
                                       "exaone_moe", "qwen3_embedding",
                                       "varco_vision", "exaone4_5",
                                       "hyperclovax_seed",
                                       "phi3", "llama_tied"};
    static const char *const files[] = {"lora/adapter_config.json",
                                        "lora/adapter_model.safetensors"};
    static char path[160];
    if (i < 3) {
        fx_file f = fx_model(fx_spec_of(i ? "type_Q8_0" : "llama"));
        fx_bytes b = {.data = f.data, .size = f.size};
        fx_int(out, i == 2 ? 3 : 2 + 16 * i, 1);
        put_file(out, GGUF, &b);
        free(f.data);
        return true;
    }
    if (i - 3 >= sizeof rows / sizeof rows[0])
        return false;
    enum { ADAPTERS = 10 };
    fx_int(out, 4 * (i < ADAPTERS ? i : i - ADAPTERS), 1);
    for (size_t k = 0; k < N_NAMES; k++) {
        fx_bytes b = {0};
        bool adapter = i >= ADAPTERS && k > 0;
        if (adapter != (k == ADAPTER || k == ADAPTER + 1) && k > 0)
            continue;
        snprintf(path, sizeof path, "tests/reference/%s/%s", rows[i - 3],
                 adapter ? files[k - ADAPTER] : names[k]);
        FILE *f = fopen(path, "rb");
        char buffer[4096];
        for (size_t n; f && (n = fread(buffer, 1, sizeof buffer, f)) > 0; )
            fx_put(&b, buffer, n);
        if (f)
            fclose(f);
        if (b.size)
            put_file(out, k, &b);
        free(b.data);
    }
    return true;
}

/* Half of the time the value of some JSON member becomes another. */
static size_t mutate(uint8_t *data, size_t size, size_t max, uint64_t *rng)
{
    static const char *const values[] = {
        "0", "-1", "1", "3", "33", "256", "65536", "4294967296",
        "9223372036854775808", "1e400", "0.5", "null", "true", "\"\"", "[]",
        "{}", "[1,2]", "{\"a\":1}", "\"F64\"", "\"F8_E4M3\"", "\"\\ud800\"",
        "\"yarn\"", "\"llama3\"", "[[[[[[1]]]]]]", "\"ByteLevel\"",
        "\"Unigram\"", "\"LlamaForCausalLM\"", "[0,18446744073709551615]"};
    size_t at = fx_below(rng, (uint32_t)size + 1);
    if (fx_below(rng, 2))
        return fuzz_mutate(data, size, max, rng);
    while (at < size && data[at] != ':')
        at++;
    if (at + 2 >= size)
        return fuzz_mutate(data, size, max, rng);
    size_t end = at += data[at + 1] == ' ' ? 2 : 1;
    while (end < size && !strchr(",]}\n", data[end]))
        end++;
    const char *v = values[fx_below(rng, sizeof values / sizeof values[0])];
    return fuzz_splice(data, size, max, at, end - at, v, strlen(v));
}

static const char *const words[] = {
    "\"architectures\"", "\"rope_scaling\"", "\"num_hidden_layers\"",
    "\"model_type\"", "\"merges\"", "\"vocab\"", "\"added_tokens\"",
    "\"vision_config\"", "\"image_grid_pinpoints\"", "\"size\"",
    "\"data_offsets\"", "\"dtype\"", "\"shape\"", "\"quantization_config\"",
    "[", "{", "}", ",", "\"", "\\u", NULL};

static const fuzz_target fuzz = {"fuzz_quant", one, seed, mutate, words,
                                 1 << 20};
FUZZ_MAIN
