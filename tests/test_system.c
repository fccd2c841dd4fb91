/* test_system.c - what the library asks of the system and of the allocator.
 *
 * A bad day: every such call fails once, at every place, over the whole life of
 * a model. Each time the host gets a documented status, nothing leaks, and the
 * same life works when it is tried again.
 *
 * A good day: once a session exists, nothing is allocated, and no lock is held
 * while the host's code runs.
 *
 * White-box, because a failing fstat cannot be made from outside: the system's
 * functions go through the ones below.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

/* ---- calls that fail ---- */

enum {
    OPEN, FSTAT, MMAP, READ, SYSCONF, AFFINITY, CLOCK, SLEEP, ADVISE, CREATE,
    ATTR, MUTEX, COND, WAIT, ALLOC, N_CALLS
};

static const char *const call_names[N_CALLS] = {
    "open", "fstat", "mmap", "read", "sysconf", "sched_getaffinity",
    "clock_gettime", "nanosleep", "madvise", "pthread_create",
    "pthread_attr_init", "pthread_mutex_init", "pthread_cond_init",
    "pthread_cond_wait", "the allocator"};

static struct {
    int kind, error;
    long at;                    /* the call that fails, from 1; 0: none */
    bool short_read;            /* read gives a part, or 0 at the fault */
} fault;
static atomic_long n_calls[N_CALLS];
static atomic_long n_mapped, n_files, n_threads, n_locks, n_heap;
static _Thread_local int n_held;        /* locks, by this thread */

static bool fails(int kind)
{
    long n = atomic_fetch_add(&n_calls[kind], 1) + 1;
    if (kind != fault.kind || n != fault.at)
        return false;
    errno = fault.error;
    return true;
}

/* Cores as the system describes them, if n_cores: each of them may be used,
 * and its file says how fast it is. */
static struct { int n; const char *capacity[CPU_SETSIZE]; } cores;

/* A file with that text. */
static int file_of(const char *text)
{
    FILE *f = tmpfile();
    int fd = f && fputs(text, f) >= 0 && fflush(f) == 0 ? dup(fileno(f)) : -1;
    if (f)
        fclose(f);
    return fd < 0 || lseek(fd, 0, SEEK_SET) ? -1 : fd;
}

static int bad_open(const char *path, int flags, ...)
{
    int cpu;
    if (cores.n && sscanf(path, "/sys/devices/system/cpu/cpu%d/cpu_capacity",
                          &cpu) == 1) {
        int fd = cores.capacity[cpu] ? file_of(cores.capacity[cpu]) : -1;
        atomic_fetch_add(&n_files, fd >= 0);
        return fd;
    }
    if (fails(OPEN))
        return -1;
    int fd = open(path, flags);
    atomic_fetch_add(&n_files, fd >= 0);
    return fd;
}

static int bad_close(int fd)
{
    atomic_fetch_add(&n_files, -1);
    return close(fd);
}

static int bad_fstat(int fd, struct stat *st)
{
    return fails(FSTAT) ? -1 : fstat(fd, st);
}

static void *bad_mmap(void *at, size_t n, int prot, int flags, int fd,
                      off_t from)
{
    if (fails(MMAP))
        return MAP_FAILED;
    void *p = mmap(at, n, prot, flags, fd, from);
    atomic_fetch_add(&n_mapped, p != MAP_FAILED);
    return p;
}

static int bad_munmap(void *p, size_t n)
{
    atomic_fetch_add(&n_mapped, -1);
    return munmap(p, n);
}

static ssize_t bad_read(int fd, void *p, size_t n)
{
    if (fails(READ))
        return -1;
    return read(fd, p, n);
}

static ssize_t bad_pread(int fd, void *p, size_t n, off_t at)
{
    if (fails(READ))
        return fault.short_read ? 0 : -1;
    if (fault.short_read && n > 100)
        n = 100;
    return pread(fd, p, n, at);
}

static long bad_sysconf(int name)
{
    return fails(SYSCONF) ? -1 : sysconf(name);
}

static int bad_affinity(pid_t pid, size_t n, cpu_set_t *set)
{
    for (int i = 0; i < cores.n; i++)
        CPU_SET(i, set);
    if (cores.n)
        return 0;
    return fails(AFFINITY) ? -1 : sched_getaffinity(pid, n, set);
}

static int bad_clock(clockid_t clock, struct timespec *t)
{
    return fails(CLOCK) ? -1 : clock_gettime(clock, t);
}

