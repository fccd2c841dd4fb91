"""Every filter, test, global function and method that jinja2 documents, on
values of every kind, against jinja2 as transformers sets it up.

check_templates.py runs every fifth of them, with --all all. A call must give
the same text, or an error where Python raises or prints an address; what says
that it is not supported must be in REFUSED. Nothing else passes.
"""
import itertools
import re

# Values as a template writes them. `big`, `nest` and so on are SWITCHES.
TEXTS = ["''", "'abc'", "'Hello World, hello'", "'안녕 세상 안녕'", "'😀 a😀'",
         "'１２'", "'İstanbul ıI ß'", "'ΑΣ ΣΑΣ ΟΔΟΣ'", "'ﬁ ŉ ǆ ᾳ ᾀ Ꭰ ა'",
         "' \\t x\\n y\\r\\n \\u2028z '", "'a,b,,c'", "'-42'", "'0x1F'",
         "' 1_000 '", "'3.75e2'", "'inf'", "'²३Ⅷ一'", "'it\\'s \"q\"\\\\'",
         "'<a href=\"x\">T</a> <b>가 나</b>'", "'<p>'|safe", "'x<'|escape",
         "'{}%s'", "q", "long"]
NUMBERS = ["0", "1", "-7", "42", "true", "false", "2.5", "-0.0", "3.0", "1e16",
           "1e-7", "0.1", "-2.675", "12345.678", "big", "-1000000", "1e300",
           "9007199254740993", "huge"]
OTHERS = ["none", "u", "[]", "[3, 1, 2]", "['b', 'A', 'a', 'B']", "[1, 'a']",
          "()", "(1, 2)", "(1, '나', none)", "{}", "{'b': 1, 'A': 2, 'a': 3}",
          "nest", "nest.users", "range(4)", "range(0)", "{'가': none, 'k': u}",
          "[[1, 2], [3, 4]]", "[2.5, 1, big]", "[u, none, true]",
          "namespace(a=1)", "{'a': 1}.items()", "{'a': 1, 'b': 2}.keys()",
          "{'a': 1}.values()", "[1, 0, 2]|select", "[1, 2]|map('string')",
          "nest.users|groupby('city')", "['ß', 'İ', 'Σ']"]
VALUES = TEXTS + NUMBERS + OTHERS
SWITCHES = {
    "big": 123456789012345678901234567890, "huge": -2**64, "q": "it's \"q\"\n",
    "long": "The quick brown fox jumps over the lazy dog. 다람쥐 헌 쳇바퀴에 "
            "타고파. " * 3,
    "nest": {"users": [{"name": "민수", "age": 30, "city": "서울"},
                       {"name": "bob", "age": 25, "city": "busan"},
                       {"name": "Amy", "age": 30, "city": "Busan"},
                       {"name": "x", "age": None, "city": "서울",
                        "tags": ["a", {"b": [1.0, True]}]}],
             "items": 1, "z": {"y": {"x": [10, 20]}}}}

