/* robot.c - a robot that listens: a control loop at 50 Hz, a model beside it.
 *
 *     cc -O2 examples/robot.c ksllm.c -lm -pthread -o robot
 *     ./robot [-f] [-s] [MODEL.gguf]        from the top of a checkout
 *     echo "앞으로 이 미터 가 줘" | ./robot
 *
 * At a terminal it draws the room; Ctrl-C is the emergency stop, Ctrl-D ends.
 * From a pipe it prints text: what is said to it, its answer, where that leads;
 * with -s the answers alone, for a voice. -f asks for SCHED_FIFO (as root, or
 * with CAP_SYS_NICE). How late the loop was beside the model goes to stderr.
 *
 * Shows: a loop that never waits for the model, which has a thread, a deadline
 * and other cores (on_thread); a stop that cancels it; calls that a grammar
 * keeps to the tools' schemas, and that are checked against the robot's own
 * limits before anything moves. A schema with 5 m at most would not do for
 * that: under it "20 미터" becomes some other number. The robot is simulated:
 * two driven wheels in a room of 10 by 6 m.
 */
#define _GNU_SOURCE         /* sched_setaffinity */
#include "../ksllm.h"
#include "system.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _WIN32
#define pipe(fds) _pipe(fds, 256, 0x8000)
#else
#include <poll.h>
#endif

enum { HZ = 50, TICK = 1000000000 / HZ, KEPT = 6, TEXT = 2048,
       WIDE = 51, HIGH = 15 };
#define DEMO "examples/demo-model/ksllm-demo.gguf"      /* tools.json beside */
#define ROOM_X 5.0          /* m from the middle to the walls */
#define ROOM_Y 3.0
#define TRACK 0.4           /* m between the wheels */
#define PI 3.14159265358979323846

/* ---- the robot ---- */

static struct {
    double x, y, heading;   /* m, m, degrees to the left of the x axis */
    double turn, drive;     /* what is left to do: degrees, m */
    double speed;           /* m/s */
} bot = {.speed = 0.5};
static struct { const char *name; double x, y; int light; } places[] = {
    {"거실", 0, 0, 0}, {"부엌", 3, 2, 0}, {"침실", -3, 2, 0},
    {"서재", -3, -2, 0}, {"현관", 4, -2, 0}};
enum { N_PLACES = sizeof places / sizeof *places };
static char trail[HIGH][WIDE];

static double up_to(double most, double x)
{
    return x > most ? most : x < -most ? -most : x;
}

static void halt(void)
{
    bot.turn = bot.drive = 0;
}

static int row_of(double y)
{
    return (int)lround((ROOM_Y - y) / ROOM_Y * (HIGH / 2));
}

static int column_of(double x)
{
    return (int)lround((x + ROOM_X) / ROOM_X * (WIDE / 2));
}

/* One period of the loop: the speeds of the wheels, and where they take it. */
static void step(void)
{
    double w = up_to(90.0 / HZ, bot.turn);
    double v = bot.turn != 0 ? 0 : up_to(bot.speed / HZ, bot.drive);
    double left = v - w * PI / 180 * TRACK / 2;
    double right = v + w * PI / 180 * TRACK / 2;
    bot.turn -= w;
    bot.drive -= v;
    bot.heading += (right - left) / TRACK * 180 / PI;
    bot.x += (left + right) / 2 * cos(bot.heading * PI / 180);
    bot.y += (left + right) / 2 * sin(bot.heading * PI / 180);
    trail[row_of(bot.y)][column_of(bot.x)] = '.';
}

static void print_pose(char *out, size_t size)
{
    snprintf(out, size, "x %ld cm, y %ld cm, %ld°", lround(bot.x * 100),
             lround(bot.y * 100), (lround(bot.heading) % 360 + 360) % 360);
}

/* ---- what it can be told ---- */

/* The value of a key. The grammar has seen to it that it is there, once, and
 * that quotes inside of strings are escaped. */
