#!/bin/sh
# The tests under other compilers, flags and machines; `make matrix`.
#
#     tests/matrix.sh          all of it
#     tests/matrix.sh NAME...  only those: gcc-O3 asan m32 ...
#     tests/matrix.sh -NAME... all but those
#     tests/matrix.sh size     bytes of code under each build switch
#
# What the machine has no tools for is skipped and named. Every build has its
# own folder under build/matrix, so a second run only repeats the tests.
set -u
unset MAKEFLAGS MAKELEVEL
passed=0 failed=0 skipped=0
root=build/matrix
mkdir -p "$root"
wanted=" $* "
probe=$root/probe.$$    # two of these may run at a time
trap 'rm -f "$probe" "$probe.c"' EXIT
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
if [ -n "${FULL:-}" ]; then export TEST_FULL=1; fi

skip() {    # skip NAME WHY
    skipped=$((skipped + 1))
    printf '%-14s skipped: %s\n' "$1" "$2"
}

# Can this compiler make a program, and can this machine run it?
usable() {  # usable RUN COMPILER FLAGS...
    run=$1
    shift
    # shellcheck disable=SC2068,SC2086
    echo '#include <errno.h>
        #include <pthread.h>
        #include <math.h>
        int main(int n, char **v) { return sqrt(n) != 1 || !v[0]; }' \
        >"$probe.c" &&
        $@ "$probe.c" -lm -pthread -o "$probe" >/dev/null 2>&1 &&
        $run "$probe" >/dev/null 2>&1
}

# config NAME CC CFLAGS [VARIABLE=VALUE...]: runs make with them.
config() {
    name=$1 cc=$2 flags=$3
    shift 3
    case $wanted in
        *" -$name "*) return ;;
        "  " | *" $name "* | " -"*) ;;
        *) return ;;
    esac
    run=
    for v; do case $v in RUN=*) run=${v#RUN=} ;; esac; done
    # shellcheck disable=SC2086
    if ! usable "$run" $cc $flags; then
        skip "$name" "$cc $flags does not work here"
        return
    fi
    log=$root/$name.log
    begun=$(date +%s)
    make --no-print-directory -j"$jobs" BUILD="$root/$name" CC="$cc" \
        CFLAGS="$flags" WERROR=-Werror JOBS="$jobs" "$@" "${goal:-test}" \
        >"$log" 2>&1
    status=$?
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    # shellcheck disable=SC2046
    set -- $(echo "$counts" | tr -cd '0-9 ')
    # A build without tests counts as one.
    [ "${goal:-test}" = test ] || set -- $((status == 0)) $((status != 0))
    p=${1:-0} f=${2:-1}
    [ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
    passed=$((passed + p)) failed=$((failed + f))
    skipped=$((skipped + ${3:-0}))
    printf '%-14s %s passed, %s failed (%s s)\n' "$name" "$p" "$f" \
        $(($(date +%s) - begun))
    [ "$f" -eq 0 ] || tail -n 60 "$log" | sed 's/^/    /'
}

also() {    # also NAME OTHER: who wants NAME, or does not, means OTHER too
    case $wanted in
        *" $1 "*) wanted="$wanted$2 " ;;
        *" -$1 "*) wanted="$wanted-$2 " ;;
    esac
}

programs() {    # programs CONFIG TEST...: make's TESTS= for these tests
    out= folder=$root/$1/tests
    shift
    for t; do
        out="$out $folder/$t"
    done
    echo "TESTS=$out"
}

sizes() {
    small='-Os -DKSLLM_NO_SIMD -DKSLLM_NO_CHAT -DKSLLM_NO_GRAMMAR'
    small="$small -DKSLLM_NO_STATE -DKSLLM_NO_IQ -DKSLLM_NO_MEDIA"
    # clang and x86 heed the first of these, gcc for arm64 both
    smallest="$small -fno-asynchronous-unwind-tables -fno-unwind-tables"
    for cc in gcc clang aarch64-linux-gnu-gcc; do
        command -v $cc >/dev/null || continue
        case $cc in aarch64*) isa=dotprod ;; *) isa=avx2 ;; esac
        for flags in -O2 -Os '-O2 -DKSLLM_NO_SIMD' '-Os -DKSLLM_NO_SIMD' \
            '-O2 -DKSLLM_NO_THREADS' '-O2 -DKSLLM_NO_MMAP' \
            "-O2 -DKSLLM_ISA_ONLY=$isa" \
            '-O2 -DKSLLM_NO_CHAT' '-O2 -DKSLLM_NO_GRAMMAR' \
            '-O2 -DKSLLM_NO_STATE' '-O2 -DKSLLM_NO_MEDIA' \
            "$small" "$smallest"; do
            # shellcheck disable=SC2086
            $cc -std=c11 -ffp-contract=off $flags -c ksllm.c \
                -o "$root/size.o" || exit 1
            # text holds code and constants; data and bss should be near 0
            size "$root/size.o" | awk -v what="$cc $flags" \
                'NR == 2 {printf "%-88s text %7d  data %5d  bss %5d\n",
                    what, $1, $2, $3}'
        done
    done
}

