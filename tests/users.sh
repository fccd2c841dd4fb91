#!/bin/sh
# The library in users' hands: installed, fetched by CMake, from Python; `make
# users`.
#
#     tests/users.sh           all of it
#     tests/users.sh NAME...   only those: install cmake python ...
#     tests/users.sh -NAME...  all but those
#
# What the machine has no tools for is skipped and named. What is fetched lies
# in build/users and stays there; everything else is made anew. Most of it runs
# on the model of tests/parrot.c, whose answers are known.
set -u
unset MAKEFLAGS MAKELEVEL
export CC="${CC:-cc}" BUILD="${BUILD:-build}"
passed=0 failed=0 skipped=0
wanted=" $* "
top=$PWD
case $BUILD in /*) build=$BUILD ;; *) build=$top/$BUILD ;; esac
kept=$top/build/users
mkdir -p "$kept"
dir=$(mktemp -d) || exit 1
# What wine leaves running writes there.
trap '{ [ ! -d "$dir/wine" ] || wineserver -k; rm -rf "$dir"; } 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM

skip() {    # skip NAME WHY
    skipped=$((skipped + 1))
    printf '%-8s skipped: %s\n' "$1" "$2"
}

# check WHAT COMMAND...: one that holds or does not.
check() {
    what=$1
    shift
    if "$@" >"$dir/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        tail -n 40 "$dir/log"
        echo "failed: $what"
    fi
}

# counts WHAT COMMAND...: a program that ends with "N passed, N failed".
counts() {
    what=$1
    shift
    "$@" >"$dir/log" 2>&1
    status=$?
    # shellcheck disable=SC2046
    set -- $(tail -n 1 "$dir/log" | grep -E '^[0-9]+ passed, [0-9]+ failed' |
        tr -cd '0-9 ')
    p=${1:-0} f=${2:-1}
    [ "$status" -eq 0 ] && [ "$p" -gt 0 ] || [ "$f" -gt 0 ] || f=1
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${3:-0}))
    if [ "$f" -gt 0 ]; then
        tail -n 40 "$dir/log"
        echo "failed: $what (status $status)"
    fi
}

has() {     # has NAME TOOL...: all of them, or NAME is skipped
    name=$1
    shift
    for tool; do
        command -v "$tool" >/dev/null || {
            skip "$name" "no $tool"
            return 1
        }
    done
}

# The compiler that has the headers of other systems.
zig=${ZIG:-$top/build/zig/ziglang/zig}
export ZIG_GLOBAL_CACHE_DIR="${ZIG_GLOBAL_CACHE_DIR:-$top/build/zig/cache}"
has_zig() {     # has_zig NAME
    [ -x "$zig" ] || {
        skip "$1" "no zig (make build/zig/ziglang/zig)"
        return 1
    }
}

built() {   # built TARGET...: make makes them, or that is a failure
    make --no-print-directory "$@" >"$dir/log" 2>&1 && return
    tail -n 40 "$dir/log"
    echo "failed: make $*"
    failed=$((failed + 1))
    return 1
}

# ---- install: what `make install` leaves, used as a distribution would ----

stage=$dir/'a stage'    # spaces in DESTDIR

# The program on README's first screen, with what pkg-config says.
install_program() {     # install_program OUT [--static]
    # shellcheck disable=SC2046,SC2086
    (cd "$dir" && $CC -O1 -Wall -Werror app.c ${2:+-static} -o "$1" \
        $(pkg-config ${2:-} --cflags --libs ksllm | sed "s|$stage|$dir/s|g"))
}

# There is no model.gguf: it has to say so and not to crash.
install_runs() {
    ! (cd "$dir" && LD_LIBRARY_PATH=$stage/opt/k/lib "./$1" >app.log 2>&1) &&
        grep -q 'model\.gguf' "$dir/app.log"
}

# Exported is what the header declares, no more, under the version's name.
install_symbols() {
    $CC -E -P -DKSLLM_API=@API ksllm.h | tr '\n' ' ' | tr ';}' '\n\n' |
        sed -n "s/^ *@API[^(]*\b\(ksllm_[a-z_0-9]*\)(.*/\1@@KSLLM_$abi/p" |
        sort >"$dir/declared"
    ${NM:-nm} -D --defined-only "$stage/opt/k/lib/libksllm.so" |
        awk '$2 == "T" { print $3 }' | sort >"$dir/exported"
    [ -s "$dir/declared" ] && diff "$dir/declared" "$dir/exported"
}

