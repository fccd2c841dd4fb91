/* hello.c - the shortest whole program: a prompt in, its continuation out.
 *
 *     cc -O2 examples/hello.c ksllm.c -lm -pthread -o hello
 *     ./hello                                  the demo model, in a checkout
 *     ./hello model.gguf "대한민국의 수도는"
 */
#include "../ksllm.h"

#include <stdio.h>

#define DEMO "examples/demo-model/ksllm-demo.gguf"

static int print_piece(void *ctx, const ksllm_piece *piece)
{
    fwrite(piece->text.data, 1, piece->text.size, ctx);
    return fflush(ctx);     /* anything but 0 ends the generation */
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_generation want;
    ksllm_error err;

    if (argc != 1 && argc != 3) {
        fprintf(stderr, "usage: hello [MODEL.gguf PROMPT]\n");
        return 2;
    }
    ksllm_generation_init(&want);
    want.text = argc == 3 ? argv[2] : "네, 거실 불을";
    want.max_tokens = 200;
    want.on_piece = print_piece;
    want.piece_ctx = stdout;

    const char *path = argc == 3 ? argv[1] : DEMO;
    bool ok = ksllm_model_open(path, NULL, &model, &err) == KSLLM_OK &&
              ksllm_session_create(model, NULL, &session, &err) == KSLLM_OK &&
              ksllm_generate(session, &want, NULL, &err) == KSLLM_OK;
    if (ok)
        putchar('\n');
    else
        fprintf(stderr, "%s: %s\n", ksllm_status_name(err.status), err.text);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