static int bad_sleep(const struct timespec *t, struct timespec *left)
{
    return fails(SLEEP) ? -1 : nanosleep(t, left);
}

static int bad_advise(void *p, size_t n, int advice)
{
    return fails(ADVISE) ? -1 : madvise(p, n, advice);
}

static int bad_create(pthread_t *t, const pthread_attr_t *attr,
                      void *(*run)(void *), void *arg)
{
    if (fails(CREATE))
        return EAGAIN;
    atomic_fetch_add(&n_threads, 1);
    return pthread_create(t, attr, run, arg);
}

static int bad_join(pthread_t t, void **out)
{
    atomic_fetch_add(&n_threads, -1);
    return pthread_join(t, out);
}

static int bad_attr(pthread_attr_t *attr)
{
    return fails(ATTR) ? ENOMEM : pthread_attr_init(attr);
}

static int bad_mutex(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    if (fails(MUTEX))
        return EAGAIN;
    atomic_fetch_add(&n_locks, 1);
    return pthread_mutex_init(m, attr);
}

static int bad_mutex_end(pthread_mutex_t *m)
{
    atomic_fetch_add(&n_locks, -1);
    return pthread_mutex_destroy(m);
}

static int bad_cond(pthread_cond_t *c, const pthread_condattr_t *attr)
{
    if (fails(COND))
        return EAGAIN;
    atomic_fetch_add(&n_locks, 1);
    return pthread_cond_init(c, attr);
}

static int bad_cond_end(pthread_cond_t *c)
{
    atomic_fetch_add(&n_locks, -1);
    return pthread_cond_destroy(c);
}

static int bad_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    return fails(WAIT) ? EINVAL : pthread_cond_wait(c, m);
}

static int held_lock(pthread_mutex_t *m)
{
    n_held++;
    return pthread_mutex_lock(m);
}

static int held_unlock(pthread_mutex_t *m)
{
    n_held--;
    return pthread_mutex_unlock(m);
}

static void *heap_realloc(void *p, size_t n)
{
    atomic_fetch_add(&n_heap, 1);
    return realloc(p, n);
}

static void heap_free(void *p)
{
    atomic_fetch_add(&n_heap, 1);
    free(p);
}

#define open bad_open
#define close bad_close
#define fstat bad_fstat
#define mmap bad_mmap
#define munmap bad_munmap
#define read bad_read
#define pread bad_pread
#define sysconf bad_sysconf
#define sched_getaffinity bad_affinity
#define clock_gettime bad_clock
#define nanosleep bad_sleep
#define madvise bad_advise
#define pthread_create bad_create
#define pthread_join bad_join
#define pthread_attr_init bad_attr
#define pthread_mutex_init bad_mutex
#define pthread_mutex_destroy bad_mutex_end
#define pthread_cond_init bad_cond
#define pthread_cond_destroy bad_cond_end
#define pthread_cond_wait bad_wait
#define pthread_mutex_lock held_lock
#define pthread_mutex_unlock held_unlock
#define malloc(n) heap_realloc(NULL, n)
#define calloc(n, size) heap_realloc(NULL, (n) * (size))
#define realloc heap_realloc
#define free heap_free
#define KSLLM_NO_SIMD 1
#undef KSLLM_NO_THREADS     /* both are what this test is about */
#undef KSLLM_NO_MMAP
#include "../ksllm.c"
#undef open
#undef close
#undef read
#undef malloc
#undef calloc
#undef realloc
#undef free

#include "test.h"

/* ---- a model in two files ---- */

static const fx_spec tiny = {
    "faults", "llama", 1, 32, 32, 2, 1, 16, 0, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_BPE, FX_SOUND};

static char folder[] = "/tmp/ksllm_faults_XXXXXX";
static char first_part[256], second_part[256];

static void write_file(const char *path, const fx_file *f)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, f->data, f->size) != (ssize_t)f->size)
        exit(1);
    close(fd);
    free(f->data);
}

static void write_model(void)
{
    fx_file part[2];
    if (!first_part[0] && !mkdtemp(folder))
        exit(1);
    fx_model_split(&tiny, 2, part);
    snprintf(first_part, sizeof first_part, "%s/m-00001-of-00002.gguf", folder);
    snprintf(second_part, sizeof second_part, "%s/m-00002-of-00002.gguf",
             folder);
    write_file(first_part, &part[0]);
    write_file(second_part, &part[1]);
}

