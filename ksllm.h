/* ksllm.h - Korean language models on the device: the interface and its manual.
 *
 * SPDX-License-Identifier: MIT
 *
 * Add two files to a program, ksllm.h and ksllm.c, and compile:
 *
 *     cc -O2 app.c ksllm.c -lm -pthread
 *
 * Needs C11 (gcc or clang), libc and libm. The header is also C++. For Python,
 * Java or Swift, make it a shared library; what is inline here calls the
 * function of the same name with _sized and the struct's size:
 *
 *     cc -O2 -shared -fPIC -o libksllm.so ksllm.c -lm -pthread
 *
 * Three objects:
 *
 *     ksllm_model     an open GGUF file: weights (mapped, never copied),
 *                     vocabulary, hyperparameters. Immutable: any number of
 *                     threads and sessions may use it at once. Outlives its
 *                     sessions.
 *     ksllm_session   one timeline of tokens on a model, with its KV cache
 *                     and scratch memory in one block. One thread at a time.
 *     ksllm_decoder   turns tokens into text as they come; lives in the
 *                     caller's memory, holds no resource.
 *
 * Six lines are a program (examples/hello.c is this with its checks):
 *
 *     ksllm_model *m;  ksllm_session *s;  ksllm_error e;
 *     ksllm_model_open("model.gguf", NULL, &m, &e);
 *     ksllm_session_create(m, NULL, &s, &e);
 *     ksllm_generation g;  ksllm_generation_init(&g);
 *     g.text = "안녕하세요";  g.on_piece = print_piece;
 *     ksllm_generate(s, &g, NULL, &e);
 *
 * Rules that hold everywhere, so that single functions need not repeat them:
 *
 *   Errors     A fallible function returns a ksllm_status (or a count): 0 or
 *              more on success, negative on failure. If `err` is not NULL it
 *              is filled on failure and unchanged on success. No function
 *              aborts, exits, prints, raises a signal or throws.
 *   Ownership  What a function returns by const pointer belongs to the object
 *              it came from; each function says how long it stays valid.
 *              Everything passed in is copied or used only during the call,
 *              unless its function says otherwise.
 *   Memory     A session takes all its memory when it is created
 *              (ksllm_session_memory tells how much, to the byte); after
 *              that no call on the session allocates. One exception says so:
 *              ksllm_chat_generate renders the messages first.
 *   Threads    Functions taking a const ksllm_model may be called from any
 *              number of threads. A session runs one call at a time: a second
 *              one, from another thread or from a callback, is refused
 *              (STATE) and disturbs nothing. Functions taking a const
 *              ksllm_session may be called from a callback of the running
 *              call, but not while another thread runs one.
 *              ksllm_cancel_set may be called from anywhere at any time,
 *              signal handlers included.
 *   fork()     In the child process of a fork, models work as before.
 *              Sessions do not: their threads are gone. The child must not
 *              use them, nor free them.
 *   Structs    A struct that may grow begins with `size`, the size that the
 *              program was compiled with. Fill an options struct with its
 *              _init function, then set fields; NULL for an options pointer
 *              means: all defaults. Set `size` of a struct that the library
 *              fills in: ksllm_result r = {.size = sizeof r}. Fields are only
 *              ever added at the end, so a program keeps working with a newer
 *              library. With an older library, a field that it does not know
 *              must be zero; otherwise the call is refused (UNSUPPORTED).
 *              Structs without `size` never change.
 *   Results    Logits depend on the model, the tokens and the KV type, and on
 *              nothing else: not on the number of threads, not on how a
 *              prompt was cut into batches, not on what was cached before,
 *              not on the instruction set.
 *   Text       is UTF-8, given as pointer and length in bytes. KSLLM_NUL as
 *              the length of an input text means that it ends at its NUL.
 *              `size_t` lengths count bytes, `n_` counts items.
 *   Tokens     are int32_t, from 0 to n_vocab - 1; a negative one is a row of a
 *              picture that the session was lent (15).
 */
#ifndef KSLLM_H
#define KSLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1 Build switches ------------------------------------------------------
 *
 * Define when compiling ksllm.c (and where it says so, your own files):
 *
 *   KSLLM_API         storage of public functions. Default: visible from a
 *                     shared library. `static` makes a private copy: include
 *                     ksllm.c in your one source file.
 *   KSLLM_NO_THREADS  no pthread. Sessions run on the calling thread, or on
 *                     the caller's own pool (parallel_for).
 *   KSLLM_NO_MMAP     no mmap, no file access: only ksllm_model_open_memory.
 *   KSLLM_NO_SIMD     only the plain C kernels. Same results, slower.
 *   KSLLM_ISA_ONLY    the kernels of one instruction set and the plain C ones;
 *                     a name from ksllm_isa_at, for example
 *                     -DKSLLM_ISA_ONLY=avx2. Smaller and faster to compile; a
 *                     CPU without it runs the plain C kernels.
 *   KSLLM_NO_CHAT     no chat templates, no splitter: the functions of section
 *                     12 do not exist, so a program that calls one does not
 *                     link. Define it for your own files too, and the compiler
 *                     says so. Halves the smallest build.
 *   KSLLM_NO_IQ       no weights of the types IQ1, IQ2, IQ3, TQ and MXFP4, and
 *                     none of their tables (12 KB).
 *   KSLLM_NO_STATE    no saving and loading of sessions, in the same way.
 *   KSLLM_NO_GRAMMAR  no constrained answers: the functions of section 13 do
 *                     not exist, as above; a session plans no memory for them.
 *   KSLLM_NO_MEDIA    no pictures: the functions of section 15 do not exist, as
 *                     above. A file's tower is left alone.
 */
#ifndef KSLLM_API
#if defined(__GNUC__)
#define KSLLM_API __attribute__((visibility("default")))
#else
#define KSLLM_API
#endif
#endif

/* ---- 2 Version -------------------------------------------------------------
 *
 * Semantic versions. Until 1.0 a minor version may change the interface; the
 * patch version never does.
 */
#define KSLLM_VERSION_MAJOR 0
#define KSLLM_VERSION_MINOR 2
#define KSLLM_VERSION_PATCH 0

/* "0.2.0". Static text. */
KSLLM_API const char *ksllm_version(void);

/* The name of the index-th kernel set that was compiled in and that this CPU
 * can run, best first: "avx2", then "scalar". NULL after the last. Static
 * text. */
KSLLM_API const char *ksllm_isa_at(size_t index);

/* The length of a text that ends at its NUL; accepted for every input text. */
#define KSLLM_NUL ((size_t)-1)

/* ---- 3 Status and errors ---------------------------------------------------
 */
typedef enum ksllm_status {
    KSLLM_OK = 0,
    KSLLM_ERR_ARGUMENT = -1,    /* invalid argument */
    KSLLM_ERR_MEMORY = -2,      /* the allocator returned NULL */
    KSLLM_ERR_IO = -3,          /* open, stat or map failed */
    KSLLM_ERR_FORMAT = -4,      /* the file is damaged or contradicts itself */
    KSLLM_ERR_UNSUPPORTED = -5, /* the file is sound, but this version or this
                                   build cannot run it (architecture, type,
                                   tokenizer, KSLLM_NO_MMAP) */
    KSLLM_ERR_CONTEXT = -6,     /* more tokens than the context holds */
    KSLLM_ERR_TOKEN = -7,       /* a token id outside the vocabulary */
    KSLLM_ERR_CANCELLED = -8,   /* ksllm_cancel_set was called, or a splitter's
                                   callback stopped it */
    KSLLM_ERR_DEADLINE = -9,    /* the time budget ran out */
    KSLLM_ERR_BUFFER = -10,     /* a caller's buffer is too small */
    KSLLM_ERR_STATE = -11,      /* not possible now; the text says why */
    KSLLM_ERR_THREAD = -12      /* a worker thread could not be started */
} ksllm_status;

/* What went wrong. `text` is one English sentence or two, ends with NUL, and
 * names the file, key or tensor. `offset` is a byte position in the file, or
 * KSLLM_NO_OFFSET where none applies. */
#define KSLLM_NO_OFFSET 0xffffffffffffffffULL   /* a literal, for Swift */
typedef struct ksllm_error {
    ksllm_status status;
    uint64_t offset;
    char text[500];
} ksllm_error;

/* "KSLLM_ERR_FORMAT" and so on; "unknown status" for other numbers. Static
 * text. */
KSLLM_API const char *ksllm_status_name(ksllm_status status);

/* ---- 4 Memory --------------------------------------------------------------
 *
 * One function does all: old_size 0 allocates, new_size 0 frees (and returns
 * NULL), both non-zero resizes. Returned memory is aligned as malloc's; NULL
 * means no memory, and on a failed resize the old block stays. Called only
 * inside open, create, encode, ksllm_chat_*, ksllm_sessions_generate with a
 * chat, close and free, on the thread that called them.
 */
typedef struct ksllm_allocator {
    void *(*resize)(void *ctx, void *ptr, size_t old_size, size_t new_size);
    void *ctx;
} ksllm_allocator;

/* ---- 5 Model ---------------------------------------------------------------
 */
typedef struct ksllm_model ksllm_model;
struct ksllm_control; /* 8 */

/* Text that does not end with NUL. */
typedef struct ksllm_text {
    const char *data;
    size_t size;
} ksllm_text;

/* Types of metadata, numbered as in GGUF. */
typedef enum ksllm_meta_type {
    KSLLM_META_U8 = 0, KSLLM_META_I8 = 1, KSLLM_META_U16 = 2,
    KSLLM_META_I16 = 3, KSLLM_META_U32 = 4, KSLLM_META_I32 = 5,
    KSLLM_META_F32 = 6, KSLLM_META_BOOL = 7, KSLLM_META_TEXT = 8,
    KSLLM_META_ARRAY = 9, KSLLM_META_U64 = 10, KSLLM_META_I64 = 11,
    KSLLM_META_F64 = 12
} ksllm_meta_type;

/* A value in place of the one that the file has under that key, or where it
 * has none: for files that say something wrong. */
typedef struct ksllm_override {
    const char *key;
    /* Any but ARRAY. Where the file has the key, the value takes the file's
     * type and must be of its kind: a whole number, a number (a whole one will
     * do), BOOL, TEXT. Arrays cannot be replaced. */
    ksllm_meta_type type;
    int64_t integer;            /* of whole numbers and BOOL */
    double number;              /* of F32 and F64 */
    const char *text;           /* of TEXT, to its NUL */
} ksllm_override;

typedef struct ksllm_model_options {
    size_t size;
    /* Read metadata and vocabulary, allow files without weights. Sessions
     * cannot be created. */
    bool vocab_only;
    /* Read the file into memory from the allocator, all of it, before open
     * returns, and do not map it: for storage that can be taken away, and for
     * files that another program may shorten or rewrite. Needs file_bytes of
     * memory that the system cannot drop, and takes as long as the storage.
     * A file that was unsound when it was read is refused as ever. */
    bool in_memory;
    /* Copied; its ctx must live as long as the model. NULL: malloc, free. */
    const ksllm_allocator *allocator;
    /* Replaces the file's tokenizer.ggml.pre, for files that name the wrong
     * pre-tokenizer or none: "llama-bpe", "qwen2", "gpt-2", "exaone" ... */
    const char *pretokenizer;
    /* A name from ksllm_isa_at. NULL: the best. */
    const char *isa;
    /* Metadata that counts in place of the file's, 256 values at most; copied.
     * A key that nothing of this model reads, a value of the wrong type and a
     * key given twice are refused by name (ARGUMENT), and so are those that say
     * how the file is laid out (general.alignment, split.*). With another
     * general.architecture, keys of the file's own one still count where the
     * new one has none. ksllm_meta_* give these values. */
    const ksllm_override *overrides;
    size_t n_overrides;
    /* A second file with the towers that a model sees or hears with (15), where
     * its own has none: what llama.cpp calls mmproj-....gguf, or ksllm-quant
     * --media-only writes. By path, or in memory that must stay until the
     * model is closed. It is checked as the model's is, and refused where it
     * is another model's (ARGUMENT); overrides of clip.* are for it. Results
     * are those of one file. Not opened with vocab_only. ksllm_meta_* and
     * ksllm_tensor_* give the model's own file alone. */
    const char *media_path;
    const void *media_data;
    size_t media_size;
} ksllm_model_options;

KSLLM_API void ksllm_model_options_init_sized(
    ksllm_model_options *options, size_t size);
static inline void ksllm_model_options_init(ksllm_model_options *options) {
    ksllm_model_options_init_sized(options, sizeof *options);
}

