/* serve.c - OpenAI's chat completions in one C file, for a Raspberry Pi.
 *
 *     cc -O2 examples/serve.c ksllm.c -lm -pthread -o serve
 *     ./serve model.gguf [PORT [ADDRESS [N_CTX [N_ANSWERS]]]]
 *                          (8080, 127.0.0.1, the model's but 4096 at most, 1)
 *
 * Shows: sessions on a network. One thread polls all connections, one runs the
 * model: N_ANSWERS requests at once, 8 at most, in the order they came. One
 * that finds a place free joins the others at their next token. Each place
 * takes the memory of a session, which is printed. The cache is kept between
 * requests, so a conversation that grows is evaluated once.
 *
 * Who connects may be slow or hostile. Connections, requests and what waits to
 * be sent are bounded, 27 MiB in all and 5 for each answer at once; the model
 * never waits for a reader; a request has SECONDS_TO_ASK to arrive, an answer
 * SECONDS_TO_TAKE without progress; a client that goes away, or shuts its side
 * down, ends its answer.
 * $KSLLM_KEY, if set, is the key that clients must send. There is no TLS: put
 * something that has it before any address but 127.0.0.1.
 */
#define _GNU_SOURCE
#include "../ksllm.h"
#include "system.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#ifdef _WIN32                   /* link with -lpthread -lws2_32 */
#include <winsock2.h>
#include <ws2tcpip.h>
#define OUR_PORT SO_EXCLUSIVEADDRUSE    /* SO_REUSEADDR would share it */
#define PRINTF __MINGW_PRINTF_FORMAT
#define SHUT_WR SD_SEND
#define poll WSAPoll
#define close closesocket
#else
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#define OUR_PORT SO_REUSEADDR
#define PRINTF printf
#endif
#ifndef POLLRDHUP
#define POLLRDHUP 0             /* elsewhere POLLHUP says it */
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0          /* SIGPIPE is ignored anyway */
#endif

enum {
    MAX_CLIENTS = 16,
    MAX_HEAD = 16 << 10,
    MAX_BODY = 512 << 10,
    MAX_OUT = 1 << 20,
    SECONDS_TO_ASK = 20,
    SECONDS_TO_TAKE = 20,
    SECONDS_IDLE = 120,
    SECONDS_TO_ANSWER = 900
};

/* ---- sockets, where systems differ ---- */

#ifdef _WIN32

static bool again(void)         /* nothing is wrong with it */
{
    return WSAGetLastError() == WSAEWOULDBLOCK;
}

static void set_flags(int fd)
{
    u_long yes = 1;
    ioctlsocket(fd, FIONBIO, &yes);
}