static const char *value(const char *args, const char *key)
{
    const char *at = strstr(args, key);
    return at ? at + strlen(key) + strspn(at + strlen(key), ": ") : "";
}

static bool is(const char *args, const char *key, const char *text)
{
    const char *v = value(args, key);
    size_t n = strlen(text);
    return v[0] == '"' && strncmp(v + 1, text, n) == 0 && v[1 + n] == '"';
}

/* Plans to turn and then to drive, if that ends in the room. */
static const char *plan(double turn, double drive)
{
    double to = (bot.heading + turn) * PI / 180;
    if (fabs(bot.x + drive * cos(to)) > ROOM_X ||
        fabs(bot.y + drive * sin(to)) > ROOM_Y)
        return "refused: there is a wall";
    bot.turn = turn;
    bot.drive = drive;
    return "done";
}

static const char *act(const char *name, const char *args)
{
    if (!strcmp(name, "stop"))
        return halt(), "done";
    if (!strcmp(name, "move")) {
        double m = strtod(value(args, "\"meters\""), NULL);
        return is(args, "\"direction\"", "left") ? plan(90, m) :
               is(args, "\"direction\"", "right") ? plan(-90, m) :
               plan(0, is(args, "\"direction\"", "forward") ? m : -m);
    }
    if (!strcmp(name, "turn")) {
        double d = strtod(value(args, "\"degrees\""), NULL);
        return plan(is(args, "\"direction\"", "left") ? d : -d, 0);
    }
    if (!strcmp(name, "speed")) {
        bot.speed = is(args, "\"level\"", "slow") ? 0.25 :
                    is(args, "\"level\"", "fast") ? 1 : 0.5;
        return "done";
    }
    for (int i = 0; i < N_PLACES; i++) {
        double x = places[i].x - bot.x, y = places[i].y - bot.y;
        if (!strcmp(name, "go_to") && is(args, "\"place\"", places[i].name))
            return plan(remainder(atan2(y, x) * 180 / PI - bot.heading, 360),
                        hypot(x, y));
        if (!strcmp(name, "light") && is(args, "\"room\"", places[i].name))
            return places[i].light = atoi(value(args, "\"percent\"")), "done";
    }
    return !strcmp(name, "go_to") || !strcmp(name, "light")
               ? "refused: no such room" : "noted";
}

/* ---- the model, on a thread of its own ---- */

enum { FREE, ASKED, DONE, FAILED };
static struct {
    const char *path;
    atomic_int state;       /* the loop reads it and never waits */
    int wake[2];            /* a pipe: a byte for each question */
    char tools[1 << 14];
    uint64_t budget_us;
    ksllm_cancel cancel;
    ksllm_model *model;
    ksllm_session *session;
    ksllm_grammar *grammar;
    ksllm_status status;
    ksllm_error err;
    char asked[TEXT], say[TEXT], call[64], args[TEXT], message[2 * TEXT];
    int n_calls, n_past;
    bool forced;            /* it was cut short, or does not fit here */
    char past[KEPT][4 * TEXT];  /* a question and its answer each, JSON */
} mind;
#ifdef __linux__
static cpu_set_t other_cores;
#endif

/* On the loop's own core nothing else may run. */
static void leave_the_core(void *ctx, uint32_t index)
{
    (void)ctx, (void)index;
#ifdef __linux__
    sched_setaffinity(0, sizeof other_cores, &other_cores);
#endif
}

static int cores(void)      /* that are left to the model */
{
    int n = 1;
#ifdef __linux__
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof other_cores, &other_cores) == 0 &&
        (n = CPU_COUNT(&other_cores)) > 1) {
        int core = 0;
        while (!CPU_ISSET(core, &other_cores))
            core++;
        CPU_ZERO(&mine);
        CPU_SET(core, &mine);
        CPU_CLR(core, &other_cores);
        sched_setaffinity(0, sizeof mine, &mine);
        n--;
    }
#endif
    return n < 4 ? n : 4;
}

