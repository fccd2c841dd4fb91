/* hear.c - what was said in a WAV file, by a model that hears (Qwen3-ASR).
 *
 *     ksllm-quant convert Qwen3-ASR-0.6B-hf -o asr.gguf -t q8_0
 *     cc -O2 examples/hear.c ksllm.c -lm -pthread -o hear
 *     ./hear asr.gguf speech.wav ["words that may come" [MMPROJ.gguf]]
 *
 * Shows: what a sound will take before anything is computed; the encoder, whose
 * memory is given back before the answer; a sound as a part of a message. The
 * file has 16 bits and 16,000 samples a second; others become that by
 *
 *     ffmpeg -i in.m4a -ar 16000 -ac 1 -c:a pcm_s16le out.wav
 *
 * A microphone gives such samples at once: arecord -f S16_LE -r 16000, AAudio,
 * AVAudioEngine.
 */
#include "../ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(ksllm_status status, const ksllm_error *err)
{
    if (status == KSLLM_OK)
        return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static unsigned number(const unsigned char *p, int bytes)
{
    unsigned v = 0;
    for (int i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* The samples of a file, all channels mixed; NULL: it is of another kind. */
static float *read_wav(const char *path, size_t *n)
{
    unsigned char head[12], chunk[8], format[16] = {0};
    float *samples = NULL;
    FILE *f = fopen(path, "rb");
    *n = 0;
    if (!f || fread(head, 1, 12, f) != 12 || memcmp(head, "RIFF", 4)
        || memcmp(head + 8, "WAVE", 4))
        return NULL;
    while (fread(chunk, 1, 8, f) == 8) {
        unsigned size = number(chunk + 4, 4), channels = number(format + 2, 2);
        if (!memcmp(chunk, "fmt ", 4) && size >= 16
            && fread(format, 1, 16, f) == 16) {
            fseek(f, (long)(size - 16 + (size & 1)), SEEK_CUR);
        } else if (memcmp(chunk, "data", 4)) {
            fseek(f, (long)size + (size & 1), SEEK_CUR);
        } else if (channels && number(format + 4, 4) == 16000
                   && number(format + 14, 2) == 16) {
            size_t most = size / 2 / channels;
            unsigned char pair[2];
            samples = malloc((most + 1) * sizeof *samples);
            for (size_t i = 0; samples && i < most * channels; i++) {
                if (fread(pair, 1, 2, f) != 2)
                    break;
                int v = (int)number(pair, 2);
                if (i % channels == 0)
                    samples[(*n)++] = 0;
                samples[*n - 1] += (float)(v < 32768 ? v : v - 65536)
                    / 32768 / (float)channels;
            }
            break;
        } else {
            break;
        }
    }
    fclose(f);
    return samples;
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (part == KSLLM_PART_TEXT)
        fwrite(text.data, 1, text.size, stdout);
    return fflush(stdout);
}

/* The message: a text for what may come, and the place of the sound. The
 * template of HyperCLOVA X Omni calls that {"type": "input_audio"}. */
static char *message(const char *words)
{
    static const char before[] = "[{\"role\": \"system\", \"content\": ";
    static const char after[] = "}, {\"role\": \"user\", \"content\": "
                                "[{\"type\": \"audio\"}]}]";
    size_t n = (size_t)ksllm_json_string(words, KSLLM_NUL, NULL, 0);
    char *m = malloc(sizeof before + n + sizeof after);
    if (!m)
        exit(1);
    strcpy(m, before);
    ksllm_json_string(words, KSLLM_NUL, m + strlen(before), n);
    strcpy(m + strlen(before) + n, after);
    return m;
}

int main(int argc, char **argv)
{
    ksllm_model *model;
    ksllm_encoder *encoder;
    ksllm_session *session;
    ksllm_model_options files;
    ksllm_encoder_options ear;
    ksllm_session_options o;
    ksllm_chat chat;
    ksllm_error err;
    if (argc < 3) {
        fprintf(stderr, "hear MODEL.gguf SPEECH.wav [WORDS [MMPROJ.gguf]]\n");
        return 2;
    }
    ksllm_sound sound;
    float *samples = read_wav(argv[2], &sound.n_samples);
    sound.samples = samples;
    if (!samples) {
        fprintf(stderr, "%s: no WAV file of 16 bits and 16 kHz\n", argv[2]);
        return 1;
    }
    ksllm_model_options_init(&files);
    files.media_path = argc > 4 ? argv[4] : NULL;
    must(ksllm_model_open(argv[1], &files, &model, &err), &err);

    ksllm_media_size size = {.size = sizeof size};
    must(ksllm_media_measure_sound(model, &sound, &size, &err), &err);
    ksllm_media media = {.size = sizeof media};
    media.memory_size = size.memory;
    if (!(media.memory = malloc(size.memory)))
        return 1;
    ksllm_encoder_options_init(&ear);
    ear.max_tokens = size.n_tokens;
    must(ksllm_encoder_create(model, &ear, &encoder, &err), &err);
    must(ksllm_media_encode_sound(encoder, &sound, NULL, &media, &err), &err);
    ksllm_encoder_free(encoder);

    const ksllm_media *heard[] = {&media};
    ksllm_session_options_init(&o);
    o.n_ctx = size.n_tokens + 1024;     /* the prompt and what was said */
    must(ksllm_session_create(model, &o, &session, &err), &err);
    char *messages = message(argc > 3 ? argv[3] : "");
    ksllm_chat_init(&chat);
    chat.messages.data = messages;
    chat.media = heard;
    chat.n_media = 1;
    must(ksllm_chat_generate(session, &chat, NULL, on_part, NULL, NULL, &err),
         &err);
    putchar('\n');
    ksllm_session_free(session);
    ksllm_model_close(model);
    free(messages);
    free(media.memory);
    free(samples);
    return 0;
}
