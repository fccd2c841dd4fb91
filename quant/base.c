/* base.c, part of ksllm-quant.c - messages, memory, the output file, workers,
 * options.
 *
 * This is a program, not a library: it ends itself when it cannot go on. The
 * one thing that it then owes is to leave no half-written file behind. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- the output file ----
 * Written under a temporary name in the target's folder, synced and renamed
 * when complete. At every other end the temporary file is removed: by die, by
 * the signals that can be caught, and by out_finish's failure. */

typedef struct {
    int fd;
    u64 at; /* end of what out_append wrote */
    char path[4096];
} out_file;

static char out_temp[4200]; /* "" when there is none; read by a handler */

static void out_remove(void) {
    if (out_temp[0]) unlink(out_temp);
    out_temp[0] = 0;
}

static KS_PRINTF(1, 2) __attribute__((noreturn)) void die(
    const char *fmt, ...) {
    int saved = errno;
    va_list ap;
    fflush(stdout);
    flockfile(stderr);
    fputs("ksllm-quant: ", stderr);
    errno = saved;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    funlockfile(stderr);
    out_remove();
    _exit(1); /* workers may be running: no destructors */
}

static void out_on_signal(int sig) {
    if (out_temp[0]) unlink(out_temp);
    if (sig == SIGBUS) {
        static const char text[] =
            "ksllm-quant: an input file was shortened while it was read\n";
        if (write(2, text, sizeof text - 1) < 0) _exit(1);
    }
    _exit(128 + sig);
}

static void out_catch_signals(void) {
    static const int sigs[] = {SIGINT, SIGTERM, SIGHUP, SIGBUS, SIGQUIT};
    struct sigaction sa = {.sa_handler = out_on_signal};
    sigfillset(&sa.sa_mask);
    for (size_t i = 0; i < KS_LEN(sigs); i++) sigaction(sigs[i], &sa, NULL);
    signal(SIGXFSZ, SIG_IGN); /* then write fails with EFBIG, and says so */
    signal(SIGPIPE, SIG_IGN);
}

/* ---- what is read ----
 * Every file that is opened is noted, so that no output replaces one, whatever
 * name it goes by. */

static struct {
    dev_t dev;
    ino_t ino;
} *in_files;
static size_t n_in_files;

static void in_note(const struct stat *st) {
    in_files = realloc(in_files, (n_in_files + 1) * sizeof *in_files);
    if (!in_files) die("out of memory");
    in_files[n_in_files].dev = st->st_dev;
    in_files[n_in_files++].ino = st->st_ino;
}

static bool in_is_noted(const struct stat *st) {
    for (size_t i = 0; i < n_in_files; i++)
        if (in_files[i].dev == st->st_dev && in_files[i].ino == st->st_ino)
            return true;
    return false;
}

/* For a file that the library opens: notes it, or says what it is instead. */
static void in_check(const char *path) {
    struct stat st;
    if (stat(path, &st))
        die("%s: cannot be opened: %s", path, os_reason(errno));
    if (S_ISDIR(st.st_mode))
        die("%s: a folder; 'ksllm-quant convert' makes a GGUF file of a "
            "model's folder", path);
    in_note(&st);
}

static void out_open(out_file *o, const char *path) {
    int n = snprintf(o->path, sizeof o->path, "%s", path);
    struct stat st;
    if (n < 0 || (size_t)n >= sizeof o->path) die("%s: name too long", path);
    if (!stat(path, &st) && in_is_noted(&st))
        die("%s: is read for this; write to another file", path);
    if (!stat(path, &st) && !S_ISREG(st.st_mode))
        die("%s: exists and is not a regular file", path);
    if (!stat(path, &st) && access(path, W_OK))
        die("%s: %s", path, strerror(errno));
    char temp[sizeof out_temp];
    snprintf(temp, sizeof temp, "%s.%ld.tmp", path, (long)getpid());
    /* A signal finds either no file or its whole name. */
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    o->fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (o->fd < 0) die("%s: cannot write: %s", temp, strerror(errno));
    memcpy(out_temp, temp, sizeof temp);
    sigprocmask(SIG_SETMASK, &before, NULL);
    o->at = 0;
}

