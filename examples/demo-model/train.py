"""Trains the demo model on what generate.py says.

    train.py OUT [--hours 4] [--threads 2] [--bfloat16]

OUT becomes a Hugging Face folder, as ksllm-quant reads it. Every ten minutes
OUT/checkpoint.pt is written; a run that was stopped goes on from it. The curve
(steps, tokens, loss in training, loss held out) goes to OUT/curve.csv.
--bfloat16 multiplies in that type; the weights stay float32. With AVX512_BF16
it is 1.6 times as fast, and without much slower.
"""
import argparse
import csv
import itertools
import json
import os
import pathlib
import time

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from tokenizers import pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import generate

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<|end|>", "<|tools|>", "<|user|>", "<|assistant|>", "<tool_call>",
           "</tool_call>"]
VOCAB = 2048
# The rule called qwen2: digits one by one, so numbers are spelled out.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BATCH, PEAK, WARM = 12, 4e-3, 100
SHORT = 0.2      # of the time goes to single requests: copying is found sooner there


def call_text(call):
    return ("<tool_call>" + json.dumps(call, ensure_ascii=False) + "</tool_call>"
            if call else "")


def pieces(line):
    """A conversation as the template renders it: (text, is it to be learned)."""
    if line["tools"]:
        yield "<|tools|>" + " ".join(line["tools"]) + "<|end|>", False
    for t in line["turns"]:
        yield "<|user|>" + t["user"] + "<|end|><|assistant|>", False
        yield t["say"] + call_text(t["call"]) + "<|end|>", True


def split_by(*rules):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r), "isolated") for r in rules]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make_tokenizer(path):
    """No token reaches over a syllable of Hangul: a name is then the same tokens
    in what is said, in the answer and in the action, and is copied one by one."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = split_by(WORDS, "[가-힣]")
    t.decoder = decoders.ByteLevel()
    lines = itertools.islice(generate.conversations(7), 60000)
    texts = ("".join(p for p, _ in pieces(x)) for x in lines)
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(s, special=True) for s in SPECIAL]))
    t.pre_tokenizer = split_by(WORDS)   # the merges keep the syllables apart
    t.save(str(path))
    return t


def write_folder(out, model):
    model.save_pretrained(out, safe_serialization=True)
    (out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>",
        "add_bos_token": False, "model_max_length": 1024,
        "chat_template": (HERE / "template.jinja").read_text()},
        ensure_ascii=False, indent=1))


def make_model():
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=256, intermediate_size=512,
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, max_position_embeddings=1024, rope_theta=10000.0,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=0, initializer_range=0.05, attn_implementation="sdpa"))


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by five steps of Newton and Schulz, in a type of
    one's choice: torch.optim.Muon takes bfloat16, which few CPUs multiply fast."""

    def __init__(self, params, lr, decay, dtype):
        super().__init__(params, {"lr": lr, "decay": decay, "dtype": dtype})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 0.05)
                x = p.grad.lerp(m, 0.95)
                x = x.T if x.shape[0] > x.shape[1] else x
                x = (x / (x.norm() + 1e-7)).to(group["dtype"])
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
                x = (x.T if p.shape[0] > p.shape[1] else x).float()
                p.mul_(1 - group["lr"] * group["decay"])
                p.sub_(x, alpha=group["lr"] * 0.2 * max(p.shape) ** 0.5)


