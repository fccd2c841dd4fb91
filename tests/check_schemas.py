"""JSON Schema as ksllm enforces it, against what others say is valid.

    check_schemas.py --schemas BINARY [--suite SDIST] [--bfcl WHEEL]
                     [--sample JSONL] [--full] [--show]
                     [--masks BINARY --model GGUF [--every N] [--wall]
                      [--drawn N | --peers PYTHON]]

Three sources of schemas with texts that are valid and texts that are not: the
JSON-Schema-Test-Suite (in the sdist of jsonschema: drafts 7 and 2020-12), tools
and their calls from BFCL (judged by jsonschema; without --full every eighth),
and, where it is there, a sample of MaskBench. Every text goes through the
program of its schema byte by byte. A schema may be refused, but no invalid text
may be taken, and no valid one rejected, except where TAKEN and REJECTED say
that it is so by design. Of the sample 90 % of the schemas must be accepted, of
BFCL's all that any value is valid against. --show prints everything that is
refused or differs.

With --masks the sample also goes through the vocabulary of --model: 20 answers
(--drawn) at random under each schema, closed the shortest way, must be valid
(every fifth schema, or --every; all of them with --full). With --peers instead
the masks along the valid texts are timed, in the same run also those of
llguidance and xgrammar, where PYTHON has them.
"""
import argparse
import collections
import json
import pathlib
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

DRAFTS = 'draft2020-12', 'draft7'

# By design: names of cases (what they begin with, behind the draft).
TAKEN = (
    'oneOf: oneOf complex types',           # oneOf is read as anyOf, but where
    'oneOf: oneOf with missing optional',   # its branches are plain
    'optional/format/regex', 'optional/format/ecmascript-regex',  # notes
    'ref: $ref prevents a sibling $id',     # draft 7; siblings count
)
REJECTED = (
    'const: ', 'enum: ',        # values are written as the schema has them:
                                # 1.0 for 1, keys in their order
    'type: integer type',       # 1.0 is no integer
    'format: ',                 # asserted, not noted
    'optional/format/',         # rare forms: leap seconds, quoted local parts
    'ref: ref overrides any sibling', 'ref: $ref prevents a sibling $id',
    'vocabulary: ',             # custom ones are not looked at
)


class Case:
    def __init__(self, name, schema, tests):
        self.name, self.schema, self.tests = name, schema, tests


def text_of(value):
    return json.dumps(value, ensure_ascii=False).encode(
        'utf-8', 'surrogatepass')


def judge(binary, cases, flags=0, space=16):
    """For each case: status, offset, microseconds, instructions, ignored
    keywords, a character for each text, message."""
    records = []
    for case in cases:
        schema = case.schema if isinstance(case.schema, bytes) \
            else text_of(case.schema)
        records.append(struct.pack('<III', flags, space, len(schema)) + schema
                       + struct.pack('<I', len(case.tests)))
        for data, _ in case.tests:
            text = data if isinstance(data, bytes) else text_of(data)
            records.append(struct.pack('<I', len(text)) + text)
    done = subprocess.run([binary], input=b''.join(records),
                          stdout=subprocess.PIPE, check=True)
    lines = done.stdout.decode('utf-8', 'replace').split('\n')[:-1]
    assert len(lines) == len(cases), 'the program has ended early'
    for line in lines:
        status, offset, us, ops, ignored, taken, message = line.split(' ', 6)
        yield (int(status), int(offset), float(us), int(ops), int(ignored),
               taken, message)


# -- sources ------------------------------------------------------------------

def suite_cases(sdist):
    """Without what stands in other files, and with the formats that ksllm
    asserts."""
    with tarfile.open(sdist) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            parts = pathlib.PurePath(member.name).parts
            if len(parts) < 5 or parts[2] != 'tests' or parts[3] not in DRAFTS \
                    or not member.name.endswith('.json'):
                continue
            if parts[4] == 'optional' and parts[5] != 'format':
                continue
            stem = '/'.join(parts[3:])[:-5]
            for group in json.load(tar.extractfile(member)):
                yield Case(f'{stem}: {group["description"]}', group['schema'],
                           [(t['data'], t['valid']) for t in group['tests']])


def sample_cases(path):
    with open(path, encoding='utf-8') as lines:
        for line in lines:
            case = json.loads(line)
            yield Case(case['name'], case['schema'],
                       [(t['data'], t['valid']) for t in case['tests']])


