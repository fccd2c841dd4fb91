/* test_invariants.c - promises of the design that no single section keeps: an
 * open model is never written (I4), a call that was stopped changes nothing
 * (I8), and no call takes more stack than a small thread has.
 *
 * KSLLM_CANCELS=100000 stops as many calls; 300 without it.
 */
#define _GNU_SOURCE 1
#include "test.h"
#include "fixture.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

/* What a host does with a model, from tokens to a turn of a chat. */
static void use(const ksllm_model *m, const ksllm_session_options *o)
{
    ksllm_error e;
    ksllm_session *s = fx_create(m, o), *other = fx_create(m, o);
    int32_t ids[100];
    float logprobs[40];
    char text[600];
    memset(text, 'a', sizeof text);
    CHECK_OK(ksllm_encode(m, text, sizeof text, 0, ids, 100, &e), e);
    fx_prompt(ids, 40, 1);
    CHECK_OK(ksllm_decode(m, ids, 40, 0, text, sizeof text, &e), e);
    CHECK_OK(ksllm_session_sync(s, ids, 40, NULL, &e), e);
    CHECK_OK(ksllm_session_fork(s, other, &e), e);
    CHECK_OK(ksllm_session_rewind(s, 10, &e), e);
    CHECK_OK(ksllm_session_score(s, ids, 20, logprobs, NULL, &e), e);
    ksllm_chat chat;
    fx_chat(&chat);
    ksllm_sampling p;
    ksllm_sampling_init(&p);
    ksllm_generation g;
    ksllm_generation_init(&g);
    g.max_tokens = 4;
    g.sampling = &p;
    ksllm_result r = {.size = sizeof r};
    CHECK_OK(ksllm_chat_generate(s, &chat, &g, fx_drop_part, NULL, &r, &e), e);
    ksllm_member both[2] = {{.session = s, .generation = &g},
        {.session = other, .generation = &g}};
    CHECK_OK(ksllm_sessions_generate(both, 2, &e), e);
    for (int i = 0; i < 2; i++)
        both[i].tokens = ids, both[i].n_tokens = 20;
    CHECK_OK(ksllm_sessions_append(both, 2, &e), e);
    ksllm_session_free(s);
    ksllm_session_free(other);
}

/* ---- I4: an open model is never written ---- */

enum { ARENA = 1 << 24 };

typedef struct {
    uint8_t *p;
    size_t n;
    bool frozen;
} arena;

/* Until it is frozen from the arena, after that from the heap. */
static void *arena_resize(void *ctx, void *p, size_t old_size, size_t new_size)
{
    arena *a = ctx;
    bool inside = p && (uint8_t *)p >= a->p && (uint8_t *)p < a->p + ARENA;
    if (a->frozen && !inside) {
        if (new_size)
            return realloc(p, new_size);
        free(p);
        return NULL;
    }
    if (!new_size)
        return NULL;
    if (a->frozen || a->n + new_size > ARENA)
        return NULL;
    uint8_t *fresh = a->p + a->n;
    a->n += (new_size + 63) / 64 * 64;
    if (p)
        memcpy(fresh, p, old_size < new_size ? old_size : new_size);
    return fresh;
}

