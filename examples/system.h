/* system.h - what some examples need that POSIX and Windows do differently.
 *
 * ksllm itself needs none of it. On Windows arguments come in the system's code
 * page and not in UTF-8, unless the program's manifest sets activeCodePage.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined _WIN32
#define WIN32_LEAN_AND_MEAN 1   /* sockets are winsock2.h's */
#include <io.h>
#include <windows.h>

static void (*caught)(int);

static void on_caught(int number)
{
    signal(number, on_caught);          /* there it is good for one */
    caught(number);
}
#endif

/* A handler for a signal; what waits, fgets too, ends where it comes. */
static inline void catch_signal(int number, void (*handler)(int))
{
#if defined _WIN32
    caught = handler;
    signal(number, on_caught);
#else
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = handler;           /* no SA_RESTART */
    sigaction(number, &act, NULL);
#endif
}

/* Closes a file whose bytes are on the disk then. */
static inline bool close_synced(FILE *f)
{
    bool ok = fflush(f) == 0;
#if defined _WIN32
    ok = ok && _commit(_fileno(f)) == 0;
#else
    ok = ok && fsync(fileno(f)) == 0;
#endif
    return (fclose(f) == 0) & ok;
}

/* What has the name from then on is one file or the other, whenever the power
 * goes. */
static inline bool replace_file(const char *from, const char *to)
{
#if defined _WIN32
    return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING |
                       MOVEFILE_WRITE_THROUGH);
#else
    return rename(from, to) == 0;
#endif
}

#endif