if [ "${1:-}" = size ]; then
    sizes
    exit
fi

frame=-Wframe-larger-than=18432     # where others spill more than gcc on x86

# What a compiler or a machine could change: the golden hashes of the logits
# and the kernels. The rest has no arithmetic to lose and takes minutes. The
# library is compiled once, inside test_kernels, unless a script looks at it.
numbers() {     # numbers NAME CC CFLAGS [VARIABLE=VALUE...]
    name_=$1 cc_=$2 flags_=$3
    shift 3
    also "$name_" "$name_-kernels"
    config "$name_" "$cc_" "$flags_" SCRIPTS= FRAME= KERNELS=1 FILTER=golden \
        "$(programs "$name_" test_model test_state)" "$@"
    config "$name_-kernels" "$cc_" "$flags_" SCRIPTS= FRAME= KERNELS=1 \
        BUILD="$root/$name_" "$(programs "$name_" test_kernels)" "$@" \
        SCRIPTS= FILTER=
}

# abroad NAME CC CFLAGS [VARIABLE=VALUE...]: another machine or system. The
# library compiles without a word and asks for nothing that is not known; tests
# only where they are named and RUN can run them.
abroad() {
    name_=$1 cc_=$2 flags_=$3
    shift 3
    config "$name_" "$cc_" "$flags_" AR=llvm-ar-19 NM=llvm-nm-19 \
        OBJDUMP=llvm-objdump-19 SCRIPTS=tests/symbols.sh EXAMPLES= TESTS= \
        RUN=true FRAME="$frame" "$@"
}

everything='test_gguf test_model test_session test_several test_state
    test_generate test_chat test_split test_turn test_interface test_kernels'

# The scripts look at a library from outside: once for each compiler is
# enough, and sanitizers and emulators change what they would see.
numbers clang-O2 clang -O2

# Compilers take minutes over a kernel with every access checked: plain C
# kernels here, and one in eight of the random inputs; all of both with FULL=1.
san='-O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all'
[ -n "${FULL:-}" ] || san="$san -DKSLLM_NO_SIMD -DTEST_ONE_OF=8"
config asan clang "$san -fsanitize=address,undefined" FRAME= SCRIPTS= \
    "$(programs asan $everything test_text test_blocks fuzz_gguf \
        fuzz_tokens fuzz_split fuzz_api fuzz_chat fuzz_state fuzz_obey)"
# Of a block of keys in the int8 cache all are multiplied, also those that do
# not count. What comes of them is replaced, or has a share of 0; that 0 times
# anything is 0 is not known to clang, so the sum of values by their shares is
# left out. -mfma, because a multiply-add in software has branches. clang's
# library knows stat, but not the stat64 of 64-bit offsets.
echo 'fun:k_values_any_scalar' >"$root/msan.ignore"
among=$(programs msan test_gguf test_generate test_chat test_split \
    test_turn test_text test_media test_see test_hear \
    test_adapter test_encoder test_tools test_schema fuzz_gguf fuzz_tokens \
    fuzz_split fuzz_api fuzz_chat fuzz_state fuzz_adapter fuzz_see fuzz_hear)
[ -z "${FULL:-}" ] || among=EXAMPLES=   # all
config msan clang "$san -fsanitize=memory -mfma -D_FILE_OFFSET_BITS=32 \
    -fsanitize-ignorelist=$root/msan.ignore" FRAME= SCRIPTS= EXAMPLES= "$among"
# What several threads do; all of it takes many minutes here.
among=another_thread
[ -z "${FULL:-}" ] || among=
also tsan tsan-model
also tsan tsan-pool
config tsan gcc "$san -fsanitize=thread" FRAME= SCRIPTS= FILTER=$among \
    "$(programs tsan test_session)"
config tsan-model gcc "$san -fsanitize=thread" FRAME= SCRIPTS= \
    BUILD=$root/tsan FILTER=thread "$(programs tsan test_model)"
config tsan-pool gcc "$san -fsanitize=thread" FRAME= SCRIPTS= \
    BUILD=$root/tsan "$(programs tsan test_pool)"
# Accesses of the kernels for AVX2, which the sanitizers above do without
# (valgrind has no AVX-512). Values nobody wrote are for msan to find: valgrind
# does not know either that 0 times one of them is 0.
also valgrind valgrind-model
grind='valgrind -q --undef-value-errors=no --error-exitcode=9'
config valgrind gcc '-O1 -g' FRAME= SCRIPTS= EXAMPLES= RUN="$grind" \
    "$(programs valgrind test_pool test_blocks test_turn)"
config valgrind-model gcc '-O1 -g' FRAME= SCRIPTS= EXAMPLES= RUN="$grind" \
    BUILD=$root/valgrind FILTER=shortest_golden \
    "$(programs valgrind test_model)"