NONE = [""]
# name: the arguments it is called with.
FILTERS = {
    "abs": NONE, "capitalize": NONE, "count": NONE, "length": NONE, "e": NONE,
    "escape": NONE, "first": NONE, "forceescape": NONE, "last": NONE,
    "list": NONE, "lower": NONE, "safe": NONE, "string": NONE, "title": NONE,
    "upper": NONE, "wordcount": NONE, "striptags": NONE, "urlencode": NONE,
    "items": NONE, "reverse": NONE, "tojson": [
        "", "indent=2", "true", "sort_keys=true", "separators=(',', ':')",
        "indent=1, separators=('; ', ' = ')", "indent=true", "indent='가'",
        "indent=-1", "separators=','", "separators='ab'", "false, 0",
        "nosuch=1", "indent=none",
        "ensure_ascii=1, sort_keys=1, indent=3"],
    "attr": ["'upper'", "'age'", "'users'", "'items'", "'nosuch'", "1"],
    "batch": ["2", "3, 'x'", "0", "2, none", "'a'", "linecount=2",
              "1, fill_with=0", ""],
    "center": ["", "20", "7", "width=11", "-1", "'a'", "10, 'x'"],
    "d": ["", "'x'", "'x', true", "default_value=2, boolean=true", "none",
          "1, 2, 3"],
    "default": ["", "'x'", "'x', true", "boolean=true"],
    "dictsort": ["", "true", "by='value'", "false, 'value', true", "by='x'",
                 "reverse=true", "case_sensitive=1, by='key'"],
    "filesizeformat": ["", "true", "binary=true", "1, 2"],
    "float": ["", "1", "default='x'"],
    "format": ["", "1", "'a', 2", "a=1", "1, a=1", "'가'", "u"],
    "groupby": ["'city'", "'age'", "'nosuch', default=''", "'name', '', true",
                "0", "'city', case_sensitive=true", "",
                "attribute='city', default='x'"],
    "indent": ["", "2", "'> '", "2, true", "1, false, true", "first=true",
               "width='가', blank=true", "0", "-1", "2.5", "none"],
    "int": ["", "9", "0, 16", "base=2", "5, 8", "0, 0", "base=36", "'x', 1",
            "default=none, base=8", "0, '10'"],
    "join": ["", "','", "', ', 'name'", "attribute='age'", "1", "d='가'",
             "none", "'<'|safe", "u", "',', 0", "attribute='z.y'"],
    "map": ["attribute='name'", "attribute='nosuch', default='-'", "'upper'",
            "'string'", "'nosuch'", "", "attribute=0", "attribute='z.y.x.1'",
            "'default', 'x'", "'int', 7, base=16", "attribute='age', x=1",
            "'round', 1", "attribute='name', default=none", "'first'"],
    "min": ["", "true", "attribute='age'", "attribute='name'",
            "case_sensitive=true"],
    "max": ["", "true", "attribute='age'", "attribute='name'",
            "false, 'city'"],
    "reject": ["", "'odd'", "'nosuch'", "'string'", "'gt', 1", "'none'"],
    "rejectattr": ["", "'age'", "'age', 'none'", "'name', 'eq', 'bob'"],
    "select": ["", "'even'", "'number'", "'divisibleby', 3", "'in', [1, 2]",
               "'defined'", "x=1"],
    "selectattr": ["", "'age'", "'age', 'gt', 26", "'tags'", "'z'",
                   "'age', 'nosuch'", "0", "'name', 'in', 'bobAmy'",
                   "'tags.1.b', 'defined'"],
    "replace": ["'a', 'b'", "'a', '가', 1", "'', '-'", "1, 2", "'l', ''",
                "'o', none", "'a'", "old='a', new='x'", "'o', 'x', count=1",
                "'o', 'x', 0", "'a', 'b', -1", "'a', 'b', 'c'", "u, 'x'",
                "'', '-', 2"],
    "round": ["", "1", "2, 'ceil'", "0, 'floor'", "-2", "1, 'up'",
              "precision=3", "method='floor'", "none", "2.5", "'a'", "20",
              "-2, 'ceil'", "400", "-400"],
    "slice": ["2", "3, 'x'", "0", "1, none", "'a'", "slices=2, fill_with=0",
              "-1"],
    "sort": ["", "true", "false, true", "attribute='name'",
             "attribute='age,name'", "attribute='city', reverse=true",
             "attribute=0", "attribute='z.y'", "case_sensitive=true",
             "attribute='city,name', case_sensitive=true"],
    "sum": ["", "'age'", "attribute='nosuch'", "start=10", "start=[]",
            "none, 1.5", "start=''", "start='x'"],
    "trim": ["", "'a'", "' x'", "chars='안녕'", "none", "1", "''"],
    "truncate": ["", "5", "8, true", "9, false, '…'", "7, true, '', 0",
                 "2", "length=12, killwords=true, end='~'", "10, leeway=0",
                 "10, leeway=-1", "'a'", "0, true, '', 0"],
    "unique": ["", "true", "attribute='city'", "attribute='age'",
               "case_sensitive=true, attribute='city'"],
    "wordwrap": ["", "10", "5, false", "8, true, '|'", "7, wrapstring='가'",
                 "1", "0", "10, break_on_hyphens=false", "-1"],
    "xmlattr": ["", "false", "autospace=false"],
    "pprint": NONE, "random": NONE, "urlize": ["", "10"], "nosuch": NONE,
}
TESTS = {name: NONE for name in (
    "boolean callable defined escaped even false filter float integer iterable "
    "lower mapping none number odd sequence string test true undefined upper "
    "nosuch").split()}