install_soname() {
    readelf -d "$stage/opt/k/lib/libksllm.so" |
        grep -q "SONAME.*\[libksllm\.so\.$abi\]" &&
        readelf -d "$dir/dynamic" | grep -q "NEEDED.*\[libksllm\.so\.$abi\]" &&
        ! readelf -d "$dir/static" | grep -q NEEDED
}

in_stage() {
    make --no-print-directory DESTDIR="$stage" PREFIX=/opt/k "$@"
}

install_clean() {
    in_stage uninstall && [ -z "$(find "$stage" ! -type d)" ]
}

part_install() {
    has install pkg-config readelf awk || return
    version=$(sed -n 's/^#define KSLLM_VERSION_M.*R //p' ksllm.h | paste -sd.)
    abi=$version
    case $abi in 0.*) ;; *) abi=${abi%%.*} ;; esac
    ln -s "$stage" "$dir/s"     # $(pkg-config) is cut at spaces
    awk '/^```c$/ {on = 1; next} /^```/ {if (on) exit} on' README.md \
        >"$dir/app.c"
    export PKG_CONFIG_LIBDIR="$stage/opt/k/lib/pkgconfig"
    export PKG_CONFIG_SYSROOT_DIR="$dir/s"
    check "make install" in_stage install
    check "a program by pkg-config" install_program dynamic
    check "runs with the shared library" install_runs dynamic
    check "a program by pkg-config --static" install_program static --static
    check "runs without it" install_runs static
    check "exported symbols and their version" install_symbols
    check "soname" install_soname
    check "pkg-config's version" pkg-config --exact-version="$version.0" ksllm
    check "make uninstall leaves nothing" install_clean
    unset PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR
}

# ---- cmake: the lines in examples/README.md, from a repository of this tree

cmake_builds() {
    mkdir -p "$dir/repo" "$dir/cmake"
    cp ksllm.h ksllm.c "$dir/repo"
    (cd "$dir/repo" && git init -q -b main && git add . &&
        git -c user.name=n -c user.email=e commit -q -m m) || return
    sed "s|\"ksllm.h\"|<ksllm.h>|" "$dir/app.c" >"$dir/cmake/app.c"
    {
        echo 'cmake_minimum_required(VERSION 3.14)'
        echo 'project(app C)'
        # -O0 compiles in a third of the time.
        awk '/^```cmake$/ {on = 1; next} /^```/ {on = 0} on' \
            examples/README.md | sed "s|-O2|-O0|
                s|GIT_REPOSITORY [^ ]*|GIT_REPOSITORY file://$dir/repo|"
        echo 'add_executable(app app.c)'
        echo 'target_link_libraries(app ksllm)'
    } >"$dir/cmake/CMakeLists.txt"
    cat "$dir/cmake/CMakeLists.txt"
    cmake -S "$dir/cmake" -B "$dir/cmake/build" -DCMAKE_C_COMPILER="$CC" \
        -DCMAKE_C_FLAGS=-DKSLLM_NO_SIMD && cmake --build "$dir/cmake/build"
}

part_cmake() {
    has cmake cmake git || return
    awk '/^```c$/ {on = 1; next} /^```/ {if (on) exit} on' README.md \
        >"$dir/app.c"
    check "the lines of FetchContent build" cmake_builds
    cp "$dir/cmake/build/app" "$dir/fetched" 2>/dev/null
    check "what they built runs" install_runs fetched
}

# ---- python: examples/python/ksllm.py ----

model() {   # the one of parrot.c, and a padded copy
    built "$BUILD/tests/parrot" && "$build/tests/parrot" "$dir/parrot.gguf" \
        >/dev/null
}

python=${PYTHON:-python3}

