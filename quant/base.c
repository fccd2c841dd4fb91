/* base.c, part of ksllm-quant.c - the system, messages, memory, the output
 * file, workers, options.
 *
 * This is a program, not a library: it ends itself when it cannot go on. The
 * one thing that it then owes is to leave no half-written file behind. */

#include <errno.h>
#include <strings.h>

/* ---- the system ----
 * What a tool needs beyond § 3 of the library, on POSIX and on Windows. Nothing
 * else in quant/ knows of either. Paths, names and messages are UTF-8. */

typedef struct {
    u64 volume, number; /* which file it is, whatever name it goes by */
    u64 size;
    bool folder, regular, writable;
} sys_entry;

enum { SYS_NAME = 1024 }; /* 255 bytes, or UTF-16 units of 3 each */

static char out_temp[4200]; /* "" when there is none; read by a handler */

#if defined _WIN32

#include <dirent.h>
#include <shellapi.h>
#include <unistd.h>

enum { SYS_PATH = 4200 };
#define SYS_HAS_AVX2 IsProcessorFeaturePresent(40) /* not in older headers */

/* Why the last call failed. */
static const char *sys_why(void) {
    switch (OS_ERROR) {
    case ERROR_DISK_FULL: case ERROR_HANDLE_DISK_FULL:
        return "the disk is full";
    case ERROR_SHARING_VIOLATION: case ERROR_USER_MAPPED_FILE:
        return "a program has it open";
    default: return os_reason(OS_ERROR);
    }
}

static bool sys_is_slash(char c) { return c == '/' || c == '\\'; }

static bool sys_wide(const char *path, wchar_t wide[SYS_PATH]) {
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide,
        SYS_PATH) > 0;
}

static char *sys_utf8(const wchar_t *wide) {
    int n = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *z = calloc((size_t)n + 1, 1);
    if (z) WideCharToMultiByte(CP_UTF8, 0, wide, -1, z, n, NULL, NULL);
    return z;
}