/* Opens a GGUF file (version 2 or 3, little endian). The file is mapped and its
 * header is checked from end to end. Its weights are not read, so this takes
 * milliseconds and little memory whatever the model's size.
 *
 * A split model is opened by its first part, `name-00001-of-0000N.gguf`; the
 * others must be in the same folder.
 *
 * The file must not be changed or shortened while the model is open: the
 * operating system answers a read past a shortened file with SIGBUS, which no
 * library can turn into a status. Where that cannot be promised, set in_memory.
 *
 * Errors: ARGUMENT, MEMORY, IO, FORMAT, UNSUPPORTED. On error *out is NULL. */
KSLLM_API ksllm_status ksllm_model_open(
    const char *path, const ksllm_model_options *options,
    ksllm_model **out, ksllm_error *err);

/* The same for `length` bytes at `offset` of an open file descriptor (an
 * Android asset, a partition). The descriptor may be closed afterwards. Not
 * for split models. */
KSLLM_API ksllm_status ksllm_model_open_fd(
    int fd, uint64_t offset, uint64_t length,
    const ksllm_model_options *options, ksllm_model **out, ksllm_error *err);

/* The same for a GGUF file in memory. `data` is used in place: it must stay
 * unchanged until the model is closed. Any alignment works; 64 is best. */
KSLLM_API ksllm_status ksllm_model_open_memory(
    const void *data, size_t size,
    const ksllm_model_options *options, ksllm_model **out, ksllm_error *err);

/* Closes a model. Its sessions must have been freed. NULL is ignored. */
KSLLM_API void ksllm_model_close(ksllm_model *model);

/* Numbers about a model; 0 where a file does not say. */
typedef struct ksllm_model_info {
    size_t size;                /* set it to sizeof before the call */
    ksllm_text architecture;    /* general.architecture; valid like the model */
    ksllm_text name;            /* general.name */
    const char *isa;            /* the kernels this model runs on */
    uint64_t file_bytes;        /* all parts */
    uint64_t weight_bytes;      /* tensors alone */
    uint64_t n_parameters;
    uint32_t n_layers, n_embd, n_ffn, n_vocab;
    uint32_t n_heads, n_kv_heads, head_dim; /* the most, where layers differ */
    uint32_t n_ctx_train;       /* the context the model was trained for */
    uint32_t window;            /* sliding window of local layers, 0: none */
    int32_t bos, eos, eot, unk, pad;    /* token ids, -1: none */
    bool adds_bos, adds_eos;
    uint32_t max_piece_bytes;   /* the longest text of one token */
    uint32_t picture_tokens;    /* of a picture at most (15); 0: the model does
                                   not see */
    int32_t picture_place;      /* the token that a template leaves where a
                                   picture belongs; -1: none */
    uint32_t sound_tokens;      /* of as many seconds as the model's processor
                                   takes at once; 0: the model does not hear */
    int32_t sound_place;        /* as picture_place, of a sound */
} ksllm_model_info;

/* Fills *info. Errors: ARGUMENT. */
KSLLM_API ksllm_status ksllm_model_get_info(
    const ksllm_model *model, ksllm_model_info *info, ksllm_error *err);

/* Reads every weight once, so that the first prompt does not wait for the
 * disk, one page fault after the other. On a thread of its own beside that
 * prompt it costs least time. The pages stay clean: if memory runs short, the
 * system may drop them again. on_progress of the control counts bytes.
 * Errors: ARGUMENT, CANCELLED, DEADLINE; the model can be used after each. */
KSLLM_API ksllm_status ksllm_model_preload(
    const ksllm_model *model, const struct ksllm_control *control,
    ksllm_error *err);

/* ---- 6 Metadata and tensors ------------------------------------------------
 *
 * What the file holds, unchanged but for options.overrides (format: the GGUF
 * document of ggml).
 * Everything returned is valid until the model is closed.
 */
typedef struct ksllm_meta {
    size_t size;                /* set it to sizeof before the call */
    ksllm_text key;
    ksllm_meta_type type;
    ksllm_meta_type item_type;  /* of an array; otherwise = type */
    uint64_t n_items;           /* of an array; otherwise 1 */
    int64_t integer;            /* integers and bool; u64 wraps */
    double number;              /* integers, bool and floats */
    ksllm_text text;            /* text */
} ksllm_meta;

KSLLM_API size_t ksllm_meta_count(const ksllm_model *model);

/* The entry at `index`, or of that key. ARGUMENT when there is none, or when
 * out->size is not set. */
KSLLM_API ksllm_status ksllm_meta_at(
    const ksllm_model *model, size_t index, ksllm_meta *out);
KSLLM_API ksllm_status ksllm_meta_find(
    const ksllm_model *model, const char *key, ksllm_meta *out);

/* Item `item` of the array at `index`: out->type is the item's type. Cost: a
 * walk over the array for text, O(1) otherwise. A file with an array of arrays
 * is not opened. */
KSLLM_API ksllm_status ksllm_meta_item(
    const ksllm_model *model, size_t index, uint64_t item, ksllm_meta *out);

/* Tensor types, numbered as in GGUF. */
typedef enum ksllm_type {
    KSLLM_TYPE_F32 = 0, KSLLM_TYPE_F16 = 1, KSLLM_TYPE_Q4_0 = 2,
    KSLLM_TYPE_Q4_1 = 3, KSLLM_TYPE_Q5_0 = 6, KSLLM_TYPE_Q5_1 = 7,
    KSLLM_TYPE_Q8_0 = 8, KSLLM_TYPE_Q2_K = 10, KSLLM_TYPE_Q3_K = 11,
    KSLLM_TYPE_Q4_K = 12, KSLLM_TYPE_Q5_K = 13, KSLLM_TYPE_Q6_K = 14,
    KSLLM_TYPE_IQ4_NL = 20, KSLLM_TYPE_IQ4_XS = 23, KSLLM_TYPE_BF16 = 30,
    /* not with KSLLM_NO_IQ */
    KSLLM_TYPE_IQ2_XXS = 16, KSLLM_TYPE_IQ2_XS = 17, KSLLM_TYPE_IQ3_XXS = 18,
    KSLLM_TYPE_IQ1_S = 19, KSLLM_TYPE_IQ3_S = 21, KSLLM_TYPE_IQ2_S = 22,
    KSLLM_TYPE_IQ1_M = 29, KSLLM_TYPE_TQ1_0 = 34, KSLLM_TYPE_TQ2_0 = 35,
    KSLLM_TYPE_MXFP4 = 39
} ksllm_type;

typedef struct ksllm_tensor {
    size_t size;                /* set it to sizeof before the call */
    ksllm_text name;
    ksllm_type type;
    const char *type_name;      /* "Q4_K" */
    uint32_t n_dims;            /* 1 to 4 */
    uint32_t part;              /* which file of a split model, from 0 */
    uint64_t dims[4];           /* dims[0] is the contiguous one; unused: 1 */
    const void *data;           /* NULL in a vocab_only model */
    uint64_t bytes;
    uint64_t offset;            /* of the data in its file */
} ksllm_tensor;

KSLLM_API size_t ksllm_tensor_count(const ksllm_model *model);
KSLLM_API ksllm_status ksllm_tensor_at(
    const ksllm_model *model, size_t index, ksllm_tensor *out);
KSLLM_API ksllm_status ksllm_tensor_find(
    const ksllm_model *model, const char *name, ksllm_tensor *out);

/* Row `row` of a tensor (dims[0] values; row counts over the other dims) as
 * float32 into `out`. Values are exactly those of the format. */
KSLLM_API ksllm_status ksllm_tensor_row(
    const ksllm_model *model, const ksllm_tensor *tensor, uint64_t row,
    float *out);

/* ---- 7 Tokens --------------------------------------------------------------
 */
enum {
    /* Begin with BOS if the model wants one (ksllm_model_info.adds_bos). */
    KSLLM_ENCODE_BOS = 1,
    /* Read control tokens such as <|im_end|> out of the text. Never set this
     * for text from a user or a document: without it their text stays text,
     * so they cannot forge a turn. Tokens that a tokenizer adds as plain words
     * (runs of spaces, for example) are matched either way. */
    KSLLM_ENCODE_SPECIAL = 2,
    /* Compose decomposed Hangul (NFD, as in macOS file names) first: it takes
     * three to eight times as many tokens. Other characters are unchanged. */
    KSLLM_ENCODE_COMPOSE = 4,
    /* End with EOS if the model wants one (adds_eos), as embedding models do.
     * Not for a prompt: an answer would begin after the end. */
    KSLLM_ENCODE_EOS = 8
};

/* The longest text that is encoded at once, 512 MiB: every count of its tokens
 * fits an int32_t. */
#define KSLLM_MAX_TEXT_BYTES ((size_t)1 << 29)

/* Text to tokens, the ids of the model's own tokenizer. Writes at most `cap`
 * ids to `tokens` and returns how many the text has, so a call with cap 0
 * (tokens may be NULL) measures. Invalid UTF-8 is encoded byte by byte if the
 * vocabulary has byte tokens; otherwise it becomes U+FFFD.
 *
 * Cost: never quadratic, whatever the text and the vocabulary. Four times the
 * text takes four to nine times as long; a vocabulary made to be slow takes
 * some microseconds for a byte. Uses about 2 KiB of stack. A single word of
 * more than about a hundred bytes takes 12 times its size from the model's
 * allocator during the call, of unigrams (XLM-R) 15 times (SentencePiece counts
 * text without spaces as one word), and text that has to be normalised takes a
 * copy.
 * Errors: ARGUMENT (also: more than KSLLM_MAX_TEXT_BYTES), MEMORY. */
KSLLM_API int64_t ksllm_encode(
    const ksllm_model *model, const char *text, size_t size, uint32_t flags,
    int32_t *tokens, size_t cap, ksllm_error *err);

enum {
    /* Write control tokens as their text; otherwise they give nothing. */
    KSLLM_DECODE_SPECIAL = 1
};

/* Tokens to text in whole UTF-8 characters; invalid bytes become U+FFFD. Writes
 * at most `cap` bytes (no NUL) and returns the length of the whole text.
 * Errors: ARGUMENT, TOKEN. */
KSLLM_API int64_t ksllm_decode(
    const ksllm_model *model, const int32_t *tokens, size_t n_tokens,
    uint32_t flags, char *text, size_t cap, ksllm_error *err);

/* The bytes of one token, which may be part of a character. Writes at most
 * `cap` bytes and returns the length. Errors: ARGUMENT, TOKEN. */
KSLLM_API int64_t ksllm_token_bytes(
    const ksllm_model *model, int32_t token, uint32_t flags,
    char *bytes, size_t cap);

/* The token whose text in the vocabulary is exactly this, for example
 * "<|im_end|>"; -1 when there is none. */
KSLLM_API int32_t ksllm_token_find(
    const ksllm_model *model, const char *text, size_t size);

/* Whether a token ends an answer: EOS, end of turn, and whatever else the
 * file or its vocabulary marks as an end. */
KSLLM_API bool ksllm_token_is_stop(const ksllm_model *model, int32_t token);

/* Decodes a stream. Text comes out in whole UTF-8 characters only. All pieces
 * together are what ksllm_decode gives for all tokens. The struct may be
 * copied. */
typedef struct ksllm_decoder {
    uint64_t opaque[8];
} ksllm_decoder;

KSLLM_API void ksllm_decoder_init(
    ksllm_decoder *decoder, const ksllm_model *model, uint32_t flags);

/* Takes one token, writes the text that is complete now (maybe none) and
 * returns its length. `cap` must be at least 3 * max_piece_bytes + 12;
 * otherwise BUFFER, and nothing has changed. Errors: ARGUMENT, TOKEN, BUFFER.
 */
KSLLM_API int64_t ksllm_decoder_next(
    ksllm_decoder *decoder, int32_t token, char *text, size_t cap);

/* Ends the stream: an unfinished character comes out as U+FFFD (3 bytes). The
 * decoder is then as after init. */
KSLLM_API int64_t ksllm_decoder_end(
    ksllm_decoder *decoder, char *text, size_t cap);

/* The units in which text can come out. */
typedef enum ksllm_unit {
    KSLLM_UNIT_CHARACTER = 0,
    /* What a reader takes for one character (extended grapheme clusters of
     * Unicode 16.0, UAX 29): a syllable with the jamo that complete it, a
     * letter with its accents, an emoji with all its parts, CR LF. The end of
     * one is known when the next one begins. */
    KSLLM_UNIT_GRAPHEME = 1,
    /* An eojeol with the white space after it. Ends after white space. */
    KSLLM_UNIT_EOJEOL = 2
} ksllm_unit;

