/* test_schema.c - JSON Schema as programs: which texts they take, what is
 * refused and where, how much work and memory it may cost.
 *
 * White-box: programs are run byte by byte by the machine of naive.h, without a
 * model. `make check-schemas` compares with what others say is valid.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"
#include "naive.h"

static ksllm_error err;
static u32 n_ignored;
static u64 first_ignored;

typedef struct how { bool ordered, lenient, compact; u32 max_ops; } how;

/* A program of `schema`; the status. */
static ksllm_status compile(pro_build *b, str schema, how h, ksllm_allocator a)
{
    sch_options o = {.ordered = h.ordered, .lenient = h.lenient,
        .max_space = h.compact ? 0 : 4, .n_ignored = &n_ignored,
        .first_ignored = &first_ignored};
    static ksllm_allocator own;
    own = a;
    n_ignored = 0;
    first_ignored = 0;
    memset(&err, 0, sizeof err);
    memset(b, 0, sizeof *b);
    b->alloc = &own;
    b->err = &err;
    b->max_ops = h.max_ops ? h.max_ops : 65536;
    u32 accept = pro_emit(b, PRO_ACCEPT, 0, 0, 0, 0);
    b->p.start = schema.p ? sch_emit(b, schema, 0, &o, accept)
        : sch_any(b, &o, accept);
    return b->status;
}

/* Every line of `texts` is taken, or none. */
static void check_lines(
    const pro *p, const char *schema, const char *texts, bool taken)
{
    for (const char *line = texts; *line;) {
        size_t n = strcspn(line, "\n");
        if (nv_takes(p, line, n) != taken)
            if (!CHECK(!"a verdict"))
                printf("  %s %s %.*s\n", schema, taken ? "refuses" : "takes",
                    (int)n, line);
        line += n + (line[n] == '\n');
    }
}

static void check_as(
    how h, const char *schema, const char *takes, const char *refuses)
{
    pro_build b;
    compile(&b, str_of(schema), h, MEM_LIBC);
    if (CHECK_OK(b.status, err)) {
        check_lines(&b.p, schema, takes, true);
        check_lines(&b.p, schema, refuses, false);
    }
    pro_free(&b);
}

static void check(const char *schema, const char *takes, const char *refuses)
{
    check_as((how){0}, schema, takes, refuses);
}

/* ---- what is taken -------------------------------------------------------- */

TEST(any_value)
{
    check("{}", "null\ntrue\n-1.5e3\n\"\"\n[]\n{}\n[1, [2], {\"a\": {}}]\n"
        "{ \"\\n\" : \"한글\\\\\\u001f\" }", "\n nul\n null\nnull \n[1,]\n{\"a\"}\n"
        "\"\\u0041\"\n01\n[1 2]\n{,}\n{\"a\":1,}");
    check("true", "{\"a\":[]}", "");
    pro_build b;
    if (CHECK_OK(compile(&b, (str){NULL, 0}, (how){0}, MEM_LIBC), err)) {
        check_lines(&b.p, "any", "[[[[[[{}]]]]]]\n1", true);
        check_lines(&b.p, "any", "[[[[[[{}]]]]]\nx", false);
    }
    pro_free(&b);
}

TEST(types)
{
    check("{\"type\":\"boolean\"}", "true\nfalse", "null\n1\n\"true\"");
    check("{\"type\":[\"null\",\"integer\"]}", "null\n-7\n0", "1.5\n\"1\"\n-");
    check("{\"type\":\"number\"}", "1\n1.25\n-0.5", "\"1\"\n+1\n.5");
    check("{\"type\":\"object\",\"enum\":[1,{\"a\":[1,{}]},\"x\"]}",
        "{\"a\":[1,{}]}\n{ \"a\" : [ 1 , { } ] }", "1\n\"x\"\n{\"a\":[1]}\n{}");
}

