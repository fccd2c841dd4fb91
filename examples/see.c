/* see.c - a question about a picture, to a model that sees.
 *
 *     ksllm-quant convert VARCO-VISION-2.0-1.7B -o varco.gguf -t q4_0
 *     cc -O2 examples/see.c ksllm.c -lm -pthread -o see
 *     ./see varco.gguf photo.ppm "무엇이 보입니까?" [MAX_TOKENS [MMPROJ.gguf]]
 *
 * Shows: what a picture will take before anything is computed, and how to make
 * it take less; the encoder, whose memory is given back before the answer; a
 * picture as a part of a message; a tower in a second file. The library takes
 * pixels. PPM is them with a line before, and other files become that:
 *
 *     djpeg photo.jpg > photo.ppm
 *     ffmpeg -i photo.png -pix_fmt rgb24 photo.ppm
 *
 * On a phone the system decodes: AImageDecoder (Android), CGImage (Apple). It
 * also knows which way up a photo is (EXIF): turn it before it comes here.
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

/* A number of a PPM's head, after white space and comments; 0: there is none.
 * Takes the character after it. */
static unsigned number(FILE *f)
{
    unsigned v = 0;
    int c = getc(f);
    while (c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '#') {
        while (c == '#' && (c = getc(f)) != '\n' && c != EOF)
            c = '#';
        c = getc(f);
    }
    for (; c >= '0' && c <= '9' && v < 100000; c = getc(f))
        v = v * 10 + (unsigned)(c - '0');
    return v;
}

/* The pixels of a file (P6, 8 bits); NULL: it is of another kind. */
static unsigned char *read_ppm(const char *path, ksllm_image *image)
{
    unsigned char *rgb = NULL;
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    if (getc(f) == 'P' && getc(f) == '6') {
        image->width = number(f);
        image->height = number(f);
        if (image->width && image->height && image->width < 65536
            && image->height < 65536 && number(f) == 255) {
            size_t row = 3 * (size_t)image->width;
            rgb = malloc(row * image->height);
            if (rgb && fread(rgb, row, image->height, f) != image->height) {
                free(rgb);
                rgb = NULL;
            }
        }
    }
    fclose(f);
    image->rgb = rgb;
    image->stride = 0;
    return rgb;
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (part == KSLLM_PART_TEXT)
        fwrite(text.data, 1, text.size, stdout);
    return fflush(stdout);
}

static void on_progress(void *ctx, size_t done, size_t total)
{
    (void)ctx;
    fprintf(stderr, "\rlooking: %3d %%%s", (int)(100 * done / total),
            done == total ? "\n" : "");
}

/* The message: the picture and the question. The templates of HyperCLOVA X call
 * the picture {"type": "image_url", "image_url": {"url": "image.jpg"}}. */
static char *message(const char *question)
{
    static const char before[] = "[{\"role\": \"user\", \"content\": "
        "[{\"type\": \"image\"}, {\"type\": \"text\", \"text\": ";
    static const char after[] = "}]}]";
    size_t n = (size_t)ksllm_json_string(question, KSLLM_NUL, NULL, 0);
    char *m = malloc(sizeof before + n + sizeof after);
    if (!m)
        exit(1);
    strcpy(m, before);
    ksllm_json_string(question, KSLLM_NUL, m + strlen(before), n);
    strcpy(m + strlen(before) + n, after);
    return m;
}

int main(int argc, char **argv)
{
    ksllm_model *model;
    ksllm_encoder *encoder;
    ksllm_session *session;
    ksllm_model_options files;
    ksllm_encoder_options eye;
    ksllm_media_options how;
    ksllm_session_options o;
    ksllm_control control;
    ksllm_chat chat;
    ksllm_image image;
    ksllm_error err;
    if (argc < 4) {
        fprintf(stderr, "see MODEL.gguf PICTURE.ppm QUESTION "
                        "[MAX_TOKENS [MMPROJ.gguf]]\n");
        return 2;
    }
    unsigned char *pixels = read_ppm(argv[2], &image);
    if (!pixels) {
        fprintf(stderr, "%s: no PPM file (P6) of 8 bits\n", argv[2]);
        return 1;
    }
    ksllm_model_options_init(&files);
    files.media_path = argc > 5 ? argv[5] : NULL;
    must(ksllm_model_open(argv[1], &files, &model, &err), &err);

    ksllm_media_options_init(&how);
    how.max_tokens = argc > 4 ? (uint32_t)atoi(argv[4]) : 0;
    ksllm_media_size size = {.size = sizeof size};
    must(ksllm_media_measure(model, &image, &how, &size, &err), &err);
    fprintf(stderr, "%u x %u pixels, seen as %u x %u, take %u tokens\n",
            image.width, image.height, size.width, size.height, size.n_tokens);

    ksllm_media media = {.size = sizeof media};
    media.memory_size = size.memory;
    if (!(media.memory = malloc(size.memory)))
        return 1;
    ksllm_encoder_options_init(&eye);
    eye.max_tokens = size.n_tokens;
    ksllm_control_init(&control);
    control.on_progress = on_progress;
    must(ksllm_encoder_create(model, &eye, &encoder, &err), &err);
    must(ksllm_media_encode(encoder, &image, &how, &control, &media, &err),
         &err);
    ksllm_encoder_free(encoder);
    free(pixels);

    const ksllm_media *seen[] = {&media};
    ksllm_session_options_init(&o);
    o.n_ctx = size.n_tokens + 1024;     /* the question and the answer */
    must(ksllm_session_create(model, &o, &session, &err), &err);
    char *messages = message(argv[3]);
    ksllm_chat_init(&chat);
    chat.messages.data = messages;
    chat.media = seen;
    chat.n_media = 1;
    must(ksllm_chat_generate(session, &chat, NULL, on_part, NULL, NULL, &err),
         &err);
    putchar('\n');
    ksllm_session_free(session);
    ksllm_model_close(model);
    free(messages);
    free(media.memory);
    return 0;
}
