/* fuzz_chat.c - a template and a conversation: rendered within its limits.
 *
 * An input: template, messages, tools, variables, with 0x1e between them; a last
 * byte of options. Only the public interface.
 */
#include "fuzz.h"

enum { PROMPT = 1, CONTINUE = 2, LONG_AGO = 4, MODEL = 8, MEMORY = 16 };

static const char *const words[] = {
    "{% if x %}", "{% elif y %}", "{% else %}", "{% endif %}",
    "{% for m in messages %}", "{% for k,v in d.items() %}",
    "{% for x in range(3) if x %}", "{% endfor %}", "{% set x = 1 %}",
    "{% set x %}", "{% endset %}", "{% set ns = namespace(a=1) %}",
    "{% set ns.a = ns %}", "{% macro f(a,b=1) %}", "{% endmacro %}",
    "{{ f(1) }}", "{% call f(1) %}", "{% endcall %}", "{{ caller() }}",
    "{% break %}", "{% continue %}", "{% filter upper %}", "{% endfilter %}",
    "{% raw %}", "{% endraw %}", "{# c #}", "{%- ", "-%}", "{{- ", "-}}",
    "{% generation %}", "{% endgeneration %}", "{{ messages }}",
    "{{ tools|tojson }}", "{{ tools|tojson(indent=4) }}", "{{ loop.index }}",
    "{{ loop.previtem }}", "{{ loop.cycle(1,2) }}", "{{ loop.changed(x) }}",
    "{{ x[::-1] }}", "{{ x[1:] }}", "{{ x[-1] }}", "{{ x|length }}",
    "{{ 1/0 }}", "{{ 1%0 }}", "{{ 2**63 }}", "{{ 9223372036854775807 + 1 }}",
    "{{ -9223372036854775807-1 // -1 }}", "{{ 1e308*10 }}", "{{ 'a'*100 }}",
    "{{ [1]*100 }}", "{{ range(10)|list }}", "|map('upper')",
    "|map(attribute='role')", "|selectattr('role','equalto','user')",
    "|select('string')", "|sort", "|sort(attribute='role',reverse=true)",
    "|unique", "|join(', ')", "|first", "|last", "|list", "|dictsort",
    "|items", "|default('x',true)", "|replace('a','b')", "|trim",
    "|indent(4,true)", "|int", "|float", "|round(2)", "|tojson", "|string",
    "|title", "|min", "|max", "|sum(start=1)", "|reverse", "|format(1,2)",
    ".split(',')", ".rsplit(',',1)", ".strip()", ".lstrip('ab')",
    ".startswith('a')", ".endswith(('a','b'))", ".format(1,a=2)", ".items()",
    ".get('a',1)", ".upper()", ".find('a')", ".count('a')", ".splitlines()",
    ".partition('a')", ".zfill(5)", ".join(x)", "'%s %d' % (1,2)",
    "'{:>5}'.format(1)", "is defined", "is not none", "is string",
    "is mapping", "is sameas x", "is divisibleby 3", "not in ", "and ", "or ",
    "(1,2)", "[1,2]", "{'a':1}", "none", "true", "x if y else z",
    "strftime_now('%Y-%m-%d %-d %b')", "raise_exception('no')", "\x1e",
    "[{\"role\":\"user\",\"content\":\"a\"}]", "\"\\ud83d\\ude00\"",
    "\"\\u0000\"", "1e999", "-0.0", "12345678901234567890", "한", "😀", "\xff",
    "<|im_end|>", "<|im_start|>", "{{", "}}", "{%", "%}", NULL};

static const char conversation[] =
    "[{\"role\":\"system\",\"content\":\"s\"},"
    "{\"role\":\"user\",\"content\":\"안녕 <|im_end|>\"},"
    "{\"role\":\"assistant\",\"content\":\"ok\",\"reasoning_content\":\"r\","
    "\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
    "\"arguments\":{\"a\":1}}}]},{\"role\":\"tool\",\"content\":\"t\"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]";