TESTS.update({name: ["1", "'abc'", "2.5", "none", "u", "big", "[3, 1, 2]",
                     "true", "'x'|safe", "(1, 2)", "123456789012345680000"]
              for name in ("eq equalto ne lt lessthan le gt greaterthan ge "
                           "sameas in divisibleby").split()})
TESTS["divisibleby"] = ["1", "2", "0", "2.5", "'a'", "big", "true"]
TESTS["in"] = ["'abc'", "[1, 'a', none]", "{'abc': 1, 1: 2}", "range(3)", "u",
               "5", "(2.5, true)", "{'b': 1}.keys()", "[1, 3]|map('int')"]
TESTS["sameas"] = ["none", "true", "false"]

FIND = ["'a'", "'녕'", "''", "'a', 1", "'o', 2, 8", "'l', -5", "'o', 0, -3",
        "'', 3", "'', 100", "'안', none, 3", "1", "", "'a', 'b'", "sub='a'",
        "'a', -100, 100", "'o', big"]
AFFIX = ["'a'", "'안녕'", "''", "('x', 'ab')", "()", "'l', 2", "'o', 0, 5",
         "('H', '안'), 0", "['a']", "1", "", "'', 99", "'c', -1", "u",
         "('a', 1)", "'b', none, 2"]
SPLIT = ["", "' '", "','", "none", "none, 1", "' ', 1", "',', 2", "'', 1", "1",
         "sep=','", "maxsplit=1", "sep=None, maxsplit=2", "', ', -1", "',', 0",
         "'안'", "maxsplit=0", "'l', maxsplit=1"]
PAD = ["", "12", "12, '*'", "9, '가'", "-1", "10, 'ab'", "'a'", "10, ''",
       "width=9", "7, '<'"]
STRIP = ["", "'a'", "' x\\n'", "none", "1", "'안녕'", "''", "chars='a'",
         "'İ'|lower"]
TEXT_METHODS = {
    "capitalize": NONE, "casefold": NONE, "center": PAD, "count": FIND,
    "endswith": AFFIX, "expandtabs": ["", "4", "0", "tabsize=3", "-1", "'a'"],
    "find": FIND, "index": FIND, "isalnum": NONE, "isalpha": NONE,
    "isascii": NONE, "isdecimal": NONE, "isdigit": NONE, "islower": NONE,
    "isnumeric": NONE, "isprintable": NONE, "isspace": NONE, "istitle": NONE,
    "isupper": NONE, "join": ["['a', 'b']", "'가나'", "[1]", "()", "{'k': 1}",
                              "", "5", "['<', '&']", "u", "[u]",
                              "['a', '<'|safe]", "{'a': 1}.keys()"],
    "ljust": PAD, "lower": NONE + ["1"], "lstrip": STRIP,
    "partition": ["' '", "'l'", "'녕'", "''", "1", "", "'zz'", "sep=' '"],
    "removeprefix": ["'a'", "'안녕'", "''", "1", "", "'Hello '"],
    "removesuffix": ["'c'", "'안녕'", "''", "1", "'hello'"],
    "replace": ["'a', 'b'", "'l', '가', 1", "'', '-'", "'', '-', 3", "1, 2",
                "'a'", "'o', '', 0", "'a', 'x', -1", "old='a', new='b'",
                "'l', 'L', count=1", "'<', '&'", "'x', '<'"],
    "rfind": FIND, "rindex": FIND, "rjust": PAD, "rpartition": [
        "' '", "'l'", "'녕'", "''", "1", "'zz'"], "rsplit": SPLIT,
    "rstrip": STRIP, "split": SPLIT,
    "splitlines": ["", "true", "keepends=true", "false", "0", "'x'"],
    "startswith": AFFIX, "strip": STRIP, "swapcase": NONE, "title": NONE,
    "upper": NONE, "zfill": ["5", "0", "12", "-3", "'a'", "", "width=5"],
    "encode": NONE, "isidentifier": NONE, "maketrans": ["{}"],
    "translate": ["{}"], "nosuch": NONE, "format_map": ["{'a': 1}", "", "1"],
}
LIST_METHODS = {
    "count": ["1", "'a'", "none", "", "2.0", "[1, 2]", "1, 2"],
    "index": ["1", "3", "'b'", "1, 1", "2, 0, 1", "3, -5", "", "none"],
    "copy": NONE, "append": ["1"], "clear": NONE, "extend": ["[]"],
    "insert": ["0, 1"], "pop": NONE, "remove": ["1"], "reverse": NONE,
    "sort": NONE}
