/* ksllm_jni.c - the C half of Ksllm.java.
 *
 * A call runs on the Java thread that made it, and so do its callbacks: their
 * JNIEnv is the call's. The workers of a session never touch Java. A callback
 * that leaves an exception pending ends the call, and the exception is thrown
 * where the call returns.
 */
#include "ksllm.h"

#include <jni.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXTS = 3 + KSLLM_MAX_STOPS };

typedef struct engine {
    ksllm_model *model;
    ksllm_session *session;
    ksllm_cancel cancel;
} engine;

/* What one call uses of Java, and copies of the texts that it was given. */
typedef struct call {
    JNIEnv *env;
    jobject sink;
    engine *engine;
    char *copy[MAX_TEXTS];
    size_t n_copies;
} call;

static jclass the_class;        /* global, found when the library is loaded */
static jmethodID on_part_id, error_id;

static engine *engine_of(jlong handle)
{
    return (engine *)(intptr_t)handle;
}

/* NULL: an OutOfMemoryError is pending. */
static jbyteArray bytes_of(JNIEnv *env, const char *p, size_t n)
{
    jbyteArray a = (*env)->NewByteArray(env, (jsize)n);
    if (a)
        (*env)->SetByteArrayRegion(env, a, 0, (jsize)n, (const jbyte *)p);
    return a;
}

static void throw_error(JNIEnv *env, ksllm_status status, const char *text)
{
    jbyteArray a = NULL;
    jobject error = NULL;
    if (!(*env)->ExceptionCheck(env))   /* a listener's own goes first */
        a = bytes_of(env, text, strlen(text));
    if (a)
        error = (*env)->CallStaticObjectMethod(env, the_class, error_id,
                                               (jint)status, a);
    if (error && !(*env)->ExceptionCheck(env))
        (*env)->Throw(env, (jthrowable)error);
}

/* A copy that ends with NUL and lives as long as the call. An array of null is
 * no text. False: an exception is pending. */
static bool take(call *c, jbyteArray array, ksllm_text *out)
{
    JNIEnv *env = c->env;
    *out = (ksllm_text){NULL, 0};
    if (!array)
        return true;
    jsize n = (*env)->GetArrayLength(env, array);
    char *p = c->n_copies < MAX_TEXTS ? malloc((size_t)n + 1) : NULL;
    if (!p) {
        throw_error(env, KSLLM_ERR_MEMORY, "no memory, or too many texts");
        return false;
    }
    (*env)->GetByteArrayRegion(env, array, 0, n, (jbyte *)p);
    p[n] = '\0';
    c->copy[c->n_copies++] = p;
    *out = (ksllm_text){p, (size_t)n};
    return true;
}

static bool take_all(call *c, jobjectArray arrays, ksllm_text *out,
                     size_t *n_out, size_t cap)
{
    JNIEnv *env = c->env;
    jsize n = (*env)->GetArrayLength(env, arrays);
    if ((size_t)n > cap) {
        throw_error(env, KSLLM_ERR_ARGUMENT, "too many stop texts");
        return false;
    }
    for (jsize i = 0; i < n; i++) {
        jobject a = (*env)->GetObjectArrayElement(env, arrays, i);
        bool ok = take(c, (jbyteArray)a, &out[i]);
        (*env)->DeleteLocalRef(env, a);
        if (!ok)
            return false;
    }
    *n_out = (size_t)n;
    return true;
}

static void drop(call *c)
{
    for (size_t i = 0; i < c->n_copies; i++)
        free(c->copy[i]);
}

/* ---- callbacks ---- */

/* 1 to go on, 0 to end, -1: an exception is pending. */
static int hand_out(call *c, ksllm_part part, ksllm_text text)
{
    JNIEnv *env = c->env;
    jbyteArray a = bytes_of(env, text.data, text.size);
    if (!a)
        return -1;
    jboolean on = (*env)->CallStaticBooleanMethod(
        env, the_class, on_part_id, c->sink, (jint)part, a);
    bool threw = (*env)->ExceptionCheck(env);
    (*env)->DeleteLocalRef(env, a);     /* or there are thousands */
    return threw ? -1 : on != JNI_FALSE;
}

static int on_piece(void *ctx, const ksllm_piece *piece)
{
    return piece->text.size && hand_out(ctx, KSLLM_PART_TEXT, piece->text) < 1;
}

/* Who ends an answer still gets the message of what was said: a cancel gives
 * it, and a callback that stops does not. */
static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    call *c = ctx;
    int on = hand_out(c, part, text);
    if (on == 0)
        ksllm_cancel_set(&c->engine->cancel);
    return on < 0;
}

/* ---- calls ---- */

static jlong JNICALL native_open(JNIEnv *env, jclass class, jbyteArray path,
                                 jint fd, jlong offset, jlong length,
                                 jint n_ctx, jint n_batch, jint n_threads)
{
    ksllm_session_options options;
    ksllm_error err = {.status = KSLLM_OK};
    call c = {.env = env};
    ksllm_text name;
    (void)class;
    engine *e = calloc(1, sizeof *e);
    if (!e) {
        throw_error(env, KSLLM_ERR_MEMORY, "no memory");
        return 0;
    }
    ksllm_session_options_init(&options);
    options.n_ctx = (uint32_t)n_ctx;
    options.n_batch = (uint32_t)n_batch;
    options.n_threads = (uint32_t)n_threads;
    bool ok = take(&c, path, &name);
    if (ok && path)
        ok = ksllm_model_open(name.data, NULL, &e->model, &err) == KSLLM_OK;
    else if (ok)
        ok = ksllm_model_open_fd(fd, (uint64_t)offset, (uint64_t)length, NULL,
                                 &e->model, &err) == KSLLM_OK;
    ok = ok && ksllm_session_create(e->model, &options, &e->session, &err) ==
                   KSLLM_OK;
    drop(&c);
    if (ok)
        return (jlong)(intptr_t)e;
    ksllm_model_close(e->model);
    free(e);
    if (err.status != KSLLM_OK)
        throw_error(env, err.status, err.text);
    return 0;
}

