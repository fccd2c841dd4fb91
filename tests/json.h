/* json.h - whether a text is JSON, for tests: written apart from the library's
 * own reader.
 */
#ifndef KSLLM_TEST_JSON_H
#define KSLLM_TEST_JSON_H

#include <stdbool.h>
#include <string.h>

/* JSON by RFC 8259, as plainly as it can be written: behind the value at p, or
 * NULL. Strings must be UTF-8. */
static inline const char *json_of(const char *p, int depth)
{
    p += strspn(p, " \t\r\n");
    if (strchr("[{", *p) && *p) {
        char close = *p++ == '{' ? '}' : ']';
        p += strspn(p, " \t\r\n");
        if (*p == close)
            return p + 1;
        do {
            if (close == '}') {
                p += strspn(p, " \t\r\n");
                if (*p != '"' || !(p = json_of(p, depth + 1)))
                    return NULL;
                p += strspn(p, " \t\r\n");
                if (*p++ != ':')
                    return NULL;
            }
            if (depth > 100 || !(p = json_of(p, depth + 1)))
                return NULL;
            p += strspn(p, " \t\r\n");
        } while (*p++ == ',');
        return p[-1] == close ? p : NULL;
    }
    if (*p == '"') {
        for (p++; *p != '"'; p++) {
            if ((unsigned char)*p < 32)
                return NULL;
            if (*p != '\\')
                continue;
            if (*++p == 'u' && strspn(p + 1, "0123456789abcdefABCDEF") >= 4)
                p += 4;
            else if (!*p || !strchr("\"\\/bfnrt", *p))
                return NULL;
        }
        return p + 1;
    }
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++)
        if (strncmp(p, words[i], strlen(words[i])) == 0)
            return p + strlen(words[i]);
    p += *p == '-';
    size_t n = strspn(p, "0123456789");
    if (n == 0 || (*p == '0' && n > 1))
        return NULL;
    p += n;
    if (*p == '.') {
        n = strspn(++p, "0123456789");
        if (n == 0)
            return NULL;
        p += n;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        n = strspn(p, "0123456789");
        if (n == 0)
            return NULL;
        p += n;
    }
    return p;
}

static inline bool is_json(const char *p)
{
    p = json_of(p, 0);
    return p && p[strspn(p, " \t\r\n")] == 0;
}

#endif
