#!/bin/sh
# What the library's object file asks for and offers: nothing that prints,
# ends the program or changes its state (I1), no names but ksllm_*, and no
# memory that can be written except a word per CPU fact (I3).
#
#     tests/symbols.sh [build/ksllm.o]
#
# An object for another system or machine wants tools that know all of them:
# NM=llvm-nm-19 OBJDUMP=llvm-objdump-19.
set -u
object=${1:-${BUILD:-build}/ksllm.o}
NM=${NM:-nm} OBJDUMP=${OBJDUMP:-objdump}
passed=0 failed=0

# The libc functions in use. A new one belongs here only if it never prints,
# exits, takes a lock that a fork could leave behind, or depends on a locale.
libc='memchr memcmp memcpy memmove memset strchr strcmp strcspn strlen strncmp
strnlen
malloc realloc free
open close fstat mmap munmap madvise sysconf syscall read pread
clock_gettime nanosleep getauxval sched_getaffinity sched_yield
pthread_create pthread_join pthread_attr_init pthread_attr_destroy
pthread_attr_setstacksize pthread_setaffinity_np pthread_sigmask
pthread_mutex_init pthread_mutex_destroy pthread_mutex_lock
pthread_mutex_unlock pthread_cond_init pthread_cond_destroy pthread_cond_wait
pthread_cond_timedwait pthread_cond_signal pthread_cond_broadcast
pthread_condattr_init pthread_condattr_setclock pthread_condattr_destroy
sigfillset sysctlbyname snprintf vsnprintf strtod'
# Exact or correctly rounded on every machine; exp, log, pow, sin and cos are not.
libm='sqrt sqrtf floor floorf ceil ceilf trunc truncf rint rintf nearbyint
nearbyintf fma fmaf fmod fabs fabsf ldexp ldexpf frexp frexpf'
# What a compiler puts in by itself: other names for memcmp and memset, and
# parts of its own library (64-bit arithmetic of 32-bit machines, counted zeros,
# Arm's calls, Arm's atomic instructions where the processor may lack them).
compiler='_GLOBAL_OFFSET_TABLE_ __errno_location __errno __error
__stack_chk_fail __stack_chk_fail_local __cpu_model __cpu_indicator_init
bcmp bzero __bzero memset_pattern4 memset_pattern8 memset_pattern16
__divdi3 __moddi3 __udivdi3 __umoddi3 __udivmoddi4 __divmoddi4 __popcountdi2
__clzdi2 __ctzdi2 __ffsdi2 __bswapsi2 __bswapdi2
__ashldi3 __lshrdi3 __ashrdi3 __muldi3 __fixunssfdi __fixunsdfdi __fixsfdi
__fixdfdi __floatdisf __floatdidf __floatundisf __floatundidf
__aeabi_[a-z0-9]* __aarch64_[a-z]*[148]_[a-z_]*'
allowed=$(echo "$libc $libm $compiler" | tr -s ' \n' '\n\n')
# Writable variables that are allowed, by name.
writable='ks_cpu_word'

pass() {
    passed=$((passed + 1))
    echo "OK $1"
}

fail() {    # fail WHAT NAMES
    failed=$((failed + 1))
    echo "FAILED $1:" $2
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

if ! symbols=$("$NM" "$object" 2>&1) || [ -z "$symbols" ]; then
    fail "$object cannot be read" "$symbols"
    finish
fi
case $symbols in *__asan_* | *__ubsan_* | *__tsan_* | *__msan_*)
    echo "$object was made for a sanitizer: not looked at"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0 ;;
esac
# Other systems write _name for name. Large-file names mean the same calls;
# so do the checked ones of _FORTIFY_SOURCE.
undefined=$(echo "$symbols" | awk 'NF > 1 && $(NF - 1) == "U" { print $NF }')
case $symbols in *" _ksllm_version"*)
    undefined=$(echo "$undefined" | sed 's/^_//; s/\$INODE64$//') ;;
esac
undefined=$(echo "$undefined" | sed \
    -e 's/^\(open\|fstat\|mmap\|pread\)64$/\1/' \
    -e 's/^__fstat64_time64$/fstat/' -e 's/^__clock_gettime64$/clock_gettime/' \
    -e 's/^__\([a-z]*\)_chk$/\1/' | sort -u)

forbidden='abort _exit exit quick_exit _Exit assert __assert_fail __assert_rtn
raise kill signal sigaction printf fprintf vprintf vfprintf dprintf puts fputs
putchar putc fputc perror fwrite write stdin stdout stderr longjmp siglongjmp
_longjmp setjmp _setjmp sigsetjmp __sigsetjmp rand srand getenv setenv
setlocale atexit system popen'
bad=
for s in $undefined; do
    case " $(echo $forbidden) " in *" $s "*) bad="$bad $s" ;; esac
done
[ -z "$bad" ] && pass 'nothing prints, exits, raises or jumps' ||
    fail 'forbidden calls' "$bad"

# They lock where the processor cannot, and README's line does not link them.
bad=$(echo "$undefined" | grep -E '^__(atomic|sync)_')
[ -z "$bad" ] && pass 'nothing wants libatomic' || fail 'libatomic' "$bad"

bad=$(echo "$undefined" | grep -v -E '^__(atomic|sync)_' |
    grep -v -x -e "$allowed")
[ -z "$bad" ] && pass 'undefined symbols are known ones of libc and libm' ||
    fail 'unknown undefined symbols' "$bad"

bad=$(echo "$symbols" | awk '
    NF > 1 && $(NF - 1) ~ /^[ABCDGRSTVWiu]$/ && $NF !~ /^_?ksllm_/ {
        print $NF
    }' |
    grep -v '^__x86\.get_pc_thunk\.')
n=$(echo "$symbols" | grep -c ' T _\{0,1\}ksllm_')
[ -z "$bad" ] && [ "$n" -gt 0 ] && pass "$n names exported, all ksllm_" ||
    fail 'exported' "${bad:-nothing}"

# Every function of the header is there, and nothing else.
header=$(sed -n 's/^KSLLM_API.*[ *]\(ksllm_[a-z0-9_]*\)(.*/\1/p' \
    "$(dirname "$0")/../ksllm.h" | sort)
there=$(echo "$symbols" | sed -n 's/.* T _\{0,1\}\(ksllm_.*\)$/\1/p' | sort)
[ "$header" = "$there" ] && pass 'they are those of ksllm.h' ||
    fail 'not in both' "$(printf '%s\n' "$header" "$there" | sort | uniq -u)"

# nm calls .data.rel.ro (constant tables with addresses in them) data: the
# section tells. Thread-local variables are writable, too. Apple's format knows
# no sizes, and calls such tables __DATA,__const.
if table=$("$OBJDUMP" -t "$object" 2>/dev/null); then
    bad=$(echo "$table" | awk '
        NF < 4 { next }
        $(NF - 1) ~ /^__DATA/ {
            if ($(NF - 1) != "__DATA,__const") print $NF
            next
        }
        { where = $(NF - 2) }
        where ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ &&
        where !~ /^\.data\.rel\.ro/ && $(NF - 1) !~ /^0*$/ { print $NF }' |
        sort -u)
    left=
    for s in $bad; do
        echo "$writable" | grep -q -w -e "${s%%.*}" || left="$left $s"
    done
    [ -z "$left" ] && pass 'no writable variable' ||
        fail 'writable variables' "$left"
else
    echo "no $OBJDUMP: writable variables not looked at"
fi
finish
