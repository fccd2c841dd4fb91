/* windows.c MODEL OFFSET PADDED - on Windows or wine: a model by a UTF-8 path with Hangul and
 * an emoji, by descriptor within a file, read into memory; what it says; what
 * is said of a file that is not there. users.sh copies the model. Ends with
 * "N passed, N failed".
 */
#include "../../ksllm.h"

#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

static const char hello[] = "안녕하세요, 반가워요 ";
static int passed, failed;
static LONG n_named;

static void check(const char *what, bool holds)
{
    passed += holds;
    failed += !holds;
    if (!holds)
        printf("failed: %s\n", what);
}

static int collect(void *ctx, const ksllm_piece *piece)
{
    char *said = ctx;
    if (strlen(said) + piece->text.size < 1000)
        strncat(said, piece->text.data, piece->text.size);
    return 0;
}

static void on_thread(void *ctx, uint32_t index)
{
    (void)ctx;
    check("a worker's number", index >= 1 && index <= 3);
    InterlockedIncrement(&n_named);
}

static void says(const char *what, ksllm_model *m)
{
    ksllm_session_options o;
    ksllm_session *s = NULL;
    ksllm_generation g;
    ksllm_result r = {.size = sizeof r};
    ksllm_error e = {.text = ""};
    char said[1024] = "";
    ksllm_session_options_init(&o);
    o.n_threads = 4;
    o.on_thread = on_thread;
    n_named = 0;
    ksllm_generation_init(&g);
    g.text = "x";
    g.on_piece = collect;
    g.piece_ctx = said;
    check(what, ksllm_model_preload(m, NULL, &e) == KSLLM_OK &&
          ksllm_session_create(m, &o, &s, &e) == KSLLM_OK &&
          ksllm_generate(s, &g, &r, &e) == KSLLM_OK &&
          strncmp(said, hello, strlen(hello)) == 0 && r.total_ns > 1000);
    ksllm_session_free(s);
    check("every worker was named", n_named == 3);
    ksllm_model_close(m);
}

static void refused(const char *path, const char *shown, const char *why)
{
    ksllm_model *m = NULL;
    ksllm_error e = {.text = ""};
    check(path, ksllm_model_open(path, NULL, &m, &e) == KSLLM_ERR_IO && !m &&
          strstr(e.text, shown) && strstr(e.text, why));
}

int main(int argc, char **argv)
{
    static const wchar_t name[] = L"\xd30c\xc77c\xd83d\xde42.gguf";
    static const char path[] = "파일🙂.gguf";
    ksllm_model_options o;
    ksllm_model *m = NULL;
    ksllm_error e = {.text = ""};
    if (argc < 4 || !CopyFileA(argv[1], "copy.gguf", FALSE) ||
        !MoveFileExW(L"copy.gguf", name, MOVEFILE_REPLACE_EXISTING))
        return printf("usage: windows MODEL OFFSET PADDED\n"), 2;
    check("by path", ksllm_model_open(path, NULL, &m, &e) == KSLLM_OK);
    /* As long as it is mapped, nobody can write to it. */
    HANDLE h = CreateFileW(name, GENERIC_WRITE,
                           FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
                           OPEN_EXISTING, 0, NULL);
    check("it cannot be cut short", h == INVALID_HANDLE_VALUE ||
          !SetEndOfFile(h));
    if (h != INVALID_HANDLE_VALUE)
        CloseHandle(h);
    says("a model by path", m);
    ksllm_model_options_init(&o);
    o.in_memory = true;
    check("in memory", ksllm_model_open(path, &o, &m, &e) == KSLLM_OK);
    says("a model in memory", m);
    long long offset = _atoi64(argv[2]);
    int fd = _open(argv[3], _O_RDONLY | _O_BINARY);
    long long length = _filelengthi64(fd) - offset - 4096;
    check("by descriptor", ksllm_model_open_fd(
              fd, (uint64_t)offset, (uint64_t)length, NULL, &m, &e) ==
              KSLLM_OK);
    _close(fd);
    says("a model by descriptor", m);
    check("descriptor -1", ksllm_model_open_fd(-1, 0, 0, NULL, &m, &e) ==
          KSLLM_ERR_ARGUMENT);
    refused("없는 파일🙂.gguf", "없는 파일🙂", "there is no such file");
    refused("\xff\xfe.gguf", ".gguf", "there is no such file");
    refused(".", ".", "permission denied");
    _wunlink(name);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