static ksllm_status run(call *c, ksllm_text text, jobjectArray chat_texts,
                        ksllm_generation *want, ksllm_result *result,
                        ksllm_error *err)
{
    ksllm_text rest[2];
    ksllm_chat chat;
    size_t n;
    if (!chat_texts) {
        want->text = text.data;
        want->text_size = text.size;
        want->on_piece = on_piece;
        want->piece_ctx = c;
        return ksllm_generate(c->engine->session, want, result, err);
    }
    if (!take_all(c, chat_texts, rest, &n, 2))
        return KSLLM_OK;                /* an exception is pending */
    ksllm_chat_init(&chat);
    chat.messages = text;
    chat.tools = rest[0];
    chat.variables = rest[1];
    return ksllm_chat_generate(c->engine->session, &chat, want, on_part, c,
                               result, err);
}

static void JNICALL native_run(
    JNIEnv *env, jclass class, jlong handle, jbyteArray text,
    jobjectArray chat, jobjectArray stops, jint max_tokens, jlong budget,
    jfloat temperature, jfloat top_p, jlong seed, jint unit, jfloat pace,
    jint max_thinking, jobject sink, jlongArray numbers)
{
    call c = {.env = env, .sink = sink, .engine = engine_of(handle)};
    ksllm_result result = {.size = sizeof result};
    ksllm_text prompt, stop_texts[KSLLM_MAX_STOPS];
    ksllm_error err;
    ksllm_status status = KSLLM_OK;
    ksllm_control control;
    ksllm_sampling sampling;
    ksllm_generation want;
    (void)class;
    ksllm_control_init(&control);
    control.cancel = &c.engine->cancel;
    control.budget_us = (uint64_t)budget;
    control.max_tokens_per_second = pace;
    ksllm_sampling_from_model(&sampling, c.engine->model);
    sampling.seed = (uint64_t)seed;
    if (temperature >= 0)
        sampling.temperature = temperature;
    if (top_p >= 0)
        sampling.top_p = top_p;
    ksllm_generation_init(&want);
    want.max_tokens = (uint32_t)max_tokens;
    want.max_thinking = (uint32_t)max_thinking;
    want.unit = (ksllm_unit)unit;
    want.control = &control;
    want.sampling = &sampling;
    want.stop_texts = stop_texts;
    if (take(&c, text, &prompt) &&
        take_all(&c, stops, stop_texts, &want.n_stop_texts, KSLLM_MAX_STOPS))
        status = run(&c, prompt, chat, &want, &result, &err);
    drop(&c);
    if ((*env)->ExceptionCheck(env))
        return;
    jlong all[6] = {result.stop, (jlong)result.n_prompt,
                    (jlong)result.n_reused, (jlong)result.n_generated,
                    (jlong)result.first_ns, (jlong)result.total_ns};
    (*env)->SetLongArrayRegion(env, numbers, 0, 6, all);
    if (status != KSLLM_OK && status != KSLLM_ERR_CANCELLED &&
        status != KSLLM_ERR_DEADLINE)
        throw_error(env, status, err.text);
}

static void JNICALL native_ready(JNIEnv *env, jclass class, jlong handle)
{
    (void)env, (void)class;
    ksllm_cancel_clear(&engine_of(handle)->cancel);
}

static void JNICALL native_cancel(JNIEnv *env, jclass class, jlong handle)
{
    (void)env, (void)class;
    ksllm_cancel_set(&engine_of(handle)->cancel);
}

static void JNICALL native_close(JNIEnv *env, jclass class, jlong handle)
{
    engine *e = engine_of(handle);
    (void)env, (void)class;
    ksllm_session_free(e->session);
    ksllm_model_close(e->model);
    free(e);
}

static jbyteArray JNICALL native_version(JNIEnv *env, jclass class)
{
    (void)class;
    return bytes_of(env, ksllm_version(), strlen(ksllm_version()));
}

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved)
{
    /* JNINativeMethod has no const; nothing is written through it. */
    static const JNINativeMethod methods[] = {
        {(char *)"nativeVersion", (char *)"()[B", (void *)native_version},
        {(char *)"nativeOpen", (char *)"([BIJJIII)J", (void *)native_open},
        {(char *)"nativeRun",
         (char *)"(J[B[[B[[BIJFFJIFILksllm/Ksllm$Sink;[J)V",
         (void *)native_run},
        {(char *)"nativeReady", (char *)"(J)V", (void *)native_ready},
        {(char *)"nativeCancel", (char *)"(J)V", (void *)native_cancel},
        {(char *)"nativeClose", (char *)"(J)V", (void *)native_close}};
    JNIEnv *env;
    (void)reserved;
    if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_6) != JNI_OK)
        return JNI_ERR;
    jclass found = (*env)->FindClass(env, "ksllm/Ksllm");
    if (!found)
        return JNI_ERR;
    the_class = (*env)->NewGlobalRef(env, found);
    on_part_id = (*env)->GetStaticMethodID(env, found, "onPart",
                                           "(Lksllm/Ksllm$Sink;I[B)Z");
    if (!on_part_id)
        return JNI_ERR;
    error_id = (*env)->GetStaticMethodID(
        env, found, "error", "(I[B)Lksllm/Ksllm$KsllmException;");
    if (!the_class || !error_id ||
        (*env)->RegisterNatives(env, found, methods,
                                sizeof methods / sizeof methods[0]) != 0)
        return JNI_ERR;
    return JNI_VERSION_1_6;
}