DICT_METHODS = {
    "get": ["'a'", "'zz'", "'zz', 5", "'k'", "", "[]", "1", "key='a'",
            "'b', none"],
    "keys": NONE, "values": NONE, "items": NONE, "copy": NONE, "clear": NONE,
    "pop": ["'a'"], "popitem": NONE, "setdefault": ["'a'"],
    "update": ["{}"], "fromkeys": ["'ab'"]}
NUMBER_ATTRIBUTES = ["real", "imag", "numerator", "denominator", "hex()",
                     "bit_length()", "is_integer()", "nosuch"]
# What says that it is not supported: built-ins, then uses of some.
REFUSED = set(
    "batch center filesizeformat format groupby pprint random slice striptags "
    "truncate urlencode urlize wordcount wordwrap xmlattr "
    "cycler joiner lipsum "
    "casefold copy encode expandtabs format_map fromkeys isascii isdecimal "
    "isidentifier isnumeric isprintable istitle ljust maketrans rjust swapcase "
    "translate zfill "
    "real imag numerator denominator hex bit_length is_integer count index "
    "sameas **".split()) | {
    "== of two views of mappings", "order of views of mappings",
    "a generator", "a generator read in part before", "a method",
    "an attribute of a macro or function", "a slice of a range",
    "an integer is too large", "an integer beyond 63 bits",
    "abs of an integer beyond 63 bits", "- of an integer beyond 63 bits",
    "arithmetic with an integer beyond 63 bits",
    "a float beside an integer beyond 63 bits", "% or // of a float",
    "% with this format", "format with this field",
    "start or end of a search", "sort by several attributes",
    "int with a base", "a digit beyond ASCII", "round to this many digits",
    "ceil or floor of this large an integer",
    "the other case of this letter", "the case of this character",
    "strftime_now with this letter"}

FLAGS = ["", "-", "0", "+", " ", "#", "#0", "-0", "+0", "0 "]
PERCENT = ["%" + flag + width + precision + kind for flag in FLAGS
           for width in ("", "8") for precision in ("", ".3", ".0")
           for kind in "sdifFeEgGxXocra"]
FORMATS = [align + sign + alt + zero + width + comma + precision + kind
           for align in ("", "<", ">", "^", "=", "*^", "가<", "x=")
           for sign in ("", "+", " ") for alt in ("", "#")
           for zero in ("", "0") for width in ("", "9")
           for comma in ("", ",", "_") for precision in ("", ".2")
           for kind in ("", "s", "d", "f", "e", "g", "x", "X", "b", "o", "c",
                        "%", "E", "F", "G", "n", "q")]
SAMPLES = ["42", "-7", "2.5", "-1234567.891", "'가나다'", "true", "none", "u",
           "[1, 'a']", "big", "1e300", "0.0", "'<'|safe", "1e-10"]

