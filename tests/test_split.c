/* test_split.c - the parts of an answer, an answer as a message, JSON strings;
 * templates that run out of steps or of memory.
 *
 * White-box: the marks to walk come from the library's own tables, the message
 * is made by an inner function, and a template is given any number of steps.
 * Every sentence of the header on marks has a row here.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include <sys/mman.h>
#include <time.h>

#include "test.h"
#include "fixture.h"
#include "json.h"
#include "templates.h"

static ksllm_error err;

/* ---- models --------------------------------------------------------------- */

static fx_file file;    /* of the one model that is open */

/* ---- parts of an answer -------------------------------------------------- */

static char parts[8192];
static size_t n_parts;          /* bytes */
static int last_part, stop_after;
static bool in_call;
static char arguments[8192];    /* of the call that is open */
static size_t n_arguments;

static bool is_utf8(const char *p, size_t n)
{
    const u8 *end = (const u8 *)p + n;
    return txt_valid((const u8 *)p, end) == end;
}

/* Writes "T:..", "R:.." and so on, one letter per part, not per piece. */
static int collect(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (((int)part != last_part || part == KSLLM_PART_CALL)
        && n_parts < sizeof parts - 100)
        n_parts += (size_t)sprintf(parts + n_parts, "|%c:", "TRCAE"[part]);
    last_part = (int)part;
    if (n_parts + text.size < sizeof parts - 100) {
        memcpy(parts + n_parts, text.data, text.size);
        n_parts += text.size;
        parts[n_parts] = 0;
    }
    CHECK(is_utf8(text.data, text.size));       /* whole characters */
    CHECK(text.size > 0 || part == KSLLM_PART_CALL_END);
    if (part == KSLLM_PART_CALL)
        in_call = true, n_arguments = 0;
    if (part == KSLLM_PART_ARGUMENTS || part == KSLLM_PART_CALL_END)
        CHECK(in_call);
    if (part == KSLLM_PART_ARGUMENTS
        && n_arguments + text.size < sizeof arguments) {
        memcpy(arguments + n_arguments, text.data, text.size);
        n_arguments += text.size;
    }
    arguments[n_arguments] = 0;
    if (part == KSLLM_PART_CALL_END && !CHECK(is_json(arguments)))
        printf("    %s\n", arguments);
    if (part != KSLLM_PART_CALL && part != KSLLM_PART_ARGUMENTS)
        in_call = false;
    return stop_after > 0 && --stop_after == 0;
}

static void begin_parts(void)
{
    parts[0] = 0;
    n_parts = 0;
    last_part = -1;
    in_call = false;
    stop_after = 0;
}

static size_t room_size = 512;

/* Room for a call, at the end of a page: the next one is closed. */
static char *room(void)
{
    enum { ROOM = 1 << 16 };
    static char *end;
    if (!end) {
        char *p = mmap(NULL, 2 * ROOM, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + ROOM, ROOM, PROT_NONE))
            abort();
        end = p + ROOM;
    }
    return end - room_size;
}

static ksllm_splitter splitter_of(const char *format, const char *prompt)
{
    ksllm_splitter_options o;
    ksllm_splitter s;
    begin_parts();
    ksllm_splitter_options_init(&o);
    o.format = format;
    o.prompt.data = prompt;
    o.buffer = room();
    o.buffer_size = room_size;
    o.on_part = collect;
    CHECK_OK(ksllm_splitter_init(&s, NULL, &o, &err), err);
    return s;
}

/* Gives a piece; a call that did not fit is remembered. */
static bool lost;
static void give(ksllm_splitter *s, const char *text, size_t n)
{
    lost = ksllm_splitter_next(s, text, n, &err) == KSLLM_ERR_BUFFER || lost;
}

static ksllm_status split_at(const char *format, const char *prompt,
                             const char *text, size_t a, size_t b)
{
    ksllm_splitter s = splitter_of(format, prompt);
    size_t n = strlen(text);
    lost = false;
    give(&s, text, a);
    give(&s, text + a, b - a);
    give(&s, text + b, n - b);
    return ksllm_splitter_end(&s, &err);
}

static ksllm_status split_whole(const char *format, const char *prompt,
                                const char *text)
{
    return split_at(format, prompt, text, 0, 0);
}

static bool is_border(const char *s, size_t i)
{
    return (s[i] & 0xc0) != 0x80;
}

/* In pieces of 1 to `most` bytes and what the last character lacks. */
static ksllm_status split_at_random(const char *format, const char *prompt,
                                    const char *text, uint32_t most,
                                    uint64_t *seed)
{
    ksllm_splitter s = splitter_of(format, prompt);
    lost = false;
    for (size_t n = strlen(text), i = 0, k; i < n; i = k) {
        for (k = i + 1 + fx_below(seed, most); k < n && !is_border(text, k); )
            k++;
        k = k < n ? k : n;
        give(&s, text + i, k - i);
    }
    return ksllm_splitter_end(&s, &err);
}