part_python() {
    has python "$python" || return
    built shared || return
    model || return
    built quant || return
    for row in varco_vision qwen3_asr; do   # one that sees, one that hears
        "$build/quant/ksllm-quant" convert "tests/reference/$row" \
            --type f32 -o "$dir/$row.gguf" >/dev/null 2>&1 || return
    done
    counts ksllm.py env KSLLM_LIB="$build/libksllm.so" \
        SEES="$dir/varco_vision.gguf" HEARS="$dir/qwen3_asr.gguf" \
        PYTHONPATH=examples/python "$python" -W error -X faulthandler \
        tests/users/test_python.py "$dir/parrot.gguf"
    grep '^cancel' "$dir/log"
}

# ---- server, openai: examples/python/server.py, by hand and by clients ----

fetched() {     # fetched NAME COMMAND...: once, into $kept/NAME
    name=$1
    shift
    [ -f "$kept/$name/done" ] && return
    rm -rf "${kept:?}/$name"
    mkdir -p "$kept/$name"
    (cd "$kept/$name" && "$@") >"$dir/log" 2>&1 && touch "$kept/$name/done" ||
        {
            skip "$name" "cannot be fetched: $(tail -n 1 "$dir/log")"
            return 1
        }
}

fetch_pip() {   # fetch_pip PACKAGE: into a venv, here
    "$python" -m venv . && bin/pip install --quiet "$1"
}

fetch_npm() {
    echo '{"private": true}' >package.json
    npm install --silent --no-audit --no-fund "$@"
}

# clients SERVER COMMAND...: all that is here, against the server of a command.
clients() {
    server=$1
    shift
    if fetched openai fetch_pip openai==3.51.0; then
        counts "openai of PyPI, $server" "$kept/openai/bin/python" \
            tests/users/test_openai.py "$@"
    fi
    if has "$server" node npm && fetched node fetch_npm openai@7.55.0 \
        ai@7.0.173 @ai-sdk/openai-compatible@3.0.92; then
        counts "openai and ai of npm, $server" env MODULES="$kept/node" \
            node tests/users/test_openai.mjs "$@"
    fi
    # Take minutes to install. Each wants an openai of its own.
    slow_client langchain langchain-openai==1.7.4 "$@"
    slow_client llamaindex llama-index-llms-openai-like==0.8.1 "$@"
}

slow_client() {     # slow_client NAME PACKAGE COMMAND...
    client=$1 package=$2
    shift 2
    if [ -z "${FULL:-}" ] && ! [ -f "$kept/$client/done" ]; then
        skip "$client" 'only with FULL=1'
    elif fetched "$client" fetch_pip "$package"; then
        counts "${package%%=*}, $server" "$kept/$client/bin/python" \
            "tests/users/test_$client.py" "$@"
    fi
}

part_server() {
    has server "$python" || return
    built shared || return
    model || return
    counts server.py env KSLLM_LIB="$build/libksllm.so" "$python" \
        tests/users/test_http.py "$python" -W error -X faulthandler \
        examples/python/server.py "$dir/parrot.gguf" --port 0
    grep -o 'the client.*' "$dir/log"
}

part_openai() {
    has openai "$python" || return
    built shared || return
    model || return
    KSLLM_LIB=$build/libksllm.so
    export KSLLM_LIB
    clients server.py "$python" -W error examples/python/server.py \
        "$dir/parrot.gguf" --port 0
    unset KSLLM_LIB
}

# ---- serve: examples/serve.c, by hand, by clients, and by bad ones ----

part_serve() {
    has serve "$python" || return
    built "$BUILD/examples/serve" && model || return
    counts serve.c env AT_ONCE=1 "$python" tests/users/test_http.py \
        "$build/examples/serve" "$dir/parrot.gguf" 0 127.0.0.1 0 3
    grep -o 'the client.*' "$dir/log"
    clients serve.c "$build/examples/serve" "$dir/parrot.gguf" 0
    soak=${SOAK:-20}
    counts "serve.c for $soak s" "$python" tests/users/soak_http.py "$soak" \
        "$build/examples/serve" "$dir/parrot.gguf" 0 127.0.0.1 0 3
    grep 'answers' "$dir/log"
}