TEST(objects)
{
    static const char two[] = "{\"properties\":{\"a\":{\"type\":\"null\"},"
        "\"b\":{\"type\":\"boolean\"}},\"required\":[\"b\"],"
        "\"type\":\"object\",\"additionalProperties\":false}";
    check(two, "{\"b\":true}\n{\"a\":null,\"b\":true}\n{\"b\":true, \"a\":null}\n"
        "{ \"b\" : false }", "{}\n{\"a\":null}\n{\"b\":1}\n{\"b\":true,\"b\":true}\n"
        "{\"b\":true,\"c\":1}\n{\"b\":true,}\n[]\n1");
    check_as((how){.ordered = true}, two, "{\"b\":true}\n{\"a\":null,\"b\":true}",
        "{\"b\":true,\"a\":null}");
    check_as((how){.compact = true}, two, "{\"a\":null,\"b\":true}",
        "{ \"b\":true}\n{\"b\": true}\n{\"b\":true }");
    check_as((how){0}, two, "{    \"b\":true}", "{     \"b\":true}");
    check("{\"properties\":{\"a\":{\"type\":\"null\"}},\"type\":\"object\"}",
        "{}\n{\"ab\":1,\"a\":null,\"\":2}\n{\"x\":1,\"x\":2}",
        "{\"a\":1}\n{\"a\":null,\"a\":null}");
    check("{\"required\":[\"\\u0041\\\"\"],\"type\":\"object\","
        "\"additionalProperties\":{\"type\":\"null\"}}",
        "{\"A\\\"\":null}\n{\"b\":null,\"A\\\"\":null}", "{}\n{\"A\\\"\":1}");
    check("{\"type\":\"object\",\"minProperties\":2,\"maxProperties\":3,"
        "\"properties\":{\"a\":{},\"b\":{}}}", "{\"a\":1,\"b\":2}\n"
        "{\"x\":1,\"y\":2,\"a\":3}", "{}\n{\"a\":1}\n"
        "{\"x\":1,\"y\":2,\"a\":3,\"b\":4}");
    check("{\"type\":\"object\",\"properties\":{\"a\":false}}", "{\"b\":1}\n{}",
        "{\"a\":1}");
}

TEST(names_by_pattern)
{
    check("{\"type\":\"object\",\"properties\":{\"x1\":{\"maximum\":9}},"
        "\"patternProperties\":{\"^x\":{\"type\":\"integer\"},"
        "\"1$\":{\"minimum\":3}},\"additionalProperties\":false}",
        "{\"x1\":5}\n{\"x\":1}\n{\"a1\":3}\n{\"x21\":4}\n{\"a1\":true}",
        "{\"x1\":2}\n{\"x1\":10}\n{\"x1\":4.5}\n{\"a1\":2}\n{\"x21\":2}\n"
        "{\"x21\":\"\"}\n{\"a\":1}\n{\"x1\":5,\"x1\":5}");
    check("{\"type\":\"object\",\"propertyNames\":{\"maxLength\":2,"
        "\"pattern\":\"^[가-힣]\"},\"properties\":{\"abc\":{},\"나라\":{}}}",
        "{}\n{\"가\":1,\"나라\":2}", "{\"abc\":1}\n{\"a\":1}\n{\"가나다\":1}");
    check("{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]},"
        "\"additionalProperties\":{\"type\":\"null\"}}",
        "{\"a\":null,\"b\":null}", "{\"c\":null}\n{\"a\":1}");
}

TEST(lists)
{
    check("{\"type\":\"array\",\"items\":{\"type\":\"null\"}}",
        "[]\n[null]\n[ null , null ]", "[1]\n[null,]\n[,]\n{}");
    check("{\"type\":\"array\",\"minItems\":2,\"maxItems\":3}", "[1,2]\n[1,2,3]",
        "[]\n[1]\n[1,2,3,4]");
    check("{\"type\":\"array\",\"minItems\":1}", "[1]\n[1,2,3,4]", "[]");
    check("{\"type\":\"array\",\"maxItems\":0}", "[]\n[ ]", "[1]");
    check("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},"
        "{\"type\":\"boolean\"}],\"items\":{\"type\":\"integer\"},"
        "\"minItems\":1,\"maxItems\":4}", "[null]\n[null,true]\n[null,true,1,2]",
        "[]\n[true]\n[null,1]\n[null,true,true]\n[null,true,1,2,3]");
    check("{\"type\":\"array\",\"items\":[{\"type\":\"null\"}],"
        "\"additionalItems\":false}", "[]\n[null]", "[1]\n[null,1]");
    check("{\"type\":\"array\",\"prefixItems\":[{},false]}", "[]\n[1]", "[1,2]");
    check("{\"type\":\"array\",\"uniqueItems\":true,\"minItems\":1,"
        "\"items\":{\"enum\":[\"a\",\"b\",3]}}", "[\"a\"]\n[3, \"b\",\"a\"]",
        "[]\n[\"a\",\"a\"]\n[4]\n[3,\"a\",\"b\",3]");
}