static const struct {
    const char *format, *prompt, *text, *want;
} answers[] = {
    {"json", "", "안녕하세요.\n\n끝\n", "|T:안녕하세요.\n\n끝\n"},
    {"json", "", "<think>\n음\n음\n</think>\n\n답 <b>x</b>",
     "|R:음\n음|T:답 <b>x</b>"},
    {"json", "[|assistant|]\n<think>\n", "음</think>\n\n답", "|R:음|T:답"},
    {"json", "<think>\n\n</think>\n\n", "답", "|T:답"},
    {"json", "", "볼게요\n<tool_call>{\"name\": \"날씨\", \"arguments\": "
     "{\"city\": \"서울\", \"n\": [1, {}]}}</tool_call>\n<tool_call>\n"
     "{\"arguments\": {}, \"name\": \"b\"}\n</tool_call>",
     "|T:볼게요|C:날씨|A:{\"city\": \"서울\", \"n\": [1, {}]}|E:|C:b|A:{}|E:"},
    {"json", "", "<tool_call>\n{\"name\": \"a\", \"parameters\": {\"x\": 1}}\n"
     "{\"name\": \"b\"}\n</tool_call>",
     "|C:a|A:{\"x\": 1}|E:|C:b|A:{}|E:"},
    {"json", "", "<tool_call>{\"arguments\": {\"a\": \"\\ub0a0\"}, \"name\": "
     "\"\\ub0a0\\uC528 \\\"\\ud83d\\ude00\\ud800\"}</tool_call>",
     "|C:날씨 \"😀\xef\xbf\xbd|A:{\"a\": \"\\ub0a0\"}|E:"},
    {"json", "", "<tool_call>이건 아니다</tool_call> 끝", "|T:이건 아니다 끝"},
    {"json", "", "a < b <think", "|T:a < b <think"},
    {"json", "", "<tool_call>{\"name\": \"a\", \"arguments\": {}}",
     "|C:a|A:{}|E:"},
    {"glm", "<think>\n", "음</think><tool_call>날씨\n<arg_key>city</arg_key>\n"
     "<arg_value>서울 \"시\"\n둘</arg_value>\n<arg_key>n</arg_key>\n"
     "<arg_value>2</arg_value>\n<arg_key>o</arg_key><arg_value>{\"a\": [1]}"
     "</arg_value></tool_call>",
     "|R:음|C:날씨|A:{\"city\": \"서울 \\\"시\\\"\\n둘\", \"n\": 2, "
     "\"o\": {\"a\": [1]}}|E:"},
    {"glm", "", "네<tool_call>now</tool_call>", "|T:네|C:now|A:{}|E:"},
    {"glm", "", "<tool_call>f\n<arguments>{\"a\": 1}</arguments>\n</tool_call>",
     "|C:f|A:{\"a\": 1}|E:"},
    {"qwen-coder", "", "x\n<tool_call>\n<function=f>\n<parameter=path>\na.c\n"
     "</parameter>\n<parameter=n>\n-1.5e3\n</parameter>\n</function>\n"
     "</tool_call>\n",
     "|T:x|C:f|A:{\"path\": \"a.c\", \"n\": -1.5e3}|E:"},
    {"solar", "<|begin|>assistant", "<|think|>음<|end|><|begin|>assistant"
     "<|content|>답<|end|>", "|R:음|T:답"},
    {"solar", "<|begin|>assistant", "<|tool_calls|><|tool_call:begin|>a1b2"
     "<|tool_call:name|>f<|tool_call:args|>{\"x\": \"<|\"}<|tool_call:end|>"
     "<|tool_call:begin|>c3<|tool_call:name|>g<|tool_call:args|>{}"
     "<|tool_call:end|><|calls|>",
     "|C:f|A:{\"x\": \"<|\"}|E:|C:g|A:{}|E:"},
    {"hcx-think", "<|im_start|>assistant", "/think\n음<|im_end|>\n"
     "<|im_start|>assistant\n답<|im_end|>", "|R:음|T:답"},
    {"hcx-think", "<|im_start|>assistant", " -> tool/function_call\n"
     "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\"}]",
     "|C:f|A:{\"a\": 1}|E:|C:g|A:{}|E:"},
    {"hcx-think", "<|im_start|>assistant/think\n", "음<|im_end|>", "|R:음"},
    {"hcx-think", "<|im_start|>assistant\n", "서울\n이다", "|T:서울\n이다"},
    {"hcx-think", "t/think\n<|im_start|>assistant\n답: <", "|im_end|>\n",
     "|T:|im_end|>\n"},
    {"hcx-think", "<|im_start|>assistant -> tool/function_call\n[{\"name\": ",
     "\"f\"}]<|im_end|><|endofturn|>", "|C:f|A:{}|E:"},
    {"solar", "<|begin|>assistant<|think|><|end|><|begin|>assistant",
     "<|content|>답<|end|>", "|T:답"},
    {"solar", "<|begin|>assistant<|content|>서울", "은\n<|end|>", "|T:은"},
    {"glm", "", "<tool_call>f<arg_key>\n\"k\\ </arg_key><arg_value>01"
     "</arg_value></tool_call>", "|C:f|A:{\"\\\"k\\\\\": \"01\"}|E:"},
    {"glm", "", "<tool_call>f<arguments>{}</arguments><arg_key>k</arg_key>"
     "<arg_value>1</arg_value></tool_call>", "|C:f|A:{}|E:"},
    {"qwen-coder", "", "<tool_call><parameter=a>1</parameter></tool_call>끝",
     "|T:<parameter=a>1</parameter>끝"},
    {"vaetki", "", "<tool_start>{\"name\": \"f\"}<tool_end>", "|C:f|A:{}|E:"},
    {"lfm2", "", "<think>음</think>네<|tool_call_start|>[날씨(city='서울 \"시\"', "
     "n=-2.5e3, on=True, at=None, l=[1, 'it's', {'a': False}]), g()]"
     "<|tool_call_end|>끝",
     "|R:음|T:네|C:날씨|A:{\"city\": \"서울 \\\"시\\\"\", \"n\": -2.5e3, "
     "\"on\": true, \"at\": null, \"l\": [1,\"it's\",{\"a\":false}]}|E:"
     "|C:g|A:{}|E:|T:끝"},
    {"lfm2", "", "<|tool_call_start|>[f(t=\"a\\n\\\"b\\\\\")] <|tool_call_end|>",
     "|C:f|A:{\"t\": \"a\\n\\\"b\\\\\"}|E:"},
    {"lfm2", "", "<|tool_call_start|>[f(1)]<|tool_call_end|>끝", "|T:[f(1)]끝"},
    {"lfm2", "", "<|tool_call_start|>[f(a=[1}, b=2)]<|tool_call_end|>",
     "|T:[f(a=[1}, b=2)]"},
    {"lfm2", "", "<|tool_call_start|>[f(a='x]<|tool_call_end|>", "|T:[f(a='x]"},
    {"lfm2", "", "<|tool_call_start|>[f(a=1), ]<|tool_call_end|>",
     "|T:[f(a=1), ]"},
    {"gemma4", "<|turn>model\n", "<|channel>thought\n음\n<channel|>네"
     "<|tool_call>call:날씨{city:<|\"|>서울 \"시\"<|\"|>,n:-2.5e3,on:true,at:null,"
     "l:[1,<|\"|>a}<|\"|>,{k:<|\"|><|\"|>}]}<tool_call|>"
     "<|tool_call>call:g{}<tool_call|><|tool_response>",
     "|R:음|T:네|C:날씨|A:{\"city\":\"서울 \\\"시\\\"\",\"n\":-2.5e3,"
     "\"on\":true,\"at\":null,\"l\":[1,\"a}\",{\"k\":\"\"}]}|E:|C:g|A:{}|E:"},
    {"gemma4", "<|turn>model\n<|channel>thought\n<channel|>", "답", "|T:답"},
    {"gemma4", "", "<|tool_call>f{}<tool_call|>끝", "|T:f{}끝"},
    {"gemma4", "", "<|tool_call>call:f{a:<|\"|>x}<tool_call|>",
     "|T:call:f{a:<|\"|>x}"},
    {"gemma4", "", "<|tool_call>call:f{a:1}}<tool_call|>", "|T:call:f{a:1}}"},
    {"gemma4", "", "<|tool_call>call:f{a b:1}<tool_call|>",
     "|T:call:f{a b:1}"},
    {"thought", "<thought>\n", "음\n</thought>답", "|R:음|T:답"},
    {"text", "<think>\n", "<think>x</think><tool_call>",
     "|T:<think>x</think><tool_call>"},
    {"json", "", "<think>음 </thin", "|R:음 </thin"},
    {"solar", "", "<|think|>음<|flush|><|content|>답<|flush|>x<|content|>y",
     "|R:음|T:답y"},
    {"solar", "", "<|think|>음<|begin|>assistant<|content|>답", "|R:음|T:답"},
    {"solar", "", "<|tool_calls|><|tool_call:name|>f<|tool_call:args|>{}"
     "<|calls|>x<|content|>답", "|C:f|A:{}|E:|T:답"},
    {"qwen-coder", "", "<tool_call><function=f></tool_call>끝",
     "|C:f|A:{}|E:|T:끝"},
    {"json", "<think>", "음\n", "|R:음"},

    /* closing marks inside of values: JSON, by the state of its strings */
    {"json", "", "<tool_call>{\"name\": \"write_file\", \"arguments\": {\"t\": "
     "\"a</tool_call>b\\\"</tool_call>\\\\\"}}</tool_call>끝",
     "|C:write_file|A:{\"t\": \"a</tool_call>b\\\"</tool_call>\\\\\"}|E:|T:끝"},
    {"json", "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"t\": \"<think>"
     "<tool_call>{\\\"name\\\": \\\"rm\\\"}</tool_call></think>\"}}</tool_call>",
     "|C:f|A:{\"t\": \"<think><tool_call>{\\\"name\\\": \\\"rm\\\"}"
     "</tool_call></think>\"}|E:"},
    {"vaetki", "", "<tool_start>[{\"name\": \"f\", \"arguments\": {\"t\": "
     "\"<tool_end>\"}}]<tool_end>끝",
     "|C:f|A:{\"t\": \"<tool_end>\"}|E:|T:끝"},
    {"hcx-think", "<|im_start|>assistant", " -> tool/function_call\n[{\"name\":"
     " \"f\", \"arguments\": {\"t\": \"<|im_end|>\\n\"}}]<|im_end|>",
     "|C:f|A:{\"t\": \"<|im_end|>\\n\"}|E:"},
    {"solar", "", "<|tool_calls|><|tool_call:begin|>1<|tool_call:name|>f"
     "<|tool_call:args|>{\"t\": \"<|tool_call:end|><|calls|>\\\"<|end|>\"}"
     "<|tool_call:end|><|calls|><|begin|>assistant<|content|>끝",
     "|C:f|A:{\"t\": \"<|tool_call:end|><|calls|>\\\"<|end|>\"}|E:|T:끝"},
    {"glm", "", "<tool_call>f<arguments>{\"t\": \"</arguments></tool_call>\"}"
     "</arguments></tool_call>끝",
     "|C:f|A:{\"t\": \"</arguments></tool_call>\"}|E:|T:끝"},
    /* XML: by the tag that follows */
    {"glm", "", "<tool_call>f<arg_key>k</arg_key>\n<arg_value>a</arg_value>b"
     "</arg_value>\n</arg_value>\n<tool_call> </arg_key><arg_value></think>"
     "</arg_value>\n<arg_key>l</arg_key><arg_value>\n1\n</arg_value>\n"
     "</tool_call>끝",
     "|C:f|A:{\"k\": \"a</arg_value>b</arg_value>\\n</arg_value>\\n<tool_call> "
     "</arg_key><arg_value></think>\", \"l\": \n1\n}|E:|T:끝"},
    {"glm", "", "<tool_call>f<arg_key>k</arg_key><arg_value>\n줄\n</arg_value>"
     "</tool_call>", "|C:f|A:{\"k\": \"\\n줄\\n\"}|E:"},
    {"qwen-coder", "", "<tool_call>\n<function=write_file>\n<parameter=t>\n"
     "a</parameter>b\n</parameter>\n</parameter>\n<function=g><tool_call>"
     "</function></think>\n</parameter>\n<parameter=u>\nx\n\n</parameter>\n"
     "</function>\n</tool_call>끝",
     "|C:write_file|A:{\"t\": \"a</parameter>b\\n</parameter>\\n</parameter>\\n"
     "<function=g><tool_call></function></think>\", \"u\": \"x\\n\"}|E:|T:끝"},
    {"qwen-coder", "", "<tool_call><function=f><parameter=a></parameter>"
     "</function><function=g></function></tool_call>",
     "|C:f|A:{\"a\": \"\"}|E:|C:g|A:{}|E:"},
    /* where they are ambiguous: the first pair ends the value */
    {"glm", "", "<tool_call>f<arg_key>k</arg_key><arg_value>a</arg_value>"
     "</tool_call>b</arg_value></tool_call>", "|C:f|A:{\"k\": \"a\"}|E:|T:b"},
    {"qwen-coder", "", "<tool_call><function=f><parameter=a>x</parameter>"
     "</function>y</parameter></function></tool_call>끝",
     "|C:f|A:{\"a\": \"x\"}|E:|T:끝"},
    {"glm", "", "<tool_call>f<arg_key>k</arg_key><arg_value>1e999</arg_value>"
     "<arg_key>l</arg_key><arg_value>\"2\"</arg_value><arg_key>m</arg_key>"
     "<arg_value>1.</arg_value></tool_call>",
     "|C:f|A:{\"k\": 1e999, \"l\": \"2\", \"m\": \"1.\"}|E:"},
    /* a second value without a key is part of the first */
    {"glm", "", "<tool_call>f<arg_key>abcdefg</arg_key><arg_value>1</arg_value>"
     "<arg_value>x</arg_value></tool_call>",
     "|C:f|A:{\"abcdefg\": \"1</arg_value><arg_value>x\"}|E:"},

    /* prompts that end in a mark */
    {"json", "user: <think> ?<|im_end|>assistant\n", "답", "|T:답"},
    {"json", "<|im_start|>assistant\n<tool_call>\n",
     "{\"name\": \"f\"}\n</tool_call>", "|C:f|A:{}|E:"},
    {"json", "<think>\n\n</think>\n\n", "\n답", "|T:답"},
    {"glm", "a<arguments>", "{}b", "|T:{}b"},
    {"solar", "no header", "<|content|>답", "|T:답"},
    {"solar", "<|begin|>assistant<|tool_calls|>x<|begin|>assistant",
     "<|content|>답", "|T:답"},
    {"solar", "<|begin|>assistant<|content|>a\n", "b", "|T:b"},
    {"solar", "<|begin|>assistant<|think|>음 <", "|end|>답", "|R:|end|>답"},
    {"solar", "<|begin|>assistant<|tool_calls|><|tool_call:name|>f"
     "<|tool_call:args|>{\"a\" 1}<|tool_call:end|>", "<|tool_call:name|>g"
     "<|tool_call:args|>{}<|tool_call:end|>", "|C:g|A:{}|E:"},
    {"qwen-coder", "a>", "b", "|T:b"},
    {"vaetki", "<tool_start>", "{\"name\": \"f\"}<tool_end>", "|C:f|A:{}|E:"},
    {"lfm2", "<|tool_call_start|>", "[f(a=1)]<|tool_call_end|>",
     "|C:f|A:{\"a\": 1}|E:"},
    {"glm", "<tool_call>", "f<arg_key>a</arg_key><arg_value>1</arg_value>"
     "</tool_call>", "|C:f|A:{\"a\": 1}|E:"},
    {"qwen-coder", "<tool_call>\n", "<function=f>\n</function>\n</tool_call>",
     "|C:f|A:{}|E:"},
    {"qwen-coder", "<tool_call>\n<function=", "f>\n</function>\n</tool_call>",
     "|C:f|A:{}|E:"},
    {"qwen-coder", "<tool_call>\n", "답", "|T:답"},
    {"solar", "<|begin|>assistant<|tool_calls|>", "<|tool_call:begin|>1"
     "<|tool_call:name|>f<|tool_call:args|>{}<|tool_call:end|>",
     "|C:f|A:{}|E:"},
    {"solar", "<|begin|>assistant<|tool_calls|><|tool_call:begin|>1"
     "<|tool_call:name|>", "f<|tool_call:args|>{}<|tool_call:end|>",
     "|C:f|A:{}|E:"},
    {"solar", "<|begin|>assistant<|tool_calls|><|tool_call:begin|>1"
     "<|tool_call:name|>f<|tool_call:args|>", "{\"a\": 1}<|tool_call:end|>",
     "|C:f|A:{\"a\": 1}|E:"},
    {"solar", "<|begin|>assistant<|tool_calls|><|tool_call:name|>f"
     "<|tool_call:args|>{}<|tool_call:end|><|tool_call:name|>g"
     "<|tool_call:args|>{\"a\": \"<|tool", "_call:end|>\"}<|tool_call:end|>",
     "|C:g|A:{\"a\": \"<|tool_call:end|>\"}|E:"},
    {"solar", "<|begin|>assistant<|tool_calls|><|tool_call:name|>f"
     "<|tool_call:args|>{}<|tool_", "call:end|>", "|C:f|A:{}|E:"},

    /* marks where they mean nothing */
    {"json", "", "a</tool_call>\nb</think>c", "|T:abc"},
    {"json", "<think>", "a<think>b<tool_call>c</tool_call>d</think>e",
     "|R:ab<tool_call>c</tool_call>d|T:e"},
    {"glm", "", "a</tool_call>b<arg_key>c</arg_key>d<arg_value>e</arg_value>"
     "<arguments>f</arguments>", "|T:abcde<arguments>f</arguments>"},
    {"vaetki", "", "a<tool_end>b", "|T:ab"},
    {"thought", "", "a</thought>b<thought>c<thought>d</thought>e",
     "|T:ab|R:cd|T:e"},
    {"qwen-coder", "", "a</tool_call>b<function=c>d<parameter=e></parameter>"
     "</function>", "|T:ab<function=c>d<parameter=e></parameter></function>"},
    {"qwen-coder", "", "a <tool_call> \nb", "|T:a b"},
    {"qwen-coder", "", "a\n<tool_call> b", "|T:ab"},
    {"solar", "", "<|content|>a<|think|>b<|content|>c<|tool_calls|>d"
     "<|tool_call:begin|>e<|tool_call:name|>f<|tool_call:args|>g"
     "<|tool_call:end|>h<|end|>", "|T:abcdefgh"},
    {"solar", "", "<|content|>a<|begin|>assistant<|content|>b<|calls|>c"
     "<|think|>d<|tool_calls|>e<|begin|>x<|content|>f",
     "|T:ab|R:d<|tool_calls|>e|T:f"},
    {"hcx-think", "", "\na<|im_start|>assistant\nb<|im_end|>c", "|T:ab"},
    {"hcx-think", "", "/think\na</think>\n -> tool/function_call\n<|im_end|>",
     "|R:a</think>\n -> tool/function_call"},

    /* what is in a call's place and is none */
    {"json", "", "<tool_call>{\"a\": 1}</tool_call>끝", "|T:{\"a\": 1}끝"},
    {"json", "", "<tool_call>{\"name\": \"\"}</tool_call>", "|T:{\"name\": \"\"}"},
    {"json", "", "<tool_call>{\"name\": 1234}</tool_call>", "|T:{\"name\": 1234}"},
    {"json", "", "<tool_call>{\"a\": {\"name\": \"f\"}}</tool_call>",
     "|T:{\"a\": {\"name\": \"f\"}}"},
    {"json", "", "<tool_call>{\"parameters\": [1, [2]], \"name\": \"f\"}"
     "</tool_call>", "|C:f|A:[1, [2]]|E:"},
    {"json", "", "<tool_call>[]</tool_call>끝", "|T:[]끝"},
    {"json", "", "<tool_call>{\"name\": \"a\"}</tool_call><tool_call>[]"
     "</tool_call>끝", "|C:a|A:{}|E:|T:[]끝"},
    {"json", "", "<tool_call>{\"name\": 12345}</tool_call>끝",
     "|T:{\"name\": 12345}끝"},
    {"json", "", "<tool_call>\n{\"name\": \"a\"} 그리고</tool_call>",
     "|C:a|A:{}|E:|T:그리고"},
    {"json", "", "<tool_call>{\"name\": \"a\\q\"}</tool_call>끝",
     "|T:{\"name\": \"a\\q\"}끝"},
    {"json", "", "<tool_call>{\"name\": \"a\nb</tool_call>끝",
     "|T:{\"name\": \"a\nb끝"},
    {"json", "", "<tool_call>{\"name\": \"a\", </tool_call>끝",
     "|T:{\"name\": \"a\", 끝"},
    {"json", "", "<tool_call>{\"x\": \"</tool_call>\"}</tool_call>끝",
     "|T:{\"x\": \"</tool_call>\"}끝"},
    {"json", "", "<tool_call>{\"name\": \"a\"}<tool_call>{\"name\": \"b\"}",
     "|C:a|A:{}|E:|C:b|A:{}|E:"},
    {"json", "", "<tool_call>는 <tool_call>{\"name\": \"b\"}</tool_call>",
     "|T:는 |C:b|A:{}|E:"},
    {"json", "", "<tool_call>{\"name\": \"a\", \"arguments\": \"{\\\"x\\\": 1}\"}"
     "</tool_call>", "|C:a|A:\"{\\\"x\\\": 1}\"|E:"},
    {"json", "", "<tool_call>{\"x\": {\"name\": \"no\"}, \"name\" :\t\"a\" , "
     "\"arguments\" : [ 1 , {} ] }</tool_call>", "|C:a|A:[ 1 , {} ]|E:"},
    {"glm", "", "<tool_call> 이란 태그</tool_call>", "|T:이란 태그"},
    {"glm", "", "<tool_call></tool_call>끝", "|T:끝"},
    {"glm", "", "<tool_call>f<tool_call>g</tool_call>", "|T:f|C:g|A:{}|E:"},
    {"glm", "", "<tool_call>{\"name\": \"f\"}</tool_call>",
     "|T:{\"name\": \"f\"}"},
    {"solar", "", "<|tool_calls|><|tool_call:name|><|tool_call:args|>{}"
     "<|tool_call:end|><|calls|>", "|T:{}"},
    /* no arguments */
    {"solar", "", "<|tool_calls|><|tool_call:name|>f<|tool_call:args|> "
     "<|tool_call:end|><|tool_call:name|>g<|tool_call:end|>",
     "|C:f|A: {}|E:|C:g|A:{}|E:"},
    {"glm", "", "<tool_call>f<arguments>{}</tool_call>끝",
     "|C:f|A:{}|E:|T:끝"},
};

