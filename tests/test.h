/* test.h - the test harness: named tests, checks that go on after a failure.
 *
 *     TEST(adds) { CHECK_EQ(1 + 1, 2); }
 *     TEST_MAIN
 *
 * A program takes the part of a name as its first argument and runs only the
 * tests that have it, and a seed as its second. The last line it prints is
 * "N passed, N failed" (tests); it returns 1 if one failed. TEST_TIMES=1 in the
 * environment prints the processor time of each test, and TEST_FULL=1 tries
 * more.
 */
#ifndef KSLLM_TEST_H
#define KSLLM_TEST_H

#if !defined _DEFAULT_SOURCE && !defined _GNU_SOURCE
#define _DEFAULT_SOURCE 1   /* alarm, mkstemp and fileno under -std=c11 */
#endif
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEST_MAX 200
/* After so many failed checks in one test the rest is only counted: a loop
 * over every bit of a file would bury the first message. */
#define TEST_SHOWN 10
/* A test program that hangs ends with SIGALRM. Generous: sanitizers under an
 * emulator are a hundred times slower than a plain build. */
#define TEST_SECONDS 1800

/* The share of random inputs that is tried: mutate.py, which runs slow builds of
 * the tests hundreds of times, asks for one of 32. */
#ifndef TEST_ONE_OF
#define TEST_ONE_OF 1
#endif

/* How many times the time of a plain build something may take. */
#if defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || \
    __has_feature(thread_sanitizer)
#define TEST_SLOWER 20
#endif
#endif
#if !defined TEST_SLOWER
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || \
    !defined __OPTIMIZE__
#define TEST_SLOWER 20
#else
#define TEST_SLOWER 1
#endif
#endif

/* How often something is tried: TEST_FULL=1 in the environment asks for the
 * long form, which `make test` has no time for. */
static inline int test_times(int quick, int full)
{
    return getenv("TEST_FULL") ? full : quick;
}

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

static test_case test_cases[TEST_MAX];
static int test_count;
static uint64_t test_seed = 1;
static atomic_int test_failures;        /* of the running test; any thread */

static inline void test_add(const char *name, void (*run)(void))
{
    if (test_count == TEST_MAX)
        abort();
    test_cases[test_count++] = (test_case){name, run};
}

/* Counts a failure and says whether it should be printed. */
static inline int test_failed(const char *file, int line)
{
    int n = atomic_fetch_add(&test_failures, 1);
    if (n < TEST_SHOWN)
        printf("%s:%d: ", file, line);
    return n < TEST_SHOWN;
}

static inline int test_check(int ok, const char *what,
                             const char *file, int line)
{
    if (!ok && test_failed(file, line))
        printf("%s is false\n", what);
    return ok;
}

static inline int test_eq(int64_t a, int64_t b, const char *what,
                          const char *file, int line)
{
    if (a != b && test_failed(file, line))
        printf("%s: %" PRId64 " and %" PRId64 "\n", what, a, b);
    return a == b;
}

static inline int test_hex(uint64_t a, uint64_t b, const char *what,
                           const char *file, int line)
{
    if (a != b && test_failed(file, line))
        printf("%s: 0x%016" PRIx64 " and 0x%016" PRIx64 "\n", what, a, b);
    return a == b;
}

static inline int test_str(const char *a, const char *b, const char *what,
                           const char *file, int line)
{
    int same = a && b && strcmp(a, b) == 0;
    if (!same && test_failed(file, line))
        printf("%s: \"%s\" and \"%s\"\n", what, a ? a : "(null)",
               b ? b : "(null)");
    return same;
}

static inline int test_ok(int64_t status, const char *text, const char *what,
                          const char *file, int line)
{
    if (status < 0 && test_failed(file, line))
        printf("%s: %" PRId64 " \"%s\"\n", what, status, text);
    return status >= 0;
}

/* All of them are expressions and tell whether the check held. */
#define CHECK(x) test_check(!!(x), #x, __FILE__, __LINE__)
#define CHECK_EQ(a, b) \
    test_eq((int64_t)(a), (int64_t)(b), #a " == " #b, __FILE__, __LINE__)
#define CHECK_HEX(a, b) test_hex(a, b, #a " == " #b, __FILE__, __LINE__)
#define CHECK_STR(a, b) test_str(a, b, #a " == " #b, __FILE__, __LINE__)
/* A status or a count; `err` is the ksllm_error it filled. */
#define CHECK_OK(x, err) \
    test_ok((int64_t)(x), (err).text, #x, __FILE__, __LINE__)

#define TEST(name)                                                      \
    static void test_##name(void);                                      \
    __attribute__((constructor)) static void test_add_##name(void)      \
    {                                                                   \
        test_add(#name, test_##name);                                   \
    }                                                                   \
    static void test_##name(void)

static inline int test_main(int argc, char **argv)
{
    const char *filter = argc > 1 ? argv[1] : "";
    int passed = 0, failed = 0;
    if (argc > 2)
        test_seed = strtoull(argv[2], NULL, 0);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
#if !defined _WIN32 && !defined __wasi__
    alarm(TEST_SECONDS);
#endif
    for (int i = 0; i < test_count; i++) {
        if (!strstr(test_cases[i].name, filter))
            continue;
        atomic_store(&test_failures, 0);
        clock_t begun = clock();
        test_cases[i].run();
        if (getenv("TEST_TIMES"))
            printf("%8.2f s %s\n", (double)(clock() - begun) / CLOCKS_PER_SEC,
                   test_cases[i].name);
        int n = atomic_load(&test_failures);
        if (n)
            printf("FAILED %s: %d checks\n", test_cases[i].name, n);
        passed += n == 0;
        failed += n != 0;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#define TEST_MAIN                                                       \
    int main(int argc, char **argv)                                     \
    {                                                                   \
        return test_main(argc, argv);                                   \
    }

#endif