TEST(strings)
{
    check("{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
        "\"한글\"\n\"a\\\"b\"\n\"\\\\\\n\"", "\"a\"\n\"abcd\"\n\"한글말들\"");
    check("{\"type\":\"string\",\"pattern\":\"^a+$\"}", "\"a\"\n\"aaa\"",
        "\"\"\n\"ab\"");
    check("{\"type\":\"string\",\"pattern\":\"^\\\"\\\\\\\\$\"}", "\"\\\"\\\\\"",
        "\"\\\"\"");
    check("{\"type\":\"string\",\"pattern\":\"b\",\"maxLength\":3}",
        "\"b\"\n\"abc\"", "\"a\"\n\"abcd\"\n\"\"");
    check("{\"type\":\"string\",\"allOf\":[{\"pattern\":\"^a\"},"
        "{\"pattern\":\"b$\"}]}", "\"ab\"\n\"axxb\"", "\"a\"\n\"b\"\n\"ba\"");
    check("{\"type\":\"string\",\"format\":\"date\"}", "\"2026-02-28\"",
        "\"2026-02-29\"\n\"2026\"");
    check("{\"type\":\"string\",\"format\":\"color\"}", "\"red\"", "1");
    check("{\"type\":\"string\",\"not\":{\"pattern\":\"^a\"}}", "\"\"\n\"ba\"",
        "\"a\"\n\"ab\"");
    check("{\"type\":\"string\",\"not\":{\"enum\":[\"a\",\"b\",1]}}",
        "\"\"\n\"ab\"\n\"c\"", "\"a\"\n\"b\"");
}

TEST(numbers)
{
    check("{\"type\":\"integer\",\"minimum\":-3,\"exclusiveMaximum\":12}",
        "-3\n0\n11", "-4\n12\n1.5");
    check("{\"type\":\"number\",\"allOf\":[{\"minimum\":0},{\"maximum\":1},"
        "{\"exclusiveMinimum\":0}]}", "1\n0.5", "0\n1.01\n-1");
    check("{\"minimum\":5,\"exclusiveMinimum\":true,\"type\":\"integer\"}",
        "6", "5");
    check("{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":10}", "10\n25",
        "5\n12");
    check("{\"type\":\"integer\",\"not\":{\"minimum\":3}}", "2\n-9", "3\n4");
}

TEST(values)
{
    check("{\"enum\":[\"빨강\",\"빨\",1,null,true,\"a\\nb\"]}",
        "\"빨강\"\n\"빨\"\n1\nnull\ntrue\n\"a\\nb\"", "\"빨강\n2\nfalse\n\"\"");
    check("{\"const\":[1,\"x\",{}]}", "[1,\"x\",{}]\n[ 1 , \"x\" , { } ]",
        "[1,\"x\"]\n[]");
    check("{\"const\":2.0}", "2.0\n2", "2.00\n3");
    check("{\"enum\":[1,2,3,\"ab\",\"abc\"],\"minimum\":2,\"maxLength\":2}",
        "2\n3\n\"ab\"", "1\n\"abc\"");
    check("{\"enum\":[\"ab\",\"b\"],\"pattern\":\"^a\",\"type\":\"string\"}",
        "\"ab\"", "\"b\"");
    check("{\"allOf\":[{\"enum\":[1,2,3]},{\"enum\":[2,3.0,4]}]}", "2\n3",
        "1\n4");
    check("{\"enum\":[1,2],\"not\":{\"const\":1}}", "2", "1");
}

TEST(references)
{
    check("{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"next\":"
        "{\"$ref\":\"#/$defs/n\"}},\"additionalProperties\":false}},"
        "\"$ref\":\"#/$defs/n\"}", "{}\n{\"next\":{\"next\":{}}}",
        "{\"next\":1}\n{\"next\":{\"next\":{}}");
    check("{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", "[]\n[[],[[]]]",
        "[1]\n[[]");
    check("{\"properties\":{\"a\":{\"$ref\":\"#/$defs/a~1b%25\",\"maxLength\":1}},"
        "\"$defs\":{\"a/b%\":{\"type\":\"string\"}}}", "{\"a\":\"x\"}",
        "{\"a\":\"xy\"}\n{\"a\":1}");
    check("{\"$ref\":\"#x\",\"$defs\":{\"q\":{\"$anchor\":\"x\","
        "\"type\":\"null\"}}}", "null", "1");
    check("{\"$id\":\"http://a.b/c/d\",\"$ref\":\"e#/$defs/f\",\"$defs\":{\"q\":{"
        "\"$id\":\"/c/e\",\"$defs\":{\"f\":{\"type\":\"null\"}}}}}", "null", "1");
    check("{\"type\":\"array\",\"items\":[{\"type\":\"null\"},"
        "{\"$ref\":\"#/items/0\"}]}", "[null,null]", "[null,1]");
}