TEST(splits_every_way)
{
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        const char *text = answers[i].text;
        size_t n = strlen(text);
        bool fine = true;
        for (size_t a = 0; a <= n && fine; a++)
            for (size_t b = a; b <= n && fine; b++) {
                /* a piece longer than any mark is like the whole rest */
                if (!is_border(text, a) || !is_border(text, b)
                    || (b > a + 30 && b < n))
                    continue;
                fine = CHECK_EQ(split_at(answers[i].format, answers[i].prompt,
                                      text, a, b), KSLLM_OK)
                       && CHECK_STR(parts, answers[i].want);
                if (!fine)
                    printf("    answer %zu cut at %zu and %zu\n", i, a, b);
            }
    }
}

/* Pieces of an answer that comes at once: full ones, of whole characters. */
static size_t n_pieces, n_bytes, smallest;

static int count_piece(void *ctx, ksllm_part part, ksllm_text text)
{
    CHECK_EQ(part, KSLLM_PART_TEXT);
    CHECK(!ctx || is_utf8(text.data, text.size));
    n_pieces++;
    n_bytes += text.size;
    smallest = min_size(smallest, text.size);
    return 0;
}

static void count_pieces(const char *text, size_t n, bool utf8)
{
    ksllm_splitter_options o;
    ksllm_splitter s;
    ksllm_splitter_options_init(&o);
    o.format = "json";
    o.on_part = count_piece;
    o.ctx = utf8 ? &o : NULL;
    n_pieces = n_bytes = 0;
    smallest = SIZE_MAX;
    CHECK_OK(ksllm_splitter_init(&s, NULL, &o, &err), err);
    CHECK_OK(ksllm_splitter_next(&s, text, n, &err), err);
    CHECK_OK(ksllm_splitter_end(&s, &err), err);
    CHECK_EQ(n_bytes, n);
}