/* 1: it is there, 0: there is nothing, -1: sys_why. */
static int sys_look(const char *path, sys_entry *e) {
    wchar_t wide[SYS_PATH];
    BY_HANDLE_FILE_INFORMATION i;
    if (!sys_wide(path, wide)) return -1;
    HANDLE h = CreateFileW(wide, 0,
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
        OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (h == OS_NONE)
        return OS_ERROR == ERROR_FILE_NOT_FOUND
            || OS_ERROR == ERROR_PATH_NOT_FOUND ? 0 : -1;
    bool ok = GetFileInformationByHandle(h, &i);
    *e = (sys_entry){.volume = i.dwVolumeSerialNumber,
        .number = (u64)i.nFileIndexHigh << 32 | i.nFileIndexLow,
        .size = (u64)i.nFileSizeHigh << 32 | i.nFileSizeLow,
        .folder = i.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY,
        .writable = !(i.dwFileAttributes & FILE_ATTRIBUTE_READONLY)};
    e->regular = !e->folder && GetFileType(h) == FILE_TYPE_DISK;
    CloseHandle(h);
    return ok ? 1 : -1;
}

/* Whether the file goes when its handle is closed: by a call, or because the
 * program has ended, in whatever way. */
static bool sys_goes(os_handle h, BOOL goes) {
    FILE_DISPOSITION_INFO i = {(BOOLEAN)goes};
    return SetFileInformationByHandle(h, FileDispositionInfo, &i, sizeof i);
}

/* A new file to write, which is out_temp from here on. */
static os_handle sys_create(const char *path) {
    wchar_t wide[SYS_PATH];
    if (!sys_wide(path, wide)) return OS_NONE;
    HANDLE h = CreateFileW(wide, GENERIC_WRITE | DELETE, FILE_SHARE_READ, NULL,
        CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (h != OS_NONE) strcpy(out_temp, path);
    if (h != OS_NONE) sys_goes(h, TRUE);
    return h;
}

static bool sys_resize(os_handle h, u64 size) {
    LARGE_INTEGER n = {.QuadPart = (LONGLONG)size};
    return SetFilePointerEx(h, n, NULL, FILE_BEGIN) && SetEndOfFile(h);
}

/* Bytes written, -1: sys_why. */
static ptrdiff_t sys_write(os_handle h, const u8 *p, size_t n, u64 offset) {
    OVERLAPPED at = {
        .Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    DWORD put = 0;
    n = min_size(n, 1 << 30);
    return WriteFile(h, p, (DWORD)n, &put, &at) ? (ptrdiff_t)put : -1;
}

/* On the disk, and closed. */
static bool sys_finish(os_handle h) {
    return FlushFileBuffers(h) && sys_goes(h, FALSE) && CloseHandle(h);
}

static bool sys_rename(const char *from, const char *to) {
    wchar_t a[SYS_PATH], b[SYS_PATH];
    return sys_wide(from, a) && sys_wide(to, b)
        && MoveFileExW(a, b,
            MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH);
}

static void sys_remove(const char *path) {
    wchar_t wide[SYS_PATH];
    if (sys_wide(path, wide)) DeleteFileW(wide);
}

static void *sys_folder(const char *path) {
    wchar_t wide[SYS_PATH];
    return sys_wide(path, wide) ? _wopendir(wide) : NULL;
}

/* The next name in it; after the last false, and it is closed. */
static bool sys_next(void *folder, char name[SYS_NAME]) {
    struct _wdirent *e = folder ? _wreaddir(folder) : NULL;
    if (!e && folder) _wclosedir(folder);
    return e && WideCharToMultiByte(CP_UTF8, 0, e->d_name, -1, name, SYS_NAME,
        NULL, NULL);
}

/* Zeros that take memory only where they are written to. */
static void *sys_zeros(size_t n) {
    return VirtualAlloc(NULL, n, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

static void sys_zeros_end(void *p, size_t n) {
    (void)n;
    VirtualFree(p, 0, MEM_RELEASE);
}

/* Mapped pages that will not be read again: the system finds them itself. */
static void sys_forget(const u8 *p, u64 n) { (void)p, (void)n; }

/* Nothing to do: sys_goes sees to the file, and nobody can shorten what is
 * mapped. */
static void out_catch_signals(void) {}
static void sys_begin_worker(void) {}

/* The arguments, which main gets in another encoding, and with names in place
 * of GLOB; NULL: no memory. */
static char **sys_arguments(int *argc, char **argv) {
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), argc);
    (void)argv;
    if (!wide) return NULL;
    SetConsoleOutputCP(CP_UTF8);
    char **list = calloc((size_t)*argc + 1, sizeof *list);
    for (int i = 0; list && i < *argc; i++)
        if (!(list[i] = sys_utf8(wide[i]))) return NULL;
    LocalFree(wide);
    return list;
}

#else

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of x86; known since before main. */
#define SYS_HAS_AVX2 __builtin_cpu_supports("avx2")

/* Why the last call failed. */
static const char *sys_why(void) { return strerror(errno); }

static bool sys_is_slash(char c) { return c == '/'; }

/* 1: it is there, 0: there is nothing, -1: sys_why. */
static int sys_look(const char *path, sys_entry *e) {
    struct stat st;
    if (stat(path, &st)) return errno == ENOENT ? 0 : -1;
    *e = (sys_entry){.volume = (u64)st.st_dev, .number = (u64)st.st_ino,
        .size = (u64)st.st_size, .folder = S_ISDIR(st.st_mode),
        .regular = S_ISREG(st.st_mode), .writable = !access(path, W_OK)};
    return 1;
}

/* A new file to write, which is out_temp from here on. A signal finds either
 * no file or its whole name. */
static os_handle sys_create(const char *path) {
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) strcpy(out_temp, path);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return fd;
}

static bool sys_resize(os_handle fd, u64 size) {
    return !ftruncate(fd, (off_t)size);
}

/* Bytes written, -1: sys_why. */
static ptrdiff_t sys_write(os_handle fd, const u8 *p, size_t n, u64 offset) {
    ssize_t k;
    do k = pwrite(fd, p, n, (off_t)offset);
    while (k < 0 && errno == EINTR);
    return k;
}

/* On the disk, and closed. */
static bool sys_finish(os_handle fd) { return !fsync(fd) && !close(fd); }

static bool sys_rename(const char *from, const char *to) {
    char dir[4200];
    if (rename(from, to)) return false;
    snprintf(dir, sizeof dir, "%s", to);
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    else memcpy(dir, ".", 2);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* some file systems cannot: the rename holds anyway */
        close(fd);
    }
    return true;
}

static void sys_remove(const char *path) { unlink(path); }

static void *sys_folder(const char *path) { return opendir(path); }

/* The next name in it; after the last false, and it is closed. */
static bool sys_next(void *folder, char name[SYS_NAME]) {
    struct dirent *e = folder ? readdir(folder) : NULL;
    if (!e && folder) closedir(folder);
    return e && snprintf(name, SYS_NAME, "%s", e->d_name) > 0;
}

/* Zeros that take memory only where they are written to. */
static void *sys_zeros(size_t n) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void sys_zeros_end(void *p, size_t n) { munmap(p, n); }

/* Lets the kernel drop mapped pages that will not be read again. */
static void sys_forget(const u8 *p, u64 n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t a = ((uintptr_t)p + page - 1) & ~(page - 1);
    uintptr_t b = ((uintptr_t)p + (size_t)n) & ~(page - 1);
    if (b > a) madvise((void *)a, b - a, MADV_DONTNEED);
}

static void out_on_signal(int sig) {
    if (out_temp[0]) unlink(out_temp);
    if (sig == SIGBUS) {
        static const char text[] =
            "ksllm-quant: an input file was shortened while it was read\n";
        if (write(2, text, sizeof text - 1) < 0) _exit(1);
    }
    _exit(128 + sig);
}

static void out_catch_signals(void) {
    static const int sigs[] = {SIGINT, SIGTERM, SIGHUP, SIGBUS, SIGQUIT};
    struct sigaction sa = {.sa_handler = out_on_signal};
    sigfillset(&sa.sa_mask);
    for (size_t i = 0; i < KS_LEN(sigs); i++) sigaction(sigs[i], &sa, NULL);
    signal(SIGXFSZ, SIG_IGN); /* then write fails with EFBIG, and says so */
    signal(SIGPIPE, SIG_IGN);
}

/* Threads of § 3 block all signals. This one is for who reads the file. */
static void sys_begin_worker(void) {
    sigset_t bus;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
}

static char **sys_arguments(int *argc, char **argv) {
    (void)argc;
    return argv;
}

#endif

/* ---- messages ---- */

static void out_remove(void) {
    if (out_temp[0]) sys_remove(out_temp);
    out_temp[0] = 0;
}

static KS_PRINTF(1, 2) __attribute__((noreturn)) void die(
    const char *fmt, ...) {
    char line[16384];
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(line, sizeof line, "ksllm-quant: ");
    n += vsnprintf(line + n, sizeof line - 1 - (size_t)n, fmt, ap);
    va_end(ap);
    n = n < (int)sizeof line - 2 ? n : (int)sizeof line - 2;
    memcpy(line + n, "\n", 2);
    fflush(stdout);
    fputs(line, stderr); /* at once: other workers may say something */
    out_remove();
    _exit(1); /* workers may be running: no destructors */
}

/* ---- what is read ----
 * Every file that is opened is noted, so that no output replaces one, whatever
 * name it goes by. */

static sys_entry *in_files;
static size_t n_in_files;

static void in_note(const sys_entry *e) {
    in_files = realloc(in_files, (n_in_files + 1) * sizeof *in_files);
    if (!in_files) die("out of memory");
    in_files[n_in_files++] = *e;
}

static bool in_is_noted(const sys_entry *e) {
    for (size_t i = 0; i < n_in_files; i++)
        if (in_files[i].volume == e->volume && in_files[i].number == e->number)
            return true;
    return false;
}

/* For a file that the library opens: notes it, or says what it is instead. */
static void in_check(const char *path) {
    sys_entry e;
    if (sys_look(path, &e) <= 0)
        die("%s: cannot be opened: %s", path, os_reason(OS_ERROR));
    if (e.folder)
        die("%s: a folder; 'ksllm-quant convert' makes a GGUF file of a "
            "model's folder", path);
    in_note(&e);
}

/* ---- the output file ----
 * Written under a temporary name in the target's folder, synced and renamed
 * when complete. At every other end the temporary file is removed: by die, by
 * the signals that can be caught, and by out_finish's failure. */

typedef struct {
    os_handle file;
    u64 at; /* end of what out_append wrote */
    char path[4096];
} out_file;

static void out_open(out_file *o, const char *path) {
    int n = snprintf(o->path, sizeof o->path, "%s", path);
    sys_entry e;
    if (n < 0 || (size_t)n >= sizeof o->path) die("%s: name too long", path);
    if (sys_look(path, &e) > 0) {
        if (in_is_noted(&e))
            die("%s: is read for this; write to another file", path);
        if (!e.regular) die("%s: exists and is not a regular file", path);
        if (!e.writable) die("%s: permission denied", path);
    }
    char temp[sizeof out_temp];
    snprintf(temp, sizeof temp, "%s.%ld.tmp", path, (long)getpid());
    o->file = sys_create(temp);
    if (o->file == OS_NONE) die("%s: cannot write: %s", temp, sys_why());
    o->at = 0;
}

static void out_write_at(
    const out_file *o, const void *data, size_t n, u64 at) {
    const u8 *p = data;
    while (n) {
        ptrdiff_t k = sys_write(o->file, p, n, at);
        if (k <= 0)
            die("%s: cannot write: %s", o->path,
                k ? sys_why() : "the disk is full");
        p += k, at += (u64)k, n -= (size_t)k;
    }
}

static void out_append(out_file *o, const void *data, size_t n) {
    out_write_at(o, data, n, o->at);
    o->at += n;
}

/* The whole size beforehand: writers come in any order. */
static void out_resize(const out_file *o, u64 size) {
    if (!sys_resize(o->file, size))
        die("%s: cannot write: %s", o->path, sys_why());
}

static void out_finish(out_file *o) {
    if (!sys_finish(o->file))
        die("%s: cannot write: %s", o->path, sys_why());
    if (!sys_rename(out_temp, o->path))
        die("%s: cannot rename: %s", o->path, sys_why());
    out_temp[0] = 0;
}

/* ---- memory ---- */

static void *xalloc(u64 n, size_t size) {
    if (size && n > (size_t)-1 / 2 / size) die("out of memory: size overflow");
    void *p = calloc(n ? (size_t)n : 1, size);
    if (!p) die("out of memory: %llu bytes", LLU(n * size));
    return p;
}

static void *xgrow(void *p, size_t n, size_t size) {
    if (size && n > (size_t)-1 / 2 / size) die("out of memory: size overflow");
    p = realloc(p, n ? n * size : 1);
    if (!p) die("out of memory: %llu bytes", LLU(n * size));
    return p;
}

/* A growing run of bytes. */
typedef struct {
    u8 *p;
    size_t n, cap;
} bytes;

static u8 *bytes_room(bytes *b, size_t n) {
    if (n > b->cap - b->n) {
        size_t cap = max_size(b->cap * 2, max_size(b->n + n, 4096));
        b->p = xgrow(b->p, cap, 1);
        b->cap = cap;
    }
    b->n += n;
    return b->p + b->n - n;
}

static void bytes_put(bytes *b, const void *p, size_t n) {
    if (n) memcpy(bytes_room(b, n), p, n);
}

/* ---- paths and names ---- */

/* Where the last name of a path begins. */
static const char *path_last(const char *path) {
    size_t n = strlen(path);
    while (n && !sys_is_slash(path[n - 1])) n--;
    return path + n;
}

/* Whether a name from a file stays within its folder, on every system. */
static bool name_is_plain(str name) {
    for (size_t i = 0; i < name.n; i++)
        if (!name.p[i] || strchr("/\\:", name.p[i])) return false;
    return name.n && !str_eq(name, str_of(".."));
}

/* One item of a pattern that is no star; where the next one begins. NULL: it
 * is not c. */
static const char *glob_item(const char *p, char c) {
    if (!*p || !c) return NULL;
    if (*p == '?') return p + 1;
    if (*p == '[') {
        bool other = p[1] == '!', in = false;
        const char *first = p + 1 + other, *q = first;
        for (; *q && (*q != ']' || q == first); q++) {
            q += *q == '\\' && q[1];
            char from = *q;
            if (q[1] == '-' && q[2] && q[2] != ']')
                q += 2, q += *q == '\\' && q[1];
            in |= c >= from && c <= *q;
        }
        if (*q) return in != other ? q + 1 : NULL;
    }
    p += *p == '\\' && p[1];
    return *p == c ? p + 1 : NULL;
}

/* Whether all of z is what the pattern says: * ? [a-z] [!a-z]. */
static bool glob_fits(const char *pattern, const char *z) {
    const char *star = NULL, *from = NULL, *p = pattern;
    while (*z || *p) {
        const char *after = *p == '*' ? NULL : glob_item(p, *z);
        if (*p == '*') star = ++p, from = z;
        else if (after) p = after, z++;
        else if (star && *from) p = star, z = ++from;
        else return false;
    }
    return true;
}

/* ---- whole files, mapped ---- */

/* Maps a file to read; false when there is none. An empty file has p NULL. */
static bool file_map(const char *path, os_file *f) {
    sys_entry e;
    ksllm_error err;
    int there = sys_look(path, &e);
    *f = (os_file){0};
    if (!there) return false;
    if (there < 0) die("%s: %s", path, sys_why());
    if (!e.regular) die("%s: not a regular file", path);
    in_note(&e);
    if (e.size && os_open(path, NULL, f, &err)) die("%s", err.text);
    static const char lfs[] = "version https://git-lfs";
    if (f->n >= sizeof lfs - 1 && !memcmp(f->p, lfs, sizeof lfs - 1))
        die("%s: a git-LFS pointer in place of the file: fetch that with "
            "'git lfs pull'", path);
    return true;
}

/* A GGUF file to read, and the parts beside it. */
static void gguf_file(gguf *g, const char *path) {
    ksllm_error err;
    os_file f;
    *g = (gguf){.name = str_of(path)};
    in_check(path);
    if (os_open(path, NULL, &f, &err) || gguf_open(g, f, path, &MEM_LIBC, &err))
        die("%s", err.text);
    for (u32 i = 1; i < g->n_parts; i++) {
        char *part = strdup(path);
        if (!part) die("out of memory");
        gguf_part_name(part, strlen(part), i + 1);
        in_check(part);
        free(part);
    }
}

static void file_unmap(os_file *f) { os_close(f, NULL); }

/* ---- workers ---- */

static f64 now_seconds(void) { return 1e-9 * (f64)os_now(); }

static u32 n_workers; /* set from --threads; 0: as many as a session has */

static u32 workers_wanted(void) {
    return n_workers ? n_workers : os_fast_cores();
}

typedef struct {
    void (*task)(void *arg, u64 i, void *scratch);
    void *arg;
    size_t scratch_bytes;
    u64 n, next; /* next: atomic */
    u32 n_running; /* atomic */
} par_job;

OS_THREAD par_worker(void *arg) {
    par_job *j = arg;
    sys_begin_worker();
    void *scratch = xalloc(j->scratch_bytes, 1);
    for (u64 i; (i = AT_ADD(&j->next, 1)) < j->n;) j->task(j->arg, i, scratch);
    free(scratch);
    __atomic_sub_fetch(&j->n_running, 1, __ATOMIC_RELEASE);
    return 0;
}

/* Runs task(arg, i, scratch) for i in [0, n) on all cores; calls tick about
 * five times a second on the calling thread, which does no work itself. */
static void par_run(u64 n, void (*task)(void *, u64, void *), void *arg,
    size_t scratch_bytes, void (*tick)(void *)) {
    par_job j = {task, arg, scratch_bytes, n, 0, 0};
    u32 n_threads = (u32)(n < workers_wanted() ? n : workers_wanted());
    os_thread *t = xalloc(n_threads, sizeof *t);
    j.n_running = n_threads;
    if (os_start(t, n_threads, par_worker, &j) < n_threads)
        die("cannot start a thread");
    for (u32 k = 0; AT_LOAD(&j.n_running) && tick; k++) {
        os_sleep(k < 20 ? 5000000 : 100000000);
        if (k >= 20) tick(arg);
    }
    for (u32 i = 0; i < n_threads; i++) os_join(t[i]);
    free(t);
}

/* ---- progress: a line that is rewritten on a terminal ---- */

typedef struct {
    const char *what;
    u64 total, done; /* bytes of source; done: atomic */
    f64 start, last;
    bool terminal, quiet;
} progress;

static void progress_begin(progress *p, const char *what, u64 total) {
    *p = (progress){.what = what, .total = total, .start = now_seconds(),
        .terminal = isatty(2), .quiet = p->quiet};
    p->last = p->start;
}

static void progress_tick(progress *p) {
    f64 now = now_seconds(), done = (f64)AT_RELAXED(&p->done);
    if (p->quiet || now - p->last < (p->terminal ? 0.2 : 10)) return;
    p->last = now;
    f64 rate = done / (now - p->start);
    f64 left = rate > 0 ? ((f64)p->total - done) / rate : 0;
    fprintf(stderr, "%s%s %5.1f %%  %7.1f MB/s  %.0f s left%s",
        p->terminal ? "\r" : "", p->what, 100 * done / (f64)p->total,
        rate / 1e6, left, p->terminal ? "   " : "\n");
}

static void progress_end(progress *p) {
    if (p->terminal && p->last > p->start && !p->quiet) fputc('\n', stderr);
}

/* ---- options ---- */

typedef struct {
    int argc, at;
    char **argv;
} args;

/* Whether the argument at hand is this option; takes its value if wanted. */
static bool arg_is(args *a, const char *name, const char **value) {
    const char *s = a->argv[a->at];
    size_t n = strlen(name);
    if (strncmp(s, name, n)) return false;
    if (value && s[n] == '=' && name[1] == '-') {
        *value = s + n + 1;
        a->at++;
        return true;
    }
    if (s[n]) return false;
    a->at++;
    if (!value) return true;
    if (a->at >= a->argc) die("%s needs a value", name);
    *value = a->argv[a->at++];
    return true;
}

static u64 arg_number(const char *name, const char *s, u64 lo, u64 hi) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || end == s || *end || *s == '-' || v < lo || v > hi)
        die("%s needs a number from %llu to %llu, not '%s'", name,
            (unsigned long long)lo, (unsigned long long)hi, s);
    return v;
}

