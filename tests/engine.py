#!/usr/bin/env python3
"""One of the engines that bench_peer.py compares with, for it to start.

Runs under the Python of build/engines (make engines). A round for each line on
standard input, its rates as JSON on standard output. Tokens are other ones in
each call, so that no cache of prefixes helps.
"""
import json
import os
import random
import sys
import time

job = json.loads(sys.argv[1])
rng = random.Random(1)


def tokens(n):
    return [rng.randrange(256, 128000) for _ in range(n)]


class OpenVINO:
    def __init__(self):
        import numpy
        import openvino
        import openvino_genai
        self.np, self.ov, self.genai = numpy, openvino, openvino_genai
        self.version = openvino_genai.__version__
        group = job["model"].split("-g")[-1]
        self.pipe = openvino_genai.LLMPipeline(
            job["model"], "CPU", INFERENCE_NUM_THREADS=job["threads"],
            PERFORMANCE_HINT="LATENCY", NUM_STREAMS=1,
            DYNAMIC_QUANTIZATION_GROUP_SIZE=group)

    def generate(self, n, n_new):
        ids = self.np.array([tokens(n)], dtype=self.np.int64)
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = n_new
        config.ignore_eos, config.do_sample = True, False
        done = self.pipe.generate(self.genai.TokenizedInputs(
            self.ov.Tensor(ids), self.ov.Tensor(self.np.ones_like(ids))),
            config)
        assert len(done.tokens[0]) == n_new
        return done.perf_metrics

    def prefill(self, n):
        t = time.perf_counter()
        self.generate(n, 1)
        return n / (time.perf_counter() - t)

    def decode(self, n):
        return 1e3 / self.generate(n, job["tokens"] + 1).get_tpot().mean


class OnnxRuntime:
    def __init__(self):
        import numpy
        import onnxruntime_genai as genai
        self.np, self.version = numpy, genai.__version__
        config = genai.Config(job["model"])
        config.overlay(json.dumps(dict(model=dict(decoder=dict(
            session_options=dict(intra_op_num_threads=job["threads"]))))))
        self.model = genai.Model(config)
        params = genai.GeneratorParams(self.model)
        most = max(job["prefill"] + job["depth"]) + job["tokens"] + 8
        params.set_search_options(
            max_length=most, min_length=most, do_sample=False)
        self.generator = genai.Generator(self.model, params)

    def prefill(self, n):
        ids = self.np.array(tokens(n), dtype=self.np.int32)
        self.generator.rewind_to(0)
        t = time.perf_counter()
        self.generator.append_tokens(ids)
        return n / (time.perf_counter() - t)

    def decode(self, n):
        self.prefill(n)
        self.generator.generate_next_token()
        t = time.perf_counter()
        for _ in range(job["tokens"]):
            self.generator.generate_next_token()
        return job["tokens"] / (time.perf_counter() - t)


class MNN:
    def __init__(self):
        import MNN as mnn
        import MNN.llm
        self.version = mnn.version()
        self.llm = MNN.llm.create(job["model"] + "/config.json")
        self.llm.set_config(dict(
            thread_num=job["threads"], backend_type="cpu", reuse_kv=False,
            sampler_type="greedy", max_new_tokens=job["tokens"] + 1))
        self.llm.load()

    def prefill(self, n):
        ids = tokens(n)
        self.llm.reset()
        t = time.perf_counter()
        self.llm.forward(ids).read()
        return n / (time.perf_counter() - t)

    def decode(self, n):
        self.prefill(n)
        ids = tokens(job["tokens"])
        t = time.perf_counter()
        for i in ids:
            self.llm.forward([i]).read()
        return len(ids) / (time.perf_counter() - t)


def main():
    # What the engines print goes to standard error.
    out = os.dup(1)
    os.dup2(2, 1)

    def say(values):
        os.write(out, (json.dumps(values) + "\n").encode())

    name = os.path.basename(job["model"]).split("-")[0]
    t = time.perf_counter()
    engine = dict(ov=OpenVINO, ort=OnnxRuntime, mnn=MNN)[name]()
    opened = time.perf_counter() - t
    engine.prefill(128)     # buffers are touched here, not in a round
    say(dict(version=engine.version, open=opened * 1e3))
    for _ in sys.stdin:
        rates = {f"prefill {n}": engine.prefill(n) for n in job["prefill"]}
        for n in job["depth"]:
            rates[f"decode {n}"] = engine.decode(max(n, 1))
        say(rates)


main()