TEST(pieces_are_full)
{
    char text[1500];
    for (size_t i = 0; i < sizeof text; i += 3)
        memcpy(text + i, "한", 3);
    count_pieces(text, 1500, true);
    CHECK_EQ(n_pieces, 12);
    CHECK_EQ(smallest, 114);            /* 11 times 126 */
    memset(text, 'a', sizeof text);
    count_pieces(text, 1250, true);
    CHECK_EQ(n_pieces, 10);
    CHECK_EQ(smallest, 125);            /* a character of four would not fit */
    memset(text, 0x80, sizeof text);    /* no character begins */
    count_pieces(text, 1280, false);
    CHECK_EQ(n_pieces, 10);
    CHECK_EQ(smallest, 128);
}

/* A token that ends whole answers elsewhere ends the thinking here. */
TEST(ends_of_thinking)
{
    split s;
    const split_format *f = split_by_name("solar");
    split_begin(&s, f, str_of("<|begin|>assistant<|think|>"), NULL, 0, NULL,
        NULL);
    CHECK(split_ends_thinking(&s, str_of("<|end|>")));
    CHECK(split_ends_thinking(&s, str_of("<|begin|>")));
    CHECK(!split_ends_thinking(&s, str_of("<|content|>")));
    CHECK(!split_ends_thinking(&s, str_of("<|end|")));
    CHECK(!split_ends_thinking(&s, str_of("")));
    split_begin(&s, f, str_of("<|begin|>assistant<|content|>"), NULL, 0, NULL,
        NULL);
    CHECK(!split_ends_thinking(&s, str_of("<|end|>")));
}