TYPES = {'dict': 'object', 'float': 'number', 'tuple': 'array',
         'int': 'integer', 'bool': 'boolean', 'list': 'array', 'str': 'string',
         'hashmap': 'object', 'arraylist': 'array', 'long': 'integer',
         'double': 'number', 'char': 'string', 'byte': 'integer'}
JSON_TYPES = ('object', 'array', 'string', 'number', 'integer', 'boolean',
              'null')


def plain(schema):
    """BFCL's types as JSON Schema has them."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: plain(value) for key, value in schema.items()}
    kind = made.get('type')
    if isinstance(kind, str):
        kind = TYPES.get(kind.lower(), kind.lower())
        made['type'] = kind
        if kind not in JSON_TYPES:
            del made['type']
    if isinstance(made.get('required'), bool):
        del made['required']
    return made


def entries(data):
    """The objects of a file, a line each; other files have none."""
    lines = data.decode().splitlines()
    return [json.loads(line) for line in lines] \
        if lines[0].endswith('}') else []


def bfcl_cases(wheel):
    import jsonschema
    root = 'bfcl_eval/data/'
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith(root + 'BFCL')]
        for name in sorted(names):
            answers = collections.defaultdict(list)
            answer = root + 'possible_answer/' + name[len(root):]
            if answer in archive.namelist():
                for entry in entries(archive.read(answer)):
                    for call in entry['ground_truth']:
                        if isinstance(call, dict):
                            answers[entry['id']].append(call)
            for entry in entries(archive.read(name)):
                for tool in entry.get('function') or []:
                    schema = plain(tool['parameters'])
                    tests = []
                    for call in answers[entry['id']]:
                        for given in [call[tool['name']]] \
                                if tool['name'] in call else []:
                            data = {k: v[0] for k, v in given.items()
                                    if v and v[0] != ''}
                            cut = dict(list(data.items())[1:])
                            more = {**data, 'zz': '한글'}
                            tests += [data, cut, more]
                    check = jsonschema.Draft202012Validator(schema)
                    yield Case(f'{entry["id"]} {tool["name"]}', schema,
                               [(d, check.is_valid(d)) for d in tests])


# -- what came ----------------------------------------------------------------

def percent(part, whole):
    return f'{100 * part / max(whole, 1):.2f} %'


def by_design(case, valid):
    name = case.name.partition('/')[2]
    return name.startswith(REJECTED if valid else TAKEN)


def report(name, cases, results, least, show):
    """Prints what came, and returns whether it is good enough."""
    refused, wrong, times = collections.Counter(), [], []
    counts, design = collections.Counter(), 0
    for case, result in zip(cases, results):
        status, offset, us, ops, ignored, taken, message = result
        if status:
            refused[status, message[:70]] += 1
            if show:
                print(f'  refused {case.name}: {status} at {offset}: {message}')
            continue
        times.append((us / 1e3, case.name))
        for (data, valid), verdict in zip(case.tests, taken):
            counts[valid, verdict == '1'] += 1
            if valid != (verdict == '1'):
                design += by_design(case, valid)
                if show or not by_design(case, valid):
                    wrong.append((case, data, valid))
    bad = sum(not by_design(case, valid) for case, _, valid in wrong)
    times.sort()
    valid = counts[True, True] + counts[True, False]
    invalid = counts[False, True] + counts[False, False]
    print(f'{name}: {len(times)} of {len(cases)} schemas '
          f'({percent(len(times), len(cases))}); of {valid} valid texts '
          f'{counts[True, False]} rejected, of {invalid} invalid ones '
          f'{counts[False, True]} taken; {design} of these by design')
    print(f'  ready in {times[len(times) // 2][0]:.3f} ms p50, '
          f'{times[len(times) * 99 // 100][0]:.3f} p99, '
          f'{times[-1][0]:.3f} at most ({times[-1][1]})')
    for (status, message), n in refused.most_common(None if show else 6):
        print(f'  {n} refused, {status}: {message}')
    for case, data, valid in wrong if show else wrong[:20]:
        print(f'  {"rejected" if valid else "TAKEN"}: {case.name}: '
              f'{text_of(data)[:100]} by {text_of(case.schema)[:160]}')
    return bad == 0 and len(times) >= least * len(cases)


# -- masks --------------------------------------------------------------------

PEERS = 'llguidance', 'xgrammar'
# One thread, EXAONE's vocabulary; microseconds.
SHARE, MOST, READY_P50, READY_P99 = 0.25, 1000, 300, 5000
INDEX_MS, INDEX_BYTES, MATCHER_BYTES = 25, 2_000_000, 320 << 10


def run_masks(args, cases, drawn):
    """The vocabulary and its index, and for each case what masks.c tells."""
    with tempfile.NamedTemporaryFile() as f:
        for case in cases:
            schema = text_of(case.schema)
            texts = [text_of(data) for data, valid in case.tests if valid]
            f.write(struct.pack('<I', len(schema)) + schema
                    + struct.pack('<I', len(texts)))
            for text in texts:
                f.write(struct.pack('<I', len(text)) + text)
        f.flush()
        command = [args.masks, args.model, '--each', '--complete', str(drawn),
                   f.name] + ['--wall'] * args.wall
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    lines = done.stdout.decode('utf-8', 'replace').split('\n')[:-1]
    index, tokens, *results = map(json.loads, lines)
    assert len(results) == len(cases), 'masks has ended early'
    return index, tokens, results


def too_long(*_):
    raise TimeoutError


def is_valid(check, text):
    """None: Python's cannot say, as of a pattern that it does not know."""
    signal.alarm(5)
    try:
        return check.is_valid(json.loads(text))
    except ValueError:
        return False
    except Exception:
        return None
    finally:
        signal.alarm(0)