TEST(branches)
{
    check("{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"string\","
        "\"maxLength\":1},{\"const\":\"abc\"}]}", "null\n\"a\"\n\"abc\"",
        "\"ab\"\n1");
    check("{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},"
        "\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
        "{\"a\":1}\n{\"b\":1}\n{\"a\":1,\"b\":2}", "{}\n{\"c\":1}");
    check("{\"type\":\"object\",\"oneOf\":[{\"required\":[\"a\"]},"
        "{\"required\":[\"b\",\"c\"]}]}", "{\"a\":1}\n{\"b\":1,\"c\":1}\n"
        "{\"a\":1,\"b\":2}", "{}\n{\"a\":1,\"b\":1,\"c\":1}\n{\"b\":1}");
    check("{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}}},"
        "{\"properties\":{\"a\":{\"minimum\":3}},\"required\":[\"a\"]}],"
        "\"type\":\"object\"}", "{\"a\":3}\n{\"b\":0,\"a\":4}",
        "{}\n{\"a\":2}\n{\"a\":3.5}");
    check("{\"type\":\"object\",\"if\":{\"required\":[\"a\"]},"
        "\"then\":{\"required\":[\"b\"]},\"else\":{\"required\":[\"c\"]}}",
        "{\"a\":1,\"b\":1}\n{\"c\":1}", "{}\n{\"a\":1}\n{\"a\":1,\"c\":1}");
    check("{\"type\":\"object\",\"dependentRequired\":{\"a\":[\"b\"]},"
        "\"dependencies\":{\"c\":{\"maxProperties\":1}}}",
        "{}\n{\"a\":1,\"b\":1}\n{\"c\":1}", "{\"a\":1}\n{\"c\":1,\"d\":1}");
    check("{\"not\":{\"type\":\"object\",\"required\":[\"a\"]}}",
        "1\n{}\n{\"b\":1}", "{\"a\":1}");
    check("{\"not\":{\"anyOf\":[{\"type\":\"string\"},{\"not\":"
        "{\"type\":[\"string\",\"null\"]}}]}}", "null", "\"\"\n1");
    check("{\"type\":\"object\",\"not\":{\"properties\":{\"a\":{\"const\":1}},"
        "\"required\":[\"a\"]},\"properties\":{\"a\":{\"enum\":[1,2]}}}",
        "{}\n{\"a\":2}\n{\"b\":1}", "{\"a\":1}");
    check("{\"anyOf\":[false,{\"type\":\"null\"},{\"allOf\":[{\"type\":\"null\"},"
        "{\"type\":\"string\"}]}]}", "null", "\"\"");
}

TEST(notes_are_ignored)
{
    check("{\"$schema\":\"http://json-schema.org/draft-07/schema#\","
        "\"title\":\"t\",\"description\":1,\"default\":[],\"examples\":[{}],"
        "\"$comment\":\"c\",\"readOnly\":true,\"x-mine\":{},\"then\":false,"
        "\"deprecated\":true,\"contentEncoding\":\"base64\",\"type\":\"null\"}",
        "null", "1");
}

/* ---- what is not ---------------------------------------------------------- */

/* `at`: what stands where the offset has to point. */
static void check_fails(const char *schema, ksllm_status status, const char *at)
{
    pro_build b;
    str text = str_of(schema);
    bool same = CHECK_EQ(compile(&b, text, (how){0}, MEM_LIBC), status)
        && CHECK_EQ(err.status, status)
        && CHECK_EQ(err.offset, strstr(schema, at) - schema);
    if (!same)
        printf("  %s: %s\n", schema, err.text);
    pro_free(&b);
}

TEST(errors_say_where)
{
    static const struct { const char *schema, *at; } wrong[] = {
        {"{\"type\":\"strin\"}", "\"strin"}, {"{\"type\":1}", "1"},
        {"{\"properties\":[]}", "[]"}, {"{\"minLength\":-1}", "-1"},
        {"{\"minLength\":1.5,\"maxLength\":2}", "1.5"}, {"{\"anyOf\":[]}", "[]"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "\"minL"},
        {"{\"items\":7}", "7"}, {"[]", "[]"}, {"7", "7"},
        {"{\"properties\":{\"a\":3}}", "3"}, {"{\"allOf\":[4]}", "4"},
        {"{\"required\":[\"a\",2]}", "2"}, {"{\"$ref\":\"#/x\"}", "\"$ref"},
        {"{\"$ref\":\"#\"}", "\"$ref"}, {"false", "false"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "\"$ref"},
        {"{\"type\":\"string\",\"enum\":[1]}", "{"}, {"{\"not\":{}}", "{"},
        {"{\"type\":\"string\",\"pattern\":\"a(\"}", "(\""},
    };
    for (size_t i = 0; i < KS_LEN(wrong); i++)
        check_fails(wrong[i].schema, KSLLM_ERR_ARGUMENT, wrong[i].at);
    check_fails("{\"type\" \"null\"}", KSLLM_ERR_ARGUMENT, "\"null");
}