static void add(char *to, size_t size, ksllm_text text)
{
    size_t n = strlen(to), most = size - n - 1;
    mind.forced |= text.size > most;
    memcpy(to + n, text.data, text.size < most ? text.size : most);
    to[n + (text.size < most ? text.size : most)] = '\0';
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (part == KSLLM_PART_TEXT)
        add(mind.say, sizeof mind.say, text);
    if (part == KSLLM_PART_CALL && mind.n_calls++ == 0)
        add(mind.call, sizeof mind.call, text);
    if (part == KSLLM_PART_ARGUMENTS && mind.n_calls == 1)
        add(mind.args, sizeof mind.args, text);
    if (part == KSLLM_PART_MESSAGE)
        add(mind.message, sizeof mind.message, text);
    return 0;
}

/* One turn. What was not answered has never been said. */
static void answer(void)
{
    static char user[TEXT], messages[(KEPT + 1) * 4 * TEXT];
    ksllm_chat chat;
    ksllm_control control;
    ksllm_generation want;
    ksllm_result result = {.size = sizeof result};
    size_t n = (size_t)ksllm_json_string(mind.asked, KSLLM_NUL, user, TEXT - 1);
    user[n < TEXT ? n : 0] = '\0';
    mind.say[0] = mind.call[0] = mind.args[0] = mind.message[0] = '\0';
    mind.n_calls = 0;
    mind.forced = false;
    if (mind.n_past == KEPT) {      /* forget the older half */
        memmove(mind.past, mind.past + KEPT / 2, sizeof mind.past / 2);
        mind.n_past = KEPT / 2;
    }
    strcpy(messages, "[");
    for (int i = 0; i < mind.n_past; i++)
        strcat(strcat(messages, mind.past[i]), ", ");
    n = strlen(messages);
    snprintf(messages + n, sizeof messages - n,
             "{\"role\": \"user\", \"content\": %s}]", user);
    ksllm_chat_init(&chat);
    chat.messages.data = messages;
    chat.tools.data = mind.tools;
    ksllm_control_init(&control);
    control.cancel = &mind.cancel;
    control.budget_us = mind.budget_us;
    ksllm_generation_init(&want);
    want.max_tokens = 120;
    want.control = &control;
    want.grammar = mind.grammar;
    mind.status = ksllm_chat_generate(mind.session, &chat, &want, on_part, NULL,
                                      &result, &mind.err);
    mind.forced |= result.n_closed > 0 || result.stop == KSLLM_STOP_LENGTH;
    if (mind.status == KSLLM_ERR_CONTEXT)
        mind.n_past = 0;
    if (mind.status == KSLLM_OK && !mind.forced && mind.message[0])
        snprintf(mind.past[mind.n_past++], sizeof *mind.past,
                 "{\"role\": \"user\", \"content\": %s}, %s", user,
                 mind.message);
}

/* Beside the model's file. Without them the grammar says what is wrong. */
static void read_tools(void)
{
    char path[4096];
    const char *slash = strrchr(mind.path, '/');
    snprintf(path, sizeof path, "%.*stools.json",
             slash ? (int)(slash - mind.path + 1) : 0, mind.path);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(mind.tools, 1, sizeof mind.tools - 1, f) : 0;
    mind.tools[n] = '\0';
    if (f)
        fclose(f);
}

static void *think(void *ctx)
{
    ksllm_grammar_options rules;
    ksllm_session_options options;
    char byte;
    leave_the_core(NULL, 0);    /* its workers would inherit that; on_thread
                                   holds whoever creates the session */
    ksllm_grammar_options_init(&rules);
    rules.kind = KSLLM_GRAMMAR_TOOLS;
    rules.source.data = mind.tools;
    ksllm_session_options_init(&options);
    options.n_ctx = 1024;
    options.n_threads = *(uint32_t *)ctx;
    options.on_thread = leave_the_core;
    read_tools();
    bool ok =
        ksllm_model_open(mind.path, NULL, &mind.model, &mind.err) == KSLLM_OK &&
        ksllm_grammar_create(mind.model, &rules, &mind.grammar, &mind.err)
            == KSLLM_OK &&
        ksllm_session_create(mind.model, &options, &mind.session, &mind.err)
            == KSLLM_OK;
    atomic_store(&mind.state, ok ? FREE : FAILED);
    while (ok && read(mind.wake[0], &byte, 1) == 1) {
        answer();
        atomic_store(&mind.state, DONE);
    }
    ksllm_session_free(mind.session);
    ksllm_grammar_free(mind.grammar);
    ksllm_model_close(mind.model);
    return NULL;
}

