#!/usr/bin/env python3
"""peer_keys.py - keys and tensors that llama.cpp reads and ksllm.c does not.

    python3 tests/tools/peer_keys.py LLAMA.CPP

LLAMA.CPP is its source (the Makefile's $(call llama.cpp,FOLDER) fetches it).
For each architecture of ksllm.c that is one there, the names of metadata keys
and tensors in its loader that § 20 MODEL does not have. Those in KNOWN are
left out, each with the reason. Tensors of an unknown name are refused, so the
keys matter most: one passed over could change what a model computes.
"""
import pathlib
import re
import sys

KNOWN = {
    "rope.dimension_sections": "a text's positions are the same in each",
    "n_deepstack_layers": "of pictures' rows",
    "deepstack_mapping": "of pictures' rows",
    "vocab_size": "the tokens are counted",
    "dense_2_feat_in": "the tensors' lengths",
    "dense_3_feat_in": "the tensors' lengths",
    "dense_3_feat_out": "the tensors' lengths",
    "embedding_length_out": "comes with dense_2, which LFM2 is refused with",
    "classifier.output_labels": "the length of cls.output",
    "convnext.block_count": "of WavTokenizer", "posnet.block_count": "same",
    "convnext.embedding_length": "same", "posnet.embedding_length": "same",
    "features_length": "same",
}


def section(text, number):
    """A section of ksllm.c."""
    begin = text.index(f"\n * § {number} ")
    return text[begin:text.index(f"\n * § {number + 1} ", begin)]


def loaders(src):
    """From an architecture's name to the source of its loader."""
    names = dict(re.findall(r'\{ (LLM_ARCH_\w+),\s*"([^"]+)"',
                            (src / "llama-arch.cpp").read_text()))
    of = dict(re.findall(r"case (LLM_ARCH_\w+):\s*return new (\w+)\(",
                         (src / "llama-model.cpp").read_text()))
    text = {}
    for path in sorted((src / "models").glob("*.cpp")):
        whole = path.read_text()
        for name in re.findall(r"void (\w+)::load_arch_hparams", whole):
            text[name] = whole.split("std::unique_ptr<llm_graph_context>")[0]
    return {names[arch]: text[of[arch]] for arch in of
            if arch in names and of[arch] in text}


def main(folder):
    src = pathlib.Path(folder) / "src"
    ours = pathlib.Path(__file__).parents[2] / "ksllm.c"
    model = section(ours.read_text(encoding="utf-8"), 20)
    has = set(re.findall(r'"([\w.]+)"', model)) | set(KNOWN)
    table = (src / "llama-arch.cpp").read_text()
    keys = dict(re.findall(r'\{ (LLM_KV_\w+),\s*"%s\.([^"]+)"', table))
    tensors = dict(re.findall(r'\{ (LLM_TENSOR_\w+),\s*"([^"]+)"', table))
    common = re.search(r"void llama_model_base::load_hparams\(.*?\n}\n",
                       (src / "llama-model.cpp").read_text(), re.S)
    load = loaders(src)
    load["all"] = common.group(0)
    found = 0
    for arch in ["all"] + re.findall(r'\{\.name = "([^"]+)", \.need', model):
        if arch not in load:
            print(f"{arch}: llama.cpp has no such architecture")
            continue
        names = {keys[k] for k in re.findall(r"LLM_KV_\w+", load[arch])
                 if k in keys}
        for t, end in re.findall(r'tn\((LLM_TENSOR_\w+),\s*(?:"(\w+)")?',
                                 load[arch]):
            name = tensors[t].replace("blk.%d.", "")
            if not name.startswith("nextn."):
                names.add(name + "." * bool(end) + end)
        missing = sorted(names - has)
        found += len(missing)
        if missing:
            print(f"{arch}: {', '.join(missing)}")
    print(f"{found} names in all")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
