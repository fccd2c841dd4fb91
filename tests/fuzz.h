/* fuzz.h - what the fuzzers share: how they run, inputs, a mutator.
 *
 * A fuzzer is a program of its own. It describes itself and ends:
 *
 *     static const fuzz_target fuzz = {"fuzz_gguf", one, seed, ...};
 *     FUZZ_MAIN
 *
 * `make fuzz` compiles it for libFuzzer with sanitizers (KSLLM_LIBFUZZER).
 * Everywhere else, in `make test`, it is a small program that replays what lies
 * in tests/fuzz/NAME/ and then tries 2,000 mutations of that and of its seeds,
 * or as many as it can in two seconds:
 *
 *     fuzz_gguf [FILTER]              the same, unless the name lacks FILTER
 *     fuzz_gguf --mutations N [SEED]  more of it
 *     fuzz_gguf --input FILE...       these inputs alone
 *     fuzz_gguf --seeds FOLDER        writes the seeds as files
 *
 * Where something does not hold it traps. A program that dies leaves its input
 * in fuzz_NAME.crash; that file goes into tests/fuzz/NAME/ with the mend.
 */
#ifndef KSLLM_FUZZ_H
#define KSLLM_FUZZ_H

#if !defined _DEFAULT_SOURCE && !defined _GNU_SOURCE
#define _DEFAULT_SOURCE 1   /* mmap's flags, scandir */
#endif
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

typedef struct fuzz_target {
    const char *name;
    void (*one)(const uint8_t *data, size_t size);
    /* Appends the i-th input to begin with; false after the last. */
    bool (*seed)(size_t i, fx_bytes *out);
    /* Changes an input of `size` bytes that may grow to `max`, returns its new
     * size. NULL: fuzz_mutate. */
    size_t (*mutate)(uint8_t *data, size_t size, size_t max, uint64_t *rng);
    const char *const *words;   /* what inputs are made of; NULL at the end */
    size_t max;                 /* the longest input */
} fuzz_target;

static const fuzz_target fuzz;