__attribute__((destructor)) static void remove_model(void)
{
    unlink(first_part);
    unlink(second_part);
    rmdir(folder);
}

/* ---- a life ---- */

static void *resize(void *ctx, void *p, size_t old_size, size_t new_size)
{
    fx_alloc *a = ctx;
    return new_size && fails(ALLOC) ? NULL
                                    : fx_resize(a, p, old_size, new_size);
}

/* From opening a file to closing it, and the first status that was not OK. All
 * of it is done whatever fails, as a host would do that cleans up. */
typedef struct {
    const char *path;
    bool in_memory;
    bool cut;                   /* the files are emptied once it is open */
    uint32_t n_threads;
    ksllm_allocator allocator;
    ksllm_status status;
    ksllm_error e;
    uint64_t hash;              /* of the logits at the end */
} life;

static bool went(life *x, int64_t n)
{
    if (n < 0 && !x->status) {
        x->status = (ksllm_status)n;
        /* A status and its record say the same, in whole sentences. */
        CHECK_EQ(x->e.status, n);
        CHECK(x->e.text[0] != '\0' && strlen(x->e.text) < sizeof x->e.text);
    }
    return n >= 0;
}

static void talk(life *x, const ksllm_model *m, ksllm_session *s)
{
    ksllm_chat chat;
    ksllm_generation g;
    ksllm_sampling p;
    fx_chat(&chat);
    ksllm_generation_init(&g);
    ksllm_sampling_init(&p);
    g.max_tokens = 5;
    ksllm_control c;
    ksllm_control_init(&c);
    c.max_tokens_per_second = fault.kind == SLEEP ? 200 : 0;
    g.control = &c;
    p.temperature = 0;
    g.sampling = &p;
    char text[256];
    went(x, ksllm_chat_render(m, &chat, text, sizeof text, &x->e));
    int32_t ids[64];
    int64_t n = ksllm_chat_encode(m, &chat, 0, ids, 64, &x->e);
    if (!went(x, n) || n > 64)
        return;
    ksllm_result r = {.size = sizeof r};
    if (!went(x, ksllm_chat_generate(s, &chat, &g, fx_drop_part, NULL, &r, &x->e)))
        return;
    static const int32_t more[] = {3, 4, 5, 6, 7, 8, 9, 10};
    if (went(x, ksllm_session_sync(s, more, 8, NULL, &x->e)))
        x->hash = fx_logits_hash(m, s);
}

static void run(life *x)
{
    ksllm_model *m = NULL;
    ksllm_model_options o;
    ksllm_model_options_init(&o);
    o.allocator = &x->allocator;
    o.in_memory = x->in_memory;
    if (!went(x, ksllm_model_open(x->path, &o, &m, &x->e))) {
        CHECK(m == NULL);
        return;
    }
    if (x->cut && (truncate(first_part, 0) || truncate(second_part, 0)))
        exit(1);
    went(x, ksllm_model_preload(m, NULL, &x->e));
    char word[400];
    memset(word, 'a', sizeof word);     /* long enough to want memory */
    went(x, ksllm_encode(m, word, sizeof word, 0, NULL, 0, &x->e));
    ksllm_session *s = NULL;
    ksllm_session_options so = fx_small_options();
    so.n_ctx = 256;
    so.n_threads = x->n_threads;
    so.allocator = &x->allocator;
    if (went(x, ksllm_session_create(m, &so, &s, &x->e)))
        talk(x, m, s);
    else
        CHECK(s == NULL);
    ksllm_session_free(s);
    ksllm_model_close(m);
}

/* ---- each call fails once ---- */

/* One life in which call number `at` of this kind fails. */
static life live(int kind, int error, long at, bool in_memory)
{
    fx_alloc a;
    fx_alloc_init(&a);
    a.allocator.resize = resize;
    /* 0: the library counts the cores */
    life x = {.path = first_part, .in_memory = in_memory,
              .n_threads = kind == AFFINITY ? 0 : 3,
              .allocator = a.allocator};
    x.allocator.ctx = &a;
    for (int i = 0; i < N_CALLS; i++)
        atomic_store(&n_calls[i], 0);
    n_mapped = n_files = n_threads = n_locks = 0;
    fault.kind = kind;
    fault.error = error;
    fault.at = at;
    run(&x);
    fault.at = 0;
    CHECK_EQ(a.n_live, 0);
    CHECK_EQ(a.live, 0);
    CHECK(!a.wrong_size);
    CHECK_EQ(n_mapped, 0);
    CHECK_EQ(n_files, 0);
    CHECK_EQ(n_threads, 0);
    CHECK_EQ(n_locks, 0);
    return x;
}