/* A byte of 0 is no part of a name, no bracket and no comma. */
TEST(zeros_in_a_list_of_calls)
{
    static const struct {
        const char *call;
        size_t zero;
        const char *want;
    } t[] = {{"[f?(a=1)]", 2, "|T:[f"}, {"[f(a?=1)]", 4, "|T:[f(a"},
        {"[f(a=?1)]", 5, "|T:[f(a="},
        {"[f(a='x'?y')]", 8, "|C:f|A:{\"a\": \"x'\\u0000y\"}|E:"}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char call[32] = {0};
        ksllm_splitter s = splitter_of("lfm2", "<|tool_call_start|>");
        memcpy(call, t[i].call, strlen(t[i].call));
        call[t[i].zero] = 0;
        give(&s, call, strlen(t[i].call));
        give(&s, "<|tool_call_end|>", 17);
        CHECK_OK(ksllm_splitter_end(&s, &err), err);
        CHECK_STR(parts, t[i].want);
    }
}

TEST(unfinished_calls)
{
    static const char *const cut[][2] = {
        {"json", "<tool_call>{\"name\": \"a\", \"argu"},
        {"glm", "<tool_call>f\n<arg_key>a"},
        {"glm", "<tool_call>f\n<arg_key>a</arg_key><arg_value>1"},
        {"solar", "<|tool_calls|><|tool_call:name|>f<|tool_call:args|>{\"a"},
        {"qwen-coder", "<tool_call><function=f><parameter=a>1</parameter>"},
        {"qwen-coder", "<tool_call>\n<functio"},
        {"qwen-coder", "<tool_call><function=f><parameter=a>1</parameter></func"},
        {"qwen-coder", "<tool_call><function=f>"},
        {"json", "<tool_call>"},
        {"json", "<tool_call>{\"name\": \"a\", \"x\": \"</tool_call>"},
        {"vaetki", "<tool_start>{\"name\": \"a\""},
        {"hcx-think", " -> tool/function_call\n[{\"name\": \"a"},
        {"solar", "<|tool_calls|><|tool_call:name|>f<|tool_call:args|>{}<|tool"},
        {"glm", "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>x"
                "</tool_call>"},
        {"glm", "<tool_call>f"},
        {"lfm2", "<|tool_call_start|>[f(a=1)]"},
        {"gemma4", "<|tool_call>call:f{a:1}"},
        /* arguments that are no JSON, or not all of it */
        {"solar", "<|tool_calls|><|tool_call:name|>f<|tool_call:args|>{\"a\":"
                  "<|tool_call:end|><|calls|>"},
        {"solar", "<|tool_calls|><|tool_call:name|>f<|tool_call:args|>{} x"
                  "<|tool_call:end|><|calls|>"},
        {"glm", "<tool_call>f<arguments>{'a': 1}</arguments></tool_call>"},
    };
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++)
        for (size_t a = 0; a <= strlen(cut[i][1]); a++) {
            bool fine = CHECK_EQ(split_at(cut[i][0], "", cut[i][1], a, a),
                                 KSLLM_ERR_FORMAT)
                        && CHECK(strstr(parts, "|E:") == NULL)
                        && CHECK(strstr(parts, "|T:") == NULL);
            if (!fine) {
                printf("    %s: %s\n", cut[i][0], cut[i][1]);
                break;
            }
        }
    /* the ones before it are whole */
    CHECK_EQ(split_whole("json", "", "<tool_call>[{\"name\": \"a\"}, {\"nam"),
             KSLLM_ERR_FORMAT);
    CHECK_STR(parts, "|C:a|A:{}|E:");
    CHECK_EQ(split_whole("json", "", "<tool_call>{\"name\": \"a\"}</tool_call>"
        "<tool_call>"), KSLLM_ERR_FORMAT);
    CHECK_STR(parts, "|C:a|A:{}|E:");
    /* one of several has no end: the others stay */
    CHECK_EQ(split_whole("solar", "", "<|tool_calls|><|tool_call:name|>f"
        "<|tool_call:args|>{\"a\" 1}<|tool_call:end|><|tool_call:name|>g"
        "<|tool_call:args|>{}<|tool_call:end|>"), KSLLM_ERR_FORMAT);
    CHECK_STR(parts, "|C:f|A:{\"a\" |C:g|A:{}|E:");
    CHECK_EQ(split_whole("solar", "", "<|tool_calls|><|tool_call:name|>f"
        "<|tool_call:args|>{<|tool_call:end|><|tool_call:name|>g"
        "<|tool_call:args|>]<|tool_call:end|>"), KSLLM_ERR_FORMAT);
    CHECK_STR(parts, "|C:f|A:{|C:g");
}

/* Calls and buffers of every size: a call that fits is whole, one that does
 * not is no call, and no character is cut. */
