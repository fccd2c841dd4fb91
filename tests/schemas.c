/* schemas.c - compiles schemas and judges texts, for check_schemas.py.
 *
 *     schemas < records > answers
 *
 * A record: u32 flags (1 ordered, 2 lenient), u32 max_space, the schema as u32
 * length and bytes, u32 count and as many texts. Its answer is a line: status,
 * offset, microseconds, instructions, ignored keywords, a character for each
 * text (1 taken, 0 not), and the message. Numbers are of this machine's byte
 * order.
 */
#define _POSIX_C_SOURCE 200809L
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "naive.h"

#include <time.h>

static bool get(void *p, size_t n)
{
    return fread(p, 1, n, stdin) == n;
}

static str get_text(void)
{
    u32 n = 0;
    if (!get(&n, sizeof n))
        exit(1);
    char *p = nv_room(NULL, n);
    if (!get(p, n))
        exit(1);
    return (str){p, n};
}

/* Of this process alone: the machine may be busy. */
static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int main(void)
{
    u32 flags, max_space, n;
    while (get(&flags, sizeof flags) && get(&max_space, sizeof max_space)) {
        str schema = get_text();
        u32 ignored = 0;
        u64 first = 0;
        sch_options o = {.ordered = flags & 1, .lenient = flags & 2,
            .max_space = max_space, .n_ignored = &ignored,
            .first_ignored = &first};
        ksllm_error err = {0};
        pro_build b = {.alloc = &MEM_LIBC, .err = &err, .max_ops = 1 << 16};
        double t = now_us();
        u32 accept = pro_emit(&b, PRO_ACCEPT, 0, 0, 0, 0);
        b.p.start = sch_emit(&b, schema, 0, &o, accept);
        t = now_us() - t;
        if (!b.status)
            err.text[0] = 0;
        printf("%d %llu %.1f %u %u ", (int)b.status,
            LLU(b.status ? err.offset : 0), t, (unsigned)b.p.n_ops,
            (unsigned)ignored);
        if (!get(&n, sizeof n))
            return 1;
        for (u32 i = 0; i < n; i++) {
            str text = get_text();
            if (b.status)
                putchar('-');
            else
                putchar(nv_takes(&b.p, text.p, text.n) ? '1' : '0');
            free((void *)text.p);
        }
        printf(" %s\n", err.text);
        fflush(stdout);
        free((void *)schema.p);
        pro_free(&b);
    }
    return 0;
}