static void ask(const char *text)       /* when it is FREE */
{
    snprintf(mind.asked, sizeof mind.asked, "%s", text);
    ksllm_cancel_clear(&mind.cancel);
    mind.status = KSLLM_ERR_STATE;
    atomic_store(&mind.state, ASKED);
    if (write(mind.wake[1], "", 1) != 1)
        atomic_store(&mind.state, FREE);
}

static char shown[2 * TEXT + 80];   /* the last answer; the loop's own copy */

/* What comes of an answer that is DONE. Only a whole one moves anything. */
static const char *take(void)
{
    snprintf(shown, sizeof shown, "%s\033[K\n  %s %s", mind.say, mind.call,
             mind.args);
    const char *what = mind.n_calls ? "refused: one thing at a time" : "";
    if (mind.status == KSLLM_ERR_DEADLINE || mind.forced)
        what = "too late, nothing was done";
    else if (mind.status != KSLLM_OK)
        what = ksllm_status_name(mind.status);
    else if (mind.n_calls == 1)
        what = act(mind.call, mind.args);
    atomic_store(&mind.state, FREE);
    return what;
}

/* ---- the loop ---- */

static struct timespec next;
enum { MOST_LATE = 1 << 20 };
static uint32_t late[MOST_LATE];    /* microseconds, beside a busy model */
static size_t n_late;
static const char *class = "SCHED_OTHER";

static void wait_for_tick(void)
{
    struct timespec now;
    next.tv_nsec += TICK;
    next.tv_sec += next.tv_nsec / 1000000000;
    next.tv_nsec %= 1000000000;
#ifdef __linux__
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL)
           == EINTR)
        ;
#else                   /* no sleep to a point of time */
    clock_gettime(CLOCK_MONOTONIC, &now);
    long ns = (next.tv_sec - now.tv_sec) * 1000000000L
              + next.tv_nsec - now.tv_nsec;
    if (ns > 0)
        nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
#endif
    clock_gettime(CLOCK_MONOTONIC, &now);
    long us = (now.tv_sec - next.tv_sec) * 1000000
              + (now.tv_nsec - next.tv_nsec) / 1000;
    if (atomic_load(&mind.state) == ASKED && n_late < MOST_LATE)
        late[n_late++] = us > 0 ? (uint32_t)us : 0;
    if (us > TICK / 1000)           /* lost: go on from here */
        next = now;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_late(void)
{
    qsort(late, n_late, sizeof *late, by_size);
    if (n_late > 0)
        fprintf(stderr, "[%s: %zu periods beside the model, late by %.2f ms "
                "(p50), %.2f ms (p99), %.2f ms (max)]\n", class, n_late,
                late[n_late / 2] / 1e3, late[n_late * 99 / 100] / 1e3,
                late[n_late - 1] / 1e3);
}

static void be_first(void)
{
    struct sched_param p = {.sched_priority = 50};
    if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &p) == 0)
        class = "SCHED_FIFO";
    else
        fprintf(stderr, "[SCHED_FIFO is not allowed here]\n");
}

/* ---- without a terminal: a line, what is said to it, where that leads ---- */

static void talk_in_text(bool only_say)
{
    char line[TEXT], pose[80];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!line[0])
            continue;
        for (ask(line); atomic_load(&mind.state) == ASKED; step())
            wait_for_tick();
        const char *what = take();
        while (bot.turn != 0 || bot.drive != 0)     /* nobody watches */
            step();
        print_pose(pose, sizeof pose);
        if (only_say)
            printf("%s\n", mind.say);
        else if (mind.n_calls)
            printf("> %s\n%s\n  %s %s: %s; %s\n", line, mind.say, mind.call,
                   mind.args, what, pose);
        else
            printf("> %s\n%s\n  no action%s%s; %s\n", line, mind.say,
                   what[0] ? ": " : "", what, pose);
        if (fflush(stdout) != 0)
            return;
    }
}