TEST(long_calls)
{
    static const struct {
        const char *format, *text, *whole;
        size_t need;
    } t[] = {
        {"json", "<tool_call>{\"name\": \"긴이름\"}</tool_call>다음",
         "|C:긴이름|A:{}|E:|T:다음", 21},
        {"json", "<tool_call>[{\"name\": \"긴이름\"}, {\"name\": \"긴이름\"}]"
         "</tool_call>다음", "|C:긴이름|A:{}|E:|C:긴이름|A:{}|E:|T:다음", 22},
        {"glm", "<tool_call>이름\n<arg_key>키</arg_key><arg_value>값값</arg_value>"
         "\n</tool_call>다음", "|C:이름|A:{\"키\": \"값값\"}|E:|T:다음", 9},
        {"qwen-coder", "<tool_call><function=f><parameter=키>값</parameter> \n "
         "</function></tool_call>다음", "|C:f|A:{\"키\": \"값\"}|E:|T:다음", 6},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        for (room_size = 0; room_size < 40; room_size++) {
            bool fits = room_size >= t[i].need;
            ksllm_status status = split_whole(t[i].format, "", t[i].text);
            CHECK_EQ(lost, !fits);
            CHECK(fits == (strcmp(parts, t[i].whole) == 0));
            CHECK(strstr(parts, "다음") != NULL);
            if (fits)
                CHECK_OK(status, err);
            /* of a call that has begun the end is missing, and it is said */
            bool begun = strstr(parts, "|C:") != NULL;
            if (!fits && begun && t[i].format[0] != 'j')
                CHECK_EQ(status, KSLLM_ERR_FORMAT);
            if (!fits && t[i].format[0] != 'j')
                CHECK(strstr(parts, "|E:") == NULL);
        }
    room_size = 20;
    split_whole("json", "", t[0].text);     /* in the middle of a character */
    CHECK_STR(parts, "|T:{\"name\": \"긴이름\"다음");
    room_size = 17;
    split_whole("json", "", t[0].text);
    CHECK_STR(parts, "|T:{\"name\": \"긴이다음");
    /* arguments that are not kept need no room */
    room_size = 1;
    CHECK_OK(split_whole("solar", "", "<|tool_calls|><|tool_call:name|>f"
        "<|tool_call:args|>{\"a\": 1}<|tool_call:end|>"), err);
    CHECK_STR(parts, "|C:f|A:{\"a\": 1}|E:");
    CHECK(!lost);
    /* but in a prompt they do */
    split_whole("solar", "<|begin|>assistant<|tool_calls|><|tool_call:name|>f"
        "<|tool_call:args|>{\"a\": 1", "}<|tool_call:end|>");
    CHECK(lost && strstr(parts, "|E:") == NULL);
    room_size = 512;
}

static char given[2000];
static size_t n_given;
static int keep(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (part <= KSLLM_PART_THINKING && n_given + text.size <= sizeof given) {
        memcpy(given + n_given, text.data, text.size);
        n_given += text.size;
    }
    return 0;
}

/* A model may write bytes that are no text: they go through. */
TEST(bytes_that_are_no_text)
{
    for (size_t n = 1; n < 300; n++)
        for (int cap = 0; cap < 8; cap++) {
            char text[320] = "<tool_call>";
            size_t at = cap == 0 ? 0 : strlen(text);
            for (size_t i = 0; i < n; i++)
                text[at + i] = (char)(i % 7 ? 0x80 + i % 64 : 0xff);
            ksllm_splitter s = splitter_of("glm", NULL);
            split *inner = (split *)&s;
            inner->on_part = keep;
            inner->cap = cap == 0 ? room_size : (size_t)cap;
            n_given = 0;
            ksllm_status status = ksllm_splitter_next(&s, text, at + n, &err);
            ksllm_splitter_end(&s, &err);
            /* a name that does not fit is text from where it was full */
            if (cap == 0 || n > (size_t)cap) {
                CHECK_EQ(status, cap == 0 ? KSLLM_OK : KSLLM_ERR_BUFFER);
                CHECK(n_given <= n && n_given + 2 >= n);
                CHECK(memcmp(given + n_given - 1, text + at + n - 1, 1) == 0);
            }
        }
}

/* The callback's word is final. */
TEST(stops)
{
    static const char text[] = "<think>음</think>답<tool_call>{\"name\": \"f\"}"
                               "</tool_call>끝";
    static const char *const want[] = {"|R:음", "|R:음|T:답", "|R:음|T:답|C:f",
        "|R:음|T:답|C:f|A:{}", "|R:음|T:답|C:f|A:{}|E:",
        "|R:음|T:답|C:f|A:{}|E:|T:끝"};
    for (int i = 0; i < 6; i++) {
        ksllm_splitter s = splitter_of("json", NULL);
        stop_after = i + 1;
        CHECK_EQ(ksllm_splitter_next(&s, text, KSLLM_NUL, &err),
                 KSLLM_ERR_CANCELLED);
        CHECK_STR(parts, want[i]);
        CHECK_EQ(ksllm_splitter_next(&s, text, KSLLM_NUL, &err),
                 KSLLM_ERR_CANCELLED);
        CHECK_EQ(ksllm_splitter_end(&s, &err), KSLLM_ERR_CANCELLED);
        CHECK_STR(parts, want[i]);
    }
    ksllm_splitter s = splitter_of("json", NULL);
    stop_after = 1;
    CHECK_OK(ksllm_splitter_next(&s, "\n", 1, &err), err);
    CHECK_EQ(ksllm_splitter_end(&s, &err), KSLLM_ERR_CANCELLED);
}

TEST(splitter_arguments)
{
    ksllm_splitter_options o;
    ksllm_splitter s;
    char buffer[8];
    size_t n = 0;
    for (const char *f; (f = ksllm_splitter_format_at(n)) != NULL; n++) {
        ksllm_splitter_options_init(&o);
        o.format = f;
        CHECK_OK(ksllm_splitter_init(&s, NULL, &o, &err), err);
        CHECK_OK(ksllm_splitter_next(&s, "a", KSLLM_NUL, &err), err);
        CHECK_OK(ksllm_splitter_next(&s, NULL, 0, &err), err);
        CHECK_OK(ksllm_splitter_end(&s, &err), err);
        for (size_t i = 0; i < n; i++)
            CHECK(strcmp(f, ksllm_splitter_format_at(i)) != 0);
    }
    CHECK_EQ(n, 10);
    CHECK(ksllm_splitter_format_at(SIZE_MAX) == NULL);
    CHECK_EQ(ksllm_splitter_init(NULL, NULL, &o, &err), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_splitter_init(&s, NULL, NULL, &err), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_splitter_next(&s, "a", 1, &err), KSLLM_ERR_ARGUMENT);
    o.format = "no such";
    CHECK_EQ(ksllm_splitter_init(&s, NULL, &o, &err), KSLLM_ERR_ARGUMENT);
    o.format = NULL;
    CHECK_EQ(ksllm_splitter_init(&s, NULL, &o, &err), KSLLM_ERR_ARGUMENT);
    o.format = "json";
    o.buffer_size = 8;
    CHECK_EQ(ksllm_splitter_init(&s, NULL, &o, &err), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_splitter_end(&s, &err), KSLLM_ERR_ARGUMENT);
    o.buffer = buffer;
    CHECK_OK(ksllm_splitter_init(&s, NULL, &o, &err), err);
    CHECK_EQ(ksllm_splitter_next(&s, NULL, 1, &err), KSLLM_ERR_ARGUMENT);
    /* a caller with an older, smaller struct */
    memset(&o, 0x55, sizeof o);
    ksllm_splitter_options_init_sized(&o, offsetof(ksllm_splitter_options, ctx));
    CHECK_EQ(o.size, offsetof(ksllm_splitter_options, ctx));
    CHECK(o.on_part == NULL && o.prompt.size == KSLLM_NUL);
    CHECK_HEX((uintptr_t)o.ctx & 0xffff, 0x5555);
}

TEST(splitter_by_template)
{
    static const struct { const char *tpl, *text, *want; } t[] = {
        {"..<arg_key>..", "<tool_call>f</tool_call>", "|C:f|A:{}|E:"},
        {"..<function=..", "<tool_call><function=f></tool_call>",
         "|C:f|A:{}|E:"},
        {"..<tool_start>..", "<tool_start>{\"name\": \"f\"}<tool_end>",
         "|C:f|A:{}|E:"},
        {"..<thought>..", "<thought>a</thought>b", "|R:a|T:b"},
        {".. -> tool/function_call\n", "/think\na<|im_end|>", "|R:a"},
        {"..<|tool_call:args|>..", "<|think|>a<|end|>", "|R:a"},
        {"..", "<think>a</think>b", "|R:a|T:b"},
    };
    char buffer[256];
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        ksllm_model *m = fx_open_vocab(t[i].tpl, FX_BPE, &file);
        ksllm_splitter_options o;
        ksllm_splitter s;
        if (!m)
            return;
        begin_parts();
        ksllm_splitter_options_init(&o);
        o.buffer = buffer;
        o.buffer_size = sizeof buffer;
        o.on_part = collect;
        CHECK_OK(ksllm_splitter_init(&s, m, &o, &err), err);
        CHECK_OK(ksllm_splitter_next(&s, t[i].text, KSLLM_NUL, &err), err);
        CHECK_OK(ksllm_splitter_end(&s, &err), err);
        CHECK_STR(parts, t[i].want);
        fx_close(m, &file);
    }
}

/* Answers of random marks and bytes: nothing is read or written astray. */
TEST(random_answers)
{
    uint64_t seed = test_seed;
    for (int i = 0; i < 20000 / TEST_ONE_OF; i++) {
        char text[400] = "";
        size_t n = 0;
        const char *format =
            answers[fx_below(&seed, sizeof answers / sizeof answers[0])]
                .format;
        while (n < 300) {
            const char *from = answers[fx_below(
                &seed, sizeof answers / sizeof answers[0])].text;
            size_t size = strlen(from), at = fx_below(&seed, (uint32_t)size);
            size_t len = 1 + fx_below(&seed, 30);
            while (at && !is_border(from, at))
                at--;
            if (len > size - at)
                len = size - at;
            while (at + len < size && !is_border(from, at + len))
                len++;
            memcpy(text + n, from + at, len);
            n += len;
        }
        text[n] = 0;
        size_t a = fx_below(&seed, (uint32_t)n);
        while (!is_border(text, a))
            a++;
        ksllm_status whole = split_at(format, "", text, n, n);
        char first[sizeof parts];
        memcpy(first, parts, sizeof parts);
        CHECK_EQ(split_at(format, "", text, a, a), whole);
        CHECK_STR(parts, first);
        CHECK_EQ(split_at_random(format, "", text, 1 + (uint32_t)i % 20, &seed),
                 whole);
        CHECK_STR(parts, first);
    }
}

/* How each format writes a piece of thinking, of text, and a call with one
 * argument (name, key, value). */
#define JSON_CALL "{\"name\": \"%s\", \"arguments\": {\"%s\": \"%s\"}}"
#define HCX_NEXT "<|im_end|>\n<|im_start|>assistant"