def as_any(schema):
    """oneOf is read as anyOf."""
    if isinstance(schema, list):
        return [as_any(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {'anyOf' if key == 'oneOf' and 'anyOf' not in schema else key:
            as_any(value) for key, value in schema.items()}


def report_drawn(cases, results, show):
    """Answers at random."""
    import jsonschema
    signal.signal(signal.SIGALRM, too_long)
    counts = collections.Counter()
    for case, result in zip(cases, results):
        if 'texts' not in result:
            continue
        counts['schemas'] += 1
        kind = jsonschema.validators.validator_for(
            case.schema, default=jsonschema.Draft202012Validator)
        check = kind(as_any(case.schema))
        for text in result['texts']:
            if text.endswith('!'):
                counts['open'] += 1
                if show:
                    print(f'  no end: {case.name}')
                continue
            data = bytes.fromhex(text)
            verdict = is_valid(check, data)
            counts[verdict] += 1
            if verdict is False:
                print(f'  DRAWN: {case.name}: {data[:200]}')
    print(f'at random: {counts["schemas"]} schemas, {counts[True]} answers '
          f'valid, {counts[False]} not, {counts["open"]} found no end, of '
          f'{counts[None]} jsonschema cannot tell')
    return not counts[False] and not counts['open']


def run_peer(args, name, tokens, cases, results):
    """Its set-up, steps for each case, memory; None where it is not there."""
    special = [i for i, t in enumerate(tokens) if not t]
    given = {'tokens': tokens, 'special': special, 'eos': special[0],
             'cases': [{'schema': text_of(case.schema).decode(),
                        'texts': [[step[0] for step in text[:-1]]
                                  for text in result['steps']]}
                       for case, result in zip(cases, results)]}
    script = pathlib.Path(__file__).with_name('schema_peers.py')
    done = subprocess.run(
        [args.peers, script, name, 'wall' if args.wall else 'thread'],
        input=json.dumps(given).encode(), stdout=subprocess.PIPE)
    if done.returncode:
        print(f'{name}: skipped')
        return None
    setup, *rest = map(json.loads, done.stdout.splitlines())
    setup.update(rest.pop())
    return setup, rest


def spread(times):
    times = sorted(times)
    n = len(times)
    return (sum(times) / n, times[n // 2], times[n * 99 // 100],
            times[n * 999 // 1000], times[-1])


def print_times(name, results, extra):
    times = [us for result in results for text in result.get('steps', [])
             for us in text]
    ready = spread([r['ready'] for r in results if 'ready' in r])
    texts = sum(len(text) > 0 for r in results for text in r.get('steps', []))
    print('%-11s %7d %5d %7d' % (name, sum('ready' in r for r in results),
                                 texts, len(times))
          + ''.join(' %9.1f' % x for x in spread(times))
          + ' %9.3f %9.3f  %s' % (ready[1] / 1e3, ready[2] / 1e3, extra))


def common(mine, others):
    """The times of both along the tokens that both have taken."""
    pairs = [pair for a, b in zip(mine, others)
             for x, y in zip(a.get('steps', []), b.get('steps', []))
             for pair in zip(x, y)]
    return spread([a for a, _ in pairs]), spread([b for _, b in pairs]), \
        len(pairs)


def report_masks(args, cases, results, index, tokens):
    mine = [{**r, 'steps': [[us for _, us in text[:-1]]
                            for text in r['steps']]} for r in results]
    print(f'{len(tokens)} tokens, times in microseconds, of '
          + ('the clock on the wall' if args.wall else 'the thread alone'))
    print('            schemas texts   masks      mean       p50       p99'
          '     p99.9       max  ready ms       p99')
    held = sorted(r['bytes'] for r in mine if 'bytes' in r)
    print_times('ksllm', mine, 'index %.1f ms %.2f MB, matcher %d KiB, '
                'grammar %.0f KiB p50 %.0f p99' % (
                    index['index_ms'], index['index_bytes'] / 1e6,
                    index['matcher_bytes'] >> 10, held[len(held) // 2] / 1024,
                    held[len(held) * 99 // 100] / 1024))
    times = spread([us for r in mine for text in r['steps'] for us in text])
    ready = spread([r['ready'] for r in mine if 'ready' in r])
    bars = [('mask max', times[4], MOST), ('ready p50', ready[1], READY_P50),
            ('ready p99', ready[2], READY_P99),
            ('index ms', index['index_ms'], INDEX_MS),
            ('index bytes', index['index_bytes'], INDEX_BYTES),
            ('matcher bytes', index['matcher_bytes'], MATCHER_BYTES)]
    for name in args.only or PEERS:
        came = run_peer(args, name, tokens, cases, results)
        if not came:
            continue
        setup, theirs = came
        print_times(name, theirs, '%s: set-up %.0f ms, memory %.0f MB' % (
            setup['version'], setup['setup_ms'], setup['memory'] / 1e6))
        a, b, n = common(mine, theirs)
        print(f'  along the same {n} tokens: mean %.1f to %.1f (%.3f), '
              'p50 %.1f to %.1f (%.3f), p99 %.1f to %.1f (%.3f), '
              'max %.0f to %.0f' % (
                  a[0], b[0], a[0] / b[0], a[1], b[1], a[1] / b[1], a[2], b[2],
                  a[2] / b[2], a[4], b[4]))
        if name == 'llguidance':
            bars += [('mean to llguidance', a[0] / b[0], SHARE),
                     ('p99 to llguidance', a[2] / b[2], SHARE)]
    for name, value, most in bars:
        print(f'  {name}: {value:.6g}, at most {most}'
              + ('' if value <= most else ': ABOVE'))
    worst = sorted(((us, case.name, i) for case, r in zip(cases, mine)
                    for text in r['steps'] for i, us in enumerate(text)),
                   reverse=True)
    for us, name, i in worst[:20 if args.show else 3]:
        print(f'  slowest: {us:.0f} at token {i} of {name}')
    return all(value <= most for _, value, most in bars)


def check_masks(args, cases):
    every = args.every or (1 if args.full or args.peers else 5)
    some = cases[::every]
    index, tokens, results = run_masks(
        args, some, 0 if args.peers else args.drawn)
    if args.peers:
        return report_masks(args, some, results, index, tokens)
    return report_drawn(some, results, args.show)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--schemas')
    parser.add_argument('--suite')
    parser.add_argument('--bfcl')
    parser.add_argument('--sample')
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--show', action='store_true')
    parser.add_argument('--masks')
    parser.add_argument('--model')
    parser.add_argument('--peers')
    parser.add_argument('--only', nargs='*', choices=PEERS)
    parser.add_argument('--every', type=int)
    parser.add_argument('--drawn', type=int, default=20)
    parser.add_argument('--wall', action='store_true')
    args = parser.parse_args()
    sources = []
    if args.suite:
        sources.append(('suite', list(suite_cases(args.suite)), 0.75))
    if args.sample:
        sources.append(('MaskBench sample', list(sample_cases(args.sample)),
                        0.9))
    if args.bfcl:
        cases = list(bfcl_cases(args.bfcl))
        sources.append(('BFCL', cases if args.full else cases[::8],
                        0.995))
    good = [report(name, cases, judge(args.schemas, cases), least, args.show)
            for name, cases, least in (sources if args.schemas else [])]
    if args.masks and args.sample:
        good.append(check_masks(args, list(sample_cases(args.sample))))
    failed = len(good) - sum(good)
    print(f'{len(good) - failed} passed, {failed} failed')
    return failed > 0 or not good


if __name__ == '__main__':
    sys.exit(main())