/* What is neither an option nor the input that a command still wants. */
static __attribute__((noreturn)) void arg_unknown(const args *a) {
    const char *s = a->argv[a->at];
    if (s[0] == '-')
        die("%s has no option '%s'; %s --help lists them", a->argv[0], s,
            a->argv[0]);
    die("%s: '%s' is one file too many", a->argv[0], s);
}

static bool arg_threads(args *a) {
    const char *v;
    if (!arg_is(a, "--threads", &v)) return false;
    n_workers = (u32)arg_number("--threads", v, 1, 1024);
    return true;
}

static const char *str_dup(str s) {
    char *z = xalloc(s.n + 1, 1);
    memcpy(z, s.p, s.n);
    return z;
}

static ksllm_type type_by_name(const char *name) {
    for (u32 i = 0; i < KS_LEN(BLK_TYPES); i++)
        if (BLK_TYPES[i].name && !strcasecmp(name, BLK_TYPES[i].name))
            return (ksllm_type)i;
    die("'%s' is not a tensor type", name);
}

static bool is_float_type(ksllm_type t) { return BLK_TYPES[t].n == 1; }

/* ---- JSON files ---- */

typedef enum { JS_NULL, JS_BOOL, JS_NUM, JS_STR, JS_ARR, JS_OBJ } js_kind;