GLOBALS = [
    "{{ range(%s)|list }}" % a for a in (
        "3", "1, 4", "5, 0, -2", "0", "-1", "1, 2, 0", "2.5", "'a'", "",
        "true", "100001", "100000|int, 0", "stop=3", "1, 2, 3, 4")] + [
    "{{ range(3) }}", "{{ range(3)[1] }}{{ range(5)[1:3]|list }}",
    "{{ range(3) == range(3) }}{{ range(3) == [0, 1, 2] }}",
    "{{ range(3)|tojson }}", "{{ range(3) + [1] }}", "{{ range(3)|length }}",
    "{{ range(5).count(2) }}{{ range(5).index(3) }}",
    "{{ dict() }}{{ dict(a=1, b=none) }}{{ dict({'a': 1}, a=2) }}",
    "{{ dict([('a', 1), ['b', 2], 'cd']) }}", "{{ dict(1) }}",
    "{{ dict([1]) }}", "{{ dict(a=1).a }}{{ dict([[[], 1]]) }}",
    "{{ dict({'a': 1}, {'b': 2}) }}", "{{ dict([('a', 1)]|list, b=2) }}",
    "{{ dict(u) }}{{ dict({1: 2}.items()) }}", "{{ dict.fromkeys('ab') }}",
    "{% set n = namespace(a=1, b='x') %}{{ n }}{{ n.a }}{{ n['b'] }}{{ n.c }}",
    "{{ namespace({'a': 1}) }}", "{{ namespace(_a=1) }}", "{{ namespace(1) }}",
    "{{ namespace([('a', [1])]).a }}", "{{ namespace(a=1).items() }}",
    "{% set c = cycler('a', 'b', '다') %}{{ c.next() }}{{ c.current }}"
    "{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}"
    "{{ c.pos }}{{ c.items }}", "{{ cycler() }}", "{{ cycler(1) }}",
    "{{ cycler(1)|tojson }}", "{{ cycler(1).next(2) }}",
    "{% set j = joiner(', ') %}{% for x in [1, 2, 3] %}{{ j() }}{{ x }}"
    "{% endfor %}{{ joiner()() }}{% set k = joiner(sep=0) %}{{ k() }}{{ k() }}",
    "{{ joiner(1, 2) }}", "{% set j = joiner() %}{{ j() }}{{ j() }}{{ j(1) }}",
    "{{ joiner() is callable }}{{ cycler(1) is callable }}", "{{ joiner() }}",
    "{{ lipsum() }}", "{{ lipsum is defined }}{{ range is callable }}",
    "{{ raise_exception() }}", "{{ raise_exception(1, 2) }}",
    "{% set x = [1, 2]|map('string') %}{{ x|list }}{{ x|list }}",
    "{% set x = [1, 2, 3]|select %}{{ x|first }}{{ x|join }}",
    "{% for a in [1, 2, 3] %}{{ loop.cycle('x', '나') }}{{ loop.changed(a // 2)"
    " }}{% endfor %}", "{% for a in [1] %}{{ loop.cycle() }}{% endfor %}",
    "{{ [1, 2]|map('string') == ['1', '2'] }}{{ {}.keys() == [] }}",
    "{{ '%(a)s|%(나)5d|%%|%(a)r' % {'a': 'x', '나': 3} }}",
    "{{ '%(a)s' % {} }}", "{{ '%(a)s' % 1 }}", "{{ '%(a' % {'a': 1} }}",
    "{{ '%(a(b))s' % {'a(b)': 1} }}", "{{ '%(a)s %s' % {'a': 1} }}",
    "{{ '%*d|%-*d|%.*f' % (5, 1, 4, 2, 1, 2.55) }}", "{{ '%*d' % ('a', 1) }}",
    "{{ '%s' % (1, 2) }}", "{{ '%s %s' % 1 }}", "{{ 'a' % 1 }}",
    "{{ 'a' % [] }}{{ 'a' % {} }}{{ 'a' % u }}", "{{ '%5%|' % () }}",
    "{{ '%' % () }}", "{{ '%q' % 1 }}", "{{ '%ld' % 5 }}", "{{ '%y' % 1 }}",
    "{{ '%c%c%c' % (65, '가', 44032) }}", "{{ '%c' % 'ab' }}",
    "{{ ('%s'|safe) % '<' }}{{ ('%s %d'|safe) % ('&', 3) }}",
    "{{ '%s' % '<'|escape }}", "{{ ('<%s>'|escape) % {'a': '<'} }}",
    "{{ '{} {}'.format(1, '나') }}{{ '{1}{0}{1}'.format(1, 2) }}",
    "{{ '{a} {b[0]} {c.d}'.format(a=1, b=[2], c={'d': 3}) }}",
    "{{ '{0[x]} {0.x} {1[1]}'.format({'x': 5}, 'ab') }}",
    "{{ '{} {0}'.format(1) }}", "{{ '{0} {}'.format(1) }}",
    "{{ '{}'.format() }}", "{{ '{x}'.format() }}", "{{ '{{}}{{{}}}'.format(1) }}",
    "{{ '{'.format(1) }}", "{{ '}'.format(1) }}", "{{ '{!r:>5}'.format('가') }}",
    "{{ '{!s}{!r}{!a}'.format('나', '나', '나') }}", "{{ '{!x}'.format(1) }}",
    "{{ '{:{}}|{:{w}.{p}f}'.format('a', 5, 2.5, w=8, p=3) }}",
    "{{ ('<{}>'|safe).format('<') }}", "{{ '{}'.format('<'|safe) }}",
    "{{ '{:>4}'.format('<'|safe) }}", "{{ '{0.upper}'.format('a') }}",
    "{{ '{a}'.format_map({'a': '다'}) }}", "{{ '{:}'.format([1]) }}",
    "{{ '{[]}'.format([1]) }}", "{{ '{0[}'.format([1]) }}",
    "{{ '{ 0 }'.format(1) }}", "{{ '{0:}{1!s:}'.format(1, 2) }}",
    "{{ ('<'|safe ~ '&') + '<' }}", "{{ ['<'|safe] }}{{ ('<'|safe)|string }}",
    "{{ (('<'|safe)|upper) + '<' }}{{ (('a<'|safe)|trim) + '<' }}",
    "{{ (('<'|safe)|replace('<', '>')) + '<' }}", "{{ ('<'|safe)[0] + '<' }}",
    "{{ (('<'|safe) * 2) + '<' }}", "{{ ('a b'|safe).split() }}",
    "{{ ('a'|safe)|list + ['<'] }}{{ (['<'|safe]|join) + '<' }}",
    "{{ (('<'|safe)|first) + '<' }}{{ (('a<'|safe).title()) + '<' }}",
    "{{ ('a'|safe).join(['<', '&']) }}", "{{ 'a'.join(['<'|safe, '&']) + '<' }}",
    "{{ (('a<'|safe)|indent(2, true)) + '<' }}", "{{ '<'|e|e }}{{ '<'|forceescape }}",
    "{{ ('x'|safe).center(5, '<') }}{{ ('x<'|safe).ljust(4) + '<' }}",
    "{{ (('a<b'|safe).partition('<'))[2] + '<' }}",
    "{{ (('<'|safe)|title) + '<' }}{{ (('<b'|safe)|truncate(3)) + '<' }}",
    "{{ (('<'|safe)|reverse) + '<' }}{{ (('<'|safe)|default('')) + '<' }}",
    "{{ (('a'|safe)|center(5)) + '<' }}{{ (('<a>'|safe)|striptags) + '<' }}",
    "{{ (1|safe) + '<' }}{{ [1]|safe }}", "{{ 'a'|safe is escaped }}",
    "{{ big + 1 }}", "{{ big * 2 }}", "{{ -big }}", "{{ big // 2 }}",
    "{{ big }} {{ [big, huge] }} {{ big|string|length }} {{ {'a': big} }}",
    "{{ 99999999999999999999 }}{{ 9223372036854775807 }}", "{{ big|tojson }}",
    "{{ '9223372036854775808'|int }}{{ '-9223372036854775808'|int }}",
    "{{ 1e20|int }}{{ '1e20'|int }}{{ '99999999999999999999'|int }}",
    "{{ big|float }}{{ big|int }}{{ big == big }}{{ big > 1 }}{{ 1 < huge }}",
    "{{ big == 1.2345678901234568e29 }}{{ huge == -18446744073709551616.0 }}",
    "{{ 9007199254740993 == 9007199254740992.0 }}{{ 2**53 == 2.0**53 }}",
    "{{ [big, 1, huge, 2.5]|sort }}{{ [big, 1]|max }}{{ big in [1, big] }}",
    "{{ {big: 1}[big] }}{{ l is defined }}{{ [1, 2][big] is defined }}",
    "{{ 0.1 + 0.2 }} {{ 1e22 }} {{ 1e21 }} {{ 123456789.123456789 }} {{ 5e-324 "
    "}} {{ 1.7976931348623157e308 }} {{ 2.2250738585072014e-308 }} {{ 1e23 }}",
    "{{ 0.30000000000000004441 }} {{ 9007199254740993.0 }} {{ 1.0e0 }} {{ "
    "1.00000000000000011102230246251565 }} {{ 1e400 }}",
    "{{ 1.00000000000000011102230246251565404236316680908203125 }} {{ "
    "1.00000000000000011102230246251565404236316680908203126 }}",
    "{{ 'ab'|select('upper')|list }}{{ 'aB'|reject('upper')|list }}",
    "{{ {'b': 1, 'a': 2}|dictsort }}{{ {1: 1, 'a': 2}|dictsort }}",
    "{{ {1: 1, 'a': 2}|tojson(sort_keys=true) }}",
    "{{ {(1, 2): 3}|tojson }}", "{{ {none: 1, true: 2, 1.5: 3}|tojson }}",
    "{{ [1]|tojson(indent=2.5) }}", "{{ [1]|tojson(separators=(1, 2)) }}",
    "{{ {2: 1, 10: 2, 1.5: 3}|tojson(sort_keys=true) }}", "{{ [u]|tojson }}",
    "{{ 'a' is in 'abc' }}{{ 'upper' is filter }}{{ 'nosuch' is filter }}",
    "{{ 'odd' is test }}{{ 'nosuch' is test }}{{ 1 is filter }}",
    "{{ nest.users|map(attribute='tags.1.b.0')|list }}",
    "{{ [{'a': {'b': 1}}, {'a': {}}]|map(attribute='a.b', default=0)|list }}",
    "{{ [{}]|map(attribute='a.b')|list }}", "{{ (nest.users|groupby('age')) }}",
    "{% for g in nest.users|groupby('city') %}{{ g.grouper }}:{{ g.list|length "
    "}}{{ g[0] }}{{ g|length }}{% endfor %}",
    "{% for k, v in nest.users|groupby('city') %}{{ k }}{{ v|length }}"
    "{% endfor %}",
]
STRFTIME = ["%" + flag + kind for flag in ("", "-", "_", "0", "^", "#", "5")
            for kind in "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%fEO+Qv"] + [
    "오늘 %Y년 %-m월 %-d일 %H시", "", "100%", "%", "%%Y", "a%b%nc%t", "%-",
    "%  d", "% d", "%\\0"]