/* Returns the length of the longest prefix made of complete units, whatever
 * follows: what a program that collects the pieces of ksllm_decoder_next or of
 * a splitter can show now. The rest is the beginning of a unit: put it before
 * the next piece, or show it unchanged when the stream ends. `text` must begin
 * where a unit begins, and consist of whole characters.
 *
 * A unit has no maximum length, and a unit may never end. A program that
 * collects pieces needs a limit of its own; that of ksllm_generate is
 * KSLLM_MAX_UNIT_BYTES. Cost: linear in `size`. 0 for NULL or no such unit. */
KSLLM_API size_t ksllm_text_units(
    const char *text, size_t size, ksllm_unit unit);

/* ---- 8 Control of a running call -------------------------------------------
 */

/* A flag that the caller owns and shares between threads. It must begin as
 * zero. Once set, calls that watch it return CANCELLED until it is cleared. */
typedef struct ksllm_cancel {
    int32_t flag;
} ksllm_cancel;

/* Safe from any thread and from a signal handler. */
KSLLM_API void ksllm_cancel_set(ksllm_cancel *cancel);
KSLLM_API void ksllm_cancel_clear(ksllm_cancel *cancel);

/* How long a call may run and who may stop it. Both are checked several times
 * inside every layer, so they take effect within milliseconds, inside a long
 * prompt too. A call that was stopped leaves the session with the tokens that
 * it held before and those whose evaluation was complete. Going on from there
 * gives the same result as if nothing had happened. */
typedef struct ksllm_control {
    size_t size;
    const ksllm_cancel *cancel; /* NULL: cannot be cancelled */
    /* Generation gives at most this many tokens a second: it sleeps between
     * tokens, to save the battery and stay cool. A cancel and the budget end
     * the sleep. Time lost by a slow token is not made up. 0: no limit. */
    float max_tokens_per_second;
    uint64_t budget_us;         /* microseconds from the call; 0: no limit, so
                                   pass at least 1 of what is left */
    /* Called on the calling thread after every batch of a prompt. */
    void (*on_progress)(void *ctx, size_t n_done, size_t n_total);
    void *progress_ctx;
} ksllm_control;

KSLLM_API void ksllm_control_init_sized(
    ksllm_control *control, size_t size);
static inline void ksllm_control_init(ksllm_control *control) {
    ksllm_control_init_sized(control, sizeof *control);
}

/* ---- 9 Session -------------------------------------------------------------
 */
typedef struct ksllm_session ksllm_session;

/* Runs task(arg, i) for every i from 0 to n - 1, on any threads in any order,
 * and returns when all are done. */
typedef void (*ksllm_task)(void *arg, uint32_t i);
typedef void (*ksllm_parallel_for)(
    void *ctx, uint32_t n, ksllm_task task, void *arg);

typedef enum ksllm_overflow {
    KSLLM_OVERFLOW_ERROR = 0,   /* a full context is KSLLM_ERR_CONTEXT */
    /* A full context keeps its first n_keep tokens, drops the older half of
     * the rest and evaluates what remains again, so that the result is that of
     * a fresh session with those tokens. This costs a prompt of that length
     * each time. */
    KSLLM_OVERFLOW_SLIDE = 1
} ksllm_overflow;

typedef enum ksllm_pooling {
    KSLLM_POOLING_NONE = 0,
    KSLLM_POOLING_LAST = 1,     /* the last token's final hidden state */
    KSLLM_POOLING_MEAN = 2,     /* the mean over the tokens of the last call;
                                   of EmbeddingGemma, through the two matrices
                                   that follow it, where the file has them */
    KSLLM_POOLING_MODEL = 3,    /* which of these the file says, under
                                   <architecture>.pooling_type; UNSUPPORTED if
                                   it says nothing, or another kind, or lacks
                                   EmbeddingGemma's two matrices */
    KSLLM_POOLING_FIRST = 4,    /* the first token's, of an encoder (CLS) */
    KSLLM_POOLING_RANK = 5      /* a reranker's score as the first value, zeros
                                   after it */
} ksllm_pooling;

typedef struct ksllm_session_options {
    size_t size;
    uint32_t n_ctx;         /* tokens it can hold. 0: the model's training
                               length, 4096 at most. More than the training
                               length is allowed, but what a model says beyond
                               it is not reliable */
    uint32_t n_batch;       /* tokens evaluated together, 1 to 4096. 0: 64.
                               An encoder takes a whole text: always n_ctx.
                               ksllm_memory.scratch grows with it; results do
                               not depend on it. 16 takes a quarter of that
                               memory and reads prompts at about 3/4 of the
                               speed; above 128 nothing is gained */
    uint32_t n_threads;     /* with the calling one, 64 at most. 0: one per
                               fast core that the process may use, 16 at most.
                               1 starts no thread */
    /* The KV cache: Q8_0 (default; int8, a scale for 64 dimensions of a key
     * and for each value) or F16, which takes twice the memory and is slower
     * in long contexts, or F32. tests/README.md has what int8 costs beside the
     * rounding of the weights. */
    ksllm_type kv_type;
    ksllm_overflow overflow;
    uint32_t n_keep;        /* for SLIDE, less than n_ctx */
    ksllm_pooling pooling;  /* what ksllm_session_embedding will give. With
                               MEAN, sync evaluates every token again */
    /* The caller's memory, at least ksllm_memory.total bytes, any alignment,
     * kept until the session is freed. NULL: from the allocator. */
    void *memory;
    size_t memory_size;
    const ksllm_allocator *allocator;   /* NULL: the model's */
    /* Runs on the caller's threads; n_threads then sets the number of pieces
     * (0: 4). No thread is started. A batch takes 5 calls a layer and one
     * more, for a single token as for 64: the pool should start within
     * microseconds. */
    ksllm_parallel_for parallel_for;
    void *parallel_ctx;
    /* Called first on every worker thread that the session starts, with its
     * number from 1 to n_threads - 1: the place to set a name, a priority or
     * an affinity. A worker inherits the scheduling class, the priority and
     * the affinity of the thread that creates the session (POSIX says so of
     * Linux's threads): a session made by a SCHED_FIFO control loop has
     * SCHED_FIFO workers. All signals are blocked in workers. */
    void (*on_thread)(void *ctx, uint32_t index);
    void *thread_ctx;
    /* Memory for constrained answers (13), besides a quarter of a byte for each
     * token of the vocabulary. 0: 255 KiB, enough for all but huge schemas;
     * with less, more is computed again. KSLLM_NO_GRAMMAR_BYTES: none, and
     * generation.grammar is refused. */
    size_t grammar_bytes;
    /* How many tokens generation may try at once (generation.drafts), 15 at
     * most and less than n_batch: each takes 4 bytes for each token of the
     * vocabulary, and one more such row; on a model with recurrent layers also
     * 4 % of a state of these. 0: 3. KSLLM_NO_DRAFTS: none, as with a pooling.
     * On a model with sliding windows a rewind reaches so many tokens less far
     * back before it has to compute from the start. */
    size_t n_draft;
    /* The largest rank of an adapter that the session may use (14), 4096 at
     * most. It takes 12 bytes times n_batch, 16 with recurrent layers. 0: none
     * can be used. */
    size_t max_rank;
} ksllm_session_options;

#define KSLLM_NO_GRAMMAR_BYTES ((size_t)-1)
#define KSLLM_NO_DRAFTS ((size_t)-1)

KSLLM_API void ksllm_session_options_init_sized(
    ksllm_session_options *options, size_t size);
static inline void ksllm_session_options_init(ksllm_session_options *options) {
    ksllm_session_options_init_sized(options, sizeof *options);
}

/* Bytes a session takes, for one set of options. */
typedef struct ksllm_memory {
    size_t size;            /* set it to sizeof before the call */
    uint32_t n_ctx, n_batch, n_threads;     /* what 0 stood for */
    size_t total;           /* the sum of the rest and of alignment */
    size_t kv;              /* KV cache */
    size_t scratch;         /* activations, attention, tables */
    size_t output;          /* logits, sampling, text, grammars, drafts */
} ksllm_memory;

/* What a session with these options will take: exactly the size of its one
 * allocation. Touches no memory. Thread stacks are the system's and not
 * counted. Errors: ARGUMENT, UNSUPPORTED, MEMORY (the sum overflows). */
KSLLM_API ksllm_status ksllm_session_memory(
    const ksllm_model *model, const ksllm_session_options *options,
    ksllm_memory *out, ksllm_error *err);

/* Creates a session. The model must outlive it. Errors: ARGUMENT, MEMORY,
 * BUFFER (the caller's memory is too small), THREAD, UNSUPPORTED. On error
 * *out is NULL. */
KSLLM_API ksllm_status ksllm_session_create(
    const ksllm_model *model, const ksllm_session_options *options,
    ksllm_session **out, ksllm_error *err);

/* NULL is ignored. Not while a call on the session runs. */
KSLLM_API void ksllm_session_free(ksllm_session *session);

/* Makes the context hold exactly these tokens: keeps the longest common
 * prefix with what it holds, evaluates the rest. Afterwards the logits are
 * those of the last token. n_tokens must be at least 1. Errors: ARGUMENT,
 * TOKEN, CONTEXT, CANCELLED, DEADLINE. ARGUMENT, TOKEN and CONTEXT leave the
 * session unchanged. With KSLLM_OVERFLOW_SLIDE a list longer than n_ctx is cut
 * as that policy says. */
KSLLM_API ksllm_status ksllm_session_sync(
    ksllm_session *session, const int32_t *tokens, size_t n_tokens,
    const ksllm_control *control, ksllm_error *err);

/* Adds tokens at the end and evaluates them. Otherwise as sync. */
KSLLM_API ksllm_status ksllm_session_append(
    ksllm_session *session, const int32_t *tokens, size_t n_tokens,
    const ksllm_control *control, ksllm_error *err);

/* As append, and writes to `logprobs`, [n_tokens], ln of the probability of
 * each of these tokens, given all that the session holds before it: for
 * perplexity, and to choose between answers. The first token of an empty
 * session has nothing before it: NAN. With SLIDE it refuses to slide
 * (CONTEXT). Allocates nothing; takes about a tenth longer than append. After a
 * cancel or a deadline the values of the tokens that the session holds are
 * valid. */
KSLLM_API ksllm_status ksllm_session_score(
    ksllm_session *session, const int32_t *tokens, size_t n_tokens,
    float *logprobs, const ksllm_control *control, ksllm_error *err);

/* As append, and writes the logits after each of the n_tokens tokens to
 * `logits`, [n_tokens][n_vocab] float32. With SLIDE it refuses to slide. */
KSLLM_API ksllm_status ksllm_session_append_logits(
    ksllm_session *session, const int32_t *tokens, size_t n_tokens,
    float *logits, const ksllm_control *control, ksllm_error *err);

/* Forgets all but the first n_tokens. There are no logits until the next
 * evaluation; a score right after it evaluates the last token again. On a model
 * with sliding windows the cache of a local layer may no longer reach back that
 * far. The next evaluation then recomputes from the start, which takes longer
 * and gives the same result. A model with recurrent layers (Qwen 3.5) goes on
 * from the last state that was kept: those after the last two tokens, at the
 * end of the last prompt, where the timeline was rewound to last, and at the
 * last multiple of 1,024. Errors: ARGUMENT (the session holds fewer), STATE. */
KSLLM_API ksllm_status ksllm_session_rewind(
    ksllm_session *session, size_t n_tokens, ksllm_error *err);

/* Makes `to` a copy of `from`: tokens, cache, logits. Copies what is in use,
 * not the whole context. Both must be sessions of one model with the same
 * n_ctx, n_batch, kv_type and pooling; `to` needs memory for the adapter that
 * `from` uses (max_rank). `from` is only read: several threads may fork from
 * one session at once. Errors: ARGUMENT, STATE (a call runs on one of the two).
 */
KSLLM_API ksllm_status ksllm_session_fork(
    const ksllm_session *from, ksllm_session *to, ksllm_error *err);

/* The tokens the context holds; the pointer is valid until the next call that
 * changes the session. n_tokens may be NULL. */
KSLLM_API const int32_t *ksllm_session_tokens(
    const ksllm_session *session, size_t *n_tokens);

/* How many tokens it can hold. */
KSLLM_API size_t ksllm_session_capacity(const ksllm_session *session);

/* Scores of every token of the vocabulary to come next, [n_vocab] float32,
 * not normalised. NULL when there are none (nothing evaluated yet, or after a
 * rewind). Valid until the next call that changes the session. */
KSLLM_API const float *ksllm_session_logits(const ksllm_session *session);