/* A value of a tree. Numbers keep their text. */
typedef struct js js;
struct js {
    js_kind kind;
    u32 n;     /* of an array or object */
    str key;   /* in an object */
    str text;  /* of a string (unescaped) or number; "true" of a bool */
    js *first, *next;
};

/* A tree takes 80 bytes a value; a tokenizer.json of 33 MB makes 150 MB. */
enum { JS_MAX_TREE = 512 << 20 };

typedef struct js_block {
    struct js_block *next;
    size_t n, cap;
    _Alignas(16) u8 data[];
} js_block;

typedef struct {
    const char *name; /* for messages */
    json_reader json;
    js_block *blocks;
    size_t taken; /* bytes of tree */
    char why[160];
} js_reader;

static void *js_take(js_reader *r, size_t n) {
    n = (n + 15) & ~(size_t)15;
    if (!r->blocks || n > r->blocks->cap - r->blocks->n) {
        size_t cap = max_size(n, 1 << 20);
        js_block *b = malloc(sizeof *b + cap);
        r->taken += cap;
        if (!b || r->taken > JS_MAX_TREE)
            die("%s: too much JSON to hold", r->name);
        b->next = r->blocks;
        b->n = 0;
        b->cap = cap;
        r->blocks = b;
    }
    void *p = r->blocks->data + r->blocks->n;
    r->blocks->n += n;
    return p;
}