def calls():
    """The templates; each is one call."""
    for name, args in FILTERS.items():
        for a, value in itertools.product(args, VALUES):
            call = f"({a})" if a else ""
            # a generator has no text, but its items have
            yield f"{{{{ ({value})|{name}{call} }}}}"
            if name in ("batch", "items", "map", "reject", "rejectattr",
                        "reverse", "select", "selectattr", "slice", "unique"):
                yield f"{{{{ ({value})|{name}{call}|list }}}}"
    for name, args in TESTS.items():
        for a, value in itertools.product(args, VALUES):
            yield f"{{{{ ({value}) is {name}{f'({a})' if a else ''} }}}}"
    for methods, values in ((TEXT_METHODS, TEXTS), (LIST_METHODS, OTHERS),
                            (DICT_METHODS, OTHERS)):
        for name, args in methods.items():
            for a, value in itertools.product(args, values):
                yield f"{{{{ ({value}).{name}({a}) }}}}"
            yield from (f"{{{{ ({value}).{name} is defined }}}}"
                        for value in VALUES)
    yield from (f"{{{{ ({value}).{name} }}}}" for name in NUMBER_ATTRIBUTES
                for value in NUMBERS)
    yield from (f"{{{{ {a} }}}}" for a in VALUES)
    yield from (f"{{{{ [{a}] }}}}" for a in VALUES)
    yield from (f"{{{{ {{'k': {a}}}|tojson }}}}" for a in VALUES)
    yield from (f"{{{{ ({a}) {op} ({b}) }}}}" for a in VALUES for b in VALUES
                for op in ("==", "<"))
    yield from (f"{{{{ '[{p}]' % ({v},) }}}}" for i, v in enumerate(SAMPLES)
                for p in PERCENT[i % 2::2])
    yield from (f"{{{{ '[{{:{f}}}]'.format({v}) }}}}"   # all would be 270,000
                for i, v in enumerate(SAMPLES) for f in FORMATS[i::29])
    yield from GLOBALS
    yield from (f"{{{{ strftime_now('{f}') }}}}" for f in STRFTIME)