static void out_write_at(
    const out_file *o, const void *data, size_t n, u64 at) {
    const u8 *p = data;
    while (n) {
        ssize_t k = pwrite(o->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            die("%s: cannot write: %s", o->path,
                k ? strerror(errno) : "the disk is full");
        p += k, at += (u64)k, n -= (size_t)k;
    }
}

static void out_append(out_file *o, const void *data, size_t n) {
    out_write_at(o, data, n, o->at);
    o->at += n;
}

static void out_sync_folder(const char *path) {
    char dir[4200];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    else memcpy(dir, ".", 2);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* some file systems cannot: the rename holds anyway */
        close(fd);
    }
}

static void out_finish(out_file *o) {
    if (fsync(o->fd) || close(o->fd))
        die("%s: cannot write: %s", o->path, strerror(errno));
    if (rename(out_temp, o->path))
        die("%s: cannot rename: %s", o->path, strerror(errno));
    out_temp[0] = 0;
    out_sync_folder(o->path);
}

/* ---- memory ---- */

static void *xalloc(u64 n, size_t size) {
    if (size && n > (size_t)-1 / 2 / size) die("out of memory: size overflow");
    void *p = calloc(n ? (size_t)n : 1, size);
    if (!p) die("out of memory: %zu bytes", (size_t)n * size);
    return p;
}

static void *xgrow(void *p, size_t n, size_t size) {
    if (size && n > (size_t)-1 / 2 / size) die("out of memory: size overflow");
    p = realloc(p, n ? n * size : 1);
    if (!p) die("out of memory: %zu bytes", n * size);
    return p;
}

/* A growing run of bytes. */
typedef struct {
    u8 *p;
    size_t n, cap;
} bytes;

static u8 *bytes_room(bytes *b, size_t n) {
    if (n > b->cap - b->n) {
        size_t cap = max_size(b->cap * 2, max_size(b->n + n, 4096));
        b->p = xgrow(b->p, cap, 1);
        b->cap = cap;
    }
    b->n += n;
    return b->p + b->n - n;
}

static void bytes_put(bytes *b, const void *p, size_t n) {
    if (n) memcpy(bytes_room(b, n), p, n);
}

/* ---- whole files, mapped ---- */

/* Maps a file to read; false when there is none. An empty file has p NULL. */
static bool file_map(const char *path, os_file *f) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *f = (os_file){0};
    if (fd < 0 && errno == ENOENT) return false;
    if (fd < 0 || fstat(fd, &st)) die("%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) die("%s: not a regular file", path);
    in_note(&st);
    if (st.st_size) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd,
            0);
        if (p == MAP_FAILED) die("%s: cannot map: %s", path, strerror(errno));
        f->p = p;
        f->n = (u64)st.st_size;
    }
    close(fd);
    static const char lfs[] = "version https://git-lfs";
    if (f->n >= sizeof lfs - 1 && !memcmp(f->p, lfs, sizeof lfs - 1))
        die("%s: a git-LFS pointer in place of the file: fetch that with "
            "'git lfs pull'", path);
    return true;
}

/* A GGUF file to read, and the parts beside it. */
static void gguf_file(gguf *g, const char *path) {
    ksllm_error err;
    os_file f;
    *g = (gguf){.name = str_of(path)};
    in_check(path);
    if (os_open(path, NULL, &f, &err) || gguf_open(g, f, path, &MEM_LIBC, &err))
        die("%s", err.text);
    for (u32 i = 1; i < g->n_parts; i++) {
        char *part = strdup(path);
        if (!part) die("out of memory");
        gguf_part_name(part, strlen(part), i + 1);
        in_check(part);
        free(part);
    }
}

static void file_unmap(os_file *f) {
    if (f->p) munmap((void *)(uintptr_t)f->p, (size_t)f->n);
    *f = (os_file){0};
}

/* Lets the kernel drop mapped pages that will not be read again. */
static void file_forget(const u8 *p, u64 n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t a = ((uintptr_t)p + page - 1) & ~(page - 1);
    uintptr_t b = ((uintptr_t)p + (size_t)n) & ~(page - 1);
    if (b > a) madvise((void *)a, b - a, MADV_DONTNEED);
}

/* ---- workers ---- */

static f64 now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (f64)t.tv_sec + 1e-9 * (f64)t.tv_nsec;
}

static u32 n_workers; /* set from --threads; 0: as many as a session has */

static u32 workers_wanted(void) {
    return n_workers ? n_workers : os_fast_cores();
}