TEST(what_cannot_be_enforced_is_refused)
{
    static const struct { const char *schema, *at; } rows[] = {
        {"{\"type\":\"array\",\"contains\":{}}", "\"contains"},
        {"{\"$dynamicRef\":\"#a\"}", "\"$dyn"},
        {"{\"$ref\":\"http://a.b/c\"}", "\"$ref"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "\"uniq"},
        {"{\"properties\":{\"a\":{\"not\":{\"items\":{\"type\":\"null\"}}}}}",
            "\"items"},
        {"{\"allOf\":[{}],\"unevaluatedProperties\":false}", "\"uneval"},
        {"{\"type\":\"number\",\"multipleOf\":0.3}", "\"multi"},
    };
    for (size_t i = 0; i < KS_LEN(rows); i++) {
        check_fails(rows[i].schema, KSLLM_ERR_UNSUPPORTED, rows[i].at);
        pro_build b;
        compile(&b, str_of(rows[i].schema), (how){.lenient = true}, MEM_LIBC);
        CHECK_OK(b.status, err);
        CHECK_EQ(n_ignored, 1);
        CHECK_EQ(first_ignored, strstr(rows[i].schema, rows[i].at)
            - rows[i].schema);
        pro_free(&b);
    }
    check_fails("{\"type\":\"string\",\"pattern\":\"a(?=b)\"}",
        KSLLM_ERR_UNSUPPORTED, "(?=");
    check_as((how){.lenient = true},
        "{\"type\":\"string\",\"pattern\":\"a(?=b)\",\"maxLength\":2}",
        "\"xy\"", "\"xyz\"");
}

/* ---- work and memory ------------------------------------------------------ */

static char long_text[1 << 20];
static size_t n_long;

static void put(const char *fmt, int a, int b)
{
    size_t left = sizeof long_text - n_long;
    n_long += (size_t)snprintf(long_text + n_long, left, fmt, a, b);
    CHECK(n_long < sizeof long_text);
}

static ksllm_status compile_long(how h)
{
    pro_build b;
    ksllm_status status = compile(&b, (str){long_text, n_long}, h, MEM_LIBC);
    pro_free(&b);
    n_long = 0;
    return status;
}

TEST(lengths_that_contradict_a_pattern)
{
    static const char *const none[] = {
        "\"pattern\":\"^a{3}$\",\"maxLength\":2",
        "\"pattern\":\"^a{3}$\",\"minLength\":4",
        "\"pattern\":\"^(가나|..{5})$\",\"minLength\":3,\"maxLength\":5",
        "\"pattern\":\"^(\\n\\n\\n)*$\",\"minLength\":4,\"maxLength\":5",
        "\"format\":\"uuid\",\"maxLength\":35"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char schema[200];
        snprintf(schema, sizeof schema, "{\"type\":\"string\",%s}", none[i]);
        pro_build b;
        CHECK_EQ(compile(&b, str_of(schema), (how){0}, MEM_LIBC),
            KSLLM_ERR_ARGUMENT);
        pro_free(&b);
    }
    check("{\"type\":[\"string\",\"null\"],\"pattern\":\"^a{3}$\","
        "\"maxLength\":2}", "null", "\"aaa\"\n\"aa\"");
    check("{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^가{3}$\","
        "\"maxLength\":2}}", "{}", "{\"가가가\":1}\n{\"가가\":1}");
    check("{\"pattern\":\"^(ab)*$\",\"minLength\":3,\"maxLength\":5,"
        "\"type\":\"string\"}", "\"abab\"", "\"ab\"\n\"aba\"\n\"ababab\"");
    check("{\"pattern\":\"^가*$\",\"minLength\":600,\"type\":\"string\"}", "",
        "\"가\"");
    pro_build b; /* of one character or five: no way to two, three or four */
    if (CHECK_OK(compile(&b, str_of("{\"pattern\":\"^(나|나{5}|a{2})$\","
            "\"minLength\":2,\"maxLength\":4,\"type\":\"string\"}"), (how){0},
            MEM_LIBC), err)) {
        check_lines(&b.p, "gaps", "\"aa\"", true);
        nv m;
        nv_begin(&m, &b.p);
        CHECK(nv_next(&m, '"') && !nv_next(&m, 0xeb));
        nv_end(&m);
    }
    pro_free(&b);
}

