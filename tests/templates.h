/* templates.h - templates, and what jinja2 makes of them.
 *
 * The texts are those of jinja2 as transformers sets it up (check_templates.py
 * has the settings). What jinja2 refuses, and what it has and the library has
 * not, stands below with the reason.
 */
#ifndef KSLLM_TEMPLATES_H
#define KSLLM_TEMPLATES_H

/* What they see, besides what transformers defines. */
#define TEMPLATE_SWITCHES \
    "{\"n\": 3, \"f\": 0.1, \"s\": \"가나다 abc\", \"l\": [3, 1, 2], " \
    "\"d\": {\"b\": 1, \"A\": [1.0, null, true], \"items\": \"x\"}, " \
    "\"z\": null, \"q\": \"it's \\\"q\\\"\\n\", \"e\": []}"

static const struct {
    const char *text, *want;
} template_rows[] = {
    {"{{ d.keys()[0] }}|{{ d.keys().foo }}|{{ d.values() }}|{{ 'y' if range "
     "else 'n' }}|{{ 'y' if 0.0 else 'n' }}|{{ 'y' if -0.5 else 'n' }}|{{ "
     "'y' if 'nan'|float else 'n' }}",
     "||dict_values([1, [1.0, None, True], 'x'])|y|n|y|y"},
    {"{{ 'y' if e|select else 'n' }}|{{ 'y' if namespace() else 'n' }}|{{ "
     "'y' if range(0) else 'n' }}|{{ 'y' if {} else 'n' }}|{{ 'a\\x1cb "
     "\\x1fc\\x0ed'.split() }}|{{ 'ﾊ Ꙁ'|upper }}",
     "y|y|n|n|['a', 'b', 'c\\x0ed']|ﾊ Ꙁ"},
    {"{{ 'a\\u3000b'.title() }}|{{ '\\u3000A'.isupper() }}|{{ "
     "'가A1'.isupper() }}|{{ '1'.isupper() }}|{{ 'aB'.isupper() }}|{{ "
     "'1e'|float }}|{{ '1e+'|float }}|{{ '1e5x'|float }}|{{ '1e-999'|float }}",
     "A\343\200\200B|True|True|False|False|0.0|0.0|0.0|0.0"},
    {"{{ '0e5'|float }}|{{ '1e999'|float }}|{{ '-1e999'|float }}|{{ "
     "'1e99999999999'|float }}|{{ ('0.' ~ '1' * 800)|float }}|{{ ('0.' ~ '1' "
     "* 780 ~ '0' * 20)|float }}",
     "0.0|inf|-inf|inf|0.1111111111111111|0.1111111111111111"},
    {"{{ ('1.00000000000000011102230246251565404236316680908203125' ~ '0' * "
     "800 ~ '1')|float }}|{{ "
     "('1.00000000000000011102230246251565404236316680908203125' ~ '0' * "
     "800)|float }}",
     "1.0000000000000002|1.0"},
    {"{{ ('1' * 4301)|int }}|{{ ('1' * 4300)|int|string|length }}|{{ ('1' * "
     "4301)|int(7) }}|{{ 'nan'|float }}|{{ '-nan'|float }}|{{ '-inf'|float "
     "}}|{{ 'Infinity'|float }}|{{ 'infx'|float }}",
     "0|4300|7|nan|nan|-inf|inf|0.0"},
    {"{{ 'in'|float }}|{{ '+1.5'|float }}|{{ '-1.5'|float }}|{{ '.5'|float "
     "}}|{{ '5.'|float }}|{{ '.'|float }}|{{ ''|float }}|{{ '+'|int }}|{{ "
     "'-'|int }}|{{ '+5'|int }}|{{ '+0_0'|int }}",
     "0.0|1.5|-1.5|0.5|5.0|0.0|0.0|0|0|5|0"},
    {"{{ '_1'|int }}|{{ '1_'|int }}|{{ '1__0'|int }}|{{ 'é1'|int }}|{{ 0.001 "
     "}}|{{ 0.0001 }}|{{ 0.00001 }}|{{ 1.5 < 2 }}|{{ 2 > 1.5 }}|{{ 1.5 > 2.5 "
     "}}|{{ 2.5 > 1.5 }}|{{ 1.5 == 1.5 }}",
     "0|0|0|0|0.001|0.0001|1e-05|True|True|False|True|True"},
    {"{{ 'nan'|float == 1 }}|{{ 1 == 'nan'|float }}|{{ ('nan'|float) < 1.0 "
     "}}|{{ 1.0 < ('nan'|float) }}|{{ ('inf'|float) > 1 }}|{{ 1 > "
     "('-inf'|float) }}|{{ 1 < ('inf'|float) }}|{{ 1e300 > 1 }}",
     "False|False|False|False|True|True|True|True"},
    {"{{ 3 == 3.5 }}|{{ -3 > -3.5 }}|{{ 3 < 3.5 }}|{{ 4 > 3.5 }}|{{ -4 < "
     "-3.5 }}|{{ 18446744073709551616 > 1 }}|{{ 18446744073709551616 < 1 "
     "}}|{{ 1 < 18446744073709551616 }}",
     "False|True|True|True|True|True|False|True"},
    {"{{ 1 > '-99999999999999999999'|int }}|{{ '-99999999999999999999'|int < "
     "1 }}|{{ 18446744073709551616 < 18446744073709551617 }}|{{ "
     "18446744073709551616 < 184467440737095516170 }}",
     "True|True|True|True"},
    {"{{ 184467440737095516170 > 18446744073709551617 }}|{{ "
     "'-99999999999999999999'|int < 18446744073709551616 }}|{{ "
     "18446744073709551616 > '-99999999999999999999'|int }}",
     "True|True|True"},
    {"{{ '-99999999999999999999'|int > '-99999999999999999998'|int }}|{{ "
     "18446744073709551616 == 18446744073709551616 }}|{{ none == none }}|{{ "
     "u == v }}|{{ u == none }}|{{ range(3) == range(3) }}",
     "False|True|True|True|False|True"},
    {"{{ range(0) == range(3, 2) }}|{{ range(3) == range(4) }}|{{ range(1, "
     "2) == range(1, 9, 8) }}|{{ range(1, 9, 2) == range(1, 8, 2) }}|{{ "
     "range(1, 4, 1) == range(1, 7, 2) }}",
     "True|False|True|True|False"},
    {"{{ range(1, 3) == range(2, 4) }}|{{ range == range }}|{{ range == dict "
     "}}|{{ d.keys() == l }}|{{ l == d.keys() }}|{{ d.keys() == d.values() "
     "}}|{{ l|select == l|select }}|{{ [l] == [l] }}",
     "False|True|False|False|False|False|False|True"},
    {"{{ [l, 1] == [l, 2] }}|{{ (1, 2) == (1, 2) }}|{{ [1] == (1,) }}|{{ "
     "{'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}|{{ {'a': 1} == {'b': 1} }}|{{ "
     "{'a': 1} == {'a': 2} }}",
     "False|True|False|True|False|False"},
    {"{{ {'a': 1} == {'a': 1, 'b': 2} }}|{{ 1 == '1' }}|{{ (1, (2, 'b')) in "
     "d }}|{{ d.values() in d }}|{{ (l|select) in d }}|{{ {(1, 2): 3}[(1, "
     "2)] }}|{{ [1, 2] < [1, 3] }}|{{ [1, 2] < [1] }}",
     "False|False|False|False|False|3|True|False"},
    {"{{ [1] < [1, 2] }}|{{ (1,) < (1, 2) }}|{{ ['a', 'A', 'B', 'b']|sort "
     "}}|{{ ['b', 'A', 'a', 'B']|sort(case_sensitive=true) }}|{{ "
     "['\\x7f\\u3000\\xa0\\u200b\\U000e0001\\x00가'] }}|{{ [\"it's\"] }}",
     "True|True|['a', 'A', 'B', 'b']|['A', 'B', 'a', "
     "'b']|['\\x7f\\u3000\\xa0\\u200b\\U000e0001\\x00가']|[\"it's\"]"},
    {"{{ ['\"', \"'\\\"\"] }}|{{ range(5, 0, -2) }}|{{ range(1, 5) }}|{{ "
     "['nan'|float, 'inf'|float, '-inf'|float] }}|{{ ['nan'|float, "
     "'inf'|float, '-inf'|float]|tojson }}",
     "['\"', '\\'\"']|range(5, 0, -2)|range(1, 5)|[nan, inf, -inf]|[NaN, "
     "Infinity, -Infinity]"},
    {"{{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}|{{ {(1, 2): {(): 3}} "
     "}}|{{ (1, (2,), ())|tojson }}|{{ namespace(a=1) }}|{{ [namespace(a=1)] "
     "}}|{{ [u] }}|{{ ['<'|safe]|tojson }}",
     "{\"1\": 4, \"null\": 3, \"1.5\": 5}|{(1, 2): {(): 3}}|[1, [2], "
     "[]]|<Namespace {'a': 1}>|[<Namespace {'a': 1}>]|[Undefined]|[\"<\"]"},
    {"{{ '\\u0041\\x42\\U0001F600\\\n\\a\\b\\f\\n\\r\\t\\v\\\"\\'\\\\\\q' "
     "}}|{{ 1e+5 }}|{{ 1e-2 }}|{{ 1E5 }}|{{ 1_0.5 }}|{{ '\\x00<'|e }}|{{ '<' "
     "+ ('<'|safe) }}|{{ ('<'|safe) + ('<'|safe) }}|{{ 2 * 'ab' }}",
     "AB😀\007\010\014\n"
     "\r\011\013\"'\\\\q|100000.0|0.01|100000.0|10.5|\000&lt;|&lt;<|<<|abab"},
    {"{{ 2 * [1] }}|{{ (1,) * 2 }}|{{ true * 'a' }}|{{ 'a' * true }}|{{ 'a' "
     "* -1 }}|{{ '' * 3 }}|{{ [] * 3 }}|{{ (1,) + (2,) }}|{{ 0 / 5 }}|{{ 7 "
     "// -1 }}|{{ 7 % -1 }}|{{ 7 // -2 }}|{{ -7 // -2 }}",
     "[1, 1]|(1, 1)|a|a|||[]|(1, 2)|0.0|-7|0|-4|3"},
    {"{{ -7 % 3 }}|{{ 6 // 3 }}|{{ 1.5 - 1 }}|{{ 1.5 + 1 }}|{{ 1.5 * 2 }}|{{ "
     "1 / ('nan'|float) }}|{{ 1 / ('inf'|float) }}|{{ -1 / 2 }}|{{ '%d' % "
     "18446744073709551616 }}",
     "2|2|0.5|2.5|3.0|nan|0.0|-0.5|18446744073709551616"},
    {"{{ '%s' % 18446744073709551616 }}|{{ '%f' % 1.5 }}|{{ '%.0f' % 2.5 "
     "}}|{{ '%-05d|' % 7 }}|{{ '%05d' % -7 }}|{{ '%5d|%-5s|' % (7, '가') "
     "}}|{{ '%d' % true }}|{{ '%s%%' % none }}|{{ 'x' % d }}",
     "18446744073709551616|1.500000|2|7    ||-0007|    7|가    ||1|None%|x"},
    {"{{ 'x' % u }}|{{ 'x' % range(2) }}|{{ 'x' % l }}|{{ 'x' % () }}|{{ "
     "('%s %s'|safe) % ('<', '<'|safe) }}|{{ ('%d'|safe) % 1 }}|{{ "
     "('%s'|safe) % 5 }}|{{ 1 in l|select }}|{{ 3 in (1, 2) }}",
     "x|x|x|x|&lt; <|1|5|True|False"},
    {"{{ u in l }}|{{ 1 in u }}|{{ 'b' in d.keys() }}|{{ [1] in d.values() "
     "}}|{{ (1,) in d.items() }}|{{ ('b', 1) in d.items() }}|{{ 2 in "
     "range(3) }}|{{ 5 not in range(3) }}|{{ d in [d] }}",
     "False|False|True|False|False|True|True|True|True"},
    {"{{ 1 <= 1 }}|{{ 2 <= 1 }}|{{ 1 >= 2 }}|{{ 2 >= 2 }}|{{ 3 >= 2 }}|{{ "
     "l[-9] }}|{{ l[9] }}|{{ s[-9] }}|{{ s[9] }}|{{ l[-9:2] }}|{{ l[2:1] "
     "}}|{{ l[1:9] }}|{{ l[9:] }}|{{ l[:-9] }}|{{ s[5:2] }}",
     "True|False|False|True|True|||||[3, 1]|[]|[1, 2]|[]|[]|"},
    {"{{ s[::-2] }}|{{ l[::-1] }}|{{ l[-1:0:-1] }}|{{ l[5:-9:-1] }}|{{ (1, "
     "2, 3)[1:] }}|{{ ('<a>'|safe)[1:2] }}|{{ l[none:2] }}|{{ l[1.5] }}|{{ "
     "n[0] }}|{{ d[[1]] }}|{{ (l|select).append }}",
     "ca다가|[2, 1, 3]|[2, 1]|[2, 1, 3]|(2, 3)|a|[3, 1]||||"},
    {"{{ l.append }}|{{ d.update }}|{{ d.pop is defined }}|{{ l.nosuch }}|{{ "
     "(1, 2).append }}|{{ (1, 2).nosuch }}|{{ 'a'|replace(old='a', new='x') "
     "}}|{{ 'xax'|trim(chars='x') }}",
     "||False||||x|a"},
    {"{{ 'xax'|trim(none) }}|{{ 'xax'.lstrip('x') ~ 'xax'.rstrip('x') }}|{{ "
     "'가나가'.strip('나가') }}|{{ u|length }}|{{ range(3)|length }}|{{ "
     "d|length }}|{{ d.keys()|length }}|{{ (1, 2)|length }}",
     "xax|axxa||0|3|3|3|2"},
    {"{{ 'a\\x00b (c d[e é{f g<h i-j k'|title }}|{{ '가b 1c'|title }}|{{ 'ab "
     "cd'.title() }}|{{ 'a1b'.title() }}|{{ 'ab\\'c'.title() }}|{{ -2.5|abs "
     "}}|{{ (-2.5)|abs }}|{{ (-0.0)|abs }}|{{ 2.5|abs }}",
     "A\000b (C D[E É{F G<H I-J K|가b 1c|Ab Cd|A1B|Ab'C|2.5|2.5|0.0|2.5"},
    {"{{ 0.0|abs }}|{{ (-5)|abs }}|{{ true|abs }}|{{ "
     "18446744073709551616|abs }}|{{ '7'|int(0, 10) }}|{{ '-inf'|int(3) "
     "}}|{{ 'nan'|int(3) }}|{{ none|int(4) }}|{{ []|int(4) }}",
     "0.0|5|1|18446744073709551616|7|3|3|4|4"},
    {"{{ 18446744073709551616|int }}|{{ ('nan'|float)|int(3) }}|{{ 2.9|int "
     "}}|{{ '2.9'|int }}|{{ '-2.9'|int }}|{{ true|int }}|{{ "
     "'18446744073709551616'|float }}|{{ none|float }}",
     "18446744073709551616|3|2|2|-2|1|1.8446744073709552e+19|0.0"},
    {"{{ none|float(2) }}|{{ []|float('x') }}|{{ true|float }}|{{ 3|float "
     "}}|{{ 'x'|float(1) }}|{{ 2.5|round(0, 'common') }}|{{ 2.5|round(22) "
     "}}|{{ ('inf'|float)|round }}",
     "2|x|1.0|3.0|1|2.0|2.5|inf"},
    {"{{ ('-inf'|float)|round }}|{{ ('nan'|float)|round }}|{{ "
     "9007199254740993|round(0, 'ceil') }}|{{ (-0.4)|round(0, 'ceil') }}|{{ "
     "0.4|round(0, 'floor') }}|{{ -1.5|round(1, 'ceil') }}",
     "-inf|nan|9007199254740992.0|0.0|0.0|-1.5"},
    {"{{ (-2.5)|round }}|{{ 7|round(2) }}|{{ 7|round(0, 'floor') }}|{{ "
     "l|last }}|{{ e|last }}|{{ (l|select)|first }}|{{ ([1]|select)|first "
     "}}|{{ e|first }}|{{ (e|select)|first }}",
     "-2.0|7|7.0|2||3|1||"},
    {"{{ '가나'|first ~ '가나'|last }}|{{ d|first }}|{{ d|items|list }}|{{ "
     "u|items|list }}|{{ d.get('b') }}|{{ d.get('x') }}|{{ d.get('x', 2) "
     "}}|{{ d.get('b', none) }}|{{ (l|select)|reverse }}",
     "가나|b|[('b', 1), ('A', [1.0, None, True]), ('items', "
     "'x')]|[]|1|None|2|1|[2, 1, 3]"},
    {"{{ l|reverse|list }}|{{ '가나'|reverse }}|{{ d|reverse|list }}|{{ "
     "('<a'|safe).replace('a', '>') }}|{{ ('<a'|safe).replace('a', '>'|safe) "
     "}}|{{ '가나'.replace('', '-') }}",
     "[2, 1, 3]|나가|['items', 'A', 'b']|<&gt;|<>|-가-나-"},
    {"{{ '가나'.replace('', '-', 1) }}|{{ 'abab'.replace('a', 'x', 1) }}|{{ "
     "'abab'|replace('a', 'x', 1) }}|{{ 'abab'|replace('a', 'x', none) }}|{{ "
     "'abab'|replace('z', 'x') }}",
     "-가나|xbab|xbab|xbxb|abab"},
    {"{{ 1121|replace(1, 3) }}|{{ 'a\\rb\\r\\nc\\r'.splitlines() }}|{{ "
     "'a\\x1cb\\x1dc\\x1ed\\x85e\\u2028f\\u2029g\\vh\\fi'.splitlines() }}|{{ "
     "'a\\nb\\r\\nc'.splitlines(true) }}",
     "3323|['a', 'b', 'c']|['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', "
     "'i']|['a\\n', 'b\\r\\n', 'c']"},
    {"{{ 'a\\nb\\r\\nc'.splitlines(keepends=1) }}|{{ ''.splitlines() }}|{{ "
     "'a\\n\\nb'|indent('> ') }}|{{ 'a\\n\\nb'|indent(2, true, true) }}|{{ "
     "'a\\n\\nb'|indent(blank=true) }}",
     "['a\\n', 'b\\r\\n', 'c']|[]|a\n\n> b|  a\n  \n  b|a\n    \n    b"},
    {"{{ '\\na'|indent(1, first=true) }}|{{ ''|indent(1, first=true) }}|{{ "
     "'a\\r\\nb'|indent(1) }}|{{ ('<a>\\n<b>'|safe)|indent(1) }}|{{ [1, "
     "2]|sum(attribute=none) }}",
     " \n a| |a\n b|<a>\n <b>|3"},
    {"{{ [[1, 2], [3, 4]]|map(attribute=0)|list }}|{{ [[1, 2], [3, "
     "4]]|map(attribute='1')|list }}|{{ [d]|map(attribute='A.2')|list }}|{{ "
     "[d]|map(attribute='nosuch')|list }}",
     "[1, 3]|[2, 4]|[True]|[Undefined]"},
    {"{{ [d]|map(attribute='nosuch', default=none)|list }}|{{ "
     "[d]|map(attribute='nosuch', default=0)|list }}|{{ "
     "[d]|map(attribute='')|list }}|{{ l|join(', ') }}|{{ [d, d]|join('-', "
     "'b') }}",
     "[Undefined]|[0]|[Undefined]|3, 1, 2|1-1"},
    {"{{ [d, d]|join('-', attribute='b') }}|{{ ['<'|safe, '<']|join }}|{{ "
     "l|join(none) }}|{{ {'B': 2, 'a': 1, 'b': 3}|dictsort }}|{{ {'B': 2, "
     "'a': 1}|dictsort(true) }}",
     "1-1|<<|3None1None2|[('a', 1), ('B', 2), ('b', 3)]|[('B', 2), ('a', 1)]"},
    {"{{ {'b': 1, 'a': 2}|dictsort(by='value') }}|{{ {'b': 1, 'a': "
     "2}|dictsort(by='key') }}|{{ {'b': 1, 'a': 2}|dictsort(false, 'key', "
     "true) }}|{{ l|max }}|{{ e|max }}|{{ e|min }}",
     "[('b', 1), ('a', 2)]|[('a', 2), ('b', 1)]|[('b', 1), ('a', 2)]|3||"},
    {"{{ ['b', 'A']|min }}|{{ ['b', 'A']|max(case_sensitive=true) }}|{{ "
     "['b', 'A']|min(case_sensitive=true) }}|{{ [1, 'a', 'A', 1]|unique|list "
     "}}|{{ ['a', 'A']|unique(true)|list }}",
     "A|b|A|[1, 'a']|['a', 'A']"},
    {"{{ [[1], [2]]|sum(start=[]) }}|{{ [1.5, 2]|sum }}|{{ e|map|list }}|{{ "
     "0|map|list }}|{{ ['a']|map('upper')|list }}|{{ ['ab']|map('replace', "
     "'a', 'c')|list }}",
     "[1, 2]|3.5|[]|[]|['A']|['cb']"},
    {"{{ ['1']|map('int', default=3)|list }}|{{ e|selectattr|list }}|{{ "
     "l|select('gt', 1)|list }}|{{ l|reject|list }}|{{ [d, "
     "{}]|selectattr('b')|list }}|{{ [d, {}]|rejectattr('b')|list }}",
     "[1]|[]|[3, 2]|[]|[{'b': 1, 'A': [1.0, None, True], 'items': 'x'}]|[{}]"},
    {"{{ [d, {'b': 0}]|selectattr('b', 'eq', 1)|list|length }}|{{ "
     "d|tojson(indent='..') }}|{{ d|tojson(indent=0) }}|{{ "
     "l|tojson(indent=none) }}|{{ l|tojson(separators=none) }}",
     "1|{\n..\"b\": 1,\n..\"A\": [\n....1.0,\n....null,\n....true\n..],\n"
     "..\"items\": \"x\"\n}|{\n\"b\": 1,\n\"A\": [\n1.0,\nnull,\ntrue\n],\n"
     "\"items\": \"x\"\n}|[3, 1, 2]|[3, 1, 2]"},
    {"{{ l|tojson(separators='ab') }}|{{ l|tojson(indent='x', "
     "separators=(';', ':')) }}|{{ l|tojson(true, 'a') }}|{{ d|attr('b') "
     "}}|{{ d|attr('nosuch') }}|{{ n|attr('nosuch') }}",
     "[3a1a2]|[\nx3;\nx1;\nx2\n]|[\na3,\na1,\na2\n]|||"},
    {"{{ s|attr('upper')() }}|{{ d|attr('keys')() }}|{{ d|attr('update') "
     "}}|{{ '{x}'.format(x=1) }}|{{ '{가}'.format(가=2) }}|{{ "
     "('{}{}'|safe).format('<', 5) }}|{{ 'a'.find('a', none) }}",
     "가나다 ABC|dict_keys(['b', 'A', 'items'])||1|2|&lt;5|0"},
    {"{{ 'abab'.rfind('') }}|{{ 'abab'.rfind('abc') }}|{{ ('b' ~ 'a' * "
     "200).rfind('b') }}|{{ ('가' * 100 ~ 'b').find('b') }}|{{ ('ab' * "
     "100).rfind('ab' * 40) }}|{{ 'a'.rfind('abc') }}",
     "4|-1|0|100|120|-1"},
    {"{{ 'ab'.index('b') }}|{{ 'ab'.rindex('a') }}|{{ '가나'.count('') }}|{{ "
     "'aaa'.count('aa') }}|{{ 'a'.startswith('abc') }}|{{ "
     "'abc'.endswith('bc') }}|{{ 'abc'.endswith(('x', 'bc')) }}",
     "1|0|3|1|False|True|True"},
    {"{{ 'abc'.startswith(()) }}|{{ 'a'.endswith('') }}|{{ "
     "'abc'.removesuffix('c') }}|{{ 'abc'.removesuffix('x') }}|{{ "
     "'abc'.removeprefix('x') }}|{{ ','.join(['a', 'b']) }}|{{ "
     "','.join('abc') }}",
     "False|True|ab|abc|abc|a,b|a,b,c"},
    {"{{ (','|safe).join([1, '<']) }}|{{ '가 나  다'.rsplit(none, 1) }}|{{ "
     "'가\\u3000나\\u3000'.rsplit(none, 1) }}|{{ ' a b '.rsplit() }}|{{ 'a "
     "b'.rsplit(none, 0) }}|{{ ' a b '.split(none, 0) }}",
     "1,&lt;|['가 나', '다']|['가', '나']|['a', 'b']|['a b']|['a b ']"},
    {"{{ ' a b '.split(none, 1) }}|{{ '   '.split() }}|{{ ''.split() }}|{{ "
     "''.split(',') }}|{{ 'a,b'.split(',', 0) }}|{{ 'a b c'.rsplit(none, 5) "
     "}}|{{ 'a,b,c'.rsplit(',') }}",
     "['a', 'b ']|[]|[]|['']|['a,b']|['a', 'b', 'c']|['a', 'b', 'c']"},
    {"{{ 'abc'.partition('b') }}|{{ 'abc'.partition('x') }}|{{ "
     "'abc'.rpartition('x') }}|{{ 'ab1'.isalnum() }}|{{ 'ab-'.isalnum() "
     "}}|{{ 'aÀ가'.isalpha() }}|{{ 'aé'.isalpha() }}|{{ 'a1'.isalpha() }}",
     "('a', 'b', 'c')|('abc', '', '')|('', '', "
     "'abc')|True|False|True|True|False"},
    {"{{ '1a'.isdigit() }}|{{ '12'.isdigit() }}|{{ ''.isspace() }}|{{ ' "
     "a'.isspace() }}|{{ 'aB1'.islower() }}|{{ 'ab'.islower() }}|{{ "
     "'12'.islower() }}|{{ 5 is lower }}|{{ l.count(3) }}",
     "False|True|False|False|False|True|False|False|1"},
    {"{{ none is sameas none }}|{{ true is sameas true }}|{{ true is sameas "
     "false }}|{{ 1 is sameas 2 }}|{{ 'a' is sameas 1 }}|{{ u is sameas u "
     "}}|{{ 1 is filter }}|{{ 'd' is filter }}",
     "True|True|False|False|False|False|False|True"},
    {"{{ 'no' is test }}|{{ d.keys() is sequence }}|{{ d.keys() is iterable "
     "}}|{{ l|select is sequence }}|{{ true is true }}|{{ 1 is true }}|{{ "
     "false is false }}|{{ 1 is escaped }}",
     "False|False|True|False|True|False|True|False"},
    {"{{ 'a' is escaped }}|{{ 7 is divisibleby 2 }}|{{ range(5, 1) }}|{{ "
     "range(3, 0, -1)|list }}|{{ range(true)|list }}|{{ dict(d) }}|{{ "
     "dict(d, x=1) }}|{{ dict([(1, 2), [3, 4]]) }}",
     "False|False|range(5, 1)|[3, 2, 1]|[0]|{'b': 1, 'A': [1.0, None, True], "
     "'items': 'x'}|{'b': 1, 'A': [1.0, None, True], 'items': 'x', 'x': "
     "1}|{1: 2, 3: 4}"},
    {"{{ dict(['ab']) }}|{{ namespace({'': 1}) }}|{{ namespace({1: 2}) }}|{{ "
     "namespace(d) }}|{{ strftime_now('%p %%') }}|{{ 1, 2, }}|{{ (1, 2,) "
     "}}|{{ (1) }}|{{ () }}|{{ [1, 2,] }}|{{ {'a': 1,} }}",
     "{'a': 'b'}|<Namespace {'': 1}>|<Namespace {1: 2}>|<Namespace {'b': 1, "
     "'A': [1.0, None, True], 'items': 'x'}>|AM %|(1, 2)|(1, 2)|1|()|[1, "
     "2]|{'a': 1}"},
    {"{{ dict(a=1,) }}|{{ +5 }}|{{ +1.5 }}|{{ -1.5 }}|{{ - - 5 }}|{{ "
     "+18446744073709551616 }}|{{ +true }}|{{ d is eq {} }}|{{ l is eq [3, "
     "1, 2] }}|{{ l is eq (1) }}|{{ n is defined and n }}",
     "{'a': 1}|5|1.5|-1.5|5|18446744073709551616|1|False|True|False|3"},
    {"{{ n is defined or u }}|{{ 1 if u is defined else 2 }}|{{ n is not "
     "defined }}|{{ n is odd == true }}|{{ s|upper|lower }}|{{ "
     "s|upper()|lower() }}|{{ (s|upper)[0] }}",
     "True|2|False|True|가나다 abc|가나다 abc|가"},
    {"{{ d|attr('keys')()|list }}|{{ l[::2] }}|{{ l.1 }}|{{ "
     "l.99999999999999999999 }}|{{ l.1.5 }}|{{ d['b']['c'] }}|{{ d.b.nosuch "
     "}}|{{ 1 if 1 }}|{{ 1 if 0 }}|{{ 'a' 'b' ~ 'c' }}|{{ l[0] if l }}",
     "['b', 'A', 'items']|[3, 2]|1|||||1||abc|3"},
    {"{{ not not n }}|{{ not n == 3 }}|{{ not n in l }}|{{ 1 not in l }}|{{ "
     "1 < 2 <= 2 < 1 }}|{{ 1 == 1.0 == true }}|{{ 2 < 1 < u.x }}|{{ 1 and 2 "
     "or 3 }}|{{ 0 or 0 and u.x }}",
     "True|False|False|False|False|True|False|2|0"},
    {"{{ s ~ n ~ u ~ none }}|{{ 1 ~ 2 * 3 }}|{{ 2 * 3 // 4 % 5 }}|{{ "
     "'→ⅷ'|upper ~ '→'|lower }}|{{ 'a\\xa0b'.title() }}|{{ "
     "18446744073709551616 < '-99999999999999999999'|int }}",
     "가나다 abc3None|16|1|→Ⅷ→|A\302\240B|False"},
    {"{{ 184467440737095516170 < 18446744073709551617 }}|{{ 1 / -2.0 }}|{{ 1 "
     "!= 2 }}|{{ 1 <= 2 }}|{{ '1_x'|int }}|{{ '+'|float }}|{{ '-'|float "
     "}}|{{ ('<'|safe)|e }}|{{ true is false }}",
     "False|-0.5|True|True|0|0.0|0.0|<|False"},
    {"{{ false is true }}|{{ n is odd ~ 'x' }}", "False|Truex"},
    {"{% set a = 'x' * 600 %}{% set b = a ~ 'y' %}{% set c = b ~ '1' %}{% "
     "set k = b ~ '2' %}{{ c[-2:] }}{{ k[-2:] }}{{ (c ~ 'z')[-3:] }}{{ "
     "b|length }}",
     "y1y2y1z601"},
    {"{% set a = [1] %}{% set b = a + [2] %}{% set c = b + [3] %}{% set k = "
     "b + [4] %}{{ a }}{{ b }}{{ c }}{{ k }}{{ (c + [5]) }}",
     "[1][1, 2][1, 2, 3][1, 2, 4][1, 2, 3, 5]"},
    {"{% set g = l|select %}{{ g|list }}{{ g|list }}{{ 1 in g }}",
     "[3, 1, 2][]False"},
    {"{% set g = [1]|select %}{{ g|first }}{{ g|list }}", "1[]"},
    {"{% for x in l|select %}{{ x }}{{ loop.last }}{% endfor %}",
     "3False1False2True"},
    {"{% for x in l %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex "
     "}}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.first "
     "}}{{ loop.index0 }}{{ loop.nosuch }};{% endfor %}",
     "13210True0;322110False1;11010False2;"},
    {"{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is "
     "defined }}{{ loop|length }}{{ loop.cycle('a', 'b') }}{{ "
     "loop.changed(x) }}{% endfor %}",
     "FalseTrue3aTrueTrueTrue3bTrueTrueFalse3aTrue"},
    {"{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.changed() }}{% "
     "endfor %}",
     "TrueTrueTrueTrueTrueTrue"},
    {"{% for x in l %}{{ loop.changed(x, x) }}{% endfor %}",
     "TrueTrueTrue"},
    {"{% for x in l %}{{ loop is iterable }}{{ loop is callable }}{{ 'y' if "
     "loop }}{% endfor %}",
     "TrueTrueyTrueTrueyTrueTruey"},
    {"{% set ns = namespace() %}{% for x in l %}{% set ns.loop = loop %}{% "
     "endfor %}{{ ns.loop.index }}",
     "3"},
    {"{% set ns = namespace(f=none) %}{% for x in l %}{% if loop.first %}{% "
     "set ns.f = loop %}{% endif %}{% endfor %}{% for y in l %}{{ ns.f.index "
     "}}{{ ns.f.length }}{% endfor %}",
     "333333"},
    {"{% set ns = namespace(a=1) %}{% set ns.b = ns %}{{ ns.b.b.a }}{{ "
     "ns.nosuch }}",
     "1"},
    {"{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b "
     "}}",
     "12"},
    {"{% if n %}{% set loop = 1 %}{{ loop }}{% endif %}", "1"},
    {"{% set 변수 = 1 %}{% set É1é = 2 %}{% set xé１ = 3 %}{{ 변수 }}{{ É1é "
     "}}{{ xé１ }}",
     "123"},
    {"{% set a = 1, %}{{ a }}{% set b = 1, 2 %}{{ b }}{% set (c, k) = b %}{{ "
     "c }}{{ k }}",
     "(1,)(1, 2)12"},
    {"{% set (a, (b, c)), k = [1, [2, 3]], 4 %}{{ a }}{{ b }}{{ c }}{{ k }}",
     "1234"},
    {"{% set a, b = 'xy' %}{{ b }}{{ a }}", "yx"},
    {"{% for k, v in {'ab': 1} %}{{ k }}{{ v }}{% endfor %}", "ab"},
    {"{% for x in 'a각' %}{{ x }};{% endfor %}", "a;각;"},
    {"{% for x in (1, 2) %}{{ x }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% "
     "endfor %}",
     "1212"},
    {"{% for x in u %}{{ x }}{% else %}E{% endfor %}", "E"},
    {"{% for x in range(3) if x %}{{ x }}{{ loop.length }}{% endfor %}",
     "1222"},
    {"{% for x in l if x > 5 %}{{ x }}{% else %}{{ x is defined }}{% endfor "
     "%}",
     "False"},
    {"{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif "
     "%}{{ y }}{% endfor %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% "
     "endfor %}",
     "33332"},
    {"{% for x in l %}{% with a = x %}{% if a == 1 %}{% break %}{% endif "
     "%}{{ a }}{% endwith %}{% endfor %}",
     "3"},
    {"{% for x in l %}{% with a = x %}{% with b = a %}{% if b == 1 %}{% "
     "continue %}{% endif %}{{ b }}{% endwith %}{% endwith %}{% endfor %}",
     "32"},
    {"{% for y in l %}{% for x in e %}{% else %}{% break %}{% endfor %}{{ y "
     "}}{% endfor %}",
     ""},
    {"{% if 0 %}a{% elif n %}{{ n }}{% else %}c{% endif %}", "3"},
    {"{% if n %}a{% elif u.x %}b{% elif u.y %}c{% else %}d{% endif %}",
     "a"},
    {"{% if 0 %}a{% elif 0 %}b{% elif 1 %}c{% endif %}", "c"},
    {"{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}", "c"},
    {"{% if 0 %}a{% elif 0 %}b{% endif %}", ""},
    {"{% if 0, %}a{% endif %}{% if () %}b{% endif %}", "a"},
    {"{% if 1 %}{% elif 1 %}{{ n|nosuch }}{% else %}{{ n|nosuch }}{% endif %}",
     ""},
    {"{% if 1 %}a{% else %}{{ n is nosuch }}{% endif %}", "a"},
    {"{{ n if 1 else n|nosuch }}", "3"},
    {"{{ n|nosuch if 0 else n }}", "3"},
    {"{% if 0 %}{{ n|a.b.c }}{% endif %}x", "x"},
    {"{{ ['a'] is eq ['a'] }}{{ n is eq n and n }}{{ d is in [d] }}",
     "True3True"},
    {"{{ n is in l is defined }}", "True"},
    {"{{ u is defined and u.x or n is defined }}", "True"},
    {"{{ 1 if u is defined else 3 }}", "3"},
    {"{% set x|upper %}a{{ n }}b{% endset %}{{ x }}", "A3B"},
    {"{% set x | upper | lower %}aB{% endset %}{{ x }}", "ab"},
    {"{% set ns = namespace() %}{% set ns.x %}a{% endset %}{{ ns.x }}",
     "a"},
    {"{% set x %}{% set y %}in{% endset %}{{ y }}{% endset %}{{ x }}{{ y is "
     "defined }}",
     "inFalse"},
    {"{% filter upper|lower %}Ab{% endfilter %}", "ab"},
    {"{% filter replace('a', 'b') %}aab{% endfilter %}", "bbb"},
    {"{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a is defined }}",
     "1False"},
    {"{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}", "1"},
    {"{% set a = 9 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a "
     "}}",
     "199"},
    {"{% with (a, b) = (1, 2) %}{{ a }}{{ b }}{% endwith %}", "12"},
    {"{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, "
     "**{'b': 2}) }}{{ m(*[1], b=3) }}{{ m(**{'a': 4}) }}",
     "11121344"},
    {"{% macro m() %}<{% endmacro %}{{ m() }}{{ m()|e }}{{ m() ~ '>' }}{{ m "
     "is callable }}{{ m == m }}",
     "<&lt;<>TrueTrue"},
    {"{% macro m(x) %}{% if x %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro "
     "%}{{ m(5) }}",
     "54321"},
    {"{% macro m(x) %}{% for y in l %}{% if y == x %}{{ y }}{% endif %}{% "
     "endfor %}{% endmacro %}{{ m(1) }}{{ m(2) }}",
     "12"},
    {"{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor "
     "%}",
     "312"},
    {"{% with a = 1 %}{% macro m() %}{{ a }}{% endmacro %}{% set ns = "
     "namespace(m=m) %}{{ m() }}{% endwith %}",
     "1"},
    {"{% macro a() %}{% macro b() %}B{% endmacro %}{{ b() }}{% endmacro %}{{ "
     "a() }}{{ b is defined }}",
     "BFalse"},
    {"{% macro m(f) %}{{ f() }}{% endmacro %}{% macro g() %}G{% endmacro "
     "%}{{ m(g) }}",
     "G"},
    {"{{ (range)(2)|list }}{{ [range][0](2)|list }}", "[0, 1][0, 1]"},
    {"{% set f = s.upper %}{{ f() }}{{ f is callable }}{{ f == f }}",
     "가나다 ABCTrueTrue"},
    {"{% set f = dict %}{{ f(a=1) }}", "{'a': 1}"},
    {"{% if n: %}a{% endif %}", "a"},
    {"{% if n: %}a{% elif z: %}b{% else: %}c{% endif %}{% for x in l: %}{{ x "
     "}}{% endfor %}",
     "a312"},
    {"{% for x in l if x if x > 1 else 0 %}{{ x }}{% endfor %}", "32"},
    {"{% raw -%}  a {{ b }} {%- endraw %} c", "a {{ b }} c"},
    {"  {%- raw %} {% x %} {% endraw -%}  c", " {% x %} c"},
    {"{%+ raw %}x{% y %}{%+ endraw +%}z", "x{% y %}z"},
    {"{%raw%}{%endraw%}", ""},
    {"a{#c#}b {#- c -#} d {# c +#} ", "abd  "},
    {"  {#+ c #}x{##}y{#-#}z {#--#} w", "  xyzw"},
    {"a {# c -#}  b", "a b"},
    {"{", "{"},
    {"a{b{", "a{b{"},
    {"{{ '{' }}{}", "{{}"},
    {"{{ {1: 2} }}{{ {'a': {'b': 1}}['a']['b'] }}", "{1: 2}1"},
    {"{{ 1 }}}", "1}"},
    {"{{- 1 -}}  x {{- 2 }} {{ 3 -}} y", "1x2 3y"},
    {"  {%- set a = 1 +%} x", " x"},
    {"  {%+ set a = 1 -%} x", "  x"},
    {"{{ if }}", ""},
    {"{{ 00 }}", "0"},
    {"{{ 0 }}{{ 0.5 }}{{ 0e1 }}", "00.50.0"},
    {"{{ 1.5.x }}{{ 1.x }}", ""},
    {"{{ \"it's\" }}{{ 'say \"x\"' }}", "it'ssay \"x\""},
    {"{{ d['b'] }}{{ d[\"A\"][0] }}{{ d['nosuch'] }}{{ d['nosuch'] is "
     "defined }}",
     "11.0False"},
    {"{{ d['items'] }}{{ d.items()|list }}",
     "x[('b', 1), ('A', [1.0, None, True]), ('items', 'x')]"},
    {"{{ ['a']|map('replace', 'a', new='b')|list }}", "['b']"},
    {"{{ [['b', 1], ['a', 2]]|map('first')|sort|join }}", "ab"},
    {"{{ [[3], [1]]|map('first')|list|tojson }}", "[3, 1]"},
    {"{{ l|map(attribute=none)|list }}", "[3, 1, 2]"},
    {"{{ [d, d]|sort }}",
     "[{'b': 1, 'A': [1.0, None, True], 'items': 'x'}, {'b': 1, 'A': [1.0, "
     "None, True], 'items': 'x'}]"},
    {"{{ [d, d]|sort(attribute='b')|length }}", "2"},
    {"{{ d|sort }}", "['A', 'b', 'items']"},
    {"{{ 'ba'|sort }}", "['a', 'b']"},
    {"{{ range(3)|sort(reverse=true) }}", "[2, 1, 0]"},
    {"{{ [(2, 'b'), (1, 'a'), (1, 'A')]|sort }}",
     "[(1, 'A'), (1, 'a'), (2, 'b')]"},
    {"{{ [[2], [1, 2], [1]]|sort(reverse=true) }}", "[[2], [1, 2], [1]]"},
    {"{{ true and 'a' and '' or 'b' }}{{ not '' }}{{ not 'a' and u.x }}",
     "bTrueFalse"},
    {"{{ namespace(a=1, **{'b': 2}) }}", "<Namespace {'a': 1, 'b': 2}>"},
    {"{{ 'a'.format(*[1]) }}{{ '{}{}'.format(*[1, 2]) }}{{ "
     "'{a}'.format(**{'a': 1}) }}",
     "a121"},
    {"{{ s[:2] ~ s[2:] == s }}{{ s[-3:] }}{{ s[1] }}{{ s[7] is defined }}",
     "Trueabc나False"},
    {"{{ [l[0], l[-1], l[3]] }}", "[3, 2, Undefined]"},
    {"{{ (1, 2)[5] is defined }}{{ (1, 2)[-1] }}", "False2"},
    {"{{ {1: 'a', 1.0: 'b', true: 'c'} }}{{ {1: 'a'}[true] }}{{ {none: "
     "1}[none] }}",
     "{1: 'c'}a1"},
    {"{{ {'a': 1, 'a': 2} }}", "{'a': 2}"},
    {"{{ {u: 1} }}", "{Undefined: 1}"},
    {"{{ range(3)[1] }}{{ range(3)[-1] }}{{ range(3)[5] is defined }}{{ "
     "range(3)['x'] is defined }}",
     "12FalseFalse"},
    {"{{ l['append'] is defined }}{{ l['0'] is defined }}{{ d[none] is "
     "defined }}",
     "FalseFalseFalse"},
    {"{{ x.y.z if x is defined }}", ""},
    {"a\n{{ 1 }}\n  {% set a = 1 %}  \nb{% set a = 1 %}\nc\nx {% set a = 1 "
     "%}y\n  {{ 1 }}  \n",
     "a\n1\n  \nbc\nx y\n  1  "},
    {"a\r\nb\rc{{ 1 }}\r\n{% if 1 %}\r\nd{% endif %}\r", "a\nb\nc1\nd"},
    {"  {# c #}\n  {# c +#}\n {#+ c #}x\n {#- c -#} \n y\n", "\n xy"},
    {"  {%+ set a = 1 %}x\n  {% set a = 1 +%}\ny{%- set a = 1 -%} \n z",
     "  x\n\nyz"},
    {"{% raw %}\n {{ a }}\n{% endraw %}\nb\n  {%- raw -%}\n c \n{%- endraw "
     "-%}\n d\n  {%+ raw %}e{%+ endraw +%}\n f",
     "\n {{ a }}\nbcd\n  e\n f"},
    {"{{ 'a\\\nb' }}{{ 'c\nd' }}", "abc\nd"},
    {"{{ \"a\"\n'b'\n}}", "ab"},
    {"\n", ""},
    {"{% if n -%}\n  a\n{%- else -%}\n b {% endif %}", "a"},
    {"{%\nif n\n%}a{%\nendif\n%}", "a"},
    {"{{ \"%s\"\n% 1\n}}{{\nn\n}}", "13"},
    {"{% set ns = namespace(a={1: 2}) %}{{ ns }}{{ [ns, ns] }}",
     "<Namespace {'a': {1: 2}}>[<Namespace {'a': {1: 2}}>, <Namespace {'a': "
     "{1: 2}}>]"},
    {"{{ ('a' ~ d['items'])|upper }}{{ ('a' ~ d['items'])|title }}{{ ('a' ~ "
     "d['items'] ~ '가')[::-1] }}",
     "AXAx가xa"},
    {"{{ 1e300 > 1 }}{{ 1 < 1e300 }}{{ -1e300 < -1 }}{{ "
     "9223372036854775808.0 > 9223372036854775807 }}{{ "
     "-9223372036854775808.0 == -9223372036854775807 - 1 }}",
     "TrueTrueTrueTrueTrue"},
    {"{{ 00 }}{{ 0_0 }}{{ 00.5 }}{{ 00e1 }}", "000.50.0"},
    {"{{ l.99999999999999999999 }}{{ l.99999999999999999999 is defined }}{{ "
     "{1: 2}.1 }}",
     "False2"},
    {"{{ [1, 2, 3].index(3) }}{{ 'abc'.rindex('c') }}", "22"},
    {"{{ 'é' ~ 'É'|lower ~ 'é'|upper }}{{ 'ab'|title|upper }}", "ééÉAB"},
    {"{{ [[1, 2], [1]] < [[1, 2], [2]] }}{{ ([1], 2) < ([1], 3) }}",
     "TrueTrue"},
    {"{{ range(0, 10, 3)|list }}{{ range(10, 0, -3)|list }}{{ range(0, "
     "-5)|list }}",
     "[0, 3, 6, 9][10, 7, 4, 1][]"},
    {"{{ '%s' % d }}{{ '%s' % (d,) }}",
     "{'b': 1, 'A': [1.0, None, True], 'items': 'x'}{'b': 1, 'A': [1.0, "
     "None, True], 'items': 'x'}"},
    {"{{ ['a', 1, none, true]|join('|') }}", "a|1|None|True"},
    {"{{ (l|select)|list|tojson }}{{ l|select|join('-') }}{{ (d|items)|list "
     "}}",
     "[3, 1, 2]3-1-2[('b', 1), ('A', [1.0, None, True]), ('items', 'x')]"},
    {"{{ 'a-b_c d'|title }}{{ 'x'.title() }}{{ '1x y2z'.title() }}",
     "A-B_c DX1X Y2Z"},
    {"{{ d.keys()|list|tojson }}{{ d.items()|list|length }}{{ d.copy() == d "
     "}}",
     "[\"b\", \"A\", \"items\"]3True"},
    {"{{ 'ab' * 3 ~ 'c' }}{{ ['x'] * 2 + ['y'] }}",
     "abababc['x', 'x', 'y']"},
    {"{% for k, v in d|dictsort %}{{ k }}{% endfor %}{% for k, v in d|items "
     "%}{{ k }}{% endfor %}",
     "AbitemsbAitems"},
    {"{{ 1e1_0 }}{{ 1_0e1 }}{{ 1_0.2_5 }}{{ ['\\x7f\\x80é'] }}{{ "
     "'1_0.2_5e1_0'|float }}",
     "10000000000.0100.010.25['\\x7f\\x80é']102500000000.0"},
    {"{% set x́ = 1 %}{{ x́ }}", "1"},
    {"{% for x in l %}{% if x == 2 %}{% else %}{{ x }}{% break %}{% endif "
     "%}{% endfor %}",
     "3"},
    {"{% for x in l %}{% if x == 2 %}a{% elif x == 3 %}{% continue %}{% else "
     "%}{% break %}{% endif %}{% endfor %}",
     ""},
};