static ksllm_model *vocabulary(void)
{
    static ksllm_model *m;
    static fx_file f;
    if (!m)
        m = fx_open_vocab(NULL, FX_BPE, &f);
    return m;
}

typedef struct input {
    uint8_t *part[4];
    size_t size[4];
    uint8_t options;
    ksllm_chat chat;
    fx_alloc a;
} input;

static void read_input(input *x, const uint8_t *data, size_t size)
{
    x->options = data[--size];
    for (int k = 0; k < 4; k++) {
        const uint8_t *end = k < 3 && size ? memchr(data, 0x1e, size) : NULL;
        size_t n = end ? (size_t)(end - data) : size;
        x->part[k] = fuzz_copy(data, n);
        x->size[k] = n;
        data += n + (end != NULL);
        size -= n + (end != NULL);
    }
    fx_alloc_init(&x->a);
    ksllm_chat_init(&x->chat);
    ksllm_text *texts[4] = {&x->chat.template_text, &x->chat.messages,
                            &x->chat.tools, &x->chat.variables};
    for (int k = 0; k < 4; k++)
        if (x->size[k] || k == 0)
            *texts[k] = (ksllm_text){(char *)x->part[k], x->size[k]};
    if (!x->size[1])
        x->chat.messages = (ksllm_text){conversation, KSLLM_NUL};
    x->chat.add_generation_prompt = x->options & PROMPT;
    x->chat.continue_final = x->options & CONTINUE;
    x->chat.local_time = x->options & LONG_AGO ? 1 : 1764350000;
    x->chat.allocator = &x->a.allocator;
}

static bool is_text(const input *x)
{
    for (int k = 0; k < 4; k++)
        if (!fuzz_is_utf8(x->part[k], x->size[k]))
            return false;
    return true;
}

static void check_error(const input *x, int64_t n, const ksllm_error *e)
{
    MUST(n == KSLLM_ERR_ARGUMENT || n == KSLLM_ERR_FORMAT ||
         n == KSLLM_ERR_UNSUPPORTED, "%lld: %s", (long long)n, e->text);
    MUST(e->status == n && e->text[0] && memchr(e->text, 0, sizeof e->text),
         "no error");
    MUST(fuzz_is_utf8(e->text, strlen(e->text)) || !is_text(x), "cut: %s",
         e->text);
}

/* The same in the caller's memory, and with every allocation failing once. */
static void check_again(input *x, const ksllm_model *m, const uint8_t *want,
                        size_t n)
{
    ksllm_error e;
    uint8_t *text = fuzz_room(n);
    if (x->options & MEMORY) {
        size_t size = 300 + (size_t)(x->options >> 5) * 100000;
        uint8_t *memory = fuzz_room(size);
        x->chat.memory = memory;
        x->chat.memory_size = size;
        int64_t k = ksllm_chat_render(m, &x->chat, (char *)text, n, &e);
        MUST(k == (int64_t)n || k == KSLLM_ERR_BUFFER, "in %zu bytes: %lld %s",
             size, (long long)k, e.text);
        x->chat.memory = NULL;
        fuzz_free(memory, size);
    }
    for (long at = 1; at < 5; at++) {
        x->a.calls = 0;
        x->a.fail_at = at;
        x->a.failed = false;
        int64_t k = ksllm_chat_render(m, &x->chat, (char *)text, n, &e);
        MUST(k == (x->a.failed ? KSLLM_ERR_MEMORY : (int64_t)n),
             "without memory %ld: %lld", at, (long long)k);
        MUST(k < 0 || memcmp(text, want, n) == 0, "another text");
        MUST(!x->a.live, "without memory %ld: a leak", at);
    }
    x->a.fail_at = 0;
    fuzz_free(text, n);
}