/* Ends the program where `ok` is false. The rest as for printf. */
#define MUST(ok, ...)                                                   \
    do {                                                                \
        if (!(ok)) {                                                    \
            fprintf(stderr, "%s:%d: %s is false: ", __FILE__, __LINE__, \
                    #ok);                                               \
            fprintf(stderr, __VA_ARGS__);                               \
            fputc('\n', stderr);                                        \
            abort();                                                    \
        }                                                               \
    } while (0)

/* Seconds of processor time. */
static inline double fuzz_now(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* ---- Inputs ------------------------------------------------------------- */

/* Memory that ends where a page begins that nothing may touch: one byte too
 * many is a fault, with or without a sanitizer. */
static inline uint8_t *fuzz_room(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (size + page - 1) / page * page;
    uint8_t *p = mmap(NULL, room + page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + room, page, PROT_NONE) != 0) {
        fprintf(stderr, "the fuzzer ran out of memory\n");
        exit(2);
    }
    memset(p, 0xcb, room);
    return p + room - size;
}

static inline uint8_t *fuzz_copy(const void *data, size_t size)
{
    uint8_t *p = fuzz_room(size);
    if (size)
        memcpy(p, data, size);
    return p;
}

static inline void fuzz_free(uint8_t *p, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (size + page - 1) / page * page;
    munmap(p + size - room, room + page);
}

static inline bool fuzz_same(const fx_bytes *a, const fx_bytes *b)
{
    return a->size == b->size &&
           (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

/* Reads an input from its beginning; zeros after its end. */
typedef struct fuzz_reader {
    const uint8_t *p;
    size_t n;
} fuzz_reader;

static inline uint8_t fuzz_byte(fuzz_reader *r)
{
    if (!r->n)
        return 0;
    r->n--;
    return *r->p++;
}

/* ---- Text --------------------------------------------------------------- */

/* The length of the character at p, n > 0, or how many bytes are none, as
 * U+FFFD stands for them (Unicode's maximal subparts); *good says which. */
static inline size_t fuzz_char(const uint8_t *p, size_t n, bool *good)
{
    uint8_t b = p[0], low = 0x80, high = 0xbf;
    size_t want = b < 0x80 ? 1 : b >= 0xc2 && b <= 0xdf ? 2
                : b >= 0xe0 && b <= 0xef ? 3 : b >= 0xf0 && b <= 0xf4 ? 4 : 0;
    size_t k = 1;
    if (b == 0xe0 || b == 0xf0)
        low = b == 0xe0 ? 0xa0 : 0x90;
    if (b == 0xed || b == 0xf4)
        high = b == 0xed ? 0x9f : 0x8f;
    while (k < want && k < n && p[k] >= low && p[k] <= high) {
        low = 0x80;
        high = 0xbf;
        k++;
    }
    *good = k == want;
    return k;
}

static inline bool fuzz_is_utf8(const void *text, size_t n)
{
    const uint8_t *p = text;
    bool good = true;
    for (size_t i = 0; i < n && good; )
        i += fuzz_char(p + i, n - i, &good);
    return good;
}

/* ---- Mutations ---------------------------------------------------------- */

static const uint64_t fuzz_numbers[] = {
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257,
    511, 512, 513, 4095, 4096, 65535, 65536, 0xffffff, 0x1000000, 0x7fffffff,
    0x80000000, 0xffffffff, UINT64_C(0x100000000), UINT64_C(1) << 60,
    INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 15, UINT64_MAX};

static inline uint64_t fuzz_number(uint64_t *rng)
{
    return fuzz_numbers[fx_below(rng, sizeof fuzz_numbers / 8)];
}

/* Puts n bytes into the input at `at` in the place of `old`; the new size, the
 * same where there is no room. */
static inline size_t fuzz_splice(uint8_t *data, size_t size, size_t max,
                                 size_t at, size_t old, const void *p,
                                 size_t n)
{
    if (size - old + n > max)
        return size;
    memmove(data + at + n, data + at + old, size - at - old);
    if (n)
        memcpy(data + at, p, n);
    return size - old + n;
}

static inline size_t fuzz_mutate_once(uint8_t *data, size_t size, size_t max,
                                      uint64_t *rng)
{
    size_t n_words = 0;
    while (fuzz.words && fuzz.words[n_words])
        n_words++;
    uint32_t how = fx_below(rng, 10);
    size_t at = fx_below(rng, (uint32_t)size + 1), left = size - at;
    size_t span = 1 + fx_below(rng, fx_below(rng, 4) ? 16 : 400);
    uint8_t bytes[400];
    if (n_words && how < 4) {
        const char *word = fuzz.words[fx_below(rng, (uint32_t)n_words)];
        size_t old = how ? 0 : strlen(word);
        return fuzz_splice(data, size, max, at, old < left ? old : left, word,
                           strlen(word));
    }
    span = span < left ? span : left;
    memcpy(bytes, data + at, span);
    if (how < 5 || !left) {             /* another byte */
        bytes[0] = (uint8_t)fx_next(rng);
        return fuzz_splice(data, size, max, at, left && fx_below(rng, 2),
                           bytes, 1);
    }
    if (how == 5)                       /* a bit */
        data[at] ^= (uint8_t)(1 << fx_below(rng, 8));
    else if (how == 6)                  /* less */
        return fuzz_splice(data, size, max, at, span, bytes, 0);
    else if (how == 7)                  /* a part twice, or elsewhere */
        return fuzz_splice(data, size, max, fx_below(rng, (uint32_t)size + 1),
                           0, bytes, span);
    else if (how == 8)
        data[at] = (uint8_t)fuzz_number(rng);
    else
        data[at] = (uint8_t)(data[at] + fx_below(rng, 9) - 4);
    return size;
}

static inline size_t fuzz_mutate(uint8_t *data, size_t size, size_t max,
                                 uint64_t *rng)
{
    for (uint32_t times = 1 + fx_below(rng, 4); times; times--)
        size = fuzz_mutate_once(data, size, max, rng);
    return size;
}

/* ---- libFuzzer ---------------------------------------------------------- */

#ifdef KSLLM_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max,
                               unsigned seed);

/* libFuzzer's own mutations know what was compared with what: half of them. */
#define FUZZ_MAIN                                                          \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)           \
    {                                                                      \
        fuzz.one(data, size);                                              \
        return 0;                                                          \
    }                                                                      \
    size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, \
                                   unsigned seed)                          \
    {                                                                      \
        uint64_t rng = seed;                                               \
        max = max < fuzz.max ? max : fuzz.max;                             \
        size = size < max ? size : max;                                    \
        if (fx_below(&rng, 2))                                             \
            return LLVMFuzzerMutate(data, size, max);                      \
        return (fuzz.mutate ? fuzz.mutate : fuzz_mutate)(data, size, max,  \
                                                         &rng);            \
    }

#else

/* ---- A program ---------------------------------------------------------- */

enum { FUZZ_MUTATIONS = 2000, FUZZ_SECONDS = 2 };

static struct {
    const uint8_t *data;        /* the input that is tried */
    size_t size;
    char path[64];
} fuzz_running;

/* Leaves the input as a file and lets the signal do what it does. */
static inline void fuzz_died(int signal_number)
{
    int fd = open(fuzz_running.path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t n = write(fd, fuzz_running.data, fuzz_running.size);
    static const char text[] = "the input is in the file fuzz_*.crash\n";
    n += write(2, text, sizeof text - 1);
    (void)n;
    close(fd);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static inline void fuzz_try(const uint8_t *data, size_t size)
{
    fuzz_running.data = data;
    fuzz_running.size = size;
    fuzz.one(data, size);
}

/* Appends a file; false when it cannot be read. */
static inline bool fuzz_read(const char *path, fx_bytes *out)
{
    FILE *f = fopen(path, "rb");
    char buf[4096];
    if (!f)
        return false;
    for (size_t n; (n = fread(buf, 1, sizeof buf, f)) > 0; )
        fx_put(out, buf, n);
    fclose(f);
    return true;
}

static inline void fuzz_write(const char *path, const fx_bytes *b)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(b->data, 1, b->size, f) != b->size || fclose(f)) {
        fprintf(stderr, "%s: cannot write\n", path);
        exit(2);
    }
}

/* The seeds and what lies in tests/fuzz/NAME. */
enum { FUZZ_INPUTS = 256 };
static fx_bytes fuzz_inputs[FUZZ_INPUTS];

static inline size_t fuzz_load(void)
{
    size_t n = 0;
    char path[512];
    struct dirent **names;
    while (n < FUZZ_INPUTS && fuzz.seed(n, &fuzz_inputs[n]))
        n++;
    snprintf(path, sizeof path, "tests/fuzz/%s", fuzz.name);
    int found = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < found; i++) {
        snprintf(path, sizeof path, "tests/fuzz/%s/%s", fuzz.name,
                 names[i]->d_name);
        if (names[i]->d_name[0] != '.' && n < FUZZ_INPUTS &&
            fuzz_read(path, &fuzz_inputs[n]))
            n++;
        free(names[i]);
    }
    if (found >= 0)
        free(names);
    return n;
}