# ---- jvm, android: examples/android ----

# Where the JDK of this javac has its headers.
jdk() {
    home=$(readlink -f "$(command -v javac)") && home=${home%/bin/javac}
    [ -f "$home/include/jni.h" ] ||
        { skip "$1" "no jni.h in $home/include"; return 1; }
    jni="-I$home/include -I$home/include/linux"
}

jvm_builds() {
    # shellcheck disable=SC2086
    $CC -std=gnu11 -O1 -Wall -Wextra -Werror -fPIC -shared -I. $jni \
        -o "$dir/jvm/libksllm_jni.so" examples/android/ksllm_jni.c \
        -L"$build" -lksllm -Wl,-rpath,"$build" &&
        javac --release 8 -Xlint:all,-options -Werror -d "$dir/jvm" \
            examples/android/Ksllm.java tests/users/KsllmTest.java
}

# What an app's build runs, less the NDK.
jvm_cmake() {
    cmake -S examples/android -B "$dir/jvm/cmake" -DCMAKE_C_COMPILER="$CC" \
        -DCMAKE_C_FLAGS="-DKSLLM_NO_SIMD $jni" &&
        cmake --build "$dir/jvm/cmake" &&
        [ -f "$dir/jvm/cmake/libksllm_jni.so" ]
}

quiet() {   # of -Xcheck:jni
    ! grep -i 'warning' "$dir/said"
}

part_jvm() {
    has jvm javac java || return
    jdk jvm && built shared && model || return
    mkdir "$dir/jvm"
    check "the binding compiles" jvm_builds
    bytes=$("$build/tests/parrot" "$dir/padded.bin" 4103)
    counts "the binding on the JVM" java -Xcheck:jni \
        --add-opens java.base/java.io=ALL-UNNAMED \
        -Djava.library.path="$dir/jvm" -cp "$dir/jvm" KsllmTest \
        "$dir/parrot.gguf" "$dir/padded.bin" 4103 "$bytes"
    cp "$dir/log" "$dir/said"
    check "-Xcheck:jni says nothing" quiet
    grep ' ms$' "$dir/said"
    if has jvm-cmake cmake; then
        check "CMakeLists.txt builds it" jvm_cmake
    fi
}

# No NDK can be had here: Android's compiler without its headers, which are
# glibc's instead. Plain C, because the kernels are for the matrix to compile.
android_links() {
    # shellcheck disable=SC2086
    clang-19 --target=aarch64-linux-android21 -std=gnu11 -O0 -fPIC \
        -DKSLLM_NO_SIMD -DKSLLM_API= -fvisibility=hidden \
        -isystem /usr/aarch64-linux-gnu/include -I. $jni \
        -shared -nostdlib -fuse-ld=lld -Wl,-z,max-page-size=16384 \
        -o "$dir/android.so" ksllm.c examples/android/ksllm_jni.c
}

android_pages() {
    readelf -lW "$dir/android.so" | awk '$1 == "LOAD" { n++; print }
        $1 == "LOAD" && $NF != "0x4000" { bad = 1 } END { exit !n || bad }'
}

# In libc.map.txt and libm.map.txt of bionic without a later `introduced`; the
# last line is what a compiler may make of the others (bcmp and mempcpy are not
# there). glibc's headers add 64 to some names, and call errno otherwise.
android_symbols() {
    llvm-nm-19 -D --undefined-only "$dir/android.so" |
        sed 's/.* U //; s/^\(open\|fstat\|pread\|mmap\)64$/\1/
            s/^__errno_location$/__errno/' | sort >"$dir/asked"
    tr ' ' '\n' <<END | sort | comm -13 - "$dir/asked" >"$dir/no"
__errno calloc clock_gettime close free fstat madvise malloc memchr memcmp
memcpy memmove memset mmap munmap nanosleep open pread pthread_attr_destroy
pthread_attr_init pthread_attr_setstacksize pthread_cond_broadcast
pthread_cond_destroy pthread_cond_init pthread_cond_signal pthread_cond_wait
pthread_create pthread_join pthread_mutex_destroy pthread_mutex_init
pthread_mutex_lock pthread_mutex_unlock pthread_sigmask read realloc
sched_getaffinity sigfillset snprintf strchr strcmp strcspn strlen strncmp strtod
sysconf vsnprintf
__stack_chk_fail memccpy memrchr stpcpy strcpy strncpy strnlen strrchr
END
    cat "$dir/no"
    [ -s "$dir/asked" ] && ! [ -s "$dir/no" ]
}