static const struct {
    const char *format, *think, *text, *call;
} wires[] = {
    {"json", "\n<think>\n%s\n</think>\n\n", "%s",
     "\n<tool_call>\n" JSON_CALL "\n</tool_call>\n"},
    {"glm", "\n<think>%s</think>\n", "%s", "\n<tool_call>%s\n<arg_key>%s"
     "</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>"},
    {"qwen-coder", "<think>\n%s\n</think>\n\n", "%s", "\n\n<tool_call>\n"
     "<function=%s>\n<parameter=%s>\n%s\n</parameter>\n</function>\n"
     "</tool_call>"},
    {"hcx-think", "/think\n%s" HCX_NEXT, "\n%s" HCX_NEXT,
     " -> tool/function_call\n[" JSON_CALL "]" HCX_NEXT},
    {"solar", "<|think|>%s<|end|><|begin|>assistant", "<|content|>%s<|end|>"
     "<|begin|>assistant", "<|tool_calls|><|tool_call:begin|>a1b2"
     "<|tool_call:name|>%s<|tool_call:args|>{\"%s\": \"%s\"}"
     "<|tool_call:end|><|calls|><|begin|>assistant"},
    {"vaetki", "<think>\n%s\n</think>\n", "%s",
     "<tool_start>" JSON_CALL "<tool_end>"},
    {"thought", "<thought>\n%s\n</thought>\n\n", "%s", NULL},
};

/* Korean text with beginnings of marks in it. */
static const char *random_text(char *text, bool lines, uint64_t *seed)
{
    static const char *const bits[] = {"서울은 ", "a", "👩‍👩‍👧", "각", "> ", "|",
        "<", "<t", "</", "<|", "<tool_cal", "</tool_call", "<think", "</think",
        "<thought", "</though", "</arg_valu", "<arg_key", "</paramete",
        "<functio", "<|im_en", "<|im_start|>assistan", "<|end|", "<|content|",
        "<|tool_call:en", "<tool_star", "<tool_end", "\n", "\n\n"};
    size_t n_bits = sizeof bits / sizeof bits[0] - (lines ? 0 : 2);
    strcpy(text, "한");
    for (uint32_t k = fx_below(seed, 8); k > 0; k--) {
        const char *bit = bits[fx_below(seed, (uint32_t)n_bits)];
        /* no mark may become whole, no line end be the last */
        if (*bit == '>' || *bit == '|' || *bit == '\n')
            strcat(text, *bit == '\n' ? "." : " ");
        strcat(text, bit);
        if (*bit == '\n')
            strcat(text, "끝");
    }
    return text;
}

TEST(marks_never_leak)
{
    uint64_t seed = test_seed;
    for (int i = 0; i < 20000 / TEST_ONE_OF; i++) {
        size_t w = (size_t)i % (sizeof wires / sizeof wires[0]);
        char text[4000] = "", want[2000] = "", bit[300];
        uint32_t last = 3;
        for (uint32_t k = 1 + fx_below(&seed, 5); k > 0; k--) {
            uint32_t kind = fx_below(&seed, wires[w].call ? 3 : 2);
            char *to = text + strlen(text), *say = want + strlen(want);
            size_t room = (size_t)(text + sizeof text - to);
            size_t space = (size_t)(want + sizeof want - say);
            if (kind == last && kind != 2)
                continue;
            last = kind;
            random_text(bit, kind != 2, &seed);
            if (kind == 2) {
                snprintf(to, room, wires[w].call, "날씨", "도시", bit);
                snprintf(say, space, "|C:날씨|A:{\"도시\": \"%s\"}|E:", bit);
            } else {
                snprintf(to, room, kind ? wires[w].text : wires[w].think, bit);
                snprintf(say, space, "|%c:%s", kind ? 'T' : 'R', bit);
            }
        }
        bool fine = CHECK_EQ(split_at_random(wires[w].format, "", text,
                                             1 + fx_below(&seed, 20), &seed),
                             KSLLM_OK)
                    && CHECK_STR(parts, want);
        if (!fine) {
            printf("    %s: %s\n", wires[w].format, text);
            return;
        }
    }
}

/* ---- every sequence of marks ---------------------------------------------- */

/* What stands between two marks: nothing, a name or value, a long one, a call,
 * JSON that is none, white space. */
static char long_value[400];
static const char *const between[] = {"", "키", long_value,
    "{\"name\": \"f\", \"arguments\": {\"a\": \"<\"}}", "{\"a\": \"", " \n "};
enum { N_BETWEEN = 6 };

typedef struct walk {
    const split_format *format;
    const char *marks[32];
    uint32_t n_marks;
    uint64_t seed, n;
} walk;

static void add_mark(walk *w, const char *text)
{
    for (uint32_t i = 0; i < w->n_marks; i++)
        if (strcmp(w->marks[i], text) == 0)
            return;
    w->marks[w->n_marks++] = text;
}

/* The same answer in one piece, in two, and byte by byte. */
static bool walk_one(walk *w, const char *text)
{
    static const size_t rooms[] = {0, 1, 7, 64, 512};
    static char first[sizeof parts];
    size_t n = strlen(text);
    const char *format = w->format->name;
    room_size = rooms[fx_below(&w->seed, 5)];
    w->n++;
    ksllm_status whole = split_whole(format, "", text);
    bool was_lost = lost;
    memcpy(first, parts, sizeof parts);
    bool fine = true;
    for (uint32_t most = 1; most <= 30 && fine; most += 29)
        fine = CHECK_EQ(split_at_random(format, "", text, most, &w->seed),
                        whole)
               && CHECK_EQ(lost, was_lost) && CHECK_STR(parts, first);
    if (!fine)
        printf("    %s, room for %zu: %s (%zu bytes)\n", format, room_size,
               text, n);
    return fine;
}

/* Sequence number `k` of `length` marks, with `fill` between them; fill
 * N_BETWEEN: of all kinds. */
static bool walk_sequence(walk *w, uint64_t k, int length, uint32_t fill)
{
    char text[5000];
    size_t n = 0;
    for (int i = 0; i <= length; i++) {
        const char *mark = i < length ? w->marks[k % w->n_marks] : "";
        const char *value = between[fill < N_BETWEEN ? fill
            : fx_below(&w->seed, N_BETWEEN)];
        k /= w->n_marks;
        if (i > 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", value);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", mark);
    }
    return walk_one(w, text);
}

/* All sequences of up to WALK marks (environment; 5 is some minutes), and
 * some of the longer ones. */
TEST(every_sequence_of_marks)
{
    const char *env = getenv("WALK");
    int deep = env ? atoi(env) : 2;
    uint64_t total = 0;
    for (int i = 0; i < 99; i++)
        strcat(long_value, i % 5 > 0 ? "값" : "<");
    for (size_t f = 0; f < KS_LEN(SPLIT_FORMATS); f++) {
        walk w = {.format = &SPLIT_FORMATS[f], .seed = test_seed + f};
        for (const split_mark *m = w.format->marks; m->text; m++) {
            add_mark(&w, m->text);
            if (m->then)
                add_mark(&w, m->then);
        }
        if (w.format->opening)
            add_mark(&w, w.format->opening);
        if (!w.n_marks)
            add_mark(&w, "<think>");
        uint64_t count = 1;
        for (int length = 1; length <= 5; length++) {
            count *= w.n_marks;
            uint64_t most = length <= deep ? count : 150 / TEST_ONE_OF;
            for (uint64_t i = 0; i < most && i < count; i++)
                for (uint32_t fill = 0; fill <= N_BETWEEN; fill++)
                    if (!walk_sequence(&w, most < count
                            ? fx_next(&w.seed) % count : i, length, fill))
                        return;
        }
        total += w.n;
    }
    room_size = 512;
    if (env)
        printf("    %llu answers\n", (unsigned long long)total);
}