# Debian has the kernel's headers where only the 64-bit compiler looks, unless
# gcc-multilib is there, which the aarch64 compiler does not allow.
headers=/usr/include/$(gcc -dumpmachine 2>/dev/null)
# Eight registers spill more: the stack frames are a little over the limit.
i386="-m32 -msse2 -mfpmath=sse -idirafter $headers"
config m32 "gcc $i386" -O2 SCRIPTS= FRAME= \
    "$(programs m32 $everything)"
# All golden hashes take minutes where instructions are emulated.
among=shortest_golden
[ -z "${FULL:-}" ] || among=golden
# The rows of AVX-512 and AVX-VNNI, on a machine with or without them.
numbers emulated 'gcc -mavx2 -mfma -mf16c -Wno-psabi' \
    '-O1 -include tests/emulate.h' FILTER=$among
# qemu's `max` has every row.
arm64='qemu-aarch64 -cpu max,pauth-impdef=on'
numbers aarch64 aarch64-linux-gnu-gcc '-O2 -static' RUN="$arm64" \
    AR=aarch64-linux-gnu-ar FILTER=$among \
    KERNELS= FRAME="$frame" SCRIPTS=tests/calls.sh
# The compilers that phones, Macs and small boards have.
numbers clang-arm64 "clang-19 --target=aarch64-linux-gnu" '-O1 -static' \
    RUN="$arm64" AR=llvm-ar-19 EXAMPLES= FILTER=shortest_golden
abroad clang-arm64-O2 "clang-19 --target=aarch64-linux-gnu" -O2
# The row for NEON, compiled for no more than armv7.
numbers armv7 arm-linux-gnueabihf-gcc '-O2 -static' RUN=qemu-arm \
    AR=arm-linux-gnueabihf-ar FILTER=$among \
    KERNELS= FRAME="$frame" SCRIPTS=tests/calls.sh
abroad clang-armv7 "clang-19 --target=arm-linux-gnueabihf" -O1
abroad clang-i386 "clang-19 $i386" -O1
abroad riscv64 riscv64-linux-gnu-gcc '-O2 -static' RUN=qemu-riscv64 \
    FILTER=shortest_golden "$(programs riscv64 test_model test_state)"
# What 32-bit Raspberry Pi OS compiles for; README's program links there.
abroad armv6 'arm-linux-gnueabihf-gcc -march=armv6+fp -marm' '-O2 -static' \
    RUN=qemu-arm SCRIPTS='tests/symbols.sh tests/readme.sh' \
    "$(programs armv6 test_pool)"
zig=${ZIG:-build/zig/ziglang/zig}
export ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-$PWD/build/zig/cache}
for cpu in aarch64 x86_64; do
    abroad $cpu-macos "$zig cc -target $cpu-macos" '-O1 -g0'
done

# What seldom says more than the above: make matrix FULL=1.
if [ -n "${FULL:-}" ]; then
numbers gcc-O0 gcc -O0
numbers gcc-O3 gcc -O3
numbers clang-O0 clang -O0
numbers clang-O3 clang -O3
numbers no-simd gcc '-O2 -DKSLLM_NO_SIMD'
# The A76 has all rows but i8mm, the A53 NEON alone.
for cpu in cortex-a76 cortex-a53; do
    config aarch64-$cpu aarch64-linux-gnu-gcc '-O2 -static' SCRIPTS= FRAME= \
        RUN="qemu-aarch64 -cpu $cpu" AR=aarch64-linux-gnu-ar \
        BUILD="$root/aarch64" "$(programs aarch64 test_kernels)"
done
# Compiled for NEON and VFPv4; and a CPU that has NEON alone.
numbers armv7-neon arm-linux-gnueabihf-gcc \
    '-O2 -static -march=armv7-a+neon-vfpv4' RUN=qemu-arm \
    AR=arm-linux-gnueabihf-ar
config armv7-cortex-a9 arm-linux-gnueabihf-gcc '-O2 -static' SCRIPTS= FRAME= \
    RUN="qemu-arm -cpu cortex-a9" AR=arm-linux-gnueabihf-ar \
    BUILD="$root/armv7" "$(programs armv7 test_kernels)"
fi

# Drafts are tried wherever there are any, not where they pay.
config drafts clang '-O1 -DKSLLM_NO_SIMD -DKSLLM_DRAFT_ALWAYS=1' FRAME= \
    SCRIPTS= EXAMPLES= "$(programs drafts test_draft test_generate test_obey \
        test_tools test_turn)"

# These leave out what the tests use: it is enough that they build. Their
# kernels are those of every other build.
goal=lib
plain='-O0 -DKSLLM_NO_SIMD'
[ -z "${FULL:-}" ] || plain=-O2
config no-threads gcc "$plain -DKSLLM_NO_THREADS" FRAME=
config no-mmap gcc "$plain -DKSLLM_NO_MMAP" FRAME=
config bare clang "$plain -DKSLLM_NO_THREADS -DKSLLM_NO_MMAP \
    -DKSLLM_NO_SIMD -DKSLLM_NO_CHAT -DKSLLM_NO_GRAMMAR \
    -DKSLLM_NO_STATE -DKSLLM_NO_MEDIA" FRAME=

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
