#!/bin/sh
# What ksllm-quant for Windows writes is what it writes here, byte for byte;
# what it refuses, and what it leaves of a file when it fails.
#
#     test_quant.sh KSLLM-QUANT FOLDER COMMAND...     (wine ksllm-quant.exe)
#
# From the top of the tree; FOLDER is for its files. Ends with "N passed, N
# failed".
set -u
top=$PWD
here=$1 dir=$2
shift 2
passed=0 failed=0

holds() {   # holds WHAT COMMAND...
    what=$1
    shift
    if "$@" >log 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        head -n 10 log said
        echo "failed: $what"
    fi
}

# same NAME ARGUMENT...: by both, into NAME. Both print the same.
same() {
    name=$1
    shift
    holds "$name" written "$@"
}

written() {
    "$here" "$@" -o "here/$name" --quiet >printed 2>&1 &&
        there "$@" -o "there/$name" --quiet && diff printed said &&
        cmp "here/$name" "there/$name"
}

# Wine speaks of its own processes in the same place.
there() {   # there ARGUMENT...: COMMAND's status; what it says to `said`
    eval "$run" '"$@"' >said 2>&1 </dev/null
    status=$?
    tr -d '\r' <said | sed '/^wine: /d' >said.lf && mv said.lf said
    return $status
}

printed() {     # printed ARGUMENT...: the same text
    "$here" "$@" >printed 2>&1 && there "$@" && diff printed said
}

# refused WHY ARGUMENT...: with status 1; out.gguf is as it was, nothing more is
# there.
refused() {
    why=$1
    shift
    holds "refused: $why" stays "$@"
}

stays() {
    echo old >out.gguf
    before=$(ls)
    there "$@"
    [ $? -eq 1 ] && grep -F "$why" said && [ "$(cat out.gguf)" = old ] &&
        [ "$(ls)" = "$before" ]
}

backslashes() {
    there convert 'reference\exaone4\' -o 'there\back' -t f32 --quiet &&
        cmp here/exaone4 there/back
}

read_only() {
    ! there quantize model.gguf -o out.gguf -t q8_0 &&
        grep 'out.gguf: permission denied' said && ! [ -s out.gguf ]
}

run=
for word; do run="$run '$word'"; done
cd "$dir" && mkdir -p here '폴더 🙂' && ln -s '폴더 🙂' there || exit 2
ln -s "$top/tests/reference" reference
cp "$top/examples/demo-model/ksllm-demo.gguf" 파일🙂.gguf
: >said
: >log

for type in f16 q8_0 q4_0 q3_k_s q4_k_m iq4_xs; do
    same "$type 🙂.gguf" quantize 파일🙂.gguf -t $type
done
# cmd.exe expands nothing, and its programs may: not this one.
: >token_embd.weight
same pattern.gguf quantize 파일🙂.gguf -t q8_0 --tensor 'token_*=f16'
for row in axk1 exaone4 hyperclovax lfm2_moe phi3 qwen3_embedding solar vaetki
do
    same $row convert reference/$row -t f32
done
holds 'backslashes' backslashes
same lora convert reference/qwen3/lora --base reference/qwen3/
head -c 1500 "$top/quant/calibration_ko.txt" >text
same stats calibrate 파일🙂.gguf text --gram
same refined.gguf quantize 파일🙂.gguf -t q4_0 --stats here/stats --refine
echo '[{"role": "system", "content": "로봇입니다."}]' >prompt.json
same prompt.kv prefix 파일🙂.gguf prompt.json
holds 'inspect' printed inspect 파일🙂.gguf
holds 'compare' printed compare 파일🙂.gguf here/refined.gguf text

cp 파일🙂.gguf model.gguf
ln model.gguf link.gguf
refused 'is read for this' quantize model.gguf -o model.gguf -t q8_0
refused 'is read for this' quantize model.gguf -o '.\MODEL.gguf' -t q8_0
refused 'is read for this' quantize model.gguf -o link.gguf -t q8_0
refused '없다🙂.gguf: cannot be opened: there is no such file' \
    quantize 없다🙂.gguf -o out.gguf -t q8_0
refused 'a folder;' quantize here -o out.gguf -t q8_0
refused 'not a regular file' quantize model.gguf -o here -t q8_0
refused 'cannot write: there is no such file' \
    quantize model.gguf -o 'no\out.gguf' -t q8_0
refused 'there is no such folder' convert no -o out.gguf
refused 'no config.json' convert here -o out.gguf
cp "$top/tests/reference/exaone4/config.json" here
cp "$top/tests/reference/exaone4/tokenizer.json" here
printf '%s\n' '{"weight_map": {"x": "..\\model.gguf"}}' \
    >here/model.safetensors.index.json
refused 'outside the folder' convert here -o out.gguf
refused 'has no option' quantize model.gguf -o out.gguf -t q8_0 --없다
: >out.gguf
chmod 444 out.gguf
holds 'a file that may not be written' read_only
rm -f out.gguf
# A limit on the size of files stands in for a full disk.
trap '' XFSZ
# shellcheck disable=SC3045  # dash has it
ulimit -f 200
refused 'cannot write' quantize model.gguf -o out.gguf -t q8_0
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