typedef struct {
    void (*task)(void *arg, u64 i, void *scratch);
    void *arg;
    size_t scratch_bytes;
    u64 n, next; /* next: atomic */
    u32 n_running; /* atomic */
} par_job;

static void *par_worker(void *arg) {
    par_job *j = arg;
    void *scratch = xalloc(j->scratch_bytes, 1);
    for (u64 i; (i = AT_ADD(&j->next, 1)) < j->n;) j->task(j->arg, i, scratch);
    free(scratch);
    __atomic_sub_fetch(&j->n_running, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Runs task(arg, i, scratch) for i in [0, n) on all cores; calls tick about
 * five times a second on the calling thread, which does no work itself. */
static void par_run(u64 n, void (*task)(void *, u64, void *), void *arg,
    size_t scratch_bytes, void (*tick)(void *)) {
    par_job j = {task, arg, scratch_bytes, n, 0, 0};
    u32 n_threads = (u32)(n < workers_wanted() ? n : workers_wanted());
    pthread_t *t = xalloc(n_threads, sizeof *t);
    j.n_running = n_threads;
    for (u32 i = 0; i < n_threads; i++)
        if (pthread_create(&t[i], NULL, par_worker, &j))
            die("cannot start a thread");
    for (u32 k = 0; AT_LOAD(&j.n_running) && tick; k++) {
        struct timespec pause = {0, k < 20 ? 5000000 : 100000000};
        nanosleep(&pause, NULL);
        if (k >= 20) tick(arg);
    }
    for (u32 i = 0; i < n_threads; i++) pthread_join(t[i], NULL);
    free(t);
}

/* ---- progress: a line that is rewritten on a terminal ---- */

typedef struct {
    const char *what;
    u64 total, done; /* bytes of source; done: atomic */
    f64 start, last;
    bool terminal, quiet;
} progress;

static void progress_begin(progress *p, const char *what, u64 total) {
    *p = (progress){.what = what, .total = total, .start = now_seconds(),
        .terminal = isatty(2), .quiet = p->quiet};
    p->last = p->start;
}

static void progress_tick(progress *p) {
    f64 now = now_seconds(), done = (f64)AT_RELAXED(&p->done);
    if (p->quiet || now - p->last < (p->terminal ? 0.2 : 10)) return;
    p->last = now;
    f64 rate = done / (now - p->start);
    f64 left = rate > 0 ? ((f64)p->total - done) / rate : 0;
    fprintf(stderr, "%s%s %5.1f %%  %7.1f MB/s  %.0f s left%s",
        p->terminal ? "\r" : "", p->what, 100 * done / (f64)p->total,
        rate / 1e6, left, p->terminal ? "   " : "\n");
}

static void progress_end(progress *p) {
    if (p->terminal && p->last > p->start && !p->quiet) fputc('\n', stderr);
}

/* ---- options ---- */

typedef struct {
    int argc, at;
    char **argv;
} args;

/* Whether the argument at hand is this option; takes its value if wanted. */
static bool arg_is(args *a, const char *name, const char **value) {
    const char *s = a->argv[a->at];
    size_t n = strlen(name);
    if (strncmp(s, name, n)) return false;
    if (value && s[n] == '=' && name[1] == '-') {
        *value = s + n + 1;
        a->at++;
        return true;
    }
    if (s[n]) return false;
    a->at++;
    if (!value) return true;
    if (a->at >= a->argc) die("%s needs a value", name);
    *value = a->argv[a->at++];
    return true;
}

static u64 arg_number(const char *name, const char *s, u64 lo, u64 hi) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || end == s || *end || *s == '-' || v < lo || v > hi)
        die("%s needs a number from %llu to %llu, not '%s'", name,
            (unsigned long long)lo, (unsigned long long)hi, s);
    return v;
}

/* What is neither an option nor the input that a command still wants. */
static __attribute__((noreturn)) void arg_unknown(const args *a) {
    const char *s = a->argv[a->at];
    if (s[0] == '-')
        die("%s has no option '%s'; %s --help lists them", a->argv[0], s,
            a->argv[0]);
    die("%s: '%s' is one file too many", a->argv[0], s);
}

static bool arg_threads(args *a) {
    const char *v;
    if (!arg_is(a, "--threads", &v)) return false;
    n_workers = (u32)arg_number("--threads", v, 1, 1024);
    return true;
}

static const char *str_dup(str s) {
    char *z = xalloc(s.n + 1, 1);
    memcpy(z, s.p, s.n);
    return z;
}