TEST(large_schemas_work)
{
    put("{\"enum\":[0", 0, 0);
    for (int i = 0; i < 24242; i++) put(",\"값 %d of %d\"", i, i * 7919 % 10007);
    put("]}", 0, 0);
    CHECK_OK(compile_long((how){.max_ops = 1 << 18}), err);
    put("{\"anyOf\":[{}", 0, 0);
    for (int i = 0; i < 10000; i++)
        put(",{\"properties\":{\"k%d\":{\"const\":%d}}}", i, i);
    put("]}", 0, 0);
    CHECK_OK(compile_long((how){.max_ops = 1 << 19}), err);
}

TEST(what_multiplies_out_ends)
{
    put("{\"allOf\":[{}", 0, 0);
    for (int i = 0; i < 40; i++)
        put(",{\"anyOf\":[{\"minLength\":%d},{\"maxLength\":%d}]}", i, 99 - i);
    put("]}", 0, 0);
    CHECK_EQ(compile_long((how){0}), KSLLM_ERR_BUFFER);
    put("{\"allOf\":[{\"minItems\":9}", 0, 0);
    for (int i = 0; i < 40; i++)
        put(",{\"anyOf\":[{\"properties\":{\"a%d\":{}}},{\"required\":[\"b%d\"]}]}",
            i, i);
    put("]}", 0, 0);
    CHECK_EQ(compile_long((how){0}), KSLLM_ERR_BUFFER);
    put("{\"$ref\":\"#/$defs/0\",\"$defs\":{\"60\":{}", 0, 0);
    for (int i = 0; i < 60; i++)
        put(",\"%d\":{\"allOf\":[{\"$ref\":\"#/$defs/%d\"}", i, i + 1),
        put(",{\"$ref\":\"#/$defs/%d\"}]}", i + 1, 0);
    put("}}", 0, 0);
    CHECK_OK(compile_long((how){0}), err);
}