static KS_UNUSED void js_free(js_reader *r) {
    while (r->blocks) {
        js_block *b = r->blocks;
        r->blocks = b->next;
        free(b);
    }
}

static js *js_bad(js_reader *r, const char *why) {
    snprintf(r->why, sizeof r->why, "%s at byte %llu", why,
        LLU(r->json.p - r->json.begin));
    return NULL;
}

static str js_string(js_reader *r, str s) {
    if (!s.n || !memchr(s.p, '\\', s.n)) return s;
    u8 *to = js_take(r, s.n);
    return (str){(const char *)to, json_unescape(to, s)};
}

/* Quadratic only where it is short: longer objects (vocabularies) are checked
 * by those who use them. */
static bool js_is_double(const js *o, str key) {
    u32 k = 0;
    for (const js *c = o->first; c && k < 256; c = c->next, k++)
        if (str_eq(c->key, key)) return true;
    return false;
}

/* The value whose first token was read; NULL and r->why on failure. */
static js *js_value(js_reader *r, json_token token, str text) {
    static const u8 kinds[] = {[JSON_T_NULL] = JS_NULL, [JSON_T_FALSE] = JS_BOOL,
        [JSON_T_TRUE] = JS_BOOL, [JSON_T_NUMBER] = JS_NUM,
        [JSON_T_STRING] = JS_STR, [JSON_T_LIST] = JS_ARR,
        [JSON_T_OBJECT] = JS_OBJ};
    str key = {0};
    if (token == JSON_T_END) return js_bad(r, r->json.why);
    js *v = js_take(r, sizeof *v), *last = NULL;
    *v = (js){.kind = kinds[token]};
    if (token == JSON_T_STRING) v->text = js_string(r, text);
    else if (token < JSON_T_STRING) v->text = text;
    if (token < JSON_T_LIST) return v;
    while ((token = json_next(&r->json, &text)) != JSON_T_CLOSE) {
        if (token == JSON_T_KEY) {
            key = js_string(r, text);
            if (js_is_double(v, key)) return js_bad(r, "a key occurs twice");
            continue;
        }
        js *c = js_value(r, token, text);
        if (!c) return NULL;
        c->key = key;
        if (last) last->next = c;
        else v->first = c;
        last = c;
        v->n++;
    }
    return v;
}