/* ---- at a terminal: the room above, what is typed below ---- */

#ifdef _WIN32       /* a console has no poll */
static void live(void)
{
    talk_in_text(false);
}
#else
static volatile sig_atomic_t stopped;

static void on_interrupt(int number)
{
    (void)number;
    stopped = 1;
    ksllm_cancel_set(&mind.cancel);
}

/* Everything but the line that is typed, where the cursor comes back to. */
static void draw(const char *did)
{
    char pose[80];
    fputs("\0337\033[H", stdout);
    for (int r = 0; r < HIGH; r++) {
        printf("%.*s\033[K\n", WIDE, trail[r]);
        for (int i = 0; i < N_PLACES; i++)
            if (row_of(places[i].y) == r)
                printf("\033[A\033[%dG%s%s\n", column_of(places[i].x) + 1,
                       places[i].name, places[i].light ? "*" : "");
    }
    print_pose(pose, sizeof pose);
    printf("%s  [%s: last period %.2f ms late]\033[K\n%s %s\033[K\n"
           "\033[%d;%dH%c\0338", pose, class,
           n_late ? late[n_late - 1] / 1e3 : 0, shown, did, row_of(bot.y) + 1,
           column_of(bot.x) + 1,
           ">^<v"[(lround(bot.heading / 90) % 4 + 4) % 4]);
    fflush(stdout);
}

static void live(void)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[TEXT];
    const char *did = "Ctrl-C: emergency stop, Ctrl-D: end";
    catch_signal(SIGINT, on_interrupt);
    memset(trail, ' ', sizeof trail);
    fputs("\033[2J", stdout);
    for (int i = 0, prompt = 1;; i++) {
        wait_for_tick();
        if (atomic_load(&mind.state) == DONE)
            did = take();
        if (stopped) {              /* after take: it wins */
            halt();
            did = "stopped";
        }
        if (atomic_load(&mind.state) == FREE && poll(&in, 1, 0) > 0) {
            ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
            if (n <= 0)
                break;
            line[n - 1] = '\0';
            stopped = 0;
            if (line[0])
                ask(line);
            prompt = 1;
        }
        step();
        if (i % (HZ / 10) == 0)
            draw(did);
        if (prompt)
            printf("\033[%d;1H> \033[J", HIGH + 5), prompt = 0;
    }
    printf("\033[%d;1H\n", HIGH + 5);
}
#endif

int main(int argc, char **argv)
{
    pthread_t thread;
    bool only_say = false, first = false;
    mind.path = DEMO;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-s"))
            only_say = true;
        else if (!strcmp(argv[i], "-f"))
            first = true;
        else
            mind.path = argv[i];
    bool screen = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    mind.budget_us = screen ? 2000000 : 0;      /* a pipe has time */
    uint32_t n_threads = (uint32_t)cores();
    atomic_store(&mind.state, ASKED);           /* until the model is open */
    if (pipe(mind.wake) != 0 ||
        pthread_create(&thread, NULL, think, &n_threads) != 0) {
        fprintf(stderr, "robot: no thread can be started\n");
        return 1;
    }
    if (first)
        be_first();         /* this thread alone, not those it has started */
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (atomic_load(&mind.state) == ASKED)
        wait_for_tick();
    n_late = 0;
    bool ok = atomic_load(&mind.state) != FAILED;
    if (!ok)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(mind.err.status),
                mind.err.text);
    else if (screen)
        live();
    else
        talk_in_text(only_say);
    ksllm_cancel_set(&mind.cancel);
    close(mind.wake[1]);    /* ends the thread */
    pthread_join(thread, NULL);
    print_late();
    return ok && !ferror(stdout) ? 0 : 1;
}
