/* A plugin for qemu's user mode: how many instructions does a program execute
 * between two marks, exactly, and which ones?
 *
 *     gcc -O2 -fPIC -shared -o icount.so icount.c
 *     qemu-aarch64 -d plugin -plugin ./icount.so PROGRAM
 *     qemu-aarch64 -plugin ./icount.so,trace=FILE PROGRAM
 *
 * A mark is a call of getppid, the odd ones open a stretch and the even ones
 * close it. At its end the first form logs the count on a line of its own, the
 * second writes the address and length of each block of code as it was run
 * (pairs of 64-bit words), then a pair of zeros. One thread only: the counter
 * is not atomic. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* What is used of qemu's interface, version 1: no Debian package has its
 * header. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t id_t_;
void qemu_plugin_register_vcpu_tb_trans_cb(
    id_t_, void (*)(id_t_, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(
    struct qemu_plugin_insn *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(id_t_,
    void (*)(id_t_, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
        uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(id_t_, void (*)(id_t_, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(
    const struct qemu_plugin_tb *, size_t);
void qemu_plugin_outs(const char *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { MAX_BLOCKS = 1 << 16 };

static int64_t getppid_;
static uint64_t count, begun, blocks[MAX_BLOCKS][2], n_blocks;
static bool open_;
static FILE *trace;

static void on_block(unsigned cpu, void *which) {
    (void)cpu;
    if (open_) fwrite(which, sizeof blocks[0], 1, trace);
}

static void on_translation(id_t_ id, struct qemu_plugin_tb *tb) {
    size_t n = qemu_plugin_tb_n_insns(tb);
    (void)id;
    if (trace && n_blocks < MAX_BLOCKS) {
        blocks[n_blocks][0] = qemu_plugin_tb_vaddr(tb);
        blocks[n_blocks][1] = n;
        qemu_plugin_register_vcpu_tb_exec_cb(
            tb, on_block, 0, blocks[n_blocks++]);
    }
    for (size_t i = 0; i < n; i++)
        qemu_plugin_register_vcpu_insn_exec_inline(
            qemu_plugin_tb_get_insn(tb, i), 0, &count, 1);
}

static void on_syscall(id_t_ id, unsigned cpu, int64_t number, uint64_t a,
    uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g,
    uint64_t h) {
    char line[32];
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    (void)g, (void)h;
    if (number != getppid_) return;
    if (open_ && trace) {
        const uint64_t end[2] = {0, 0};
        fwrite(end, sizeof end, 1, trace);
    } else if (open_) {
        snprintf(line, sizeof line, "%llu\n",
            (unsigned long long)(count - begun));
        qemu_plugin_outs(line);
    }
    open_ = !open_;
    begun = count;
}

static void on_exit_(id_t_ id, void *unused) {
    (void)id, (void)unused;
    if (trace) fclose(trace);
}

EXPORT int qemu_plugin_install(
    id_t_ id, const void *info, int argc, char **argv) {
    /* What the interface says of the machine begins with its name. */
    getppid_ = strcmp(*(char *const *)info, "arm") == 0 ? 64 : 173;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "trace=", 6) == 0
            && !(trace = fopen(argv[i] + 6, "wb")))
            return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
    return 0;
}
