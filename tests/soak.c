/* soak.c - hours of use in some minutes: turns of a chat, forks, cancels,
 * sliding contexts, models and sessions opened and closed, in turns and with
 * threads. At the end the process holds as many pages as after its first rounds
 * and says what it said at the beginning.
 *
 *     build/tests/soak SECONDS [MODEL.gguf...]
 *
 * `make soak` runs it on a tiny model and on a real one for 20 minutes.
 */
#define _GNU_SOURCE 1
#include "test.h"
#include "fixture.h"

#include <pthread.h>
#include <time.h>

typedef struct {
    const char *path;           /* NULL: a fixture in memory */
    fx_file file;
    uint64_t hash;              /* of one round, from the first on */
    size_t n_rounds;
} user;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Pages that this process holds and that belong to no file. */
static long private_pages(void)
{
    long all = 0, shared = 0, total;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld %ld", &total, &all, &shared) != 3)
        exit(2);
    fclose(f);
    return all - shared;
}

static const char chat_template[] =
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "<|assistant|>";

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    uint64_t *hash = ctx;
    *hash = fx_hash(*hash, &part, sizeof part);
    *hash = fx_hash(*hash, text.data, text.size);
    return 0;
}

static void *cancel_soon(void *arg)
{
    nanosleep(&(struct timespec){0, 3000000}, NULL);
    ksllm_cancel_set(arg);
    return NULL;
}

/* A chat of three turns in a context that slides, one of them cancelled and
 * said again, one in a fork. */
static uint64_t round_of_use(user *u)
{
    ksllm_model *m;
    ksllm_error e;
    uint64_t hash = FX_HASH;
    fx_must(u->path ? ksllm_model_open(u->path, NULL, &m, &e)
            : ksllm_model_open_memory(u->file.data, u->file.size, NULL, &m, &e),
            &e);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = 192;
    o.n_threads = 2;
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    o.n_keep = 4;
    ksllm_session *s = fx_create(m, &o), *other = fx_create(m, &o);
    static const char *const talks[] = {
        "[{\"role\": \"user\", \"content\": \"안녕하세요?\"}]",
        "[{\"role\": \"user\", \"content\": \"Tell me about Seoul.\"}, "
        "{\"role\": \"assistant\", \"content\": \"It is a city.\"}, "
        "{\"role\": \"user\", \"content\": \"오늘 날씨는 어떤가요?\"}]",
    };
    for (size_t turn = 0; turn < 4; turn++) {
        ksllm_chat chat;
        ksllm_sampling p;
        ksllm_generation g;
        ksllm_control c;
        ksllm_cancel cancel = {0};
        ksllm_chat_init(&chat);
        ksllm_sampling_init(&p);
        ksllm_generation_init(&g);
        ksllm_control_init(&c);
        chat.messages.data = talks[turn / 2];
        chat.template_text.data = chat_template;
        g.max_tokens = 24;
        g.sampling = &p;
        p.seed = 7 + turn / 2;
        ksllm_result r = {.size = sizeof r};
        if (turn % 2 == 0) {            /* said again at once */
            uint64_t ignored = 0;
            pthread_t thread;
            c.cancel = &cancel;
            g.control = &c;
            if (pthread_create(&thread, NULL, cancel_soon, &cancel))
                exit(2);
            ksllm_chat_generate(s, &chat, &g, on_part, &ignored, &r, &e);
            pthread_join(thread, NULL);
            continue;
        }
        fx_must(ksllm_chat_generate(s, &chat, &g, on_part, &hash, &r, &e), &e);
        fx_must(ksllm_session_fork(s, other, &e), &e);
        g.text = " and so on";
        g.append = true;
        fx_must(ksllm_generate(other, &g, &r, &e), &e);
        hash = fx_hash(hash, &r.n_generated, sizeof r.n_generated);
    }
    int32_t ids[400];
    fx_prompt(ids, 400, 5);             /* longer than the context: slides */
    fx_must(ksllm_session_sync(s, ids, 400, NULL, &e), &e);
    hash ^= fx_logits_hash(m, s) + fx_logits_hash(m, other);
    ksllm_session_free(s);
    ksllm_session_free(other);
    ksllm_model_close(m);
    return hash;
}

static bool soak_round(user *u)
{
    uint64_t hash = round_of_use(u);
    if (u->n_rounds++ == 0)
        u->hash = hash;
    return CHECK_HEX(hash, u->hash);
}

int main(int argc, char **argv)
{
    enum { MAX = 8 };
    user users[MAX] = {{.file = fx_model(fx_spec_of("llama"))}};
    size_t n_users = 1;
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0, said = 0;
    if (seconds <= 0) {
        fprintf(stderr, "usage: soak SECONDS [MODEL.gguf...]\n");
        return 2;
    }
    for (int i = 2; i < argc && n_users < MAX; i++)
        users[n_users++].path = argv[i];
    long warm = 0;                      /* pages after a tenth of the time */
    double begin = now_ms();
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (size_t round = 0; round < 6 || now_ms() - begin < seconds * 1e3;
         round++) {
        for (size_t i = 0; i < n_users; i++)
            if (!soak_round(&users[i]))
                return 1;
        double ms = now_ms() - begin;
        if (!warm && ms > seconds * 100 && round > 2)
            warm = private_pages();
        if (ms > said) {
            printf("%6.0f s: %zu rounds, %ld private pages\n", ms * 1e-3,
                   round + 1, private_pages());
            said += seconds * 50;
        }
    }
    long pages = private_pages();
    printf("%zu rounds of %zu models; private pages after a tenth of them: "
           "%ld, at the end: %ld\n", users[0].n_rounds, n_users, warm, pages);
    bool good = warm && pages <= warm;
    printf("%s\n", good ? "1 passed, 0 failed" : "0 passed, 1 failed");
    free(users[0].file.data);
    return !good;
}