/* What a failing call may become. OK: the library can do without it. */
static void each_call_fails(int kind, int error, ksllm_status must,
                            bool in_memory)
{
    write_model();
    life good = live(kind, 0, 0, in_memory);
    if (!CHECK_OK(good.status, good.e) || !CHECK(good.hash))
        return;
    /* How often a worker waits differs from run to run. */
    long n = kind == WAIT ? 3 : n_calls[kind];
    CHECK(n > 0 || kind == SLEEP);      /* a slow machine does not sleep */
    for (long at = 1; at <= n && at <= 3000; at++) {
        life x = live(kind, error, at, in_memory);
        if (!CHECK_EQ(x.status, must) ||
            (!x.status && !CHECK_HEX(x.hash, good.hash))) {
            printf("%s, call %ld of %ld: %s\n", call_names[kind], at, n,
                   x.status ? x.e.text : "other logits");
            return;
        }
    }
    life again = live(-1, 0, 0, in_memory);
    CHECK_OK(again.status, again.e);
    CHECK_HEX(again.hash, good.hash);
}

TEST(files_that_fail)
{
    static const int errors[] = {ENOENT, EACCES, EMFILE, ENOMEM, EIO};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        each_call_fails(FSTAT, errors[i], KSLLM_ERR_IO, false);
        each_call_fails(MMAP, errors[i], KSLLM_ERR_IO, false);
        each_call_fails(FSTAT, errors[i], KSLLM_ERR_IO, true);
        each_call_fails(READ, errors[i], KSLLM_ERR_IO, true);
    }
}

/* The parts' names; where cores' speeds are read, a failure means "alike". */
TEST(files_that_do_not_open)
{
    write_model();
    for (long at = 1; at <= 2; at++) {
        life x = live(OPEN, EMFILE, at, false);
        CHECK_EQ(x.status, KSLLM_ERR_IO);
        CHECK(strstr(x.e.text, "too many files are open"));
        x = live(OPEN, EINTR, at, false);       /* tried again */
        CHECK_OK(x.status, x.e);
    }
    life x = live(READ, EINTR, 1, true);
    CHECK_OK(x.status, x.e);
}

/* A file that is shorter than it was when it was measured. */
TEST(a_file_that_shrinks_while_it_is_read)
{
    fault.short_read = true;
    each_call_fails(READ, 0, KSLLM_ERR_IO, true);
    fault.short_read = false;
}

/* In memory, a model does not notice what becomes of its files. */
TEST(a_file_that_shrinks_after_it_was_read)
{
    write_model();
    life good = live(-1, 0, 0, true);
    fx_alloc a;
    fx_alloc_init(&a);
    life x = {.path = first_part, .in_memory = true, .cut = true,
              .n_threads = 1, .allocator = a.allocator};
    run(&x);
    CHECK_OK(x.status, x.e);
    CHECK_HEX(x.hash, good.hash);
    CHECK_EQ(a.n_live, 0);
    x.cut = false;
    run(&x);
    CHECK_EQ(x.status, KSLLM_ERR_FORMAT);
}

TEST(threads_that_fail)
{
    each_call_fails(CREATE, EAGAIN, KSLLM_ERR_THREAD, false);
    each_call_fails(ATTR, ENOMEM, KSLLM_ERR_THREAD, false);
    each_call_fails(MUTEX, EAGAIN, KSLLM_ERR_THREAD, false);
    each_call_fails(COND, EAGAIN, KSLLM_ERR_THREAD, false);
    each_call_fails(WAIT, EINVAL, KSLLM_OK, false);
}

TEST(what_the_library_can_do_without)
{
    each_call_fails(SLEEP, EINTR, KSLLM_OK, false);
    each_call_fails(ADVISE, ENOSYS, KSLLM_OK, false);
    each_call_fails(SYSCONF, EINVAL, KSLLM_OK, false);
    each_call_fails(CLOCK, EINVAL, KSLLM_OK, false);
    each_call_fails(AFFINITY, EPERM, KSLLM_OK, false);
}

/* Cores that may be used, with what their files say. Of those, the library
 * takes the ones at least half as fast as the fastest, 16 at most. */