/* One that is both ends: poll takes nothing but sockets. */
static bool open_bell(int bell[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    int n = sizeof a, fd = socket(AF_INET, SOCK_DGRAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bell[0] = bell[1] = fd;
    return fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 &&
           getsockname(fd, (struct sockaddr *)&a, &n) == 0 &&
           connect(fd, (struct sockaddr *)&a, n) == 0;
}

static bool open_sockets(void)
{
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
}

#else

static bool again(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static void set_flags(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static bool open_bell(int bell[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM, 0, bell) == 0;
}

static bool open_sockets(void)
{
    return signal(SIGPIPE, SIG_IGN) != SIG_ERR;
}

#endif

/* ---- text that grows up to a limit ---- */

typedef struct text {
    char *p;
    size_t n, cap;
    bool full;                  /* something did not fit: it is worth nothing */
} text;

/* Room for n bytes more and a NUL. */
static bool room(text *t, size_t n)
{
    size_t cap = t->cap ? t->cap : 1024;
    if (t->full || n > MAX_OUT || t->n + n >= MAX_OUT)
        return t->full = true, false;
    while (cap <= t->n + n)
        cap *= 2;
    if (cap == t->cap)
        return true;
    char *p = realloc(t->p, cap);
    if (!p)
        return t->full = true, false;
    t->p = p;
    t->cap = cap;
    return true;
}

static void put(text *t, const char *p, size_t n)
{
    if (!n || !room(t, n))
        return;
    memcpy(t->p + t->n, p, n);
    t->n += n;
}

/* Short ones only. */
__attribute__((format(PRINTF, 2, 3)))
static void putf(text *t, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof line)
        put(t, line, (size_t)n);
    else
        t->full = true;
}

static void put_json(text *t, const char *p, size_t n)
{
    int64_t k = ksllm_json_string(p ? p : "", n, NULL, 0);
    if (k < 0)
        t->full = true;
    if (k < 0 || !room(t, (size_t)k))
        return;
    ksllm_json_string(p ? p : "", n, t->p + t->n, (size_t)k);
    t->n += (size_t)k;
}

/* ---- JSON: enough to find values, and to know that it is JSON ---- */

typedef ksllm_text value;       /* the text of one; data NULL: there is none */

static const char *skip(const char *p, const char *e)
{
    while (p < e && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++;
    return p;
}

static const char *string_end(const char *p, const char *e)
{
    if (p >= e || *p != '"')
        return NULL;
    for (p++; p < e && *p != '"'; p++) {
        if ((unsigned char)*p < 0x20)
            return NULL;
        if (*p == '\\' && ++p < e && !strchr("\"\\/bfnrtu", *p))
            return NULL;
    }
    return p < e ? p + 1 : NULL;
}

static const char *scalar_end(const char *p, const char *e)
{
    static const char *const words[] = {"true", "false", "null"};
    if (*p == '"')
        return string_end(p, e);
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(e - p) >= n && memcmp(p, words[i], n) == 0)
            return p + n;
    }
    const char *begin = p;
    while (p < e && *p && strchr("+-.0123456789eE", *p))
        p++;
    return p > begin && (*begin == '-' || (*begin >= '0' && *begin <= '9'))
               ? p : NULL;
}

/* "key": up to where its value begins. */
static const char *key_end(const char *p, const char *e)
{
    p = string_end(skip(p, e), e);
    p = p ? skip(p, e) : e;
    return p < e && *p == ':' ? skip(p + 1, e) : NULL;
}

/* The end of the value that begins at p; NULL if it is none, or deeper than 64.
 * A bit of `objects` for each level that is open: an object, or a list. */
static const char *value_end(const char *p, const char *e)
{
    uint64_t objects = 0;
    for (int depth = 0;;) {
        p = skip(p, e);
        if (p >= e)
            return NULL;
        if (*p == '{' || *p == '[') {
            if (depth++ == 64)
                return NULL;
            objects = objects << 1 | (*p == '{');
            p = skip(p + 1, e);
            if (p >= e || *p != (objects & 1 ? '}' : ']')) {
                if (objects & 1 && !(p = key_end(p, e)))
                    return NULL;
                continue;
            }
        } else if (!(p = scalar_end(p, e))) {
            return NULL;
        }
        for (; depth; depth--, objects >>= 1, p++) {
            p = skip(p, e);
            if (p >= e || *p != (objects & 1 ? '}' : ']'))
                break;
        }
        if (!depth)
            return p;
        if (p >= e || *p++ != ',')
            return NULL;
        if (objects & 1 && !(p = key_end(p, e)))
            return NULL;
    }
}

/* Walks over the members of an object or the items of a list that is known to
 * be JSON: *at begins as NULL. False after the last. */
static bool next(value of, const char **at, value *key, value *item)
{
    const char *e = of.data + of.size, *p = *at;
    p = skip(p ? p : of.data + 1, e);
    if (*p == ',')
        p = skip(p + 1, e);
    if (*p == '}' || *p == ']')
        return false;
    if (*of.data == '{') {
        *key = (value){p + 1, (size_t)(string_end(p, e) - p) - 2};
        p = key_end(p, e);
    }
    *at = value_end(p, e);
    *item = (value){p, (size_t)(*at - p)};
    return true;
}

static bool is(value v, const char *s)
{
    return v.size == strlen(s) && memcmp(v.data, s, v.size) == 0;
}

static char kind(value v)       /* of { [ " t f n 0, and 0 for none */
{
    if (!v.data)
        return 0;
    return strchr("{[\"tfn", *v.data) ? *v.data : '0';
}

/* null is as if it were not there; the last of several counts. */
static value get(value object, const char *name)
{
    const char *at = NULL;
    value key, item, found = {NULL, 0};
    while (kind(object) == '{' && next(object, &at, &key, &item))
        if (is(key, name))
            found = item;
    return kind(found) == 'n' ? (value){NULL, 0} : found;
}

static unsigned hex4(const char *p)
{
    char s[5] = {p[0], p[1], p[2], p[3], 0};
    return (unsigned)strtoul(s, NULL, 16);
}

static size_t put_utf8(char *out, unsigned c)
{
    static const unsigned char head[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(head[n] | c);
    return n;
}

/* What a string says; never longer than how it is written. -1: half of a
 * surrogate pair, or no hexadecimal digits. */
static int64_t decode(value v, char *out)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *p = v.data + 1, *e = v.data + v.size - 1;
    char *begin = out;
    while (p < e) {
        if (*p != '\\') {
            *out++ = *p++;
        } else if (p[1] != 'u') {
            const char *f = strchr(from, p[1]);
            *out++ = f ? to[f - from] : p[1];
            p += 2;
        } else {
            if (e - p < 6 || strspn(p + 2, "0123456789abcdefABCDEF") < 4)
                return -1;
            unsigned c = hex4(p + 2);
            p += 6;
            if (c >= 0xd800 && c < 0xe000) {
                if (c >= 0xdc00 || e - p < 6 || p[0] != '\\' || p[1] != 'u' ||
                    strspn(p + 2, "0123456789abcdefABCDEF") < 4 ||
                    (hex4(p + 2) & 0xfc00) != 0xdc00)
                    return -1;
                c = 0x10000 + ((c & 0x3ff) << 10) + (hex4(p + 2) & 0x3ff);
                p += 6;
            }
            out += put_utf8(out, c);
        }
    }
    return out - begin;
}

/* ---- clients: what both threads know, under one lock ---- */

/* CLOSING: all is sent; what still comes is dropped, or the system would take
 * back what it has not delivered yet. */
typedef enum state { FREE, READING, WAITING, RUNNING, CLOSING } state;

typedef struct client {
    state state;
    int fd;
    char *in;                   /* what came; stays where it is from WAITING */
    size_t n_in, cap_in;
    size_t n_head, n_body;      /* of the request that it begins with */
    text out;                   /* what is to be sent */
    size_t n_sent;
    double since;               /* seconds: of the last progress there */
    double began;               /* of the request, or of the silence */
    uint64_t number;            /* the order in which they are served */
    bool chat;                  /* a POST to the completions */
    bool close;                 /* once all is sent */
    bool gone, keep, old;       /* old: HTTP/1.0 */
    ksllm_cancel cancel;
} client;

static client clients[MAX_CLIENTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER;
static int bell[2];             /* wakes the thread that polls */
static atomic_int over;         /* a signal sets it, both threads read it */

static ksllm_model *model;
static const char *name, *key;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void ring(void)
{
    send(bell[1], "", 1, MSG_NOSIGNAL);         /* a full one rings too */
}

/* Nothing more goes to it, and its answer ends. The lock is held. */
static void give_up(client *c)
{
    c->gone = true;
    ksllm_cancel_set(&c->cancel);
}

/* For the client, from either thread; the lock is held. Too much of it means
 * that the client does not read. */
static void send_text(client *c, const char *p, size_t n)
{
    if (c->gone)
        return;
    if (c->n_sent == c->out.n)
        c->n_sent = c->out.n = 0, c->since = now();
    put(&c->out, p, n);
    if (c->out.full)
        give_up(c);
}

/* A whole answer; `t` is its body. From either thread, the lock is held. */
static void reply(client *c, int status, const text *t)
{
    static const struct { int status; const char *words; } list[] = {
        {200, "OK"}, {400, "Bad Request"}, {401, "Unauthorized"},
        {404, "Not Found"}, {405, "Method Not Allowed"},
        {411, "Length Required"}, {413, "Content Too Large"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"}};
    const char *words = "";
    char head[256];
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (list[i].status == status)
            words = list[i].words;
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\n"
                     "Content-Type: application/json\r\n"
                     "Content-Length: %zu\r\n%s\r\n", status, words, t->n,
                     c->keep ? "" : "Connection: close\r\n");
    send_text(c, head, (size_t)n);
    send_text(c, t->p, t->n);
    c->close = c->close || !c->keep;
}

static void put_error(text *t, int status, const char *why, const char *param,
                      const char *code)
{
    putf(t, "{\"error\": {\"type\": \"%s\", \"param\": %s%s%s, "
         "\"code\": %s%s%s, \"message\": ",
         status >= 500 ? "server_error" : "invalid_request_error",
         param ? "\"" : "", param ? param : "null", param ? "\"" : "",
         code ? "\"" : "", code ? code : "null", code ? "\"" : "");
    put_json(t, why, strlen(why));
    putf(t, "}}");
}

/* By the polling thread, of what is no request. The connection ends. */
static void refuse(client *c, int status, const char *why)
{
    text t = {0};
    put_error(&t, status, why, NULL, NULL);
    c->keep = c->keep && status == 404;
    reply(c, status, &t);
    free(t.p);
}

/* ---- a request for an answer: on the model's thread from here ---- */

typedef struct job {
    client *client;             /* NULL: there is none */
    value body;
    const char *why, *param;    /* the first thing that is wrong */
    size_t n_messages;          /* bytes of them, as ksllm reads them */
    bool stream, usage, begun;
    unsigned n_calls, n_whole;  /* calls that began, and that are whole */
    size_t whole;               /* bytes of `calls` up to the end of one */
    char id[40];
    long long created;
    text content, thinking, calls, arguments;   /* a message as it grows */
    ksllm_generation want;
    ksllm_chat chat;
    ksllm_result result;
    ksllm_sampling sampling;
    ksllm_control control;
    ksllm_grammar *grammar;
    ksllm_error error;          /* `why` may be its text */
    ksllm_text stops[KSLLM_MAX_STOPS];
    char stop_bytes[KSLLM_MAX_STOPS][KSLLM_MAX_STOP_BYTES + 1];
} job;

/* A session, and the answer under way on it. */
typedef struct place {
    ksllm_session *session;
    job job;
    text asked;                 /* the body before: the cache holds that */
    uint64_t number;            /* when that was */
} place;

/* The model's thread alone has them. */
static place places[KSLLM_MAX_SESSIONS];
static size_t n_places = 1;
static text event;
static char messages[3 * MAX_BODY];     /* of the request that begins */

static bool wrong(job *j, const char *why, const char *param)
{
    if (!j->why) {
        j->why = why;
        j->param = param;
    }
    return false;
}

static void copy(job *j, const char *p, size_t n)
{
    memmove(messages + j->n_messages, p, n);
    j->n_messages += n;
}

static void copys(job *j, const char *s)
{
    copy(j, s, strlen(s));
}

/* A list of parts becomes one string, in its own escapes; null an empty one. */
static bool copy_content(job *j, value v)
{
    const char *at = NULL;
    value part, none;
    if (kind(v) == '"')
        return copy(j, v.data, v.size), true;
    copy(j, "\"", 1);
    while (kind(v) == '[' && next(v, &at, &none, &part)) {
        value t = get(part, "text");
        if (kind(part) != '{' || kind(t) != '"' || !get(part, "type").data ||
            !is(get(part, "type"), "\"text\""))
            return wrong(j, "content may have parts of text only", "messages");
        copy(j, t.data + 1, t.size - 2);
    }
    copy(j, "\"", 1);
    return kind(v) == '[' || kind(v) == 'n' ||
           wrong(j, "content must be a string or a list", "messages");
}

/* A call's arguments are JSON in a string there, JSON here. */
static bool copy_call(job *j, value v)
{
    value fn = get(v, "function"), n = get(fn, "name");
    value args = get(fn, "arguments");
    if (kind(n) != '"' || (args.data && kind(args) != '"'))
        return wrong(j, "a call has a function with a name and arguments, a "
                     "string of JSON", "messages");
    copys(j, "{\"type\":\"function\",\"function\":{\"name\":");
    copy(j, n.data, n.size);
    copys(j, ",\"arguments\":");
    char *at = messages + j->n_messages;
    int64_t k = args.data ? decode(args, at) : 0;
    if (k == 0)
        memcpy(at, "{}", (size_t)(k = 2));
    const char *end = k > 0 ? value_end(at, at + k) : NULL;
    if (!end || skip(end, at + k) != at + k)
        return wrong(j, "a call's arguments are not JSON", "messages");
    j->n_messages += (size_t)k;
    copy(j, "}}", 2);
    return true;
}

static bool copy_calls(job *j, value v)
{
    const char *at = NULL;
    value item, none;
    bool first = true;
    copy(j, "[", 1);
    while (kind(v) == '[' && next(v, &at, &none, &item)) {
        copy(j, ",", first ? 0 : 1);
        first = false;
        if (!copy_call(j, item))
            return false;
    }
    copy(j, "]", 1);
    return kind(v) == '[' || wrong(j, "tool_calls must be a list", "messages");
}

static bool copy_message(job *j, value v)
{
    const char *at = NULL;
    value k, item;
    bool ok = true, first = true;
    if (kind(v) != '{' || kind(get(v, "role")) != '"')
        return wrong(j, "a message is an object with a role", "messages");
    copy(j, "{", 1);
    while (ok && next(v, &at, &k, &item)) {
        if (kind(item) == 'n' && !is(k, "content"))
            continue;
        copy(j, ",", first ? 0 : 1);
        first = false;
        copy(j, k.data - 1, k.size + 2);
        copy(j, ":", 1);
        if (is(k, "content"))
            ok = copy_content(j, item);
        else if (is(k, "tool_calls"))
            ok = copy_calls(j, item);
        else if (is(k, "role") && is(item, "\"developer\""))
            copys(j, "\"system\"");
        else
            copy(j, item.data, item.size);
    }
    copy(j, "}", 1);
    return ok;
}

/* Into three times the room that a body has. All becomes shorter but a call:
 * {"function":{"name":""}} has 25 bytes with a comma, and gets 58; a call with
 * arguments grows less. */
static bool read_messages(job *j)
{
    value list = get(j->body, "messages"), item, none;
    const char *at = NULL;
    bool first = true;
    if (kind(list) != '[')
        return wrong(j, "messages must be a list", "messages");
    copy(j, "[", 1);
    while (next(list, &at, &none, &item)) {
        copy(j, ",", first ? 0 : 1);
        first = false;
        if (!copy_message(j, item))
            return false;
    }
    copy(j, "]", 1);
    return !first || wrong(j, "messages is empty", "messages");
}

/* A number, or what it is without one. */
static double number(job *j, const char *what, double none, double least,
                     bool whole)
{
    value v = get(j->body, what);
    char s[64] = "", *end;
    if (!v.data)
        return none;
    if (kind(v) == '0' && v.size < sizeof s)
        memcpy(s, v.data, v.size);
    double x = strtod(s, &end);
    if (!*s || *end || !(x >= least && x <= 1e18) ||
        (whole && x != (double)(int64_t)x)) {
        wrong(j, whole ? "an integer in its range was expected"
                       : "a number in its range was expected", what);
        return none;
    }
    return x;
}

static bool read_stops(job *j)
{
    value v = get(j->body, "stop"), item, none;
    const char *at = NULL;
    value list[KSLLM_MAX_STOPS + 1];
    size_t n = 0;
    if (kind(v) == '"')
        list[n++] = v;
    else if (kind(v) == '[')
        while (n <= KSLLM_MAX_STOPS && next(v, &at, &none, &item))
            list[n++] = item;
    else if (v.data)
        return wrong(j, "stop must be a string or a list", "stop");
    if (n > KSLLM_MAX_STOPS)
        return wrong(j, "stop has more than 16 strings", "stop");
    for (size_t i = 0; i < n; i++) {
        /* Six bytes for each that is written \u0041. */
        char text[6 * KSLLM_MAX_STOP_BYTES + 2];
        int64_t k = kind(list[i]) == '"' && list[i].size <= sizeof text
                        ? decode(list[i], text) : -1;
        if (k < 1 || k > KSLLM_MAX_STOP_BYTES)
            return wrong(j, "stop has a string of no or of more than 128 bytes",
                         "stop");
        memcpy(j->stop_bytes[i], text, (size_t)k);
        j->stops[i] = (ksllm_text){j->stop_bytes[i], (size_t)k};
    }
    j->want.stop_texts = j->stops;
    j->want.n_stop_texts = n;
    return true;
}

static uint64_t serial(void)    /* the same number never comes twice */
{
    static uint64_t state;
    if (!state)
        state = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* What is not given is what the model's file recommends. */
static void read_sampling(job *j)
{
    ksllm_sampling *s = &j->sampling;
    ksllm_sampling_from_model(s, model);
    s->temperature = (float)number(j, "temperature", s->temperature, 0, false);
    s->top_p = (float)number(j, "top_p", s->top_p, 0, false);
    s->frequency_penalty = (float)number(j, "frequency_penalty", 0, -2, false);
    s->presence_penalty = (float)number(j, "presence_penalty", 0, -2, false);
    s->seed = get(j->body, "seed").data
                  ? (uint64_t)(int64_t)number(j, "seed", 0, -1e18, true)
                  : serial();
}

static bool read_options(job *j)
{
    value more = get(j->body, "stream_options");
    double n = number(j, "max_tokens", 0, 1, true);
    n = number(j, "max_completion_tokens", n, 1, true);
    j->stream = kind(get(j->body, "stream")) == 't';
    j->usage = kind(get(more, "include_usage")) == 't';
    if (more.data && kind(more) != '{')
        wrong(j, "stream_options must be an object", "stream_options");
    if (number(j, "n", 1, 1, true) != 1)
        wrong(j, "n other than 1: not yet", "n");
    if (kind(get(j->body, "logprobs")) == 't')
        wrong(j, "logprobs: not yet", "logprobs");
    ksllm_control_init(&j->control);
    j->control.cancel = &j->client->cancel;
    j->control.budget_us = SECONDS_TO_ANSWER * UINT64_C(1000000);
    read_sampling(j);
    ksllm_generation_init(&j->want);
    j->want.max_tokens = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    j->want.sampling = &j->sampling;
    j->want.control = &j->control;
    read_stops(j);
    return !j->why;
}

static bool read_chat(job *j)
{
    ksllm_chat *chat = &j->chat;
    value tools = get(j->body, "tools"), choice = get(j->body, "tool_choice");
    value variables = get(j->body, "chat_template_kwargs");
    if (tools.data && kind(tools) != '[')
        return wrong(j, "tools must be a list", "tools");
    if (variables.data && kind(variables) != '{')
        return wrong(j, "chat_template_kwargs must be an object",
                     "chat_template_kwargs");
    ksllm_chat_init(chat);
    chat->messages = (ksllm_text){messages, j->n_messages};
    if (tools.data && !(choice.data && is(choice, "\"none\"")) &&
        *skip(tools.data + 1, tools.data + tools.size) != ']')
        chat->tools = tools;
    if (variables.data)
        chat->variables = variables;
    return true;
}

/* What a grammar has to enforce, which the request has asked for. */
static bool make_grammar(job *j, ksllm_grammar_options *o, const char *param)
{
    if (ksllm_grammar_create(model, o, &j->grammar, &j->error) != KSLLM_OK)
        return wrong(j, j->error.text, param);
    j->want.grammar = j->grammar;
    return true;
}

/* "required", or {"type": "function", "function": {"name": "..."}}. */
static bool read_choice(job *j, value choice)
{
    char tool[6 * 128 + 2];     /* six bytes for each that is \u0041 */
    value named = get(get(choice, "function"), "name");
    ksllm_grammar_options o;
    ksllm_grammar_options_init(&o);
    o.kind = KSLLM_GRAMMAR_TOOLS;
    o.calls = KSLLM_CALLS_REQUIRED;
    o.source = j->chat.tools;
    o.lenient = true;           /* as in what "auto" lets through */
    if (kind(choice) == '{') {
        if (kind(named) != '"' || named.size > sizeof tool - 1)
            return wrong(j, "tool_choice names no function", "tool_choice");
        int64_t n = decode(named, tool);
        tool[n > 0 ? n : 0] = 0;
        o.tool = tool;
    } else if (!is(choice, "\"required\"")) {
        return wrong(j, "tool_choice is none, auto, required, or a function",
                     "tool_choice");
    }
    if (!o.source.data)
        return wrong(j, "tool_choice without tools", "tool_choice");
    return make_grammar(j, &o, "tool_choice");
}

/* {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"schema":
 * ..., "strict": true}}. Without `strict`, what cannot be enforced is left to
 * the model. */
static bool read_format(job *j, value form)
{
    value type = get(form, "type"), given = get(form, "json_schema");
    ksllm_grammar_options o;
    ksllm_grammar_options_init(&o);
    o.kind = KSLLM_GRAMMAR_SCHEMA;
    if (is(type, "\"text\""))
        return true;
    if (is(type, "\"json_object\"")) {
        o.source = (ksllm_text){"{\"type\": \"object\"}", KSLLM_NUL};
    } else if (is(type, "\"json_schema\"")) {
        o.source = get(given, "schema");
        o.lenient = kind(get(given, "strict")) != 't';
    }
    if (!o.source.data)
        return wrong(j, "response_format is text, json_object, or json_schema "
                     "with a schema", "response_format");
    return make_grammar(j, &o, "response_format");
}

/* Where a call must come, the form of other answers says nothing. */
static bool read_grammar(job *j)
{
    value form = get(j->body, "response_format");
    value choice = get(j->body, "tool_choice");
    bool free = !choice.data || is(choice, "\"auto\"") ||
                is(choice, "\"none\"");
    if (!free)
        return read_choice(j, choice);
    if (form.data && !is(get(form, "type"), "\"text\"") && j->chat.tools.data)
        return wrong(j, "response_format beside tools: let tool_choice be "
                     "\"none\" for an answer of this form, or \"required\" for "
                     "a call", "response_format");
    return !form.data || read_format(j, form);
}

/* ---- an answer ---- */

static void put_head(job *j, const char *object)
{
    event.n = 0;
    event.full = false;
    putf(&event, "%s{\"id\": \"%s\", \"object\": \"%s\", \"created\": %lld, "
         "\"model\": ", j->stream ? "data: " : "", j->id, object, j->created);
    put_json(&event, name, strlen(name));
}

/* Sends `event`, as a chunk unless the client is too old for that. */
static void send_event(job *j, const char *end)
{
    char size[32];
    put(&event, end, strlen(end));
    pthread_mutex_lock(&lock);
    client *c = j->client;
    if (event.full)
        give_up(c);
    if (!c->old) {
        int n = snprintf(size, sizeof size, "%zx\r\n", event.n);
        send_text(c, size, (size_t)n);
    }
    send_text(c, event.p, event.n);
    send_text(c, "\r\n", c->old ? 0 : 2);
    pthread_mutex_unlock(&lock);
    ring();
}

static void begin_delta(job *j)
{
    put_head(j, "chat.completion.chunk");
    putf(&event, ", \"choices\": [{\"index\": 0, \"delta\": ");
}

static void end_delta(job *j, const char *reason)
{
    const char *quote = reason ? "\"" : "";
    putf(&event, ", \"finish_reason\": %s%s%s}]}", quote,
         reason ? reason : "null", quote);
    send_event(j, "\n\n");
}

/* Not before the prompt is evaluated: its errors have a status of their own. */
static void begin_stream(job *j)
{
    client *c = j->client;
    if (j->begun)
        return;
    j->begun = true;
    pthread_mutex_lock(&lock);
    const char *head = c->old
        ? "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        : "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";
    send_text(c, head, strlen(head));
    pthread_mutex_unlock(&lock);
    begin_delta(j);
    putf(&event, "{\"role\": \"assistant\", \"content\": \"\"}");
    end_delta(j, NULL);
}

static void stream_part(job *j, ksllm_part part, ksllm_text t)
{
    begin_stream(j);
    begin_delta(j);
    if (part == KSLLM_PART_TEXT || part == KSLLM_PART_THINKING) {
        putf(&event, "{\"%scontent\": ", part ? "reasoning_" : "");
        put_json(&event, t.data, t.size);
        putf(&event, "}");
    } else if (part == KSLLM_PART_CALL) {
        putf(&event, "{\"tool_calls\": [{\"index\": %u, \"id\": "
             "\"call_%016llx\", \"type\": \"function\", \"function\": "
             "{\"arguments\": \"\", \"name\": ",
             j->n_calls++, (unsigned long long)serial());
        put_json(&event, t.data, t.size);
        putf(&event, "}}]}");
    } else {
        putf(&event, "{\"tool_calls\": [{\"index\": %u, \"function\": "
             "{\"arguments\": ", j->n_calls - 1);
        put_json(&event, t.data, t.size);
        putf(&event, "}}]}");
    }
    end_delta(j, NULL);
}

/* Collects a message. A call without its end is left out. */
static void keep_part(job *j, ksllm_part part, ksllm_text t)
{
    if (part == KSLLM_PART_TEXT) {
        put(&j->content, t.data, t.size);
    } else if (part == KSLLM_PART_THINKING) {
        put(&j->thinking, t.data, t.size);
    } else if (part == KSLLM_PART_CALL) {
        j->calls.n = j->whole;
        j->arguments.n = 0;
        putf(&j->calls, "%s{\"id\": \"call_%016llx\", \"type\": \"function\", "
             "\"function\": {\"name\": ", j->calls.n ? ", " : "",
             (unsigned long long)serial());
        put_json(&j->calls, t.data, t.size);
    } else if (part == KSLLM_PART_ARGUMENTS) {
        put(&j->arguments, t.data, t.size);
    } else {
        putf(&j->calls, ", \"arguments\": ");
        put_json(&j->calls, j->arguments.p, j->arguments.n);
        putf(&j->calls, "}}");
        j->whole = j->calls.n;
    }
}

static int on_part(void *ctx, ksllm_part part, ksllm_text t)
{
    job *j = ctx;
    if (part == KSLLM_PART_MESSAGE)
        return 0;
    j->n_whole += part == KSLLM_PART_CALL_END;
    if (!j->stream)
        keep_part(j, part, t);
    else if (part != KSLLM_PART_CALL_END)
        stream_part(j, part, t);
    return 0;
}

static const char *reason(const job *j, const ksllm_result *r)
{
    if (j->n_whole)
        return "tool_calls";
    return r->stop == KSLLM_STOP_TOKEN || r->stop == KSLLM_STOP_TEXT ||
                   r->stop == KSLLM_STOP_COMPLETE
               ? "stop" : "length";
}

static void put_usage(const ksllm_result *r)
{
    putf(&event, ", \"usage\": {\"prompt_tokens\": %zu, \"completion_tokens\": "
         "%zu, \"total_tokens\": %zu, \"prompt_tokens_details\": "
         "{\"cached_tokens\": %zu}}", r->n_prompt, r->n_generated,
         r->n_prompt + r->n_generated, r->n_reused);
}

static void end_stream(job *j, const ksllm_result *r)
{
    begin_stream(j);
    begin_delta(j);
    putf(&event, "{}");
    end_delta(j, reason(j, r));
    if (j->usage) {
        put_head(j, "chat.completion.chunk");
        putf(&event, ", \"choices\": []");
        put_usage(r);
        send_event(j, "}\n\n");
    }
    event.n = 0;
    send_event(j, "data: [DONE]\n\n");
    pthread_mutex_lock(&lock);
    send_text(j->client, "0\r\n\r\n", j->client->old ? 0 : 5);
    pthread_mutex_unlock(&lock);
}

static void end_message(job *j, const ksllm_result *r)
{
    put_head(j, "chat.completion");
    putf(&event, ", \"choices\": [{\"index\": 0, \"logprobs\": null, "
         "\"finish_reason\": \"%s\", \"message\": {\"role\": \"assistant\", "
         "\"content\": ", reason(j, r));
    put_json(&event, j->content.p, j->content.n);
    if (j->thinking.n) {
        putf(&event, ", \"reasoning_content\": ");
        put_json(&event, j->thinking.p, j->thinking.n);
    }
    if (j->n_whole) {
        putf(&event, ", \"tool_calls\": [");
        put(&event, j->calls.p, j->whole);
        putf(&event, "]");
    }
    putf(&event, "}}]");
    put_usage(r);
    putf(&event, "}");
    event.full = event.full || j->content.full || j->thinking.full ||
                 j->calls.full || j->arguments.full;
    pthread_mutex_lock(&lock);
    if (event.full)
        refuse(j->client, 500, "the answer is too long");
    else
        reply(j->client, 200, &event);
    pthread_mutex_unlock(&lock);
}

static void fail(job *j, int status, const char *why, const char *param,
                 const char *code)
{
    event.n = 0;
    event.full = false;
    if (j->begun)
        putf(&event, "data: ");
    put_error(&event, status, why, param, code);
    if (j->begun) {
        send_event(j, "\n\n");
        j->client->keep = false;
        return;
    }
    pthread_mutex_lock(&lock);
    reply(j->client, status, &event);
    pthread_mutex_unlock(&lock);
}

/* Reads the request; false: it was refused. */
static bool begin_answer(job *j)
{
    const char *p = j->body.data, *e = p + j->body.size, *end = value_end(p, e);
    j->body = end ? (value){skip(p, e), (size_t)(end - skip(p, e))} : j->body;
    if (!end || skip(end, e) != e)
        wrong(j, "the body is not JSON", NULL);
    else if (kind(j->body) != '{')
        wrong(j, "the body must be an object", NULL);
    if (!j->why && read_messages(j) && read_options(j) && read_chat(j) &&
        read_grammar(j))
        return true;
    fail(j, 400, j->why, j->param, NULL);
    return false;
}

static void end_answer(job *j, ksllm_status status)
{
    const char *why = j->error.text;
    if (status == KSLLM_OK || status == KSLLM_ERR_DEADLINE)
        (j->stream ? end_stream : end_message)(j, &j->result);
    else if (status == KSLLM_ERR_CONTEXT)
        fail(j, 400, why, "messages", "context_length_exceeded");
    else if (status != KSLLM_ERR_CANCELLED)
        fail(j, status == KSLLM_ERR_MEMORY ? 500 : 400, why, NULL, NULL);
}

/* ---- HTTP: requests; the lock is held ---- */

static const char *find(const char *p, size_t n, const char *what)
{
    size_t k = strlen(what);
    for (size_t i = 0; i + k <= n; i++)
        if (memcmp(p + i, what, k) == 0)
            return p + i;
    return NULL;
}

/* The value of a line `name: value`, without spaces around it. */
static bool header(value line, const char *what, value *out)
{
    size_t n = strlen(what);
    if (line.size <= n || line.data[n] != ':' ||
        strncasecmp(line.data, what, n) != 0)
        return false;
    const char *p = skip(line.data + n + 1, line.data + line.size);
    const char *e = line.data + line.size;
    while (e > p && (e[-1] == ' ' || e[-1] == '\t'))
        e--;
    *out = (value){p, (size_t)(e - p)};
    return true;
}

/* As long for a key that is nearly right as for any other. */
static bool same_key(value given)
{
    size_t n = strlen(key);
    unsigned differs = 0;
    if (given.size != n + 7 || strncasecmp(given.data, "Bearer ", 7) != 0)
        return false;
    for (size_t i = 0; i < n; i++)
        differs |= (unsigned char)given.data[7 + i] ^ (unsigned char)key[i];
    return !differs;
}

/* Reads the lines between the first and the empty one; false: refused. */
static bool read_headers(client *c, const char *p, const char *e)
{
    bool has_length = false, allowed = !key, expects = false;
    while (p < e) {
        const char *end = find(p, (size_t)(e - p), "\r\n");
        value line = {p, (size_t)((end ? end : e) - p)}, v;
        p += line.size + 2;
        if (header(line, "Content-Length", &v)) {
            char digits[16] = "";
            memcpy(digits, v.data, v.size < 12 ? v.size : 12);
            if (has_length || !v.size || strspn(digits, "0123456789") < v.size)
                return refuse(c, v.size < 12 || has_length ? 400 : 413,
                              "Content-Length"), false;
            has_length = true;
            c->n_body = strtoul(digits, NULL, 10);
        } else if (header(line, "Transfer-Encoding", &v)) {
            return refuse(c, 411, "a body needs a Content-Length"), false;
        } else if (header(line, "Connection", &v)) {
            c->keep = c->keep && !(v.size == 5 &&
                                   strncasecmp(v.data, "close", 5) == 0);
        } else if (header(line, "Authorization", &v)) {
            allowed = allowed || same_key(v);
        } else if (header(line, "Expect", &v)) {
            expects = true;
        }
    }
    if (!allowed)
        return refuse(c, 401, "wrong key"), false;
    if (c->chat && !has_length)
        return refuse(c, 411, "a body needs a Content-Length"), false;
    if (c->n_body > MAX_BODY)
        return refuse(c, 413, "the body is too big"), false;
    if (expects && c->n_in < c->n_head + c->n_body)
        send_text(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return true;
}

static void answer_get(client *c, value path)
{
    text t = {0};
    bool list = is(path, "/v1/models");
    bool one = path.size == 11 + strlen(name) &&
               memcmp(path.data, "/v1/models/", 11) == 0 &&
               memcmp(path.data + 11, name, strlen(name)) == 0;
    if (is(path, "/health")) {
        putf(&t, "{\"status\": \"ok\"}");
    } else if (list || one) {
        putf(&t, "%s{\"object\": \"model\", \"created\": 0, \"owned_by\": "
             "\"ksllm\", \"id\": ",
             list ? "{\"object\": \"list\", \"data\": [" : "");
        put_json(&t, name, strlen(name));
        putf(&t, list ? "}]}" : "}");
    }
    if (t.n)
        reply(c, 200, &t);
    else
        refuse(c, 404, "no such path");
    free(t.p);
}

/* The head is complete, n bytes with its empty line. */
static void read_head(client *c, size_t n)
{
    const char *p = c->in, *e = p + n - 4;
    const char *end = find(p, n, "\r\n");
    const char *method_end = find(p, (size_t)(end - p), " ");
    const char *path = method_end ? method_end + 1 : end;
    const char *path_end = find(path, (size_t)(end - path), " ");
    c->keep = false;
    c->n_head = n;
    c->n_body = 0;
    if (!path_end || end - path_end != 9 ||
        memcmp(path_end, " HTTP/1.", 8) != 0 || memchr(p, 0, n)) {
        refuse(c, 400, "this is not HTTP/1.1");
        return;
    }
    value method = {p, (size_t)(method_end - p)};
    value where = {path, (size_t)(path_end - path)};
    c->old = path_end[8] == '0';
    c->keep = !c->old;
    c->chat = is(method, "POST") && is(where, "/v1/chat/completions");
    if (!read_headers(c, end + 2, e + 2))
        return;
    if (is(method, "GET")) {
        answer_get(c, where);
    } else if (!is(method, "POST")) {
        c->keep = false;
        refuse(c, 405, "GET and POST are all there is");
    } else if (!c->chat) {
        refuse(c, 404, "no such path");
    }
    if (c->close || c->n_head + c->n_body <= c->cap_in)
        return;
    char *more = realloc(c->in, c->n_head + c->n_body);
    if (more) {
        c->in = more;
        c->cap_in = c->n_head + c->n_body;
    } else {
        refuse(c, 500, "no memory");
    }
}

/* Looks at what has come: as many requests as are complete, until one is for
 * the model. */
static void read_requests(client *c)
{
    static uint64_t count;
    while (c->state == READING && !c->close && !c->gone && c->n_in) {
        if (!c->n_head) {
            size_t n = c->n_in < MAX_HEAD ? c->n_in : MAX_HEAD;
            const char *end = find(c->in, n, "\r\n\r\n");
            if (end)
                read_head(c, (size_t)(end - c->in) + 4);
            else if (c->n_in >= MAX_HEAD)
                refuse(c, 431, "the head is too big");
            else
                return;
            continue;
        }
        if (c->n_in < c->n_head + c->n_body)
            return;
        if (c->chat) {
            c->state = WAITING;
            c->number = count++;
            ksllm_cancel_clear(&c->cancel);
            pthread_cond_signal(&asked);
            return;
        }
        size_t n = c->n_head + c->n_body;
        memmove(c->in, c->in + n, c->n_in -= n);
        c->n_head = c->n_body = 0;
        c->began = now();
    }
}

/* The one for the model has its answer. */
static void next_request(client *c)
{
    size_t n = c->n_head + c->n_body;
    memmove(c->in, c->in + n, c->n_in -= n);
    c->n_head = c->n_body = 0;
    c->chat = false;
    c->began = now();
    c->state = READING;
    read_requests(c);
}

/* ---- the model's thread ---- */

static client *first_waiting(void)
{
    client *first = NULL;
    for (client *c = clients; c < clients + MAX_CLIENTS; c++)
        if (c->state == WAITING && (!first || c->number < first->number))
            first = c;
    return first;
}

/* Of the free places that whose cache is worth most for a request: it holds a
 * conversation most of which comes again, or else is the oldest. */
static const place *best_place(value body)
{
    const place *best = NULL, *oldest = NULL;
    size_t most = 0;
    for (const place *p = places; p < places + n_places; p++) {
        size_t n = 0;
        if (p->job.client)
            continue;
        while (n < p->asked.n && n < body.size && p->asked.p[n] == body.data[n])
            n++;
        if (n > most && n > p->asked.n / 2) {
            best = p;
            most = n;
        }
        if (!oldest || p->number < oldest->number)
            oldest = p;
    }
    return best ? best : oldest;
}

/* The first request that waits, if it is for this place. */
static client *take(const place *p)
{
    pthread_mutex_lock(&lock);
    client *c = over ? NULL : first_waiting();
    if (c && best_place((value){c->in + c->n_head, c->n_body}) == p)
        c->state = RUNNING;
    else
        c = NULL;
    pthread_mutex_unlock(&lock);
    return c;
}

static void leave(job *j)
{
    text *all[] = {&j->content, &j->thinking, &j->calls, &j->arguments};
    client *c = j->client;
    ksllm_grammar_free(j->grammar);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]->p);
    *j = (job){0};
    pthread_mutex_lock(&lock);
    c->close = c->close || !c->keep || c->old;
    next_request(c);
    pthread_mutex_unlock(&lock);
    ring();
}

/* Between two tokens, for a place without an answer, or whose answer has
 * ended. */
static bool next_answer(void *ctx, ksllm_member *m)
{
    place *p = ctx;
    job *j = &p->job;
    if (j->client) {
        end_answer(j, m->status);
        leave(j);
    }
    client *c = take(p);
    if (!c)
        return false;
    *j = (job){.client = c, .body = {c->in + c->n_head, c->n_body},
               .result.size = sizeof j->result, .created = time(NULL)};
    snprintf(j->id, sizeof j->id, "chatcmpl-%016llx",
             (unsigned long long)serial());
    p->asked.n = 0;
    p->asked.full = false;
    p->number = c->number;
    put(&p->asked, j->body.data, j->body.size);
    if (!begin_answer(j)) {
        leave(j);
        return false;
    }
    m->generation = &j->want;
    m->chat = &j->chat;
    m->part_ctx = j;
    m->result = &j->result;
    m->err = &j->error;
    return true;
}

static void *work(void *arg)
{
    ksllm_member members[KSLLM_MAX_SESSIONS];
    (void)arg;
    for (size_t i = 0; i < n_places; i++)
        members[i] = (ksllm_member){.session = places[i].session,
                                    .on_part = on_part, .next = next_answer,
                                    .next_ctx = &places[i]};
    pthread_mutex_lock(&lock);
    while (!over) {
        if (!first_waiting()) {
            pthread_cond_wait(&asked, &lock);
            continue;
        }
        pthread_mutex_unlock(&lock);
        ksllm_sessions_generate(members, n_places, NULL);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* ---- the polling thread; the lock is held but in poll() ---- */

static void drop(client *c)
{
    if (c->state == RUNNING) {          /* work() still writes to it */
        give_up(c);
        return;
    }
    close(c->fd);
    free(c->in);
    free(c->out.p);
    memset(c, 0, sizeof *c);
}

static void receive(client *c)
{
    char nowhere[4096];
    bool dropped = c->state == CLOSING || c->close;
    char *to = dropped ? nowhere : c->in + c->n_in;
    size_t cap = dropped ? sizeof nowhere : c->cap_in - c->n_in;
    ssize_t n = recv(c->fd, to, cap, 0);
    if (n < 0 && again())
        return;
    if (n <= 0) {
        drop(c);
        return;
    }
    if (dropped)
        return;
    if (!c->n_in)
        c->began = now();
    c->n_in += (size_t)n;
    read_requests(c);
}

static void flush(client *c)
{
    while (c->n_sent < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + c->n_sent, c->out.n - c->n_sent,
                         MSG_NOSIGNAL);
        if (n < 0 && again())
            break;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->n_sent += (size_t)n;
        c->since = now();
    }
    if (c->n_sent < c->out.n) {         /* make room for what comes */
        memmove(c->out.p, c->out.p + c->n_sent, c->out.n -= c->n_sent);
        c->n_sent = 0;
        return;
    }
    free(c->out.p);
    c->out = (text){0};
    c->n_sent = 0;
    if (c->close && c->state == READING) {
        shutdown(c->fd, SHUT_WR);
        c->state = CLOSING;
        c->began = now();
    }
}

static bool late(const client *c, double t)
{
    if (c->n_sent < c->out.n && t - c->since > SECONDS_TO_TAKE)
        return true;
    if (c->state == READING && c->n_sent == c->out.n)
        return t - c->began > (c->n_in ? SECONDS_TO_ASK : SECONDS_IDLE);
    return c->state == CLOSING && t - c->began > 2;
}

/* One that is free; if there is none, that of who has been silent for longest,
 * but a second at least. */
static client *free_client(void)
{
    client *oldest = NULL;
    for (client *c = clients; c < clients + MAX_CLIENTS; c++) {
        if (c->state == FREE)
            return c;
        if ((c->state == READING || c->state == CLOSING) &&
            (!oldest || c->began < oldest->began))
            oldest = c;
    }
    if (!oldest || now() - oldest->began < 1)
        return NULL;
    drop(oldest);
    return oldest;
}

static void welcome(int listener)
{
    int fd = accept(listener, NULL, NULL), one = 1;
    if (fd < 0)
        return;
    client *c = free_client();
    char *in = c ? malloc(MAX_HEAD) : NULL;
    if (!in) {
        close(fd);
        return;
    }
    set_flags(fd);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, (char *)&one, sizeof one);
    *c = (client){.state = READING, .fd = fd, .in = in, .cap_in = MAX_HEAD,
                  .since = now(), .began = now()};
}

static short events_of(const client *c)
{
    short wanted = c->n_sent < c->out.n ? POLLOUT : 0;
    bool busy = c->state == WAITING || c->state == RUNNING;
    return (short)(wanted | (busy ? POLLRDHUP : POLLIN));
}

static void attend(client *c, short came)
{
    bool busy = c->state == WAITING || c->state == RUNNING;
    if (c->state == FREE || (c->gone && c->state == RUNNING))
        return;
    if (c->gone || late(c, now()) || came & (POLLERR | POLLNVAL) ||
        (busy && came & (POLLHUP | POLLRDHUP))) {
        drop(c);
        return;
    }
    if (!busy && came & (POLLIN | POLLHUP))
        receive(c);
    /* Also when nothing waits: a connection may have to be closed. */
    if (c->state != FREE && c->state != CLOSING)
        flush(c);
}

static void serve(int listener)
{
    struct pollfd p[MAX_CLIENTS + 2];
    char rung[64];
    p[MAX_CLIENTS] = (struct pollfd){listener, POLLIN, 0};
    p[MAX_CLIENTS + 1] = (struct pollfd){bell[0], POLLIN, 0};
    pthread_mutex_lock(&lock);
    while (!over) {
        for (int i = 0; i < MAX_CLIENTS; i++) {
            const client *c = &clients[i];
            bool out = c->state == FREE || (c->gone && c->state == RUNNING);
            p[i] = (struct pollfd){out ? -1 : c->fd, events_of(c), 0};
        }
        pthread_mutex_unlock(&lock);
        int n = poll(p, MAX_CLIENTS + 2, 1000);
        pthread_mutex_lock(&lock);
        if (n < 0)
            continue;                   /* a signal */
        while (recv(bell[0], rung, sizeof rung, 0) > 0)
            continue;
        for (int i = 0; i < MAX_CLIENTS; i++)
            attend(&clients[i], p[i].revents);
        if (p[MAX_CLIENTS].revents)
            welcome(listener);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- main ---- */

static void on_signal(int number)
{
    (void)number;
    over = 1;
    ring();
}

static int listen_at(const char *address, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port)};
    socklen_t n = sizeof a;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || inet_pton(AF_INET, address, &a.sin_addr) != 1)
        return -1;
    setsockopt(fd, SOL_SOCKET, OUR_PORT, (char *)&one, sizeof one);
    set_flags(fd);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return -1;
    printf("http://%s:%d/v1\n", address, ntohs(a.sin_port));
    return fflush(stdout) == 0 ? fd : -1;
}

static bool open_model(const char *path, const char *n_ctx)
{
    ksllm_session_options options;
    ksllm_memory memory = {.size = sizeof memory};
    ksllm_error err;
    ksllm_session_options_init(&options);
    options.n_ctx = n_ctx ? (uint32_t)strtoul(n_ctx, NULL, 10) : 0;
    bool ok = ksllm_model_open(path, NULL, &model, &err) == KSLLM_OK &&
              ksllm_session_memory(model, &options, &memory, &err) == KSLLM_OK;
    if (ok && n_places > memory.n_ctx)
        n_places = memory.n_ctx;        /* a pass has a token of each */
    for (size_t i = 0; ok && i < n_places; i++) {
        ok = ksllm_session_create(model, &options, &places[i].session, &err) ==
             KSLLM_OK;
        options.n_threads = 1;          /* all run on those of the first */
    }
    if (ok)
        fprintf(stderr, "answers at once: %zu, each %.0f MiB for %u tokens\n",
                n_places, (double)memory.total / 0x1p20, memory.n_ctx);
    else
        fprintf(stderr, "%s: %s\n", ksllm_status_name(err.status), err.text);
    return ok;
}

static bool run(const char *address, int port)
{
    pthread_t thread;
    int listener = open_sockets() ? listen_at(address, port) : -1;
    if (listener < 0 || !open_bell(bell) ||
        pthread_create(&thread, NULL, work, NULL) != 0) {
        fprintf(stderr, "%s:%d: cannot listen: another program does, or it is "
                "no address of this machine\n", address, port);
        return false;
    }
    set_flags(bell[0]);
    set_flags(bell[1]);
    catch_signal(SIGINT, on_signal);
    catch_signal(SIGTERM, on_signal);
    serve(listener);
    pthread_mutex_lock(&lock);
    for (client *c = clients; c < clients + MAX_CLIENTS; c++)
        ksllm_cancel_set(&c->cancel);
    pthread_cond_signal(&asked);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    for (client *c = clients; c < clients + MAX_CLIENTS; c++)
        if (c->state != FREE)
            drop(c);
    close(listener);
    return true;
}

int main(int argc, char **argv)
{
    n_places = argc > 5 ? strtoul(argv[5], NULL, 10) : 1;
    if (argc < 2 || argc > 6 || !n_places || n_places > KSLLM_MAX_SESSIONS) {
        fprintf(stderr, "usage: serve MODEL.gguf [PORT [ADDRESS [N_CTX "
                "[N_ANSWERS]]]], %d answers at once at most\n",
                KSLLM_MAX_SESSIONS);
        return 2;
    }
    name = argv[1];
    for (const char *p = name; *p; p++)
        if (*p == '/' || *p == '\\')
            name = p + 1;
    key = getenv("KSLLM_KEY");
    bool ok = open_model(argv[1], argc > 4 ? argv[4] : NULL) &&
              run(argc > 3 ? argv[3] : "127.0.0.1",
                  argc > 2 ? atoi(argv[2]) : 8080);
    for (size_t i = 0; i < n_places; i++) {
        ksllm_session_free(places[i].session);
        free(places[i].asked.p);
    }
    ksllm_model_close(model);
    free(event.p);
    return ok ? 0 : 1;
}