/* The pooled final hidden state (after the last norm), [n_embd] float32, not
 * normalised. NULL unless the session was created with a pooling and all that
 * it holds is evaluated: not after a rewind, nor after a call that was stopped.
 * Valid like the logits.
 * An encoder (BGE-M3, KURE; their rerankers; EmbeddingGemma) has this alone: no
 * logits, and UNSUPPORTED from calls that want a next token. Its tokens see the
 * whole text, at most n_ctx tokens and 4096, so sync and append evaluate all of
 * it; memory grows with n_ctx. Encode with BOS and EOS; BGE-M3 and KURE take
 * KSLLM_POOLING_FIRST. A reranker takes question, EOS, EOS, passage between
 * BOS and EOS (examples/rerank.c). */
KSLLM_API const float *ksllm_session_embedding(const ksllm_session *session);

/* The first n values (0: all) of that vector, scaled to length 1, to `out`. The
 * sum of products of two such vectors is their cosine. Models that were trained
 * for it (Matryoshka) give shorter vectors with n. Errors: ARGUMENT (n is above
 * n_embd), STATE (there is no embedding).
 *
 * An embedding model wants its text as it was trained: with the tokens that its
 * tokenizer adds (KSLLM_ENCODE_BOS | KSLLM_ENCODE_EOS), for Qwen3-Embedding
 * with "Instruct: TASK\nQuery:" before a query and nothing before a document,
 * for EmbeddingGemma "task: search result | query: " before a query and
 * "title: none | text: " before a document.
 * A reranker that answers yes or no (Qwen3-Reranker) needs no pooling: after
 * its prompt, a = ksllm_session_logits at the token "yes" and b at "no", and
 * the score is 1 / (1 + exp(b - a)) (examples/rerank.c). */
KSLLM_API ksllm_status ksllm_session_unit_embedding(
    const ksllm_session *session, size_t n, float *out, ksllm_error *err);

#if !defined(KSLLM_NO_STATE)
/* What a session has computed, as a file: a long prompt is read once, and a
 * conversation goes on after the power was off.
 *
 * The file. A header, then chunks of up to 64 tokens, each with its keys and
 * values and a checksum. It only grows, so a conversation can be saved as it
 * goes, and a power cut costs the chunk that was being written. It takes the
 * part of ksllm_memory.kv that its tokens take of n_ctx, and no padding. It
 * does not depend on n_ctx, n_batch, threads or the machine: what an x86 server
 * saved, a 32-bit phone loads, and computes the same bits from there on.
 *
 * A state is a hint. What fits the wanted tokens is used and the rest is
 * evaluated as ever, so an old file, a damaged or a shortened one costs time
 * and changes no result. A file is refused (UNSUPPORTED, with the field in
 * `err`) when it is of another model, another kv_type or another numeric
 * contract: the number that a later version raises if it computes other bits.
 * Later versions read every version of the format. The model is known by the
 * sums of its hyperparameters, its vocabulary and its tensor table, and of the
 * first and last 4 KiB of each tensor: two files that differ inside of tensors
 * alone are not told apart. The checksums find damage, not malice. A forged
 * file can make the model say anything, but it cannot make the library read or
 * write where it should not. Sign files that come from outside.
 *
 * Layers with a sliding window. A session holds only the last positions of
 * these. One that is saved before its window has turned, or as it goes, gives a
 * file that serves any beginning of its tokens. One that is saved late gives a
 * file whose first chunks lack these layers: it serves its whole length, and as
 * far back as a rewind would. For other beginnings the next evaluation computes
 * from the start, as it does after such a rewind. Of recurrent layers each save
 * writes the state after its last token: a file serves what goes on from there.
 */

/* Writes or reads exactly `size` bytes, in order; 0 when it did. Called many
 * times, with 8 bytes to 8 KiB: a buffer of 256 KiB before a file makes it
 * twice as fast. (setvbuf with one of yours; glibc ignores a size without.) */
typedef int (*ksllm_write)(void *ctx, const void *data, size_t size);
typedef int (*ksllm_read)(void *ctx, void *data, size_t size);

/* How far a file goes. Begins as zeros: there is none yet. */
typedef struct ksllm_saved {
    uint64_t n_tokens;      /* of the session, that the file holds */
    uint64_t n_bytes;       /* of the file, up to where they end */
    uint64_t chain;         /* a sum of them and of the model */
} ksllm_saved;

/* Writes the state of the session's first n_tokens (0: all). With n_bytes of
 * *saved 0 that is a new file; else it is what has come since, to be appended
 * at byte n_bytes: cut off the rest first. *saved then says how far the
 * file goes, after an error too. Tokens that are not evaluated yet, as the last
 * one of an answer that was cut by its length, are written after that, and
 * again by the next save. NULL: a new file, and nobody wants to know. Write a
 * new file under another name, sync and rename it; append in place and sync.
 *
 * Allocates nothing. A cancel and the budget take effect between two layers;
 * on_progress counts tokens. Errors: ARGUMENT, IO (`write` did not return 0),
 * STATE (a call runs, or the session no longer begins with what was saved, as
 * after a rewind: write a new file), CANCELLED, DEADLINE. */
KSLLM_API ksllm_status ksllm_session_save(
    const ksllm_session *session, size_t n_tokens,
    ksllm_write write, void *ctx, const ksllm_control *control,
    ksllm_saved *saved, ksllm_error *err);

/* Makes the context the longest beginning of `tokens` that the file holds, any
 * number of them, or all that the file holds if `tokens` is NULL.
 * ksllm_session_tokens tells how many came, possibly none. There are no logits
 * until the next evaluation: go on with ksllm_session_sync or ksllm_generate
 * and the whole prompt. *saved, unless NULL, is what a later save wants to
 * append to this file.
 *
 * Allocates nothing. Errors: ARGUMENT, IO (not even a header could be read),
 * FORMAT (it is no state, or its header is damaged), UNSUPPORTED and STATE (a
 * call runs) leave the session as it was. CANCELLED, DEADLINE and CONTEXT
 * (`tokens` is NULL and the file holds more than n_ctx) leave it with the first
 * tokens. That `read` fails later is the end of the file, and OK. */
KSLLM_API ksllm_status ksllm_session_load(
    ksllm_session *session, const int32_t *tokens, size_t n_tokens,
    ksllm_read read, void *ctx, const ksllm_control *control,
    ksllm_saved *saved, ksllm_error *err);
#endif /* KSLLM_NO_STATE */

/* ---- 10 Sampling -----------------------------------------------------------
 *
 * Order: bias, grammar, filter, penalties, temperature, top-k, top-p, min-p,
 * draw. What a grammar (13) does not allow has the logit -INFINITY from there
 * on, whatever a filter makes of it. So have the tokens that the file
 * suppresses (tokenizer.ggml.suppress_tokens; Gemma 4 has two): no bias brings
 * them back, no answer under a grammar has one, no draft is made of one.
 * Prompts may hold them, and probabilities count them.
 * The draw uses the library's own generator (PCG32 of M. O'Neill, seeded from
 * `seed`): the same numbers on every machine.
 */
typedef struct ksllm_logit_bias {
    int32_t token;
    float bias;                 /* added to its logit; -INFINITY forbids it */
} ksllm_logit_bias;

typedef struct ksllm_sampling {
    size_t size;
    float temperature;          /* 0 (default): the most likely token; or from
                                   1e-6 to 100 */
    uint32_t top_k;             /* keep the k most likely; 0: all */
    float top_p;                /* keep the fewest that reach this share of
                                   probability; 0 or 1: all */
    float min_p;                /* drop those below this times the most likely
                                   one's probability; 0: none */
    float repeat_penalty;       /* Keskar et al. 2019 (CTRL): logits above 0
                                   divided by it, others multiplied; 0 or 1:
                                   none */
    float frequency_penalty;    /* subtracted per earlier occurrence */
    float presence_penalty;     /* subtracted once if it occurred */
    uint32_t penalty_window;    /* how many of the last tokens count; 0: 64,
                                   1024 at most */
    uint64_t seed;
    const ksllm_logit_bias *biases;
    size_t n_biases;
    /* May change the logits (n_vocab of them) before they are sampled:
     * grammars, bans. Runs on the calling thread. */
    void (*filter)(void *ctx, float *logits, size_t n_vocab);
    void *filter_ctx;
} ksllm_sampling;

/* Greedy: temperature 0, no penalty, nothing cut. */
KSLLM_API void ksllm_sampling_init_sized(
    ksllm_sampling *sampling, size_t size);
static inline void ksllm_sampling_init(ksllm_sampling *sampling) {
    ksllm_sampling_init_sized(sampling, sizeof *sampling);
}

/* What the file recommends: general.sampling.temp, top_k, top_p, min_p,
 * penalty_repeat and penalty_last_n (as ksllm-quant and llama.cpp write them,
 * from generation_config.json). A value that is missing or out of its range is
 * as after init. A file that gives others but no temperature means 1, as in
 * transformers. `model` NULL: as init. */
KSLLM_API void ksllm_sampling_from_model_sized(
    ksllm_sampling *sampling, size_t size, const ksllm_model *model);
static inline void ksllm_sampling_from_model(
    ksllm_sampling *sampling, const ksllm_model *model) {
    ksllm_sampling_from_model_sized(sampling, sizeof *sampling, model);
}

/* One token with ln of its probability under the model: the softmax of the
 * logits as the model gave them, before bias, filter, penalties, temperature.
 */
typedef struct ksllm_token_prob {
    int32_t token;
    float logprob;
} ksllm_token_prob;

#define KSLLM_MAX_TOP 32

/* Draws the next token from the session's logits; does not append it. `step`
 * numbers the draws: the same seed, step and logits give the same token. If
 * `top` is not NULL it receives the n_top most likely tokens (KSLLM_MAX_TOP at
 * most). Errors: ARGUMENT, STATE (no logits, or every token is forbidden). */
KSLLM_API ksllm_status ksllm_sample(
    ksllm_session *session, const ksllm_sampling *sampling, uint64_t step,
    ksllm_token_prob *out, ksllm_token_prob *top, size_t n_top,
    ksllm_error *err);

/* ---- 11 Generation ---------------------------------------------------------
 */

/* What a callback sees. There is one call per token, in order, with the text
 * that has become certain by then: none while a character is unfinished or
 * while the text could be the start of a stop string. If text is left at the
 * end it comes in a last call with token -1. */
typedef struct ksllm_piece {
    ksllm_text text;            /* whole UTF-8 characters; valid in the call */
    int32_t token;
    float logprob;              /* as in ksllm_token_prob */
    const ksllm_token_prob *top;    /* n_top of them, most likely first */
    size_t n_top;
    size_t index;               /* of the token, from 0 */
} ksllm_piece;

/* Returns 0 to go on, anything else to stop. It may read the session, not
 * change it. */
typedef int (*ksllm_on_piece)(void *ctx, const ksllm_piece *piece);

#define KSLLM_MAX_STOPS 16          /* stop strings */
#define KSLLM_MAX_STOP_BYTES 128    /* bytes of one */
#define KSLLM_MAX_UNIT_BYTES 256    /* held back of an unfinished unit */

struct ksllm_grammar; /* 13 */