android_exports() {
    [ "$(llvm-nm-19 -D --defined-only "$dir/android.so" |
        sed 's/.* //')" = JNI_OnLoad ]
}

part_android() {
    has android clang-19 ld.lld-19 llvm-nm-19 readelf javac || return
    [ -d /usr/aarch64-linux-gnu/include ] ||
        { skip android 'no libc6-dev-arm64-cross'; return; }
    jdk android || return
    check "a library for Android is linked" android_links
    check "pages of 16 KB" android_pages
    check "its symbols are bionic's of API 21" android_symbols
    check "it exports JNI_OnLoad alone" android_exports
}

# ---- pi: examples/raspberry-pi, cross-built, under emulation ----

# What the demo says there is what it says here, to the bit.
pi_says() {     # pi_says PROGRAM KIND COMMAND...
    program=$1 kind=$2
    shift 2
    "$build/examples/$program" <"$dir/asked" >"$dir/here" 2>/dev/null &&
        "$@" "$dir/pi/$kind/$program" <"$dir/asked" >"$dir/there" \
            2>"$dir/late" &&
        [ "$(grep -c '' "$dir/there")" -ge 6 ] && diff "$dir/here" "$dir/there"
}

pi_unit() {     # but for its program, which is not installed here
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' \
        examples/raspberry-pi/ksllm.service >"$dir/ksllm.service"
    systemd-analyze verify "$dir/ksllm.service"
}

part_pi() {
    built "$BUILD/examples/robot" "$BUILD/examples/car" || return
    sed -n 's/^U "\(.*\)"$/\1/p' tests/demo.txt | head -n 4 >"$dir/asked"
    while read -r kind gcc qemu; do
        has "$kind" "$gcc" "$qemu" || continue
        check "$kind builds" make --no-print-directory -C \
            examples/raspberry-pi "$kind" BUILD="$dir/pi" CFLAGS=-O1
        check "$kind: the robot" pi_says robot "$kind" "$qemu"
        check "$kind: the car" pi_says car "$kind" "$qemu"
    done <<END
pi64 aarch64-linux-gnu-gcc qemu-aarch64
pi32 arm-linux-gnueabihf-gcc qemu-arm
END
    if has pi-unit systemd-analyze; then
        check "the systemd unit" pi_unit
    fi
}

# ---- macos: all that is built there; there is no Mac to run it ----

# Without optimised kernels here and below: they are for the matrix to compile.
part_macos() {
    has_zig macos || return
    check "library, examples, ksllm-quant" make --no-print-directory \
        SYSTEM=Darwin CC="$zig cc -target aarch64-macos -g0" FRAME= \
        CFLAGS='-O0 -DKSLLM_NO_SIMD' WERROR=-Werror BUILD="$dir/mac" \
        lib shared examples quant
}

# ---- windows: by clang; by Debian's mingw, under wine ----