/* Each word of the standard beside others, in forms that are seldom written. */
TEST(words_together)
{
    static const struct { const char *schema, *takes, *refuses; } rows[] = {
        {"{\"enum\":[[1.0,2],[1,3],{\"a\":1},{\"b\":1},{\"a\":[1]}],\"no"
            "t\":{\"enum\":[{\"a\":1},[1,3]]}}",
            "[1.0,2]\n{\"b\":1}\n{\"a\":[1]}",
            "[1,3]\n{\"a\":1}"},
        {"{\"enum\":[-5,-2,0,3,20,1e2],\"minimum\":-3,\"maximum\":50}",
            "-2\n0\n3\n20",
            "-5\n1e2"},
        {"{\"type\":\"integer\",\"allOf\":[{\"minimum\":-10},{\"minimum"
            "\":-3},{\"minimum\":-0.5e1},{\"maximum\":0},{\"maximum\":7}]}",
            "-3\n0\n-1",
            "-4\n1\n-10"},
        {"{\"enum\":[0,-0,0.5,1.50],\"minimum\":0}",
            "0\n0.5\n1.50",
            "-1"},
        {"{\"not\":{\"enum\":[true,null]}}",
            "false\n1\n\"\"",
            "true\nnull"},
        {"{\"type\":\"integer\",\"not\":{\"maximum\":3}}",
            "4\n50",
            "3\n-1"},
        {"{\"type\":\"integer\",\"if\":{\"minimum\":5},\"then\":{\"maxim"
            "um\":9}}",
            "3\n5\n9",
            "10\n20"},
        {"{\"type\":\"integer\",\"if\":{\"minimum\":5},\"else\":{\"maxim"
            "um\":2}}",
            "2\n5\n90",
            "3\n4"},
        {"{\"type\":\"integer\",\"if\":{\"minimum\":5}}",
            "3\n7",
            "\"a\""},
        {"{\"not\":{\"allOf\":[{\"type\":[\"null\",\"boolean\"]},{\"type"
            "\":[\"null\",\"string\"]}]}}",
            "1\ntrue\n\"\"",
            "null"},
        {"{\"not\":{\"not\":{\"type\":\"null\"}}}",
            "null",
            "1"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"unevaluatedPr"
            "operties\":false}",
            "{}\n{\"a\":1}",
            "{\"b\":1}"},
        {"{\"$id\":\"http://h/a/b\",\"$ref\":\"//k/x#/$defs/n\",\"$defs"
            "\":{\"q\":{\"$id\":\"http://k/x\",\"$defs\":{\"n\":{\"type\":"
            "\"null\"}}}}}",
            "null",
            "1"},
        {"{\"id\":\"http://h/a\",\"$ref\":\"c\",\"definitions\":{\"q\":{"
            "\"id\":\"c\",\"type\":\"null\"}}}",
            "null",
            "1"},
        {"{\"$ref\":\"#n\",\"definitions\":{\"q\":{\"$id\":\"#n\",\"type"
            "\":\"null\"}}}",
            "null",
            "1"},
        {"{\"$ref\":\"#n\",\"definitions\":{\"q\":{\"id\":\"#n\",\"type"
            "\":\"null\"}}}",
            "null",
            "1"},
        {"{\"$ref\":\"#/definitions/q~0x\",\"definitions\":{\"q~y\":{},"
            "\"q~x\":{\"type\":\"null\"}}}",
            "null",
            "1"},
        {"{\"$ref\":\"#/$defs/a/allOf/1\",\"$defs\":{\"a\":{\"allOf\":[{"
            "\"type\":\"string\"},{\"type\":\"null\"}]}}}",
            "null",
            "1\n\"\""},
        {"{\"$id\":\"http://h/a\",\"$defs\":{\"q\":{\"$id\":\"http://h/a"
            "\",\"type\":\"string\"},\"n\":{\"$anchor\":\"n\",\"type\":\"nu"
            "ll\"}},\"$ref\":\"#n\"}",
            "null",
            "1"},
        {"{\"type\":\"object\",\"propertyNames\":{\"const\":\"a\"},\"pro"
            "perties\":{\"a\":{\"type\":\"null\"},\"b\":{}}}",
            "{}\n{\"a\":null}",
            "{\"b\":1}\n{\"a\":1}"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{},\"abc\":{}},\"pr"
            "opertyNames\":{\"minLength\":2}}",
            "{}\n{\"abc\":1}\n{\"xy\":1}",
            "{\"a\":1}\n{\"z\":1}"},
        {"{\"type\":\"object\",\"properties\":{\"b\":{},\"ab\":{\"type\""
            ":\"null\"}},\"propertyNames\":{\"pattern\":\"^a\"}}",
            "{\"ab\":null}\n{\"a\":1}",
            "{\"b\":1}\n{\"c\":1}\n{\"ab\":1}"},
        {"{\"type\":\"object\",\"propertyNames\":false,\"properties\":{"
            "\"a\":{}}}",
            "{}",
            "{\"a\":1}\n{\"b\":1}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"type\":\"integer\"},"
            "\"properties\":{\"a\":{}}}",
            "{}",
            "{\"a\":1}\n{\"b\":1}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"$ref\":\"#/$defs/n\""
            "},\"$defs\":{\"n\":{\"maxLength\":1}}}",
            "{}\n{\"a\":1}",
            "{\"ab\":1}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]"
            "},\"properties\":{\"a\":{},\"c\":{}},\"patternProperties\":{\""
            "^b\":{\"type\":\"null\"}}}",
            "{\"a\":1}\n{\"b\":null}",
            "{\"b\":1}\n{\"c\":1}\n{\"d\":1}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"format\":\"date\"},"
            "\"properties\":{\"a\":{},\"2026-01-02\":{\"type\":\"null\"}}}",
            "{}\n{\"2026-01-02\":null}\n{\"2026-11-02\":1}",
            "{\"a\":1}\n{\"2026-01-02\":1}"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":["
            "1,2]},\"maxItems\":2}",
            "[]\n[1]\n[1,2]\n[2,1]",
            "[1,1]\n[1,2,1]\n[3]"},
        {"{\"type\":\"array\",\"maxItems\":1,\"uniqueItems\":true}",
            "[]\n[1]",
            "[1,2]"},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"}],\"it"
            "ems\":false}",
            "[]\n[null]",
            "[1]\n[null,1]"},
        {"{\"type\":\"array\",\"items\":[{\"type\":\"null\"}],\"addition"
            "alItems\":{\"type\":\"string\"},\"minItems\":1}",
            "[null]\n[null,\"\"]",
            "[]\n[null,1]"},
        {"{\"enum\":[\"a\",\"bb\"],\"not\":{\"maxLength\":1}}",
            "\"bb\"",
            "\"a\""},
        {"{\"type\":\"string\",\"enum\":[\"2026-01-02\",\"x\"],\"format"
            "\":\"date\"}",
            "\"2026-01-02\"",
            "\"x\""},
        {"{\"type\":[\"string\",\"number\"],\"const\":\"a\"}",
            "\"a\"",
            "\"b\"\n1"},
    };
    for (size_t i = 0; i < KS_LEN(rows); i++)
        check(rows[i].schema, rows[i].takes, rows[i].refuses);
}