TEST(cores_worth_running_on)
{
    static const struct { unsigned n; int n_all; const char *capacity[9]; }
    systems[] = {
        {1, 1, {NULL}}, {4, 4, {NULL}}, {16, 70, {NULL}},
        {1, 1, {"1024\n"}}, {2, 2, {"512\n", "1024\n"}},
        {1, 2, {"511\n", "1024\n"}},
        {4, 8, {"414\n", "414\n", "414\n", "414\n", "1024\n", "870\n",
                "870", "870"}},
        {3, 3, {"", "x", "/"}},             /* no numbers: alike */
        {2, 3, {"1024:9\n", "1024", "\n"}},  /* what follows is ignored */
    };
    for (size_t i = 0; i < sizeof systems / sizeof systems[0]; i++) {
        memset(&cores, 0, sizeof cores);
        cores.n = systems[i].n_all;
        memcpy(cores.capacity, systems[i].capacity,
               sizeof systems[i].capacity);
        n_files = 0;
        CHECK_EQ(os_fast_cores(), systems[i].n);
        CHECK_EQ(n_files, 0);
    }
    memset(&cores, 0, sizeof cores);
}

TEST(memory_that_fails)
{
    each_call_fails(ALLOC, ENOMEM, KSLLM_ERR_MEMORY, false);
    each_call_fails(ALLOC, ENOMEM, KSLLM_ERR_MEMORY, true);
}

/* ---- a good day ---- */

static atomic_long n_called, n_called_locked;

/* Every callback of the host's ends up here. */
static void called(void)
{
    atomic_fetch_add(&n_called, 1);
    atomic_fetch_add(&n_called_locked, n_held > 0);
}

static void quiet_progress(void *ctx, size_t n, size_t of)
{
    (void)ctx, (void)n, (void)of;
    called();
}

static void quiet_filter(void *ctx, float *logits, size_t n)
{
    (void)ctx, (void)logits, (void)n;
    called();
}

static int quiet_piece(void *ctx, const ksllm_piece *piece)
{
    (void)ctx, (void)piece;
    called();
    return 0;
}

static void quiet_thread(void *ctx, uint32_t index)
{
    (void)ctx, (void)index;
    called();
}

static void quiet_work(ksllm_session *s, ksllm_session *other)
{
    ksllm_error e;
    ksllm_control c;
    ksllm_control_init(&c);
    c.on_progress = quiet_progress;
    c.max_tokens_per_second = 1000;
    c.budget_us = 100000000;
    ksllm_sampling p;
    ksllm_sampling_init(&p);
    p.filter = quiet_filter;
    ksllm_generation g;
    ksllm_generation_init(&g);
    g.text = "a b c";
    g.max_tokens = 8;
    g.sampling = &p;
    g.control = &c;
    g.on_piece = quiet_piece;
    int32_t ids[40];
    float logprobs[40];
    fx_prompt(ids, 40, 1);
    ksllm_result r = {.size = sizeof r};
    CHECK_OK(ksllm_session_sync(s, ids, 40, &c, &e), e);
    CHECK_OK(ksllm_generate(s, &g, &r, &e), e);
    CHECK_OK(ksllm_session_rewind(s, 10, &e), e);
    CHECK_OK(ksllm_session_append(s, ids, 5, &c, &e), e);
    CHECK_OK(ksllm_session_score(s, ids, 20, logprobs, &c, &e), e);
    CHECK_OK(ksllm_session_fork(s, other, &e), e);
    CHECK_OK(ksllm_session_append(other, ids, 5, &c, &e), e);
}

TEST(no_heap_and_no_lock_once_a_session_exists)
{
    fx_file f;
    ksllm_model *m = fx_open("llama", &f);
    static const ksllm_type kinds[] = {
        KSLLM_TYPE_F32, KSLLM_TYPE_F16, KSLLM_TYPE_Q8_0};
    for (size_t i = 0; i < 3; i++) {
        ksllm_session_options o = fx_small_options();
        o.n_threads = 3;
        o.kv_type = kinds[i];
        o.on_thread = quiet_thread;
        n_called = n_called_locked = 0;
        ksllm_session *s = fx_create(m, &o), *other = fx_create(m, &o);
        long before = n_heap;
        for (int turn = 0; turn < 8; turn++)
            quiet_work(s, other);
        CHECK_EQ(n_heap, before);
        CHECK(n_called > 8 * 10);
        CHECK_EQ(n_called_locked, 0);
        ksllm_session_free(s);
        ksllm_session_free(other);
        CHECK(n_heap > before);     /* it does count */
    }
    ksllm_model_close(m);
    free(f.data);
}

TEST_MAIN
