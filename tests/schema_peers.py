"""Masks of others, for check_schemas.py: it runs under an interpreter that has
them.

    schema_peers.py NAME CLOCK < JSON > JSON lines

NAME is llguidance or xgrammar. In: {"tokens": [hexadecimal], "eos": id,
"special": [ids], "cases": [{"schema": text, "texts": [[ids]]}]}. Out: a line
with setup_ms and version, then one for each case: ready (microseconds), steps
(for each text the microseconds of its masks, as far as it was taken), or a
message; last the memory, in bytes, that all of it has taken.
"""
import importlib.metadata
import json
import resource
import sys
import time

CLOCKS = {'thread': time.thread_time_ns, 'wall': time.perf_counter_ns,
          'process': time.process_time_ns}


def memory():
    with open('/proc/self/statm', encoding='ascii') as f:
        return int(f.read().split()[1]) * resource.getpagesize()


class Greedy:
    """A tokenizer as llguidance wants one: the longest token first. It is
    asked for forced text only, which is not measured."""

    def __init__(self, tokens, eos, special):
        self.eos_token_id, self.bos_token_id = eos, None
        self.tokens, self.special_token_ids = tokens, special
        self.ids = {t: i for i, t in enumerate(tokens)}

    def __call__(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        ids = []
        while data:
            n = next(n for n in range(min(len(data), 40), 0, -1)
                     if data[:n] in self.ids)
            ids.append(self.ids[data[:n]])
            data = data[n:]
        return ids


class Llguidance:
    """With the slices that it has by default."""

    def __init__(self, tokens, eos, special):
        import llguidance
        import llguidance.numpy
        self.ll = llguidance
        self.tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(Greedy(tokens, eos, special)))
        self.mask = llguidance.numpy.allocate_token_bitmask(1, len(tokens))
        self.where = self.mask.ctypes.data, self.mask.nbytes

    def compile(self, schema):
        grammar = self.ll.LLMatcher.grammar_from_json_schema(schema)
        made = self.ll.LLMatcher(self.tokenizer, grammar, log_level=0)
        if made.is_error():
            raise ValueError(made.get_error())
        return made

    def begin(self, made):
        made.reset()
        return made

    def fill(self, matcher):
        matcher.unsafe_compute_mask_ptr(*self.where)

    def take(self, matcher, token):
        return matcher.consume_token(token) and not matcher.is_error()


class Xgrammar:
    def __init__(self, tokens, eos, special):
        import torch
        import xgrammar
        torch.set_num_threads(1)
        self.xg = xgrammar
        info = xgrammar.TokenizerInfo(
            tokens, xgrammar.VocabType.RAW, vocab_size=len(tokens),
            stop_token_ids=[eos])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1,
                                                 cache_enabled=False)
        self.mask = xgrammar.allocate_token_bitmask(1, len(tokens))

    def compile(self, schema):
        return self.compiler.compile_json_schema(schema)

    def begin(self, made):
        return self.xg.GrammarMatcher(made)

    def fill(self, matcher):
        matcher.fill_next_token_bitmask(self.mask)

    def take(self, matcher, token):
        return matcher.accept_token(token)


def run_text(peer, made, tokens, clock):
    matcher, steps = peer.begin(made), []
    for token in tokens:
        begin = clock()
        peer.fill(matcher)
        us = (clock() - begin) / 1e3
        if not peer.take(matcher, token):
            break
        steps.append(us)
    return steps


def run_case(peer, case, clock, ready_clock):
    begin = ready_clock()
    try:
        made = peer.compile(case['schema'])
        ready = (ready_clock() - begin) / 1e3
        return {'ready': ready, 'steps': [run_text(peer, made, t, clock)
                                          for t in case['texts']]}
    except Exception as error:      # whatever a peer throws
        return {'message': str(error)[:200]}


def main():
    name, kind = sys.argv[1:]
    clock = CLOCKS[kind]
    # a peer may compile on a thread of its own
    ready_clock = CLOCKS['wall' if kind == 'wall' else 'process']
    given = json.load(sys.stdin)
    special = set(given['special'])
    tokens = [b'<|special %d|>' % i if i in special else bytes.fromhex(t)
              for i, t in enumerate(given['tokens'])]
    before, begin = memory(), ready_clock()
    peer = {'llguidance': Llguidance, 'xgrammar': Xgrammar}[name](
        tokens, given['eos'], given['special'])
    print(json.dumps({'setup_ms': (ready_clock() - begin) / 1e6,
                      'version': importlib.metadata.version(name)}), flush=True)
    for case in given['cases']:
        print(json.dumps(run_case(peer, case, clock, ready_clock)), flush=True)
    print(json.dumps({'memory': memory() - before}), flush=True)


if __name__ == '__main__':
    main()