static void put_times(char **p, const char *format, int times)
{
    for (int i = 0; i < times; i++)
        *p += sprintf(*p, format, i, i);
}

/* What is looked at again and again costs work, or is looked at once. */
TEST(hostile_schemas_end_soon)
{
    static const char rule[] = "\"%d\":{\"$ref\":\"#/$defs/b\",\"title\":\"\"},";
    static const struct {
        const char *begin, *many; int n;
        const char *middle, *more; int m;
        const char *end;
    } rows[] = {
        {"{\"$defs\":{\"b\":{", "\"minimum\":1,", 30000,
            "\"type\":\"integer\"}},\"properties\":{", rule, 3900, "\"a\":{}}}"},
        {"{\"$defs\":{\"b\":{", "\"idle\":1,", 40000,
            "\"type\":\"null\"}},\"properties\":{", rule, 3900, "\"a\":{}}}"},
        {"{\"$defs\":{\"b\":{\"type\":[", "\"null\",", 30000,
            "\"null\"]}},\"properties\":{", rule, 3900, "\"a\":{}}}"},
        {"{\"$defs\":{\"c\":{\"$id\":\"c/\",\"$defs\":{\"d\":{\"$id\":\"d/\","
            "\"$defs\":{", "\"a%d\":{\"$id\":\"x%d\"},", 20000,
            "\"b\":{}}}}}},\"properties\":{",
            "\"p%d\":{\"$ref\":\"q%d\"},", 300, "\"a\":{}}}"},
        {"{\"allOf\":[", "{\"pattern\":\"^a*b?$\"},", 1000, "{\"enum\":[\"", "a",
            400000, "\"]}]}"},
        {"{\"type\":\"string\",\"minLength\":2,\"allOf\":[",
            "{\"pattern\":\"a.{90}b%d\"},", 3000, "{}]}", "", 0, ""},
    };
    char *s = fx_memory(NULL, 2 << 20);
    for (size_t i = 0; i < KS_LEN(rows); i++) {
        char *p = s;
        p += sprintf(p, "%s", rows[i].begin);
        put_times(&p, rows[i].many, rows[i].n);
        p += sprintf(p, "%s", rows[i].middle);
        put_times(&p, rows[i].more, rows[i].m);
        p += sprintf(p, "%s", rows[i].end);
        clock_t t = clock();
        pro_build b;
        compile(&b, (str){s, (size_t)(p - s)}, (how){.lenient = true},
            MEM_LIBC);
        double took = (double)(clock() - t) / CLOCKS_PER_SEC;
        if (!CHECK(took < 1.5 * TEST_SLOWER)
            || !CHECK(!b.status || b.status == KSLLM_ERR_BUFFER))
            printf("  row %zu: %g s, %s\n", i, took, err.text);
        pro_free(&b);
    }
    free(s);
}

TEST(memory_may_fail)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":"
        "{\"enum\":[\"x\\n\",2,[3]]},\"b\":{\"type\":\"string\",\"pattern\":"
        "\"^a|b$\",\"maxLength\":9}},\"patternProperties\":{\"^c\":{\"minimum\":3}},"
        "\"anyOf\":[{\"required\":[\"a\"]},{\"$ref\":\"#/$defs/d\"}],"
        "\"$defs\":{\"d\":{\"minProperties\":1}},\"required\":[\"b\"]}";
    fx_alloc a;
    for (long at = 1;; at++) {
        pro_build b;
        fx_alloc_init(&a);
        a.fail_at = at;
        ksllm_status status
            = compile(&b, str_of(schema), (how){0}, a.allocator);
        CHECK_EQ(status, a.failed ? KSLLM_ERR_MEMORY : KSLLM_OK);
        pro_free(&b);
        if (!CHECK(a.live == 0 && !a.wrong_size) || !a.failed) break;
    }
    CHECK(a.calls > 50);
}

TEST_MAIN