def letters(jump):
    """Texts of many code points, for what depends on the character."""
    cps = [cp for cp in range(0x20000) if not 0xD800 <= cp < 0xE000]
    for i in range(0, len(cps), jump):
        yield "".join(map(chr, cps[i:i + jump]))


LETTERS = [f"{{{{ t.{name}() }}}}" for name in (
    "lower upper title capitalize swapcase casefold").split()] + [
    "{{ t|title }}", "{{ [t] }}", "{{ t|tojson(true) }}", "{{ t|wordcount }}"]
EACH = ("{{% for c in t %}}{{{{ '1' if c.{0}() else '0' }}}}{{{{ '1' if ('a' + "
        "c + 'A').{0}() else '0' }}}}{{% endfor %}}")
EACHES = [EACH.format(name) for name in (
    "isalnum isalpha isascii isdecimal isdigit islower isnumeric isprintable "
    "isspace istitle isupper").split()] + [
    "{% for c in t %}{{ c|int(-1) }}{{ ('a' ~ c ~ 'b c').title() }}"
    "{{ ('a' ~ c ~ 'b').split() }}{% endfor %}"]


def assigned(text):
    """Without what Unicode has added since this Python was made."""
    import unicodedata
    return "".join(c for c in text if unicodedata.category(c) != "Cn")