/* The one value of the text, or NULL with r->why filled. `text` must outlive
 * the tree. */
static js *js_parse(js_reader *r, const char *name, const u8 *p, size_t n) {
    str text;
    *r = (js_reader){.name = name,
        .json = json_begin_reader((str){(const char *)p, n})};
    r->json.loose = true;
    if (n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) r->json.p += 3;
    json_token token = json_next(&r->json, &text);
    js *v = js_value(r, token, text);
    if (v && (json_next(&r->json, &text) || r->json.why))
        return js_bad(r, r->json.why);
    return v;
}

static const js *js_get(const js *o, const char *key) {
    if (!o || o->kind != JS_OBJ) return NULL;
    for (const js *c = o->first; c; c = c->next)
        if (str_eq(c->key, str_of(key))) return c;
    return NULL;
}

static str js_text(const js *v) {
    return v && v->kind == JS_STR ? v->text : (str){0};
}

static bool js_is(const js *v, const char *text) {
    return v && v->kind == JS_STR && str_eq(v->text, str_of(text));
}

static bool js_true(const js *v) {
    return v && v->kind == JS_BOOL && v->text.n == 4;
}

static bool js_num(const js *v, f64 *out) {
    char z[64];
    if (!v || v->kind != JS_NUM || v->text.n >= sizeof z) return false;
    memcpy(z, v->text.p, v->text.n);
    z[v->text.n] = 0;
    *out = strtod(z, NULL);
    return true;
}

/* Exact integers only. */
static bool js_int(const js *v, i64 *out) {
    f64 d;
    if (!js_num(v, &d) || d != d || d < -9e15 || d > 9e15) return false;
    *out = (i64)d;
    return (f64)*out == d;
}

/* Text as a JSON string, to a stream. */
static void js_print(FILE *f, str s) {
    const u8 *p = (const u8 *)s.p, *end = s.n ? p + s.n : p;
    u8 esc[8];
    fputc('"', f);
    while (p < end) fwrite(esc, 1, json_escape(&p, end, esc), f);
    fputc('"', f);
}