typedef struct ksllm_generation {
    size_t size;
    /* The prompt, as text or as tokens (exactly one of the two; both NULL
     * goes on from where the session is). It becomes the whole context, the
     * common prefix with what the session holds is reused; with `append` it
     * is added to what the session holds. */
    const char *text;
    size_t text_size;           /* 0 or KSLLM_NUL (default): up to the NUL */
    uint32_t encode_flags;      /* default KSLLM_ENCODE_BOS | _COMPOSE; with
                                   `append`, BOS is left out when the session
                                   holds tokens */
    const int32_t *tokens;
    size_t n_tokens;
    bool append;

    uint32_t max_tokens;        /* 0: until the context is full */
    const ksllm_sampling *sampling; /* NULL: what ksllm_sampling_from_model
                                   gives; greedy if the file says nothing */
    /* Tokens that end the answer, besides those of ksllm_token_is_stop. */
    const int32_t *stop_tokens;
    size_t n_stop_tokens;
    bool ignore_stop;           /* no stop token counts: for benchmarks */
    /* Strings that end the answer; they are not part of the text. */
    const ksllm_text *stop_texts;
    size_t n_stop_texts;

    uint32_t n_top;             /* alternatives wanted with each piece */
    uint32_t decode_flags;
    ksllm_on_piece on_piece;    /* NULL: only the result */
    void *piece_ctx;
    const ksllm_control *control;   /* NULL: no limit */
    /* Text comes in whole units of this kind; at the end, and before a stop
     * string, also a part of one. A unit that grows beyond
     * KSLLM_MAX_UNIT_BYTES comes in parts of whole characters, of about that
     * length each, so text never waits forever. */
    ksllm_unit unit;
    /* For ksllm_chat_generate only: after this many tokens of thinking the
     * library adds the text that ends it ("</think>" and the like, evaluated
     * as if the model had written it), and the answer begins. 0: no limit. */
    uint32_t max_thinking;

    /* Of an answer that a grammar constrains (13): */
    /* Bring the answer to an end in time: before max_tokens, the context or
     * the time budget run out, the shortest way to an end is taken. Default
     * true; without it an answer may be cut anywhere. */
    bool complete;
    /* Compute the logits of the allowed tokens alone, where these are few. The
     * answer is the same. Log-probabilities are then among the allowed ones,
     * and ksllm_session_logits has -INFINITY for the others. */
    bool allowed_only;
    /* Try tokens that are likely to come, several in one pass over the weights:
     * what followed the last tokens earlier in the context, text that a grammar
     * leaves no choice about, what `drafter` says. Every token is then chosen
     * as ever, so the answer is the same, to the last bit of its
     * log-probabilities, and only its time differs. How many are tried follows
     * from what passes have taken and how many drafts have come true: where
     * they do not pay there are none. Default true. */
    bool drafts;
    /* The text that ends the thinking in which the prompt ends: the grammar's
     * answer begins after it and up to 8 characters of white space. "": the
     * prompt does not end in thinking. NULL: in a turn of a chat by the prompt
     * and the notation, otherwise as "". */
    const char *thinking;
    /* What the answer may be. It must be of the session's model and outlive the
     * call. NULL: anything. */
    const struct ksllm_grammar *grammar;
    /* A session of a smaller model with the same vocabulary, or NULL. It is
     * used as the answer goes, and holds some beginning of it and a guess
     * afterwards; give the same one again, and it reads only what is new. Its
     * n_ctx should not be less than the session's. Another vocabulary is
     * refused (ARGUMENT). */
    ksllm_session *drafter;
} ksllm_generation;

KSLLM_API void ksllm_generation_init_sized(
    ksllm_generation *generation, size_t size);
static inline void ksllm_generation_init(ksllm_generation *generation) {
    ksllm_generation_init_sized(generation, sizeof *generation);
}

typedef enum ksllm_stop {
    KSLLM_STOP_NONE = 0,        /* it failed; the status says why */
    KSLLM_STOP_TOKEN = 1,       /* a stop token; result.stop_token */
    KSLLM_STOP_TEXT = 2,        /* a stop string; result.stop_text */
    KSLLM_STOP_LENGTH = 3,      /* max_tokens */
    KSLLM_STOP_CONTEXT = 4,     /* the context is full */
    KSLLM_STOP_CALLBACK = 5,
    KSLLM_STOP_CANCELLED = 6,
    KSLLM_STOP_DEADLINE = 7,
    KSLLM_STOP_COMPLETE = 8     /* nothing can follow, by the grammar */
} ksllm_stop;

typedef struct ksllm_result {
    size_t size;                /* set it to sizeof before the call */
    ksllm_stop stop;
    int32_t stop_token;         /* -1 unless stop is TOKEN */
    int32_t stop_text;          /* index; -1 unless stop is TEXT */
    size_t n_prompt;            /* tokens of the prompt */
    size_t n_reused;            /* of those, found in the cache */
    size_t n_generated;
    uint64_t prompt_ns;         /* until the prompt was evaluated */
    uint64_t first_ns;          /* until the first callback */
    uint64_t total_ns;
    /* With a grammar, of n_generated: */
    size_t n_thinking;          /* came before the grammar's answer */
    size_t n_closed;            /* the library put to end the answer in time */
    size_t n_drafted;           /* tokens that were tried at once */
    size_t n_accepted;          /* of those, came true */
} ksllm_result;

/* Evaluates the prompt, then draws and appends tokens until something stops
 * it. Afterwards the session holds the prompt and every token that was
 * generated, without the stop token. `result` may be NULL; it is filled on
 * errors too. The `step` of a draw is the position of its token, counting what
 * slid out. So an answer that was stopped and goes on later is the one that an
 * undisturbed call gives.
 *
 * Text prompts are encoded in the session's own memory. A prompt of more than
 * 16 bytes per token of n_ctx is refused at once (CONTEXT).
 *
 * Returns OK for every stop but KSLLM_STOP_CANCELLED and KSLLM_STOP_DEADLINE,
 * which are CANCELLED and DEADLINE. Other errors: ARGUMENT, TOKEN, CONTEXT
 * (the prompt does not fit), STATE, BUFFER (a single word too long for the
 * session's memory: use ksllm_encode; with a grammar, see 13). */
KSLLM_API ksllm_status ksllm_generate(
    ksllm_session *session, const ksllm_generation *generation,
    ksllm_result *result, ksllm_error *err);

/* ---- 12 Chat ---------------------------------------------------------------
 *
 * A conversation goes in as JSON, in the form that chat APIs use:
 *
 *     [{"role": "system", "content": "..."},
 *      {"role": "user", "content": "안녕"},
 *      {"role": "assistant", "content": "...", "reasoning_content": "...",
 *       "tool_calls": [{"type": "function", "function":
 *           {"name": "...", "arguments": {...}}}]},
 *      {"role": "tool", "content": "..."}]
 *
 * The model's own template (Jinja, in the GGUF file) makes the prompt of it,
 * byte for byte what transformers' apply_chat_template makes. Give the whole
 * conversation each turn: what the session already holds is not evaluated
 * again. examples/chat.c is a whole program.
 *
 *     ksllm_chat chat;  ksllm_chat_init(&chat);
 *     chat.messages.data = json;
 *     chat.variables.data = "{\"enable_thinking\": false}";
 *     ksllm_chat_generate(session, &chat, NULL, on_part, ctx, NULL, &err);
 */
/* What an answer is made of. */
typedef enum ksllm_part {
    KSLLM_PART_TEXT = 0,        /* text for the user */
    KSLLM_PART_THINKING = 1,    /* reasoning text */
    KSLLM_PART_CALL = 2,        /* a tool call begins; all of its name */
    KSLLM_PART_ARGUMENTS = 3,   /* a piece of its arguments, JSON */
    KSLLM_PART_CALL_END = 4,    /* the call is complete; empty text */
    KSLLM_PART_MESSAGE = 5      /* last, from ksllm_chat_generate alone: the
                                   whole answer as a JSON message to append */
} ksllm_part;

/* One piece of a part; the text is valid during the call. A part comes in one
 * or more pieces, cut anywhere between characters; CALL comes in one. Of a
 * call come CALL, ARGUMENTS, CALL_END, nothing between them. The pieces of
 * ARGUMENTS of a call that has its CALL_END are one JSON value. A call without
 * CALL_END must not be run. Returns 0 to go on, anything else to stop. */
typedef int (*ksllm_on_part)(void *ctx, ksllm_part part, ksllm_text text);

#if !defined(KSLLM_NO_CHAT)
struct ksllm_media; /* 15 */

typedef struct ksllm_chat {
    size_t size;
    /* JSON texts; a size of KSLLM_NUL (set by _init) ends them at their NUL.
     * data NULL: none, which only tools and variables may be. */
    ksllm_text messages;        /* an array of objects */
    ksllm_text tools;           /* an array of {"type": "function", "function":
                                   {"name": "..", "description": "..",
                                    "parameters": a JSON Schema}} */
    ksllm_text variables;       /* an object: further variables of the template:
                                   enable_thinking, thinking, bos_token,
                                   reasoning_effort ... */
    /* The template. Both NULL: the file's default one. */
    ksllm_text template_text;   /* Jinja */
    const char *template_name;  /* tokenizer.chat_template.NAME of the file */
    bool add_generation_prompt; /* end with the opening of an answer; true */
    /* The last message is the beginning of the answer: the prompt ends where
     * its text ends. Set add_generation_prompt to false with it. */
    bool continue_final;
    /* For templates that write today's date: seconds since 1970-01-01 00:00
     * on the wall clock (time zone included). 0: the system's time, UTC. */
    int64_t local_time;
    /* Memory to work in. NULL: from the allocator, freed before the call
     * returns: 0.2 to 0.7 MiB and about ten times the text, 128 MiB at most.
     */
    void *memory;
    size_t memory_size;
    const ksllm_allocator *allocator;   /* NULL: the model's, or malloc */
    /* How the model writes thinking and calls, for ksllm_chat_generate: a name
     * of ksllm_splitter_format_at. NULL: by the template. */
    const char *format;
    /* The pictures and sounds of the conversation in their order (15): n_media
     * pointers, as many as the template leaves places. Where it also leaves one
     * for the length of a sound (HyperCLOVA X Omni's <|audio_meta_duration|>),
     * that is written there: 1.25s. */
    const struct ksllm_media *const *media;
    size_t n_media;
} ksllm_chat;

/* No tools, no variables, the file's template, a generation prompt. */
KSLLM_API void ksllm_chat_init_sized(
    ksllm_chat *chat, size_t size);
static inline void ksllm_chat_init(ksllm_chat *chat) {
    ksllm_chat_init_sized(chat, sizeof *chat);
}

/* The prompt as text. Writes at most `cap` bytes (no NUL) and returns the
 * length of the whole, so a call with cap 0 (text may be NULL) measures.
 * `model` may be NULL when template_text is given; then bos_token and eos_token
 * exist only if the variables name them.
 *
 * A template is a program from outside: it is run with limits, reads nothing
 * but what is given here, and can change nothing. The limits: 16 MiB of text,
 * 128 MiB of memory, 42 expressions in each other, 256 open blocks; 20 million
 * steps (less than two seconds), 2 more for each byte that is given here, 8
 * more for each pair of messages.
 *
 * Errors, with the line of the template and the reason in `err`:
 *   ARGUMENT     JSON is wrong (err->offset says where), or the template
 *                refuses the messages or cannot go on with them
 *   FORMAT       the template is wrong, or goes over a limit
 *   UNSUPPORTED  the file has no such template
 *   MEMORY, BUFFER (chat.memory is too small) */
KSLLM_API int64_t ksllm_chat_render(
    const ksllm_model *model, const ksllm_chat *chat,
    char *text, size_t cap, ksllm_error *err);

/* The prompt as tokens; writes at most `cap` and returns how many there are.
 * Control tokens come from the template only: a "<|im_end|>" inside a message,
 * a tool or a list or object of the variables is encoded as plain text. For
 * text without such forgeries the ids are those of
 * apply_chat_template(tokenize=True). `flags`: 0 or KSLLM_ENCODE_COMPOSE; the
 * template writes BOS.
 *
 * Errors: as ksllm_chat_render; ARGUMENT when model is NULL. */
KSLLM_API int64_t ksllm_chat_encode(
    const ksllm_model *model, const ksllm_chat *chat, uint32_t flags,
    int32_t *tokens, size_t cap, ksllm_error *err);

/* A text as a JSON string, quotes included, for messages: writes at most `cap`
 * bytes (no NUL) and returns the length of the whole, so a call with cap 0
 * (out may be NULL) measures. Escapes quotes, backslashes and control
 * characters; what is not UTF-8 becomes U+FFFD. `size`: KSLLM_NUL allowed.
 * Errors: ARGUMENT. */
KSLLM_API int64_t ksllm_json_string(
    const char *text, size_t size, char *out, size_t cap);

/* One turn of a conversation: renders chat->messages, evaluates what the
 * session does not hold yet, generates, and hands out the parts of the answer
 * as they come. Last comes the answer as a message in JSON, in pieces of
 * KSLLM_PART_MESSAGE: append them to the messages, and the next turn can begin.
 *
 *     {"role": "assistant", "content": "...", "reasoning_content": "...",
 *      "tool_calls": [{"type": "function", "function":
 *          {"name": "...", "arguments": {...}}}]}
 *
 * content is always present; reasoning_content and tool_calls only if there are
 * any. Calls that did not end are left out. A program that runs a call appends
 * its result as {"role": "tool", "content": "..."} and begins the next turn.
 *
 *   chat        is read before the first call of on_part: from then on its
 *               texts may change
 *   generation  NULL: defaults. Its text, tokens and append must not be set
 *               (ARGUMENT). on_piece, if set, sees every token first, marks
 *               included; stop_texts are looked for in that text. A set
 *               decode_flags or unit concerns on_piece; parts are cut by its
 *               pieces
 *   on_part     NULL: only the result. When it, or on_piece, returns other than
 *               0 the answer ends (KSLLM_STOP_CALLBACK, OK) and on_part is not
 *               called again, for the message neither: to stop and to keep what
 *               was said, use a cancel
 *   result      may be NULL
 *
 * A cancel or a deadline after the first token still gives the message, of what
 * had come, although the status is negative: if no KSLLM_PART_MESSAGE came, the
 * turn left nothing to append. A full context (KSLLM_STOP_CONTEXT) gives it
 * too: within an answer KSLLM_OVERFLOW_SLIDE does not slide. A stop token that
 * ends the thinking in the model's notation does not end the answer.
 *
 * Rendering takes memory as ksllm_chat_render does and gives it back before the
 * first token; give chat->memory, and nothing is allocated. A tool call may be
 * as long as 128 bytes per token of n_ctx, 512 KiB at most; an answer has 64 at
 * most.
 *
 * Errors: those of ksllm_chat_encode and ksllm_generate; BUFFER: a call was too
 * long, or one too many; then there is no message. */