ADDRESS = re.compile(b" at 0x[0-9a-f]+>", re.I)     # of an object in Python


def refusal(message):
    """The name of the built-in that says that it is not supported."""
    said = re.search(r"'([^']+)' is not supported|: (.*) has no text$|"
                     r"(an integer is too large)", message)
    return said and next(s for s in said.groups() if s)


def check(render, shown, reference, record, answers_of, step=1):
    """(passed, failed) of every step-th call."""
    cases = [(t, SWITCHES) for t in calls()]
    cases += [(t, {"t": assigned(text)}) for text in letters(64)
              for t in LETTERS + EACHES]
    cases = cases[::step]
    answers = answers_of(
        [render], [record(t, [], None, s, 0) for t, s in cases])
    same = errors = failed = 0
    refused, by_kind = {}, {}
    for template, switches in cases:
        want, got = reference(template, [], None, switches, 0), answers.next()
        said = refusal(str(got)) if isinstance(got, Exception) else None
        if isinstance(want, bytes) and want == got:
            same += 1
        elif isinstance(got, Exception) and (
                isinstance(want, Exception) or ADDRESS.search(want)):
            errors += 1
        elif said in REFUSED:
            refused[said] = refused.get(said, 0) + 1
        else:
            failed += 1
            kind = template.split("|")[-1] if "|" in template else template
            by_kind[kind] = by_kind.get(kind, 0) + 1
            if by_kind[kind] <= 1 and failed <= 40 * shown:
                print(f"FAILED {template}\n    want {want!r:.300}\n"
                      f"    got  {got!r:.300}")
    print(f"built-ins, {len(cases)} calls: {same} texts are the same, "
          f"{errors} errors are errors, {sum(refused.values())} are refused "
          f"by name ({', '.join(sorted(refused))})")
    return same + errors + sum(refused.values()), failed