def make_optimizers(model, dtype):
    """Matrices inside a layer by Muon, which wants fewer steps; the rest by AdamW."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "layers" not in n]
    return [Muon(inside, PEAK, 0.05, dtype),
            torch.optim.AdamW(rest, lr=PEAK, betas=(0.9, 0.98), weight_decay=0.0)]


def single(lines):
    """The first requests alone, without the tools; so none is refused for want
    of one."""
    for line in lines:
        if not line["turns"][0]["say"].startswith("죄송해요, 지금은"):
            yield {"tools": [], "turns": line["turns"][:1]}


def rows(tokenizer, lines):
    """Conversations as (ids, targets), -100 where nothing is to be learned."""
    for line in lines:
        ids, targets = [], []
        for text, learned in pieces(line):
            new = tokenizer.encode(text).ids
            ids += new
            targets += new if learned else [-100] * len(new)
        yield ids, targets


def batches(stream, size):
    """Of like lengths, so that little is padding."""
    while True:
        pool = sorted(itertools.islice(stream, size * 32), key=lambda r: len(r[0]))
        parts = [pool[i:i + size] for i in range(0, len(pool), size)]
        for i in torch.randperm(len(parts)).tolist():
            n = max(len(r[0]) for r in parts[i])
            ids = torch.zeros(len(parts[i]), n, dtype=torch.long)
            to = torch.full_like(ids, -100)
            for k, (a, b) in enumerate(parts[i]):
                ids[k, :len(a)] = torch.tensor(a)
                to[k, :len(b)] = torch.tensor(b)
            yield ids, to


def loss_of(model, ids, targets):
    # Padding lies after the text, and attention looks back only: no mask. The
    # vocabulary is worked out where something is learned, and there alone.
    hidden = model.model(ids).last_hidden_state[:, :-1]
    targets = targets[:, 1:]
    learned = targets != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]),
                                             targets[learned])


def rate(step, spent, whole):
    """Warm, then a half cosine over the time that there is."""
    left = max(0.0, 1 - spent / whole)
    return PEAK * min(1, (step + 1) / WARM) * (0.02 + 0.98 * (
        1 - torch.cos(torch.tensor(left * 3.14159)).item()) / 2)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("out", type=pathlib.Path)
    args.add_argument("--hours", type=float, default=4)
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--bfloat16", action="store_true")
    a = args.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    path = a.out / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.exists() else make_tokenizer(path)
    model = make_model()
    dtype = torch.bfloat16 if a.bfloat16 else torch.float32
    optimizers = make_optimizers(model, dtype)
    step, tokens, spent = 0, 0, 0.0
    saved = a.out / "checkpoint.pt"
    if saved.exists():
        was = torch.load(saved)
        model.load_state_dict(was["model"])
        for o, state in zip(optimizers, was["optimizers"]):
            o.load_state_dict(state)
        step, tokens, spent = was["step"], was["tokens"], was["spent"]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters, "
          f"{a.hours:g} hours, {spent / 3600:.2f} of them done", flush=True)
    test = list(itertools.islice(batches(rows(tokenizer, generate.conversations(99, True)), BATCH), 12))
    curve = csv.writer(open(a.out / "curve.csv", "a", newline=""))
    begun, shown, kept = time.time() - spent, 0.0, time.time()
    lines = generate.conversations(1000 + step)
    short = batches(rows(tokenizer, single(lines)), 4 * BATCH)
    whole = batches(rows(tokenizer, lines), BATCH)
    while True:
        ids, targets = next(short if spent < SHORT * a.hours * 3600 else whole)
        spent = time.time() - begun
        if spent >= a.hours * 3600:
            break
        for g in (g for o in optimizers for g in o.param_groups):
            g["lr"] = rate(step, spent, a.hours * 3600)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bfloat16):
            loss = loss_of(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + ids.numel()
        if time.time() - shown > 60:
            model.eval()
            with torch.no_grad():
                held = sum(loss_of(model, *b).item() for b in test) / len(test)
            model.train()
            shown = time.time()
            curve.writerow([step, tokens, f"{loss.item():.4f}", f"{held:.4f}"])
            print(f"{spent / 60:6.1f} min  step {step}  {tokens / 1e6:.2f} M tokens  "
                  f"loss {loss.item():.4f}  held out {held:.4f}", flush=True)
        if time.time() - kept > 600:
            kept = time.time()
            torch.save({"model": model.state_dict(), "step": step, "tokens": tokens,
                        "optimizers": [o.state_dict() for o in optimizers],
                        "spent": spent}, saved)
            write_folder(a.out, model)
    write_folder(a.out, model)
    print(f"done: {a.out}", flush=True)


if __name__ == "__main__":
    main()