KSLLM_API ksllm_status ksllm_chat_generate(
    ksllm_session *session, const ksllm_chat *chat,
    const ksllm_generation *generation, ksllm_on_part on_part, void *ctx,
    ksllm_result *result, ksllm_error *err);

/* Splits an answer while it streams, for programs that generate otherwise. It
 * lives in the caller's memory, holds no resource and need not be freed. One
 * thread at a time. */
#define KSLLM_SPLITTER_WORDS 64
typedef struct ksllm_splitter {
    uint64_t opaque[KSLLM_SPLITTER_WORDS];
} ksllm_splitter;

typedef struct ksllm_splitter_options {
    size_t size;
    /* How the model writes thinking and calls, a name from the list below.
     * NULL: by the file's chat template, "json" if it does not show. */
    const char *format;
    /* The rendered prompt, or its last 64 bytes if it continues no message:
     * tells in which part the answer begins (see below). Used during _init
     * only. data NULL: none; a size of KSLLM_NUL (set by _init) ends it at
     * its NUL. */
    ksllm_text prompt;
    /* Room for one whole call, or for one argument of it with its name where
     * these come one by one (glm, qwen-coder): a few KiB. The splitter's until
     * the end. */
    void *buffer;
    size_t buffer_size;
    ksllm_on_part on_part;      /* called by _next and _end only */
    void *ctx;
} ksllm_splitter_options;

/* No format, no prompt, no buffer, no callback. */
KSLLM_API void ksllm_splitter_options_init_sized(
    ksllm_splitter_options *options, size_t size);
static inline void ksllm_splitter_options_init(
    ksllm_splitter_options *options) {
    ksllm_splitter_options_init_sized(options, sizeof *options);
}

/* The formats:
 *
 *   "json"        EXAONE 4, K-EXAONE, Mi:dm, Qwen: <think>..</think>,
 *                 <tool_call>JSON</tool_call>
 *   "glm"         HyperCLOVA X Think 32B, Omni: <tool_call>name
 *                 <arg_key>k</arg_key><arg_value>v</arg_value>..</tool_call>,
 *                 or name<arguments>JSON</arguments>
 *   "qwen-coder"  Kanana 2: <tool_call><function=name><parameter=k>
 *                 v</parameter>..</function></tool_call>
 *   "vaetki"      VAETKI: <tool_start>JSON<tool_end>
 *   "lfm2"        LFM2: <think>..</think>, <|tool_call_start|>[name(k=v, ..),
 *                 ..]<|tool_call_end|> with values as Python writes them
 *   "gemma4"      Gemma 4: <|channel>thought..<channel|>,
 *                 <|tool_call>call:name{k:v, ..}<tool_call|> with strings
 *                 between <|"|>
 *   "thought"     EXAONE Deep: <thought>..</thought>, no calls
 *   "solar"       Solar Open: <|begin|>assistant, then <|think|>..<|end|>,
 *                 <|content|>..<|end|>, or <|tool_calls|> with
 *                 <|tool_call:name|>name<|tool_call:args|>JSON<|tool_call:end|>
 *                 up to <|calls|>
 *   "hcx-think"   HyperCLOVA X Think 14B: <|im_start|>assistant, then
 *                 "/think\n" .., " -> tool/function_call\n" JSON, or "\n" ..,
 *                 each up to <|im_end|>
 *   "text"        nothing is special
 *
 * JSON is one or more {"name": .., "arguments": {..}}, one after the other or
 * as a list; "parameters" instead of "arguments" is taken, and neither is {}.
 *
 * Where an answer begins. In the last formats but "text", what follows the
 * last <|begin|>assistant or <|im_start|>assistant of the prompt counts as the
 * answer's: nothing of it comes out, except for a call that it leaves open,
 * which comes out whole. In the others, a prompt that ends in a mark (white
 * space may follow) begins after it: <think> begins in the thinking,
 * <tool_call> inside of a call.
 *
 * Marks. What stands in <> or <||> above is a mark.
 *   - None comes out as text for the user, wherever it stands and however it
 *     is cut: one that means nothing there is dropped. Three exceptions: the
 *     tags of "qwen-coder" inside of <tool_call>, <arguments> and
 *     </arguments>, which are text outside of a call, and what looked like a
 *     call and was none, which comes with the marks that its JSON strings hold.
 *   - In thinking only those count that begin or end a part: <think>,
 *     </think>, <thought>, </thought>, <|channel>thought, <channel|>,
 *     <|end|>, <|flush|>, <|begin|>, <|im_end|>. Others are thinking like any
 *     text.
 *   - Inside of JSON no mark counts in a string.
 *   - An argument of "glm" or "qwen-coder" ends at its closing tag only if
 *     the next thing but white space is the tag that must follow: </arg_key>
 *     before <arg_value>, </arg_value> before <arg_key> or </tool_call>,
 *     </parameter> before <parameter= or </function>. Otherwise the tag is
 *     part of the value, as are all other marks.
 *   - Line ends beside a mark are dropped, in text and thinking.
 *
 * Where a notation is ambiguous:
 *   - a value of "glm" or "qwen-coder" that holds a closing tag with the tag
 *     that may follow it ends there: these models cannot write such values
 *   - a quote ends a string of "lfm2" if a comma, a colon or a bracket follows
 *   - a value there that reads as JSON stays JSON (2, true, "a", {..}), and
 *     everything else becomes a string: the string 2 cannot be told from the
 *     number
 *   - a value of "qwen-coder" loses one line end at its beginning and one at
 *     its end, which are the notation's; one of "glm" is taken unchanged
 *   - JSON that is wrong (a line end in a string, a quote too many) is no JSON
 *     from there on: marks count again. Where a quote is missing, all up to
 *     the next one is the string
 *   - what a user quotes and the model repeats counts like what it writes
 *     itself: text cannot tell
 *
 * Calls that are none. What stands in a call's place and is none (no JSON, no
 * name, white space or '<' inside a name) comes as text, without white space
 * that stood before it; calls before it in the same place are calls. What
 * stands between the tags of a call and belongs to none is dropped. A call
 * that has begun (CALL) and whose arguments turn out not to be JSON, deeper
 * than 48 lists and objects, or longer than the buffer, gets no CALL_END.
 */

/* The name of a format, NULL after the last one. Static text. */
KSLLM_API const char *ksllm_splitter_format_at(size_t index);

/* Begins an answer. `model` may be NULL when options.format is given; it is
 * not used after the call. Errors: ARGUMENT. */
KSLLM_API ksllm_status ksllm_splitter_init(
    ksllm_splitter *splitter, const ksllm_model *model,
    const ksllm_splitter_options *options, ksllm_error *err);

/* Takes the next piece of the answer, in whole characters, decoded with
 * KSLLM_DECODE_SPECIAL (the marks may be control tokens). `size`: KSLLM_NUL
 * allowed. The parts do not depend on how the answer was cut. Arguments that
 * the model writes as JSON come as it wrote them, those of other notations are
 * made JSON.
 *
 * Errors: ARGUMENT; BUFFER: a call was longer than the buffer: one of JSON or
 * with a name that is too long comes as text as far as it fits, one that has
 * begun gets no CALL_END, and the answer goes on; CANCELLED: the callback
 * stopped it, and nothing more will come. */
KSLLM_API ksllm_status ksllm_splitter_next(
    ksllm_splitter *splitter, const char *text, size_t size,
    ksllm_error *err);

/* Ends the answer: held text comes out. Errors: as ksllm_splitter_next, and
 * FORMAT when the answer ended inside of a call or when a call has no
 * CALL_END. What is missing of such a call does not come. */
KSLLM_API ksllm_status ksllm_splitter_end(
    ksllm_splitter *splitter, ksllm_error *err);
#endif /* KSLLM_NO_CHAT */

#if !defined(KSLLM_NO_GRAMMAR)
/* ---- 13 Constraints --------------------------------------------------------
 *
 * What an answer may be: JSON, JSON by a schema, one of some texts, a pattern,
 * text with calls of tools.
 * A grammar is compiled once for a model, is immutable, and any number of
 * threads and sessions may use it at once. examples/extract.c is a whole
 * program.
 *
 *     ksllm_grammar *g;  ksllm_grammar_options o;
 *     ksllm_grammar_options_init(&o);
 *     o.kind = KSLLM_GRAMMAR_SCHEMA;  o.source.data = schema;
 *     ksllm_grammar_create(model, &o, &g, &err);
 *     generation.grammar = g;
 *     ksllm_generate(session, &generation, &result, &err);
 *
 * How an answer under a grammar comes about:
 *
 *   Choosing   A token that the grammar does not allow has no chance; among the
 *              others everything is as ever. The bytes of tokens count, so any
 *              token may come that begins, goes on or ends within one.
 *   Where      The answer begins after the prompt, or after the thinking in
 *              which the prompt ends (generation.thinking). Within thinking no
 *              stop token can come. Where a notation has a mark between the
 *              two ("solar", "hcx-think"), or one before every answer, the
 *              library puts it. In ksllm_chat_generate the grammar constrains
 *              the text for the user, so there are no calls in it, unless it is
 *              one of tools.
 *   Its end    Stop tokens, the model's and generation.stop_tokens, can come
 *              where the answer may end, and only there do they count. When
 *              nothing else can follow, the answer ends without another
 *              evaluation: KSLLM_STOP_COMPLETE. A stop text still ends it
 *              anywhere, whole or not. Within it KSLLM_OVERFLOW_SLIDE does not
 *              slide. With ignore_stop no stop token comes.
 *   In time    With generation.complete, each drawn token is taken only if the
 *              shortest end after it still fits into what is left of
 *              max_tokens and of the context; otherwise the next token of the
 *              shortest end from here is put instead, and where the answer may
 *              end it ends. So an answer that stops by LENGTH or CONTEXT is
 *              whole. When the budget of the control runs out, the shortest
 *              end is put at once, unevaluated (piece.logprob is NAN): an
 *              answer that stops by DEADLINE is whole too, once the prompt has
 *              been evaluated. If not even the shortest answer fits, the call
 *              is refused before anything is evaluated: BUFFER for max_tokens,
 *              CONTEXT for the context. A cancel and a callback that stops
 *              leave the answer as it is. BUFFER within an answer: the grammar
 *              needs more than the session's grammar_bytes.
 *   Going on   A call without a prompt goes on with the answer of the call
 *              before it, if grammar and thinking are the same: with what that
 *              would have brought had it not been stopped. Rewinding to a place
 *              within the answer goes on from there, a fork goes on like its
 *              original. In all other cases a new answer begins where the
 *              session's tokens end: tokens that are added in another way
 *              (sync, append, score), and a prompt, end the one before.
 */
typedef struct ksllm_grammar ksllm_grammar;

typedef enum ksllm_grammar_kind {
    KSLLM_GRAMMAR_JSON = 0,     /* any JSON value, at most 47 arrays and objects
                                   in one another */
    KSLLM_GRAMMAR_SCHEMA = 1,   /* source: a JSON Schema; the answer is JSON.
                                   Where a value may be anything, it ends 47
                                   deep, what is around it counted */
    KSLLM_GRAMMAR_CHOICES = 2,  /* source: a JSON array of strings, of which the
                                   answer is one, without quotes */
    KSLLM_GRAMMAR_REGEX = 3,    /* source: a regular expression of ECMA-262 that
                                   the whole answer matches */
    KSLLM_GRAMMAR_TOOLS = 4,    /* source: tools, as in ksllm_chat, or the
                                   functions alone; the answer is text with
                                   calls of them, see below */
    KSLLM_GRAMMAR_GBNF = 5      /* source: a grammar in llama.cpp's notation */
} ksllm_grammar_kind;