/* Nothing takes longer than its length asks for. */
TEST(answers_of_any_form_are_fast)
{
    static const char *const bits[][2] = {
        {"json", "<tool_call>{\""}, {"json", "<tool_call>"}, {"json", "\n"},
        {"json", "<tool_call>[[[["}, {"glm", "<tool_call>f"},
        {"glm", "<tool_call>f<arg_key>a</arg_key><arg_value>"},
        {"glm", "</arg_value> "}, {"qwen-coder", "<tool_call> "},
        {"qwen-coder", "<tool_call><function=f><parameter=a>1</parameter> "},
        {"solar", "<|tool_call"}, {"hcx-think", " -> tool/function_call"},
        {"vaetki", "<tool_start>{\"name\":"}, {"thought", "<thought"},
    };
    static char big[1 << 20], text[1 << 18];
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        size_t n = strlen(bits[i][1]);
        split s;
        for (size_t k = 0; k < sizeof text; k++)
            text[k] = bits[i][1][k % n];
        begin_parts();
        split_begin(&s, split_by_name(bits[i][0]), (str){NULL, 0}, big,
                    sizeof big, NULL, NULL);
        clock_t begin = clock();
        split_feed(&s, (str){text, sizeof text}, &err);
        split_finish(&s, &err);
        double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
        if (!CHECK(seconds < 2))    /* 0.05; sanitizers and emulators */
            printf("    %s, %s: %.2f s\n", bits[i][0], bits[i][1], seconds);
    }
}

/* As deep as the splitter takes arguments, a message with them can be read. */
TEST(deep_arguments)
{
    for (int depth = 44; depth < 54; depth++) {
        char raw[300] = "<tool_call>{\"name\": \"f\", \"arguments\": ", text[64];
        char json[600], end[100] = "";
        for (int i = 1; i < depth; i++)
            strcat(raw, "["), strcat(end, "]");
        snprintf(raw + strlen(raw), 200, "%s}</tool_call>", end);
        bool ok = split_whole("json", "", raw) == KSLLM_OK
                  && strstr(parts, "|C:") != NULL;
        CHECK_EQ(ok, depth <= JSON_DEPTH);
        snprintf(json, sizeof json, "[{\"role\": \"assistant\", "
                 "\"tool_calls\": [{\"function\": {\"arguments\": %s}}]}]",
                 strchr(raw, '['));
        char *tail = strstr(json, "}</tool_call>");
        memmove(tail, tail + 13, strlen(tail + 13) + 1);
        if (!ok)
            continue;
        ksllm_chat chat;
        ksllm_chat_init(&chat);
        chat.template_text.data = "{{ messages[0].role }}";
        chat.messages.data = json;
        CHECK_EQ(ksllm_chat_render(NULL, &chat, text, sizeof text, &err), 9);
    }
}

/* ---- JSON ------------------------------------------------------------------ */

TEST(json_strings)
{
    static const struct { const char *text; size_t n; const char *want; } t[] = {
        {"", 0, "\"\""}, {NULL, 0, "\"\""}, {"한글 👩", KSLLM_NUL, "\"한글 👩\""},
        {"\"\\/\b\f\n\r\t\x01\x1f\x7f", KSLLM_NUL,
         "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"\xff" "a\xea\xb0", 4, "\"\xef\xbf\xbd" "a\xef\xbf\xbd\""},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        size_t n = strlen(t[i].want);
        for (size_t cap = 0; cap <= n + 2; cap++) {
            char out[80];
            memset(out, '#', sizeof out);
            CHECK_EQ(ksllm_json_string(t[i].text, t[i].n, cap ? out : NULL,
                                       cap), n);
            size_t got = cap < n ? cap : n;
            CHECK(memcmp(out, t[i].want, got) == 0 && out[got] == '#');
        }
    }
    CHECK_EQ(ksllm_json_string(NULL, 1, NULL, 0), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_json_string("a", 1, NULL, 1), KSLLM_ERR_ARGUMENT);
}

/* Texts of JSON's characters: both readers here say the same of each. */
TEST(json_values)
{
    static const char *const bits[] = {"{", "}", "[", "]", ",", ":", "\"a\"",
        "\"", "\\", "u00e9", "\\u00E9", "\\n", "0", "1", "-", ".", "e", "+",
        "true", "false", "null", "nul", " ", "\n", "한", "\x1f", "12", "\"k\":"};
    uint64_t seed = test_seed;
    int good = 0;
    for (int i = 0; i < 300000; i++) {
        char text[200] = "";
        for (uint32_t k = fx_below(&seed, 9); k > 0; k--)
            strcat(text, bits[fx_below(&seed, KS_LEN(bits))]);
        bool is = is_json(text);
        good += is;
        if (!CHECK_EQ(json_is_value((const u8 *)text, strlen(text)), is)) {
            printf("    %s\n", text);
            return;
        }
    }
    CHECK(good > 1000);
}

/* ---- a template that runs out ------------------------------------------- */

static chat_ctx ctx, begun;     /* begun: before the template is read */

/* The text that a template makes with so many steps and so much memory, in
 * `to`; its length or a status. */
static i64 run_with(const char *text, u64 steps, size_t left, char *to)
{
    ctx = begun;
    memset(ctx.sinks, 0, CHAT_BLOCKS * sizeof *ctx.sinks);
    memset(&err, 0, sizeof err);
    chat_allow(&ctx, 0, 0);
    ctx.most_steps = steps;
    ctx.left = left < ctx.left ? left : ctx.left;
    chat_run(&ctx, str_of(text));
    if (ctx.status) {
        CHECK_EQ(err.status, ctx.status);
        return ctx.status;
    }
    chat_val v = chat_built(chat_sink(&ctx));
    memcpy(to, v.u.s, v.n);
    to[v.n] = 0;
    return v.n;
}

/* The template ends where its steps or its memory do, with the reason, and
 * else as if there were no end to them. */
static void run_out(const char *text, u64 most, char *want, char *got)
{
    i64 n = run_with(text, UINT64_MAX, SIZE_MAX, want);
    u64 steps = ctx.steps, stride = 1 + steps / most;
    if (n == KSLLM_ERR_BUFFER || (n >= 0 && !CHECK(n < 20000)))
        return;
    for (u64 k = 0; k < steps; k += stride) {
        i64 r = run_with(text, k, SIZE_MAX, got);
        CHECK_EQ(r, KSLLM_ERR_FORMAT);
        if (!CHECK(strstr(err.text, "steps") != NULL))
            printf("    %s: %s\n", text, err.text);
    }
    CHECK_EQ(run_with(text, steps, SIZE_MAX, got), n);
    CHECK(n < 0 || strcmp(got, want) == 0);
    /* each allocation fails once, the last one first */
    size_t took = (size_t)(ctx.free - begun.free);
    for (u64 k = 0; took && k < most; k++) {
        i64 r = run_with(text, UINT64_MAX, took - 8, got);
        if (!CHECK_EQ(r, KSLLM_ERR_BUFFER))
            printf("    %s: %s\n", text, err.text);
        took = (size_t)(ctx.free - begun.free);
    }
}

TEST(templates_run_out_of_steps_and_memory)
{
    enum { ROOM = 1 << 20 };
    static char want[20001], got[20001];
    ksllm_chat chat;
    ksllm_chat_init(&chat);
    chat.memory = malloc(ROOM);
    chat.memory_size = ROOM;
    chat.messages.data = "[]";
    chat.variables.data = TEMPLATE_SWITCHES;
    chat_begin(&ctx, &chat, NULL, &err);
    chat_first_names(&ctx);
    chat_globals(&ctx, &chat, NULL);
    CHECK_EQ(ctx.status, KSLLM_OK);
    begun = ctx;
    size_t n = sizeof template_rows / sizeof *template_rows;
    for (size_t i = 0; i < n; i++)
        run_out(template_rows[i].text, 200, want, got);
    free(chat.memory);
}

TEST_MAIN