static ksllm_type type_by_name(const char *name) {
    for (u32 i = 0; i < KS_LEN(BLK_TYPES); i++)
        if (BLK_TYPES[i].name && !strcasecmp(name, BLK_TYPES[i].name))
            return (ksllm_type)i;
    die("'%s' is not a tensor type", name);
}

static bool is_float_type(ksllm_type t) { return BLK_TYPES[t].n == 1; }

/* ---- JSON files ---- */

typedef enum { JS_NULL, JS_BOOL, JS_NUM, JS_STR, JS_ARR, JS_OBJ } js_kind;

/* A value of a tree. Numbers keep their text. */
typedef struct js js;
struct js {
    js_kind kind;
    u32 n;     /* of an array or object */
    str key;   /* in an object */
    str text;  /* of a string (unescaped) or number; "true" of a bool */
    js *first, *next;
};

/* A tree takes 80 bytes a value; a tokenizer.json of 33 MB makes 150 MB. */
enum { JS_MAX_TREE = 512 << 20 };

typedef struct js_block {
    struct js_block *next;
    size_t n, cap;
    _Alignas(16) u8 data[];
} js_block;

typedef struct {
    const char *name; /* for messages */
    json_reader json;
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

static KS_UNUSED void js_free(js_reader *r) {
    while (r->blocks) {
        js_block *b = r->blocks;
        r->blocks = b->next;
        free(b);
    }
}

static js *js_bad(js_reader *r, const char *why) {
    snprintf(r->why, sizeof r->why, "%s at byte %zu", why,
        (size_t)(r->json.p - r->json.begin));
    return NULL;
}

static str js_string(js_reader *r, str s) {
    if (!s.n || !memchr(s.p, '\\', s.n)) return s;
    u8 *to = js_take(r, s.n);
    return (str){(const char *)to, json_unescape(to, s)};
}

/* Quadratic only where it is short: longer objects (vocabularies) are checked
 * by those who use them. */
static bool js_is_double(const js *o, str key) {
    u32 k = 0;
    for (const js *c = o->first; c && k < 256; c = c->next, k++)
        if (str_eq(c->key, key)) return true;
    return false;
}

/* The value whose first token was read; NULL and r->why on failure. */
static js *js_value(js_reader *r, json_token token, str text) {
    static const u8 kinds[] = {[JSON_T_NULL] = JS_NULL, [JSON_T_FALSE] = JS_BOOL,
        [JSON_T_TRUE] = JS_BOOL, [JSON_T_NUMBER] = JS_NUM,
        [JSON_T_STRING] = JS_STR, [JSON_T_LIST] = JS_ARR,
        [JSON_T_OBJECT] = JS_OBJ};
    str key = {0};
    if (token == JSON_T_END) return js_bad(r, r->json.why);
    js *v = js_take(r, sizeof *v), *last = NULL;
    *v = (js){.kind = kinds[token]};
    if (token == JSON_T_STRING) v->text = js_string(r, text);
    else if (token < JSON_T_STRING) v->text = text;
    if (token < JSON_T_LIST) return v;
    while ((token = json_next(&r->json, &text)) != JSON_T_CLOSE) {
        if (token == JSON_T_KEY) {
            key = js_string(r, text);
            if (js_is_double(v, key)) return js_bad(r, "a key occurs twice");
            continue;
        }
        js *c = js_value(r, token, text);
        if (!c) return NULL;
        c->key = key;
        if (last) last->next = c;
        else v->first = c;
        last = c;
        v->n++;
    }
    return v;
}

/* The one value of the text, or NULL with r->why filled. `text` must outlive
 * the tree. */
static js *js_parse(js_reader *r, const char *name, const u8 *p, size_t n) {
    str text;
    *r = (js_reader){.name = name,
        .json = json_begin_reader((str){(const char *)p, n})};
    r->json.loose = true;
    if (n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) r->json.p += 3;
    json_token token = json_next(&r->json, &text);
    js *v = js_value(r, token, text);
    if (v && (json_next(&r->json, &text) || r->json.why))
        return js_bad(r, r->json.why);
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
    const u8 *p = (const u8 *)s.p, *end = s.n ? p + s.n : p;
    u8 esc[8];
    fputc('"', f);
    while (p < end) fwrite(esc, 1, json_escape(&p, end, esc), f);
    fputc('"', f);
}
