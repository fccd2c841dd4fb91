/* ksllm-quant - from a published model to a small GGUF, without Python.
 *
 * SPDX-License-Identifier: MIT
 *
 *     cc -O2 -o ksllm-quant quant/ksllm-quant.c -lm -pthread
 *
 * One program, one translation unit. It includes the whole library, so that it
 * reads GGUF, tokenizes, runs models and knows the block formats with the
 * library's own code. Its parts follow; none compiles by itself, and each uses
 * only those before it:
 *
 *     base.c         the system, messages, memory, output files, workers,
 *                    options, JSON
 *     encode.c       floats to blocks: the scale search
 *     gguf_write.c   GGUF out, tensors streamed
 *     stats.c        activation statistics, as a file
 *     refine.c       error compensation across columns
 *     quantize.c     which tensor becomes what; GGUF to GGUF
 *     safetensors.c  tensors of a Hugging Face folder, checked
 *     tokenizer.c    tokenizer.json and tokenizer.model to GGUF metadata
 *     convert.c      a Hugging Face folder to GGUF
 *     tower.c        what it sees with
 *     adapter.c      an adapter of PEFT to GGUF
 *     compare.c      two models on one text
 *     calibrate.c    a text through a model, statistics out
 *     inspect.c      what a file holds
 *     prefix.c       the state after a system prompt
 */

#include <stddef.h>

/* Called before each product of the forward pass, on the session's thread. */
static void cal_observe(
    const void *w, const float *x, size_t n_in, size_t m);
#define KSLLM_OBSERVE(w, x, n_in, m) cal_observe(w, x, n_in, m)

#include "../ksllm.c"

/* Fitting scales needs vectorized loops. For the library above, -O2 is enough
 * and compiles in half the time. */
#if !defined __clang__
#pragma GCC optimize("O3")
#endif

#include "base.c"
#include "encode.c"
#include "gguf_write.c"
#include "stats.c"
#include "refine.c"
#include "quantize.c"
#include "safetensors.c"
#include "tokenizer.c"
#include "convert.c"
#include "tower.c"
#include "adapter.c"
#include "compare.c"
#include "calibrate.c"
#include "inspect.c"
#include "prefix.c"

static const char USAGE[] =
    "ksllm-quant COMMAND ...\n"
    "  convert DIR -o OUT.gguf [-t TYPE]   Hugging Face folder to GGUF\n"
    "  quantize IN.gguf -o OUT.gguf -t TYPE\n"
    "  calibrate MODEL.gguf TEXT... -o STATS\n"
    "  compare REF.gguf TEST.gguf TEXT     perplexity, KL divergence\n"
    "  inspect FILE.gguf                   metadata, tensors, memory\n"
    "  prefix MODEL.gguf PROMPT.json -o OUT.kv   a prompt evaluated beforehand\n"
    "ksllm-quant COMMAND --help tells the options of a command.\n";

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        {"convert", cv_main}, {"quantize", qz_main},
        {"calibrate", cal_main}, {"compare", cmp_main},
        {"inspect", ins_main}, {"prefix", pf_main},
    };
    argv = sys_arguments(&argc, argv);
    if (!argv) die("out of memory");
    for (size_t i = 0; argc > 1 && i < KS_LEN(commands); i++)
        if (!strcmp(argv[1], commands[i].name)) {
            out_catch_signals();
            int status = commands[i].run(argc - 1, argv + 1);
            if (fflush(stdout) != 0 || ferror(stdout))
                die("the output could not be written: %s", strerror(errno));
            return status;
        }
    bool help = argc > 1 && (!strcmp(argv[1], "--help")
        || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"));
    fputs(USAGE, help ? stdout : stderr);
    return help ? 0 : 2;
}