windows_clang() {
    clang="$zig cc -target x86_64-windows-gnu -g0 -std=gnu11 -O0
        -DKSLLM_NO_SIMD -Wall -Wextra -Werror -Wno-psabi -I."
    $clang -c -o "$dir/win/ksllm.obj" ksllm.c || return
    for source in examples/*.c; do
        $clang -o "$dir/win/app.exe" "$source" "$dir/win/ksllm.obj" \
            -lpthread -lws2_32 || return
    done
    $clang -o "$dir/win/app.exe" quant/ksllm-quant.c
}

mingw=x86_64-w64-mingw32
export WINEPREFIX="$dir/wine" WINEDEBUG=-all WINEDLLOVERRIDES='mscoree=;mshtml='

windows_object() {
    $mingw-gcc-posix -std=c11 -O2 -ffp-contract=off -Wall -Wextra -Werror \
        -c -o "$dir/win/ksllm.o" ksllm.c
}

windows_program() {     # windows_program SOURCE
    $mingw-gcc-posix -std=gnu11 -O1 -Wall -Wextra -Werror -Wno-psabi -I. \
        -static -o "$dir/win/$(basename "$1" .c).exe" "$1" "$dir/win/ksllm.o" \
        -lpthread -lws2_32
}

windows_examples() {
    for source in examples/*.c; do
        windows_program "$source" || return
    done
}

windows_quant() {
    $mingw-gcc-posix -std=gnu11 -O1 -DKSLLM_NO_SIMD -Wall -Wextra -Werror \
        -static -o "$dir/win/ksllm-quant.exe" quant/ksllm-quant.c
}

windows_says() {    # windows_says PROGRAM: what it says here, in other lines
    "$build/examples/$1" <"$dir/asked" >"$dir/here" 2>/dev/null &&
        wine "$dir/win/$1.exe" <"$dir/asked" 2>"$dir/late" |
        tr -d '\r' >"$dir/there" &&
        [ "$(grep -c '' "$dir/there")" -ge 6 ] && diff "$dir/here" "$dir/there"
}

# gcc for Windows does not keep the stack at 32 bytes (GCC PR 54412). Debian's
# is patched to use moves that do not mind; clang keeps it.
windows_stack() {
    for code in ksllm.o ksllm-quant.exe; do
        $mingw-objdump -d "$dir/win/$code" || return
    done >"$dir/win/code"
    grep -q 'vmovup.*ymm.*rsp' "$dir/win/code" &&
        ! grep -E 'vmov(aps|apd|dqa).*[yz]mm' "$dir/win/code" |
        grep -E 'rsp|rbp'
}

windows_imports() {
    $mingw-objdump -p "$dir/win/windows.exe" | sed -n 's/.*DLL Name: //p' |
        sort >"$dir/no"
    cat "$dir/no"
    [ "$(grep -vi '^msvcrt\|^api-ms-win-crt' "$dir/no")" = KERNEL32.dll ]
}

# A state that is saved, gone on with, and saved again: here and there the same.
windows_resumes() {
    for text in '#' ''; do
        "$build/examples/resume" "$dir/parrot.gguf" "$dir/here" \
            ${text:+"$text"} >"$dir/said" &&
            wine "$dir/win/resume.exe" "$dir/parrot.gguf" "$dir/there" \
                ${text:+"$text"} >"$dir/late" &&
            cmp "$dir/here" "$dir/there" || return
    done
}

part_windows() {
    mkdir "$dir/win"
    has_zig windows-clang &&
        check "library, examples, ksllm-quant by clang" windows_clang
    has windows $mingw-gcc-posix $mingw-objdump wine wineserver || return
    model || return
    built "$BUILD/examples/robot" "$BUILD/examples/car" \
        "$BUILD/examples/resume" "$BUILD/quant/ksllm-quant" || return
    cp "$dir/parrot.gguf" "$dir/win"
    "$build/tests/parrot" "$dir/win/padded.bin" 4103 >/dev/null
    check "the library compiles" windows_object
    check "ksllm-quant compiles" windows_quant
    check "the examples compile" windows_examples
    check "no aligned moves on the stack" windows_stack
    check "windows.c compiles" windows_program tests/users/windows.c
    check "it imports KERNEL32 and C alone" windows_imports
    # Its services stay, and would keep a pipe open that they inherit.
    wineserver -p >/dev/null 2>&1
    wine wineboot -i >/dev/null 2>&1
    counts "files and threads" sh -c "cd '$dir/win' &&
        wine windows.exe parrot.gguf 4103 padded.bin | tr -d '\\r'"
    # The bits of the logits are those of every other system.
    for t in model generate session; do
        check "test_$t compiles" windows_program tests/test_$t.c
        counts "test_$t" sh -c "cd '$dir/win' &&
            wine test_$t.exe $([ $t = model ] && echo golden) | tr -d '\\r'"
    done
    sed -n 's/^U "\(.*\)"$/\1/p' tests/demo.txt | head -n 4 >"$dir/asked"
    check "the robot" windows_says robot
    check "the car" windows_says car
    check "resume" windows_resumes
    if has windows-serve "$python"; then
        counts serve.c env AT_ONCE=1 "$python" tests/users/test_http.py wine \
            "$dir/win/serve.exe" "$dir/parrot.gguf" 0 127.0.0.1 0 3
        grep -o 'the client.*' "$dir/log"
    fi
    mkdir "$dir/win/quant"
    counts ksllm-quant sh tests/users/test_quant.sh \
        "$build/quant/ksllm-quant" "$dir/win/quant" wine \
        "$dir/win/ksllm-quant.exe"
}

# ---- swift: examples/ios, as a package that another one depends on ----

swift_package() {       # swift_package OUT TREE: its test in OUT, at TREE
    mkdir -p "$1/Sources/KsllmTest"
    cp tests/users/KsllmTest.swift "$1/Sources/KsllmTest/main.swift"
    cat >"$1/Package.swift" <<END
// swift-tools-version:6.0
import PackageDescription
let package = Package(
    name: "KsllmTest", platforms: [.macOS(.v13)],
    dependencies: [.package(name: "Ksllm", path: "$2/examples/ios")],
    targets: [.executableTarget(name: "KsllmTest", dependencies: ["Ksllm"])])
END
}

# Its C, its module map and the header, by clang: without a swiftc.
swift_c() {
    $CC -std=gnu11 -fsyntax-only -DKSLLM_NO_SIMD -Werror -Wno-psabi \
        -Iexamples/ios/Sources/CKsllm/include \
        examples/ios/Sources/CKsllm/ksllm.c
}

swift_module() {
    echo '@import CKsllm; ksllm_unit unit = KSLLM_UNIT_EOJEOL;' >"$dir/m.m"
    clang-19 -x objective-c -fmodules -Werror -fsyntax-only \
        -fmodules-cache-path="$dir/modules" \
        -Iexamples/ios/Sources/CKsllm/include "$dir/m.m"
}

# Debian 13 has Swift 6.0: 3.2 GB.
fetch_trixie() {
    debootstrap --variant=minbase trixie root &&
        chroot root sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install -y \
            -qq --no-install-recommends swiftlang libc6-dev libstdc++-14-dev'
}

# in_trixie COMMAND: this tree at /tree, the tests' folder at /users. swiftc
# needs /proc, and its own clang, which $CC would replace.
in_trixie() {
    unshare -m sh -c 'cd "$1" && mkdir -p tree users &&
        mount --bind "$2" tree && mount --bind "$3" users &&
        mount -t proc proc proc &&
        exec chroot . env -u CC HOME=/root \
            LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux sh -c "$4"' \
        sh "$kept/trixie/root" "$top" "$dir" "$1"
}

part_swift() {
    check "the C of the package" swift_c
    has swift-module clang-19 && check "the module map" swift_module
    # Quick to compile: optimised kernels are for the matrix.
    build_flags='-Xswiftc -warnings-as-errors -Xcc -O1 -Xcc -DKSLLM_NO_SIMD'
    if command -v swift >/dev/null; then
        swift_package "$dir/swift" "$top"
        model || return
        check "the package builds" sh -c \
            "cd '$dir/swift' && env -u CC swift build $build_flags"
        counts "the package" "$dir/swift/.build/debug/KsllmTest" \
            "$dir/parrot.gguf"
    elif [ -n "${FULL:-}" ] || [ -f "$kept/trixie/done" ]; then
        has swift debootstrap unshare && fetched trixie fetch_trixie || return
        swift_package "$dir/swift" /tree
        model || return
        check "the package builds" in_trixie \
            "cd /users/swift && swift build $build_flags"
        counts "the package" in_trixie \
            '/users/swift/.build/debug/KsllmTest /users/parrot.gguf'
    else
        skip swift 'no swift (with FULL=1 that of Debian 13)'
        return
    fi
    grep '^cancel' "$dir/log"
}

# ---- ros2: examples/ros2, by a client, over DDS ----

ros2=$top/build/ros2

ros2_builds() {
    cmake -S examples/ros2/ksllm_msgs -B "$dir/msgs" \
        -DCMAKE_PREFIX_PATH="$ros2" -DCMAKE_INSTALL_PREFIX="$dir/ros2" \
        -DPython3_EXECUTABLE="$ros2/bin/python3" -DBUILD_TESTING=OFF \
        -DCMAKE_C_FLAGS=-O0 -DCMAKE_CXX_FLAGS=-O0 &&
        cmake --build "$dir/msgs" && cmake --install "$dir/msgs"
}

# As colcon does.
ros2_node() {
    cp -r examples/ros2/ksllm_ros "$dir" &&
        cp examples/python/ksllm.py "$dir/ksllm_ros/ksllm_ros" &&
        (cd "$dir/ksllm_ros" && python3 setup.py -q install --prefix "$dir/ros2" \
            --single-version-externally-managed --record "$dir/record")
}

part_ros2() {
    has ros2 "$python" cmake || return
    make --no-print-directory build/ros2/done >"$dir/log" 2>&1 ||
        { skip ros2 "no wheels: $(tail -n 1 "$dir/log")"; return; }
    built shared && model || return
    # In a shell of its own: ROS is told where it lies by these.
    (
        export PATH="$ros2/bin:$PATH" KSLLM_LIB="$build/libksllm.so"
        export AMENT_PREFIX_PATH="$dir/ros2:$ros2"
        export LD_LIBRARY_PATH="$dir/ros2/lib:$ros2/lib"
        export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
        export ROS_DOMAIN_ID=$(($$ % 100)) ROS_LOG_DIR="$dir/ros2/log"
        passed=0 failed=0
        check "the interfaces build" ros2_builds
        PYTHONPATH=$(echo "$dir"/ros2/lib/python3*/site-packages)
        export PYTHONPATH
        check "the node installs" ros2_node
        counts "the node" python3 tests/users/test_ros2.py "$dir/parrot.gguf" \
            python3 "$dir/ros2/lib/ksllm_ros/node"
        echo "$passed $failed" >"$dir/sums"
    )
    read -r p f <"$dir/sums"
    passed=$((passed + p)) failed=$((failed + f))
    grep '^cancel' "$dir/log"
}

