/* resume.c - a text that goes on where it stopped when the power went.
 *
 *     cc -O2 examples/resume.c ksllm.c -lm -pthread -o resume
 *     ./resume model.gguf talk.kv "옛날 옛적에"    begins, saves, ends
 *     ./resume model.gguf talk.kv                  goes on, at once
 *
 * Shows: a session that is saved and loaded; a new file that appears whole or
 * not at all (a temporary name, fsync, rename); an append that a power cut
 * cannot spoil, for the next start cuts off what is torn; SIGTERM, which ends
 * the answer, and then what was said is saved.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"
#include "system.h"

#include <stdio.h>
#include <string.h>

static ksllm_cancel cancel;

static void on_signal(int number)
{
    (void)number;
    ksllm_cancel_set(&cancel);
}

static int print_piece(void *ctx, const ksllm_piece *piece)
{
    (void)ctx;
    fwrite(piece->text.data, 1, piece->text.size, stdout);
    return fflush(stdout);
}

static int write_file(void *ctx, const void *data, size_t size)
{
    return fwrite(data, 1, size, ctx) != size;
}

static int read_file(void *ctx, void *data, size_t size)
{
    return fread(data, 1, size, ctx) != size;
}

/* After what the file holds, or as a new file where that does not fit. */
static int save(const ksllm_session *s, const char *path, ksllm_saved *saved)
{
    ksllm_error err = {.text = "the file cannot be written"};
    ksllm_status status = KSLLM_ERR_STATE;
    FILE *f = saved->n_bytes ? fopen(path, "r+b") : NULL;
    if (f && ftruncate(fileno(f), (off_t)saved->n_bytes) == 0 &&
        fseek(f, 0, SEEK_END) == 0)
        status = ksllm_session_save(s, 0, write_file, f, NULL, saved, &err);
    if (f && !close_synced(f) | (status != KSLLM_OK))
        status = KSLLM_ERR_STATE;
    if (f && status == KSLLM_OK)
        return 0;

    char temp[4096];
    memset(saved, 0, sizeof *saved);
    if (snprintf(temp, sizeof temp, "%s.tmp", path) >= (int)sizeof temp)
        return -1;
    f = fopen(temp, "wb");
    if (f)
        status = ksllm_session_save(s, 0, write_file, f, NULL, saved, &err);
    if (f && close_synced(f) && status == KSLLM_OK && replace_file(temp, path))
        return 0;
    fprintf(stderr, "%s: %s\n", path, err.text);
    return -1;
}

/* All that the file holds. One of another model is not ours to write over, and
 * a larger one needs a larger session; a damaged one begins again. */
static ksllm_status load(ksllm_session *s, const char *path,
                         ksllm_saved *saved, ksllm_error *err)
{
    ksllm_status status = KSLLM_OK;
    FILE *f = fopen(path, "rb");
    if (f)
        status = ksllm_session_load(s, NULL, 0, read_file, f, NULL, saved,
                                    err);
    if (f)
        fclose(f);
    return status == KSLLM_ERR_UNSUPPORTED || status == KSLLM_ERR_CONTEXT
               ? status : KSLLM_OK;
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_saved saved = {0, 0, 0};      /* there is no file yet */
    ksllm_generation want;
    ksllm_control control;
    ksllm_error err;
    size_t n = 0;
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: resume MODEL.gguf STATE [TEXT]\n");
        return 2;
    }
    catch_signal(SIGTERM, on_signal);
    catch_signal(SIGINT, on_signal);

    ksllm_status status = ksllm_model_open(argv[1], NULL, &model, &err);
    if (status == KSLLM_OK)
        status = ksllm_session_create(model, NULL, &session, &err);
    if (status == KSLLM_OK)
        status = load(session, argv[2], &saved, &err);
    if (status == KSLLM_OK) {
        ksllm_session_tokens(session, &n);
        fprintf(stderr, "[%zu tokens were there]\n", n);
        ksllm_control_init(&control);
        control.cancel = &cancel;
        ksllm_generation_init(&want);
        want.text = argc == 4 ? argv[3] : n ? NULL : "\n";
        want.append = true;
        want.max_tokens = 60;
        want.on_piece = print_piece;
        want.control = &control;
        status = ksllm_generate(session, &want, NULL, &err);
        putchar('\n');
    }
    bool ok = status == KSLLM_OK || status == KSLLM_ERR_CANCELLED;
    if (!ok)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(status), err.text);
    if (ok && save(session, argv[2], &saved) != 0)
        ok = false;
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