/* With KSLLM_GRAMMAR_TOOLS the grammar is of the whole answer, in the notation
 * in which the model writes calls: thinking, text, then calls, and nothing
 * after them. What it lets through, the splitter takes apart into exactly
 * these calls: of tools that exist, with arguments that their schemas allow. In
 * ksllm_chat_generate the answer begins in the part that the prompt ends in;
 * elsewhere where an answer does, or after `thinking`.
 *   - Arguments are objects. One that a schema does not name under properties
 *     is let through only if it has additionalProperties. The 47 arrays and
 *     objects of SCHEMA are as deep as the splitter reads. A schema that refers
 *     to itself ($ref) has no limit: deeper calls get no CALL_END.
 *   - "glm" and "qwen-coder": the schema of a tool's arguments may have type,
 *     properties, required, $defs and descriptions; others are UNSUPPORTED, or
 *     ignored (`lenient`). A text that the splitter would take for a number or
 *     other JSON, as 101 of a room, has to be written with quotes, "101"; so
 *     has one whose schema says more than type, enum, const, or one of pattern,
 *     format and lengths.
 *   - "lfm2": the same of the schema; True, False and None as in Python. Its
 *     strings have no \u, so no control characters but \b\f\n\r\t.
 *   - "gemma4": strings stand as they are between <|"|>, so neither that nor
 *     <tool_call|> can be in one: keys and values of a schema that have them
 *     are UNSUPPORTED. A key has no quotes if it is of letters,
 *     digits and _-+. and reads as no other value; a key that no schema names
 *     is such a one. A pattern whose texts lack some lengths, as (ab)*, is
 *     UNSUPPORTED beside a minLength and a maxLength above 256.
 *   - "text" and "thought" have no calls: UNSUPPORTED unless CALLS_NONE.
 *   - Names have 1 to 128 bytes, no white space, none of "\<>; with "lfm2" and
 *     "gemma4" letters, digits and _-+. */

/* What an answer may have of calls. */
typedef enum ksllm_calls {
    KSLLM_CALLS_AUTO = 0,       /* text, and calls where the model likes */
    KSLLM_CALLS_REQUIRED = 1,   /* a call at least */
    KSLLM_CALLS_NONE = 2        /* text alone */
} ksllm_calls;

typedef struct ksllm_grammar_options {
    size_t size;
    ksllm_grammar_kind kind;
    ksllm_calls calls;          /* TOOLS */
    ksllm_text source;          /* a size of KSLLM_NUL (set by _init) ends it at
                                   its NUL; used during the call only */
    const char *format;         /* TOOLS: how the model writes calls, a name of
                                   ksllm_splitter_format_at. NULL: by the file's
                                   template */
    const char *tool;           /* TOOLS: the one that has to be called. NULL:
                                   any */
    /* SCHEMA, TOOLS: the keys that a schema names come in its order, others
     * after them. Otherwise in any order. Each comes at most once, the
     * required ones in any case; keys that it does not name, where it lets
     * them, may come twice. */
    bool ordered;
    /* SCHEMA, TOOLS: leave out what cannot be enforced. ksllm_grammar_ignored
     * tells how much it was. Otherwise it is refused. */
    bool lenient;
    /* JSON, SCHEMA, TOOLS: characters of white space in a row, between tokens
     * of JSON. 0: none. Default 16. Before and after the value there is
     * none. */
    uint32_t max_space;
    uint32_t max_program;       /* the compiled grammar's size: instructions of
                                   12 bytes. 0: 65,536 */
    const ksllm_allocator *allocator;   /* NULL: the model's */
} ksllm_grammar_options;

/* Any JSON value, white space up to 16 characters. */
KSLLM_API void ksllm_grammar_options_init_sized(
    ksllm_grammar_options *options, size_t size);
static inline void ksllm_grammar_options_init(ksllm_grammar_options *options) {
    ksllm_grammar_options_init_sized(options, sizeof *options);
}

/* Compiles a grammar for a model, which must outlive it; one that was opened
 * with vocab_only will do. Some milliseconds at most. The first grammar of a
 * model also builds an index of its vocabulary, which is kept until the model
 * is closed: 15 to 60 ms, 2 to 5 MB from the model's allocator.
 *
 * Errors: ARGUMENT (the source is wrong: err->offset is the byte; or it allows
 * nothing at all), UNSUPPORTED (what it asks for cannot be enforced; the same),
 * BUFFER (max_program), MEMORY. On error *out is NULL. */
KSLLM_API ksllm_status ksllm_grammar_create(
    const ksllm_model *model, const ksllm_grammar_options *options,
    ksllm_grammar **out, ksllm_error *err);

/* NULL is ignored. Not while a call or a matcher uses it. */
KSLLM_API void ksllm_grammar_free(ksllm_grammar *grammar);

/* How many keywords of a schema were left out (`lenient`). If there are any,
 * *offset receives where in the source the first one is; it may be NULL. */
KSLLM_API size_t ksllm_grammar_ignored(
    const ksllm_grammar *grammar, size_t *offset);

/* A grammar at work, for programs that draw tokens themselves. It lives in the
 * caller's memory, holds no resource and need not be freed. One thread at a
 * time. */
typedef struct ksllm_matcher ksllm_matcher;

/* Bytes that a matcher needs, with tables of `table_bytes` (0: 255 KiB). */
KSLLM_API size_t ksllm_matcher_bytes(
    const ksllm_grammar *grammar, size_t table_bytes);

/* Begins an answer in `memory`, any alignment, which is the matcher's until the
 * end; `grammar` must outlive it. To begin another answer, call it again.
 * Errors: ARGUMENT, BUFFER (memory_size is too small). */
KSLLM_API ksllm_status ksllm_matcher_init(
    const ksllm_grammar *grammar, void *memory, size_t memory_size,
    ksllm_matcher **out, ksllm_error *err);

/* Whether a token may come next. Much cheaper than all of them. */
KSLLM_API bool ksllm_matcher_takes(ksllm_matcher *matcher, int32_t token);

/* Takes a token. A stop token ends the answer, and nothing can follow. Errors:
 * ARGUMENT (it may not come, and nothing has changed), TOKEN, BUFFER (the
 * tables are too small for this grammar: begin again with more). */
KSLLM_API ksllm_status ksllm_matcher_next(
    ksllm_matcher *matcher, int32_t token);

/* Which tokens may come next, none that the file suppresses (10) among them: a
 * bit each, token 0 is bit 0 of the first word.
 * *n_words, which may be NULL, receives how many words there are. Valid until
 * the next call. NULL after BUFFER. */
KSLLM_API const uint64_t *ksllm_matcher_allowed(
    ksllm_matcher *matcher, size_t *n_words);

/* Whether the answer may end here, and whether nothing else is possible. */
KSLLM_API bool ksllm_matcher_may_end(const ksllm_matcher *matcher);
KSLLM_API bool ksllm_matcher_must_end(ksllm_matcher *matcher);

/* Text that must come next, whatever the tokens: writes at most `cap` bytes and
 * returns their number, 0 if more than one byte can follow. */
KSLLM_API size_t ksllm_matcher_forced(
    ksllm_matcher *matcher, char *text, size_t cap);

/* The tokens of a shortest way to an end: writes at most `cap` and returns how
 * many there are; 0: the answer may end here; BUFFER: there was none within the
 * work that a call may do. */
KSLLM_API int64_t ksllm_matcher_close(
    ksllm_matcher *matcher, int32_t *tokens, size_t cap);
#endif /* KSLLM_NO_GRAMMAR */

/* ---- 14 Adapters -----------------------------------------------------------
 *
 * LoRA: what a model was taught besides, as a small file. Any number of them
 * may be open beside one model; each session uses one at a time, or none, and
 * can change it between calls.
 *
 *     ksllm_adapter *a;
 *     ksllm_adapter_open(model, "polite.gguf", &a, &err);
 *     options.max_rank = ksllm_adapter_rank(a);
 *     ksllm_session_create(model, &options, &session, &err);
 *     ksllm_session_set_adapter(session, a, 1, 0, &err);
 *
 * The file is a GGUF file as llama.cpp's convert_lora_to_gguf.py and
 * `ksllm-quant convert` make it from a PEFT folder: general.type "adapter",
 * adapter.type "lora", adapter.lora.alpha, and for each matrix of the model
 * that it changes two tensors of F32, F16 or BF16, NAME.lora_a and NAME.lora_b.
 * It is mapped and used in place, as a model is, and checked as strictly. The
 * model's own weights stay as they are. With rank 16 on all matrices of a
 * model of 1.2B in Q4_0 a token takes about 8 % longer, a prompt 6 %.
 *
 * Results depend on the adapter, its scale and where it begins as they do on
 * the model: not on threads, batches or the instruction set. A saved state
 * belongs to all three. */
typedef struct ksllm_adapter ksllm_adapter;

/* Opens an adapter for a model, which must outlive it, as ksllm_model_open,
 * _fd and _memory do. Errors: as there; UNSUPPORTED also when it is for another
 * architecture, or for a tensor that the model does not have or that cannot
 * have one (embeddings, experts); FORMAT also when shapes are another model's.
 * On error *out is NULL. */
KSLLM_API ksllm_status ksllm_adapter_open(
    const ksllm_model *model, const char *path,
    ksllm_adapter **out, ksllm_error *err);
KSLLM_API ksllm_status ksllm_adapter_open_fd(
    const ksllm_model *model, int fd, uint64_t offset, uint64_t length,
    ksllm_adapter **out, ksllm_error *err);
KSLLM_API ksllm_status ksllm_adapter_open_memory(
    const ksllm_model *model, const void *data, size_t size,
    ksllm_adapter **out, ksllm_error *err);

/* NULL is ignored. Not while a session uses it. */
KSLLM_API void ksllm_adapter_close(ksllm_adapter *adapter);

/* Its largest rank, for options.max_rank. 0 for NULL. */
KSLLM_API uint32_t ksllm_adapter_rank(const ksllm_adapter *adapter);

/* Where in these tokens the adapter begins to count: 0, or for an aLoRA, which
 * names invocation tokens, where these come for the last time; SIZE_MAX when
 * they do not. What stands before is the model's own, so a prompt that the
 * cache holds without the adapter is kept. */
KSLLM_API size_t ksllm_adapter_begins(
    const ksllm_adapter *adapter, const int32_t *tokens, size_t n_tokens);

/* Computes with `adapter` (NULL: without one) from position `from` of the
 * context on, times `scale`, usually 1; 0 is the same as none. The adapter must
 * stay open until another one is set or the session is freed. Tokens that this
 * changes are evaluated again by the next call that evaluates; there are no
 * logits until then. If the context slides, `from` goes along. A fork has its
 * original's adapter. Allocates nothing.
 * Errors: ARGUMENT (its rank is above options.max_rank; it is of another
 * model), STATE. */
KSLLM_API ksllm_status ksllm_session_set_adapter(
    ksllm_session *session, const ksllm_adapter *adapter, float scale,
    size_t from, ksllm_error *err);

#if !defined(KSLLM_NO_MEDIA)
/* ---- 15 Media --------------------------------------------------------------
 *
 * Pictures for models that see, and sounds for models that hear; some do both.
 * The file holds a tower for each beside the language model (ksllm-quant puts
 * it there): it makes rows of a picture, which the language model reads as it
 * reads tokens.
 *
 *     ksllm_media_measure(model, &image, NULL, &size, &err);
 *     media.memory = malloc(media.memory_size = size.memory);
 *     ksllm_encoder_create(model, NULL, &encoder, &err);
 *     ksllm_media_encode(encoder, &image, NULL, NULL, &media, &err);
 *     chat.media = &pointer_to_media;  chat.n_media = 1;
 *     ksllm_chat_generate(session, &chat, NULL, on_part, ctx, NULL, &err);
 *
 * examples/see.c is a whole program.
 *
 *   Pixels   are 8 bits of R, G and B: the program decodes JPEG and PNG, turns
 *            a picture as its EXIF data says, and puts transparent ones on a
 *            background. From there on all is as in the model's own processor,
 *            to the byte: sizes, Pillow's resampling, tiles.
 *   Places   In a conversation a picture is a part of a message's content:
 *            [{"type": "image"}, {"type": "text", "text": "..."}]. The template
 *            leaves a token for it, ksllm_model_info.picture_place, and for a
 *            sound sound_place. Text cannot forge one: see ksllm_chat_encode.
 *   Names    In a list of tokens a picture is n_tokens negative numbers, made
 *            from a hash of its pixels, the options and nothing else. So the
 *            same picture is the same numbers in every process, and what the
 *            session holds of it is found again: sync, rewind, fork, save and
 *            load treat it as text. They stand together, from the first on. A
 *            context that slides loses whole pictures, those that reach into
 *            n_keep too, and evaluates the others again: where they are not
 *            lent it does not slide (CONTEXT). Where text is meant such
 *            numbers are refused: ksllm_decode, ksllm_session_score (TOKEN).
 *   Results  The rows depend on the model, the pixels and the options, and on
 *            nothing else: not on threads or the instruction set.
 *   Codes    The template of HyperCLOVA X Omni also leaves places for discrete
 *            codes (<|DISCRETE_IMAGE_PAD|>: 760 tokens more of a picture). They
 *            are not computed and that token stays: the model reads the rows
 *            alone, as with its later processor by default.
 *   Context  A picture takes hundreds to thousands of tokens. ksllm_media_size
 *            says how many before anything is computed; max_tokens limits them,
 *            which is worth more time than anything else: reading them takes
 *            longer than the tower.
 */