static void *pages(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

TEST(an_open_model_is_never_written)
{
    static const char *const names[] = {"llama", "gemma3", "mixed",
        "lfm2moe", "gemma4"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fx_file f = fx_model(fx_spec_of(names[i]));
        arena a = {.p = pages(ARENA)};
        uint8_t *data = pages(f.size);
        memcpy(data, f.data, f.size);
        ksllm_allocator allocator = {arena_resize, &a};
        ksllm_model_options mo;
        ksllm_model_options_init(&mo);
        mo.allocator = &allocator;
        ksllm_model *m;
        ksllm_error e;
        fx_must(ksllm_model_open_memory(data, f.size, &mo, &m, &e), &e);
        a.frozen = true;
        if (mprotect(a.p, ARENA, PROT_READ) || mprotect(data, f.size, PROT_READ))
            exit(1);
        ksllm_session_options o = fx_small_options();
        ksllm_allocator libc = {arena_resize, &(arena){.frozen = true}};
        o.allocator = &libc;
        o.n_ctx = 128;
        o.n_threads = 3;
        use(m, &o);             /* a write ends in SIGSEGV */
        if (mprotect(a.p, ARENA, PROT_READ | PROT_WRITE))
            exit(1);
        ksllm_model_close(m);
        munmap(a.p, ARENA);
        munmap(data, f.size);
        free(f.data);
    }
}

/* ---- stack ---- */

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || \
    defined TEST_WIDE_FRAMES
#define STACK_IS_PLAIN 0    /* sanitizers widen every frame, so does -O0 */
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || \
    __has_feature(thread_sanitizer)
#define STACK_IS_PLAIN 0
#endif
#endif
#ifndef STACK_IS_PLAIN
#define STACK_IS_PLAIN 1
#endif

enum { STACK = 1 << 19 };

/* A thread whose stack is ours, so that it shows what was written over. */
typedef struct {
    uint8_t *stack;
    pthread_t thread;
} painted;

static void paint(painted *p, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    p->stack = pages(STACK);
    memset(p->stack, 0xa5, STACK);
    pthread_attr_init(&attr);
    if (pthread_attr_setstack(&attr, p->stack, STACK) ||
        pthread_create(&p->thread, &attr, run, arg))
        exit(1);
    pthread_attr_destroy(&attr);
}

/* Bytes that it used. */
static size_t unpaint(painted *p)
{
    size_t i = 0;
    pthread_join(p->thread, NULL);
    while (i < STACK && p->stack[i] == 0xa5)
        i++;
    munmap(p->stack, STACK);
    return STACK - i;
}

/* A lent pool that runs every piece on a fresh painted thread. */
typedef struct {
    ksllm_task task;
    void *arg;
    uint32_t index;
} piece;

static size_t worker_stack;

static void *run_piece(void *arg)
{
    piece *p = arg;
    p->task(p->arg, p->index);
    return NULL;
}

static void lent(void *ctx, uint32_t n, ksllm_task task, void *arg)
{
    (void)ctx;
    for (uint32_t i = 0; i < n; i++) {
        piece p = {task, arg, i};
        painted t;
        if (i % 7) {            /* a thread for each piece takes long */
            task(arg, i);
            continue;
        }
        paint(&t, run_piece, &p);
        size_t took = unpaint(&t);
        if (took > worker_stack)
            worker_stack = took;
    }
}

typedef struct {
    const char *name;
    bool lend;
} user;

static void *open_and_use(void *arg)
{
    const user *u = arg;
    fx_file f;
    ksllm_model *m = fx_open(u->name, &f);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = 128;
    o.n_threads = 2;
    if (u->lend)
        o.parallel_for = lent;
    else
        o.n_threads = 1;
    use(m, &o);
    ksllm_model_close(m);
    free(f.data);
    return NULL;
}

static void *nothing(void *arg)
{
    return arg;
}

/* The C library's own part of a thread's stack does not count. */
TEST(no_call_takes_more_stack_than_32_kib)
{
    static const char *const names[] = {"llama", "gemma3", "mixed",
        "lfm2moe", "gemma4"};
    painted t;
    size_t most = 0;
    paint(&t, nothing, NULL);
    size_t none = unpaint(&t);
    for (size_t i = 0; i < 2 * sizeof names / sizeof *names; i++) {
        user u = {names[i / 2], i % 2};
        paint(&t, open_and_use, &u);
        size_t took = unpaint(&t) - none;
        if (took > most)
            most = took;
    }
    printf("    %zu bytes of stack for the caller, %zu for a worker\n", most,
           worker_stack - none);
    if (STACK_IS_PLAIN) {
        CHECK(most < 32 << 10);
        CHECK(worker_stack - none < 32 << 10);
    }
}

/* ---- I8: a call that was stopped changes nothing ---- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Rings at a time that the other thread sets, once for each. */
typedef struct {
    ksllm_cancel *cancel;
    _Atomic uint64_t at;        /* 0: no order; 1: end */
    _Atomic uint64_t rang;
} bell;

static void *ring(void *arg)
{
    bell *b = arg;
    uint64_t at;
    while ((at = atomic_load(&b->at)) != 1) {
        if (!at || now_ns() < at) {
            if (!at)
                sched_yield();
            continue;
        }
        atomic_store(&b->rang, now_ns());
        ksllm_cancel_set(b->cancel);
        atomic_compare_exchange_strong(&b->at, &at, 0);
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

enum { PROMPT = 30 };

typedef struct {
    ksllm_model *m;
    ksllm_session *s;
    int32_t ids[PROMPT];
    ksllm_cancel cancel;
    bell b;
    uint64_t usual;             /* nanoseconds of an undisturbed run */
    uint64_t hash, state;
    uint64_t *late;
    size_t n_late;
} trial;

/* One call that is stopped at a random moment, by a cancel or by its budget,
 * and the call that goes on after it. */
static bool stop_once(trial *x, bool by_cancel)
{
    ksllm_control c;
    ksllm_error e;
    ksllm_control_init(&c);
    uint64_t after = 1000 + fx_next(&x->state) % x->usual;
    uint64_t begin = now_ns(), due = begin + after;
    if (by_cancel) {
        c.cancel = &x->cancel;
        ksllm_cancel_clear(&x->cancel);
        atomic_store(&x->b.at, due);
    } else {
        c.budget_us = after / 1000;
        due = begin + c.budget_us * 1000;
    }
    ksllm_session_rewind(x->s, fx_below(&x->state, 8), NULL);
    ksllm_status status = ksllm_session_sync(x->s, x->ids, PROMPT, &c, &e);
    uint64_t end = now_ns();
    while (by_cancel && atomic_load(&x->b.at))
        sched_yield();
    if (by_cancel)
        due = atomic_load(&x->b.rang);
    if (status == (by_cancel ? KSLLM_ERR_CANCELLED : KSLLM_ERR_DEADLINE))
        x->late[x->n_late++] = end > due ? end - due : 0;
    else if (!CHECK_OK(status, e))
        return false;
    return CHECK_OK(ksllm_session_sync(x->s, x->ids, PROMPT, NULL, &e), e) &&
        CHECK_HEX(fx_logits_hash(x->m, x->s), x->hash);
}

TEST(random_cancels_and_deadlines_change_nothing)
{
    const char *wanted = getenv("KSLLM_CANCELS");
    size_t n = wanted ? strtoul(wanted, NULL, 10) : 300;
    static trial x;
    fx_file f;
    ksllm_error e;
    x.m = fx_open("type_Q4_0", &f);
    x.state = test_seed;
    x.late = fx_memory(NULL, (n + 1) * sizeof *x.late);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = 128;
    o.n_threads = 2;
    x.s = fx_create(x.m, &o);
    fx_prompt(x.ids, PROMPT, 3);
    x.usual = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        uint64_t begin = now_ns();
        ksllm_session_rewind(x.s, 0, NULL);
        fx_must(ksllm_session_sync(x.s, x.ids, PROMPT, NULL, &e), &e);
        uint64_t took = now_ns() - begin;
        if (took < x.usual)
            x.usual = took;
    }
    x.hash = fx_logits_hash(x.m, x.s);
    x.b.cancel = &x.cancel;
    pthread_t thread;
    if (pthread_create(&thread, NULL, ring, &x.b))
        exit(1);
    for (size_t i = 0; i < n && stop_once(&x, i % 2 == 0); i++)
        continue;
    atomic_store(&x.b.at, 1);
    pthread_join(thread, NULL);
    qsort(x.late, x.n_late, sizeof *x.late, by_value);
    CHECK(x.n_late > n / 10);
    if (x.n_late)
        printf("    %zu of %zu calls of %.2f ms stopped; late by %.3f ms "
               "(median), %.3f (99 %%), %.3f (most)\n", x.n_late, n,
               (double)x.usual * 1e-6, (double)x.late[x.n_late / 2] * 1e-6,
               (double)x.late[x.n_late * 99 / 100] * 1e-6,
               (double)x.late[x.n_late - 1] * 1e-6);
    free(x.late);
    ksllm_session_free(x.s);
    ksllm_model_close(x.m);
    free(f.data);
}

TEST_MAIN