# ---- wasm: the library for WASI, in plain C ----

fetch_wasmtime() { fetch_pip wasmtime==50.0.1; }

wasm_builds() {
    # shellcheck disable=SC2086
    "$zig" cc -target wasm32-wasi -std=gnu11 -O0 -g0 -ffp-contract=off -Wall \
        -Wextra -Werror -Wno-psabi -DKSLLM_NO_MMAP -DKSLLM_NO_THREADS -I. \
        -D_WASI_EMULATED_PROCESS_CLOCKS -lwasi-emulated-process-clocks \
        -Wl,-z,stack-size=1048576 -o "$dir/$1.wasm" "tests/$1.c" ksllm.c
}

part_wasm() {
    has_zig wasm || return
    fetched wasmtime fetch_wasmtime || return
    check "the library and test_model compile" wasm_builds test_model
    # The bits of the logits are those of every other system.
    counts "test_model" "$kept/wasmtime/bin/python" tests/users/wasm.py \
        "$dir/test_model.wasm" shortest_golden
}

# ---- abi: a program of today with the library of tomorrow ----

part_abi() { counts "structs that have grown" sh tests/abi.sh; }

# ---- all ----

parts='install cmake python server openai serve jvm android pi macos windows
    swift ros2 wasm abi'
parts=$(echo $parts)
for name in $*; do
    case " $parts " in
        *" ${name#-} "*) ;;
        *) echo "no part is called ${name#-}: $parts" >&2; exit 2 ;;
    esac
done
for part in $parts; do
    case $wanted in
        *" -$part "*) continue ;;
        "  " | *" $part "* | " -"*) ;;
        *) continue ;;
    esac
    p0=$passed f0=$failed begun=$(date +%s)
    "part_$part"
    [ "$passed $failed" = "$p0 $f0" ] ||
        printf '%-8s %s passed, %s failed (%s s)\n' "$part" \
            $((passed - p0)) $((failed - f0)) $(($(date +%s) - begun))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