/* One template on a line. */
static const struct {
    ksllm_status status;
    const char *why, *texts;
} template_errors[] = {
#define A KSLLM_ERR_ARGUMENT
#define F KSLLM_ERR_FORMAT
    {A, "'the other case of this letter' is not supported",
     "{{ 'ā Ā ǅ'|lower }}\n"
     "{{ 'ǲ'|upper }}\n"
     "{{ '\\u0345'|upper }}\n"
     "{{ 'ᾈ'|lower }}\n"},
    {A, "'the case of this character' is not supported",
     "{{ 'Ǆ'.isupper() }}\n"
     "{{ 'ª' is lower }}\n"},
    {F, "bad number",
     "{{ 100_000_000_000_000_000_000 }}\n{{ 0999999999999999999999 }}\n"
     "{{ 01 }}\n{{ 0_1 }}\n"},
    {A, "'a float beside an integer beyond 63 bits' is not supported",
     "{{ 1e19 == 18446744073709551616 }}\n"},
    {A, "'== of two views of mappings' is not supported",
     "{{ d.keys() == d.keys() }}\n"},
    {A, "is no key",
     "{{ {[1]: 2} }}\n{{ {d: 2} }}\n{{ [1] in d }}\n{{ (1, [2]) in d }}\n"
     "{{ d.keys() in d }}\n{{ [1] in d.keys() }}\n{{ d.get([1]) }}\n"
     "{{ [[1], [1]]|unique|list }}\n{{ [] is filter }}\n"},
    {A, "'order of views of mappings' is not supported",
     "{{ d.keys() < d.keys() }}\n{{ d.keys() < d.items() }}\n"},
    {A, "have no order",
     "{{ d.values() < d.values() }}\n{{ d.keys() < l }}\n{{ l < d.keys() }}\n"
     "{{ l|select < l }}\n{{ [1] < (1,) }}\n{{ [1] > ['a'] }}\n"
     "{{ none < none }}\n{{ [1, 'a']|max }}\n{{ [1, [2]]|sort }}\n"
     "{{ [none, none]|sort }}{{ [none, 1]|sort }}\n{{ [u, 1]|sort }}\n"},
    {A, "is not JSON",
     "{{ range(3)|tojson }}\n{{ {(1, 2): 3}|tojson }}\n"
     "{{ namespace(a=1)|tojson }}\n{{ [u]|tojson }}\n{{ d.keys()|tojson }}\n"
     "{{ d.values()|tojson }}\n{{ [l|select]|tojson }}\n"
     "{{ (l|select)|tojson }}\n"},
    {A, "has no text",
     "{{ [range] }}\n{{ l|select }}\n{{ [l|select] }}\n"
     "{% for x in l %}{{ loop }}{% endfor %}\n"
     "{% macro m() %}{% endmacro %}{{ m|string|length }}\n{{ d.items }}\n"},
    {F, "bad escape",
     "{{ '\\ud800' }}\n{{ '\\U00110000' }}\n{{ '\\xg0' }}\n{{ '\\u00\n"},
    {A, "* of what is no list", "{{ d.keys() * 2 }}\n{{ l|select * 2 }}\n"},
    {A, "* between",
     "{{ 'a' * 'b' }}\n{{ 'a' * 1.5 }}\n{{ 1.5 * 'a' }}\n{{ [1] * [1] }}\n"
     "{{ 2 * none }}\n{{ none * 2 }}\n"},
    {A, "+ between",
     "{{ l + (1,) }}\n{{ l + (l|select) }}\n{{ (l|select) + l }}\n"
     "{{ d + d }}\n{{ 'a' + 1 }}\n{{ 1 + 'a' }}\n{{ none + 1 }}\n"
     "{{ ['a']|sum }}\n{{ 1 + 2 ~ 3 }}\n"},
    {A, "division by zero",
     "{{ 1 // 0 }}\n{{ 1 % 0 }}\n{{ 1.0 / 0 }}\n{{ 1 is divisibleby 0 }}\n"},
    {A, "an integer is too large",
     "{{ 9223372036854775807 * 2 }}\n{{ -9223372036854775807 - 2 }}\n"
     "{{ (-9223372036854775807 - 1) // -1 }}\n"
     "{{ (-9223372036854775807 - 1)|abs }}\n"},
    {A, "'% or // of a float' is not supported",
     "{{ 1.5 % 1 }}\n{{ 1.5 // 1 }}\n{{ 2.5 is even }}\n"},
    {A, "no integer: infinite, or no number",
     "{{ '%d' % ('inf'|float) }}\n{{ '%d' % ('-inf'|float) }}\n"
     "{{ '%d' % ('nan'|float) }}\n{{ ('inf'|float)|int(3) }}\n"},
    {A, "'an integer beyond 63 bits' is not supported",
     "{{ '%d' % -1e30 }}\n{{ '%f' % 18446744073709551616 }}\n"
     "{{ 18446744073709551616|float }}\n{{ 18446744073709551616|round }}\n"},
    {A, "where a format wants a number", "{{ '%f' % 'a' }}\n"},
    {A, "'% with this format' is not supported",
     "{{ '%.3s' % 'a' }}\n{{ '%.3d' % 1 }}\n{{ '%' % 1 }}\n{{ '%5' % 1 }}\n"
     "{{ '%q' % 1 }}\n"},
    {A, "a format has too few values", "{{ '%s %s' % (1,) }}\n"},
    {A, "a format has too many values",
     "{{ '%s' % (1, 2) }}\n{{ 'x' % d.keys() }}\n{{ 'x' % (l|select) }}\n"
     "{{ 'x' % 1 }}\n{{ 'a' is odd }}\n"},
    {A, "'arithmetic with an integer beyond 63 bits' is not supported",
     "{{ 18446744073709551616 * 1.5 }}\n"},
    {A, "in an integer", "{{ 1 in 5 }}\n"},
    {A, "a slice by", "{{ l['a':] }}\n{{ l[1.5:] }}\n"},
    {A, "a slice of", "{{ n[0:1] }}\n{{ d[0:1] }}\n{{ (l|select)[0:1] }}\n"},
    {A, "'mapping' is not supported",
     "{{ d.keys().mapping }}\n{{ d.keys()|attr('mapping') }}\n"},
    {A, "no parameter of that name",
     "{{ 'a'.strip(chars='x') }}\n{{ s|trim('x', chars='y') }}\n"
     "{{ 'a'|replace(new='x', old='a', nosuch=1) }}\n"
     "{% for x in l %}{{ loop.changed(a=1) }}{% endfor %}\n"
     "{{ l|map('upper', x=1)|list }}\n"},
    {A, "an argument is missing",
     "{{ 'a'.replace('b') }}\n{{ 'a'|replace('b') }}\n{{ range() }}\n"
     "{{ raise_exception() }}\n{{ strftime_now() }}\n"},
    {A, "where a text belongs",
     "{{ 'xax'|trim(1) }}\n{{ 'a'.replace(1, 'b') }}\n"
     "{{ 'a'.replace('a', 1) }}\n{{ 1|indent }}\n{{ l|map(5)|list }}\n"
     "{{ l|tojson(separators=('a', 1)) }}\n"
     "{{ l|tojson(separators=(1, 'a')) }}\n{{ d|attr(1) }}\n"
     "{{ 'ab'.find(1) }}\n{{ 'ab'.count(1) }}\n{{ 'a'.startswith(1) }}\n"
     "{{ 'a'.startswith((1,)) }}\n{{ 'a'.startswith(['a']) }}\n"
     "{{ 'abc'.removeprefix(1) }}\n{{ ','.join([1]) }}\n{{ 'a'.split(1) }}\n"
     "{{ 'a'.partition(1) }}\n{{ strftime_now(5) }}\n"},
    {A, "too many arguments",
     "{{ 'a'.upper(1) }}\n"
     "{{ l|map('replace', 1, 2, 3, 4, 5, 6, 7, 8)|list }}\n"
     "{{ raise_exception('a', 'b') }}\n"},
    {A, "has no length",
     "{{ (l|select)|length }}\n{{ 5|length }}\n{{ namespace()|length }}\n"},
    {A, "abs of",
     "{{ ('-99999999999999999999'|int)|abs }}\n{{ 'a'|abs }}\n"},
    {A, "'int with a base' is not supported", "{{ '7'|int(0, 16) }}\n"},
    {A, "int of nothing", "{{ u|int }}\n"},
    {A, "float of nothing", "{{ u|float }}\n"},
    {A, "'round to this many digits' is not supported",
     "{{ 2.5|round(none) }}\n{{ 2.5|round(23) }}\n{{ 2.5|round(-1) }}\n"},
    {A, "where an integer belongs",
     "{{ 2.5|round('a') }}\n{{ 'abab'|replace('a', 'x', 'y') }}\n"
     "{{ 'a'|indent(none) }}\n{{ range('a') }}\n{{ range(1, 'b') }}\n"
     "{{ range(1, 2, 'c') }}\n"},
    {A, "round knows common, ceil and floor", "{{ 2.5|round(0, 'x') }}\n"},
    {A, "ceil or floor of what is not finite",
     "{{ ('inf'|float)|round(0, 'ceil') }}\n"
     "{{ ('nan'|float)|round(0, 'floor') }}\n"},
    {A, "round of no number", "{{ 'a'|round }}\n"},
    {A, "last of a generator", "{{ (l|select)|last }}\n"},
    {A, "is not iterable",
     "{{ 5|first }}\n{{ 5|reverse }}\n{{ 5|join }}\n"
     "{{ 5|map('upper')|list }}\n{{ dict([1]) }}\n{{ dict(5) }}\n"
     "{% set a, b = 5 %}\n{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*5) }}\n"},
    {A, "items of a list", "{{ l|items }}\n"},
    {A, "an item of nothing",
     "{{ [d]|map(attribute='nosuch.x')|list }}\n{{ u['x'] }}\n{{ u[0] }}\n"},
    {A, "dictsort by key or by value",
     "{{ {'b': 1, 'a': 2}|dictsort(by='x') }}\n"},
    {A, "dictsort of a list", "{{ l|dictsort }}\n"},
    {A, "sum of texts", "{{ ['a', 'b']|sum(start='') }}\n"},
    {A, "map wants a filter or an attribute",
     "{{ l|map|list }}\n{{ l|map(attribute='a', x=1)|list }}\n"},
    {A, "unknown filter or test",
     "{{ l|map('nosuch')|list }}\n{{ l|select('nosuch')|list }}\n"
     "{% if 0 %}{% elif 1 %}{{ n|nosuch }}{% endif %}\n"},
    {A, "an attribute is missing", "{{ l|selectattr }}\n"},
    {A, "separators are two texts", "{{ l|tojson(separators=('a',)) }}\n"},
    {A, "of an undefined value",
     "{{ u|attr('x') }}\n{{ d.b.c.d }}\n{% set ns.a = 1 %}\n{{ u.x }}\n"
     "{{ 'x' if d.nosuch.deep is defined else 'y' }}\n"
     "{{ 5|d(1) }}{{ u|d }}{{ ''|d(1) }}{{ ''|d(1, true) }}{{ u.x|d(1) }}\n"},
    {A, "format has no value for a field",
     "{{ '{\\x00}'.format(1) }}\n{{ '{5}'.format(1) }}\n"
     "{{ '{x}'.format(y=1) }}\n{{ '{99999999999999999999}'.format(1) }}\n"},
    {A, "a format with {} and with {0}",
     "{{ '{} {0}'.format(1) }}\n{{ '{0} {}'.format(1) }}\n"},
    {A, "a format with a single brace",
     "{{ '{'.format(1) }}\n{{ '}'.format(1) }}\n"},
    {A, "'start or end of a search' is not supported",
     "{{ 'a'.find('a', none, 2) }}\n{{ 'a'.count('a', 0) }}\n"},
    {A, "index: not found",
     "{{ 'ab'.index('z') }}\n{{ 'ab'.rindex('z') }}\n{{ l.index(9) }}\n"},
    {A, "partition wants a text of one character or more",
     "{{ 'a'.partition('') }}\n"},
    {A, "'a digit beyond ASCII' is not supported", "{{ '३'.isdigit() }}\n"},
    {A, "'sameas' is not supported",
     "{{ 1 is sameas 1 }}\n{{ l is sameas l }}\n"},
    {A, "range wants integers", "{{ range(1, 2, 0) }}\n"},
    {A, "dict of more than one mapping", "{{ dict(d, d) }}\n"},
    {A, "dict of nothing", "{{ dict(u) }}\n"},
    {A, "dict of what are no pairs", "{{ dict([(1, 2, 3)]) }}\n"},
    {A, "an attribute that begins with _",
     "{{ namespace({'_a': 1}) }}\n"
     "{% set ns = namespace() %}{% set ns._a = 1 %}\n"},
    {A, "'strftime_now with this letter' is not supported",
     "{{ strftime_now('%') }}\n{{ strftime_now('%-') }}\n"
     "{{ strftime_now('a%-F') }}\n"},
    {F, "expected ':'", "{{ {'a' 1} }}\n"},
    {F, "expected ','",
     "{{ [1 2] }}\n{{ dict(a=1 b=2) }}\n{% with a = 1 b = 2 %}{% endwith %}\n"
     "{% macro m(a b) %}{% endmacro %}\n{{ range(1 2) }}\n"},
    {F, "expected an expression",
     "{{ dict(,) }}\n{% for x in %}{% endfor %}\n{{ ] }}\n{{ !n }}\n"
     "{{ 1 === 2 }}\n{{ n in }}\n{{ * }}\n{{ range(*) }}\n{{ 1 if }}\n"
     "{{ 1 if 2 else }}\n{{ not }}\n"},
    {A, "a sign on", "{{ +'a' }}\n{{ -'a' }}\n{{ -u }}\n{{ -none }}\n"},
    {F, "a test of a test at 'is'",
     "{{ n is none is none }}\n{{ n is defined is defined }}\n"
     "{{ n is eq is }}\n"},
    {F, "expected '}}'",
     "{{ s|upper[0] }}\n{{ 1 if 0 if 1 else 2 else 3 }}\n{{ n ! n }}\n"
     "{{ a; b }}\n{{ n not l }}\n{{ n.1x }}\n{{ 1e1_ }}\n{{ 1_e1 }}\n"
     "{{ 1__0 }}\n"},
    {F, "too many ':'", "{{ l[1:2:3:4] }}\n"},
    {A, "'ceil or floor of this large an integer' is not supported",
     "{{ 9007199254740995|round(0, 'ceil') }}\n"},
    {A, "'a generator read in part before' is not supported",
     "{% set g = l|select %}{{ 3 in g }}{{ g|list }}\n"
     "{% set g = l|select %}{% for x in g %}{{ x }}{% endfor %}{{ g|list }}\n"},
    {A, "cycle of nothing",
     "{% for x in l %}{{ loop.cycle() }}{% endfor %}\n"},
    {A, "cannot set an attribute",
     "{% set ns = namespace() %}{% for x in l %}{% set ns.loop = 1 %}{% set "
     "z.loop = 1 %}{% endfor %}\n"
     "{% for x in l %}{% set loop.a = 1 %}{% endfor %}\n"},
    {F, "cannot be set",
     "{% for loop in l %}{% endfor %}\n"
     "{% for a, loop in [[1, 2]] %}{% endfor %}\n{% set true = 1 %}\n"
     "{% set none = 1 %}\n{% set False = 1 %}\n{% set True, a = 1, 2 %}\n"
     "{% macro true() %}{% endmacro %}\n"},
    {F, "expected a name",
     "{% set a, = [1] %}{{ a }}\n{% if 0 %}{{ n|a. }}{% endif %}x\n"
     "{{ n|5 }}\n{{ n| }}\n{{ n is }}\n{{ n is not }}\n{{ n. }}\n"
     "{{ n.'a' }}\n{% with a, b = 1, 2 %}{{ a }}{% endwith %}\n"
     "{% macro m(1) %}{% endmacro %}\n"
     "{% macro m(a,) %}{{ a }}{% endmacro %}{{ m(1) }}\n"},
    {A, "values for",
     "{% set a, b = [1, 2, 3] %}\n{% for k, v in d %}{% endfor %}\n"},
    {F, "leaving a block that is being captured",
     "{% for x in l %}{% set t %}{% break %}{% endset %}{% endfor %}\n"
     "{% for x in l %}{% filter upper %}{% continue %}{% endfilter %}{% "
     "endfor %}\n"},
    {F, "not inside of a loop",
     "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}\n"
     "{% for x in l %}{% generation %}{% break %}{% endgeneration %}{% "
     "endfor %}\n{% for x in e %}{% else %}{% break %}{% endfor %}\n"
     "{% if n %}{% break %}{% endif %}\n"},
    {F, "unknown filter or test",
     "{% if 1 %}{% for x in l %}{{ n|nosuch }}{% endfor %}{% endif %}\n"
     "{{ n|a.b }}\n{% filter nosuch %}{% endfilter %}\n"
     "{% set x|nosuch %}{% endset %}\n"},
    {F, "expected '='", "{% with a %}{% endwith %}\n"},
    {A, "'caller' is not supported",
     "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}\n"},
    {A, "an argument is given twice",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, **{'a': 2}) }}\n"},
    {A, "** of an integer",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**5) }}\n"},
    {A, "an argument's name is no text",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{1: 2}) }}\n"},
    {A, "the macro has no such parameter",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}\n"},
    {F, "an argument after * or ** of that kind at '*'",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[1], *[2]) }}\n"
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{}, *[1]) }}\n"},
    {F, "an argument after * or ** of that kind at 'a'",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{}, a=1) }}\n"},
    {F, "a positional argument after a named one",
     "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[1], 2) }}\n"},
    {F, "a parameter without default after one with it at ')'",
     "{% macro m(a=1, b) %}{% endmacro %}\n"},
    {F, "expected '('", "{% macro m %}{% endmacro %}\n"},
    {A, "'an attribute of a macro or function' is not supported",
     "{{ range.x }}\n"},
    {A, "'joiner' is not supported",
     "{{ 'a' if f is undefined }}{{ joiner is defined }}\n"},
    {F, "unknown tag", "{% 5 %}\n{% %}\n"},
    {F, "unknown tag at 'foo'", "{% foo %}\n"},
    {F, "unexpected tag",
     "{% endif : %}\n{% if n %}{% else %}{% else %}{% endif %}\n"
     "{% if n %}{% else %}{% elif n %}{% endif %}\n"
     "{% for x in l %}{% else %}{% else %}{% endfor %}\n{% elif n %}\n"
     "{% else %}\n{% endfor %}\n{% endset %}\n{% endmacro %}\n{% endwith %}\n"
     "{% endfilter %}\n{% set x %}{% endfilter %}\n"},
    {F, "expected the end of the tag",
     "{% if n %}a{% endif: %}\n{% set a = 1: %}\n"
     "{% for x in l %}{% break: %}{% endfor %}\n"
     "{% for x in l if x else 2 %}{{ x }}{% endfor %}\n"},
    {F, "is not supported at",
     "{% for x in l if x recursive %}{% endfor %}\n"},
    {F, "expected 'in' at 'l'", "{% for x l %}{% endfor %}\n"},
    {F, "a tag does not end",
     "{% for (x in l %}{% endfor %}\n{% raw\n{{\n{%\n{{-\n{{ 1\n{{ 1_\n"
     "{{ 1.\n{{ 1e\n{{ 0\n{{ a(\n{{ [1, }}\n{{ (1 }}\n{{ {1: 2 }}\n{{ n[ }}\n"
     "{{ n[1 }}\n{{ n['a' }}\n{{ m( }}\n{{ 1e+\n"},
    {F, "unknown tag at 'raw'", "{% raw +%}x{% endraw %}\n"},
    {F, "raw does not end", "{% raw %}a{% endraw\n{% raw %}a{%\n"},
    {F, "unknown tag at 'rawx'", "{% rawx %}\n"},
    {F, "a comment does not end", "{# a\n"},
    {F, "unexpected character", "{{# a\n"},
    {F, "a string does not end", "{{ 'a\\\n{{ 'a\n{{ 'a\n"},
    {F, "expected ']'", "{{ n[1 2] }}\n"},
    {F, "a number in base 2, 8 or 16 is not supported",
     "{{ 0b1 }}\n{{ 0o7 }}\n"},
    {A, "cannot be called",
     "{{ u() }}\n{{ n() }}\n{{ d.x() }}\n{{ (1)() }}\n{{ 'a'() }}\n"},
    {A, "the template refuses: why",
     "{{ raise_exception(message='why') }}\n"},
    {A, "'real' is not supported",
     "{{ 'a'.x is defined }}{{ 'a'['upper']() }}{{ 'a'['x'] is defined }}{{ "
     "5['x'] is defined }}{{ true.real is defined }}\n"},
#undef A
#undef F
};

#endif