/* A picture: rows from the top, pixels from the left, three bytes each: R, G,
 * B. Used during a call only. Each side has 1 to 65,535 pixels, all of it 2^28
 * at most. */
typedef struct ksllm_image {
    const uint8_t *rgb;
    uint32_t width, height;
    size_t stride;              /* bytes from row to row; 0: 3 * width */
} ksllm_image;

typedef struct ksllm_media_options {
    size_t size;
    /* The picture is made smaller until it takes no more tokens than this. 0:
     * the model's own limit. */
    uint32_t max_tokens;
    /* Of models that cut a picture into tiles: at most so many, the one of the
     * whole picture not counted. 1: the whole picture once, which is what
     * LLaVA-OneVision models (VARCO-VISION 2.0) do with each of several
     * pictures; there the program says so, from the first picture on. 0: the
     * model's rule for a single picture. */
    uint32_t max_tiles;
} ksllm_media_options;

/* The model's own limits. */
KSLLM_API void ksllm_media_options_init_sized(
    ksllm_media_options *options, size_t size);
static inline void ksllm_media_options_init(ksllm_media_options *options) {
    ksllm_media_options_init_sized(options, sizeof *options);
}

/* What a picture will take. */
typedef struct ksllm_media_size {
    size_t size;                /* set it to sizeof before the call */
    size_t memory;              /* bytes for ksllm_media.memory */
    uint32_t n_tokens;          /* of the context */
    uint32_t n_tiles;           /* that the tower sees, the whole one too */
    uint32_t width, height;     /* what the picture is resized to, to map boxes
                                   back */
    uint64_t n_macs;            /* multiply-adds of the tower */
} ksllm_media_size;

/* Computes no pixel; image->rgb may be NULL. options NULL: the defaults.
 * Errors: ARGUMENT (the picture is empty, too large or too narrow; max_tokens
 * is less than the least that it can take: the text says how many that is),
 * UNSUPPORTED (the model does not see). */
KSLLM_API ksllm_status ksllm_media_measure(
    const ksllm_model *model, const ksllm_image *image,
    const ksllm_media_options *options, ksllm_media_size *out,
    ksllm_error *err);

/* A picture or a sound as the language model reads it. The struct and its
 * memory are the caller's. Begin it with zeros, set size, memory and
 * memory_size; the others are filled in. It may be kept as long as it is of
 * use, and given to any session of the model; the model must stay open. */
typedef struct ksllm_media {
    size_t size;
    void *memory;               /* any alignment */
    size_t memory_size;         /* at least ksllm_media_size.memory */
    const ksllm_model *model;
    const int32_t *tokens;      /* its n_tokens negative numbers */
    const float *rows;          /* [n_tokens][n_embd]; NULL: named only */
    uint64_t hash[2];           /* of the pixels, or samples: [1] is odd */
    uint32_t n_tokens, n_embd;
    uint64_t n_samples;         /* of a sound; a picture: 0 */
} ksllm_media;

/* Names a picture: tokens without rows, a millisecond for a megapixel. Where a
 * session still holds all of them (ksllm_session_common) rows are not needed.
 * Errors: as ksllm_media_measure; BUFFER (memory_size is too small). */
KSLLM_API ksllm_status ksllm_media_name(
    const ksllm_model *model, const ksllm_image *image,
    const ksllm_media_options *options, ksllm_media *media, ksllm_error *err);

/* The towers at work: threads, and one block of memory that the one at work
 * uses. Serves any number of sessions, one call at a time (STATE). Free it
 * before an answer, and its memory is there for that; or keep it. */
typedef struct ksllm_encoder ksllm_encoder;

typedef struct ksllm_encoder_options {
    size_t size;
    /* Of the largest picture or sound that it takes. 0: the model's limits.
     * Towers that see or hear all of it at once take memory by it; those that
     * see tiles or hear chunks do not, and take any. */
    uint32_t max_tokens;
    uint32_t n_threads;         /* as in ksllm_session_options, like the rest */
    void *memory;
    size_t memory_size;
    const ksllm_allocator *allocator;
    ksllm_parallel_for parallel_for;
    void *parallel_ctx;
    void (*on_thread)(void *ctx, uint32_t index);
    void *thread_ctx;
} ksllm_encoder_options;

/* The model's limit, a thread per fast core. */
KSLLM_API void ksllm_encoder_options_init_sized(
    ksllm_encoder_options *options, size_t size);
static inline void ksllm_encoder_options_init(ksllm_encoder_options *options) {
    ksllm_encoder_options_init_sized(options, sizeof *options);
}

/* The bytes of its one allocation. Errors: ARGUMENT, UNSUPPORTED, MEMORY. */
KSLLM_API ksllm_status ksllm_encoder_memory(
    const ksllm_model *model, const ksllm_encoder_options *options,
    size_t *bytes, ksllm_error *err);

/* Creates an encoder. The model must outlive it. Errors: as
 * ksllm_session_create. On error *out is NULL. */
KSLLM_API ksllm_status ksllm_encoder_create(
    const ksllm_model *model, const ksllm_encoder_options *options,
    ksllm_encoder **out, ksllm_error *err);

/* NULL is ignored. Not while a call on it runs. */
KSLLM_API void ksllm_encoder_free(ksllm_encoder *encoder);

/* Names a picture and computes its rows. A cancel and the budget take effect
 * within milliseconds; then the media has its names alone, or none and
 * n_tokens 0. on_progress counts layers, of all tiles. Allocates nothing.
 * Errors: as ksllm_media_name; ARGUMENT (it takes more tokens than the encoder
 * was created for), CANCELLED, DEADLINE, STATE. */
KSLLM_API ksllm_status ksllm_media_encode(
    ksllm_encoder *encoder, const ksllm_image *image,
    const ksllm_media_options *options, const ksllm_control *control,
    ksllm_media *media, ksllm_error *err);

/* Speech, for models that hear (Qwen3-ASR, HyperCLOVA X Omni): samples of one
 * channel, 16,000 a second, full scale from -1 to 1. Used during a call only.
 * 2^28 at most. */
typedef struct ksllm_sound {
    const float *samples;
    size_t n_samples;
} ksllm_sound;

/* As ksllm_media_measure, _name and _encode, of a sound. A second takes 13
 * tokens with Qwen3-ASR, 25 with HyperCLOVA X Omni, whose tower works for each
 * chunk of 30 seconds as long as for a whole one: n_tiles counts them. samples
 * may be NULL for the first; width and height are 0. An encoder is created for
 * sound_tokens of ksllm_model_info by default; max_tokens may be more. What
 * comes out is media as any other.
 * Errors: as those, and ARGUMENT for a sample that is no number. */
KSLLM_API ksllm_status ksllm_media_measure_sound(
    const ksllm_model *model, const ksllm_sound *sound, ksllm_media_size *out,
    ksllm_error *err);
KSLLM_API ksllm_status ksllm_media_name_sound(
    const ksllm_model *model, const ksllm_sound *sound, ksllm_media *media,
    ksllm_error *err);
KSLLM_API ksllm_status ksllm_media_encode_sound(
    ksllm_encoder *encoder, const ksllm_sound *sound,
    const ksllm_control *control, ksllm_media *media, ksllm_error *err);

/* Puts the tokens of each media in the place that the template left for it, in
 * order: writes at most `cap` tokens to `out` and returns how many there are,
 * so a call with cap 0 (out may be NULL) measures. `out` must not overlap
 * `tokens`. Errors: ARGUMENT (there are not n_media places, or one is for a
 * sound where a picture comes; a media is of another model), UNSUPPORTED (the
 * model has no tower). */
KSLLM_API int64_t ksllm_media_expand(
    const ksllm_model *model, const int32_t *tokens, size_t n_tokens,
    const ksllm_media *const *media, size_t n_media,
    int32_t *out, size_t cap, ksllm_error *err);

/* Lends a session the rows that negative tokens stand for. The list and what it
 * points to are used by every call that evaluates, until another list is lent
 * or the session is freed. NULL, 0: none. ksllm_chat_generate lends chat->media
 * by itself and, when it returns, what was lent before.
 *
 * A call whose tokens need rows that are not lent is refused (STATE), and the
 * session stays as it was. What it holds needs none: only where it has to be
 * evaluated again are they needed again, as with sliding windows after a
 * rewind. A fork has what its original was lent.
 * Errors: ARGUMENT (more than 64; of another model), STATE. */
KSLLM_API ksllm_status ksllm_session_lend(
    ksllm_session *session, const ksllm_media *const *media, size_t n_media,
    ksllm_error *err);

/* How many of these tokens the session holds from the start on: what sync would
 * not evaluate. 0 for NULL. */
KSLLM_API size_t ksllm_session_common(
    const ksllm_session *session, const int32_t *tokens, size_t n_tokens);
#endif /* KSLLM_NO_MEDIA */

/* ---- 16 Several sessions ---------------------------------------------------
 *
 * Several sessions of one model in one call: the weights, which are most of
 * what a token has to read, are read once for all of them. Each session gets
 * what a call for it alone gives, to the last bit. Four answers take about as
 * long as two do alone. Long prompts fill a pass by themselves: with them
 * nothing is gained.
 *
 * The sessions are of one model and one kv_type, each is given once, and the
 * n_batch of each is at least their number (ARGUMENT otherwise). All else may
 * differ. The call runs on the threads of the first one and in its memory for a
 * batch: nothing is allocated (but to render a chat), and ksllm_session_memory
 * is all that each needs. A pass evaluates at most that session's n_batch
 * tokens: one of each session, and of longer prompts as many as there is room
 * for, in the order of the list. A session with an adapter has weights of its
 * own, so it evaluates alone.
 *
 * Each session has its own control. One that is stopped, whose answer ends, or
 * which cannot begin (a wrong argument, STATE: another call runs on it) does
 * not hold up the others. If it is stopped during a pass, the others evaluate
 * that pass again. All stay busy until the call returns.
 *
 *     ksllm_member m[2] = {{.session = one, .generation = &its},
 *                          {.session = two, .generation = &other}};
 *     ksllm_sessions_generate(m, 2, &err);     then look at m[i].status
 *
 * A server keeps its sessions in one call, and gives each its next question
 * when there is one: examples/serve.c.
 */
#define KSLLM_MAX_SESSIONS 8

typedef struct ksllm_member {
    ksllm_session *session;
    /* ksllm_sessions_append: as in ksllm_session_append */
    const int32_t *tokens;
    size_t n_tokens;
    const ksllm_control *control;
    /* ksllm_sessions_generate: as in ksllm_generate, or if `chat` is set, as in
     * ksllm_chat_generate */
    const ksllm_generation *generation;
    ksllm_result *result;
    /* Both fill in what the call for this session alone would return. `err`
     * may be NULL: then the text goes to that of the call. */
    ksllm_status status;
    ksllm_error *err;
    /* ksllm_sessions_generate: a turn of a chat (12), or NULL */
    const struct ksllm_chat *chat;
    ksllm_on_part on_part;
    void *part_ctx;
    /* ksllm_sessions_generate: asks for one answer after the other. Called
     * between passes while none is under way on this session: before the first,
     * when one has ended (status, err and result are then that one's), and as
     * long as others run. Fill in generation and what belongs to it, chat
     * included, and return true: the answer joins the others at their next
     * token. False: there is nothing to ask now. The others wait while it runs.
     * NULL: the member has one answer. */
    bool (*next)(void *ctx, struct ksllm_member *member);
    void *next_ctx;
} ksllm_member;

/* ksllm_session_append for each. Returns the status of the first member whose
 * call failed; where the call as a whole is refused (ARGUMENT) no member is
 * touched. */
KSLLM_API ksllm_status ksllm_sessions_append(
    ksllm_member *members, size_t n_members, ksllm_error *err);

/* ksllm_generate or ksllm_chat_generate for each, until all answers have ended
 * and no `next` has another; otherwise as ksllm_sessions_append. Callbacks come
 * on the calling thread, one at a time. Drafts are tried only while a single
 * answer is under way, and with more than one session generation.drafter is not
 * used; one that waits for max_tokens_per_second lets the others go on. */
KSLLM_API ksllm_status ksllm_sessions_generate(
    ksllm_member *members, size_t n_members, ksllm_error *err);

#ifdef __cplusplus
}
#endif
#endif
