#!/bin/sh
# The engines that bench_peer.py --engines compares with, in FOLDER: a Python
# environment of each, and a model with random weights in the dimensions of
# Llama 3.2 1B, as int4 with groups of GROUP weights (128), in the format of
# each. Takes 12 GB and half an hour. Nothing of it is needed for anything else.
#
#     tests/engines.sh FOLDER [GROUP]
#
# What cannot be installed or exported is left out, and said.
set -u
mkdir -p "$1" && cd "$1" || exit
group=${2:-128}
export HF_HUB_OFFLINE=1

venv() {        # venv NAME PACKAGE...
    name=$1
    shift
    [ -e "$name/done" ] && return
    python3 -m venv "$name" && "$name/bin/pip" install -q "$@" &&
        touch "$name/done"
}

export_as() {   # export_as NAME COMMAND...
    to=$1-g$group
    shift
    [ -d "$to" ] && return
    if "$@" >"$to.log" 2>&1 && [ -d "$to" ]; then
        echo "$to"
    else
        rm -rf "$to"
        echo "$to: left out, see $to.log"
    fi
}

# Two of them: what exports wants torch, what runs shall not.
venv run numpy openvino==2026.4.1 openvino-genai==2026.4.1.0 \
    openvino-tokenizers==2026.4.1.0 onnxruntime-genai==0.18.0 MNN==3.6.1 ||
    exit
venv export torch==2.13.0 optimum-intel nncf openvino==2026.4.1 \
    openvino-tokenizers==2026.4.1.0 onnx onnx-ir onnxruntime-genai==0.18.0 \
    llmexport || exit
# optimum asks for it, nothing here does, and one that was built for another
# torch keeps transformers from starting.
export/bin/pip uninstall -q -y torchvision

[ -d hf ] || export/bin/python - <<'END' || exit
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (LlamaConfig, LlamaForCausalLM,
                          PreTrainedTokenizerFast)
n = 128256
vocab = {b: i for i, b in enumerate(
    sorted(pre_tokenizers.ByteLevel.alphabet()))}
for i in range(256, n - 3):
    vocab[f"tok{i}"] = i
t = Tokenizer(models.BPE(vocab=vocab, merges=[]))
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.decoder = decoders.ByteLevel()
t.add_special_tokens(["<|begin|>", "<|end|>", "<|pad|>"])
PreTrainedTokenizerFast(
    tokenizer_object=t, bos_token="<|begin|>", eos_token="<|end|>",
    pad_token="<|pad|>", chat_template="{% for m in messages %}"
    "{{ m['content'] }}{% endfor %}").save_pretrained("hf")
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=n, hidden_size=2048, intermediate_size=8192,
    num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
    head_dim=64, max_position_embeddings=8192, rms_norm_eps=1e-5,
    rope_theta=500000.0, tie_word_embeddings=True, bos_token_id=n - 3,
    eos_token_id=n - 2, pad_token_id=n - 1, torch_dtype="bfloat16"))
model.generation_config.eos_token_id = n - 2
model.generation_config.do_sample = False
model.save_pretrained("hf")
END

export_as ov export/bin/optimum-cli export openvino --model hf \
    --task text-generation-with-past --weight-format int4 --sym --ratio 1.0 \
    --group-size "$group" "ov-g$group"
export_as ort export/bin/python -m onnxruntime_genai.models.builder -i hf \
    -o "ort-g$group" -p int4 -e cpu -c cache --extra_options \
    accuracy_level=4 block_size="$group" is_symmetric=true \
    prune_lm_head=true shared_embeddings=true
# Its package looks for its parts beside itself.
parts=$(echo export/lib/python3*/site-packages/llmexport)
export_as mnn env "PYTHONPATH=$parts" export/bin/llmexport --path hf \
    --export mnn --quant_bit 4 --quant_block "$group" --sym \
    --dst_path "mnn-g$group"