static inline long fuzz_run(long mutations, uint64_t rng, double seconds)
{
    size_t n = fuzz_load();
    uint8_t *data = fx_memory(NULL, fuzz.max);
    double begin = fuzz_now();
    long done = 0;
    for (size_t i = 0; i < n; i++)
        fuzz_try(fuzz_inputs[i].data, fuzz_inputs[i].size);
    while (done < mutations && fuzz_now() - begin < seconds) {
        const fx_bytes *from = &fuzz_inputs[fx_below(&rng, (uint32_t)n)];
        size_t size = from->size < fuzz.max ? from->size : fuzz.max;
        if (size)
            memcpy(data, from->data, size);
        size = (fuzz.mutate && fx_below(&rng, 4) ? fuzz.mutate : fuzz_mutate)(
            data, size, fuzz.max, &rng);
        fuzz_try(data, size);
        done++;
    }
    for (size_t i = 0; i < n; i++) {
        free(fuzz_inputs[i].data);
        fuzz_inputs[i] = (fx_bytes){0};
    }
    free(data);
    printf("%s: %zu inputs, %ld mutations\n", fuzz.name, n, done);
    return done;
}

static inline int fuzz_seeds(const char *folder)
{
    fx_bytes b = {0};
    char path[512];
    for (size_t i = 0; fuzz.seed(i, &b); i++) {
        snprintf(path, sizeof path, "%s/seed%zu", folder, i);
        fuzz_write(path, &b);
        b.size = 0;
    }
    free(b.data);
    return 0;
}

static inline int fuzz_main(int argc, char **argv)
{
    static const int deadly[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL,
                                 SIGALRM, SIGTRAP};
    const char *what = argc > 1 ? argv[1] : "";
    snprintf(fuzz_running.path, sizeof fuzz_running.path, "%s.crash",
             fuzz.name);
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        signal(deadly[i], fuzz_died);
    if (strcmp(what, "--seeds") == 0 && argc == 3)
        return fuzz_seeds(argv[2]);
    if (strcmp(what, "--input") == 0) {
        for (int i = 2; i < argc; i++) {
            fx_bytes b = {0};
            if (!fuzz_read(argv[i], &b))
                return 2;
            fuzz_try(b.data, b.size);
            free(b.data);
        }
    } else if (strcmp(what, "--mutations") == 0 && argc > 2) {
        fuzz_run(atol(argv[2]), argc > 3 ? strtoull(argv[3], NULL, 0) : 1,
                 1e9);
    } else if (!strstr(fuzz.name, what)) {
        printf("0 passed, 0 failed\n");
        return 0;
    } else {
        alarm(1800);
        fuzz_run(FUZZ_MUTATIONS, 1, FUZZ_SECONDS);
    }
    printf("1 passed, 0 failed\n");
    return 0;
}

#define FUZZ_MAIN                   \
    int main(int argc, char **argv) \
    {                               \
        return fuzz_main(argc, argv); \
    }

#endif
#endif