/* The tokens of the prompt are its text. */
static void check_tokens(input *x, const ksllm_model *m, const uint8_t *text,
                         size_t n)
{
    int32_t ids[2048];
    char back[8192];
    ksllm_error e;
    int64_t k = ksllm_chat_encode(m, &x->chat, 0, ids, 2048, &e);
    MUST(k >= 0, "encode: %s", e.text);
    if (k > 2048 || !fuzz_is_utf8(text, n))
        return;
    int64_t size = ksllm_decode(m, ids, (size_t)k, KSLLM_DECODE_SPECIAL, back,
                                sizeof back, &e);
    MUST(size == (int64_t)n && memcmp(back, text, n) == 0,
         "%zu bytes are %lld after encoding", n, (long long)size);
}

static void one(const uint8_t *data, size_t size)
{
    static input x;
    ksllm_error e;
    if (size < 2)
        return;
    read_input(&x, data, size);
    ksllm_model *m = x.options & MODEL ? vocabulary() : NULL;
    memset(&e, 0xcb, sizeof e);
    double begin = fuzz_now();
    int64_t n = ksllm_chat_render(m, &x.chat, NULL, 0, &e);
    MUST(fuzz_now() - begin < 10, "it took %g s", fuzz_now() - begin);
    MUST(!x.a.live && !x.a.wrong_size, "a leak of %zu bytes", x.a.live);
    MUST(x.a.peak <= (size_t)129 << 20, "it took %zu bytes", x.a.peak);
    if (n < 0) {
        check_error(&x, n, &e);
    } else if (n < 4096 && fuzz_now() - begin < 0.1) {
        uint8_t *text = fuzz_room((size_t)n);
        MUST(ksllm_chat_render(m, &x.chat, (char *)text, (size_t)n, &e) == n,
             "measured %lld", (long long)n);
        MUST(fuzz_is_utf8(text, (size_t)n) || !is_text(&x), "cut");
        check_again(&x, m, text, (size_t)n);
        if (m)
            check_tokens(&x, m, text, (size_t)n);
        fuzz_free(text, (size_t)n);
    }
    for (int k = 0; k < 4; k++)
        fuzz_free(x.part[k], x.size[k]);
}

static const char *const templates[] = {
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>"
    "assistant\n{% endif %}",
    "{%- set ns = namespace(x=0) %}{%- for m in messages -%}{%- if loop.first "
    "and m['role'] == 'system' %}{{- m.content|trim }}{%- elif m.tool_calls "
    "is defined %}{%- for c in m.tool_calls %}{%- set f = c.function %}"
    "{{- '<tool_call>' ~ f.name ~ (f.arguments|tojson) ~ '</tool_call>' }}"
    "{%- endfor %}{%- set ns.x = ns.x + 1 %}{%- else %}{{- m.content }}"
    "{%- endif %}{%- endfor %}{{ ns.x }}",
    "{% macro f(a, b='x') %}[{{ a|upper }}{{ b }}]{% endmacro %}{{ f('q') }}"
    "{{ messages|map(attribute='role')|unique|join(',') }}"
    "{{ strftime_now('%Y-%m-%d') }}{{ messages[::-1]|length }}"
    "{{ 'a b c'.split(' ')|reverse|list }}",
    "{% if tools %}{{ tools|tojson(indent=2) }}{% endif %}{% for k, v in "
    "{'a': 1, 'b': [1.5, none]}.items() %}{{ k }}={{ v }};{% endfor %}"
    "{{ messages[0].content if messages[0].content is string else '-' }}"
    "\x1e[{\"role\":\"user\",\"content\":\"\\ud55c <|im_end|>\"}]"
    "\x1e[{\"name\": \"f\", \"parameters\": {\"x\": 1e5}}]"
    "\x1e{\"enable_thinking\": false}"};

static bool seed(size_t i, fx_bytes *out)
{
    if (i >= 2 * sizeof templates / sizeof templates[0])
        return false;
    fx_put(out, templates[i / 2], strlen(templates[i / 2]));
    fx_int(out, i % 2 ? PROMPT | MODEL : PROMPT | MEMORY | 7 << 5, 1);
    return true;
}

static const fuzz_target fuzz = {"fuzz_chat", one, seed, NULL, words, 4096};
FUZZ_MAIN
